"""A hybrid language model for transformers: every block as its configuration spells it, in plain PyTorch.

Self-contained: the files beside it are all that `AutoModelForCausalLM.from_pretrained(DIR, trust_remote_code=True)`
needs. A block is x + mixer(norm(x)), then x + ffn(norm(x)); either part may be absent.
"""

from __future__ import annotations

from dataclasses import make_dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel
from transformers.generation.utils import ALL_CACHE_NAMES
from transformers.utils import ModelOutput

from .configuration_hybrid import HybridConfig
from .hybrid_blocks import Block
from .hybrid_ffn import SwiGLU  # noqa: F401  older versions of transformers copy only the files that this one imports
from .hybrid_mixers import Layer, RMSNorm
from .hybrid_recurrent import Mamba1  # noqa: F401


class HybridCache:
    """What decoding keeps: a dict of tensors a layer, and the positions of the tokens read so far.

    Attention keeps keys (turned by RoPE), values and their positions, of a window no more than it can still see;
    recurrent mixers keep the last inputs of their convolution and their state.
    """

    def __init__(self, layers: int) -> None:
        self.layers: list[Layer] = [{} for _ in range(layers)]
        self.seen = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen

    def reorder_cache(self, beam_idx: Tensor) -> None:
        for layer in self.layers:
            for name, tensor in layer.items():
                layer[name] = tensor.index_select(0, beam_idx.to(tensor.device))


CACHE = ALL_CACHE_NAMES[0]  # "cache" in newer versions of transformers, "past_key_values" in older ones
HybridOutput = make_dataclass(
    "HybridOutput",
    [(name, Any, None) for name in ("loss", "logits", "last_hidden_state", "hidden_states", CACHE)],
    bases=(ModelOutput,),
)


class HybridPreTrainedModel(PreTrainedModel):
    config_class = HybridConfig
    base_model_prefix = "model"
    _no_split_modules = ("Block",)
    _supports_sdpa = True
    _is_stateful = True
    supports_gradient_checkpointing = True

    def _init_weights(self, module: nn.Module) -> None:
        """What each mixer says of its own beginning, beside normal weights: a model to train from."""
        super()._init_weights(module)
        if hasattr(module, "begin"):
            with torch.no_grad():
                module.begin()


class HybridModel(HybridPreTrainedModel):
    def __init__(self, config: HybridConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(spec, config) for spec in config.blocks)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embed_tokens = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache: HybridCache | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> ModelOutput:
        """`hidden_states`, where asked for: (batch, tokens, width) after the embedding and after each block, the last
        one normalised."""
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if cache is None and use_cache:
            cache = HybridCache(len(self.blocks))
        positions = self._positions(x, attention_mask, 0 if cache is None else cache.seen)
        states = [x]
        for i, block in enumerate(self.blocks):
            if self.gradient_checkpointing and self.training and cache is None:
                x = self._gradient_checkpointing_func(block.__call__, x, positions, None)
            else:
                x = block(x, positions, None if cache is None else cache.layers[i])
            states.append(x)
        if cache is not None:
            cache.seen += x.shape[1]
        states[-1] = x = self.norm(x)
        shown = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return HybridOutput(last_hidden_state=x, hidden_states=tuple(states) if shown else None, **{CACHE: cache})

    def _positions(self, x: Tensor, mask: Tensor | None, seen: int) -> Tensor:
        """Position of each token of x in its sequence; -1 for padding, which the mask has as 0."""
        if mask is None:
            return torch.arange(seen, seen + x.shape[1], device=x.device).expand(x.shape[0], -1)
        real = mask.bool()
        positions = (real.long().cumsum(1) - 1).masked_fill(~real, -1)
        return positions[:, -x.shape[1] :]


class HybridForCausalLM(HybridPreTrainedModel, GenerationMixin):
    _tied_weights_keys: ClassVar = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: HybridConfig) -> None:
        super().__init__(config)
        self.model = HybridModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: HybridCache | None = None,
        cache: HybridCache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> ModelOutput:
        """logits (batch, tokens, vocab) of the token after each; `loss` in nats a token where labels are given."""
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training and labels is None
        output = self.model(
            input_ids,
            attention_mask,
            inputs_embeds,
            cache=past_key_values if cache is None else cache,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
        )
        logits = self.lm_head(output.last_hidden_state[:, -logits_to_keep if logits_to_keep else 0 :])
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)
        states = output.get("hidden_states")
        return HybridOutput(loss=loss, logits=logits, hidden_states=states, **{CACHE: output.get(CACHE)})

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        cache = kwargs.get("cache") if kwargs.get("cache") is not None else kwargs.get("past_key_values")
        use_cache = kwargs.get("use_cache", True) is not False
        if cache is None and use_cache:
            cache = HybridCache(self.config.num_hidden_layers)
        return {
            "input_ids": input_ids if cache is None else input_ids[:, cache.seen :],
            "attention_mask": kwargs.get("attention_mask"),
            "cache": cache,
            "use_cache": use_cache,
            "logits_to_keep": 1,
        }


HybridConfig.register_for_auto_class()
HybridForCausalLM.register_for_auto_class("AutoModelForCausalLM")
