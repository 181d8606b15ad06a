"""A Format: the files that a trainer loads for an Architecture, whether it can hold one, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hybrid_nas.architecture import Architecture

Files = dict[str, str]


@dataclass(frozen=True)
class Folded:
    """Some columns of a matrix, each times the scale of its channel (or all times one scale), or times -1."""

    source: str
    columns: tuple[int, int]
    scale: str | None = None
    negated: bool = False


@dataclass(frozen=True)
class Interleaved:
    """Rows of several matrices head by head: the first head's rows of each, then the second's."""

    sources: tuple[str, ...]
    heads: int


@dataclass(frozen=True)
class LessOne:
    """The weight of a norm that multiplies by one more than its weight."""

    source: str


WeightMap = dict[str, "tuple[str, ...] | Folded | Interleaved | LessOne"]
"""Name in the file -> names in `hybrid_nas.model.Model.state_dict()`, joined along the first axis, or what is made of
them."""


class CannotHold(ValueError):
    """A format has no place for a design. `nearest` is the nearest architecture that it can hold, if there is one."""

    def __init__(self, name: str, problems: tuple[str, ...], nearest: Architecture | None, changes: tuple[str, ...]):
        self.problems, self.nearest, self.changes = problems, nearest, changes
        if nearest is None:
            advice = "No design near it can be held; the format hybrid holds every design"
        else:
            advice = f"The nearest that it can hold: {'; '.join(changes)} ({nearest.layout}); --nearest takes it"
        super().__init__(f"{name} cannot hold this design: {'; '.join(problems)}. {advice}")


class CannotRead(ValueError):
    """A configuration that describes a model which this project cannot express, and what in it that is."""


@dataclass(frozen=True)
class Rule:
    """One thing that a format asks of an architecture. `problem` says what breaks it, None if nothing does; `mend`
    gives the nearest architecture that keeps it, and says what it changed."""

    problem: Callable[[Architecture], str | None]
    mend: Callable[[Architecture], tuple[Architecture, str]] | None = None


@dataclass(frozen=True)
class Imported:
    """What a configuration describes. `notes` name every field in which the model described and `architecture`
    differ, in one sentence each; empty where they are the same."""

    architecture: Architecture
    context: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """`write(architecture, context)` gives the files by name; `recognise` and `read` take the parsed content of
    the file that holds the design. `weights` maps our parameters to the file's, where weights can be written.
    `folds` says what of a design the file has in another form, in one sentence each, so that it is not found again.
    `extra_params` counts, by the name of the tensor, the parameters that the trainer's model has beyond `cost`.
    """

    name: str
    title: str
    rules: tuple[Rule, ...]
    write: Callable[[Architecture, int], Files]
    recognise: Callable[[Any], bool]
    read: Callable[[Any], Imported]
    weights: Callable[[Architecture], WeightMap] | None = None
    extra_params: Callable[[Architecture], dict[str, int]] = lambda architecture: {}
    folds: Callable[[Architecture], tuple[str, ...]] = lambda architecture: ()

    def problems(self, architecture: Architecture) -> tuple[str, ...]:
        """What this format cannot hold of `architecture`."""
        found = (rule.problem(architecture) for rule in self.rules)
        return tuple(dict.fromkeys(problem for problem in found if problem is not None))

    def nearest(self, architecture: Architecture) -> tuple[Architecture | None, tuple[str, ...]]:
        """The architecture after each broken rule's smallest change, in the order of the rules, and the changes.
        None where a broken rule knows no change."""
        changes: list[str] = []
        for rule in self.rules:
            if rule.problem(architecture) is None:
                continue
            if rule.mend is None:
                return None, ()
            architecture, change = rule.mend(architecture)
            changes.append(change)
        if self.problems(architecture):
            return None, ()
        return architecture, tuple(changes)

    def check(self, architecture: Architecture) -> None:
        """CannotHold, with the nearest that can be held, where a rule is broken."""
        if problems := self.problems(architecture):
            raise CannotHold(self.name, problems, *self.nearest(architecture))
