"""A study file: one YAML file that holds a whole study, space and all. Each part but the space has a default."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from hybrid_nas import bpe
from hybrid_nas.architecture import Architecture, canonical_json
from hybrid_nas.budget import Budget
from hybrid_nas.cost import Cost, cost
from hybrid_nas.objective import DEFAULT_OBJECTIVES, QUANTITIES, Constraint, Objective
from hybrid_nas.options import KEYS
from hybrid_nas.questions import LAYOUT, POSITIONS, Answers
from hybrid_nas.roofline import device, predicted_speed
from hybrid_nas.scale import Scale
from hybrid_nas.section import (
    build,
    count_of,
    read_proxy,
    read_scale,
    seconds_of,
    with_budget,
    with_vocab,
)
from hybrid_nas.space import SearchSpace
from hybrid_nas.space_file import read_space
from hybrid_nas.speed import SPEEDS, Measure, Meter
from hybrid_nas.tasks import AR_HITS, NAMES, OF_TEXT, measures
from hybrid_nas.yaml_file import Item, nearest, read_yaml, set_key, text_of

SAMPLERS = ("ehvi", "tpe", "random", "nsga2", "gp", "grid")
RULES = ("front", "rank", "loss", "margin", "none")
OF_RULE = {"reduction": ("rank", "loss"), "dominators": ("margin",), "margin": ("margin",)}
SECTIONS = ("name", "proxy", "budget", "target", "objectives", "constraints", "measure", "search", "data")
DEFAULT_TARGET = "paper-1b"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Search:
    """How the space is explored. `stopping` is the rule by which a trial stops at a rung (`hybrid_nas.stopping`);
    `reduction`, `dominators` and `margin` are numbers of some rules (OF_RULE). `workers` None: as many as the cores
    carry. `seeds` are designs to try first: design files, or names of published models; of one that the space does
    not hold, the nearest that it holds. `time_limit` (seconds) and `memory` (bytes) are what one training may take,
    `gpus` the share of a GPU that it takes on a cluster."""

    sampler: str = "ehvi"
    trials: int = 24
    seed: int = 0
    workers: int | None = None
    stopping: str = "front"
    reduction: float = 3.0
    dominators: int = 3
    margin: float = 0.02
    seeds: tuple[str, ...] = ()
    time_limit: float | None = None
    memory: int | None = None
    gpus: float | None = None


@dataclass(frozen=True)
class StudyFile:
    """A study as read: the space and every setting, defaults filled in. `places` has the line of each key that the
    file sets ("data", "constraints.cache_bytes"), for what only shows once the space is looked at."""

    space: SearchSpace
    proxy: Scale
    target: Scale
    budget: Budget
    objectives: tuple[Objective, ...] = DEFAULT_OBJECTIVES
    constraints: tuple[Constraint, ...] = ()
    measure: Measure | None = None
    search: Search = Search()
    data: dict[str, Any] | None = None
    places: Mapping[str, int | None] = field(default_factory=dict, compare=False, repr=False)
    meter: Meter | None = field(default=None, compare=False, repr=False)

    def cost(self, target: Architecture) -> Cost:
        """The cost of a model at the target, with its speed where that is an objective: by `meter`, or predicted."""
        found = cost(target, self.target.context)
        if self.measure is None:
            return found
        load = self.measure.load(self.target.context)
        speed = self.meter(target) if self.meter else predicted_speed(target, load, device(self.measure.device))
        return replace(found, speed=speed)

    @property
    def name(self) -> str:
        return self.space.name

    def to_dict(self) -> dict[str, Any]:
        """What the resolved YAML holds: reading it gives an equal study."""
        options: dict[str, Any] = {}
        for key, values in self.space.options.items():
            if key == POSITIONS:
                lists = [[float(p) for p in str(text).split(",")] for text in values]
                options["placement"] = [*options.get("placement", []), *lists]
            elif key == "ratio":
                options[key] = [value for value in values if value != POSITIONS]
            else:
                options[key] = [*values, *options.get(key, [])]
        if not options.get("ratio", True):
            del options["ratio"]
        if self.space.arms:
            options["arms"] = [_arm(arm) for arm in self.space.arms]
        data: dict[str, Any] = {"name": self.name, "family": self.space.family, **options}
        data["proxy"] = {**self.proxy.to_dict(), **self.budget.to_dict()}
        del data["proxy"]["flops" if self.budget.flops is None else "tokens"]
        data["target"] = self.target.to_dict()
        data["objectives"] = [objective.name for objective in self.objectives]
        data["constraints"] = {constraint.name: constraint.maximum for constraint in self.constraints}
        if self.measure is not None:
            data["measure"] = {name: value for name, value in asdict(self.measure).items() if value is not None}
        search = asdict(self.search)
        unread = {"seeds", *(name for name, rules in OF_RULE.items() if self.search.stopping not in rules)}
        data["search"] = {name: value for name, value in search.items() if value is not None and name not in unread}
        if self.search.seeds:
            data["search"]["seeds"] = list(self.search.seeds)
        if self.data is not None:
            data["data"] = dict(self.data)
        return data

    @property
    def identity(self) -> str:
        """Eight hex digits that change with anything that changes what a trial's values mean or which designs are
        drawn; not with the number of trials or workers, so that a study can grow."""
        data = self.to_dict()
        kept = ("sampler", "seed", "stopping", "reduction", "dominators", "margin", "seeds")
        data["search"] = {name: data["search"][name] for name in kept if name in data["search"]}
        del data["proxy"]["replicates"]
        return hashlib.sha256(canonical_json(data).encode()).hexdigest()[:8]


def read_study(text: str, source: str, settings: tuple[str, ...] = (), folder: Path | None = None) -> StudyFile:
    """The study in `text`, with `--set` assignments put in. FileError names file, line, and what must hold.

    `folder` is what a relative path under `data` starts from.
    """
    root = read_yaml(text, source)
    for assignment in settings:
        root = set_key(root, assignment)
    entries = root.keys((*SECTIONS, "family", "arms", *KEYS), "a study file")
    name = _name(entries.pop("name", None), source)
    sections = {key: entries.pop(key) for key in SECTIONS if key in entries}
    if "budget" in sections:
        sections["proxy"] = with_budget(sections.get("proxy"), sections.pop("budget"))
    data = _data(sections.get("data"), folder)
    if data and "bpe" in data:
        sections["proxy"] = with_vocab(sections.get("proxy"), sections["data"].value["bpe"])
    proxy, budget = read_proxy(sections.get("proxy"))
    objectives = _objectives(sections.get("objectives"))
    for share, lost in ((1.0, "loss"), (0.0, "recall")):
        if budget.recall_share == share and lost in (objective.name for objective in objectives):
            section = sections["proxy"].value
            place = section["recall_share"] if "recall_share" in section else sections.get("objectives")
            place = place or sections["proxy"]  # a proxy by name, and the objectives that a file without them has
            told = ", or name ar_hits in its place" if lost == "recall" and AR_HITS in budget.probes else ""
            raise place.error(
                f"recall_share: at {share:g} nothing measures {lost}, which is an objective; give another share, or "
                f"leave the objective out{told}"
            )
    measured = (*budget.tasks, *budget.probes)
    if budget.aggregate != "mean" and "score" in (objective.name for objective in objectives):
        raise sections["objectives"].error(
            f"objectives: score by {budget.aggregate} compares designs of a whole table (hybrid-nas table, then "
            "merge); a search needs aggregate: mean"
        )
    for objective in objectives:
        if objective.name in (*NAMES, *OF_TEXT, "score") and not measures(objective.name, measured):
            raise sections["objectives"].error(
                f"objectives: nothing measures {objective.name}; name it once under budget: tasks or probes"
                + (f", which have {', '.join(measured)}" if measured else "")
            )
    return StudyFile(
        space=read_space(name, entries, root),
        proxy=proxy,
        target=read_scale(sections.get("target"), "target", DEFAULT_TARGET),
        budget=budget,
        objectives=objectives,
        constraints=_constraints(sections.get("constraints")),
        measure=_measure(sections.get("measure"), objectives),
        search=_search(sections.get("search"), folder),
        data=data,
        places=dict(_places(root)),
    )


def open_study(path: Path, settings: tuple[str, ...] = ()) -> StudyFile:
    """The study of a file; a relative path in it starts from the file's folder."""
    return read_study(text_of(path), str(path), settings, path.resolve().parent)


