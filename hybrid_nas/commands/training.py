"""`train` and `confirm`: the runs before a design is handed over."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from hybrid_nas.commands.handover import Layout, Model, ScaleName
from hybrid_nas.commands.terminal import INTERRUPTED, AsJson, RunName, Set, err, folder_at, out

if TYPE_CHECKING:
    from hybrid_nas.budget import Budget
    from hybrid_nas.model_source import Source
    from hybrid_nas.trainer import Logged, Parallel

RUNS = Path("runs")


def train(
    model: Model = None,
    tokens: Annotated[str, typer.Option(metavar="TOKENS", help="Tokens to train on, like 20M.")] = "",
    layout: Layout = None,
    scale: ScaleName = None,
    settings: Set = None,
    batch: Annotated[int | None, typer.Option(help="Sequences a step, over all processes.", min=1)] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of a sequence; default: the model's.", min=2)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate; default: by the width.")] = None,
    data: Annotated[str | None, typer.Option(help="A text file, a folder, .jsonl, .parquet or .npz of ids.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and batches.", min=0)] = 0,
    parallel: Annotated[str, typer.Option(help="Under torchrun: ddp or fsdp.")] = "ddp",
    every: Annotated[int, typer.Option("--checkpoint-every", help="Steps between checkpoints.", min=1)] = 500,
    folder: Annotated[Path | None, typer.Option("--out", help="Folder of the run; default: under runs/.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of a process on a CPU; a search's worker has 1.", min=1)] = 1,
) -> None:
    """Train one model plainly, with checkpoints; the same command continues. Under torchrun, on several devices."""
    from hybrid_nas.model_source import find_model
    from hybrid_nas.section import count_of
    from hybrid_nas.yaml_file import Item

    if not tokens:
        raise ValueError("--tokens: how many to train on must stand here, like 20M")
    if parallel not in ("ddp", "fsdp"):
        raise ValueError(f"--parallel: ddp or fsdp, found {parallel!r}")
    source = find_model(model, layout, scale, tuple(settings or ()))
    budget, corpus = _budget(model, count_of(Item(tokens, "--tokens", None, tokens), "tokens"))
    changes: dict[str, Any] = {"batch": batch, "learning_rate": learning_rate}
    budget = replace(budget, **{name: value for name, value in changes.items() if value is not None})
    if data is not None:
        corpus = {"path": str(Path(data).expanduser().resolve())}
    length = context or source.context
    if (step := budget.batch * length) > budget.tokens:
        raise ValueError(
            f"--tokens: {budget.tokens:,} are less than one step, {budget.batch} sequences of {length:,} tokens, which "
            f"is {step:,}; write --tokens {step} or more, or a smaller --batch or --context"
        )
    _train(source, budget, corpus, length, seed, folder, every, "fsdp" if parallel == "fsdp" else "ddp", threads)


def _budget(model: str | None, tokens: int) -> tuple[Budget, dict[str, Any] | None]:
    """That of the trial's study, with other tokens; for a model of no study, text alone."""
    from hybrid_nas.budget import Budget
    from hybrid_nas.run_folder import Run

    if model is None or "#" not in model:
        return Budget(tokens=tokens, recall_share=0.0), None
    file = Run.of(model.rpartition("#")[0] or None).study_file()
    return replace(file.budget, tokens=tokens), file.data


