"""`table` and `merge`: many designs at several seeds, grown over many slices of time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hybrid_nas.commands.terminal import INTERRUPTED, AsJson, Set, err, out
from hybrid_nas.shipped import find

if TYPE_CHECKING:
    from hybrid_nas.proposal import Proposal
    from hybrid_nas.study_file import StudyFile
    from hybrid_nas.trial import Trial

WRITE_EVERY_S = 5.0


def table(
    spaces: Annotated[list[str], typer.Argument(metavar="SPACE...", help="Study files or shipped spaces.")],
    out_file: Annotated[Path, typer.Option("--out", help="The part to write; trials that it holds are not repeated.")],
    designs: Annotated[int | None, typer.Option(help="How many designs; default: all.", min=1)] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each design, at seeds 0, 1, ...", min=1)] = 3,
    time_limit: Annotated[str | None, typer.Option(help="Stop by itself after 90s, 9min, 2h.")] = None,
    like: Annotated[
        Path | None, typer.Option(help="A table whose designs to train, at another scale; SPACE gives the setting.")
    ] = None,
    have: Annotated[list[Path] | None, typer.Option(help="Another part not to repeat; may be repeated.")] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda.")] = "auto",
    processes: Annotated[int, typer.Option(help="Processes that train.", min=1)] = 1,
    at_once: Annotated[int, typer.Option(help="Trainings at a time in each, on a GPU.", min=1)] = 1,
    seed_by_seed: Annotated[
        bool, typer.Option("--seed-by-seed", help="All designs at one seed first, not all seeds of one design.")
    ] = False,
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Train many designs at several seeds under one setting: a table to compare samplers, stopping rules or proxies on.
    It grows: the same command, or one with more time, designs or seeds, trains what is missing."""
    from hybrid_nas.data import Corpus, open_corpus
    from hybrid_nas.drawable import check
    from hybrid_nas.section import seconds_of
    from hybrid_nas.study_file import open_study
    from hybrid_nas.table import Machine, Setting, fill, missing
    from hybrid_nas.table_file import identity, proposals, read_part, setting_of, write_part
    from hybrid_nas.yaml_file import Item

    if like is not None and (designs is not None or len(spaces) > 1):
        raise ValueError(f"--like {like}: its designs are trained, so give one space and leave --designs out")
    started = time.time()
    limit = None if time_limit is None else seconds_of(Item(time_limit, "--time-limit", None, time_limit), "time")
    machine = Machine(device, processes, at_once)
    machine.check()
    studies = [open_study(find(space), tuple(settings or ())) for space in spaces]
    every = proposals(studies, designs) if like is None else _like(like, studies)
    text = open_corpus(Corpus.from_dict(dict(studies[0].data or {})))
    check(text, studies[0].proxy, studies[0].budget)
    setting = setting_of(studies[0], text.fingerprint)
    trials: list[Trial] = []
    known: list[Trial] = []
    for path in [*([out_file] if out_file.exists() else []), *(have or [])]:
        found, its = read_part(path)
        if its != setting:
            raise ValueError(f"{path}: trained under another setting ({identity(its)}) than this ({identity(setting)})")
        known += found
        trials += found if path == out_file else []
    out_file.parent.mkdir(parents=True, exist_ok=True)
    jobs = missing(every, seeds, known, seed_by_seed=seed_by_seed)
    to_do = sum(len(job.seeds) for job in jobs)
    err.print(
        f"{len(every)} designs x {seeds} seeds, setting {identity(setting)}: {to_do} trainings to do", highlight=False
    )
    written = 0.0
    begun = len(trials)

    def heard(trial: Trial) -> None:
        nonlocal written
        trials.append(trial)
        result = trial.failure or ", ".join(f"{name} {value:.4f}" for name, value in trial.values.items())
        err.print(
            f"{len(trials) - begun}/{to_do} {time.time() - started:.0f} s: seed {trial.seed} {trial.proxy.layout} "
            f"{trial.seconds:.1f} s {result}",
            highlight=False,
            soft_wrap=True,
        )
        if time.time() - written > WRITE_EVERY_S:
            write_part(trials, setting, out_file)
            written = time.time()

    deadline = None if limit is None else started + limit
    base = studies[0]
    try:
        problems = fill(jobs, Setting(base.proxy.context, base.budget, base.data), machine, deadline, heard)
    except KeyboardInterrupt:
        err.print(f"stopped; nothing finished is lost, and the same command continues {out_file}", highlight=False)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        if len(trials) > begun or not out_file.exists():
            write_part(trials, setting, out_file)
    for problem in problems:
        err.print(problem, highlight=False)
    failed = sum(trial.state == "failed" for trial in trials)
    done = len(trials) - begun
    result = {"part": str(out_file), "setting": identity(setting), "trained": done, "missing": to_do - done}
    if as_json:
        print(json.dumps({**result, "failed": failed, "seconds": round(time.time() - started, 1)}))
    else:
        out.print(
            f"{done} trained in {time.time() - started:.0f} s, {to_do - done} missing, {failed} failed; {out_file}",
            highlight=False,
        )
    if problems and done < to_do:
        raise typer.Exit(1)


def _like(path: Path, studies: list[StudyFile]) -> list[Proposal]:
    """The designs of a table, at the scales of the study."""
    from hybrid_nas.table_file import read_part, same_designs

    every, refused = same_designs(read_part(path)[0], studies[0])
    for line in refused:
        err.print(f"not trained, {line}", markup=False, highlight=False, soft_wrap=True)
    if not every:
        raise ValueError(f"--like {path}: it holds no design that {studies[0].name} can train at this scale")
    return every


def merge(
    parts: Annotated[list[Path], typer.Argument(metavar="PART...", help="Parts of one table.")],
    out_file: Annotated[Path, typer.Option("--out", help="The joined table.")],
    of: Annotated[list[str] | None, typer.Option(help="Only the models of this space; may be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Join parts of a table: every design at every seed once. `score` is made anew, by the budget's `aggregate`."""
    from hybrid_nas.aggregate import scored
    from hybrid_nas.study_file import open_study
    from hybrid_nas.table_file import identity, merged, of_spaces, write_part

    trials, setting = merged(parts)
    if of:
        trials = of_spaces(trials, [open_study(find(name)) for name in of], setting)
    trials = scored(trials)
    write_part(trials, setting, out_file)
    designs = len({trial.key for trial in trials})
    result = {"table": str(out_file), "setting": identity(setting), "designs": designs, "trials": len(trials)}
    if as_json:
        print(json.dumps(result))
        return
    out.print(f"{designs} designs, {len(trials)} trials; {out_file}", highlight=False)
