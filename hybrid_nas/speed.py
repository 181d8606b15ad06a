"""Speed and memory of a model on a device, measured or predicted: which of the two always stands beside the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from hybrid_nas.architecture import Architecture

PREDICTED = "predicted, roofline"
BY_LAYERS = "measured, by layers"
SPEEDS = ("decode_tokens_per_s", "prefill_s", "train_tokens_per_s", "peak_memory_bytes")
"""The quantities of a Speed that a search can aim at."""
OF_TRAINING = ("train_tokens_per_s", "peak_memory_bytes")
LARGEST = 1 << 24


@dataclass(frozen=True)
class Load:
    """The shapes of a Speed: sequences and tokens of decoding and prefill, and of a training step."""

    batch: int = 4
    context: int = 8192
    train_batch: int = 1
    train_context: int = 8192


@dataclass(frozen=True)
class Speed:
    """`source` says how the numbers were found (`PREDICTED` or `BY_LAYERS`), `device` for or on which device, `load` at
    which shapes (None: trials of earlier versions do not say).

    `decode_tokens_per_s` of all sequences together; `prefill_s` of the whole batch; `peak_memory_bytes` of training.
    """

    source: str
    device: str
    decode_tokens_per_s: float
    prefill_s: float
    train_tokens_per_s: float
    peak_memory_bytes: float
    load: Load | None = None

    @property
    def origin(self) -> str:
        """In words, for whoever reads the numbers."""
        if self.source == PREDICTED:
            return f"predicted for {self.device} by a roofline, not measured"
        return f"{self.source}, on {self.device}"

    def origin_of(self, names: Iterable[str]) -> str:
        """`origin`, and the shapes of the quantities named."""
        shapes = dict.fromkeys(self.shape(name) for name in names)
        return "; ".join((self.origin, *(shape for shape in shapes if shape)))

    def shape(self, name: str) -> str:
        """Of one quantity; empty where it is not known."""
        if self.load is None:
            return ""
        if name in OF_TRAINING:
            return f"training with batch {self.load.train_batch:,} at {self.load.train_context:,} tokens"
        return f"batch {self.load.batch:,} at {self.load.context:,} tokens"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Speed:
        load = data.get("load")
        return cls(**{**data, "load": None if load is None else Load(**load)})


@dataclass(frozen=True)
class Measure:
    """At which shapes a study finds speeds, and the device that it predicts for where there is none to measure. A
    context of None is the target's."""

    device: str = "h100"
    batch: int = 4
    context: int | None = None
    train_batch: int = 1
    train_context: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "context", "train_batch", "train_context"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= LARGEST:
                raise ValueError(f"measure: {name} must be from 1 to {LARGEST:,}, found {value:,}")
        if not isinstance(self.device, str):
            raise ValueError(f"measure: device must be a name, like h100, found {self.device!r}")

    def load(self, context: int) -> Load:
        """Its shapes, where the target's context is `context`."""
        return Load(self.batch, self.context or context, self.train_batch, self.train_context or context)


class Meter(Protocol):
    """Finds speeds: `hybrid_nas.measuring.Measurer`, behind which stands a device."""

    quiet: Callable[[], AbstractContextManager[object]]
    """Entered while it measures: nothing else may run on the device."""

    def __call__(self, architecture: Architecture) -> Speed: ...

    def close(self) -> None: ...
