import logging
import sys

import pytest
from hybrid_nas_kernels import dispatch
from hybrid_nas_kernels.dispatch import BrokenPackage, MissingPackage, package, pick

TABLE = {"slow": lambda: "slow ran", "fast": lambda: "fast ran"}


def auto():
    return "fast", "it is Monday"


@pytest.fixture(autouse=True)
def _nothing_chosen(monkeypatch):
    monkeypatch.setattr(dispatch, "CHOSEN", {})


def test_auto_records_why_and_logs_once(caplog):
    with caplog.at_level(logging.INFO, logger="hybrid_nas.kernels"):
        assert pick("op", "auto", TABLE, auto)() == "fast ran"
        assert pick("op", "auto", TABLE, auto)() == "fast ran"
    assert dispatch.CHOSEN == {"op": {"fast": "it is Monday"}}
    assert caplog.messages == ["op: fast, it is Monday"]


def test_an_implementation_asked_for_is_recorded_and_not_logged(caplog):
    with caplog.at_level(logging.INFO, logger="hybrid_nas.kernels"):
        assert pick("op", "slow", TABLE, auto)() == "slow ran"
    assert dispatch.CHOSEN == {"op": {"slow": "asked for"}}
    assert not caplog.messages


def test_an_unknown_name_meets_the_nearest_known_one():
    with pytest.raises(ValueError, match=r"op: unknown implementation 'fats'; known: auto, slow, fast; nearest: fast"):
        pick("op", "fats", TABLE, auto)
    assert dispatch.CHOSEN == {}


def test_missing_and_broken_packages_are_two_errors(tmp_path, monkeypatch):
    (tmp_path / "whole_package.py").write_text("answer = 42\n")
    (tmp_path / "broken_package.py").write_text("raise OSError('libcudart.so.99: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert package("whole_package").answer == 42
    with pytest.raises(MissingPackage, match="absent_package is not installed"):
        package("absent_package")
    with pytest.raises(BrokenPackage, match=r"broken_package is installed but cannot be imported: OSError: libcudart"):
        package("broken_package")
    sys.modules.pop("whole_package")
