"""The torch model of an Architecture: forward over a sequence, and decoding a token at a time with a static cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from hybrid_nas_kernels import cross_entropy as cross_entropy_op
from hybrid_nas_kernels import embedding as embedding_op
from hybrid_nas_kernels import norm_linear as norm_linear_op
from hybrid_nas_kernels import swiglu as swiglu_op
from hybrid_nas_kernels.adjacent import adjoin
from hybrid_nas_kernels.linear_step import linear_step, linear_step_parts
from torch import Tensor, nn
from torch.nn import functional as F

from hybrid_nas.architecture import FFN, Architecture, Block, SquaredReLU, SwiGLU
from hybrid_nas.heads import AttentionHeads, Mamba2Heads
from hybrid_nas.mixer_module import NORM_EPS, Gain, LayerCache, MambaInit, draw_linear, project
from hybrid_nas.mixers import MODULES
from hybrid_nas.moe import MoE
from hybrid_nas.moe_module import MoEModule
from hybrid_nas.parallel import ParallelHybridModule


class SwiGLUModule(nn.Module):
    """down(silu(gate(n)) * up(n)), n = rms_norm(x) * norm [arXiv:2002.05202]."""

    def __init__(self, ffn: SwiGLU, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, ffn.hidden, bias=False)
        self.up = nn.Linear(width, ffn.hidden, bias=False)
        self.down = nn.Linear(ffn.hidden, width, bias=False)

    def forward(self, x: Tensor, norm: Tensor | None) -> Tensor:
        return swiglu_op.swiglu(x, norm, self.gate.weight, self.up.weight, self.down.weight, eps=NORM_EPS)

    def step(self, n: Tensor) -> Tensor:
        """Of n (batch, width) behind the norm in decoding: (batch, width), or parts of it still to be added."""
        return swiglu_op.swiglu_step(n, self.gate.weight, self.up.weight, self.down.weight)

    def read_together(self) -> list[Tensor]:
        """The weights that read the layer's input."""
        return [self.gate.weight, self.up.weight]

    def reset(self, generator: torch.Generator, residual_scale: float) -> None:
        for projection in (self.gate, self.up, self.down):
            draw_linear(projection.weight, generator)
        self.down.weight.data.mul_(residual_scale)

    def implementations(self, device: torch.device) -> dict[str, str]:
        return {"swiglu": swiglu_op.choose(device)[0]}


class SquaredReLUModule(nn.Module):
    """down(relu(up(n)) ** 2), n = rms_norm(x) * norm [arXiv:2109.08668]."""

    def __init__(self, ffn: SquaredReLU, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, ffn.hidden, bias=False)
        self.down = nn.Linear(ffn.hidden, width, bias=False)

    def forward(self, x: Tensor, norm: Tensor | None) -> Tensor:
        (hidden,) = project(x, norm, self.up.weight, [self.up.out_features])
        out: Tensor = self.down(F.relu(hidden).square())
        return out

    def step(self, n: Tensor) -> Tensor:
        """As SwiGLU's."""
        return linear_step_parts(F.relu(linear_step(n, self.up.weight)).square(), self.down.weight)

    def reset(self, generator: torch.Generator, residual_scale: float) -> None:
        for projection in (self.up, self.down):
            draw_linear(projection.weight, generator)
        self.down.weight.data.mul_(residual_scale)

    def implementations(self, device: torch.device) -> dict[str, str]:
        return {"norm_linear": norm_linear_op.choose(device)[0]}


FFN_MODULES: dict[type[FFN], Callable[..., SwiGLUModule | SquaredReLUModule | MoEModule]] = {
    SwiGLU: SwiGLUModule,
    SquaredReLU: SquaredReLUModule,
    MoE: MoEModule,
}


