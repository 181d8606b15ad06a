"""Designs in transformers' own classes: they load, count as `cost` does, and give our logits; and each trap, sprung."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_models import (
    ATTENTION,
    BLIND,
    CONTEXT,
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

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, ParallelHybrid, SwiGLU
from hybrid_nas.cost import cost
from hybrid_nas.export.format import CannotHold, CannotRead
from hybrid_nas.export.formats import FORMATS, read_config
from hybrid_nas.model import build
from hybrid_nas.moe import MoE
from hybrid_nas.recurrent import GatedDeltaNet, Mamba1

transformers = pytest.importorskip("transformers")
TOLERANCE = 1e-4
H = ParallelHybrid(ATTENTION, replace(MAMBA, d_ssm=64), norm="none", fusion="add")
EVEN = replace(H, attention=replace(ATTENTION, heads=8, kv_heads=2), output="joint")
DELTA = GatedDeltaNet(heads=3, key_dim=16, value_dim=24)
SELECTIVE = Mamba1(d_ssm=96, d_state=8, dt_rank=5, norms=True)
HELD = {
    "granite-rope": ("granite", stack(MAMBA, ATTENTION, MAMBA, ATTENTION)),
    "granite-none": ("granite", stack(MAMBA, BLIND, MAMBA)),
    "granite-attention": ("granite", stack(ATTENTION, ATTENTION)),
    "granite-mamba": ("granite", stack(MAMBA, MAMBA)),
    "bamba": ("bamba", stack(MAMBA, ATTENTION, MAMBA, ATTENTION)),
    "bamba-mamba": ("bamba", stack(MAMBA, MAMBA)),
    "falcon-h1": ("falcon-h1", stack(H, H)),
    "falcon-h1-difference": ("falcon-h1", stack(replace(H, fusion="difference", scale="diff"))),
    "falcon-h1-vector": ("falcon-h1", stack(replace(H, scale="vector"))),
    "falcon-h1-concat": ("falcon-h1", stack(replace(H, fusion="concat", output="joint", scale="vector"))),
    "falcon-h1-joint": ("falcon-h1", stack(replace(EVEN, fusion="difference"))),
    "qwen3-next": ("qwen3-next", stack(DELTA, DELTA)),
    "jamba": ("jamba", stack(SELECTIVE, SELECTIVE, BLIND, SELECTIVE, SELECTIVE, BLIND)),
    "jamba-attention": ("jamba", stack(BLIND, BLIND)),
    "jamba-mamba": ("jamba", stack(SELECTIVE, SELECTIVE, SELECTIVE)),
    "zamba2": ("zamba2", Architecture(48, 131, (Block(MAMBA, None),) * 3)),
    "nemotron-h": ("nemotron-h", stack(MAMBA, BLIND, MAMBA, ffn=RELU)),
    "nemotron-h-apart": ("nemotron-h", Architecture(48, 131, (Block(MAMBA, None), Block(BLIND, RELU)))),
}


@pytest.fixture(autouse=True, scope="module")
def _torch_alone() -> None:
    """transformers takes flash-linear-attention's kernels where that can be imported, and they run on no CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "fla", None)
        importlib.import_module("transformers.models.qwen3_next.modeling_qwen3_next")


@pytest.fixture(autouse=True)
def _quiet() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def canonical(architecture: Architecture) -> Architecture:
    """What a class without fusions has of them: halves with a projection each, summed."""
    plain = {"scale": "none", "fusion": "add", "output": "separate"}
    return replace(
        architecture,
        blocks=tuple(
            replace(b, mixer=replace(b.mixer, **plain)) if isinstance(b.mixer, ParallelHybrid) else b
            for b in architecture.blocks
        ),
    )


@pytest.mark.parametrize("case", HELD)
def test_a_design_in_a_class_of_transformers(case: str, tmp_path: Path) -> None:
    name, architecture = HELD[case]
    format, ours = FORMATS[name], model_of(HELD[case][1])
    theirs, report = load(written(format, ours, tmp_path / "export"))
    assert report == {}
    extra = format.extra_params(architecture)
    assert sum(p.numel() for p in theirs.parameters()) == cost(architecture, 1).params + sum(extra.values())
    assert difference(ours, theirs) < TOLERANCE
    theirs.save_pretrained(tmp_path / "saved")  # with the class's own spelling of the configuration
    again, report = load(tmp_path / "saved")
    assert report == {}
    assert difference(ours, again) < TOLERANCE
    for folder in ("export", "saved"):
        found, imported = read_config(json.loads((tmp_path / folder / "config.json").read_text()))
        assert (found.name, imported.architecture, imported.context) == (name, canonical(architecture), CONTEXT)
        assert len(imported.notes) == (name == "nemotron-h")  # whose classifier is its own


