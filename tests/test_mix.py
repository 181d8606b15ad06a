"""The probe of a learned mix: the mixed layer, the record, and what the trainings say."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr

from hybrid_nas.budget import Budget
from hybrid_nas.layer_order import LayerOrder, LayerRun
from hybrid_nas.mix import PARALLEL, MixedModule, MixProbe, mixed_layers
from hybrid_nas.model import build
from hybrid_nas.probe_folder import run_probe
from hybrid_nas.scale import PROXY

TINY = PROXY.with_changes(width=16, heads=2, head_dim=8, ssm_head_dim=8, d_state=8, ffn_hidden=16, context=32)
BUDGET = Budget(tokens=1024, batch=2, validation_tokens=256, recall_share=0, rungs=())
PROBE = MixProbe(3, TINY, BUDGET)


def layer_of(alpha: float, seed: int = 0) -> tuple[MixedModule, torch.nn.Module, torch.Tensor]:
    """A mixed layer at `alpha`, the parallel layer whose weights it has, and an input."""
    model = build(PROBE.parallel(), generator=seed)
    plain = model.blocks[1].mixer
    mixed = mixed_layers(model)[1]
    mixed.mix.data.fill_(float(torch.logit(torch.tensor(alpha, dtype=torch.float64))))
    return mixed, plain, torch.randn(2, 20, 16, generator=torch.Generator().manual_seed(3))


def test_the_mix_is_linear_between_its_halves() -> None:
    """f(alpha) = alpha f(1) + (1 - alpha) f(0), since one projection follows the sum; and f(1/2) is half of the plain
    parallel layer, which adds the halves in full."""
    mixed, plain, x = layer_of(0.5)
    with torch.no_grad():
        half, whole = mixed(x), plain(x)
        mixed.mix.fill_(60.0)
        mamba = mixed(x)
        mixed.mix.fill_(-60.0)
        attention = mixed(x)
        mixed.mix.fill_(float(torch.logit(torch.tensor(0.3))))
        between = mixed(x)
    torch.testing.assert_close(half, 0.5 * whole)
    torch.testing.assert_close(mamba + attention, whole)
    torch.testing.assert_close(between, 0.3 * mamba + 0.7 * attention)


def test_step_by_step_is_forward() -> None:
    mixed, _, x = layer_of(0.3)
    cache = mixed.cache(2, 20, x.device, x.dtype)
    with torch.no_grad():
        steps = torch.stack([mixed.step(x[:, t], cache, t) for t in range(20)], 1)
        torch.testing.assert_close(steps, mixed(x), rtol=0, atol=1e-5)


def test_the_gradient_of_alpha_is_that_of_a_difference() -> None:
    mixed, _, x = layer_of(0.3)

    def total(mix: float) -> torch.Tensor:
        mixed.mix.data.fill_(mix)
        return (mixed(x) * x).sum()

    mix = float(mixed.mix.detach())
    mixed.double()
    x = x.double()
    total(mix).backward()
    assert mixed.mix.grad is not None
    with torch.no_grad():
        expected = (total(mix + 1e-4) - total(mix - 1e-4)) / 2e-4
    torch.testing.assert_close(mixed.mix.grad[0], expected, rtol=1e-5, atol=0)


def test_a_planted_mix_is_found() -> None:
    """All weights known but the mixes: training them on the answers of a model with planted mixes finds those."""
    planted = (0.9, 0.5, 0.2)
    target, model = build(PROBE.parallel(), generator=0), build(PROBE.parallel(), generator=0)
    for layer, alpha in zip(mixed_layers(target), planted, strict=True):
        layer.mix.data.fill_(float(torch.logit(torch.tensor(alpha))))
    mixes = [layer.mix for layer in mixed_layers(model)]
    adam = torch.optim.Adam(mixes, lr=0.1)
    tokens = torch.randint(256, (4, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = target(tokens)
    for _ in range(80):
        adam.zero_grad()
        (model(tokens) - wanted).square().mean().backward()
        adam.step()
    assert [float(torch.sigmoid(mix.detach())) for mix in mixes] == pytest.approx(planted, abs=0.02)


def test_layouts_of_the_sweep() -> None:
    assert [PROBE.at(layer).layout for layer in range(3)] == ["AMM", "MAM", "MMA"]
    assert PROBE.parallel().layout == "HHH"
    assert PROBE.jobs(2) == [(s, layer) for s in range(2) for layer in (None, 0, 1, 2)]
    with pytest.raises(ValueError, match="from 2 on, found 1"):
        MixProbe(1, TINY, BUDGET)
    with pytest.raises(ValueError, match="recall_share 1"):
        MixProbe(2, TINY, replace(BUDGET, recall_share=1))


def test_one_seed_one_run() -> None:
    first, second = PROBE.run(1, None, "cpu"), PROBE.run(1, None, "cpu")
    assert replace(first, seconds=0) == replace(second, seconds=0)
    assert first.mamba is not None
    assert len(first.mamba) == 3
    assert len({0.5, *first.mamba}) == 4  # each moved, each its own way


@pytest.mark.slow
def test_a_folder_keeps_and_continues(tmp_path: Path) -> None:
    heard: list[LayerRun] = []
    order = run_probe(PROBE, 1, 2, tmp_path / "probe", lambda run, done, of: heard.append(run))
    assert len(heard) == 4
    assert order.seeds == (0,)
    again = run_probe(PROBE, 1, 2, tmp_path / "probe", lambda run, done, of: pytest.fail("nothing was missing"))
    assert again == order
    record = json.loads((tmp_path / "probe/probe.json").read_text())
    record["runs"] = [run for run in record["runs"] if run["layer"] != 1]
    (tmp_path / "probe/probe.json").write_text(json.dumps(record))
    heard.clear()
    filled = run_probe(PROBE, 1, 1, tmp_path / "probe", lambda run, done, of: heard.append(run))
    assert [run.layer for run in heard] == [1]
    assert [replace(run, seconds=0) for run in filled.runs] == [replace(run, seconds=0) for run in order.runs]
    with pytest.raises(ValueError, match="another probe, which differs in layers"):
        run_probe(replace(PROBE, layers=2), 1, 1, tmp_path / "probe", lambda *_: None)
    (tmp_path / "probe/probe.json").write_text("{")
    with pytest.raises(ValueError, match="not a record of a probe"):
        run_probe(PROBE, 1, 1, tmp_path / "probe", lambda *_: None)


WEIGHTS = {0: (0.7, 0.5, 0.4, 0.45), 1: (0.6, 0.52, 0.5, 0.3), 2: (0.65, 0.3, 0.55, 0.5)}
LOSSES = {0: (2.5, 2.3, 2.1, 2.2), 1: (2.4, 2.35, 2.2, 2.1), 2: (2.6, 2.2, 2.3, 2.4)}
RUNS = tuple(
    run
    for seed in WEIGHTS
    for run in (
        LayerRun(seed, None, loss=2.0, mamba=WEIGHTS[seed]),
        *(LayerRun(seed, layer, loss=loss) for layer, loss in enumerate(LOSSES[seed])),
    )
)


def test_agreement_is_scipys_over_every_resample_of_seeds() -> None:
    order = LayerOrder(4, RUNS)

    def rho(seeds: tuple[int, ...]) -> float:
        weights = [1 - sum(WEIGHTS[s][i] for s in seeds) / len(seeds) for i in range(4)]
        losses = [-sum(LOSSES[s][i] for s in seeds) / len(seeds) for i in range(4)]
        return float(spearmanr([round(w, 12) for w in weights], [round(v, 12) for v in losses]).statistic)

    agreement = order.agreement()
    assert agreement is not None
    resampled = sorted(rho(seeds) for seeds in product(range(3), repeat=3))
    assert len(resampled) == 27
    assert agreement.value == pytest.approx(rho((0, 1, 2)))
    assert (agreement.low, agreement.high) == pytest.approx((resampled[round(0.65)], resampled[round(25.35)]), abs=0.21)
    assert agreement.low is not None
    assert agreement.high is not None
    assert agreement.low <= agreement.value <= agreement.high
    assert order.wanted()[-1] == 0  # the first layer wants attention least
    assert "n = 3 seeds" in str(agreement)


def test_a_seed_counts_only_when_it_is_whole() -> None:
    failed = tuple(replace(r, loss=None, failure="diverged") if (r.seed, r.layer) == (1, 2) else r for r in RUNS)
    order = LayerOrder(4, failed)
    assert order.seeds == (0, 2)
    assert LayerOrder(4, RUNS[:3]).seeds == ()
    assert LayerOrder(4, RUNS[:3]).agreement() is None
    alone = LayerOrder(4, RUNS[:5]).agreement()
    assert alone is not None
    assert (alone.low, alone.high, alone.seeds) == (None, None, 1)
    two = LayerOrder(4, RUNS[:10]).agreement()
    assert two is not None
    assert (two.low, two.high, two.seeds) == (None, None, 2)  # four resamples are no interval
    assert str(two).endswith(", n = 2 seeds")
    flat = LayerOrder(4, tuple(replace(run, loss=2.0) for run in RUNS))
    assert flat.agreement() is None  # a constant side orders nothing


def test_a_run_survives_its_json() -> None:
    run = LayerRun(0, None, 2.0, 0.1, (0.4, 0.6), None, "cpu", 1.5, {"ssd": "chunked"})
    assert LayerRun.from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_the_design_has_both_halves_normed_and_added() -> None:
    assert (PARALLEL.norm, PARALLEL.scale, PARALLEL.fusion, PARALLEL.output) == ("group", "none", "add", "joint")


@pytest.mark.slow
def test_command(nas, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    tiny = "width: 16, head_dim: 8, ssm_head_dim: 16, params: 26k, context: 32, tokens: 512, batch: 2"
    settings = ("--set", f"proxy={{{tiny}, validation_tokens: 64, recall_share: 0}}")
    done = nas("probe", "mix", "--layers", "2", "--seeds", "1", "--json", "--out", "probe", *settings)
    answer = json.loads(done.stdout)
    assert answer["layers"] == 2
    assert sorted(answer["order"]) == [0, 1]
    assert len(answer["runs"]) == 3
    shown = nas("probe", "mix", "--layers", "2", "--seeds", "1", "--out", "probe", *settings)
    assert "Spearman" in shown.stdout
    assert f"{answer['attention'][0]:.3f}" in shown.stdout
    assert shown.stderr == ""  # nothing was trained again
    assert "recall_share: at 1" in nas("probe", "mix", "--set", "proxy.recall_share=1", check=2).stderr
