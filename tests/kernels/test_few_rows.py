"""Products of a few rows with norms, gates and sums in one launch, against float64: in Triton's interpreter where there
is no GPU, on the GPU where there is one (bfloat16 there alone)."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("triton", reason="triton is not installed")

from hybrid_nas_kernels.norm_linear import triton_step

EPS = 1e-5
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
ROWS = (1, 3, 16)


@pytest.fixture(params=DTYPES)
def draw(request):
    """A function that draws a tensor on the device, and the same numbers in float64 on the CPU."""
    g = torch.Generator().manual_seed(0)

    def drawn(*shape):
        value = torch.randn(shape, generator=g).to(request.param)
        return value.to(DEVICE), value.double()

    return drawn


def within_a_wider_tensor(value):
    """The same numbers with NaN beside every row."""
    wide = torch.full((len(value), value.shape[1] + 8), float("nan"), dtype=value.dtype, device=value.device)
    wide[:, : value.shape[1]] = value
    return wide[:, : value.shape[1]]


def normed(x, norm):
    return F.rms_norm(x, x.shape[-1:], eps=EPS) * norm


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("sizes", [(24,), (20, 5, 33), (7, 16, 1, 40)])
def test_one_input_and_several_weights(draw, rows, sizes, assert_close):
    (x, x64), (norm, norm64) = draw(rows, 300), draw(300)
    weights, weights64 = zip(*(draw(size, 300) for size in sizes), strict=True)
    got = triton_step.linears_step(within_a_wider_tensor(x), norm.float(), weights, EPS)
    assert_close(got.cpu(), torch.cat([normed(x64, norm64) @ weight.T for weight in weights64], -1))
    got = triton_step.linears_step(x, None, weights, EPS)
    assert_close(got.cpu(), torch.cat([x64 @ weight.T for weight in weights64], -1))


@pytest.mark.parametrize("rows", ROWS)
def test_the_gate_and_up_of_a_feed_forward_network(draw, rows, assert_close):
    (x, x64), (norm, norm64), (gate, gate64), (up, up64) = draw(rows, 264), draw(264), draw(24, 264), draw(24, 264)
    for gain, n in ((norm.float(), normed(x64, norm64)), (None, x64)):
        got = triton_step.gate_up_step(within_a_wider_tensor(x), gain, gate, up, EPS)
        assert_close(got.cpu(), F.silu(n @ gate64.T) * (n @ up64.T))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("sign", [1, -1])
def test_products_that_end_a_layer(draw, rows, sign, assert_close):
    (y, y64), (z, z64), (norm, norm64), (weight, weight64) = (
        draw(*s) for s in ((rows, 40), (rows, 40), (40,), (9, 40))
    )
    (x, x64), (gain, gain64), (second, second64) = draw(rows, 24), draw(24), draw(9, 24)
    added, added64 = draw(rows, 9)
    assert_close(triton_step.close_step(y, weight, EPS).cpu(), y64 @ weight64.T)
    mamba = normed(y64 * F.silu(z64), norm64) @ weight64.T
    wide = within_a_wider_tensor(z)
    assert_close(triton_step.close_step(y, weight, EPS, gate=wide, norm=norm.float()).cpu(), mamba)
    both = {"gate": wide, "norm": norm.float(), "second": (within_a_wider_tensor(x), gain.float(), second, sign)}
    fused = mamba + sign * (normed(x64, gain64) @ second64.T)
    assert_close(triton_step.close_step(y, weight, EPS, **both).cpu(), fused)
    assert_close(triton_step.close_step(y, weight, EPS, **both, added=added).cpu(), fused + added64)


def test_what_they_serve():
    x, weight = torch.zeros(2, 8, 6), torch.zeros(5, 6, requires_grad=True)
    assert not triton_step.few(x, weight)
    with torch.no_grad():
        assert triton_step.few(x, weight)
        assert not triton_step.few(x, weight.bfloat16())
        assert not triton_step.few(torch.zeros(17, 6), weight)
