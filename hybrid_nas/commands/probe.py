"""`probe`: one question to short trainings, answered without a search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from hybrid_nas.commands.terminal import INTERRUPTED, AsJson, Set, err, folder_at, out
from hybrid_nas.shipped import find

if TYPE_CHECKING:
    from hybrid_nas.layer_order import LayerOrder, LayerRun
    from hybrid_nas.mix import MixProbe

DEFAULTS = "name: probe-mix\nratio: 1:0\nproxy: {recall_share: 0, rungs: []}\n"

probe = typer.Typer(no_args_is_help=True, help="One question to short trainings, answered without a search.")


@probe.command()
def mix(
    space: Annotated[
        str | None,
        typer.Argument(help="A study file or shipped space whose proxy and data to take."),
    ] = None,
    layers: Annotated[int, typer.Option(help="Layers of the models.", min=2)] = 8,
    seeds: Annotated[int, typer.Option(help="How often everything is trained.", min=1)] = 3,
    workers: Annotated[int | None, typer.Option(help="Trainings at a time; default: one a core.", min=1)] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of the trainings; default: runs/probe-mix-IDENTITY.")
    ] = None,
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Which layers want attention? One model of parallel layers learns how much of each half every layer wants, and a
    sweep of one attention layer through a stack of Mamba-2 says whether that is where attention helps. The same command
    continues what was stopped."""
    from hybrid_nas.mix import MixProbe
    from hybrid_nas.probe_folder import run_probe
    from hybrid_nas.study_file import open_study, read_study
    from hybrid_nas.workers import default_workers

    given = tuple(settings or ())
    file = read_study(DEFAULTS, "the defaults", given) if space is None else open_study(find(space), given)
    probed = MixProbe(layers, file.proxy, file.budget, file.data)
    folder = folder_at(out_folder or Path("runs") / f"probe-mix-{probed.identity}")

    def heard(run: LayerRun, done: int, of: int) -> None:
        err.print(f"{done}/{of} {_described(run, layers)}", highlight=False)

    try:
        order = run_probe(probed, seeds, workers or default_workers(), folder, heard)
    except KeyboardInterrupt:
        err.print(f"stopped; nothing finished is lost, and the same command continues in {folder}", highlight=False)
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print(json.dumps({"probe": probed.to_dict(), "folder": str(folder), **order.to_dict()}))
        return
    _print(order, probed, folder)


def _described(run: LayerRun, layers: int) -> str:
    what = "H" * layers if run.layer is None else "M" * run.layer + "A" + "M" * (layers - run.layer - 1)
    result = f"failed: {run.failure}" if run.loss is None else f"{run.loss:.4f}"
    return f"seed {run.seed} {what} {result}, {run.seconds:.0f} s"


def _print(order: LayerOrder, probed: MixProbe, folder: Path) -> None:
    failed = [run for run in order.runs if run.failure is not None]
    for run in failed:
        out.print(_described(run, order.layers), markup=False, highlight=False)
    if not order.seeds:
        raise ValueError("probe mix: no seed has all of its trainings, so the layers cannot be ordered")
    weights, losses, wanted = order.attention(order.seeds), order.losses(order.seeds), order.wanted()
    ranks = {layer: rank for rank, layer in enumerate(wanted, 1)}
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("layer", "weight on attention", "rank", "loss with attention there alone", "rank"):
        table.add_column(name, justify="right")
    by_loss = sorted(range(order.layers), key=losses.__getitem__)
    for layer in range(order.layers):
        row = (layer + 1, f"{weights[layer]:.3f}", ranks[layer], f"{losses[layer]:.4f}", by_loss.index(layer) + 1)
        table.add_row(*map(str, row))
    out.print(table, highlight=False)
    agreement = order.agreement()
    out.print(
        f"\norder of the layers, weight against sweep: Spearman {agreement or 'undefined: one side is constant'}\n"
        f"{probed.budget.tokens:,} tokens a training, n = {len(order.seeds)} seeds; {folder}",
        highlight=False,
    )
