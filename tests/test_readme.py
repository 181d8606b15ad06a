"""The README is true: its map is the tree, its commands run, its options exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
Command = Callable[..., subprocess.CompletedProcess[str]]


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("hybrid-nas")]


def test_file_map_is_the_tree() -> None:
    mapped = set(re.findall(r"^\| `([^`]+)` \|", TEXT, re.MULTILINE))
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "hybrid_nas").rglob("*.py") if path.stem != "__init__"}
    assert {name for name in mapped if name.startswith("hybrid_nas/")} == modules
    assert all((ROOT / name).exists() for name in mapped if "/" in name)


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "search_spaces/README.md", ROOT / "kernels/README.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_commands_of_the_table_and_their_options_exist(nas: Command) -> None:
    rows = re.findall(r"^\| `hybrid-nas (\w+)[^`]*` \| (.*) \|$", TEXT, re.MULTILINE)
    assert len(rows) >= 8
    for name, what in rows:
        help_text = nas(name, "--help").stdout
        for option in re.findall(r"`(--[a-z]+)", what):
            assert option in help_text, f"{name} {option}"


@pytest.mark.parametrize("command", commands())
def test_commands_run(command: str, nas: Command) -> None:
    words = shlex.split(command)[1:]
    if words[0] == "search":  # the main job, made small: the shipped space, few trials and tokens
        words += ["--trials", "3", "--budget", "2k", "--set", "proxy.validation_tokens=1k"]
        words += ["--set", "proxy.replicates=0"]
    assert nas(*words).stdout


def test_package_speaks_of_itself_alone() -> None:
    banned = re.compile(r"/work/|/tmp/venv|\bCEO\b|closing note", re.IGNORECASE)
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for name in tracked:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".yaml", ".toml"} and path != Path(__file__):
            found = banned.search(path.read_text())
            assert found is None, f"{name}: {found}"
