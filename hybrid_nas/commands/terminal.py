"""What every command shares: where it prints, and the options that several take."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

out = Console()
err = Console(stderr=True)
INTERRUPTED = 130

Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key; may be repeated.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunName = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="A run folder; the latest under runs/ if left out.")
]
