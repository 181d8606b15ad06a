"""A Trial: one row of a study, and the Parquet file that holds them all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from hybrid_nas.architecture import Architecture, canonical_json
from hybrid_nas.budget import Budget
from hybrid_nas.cost import Cost
from hybrid_nas.design import Design
from hybrid_nas.speed import SPEEDS, Load

if TYPE_CHECKING:
    import pyarrow as pa

State = Literal["complete", "stopped", "failed"]


@dataclass(frozen=True)
class Point:
    """One point of a learning curve. `validation` tells held-out loss (at a rung or the end) from training loss;
    `recall` is that of the same place, where it was measured."""

    tokens: int
    loss: float
    validation: bool = False
    recall: float | None = None

    def to_dict(self) -> dict[str, Any]:
        data = asdict(self)
        if self.recall is None:
            del data["recall"]
        return data


@dataclass(frozen=True)
class Trial:
    """One design, trained once (or told apart by cost alone from one that was), at one seed.

    `state`: complete; stopped (dominated at a rung, so its `loss` is that of the rung in `curve`, and `values` holds
    no trained quantity); failed, with the reason in `failure`. `values` holds the trained quantities (`loss`,
    `recall`); `cost` those of the target scale. `shared_with` is the number of the trial whose training this one
    shares because both are one model at the proxy scale. `replicate_of` is the number of the search trial that this
    one repeats at another seed.
    """

    number: int
    state: State
    design: Design
    proxy: Architecture
    target: Architecture
    cost: Cost
    budget: Budget
    seed: int
    values: dict[str, float] = field(default_factory=dict)
    curve: tuple[Point, ...] = ()
    failure: str | None = None
    shared_with: int | None = None
    replicate_of: int | None = None
    implementations: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"
    seconds: float = 0.0
    tokens: int = 0

    @property
    def layout(self) -> str:
        return self.target.layout

    @cached_property
    def key(self) -> str:
        """Equal for equal models at both scales: what makes two trials one design."""
        return f"{self.proxy.id}-{self.target.id}"

    def value(self, name: str) -> float | None:
        """A trained quantity or a cost by name; None where this trial has none."""
        if name in self.values:
            return self.values[name]
        return self.cost.value(name) if self.cost.has(name) else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "state": self.state,
            "layout": self.layout,
            "design": self.design.to_dict(),
            "proxy": self.proxy.to_dict(),
            "target": self.target.to_dict(),
            "cost": self.cost.to_dict(),
            "budget": self.budget.to_dict(),
            "seed": self.seed,
            "values": self.values,
            "curve": [point.to_dict() for point in self.curve],
            "failure": self.failure,
            "shared_with": self.shared_with,
            "replicate_of": self.replicate_of,
            "implementations": self.implementations,
            "device": self.device,
            "seconds": self.seconds,
            "tokens": self.tokens,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Trial:
        values = {name: value for name, value in data.items() if name != "layout"}
        return cls(
            **{
                **values,
                "design": Design.from_dict(data["design"]),
                "proxy": Architecture.from_dict(data["proxy"]),
                "target": Architecture.from_dict(data["target"]),
                "cost": Cost.from_dict(data["cost"]),
                "budget": Budget.from_dict(data["budget"]),
                "curve": tuple(Point(**point) for point in data["curve"]),
            }
        )

    def with_changes(self, **changes: Any) -> Trial:
        return replace(self, **changes)


SPEED_ORIGIN = {"speed_source": "source", "speed_device": "device"}
SPEED_LOAD = {f"speed_{field.name}": field.name for field in fields(Load)}
LATER_COLUMNS = ("params_active", "scores", *SPEEDS, *SPEED_ORIGIN, *SPEED_LOAD)
"""That files of earlier versions lack."""
COLUMN_VALUES = ("loss", "recall")
"""Trained quantities with a column of their own; the others are JSON in `scores`."""
JSON_COLUMNS = ("design", "proxy", "target", "budget", "implementations")


def schema() -> pa.Schema:
    """The columns of trials.parquet. Nested descriptions are canonical JSON; quantities are columns of their own."""
    import pyarrow as pa

    point = pa.struct(
        [("tokens", pa.int64()), ("loss", pa.float64()), ("validation", pa.bool_()), ("recall", pa.float64())]
    )
    return pa.schema(
        [
            pa.field("number", pa.int64(), nullable=False),
            pa.field("state", pa.string(), nullable=False),
            pa.field("layout", pa.string(), nullable=False),
            pa.field("proxy_id", pa.string(), nullable=False),
            pa.field("target_id", pa.string(), nullable=False),
            pa.field("seed", pa.int64(), nullable=False),
            pa.field("loss", pa.float64()),
            pa.field("recall", pa.float64()),
            pa.field("layers", pa.int64(), nullable=False),
            pa.field("context", pa.int64(), nullable=False),
            pa.field("params", pa.int64(), nullable=False),
            pa.field("params_nonembedding", pa.int64(), nullable=False),
            pa.field("params_active", pa.int64(), nullable=False),
            pa.field("train_flops_per_token", pa.float64(), nullable=False),
            pa.field("decode_flops_per_token", pa.float64(), nullable=False),
            pa.field("decode_bytes_per_token", pa.int64(), nullable=False),
            pa.field("cache_bytes", pa.int64(), nullable=False),
            pa.field("kv_bytes", pa.int64(), nullable=False),
            pa.field("state_bytes", pa.int64(), nullable=False),
            *(pa.field(name, pa.float64()) for name in SPEEDS),
            *(pa.field(name, pa.string()) for name in SPEED_ORIGIN),
            *(pa.field(name, pa.int64()) for name in SPEED_LOAD),
            pa.field("curve", pa.list_(point), nullable=False),
            pa.field("failure", pa.string()),
            pa.field("shared_with", pa.int64()),
            pa.field("replicate_of", pa.int64()),
            pa.field("device", pa.string(), nullable=False),
            pa.field("seconds", pa.float64(), nullable=False),
            pa.field("tokens", pa.int64(), nullable=False),
            pa.field("scores", pa.string()),
            *(pa.field(name, pa.string(), nullable=False) for name in JSON_COLUMNS),
        ]
    )


def _row(trial: Trial) -> dict[str, Any]:
    data = trial.to_dict()
    row = {**data, **data["cost"], "proxy_id": trial.proxy.id, "target_id": trial.target.id}
    row.update({name: trial.values.get(name) for name in COLUMN_VALUES})
    scores = {name: value for name, value in trial.values.items() if name not in COLUMN_VALUES}
    row["scores"] = canonical_json(scores) if scores else None
    speed = data["cost"].get("speed") or {}
    row.update({name: speed.get(name) for name in SPEEDS})
    row.update({column: speed.get(name) for column, name in SPEED_ORIGIN.items()})
    load = speed.get("load") or {}
    row.update({column: load.get(name) for column, name in SPEED_LOAD.items()})
    row.update({name: canonical_json(data[name]) for name in JSON_COLUMNS})
    return row


def write_trials(trials: Iterable[Trial], path: Path, metadata: dict[bytes, bytes] | None = None) -> None:
    """Write trials.parquet whole or not at all: a reader never sees half a file. `metadata` goes into the file's."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = schema()
    rows = [{name: row[name] for name in columns.names} for row in map(_row, trials)]
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    table = pa.Table.from_pylist(rows, schema=columns).replace_schema_metadata(metadata)
    pq.write_table(table, partial, compression="zstd")
    os.replace(partial, path)