@pytest.mark.parametrize("case", ["granite-rope", "bamba", "falcon-h1", "nemotron-h", "jamba"])
def test_greedy_generation_is_our_decoding(case: str, tmp_path: Path) -> None:
    name, architecture = HELD[case]
    ours = model_of(architecture)
    theirs, _ = load(written(FORMATS[name], ours, tmp_path))
    prompt = TOKENS[:1, :9]
    generated = theirs.generate(prompt, max_new_tokens=12, do_sample=False)[0, 9:]
    cache = ours.cache(1, 64)
    for token in prompt[0]:
        logits = ours.step(token[None], cache)
    chosen = []
    for _ in range(12):
        chosen.append(logits.argmax(-1))
        logits = ours.step(chosen[-1], cache)
    assert generated.tolist() == torch.cat(chosen).tolist()


TRAPS = [
    ("granite-rope", {"attention_multiplier": None}, "the softmax scale is 1 by default"),
    ("granite-rope", {"position_embedding_type": None}, "no RoPE by default"),
    ("granite-rope", {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}, "base"),
    ("granite-rope", {"mamba_n_groups": 1, "mamba_d_state": 48}, "in_proj of equal size, other groups"),
    ("granite-rope", {"logits_scaling": 2.0}, "logits are divided by it"),
    ("bamba", {"rope_parameters": None}, "half of each head is turned, whatever partial_rotary_factor says"),
    ("falcon-h1", {"ssm_out_multiplier": 0.5}, "one half is scaled"),
    ("falcon-h1", {"rope_parameters": None, "rope_theta": 100.0}, "the base at the top level is read too"),
    ("qwen3-next", {"rms_norm_eps": 0.1}, "the norms' epsilon is read"),
    ("nemotron-h", {"time_step_min": None}, "the time step has a floor of 0.001"),
]


@pytest.mark.parametrize(("case", "changes", "why"), TRAPS, ids=[why for *_, why in TRAPS])
def test_a_silent_trap_is_real(case: str, changes: dict, why: str, tmp_path: Path) -> None:
    """Without the field that an export writes, the class loads without a word and computes something else."""
    name, architecture = HELD[case]
    ours = model_of(architecture)
    if name == "nemotron-h":  # time steps below the floor
        for block in ours.blocks:
            if isinstance(block.mixer.mixer, Mamba2):
                block.mixer.dt_bias.data.sub_(9)
    whole, _ = load(written(FORMATS[name], ours, tmp_path / "whole"))
    assert difference(ours, whole) < TOLERANCE
    trapped, report = load(written(FORMATS[name], ours, tmp_path / "trapped", **changes))
    assert report == {}
    assert difference(ours, trapped) > 10 * TOLERANCE


def test_traps_that_show_in_the_parameters(tmp_path: Path) -> None:
    ours = model_of(HELD["granite-rope"][1])
    params = cost(ours.architecture, 1).params
    experts, report = load(written(FORMATS["granite"], ours, tmp_path / "experts", num_local_experts=None))
    assert sum(p.numel() for p in experts.parameters()) > params
    assert any("block_sparse_moe" in name for name in report["missing_keys"])
    _, report = load(written(FORMATS["granite"], ours, tmp_path / "untied", tie_word_embeddings=None))
    assert report["missing_keys"] == {"lm_head.weight"}
    delta = model_of(HELD["qwen3-next"][1])
    experts, report = load(written(FORMATS["qwen3-next"], delta, tmp_path / "q", num_experts=4))
    assert any("mlp.gate" in name or "experts" in name for name in report["missing_keys"])
    _, report = load(written(FORMATS["falcon-h1"], model_of(HELD["falcon-h1"][1]), tmp_path / "n", mamba_rms_norm=True))
    assert {name.split(".", 3)[3] for name in report["missing_keys"]} == {"mamba.norm.weight"}
    with pytest.raises(Exception, match=r"do not match the model intermediate_size|must divide"):  # 1,024 by default
        load(written(FORMATS["falcon-h1"], model_of(HELD["falcon-h1"][1]), tmp_path / "d", mamba_d_ssm=None))
    tied, report = load(
        written(FORMATS["nemotron-h"], model_of(HELD["nemotron-h"][1]), tmp_path, tie_word_embeddings=True)
    )
    assert tied.lm_head.weight is not tied.model.embeddings.weight  # the class does not tie, so the file holds both


