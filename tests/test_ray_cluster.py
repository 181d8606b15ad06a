"""A search on Ray where no head of a cluster answers, where two nodes go at once, and where the head goes."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from installed import COMMAND, TINY, environment
from servers import Ray, wait_for
from test_ray import LONG, ROOT, ended, finished, tokens, told

from hybrid_nas.run_folder import Run
from hybrid_nas.storage import open_storage
from hybrid_nas.study import SO_FAR, Record

pytest.importorskip("ray", reason="the extra `ray` is not installed")
FIRST = 5_000
"""Tokens of the first rung."""
SEARCH = ("--workers", "2", *LONG, "--set", f"proxy.tokens={8 * FIRST}", "--set", "proxy.rungs=[0.125, 0.5]")


@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_a_cluster_that_does_not_answer_is_told_of_at_once(storage: str, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("a line of text\n" * 4000)
    (tmp_path / "tiny.yaml").write_text(f"{TINY}data: corpus.txt\n")
    options = ("--trials", "2", "--out", "run", "--storage", storage)
    with socket.socket() as bound:  # bound and not listening: a connection is refused
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        done = subprocess.run(
            [COMMAND, "search", "tiny.yaml", *options, "--ray", address],
            cwd=tmp_path,
            env={**environment(), "XDG_CACHE_HOME": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=60,
        )
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode in (1, 2), said
    assert f"no Ray cluster answers at {address} (Connection refused); start its head there: ray start --head" in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    text = "".join(path.read_text() for path in sorted((ROOT / "hybrid_nas").glob("*.py")))
    (folder / "corpus.txt").write_text(text)
    (folder / "tiny.yaml").write_text(f"{TINY}data: corpus.txt\n")
    return folder


def surroundings(folder: Path) -> dict[str, str]:
    return {**environment(), "XDG_CACHE_HOME": str(folder / "cache")}


def unbroken(folder: Path) -> list[Any]:
    """What the first two trials say on this machine."""
    command = [COMMAND, "search", "tiny.yaml", *SEARCH, "--trials", "2", "--out", "whole"]
    subprocess.run(command, cwd=folder, env=surroundings(folder), check=True, capture_output=True, timeout=120)
    return told(folder / "whole")


def begin(folder: Path, ray: Ray) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, "search", "tiny.yaml", *SEARCH, "--trials", "3", "--out", "run", "--ray", ray.address],
        cwd=folder,
        env={**surroundings(folder), **ray.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def standing(path: Path) -> list[int]:
    """Tokens that each running trial has trained on."""
    try:
        run = Run.of(path)
        record = Record(run.study_file(), open_storage(run.storage()))
    except ValueError:
        return []
    trials = record.study.get_trials(deepcopy=False)
    return [tokens(str(t.user_attrs.get(SO_FAR, ""))) for t in trials if t.state.name == "RUNNING"]


def both_train(standing: list[int]) -> bool:
    return len(standing) == 2 and min(standing) > 0 and max(standing) > FIRST


@pytest.mark.slow
def test_two_nodes_at_once(folder: Path, tmp_path: Path) -> None:
    """Both trials lose their nodes in one moment, and go on on a third: from a rung, where they were past one."""
    with Ray.cluster(tmp_path) as ray:
        nodes = [ray.node("--num-cpus=1") for _ in range(2)]
        with begin(folder, ray) as process:
            wait_for(lambda: both_train(standing(folder / "run")), "two trials in training, one past a rung")
            for node in nodes:
                ray.end(node)
            ray.node("--num-cpus=2")
            output = ended(process)
    assert re.search(r"trial \d: its (?:worker|node) is gone; it (?:goes on from its rung|starts again)", output), (
        output
    )
    assert "Traceback" not in output
    assert [trial.number for trial in finished(folder / "run") if trial.state == "complete"] == [0, 1, 2]
    assert told(folder / "run")[:2] == unbroken(folder)
