"""A Study: the one record of a search, in Optuna's storage, and the questions it answers: what next, what is known.

A trial's row is one JSON system attribute of its Optuna trial; user attributes and artifacts are for readers. Trials
that were running when the driver died are taken up again under their own numbers, so a resumed search keeps the order
of an unbroken one.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hybrid_nas.census import Census
from hybrid_nas.design import Refused
from hybrid_nas.objective import QUANTITIES
from hybrid_nas.pictures import curve_svg, layout_svg
from hybrid_nas.proposal import Proposal
from hybrid_nas.questions import Option
from hybrid_nas.sampler import UnseenDesigns
from hybrid_nas.study_file import StudyFile
from hybrid_nas.trial import Trial
from hybrid_nas.units import count, duration, label, readable

ROW = "trial"
KEY = "key"
SO_FAR = "progress"
REPLICATES = "-replicates"
COSTS_TOLD = ("cache_bytes", "decode_flops_per_token", "train_flops_per_token", "params")
FIRST_REPLICATE = 1_000_000
ENDED = {"complete": "trained to the end", "stopped": "stopped early", "failed": "failed"}
STATES = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class Asked:
    """A trial that has begun: its number, and the design that it is to train."""

    number: int
    proposal: Proposal
    trial: optuna.Trial


class Study:
    """`trials` are the finished search trials by number, `replicates` those that repeat a design at another seed.

    `artifacts` is the folder of the pictures that a dashboard shows of each trial; None: none are drawn.
    """

    def __init__(
        self,
        file: StudyFile,
        census: Census,
        storage: BaseStorage,
        artifacts: Path | None = None,
        seeds: Sequence[Proposal] = (),
    ) -> None:
        self.file = file
        self.census = census
        self.storage = storage
        self.artifacts = artifacts
        self.trials: dict[int, Trial] = {}
        self._keys: dict[int, str] = {}
        self._holders: dict[str, int] = {}
        self._lacking = set(census.proposals)
        self.sampler = UnseenDesigns(file, census, self._holders, self.trials, seeds)
        self.study = opened(file, storage, self.sampler)
        self._replicates = opened(file, storage, self.sampler, REPLICATES)
        self.replicates: list[Trial] = [_row(trial) for trial in self._replicates.get_trials(deepcopy=False)]
        self._unfinished: list[FrozenTrial] = []
        for trial in self.study.get_trials(deepcopy=False):
            if _has_row(trial):
                self._take(trial)
            elif trial.state == TrialState.RUNNING:
                self._unfinished.append(trial)
                told = {**trial.user_attrs, **trial.system_attrs}  # older runs have it among the former
                if KEY in told:
                    self._hold(trial.number, told[KEY])

    def _take(self, frozen: FrozenTrial) -> None:
        row = _row(frozen)
        self.trials[row.number] = row
        self._hold(row.number, row.key)
        if frozen.state == TrialState.RUNNING:  # killed after the row was written and before Optuna was told
            self.study.tell(row.number, self._values(row), state=STATES[row.state])

    @property
    def begun(self) -> int:
        """How many trials exist, finished or taken up."""
        return len(self._keys) + sum(trial.number not in self._keys for trial in self._unfinished)

    @property
    def next_number(self) -> int:
        """The number of the next replicate. They count from a million, clear of search trials yet to come."""
        return max((trial.number for trial in self.replicates), default=FIRST_REPLICATE - 1) + 1

    @property
    def waiting(self) -> int:
        """How many trials an earlier run began and did not finish."""
        return len(self._unfinished)

    def exhausted(self) -> bool:
        """Whether every candidate of the space has its trial."""
        return self.census.complete and not self._lacking

    def ask(self) -> Asked:
        """The next trial: one left unfinished, or a new one."""
        if self._unfinished:
            frozen = self._unfinished.pop(0)
            trial = optuna.Trial(self.study, frozen._trial_id)
        else:
            trial = self.study.ask()

        def choose(name: str, options: tuple[Option, ...]) -> Option:
            answer = trial.suggest_categorical(name, options)
            assert isinstance(answer, str | int)
            return answer

        design = self.file.space.build(choose)
        try:
            proposal = Proposal.of(design, self.file)
        except Refused as reason:
            raise RuntimeError(f"trial {trial.number} holds {design}, which is refused: {reason}") from reason
        self._hold(trial.number, proposal.key)
        self.storage.set_trial_system_attr(trial._trial_id, KEY, proposal.key)
        trial.set_user_attr("layout", proposal.target.layout)
        for constraint in self.file.constraints:
            trial.set_constraint(constraint.name, constraint.excess(proposal.cost))
        return Asked(trial.number, proposal, trial)

    def show(self, asked: Asked, text: str) -> None:
        """Where a running trial stands, for who looks on."""
        asked.trial.set_user_attr(SO_FAR, text)

    def tell(self, asked: Asked, trial: Trial) -> None:
        """Record a finished trial. It counts from the moment that the storage holds it."""
        self._show(asked.trial, trial)
        self.storage.set_trial_system_attr(asked.trial._trial_id, ROW, json.dumps(trial.to_dict()))
        self.study.tell(asked.trial, self._values(trial), state=STATES[trial.state])
        self.trials[trial.number] = trial

    def _show(self, told: optuna.Trial, trial: Trial) -> None:
        """What a person reads of the trial in Optuna's dashboard; Optuna takes nothing more once it is told."""
        told.set_user_attr(f"at {self.file.target.name}", costs_told(trial))
        told.set_user_attr("ran", _ran(trial))
        told.set_user_attr(SO_FAR, ENDED[trial.state])  # in place of how far it was
        if trial.implementations:
            told.set_user_attr(
                "implementations", ", ".join(f"{op} {name}" for op, name in trial.implementations.items())
            )
        if self.artifacts is None:
            return
        try:
            self._draw(told, trial, self.artifacts)
        except OSError:
            return  # a full disk: the row matters, a picture of it does not

    def _draw(self, told: optuna.Trial, trial: Trial, folder_of_all: Path) -> None:
        folder_of_all.mkdir(exist_ok=True)
        store = FileSystemArtifactStore(folder_of_all)
        head = f"trial {trial.number}, {trial.state}"
        with tempfile.TemporaryDirectory() as folder:
            for name, picture in (
                ("layout.svg", layout_svg(trial.target, f"{head}: the model at {self.file.target.name}")),
                ("loss.svg", curve_svg(trial.curve, f"{head}: loss of the proxy")),
            ):
                path = Path(folder) / name
                path.write_text(picture, encoding="utf-8")
                upload_artifact(
                    artifact_store=store, file_path=str(path), study_or_trial=told, mimetype="image/svg+xml"
                )

    def add_replicate(self, trial: Trial) -> None:
        """Record a finished replicate, beside the search, where the sampler does not see it."""
        choices = self.file.space.choices(trial.design)
        self._replicates.add_trial(
            optuna.trial.create_trial(
                state=STATES[trial.state],
                values=self._values(trial),
                params={name: answer for name, (answer, _) in choices.items()},
                distributions={name: CategoricalDistribution(options) for name, (_, options) in choices.items()},
                user_attrs={"layout": trial.layout, "replicate of": trial.replicate_of},
                system_attrs={ROW: json.dumps(trial.to_dict())},
            )
        )
        self.replicates.append(trial)

    def all_trials(self) -> list[Trial]:
        """Search trials by number, then replicates."""
        return [*(self.trials[number] for number in sorted(self.trials)), *self.replicates]

    def _hold(self, number: int, key: str) -> None:
        self._keys[number] = key
        self._holders.setdefault(key, number)
        self._lacking.discard(key)

    def _values(self, trial: Trial) -> list[float] | None:
        """What Optuna is told: a value for each objective of a complete trial, nothing for others."""
        if trial.state != "complete":
            return None
        values = [trial.value(objective.name) for objective in self.file.objectives]
        assert None not in values, "a complete trial has a value for every objective"
        return [value for value in values if value is not None]


