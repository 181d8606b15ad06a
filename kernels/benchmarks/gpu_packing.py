"""Several candidates on one GPU at once, against one after another.

    python kernels/benchmarks/gpu_packing.py [--steps 300] [--no-eager] [--no-processes]

First the width-128 model of gpu_training.py: candidate-steps a second alone, packed in one process on streams (1 to 12
trainings), and in 4 processes. Then eight designs of the size of mad-lab's (width 128, 4 blocks) on real text: as a
packed set by `evaluate`, and one after another in eager PyTorch (float32, torch's own operations, no Triton), by the
wall clock with everything in it; and their final losses, beside those of the same eight at other seeds. Writes
results/gpu_packing.json and .md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from gpu_cases import CASES, RandomTokens, environment, need_gpu
from hybrid_nas_kernels import dispatch

from hybrid_nas import captured, evaluate
from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, SwiGLU
from hybrid_nas.budget import Budget
from hybrid_nas.captured import CHUNK, CapturedTraining
from hybrid_nas.model import build
from hybrid_nas.packed import Room, device_memory, together

RESULTS = Path(__file__).parent / "results"
LAYOUTS = ("MMMM", "AMMM", "MAMM", "MMAM", "MMMA", "AMAM", "MAMA", "AAAA")
CUDA = torch.device("cuda")


def streams(count: int, chunks: int = 12) -> float:
    """Candidate-steps a second of `count` captured trainings on streams of their own."""
    case = CASES["width-128"]
    architecture = case.architecture()
    trainings = [
        CapturedTraining(build(architecture, generator=i, device=CUDA), architecture, RandomTokens(case, 10_000), CUDA)
        for i in range(count)
    ]
    for training in trainings:
        training.enqueue(4).read()
    begin = time.perf_counter()
    ahead = [training.enqueue(CHUNK) for training in trainings]
    for _ in range(chunks - 1):
        for i, training in enumerate(trainings):
            nxt = training.enqueue(CHUNK)
            ahead[i].read()
            ahead[i] = nxt
    for chunk in ahead:
        chunk.read()
    return count * chunks * CHUNK / (time.perf_counter() - begin)


def alone_for(seconds: float) -> None:
    """What one of several processes runs: steps for so long, once all are ready; prints steps a second."""
    case = CASES["width-128"]
    architecture = case.architecture()
    model = build(architecture, generator=0, device=CUDA)
    training = CapturedTraining(model, architecture, RandomTokens(case, 1_000_000), CUDA)
    training.enqueue(4).read()
    print("ready", flush=True)
    sys.stdin.readline()
    begin, steps, ahead = time.perf_counter(), 0, training.enqueue(CHUNK)
    while time.perf_counter() - begin < seconds:
        nxt = training.enqueue(CHUNK)
        ahead.read()
        ahead, steps = nxt, steps + CHUNK
    print(steps / (time.perf_counter() - begin), flush=True)


def processes(count: int) -> float:
    command = [sys.executable, __file__, "--alone-for", "3"]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return sum(float(process.communicate()[0]) for process in running)


def mad(layout: str) -> Architecture:
    letters = {"A": Attention(4, 4, 32), "M": Mamba2(256, 64, 64)}
    return Architecture(128, 256, tuple(Block(letters[letter], SwiGLU(384)) for letter in layout))


def eight(budget: Budget, seed: int, at_once: int) -> tuple[float, list[evaluate.Outcome], int]:
    """The eight designs, `at_once` of them together: seconds by the wall clock, outcomes, and how many ran at once."""
    room = Room(device_memory(CUDA))

    def job(layout: str) -> Any:
        return lambda built: evaluate.evaluate(mad(layout), 128, budget, None, seed, lambda _: True, "cuda", built)

    begin = time.perf_counter()
    outcomes = together([job(layout) for layout in LAYOUTS], room, at_once)
    return time.perf_counter() - begin, outcomes, room.most


def losses(outcomes: list[evaluate.Outcome]) -> list[float]:
    for outcome in outcomes:
        assert outcome.state == "complete", outcome.failure
    return [outcome.values["loss"] for outcome in outcomes]


def without_triton(run: Any) -> Any:
    """`run` with torch's own operations alone, eager, in float32."""
    kept = dispatch.why_not, captured.why_not
    dispatch.why_not = captured.why_not = lambda name: "switched off"
    try:
        return run()
    finally:
        dispatch.why_not, captured.why_not = kept


def as_markdown(result: dict[str, Any]) -> str:
    env = result["environment"]
    lines = [f"{env['device']}, torch {env['torch']}, {env['date']}, commit {env['commit']}", ""]
    lines += ["| width 128, 4 layers, 32 x 256 | candidate-steps/s |", "|---|---|"]
    lines += [f"| {name} | {value:,.0f} |" for name, value in result["width-128"].items()]
    found = result["eight"]
    lines += ["", f"Eight designs of 4 blocks, width 128, 128 x 128 tokens, {found['steps']} steps, seed 0:", ""]
    lines += ["| | seconds | losses, nats/byte |", "|---|---|---|"]
    for name in ("packed", "one after another, captured", "one after another, eager"):
        if name in found:
            values = ", ".join(f"{loss:.3f}" for loss in found[name]["losses"])
            lines.append(f"| {name} | {found[name]['seconds']:.1f} | {values} |")
    if "ratio" in found:
        lines += ["", f"Packed is {found['ratio']:.1f} times as fast as eager, wall clock, start to end."]
        lines += [f"Losses differ by {found['difference']:.3f} on average, seeds by {found['seed_difference']:.3f}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--no-eager", action="store_true")
    parser.add_argument("--no-processes", action="store_true")
    parser.add_argument("--no-eight", action="store_true", help="only the width-128 model")
    parser.add_argument("--alone-for", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    need_gpu()
    if options.alone_for:
        alone_for(options.alone_for)
        return
    result: dict[str, Any] = {"environment": environment(), "width-128": {}}
    for count in (1, 2, 4, 8, 12):
        result["width-128"][f"{count} on streams of one process"] = streams(count)
    if not options.no_processes:
        result["width-128"]["4 processes"] = processes(4)
    if options.no_eight:
        print(json.dumps(result, indent=2))
        return
    budget = Budget(tokens=options.steps * 128 * 128, batch=128, recall_share=0.0, rungs=(), validation_tokens=65_536)
    seconds, outcomes, most = eight(budget, 0, 8)
    found: dict[str, Any] = {"steps": options.steps, "packed": {"seconds": seconds, "losses": losses(outcomes)}}
    found["packed"] |= {"at_once": most, "implementations": outcomes[1].implementations}
    seconds, outcomes, _ = eight(budget, 0, 1)
    found["one after another, captured"] = {"seconds": seconds, "losses": losses(outcomes)}
    other = losses(eight(budget, 1, 8)[1])
    packed = found["packed"]["losses"]
    found["seed_difference"] = statistics.mean(abs(a - b) for a, b in zip(packed, other, strict=True))
    if not options.no_eager:
        seconds, outcomes, _ = without_triton(lambda: eight(budget, 0, 1))
        eager = losses(outcomes)
        found["one after another, eager"] = {"seconds": seconds, "losses": eager}
        found["one after another, eager"]["implementations"] = outcomes[1].implementations
        found["ratio"] = seconds / found["packed"]["seconds"]
        found["difference"] = statistics.mean(abs(a - b) for a, b in zip(packed, eager, strict=True))
    result["eight"] = found
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu_packing.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / "gpu_packing.md").write_text(as_markdown(result))
    print(as_markdown(result))


if __name__ == "__main__":
    main()
