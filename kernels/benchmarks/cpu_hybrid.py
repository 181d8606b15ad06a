"""Training speed on the CPU: our hybrid against transformers' Bamba of the same dimensions, in one run.

    python kernels/benchmarks/cpu_hybrid.py [--sizes proxy width-128 width-256] [--threads 1 2] [--rounds 7]

One step is forward, cross-entropy, backward and a fused AdamW. Both models have the same layers, parameters, weights
and tokens: the parameter counts are asserted equal, and the logits equal to 1e-4 with our weights copied in, before
anything is timed. Rounds alternate between the two, so that whatever else the machine does meets both; the ratio is
the median over rounds of the two times of one round. Bamba runs its own torch path with the chunk that is fastest for
it here among `BAMBA_CHUNKS`. Writes results/cpu_hybrid.json and .md.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hybrid_nas.architecture import Architecture, Attention, Mamba2
from hybrid_nas.cost import cost
from hybrid_nas.design import Design, Ratio
from hybrid_nas.model import Model, build
from hybrid_nas.scale import PROXY, Scale

BAMBA_CHUNKS = (32, 64, 256)
RESULTS = Path(__file__).parent / "results"
SIZES: dict[str, tuple[Scale, int, int]] = {  # scale, batch, tokens
    "proxy": (PROXY, 4, 256),
    "width-128": (
        PROXY.with_changes(width=128, ffn_hidden=256, head_dim=32, ssm_head_dim=64, d_state=64, params=1_800_000),
        4,
        256,
    ),
    "width-256": (
        PROXY.with_changes(width=256, ffn_hidden=512, head_dim=64, ssm_head_dim=64, d_state=64, params=5_000_000),
        4,
        256,
    ),
}


def bamba(architecture: Architecture, context: int, chunk: int) -> Any:
    """transformers' model of `architecture`, every dimension taken from it."""
    from transformers import BambaConfig, BambaForCausalLM

    mixers = [block.mixer for block in architecture.blocks]
    attention = next(m for m in mixers if isinstance(m, Attention))
    mamba = next(m for m in mixers if isinstance(m, Mamba2))
    ffn = architecture.blocks[0].ffn
    assert ffn is not None
    assert mamba.d_ssm % architecture.width == 0
    config = BambaConfig(
        vocab_size=architecture.vocab,
        hidden_size=architecture.width,
        intermediate_size=ffn.hidden,
        num_hidden_layers=architecture.depth,
        num_attention_heads=attention.heads,
        num_key_value_heads=attention.kv_heads,
        attn_layer_indices=[i for i, m in enumerate(mixers) if isinstance(m, Attention)],
        rope_parameters={
            "rope_type": "default",
            "rope_theta": attention.rope_theta,
            "partial_rotary_factor": 1.0,
        },
        mamba_n_heads=mamba.heads,
        mamba_d_head=mamba.head_dim,
        mamba_n_groups=mamba.groups,
        mamba_d_state=mamba.d_state,
        mamba_d_conv=mamba.conv_kernel,
        mamba_expand=mamba.d_ssm // architecture.width,
        mamba_chunk_size=chunk,
        max_position_embeddings=context,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        pad_token_id=None,
        use_cache=False,
        attn_implementation="sdpa",
    )
    return BambaForCausalLM(config)


def copy_weights(ours: Model, theirs: Any) -> None:
    """Our weights into Bamba, by name. The sets of names must match exactly."""
    names = {"embedding": "model.embed_tokens.weight", "norm.weight": "model.final_layernorm.weight"}
    for i, block in enumerate(ours.architecture.blocks):
        mixer = "self_attn" if isinstance(block.mixer, Attention) else "mamba"
        to, fro = f"model.layers.{i}", f"blocks.{i}"
        names |= {f"{fro}.mixer_norm.weight": f"{to}.input_layernorm.weight"}
        names |= {f"{fro}.ffn_norm.weight": f"{to}.pre_ff_layernorm.weight"}
        for part in ("gate", "up", "down"):
            names[f"{fro}.ffn.{part}.weight"] = f"{to}.feed_forward.{part}_proj.weight"
        for name in ours.state_dict():
            if name.startswith(f"{fro}.mixer."):
                names[name] = name.replace(f"{fro}.mixer", f"{to}.{mixer}")
    state = {names[name]: value.clone() for name, value in ours.state_dict().items()}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= {"lm_head.weight"}, missing
    theirs.tie_weights()


