"""What the blocks read of a configuration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HybridConfig:
    hidden_size: int
    rms_norm_eps: float
    initializer_range: float
