import math

import pytest
import torch
from hybrid_nas_kernels.attention import IMPLEMENTATIONS, attention, attention_reference, attention_step, blocked

ELSEWHERE = ("reference", "triton", "flash_attn")  # test_triton.py and test_published.py have the last
FAST = [name for name in IMPLEMENTATIONS if name not in ELSEWHERE]


def inputs(tokens, heads=4, kv_heads=2, head_dim=6, batch=2, value_dim=None):
    g = torch.Generator().manual_seed(0)
    sizes = ((heads, head_dim), (kv_heads, head_dim), (kv_heads, value_dim or head_dim))
    shapes = [(batch, tokens, h, d) for h, d in sizes]
    return [torch.randn(shape, dtype=torch.float64, generator=g) for shape in shapes]


def naive(q, k, v, window, sinks):
    """One token and one head at a time, in Python's own arithmetic order: independent of every implementation."""
    batch, tokens, heads, head_dim = q.shape
    y = q.new_zeros(batch, tokens, heads, v.shape[-1])
    for b in range(batch):
        for h in range(heads):
            g = h // (heads // k.shape[2])
            for t in range(tokens):
                seen = [s for s in range(t + 1) if window is None or t - window < s or s < sinks]
                weights = [math.exp(float(q[b, t, h] @ k[b, s, g]) / math.sqrt(head_dim)) for s in seen]
                y[b, t, h] = sum(w * v[b, s, g] for w, s in zip(weights, seen, strict=True)) / sum(weights)
    return y


@pytest.mark.parametrize(("window", "sinks"), [(None, 0), (1, 0), (3, 0), (4, 2), (20, 5)])
def test_the_reference_is_the_definition(window, sinks, assert_close):
    q, k, v = inputs(11, batch=1)
    assert_close(attention_reference(q, k, v, window=window, sinks=sinks), naive(q, k, v, window, sinks))


@pytest.mark.parametrize("value_dim", [2, 15])
def test_values_of_another_width(value_dim, assert_close):
    short, long = inputs(11, batch=1, value_dim=value_dim), inputs(150, value_dim=value_dim)
    assert_close(attention_reference(*short), naive(*short, None, 0))
    expected = with_gradients(attention_reference, long, torch.float64, window=40, sinks=3)
    for implementation in FAST:
        got = with_gradients(attention, long, torch.float64, window=40, sinks=3, implementation=implementation)
        for actual, reference in zip(got, expected, strict=True):
            assert_close(actual, reference)
    q, k, v = short
    assert_close(attention_step(q[:, -1], k, v), attention_reference(q, k, v)[:, -1])


def with_gradients(function, values, dtype, **options):
    leaves = [value.to(dtype).requires_grad_() for value in values]
    y = function(*leaves, **options)
    total = (y * torch.linspace(-1, 2, y.numel(), dtype=dtype).view(y.shape)).sum()
    return [y.detach(), *torch.autograd.grad(total, leaves)]


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("tokens", "kv_heads", "window", "sinks"),
    [
        (1, 1, None, 0),
        (7, 4, None, 0),
        (64, 2, None, 0),
        (150, 1, None, 0),
        (1, 2, 1, 0),
        (9, 2, 3, 1),
        (9, 2, 30, 2),  # wider than the sequence: no window
        (150, 2, 16, 0),
        (150, 1, 16, 4),  # sinks far from the window
        (150, 2, 100, 40),  # sinks reach into a block's window
        (150, 2, 1, 1),
        (200, 1, 65, 64),
    ],
)
def test_outputs_and_gradients_equal_the_float64_reference(
    implementation, dtype, tokens, kv_heads, window, sinks, assert_close
):
    values = inputs(tokens, kv_heads=kv_heads)
    expected = with_gradients(attention_reference, values, torch.float64, window=window, sinks=sinks)
    got = with_gradients(attention, values, dtype, window=window, sinks=sinks, implementation=implementation)
    for actual, reference in zip(got, expected, strict=True):
        assert_close(actual, reference)


def test_weights_recomputed_are_weights_kept(monkeypatch):
    values = inputs(150)
    kept = with_gradients(attention, values, torch.float32, window=40, sinks=3, implementation="blocked")
    monkeypatch.setattr(blocked, "KEPT_WEIGHTS", 0)
    recomputed = with_gradients(attention, values, torch.float32, window=40, sinks=3, implementation="blocked")
    assert all(torch.equal(a, b) for a, b in zip(kept, recomputed, strict=True))


def test_gradcheck():
    values = [v.requires_grad_() for v in inputs(5, heads=2, kv_heads=1, head_dim=2, batch=1)]
    assert torch.autograd.gradcheck(lambda *v: attention(*v, window=2, sinks=1, implementation="blocked"), values)


@pytest.mark.parametrize("implementation", FAST)
def test_scores_far_beyond_the_range_of_exp(implementation):
    """exp overflows float32 at 88. Rounding a score s by eps |s| turns a weight by as large a share, so that is the
    least error that float32 can promise here, four roundings of it allowed."""
    q, k, v = (value.float().double() for value in inputs(40))
    q = 256 * q
    largest = float((q.abs().amax() * k.abs().amax()) * 6**0.5)
    assert largest > 1000
    got = attention(q.float(), k.float(), v.float(), implementation=implementation).double()
    tolerance = 4 * largest * torch.finfo(torch.float32).eps * float(v.abs().max())
    torch.testing.assert_close(got, attention_reference(q, k, v), rtol=0, atol=tolerance)


def test_a_step_sees_the_slots_it_is_given_in_any_order(assert_close):
    q, k, v = inputs(12)
    expected = attention_reference(q, k, v)[:, -1]
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    assert_close(attention_step(q[:, -1], k[:, order], v[:, order]), expected)


def test_heads_that_do_not_share_evenly_are_an_error():
    q, k, v = inputs(4, heads=4, kv_heads=3)
    with pytest.raises(ValueError, match="heads must be a multiple of kv_heads, found 4 and 3"):
        attention(q, k, v)
