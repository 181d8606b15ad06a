"""Our own model as a transformers custom model: every design, loaded with trust_remote_code and without this package.

The two files of `custom_model` are copied into the folder beside the configuration, which spells every block.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hybrid_nas.architecture import FFN, Architecture, Mixer
from hybrid_nas.export.format import CannotRead, Files, Format, Imported, Rule, WeightMap

CODE = Path(__file__).parent / "custom_model"
MODELING, CONFIGURATION = "modeling_hybrid.py", "configuration_hybrid.py"
NORM_EPS = 1e-5
TENSORS = {
    "attention": ("q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight"),
    "mamba2": (
        "in_proj.weight", "conv1d.weight", "conv1d.bias", "A_log", "D", "dt_bias", "norm.weight", "out_proj.weight",
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
    code = {name: (CODE / name).read_text() for name in (MODELING, CONFIGURATION)}
    return {"config.json": json.dumps(config, indent=2) + "\n", **code}


def read(config: Any) -> Imported:
    try:
        width, vocab, blocks = config["hidden_size"], config["vocab_size"], config["blocks"]
    except KeyError as error:
        raise CannotRead(f"{error.args[0]} is missing") from None
    architecture = Architecture.from_dict({"width": width, "vocab": vocab, "blocks": blocks})
    return Imported(architecture, config.get("max_position_embeddings", 2048))


def tensors(part: Mixer | FFN | None, prefix: str) -> list[str]:
    return [] if part is None else [f"{prefix}.{name}" for name in TENSORS[part.kind]]


def weights(architecture: Architecture) -> WeightMap:
    names = ["norm.weight"]
    for i, block in enumerate(architecture.blocks):
        names += [f"blocks.{i}.mixer_norm.weight"] if block.mixer is not None else []
        names += tensors(block.mixer, f"blocks.{i}.mixer")
        names += [f"blocks.{i}.ffn_norm.weight"] if block.ffn is not None else []
        names += tensors(block.ffn, f"blocks.{i}.ffn")
    return {"model.embed_tokens.weight": ("embedding",), **{f"model.{name}": (name,) for name in names}}


def known_kinds() -> Rule:
    def problem(architecture: Architecture) -> str | None:
        kinds = {part.kind for block in architecture.blocks for part in (block.mixer, block.ffn) if part is not None}
        unknown = sorted(kinds - TENSORS.keys())
        return f"{unknown[0]} has no module in {MODELING}" if unknown else None

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
