"""Speed and memory of an Architecture on this device: layer by layer, each kind of layer measured once.

A layer's time depends on its dimensions, the batch and the context, not on its neighbours, so a table of layers, kept
as Parquet, gives every model made of them: a hundred candidates cost what their few kinds of layers cost. How wrong
that is for a whole model is measured too (`whole`). Weights are random; on CUDA matrices are bfloat16 and every
measurement is a CUDA graph, replayed.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hybrid_nas_kernels import adamw as adamw_op
from torch import Tensor
from torch.nn import functional as F

from hybrid_nas.architecture import Architecture, Block, canonical_json
from hybrid_nas.cost import cost
from hybrid_nas.kept import PARAM_BYTES
from hybrid_nas.model import Model
from hybrid_nas.proxy import BETAS
from hybrid_nas.source_code import layers_fingerprint
from hybrid_nas.speed import BY_LAYERS, Load, Speed

What = Literal["decode", "prefill", "train"]
OUT_OF_CACHE = 1 << 28
"""Bytes that a decoding measurement touches at least, by copies of a layer: more than any device's cache holds."""
OPTIMIZER_PARAMS = 1 << 26
HEAD = "embedding and classifier"
OPTIMIZER = "AdamW, a parameter"
UNKNOWN_CODE = "unknown"
"""The code of rows that were kept before rows said by which code they were measured."""


@dataclass(frozen=True)
class Layer:
    """One row of the table. `seconds` of one layer (or one parameter of the optimizer) for the whole batch; in training
    `kept_bytes` is what forward keeps for backward, and `peak_bytes` the most in use beyond the weights. `code` is the
    `layers_fingerprint` of what measured it."""

    device: str
    torch: str
    what: str
    part: str
    width: int
    vocab: int
    batch: int
    context: int
    seconds: float
    kept_bytes: int = 0
    peak_bytes: int = 0
    code: str = UNKNOWN_CODE

    @property
    def key(self) -> tuple[Any, ...]:
        shape = (self.what, self.part, self.width, self.vocab, self.batch, self.context)
        return (self.code, self.device, self.torch, *shape)


