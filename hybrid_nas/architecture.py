"""An Architecture: the explicit, frozen list of blocks of one model, with every dimension.

Nothing here knows of torch. A block is `x + mixer(norm(x))`, then `x + ffn(norm(x))`; the model is a tied
byte or token embedding, the blocks, a final norm and the classifier [arXiv:2510.04800, section 3].
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar


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

    def __post_init__(self) -> None:
        _positive(self, "heads", "kv_heads", "head_dim")
        if self.heads % self.kv_heads:
            raise ValueError(f"attention: heads must be a multiple of kv_heads, found {self.heads} and {self.kv_heads}")
        if self.rope_theta is not None and self.head_dim % 2:
            raise ValueError(f"attention: RoPE turns pairs, so head_dim must be even, found {self.head_dim}")
        if self.window is not None and self.window < 1:
            raise ValueError(f"attention: window must be at least 1 token, found {self.window}")
        if self.sinks < 0 or (self.sinks and self.window is None):
            raise ValueError(f"attention: sinks need a window, found sinks={self.sinks}, window={self.window}")

    @property
    def letter(self) -> str:
        return "A" if self.window is None else "S"


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
        _positive(self, "d_ssm", "head_dim", "d_state", "groups", "conv_kernel")
        if self.d_ssm % self.head_dim:
            raise ValueError(f"mamba2: d_ssm must be a multiple of head_dim, found {self.d_ssm} and {self.head_dim}")
        if self.heads % self.groups:
            raise ValueError(f"mamba2: heads must be a multiple of groups, found {self.heads} and {self.groups}")

    @property
    def heads(self) -> int:
        return self.d_ssm // self.head_dim

    @property
    def conv_channels(self) -> int:
        """Channels of the short convolution: x, B and C."""
        return self.d_ssm + 2 * self.groups * self.d_state


@dataclass(frozen=True)
class SwiGLU:
    """Gated feed-forward network: down(silu(gate(x)) * up(x)) with `hidden` channels."""

    kind: ClassVar[str] = "swiglu"

    hidden: int

    def __post_init__(self) -> None:
        _positive(self, "hidden")


@dataclass(frozen=True)
class SquaredReLU:
    """Feed-forward network without a gate: down(relu(up(x)) ** 2) with `hidden` channels, as Nemotron-H has it."""

    kind: ClassVar[str] = "squared_relu"

    hidden: int

    def __post_init__(self) -> None:
        _positive(self, "hidden")


Mixer = Attention | Mamba2
FFN = SwiGLU | SquaredReLU

MIXERS: dict[str, type[Mixer]] = {cls.kind: cls for cls in (Attention, Mamba2)}
FFNS: dict[str, type[FFN]] = {cls.kind: cls for cls in (SwiGLU, SquaredReLU)}


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
        _positive(self, "width", "vocab")
        if not self.blocks:
            raise ValueError("architecture: a model needs at least one block, found none")

    @property
    def layout(self) -> str:
        """One letter a block: A attention, S sliding-window attention, M Mamba-2, - FFN alone."""
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


def _part(part: Mixer | FFN | None) -> dict[str, Any] | None:
    return None if part is None else {"kind": part.kind, **asdict(part)}


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
    return kind(**values)


def _positive(part: Any, *names: str) -> None:
    for name in names:
        value = getattr(part, name)
        if not isinstance(value, int) or value < 1:
            kind = getattr(part, "kind", type(part).__name__.lower())
            raise ValueError(f"{kind}: {name} must be a positive whole number, found {value!r}")
