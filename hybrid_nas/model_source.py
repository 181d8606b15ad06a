"""Which model is meant: RUN#TRIAL, a design file, a training's folder, a published model's name, or a layout."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from hybrid_nas.answers import design_of as design_of_answers
from hybrid_nas.architecture import Architecture
from hybrid_nas.design import Design, architecture_of_layout
from hybrid_nas.design_file import DesignFile
from hybrid_nas.options import KEYS
from hybrid_nas.placement import read_layout
from hybrid_nas.questions import LAYOUT, PRESETS
from hybrid_nas.scale import SCALES, Scale
from hybrid_nas.scale_free import design_of
from hybrid_nas.speed import Load
from hybrid_nas.yaml_file import Item, nearest, set_key

DEFAULT_SCALE = "paper-1b"


def scale_of(name: str) -> Scale:
    if name not in SCALES:
        raise ValueError(f"--scale: unknown scale {name!r}; {nearest(name, SCALES)}")
    return SCALES[name]


@dataclass(frozen=True)
class Source:
    """A model with a name, its context, and the design that it is an instance of, where it has one."""

    name: str
    architecture: Architecture
    context: int
    design: Design | None
    source: str
    notes: tuple[str, ...] = ()
    training: Path | None = None
    """The folder of a training that holds weights of this model."""
    left_out: tuple[str, ...] = ()
    """What `design` leaves out of the model."""
    load: Load | None = None
    """The shapes at which its run finds speeds, where one does."""

    def at(self, scale: Scale) -> Source:
        """The same design at another scale. ValueError where it has none."""
        if self.design is None:
            raise ValueError(f"{self.name} is one model, with no design that could be built at {scale.name}")
        built, notes = self.design.at(scale), (*self.notes, *self.left_out)
        return replace(self, architecture=built, context=scale.context, training=None, notes=notes, load=None)

    def file(self) -> DesignFile:
        return DesignFile(self.name, self.architecture, self.context, self.design, self.source, self.notes)


def find_model(name: str | None, layout: str | None, scale: str | None, settings: tuple[str, ...] = ()) -> Source:
    """The model that the command line means, at its own scale or at `scale`. ValueError says what is wrong.

    A trial of a run is meant at the target scale of its study. `settings` are KEY=VALUE of a layout's design.
    """
    if (name is None) == (layout is None):
        raise ValueError("give one of the two: a model (RUN#TRIAL, a design file, a published model) or --layout")
    if layout is not None:
        return _of_layout(layout, scale_of(scale or DEFAULT_SCALE), settings)
    if settings:
        raise ValueError("--set changes the design of a --layout; a model that has a name is as it is")
    assert name is not None
    found = _trial(name) if "#" in name else _named(name)
    return found if scale is None else found.at(scale_of(scale))


def _of_layout(layout: str, scale: Scale, settings: tuple[str, ...]) -> Source:
    root = Item({}, "--set", None)
    for assignment in settings:
        root = set_key(root, assignment)
    entries = root.keys([key for key in KEYS if key not in ("ratio", "placement", LAYOUT)], "--set of a layout")
    for key, item in entries.items():
        if isinstance(item.value, list):
            raise item.error(f"{key}: one value must stand here, found a list")
    design, architecture = built(layout, entries, scale)
    return Source(architecture.layout, architecture, scale.context, design, f"--layout {layout} at {scale.name}")


def built(layout: str, entries: dict[str, Item], scale: Scale) -> tuple[Design, Architecture]:
    """The design that `entries` and a layout spell, and its model of as many layers as the layout has letters."""
    answers = {key: KEYS[key].parse(item) for key, item in entries.items()}
    preset = PRESETS.get(str(answers.get("preset")), {})
    for key in sorted(preset.keys() & entries.keys()):
        raise entries[key].error(f"{key} is what preset says; leave one of the two out")
    design = design_of_answers({"family": LAYOUT, LAYOUT: layout, **answers, **preset})
    letters = read_layout(layout)
    if not design.has_parallel:  # a split of nothing or all has made whole layers of H
        letters = design.layout_at(len(letters))
    return design, architecture_of_layout(letters, design, scale)


def _trial(name: str) -> Source:
    from hybrid_nas.run_folder import Run

    folder, _, number = name.rpartition("#")
    run = Run.of(folder or None)
    trials = run.trials()
    if not number.isdecimal():
        raise ValueError(f"{name}: after # stands the number of a trial, found {number!r}")
    trial = next((trial for trial in trials if trial.number == int(number)), None)
    if trial is None:
        known = [t.number for t in trials if t.replicate_of is None]
        near = min(known, key=lambda n: abs(n - int(number)))
        raise ValueError(f"{run.path} has no trial {number}; the nearest is {near}, of {len(known)}")
    file = run.study_file()
    context, load = file.target.context, None if file.measure is None else file.measure.load(file.target.context)
    where = f"trial {number} of {run.path}"
    return Source(f"{run.name}#{number}", trial.target, context, trial.design, where, load=load)


def _named(name: str) -> Source:
    from hybrid_nas.gallery import gallery

    path = Path(name).expanduser()
    if path.is_file():
        found = DesignFile.read(path)
        return Source(found.name, found.architecture, found.context, found.design, found.source, found.notes)
    if (path / "train.json").is_file():
        return _training(path)
    published = gallery()
    if name in published:
        model = published[name]
        notes, left_out = model.notes, model.left_out
        return Source(name, model.architecture, model.context, model.design, model.source, notes, left_out=left_out)
    raise ValueError(f"{name}: no such file, and no published model of that name; {nearest(name, published)}")


def _training(folder: Path) -> Source:
    about = json.loads((folder / "train.json").read_text())
    recipe, steps = about["recipe"], about["steps"]
    done = max((int(path.stem) for path in (folder / "checkpoints").glob("*.pt")), default=0)
    unfinished = () if done >= steps else (f"trained for {done:,} of {steps:,} steps so far",)
    architecture = Architecture.from_dict(recipe["architecture"])
    design, notes = scale_free(architecture, recipe["context"])
    return Source(
        folder.name, architecture, recipe["context"], design, f"trained in {folder}", (*unfinished, *notes), folder
    )


def scale_free(architecture: Architecture, context: int) -> tuple[Design | None, tuple[str, ...]]:
    """The design of `architecture`, or None and the reason why it has none."""
    try:
        return design_of(architecture, context)
    except ValueError as error:
        return None, (f"no design free of scale: {error}",)
