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
    ssd,
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


NAMES = ("x", "dt", "A", "B", "C", "D", "initial_state")


def scan_inputs(tokens, dtype, heads=4, head_dim=8, groups=1, d_state=5, batch=2, dt_scale=1.0):
    """Leaves as the model gives them: x, B and C in `dtype`, the rest in float32."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=g)

    values = {
        "x": normal(batch, tokens, heads, head_dim),
        "dt": dt_scale * torch.rand(batch, tokens, heads, dtype=torch.float64, generator=g),
        "A": -16 * torch.rand(heads, dtype=torch.float64, generator=g),
        "B": normal(batch, tokens, groups, d_state),
        "C": normal(batch, tokens, groups, d_state),
        "D": normal(heads),
        "initial_state": normal(batch, heads, head_dim, d_state),
    }
    # States between chunks are kept in `dtype`, so that is what the first one is given in.
    values["initial_state"] = values["initial_state"].to(dtype).double()
    return {k: v.to(dtype if k in ("x", "B", "C") else torch.float32) for k, v in values.items()}


def scan(values, how, device, dtype=None, weigh_state=True, chunk=None):
    leaves = {
        k: (v if dtype is None else v.to(dtype)).to(device).requires_grad_() for k, v in values.items() if v is not None
    }
    y, final = ssd.ssd(**leaves, implementation=how, chunk=chunk)
    g = torch.Generator().manual_seed(1)
    weights = [
        torch.randn(v.shape, dtype=torch.float64, generator=g).bfloat16().to(v.dtype).to(device) for v in (y, final)
    ]
    total = (y * weights[0]).sum()
    if weigh_state:
        total = total + (final * weights[1]).sum()
    gradients = torch.autograd.grad(total, list(leaves.values()))
    return {"y": y.detach().cpu(), "final": final.detach().cpu()} | {
        k: v.cpu() for k, v in zip(leaves, gradients, strict=True)
    }


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("tokens", "shape", "chunk"),
    [
        (1, {}, None),
        (3, {"groups": 2}, None),
        (37, {}, 16),
        (65, {"groups": 2}, None),
        (50, {"heads": 1, "head_dim": 20, "d_state": 17}, 16),
    ],
)
def test_the_scan_and_all_its_gradients_equal_the_float64_recurrence(tokens, shape, chunk, dtype, assert_close):
    values = scan_inputs(tokens, dtype, **shape)
    expected = scan(values, "reference", DEVICE, torch.float64)
    got = scan(values, "triton", DEVICE, chunk=chunk)
    assert set(got) == {"y", "final", *NAMES}
    for name, value in got.items():
        assert_close(value.to(dtype), expected[name])


@pytest.mark.gpu
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize(
    ("tokens", "shape"),
    [
        (300, {"heads": 4, "head_dim": 64, "d_state": 64}),
        (300, {"heads": 2, "head_dim": 128, "d_state": 128}),
        (300, {"heads": 2, "head_dim": 192, "d_state": 256}),
        (1030, {"heads": 8, "head_dim": 64, "d_state": 128, "batch": 8}),
    ],
)
def test_the_scan_in_bfloat16_at_the_sizes_of_models(tokens, shape, assert_close):
    """The chunked way in float64, itself held to the recurrence at 1e-12, is the reference."""
    values = scan_inputs(tokens, torch.bfloat16, **shape)
    expected = scan(values, "chunked", DEVICE, torch.float64)
    for name, value in scan(values, "triton", DEVICE).items():
        assert_close(value.bfloat16(), expected[name])


@pytest.mark.gpu
@pytest.mark.parametrize("d_state", [8, 16, 32, 64, 128])
@pytest.mark.parametrize("head_dim", [8, 16, 32, 64])
def test_the_scan_in_bfloat16_with_small_tiles(head_dim, d_state, assert_close):
    """Every pair of tiles that proxies have, in as many heads as fill the device. One of them, 16 x 32, was compiled to
    read beyond its shared memory."""
    values = scan_inputs(1024, torch.bfloat16, heads=16, head_dim=head_dim, d_state=d_state, batch=8)
    expected = scan(values, "chunked", DEVICE, torch.float64)
    for name, value in scan(values, "triton", DEVICE).items():
        assert_close(value.bfloat16(), expected[name])


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("heads", [1, 3])
def test_the_scan_without_skip_initial_state_or_use_of_the_final_one(heads, assert_close):
    values = scan_inputs(41, torch.float32, heads=heads) | {"D": None, "initial_state": None}
    expected = scan(values, "reference", DEVICE, torch.float64, weigh_state=False)
    for name, value in scan(values, "triton", DEVICE, weigh_state=False).items():
        assert_close(value, expected[name])


def test_decays_far_beyond_the_range_of_exp(assert_close):
    """A chunk's log decay is beyond -1000 here: its inverse overflows even in float64."""
    values = scan_inputs(48, torch.float32, dt_scale=15.0)
    expected, got = scan(values, "reference", DEVICE, torch.float64), scan(values, "triton", DEVICE)
    for name in ("y", "final", "x", "B", "C", "D", "initial_state"):
        assert_close(got[name], expected[name])
    assert all(torch.isfinite(v).all() for v in got.values())


