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
    if isinstance(config, str):
        raise CannotRead("neither JSON nor an argument file of Megatron-LM with a --hybrid-layer-pattern")
    if not isinstance(config, dict):
        raise CannotRead(f'a configuration is a JSON object, like {{"model_type": ...}}, found {_kind(config)}')
    kind = config.get("model_type")
    if kind is None:
        raise CannotRead("model_type is missing, so no format is known")
    raise CannotRead(f"model_type: no format is known for {kind!r}; known: {', '.join(FORMATS)}")


def _kind(value: Any) -> str:
    return {list: "a list", bool: "true or false", type(None): "null"}.get(type(value), "a number or text")


def read_file(path: Path) -> tuple[Format, Imported]:
    """As `read_config`, from a file: JSON, or else text."""
    if not path.exists():
        raise CannotRead("no such file")
    if path.is_dir():
        inside = path / "config.json"
        raise CannotRead(f"a folder; the file in it is meant{f', {inside}' if inside.is_file() else ''}")
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        raise CannotRead("not a text file") from None
    if not text.strip():
        raise CannotRead("the file is empty")
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        if text.lstrip()[0] in "{[":
            raise CannotRead(f"broken JSON in line {error.lineno}, column {error.colno}: {error.msg}") from None
        config = text
    return read_config(config)
