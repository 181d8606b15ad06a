import pytest
import torch
from hybrid_nas_kernels.causal_conv1d import IMPLEMENTATIONS, causal_conv1d, causal_conv1d_reference, causal_conv1d_step
from torch.nn import functional as F

ELSEWHERE = ("reference", "triton", "causal_conv1d")  # test_triton.py and test_published.py have the last


def inputs(tokens, channels=12, kernel=4):
    g = torch.Generator().manual_seed(0)
    shapes = ((2, tokens, channels), (channels, kernel), (channels,))
    return [torch.randn(shape, dtype=torch.float64, generator=g) for shape in shapes]


def with_gradients(function, values, dtype, **options):
    leaves = [v.to(dtype).requires_grad_() for v in values]
    outputs = function(*leaves, (7, 5), **options)
    total = sum((y * torch.linspace(-1, 2, y.numel(), dtype=dtype).view(y.shape)).sum() for y in outputs)
    return [y.detach() for y in outputs] + list(torch.autograd.grad(total, leaves))


@pytest.mark.parametrize("kernel", [1, 2, 4])
def test_the_reference_is_torchs_convolution_of_the_padded_sequence(kernel, assert_close):
    x, weight, bias = inputs(9, kernel=kernel)
    padded = F.pad(x.transpose(1, 2), (kernel - 1, 0))
    expected = F.silu(F.conv1d(padded, weight[:, None], bias, groups=12)).transpose(1, 2)
    assert_close(torch.cat(causal_conv1d_reference(x, weight, bias, (7, 5)), -1), expected)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("implementation", [name for name in IMPLEMENTATIONS if name not in ELSEWHERE])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kernel", [1, 4])
@pytest.mark.parametrize("tokens", [1, 2, 3, 5, 33])
def test_outputs_and_gradients_equal_the_float64_reference(implementation, dtype, kernel, tokens, assert_close):
    values = inputs(tokens, kernel=kernel)
    expected = with_gradients(causal_conv1d_reference, values, torch.float64)
    got = with_gradients(causal_conv1d, values, dtype, implementation=implementation)
    for actual, reference in zip(got, expected, strict=True):
        assert_close(actual, reference)


def test_gradcheck():
    values = [v.requires_grad_() for v in inputs(5, channels=3)]
    assert torch.autograd.gradcheck(lambda *v: causal_conv1d(*v, (1, 2), implementation="channels_last"), values)


def test_steps_are_the_convolution(assert_close):
    x, weight, bias = inputs(7)
    expected = torch.cat(causal_conv1d_reference(x, weight, bias, (7, 5)), -1)
    state = torch.zeros(2, 12, 4, dtype=torch.float64)
    got = torch.stack([causal_conv1d_step(x[:, t], state, weight, bias) for t in range(7)], 1)
    assert_close(got, expected)
    assert torch.equal(state, x[:, -4:].transpose(1, 2))
