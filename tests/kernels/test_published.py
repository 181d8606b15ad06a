"""The published packages' kernels as ways of our operations: on a GPU against the float64 reference, outputs and all
gradients."""

from __future__ import annotations

import pytest
import torch
from hybrid_nas_kernels import attention, causal_conv1d, ssd
from hybrid_nas_kernels.attention import choose
from hybrid_nas_kernels.dispatch import MissingPackage, why_not

ON_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore"),  # of the packages' own imports
]


def draw(*shapes: tuple[int, ...], dtype: torch.dtype) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=g, dtype=torch.float64).to(dtype) for shape in shapes]


def gradients(function, leaves, dtype, device):
    """y of the leaves in `dtype`, and the gradients of its sum, weighed."""
    leaves = [leaf.to(device, dtype).requires_grad_() for leaf in leaves]
    y = function(*leaves)
    slope = torch.linspace(-1, 2, y.numel(), dtype=torch.float64).view(y.shape).to(device, y.dtype)
    return [value.cpu() for value in (y.detach(), *torch.autograd.grad((y * slope).sum(), leaves))]


def compare(function, leaves, dtype, assert_close):
    expected = gradients(lambda *v: function("reference", *v), leaves, torch.float64, "cpu")
    got = gradients(lambda *v: function("theirs", *v), leaves, dtype, "cuda")
    for actual, reference in zip(got, expected, strict=True):
        assert_close(actual.to(dtype), reference)


class TestOnAGpu:
    pytestmark = ON_GPU

    @pytest.mark.parametrize("tokens", [1, 100, 300])
    def test_ssd(self, tokens, assert_close):
        pytest.importorskip("mamba_ssm")
        dtype = torch.bfloat16
        x, B, C, dt = draw((2, tokens, 4, 64), (2, tokens, 1, 64), (2, tokens, 1, 64), (2, tokens, 4), dtype=dtype)
        A, D = -torch.rand(4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)

        def run(how, x, dt, B, C):
            kept = {"A": A.to(x.device, torch.promote_types(x.dtype, torch.float32)), "D": D.to(x.device, x.dtype)}
            dt = torch.nn.functional.softplus(dt)
            return ssd.ssd(x, dt, kept["A"], B, C, kept["D"], implementation=how.replace("theirs", "mamba_ssm"))[0]

        compare(run, [x, dt, B, C], dtype, assert_close)

    @pytest.mark.parametrize("tokens", [1, 5, 130])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_causal_conv1d(self, tokens, dtype, assert_close):
        pytest.importorskip("causal_conv1d")
        leaves = draw((2, tokens, 24), (24, 4), (24,), dtype=dtype)

        def run(how, x, w, b):
            how = how.replace("theirs", "causal_conv1d")
            return torch.cat(causal_conv1d.causal_conv1d(x, w, b, (16, 8), implementation=how), -1)

        compare(run, leaves, dtype, assert_close)

    @pytest.mark.parametrize("window", [None, 1, 16])
    def test_attention(self, window, assert_close):
        pytest.importorskip("flash_attn")
        leaves = draw((2, 77, 4, 64), (2, 77, 2, 64), (2, 77, 2, 64), dtype=torch.bfloat16)

        def run(how, q, k, v):
            return attention.attention(q, k, v, window=window, implementation=how.replace("theirs", "flash_attn"))

        compare(run, leaves, torch.bfloat16, assert_close)

    def test_a_window_without_sinks_is_flash_attns(self):
        pytest.importorskip("flash_attn")
        assert choose(torch.device("cuda"), banded=True)[0] == "flash_attn"
        assert choose(torch.device("cuda"))[0] == "sdpa"


@pytest.mark.parametrize(
    ("operation", "name", "package"),
    [
        (ssd, "mamba_ssm", "mamba_ssm"),
        (causal_conv1d, "causal_conv1d", "causal_conv1d"),
        (attention, "flash_attn", "flash_attn"),
    ],
)
def test_a_way_whose_package_is_missing_says_so(operation, name, package):
    if why_not(package) is None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(MissingPackage, match=package):
        operation.IMPLEMENTATIONS[name]()
