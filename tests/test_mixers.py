"""The conformance list: every mixer, one file. A new mixer is a line in MIXERS."""

import io

import pytest
import torch
from hybrid_nas_kernels.attention.blocked import BLOCK
from hybrid_nas_kernels.gated_delta.chunked import CHUNK as CHUNK_DELTA
from hybrid_nas_kernels.mamba3.chunked import CHUNK as CHUNK_MAMBA3
from hybrid_nas_kernels.ssd.chunked import CHUNK
from torch.utils.flop_counter import FlopCounterMode

from hybrid_nas.architecture import MIXERS as KINDS
from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, ParallelHybrid, ParallelPair
from hybrid_nas.cost import cost, mixer_cost
from hybrid_nas.mixers import MODULES
from hybrid_nas.model import build
from hybrid_nas.recurrent import GatedDeltaNet, Mamba1, Mamba3

WIDTH, BATCH, TOKENS = 24, 2, 45

HALF = Attention(heads=4, kv_heads=2, head_dim=6, value_dim=8)  # 32 channels of values
OTHER = Mamba2(d_ssm=32, head_dim=8, d_state=8)
WIDER = Mamba2(d_ssm=48, head_dim=12, d_state=8, groups=2)

PARALLEL = {
    # each option of every axis, and every pair of fusion, output and value that can stand together
    "parallel, as the paper's pick": ParallelHybrid(HALF, WIDER),
    "parallel, add, joint output": ParallelHybrid(HALF, OTHER, scale="vector", fusion="add", output="joint"),
    "parallel, difference, joint output": ParallelHybrid(HALF, OTHER, "none", "diff", "difference", output="joint"),
    "parallel, concat": ParallelHybrid(HALF, WIDER, "none", "none", "concat", output="joint"),
    "parallel, concat, scale, no position": ParallelHybrid(
        Attention(heads=2, kv_heads=2, head_dim=8, rope_theta=None, value_dim=16),
        WIDER,
        "group",
        "vector",
        "concat",
        output="joint",
    ),
    "parallel, joint values": ParallelHybrid(HALF, OTHER, "group", "none", "difference", "joint", "joint"),
    "parallel, joint values, separate output": ParallelHybrid(HALF, OTHER, "none", "gate", "add", "joint", "separate"),
    "parallel, joint values, concat": ParallelHybrid(HALF, OTHER, "group", "diff", "concat", "joint", "joint"),
    "parallel, gate": ParallelHybrid(HALF, OTHER, "group", "gate", "add", "separate", "joint"),
    "parallel, window": ParallelHybrid(
        Attention(heads=4, kv_heads=1, head_dim=6, window=8, sinks=3, value_dim=12), WIDER, "group", "diff", "add"
    ),
    "parallel, narrow values": ParallelHybrid(
        Attention(heads=2, kv_heads=1, head_dim=16, value_dim=4), OTHER, "none", "vector", "difference"
    ),
}

MIXERS = {
    "attention": Attention(heads=4, kv_heads=4, head_dim=6),
    "attention, no position": Attention(heads=4, kv_heads=4, head_dim=6, rope_theta=None),
    "attention, 2 of 4 kv heads": Attention(heads=4, kv_heads=2, head_dim=8),
    "attention, 1 of 4 kv heads": Attention(heads=4, kv_heads=1, head_dim=8, rope_theta=500_000.0),
    "window": Attention(heads=4, kv_heads=2, head_dim=6, window=8),
    "window with sinks": Attention(heads=4, kv_heads=2, head_dim=6, window=8, sinks=3),
    "window with sinks, no position": Attention(heads=2, kv_heads=1, head_dim=6, rope_theta=None, window=5, sinks=2),
    "window of 1": Attention(heads=2, kv_heads=2, head_dim=6, window=1),
    "window wider than the sequence": Attention(heads=2, kv_heads=2, head_dim=6, window=64, sinks=2),
    "mamba2": Mamba2(d_ssm=48, head_dim=12, d_state=16),
    "mamba2, large state": Mamba2(d_ssm=48, head_dim=16, d_state=64),
    "mamba2, one head": Mamba2(d_ssm=48, head_dim=48, d_state=8),
    "mamba2, groups": Mamba2(d_ssm=48, head_dim=12, d_state=8, groups=2),
    "mamba2, a group a head": Mamba2(d_ssm=48, head_dim=12, d_state=8, groups=4, conv_kernel=3),
    "mamba1": Mamba1(d_ssm=48, d_state=16, dt_rank=2),
    "mamba1, norms as Jamba's": Mamba1(d_ssm=48, d_state=8, dt_rank=3, norms=True),
    "mamba1, small state": Mamba1(d_ssm=40, d_state=1, dt_rank=5, conv_kernel=3),
    "mamba3": Mamba3(d_ssm=48, head_dim=12, d_state=16),
    "mamba3, groups and a part that does not turn": Mamba3(d_ssm=48, head_dim=8, d_state=6, groups=3),
    "gated deltanet": GatedDeltaNet(heads=3, key_dim=6, value_dim=12),
    "gated deltanet, one head": GatedDeltaNet(heads=1, key_dim=16, value_dim=8, conv_kernel=3),
    "attention, wide values": Attention(heads=4, kv_heads=2, head_dim=4, value_dim=10),
    **PARALLEL,
    "pair, differential attention": ParallelPair(HALF, "none", "diff", "difference", "joint", "joint"),
    "pair, attention in a window": ParallelPair(
        Attention(heads=2, kv_heads=1, head_dim=6, window=8, sinks=3, value_dim=12), "group", "vector", "add", "joint"
    ),
    "pair, attention, own values": ParallelPair(HALF, "group", "gate", "concat", "separate", "joint"),
    "pair, mamba2": ParallelPair(OTHER, "none", "diff", "difference"),
    "pair, mamba2, norm": ParallelPair(WIDER, "group", "vector", "add", output="joint"),
}

