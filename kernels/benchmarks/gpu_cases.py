"""What the GPU benchmarks share: the models and batches of their tables, and what this device can do at most."""

from __future__ import annotations

import datetime
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, SwiGLU
from hybrid_nas.budget import Budget
from hybrid_nas.cost import cost
from hybrid_nas.proxy import Batch


@dataclass(frozen=True)
class Case:
    """One row: a hybrid in both implementations, with equal dimensions."""

    name: str
    width: int
    layers: int
    attention: tuple[int, ...]  # which layers
    vocab: int
    batch: int
    context: int
    d_state: int = 64
    ssm_head_dim: int = 64
    head_dim: int = 64
    share: int = 4  # query heads that share keys

    def architecture(self) -> Architecture:
        heads = self.width // self.head_dim
        attention = Attention(heads, max(1, heads // self.share), self.head_dim)
        mamba = Mamba2(2 * self.width, self.ssm_head_dim, self.d_state)
        ffn = SwiGLU(3 * self.width)
        blocks = (Block(attention if i in self.attention else mamba, ffn) for i in range(self.layers))
        return Architecture(self.width, self.vocab, tuple(blocks))


CASES = {
    case.name: case
    for case in (
        Case("width-128", 128, 4, (2,), 256, 32, 256),
        Case("width-256", 256, 8, (4,), 8192, 16, 2048),
        Case("width-512", 512, 12, (4, 8), 8192, 16, 2048),
        Case("paper-100m inter 1+5", 1024, 6, (3,), 32768, 8, 8192, d_state=128, ssm_head_dim=128),
    )
}


def need_gpu(instead: str = "") -> None:
    """End the process with code 2 and a clear line where there is no CUDA device; `instead` is what can be had."""
    if not torch.cuda.is_available():
        name = Path(sys.argv[0]).name
        print(f"{name}: this measures a CUDA GPU, and there is none here{instead and f'; {instead}'}", file=sys.stderr)
        sys.exit(2)


def suffix(names: list[str], peer: bool) -> str:
    """What tells the files of these cases from those of all of them beside the peer."""
    known = {
        tuple(CASES): "" if peer else "_no-peer",
        ("paper-100m inter 1+5",): "_100m",
        ("width-128", "width-256"): "_small",
    }
    chosen = tuple(name for name in CASES if name in names)
    return known.get(chosen, "_" + "_".join(name.split()[0] for name in chosen))


class RandomTokens:
    """Stands where a `Proxy` stands: random tokens, a few batches in turn, and no rungs."""

    def __init__(self, case: Case, steps: int) -> None:
        self.budget = Budget(tokens=steps * case.batch * case.context, batch=case.batch, recall_share=0.0)
        self.context, self.steps, self.recall_sequences = case.context, steps, 0
        g = torch.Generator().manual_seed(0)
        shape = (case.batch, case.context + 1)
        self.pool = [torch.randint(case.vocab, shape, generator=g) for _ in range(4)]

    def batch(self, step: int) -> Batch:
        return Batch(self.pool[step % len(self.pool)], torch.zeros((0, self.context), dtype=torch.bool))

    def rungs(self) -> dict[int, bool]:
        return {}


def timed(run: Any, repeats: int) -> float:
    """Seconds of one `run`, by device events around `repeats` of them."""
    run()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(repeats):
        run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3 / repeats


def device_rates() -> dict[str, float]:
    """FLOP/s of a large bfloat16 product and bytes/s of a large copy, read and written, on this device now."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    matmul = 2 * 8192**3 / timed(lambda: torch.mm(a, b, out=out), 20)
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    return {"matmul_flops": matmul, "copy_bytes": 2 * source.nbytes / timed(lambda: target.copy_(source), 10)}


def floors(case: Case, rates: dict[str, float]) -> dict[str, float]:
    """The least seconds of one step by arithmetic and by traffic.

    Arithmetic: the training FLOPs of `cost`, and the classifier. Traffic: what a block hands from one matrix product
    or scan to the next, 2 bytes a value, written and read forward, read backward, and its gradient written and read;
    and of a parameter its two moments and master weight read and written, its copy and its gradient.
    """
    architecture = case.architecture()
    tokens = case.batch * case.context
    spent = cost(architecture, case.context)
    flops = tokens * (spent.train_flops_per_token + 6 * architecture.width * architecture.vocab)
    values = 0
    for block in architecture.blocks:
        match block.mixer:
            case Attention(heads=heads, kv_heads=kv_heads, head_dim=head_dim):
                values += 2 * architecture.width + (3 * heads + 3 * kv_heads) * head_dim
            case Mamba2() as mixer:
                values += 2 * architecture.width + 3 * mixer.d_ssm + 2 * mixer.conv_channels
        if block.ffn is not None:
            values += 2 * architecture.width + 3 * block.ffn.hidden
    bytes_moved = 5 * 2 * values * tokens + 30 * spent.params
    return {
        "flops": flops,
        "bytes": bytes_moved,
        "arithmetic_s": flops / rates["matmul_flops"],
        "traffic_s": bytes_moved / rates["copy_bytes"],
    }


def environment() -> dict[str, Any]:
    import triton

    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    marked = Path(__file__).parents[2] / "COMMIT"  # a copy without its history says which commit it is
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "commit": marked.read_text().strip() if marked.exists() else commit.stdout.strip() or None,
    }


def tokens_of(case: Case) -> Tensor:
    return RandomTokens(case, 1).pool[0].cuda()
