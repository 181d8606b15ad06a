"""The operations around the mixers: their fast ways against their references, which are torch's own operations."""

import pytest
import torch
from hybrid_nas_kernels.cross_entropy import cross_entropy
from hybrid_nas_kernels.gated_norm_linear import gated_norm_linear
from hybrid_nas_kernels.norm_linear import norm_linear
from hybrid_nas_kernels.rope import rope, rope_table
from hybrid_nas_kernels.swiglu import swiglu
from torch.nn import functional as F

EPS = 1e-5
COS, SIN = rope_table(10_000.0, 6, 0, 5, torch.device("cpu"))
TARGETS = torch.tensor([[0, 3, 6], [6, 6, 1]])

# operation -> (function of leaves and implementation, shapes of the leaves, name of its fast way)
OPERATIONS = {
    "norm_linear": (
        lambda x, w, m, how: torch.cat(norm_linear(x, w, m, (4, 1, 2), eps=EPS, implementation=how), -1),
        ((2, 5, 6), (6,), (7, 6)),
        "folded",
    ),
    "gated_norm_linear": (
        lambda y, z, w, m, how: gated_norm_linear(y, z, w, m, groups=1, eps=EPS, implementation=how),
        ((2, 5, 6), (2, 5, 6), (6,), (7, 6)),
        "folded",
    ),
    "gated_norm_linear in groups": (
        lambda y, z, w, m, how: gated_norm_linear(y, z, w, m, groups=3, eps=EPS, implementation=how),
        ((2, 5, 6), (2, 5, 6), (6,), (7, 6)),
        "folded",
    ),
    "swiglu": (
        lambda x, w, g, u, d, how: swiglu(x, w, g, u, d, eps=EPS, implementation=how),
        ((2, 5, 6), (6,), (8, 6), (8, 6), (6, 8)),
        "folded",
    ),
    "swiglu native": (
        lambda x, w, g, u, d, how: swiglu(x, w, g, u, d, eps=EPS, implementation=how),
        ((2, 5, 6), (6,), (8, 6), (8, 6), (6, 8)),
        "native",
    ),
    "rope": (lambda x, how: rope(x, COS, SIN, implementation=how), ((2, 5, 3, 6),), "in_place"),
    "cross_entropy": (lambda x, how: cross_entropy(x, TARGETS, implementation=how), ((2, 3, 7),), "exp2"),
}


def leaves(name, dtype):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(s, dtype=torch.float64, generator=g).to(dtype).requires_grad_() for s in OPERATIONS[name][1]]


def with_gradients(name, dtype, how):
    values = leaves(name, dtype)
    y = OPERATIONS[name][0](*values, how)
    total = (y * torch.linspace(-1, 2, y.numel(), dtype=dtype).view(y.shape)).sum()
    return [y.detach(), *torch.autograd.grad(total, values)]


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_outputs_and_gradients_equal_the_float64_reference(name, dtype, assert_close):
    expected = with_gradients(name, torch.float64, "reference")
    got = with_gradients(name, dtype, OPERATIONS[name][2])
    for actual, reference in zip(got, expected, strict=True):
        assert_close(actual, reference)


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradcheck(name):
    function, _, fast = OPERATIONS[name]
    assert torch.autograd.gradcheck(lambda *values: function(*values, fast), leaves(name, torch.float64))


@pytest.mark.parametrize("how", ["reference", "exp2"])
def test_cross_entropy_is_torchs(how, assert_close):
    logits = leaves("cross_entropy", torch.float64)[0] * 200  # probabilities underflow
    expected = F.cross_entropy(logits.flatten(0, 1), TARGETS.flatten())
    assert_close(cross_entropy(logits, TARGETS, implementation=how).detach(), expected.detach())


def test_rope_turns_pairs_as_complex_numbers(assert_close):
    x = leaves("rope", torch.float64)[0].detach()
    cos, sin = rope_table(10_000.0, 6, 3, 5, torch.device("cpu"))
    position = torch.arange(3, 8, dtype=torch.float64)
    angle = position[:, None] * 10_000.0 ** (-torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64) / 3)
    turned = torch.complex(x[..., :3], x[..., 3:]) * torch.polar(torch.ones_like(angle), angle)[:, None]
    expected = torch.cat((turned.real, turned.imag), -1)
    # The table is float32, whatever the dtype of x.
    torch.testing.assert_close(rope(x, cos, sin), expected, rtol=0, atol=2e-6)


def test_few_rows_run_the_reference():
    from hybrid_nas_kernels.norm_linear import FEW, choose

    assert choose(torch.device("cpu"), FEW - 1)[0] == "reference"
    assert choose(torch.device("cpu"), FEW)[0] == "folded"
