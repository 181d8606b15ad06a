"""A Design: what a researcher decides, free of scale. `design.at(scale)` gives the Architecture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor, gcd
from typing import Any, Literal

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, Mixer, SwiGLU, canonical_json
from hybrid_nas.cost import ffn_params, params_nonembedding
from hybrid_nas.scale import Scale

TOLERANCE = 0.05
FFN_STEP = 8
FFN_RANGE = (0.5, 2.0)
MAX_DEPTH = 1024

Placement = Literal["front", "middle", "end", "spread"]
PLACEMENTS: tuple[Placement, ...] = ("front", "middle", "end", "spread")


class Refused(ValueError):
    """A design that cannot be built at a scale as asked, and is counted, not silently bent."""


@dataclass(frozen=True, order=True)
class Ratio:
    """attention : Mamba, in lowest terms."""

    attention: int
    mamba: int

    def __post_init__(self) -> None:
        if self.attention < 0 or self.mamba < 0 or self.attention + self.mamba == 0:
            raise ValueError(f"a ratio is two counts, not both zero, found {self}")
        divisor = gcd(self.attention, self.mamba)
        object.__setattr__(self, "attention", self.attention // divisor)
        object.__setattr__(self, "mamba", self.mamba // divisor)

    @classmethod
    def parse(cls, text: str) -> Ratio:
        left, colon, right = text.partition(":")
        if not (colon and left.strip().isdecimal() and right.strip().isdecimal()):
            raise ValueError(f"a ratio is written attention:mamba, like 1:3, found {text!r}")
        return cls(int(left), int(right))

    @property
    def mixed(self) -> bool:
        return bool(self.attention and self.mamba)

    def attention_layers(self, depth: int) -> int:
        """How many of `depth` layers are attention: the nearest count, halves up, at least one of each kind."""
        count = floor(Fraction(depth * self.attention, self.attention + self.mamba) + Fraction(1, 2))
        return min(max(count, 1), depth - 1) if self.mixed else count

    def __str__(self) -> str:
        return f"{self.attention}:{self.mamba}"


def place(placement: Placement, count: int, depth: int) -> tuple[int, ...]:
    """0-based layers of `count` attention layers among `depth`.

    `front`, `middle` and `end` are contiguous runs. `spread` cuts the depth into `count` equal parts and takes the
    middle of each, which gives the paper's own layers for 1:1, 1:3 and 1:12 at 1B ({2,4,..}, {3,7,11}, {7}, 1-based).

    >>> place("spread", 3, 13), place("middle", 3, 13)
    ((2, 6, 10), (5, 6, 7))
    """
    match placement:
        case "front":
            return tuple(range(count))
        case "middle":
            start = (depth - count + 1) // 2
            return tuple(range(start, start + count))
        case "end":
            return tuple(range(depth - count, depth))
        case "spread":
            return tuple((2 * k + 1) * depth // (2 * count) for k in range(count))


def place_at(positions: tuple[float, ...], depth: int) -> tuple[int, ...]:
    """0-based layers of relative positions, 0 the first layer and 1 the last. Refused where two fall on one layer."""
    layers = tuple(sorted(floor(p * (depth - 1) + 0.5) for p in positions))
    if len(set(layers)) < len(layers):
        raise Refused(f"two of the positions {list(positions)} fall on one layer of {depth}")
    return layers


@dataclass(frozen=True)
class Design:
    """The choices of one inter-layer hybrid. What a choice does not touch is None, so equal models compare equal.

    `ratio` with `placement`, or `positions` alone, which also fix the number of attention layers. `d_state` and
    `head_dim` are Mamba-2's. `kv_heads` is the share of attention heads that keep keys and values of their own.
    `window` and `sinks` are tokens (whole numbers) or a share of the context (fractions below 1). None for `d_state`,
    `head_dim`, `kv_heads` takes the scale's own value.
    """

    family: Literal["inter"] = "inter"
    ratio: Ratio | None = None
    placement: Placement | None = None
    positions: tuple[float, ...] | None = None
    d_state: int | None = None
    head_dim: int | None = None
    kv_heads: Fraction | None = None
    position: Literal["rope", "none"] | None = "rope"
    window: int | Fraction | None = None
    sinks: int | Fraction | None = None

    def __post_init__(self) -> None:
        if (self.ratio is None) == (self.positions is None):
            raise ValueError("design: give a ratio or explicit positions, one of the two")
        if self.positions is not None:
            if not self.positions or not all(0 <= p <= 1 for p in self.positions):
                raise ValueError(f"design: positions lie between 0 and 1, found {list(self.positions)}")
            object.__setattr__(self, "positions", tuple(sorted(self.positions)))
        elif self.has_attention and self.has_mamba and self.placement is None:
            object.__setattr__(self, "placement", "spread")
        if not (self.has_attention and self.has_mamba) or self.positions is not None:
            object.__setattr__(self, "placement", None)
        if not self.has_mamba:
            object.__setattr__(self, "d_state", None)
            object.__setattr__(self, "head_dim", None)
        if not self.has_attention:
            for name in ("kv_heads", "position", "window"):
                object.__setattr__(self, name, None)
        if self.window is None or not self.sinks:
            object.__setattr__(self, "sinks", None)

    @property
    def has_attention(self) -> bool:
        return self.ratio is None or self.ratio.attention > 0

    @property
    def has_mamba(self) -> bool:
        return self.ratio is None or self.ratio.mamba > 0

    def attention_layers(self, depth: int) -> tuple[int, ...]:
        """0-based layers that hold attention in a stack of `depth`."""
        if self.positions is not None:
            return place_at(self.positions, depth)
        assert self.ratio is not None
        count = self.ratio.attention_layers(depth)
        return place(self.placement or "spread", count, depth)

    def mixers(self, scale: Scale) -> tuple[Mixer, Mixer]:
        """The attention and the Mamba-2 mixer of this design at `scale`. Refused if the dimensions do not divide."""
        kv_heads = scale.kv_heads
        if self.kv_heads is not None:
            kv_heads = max(1, floor(self.kv_heads * scale.heads + Fraction(1, 2)))
            if scale.heads % kv_heads:
                raise Refused(
                    f"kv_heads {self.kv_heads} of {scale.heads} heads is {kv_heads}, which does not divide them"
                )
        window, sinks = _tokens(self.window, scale.context), _tokens(self.sinks, scale.context) or 0
        if window is not None and sinks > window:
            raise Refused(f"sinks of {sinks} tokens pass the window of {window} they stand beside")
        if window is not None and window >= scale.context:  # it hides nothing: full attention
            window, sinks = None, 0
        theta = scale.rope_theta if window is None else scale.window_rope_theta
        attention = Attention(
            heads=scale.heads,
            kv_heads=kv_heads,
            head_dim=scale.head_dim,
            rope_theta=None if self.position == "none" else theta,
            window=window,
            sinks=sinks,
        )
        head_dim = self.head_dim or scale.ssm_head_dim
        if scale.d_ssm % head_dim:
            raise Refused(f"head_dim {head_dim} does not divide the {scale.d_ssm} Mamba channels of {scale.name}")
        mamba = Mamba2(
            d_ssm=scale.d_ssm,
            head_dim=head_dim,
            d_state=self.d_state or scale.d_state,
            groups=scale.ssm_groups,
            conv_kernel=scale.conv_kernel,
        )
        return attention, mamba

    def at(self, scale: Scale) -> Architecture:
        """The model of this design at `scale`: the depth whose parameters are nearest to the budget, then, where that
        is not near enough, the FFN width that closes the rest. Refused beyond 5% of the budget.
        """
        attention, mamba = self.mixers(scale)
        both = stack(scale, (attention, mamba))
        norm = scale.width
        of_attention, of_mamba = (params_nonembedding(replace(both, blocks=(b,))) - norm for b in both.blocks)
        refusal = Refused(f"no depth of {scale.name} holds this design")
        best: tuple[int, int] | None = None
        for depth in range(2 if self.has_attention and self.has_mamba else 1, MAX_DEPTH + 1):
            try:
                count = len(self.attention_layers(depth))
            except Refused as reason:  # positions may need more depth to fall on layers of their own
                refusal = reason
                continue
            miss = norm + count * of_attention + (depth - count) * of_mamba - scale.params
            if best is None or abs(miss) < abs(best[0]):
                best = miss, depth
            if miss > 0:
                break
        if best is None:
            raise refusal
        layers = set(self.attention_layers(best[1]))
        architecture = stack(scale, (attention if i in layers else mamba for i in range(best[1])))
        if abs(best[0]) > scale.ffn_exact_within * scale.params:
            architecture = _close_with_ffn(architecture, scale)
        share = params_nonembedding(architecture) / scale.params - 1
        if abs(share) > TOLERANCE:
            raise Refused(
                f"{architecture.depth} layers miss the parameter budget of {scale.name} by {share:+.1%}; "
                f"at most {TOLERANCE:.0%} is comparable"
            )
        return architecture

    def to_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = {"family": self.family}
        for name in ("ratio", "kv_heads"):
            if (value := getattr(self, name)) is not None:
                data[name] = str(value)
        for name in ("window", "sinks"):
            if (value := getattr(self, name)) is not None:
                data[name] = str(value) if isinstance(value, Fraction) else value
        for name in ("placement", "d_state", "head_dim", "position"):
            if (value := getattr(self, name)) is not None:
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
            values["positions"] = tuple(values["positions"])
        for name in ("kv_heads", "window", "sinks"):
            if isinstance(values.get(name), str):
                values[name] = Fraction(values[name])
        return cls(**values)

    def __str__(self) -> str:
        return canonical_json(self.to_dict())


def stack(scale: Scale, mixers: Any) -> Architecture:
    """A model of `scale` with these mixers in this order, each followed by the scale's SwiGLU."""
    ffn = SwiGLU(scale.ffn_hidden)
    return Architecture(scale.width, scale.vocab, tuple(Block(mixer, ffn) for mixer in mixers))


