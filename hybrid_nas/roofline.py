"""Predicted speed of an Architecture on a named device: the larger of arithmetic and memory traffic, part by part.

A prediction, never a measurement: whoever prints it says so. Every part (the mixers of one kind, the FFNs, the
classifier) takes the longer of its FLOPs over the device's rate and its bytes over the device's bandwidth, and the
device's overhead for each of its layers. Conventions are those of `cost`.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Literal

from hybrid_nas.architecture import Architecture
from hybrid_nas.cost import MixerCost, cost, ffn_params, mixer_cost
from hybrid_nas.kept import train_memory_bytes
from hybrid_nas.moe import MoE
from hybrid_nas.speed import OF_TRAINING, PREDICTED, SPEEDS, Load, Speed
from hybrid_nas.units import readable

Bound = Literal["compute", "memory"]
VALUE_BYTES = 2
TRAIN_PASSES = 5
"""Times that training moves a value between two operations: written and read forward, read backward, and its gradient
written and read."""
TRAIN_PARAM_BYTES = 30
"""Bytes that a step moves a parameter: its gradient in 2 written and read, its float32 copy, two moments read and
written, and its 2 bytes written."""


@dataclass(frozen=True)
class Device:
    """Peak FLOP/s and bytes/s, memory, the shares of the peaks that large kernels reach, seconds a part beside."""

    name: str
    flops: float
    bandwidth: float
    memory_bytes: float
    flops_share: float
    bandwidth_share: float
    overhead_s: float

    def __post_init__(self) -> None:
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            low_enough = field.name not in ("flops_share", "bandwidth_share") or value <= 1
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or not low_enough:
                raise ValueError(f"device {self.name}: {field.name} is a number, 0 or more, found {value!r}")
            if value == 0 and field.name != "overhead_s":
                raise ValueError(f"device {self.name}: {field.name} must be above 0")


@dataclass(frozen=True)
class Part:
    """`layers` layers of one kind together."""

    name: str
    layers: int
    flops: float
    bytes: float
    seconds: float
    bound: Bound


@dataclass(frozen=True)
class Prediction:
    """Of one training step, one prefill, or one decoding step, of the whole batch."""

    device: str
    tokens: int
    parts: tuple[Part, ...]

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.parts)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


def devices(file: Path | None = None) -> dict[str, Device]:
    """The devices of `file` (TOML), by default those that come with the package."""
    text = (resources.files("hybrid_nas") / "devices.toml").read_text() if file is None else file.read_text()
    known = {field.name for field in fields(Device)} - {"name"}
    found = {}
    for name, values in tomllib.loads(text).items():
        wrong = values.keys() ^ known if isinstance(values, dict) else known
        if wrong:
            raise ValueError(
                f"device {name}: needs exactly the keys {', '.join(sorted(known))}; missing or unknown: "
                f"{', '.join(sorted(wrong))}"
            )
        found[name] = Device(name=name, **values)
    return found


def device(name: str) -> Device:
    """A device that comes with the package, by name."""
    known = devices()
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.0)
        raise ValueError(f"device: unknown device {name!r}; known: {', '.join(known)}; nearest: {near[0]}")
    return known[name]


@dataclass(frozen=True)
class _Layer:
    """One mixer or FFN: its parameters, those that a token uses, FLOPs a token beyond them, and what decoding reads and
    keeps. `share` of its experts serve a token; without experts all of it."""

    name: str
    params: int
    active: int
    cost: MixerCost | None
    share: float = 1.0

    def read(self, batch: int) -> float:
        """Parameters that `batch` tokens read together: experts that no token picks are left where they are, by the
        expectation of even and independent picks."""
        return self.params - (self.params - self.active) * (1 - self.share) ** (batch - 1)


def _layers(architecture: Architecture, context: int) -> Iterator[_Layer]:
    for block in architecture.blocks:
        if block.mixer is not None:
            found = mixer_cost(block.mixer, architecture.width, context)
            yield _Layer(f"{block.letter} mixer", found.params, found.params, found)
        if block.ffn is not None:
            params, active = (ffn_params(block.ffn, architecture.width, active) for active in (False, True))
            share = block.ffn.active / block.ffn.experts if isinstance(block.ffn, MoE) else 1.0
            yield _Layer("FFN", params, active, None, share)
    classifier = architecture.vocab * architecture.width
    yield _Layer("classifier", classifier, classifier, None)


def _predict(on: Device, tokens: int, amounts: list[tuple[str, float, float]]) -> Prediction:
    """Parts from each layer's name, FLOPs and bytes; layers of one name are one part."""
    totals: dict[str, tuple[int, float, float, float, float]] = {}
    for name, flops, moved in amounts:
        compute, memory = flops / (on.flops * on.flops_share), moved / (on.bandwidth * on.bandwidth_share)
        old = totals.get(name, (0, 0.0, 0.0, 0.0, 0.0))
        seconds = max(compute, memory) + on.overhead_s
        totals[name] = (old[0] + 1, old[1] + flops, old[2] + moved, old[3] + seconds, old[4] + compute - memory)
    parts = (
        Part(name, count, flops, moved, seconds, "compute" if lead > 0 else "memory")
        for name, (count, flops, moved, seconds, lead) in totals.items()
    )
    return Prediction(on.name, tokens, tuple(parts))


