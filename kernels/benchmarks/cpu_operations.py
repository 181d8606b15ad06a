"""Every operation on the CPU at the sizes of a proxy: each implementation, forward and backward, in one run.

    python kernels/benchmarks/cpu_operations.py [--rounds 9]

Sizes are those of one layer of the proxy (batch 4 x 256 tokens, width 64) and rounds alternate between the
implementations, one thread. The floors are what the machine could do at best: the arithmetic of the matrix products at
the rate of a large sgemm measured in the same run, and the bytes of inputs, outputs and their gradients, each moved
once, at the rate of a large copy. Writes results/cpu_operations.json and .md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cpu_hybrid import RESULTS, environment
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

BATCH, TOKENS, WIDTH, INNER, HEADS, STATE, HIDDEN, VOCAB = 4, 256, 64, 128, 4, 16, 128, 256
EPS = 1e-5
Call = Callable[[str, list[Tensor]], Any]


def operations() -> dict[str, tuple[list[tuple[int, ...]], Call]]:
    """operation -> shapes of its differentiable inputs, and the call with an implementation and those inputs."""
    module = {
        name: importlib.import_module(f"hybrid_nas_kernels.{name}")
        for name in ("ssd causal_conv1d attention norm_linear gated_norm_linear swiglu rope cross_entropy".split())
    }
    cos, sin = module["rope"].rope_table(1e4, 16, 0, TOKENS, torch.device("cpu"))
    targets = torch.zeros(BATCH, TOKENS, dtype=torch.int64)
    rows, parts = (BATCH, TOKENS), (INNER, INNER + 2 * STATE, HEADS)

    def scan(how: str, v: list[Tensor]) -> Any:
        x, dt, A, B, C, D = v
        return module["ssd"].ssd(x, dt.sigmoid() * 0.1, -A.exp(), B, C, D, implementation=how)[0]

    def attend(how: str, v: list[Tensor], **window: int) -> Any:
        return module["attention"].attention(*v, implementation=how, **window)

    heads = [(*rows, 4, 16), (*rows, 1, 16), (*rows, 1, 16)]
    return {
        "ssd": (
            [
                (*rows, HEADS, INNER // HEADS),
                (*rows, HEADS),
                (HEADS,),
                (*rows, 1, STATE),
                (*rows, 1, STATE),
                (HEADS,),
            ],
            scan,
        ),
        "causal_conv1d": (
            [(*rows, parts[1]), (parts[1], 4), (parts[1],)],
            lambda how, v: module["causal_conv1d"].causal_conv1d(*v, (INNER, 2 * STATE), implementation=how),
        ),
        "attention": (heads, attend),
        "attention, window 32, 4 sinks": (heads, lambda how, v: attend(how, v, window=32, sinks=4)),
        "norm_linear": (
            [(*rows, WIDTH), (WIDTH,), (sum(parts), WIDTH)],
            lambda how, v: module["norm_linear"].norm_linear(*v, parts, eps=EPS, implementation=how),
        ),
        "gated_norm_linear": (
            [(*rows, INNER), (*rows, INNER), (INNER,), (WIDTH, INNER)],
            lambda how, v: module["gated_norm_linear"].gated_norm_linear(*v, groups=1, eps=EPS, implementation=how),
        ),
        "swiglu": (
            [(*rows, WIDTH), (WIDTH,), (HIDDEN, WIDTH), (HIDDEN, WIDTH), (WIDTH, HIDDEN)],
            lambda how, v: module["swiglu"].swiglu(*v, eps=EPS, implementation=how),
        ),
        "rope": ([(*rows, 5, 16)], lambda how, v: module["rope"].rope(v[0], cos, sin, implementation=how)),
        "cross_entropy": (
            [(*rows, VOCAB)],
            lambda how, v: module["cross_entropy"].cross_entropy(v[0], targets, implementation=how),
        ),
    }


def best(function: Callable[[], Any], repeats: int) -> float:
    """Least seconds of one call."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def rates() -> tuple[float, float]:
    """FLOP/s of a 1024^3 sgemm and bytes/s (read and written) of a 64 MiB copy."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    source, target = torch.randn(1 << 24), torch.empty(1 << 24)
    return 2 * 1024**3 / best(lambda: a @ b, 10), 2 * source.nbytes / best(lambda: target.copy_(source), 10)


def measure(rounds: int) -> list[dict[str, Any]]:
    flop_rate, byte_rate = rates()
    results = []
    for name, (shapes, call) in operations().items():
        table = importlib.import_module(f"hybrid_nas_kernels.{name.partition(',')[0]}").IMPLEMENTATIONS
        generator = torch.Generator().manual_seed(0)
        leaves = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
        first = call("reference", leaves)
        outputs = [first] if isinstance(first, Tensor) else list(first)
        weights = [torch.randn(y.shape, generator=generator) for y in outputs]

        def train(how: str, call: Call = call, leaves: Any = leaves, weights: Any = weights) -> None:
            y = call(how, leaves)
            torch.autograd.grad([y] if isinstance(y, Tensor) else list(y), leaves, weights)

        times: dict[str, list[float]] = {how: [] for how in table}
        for _ in range(rounds):
            for how in table:
                times[how].append(best(lambda how=how: train(how), 1 if how == "reference" else 3))
        fast = min((how for how in table if how != "reference"), key=lambda how: statistics.median(times[how]))
        with FlopCounterMode(display=False) as counter:
            train(fast)
        moved = 2 * sum(v.nbytes for v in [*leaves, *outputs])
        results.append(
            {
                "operation": name,
                "ms": {how: 1e3 * statistics.median(t) for how, t in times.items()},
                "fastest": fast,
                "arithmetic_floor_ms": 1e3 * counter.get_total_flops() / flop_rate,
                "bytes_floor_ms": 1e3 * moved / byte_rate,
                "sgemm_flops_per_s": flop_rate,
                "copy_bytes_per_s": byte_rate,
            }
        )
    return results


def as_markdown(result: dict[str, Any]) -> str:
    env, runs = result["environment"], result["runs"]
    lines = [
        f"{env['device']} ({env['cpu_capability']}), one thread, torch {env['torch']}, Python {env['python']}, "
        f"{env['date']}, commit {env['commit']}. Large sgemm {runs[0]['sgemm_flops_per_s'] / 1e9:.0f} GFLOP/s, "
        f"large copy {runs[0]['copy_bytes_per_s'] / 1e9:.1f} GB/s.",
    ]
    lines += ["", "| operation | reference, ms | fast ways, ms | floor: arithmetic, bytes, ms |", "|---|---|---|---|"]
    for run in runs:
        fast = ", ".join(f"{how} {ms:.2f}" for how, ms in run["ms"].items() if how != "reference")
        floors = f"{run['arithmetic_floor_ms']:.2f}, {run['bytes_floor_ms']:.2f}"
        lines.append(f"| {run['operation']} | {run['ms']['reference']:.2f} | {fast} | {floors} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = {"environment": environment(), "runs": measure(options.rounds)}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "cpu_operations.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / "cpu_operations.md").write_text(as_markdown(result))
    print(as_markdown(result))


if __name__ == "__main__":
    main()
