"""Feed-forward networks of a hybrid language model."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_hybrid import HybridConfig


class SwiGLU(nn.Module):
    def __init__(self, spec: dict[str, Any], config: HybridConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.hidden_size, spec["hidden"], bias=False)
        self.up = nn.Linear(config.hidden_size, spec["hidden"], bias=False)
        self.down = nn.Linear(spec["hidden"], config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class SquaredReLU(nn.Module):
    def __init__(self, spec: dict[str, Any], config: HybridConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, spec["hidden"], bias=False)
        self.down = nn.Linear(spec["hidden"], config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)).square())
