"""Scans of the recurrent mixers on a GPU: torch's own operations beside the packages' kernels, in one run.

    python kernels/benchmarks/gpu_recurrent.py [OUT.json] [OPERATION...]

In bfloat16 with decays and time steps in float32, as a training on a GPU has them. `first_s` is the first call with its
gradients: compilation and tuning; `ms` is forward and backward after it. A package that refuses this GPU has its reason
in place of figures.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_cases import environment, need_gpu, timed
from hybrid_nas_kernels.gated_delta import gated_delta
from hybrid_nas_kernels.mamba3 import mamba3
from hybrid_nas_kernels.selective_scan import selective_scan
from torch import Tensor

SIZES = {"width 128, 32 x 256": (128, 32, 256), "width 512, 8 x 2048": (512, 8, 2048)}
WAYS: dict[str, tuple[Callable[..., Any], tuple[str, str]]] = {
    "gated_delta": (gated_delta, ("chunked", "fla")),
    "selective_scan": (selective_scan, ("unrolled", "mamba_ssm")),
    "mamba3": (mamba3, ("chunked", "mamba_ssm")),
}


def inputs(operation: str, width: int, batch: int, tokens: int) -> dict[str, Tensor]:
    """Arguments of one layer of this width, its inner channels twice as many."""
    g = torch.Generator(device="cuda").manual_seed(0)

    def normal(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.randn(shape, device="cuda", dtype=dtype, generator=g)

    def positive(*shape: int) -> Tensor:
        return 0.1 * torch.rand(shape, device="cuda", generator=g)

    inner, head, state = 2 * width, 64, 64
    heads = inner // head
    if operation == "gated_delta":
        k = torch.nn.functional.normalize(normal(batch, tokens, heads, head // 2).float(), dim=-1).bfloat16()
        return {
            "q": normal(batch, tokens, heads, head // 2),
            "k": k,
            "v": normal(batch, tokens, heads, head),
            "log_decay": -positive(batch, tokens, heads),
            "beta": torch.sigmoid(normal(batch, tokens, heads)),
        }
    if operation == "selective_scan":
        return {
            "x": normal(batch, tokens, inner),
            "dt": positive(batch, tokens, inner),
            "A": -torch.arange(1.0, 17.0, device="cuda").expand(inner, 16).contiguous(),
            "B": normal(batch, tokens, 16),
            "C": normal(batch, tokens, 16),
            "D": normal(inner, dtype=torch.float32),
        }
    return {
        "x": normal(batch, tokens, heads, head),
        "dt": positive(batch, tokens, heads),
        "log_decay": -positive(batch, tokens, heads),
        "trap": normal(batch, tokens, heads),
        "B": normal(batch, tokens, 1, state),
        "C": normal(batch, tokens, 1, state),
        "B_bias": normal(heads, state, dtype=torch.float32),
        "C_bias": normal(heads, state, dtype=torch.float32),
        "angle": normal(batch, tokens, state // 4),
        "D": normal(heads, dtype=torch.float32),
    }


def measured(run: Callable[..., Any], values: dict[str, Tensor], implementation: str) -> dict[str, float]:
    leaves = {name: value.detach().requires_grad_() for name, value in values.items()}

    def once() -> None:
        y = run(**leaves, implementation=implementation)
        y = y[0] if isinstance(y, tuple) else y
        torch.autograd.grad(y.float().square().mean(), list(leaves.values()))

    began = time.perf_counter()
    once()
    torch.cuda.synchronize()
    first = time.perf_counter() - began
    torch.cuda.reset_peak_memory_stats()
    ms = 1e3 * timed(once, 5)
    return {"first_s": round(first, 2), "ms": round(ms, 3), "peak_bytes": torch.cuda.max_memory_allocated()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "out", nargs="?", type=Path, metavar="OUT.json", help="written after every row; by default none"
    )
    parser.add_argument("operations", nargs="*", metavar="OPERATION", help=f"of {', '.join(WAYS)}; by default all")
    options = parser.parse_args()
    unknown = [name for name in options.operations if name not in WAYS]
    if unknown:
        parser.error(f"unknown operation {unknown[0]!r}; known: {', '.join(WAYS)}")
    need_gpu()
    rows: list[dict[str, Any]] = []
    for operation, (run, ways) in ((name, WAYS[name]) for name in options.operations or WAYS):
        for size, (width, batch, tokens) in SIZES.items():
            for way in ways:
                try:
                    figures: dict[str, Any] = measured(run, inputs(operation, width, batch, tokens), way)
                except RuntimeError as error:
                    figures = {"refused": str(error).splitlines()[0]}
                rows.append({"operation": operation, "size": size, "implementation": way, **figures})
                print(rows[-1], flush=True)
                if options.out is not None:
                    options.out.write_text(json.dumps({"environment": environment(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
