"""A Design: what a researcher decides, free of scale. `design.at(scale)` gives the Architecture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

from hybrid_nas.architecture import (
    FFN,
    PARALLEL_AXES,
    Architecture,
    Mixer,
    ParallelHybrid,
    ParallelPair,
    canonical_json,
)
from hybrid_nas.fit import fit, stack
from hybrid_nas.halves import CHOICES, WIDTHS, settle
from hybrid_nas.parts import (
    FEED_FORWARD,
    RECURRENT,
    RECURRENT_LETTERS,
    Amount,
    attention_of,
    pair_of,
    parallel_of,
    read_by,
)
from hybrid_nas.placement import PLACEMENTS, Placement, Ratio, layout_at, place, place_at, read_layout, read_share
from hybrid_nas.scale import Refused, Scale

__all__ = [
    "PLACEMENTS", "Design", "Placement", "Ratio", "Refused", "architecture_of_layout", "place", "place_at",
]  # fmt: skip

Family = Literal["inter", "intra", "mixed"]
AMOUNTS = ("window", "sinks", *WIDTHS)
SHARED = ("ratio", "kv_heads")
MAMBA2 = "mamba2"
SWIGLU = "swiglu"
OF_EXPERTS = ("experts", "experts_active")
PLAIN = (
    "placement",
    "layout",
    "d_state",
    "head_dim",
    "position",
    "mixer",
    "ffn",
    *OF_EXPERTS,
    "halves",
    *PARALLEL_AXES,
)


@dataclass(frozen=True)
class Design:
    """The choices of one hybrid. What a choice does not touch is None, so equal models compare equal.

    `family` inter: whole layers of attention among recurrent ones; intra: layers of both in parallel among recurrent
    ones; mixed: both kinds in one stack. Where the layers stand: `ratio` with `placement`, or `positions`, which also
    fix how many there are, or a `layout` (one letter a layer; see `placement.layout_at` for other depths), which
    decides the family by itself.

    `mixer` is what M stands for, `d_state` and `head_dim` are the recurrent mixers'. `ffn` moe has `experts`, of which
    `experts_active` run for a token beside a shared one. `kv_heads` is the share of attention heads
    that keep keys and values of their own. `window` and `sinks` are tokens (whole numbers) or a share of the context
    (fractions below 1). None for `d_state`, `head_dim`, `kv_heads` takes the scale's own value.

    The rest is the parallel hybrid's. `attention_share` s gives s of the width to queries and keys and 1 - s to
    Mamba-2 before expansion; `attention_width` and `mamba_width` say the two apart, in channels (whole numbers) or as
    shares of the width; with neither both are 9/16. `value_width` is that of the values; None: the model's own, or
    Mamba-2's expanded where the halves meet channel by channel. `norm`, `scale`, `fusion`, `value`, `output`: see
    `architecture.ParallelHybrid`. `halves` attention or mamba puts two equal halves of one kind in its place.
    """

    family: Family = "inter"
    ratio: Ratio | None = None
    placement: Placement | None = None
    positions: tuple[float, ...] | None = None
    layout: str | None = None
    mixer: str | None = MAMBA2
    ffn: str = SWIGLU
    experts: int | None = None
    experts_active: int | None = None
    d_state: int | None = None
    head_dim: int | None = None
    kv_heads: Fraction | None = None
    position: Literal["rope", "none"] | None = "rope"
    window: Amount | None = None
    sinks: Amount | None = None
    attention_share: Fraction | None = None
    attention_width: Amount | None = None
    mamba_width: Amount | None = None
    value_width: Amount | None = None
    halves: str | None = None
    norm: str | None = None
    scale: str | None = None
    fusion: str | None = None
    value: str | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        if (self.ratio is not None) + (self.positions is not None) + (self.layout is not None) != 1:
            raise ValueError("design: give a ratio, explicit positions or a layout, one of the three")
        if self.positions is not None:
            if not self.positions or not all(0 <= p <= 1 for p in self.positions):
                raise ValueError(f"design: positions lie between 0 and 1, found {list(self.positions)}")
            self._set(positions=tuple(sorted(self.positions)))
        if self.layout is not None:
            self._set(layout=read_layout(self.layout))
        if self.mixer is not None and self.mixer not in RECURRENT:
            raise ValueError(f"design: mixer is one of {', '.join(RECURRENT)}, found {self.mixer!r}")
        if self.ffn not in FEED_FORWARD:
            raise ValueError(f"design: ffn is one of {', '.join(FEED_FORWARD)}, found {self.ffn!r}")
        self._name_family()
        if self.has_parallel:
            settled, whole = settle({name: getattr(self, name) for name in CHOICES})
            self._set(**settled)
            if whole is not None:
                self._become_whole(whole)
        if not self.has_parallel:  # also a split of nothing or all, which has just become whole layers
            self._set(**dict.fromkeys((*WIDTHS, *PARALLEL_AXES, "halves")))
        if not (self.ratio is not None and self.ratio.mixed):
            self._set(placement=None)
        elif self.placement is None:
            self._set(placement="spread")
        self._settle_recurrent()
        if self.ffn != "moe":
            self._set(**dict.fromkeys(OF_EXPERTS))
        if not self.has_attention:
            self._set(kv_heads=None, position=None, window=None)
        elif self.position is None:
            self._set(position="rope")
        if self.layout is not None:
            if "S" not in self.letters:
                self._set(window=None)
            elif self.window is None:
                self._set(window=Fraction(1, 16), sinks=Fraction(1, 128) if self.sinks is None else self.sinks)
        if self.window is None or not self.sinks:
            self._set(sinks=None)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _name_family(self) -> None:
        """A layout's family, and one spelling for a stack of one kind."""
        if self.layout is None:
            if self.family not in ("inter", "intra"):
                raise ValueError(f"design: family is inter or intra beside a ratio or positions, found {self.family!r}")
            if self.ratio == Ratio(0, 1):
                self._set(family="inter")
            return
        letters = self.letters
        self._set(family="inter" if "H" not in letters else "mixed" if letters & {"A", "S"} else "intra")
        if letters in ({"A"}, {"M"}, {"H"}):
            self._set(layout=None, ratio=Ratio(0, 1) if letters == {"M"} else Ratio(1, 0))

    def _settle_recurrent(self) -> None:
        """One spelling of a layout's only recurrent mixer, and what no mixer of the stack reads."""
        named = self.letters & RECURRENT_LETTERS.keys() - {"M"}
        if self.layout is not None and "M" not in self.letters and len(named) == 1:
            (letter,) = named
            self._set(layout=self.layout.replace(letter, "M"), mixer=RECURRENT_LETTERS[letter])
            self._name_family()
        self._set(mixer=(self.mixer or MAMBA2) if "M" in self.letters else None)
        self._set(**{name: None for name in ("d_state", "head_dim") if name not in self.reads})

    def _become_whole(self, letter: str) -> None:
        """A parallel hybrid with one half alone is a layer of attention (A) or of Mamba-2 (M)."""
        if self.layout is not None:
            self._set(layout=self.layout.replace("H", letter))
            self._name_family()
        elif letter == "A":
            self._set(family="inter")
        else:
            self._set(family="inter", ratio=Ratio(0, 1), positions=None)

    @property
    def letters(self) -> set[str]:
        """The kinds of layers: A attention (in a window too, unless a layout says S), M recurrent, H in parallel."""
        if self.layout is not None:
            return set(self.layout) - {" "}
        other = "H" if self.family == "intra" else "A"
        if self.ratio is None:
            return {other, "M"}
        return {letter for letter, count in ((other, self.ratio.attention), ("M", self.ratio.mamba)) if count}

    @property
    def has_attention(self) -> bool:
        return bool(self.letters & set("AS" if self.halves == "mamba" else "ASH"))

    @property
    def has_mamba(self) -> bool:
        return bool(self.letters & {"" if self.halves == "attention" else "H", *RECURRENT_LETTERS})

    @property
    def reads(self) -> set[str]:
        """Which of d_state and head_dim a mixer of this design reads."""
        return read_by(self.letters - ({"H"} if self.halves == "attention" else set()), self.mixer)

    @property
    def has_parallel(self) -> bool:
        return "H" in self.letters

    def layout_at(self, depth: int) -> str:
        """One letter a layer for a stack of `depth`."""
        if self.layout is not None:
            return layout_at(self.layout, depth)
        if self.positions is not None:
            layers = set(place_at(self.positions, depth))
        else:
            assert self.ratio is not None
            layers = set(place(self.placement or "spread", self.ratio.attention_layers(depth), depth))
        other = "H" if self.family == "intra" else "A"
        return "".join(other if layer in layers else "M" for layer in range(depth))

    def mixers(self, scale: Scale) -> dict[str, Mixer]:
        """The mixer of each letter at `scale`. Refused if the dimensions do not divide."""
        found: dict[str, Mixer] = {}
        for letter in sorted(self.letters):
            match letter:
                case "M":
                    found[letter] = RECURRENT[self.mixer or MAMBA2].of(scale, self.d_state, self.head_dim)
                case "A" | "S":
                    hides = letter == "S" or self.layout is None
                    window, sinks = (self.window, self.sinks) if hides else (None, None)
                    found[letter] = attention_of(scale, self.kv_heads, self.position, window, sinks)
                case "H":
                    found[letter] = self._parallel(scale)
                case _:
                    found[letter] = RECURRENT[RECURRENT_LETTERS[letter]].of(scale, self.d_state, self.head_dim)
        return found

    def _parallel(self, scale: Scale) -> ParallelHybrid | ParallelPair:
        window, sinks = (self.window, self.sinks) if self.layout is None else (None, None)
        axes = {name: getattr(self, name) for name in PARALLEL_AXES}
        like = attention_of(scale, None, self.position, window, sinks)
        if self.halves is not None:
            of = like if self.halves == "attention" else None
            return pair_of(scale, of, self.kv_heads, self.d_state, self.head_dim, axes)
        share = self.attention_share
        attention, mamba = (self.attention_width, self.mamba_width) if share is None else (share, 1 - share)
        assert attention is not None
        assert mamba is not None
        widths = attention, mamba, self.value_width
        return parallel_of(scale, like, self.kv_heads, self.d_state, self.head_dim, widths, axes)

    def at(self, scale: Scale) -> Architecture:
        """The model of this design at `scale`, with as many layers as its parameter budget buys: see `fit`."""
        return fit(scale, self.mixers(scale), self.feed_forward(scale), self.layout_at)

    def feed_forward(self, scale: Scale) -> FFN:
        """The feed-forward network of every block at `scale`, before its width meets the budget."""
        return FEED_FORWARD[self.ffn](scale, self.experts, self.experts_active)

    def to_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = {"family": self.family}
        for name in SHARED:
            if (value := getattr(self, name)) is not None:
                data[name] = str(value)
        for name in AMOUNTS:
            if (value := getattr(self, name)) is not None:
                data[name] = str(value) if isinstance(value, Fraction) else value
        for name in PLAIN:
            if (value := getattr(self, name)) not in (None, {"mixer": MAMBA2, "ffn": SWIGLU}.get(name)):
                data[name] = value
        if self.positions is not None:
            data["positions"] = list(self.positions)
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Design:
        """Inverse of `to_dict`."""
        values = dict(data)
        if "ratio" in values:
            values["ratio"] = Ratio.parse(values["ratio"])
        if "positions" in values:
            values["positions"] = tuple(map(float, values["positions"]))
        for name in PLAIN:
            if not isinstance(values.get(name, ""), str | int):
                raise ValueError(f"design: {name} must be text or a whole number, found {values[name]!r}")
        for name in ("kv_heads", *AMOUNTS):
            if isinstance(values.get(name), str):
                values[name] = read_share(values[name])
        return cls(**values)

    def __str__(self) -> str:
        return canonical_json(self.to_dict())


def architecture_of_layout(layout: str, design: Design, scale: Scale) -> Architecture:
    """The model that `layout` spells, a letter a block (A or T attention, S sliding window, M recurrent, H parallel
    hybrid, or the letter of a recurrent mixer), at `scale`'s own FFN width; `design` gives everything but the layers.
    """
    letters = read_layout(layout)
    design = replace(design, ratio=None, placement=None, positions=None, layout=letters)
    mixers = design.mixers(scale)
    return stack(scale, (mixers[letter] for letter in design.layout_at(len(letters))), design.feed_forward(scale))
