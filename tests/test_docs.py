"""The documentation is true: the site builds by itself, the tutorial runs, the notebook was run, load_run loads."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from installed import COMMAND, TINY, environment

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_site_builds_and_holds_every_command_and_key(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    pytest.importorskip("material", reason="the extra `docs` is not installed")
    from hybrid_nas.cli import COMMANDS
    from hybrid_nas.schema import study_schema

    site = tmp_path / "site"
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    commands = (site / "commands.html").read_text()
    for command in COMMANDS:
        assert f"hybrid-nas {command.__name__.rstrip('_')}" in commands
    keys = (site / "study_file.html").read_text()
    for key in study_schema()["properties"]:
        assert f"<code>{key}</code>" in keys
    assert "load_run" in (site / "notebook.html").read_text()
    for page in site.rglob("*.html"):
        fetched = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text())
        assert fetched == [], f"{page.name} fetches {fetched}"


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path) -> None:
    page = DOCS / "tutorial.md"
    (tmp_path / "first.yaml").write_text(blocks(page, "yaml")[0])
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    assert len(lines) >= 7
    for line in lines:
        name, *words = shlex.split(line)
        assert name == "hybrid-nas"
        if words[0] == "search":
            words += ["--set", "proxy.replicates=0"]  # shorter, and another study than the page's
        done = subprocess.run(
            [COMMAND, *words], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        assert done.stdout
    for name in ("runs/first/report.html", "design.html", "compare.html", "exported"):
        assert (tmp_path / name).exists(), name


def test_commands_in_the_pages_exist() -> None:
    from hybrid_nas.cli import COMMANDS

    known = {command.__name__.rstrip("_") for command in COMMANDS} | {"probe"}
    for page in DOCS.rglob("*.md"):
        for name in re.findall(r"(?:`|^)hybrid-nas (\w+)", page.read_text(), re.MULTILINE):
            assert name in known | {"COMMAND"}, f"{page.name}: {name}"


def test_the_notebook_was_run_to_its_end() -> None:
    cells = json.loads((DOCS / "notebook.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert len(outputs) >= len(code)
    assert not any(output["output_type"] == "error" for output in outputs)


def test_ids_of_a_tokenizer_are_read_as_the_page_says(tmp_path: Path) -> None:
    """The page's own line makes the file; every output counts tokens, none bytes."""
    page = (DOCS / "how_to" / "data.md").read_text()
    (line,) = re.findall(r"^np\.savez\(.*\)$", page, re.MULTILINE)
    before = "import numpy as np; train = np.arange(9000, dtype=np.uint16); held_out = train[:900]; "
    subprocess.run([sys.executable, "-c", before + line], cwd=tmp_path, check=True)
    (tmp_path / "tiny.yaml").write_text(TINY + "data: ids.npz\n")
    search = [COMMAND, "search", "tiny.yaml", "--out", "run", "--workers", "1", "--trials", "2"]

    def told(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            words, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    assert "has 32,000 different tokens, so proxy.vocab must be at least that" in told(*search, code=2)
    found = told(*search, "--set", "proxy.vocab=32000")
    assert "9,000 tokens to train on" in found
    answers = [told(COMMAND, "front", "run", "--json"), told(COMMAND, "recipe", "run")]
    report = (tmp_path / "run" / "report.html").read_text()
    assert "a token is 4.20 bytes of text on average" in report
    assert "nats/token" in report
    assert not [answer for answer in (found, *answers, report) if re.search("nats (per|a) byte|nats/byte", answer)]


def test_a_run_is_loaded(tmp_path: Path) -> None:
    import hybrid_nas
    from hybrid_nas.front import Front

    (tmp_path / "tiny.yaml").write_text(TINY)
    search = [COMMAND, "search", "tiny.yaml", "--out", "run", "--workers", "1", "--trials", "4"]
    subprocess.run(search, cwd=tmp_path, env=environment(), check=True, capture_output=True, timeout=300)
    run = hybrid_nas.load_run(tmp_path / "run")
    readme = (ROOT / "README.md").read_text()
    (named,) = re.findall(r"`hybrid_nas\.load_run\(path\)` gives the trials, `\.(.*?)`", readme)
    assert isinstance(getattr(run, named), pa.Table)
    table = run.table
    assert table.num_rows == len(run.trials) >= 4
    assert table.column("number").to_pylist() == [trial.number for trial in run.trials]
    ratios = [str(trial.design.ratio) if trial.design.ratio else None for trial in run.trials]
    assert table.column("design.ratio").to_pylist() == ratios
    front = Front.of(run.trials, run.study.objectives)
    assert run.front.to_dict() == front.to_dict()
    members = {number for member in front.members for number in member.trials}
    shown = zip(table.column("number").to_pylist(), table.column("on_front").to_pylist(), strict=True)
    assert {number for number, member in shown if member} == members
    assert {"front", "curves", "attainment", "effects on loss"} <= set(run.figures)
    assert list(run.figures["front"].data[-1].y) == [member.value("loss") for member in front.members]
    with pytest.raises(ValueError, match="no run folder"):
        hybrid_nas.load_run(tmp_path / "nowhere")
