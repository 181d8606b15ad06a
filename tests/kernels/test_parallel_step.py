"""What is small in a decoding step of attention and of a parallel hybrid's heads as one kernel: in Triton's
interpreter, on a GPU where there is one."""

import pytest
import torch
from hybrid_nas_kernels import dispatch, parallel_step, rope

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, ParallelHybrid, SwiGLU
from hybrid_nas.measure import random_model

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
DTYPES = [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
"""The interpreter's products of bfloat16 are wrong."""
BOTH = [torch.float32, torch.bfloat16]
SIZES = [
    (2, 1, (2, 1, 8, 8), (3, 20, 17)),
    (3, 70, (6, 2, 20, 12), (2, 16, 16)),
    (1, 91, (3, 3, 72, 70), (2, 40, 32)),  # channels beyond a power of two, blocks of channels of the scan
    (4, 264, (4, 4, 16, 24), (1, 64, 8)),  # several parts
    (2, 40, (18, 9, 12, 40), (2, 33, 8)),  # heads, turned and cached, beyond a program's
]
"""batch, slots, (heads, kv_heads, head_dim, value_dim), (Mamba-2's heads, head_dim, d_state)"""
CROWD = (600, 40, (8, 2, 16, 16), (1, 24, 8))
"""More heads of rows than a GPU runs programs at a time."""
EPS, THETA = 1e-5, 100.0
WIDTH, TAPS, GROUPS = 24, 4, 1


def drawn(sizes, dtype, turned=True):
    """What `parallel_step` is given, in `dtype`, on the CPU; the token's own slot is NaN, and so are those that are not
    filled yet."""
    batch, slots, (heads, kv_heads, head_dim, value_dim), (mamba_heads, channels, d_state) = sizes
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g).to(dtype)  # noqa: E731
    d_ssm, values, both = mamba_heads * channels, heads * value_dim, 2 * GROUPS * d_state
    qk_size, v_size = (heads + kv_heads) * head_dim, kv_heads * value_dim
    parts = [qk_size, v_size, d_ssm, d_ssm + both, mamba_heads]
    qk, v, z, xBC, dt = torch.split(draw(batch, sum(parts)), parts, dim=-1)  # as one product leaves them
    caches = [draw(batch, kv_heads, slots + 3, d).transpose(1, 2) for d in (head_dim, value_dim)]
    for cache in caches:
        cache[:, slots - 1 :] = torch.nan
    table = rope.rope_table(THETA, head_dim, slots - 1, 1, torch.device("cpu")) if turned else None
    conv, state = draw(batch, d_ssm + both, TAPS), draw(batch, mamba_heads, channels, d_state)
    of_mamba = (draw(d_ssm + both, TAPS), draw(d_ssm + both), *(draw(mamba_heads) for _ in range(3)))
    norms, whole = (draw(d_ssm), draw(values)), draw(WIDTH, d_ssm + values)
    cached = (qk.view(batch, -1, head_dim), v.view(batch, kv_heads, value_dim), *caches, slots - 1, table)
    return cached, (xBC, dt, conv, state, slots - 1, *of_mamba), z, norms, whole


def each(value, change):
    """`value` with every tensor in it changed."""
    if isinstance(value, tuple):
        return tuple(each(v, change) for v in value)
    return change(value) if isinstance(value, torch.Tensor) else value


def on(value):
    return each(value, lambda tensor: tensor.to(DEVICE))


def double(value):
    return each(value, torch.Tensor.double)


def filled(cached):
    """The caches up to the token, and the rest of them."""
    qk, v, keys, values, slot, table = cached
    return (qk, v, keys[:, : slot + 1], values[:, : slot + 1], slot, table), (
        keys[:, slot + 1 :],
        values[:, slot + 1 :],
    )


