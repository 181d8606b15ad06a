"""A Checkpoint: a proxy training at a rung, as bytes that another process goes on from to the same bits.

Batches and learning rates follow from the seed and the step, so weights, AdamW's moments and the losses so far are all
that there is. Reading one builds tensors and numbers, and nothing else, whoever wrote it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Literal

import torch
from torch import nn

from hybrid_nas.proxy import Step

How = Literal["plain", "captured"]


@dataclass(frozen=True)
class Checkpoint:
    """`steps` are those trained so far, `seconds` what they took; `how` tells whose `state` it is."""

    how: How
    steps: tuple[Step, ...]
    seconds: float
    state: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO()
        steps = [astuple(step) for step in self.steps]
        torch.save({"how": self.how, "steps": steps, "seconds": self.seconds, "state": dict(self.state)}, buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Checkpoint:
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        steps = tuple(Step(*values) for values in found["steps"])
        return cls(found["how"], steps, found["seconds"], found["state"])


def state_of(model: nn.Module, adamw: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of a plain training."""
    return {"model": model.state_dict(), "adamw": adamw.state_dict()["state"]}


def take_up(model: nn.Module, adamw: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Put a plain training into a state. The learning rate is the schedule's, not the state's."""
    model.load_state_dict(state["model"])
    adamw.load_state_dict({**adamw.state_dict(), "state": state["adamw"]})
