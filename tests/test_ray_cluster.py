"""A search on Ray where two nodes fail at once, and where the head of the cluster does."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from installed import COMMAND, TINY, environment
from servers import Ray, wait_for
from test_ray import LONG, ROOT, RUNG, ended, finished, tokens, told

from hybrid_nas.run_folder import Run
from hybrid_nas.storage import open_storage
from hybrid_nas.study import SO_FAR, Record
from hybrid_nas.units import counted

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = pytest.mark.slow
SEARCH = (COMMAND, "search", "tiny.yaml", "--trials", "2", "--workers", "2", *LONG)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    text = "".join(path.read_text() for path in sorted((ROOT / "hybrid_nas").glob("*.py")))
    (folder / "corpus.txt").write_text(text)
    (folder / "tiny.yaml").write_text(f"{TINY}data: corpus.txt\n")
    return folder


def surroundings(folder: Path) -> dict[str, str]:
    return {**environment(), "XDG_CACHE_HOME": str(folder / "cache")}


@pytest.fixture(scope="module")
def whole(folder: Path) -> list[Any]:
    """The same search on this machine, unbroken."""
    command = [*SEARCH, "--out", "whole"]
    subprocess.run(command, cwd=folder, env=surroundings(folder), check=True, capture_output=True, timeout=300)
    return told(folder / "whole")


@pytest.fixture
def ray(tmp_path: Path) -> Iterator[Ray]:
    with Ray.cluster(tmp_path) as cluster:
        yield cluster


def begin(folder: Path, ray: Ray, out: str, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*SEARCH, "--out", out, "--ray", ray.address, *more],
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


def test_two_nodes_at_once_and_then_the_head(folder: Path, ray: Ray, whole: list[Any], tmp_path: Path) -> None:
    """Both trials lose their nodes in one moment, and go on from their rungs on a third. Then, of another search, the
    head goes: the search ends, says so, and the same command continues on the cluster that is started in its place."""
    nodes = [ray.node("--num-cpus=1") for _ in range(2)]
    with begin(folder, ray, "nodes") as process:
        wait_for(lambda: len(found := standing(folder / "nodes")) == 2 and min(found) > RUNG, "two trials at a rung")
        for node in nodes:
            ray.end(node)
        heard = ""
        while "trials wait for one" not in heard:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, heard
            heard += line
        ray.node("--num-cpus=2")
        output = ended(process, heard)
    moved = set(re.findall(r"trial (\d): its (?:worker|node) is gone; it goes on from its rung at", output))
    assert moved == {"0", "1"}, output
    assert told(folder / "nodes") == whole

    five = ("--trials", "5")  # some are left whenever the head goes
    with begin(folder, ray, "head", *five) as process:
        wait_for(lambda: bool(finished(folder / "head")), "a trial")
        for node in ray.nodes:
            ray.end(node)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 1, output
    assert f"no Ray cluster answers at {ray.address} (Connection refused)" in output
    assert "the same command continues" in output
    before = finished(folder / "head")
    home = tmp_path / "again"
    home.mkdir()
    with Ray.cluster(home, ray.port) as again:
        again.node("--num-cpus=2")
        with begin(folder, again, "head", *five) as process:
            output = ended(process)
    assert f"done already: {counted(len(before), 'trial')} and 0 replicates" in output
    assert told(folder / "head") == whole
