"""The GPU benchmarks where there is no GPU, and the names of their files."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "kernels" / "benchmarks"
SCRIPTS = sorted(path.name for path in BENCHMARKS.glob("gpu_*.py") if path.name != "gpu_cases.py")


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_a_gpu_a_benchmark_says_so_in_a_line(script: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"{script}: this measures a CUDA GPU, and there is none here")
    assert list(tmp_path.iterdir()) == []


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
