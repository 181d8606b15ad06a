"""The proxy: its batches, its schedule, its two scores, each against something counted by hand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, SwiGLU
from hybrid_nas.budget import Budget, learning_rate
from hybrid_nas.data import Corpus, Text, open_corpus
from hybrid_nas.model import build
from hybrid_nas.proxy import Diverged, Proxy, batch_losses, optimizer, thin, train, trapezoid
from hybrid_nas.recall import draw

CPU = torch.device("cpu")
TEXT = open_corpus(Corpus())
BUDGET = Budget(tokens=2048, batch=4, recall_share=0.5, recall_symbols=8, validation_tokens=512)
TINY = Architecture(
    16,
    256,
    (
        Block(Mamba2(d_ssm=32, head_dim=16, d_state=8), SwiGLU(16)),
        Block(Attention(heads=2, kv_heads=1, head_dim=8), SwiGLU(16)),
    ),
)


class Uniform(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return torch.zeros(*tokens.shape, 256)


class CopyOf(nn.Module):
    """Guesses the byte that stood `symbols` before the next one."""

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.back = symbols - 1

    def forward(self, tokens: Tensor) -> Tensor:
        return nn.functional.one_hot(torch.roll(tokens, self.back, dims=1), 256).float()


def test_a_uniform_model_loses_the_log_of_256() -> None:
    proxy = Proxy(TEXT, 32, BUDGET, 0)
    loss = proxy.loss(Uniform(), CPU)
    assert loss == pytest.approx(math.log(256), abs=1e-5)
    text, recall = batch_losses(Uniform(), proxy.batch(0), CPU)
    assert text.item() == pytest.approx(math.log(256), abs=1e-5)
    assert recall.item() == pytest.approx(math.log(256), abs=1e-5)


def test_recall_is_the_share_of_scored_bytes_guessed() -> None:
    proxy = Proxy(TEXT, 32, BUDGET, 0)
    assert proxy.recall(CopyOf(8), CPU) == 1.0
    rows, _ = draw("copy", 8, 8, 33, np.random.default_rng(0x686F_6C64))
    expected = np.mean([row[t] == row[t - 7] for row in rows for t in range(8, 33)])
    assert proxy.recall(CopyOf(7), CPU) == pytest.approx(expected)


def test_held_out_loss_is_the_mean_over_every_byte() -> None:
    proxy = Proxy(TEXT, 32, BUDGET, 0)
    model = build(TINY, generator=0)
    rows = TEXT.validation(16, 33)
    total = 0.0
    for row in rows:
        with torch.no_grad():
            scores = torch.log_softmax(model(torch.from_numpy(row[None, :-1]))[0].double(), -1)
        total -= sum(scores[t, row[t + 1]].item() for t in range(32))
    assert proxy.loss(model, CPU) == pytest.approx(total / (16 * 32), rel=1e-5)


def test_a_batch_is_text_then_recall_and_depends_on_seed_and_step_alone() -> None:
    proxy = Proxy(TEXT, 32, BUDGET, 3)
    batch, again = proxy.batch(5), Proxy(TEXT, 32, Budget(**{**BUDGET.to_dict(), "tokens": 4096}), 3).batch(5)
    assert torch.equal(batch.tokens, again.tokens)
    assert not torch.equal(batch.tokens, proxy.batch(6).tokens)
    assert np.array_equal(batch.text.numpy(), TEXT.batch(3, 5, 2, 33))
    assert bool((batch.recall >= 128).all())
    assert batch.scored[:, :7].any().item() is False  # the first 8 bytes of a string of 8 cannot be known
    assert batch.scored[:, 7:].all().item() is True
    assert torch.equal(batch.recall[:, 8:], batch.recall[:, :-8])


def test_shares_of_recall() -> None:
    for share, sequences in ((0, 0), (0.01, 1), (0.25, 2), (0.99, 7), (1, 8)):
        assert Budget(batch=8, recall_share=share).recall_sequences() == sequences
    with pytest.raises(ValueError, match="a batch of 1 cannot hold text and recall"):
        Budget(batch=1, recall_share=0.5).recall_sequences()
    no_text = Proxy(Text("none", np.zeros(1, np.uint8), np.zeros(1, np.uint8), ""), 32, Budget(recall_share=1), 0)
    assert no_text.loss(Uniform(), CPU) is None
    assert Proxy(TEXT, 32, Budget(recall_share=0), 0).recall(Uniform(), CPU) is None


def test_the_schedule_is_a_trapezoid() -> None:
    shares = [trapezoid(step, 100, 0.25, 0.2) for step in range(1, 101)]
    assert shares[0] == pytest.approx(0.04)
    assert shares[24:80] == [1.0] * 56
    assert shares[-1] == pytest.approx(0.05)
    assert sum(shares) == pytest.approx(100 - 12 - 9.5)
    assert trapezoid(1, 3, 0, 0) == 1.0


def test_only_matrices_decay_and_the_rate_follows_the_width() -> None:
    model = build(TINY, generator=0)
    decayed, kept = optimizer(model, BUDGET, 16).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)].split(".")[-1] for p in kept["params"]} >= {"A_log", "D", "dt_bias", "bias"}
    assert all("norm" not in names[id(p)] and p.ndim > 1 for p in decayed["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(names)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (BUDGET.weight_decay, 0.0)
    assert decayed["lr"] == learning_rate(16) == 4 * learning_rate(64)
    assert optimizer(model, Budget(learning_rate=0.01), 16).param_groups[0]["lr"] == 0.01


def test_one_step_of_training_is_one_step_of_adamw_by_hand() -> None:
    proxy = Proxy(TEXT, 32, Budget(tokens=128, batch=4, warmup=0, cooldown=0, weight_decay=0.1, recall_share=0), 0)
    model, twin = build(TINY, generator=1), build(TINY, generator=1)
    (step,) = train(model, TINY, proxy, CPU)
    (loss,) = batch_losses(twin, proxy.batch(0), CPU)
    loss.backward()
    assert step.loss == loss.item()
    assert step.tokens == 128
    weight = twin.embedding
    assert weight.grad is not None
    norm = torch.sqrt(sum((p.grad.double() ** 2).sum() for p in twin.parameters() if p.grad is not None))
    gradient = weight.grad * min(1.0, 1.0 / norm.item())
    rate = learning_rate(16)
    expected = weight * (1 - 0.1 * rate) - rate * gradient / (gradient.abs() + 1e-8)  # Adam's first step is a sign
    moved = gradient.abs() > 1e-5
    assert torch.allclose(model.embedding[moved], expected[moved], rtol=1e-3, atol=1e-5)


def test_training_learns_and_reports_rungs() -> None:
    budget = Budget(tokens=64 * 4 * 32, batch=4, rungs=(0.25, 0.5), recall_share=0.25, validation_tokens=1024)
    proxy = Proxy(TEXT, 32, Budget(**{**budget.to_dict(), "recall_symbols": 4}), 0)
    model = build(TINY, generator=0)
    before = proxy.loss(model, CPU)
    steps = []
    for step in train(model, TINY, proxy, CPU):
        steps.append(step)
        if step.number in (16, 32):  # the scores are those of the model as it stands at the rung
            assert (step.held_out, step.recall) == (proxy.loss(model, CPU), proxy.recall(model, CPU))
            assert step.recall is not None
    assert [step.number for step in steps] == list(range(1, 65))
    assert [step.number for step in steps if step.held_out is not None] == [16, 32]
    after = proxy.loss(model, CPU)
    assert before is not None
    assert after is not None
    assert after < before - 1
    points = thin(steps)
    training = [point for point in points if not point.validation]
    assert len(training) == 40
    assert [point.tokens for point in points if point.validation] == [16 * 128, 32 * 128]
    runs = np.array_split([step.loss for step in steps], 40)
    assert [point.loss for point in training] == pytest.approx([run.mean() for run in runs])


def test_a_loss_that_is_no_number_is_a_divergence() -> None:
    proxy = Proxy(TEXT, 32, BUDGET, 0)
    model = build(TINY, generator=0)
    model.embedding.data[0, 0] = float("nan")
    with pytest.raises(Diverged, match=r"diverged at step 1 of 16 with a training loss of nan"):
        list(train(model, TINY, proxy, CPU))
