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
from hybrid_nas_kernels import dispatch, gated_norm_linear, linear_step, parallel_step, swiglu
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
    assert added.equal(got)
    graph.replay()
    assert captured.equal(got)


def test_the_rule_takes_what_was_fastest() -> None:
    assert {shape: blocks_of(*shape) for shape in OF_1B} == OF_1B
    assert blocks_of(32_000, 1024) is None  # fewer channels than were timed


def test_the_choice_and_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a GPU of another kind put in its place; what was timed alone is taken."""
    capability = [9, 0]
    monkeypatch.setattr(linear_step, "_capability", lambda _: tuple(capability))
    monkeypatch.setattr(dispatch, "why_not", lambda _: None)
    cuda, bf16 = torch.device("cuda"), torch.bfloat16
    assert choose(torch.device("cpu")) == ("reference", "there is no other on cpu")
    assert choose(cuda) == ("triton", "faster than cuBLAS at this shape, timed on an H100")
    for given, reason in {
        (bf16, 9): "up to 8 rows, found 9",
        (bf16, 4, 3072): "at 3,072 x 2,048",
        (bf16, 4, 2048, 8192, False): "where rows begin at multiples of 16 bytes",
        (torch.float32, 4): "in bfloat16 alone, not in float32",
        (torch.float64, 4): "Triton's products have no float64",
    }.items():
        name, why = choose(cuda, *given)
        assert name == "reference"
        assert reason in why
    for other in ([8, 0], [10, 0], [12, 1]):
        capability[:] = other
        name, why = choose(cuda)
        assert name == "reference"
        assert why.endswith(f"capability 9 alone, not at {other[0]}.{other[1]}")


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
    assert dispatch.CHOSEN == {}


def test_asked_for_where_it_cannot_be_it_says_why() -> None:
    weight = torch.randn(5, 8, device=DEVICE)
    with torch.no_grad(), pytest.raises(ValueError, match="up to 8 rows, found 9"):
        linear_step.linear_step(torch.randn(9, 8, device=DEVICE), weight, implementation="triton")
    with pytest.raises(ValueError, match="no gradients; call it under torch"):
        linear_step.linear_step(torch.randn(2, 8, device=DEVICE), weight.requires_grad_(), implementation="triton")


def test_the_operation_has_a_fake() -> None:
    from hybrid_nas_kernels.linear_step import triton_step  # noqa: F401  # registers it
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        y = torch.ops.hybrid_nas.linear_step(torch.empty(3, 8, dtype=torch.bfloat16), torch.empty(5, 8))
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
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("count", "rows", "width", "gap"), [(4, 3, 40, 0), (2, 1, 33, 5), (1, 8, 64, 16)])
def test_parts_are_added_with_the_residual_stream_and_normed(
    count: int, rows: int, width: int, gap: int, dtype: torch.dtype, assert_close: Any
) -> None:
    g = torch.Generator().manual_seed(0)
    x = amid_nan(rows, width, gap, g, dtype)
    parts, norm = torch.randn(count, rows, width, generator=g).to(DEVICE), torch.randn(width, generator=g).to(DEVICE)
    total, n = add_rms_norm(x, parts, norm, eps=1e-5)
    assert total.dtype == n.dtype == dtype
    assert_close(total.cpu(), (x.double() + parts.double().sum(0)).cpu())
    assert_close(n.cpu(), F.rms_norm(total.double(), (width,), norm.double(), 1e-5).cpu())
    assert all(a.equal(b) for a, b in zip(add_rms_norm(x, parts, norm, eps=1e-5), (total, n), strict=True))


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
    monkeypatch.setattr(swiglu, "runs_triton", lambda _: True)
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
    pytest.importorskip("triton.knobs", reason="Triton 3.4 or newer is not installed")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["launched"] == ["_product", "_product", "_add", "_product", "_add_parts_and_norm"]
    assert 0 < found["shared"] < 232_448
