"""Which implementation of an operation runs, and why.

Every operation has a table of implementations by name, all of one signature, and a rule `auto` that picks a name and
says why. What ran is recorded in `CHOSEN`, because a speed measured on a fallback is a false result.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any, TypeVar

import torch

logger = logging.getLogger("hybrid_nas.kernels")

CHOSEN: dict[str, dict[str, str]] = {}
"""operation -> {implementation that ran in this process: why it was taken at first}"""

T = TypeVar("T", bound=Callable[..., object])


class MissingPackage(ImportError):
    """A package that an implementation needs is not installed."""


class BrokenPackage(RuntimeError):
    """A package that an implementation needs is installed and cannot be imported."""


def package(name: str) -> ModuleType:
    """Import `name`. MissingPackage where it is not installed; BrokenPackage, with the cause, where its import fails.

    The two are told apart because the cures are: install it, or repair what is there (often a build for another
    torch or CUDA), and because falling back in silence from a broken package hides a slow run.
    """
    if importlib.util.find_spec(name) is None:
        raise MissingPackage(f"{name} is not installed")
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise BrokenPackage(f"{name} is installed but cannot be imported: {type(error).__name__}: {error}") from error


@lru_cache(maxsize=16)
def why_not(name: str) -> str | None:
    """Why the package `name` cannot be used; None where it can. Asked once a process."""
    try:
        package(name)
    except (MissingPackage, BrokenPackage) as error:
        return str(error)
    return None


def deferred(module: str, function: str, needs: str) -> Callable[..., Any]:
    """An implementation whose module, and the package that it needs, are imported when it first runs."""

    def run(*arguments: Any, **options: Any) -> Any:
        package(needs)
        return getattr(importlib.import_module(module), function)(*arguments, **options)

    return run


def triton_or(
    device: torch.device, otherwise: Callable[[], tuple[str, str]], dtype: torch.dtype = torch.float32
) -> tuple[str, str]:
    """("triton", why) where Triton kernels run: a CUDA device, no float64; else `otherwise()`, with what lacks."""
    if device.type != "cuda":
        return otherwise()
    missing = "Triton's products have no float64" if dtype == torch.float64 else why_not("triton")
    if missing is None:
        return "triton", "one pass over memory, shapes by rule, nothing to tune"
    name, _ = otherwise()
    return name, f"{missing}, so this runs in torch's own operations"


def runs_triton(value: torch.Tensor) -> bool:
    """Whether Triton kernels run on the device of `value` and in its dtype."""
    return value.is_cuda and value.dtype != torch.float64 and why_not("triton") is None


def pick(operation: str, asked: str, implementations: Mapping[str, T], auto: Callable[[], tuple[str, str]]) -> T:
    """The implementation of `operation` that `asked` names; "auto" takes the one that the rule `auto` names.

    Each choice is recorded in `CHOSEN`; "auto" logs once a choice. ValueError for an unknown name.
    """
    if asked == "auto":
        name, reason = auto()
    elif asked in implementations:
        name, reason = asked, "asked for"
    else:
        near = difflib.get_close_matches(asked, ["auto", *implementations], n=1, cutoff=0.0)
        raise ValueError(
            f"{operation}: unknown implementation {asked!r}; known: auto, {', '.join(implementations)}; "
            f"nearest: {near[0]}"
        )
    chosen = CHOSEN.setdefault(operation, {})
    if name not in chosen:
        chosen[name] = reason
        if asked == "auto" and not torch.compiler.is_compiling():  # a log line is nothing that a graph can hold
            logger.info("%s: %s, %s", operation, name, reason)
    return implementations[name]
