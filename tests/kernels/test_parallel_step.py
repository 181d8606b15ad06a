"""A decoding step of a parallel hybrid's heads in two kernels: in Triton's interpreter, on a GPU where there is one."""

import pytest
import torch
from hybrid_nas_kernels import dispatch, parallel_step

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, ParallelHybrid, SwiGLU
from hybrid_nas.measure import random_model

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
DTYPES = [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
SIZES = [
    (2, 1, (2, 1, 8, 8), (3, 20, 17)),
    (3, 70, (6, 2, 20, 12), (2, 16, 16)),
    (2, 91, (3, 3, 72, 70), (2, 40, 32)),  # channels beyond a power of two, two warps
    (4, 264, (4, 4, 16, 24), (1, 64, 8)),  # several parts
    (1, 897, (12, 1, 16, 120), (2, 8, 8)),  # more parts than are joined at a time
    (1, 1121, (16, 1, 16, 120), (2, 8, 8)),  # more than one program joins
]
"""batch, slots, (heads, kv_heads, head_dim, value_dim), (Mamba-2's heads, head_dim, d_state)"""
EPS = 1e-5
WIDTH, TAPS, GROUPS = 24, 4, 1


def drawn(sizes, dtype):
    """What `parallel_step` is given, in `dtype`, on the CPU; slots that are not filled yet are NaN."""
    batch, slots, (heads, kv_heads, head_dim, value_dim), (mamba_heads, channels, d_state) = sizes
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g).to(dtype)  # noqa: E731
    d_ssm, values, both = mamba_heads * channels, heads * value_dim, 2 * GROUPS * d_state
    z, xBC, dt = torch.split(draw(batch, 2 * d_ssm + both + mamba_heads), [d_ssm, d_ssm + both, mamba_heads], dim=-1)
    cached = [draw(batch, kv_heads, slots + 3, d).transpose(1, 2) for d in (head_dim, value_dim)]
    for tensor in cached:
        tensor[:, slots:] = torch.nan
    conv, state = draw(batch, d_ssm + both, TAPS), draw(batch, mamba_heads, channels, d_state)
    of_mamba = (draw(d_ssm + both, TAPS), draw(d_ssm + both), *(draw(mamba_heads) for _ in range(3)))
    norms, whole = (draw(d_ssm), draw(values)), draw(WIDTH, d_ssm + values)
    q = draw(batch, heads, head_dim)
    return q, *cached, (xBC, dt, conv, state, slots - 1, *of_mamba), z, norms, whole


def each(value, change):
    """`value` with every tensor in it changed."""
    if isinstance(value, tuple):
        return tuple(each(v, change) for v in value)
    return change(value) if isinstance(value, torch.Tensor) else value


def on(value):
    return each(value, lambda tensor: tensor.to(DEVICE))


def run(given, slots, fusion, implementation):
    """The output, the convolution's inputs and the state."""
    q, keys, values, mamba, z, norms, whole = given
    mamba = (*mamba[:2], mamba[2].clone(), mamba[3].clone(), *mamba[4:])
    with torch.no_grad():
        out = parallel_step.parallel_step(
            q, keys[:, :slots], values[:, :slots], mamba, z, norms=norms, fusion=fusion,
            weights=whole.split([z.shape[1], norms[1].shape[0]], 1), eps=EPS, implementation=implementation,
        )  # fmt: skip
    return out, mamba[2], mamba[3]


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fusion", ["add", "difference"])
@pytest.mark.parametrize("sizes", SIZES)
def test_output_ring_and_state_are_the_references(sizes, fusion, dtype, assert_close):
    pytest.importorskip("triton", reason="triton is not installed")
    given = drawn(sizes, dtype)
    expected = run(each(given, torch.Tensor.double), sizes[1], fusion, "reference")
    got = run(on(given), sizes[1], fusion, "triton")
    for value, reference in zip(got, expected, strict=True):
        assert value.dtype == dtype
        assert_close(value.cpu(), reference)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", SIZES[1:5])
