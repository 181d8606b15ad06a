"""Products of a few rows with the weights of the paper's 1B models in bfloat16, as decoding makes them: cuBLAS beside a
Triton kernel of a few block sizes.

    python kernels/benchmarks/gpu_products.py

The kernel is `linear_step`'s, whose rule of blocks is drawn from this table; the last columns say what the rule takes.
The rows "to the norm" are products back to the residual stream, and the sum and norm that follow: there the norm adds
the parts of ours in its own launch.
Each way runs as a CUDA graph over copies of the weight that together are beyond the L2 cache, all ways in turn. The
floor is the bytes of weight, input and output over the copy bandwidth measured here. A kernel of ours would save of a
model's step the sum over its products where the best block sizes are faster than cuBLAS. Writes
results/gpu_products.json and .md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gpu_cases import device_rates, environment, need_gpu
from gpu_decoding import BATCH, RESULTS, models
from hybrid_nas_kernels.adjacent import ALIGNED
from hybrid_nas_kernels.compile_ahead import compiled_ahead
from hybrid_nas_kernels.linear_step import Blocks, blocks_of
from hybrid_nas_kernels.norm_linear import add_rms_norm
from torch import Tensor
from torch.nn import functional as F

from hybrid_nas.architecture import Architecture, Attention, Mamba2, ParallelHybrid, SwiGLU

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    OUT: Path = parser.parse_args().out
    need_gpu()  # before Triton, which need not be installed where there is none

from hybrid_nas_kernels.linear_step.triton_step import product, product_parts

SCALE = "paper-1b"
ROUNDS = 40
CUBLAS = "cuBLAS"
EPS = 1e-5
NORM = ", to the norm"
BYTES = 1.2e9
"""Read by one graph, or once the copies."""
BEYOND = 4
"""All copies of a weight are so many times the L2 cache."""
SPLIT = 16_384
"""Rows of a weight whose product is checked at a time, in float64."""


BLOCKS = (
    Blocks(16, 256, 1, 2, 6),
    Blocks(16, 512, 1, 4, 5),
    Blocks(32, 256, 1, 4, 4),
    Blocks(64, 128, 1, 4, 5),
    Blocks(16, 256, 2, 2, 6),
    Blocks(32, 256, 2, 4, 4),
    Blocks(64, 128, 2, 4, 5),
    Blocks(64, 128, 4, 4, 5),
    Blocks(128, 64, 4, 4, 5),
)
PARTED = (
    *(b for b in BLOCKS if b.splits > 1),
    Blocks(32, 256, 4, 4, 4),
    Blocks(64, 256, 4, 4, 4),
    Blocks(64, 128, 8, 4, 5),
)
"""Of a product whose parts the norm adds."""


class Shape(NamedTuple):
    """A weight in memory."""

    outputs: int
    inner: int


def shapes_of(architecture: Architecture) -> Counter[tuple[str, Shape]]:
    """The products of a decoding step, and how many there are of each."""
    width, found = architecture.width, Counter[tuple[str, Shape]]()

    def heads(a: Attention) -> int:
        return (a.heads + a.kv_heads) * a.head_dim + a.kv_heads * (a.value_dim or a.head_dim)

    def add(name: str, outputs: int, inner: int) -> None:
        found[name, Shape(outputs + -outputs % ALIGNED, inner)] += 1

    for block in architecture.blocks:
        match block.mixer:
            case ParallelHybrid(attention=a, mamba=m):
                add("H in", heads(a) + m.d_ssm + m.conv_channels + m.heads, width)
                add("H out", width, m.d_ssm + a.values)
            case Mamba2() as m:
                add("Mamba in", m.d_ssm + m.conv_channels + m.heads, width)
                add("Mamba out", width, m.d_ssm)
            case Attention() as a:
                add("attention q, k, v", heads(a), width)
                add("attention out", width, a.values)
        if isinstance(block.ffn, SwiGLU):
            add("SwiGLU gate and up", 2 * block.ffn.hidden, width)
            add("SwiGLU down", width, block.ffn.hidden)
    found["classifier", Shape(architecture.vocab, width)] += 1  # the embedding, as it is
    return found


class Given(NamedTuple):
    """What a product is of, and the residual stream and the norm's weight behind it."""

    x: Tensor
    residual: Tensor
    gain: Tensor


