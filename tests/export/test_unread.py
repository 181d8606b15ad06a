"""What a configuration says and a reader does not account for is named, and what the classes say by default is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from small_models import stack

from hybrid_nas.architecture import Attention, Mamba2, ParallelHybrid, SquaredReLU
from hybrid_nas.export.formats import FORMATS, read_config
from hybrid_nas.gallery import gallery
from hybrid_nas.recurrent import GatedDeltaNet, Mamba1

MAMBA, ATTENTION = Mamba2(96, 24, 16), Attention(4, 2, 12)
BLIND = Attention(4, 2, 12, rope_theta=None)
HELD = {
    "hybrid": stack(MAMBA, ATTENTION),
    "torchtitan": stack(MAMBA, ATTENTION),
    "granite": stack(MAMBA, ATTENTION),
    "bamba": stack(MAMBA, ATTENTION),
    "falcon-h1": stack(ParallelHybrid(ATTENTION, Mamba2(48, 24, 16), norm="none", fusion="add")),
    "nemotron-h": stack(MAMBA, BLIND, ffn=SquaredReLU(64)),
    "qwen3-next": stack(GatedDeltaNet(heads=3, key_dim=16, value_dim=24)),
    "fla": stack(GatedDeltaNet(heads=3, key_dim=16, value_dim=24)),
    "jamba": stack(Mamba1(96, 8, 5, norms=True), BLIND),
}


def config_of(name: str) -> dict[str, Any]:
    files = FORMATS[name].write(HELD[name], 64)
    return json.loads(next(text for path, text in files.items() if path.endswith(".json")))


@pytest.mark.parametrize("name", HELD)
def test_an_unknown_field_is_named_in_every_format(name: str) -> None:
    config = config_of(name)
    before = read_config(config)[1]
    config |= {"logit_softcapping": 30.0, "torch_dtype": "float16", "bos_token_id": 7}
    after = read_config(config)[1]
    assert after.architecture == before.architecture == HELD[name]
    (note,) = set(after.notes) - set(before.notes)
    assert note == "logit_softcapping is 30.0, which is not read: whatever it changes is not changed here"


@pytest.mark.parametrize("spelling", ["rope_parameters", "rope_scaling"])
def test_fields_that_change_the_model_are_named(spelling: str) -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "partial_rotary_factor": 1.0, "rope_theta": 10_000.0}
    config = config_of("bamba")
    assert read_config(config)[1].notes == ()
    config |= {"hidden_act": "gelu", "time_step_limit": [0.1, 0.5], spelling: yarn}
    notes = read_config(config)[1].notes
    assert f"{spelling} is yarn {{'factor': 4.0, 'partial_rotary_factor': 1.0}}; here RoPE is plain" in notes
    assert "hidden_act is 'gelu'; here it is 'silu'" in notes
    assert "time_step_limit is [0.1, 0.5]: its time step is bounded, here it is not" in notes
    assert len(notes) == 3


@pytest.mark.parametrize("limit", [[0.0, float("inf")], [0, {"__float__": "Infinity"}], [0.0, "inf"]])
def test_no_limit_of_the_time_step_is_no_difference(limit: list[Any]) -> None:
    assert read_config(config_of("granite") | {"time_step_limit": limit})[1].notes == ()


def test_rope_of_part_of_a_head() -> None:
    config = config_of("granite")
    config["rope_parameters"]["partial_rotary_factor"] = 0.5
    assert read_config(config)[1].notes == ("RoPE turns 0.5 of each head; here it turns all of it",)


@pytest.mark.parametrize("name", ["GraniteMoeHybrid", "Bamba", "FalconH1", "Jamba", "Zamba2", "NemotronH", "Qwen3Next"])
def test_what_the_classes_write_by_default_is_all_accounted_for(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")().to_dict()
    if name == "NemotronH":
        config["layers_block_type"] = ["linear_attention", "full_attention"]
    notes = read_config(config)[1].notes
    assert notes  # the classifier of its own, at least, or the shared blocks
    assert [note for note in notes if "not read" in note] == []
    assert len(set(notes)) == len(notes)


def test_arguments_of_megatron() -> None:
    architecture = stack(MAMBA, ATTENTION)
    (text,) = FORMATS["megatron"].write(architecture, 64).values()
    assert read_config(text)[1].notes == ()
    changed = text.replace("--disable-bias-linear\n", "").replace("--normalization RMSNorm\n", "")
    notes = read_config(changed + "--qk-layernorm\n--lr 1e-3\n--rotary-scaling-factor 8\n")[1].notes
    assert notes == (
        "--normalization is LayerNorm by default; here it is RMSNorm",
        "--disable-bias-linear is missing: its projections have biases; here they have none",
        "--qk-layernorm is not read: whatever it changes is not changed here",
        "--rotary-scaling-factor 8 is not read: whatever it changes is not changed here",
    )


def test_what_the_gallery_does_not_know_of_falcon_h1_is_said() -> None:
    for name in ("falcon-h1-1.5b", "falcon-h1-7b"):
        assert any("multipliers and the base of its RoPE are not known" in note for note in gallery()[name].notes)