def test_the_norms_epsilon_is_written(tmp_path: Path) -> None:
    """Its effect grows as activations shrink: with an embedding of 1e-3 the wrong one is seen."""
    ours = model_of(HELD["granite-rope"][1])
    ours.embedding.data.mul_(1e-2)
    right, _ = load(written(FORMATS["granite"], ours, tmp_path / "right"))
    wrong, _ = load(written(FORMATS["granite"], ours, tmp_path / "wrong", rms_norm_eps=None))
    scale = float(ours(TOKENS).detach().abs().max())
    assert difference(ours, right) < TOLERANCE * scale
    assert difference(ours, wrong) > 10 * TOLERANCE * scale


def test_a_class_s_own_first_time_steps_are_not_a_training_s(tmp_path: Path) -> None:
    """Granite draws a time step of softplus(1) = 1.31 in every head; the weights that an export writes have those of
    Mamba-2, from 0.001 to 0.1."""
    from transformers import AutoConfig, AutoModelForCausalLM

    ours = build(HELD["granite-mamba"][1], generator=0)
    folder = written(FORMATS["granite"], ours, tmp_path)
    own = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).model.layers[0].mamba.dt_bias
    exported = load(folder)[0].model.layers[0].mamba.dt_bias
    softplus = torch.nn.functional.softplus
    torch.testing.assert_close(softplus(own), torch.full_like(own, 1.3133), rtol=1e-3, atol=0)
    assert softplus(exported).min() > 0.0009
    assert softplus(exported).max() < 0.11


def test_no_row_of_the_embedding_is_frozen(tmp_path: Path) -> None:
    ours = model_of(HELD["bamba"][1])
    zero = torch.zeros(1, 5, dtype=torch.int64)
    for changes, moves in (({}, True), ({"pad_token_id": 0}, False)):
        theirs, _ = load(written(FORMATS["bamba"], ours, tmp_path / str(moves), **changes))
        theirs.model(zero).last_hidden_state.sum().backward()
        assert bool(theirs.model.embed_tokens.weight.grad[0].abs().max() > 0) is moves


def test_what_a_reader_of_another_age_needs() -> None:
    """Old layer names, RoPE's base at the top level as well, no time_step_limit (an infinity is no JSON)."""
    for name in ("granite", "bamba"):
        config = json.loads(
            FORMATS[name].write(HELD[f"{name}-rope" if name == "granite" else name][1], 64)["config.json"]
        )
        assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10_000.0
        assert "time_step_limit" not in config
        assert "head_dim" not in config  # engines take width / heads, and here that is right
    granite = json.loads(FORMATS["granite"].write(HELD["granite-rope"][1], 64)["config.json"])
    assert granite["layer_types"] == ["mamba", "attention", "mamba", "attention"]


def test_heads_that_do_not_fill_the_width(tmp_path: Path) -> None:
    narrow = Attention(heads=4, kv_heads=2, head_dim=8)
    ours = model_of(stack(MAMBA, narrow))
    theirs, report = load(written(FORMATS["granite"], ours, tmp_path))
    assert report == {}
    assert difference(ours, theirs) < TOLERANCE


