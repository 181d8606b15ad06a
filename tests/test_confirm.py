"""What `confirm` spends: every design the same tokens, or at equal compute the same FLOPs, each its own tokens."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hybrid_nas.cost import cost
from hybrid_nas.run_folder import Run

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_at_equal_compute_each_design_has_its_own_tokens(nas: Command, tiny: Path, tmp_path: Path) -> None:
    study = tiny.read_text().replace("  tokens: 1024\n", "  flops: 2e8\n").replace("replicates: 1", "replicates: 0")
    study = study.replace("ratio: [1:0, 1:1, 1:3, 0:1]\nplacement: [front, end, [0.5]]", "ratio: [1:0, 0:1]")
    tiny.write_text(study.replace("d_state: [8, 16]", "d_state: [8]"))
    nas("search", tiny, "--out", "run", "--trials", "2")
    shown = json.loads(nas("confirm", "run", "--also", "9", "--json").stdout)
    assert (shown["flops_before"], shown["flops"]) == (2e8, pytest.approx(8e8, rel=0.05))
    proxies = {trial.number: trial.proxy for trial in Run.of(tmp_path / "run").trials()}
    trained = json.loads((tmp_path / "run/confirm_trainings.json").read_text())
    assert len(shown["designs"]) == len(trained) == 2
    for row in shown["designs"]:
        per_token = cost(proxies[row["number"]], 32).train_flops_per_token
        step = 2 * 32
        assert abs(row["tokens"] - shown["flops"] / per_token) <= step / 2
        assert row["tokens"] > row["tokens_before"]
        assert abs(row["tokens_before"] - 2e8 / per_token) <= step / 2
    assert len({row["tokens"] for row in shown["designs"]}) == 2
    table = nas("confirm", "run", "--also", "9").stdout
    assert "at 2e+08 FLOPs" in table
    assert "at 200,000" not in table
    most = max(row["tokens_before"] for row in shown["designs"])
    refused = nas("confirm", "run", "--tokens", str(most), check=2).stderr
    assert f"more than the {most:,} of the study's trainings" in refused
    assert (
        "--tokens: one training of 1e+18 tokens takes "
        in nas("confirm", "run", "--tokens", "1000000000b", check=2).stderr
    )
