import importlib.metadata

import pytest
import torch
from hybrid_nas_kernels.gated_delta import (
    IMPLEMENTATIONS,
    choose,
    gated_delta,
    gated_delta_reference,
    gated_delta_step,
    refused,
)

ON_CPU = ["chunked"]
NAMES = ("q", "k", "v", "log_decay", "beta", "initial_state")
IN_FLOAT32 = ("log_decay", "initial_state")  # as the mixer hands them over when its matrices are bfloat16


def inputs(tokens, heads=3, key_dim=5, value_dim=7, batch=2, seed=0, decay=1.0):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=g)

    k = normal(batch, tokens, heads, key_dim)
    return {
        "q": normal(batch, tokens, heads, key_dim),
        "k": k / k.norm(dim=-1, keepdim=True),
        "v": normal(batch, tokens, heads, value_dim),
        "log_decay": -decay * torch.rand(batch, tokens, heads, dtype=torch.float64, generator=g),
        "beta": torch.rand(batch, tokens, heads, dtype=torch.float64, generator=g),
        "initial_state": normal(batch, heads, key_dim, value_dim),
    }


def run(function, values, dtype, **options):
    """Outputs and the gradients of a random weighting of them, in the order of NAMES."""
    wide = torch.promote_types(dtype, torch.float32)
    leaves = {n: v.to(wide if n in IN_FLOAT32 else dtype).requires_grad_() for n, v in values.items()}
    y, final = function(**leaves, **options)
    g = torch.Generator().manual_seed(1)
    weights = (torch.randn(out.shape, dtype=torch.float64, generator=g).to(out) for out in (y, final))
    total = sum((out * weight).sum() for out, weight in zip((y, final), weights, strict=True))
    return y.detach(), final.detach(), torch.autograd.grad(total, list(leaves.values()))


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("implementation", ON_CPU)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tokens", [1, 3, 32, 37, 96])
def test_outputs_and_all_gradients_equal_the_float64_recurrence(implementation, dtype, tokens, assert_close):
    values = inputs(tokens)
    y, state, gradients = run(gated_delta_reference, values, torch.float64)
    got_y, got_state, got = run(gated_delta, values, dtype, implementation=implementation)
    assert_close(got_y, y)
    assert_close(got_state, state)
    for gradient, expected in zip(got, gradients, strict=True):
        assert_close(gradient, expected)


@pytest.mark.parametrize("implementation", ON_CPU)
def test_gradcheck(implementation):
    values = [v.requires_grad_() for v in inputs(5, heads=2, key_dim=2, value_dim=2, batch=1).values()]

    def function(q, k, v, log_decay, beta, state):
        return gated_delta(q, k, v, log_decay, beta, initial_state=state, implementation=implementation)

    assert torch.autograd.gradcheck(function, values)


@pytest.mark.parametrize("implementation", ON_CPU)
def test_decays_far_beyond_the_range_of_exp(implementation, assert_close):
    values = inputs(48, decay=200.0)
    y, state, gradients = run(gated_delta_reference, values, torch.float64)
    got_y, got_state, got = run(gated_delta, values, torch.float32, implementation=implementation)
    assert_close(got_y, y)
    assert_close(got_state, state)
    for gradient, expected in zip(got, gradients, strict=True):
        assert_close(gradient, expected)


def test_a_key_is_overwritten():
    """With beta 1 and no decay the last value written under a key is what that key reads: the delta rule's point."""
    key = torch.tensor([0.6, 0.8]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    v = torch.tensor([5.0, -2.0, 3.0]).view(1, 3, 1, 1)
    zero = torch.zeros(1, 3, 1)
    for implementation in ("reference", *ON_CPU):
        y, _ = gated_delta(key, key, v, zero, zero + 1, implementation=implementation)
        torch.testing.assert_close(y, v)


def test_steps_are_the_recurrence(assert_close):
    values = inputs(9)
    whole, final = gated_delta_reference(**values)
    state = values.pop("initial_state").clone()
    steps = [gated_delta_step(*(value[:, t] for value in values.values()), state) for t in range(9)]
    assert_close(torch.stack(steps, 1), whole)
    assert_close(state, final)


@pytest.mark.parametrize("implementation", ON_CPU)
def test_bfloat16_in_and_out(implementation, assert_close):
    values = {name: value.bfloat16().double() for name, value in inputs(33).items()}
    y, _ = gated_delta_reference(**values)
    got, state = gated_delta(**{k: v.bfloat16() for k, v in values.items()}, implementation=implementation)
    assert (got.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert_close(got, y)


@pytest.mark.filterwarnings("ignore:.*Triton is not supported")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_recurrence_is_flash_linear_attentions():
    """Against the loop that flash-linear-attention itself tests its kernels with."""
    naive = pytest.importorskip("fla.ops.gated_delta_rule.naive")
    values = {name: value.float() for name, value in inputs(20).items()}
    y, state = gated_delta_reference(**values)
    renamed = {"g": values.pop("log_decay"), **values}
    expected, final = naive.naive_recurrent_gated_delta_rule(**renamed, scale=1.0, output_final_state=True)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(state, final, rtol=0, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore")  # of fla's own imports
@pytest.mark.parametrize("decay", [1.0, 200.0])
@pytest.mark.parametrize(
    ("tokens", "heads", "key_dim", "value_dim"),
    [(1, 3, 32, 64), (37, 3, 32, 64), (64, 3, 32, 64), (257, 3, 32, 64), (100, 2, 24, 48)],
)
def test_flash_linear_attention_on_a_gpu(decay, tokens, heads, key_dim, value_dim, assert_close):
    """Outputs, state and all gradients in bfloat16 against the float64 recurrence."""
    pytest.importorskip("fla")
    values = inputs(tokens, heads, key_dim, value_dim, decay=decay)
    values = {name: value.bfloat16().double() for name, value in values.items()}
    y, state, gradients = run(gated_delta_reference, values, torch.float64)
    if (reason := refused(torch.device("cuda"))) is not None:
        pytest.skip(reason)
    on_gpu = {name: value.cuda() for name, value in values.items()}
    got_y, got_state, got = run(gated_delta, on_gpu, torch.bfloat16, implementation="fla")
    assert_close(got_y.cpu(), y)
    assert_close(got_state.cpu().bfloat16(), state)
    for gradient, expected in zip(got, gradients, strict=True):
        assert_close(gradient.cpu().bfloat16(), expected)


def test_what_runs_where():
    cuda = torch.device("cuda")
    assert choose(torch.device("cpu"))[0] == choose(cuda)[0] == "chunked"
    assert set(ON_CPU) < set(IMPLEMENTATIONS)
    with pytest.raises(ValueError, match="at least 1 token"):
        gated_delta(**{k: v[:, :0] if k != "initial_state" else v for k, v in inputs(4).items()})


@pytest.mark.parametrize(
    ("capability", "triton", "refuses"),
    [((9, 0), "3.6.0", True), ((9, 0), "3.7.0+git1", True), ((9, 0), "3.7.1", False), ((9, 0), "3.3.1", False),
     ((8, 0), "3.6.0", False), ((9, 0), None, False)],
)  # fmt: skip
def test_where_flash_linear_attention_refuses_gradients(monkeypatch, capability, triton, refuses):
    def version(package):
        if triton is None:
            raise importlib.metadata.PackageNotFoundError(package)
        return triton

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(importlib.metadata, "version", version)
    assert (refused(torch.device("cuda")) is not None) is refuses
