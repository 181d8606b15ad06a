"""What a study file or its space cannot hold: refused with the line and the nearest right thing, or counted."""

from __future__ import annotations

import json

import jsonschema
import pytest

from hybrid_nas.census import Census
from hybrid_nas.design import Design
from hybrid_nas.schema import study_schema
from hybrid_nas.study_file import StudyFile, read_study
from hybrid_nas.yaml_file import FileError, read_yaml


def read(text: str, *assignments: str) -> StudyFile:
    return read_study(text, "space.yaml", assignments)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("ratio: 1:3\nplacment: front\n", 2, "unknown key 'placment' in a study file; did you mean 'placement'"),
        ("ratio: []\n", 1, "the list is empty"),
        ("ratio: 1-3\n", 1, "written attention:mamba, like 1:3, found '1-3'"),
        ("ratio: 0:0\n", 1, "not both zero"),
        ("ratio: 1:3\nd_state: 20\n", 2, "a multiple of 8 .* found 20; the nearest is"),
        ("ratio: 1:3\nd_state: [16,\n  -8]\n", 3, "found -8; the nearest is 8"),
        ("ratio: 1:3\nplacement: midle\n", 2, "did you mean 'middle'"),
        ("ratio: 1:3\nplacement: 0.3\n", 2, r"write \[\[0.3\]\]"),
        ("ratio: 1:3\nplacement: [front, [0.3, 1.7]]\n", 2, "between 0 .* and 1 .* found 1.7"),
        ("ratio: 1:3\nplacement: [[0.3]]\n", 2, "ratio 1:3 has no placement left"),
        ("ratio: 1:3\nkv_heads: 4\n", 2, "a share of the attention heads"),
        ("ratio: 0:1\nkv_heads: 1/4\n", 2, "kv_heads means nothing in this space"),
        ("ratio: 1:0\nd_state: 64\n", 2, "d_state means nothing in this space"),
        ("family: intre\nratio: 1:3\n", 1, "unknown family intre; did you mean 'int"),
        ("ratio: 1:3\nfusion: add\n", 2, "fusion means nothing in this space: it needs a parallel hybrid"),
        ("family: intra\nratio: 1:3\nkv_hed: 1\n", 3, "did you mean 'kv_heads'"),
        ("family: intra\nratio: 1:3\nattention_share: [0, 1/2]\nvalue: joint\n", 4, "value joint needs both halves"),
        (
            "family: intra\nratio: 1:3\noutput: joint\nvalue_width: 1\n",
            3,
            "fusion difference with output joint needs halves of equal width, found value_width 1 beside Mamba-2's 9/8",
        ),
        ("family: intra\nratio: 1:3\nfusion: concat\noutput: separate\n", 4, "no meaning with fusion concat"),
        ("family: hybrid\nratio: 1:3\nattention_width: 1/2\n", 3, "attention_width and mamba_width stand together"),
        ("family: intra\nratio: 1:3\npreset: hymba\nnorm: none\n", 4, "norm is what preset says"),
        ("family: intra\nratio: 1:3\npreset: jamba\n", 3, "unknown preset jamba; did you mean 'hymba'"),
        ("layout: MMHM\n", 1, "has H, which family inter does not hold; write family: intra or hybrid"),
        ("layout: [MMHM, MXM]\n", 1, "letter 2 is 'X'"),
        ("family: hybrid\nlayout: [HHH, HHHHH]\n", 2, "HHH and HHHHH are one design, layers of H alone"),
        ("ratio: 1:3\nbudget: {flops: 1e9}\nproxy: {tokens: 5k}\n", 2, "leave one of the two out"),
        ("ratio: 1:3\nbudget: {batch: 4}\nproxy: {batch: 8}\n", 2, "budget: proxy sets batch too"),
        ("ratio: 1:3\nbudget: {flop: 1e9}\n", 2, "unknown key 'flop' in budget; did you mean 'flops'?"),
        ("layout: MMAM\nwindow: 1/16\n", 2, "window means nothing in this space"),
        ("arms:\n  - ratio: 1:3\n  - ratio: [1:3, 1:5]\n", 3, "one value must stand here"),
        ("arms:\n  - ratio: 1:3\n  - {ratio: 2:6}\n", 3, "arm 2 is the same design as arm 1"),
        ("arms:\n  - {ratio: 0:1, window: 4}\n", 2, "window means nothing in arm 1"),
        ("arms:\n  - {ratio: 1:3, fusoin: add}\n", 2, "did you mean 'fusion'"),
        ("ratio: 1:3\nproxy: {flops: 1e9, tokens: 5k}\n", 2, "leave one of the two out"),
        ("ratio: 1:3\nproxy: {flops: 0}\n", 2, "flops must be a number above 0"),
        ("ratio: 1:3\nbudget:\n  flops: 2\n", 3, "so at least that must stand here, found 2"),
        ("arms: []\n", 1, "a list of mappings must stand here"),
        ("name: ../x\nratio: 1:3\n", 1, "small letters"),
        ("name: x\n", 1, "no ratio"),
        ("ratio: 1:3\nproxy:\n  tokns: 5\n", 3, "did you mean 'tokens'"),
        ("ratio: 1:3\nproxy:\n  tokens: many\n", 3, "tokens: a whole number"),
        ("ratio: 1:3\nproxy:\n  warmup: 2\n", 3, "warmup is a share"),
        ("ratio: 1:3\nproxy:\n  width: 60\n", 3, "width must be a multiple of head_dim"),
        ("ratio: 1:3\ntarget: paper-2b\n", 2, "did you mean 'paper-"),
        ("ratio: 1:3\nobjectives: [loss, speed]\n", 2, "unknown quantity speed"),
        ("ratio: 1:3\nobjectives: [params, cache_bytes]\n", 2, "bought by training"),
        ("ratio: 1:3\nobjectives: [loss, recall]\n", 2, "must be an efficiency"),
        ("ratio: 1:3\nsearch: {sampler: tpo}\n", 2, "did you mean 'tpe'"),
        ("ratio: 1:3\nsearch: {trials: 0}\n", 2, "trials must be 1 or more"),
        ("ratio: 1:3\nratio: 1:5\n", 2, "stands twice"),
        ("ratio: &a [1:3]\nplacement: *a\n", 1, "aliases"),
        ("ratio: !x 1:3\n", 1, "tags are not read"),
        ("ratio: !x [1:3]\n", 1, "tags are not read"),
        ("ratio: 1:3\nsearch: !!set {trials: 1}\n", 2, "tags are not read"),
        ("!!python/object:os.system\nratio: 1:3\n", 1, "tags are not read"),
        ("!x ratio: 1:3\n", 1, "a key must be a plain word"),
        ("ratio: [1:3\n", 2, "not valid YAML"),
        ("- 1\n", 1, "must be a mapping"),
        ("ratio: 1:3\nd_state: " + "9" * 40 + "\n", 2, "too long"),
        ("ratio: 1:3\nproxy: {learning_rate: .inf}\n", 2, "finite"),
        ("ratio: 1:3\nproxy: {tokens: 10}\n", 2, "one step is 8 sequences of 64 tokens, 512 in all"),
        ("ratio: []\n", 1, "the list is empty, so nothing can be chosen; write one, like 1:5"),
        (
            "ratio: 1:3\nbudget:\n  tokens: 1e18\n",
            3,
            r"tokens: one training of 1e\+18 tokens takes 6,193.3 years or more",
        ),
        ("ratio: 1:3\nbudget:\n  flops: 1e23\n", 3, r"flops: one training of 1e\+23 flops takes 3.2 years or more"),
        ("ratio: 1:3\nbudget: {replicates: 1e15}\n", 2, "replicates must be a whole number from 0 to 1,000, found"),
    ],
)
def test_errors_teach(text: str, line: int, message: str) -> None:
    with pytest.raises(FileError, match=message) as caught:
        read(text)
    assert str(caught.value).startswith(f"space.yaml:{line}: ")


