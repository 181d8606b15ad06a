"""`table` and `merge`: many designs at several seeds, grown over many slices of time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybrid_nas.commands.terminal import INTERRUPTED, AsJson, Set, err, one_stop, out
from hybrid_nas.held_file import alone_at
from hybrid_nas.shipped import find

if TYPE_CHECKING:
    from hybrid_nas.proposal import Proposal
    from hybrid_nas.study_file import StudyFile
    from hybrid_nas.table import Job, Machine, Unfinished
    from hybrid_nas.trial import Trial

WRITE_EVERY_S = 5.0
BUSY = (
    "{}: another command is at work on this table; wait for it, or give another --out (with --have, what the other has "
    "is not repeated, and `merge` joins the two)"
)


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
    from hybrid_nas.table import Machine, missing
    from hybrid_nas.table_file import check_out, identity, proposals, setting_of
    from hybrid_nas.units import counted
    from hybrid_nas.yaml_file import Item

    if like is not None and (designs is not None or len(spaces) > 1):
        raise ValueError(f"--like {like}: its designs are trained, so give one space and leave --designs out")
    started = time.time()
    limit = None if time_limit is None else seconds_of(Item(time_limit, "--time-limit", None, time_limit), "time")
    check_out(out_file)
    machine = Machine(device, processes, at_once)
    machine.check()
    studies = [open_study(find(space), tuple(settings or ())) for space in spaces]
    every = proposals(studies, designs) if like is None else _like(like, studies)
    text = open_corpus(Corpus.from_dict(dict(studies[0].data or {})))
    check(text, studies[0].proxy, studies[0].budget)
    setting = setting_of(studies[0], text.fingerprint)
    known = [trial for path in have or [] for trial in _known(path, setting)]
    with one_stop(), alone_at(out_file, BUSY.format(out_file)):
        part = _Part(out_file, setting, _known(out_file, setting) if out_file.exists() else [], started)
        jobs = missing(every, seeds, [*known, *part.trials], seed_by_seed=seed_by_seed)
        part.to_do = sum(len(job.seeds) for job in jobs)
        err.print(
            f"{counted(len(every), 'design')} x {counted(seeds, 'seed')}, setting {identity(setting)}: "
            f"{counted(part.to_do, 'training')} to do",
            highlight=False,
        )
        problems = part.grow(jobs, studies[0], machine, limit)
    for problem in problems:
        err.print(problem, highlight=False)
    part.tell(studies[0].budget.aggregate, limit, as_json)
    if problems and part.done < part.to_do:
        raise typer.Exit(1)


def _known(path: Path, setting: dict[str, Any]) -> list[Trial]:
    """The trials of a part of this table. ValueError where it is one of another."""
    from hybrid_nas.table_file import difference, read_part

    trials, its = read_part(path)
    if its != setting:
        raise ValueError(
            f"{path}: trained under another setting than this: {difference(setting, its)}; change that back, or begin "
            "another table with another --out"
        )
    return trials


class _Part:
    """The part that one slice writes."""

    def __init__(self, path: Path, setting: dict[str, Any], trials: list[Trial], started: float) -> None:
        self.path, self.setting, self.trials, self.started = path, setting, trials, started
        self.begun, self.to_do, self.written = len(trials), 0, 0.0
        self.cut: list[Unfinished] = []

    @property
    def done(self) -> int:
        return len(self.trials) - self.begun

    def grow(self, jobs: list[Job], study: StudyFile, machine: Machine, limit: float | None) -> list[str]:
        from hybrid_nas.table import Setting, fill

        deadline = None if limit is None else self.started + limit
        setting = Setting(study.proxy.context, study.budget, study.data)
        try:
            return fill(jobs, setting, machine, deadline, self._heard, self.cut.append)
        except KeyboardInterrupt:
            err.print(
                f"stopped; nothing finished is lost, and the same command continues {self.path}",
                highlight=False,
                soft_wrap=True,
            )
            raise typer.Exit(INTERRUPTED) from None
        finally:
            if self.done or not self.path.exists():
                self._write()

    def _write(self) -> None:
        from hybrid_nas.aggregate import scored
        from hybrid_nas.table_file import write_part

        write_part(scored(self.trials), self.setting, self.path)
        self.written = time.time()

    def _heard(self, trial: Trial) -> None:
        self.trials.append(trial)
        alone = {name: v for name, v in trial.values.items() if name != "score" or trial.budget.aggregate == "mean"}
        result = trial.failure or ", ".join(f"{name} {value:.4f}" for name, value in alone.items())
        err.print(
            f"{self.done}/{self.to_do} {time.time() - self.started:.0f} s: seed {trial.seed} {trial.proxy.layout} "
            f"{trial.seconds:.1f} s {result}",
            highlight=False,
            soft_wrap=True,
        )
        if time.time() - self.written > WRITE_EVERY_S:
            self._write()

    def tell(self, aggregate: str, limit: float | None, as_json: bool) -> None:
        """What became of the slice."""
        from hybrid_nas.table_file import identity

        spent, missing = time.time() - self.started, self.to_do - self.done
        failed = sum(trial.state == "failed" for trial in self.trials)
        if limit is not None and missing and not self.done:
            err.print(self._none_finished(limit), highlight=False, soft_wrap=True)
        if as_json:
            told = {"part": str(self.path), "setting": identity(self.setting), "trained": self.done, "missing": missing}
            print(json.dumps({**told, "failed": failed, "seconds": round(spent, 1)}))
            return
        out.print(
            f"{self.done} trained in {spent:.0f} s, {missing} missing, {failed} failed; {self.path}", highlight=False
        )
        if aggregate != "mean" and any("score" in trial.values for trial in self.trials):
            out.print(
                f"score: by {aggregate} among the designs that {self.path} holds at each seed, so it changes with "
                "more; `merge` makes it anew over several parts",
                highlight=False,
                soft_wrap=True,
            )

    def _none_finished(self, limit: float) -> str:
        from hybrid_nas.units import duration

        far = max(self.cut, key=lambda one: one.share, default=None)
        if far is None:
            return f"none finished, and none did a step within the {duration(limit)}; give a longer --time-limit"
        share = f"{100 * far.share:.{0 if far.share > 0.1 else 1}f}%"
        return (
            f"none finished: the furthest had done {share} of its steps in {duration(far.seconds)}, so "
            f"one takes about {duration(far.seconds / far.share)} and its scoring; give a longer --time-limit, or "
            "fewer tokens (--set proxy.tokens=...)"
        )


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
    from hybrid_nas.table_file import check_out, identity, merged, of_spaces, write_part

    check_out(out_file)
    with alone_at(out_file, BUSY.format(out_file)):
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
