"""The installed command, and the smallest study to run it on."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

COMMAND = str(Path(sysconfig.get_path("scripts")) / "hybrid-nas")
TINY = """\
name: tiny
ratio: [1:0, 1:1, 1:3, 0:1]
placement: [front, end, [0.5]]
d_state: [8, 16]
proxy:
  width: 16
  head_dim: 8
  ssm_head_dim: 16
  params: 26k
  context: 32
  tokens: 1024
  batch: 2
  validation_tokens: 256
  replicates: 1
search:
  trials: 5
"""


def environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
