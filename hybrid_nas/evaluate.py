"""Evaluate one candidate: build it, train it for the budget, score it. The one function a worker runs."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from hybrid_nas_kernels.cross_entropy import choose as choose_cross_entropy

from hybrid_nas.architecture import Architecture
from hybrid_nas.budget import Budget
from hybrid_nas.captured import CapturedTraining, NoMixedPrecision, lost
from hybrid_nas.captured import train as train_captured
from hybrid_nas.checkpoint import Checkpoint, How, state_of, take_up
from hybrid_nas.data import Corpus, Text, open_corpus
from hybrid_nas.limits import memory_limit
from hybrid_nas.model import Model, build
from hybrid_nas.proxy import Diverged, Proxy, Step, optimizer, thin, train
from hybrid_nas.trial import Point, State
from hybrid_nas.units import readable

REPORT_EVERY_S = 0.25


@dataclass(frozen=True)
class Progress:
    """Where a training stands: its last training loss or, with `validation`, its held-out loss at a rung, and its
    recall there where that is trained for. At a rung `save` gives the training as bytes, to go on from elsewhere."""

    tokens: int
    loss: float
    validation: bool = False
    recall: float | None = None
    save: Callable[[], bytes] | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """What travels: all but `save`."""
        return {name: value for name, value in vars(self).items() if name != "save"}


@dataclass(frozen=True)
class Outcome:
    """What one training gave, as values: the fields of `Trial` that are bought by training. `loss` in nats per token
    on held-out text, `recall` a share from 0 to 1; a stopped or failed training has neither."""

    state: State
    values: dict[str, float] = field(default_factory=dict)
    curve: tuple[Point, ...] = ()
    failure: str | None = None
    implementations: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"
    seconds: float = 0.0
    tokens: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "curve": [point.to_dict() for point in self.curve]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Outcome:
        return cls(**{**data, "curve": tuple(Point(**point) for point in data["curve"])})


class DeviceLost(RuntimeError):
    """The device answers this process no more, so all its trainings are over, whichever of them did it. What they hold
    there cannot be given back: a process that catches this ends at once, by `os._exit`."""


@dataclass
class Kept:
    """A captured training that further seeds of one architecture and budget take over, where the device captures."""

    training: CapturedTraining | None = None


def evaluate(
    architecture: Architecture,
    context: int,
    budget: Budget,
    data: Mapping[str, Any] | Text | None,
    seed: int,
    report: Callable[[Progress], bool],
    device: str = "auto",
    built: Callable[[], None] | None = None,
    resumed: bytes | None = None,
    kept: Kept | None = None,
) -> Outcome:
    """Train `architecture` on sequences of `context` tokens of the corpus that `data` describes (`Corpus.to_dict`;
    None: Python's standard library) or is, and score it.

    `seed` draws the initial weights and the batches. `resumed` is a training of equal arguments that was saved at a
    rung; it goes on from there, and its outcome is that of an unbroken one (one begun on a GPU goes on on GPUs alone,
    and begins anew elsewhere). `report` hears of the training a few times a second, and of the
    held-out loss at every rung; False at a rung stops the training there. `device` is "auto" (CUDA where there is
    one), "cpu", or any torch device. `built` is called once the training holds the memory that it will hold. `kept` is
    for seeds one after another: the first leaves its captured step there for the next. Whatever
    goes wrong with a candidate is a failed outcome that says why: one candidate must not end a study; a fault that ends
    the process's use of the device is DeviceLost. Global state is
    left alone: threads are the caller's, and so are the results of more than one, since sums in another order differ in
    the last bits. On one thread equal arguments give equal bits.
    """
    started = time.perf_counter()
    before = 0.0
    steps: list[Step] = []
    on = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    implementations: dict[str, str] = {}

    def outcome(state: State, values: dict[str, float] | None = None, failure: str | None = None) -> Outcome:
        return Outcome(
            state=state,
            values=values or {},
            curve=thin(steps),
            failure=failure,
            implementations=implementations,
            device=_name(on),
            seconds=before + time.perf_counter() - started,
            tokens=steps[-1].tokens if steps else 0,
        )

    try:
        text = data if isinstance(data, Text) else open_corpus(Corpus.from_dict(dict(data or {})))
        if text.vocab > architecture.vocab:
            raise ValueError(
                f"data: {text.name} has {text.vocab} different tokens, so proxy.vocab must be at least that, found "
                f"{architecture.vocab}"
            )
        proxy = Proxy(text, context, budget, seed)
        model = build(architecture, generator=seed, mamba_init=budget.mamba_init, device=on)
        implementations.update({**model.implementations(), "cross_entropy": choose_cross_entropy(on)[0]})
        stream: AbstractContextManager[object] = nullcontext()
        captured: CapturedTraining | None = None
        if on.type == "cuda":
            try:
                captured = _captured(model, architecture, proxy, on, kept or Kept())
            except NoMixedPrecision as error:
                implementations["training_step"] = f"eager, float32: {error}"
            else:
                model, stream = captured.model, torch.cuda.stream(captured.stream)
                implementations.update(model.implementations())  # its matrices are bfloat16 now
                implementations |= {"training_step": captured.how, "linear_cross_entropy": "triton"}
        how: How = "plain" if captured is None else "captured"
        found = None if resumed is None else Checkpoint.from_bytes(resumed)
        if found is not None and found.how == how:
            steps += found.steps
            before = found.seconds
        if captured is None:
            adamw = optimizer(model, budget, architecture.width)
            if steps and found is not None:
                take_up(model, adamw, found.state)
            training: Iterator[Step] = train(model, architecture, proxy, on, adamw, len(steps))
        else:
            if steps and found is not None:
                captured.take_up(found.state, len(steps))
            training = train_captured(captured)

        def save() -> bytes:
            state = state_of(model, adamw) if captured is None else captured.state()
            return Checkpoint(how, tuple(steps), before + time.perf_counter() - started, state).to_bytes()

        if built is not None:
            built()
        if not _train(training, steps, report, save):
            return outcome("stopped")
        with stream:
            values = {"loss": proxy.loss(model, on), "recall": proxy.recall(model, on)}
            by_task = proxy.scores(model, on)
        scores = {name: value for name, value in values.items() if value is not None} | by_task
        if not all(map(math.isfinite, scores.values())):
            raise Diverged(f"diverged in the last step: scores {scores}")
        done = outcome("complete", scores)
        if "loss" not in scores:
            return done
        return Outcome(
            **{**vars(done), "curve": (*done.curve, Point(done.tokens, scores["loss"], True, scores.get("recall")))}
        )
    except Diverged as error:
        return outcome("failed", failure=str(error))
    except (torch.OutOfMemoryError, MemoryError) as error:
        return outcome("failed", failure=_out_of_memory(on, error))
    except Exception as error:
        if lost(on):
            raise DeviceLost(f"{_name(on)} is lost to this process: {_described(error)}") from error
        if "can't allocate memory" in str(error) or "bad_alloc" in str(error):  # plain RuntimeErrors, on the CPU
            return outcome("failed", failure=_out_of_memory(on, error))
        return outcome("failed", failure=_described(error))


def _captured(model: Model, architecture: Architecture, proxy: Proxy, on: torch.device, kept: Kept) -> CapturedTraining:
    """A captured training that begins with the weights of `model`: a new one, or the kept one."""
    if kept.training is None:
        kept.training = CapturedTraining(model, architecture, proxy, on)
    else:
        kept.training.again(model, proxy)
    return kept.training


def _train(
    training: Iterator[Step], steps: list[Step], report: Callable[[Progress], bool], save: Callable[[], bytes]
) -> bool:
    """Train to the end, reporting; False where `report` stopped it at a rung. One that goes on from a rung reports it
    again, since the answer may not have come."""
    heard = -math.inf
    for step in chain(steps[-1:], training):
        if not steps or step is not steps[-1]:
            steps.append(step)
        if step.held_out is not None:
            if not math.isfinite(step.held_out):
                raise Diverged(f"diverged at step {step.number} with a held-out loss of {step.held_out}")
            if not report(Progress(step.tokens, step.held_out, True, step.recall, save)):
                return False
        elif time.perf_counter() - heard >= REPORT_EVERY_S:
            heard = time.perf_counter()
            report(Progress(step.tokens, step.loss))
    return True


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _out_of_memory(device: torch.device, error: BaseException) -> str:
    limit = memory_limit() if device.type == "cpu" else None
    least = "" if limit is None else f", of which its worker has {readable(limit, 'bytes')}"
    return f"ran out of memory on {_name(device)}{least}: {str(error).splitlines()[0] if str(error) else 'no details'}"


def _described(error: Exception) -> str:
    """Type, message and the place that raised it, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"
