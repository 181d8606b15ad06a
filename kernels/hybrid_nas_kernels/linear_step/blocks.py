"""Block sizes of the kernel by the shape of the weight: README.md has the times that the rule is drawn from."""

from __future__ import annotations

from functools import lru_cache
from math import log
from typing import NamedTuple

from hybrid_nas_kernels.dispatch import package

ROWS = 8
"""Most tokens: the columns of the tensor cores' smallest product."""
OLDEST_TRITON = (3, 5)
"""Older ones compile no product of so few columns."""


class Blocks(NamedTuple):
    """Rows of the weight a program, channels of the input at a time, parts of the input that are programs of their own,
    warps, and stages: one less is how many loads are under way."""

    rows: int
    channels: int
    splits: int
    warps: int
    stages: int

    def parts(self, channels: int) -> tuple[int, int]:
        """Channels of a part, a multiple of `self.channels`, and how many parts so many channels then are."""
        part = -(-channels // (self.splits * self.channels)) * self.channels
        return part, -(-channels // part)

    def __str__(self) -> str:
        return f"{self.rows} x {self.channels}, {self.splits} parts, {self.warps} warps, {self.stages} stages"


WHOLE = Blocks(64, 128, 1, 4, 5)
PARTED = Blocks(64, 128, 4, 4, 5)
NARROW = Blocks(16, 256, 1, 2, 6)

TIMED = {
    (6848, 2048): WHOLE,
    (8480, 2048): WHOLE,
    (16_384, 2048): WHOLE,
    (2048, 2048): PARTED,
    (2048, 4096): PARTED,
    (2048, 4352): PARTED,
    (2048, 8192): PARTED,
    (128_256, 2048): NARROW,
}
"""(outputs, channels) at which the kernel was timed, with TIMED_ROWS rows, and was faster than cuBLAS; at 2,048 x 2,048
where the norm that follows adds the parts."""
TIMED_ROWS = 4

CHANNELS = (2048, 8192)
"""Of the input, least and most: fewer and more were not timed."""
LEAST_ADDED = 4096
"""Channels from which four parts and the launch that adds them are faster than cuBLAS: at 2,048 they are not, but there
too where the norm that follows adds them."""
FEW_OUTPUTS = (1536, 2560)
"""Whose 24 to 40 programs are, by 4 parts, 0.7 to 1.2 for each of an H100's 132 multiprocessors."""
MANY_OUTPUTS = (6144, 16_384)
"""From 96 programs of one part to the most that were timed."""
VERY_MANY_OUTPUTS = (65_536, 262_144)
"""From half to twice the classifier that was timed: narrow programs, of which many run beside one another, keep the
most loads under way."""


def blocks_of(outputs: int, channels: int, left: bool = False) -> Blocks | None:
    """The blocks for a weight (outputs, channels); None where cuBLAS was faster or nothing like it was timed. `left`:
    parts are left to who reads them."""
    if not CHANNELS[0] <= channels <= CHANNELS[1]:
        return None
    if VERY_MANY_OUTPUTS[0] <= outputs <= VERY_MANY_OUTPUTS[1]:
        return NARROW
    if MANY_OUTPUTS[0] <= outputs <= MANY_OUTPUTS[1]:
        return WHOLE
    if FEW_OUTPUTS[0] <= outputs <= FEW_OUTPUTS[1] and (left or channels >= LEAST_ADDED):
        return PARTED
    return None


@lru_cache(maxsize=256)
def evidence(rows: int, outputs: int, channels: int, left: bool = False) -> str:
    """What was timed, for a shape that `blocks_of` has blocks for: that shape, or the nearest of the same blocks."""
    blocks = blocks_of(outputs, channels, left)
    known = [shape for shape, those in TIMED.items() if those == blocks and (left or shape != (2048, 2048))]
    near = min(known, key=lambda shape: abs(log(shape[0] / outputs)) + abs(log(shape[1] / channels)))
    timed = f"faster than cuBLAS at {near[0]:,} x {near[1]:,} and {TIMED_ROWS} rows, timed on an H100"
    if (*near, TIMED_ROWS) == (outputs, channels, rows):
        return timed
    return f"not timed at {outputs:,} x {channels:,} and {rows} rows; the nearest that was: {timed}"


@lru_cache(maxsize=1)
def too_old() -> str:
    """That this Triton does not compile the kernel, where it does not."""
    found = package("triton").__version__
    if tuple(map(int, found.split(".")[:2])) >= OLDEST_TRITON:
        return ""
    oldest = ".".join(map(str, OLDEST_TRITON))
    return f"Triton {found} compiles no product of {ROWS} columns, {oldest} and newer do"
