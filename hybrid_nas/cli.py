"""The command line: one program, its commands from `hybrid_nas.commands`, and how errors end it."""

from __future__ import annotations

import os
import re
import sys
from typing import Annotated

import typer

from hybrid_nas import __version__
from hybrid_nas.commands import answer, handover, installation, model, training
from hybrid_nas.commands.compare import compare
from hybrid_nas.commands.dashboard import dashboard
from hybrid_nas.commands.describe import describe
from hybrid_nas.commands.extrapolate import extrapolate
from hybrid_nas.commands.measure import measure
from hybrid_nas.commands.probe import probe
from hybrid_nas.commands.search import search
from hybrid_nas.commands.table import merge, table
from hybrid_nas.commands.terminal import INTERRUPTED, err

COMMANDS = (
    search,
    answer.front,
    answer.recipe,
    answer.report,
    dashboard,
    compare,
    model.cost,
    describe,
    measure,
    handover.export,
    handover.import_,
    training.train,
    training.confirm,
    table,
    merge,
    extrapolate,
    installation.spaces,
    installation.schema,
    installation.doctor,
)  # in the order of --help; a command is a plain function, its name the function's

MANY_SMALL = ("search", "front", "recipe", "report", "dashboard", "compare", "extrapolate")
"""Commands that train nothing in their own process, and whose matrices are small: a second thread only waits."""
ADDRESS = re.compile(r"local|auto|[^\s/]+:\d+|ray://.*")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Architecture search for hybrid language models: attention and Mamba-2, quality against efficiency.",
)
for command in COMMANDS:
    app.command(command.__name__.rstrip("_"))(command)
app.add_typer(probe, name="probe")


def main() -> None:
    """Run a command. What a user can get wrong ends with one line and exit code 2."""
    if sys.argv[1:2] and sys.argv[1] in MANY_SMALL:  # before numpy is imported
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        app(args=ray_here(sys.argv[1:]))
    except KeyboardInterrupt:
        err.print("hybrid-nas: stopped", highlight=False)
        sys.exit(INTERRUPTED)
    except (ValueError, OSError) as error:
        err.print(f"hybrid-nas: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


def ray_here(arguments: list[str]) -> list[str]:
    """`--ray` with no address after it means this machine.

    >>> ray_here(["search", "--ray", "space.yaml"]), ray_here(["search", "space.yaml", "--ray", "head:6379"])
    (['search', '--ray=local', 'space.yaml'], ['search', 'space.yaml', '--ray', 'head:6379'])
    """
    given = list(arguments)
    for i, argument in enumerate(given):
        follows = given[i + 1] if i + 1 < len(given) else ""
        if argument == "--ray" and not ADDRESS.fullmatch(follows):
            given[i] = "--ray=local"
    return given


def _version(asked: bool) -> None:
    if asked:
        print(f"hybrid-nas {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Architecture search for hybrid language models: attention and Mamba-2, quality against efficiency."""