def _places(item: Item, prefix: str = "") -> Iterator[tuple[str, int | None]]:
    for key, child in item.value.items():
        yield f"{prefix}{key}", child.line
        if isinstance(child.value, dict):
            yield from _places(child, f"{prefix}{key}.")


def _arm(answers: Answers) -> dict[str, Any]:
    """One arm as the file spells it."""
    arm: dict[str, Any] = {key: value for key, value in answers.items() if key != POSITIONS}
    if arm["family"] == LAYOUT:
        del arm["family"]
    if POSITIONS in answers:
        del arm["ratio"]
        arm["placement"] = [float(p) for p in str(answers[POSITIONS]).split(",")]
    return arm


def _name(item: Item | None, source: str) -> str:
    if item is None:
        return re.sub(r"[^a-z0-9_-]+", "-", Path(source).stem.lower()).strip("-_") or "study"
    if not isinstance(item.value, str) or not NAME.fullmatch(item.value):
        raise item.error(f"name: small letters, digits, - and _ (at most 64) must stand here, found {item.shown()}")
    return item.value


def _objectives(item: Item | None) -> tuple[Objective, ...]:
    if item is None:
        return DEFAULT_OBJECTIVES
    names = []
    for member in item:
        if not isinstance(member.value, str) or member.value not in QUANTITIES:
            raise item.error(f"objectives: unknown quantity {member.shown()}; {nearest(str(member.value), QUANTITIES)}")
        names.append(member.value)
    if len(names) < 2 or len(set(names)) < len(names):
        raise item.error(f"objectives: two or more different quantities make a front, found {item.shown()}")
    chosen = tuple(Objective.named(name) for name in names)
    if not any(objective.trained for objective in chosen):
        raise item.error("objectives: one of them must be bought by training (loss or recall); `cost` answers the rest")
    if all(objective.trained for objective in chosen):
        raise item.error("objectives: one of them must be an efficiency, like cache_bytes or train_flops_per_token")
    return chosen


