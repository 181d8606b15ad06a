"""Initial weights beside a configuration, and a model of ours from a folder's weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hybrid_nas.architecture import Architecture
from hybrid_nas.export.format import Format
from hybrid_nas.model import Model


def renamed(format: Format, architecture: Architecture, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state`, a state dict of ours, under the names of `format`. Every tensor of ours is used."""
    if format.weights is None:
        raise ValueError(f"{format.name}: weights have no place beside its configuration")
    names = format.weights(architecture)
    used = {source for sources in names.values() for source in sources}
    assert used == state.keys(), used ^ state.keys()
    return {
        name: (state[sources[0]].clone() if len(sources) == 1 else torch.cat([state[source] for source in sources]))
        for name, sources in names.items()
    }


def save(format: Format, model: Model, folder: Path) -> Path:
    """Write `model.safetensors` into `folder`."""
    from safetensors.torch import save_file

    path = folder / "model.safetensors"
    tensors = {
        name: tensor.contiguous() for name, tensor in renamed(format, model.architecture, model.state_dict()).items()
    }
    save_file(tensors, path, metadata={"format": "pt"})
    return path
