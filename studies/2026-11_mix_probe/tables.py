"""Compute the README's tables from trials.parquet and mix.json and write them between the marker comments; no training.

python tables.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean, stdev

from hybrid_nas.layer_order import LayerOrder, LayerRun
from hybrid_nas.trial import Trial, read_trials

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from markers import write  # noqa: E402


def order_of(trials: list[Trial]) -> LayerOrder:
    """The trials as the probe's runs: of the parallel model with its learned weights, of the sweep with its place."""
    weights = json.loads((HERE / "mix.json").read_text())
    runs = []
    for trial in trials:
        layout, loss = trial.proxy.layout, trial.values.get("loss")
        if set(layout) == {"H"}:
            learned = weights.get(str(trial.seed))
            runs.append(LayerRun(trial.seed, None, loss, mamba=None if learned is None else tuple(learned)))
        else:
            runs.append(LayerRun(trial.seed, layout.index("A"), loss))
    return LayerOrder(trials[0].proxy.depth, tuple(runs))


def layers_table(trials: list[Trial]) -> str:
    order = order_of(trials)
    weights, losses = order.attention(order.seeds), order.losses(order.seeds)
    ranks = {layer: rank for rank, layer in enumerate(order.wanted(), 1)}
    by_loss = sorted(range(order.layers), key=losses.__getitem__)
    lines = [
        "| layer | weight on attention | each seed | rank | loss with attention there alone | each seed | rank |",
        "|---|---|---|---|---|---|---|",
    ]
    for layer in range(order.layers):
        learned = " ".join(f"{order.attention([seed])[layer]:.3f}" for seed in order.seeds)
        found = " ".join(f"{order.losses([seed])[layer]:.4f}" for seed in order.seeds)
        lines.append(
            f"| {layer + 1} | {weights[layer]:.3f} | {learned} | {ranks[layer]} | {losses[layer]:.4f} | {found} | "
            f"{by_loss.index(layer) + 1} |"
        )
    return "\n".join(lines)


def spread(trials: list[Trial]) -> tuple[float, float]:
    """How far the layers' mean losses lie apart, and the standard deviation of a loss between seeds, its layer's and
    its seed's mean taken out: what the order of the sweep must stand out from."""
    order = order_of(trials)
    seeds, losses = order.seeds, order.losses(order.seeds)
    by_seed = {seed: order.losses([seed]) for seed in seeds}
    rest = [
        by_seed[seed][layer] - mean(by_seed[seed]) - (losses[layer] - mean(losses))
        for seed in seeds
        for layer in range(order.layers)
    ]
    cells = order.layers * len(seeds)
    free = (order.layers - 1) * (len(seeds) - 1)
    return max(losses) - min(losses), stdev(rest) * ((cells - 1) / free) ** 0.5


def noise(trials: list[Trial]) -> str:
    between, within = spread(trials)
    rho = [order_of(trials).rho([seed]) for seed in order_of(trials).seeds]
    return (
        f"The mean losses of the sweep lie within {between:.4f} nats/byte of each other; one training differs from "
        f"what its layer and its seed predict by {within:.4f} (standard deviation). Spearman seed by seed: "
        + ", ".join("undefined" if value is None else f"{value:.2f}" for value in rho)
        + "."
    )


def verdict(trials: list[Trial]) -> str:
    """Confirmed where the interval of Spearman's rho lies above 0 and the first layer wants attention least in both."""
    order = order_of(trials)
    agreement, losses = order.agreement(), order.losses(order.seeds)
    last = order.wanted()[-1] + 1
    worst = losses.index(max(losses)) + 1
    held = agreement is not None and agreement.low is not None and agreement.low > 0
    says = "confirmed" if held and last == worst == 1 else "in part" if held or last == worst == 1 else "not confirmed"
    unproven = ", unproven" if len(order.seeds) == 1 else ""
    return (
        f"{says}: the order of the learned weights agrees with the sweep's by Spearman {agreement}{unproven}; "
        f"attention is wanted least in layer {last} and helps least in layer {worst} of {order.layers}"
    )


def setting(trials: list[Trial]) -> str:
    """What was trained, from the trials themselves."""
    budget, seconds = trials[0].budget, sum(trial.seconds for trial in trials)
    failed = sum(trial.state == "failed" for trial in trials)
    return (
        f"Width {trials[0].proxy.width}, {trials[0].proxy.depth} layers, text alone, {budget.tokens:,} tokens in "
        f"batches of {budget.batch}, {len(trials)} trainings ({failed} failed), {seconds / 3600:.1f} hours of one "
        f"thread each, in all; held-out loss on {budget.validation_tokens:,} bytes."
    )


TABLES = {"setting": setting, "layers": layers_table, "noise": noise, "verdict": verdict}


if __name__ == "__main__":
    write(HERE, read_trials(HERE / "trials.parquet"), TABLES)
