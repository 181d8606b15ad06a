"""What [arXiv:2510.04800] claims of hybrid designs, each written so that a study can be asked whether it agrees.

A claim is a contrast: some options of a factor against others, in a quantity, among the designs to which it applies.
A factor is a choice, or something read off the design (`first layer`). `equal` claims say that a difference stays
within a margin. Claims that no search of this kind can decide are listed too, with what they would need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from hybrid_nas.choices import Settings, settings_of
from hybrid_nas.placement import Ratio
from hybrid_nas.proposal import Proposal
from hybrid_nas.trial import Trial

SOURCE = "arXiv:2510.04800"
WHERE_LAYERS_STAND = ("placement", "positions", "layout")
Options = Callable[[str], bool]
Trained = Trial | Proposal
"""What has a design and its model at the proxy scale."""


@dataclass(frozen=True)
class Claim:
    """`kind` better: `these` options beat `those`; equal: they differ by no more than `margin`; worse the rarer: the
    quantity falls off along the order of the options that `these` takes. `factor` None: `needs` says what is missing.

    `equal_compute` claims are about designs that had equal FLOPs, not equal tokens; `needs` says so of the others.
    `by_depth` claims are about one layer that moves, asked of the model of the position map.
    `where` keeps the designs that the claim is about. `drop` are choices that the factor stands in place of. `space` is
    a shipped space that holds designs on both sides.
    """

    id: str
    text: str
    printed: str
    factor: str | None = None
    these: Options = lambda option: False
    those: Options = lambda option: False
    kind: Literal["better", "equal", "worse the rarer"] = "better"
    quantity: str = "loss"
    margin: float = 0.005
    where: Callable[[Trained, Settings], bool] = lambda trial, settings: True
    drop: tuple[str, ...] = ()
    needs: str = ""
    space: str = ""
    equal_compute: bool = False
    by_depth: bool = False

    def settings(self, trial: Trained) -> Settings | None:
        """The trial's settings with the factor among them; None where the claim is not about the trial."""
        settings = settings_of(trial.design)
        for name, derive in DERIVED.items():
            if self.factor == name:
                option = derive(trial)
                if option is None:
                    return None
                settings[name] = option
        if not self.where(trial, settings):
            return None
        return {name: option for name, option in settings.items() if name not in self.drop}


def _mixed(option: str) -> bool:
    return ":" in option and Ratio.parse(option).mixed


def _is(*options: str) -> Options:
    return lambda option: option in options


def _isnt(*options: str) -> Options:
    return lambda option: option not in options


def _first_layer(trial: Trained) -> str | None:
    """Whether the first layer attends, in stacks that hold attention and something else."""
    letters = set(trial.proxy.layout) & set("AS"), set(trial.proxy.layout) - set("AS")
    return None if not all(letters) else "attention" if trial.proxy.layout[0] in "AS" else "other"


def _both_ends(trial: Trained) -> str | None:
    """Whether parallel layers stand at both ends, in stacks that hold two of them or more and others."""
    layout = trial.proxy.layout
    if layout.count("H") < 2 or layout.count("H") == len(layout):
        return None
    return "both ends" if layout[0] == layout[-1] == "H" else "inside"


def _stack(trial: Trained) -> str | None:
    """What a stack is made of, hybrids told apart by how much attention they hold."""
    layout = trial.proxy.layout
    attention, parallel = bool(set(layout) & set("AS")), "H" in layout
    if attention and parallel:
        return None
    if not attention and not parallel:
        return "no attention"
    if not set(layout) - set("AS"):
        return "attention"
    share = trial.design.ratio or f"{sum(layout.count(letter) for letter in 'ASH')} of {len(layout)} layers"
    return f"{'parallel' if parallel else 'hybrid'} {share}"


def _hybrid(option: str) -> bool:
    return option.startswith(("hybrid", "parallel"))


DERIVED: dict[str, Callable[[Trained], str | None]] = {
    "first layer": _first_layer,
    "both ends": _both_ends,
    "stack": _stack,
}


def _inter(trial: Trained, settings: Settings) -> bool:
    return settings.get("family") == "inter" and settings.get("window", "full") == "full"


def _windowed(trial: Trained, settings: Settings) -> bool:
    return settings.get("family") == "inter" and settings.get("window", "full") != "full"


def _parallel(trial: Trained, settings: Settings) -> bool:
    return settings.get("family") == "intra"


def _with(**wanted: str) -> Callable[[Trained, Settings], bool]:
    return lambda trial, settings: _parallel(trial, settings) and all(settings.get(k) == v for k, v in wanted.items())