def run(given, fusion, implementation):
    """The output, keys, values, the convolution's inputs and the state."""
    cached, mamba, z, norms, whole = each(given, torch.clone)
    cached, rest = filled(cached)
    weights = whole.split([z.shape[1], norms[1].shape[0]], 1)
    with torch.no_grad():
        out = parallel_step.parallel_step(
            cached, mamba, z, norms=norms, fusion=fusion, weights=weights, eps=EPS, implementation=implementation
        )
    assert all(part.isnan().all() for part in rest)
    return out, *cached[2:4], mamba[2], mamba[3]


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("fusion", "turned"), [("add", True), ("difference", True), ("add", False)])
@pytest.mark.parametrize("sizes", SIZES)
def test_output_cache_ring_and_state_are_the_references(sizes, fusion, turned, dtype, assert_close):
    pytest.importorskip("triton", reason="triton is not installed")
    given = drawn(sizes, dtype, turned)
    expected = run(double(given), fusion, "reference")
    got = run(on(given), fusion, "triton")
    for value, reference in zip(got, expected, strict=True):
        assert value.dtype == dtype
        assert_close(value.cpu(), reference)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_the_first_launch_is_what_its_parts_make_one_after_another(sizes, turned, dtype):
    """The operations' own kernels and torch's copies, to the last bit or nearly."""
    pytest.importorskip("triton", reason="triton is not installed")
    from hybrid_nas_kernels.mamba2.step import conv_scan_step_triton
    from hybrid_nas_kernels.parallel_step.triton_step import turn_and_scan
    from hybrid_nas_kernels.rope.triton_kernels import rope_triton

    cached, mamba, *_ = each(on(drawn(sizes, dtype, turned)), torch.clone)
    q = rope.rope_and_cache_reference(*filled(cached)[0], rope=rope_triton)
    expected = q, conv_scan_step_triton(*mamba), *(c[:, : sizes[1]] for c in cached[2:4]), *mamba[2:4]
    cached, mamba, *_ = each(on(drawn(sizes, dtype, turned)), torch.clone)
    got = *turn_and_scan(filled(cached)[0], mamba)[:2], *(c[:, : sizes[1]] for c in cached[2:4]), *mamba[2:4]
    for value, reference in zip(got, expected, strict=True):
        assert value.dtype == reference.dtype == dtype
        assert not value.isnan().any()
        torch.testing.assert_close(value, reference, rtol=1e-5 if dtype == torch.float32 else 2**-7, atol=1e-5)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("sizes", [*SIZES, pytest.param(CROWD, marks=pytest.mark.gpu)])
def test_the_last_launch_is_what_its_parts_make_one_after_another(sizes, dtype):
    """Attention's own second kernel and the norms' own, to the last bit or nearly; a second time the very same."""
    pytest.importorskip("triton", reason="triton is not installed")
    from hybrid_nas_kernels.attention.triton_step import attention_parts, attention_step_triton
    from hybrid_nas_kernels.fuse_heads.triton_step import fuse_step
    from hybrid_nas_kernels.parallel_step.triton_step import join_and_norm, turn_and_scan

    got = []
    for _ in range(2):
        cached, mamba, z, norms, _ = each(on(drawn(sizes, dtype)), torch.clone)
        cached, _ = filled(cached)
        q, y, joined = turn_and_scan(cached, mamba)
        y = y.flatten(1)
        got.append(join_and_norm(attention_parts(q, *cached[2:4]), joined, y, z, norms, -1, EPS))
        assert joined.tolist() == [q.shape[1]] * len(q)
    attended = attention_step_triton(q, *cached[2:4]).flatten(1)
    as_it_is = torch.eye(y.shape[1] + attended.shape[1], dtype=dtype, device=DEVICE)
    expected = fuse_step(y, z, attended, norms, -1, as_it_is, EPS)
    assert expected.abs().max() > 1
    assert got[0].dtype == dtype
    assert got[0].equal(got[1])
    torch.testing.assert_close(got[0], expected, rtol=1e-5 if dtype == torch.float32 else 2**-7, atol=1e-5)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("slot", [0, 3, 6])
def test_heads_are_turned_and_cached_at_one_slot(slot, turned, dtype, assert_close):
    """Keys and values apart from those of the token stay; so does the layout that is not head after head."""
    pytest.importorskip("triton", reason="triton is not installed")
    g = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=g).to(dtype)  # noqa: E731
    for heads, kv_heads, head_dim, value_dim in ((10, 2, 72, 128), (3, 3, 6, 5), (9, 9, 2, 1)):
        batch = 3
        wide = draw(batch, (heads + kv_heads) * head_dim + kv_heads * value_dim)
        qk, v = wide.split([(heads + kv_heads) * head_dim, kv_heads * value_dim], 1)
        given = qk.view(batch, -1, head_dim), v.view(batch, kv_heads, -1)
        caches = draw(batch, 7, kv_heads, head_dim), draw(batch, 7, kv_heads, value_dim)
        table = rope.rope_table(THETA, head_dim, 11, 1, torch.device("cpu")) if turned else None
        expected = each(double(caches), torch.clone)
        q = rope.rope_and_cache_reference(*double(given), *expected, slot, double(table))
        got = each(on(caches), torch.clone)
        assert_close(rope.rope_and_cache_triton(*on(given), *got, slot, on(table)).cpu(), q)
        for cache, reference, before in zip(got, expected, caches, strict=True):
            assert_close(cache.cpu(), reference)
            others = [s for s in range(7) if s != slot]
            assert cache.cpu()[:, others].equal(before[:, others])


