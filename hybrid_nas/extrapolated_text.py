"""What an extrapolation says in words: where it reaches, how its check went, and whether it tells designs apart."""

from __future__ import annotations

from hybrid_nas.extrapolated import Extrapolation, Score, are_apart
from hybrid_nas.extrapolation import ALIKE, LEVEL
from hybrid_nas.trained import AXES
from hybrid_nas.units import count, counted, listed

TOO_FEW = 0.05


def statements(found: Extrapolation) -> list[str]:
    """Sentences, the reach first and the verdict last."""
    said = [_losses(found), *_reach(found)]
    doubts: list[str] = []
    if found.score is None:
        why = sorted({one.unchecked for one in found.designs})
        said.append(
            f"Not checked, since of what is left without the largest: {'; '.join(why)}. A further scale or more seeds "
            "would allow it."
        )
    else:
        said.append(_check(found.score))
        if unchecked := sum(bool(one.unchecked) for one in found.designs):
            said.append(f"{counted(unchecked, 'design')} could not be checked so, for want of scales or seeds.")
        doubts = _doubts(found.score)
        if doubts:
            said.append(f"{doubts[0][0].upper()}{'; '.join(doubts)[1:]}.")
    if verdict := _verdict(found, doubts):
        said.append(verdict)
    return said


def _losses(found: Extrapolation) -> str:
    unit = f"nats per token of a vocabulary of {found.vocab:,}"
    if not found.marks:
        return f"Fitted to held-out losses at the end of trainings, {unit}."
    return (
        f"Fitted to held-out losses before the cool-down, {unit}. A cool-down would lower what is foretold; losses of "
        "one training go together, so the intervals are rather too narrow."
    )


def _reach(found: Extrapolation) -> list[str]:
    said = []
    for name, what in AXES.items():
        unit = "parameters" if name == "params" else "tokens"
        if name not in found.axes:
            at = sorted(one.of.range(name)[-1] for one in found.designs)
            told = f"{count(at[0])} {unit}"
            if count(at[-1]) != count(at[0]):
                told = f"what each was trained at ({count(at[0])} to {count(at[-1])} {unit})"
            said.append(f"One {what} was trained: the losses are those at {told}, and what more would do is not known.")
    far = [(_times(found, name), AXES[name]) for name in found.axes]
    if any(times > 1 for times, _ in far):
        said.append(
            "The target is " + listed(f"{_number(times)} times the largest {what}" for times, what in far) + " trained."
        )
    near = [(times, AXES[name]) for name in found.axes if (times := _below(found, name)) > ALIKE]
    if near:
        said.append(
            "The target is below what was trained: the smallest "
            + listed(f"{what} is {_number(times)} times the target's" for times, what in near)
            + ". The law was fitted above it and the check looks upward, so neither says what holds there."
        )
    if none := sum(one.forecast.low <= 0 for one in found.designs):
        said.append(
            f"Of {counted(len(found.designs), 'design')} {none:,} {'has' if none == 1 else 'have'} an interval that "
            "reaches down to 0: it tells next to nothing, and neither does such a design's place in the order."
        )
    return said


def _times(found: Extrapolation, name: str) -> float:
    return max(float(getattr(one, name)) / one.of.range(name)[-1] for one in found.designs)


def _below(found: Extrapolation, name: str) -> float:
    return max(one.of.range(name)[0] / float(getattr(one, name)) for one in found.designs)


def _number(times: float) -> str:
    return f"{float(f'{times:.2g}'):,.10g}"


def _check(score: Score) -> str:
    what = AXES[score.along]
    said = (
        f"Check, the largest {what} ({_number(score.step)} times the next) foretold from the others: error "
        f"{score.error:.4f} (root mean square), {score.inside} of {score.n} losses of "
        f"{counted(score.designs, 'design')} inside their 95% intervals. "
    )
    if score.designs > 1:
        said += f"Order there, foretold with measured: tau {score.tau or 'undefined, as losses are equal'}"
        if score.before is not None:
            said += f"; the order at the next smaller size with it, without a law: {score.before}"
        said += "."
    if score.ordered < score.designs:
        said += f" The order is that of the {score.ordered} designs of one largest {what}."
    return said.strip()


def _doubts(score: Score) -> list[str]:
    """What in the check speaks against the forecasts."""
    from scipy.stats import binom

    doubts = []
    if binom.cdf(score.inside, score.n, LEVEL) < TOO_FEW:
        doubts.append("fewer are inside than intervals of 95% would hold, so take them as too narrow")
    if score.spread is not None and score.error > score.spread:
        doubts.append(
            f"half of the designs lie within {score.spread:.4f} of each other there, less than the law misses by"
        )
    if score.designs > 1 and (score.tau is None or score.tau.low is None or score.tau.low <= 0):
        doubts.append("the law's order there is not shown to be better than chance")
    return doubts


def _verdict(found: Extrapolation, doubts: list[str]) -> str:
    apart, pairs = found.apart()
    if not pairs:
        return ""
    several = f"{counted(pairs, 'pair')} of designs"
    if not apart:
        return f"The intervals at the target tell none of {several} apart: their order is unproven."
    told = f"The intervals at the target tell {apart:,} of {several} apart"
    if doubts:
        return f"{told}, if the law holds as far, which the check does not bear out: their order is unproven."
    if found.score is None:
        return f"{told}, if the law holds as far, which was not checked: their order is unproven."
    best = found.ranked[0]
    near = sum(not are_apart(best.forecast, other.forecast) for other in found.ranked[1:])
    least = "the lowest loss is below all others"
    if near:
        least = f"from the lowest loss {counted(near, 'design')} {'is' if near == 1 else 'are'} not"
    return f"{told}, if the law holds as far; {least}."
