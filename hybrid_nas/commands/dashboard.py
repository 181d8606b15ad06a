"""`dashboard`: a run in Optuna's dashboard, while it is searched or afterwards."""

from __future__ import annotations

import signal
import threading
import webbrowser
from typing import Annotated

import typer

from hybrid_nas.commands.terminal import RunName, err, out

LOCAL = ("127.0.0.1", "localhost", "::1")


def dashboard(
    run: RunName = None,
    host: Annotated[str, typer.Option(help="Address to serve on; the default can be reached from here alone.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8080,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="The run's storage; needed where its URL holds a password.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Serve a run in Optuna's dashboard, with a note of the front and the rules that follows the search."""
    from hybrid_nas.dashboard import serving
    from hybrid_nas.run_folder import Run

    folder = Run.of(run)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with serving(folder, host, port, storage) as address:
        if host not in LOCAL:
            err.print(f"{host} can be reached by others, and who reaches it can delete studies", style="yellow")
        out.print(f"{folder.path} at {address} (Ctrl-C ends it)", highlight=False, soft_wrap=True)
        if open_:
            webbrowser.open(address)
        stopped.wait()
