"""The dashboard: what a search leaves in the storage for a reader, and what the server makes of it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from installed import COMMAND, TINY, environment
from servers import proxy, wait_for

from hybrid_nas.run_folder import Run
from hybrid_nas.storage import open_storage
from hybrid_nas.study import Record

optuna_dashboard = pytest.importorskip("optuna_dashboard", reason="the extra `dashboard` is not installed")
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("dashboard")
    (folder / "tiny.yaml").write_text(TINY)
    command = [COMMAND, "search", "tiny.yaml", "--out", "run", "--workers", "1"]
    subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True, timeout=300)
    return Run(folder / "run")


def get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return bytes(answer.read())


def test_a_trial_is_readable_in_the_storage(run: Run) -> None:
    record = Record(run.study_file(), open_storage(run.storage()))
    assert record.study.metric_names == ["loss (nats/token)", "cache_bytes (bytes)"]
    assert [trial.to_dict() for trial in record.trials()] == [trial.to_dict() for trial in run.trials()]
    rows = {trial.number: trial for trial in run.trials()}
    for frozen in record.study.trials:
        told, row = frozen.user_attrs, rows[frozen.number]
        assert told["layout"] == row.layout
        assert re.fullmatch(r"cache [\d.]+ [KM]iB, decoding .*, training .*, parameters .*", told["at paper-1b"])
        assert ("implementations" in told) == bool(row.implementations)
        assert told["progress"] == {"complete": "trained to the end", "stopped": "stopped early"}[row.state]
        assert not any(name in told for name in ("key", "so far"))
        assert not any(f"{name} {what}" in told["ran"] for name, what in row.implementations.items())
        assert not any(value.startswith("{") for value in told.values())  # no machine's text among a person's
        files = optuna.artifacts.get_all_artifact_meta(frozen, storage=record.storage)
        assert sorted(meta.filename for meta in files) == ["layout.svg", "loss.svg"]
        assert all((run.path / "artifacts" / meta.artifact_id).is_file() for meta in files)


def test_it_is_served_to_this_machine_alone_unless_told_otherwise(run: Run) -> None:
    """127.0.0.2 is this machine too, but another address: a server on all addresses would answer there."""
    from hybrid_nas.dashboard import serving

    with serving(run, port=0) as address:
        port = int(address.rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port), 10).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), 10)
    with serving(run, "0.0.0.0", 0) as address:
        socket.create_connection(("127.0.0.2", int(address.rpartition(":")[2])), 10).close()


def test_the_server_shows_note_pictures_and_artifacts(run: Run) -> None:
    from hybrid_nas.dashboard import HEAD, Answer, charted, serving
    from hybrid_nas.front import Front
    from hybrid_nas.proposal import distinct, drawn
    from hybrid_nas.recipe import Recipe

    front = Front.of(run.trials(), run.study_file().objectives)
    file = run.study_file()
    recipe = Recipe.of(run.trials(), file.objectives, front, drawn(file), distinct(file))
    with serving(run, port=0) as address:
        studies = json.loads(get(f"{address}/api/studies"))["study_summaries"]
        one = next(study["study_id"] for study in studies if not study["study_name"].endswith("-replicates"))
        detail = json.loads(get(f"{address}/api/studies/{one}?after=0"))
        body = detail["note"]["body"]
        assert body.startswith(HEAD)
        assert all(f"`{member.layout}`" in body for member in front.members)
        figures = {plot["id"]: json.loads(plot["graph_object"]) for plot in detail["plotly_graph_objects"]}
        assert figures.keys() - {"front"} == {f"effects-on-{quantity}" for quantity in charted(recipe)}
        assert all(any(trace.get("x") for trace in one["data"]) for one in figures.values())  # none is empty
        drawn = next(trace for trace in figures["front"]["data"] if trace.get("name") == "front")
        assert len(drawn["x"]) == len(front.members)
        trial = detail["trials"][0]
        picture = next(a for a in trial["artifacts"] if a["filename"] == "layout.svg")
        assert picture["mimetype"] == "image/svg+xml"
        svg = get(f"{address}/artifacts/{one}/{trial['trial_id']}/{picture['artifact_id']}").decode()
        assert svg.startswith("<svg")
        assert f"trial {trial['number']}," in svg
    record = Record(run.study_file(), open_storage(run.storage()))
    again = record.replicates
    assert again is not None
    assert optuna_dashboard.get_note(again).startswith("# Replicates")
    assert f"`{record.study.study_name}`, which has the answer" in optuna_dashboard.get_note(again)
    assert "Optuna's own marks" in body
    assert all(step.sentence in body for step in recipe.outlook)
    assert recipe.beyond in body
    estimate = front.members[0].estimates["loss"]
    assert estimate.low is not None
    assert f"{estimate.mean:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]" in body
    answer = Answer(record)
    assert answer.write()
    assert not answer.write()  # nothing new
    optuna_dashboard.save_note(record.study, "my own words")
    Answer(record).write()
    assert optuna_dashboard.get_note(record.study) == "my own words"


def test_a_run_recorded_in_a_journal_is_served(tmp_path: Path) -> None:
    from hybrid_nas.dashboard import HEAD, serving

    (tmp_path / "tiny.yaml").write_text(TINY)
    command = [
        COMMAND,
        "search",
        "tiny.yaml",
        "--out",
        "run",
        "--workers",
        "1",
        "--trials",
        "3",
        "--storage",
        "journal",
    ]
    subprocess.run(command, cwd=tmp_path, env=environment(), check=True, capture_output=True, timeout=300)
    assert not (tmp_path / "run" / "study.db").exists()
    with serving(Run(tmp_path / "run"), port=0) as address:
        detail = study_at(address)
        assert detail["note"]["body"].startswith(HEAD)
        assert len(detail["trials"]) == 3


@pytest.mark.slow
def test_a_search_that_is_recorded_elsewhere_is_followed_while_it_runs(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """The storage is another process's, reached by its URL; trials and their pictures appear as they finish."""
    from hybrid_nas.dashboard import serving

    (tmp_path / "tiny.yaml").write_text(TINY)
    with proxy(f"sqlite:///{tmp_path}/elsewhere.db") as port:
        url = f"grpc://localhost:{port}"
        folder = tmp_path / "run"
        search = start("search", tmp_path / "tiny.yaml", "--out", folder, "--workers", "1", "--storage", url)
        seen: list[int] = []
        wait_for(lambda: bool(list((folder / "artifacts").glob("*"))), "a first trial")
        with serving(Run(folder), port=0) as address:
            while search.poll() is None:
                seen.append(sum(trial["state"] == "Complete" for trial in study_at(address)["trials"]))
                time.sleep(0.2)
            wait_for(lambda: "5 of 5 trials" in study_at(address)["note"]["body"], "the note of the end")
            detail = study_at(address)
            picture = detail["trials"][0]["artifacts"][0]
            place = f"{address}/artifacts/{detail['id']}/{detail['trials'][0]['trial_id']}/{picture['artifact_id']}"
            assert get(place).startswith(b"<svg")
        search.communicate(timeout=60)
        assert search.returncode == 0
        assert seen[0] < 5
        assert seen == sorted(seen)
        assert not (folder / "study.db").exists()


