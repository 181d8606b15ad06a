"""A recorded table of trials is read as a run, by every command that reads one, and nothing is written into it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

STUDY = Path(__file__).parent.parent / "studies" / "2026-11_hybrid_table"


def test_every_reading_command_takes_a_recorded_table(
    nas: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    before = sorted(path.name for path in STUDY.iterdir())
    assert "AAMMMMMMMMMMM" in nas("front", STUDY).stdout
    rules = nas("recipe", STUDY).stdout
    assert "0:1 beats 1:0 by an amount that depends on family, 0.6" in rules  # whole layers, not the mean over both
    assert "with rope 1:0 over 0:1 by 0.9" in rules
    assert nas("report", STUDY, "--out", "table.html").stdout.strip() == "table.html"
    page = (tmp_path / "table.html").read_text()
    assert "further members</summary>" in page
    nas("describe", f"{STUDY}#12", "--html", "design.html")
    assert "not counted" in (tmp_path / "design.html").read_text()
    assert sorted(path.name for path in STUDY.iterdir()) == before
