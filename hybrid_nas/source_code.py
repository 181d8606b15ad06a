"""The code itself: where it lies, and a fingerprint that tells whether two machines have the same."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import hybrid_nas_kernels


def package_folders() -> tuple[Path, Path]:
    """The folders of both packages, as installed."""
    kernels = hybrid_nas_kernels.__file__
    assert kernels is not None
    return Path(__file__).parent, Path(kernels).parent


@cache
def fingerprint() -> str:
    """Twelve hex digits of the SHA-256 of every Python file of both packages."""
    digest = hashlib.sha256()
    for folder in package_folders():
        for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
