"""The commands. What needs torch, Optuna or Plotly imports it inside the command that uses it."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from hybrid_nas import __version__
from hybrid_nas.shipped import find, shipped
from hybrid_nas.yaml_file import Item, nearest, set_key

if TYPE_CHECKING:
    from hybrid_nas.census import Census
    from hybrid_nas.run_folder import Run
    from hybrid_nas.study_file import StudyFile
    from hybrid_nas.trial import Trial

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Architecture search for hybrid language models: attention and Mamba-2, quality against efficiency.",
)
out = Console()
err = Console(stderr=True)
INTERRUPTED = 130
LETTERS_OF = {
    "d_state": "M", "head_dim": "M", "kv_heads": "AS", "position": "AS", "window": "S", "sinks": "S", "placement": "",
}  # fmt: skip

Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key; may be repeated.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunName = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="A run folder; the latest under runs/ if left out.")
]


def main() -> None:
    """Run a command. What a user can get wrong ends with one line and exit code 2."""
    try:
        app()
    except KeyboardInterrupt:
        err.print("hybrid-nas: stopped", highlight=False)
        sys.exit(INTERRUPTED)
    except (ValueError, OSError) as error:
        err.print(f"hybrid-nas: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


def _version(asked: bool) -> None:
    if asked:
        print(f"hybrid-nas {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Architecture search for hybrid language models: attention and Mamba-2, quality against efficiency."""