def _measure(item: Item | None, objectives: tuple[Objective, ...]) -> Measure | None:
    """None where no speed is an objective."""
    wanted = any(objective.name in SPEEDS for objective in objectives)
    if item is None:
        return Measure() if wanted else None
    entries = item.keys([field.name for field in fields(Measure)], "measure")
    if not wanted:
        raise item.error(f"measure: nothing here is measured; one of the objectives must be {', '.join(SPEEDS)}")
    built: Measure = build(Measure, entries, item, Measure())
    try:
        device(built.device)
    except ValueError as error:
        raise entries["device"].error(f"measure: {error}") from None
    return built


def _constraints(item: Item | None) -> tuple[Constraint, ...]:
    if item is None:
        return ()
    known = [name for name, quantity in QUANTITIES.items() if not quantity.trained and name not in SPEEDS]
    constraints = []
    for key, entry in item.keys(known, "constraints").items():
        maximum = count_of(entry, key)
        if maximum < 1:
            raise entry.error(f"constraints: {key} must be above 0, found {entry.shown()}")
        constraints.append(Constraint(key, maximum))
    return tuple(constraints)


def _search(item: Item | None, folder: Path | None) -> Search:
    if item is None:
        return Search()
    entries = item.keys([field.name for field in fields(Search)], "search")
    if "stopping" not in entries and entries.keys() & {"dominators", "margin"}:
        entries["stopping"] = Item("margin", item.source, item.line)
    seeds = _seeds(entries.pop("seeds", None), folder)
    limit = entries.pop("time_limit", None)
    search: Search = replace(build(Search, entries, item, Search()), seeds=seeds)
    for name, known in (("sampler", SAMPLERS), ("stopping", RULES)):
        if getattr(search, name) not in known:
            place = entries[name]
            raise place.error(f"search: unknown {name} {place.shown()}; {nearest(str(place.value), known)}")
    if limit is not None and limit.value is not None:
        search = replace(search, time_limit=seconds_of(limit, "search: time_limit"))
    for name, least in (("memory", 2**28), ("gpus", 0)):
        value = getattr(search, name)
        if value is not None and value < least:
            raise entries[name].error(f"search: {name} must be {least:,} or more, found {entries[name].shown()}")
    for name in ("trials", "workers"):
        value = getattr(search, name)
        if value is not None and not 1 <= value <= 1_000_000:
            raise entries[name].error(f"search: {name} must be 1 or more, found {entries[name].shown()}")
    for name, rules in OF_RULE.items():
        if name in entries and search.stopping not in rules:
            raise entries[name].error(f"search: {name} is for stopping: {' or '.join(rules)}, found {search.stopping}")
    if not 1 < search.reduction < 1e6:
        raise entries["reduction"].error(f"search: reduction must be above 1, found {entries['reduction'].shown()}")
    if search.margin < 0:
        raise entries["margin"].error(f"search: margin must be 0 or more nats, found {entries['margin'].shown()}")
    if search.seed > 2**32 - 1:
        raise entries["seed"].error(f"search: seed must be below 2**32, found {entries['seed'].shown()}")
    return search


def _seeds(item: Item | None, folder: Path | None) -> tuple[str, ...]:
    """Names as they are; a file's path is absolute from here on."""
    found = []
    for member in () if item is None else item:
        if not isinstance(member.value, str) or not member.value:
            raise member.error(f"seeds: a design file or a published model must stand here, found {member.shown()}")
        path = Path(member.value).expanduser()
        if path.suffix == ".json" and folder is not None:
            path = path if path.is_absolute() else (folder / path).resolve()
        found.append(str(path))
    return tuple(found)


def _data(item: Item | None, folder: Path | None) -> dict[str, Any] | None:
    if item is None or item.value is None:
        return None
    if isinstance(item.value, str):
        entries = {"path": item}
    else:
        entries = item.keys(["path", "column", "bpe"], "data")
    symbols = entries.pop("bpe", None)
    values: dict[str, Any] = {}
    for key, entry in entries.items():
        if not isinstance(entry.value, str) or not entry.value:
            raise entry.error(f"data: {key} must be text, found {entry.shown()}")
        values[key] = entry.value
    if "path" not in values and (values or symbols is None):
        raise item.error(
            "data: a path must stand here, like data: corpus/ or data: {path: corpus.jsonl, column: text}; the default "
            "text needs none, data: {bpe: 4096}"
        )
    if "path" in values:
        path = Path(values["path"]).expanduser()
        values["path"] = str(path if path.is_absolute() or folder is None else (folder / path).resolve())
    if symbols is not None:
        values["bpe"] = symbols.value if isinstance(symbols.value, bool) else count_of(symbols, "data: bpe")
        try:
            bpe.check(values["bpe"])
        except ValueError as error:
            raise symbols.error(f"data: {error}") from None
        if values.get("path", "").endswith(".npz"):
            raise symbols.error("data: bpe: a .npz holds ids of a tokenizer already; leave bpe out, or give text")
    return values
