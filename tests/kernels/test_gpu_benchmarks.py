"""The GPU benchmarks where there is no GPU, and the names of their files."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hybrid_nas.cost import cost
from hybrid_nas.roofline import decode, device

BENCHMARKS = Path(__file__).parents[2] / "kernels" / "benchmarks"
SCRIPTS = sorted(path.name for path in BENCHMARKS.glob("gpu_*.py") if path.name != "gpu_cases.py")


def without_a_gpu(script: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    assert list(folder.iterdir()) == []
    return done


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_a_gpu_a_benchmark_says_so_in_a_line(script: str, tmp_path: Path) -> None:
    done = without_a_gpu(script, tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"{script}: this measures a CUDA GPU, and there is none here")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_to_be_had_without_a_gpu(script: str, tmp_path: Path) -> None:
    done = without_a_gpu(script, tmp_path, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {script}")


def test_an_unknown_scan_is_refused(tmp_path: Path) -> None:
    done = without_a_gpu("gpu_recurrent.py", tmp_path, "out.json", "mamba4")
    assert done.returncode == 2
    assert "unknown operation 'mamba4'; known: gated_delta, selective_scan, mamba3" in done.stderr


def test_without_transformers_the_cpu_benchmark_says_what_to_install(tmp_path: Path) -> None:
    hidden = "import sys, runpy; sys.modules['transformers'] = None; sys.argv = sys.argv[1:]; "
    code = hidden + "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(BENCHMARKS / "cpu_hybrid.py"), "--out", str(tmp_path / "results")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("cpu_hybrid.py: this compares with transformers, which is not installed; pip install")
    assert not (tmp_path / "results").exists()


@pytest.fixture(scope="module")
def cases() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_cases", BENCHMARKS / "gpu_cases.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def test_results_of_some_cases_do_not_take_the_place_of_all(cases: ModuleType) -> None:
    """The names that committed files have."""
    everything, paper = list(cases.CASES), "paper-100m inter 1+5"
    assert cases.suffix(everything, peer=True) == ""
    assert cases.suffix(everything[::-1], peer=True) == ""
    assert cases.suffix(everything, peer=False) == "_no-peer"
    assert cases.suffix(["width-256", "width-128"], peer=False) == "_small"
    for names, told in (
        ([paper], "_100m"),
        (["width-128"], "_width-128"),
        (["width-512", paper], "_width-512_paper-100m"),
    ):
        found = cases.suffix(names, peer=True)
        assert found == told
    for name in ("_100m", "_small", "_width-128"):
        assert (BENCHMARKS / "results" / f"gpu_training{name}.json").is_file()


def test_the_committed_decoding_steps_say_the_rate_that_their_shares_are_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: Mamba's 2 bytes a parameter and its states, over 2.89 TB/s, took 0.75 of 4 / 3,391 s."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    decoding = importlib.import_module("gpu_decoding")
    results = BENCHMARKS / "results"
    result = json.loads((results / "gpu_decoding_steps.json").read_text())
    text = (results / "gpu_decoding_steps.md").read_text()
    assert decoding.steps_as_markdown(result) == text
    assert "; copy 2.89 TB/s; paper-1b" in text.splitlines()[0]
    assert "| Mamba | 2,048 | 3,391 | 3,387 to 3,394 | 0.75 |" in text


def test_the_readmes_figures_of_decoding_are_those_of_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares of a floor at one rate, spreads, and how far predictions are from what was measured."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    decoding = importlib.import_module("gpu_decoding")
    text = (BENCHMARKS / "README.md").read_text()
    read = {
        name: json.loads(path.read_text()) for path in (BENCHMARKS / "results").glob("*.json") for name in [path.stem]
    }
    models, steps = decoding.models("paper-1b"), read["gpu_decoding_steps"]["rows"]

    def shares(name: str, context: int) -> dict[str, float]:
        found = {}
        for row in (row for row in read[name]["rows"] if row["context"] == context):
            spent = cost(models[row["model"]], context)
            bytes_a_token = 2 * spent.params / decoding.BATCH + spent.cache_bytes
            found[row["model"]] = round(bytes_a_token * row["decode_whole"] / 3.0e12, 2)
        return found

    now, before = shares("gpu_decoding_steps", 2048), shares("gpu_decoding", 2048)
    assert (now.pop("attention"), set(now.values())) == (0.69, {0.72})
    assert (before.pop("attention"), before.pop("Mamba"), set(before.values())) == (0.61, 0.65, {0.64})
    assert "| 0.69 attention, 0.72 Mamba and hybrids (commit 573b991; at cb182a6 0.61, 0.65, 0.64)" in text
    far, long_ago = shares("gpu_decoding_steps", 32_768), shares("gpu_decoding", 32_768)
    assert (far["Mamba"], far["attention"], long_ago["Mamba"], long_ago["attention"]) == (0.72, 0.86, 0.65, 0.81)
    assert "0.72 Mamba to 0.86 attention (at cb182a6 0.65 to 0.81)" in text

    spread: dict[int, list[float]] = {2048: [], 32_768: []}
    for row in steps:
        spread[row["context"]] += [abs(quartile - row["decode_whole"]) for quartile in row["quartiles"]]
    near, far_off = (f"{max(spread[context]):.1f}" for context in (32_768, 2048))
    assert f"quartiles within {near} tokens/s, at 2,048 tokens within {far_off};" in text

    small, on = decoding.models("paper-350m"), device("h100")
    errors = sorted(
        decode(small[row["model"]], row["context"], decoding.BATCH, on).tokens_per_s / row["decode_whole"] - 1
        for row in read["gpu_decoding_paper-350m"]["rows"]
    )
    assert f"decoding predicted {errors[2]:.0%} ({errors[0]:.0%} to {errors[-1]:.0%}) faster than that code was" in text

    eight = read["gpu_packing"]["eight"]
    added = eight["one after another, captured"]["seconds"] / eight["packed"]["seconds"] - 1
    assert f"so packing adds {added:.1%}" in text
    us = read["gpu_decoding_linear_step"]["us"]
    for model, told in {"intra 1:5": "1,449.9 1,360.2 1,326.9", "inter 1:5": "1,449.4 1,362.6 1,331.4"}.items():
        ways = ("cuBLAS", "added at once", "added by the norm")
        assert [f"{us[f'{model}, {way}'][1]:,.1f}" for way in ways] == told.split()
        assert all(figure in text for figure in told.split())
