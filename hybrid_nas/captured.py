"""The training step on a CUDA device: forward, backward, clipping and AdamW captured once as a CUDA graph and replayed.

A short proxy loses its time to launches, not to arithmetic. Here a step is one launch: the batch, the learning rate and
the place where the loss goes are found on the device, by a counter that the graph itself moves on. Losses come back in
bulk, so a divergence is seen up to `CHUNK` steps late.

Weights and AdamW's moments are float32; matrices are multiplied as bfloat16 copies, which the step writes anew. All
matrices lie in one flat tensor, and all vectors in another, so the optimizer is a few launches.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from hybrid_nas_kernels import adamw as adamw_op
from hybrid_nas_kernels.compile_ahead import compiled_ahead
from hybrid_nas_kernels.dispatch import why_not
from torch import Tensor, nn

from hybrid_nas.architecture import Architecture
from hybrid_nas.model import Model
from hybrid_nas.proxy import BETAS, EXPLODED, Diverged, Proxy, Step, decayed_and_kept, trapezoid

CHUNK = 32
"""Steps whose batches go to the device, and whose losses come back, together."""
ALIGNED = 64
COMPUTE = torch.bfloat16
EPS = 1e-8
AHEAD = os.environ.get("HYBRID_NAS_COMPILE_AHEAD") != "0"
"""Compile the first step's kernels several at a time."""
CAPTURING = threading.Lock()
"""Held while a step is built and captured: trainings that share a device do so one after another."""


def unusable(device: torch.device) -> str | None:
    """Why a captured step cannot run on `device`; None where it can."""
    if device.type != "cuda":
        return f"CUDA graphs need a CUDA device, not {device.type}"
    return why_not("triton")


def lost(device: torch.device) -> bool:
    """Whether a fault on `device`, such as a kernel's illegal access, has ended its use by this process."""
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


class NoMixedPrecision(RuntimeError):
    """An operation of the model does not take bfloat16 matrices beside float32 vectors."""


TYPES = re.compile(r"bfloat16|\bbf16\b|dtypes?\b|data type|scalar ?type|(input|weight|bias)_type", re.IGNORECASE)


def of_precision(error: Exception) -> bool:
    """Whether an operation refused what its inputs' types are, by what it says: torch, and packages with kernels of
    their own, have no error for it. Any other error is a mistake, and no reason to train more slowly."""
    return TYPES.search(str(error)) is not None


