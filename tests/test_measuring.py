"""Speeds as objectives: predicted where the device is not here, measured where it is, and never mixed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic
import torch

from hybrid_nas import measuring
from hybrid_nas.architecture import Architecture
from hybrid_nas.design import Refused
from hybrid_nas.front import Front
from hybrid_nas.measure import Meter, Table
from hybrid_nas.objective import Objective
from hybrid_nas.proposal import Proposal
from hybrid_nas.roofline import decode, device
from hybrid_nas.speed import BY_LAYERS, PREDICTED, Load, Speed
from hybrid_nas.study_file import StudyFile, read_study
from hybrid_nas.trial import read_trials, write_trials
from hybrid_nas.yaml_file import FileError

Command = Callable[..., subprocess.CompletedProcess[str]]
STUDY = """\
ratio: [0:1, 1:1]
objectives: [loss, decode_tokens_per_s]
target: {preset: proxy, width: 32, params: 60k, context: 64}
measure: {device: a100, batch: 3, context: 48, train_batch: 2, train_context: 16}
"""
OBJECTIVES = (Objective.named("loss"), Objective.named("decode_tokens_per_s"))


def read(text: str) -> StudyFile:
    return read_study(text, "study.yaml")


def targets(file: StudyFile) -> list[Architecture]:
    return [design.at(file.target) for design in file.space.enumerate()]


def test_without_the_device_speeds_are_the_rooflines_at_the_shapes_that_the_file_names() -> None:
    file = read(STUDY)
    for design in file.space.enumerate():
        found = Proposal.of(design, file).cost
        assert found.speed is not None
        assert found.speed.source == PREDICTED
        assert found.speed.device == "a100"
        expected = decode(design.at(file.target), 48, 3, device("a100")).tokens_per_s
        assert found.value("decode_tokens_per_s") == expected


def test_a_study_that_wants_no_speed_has_none() -> None:
    file = read("ratio: [0:1, 1:1]\n")
    assert file.measure is None
    assert Proposal.of(next(file.space.enumerate()), file).cost.speed is None
    assert "measure" not in file.to_dict()


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("measure: {device: h10}\nobjectives: [loss, prefill_s]", 2, "nearest: h100"),
        ("measure: {batch: 0}\nobjectives: [loss, prefill_s]", 2, "batch must be from 1"),
        ("measure: {batches: 2}\nobjectives: [loss, prefill_s]", 2, "batch"),
        ("measure: {batch: 2}", 2, "decode_tokens_per_s"),
        ("objectives: [loss, prefill_s]\nconstraints: {prefill_s: 3}", 3, "prefill_s"),
    ],
)
def test_what_measure_may_hold(text: str, line: int, said: str) -> None:
    with pytest.raises(FileError, match=f"study.yaml:{line}: .*{said}"):
        read(f"ratio: 1:1\n{text}\n")


def speedy(number: int, design: object, loss: float, speed: Speed) -> object:
    trial = synthetic.trial(number, design, loss)  # type: ignore[arg-type]
    return trial.with_changes(cost=replace(trial.cost, speed=speed))


def test_a_front_says_where_speeds_come_from_and_refuses_two_kinds(tmp_path: Path) -> None:
    designs = synthetic.grid()[:2]
    predicted = [Speed(PREDICTED, "h100", tokens, 1.0, 1.0, 1.0) for tokens in (100.0, 200.0)]
    trials = [speedy(i, designs[i], 2.0 + i / 10, predicted[i]) for i in range(2)]
    front = Front.of(trials, OBJECTIVES)  # type: ignore[arg-type]
    assert len(front.members) == 2  # the faster one is the worse one
    assert front.origins == ("Decoding speed: predicted for h100 by a roofline, not measured.",)
    assert front.origins[0] in front.statement
    assert front.to_dict()["origins"] == list(front.origins)
    write_trials(trials, tmp_path / "trials.parquet")  # type: ignore[arg-type]
    again = read_trials(tmp_path / "trials.parquet")
    assert [trial.cost.speed for trial in again] == predicted
    loaded = [replace(speed, load=Load(3, 48, 2, 16)) for speed in predicted]
    write_trials([speedy(i, designs[i], 2.0, loaded[i]) for i in range(2)], tmp_path / "trials.parquet")  # type: ignore[misc]
    assert [trial.cost.speed for trial in read_trials(tmp_path / "trials.parquet")] == loaded
    longer = [trials[0], speedy(1, designs[1], 2.1, replace(loaded[1], load=Load(3, 96, 2, 16)))]
    with pytest.raises(ValueError, match=r"trial 1 .*batch 3 at 96 tokens"):
        Front.of(longer, OBJECTIVES)  # type: ignore[arg-type]
    other = Speed(BY_LAYERS, "NVIDIA H100 80GB HBM3", 300.0, 1.0, 1.0, 1.0)
    mixed = [trials[0], speedy(1, designs[1], 2.1, other)]
    with pytest.raises(ValueError, match=r"trial 0 are predicted .*trial 1 measured, by layers, on NVIDIA H100"):
        Front.of(mixed, OBJECTIVES)  # type: ignore[arg-type]


def test_a_process_measures_each_kind_of_layer_once_and_leaves_the_table(tmp_path: Path) -> None:
    file = read(STUDY)
    assert file.measure is not None
    table, load = tmp_path / "layers.parquet", Load(2, 16, 1, 16)
    measurer = measuring.Measurer(table, load, "cpu", tmp_path / "log")
    try:
        speeds = [measurer(target) for target in targets(file)]
        again = measurer(targets(file)[0])
    finally:
        measurer.close()
    assert again is speeds[0]
    meter = Meter(torch.device("cpu"), Table(table))
    meter._time = pytest.fail  # type: ignore[method-assign]  # all layers are in the table
    assert [meter.speed(target, load) for target in targets(file)] == speeds
    assert {speed.source for speed in speeds} == {BY_LAYERS}


def test_what_cannot_be_measured_is_refused_with_the_reason(tmp_path: Path) -> None:
    target = targets(read(STUDY))[0]
    measurer = measuring.Measurer(tmp_path / "layers.parquet", Load(), "no such device", tmp_path / "log")
    for _ in range(2):
        with pytest.raises(Refused, match="the process that measures ended"):
            measurer(target)
    assert "no such device" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("name", "is_a"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-PCIE-40GB", "a100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A10", None),
        ("NVIDIA GH200 480GB", None),
    ],
)
def test_the_device_is_found_by_its_drivers_name(monkeypatch: pytest.MonkeyPatch, name: str, is_a: str | None) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    assert [known for known in ("a100", "h100", "h200", "cpu") if measuring.present(known)] == [is_a] * bool(is_a)


@pytest.mark.parametrize(("began", "goes_on"), [("predicted", True), ("measured", False)])
def test_a_run_keeps_to_what_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, began: str, goes_on: bool
) -> None:
    file = read(STUDY)
    monkeypatch.setattr(measuring, "present", lambda name: began == "measured")
    with measuring.metered(file, tmp_path, tmp_path / "log") as first:
        assert (first.meter is not None) == (began == "measured")
    monkeypatch.setattr(measuring, "present", lambda name: began == "predicted")
    if goes_on:
        with measuring.metered(file, tmp_path, tmp_path / "log") as second:
            assert second.meter is None
    else:
        with (
            pytest.raises(ValueError, match="measured on a100, which is not in this machine"),
            measuring.metered(file, tmp_path, tmp_path / "log"),
        ):
            pass


def test_a_search_shows_that_its_speeds_are_predicted(nas: Command, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(
        STUDY + "proxy: {width: 32, params: 60k, context: 32, batch: 4, tokens: 1k, replicates: 0, recall_share: 0}\n"
        "search: {trials: 2, workers: 1}\n"
    )
    done = nas("search", str(study), "--out", str(tmp_path / "run"))
    told = "predicted for a100 by a roofline, not measured; batch 3 at 48 tokens."
    assert f"Decoding speed: {told}" in " ".join(done.stdout.split())
    assert "predicted for a100" in (tmp_path / "run" / "report.html").read_text()
    recipe = (tmp_path / "run" / "recipe.md").read_text()
    assert "(decoding speed with batch 3 at 48 tokens); " in recipe
    assert "at 64 tokens" not in recipe  # the target's context, at which nothing here is
    assert json.loads((tmp_path / "run" / "front.json").read_text())["origins"]
    assert "does not fit" not in done.stdout
    found = json.loads(nas("measure", "run#0", "--device", "a100", "--json").stdout)
    assert [found[name] for name in ("batch", "context", "train_batch", "train_context")] == [3, 48, 2, 16]
    trial = read_trials(tmp_path / "run" / "trials.parquet")[0]
    assert trial.number == 0
    assert found["decode_tokens_per_s"] == trial.cost.value("decode_tokens_per_s")
    found = json.loads(nas("measure", "run#0", "--device", "a100", "--json", "--context", "32", "--batch", "1").stdout)
    assert [found[name] for name in ("batch", "context", "train_batch", "train_context")] == [1, 32, 2, 32]


def test_what_does_not_fit_a_device_is_said(nas: Command, tmp_path: Path) -> None:
    done = nas("measure", "1:5", "--device", "h100", "--context", "100000000")
    assert (
        "does not fit h100, which has 79.2 GiB: training (batch 1 at 100,000,000 tokens) takes 143 TiB" in done.stderr
    )
    assert "does_not_fit" in json.loads(nas("measure", "A", "--device", "cpu", "--context", "1e9", "--json").stdout)
    assert nas("measure", "1:5", "--device", "h100").stderr == ""
    study = tmp_path / "study.yaml"
    study.write_text(
        STUDY.replace("decode_tokens_per_s", "train_tokens_per_s").replace("train_batch: 2", "train_batch: 16777216")
        + "proxy: {width: 32, params: 60k, context: 32, batch: 4, tokens: 1k, replicates: 0, recall_share: 0}\n"
        "search: {trials: 1, workers: 1}\n"
    )
    done = nas("search", str(study), "--out", str(tmp_path / "run"))
    assert "2 of 2 models at the target: " in done.stdout
    assert "does not fit a100, which has 74.5 GiB: training (batch 16,777,216 at 16 tokens) takes" in done.stdout
