"""Evidence: what the trials say of one choice in one quantity, and whether that is enough to act on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from hybrid_nas.effects import Effects
from hybrid_nas.pair_effects import (
    OptionEffect,
    PairEffect,
    more_is_better,
    option_effects,
    pair_effects,
    questioned_pairs,
    split_pairs,
    trials_to_model,
    unit_of,
)
from hybrid_nas.reach import SEEDS, Reach
from hybrid_nas.simple_effects import MIN_TRAININGS
from hybrid_nas.trial import Trial
from hybrid_nas.units import bare, counted, listed, readable

TOLD = 3  # pairs that a sentence names for an option of another choice


@dataclass(frozen=True)
class Evidence:
    """`kept` are the options that none is shown to beat, `beaten` those that some other is shown to, and `thin` those
    with too few trainings to be in a claim. `worth` is the largest decided difference, 0 where nothing is decided;
    `bound` is the largest difference that the intervals leave open between kept options. `trials_to_model` is how many
    more search trials a model of the choice needs, where there is no estimate for want of designs; `ended` says why
    there are no further designs to try, where that is what an answer would take.
    """

    choice: str
    quantity: str
    unit: str
    options: tuple[OptionEffect, ...]
    pairs: tuple[PairEffect, ...]
    kept: tuple[str, ...]
    beaten: tuple[str, ...]
    thin: tuple[str, ...]
    worth: float
    bound: float | None
    statement: str
    trials_to_model: int | None = None
    ended: str = ""

    @property
    def decided(self) -> bool:
        return bool(self.beaten)

    @property
    def conditional(self) -> tuple[str, ...]:
        """The choices at whose options, and only there, a difference is decided."""
        found = [p.split.other for p in self.pairs if p.conditional and p.split]
        return tuple(dict.fromkeys(found))

    @property
    def depends_on(self) -> tuple[str, ...]:
        """The choices over which some difference varies by more than its mean."""
        return tuple(dict.fromkeys(p.split.other for p in self.pairs if p.split and len(p.split.parts) > 1))

    @property
    def says(self) -> bool:
        """Whether anything is decided, at large or where another choice has some option."""
        return self.decided or bool(self.conditional)

    @property
    def at_most(self) -> float:
        """The largest difference that is decided somewhere."""
        parts = [part for p in self.pairs if p.split for part in p.split.parts if part.clear]
        return max([self.worth, *(abs(part.difference) for part in parts)])

    @property
    def more_trials(self) -> int | None:
        """How many more search trials would decide the clearest pair of kept options; None where none is in reach."""
        open_ = [p for p in self.pairs if _open(p, self.kept)]
        return min((p.more_trials for p in open_ if p.more_trials is not None), default=None)

    @property
    def more_trainings(self) -> int | None:
        """How many more trainings of the space's designs would, where it has too few designs left."""
        open_ = [p for p in self.pairs if _open(p, self.kept)]
        found = min((p.more_trainings for p in open_ if p.more_trainings is not None), default=None)
        return found if self.more_trials is None else None

    @property
    def more_is_better(self) -> bool:
        return more_is_better(self.quantity)

    def to_dict(self) -> dict[str, Any]:
        data = asdict(self)
        del data["choice"], data["quantity"]
        more = {"more_trials": self.more_trials, "more_trainings": self.more_trainings}
        return {**data, "decided": self.decided, "conditional": list(self.conditional), **more}

    @classmethod
    def of(
        cls,
        choice: str,
        quantity: str,
        effects: Effects,
        trials: Iterable[Trial],
        questioned: bool = False,
        reach: Reach | None = None,
    ) -> Evidence:
        """`reach` says how many designs there still are. `questioned`: look for what a decided difference rests on, by
        a fit without each option of the others."""
        unit = unit_of(quantity)
        sign = -1.0 if more_is_better(quantity) else 1.0
        trials = list(trials)
        options = effects.choices[choice]
        counts = effects.counts(choice)
        reach = Reach.of(trials) if reach is None else reach
        pairs = pair_effects(effects, choice, options, counts, sign, reach)
        to_model = trials_to_model(effects, choice, reach.searched) if not pairs else None
        if questioned:
            pairs = questioned_pairs(effects, choice, pairs, sign)
            pairs = tuple(replace(pair, decided=pair.decided and not pair.rests_on) for pair in pairs)
            pairs = split_pairs(effects, choice, pairs, sign, unit)
        beaten = tuple(option for option in options if any(p.worse == option and p.decided for p in pairs))
        thin = tuple(option for option in options if counts[option] < MIN_TRAININGS)
        kept = tuple(option for option in options if option not in beaten and option not in thin)
        evidence = cls(
            choice=choice,
            quantity=quantity,
            unit=unit,
            options=option_effects(effects, choice, options, counts, trials),
            pairs=pairs,
            kept=kept,
            beaten=beaten,
            thin=thin,
            worth=max((p.least for p in pairs if p.decided), default=0.0),
            bound=max((p.high for p in pairs if _open(p, kept)), default=None),
            statement="",
            trials_to_model=reach.split(to_model)[0],
            ended=reach.ended if reach.split(to_model)[1] or any(pair.more_trainings for pair in pairs) else "",
        )
        return cls(**{**evidence.__dict__, "statement": _statement(evidence)})


