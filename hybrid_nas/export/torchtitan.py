"""TorchTitan: a package of its own that `--module hybrid_titan --config hybrid` finds on the Python path.

Its blocks are those of the transformers custom model; the design is in architecture.json. Written for TorchTitan
0.3.0, whose models and recipes are Python and not TOML; it changes often, so pin it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hybrid_nas.architecture import Architecture
from hybrid_nas.cost import cost
from hybrid_nas.export.custom import CODE, MODULES, NORM_EPS, known_kinds
from hybrid_nas.export.fields import Fields
from hybrid_nas.export.format import CannotRead, Files, Format, Imported

TEMPLATE = Path(__file__).parent / "torchtitan_model"
PACKAGE = "hybrid_titan"
FILES = ("__init__.py", "model.py", "config_registry.py", "configuration_hybrid.py")


def write(architecture: Architecture, context: int) -> Files:
    described = {
        "model_type": PACKAGE,
        "dim": architecture.width,
        "vocab_size": architecture.vocab,
        "norm_eps": NORM_EPS,
        "context": context,
        "train_flops_per_token": cost(architecture, context).train_flops_per_token,
        "blocks": architecture.to_dict()["blocks"],
    }
    return {
        f"{PACKAGE}/architecture.json": json.dumps(described, indent=1) + "\n",
        **{f"{PACKAGE}/{name}": (TEMPLATE / name).read_text() for name in FILES},
        **{f"{PACKAGE}/{name}": (CODE / name).read_text() for name in MODULES},
    }


def read(config: Any) -> Imported:
    try:
        width, vocab, blocks, context = (config[name] for name in ("dim", "vocab_size", "blocks", "context"))
    except KeyError as error:
        raise CannotRead(f"{error.args[0]} is missing") from None
    fields = Fields(config, {"norm_eps": NORM_EPS})
    read_here = ("dim", "vocab_size", "blocks", "context", "train_flops_per_token")
    notes = (*fields.differs(norm_eps=NORM_EPS), *fields.unread(*read_here))
    return Imported(Architecture.from_dict({"width": width, "vocab": vocab, "blocks": blocks}), context, notes)


TORCHTITAN = Format(
    name="torchtitan",
    title="TorchTitan 0.3.0 model package",
    rules=(known_kinds(),),
    write=write,
    recognise=lambda config: isinstance(config, dict) and config.get("model_type") == PACKAGE,
    read=read,
)
