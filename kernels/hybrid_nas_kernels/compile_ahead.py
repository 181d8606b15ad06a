"""What a first step waits for, made ready several things at a time: Triton's kernels, and torch's own libraries.

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
from torch.nn import functional as F

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
            torch.cuda.set_device(device)  # a thread's own

    with ThreadPoolExecutor(THREADS, "compile", begin) as threads:
        knobs.runtime.jit_cache_hook = hook
        try:
            with torch.autograd.set_multithreading_enabled(False):
                yield
        finally:
            knobs.runtime.jit_cache_hook = before
            for future in pending.values():
                future.result()


def libraries_ahead(device: torch.device, attention: bool) -> threading.Thread:
    """A running thread that loads what torch loads at a CUDA device's first product, and at its first attention."""

    def load() -> None:
        torch.cuda.set_device(device)
        with torch.cuda.stream(torch.cuda.Stream(device)):  # type: ignore[no-untyped-call]
            x = torch.ones((1, 1, 128, 64), device=device, dtype=torch.bfloat16, requires_grad=True)
            y = F.scaled_dot_product_attention(x, x, x, is_causal=True) if attention else x
            torch.autograd.grad((y @ y.mT).sum(), x)

    thread = threading.Thread(target=load, name="libraries", daemon=True)
    thread.start()
    return thread
