"""The installed command: what it prints, what it refuses, how fast it starts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hybrid_nas_kernels
import pytest
from installed import COMMAND, environment

from hybrid_nas.cli import ray_here
from hybrid_nas.scale import PROXY

Command = Callable[..., subprocess.CompletedProcess[str]]
BOTH_SAY = "fusion is what preset says; leave one of the two out"


def test_cost_of_a_layout(nas: Command) -> None:
    done = nas("cost", "--scale", "paper-1b", "--layout", "MMMAMMMAMMMMM", "--context", "8192", "--json")
    result = json.loads(done.stdout)
    assert {
        "params", "params_nonembedding", "train_flops_per_token", "decode_flops_per_token",
        "cache_bytes", "state_bytes", "layers",
    } <= result.keys()  # fmt: skip
    assert result["layers"] == 13
    assert result["cache_bytes"] / 2**20 == pytest.approx(43.4, abs=0.05)
    text = nas("cost", "--layout", "MMMAMMMAMMMMM").stdout
    assert "43.4 MiB" in text


def test_cost_of_a_ratio_finds_the_depth(nas: Command) -> None:
    result = json.loads(nas("cost", "--ratio", "1:5", "--scale", "paper-350m", "--json").stdout)
    assert (result["layout"].count("A"), result["layout"].count("M")) == (2, 9)


def test_cost_of_parallel_hybrids(nas: Command) -> None:
    """NL of Table 18 beside ours; H's axes by --set; H in a layout."""
    options = ("cost", "--ratio", "1:0", "--scale", "paper-350m", "--set", "family=intra")
    for chosen, layers in (
        (("output=joint",), 12),
        (("value=joint", "output=joint", "scale=vector", "fusion=add"), 13),
    ):
        changed = [word for setting in chosen for word in ("--set", setting)]
        result = json.loads(nas(*options, *changed, "--json").stdout)
        assert (result["layers"], result["paper_layers"]) == (layers, layers)
    assert "11 (the paper: 11)" in nas(*options).stdout
    other = (*options, "--set", "halves=mamba", "--set", "norm=none", "--set", "scale=diff", "--json")
    result = json.loads(nas(*other).stdout)  # Diff-M: 11 layers of ours, by hand from one layer's parameters
    one_layer = (result["params_nonembedding"] - 1536) / 10
    assert (result["layers"], result["paper_layers"]) == (10, 11)
    assert result["paper_layers_budget_miss"] == pytest.approx((11 * one_layer + 1536) / 352_366_080 - 1)
    two, one = (
        json.loads(nas("cost", "--layout", "MMHMMH", "--set", f"output={o}", "--json").stdout)["params"]
        for o in ("separate", "joint")
    )
    gain = (2304 - 2048) * 2048 + (2304 - 2048) * 2048 // 4 + (2304 - 2048)  # values as wide as Mamba: W_o, W_v, gain
    assert two - one == 2 * (2304 * 2048 - gain)


def test_cost_by_set(nas: Command) -> None:
    small, large = (
        json.loads(nas("cost", "--layout", "MMA", "--set", f"d_state={n}", "--json").stdout) for n in (16, 128)
    )
    assert large["state_bytes"] - small["state_bytes"] == 2 * 2 * (4096 * 112 + 4 * 2 * 112)


