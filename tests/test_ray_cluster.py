"""A search on Ray where no head of a cluster answers."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest
from installed import COMMAND, TINY, environment

from hybrid_nas.run_folder import Run
from hybrid_nas.storage import open_storage
from hybrid_nas.study import Record

pytest.importorskip("ray", reason="the extra `ray` is not installed")


def test_a_cluster_that_does_not_answer_is_told_of_at_once(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("a line of text\n" * 4000)
    (tmp_path / "tiny.yaml").write_text(f"{TINY}data: corpus.txt\n")
    with socket.socket() as bound:  # bound and not listening: a connection is refused
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        done = subprocess.run(
            [COMMAND, "search", "tiny.yaml", "--trials", "2", "--out", "run", "--ray", address],
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
    try:
        run = Run.of(tmp_path / "run")
        trials = Record(run.study_file(), open_storage(run.storage())).study.get_trials()
    except ValueError:
        trials = []  # no run was begun
    assert not [trial for trial in trials if trial.state.name in ("COMPLETE", "FAIL", "PRUNED")]
