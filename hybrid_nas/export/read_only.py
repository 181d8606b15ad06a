"""Formats that are read and cannot hold a design of this project, each with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hybrid_nas.architecture import Architecture
from hybrid_nas.export import hymba
from hybrid_nas.export.format import Files, Format, Imported, Rule


def _read_only(name: str, title: str, model_type: str, read: Callable[[Any], Imported], why: str) -> Format:
    def write(architecture: Architecture, context: int) -> Files:
        raise AssertionError("its rule is broken by every architecture")

    return Format(
        name=name,
        title=title,
        rules=(Rule(lambda architecture: why),),
        write=write,
        recognise=lambda config: isinstance(config, dict) and config.get("model_type") == model_type,
        read=read,
    )


READ_ONLY = (
    _read_only(
        "hymba",
        "Hymba",
        "hymba",
        hymba.read,
        "its recurrent half is Mamba-1, with meta tokens and keys shared between layers",
    ),
)
