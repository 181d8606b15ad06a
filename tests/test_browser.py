"""The report and the dashboard in a real browser: every chart drawn, no error, filter, hover and links at work.

Needs Chromium (Debian: `apt-get install chromium`) and Playwright's Python client, which is in the extra `dev`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from installed import COMMAND, TINY, environment
from synthetic import bare_trial, curve, grid, objectives, study, trial

from hybrid_nas.front import Front
from hybrid_nas.recipe import Recipe
from hybrid_nas.report import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path (Debian: apt-get install chromium)")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


class Tab:
    """A page, and everything that its console said."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.said: list[str] = []
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("request", lambda request: self.asked.append(request.url))
        self.asked: list[str] = []


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        yield started.chromium


@pytest.fixture
def tab(chromium: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Tab]:
    look = {"viewport": DESK, "color_scheme": "light", **getattr(request, "param", {})}
    profile = chromium.launch_persistent_context(
        str(tmp_path / "profile"), executable_path=CHROMIUM, args=FLAGS, headless=True, **look
    )
    yield Tab(profile.new_page())
    profile.close()


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list, Front]:
    rng = np.random.default_rng(2)
    trials = study(
        grid(),
        lambda d: 2 - 0.05 * d.has_attention + 0.1 * (d.placement == "front" and d.d_state == 16),
        rng,
        own=0.005,
        common=0.01,
        recall=lambda d: 0.2 + 0.6 * d.has_attention,
    )
    trials = [t.with_changes(curve=curve(t.values["loss"]), tokens=100_000) for t in trials]
    trials.append(trial(len(trials), grid()[5], state="stopped", curve=curve(2.2, share=0.5)))
    trials.append(trial(len(trials), grid()[6], state="failed", failure="loss is not finite"))
    front = Front.of(trials, objectives(), draws=200)
    path = tmp_path_factory.mktemp("report") / "report.html"
    info = {"name": "browser", "command": "hybrid-nas search inter_layer --seed 3"}
    write_report(info, trials, objectives(), front, Recipe.of(trials, objectives(), front), path)
    return path, trials, front


def opened(tab: Tab, path: Path) -> Any:
    tab.page.goto(path.as_uri())
    tab.page.wait_for_selector("body[data-drawn]", timeout=60_000)
    return tab.page


def visible(page: Any) -> list[int]:
    rows = page.locator("#trials tbody tr:not([hidden])").evaluate_all("rows => rows.map(row => row.id.slice(1))")
    return [int(row) for row in rows]


