"""An Architecture: the explicit, frozen list of blocks of one model, with every dimension.

Nothing here knows of torch. A block is `x + mixer(norm(x))`, then `x + ffn(norm(x))`; the model is a tied
byte or token embedding, the blocks, a final norm and the classifier [arXiv:2510.04800, section 3].
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, Literal

from hybrid_nas.dimensions import ADDED, multiple, positive
from hybrid_nas.moe import MoE
from hybrid_nas.recurrent import GatedDeltaNet, Mamba1, Mamba3

Norm = Literal["group", "none"]
OutputScale = Literal["none", "vector", "diff", "gate"]
Fusion = Literal["add", "difference", "concat"]
Share = Literal["separate", "joint"]


@dataclass(frozen=True)
class Attention:
    """Grouped-query softmax attention, causal.

    `window` counts the most recent tokens that a token sees, itself included (None: all); `sinks` counts the first
    tokens of the sequence that stay visible beside the window. `rope_theta` None means no position encoding.
    """

    kind: ClassVar[str] = "attention"

    heads: int
    kv_heads: int
    head_dim: int
    rope_theta: float | None = 10_000.0
    window: int | None = None
    sinks: int = 0
    value_dim: int | None = field(default=None, metadata=ADDED)

    def __post_init__(self) -> None:
        positive(self, "heads", "kv_heads", "head_dim")
        if self.value_dim is not None:
            positive(self, "value_dim")
        multiple(self, "heads", "kv_heads")
        if self.rope_theta is not None and self.head_dim % 2:
            raise ValueError(f"attention: RoPE turns pairs, so head_dim must be even, found {self.head_dim}")
        if self.window is not None and self.window < 1:
            raise ValueError(f"attention: window must be at least 1 token, found {self.window}")
        if self.sinks < 0 or (self.sinks and self.window is None):
            raise ValueError(f"attention: sinks need a window, found sinks={self.sinks}, window={self.window}")

    @property
    def letter(self) -> str:
        return "A" if self.window is None else "S"

    @property
    def values(self) -> int:
        """Channels of the heads' outputs, side by side."""
        return self.heads * (self.value_dim or self.head_dim)

    @property
    def kv_values(self) -> int:
        """Channels of the values that are kept, side by side."""
        return self.kv_heads * (self.value_dim or self.head_dim)


@dataclass(frozen=True)
class Mamba2:
    """Mamba-2 [arXiv:2405.21060]: input projection to z, x, B, C, dt; short convolution; SSD; gated norm; output.

    `d_ssm` channels in heads of `head_dim`; each head keeps a state of head_dim x `d_state`. `groups` share B and C.
    """

    kind: ClassVar[str] = "mamba2"
    letter: ClassVar[str] = "M"

    d_ssm: int
    head_dim: int
    d_state: int
    groups: int = 1
    conv_kernel: int = 4

    def __post_init__(self) -> None:
        positive(self, "d_ssm", "head_dim", "d_state", "groups", "conv_kernel")
        multiple(self, "d_ssm", "head_dim")
        multiple(self, "heads", "groups")

    @property
    def heads(self) -> int:
        return self.d_ssm // self.head_dim

    @property
    def conv_channels(self) -> int:
        """Channels of the short convolution: x, B and C."""
        return self.d_ssm + 2 * self.groups * self.d_state


@dataclass(frozen=True)
class ParallelHybrid:
    """Attention and Mamba-2 heads side by side on one input, fused [arXiv:2510.04800, App. D]:

        f(x) = W_out( a_ssm * Norm(M_ssm(x)) (+) a_attention * Norm(M_attention(x)) )

    M is a module's heads before its output projection, Mamba-2's with its gate.

    - `norm` group: an RMSNorm with a gain over each module for itself, in place of Mamba-2's own; none: neither.
    - `scale` a: none; vector, a learned weight a channel; diff, one learned weight on the attention; gate, a weight a
      token and module, twice the sigmoid of a linear map of x.
    - `fusion` (+): add, difference (Mamba less attention), or concat (Mamba first).
    - `value` joint: Mamba-2 reads the attention's values in place of an input of its own.
    - `output` joint: one projection after the fusion; separate: one a module, before it.
    """

    kind: ClassVar[str] = "parallel_hybrid"
    letter: ClassVar[str] = "H"

    attention: Attention
    mamba: Mamba2
    norm: Norm = "group"
    scale: OutputScale = "none"
    fusion: Fusion = "difference"
    value: Share = "separate"
    output: Share = "separate"

    def __post_init__(self) -> None:
        check_axes(self)
        if self.meets and self.attention.values != self.mamba.d_ssm:
            why = "joint values are the Mamba channels" if self.value == "joint" else f"{self.fusion} is by channel"
            raise ValueError(
                f"parallel hybrid: {why}, so both halves must be equally wide, found {self.attention.values} channels "
                f"of values and {self.mamba.d_ssm} of Mamba"
            )

    @property
    def meets(self) -> bool:
        """Whether channel i of one half meets channel i of the other, so that both must be equally wide."""
        return halves_meet(self.fusion, self.value, self.output)


@dataclass(frozen=True)
class ParallelPair:
    """Two equal halves of one kind in parallel, fused as in a ParallelHybrid, the second in the attention's place
    [arXiv:2510.04800, Table 18: T/T and M/M; difference with scale diff is the Differential Transformer's,
    arXiv:2410.05258]. With joint values both halves of attention read the same ones.
    """

    kind: ClassVar[str] = "parallel_pair"
    letter: ClassVar[str] = "H"

    half: Attention | Mamba2
    norm: Norm = "group"
    scale: OutputScale = "none"
    fusion: Fusion = "difference"
    value: Share = "separate"
    output: Share = "separate"

    def __post_init__(self) -> None:
        check_axes(self)
        if self.value == "joint" and isinstance(self.half, Mamba2):
            raise ValueError("parallel hybrid: value joint shares an attention's values; two halves of Mamba have none")

    @property
    def channels(self) -> int:
        """Of one half's heads, side by side."""
        return self.half.values if isinstance(self.half, Attention) else self.half.d_ssm


