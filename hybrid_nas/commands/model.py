"""`cost`: what one model costs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from hybrid_nas.commands.terminal import AsJson, Set, out
from hybrid_nas.yaml_file import Item, nearest, set_key

if TYPE_CHECKING:
    from hybrid_nas.architecture import Architecture
    from hybrid_nas.design import Design
    from hybrid_nas.scale import Scale

LETTERS_OF = {
    "placement": "", "mixer": "M", "d_state": "MH13G", "head_dim": "MH3", "kv_heads": "ASH", "position": "ASH",
    "window": "S", "sinks": "S", **dict.fromkeys(("ffn", "experts", "experts_active"), "ASMH13G"),
}  # fmt: skip
"""Key -> the letters of a layout that it means something to; the parallel hybrid's own keys mean H."""


def cost(
    named: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="RUN#TRIAL, a design file, or a published model's name.")
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="A letter a layer: A attention, S sliding window, M Mamba-2, H both in parallel, 1 Mamba-1, "
            "3 Mamba-3, G gated DeltaNet."
        ),
    ] = None,
    ratio: Annotated[
        str | None,
        typer.Option(
            help="attention:Mamba, like 1:5 (parallel:Mamba with --set family=intra); the depth follows from the scale."
        ),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            help="A scale: paper-100m, paper-350m, paper-1b, paper-3b, proxy; default: paper-1b, or MODEL's own."
        ),
    ] = None,
    context: Annotated[str | None, typer.Option(help="Tokens, like 8192 or 32k; default: the scale's.")] = None,
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """What a model costs, by arithmetic: parameters, FLOPs, cache."""
    from hybrid_nas.cost import cost as cost_of
    from hybrid_nas.model_source import find_model
    from hybrid_nas.paper import budget_miss, printed_layers
    from hybrid_nas.section import context_of
    from hybrid_nas.units import readable

    if layout == "" or ratio == "":
        raise ValueError("--layout or --ratio is empty; write the letters, like MMMAMMM, or a ratio, like 1:5")
    printed, miss = None, None
    differs: tuple[str, ...] = ()
    if named is not None:
        if layout or ratio or settings:
            raise ValueError(f"{named} is a model by itself; --layout, --ratio and --set spell another")
        source = find_model(named, None, scale)
        differs = source.notes
        model, where = source.architecture, scale or source.name
        tokens = source.context if context is None else context_of(context)
    elif (layout is None) == (ratio is None):
        raise ValueError("give --layout (MMMAMMM) or --ratio (1:5), one of the two, or a MODEL by name")
    else:
        design, model, sized, tokens = asked(layout, ratio, scale or "paper-1b", context, settings or (), "cost")
        where = sized.name
        printed = None if layout else printed_layers(design, where)
        miss = None if printed is None or printed == model.depth else budget_miss(design, sized, printed)
    result = cost_of(model, tokens)
    if as_json:
        more = {
            "scale": where,
            "architecture": model.id,
            "paper_layers": printed,
            "paper_layers_budget_miss": miss,
            "differs": differs,
        }
        print(json.dumps({**result.to_dict(), **more}))
        return
    active, body = result.params_active, result.params_nonembedding
    rows = (
        ("layout", result.layout),
        ("layers", str(result.layers) + ("" if printed is None else f" (the paper: {_compared(printed, miss)})")),
        ("parameters", f"{readable(result.params, 'parameters')} ({result.params:,})"),
        (
            "  without embedding",
            f"{readable(result.params_nonembedding, 'parameters')} ({result.params_nonembedding:,})",
        ),
        *([("  of which active", f"{readable(active, 'parameters')} ({active:,})")] if active < body else []),
        ("training", readable(result.train_flops_per_token, "FLOP/token")),
        ("decoding", readable(result.decode_flops_per_token, "FLOP/token")),
        ("  bytes read", readable(result.decode_bytes_per_token, "bytes/token")),
        ("cache of a sequence", readable(result.cache_bytes, "bytes")),
        ("  keys and values", readable(result.kv_bytes, "bytes")),
        ("  state", readable(result.state_bytes, "bytes")),
        *(("differs", note) for note in differs),
    )
    out.print(f"{where}, context {result.context:,}, bfloat16", style="dim", highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    out.print(table, highlight=False)


def _compared(printed: int, miss: float | None) -> str:
    """The layers that the paper prints, and where they are not ours by how much they miss the budget."""
    return f"{printed}" if miss is None else f"{printed}, which misses the parameter budget by {miss:+.1%}"


def asked(
    layout: str | None, ratio: str | None, scale: str, context: str | None, settings: Iterable[str], command: str
) -> tuple[Design, Architecture, Scale, int]:
    """The design that the options of `command` spell, its model at the scale, and the context in tokens."""
    from hybrid_nas.model_source import built
    from hybrid_nas.options import KEYS
    from hybrid_nas.parts import read_by
    from hybrid_nas.placement import read_layout
    from hybrid_nas.questions import LAYOUT
    from hybrid_nas.scale import SCALES
    from hybrid_nas.section import context_of
    from hybrid_nas.space_file import read_space

    if scale not in SCALES:
        raise ValueError(f"--scale: unknown scale {scale!r}; {nearest(scale, SCALES)}")
    sized = SCALES[scale]
    root = Item({}, "--set", None)
    for assignment in settings:
        root = set_key(root, assignment)
    known = [key for key in KEYS if key not in ("ratio", LAYOUT)]
    entries = root.keys(known if layout else ["family", *known], f"--set of {command}")
    for key, item in entries.items():
        if isinstance(item.value, list) and key != "placement":
            raise item.error(f"{key}: one value must stand here, found a list")
    if layout is None:
        entries["ratio"] = Item(ratio, "--ratio", None, ratio or "")
        design = read_space(command, entries, root).build(lambda name, options: options[0])
        model = design.at(sized)
    else:
        letters_of_layout = set(read_layout(layout))
        for key, item in entries.items():
            letters = LETTERS_OF.get(key, "H")
            if not set(letters) & letters_of_layout:
                needs = f"needs one of the letters {letters}" if letters else "is what the layout itself says"
                raise item.error(f"{key} means nothing for the layout {layout}: it {needs}")
        answers = {key: KEYS[key].parse(item) for key, item in entries.items()}
        read = read_by(letters_of_layout, str(answers["mixer"]) if "mixer" in answers else None)
        for key in ({"d_state", "head_dim"} - read) & entries.keys():
            raise entries[key].error(f"{key} means nothing here: mixer {answers['mixer']} does not read it")
        for key in {"experts", "experts_active"} & entries.keys():
            if answers.get("ffn") != "moe":
                raise entries[key].error(f"{key} means nothing here: it needs ffn=moe")
        design, model = built(layout, entries, sized)
    tokens = sized.context if context is None else context_of(context)
    return design, model, sized, tokens
