"""A described model as one HTML page."""

from __future__ import annotations

import html

from hybrid_nas.description import Description
from hybrid_nas.page import document, strip, table
from hybrid_nas.roofline import Device, Prediction
from hybrid_nas.units import count, duration, readable
from hybrid_nas.words import letters, part_name


def description_page(described: Description, device: Device, batch: int, title: str, more: str = "") -> str:
    """`more` is HTML shown after the costs: what a study knows of the design, for one."""
    cost, architecture = described.cost, described.architecture
    named = letters(architecture)
    legend = "".join(
        f'<span><i data-b="{letter}">{letter}</i>{html.escape(part_name(block.mixer))}</span>'
        for letter, block in named.items()
    )
    told = (
        f"{cost.layers} layers, {readable(cost.params, 'parameters')} parameters "
        f"({readable(cost.params_nonembedding, 'parameters')} without embedding), "
        f"{readable(cost.cache_bytes, 'bytes')} of cache at {cost.context:,} tokens, "
        f"{readable(cost.train_flops_per_token, 'FLOP/token')} in training, "
        f"{readable(cost.decode_flops_per_token, 'FLOP/token')} in decoding, bfloat16."
    )
    blocks = table(
        ["layers", "mixer", "FFN", "parameters each", "cache each"],
        [
            [
                run.layers,
                f'<i data-b="{run.letter}" class="key">{run.letter}</i> {html.escape(run.mixer)}',
                html.escape(run.ffn),
                readable(run.params, "parameters"),
                readable(run.cache_bytes, "bytes"),
            ]
            for run in described.runs
        ],
        numeric=(3, 4),
    )
    parts = table(
        ["part", "count", "parameters", "training", "decoding", "KV cache", "state"],
        [
            [
                html.escape(share.name),
                str(share.count),
                _shared(share.params, cost.params, "parameters"),
                _shared(share.train_flops_per_token, cost.train_flops_per_token, "FLOP/token")
                if share.train_flops_per_token
                else "not counted",
                _shared(share.decode_flops_per_token, cost.decode_flops_per_token, "FLOP/token"),
                readable(share.kv_bytes, "bytes") if share.kv_bytes else "",
                readable(share.state_bytes, "bytes") if share.state_bytes else "",
            ]
            for share in described.shares
        ],
        numeric=range(1, 7),
    )
    counted = (
        "Training FLOPs are counted as the paper counts them, without the embedding and the classifier; the times "
        "below have the classifier, which takes its share of a real step."
    )
    body = [
        f"<header><h1>{html.escape(title)}</h1><p class='answer'><code>{html.escape(architecture.layout)}</code></p>",
        f"<p class='meta'>{told}</p></header><main>",
        f'<div class="strip alone">{strip(architecture.layout, "")}</div><div class="legend">{legend}</div>',
        f"<section><h2>Blocks</h2>{blocks}</section>",
        f"<section><h2>Cost by part</h2>{parts}<p class='note'>{counted}</p></section>",
        f"<section><h2>On {html.escape(device.name)}, predicted</h2>{_roofline(described, device, batch)}</section>",
        more,
        f"<p class='note'>Architecture {architecture.id}.</p></main>",
    ]
    return document(title, "\n".join(body), architecture.layout)


def _shared(part: float, whole: float, unit: str) -> str:
    return f"{readable(part, unit)} {_bar(part / whole)}"


def _bar(share: float) -> str:
    return f'<span class="bar after" style="--share:{share:.3f}"></span>'


def _roofline(described: Description, device: Device, batch: int) -> str:
    memory = described.memory(batch)
    peaks = f"{readable(device.flops, 'FLOP/s')} and {readable(device.bandwidth, 'bytes/s')}"
    lead = (
        f"A roofline of {peaks}, of which large kernels are taken to reach {device.flops_share:.0%} and "
        f"{device.bandwidth_share:.0%}, with {1e6 * device.overhead_s:.3g} µs a layer; batch {batch}; predicted, not "
        "measured."
    )
    pieces = [f"<p>{lead}</p>"]
    for name, found in described.predictions(device, batch).items():
        kept = memory.get(name)
        fits = (
            ""
            if kept is None
            else f"; {readable(kept, 'bytes')} of memory"
            + (
                ""
                if kept <= device.memory_bytes
                else f", more than the {readable(device.memory_bytes, 'bytes')} there are"
            )
        )
        head = f"{name}: {_time(found.seconds)}, {count(found.tokens_per_s)} tokens/s{fits}"
        pieces.append(f"<h3>{html.escape(head)}</h3>{_parts(found)}")
    return "".join(pieces)


def _parts(found: Prediction) -> str:
    return table(
        ["part", "layers", "time", "share", "FLOPs", "bytes", "bound by"],
        [
            [
                html.escape(part.name),
                str(part.layers),
                _time(part.seconds),
                f"{part.seconds / found.seconds:.0%} {_bar(part.seconds / found.seconds)}",
                readable(part.flops, "FLOP"),
                readable(part.bytes, "bytes"),
                part.bound,
            ]
            for part in found.parts
        ],
        numeric=range(1, 6),
    )


def _time(seconds: float) -> str:
    return duration(seconds) if seconds >= 1 else f"{1000 * seconds:.3g} ms"
