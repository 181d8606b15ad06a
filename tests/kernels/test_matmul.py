import pytest
import torch
from hybrid_nas_kernels import native
from hybrid_nas_kernels.matmul import FEW, input_gradient, linear, weight_gradient


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("rows", "k", "n"), [(FEW - 1, 5, 7), (FEW, 5, 7), (129, 24, 3), (200, 3, 24), (64, 1, 1), (300, 81, 20)]
)
def test_the_three_products_are_those_of_float64(rows, k, n, dtype, assert_close):
    g = torch.Generator().manual_seed(0)
    x, dy, weight = (torch.randn(s, dtype=torch.float64, generator=g) for s in ((rows, k), (rows, n), (n, k)))
    a, b, w = x.to(dtype), dy.to(dtype), weight.to(dtype)
    assert_close(linear(a, w), x @ weight.T)
    assert_close(linear(a.view(1, rows, k), w)[0], x @ weight.T)
    assert_close(input_gradient(b, w), dy @ weight)
    assert_close(weight_gradient(b, a), dy.T @ x)
    assert_close(native.weight_gradient(b, a), dy.T @ x)
