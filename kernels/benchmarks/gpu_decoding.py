"""Decoding, prefill and training of the paper's 1B models on one GPU, measured layer by layer and whole, beside the
roofline's prediction.

    python kernels/benchmarks/gpu_decoding.py

The designs of [arXiv:2510.04800, Table 13]: attention, Mamba-2, inter 1:5, intra 1:5 and 1:12; batch 4 at 2K and 32K.
`share` is the memory floor (weights and caches once, over the copy bandwidth measured here) over the time. Writes
results/gpu_decoding.json and .md, and the table of layers as results/gpu_layers.parquet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_cases import Case, RandomTokens, device_rates, environment, need_gpu, timed

from hybrid_nas.architecture import Architecture, Block, ParallelHybrid
from hybrid_nas.captured import CapturedTraining
from hybrid_nas.cost import cost
from hybrid_nas.design import Design, architecture_of_layout
from hybrid_nas.measure import Load, Meter, Table, random_model
from hybrid_nas.model import Model, build
from hybrid_nas.placement import Ratio
from hybrid_nas.roofline import decode, device, prefill, train_step
from hybrid_nas.scale import PAPER

RESULTS = Path(__file__).parent / "results"
BATCH = 4
ROUNDS = 40
TRAINED = 8192


LAYOUTS = {
    "paper-1b": ("M" * 13, "MMMMMMHMMMMMM", "MMMHMMMMHMMMM", "MMMAMMMAMMMMM", "A" * 16),
    "paper-350m": ("M" * 11, "MMMMMHMMMMM", "MMMHMMMHMMM", "MMMAMMMAMMM", "A" * 14),
}
NAMES = ("Mamba", "intra 1:12", "intra 1:5", "inter 1:5", "attention")


def models(name: str) -> dict[str, Architecture]:
    scale, layouts = PAPER[name], dict(zip(NAMES, LAYOUTS[name], strict=True))
    return {name: architecture_of_layout(layout, Design(ratio=Ratio(1, 1)), scale) for name, layout in layouts.items()}


CONTEXTS = (2048, 32_768)


def of_scale(name: str) -> str:
    """What tells the files of a scale from those of the 1B models."""
    return "" if name == "paper-1b" else f"_{name}"


def of_contexts(contexts: list[int]) -> str:
    """What tells the files of other contexts from those of both."""
    return "" if tuple(contexts) == CONTEXTS else "".join(f"_{context}" for context in contexts)


def meter_of(out: Path) -> Meter:
    """One whose table is results/gpu_layers.parquet; layers that other code measured are measured anew, and said."""
    table = Table(out / "gpu_layers.parquet")
    if table.others():
        print(table.others(), flush=True)
    return Meter(torch.device("cuda"), table)


def as_markdown(result: dict[str, Any]) -> str:
    env, rates = result["environment"], result["rates"]
    versions = f"{env['device']}, torch {env['torch']}, {env['date']}, commit {env['commit']}"
    lines = [f"{versions}; copy {rates['copy_bytes'] / 1e12:.2f} TB/s; {result['scale']}, batch {BATCH}", ""]
    head = ["model", "context", "decode tokens/s, whole", "share of memory floor", "by layers", "predicted"]
    head += ["prefill s, whole", "by layers", "predicted", "train tokens/s, by layers", "predicted"]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for r in result["rows"]:
        train = (f"{r['train_by_layers']:,.0f}", f"{r['train_predicted']:,.0f}") if "train_by_layers" in r else ("", "")
        lines.append(
            f"| {r['model']} | {r['context']:,} | {r['decode_whole']:,.0f} | {r['share']:.2f} "
            f"| {r['decode_by_layers']:,.0f} | {r['decode_predicted']:,.0f} | {r['prefill_whole']:.3f} "
            f"| {r['prefill_by_layers']:.3f} | {r['prefill_predicted']:.3f} | {train[0]} | {train[1]} |"
        )
    if "halves" in result:
        halves = result["halves"]
        lines += [
            "",
            f"Training a layer of H at 100M, 8 x 2048 tokens: {1e3 * halves['H']:.2f} ms; its halves as layers ",
        ]
        lines[-1] += (
            f"{1e3 * halves['attention']:.2f} + {1e3 * halves['Mamba']:.2f} ms: {halves['ratio']:.2f} of their sum."
        )
    lines += ["", *(f"- {name}: {value:.1%}" for name, value in result["errors"].items())]
    return "\n".join(lines) + "\n"


def steps_as_markdown(result: dict[str, Any]) -> str:
    env, rate = result["environment"], result["rates"]["copy_bytes"]
    where = f"{env['device']}, torch {env['torch']}, {env['date']}, commit {env['commit']}"
    shape = f"{result['scale']}, batch {BATCH}, {ROUNDS} rounds in turn"
    lines = [f"{where}; copy {rate / 1e12:.2f} TB/s; {shape}", ""]
    lines += ["| model | context | decode tokens/s | quartiles | share of memory floor |", "|---|---|---|---|---|"]
    for r in result["rows"]:
        low, high = r["quartiles"]
        speeds = f"{r['decode_whole']:,.0f} | {low:,.0f} to {high:,.0f}"
        lines.append(f"| {r['model']} | {r['context']:,} | {speeds} | {r['share']:.2f} |")
    return "\n".join(lines) + "\n"


def decoding(contexts: list[int], scale: str, out: Path) -> None:
    """Decoding of the whole models alone, in rounds that take them in turn, since a card that has just worked is a few
    percent slower; to results/gpu_decoding_steps.json and .md (_32768 for that context alone), with the quartiles over
    the rounds."""
    rates, rows = device_rates(), []
    meter, env = Meter(torch.device("cuda")), environment()
    for context in contexts:
        chosen = models(scale)
        steps = {
            name: captured_step(random_model(model, meter.device, meter.dtype), context)
            for name, model in chosen.items()
        }
        taken: dict[str, list[float]] = {name: [] for name in steps}
        for turn in range(ROUNDS):
            for name in list(steps)[:: 1 if turn % 2 else -1]:
                taken[name].append(timed(steps[name], 5))
        for name, seconds in taken.items():
            low, middle, high = statistics.quantiles(seconds, n=4)
            spent = cost(chosen[name], context)
            floor = (2 * spent.params + BATCH * spent.cache_bytes) / rates["copy_bytes"]
            speeds = {"decode_whole": BATCH / middle, "quartiles": [BATCH / high, BATCH / low], "share": floor / middle}
            rows.append({"model": name, "context": context, **speeds})
        steps.clear()
        torch.cuda.empty_cache()
    result = {"environment": env, "scale": scale, "rates": rates, "rows": rows}
    stem = f"gpu_decoding_steps{of_scale(scale)}{of_contexts(contexts)}"
    (out / f"{stem}.json").write_text(json.dumps(result, indent=2) + "\n")
    (out / f"{stem}.md").write_text(steps_as_markdown(result))
    print(steps_as_markdown(result))


def training(scale: str, out: Path) -> None:
    """A whole training step, captured, of one sequence of 8,192 tokens, beside the sum of its layers and the roofline's
    prediction; to results/gpu_training_whole.json and .md."""
    meter, env, rows = meter_of(out), environment(), []
    where = f"{env['device']}, torch {env['torch']}, {env['date']}, commit {env['commit']}"
    lines = [f"{where}; {scale}, 1 x {TRAINED:,} tokens", ""]
    lines += [
        "| model | tokens/s, whole | by layers | predicted | peak GB, whole | by layers |",
        "|---|---|---|---|---|---|",
    ]
    for name, architecture in models(scale).items():
        batch = Case(name, architecture.width, 0, (), architecture.vocab, 1, TRAINED)
        torch.cuda.reset_peak_memory_stats()
        model = build(architecture, generator=0, device=meter.device)
        run = CapturedTraining(model, architecture, RandomTokens(batch, 1000), meter.device)
        run.enqueue(2).read()
        begin = time.perf_counter()
        run.enqueue(8).read()
        row = {"model": name, "how": run.how, "train_whole": 8 * TRAINED / (time.perf_counter() - begin)}
        row["peak_whole"] = torch.cuda.max_memory_allocated()
        del run, model
        torch.cuda.empty_cache()
        speed = meter.speed(architecture, Load(batch=1, context=TRAINED, train_batch=1, train_context=TRAINED))
        row["train_by_layers"], row["peak_by_layers"] = speed.train_tokens_per_s, speed.peak_memory_bytes
        row["train_predicted"] = train_step(architecture, TRAINED, 1, device("h100")).tokens_per_s
        rows.append(row)
        lines.append(
            f"| {name} | {row['train_whole']:,.0f} | {row['train_by_layers']:,.0f} | {row['train_predicted']:,.0f} "
            f"| {row['peak_whole'] / 1e9:.1f} | {row['peak_by_layers'] / 1e9:.1f} |"
        )
    result = {"environment": env, "rows": rows}
    (out / f"gpu_training_whole{of_scale(scale)}.json").write_text(json.dumps(result, indent=2) + "\n")
    (out / f"gpu_training_whole{of_scale(scale)}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def captured_step(model: Model, context: int) -> Callable[[], None]:
    """Replays a token of each sequence at the last position of `context`."""
    cache = model.cache(BATCH, context, model.embedding.dtype)
    for layer in cache.layers:
        for value in layer.values():
            value.normal_()
    token = torch.zeros(BATCH, dtype=torch.int64, device=model.embedding.device)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(stream):
        cache.position = context - 1
        model.step(token, cache)
        cache.position = context - 1
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            model.step(token, cache)
    torch.cuda.current_stream().wait_stream(stream)

    def replay(kept: object = (model, cache, token)) -> None:  # what the graph reads lives as long as this
        graph.replay()

    return replay


def errors(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Median of |a / b - 1| over the rows."""
    pairs = {
        "layers against the whole, decoding": ("decode_by_layers", "decode_whole"),
        "layers against the whole, prefill": ("prefill_by_layers", "prefill_whole"),
        "predicted against measured, decoding": ("decode_predicted", "decode_whole"),
        "predicted against measured, prefill": ("prefill_predicted", "prefill_whole"),
        "predicted against layers, training": ("train_predicted", "train_by_layers"),
    }
    return {
        name: statistics.median(abs(r[a] / r[b] - 1) for r in rows if a in r and b in r)
        for name, (a, b) in pairs.items()
    }


