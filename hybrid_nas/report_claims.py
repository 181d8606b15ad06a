"""The report on published claims, and on what more trials would decide."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from hybrid_nas.agreement import Finding
from hybrid_nas.outlook import affordable, continued
from hybrid_nas.page import copied, prose, table
from hybrid_nas.recipe import Recipe
from hybrid_nas.recipe_text import CONTINUES, NOT_ASKED, SOURCE, WANTING
from hybrid_nas.trial import Trial
from hybrid_nas.units import duration


def agreement(recipe: Recipe) -> str:
    """Claims that this study asks, those that it could with more trials, and behind a fold those that it cannot."""
    asked = [finding for finding in recipe.agreement if finding.tested]
    wanting = [finding for finding in recipe.agreement if not finding.tested and finding.askable]
    rest = [finding for finding in recipe.agreement if not finding.tested and not finding.askable]
    lead = (
        f"<p>Claims of {SOURCE}, written down before the study. Published figures are nats per token at 1B, these are "
        "of small models, on other tokens: signs can be compared, sizes cannot.</p>"
    )
    parts = [lead]
    if asked:
        rows = [[f.id, _claim(f), _verdict(f), f"{prose(f.why)}{_then(f)}"] for f in asked]
        parts.append(table(["", "claim", "verdict", "evidence"], rows, wide=True))
    if wanting:
        rows = [[f.id, _claim(f), f"{prose(f.why)}{_then(f)}"] for f in wanting]
        parts += [f"<h3>{WANTING.removesuffix(':')}</h3>", table(["", "claim", "what is missing"], rows, wide=True)]
    if rest:
        items = "".join(
            f"<li>{f.id}, {html.escape(f.claim)} <span class='note'>{prose(f.why)}</span></li>" for f in rest
        )
        parts.append(f"<details><summary>{NOT_ASKED} {len(rest)} claims</summary><ul>{items}</ul></details>")
    return "".join(parts)


def _claim(finding: Finding) -> str:
    return f"{html.escape(finding.claim)}<br><span class='note'>published: {html.escape(finding.printed)}</span>"


def _verdict(finding: Finding) -> str:
    return f"<span class='verdict {finding.verdict}'>{finding.verdict}</span>"


def _then(finding: Finding) -> str:
    return f"<br><span class='note'>{prose(finding.then)}</span>" if finding.then else ""


def further(recipe: Recipe, run_info: Mapping[str, Any], trials: list[Trial]) -> str:
    """What more trials would decide, how long they would take here, and the command."""
    last = f"<p>{prose(recipe.beyond)}</p>" if recipe.beyond else ""
    if not recipe.outlook:
        return last
    took = [trial.seconds for trial in trials if trial.replicate_of is None]
    each = sum(took) / max(1, len(took)) / max(1, int(run_info.get("workers") or 1))
    rows = [
        [f"{step.trials:,}", f"+{step.more:,}", duration(each * step.more) if each else "", html.escape(step.told)]
        for step in recipe.outlook
    ]
    text = f"{last}<p>{prose(CONTINUES)}</p>"
    text += table(["trials in all", "more", "time here", "would decide"], rows, numeric=(0, 1, 2))
    step = affordable(recipe.outlook)
    if run_info.get("command") and step is not None:
        text += f"<p class='note'>All up to {step.trials:,} trials:</p>"
        text += copied(continued(str(run_info["command"]), step.trials))
    return text
