"""The parts of a model at a scale: what each letter of a layout stands for, with every dimension."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import Any, NamedTuple

from hybrid_nas.architecture import (
    FFN,
    MIXERS,
    Attention,
    Mamba2,
    Mixer,
    ParallelHybrid,
    ParallelPair,
    SwiGLU,
    halves_meet,
)
from hybrid_nas.moe import MoE
from hybrid_nas.recurrent import GatedDeltaNet, Mamba1, Mamba3
from hybrid_nas.scale import Refused, Scale

EXPERTS, ACTIVE = 8, 1
STEP = 8
"""Channels of a head of the parallel hybrid are a multiple of this: what tensor cores and flash attention can run."""
Amount = int | Fraction
"""A whole number of channels or tokens, or a share (Fraction) of the width or the context."""


def attention_of(
    scale: Scale, kv_heads: Fraction | None, position: str | None, window: Amount | None, sinks: Amount | None
) -> Attention:
    """The attention of a whole layer. A window that hides nothing is none."""
    visible, first = _tokens(window, scale.context), _tokens(sinks, scale.context) or 0
    if visible is not None and first > visible:
        raise Refused(f"sinks of {first} tokens pass the window of {visible} they stand beside")
    if visible is not None and visible >= scale.context:
        visible, first = None, 0
    theta = scale.rope_theta if visible is None else scale.window_rope_theta
    return Attention(
        heads=scale.heads,
        kv_heads=scale.kv_heads if kv_heads is None else _kv_heads(kv_heads, scale.heads),
        head_dim=scale.head_dim,
        rope_theta=None if position == "none" else theta,
        window=visible,
        sinks=first,
    )


def mamba2_of(scale: Scale, d_state: int | None, head_dim: int | None, d_ssm: int | None = None) -> Mamba2:
    head_dim, d_ssm = head_dim or scale.ssm_head_dim, d_ssm or scale.d_ssm
    if d_ssm % head_dim:
        raise Refused(f"head_dim {head_dim} does not divide the {d_ssm} Mamba channels of {scale.name}")
    return Mamba2(
        d_ssm=d_ssm,
        head_dim=head_dim,
        d_state=d_state or scale.d_state,
        groups=scale.ssm_groups,
        conv_kernel=scale.conv_kernel,
    )


def mamba1_of(scale: Scale, d_state: int | None, head_dim: int | None) -> Mamba1:
    """As published: a state of 16, time steps through a sixteenth of the width."""
    del head_dim
    return Mamba1(scale.d_ssm, d_state or 16, -(-scale.width // 16), scale.conv_kernel)


def mamba3_of(scale: Scale, d_state: int | None, head_dim: int | None) -> Mamba3:
    like = mamba2_of(scale, d_state, head_dim)
    return Mamba3(like.d_ssm, like.head_dim, like.d_state, like.groups)


def gated_deltanet_of(scale: Scale, d_state: int | None, head_dim: int | None) -> GatedDeltaNet:
    """d_state is the dimension of a head's keys. As published, the keys of all heads together are three quarters of the
    width, here to the nearest whole head, and values are twice as wide as keys."""
    del head_dim
    key_dim = d_state or scale.d_state
    heads = max(1, floor(Fraction(3 * scale.width, 4 * key_dim) + Fraction(1, 2)))
    return GatedDeltaNet(heads, key_dim, 2 * key_dim, scale.conv_kernel)


class Recurrent(NamedTuple):
    """One choice of `mixer`: its dimensions at a scale, of d_state and head_dim, and which of the two it reads."""

    of: Callable[[Scale, int | None, int | None], Mixer]
    reads: tuple[str, ...] = ("d_state", "head_dim")


RECURRENT: dict[str, Recurrent] = {
    "mamba2": Recurrent(mamba2_of),
    "mamba1": Recurrent(mamba1_of, reads=("d_state",)),
    "mamba3": Recurrent(mamba3_of),
    "gated_deltanet": Recurrent(gated_deltanet_of, reads=("d_state",)),
}
"""Choice `mixer`, named as its description's `kind` -> what the letter M stands for."""
RECURRENT_LETTERS = {kind.letter: name for name, kind in MIXERS.items() if name in RECURRENT}
"""Letters of a layout that name their recurrent mixer themselves; M may stand for another."""


def read_by(letters: set[str], mixer: str | None) -> set[str]:
    """Which of d_state and head_dim are read by the layers of these letters, where M stands for `mixer`."""
    stands = {**RECURRENT_LETTERS, "M": mixer or "mamba2", "H": "mamba2"}
    return {name for letter in letters & stands.keys() for name in RECURRENT[stands[letter]].reads}


def swiglu_of(scale: Scale, experts: int | None, active: int | None) -> FFN:
    del experts, active
    return SwiGLU(scale.ffn_hidden)


