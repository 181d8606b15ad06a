"""Megatron-LM: the hybrid layer pattern, the argument file, and NVIDIA's rules on both.

A block of ours is two of its layers, `M-` or `*-`. Its Mamba-2 has a convolution of 4 with bias, a gated norm (gate
first, grouped) of epsilon 1e-5 and no bounds on the time step, which is ours. Written as one argument a line, as
Megatron reads files of arguments; the pattern is quoted for a shell that may read it too.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from itertools import pairwise
from typing import Any

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, Mixer, SquaredReLU, SwiGLU
from hybrid_nas.export.format import CannotRead, Files, Format, Imported, Rule
from hybrid_nas.export.nemotron_h import layers_of
from hybrid_nas.export.rules import first, no_experts, no_window, one_of, only_mixers, with_mixers

FILE = "megatron_arguments.txt"
NORM_EPS = 1e-5
CONV_KERNEL = 4
STAGE = "|"
SYMBOLS = ("M", "*", "-")
READ = frozenset((
    "hybrid-layer-pattern", "hybrid-override-pattern", "hidden-size", "ffn-hidden-size", "num-attention-heads",
    "group-query-attention", "num-query-groups", "kv-channels", "mamba-num-heads", "mamba-head-dim", "mamba-state-dim",
    "mamba-num-groups", "position-embedding-type", "rotary-base", "swiglu", "squared-relu", "disable-bias-linear",
    "vocab-size", "seq-length", "untie-embeddings-and-output-weights",
))  # fmt: skip
SAID: dict[str, tuple[str, str]] = {
    "normalization": ("RMSNorm", "LayerNorm"), "norm-epsilon": ("1e-05", "1e-05"), "rotary-percent": ("1.0", "1.0"),
    "attention-dropout": ("0.0", "0.1"), "hidden-dropout": ("0.0", "0.1"),
}  # fmt: skip
"""Argument -> what it must be for a model of ours, and Megatron-LM's default."""
NO_EFFECT = (
    "use-mcore", "spec", "max-position-embeddings", "make-vocab-size-divisible-by", "tensor-model-parallel",
    "pipeline-model-parallel", "context-parallel", "sequence-parallel", "use-distributed", "overlap-", "init-method",
    "bf16", "fp16", "micro-batch", "global-batch", "train-", "lr", "min-lr", "weight-decay", "clip-grad", "adam",
    "data-", "split", "tokenizer", "save", "load", "log-", "eval-", "seed", "num-workers", "no-", "transformer-impl",
    "recompute", "distributed", "tensorboard", "wandb", "attention-backend", "use-flash-attn", "use-checkpoint",
    "num-layers", "ckpt", "exit-", "manual-gc", "optimizer", "calculate-per-token-loss",
)  # fmt: skip
"""How arguments begin that change where and how a model is trained, not what it is."""


def check_pattern(pattern: str, tensor_parallel: int, pipeline: int, architecture: Architecture) -> None:
    """NVIDIA's rules on a pattern and on splitting it. ValueError says which is broken, and what would keep it."""
    if unknown := sorted(set(pattern) - {*SYMBOLS, STAGE}):
        raise ValueError(f"hybrid-layer-pattern: symbol {unknown[0]!r}; known: {' '.join(SYMBOLS)} and |")
    stages = pattern.split(STAGE)
    if not all(stages):
        raise ValueError(f"hybrid-layer-pattern: each stage needs a layer, found {pattern!r}")
    if len(stages) % pipeline:
        raise ValueError(
            f"hybrid-layer-pattern: the number of stages, {len(stages)}, must be a multiple of "
            f"--pipeline-model-parallel-size, {pipeline}"
        )
    mamba: Mamba2 | None = first(architecture, Mamba2)
    attention: Attention | None = first(architecture, Attention)
    sizes = {} if mamba is None else {"Mamba-2 heads": mamba.heads, "Mamba-2 groups": mamba.groups}
    if attention is not None:
        sizes |= {"attention heads": attention.heads, "query groups": attention.kv_heads}
    for name, size in sizes.items():
        if size % tensor_parallel:
            fitting = [n for n in range(1, size + 1) if all(value % n == 0 for value in sizes.values())]
            one = mamba is not None and mamba.groups == 1
            raise ValueError(
                f"tensor-model-parallel-size: {tensor_parallel} does not divide {size} {name}; "
                f"{', '.join(map(str, fitting))} would divide all"
                + (
                    "; Megatron-LM splits Mamba-2 by its groups of B and C, of which a design has one, so it runs with "
                    "--pipeline and data parallelism alone"
                    if one
                    else ""
                )
            )


