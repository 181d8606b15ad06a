"""Designs that a search begins with: each as the space holds it, or else the nearest that the space holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log2
from typing import Any

from hybrid_nas.architecture import Architecture, Attention, Mamba2, ParallelHybrid
from hybrid_nas.census import Census
from hybrid_nas.design import Design, Refused
from hybrid_nas.proposal import Proposal
from hybrid_nas.study_file import StudyFile

CELLS = 120
"""Layouts of different depths are compared at this many points of the depth."""


@dataclass(frozen=True)
class Seed:
    """`exact` where the space holds the design itself; `same` names an earlier seed that is the same model."""

    name: str
    proposal: Proposal
    exact: bool
    same: str | None = None

    def __str__(self) -> str:
        layout = self.proposal.target.layout
        said = f"seed {self.name}: {layout}" + ("" if self.exact else ", the nearest that the space holds")
        return said + ("" if self.same is None else f"; the same model as seed {self.same}, trained once")


def seeds_of(designs: Mapping[str, Design], file: StudyFile, census: Census) -> tuple[Seed, ...]:
    """The seeds by name, in order. ValueError where a design cannot be built at the target scale."""
    first: dict[str, str] = {}
    found = []
    for name, design in designs.items():
        seed = _seed(name, design, file, census)
        known = first.setdefault(seed.proposal.key, name)
        found.append(seed if known == name else replace(seed, same=known))
    return tuple(found)


def _seed(name: str, design: Design, file: StudyFile, census: Census) -> Seed:
    if file.space.allows(design):
        try:
            return Seed(name, Proposal.of(design, file), True)
        except Refused:
            pass  # the space spells it and the scales refuse it: then a near one
    try:
        wanted = design.at(file.target)
    except Refused as reason:
        raise ValueError(f"{name} cannot be built at {file.target.name}: {reason}") from None
    near = min(census.proposals.values(), key=lambda proposal: distance(wanted, proposal.target))
    return Seed(name, near, near.target == wanted)


def distance(one: Architecture, other: Architecture) -> float:
    """How far two models are apart. Most counts how much of the depth each kind of layer takes (1 for a kind that only
    one of them has, so a hybrid is never nearest to a pure stack), then the share of the depth at which the kinds
    differ, and a tenth of the difference in each dimension that both have, in doublings."""
    far = sum(_kind(one, i) != _kind(other, i) for i in range(CELLS)) / CELLS
    far += sum(1.0 if (x == 0) != (y == 0) else 2 * abs(x - y) for x, y in _shares(one.layout, other.layout))
    a, b = _dimensions(one), _dimensions(other)
    return far + sum(0.1 * abs(a[name] - b[name]) for name in a.keys() & b.keys())


def _shares(one: str, other: str) -> list[tuple[float, float]]:
    """The share of the depth that each kind takes in either."""
    return [(one.count(kind) / len(one), other.count(kind) / len(other)) for kind in sorted({*one, *other})]


def _kind(architecture: Architecture, cell: int) -> str:
    return architecture.layout[cell * architecture.depth // CELLS]


def _dimensions(architecture: Architecture) -> dict[str, float]:
    """By logarithm where a doubling is what counts; the last layer of each kind speaks for it."""
    found: dict[str, float] = {}
    for block in architecture.blocks:
        mixer: Any = block.mixer
        for part in (mixer.attention, mixer.mamba) if isinstance(mixer, ParallelHybrid) else (mixer,):
            if isinstance(part, Mamba2):
                found |= {"d_state": log2(part.d_state), "head_dim": log2(part.head_dim)}
            elif isinstance(part, Attention):
                found["kv_heads"] = log2(part.kv_heads / part.heads)
                found["position"] = 5.0 * (part.rope_theta is None)
                found["window"] = 5.0 * (part.window is not None)
    return found
