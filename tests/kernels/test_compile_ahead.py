"""Triton kernels compiled several at a time, ahead of their first launch. In a process of its own, since others define
the kernels for Triton's interpreter; with ptxas and without a GPU, whose driver a stand-in takes the place of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton.knobs", reason="Triton 3.4 or newer is not installed")

PROGRAM = """
import json, threading
import h100_stand_in, torch, triton
from h100_stand_in import launched
from hybrid_nas_kernels import adamw, compile_ahead, norm_linear, swiglu
from hybrid_nas_kernels.norm_linear import triton_kernels
from hybrid_nas_kernels.swiglu import triton_kernels as swiglu_kernels

compiled = []
h100_stand_in.set_active()

def listen(*, src, cache_hit, **rest):
    compiled.append([src.name, threading.current_thread().name])

triton.knobs.compilation.listener = listen

x = torch.randn(4, 64, dtype=torch.bfloat16, requires_grad=True)
weight = torch.ones(64, requires_grad=True)

def step():
    y = triton_kernels.rms_norm(x, weight, 1e-5)
    y = swiglu_kernels.silu_mul(y, y)
    torch.autograd.grad(y.sum(), (x, weight))

with compile_ahead.compiled_ahead(torch.device("cpu")):
    step()
ahead, launched[:] = list(compiled), []
step()
print(json.dumps({"ahead": ahead, "launched": launched, "after": compiled[len(ahead):]}))
"""


def test_a_dry_step_compiles_all_kernels_forward_and_backward(compiling: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=compiling, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    kernels = {"_normalise", "_silu_mul", "_silu_mul_backward", "_normalise_backward", "_sum_rows"}
    assert {name for name, _ in found["ahead"]} == kernels
    assert len(found["ahead"]) == len(kernels)  # each once
    assert all(thread.startswith("compile") for _, thread in found["ahead"])
    assert set(found["launched"]) == kernels  # by the step behind it, which
    assert found["after"] == []  # compiles nothing


def test_an_error_of_a_compilation_is_raised(tmp_path: Path, compiling: dict[str, str]) -> None:
    broken = PROGRAM.split("x = torch.randn")[0] + ("@triton.jit\ndef kernel(x_ptr):\n    undefined_name(x_ptr)\n")
    script = tmp_path / "broken.py"
    script.write_text(
        broken
        + "try:\n"
        + "    with compile_ahead.compiled_ahead(torch.device('cpu')):\n"
        + "        kernel[(1,)](torch.zeros(4))\n"
        + "except triton.CompilationError as error:\n"
        + "    print('raised', triton.knobs.runtime.jit_cache_hook)\n"
    )
    done = subprocess.run([sys.executable, script], env=compiling, capture_output=True, text=True, check=False)
    assert done.stdout == "raised None\n", done.stdout + done.stderr
