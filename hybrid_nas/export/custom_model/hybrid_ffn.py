"""Feed-forward networks of a hybrid language model."""

from __future__ import annotations

from typing import Any

import torch
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


class MoE(nn.Module):
    """A shared expert for every token, and those that the router picks, each weighed by its sigmoid score.

    `balance`, a count for each expert that training moves against its load, picks and does not weigh
    [arXiv:2408.15664]. Every expert that was picked is run on its own tokens.
    """

    STEP = 1e-3

    def __init__(self, spec: dict[str, Any], config: HybridConfig) -> None:
        super().__init__()
        self.experts, self.active, hidden, width = spec["experts"], spec["active"], spec["hidden"], config.hidden_size
        self.router = nn.Linear(width, self.experts, bias=False)
        self.gate = nn.Parameter(torch.empty(self.experts, hidden, width))
        self.up = nn.Parameter(torch.empty(self.experts, hidden, width))
        self.down = nn.Parameter(torch.empty(self.experts, width, hidden))
        self.shared_gate = nn.Linear(width, hidden, bias=False)
        self.shared_up = nn.Linear(width, hidden, bias=False)
        self.shared_down = nn.Linear(hidden, width, bias=False)
        self.register_buffer("balance", torch.zeros(self.experts, dtype=torch.long))
        self.spread = config.initializer_range

    def forward(self, x: Tensor) -> Tensor:
        shared = self.shared_down(F.silu(self.shared_gate(x)) * self.shared_up(x))
        flat = x.flatten(0, -2)
        score = torch.sigmoid(self.router(flat).float())
        chosen = torch.topk(score.detach() + self.STEP * self.balance, self.active, dim=-1).indices
        weight = score.gather(-1, chosen).to(x.dtype)
        if self.training and torch.is_grad_enabled():
            load = torch.bincount(chosen.flatten(), minlength=self.experts)
            self.balance += torch.sign(chosen.numel() - load * self.experts)
        y = torch.zeros_like(flat)
        for expert in range(self.experts):
            rows, place = torch.where(chosen == expert)
            part = flat[rows]
            part = F.silu(F.linear(part, self.gate[expert])) * F.linear(part, self.up[expert])
            y = y.index_add(0, rows, F.linear(part, self.down[expert]) * weight[rows, place, None])
        return shared + y.view_as(shared)

    def begin(self) -> None:
        for weights in (self.gate, self.up, self.down):
            weights.normal_(0.0, self.spread)
        self.balance.zero_()