def pattern_of(architecture: Architecture, pipeline: int = 1) -> str:
    """The pattern, cut between blocks into `pipeline` stages of nearly equal numbers of layers."""
    symbols = ["".join(s for s, block in layers_of(architecture) if block == i) for i in range(architecture.depth)]
    if pipeline > len(symbols):
        raise ValueError(f"pipeline-model-parallel-size: {pipeline} stages need as many blocks, found {len(symbols)}")
    cuts = [round(i * len(symbols) / pipeline) for i in range(pipeline + 1)]
    return STAGE.join("".join(symbols[a:b]) for a, b in pairwise(cuts))


def arguments(
    architecture: Architecture, context: int, tensor_parallel: int = 1, pipeline: int = 1
) -> list[tuple[str, ...]]:
    """The arguments of pretrain_hybrid.py that describe the model, a tuple an argument."""
    pattern = pattern_of(architecture, pipeline)
    check_pattern(pattern, tensor_parallel, pipeline, architecture)
    mamba: Mamba2 | None = first(architecture, Mamba2)
    attention: Attention = first(architecture, Attention) or Attention(1, 1, architecture.width, None)
    ffn = next((block.ffn for block in architecture.blocks if block.ffn is not None), None)
    rows: list[tuple[str, ...]] = [
        ("--use-mcore-models",),
        ("--spec", "megatron.core.models.hybrid.hybrid_layer_specs", "hybrid_stack_spec"),
        ("--hybrid-layer-pattern", pattern),
        ("--hidden-size", str(architecture.width)),
        ("--ffn-hidden-size", str(4 * architecture.width if ffn is None else ffn.hidden)),
        ("--num-attention-heads", str(attention.heads)),
        ("--group-query-attention",),
        ("--num-query-groups", str(attention.kv_heads)),
        ("--kv-channels", str(attention.head_dim)),
    ]
    if mamba is not None:
        rows += [
            ("--mamba-num-heads", str(mamba.heads)),
            ("--mamba-head-dim", str(mamba.head_dim)),
            ("--mamba-state-dim", str(mamba.d_state)),
            ("--mamba-num-groups", str(mamba.groups)),
        ]
    if attention.rope_theta is None:
        rows.append(("--position-embedding-type", "none"))
    else:
        base = f"{attention.rope_theta:.0f}"
        rows += [("--position-embedding-type", "rope"), ("--rotary-base", base), ("--rotary-percent", "1.0")]
    rows += [
        ("--normalization", "RMSNorm"),
        ("--norm-epsilon", str(NORM_EPS)),
        ("--squared-relu",) if isinstance(ffn, SquaredReLU) else ("--swiglu",),
        ("--disable-bias-linear",),
        ("--attention-dropout", "0.0"),
        ("--hidden-dropout", "0.0"),
        ("--seq-length", str(context)),
        ("--max-position-embeddings", str(context)),
        ("--vocab-size", str(architecture.vocab)),
        ("--make-vocab-size-divisible-by", "1"),
        ("--tensor-model-parallel-size", str(tensor_parallel)),
        ("--pipeline-model-parallel-size", str(pipeline)),
        ("--init-method-std", "0.02"),
        ("--bf16",),
    ]
    return rows


def write(architecture: Architecture, context: int, tensor_parallel: int = 1, pipeline: int = 1) -> Files:
    return {FILE: text_of(arguments(architecture, context, tensor_parallel, pipeline))}


def text_of(rows: list[tuple[str, ...]]) -> str:
    return "\n".join(" ".join(shlex.quote(word) for word in row) for row in rows) + "\n"


