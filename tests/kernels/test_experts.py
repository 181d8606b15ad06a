import pytest
import torch
from hybrid_nas_kernels.experts import choose, experts, experts_reference
from torch.nn import functional as F

TOKENS, WIDTH, HIDDEN, EXPERTS = 20, 8, 16, 5
FAST = ["loop", pytest.param("grouped", marks=pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="older torch"))]


def inputs(active, dtype=torch.float64, used=EXPERTS):
    """A choice among the first `used` experts, so that the others get no token at all."""
    g = torch.Generator().manual_seed(active)
    inner = (EXPERTS, HIDDEN, WIDTH)
    shapes = [(TOKENS, WIDTH), (TOKENS, active), inner, inner, (EXPERTS, WIDTH, HIDDEN)]
    values = (torch.randn(shape, dtype=torch.float64, generator=g).to(dtype) for shape in shapes)
    x, weight, gate, up, down = (value.requires_grad_() for value in values)
    chosen = torch.rand(TOKENS, used, generator=g).topk(active, dim=-1).indices
    return x, chosen, weight, gate, up, down


def run(values, how):
    y = experts(*values, implementation=how)
    weigh = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape)
    gradients = torch.autograd.grad((y * weigh).sum(), [value for value in values if value.is_floating_point()])
    return [y.detach(), *gradients]


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("how", FAST)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("active", "used"), [(1, EXPERTS), (3, EXPERTS), (1, 1), (2, 3)])
def test_outputs_and_gradients_equal_the_float64_reference(how, dtype, active, used, assert_close):
    exact = [v.detach().to(dtype).double() if v.is_floating_point() else v for v in inputs(active, used=used)]
    expected = run([v.requires_grad_() if v.is_floating_point() else v for v in exact], "reference")
    got = run([v.detach().to(dtype).requires_grad_() if v.is_floating_point() else v for v in exact], how)
    for actual, reference in zip(got, expected, strict=True):
        assert_close(actual, reference)


def test_reference_by_hand():
    """A token alone through its own experts, written out."""
    x, chosen, weight, gate, up, down = inputs(2)
    y = experts_reference(x, chosen, weight, gate, up, down)
    for t in range(TOKENS):
        expected = sum(
            w * (down[e] @ (F.silu(gate[e] @ x[t]) * (up[e] @ x[t]))) for w, e in zip(weight[t], chosen[t], strict=True)
        )
        torch.testing.assert_close(y[t], expected)


def test_a_token_does_not_depend_on_where_the_others_go():
    """Bit-equal, though the others' choices change how many rows an expert reads, and which row is whose."""
    x, chosen, weight, gate, up, down = (v.detach().float() if v.is_floating_point() else v for v in inputs(2))
    y = experts(x, chosen, weight, gate, up, down)
    for t in range(TOKENS):
        other = chosen.roll(1, 0)
        other[t] = chosen[t]
        assert torch.equal(experts(x, other, weight, gate, up, down)[t], y[t])


def test_what_runs_where():
    assert choose(torch.device("cpu"), torch.bfloat16, 64, 64)[0] == "loop"
    assert choose(torch.device("cuda"), torch.float32, 64, 64)[0] == "loop"
    assert choose(torch.device("cuda"), torch.bfloat16, 64, 60)[0] == "loop"
    if hasattr(F, "grouped_mm"):
        assert choose(torch.device("cuda"), torch.bfloat16, 64, 64)[0] == "grouped"
