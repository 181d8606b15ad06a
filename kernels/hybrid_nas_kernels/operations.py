"""Torch operations of our own: opaque to torch.compile and taken whole by CUDA graphs, with a fake and a gradient.

`torch.library.Library` and not `custom_op`, whose first call imports torch's compiler: seconds before a first step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

LIBRARY = torch.library.Library("hybrid_nas", "FRAGMENT")  # type: ignore[no-untyped-call]


class Operation:
    """`hybrid_nas::name`, of the schema given, run by the function decorated."""

    def __init__(self, schema: str, run: Callable[..., Any]) -> None:
        self.name = "hybrid_nas::" + schema.partition("(")[0]
        LIBRARY.define(schema)  # type: ignore[no-untyped-call]
        LIBRARY.impl(self.name, run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]

    def register_fake(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """What the results look like: shapes, dtypes, device."""
        torch.library.register_fake(self.name, function, lib=LIBRARY)
        return function

    def register_autograd(self, backward: Callable[..., Any], *, setup_context: Callable[..., Any]) -> None:
        torch.library.register_autograd(self.name, backward, setup_context=setup_context, lib=LIBRARY)


def operation(schema: str) -> Callable[[Callable[..., Any]], Operation]:
    """Decorator: the function as the operation of `schema`, like "name(Tensor x) -> Tensor"."""
    return lambda run: Operation(schema, run)
