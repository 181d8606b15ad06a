"""200 simulated studies of the shipped hybrid space: planted effects lie within their intervals 95 times in 100, what
has no effect is called undecided; with choices that only some designs make, and with trials stopped early.

`pytest -rP tests/test_coverage.py` prints the figures.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from synthetic import stopped_study, study

from hybrid_nas.choices import merged, settings_of
from hybrid_nas.effects import Effects
from hybrid_nas.evidence import Evidence
from hybrid_nas.noise import Noise, trainings
from hybrid_nas.predicted import predicted
from hybrid_nas.shipped import shipped
from hybrid_nas.study_file import read_study

STUDIES = 200
DESIGNS = 36
PLANTED = {
    "ratio": {"1:0": 0.05, "1:1": 0.0, "1:3": -0.02, "1:5": -0.03, "0:1": 0.0},
    "family": {"inter": 0.01, "intra": -0.01},
    "placement": {"front": 0.02, "middle": 0.0, "spread": -0.02},  # of mixed designs alone, so the effects add up to 0
    "position": {"rope": -0.015, "none": 0.015},  # of designs with attention alone
}
NULLS = ("d_state", "fusion and output")  # the latter of designs with parallel layers alone


def planted(design):
    settings = settings_of(design)
    return sum(effects.get(settings.get(choice, ""), 0.0) for choice, effects in PLANTED.items())


@pytest.mark.slow
@pytest.mark.parametrize("stopping", [False, True], ids=["all trained to the end", "stopped early"])
def test_planted_effects_are_covered_and_nulls_undecided(stopping):
    path = shipped()["hybrid"]
    space = list(dict.fromkeys(read_study(path.read_text(), str(path)).space.enumerate()))
    rng = np.random.default_rng(7)
    hits, total, claims, right, seen, stopped = Counter(), Counter(), Counter(), Counter(), Counter(), 0
    for _ in range(STUDIES):
        designs = [space[i] for i in rng.choice(len(space), DESIGNS, replace=False)]
        if stopping:
            trials = stopped_study(rng, designs, planted)
        else:
            trials = study(designs, lambda design: 2 + planted(design), rng, own=0.01, common=0.02, misfit=0.005)
        stopped += sum(trial.state == "stopped" for trial in trials)
        values = trainings(trials, "loss")
        effects = Effects(trials, values, Noise.of("loss", values), merged(trials), predicted(trials))
        for choice in (*PLANTED, *NULLS):
            options = effects.choices.get(choice, ())
            family = [{a: 1.0, b: -1.0} for a, b in combinations(options, 2)]
            truth = PLANTED.get(choice, {})
            for weights, found in zip(family, effects.contrasts(choice, family), strict=True):
                if found is not None:
                    true = sum(weight * truth.get(option, 0.0) for option, weight in weights.items())
                    hits[choice] += abs(found.difference - true) <= found.half_width
                    total[choice] += 1
            if options:
                seen[choice] += 1
                pairs = [p for p in Evidence.of(choice, "loss", effects, trials).pairs if p.decided]
                claims[choice] += bool(pairs)
                right[choice] += sum(truth.get(p.better, 0.0) < truth.get(p.worse, 0.0) for p in pairs)
                claims[f"{choice}, pairs"] += len(pairs)
    print(f"{STUDIES} studies of {DESIGNS} designs, {stopped / STUDIES:.1f} of them stopped early")
    print(f"{'choice':18} covered  intervals  studies that decide it  decided pairs in the right order")
    for choice in (*PLANTED, *NULLS):
        of = claims[f"{choice}, pairs"]
        print(
            f"{choice:18} {hits[choice] / total[choice]:7.1%}  {total[choice]:9}  "
            f"{claims[choice]:6} of {seen[choice]:3}           {right[choice]} of {of}"
        )
    assert (stopped > 3 * STUDIES) == stopping
    for choice in (*PLANTED, *NULLS):
        assert seen[choice] >= 0.9 * STUDIES
        studies = 3 * math.sqrt(0.95 * 0.05 / seen[choice])  # pairs of one study share options: a study counts once
        assert hits[choice] / total[choice] > 0.95 - studies, choice
    for choice in PLANTED:
        assert right[choice] >= 0.98 * claims[f"{choice}, pairs"], choice
    for choice in NULLS:
        assert claims[choice] <= 0.05 * seen[choice] + 3 * math.sqrt(seen[choice] * 0.05 * 0.95), choice
