from __future__ import annotations

from pathlib import Path

import pytest

from hybrid_nas.whole_file import write_whole


def test_a_text_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "front.json"
    write_whole(path, "first é")
    assert path.read_bytes() == "first é".encode()
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "no text: \ud800")
    assert path.read_text(encoding="utf-8") == "first é"
    write_whole(path, "second")
    assert path.read_text() == "second"
