"""Evaluate: one outcome whatever happens, bit-equal at one seed, and stopped where the caller says so."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import hybrid_nas.evaluate as module
from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, SwiGLU
from hybrid_nas.budget import Budget
from hybrid_nas.evaluate import DeviceLost, Outcome, Progress, evaluate
from hybrid_nas.model import build
from hybrid_nas.moe import MoE

BUDGET = Budget(tokens=40 * 4 * 32, batch=4, recall_symbols=4, validation_tokens=512)
TINY = Architecture(
    16,
    256,
    (
        Block(Mamba2(d_ssm=32, head_dim=16, d_state=8), SwiGLU(16)),
        Block(Attention(heads=2, kv_heads=1, head_dim=8), SwiGLU(16)),
    ),
)


def go_on(progress: Progress) -> bool:
    return True


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_a_complete_outcome_and_the_same_bits_again() -> None:
    heard: list[Progress] = []
    first = evaluate(TINY, 32, BUDGET, None, 0, lambda p: heard.append(p) or True, "cpu")
    state = torch.get_rng_state()
    second = evaluate(TINY, 32, BUDGET, {}, 0, go_on, "cpu")
    assert torch.equal(state, torch.get_rng_state())
    assert first.state == "complete"
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)
    assert evaluate(TINY, 32, BUDGET, None, 1, go_on, "cpu").values != first.values
    assert first.tokens == BUDGET.tokens
    assert first.curve[-1].loss == first.values["loss"] < first.curve[0].loss
    assert first.curve[-1].recall == first.values.get("recall")
    assert 0 <= first.values["recall"] <= 1
    assert [p.tokens for p in heard if p.validation] == [10 * 128, 20 * 128]
    assert {p.tokens: p.loss for p in heard if p.validation}.items() <= {
        p.tokens: p.loss for p in first.curve if p.validation
    }.items()
    assert heard[0].validation is False
    assert set(first.implementations) >= {"attention", "mamba2", "swiglu"}
    assert Outcome.from_dict(json.loads(json.dumps(first.to_dict()))) == first


def test_equal_data_for_different_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[bytes]] = []
    draw = module.Proxy.batch

    def spy(self: module.Proxy, step: int) -> object:
        batch = draw(self, step)
        seen[-1].append(batch.tokens.numpy().tobytes())
        return batch

    monkeypatch.setattr(module.Proxy, "batch", spy)
    for architecture in (TINY, replace(TINY, blocks=TINY.blocks[:1])):
        seen.append([])
        evaluate(architecture, 32, BUDGET, None, 5, go_on, "cpu")
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 40


def test_false_at_a_rung_stops_there() -> None:
    outcome = evaluate(TINY, 32, BUDGET, None, 0, lambda progress: progress.tokens < 20 * 128, "cpu")
    assert outcome.state == "stopped"
    assert outcome.values == {}
    assert outcome.tokens == outcome.curve[-1].tokens == 20 * 128
    assert outcome.curve[-1].validation


def test_divergence_is_a_failure_with_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def loud(architecture: Architecture, **arguments: object) -> object:
        model = build(architecture, **arguments)
        model.embedding.data.mul_(50)
        return model

    monkeypatch.setattr(module, "build", loud)
    outcome = evaluate(TINY, 32, BUDGET, None, 0, go_on, "cpu")
    assert outcome.state == "failed"
    assert outcome.failure is not None
    assert outcome.failure.startswith("diverged at step 1 of 40 with a training loss of ")
    assert float(outcome.failure.split()[-2]) > 22
    assert outcome.values == {}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError("no such part"), "KeyError: 'no such part' (test_evaluate.py:"),
        (MemoryError(), "ran out of memory on cpu: no details"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "ran out of memory on cpu: CUDA out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9"), "ran out of memory on cpu: "),
    ],
)
def test_what_goes_wrong_is_said(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(module, "build", broken)
    outcome = evaluate(TINY, 32, BUDGET, None, 0, go_on, "cpu")
    assert outcome.state == "failed"
    assert outcome.failure is not None
    assert outcome.failure.startswith(message)


def test_a_lost_device_is_no_failure_of_the_candidate_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(module, "build", broken)
    monkeypatch.setattr(module, "lost", lambda device: True)
    with pytest.raises(DeviceLost, match=r"^cpu is lost to this process: RuntimeError: an illegal memory access"):
        evaluate(TINY, 32, BUDGET, None, 0, go_on, "cpu")


def test_bad_data_is_a_failure_and_an_interrupt_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = evaluate(TINY, 32, BUDGET, {"path": "/nowhere/at/all.txt"}, 0, go_on, "cpu")
    assert outcome.failure is not None
    assert "/nowhere/at/all.txt does not exist" in outcome.failure

    def interrupted(progress: Progress) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(TINY, 32, BUDGET, None, 0, interrupted, "cpu")


def test_recall_alone_gives_no_loss() -> None:
    outcome = evaluate(TINY, 32, replace(BUDGET, recall_share=1.0, rungs=()), None, 0, go_on, "cpu")
    assert set(outcome.values) == {"recall"}
    assert np.isfinite(outcome.curve[-1].loss)


class Gone(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("rung", [0, 1])
def test_a_training_saved_at_a_rung_goes_on_to_the_same_bits(rung: int) -> None:
    """Weights, moments, curve and scores: another process that has the bytes alone ends as the unbroken one did."""
    saved: list[bytes] = []

    def until(progress: Progress) -> bool:
        if progress.validation:
            assert progress.save is not None
            saved.append(progress.save())
            if len(saved) == rung + 1:
                raise Gone
        return True

    experts = replace(TINY, blocks=(TINY.blocks[0], replace(TINY.blocks[1], ffn=MoE(experts=4, active=2, hidden=16))))
    whole = evaluate(experts, 32, BUDGET, None, 3, go_on, "cpu")
    with pytest.raises(Gone):
        evaluate(experts, 32, BUDGET, None, 3, until, "cpu")
    heard: list[int] = []
    rest = evaluate(experts, 32, BUDGET, None, 3, lambda p: heard.append(p.tokens) or True, "cpu", resumed=saved[rung])
    assert replace(rest, seconds=0.0) == replace(whole, seconds=0.0)
    assert min(heard) == (10, 20)[rung] * 128  # the rung is reported again, the steps before are not trained again


def test_a_checkpoint_builds_tensors_and_nothing_else() -> None:
    class Hostile:
        def __reduce__(self) -> object:
            return print, ("code of a stranger ran",)

    buffer = io.BytesIO()
    torch.save({"how": "plain", "steps": [], "seconds": 0.0, "state": Hostile()}, buffer)
    outcome = evaluate(TINY, 32, BUDGET, None, 0, go_on, "cpu", resumed=buffer.getvalue())
    assert outcome.state == "failed"
    assert "Weights only load failed" in (outcome.failure or "")