def check(ours: Model, theirs: Any, tokens: Tensor) -> float:
    """Largest difference of the logits; raises where parameters or logits differ."""
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in theirs.parameters()) == cost(ours.architecture, 1).params
    with torch.no_grad():
        difference = float((ours(tokens) - theirs(tokens, use_cache=False).logits).abs().max())
    assert difference < 1e-4, f"logits differ by {difference}"
    return difference


def trainer(parameters: Any, loss: Callable[[], Tensor]) -> Callable[[], float]:
    """A function that trains one step and returns its seconds."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)

    def step() -> float:
        begin = time.perf_counter()
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - begin

    return step


def measure(size: str, threads: int, rounds: int, steps: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    scale, batch, context = SIZES[size]
    architecture = Design(ratio=Ratio.parse("1:5")).at(scale)
    generator = torch.Generator().manual_seed(0)
    ours = build(architecture, generator=generator)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if "norm" in name:  # norms of one would hide a norm in the wrong place
                parameter.uniform_(0.5, 1.5, generator=generator)
    text = torch.randint(architecture.vocab, (batch, context + 1), generator=generator)
    tokens, targets = text[:, :-1], text[:, 1:]

    def their_step(model: Any) -> Callable[[], float]:
        return trainer(
            model.parameters(),
            lambda: F.cross_entropy(model(tokens, use_cache=False).logits.flatten(0, 1), targets.flatten()),
        )

    difference, fastest = 0.0, {}
    for chunk in BAMBA_CHUNKS:
        theirs = bamba(architecture, context, chunk)
        copy_weights(ours, theirs)
        difference = max(difference, check(ours, theirs, tokens))
        step = their_step(theirs)
        fastest[chunk] = min(step() for _ in range(3))
    chunk = min(fastest, key=lambda c: fastest[c])
    theirs = bamba(architecture, context, chunk)
    copy_weights(ours, theirs)
    our_step, bamba_step = trainer(ours.parameters(), lambda: ours.loss(tokens, targets)), their_step(theirs)
    for warm in (our_step, bamba_step):
        warm(), warm()
    pairs = []
    for _ in range(rounds):
        pairs.append(tuple(statistics.median(s() for _ in range(steps)) for s in (our_step, bamba_step)))
    ratios = sorted(b / a for a, b in pairs)
    ours_s, bamba_s = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "size": size,
        "threads": threads,
        "layout": architecture.layout,
        "width": architecture.width,
        "params": sum(p.numel() for p in ours.parameters()),
        "batch": batch,
        "context": context,
        "bamba_chunk": chunk,
        "logits_max_difference": difference,
        "ours_step_s": ours_s,
        "bamba_step_s": bamba_s,
        "ours_tokens_per_s": batch * context / ours_s,
        "bamba_tokens_per_s": batch * context / bamba_s,
        "ratio": statistics.median(ratios),
        "ratio_low": ratios[0],
        "ratio_high": ratios[-1],
        "rounds": rounds,
        "implementations": ours.implementations(),
    }


def device_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment() -> dict[str, Any]:
    import transformers

    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": device_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or None,
    }


def as_markdown(result: dict[str, Any]) -> str:
    env = result["environment"]
    head = ["size", "layout", "parameters", "batch x context", "threads", "ours, tokens/s", "Bamba, tokens/s"]
    head += ["ratio (range)", "logits differ by"]
    versions = f"torch {env['torch']}, transformers {env['transformers']}, Python {env['python']}"
    lines = [f"{env['device']} ({env['cpu_capability']}), {versions}, {env['date']}, commit {env['commit']}", ""]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += [
        f"| {r['size']} | {r['layout']} | {r['params']:,} | {r['batch']} x {r['context']} | {r['threads']} "
        f"| {r['ours_tokens_per_s']:,.0f} | {r['bamba_tokens_per_s']:,.0f} (chunk {r['bamba_chunk']}) "
        f"| {r['ratio']:.2f} ({r['ratio_low']:.2f} to {r['ratio_high']:.2f}) | {r['logits_max_difference']:.1e} |"
        for r in result["runs"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps of each model in a round")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if importlib.util.find_spec("transformers") is None:
        print(
            f"{Path(__file__).name}: this compares with transformers, which is not installed; "
            "pip install 'hybrid-nas[hf]'",
            file=sys.stderr,
        )
        sys.exit(2)
    warnings.filterwarnings("ignore", message=".*fast path is not available.*")
    runs = [measure(s, t, options.rounds, options.steps) for s in options.sizes for t in options.threads]
    result = {"environment": environment(), "runs": runs}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "cpu_hybrid.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / "cpu_hybrid.md").write_text(as_markdown(result))
    print(as_markdown(result))


if __name__ == "__main__":
    main()
