from __future__ import annotations

import io
import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from hybrid_nas.census import Census
from hybrid_nas.design import PLACEMENTS, Design
from hybrid_nas.proposal import Proposal
from hybrid_nas.schema import study_schema
from hybrid_nas.section import count_of
from hybrid_nas.shipped import find, shipped
from hybrid_nas.study_file import StudyFile, read_study
from hybrid_nas.yaml_file import FileError, Item, read_yaml

SMALLEST = """\
name: inter-layer
family: inter                      # inter, intra, hybrid
ratio: [1:0, 1:1, 1:3, 1:5, 1:12, 0:1]   # attention : Mamba (intra: parallel : Mamba)
placement: [front, middle, end, spread]
d_state: [16, 64, 128]
"""


def read(text: str, *assignments: str) -> StudyFile:
    return read_study(text, "space.yaml", assignments)


def dumped(study: StudyFile) -> str:
    text = io.StringIO()
    YAML().dump(study.to_dict(), text)
    return text.getvalue()


def test_smallest_useful_file() -> None:
    study = read(SMALLEST)
    assert study.name == "inter-layer"
    # 1:0 has no Mamba, 0:1 no placement: 1 + 4 mixed x 4 placements x 3 states + 3 states
    assert study.space.size() == 1 + 4 * 4 * 3 + 3 == len(set(study.space.enumerate()))
    assert [objective.name for objective in study.objectives] == ["loss", "cache_bytes"]


@pytest.mark.parametrize(
    ("name", "size", "different"), [("inter_layer", 830, 782), ("intra_layer", 4680, 3960), ("hybrid", 120, 120)]
)
def test_shipped_spaces(name: str, size: int, different: int) -> None:
    """It loads, has the stated size, and 20 draws are valid at both scales."""
    import random

    study = read_study(shipped()[name].read_text(), name)
    assert study.space.size() == size == sum(1 for _ in study.space.enumerate())
    rng = random.Random(0)
    for _ in range(20):
        design = study.space.draw(rng)
        assert study.space.allows(design)
        Proposal.of(design, study)
    census = Census.of(study)
    assert len(census.proposals) == different
    assert not census.refused
    assert census.coincide == 0


def test_every_shipped_space_is_tested() -> None:
    paper = {"paper_placement", "paper_ratio", "paper_fusion", "paper_split", "paper_positions"}  # test_paper_spaces.py
    assert set(shipped()) == {"inter_layer", "intra_layer", "hybrid", *paper}


@pytest.mark.parametrize(
    "name", ["search_spaces/inter_layer.yaml", "inter_layer", "spaces/inter_layer.yaml", "inter-layer"]
)
def test_found_from_any_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find(name) == shipped()["inter_layer"]


def test_unknown_space_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'inter_layer'"):
        find("inter_layr.yaml")


def test_numbers_mean_what_they_say() -> None:
    study = read("ratio: [1:3, 1:12]\nproxy: {learning_rate: 3e-4, tokens: 1.5M}\nconstraints: {cache_bytes: 64 MiB}\n")
    assert study.space.options["ratio"] == ("1:3", "1:12")
    assert study.budget.learning_rate == pytest.approx(3e-4)
    assert study.budget.tokens == 1_500_000
    assert study.constraints[0].maximum == 64 * 2**20


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
    ],
)
def test_errors_teach(text: str, line: int, message: str) -> None:
    with pytest.raises(FileError, match=message) as caught:
        read(text)
    assert str(caught.value).startswith(f"space.yaml:{line}: ")


@pytest.mark.parametrize("proxy", ["proxy: quick", "proxy: {preset: thorough, batch: 16}"])
def test_a_proxy_by_name_is_judged_by_recall_unless_the_file_says_otherwise(proxy: str) -> None:
    assert [o.name for o in read(f"ratio: 1:3\n{proxy}\n").objectives] == ["recall", "cache_bytes"]
    chosen = read(f"ratio: 1:3\n{proxy}\nobjectives: [loss, params]\n")
    assert [o.name for o in chosen.objectives] == ["loss", "params"]
    assert [o.name for o in read("ratio: 1:3\nproxy: paper-100m\n").objectives] == ["loss", "cache_bytes"]


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
    census = Census.of(read(SMALLEST, "constraints.cache_bytes=64MiB"))
    assert all(proposal.cost.cache_bytes <= 64 * 2**20 for proposal in census.proposals.values())
    assert (
        sum(census.refused.values()) + len(census.proposals) + 3 == census.looked_at
    )  # 1:12 middle = spread, 3 states