OTHER = replace(MAMBA, d_state=32)
FULL = replace(WINDOW, window=None, sinks=0)
HALF = replace(MAMBA, d_ssm=64)
UNEVEN = Architecture(48, 131, (Block(MAMBA, FFN), Block(MAMBA, None)))
GATED = stack(MAMBA, ATTENTION, ffn=SwiGLU(80))
PLAIN = replace(SELECTIVE, norms=False)
EXPERTS = MoE(24, 4, 2)
REFUSED = [
    ("granite", stack(MAMBA, WINDOW), "its attention has no window, found 9 tokens", stack(MAMBA, FULL)),
    ("granite", stack(ATTENTION, BLIND, BLIND), "rope_theta, found 10000.0 and None", stack(BLIND, BLIND, BLIND)),
    ("granite", stack(MAMBA, OTHER, MAMBA), "share one d_state, found 24 and 32", stack(MAMBA, MAMBA, MAMBA)),
    ("granite", stack(HALF), "widths (48), found 64", stack(replace(MAMBA, d_ssm=48, head_dim=12))),
    ("granite", UNEVEN, "found none in block 1", stack(MAMBA, MAMBA)),
    ("granite", stack(MAMBA, MAMBA, ffn=RELU), "a SwiGLU follows each of its mixers, found squared_relu", None),
    ("bamba", stack(MAMBA, BLIND), "always has RoPE, found 1 layers without", stack(MAMBA, ATTENTION)),
    ("falcon-h1", stack(replace(H, norm="group")), "no norm of their own (norm group)", stack(H)),
    ("falcon-h1", stack(replace(H, scale="gate")), "without a gate", stack(H)),
    ("falcon-h1", stack(replace(H, attention=BLIND)), "always has RoPE", stack(H)),
    ("falcon-h1", stack(replace(H, attention=WINDOW)), "has no window", stack(H)),
    ("falcon-h1", stack(H, MAMBA), "its layers are parallel_hybrid, found M (1 layers)", stack(H, H)),
    (
        "falcon-h1",
        stack(replace(EVEN, value="joint")),
        "values are the attention's own",
        stack(replace(EVEN, output="separate")),
    ),
    (
        "falcon-h1",
        stack(MAMBA),
        "found M",
        stack(ParallelHybrid(Attention(1, 1, 48), MAMBA, norm="none", fusion="add", output="separate")),
    ),
    ("granite", stack(H, MAMBA, MAMBA), "Mamba-2, found H (1 layers)", stack(MAMBA, MAMBA, MAMBA)),
    ("qwen3-next", stack(DELTA, ATTENTION), "only a stack of Gated DeltaNet", stack(DELTA, DELTA)),
    ("qwen3-next", stack(MAMBA), "found M", None),
    (
        "jamba",
        stack(PLAIN, PLAIN, ATTENTION, PLAIN, ATTENTION),
        "3 layers without; its attention stands at a period (attn_layer_period, attn_layer_offset), found layers 2, 4",
        stack(BLIND, SELECTIVE, BLIND, SELECTIVE, BLIND),
    ),
    (
        "jamba",
        stack(MAMBA, MAMBA),
        "its layers are attention and Mamba-1, found M (2 layers)",
        stack(*[Mamba1(d_ssm=96, d_state=24, dt_rank=3, norms=True)] * 2),
    ),
    ("jamba", stack(SELECTIVE, ffn=EXPERTS), "no shared one beside them", stack(SELECTIVE, ffn=SwiGLU(72))),
    ("granite", stack(MAMBA, ffn=EXPERTS), "by a softmax over their scores", stack(MAMBA, ffn=SwiGLU(72))),
    ("zamba2", stack(MAMBA, ATTENTION), "outside its shared blocks it has Mamba-2 alone, found A", None),
    ("zamba2", stack(MAMBA), "no FFN, found 1 with one", Architecture(48, 131, (Block(MAMBA, None),))),
    ("nemotron-h", GATED, "without a gate; found SwiGLU", stack(MAMBA, BLIND, ffn=replace(RELU, hidden=120))),
]


@pytest.mark.parametrize(("name", "design", "reason", "nearest"), REFUSED, ids=[f"{n}: {r}" for n, _, r, _ in REFUSED])
def test_what_cannot_be_held_is_refused_with_the_nearest(
    name: str, design: Architecture, reason: str, nearest: Architecture | None
) -> None:
    with pytest.raises(CannotHold) as refusal:
        FORMATS[name].check(design)
    assert reason in str(refusal.value)
    assert refusal.value.nearest == nearest
    if nearest is not None:
        FORMATS[name].check(nearest)
        assert nearest.layout in str(refusal.value)


def test_what_cannot_be_read_names_the_field() -> None:
    with pytest.raises(CannotRead, match="layer_types: layer 1 is 'conv'"):
        read_config({"model_type": "granitemoehybrid", "num_local_experts": 0, "layer_types": ["mamba", "conv"]})
    with pytest.raises(CannotRead, match="no format is known for 'gpt2'"):
        read_config({"model_type": "gpt2"})
    with pytest.raises(CannotRead, match="hidden_size: a positive whole number must stand here, found 'wide'"):
        read_config({"model_type": "bamba", "hidden_size": "wide"})
