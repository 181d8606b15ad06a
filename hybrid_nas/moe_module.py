"""The torch module of a mixture of experts."""

from __future__ import annotations

import torch
from hybrid_nas_kernels import experts as experts_op
from hybrid_nas_kernels import swiglu as swiglu_op
from torch import Tensor, nn

from hybrid_nas.mixer_module import NORM_EPS, draw_linear, normed
from hybrid_nas.moe import BALANCE_STEP, MoE


class MoEModule(nn.Module):
    """A shared expert for every token, and those that the router picks, each weighed by its score. The scores are not
    made to sum to 1: with one expert active its weight would be 1, and the router would learn nothing.

    `balance` counts for each expert the training steps in which it had fewer tokens than its even share, less those in
    which it had more. Whole numbers, so that they are exact in every dtype and no gradient touches them.
    """

    balance: Tensor

    def __init__(self, ffn: MoE, width: int) -> None:
        super().__init__()
        self.ffn = ffn
        self.router = nn.Linear(width, ffn.experts, bias=False)
        self.gate = nn.Parameter(torch.empty(ffn.experts, ffn.hidden, width))
        self.up = nn.Parameter(torch.empty(ffn.experts, ffn.hidden, width))
        self.down = nn.Parameter(torch.empty(ffn.experts, width, ffn.hidden))
        self.shared_gate = nn.Linear(width, ffn.hidden, bias=False)
        self.shared_up = nn.Linear(width, ffn.hidden, bias=False)
        self.shared_down = nn.Linear(ffn.hidden, width, bias=False)
        self.register_buffer("balance", torch.zeros(ffn.experts, dtype=torch.long))

    def forward(self, x: Tensor, norm: Tensor | None) -> Tensor:
        shared = (self.shared_gate.weight, self.shared_up.weight, self.shared_down.weight)
        y = swiglu_op.swiglu(x, norm, *shared, eps=NORM_EPS)
        n = (x if norm is None else normed(x, norm)).reshape(-1, x.shape[-1])
        chosen, weight = self.route(n)
        if self.training and torch.is_grad_enabled():
            self._move(chosen)
        return y + experts_op.experts(n, chosen, weight, self.gate, self.up, self.down).view(y.shape)

    def step(self, n: Tensor) -> Tensor:
        """Of n (batch, width) behind the norm, in decoding."""
        return self.forward(n, None)

    def route(self, n: Tensor) -> tuple[Tensor, Tensor]:
        """The experts of each row of n (tokens, width), and their weights, both (tokens, active). The bias picks and
        does not weigh."""
        score = torch.sigmoid(self.router(n).float())
        chosen = torch.topk(score.detach() + BALANCE_STEP * self.balance, self.ffn.active, dim=-1).indices
        return chosen, score.gather(-1, chosen)

    @torch.no_grad()
    def _move(self, chosen: Tensor) -> None:
        """Move the bias of each expert against its load, for the next step [arXiv:2408.15664, algorithm 1]."""
        flat = chosen.flatten()
        load = torch.zeros_like(self.balance).scatter_add_(0, flat, torch.ones_like(flat))
        self.balance += torch.sign(len(flat) - load * self.ffn.experts)

    def reset(self, generator: torch.Generator, residual_scale: float) -> None:
        """Every expert is drawn as a SwiGLU of its own, the shared one first."""
        for projection in (self.shared_gate, self.shared_up, self.shared_down, self.router):
            draw_linear(projection.weight, generator)
        for weights in (self.gate, self.up, self.down):
            for weight in weights:
                draw_linear(weight, generator)
        self.shared_down.weight.data.mul_(residual_scale)
        self.down.data.mul_(residual_scale)
        self.balance.zero_()

    def implementations(self, device: torch.device) -> dict[str, str]:
        name, _ = experts_op.choose(device, self.gate.dtype, self.gate.shape[2], self.ffn.hidden)
        return {"swiglu": swiglu_op.choose(device)[0], "experts": name}