def test_set_changes_one_key() -> None:
    study = read(SMALLEST, "d_state=[32]", "proxy.batch=8", "target=paper-350m", "search.seed=7")
    assert study.space.options["d_state"] == (32,)
    assert (study.budget.batch, study.target.name, study.search.seed) == (8, "paper-350m", 7)
    with pytest.raises(FileError, match=r"--set proxy.btch=8: unknown key 'btch'.*did you mean 'batch'"):
        read(SMALLEST, "proxy.btch=8")
    with pytest.raises(FileError, match="write key=value"):
        read(SMALLEST, "batch")


def test_explicit_positions() -> None:
    study = read("ratio: [1:0, 1:3]\nplacement: [front, [0.5], [0.25, 0.75]]\n")
    designs = list(study.space.enumerate())
    assert study.space.size() == len(designs) == 1 + 1 + 2
    assert {design.positions for design in designs} == {None, (0.5,), (0.25, 0.75)}
    assert all(study.space.allows(design) for design in designs)
    alone = read("placement: [[0.0], [1.0]]\n")
    assert alone.space.size() == 2
    assert read(dumped(alone)) == alone


@given(
    ratios=st.lists(st.sampled_from(["1:0", "1:1", "1:3", "2:6", "0:1", "1:5"]), min_size=1, max_size=5),
    placements=st.lists(
        st.sampled_from(PLACEMENTS)
        | st.lists(st.sampled_from([0.0, 0.3, 0.5, 1.0]), min_size=1, max_size=3, unique=True),
        max_size=4,
    ),
    states=st.lists(st.sampled_from([8, 16, 64, 128]), max_size=3),
    shares=st.lists(st.sampled_from(["1/4", "1/2", "1"]), max_size=2),
    windows=st.lists(st.sampled_from(["none", "1/16", 512]), max_size=3),
)
def test_round_trip(ratios, placements, states, shares, windows) -> None:  # type: ignore[no-untyped-def]
    """What is read, written and read again is the same study, and enumeration, size and membership agree."""
    data = {"ratio": ratios, "placement": placements, "d_state": states, "kv_heads": shares, "window": windows}
    text = json.dumps({key: value for key, value in data.items() if value})
    try:
        study = read(text)
    except FileError:
        return
    assert read(dumped(study)) == study
    designs = list(study.space.enumerate())
    assert len(set(designs)) == len(designs) == study.space.size()
    for design in designs[:50]:
        assert study.space.allows(design)
        answers = study.space.answers(design)
        assert study.space.build(lambda name, options, a=answers: a[name]) == design


@settings(deadline=None)
@given(
    family=st.sampled_from(["intra", "hybrid"]),
    ratios=st.lists(st.sampled_from(["1:0", "1:1", "1:5", "0:1"]), max_size=3),
    layouts=st.lists(st.sampled_from(["MMHM", "MH HM", "MHMMH MMHHMM"]), max_size=2),
    shares=st.lists(st.sampled_from(["0", "1/4", "1/2", "1"]), max_size=3),
    fusions=st.lists(st.sampled_from(["add", "difference", "concat"]), max_size=3),
    outputs=st.lists(st.sampled_from(["joint", "separate"]), max_size=2),
    halves=st.lists(st.sampled_from(["attention-mamba", "attention", "mamba"]), max_size=3),
    presets=st.lists(st.sampled_from(["hymba", "falcon-h1", "paper"]), max_size=2),
    values=st.lists(st.sampled_from(["joint", "separate"]), max_size=2),
)
def test_round_trip_of_parallel_hybrids(
    family, ratios, layouts, shares, fusions, outputs, halves, presets, values
) -> None:  # type: ignore[no-untyped-def]
    data = {"ratio": ratios, "layout": layouts, "attention_share": shares, "fusion": fusions, "output": outputs}
    data |= {"halves": halves, "preset": presets, "value": values}
    text = json.dumps({"family": family, **{key: value for key, value in data.items() if value}})
    try:
        study = read(text)
    except FileError:
        return
    assert read(dumped(study)) == study
    jsonschema.validate(read_yaml(text, "x").plain(), study_schema())
    designs = list(study.space.enumerate())
    assert len(designs) == study.space.size()
    if not {"0", "1"} & set(shares):  # a split of nothing or all is a whole layer, which other answers spell too
        assert len(set(designs)) == len(designs)
    for design in designs[:30]:
        answers = study.space.answers(design)
        assert study.space.build(lambda name, options, a=answers: a[name]) == design
        assert Design.from_dict(design.to_dict()) == design


