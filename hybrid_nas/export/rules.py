"""Rules that several formats share: what their configurations have one field for, or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any

from hybrid_nas.architecture import FFN, Architecture, Attention, Block, Mamba2, Mixer, SwiGLU
from hybrid_nas.export.format import Rule
from hybrid_nas.moe import MoE
from hybrid_nas.recurrent import Mamba1

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
    """Every block's mixer is one of `kinds`. Another is replaced by the commonest mixer of the model that is."""
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
        fitting = Counter(m for kind in kinds for m in mixers_of(architecture, kind))
        if not fitting:
            return architecture, "nothing"
        usual = fitting.most_common(1)[0][0]
        found = Counter(mixer.letter for mixer in others(architecture))
        which = ", ".join(f"{count} layer{'s' * (count > 1)} of {letter}" for letter, count in sorted(found.items()))
        changed = with_mixers(architecture, lambda m: m if isinstance(m, kinds) else usual)
        return changed, f"{which} become{'s' * (found.total() == 1)} {usual.letter}"

    return Rule(problem, mend)


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
