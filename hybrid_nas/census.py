"""A census of a space before its search: which designs can be built, which are one model, which are refused and why."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from hybrid_nas.design import Design, Refused
from hybrid_nas.objective import QUANTITIES
from hybrid_nas.proposal import Proposal
from hybrid_nas.study_file import StudyFile
from hybrid_nas.units import counted, readable
from hybrid_nas.yaml_file import FileError

COUNTED = 10_000
DRAWN = 1_000


@dataclass(frozen=True)
class Census:
    """`proposals` are the distinct ones by `key`, in the space's order; all of them if `complete`, else a sample.
    `refused`: why -> how many designs, `instances`: why -> the first of them."""

    proposals: dict[str, Proposal]
    refused: Counter[str]
    looked_at: int
    complete: bool
    instances: Mapping[str, Design] = field(default_factory=dict)

    @property
    def coincide(self) -> int:
        """How many proposals share their proxy with an earlier one, and so are told apart by cost alone."""
        return len(self.proposals) - len({proposal.proxy.id for proposal in self.proposals.values()})

    @classmethod
    def of(cls, study: StudyFile) -> Census:
        """Look at every design of a space of up to 10,000, at 1,000 draws of a larger one."""
        designs: Iterable[Design]
        complete = study.space.size() <= COUNTED
        if complete:
            designs = study.space.enumerate()
        else:
            rng = random.Random(study.search.seed)
            designs = (study.space.draw(rng) for _ in range(DRAWN))
        proposals: dict[str, Proposal] = {}
        refused: Counter[str] = Counter()
        instances: dict[str, Design] = {}
        looked_at = 0
        for design in islice(designs, COUNTED):
            looked_at += 1
            try:
                proposal = Proposal.of(design, study)
            except Refused as reason:
                refused[str(reason)] += 1
                instances.setdefault(str(reason), design)
            else:
                proposals.setdefault(proposal.key, proposal)
        return cls(proposals, refused, looked_at, complete, instances)

    def reasons(self, most: int = 3) -> list[str]:
        """Why designs are refused, a line a reason, the `most` frequent ones with one of their designs."""
        lines = [
            f"refused, {count:,} of them: {reason}; one is {self.instances[reason]}"
            for reason, count in self.refused.most_common(most)
        ]
        rest = len(self.refused) - len(lines)
        return lines + ([f"refused for {rest:,} further reasons: see the report"] if rest else [])

    def checked(self, study: StudyFile, source: str) -> Census:
        """Itself, or FileError, at the key that is most often the reason, if the space allows nothing."""
        if not self.proposals:
            reason, often = self.refused.most_common(1)[0]
            key = next((key for key in reversed(list(study.places)) if key.rpartition(".")[2] in reason), None)
            raise FileError(
                source,
                study.places.get(key or "ratio", study.places.get("placement")),
                f"the space allows nothing: {counted(self.looked_at, 'design')} refused, {often:,} because {reason}"
                + (_least(study, key) if key else ""),
            )
        return self

    def ends(self, study: StudyFile) -> list[Proposal]:
        """The cheapest and the dearest proposal by each efficiency objective: known before any training."""
        ends: dict[str, Proposal] = {}
        for objective in study.objectives:
            if objective.trained:
                continue
            cost_of = {key: objective.loss(p.cost.value(objective.name)) for key, p in self.proposals.items()}
            order = [self.proposals[key] for key in sorted(sorted(cost_of), key=cost_of.__getitem__)]
            for proposal in (order[0], order[-1]):
                ends.setdefault(proposal.key, proposal)
        return list(ends.values())


def _least(study: StudyFile, key: str) -> str:
    """What the constraint named by `key` would have to allow."""
    name = key.removeprefix("constraints.")
    if name == key:
        return ""
    others = tuple(constraint for constraint in study.constraints if constraint.name != name)
    proposals = Census.of(replace(study, constraints=others)).proposals.values()
    least = min((proposal.cost.value(name) for proposal in proposals), default=None)
    unit = QUANTITIES[name].unit
    return "" if least is None else f"; the least of any design here is {least:,.0f} ({readable(least, unit)})"