def drawn(shape: Shape) -> Given:
    sizes = (BATCH, shape.inner), (BATCH, shape.outputs), (shape.outputs,)
    return Given(*(torch.randn(size, device="cuda", dtype=torch.bfloat16) for size in sizes))


Ways = dict[str, Callable[[Tensor], Tensor]]
"""What is timed, each given a weight."""


def ways(given: Given) -> Ways:
    found: Ways = {CUBLAS: partial(F.linear, given.x)}
    for b in BLOCKS:
        found[str(b)] = partial(product, given.x, blocks=b)
    return found


def to_the_norm(given: Given) -> Ways:
    """With the sum and norm behind it."""

    def normed(multiply: Callable[[Tensor], Tensor], weight: Tensor) -> Tensor:
        return add_rms_norm(given.residual, multiply(weight), given.gain, eps=EPS)[1]

    found: Ways = {CUBLAS: partial(normed, partial(F.linear, given.x))}
    for b in PARTED:
        found[str(b)] = partial(normed, partial(product_parts, given.x, blocks=b))
    return found


def captured(run: Callable[[Tensor], Tensor], weights: list[Tensor], repeats: int) -> torch.cuda.CUDAGraph:
    """All weights in turn, `repeats` times."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run(weights[0])
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(repeats):
                for weight in weights:
                    run(weight)
    torch.cuda.current_stream().wait_stream(stream)
    return graph


def measured(shape: Shape, cache: int, of: Callable[[Given], Ways]) -> dict[str, Any]:
    """Microseconds of one product: median and quartiles of each way."""
    given = drawn(shape)
    size = 2 * shape.outputs * shape.inner
    copies = max(2, -(-BEYOND * cache // size))
    weights = [torch.randn(tuple(shape), device="cuda", dtype=torch.bfloat16) / 64 for _ in range(copies)]
    repeats = max(1, round(BYTES / (copies * size)))
    runs = of(given)
    exact = Given(*(value.double() for value in given))
    expected = torch.cat([of(exact)[CUBLAS](part.double()) for part in weights[-1].split(SPLIT)], 1)
    for name, run in runs.items():
        difference = float((run(weights[-1]).double() - expected).abs().max() / expected.abs().max())
        if not difference < 2e-2:
            raise SystemExit(f"{tuple(shape)}, {name}: {difference:.1e} of the largest value from the reference")
    graphs = {name: captured(run, weights, repeats) for name, run in runs.items()}
    taken: dict[str, list[float]] = {name: [] for name in graphs}
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for turn in range(-2, ROUNDS):  # two to warm up
        for name in list(graphs)[:: 1 if turn % 2 else -1]:
            graphs[name].replay()  # keeps the device busy until the next is enqueued
            begin.record()
            graphs[name].replay()
            end.record()
            end.synchronize()
            if turn >= 0:
                taken[name].append(1e3 * begin.elapsed_time(end) / (repeats * copies))
    us = {name: [round(q, 3) for q in statistics.quantiles(values, n=4)] for name, values in taken.items()}
    return {"outputs": shape.outputs, "inner": shape.inner, "copies": copies, "us": us}


def taken_at(row: dict[str, Any]) -> str:
    """The way that the rule takes there."""
    blocks = blocks_of(row["outputs"], row["inner"], left=row["product"].endswith(NORM))
    return CUBLAS if blocks is None else str(blocks)


def best_of(us: dict[str, list[float]]) -> tuple[str, float]:
    """The fastest of ours, and how many microseconds it saves; below zero: cuBLAS is faster."""
    name = min((name for name in us if name != CUBLAS), key=lambda name: us[name][1])
    return name, us[CUBLAS][1] - us[name][1]


def as_markdown(result: dict[str, Any]) -> str:
    env, rates = result["environment"], result["rates"]
    where = f"{env['device']}, torch {env['torch']}, Triton {env['triton']}, {env['date']}, commit {env['commit']}"
    lines = [
        f"{where}; copy {rates['copy_bytes'] / 1e12:.2f} TB/s; {SCALE}, {BATCH} rows, bfloat16, {ROUNDS} rounds",
        "",
    ]
    head = ["product", "outputs x channels", "floor, µs", "cuBLAS (quartiles)", "best of ours (quartiles)", "saves"]
    head += ["blocks", "the rule takes", "µs over the fastest"]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in [*result["rows"], *result["to_the_norm"]]:
        (name, saved), us = best_of(row["us"]), row["us"]
        low, middle, high = zip(us[CUBLAS], us[name], strict=True)
        rule = taken_at(row)
        over = us[rule][1] - min(way[1] for way in us.values())
        both = " | ".join(f"{m:.2f} ({a:.2f} to {b:.2f})" for a, m, b in zip(low, middle, high, strict=True))
        lines.append(
            f"| {row['product']} | {row['outputs']:,} x {row['inner']:,} | {row['floor_us']:.2f} | {both} "
            f"| {saved:+.2f} | {name} | {'the same' if rule == name else rule} | {over:.2f} |"
        )
    lines += [
        "",
        "| model | products of a step by cuBLAS, µs | floor | saved by ours where faster | by the rule | at |",
        "|---|---|---|---|---|---|",
    ]
    for name, of in result["models"].items():
        at = ", ".join(f"{product} {us:.1f}" for product, us in of["saved"].items()) or "none"
        lines.append(
            f"| {name} | {of['cublas_us']:,.0f} | {of['floor_us']:,.0f} | {sum(of['saved'].values()):.1f} "
            f"| {of['rule_saves']:.1f} | {at} |"
        )
    return "\n".join(lines) + "\n"


def of_models(rows: list[dict[str, Any]], to_the_norm: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each model's step: microseconds of its products, what ours would save, by product, and what the rule saves,
    with the norm behind them where that adds parts."""
    found: dict[str, Any] = {}
    behind = {row["product"].removesuffix(NORM): row for row in to_the_norm}
    of = {row["product"]: row for row in rows}

    def us(product: str, way: str) -> float:
        return float(of[product]["us"][way][1])

    def rule_saves(product: str) -> float:
        row = behind.get(product, of[product])
        return float(row["us"][CUBLAS][1] - row["us"][taken_at(row)][1])

    for name, architecture in models(SCALE).items():
        counts = {product: count for (product, _), count in shapes_of(architecture).items()}
        found[name] = {
            "cublas_us": sum(n * us(product, CUBLAS) for product, n in counts.items()),
            "floor_us": sum(n * of[product]["floor_us"] for product, n in counts.items()),
            "rule_saves": sum(n * rule_saves(p) for p, n in counts.items()),
            "saved": {p: n * saved for p, n in counts.items() if (saved := best_of(of[p]["us"])[1]) > 0},
        }
    return found


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    rates, cache = device_rates(), torch.cuda.get_device_properties(0).L2_cache_size
    torch.cuda.empty_cache()
    named = {pair: None for architecture in models(SCALE).values() for pair in shapes_of(architecture)}
    shapes = dict.fromkeys(shape for _, shape in named)
    back = [shape for shape in shapes if shape.outputs == next(iter(models(SCALE).values())).width]
    with torch.no_grad():
        with compiled_ahead(torch.device("cuda")):
            for shape in shapes:
                weight = torch.empty(tuple(shape), device="cuda", dtype=torch.bfloat16)
                for of in (ways, to_the_norm) if shape in back else (ways,):
                    for run in of(drawn(shape)).values():
                        run(weight)
        alone = {shape: measured(shape, cache, ways) for shape in shapes}
        behind = {shape: measured(shape, cache, to_the_norm) for shape in back}

    def floor(shape: Shape) -> dict[str, float]:
        moved = 2 * (shape.outputs * shape.inner + BATCH * (shape.inner + shape.outputs))
        return {"floor_us": 1e6 * moved / rates["copy_bytes"]}

    rows = [{"product": name, **floor(shape), **alone[shape]} for name, shape in named]
    normed = [{"product": name + NORM, **floor(shape), **behind[shape]} for name, shape in named if shape in behind]
    result = {"environment": environment(), "rates": rates, "rows": rows, "to_the_norm": normed}
    result["models"] = of_models(rows, normed)
    (out / "gpu_products.json").write_text(json.dumps(result, indent=2) + "\n")
    (out / "gpu_products.md").write_text(as_markdown(result))
    print(as_markdown(result))


if __name__ == "__main__":
    main(OUT)