@app.command()
def search(
    space: Annotated[str, typer.Argument(help="A study file, or the name of a shipped one.")],
    trials: Annotated[int | None, typer.Option(help="How many designs to try.", min=1)] = None,
    budget: Annotated[str | None, typer.Option(metavar="TOKENS", help="Tokens of one training, like 200k.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of designs, weights and batches.", min=0)] = None,
    workers: Annotated[int | None, typer.Option(help="Trainings at a time; default: one a core.", min=1)] = None,
    out_folder: Annotated[Path | None, typer.Option("--out", help="Run folder; default: runs/NAME-IDENTITY.")] = None,
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Explore a space, and end with a front, a recipe and a report. The same command continues what was stopped."""
    from hybrid_nas.census import Census
    from hybrid_nas.run_folder import Run, default_folder
    from hybrid_nas.study_file import read_study

    path = find(space)
    assignments = list(settings or ())
    assignments += [f"{key}={value}" for key, value in (
        ("search.trials", trials), ("proxy.tokens", budget), ("search.seed", seed), ("search.workers", workers),
    ) if value is not None]  # fmt: skip
    read_study(path.read_text(), str(path), (), path.resolve().parent)  # what an option hides is still wrong
    file = read_study(path.read_text(), str(path), tuple(assignments), path.resolve().parent)
    census = Census.of(file).checked(str(path))
    from hybrid_nas.data import Corpus, open_corpus

    text = open_corpus(Corpus.from_dict(file.data or {}))
    text.check(file.proxy.context + 1)
    data = (
        f"{text.name} ({len(text.train):,} bytes to train on, {len(text.held_out):,} held out, {text.fingerprint[:12]})"
    )
    run = Run(out_folder or default_folder(file))
    run.begin(file)
    with run.locked():
        finished = _search(run, file, census, path, data, as_json)
    raise typer.Exit(0 if finished else INTERRUPTED)


def _search(run: Run, file: StudyFile, census: Census, path: Path, data: str, as_json: bool) -> bool:
    from hybrid_nas.progress import JsonLines, Lines, LiveTable, Progress
    from hybrid_nas.run_folder import environment
    from hybrid_nas.search import Loop, now
    from hybrid_nas.study import Study
    from hybrid_nas.workers import Pool, default_workers

    began, begin = now(), time.monotonic()
    workers = file.search.workers or default_workers()
    study = Study(file, census, run.database)
    before = study.all_trials()
    progress: Progress
    if as_json:
        progress = JsonLines(file, before, workers)
    elif out.is_terminal:
        progress = LiveTable(file, before, workers, out)
    else:
        progress = Lines(file, before, workers, out)
    progress.said(f"space {path}: {census.looked_at:,} designs, {len(census.proposals):,} different models"
                  + (f", {sum(census.refused.values()):,} refused" if census.refused else ""))  # fmt: skip
    progress.said(f"run {run.path}: {file.search.trials} trials on {workers} workers; data: {data}")
    if before:
        progress.said(f"{len(study.trials)} trials and {len(study.replicates)} replicates are done already")
    stopped: list[int] = []

    def on_signal(number: int, frame: object) -> None:
        if stopped:
            raise SystemExit(INTERRUPTED)
        stopped.append(number)

    handlers = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Pool(workers, log=run.log) as pool, progress:
            loop = Loop(study, pool, _Writing(progress, run, study), lambda: bool(stopped))
            finished = loop.run()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    trials = study.all_trials()
    if not trials:
        err.print("stopped before the first trial was done; the same command begins again", highlight=False)
        return False
    information = {
        "name": file.name,
        "command": shlex.join(["hybrid-nas", *sys.argv[1:]]),
        "study": (run.path / "study.yaml").read_text(),
        "sampler": file.search.sampler,
        "seed": file.search.seed,
        "started": began,
        "finished": now(),
        "seconds": time.monotonic() - begin,
        "refused": dict(census.refused),
        "coincide": census.coincide,
        "size": census.looked_at if census.complete else file.space.size(),
        "target": file.target.to_dict(),
        "proxy": file.proxy.to_dict(),
        "data": data,
        "workers": workers,
        "status": "finished" if finished else "interrupted",
        **environment(trials),
    }
    run.write_answer(trials, information)
    _closing(run, trials, finished, as_json, progress.summary())
    return finished


class _Writing:
    """A watch that keeps trials.parquet close behind the study, and passes everything on."""

    def __init__(self, progress: Any, run: Run, study: Any) -> None:
        self.begun, self.moved, self.said, self.tick = progress.begun, progress.moved, progress.said, progress.tick
        self.progress, self.run, self.study = progress, run, study

    def ended(self, trial: Trial) -> None:
        self.run.write_trials(self.study.all_trials())
        self.progress.ended(trial)


def _closing(run: Run, trials: list[Trial], finished: bool, as_json: bool, summary: dict[str, Any]) -> None:
    if as_json:
        front = json.loads((run.path / "front.json").read_text())
        print(json.dumps({"event": "end", "finished": finished, "run": str(run.path), **summary, "front": front}))
        return
    states = Counter(trial.state for trial in trials if trial.replicate_of is None)
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    if not finished:
        out.print(f"\nStopped. {counts}; nothing finished is lost, and the same command continues.", highlight=False)
    _print_front(run, trials)
    if states["failed"]:
        reasons = Counter(trial.failure or "" for trial in trials if trial.state == "failed")
        for reason, count in reasons.most_common(3):
            out.print(f"failed, {count}: {reason}", markup=False, highlight=False)
    out.print(f"\n{run.path / 'report.html'}: the report\n{run.path / 'recipe.md'}: the recipe", highlight=False)


def _print_front(run: Run, trials: list[Trial]) -> None:
    from hybrid_nas.front import Front
    from hybrid_nas.units import readable

    file = run.study_file()
    front = Front.of(trials, file.objectives)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", title_justify="left")
    table.add_column("trial", justify="right")
    table.add_column(f"layout at {file.target.name}", no_wrap=True)
    for objective in file.objectives:
        table.add_column(objective.name, no_wrap=True)
    table.add_column("n", justify="right")
    table.add_column("", no_wrap=True)
    for member in sorted(front.members, key=lambda m: file.objectives[-1].loss(m.value(file.objectives[-1].name))):
        cells = []
        for objective in file.objectives:
            estimate = member.estimates.get(objective.name)
            if estimate is None:
                cells.append(readable(member.value(objective.name), objective.unit))
            else:
                half = "" if estimate.high is None else f" ± {estimate.high - estimate.mean:.4f}"
                cells.append(f"{estimate.mean:.4f}{half}")
        marks = [name for name, key in (("knee", front.knee),) if key == member.key and not front.knee_is_end]
        table.add_row(str(member.number), member.layout, *cells, str(len(member.seeds)), ", ".join(marks))
    out.print(table)


@app.command()
def front(run: RunName = None, as_json: AsJson = False) -> None:
    """Print the front of a run."""
    from hybrid_nas.run_folder import Run

    folder = Run.of(run)
    trials = folder.trials()
    if as_json:
        from hybrid_nas.front import Front

        print(json.dumps(Front.of(trials, folder.study_file().objectives).to_dict(), indent=2))
        return
    out.print(f"{folder.path}", style="dim", highlight=False)
    _print_front(folder, trials)


@app.command()
def recipe(run: RunName = None, as_json: AsJson = False) -> None:
    """Print the design recipe of a run, with its evidence."""
    from hybrid_nas.front import Front
    from hybrid_nas.recipe import Recipe
    from hybrid_nas.run_folder import Run

    folder = Run.of(run)
    trials, objectives = folder.trials(), folder.study_file().objectives
    result = Recipe.of(trials, objectives, Front.of(trials, objectives))
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
    elif out.is_terminal:
        out.print(Markdown(result.to_markdown()))
    else:
        print(result.to_markdown(), end="")


@app.command()
def report(run: RunName = None) -> None:
    """Write a run's report again, from its trials."""
    from hybrid_nas.front import Front
    from hybrid_nas.recipe import Recipe
    from hybrid_nas.run_folder import Run

    folder = Run.of(run)
    trials, file = folder.trials(), folder.study_file()
    result = Front.of(trials, file.objectives)
    path = folder.write_report(trials, result, Recipe.of(trials, file.objectives, result), folder.information(), file)
    out.print(str(path), highlight=False, soft_wrap=True)


@app.command()
def cost(
    layout: Annotated[
        str | None, typer.Option(help="A letter a layer: A attention, S sliding window, M Mamba-2.")
    ] = None,
    ratio: Annotated[
        str | None, typer.Option(help="attention:Mamba, like 1:5; the depth follows from the scale.")
    ] = None,
    scale: Annotated[
        str, typer.Option(help="A scale: paper-100m, paper-350m, paper-1b, paper-3b, proxy.")
    ] = "paper-1b",
    context: Annotated[str | None, typer.Option(help="Tokens, like 8192 or 32k; default: the scale's.")] = None,
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """What a model costs, by arithmetic: parameters, FLOPs, cache."""
    from hybrid_nas.cost import cost as cost_of
    from hybrid_nas.design import architecture_of_layout
    from hybrid_nas.options import KEYS, read_space
    from hybrid_nas.scale import SCALES
    from hybrid_nas.space import design_of
    from hybrid_nas.study_file import count_of
    from hybrid_nas.units import readable

    if layout == "" or ratio == "":
        raise ValueError("--layout or --ratio is empty; write the letters, like MMMAMMM, or a ratio, like 1:5")
    if (layout is None) == (ratio is None):
        raise ValueError("give --layout (MMMAMMM) or --ratio (1:5), one of the two")
    if scale not in SCALES:
        raise ValueError(f"--scale: unknown scale {scale!r}; {nearest(scale, SCALES)}")
    sized = SCALES[scale]
    root = Item({}, "--set", None)
    for assignment in settings or ():
        root = set_key(root, assignment)
    entries = root.keys([key for key in KEYS if key != "ratio"], "--set of cost")
    for key, item in entries.items():
        if isinstance(item.value, list) and key != "placement":
            raise item.error(f"{key}: one value must stand here, found a list")
    if layout is None:
        entries["ratio"] = Item(ratio, "--ratio", None, ratio or "")
        design = read_space("cost", entries, root).build(lambda name, options: options[0])
        model = design.at(sized)
    else:
        for key, item in entries.items():
            letters = LETTERS_OF[key]
            if not set(letters) & set(layout.upper()):
                needs = f"needs one of the letters {letters}" if letters else "is what the layout itself says"
                raise item.error(f"{key} means nothing for the layout {layout}: it {needs}")
        design = design_of({"ratio": "1:1", **{key: KEYS[key].parse(item) for key, item in entries.items()}})
        model = architecture_of_layout(layout, design, sized)
    tokens = sized.context if context is None else count_of(Item(context, "--context", None, context), "context")
    result = cost_of(model, tokens)
    if as_json:
        print(json.dumps({**result.to_dict(), "scale": sized.name, "architecture": model.id}))
        return
    rows = (
        ("layout", result.layout),
        ("layers", str(result.layers)),
        ("parameters", f"{readable(result.params, 'parameters')} ({result.params:,})"),
        (
            "  without embedding",
            f"{readable(result.params_nonembedding, 'parameters')} ({result.params_nonembedding:,})",
        ),
        ("training", readable(result.train_flops_per_token, "FLOP/token")),
        ("decoding", readable(result.decode_flops_per_token, "FLOP/token")),
        ("  bytes read", readable(result.decode_bytes_per_token, "bytes/token")),
        ("cache of a sequence", readable(result.cache_bytes, "bytes")),
        ("  keys and values", readable(result.kv_bytes, "bytes")),
        ("  state", readable(result.state_bytes, "bytes")),
    )
    out.print(f"{sized.name}, context {result.context:,}, bfloat16", style="dim", highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    out.print(table, highlight=False)


@app.command()
def spaces(as_json: AsJson = False) -> None:
    """List the shipped search spaces, with their sizes."""
    from hybrid_nas.study_file import read_study

    rows = []
    for name, path in shipped().items():
        file = read_study(path.read_text(), str(path))
        rows.append({"name": name, "designs": file.space.size(), "target": file.target.name, "path": str(path)})
    if as_json:
        print(json.dumps(rows))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("space", "designs", "target", "file"):
        table.add_column(heading, justify="right" if heading == "designs" else "left")
    for row in rows:
        table.add_row(str(row["name"]), f"{row['designs']:,}", str(row["target"]), str(row["path"]))
    out.print(table, highlight=False, soft_wrap=True)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a study file, for editors."""
    from hybrid_nas.schema import study_schema

    print(json.dumps(study_schema(), indent=2))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """What is installed, which implementation would run, and what to do about the rest."""
    from hybrid_nas import doctor as examination

    findings = examination.examine()
    running = examination.implementations() if all(f.state != "broken" for f in findings if f.what == "torch") else {}
    if as_json:
        print(json.dumps({"findings": examination.to_dicts(findings), "implementations": running}))
    else:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for finding in findings:
            style = {"ok": "green", "missing": "yellow", "broken": "red"}[finding.state]
            table.add_row(f"[{style}]{finding.state}[/]", finding.what, finding.detail, finding.advice)
        for operation, name in running.items():
            table.add_row("[green]runs[/]", operation, name)
        out.print(table, highlight=False)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)
