"""Triton kernels compiled several at a time, before they are needed.

Triton compiles a kernel at its first launch and waits: the first step of a model would compile some 30 of them one
after another, each with ptxas and, for what launches it, a C compiler, which are processes of their own. Here what is
to run is run once dry: a kernel that is not ready yet is left out, and made ready by a thread.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

from hybrid_nas_kernels.dispatch import why_not

THREADS = min(32, os.cpu_count() or 1)


@contextmanager
def compiled_ahead(device: torch.device) -> Iterator[None]:
    """What runs within, in this thread, leaves out the Triton kernels that are not compiled; at the end they are.

    Results made within are of no meaning, so it is for the caller to put back what they were written to. A gradient's
    kernels are left out too: within, autograd stays in the thread that calls it. Other threads launch as ever.
    """
    if why_not("triton") is not None or importlib.util.find_spec("triton.knobs") is None:  # it came with Triton 3.4
        yield
        return
    from triton import knobs

    current = torch.cuda.current_device() if device.type == "cuda" else 0
    here, before = threading.get_ident(), knobs.runtime.jit_cache_hook
    pending: dict[tuple[Any, str], Future[Any]] = {}

    def ready(kernel: Any, specialization: str) -> None:
        compiled = kernel.preload(specialization)
        if device.type == "cuda":
            compiled.run  # builds its launcher and loads it  # noqa: B018

    def hook(*, key: str, fn: Any, compile: dict[str, Any], **rest: Any) -> bool:
        """Triton asks it before it compiles; True: neither compile nor launch."""
        if threading.get_ident() != here:
            return False if before is None else before(key=key, fn=fn, compile=compile, **rest)
        if (fn.jit_function, key) not in pending:
            pending[fn.jit_function, key] = threads.submit(ready, fn.jit_function, compile["specialization_data"])
        return True

    def begin() -> None:
        if device.type == "cuda":
            torch.cuda.set_device(current if device.index is None else device.index)  # a thread's own

    with ThreadPoolExecutor(THREADS, "compile", begin) as threads:
        knobs.runtime.jit_cache_hook = hook
        try:
            with torch.autograd.set_multithreading_enabled(False):
                yield
        finally:
            knobs.runtime.jit_cache_hook = before
            for future in pending.values():
                future.result()