def halves(meter: Meter) -> dict[str, float]:
    """Training seconds of the 100M parallel layer without its FFN, and of its two halves as layers of their own."""
    scale = PAPER["paper-100m"]
    model = architecture_of_layout("H", Design(ratio=Ratio(1, 1)), scale)
    parallel = model.blocks[0].mixer
    assert isinstance(parallel, ParallelHybrid)
    load = Load(train_batch=8, train_context=2048)
    parts = {"H": parallel, "attention": parallel.attention, "Mamba": parallel.mamba}
    found = {
        name: next(meter.layers(Architecture(scale.width, 8, (Block(mixer, None),)), "train", load)).seconds
        for name, mixer in parts.items()
    }
    return {**found, "ratio": found["H"] / (found["attention"] + found["Mamba"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=LAYOUTS, default="paper-1b")
    parser.add_argument("--contexts", nargs="+", type=int, default=list(CONTEXTS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--steps", action="store_true", help="only decoding, of the whole models")
    parser.add_argument("--train", action="store_true", help="only a whole training step")
    options = parser.parse_args()
    need_gpu("`hybrid-nas measure DESIGN --device h100` predicts")
    options.out.mkdir(parents=True, exist_ok=True)
    if options.train:
        training(options.scale, options.out)
        return
    if options.steps:
        decoding(options.contexts, options.scale, options.out)
        return
    rates, on = device_rates(), device("h100")
    meter = meter_of(options.out)
    result: dict[str, Any] = {"environment": environment(), "scale": options.scale, "rates": rates, "rows": []}
    stem = f"gpu_decoding{of_scale(options.scale)}"
    for context in options.contexts:
        for name, architecture in models(options.scale).items():
            load = Load(batch=BATCH, context=context, train_batch=1, train_context=8192)
            spent = cost(architecture, context)
            speed, whole = meter.speed(architecture, load), meter.whole(architecture, load)
            floor = (2 * spent.params + BATCH * spent.cache_bytes) / rates["copy_bytes"]
            row = {
                "model": name,
                "layout": architecture.layout,
                "context": context,
                "decode_whole": BATCH / whole["decode"],
                "share": floor / whole["decode"],
                "decode_by_layers": speed.decode_tokens_per_s,
                "decode_predicted": decode(architecture, context, BATCH, on).tokens_per_s,
                "prefill_whole": whole["prefill"],
                "prefill_by_layers": speed.prefill_s,
                "prefill_predicted": prefill(architecture, context, BATCH, on).seconds,
                "peak_memory_bytes": speed.peak_memory_bytes,
            }
            if context == options.contexts[0]:
                row["train_by_layers"] = speed.train_tokens_per_s
                row["train_predicted"] = train_step(architecture, 8192, 1, on).tokens_per_s
            result["rows"].append(row)
            result["errors"] = errors(result["rows"])
            torch.cuda.empty_cache()
            (options.out / f"{stem}.json").write_text(json.dumps(result, indent=2) + "\n")
            (options.out / f"{stem}.md").write_text(as_markdown(result))
    if options.scale == "paper-1b":
        result["halves"] = halves(meter)
    (options.out / f"{stem}.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / f"{stem}.md").write_text(as_markdown(result))
    print(as_markdown(result))


if __name__ == "__main__":
    main()
