"""One design as a page: its parts add up to its cost, and the page says what the command says."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from installed import COMMAND, TINY, environment

from hybrid_nas.cost import cost
from hybrid_nas.description import Description
from hybrid_nas.design import Design, architecture_of_layout
from hybrid_nas.placement import Ratio
from hybrid_nas.roofline import device
from hybrid_nas.scale import PAPER

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    "design",
    [
        Design(ratio=Ratio(1, 5)),
        Design(ratio=Ratio(1, 3), ffn="moe"),
        Design(family="intra", ratio=Ratio(1, 1)),
        Design(layout="MSMAMH"),
    ],
)
def test_the_parts_add_up_to_the_whole(design: Design) -> None:
    scale = PAPER["paper-350m"]
    model = architecture_of_layout(design.layout, design, scale) if design.layout else design.at(scale)
    described = Description.of(model, 4096)
    whole = cost(model, 4096)
    for name in ("params", "train_flops_per_token", "decode_flops_per_token", "kv_bytes", "state_bytes"):
        assert sum(getattr(share, name) for share in described.shares) == pytest.approx(getattr(whole, name)), name
    assert "".join(run.letter * (run.last - run.first + 1) for run in described.runs) == model.layout
    assert [run.first for run in described.runs] == [1, *(run.last + 1 for run in described.runs[:-1])]
    cached = sum(run.cache_bytes * (run.last - run.first + 1) for run in described.runs)
    assert cached == whole.cache_bytes
    for prediction in described.predictions(device("h100"), 2).values():
        assert prediction.seconds > 0


def test_the_command_prints_and_writes_one_page(nas: Command, tmp_path: Path) -> None:
    text = nas("describe", "1:5", "--html", "page.html").stdout
    assert "MMMAMMMMMAMMM" in text
    assert "predicted" in text
    page = (tmp_path / "page.html").read_text()
    assert re.search(r"43\.4 MiB", page)
    assert len(re.findall(r'<i data-b="\w">', page)) >= 13
    assert 'id="library"' not in page
    assert len(page) < 40_000
    data = json.loads(nas("describe", "MMMAMMMMMAMMM", "--json").stdout)
    assert data["cost"]["cache_bytes"] == pytest.approx(43.4 * 2**20, rel=2e-3)
    assert set(data["predicted"]) == {"training step", "prefill", "decoding"}
    assert [block["layers"] if "layers" in block else block["letter"] for block in data["blocks"]] == list("MAMAM")


def test_a_trial_of_a_run(tmp_path: Path, nas: Command) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    command = [COMMAND, "search", "tiny.yaml", "--out", "run", "--workers", "1", "--trials", "2"]
    subprocess.run(command, cwd=tmp_path, env=environment(), check=True, capture_output=True, timeout=300)
    assert "run#1" in nas("describe", "run#1", "--html", "one.html").stdout
    page = (tmp_path / "one.html").read_text()
    assert "<polyline" in page
    assert "nats/token" in page
    assert "has no trial 77" in nas("describe", "run#77", check=2).stderr
    assert "run#1 at paper-3b" in nas("describe", "run#1", "--scale", "paper-3b").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("describe", "MXM"), "no such file, and no published model"),
        (("describe", "1:5", "--device", "h1000"), "nearest: h100"),
        (("describe", "nowhere#3"), "no run folder"),
        (("compare", "nowhere", "elsewhere"), "no run folder"),
    ],
)
def test_refusals(nas: Command, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in nas(*arguments, check=2).stderr
    assert list(tmp_path.iterdir()) == []