PARALLEL_AXES: dict[str, tuple[str, ...]] = {
    "norm": ("group", "none"),
    "scale": ("none", "vector", "diff", "gate"),
    "fusion": ("add", "difference", "concat"),
    "value": ("separate", "joint"),
    "output": ("joint", "separate"),
}


def halves_meet(fusion: str, value: str, output: str) -> bool:
    """Whether the halves of a parallel hybrid with these choices must be equally wide."""
    return value == "joint" or (output == "joint" and fusion != "concat")


def check_axes(choices: Any) -> None:
    """ValueError where an axis of `choices` (a description or a design) is none, or two cannot stand together."""
    for name, known in PARALLEL_AXES.items():
        if getattr(choices, name) not in known:
            raise ValueError(f"parallel hybrid: {name} is one of {', '.join(known)}, found {getattr(choices, name)!r}")
    if choices.fusion == "concat" and choices.output == "separate":
        raise ValueError(
            "parallel hybrid: output separate has no meaning with fusion concat: one projection reads both halves side "
            "by side; write output: joint, or fusion: add, which is the sum of one projection a half"
        )


@dataclass(frozen=True)
class SwiGLU:
    """Gated feed-forward network: down(silu(gate(x)) * up(x)) with `hidden` channels."""

    kind: ClassVar[str] = "swiglu"

    hidden: int

    def __post_init__(self) -> None:
        positive(self, "hidden")


@dataclass(frozen=True)
class SquaredReLU:
    """Feed-forward network without a gate: down(relu(up(x)) ** 2) with `hidden` channels, as Nemotron-H has it."""

    kind: ClassVar[str] = "squared_relu"

    hidden: int

    def __post_init__(self) -> None:
        positive(self, "hidden")


Mixer = Attention | Mamba2 | ParallelHybrid | ParallelPair | Mamba1 | Mamba3 | GatedDeltaNet
FFN = SwiGLU | SquaredReLU | MoE

MIXERS: dict[str, type[Mixer]] = {
    cls.kind: cls for cls in (Attention, Mamba2, ParallelHybrid, ParallelPair, Mamba1, Mamba3, GatedDeltaNet)
}
FFNS: dict[str, type[FFN]] = {cls.kind: cls for cls in (SwiGLU, SquaredReLU, MoE)}


@dataclass(frozen=True)
class Block:
    """One layer: a sequence mixer and a feed-forward network, each behind its own RMSNorm and residual.

    Either may be None (Nemotron-H, for one, keeps them in separate layers), not both.
    """

    mixer: Mixer | None
    ffn: FFN | None

    def __post_init__(self) -> None:
        if self.mixer is None and self.ffn is None:
            raise ValueError("block: a block needs a mixer or an FFN, found neither")

    @property
    def letter(self) -> str:
        return "-" if self.mixer is None else self.mixer.letter


@dataclass(frozen=True)
class Architecture:
    """One model. `id` is equal on every machine for equal dimensions."""

    width: int
    vocab: int
    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        positive(self, "width", "vocab")
        if not self.blocks:
            raise ValueError("architecture: a model needs at least one block, found none")

    @property
    def layout(self) -> str:
        """The `letter` of each block's mixer; - is an FFN alone."""
        return "".join(block.letter for block in self.blocks)

    @property
    def depth(self) -> int:
        return len(self.blocks)

    @property
    def id(self) -> str:
        """First 12 hex digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(canonical_json(self.to_dict()).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        return {
            "width": self.width,
            "vocab": self.vocab,
            "blocks": [{"mixer": _part(block.mixer), "ffn": _part(block.ffn)} for block in self.blocks],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Architecture:
        """Inverse of `to_dict`. ValueError names the block and the field that is wrong."""
        blocks = []
        for i, block in enumerate(data["blocks"]):
            try:
                blocks.append(Block(_from_part(block["mixer"], MIXERS), _from_part(block["ffn"], FFNS)))
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"architecture: block {i}: {error}") from error
        return cls(width=data["width"], vocab=data["vocab"], blocks=tuple(blocks))


def canonical_json(data: Any) -> str:
    """JSON with sorted keys and no spaces: equal data, equal text, on every machine."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _part(part: Any) -> dict[str, Any] | None:
    if part is None:
        return None
    data: dict[str, Any] = {"kind": part.kind}
    kind: Any = type(part)
    for name, added, default in _fields(kind):
        value = getattr(part, name)
        if not (added and value == default):
            data[name] = _part(value) if hasattr(value, "kind") else value
    return data


@cache
def _fields(kind: type) -> tuple[tuple[str, bool, Any], ...]:
    """Of each field its name, whether it was added later, and its default."""
    return tuple((each.name, each.metadata == ADDED, each.default) for each in fields(kind))


def _from_part(data: dict[str, Any] | None, kinds: dict[str, Any]) -> Any:
    if data is None:
        return None
    kind = kinds.get(data["kind"])
    if kind is None:
        raise ValueError(f"unknown kind {data['kind']!r}; known: {', '.join(kinds)}")
    values = {name: value for name, value in data.items() if name != "kind"}
    unknown = values.keys() - {field.name for field in fields(kind)}
    if unknown:
        raise ValueError(f"{data['kind']} has no field {sorted(unknown)[0]!r}")
    return kind(**{name: _from_part(v, MIXERS) if isinstance(v, dict) else v for name, v in values.items()})