every_mixer = pytest.mark.parametrize("mixer", MIXERS.values(), ids=MIXERS)


def module_of(mixer, seed=0, dtype=torch.float32, width=WIDTH):
    """The module with weights as `build` draws them, and every bias, gain and decay moved off its neutral value."""
    model = build(Architecture(width, 8, (Block(mixer, None),)), generator=seed)
    module = model.blocks[0].mixer
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.rand(parameter.shape, generator=generator))
    return module.to(dtype)


def sequence(tokens=TOKENS, dtype=torch.float32, width=WIDTH):
    return torch.randn(BATCH, tokens, width, generator=torch.Generator().manual_seed(7)).to(dtype)


def test_every_description_has_a_module_and_stands_in_this_list():
    assert set(MODULES) == set(KINDS.values())
    assert {type(mixer) for mixer in MIXERS.values()} == set(MODULES)


@every_mixer
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, TOKENS])
def test_shape_and_dtype(mixer, dtype, tokens):
    x = sequence(tokens, dtype)
    y = module_of(mixer, dtype=dtype)(x)
    assert y.shape == x.shape
    assert y.dtype == dtype
    exact = module_of(mixer, dtype=torch.float32)(x.float())
    tolerance = {torch.float32: 0.0, torch.bfloat16: 0.05}[dtype]
    assert (y.float() - exact).abs().max() <= tolerance * exact.abs().max()


@every_mixer
@pytest.mark.parametrize("changed", [0, 17, 32, TOKENS - 1])
def test_causality(mixer, changed):
    module, x = module_of(mixer), sequence()
    other = x.clone()
    other[:, changed] += 1.0
    with torch.no_grad():
        before, after = module(x), module(other)
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert not torch.equal(before[:, changed], after[:, changed])


@every_mixer
def test_parameters_are_those_of_cost(mixer):
    assert sum(p.numel() for p in module_of(mixer).parameters()) == mixer_cost(mixer, WIDTH, TOKENS).params


@every_mixer
@pytest.mark.parametrize(("dtype", "value_bytes"), [(torch.float32, 4), (torch.bfloat16, 2)])
@pytest.mark.parametrize("context", [1, 4, TOKENS])
def test_cache_bytes_are_those_of_cost(mixer, dtype, value_bytes, context):
    architecture = Architecture(WIDTH, 8, (Block(mixer, None),) * 2)
    cache = build(architecture, generator=0).cache(BATCH, context, dtype=dtype)
    assert cache.nbytes == BATCH * cost(architecture, context, value_bytes).cache_bytes


@every_mixer
def test_step_by_step_is_forward(mixer):
    """45 tokens: far past every window here, and past a chunk of the scan."""
    module, x = module_of(mixer), sequence()
    norm = torch.linspace(0.5, 1.5, WIDTH)
    cache = module.cache(BATCH, TOKENS, x.device, x.dtype)
    with torch.no_grad():
        whole = module(x, norm)
        steps = torch.stack([module.step(x[:, t], cache, t, norm) for t in range(TOKENS)], 1)
    torch.testing.assert_close(steps, whole, rtol=0, atol=2e-6 * float(whole.abs().max()) * TOKENS**0.5)


