"""The captured training step: against the plain one, and its flat parameters."""

import statistics
from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn

from hybrid_nas import captured
from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, ParallelHybrid, SwiGLU
from hybrid_nas.budget import Budget
from hybrid_nas.captured import CapturedTraining, Flat, NoMixedPrecision, of_precision, train, unusable
from hybrid_nas.data import Corpus, open_corpus
from hybrid_nas.evaluate import Kept, evaluate
from hybrid_nas.model import build
from hybrid_nas.moe import MoE
from hybrid_nas.proxy import Diverged, Proxy, decayed_and_kept
from hybrid_nas.proxy import train as plain_train
from hybrid_nas.recurrent import GatedDeltaNet, Mamba1, Mamba3

CPU = torch.device("cpu")
BUDGET = Budget(tokens=60 * 8 * 128, batch=8, recall_symbols=8, validation_tokens=2048, rungs=(0.25, 0.5))
SMALL = Architecture(
    64,
    256,
    (
        Block(Mamba2(d_ssm=128, head_dim=32, d_state=16), SwiGLU(128)),
        Block(Attention(heads=4, kv_heads=1, head_dim=16), SwiGLU(128)),
        Block(Mamba2(d_ssm=128, head_dim=32, d_state=16), SwiGLU(128)),
        Block(Attention(heads=4, kv_heads=2, head_dim=16, rope_theta=None, window=32, sinks=4), SwiGLU(128)),
    ),
)


def proxy(**changes):
    return Proxy(open_corpus(Corpus()), 128, Budget(**{**BUDGET.to_dict(), **changes}), 0)


def test_without_a_cuda_device_it_says_so():
    assert "need a CUDA device, not cpu" in unusable(CPU)
    with pytest.raises(NoMixedPrecision, match="need a CUDA device, not cpu"):
        CapturedTraining(build(SMALL, generator=0), SMALL, proxy(), CPU)


HALF, FULL = torch.ones(4, 4, dtype=torch.bfloat16), torch.ones(4, 4)
PRECISION = {
    "matrices": lambda: HALF @ FULL,
    "a bias": lambda: nn.functional.conv1d(HALF[None], HALF[:, :, None], FULL[0]),
    "attention": lambda: nn.functional.scaled_dot_product_attention(HALF[None], FULL[None], HALF[None]),
    "an index": lambda: FULL.clone().index_put_((torch.tensor([0]),), HALF[:1]),
    "an addition in place": lambda: torch.zeros(4, 4, dtype=torch.long).add_(HALF),
    "an operation without bfloat16": lambda: torch.linalg.qr(HALF),
}
MISTAKES = {
    "shapes": lambda: HALF @ HALF[:3],
    "a broadcast": lambda: HALF + HALF[:3, :3],
    "an index": lambda: HALF[torch.tensor([7])],
    "a view": lambda: HALF.view(5, 5),
    "a device": lambda: HALF + HALF.to("meta"),
    "a gradient": lambda: HALF.sum().backward(),
    "an argument": lambda: nn.functional.linear(HALF, None),
}


@pytest.mark.parametrize("operation", PRECISION.values(), ids=PRECISION)
def test_what_torch_says_of_mixed_types_is_known(operation):
    with pytest.raises((RuntimeError, TypeError)) as refused:
        operation()
    assert of_precision(refused.value)


@pytest.mark.parametrize("operation", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_not_taken_for_mixed_types(operation):
    with pytest.raises((RuntimeError, TypeError, IndexError)) as refused:
        operation()
    assert not of_precision(refused.value)


def begin(error, monkeypatch):
    """A captured training whose first step raises `error`; of CUDA there is nothing but names."""
    model = build(SMALL, generator=0)

    def build_flats(self, peak):
        self.flats += [Flat(decayed_and_kept(model)[0], torch.bfloat16, 0.1)]

    def first_step(self):
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16, torch.float32}
        raise error

    monkeypatch.setattr(captured, "unusable", lambda device: None)
    for name, value in (("Stream", MagicMock()), ("current_stream", MagicMock()), ("stream", nullcontext)):
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(CapturedTraining, "_build", build_flats)
    monkeypatch.setattr(CapturedTraining, "_warm_up", first_step)
    try:
        CapturedTraining(model, SMALL, proxy(), CPU)
    finally:
        drawn = build(SMALL, generator=0).parameters()
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), drawn, strict=True))


def test_a_mistake_in_the_first_step_is_raised_as_it_is(monkeypatch):
    ours = RuntimeError("The size of tensor a (4) must match the size of tensor b (3)")
    with pytest.raises(RuntimeError) as raised:
        begin(ours, monkeypatch)
    assert raised.value is ours
    with pytest.raises(NoMixedPrecision, match="RuntimeError: expected m1 and m2 to have the same dtype"):
        begin(RuntimeError("expected m1 and m2 to have the same dtype, but got: BFloat16 != float"), monkeypatch)


