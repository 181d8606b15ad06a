"""Block sizes of the kernel by the shape of the weight: README.md has the times that the rule is drawn from."""

from __future__ import annotations

from typing import NamedTuple

ROWS = 8
"""Most tokens: the columns of the tensor cores' smallest product."""


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

LEAST_CHANNELS = 2048
"""Of the input: fewer were not timed."""
LEAST_PARTED = 4096
"""Channels from which four parts are faster than cuBLAS: at 2,048 they are not."""
FEW_OUTPUTS = (1536, 2560)
"""Whose 24 to 40 programs are, by 4 parts, 0.7 to 1.2 for each of an H100's 132 multiprocessors."""
MANY_OUTPUTS = 6144
"""96 programs of one part."""
VERY_MANY_OUTPUTS = 65_536
"""From which narrow programs, of which many run beside one another, keep the most loads under way."""


def blocks_of(outputs: int, channels: int) -> Blocks | None:
    """The blocks for a weight (outputs, channels); None where cuBLAS was faster or nothing like it was timed."""
    if channels < LEAST_CHANNELS:
        return None
    if outputs >= VERY_MANY_OUTPUTS:
        return NARROW
    if outputs >= MANY_OUTPUTS:
        return WHOLE
    if FEW_OUTPUTS[0] <= outputs <= FEW_OUTPUTS[1] and channels >= LEAST_PARTED:
        return PARTED
    return None
