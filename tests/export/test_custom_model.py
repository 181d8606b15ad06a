"""Our own model as a transformers custom model: every design, without this package, with its cache."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_models import (
    ATTENTION,
    BLIND,
    FFN,
    MAMBA,
    RELU,
    TOKENS,
    WINDOW,
    difference,
    load,
    model_of,
    stack,
    written,
)

from hybrid_nas.architecture import Architecture, Block, ParallelHybrid
from hybrid_nas.cost import cost
from hybrid_nas.export.formats import FORMATS, read_config
from hybrid_nas.moe import MoE
from hybrid_nas.recurrent import GatedDeltaNet, Mamba1, Mamba3

transformers = pytest.importorskip("transformers")
HYBRID = FORMATS["hybrid"]
TOLERANCE = 1e-4
LONG = replace(MAMBA, d_ssm=64, head_dim=8, d_state=8, groups=4, conv_kernel=3)
EVEN = replace(ATTENTION, value_dim=16)  # six heads of 16, as wide as Mamba-2
H = ParallelHybrid(replace(WINDOW, value_dim=4), MAMBA)
DESIGNS = {
    "all": Architecture(
        48,
        131,
        (
            Block(MAMBA, FFN),
            Block(WINDOW, RELU),
            Block(LONG, None),
            Block(None, FFN),
            Block(BLIND, FFN),
            Block(ATTENTION, None),
        ),
    ),
    "mamba": stack(MAMBA, LONG),
    "others": stack(Mamba1(96, 8, 5), Mamba1(96, 8, 5, norms=True), Mamba3(96, 16, 16, groups=2), ATTENTION),
    "delta": stack(GatedDeltaNet(4, 12, 24), ATTENTION, ffn=MoE(24, 4, 2)),
    "parallel-group": stack(H, MAMBA, replace(H, scale="vector", fusion="add")),
    "parallel-none": stack(
        replace(H, norm="none", scale="diff", output="joint", attention=EVEN),
        replace(H, norm="none", scale="gate", fusion="concat", output="joint"),
        replace(H, value="joint", attention=EVEN),
    ),
    "windows": stack(WINDOW, replace(WINDOW, sinks=0)),
}


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", DESIGNS)
def test_it_holds_the_design(name: str, tmp_path: Path) -> None:
    ours = model_of(DESIGNS[name])
    theirs, report = load(written(HYBRID, ours, tmp_path / "export"), trust_remote_code=True)
    assert report == {}
    assert sum(p.numel() for p in theirs.parameters()) == cost(ours.architecture, 1).params
    assert difference(ours, theirs) < TOLERANCE
    loss = theirs(TOKENS, labels=TOKENS).loss
    torch.testing.assert_close(loss, ours.loss(TOKENS[:, :-1], TOKENS[:, 1:]), rtol=1e-5, atol=0)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in theirs.parameters())
    theirs.save_pretrained(tmp_path / "saved")
    again, report = load(tmp_path / "saved", trust_remote_code=True)
    assert report == {}
    assert difference(ours, again) < TOLERANCE
    for folder in ("export", "saved"):
        found, imported = read_config(json.loads((tmp_path / folder / "config.json").read_text()))
        assert (found.name, imported.architecture, imported.notes) == ("hybrid", ours.architecture, ())


@pytest.mark.parametrize("name", DESIGNS)
def test_generation_with_its_cache_is_our_decoding(name: str, tmp_path: Path) -> None:
    ours = model_of(DESIGNS[name])
    theirs, _ = load(written(HYBRID, ours, tmp_path), trust_remote_code=True)
    prompt = TOKENS[:1, :13]
    cache = ours.cache(1, 64)
    for token in prompt[0]:
        logits = ours.step(token[None], cache)
    chosen = []
    for _ in range(24):
        chosen.append(logits.argmax(-1))
        logits = ours.step(chosen[-1], cache)
    want = torch.cat(chosen).tolist()
    assert theirs.generate(prompt, max_new_tokens=24, do_sample=False)[0, 13:].tolist() == want
    slow = theirs.generate(prompt, max_new_tokens=24, do_sample=False, use_cache=False)
    assert slow[0, 13:].tolist() == want
    left = torch.cat((torch.zeros(1, 5, dtype=torch.int64), prompt), 1)
    mask = (torch.arange(18) >= 5).long()[None]
    padded = theirs.generate(left, attention_mask=mask, max_new_tokens=24, do_sample=False, pad_token_id=0)
    assert padded[0, 18:].tolist() == want


def test_a_window_keeps_no_more_than_it_sees(tmp_path: Path) -> None:
    theirs, _ = load(written(HYBRID, model_of(DESIGNS["windows"]), tmp_path), trust_remote_code=True)
    with torch.no_grad():
        output = theirs(TOKENS, use_cache=True)
        for _ in range(3):
            output = theirs(TOKENS[:, :1], cache=output.cache)
    sizes = [layer["keys"].shape[2] for layer in output.cache.layers]
    assert sizes == [WINDOW.window - 1 + WINDOW.sinks, WINDOW.window - 1]  # the next token is one of the window
    with torch.no_grad():
        whole = theirs(torch.cat((TOKENS, TOKENS[:, :1].expand(-1, 3)), 1)).logits[:, -1]
    torch.testing.assert_close(output.logits[:, -1], whole, rtol=0, atol=1e-5)


def test_beams_reorder_the_cache(tmp_path: Path) -> None:
    theirs, _ = load(written(HYBRID, model_of(DESIGNS["all"]), tmp_path), trust_remote_code=True)
    fast, slow = (
        theirs.generate(TOKENS[:, :9], max_new_tokens=8, num_beams=3, do_sample=False, use_cache=use)
        for use in (True, False)
    )
    assert fast.tolist() == slow.tolist()


def test_hidden_states_and_gradient_checkpointing(tmp_path: Path) -> None:
    """States rebuilt from the blocks one by one; gradients with checkpoints are those without."""
    theirs, _ = load(written(HYBRID, model_of(DESIGNS["all"]), tmp_path), trust_remote_code=True)
    with torch.no_grad():
        states = theirs(TOKENS, output_hidden_states=True).hidden_states
        assert theirs(TOKENS).hidden_states is None
        x = theirs.model.embed_tokens(TOKENS)
        positions = torch.arange(TOKENS.shape[1]).expand(len(TOKENS), -1)
        for state, block in zip(states, theirs.model.blocks, strict=False):
            torch.testing.assert_close(state, x, rtol=0, atol=0)
            x = block(x, positions, None)
        torch.testing.assert_close(states[-1], theirs.model.norm(x), rtol=0, atol=0)
    assert len(states) == 1 + len(theirs.model.blocks)
    theirs.train()
    gradients, passed = [], []
    theirs.model.blocks[0].register_forward_pre_hook(lambda *_: passed.append(len(gradients)))
    for _ in range(2):
        theirs.zero_grad()
        theirs(TOKENS, labels=TOKENS).loss.backward()
        gradients.append([p.grad.clone() for p in theirs.parameters()])
        getattr(theirs, "activation_checkpointing_enable", theirs.gradient_checkpointing_enable)()
    assert passed == [0, 1, 1]  # with checkpoints the backward pass runs a block again
    for plain, kept in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, kept, rtol=1e-6, atol=1e-8)


ALONE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0].startswith("hybrid_nas"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
try:
    import hybrid_nas
    sys.exit("hybrid_nas was imported")
except ImportError:
    pass
import json, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
tokens = torch.tensor([json.loads(sys.argv[2])])
with torch.no_grad():
    torch.save(model(tokens).logits, sys.argv[3])
print(model.generate(tokens, max_new_tokens=8, do_sample=False)[0].tolist())
assert not [name for name in sys.modules if name.split(".")[0] in ("hybrid_nas", "hybrid_nas_kernels")]
"""


def test_it_loads_where_this_package_is_not(tmp_path: Path) -> None:
    ours = model_of(DESIGNS["all"])
    folder = written(HYBRID, ours, tmp_path / "export")
    command = [sys.executable, "-c", ALONE, str(folder), json.dumps(TOKENS[0].tolist()), str(tmp_path / "logits")]
    environment = {"PATH": "", "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    logits = torch.load(tmp_path / "logits", weights_only=True)
    with torch.no_grad():
        torch.testing.assert_close(logits, ours(TOKENS[:1]), rtol=0, atol=TOLERANCE)
    assert len(json.loads(done.stdout)) == 37 + 8
