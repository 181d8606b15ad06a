"""Memory of a training step, counted tensor by tensor: what the kernels' forward keeps for their backward, what the
loss needs, and what the optimizer keeps. One function a mixer, as in `cost`.

Counted as the CUDA ways of `hybrid_nas_kernels` run, in bfloat16: each operation keeps what it was given, once where
two are given the same. Projections that read one input are one product of their weights side by side, a copy of 2 bytes
a weight. The scans of Mamba-1, Mamba-3 and Gated DeltaNet run as torch's own operations, which keep nearly all that
they make: their count is by the values a state or channel, held against torch on a CPU (tests/test_kept.py), not on a
GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hybrid_nas.architecture import (
    FFN,
    Architecture,
    Attention,
    Mamba2,
    Mixer,
    ParallelHybrid,
    ParallelPair,
    SquaredReLU,
    SwiGLU,
)
from hybrid_nas.cost import cost
from hybrid_nas.moe import MoE
from hybrid_nas.recurrent import GatedDeltaNet, Mamba1, Mamba3

VALUE_BYTES = 2
PARAM_BYTES = 20
"""Bytes a parameter: 2 of weight and 2 of gradient, in float32 itself and two moments; and in the step that compiles
the kernels, which is where the most is in use, a float32 copy to go back to."""
LOGITS_AT_ONCE = 1 << 30
"""As the kernels' fused cross-entropy (tests/test_kept.py holds the two equal)."""
CHUNK = 64
"""Tokens between kept states of Mamba-2's scan."""


@dataclass(frozen=True)
class Kept:
    """`values` of 2 bytes and `bytes` beside, a token; `weights` that are copied, whatever the tokens; `widest` the
    values a token of the largest gradient inside."""

    values: float
    bytes: float = 0.0
    weights: float = 0.0
    widest: float = 0.0

    def __add__(self, other: Kept) -> Kept:
        return Kept(
            self.values + other.values,
            self.bytes + other.bytes,
            self.weights + other.weights,
            max(self.widest, other.widest),
        )


def attention_kept(mixer: Attention, width: int) -> Kept:
    """Queries, keys and values as one product, queries and keys once more where RoPE turns them, the heads' outputs,
    and a logarithm of a sum a head."""
    turned = (mixer.heads + mixer.kv_heads) * mixer.head_dim
    projected = turned + mixer.kv_values
    again = 0 if mixer.rope_theta is None else turned
    return Kept(projected + again + mixer.values, 4 * mixer.heads, width * projected, projected)


def mamba2_scan_kept(mixer: Mamba2, given: bool = False) -> Kept:
    """z, x, B, C, dt as one product, x, B and C once more behind the convolution, the scan's outputs, its states
    between chunks, and the time steps in float32. With a `given` x, the convolution's input is put together anew."""
    projected = 2 * mixer.d_ssm + 2 * mixer.groups * mixer.d_state + mixer.heads
    states = mixer.d_ssm * mixer.d_state / CHUNK
    return Kept(projected + mixer.conv_channels + mixer.d_ssm + states, 4 * mixer.heads, 0.0, projected)


def mamba2_kept(mixer: Mamba2, width: int) -> Kept:
    """Its scan, and the gated and normed outputs."""
    del width
    return mamba2_scan_kept(mixer) + Kept(mixer.d_ssm, 4 * mixer.groups)


def parallel_hybrid_kept(mixer: ParallelHybrid, width: int) -> Kept:
    """Both halves, each once more behind its gate and norm, and behind its scale where that is a value a token or
    comes without a norm; and what one projection reads where fusion makes it anew."""
    d_ssm, values = mixer.mamba.d_ssm, mixer.attention.values
    found = attention_kept(mixer.attention, width) + mamba2_scan_kept(mixer.mamba)
    found += Kept(d_ssm + (values if mixer.norm == "group" else 0), 8)
    if mixer.scale == "gate" or (mixer.norm == "none" and mixer.scale != "none"):
        found += Kept(values + (d_ssm if mixer.scale != "diff" else 0))
    if mixer.output == "joint":
        found += Kept(d_ssm + values if mixer.fusion == "concat" else d_ssm)
    return found


