"""The plain parts of the report: which designs coincide, what did not finish, every trial, and how to run again."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Container, Iterable, Mapping
from typing import Any

from hybrid_nas.front import Front
from hybrid_nas.page import Cell, Rows, copied
from hybrid_nas.recipe import common, describe
from hybrid_nas.trial import Trial
from hybrid_nas.units import bare, duration, listed, moment, readable

NUMERIC = ("trial", "seed", "loss", "recall", "cache", "decoding", "training", "parameters", "time")
FAMILIES = {"inter": "whole layers", "intra": "parallel hybrid"}
NAMED = 30  # trials that a sentence names; the table has them all


def coinciding(run_info: Mapping[str, Any], front: Front) -> str:
    """Designs that are one model at the proxy scale."""
    groups = {tuple(sorted((c.number, *c.coincides_with))) for c in front.candidates if c.coincides_with}
    if not groups:
        return ""
    named = "; ".join(listed(str(n) for n in group) for group in sorted(groups)[:NAMED])
    named += "; and others" if len(groups) > NAMED else ""
    told = run_info.get("coincide") or sum(len(group) - 1 for group in groups)
    return (
        "<p>Some designs are one model at the proxy scale. They share its training, "
        f"so their quality is the same number and only their cost at the target differs ({told} designs): trials "
        f"{named}.</p>"
    )


def left_out(run_info: Mapping[str, Any], trials: list[Trial]) -> str:
    """What was stopped, refused and failed, and why."""
    parts = []
    stopped = [t for t in trials if t.state == "stopped"]
    if stopped:
        which = _trials([str(t.number) for t in stopped])
        parts.append(
            f"<p>Stopped early, their loss beaten at a rung by designs that cost no more: {len(stopped)} "
            f"({which}). They have no final loss; where their rungs foretell it, effects on loss use what is foretold, "
            "and the rules say so.</p>"
        )
    failures: dict[str, list[str]] = {}
    for trial in trials:
        if trial.state == "failed":
            failures.setdefault(trial.failure or "no reason recorded", []).append(str(trial.number))
    for reason, numbers in failures.items():
        parts.append(f"<p>Failed, {_trials(numbers)}: {html.escape(reason)}</p>")
    refused = run_info.get("refused") or {}
    if refused:
        rows = "".join(
            f'<tr><td class="n">{int(count):,}</td><td>{html.escape(str(reason))}</td></tr>'
            for reason, count in sorted(refused.items(), key=lambda item: -item[1])
        )
        parts.append(
            '<p>Refused before training:</p><div class="scroll"><table><thead><tr><th class="n">designs</th>'
            f"<th>why</th></tr></thead><tbody>{rows}</tbody></table></div>"
        )
    for why, count in (run_info.get("left_out") or {}).items():
        parts.append(f"<p>Left out, {int(count):,} of the combinations of the space's lists: {html.escape(why)}.</p>")
    return "".join(parts) or "<p>None.</p>"


def _trials(numbers: list[str]) -> str:
    named = listed(numbers[:NAMED]) if len(numbers) <= NAMED else f"{', '.join(numbers[:NAMED])} and others"
    return f"trial{'s' if len(numbers) > 1 else ''} {named}"


def trials_table(trials: list[Trial]) -> str:
    """The frame of the table of all trials, sortable by any column; `trial_rows` are its rows."""
    if not trials:
        return ""
    head = ["trial", "state", "layout", *NUMERIC[1:], "design", "note"]
    cells = "".join(
        f'<th{" class=n" if name in NUMERIC else ""}><button type="button">{name}</button></th>' for name in head
    )
    states = "".join(f"<option>{state}</option>" for state in dict.fromkeys(t.state for t in trials))
    return (
        '<div class="filter" role="search"><input type="search" id="wanted" aria-label="filter" '
        'placeholder="Filter: layout, design, note ..."><select id="state" aria-label="state"><option value="">any '
        f'state</option>{states}</select><label><input type="checkbox" id="onfront"> on the front</label>'
        '<output id="count" class="note"></output><span id="pager"></span></div>'
        f'<div class="scroll tall"><table id="trials"><thead><tr>{cells}</tr></thead><tbody></tbody></table>'
        "</div><p class='note'>Headings sort; ● marks members of the front. The filter looks in a trial's choices, "
        "layout, state and note for whole words, all of them; "
        "<code>trial 5</code> or a number alone is one trial, <code>d_state 16</code> a choice.</p>"
    )


def trial_rows(trials: list[Trial], front: Front, drawn: Container[int]) -> Rows:
    """Every trial; `drawn` are the numbers of those that are points of the picture of the front."""
    members = {number for c in front.members for number in c.trials}
    alike = common(trial.design for trial in trials)
    return [(t.number, t.state, t.number in members, t.number in drawn, phrases(t), _cells(t, alike)) for t in trials]


def phrases(trial: Trial) -> str:
    """What a reader may look a trial up by: its own fields as the study writes them and as the page says
    them, and its note.

    Each phrase stands between ` | `, in small letters but for the layout.
    """
    design = trial.design.to_dict()
    found = [
        f"trial {trial.number}",
        trial.state,
        f"seed {trial.seed}",
        *(f"{k} {_flat(v)}" for k, v in design.items()),
    ]
    found += [*describe(design).split(", "), FAMILIES.get(trial.design.family, ""), *_note(trial).split("; ")]
    small = dict.fromkeys(re.sub(r"[()\[\],;]", " ", phrase).strip().lower() for phrase in found if phrase)
    return f" | {' | '.join(re.sub(r' +', ' ', phrase) for phrase in small)} | {trial.layout} | "


def _flat(value: Any) -> str:
    return " ".join(f"{part:g}" for part in value) if isinstance(value, list) else str(value)


def _cells(trial: Trial, alike: Iterable[str]) -> list[Cell]:
    cost = trial.cost
    measured: list[Cell] = []
    for name, unit in (("loss", "nats/token"), ("recall", "accuracy")):
        value = trial.values.get(name)
        measured.append((value, "" if value is None else bare(value, unit)))
    return [
        (trial.number, _called(trial)),
        trial.state,
        trial.layout,
        (trial.seed, str(trial.seed)),
        *measured,
        (cost.cache_bytes, readable(cost.cache_bytes, "bytes")),
        (cost.decode_flops_per_token, readable(cost.decode_flops_per_token, "FLOP/token")),
        (cost.train_flops_per_token, readable(cost.train_flops_per_token, "FLOP/token")),
        (cost.params, readable(cost.params, "parameters")),
        (trial.seconds, duration(trial.seconds)),
        describe(trial.design.to_dict(), alike),
        _note(trial),
    ]


def _called(trial: Trial) -> str:
    """Its number; a replicate's is large and says nothing, so it goes by its design's."""
    return str(trial.number) if trial.replicate_of is None else f"{trial.replicate_of}, seed {trial.seed}"


def _note(trial: Trial) -> str:
    notes = []
    if trial.replicate_of is not None:
        notes.append(f"replicate of {trial.replicate_of}")
    if trial.shared_with is not None:
        notes.append(f"shares the training of {trial.shared_with}")
    if trial.state == "stopped" and trial.curve:
        held_out = [point for point in trial.curve if point.validation]
        if held_out:
            notes.append(f"loss {held_out[-1].loss:.4f} at {held_out[-1].tokens:,} tokens")
    if trial.failure:
        notes.append(trial.failure)
    return "; ".join(notes)


def run_again(run_info: Mapping[str, Any], front: Front) -> str:
    """Command, input, environment."""
    told: dict[str, str] = {}
    for key in ("sampler", "seed", "data", "device", "started", "finished", "version"):
        if run_info.get(key) is not None:
            told[key] = moment(str(run_info[key]))
    for key in ("versions", "implementations"):
        if run_info.get(key):
            told[key] = ", ".join(f"{name} {value}" for name, value in run_info[key].items())
    ran = {f"{k}: {v}" for c in front.candidates for k, v in c.implementations.items()}
    if ran:
        told["implementations that ran"] = ", ".join(sorted(ran))
    items = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in told.items())
    text = ""
    if run_info.get("command"):
        text += copied(str(run_info["command"]))
    text += f"<dl>{items}</dl>" if items else ""
    if run_info.get("study"):
        text += (
            f"<details><summary>The study, resolved</summary><pre>{html.escape(str(run_info['study']))}</pre></details>"
        )
    for key in ("target", "proxy"):
        if run_info.get(key):
            scale = json.dumps(run_info[key], indent=2, default=str)
            text += f"<details><summary>Scale: {key}</summary><pre>{html.escape(scale)}</pre></details>"
    return text