def test_a_mistake_in_the_first_step_is_the_trials_failure(monkeypatch):
    """The device is CUDA by name alone; the model is on the CPU."""

    def mistaken(*arguments):
        raise RuntimeError("The size of tensor a (4) must match the size of tensor b (3)")

    here = "hybrid_nas.evaluate"
    monkeypatch.setattr(f"{here}.build", lambda *given, device, **named: build(*given, **named))
    monkeypatch.setattr(f"{here}.choose_cross_entropy", lambda device: ("reference", None))
    monkeypatch.setattr(f"{here}._name", lambda device: "a GPU")
    monkeypatch.setattr(f"{here}.lost", lambda device: False)
    monkeypatch.setattr(f"{here}._captured", mistaken)
    outcome = evaluate(SMALL, 128, BUDGET, None, 0, lambda progress: True, "cuda")
    assert outcome.state == "failed"
    assert "The size of tensor a (4) must match" in outcome.failure
    assert "training_step" not in outcome.implementations


def test_flat_parameters_are_the_same_numbers_before_and_after():
    g = torch.Generator().manual_seed(0)
    drawn = [torch.randn(shape, generator=g) for shape in ((3, 5), (64, 2), (7,))]
    parameters = [nn.Parameter(value.clone()) for value in drawn]
    flat = Flat(parameters, torch.bfloat16, 0.1)
    for parameter, value in zip(parameters, drawn, strict=True):
        assert parameter.dtype == torch.bfloat16
        assert torch.equal(parameter, value.bfloat16())
        assert parameter.data_ptr() % 16 == 0
    flat.master += 1.0
    flat.publish()
    assert torch.equal(parameters[0].data, (drawn[0] + 1).bfloat16())
    flat.gather([torch.full(p.shape, 2.0, dtype=p.dtype) for p in parameters])
    assert float(flat.gradient.float().sum()) == 2.0 * (15 + 128 + 7)
    assert torch.equal(flat.gradient[flat.places[1]], torch.full((128,), 2.0, dtype=torch.bfloat16))
    flat.restore()
    for parameter, value in zip(parameters, drawn, strict=True):
        assert torch.equal(parameter.data, value + 1)


@pytest.mark.parametrize("ahead", [False, True])
def test_the_warm_up_step_is_the_one_of_rate_0_and_leaves_the_counters_at_0(ahead, monkeypatch):
    """The table of learning rates ends with a 0 at place `steps`: one step further lies foreign memory."""
    monkeypatch.setattr(captured, "AHEAD", ahead)
    seen, step, slot = [], torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)

    def take() -> None:
        seen.append((step.item(), slot.item()))
        step.add_(1)
        slot.add_(1)

    CapturedTraining._warm_up(
        SimpleNamespace(
            model=nn.Linear(2, 2), flats=[], proxy=SimpleNamespace(steps=7), device=CPU, step=step, slot=slot,
            _load=lambda first, count: slot.zero_(), _step=take, _forget=lambda: None,
        )
    )  # fmt: skip
    assert len(seen) == 1 + ahead
    assert seen[-1] == (7, 0)
    assert all(number <= 7 for number, _ in seen)
    assert step.item() == 0


@pytest.mark.gpu
def test_the_graph_trains_as_the_same_step_launched_one_by_one():
    device, results = torch.device("cuda"), []
    for capture in (True, False):
        training = CapturedTraining(build(SMALL, generator=0, device=device), SMALL, proxy(), device, capture=capture)
        assert training.how == ("CUDA graph" if capture else "eager, bfloat16: not asked to capture")
        results.append(list(train(training)))
    graph, eager = results
    assert [s.number for s in graph] == list(range(1, 61))
    assert [s.number for s in graph if s.held_out is not None] == [15, 30]
    for a, b in zip(graph, eager, strict=True):
        assert a.loss == pytest.approx(b.loss, abs=5e-3)  # attention's backward adds in any order


@pytest.mark.gpu
@pytest.mark.parametrize("ahead", [False, True])
def test_building_leaves_the_weights_and_the_counters_as_they_were(ahead, monkeypatch):
    monkeypatch.setattr(captured, "AHEAD", ahead)
    device = torch.device("cuda")
    training = CapturedTraining(build(SMALL, generator=0, device=device), SMALL, proxy(), device)
    drawn = [group for group in decayed_and_kept(build(SMALL, generator=0, device=device)) if group]
    for flat, parameters in zip(training.flats, drawn, strict=True):
        for place, parameter in zip(flat.places, parameters, strict=True):
            assert torch.equal(flat.master[place], parameter.data.reshape(-1))
        assert not flat.mean.any()
        assert not flat.square.any()
    assert training.step.item() == 0


HALVES = (Attention(heads=4, kv_heads=2, head_dim=16, value_dim=32), Mamba2(d_ssm=128, head_dim=32, d_state=16))
OTHERS = {
    "mamba1": Block(Mamba1(d_ssm=128, d_state=16, dt_rank=4), SwiGLU(128)),
    "mamba3": Block(Mamba3(d_ssm=128, head_dim=32, d_state=16), SwiGLU(128)),
    "gated deltanet": Block(GatedDeltaNet(heads=2, key_dim=32, value_dim=64), SwiGLU(128)),
    "parallel": Block(ParallelHybrid(*HALVES, "group", "vector", "concat", output="joint"), SwiGLU(128)),
    "experts": Block(Mamba2(d_ssm=128, head_dim=32, d_state=16), MoE(64, experts=4, active=2)),
}


