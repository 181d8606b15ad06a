"""Optuna's dashboard on a run's storage, with a note and pictures that follow the search as trials finish.

The search writes each trial's attributes and artifacts (`study.py`). The note, the front and the effects are written
by whoever serves the dashboard, so that a search neither needs it nor waits for it, wherever its workers are.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from hybrid_nas.front import Front
from hybrid_nas.objective import QUANTITIES
from hybrid_nas.plot import front_figure
from hybrid_nas.plot_recipe import effects_figure
from hybrid_nas.recipe import Recipe
from hybrid_nas.run_folder import Run
from hybrid_nas.storage import close_storage, open_storage
from hybrid_nas.storage_url import FILES
from hybrid_nas.study import Record
from hybrid_nas.study_file import StudyFile
from hybrid_nas.units import bare, label, listed, readable

if TYPE_CHECKING:
    import optuna

HEAD = "# The answer so far"  # a note that begins otherwise is a person's, and is left alone
POLL_S = 5.0
READING = (
    "How to read this page: the front above counts replicates, that is trainings of its members at further seeds. "
    "Optuna's own marks (Best Trial, the Pareto front) know a trial's first training alone, so the two may differ. The "
    "replicates are in the study of the same name that ends in `-replicates`. A trial's `progress` is where its "
    "training stands, `ran` what it took, `at ...` what the design costs at the target scale."
)
OF_REPLICATES = (
    "# Replicates\n\nTrainings at further seeds of designs of the study `{}`, which has the answer: they measure the "
    "noise between seeds. `replicate of` is the number of the trial there."
)
REST = 20  # between two writings, at least this many times as long as one took


@contextmanager
def serving(run: Run, host: str = "127.0.0.1", port: int = 8080, storage: str | None = None) -> Iterator[str]:
    """The dashboard's address while it is being served; `storage` is the run's own URL, told where it has a password.
    ValueError if it cannot be."""
    try:
        from optuna.artifacts import FileSystemArtifactStore
        from optuna_dashboard import wsgi
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the dashboard needs the package optuna-dashboard ({error.name} is missing): pip install "
            "'hybrid-nas[dashboard]'"
        ) from error
    url = run.storage(storage)
    kind, _, path = url.partition(":///")
    if kind in FILES and not Path(path).is_file():
        raise ValueError(f"{run.path} holds no {FILES[kind]}: nothing was searched here yet")
    record = Record(run.study_file(), open_storage(url))
    run.artifacts.mkdir(exist_ok=True)
    app = wsgi(record.storage, artifact_store=FileSystemArtifactStore(run.artifacts))
    try:
        server = make_server(host, port, app, server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        raise ValueError(f"{host}:{port} cannot be served ({error.strerror}); give another --port") from error
    answer = Answer(record)
    answer.write()
    done = threading.Event()
    threads = [
        threading.Thread(target=server.serve_forever, daemon=True),
        threading.Thread(target=answer.follow, args=(done,), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield f"http://{'localhost' if host in ('127.0.0.1', '::1') else host}:{server.server_port}"
    finally:
        done.set()
        server.shutdown()
        server.server_close()
        threads[1].join()
        close_storage(record.storage)


@dataclass
class Answer:
    """What the study's page says: the note, the front and the effects, written again when trials have finished."""

    record: Record
    written: int = -1
    took: float = 0.0
    at: float = field(default_factory=time.monotonic)

    def follow(self, done: threading.Event) -> None:
        while not done.wait(POLL_S):
            if time.monotonic() - self.at > REST * self.took:
                self.write()

    def write(self) -> bool:
        """Write note and pictures if a trial has finished since the last time; whether it did."""
        import optuna_dashboard

        trials = self.record.trials()
        if len(trials) == self.written:
            return False
        begin = time.monotonic()
        objectives = self.record.file.objectives
        front = Front.of(trials, objectives)
        recipe = Recipe.of(trials, objectives, front)
        study = self.record.study
        if optuna_dashboard.get_note(study).strip() == "" or optuna_dashboard.get_note(study).startswith(HEAD):
            optuna_dashboard.save_note(study, note(self.record.file, front, recipe))
        again = self.record.replicates
        if again is not None and optuna_dashboard.get_note(again).strip() == "":
            optuna_dashboard.save_note(again, OF_REPLICATES.format(study.study_name))
        if front.candidates:
            _picture(study, "front", front_figure(front))
        for quantity in drawn(recipe):
            _picture(study, f"effects-on-{quantity}", effects_figure(recipe, quantity))
        self.at = time.monotonic()
        self.written, self.took = len(trials), self.at - begin
        return True


