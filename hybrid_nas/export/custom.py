"""Our own model as a transformers custom model: every design, loaded with trust_remote_code and without this package.

The files of `custom_model` are copied into the folder beside the configuration, which spells every block.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hybrid_nas.architecture import FFN, Architecture, Mixer, ParallelHybrid
from hybrid_nas.export.fields import Fields
from hybrid_nas.export.format import CannotRead, Files, Format, Imported, Rule, WeightMap
from hybrid_nas.recurrent import Mamba1

CODE = Path(__file__).parent / "custom_model"
MODULES = ("hybrid_blocks.py", "hybrid_mixers.py", "hybrid_recurrent.py", "hybrid_ffn.py")
FILES = ("modeling_hybrid.py", "configuration_hybrid.py", *MODULES)
NORM_EPS = 1e-5
MAMBA2_HEADS = ("in_proj.weight", "conv1d.weight", "conv1d.bias", "A_log", "D", "dt_bias")
TENSORS = {
    "attention": ("q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight"),
    "mamba2": (*MAMBA2_HEADS, "norm.weight", "out_proj.weight"),
    "mamba1": (
        "in_proj.weight", "conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight", "dt_proj.bias", "A_log",
        "D", "out_proj.weight",
    ),
    "mamba3": (
        "in_proj.weight", "dt_bias", "B_bias", "C_bias", "B_norm.weight", "C_norm.weight", "D", "out_proj.weight",
    ),
    "gated_deltanet": (
        *(f"{name}_proj.weight" for name in "qkvgab"), *(f"{name}_conv1d.weight" for name in "qkv"), "A_log",
        "dt_bias", "o_norm.weight", "o_proj.weight",
    ),
    "moe": (
        "router.weight", "gate", "up", "down", "shared_gate.weight", "shared_up.weight", "shared_down.weight",
        "balance",
    ),
    "swiglu": ("gate.weight", "up.weight", "down.weight"),
    "squared_relu": ("up.weight", "down.weight"),
}  # fmt: skip


def write(architecture: Architecture, context: int) -> Files:
    config = {
        "architectures": ["HybridForCausalLM"],
        "model_type": "hybrid_nas",
        "auto_map": {
            "AutoConfig": "configuration_hybrid.HybridConfig",
            "AutoModelForCausalLM": "modeling_hybrid.HybridForCausalLM",
        },
        "hidden_size": architecture.width,
        "vocab_size": architecture.vocab,
        "max_position_embeddings": context,
        "rms_norm_eps": NORM_EPS,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        "blocks": architecture.to_dict()["blocks"],
    }
    code = {name: (CODE / name).read_text() for name in FILES}
    return {"config.json": json.dumps(config, indent=2) + "\n", **code}


def read(config: Any) -> Imported:
    try:
        width, vocab, blocks = config["hidden_size"], config["vocab_size"], config["blocks"]
    except KeyError as error:
        raise CannotRead(f"{error.args[0]} is missing") from None
    architecture = Architecture.from_dict({"width": width, "vocab": vocab, "blocks": blocks})
    fields = Fields(config, {"rms_norm_eps": NORM_EPS, "tie_word_embeddings": True})
    notes = (
        *fields.untied(vocab, width),
        *fields.differs(rms_norm_eps=NORM_EPS),
        *fields.unread("hidden_size", "vocab_size", "blocks", "num_hidden_layers"),
    )
    return Imported(architecture, config.get("max_position_embeddings", 2048), notes)


def tensors(part: Mixer | FFN) -> tuple[str, ...]:
    """Names of the parameters of a mixer or FFN."""
    if isinstance(part, Mamba1) and part.norms:
        return (*TENSORS[part.kind], "dt_norm.weight", "B_norm.weight", "C_norm.weight")
    if not isinstance(part, ParallelHybrid):
        return TENSORS[part.kind]
    names = [f"attention.{name}_proj.weight" for name in "qkv"]
    names += [f"mamba.{name}" for name in MAMBA2_HEADS]
    names += ["mamba_norm.weight", "attention_norm.weight"] if part.norm == "group" else []
    names += ["mamba_scale"] if part.scale == "vector" else []
    names += ["attention_scale"] if part.scale in ("vector", "diff") else []
    names += ["gate_proj.weight"] if part.scale == "gate" else []
    names += ["o_proj.weight"] if part.output == "separate" else []
    return (*names, "out_proj.weight")


def weights(architecture: Architecture) -> WeightMap:
    names = ["norm.weight"]
    for i, block in enumerate(architecture.blocks):
        for name, part in (("mixer", block.mixer), ("ffn", block.ffn)):
            if part is not None:
                names += [f"blocks.{i}.{name}_norm.weight", *(f"blocks.{i}.{name}.{t}" for t in tensors(part))]
    return {"model.embed_tokens.weight": ("embedding",), **{f"model.{name}": (name,) for name in names}}


def known_kinds() -> Rule:
    def problem(architecture: Architecture) -> str | None:
        kinds = {part.kind for block in architecture.blocks for part in (block.mixer, block.ffn) if part is not None}
        unknown = sorted(kinds - {*TENSORS, ParallelHybrid.kind})
        return f"{unknown[0]} has no module in {FILES[0]}" if unknown else None

    return Rule(problem)


HYBRID = Format(
    name="hybrid",
    title="our own model as a transformers custom model",
    rules=(known_kinds(),),
    write=write,
    recognise=lambda config: isinstance(config, dict) and config.get("model_type") == "hybrid_nas",
    read=read,
    weights=weights,
)
