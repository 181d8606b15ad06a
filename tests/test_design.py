from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid_nas.architecture import Architecture
from hybrid_nas.cost import params_nonembedding
from hybrid_nas.design import PLACEMENTS, Design, Ratio, Refused, architecture_of_layout, place, place_at
from hybrid_nas.placement import layout_at
from hybrid_nas.scale import PAPER, PROXY, Scale

RATIOS = ("1:0", "1:1", "1:3", "1:5", "1:12", "0:1")


@pytest.mark.parametrize(
    ("scale", "counts"),
    [
        ("paper-1b", [(16, 0), (7, 7), (3, 10), (2, 11), (1, 12), (0, 13)]),
        ("paper-350m", [(14, 0), (6, 6), (3, 8), (2, 9), (1, 10), (0, 11)]),
        ("paper-100m", [(8, 0), None, None, (1, 5), None, (0, 6)]),
        ("paper-3b", [(28, 0), None, None, (4, 18), None, (0, 21)]),
    ],
)
def test_depth_rule_finds_the_papers_layers(scale: str, counts: list[tuple[int, int] | None]) -> None:
    for ratio, expected in zip(RATIOS, counts, strict=True):
        model = Design(ratio=Ratio.parse(ratio)).at(PAPER[scale])
        if expected is not None:
            assert (model.layout.count("A"), model.layout.count("M")) == expected, ratio
            assert {block.ffn.hidden for block in model.blocks if block.ffn} == {PAPER[scale].ffn_hidden}


@given(
    ratio=st.sampled_from(RATIOS),
    placement=st.sampled_from(PLACEMENTS),
    d_state=st.sampled_from((16, 64, 128)),
    kv_heads=st.sampled_from((None, Fraction(1, 4), Fraction(1))),
)
def test_equal_parameters_at_the_proxy(ratio: str, placement: str, d_state: int, kv_heads: Fraction | None) -> None:
    design = Design(ratio=Ratio.parse(ratio), placement=placement, d_state=d_state, kv_heads=kv_heads)  # type: ignore[arg-type]
    model = design.at(PROXY)
    assert abs(params_nonembedding(model) / PROXY.params - 1) < 0.02
    assert model.depth >= 10


@pytest.mark.parametrize("d_state", [16, 64, 128])
def test_ratios_and_placements_stay_distinct_at_the_proxy(d_state: int) -> None:
    """As many different proxies as there are different models at the target."""
    ids: dict[str, set[str]] = {"proxy": set(), "target": set()}
    for ratio in RATIOS:
        for placement in PLACEMENTS:
            design = Design(ratio=Ratio.parse(ratio), placement=placement, d_state=d_state)
            ids["proxy"].add(design.at(PROXY).id)
            ids["target"].add(design.at(PAPER["paper-1b"]).id)
    assert len(ids["proxy"]) == len(ids["target"]) == 2 + 3 * 5 + 3  # at 1:12, middle, spread and sandwich are one


def test_placements_by_hand() -> None:
    assert place("front", 3, 13) == (0, 1, 2)
    assert place("end", 3, 13) == (10, 11, 12)
    assert place("middle", 2, 13) == (6, 7)
    assert [i + 1 for i in place("spread", 7, 14)] == [2, 4, 6, 8, 10, 12, 14]
    assert [i + 1 for i in place("spread", 3, 13)] == [3, 7, 11]
    assert [i + 1 for i in place("spread", 1, 13)] == [7]
    assert [i + 1 for i in place("sandwich", 7, 13)] == [1, 2, 6, 7, 8, 12, 13]
    assert [i + 1 for i in place("sandwich", 2, 13)] == [1, 13]
    assert place_at((0.0, 0.5, 1.0), 13) == (0, 6, 12)
    with pytest.raises(Refused, match="fall on one layer of 4"):
        place_at((0.5, 0.55), 4)


