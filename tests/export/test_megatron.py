"""Megatron-LM's pattern and arguments: a published model, its own parser where it is installed, its rules."""

from __future__ import annotations

import shlex

import pytest
from small_models import ATTENTION, BLIND, FFN, MAMBA, RELU, WINDOW, stack

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, SquaredReLU, SwiGLU
from hybrid_nas.cost import cost
from hybrid_nas.export.format import CannotHold, CannotRead
from hybrid_nas.export.formats import read_config
from hybrid_nas.export.megatron import FILE, MEGATRON, pattern_of, write

NEMOTRON_8B = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"


def given(text: str) -> dict[str, list[str]]:
    rows = [shlex.split(line) for line in text.splitlines()]
    return {name: values for name, *values in rows}


def nemotron_8b() -> Architecture:
    mamba, attention = Mamba2(8192, 64, 128, 8), Attention(32, 8, 128, None)
    mixers, blocks = {"M": mamba, "*": attention}, []
    for symbol in NEMOTRON_8B:
        if symbol == "-":
            blocks[-1] = Block(blocks[-1].mixer, SquaredReLU(21504))
        else:
            blocks.append(Block(mixers[symbol], None))
    return Architecture(4096, 131072, tuple(blocks))


def test_a_published_pattern_comes_out_as_nvidia_writes_it() -> None:
    architecture = nemotron_8b()
    arguments = given(write(architecture, 8192)[FILE])
    assert arguments["--hybrid-layer-pattern"] == [NEMOTRON_8B]
    assert arguments["--position-embedding-type"] == ["none"]
    assert "--squared-relu" in arguments
    assert "--swiglu" not in arguments
    assert 8.0e9 < cost(architecture, 1).params + 131072 * 4096 < 8.2e9  # with its own classifier, as published: 8B


def test_the_example_of_a_billion_parameters() -> None:
    """Counted by hand from the published layer definitions: 967,004,416 at a vocabulary of 50,304, tied."""
    mamba, attention, ffn = Mamba2(4096, 64, 128, 8), Attention(16, 8, 128), SwiGLU(5632)
    mixers = [attention if i in (3, 10) else mamba for i in range(14)]
    architecture = Architecture(2048, 50304, tuple(Block(mixer, ffn) for mixer in mixers))
    assert cost(architecture, 1).params == 967_004_416
    arguments = given(write(architecture, 4096)[FILE])
    assert arguments["--hybrid-layer-pattern"] == ["M-M-M-*-M-M-M-M-M-M-*-M-M-M-"]
    want = {"--mamba-num-heads": "64", "--kv-channels": "128", "--num-query-groups": "8", "--rotary-base": "10000"}
    assert {name: arguments[name][0] for name in want} == want
    assert arguments["--vocab-size"] == ["50304"]
    assert {"--swiglu", "--group-query-attention", "--disable-bias-linear"} <= arguments.keys()


@pytest.mark.parametrize(
    "architecture",
    [
        stack(MAMBA, ATTENTION, MAMBA),
        stack(MAMBA, BLIND, ffn=RELU),
        stack(MAMBA, MAMBA),
        Architecture(48, 131, (Block(MAMBA, None), Block(ATTENTION, FFN), Block(MAMBA, FFN))),
        nemotron_8b(),
    ],
)
@pytest.mark.parametrize("pipeline", [1, 2])
def test_round_trip(architecture: Architecture, pipeline: int) -> None:
    found, imported = read_config(write(architecture, 256, pipeline=pipeline)[FILE])
    assert (found.name, imported.architecture, imported.context) == ("megatron", architecture, 256)


def test_stages_are_cut_between_blocks_and_the_pattern_is_quoted() -> None:
    assert pattern_of(stack(*[MAMBA] * 5), 2) == "M-M-|M-M-M-"
    text = write(stack(MAMBA, ATTENTION), 256, pipeline=2)[FILE]
    assert "--hybrid-layer-pattern 'M-|*-'" in text  # a shell would read | and *


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tensor_parallel": 4}, "4 does not divide 6 Mamba-2 heads; 1, 2 would divide all"),
        ({"tensor_parallel": 3}, "3 does not divide 2 Mamba-2 groups; 1, 2 would divide all"),
        ({"pipeline": 4}, "4 stages need as many blocks, found 3"),
    ],
)
def test_nvidias_rules_on_parallelism(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write(stack(MAMBA, ATTENTION, MAMBA), 256, **options)


def test_what_megatron_cannot_hold() -> None:
    with pytest.raises(CannotHold, match="no window") as refusal:
        MEGATRON.check(stack(MAMBA, WINDOW))
    assert refusal.value.nearest.layout == "MA"
    kernel = Mamba2(96, 16, 24, 2, conv_kernel=3)
    with pytest.raises(CannotHold, match="4 taps, found 3") as refusal:
        MEGATRON.check(stack(kernel))
    assert refusal.value.nearest == stack(MAMBA)
    with pytest.raises(CannotRead, match="'E' cannot be expressed"):
        read_config(write(stack(MAMBA), 256)[FILE].replace("M-", "ME"))


def test_its_own_parser_reads_the_pattern() -> None:
    """Against the released package, where it is installed: its check of symbols and of the number of layers."""
    allocation = pytest.importorskip("megatron.core.ssm.mamba_hybrid_layer_allocation")
    pattern = pattern_of(nemotron_8b())
    layers = allocation.allocate_layers(len(pattern), 0.0, 0.0, pattern)
    assert "".join(layers) == pattern
