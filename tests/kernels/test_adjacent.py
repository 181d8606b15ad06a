"""Weights side by side in memory, and the decoding step that reads them so."""

import pytest
import torch
from hybrid_nas_kernels.adjacent import ALIGNED, adjacent, adjoin, products, side_by_side
from torch import nn

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, ParallelHybrid, SwiGLU
from hybrid_nas.model import build

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")


@pytest.mark.parametrize("dim", [0, 1])
def test_parts_of_one_tensor_are_adjacent_and_others_are_not(dim):
    whole = torch.randn(6, 8)
    parts = whole.split([2, 3, 1] if dim == 0 else [5, 1, 2], dim)
    found = adjacent(parts, dim)
    assert found is not None
    assert found.data_ptr() == whole.data_ptr()
    assert torch.equal(found, whole)
    assert side_by_side(parts, dim).data_ptr() == whole.data_ptr()
    for others in (parts[::-1], (parts[0], parts[2]), (parts[0], parts[1].clone()), (parts[0], parts[1].double())):
        assert adjacent(others, dim) is None
    swapped = side_by_side(parts[::-1], dim)
    assert torch.equal(swapped, torch.cat(parts[::-1], dim))


def test_adjoining_keeps_every_value_and_makes_one_product():
    weights = [nn.Parameter(torch.randn(n, 16)) for n in (3, 5, 7)]
    before, n = [w.detach().clone() for w in weights], torch.randn(4, 16)
    adjoin(weights)
    assert all(torch.equal(w, was) for w, was in zip(weights, before, strict=True))
    with torch.no_grad():
        got = products(n, weights)
        assert adjacent(got, -1) is not None
    for y, weight in zip(got, before, strict=True):
        torch.testing.assert_close(y, n @ weight.t())
    sum(y.sum() for y in products(n, weights)).backward()  # with gradients each weight has its own
    for weight in weights:
        torch.testing.assert_close(weight.grad, n.sum(0).expand_as(weight))


def test_an_adjoined_model_decodes_as_it_was():
    attention, mamba = Attention(4, 2, 16), Mamba2(64, 16, 16)
    parallel = ParallelHybrid(Attention(4, 2, 8, value_dim=12), Mamba2(48, 16, 16), "group", "none", "difference")
    blocks = tuple(Block(mixer, SwiGLU(96)) for mixer in (parallel, mamba, attention, parallel))
    model = build(Architecture(32, 50, blocks), generator=0, device=DEVICE)
    tokens = torch.randint(50, (2, 12), device=DEVICE)
    with torch.no_grad():
        whole = model(tokens)
    names, before = [*model.state_dict()], {k: v.clone() for k, v in model.state_dict().items()}
    assert model.adjoin() is model
    assert names == [*model.state_dict()]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    cache = model.cache(2, 12)
    steps = torch.stack([model.step(tokens[:, t], cache) for t in range(12)], 1)
    torch.testing.assert_close(steps, whole, rtol=0, atol=2e-5 if DEVICE.type == "cpu" else 2e-4)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("how", ["reference", "triton"])
def test_a_step_of_convolution_and_scan_is_the_two_over_the_sequence(how, assert_close):
    from hybrid_nas_kernels.causal_conv1d import causal_conv1d_reference
    from hybrid_nas_kernels.mamba2 import step
    from hybrid_nas_kernels.ssd import ssd_reference

    if how == "triton":
        pytest.importorskip("triton", reason="triton is not installed")
    batch, tokens, heads, head_dim, groups, d_state = 2, 7, 4, 20, 2, 17
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    parts = [heads * head_dim, groups * d_state, groups * d_state]
    xBC, dt, weight, bias = (
        draw(batch, tokens, sum(parts)),
        draw(batch, tokens, heads),
        draw(sum(parts), 4),
        draw(sum(parts)),
    )
    A_log, D, dt_bias = (draw(heads) for _ in range(3))
    x, B, C = causal_conv1d_reference(xBC, weight, bias, tuple(parts))
    expected, final = ssd_reference(
        x.view(batch, tokens, heads, head_dim), torch.nn.functional.softplus(dt + dt_bias), -A_log.exp(),
        B.view(batch, tokens, groups, d_state), C.view(batch, tokens, groups, d_state), D,
    )  # fmt: skip

    def there(value):
        return value.float().to(DEVICE)

    conv = torch.zeros(batch, sum(parts), 4, device=DEVICE)
    state = torch.zeros(batch, heads, head_dim, d_state, device=DEVICE)
    run = step.conv_scan_step_triton if how == "triton" else step.conv_scan_step_reference
    got = [
        run(there(xBC[:, t]), there(dt[:, t]), conv, state, t, *(there(v) for v in (weight, bias, A_log, D, dt_bias)))
        for t in range(tokens)
    ]
    assert_close(torch.stack(got, 1).cpu(), expected)
    assert_close(state.cpu(), final)
    for t in range(tokens - 4, tokens):
        assert torch.equal(conv[:, :, t % 4].cpu(), xBC[:, t].float())


@pytest.mark.parametrize("rows", [[6], [3, 5, 7], [8], [16]])
def test_a_weight_of_odd_rows_is_read_with_zeros_behind_it(rows):
    weights = [nn.Parameter(torch.randn(n, 16)) for n in rows]
    before, n = [w.detach().clone() for w in weights], torch.randn(4, 16)
    adjoin(weights)
    room = weights[0].untyped_storage().nbytes() // 64  # rows of 16 floats
    assert room == -(-sum(rows) // ALIGNED) * ALIGNED
    with torch.no_grad():
        for y, weight in zip(products(n, weights), before, strict=True):
            torch.testing.assert_close(y, n @ weight.t())


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("fusion", ["add", "difference"])
@pytest.mark.parametrize(("d_ssm", "values"), [(48, 32), (20, 70)])
def test_the_end_of_a_parallel_layer_in_one_product_is_the_reference(fusion, d_ssm, values, assert_close):
    pytest.importorskip("triton", reason="triton is not installed")
    from hybrid_nas_kernels.fuse_heads import fuse_heads
    from hybrid_nas_kernels.fuse_heads import triton_kernels as ways

    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    y, z, attended, whole = draw(3, d_ssm), draw(3, d_ssm + 4), draw(3, values), draw(10, d_ssm + values)
    norms, scales = (draw(d_ssm), draw(values)), (None, draw(values))
    options = {"fusion": fusion, "eps": 1e-5}
    expected = fuse_heads(
        y, z[:, :d_ssm], attended, norms=norms, scales=scales, weights=whole.split([d_ssm, values], 1), **options,
        implementation="reference",
    )  # fmt: skip

    def there(value):
        return None if value is None else value.float().to(DEVICE)

    taken = []
    step, ways.fuse_step = ways.fuse_step, lambda *a: taken.append(1) or step(*a)
    try:
        with torch.no_grad():
            got = fuse_heads(
                there(y), there(z)[:, :d_ssm], there(attended), norms=(there(norms[0]), there(norms[1])),
                scales=(None, there(scales[1])), weights=there(whole).split([d_ssm, values], 1), **options,
                implementation="triton",
            )  # fmt: skip
    finally:
        ways.fuse_step = step
    assert taken == [1]
    assert_close(got.cpu(), expected)
