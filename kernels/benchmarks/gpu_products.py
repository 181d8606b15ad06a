"""Products of a few rows with the weights of the paper's 1B models in bfloat16, as decoding makes them: cuBLAS beside a
Triton kernel of a few block sizes.

    python kernels/benchmarks/gpu_products.py

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
from torch import Tensor
from torch.nn import functional as F

from hybrid_nas.architecture import Architecture, Attention, Mamba2, ParallelHybrid, SwiGLU

if __name__ == "__main__":
    need_gpu()  # before Triton, which need not be installed where there is none

import triton
import triton.language as tl

SCALE = "paper-1b"
ROUNDS = 40
COLUMNS = 8
"""Of the tensor cores' smallest product: rows of tokens and, behind them, zeros."""
BYTES = 1.2e9
"""Read by one graph, or once the copies."""
BEYOND = 4
"""All copies of a weight are so many times the L2 cache."""


class Blocks(NamedTuple):
    """Rows of the weight a program, channels of the input at a time, parts of the input that are programs of their own,
    warps, and stages: one less is how many loads are under way."""

    rows: int
    channels: int
    splits: int
    warps: int
    stages: int


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


@triton.jit
def _product(
    x_ptr, weight_ptr, out_ptr, outputs, inner, part,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BN rows of the weight by `part` channels, a multiple of BK, with all rows of x."""
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    split = tl.program_id(1)
    m = tl.arange(0, COLUMNS)
    total = tl.zeros((BN, COLUMNS), tl.float32)
    for first in range(split * part, tl.minimum((split + 1) * part, inner), BK):
        k = first + tl.arange(0, BK)
        weight = tl.load(
            weight_ptr + n[:, None] * inner + k[None, :], mask=(n < outputs)[:, None] & (k < inner)[None, :], other=0.0,
            eviction_policy="evict_first",
        )  # fmt: skip
        x = tl.load(x_ptr + m[None, :] * inner + k[:, None], mask=(m < ROWS)[None, :] & (k < inner)[:, None], other=0.0)
        total = tl.dot(weight, x, total, input_precision=PRECISION)
    place = out_ptr + (split * ROWS + m[None, :]) * outputs + n[:, None]
    tl.store(place, total.to(out_ptr.dtype.element_ty), mask=(n < outputs)[:, None] & (m < ROWS)[None, :])


@triton.jit
def _add(parts_ptr, out_ptr, count, SPLITS: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for split in tl.static_range(SPLITS):
        total += tl.load(parts_ptr + split * count + i, mask=i < count, other=0.0)
    tl.store(out_ptr + i, total.to(out_ptr.dtype.element_ty), mask=i < count)


def product(x: Tensor, weight: Tensor, blocks: Blocks) -> Tensor:
    """x (rows, channels) times weight (outputs, channels) transposed, of up to COLUMNS rows, without gaps."""
    (rows, inner), outputs = x.shape, len(weight)
    out = torch.empty((rows, outputs), dtype=x.dtype, device=x.device)
    part = triton.cdiv(triton.cdiv(inner, blocks.splits), blocks.channels) * blocks.channels
    splits = triton.cdiv(inner, part)
    parts = out if splits == 1 else torch.empty((splits, rows, outputs), dtype=torch.float32, device=x.device)
    _product[(triton.cdiv(outputs, blocks.rows), splits)](
        x, weight, parts, outputs, inner, part,
        ROWS=rows, COLUMNS=COLUMNS, BN=blocks.rows, BK=blocks.channels,
        PRECISION="ieee" if x.dtype == torch.float32 else "tf32",
        num_warps=blocks.warps, num_stages=blocks.stages,
    )  # fmt: skip
    if splits > 1:
        _add[(triton.cdiv(out.numel(), 512),)](parts, out, out.numel(), SPLITS=splits, BLOCK=512, num_warps=4)
    return out


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


def ways(x: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """What is timed, each given a weight."""
    found: dict[str, Callable[[Tensor], Tensor]] = {"cuBLAS": partial(F.linear, x)}
    for b in BLOCKS:
        name = f"{b.rows} x {b.channels}, {b.splits} parts, {b.warps} warps, {b.stages} stages"
        found[name] = partial(product, x, blocks=b)
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


def measured(shape: Shape, cache: int) -> dict[str, Any]:
    """Microseconds of one product: median and quartiles of each way."""
    x = torch.randn((BATCH, shape.inner), device="cuda", dtype=torch.bfloat16)
    size = 2 * shape.outputs * shape.inner
    copies = max(2, -(-BEYOND * cache // size))
    weights = [torch.randn(tuple(shape), device="cuda", dtype=torch.bfloat16) / 64 for _ in range(copies)]
    repeats = max(1, round(BYTES / (copies * size)))
    runs = ways(x)
    expected = F.linear(x.double(), weights[-1].double()) if size < 1e8 else F.linear(x, weights[-1]).double()
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


def best_of(us: dict[str, list[float]]) -> tuple[str, float]:
    """The fastest of ours, and how many microseconds it saves; below zero: cuBLAS is faster."""
    name = min((name for name in us if name != "cuBLAS"), key=lambda name: us[name][1])
    return name, us["cuBLAS"][1] - us[name][1]


def as_markdown(result: dict[str, Any]) -> str:
    env, rates = result["environment"], result["rates"]
    where = f"{env['device']}, torch {env['torch']}, Triton {env['triton']}, {env['date']}, commit {env['commit']}"
    lines = [
        f"{where}; copy {rates['copy_bytes'] / 1e12:.2f} TB/s; {SCALE}, {BATCH} rows, bfloat16, {ROUNDS} rounds",
        "",
    ]
    lines += [
        "| product | outputs x channels | floor, µs | cuBLAS (quartiles) | best of ours (quartiles) | saves | blocks |"
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in result["rows"]:
        (name, saved), us = best_of(row["us"]), row["us"]
        low, middle, high = zip(us["cuBLAS"], us[name], strict=True)
        both = " | ".join(f"{m:.2f} ({a:.2f} to {b:.2f})" for a, m, b in zip(low, middle, high, strict=True))
        lines.append(
            f"| {row['product']} | {row['outputs']:,} x {row['inner']:,} | {row['floor_us']:.2f} | {both} "
            f"| {saved:+.2f} | {name} |"
        )
    lines += [
        "",
        "| model | products of a step by cuBLAS, µs | floor | saved by ours where faster | at |",
        "|---|---|---|---|---|",
    ]
    for name, of in result["models"].items():
        at = ", ".join(f"{product} {us:.1f}" for product, us in of["saved"].items()) or "none"
        lines.append(
            f"| {name} | {of['cublas_us']:,.0f} | {of['floor_us']:,.0f} | {sum(of['saved'].values()):.1f} | {at} |"
        )
    return "\n".join(lines) + "\n"


def of_models(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each model's step: microseconds of its products, and what ours would save, by product."""
    found: dict[str, Any] = {}
    of = {row["product"]: row for row in rows}
    for name, architecture in models(SCALE).items():
        counts = {product: count for (product, _), count in shapes_of(architecture).items()}
        found[name] = {
            "cublas_us": sum(n * of[product]["us"]["cuBLAS"][1] for product, n in counts.items()),
            "floor_us": sum(n * of[product]["floor_us"] for product, n in counts.items()),
            "saved": {p: n * saved for p, n in counts.items() if (saved := best_of(of[p]["us"])[1]) > 0},
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    rates, cache = device_rates(), torch.cuda.get_device_properties(0).L2_cache_size
    torch.cuda.empty_cache()
    named = {pair: None for architecture in models(SCALE).values() for pair in shapes_of(architecture)}
    rows: list[dict[str, Any]] = []
    with torch.no_grad():
        with compiled_ahead(torch.device("cuda")):
            for shape in dict.fromkeys(shape for _, shape in named):
                weight = torch.empty(tuple(shape), device="cuda", dtype=torch.bfloat16)
                for run in ways(weight.new_zeros((BATCH, shape.inner))).values():
                    run(weight)
        done: dict[Shape, dict[str, Any]] = {}
        for name, shape in named:
            if shape not in done:
                done[shape] = measured(shape, cache)
                torch.cuda.empty_cache()
            moved = 2 * (shape.outputs * shape.inner + BATCH * (shape.inner + shape.outputs))
            rows.append({"product": name, "floor_us": 1e6 * moved / rates["copy_bytes"], **done[shape]})
    result = {"environment": environment(), "rates": rates, "rows": rows, "models": of_models(rows)}
    (out / "gpu_products.json").write_text(json.dumps(result, indent=2) + "\n")
    (out / "gpu_products.md").write_text(as_markdown(result))
    print(as_markdown(result))


if __name__ == "__main__":
    main()
