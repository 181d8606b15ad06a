"""Published hybrid models, from their configurations, each with its source (gallery.json)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybrid_nas.architecture import Architecture
from hybrid_nas.design import Design, Refused
from hybrid_nas.export.formats import read_config
from hybrid_nas.scale_free import design_of
from hybrid_nas.speed import PREDICTED

if TYPE_CHECKING:
    from hybrid_nas.study_file import StudyFile
    from hybrid_nas.trial import Trial

FILE = Path(__file__).parent / "gallery.json"


@dataclass(frozen=True)
class Published:
    """A published model. `notes` name all that its configuration says and `architecture` does not; `left_out` what
    `design`, which is free of scale, leaves out of it."""

    name: str
    architecture: Architecture
    context: int
    design: Design | None
    source: str
    notes: tuple[str, ...]
    left_out: tuple[str, ...]


@lru_cache
def gallery() -> dict[str, Published]:
    """Every published model by name."""
    models = {}
    for name, entry in json.loads(FILE.read_text()).items():
        _, imported = read_config(entry["config"])
        design: Design | None = None
        left_out: tuple[str, ...]
        try:
            design, left_out = _by_halves(*design_of(imported.architecture, imported.context))
        except ValueError as error:
            left_out = (str(error),)
        notes = (*entry.get("notes", ()), *imported.notes)
        models[name] = Published(
            name, imported.architecture, imported.context, design, entry["source"], notes, left_out
        )
    return models


def _by_halves(design: Design, left_out: tuple[str, ...]) -> tuple[Design, tuple[str, ...]]:
    """The design with a share of kv heads of 1/2, 1/4, ... and a head_dim that is a power of two, or else the scale's:
    what divides the dimensions of nearly every scale."""
    share = design.kv_heads
    if share is not None:
        near = Fraction(1, 2 ** round(log2(1 / share)))
        if near != share:
            design = replace(design, kv_heads=near)
            left_out = (*left_out, f"a share of kv heads of {share} becomes {near}")
    if design.head_dim is not None and design.head_dim & (design.head_dim - 1):
        left_out = (*left_out, f"a head_dim of {design.head_dim}; a design has the scale's")
        design = replace(design, head_dim=None)
    return design, left_out


@dataclass(frozen=True)
class Beside:
    """A published design beside a study's front: what it costs at the study's target, and its trained values where a
    trial of the study is the same model at the proxy scale. `refused` says why it cannot be built, `differs` in what
    this design is not the published model, a sentence each."""

    name: str
    layout: str
    values: dict[str, float]
    trial: int | None
    refused: str | None = None
    differs: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def beside(file: StudyFile, trials: list[Trial]) -> list[Beside]:
    """Every published design at the target scale of `file`. Its speeds are predicted where the trials' are; where those
    are measured it has them if a trial is the same model there, else none."""
    speeds = {trial.target.id: trial.cost.speed for trial in trials if trial.cost.speed is not None}
    measured = any(speed.source != PREDICTED for speed in speeds.values())
    trained: dict[str, Trial] = {}
    for trial in trials:
        if trial.state == "complete":
            trained.setdefault(trial.proxy.id, trial)
    rows = []
    for name, model in gallery().items():
        differs = (*model.notes, *model.left_out)
        if model.design is None:
            rows.append(Beside(name, model.architecture.layout, {}, None, "; ".join(model.left_out), differs))
            continue
        try:
            target = model.design.at(file.target)
        except Refused as reason:
            rows.append(Beside(name, model.architecture.layout, {}, None, str(reason), differs))
            continue
        price, known, refused = file.cost(target), None, None
        if measured:
            price = replace(price, speed=speeds.get(target.id))
        try:
            known = trained.get(model.design.at(file.proxy).id)
        except Refused as reason:
            refused = f"not at the proxy scale: {reason}"
        values = {} if known is None else dict(known.values)
        values |= {o.name: price.value(o.name) for o in file.objectives if not o.trained and price.has(o.name)}
        number = None if known is None else known.number
        rows.append(Beside(name, target.layout, values, number, refused, differs))
    return rows
