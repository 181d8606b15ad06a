"""Losses at 60B tokens that [arXiv:2510.04800] prints, nats per token of DCLM, in the order of the arms of the spaces
`paper_*.yaml`: (name of the arm, at 1B, at 350M); None where it prints none. One training each, no seeds.

Of the tables of splits and positions only the arms are here: what they lost was left aside until the predictions stood.
"""

from __future__ import annotations

Row = tuple[str, float | None, float | None]

PLACEMENT: list[Row] = [
    ("attention alone", 2.750, 2.882),
    ("Mamba-2 alone", 2.758, 2.880),
    ("1:1 front", 2.733, 2.869),
    ("1:1 end", 2.725, 2.850),
    ("1:3 front", 2.750, 2.873),
    ("1:3 middle", 2.733, 2.858),
    ("1:3 end", 2.735, 2.860),
    ("1:5 front", 2.750, 2.880),
    ("1:5 middle", 2.735, 2.860),
    ("1:5 end", 2.740, 2.861),
    ("1:12 at 1", 2.771, 2.898),
    ("1:12 at 2", 2.754, 2.879),
    ("1:12 at 3", 2.748, 2.874),
    ("1:12 at 4", 2.742, 2.869),
    ("1:12 at 7", 2.741, 2.861),
    ("1:12 at 9", 2.740, 2.862),
    ("1:12 at 11", 2.741, None),
    ("1:12 at 12", 2.746, 2.866),
]
RATIO: list[Row] = [
    ("attention alone", 2.750, 2.882),
    ("window 1:1", 2.745, None),
    ("window 1:3", 2.740, None),
    ("window 1:5", 2.741, 2.869),
    ("window 1:12", None, None),
    ("window 0:1", None, None),
    ("Mamba-2 alone", 2.758, 2.880),
    ("inter 1:1", 2.725, 2.850),
    ("inter 1:3", 2.733, 2.858),
    ("inter 1:5", 2.735, 2.860),
    ("inter 1:12", 2.741, 2.864),
    ("intra 1:0", 2.712, 2.847),
    ("intra 1:1", 2.720, 2.854),
    ("intra 1:3", 2.724, 2.854),
    ("intra 1:5", 2.728, 2.858),
    ("intra 1:12", 2.736, 2.861),
]
FUSION: list[Row] = [
    ("attention alone", 2.750, 2.882),
    ("Mamba-2 alone", 2.758, 2.880),
    ("Diff-T", 2.727, 2.858),
    ("Diff-M", 2.759, 2.879),
    ("T/T add", 2.733, 2.865),
    ("no norm, diff, difference, J, J", 2.733, 2.862),
    ("norm, diff, difference, J, J", 2.735, 2.859),
    ("no norm, diff, difference, S, J", 2.731, 2.864),
    ("norm, diff, difference, S, J", 2.728, 2.856),
    ("norm, diff, difference, S, S", 2.719, 2.853),
    ("norm, vector, add, S, J (Hymba)", 2.726, 2.861),
    ("no norm, none, add, S, J", 2.738, 2.870),
    ("norm, none, add, S, J", 2.721, 2.857),
    ("no norm, vector, add, S, J", 2.740, 2.872),
    ("norm, vector, add, J, J", 2.729, 2.861),
    ("no norm, none, add, S, S", 2.720, 2.851),
    ("norm, none, add, S, S", 2.714, 2.849),
    ("norm, vector, add, S, S", 2.720, 2.849),
    ("no norm, none, difference, S, S", 2.715, 2.850),
    ("norm, none, difference, S, S (pick)", 2.712, 2.847),
    ("norm, vector, difference, S, S", 2.727, 2.851),
    ("norm, none, difference, S, J", 2.721, 2.858),
    ("no norm, none, concat, S, J (Falcon-H1)", 2.720, 2.855),
    ("norm, none, concat, S, J", 2.715, 2.846),
    ("norm, vector, concat, S, J", 2.724, 2.851),
    ("norm, gate, add, S, J", 2.751, None),
]
SPLIT = ["2048:0", "1792:1024", "1152:1152", "512:1280", "128:1408", "0:2048"]
POSITIONS = [
    "1:1 cluster", "1:1 scatter", "1:1 sandwich",
    "1:3 cluster", "1:3 scatter", "1:3 sandwich",
    "1:5 cluster", "1:5 scatter", "1:5 sandwich",
]  # fmt: skip
