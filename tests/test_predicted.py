"""Predicted finals of stopped trials: least squares, gated, and effects that still cover their truth."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats
from synthetic import grid, stopped_study

from hybrid_nas.effects import Effects
from hybrid_nas.evidence import Evidence
from hybrid_nas.noise import Noise, trainings
from hybrid_nas.predicted import MIN_COMPLETE, predicted

RATIO = {"1:0": -0.05, "1:1": -0.04, "1:3": -0.02, "1:5": -0.01, "1:12": 0.0, "0:1": 0.03}
PLACEMENT = {"front": 0.02, "middle": 0.0, "end": 0.0, "spread": -0.02}
STUDIES = 200


def additive(design):
    return RATIO[str(design.ratio)] + PLACEMENT.get(design.placement or "", 0.0)


def effects_of(trials, foretold):
    values = trainings(trials, "loss")
    return Effects(trials, values, Noise.of("loss", values), predictions=foretold)


def test_a_prediction_is_least_squares_of_final_on_rung():
    trials = stopped_study(np.random.default_rng(0), grid()[:40], additive)
    foretold = predicted(trials)
    stopped = next(t for t in trials if t.state == "stopped" and t.proxy.id in foretold.by_proxy)
    rung = len(stopped.curve) - 1
    complete = [t for t in trials if t.state == "complete" and t.replicate_of is None]
    x, y = ([t.curve[rung].loss for t in complete], [t.values["loss"] for t in complete])
    line = stats.linregress(x, y)
    seed, value, variance = foretold.by_proxy[stopped.proxy.id]
    last = stopped.curve[-1].loss
    assert seed == 0
    assert value == pytest.approx(line.intercept + line.slope * last)
    residual = np.sum((np.array(y) - line.intercept - line.slope * np.array(x)) ** 2) / (len(x) - 2)
    spread = 1 + 1 / len(x) + (last - np.mean(x)) ** 2 / np.sum((np.array(x) - np.mean(x)) ** 2)
    assert variance == pytest.approx(residual * spread)
    assert f"{len(foretold.by_proxy)} trainings stopped early" in foretold.statement


def test_nothing_is_predicted_from_little_or_from_rungs_that_foretell_little():
    trials = stopped_study(np.random.default_rng(0), grid()[:40], additive)
    few = [t for t in trials if t.state == "stopped"]
    few += [t for t in trials if t.state == "complete" and t.replicate_of is None][: MIN_COMPLETE - 1]
    assert predicted(few).by_proxy == {}
    assert predicted(few).statement == ""
    blind = stopped_study(np.random.default_rng(0), grid()[:40], additive, shown=0.0, alike=0.0)
    assert predicted(blind).by_proxy == {}


def test_a_model_that_another_trial_finished_is_not_predicted():
    trials = stopped_study(np.random.default_rng(0), grid()[:40], additive)
    finished = {t.proxy.id for t in trials if t.state == "complete"}
    assert not finished & predicted(trials).by_proxy.keys()


@pytest.mark.slow
@pytest.mark.parametrize("shown", [0.8, 0.3])
def test_effects_cover_their_truth_beside_stopping(shown):
    """And more is decided than without predictions, where rungs foretell the end; where not, nothing changes much."""
    rng, full = np.random.default_rng(1), grid()
    hits = total = false = 0
    decided = {True: 0, False: 0}
    for _ in range(STUDIES):
        designs = [full[i] for i in rng.choice(len(full), 36, replace=False)]
        trials = stopped_study(rng, designs, additive, shown)
        foretold = predicted(trials)
        effects = effects_of(trials, foretold)
        for choice, planted in (("ratio", RATIO), ("placement", PLACEMENT), ("d_state", {})):
            options = effects.choices[choice]
            family = [{a: 1.0, b: -1.0} for a, b in combinations(options, 2)]
            for weights, found in zip(family, effects.contrasts(choice, family), strict=True):
                if found is not None:
                    truth = sum(w * planted.get(option, 0.0) for option, w in weights.items())
                    hits += abs(found.difference - truth) <= found.half_width
                    total += 1
        false += Evidence.of("d_state", "loss", effects, trials).decided
        decided[True] += Evidence.of("placement", "loss", effects, trials).decided
        without = effects_of(trials, type(foretold)())
        decided[False] += Evidence.of("placement", "loss", without, trials).decided
    assert abs(hits / total - 0.95) < 3 * math.sqrt(0.95 * 0.05 / (3 * STUDIES))
    assert false <= 10 + 3 * math.sqrt(STUDIES * 0.05 * 0.95)
    assert decided[True] >= decided[False] - 5
    if shown == 0.8:
        assert decided[True] > 1.3 * decided[False]