def read(config: Any) -> Imported:
    words = iter(shlex.split(config))
    values: dict[str, list[str]] = {}
    last = ""
    for word in words:
        if word.startswith("--"):
            last = word
            values[last] = []
        elif not last:
            raise CannotRead(f"an argument file begins with an argument, found {word!r}")
        else:
            values[last].append(word)

    def value(name: str, default: Any = None) -> Any:
        given = values.get(f"--{name}")
        if given:
            return given[0]
        if default is None:
            raise CannotRead(f"--{name} is missing")
        return default

    width = int(value("hidden-size"))
    pattern = "".join(value("hybrid-layer-pattern", values.get("--hybrid-override-pattern", [""])[0]).split(STAGE))
    heads = int(value("num-attention-heads"))
    kind = value("position-embedding-type", "learned_absolute")
    if kind not in ("rope", "none"):
        raise CannotRead(f"--position-embedding-type is {kind!r}; rope and none can be expressed")
    groups = int(value("num-query-groups", 1)) if "--group-query-attention" in values else heads
    attention = Attention(
        heads,
        groups,
        int(value("kv-channels", width // heads)),
        float(value("rotary-base", 10_000)) if kind == "rope" else None,
    )
    head_dim = int(value("mamba-head-dim", 64))
    d_ssm = int(value("mamba-num-heads", 2 * width // head_dim)) * head_dim
    mamba = Mamba2(d_ssm, head_dim, int(value("mamba-state-dim", 128)), int(value("mamba-num-groups", 8)))
    if "--swiglu" not in values and "--squared-relu" not in values:
        raise CannotRead("--swiglu or --squared-relu must name the FFN; another cannot be expressed")
    hidden = int(value("ffn-hidden-size", 4 * width))
    ffn = SwiGLU(hidden) if "--swiglu" in values else SquaredReLU(hidden)
    blocks: list[Block] = []
    mixers: dict[str, Mixer] = {"M": mamba, "*": attention}
    for symbol in pattern:
        if symbol in mixers:
            blocks.append(Block(mixers[symbol], None))
        elif symbol != "-":
            raise CannotRead(f"--hybrid-layer-pattern: {symbol!r} cannot be expressed; M, * and - can")
        elif blocks and blocks[-1].ffn is None:
            blocks[-1] = replace(blocks[-1], ffn=ffn)
        else:
            blocks.append(Block(None, ffn))
    vocab = int(value("vocab-size"))
    notes = []
    if "--untie-embeddings-and-output-weights" in values:
        notes.append(f"classifier of its own; here it is the embedding, {vocab * width:,} parameters fewer")
    notes += _unread(values)
    return Imported(Architecture(width, vocab, tuple(blocks)), int(value("seq-length")), tuple(notes))


def _unread(values: dict[str, list[str]]) -> list[str]:
    """A note for each argument that nothing reads, unless it says what is so here or has no effect on the model."""
    notes = []
    for name, (ours, default) in SAID.items():
        given = values.get(f"--{name}")
        found = default if given is None else " ".join(given)
        if not _equal(found, ours):
            missing = " by default" if given is None else ""
            notes.append(f"--{name} is {found}{missing}; here it is {ours}")
    if "--disable-bias-linear" not in values:
        notes.append("--disable-bias-linear is missing: its projections have biases; here they have none")
    for name, words in values.items():
        bare = name.removeprefix("--")
        if bare not in {*READ, *SAID} and not bare.startswith(NO_EFFECT):
            notes.append(f"{' '.join((name, *words))} is not read: whatever it changes is not changed here")
    return notes


def _equal(found: str, ours: str) -> bool:
    try:
        return float(found) == float(ours)
    except ValueError:
        return found == ours


def fixed_kernel() -> Rule:
    """The convolution has 4 taps."""

    def problem(architecture: Architecture) -> str | None:
        kernels = {b.mixer.conv_kernel for b in architecture.blocks if isinstance(b.mixer, Mamba2)} - {CONV_KERNEL}
        return f"its convolution has {CONV_KERNEL} taps, found {min(kernels)}" if kernels else None

    def fit(mixer: Mixer) -> Mixer:
        return replace(mixer, conv_kernel=CONV_KERNEL) if isinstance(mixer, Mamba2) else mixer

    return Rule(problem, lambda a: (with_mixers(a, fit), f"the convolution gets {CONV_KERNEL} taps"))


def one_ffn() -> Rule:
    """All FFNs are equal; a block may go without."""

    def problem(architecture: Architecture) -> str | None:
        if len({block.ffn for block in architecture.blocks} - {None}) > 1:
            return "all its FFN layers are alike"
        return None

    def mend(architecture: Architecture) -> tuple[Architecture, str]:
        ffns = [block.ffn for block in architecture.blocks if block.ffn is not None]
        usual = max(ffns, key=lambda ffn: (ffns.count(ffn), ffn.hidden))
        blocks = tuple(replace(b, ffn=None if b.ffn is None else usual) for b in architecture.blocks)
        return replace(architecture, blocks=blocks), "every FFN becomes the commonest"

    return Rule(problem, mend)


MEGATRON = Format(
    name="megatron",
    title="Megatron-LM pretrain_hybrid.py arguments",
    rules=(
        only_mixers(Attention, Mamba2),
        no_window(),
        one_of(Attention),
        one_of(Mamba2),
        fixed_kernel(),
        no_experts(),
        one_ffn(),
    ),
    write=write,
    recognise=lambda config: isinstance(config, str) and "--hybrid-" in config,
    read=read,
)
