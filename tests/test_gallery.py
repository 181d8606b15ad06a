"""The published models: their sizes are those of their names, their designs can be built, and they stand by a front."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hybrid_nas.cost import cost
from hybrid_nas.design_file import DesignFile
from hybrid_nas.export.format import CannotHold
from hybrid_nas.export.formats import FORMATS
from hybrid_nas.gallery import FILE, gallery
from hybrid_nas.scale import PAPER

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
