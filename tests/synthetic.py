"""Trials made up by a known truth, so that tests can ask whether the answer finds it. Nothing here trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np

from hybrid_nas.architecture import Architecture, Block, Mamba2, SwiGLU
from hybrid_nas.budget import Budget
from hybrid_nas.cost import Cost, cost
from hybrid_nas.design import Design, Ratio
from hybrid_nas.front import Front
from hybrid_nas.recipe import Recipe
from hybrid_nas.scale import PAPER, PROXY
from hybrid_nas.trial import Point, State, Trial

TARGET = PAPER["paper-350m"]
BUDGET = Budget(tokens=100_000)
RATIOS = ("1:0", "1:1", "1:3", "1:5", "1:12", "0:1")


@cache
def built(design: Design) -> tuple[Architecture, Architecture, Cost]:
    target = design.at(TARGET)
    return design.at(PROXY), target, cost(target, TARGET.context)


@cache
def grid(
    ratios: tuple[str, ...] = RATIOS,
    placements: tuple[str, ...] = ("front", "middle", "end", "spread"),
    d_states: tuple[int, ...] = (16, 64, 128),
) -> tuple[Design, ...]:
    """All distinct designs of a small space."""
    return tuple(
        dict.fromkeys(
            Design(ratio=Ratio.parse(ratio), placement=placement, d_state=d_state)
            for ratio, placement, d_state in product(ratios, placements, d_states)
        )
    )


def trial(
    number: int,
    design: Design,
    loss: float | None = None,
    recall: float | None = None,
    seed: int = 0,
    state: State = "complete",
    **changes: object,
) -> Trial:
    proxy, target, price = built(design)
    values = {name: value for name, value in (("loss", loss), ("recall", recall)) if value is not None}
    row = Trial(number, state, design, proxy, target, price, BUDGET, seed, values=values)
    return replace(row, implementations={"attention": "sdpa", "ssd": "chunked"}, **changes)


def bare_trial(
    number: int,
    loss: float,
    cache_bytes: int,
    proxy: int | None = None,
    target: int | None = None,
    seed: int = 0,
    state: State = "complete",
    **changes: object,
) -> Trial:
    """A trial whose architectures are only told apart by a number; quick to make in thousands."""
    design, price = _bare()
    price = replace(price, cache_bytes=cache_bytes, **changes.pop("cost", {}))  # type: ignore[arg-type]
    made = (
        _bare_architecture(number if proxy is None else proxy),
        _bare_architecture(number if target is None else target),
    )
    values = {"loss": loss, **changes.pop("values", {})} if state == "complete" else {}  # type: ignore[dict-item]
    return Trial(number, state, design, *made, price, BUDGET, seed, values=values, **changes)


@cache
def _bare() -> tuple[Design, Cost]:
    design = Design(ratio=Ratio(0, 1))
    return design, built(design)[2]


@cache
def _bare_architecture(index: int) -> Architecture:
    return Architecture(index + 1, 256, (Block(Mamba2(2, 1, 1), SwiGLU(1)),))


def study(
    designs: Sequence[Design],
    truth: Callable[[Design], float],
    rng: np.random.Generator,
    own: float = 0.01,
    common: float = 0.0,
    misfit: float = 0.0,
    replicates: int = 2,
    recall: Callable[[Design], float] | None = None,
    replicate_all: bool = False,
) -> list[Trial]:
    """Every design once at seed 0, then members of the front at `replicates` further seeds, as a study runs.

    Loss = truth + misfit of the proxy + shift of the seed + noise of the training, normal with SDs `misfit` (of the
    design, equal at all seeds: what main effects do not explain), `common`, `own`. Recall has no noise of its own
    but a tenth of `own`'s kind.
    """
    shifts = rng.normal(0, common, replicates + 1)
    offsets: dict[str, float] = {}
    values: dict[tuple[str, int], dict[str, float]] = {}

    def train(design: Design, seed: int) -> dict[str, float]:
        proxy = built(design)[0].id
        if proxy not in offsets:
            offsets[proxy] = truth(design) + rng.normal(0, misfit)
        if (proxy, seed) not in values:
            row = {"loss": offsets[proxy] + shifts[seed] + rng.normal(0, own)}
            if recall is not None:
                row["recall"] = recall(design) + rng.normal(0, own)
            values[proxy, seed] = row
        return values[proxy, seed]

    trials = [trial(i, design, **train(design, 0), seconds=12.0) for i, design in enumerate(designs)]
    if replicates:
        front = Front.of(trials, objectives(), draws=0)
        chosen: Iterable[int] = range(len(trials)) if replicate_all else (c.number for c in front.members)
        for number in list(chosen):
            for seed in range(1, replicates + 1):
                copy = trial(len(trials), designs[number], **train(designs[number], seed), seed=seed)
                trials.append(replace(copy, replicate_of=number))
    return trials


def stopped_study(
    rng: np.random.Generator,
    designs: Sequence[Design],
    effect: Callable[[Design], float],
    shown: float = 0.8,
    own: float = 0.01,
    misfit: float = 0.005,
    alike: float = 0.7,
    dominators: int = 3,
) -> list[Trial]:
    """Trials as a search runs them: at each rung one stops that three cheaper or equal ones beat. A rung shows
    `shown` of a design's effect, and shares `alike` of the final noise. The best four are trained at two more seeds."""
    rows: list[Trial] = []
    seen: list[tuple[int, int, float]] = []
    for i, design in enumerate(designs):
        worth = effect(design) + rng.normal(0, misfit)
        noise, price = rng.normal(0, own), built(design)[2].cache_bytes
        points: list[Point] = []
        for rung, tokens in enumerate((25_000, 50_000)):
            blur = alike * noise + math.sqrt(1 - alike**2) * rng.normal(0, own)
            loss = 2 + 0.5 / (rung + 1) + shown * worth + blur
            points.append(Point(tokens, loss, validation=True))
            better = sum(r == rung and cost <= price and low < loss for cost, r, low in seen)
            seen.append((price, rung, loss))
            if better >= dominators:
                rows.append(trial(i, design, state="stopped", curve=tuple(points)))
                break
        else:
            final = 2 + worth + noise
            rows.append(trial(i, design, final, curve=(*points, Point(100_000, final, validation=True))))
    best = sorted((t for t in rows if t.state == "complete"), key=lambda t: t.values["loss"])[:4]
    for row in best:
        for seed in (1, 2):
            again = row.values["loss"] + rng.normal(0, own)
            rows.append(trial(len(rows), row.design, again, seed=seed, replicate_of=row.number))
    return rows