@dataclass
class Flat:
    """Parameters side by side in flat tensors: `master` float32, `compute` what the model reads (the same tensor for
    vectors), their gradients, and in float32 AdamW's two moments."""

    parameters: list[nn.Parameter]
    dtype: torch.dtype
    weight_decay: float
    master: Tensor = field(init=False)
    compute: Tensor = field(init=False)
    gradient: Tensor = field(init=False)
    places: list[slice] = field(init=False)

    def __post_init__(self) -> None:
        self.places, end = [], 0
        for parameter in self.parameters:
            self.places.append(slice(end, end + parameter.numel()))
            end += -(-parameter.numel() // ALIGNED) * ALIGNED  # matrix products want aligned rows
        self.gaps = [-parameter.numel() % ALIGNED for parameter in self.parameters]
        device = self.parameters[0].device
        self.master = torch.zeros(end, dtype=torch.float32, device=device)
        self.compute = self.master if self.dtype == torch.float32 else torch.zeros_like(self.master, dtype=self.dtype)
        self.gradient = torch.zeros_like(self.compute)
        self.mean, self.square = (torch.zeros_like(self.master) for _ in range(2))
        self.zeros = torch.zeros(ALIGNED, dtype=self.dtype, device=device)
        for parameter, place in zip(self.parameters, self.places, strict=True):
            self.master[place] = parameter.data.reshape(-1)
            parameter.data = self.compute[place].view(parameter.shape)
        self.publish()

    def gather(self, gradients: Sequence[Tensor]) -> None:
        """The parameters' gradients into the flat one, in one pass."""
        pieces = []
        for gradient, gap in zip(gradients, self.gaps, strict=True):
            pieces += [gradient.reshape(-1)] + ([self.zeros[:gap]] if gap else [])
        torch.cat(pieces, out=self.gradient)

    def group(self) -> adamw_op.Group:
        """What the optimizer takes."""
        return adamw_op.Group(
            self.master, self.gradient, self.mean, self.square, self.compute, float(self.weight_decay)
        )

    def publish(self) -> None:
        """The weights that the model reads, from the float32 ones."""
        if self.compute is not self.master:
            self.compute.copy_(self.master)

    def restore(self) -> None:
        """Give the model its float32 weights back."""
        for parameter, place in zip(self.parameters, self.places, strict=True):
            parameter.data = self.master[place].view(parameter.shape)


class CapturedTraining:
    """One candidate's training, enqueued on a stream of its own. The weights of `model` become bfloat16 (matrices) and
    float32 (vectors) until `restore`. `how` says whether the graph runs, or why the step runs eagerly; `bytes` is the
    device memory that building it took. Raises NoMixedPrecision, with the model as it was, where a mixer cannot run so;
    any other error of the first step is raised as it is.
    """

    def __init__(
        self, model: Model, architecture: Architecture, proxy: Proxy, device: torch.device, *, capture: bool = True
    ) -> None:
        why = unusable(device)
        if why is not None:
            raise NoMixedPrecision(why)
        self.model, self.proxy, self.device = model, proxy, device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.stream.wait_stream(torch.cuda.current_stream(device))
        self.enqueued = self.loads = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.how = "eager, bfloat16: not asked to capture"
        self.flats: list[Flat] = []
        with CAPTURING, torch.cuda.stream(self.stream):
            before = torch.cuda.memory_reserved(device)
            try:
                self._build(proxy.budget.peak(architecture.width))
                self._warm_up()
            except (RuntimeError, TypeError, NotImplementedError) as error:
                for flat in self.flats:
                    flat.restore()
                if isinstance(error, torch.OutOfMemoryError) or not of_precision(error) or lost(device):
                    raise
                raise NoMixedPrecision(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
            if capture:
                self._capture()
            self.bytes = torch.cuda.memory_reserved(device) - before

    def _build(self, peak: float) -> None:
        """Everything that the step reads and writes, at fixed places on the device."""
        proxy, budget, device = self.proxy, self.proxy.budget, self.device
        rows, length = budget.batch, proxy.context + 1
        shares = [trapezoid(n, proxy.steps, budget.warmup, budget.cooldown) for n in range(1, proxy.steps + 1)]
        self.rates = torch.tensor([*(peak * share for share in shares), 0.0], device=device)
        decayed, kept = decayed_and_kept(self.model)
        for parameters, dtype, decay in ((decayed, COMPUTE, budget.weight_decay), (kept, torch.float32, 0.0)):
            if parameters:
                self.flats.append(Flat(parameters, dtype, decay))
        self.tokens = torch.zeros((CHUNK, rows, length), dtype=torch.int64, device=device)
        self.row_weights = torch.zeros((CHUNK, rows, length - 1), device=device)
        self.losses = torch.zeros(CHUNK, device=device)
        self.slot, self.step = (torch.zeros(1, dtype=torch.int64, device=device) for _ in range(2))
        self.staging = [
            tuple(torch.zeros(v.shape, dtype=v.dtype).pin_memory() for v in (self.tokens, self.row_weights))
            for _ in range(2)
        ]
        self.copied = [torch.cuda.Event() for _ in range(2)]  # type: ignore[no-untyped-call]

    def _warm_up(self) -> None:
        """One step that changes nothing: compiles kernels. With AHEAD a dry one before it, of meaningless results."""
        kept = [buffer.clone() for buffer in self.model.buffers()]  # a mixture of experts counts its steps
        self._load(0, 1)
        if AHEAD:
            weights = [flat.master.clone() for flat in self.flats]
            with compiled_ahead(self.device):
                self._step()
            for flat, was in zip(self.flats, weights, strict=True):
                flat.master.copy_(was)
                flat.publish()
            self._forget()
            self.slot.zero_()
        self.step.fill_(self.proxy.steps)  # where the learning rate is 0
        self._step()
        self._forget()
        for buffer, was in zip(self.model.buffers(), kept, strict=True):
            buffer.copy_(was)
        self.step.zero_()

    def _forget(self) -> None:
        """The optimizer as at its start."""
        for flat in self.flats:
            for value in (flat.mean, flat.square):
                value.zero_()

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self._step()
        except RuntimeError as error:  # an operation that cannot be captured; memory errors are the caller's
            if isinstance(error, torch.OutOfMemoryError):
                raise
            self.how = f"eager, bfloat16: {str(error).splitlines()[0]}"
            return
        self.graph, self.how = graph, "CUDA graph"

    def _step(self) -> None:
        """One training step, without one wait for the device."""
        tokens = self.tokens.index_select(0, self.slot)[0]
        weights = self.row_weights.index_select(0, self.slot)[0]
        total, losses = self.model.losses(tokens[:, :-1], tokens[:, 1:], weights)
        parameters = [parameter for flat in self.flats for parameter in flat.parameters]
        gradients = torch.autograd.grad(total, parameters)
        for flat in self.flats:
            flat.gather(gradients[: len(flat.parameters)])
            gradients = gradients[len(flat.parameters) :]
        adamw_op.adamw_(
            [flat.group() for flat in self.flats],
            self.rates,
            self.step,
            clip=self.proxy.budget.clip,
            betas=BETAS,
            eps=EPS,
        )
        text = len(tokens) - self.proxy.recall_sequences
        counted = slice(0, text) if text else slice(0, None)
        self.losses.index_copy_(0, self.slot, (losses.view(weights.shape) * weights)[counted].sum().view(1))
        self.slot += 1
        self.step += 1

    def _load(self, first: int, count: int) -> None:
        """Batches of `count` steps to the device, by way of pinned memory."""
        half, self.loads = self.loads % 2, self.loads + 1
        tokens, weights = self.staging[half]
        self.copied[half].synchronize()  # until the copy before last is through
        for i in range(count):
            batch = self.proxy.batch(first + i)
            tokens[i] = batch.tokens
            text = len(batch.text)
            if text:
                weights[i, :text] = 1 / (text * self.proxy.context)
            if len(batch.scored):
                weights[i, text:] = batch.scored / batch.scored.sum()
        self.tokens[:count].copy_(tokens[:count], non_blocking=True)
        self.row_weights[:count].copy_(weights[:count], non_blocking=True)
        self.copied[half].record(self.stream)
        self.slot.zero_()

    def again(self, model: Model, proxy: Proxy) -> None:
        """Begin anew with the weights of `model`, of the same architecture, and the batches of `proxy`, of the same
        budget and another seed: what was captured serves every seed. The model that trains stays `self.model`."""
        if proxy.budget != self.proxy.budget or proxy.context != self.proxy.context:
            raise ValueError("captured: another seed must have the budget and the context of the first")
        if model.architecture != self.model.architecture:
            raise ValueError("captured: another seed must have the architecture of the first")
        self.proxy, self.enqueued = proxy, 0
        groups = [group for group in decayed_and_kept(model) if group]
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            for flat, parameters in zip(self.flats, groups, strict=True):
                for place, parameter in zip(flat.places, parameters, strict=True):
                    flat.master[place].copy_(parameter.data.reshape(-1))
                flat.publish()
                for value in (flat.mean, flat.square):
                    value.zero_()
            for buffer, fresh in zip(self.model.buffers(), model.buffers(), strict=True):
                buffer.copy_(fresh)
            self.step.zero_()
        self.stream.synchronize()  # until then the weights of `model` must live

    def enqueue(self, count: int) -> Chunk:
        """Enqueue the next `count` steps, at most CHUNK; returns where their losses will be. Waits for nothing."""
        with torch.cuda.stream(self.stream):
            self._load(self.enqueued, count)
            for _ in range(count):
                if self.graph is None:
                    self._step()
                else:
                    self.graph.replay()
            host = torch.empty(count, pin_memory=True)
            host.copy_(self.losses[:count], non_blocking=True)
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record(self.stream)
        chunk = Chunk(self.enqueued + 1, host, ready)
        self.enqueued += count
        return chunk

    def scores(self) -> tuple[float | None, float | None]:
        """Held-out loss and recall, as `Proxy.loss` and `Proxy.recall` give them."""
        with torch.cuda.stream(self.stream):
            return self.proxy.loss(self.model, self.device), self.proxy.recall(self.model, self.device)

    def state(self) -> dict[str, Any]:
        """What goes on from here needs, once all that is enqueued is done; see `hybrid_nas.checkpoint`."""
        self.stream.synchronize()
        return {
            "flats": [[value.cpu() for value in (f.master, f.mean, f.square)] for f in self.flats],
            "buffers": [buffer.cpu() for buffer in self.model.buffers()],
        }

    def take_up(self, state: Mapping[str, Any], after: int) -> None:
        """Go on from a state that was taken after so many steps."""
        with torch.cuda.stream(self.stream):
            for flat, values in zip(self.flats, state["flats"], strict=True):
                for here, value in zip((flat.master, flat.mean, flat.square), values, strict=True):
                    here.copy_(value)
                flat.publish()
            for buffer, value in zip(self.model.buffers(), state["buffers"], strict=True):
                buffer.copy_(value)
            self.step.fill_(after)
        self.enqueued = after

    def restore(self) -> None:
        """Wait for what is enqueued, and give the model its float32 weights back."""
        self.stream.synchronize()
        for flat in self.flats:
            flat.restore()


@dataclass(frozen=True)
class Chunk:
    """Steps from number `first` on, whose losses are in `host` once `ready`."""

    first: int
    host: Tensor
    ready: torch.cuda.Event

    def read(self) -> list[float]:
        self.ready.synchronize()
        return [float(value) for value in self.host]


def train(training: CapturedTraining) -> Iterator[Step]:
    """As `hybrid_nas.proxy.train`: the steps of a training, a chunk ahead of what is yielded. Raises Diverged."""
    proxy = training.proxy
    rungs, tokens = proxy.rungs(), proxy.budget.batch * proxy.context
    ahead: list[Chunk] = []
    for boundary in sorted({*rungs, proxy.steps}):
        while training.enqueued < boundary or ahead:
            if training.enqueued < boundary:
                ahead.append(training.enqueue(min(CHUNK, boundary - training.enqueued)))
            if len(ahead) < 2 and training.enqueued < boundary:
                continue
            chunk = ahead.pop(0)
            for number, loss in enumerate(chunk.read(), chunk.first):
                if not math.isfinite(loss) or loss > EXPLODED:
                    raise Diverged(
                        f"diverged at step {number} of {proxy.steps} with a training loss of {loss:.3g} nats"
                    )
                scores = training.scores() if number == boundary and number in rungs else (None, None)
                yield Step(number, number * tokens, loss, *scores)
