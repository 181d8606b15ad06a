"""One model described: its blocks, what each part costs, and what a device could do with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from hybrid_nas.architecture import Architecture
from hybrid_nas.cost import Cost, cost, ffn_params, mixer_cost
from hybrid_nas.kept import train_memory_bytes
from hybrid_nas.roofline import Device, Prediction, decode, decode_memory_bytes, prefill, train_step
from hybrid_nas.words import part_name, part_text

VALUE_BYTES = 2


@dataclass(frozen=True)
class Run:
    """Equal blocks that follow each other; layers count from 1. Costs are of one of them."""

    first: int
    last: int
    letter: str
    mixer: str
    ffn: str
    params: int
    cache_bytes: int

    @property
    def layers(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first} to {self.last}"


@dataclass(frozen=True)
class Share:
    """All parts of one kind together: what they add to the model's cost."""

    name: str
    count: int
    params: int
    train_flops_per_token: float
    decode_flops_per_token: float
    kv_bytes: int
    state_bytes: int


@dataclass(frozen=True)
class Description:
    """`shares` add up to `cost`."""

    architecture: Architecture
    cost: Cost
    runs: tuple[Run, ...]
    shares: tuple[Share, ...]

    @classmethod
    def of(cls, architecture: Architecture, context: int) -> Description:
        width = architecture.width
        runs, at = [], 1
        for block, equal in groupby(architecture.blocks):
            count = len(list(equal))
            mixer = mixer_cost(block.mixer, width, context) if block.mixer else None
            params = (mixer.params if mixer else 0) + (ffn_params(block.ffn, width) if block.ffn else 0)
            cache = VALUE_BYTES * (mixer.kv_values + mixer.state_values) if mixer else 0
            runs.append(
                Run(at, at + count - 1, block.letter, part_text(block.mixer), part_text(block.ffn), params, cache)
            )
            at += count
        total = cost(architecture, context)
        return cls(architecture, total, tuple(runs), _shares(architecture, context, total))

    def predictions(self, device: Device, batch: int) -> dict[str, Prediction]:
        """By roofline, of the whole batch: a training step, a prefill, and the decoding of one token a sequence."""
        arguments = self.architecture, self.cost.context, batch, device
        return {"training step": train_step(*arguments), "prefill": prefill(*arguments), "decoding": decode(*arguments)}

    def memory(self, batch: int) -> dict[str, float]:
        arguments = self.architecture, self.cost.context, batch
        return {"training step": train_memory_bytes(*arguments), "decoding": decode_memory_bytes(*arguments)}

    def to_dict(self) -> dict[str, Any]:
        return {
            "architecture": {"id": self.architecture.id, **self.architecture.to_dict()},
            "cost": self.cost.to_dict(),
            "blocks": [asdict(run) for run in self.runs],
            "parts": [asdict(share) for share in self.shares],
        }


def _shares(architecture: Architecture, context: int, total: Cost) -> tuple[Share, ...]:
    found: dict[str, list[Share]] = {}
    width = architecture.width
    for block in architecture.blocks:
        if block.mixer is not None:
            mixer = mixer_cost(block.mixer, width, context)
            spent = mixer.params, mixer.params, mixer.forward_flops, mixer.decode_flops
            cached = VALUE_BYTES * mixer.kv_values, VALUE_BYTES * mixer.state_values
            found.setdefault(f"{part_name(block.mixer)} ({block.letter})", []).append(_share(*spent, *cached))
        if block.ffn is not None:
            params, active = ffn_params(block.ffn, width), ffn_params(block.ffn, width, active=True)
            found.setdefault(f"FFN, {part_name(block.ffn)}", []).append(_share(params, active))
    embedding = architecture.vocab * width
    norms = total.params - embedding - sum(share.params for shares in found.values() for share in shares)
    found["norms"] = [_share(norms, norms)]
    found["embedding and classifier"] = [Share("", 1, embedding, 0.0, 2.0 * embedding, 0, 0)]
    return tuple(
        Share(
            name,
            1 if name == "norms" else len(shares),
            sum(share.params for share in shares),
            sum(share.train_flops_per_token for share in shares),
            sum(share.decode_flops_per_token for share in shares),
            sum(share.kv_bytes for share in shares),
            sum(share.state_bytes for share in shares),
        )
        for name, shares in found.items()
    )


def _share(params: int, active: int, forward: float = 0.0, decoding: float = 0.0, kv: int = 0, state: int = 0) -> Share:
    """Of one part without its name: `active` parameters meet each token, beside the mixer's own FLOPs."""
    return Share("", 1, params, 6 * active + 3 * forward, 2 * active + decoding, kv, state)