@every_mixer
def test_the_norm_in_front_is_rms_norm(mixer):
    module, x = module_of(mixer), 3 * sequence()
    norm = torch.linspace(0.5, 1.5, WIDTH)
    with torch.no_grad():
        expected = module(x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm)
        torch.testing.assert_close(module(x, norm), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@every_mixer
def test_gradients_reach_every_parameter(mixer):
    module, x = module_of(mixer), sequence().requires_grad_()
    norm = torch.ones(WIDTH, requires_grad=True)
    (module(x, norm) * sequence().flip(1)).sum().backward()
    gradients = {name: p.grad for name, p in module.named_parameters()} | {"x": x.grad, "norm": norm.grad}
    if mixer == MIXERS["window of 1"]:  # a softmax over one key is 1, whatever the query and the key
        unused = {"q_proj.weight", "k_proj.weight"}
        assert all(float(gradients.pop(name).abs().max()) < 1e-5 for name in unused)
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert torch.isfinite(gradient).all(), name
        assert float(gradient.abs().max()) > 0, name


@every_mixer
def test_one_seed_one_result(mixer):
    x = sequence()
    with torch.no_grad():
        first, second, other = (module_of(mixer, seed)(x) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@every_mixer
def test_a_saved_state_gives_equal_results(mixer):
    file, x = io.BytesIO(), sequence()
    module, other = module_of(mixer, 0), module_of(mixer, 1)
    torch.save(module.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        assert torch.equal(module(x), other(x))


LONG = 256


def differences(got, expected):
    """The largest difference of each tensor, as a share of the expected one's largest value."""
    pairs = zip(got, expected, strict=True)
    return [
        float((a.detach().double().cpu() - b.detach()).abs().max() / b.abs().max().clamp(min=1e-9)) for a, b in pairs
    ]


def flops_of_products(mixer, width):
    """FLOPs of every matrix product and convolution of one forward pass over LONG tokens: what torch counts."""
    match mixer:
        case Attention():
            scored = 0
            for start in range(0, LONG, BLOCK):
                first = 0 if mixer.window is None else max(0, start - mixer.window + 1)
                first, apart = (0, 0) if first <= mixer.sinks else (first, mixer.sinks)
                scored += BLOCK * (start + BLOCK - first + apart)
            values = mixer.value_dim or mixer.head_dim
            query_channels, value_channels = mixer.heads * mixer.head_dim, mixer.heads * values
            weights = width * (query_channels + value_channels + mixer.kv_heads * (mixer.head_dim + values))
            return 2 * weights * LONG + 2 * (query_channels + value_channels) * scored
        case Mamba2():
            weights = width * (2 * mixer.d_ssm + 2 * mixer.groups * mixer.d_state + mixer.heads) + width * mixer.d_ssm
            inside = 2 * CHUNK * (mixer.groups * mixer.d_state + mixer.d_ssm)
            across = 4 * mixer.d_ssm * mixer.d_state
            convolved = 2 * mixer.conv_channels * mixer.conv_kernel * LONG
            return (2 * weights + inside + across) * LONG + convolved
        case Mamba1():
            weights = width * 3 * mixer.d_ssm + mixer.d_ssm * (2 * mixer.dt_rank + 2 * mixer.d_state)
            convolved = 2 * mixer.d_ssm * mixer.conv_kernel * LONG
            return (2 * weights + 2 * mixer.d_ssm * mixer.d_state) * LONG + convolved
        case Mamba3():
            in_features = 2 * mixer.d_ssm + 2 * mixer.groups * mixer.d_state + 3 * mixer.heads + mixer.pairs
            weights = width * (in_features + mixer.d_ssm)
            inside = 2 * CHUNK_MAMBA3 * mixer.heads * (mixer.d_state + mixer.head_dim)
            across = 4 * mixer.d_ssm * mixer.d_state
            return (2 * weights + inside + across) * LONG
        case GatedDeltaNet():
            keys, values = mixer.keys, mixer.values
            weights = width * (2 * keys + 3 * values + 2 * mixer.heads)
            convolved = 2 * (2 * keys + values) * mixer.conv_kernel * LONG
            inside = 2 * CHUNK_DELTA * (2 * keys + values)
            across = 6 * mixer.heads * mixer.key_dim * mixer.value_dim
            return (2 * weights + inside + across) * LONG + convolved
        case ParallelPair():
            both, channels = 2 * flops_of_products(mixer.half, width), mixer.channels
            saved = channels * (mixer.output == "joint" and mixer.fusion != "concat")
            saved += mixer.half.kv_values if mixer.value == "joint" else 0
            return both + 2 * width * LONG * (2 * (mixer.scale == "gate") - saved)
        case ParallelHybrid():
            d_ssm, values = mixer.mamba.d_ssm, mixer.attention.heads * mixer.attention.value_dim
            both = flops_of_products(mixer.attention, width) + flops_of_products(mixer.mamba, width)
            saved = d_ssm * ((mixer.value == "joint") + (mixer.output == "joint" and mixer.fusion != "concat"))
            assert d_ssm == values or not saved
            return both + 2 * width * LONG * (2 * (mixer.scale == "gate") - saved)


PROXY_LIKE = {
    "attention": Attention(heads=4, kv_heads=1, head_dim=16),
    "window of half a block": Attention(heads=4, kv_heads=2, head_dim=16, window=32, sinks=4),
    "window of two blocks": Attention(heads=4, kv_heads=2, head_dim=16, window=128, sinks=4),
    "mamba2, state 16": Mamba2(d_ssm=128, head_dim=32, d_state=16),
    "mamba2, state 64": Mamba2(d_ssm=128, head_dim=64, d_state=64),
    "mamba2, groups": Mamba2(d_ssm=128, head_dim=32, d_state=32, groups=2),
    "mamba1": Mamba1(d_ssm=128, d_state=16, dt_rank=4),
    "mamba3": Mamba3(d_ssm=128, head_dim=32, d_state=16),
    "gated deltanet": GatedDeltaNet(heads=3, key_dim=16, value_dim=32),
    "parallel": ParallelHybrid(Attention(2, 1, 16, value_dim=32), Mamba2(d_ssm=64, head_dim=32, d_state=16)),
    "parallel, all that saves": ParallelHybrid(
        Attention(2, 1, 16, value_dim=32), Mamba2(64, 32, 16), "none", "gate", "add", "joint", "joint"
    ),
    "pair, mamba2": ParallelPair(Mamba2(64, 32, 16), "none", "diff"),
    "parallel, concat": ParallelHybrid(
        Attention(2, 1, 16, value_dim=32), Mamba2(96, 32, 16), "group", "vector", "concat", output="joint"
    ),
}


@pytest.mark.parametrize("mixer", PROXY_LIKE.values(), ids=PROXY_LIKE)
def test_flops_against_torchs_counter(mixer):
    """torch counts matrix products and convolutions. It must find exactly those of the algorithm.

    `cost` counts the mathematics. Attention's is the exact triangle or band, which blocks of queries round up by at
    most one block of keys a query. For Mamba-2 it is the paper's convention of 9 d_ssm d_state a token for the scan;
    in products the scan is 4 d_ssm d_state across chunks and 2 chunk (groups d_state + d_ssm) inside, and the rest
    of it is elementwise, of which torch counts nothing. So there the totals, weights included, agree to 35%, and so do
    those of the other recurrent mixers; of gated DeltaNet's triangular systems torch counts nothing either.
    In float64, because the counter does not know oneDNN's float32 products.
    """
    width = 64
    module = module_of(mixer, width=width, dtype=torch.float64)
    x = sequence(LONG, width=width, dtype=torch.float64)[:1]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    counted = counter.get_total_flops()
    assert counted == flops_of_products(mixer, width)
    priced = mixer_cost(mixer, width, LONG)
    vectors = sum(p.numel() for p in module.parameters() if p.ndim != 2)  # norms, biases, the short convolution
    total = LONG * (2 * (priced.params - vectors) + priced.forward_flops)
    match mixer:
        case Attention():
            assert 0 <= counted - total <= 4 * mixer.heads * mixer.head_dim * BLOCK * LONG
        case Mamba2() | ParallelHybrid() | ParallelPair() | Mamba1() | Mamba3() | GatedDeltaNet():
            assert counted == pytest.approx(total, rel=0.35)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # of the imports of the packages whose kernels run
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mixer", PROXY_LIKE.values(), ids=PROXY_LIKE)
def test_on_a_gpu_as_on_the_cpu_in_float64(mixer, dtype):
    """By what `auto` takes there; in bfloat16 the matrices alone, as a training on a GPU has them."""
    width = 64
    module, x = module_of(mixer, width=width), sequence(LONG, width=width).to(dtype)
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(9)).to(dtype)
    names = [name for name, _ in module.named_parameters()]
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1 and not name.endswith("A_log"):
            parameter.data = parameter.data.to(dtype)
    module.cuda()
    there, on_gpu = x.cuda().requires_grad_(), list(module.parameters())
    y = module(there)
    got = torch.autograd.grad((y * weight.cuda()).sum(), [there, *on_gpu])
    exact = module_of(mixer, width=width, dtype=torch.float64)
    for parameter, source in zip(exact.parameters(), on_gpu, strict=True):
        parameter.data = source.data.double().cpu()
    here = x.double().requires_grad_()
    expected_y = exact(here)
    expected = torch.autograd.grad((expected_y * weight.double()).sum(), [here, *exact.parameters()])
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 0.05}[dtype]
    apart = dict(zip(["y", "x", *names], differences([y, *got], [expected_y, *expected]), strict=True))
    print({name: f"{value:.1e}" for name, value in apart.items()}, module.implementations(torch.device("cuda")))
    assert max(apart.values()) <= tolerance, apart
