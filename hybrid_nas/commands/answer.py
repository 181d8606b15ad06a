"""`front`, `recipe`, `report`: what a run found, read from its trials."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.table import Table

from hybrid_nas.commands.terminal import AsJson, RunName, out

if TYPE_CHECKING:
    from hybrid_nas.run_folder import Run
    from hybrid_nas.trial import Trial


def front(run: RunName = None, as_json: AsJson = False) -> None:
    """Print the front of a run."""
    from hybrid_nas.run_folder import Run

    folder = Run.of(run)
    trials = folder.trials()
    if as_json:
        from hybrid_nas.front import Front

        print(json.dumps(Front.of(trials, folder.study_file().objectives).to_dict(), indent=2))
        return
    out.print(f"{folder.path}", style="dim", highlight=False)
    print_front(folder, trials)


def recipe(run: RunName = None, as_json: AsJson = False) -> None:
    """Print the design recipe of a run, with its evidence."""
    from hybrid_nas.front import Front
    from hybrid_nas.recipe import Recipe
    from hybrid_nas.run_folder import Run

    folder = Run.of(run)
    trials, objectives = folder.trials(), folder.study_file().objectives
    result = Recipe.of(trials, objectives, Front.of(trials, objectives))
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
    elif out.is_terminal:
        from rich.markdown import Markdown

        out.print(Markdown(result.to_markdown()))
    else:
        print(result.to_markdown(), end="")


def report(run: RunName = None) -> None:
    """Write a run's report again, from its trials."""
    from hybrid_nas.front import Front
    from hybrid_nas.recipe import Recipe
    from hybrid_nas.run_folder import Run

    folder = Run.of(run)
    trials, file = folder.trials(), folder.study_file()
    result = Front.of(trials, file.objectives)
    path = folder.write_report(trials, result, Recipe.of(trials, file.objectives, result), folder.information(), file)
    out.print(str(path), highlight=False, soft_wrap=True)


def print_front(run: Run, trials: list[Trial]) -> None:
    from hybrid_nas.front import Front
    from hybrid_nas.units import readable

    file = run.study_file()
    front = Front.of(trials, file.objectives)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", title_justify="left")
    table.add_column("trial", justify="right")
    table.add_column(f"layout at {file.target.name}", no_wrap=True)
    for objective in file.objectives:
        table.add_column(objective.name, no_wrap=True)
    table.add_column("n", justify="right")
    table.add_column("", no_wrap=True)
    for member in sorted(front.members, key=lambda m: file.objectives[-1].loss(m.value(file.objectives[-1].name))):
        cells = []
        for objective in file.objectives:
            estimate = member.estimates.get(objective.name)
            if estimate is None:
                cells.append(readable(member.value(objective.name), objective.unit))
            else:
                half = "" if estimate.high is None else f" ± {estimate.high - estimate.mean:.4f}"
                cells.append(f"{estimate.mean:.4f}{half}")
        marks = [name for name, key in (("knee", front.knee),) if key == member.key and not front.knee_is_end]
        table.add_row(str(member.number), member.layout, *cells, str(len(member.seeds)), ", ".join(marks))
    out.print(table)
