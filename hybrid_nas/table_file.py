"""Parts of a table as Parquet, and how they become one: joined without repeating a design at a seed."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hybrid_nas.architecture import canonical_json
from hybrid_nas.budget import Budget
from hybrid_nas.census import Census
from hybrid_nas.proposal import Proposal
from hybrid_nas.scale import Refused, Scale
from hybrid_nas.study_file import StudyFile
from hybrid_nas.trial import Trial, read_trials, write_trials

SETTING = b"hybrid_nas.setting"


def setting_of(study: StudyFile, text: str) -> dict[str, Any]:
    """All that the trainings of a table have in common, as values; `text` is the fingerprint of the data."""
    scales = {"proxy": study.proxy.to_dict(), "target": study.target.to_dict()}
    return {**scales, "budget": _common(study.budget), "text": text}


def _common(budget: Budget) -> dict[str, Any]:
    """What of a budget a training depends on, as JSON has it."""
    kept: dict[str, Any] = budget.to_dict()
    for name in ("replicates", "aggregate"):
        del kept[name]
    return kept


def identity(setting: dict[str, Any]) -> str:
    """Eight hex digits that change with anything that all trainings have in common."""
    return hashlib.sha256(canonical_json(setting).encode()).hexdigest()[:8]


def write_part(trials: Iterable[Trial], setting: dict[str, Any], path: Path) -> None:
    """Whole or not at all, as `write_trials`; the setting stands in the file's metadata."""
    write_trials(trials, path, {SETTING: canonical_json(setting).encode()})


def trials_file(path: Path) -> Path:
    """The file of trials at `path`, or in the folder there. ValueError where there is none."""
    file = path / "trials.parquet" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{file}: no such file; `hybrid-nas table --out FILE` writes one")
    return file


def check_out(path: Path) -> None:
    """ValueError where no table can be written to `path`."""
    if path.suffix not in ("", ".parquet"):
        raise ValueError(f"--out {path}: a table is a Parquet file, so its name must end in .parquet")
    if path.is_dir():
        raise ValueError(f"--out {path}: a folder is there, and it must be a file, like {path / 'table.parquet'}")
    if (in_the_way := next((f for f in path.parents if f.exists()), path.parent)).is_file():
        raise ValueError(f"--out {path}: {in_the_way} is a file, and a folder must stand there")


def read_part(path: Path) -> tuple[list[Trial], dict[str, Any]]:
    """The trials of a part, a file or its folder, and its setting. ValueError where the file is no part of a table."""
    path = trials_file(path)
    trials = read_trials(path)
    setting = setting_in(path)
    if setting is None:
        raise ValueError(f"{path}: no part of a table (its metadata does not say how it was trained)")
    return trials, setting


def setting_in(path: Path) -> dict[str, Any] | None:
    """The setting that a file of trials holds; None where it holds none. ValueError where it is damaged."""
    import pyarrow.parquet as pq

    found = (pq.read_schema(path).metadata or {}).get(SETTING)
    if found is None:
        return None
    try:
        setting: dict[str, Any] = json.loads(found)
        setting["budget"] = _common(Budget.from_dict(setting["budget"]))  # keys that came later have their defaults
        for name in ("proxy", "target"):
            Scale(**setting[name])
        if not isinstance(setting["text"], str):
            raise ValueError("text must be a fingerprint")
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {str(error)[:200]}"
        raise ValueError(f"{path}: its metadata does not say how it was trained, as a table's does ({what})") from error
    return setting


def merged(parts: Sequence[Path]) -> tuple[list[Trial], dict[str, Any]]:
    """All trials of `parts`, each design at each seed once: the complete one where there is one, else the first.
    Renumbered, seed by seed in the order of the designs' numbers. ValueError where two parts have other settings."""
    found: dict[tuple[str, int], Trial] = {}
    first: dict[str, Any] | None = None
    for path in parts:
        trials, setting = read_part(path)
        first = first or setting
        if setting != first:
            raise ValueError(
                f"{path}: trained under another setting than {parts[0]}: {difference(first, setting)}; "
                "only parts of one table can be joined"
            )
        for trial in trials:
            known = found.get((trial.key, trial.seed))
            if known is None or (known.state != "complete" and trial.state == "complete"):
                found[trial.key, trial.seed] = trial
    if first is None:
        raise ValueError("merge: at least one part is needed")
    order = sorted(found.values(), key=lambda trial: (trial.seed, trial.number, trial.key))
    return [trial.with_changes(number=number) for number, trial in enumerate(order)], first


def difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """The first value of `other` that differs, by its path."""
    flat = [
        {f"{part}.{key}": v for part in setting if isinstance(setting[part], dict) for key, v in setting[part].items()}
        for setting in (one, other)
    ]
    for name in sorted({**flat[0], **flat[1]}):
        if name not in flat[0] or name not in flat[1]:
            return f"{name} is in one of the two alone"
        if flat[1][name] != flat[0][name]:
            return f"{name} is {flat[1][name]!r}, not {flat[0][name]!r}"
    texts = (setting["text"][:12] for setting in (other, one))
    return "the text is {}, not {} (the starts of their fingerprints)".format(*texts)


def proposals(studies: Sequence[StudyFile], designs: int | None) -> list[Proposal]:
    """The distinct models of several spaces in their order: one that several have is trained once, and of models that
    are one at the proxy scale the first stands for all. With `designs`, the first so many of one shuffled order.

    ValueError where the studies do not have one setting, or a space is too large to be a table.
    """
    found: dict[str, Proposal] = {}
    for study in studies:
        if (study.proxy, study.target, study.budget, study.data) != (
            studies[0].proxy,
            studies[0].target,
            studies[0].budget,
            studies[0].data,
        ):
            raise ValueError(
                f"table: {study.name} has another proxy, target or data than {studies[0].name}; spaces of one table "
                "need the same (--set puts one in all of them)"
            )
        census = Census.of(study)
        if not census.complete and designs is None:
            raise ValueError(f"table: {study.name} has {study.space.size():,} designs; say how many with --designs")
        for proposal in census.proposals.values():
            found.setdefault(proposal.proxy.id, proposal)
    every = list(found.values())
    if designs is None or designs >= len(every):
        return every
    random.Random(0).shuffle(every)  # so that more designs are those and others
    return every[:designs]


def same_designs(trials: Iterable[Trial], study: StudyFile) -> tuple[list[Proposal], list[str]]:
    """The designs of `trials`, one a model at their target, made anew at the study's scales; and what was refused."""
    every: dict[str, Proposal] = {}
    refused: dict[str, str] = {}
    for trial in trials:
        try:
            every.setdefault(trial.target.id, Proposal.of(trial.design, study))
        except Refused as reason:
            refused.setdefault(trial.target.id, f"{trial.layout}: {reason}")
    return list({proposal.key: proposal for proposal in every.values()}.values()), list(refused.values())


def of_spaces(trials: Sequence[Trial], studies: Sequence[StudyFile], setting: dict[str, Any]) -> list[Trial]:
    """Those of `trials` whose model at the proxy scale is some design of the spaces, numbered in their order."""
    proxy, target = Scale(**setting["proxy"]), Scale(**setting["target"])
    order: dict[str, int] = {}
    for study in studies:
        for proposal in Census.of(replace(study, proxy=proxy, target=target)).proposals.values():
            order.setdefault(proposal.proxy.id, len(order))
    kept = sorted((t for t in trials if t.proxy.id in order), key=lambda t: (t.seed, order[t.proxy.id]))
    return [trial.with_changes(number=number) for number, trial in enumerate(kept)]
