"""The Triton ways against the float64 references: in Triton's interpreter where there is no GPU, on the GPU where
there is one (bfloat16 there alone: the interpreter has no bfloat16 products)."""

import pytest
import torch
from hybrid_nas_kernels import (
    adamw,
    attention,
    causal_conv1d,
    cross_entropy,
    fuse_heads,
    gated_norm_linear,
    norm_linear,
    rope,
    swiglu,
)
from torch.nn import functional as F

pytest.importorskip("triton", reason="triton is not installed")

EPS = 1e-5
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
DTYPES = [
    torch.float32,
    pytest.param(torch.bfloat16, marks=pytest.mark.gpu),
]
COS, SIN = rope.rope_table(10_000.0, 6, 0, 5, torch.device("cpu"))
TARGETS = torch.tensor([[0, 3, 6], [6, 6, 1]])
ROW_WEIGHTS = torch.tensor([0.5, 0.0, 0.25, 1.0, 0.125, 2.0])


def on(value):
    return value.to(DEVICE)


def linear_loss(x, w, how):
    targets, weights = (v.to(x.device) for v in (TARGETS.flatten(), ROW_WEIGHTS))
    total, losses = cross_entropy.linear_cross_entropy(x, w, targets, weights.to(total_dtype(x)), implementation=how)
    return torch.cat((total[None], 0 * losses))


def total_dtype(x):
    return torch.promote_types(x.dtype, torch.float32)


def convolved(x, w, b, how):
    return torch.cat(causal_conv1d.causal_conv1d(x, w, b, (7, 5), implementation=how), -1)


SCALES = {"no": (), "vector": ((6,), (6,)), "token": ((2, 5, 1), (2, 5, 1))}


def fused(fusion, maps, scale, norms):
    """fuse_heads of leaves: y, z, attended, then gains, scales and maps as there are."""

    def run(y, z, attended, *rest):
        *rest, how = rest
        gains, rest = (rest[:2], rest[2:]) if norms else (None, rest)
        scales, rest = ((None, None), rest) if scale == "no" else (rest[:2], rest[2:])
        options = {"norms": gains, "scales": tuple(scales), "fusion": fusion, "weights": tuple(rest), "groups": 2}
        return fuse_heads.fuse_heads(y, z, attended, **options, eps=EPS, implementation=how)

    return run


def time_step_triton(dt, bias):
    from hybrid_nas_kernels.ssd import triton_time_step

    return triton_time_step.time_step_triton(dt, bias)


def added_norm(x, y, w, how):
    """The sum, and its norm."""
    if how == "reference":
        return torch.stack((x + y, F.rms_norm(x + y, w.shape, w, EPS)))
    from hybrid_nas_kernels.norm_linear import triton_kernels

    return torch.stack(triton_kernels.add_rms_norm(x, y, w, EPS))


