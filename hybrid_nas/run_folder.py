"""A run folder: everything that one search leaves behind, each file whole or absent.

study.yaml        the resolved study: every setting, defaults filled in
study.db          Optuna's storage, the one record; or study.journal
storage           the URL of the storage, where it lies elsewhere (no password)
artifacts/        pictures of every trial that the dashboard shows
trials.parquet    every trial, replicates and failures included (columns: `hybrid_nas.trial.schema`)
front.json        the front (`hybrid_nas.front.Front.to_dict`)
recipe.md, .json, .tex  the recipe (.tex: tables for a paper's appendix)
report.html       the report
environment.json  versions, device, implementations, how it was run
workers.log       what the workers wrote to their standard error
"""

from __future__ import annotations

import contextlib
import io
import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from hybrid_nas.front import Front
from hybrid_nas.held_file import held
from hybrid_nas.proposal import distinct, drawn
from hybrid_nas.recipe import Recipe
from hybrid_nas.recipe_text import latex, markdown
from hybrid_nas.storage_url import resolved, without_password
from hybrid_nas.study_file import StudyFile, open_study
from hybrid_nas.trial import Trial, read_trials, write_trials
from hybrid_nas.whole_file import write_whole

PACKAGES = ("hybrid-nas", "torch", "numpy", "scipy", "optuna", "pyarrow", "plotly", "mamba-ssm", "flash-attn")
RUNS = Path("runs")


