"""Products of a decoding step's few rows: in Triton's interpreter, on a GPU where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hybrid_nas_kernels import dispatch, gated_norm_linear, linear_step, norm_linear, parallel_step, swiglu
from hybrid_nas_kernels.adjacent import adjoin, products
from hybrid_nas_kernels.linear_step import Blocks, blocks_of, choose
from hybrid_nas_kernels.norm_linear import add_rms_norm
from torch.nn import functional as F

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, ParallelHybrid, SwiGLU
from hybrid_nas.measure import random_model

triton = pytest.importorskip("triton", reason="triton is not installed")

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
DTYPES = [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
"""The interpreter's products of bfloat16 are wrong."""
WHOLE, PARTED, NARROW = Blocks(64, 128, 1, 4, 5), Blocks(64, 128, 4, 4, 5), Blocks(16, 256, 1, 2, 6)
OF_1B = {  # outputs and channels of the 1B models' products, and what was the fastest at each on an H100
    (8480, 2048): WHOLE,
    (16_384, 2048): WHOLE,
    (6848, 2048): WHOLE,
    (2048, 4096): PARTED,
    (2048, 4352): PARTED,
    (2048, 8192): PARTED,
    (128_256, 2048): NARROW,
    (3072, 2048): None,
    (2048, 2048): None,
}


