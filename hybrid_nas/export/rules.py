"""Rules that several formats share: what their configurations have one field for, or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any

from hybrid_nas.architecture import (
    FFN,
    Architecture,
    Attention,
    Block,
    Mamba2,
    Mixer,
    ParallelHybrid,
    ParallelPair,
    SwiGLU,
)
from hybrid_nas.export.format import Rule
from hybrid_nas.moe import MoE
from hybrid_nas.recurrent import GatedDeltaNet, Mamba1, Mamba3

HEAD_DIM = 64
NAMES = {"attention": "attention", "mamba2": "Mamba-2", "mamba1": "Mamba-1", "gated_deltanet": "Gated DeltaNet"}


def mixers_of(architecture: Architecture, kind: type[Any]) -> list[Any]:
    return [block.mixer for block in architecture.blocks if isinstance(block.mixer, kind)]


def first(architecture: Architecture, kind: type[Any]) -> Any:
    """The first mixer of a kind, None where the model has none."""
    return next(iter(mixers_of(architecture, kind)), None)


def with_mixers(architecture: Architecture, change: Callable[[Mixer], Mixer]) -> Architecture:
    return replace(
        architecture,
        blocks=tuple(b if b.mixer is None else replace(b, mixer=change(b.mixer)) for b in architecture.blocks),
    )


def only_mixers(*kinds: type[Any]) -> Rule:
    """Every block's mixer is one of `kinds`. A recurrent one becomes the recurrent kind, with as many channels and as
    large a state; the rest become the commonest mixer of the model that fits, or one that is made of theirs."""
    known = " and ".join(NAMES.get(kind.kind, kind.kind) for kind in kinds)

    def others(architecture: Architecture) -> Iterable[Mixer]:
        return (b.mixer for b in architecture.blocks if b.mixer is not None and not isinstance(b.mixer, kinds))

    def problem(architecture: Architecture) -> str | None:
        letters = Counter(mixer.letter for mixer in others(architecture))
        if not letters:
            return None
        named = ", ".join(f"{letter} ({count} layers)" for letter, count in letters.items())
        return f"its layers are {known}, found {named}"

    def mend(architecture: Architecture) -> tuple[Architecture, str]:
        changed = with_mixers(architecture, lambda m: m if isinstance(m, kinds) else _recurrent(m, kinds))
        fitting = Counter(m for kind in kinds for m in mixers_of(changed, kind))
        usual = fitting.most_common(1)[0][0] if fitting else _made(changed, kinds)
        if usual is None:
            return architecture, "nothing"
        changed = with_mixers(changed, lambda m: m if isinstance(m, kinds) else usual)
        letters = [b.mixer.letter for b in changed.blocks if b.mixer is not None]
        became: dict[str, Counter[str]] = {}
        for mixer, letter in zip((b.mixer for b in architecture.blocks if b.mixer is not None), letters, strict=True):
            if not isinstance(mixer, kinds):
                became.setdefault(letter, Counter())[mixer.letter] += 1
        return changed, "; ".join(_said(letter, found) for letter, found in sorted(became.items()))

    return Rule(problem, mend)


def _said(letter: str, found: Counter[str]) -> str:
    which = ", ".join(f"{count} layer{'s' * (count > 1)} of {old}" for old, count in sorted(found.items()))
    return f"{which} become{'s' * (found.total() == 1)} {letter}"


def _recurrent(mixer: Mixer, kinds: tuple[type[Any], ...]) -> Mixer:
    """A recurrent mixer as the recurrent kind among `kinds`: as many channels, as large a state. Others as they are."""
    match mixer:
        case Mamba1() | Mamba2() | Mamba3():
            d_ssm, d_state = mixer.d_ssm, mixer.d_state
        case GatedDeltaNet():
            d_ssm, d_state = mixer.heads * mixer.value_dim, mixer.key_dim
        case _:
            return mixer
    taps = getattr(mixer, "conv_kernel", 4)
    if Mamba2 in kinds and not isinstance(mixer, Mamba2):
        head_dim = getattr(mixer, "head_dim", _divisor(d_ssm, HEAD_DIM))
        return Mamba2(d_ssm, head_dim, d_state, conv_kernel=taps)
    if Mamba1 in kinds:
        return Mamba1(d_ssm, d_state, max(1, d_ssm // 32), taps)
    return mixer


def _made(architecture: Architecture, kinds: tuple[type[Any], ...]) -> Mixer | None:
    """A mixer of `kinds` for a model that has none: of a parallel hybrid its Mamba-2, twice as wide as the model, and
    of a stack of single mixers a parallel hybrid of its attention and its Mamba-2, or of one and a like of the other.
    None where nothing is near."""
    width = architecture.width
    hybrid: ParallelHybrid | None = first(architecture, ParallelHybrid)
    pair: ParallelPair | None = first(architecture, ParallelPair)
    halves = [] if hybrid is None else [hybrid.mamba]
    halves += [] if pair is None or not isinstance(pair.half, Mamba2) else [pair.half]
    if halves:
        like = replace(halves[0], d_ssm=2 * width, head_dim=_divisor(2 * width, halves[0].head_dim), groups=1)
        made = _recurrent(like, kinds)
        return made if isinstance(made, kinds) else None
    if pair is not None and Attention in kinds:
        return pair.half
    if ParallelHybrid not in kinds:
        return None
    attention: Attention | None = first(architecture, Attention)
    recurrent = (_recurrent(b.mixer, (Mamba2,)) for b in architecture.blocks if b.mixer is not None)
    mamba = next((m for m in recurrent if isinstance(m, Mamba2)), None)
    if attention is None:
        heads = width // _divisor(width, HEAD_DIM, step=2)
        attention = Attention(heads, heads, width // heads)
    if mamba is None:
        mamba = Mamba2(2 * width, _divisor(2 * width, HEAD_DIM), 128)
    return ParallelHybrid(attention, mamba, norm="none", fusion="add", output="separate")


def _divisor(number: int, most: int, step: int = 1) -> int:
    """The largest divisor of `number` up to `most`, a multiple of `step` where there is one."""
    fitting = [d for d in range(1, min(number, most) + 1) if number % d == 0]
    return max([d for d in fitting if d % step == 0] or fitting)


def has_mixers() -> Rule:
    def problem(architecture: Architecture) -> str | None:
        missing = [i for i, block in enumerate(architecture.blocks) if block.mixer is None]
        return f"each of its layers has a mixer, block {missing[0]} has none" if missing else None

    return Rule(problem)


def one_of(kind: type[Any]) -> Rule:
    """All mixers of a kind are equal: the configuration has one field for each dimension. The commonest is kept."""
    name = NAMES.get(kind.kind, kind.kind)

    def problem(architecture: Architecture) -> str | None:
        different = list(dict.fromkeys(mixers_of(architecture, kind)))
        if len(different) < 2:
            return None
        field = next(f.name for f in fields(kind) if len({getattr(m, f.name) for m in different}) > 1)
        found = " and ".join(str(value) for value in dict.fromkeys(getattr(m, field) for m in different))
        return f"all its {name} layers share one {field}, found {found}"

    def mend(architecture: Architecture) -> tuple[Architecture, str]:
        usual = Counter(mixers_of(architecture, kind)).most_common(1)[0][0]
        return (
            with_mixers(architecture, lambda m: usual if isinstance(m, kind) else m),
            f"all {name} layers become the commonest of them",
        )

    return Rule(problem, mend)


def no_window() -> Rule:
    """No sliding window. Full attention takes its place."""

    def problem(architecture: Architecture) -> str | None:
        windows = {m.window for m in mixers_of(architecture, Attention)} - {None}
        return f"its attention has no window, found {', '.join(map(str, sorted(windows)))} tokens" if windows else None

    def mend(architecture: Architecture) -> tuple[Architecture, str]:
        full = [m for m in mixers_of(architecture, Attention) if m.window is None]
        usual = Counter(full).most_common(1)[0][0] if full else None

        def widen(mixer: Mixer) -> Mixer:
            if isinstance(mixer, Attention) and mixer.window is not None:
                return usual or replace(mixer, window=None, sinks=0)
            return mixer

        return with_mixers(architecture, widen), "windowed layers become full attention"

    return Rule(problem, mend)


def position(wanted: str) -> Rule:
    """`rope`: every attention layer has RoPE. `none`: none has."""

    def broken(mixer: Attention) -> bool:
        return (mixer.rope_theta is None) == (wanted == "rope")

    def problem(architecture: Architecture) -> str | None:
        count = sum(broken(m) for m in mixers_of(architecture, Attention))
        if not count:
            return None
        has = "always has RoPE" if wanted == "rope" else "has no position encoding"
        return f"its attention {has}, found {count} layers {'without' if wanted == 'rope' else 'with RoPE'}"

    def mend(architecture: Architecture) -> tuple[Architecture, str]:
        theta = 10_000.0 if wanted == "rope" else None
        changed = with_mixers(
            architecture, lambda m: replace(m, rope_theta=theta) if isinstance(m, Attention) and broken(m) else m
        )
        return changed, "attention gets RoPE of base 10,000" if wanted == "rope" else "attention loses RoPE"

    return Rule(problem, mend)


def d_ssm_is_whole_widths(kind: type[Any] = Mamba2) -> Rule:
    """`mamba_expand` is a whole number: d_ssm is once, twice, ... the width."""

    def problem(architecture: Architecture) -> str | None:
        broken = {m.d_ssm for m in mixers_of(architecture, kind) if m.d_ssm % architecture.width}
        if not broken:
            return None
        return f"its d_ssm is a whole number of widths ({architecture.width}), found {min(broken)}"

    def mend(architecture: Architecture) -> tuple[Architecture, str]:
        width = architecture.width
        sizes = set()

        def fit(mixer: Mixer) -> Mixer:
            if not isinstance(mixer, Mamba1 | Mamba2) or mixer.d_ssm % width == 0:
                return mixer
            d_ssm = max(1, (2 * mixer.d_ssm + width) // (2 * width)) * width
            sizes.add(d_ssm)
            if isinstance(mixer, Mamba1):
                return replace(mixer, d_ssm=d_ssm)
            fitting = [d for d in range(1, d_ssm + 1) if d_ssm % d == 0 and (d_ssm // d) % mixer.groups == 0]
            head_dim = min(fitting, key=lambda d: (abs(d - mixer.head_dim), d))
            return replace(mixer, d_ssm=d_ssm, head_dim=head_dim)

        changed = with_mixers(architecture, fit)
        return changed, f"d_ssm becomes {', '.join(map(str, sorted(sizes)))}"

    return Rule(problem, mend)


def no_experts(why: str = "its FFNs are dense") -> Rule:
    """No mixture of experts, or not as ours. A SwiGLU as wide as what a token sees takes its place."""

    def problem(architecture: Architecture) -> str | None:
        mixed = [i for i, block in enumerate(architecture.blocks) if isinstance(block.ffn, MoE)]
        return f"{why}, found experts in {len(mixed)} blocks" if mixed else None

    def mend(architecture: Architecture) -> tuple[Architecture, str]:
        blocks = tuple(
            replace(b, ffn=SwiGLU(b.ffn.hidden * (1 + b.ffn.active))) if isinstance(b.ffn, MoE) else b
            for b in architecture.blocks
        )
        return replace(architecture, blocks=blocks), "experts become one SwiGLU, as wide as those that a token sees"

    return Rule(problem, mend)


def one_ffn_after_each(kind: type[Any] = SwiGLU, name: str = "SwiGLU") -> Rule:
    """Every block has an FFN of that kind, all of one size. The commonest takes the place of the others."""

    def problem(architecture: Architecture) -> str | None:
        for i, block in enumerate(architecture.blocks):
            if not isinstance(block.ffn, kind):
                what = "none" if block.ffn is None else block.ffn.kind
                return f"a {name} follows each of its mixers, found {what} in block {i}"
        if len({block.ffn for block in architecture.blocks}) > 1:
            return f"all its {name} layers share one size"
        return None

    def mend(architecture: Architecture) -> tuple[Architecture, str]:
        usual = Counter(b.ffn for b in architecture.blocks if isinstance(b.ffn, kind)).most_common(1)
        if not usual:
            return architecture, "nothing"
        ffn: FFN = usual[0][0]
        changed = replace(architecture, blocks=tuple(Block(b.mixer, ffn) for b in architecture.blocks))
        return changed, f"every FFN becomes the commonest, {ffn}"

    return Rule(problem, mend)
