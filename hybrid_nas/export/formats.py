"""Every format by its name on the command line, and which one a configuration is in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hybrid_nas.export.bamba import BAMBA
from hybrid_nas.export.custom import HYBRID
from hybrid_nas.export.falcon_h1 import FALCON_H1
from hybrid_nas.export.fla import FLA
from hybrid_nas.export.format import CannotRead, Format, Imported
from hybrid_nas.export.granite import GRANITE
from hybrid_nas.export.jamba import JAMBA
from hybrid_nas.export.megatron import MEGATRON
from hybrid_nas.export.nemotron_h import NEMOTRON_H
from hybrid_nas.export.qwen3_next import QWEN3_NEXT
from hybrid_nas.export.read_only import READ_ONLY
from hybrid_nas.export.torchtitan import TORCHTITAN
from hybrid_nas.export.zamba2 import ZAMBA2

WRITTEN = (HYBRID, GRANITE, BAMBA, FALCON_H1, NEMOTRON_H, QWEN3_NEXT, JAMBA, ZAMBA2, MEGATRON, FLA, TORCHTITAN)
FORMATS: dict[str, Format] = {format.name: format for format in (*WRITTEN, *READ_ONLY)}


def read_config(config: Any) -> tuple[Format, Imported]:
    """The design that a parsed configuration describes, and the format that it is in. CannotRead says why not."""
    for format in FORMATS.values():
        if format.recognise(config):
            return format, format.read(config)
    kind = config.get("model_type") if isinstance(config, dict) else None
    raise CannotRead(f"model_type: no format is known for {kind!r}; known: {', '.join(FORMATS)}")


def read_file(path: Path) -> tuple[Format, Imported]:
    """As `read_config`, from a file: JSON, or else text."""
    text = path.read_text()
    try:
        config = json.loads(text)
    except json.JSONDecodeError:
        config = text
    return read_config(config)
