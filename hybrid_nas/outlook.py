"""What more trials would decide, and the command that gets them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hybrid_nas.agreement import Finding
from hybrid_nas.evidence import Evidence
from hybrid_nas.reach import SEEDS, Reach
from hybrid_nas.units import counted, listed

AFFORDABLE = 4


@dataclass(frozen=True)
class Further:
    """With `trials` in all (`more` than there are), what is undecided now would be `decided`, if it is as estimated."""

    trials: int
    more: int
    decided: tuple[str, ...]

    @property
    def told(self) -> str:
        claims = [name.removeprefix("claim ") for name in self.decided if name.startswith("claim ")]
        rest = [name for name in self.decided if not name.startswith("claim ")]
        told = [f"claim{'s' if len(claims) > 1 else ''} {listed(claims)}"] if claims else []
        return ", ".join(told + rest)

    @property
    def sentence(self) -> str:
        return f"{counted(self.more, 'more trial')} ({self.trials:,} in all): {self.told}."

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def outlook(evidence: Sequence[Evidence], findings: Iterable[Finding], searched: int) -> tuple[Further, ...]:
    """What is in reach, fewest trials first. Numbers less than a quarter apart are one step: they are rough."""
    wanted = [(f.more_trials, f"claim {f.id}") for f in findings if f.more_trials is not None]
    wanted += [(e.more_trials, f"a pair of {e.choice} ({e.quantity})") for e in evidence if e.more_trials is not None]
    models: dict[str, int] = {}
    for one in evidence:
        if one.trials_to_model is not None:
            models[one.quantity] = max(models.get(one.quantity, 0), one.trials_to_model)
    wanted += [(more, f"first effects on {quantity}") for quantity, more in models.items()]
    steps: list[tuple[int, list[str]]] = []
    for more, what in sorted(wanted, key=lambda item: item[0]):
        if steps and more <= 1.25 * steps[-1][0]:
            steps[-1][1].append(what)
        else:
            steps.append((more, [what]))
    largest = {first: max(more for more, name in wanted if name in names) for first, names in steps}
    return tuple(Further(searched + largest[more], largest[more], tuple(names)) for more, names in steps)


def beyond(evidence: Sequence[Evidence], findings: Iterable[Finding], reach: Reach) -> str:
    """What the space has too few designs for, and the trainings that its designs would need; empty where none is."""
    wanted = [(f.more_trainings, f"claim {f.id}") for f in findings if f.more_trainings is not None]
    wanted += [(e.more_trainings, f"{e.choice} ({e.quantity})") for e in evidence if e.more_trainings is not None]
    if not wanted:
        return ""
    least, most = min(wanted)[0], max(wanted)[0]
    named = listed(name for _, name in sorted(wanted))
    trainings = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return (
        f"{reach.ended[:1].upper()}{reach.ended[1:]}. For {named} it takes {SEEDS}: about {trainings} trainings beyond "
        f"the {reach.trainings:,} there are, if noise is what hides them."
    )


def continued(command: str, trials: int) -> str:
    """The command that continues a run until it has so many trials.

    >>> continued("hybrid-nas search hybrid --seed 3 --trials 24", 60)
    'hybrid-nas search hybrid --seed 3 --trials 60'
    """
    return f"{re.sub(r' --trials[ =][^ ]+', '', command)} --trials {trials}"


def affordable(steps: tuple[Further, ...]) -> Further | None:
    """The last step with at most four times the trials there are; the first where none is so near."""
    near = [step for step in steps if step.trials <= AFFORDABLE * (step.trials - step.more)]
    return near[-1] if near else next(iter(steps), None)