def test_every_chart_is_drawn_and_nothing_is_fetched(tab: Tab, studied: Any) -> None:
    path, _, front = studied
    page = opened(tab, path)
    plots = page.locator(".plot")
    assert plots.count() == int(page.evaluate("document.body.dataset.drawn")) >= 6
    for i in range(plots.count()):
        plot = plots.nth(i)
        assert plot.locator("svg.main-svg").count() > 0
        shapes = plot.locator(".scatterlayer .trace path")
        drawn = shapes.evaluate_all("all => all.filter((path) => path.getBBox().width > 0).length")
        assert drawn > 0, plot.get_attribute("id")
    dots = page.locator("#front-0 .scatterlayer .trace .points path").count()
    assert dots == len(front.candidates)
    assert tab.said == []
    assert [url for url in tab.asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_table_filters_and_sorts(tab: Tab, studied: Any) -> None:
    path, trials, front = studied
    page = opened(tab, path)
    assert visible(page) == [t.number for t in trials]
    page.fill("#wanted", "1:3 spread")
    wanted = [t.number for t in trials if str(t.design.ratio) == "1:3" and t.design.placement == "spread"]
    assert visible(page) == wanted
    assert page.locator("#count").inner_text() == f"{len(wanted)} of {len(trials)} trials"
    page.fill("#wanted", "")
    page.select_option("#state", "failed")
    assert visible(page) == [t.number for t in trials if t.state == "failed"]
    page.select_option("#state", "")
    page.check("#onfront")
    assert set(visible(page)) == {number for c in front.members for number in c.trials}
    page.uncheck("#onfront")
    page.click("#trials th button:text-is('loss')")
    losses = {t.number: t.values["loss"] for t in trials if "loss" in t.values}
    ordered = visible(page)
    assert [n for n in ordered if n in losses] == sorted(losses, key=lambda n: (losses[n],))
    assert ordered[-2:] == [t.number for t in trials if t.number not in losses]  # rows without a loss stay last
    assert tab.said == []


def test_the_filter_finds_whole_words_of_a_trials_own_fields(tab: Tab, studied: Any) -> None:
    path, trials, _ = studied
    page = opened(tab, path)

    def found(text: str) -> list[int]:
        page.fill("#wanted", text)
        return visible(page)

    def such(keep: Any) -> list[int]:
        return [t.number for t in trials if keep(t)]

    assert 0 < len(such(lambda t: t.design.d_state == 16)) < len(trials)
    assert found("d_state 16") == such(lambda t: t.design.d_state == 16)  # not the 116 MiB of another
    assert found("16 spread d_state 16") == such(
        lambda t: t.number == 16 and t.design.placement == "spread" and t.design.d_state == 16
    )
    assert found("trial 5") == found("5") == [5]
    assert found("inter") == found("whole layers") == such(lambda t: t.design.family == "inter")
    assert found("none") == found("nope") == such(lambda t: t.design.position == "none")
    assert found("1:3") == such(lambda t: str(t.design.ratio) == "1:3")
    assert found("spr") == such(lambda t: t.design.placement == "spread")
    first = trials[0].layout[:5]
    assert found(first) == such(lambda t: first in t.layout)
    assert found("MiB") == found("d_state 1") == []
    assert tab.said == []


def test_points_and_rows_lead_to_each_other(tab: Tab, studied: Any) -> None:
    path, _, front = studied
    page = opened(tab, path)
    best = front.members[0]
    page.click(f"#t{best.number} button.find")
    page.wait_for_selector("#front-0 .hoverlayer .hovertext")
    assert f"trial {best.number}" in page.locator("#front-0 .hoverlayer").text_content()
    page.fill("#wanted", "nothing has this")
    page.locator("#front-0").scroll_into_view_if_needed()
    page.wait_for_timeout(600)
    points = page.locator("#front-0 .scatterlayer .trace").last.locator(".points path")
    box = points.nth(0).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#front-0 .hoverlayer .hovertext")
    assert f"trial {best.number}" in page.locator("#front-0 .hoverlayer").text_content()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector(f"#t{best.number}.shown")  # the filter that hid it is taken away
    assert tab.said == []


def test_a_long_table_is_paged_and_a_link_finds_its_page(tab: Tab, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    trials = [bare_trial(i, 2 + float(rng.normal()), 10 + i) for i in range(250)]
    front = Front.of(trials, objectives())
    path = tmp_path / "long.html"
    write_report({"name": "long"}, trials, objectives(), front, Recipe.of(trials, objectives(), front), path)
    page = opened(tab, path)
    assert visible(page) == list(range(100))
    page.click("#pager button:last-child")
    assert visible(page) == list(range(100, 200))
    assert "101 to 200" in page.locator("#pager").inner_text()
    page.click("#trials th button:text-is('loss')")
    ordered = sorted(range(250), key=lambda i: trials[i].values["loss"])
    assert visible(page) == ordered[:100]
    last = max((c.number for c in front.members), key=ordered.index)
    page.evaluate(f"document.querySelector('.member a[href=\"#t{last}\"]').click()")
    page.wait_for_selector(f"#t{last}.shown")
    assert page.locator("#count").inner_text() == "250 trials"
    assert tab.said == []


def test_attainment_switches_between_tokens_and_time(tab: Tab, studied: Any) -> None:
    page = opened(tab, studied[0])
    title = page.locator("#attainment .xtitle")
    assert title.text_content() == "tokens trained"
    page.click(".toggle[data-for=attainment] button[data-show=seconds]")
    page.wait_for_function("document.querySelector('#attainment .xtitle').textContent.startsWith('training time')")
    assert page.locator(".toggle[data-for=attainment] button[aria-pressed=true]").inner_text() == "time"


def test_designs_far_off_come_into_the_picture_when_asked_for(tab: Tab, tmp_path: Path) -> None:
    trials = [bare_trial(i, 1.0 + (7 * i % 9) / 100, 10 + i) for i in range(9)] + [bare_trial(9, 9.0, 500)]
    front = Front.of(trials, objectives())
    write_report(
        {"name": "far"}, trials, objectives(), front, Recipe.of(trials, objectives(), front), tmp_path / "r.html"
    )
    page = opened(tab, tmp_path / "r.html")

    def top() -> float:
        return page.evaluate("Math.max(...document.querySelector('#front-0')._fullLayout.yaxis.range)")

    assert top() < 1.2
    page.click(".toggle[data-for=front-0] button[data-range=all]")
    page.wait_for_function("Math.max(...document.querySelector('#front-0')._fullLayout.yaxis.range) > 9")
    page.click(".toggle[data-for=front-0] button[data-range=near]")
    page.wait_for_function("Math.max(...document.querySelector('#front-0')._fullLayout.yaxis.range) < 1.2")
    page.click("#t9 button.find")  # a row whose point is out of the picture brings it in
    page.wait_for_selector("#front-0 .hoverlayer .hovertext")
    assert top() > 9
    assert tab.said == []


@pytest.mark.parametrize(
    "tab", [{"viewport": PHONE}, {"viewport": PHONE, "color_scheme": "dark"}, {"color_scheme": "dark"}], indirect=True
)
def test_it_reads_on_a_phone_and_in_the_dark(tab: Tab, studied: Any, tmp_path: Path) -> None:
    page = opened(tab, studied[0])
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = page.evaluate(
        "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
    )
    bright = [sum(map(int, re.findall(r"\d+", text)[:3])) for text in (ink, paper)]
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (bright[0] > bright[1]) == dark
    assert abs(bright[0] - bright[1]) > 450
    boxes = page.locator("#front-0 .annotation-text-g").evaluate_all(
        "all => all.map((one) => one.getBoundingClientRect()).map((box) => [box.left, box.right, box.top, box.bottom])"
    )
    assert len(boxes) >= 2
    for one, other in combinations(boxes, 2):  # labels of points that lie close together do not cover each other
        assert one[1] <= other[0] or other[1] <= one[0] or one[3] <= other[2] + 1 or other[3] <= one[2] + 1
    grid = page.evaluate("document.querySelector('#front-0').layout.xaxis.gridcolor")
    assert grid == ("#2d2b29" if dark else "#ebe8e1")
    picture = tmp_path / "report.png"
    page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 100_000
    assert tab.said == []


@pytest.mark.parametrize("tab", [{"viewport": PHONE}], indirect=True)
def test_a_described_trial_and_a_comparison_fit_a_phone(tab: Tab, studied: Any, tmp_path: Path) -> None:
    from hybrid_nas.comparison import Comparison
    from hybrid_nas.comparison_page import comparison_page
    from hybrid_nas.description import Description
    from hybrid_nas.description_page import description_page
    from hybrid_nas.pictures import curve_svg
    from hybrid_nas.roofline import device

    _, trials, _ = studied
    loss = f"<section><h2>In run</h2>{curve_svg(trials[0].curve)}</section>"
    described = Description.of(trials[0].target, 8192)
    (tmp_path / "design.html").write_text(description_page(described, device("h100"), 1, "run#0", loss))
    sides = [(name, "paper-350m", trials, objectives()) for name in ("one", "two")]
    (tmp_path / "compare.html").write_text(comparison_page(Comparison.of(sides)))
    for name in ("design.html", "compare.html"):
        tab.page.goto((tmp_path / name).as_uri())
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name
    assert tab.said == []


def test_the_table_of_trials_shows_every_column_on_a_screen(tab: Tab, studied: Any) -> None:
    page = opened(tab, studied[0])
    box = "document.querySelector('#trials').parentElement"
    assert page.evaluate(f"{box}.scrollWidth <= {box}.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= DESK["width"]
    assert tab.said == []


@pytest.mark.parametrize("tab", [{"viewport": PHONE}, {"viewport": DESK}], indirect=True)
def test_what_stands_beside_a_point_is_in_sight_and_labels_hide_no_member(tab: Tab, studied: Any) -> None:
    page = opened(tab, studied[0])
    page.locator("#front-0").scroll_into_view_if_needed()
    points = page.locator("#front-0 .scatterlayer .trace").last.locator(".points path")
    edges = (
        "all => all.map((one) => one.getBoundingClientRect()).map((box) => [box.left, box.right, box.top, box.bottom])"
    )
    for i in range(points.count()):
        box = points.nth(i).bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_selector("#front-0 .hoverlayer .hovertext path")
        page.wait_for_timeout(150)
        for left, right, _, _ in page.locator("#front-0 .hoverlayer .hovertext path").evaluate_all(edges):
            assert left >= 0
            assert right <= page.viewport_size["width"]
            assert right - left < 240
    drawn = points.evaluate_all(edges)
    for one in page.locator("#front-0 .annotation-text-g").evaluate_all(edges):
        for dot in drawn:
            assert one[1] <= dot[0] or dot[1] <= one[0] or one[3] <= dot[2] or dot[3] <= one[2]
    assert tab.said == []


@pytest.mark.slow
def test_the_dashboard_shows_the_answer_and_the_pictures(tab: Tab, tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="the extra `dashboard` is not installed")
    from hybrid_nas.dashboard import HEAD, serving
    from hybrid_nas.run_folder import Run

    (tmp_path / "tiny.yaml").write_text(TINY)
    command = [COMMAND, "search", "tiny.yaml", "--out", "run", "--workers", "1", "--trials", "3"]
    subprocess.run(command, cwd=tmp_path, env=environment(), check=True, capture_output=True, timeout=300)
    with serving(Run(tmp_path / "run"), port=0) as address:
        page = tab.page
        page.goto(f"{address}/dashboard/studies/1/note")
        page.wait_for_selector(f"text={HEAD.removeprefix('# ')}", timeout=60_000)
        page.goto(f"{address}/dashboard/studies/1/trials")
        page.wait_for_selector("text=layout.svg", timeout=60_000)
        page.wait_for_function(
            "[...document.images].filter(i => i.src.includes('/artifacts/') && i.naturalWidth > 0).length >= 2"
        )
        assert page.locator("text=GFLOP/token").count() > 0
        assert [text for text in tab.said if text.startswith("error")] == []