# name -> (function of leaves and implementation, shapes of the leaves, indices of leaves that stay float32)
OPERATIONS = {
    "norm_linear": (
        lambda x, w, m, how: torch.cat(norm_linear.norm_linear(x, w, m, (4, 1, 2), eps=EPS, implementation=how), -1),
        ((2, 5, 6), (6,), (7, 6)),
        (1,),
    ),
    "gated_norm_linear": (
        lambda y, z, w, m, how: gated_norm_linear.gated_norm_linear(y, z, w, m, groups=1, eps=EPS, implementation=how),
        ((2, 5, 6), (2, 5, 6), (6,), (7, 6)),
        (2,),
    ),
    "gated_norm_linear in groups": (
        lambda y, z, w, m, how: gated_norm_linear.gated_norm_linear(y, z, w, m, groups=3, eps=EPS, implementation=how),
        ((2, 5, 6), (2, 5, 6), (6,), (7, 6)),
        (2,),
    ),
    "add_rms_norm": (added_norm, ((2, 5, 6), (2, 5, 6), (6,)), (2,)),
    "add_rms_norm, of which only the norm is used": (
        lambda x, y, w, how: added_norm(x, y, w, how)[1],
        ((2, 5, 6), (2, 5, 6), (6,)),
        (2,),
    ),
    "swiglu of few tokens": (
        lambda x, w, g, u, d, how: swiglu.swiglu(x, w, g, u, d, eps=EPS, implementation=how),
        ((2, 5, 6), (6,), (8, 6), (8, 6), (6, 8)),
        (1,),
    ),
    "swiglu of many tokens": (
        lambda x, w, g, u, d, how: swiglu.swiglu(x, w, g, u, d, eps=EPS, implementation=how),
        ((2, 129, 3), (3,), (5, 3), (5, 3), (3, 5)),
        (1,),
    ),
    **{
        f"fuse_heads, {fusion}, {len(maps)} maps, {scale} scales, {'norms' if norms else 'no norms'}": (
            fused(fusion, len(maps), scale, norms),
            ((2, 5, 6), (2, 5, 6), (2, 5, 6), *(((6,), (6,)) if norms else ()), *SCALES[scale], *maps),
            tuple(range(3, 3 + 2 * norms + 2 * (scale == "vector"))),
        )
        for fusion, maps, scale, norms in (
            ("difference", ((7, 6), (7, 6)), "no", True),
            ("add", ((7, 6), (7, 6)), "vector", True),
            ("add", ((7, 6),), "token", True),
            ("difference", ((7, 6),), "vector", False),
            ("concat", ((7, 12),), "no", False),
        )
    },
    "time_step": (
        lambda dt, bias, how: F.softplus(30 * dt + bias) if how == "reference" else time_step_triton(30 * dt, bias),
        ((2, 5, 3), (3,)),
        (1,),
    ),
    "rope": (lambda x, how: rope.rope(x, COS.to(x.device), SIN.to(x.device), implementation=how), ((2, 5, 3, 6),), ()),
    "cross_entropy": (
        lambda x, how: cross_entropy.cross_entropy(x, TARGETS.to(x.device), implementation=how)[None],
        ((2, 3, 7),),
        (),
    ),
    "cross_entropy of a large vocabulary": (
        lambda x, how: cross_entropy.cross_entropy(x, TARGETS[:, :1].to(x.device), implementation=how)[None],
        ((2, 1, 9001),),
        (),
    ),
    "linear_cross_entropy": (linear_loss, ((6, 5), (7, 5)), ()),
    **{
        f"causal_conv1d, {tokens} tokens": (convolved, ((2, tokens, 12), (12, 4), (12,)), (1, 2))
        for tokens in (1, 2, 5, 70)
    },
    "causal_conv1d, kernel 1": (convolved, ((2, 5, 12), (12, 1), (12,)), (1, 2)),
}


def with_gradients(name, dtype, how, device, given):
    function, shapes, wide = OPERATIONS[name]
    g = torch.Generator().manual_seed(0)
    leaves = []
    for i, shape in enumerate(shapes):
        value = torch.randn(shape, dtype=torch.float64, generator=g)
        value = value.to(torch.float32 if i in wide else given).to(dtype if dtype == torch.float64 else value.dtype)
        value = value.to(dtype if dtype == torch.float64 else torch.float32 if i in wide else given)
        leaves.append(value.to(device).requires_grad_())
    y = function(*leaves, how)
    slope = torch.linspace(-1, 2, y.numel(), dtype=torch.float64).view(y.shape).to(y.dtype).to(device)
    return [v.cpu() for v in (y.detach(), *torch.autograd.grad((y * slope).sum(), leaves))]


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_outputs_and_gradients_equal_the_float64_reference(name, dtype, assert_close):
    expected = with_gradients(name, torch.float64, "reference", "cpu", dtype)
    got = with_gradients(name, dtype, "triton", DEVICE, dtype)
    for actual, reference in zip(got, expected, strict=True):
        assert_close(actual.to(dtype), reference)


