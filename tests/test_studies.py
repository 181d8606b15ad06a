"""Every study's tables follow from its trials, and the index from the studies."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hybrid_nas.trial import read_trials

ROOT = Path(__file__).parent.parent / "studies"
sys.path.append(str(ROOT))

from markers import write, written  # noqa: E402

STUDIES = sorted(path.parent for path in ROOT.glob("*/study.yaml"))


def load(folder: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"study_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_tables_follow_from_the_trials(folder: Path) -> None:
    readme = (folder / "README.md").read_text()
    assert written(readme, read_trials(folder / "trials.parquet"), load(folder, "tables").TABLES) == readme


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_no_trial_is_missing(folder: Path) -> None:
    run = load(folder, "run")
    trials = read_trials(folder / "trials.parquet")
    seeds = len({trial.seed for trial in trials})
    expected = {(number, proposal.key, seed) for number, proposal, seed in run.jobs(run.study(), seeds)}
    assert {(trial.number, trial.key, trial.seed) for trial in trials} == expected
    budgets = run.budgets() if hasattr(run, "budgets") else {run.study().budget}
    assert {trial.budget for trial in trials} == budgets


def test_the_index_says_what_the_studies_say() -> None:
    index = (ROOT / "README.md").read_text()
    for folder in STUDIES:
        (row,) = [line for line in index.splitlines() if line.startswith(f"| [{folder.name}]({folder.name}/)")]
        trials = read_trials(folder / "trials.parquet")
        assert load(folder, "tables").TABLES["verdict"](trials) in row
        assert row.split("|")[4].strip() == str(len({trial.seed for trial in trials}))


def test_a_wrong_number_in_a_table_is_found() -> None:
    folder = ROOT / "2026-11_recall_needs_attention"
    tables = load(folder, "tables")
    trials = read_trials(folder / "trials.parquet")
    readme = (folder / "README.md").read_text()
    wrong = trials[0].with_changes(values={"recall": 0.123456})
    assert written(readme, [wrong, *trials[1:]], tables.TABLES) != readme
    with pytest.raises(ValueError, match="the markers of verdict must stand once, found 0"):
        written(readme.replace("<!-- /verdict -->", ""), trials, tables.TABLES)


def test_the_tables_are_written_where_they_stand(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("A\n<!-- sum -->\nold\nlines\n<!-- /sum -->\nB\n")
    write(tmp_path, [1, 2, 4], {"sum": lambda rows: str(sum(rows))})
    assert (tmp_path / "README.md").read_text() == "A\n<!-- sum -->\n7\n<!-- /sum -->\nB\n"
