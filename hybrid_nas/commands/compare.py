"""`compare`: runs beside each other."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hybrid_nas.commands.terminal import AsJson, out, print_table


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Two run folders or more.")],
    page: Annotated[
        Path | None, typer.Option("--html", help="Where the page is written; default: compare.html, none with --json.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Two spaces or two budgets on one picture, and how alike they order the designs they share."""
    from hybrid_nas.comparison import Comparison
    from hybrid_nas.comparison_page import comparison_page, statement
    from hybrid_nas.run_folder import Run
    from hybrid_nas.units import count, duration

    folders = [Run.of(name) for name in runs]
    if len({folder.path.resolve() for folder in folders}) < max(2, len(folders)):
        raise ValueError("compare: give two different run folders or more")
    files = [folder.study_file() for folder in folders]
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder.path) for folder in folders]
    texts = {name: folder.text(file) for name, folder, file in zip(names, folders, files, strict=True)}
    compared = Comparison.of(
        [
            (name, file.target.name, folder.trials(), file.objectives)
            for name, folder, file in zip(names, folders, files, strict=True)
        ],
        texts,
    )
    if page is None and not as_json:
        page = Path("compare.html")
    if page is not None:
        partial = page.with_name(f".{page.name}.{os.getpid()}")
        partial.write_text(comparison_page(compared), encoding="utf-8")
        os.replace(partial, page)
    if as_json:
        print(json.dumps({**compared.to_dict(), "page": None if page is None else str(page)}))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("run", "target", "designs", "trainings", "tokens a design", "training time", "front", "dominated"):
        table.add_column(name, justify="left" if name in ("run", "target") else "right")
    for side in compared.sides:
        members, trained = str(len(side.front.members)), (str(side.trained), str(side.trainings))
        spent = count(side.budget), duration(side.seconds)
        table.add_row(side.name, side.target, *trained, *spent, members, f"{side.share:.1%}")
    print_table(table)
    out.print(compared.basis, style="dim", highlight=False)
    for one in compared.agreements:
        out.print(f"{one.first} and {one.second}, {statement(one)}", highlight=False, soft_wrap=True)
    for text in compared.unlike:
        out.print(text, style="yellow", highlight=False, soft_wrap=True)
    out.print(f"\n{page}: the picture", highlight=False)