@given(count=st.integers(1, 12), extra=st.integers(0, 12), placement=st.sampled_from(PLACEMENTS))
def test_placement_is_a_set_of_layers(count: int, extra: int, placement: str) -> None:
    layers = place(placement, count, count + extra)  # type: ignore[arg-type]
    assert len(set(layers)) == count
    assert min(layers) >= 0
    assert max(layers) < count + extra


def test_two_spellings_are_one_design() -> None:
    assert Design(ratio=Ratio(2, 6)) == Design(ratio=Ratio(1, 3), placement="spread")
    assert Design(ratio=Ratio(0, 1), placement="front", window=64) == Design(ratio=Ratio(0, 3))
    assert Design(ratio=Ratio(1, 0), d_state=64) == Design(ratio=Ratio(5, 0))
    assert Design(positions=(0.6, 0.3)) == Design(positions=(0.3, 0.6))
    assert Design(ratio=Ratio(1, 1), sinks=4) == Design(ratio=Ratio(1, 1))


def test_beyond_five_percent_is_refused_with_the_reason() -> None:
    tight = PROXY.with_changes(params=40_000)
    with pytest.raises(Refused, match=r"FFN of .* channels"):
        Design(ratio=Ratio(0, 1), d_state=128).at(tight)
    with pytest.raises(Refused, match="head_dim 96 does not divide the 128 Mamba channels"):
        Design(ratio=Ratio(0, 1), head_dim=96).at(PROXY)


def test_round_trips() -> None:
    design = Design(ratio=Ratio(1, 5), d_state=64, kv_heads=Fraction(1, 4), window=Fraction(1, 16), sinks=4)
    assert Design.from_dict(design.to_dict()) == design
    model = design.at(PAPER["paper-1b"])
    again = Architecture.from_dict(model.to_dict())
    assert again == model
    assert again.id == model.id
    assert model.layout == "MMMSMMMMMSMMM"


def test_id_is_the_same_everywhere() -> None:
    """Pinned: the id names results in other people's files."""
    model = architecture_of_layout("AM", Design(ratio=Ratio(1, 1)), PROXY)
    import hashlib
    import json

    text = json.dumps(model.to_dict(), sort_keys=True, separators=(",", ":"))
    assert model.id == hashlib.sha256(text.encode()).hexdigest()[:12]


