"""Confirm: train the designs of a front again at a larger budget, and say how far their order held."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hybrid_nas.budget import YEAR_S, Budget
from hybrid_nas.candidate import Candidate
from hybrid_nas.front import Front
from hybrid_nas.rank import MIN_ITEMS, Correlation, kendall
from hybrid_nas.study_file import StudyFile
from hybrid_nas.trial import Trial
from hybrid_nas.whole_file import write_whole
from hybrid_nas.workers import Died, Done, Moved, Note, Pool, Report

TICK_S = 0.5


@dataclass(frozen=True)
class Row:
    """One design: the trained quantity at the study's budget (mean over `seeds_before` seeds) and at the larger one
    (mean over the seeds in `after`; failures are left out and named), and its own tokens of a training at both."""

    number: int
    layout: str
    member: bool
    before: float
    seeds_before: int
    after: dict[int, float]
    failures: tuple[str, ...]
    tokens_before: int
    tokens: int

    @property
    def mean(self) -> float | None:
        return math.fsum(self.after.values()) / len(self.after) if self.after else None


@dataclass(frozen=True)
class Confirmation:
    """`before` and `after` are the budgets of the two trainings. `tau` is Kendall's between the order before and after
    over `rows`, None where there are fewer than two values or no order among them."""

    quantity: str
    before: Budget
    after: Budget
    rows: tuple[Row, ...]
    tau: Correlation | None

    @classmethod
    def of(cls, quantity: str, before: Budget, after: Budget, rows: tuple[Row, ...]) -> Confirmation:
        pairs = [(row.before, row.mean) for row in rows if row.mean is not None]
        tau = kendall([x for x, _ in pairs], [y for _, y in pairs]) if len(pairs) > 1 else None
        return cls(quantity, before, after, rows, tau)

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": 1,
            "quantity": self.quantity,
            "tokens_before": max(row.tokens_before for row in self.rows),
            "tokens": max(row.tokens for row in self.rows),
            "flops_before": self.before.flops,
            "flops": self.after.flops,
            "kendall_tau": None if self.tau is None else self.tau.to_dict(),
            "designs": [{**asdict(row), "mean": row.mean} for row in self.rows],
        }


def chosen(front: Front, also: int | None) -> list[Candidate]:
    """The members of the front, and the best `also` other designs in its first objective; None: as many as an interval
    of the rank correlation needs."""
    first = front.objectives[0]
    others = sorted(
        (c for c in front.candidates if not c.member), key=lambda c: (first.loss(c.value(first.name)), c.number)
    )
    return [*front.members, *others[: max(0, MIN_ITEMS - len(front.members)) if also is None else also]]


def budget_of(file: StudyFile, trials: list[Trial], tokens: int | None) -> Budget:
    """The larger budget: `tokens` for every design, or at equal compute the FLOPs that give the design which trains on
    the most so many, and each other its own. None: four times the study's. ValueError where it is no larger."""
    study, context = file.budget, file.proxy.context
    complete = [trial for trial in trials if trial.state == "complete"]
    most = max((study.of(trial.proxy, context).trained(context) for trial in complete), default=study.tokens)
    wanted = 4 * most if tokens is None else tokens
    if wanted <= most:
        raise ValueError(f"--tokens: more than the {most:,} of the study's trainings confirm it, found {wanted:,}")
    if study.flops is None:
        larger = replace(study, tokens=wanted, rungs=())
    else:
        larger = replace(study, flops=study.flops * wanted / most, rungs=())
    if (years := larger.least_seconds(file.proxy.params, context) / YEAR_S) > 1:
        raise ValueError(f"--tokens: one training of {wanted:.3g} tokens takes {years:,.1f} years or more")
    return larger


