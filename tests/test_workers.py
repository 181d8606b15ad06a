"""What comes from a worker's process, however its output is cut."""

from __future__ import annotations

import os
import signal

import pytest

from hybrid_nas.workers import Messages, how_ended


def test_messages_are_lines_wherever_the_output_is_cut() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as output:
        messages = Messages(output)
        found = []
        for part in (b'{"a": 1}\n{"b"', b": 2", b"}\n", b'{"c": "\xc3\xa9"}\n{"half'):
            os.write(writing, part)
            found.append(list(messages.read()))
        os.close(writing)
        assert found == [[{"a": 1}], [], [{"b": 2}], [{"c": "é"}]]
        assert list(messages.read()) == [None]  # the half line is nobody's


@pytest.mark.parametrize(
    ("status", "said"), [(signal.SIGKILL, "ended by signal SIGKILL"), (3 << 8, "ended with exit code 3")]
)
def test_how_a_process_ended_is_said(status: int, said: str) -> None:
    assert how_ended(os.waitstatus_to_exitcode(status)) == said
