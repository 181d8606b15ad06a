"""Predictions against arithmetic done by hand."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, SwiGLU
from hybrid_nas.cost import cost
from hybrid_nas.design import Design, Ratio, architecture_of_layout
from hybrid_nas.roofline import (
    Device,
    decode,
    decode_memory_bytes,
    device,
    devices,
    prefill,
    train_step,
)
from hybrid_nas.scale import PAPER

PLAIN = Device(
    "plain", flops=1e12, bandwidth=1e11, memory_bytes=1e9, flops_share=1.0, bandwidth_share=1.0, overhead_s=0.0
)
ONE = Architecture(8, 16, (Block(Attention(heads=2, kv_heads=1, head_dim=4), SwiGLU(12)),))


def test_decoding_reads_weights_and_cache_once() -> None:
    found = decode(ONE, 100, 3, PLAIN)
    mixer, ffn, classifier = found.parts
    assert [p.name for p in found.parts] == ["A mixer", "FFN", "classifier"]
    # q and o 8 x 8, k and v 8 x 4; the cache holds 2 x 4 values a token.
    assert mixer.bytes == 2 * (192 + 3 * 100 * 8)
    assert mixer.flops == 3 * (2 * 192 + 4 * 8 * 100)
    assert ffn.bytes == 2 * 288
    assert classifier.bytes == 2 * 16 * 8
    assert {p.bound for p in found.parts} == {"memory"}
    assert found.seconds == pytest.approx(sum(p.bytes for p in found.parts) / 1e11)
    assert found.tokens_per_s == pytest.approx(3 / found.seconds)


def test_decoding_of_mamba_reads_and_writes_its_state_whatever_the_context() -> None:
    mamba = Mamba2(d_ssm=16, head_dim=8, d_state=4)
    short, long = (decode(Architecture(8, 16, (Block(mamba, None),)), n, 1, PLAIN) for n in (10, 10_000))
    assert short.parts == long.parts
    state = 16 * 4 + 4 * (16 + 8)
    in_and_out = 8 * (32 + 8 + 2) + 16 * 8
    assert short.parts[0].bytes == 2 * (in_and_out + 24 * 5 + 3 * 2 + 16 + 2 * state)


def test_training_flops_are_those_of_cost_and_the_classifier() -> None:
    architecture = Design(ratio=Ratio(1, 5)).at(PAPER["paper-100m"])
    spent = cost(architecture, 8192)
    step = train_step(architecture, 8192, 2, PLAIN)
    norms = 6 * (2 * len(architecture.blocks) + 1) * architecture.width  # no matrix: left out of the prediction
    expected = spent.train_flops_per_token - norms + 6 * architecture.width * architecture.vocab
    assert sum(p.flops for p in step.parts) == pytest.approx(2 * 8192 * expected)
    assert {p.bound for p in step.parts} == {"memory", "compute"} or {p.bound for p in step.parts} == {"compute"}
    forward = prefill(architecture, 8192, 2, PLAIN)
    assert forward.seconds < step.seconds / 2.9
    assert decode_memory_bytes(architecture, 8192, 2) == 2 * spent.params + 2 * spent.cache_bytes


def test_overhead_is_paid_a_layer() -> None:
    slow = Device("slow", 1e12, 1e11, 1e9, 1.0, 1.0, overhead_s=1.0)
    twice = Architecture(8, 16, ONE.blocks * 2)
    assert decode(twice, 4, 1, slow).seconds == pytest.approx(5.0, abs=1e-6)
    assert [p.layers for p in decode(twice, 4, 1, slow).parts] == [2, 2, 1]


def test_on_an_h100_long_contexts_rank_as_in_the_paper() -> None:
    """[arXiv:2510.04800, Table 13]: Mamba > few attention layers > more > attention alone, decoding at 32K."""
    speeds = [
        decode(Design(ratio=Ratio.parse(r)).at(PAPER["paper-1b"]), 32_768, 4, device("h100")).tokens_per_s
        for r in ("0:1", "1:12", "1:5", "1:1", "1:0")
    ]
    assert speeds == sorted(speeds, reverse=True)


def test_an_h100s_overhead_is_the_one_that_fits_the_committed_decoding_steps() -> None:
    """In whole microseconds, by the median error that kernels/benchmarks/README.md states."""
    file = Path(__file__).parents[1] / "kernels" / "benchmarks" / "results" / "gpu_decoding_steps.json"
    rows, scale, h100 = json.loads(file.read_text())["rows"], PAPER["paper-1b"], device("h100")
    layouts = {"Mamba": 13 * "M", "intra 1:12": "MMMMMMHMMMMMM", "intra 1:5": "MMMHMMMMHMMMM"}
    layouts |= {"inter 1:5": "MMMAMMMAMMMMM", "attention": 16 * "A"}
    models = {name: architecture_of_layout(of, Design(ratio=Ratio(1, 1)), scale) for name, of in layouts.items()}

    def error(microseconds: int) -> float:
        on = replace(h100, overhead_s=microseconds * 1e-6)
        found = ((decode(models[r["model"]], r["context"], 4, on).tokens_per_s, r["decode_whole"]) for r in rows)
        return median(abs(predicted / measured - 1) for predicted, measured in found)

    assert len(rows) == 10
    best = min(range(30), key=error)
    assert h100.overhead_s == pytest.approx(best * 1e-6)
    assert error(best) == pytest.approx(0.008, abs=0.0005)
    assert devices()["h200"].overhead_s == h100.overhead_s


def test_device_files_say_what_is_wrong(tmp_path: Path) -> None:
    assert set(devices()) == {"h100", "h200", "a100", "cpu"}
    with pytest.raises(ValueError, match="unknown device 'h10'; known: h100, h200, a100, cpu; nearest: h100"):
        device("h10")
    file = tmp_path / "mine.toml"
    file.write_text("[mine]\nflops = 1e12\n")
    with pytest.raises(ValueError, match=r"device mine: needs exactly the keys bandwidth, .*missing or unknown"):
        devices(file)
    with pytest.raises(ValueError, match="device x: flops_share is a number, 0 or more, found 2"):
        Device("x", 1.0, 1.0, 1.0, 2, 1.0, 0.0)
    with pytest.raises(ValueError, match="device x: bandwidth must be above 0"):
        Device("x", 1.0, 0, 1.0, 1.0, 1.0, 0.0)


def test_experts_are_read_as_far_as_they_are_picked() -> None:
    """A batch of 1 decodes with the active experts alone, a large one reads all; arithmetic is by what is active."""
    design = Design(ratio=Ratio(1, 3), ffn="moe", experts=4)
    scale, on = PAPER["paper-1b"], device("h100")
    model = architecture_of_layout("MMAM", design, scale)
    expert = 3 * scale.width * scale.ffn_hidden // 2
    shared = scale.width * 4 + expert

    def ffn(batch: int):  # type: ignore[no-untyped-def]
        (part,) = [part for part in decode(model, 8192, batch, on).parts if part.name == "FFN"]
        return part

    assert ffn(1).bytes == 2 * 4 * (shared + expert)
    assert ffn(2).bytes == pytest.approx(2 * 4 * (shared + expert * 4 * (1 - 0.75**2)))
    assert ffn(512).bytes == pytest.approx(2 * 4 * (shared + 4 * expert))
    assert ffn(2).flops == 2 * 2 * 4 * (shared + expert)
    dense = architecture_of_layout("MMAM", Design(ratio=Ratio(1, 3)), scale)
    (more,) = [part for part in train_step(model, 8192, 8, on).parts if part.name == "FFN"]
    (less,) = [part for part in train_step(dense, 8192, 8, on).parts if part.name == "FFN"]
    assert more.flops == pytest.approx(less.flops, rel=1e-3)  # but for the router
    assert more.bytes > less.bytes
