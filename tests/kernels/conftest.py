"""What the kernel tests share: one table of tolerances, and memory that starts as NaN."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

if torch.cuda.is_available():
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic algorithms ask for
else:
    os.environ["TRITON_INTERPRET"] = "1"  # read where Triton's kernels are defined: before their import

TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6, torch.bfloat16: 2e-2}
"""Largest difference from the float64 reference, as a share of the reference's largest value."""


@pytest.fixture
def compiling(tmp_path: Path) -> dict[str, str]:
    """Environment of a process that compiles Triton's kernels, from an empty cache, and may import h100_stand_in."""
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    return {**kept, "TRITON_CACHE_DIR": str(tmp_path / "triton"), "PYTHONPATH": path}


@pytest.fixture
def assert_close() -> Callable[..., None]:
    def check(actual: Tensor, reference: Tensor, times: float = 1.0) -> None:
        assert reference.dtype == torch.float64
        assert actual.shape == reference.shape
        scale = float(reference.abs().max()) or 1.0
        difference = float((actual.double() - reference).abs().max()) / scale
        assert difference <= times * TOLERANCE[actual.dtype], f"{difference:.1e} of the largest value, {actual.dtype}"

    return check


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Every torch.empty is filled with NaN, so that a value read before it is written shows."""
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fill