def test_families_of_one_space() -> None:
    """A hybrid space asks each question where it applies, and holds each model once."""
    study = read(
        "family: hybrid\nratio: [1:1, 0:1]\nplacement: [front, end]\nfusion: [add, concat]\nd_state: [16, 64]\n"
    )
    # inter 1:1 in 2 places and 0:1, intra 1:1 in 2 places and 2 fusions, all at 2 states
    assert study.space.size() == (2 + 1 + 2 * 2) * 2 == len(set(study.space.enumerate()))
    presets = read("family: intra\nratio: 1:0\npreset: [hymba, falcon-h1]\n")
    hymba, falcon = presets.space.enumerate()
    assert (hymba.norm, hymba.scale, hymba.fusion, hymba.value, hymba.output) == (
        "group", "vector", "add", "separate", "joint"
    )  # fmt: skip
    assert (falcon.norm, falcon.scale, falcon.fusion, falcon.value, falcon.output) == (
        "none", "none", "concat", "separate", "joint"
    )  # fmt: skip


def test_equal_compute() -> None:
    """Each candidate gets the tokens that the same FLOPs buy: 2% apart at most, by whole tokens far less."""
    from hybrid_nas.cost import cost

    study = read("ratio: [1:0, 0:1, 1:3]\nproxy: {flops: 5e11, context: 512}\n")
    assert read(dumped(study)) == study
    assert study.identity != read("ratio: [1:0, 0:1, 1:3]\nproxy: {context: 512}\n").identity
    tokens = []
    for design in study.space.enumerate():
        proxy = design.at(study.proxy)
        budget = study.budget.of(proxy, 512)
        tokens.append(budget.tokens)
        assert budget.tokens * cost(proxy, 512).train_flops_per_token == pytest.approx(5e11, rel=1e-5)
        assert [budget.rung(round(s * budget.steps(512)) * budget.batch * 512, 512) for s in budget.rungs] == [0, 1]
    assert len(set(tokens)) == 3
    assert "Equal compute" in study.budget.mode


def test_a_budget_may_stand_apart() -> None:
    """`budget: {...}` is the same study as the same keys under proxy, a preset's name beside it too."""
    together = read("ratio: 1:3\nproxy: {flops: 5e11, context: 512}\n")
    assert read("ratio: 1:3\nbudget: {flops: 5e11}\nproxy: {context: 512}\n") == together
    assert read("ratio: 1:3\nproxy: {context: 512}\n", "budget.flops=5e11") == together
    assert read("ratio: 1:3\nbudget: {flops: 5e11}\n").budget == together.budget
    named = read("ratio: 1:3\nbudget: {flops: 5e18}\nproxy: paper-100m\n")
    assert (named.proxy.name, named.budget.flops) == ("paper-100m", 5e18)
    jsonschema.validate({"ratio": "1:3", "budget": {"flops": 5e11}}, study_schema())


def test_layouts_of_one_kind() -> None:
    """A stack of one kind has the depth that the budget buys; the space knows it by its layout."""
    study = read("family: hybrid\nlayout: [HHHH, MMMM, AAAA, MHMA]\nfusion: [add, difference]\n")
    designs = list(study.space.enumerate())
    assert len(designs) == study.space.size() == 2 + 1 + 1 + 2
    assert {d.at(study.target).layout for d in designs} == {"H" * 13, "M" * 13, "A" * 16, "MMMHHHHMMMMAAA"}
    for design in designs:
        asked = study.space.answers(design)
        assert study.space.build(lambda name, options, a=asked: a[name]) == design
    assert study.space.answers(Design.from_dict({"family": "intra", "ratio": "1:0", "fusion": "add"})) == {
        "layout": "HHHH",
        "fusion": "add",
    }


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


