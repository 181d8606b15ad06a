"""A mixture of experts in place of a feed-forward network: its dimensions, as `architecture` describes an FFN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hybrid_nas.dimensions import positive

BALANCE_STEP = 1e-3
"""By how much a step of training moves the bias of an expert [arXiv:2510.04800, Table 4]."""


@dataclass(frozen=True)
class MoE:
    """A shared expert for every token, and `active` of `experts` others that a router picks for it, each a SwiGLU of
    `hidden` channels.

    The router scores every expert with a sigmoid, independent of the others. A bias for each expert, moved against its
    load and not learned, is added to the scores to pick, but not to weigh [arXiv:2408.15664].
    """

    kind: ClassVar[str] = "moe"

    hidden: int
    experts: int
    active: int = 1

    def __post_init__(self) -> None:
        positive(self, "hidden", "experts", "active")
        if self.active > self.experts:
            raise ValueError(f"moe: at most all {self.experts} experts can be active, found active={self.active}")