def read_trials(path: Path) -> list[Trial]:
    """Inverse of `write_trials`. ValueError names the file, the column or row, and what is wrong with it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable Parquet file ({str(error)[:200]})") from error
    columns = {}
    for field_ in schema():
        if field_.name not in table.column_names:
            if field_.name in LATER_COLUMNS:
                continue
            raise ValueError(f"{path}: column {field_.name!r} is missing; not a trials.parquet of this version")
        found = table[field_.name]
        try:
            columns[field_.name] = found.cast(field_.type)
        except (pa.ArrowException, ValueError) as error:
            raise ValueError(f"{path}: column {field_.name!r} must be {field_.type}, found {found.type}") from error
        if found.null_count and not field_.nullable:
            raise ValueError(f"{path}: column {field_.name!r} has {found.null_count} empty cells and may have none")
    trials = []
    for at, row in enumerate(pa.table(columns).to_pylist()):
        try:
            trials.append(_from_row(row))
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            what = f"{type(error).__name__}: {str(error)[:200]}"
            raise ValueError(f"{path}: row {at} (trial {row['number']}) is no trial: {what}") from error
    return trials


def _from_row(row: dict[str, Any]) -> Trial:
    if row["state"] not in get_args(State):
        raise ValueError(f"state must be one of {', '.join(get_args(State))}, found {row['state'][:60]!r}")
    if any(None in (point["tokens"], point["loss"], point["validation"]) for point in row["curve"]):
        raise ValueError("a point of its curve has no tokens, loss or validation")
    data = {**row, **{name: json.loads(row[name]) for name in JSON_COLUMNS}}
    ran = data["implementations"]
    if not isinstance(ran, dict) or not all(isinstance(name, str) for name in ran.values()):
        raise ValueError(f"implementations must map operations to names, found {str(ran)[:60]}")
    cost = {name: row[name] for name in Cost.__dataclass_fields__ if name in row}
    if row.get("speed_source") is not None:
        cost["speed"] = {name: row[name] for name in SPEEDS}
        cost["speed"] |= {name: row[column] for column, name in SPEED_ORIGIN.items()}
        load = {name: row.get(column) for column, name in SPEED_LOAD.items()}
        cost["speed"]["load"] = None if None in load.values() else load
    values = {name: row[name] for name in COLUMN_VALUES if row[name] is not None}
    values |= json.loads(row.get("scores") or "{}")
    if not all(isinstance(value, float | int) for value in values.values()):
        raise ValueError(f"scores must map names to numbers, found {str(row['scores'])[:60]}")
    kept = {name: data[name] for name in Trial.__dataclass_fields__ if name in data}
    return Trial.from_dict({**kept, "cost": cost, "values": values})
