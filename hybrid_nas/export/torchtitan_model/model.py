"""The model as TorchTitan trains it: data parallel by FSDP2; neither tensor nor pipeline parallel.

Documents that are packed into one sequence are not told apart: attention and recurrent states cross their borders.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torchtitan.config import TORCH_DTYPE_MAP
from torchtitan.distributed.compile import apply_compile
from torchtitan.distributed.fsdp import apply_fsdp_to_decoder
from torchtitan.protocols.model import BaseModel

from .configuration_hybrid import HybridConfig
from .hybrid_blocks import Block
from .hybrid_mixers import RMSNorm


class HybridModel(BaseModel):
    """Embedding, blocks, norm, and a classifier that shares the embedding's weights."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseModel.Config):
        dim: int
        vocab_size: int
        norm_eps: float
        blocks: list[dict[str, Any]] = field(default_factory=list)
        flops_per_token: float = 0.0
        initializer_range: float = 0.02

        def update_from_config(self, *, config: Any, **kwargs: Any) -> None:
            parallelism = config.parallelism
            for name in ("tensor_parallel_degree", "pipeline_parallel_degree", "context_parallel_degree"):
                if getattr(parallelism, name) > 1:
                    raise ValueError(f"{name}: this model is data parallel alone, found {getattr(parallelism, name)}")

        def get_nparams_and_flops(self, model: nn.Module, seq_len: int) -> tuple[int, int]:
            return sum(p.numel() for p in model.parameters()), round(self.flops_per_token)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        described = HybridConfig(config.dim, config.norm_eps, config.initializer_range)
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleDict({str(i): Block(spec, described) for i, spec in enumerate(config.blocks)})
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.lm_head = nn.Linear(config.dim, config.vocab_size, bias=False)
        self.enable_weight_tying = True
        self._tie()

    def _tie(self) -> None:
        self.lm_head.weight = self.tok_embeddings.weight

    def verify_module_protocol(self) -> None:
        """The blocks are plain modules of PyTorch, which this class initialises by itself."""

    def init_states(self, *, buffer_device: torch.device | None = None) -> None:
        """Normal projections, norms of one, and what each mixer says of its own beginning."""
        self._tie()
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Linear | nn.Embedding):
                    module.weight.normal_(0.0, self.config.initializer_range)
                    if getattr(module, "bias", None) is not None:
                        module.bias.zero_()
                elif isinstance(module, nn.Conv1d):
                    module.reset_parameters()
                elif isinstance(module, RMSNorm):
                    module.weight.fill_(1.0)
            for module in self.modules():
                if hasattr(module, "begin"):
                    module.begin()

    def forward(self, tokens: Tensor, positions: Tensor | None = None, attention_masks: Any = None) -> Tensor:
        """tokens (batch, tokens) -> logits (batch, tokens, vocab)."""
        x = self.tok_embeddings(tokens)
        at = torch.arange(x.shape[1], device=x.device).expand(x.shape[0], -1)
        for layer in self.layers.values():
            x = layer(x, at, None)
        return self.lm_head(self.norm(x))


def parallelize_hybrid(
    model: HybridModel,
    *,
    parallel_dims: Any,
    training: Any,
    parallelism: Any,
    compile_config: Any,
    ac_config: Any,
    dump_folder: str,
) -> HybridModel:
    """Activation checkpointing, compilation and FSDP2, as TorchTitan applies them to a decoder."""
    if ac_config is not None:
        ac_config.build(dump_folder=dump_folder).apply(model)
    if compile_config.enable and "model" in compile_config.components:
        apply_compile(model, compile_config=compile_config, parallel_dims=parallel_dims)
    names = ["dp_replicate", "fsdp"] if parallel_dims.dp_replicate_enabled else ["fsdp"]
    apply_fsdp_to_decoder(
        model,
        parallel_dims.get_mesh(names),
        param_dtype=TORCH_DTYPE_MAP[training.mixed_precision_param],
        reduce_dtype=TORCH_DTYPE_MAP[training.mixed_precision_reduce],
        pp_enabled=False,
        cpu_offload=training.enable_cpu_offload,
        reshard_after_forward_policy=parallelism.fsdp_reshard_after_forward,
    )
    return model
