"""How deep a model is: the depth, then if need be the FFN width, whose parameters meet the budget of a scale."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from hybrid_nas.architecture import FFN, Architecture, Block, Mixer
from hybrid_nas.cost import ffn_params, params_nonembedding
from hybrid_nas.scale import Refused, Scale

TOLERANCE = 0.05
FFN_STEP = 8
FFN_RANGE = (0.5, 2.0)
MAX_DEPTH = 1024


def stack(scale: Scale, mixers: Iterable[Mixer], ffn: FFN) -> Architecture:
    """A model of `scale` with these mixers in this order, each followed by `ffn`."""
    return Architecture(scale.width, scale.vocab, tuple(Block(mixer, ffn) for mixer in mixers))


def fit(scale: Scale, mixers: Mapping[str, Mixer], ffn: FFN, layout_at: Callable[[int], str]) -> Architecture:
    """The stack of `layout_at(depth)`, in the letters of `mixers`, at the depth whose parameters are nearest to the
    budget, then, where that is not near enough, with the FFN width that closes the rest. Refused beyond 5% of it.
    """
    norm = scale.width
    params = {letter: _params(stack(scale, [m], ffn)) - norm for letter, m in mixers.items()}
    refusal = Refused(f"no depth of {scale.name} holds this design")
    best: tuple[int, str] | None = None
    for depth in range(len(mixers), MAX_DEPTH + 1):
        try:
            layout = layout_at(depth)
        except Refused as reason:  # positions may need more depth to fall on layers of their own
            refusal = reason
            continue
        miss = norm + sum(layout.count(letter) * params[letter] for letter in params) - scale.params
        if best is None or abs(miss) < abs(best[0]):
            best = miss, layout
        if miss > 0:
            break
    if best is None:
        raise refusal
    architecture = stack(scale, (mixers[letter] for letter in best[1]), ffn)
    if abs(best[0]) > scale.ffn_exact_within * scale.params:
        architecture = _close_with_ffn(architecture, scale, ffn)
    share = _params(architecture) / scale.params - 1
    if abs(share) > TOLERANCE:
        raise Refused(
            f"{architecture.depth} layers miss the parameter budget of {scale.name} by {share:+.1%}; "
            f"at most {TOLERANCE:.0%} is comparable"
        )
    return architecture


def _close_with_ffn(architecture: Architecture, scale: Scale, ffn: FFN) -> Architecture:
    """The same blocks with the FFN width, a multiple of 8, that comes nearest to the budget."""
    fixed, per_unit = (
        architecture.depth * (ffn_params(replace(ffn, hidden=hidden), architecture.width, active=True) - less)
        for hidden, less in ((1, 0), (2, ffn_params(replace(ffn, hidden=1), architecture.width, active=True)))
    )
    rest = scale.params - _params(
        replace(architecture, blocks=tuple(replace(b, ffn=None) for b in architecture.blocks))
    )
    rest -= architecture.depth * architecture.width  # the norms before the FFNs
    rest -= fixed - per_unit  # what an FFN has whatever its width, like a router
    hidden = FFN_STEP * round(rest / per_unit / FFN_STEP)
    low, high = (bound * ffn.hidden for bound in FFN_RANGE)
    if not low <= hidden <= high:
        raise Refused(
            f"{architecture.depth} layers would need an FFN of {hidden} channels to meet the parameter budget of "
            f"{scale.name}; it may be {low:.0f} to {high:.0f}"
        )
    return replace(architecture, blocks=tuple(replace(b, ffn=replace(ffn, hidden=hidden)) for b in architecture.blocks))


def _params(architecture: Architecture) -> int:
    """What is compared with a budget: with experts, the parameters that one token uses [arXiv:2510.04800, Table 4]."""
    return params_nonembedding(architecture, active=True)