def _open(pair: PairEffect, kept: tuple[str, ...]) -> bool:
    """Whether more evidence of the same kind could decide the pair."""
    return not pair.decided and not pair.rests_on and not pair.split and {pair.better, pair.worse} <= set(kept)


def _resting(evidence: Evidence) -> list[str]:
    """A sentence for each option of another choice in whose designs alone differences are there."""
    unit = evidence.unit
    found: dict[str, list[str]] = {}
    for p in sorted(evidence.pairs, key=lambda p: -p.difference):
        if p.rests_on and not p.split:
            found.setdefault(p.rests_on, []).append(
                f"{p.better} over {p.worse} by {readable(p.difference, unit)} [{bare(p.low, unit)}, "
                f"{bare(p.high, unit)}] (n = {p.n}, by {p.method}; without them {bare(p.without or 0.0, unit, True)})"
            )
    return [f"Not decided, resting on designs with {rest}: {'; '.join(told)}." for rest, told in found.items()]


def _depending(evidence: Evidence) -> list[str]:
    """For each choice that pairs depend on, the pairs at each of its options."""
    told = []
    for other in dict.fromkeys(p.split.other for p in evidence.pairs if p.split and not p.split.agreed):
        split = [p for p in evidence.pairs if p.split and p.split.other == other and not p.split.agreed]
        clear: dict[str, list[tuple[float, str]]] = {}
        for p in split:
            for part in p.split.parts if p.split else ():
                found = clear.setdefault(part.option, [])
                if part.clear:
                    ends = (p.better, p.worse) if part.difference > 0 else (p.worse, p.better)
                    low, high = (part.low, part.high) if part.difference > 0 else (-part.high, -part.low)
                    found.append(
                        (
                            abs(part.difference),
                            f"{' over '.join(ends)} by {_figure(abs(part.difference), low, high, evidence.unit)}",
                        )
                    )
        names = listed(dict.fromkeys(option for p in split for option in (p.better, p.worse)))
        thin = {part.option for p in split for part in (p.split.parts if p.split else ()) if part.thin}
        at: dict[str, list[str]] = {}
        for option, found in clear.items():
            best = [text for _, text in sorted(found, reverse=True)]
            more = f" and {len(best) - TOLD} more" if len(best) > TOLD else ""
            at.setdefault(
                ", ".join(best[:TOLD]) + more
                if best
                else "too few trainings"
                if option in thin
                else "nothing is clear",
                [],
            ).append(option)
        told.append(f"No single figure holds between {names}, it depends on {other}: {_cases(at)}.")
    return told


def _cases(at: dict[str, list[str]]) -> str:
    """What is found, and at which options."""
    return "; ".join(f"with {listed(options)} {found}" for found, options in at.items())


def _figure(value: float, low: float, high: float, unit: str) -> str:
    return f"{readable(value, unit)} [{bare(low, unit)}, {bare(high, unit)}]"


def _beats(pair: PairEffect, unit: str) -> str:
    if pair.split is None:
        found = _figure(pair.difference, pair.low, pair.high, unit)
    else:
        at = [f"{_figure(part.difference, part.low, part.high, unit)} with {part.option}" for part in pair.split.parts]
        lead = f"an amount that depends on {pair.split.other}, " if len(at) > 1 else ""
        found = f"{lead}{listed(at)}" + ("" if lead else f", the only {pair.split.other} that was tried there")
    return f"{pair.better} beats {pair.worse} by {found} (n = {pair.n}, by {pair.method})"


def _statement(evidence: Evidence) -> str:
    """One or two sentences; options that are not told apart are named in a fixed order, never by their estimates."""
    if not evidence.pairs:
        if evidence.ended:
            return f"Undecided: too few designs to estimate anything, and {evidence.ended}."
        if (more := evidence.trials_to_model) is None:
            return (
                "Undecided: in these designs it comes together with other choices, or makes no difference at the proxy "
                "scale."
            )
        return f"Undecided: too few designs to estimate anything; about {counted(more, 'more trial')} would be enough."
    parts = []
    for option in evidence.beaten:
        best = max((p for p in evidence.pairs if p.worse == option and p.decided), key=lambda p: p.difference)
        parts.append(_beats(best, evidence.unit))
    sentences = ["; ".join(parts) + "."] if parts else []
    sentences += _depending(evidence) + _resting(evidence)
    open_ = [p for p in evidence.pairs if _open(p, evidence.kept)]
    if evidence.bound is not None:
        names = listed(option for option in evidence.kept if any(option in (p.better, p.worse) for p in open_))
        lead = f"Between {names}: undecided" if sentences else f"Undecided between {names}"
        sentences.append(f"{lead}; a difference of up to {readable(evidence.bound, evidence.unit)} is possible.")
        if (more := evidence.more_trials) is not None:
            sentences.append(
                f"About {counted(more, 'more trial')} would decide the clearest pair, if it is as estimated."
            )
        elif (trainings := evidence.more_trainings) is not None:
            sentences.append(
                f"About {counted(trainings, 'more training')} would decide the clearest pair, if it is as estimated "
                f"and noise is what hides it: {evidence.ended}, so they would be {SEEDS}."
            )
        else:
            sentences.append("If the differences are as small as estimated, no affordable number of trials shows them.")
    if evidence.thin:
        verb = "has" if len(evidence.thin) == 1 else "have"
        sentences.append(f"{listed(evidence.thin)} {verb} fewer than {MIN_TRAININGS} trainings, too few for a claim.")
    return " ".join(sentences)