def drawn(recipe: Recipe) -> list[str]:
    """The quantities in which some effect is estimated: a chart of the others would be empty."""
    return [
        quantity
        for quantity in recipe.quantities
        if any(
            o.effect is not None for r in recipe.rules for e in r.evidence if e.quantity == quantity for o in e.options
        )
    ]


def note(file: StudyFile, front: Front, recipe: Recipe) -> str:
    """The study's note, Markdown: the answer, the front as a table, the rules."""
    lines = [
        HEAD,
        "",
        recipe.headline,
        "",
        _progress(file, front),
        "",
    ]
    if front.members:
        names = [objective.name for objective in front.objectives]
        lines += [
            "## Front",
            "",
            f"| trial | layout | {' | '.join(label(name) for name in names)} | n |",
            "|---:|---|" + "---:|" * (len(names) + 1),
        ]
        for member in front.members:
            cells = [_cell(member.estimates.get(name), name, member.value(name)) for name in names]
            mark = " (knee)" if member.key == front.knee and not front.knee_is_end else ""
            lines.append(f"| {member.number}{mark} | `{member.layout}` | {' | '.join(cells)} | {len(member.seeds)} |")
        lines.append("")
    decided = [rule for rule in recipe.rules if rule.says]
    if decided:
        lines += ["## Rules", ""]
        for rule in decided:
            lines += [f"- **{rule.choice}**: " + " ".join(
                f"{e.quantity}: {e.statement}" for e in rule.evidence if e.says
            )]  # fmt: skip
            lines += [f"- {text}" for text in rule.contradictions]
        lines.append("")
    open_ = [f"`{rule.choice}`" for rule in recipe.rules if not rule.says]
    if open_:
        lines += [f"Undecided so far: {listed(open_)}.", ""]
    if recipe.outlook:
        lines += ["## What more trials would decide", "", *(f"- {step.sentence}" for step in recipe.outlook), ""]
    lines += [*(f"{text}\n" for text in recipe.silent.values()), front.statement, "", READING]
    return "\n".join(lines)


def _progress(file: StudyFile, front: Front) -> str:
    counts = front.counts
    return (
        f"{counts['trials'] - counts['replicates']} of {file.search.trials} trials: {counts['designs']} designs "
        f"trained to the end, {counts['stopped']} stopped early, {counts['failed']} failed; {counts['replicates']} "
        f"replicates. Costs are those at {file.target.name}. Written {time.strftime('%Y-%m-%d %H:%M:%S')}."
    )


def _cell(estimate: Any, name: str, value: float) -> str:
    unit = QUANTITIES[name].unit
    if estimate is None:
        return readable(value, unit)
    half = "" if estimate.high is None else f" ± {bare(estimate.high - estimate.mean, unit)}"
    return f"{bare(estimate.mean, unit)}{half}"


def _picture(study: optuna.Study, name: str, figure: Any) -> None:
    from optuna_dashboard import save_plotly_graph_object

    figure.update_layout(
        margin={"l": 70, "r": 20, "t": 90, "b": 50}, title={"text": name.replace("-", " "), "x": 0.02, "y": 0.97}
    )
    save_plotly_graph_object(study, figure, graph_object_id=name)


class _Server(ThreadingMixIn, WSGIServer):
    """Serves its requests side by side, and IPv6 addresses too."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: Any) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """No line a request."""