def test_the_most_tokens_are_a_year_of_steps_or_of_flops() -> None:
    steps = 365 * 24 * 3600 * 10_000  # of 0.1 ms
    small, large = (
        "ratio: 1:3\nproxy: {batch: 8, context: 64, tokens: %d}\n",
        "ratio: 1:3\nproxy: {preset: paper-3b, tokens: %d}\n",
    )
    flops = 365 * 24 * 3600 * 10**15
    params = read(large % 10**9).proxy.params
    for text, most in ((small, steps * 8 * 64), (large, flops // (6 * params))):
        assert read(text % most).budget.tokens == most
        with pytest.raises(FileError, match=r"takes 1\.0 years or more"):
            read(text % (most + most // 1000))


def test_empty_file() -> None:
    with pytest.raises(FileError, match="the file is empty"):
        read("# nothing\n")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            "ratio: [1:1, 1:3]\nconstraints:\n  cache_bytes: 1000\n",
            3,
            "2 designs refused, 2 because cache_bytes is above .*; the least of any design here is 61,.*MiB",
        ),
        ("ratio: [1:1, 1:3]\nkv_heads: 1/3\n", 2, "kv_heads 1/3 of 32 heads is 11"),
        ("name: x\nratio: 1:3\nproxy: {params: 2000}\n", 3, "an FFN of -96 channels to meet the parameter budget"),
    ],
)
def test_a_space_that_allows_nothing(text: str, line: int, message: str) -> None:
    study = read(text)
    with pytest.raises(FileError, match=f"the space allows nothing: .*{message}") as caught:
        Census.of(study).checked(study, "space.yaml")
    assert str(caught.value).startswith(f"space.yaml:{line}: ")


def test_constraint_refuses_and_counts() -> None:
    text = "ratio: [1:0, 1:1, 1:3, 1:5, 1:12, 0:1]\nplacement: [front, middle, end, spread]\nd_state: [16, 64, 128]\n"
    census = Census.of(read(text, "constraints.cache_bytes=64MiB"))
    assert all(proposal.cost.cache_bytes <= 64 * 2**20 for proposal in census.proposals.values())
    assert (
        sum(census.refused.values()) + len(census.proposals) + 3 == census.looked_at
    )  # 1:12 middle = spread, 3 states


def test_what_crossing_lists_leaves_out_is_counted() -> None:
    study = read("family: intra\nratio: [1:0, 1:1]\nattention_share: [0, 1/2]\nvalue: [joint, separate]\n")
    (why, count), *others = study.space.left_out.items()
    assert (why, count, others) == (
        "value joint beside attention_share 0: one half alone has no values to share", 1, [],
    )  # fmt: skip
    assert study.space.size() == 2 * (1 + 2)
    study = read("family: intra\nratio: 1:1\nfusion: [concat, add, difference]\noutput: [joint, separate]\n")
    assert list(study.space.left_out.values()) == [1]
    assert study.space.size() == 3 * 2 - 1


def test_the_census_says_which_are_refused_and_why() -> None:
    census = Census.of(read("ratio: [1:3, 1:1]\nhead_dim: [32, 24]\n"))
    (line,) = census.reasons()
    assert line.startswith("refused, 2 of them: head_dim 24 does not divide")
    assert Design.from_dict(json.loads(line.partition("one is ")[2])).head_dim == 24
    two = Census.of(read("ratio: [1:3, 1:1]\nhead_dim: [32, 24, 40]\n"))
    assert two.reasons(most=1)[1] == "refused for 1 further reasons: see the report"


@pytest.mark.parametrize(
    "text", ["ratio: 1-3", "ratio: 1:3\nplacment: front", "ratio: 1:3\nproxy: {tokns: 1}", "d_state: 20"]
)
def test_schema_refuses_what_is_refused(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(read_yaml(text, "x").plain(), study_schema())
    with pytest.raises(FileError):
        read(text)


def test_a_bomb_is_refused_at_once() -> None:
    bomb = "a: &a [x]\n" + "\n".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]" for i in range(20)
    )
    with pytest.raises(FileError, match="aliases"):
        read(bomb)
    with pytest.raises(FileError, match=r"nested too deeply|not valid YAML"):
        read("ratio: " + "[" * 5000)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("ratio: 1:3\nmixer: mamba4\n", 2, "did you mean 'mamba"),
        ("ratio: 1:0\nmixer: mamba1\n", 2, "mixer means nothing in this space"),
        ("ratio: 1:3\nmixer: mamba1\nhead_dim: 16\n", 3, "it needs a ratio with Mamba, and a mixer that has heads"),
        ("ratio: 1:3\nexperts: 8\n", 2, "experts means nothing in this space: it needs ffn: moe"),
        ("ratio: 1:3\nffn: moe\nexperts: 0\n", 3, "a whole number from 1 to 65536 must stand here, found 0"),
        ("layout: G11A\nratio: 1:3\nplacement: ende\n", 3, "unknown placement"),
        ("layout: AG\n", 1, "write AM and mixer: gated_deltanet"),
    ],
)
def test_errors_of_mixers_and_experts_teach(text: str, line: int, message: str) -> None:
    with pytest.raises(FileError, match=message) as caught:
        read(text)
    assert str(caught.value).startswith(f"space.yaml:{line}: ")


def test_experts_that_cannot_be_are_counted() -> None:
    census = Census.of(read("ratio: 1:3\nffn: moe\nexperts: [1, 4]\nexperts_active: [1, 2]\n"))
    assert len(census.proposals) == 3
    assert sum(census.refused.values()) == 1
    assert "experts_active 2 is more than the 1 experts" in "".join(census.refused)