def test_it_is_what_the_kernels_of_its_parts_make_one_after_another(sizes, dtype, assert_close):
    """Also where the interpreter's own products of bfloat16 are wrong, which both sides have."""
    pytest.importorskip("triton", reason="triton is not installed")
    from hybrid_nas_kernels.attention import attention_step_triton
    from hybrid_nas_kernels.fuse_heads.triton_step import fuse_step
    from hybrid_nas_kernels.mamba2.step import conv_scan_step_triton

    given = on(drawn(sizes, dtype))
    q, keys, values, mamba, z, norms, whole = each(given, torch.clone)
    attended = attention_step_triton(q, keys[:, : sizes[1]], values[:, : sizes[1]]).flatten(1)
    expected = fuse_step(conv_scan_step_triton(*mamba).flatten(1), z, attended, norms, -1, whole, EPS), *mamba[2:4]
    for value, reference in zip(run(given, sizes[1], "difference", "triton"), expected, strict=True):
        assert value.dtype == reference.dtype == dtype
        assert_close(value, reference.double())


@pytest.mark.parametrize("slots", [897, 1121])
def test_rows_of_many_parts_take_a_launch_more(slots, monkeypatch):
    pytest.importorskip("triton", reason="triton is not installed")
    from hybrid_nas_kernels.parallel_step import triton_step

    taken = []
    together, apart = triton_step._joined_and_normed, triton_step.fuse_step
    monkeypatch.setattr(triton_step, "_joined_and_normed", lambda *a: taken.append("together") or together(*a))
    monkeypatch.setattr(triton_step, "fuse_step", lambda *a: taken.append("apart") or apart(*a))
    sizes = (1, slots, (16, 1, 16, 120), (2, 8, 8))
    run(on(drawn(sizes, torch.float32)), slots, "add", "triton")
    assert taken == ["together" if slots == 897 else "apart"]


def test_a_fusion_that_is_none_is_named():
    given = drawn((1, 2, (2, 1, 8, 8), (1, 8, 8)), torch.float32)
    with pytest.raises(ValueError, match="fusion is add or difference, found 'concat'"):
        run(given, 2, "concat", "reference")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fusion", ["add", "difference"])
def test_a_models_step_takes_it_and_keeps_what_the_parts_alone_keep(fusion, dtype, assert_close, monkeypatch):
    pytest.importorskip("triton", reason="triton is not installed")
    parallel = ParallelHybrid(Attention(4, 2, 12, value_dim=20), Mamba2(48, 16, 16), "group", "none", fusion)
    blocks = tuple(Block(mixer, SwiGLU(96)) for mixer in (parallel, Mamba2(64, 16, 16), parallel))
    model = random_model(Architecture(32, 50, blocks), DEVICE, dtype)  # its weights are side by side
    for weight in model.parameters():
        weight.data.mul_(5 if weight.ndim > 1 else 1)  # up to 0.1: attention that is not the mean
    tokens = torch.randint(50, (2, 6), device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(0))

    def decoded(way):
        taken = []
        run = parallel_step.IMPLEMENTATIONS["triton"]
        with monkeypatch.context() as patch:
            patch.setitem(parallel_step.IMPLEMENTATIONS, "triton", lambda *a: taken.append(1) or run(*a))
            patch.setattr(parallel_step, "choose", lambda *_: (way, "this test says so"))
            patch.setitem(dispatch.CHOSEN, "parallel_step", {})
            cache = model.cache(2, 9, dtype)
            logits = torch.stack([model.step(tokens[:, t], cache) for t in range(6)], 1)
            chosen = dict(dispatch.CHOSEN["parallel_step"])
        return logits, [v for layer in cache.layers for v in layer.values()], len(taken), chosen

    expected, kept, none, not_chosen = decoded("reference")
    got, kept_as_one, count, chosen = decoded("triton")
    assert (none, count) == (0, 2 * 6)  # two such layers, six tokens
    assert not_chosen == {}
    assert chosen == {"triton": "this test says so"}
    assert len(kept) == 2 * 4 + 2
    for value, reference in zip([got, *kept_as_one], [expected, *kept], strict=True):
        assert reference.abs().max() > 0
        assert_close(value.cpu(), reference.double().cpu())
