"""`export` and `import`: from a design to what a trainer loads, and back."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hybrid_nas.commands.terminal import AsJson, Set, folder_at, out

Model = Annotated[
    str | None,
    typer.Argument(metavar="[MODEL]", help="RUN#TRIAL, a design file, a training's folder, or a published model."),
]
Layout = Annotated[str | None, typer.Option(help="In place of MODEL: a letter a layer, like MMMAMMH.")]
ScaleName = Annotated[
    str | None, typer.Option("--scale", help="Build the design at this scale; default: the model's own, the target.")
]


def export(
    model: Model = None,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="hybrid, granite, falcon-h1, megatron, ...")] = "",
    folder: Annotated[Path | None, typer.Option("--out", help="An empty or new folder for the files.")] = None,
    layout: Layout = None,
    scale: ScaleName = None,
    settings: Set = None,
    nearest: Annotated[
        bool, typer.Option("--nearest", help="Where the format cannot hold the design, take the nearest it can.")
    ] = False,
    weights: Annotated[
        bool, typer.Option("--weights", help="Write weights too (safetensors): a training's, else initial ones.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the initial weights.", min=0)] = 0,
    context: Annotated[int | None, typer.Option(help="Tokens; default: the model's.", min=1)] = None,
    tensor_parallel: Annotated[int, typer.Option(help="Megatron-LM's tensor parallelism.", min=1)] = 1,
    pipeline: Annotated[int, typer.Option(help="Megatron-LM's pipeline stages.", min=1)] = 1,
    as_json: AsJson = False,
) -> None:
    """Write what a trainer loads for a design, or say why a format cannot hold it."""
    from hybrid_nas.cost import cost
    from hybrid_nas.design_file import NAME
    from hybrid_nas.export import megatron
    from hybrid_nas.export.format import CannotHold
    from hybrid_nas.export.formats import FORMATS, WRITTEN
    from hybrid_nas.export.serving import serving
    from hybrid_nas.model_source import find_model

    if to not in FORMATS:
        raise ValueError(f"--to: {_no_format(to, [format.name for format in WRITTEN])}")
    if folder is None:
        raise ValueError("--out: a folder for the files must stand here")
    if folder_at(folder).exists() and any(folder.iterdir()):
        raise ValueError(f"--out: {folder} is not empty; give a new folder")
    format = FORMATS[to]
    if to == "megatron":
        format = replace(format, write=partial(megatron.write, tensor_parallel=tensor_parallel, pipeline=pipeline))
    elif (tensor_parallel, pipeline) != (1, 1):
        raise ValueError("--tensor-parallel and --pipeline are Megatron-LM's; a configuration does not say them")
    if weights and format.weights is None:
        raise ValueError(f"--weights: {to} has no place for weights; it is a training recipe")
    source = find_model(model, layout, scale, tuple(settings or ()))
    architecture, published = source.architecture, source.notes
    changes: tuple[str, ...] = ()
    try:
        format.check(architecture)
    except CannotHold as refusal:
        if not nearest or refusal.nearest is None:
            raise
        architecture, changes = refusal.nearest, refusal.changes
        source = replace(source, architecture=architecture, design=None, notes=(*source.notes, *changes))
    tokens = context or source.context
    files = {**format.write(architecture, tokens), NAME: replace(source, context=tokens).file().to_json()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    written = list(files)
    if weights:
        from hybrid_nas.export.weights import save
        from hybrid_nas.model import build
        from hybrid_nas.trainer import trained

        drawn = source.training is None or bool(changes)
        model_ = build(architecture, generator=seed) if drawn or source.training is None else trained(source.training)
        written.append(save(format, model_, folder).name)
    params, extra = cost(architecture, tokens).params, format.extra_params(architecture)
    statements = serving(to, architecture)
    if as_json:
        data = {
            "format": to,
            "class": format.title,
            "files": [str(folder / name) for name in written],
            "layout": architecture.layout,
            "architecture": architecture.id,
            "params": params,
            "extra_params": extra,
            "changes": list(changes),
            "folded": list(format.folds(architecture)),
            "differs": list(published),
            "serving": [{"engine": s.engine, "able": s.able, "why": s.why} for s in statements],
        }
        print(json.dumps(data))
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("model", f"{source.name}: {architecture.layout}")
    table.add_row("format", format.title)
    table.add_row("parameters", f"{params + sum(extra.values()):,}{_difference(extra)}")
    for note in published:
        table.add_row("differs", note)
    for change in changes:
        table.add_row("changed", change)
    for fold in format.folds(architecture):
        table.add_row("folded", fold)
    for statement in statements:
        table.add_row("served by", str(statement))
    for name in written:
        table.add_row("file", str(folder / name))
    out.print(table, highlight=False, soft_wrap=True)


def _no_format(to: str, known: Collection[str]) -> str:
    """What must stand in --to."""
    close = difflib.get_close_matches(to.lower(), known, n=1, cutoff=0.6)
    found = f"{to!r} is no format" if to else "a format must stand here"
    return f"{found}; {f'did you mean {close[0]!r}? ' if close else ''}formats: {', '.join(known)}"


def _difference(extra: dict[str, int]) -> str:
    """How the parameters of the trainer's class differ from `cost`, by name, layers of one kind together."""
    if not extra:
        return ", as cost counts them"
    total = sum(extra.values())
    first = next(iter(extra))
    more = f" and {len(extra) - 1} like it" if len(extra) > 1 else ""
    return f", {abs(total):,} {'more' if total > 0 else 'fewer'} than cost counts ({first}{more})"


def import_(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="config.json, or an argument file of Megatron-LM.")],
    file: Annotated[Path | None, typer.Option("--out", help="The design file to write; default: print it.")] = None,
    name: Annotated[str | None, typer.Option(help="A name for the model; default: the configuration's folder.")] = None,
) -> None:
    """Read a trainer's or published model's configuration into a design file."""
    from hybrid_nas.cost import cost
    from hybrid_nas.design_file import DesignFile
    from hybrid_nas.export.format import CannotRead
    from hybrid_nas.export.formats import read_file
    from hybrid_nas.model_source import scale_free
    from hybrid_nas.units import readable

    try:
        format, imported = read_file(config)
    except CannotRead as error:
        raise ValueError(f"{config}: {error}") from None
    design, left_out = scale_free(imported.architecture, imported.context)
    title = name or config.resolve().parent.name or config.stem
    found = DesignFile(title, imported.architecture, imported.context, design, str(config), imported.notes)
    if file is None:
        print(found.to_json(), end="")
        return
    file.write_text(found.to_json())
    price = cost(imported.architecture, imported.context)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("format", format.title)
    table.add_row("layout", imported.architecture.layout)
    table.add_row("parameters", f"{readable(price.params, 'parameters')} ({price.params:,})")
    table.add_row("cache", f"{readable(price.cache_bytes, 'bytes')} at {imported.context:,} tokens")
    for note in imported.notes:
        table.add_row("differs", note)
    for note in left_out:
        table.add_row("design without", note)
    table.add_row("file", str(file))
    out.print(table, highlight=False, soft_wrap=True)
