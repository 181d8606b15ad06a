"""A model package for TorchTitan: there and back, and built by TorchTitan itself where it is installed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_models import ATTENTION, CONTEXT, FFN, MAMBA, RELU, TOKENS, WINDOW, model_of

from hybrid_nas.architecture import Architecture, Block, ParallelHybrid
from hybrid_nas.cost import cost
from hybrid_nas.export.formats import read_config, read_file
from hybrid_nas.export.torchtitan import TORCHTITAN
from hybrid_nas.moe import MoE
from hybrid_nas.recurrent import GatedDeltaNet

DELTA = GatedDeltaNet(heads=3, key_dim=16, value_dim=24)
DESIGN = Architecture(
    48,
    131,
    (
        Block(MAMBA, FFN),
        Block(WINDOW, RELU),
        Block(DELTA, MoE(24, 4, 2)),
        Block(ParallelHybrid(ATTENTION, MAMBA, scale="vector"), None),
        Block(None, FFN),
    ),
)


def written(folder: Path) -> Path:
    for name, text in TORCHTITAN.write(DESIGN, CONTEXT).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_round_trip_and_files_that_stand_alone(tmp_path: Path) -> None:
    folder = written(tmp_path) / "hybrid_titan"
    found, imported = read_file(folder / "architecture.json")
    assert (found.name, imported.architecture, imported.context) == ("torchtitan", DESIGN, CONTEXT)
    described = json.loads((folder / "architecture.json").read_text())
    assert described["train_flops_per_token"] == cost(DESIGN, CONTEXT).train_flops_per_token
    for path in folder.glob("*.py"):
        source = path.read_text()
        compile(source, path.name, "exec")
        assert "hybrid_nas" not in source
    with pytest.raises(ValueError, match="context is missing"):
        read_config({name: value for name, value in described.items() if name != "context"})


BUILT = """
import json, sys, torch
from torchtitan.protocols.model_spec import ModelSpec
import hybrid_titan

spec = hybrid_titan.model_registry()
assert isinstance(spec, ModelSpec)
with torch.device("meta"):
    model = spec.model.build()
model.to_empty(device="cpu")
model.init_states()
model.verify_module_protocol()
drawn = all(bool(p.isfinite().all()) for p in model.parameters())
params, flops = spec.model.get_nparams_and_flops(model, 512)
state = torch.load(sys.argv[1], weights_only=True)
model.load_state_dict(state["weights"])
with torch.no_grad():
    torch.save(model.eval()(state["tokens"]), sys.argv[2])
print(json.dumps({"params": params, "flops": flops, "drawn": drawn}))
"""
RECIPE = """
from torchtitan.config.manager import ConfigManager

config = ConfigManager().parse_args(["--module", "hybrid_titan", "--config", "hybrid"])
print(config.model_spec.name, config.training.seq_len)
"""


def run(folder: Path, code: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def missing(*names: str) -> bool:
    return any(importlib.util.find_spec(name) is None for name in names)


@pytest.mark.skipif(missing("torchtitan", "spmd_types"), reason="TorchTitan is not here")
def test_torchtitan_builds_it_with_our_logits(tmp_path: Path) -> None:
    ours = model_of(DESIGN)
    names = {"embedding": "tok_embeddings.weight", "norm.weight": "norm.weight"}
    weights = {
        names.get(name, name.replace("blocks.", "layers.", 1)): value for name, value in ours.state_dict().items()
    }
    weights["lm_head.weight"] = weights["tok_embeddings.weight"]
    torch.save({"weights": weights, "tokens": TOKENS}, tmp_path / "in.pt")
    said = json.loads(run(written(tmp_path), BUILT, str(tmp_path / "in.pt"), str(tmp_path / "out.pt")))
    price = cost(DESIGN, CONTEXT)
    assert said == {"params": price.params, "flops": round(price.train_flops_per_token), "drawn": True}
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "out.pt"), ours(TOKENS), rtol=0, atol=1e-4)


@pytest.mark.skipif(
    missing("torchtitan", "spmd_types", "datasets", "tensorboard"),
    reason="TorchTitan is not here with its data and metrics",
)
def test_torchtitan_takes_the_recipe(tmp_path: Path) -> None:
    assert run(written(tmp_path), RECIPE) == f"hybrid_titan {CONTEXT}"
