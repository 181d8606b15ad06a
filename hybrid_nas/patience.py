"""Patience with a storage that is away: a server that restarts, a full disk, a file that another process holds."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from hybrid_nas.units import duration

PATIENCE_S = 600.0
PAUSES_S = (0.1, 0.5, 1.0, 2.0, 5.0)


class StorageAway(RuntimeError):
    """The storage could not be reached for longer than patience lasts. Whatever it confirmed, it still holds."""


def _behind(error: BaseException) -> Iterator[BaseException]:
    """The error and those that led to it."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def reason(error: BaseException) -> str:
    """What is wrong with a storage, in one line, by the driver's own word where there is one."""
    chain = list(_behind(error))
    said = next((e.orig for e in chain if isinstance(e, DBAPIError) and e.orig is not None), chain[-1])
    if type(said).__module__.startswith("grpc"):
        return f"{getattr(said, 'code', str)()}: {getattr(said, 'details', str)()}"
    return " ".join(str(said).split()) or type(said).__name__


def passing(error: BaseException) -> bool:
    """Whether the same operation may succeed later: nobody answers, the disk is full, another process writes."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.ESTALE)
    code = getattr(error, "code", None)  # grpcio may not be installed
    if type(error).__module__.startswith("grpc") and callable(code):
        return str(code().name) in ("UNAVAILABLE", "UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL")
    if not isinstance(error, SQLAlchemyError | optuna.exceptions.StorageInternalError):
        return False
    # Optuna may have gone on with a session whose connection was lost, so the loss lies further behind.
    return any(
        isinstance(e, OperationalError | InterfaceError) or (isinstance(e, DBAPIError) and e.connection_invalidated)
        for e in _behind(error)
    )


class Patient(BaseStorage):
    """A storage that waits while the one behind it is away, and repeats what failed so that it counts once.

    For one writer a study, which a search is: a trial that a failed operation may have made is found by there being
    one more than before. `said` hears when the waiting begins and ends; `stop` ends it early. Raises StorageAway after
    `patience` seconds.
    """

    def __init__(self, inner: BaseStorage, patience: float = PATIENCE_S) -> None:
        self.inner = inner
        self.patience = patience
        self.said: Callable[[str], None] = lambda text: None
        self.stop: Callable[[], bool] = lambda: False
        self._counts: dict[int, int] = {}

    def _again(self, operation: Callable[[bool], Any]) -> Any:
        """`operation(repeated)`, until it has been done."""
        begin: float | None = None
        for tries in range(1_000_000):
            try:
                result = operation(tries > 0)
            except Exception as error:
                if not passing(error):
                    raise
                if begin is None:
                    begin = time.monotonic()
                    self.said(f"storage: {reason(error)}; waiting for it, trainings go on")
                away = time.monotonic() - begin
                if away > self.patience or self.stop():
                    raise StorageAway(f"storage: away for {duration(away)}: {reason(error)}") from error
                self._rest(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
            else:
                if begin is not None:
                    self.said(f"storage: back after {duration(time.monotonic() - begin)}")
                return result
        raise AssertionError

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.stop():
            time.sleep(min(left, 0.2))

    def create_new_study(self, directions: Any, study_name: str | None = None) -> int:
        return int(self._again(lambda _: self.inner.create_new_study(directions, study_name)))

    def create_new_trial(self, study_id: int, template_trial: Any = None) -> int:
        if study_id not in self._counts:
            self._counts[study_id] = self.get_n_trials(study_id)

        def create(repeated: bool) -> int:
            if repeated:
                trials = self.inner.get_all_trials(study_id, deepcopy=False)
                if len(trials) > self._counts[study_id]:
                    return trials[-1]._trial_id  # the answer was lost, not the trial
            return self.inner.create_new_trial(study_id, template_trial)

        made = int(self._again(create))
        self._counts[study_id] += 1
        return made

    def set_trial_state_values(self, trial_id: int, state: Any, values: Any = None) -> bool:
        def tell(repeated: bool) -> bool:
            if repeated and self.inner.get_trial(trial_id).state == state:
                return True
            return self.inner.set_trial_state_values(trial_id, state, values)

        return bool(self._again(tell))

    # What follows may simply be repeated.

    def _do(self, name: str, *arguments: Any) -> Any:
        return self._again(lambda _: getattr(self.inner, name)(*arguments))

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._do("set_study_user_attr", study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._do("set_study_system_attr", study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        found: int = self._do("get_study_id_from_name", study_name)
        return found

    def get_study_name_from_id(self, study_id: int) -> str:
        found: str = self._do("get_study_name_from_id", study_id)
        return found

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        found: list[StudyDirection] = self._do("get_study_directions", study_id)
        return found

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        found: dict[str, Any] = self._do("get_study_user_attrs", study_id)
        return found

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        found: dict[str, Any] = self._do("get_study_system_attrs", study_id)
        return found

    def get_all_studies(self) -> list[FrozenStudy]:
        found: list[FrozenStudy] = self._do("get_all_studies")
        return found

    def set_trial_param(self, trial_id: int, param_name: str, param_value_internal: float, distribution: Any) -> None:
        self._do("set_trial_param", trial_id, param_name, param_value_internal, distribution)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._do("set_trial_intermediate_value", trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._do("set_trial_user_attr", trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._do("set_trial_system_attr", trial_id, key, value)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        found: FrozenTrial = self._do("get_trial", trial_id)
        return found

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        found: list[FrozenTrial] = self._do("get_all_trials", study_id, deepcopy, states)
        return found

    def delete_study(self, study_id: int) -> None:
        self._do("delete_study", study_id)

    def remove_session(self) -> None:
        self.inner.remove_session()