def test_cross_entropy_of_a_row_that_no_program_holds_is_that_of_the_whole(monkeypatch):
    from hybrid_nas_kernels.cross_entropy import triton_kernels

    name = "cross_entropy of a large vocabulary"
    whole = with_gradients(name, torch.float32, "triton", DEVICE, torch.float32)
    monkeypatch.setattr(triton_kernels, "WHOLE", 1024)
    parts = with_gradients(name, torch.float32, "triton", DEVICE, torch.float32)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_linear_cross_entropy_in_parts_is_that_of_the_whole(monkeypatch):
    from hybrid_nas_kernels.cross_entropy import triton_kernels

    whole = with_gradients("linear_cross_entropy", torch.float32, "triton", DEVICE, torch.float32)
    monkeypatch.setattr(triton_kernels, "LOGITS_AT_ONCE", 14)  # two rows at a time
    for a, b in zip(
        whole, with_gradients("linear_cross_entropy", torch.float32, "triton", DEVICE, torch.float32), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_cross_entropy_far_beyond_the_range_of_exp(assert_close):
    logits = 300 * torch.randn(6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = cross_entropy.cross_entropy(on(logits.float()), on(TARGETS.flatten()), implementation="triton")
    assert_close(got.cpu(), F.cross_entropy(logits.float().double(), TARGETS.flatten()))


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("slots", "heads", "kv_heads", "dims"),
    [(1, 2, 1, (8, 8)), (70, 6, 2, (20, 12)), (90, 4, 2, (40, 24)), (300, 4, 4, (64, 64))],
)
def test_a_step_of_attention(slots, heads, kv_heads, dims, dtype, assert_close):
    g = torch.Generator().manual_seed(0)
    q, keys, values = (
        torch.randn(shape, generator=g).to(dtype)
        for shape in ((2, heads, dims[0]), (2, slots + 3, kv_heads, dims[0]), (2, slots + 3, kv_heads, dims[1]))
    )
    expected = attention.attention_step_reference(q.double(), keys[:, :slots].double(), values[:, :slots].double())
    got = attention.attention_step_triton(on(q), on(keys)[:, :slots], on(values)[:, :slots])
    assert_close(got.cpu(), expected)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("how", ["reference", "triton"])
def test_adamw_is_torchs_own_after_clipping(how):
    """Two groups, odd sizes, three steps, the first of which is clipped."""
    g = torch.Generator().manual_seed(0)
    weights = [torch.randn(n, generator=g, dtype=torch.float64) for n in (5001, 7)]
    gradients = [[torch.randn(w.shape, generator=g).double() * size for w in weights] for size in (3.0, 0.001, 0.002)]
    rates = [0.1, 0.02, 0.05]
    expected = [w.clone().requires_grad_() for w in weights]
    options = {"betas": (0.9, 0.98), "eps": 1e-8}
    theirs = torch.optim.AdamW(
        [{"params": [w], "weight_decay": decay} for w, decay in zip(expected, (0.1, 0.0), strict=True)], **options
    )
    groups = [
        adamw.Group(*(on(v) for v in (w.float(), torch.zeros(len(w)), torch.zeros(len(w)), torch.zeros(len(w)))),
                    on(w.float()), decay)
        for w, decay in zip(weights, (0.1, 0.0), strict=True)
    ]  # fmt: skip
    for step, (rate, given) in enumerate(zip(rates, gradients, strict=True)):
        for w, group, gradient in zip(expected, groups, given, strict=True):
            w.grad = gradient.clone()
            group.gradient.copy_(gradient)
        torch.nn.utils.clip_grad_norm_(expected, 1.0)
        for settings in theirs.param_groups:
            settings["lr"] = rate
        theirs.step()
        count = on(torch.tensor([step]))
        adamw.adamw_(groups, on(torch.tensor(rates)), count, clip=1.0, **options, implementation=how)
    for w, group in zip(expected, groups, strict=True):
        torch.testing.assert_close(group.master.cpu(), w.detach().float(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(group.compute, group.master)
