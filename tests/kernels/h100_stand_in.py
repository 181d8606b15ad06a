"""A stand-in for an H100's driver, so that Triton compiles for one, with ptxas, where there is none: `set_active` takes
it, launches are listed and not run. For a process of its own, whose kernels are not Triton's interpreter's."""

from __future__ import annotations

from typing import Any

from triton.backends.compiler import GPUTarget
from triton.runtime import driver

SHARED = 232_448
"""Bytes of shared memory that a program may have on an H100."""
launched: list[str] = []
"""Names of the kernels, in order."""


class Launcher:
    def __init__(self, source: Any, metadata: Any) -> None:
        self.name = source.name

    def __call__(self, *arguments: Any) -> None:
        launched.append(self.name)


class Utilities:
    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": SHARED}

    def load_binary(self, *arguments: Any) -> tuple[int, ...]:
        return 1, 2, 0, 4, 1024  # module, function, registers, spills, threads


class Driver:
    launcher_cls, utils = Launcher, Utilities()

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def set_active() -> None:
    driver.set_active(Driver())
