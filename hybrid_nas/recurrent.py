"""Recurrent mixers beside Mamba-2: their dimensions, as `architecture` describes a mixer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hybrid_nas.dimensions import ADDED, multiple, positive


@dataclass(frozen=True)
class Mamba1:
    """Mamba [arXiv:2312.00752]: input projection to x and z; short convolution; dt, B, C from x, dt through `dt_rank`
    numbers; selective scan; gate; output. Each of `d_ssm` channels keeps a state of `d_state` numbers. `norms` puts an
    RMSNorm on dt, B and C each, as Jamba has it [arXiv:2403.19887, section 6.4]."""

    kind: ClassVar[str] = "mamba1"
    letter: ClassVar[str] = "1"

    d_ssm: int
    d_state: int
    dt_rank: int
    conv_kernel: int = 4
    norms: bool = field(default=False, metadata=ADDED)

    def __post_init__(self) -> None:
        positive(self, "d_ssm", "d_state", "dt_rank", "conv_kernel")


@dataclass(frozen=True)
class Mamba3:
    """Mamba-3 [arXiv:2603.15569], one input and one output a head: input projection to z, x, B, C, dt, A, trapezoid,
    angles; normed B and C with a bias a head; scan; gate; output. No convolution.

    `d_ssm` channels in heads of `head_dim`; each head keeps a state of head_dim x `d_state`, of which the first half
    turns in pairs. `groups` share B and C.
    """

    kind: ClassVar[str] = "mamba3"
    letter: ClassVar[str] = "3"

    d_ssm: int
    head_dim: int
    d_state: int
    groups: int = 1

    def __post_init__(self) -> None:
        positive(self, "d_ssm", "head_dim", "d_state", "groups")
        multiple(self, "d_ssm", "head_dim")
        multiple(self, "heads", "groups")
        if self.d_state < 4:
            raise ValueError(f"mamba3: half of d_state turns in pairs, so it must be 4 or more, found {self.d_state}")

    @property
    def heads(self) -> int:
        return self.d_ssm // self.head_dim

    @property
    def pairs(self) -> int:
        """Pairs of the state that turn: half of the state, in pairs."""
        return self.d_state // 4


@dataclass(frozen=True)
class GatedDeltaNet:
    """Gated DeltaNet [arXiv:2412.06464]: queries, keys and values through short convolutions, the first two of unit
    length; gated delta rule; norm a head; gate; output. Each head keeps a state of `key_dim` x `value_dim`."""

    kind: ClassVar[str] = "gated_deltanet"
    letter: ClassVar[str] = "G"

    heads: int
    key_dim: int
    value_dim: int
    conv_kernel: int = 4

    def __post_init__(self) -> None:
        positive(self, "heads", "key_dim", "value_dim", "conv_kernel")

    @property
    def keys(self) -> int:
        """Channels of all keys together, and of all queries."""
        return self.heads * self.key_dim

    @property
    def values(self) -> int:
        """Channels of all values together."""
        return self.heads * self.value_dim
