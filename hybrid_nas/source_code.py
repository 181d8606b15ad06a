"""The code itself: where it lies, and a fingerprint that tells whether two machines have the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import hybrid_nas_kernels


def package_folders() -> tuple[Path, Path]:
    """The folders of both packages, as installed."""
    kernels = hybrid_nas_kernels.__file__
    assert kernels is not None
    return Path(__file__).parent, Path(kernels).parent


SOURCES = (".py", ".cpp", ".hpp")
LAYER_MODULES = (
    "gated_deltanet",
    "heads",
    "mamba1",
    "mamba3",
    "measure",
    "mixer_module",
    "mixers",
    "model",
    "moe_module",
    "parallel",
    "parallel_pair",
)
"""Modules of `hybrid_nas` on which the time and memory of a layer depend, beside all kernels."""


@cache
def fingerprint() -> str:
    """Twelve hex digits of the SHA-256 of every source file of both packages."""
    return _digest((folder, path) for folder in package_folders() for path in _sources(folder))


@cache
def layers_fingerprint() -> str:
    """Twelve hex digits of the SHA-256 of what makes, runs and measures layers: kernels and `LAYER_MODULES`."""
    package, kernels = package_folders()
    modules = ((package, package / f"{name}.py") for name in LAYER_MODULES)
    return _digest([*modules, *((kernels, path) for path in _sources(kernels))])


def _sources(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix in SOURCES)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _digest(files: Iterable[tuple[Path, Path]]) -> str:
    digest = hashlib.sha256()
    for folder, path in files:
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
