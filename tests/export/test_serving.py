"""What is said of the serving engines: a version, a source, and the limits of their model files."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_models import ATTENTION, BLIND, MAMBA, RELU, stack

from hybrid_nas.architecture import Architecture, Block, ParallelHybrid
from hybrid_nas.export.formats import WRITTEN
from hybrid_nas.export.serving import SGLANG, VLLM, serving

H = ParallelHybrid(ATTENTION, MAMBA, norm="none", fusion="add")
ONE_GROUP = replace(MAMBA, groups=1)
CASES = [
    ("granite", stack(MAMBA, ATTENTION), (True, True), "tensor parallel where it divides 2 groups"),
    ("granite", stack(ONE_GROUP, ATTENTION), (True, True), "tensor parallel where it divides 6 Mamba-2 heads"),
    ("granite", stack(MAMBA, replace(ATTENTION, heads=4)), (False, False), "head_dim as width / heads, 12"),
    ("granite", stack(MAMBA, MAMBA), (False, False), "written for attention and Mamba-2 together"),
    ("falcon-h1", stack(H, H), (True, True), "has falcon_h1.py"),
    ("nemotron-h", stack(MAMBA, BLIND, ffn=RELU), (True, True), "has nemotron_h.py"),
    ("bamba", stack(MAMBA, ATTENTION), (False, False), "Bamba"),
    ("hybrid", stack(MAMBA, ATTENTION), (False, False), "full or sliding-window attention alone"),
    ("megatron", stack(MAMBA, ATTENTION), (False, False), "training format"),
    ("jamba", stack(BLIND), (False, False), "Jamba"),
    ("zamba2", Architecture(48, 131, (Block(MAMBA, None),)), (False, False), "Zamba2"),
    ("fla", stack(ATTENTION), (False, False), "no model of flash-linear-attention"),
]


def test_every_format_has_an_answer() -> None:
    """For both engines, and never the words for a format that nobody looked at."""
    for format in WRITTEN:
        for statement in serving(format.name, stack(MAMBA, ATTENTION)):
            assert str(statement).startswith((VLLM, SGLANG))
            assert statement.why != "no model file for this class"


@pytest.mark.parametrize(("format", "architecture", "able", "why"), CASES)
def test_a_statement_for_each_engine(format: str, architecture, able: tuple[bool, bool], why: str) -> None:
    said = serving(format, architecture)
    assert [statement.engine for statement in said] == [VLLM, SGLANG]
    assert tuple(statement.able for statement in said) == able
    for statement in said:
        assert why in str(statement)
        assert str(statement).startswith(f"{statement.engine}: {'yes' if statement.able else 'no'}, ")
        assert any(character.isdigit() for character in statement.engine)
