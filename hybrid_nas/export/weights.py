"""Initial weights beside a configuration, and a model of ours from a folder's weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hybrid_nas.architecture import Architecture
from hybrid_nas.export.format import Folded, Format, Interleaved, LessOne
from hybrid_nas.model import Model


def renamed(format: Format, architecture: Architecture, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state`, a state dict of ours, under the names of `format`. Every tensor of ours is used."""
    if format.weights is None:
        raise ValueError(f"{format.name}: weights have no place beside its configuration")
    used: set[str] = set()
    tensors: dict[str, Tensor] = {}
    for name, source in format.weights(architecture).items():
        match source:
            case Folded():
                used |= {source.source, *([source.scale] if source.scale else [])}
                tensors[name] = _fold(source, state)
            case Interleaved():
                used |= set(source.sources)
                parts = [state[n].view(source.heads, -1, state[n].shape[1]) for n in source.sources]
                tensors[name] = torch.cat(parts, dim=1).flatten(0, 1)
            case LessOne():
                used.add(source.source)
                tensors[name] = state[source.source] - 1
            case _:
                used |= set(source)
                tensors[name] = torch.cat([state[each] for each in source])
    assert used == state.keys(), used ^ state.keys()
    return tensors


def _fold(fold: Folded, state: dict[str, Tensor]) -> Tensor:
    first, end = fold.columns
    matrix = state[fold.source][:, first:end].clone()
    if fold.scale is not None:
        matrix *= state[fold.scale]
    return -matrix if fold.negated else matrix


def save(format: Format, model: Model, folder: Path) -> Path:
    """Write `model.safetensors` into `folder`."""
    from safetensors.torch import save_file

    path = folder / "model.safetensors"
    tensors = {
        name: tensor.contiguous() for name, tensor in renamed(format, model.architecture, model.state_dict()).items()
    }
    save_file(tensors, path, metadata={"format": "pt"})
    return path
