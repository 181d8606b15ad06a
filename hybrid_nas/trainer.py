"""A plain trainer for the confirmation run before a design is handed over: one node, one process a device.

The batches are those of a proxy, a function of the seed and the step alone, and each process takes its rows of them,
so a run on four devices sees the data of a run on one. Under torchrun it is distributed: `ddp` keeps a copy of the
model on each device, `fsdp` (FSDP2) a part. A checkpoint holds the whole model and optimizer, whatever wrote it; a
resumed run on one process is bit for bit the unbroken one.

A folder holds train.json (what is trained and how), log.jsonl (a line a step: step, tokens, loss, learning rate,
seconds; held_out at rungs and at the end) and checkpoints/STEP.pt; the command draws loss.svg.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from hybrid_nas.architecture import Architecture
from hybrid_nas.budget import Budget
from hybrid_nas.data import VOCAB, Corpus, open_corpus
from hybrid_nas.model import Model, build
from hybrid_nas.proxy import EXPLODED, Batch, Diverged, Proxy, batch_losses, optimizer, trapezoid
from hybrid_nas.whole_file import write_whole

Parallel = Literal["ddp", "fsdp"]
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
KEPT = 2
RECORD = "train.json"


@dataclass(frozen=True)
class Recipe:
    """What a run trains and how. Two runs of equal recipes on one process are equal bit for bit."""

    architecture: Architecture
    context: int
    budget: Budget
    seed: int = 0
    data: dict[str, Any] | None = None

    @classmethod
    def on_text(cls, architecture: Architecture, data: Mapping[str, Any] | None, **values: Any) -> Recipe:
        """A recipe for `architecture` with an embedding of what the tokens of `data` are: bytes, or symbols."""
        corpus = None if data is None else dict(data)
        vocab = open_corpus(Corpus.from_dict(corpus or {})).vocab
        return cls(replace(architecture, vocab=max(VOCAB, vocab)), data=corpus, **values)

    def to_dict(self) -> dict[str, Any]:
        return {
            "architecture": self.architecture.to_dict(),
            "context": self.context,
            "budget": self.budget.to_dict(),
            "seed": self.seed,
            "data": self.data or {},
        }


@dataclass(frozen=True)
class Logged:
    """A line of log.jsonl. `loss` is that of the batch, nats per token on text; `held_out` where it was taken."""

    step: int
    tokens: int
    loss: float
    learning_rate: float
    seconds: float
    held_out: float | None = None


@dataclass(frozen=True)
class Place:
    """This process among those of a run."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0


@contextmanager
def placed(device: str = "auto") -> Iterator[Place]:
    """This process's place; under torchrun, with the process group open (gloo on CPUs, NCCL on GPUs)."""
    cuda = torch.cuda.is_available() if device == "auto" else device.startswith("cuda")
    if "WORLD_SIZE" not in os.environ:
        yield Place(0, 1, torch.device("cuda" if cuda else "cpu"))
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    on = torch.device(f"cuda:{local}" if cuda else "cpu")
    if cuda:
        torch.cuda.set_device(on)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Place(dist.get_rank(), dist.get_world_size(), on)
    finally:
        dist.destroy_process_group()


