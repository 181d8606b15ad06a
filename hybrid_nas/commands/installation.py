"""`spaces`, `schema`, `doctor`: what this installation holds."""

from __future__ import annotations

import json

import typer
from rich.markup import escape
from rich.table import Table

from hybrid_nas.commands.terminal import AsJson, out, print_table
from hybrid_nas.shipped import shipped


def spaces(as_json: AsJson = False) -> None:
    """List the shipped search spaces, with their sizes."""
    from hybrid_nas.study_file import open_study

    rows = []
    for name, path in shipped().items():
        file = open_study(path)
        rows.append({"name": name, "designs": file.space.size(), "target": file.target.name, "path": str(path)})
    if as_json:
        print(json.dumps(rows))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("space", "designs", "target", "file"):
        table.add_column(heading, justify="right" if heading == "designs" else "left")
    for row in rows:
        table.add_row(str(row["name"]), f"{row['designs']:,}", str(row["target"]), str(row["path"]))
    print_table(table)


def schema() -> None:
    """Print the JSON Schema of a study file, for editors."""
    from hybrid_nas.schema import study_schema

    print(json.dumps(study_schema(), indent=2))


def doctor(as_json: AsJson = False) -> None:
    """What is installed, which implementation would run, and what to do about the rest."""
    from hybrid_nas import doctor as examination

    findings = examination.examine()
    running = examination.implementations() if all(f.state != "broken" for f in findings if f.what == "torch") else {}
    if as_json:
        print(json.dumps({"findings": examination.to_dicts(findings), "implementations": running}))
    else:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for finding in findings:
            style = {"ok": "green", "missing": "yellow", "broken": "red"}[finding.state]
            table.add_row(f"[{style}]{finding.state}[/]", *map(escape, (finding.what, finding.detail, finding.advice)))
        for operation, name in running.items():
            table.add_row("[green]runs[/]", operation, name)
        out.print(table, highlight=False)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)