def parallel_pair_kept(mixer: ParallelPair, width: int) -> Kept:
    """Both halves, each once more behind its norm and scale, and Mamba's behind its gate."""
    half = attention_kept(mixer.half, width) if isinstance(mixer.half, Attention) else mamba2_scan_kept(mixer.half)
    gated = 0 if isinstance(mixer.half, Attention) else 2 * mixer.channels
    normed = mixer.channels * ((mixer.norm == "group") + (mixer.scale != "none"))
    return half + half + Kept(2 * (gated + normed) + (width if mixer.fusion != "concat" else 2 * mixer.channels))


def mamba1_kept(mixer: Mamba1, width: int) -> Kept:
    """A decay and a state for every number of the state and token: the scan is unrolled."""
    del width
    d = mixer.d_ssm
    return Kept(2 * d * mixer.d_state + 10 * d + mixer.dt_rank + 2 * mixer.d_state, 0, 0, 2 * d)


def mamba3_kept(mixer: Mamba3, width: int) -> Kept:
    """The projection, and about eight values for each channel and each number of a head's keys."""
    del width
    projected = 2 * mixer.d_ssm + 2 * mixer.groups * mixer.d_state + 3 * mixer.heads + mixer.pairs
    return Kept(projected + 8 * (mixer.d_ssm + mixer.heads * mixer.d_state), 0, 0, projected)


def gated_deltanet_kept(mixer: GatedDeltaNet, width: int) -> Kept:
    """The projection, and about twelve values for each of its keys and values."""
    projected = 2 * mixer.keys + 2 * mixer.values + 2 * mixer.heads
    return Kept(projected + 12 * (mixer.keys + mixer.values), 0, width * projected, projected)


MIXERS: dict[type[Mixer], Callable[..., Kept]] = {
    Attention: attention_kept,
    Mamba2: mamba2_kept,
    ParallelHybrid: parallel_hybrid_kept,
    ParallelPair: parallel_pair_kept,
    Mamba1: mamba1_kept,
    Mamba3: mamba3_kept,
    GatedDeltaNet: gated_deltanet_kept,
}


def ffn_kept(ffn: FFN, width: int) -> Kept:
    """Gate and up as one product, and what they make of each other; of experts those that a token picks, and what goes
    to and from them."""
    match ffn:
        case SwiGLU():
            return Kept(3 * ffn.hidden, 0, 2 * width * ffn.hidden, 2 * ffn.hidden)
        case SquaredReLU():
            return Kept(2 * ffn.hidden, 0, 0, ffn.hidden)
        case MoE():
            shared, rows = 3 * ffn.hidden, ffn.active * 3 * (ffn.hidden + width)
            return Kept(shared + rows + 2 * width, 4 * ffn.experts, 2 * width * ffn.hidden, 2 * ffn.hidden * ffn.active)


def layer_kept(part: Mixer | FFN, width: int) -> Kept:
    """A mixer or an FFN, with its normed input and the sum behind it."""
    inside = ffn_kept(part, width) if isinstance(part, FFN) else MIXERS[type(part)](part, width)
    return Kept(2 * width, 4) + inside


def train_memory_bytes(architecture: Architecture, context: int, batch: int) -> float:
    """The most that a training step of `batch` sequences of `context` tokens has in use: parameters, their optimizer,
    what all layers keep, and on top the loss, which begins when all is kept, or one layer's gradients."""
    rows, width, vocab = batch * context, architecture.width, architecture.vocab
    total, widest = PARAM_BYTES * cost(architecture, 1).params + 0.0, 0.0
    for block in architecture.blocks:
        for part in (block.mixer, block.ffn):
            if part is not None:
                kept = layer_kept(part, width)
                total += rows * (VALUE_BYTES * kept.values + kept.bytes) + VALUE_BYTES * kept.weights
                widest = max(widest, kept.widest + width)
    at_once = max(1, min(rows, LOGITS_AT_ONCE // vocab))
    table = VALUE_BYTES * vocab * width  # the classifier's gradient, made forward
    total += table + VALUE_BYTES * 2 * rows * width  # and that of its input, which is kept
    loss = VALUE_BYTES * (at_once * vocab + rows * width)
    if at_once < rows:
        loss += 2 * table + table  # summed in float32, a part at a time
    return total + max(loss, VALUE_BYTES * rows * widest)
