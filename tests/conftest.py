from __future__ import annotations

import os
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = str(Path(sysconfig.get_path("scripts")) / "hybrid-nas")
TINY = """\
name: tiny
ratio: [1:0, 1:1, 1:3, 0:1]
placement: [front, end, [0.5]]
d_state: [8, 16]
proxy:
  width: 16
  head_dim: 8
  ssm_head_dim: 16
  params: 26k
  context: 32
  tokens: 1024
  batch: 2
  validation_tokens: 256
  replicates: 1
search:
  trials: 5
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `gpu` where there is none."""
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A study file whose trainings take a fraction of a second."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


@pytest.fixture
def nas(tmp_path: Path) -> Run:
    """The installed command, run in an empty folder."""

    def run(*arguments: str | Path, check: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [COMMAND, *map(str, arguments)],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
        if check is not None:
            assert done.returncode == check, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """The installed command, left running."""

    def begin(*arguments: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [COMMAND, *map(str, arguments)],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return begin
