"""A Proposal: a design made concrete at a study's two scales, with its cost, before anything is trained."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hybrid_nas.architecture import Architecture
from hybrid_nas.cost import Cost
from hybrid_nas.design import Design, Refused
from hybrid_nas.objective import QUANTITIES
from hybrid_nas.units import readable

if TYPE_CHECKING:
    from hybrid_nas.study_file import StudyFile


DRAWN = 300
LISTED = 1_000


@dataclass(frozen=True)
class Proposal:
    """`key` is equal for designs that are one model at both scales; they are one proposal."""

    design: Design
    proxy: Architecture
    target: Architecture
    cost: Cost

    @property
    def key(self) -> str:
        return f"{self.proxy.id}-{self.target.id}"

    @classmethod
    def of(cls, design: Design, study: StudyFile) -> Proposal:
        """Refused, with the reason, if `design` cannot be built at both scales or breaks a constraint."""
        target = design.at(study.target)
        costs = study.cost(target)
        for constraint in study.constraints:
            if constraint.excess(costs) > 0:
                bound = readable(constraint.maximum, QUANTITIES[constraint.name].unit)
                raise Refused(f"{constraint.name} is above the constraint of {bound}")
        return cls(design, design.at(study.proxy), target, costs)


def distinct(study: StudyFile) -> int:
    """How many different designs the study allows; of more than a thousand as spelled, at most so many."""
    size = study.space.size()
    if size > LISTED:
        return size
    keys = set()
    for design in study.space.enumerate():
        with contextlib.suppress(Refused):
            keys.add(Proposal.of(design, study).key)
    return len(keys)


def drawn(study: StudyFile, number: int = DRAWN) -> list[Proposal]:
    """Designs of the space without those that are refused: all of a small space, else random ones from seed 0."""
    rng = random.Random(0)
    small = study.space.size() <= number
    proposals = []
    for design in study.space.enumerate() if small else (study.space.draw(rng) for _ in range(number)):
        with contextlib.suppress(Refused):
            proposals.append(Proposal.of(design, study))
    return proposals
