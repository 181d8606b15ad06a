"""Memory of training, counted, against what was measured on a GPU and what torch keeps on a CPU."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from hybrid_nas import kept
from hybrid_nas.architecture import FFN, Architecture, Block, Mixer, SquaredReLU, SwiGLU
from hybrid_nas.cost import cost
from hybrid_nas.design import Design, Ratio, architecture_of_layout
from hybrid_nas.kept import PARAM_BYTES, VALUE_BYTES, layer_kept, train_memory_bytes
from hybrid_nas.mixers import MODULES
from hybrid_nas.model import FFN_MODULES, build
from hybrid_nas.moe import MoE
from hybrid_nas.recurrent import GatedDeltaNet, Mamba1, Mamba3
from hybrid_nas.scale import PAPER

RESULTS = Path(__file__).parents[1] / "kernels/benchmarks/results"


def counted(architecture: Architecture, rows: int) -> float:
    parts = [part for block in architecture.blocks for part in (block.mixer, block.ffn) if part is not None]
    found = [layer_kept(part, architecture.width) for part in parts]
    return sum(rows * (VALUE_BYTES * one.values + one.bytes) + VALUE_BYTES * one.weights for one in found)


def test_layers_keep_what_was_measured_on_an_h100() -> None:
    """Attention, Mamba-2 and H, with and without an FFN: to a ten-thousandth."""
    table = pq.read_table(RESULTS / "gpu_layers.parquet").to_pylist()
    rows = [row for row in table if row["what"] == "train" and row["part"].startswith("{")]
    assert len(rows) == 6
    for row in rows:
        block = json.loads(row["part"])
        one = Architecture.from_dict({"width": row["width"], "vocab": 8, "blocks": [block]})
        assert counted(one, row["batch"] * row["context"]) == pytest.approx(row["kept_bytes"], rel=1e-4)


def results(name: str) -> Any:
    return json.loads((RESULTS / name).read_text())["rows"]


def target(layout: str, scale: str) -> Architecture:
    return architecture_of_layout(layout, Design(ratio=Ratio(1, 1)), PAPER[scale])


@pytest.mark.parametrize(("name", "scale"), [("", "paper-1b"), ("_paper-350m", "paper-350m")])
def test_the_peak_of_training_is_that_of_the_committed_layers(name: str, scale: str) -> None:
    """Measured by layers when 18 bytes a parameter were counted, and not the copy of the first step; within that
    it is to a thousandth, and as counted now within 10%."""
    errors = []
    for row in results(f"gpu_decoding{name}.json"):
        model = target(row["layout"], scale)
        found = train_memory_bytes(model, 8192, 1)
        as_then = found - (PARAM_BYTES - 18) * cost(model, 1).params
        assert as_then == pytest.approx(row["peak_memory_bytes"], rel=1e-3)
        errors.append(abs(found / row["peak_memory_bytes"] - 1))
    assert statistics.median(errors) < 0.10


def test_the_peak_of_whole_models_is_within_3_percent() -> None:
    layouts = {row["model"]: row["layout"] for row in results("gpu_decoding.json")}
    whole = results("gpu_training_whole.json")
    assert len(whole) == 5
    for row in whole:
        found = train_memory_bytes(target(layouts[row["model"]], "paper-1b"), 8192, 1)
        assert found == pytest.approx(row["peak_whole"], rel=0.03)


RECURRENT: dict[str, Mixer] = {
    "mamba1": Mamba1(256, 16, 8),
    "mamba1, small": Mamba1(128, 8, 4),
    "mamba3": Mamba3(256, 32, 64),
    "mamba3, wide heads": Mamba3(256, 64, 32),
    "deltanet": GatedDeltaNet(4, 24, 64),
    "deltanet, large": GatedDeltaNet(2, 96, 128),
}
FFNS: dict[str, FFN] = {"squared relu": SquaredReLU(512), "experts": MoE(256, 8, 2)}


@pytest.mark.parametrize("name", [*RECURRENT, *FFNS])
def test_what_torchs_own_operations_keep_is_near_what_is_counted(name: str) -> None:
    width, batch, tokens = 128, 2, 512
    block = Block(RECURRENT[name], None) if name in RECURRENT else Block(None, FFNS[name])
    model = build(Architecture(width, 8, (block,)), generator=0)
    x = torch.randn(batch, tokens, width, requires_grad=True)
    known = {p.untyped_storage().data_ptr() for p in (x, *model.parameters())}
    seen: dict[int, Any] = {}

    def pack(value: torch.Tensor) -> torch.Tensor:
        seen.setdefault(value.untyped_storage().data_ptr(), value.untyped_storage())
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        y = model.blocks[0](x)
    pack(y)
    found = sum(storage.nbytes() for pointer, storage in seen.items() if pointer not in known)
    part = block.mixer or block.ffn
    assert part is not None
    one = layer_kept(part, width)
    expected = batch * tokens * (4 * one.values + one.bytes) + 4 * one.weights  # float32 here
    assert found == pytest.approx(expected, rel=0.2)


def test_every_mixer_and_ffn_is_counted() -> None:
    assert set(kept.MIXERS) == set(MODULES)
    assert {type(ffn) for ffn in (*FFNS.values(), SwiGLU(64))} == set(FFN_MODULES)
    assert layer_kept(SwiGLU(64), 16).values == 2 * 16 + 3 * 64


def test_the_loss_is_held_as_the_kernels_hold_it() -> None:
    triton_kernels = pytest.importorskip("hybrid_nas_kernels.cross_entropy.triton_kernels")
    assert kept.LOGITS_AT_ONCE == triton_kernels.LOGITS_AT_ONCE
    chunks = pytest.importorskip("hybrid_nas_kernels.ssd.triton_kernels")
    assert chunks.chunk_tokens(8192, 128, torch.bfloat16) == kept.CHUNK


def test_long_sequences_sum_the_classifiers_gradient_in_float32() -> None:
    """Beyond what is held at once, logits stay at 2 GiB, and the sum and its parts take 6 bytes a weight."""
    model = target("A" * 16, "paper-1b")
    table = model.vocab * model.width
    rows = [(1 << 30) // model.vocab, (1 << 30) // model.vocab + 1]
    inside, beyond = (train_memory_bytes(model, count, 1) for count in rows)
    a_token = train_memory_bytes(model, 2, 1) - train_memory_bytes(model, 1, 1)
    assert beyond - inside == pytest.approx(6 * table + a_token - 2 * model.vocab, rel=1e-6)