class Table:
    """Layers measured so far; with a path, kept there as Parquet. Rows of other code stay, and none is used."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.rows: dict[tuple[Any, ...], Layer] = {}
        if path is not None and path.exists():
            for values in pq.read_table(path).to_pylist():
                self._keep(Layer(**values))

    def others(self) -> str:
        """What the table holds that this code measures anew, in a sentence; empty where there is nothing."""
        ours = layers_fingerprint()
        found = [row.code for row in self.rows.values() if row.code != ours]
        if not found:
            return ""
        codes = ", ".join(sorted(set(found)))
        return (
            f"{self.path}: {len(found)} of {len(self.rows)} layers were measured by other code ({codes}; this is "
            f"{ours}): what is needed of them is measured anew"
        )

    def _keep(self, layer: Layer) -> None:
        self.rows[layer.key] = layer

    def add(self, layer: Layer) -> Layer:
        self._keep(layer)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            columns = {f.name: [getattr(row, f.name) for row in self.rows.values()] for f in fields(Layer)}
            part = self.path.with_suffix(".part")
            pq.write_table(pa.table(columns), part)
            part.replace(self.path)
        return layer


class Meter:
    """Measures layers on `device`, each once."""

    def __init__(self, device: torch.device, table: Table | None = None) -> None:
        self.device = device
        self.table = Table() if table is None else table
        self.name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32

    def speed(self, architecture: Architecture, load: Load) -> Speed:
        """`architecture` from its layers."""
        seconds = {
            what: sum(layer.seconds for layer in self.layers(architecture, what, load))
            for what in ("decode", "prefill", "train")
        }
        params = cost(architecture, 1).params
        seconds["train"] += params * self._layer(architecture, OPTIMIZER, "train", load).seconds
        trained = list(self.layers(architecture, "train", load))
        kept = sum(layer.kept_bytes for layer in trained)
        return Speed(
            BY_LAYERS,
            self.name,
            load.batch / seconds["decode"],
            seconds["prefill"],
            load.train_batch * load.train_context / seconds["train"],
            kept + max(layer.peak_bytes - layer.kept_bytes for layer in trained) + PARAM_BYTES * params,
            load,
        )

    def layers(self, architecture: Architecture, what: What, load: Load) -> Iterator[Layer]:
        """A row for every block of `architecture`, in order, and one for its embedding and classifier."""
        for block in architecture.blocks:
            yield self._layer(architecture, block, what, load)
        yield self._layer(architecture, HEAD, what, load)

    def _layer(self, architecture: Architecture, part: Block | str, what: What, load: Load) -> Layer:
        train = what == "train"
        batch, context = (load.train_batch, load.train_context) if train else (load.batch, load.context)
        if isinstance(part, Block):
            one = Architecture(architecture.width, 8, (part,))
            name = canonical_json(one.to_dict()["blocks"][0])
        else:
            one, name = Architecture(architecture.width, architecture.vocab, architecture.blocks[:1]), part
        vocab = architecture.vocab if name == HEAD else 0
        code = layers_fingerprint()
        shape = (self.name, torch.__version__, what, name, architecture.width, vocab, batch, context)
        key = (code, *shape)
        if key not in self.table.rows:
            if name == OPTIMIZER:
                found = (self._optimizer() / OPTIMIZER_PARAMS, 0, 0)
            elif name != HEAD:
                found = self._block(one, what, batch, context)
            else:
                found = self._head(one, what, batch, context)
            self.table.add(Layer(*shape, *found, code))
        return self.table.rows[key]

    def _block(self, one: Architecture, what: What, batch: int, context: int) -> tuple[float, int, int]:
        block = one.blocks[0]
        copies = 1
        if what == "decode" and self.device.type == "cuda":
            touched = cost(Architecture(one.width, 1, one.blocks), context)
            copies = -(-OUT_OF_CACHE // (2 * touched.params_nonembedding + batch * touched.cache_bytes))
        model = random_model(Architecture(one.width, one.vocab, (block,) * copies), self.device, self.dtype)
        if what == "decode":
            return self._decode(model, batch, context, head=False) / copies, 0, 0
        x = self._random(batch, context, one.width)
        if what == "prefill":
            with torch.no_grad():
                return self._time(lambda: model.blocks[0](x)), 0, 0
        x.requires_grad_()
        dy = self._random(batch, context, one.width)
        leaves = [x, *(p for p in model.blocks.parameters() if p.requires_grad)]

        def step() -> int:
            y = model.blocks[0](x)
            kept = self._allocated()
            torch.autograd.grad(y, leaves, dy)
            return kept

        return self._train(step)

    def _head(self, one: Architecture, what: What, batch: int, context: int) -> tuple[float, int, int]:
        model = random_model(Architecture(one.width, one.vocab, one.blocks), self.device, self.dtype, blocks=False)
        tokens = torch.randint(one.vocab, (batch, context), device=self.device)
        if what != "train":
            x = self._random(batch, 1, one.width)
            ids = tokens[:, :1] if what == "decode" else tokens

            def forward() -> Any:
                return F.embedding(ids, model.embedding), model._classify(x)

            with torch.no_grad():
                return self._time(forward), 0, 0
        weights = torch.full((batch, context), 1 / tokens.numel(), device=self.device)
        leaves = [model.embedding, model.norm.weight]

        def step() -> int:
            total, _ = model.losses(tokens, tokens, weights)
            kept = self._allocated()
            torch.autograd.grad(total, leaves)
            return kept

        return self._train(step)

    def _optimizer(self) -> float:
        master, mean, square = (torch.zeros(OPTIMIZER_PARAMS, device=self.device) for _ in range(3))
        compute = master.to(self.dtype)
        group = adamw_op.Group(master, torch.ones_like(compute), mean, square, compute, 0.1)
        rates, step = torch.full((1,), 1e-3, device=self.device), torch.zeros(1, dtype=torch.int64, device=self.device)
        return self._time(lambda: adamw_op.adamw_([group], rates, step, clip=1.0, betas=BETAS, eps=1e-8))

    def _decode(self, model: Model, batch: int, context: int, head: bool = True) -> float:
        """Seconds of one token of each sequence at the last position of `context`."""
        cache = model.cache(batch, context, self.dtype)
        for layer in cache.layers:
            for value in layer.values():
                value.normal_()
        token = torch.zeros(batch, dtype=torch.int64, device=self.device)
        x = self._random(batch, model.architecture.width)

        def step() -> Any:
            cache.position = context - 1
            if head:
                return model.step(token, cache)
            y, added = x, None
            for block, layer in zip(model._blocks(), cache.layers, strict=True):
                y, added = block.step(y, added, layer, cache.position)
            return y, added

        with torch.no_grad():
            return self._time(step)

    def _train(self, step: Callable[[], int]) -> tuple[float, int, int]:
        step()
        before = self._allocated()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        kept = step() - before
        peak = torch.cuda.max_memory_allocated(self.device) - before if self.device.type == "cuda" else 0
        return self._time(step), kept, peak

    def _time(self, run: Callable[[], Any]) -> float:
        """Median seconds of `run`, as a CUDA graph where there is CUDA."""
        if self.device.type != "cuda":
            run()
            taken = []
            for _ in range(5):
                begin = time.perf_counter()
                run()
                taken.append(time.perf_counter() - begin)
            return statistics.median(taken)
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            run()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                run()
            stream.synchronize()
            begin = time.perf_counter()
            graph.replay()
            stream.synchronize()
            rounds = max(1, min(7, int(0.2 / (time.perf_counter() - begin))))
            taken = []
            for _ in range(rounds):
                first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
                first.record(stream)
                for _ in range(3):
                    graph.replay()
                last.record(stream)
                last.synchronize()
                taken.append(first.elapsed_time(last) / 3e3)
        return statistics.median(taken)

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device, dtype=self.dtype)

    def _allocated(self) -> int:
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else 0

    def whole(self, architecture: Architecture, load: Load) -> dict[str, float]:
        """Seconds of decoding and prefill of the whole model, measured as one, to hold the layers against."""
        model = random_model(architecture, self.device, self.dtype)
        tokens = torch.randint(architecture.vocab, (load.batch, load.context), device=self.device)

        def prefill() -> Tensor:
            x = F.embedding(tokens, model.embedding)
            for block in model.blocks:
                x = block(x)
            return model._classify(x[:, -1])

        with torch.no_grad():
            return {"decode": self._decode(model, load.batch, load.context), "prefill": self._time(prefill)}


def random_model(architecture: Architecture, device: torch.device, dtype: torch.dtype, blocks: bool = True) -> Model:
    """A model with matrices in `dtype` and vectors in float32, of no use but to be timed."""
    with torch.device("meta"):
        model = Model(architecture)
    if not blocks:
        model.blocks = torch.nn.ModuleList()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.to(dtype)
    model.to_empty(device=device)
    for parameter in model.parameters():
        parameter.data.normal_(0.0, 0.02) if parameter.ndim > 1 else parameter.data.fill_(1.0)
    return model.adjoin()


def describe(layer: Layer) -> str:
    """A layer's part in a few words."""
    if not layer.part.startswith("{"):
        return layer.part
    block = json.loads(layer.part)
    return " + ".join(str(block[kind]["kind"]) for kind in ("mixer", "ffn") if block[kind] is not None)
