"""`front`, `recipe`, `report`: what a run found, read from its trials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from hybrid_nas.commands.terminal import AsJson, RunName, out, print_table

if TYPE_CHECKING:
    from hybrid_nas.run_folder import Run
    from hybrid_nas.trial import Trial


def front(
    run: RunName = None,
    beside: Annotated[
        str | None, typer.Option("--with", metavar="published", help="Show the published models' designs beside it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the front of a run."""
    from hybrid_nas.run_folder import Run

    if beside not in (None, "published"):
        raise ValueError(f"--with: published is what can stand beside a front, found {beside!r}")
    folder = Run.of(run)
    trials = folder.trials()
    if as_json:
        from hybrid_nas.front import Front

        data = Front.of(trials, folder.study_file().objectives).to_dict()
        if beside:
            from hybrid_nas.gallery import beside as published

            data["published"] = [row.to_dict() for row in published(folder.study_file(), trials)]
        print(json.dumps(data, indent=2))
        return
    out.print(f"{folder.path}", style="dim", highlight=False)
    print_front(folder, trials)
    if beside:
        print_published(folder, trials)


def print_published(run: Run, trials: list[Trial]) -> None:
    """The published designs at the run's target, their costs, and their losses where the run has trained them."""
    from hybrid_nas.gallery import beside
    from hybrid_nas.speed import PREDICTED
    from hybrid_nas.units import readable

    file = run.study_file()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", title_justify="left")
    for heading in ("published design", f"layout at {file.target.name}"):
        table.add_column(heading, no_wrap=True)
    for objective in file.objectives:
        table.add_column(objective.name, no_wrap=True)
    table.add_column("")
    rows = beside(file, trials)
    for row in rows:
        cells = []
        for objective in file.objectives:
            value = row.values.get(objective.name)
            exact = f"{value:.4f}" if objective.trained and value is not None else ""
            cells.append(exact or ("" if value is None else readable(value, objective.unit)))
        said = row.refused or ("" if row.trial is None else f"trial {row.trial}")
        table.add_row(f"{'≈ ' if row.differs else ''}{row.name}", row.layout, *cells, said)
    out.print()
    print_table(table)
    for row in rows:
        if row.differs:
            said = f"≈ {row.name}: {'; '.join(row.differs)}"
            out.print(said, style="dim", markup=False, highlight=False, soft_wrap=True)
    if any(trial.cost.speed is not None and trial.cost.speed.source != PREDICTED for trial in trials):
        out.print("This run's speeds are measured; those of models that no trial has are not known.", style="dim")
    out.print("A loss stands where a trial is the same model; search.seeds: [NAME] trains one.", style="dim")


def recipe(
    run: RunName = None,
    as_json: AsJson = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="Print tables for a paper's appendix.")] = False,
) -> None:
    """Print the design recipe of a run, with its evidence."""
    from hybrid_nas.front import Front
    from hybrid_nas.proposal import distinct, drawn
    from hybrid_nas.recipe import Recipe
    from hybrid_nas.recipe_text import latex, markdown
    from hybrid_nas.run_folder import Run

    if as_json and as_latex:
        raise ValueError("give --json or --latex, one of the two")
    folder = Run.of(run)
    trials, file = folder.trials(), folder.study_file()
    result = Recipe.of(trials, file.objectives, Front.of(trials, file.objectives), drawn(file), distinct(file))
    command = str(folder.information().get("command", ""))
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
    elif as_latex:
        print(latex(result), end="")
    elif out.is_terminal:
        from rich.markdown import Markdown

        out.print(Markdown(markdown(result, command)))
    else:
        print(markdown(result, command), end="")


def report(
    run: RunName = None,
    to: Annotated[Path | None, typer.Option("--out", help="The file; by default report.html in the folder.")] = None,
) -> None:
    """Write a run's report again, from its trials."""
    from hybrid_nas.front import Front
    from hybrid_nas.proposal import distinct, drawn
    from hybrid_nas.recipe import Recipe
    from hybrid_nas.run_folder import Run

    if to is not None and (to.is_dir() or not to.parent.is_dir()):
        raise ValueError(f"--out {to}: must be a file in a folder that exists")
    folder = Run.of(run)
    trials, file = folder.trials(), folder.study_file()
    result = Front.of(trials, file.objectives)
    recipe = Recipe.of(trials, file.objectives, result, drawn(file), distinct(file))
    path = folder.write_report(trials, result, recipe, folder.information(), file, to)
    out.print(str(path), highlight=False, soft_wrap=True)


def print_front(run: Run, trials: list[Trial]) -> None:
    from hybrid_nas.front import Front
    from hybrid_nas.recipe import common, describe
    from hybrid_nas.units import readable

    file = run.study_file()
    front = Front.of(trials, file.objectives)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", title_justify="left")
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column(f"layout at {file.target.name}", no_wrap=True)
    for objective in file.objectives:
        table.add_column(objective.name, no_wrap=True)
    table.add_column("n", justify="right")
    table.add_column("", no_wrap=True)
    members = sorted(front.members, key=lambda m: file.objectives[-1].loss(m.value(file.objectives[-1].name)))
    for member in members:
        cells = []
        for objective in file.objectives:
            estimate = member.estimates.get(objective.name)
            if estimate is None:
                cells.append(readable(member.value(objective.name), objective.unit))
            else:
                half = "" if estimate.high is None else f" ± {estimate.high - estimate.mean:.4f}"
                if objective.unit == "accuracy" and estimate.high is not None:  # not the same on both sides
                    cells.append(f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]")
                    continue
                cells.append(f"{estimate.mean:.4f}{half}")
        marks = [name for name, key in (("knee", front.knee),) if key == member.key and not front.knee_is_end]
        table.add_row(str(member.number), member.layout, *cells, str(len(member.seeds)), ", ".join(marks))
    print_table(table)
    if front.mode and members:
        out.print(front.mode, style="dim", markup=False, highlight=False)
    for origin in front.origins:
        out.print(origin, style="dim", markup=False, highlight=False)
    if front.unlearned and members:
        out.print(front.unlearned, style="yellow", markup=False, highlight=False)
    alike = common(trial.design for trial in trials)
    for member in members:
        out.print(f"{member.number:>5}  {describe(member.design, alike)}", style="dim", markup=False, highlight=False)
    if alike:
        out.print(f"  all  {describe(alike)}, where it applies", style="dim", markup=False, highlight=False)
