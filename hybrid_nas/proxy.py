"""The proxy: a short training on text and recall that yields a learning curve and two scores.

AdamW, warm-up, a plateau, cool-down to zero (a trapezoid [arXiv:2510.04800, App. E]), gradients clipped by their
norm. Every batch holds sequences of text and of recall; the loss is the mean over text plus the mean over scored
recall positions, and only the part on text is ever reported: nats per token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from hybrid_nas_kernels.cross_entropy import cross_entropy
from torch import Tensor, nn

from hybrid_nas.ar_hits import ar_hits, held_out
from hybrid_nas.architecture import Architecture
from hybrid_nas.budget import Budget
from hybrid_nas.data import VOCAB, Text
from hybrid_nas.recall import draw
from hybrid_nas.tasks import AR_HITS, BEYOND, OF_TEXT, base, value_name
from hybrid_nas.tasks.known import ar_hits_named, probe_named, task_named
from hybrid_nas.tasks.sequences import Drawn
from hybrid_nas.trial import Point

BETAS = (0.9, 0.98)
UNDECAYED = ("norm", "bias", "A_log", "D", "dt_bias", "B_bias", "C_bias")
EXPLODED = 4 * math.log(VOCAB)
RECALL_STREAM = 0x7265_6361  # keeps recall batches apart from text batches of the same seed
RECALL_HELD_OUT = 0x686F_6C64
EVALUATED_AT_ONCE = 4096
"""Tokens, on the CPU; on other devices as many as have so many logits:"""
LOGITS_AT_ONCE = 1 << 26
CURVE_POINTS = 40
REDRAWN = 100
"""Draws of a batch's recall until one asks for anything."""


class Diverged(ArithmeticError):
    """The training loss stopped being a number, or grew beyond four times that of a uniform guess."""


@dataclass(frozen=True)
class Batch:
    """tokens (batch, context + 1) int64, text sequences first; scored (recall sequences, context) says which of their
    next bytes count."""

    tokens: Tensor
    scored: Tensor

    @property
    def text(self) -> Tensor:
        return self.tokens[: len(self.tokens) - len(self.scored)]

    @property
    def recall(self) -> Tensor:
        return self.tokens[len(self.tokens) - len(self.scored) :]