@pytest.mark.parametrize(
    ("layout", "share", "same"), [("HHHH", "0", "MMMM"), ("HHHH", "1", "AAAA"), ("MHSH", "0", "MMSM")]
)
def test_a_split_of_nothing_or_all_is_a_whole_layer(nas: Command, layout: str, share: str, same: str) -> None:
    split = nas("cost", "--layout", layout, "--set", f"attention_share={share}", "--json").stdout
    assert json.loads(split) == json.loads(nas("cost", "--layout", same, "--json").stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cost", "--layout", "MXM"), "letter 2 is 'X'"),
        (("cost", "--layout", "M", "--scale", "paper-2b"), "unknown scale 'paper-2b'; did you mean 'paper-"),
        (("cost",), "give --layout"),
        (("cost", "--layout", "M", "--set", "d_stat=3"), "did you mean 'd_state'"),
        (("cost", "--layout", ""), "is empty"),
        *(
            ((command, "--layout", "HHHH", "--set", "preset=hymba", "--set", "fusion=concat", *more), BOTH_SAY)
            for command, more in (("cost", ()), ("export", ("--to", "hybrid", "--out", "x")))
        ),
        (("cost", "--layout", "MMMA", "--set", "window=1/16"), "window means nothing for the layout MMMA"),
        (("cost", "--ratio", "1:3", "--set", "sinks=4"), "sinks means nothing in this space"),
        (("cost", "--ratio", "1:3", "--context", "many"), "context: a whole number"),
        *(
            ((command, *model, "--context", "0"), "--context: must be at least 1 token, found 0")
            for command, *model in (
                ("cost", "--ratio", "1:5"),
                ("describe", "MMA"),
                ("measure", "1:5", "--device", "h100"),
                ("measure", "bamba-9b", "--device", "h100"),
                ("cost", "bamba-9b"),
                ("describe", "bamba-9b"),
            )
        ),
        (("measure", "MM", "--device", "h100", "--whole"), "--whole: --device h100 predicts and measures nothing"),
        (("measure", "MM", "--device", "h100", "--layers", "x.parquet"), "--layers: --device h100 predicts"),
        (("search", "/nowhere/inter_layer.yaml"), "no such file"),
        (("search", "nowhere.yaml"), "no such file"),
        (("search", "inter_layer", "--set", "d_state=[]"), "the list is empty"),
        (("search", "inter_layer", "--budget", "much"), "a whole number"),
        (("search", "inter_layer", "--set", "constraints.cache_bytes=1"), "allows nothing"),
        (("search", "inter_layer", "--set", "data=nowhere.txt"), "does not exist"),
        (
            ("search", "inter_layer", "--send-code"),
            "--send-code is for workers on Ray, and without --ray nothing reads",
        ),
        (("front", "nowhere"), "no run folder"),
        (("recipe",), "the only place that is looked into"),
    ],
)
def test_refusals_leave_nothing_behind(nas: Command, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = nas(*arguments, check=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        ("search", "inter_layer"),
        ("train", "--layout", "MA", "--scale", "proxy", "--tokens", "2k"),
        ("export", "--layout", "MA", "--scale", "proxy", "--to", "hybrid"),
        ("probe", "mix"),
    ],
    ids=lambda command: command[0],
)
def test_a_file_where_the_folder_should_be_is_refused(nas: Command, tmp_path: Path, command: tuple[str, ...]) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for place, where in (("taken", "there"), ("taken/run", "on the way to taken/run")):
        done = nas(*command, "--out", place, check=2)
        says = f"taken is a file, and a folder must stand {where}; give another with --out"
        assert done.stderr == f"hybrid-nas: {says}\n"
        assert done.stdout == ""
        assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    assert taken.read_text() == "mine"