def decode(architecture: Architecture, context: int, batch: int, on: Device) -> Prediction:
    """One token of each of `batch` sequences, the last of `context`: weights read once, caches read, states written."""
    amounts = []
    for layer in _layers(architecture, context):
        kept = layer.cost
        flops = 2.0 * layer.active + (kept.decode_flops if kept else 0)
        cached = kept.kv_values + 2 * kept.state_values if kept else 0
        amounts.append((layer.name, batch * flops, float(VALUE_BYTES * (layer.read(batch) + batch * cached))))
    return _predict(on, batch, amounts)


def prefill(architecture: Architecture, context: int, batch: int, on: Device) -> Prediction:
    """Forward over `batch` sequences of `context` tokens; logits of the last token of each alone."""
    amounts, tokens = [], batch * context
    for layer in _layers(architecture, context):
        count = batch if layer.name == "classifier" else tokens
        flops = 2.0 * layer.active + (layer.cost.forward_flops if layer.cost else 0)
        moved = layer.read(count) + 2 * count * _values(layer, architecture.width)
        amounts.append((layer.name, count * flops, VALUE_BYTES * moved))
    return _predict(on, tokens, amounts)


def train_step(architecture: Architecture, context: int, batch: int, on: Device) -> Prediction:
    """Forward, backward and AdamW over `batch` sequences of `context` tokens. The logits stay where they are made."""
    amounts, tokens = [], batch * context
    for layer in _layers(architecture, context):
        flops = 6.0 * layer.active + (3 * layer.cost.forward_flops if layer.cost else 0)
        values = 0.0 if layer.name == "classifier" else _values(layer, architecture.width)
        moved = TRAIN_PASSES * VALUE_BYTES * tokens * values + TRAIN_PARAM_BYTES * layer.params
        amounts.append((layer.name, tokens * flops, moved))
    return _predict(on, tokens, amounts)


def decode_memory_bytes(architecture: Architecture, context: int, batch: int) -> float:
    """Weights and caches of `batch` sequences of `context` tokens."""
    spent = cost(architecture, context, VALUE_BYTES)
    return VALUE_BYTES * spent.params + batch * spent.cache_bytes


def predicted_speed(architecture: Architecture, load: Load, on: Device) -> Speed:
    """What `hybrid_nas.measure` would measure on that device."""
    return Speed(
        PREDICTED,
        on.name,
        decode(architecture, load.context, load.batch, on).tokens_per_s,
        prefill(architecture, load.context, load.batch, on).seconds,
        train_step(architecture, load.train_context, load.train_batch, on).tokens_per_s,
        train_memory_bytes(architecture, load.train_context, load.train_batch),
        load,
    )


def unfit(architecture: Architecture, load: Load, on: Device, names: Iterable[str] = SPEEDS) -> str:
    """What of the quantities named takes more memory than the device has, in a sentence; empty where all fits."""
    needs = {
        "training": train_memory_bytes(architecture, load.train_context, load.train_batch),
        "decoding": decode_memory_bytes(architecture, load.context, load.batch),
    }
    shapes = {
        "training": f"batch {load.train_batch:,} at {load.train_context:,} tokens",
        "decoding": f"batch {load.batch:,} at {load.context:,} tokens",
    }
    asked = {"training" if name in OF_TRAINING else "decoding" for name in names}
    told = [
        f"{what} ({shapes[what]}) takes {readable(found, 'bytes')}"
        for what, found in needs.items()
        if what in asked and found > on.memory_bytes
    ]
    if not told:
        return ""
    return (
        f"{architecture.layout} does not fit {on.name}, which has {readable(on.memory_bytes, 'bytes')}: "
        f"{' and '.join(told)}; the speeds predicted are those of a device with more memory"
    )


def _values(layer: _Layer, width: int) -> float:
    """Values a token that pass between a layer's operations: nearly all its weights are matrices from or to the
    residual stream, so what they make and read is the parameters that a token uses over the width."""
    return layer.active / width
