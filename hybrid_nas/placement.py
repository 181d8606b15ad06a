"""Where the layers of each kind stand: ratios, named placements, relative positions, and layouts at any depth."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor, gcd
from typing import Literal

from hybrid_nas.scale import Refused

Placement = Literal["front", "middle", "end", "spread", "sandwich"]
PLACEMENTS: tuple[Placement, ...] = ("front", "middle", "end", "spread", "sandwich")
SYNONYMS: dict[str, Placement] = {"clustered": "middle", "scattered": "spread"}
LETTERS = {
    "A": "attention", "S": "sliding window", "M": "Mamba-2 or the mixer in its place", "H": "both in parallel",
    "1": "Mamba-1", "3": "Mamba-3", "G": "Gated DeltaNet",
}  # fmt: skip
MAX_RATIO = 12  # characters
MAX_SHARE = 24
MAX_LAYOUT = 8_192


@dataclass(frozen=True, order=True)
class Ratio:
    """attention : Mamba layers (or parallel hybrid : Mamba), in lowest terms."""

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
        if len(text) > MAX_RATIO:
            raise ValueError(f"a ratio of layers is written with at most {MAX_RATIO} characters, found {len(text):,}")
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


def read_share(text: str) -> Fraction:
    """An exact share such as `1/4` or `0.25`. ValueError for other text, and for long text and exponents of more than
    two digits: `1e999999999` has a billion digits as a fraction."""
    exponent = text.lower().partition("e")[2].strip()
    if len(text) > MAX_SHARE or len(exponent.lstrip("+-0")) > 2:
        raise ValueError(f"a share is written like 1/4 or 0.25, found {text[:MAX_SHARE]!r}")
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"a share is written like 1/4 or 0.25, found {text!r}") from None


def place(placement: Placement, count: int, depth: int) -> tuple[int, ...]:
    """0-based layers of `count` attention layers among `depth`.

    `front`, `middle` and `end` are contiguous runs. `spread` cuts the depth into `count` equal parts and takes the
    middle of each, which gives the paper's own layers for 1:1, 1:3 and 1:12 at 1B ({2,4,..}, {3,7,11}, {7}, 1-based).
    `sandwich` is a run of a third of them, (count + 1) // 3, at each end and the rest in the middle.

    >>> place("spread", 3, 13), place("middle", 3, 13), place("sandwich", 3, 13)
    ((2, 6, 10), (5, 6, 7), (0, 6, 12))
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
        case "sandwich":
            each = (count + 1) // 3
            return (*range(each), *place("middle", count - 2 * each, depth), *range(depth - each, depth))


def place_at(positions: tuple[float, ...], depth: int) -> tuple[int, ...]:
    """0-based layers of relative positions, 0 the first layer and 1 the last. Refused where two fall on one layer."""
    layers = tuple(sorted(floor(p * (depth - 1) + 0.5) for p in positions))
    if len(set(layers)) < len(layers):
        raise Refused(f"two of the positions {list(positions)} fall on one layer of {depth}")
    return layers


def read_layout(text: str) -> str:
    """`text` in the letters of LETTERS (T is A), one space between layouts. ValueError for any other letter."""
    if len(text) > MAX_LAYOUT:
        raise ValueError(f"a layout has at most {MAX_LAYOUT:,} letters, found {len(text):,}")
    layouts = text.upper().replace("T", "A").split()
    if not layouts:
        raise ValueError("a layout is a letter a layer, like MMHMMA, found none")
    for layout in layouts:
        for i, letter in enumerate(layout):
            if letter not in LETTERS:
                known = ", ".join(f"{letter} is {kind}" for letter, kind in LETTERS.items())
                raise ValueError(f"layout {layout}: letter {i + 1} is {letter!r}; {known}")
    if len({len(layout) for layout in layouts}) < len(layouts):
        raise ValueError(f"layout {text}: two layouts of one depth; several stand for one model at several depths")
    return " ".join(layouts)


def layout_at(layouts: str, depth: int) -> str:
    """The layout for `depth` layers: the one of that depth, or else the nearest in depth with each letter kept in its
    place and in its share. Refused where a letter would be lost.

    Layer after layer goes to the letter that is furthest behind the count that it has by then in the original, scaled
    to `depth` (error diffusion); the rarer letter goes first.

    >>> layout_at("MMHMMA", 6), layout_at("MMHMMA", 9), layout_at("MMMAMMMAMMMMM", 11)
    ('MMHMMA', 'MMMHHMMMA', 'MMMAMMAMMMM')
    """
    layout = min(layouts.split(), key=lambda each: abs(len(each) - depth))
    if len(layout) == depth:
        return layout
    letters = sorted(set(layout))
    given = dict.fromkeys(letters, 0)
    stack = []
    for layer in range(depth):
        end = Fraction((layer + 1) * len(layout), depth)
        whole = floor(end)
        due = {letter: Fraction(layout[:whole].count(letter)) for letter in letters}
        if whole < len(layout):
            due[layout[whole]] += end - whole
        behind = {letter: due[letter] * depth / len(layout) - given[letter] for letter in letters}
        letter = max(letters, key=lambda letter: (behind[letter], -layout.count(letter)))
        given[letter] += 1
        stack.append(letter)
    lost = [letter for letter in letters if not given[letter]]
    if lost:
        raise Refused(f"layout {layout} has no layer of {lost[0]} left at a depth of {depth}")
    return "".join(stack)