def confirm(
    file: StudyFile,
    trials: list[Trial],
    path: Path,
    budget: Budget,
    also: int | None,
    seeds: int,
    pool: Pool,
    said: Callable[[str], None],
) -> Confirmation:
    """Train each chosen design with `budget` at `seeds` seeds on the pool's workers, at the study's proxy scale.

    Every outcome is written to `path` as it comes, and one that is there already is not trained again. Designs that
    are one model at the proxy scale share a training.
    """
    front = Front.of(trials, file.objectives)
    if not front.candidates:
        raise ValueError("no trial is complete, so there is no front to confirm")
    quantity = next(objective.name for objective in front.objectives if objective.trained)
    candidates = chosen(front, also)
    proxies = {trial.key: trial.proxy for trial in trials}
    context = file.proxy.context
    own = {key: replace(budget.of(proxy, context), flops=None) for key, proxy in proxies.items()}
    known: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}
    wanted = {
        f"{proxies[c.key].id}/{seed}/{own[c.key].tokens}": (proxies[c.key], seed, own[c.key])
        for c in candidates
        for seed in range(file.search.seed, file.search.seed + seeds)
    }
    waiting = [name for name in wanted if name not in known]
    said(f"{len(candidates)} designs, {len(waiting)} trainings of {spent(budget)}; {len(wanted) - len(waiting)} known")
    running: dict[int, str] = {}
    next_job = 0
    while waiting or running:
        while waiting and pool.free:
            name = waiting.pop(0)
            proxy, seed, of_its_own = wanted[name]
            running[next_job] = name
            pool.submit(
                next_job,
                {
                    "architecture": proxy.to_dict(),
                    "context": context,
                    "budget": of_its_own.to_dict(),
                    "data": file.data or {},
                    "seed": seed,
                },
            )
            next_job += 1
        for event in pool.events(TICK_S):
            match event:
                case Report():
                    pool.answer(event.job, True) if event.validation else None
                case Done():
                    name = running.pop(event.job)
                    outcome = event.outcome
                    known[name] = {"values": outcome["values"], "failure": outcome["failure"]}
                    _write(path, known)
                    value = outcome["values"].get(quantity)
                    said(f"{wanted[name][0].layout}, seed {wanted[name][1]}: "
                         + (outcome["failure"] or f"{quantity} {value:.4f}"))  # fmt: skip
                case Moved() | Note() as note:
                    said(note.reason if isinstance(note, Moved) else note.text)
                case Died():
                    name = running.pop(event.job)
                    known[name] = {"values": {}, "failure": event.reason}
                    _write(path, known)
                    said(f"{wanted[name][0].layout}: {event.reason}")
    rows = tuple(
        _row(
            candidate,
            quantity,
            proxies[candidate.key].id,
            known,
            own[candidate.key],
            file.budget.of(proxies[candidate.key], context).trained(context),
            own[candidate.key].trained(context),
        )
        for candidate in candidates
    )
    return Confirmation.of(quantity, file.budget, budget, rows)


def spent(budget: Budget) -> str:
    """What a training spends, in words."""
    return f"{budget.tokens:,} tokens" if budget.flops is None else f"{budget.flops:.3g} FLOPs"


def _row(
    candidate: Candidate,
    quantity: str,
    proxy: str,
    known: dict[str, dict[str, Any]],
    budget: Budget,
    before: int,
    tokens: int,
) -> Row:
    after: dict[int, float] = {}
    failures = []
    for name, outcome in known.items():
        of, seed, asked = name.split("/")
        if (of, int(asked)) == (proxy, budget.tokens):
            if quantity in outcome["values"]:
                after[int(seed)] = outcome["values"][quantity]
            else:
                failures.append(f"seed {seed}: {outcome['failure']}")
    estimate = candidate.estimates[quantity]
    return Row(
        candidate.number,
        candidate.layout,
        candidate.member,
        estimate.mean,
        estimate.n,
        after,
        tuple(failures),
        before,
        tokens,
    )


def _write(path: Path, known: dict[str, Any]) -> None:
    write_whole(path, json.dumps(known, indent=1) + "\n")