class Run:
    """One run folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.artifacts = path / "artifacts"
        self.log = path / "workers.log"
        self._written_at = 0.0
        self._write_took = 0.0

    @classmethod
    def of(cls, name: str | Path | None) -> Run:
        """The run at that path; the latest under runs/ where no name is given. ValueError says what there is."""
        if name is None:
            found = sorted(RUNS.glob("*/study.yaml"), key=lambda path: path.stat().st_mtime)
            if not found:
                raise ValueError(
                    f"no run was named, and {RUNS.resolve()}, the only place that is looked into, holds none; give the "
                    "folder of a run (search --out), or make one with `hybrid-nas search`"
                )
            return cls(found[-1].parent)
        path = Path(name)
        if not (path / "study.yaml").is_file() and (RUNS / path / "study.yaml").is_file():
            path = RUNS / path
        if not (path / "study.yaml").is_file():
            there = ", ".join(sorted(str(found.parent) for found in RUNS.glob("*/study.yaml")))
            raise ValueError(f"{name}: no run folder (it holds no study.yaml); runs here: {there or 'none'}")
        return cls(path)

    @property
    def name(self) -> str:
        return self.path.name

    def study_file(self) -> StudyFile:
        return open_study(self.path / "study.yaml")

    def storage(self, given: str | None = None) -> str:
        """The URL of the run's storage, or the one `given` if that is the same. ValueError if it is another."""
        kept = self.path / "storage"
        found = kept.read_text().strip() if kept.is_file() else "sqlite"
        if given is None:
            return resolved(found, self.path)
        if without_password(resolved(given, self.path)) != resolved(found, self.path):
            raise ValueError(
                f"{self.path} is recorded in {found}; leave --storage away, or give another folder with --out"
            )
        return resolved(given, self.path)

    def begin(self, file: StudyFile, storage: str | None = None) -> None:
        """Make the folder for `file`, or check that it holds the same study in the same storage. ValueError names what
        differs."""
        if storage is not None:
            resolved(storage, self.path)  # refused before anything is made
        if (self.path / "study.yaml").is_file():
            old = self.study_file()
            if old.identity != file.identity:
                raise ValueError(
                    f"{self.path} holds another study ({_difference(old, file)}); give another folder with --out, "
                    "or leave --out away: each study then has its own"
                )
        elif self.path.exists() and any(self.path.iterdir()):
            raise ValueError(f"{self.path} is neither empty nor a run folder; give another with --out")
        self.path.mkdir(parents=True, exist_ok=True)
        if (self.path / "study.yaml").is_file():
            self.storage(storage)
        elif storage is not None:
            self._write("storage", without_password(storage) + "\n")
        text = io.StringIO()
        YAML().dump(file.to_dict(), text)
        self._write("study.yaml", text.getvalue())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one search. ValueError if another holds it. The lock dies with its process."""
        told = f"another command is at work in {self.path}; wait for it, or give another --out"
        with held(self.path / ".lock", told):
            yield

    def trials(self) -> list[Trial]:
        """Every finished trial. ValueError if there is none yet."""
        path = self.path / "trials.parquet"
        if not path.is_file():
            raise ValueError(f"{self.path} has no finished trial yet; the command that began it continues it")
        return read_trials(path)

    def information(self) -> dict[str, Any]:
        """What the report says of how the run was made; see `hybrid_nas.report.write_report`."""
        path = self.path / "environment.json"
        return dict(json.loads(path.read_text())) if path.is_file() else {}

    def text(self, file: StudyFile) -> str:
        """What the run was trained on, in words."""
        data = {"path": "the default text, Python's standard library", **(file.data or {})}
        named = ", ".join(f"bpe {value}" if key == "bpe" else value for key, value in data.items())
        return str(self.information().get("data") or named)

    def write_trials(self, trials: list[Trial], always: bool = False) -> None:
        """trials.parquet, at once or when the last time is twenty times as long ago as writing it took."""
        begin = time.monotonic()
        if always or begin - self._written_at > 20 * self._write_took:
            write_trials(trials, self.path / "trials.parquet")
            self._written_at = time.monotonic()
            self._write_took = self._written_at - begin

    def write_answer(self, trials: list[Trial], information: dict[str, Any]) -> tuple[Front, Recipe]:
        """Front, recipe and report of what there is, and the record of how it was made."""
        file = self.study_file()
        self.write_trials(trials, always=True)
        self._write("environment.json", json.dumps(information, indent=2) + "\n")
        front = Front.of(trials, file.objectives)
        recipe = Recipe.of(trials, file.objectives, front, drawn(file), distinct(file))
        self._write("front.json", json.dumps(front.to_dict(), indent=2) + "\n")
        self._write("recipe.json", json.dumps(recipe.to_dict(), indent=2) + "\n")
        self._write("recipe.md", markdown(recipe, str(information.get("command", ""))))
        self._write("recipe.tex", latex(recipe))
        self.write_report(trials, front, recipe, information, file)
        return front, recipe

    def write_report(
        self,
        trials: list[Trial],
        front: Front,
        recipe: Recipe,
        information: dict[str, Any],
        file: StudyFile,
        path: Path | None = None,
    ) -> Path:
        """To `path`, by default report.html in the folder."""
        from hybrid_nas.report import write_report

        path = path or self.path / "report.html"
        write_report({"name": file.name, **information}, trials, file.objectives, front, recipe, path)
        return path

    def _write(self, name: str, text: str) -> None:
        write_whole(self.path / name, text)


def default_folder(file: StudyFile) -> Path:
    """runs/NAME-IDENTITY: the same study, the same folder."""
    return RUNS / f"{file.name}-{file.identity}"


def environment(trials: list[Trial]) -> dict[str, Any]:
    """Versions, and the devices and implementations that the trials ran on."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    devices = Counter(trial.device for trial in trials if trial.state != "failed")
    implementations = Counter(
        f"{operation}: {what}" for trial in trials for operation, what in trial.implementations.items()
    )
    return {
        "version": versions.get("hybrid-nas", ""),
        "versions": versions,
        "system": f"{platform.system()} {platform.machine()}",
        "device": ", ".join(devices) or "none",
        "implementations": dict(line.split(": ", 1) for line in implementations),
        "python": sys.implementation.name,
    }


def _difference(old: StudyFile, new: StudyFile) -> str:
    """The first few keys in which two studies differ."""

    def flat(data: dict[str, Any]) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        for key, value in data.items():
            if isinstance(value, dict):
                rows.update({f"{key}.{name}": inner for name, inner in value.items()})
            else:
                rows[key] = value
        return rows

    before, after = flat(old.to_dict()), flat(new.to_dict())
    ignored = {f"search.{key}" for key in ("trials", "workers", "time_limit", "memory", "gpus")} | {"proxy.replicates"}
    names = [key for key in {**before, **after} if before.get(key) != after.get(key) and key not in ignored]
    shown = [f"{key} was {before.get(key)}, is {after.get(key)}" for key in names[:3]]
    return "; ".join(shown) + ("; ..." if len(names) > 3 else "")