def test_a_fusion_that_is_none_is_named():
    given = drawn((1, 2, (2, 1, 8, 8), (1, 8, 8)), torch.float32)
    with pytest.raises(ValueError, match="fusion is add or difference, found 'concat'"):
        run(given, "concat", "reference")


def decoded(model, tokens, dtype):
    """The logits of each token, and what the layers keep."""
    batch, count = tokens.shape
    cache = model.cache(batch, count + 3, dtype)
    logits = torch.stack([model.step(tokens[:, t], cache) for t in range(count)], 1)
    return [logits, *(v for layer in cache.layers for v in layer.values())]


def model_of(mixers, dtype):
    torch.manual_seed(0)
    model = random_model(Architecture(32, 50, tuple(Block(m, SwiGLU(96)) for m in mixers)), DEVICE, dtype)
    for weight in model.parameters():
        weight.data.mul_(5 if weight.ndim > 1 else 1)  # up to 0.1: attention that is not the mean
    return model, torch.randint(50, (2, 9), device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(0))


def assert_equal(got, expected, assert_close):
    for value, reference in zip(got, expected, strict=True):
        assert reference.abs().max() > 0
        assert_close(value.cpu(), reference.double().cpu())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fusion", ["add", "difference"])
def test_a_parallel_models_step_takes_it_and_keeps_what_the_parts_alone_keep(fusion, dtype, assert_close, monkeypatch):
    pytest.importorskip("triton", reason="triton is not installed")
    halves = Attention(4, 2, 12, value_dim=20), Mamba2(48, 16, 16)
    ring = Attention(4, 2, 12, value_dim=20, window=3, sinks=2, rope_theta=None)
    parallel, windowed = (ParallelHybrid(a, halves[1], "group", "none", fusion) for a in (halves[0], ring))
    model, tokens = model_of((parallel, Mamba2(64, 16, 16), windowed), dtype)  # its weights are side by side

    def way(name):
        taken = []
        run = parallel_step.IMPLEMENTATIONS["triton"]
        with monkeypatch.context() as patch:
            patch.setitem(parallel_step.IMPLEMENTATIONS, "triton", lambda *a: taken.append(1) or run(*a))
            patch.setattr(parallel_step, "choose", lambda *_: (name, "this test says so"))
            patch.setitem(dispatch.CHOSEN, "parallel_step", {})
            return decoded(model, tokens, dtype), len(taken), dict(dispatch.CHOSEN["parallel_step"])

    expected, none, not_chosen = way("reference")
    got, count, chosen = way("triton")
    assert (none, count) == (0, 2 * 9)  # two such layers, nine tokens
    assert not_chosen == {}
    assert chosen == {"triton": "this test says so"}
    assert len(got) == 1 + 2 * 4 + 2
    assert_equal(got, expected, assert_close)


@pytest.mark.parametrize("dtype", BOTH)
def test_a_model_of_attention_takes_one_kernel_for_rotation_and_cache(dtype, assert_close, monkeypatch):
    """Full, without positions, and in a window, whose ring goes round."""
    pytest.importorskip("triton", reason="triton is not installed")
    mixers = (
        Attention(4, 2, 12, value_dim=20),
        Attention(4, 1, 9, rope_theta=None),
        Attention(4, 2, 8, window=3, sinks=2),
        Attention(2, 2, 8, window=4),
    )
    model, tokens = model_of(mixers, dtype)
    taken, kernel = [], rope.rope_and_cache_triton

    def way(triton):
        with monkeypatch.context() as patch:
            patch.setattr(rope, "rope_and_cache_triton", lambda *a: taken.append(1) or kernel(*a))
            patch.setattr(rope, "runs_triton", lambda _: triton)
            return decoded(model, tokens, dtype)

    expected = way(False)
    assert taken == []
    got = way(True)
    assert len(taken) == 4 * 9
    assert len(got) == 1 + 2 * 4
    assert_equal(got, expected, assert_close)
