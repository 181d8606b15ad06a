"""What every command shares: where it prints, and the options that several take."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

out = Console()
err = Console(stderr=True)
INTERRUPTED = 130

Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key; may be repeated.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunName = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="A run folder; without it the latest under ./runs."),
]


def folder_at(path: Path) -> Path:
    """`path`, where a folder is or can be made. ValueError where a file stands in the way."""
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            where = "there" if place == path else f"on the way to {path}"
            raise ValueError(f"{place} is a file, and a folder must stand {where}; give another with --out")
    return path


@contextlib.contextmanager
def one_stop() -> Iterator[None]:
    """Ctrl-C, or SIGTERM, is KeyboardInterrupt, and only the first: what follows on it is not cut short."""

    def stop(number: int, frame: object) -> None:
        for name in before:
            signal.signal(name, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    before = {name: handler for name, handler in before.items() if handler is not signal.SIG_IGN}  # as nohup does
    for name in before:
        signal.signal(name, stop)
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def print_table(table: Table) -> None:
    """A table as wide as it is: a narrow terminal breaks its lines, and nothing is cut."""
    table.width = Measurement.get(out, out.options.update(max_width=10_000), table).maximum
    out.print(table, highlight=False, crop=False)
