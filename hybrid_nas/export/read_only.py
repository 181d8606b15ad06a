"""Formats that are read and cannot hold a design of this project, each with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hybrid_nas.architecture import Architecture
from hybrid_nas.export import hymba, jamba, zamba2
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
        "jamba",
        "transformers JambaForCausalLM",
        "jamba",
        jamba.read,
        "its Mamba-1 has norms on dt, B and C, and its experts no shared one: no layer of a design is a layer of it",
    ),
    _read_only(
        "zamba2",
        "transformers Zamba2ForCausalLM",
        "zamba2",
        zamba2.read,
        "its attention is a block shared between places that reads the embedding beside the hidden state, and its "
        "Mamba-2 layers have no FFN",
    ),
    _read_only(
        "hymba",
        "Hymba",
        "hymba",
        hymba.read,
        "its recurrent half is Mamba-1, with meta tokens and keys shared between layers",
    ),
)