def moe_of(scale: Scale, experts: int | None, active: int | None) -> FFN:
    """8 experts, 1 of them active, unless told otherwise. The shared one and the active ones are together as wide as
    the feed-forward network that they replace [arXiv:2510.04800, Table 4]."""
    experts, active = experts or EXPERTS, active or ACTIVE
    if active > experts:
        raise Refused(f"experts_active {active} is more than the {experts} experts")
    return MoE(max(STEP, STEP * round(scale.ffn_hidden / (1 + active) / STEP)), experts, active)


FEED_FORWARD: dict[str, Callable[[Scale, int | None, int | None], FFN]] = {"swiglu": swiglu_of, "moe": moe_of}
"""Choice `ffn` -> the feed-forward network of every block, of a scale and how many experts there are and are active.
Its field `hidden` may change to meet a budget."""


def parallel_of(
    scale: Scale,
    attention: Attention,
    kv_heads: Fraction | None,
    d_state: int | None,
    head_dim: int | None,
    widths: tuple[Amount, Amount, Amount | None],
    axes: dict[str, Any],
) -> ParallelHybrid:
    """The parallel hybrid whose attention is like `attention` but for its heads.

    `widths` are the channels of queries, those of Mamba-2 before expansion, and those of the values; a share is of the
    model's width. Shares are rounded, halves up: queries to a multiple of 8 channels a head, Mamba-2 to whole heads.
    Values are as wide as the model, or as Mamba-2's expanded channels where the two halves meet channel by channel.
    """
    heads = scale.attention_heads_in_parallel
    queries, inner, values = widths
    size = head_dim or scale.ssm_head_dim
    d_ssm = size * _multiple("mamba_width", inner, scale, scale.ssm_expand, size)
    if halves_meet(axes["fusion"], axes["value"], axes["output"]):
        if d_ssm % heads:
            raise Refused(f"values of {d_ssm} channels, as wide as Mamba-2, do not divide among {heads} heads")
        value_dim = d_ssm // heads
    elif values is None:
        value_dim = _whole_values(scale)
    else:
        value_dim = STEP * _multiple("value_width", values, scale, 1, heads * STEP)
    return ParallelHybrid(
        attention=_half_attention(scale, attention, kv_heads, queries, value_dim),
        mamba=mamba2_of(scale, d_state, head_dim, d_ssm),
        **axes,
    )


def pair_of(
    scale: Scale,
    attention: Attention | None,
    kv_heads: Fraction | None,
    d_state: int | None,
    head_dim: int | None,
    axes: dict[str, Any],
) -> ParallelPair:
    """Two halves like `attention`, or of Mamba-2 where it is None: each has half of the width, and values of attention
    are as wide as the model."""
    if attention is not None:
        return ParallelPair(_half_attention(scale, attention, kv_heads, Fraction(1, 2), _whole_values(scale)), **axes)
    size = head_dim or scale.ssm_head_dim
    d_ssm = size * _multiple("mamba_width", Fraction(1, 2), scale, scale.ssm_expand, size)
    return ParallelPair(mamba2_of(scale, d_state, head_dim, d_ssm), **axes)


def _half_attention(
    scale: Scale, like: Attention, kv_heads: Fraction | None, queries: Amount, value_dim: int
) -> Attention:
    heads = scale.attention_heads_in_parallel
    if kv_heads is None:
        share = max(1, floor(Fraction(scale.kv_heads * heads, scale.heads) + Fraction(1, 2)))
        kept = max(k for k in range(1, share + 1) if heads % k == 0)
    else:
        kept = _kv_heads(kv_heads, heads)
    query_dim = STEP * _multiple("attention_width", queries, scale, 1, heads * STEP)
    return replace(like, heads=heads, kv_heads=kept, head_dim=query_dim, value_dim=value_dim)


def _whole_values(scale: Scale) -> int:
    """Channels of a head's values that are together as wide as the model."""
    heads = scale.attention_heads_in_parallel
    if scale.width % heads:
        raise Refused(f"values of {scale.width} channels, as wide as the model, do not divide among {heads} heads")
    return scale.width // heads


def _multiple(name: str, amount: Amount, scale: Scale, expand: int, unit: int) -> int:
    """How many units of channels `amount`, expanded, is: a share is rounded, a number of channels must be exact."""
    if isinstance(amount, Fraction):
        return max(1, floor(amount * scale.width * expand / unit + Fraction(1, 2)))
    if amount * expand % unit:
        raise Refused(f"{name} of {amount} channels, {amount * expand} expanded, is no multiple of {unit} expanded")
    return amount * expand // unit


def _kv_heads(share: Fraction, heads: int) -> int:
    kept = max(1, floor(share * heads + Fraction(1, 2)))
    if heads % kept:
        raise Refused(f"kv_heads {share} of {heads} heads is {kept}, which does not divide them")
    return kept


def _tokens(amount: Amount | None, context: int) -> int | None:
    if amount is None or isinstance(amount, int):
        return amount
    return max(1, floor(amount * context + Fraction(1, 2)))