def amid_nan(rows: int, columns: int, gap: int, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
    """Rows of a wider tensor whose other values are NaN."""
    wide = torch.full((rows + 2, columns + 2 * gap), torch.nan)
    wide[1:-1, gap : gap + columns] = torch.randn(rows, columns, generator=generator)
    return wide.to(DEVICE, dtype)[1:-1, gap : gap + columns]


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gap", [0, 3, 16])
@pytest.mark.parametrize(
    ("rows", "outputs", "inner"),
    [(4, 40, 96), (1, 33, 70), (8, 16, 16), (3, 100, 130), (2, 1, 1)],  # even, odd, one program, several
)
@pytest.mark.parametrize("splits", [1, 2, 4])
def test_the_kernel_is_the_product(
    splits: int, rows: int, outputs: int, inner: int, gap: int, dtype: torch.dtype, assert_close: Any
) -> None:
    from hybrid_nas_kernels.linear_step.triton_step import product

    g = torch.Generator().manual_seed(0)
    x, weight = (amid_nan(n, inner, gap, g, dtype) for n in (rows, outputs))
    got = product(x, weight, Blocks(32, 16, splits, 4, 3))
    assert got.dtype == dtype
    assert_close(got.cpu(), (x.double() @ weight.double().T).cpu())
    assert product(x, weight, Blocks(32, 16, splits, 4, 3)).equal(got)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", DTYPES)
def test_columns_that_are_not_beside_one_another_are_read(dtype: torch.dtype, assert_close: Any) -> None:
    x, weight = torch.randn(20, 3).to(DEVICE, dtype).t(), torch.randn(20, 7).to(DEVICE, dtype).t()
    with torch.no_grad():
        got = linear_step.linear_step(x, weight, implementation="triton")
    assert_close(got.cpu(), (x.double() @ weight.double().T).cpu())


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [1, 4, 8])
@pytest.mark.parametrize("shape", OF_1B)
def test_the_products_of_a_1b_step(shape: tuple[int, int], rows: int, assert_close: Any) -> None:
    g = torch.Generator("cuda").manual_seed(0)
    draw = lambda *size: torch.randn(*size, generator=g, device="cuda").bfloat16()  # noqa: E731
    x, weight = draw(rows, shape[1]), draw(*shape)
    with torch.no_grad():
        got = linear_step.linear_step(x, weight, implementation="triton")
        assert linear_step.linear_step(x, weight, implementation="triton").equal(got)
        added = linear_step.whole(linear_step.PARTS["triton"](x, weight), x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = linear_step.linear_step(x, weight, implementation="triton")
    expected = torch.cat([x.double() @ part.double().T for part in weight.split(16_384)], 1)
    assert_close(got.cpu(), expected.cpu())
    assert_close(added.cpu(), expected.cpu())
    graph.replay()
    assert captured.equal(got)


def test_the_rule_takes_what_was_fastest() -> None:
    assert {shape: blocks_of(*shape) for shape in OF_1B} == OF_1B
    left = {shape: blocks_of(*shape, left=True) for shape in OF_1B}
    assert left == {**OF_1B, (2048, 2048): PARTED}  # where the norm adds the parts
    for outputs, channels in ((32_000, 2048), (128_256, 1024), (128_256, 16_384), (16_385, 2048), (300_000, 2048)):
        assert blocks_of(outputs, channels, left=True) is None  # far from all that were timed


@pytest.fixture
def h100(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rule believes that a device of this compute capability is there, and a new Triton; both can be changed."""
    capability = [9, 0]
    monkeypatch.setattr(linear_step, "_capability", lambda _: tuple(capability))
    monkeypatch.setattr(linear_step, "too_old", lambda: "")
    monkeypatch.setattr(dispatch, "why_not", lambda _: None)
    return capability


CUDA, BF16 = torch.device("cuda"), torch.bfloat16


def test_the_choice_and_its_reason(h100: list[int]) -> None:
    assert choose(torch.device("cpu")) == ("reference", "there is no other on cpu")
    timed = "faster than cuBLAS at 128,256 x 2,048 and 4 rows, timed on an H100"
    assert choose(CUDA) == ("triton", timed)
    untimed = f"not timed at 128,256 x 2,048 and 8 rows; the nearest that was: {timed}"
    assert choose(CUDA, rows=8) == ("triton", untimed)
    for given, reason in {
        (BF16, 9): "up to 8 rows, found 9",
        (BF16, 4, 3072): "at 3,072 x 2,048",
        (BF16, 4, 2048, 2048): "at 2,048 x 2,048",
        (BF16, 4, 40_000, 16_384): "at 40,000 x 16,384",
        (BF16, 4, 2048, 8192, False): "where rows begin at multiples of 16 bytes",
        (BF16, 4, 2048, 8192, True, False, torch.float32): "one dtype for both, found bfloat16 and float32",
        (torch.float32, 4): "in bfloat16 alone, not in float32",
        (torch.float64, 4): "Triton's products have no float64",
    }.items():
        name, why = choose(CUDA, *given)
        assert name == "reference"
        assert reason in why
    for other in ([8, 0], [10, 0], [12, 1]):
        h100[:] = other
        name, why = choose(CUDA)
        assert name == "reference"
        assert why.endswith(f"capability 9 alone, not at {other[0]}.{other[1]}")


@pytest.mark.usefixtures("h100")
def test_the_reason_is_what_was_timed() -> None:
    """Against the committed times: the shapes said to be timed are those where the kernel was faster, by its blocks."""
    path = Path(__file__).parents[2] / "kernels" / "benchmarks" / "results" / "gpu_products.json"
    found = json.loads(path.read_text())
    for rows, left in ((found["rows"], False), (found["to_the_norm"], True)):
        for row in rows:
            outputs, channels = row["outputs"], row["inner"]
            fastest = min(row["us"], key=lambda way: row["us"][way][1])
            name, why = choose(CUDA, BF16, 4, outputs, channels, True, left)
            assert (name == "reference") == (fastest == "cuBLAS")
            if name == "triton":
                assert str(blocks_of(outputs, channels, left)) == fastest
                assert why == f"faster than cuBLAS at {outputs:,} x {channels:,} and 4 rows, timed on an H100"
    for shape, near in {
        (1536, 4096): "2,048 x 4,096",
        (16_384, 3072): "16,384 x 2,048",
        (10_464, 3072): "8,480 x 2,048",
        (128_256, 3072): "128,256 x 2,048",
    }.items():
        name, why = choose(CUDA, BF16, 4, *shape)
        assert name == "triton"
        outputs, channels = shape
        assert why.startswith(f"not timed at {outputs:,} x {channels:,} and 4 rows; the nearest that was: faster than")
        assert f"cuBLAS at {near} and" in why
    assert "cuBLAS at 2,048 x 2,048 and" in choose(CUDA, BF16, 4, 1536, 2304, left=True)[1]


@pytest.mark.usefixtures("h100")
def test_an_older_triton_and_another_makers_gpu_take_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from hybrid_nas_kernels.linear_step.blocks import too_old

    monkeypatch.setattr(linear_step, "too_old", too_old)
    for version, old in {"3.4.0": True, "3.3.1+git1": True, "3.5.0": False, "4.0": False}.items():
        too_old.cache_clear()
        monkeypatch.setattr(triton, "__version__", version)
        name, why = choose(CUDA)
        assert (name == "reference") == old
        assert (why == f"cuBLAS: Triton {version} compiles no product of 8 columns, 3.5 and newer do") == old
    too_old.cache_clear()
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert choose(CUDA) == ("reference", "cuBLAS: ours was timed on NVIDIA's GPUs alone")


def test_rows_that_begin_anywhere_are_told_from_those_that_do_not() -> None:
    whole = torch.zeros(8, 64, dtype=torch.bfloat16)
    assert all(linear_step._aligned(v) for v in (whole, whole[2:], whole[:, 8:40], whole[:, :33]))
    odd = torch.zeros(8, 33, dtype=torch.bfloat16)
    assert not any(linear_step._aligned(v) for v in (odd, odd[:, :32], whole[:, 4:], whole.t()))


def test_what_is_no_decoding_step_is_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_step, "choose", lambda *_: ("triton", "this test says so"))
    monkeypatch.setitem(linear_step.IMPLEMENTATIONS, "triton", lambda *_: pytest.fail("taken"))
    monkeypatch.setattr(dispatch, "CHOSEN", {})
    x, weight = torch.randn(3, 8), torch.randn(5, 8, requires_grad=True)
    linear_step.linear_step(x, weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.allclose(x.sum(0).expand(5, 8))
    with torch.no_grad():
        assert linear_step.linear_step(x[None], weight).equal(F.linear(x[None], weight))
        for run in (linear_step.linear_step, linear_step.linear_step_parts):
            assert run(x, weight[0]).equal(F.linear(x, weight[0]))  # a weight of one output, as torch has it
    assert dispatch.CHOSEN == {}


@pytest.mark.parametrize(
    ("x", "weight", "told"),
    [
        (torch.zeros(9, 8), torch.zeros(5, 8), "up to 8 rows, found 9"),
        (torch.zeros(2, 64), torch.zeros(8, 32), r"equally many channels, at least 1, found \(2, 64\) and \(8, 32\)"),
        (torch.zeros(2, 32), torch.zeros(8, 64)[:, :16], r"found \(2, 32\) and \(8, 16\)"),
        (torch.zeros(2, 0), torch.zeros(8, 0), r"at least 1, found \(2, 0\) and \(8, 0\)"),
        (torch.zeros(1, 2, 8), torch.zeros(5, 8), r"x \(rows, channels\) and a weight .* found \(1, 2, 8\)"),
        (torch.zeros(2, 8), torch.zeros(8), r"a weight \(outputs, channels\), found \(2, 8\) and \(8,\)"),
        (torch.zeros(2, 8).double(), torch.zeros(5, 8).double(), "found float64 and float64; the reference has"),
        (torch.zeros(2, 8).bfloat16(), torch.zeros(5, 8), "both in bfloat16, found bfloat16 and float32"),
    ],
)
def test_what_the_kernel_does_not_have_is_refused(x: torch.Tensor, weight: torch.Tensor, told: str) -> None:
    from hybrid_nas_kernels.linear_step import triton_step
    from torch._subclasses.fake_tensor import FakeTensorMode

    operations = (torch.ops.hybrid_nas.linear_step, torch.ops.hybrid_nas.linear_step_parts)
    product = lambda x, weight: triton_step.product(x, weight, Blocks(32, 16, 2, 4, 3))  # noqa: E731
    with torch.no_grad():
        for run in (linear_step.IMPLEMENTATIONS["triton"], linear_step.PARTS["triton"], product, *operations):
            with pytest.raises(ValueError, match=told):
                run(x.to(DEVICE), weight.to(DEVICE))
        with FakeTensorMode() as mode:
            for run in operations:
                with pytest.raises(ValueError, match=told):
                    run(mode.from_tensor(x), mode.from_tensor(weight))


def test_asked_for_where_it_cannot_be_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from hybrid_nas_kernels.linear_step import triton_step

    x, weight = torch.randn(2, 8, device=DEVICE), torch.randn(5, 8, device=DEVICE)
    with pytest.raises(ValueError, match="no gradients; call it under torch"):
        linear_step.linear_step(x, weight.requires_grad_(), implementation="triton")
    monkeypatch.setattr(triton_step.triton, "JITFunction", type(triton_step._product))
    with torch.no_grad(), pytest.raises(ValueError, match="runs on a CUDA device, found cpu; the reference runs there"):
        linear_step.linear_step(x.cpu(), weight.cpu(), implementation="triton")


def test_rows_too_far_apart_for_32_bits_are_copied() -> None:
    from hybrid_nas_kernels.linear_step.triton_step import _reachable

    with torch.device("meta"):
        apart, near = torch.empty_strided((8, 16), (310_000_000, 1)), torch.empty_strided((8, 16), (300_000_000, 1))
    assert _reachable(apart, 8).stride() == (16, 1)
    assert _reachable(near, 8).stride() == near.stride()
    assert _reachable(near, 64).stride() == (16, 1)


@pytest.mark.usefixtures("h100")
def test_under_autocast_it_is_torchs_own_where_dtypes_differ() -> None:
    with torch.no_grad(), torch.autocast(DEVICE.type, torch.bfloat16):
        x, weight = torch.randn(3, 16, device=DEVICE), torch.randn(8, 16, device=DEVICE)
        assert linear_step._choose(x.bfloat16(), weight)[0] == "reference"
        hidden = linear_step.linear_step(x, weight)
        assert hidden.dtype == torch.bfloat16
        y = linear_step.linear_step_parts(hidden, torch.ones(5, 8, device=DEVICE))
    assert y.equal(F.linear(hidden, torch.ones(5, 8, device=DEVICE).bfloat16()))


def test_torch_compile_and_vmap_take_it() -> None:
    x, weight = torch.randn(3, 16), torch.randn(5, 16)

    def both(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        normed = norm_linear.norm_linear(x, torch.ones(16), weight, [5], eps=1e-5)
        return linear_step.linear_step(x, weight), linear_step.linear_step_parts(x, weight), *normed

    with torch.no_grad():
        compiled = torch.compile(both, fullgraph=True, backend="eager")
        assert all(a.equal(b) for a, b in zip(compiled(x, weight), both(x, weight), strict=True))
        several = torch.randn(2, 3, 16)
        got = torch.func.vmap(lambda x: linear_step.linear_step(x, weight))(several)
        assert got.allclose(several @ weight.T, atol=1e-6)


def test_the_operation_has_a_fake() -> None:
    from hybrid_nas_kernels.linear_step import triton_step  # noqa: F401  # registers it
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        y = torch.ops.hybrid_nas.linear_step(*(torch.empty(n, 8, dtype=torch.bfloat16) for n in (3, 5)))
    assert (y.shape, y.dtype) == ((3, 5), torch.bfloat16)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the weights that the Triton way is given, which is taken everywhere."""
    shapes: list[tuple[int, ...]] = []
    run = linear_step.IMPLEMENTATIONS["triton"]
    monkeypatch.setattr(linear_step, "choose", lambda *_: ("triton", "this test says so"))
    parts = linear_step.PARTS["triton"]
    monkeypatch.setitem(linear_step.IMPLEMENTATIONS, "triton", lambda x, w: shapes.append(tuple(w.shape)) or run(x, w))
    monkeypatch.setitem(linear_step.PARTS, "triton", lambda x, w: shapes.append(tuple(w.shape)) or parts(x, w))
    monkeypatch.setattr(dispatch, "CHOSEN", {})
    return shapes


@pytest.mark.usefixtures("poisoned_memory")
def test_adjacent_weights_are_one_product_with_the_zeros_behind_them(
    taken: list[tuple[int, ...]], assert_close: Any
) -> None:
    weights = [torch.nn.Parameter(torch.randn(n, 24, device=DEVICE)) for n in (3, 5, 7)]
    adjoin(weights)
    n = torch.randn(4, 24, device=DEVICE)
    with torch.no_grad():
        got = products(n, weights)
    assert taken == [(16, 24)]
    assert dispatch.CHOSEN == {"linear_step": {"triton": "this test says so"}}
    for y, weight in zip(got, weights, strict=True):
        assert_close(y.cpu(), (n.double() @ weight.detach().double().T).cpu())


def decoded(model: Any, tokens: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    cache = model.cache(len(tokens), tokens.shape[1], dtype)
    return torch.stack([model.step(tokens[:, t], cache) for t in range(tokens.shape[1])], 1)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("by_triton", [True, pytest.param(False, id="torch")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("count", "rows", "width", "gap"), [(4, 3, 40, 0), (2, 1, 33, 5), (1, 8, 64, 16)])
def test_parts_are_added_with_the_residual_stream_and_normed(
    count: int,
    rows: int,
    width: int,
    gap: int,
    dtype: torch.dtype,
    by_triton: bool,
    monkeypatch: pytest.MonkeyPatch,
    assert_close: Any,
) -> None:
    monkeypatch.setattr(norm_linear, "runs_triton", lambda _: by_triton)
    g = torch.Generator().manual_seed(0)
    x = amid_nan(rows, width, gap, g, dtype)
    parts = torch.randn(count, rows, width, generator=g).to(DEVICE)
    norm = amid_nan(width, 1, 2, g, torch.float32)[:, 0]  # with gaps
    total, n = add_rms_norm(x, parts, norm, eps=1e-5)
    assert total.dtype == n.dtype == dtype
    assert_close(total.cpu(), (x.double() + parts.double().sum(0)).cpu())
    assert_close(n.cpu(), F.rms_norm(total.double(), (width,), norm.double(), 1e-5).cpu())
    assert all(a.equal(b) for a, b in zip(add_rms_norm(x, parts, norm, eps=1e-5), (total, n), strict=True))
    assert_close(norm_linear.rms_norm(total, norm, eps=1e-5).cpu(), n.double().cpu())


@pytest.mark.parametrize("by_triton", [True, False])
@pytest.mark.parametrize(
    ("y", "norm"),
    [((2, 4, 20), (40,)), ((2, 1, 40), (40,)), ((4, 20), (40,)), ((40,), (40,)), ((2, 4, 40), (20,)), (None, (1,))],
)
def test_a_sum_of_other_shapes_is_refused(
    y: tuple[int, ...] | None, norm: tuple[int, ...], by_triton: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hybrid_nas_kernels.norm_linear.triton_step import add_parts_rms_norm

    monkeypatch.setattr(norm_linear, "runs_triton", lambda _: by_triton)
    x, added, gain = torch.zeros(4, 40), None if y is None else torch.zeros(y), torch.ones(norm)
    with pytest.raises(ValueError, match=r"y has the shape, or parts of it, and norm \(width,\), found \(4, 40\), "):
        add_rms_norm(x, added, gain, eps=1e-5)
    if added is not None and added.ndim > 2:
        with pytest.raises(ValueError, match=r"parts \(parts, rows, width\), weight \(width,\), found \(4, 40\), "):
            add_parts_rms_norm(x, added, gain, 1e-5)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("channels", [70, 16, 1])
def test_parts_are_as_many_as_the_blocks_say(
    channels: int, taken: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch, assert_close: Any
) -> None:
    from hybrid_nas_kernels.linear_step import triton_step

    monkeypatch.setattr(triton_step, "blocks_of", lambda *_: Blocks(32, 16, 4, 4, 3))
    x, weight = torch.randn(3, channels, device=DEVICE), torch.randn(33, channels, device=DEVICE)
    expected = (x.double() @ weight.double().T).cpu()
    with torch.no_grad():
        parts = linear_step.linear_step_parts(x, weight)
        assert_close(linear_step.whole(parts, x).cpu(), expected)  # by torch, where there is no GPU
        monkeypatch.setattr(linear_step, "runs_triton", lambda _: True)
        assert parts.shape == ((3, 3, 33) if channels == 70 else (3, 33))  # 32 channels a part, and one part
        assert_close(linear_step.whole(parts, x).cpu(), expected)
        assert linear_step.linear_step(x, weight).equal(linear_step.whole(parts, x))
    assert taken == 2 * [(33, channels)]
    linear_step.linear_step_parts(x, weight.requires_grad_()).sum().backward()  # no decoding: as ever
    assert weight.grad is not None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("splits", [1, 2])
def test_a_model_decodes_by_it_as_without(
    splits: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    """Every product of a step: those of a layer's mixer, two of each feed-forward network, and the classifier. Parts of
    an output are added by the norm that follows it."""
    from hybrid_nas_kernels.linear_step import triton_step
    from hybrid_nas_kernels.norm_linear import triton_step as norms

    monkeypatch.setattr(triton_step, "blocks_of", lambda *_: Blocks(32, 16, splits, 4, 3))
    added, add = [], norms.add_parts_rms_norm
    monkeypatch.setattr(norms, "add_parts_rms_norm", lambda x, parts, *a: added.append(len(parts)) or add(x, parts, *a))
    monkeypatch.setattr(parallel_step, "choose", lambda *_: ("triton", "this test says so"))
    monkeypatch.setattr(gated_norm_linear, "choose", lambda *_: ("triton", "this test says so"))
    for module in (swiglu, norm_linear, linear_step):
        monkeypatch.setattr(module, "runs_triton", lambda _: True)
    half = Attention(4, 2, 12, value_dim=20), Mamba2(48, 16, 16)
    mixers = (Mamba2(64, 16, 16), half[0], ParallelHybrid(*half, "group", "none", "difference"))
    torch.manual_seed(0)
    model = random_model(Architecture(32, 50, tuple(Block(m, SwiGLU(96)) for m in mixers)), DEVICE, dtype)
    for weight in model.parameters():
        weight.data.mul_(5 if weight.ndim > 1 else 1)
    tokens = torch.randint(50, (2, 5), device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(0))
    expected = decoded(model, tokens, dtype)
    taken = request.getfixturevalue("taken")
    got = decoded(model, tokens, dtype)
    network = [(192, 32), (32, 96)]
    mamba, attention, both = [(176, 32), (32, 64)], [(112, 32), (32, 80)], [(256, 32), (32, 128)]
    assert taken == 5 * [*mamba, *network, *attention, *network, *both, *network, (50, 32)]
    assert added == (5 * 6 * [2] if splits == 2 else [])
    scale = float(expected.abs().max())
    assert float((got - expected).abs().max()) < (1e-5 if dtype == torch.float32 else 4e-2) * scale


PROGRAM = """
import json
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from hybrid_nas_kernels import compile_ahead
from hybrid_nas_kernels.linear_step import Blocks
from hybrid_nas_kernels.linear_step.triton_step import product
from hybrid_nas_kernels.norm_linear.triton_step import add_parts_rms_norm

launched = []

class Launcher:
    def __init__(self, source, metadata):
        self.name = source.name
    def __call__(self, *arguments):
        launched.append(self.name)

class Utilities:
    def get_device_properties(self, device):
        return {"max_shared_mem": 232448}
    def load_binary(self, *arguments):
        return 1, 2, 0, 4, 1024

class Driver:
    launcher_cls, utils = Launcher, Utilities()
    def get_current_device(self):
        return 0
    def get_current_stream(self, device):
        return 0
    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

driver.set_active(Driver())
found, CHOSEN = {}, (Blocks(64, 128, 1, 4, 5), Blocks(64, 128, 4, 4, 5), Blocks(16, 256, 1, 2, 6))

def listen(*, src, metadata, **rest):
    if src.name == "_product":
        found["shared"] = max(found.get("shared", 0), metadata["shared"])

triton.knobs.compilation.listener = listen

def step():
    x = torch.zeros(4, 2048).bfloat16()
    for blocks in CHOSEN:
        product(x, torch.zeros(2048, 2048).bfloat16(), blocks)
    add_parts_rms_norm(x, torch.zeros(4, 4, 2048), torch.ones(2048), 1e-5)

with compile_ahead.compiled_ahead(torch.device("cpu")):
    step()
step()
print(json.dumps({"launched": launched, **found}))
"""


def test_the_rules_blocks_compile_for_an_h100(tmp_path: Path) -> None:
    """With ptxas and without a GPU, whose driver a stand-in takes the place of; its shared memory is enough."""
    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 5):
        pytest.skip("Triton 3.5 or newer, whose products may have 8 columns, is not installed")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["launched"] == ["_product", "_product", "_add", "_product", "_add_parts_and_norm"]
    assert 0 < found["shared"] < 232_448
