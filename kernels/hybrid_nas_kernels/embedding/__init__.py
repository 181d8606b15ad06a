"""Rows of a table. README.md says why there is more than torch's own."""

from __future__ import annotations

import torch
from torch import Tensor

from hybrid_nas_kernels.dispatch import pick
from hybrid_nas_kernels.embedding.one_hot import embedding_one_hot
from hybrid_nas_kernels.embedding.reference import embedding_reference

__all__ = ["IMPLEMENTATIONS", "SMALL", "choose", "embedding", "embedding_one_hot", "embedding_reference"]

IMPLEMENTATIONS = {"reference": embedding_reference, "one_hot": embedding_one_hot}
SMALL = 1024


def choose(device: torch.device, vocab: int) -> tuple[str, str]:
    """The implementation that "auto" takes on `device` for a table of `vocab` rows, and why."""
    if device.type == "cuda" and vocab <= SMALL:
        return "one_hot", f"a product in place of a sort, up to {SMALL} entries"
    return "reference", "torch's own"


def embedding(tokens: Tensor, table: Tensor, *, implementation: str = "auto") -> Tensor:
    """table[tokens]: tokens (...), whole numbers; table (vocab, width). Returns (..., width)."""
    run = pick("embedding", implementation, IMPLEMENTATIONS, lambda: choose(tokens.device, len(table)))
    return run(tokens, table)