def test_arms() -> None:
    study = read("d_state: 64\narms:\n  - ratio: 1:0\n  - {placement: [0.5], family: intra}\n  - layout: MHA\n")
    one, two, three = study.space.enumerate()
    assert (one.family, one.d_state) == ("inter", None)
    assert (two.family, two.positions, two.d_state) == ("intra", (0.5,), 64)
    assert (three.family, three.layout) == ("mixed", "MHA")
    assert read(dumped(study)) == study


def test_identity_follows_what_changes_results() -> None:
    study = read(SMALLEST)
    same = read(SMALLEST, "search.trials=99", "search.workers=1", "proxy.replicates=5")
    assert study.identity == same.identity
    for change in ("search.seed=1", "proxy.tokens=1000", "d_state=16", "target=paper-350m", "search.sampler=random"):
        assert read(SMALLEST, change).identity != study.identity, change


@pytest.mark.parametrize(
    "text", [SMALLEST, "ratio: 1:3\nplacement: [[0.3]]\nd_state: [16]\n", *(p.read_text() for p in shipped().values())]
)
def test_schema_accepts_what_is_read(text: str) -> None:
    document = read_yaml(text, "x").plain()
    jsonschema.Draft202012Validator.check_schema(study_schema())
    jsonschema.validate(document, study_schema())


@pytest.mark.parametrize(
    "text", ["ratio: 1-3", "ratio: 1:3\nplacment: front", "ratio: 1:3\nproxy: {tokns: 1}", "d_state: 20"]
)
def test_schema_refuses_what_is_refused(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(read_yaml(text, "x").plain(), study_schema())
    with pytest.raises(FileError):
        read(text)


def test_resolved_file_is_valid_by_the_schema() -> None:
    for assignments in ((), ("proxy.width=128",), ("constraints.cache_bytes=64MiB",)):
        study = read(SMALLEST, *assignments)
        jsonschema.validate(read_yaml(dumped(study), "x").plain(), study_schema())
        assert read(dumped(study)) == study


def test_a_bomb_is_refused_at_once() -> None:
    bomb = "a: &a [x]\n" + "\n".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]" for i in range(20)
    )
    with pytest.raises(FileError, match="aliases"):
        read(bomb)
    with pytest.raises(FileError, match=r"nested too deeply|not valid YAML"):
        read("ratio: " + "[" * 5000)


MIXERS = """\
ratio: [1:0, 1:3]
mixer: [mamba2, mamba1, mamba3, gated_deltanet]
d_state: [16, 32]
head_dim: [16, 32]
ffn: [swiglu, moe]
experts: [4, 8]
experts_active: [1, 2]
"""


def test_mixers_and_experts_are_choices() -> None:
    """Each is asked where it means something: no mixer in pure attention, no heads where the mixer has none, no
    experts without moe."""
    study = read(MIXERS)
    designs = list(study.space.enumerate())
    of_mixers, of_ffn = 2 * (2 * 2) + 2 * 2, 1 + 2 * 2  # two mixers read d_state and head_dim, two d_state alone
    assert len(set(designs)) == len(designs) == study.space.size() == (1 + of_mixers) * of_ffn
    assert {design.mixer for design in designs} == {None, "mamba2", "mamba1", "mamba3", "gated_deltanet"}
    assert {design.head_dim for design in designs if design.mixer in ("mamba1", "gated_deltanet")} == {None}
    assert {design.experts for design in designs if design.ffn == "swiglu"} == {None}
    assert {"".join(sorted(set(d.at(study.proxy).layout))) for d in designs} == {"A", "AM", "1A", "3A", "AG"}
    assert all(study.space.allows(design) for design in designs)
    assert read(dumped(study)) == study
    jsonschema.validate(read_yaml(MIXERS, "x").plain(), study_schema())


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


@pytest.mark.parametrize(("text", "number"), [("1e12", 10**12), ("1.5E3", 1500), ("2e+2k", 200_000), ("200k", 200_000)])
def test_counts_may_have_an_exponent(text: str, number: int) -> None:
    assert count_of(Item(text, "here", None, text), "context") == number