class Record:
    """A study's storage as a reader sees it, while another process may be searching."""

    def __init__(self, file: StudyFile, storage: BaseStorage) -> None:
        self.file = file
        self.storage = storage
        names = {frozen.study_name for frozen in storage.get_all_studies()}
        if _name(file) not in names:
            raise ValueError(
                f"the storage does not hold the study {_name(file)}; found {', '.join(sorted(names)) or 'none'}"
            )
        self.study = optuna.load_study(study_name=_name(file), storage=self.storage)
        self._replicates = _name(file) + REPLICATES in names

    @property
    def replicates(self) -> optuna.Study | None:
        """Optuna's study of the replicates, where there is one."""
        if not self._replicates:
            return None
        return optuna.load_study(study_name=_name(self.file) + REPLICATES, storage=self.storage)

    def trials(self) -> list[Trial]:
        """Every finished trial, as `Study.all_trials` gives them."""
        rows = [_row(trial) for trial in self.study.get_trials(deepcopy=False) if _has_row(trial)]
        if (again := self.replicates) is not None:
            rows += [_row(trial) for trial in again.get_trials(deepcopy=False)]
        return rows


def opened(file: StudyFile, storage: BaseStorage, sampler: BaseSampler | None = None, what: str = "") -> optuna.Study:
    """Optuna's study of a study file, made where the storage lacks it; `what` REPLICATES for that of the replicates."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            study_name=_name(file) + what,
            storage=storage,
            directions=[objective.direction for objective in file.objectives],
            sampler=sampler,
            load_if_exists=True,
        )
        names = [f"{objective.name} ({objective.unit})" for objective in file.objectives]
        if study.metric_names != names:
            study.set_metric_names(names)
    return study


def _name(file: StudyFile) -> str:
    return f"{file.name}-{file.identity}"


def _has_row(trial: FrozenTrial) -> bool:
    return ROW in trial.system_attrs or ROW in trial.user_attrs


def _row(trial: FrozenTrial) -> Trial:
    attributes = trial.system_attrs if ROW in trial.system_attrs else trial.user_attrs  # where older runs have it
    return Trial.from_dict(json.loads(attributes[ROW]))


def costs_told(trial: Trial) -> str:
    """`cache 43.4 MiB, decoding 2.3 GFLOP/token, ...`"""
    return ", ".join(
        f"{label(name)} {readable(getattr(trial.cost, name), QUANTITIES[name].unit)}" for name in COSTS_TOLD
    )


def _ran(trial: Trial) -> str:
    if trial.shared_with is not None:
        return f"shares the training of trial {trial.shared_with}: one model at the proxy scale"
    text = f"{count(trial.tokens)} tokens on {trial.device} in {duration(trial.seconds)}"
    return f"{text}; {trial.failure}" if trial.failure else text