def _train(
    source: Source,
    budget: Budget,
    corpus: dict[str, Any] | None,
    context: int,
    seed: int,
    folder: Path | None,
    every: int,
    parallel: Parallel,
    threads: int,
) -> None:
    import torch

    from hybrid_nas.cost import cost
    from hybrid_nas.trainer import Recipe, Trainer, placed

    torch.set_num_threads(threads)
    recipe = Recipe.on_text(source.architecture, corpus, context=context, budget=budget, seed=seed)
    where = folder_at(folder or RUNS / f"train-{recipe.architecture.id}-{budget.tokens}-{seed}")
    with placed() as place:
        trainer = Trainer(recipe, where, place, parallel)
        if place.first:
            params = cost(recipe.architecture, context).params
            on = f" of {threads} thread{'s' * (threads > 1)} (--threads)" if place.device.type == "cpu" else ""
            out.print(
                f"{source.name}: {recipe.architecture.layout}, {params:,} parameters with an embedding of "
                f"{recipe.architecture.vocab:,} symbols; "
                f"{trainer.proxy.steps:,} steps of {budget.batch} x {context} tokens on {place.world} "
                f"{place.device.type} process{'es' if place.world > 1 else ''}{on}; "
                f"data: {trainer.proxy.text.described}",
                highlight=False,
                soft_wrap=True,
            )
            if begun := trainer.checkpoints():
                out.print(f"continues at step {int(begun[-1].stem):,} of {trainer.proxy.steps:,}", highlight=False)
        said = max(1, trainer.proxy.steps // 20)
        try:
            for row in trainer.run(every):
                if place.first and (row.held_out is not None or row.step % said == 0):
                    held_out = "" if row.held_out is None else f"  held out {row.held_out:.4f}"
                    line = f"step {row.step:>7,}  loss {row.loss:.4f}{held_out}  {row.seconds:.0f} s"
                    out.print(line, highlight=False)
        except KeyboardInterrupt:
            if place.first:
                kept = trainer.checkpoints()
                where_from = f"step {int(kept[-1].stem):,}, the last checkpoint" if kept else "the beginning"
                err.print(f"interrupted; the same command continues from {where_from}", highlight=False)
            raise typer.Exit(INTERRUPTED) from None
        if place.first:
            _draw(where / "loss.svg", trainer.log(), source.name)
            files = f"log.jsonl, loss.svg, checkpoints/{trainer.step}.pt"
            out.print(f"{where}: {files}", highlight=False, soft_wrap=True)


def _draw(path: Path, rows: list[Logged], name: str) -> None:
    """The loss curve: training loss in at most 400 means, and every held-out loss."""
    from hybrid_nas.pictures import curve_svg
    from hybrid_nas.trial import Point

    size = max(1, len(rows) // 400)
    points = []
    for at in range(0, len(rows), size):
        part = rows[at : at + size]
        points.append(Point(part[-1].tokens, sum(row.loss for row in part) / len(part)))
    points += [Point(row.tokens, row.held_out, True) for row in rows if row.held_out is not None]
    path.write_text(curve_svg(points, name))


def confirm(
    run: RunName = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            metavar="TOKENS",
            help="Tokens of one training (equal compute: of the design that has the most); default: four times the "
            "study's.",
        ),
    ] = None,
    also: Annotated[
        int | None,
        typer.Option(help="How many of the best designs off the front to train too; default: up to six in all.", min=0),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each design.", min=1)] = 1,
    workers: Annotated[int | None, typer.Option(help="Trainings at a time; default: one a core.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Train a run's front again at a larger budget, and say how far the ranking held."""
    from hybrid_nas.confirm import budget_of, spent
    from hybrid_nas.confirm import confirm as retrain
    from hybrid_nas.processes import ProcessPool
    from hybrid_nas.rank import MIN_ITEMS
    from hybrid_nas.run_folder import Run
    from hybrid_nas.section import count_of
    from hybrid_nas.workers import default_workers
    from hybrid_nas.yaml_file import Item

    folder = Run.of(run)
    file, trials = folder.study_file(), folder.trials()
    wanted = None if tokens is None else count_of(Item(tokens, "--tokens", None, tokens), "tokens")
    budget = budget_of(file, trials, wanted)
    with ProcessPool(workers or default_workers(), log=folder.path / "confirm.log") as pool:
        result = retrain(
            file,
            trials,
            folder.path / "confirm_trainings.json",
            budget,
            also,
            seeds,
            pool,
            (lambda text: None) if as_json else (lambda text: out.print(text, style="dim", highlight=False)),
        )
    text = json.dumps(result.to_dict(), indent=2) + "\n"
    (folder.path / "confirm.json").write_text(text)
    if as_json:
        print(text, end="")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    equal = budget.flops is None
    for heading in ("trial", f"layout at {file.target.name}", f"{result.quantity} at {spent(result.before)}"):
        table.add_column(heading, no_wrap=True)
    table.add_column(f"at {spent(result.after)} (n)", no_wrap=True)
    if not equal:
        table.add_column("tokens of each", no_wrap=True)
    table.add_column("")
    for row in sorted(result.rows, key=lambda row: row.before):
        after = "failed" if row.mean is None else f"{row.mean:.4f} ({len(row.after)})"
        cells = [str(row.number), row.layout, f"{row.before:.4f} ({row.seeds_before})", after]
        cells += [] if equal else [f"{row.tokens_before:,} -> {row.tokens:,}"]
        table.add_row(*cells, "" if row.member else "off the front")
    out.print(table)
    if result.tau is None:
        out.print("Fewer than two designs have an order, so nothing can be said of the ranking.")
    else:
        out.print(f"Kendall's tau between the two orders: {result.tau}", highlight=False)
        if result.tau.low is None:
            out.print(f"An interval needs {MIN_ITEMS} designs or more; --also trains others.", style="dim")
