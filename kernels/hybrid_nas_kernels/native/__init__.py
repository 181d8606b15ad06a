"""C++ for the passes over tokens that torch has no single operation for, compiled once a machine at first use.

`library()` gives the compiled functions or raises `NoNativeWay` with the reason; `why_not()` gives that reason. The
file lies in the user's cache folder under a name that holds a hash of the source, the flags and all that the compiler
says of itself and of this CPU, so another compiler or another CPU compiles its own. README.md has the rest.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

logger = logging.getLogger("hybrid_nas.kernels")

SOURCE = Path(__file__).parent
FILES = ("elementwise.hpp", "scan.hpp", "product.hpp", "library.cpp")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-fPIC", "-shared")
SWITCH = "HYBRID_NAS_NATIVE"
COMPILE_SECONDS = 300

_P, _I, _D, _T = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double, ctypes.c_int
ARGUMENTS = {
    "norm": [_P] * 3 + [_I] * 2 + [_D, _T],
    "norm_backward": [_P] * 3 + [_I] * 2 + [_T],
    "gated_norm": [_P] * 2 + [_I] + [_P] * 2 + [_I] * 3 + [_D, _T],
    "gated_norm_backward": [_P] * 6 + [_I] * 4 + [_T],
    "gate": [_P] * 3 + [_I] * 2 + [_T],
    "gate_backward": [_P] * 5 + [_I] * 2 + [_T],
    "conv": [_P, _I] + [_P] * 3 + [_I] * 4 + [_T],
    "conv_backward": [_P] * 3 + [_I] + [_P] * 4 + [_I] * 4 + [_T],
    "weight_gradient": [_P] * 3 + [_I] * 3 + [_T],
    "kept_states": [_I] * 6,
    "scan": [_P] * 6 + [_I] * 6 + [_T],
    "scan_backward": [_P] * 10 + [_I] * 6 + [_T],
}
SUFFIX = {torch.float32: "32", torch.float64: "64"}
_lock = threading.Lock()


class NoNativeWay(RuntimeError):
    """Why the compiled functions cannot be had in this process."""


def why_not(device: torch.device, dtype: torch.dtype = torch.float32) -> str | None:
    """None where the compiled functions serve `device` and `dtype`, otherwise why they do not."""
    if device.type != "cpu":
        return f"the native way is for the CPU, not for {device.type}"
    if dtype != torch.float32:
        return f"the native way is measured in float32, not in {str(dtype).removeprefix('torch.')}"
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0 switches the native way off"
    return _loaded()[1]


def functions(dtype: torch.dtype) -> SimpleNamespace:
    """The compiled functions of `dtype`, float32 or float64, by the names of `ARGUMENTS`. Raises NoNativeWay."""
    loaded, reason = _loaded()
    if reason is not None:
        raise NoNativeWay(reason)
    return loaded[dtype]


def _loaded() -> tuple[dict[torch.dtype, SimpleNamespace], str | None]:
    with _lock:  # one thread compiles, the others wait for it
        return _load()


@cache
def _load() -> tuple[dict[torch.dtype, SimpleNamespace], str | None]:
    try:
        loaded = ctypes.CDLL(str(compiled(cache_folder())))
    except (RuntimeError, OSError) as error:  # no compiler, no folder to write to, a file that does not load
        logger.warning("native: %s; torch's own operations run instead, which is slower", error)
        return {}, str(error)
    return {dtype: _typed(loaded, suffix) for dtype, suffix in SUFFIX.items()}, None


def _typed(loaded: ctypes.CDLL, suffix: str) -> SimpleNamespace:
    run = SimpleNamespace()
    for name, arguments in ARGUMENTS.items():
        function = getattr(loaded, name + suffix)
        function.argtypes = arguments
        function.restype = _I if name == "kept_states" else None
        setattr(run, name, function)
    return run


def cache_folder() -> Path:
    """`hybrid-nas` in $XDG_CACHE_HOME, or in ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hybrid-nas"


def compiler() -> list[str]:
    """$CXX, or the first of c++, g++ and clang++ on the path. Raises NoNativeWay."""
    if os.name != "posix":
        raise NoNativeWay("the native way is for Linux and macOS")
    asked = shlex.split(os.environ.get("CXX", ""))
    if asked:
        if shutil.which(asked[0]) is None:
            raise NoNativeWay(f"CXX names {asked[0]!r}, which is not on the path")
        return asked
    for name in ("c++", "g++", "clang++"):
        if found := shutil.which(name):
            return [found]
    raise NoNativeWay(
        "no C++ compiler: looked for $CXX, c++, g++ and clang++; installing one (g++) makes proxies faster"
    )


def compiled(folder: Path) -> Path:
    """The library in `folder`, compiled now unless it is there. Processes take turns. Raises NoNativeWay, OSError."""
    command = [*compiler(), *FLAGS]
    about = _run([*command[:-1], "-dM", "-E", "-x", "c++", os.devnull])  # its version and the CPU's instructions
    digest = hashlib.sha256("\0".join([*command, about, *((SOURCE / f).read_text() for f in FILES)]).encode())
    target = folder / f"native-{digest.hexdigest()[:16]}.so"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    import fcntl

    with (folder / "native.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go by the system when the process ends, however it ends
        if target.exists():
            return target
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            built = Path(scratch) / target.name
            _run([*command, str(SOURCE / FILES[-1]), "-o", str(built)])
            built.replace(target)
        logger.info("native: compiled by %s in %.1f s: %s", command[0], time.perf_counter() - begin, target)
    return target


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoNativeWay(f"the compiler did not run: {error}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise NoNativeWay(f"{shlex.join(command)} failed: {said[0] if said else f'exit code {done.returncode}'}")
    return done.stdout


def address(tensor: Tensor) -> int:
    """Where its elements begin. The tensor must outlive the call that it is given to."""
    return tensor.data_ptr()


def weight_gradient(dy: Tensor, x: Tensor) -> Tensor:
    """dy (rows, n) transposed times x (rows, k): (n, k). Raises NoNativeWay."""
    dy, x = dy.contiguous(), x.contiguous()
    out = x.new_empty(dy.shape[1], x.shape[1])
    shape = (len(x), *out.shape)
    functions(x.dtype).weight_gradient(address(dy), address(x), address(out), *shape, torch.get_num_threads())
    return out
