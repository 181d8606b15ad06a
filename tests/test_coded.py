"""The columns of a model, by vectors, against the same by loops over settings."""

from __future__ import annotations

import random

import numpy as np

from hybrid_nas.coded import Coded

CHOICES = {"ratio": ("1:0", "1:1", "1:3"), "state": ("16", "64"), "place": ("front", "end"), "one": ("only",)}


def drawn(seed: int) -> dict[str, list[dict[str, str]]]:
    """Proxies of one to three designs each; every choice but the first is left out now and then."""
    rng = random.Random(seed)

    def settings() -> dict[str, str]:
        kept = [name for name in CHOICES if name == "ratio" or rng.random() < 0.8]
        return {name: rng.choice(CHOICES[name]) for name in kept}

    return {f"p{i}": [settings() for _ in range(rng.randint(1, 3))] for i in range(40)}


def test_the_columns_are_those_of_a_loop_over_designs() -> None:
    designs = drawn(1)
    coded = Coded.of(designs)
    assert coded.options["ratio"] == ("1:0", "1:1", "1:3")
    kept = coded.having("state") & ~coded.taking("ratio", "1:1")
    by_loop = {
        proxy: rest
        for proxy, found in designs.items()
        if (rest := [s for s in found if "state" in s and s["ratio"] != "1:1"])
    }
    assert coded.rows(kept) == list(by_loop)
    shares = coded.shares(kept, coded.column("state")[kept], 2)
    expected = [[sum(s["state"] == o for s in found) / len(found) for o in ("16", "64")] for found in by_loop.values()]
    np.testing.assert_allclose(shares, expected)
    columns = coded.adjustment(kept, ("state",))
    assert columns.shape[1] == 2  # place, and ratio of which two options are left; `one` has a single option
    for row, found in zip(columns, by_loop.values(), strict=True):
        place = sum({"front": 1, "end": -1}.get(s.get("place", ""), 0) for s in found) / len(found)
        ratio = sum({"1:0": 1, "1:3": -1}[s["ratio"]] for s in found) / len(found)
        np.testing.assert_allclose(row, [place, ratio])


def test_designs_alike_but_for_one_choice_are_one_context() -> None:
    designs = drawn(2)
    coded = Coded.of(designs)
    by_loop: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for proxy, found in designs.items():
        for settings in found:
            if "state" in settings:
                rest = tuple(sorted(item for item in settings.items() if item[0] != "state"))
                by_loop.setdefault(rest, {})[settings["state"]] = proxy
    contexts = coded.contexts(coded.having("state"), "state")
    assert sorted(map(sorted, (c.items() for c in contexts))) == sorted(
        map(sorted, (c.items() for c in by_loop.values()))
    )


def test_no_design_gives_no_row() -> None:
    coded = Coded.of({})
    assert coded.options == {}
    assert coded.adjustment(np.ones(0, dtype=bool)).shape == (0, 0)
