"""Products of a decoding step's few rows: in Triton's interpreter, on a GPU where there is one."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from hybrid_nas_kernels import dispatch, gated_norm_linear, linear_step, norm_linear, parallel_step, swiglu
from hybrid_nas_kernels.adjacent import adjoin, products
from hybrid_nas_kernels.linear_step import Blocks
from hybrid_nas_kernels.norm_linear import add_rms_norm
from torch.nn import functional as F

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, ParallelHybrid, SwiGLU
from hybrid_nas.measure import random_model

triton = pytest.importorskip("triton", reason="triton is not installed")

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
DTYPES = [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
"""The interpreter's products of bfloat16 are wrong."""


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
import h100_stand_in, torch, triton
from h100_stand_in import launched
from hybrid_nas_kernels import compile_ahead
from hybrid_nas_kernels.linear_step import Blocks
from hybrid_nas_kernels.linear_step.triton_step import product
from hybrid_nas_kernels.norm_linear.triton_step import add_parts_rms_norm

h100_stand_in.set_active()
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


def test_the_rules_blocks_compile_for_an_h100(compiling: dict[str, str]) -> None:
    """With ptxas and without a GPU, whose driver a stand-in takes the place of; its shared memory is enough."""
    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 5):
        pytest.skip("Triton 3.5 or newer, whose products may have 8 columns, is not installed")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=compiling, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["launched"] == ["_product", "_product", "_add", "_product", "_add_parts_and_norm"]
    assert 0 < found["shared"] < 232_448
