"""Layers measured once, models made of them."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from hybrid_nas import measure
from hybrid_nas.architecture import (
    Architecture,
    Attention,
    Block,
    Mamba2,
    Mixer,
    ParallelHybrid,
    ParallelPair,
    SquaredReLU,
    SwiGLU,
)
from hybrid_nas.measure import HEAD, Meter, Table, describe, random_model
from hybrid_nas.mixers import MODULES
from hybrid_nas.model import Model
from hybrid_nas.moe import MoE
from hybrid_nas.recurrent import GatedDeltaNet, Mamba1, Mamba3
from hybrid_nas.source_code import LAYER_MODULES
from hybrid_nas.speed import Load

A = Block(Attention(heads=2, kv_heads=1, head_dim=8), SwiGLU(16))
M = Block(Mamba2(d_ssm=32, head_dim=16, d_state=8), SwiGLU(16))
LOAD = Load(batch=2, context=24, train_batch=2, train_context=32)
CPU = torch.device("cpu")


def test_a_kind_of_layer_is_measured_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "layers.parquet"
    meter = Meter(CPU, Table(path))
    speed = meter.speed(Architecture(16, 64, (M, A, M, M)), LOAD)
    # two kinds of block and the head, thrice; and the optimizer
    assert len(meter.table.rows) == 3 * 3 + 1
    again = Meter(CPU, Table(path))
    again._time = pytest.fail  # nothing is measured any more
    other = again.speed(Architecture(16, 64, (A, A)), LOAD)
    assert again.table.rows == meter.table.rows
    rows = {(row.what, describe(row)): row.seconds for row in meter.table.rows.values()}
    decode = rows["decode", "mamba2 + swiglu"] * 3 + rows["decode", "attention + swiglu"] + rows["decode", HEAD]
    assert speed.decode_tokens_per_s == pytest.approx(2 / decode)
    assert other.prefill_s == pytest.approx(2 * rows["prefill", "attention + swiglu"] + rows["prefill", HEAD])
    assert speed.source == "measured, by layers"
    assert speed.device == "cpu"
    assert speed.train_tokens_per_s > 0


def test_layers_that_other_code_measured_are_measured_anew_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, models = tmp_path / "layers.parquet", Architecture(16, 64, (M, A))
    Meter(CPU, Table(path)).speed(models, LOAD)
    assert Table(path).others() == ""
    monkeypatch.setattr(measure, "layers_fingerprint", lambda: "another code")
    later = Meter(CPU, Table(path))
    assert "10 of 10 layers were measured by other code" in later.table.others()
    later.speed(models, LOAD)
    assert len(later.table.rows) == 20
    # rows of before there was a code in them
    old = pq.read_table(path).drop_columns(["code"])
    pq.write_table(old, path)
    assert {row.code for row in Table(path).rows.values()} == {"unknown"}
    assert "(unknown; this is another code)" in Table(path).others()


def test_the_code_of_a_layer_is_all_that_its_modules_are_written_in() -> None:
    mixers: list[Mixer] = [
        Attention(heads=2, kv_heads=1, head_dim=8),
        Mamba2(d_ssm=32, head_dim=16, d_state=8),
        Mamba1(d_ssm=32, d_state=4, dt_rank=2),
        Mamba3(d_ssm=32, head_dim=16, d_state=8),
        GatedDeltaNet(heads=2, key_dim=8, value_dim=16),
        ParallelHybrid(Attention(heads=2, kv_heads=1, head_dim=16), Mamba2(d_ssm=32, head_dim=16, d_state=8)),
        ParallelPair(Attention(heads=2, kv_heads=1, head_dim=8)),
    ]
    assert {type(mixer) for mixer in mixers} == set(MODULES)
    blocks = [Block(mixer, None) for mixer in mixers]
    blocks += [Block(None, ffn) for ffn in (SwiGLU(16), SquaredReLU(16), MoE(16, 2, 1))]
    written = {
        type(module).__module__.removeprefix("hybrid_nas.")
        for module in Model(Architecture(16, 64, tuple(blocks))).modules()
        if type(module).__module__.startswith("hybrid_nas.")
    }
    assert len(written) > 5
    assert written <= set(LAYER_MODULES)


def test_the_committed_layers_say_which_code_measured_them() -> None:
    table = Table(Path(__file__).parents[1] / "kernels/benchmarks/results/gpu_layers.parquet")
    assert "unknown" not in {row.code for row in table.rows.values()}


def test_what_is_measured_depends_on_shape_alone() -> None:
    meter = Meter(CPU)
    meter.speed(Architecture(16, 64, (M,)), LOAD)
    count = len(meter.table.rows)
    meter.speed(Architecture(16, 64, (M,)), Load(batch=3, context=24, train_batch=2, train_context=32))
    assert len(meter.table.rows) == count + 4  # decoding and prefill, of block and head


def test_whole_models_decode_and_prefill() -> None:
    found = Meter(CPU).whole(Architecture(16, 64, (M, A)), LOAD)
    assert set(found) == {"decode", "prefill"}
    assert 0 < found["decode"] < 1
    assert 0 < found["prefill"] < 1


def test_random_models_are_mixed() -> None:
    model = random_model(Architecture(16, 64, (M,)), CPU, torch.bfloat16)
    assert {p.dtype for p in model.parameters() if p.ndim > 1} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters() if p.ndim == 1} == {torch.float32}


@pytest.mark.gpu
def test_on_a_gpu_layers_and_the_whole_model_are_measured_and_memory() -> None:
    """How near the two timings are is for the benchmark (kernels/benchmarks/gpu_decoding.py): other work on the device
    slows one and not the other."""
    device = torch.device("cuda")
    block = Block(Mamba2(d_ssm=1024, head_dim=64, d_state=64), SwiGLU(1536))
    other = Block(Attention(heads=8, kv_heads=2, head_dim=64), SwiGLU(1536))
    architecture = Architecture(512, 8192, (block, other) * 4)
    load = Load(batch=4, context=2048, train_batch=4, train_context=2048)
    meter = Meter(device)
    speed, whole = meter.speed(architecture, load), meter.whole(architecture, load)
    assert len(meter.table.rows) == 3 * 3 + 1  # two kinds of block and the head, thrice; and the optimizer
    assert speed.source == "measured, by layers"
    assert speed.device == torch.cuda.get_device_name(device)
    assert set(whole) == {"decode", "prefill"}
    taken = (1 / speed.decode_tokens_per_s, speed.prefill_s, 1 / speed.train_tokens_per_s, *whole.values())
    assert all(0 < seconds < 1 for seconds in taken)
    assert speed.peak_memory_bytes > 1e8
