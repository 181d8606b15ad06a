"""Designs that a search begins with: the space's own, the nearest it holds, in the study's file and identity."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from installed import TINY

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, SwiGLU
from hybrid_nas.census import Census
from hybrid_nas.design import Design
from hybrid_nas.design_file import DesignFile
from hybrid_nas.gallery import gallery
from hybrid_nas.scale import PROXY
from hybrid_nas.seeds import distance, seeds_of
from hybrid_nas.study_file import read_study

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_distance_counts_layers_then_dimensions() -> None:
    attention, mamba, ffn = Attention(4, 1, 16), Mamba2(128, 32, 16), SwiGLU(64)

    def stack(layout: str, m: Mamba2 = mamba) -> Architecture:
        return Architecture(64, 256, tuple(Block(attention if letter == "A" else m, ffn) for letter in layout))

    assert distance(stack("MMAM"), stack("MMAM")) == 0
    assert distance(stack("MMAM"), stack("MMMMAAMM")) == 0  # the same at twice the depth
    assert distance(stack("MMAM"), stack("MAMM")) == 0.5
    one, other = "MMMAMMMMMMMMMMMM", "MMMMMMMMAMMMMMMM"  # a hybrid is nearer to one like it than to none of its kind
    assert distance(stack(one), stack(other)) < distance(stack(one), stack("M" * 16))
    assert distance(stack("MMMM"), stack("MMMM", Mamba2(128, 32, 64))) == pytest.approx(0.2)  # two doublings


def test_the_space_s_own_design_or_the_nearest() -> None:
    file = read_study(TINY, "tiny.yaml")
    census = Census.of(file)
    own = next(iter(file.space.enumerate()))
    bamba = gallery()["bamba-9b"].design
    found = seeds_of({"own": own, "bamba": bamba, "again": own}, file, census)
    assert [(seed.name, seed.exact, seed.same) for seed in found] == [
        ("own", True, None), ("bamba", False, None), ("again", True, "own"),
    ]  # fmt: skip
    assert str(found[2]).endswith("; the same model as seed own, trained once")
    near = found[1].proposal
    wanted = bamba.at(file.target)
    assert distance(wanted, near.target) == min(distance(wanted, p.target) for p in census.proposals.values())
    assert near.design.d_state == 16  # of 8 and 16 the nearer to 128
    assert "the nearest that the space holds" in str(found[1])


def test_a_search_begins_with_its_seeds(nas: Command, tmp_path: Path) -> None:
    design = Design.from_dict({"ratio": "1:3", "placement": "end", "d_state": 8})
    file = DesignFile("mine", design.at(PROXY), 64, design)
    (tmp_path / "mine.json").write_text(file.to_json())
    study = tmp_path / "tiny.yaml"
    study.write_text(TINY + "  seeds: [mine.json, granite-4.0-h-1b]\n")
    done = nas("search", study, "--out", "run", "--trials", "3", "--set", "proxy.replicates=0")
    assert f"seed {tmp_path / 'mine.json'}: " in done.stdout
    assert "seed granite-4.0-h-1b: " in done.stdout
    resolved = read_study((tmp_path / "run/study.yaml").read_text(), "study.yaml")
    assert resolved.search.seeds == (str(tmp_path / "mine.json"), "granite-4.0-h-1b")
    first = nas("export", "run#0", "--to", "hybrid", "--out", "first", "--json")
    beside = DesignFile.read(tmp_path / "first/hybrid_nas.json")
    assert beside.design == design
    assert json.loads(first.stdout)["layout"] == design.at(resolved.target).layout


def test_seeds_are_part_of_a_study_and_their_absence_is_not() -> None:
    plain, none, seeded = (
        read_study(TINY + extra, "tiny.yaml") for extra in ("", "  seeds: []\n", "  seeds: [bamba-9b]\n")
    )
    assert plain.identity == none.identity != seeded.identity
    assert "seeds" not in plain.to_dict()["search"]
    with pytest.raises(ValueError, match=r"tiny.yaml:\d+: seeds: a design file or a published model must stand here"):
        read_study(TINY + "  seeds: [3]\n", "tiny.yaml")


def test_a_seed_that_is_not_there(nas: Command, tmp_path: Path) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(TINY + "  seeds: [bamba-8b]\n")
    done = nas("search", study, "--out", "run", check=2)
    assert re.search(r"tiny.yaml:\d+: seeds: bamba-8b: no such file, and no published model of that name; did you mean "
                     "'bamba-9b'", done.stderr.replace("\n", " "))  # fmt: skip
    assert not (tmp_path / "run").exists()