class BlockModule(nn.Module):
    """x + mixer(norm(x)), then x + ffn(norm(x)); either part may be absent."""

    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.mixer_norm = self.mixer = self.ffn_norm = self.ffn = None
        if block.mixer is not None:
            self.mixer_norm = Gain(width)
            self.mixer = MODULES[type(block.mixer)](block.mixer, width)
        if block.ffn is not None:
            self.ffn_norm = Gain(width)
            self.ffn = FFN_MODULES[type(block.ffn)](block.ffn, width)

    def forward(self, x: Tensor) -> Tensor:
        if self.mixer is not None and self.mixer_norm is not None:
            x = x + self.mixer(x, self.mixer_norm.weight)
        if self.ffn is not None and self.ffn_norm is not None:
            x = x + self.ffn(x, self.ffn_norm.weight)
        return x

    def follow(self, x: Tensor, added: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """`forward` of x + `added`, as two parts that are still to be added: so each sum is taken together with the
        norm that reads it."""
        for norm, part in ((self.mixer_norm, self.mixer), (self.ffn_norm, self.ffn)):
            if norm is not None and part is not None:
                x, n = norm_linear_op.add_rms_norm(x, added, norm.weight, eps=NORM_EPS)
                added = part(n, None)
        return x, added

    def step(self, x: Tensor, added: Tensor | None, cache: LayerCache, position: int) -> tuple[Tensor, Tensor | None]:
        """`follow` for one token, x (batch, width); updates `cache` in place. `added` may be parts
        (parts, batch, width), which `add_rms_norm` adds up."""
        if self.mixer is not None and self.mixer_norm is not None:
            x, n = norm_linear_op.add_rms_norm(x, added, self.mixer_norm.weight, eps=NORM_EPS)
            added = self.mixer.step(n, cache, position)
        if self.ffn is not None and self.ffn_norm is not None:
            x, n = norm_linear_op.add_rms_norm(x, added, self.ffn_norm.weight, eps=NORM_EPS)
            added = self.ffn.step(n)
        return x, added


@dataclass
class Cache:
    """All that decoding keeps: a dict of tensors a layer, and how many tokens have been read."""

    layers: list[LayerCache]
    context: int
    position: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of every tensor, for the whole batch."""
        return sum(tensor.nbytes for layer in self.layers for tensor in layer.values())


class Model(nn.Module):
    """A causal language model. Weights are undefined until `build` has drawn them."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.embedding = nn.Parameter(torch.empty(architecture.vocab, architecture.width))
        self.blocks = nn.ModuleList(BlockModule(block, architecture.width) for block in architecture.blocks)
        self.norm = Gain(architecture.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (batch, tokens) int64 -> logits (batch, tokens, vocab) of the token that follows each."""
        x = F.embedding(tokens, self.embedding)
        for block in self.blocks:
            x = block(x)
        return self._classify(x)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of `forward(tokens)` with `targets` (batch, tokens) int64, nats per token."""
        return cross_entropy_op.cross_entropy(self(tokens), targets)

    def losses(self, tokens: Tensor, targets: Tensor, row_weights: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of each token's cross-entropy times its weight (batch, tokens), and the cross-entropies
        (batch * tokens,), nats, which carry no gradient. The logits of all tokens need not exist at once."""
        x, added = embedding_op.embedding(tokens, self.embedding), None
        for block in self._blocks():
            x, added = block.follow(x, added)
        _, n = norm_linear_op.add_rms_norm(x, added, self.norm.weight, eps=NORM_EPS)
        return cross_entropy_op.linear_cross_entropy(
            n.flatten(0, 1), self.embedding, targets.reshape(-1), row_weights.reshape(-1)
        )

    def cache(self, batch: int, context: int, dtype: torch.dtype | None = None) -> Cache:
        """An empty cache for `batch` sequences of up to `context` tokens, by default in the model's dtype."""
        if batch < 1 or context < 1:
            raise ValueError(f"cache: batch and context must be at least 1, found {batch} and {context}")
        device, dtype = self.embedding.device, dtype or self.embedding.dtype
        layers = [{} if b.mixer is None else b.mixer.cache(batch, context, device, dtype) for b in self._blocks()]
        return Cache(layers, context)

    @torch.no_grad()
    def step(self, token: Tensor, cache: Cache) -> Tensor:
        """token (batch,) int64, the next of each sequence -> logits (batch, vocab); updates `cache` in place."""
        if cache.position >= cache.context:
            raise ValueError(f"step: the cache holds {cache.context} tokens and is full; make one of a longer context")
        x, added = F.embedding(token, self.embedding), None
        for block, layer in zip(self._blocks(), cache.layers, strict=True):
            x, added = block.step(x, added, layer, cache.position)
        cache.position += 1
        _, n = norm_linear_op.add_rms_norm(x, added, self.norm.weight, eps=NORM_EPS)
        return linear_step(n, self.embedding)

    def adjoin(self) -> Model:
        """Lay weights that one product can read side by side in memory, for decoding; they stay what they are. Not for
        a model whose weights somebody else's tensors hold, as a captured training's do. Returns the model."""
        for module in self.modules():
            if isinstance(module, AttentionHeads | Mamba2Heads | ParallelHybridModule | SwiGLUModule):
                adjoin(module.read_together())
            if isinstance(module, ParallelHybridModule) and len(module.summed_together()) > 1:
                adjoin(module.summed_together(), dim=1)
        return self

    def implementations(self) -> dict[str, str]:
        """operation -> the implementation that training runs."""
        device = self.embedding.device
        chosen = {
            "norm_linear": norm_linear_op.choose(device)[0],
            "cross_entropy": cross_entropy_op.choose(device)[0],
        }
        for block in self._blocks():
            if block.mixer is not None:
                chosen.update(block.mixer.implementations(device))
            if block.ffn is not None:
                chosen.update(block.ffn.implementations(device))
        return chosen

    def _classify(self, x: Tensor) -> Tensor:
        return norm_linear_op.norm_linear(x, self.norm.weight, self.embedding, [len(self.embedding)], eps=NORM_EPS)[0]

    def _blocks(self) -> list[BlockModule]:
        return [block for block in self.blocks if isinstance(block, BlockModule)]


def build(
    architecture: Architecture,
    *,
    generator: torch.Generator | int,
    mamba_init: MambaInit = "paper",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Model:
    """The model of `architecture` with initial weights drawn from `generator` (a CPU generator, or its seed).

    Weights are drawn in float32 on the CPU and then moved, so a seed gives one model on every device. Projections
    are normal of standard deviation fan_in ** -0.5, those that write to the residual stream divided by the root of
    the number of branches; the tied embedding width ** -0.5, which gives logits of about unit size.
    """
    if mamba_init not in ("paper", "original"):
        raise ValueError(f'build: mamba_init must be "paper" or "original", found {mamba_init!r}')
    if isinstance(generator, int):
        generator = torch.Generator().manual_seed(generator)
    with torch.device("meta"):  # torch's own initialisation would be slow, and would draw from the global generator
        model = Model(architecture)
    _allocate(model)
    branches = sum((b.mixer is not None) + (b.ffn is not None) for b in architecture.blocks)
    model.embedding.data.normal_(0.0, architecture.width**-0.5, generator=generator)
    for module in model.modules():
        if isinstance(module, Gain):
            module.weight.data.fill_(1.0)
    for block in model._blocks():
        if block.mixer is not None:
            block.mixer.reset(generator, branches**-0.5, mamba_init)
        if block.ffn is not None:
            block.ffn.reset(generator, branches**-0.5)
    return model.to(device=device, dtype=dtype)


def _allocate(model: Model) -> None:
    """As `to_empty(device="cpu")`, which from a meta tensor imports sympy: half a second of a first step."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            empty = torch.empty(parameter.shape, dtype=parameter.dtype)
            setattr(module, name, nn.Parameter(empty, requires_grad=parameter.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))
