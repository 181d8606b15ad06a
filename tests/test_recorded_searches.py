"""The studies that search a recorded table: their tables follow from their results, and a result from the table."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hybrid_nas.dominance import hypervolume, non_dominated

ROOT = Path(__file__).parent.parent / "studies"
sys.path.append(str(ROOT))

from markers import written  # noqa: E402

NAMES = ("2026-11_stopping", "2026-11_samplers", "2026-11_scale", "2026-11_stopping_again")
FOLDERS = [ROOT / name for name in NAMES]
TABLE = ROOT / "2026-11_hybrid_table"


def load(folder: Path, name: str) -> ModuleType:
    """A module of a study, with the study's folder on the path while it is loaded."""
    spec = importlib.util.spec_from_file_location(f"{folder.name[8:]}_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_tables_follow_from_the_results(folder: Path) -> None:
    readme = (folder / "README.md").read_text()
    tables = load(folder, "tables")
    assert written(readme, tables.read(), tables.TABLES) == readme
    index = (ROOT / "README.md").read_text()
    (row,) = [line for line in index.splitlines() if line.startswith(f"| [{folder.name}]({folder.name}/)")]
    assert tables.TABLES["verdict"](tables.read()) in row


@pytest.mark.parametrize("rule", ["none", "front, 0.1", "rank, 2", "margin, 3 by 0", "loss, 3"])
def test_a_search_under_a_rule_has_the_committed_result_again(rule: str) -> None:
    run, tables = load(FOLDERS[0], "run"), load(FOLDERS[0], "tables")
    for names, objectives in run.OBJECTIVES.items():
        table = run.Table.of(TABLE / "trials.parquet", objectives)
        again = run.line(table, TABLE / "study.yaml", names, "random", rule, 0)
        (row,) = [r for r in tables.arms(tables.read(), names, "random")[rule] if r["seed"] == "0"]
        assert [str(value) for value in again[:-1]] == list(row.values())[:-1]  # but the seconds


@pytest.mark.parametrize("rule", ["none", "front, 0.1"])
def test_a_search_of_the_other_table_has_the_committed_result_again(rule: str) -> None:
    again, tables = load(FOLDERS[3], "run"), load(FOLDERS[3], "tables")
    run = again.before()
    for names in run.OBJECTIVES:
        line = run.line(again.recorded(run, names), again.PARTS[0], names, "random", rule, 4)
        (row,) = [r for r in tables.arms(tables.read(), names)[rule] if r["seed"] == "4"]
        assert [str(value) for value in line[:-1]] == list(row.values())[:-1]


def test_a_sampler_has_the_committed_result_again() -> None:
    run, tables = load(FOLDERS[1], "run"), load(FOLDERS[1], "tables")
    names = "loss, recall, cache"
    table = run.Table.of(TABLE / "trials.parquet", run.OBJECTIVES[names])
    again = run.line(table, TABLE / "study.yaml", names, run.BARE, 3)
    (row,) = [r for r in tables.arms(tables.read(), names)[run.BARE] if r["seed"] == "3"]
    assert [str(value) for value in again[:-1]] == list(row.values())[:-1]


@pytest.mark.parametrize("seed", [0, 7, 13])
def test_what_syne_tune_began_has_the_committed_result_again(seed: int) -> None:
    """Its choices differ from machine to machine; what they are worth does not."""
    run, tables = load(FOLDERS[1], "run"), load(FOLDERS[1], "tables")
    sampler = run.PEERS[2]
    for names, objectives in run.OBJECTIVES.items():
        table = run.Table.of(TABLE / "trials.parquet", objectives)
        (order,) = [
            [int(design) for design in row["designs"].split()]
            for row in csv.DictReader((FOLDERS[1] / "begun.csv").read_text().splitlines())
            if (row["objectives"], row["sampler"], row["seed"]) == (names, sampler, str(seed))
        ]
        assert len(set(order)) == len(order)
        again = run.measured(table, lambda begun, *_, order=order: order[len(begun)], names, sampler, seed, 0.0)
        (row,) = [r for r in tables.arms(tables.read(), names)[sampler] if r["seed"] == str(seed)]
        assert [str(value) for value in again[:-1]] == list(row.values())[:-1]


def test_what_a_simulated_search_spends_and_has_is_what_the_table_says() -> None:
    """One worker, no stopping: the tokens of whole trainings, and the hypervolume of what was trained."""
    simulate = load(FOLDERS[0], "simulate")
    table = simulate.Table.of(TABLE / "trials.parquet", ("loss", "cache_bytes"))
    trace = simulate.search(table, simulate.at_random(table, 1), None, 0, 1, 5 * table.tokens[-1])
    assert [tokens for tokens, _ in trace] == [i * table.tokens[-1] for i in range(6)]
    order = np.random.default_rng(1).permutation(len(table.trials))[:5]
    seen = np.array([[table.rows[i, 0].values["loss"], np.log2(table.rows[i, 0].cost.cache_bytes)] for i in order])
    mean = [np.mean([table.rows[i, s].values["loss"] for s in range(3)]) for i in order]
    front = [[mean[i], seen[i, 1]] for i in range(5) if non_dominated(seen)[i]]
    assert trace[-1][1] == pytest.approx(hypervolume(np.array(front), table.reference) / table.best)
