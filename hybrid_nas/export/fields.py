"""Reading a configuration: a field with its default, and errors that name the field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hybrid_nas.export.format import CannotRead

NO_EFFECT = frozenset((
    "architectures", "model_type", "auto_map", "torch_dtype", "dtype", "transformers_version", "_name_or_path",
    "name_or_path", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id",
    "decoder_start_token_id", "unk_token_id", "sep_token_id", "use_cache", "return_dict", "output_hidden_states",
    "output_attentions", "output_router_logits", "id2label", "label2id", "problem_type", "chunk_size_feed_forward",
    "num_logits_to_keep", "calc_logits_for_entire_prompt", "attn_implementation", "_attn_implementation",
    "_attn_implementation_autoset", "pretraining_tp", "initializer_range", "rescale_prenorm_residual",
    "mamba_chunk_size", "chunk_size", "use_mamba_kernels", "use_mambapy", "use_associative_scan", "use_mem_eff_path",
    "mamba_ssm_cache_dtype", "time_step_max", "time_step_floor", "time_step_rank", "orig_max_position_embeddings",
    "fuse_norm", "fuse_swiglu", "fuse_cross_entropy", "use_l2warp", "attn_mode",
))  # fmt: skip
"""What a model computes is the same whatever these say: names, tokens, kernels, caches, and how weights begin."""
TRAINING = frozenset(("router_aux_loss_coef", "z_loss_coefficient"))
"""Of a training's loss; 0 and the classes' defaults are the same model."""
NEUTRAL: dict[str, Any] = {
    "hidden_act": "silu", "mamba_hidden_act": "silu", "attention_dropout": 0.0, "hidden_dropout": 0.0,
    "residual_in_fp32": False, "is_encoder_decoder": False, "sliding_window": None, "attention_bias": False,
    "mlp_bias": False, "num_nextn_predict_layers": 0, "use_long_context": False,
}  # fmt: skip
"""What an unread field says when the model is the one that is built here."""
ROPE = ("rope_theta", "rope_parameters", "rope_scaling", "rope_type", "partial_rotary_factor")


class Fields:
    """A model's config.json. `default` values are those of the transformers class, for fields that the file omits."""

    def __init__(self, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self.config, self.defaults = config, defaults
        self.seen: set[str] = set()
        self.rotates = False

    def __getitem__(self, name: str) -> Any:
        self.seen.add(name)
        value = self.config.get(name)
        return self.defaults.get(name) if value is None else value

    def count(self, name: str) -> int:
        """A positive whole number."""
        value = self[name]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise CannotRead(f"{name}: a positive whole number must stand here, found {value!r}")
        return value

    @property
    def rope_theta(self) -> float:
        self.rotates = True
        return float(self.rope_of("rope_theta") or 10_000.0)

    def rope_of(self, name: str) -> Any:
        """A value of `rope_parameters`, where newer configurations keep it, or of the field of that name."""
        self.seen.add(name)
        value = (self.config.get("rope_parameters") or {}).get(name)
        return self[name] if value is None else value

    def unread(self, *without_effect: str, **neutral: Any) -> tuple[str, ...]:
        """A note for each field of the file that nothing has read, unless it has no effect or says what is so here.
        `without_effect` and `neutral` are the format's own; to be asked when all else is read."""
        notes = []
        if self.rotates:
            notes += self._rope("partial_rotary_factor" in self.seen)
        skipped = {*NO_EFFECT, *TRAINING, *ROPE, *self.seen, *without_effect}
        known = {**NEUTRAL, **neutral}
        for name, value in self.config.items():
            if name in skipped or value is None or (name in known and value == known[name]):
                continue
            if name == "time_step_limit":
                if not _unbounded(value):
                    notes.append(f"time_step_limit is {value}: its time step is bounded, here it is not")
            elif name in known:
                notes.append(f"{name} is {value!r}; here it is {known[name]!r}")
            else:
                notes.append(f"{name} is {_short(value)}, which is not read: whatever it changes is not changed here")
        return tuple(notes)

    def _rope(self, factor_is_read: bool) -> list[str]:
        """What of RoPE is not the plain one."""
        notes = []
        for name in ("rope_parameters", "rope_scaling"):
            said = self.config.get(name) or {}
            kind = said.get("rope_type", said.get("type", "default")) or "default"
            if kind != "default":
                more = {k: v for k, v in said.items() if k not in ("rope_type", "type", "rope_theta")}
                notes.append(f"{name} is {kind} {_short(more)}; here RoPE is plain")
        kind = self["rope_type"]
        if kind not in (None, "default"):
            notes.append(f"rope_type is {kind}; here RoPE is plain")
        factor = self.rope_of("partial_rotary_factor")
        if not factor_is_read and factor not in (None, 1):
            notes.append(f"RoPE turns {factor:g} of each head; here it turns all of it")
        return notes

    def differs(self, **ours: Any) -> tuple[str, ...]:
        """A note for each field whose value is not the one that this project's model has."""
        return tuple(
            f"{name} is {self[name]!r}; here it is {value!r}" for name, value in ours.items() if self[name] != value
        )

    def untied(self, vocab: int, width: int) -> tuple[str, ...]:
        """The note for a classifier of its own, which this project's models do not have."""
        if self["tie_word_embeddings"]:
            return ()
        return (
            f"tie_word_embeddings is false; here embedding and classifier are one, {vocab * width:,} parameters fewer",
        )


def _unbounded(limit: Any) -> bool:
    """Whether a time_step_limit is none: from 0 to infinity, which JSON writes in several ways."""
    if not isinstance(limit, list | tuple) or len(limit) != 2:
        return False
    low, high = limit
    if isinstance(high, dict):
        high = high.get("__float__")
    try:
        return float(low) == 0 and math.isinf(float(high))
    except (TypeError, ValueError):
        return False


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
