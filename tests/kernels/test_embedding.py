import pytest
import torch
from hybrid_nas_kernels.embedding import IMPLEMENTATIONS, SMALL, choose, embedding


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 37)])
def test_rows_and_the_gradient_of_their_table(implementation, dtype, shape, assert_close):
    g = torch.Generator().manual_seed(0)
    table = torch.randn(11, 5, dtype=torch.float64, generator=g)
    tokens = torch.randint(11, shape, generator=g)
    slope = torch.randn(*shape, 5, dtype=torch.float64, generator=g)
    leaf = table.to(dtype).requires_grad_()
    rows = embedding(tokens, leaf, implementation=implementation)
    (rows * slope.to(dtype)).sum().backward()
    expected = torch.zeros_like(table)
    for at in ((b, t) for b in range(shape[0]) for t in range(shape[1])):  # one token at a time
        assert torch.equal(rows[at].detach(), table[tokens[at]].to(dtype))
        expected[tokens[at]] += slope[at]
    assert_close(leaf.grad, expected)


def test_a_small_table_on_cuda_takes_the_product():
    assert choose(torch.device("cuda"), SMALL)[0] == "one_hot"
    assert choose(torch.device("cuda"), SMALL + 1)[0] == "reference"
    assert choose(torch.device("cpu"), 2)[0] == "reference"
