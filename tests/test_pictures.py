"""Small pictures: a block drawn for every block, points where the losses are, nothing that runs."""

from __future__ import annotations

import doctest
import xml.etree.ElementTree as ElementTree

import pytest
from synthetic import built, curve

from hybrid_nas import words
from hybrid_nas.architecture import Architecture
from hybrid_nas.design import Design, Ratio
from hybrid_nas.pictures import colour, curve_svg, layout_svg
from hybrid_nas.trial import Point
from hybrid_nas.words import letters

SVG = "{http://www.w3.org/2000/svg}"
MODEL: Architecture = built(Design(ratio=Ratio(1, 3)))[1]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_documented_examples() -> None:
    assert doctest.testmod(words).failed == 0


def test_a_layout_is_drawn_block_by_block() -> None:
    svg = layout_svg(MODEL, "trial <3>")
    said = texts(svg)
    assert said[0] == "trial <3>"
    assert "".join(said[1 : 1 + MODEL.depth]) == MODEL.layout
    fills = [r.get("fill") for r in ElementTree.fromstring(svg).iter(f"{SVG}rect")][1 : 1 + MODEL.depth]
    assert fills == [colour(letter) for letter in MODEL.layout]
    assert any(text.startswith("Mamba-2: d_ssm 3,072") for text in said)
    assert list(letters(MODEL)) == list(dict.fromkeys(MODEL.layout))
    assert len({colour(letter) for letter in "ASMH-"}) == 5


def test_a_curve_stands_where_its_losses_are() -> None:
    points = (Point(500, 3.0), Point(1000, 2.0), Point(1000, 2.2, validation=True))
    root = ElementTree.fromstring(curve_svg(points))
    (line,) = root.iter(f"{SVG}polyline")
    (dot,) = root.iter(f"{SVG}circle")
    (x1, y1), (x2, y2) = (tuple(map(float, pair.split(","))) for pair in line.get("points").split())
    assert float(dot.get("cx")) == x2 > x1
    share = (float(dot.get("cy")) - y2) / (y1 - y2)
    assert share == pytest.approx(0.2, abs=0.01)
    assert any("held-out, last 2.2000" in text for text in texts(curve_svg(points)))


def test_losses_that_are_not_numbers_are_left_out() -> None:
    assert "no loss was recorded" in curve_svg((Point(10, float("nan")),))
    assert "nan" not in curve_svg((*curve(2.0), Point(110_000, float("inf"))))
    assert texts(curve_svg((Point(10, 2.0),)))
