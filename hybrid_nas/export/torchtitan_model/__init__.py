"""A model for TorchTitan: `--module hybrid_titan --config hybrid`. Its design is in architecture.json."""

from __future__ import annotations

import json
from pathlib import Path

from torchtitan.protocols.model_spec import ModelSpec

from .model import HybridModel, parallelize_hybrid

ARCHITECTURE = Path(__file__).parent / "architecture.json"


def model_registry(flavor: str = "hybrid") -> ModelSpec:
    described = json.loads(ARCHITECTURE.read_text())
    return ModelSpec(
        name="hybrid_titan",
        flavor=flavor,
        model=HybridModel.Config(
            dim=described["dim"],
            vocab_size=described["vocab_size"],
            norm_eps=described["norm_eps"],
            blocks=described["blocks"],
            flops_per_token=described["train_flops_per_token"],
        ),
        parallelize_fn=parallelize_hybrid,
        pipelining_fn=None,
        post_optimizer_build_fn=None,
        state_dict_adapter=None,
    )
