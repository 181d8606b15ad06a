"""Small designs for every format, models with nothing at its initial value, and a folder loaded by transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, Mixer, SquaredReLU, SwiGLU
from hybrid_nas.export.format import Format
from hybrid_nas.export.weights import save
from hybrid_nas.model import Model, build

ATTENTION = Attention(heads=6, kv_heads=2, head_dim=8)
BLIND = Attention(heads=6, kv_heads=2, head_dim=8, rope_theta=None)
WINDOW = Attention(heads=6, kv_heads=2, head_dim=8, window=9, sinks=2)
MAMBA = Mamba2(d_ssm=96, head_dim=16, d_state=24, groups=2)
FFN = SwiGLU(72)
RELU = SquaredReLU(80)
CONTEXT = 512
TOKENS = torch.randint(131, (2, 37), generator=torch.Generator().manual_seed(3))  # no multiple of any chunk


def stack(*mixers: Mixer, ffn: Any = FFN) -> Architecture:
    return Architecture(48, 131, tuple(Block(mixer, ffn) for mixer in mixers))


def model_of(architecture: Architecture) -> Model:
    """A model in which no norm is one and no A_log, D or dt_bias is where it begins: an error there would hide."""
    model = build(architecture, generator=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        if name.endswith("A_log"):
            parameter.data.uniform_(-1, 1, generator=generator)
    return model.eval()


def written(format: Format, model: Model, folder: Path, **changes: Any) -> Path:
    """The export of `model` in `folder`, some fields of its configuration changed (None: left out)."""
    format.check(model.architecture)
    folder.mkdir(exist_ok=True)
    for name, text in format.write(model.architecture, CONTEXT).items():
        (folder / name).write_text(text)
    config = json.loads((folder / "config.json").read_text())
    for name, value in changes.items():
        if value is None:
            del config[name]
        else:
            config[name] = value
    (folder / "config.json").write_text(json.dumps(config))
    save(format, model, folder)
    return folder


def load(folder: Path, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", **kwargs
    )
    return model.eval(), {name: found for name, found in report.items() if found}


@torch.no_grad()
def difference(ours: Model, theirs: Any, **kwargs: Any) -> float:
    """Largest difference of logits."""
    return float((ours(TOKENS) - theirs(TOKENS, **kwargs).logits).abs().max())