@pytest.mark.parametrize(("layout", "message"), [("", "a letter a layer"), ("MXM", "letter 2 is 'X'")])
def test_unknown_letters(layout: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        architecture_of_layout(layout, Design(ratio=Ratio(1, 1)), PROXY)


def test_a_window_that_hides_nothing_is_full_attention() -> None:
    wide, full = Design(ratio=Ratio(1, 1), window=512, sinks=4), Design(ratio=Ratio(1, 1))
    assert wide.at(PROXY) == full.at(PROXY)  # context 128
    assert wide.at(PAPER["paper-1b"]) != full.at(PAPER["paper-1b"])
    with pytest.raises(Refused, match="sinks of 1024 tokens pass the window of 512"):
        Design(ratio=Ratio(1, 1), window=512, sinks=1024).at(PROXY)


def parallel(**choices: object) -> Design:
    return Design(**{"family": "intra", "ratio": Ratio(1, 3), **choices})  # type: ignore[arg-type]


def test_equal_parallel_hybrids_are_one_design() -> None:
    assert parallel() == parallel(norm="group", scale="none", fusion="difference", value="separate", output="separate")
    assert parallel(attention_share=Fraction(1, 4)) == parallel(
        attention_width=Fraction(1, 4), mamba_width=Fraction(3, 4)
    )
    assert parallel(value_width=Fraction(1)) == parallel()
    assert parallel(fusion="concat") == parallel(fusion="concat", output="joint")
    assert parallel(ratio=Ratio(0, 1), norm="none") == Design(ratio=Ratio(0, 1))
    assert parallel(attention_share=Fraction(1), norm="none") == Design(ratio=Ratio(1, 3))
    assert parallel(attention_share=Fraction(0)) == Design(ratio=Ratio(0, 1))
    assert Design(layout="tmhm") == Design(layout="AMHM")
    assert Design(layout="HHH") == parallel(ratio=Ratio(1, 0))
    assert Design(layout="AHM", attention_share=Fraction(1)) == Design(layout="AAM")
    assert Design(layout="AHM").family == "mixed"
    assert Design(ratio=Ratio(1, 3), norm="none") == Design(ratio=Ratio(1, 3))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"value": "joint", "attention_share": Fraction(0)}, "value joint needs both halves"),
        ({"output": "joint", "value_width": Fraction(1)}, "difference with output joint needs halves of equal width"),
        ({"value": "joint", "value_width": Fraction(1, 2)}, "value joint needs halves of equal width"),
        ({"fusion": "concat", "output": "separate"}, "output separate has no meaning with fusion concat"),
        ({"attention_width": Fraction(1, 2)}, "attention_width and mamba_width stand together"),
        ({"attention_width": Fraction(1, 2), "mamba_width": Fraction(0)}, "attention_width must be 1"),
        ({"attention_share": Fraction(1, 2), "mamba_width": Fraction(1, 2)}, "not both"),
        ({"halves": "mamba", "value": "joint"}, "two halves of Mamba have none"),
        ({"halves": "attention", "attention_share": Fraction(1, 2)}, "attention_share means nothing with halves"),
        ({"halves": "both"}, "halves is one of attention-mamba, attention, mamba, found 'both'"),
        ({"fusion": "subtract"}, "fusion is one of add, difference, concat, found 'subtract'"),
        ({"layout": "HM"}, "one of the three"),
    ],
)
def test_what_cannot_stand_together(choices: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parallel(**choices)


@given(
    layout=st.text("ASMH", min_size=1, max_size=20),
    depth=st.integers(1, 60),
)
def test_a_layout_keeps_its_letters_at_any_depth(layout: str, depth: int) -> None:
    try:
        found = layout_at(layout, depth)
    except Refused:
        assert depth < len(layout)
        return
    assert len(found) == depth
    assert set(found) == set(layout)
    for letter in set(layout):
        assert abs(found.count(letter) - layout.count(letter) * depth / len(layout)) < len(set(layout))
    if depth == len(layout):
        assert found == layout


def test_pairs_of_one_kind() -> None:
    """The Differential Transformer has the parameters of the Transformer: half the queries and keys twice."""
    scale = PAPER["paper-1b"]
    transformer = Design(ratio=Ratio(1, 0)).at(scale)
    pair = parallel(ratio=Ratio(1, 0), halves="attention", norm="none", scale="diff", value="joint", output="joint")
    model = pair.at(scale)
    assert params_nonembedding(model) == params_nonembedding(transformer) + model.depth  # one weight a layer
    assert Architecture.from_dict(model.to_dict()) == model
    assert Design.from_dict(pair.to_dict()) == pair
    mamba = parallel(ratio=Ratio(1, 0), halves="mamba", d_state=64)
    assert (mamba.kv_heads, mamba.position, mamba.d_state) == (None, None, 64)
    assert (pair.d_state, pair.position, pair.has_mamba) == (None, "rope", False)
    assert parallel(halves="attention-mamba") == parallel()


def test_layouts_by_hand() -> None:
    assert layout_at("MMHMMA", 12) == "MMMMHHMMMMAA"
    assert layout_at("MMMAMMMAMMMMM MMMAMMMAMMM", 11) == "MMMAMMMAMMM"
    assert layout_at("MMMAMMMAMMMMM MMMAMMMAMMM", 13) == "MMMAMMMAMMMMM"
    assert layout_at("AMMMMMMMMMMMM", 15) == "A" + "M" * 14
    assert layout_at("MMMMMMMMMMMMA", 9) == "M" * 8 + "A"
    with pytest.raises(Refused, match="has no layer of A left at a depth of 3"):
        layout_at("MMMMMMMMMMMMA", 3)
    mixed = Design(layout="MMASHM").at(PROXY)
    assert {"A", "S", "H", "M"} == set(mixed.layout)
    assert abs(params_nonembedding(mixed) / PROXY.params - 1) < 0.02


def test_parallel_hybrids_at_the_proxy() -> None:
    """Equal parameters for every split, and a width that a scale cannot give is refused."""
    for share in (Fraction(1, 4), Fraction(1, 2), Fraction(3, 4)):
        model = parallel(attention_share=share).at(PROXY)
        assert abs(params_nonembedding(model) / PROXY.params - 1) < 0.02
        again = Architecture.from_dict(model.to_dict())
        assert (again, again.id) == (model, model.id)
    with pytest.raises(Refused, match="attention_width of 1100 channels"):
        parallel(attention_width=1100, mamba_width=1152).at(PAPER["paper-1b"])
    design = parallel(attention_width=1152, mamba_width=1152)
    assert design.at(PAPER["paper-1b"]) == parallel().at(PAPER["paper-1b"])
    assert Design.from_dict(design.to_dict()) == design


@pytest.mark.parametrize(
    ("mixer", "letter"), [("mamba2", "M"), ("mamba1", "1"), ("mamba3", "3"), ("gated_deltanet", "G")]
)
@pytest.mark.parametrize("scale", [PROXY, *PAPER.values()], ids=lambda scale: scale.name)
def test_recurrent_mixers_at_equal_parameters(mixer: str, letter: str, scale: Scale) -> None:
    """Depth, then the FFN, meets the budget whatever stands for M; and the letters of a layout say the same model."""
    design = Design(ratio=Ratio(1, 3), mixer=mixer)
    model = design.at(scale)
    assert abs(params_nonembedding(model) / scale.params - 1) < 0.05
    assert set(model.layout) == {"A", letter}
    assert Design.from_dict(design.to_dict()) == design
    spelled = Design(layout=f"{letter}A{letter}")
    assert spelled == Design(layout="MAM", mixer=mixer)
    assert architecture_of_layout(model.layout, Design(ratio=Ratio(1, 1)), scale).layout == model.layout
    assert Architecture.from_dict(model.to_dict()) == model


def test_two_recurrent_mixers_in_one_stack() -> None:
    design = Design(layout="M13A", d_state=8)
    assert design.at(PROXY).layout.count("1") > 0
    model = architecture_of_layout("M13A", Design(ratio=Ratio(1, 1)), PROXY)
    kinds = [block.mixer.kind for block in model.blocks if block.mixer]
    assert kinds == ["mamba2", "mamba1", "mamba3", "attention"]


def test_a_mixer_keeps_only_what_it_reads() -> None:
    assert Design(ratio=Ratio(0, 1), mixer="mamba1", head_dim=8) == Design(ratio=Ratio(0, 1), mixer="mamba1")
    assert Design(ratio=Ratio(0, 1), mixer="mamba1", d_state=8) != Design(ratio=Ratio(0, 1), mixer="mamba1")
    assert Design(ratio=Ratio(1, 0), mixer="mamba1", d_state=8) == Design(ratio=Ratio(1, 0))


def test_experts_meet_the_budget_by_what_is_active() -> None:
    """At every scale the active parameters, not all, are those of the dense model."""
    for scale in (PROXY, *PAPER.values()):
        model = Design(ratio=Ratio(1, 3), ffn="moe").at(scale)
        assert abs(params_nonembedding(model, active=True) / scale.params - 1) < 0.05
        assert params_nonembedding(model) > 2 * scale.params
        assert Architecture.from_dict(model.to_dict()) == model
    design = Design(ratio=Ratio(1, 3), ffn="moe", experts=4, experts_active=2)
    assert Design.from_dict(design.to_dict()) == design
    assert Design(ratio=Ratio(1, 3), experts=4) == Design(ratio=Ratio(1, 3))
    with pytest.raises(Refused, match="experts_active 3 is more than the 2 experts"):
        Design(ratio=Ratio(1, 3), ffn="moe", experts=2, experts_active=3).at(PROXY)
