"""`describe`: one design as a page."""

from __future__ import annotations

import html
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from hybrid_nas.commands.model import asked
from hybrid_nas.commands.terminal import AsJson, Set, out

if TYPE_CHECKING:
    from hybrid_nas.description import Description
    from hybrid_nas.roofline import Device

NOT_COUNTED = (
    "Training FLOPs are counted as the paper counts them, without embedding and classifier; the times below have the "
    "classifier."
)


def describe(
    design: Annotated[
        str,
        typer.Argument(
            metavar="DESIGN",
            help="A layout (MMMAMMM), a ratio (1:5), a trial (RUN#12), a design file or a published model.",
        ),
    ],
    scale: Annotated[str | None, typer.Option(help="A scale; default: paper-1b, or the run's target.")] = None,
    context: Annotated[str | None, typer.Option(help="Tokens, like 8192 or 32k; default: the scale's.")] = None,
    device: Annotated[str, typer.Option(help="A device for the roofline: h100, h200, a100, cpu.")] = "h100",
    batch: Annotated[int, typer.Option(help="Sequences at a time.", min=1)] = 1,
    page: Annotated[Path | None, typer.Option("--html", help="Write the page to this file.")] = None,
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """One design: its blocks, what each part costs, and what a device could do with it (predicted)."""
    from hybrid_nas.roofline import device as device_of

    on = device_of(device)
    title, described, more = _meant(design, scale, context, tuple(settings or ()))
    if page is not None:
        from hybrid_nas.description_page import description_page

        partial = page.with_name(f".{page.name}.{os.getpid()}")
        partial.write_text(description_page(described, on, batch, title, more), encoding="utf-8")
        os.replace(partial, page)
    if as_json:
        from dataclasses import asdict

        predicted = {name: asdict(found) for name, found in described.predictions(on, batch).items()}
        print(json.dumps({**described.to_dict(), "predicted": predicted}))
        return
    _print(described, on, batch, title)
    if page is not None:
        out.print(f"\n{page}: the page", highlight=False)


def _meant(
    design: str, scale: str | None, context: str | None, settings: tuple[str, ...]
) -> tuple[str, Description, str]:
    """Title, description, and HTML of what is known beside."""
    from hybrid_nas.description import Description
    from hybrid_nas.model_source import DEFAULT_SCALE, find_model
    from hybrid_nas.placement import LETTERS
    from hybrid_nas.section import context_of

    ratio = all(part.isdecimal() for part in design.split(":")) and ":" in design
    if ratio or set(design.upper()) <= set(LETTERS):
        layout = None if ratio else design
        _, model, sized, tokens = asked(
            layout, design if ratio else None, scale or DEFAULT_SCALE, context, settings, "describe"
        )
        return f"{design} at {sized.name}", Description.of(model, tokens), ""
    found = find_model(design, None, scale, settings)
    tokens = found.context if context is None else context_of(context)
    described = Description.of(found.architecture, tokens)
    title = found.name if scale is None else f"{found.name} at {scale}"
    return title, described, _of_trial(design) if "#" in design else ""


def _of_trial(name: str) -> str:
    """What the study knows of the trial."""
    from hybrid_nas.objective import QUANTITIES
    from hybrid_nas.pictures import curve_svg
    from hybrid_nas.recipe import describe as words
    from hybrid_nas.run_folder import Run
    from hybrid_nas.units import readable

    run, _, number = name.rpartition("#")
    folder = Run.of(run or None)
    trial = next(trial for trial in folder.trials() if trial.number == int(number))
    values = ", ".join(f"{name} {readable(value, QUANTITIES[name].unit)}" for name, value in trial.values.items())
    told = f"Trial {number}, {trial.state}: {values or trial.failure or 'no value'}; {words(trial.design.to_dict())}."
    return (
        f"<section><h2>In {html.escape(folder.name)}</h2><p>{html.escape(told)}</p>{curve_svg(trial.curve)}</section>"
    )


def _print(described: Description, device: Device, batch: int, title: str) -> None:
    from hybrid_nas.pictures import colour
    from hybrid_nas.units import count, readable

    out.print(title, style="dim", highlight=False)
    strip = Text()
    for letter in described.architecture.layout:
        strip.append(f" {letter} ", style=f"bold white on {colour(letter)}")
        strip.append(" ")
    out.print(strip if out.is_terminal else described.architecture.layout)
    cost = described.cost
    out.print(
        f"{readable(cost.params, 'parameters')} parameters, {readable(cost.cache_bytes, 'bytes')} of cache at "
        f"{cost.context:,} tokens, bfloat16\n",
        highlight=False,
    )
    rows = [[r.layers, r.letter, r.mixer, r.ffn, readable(r.params, "parameters")] for r in described.runs]
    _table(["layers", "", "mixer", "FFN", "parameters each"], rows)
    shares = [
        [
            s.name,
            readable(s.params, "parameters"),
            readable(s.train_flops_per_token, "FLOP/token") if s.train_flops_per_token else "not counted",
            readable(s.decode_flops_per_token, "FLOP/token"),
            readable(s.kv_bytes + s.state_bytes, "bytes") if s.kv_bytes + s.state_bytes else "",
        ]
        for s in described.shares
    ]
    _table(["part", "parameters", "training", "decoding", "cache"], shares)
    out.print(NOT_COUNTED + "\n", style="dim", highlight=False)
    predicted = described.predictions(device, batch)
    times = [
        [name, f"{1000 * p.seconds:.3g} ms", count(p.tokens_per_s), ", ".join(f"{q.name} {q.bound}" for q in p.parts)]
        for name, p in predicted.items()
    ]
    _table([f"on {device.name}, batch {batch}, predicted", "time", "tokens/s", "bound by"], times)


def _table(head: list[str], rows: list[list[str]]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in head:
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    out.print(table, highlight=False)
    out.print()