def test_a_bad_file_names_file_and_line(nas: Command, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    for line, message in (("placment: front", "unknown key 'placment'"), ("data: nowhere/", "data: ")):
        path.write_text(f"name: bad\nratio: [1:3]\n{line}\n")
        done = nas("search", path, check=2)
        assert f"{path}:3: {message}" in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.yaml"]


def test_spaces_and_schema(nas: Command) -> None:
    rows = json.loads(nas("spaces", "--json").stdout)
    assert {row["name"]: row["designs"] for row in rows}.items() >= {"inter_layer": 830, "paper_fusion": 26}.items()
    assert "inter_layer" in nas("spaces").stdout
    assert json.loads(nas("schema").stdout)["properties"]["ratio"]


def test_doctor(nas: Command) -> None:
    found = json.loads(nas("doctor", "--json").stdout)
    states = {finding["what"]: finding["state"] for finding in found["findings"]}
    assert states["torch"] == "ok"
    kernels = Path(hybrid_nas_kernels.__file__).parent
    operations = {folder.parent.name for folder in kernels.glob("*/reference.py")} | {"adamw"}
    assert len(operations) > 15
    assert set(found["implementations"]) == operations | {"mamba2", "training_step"}
    assert "triton" in states
    if states["flash-attn"] == "missing":
        assert "pip install 'hybrid-nas[cuda]'" in nas("doctor").stdout


def test_doctor_gives_the_choice_for_proxies_and_where_it_differs_for_1b(monkeypatch: pytest.MonkeyPatch) -> None:
    from hybrid_nas_kernels import linear_step

    from hybrid_nas.doctor import implementations

    def choose(device: object, dtype: object, outputs: int = 128_256, channels: int = 2048) -> tuple[str, str]:
        return ("triton", "timed") if channels == 2048 else ("reference", f"not timed at {outputs} x {channels}")

    monkeypatch.setattr(linear_step, "choose", choose)
    found = implementations()
    told = f"not timed at {PROXY.vocab} x {PROXY.width}"
    assert found["linear_step"] == f"reference: {told}; for the classifier of a model of 1B triton: timed"
    assert found["parallel_step"].partition(": ")[2]


def test_measure_predicts_and_says_so(nas: Command) -> None:
    """Without its 16 FFNs the model would decode faster: the figures are of this model, on this device."""
    found = json.loads(nas("measure", "A" * 16, "--device", "h100", "--context", "32768", "--json").stdout)
    assert found["source"] == "predicted, roofline"
    assert (found["device"], found["context"]) == ("h100", 32_768)
    # 2.47 GB of weights and four caches of 1 GiB at 3.0 TB/s, and 33 parts at 12 microseconds
    floor = (2.47e9 + 4 * 2**30) / (0.9 * 3.35e12) + 33 * 12e-6
    assert found["decode_tokens_per_s"] == pytest.approx(4 / floor, rel=0.02)
    assert nas("measure", "MM", "--device", "h10", check=2).stderr.count("nearest: h100") == 1


def test_version(nas: Command) -> None:
    from hybrid_nas import __version__

    assert nas("--version").stdout.strip() == f"hybrid-nas {__version__}"


@pytest.mark.parametrize("module", ["cli", "run_folder", "study_file", "front", "recipe", "census"])
def test_light_commands_load_nothing_heavy(module: str) -> None:
    """What must answer in under a second may not load torch, Optuna or Plotly on the way."""
    code = (
        f"import sys, hybrid_nas.{module}; print([m for m in ('torch', 'optuna', 'plotly', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_ray_is_an_extra_and_its_address_may_be_left_away(tiny: Path, tmp_path: Path) -> None:
    assert ray_here(["search", "--ray", "space.yaml"]) == ["search", "--ray=local", "space.yaml"]
    assert ray_here(["search", "s.yaml", "--ray"]) == ["search", "s.yaml", "--ray=local"]
    assert ray_here(["search", "--ray", "--trials", "3"]) == ["search", "--ray=local", "--trials", "3"]
    for address in ("head:6379", "10.0.0.1:6379", "auto", "ray://head:10001"):
        assert ray_here(["search", "s.yaml", "--ray", address]) == ["search", "s.yaml", "--ray", address]
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'ray' else real(name, *more)\n"
    )
    for arguments, message in (
        (["--ray"], "--ray needs the package ray: pip install 'hybrid-nas[ray]'"),
        (["--ray", "ray://head:10001"], "Ray's client (ray://) is not used; give HOST:PORT"),
    ):
        done = subprocess.run(
            [COMMAND, "search", str(tiny), "--out", "run", *arguments],
            cwd=tmp_path,
            env={**environment(), "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert not (tmp_path / "run").exists()