class Trainer:
    """One run in one folder; `run` begins it, or takes it up from its last checkpoint."""

    def __init__(self, recipe: Recipe, folder: Path, place: Place, parallel: Parallel = "ddp") -> None:
        budget = recipe.budget
        self.recipe, self.folder, self.place, self.parallel = recipe, folder, place, parallel
        self.proxy = Proxy(open_corpus(Corpus.from_dict(dict(recipe.data or {}))), recipe.context, budget, recipe.seed)
        for name, count in (
            ("text", budget.batch - self.proxy.recall_sequences),
            ("recall", self.proxy.recall_sequences),
        ):
            if count % place.world:
                raise ValueError(
                    f"batch: {count} sequences of {name} do not divide among {place.world} processes; "
                    f"a batch of {budget.batch * place.world} does"
                )
        self.model: Model = build(
            recipe.architecture, generator=recipe.seed, mamba_init=budget.mamba_init, device=place.device
        )
        self.module = self._distributed()
        self.optimizer = optimizer(self.module, budget, recipe.architecture.width)
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.parameters = list(self.module.parameters())
        self.step = 0

    def _distributed(self) -> nn.Module:
        if self.place.world == 1:
            return self.model
        if self.parallel == "ddp":
            ids = [self.place.device.index] if self.place.device.type == "cuda" else None
            return nn.parallel.DistributedDataParallel(self.model, device_ids=ids)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.place.device.type, (self.place.world,))
        for block in self.model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(self.model, mesh=mesh)
        return self.model

    def run(self, every: int, stop_at: int | None = None) -> Iterator[Logged]:
        """Train to the end (or to step `stop_at`), a line a step, with a checkpoint after each `every` steps and after
        the last. Raises Diverged."""
        self._begin()
        steps = self.proxy.steps
        began, before = time.monotonic(), self._seconds()
        while self.step < min(steps, stop_at or steps):
            loss, rate = self._step()
            self.step += 1
            last = self.step == steps
            held_out = None
            if last or self.step in self.proxy.rungs():
                held_out = self.proxy.loss(self.module, self.place.device)
            row = Logged(
                self.step,
                self.step * self.recipe.budget.batch * self.recipe.context,
                loss,
                rate,
                before + time.monotonic() - began,
                held_out,
            )
            self._log(row)
            if last or self.step % every == 0 or self.step == stop_at:
                self.save()
            yield row

    def _step(self) -> tuple[float, float]:
        budget, number = self.recipe.budget, self.step + 1
        share = trapezoid(number, self.proxy.steps, budget.warmup, budget.cooldown)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * share
        losses = batch_losses(self.module, self._rows(self.proxy.batch(self.step)), self.place.device)
        value = self._mean(losses[0].detach())
        if not math.isfinite(value) or value > EXPLODED:
            raise Diverged(f"diverged at step {number} of {self.proxy.steps} with a training loss of {value:.3g} nats")
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, budget.clip, foreach=self.parallel == "ddp")
        self.optimizer.step()
        return value, self.peaks[0] * share

    def _rows(self, batch: Batch) -> Batch:
        """This process's share of a batch: every world-th sequence of text, and of recall."""
        text, recall = (part[self.place.rank :: self.place.world] for part in (batch.text, batch.recall))
        return Batch(torch.cat((text, recall)), batch.scored[self.place.rank :: self.place.world])

    def _mean(self, value: Tensor) -> float:
        if self.place.world > 1:
            dist.all_reduce(value)
            value = value / self.place.world
        return float(value)

    def _begin(self) -> None:
        """Write train.json, or check that the folder is this run's, and take up its last checkpoint."""
        if self.place.first:
            self._claim()
        if self.place.world > 1:
            dist.barrier()
        if found := self.checkpoints():
            self.load(found[-1])
        elif self.place.first:
            self._forget()

    def _claim(self) -> None:
        path = self.folder / RECORD
        recipe = json.loads(json.dumps(self.recipe.to_dict()))
        if path.is_file():
            old = json.loads(path.read_text())["recipe"]
            if found := _unlike(old, recipe):
                raise ValueError(f"{self.folder} holds another training ({', '.join(found)}); give another --out")
            return
        if self.folder.exists() and any(self.folder.iterdir()):
            raise ValueError(f"{self.folder} is neither empty nor a training's folder; give another --out")
        (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        about = {
            "recipe": recipe,
            "steps": self.proxy.steps,
            "processes": self.place.world,
            "parallel": self.parallel if self.place.world > 1 else "none",
            "device": self.place.device.type,
            "implementations": self.model.implementations(),
            "torch": torch.__version__,
            "data": self.proxy.text.fingerprint,
        }
        write_whole(path, json.dumps(about, indent=2) + "\n")

    def checkpoints(self) -> list[Path]:
        return checkpoints(self.folder)

    def save(self) -> None:
        """A checkpoint, whole or absent; the last two are kept."""
        model, adamw = get_state_dict(self.module, self.optimizer, options=WHOLE)
        if self.place.first:
            path = self.folder / "checkpoints" / f"{self.step}.pt"
            partial = path.with_suffix(".partial")
            state = {"step": self.step, "model": model, "optimizer": adamw}
            torch.save(state, partial)
            os.replace(partial, path)
            for old in self.checkpoints()[:-KEPT]:
                old.unlink()
        if self.place.world > 1:
            dist.barrier()

    def load(self, path: Path) -> None:
        """Take up a checkpoint; only tensors and numbers are read from it."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        set_state_dict(
            self.module,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=WHOLE,
        )
        self.step = int(state["step"])
        if self.place.first:
            self._forget()

    def _log(self, row: Logged) -> None:
        if self.place.first:
            with (self.folder / "log.jsonl").open("a") as log:
                log.write(json.dumps({k: v for k, v in asdict(row).items() if v is not None}) + "\n")

    def log(self) -> list[Logged]:
        path = self.folder / "log.jsonl"
        return [Logged(**json.loads(line)) for line in path.read_text().splitlines()] if path.is_file() else []

    def _forget(self) -> None:
        """Drop the lines after the checkpoint: those steps are trained again."""
        rows = [row for row in self.log() if row.step <= self.step]
        text = "".join(json.dumps({k: v for k, v in asdict(row).items() if v is not None}) + "\n" for row in rows)
        (self.folder / "log.jsonl").write_text(text)

    def _seconds(self) -> float:
        rows = self.log() if self.place.first else []
        return rows[-1].seconds if rows else 0.0


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a training's folder, the last one last."""
    return sorted((folder / "checkpoints").glob("*.pt"), key=lambda path: int(path.stem))


def trained(folder: Path) -> Model:
    """The model of a training's last checkpoint, on the CPU. ValueError where there is none."""
    found = checkpoints(folder)
    if not found:
        raise ValueError(f"{folder} has no checkpoint yet; the command that began it continues it")
    recipe = json.loads((folder / RECORD).read_text())["recipe"]
    model = build(Architecture.from_dict(recipe["architecture"]), generator=0)
    model.load_state_dict(torch.load(found[-1], map_location="cpu", weights_only=True)["model"])
    return model


def _unlike(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What of two recipes differs, a clause each: of a mapping each value in it."""
    found = []
    for name in sorted(new):
        was, now = old.get(name), new[name]
        if was == now:
            continue
        if name == "architecture":
            found.append("another model")
        elif isinstance(was, dict) and isinstance(now, dict):
            found += _unlike(was, now)
        else:
            found.append(f"{name} {was} there and {now} here")
    return found
