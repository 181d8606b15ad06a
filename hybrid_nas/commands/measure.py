"""`measure`: speed and memory of a design, measured on this machine's GPU or predicted for a named device."""

from __future__ import annotations

import json
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
    context: Annotated[str | None, typer.Option(help="Tokens of decoding and prefill; default: the scale's.")] = None,
    batch: Annotated[int, typer.Option(help="Sequences of decoding and prefill.", min=1)] = 4,
    train_batch: Annotated[int, typer.Option(help="Sequences of a training step, of as many tokens.", min=1)] = 1,
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
    from hybrid_nas.section import context_of
    from hybrid_nas.speed import Load

    ratio = ":" in design and all(part.isdecimal() for part in design.split(":"))
    if ratio or set(design.upper()) <= set(LETTERS):
        layout, given = (None, design) if ratio else (design, None)
        _, model, _, tokens = asked(layout, given, scale or DEFAULT_SCALE, context, settings or (), "measure")
    else:
        found = find_model(design, None, scale, tuple(settings or ()))
        model = found.architecture
        tokens = found.context if context is None else context_of(context)
    load = Load(batch, tokens, train_batch, tokens)
    if device is not None:
        values = predicted(model, load, device_of(device))
    else:
        values = measured(model, load, layers, whole)
    if as_json:
        print(json.dumps(values))
        return
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
