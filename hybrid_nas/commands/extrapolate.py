"""`extrapolate`: losses at the target's size and tokens, by laws fitted to trainings at several proxy scales."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from hybrid_nas.commands.terminal import AsJson, err, out, print_table

if TYPE_CHECKING:
    from hybrid_nas.extrapolated import Extrapolation
    from hybrid_nas.extrapolation import Forecast
    from hybrid_nas.likeness import Source

CHECKED = ("largest, measured", "foretold from the others [95%]")
SUFFIXES = (".csv", ".parquet")


def extrapolate(
    tables: Annotated[
        list[Path],
        typer.Argument(metavar="TABLE...", help="Files of trials at several proxy scales, or their folders."),
    ],
    params: Annotated[
        str | None, typer.Option(help="Non-embedding parameters, like 1b; default: each design's own at its target.")
    ] = None,
    tokens: Annotated[str | None, typer.Option(help="Tokens, like 60b; default: the paper's 60b.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Only trainings with that, like batch=8; may be repeated."),
    ] = None,
    marks: Annotated[
        bool, typer.Option("--marks", help="Fit the held-out losses before the cool-down, in place of the last.")
    ] = False,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Write the forecasts there too, as .csv or .parquet.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Foretell each design's loss at the target by a law in size and tokens, with intervals, and check the laws on the
    largest scale left out. A design needs two proxy scales or more, and a third for the check: `table` with --set
    proxy.width=32 --set proxy.params=250k, and --like for the same designs."""
    from hybrid_nas.extrapolated import extrapolate as extrapolated
    from hybrid_nas.extrapolated_text import statements
    from hybrid_nas.likeness import check, picked

    at = {name: _count(name, text) for name, text in (("params", params), ("tokens", tokens))}
    if out_file is not None:
        _check_out(out_file)
    sources = picked(_read(tables), setting or [])
    check(sources)
    trials = [trial for source in sources for trial in source.trials]
    with err.status("fitting the laws"):
        found = extrapolated(trials, at["params"], at["tokens"], marks)
    said = statements(found)
    if sources[0].setting is None:
        said.insert(0, f"{sources[0].name} does not say on which text it was trained: all of it is taken for one.")
    if out_file is not None:
        _write(found, out_file)
    if as_json:
        written = None if out_file is None else str(out_file)
        print(json.dumps({**found.to_dict(), "says": said, "out": written}))
        return
    _print(found, said)
    if out_file is not None:
        out.print(f"{out_file}: the forecasts", highlight=False, markup=False)


def _count(name: str, text: str | None) -> int | None:
    from hybrid_nas.section import count_of
    from hybrid_nas.yaml_file import Item

    if text is None:
        return None
    number = count_of(Item(text, "extrapolate", None, text), f"--{name}")
    if number < 1:
        raise ValueError(f"--{name}: must be at least 1, found {number}")
    return number


def _check_out(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise ValueError(f"--out {path}: must end in {' or '.join(SUFFIXES)}")
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"--out {path}: must be a file in a folder that exists")


def _read(paths: list[Path]) -> list[Source]:
    from hybrid_nas.likeness import Source
    from hybrid_nas.table_file import setting_in, trials_file
    from hybrid_nas.trial import read_trials

    files = [trials_file(path) for path in paths]
    if len({file.resolve() for file in files}) < len(files):
        raise ValueError("extrapolate: one file is given twice; give each once")
    return [Source(str(file), tuple(read_trials(file)), setting_in(file)) for file in files]


def _rows(found: Extrapolation) -> list[dict[str, Any]]:
    """One a design, the lowest loss first and those without a forecast last."""
    columns = ("id", "layout", "target_params", "target_tokens", "loss", "low", "high", "trainings")
    rows = []
    for one in found.ranked:
        data = one.to_dict()
        left: dict[str, Any] = data["left_out"] or {"params": None, "tokens": None, "loss": None, "foretold": {}}
        rows.append(
            {
                **{name: data[name] for name in columns},
                **{f"left_out_{name}": left[name] for name in ("params", "tokens", "loss")},
                **{f"foretold_{name}": left["foretold"].get(name) for name in ("loss", "low", "high")},
                "design": json.dumps(data["design"], sort_keys=True),
                "why": data["unchecked"],
            }
        )
    for of, why in found.lacking:
        empty = dict.fromkeys(rows[0])
        told = {"id": of.id, "layout": of.layout, "trainings": of.trainings, "why": why}
        rows.append({**empty, **told, "design": json.dumps(of.design.to_dict(), sort_keys=True)})
    return rows


def _write(found: Extrapolation, path: Path) -> None:
    rows = _rows(found)
    if path.suffix == ".csv":
        from hybrid_nas.whole_file import write_whole

        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(path, text.getvalue())
        return
    import os

    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {**dict.fromkeys(("id", "layout", "design", "why"), pa.string()), "trainings": pa.int64()}
    columns = pa.schema([(name, kinds.get(name, pa.float64())) for name in rows[0]])
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(pa.Table.from_pylist(rows, schema=columns), partial)
    os.replace(partial, path)


def _print(found: Extrapolation, said: list[str]) -> None:
    from hybrid_nas.recipe import common, describe
    from hybrid_nas.units import count

    every = [*(one.of for one in found.designs), *(of for of, _ in found.lacking)]
    alike = common(of.design for of in every)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("design", "layout", "parameters", "tokens", "loss [95%]", "trainings", "sizes", *CHECKED):
        table.add_column(
            name, no_wrap=True, justify="right" if name in ("parameters", "tokens", "trainings") else "left"
        )
    for one in found.ranked:
        end = one.largest
        sizes = ", ".join(count(size) for size in one.of.range("params"))
        shown = ("–", "–") if end is None else (f"{end.measured.loss:.4f}", _interval(end.forecast))
        table.add_row(
            describe(one.of.design.to_dict(), alike), one.of.layout, count(one.params), count(one.tokens),
            _interval(one.forecast), str(one.of.trainings), sizes, *shown,
        )  # fmt: skip
    print_table(table)
    for of, why in found.lacking:
        text = f"no forecast: {describe(of.design.to_dict(), alike)} ({of.layout}): {why}"
        out.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if alike:
        out.print(
            f"all: {describe(alike)}, where it applies", style="dim", markup=False, highlight=False, soft_wrap=True
        )
    out.print()
    for sentence in said:
        out.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _interval(forecast: Forecast) -> str:
    """Cut at 0, below which no loss is."""
    return f"{forecast.loss:.4f} [{max(0.0, forecast.low):.4f}, {forecast.high:.4f}]"
