"""`measure`: speed and memory of a design, measured on this machine's GPU or predicted for a named device."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from hybrid_nas.commands.model import asked
from hybrid_nas.commands.terminal import AsJson, Set, err, out

if TYPE_CHECKING:
    from hybrid_nas.architecture import Architecture
    from hybrid_nas.roofline import Device
    from hybrid_nas.speed import Load, Speed


def measure(
    design: Annotated[
        str, typer.Argument(metavar="DESIGN", help="A layout (MMMAMMM), a ratio (1:5), or as for describe.")
    ],
    scale: Annotated[str | None, typer.Option(help="A scale; default: paper-1b, or the run's target.")] = None,
    context: Annotated[
        str | None, typer.Option(help="Tokens of all that is measured; default: the run's own, or the scale's.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Sequences of decoding and prefill; default: the run's own, or 4.", min=1)
    ] = None,
    train_batch: Annotated[
        int | None, typer.Option(help="Sequences of a training step; default: the run's own, or 1.", min=1)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Predict for h100, h200, a100 or cpu, and measure nothing.")
    ] = None,
    layers: Annotated[Path | None, typer.Option(help="Parquet file that keeps the layers measured.")] = None,
    whole: Annotated[bool, typer.Option(help="Measure the whole model too, to say how wrong its layers are.")] = False,
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Decoding, prefill, training and memory: measured on this GPU layer by layer, or predicted for a named device."""
    from hybrid_nas.model_source import DEFAULT_SCALE, find_model
    from hybrid_nas.placement import LETTERS
    from hybrid_nas.roofline import device as device_of
    from hybrid_nas.roofline import unfit
    from hybrid_nas.section import context_of
    from hybrid_nas.speed import Load

    if device is not None:
        on = device_of(device)
        if given := [name for name, asked_for in (("--layers", layers), ("--whole", whole)) if asked_for]:
            raise ValueError(f"{' and '.join(given)}: --device {device} predicts and measures nothing; leave one out")
    ratio = ":" in design and all(part.isdecimal() for part in design.split(":"))
    if ratio or set(design.upper()) <= set(LETTERS):
        layout = None if ratio else design
        spelled = design if ratio else None
        _, model, _, tokens = asked(layout, spelled, scale or DEFAULT_SCALE, context, settings or (), "measure")
        base = Load(context=tokens, train_context=tokens)
    else:
        found = find_model(design, None, scale, tuple(settings or ()))
        model = found.architecture
        base = found.load or Load(context=found.context, train_context=found.context)
        if context is not None:
            base = replace(base, context=context_of(context), train_context=context_of(context))
    load = replace(base, batch=batch or base.batch, train_batch=train_batch or base.train_batch)
    values = measured(model, load, layers, whole) if device is None else predicted(model, load, on)
    said = "" if device is None else unfit(model, load, on)
    if as_json:
        print(json.dumps(values | ({"does_not_fit": said} if said else {})))
        return
    if said:
        err.print(said, style="yellow", highlight=False, soft_wrap=True)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in values.items():
        table.add_row(name, f"{value:,.4g}" if isinstance(value, float) else str(value))
    out.print(table, highlight=False)


def predicted(model: Architecture, load: Load, on: Device) -> dict[str, Any]:
    """By roofline, and saying so."""
    from hybrid_nas.roofline import predicted_speed

    return _told(model, predicted_speed(model, load, on))


def _told(model: Architecture, speed: Speed) -> dict[str, Any]:
    values = speed.to_dict()
    origin = {name: values.pop(name) for name in ("source", "device")}
    return {**origin, "layout": model.layout, **values.pop("load"), **values}


def measured(model: Architecture, load: Load, layers: Path | None, whole: bool) -> dict[str, Any]:
    """On this machine's CUDA device. ValueError where there is none."""
    import torch

    from hybrid_nas.measure import Meter, Table

    if not torch.cuda.is_available():
        raise ValueError("measure: there is no CUDA device here; --device h100 predicts what one would do")
    table = Table(layers)
    if table.others():
        err.print(table.others(), highlight=False, soft_wrap=True)
    meter = Meter(torch.device("cuda"), table)
    speed = meter.speed(model, load)
    found = _told(model, speed)
    if whole:
        seconds = meter.whole(model, load)
        found["decode_error_of_layers"] = seconds["decode"] * speed.decode_tokens_per_s / load.batch - 1
        found["prefill_error_of_layers"] = speed.prefill_s / seconds["prefill"] - 1
    return found