@pytest.mark.gpu
@pytest.mark.parametrize("block", OTHERS.values(), ids=OTHERS)
def test_other_mixers_and_experts_train_captured_or_say_why_not(block):
    device, architecture = torch.device("cuda"), Architecture(64, 256, (*SMALL.blocks[:2], block))
    results, said = [], []
    for capture in (True, False):
        training = CapturedTraining(
            build(architecture, generator=0, device=device), architecture, proxy(tokens=20 * 8 * 128), device,
            capture=capture,
        )  # fmt: skip
        said.append(training.how)
        results.append([step.loss for step in train(training)])
    print(said)
    assert said[0] == "CUDA graph" or said[0].startswith("eager, bfloat16: ")
    assert results[0] == pytest.approx(results[1], abs=1e-2)


@pytest.mark.gpu
def test_bfloat16_trains_as_float32_on_the_cpu_within_noise():
    plain = list(plain_train(build(SMALL, generator=0), SMALL, proxy(), CPU))
    device = torch.device("cuda")
    model = build(SMALL, generator=0, device=device)
    training = CapturedTraining(model, SMALL, proxy(), device)
    captured = list(train(training))
    assert captured[0].loss == pytest.approx(plain[0].loss, abs=0.02)
    differences = [a.loss - b.loss for a, b in zip(captured, plain, strict=True)]
    assert abs(statistics.mean(differences)) < 0.01
    assert max(map(abs, differences)) < 0.1
    assert plain[0].loss - plain[-1].loss > 1.0
    training.restore()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    held_out = proxy().loss(model, device)
    assert held_out == pytest.approx(plain_held_out(plain), abs=0.5)


def plain_held_out(steps):
    return [s.held_out for s in steps if s.held_out is not None][-1]


@pytest.mark.gpu
def test_divergence_is_seen_and_a_trial_records_what_ran(monkeypatch):
    device = torch.device("cuda")
    wild = CapturedTraining(
        build(SMALL, generator=0, device=device), SMALL, proxy(learning_rate=0.9, clip=1e9, warmup=0.0), device
    )
    with pytest.raises(Diverged, match="diverged at step"):
        list(train(wild))
    outcome = evaluate(SMALL, 128, BUDGET, None, 0, lambda progress: True, "cuda")
    assert outcome.state == "complete", outcome.failure
    assert outcome.implementations["training_step"] == "CUDA graph"
    assert outcome.implementations["ssd"] == "triton"
    assert outcome.values["loss"] < 4.0


@pytest.mark.gpu
def test_a_training_saved_at_a_rung_goes_on_as_the_unbroken_one():
    saved = []

    def until(progress):
        if progress.validation:
            saved.append(progress.save())
        return len(saved) < 2

    whole = evaluate(SMALL, 128, BUDGET, None, 0, lambda progress: True, "cuda")
    stopped = evaluate(SMALL, 128, BUDGET, None, 0, until, "cuda")
    rest = evaluate(SMALL, 128, BUDGET, None, 0, lambda progress: True, "cuda", resumed=saved[-1])
    assert (stopped.state, whole.state, rest.state) == ("stopped", "complete", "complete")
    assert rest.implementations == whole.implementations
    assert [point.tokens for point in rest.curve] == [point.tokens for point in whole.curve]
    for a, b in zip(rest.curve, whole.curve, strict=True):
        assert a.loss == pytest.approx(b.loss, abs=0.02)  # attention's backward adds in any order
    restarted = evaluate(SMALL, 128, BUDGET, None, 1, lambda progress: True, "cuda", resumed=saved[-1])
    assert restarted.curve[0] == rest.curve[0]  # the curve so far is the saved one, whatever the seed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_step_serves_further_seeds():
    """The second seed on the first one's graph is the second seed on a graph of its own, bit by bit."""
    kept = Kept()
    for seed in (0, 1):
        outcome = evaluate(SMALL, 128, BUDGET, None, seed, lambda progress: True, "cuda", kept=kept)
        assert outcome.implementations["training_step"] == "CUDA graph"
    alone = evaluate(SMALL, 128, BUDGET, None, 1, lambda progress: True, "cuda")
    assert outcome.values == alone.values
    assert outcome.curve == alone.curve
    assert kept.training.model.architecture == SMALL


@pytest.mark.gpu
def test_the_loss_on_ar_hits_and_on_others_make_the_held_out_loss():
    budget = Budget(**{**BUDGET.to_dict(), "probes": ("ar_hits(rarest=100)",)})
    outcome = evaluate(SMALL, 128, budget, None, 0, lambda progress: True, "cuda")
    assert outcome.state == "complete", outcome.failure
    hits, others, share = (outcome.values[f"ar_hits{part}"] for part in ("", "_other", "_share"))
    assert 0 < share < 0.2
    assert share * hits + (1 - share) * others == pytest.approx(outcome.values["loss"], abs=2e-3)
