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


@pytest.mark.parametrize("proxy", ["proxy: quick", "proxy: {preset: thorough, batch: 16}"])
def test_a_proxy_by_name_trains_on_text_alone_unless_the_file_says_otherwise(proxy: str) -> None:
    file = read(f"ratio: 1:3\n{proxy}\n")
    assert [o.name for o in file.objectives] == ["loss", "cache_bytes"]
    assert (file.budget.recall_share, file.budget.probes) == (0, ("ar_hits",))
    assert read(f"ratio: 1:3\n{proxy}\nobjectives: [ar_hits, params]\n").objectives[0].direction == "minimize"
    wanted = f"ratio: 1:3\n{proxy}\nobjectives: [recall, params]\n"
    with pytest.raises(FileError, match=r":3: recall_share: at 0 nothing measures recall.* name ar_hits in its place"):
        read(wanted)
    with pytest.raises(FileError, match=r":3: recall_share: at 0"):
        read(wanted, "data.bpe=4096")
    assert read(wanted + "budget: {recall_share: 0.25}\n").objectives[0].name == "recall"


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


def test_resolved_file_is_valid_by_the_schema() -> None:
    for assignments in ((), ("proxy.width=128",), ("constraints.cache_bytes=64MiB",)):
        study = read(SMALLEST, *assignments)
        jsonschema.validate(read_yaml(dumped(study), "x").plain(), study_schema())
        assert read(dumped(study)) == study


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


@pytest.mark.parametrize(("text", "number"), [("1e12", 10**12), ("1.5E3", 1500), ("2e+2k", 200_000), ("200k", 200_000)])
def test_counts_may_have_an_exponent(text: str, number: int) -> None:
    assert count_of(Item(text, "here", None, text), "context") == number