MADE_OF = ("family", "ratio", "positions", "layout")  # where layers stand still counts beside it
CLAIMS = (
    Claim(
        "C1a", "A hybrid of attention and Mamba-2 beats pure attention.", "1B: 1:1 -0.025, 1:5 -0.015",
        these=_hybrid, those=_is("attention"), factor="stack", drop=MADE_OF,
        space="inter_layer",
    ),
    Claim(
        "C1b", "A hybrid beats pure Mamba-2.", "1B: 1:1 -0.033, 1:5 -0.023",
        these=_hybrid, those=_is("no attention"), factor="stack", drop=MADE_OF,
        space="inter_layer",
    ),
    Claim(
        "C2", "For quality 1:1 is best: the rarer attention is, the higher the loss.",
        "1B, 1:1 to 1:12: 2.725, 2.733, 2.735, 2.741",
        factor="ratio", these=_mixed, kind="worse the rarer", where=_inter,
        space="inter_layer",
    ),
    Claim(
        "C3", "At equal training FLOPs the ratio matters little.", "1B, 1:1 to 1:12: 2.710, 2.716, 2.716, 2.721",
        factor="ratio", these=_is("1:1", "1:3"), those=_mixed, kind="equal", margin=0.011, where=_inter,
        needs="ratios trained to equal FLOPs, not equal tokens", space="inter_layer", equal_compute=True,
    ),
    Claim(
        "C4", "Never attention in the first layer.", "one layer, first against middle: +0.030 (1B), +0.037 (350M)",
        factor="first layer", these=_is("other"), those=_is("attention"), drop=WHERE_LAYERS_STAND, where=_inter,
        space="inter_layer", by_depth=True,
    ),
    Claim(
        "C5", "Middle and end are alike; only the front is bad.", "1:3 middle 2.733, end 2.735",
        factor="placement", these=_is("middle", "spread"), those=_is("end"), kind="equal", where=_inter,
        space="inter_layer",
    ),
    Claim(
        "R1", "Spread attention evenly through the stack.", "advice of section 5",
        factor="placement", these=_is("spread"), those=_is("middle", "end"), where=_inter,
        space="inter_layer",
    ),
    Claim(
        "C6", "With sliding windows, placement hardly matters.", "spread of 0.001 to 0.002",
        factor="placement", these=_isnt("front"), those=_is("front"), kind="equal", where=_windowed,
        space="inter_layer",
    ),
    Claim(
        "C7", "A norm on each half before the fusion helps.", "1B: -0.003 to -0.017",
        factor="norm", these=_is("group"), those=_is("none"), where=_parallel,
        space="intra_layer",
    ),
    Claim(
        "C8", "With that norm, a learned scale or gate hurts.", "1B: +0.006 to +0.030",
        factor="scale", these=_is("none"), those=_isnt("none"), where=_with(norm="group"),
        space="intra_layer",
    ),
    Claim(
        "C9", "An output projection for each half beats a joint one.", "1B: -0.007 to -0.018",
        factor="output", these=_is("separate"), those=_is("joint"), where=_parallel,
        space="intra_layer",
    ),
    Claim(
        "C10", "Difference, sum and concatenation are alike once the norm is there.", "1B: 2.712, 2.714, 2.715",
        factor="fusion", these=_is("difference"), those=_isnt("difference"), kind="equal", where=_with(norm="group"),
        space="intra_layer",
    ),
    Claim(
        "R3", "Sharing the values costs little quality.", "advice of section 5",
        factor="value", these=_is("separate"), those=_is("joint"), kind="equal", where=_parallel,
        space="intra_layer",
    ),
    Claim(
        "R2", "An equal split of the heads is best.", "advice of section 5",
        factor="attention_share", these=_is("1/2"), those=_isnt("1/2"), where=_parallel,
        space="intra_layer",
    ),
    Claim(
        "C11", "Parallel hybrids beat hybrids of whole layers at the same ratio.", "1B: -0.005 to -0.009; 3B: +0.004",
        factor="family", these=_is("intra"), those=_is("inter"),
        where=lambda trial, settings: _mixed(settings.get("ratio", "")),
        space="hybrid",
    ),
    Claim(
        "C12", "The more parallel layers, the lower the loss.", "1B, 1:0 to 1:12: 2.712 to 2.736",
        factor="ratio", these=lambda option: option != "0:1", kind="worse the rarer", where=_parallel,
        space="intra_layer",
    ),
    Claim(
        "C14", "Scatter parallel layers, never at both ends.", "arms of Table 21",
        factor="both ends", these=_is("inside"), those=_is("both ends"), drop=WHERE_LAYERS_STAND, where=_parallel,
        space="intra_layer",
    ),
    Claim("C15", "Learned mixing weights show where attention belongs.", "figure 8",
          needs="a mixing weight a layer"),
    Claim("C16", "Attention in early layers is close to uniform.", "figures 6 and 7", needs="attention maps"),
    Claim("C17", "Hybrids find a needle up to 1.5 times the trained length.", "figure 4",
          needs="recall beyond the trained length"),
    Claim("C18", "Mamba-2 keeps its loss beyond the trained length, attention with RoPE does not.", "figure 3c",
          needs="loss by position beyond the trained length"),
    Claim(
        "C19", "Pure Mamba-2 is weak where text must be looked up; hybrids are not.",
        "TriviaQA 36.5 against 51.7 (1:5)",
        these=_hybrid, those=_is("no attention"), quantity="recall", factor="stack", drop=MADE_OF,
        space="inter_layer",
    ),
    Claim("C20", "Experts bring all stacks about the same gain.", "-0.080 to -0.094",
          needs="the same stacks with and without experts, at both a margin and several ratios"),
    Claim("C21", "A longer context widens the lead of hybrids.", "8K -0.041, 32K -0.085",
          needs="several training contexts at equal FLOPs"),
    Claim("C22", "The order by loss carries over from 350M to 1B.", "Kendall's tau 0.79",
          needs="the same designs at two scales: `hybrid-nas compare RUN RUN`"),
    Claim("R4", "Parallel hybrids are the best trade of quality for decoding speed.", "Table 13",
          needs="decoding speed measured on the target device"),
    Claim("R5", "No position encoding in the attention layers, for length generalisation.", "advice of section 5",
          needs="loss beyond the trained length, with and without RoPE"),
    Claim("R6", "Mamba-2 needs its own initialisation of A and dt.", "advice of section 5",
          needs="an initialisation among the choices"),
)  # fmt: skip


def options_of(claim: Claim, options: Iterable[str]) -> tuple[list[str], list[str]]:
    """The options on either side of the claim."""
    found = list(options)
    return [o for o in found if claim.these(o)], [o for o in found if claim.those(o) and not claim.these(o)]
