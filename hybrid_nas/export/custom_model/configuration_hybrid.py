"""Configuration of a hybrid language model: its blocks, each with every dimension."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class HybridConfig(PretrainedConfig):
    """`blocks` is a list of {"mixer": ..., "ffn": ...}, each a dict with its `kind` and dimensions, or None."""

    model_type = "hybrid_nas"

    def __init__(
        self,
        blocks: list[dict[str, Any]] | None = None,
        hidden_size: int = 64,
        vocab_size: int = 256,
        max_position_embeddings: int = 2048,
        rms_norm_eps: float = 1e-5,
        initializer_range: float = 0.02,
        use_cache: bool = True,
        **kwargs: Any,
    ) -> None:
        self.blocks = blocks or []
        self.hidden_size = hidden_size
        self.vocab_size = vocab_size
        self.num_hidden_layers = len(self.blocks)
        self.max_position_embeddings = max_position_embeddings
        self.rms_norm_eps = rms_norm_eps
        self.initializer_range = initializer_range
        self.use_cache = use_cache
        kwargs.setdefault("tie_word_embeddings", True)
        super().__init__(**kwargs)
