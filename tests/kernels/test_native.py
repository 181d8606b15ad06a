"""Compiling at first use: once, whoever else compiles at the time, and a reason where it cannot be done."""

import os
import stat
import threading

import pytest
import torch
from hybrid_nas_kernels import native
from hybrid_nas_kernels.mamba2 import choose as choose_mamba2
from hybrid_nas_kernels.native import NoNativeWay, compiled, compiler, why_not
from hybrid_nas_kernels.swiglu import choose as choose_swiglu

CPU = torch.device("cpu")


def a_compiler(path, body):
    """A program in place of a compiler: it notes each call in calls.txt and then does `body`."""
    path.write_text(f'#!/bin/sh\necho "$@" >> "{path.parent}/calls.txt"\n{body}\n')
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return str(path)


WRITES = 'case "$*" in *-dM*) echo macros;; *) sleep 0.3; for last; do :; done; echo built > "$last";; esac'


def test_this_machine_compiles_or_says_why_not():
    reason = why_not(CPU)
    assert choose_mamba2(CPU)[0] == ("native" if reason is None else "separate")
    if reason is None:
        assert native.cache_folder().joinpath(compiled(native.cache_folder()).name).exists()


def test_many_at_once_compile_once(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", a_compiler(tmp_path / "fake", WRITES))
    found = []
    threads = [threading.Thread(target=lambda: found.append(compiled(tmp_path / "cache"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert found[0].read_text() == "built\n"
    calls = (tmp_path / "calls.txt").read_text().splitlines()
    assert sum("-dM" not in call for call in calls) == 1
    assert sorted(os.listdir(tmp_path / "cache")) == sorted(["native.lock", found[0].name])


def test_another_compiler_or_cpu_has_a_file_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", a_compiler(tmp_path / "fake", WRITES))
    first = compiled(tmp_path / "cache")
    a_compiler(tmp_path / "fake", WRITES.replace("macros", "other macros"))
    assert compiled(tmp_path / "cache") != first


def test_a_compiler_that_fails_leaves_nothing_and_is_quoted(tmp_path, monkeypatch):
    body = 'case "$*" in *-dM*) ;; *) echo "scan.hpp:1: error: no such thing" >&2; exit 1;; esac'
    monkeypatch.setenv("CXX", a_compiler(tmp_path / "fake", body))
    with pytest.raises(NoNativeWay, match=r"fake -O3 .* failed: scan.hpp:1: error: no such thing"):
        compiled(tmp_path / "cache")
    assert os.listdir(tmp_path / "cache") == ["native.lock"]


def test_no_compiler_is_a_reason(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NoNativeWay, match=r"no C\+\+ compiler: looked for \$CXX, c\+\+, g\+\+ and clang\+\+"):
        compiler()
    monkeypatch.setenv("CXX", "g++-99 -m64")
    with pytest.raises(NoNativeWay, match=r"CXX names 'g\+\+-99', which is not on the path"):
        compiler()


@pytest.fixture
def _load_again(monkeypatch):
    native._load.cache_clear()
    yield
    native._load.cache_clear()


@pytest.mark.usefixtures("_load_again")
def test_without_a_compiler_torchs_operations_run_and_the_reason_is_kept(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CXX", str(tmp_path / "absent"))
    name, reason = choose_mamba2(CPU)
    assert name == "separate"
    assert "which is not on the path" in reason
    assert choose_swiglu(CPU)[0] == "folded"
    assert [record.levelname for record in caplog.records] == ["WARNING"]  # once, not at each call


def test_the_switch(monkeypatch):
    monkeypatch.setenv("HYBRID_NAS_NATIVE", "0")
    assert choose_mamba2(CPU) == ("separate", "HYBRID_NAS_NATIVE=0 switches the native way off")
