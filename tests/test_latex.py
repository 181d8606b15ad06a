"""The appendix is LaTeX: read by a parser everywhere, and set for real where LaTeX is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from synthetic import curve, grid, objectives, study, trial

from hybrid_nas.design import Design, Ratio
from hybrid_nas.front import Front
from hybrid_nas.recipe import Recipe
from hybrid_nas.recipe_text import latex


def recipes() -> dict[str, str]:
    """A study with decided and open rules, one of long names, and one with nothing to say."""
    rng = np.random.default_rng(2)
    decided = study(
        grid(), lambda d: 2 + 0.05 * (d.placement == "front"), rng, own=0.004, recall=lambda d: 0.9 * d.has_attention
    )
    decided = [t.with_changes(curve=curve(t.values["loss"])) for t in decided]
    parallel = [
        Design(family="intra", ratio=Ratio(1, r), fusion=f, output=o, norm=n)
        for r in (1, 3, 5)
        for f, o in (("concat", "joint"), ("difference", "separate"))
        for n in ("group", "none")
    ]
    long = [trial(i, d, 2 + 0.1 * (d.norm == "none") + rng.normal(0, 0.01)) for i, d in enumerate(parallel)]
    found = {}
    for name, trials in (("decided", decided), ("long", long), ("empty", [trial(0, grid()[0], 2.0)])):
        front = Front.of(trials, objectives(), draws=20)
        found[name] = latex(Recipe.of(trials, objectives(), front))
    return found


def test_a_parser_of_latex_reads_it() -> None:
    walker = pytest.importorskip("pylatexenc.latexwalker", reason="the package pylatexenc is not installed")
    for name, text in recipes().items():
        nodes, _, _ = walker.LatexWalker(text, tolerant_parsing=False).get_latex_nodes()
        tables = [node for node in nodes if node.isNodeType(walker.LatexEnvironmentNode)]
        assert [node.environmentname for node in tables] == ["table", "table"], name
        for node in tables:
            inner = [one for one in node.nodelist if one.isNodeType(walker.LatexEnvironmentNode)]
            assert [one.environmentname for one in inner] == ["tabular"]
            rows = [row for row in text[inner[0].pos :].split("\\end{tabular}")[0].splitlines() if row.endswith("\\\\")]
            assert len(rows) > 1
            assert len({row.count(" & ") for row in rows if "multicolumn" not in row}) == 1


@pytest.mark.slow
def test_latex_sets_it_on_one_page_each_and_within_the_margins(tmp_path: Path) -> None:
    program = shutil.which("pdflatex")
    if program is None or not subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, check=False).stdout:
        pytest.skip("no LaTeX with booktabs (Debian: apt-get install texlive-latex-recommended, a minute and 150 MB)")
    for name, text in recipes().items():
        (tmp_path / "recipe.tex").write_text(text)
        (tmp_path / "page.tex").write_text(
            "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\input{recipe}\\end{document}"
        )
        run = [program, "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
        done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout
        log = (tmp_path / "page.log").read_text(errors="replace")
        assert re.findall(r"Overfull|too large|undefined", log) == [], name
        assert (tmp_path / "page.pdf").stat().st_size > 10_000
