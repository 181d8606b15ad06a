"""`export` and `import` by the installed command: what they write, refuse, and leave behind."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hybrid_nas.architecture import Architecture
from hybrid_nas.cost import cost
from hybrid_nas.design import Design, architecture_of_layout
from hybrid_nas.design_file import DesignFile
from hybrid_nas.export.format import CannotRead
from hybrid_nas.export.formats import FORMATS, read_file
from hybrid_nas.scale import PAPER, PROXY

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_a_layout_at_the_target_scale_by_default(nas: Command, tmp_path: Path) -> None:
    done = json.loads(nas("export", "--layout", "MMMAMM", "--to", "granite", "--out", "out", "--json").stdout)
    scale = PAPER["paper-1b"]
    design = Design.from_dict({"layout": "MMMAMM"})
    want = architecture_of_layout("MMMAMM", design, scale)
    assert done["architecture"] == want.id
    assert done["params"] == cost(want, 1).params
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert (config["hidden_size"], config["max_position_embeddings"]) == (scale.width, scale.context)
    assert config["layer_types"] == ["mamba", "mamba", "mamba", "attention", "mamba", "mamba"]
    assert {s["engine"].split()[0]: s["able"] for s in done["serving"]} == {"vLLM": True, "SGLang": True}
    beside = DesignFile.read(tmp_path / "out/hybrid_nas.json")
    assert (beside.architecture, beside.design) == (want, design)


def test_there_and_back_and_on(nas: Command, tmp_path: Path) -> None:
    """Layout, Granite with weights, import, Megatron, import: one architecture all the way."""
    layout = ("--layout", "MAM", "--set", "d_state=24", "--set", "position=none", "--scale", "proxy")
    nas("export", *layout, "--to", "granite", "--out", "a", "--weights", "--context", "256")
    nas("import", "a/config.json", "--out", "a.json", "--name", "mine")
    first = DesignFile.read(tmp_path / "a.json")
    assert first == DesignFile("mine", first.architecture, 256, first.design, "a/config.json", ())
    assert first.design.to_dict()["d_state"] == 24
    assert first.design.position == "none"
    nas("export", "a.json", "--to", "megatron", "--out", "b")
    printed = nas("import", "b/megatron_arguments.txt").stdout
    second = DesignFile.of(json.loads(printed), "printed")
    assert second.architecture == first.architecture
    grown = json.loads(
        nas("export", "a.json", "--scale", "paper-100m", "--to", "hybrid", "--out", "c", "--json").stdout
    )
    assert grown["params"] == cost(first.design.at(PAPER["paper-100m"]), 1).params
    assert (tmp_path / "a/model.safetensors").stat().st_size > 4 * cost(first.architecture, 1).params


def test_a_trial_of_a_run(nas: Command, tiny: Path, tmp_path: Path) -> None:
    nas("search", tiny, "--out", "run", "--trials", "2")
    shown = json.loads(nas("front", "run", "--json").stdout)["members"][0]
    done = json.loads(nas("export", f"run#{shown['number']}", "--to", "hybrid", "--out", "out", "--json").stdout)
    assert done["layout"] == shown["layout"]
    assert done["params"] == shown["cost"]["params"]
    beside = DesignFile.read(tmp_path / "out/hybrid_nas.json")
    assert beside.name == f"run#{shown['number']}"
    proxy = json.loads(
        nas("export", f"run#{shown['number']}", "--scale", "proxy", "--to", "hybrid", "--out", "small", "--json").stdout
    )
    assert proxy["params"] == cost(Design.from_dict(shown["design"]).at(PROXY), 1).params
    refused = nas("export", "run#99", "--to", "hybrid", "--out", "none", check=2)
    assert "has no trial 99; the nearest is" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "--layout", "MA", "--to", "bmba", "--out", "x"), "did you mean 'bamba'"),
        (
            ("export", "--layout", "MA", "--set", "ffn=moe", "--to", "granite", "--out", "x"),
            "by a softmax over their scores and has no balancing bias, ours by a sigmoid each",
        ),
        (
            ("export", "--layout", "HH", "--set", "preset=falcon-h1", "--to", "falcon-h1", "--out", "x"),
            "found 128 and 72 channels a head; with value_width: 9/16 they are",
        ),
        (
            ("export", "--layout", "MA", "--to", "megatron", "--tensor-parallel", "2", "--out", "x"),
            "by its groups of B and C, of which a design has one",
        ),
        (("export", "--layout", "MA", "--to", "foo", "--out", "x"), "--to: 'foo' is no format; formats: hybrid"),
        (("export", "--layout", "MA", "--out", "x"), "a format must stand here; formats: hybrid, granite"),
        (("export", "--layout", "MA", "--to", "granite"), "a folder for the files must stand here"),
        (("export", "--to", "granite", "--out", "x"), "give one of the two"),
        (("export", "nowhere.json", "--to", "granite", "--out", "x"), "no such file, and no published model"),
        (("export", "--layout", "MA", "--to", "granite", "--out", "x", "--scale", "huge"), "unknown scale 'huge'"),
        (
            ("export", "--layout", "MH", "--to", "granite", "--out", "x"),
            "found H (1 layers). The nearest that it can hold",
        ),
        *(
            (
                ("export", "--layout", layout, "--set", "ffn=moe", "--to", to, "--out", "x"),
                f"its FFNs are dense, found experts in {len(layout)} blocks",
            )
            for layout, to in (("MA", "megatron"), ("MM", "nemotron-h"), ("MA", "bamba"))
        ),
        (("export", "--layout", "MA", "--to", "granite", "--out", "x", "--set", "d_stat=1"), "did you mean 'd_state'"),
        (("export", "--layout", "MA", "--to", "megatron", "--out", "x", "--weights"), "has no place for weights"),
        (("export", "--layout", "MA", "--to", "granite", "--out", "x", "--pipeline", "2"), "are Megatron-LM's"),
        (("export", "--layout", "MA", "--to", "megatron", "--out", "x", "--pipeline", "3"), "as many blocks, found 2"),
        (("export", "--layout", "MA", "--to", "foo", "--out", "x"), "fla, torchtitan\n"),
        (("import", "nowhere.json"), "nowhere.json: no such file"),
        (("import", "."), "a folder; the file in it is meant"),
    ],
)
def test_refusals_leave_nothing_behind(nas: Command, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = nas(*arguments, check=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_experts_become_a_dense_network_only_where_that_is_asked_for(nas: Command, tmp_path: Path) -> None:
    arguments = (
        "export",
        "--layout",
        "MA",
        "--set",
        "ffn=moe",
        "--to",
        "megatron",
        "--nearest",
        "--out",
        "x",
        "--json",
    )
    done = json.loads(nas(*arguments).stdout)
    assert done["changes"] == ["experts become one SwiGLU, as wide as those that a token sees"]
    assert "--ffn-hidden-size 8192" in (tmp_path / "x/megatron_arguments.txt").read_text().replace("\n", " ")
    dense = json.loads(nas("cost", "--layout", "MA", "--json").stdout)
    assert done["params"] == dense["params"]


def test_the_nearest_design_is_taken_and_said(nas: Command, tmp_path: Path) -> None:
    done = json.loads(nas("export", "--layout", "MMHA", "--to", "granite", "--nearest", "--out", "x", "--json").stdout)
    assert done["layout"] == "MMMA"
    assert done["changes"] == ["1 layer of H becomes M"]
    beside = DesignFile.read(tmp_path / "x/hybrid_nas.json")
    assert beside.notes == ("1 layer of H becomes M",)
    again = nas("export", "--layout", "M", "--to", "granite", "--out", "x", check=2)
    assert "x is not empty" in again.stderr


def test_what_is_folded_away_is_said(nas: Command, tmp_path: Path) -> None:
    """The default fusion comes back as a sum, so the export says so; what comes back folds nothing."""
    hybrids = ("--layout", "HH", "--scale", "proxy", "--set", "norm=none", "--set", "value_width=9/16")
    to = ("--to", "falcon-h1", "--json")
    done = json.loads(nas("export", *hybrids, *to, "--out", "a").stdout)
    (said,) = done["folded"]
    assert said.startswith("fusion difference is a sum here")
    assert "folded" in nas("export", *hybrids, *to[:2], "--out", "b").stdout
    nas("import", "a/config.json", "--out", "again.json")
    again = DesignFile.read(tmp_path / "again.json")
    assert again.architecture.blocks[0].mixer.fusion == "add"
    assert json.loads(nas("export", "again.json", *to, "--out", "c").stdout)["folded"] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"model_type": ', "broken JSON in line 1"),
        ("[]", 'a configuration is a JSON object, like {"model_type": ...}, found a list'),
        ("{}", "model_type is missing"),
        ("", "the file is empty"),
        ("hello", "neither JSON nor an argument file"),
        ('{"model_type": "llama"}', "no format is known for 'llama'"),
    ],
)
def test_what_is_no_configuration(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(CannotRead) as error:
        read_file(path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("layout", "to", "taken", "change"),
    [
        ("MMMAMMM", "jamba", "111A111", "6 layers of M become 1"),
        ("MMMAMMH", "jamba", "111A111", "1 layer of H, 5 layers of M become 1"),
        ("HHHH", "granite", "MMMM", "4 layers of H become M"),
        ("HHHH", "jamba", "1111", "4 layers of H become 1"),
        ("MMMM", "falcon-h1", "HHHH", "4 layers of M become H"),
        ("MAMA", "falcon-h1", "HHHH", "2 layers of A, 2 layers of M become H"),
        ("AAAA", "falcon-h1", "HHHH", "4 layers of A become H"),
        ("GGA", "bamba", "MMA", "2 layers of G become M"),
        ("AAHA", "bamba", "AAAA", "1 layer of H becomes A"),
    ],
)
def test_the_nearest_keeps_what_a_layer_is(layout: str, to: str, taken: str, change: str) -> None:
    format, scale = FORMATS[to], PAPER["paper-100m"]
    design = Design.from_dict({"layout": layout})
    architecture = architecture_of_layout(layout, design, scale)
    nearest, changes = format.nearest(architecture)
    assert nearest is not None
    assert nearest.layout == taken
    assert changes[0] == change
    assert format.problems(nearest) == ()
    format.write(nearest, 64)
    if to != "falcon-h1" and "H" not in layout and "G" not in layout:  # the same channels and the same state
        kept, was = cost(nearest, 64), cost(architecture, 64)
        assert (kept.kv_bytes, nearest.width) == (was.kv_bytes, architecture.width)
        assert nearest.blocks[0].mixer.d_ssm == architecture.blocks[0].mixer.d_ssm
        assert nearest.blocks[0].mixer.d_state == architecture.blocks[0].mixer.d_state


def test_what_is_no_design_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    good = json.loads(DesignFile("a", Design.from_dict({"layout": "M"}).at(PROXY), 64).to_json())
    for change, message in (
        ({"version": 2}, "version must be 1, found 2"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"architecture": {**good["architecture"], "width": 0}}, "width must be a positive whole number"),
        ({"design": {"layout": "MQ"}}, "letter 2 is 'Q'"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(ValueError, match=message) as error:
            DesignFile.read(path)
        assert str(path) in str(error.value)
    path.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        DesignFile.read(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="no design file"):
        DesignFile.read(path)


@pytest.mark.parametrize(
    "design",
    [
        {"layout": "MMAM", "d_state": 24, "head_dim": 16, "kv_heads": "1/2", "position": "none"},
        {"layout": "MSAM", "d_state": 16, "head_dim": 32, "kv_heads": "1/4", "window": "1/4", "sinks": "1/16"},
        {"layout": "HMMH", "d_state": 16, "head_dim": 16, "kv_heads": "1/4", "attention_share": "1/2", "fusion": "add"},
        {"layout": "HM", "d_state": 16, "head_dim": 16, "kv_heads": "1/2", "norm": "none", "fusion": "concat"},
    ],
)
def test_a_design_is_found_again_in_its_architecture(design: dict) -> None:
    from hybrid_nas.scale_free import design_of

    wanted = Design.from_dict(design)
    architecture: Architecture = architecture_of_layout(str(wanted.layout), wanted, PROXY)
    found, notes = design_of(architecture, PROXY.context)
    assert architecture_of_layout(str(wanted.layout), found, PROXY) == architecture
    assert notes == ()
    for scale in (PROXY, PAPER["paper-350m"]):
        assert found.at(scale).layout == wanted.at(scale).layout