def architecture_of_layout(layout: str, design: Design, scale: Scale) -> Architecture:
    """The model that `layout` spells, a letter a block (A attention, S sliding window, M Mamba-2), at `scale`'s own
    FFN width; `design` gives d_state, head_dim, kv_heads, position, and the window of S.
    """
    attention, mamba = replace(design, window=None).mixers(scale)
    letters: dict[str, Mixer] = {"A": attention, "M": mamba}
    if "S" in layout:
        window = design.window or Fraction(1, 16)
        sinks = design.sinks if design.sinks is not None else Fraction(1, 128)
        letters["S"] = replace(design, window=window, sinks=sinks).mixers(scale)[0]
    for i, letter in enumerate(layout):
        if letter == "H":
            raise ValueError(f"layout {layout}: H, the parallel hybrid, is reserved and cannot be built yet")
        if letter not in letters:
            raise ValueError(
                f"layout {layout}: letter {i + 1} is {letter!r}; A is attention, S sliding window, M Mamba-2"
            )
    return stack(scale, (letters[letter] for letter in layout))


def _close_with_ffn(architecture: Architecture, scale: Scale) -> Architecture:
    """The same blocks with the FFN width, a multiple of 8, that comes nearest to the budget."""
    rest = scale.params - params_nonembedding(
        replace(architecture, blocks=tuple(replace(b, ffn=None) for b in architecture.blocks))
    )
    rest -= architecture.depth * architecture.width  # the norms before the FFNs
    per_unit = architecture.depth * ffn_params(SwiGLU(1), architecture.width)
    hidden = FFN_STEP * round(rest / per_unit / FFN_STEP)
    low, high = (bound * scale.ffn_hidden for bound in FFN_RANGE)
    if not low <= hidden <= high:
        raise Refused(
            f"{architecture.depth} layers would need an FFN of {hidden} channels to meet the parameter budget of "
            f"{scale.name}; it may be {low:.0f} to {high:.0f}"
        )
    return replace(architecture, blocks=tuple(replace(b, ffn=SwiGLU(hidden)) for b in architecture.blocks))


def _tokens(amount: int | Fraction | None, context: int) -> int | None:
    if amount is None or isinstance(amount, int):
        return amount
    return max(1, floor(amount * context + Fraction(1, 2)))