class Proxy:
    """What every candidate of a study is put through at one seed, whatever its architecture."""

    def __init__(self, text: Text, context: int, budget: Budget, seed: int) -> None:
        self.text, self.context, self.budget, self.seed = text, context, budget, seed
        self.recall_sequences = budget.recall_sequences()
        self.steps = budget.steps(context)
        budget.check_tasks(context)
        if self.recall_sequences < budget.batch:
            text.check(context + 1)

    def batch(self, step: int) -> Batch:
        """The batch of `step`, a function of the seed and the step alone."""
        count, length = self.recall_sequences, self.context + 1
        tokens = np.empty((self.budget.batch, length), np.int64)
        scored = np.zeros((count, length), np.bool_)
        if count < self.budget.batch:
            tokens[: len(tokens) - count] = self.text.batch(self.seed, step, self.budget.batch - count, length)
        if count:
            generator = np.random.default_rng([RECALL_STREAM, self.seed, step])
            tokens[len(tokens) - count :], scored = self._recall(count, generator, step)
        return Batch(torch.from_numpy(tokens), torch.from_numpy(scored[:, 1:]))

    def _recall(self, count: int, generator: np.random.Generator, step: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """`count` sequences, shared out among the tasks; where they are fewer, the tasks take turns over the steps."""
        tasks = self.budget.tasks
        if not tasks:
            return draw(self.budget.recall_task, self.budget.recall_symbols, count, self.context + 1, generator)
        if count < len(tasks):
            tasks = tuple(tasks[(step * count + i) % len(tasks)] for i in range(count))
        counts = [len(part) for part in np.array_split(np.arange(count), len(tasks))]
        length = self.context + 1
        for _ in range(REDRAWN):  # a sequence may happen to ask for nothing, and a mean needs something
            drawn = [self._drawn(n, c, length, generator) for n, c in zip(tasks, counts, strict=True)]
            scored = np.concatenate([marks for _, marks in drawn])
            if scored[:, 1:].any():
                return np.concatenate([tokens for tokens, _ in drawn]), scored
        raise ValueError(f"{', '.join(tasks)}: nothing was asked for in {REDRAWN} draws of {length} tokens")

    def _drawn(
        self, name: str, count: int, length: int, generator: np.random.Generator, held_out: bool = False
    ) -> Drawn:
        task = task_named(name)
        filling = None
        if task.of_text and held_out:
            filling = self.text.validation(count, length)
        elif task.of_text:
            filling = self.text.batch(int(generator.integers(2**31)), 0, count, length)
        return task.draw(count, length, generator, filling)

    def scores(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Share of right first guesses by task, trained on or probed, and as `TASK_loss` the mean loss where scored;
        `score`, the mean over all of them; of the probe `beyond` the loss by position; of
        `ar_hits` the loss on those tokens, on the others as `ar_hits_other`, and their share as `ar_hits_share`."""
        found: dict[str, float] = {}
        losses: np.ndarray | None = None
        names = (*self.budget.tasks, *self.budget.probes)
        for name in names:
            if base(name) == BEYOND:
                found |= self.by_position(model, device, probe_named(name).times)
                continue
            called = value_name(name, names)
            if base(name) == AR_HITS:
                losses = self._token_losses(model, device) if losses is None else losses  # one pass for all of them
                rows = held_out(self.text, self.context, self.budget)
                hits = ar_hits(self.text, rows, ar_hits_named(name))[:, 1:]
                found[called], found[f"{called}_share"] = float(losses[hits].mean()), float(hits.mean())
                found[f"{called}_other"] = float(losses[~hits].mean())
                continue
            length = task_named(name).tokens(self.context) + 1
            count = max(1, self.budget.validation_tokens // (4 * length))
            generator = np.random.default_rng([RECALL_HELD_OUT, *name.encode()])
            drawn, scored = self._drawn(name, count, length, generator, held_out=True)
            found[called], found[f"{called}_loss"] = self._scored(model, device, drawn, scored)
        shares = [found[value_name(name, names)] for name in names if base(name) not in OF_TEXT]
        return found | ({"score": sum(shares) / len(shares)} if shares else {})

    @torch.inference_mode()
    def by_position(self, model: nn.Module, device: torch.device, times: float) -> dict[str, float]:
        """Held-out loss on text past the training length, up to `times` it: `beyond` the mean over all positions past
        it, `loss_at_1` the last quarter within it, `loss_at_1.25` the first past it, and so on [arXiv:2510.04800, Fig.
        3c]."""
        length = round(times * self.context)
        rows = self.text.validation(max(1, self.budget.validation_tokens // length), length + 1)
        total = torch.zeros(length, dtype=torch.float64)
        for logits, wanted in self._logits(model, device, rows):
            losses = nn.functional.cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
            total += losses.sum(0).double().cpu()
        mean = total / len(rows)
        found = {BEYOND: float(mean[self.context :].mean())}
        quarter = self.context / 4
        for i in range(3, round(4 * times)):
            found[f"loss_at_{(i + 1) / 4:g}"] = float(mean[round(i * quarter) : round((i + 1) * quarter)].mean())
        return found

    @torch.inference_mode()
    def _token_losses(self, model: nn.Module, device: torch.device) -> np.ndarray:
        """Of every token that `loss` is the mean of, (sequences, context)."""
        losses = [
            nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(wanted).cpu()
            for logits, wanted in self._logits(model, device, held_out(self.text, self.context, self.budget))
        ]
        return torch.cat(losses).double().numpy()

    def _logits(self, model: nn.Module, device: torch.device, rows: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """Of some rows at a time (logits, what they should tell): every token but the first."""
        length = rows.shape[1] - 1
        for part in torch.split(torch.from_numpy(rows), max(1, self._at_once(device) * self.context // length)):
            part = part.to(device)
            yield model(part[:, :-1]).float(), part[:, 1:]

    @torch.inference_mode()
    def _scored(
        self, model: nn.Module, device: torch.device, drawn: np.ndarray, marks: np.ndarray
    ) -> tuple[float, float]:
        """(share of right first guesses, mean loss) over the marked tokens."""
        right, total, at_once = 0, 0.0, self._at_once(device)
        rows, scored = torch.from_numpy(drawn), torch.from_numpy(marks[:, 1:])
        for part, counted in zip(torch.split(rows, at_once), torch.split(scored, at_once), strict=True):
            if not counted.any():
                continue
            part, counted = part.to(device), counted.to(device)
            logits, wanted = model(part[:, :-1])[counted], part[:, 1:][counted]
            right += int((logits.argmax(-1) == wanted).sum())
            total += cross_entropy(logits, wanted).item() * len(wanted)
        return right / int(scored.sum()), total / int(scored.sum())

    def rungs(self) -> dict[int, bool]:
        """Steps after which the held-out loss is taken."""
        return {max(1, round(rung * self.steps)): True for rung in self.budget.rungs}

    @torch.inference_mode()
    def loss(self, model: nn.Module, device: torch.device) -> float | None:
        """Held-out loss in nats per token of text, one fixed sample for all seeds; None where no text is trained on."""
        if self.recall_sequences == self.budget.batch:
            return None
        rows = torch.from_numpy(held_out(self.text, self.context, self.budget))
        total = 0.0
        for part in torch.split(rows, self._at_once(device)):
            part = part.to(device)
            total += cross_entropy(model(part[:, :-1]), part[:, 1:]).item() * len(part)
        return total / len(rows)

    @torch.inference_mode()
    def recall(self, model: nn.Module, device: torch.device) -> float | None:
        """Share of scored bytes that are the model's first guess, on sequences of their own; None without recall."""
        if not self.recall_sequences:
            return None
        count = max(1, len(self.budget.tasks), self.budget.validation_tokens // (2 * self.context))
        return self._scored(model, device, *self._recall(count, np.random.default_rng(RECALL_HELD_OUT)))[0]

    def _at_once(self, device: torch.device) -> int:
        """Sequences that are scored together."""
        tokens = EVALUATED_AT_ONCE if device.type == "cpu" else LOGITS_AT_ONCE // max(VOCAB, self.text.vocab)
        return max(1, tokens // self.context)


def trapezoid(step: int, steps: int, warmup: float, cooldown: float) -> float:
    """Share of the peak learning rate at `step` (from 1) of `steps`.

    >>> [trapezoid(step, 8, 0.25, 0.25) for step in range(1, 9)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5]
    """
    rise = step / (warmup * steps) if warmup else 1.0
    fall = (steps - step + 1) / (cooldown * steps) if cooldown else 1.0
    return min(1.0, rise, fall)


def decayed_and_kept(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters that weight decay pulls at, and the others: norms, biases, A_log, D and dt_bias."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        of_vector = parameter.ndim < 2 or any(part in UNDECAYED for part in name.split("."))
        (kept if of_vector else decayed).append(parameter)
    return decayed, kept


def optimizer(model: nn.Module, budget: Budget, width: int) -> torch.optim.AdamW:
    """AdamW over the weights, some of them decayed."""
    decayed, kept = decayed_and_kept(model)
    groups = [{"params": decayed, "weight_decay": budget.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=budget.peak(width), betas=BETAS, fused=True)


@dataclass(frozen=True)
class Step:
    """One step of a training: `loss` is that on the batch's text (on its recall where there is no text); `held_out`
    and `recall` are the held-out scores where the step is a rung, each where it is trained for."""

    number: int
    tokens: int
    loss: float
    held_out: float | None = None
    recall: float | None = None


def train(
    model: nn.Module,
    architecture: Architecture,
    proxy: Proxy,
    device: torch.device,
    adamw: torch.optim.AdamW | None = None,
    after: int = 0,
) -> Iterator[Step]:
    """Train `model` in place, a step at a time, with `adamw` (None: a new one of `optimizer`) from the step that comes
    `after` so many; whoever iterates may stop at any step. Raises Diverged."""
    budget, steps, rungs = proxy.budget, proxy.steps, proxy.rungs()
    adamw = adamw or optimizer(model, budget, architecture.width)
    peaks = [group["lr"] for group in adamw.param_groups]
    parameters = list(model.parameters())
    for number in range(after + 1, steps + 1):
        share = trapezoid(number, steps, budget.warmup, budget.cooldown)
        for group, peak in zip(adamw.param_groups, peaks, strict=True):
            group["lr"] = peak * share
        losses = batch_losses(model, proxy.batch(number - 1), device)
        value = losses[0].item()
        if not math.isfinite(value) or value > EXPLODED:
            raise Diverged(f"diverged at step {number} of {steps} with a training loss of {value:.3g} nats")
        adamw.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, budget.clip, foreach=True)
        adamw.step()
        scores = (proxy.loss(model, device), proxy.recall(model, device)) if number in rungs else (None, None)
        yield Step(number, number * budget.batch * proxy.context, value, *scores)


def batch_losses(model: nn.Module, batch: Batch, device: torch.device) -> list[Tensor]:
    """Mean loss over the text, then mean loss over the scored recall positions; each where there is any."""
    tokens = batch.tokens.to(device)
    logits, targets, text = model(tokens[:, :-1]), tokens[:, 1:], len(batch.text)
    losses = []
    if text:
        losses.append(cross_entropy(logits[:text], targets[:text]))
    if len(batch.scored):
        scored = batch.scored.to(device)
        losses.append(cross_entropy(logits[text:][scored], targets[text:][scored]))
    return losses


def thin(steps: list[Step]) -> tuple[Point, ...]:
    """The training losses as at most 40 points, each the mean of a run of steps, and every held-out loss."""
    points = []
    for part in np.array_split(np.arange(len(steps)), min(CURVE_POINTS, len(steps))) if steps else ():
        run = [steps[i] for i in part]
        points.append(Point(run[-1].tokens, sum(step.loss for step in run) / len(run)))
        points += [Point(step.tokens, step.held_out, True, step.recall) for step in run if step.held_out is not None]
    return tuple(points)