def test_several_heads_a_program_give_what_one_gives(monkeypatch, assert_close):
    from hybrid_nas_kernels.ssd import triton_kernels

    values = scan_inputs(33, torch.float32, heads=8, groups=2)
    expected = scan(values, "reference", DEVICE, torch.float64)
    monkeypatch.setattr(triton_kernels, "heads_a_program", lambda share, chunks: 2)
    for name, value in scan(values, "triton", DEVICE).items():
        assert_close(value, expected[name])


def test_heads_a_program_divide_a_group_and_leave_enough_programs():
    from hybrid_nas_kernels.ssd.triton_kernels import heads_a_program

    assert heads_a_program(8, 16 * 32) == 8
    assert heads_a_program(8, 32) == 2
    assert heads_a_program(8, 4) == 1
    assert heads_a_program(12, 43) == 4
    assert heads_a_program(1, 10_000) == 1


def test_strided_views_are_read_in_place(assert_close):
    """What the model hands over: x beside the gate in one projection."""
    values = scan_inputs(21, torch.float32)
    wide = torch.randn(2, 21, 4 * 8 + 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).float()
    values["x"] = wide[..., 7:].unflatten(-1, (4, 8))
    expected, _ = ssd.ssd(**{k: v.double() for k, v in values.items()}, implementation="reference")
    got, _ = ssd.ssd(
        **{k: on(v) for k, v in values.items() if k != "x"},
        x=on(wide)[..., 7:].unflatten(-1, (4, 8)),
        implementation="triton",
    )
    assert_close(got.cpu(), expected)


@pytest.mark.parametrize("operation", ["hybrid_nas::ssd", "hybrid_nas::rms_norm", "hybrid_nas::causal_conv1d"])
def test_the_custom_operations_meet_torchs_rules(operation):
    """Schema, fake tensors and autograd registration, as torch.compile relies on them."""
    v = {k: on(x).requires_grad_() for k, x in scan_inputs(18, torch.float32).items()}
    w, b, x = on(torch.randn(12, 4)), on(torch.randn(12)), on(torch.randn(2, 9, 12))
    arguments = {
        "hybrid_nas::ssd": (v["x"], v["dt"], v["A"], v["B"], v["C"], v["D"], v["initial_state"], 16),
        "hybrid_nas::rms_norm": (x.requires_grad_(), None, b.requires_grad_(), 1, EPS),
        "hybrid_nas::causal_conv1d": (x.requires_grad_(), w.requires_grad_(), b.requires_grad_(), [7, 5]),
    }[operation]
    from hybrid_nas_kernels.causal_conv1d import triton_kernels as _conv
    from hybrid_nas_kernels.norm_linear import triton_kernels as _norm
    from hybrid_nas_kernels.ssd import triton_kernels as _ssd

    assert all((_conv, _norm, _ssd))
    op = getattr(torch.ops.hybrid_nas, operation.split("::")[1]).default
    torch.library.opcheck(op, arguments, test_utils=("test_schema", "test_autograd_registration", "test_faketensor"))


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
@pytest.mark.parametrize("dtype", DTYPES)
def test_steps_of_the_scan_and_of_the_convolution(dtype, assert_close):
    values = scan_inputs(5, dtype, groups=2, head_dim=20, d_state=17)
    expected, final = ssd.ssd_reference(**{k: v.double() for k, v in values.items()})
    state = on(values["initial_state"].float())
    steps = []
    for t in range(5):
        x, dt, B, C = (on(values[k])[:, t] for k in ("x", "dt", "B", "C"))
        steps.append(ssd.ssd_step_triton(x, dt, on(values["A"]), B, C, on(values["D"]), state))
    assert_close(torch.stack(steps, 1).cpu(), expected)
    assert_close(state.cpu().to(dtype), final)

    # As weights are: a bias and softplus before the time step, A by the logarithm of its negative.
    raw, bias = values["dt"], torch.linspace(-2, 1, 4)
    wide = {k: v.double() for k, v in values.items()} | {"dt": F.softplus(raw.double() + bias.double())}
    expected, final = ssd.ssd_reference(**wide)
    for how in (ssd.ssd_step_triton, ssd.ssd_step_reference):
        state, steps = on(values["initial_state"].float().clone()), []
        for t in range(5):
            x, dt, B, C = (on(values[k])[:, t] for k in ("x", "dt", "B", "C"))
            log = on(torch.log(-values["A"]))
            steps.append(how(x, dt, log, B, C, on(values["D"]), state, on(bias)))
        assert_close(torch.stack(steps, 1).cpu(), expected)
        assert_close(state.cpu().to(dtype), final)

    g = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(2, 7, 300, generator=g).to(dtype),
        torch.randn(300, 4, generator=g),
        torch.randn(300, generator=g),
    )
    (expected,) = causal_conv1d.causal_conv1d_reference(x.double(), weight.double(), bias.double(), (300,))
    window = on(torch.zeros(2, 300, 4, dtype=dtype))
    got = [causal_conv1d.causal_conv1d_step_triton(on(x)[:, t], window, on(weight), on(bias)) for t in range(7)]
    assert_close(torch.stack(got, 1).cpu(), expected)
    assert torch.equal(window.cpu(), x[:, -4:].transpose(1, 2))


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