def objectives(*names: str) -> tuple:
    from hybrid_nas.objective import Objective

    return tuple(Objective.named(name) for name in names or ("loss", "cache_bytes"))


def curve(final: float, tokens: int = 100_000, share: float = 1.0, steps: int = 20) -> tuple[Point, ...]:
    """A falling curve that ends at `final`; validation points at a quarter, a half and the end of the budget."""
    points = []
    for step in range(1, steps + 1):
        at = step / steps
        if at > share:
            break
        loss = final + 3.0 * (1 / (1 + 12 * at) - 1 / 13)
        points.append(Point(round(at * tokens), loss + 0.03 * np.sin(9 * step) * (1 - at)))
        if at in (0.25, 0.5, 1.0):
            points.append(Point(round(at * tokens), loss, validation=True))
    return tuple(points)


RATIO = {"1:0": -0.05, "1:1": -0.04, "1:3": -0.02, "1:5": -0.01, "1:12": 0.0, "0:1": 0.03}
PLACEMENT = {"front": 0.02, "middle": 0.0, "end": 0.0, "spread": -0.02}


def truth(design: Design) -> float:
    """Additive; nothing depends on d_state."""
    return 2 + RATIO[str(design.ratio)] + PLACEMENT.get(design.placement or "", 0.0)


def recipe_of(trials, *names):
    front = Front.of(trials, objectives(*names), draws=100)
    return Recipe.of(trials, objectives(*names), front)


def rule(recipe, choice):
    return next(r for r in recipe.rules if r.choice == choice)
