"""flash-linear-attention's configuration: there and back, its own class where it is installed, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_models import ATTENTION, BLIND, CONTEXT, MAMBA, WINDOW, model_of, stack

from hybrid_nas.architecture import Architecture
from hybrid_nas.cost import cost
from hybrid_nas.export.fla import FLA
from hybrid_nas.export.format import CannotHold, CannotRead
from hybrid_nas.export.formats import read_config
from hybrid_nas.export.weights import renamed, save
from hybrid_nas.recurrent import GatedDeltaNet

DELTA = GatedDeltaNet(heads=3, key_dim=16, value_dim=24)
NEAR = replace(WINDOW, sinks=0)
DESIGNS = {
    "attention": stack(DELTA, ATTENTION, DELTA, ATTENTION),
    "windows": stack(DELTA, ATTENTION, NEAR),
    "alone": stack(DELTA, DELTA),
}


@pytest.mark.parametrize("name", DESIGNS)
def test_round_trip(name: str) -> None:
    config = json.loads(FLA.write(DESIGNS[name], CONTEXT)["config.json"])
    found, imported = read_config(config)
    assert (found.name, imported.architecture, imported.context) == ("fla", DESIGNS[name], CONTEXT)
    assert imported.notes == ()


BUILT = """
import json, sys, torch
import fla.layers.attn
from fla.models import GatedDeltaNetConfig, GatedDeltaNetForCausalLM

fla.layers.attn.flash_attn_func = print
for config in json.loads(sys.argv[1]):
    with torch.device("meta"):
        model = GatedDeltaNetForCausalLM(GatedDeltaNetConfig(**config))
    model.tie_weights()
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    print(json.dumps([sum(p.numel() for p in model.parameters()), shapes]))
"""


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("fla", "triton")),
    reason="flash-linear-attention is not here",
)
def test_its_own_class_has_our_parameters(tmp_path: Path) -> None:
    """Built by the package's class, its names, shapes and number of parameters are ours. Its kernels need a GPU, so
    nothing is computed, and flash-attn, which its attention asks for, is pretended. In a process of its own, since
    transformers takes its kernels for other models where it is loaded."""
    configs = [json.loads(FLA.write(design, CONTEXT)["config.json"]) for design in DESIGNS.values()]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILT, json.dumps(configs)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for line, architecture in zip(done.stdout.splitlines()[-3:], DESIGNS.values(), strict=True):
        params, shapes = json.loads(line)
        assert params == cost(architecture, 1).params
        ours = renamed(FLA, architecture, model_of(architecture).state_dict())
        del shapes["lm_head.weight"]
        assert {name: list(value.shape) for name, value in ours.items()} == shapes
        assert save(FLA, model_of(architecture), tmp_path).stat().st_size > 4 * params


WIDE = replace(ATTENTION, heads=4, head_dim=12)
REFUSED: list[tuple[Architecture, str, Architecture | None]] = [
    (stack(MAMBA, ATTENTION), "among layers of Gated DeltaNet, and this design has none", None),
    (stack(DELTA, MAMBA, DELTA), "attention and Gated DeltaNet, found M (1 layers)", stack(DELTA, DELTA, DELTA)),
    (stack(DELTA, BLIND), "always has RoPE, found 1 layers without", stack(DELTA, ATTENTION)),
    (stack(DELTA, WINDOW), "its windows have no sinks", stack(DELTA, NEAR)),
    (stack(DELTA, replace(ATTENTION, heads=4)), "its head_dim is width / heads", stack(DELTA, WIDE)),
]  # fmt: skip


@pytest.mark.parametrize(("design", "reason", "nearest"), REFUSED, ids=[reason for _, reason, _ in REFUSED])
def test_what_it_cannot_hold(design: Architecture, reason: str, nearest: Architecture | None) -> None:
    with pytest.raises(CannotHold) as refusal:
        FLA.check(design)
    assert reason in str(refusal.value)
    assert refusal.value.nearest == nearest


def test_a_published_configuration_and_a_broken_one() -> None:
    """The package's own defaults, whose FFN is four thirds of four widths rounded up to 256."""
    _, imported = read_config({"model_type": "gated_deltanet", "attn": {"layers": [3, 7], "num_heads": 16}})
    assert imported.architecture.layout == "GGGAGGGA" + "G" * 13
    assert imported.architecture.blocks[0].ffn.hidden == 5632
    assert imported.architecture.blocks[0].mixer == GatedDeltaNet(6, 256, 512)
    with pytest.raises(CannotRead, match="attn: layers are 0 to 20, found 21"):
        read_config({"model_type": "gated_deltanet", "attn": {"layers": [21], "num_heads": 16}})
