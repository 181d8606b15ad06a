"""The published models: their sizes are those of their names, their designs can be built, and they stand by a front."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic

from hybrid_nas.cost import cost
from hybrid_nas.design_file import DesignFile
from hybrid_nas.export.format import CannotHold
from hybrid_nas.export.formats import FORMATS
from hybrid_nas.gallery import FILE, beside, gallery
from hybrid_nas.roofline import decode, device
from hybrid_nas.scale import PAPER
from hybrid_nas.speed import BY_LAYERS, Speed
from hybrid_nas.study_file import read_study
from hybrid_nas.trial import read_trials, write_trials

Command = Callable[..., subprocess.CompletedProcess[str]]
BILLIONS = {
    "jamba-v0.1": 52, "jamba-1.5-mini": 52, "nemotron-h-8b": 8.1, "nemotron-h-4b": 4.5, "nemotron-nano-9b-v2": 8.9,
    "falcon-h1-1.5b": 1.55, "falcon-h1-7b": 7.59, "bamba-9b": 9.78, "granite-4.0-h-350m": 0.34,
    "granite-4.0-h-1b": 1.46, "granite-4.0-h-tiny": 6.94, "qwen3-next-80b-a3b": 80, "hymba-1.5b": 1.52,
}  # fmt: skip


@pytest.mark.parametrize("name", BILLIONS)
def test_parameters_are_the_models_own_once_the_named_differences_are_taken(name: str) -> None:
    """As the model cards give them: what our model has more or fewer of, each note says by name and number."""
    model = gallery()[name]
    total = cost(model.architecture, 1).params
    for note in model.notes:
        for amount, sense in re.findall(r"([\d,]+) parameters?( fewer| more|;)", note):
            number = int(amount.replace(",", ""))
            total += -number if sense == " more" else number
    assert total / 1e9 == pytest.approx(BILLIONS[name], rel=0.015)


def test_every_row_has_a_source_and_every_family_is_there() -> None:
    models = gallery()
    assert all(model.source.startswith("https://huggingface.co/") for model in models.values())
    families = {entry["config"]["model_type"] for entry in json.loads(FILE.read_text()).values()}
    assert families == {
        "jamba",
        "nemotron_h",
        "falcon_h1",
        "zamba2",
        "bamba",
        "granitemoehybrid",
        "qwen3_next",
        "hymba",
    }
    layouts = {name: model.architecture.layout for name, model in models.items()}
    assert [i for i, letter in enumerate(layouts["granite-4.0-h-1b"]) if letter == "A"] == [5, 15, 25, 35]
    assert layouts["qwen3-next-80b-a3b"] == "GGGA" * 12
    assert layouts["jamba-v0.1"] == "1111A111" * 4
    assert set(layouts["falcon-h1-7b"]) == {"H"}


def test_published_caches() -> None:
    """16,384 bytes a token of keys and values for Nemotron-H-8B and for four layers of 8 heads of 128, as their
    configurations give in bfloat16."""
    nemotron = gallery()["nemotron-h-8b"].architecture
    assert cost(nemotron, 1001).kv_bytes - cost(nemotron, 1000).kv_bytes == 16_384
    falcon = gallery()["falcon-h1-7b"].architecture
    assert cost(falcon, 1001).kv_bytes - cost(falcon, 1000).kv_bytes == 44 * 1024  # 44 layers of 2 heads of 128


@pytest.mark.parametrize("name", sorted(gallery()))
def test_each_can_be_built_at_another_scale(name: str) -> None:
    model = gallery()[name]
    assert model.design is not None
    architecture = model.design.at(PAPER["paper-1b"])
    assert set(architecture.layout) == set(model.architecture.layout.replace("-", ""))


def test_what_is_only_read_refuses_with_its_reason() -> None:
    for name in ("zamba2", "hymba"):
        with pytest.raises(CannotHold, match=f"{name} cannot hold this design: .*the format hybrid holds every"):
            FORMATS[name].check(gallery()["bamba-9b"].architecture)


def test_a_published_model_is_a_model_by_name(nas: Command, tmp_path: Path) -> None:
    nas("export", "bamba-9b", "--to", "bamba", "--out", "bamba")
    config = json.loads((tmp_path / "bamba/config.json").read_text())
    assert config["attn_layer_indices"] == [9, 18, 27]
    beside = DesignFile.read(tmp_path / "bamba/hybrid_nas.json")
    assert beside.architecture == gallery()["bamba-9b"].architecture
    assert "RoPE turns 0.5 of each head; here it turns all of it" in beside.notes
    price = json.loads(nas("cost", "bamba-9b", "--context", "8192", "--json").stdout)
    assert "RoPE turns 0.5 of each head; here it turns all of it" in price["differs"]
    small = json.loads(nas("cost", "nemotron-h-8b", "--scale", "paper-1b", "--json").stdout)
    assert any("do not stand in pairs" in note for note in small["differs"])
    assert price["params"] == cost(gallery()["bamba-9b"].architecture, 8192).params
    assert "is a model by itself" in nas("cost", "bamba-9b", "--ratio", "1:3", check=2).stderr
    assert "did you mean 'bamba-9b'" in nas("export", "bamba-9", "--to", "bamba", "--out", "x", check=2).stderr


def test_published_designs_beside_a_front(nas: Command, tiny: Path) -> None:
    nas("search", tiny, "--out", "run", "--trials", "2", "--set", "proxy.replicates=0")
    shown = json.loads(nas("front", "run", "--with", "published", "--json").stdout)
    rows = {row["name"]: row for row in shown["published"]}
    assert rows.keys() == gallery().keys()
    bamba = rows["bamba-9b"]
    design = gallery()["bamba-9b"].design
    assert bamba["values"] == {"cache_bytes": cost(design.at(PAPER["paper-1b"]), 8192).cache_bytes}
    assert bamba["trial"] is None
    assert "RoPE turns 0.5 of each head; here it turns all of it" in bamba["differs"]
    assert any("has one, 2,818,572,288 parameters more" in note for note in rows["jamba-v0.1"]["differs"])
    assert any("9 places share 2 transformer blocks" in note for note in rows["zamba2-2.7b"]["differs"])
    assert any("learned tokens before the text" in note for note in rows["hymba-1.5b"]["differs"])
    text = nas("front", "run", "--with", "published").stdout
    assert "≈ bamba-9b" in text
    assert "≈ jamba-v0.1: tie_word_embeddings is false" in text
    assert "--with: published is what" in nas("front", "run", "--with", "friends", check=2).stderr


def test_speeds_beside_a_front_are_of_its_kind() -> None:
    """Predicted as the run's are; where those are measured, only a trial of the same model knows one."""
    file = read_study("ratio: 1:1\ntarget: paper-350m\nobjectives: [loss, decode_tokens_per_s]\n", "study.yaml")
    of = next(model.design for model in gallery().values() if model.name == "bamba-9b")
    assert of is not None
    target = of.at(file.target)
    expected = decode(target, file.target.context, 4, device("h100")).tokens_per_s
    found = {row.name: row.values for row in beside(file, [])}
    assert found["bamba-9b"]["decode_tokens_per_s"] == expected
    assert sum("decode_tokens_per_s" in values for values in found.values()) >= 8
    trial = synthetic.trial(0, of, 2.0)
    measured = Speed(BY_LAYERS, "some GPU", 123.0, 1.0, 1.0, 1.0)
    trials = [trial.with_changes(target=target, cost=replace(trial.cost, speed=measured))]
    found = {row.name: row.values for row in beside(file, trials)}
    known = {name for name, values in found.items() if "decode_tokens_per_s" in values}
    assert "bamba-9b" in known
    assert {found[name]["decode_tokens_per_s"] for name in known} == {123.0}
    assert len(known) < 4


def test_the_command_says_why_a_speed_is_missing(nas: Command, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(
        "ratio: [0:1, 1:1]\nobjectives: [loss, train_tokens_per_s]\n"
        "target: {preset: proxy, width: 64, params: 200k, context: 64}\n"
        "proxy: {width: 32, params: 60k, context: 32, batch: 4, tokens: 1k, replicates: 0, recall_share: 0}\n"
        "search: {trials: 2, workers: 1}\n"
    )
    nas("search", str(study), "--out", "run")
    text = nas("front", "run", "--with", "published").stdout
    assert "ktokens/s" in text or "Mtokens/s" in text
    assert "speeds are measured" not in text
    run = tmp_path / "run"
    trials = [
        trial.with_changes(cost=replace(trial.cost, speed=Speed(BY_LAYERS, "some GPU", 1.0, 1.0, 2.0, 1.0)))
        for trial in read_trials(run / "trials.parquet")
    ]
    write_trials(trials, run / "trials.parquet")
    assert "This run's speeds are measured" in nas("front", "run", "--with", "published").stdout