@pytest.mark.slow
def test_it_opens_in_the_browser_while_ray_trains(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`search --ray` at work, `dashboard --open` beside it: the browser is given the address, and what it shows there
    grows with the search."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    (tmp_path / "tiny.yaml").write_text(TINY)
    browser, asked = tmp_path / "browser", tmp_path / "asked"
    browser.write_text(f'#!/bin/sh\necho "$1" > {asked}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    folder = tmp_path / "run"
    longer = (
        "--set",
        "proxy.tokens=32k",
        "--set",
        "search.gpus=0",
        "--set",
        "search.dominators=0",
        "--set",
        "proxy.replicates=0",
    )
    search = start("search", "tiny.yaml", "--out", folder, "--workers", "1", "--ray", *longer)
    shown = None
    try:
        wait_for(lambda: (folder / "study.db").is_file() and bool(list(folder.glob("artifacts/*"))), "a trial", 180.0)
        shown = start("dashboard", folder, "--port", "0", "--open")
        wait_for(lambda: asked.is_file() and bool(asked.read_text()), "the browser to be asked")
        address = asked.read_text().strip()
        assert re.fullmatch(r"http://localhost:\d+", address)
        seen = []
        while search.poll() is None:
            seen.append(sum(trial["state"] == "Complete" for trial in study_at(address)["trials"]))
            time.sleep(0.5)
        assert 0 < seen[0] < 5
        assert seen == sorted(seen)
        wait_for(lambda: "5 of 5 trials" in study_at(address)["note"]["body"], "the note of the end")
        assert search.returncode == 0
    finally:
        for process in (search, shown):
            if process is not None:
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=60)


def study_at(address: str) -> dict[str, Any]:
    """What the dashboard serves of the search's study, its id with it."""
    studies = json.loads(get(f"{address}/api/studies"))["study_summaries"]
    number = next(study["study_id"] for study in studies if not study["study_name"].endswith("-replicates"))
    return {"id": number, **json.loads(get(f"{address}/api/studies/{number}?after=0"))}


def test_the_command_serves_until_it_is_stopped(run: Run, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("dashboard", run.path, "--port", "0")
    assert process.stdout
    line = process.stdout.readline()
    address = re.search(r"http://localhost:\d+", line)
    assert address, line
    assert b"<html" in get(f"{address[0]}/dashboard").lower()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0
    process.stdout.close()


def test_refusals(nas: Command, run: Run, tmp_path: Path) -> None:
    assert "no run folder" in nas("dashboard", "nowhere", check=2).stderr
    from hybrid_nas.dashboard import serving

    with serving(run, port=0) as address, pytest.raises(ValueError, match="give another --port"):
        serving(run, port=int(address.rsplit(":", 1)[1])).__enter__()
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "study.yaml").write_text((run.path / "study.yaml").read_text())
    assert "holds no study.db" in nas("dashboard", "empty", check=2).stderr
