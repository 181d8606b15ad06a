"""Where `linear_step` takes its kernel and where torch's own, and what the kernel refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hybrid_nas_kernels import dispatch, linear_step, norm_linear
from hybrid_nas_kernels.linear_step import Blocks, blocks_of, choose
from torch.nn import functional as F

triton = pytest.importorskip("triton", reason="triton is not installed")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CUDA, BF16 = torch.device("cuda"), torch.bfloat16
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
