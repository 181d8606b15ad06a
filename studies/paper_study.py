"""What the studies of the paper's tables share: how their arms are trained small, and what the paper printed.

A study folder has a `study.yaml` with the arms of one table and the settings below from
`paper_settings.json`; its `trials.parquet` holds every arm at every setting and seed, settings one after another.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from hybrid_nas.budget import Budget
from hybrid_nas.cli import app
from hybrid_nas.data import Corpus, Text, open_corpus
from hybrid_nas.proposal import Proposal
from hybrid_nas.study_file import StudyFile, read_study
from hybrid_nas.table_file import merged, of_spaces, proposals, write_part
from hybrid_nas.table_file import setting_of as table_setting
from hybrid_nas.trial import Trial, read_trials, write_trials

SETTINGS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "paper_settings.json").read_text())
"""name -> `set`: what it changes in study.yaml; `seeds`: how many, of all tables or by table; `tables`: of which arms;
`gpu_seconds`: wall clock of the run that trained it times its GPUs, over its trainings (none where a CPU did), and
`gpu_seconds_of` a table where that differs."""

TEXTS = {
    "manuals-bytes.npz": "beffd75572b656a8d352a09047795a8c78fce8ba38b34983697f6e94b791f242",
    "manuals-bpe1024.npz": "cd7435752a98775b436f8f4f1d9abfc416cb309ae3e3ea103357008c37a2604c",
    "prose-bpe4096.npz": "e3e3e74d0c363afb7c11782702f0e8609c6b5bce6172c2b15e1e6b42f90a65d3",
}
"""Name of a text's file -> fingerprint (`hybrid_nas.data`) of the one that all recorded trials were trained on."""


def text_of(file: StudyFile) -> Text:
    """The text of a study, which must be the one that its trials were trained on: recorded losses on one text and new
    ones on another are no study. Ends the program with a word and code 2 where it is another or absent."""
    corpus = Corpus.from_dict(dict(file.data or {}))
    name = Path(corpus.path or "").name
    try:
        if name in TEXTS and not Path(corpus.path or "").exists():
            raise ValueError(
                f"data: {corpus.path} does not exist; studies/{name.partition('-')[0]}.py makes it, as the study's "
                "README says under Again"
            )
        if name not in TEXTS:
            raise ValueError(f"data: {name!r} is no text of the studies; they have {', '.join(TEXTS)}")
        text = open_corpus(corpus)
        if text.fingerprint != TEXTS[name]:
            raise ValueError(
                f"data: {text.name}: its fingerprint is {text.fingerprint}, and the trials of {file.name} were trained "
                f"on the {name} of {TEXTS[name]}; make that one with studies/{name.partition('-')[0]}.py out of the "
                "packages that it names"
            )
    except ValueError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    return text


def typed(*words: str) -> None:
    """Run `hybrid-nas` with these words; what it refuses ends the program with its line and code 2."""
    try:
        app(list(words), standalone_mode=False)
    except ValueError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


def study(folder: Path, setting: str) -> StudyFile:
    changes = tuple(SETTINGS[setting]["set"])
    return read_study((folder / "study.yaml").read_text(), str(folder / "study.yaml"), changes, folder.resolve())


def table_of(folder: Path) -> str:
    return folder.name.rpartition("_")[2]


def seeds_of(setting: str, table: str) -> int:
    """How many seeds the arms of the table are trained at."""
    seeds = SETTINGS[setting]["seeds"]
    return int(seeds[table] if isinstance(seeds, dict) else seeds)


def most_seeds(setting: str) -> int:
    seeds = SETTINGS[setting]["seeds"]
    return max(int(n) for n in seeds.values()) if isinstance(seeds, dict) else int(seeds)


def settings_of(folder: Path) -> list[str]:
    """Those that the table of the folder was trained at."""
    return [setting for setting, entry in SETTINGS.items() if table_of(folder) in entry["tables"]]


def jobs(folder: Path) -> list[tuple[int, Proposal, int]]:
    """(number, proposal, seed) of every trial: setting by setting, seed by seed, in the order of the arms."""
    found = []
    for setting in settings_of(folder):
        every = proposals([study(folder, setting)], None)
        found += [(proposal, seed) for seed in range(seeds_of(setting, table_of(folder))) for proposal in every]
    return [(number, proposal, seed) for number, (proposal, seed) in enumerate(found)]


def budgets(folder: Path) -> set[Budget]:
    return {study(folder, setting).budget for setting in settings_of(folder)}


def setting_of(trial: Trial) -> str:
    """The setting whose budget a trial has."""
    for name, setting in SETTINGS.items():
        budget = dict(value.removeprefix("budget.").split("=", 1) for value in setting["set"] if "budget." in value)
        if trial.budget.tokens == int(budget["tokens"]):
            return name
    raise ValueError(f"trial {trial.number} has {trial.budget.tokens} tokens, which no setting has")


def assemble(folder: Path, parts: dict[str, list[Path]]) -> None:
    """trials.parquet out of the parts of each setting's table, which may hold other tables' arms too."""
    found: list[Trial] = []
    for setting in settings_of(folder):
        trials, its = merged(parts[setting])
        found += of_spaces(trials, [study(folder, setting)], its)
    write_trials([t.with_changes(number=i) for i, t in enumerate(found)], folder / "trials.parquet")


def begin(folder: Path, setting: str, part: Path) -> None:
    """A part that holds what trials.parquet has of the setting, so that no training is repeated."""
    known = [t for t in read_trials(folder / "trials.parquet") if setting_of(t) == setting]
    if known:
        file = study(folder, setting)
        text = text_of(file)
        part.parent.mkdir(exist_ok=True)
        write_part(known, table_setting(file, text.fingerprint), part)


def run(folder: Path) -> None:
    """Train what is missing of every setting, into `parts` of the folder, and assemble."""
    parts = {setting: folder / "parts" / f"{setting}.parquet" for setting in settings_of(folder)}
    for setting in parts:
        text_of(study(folder, setting))
    for setting, part in parts.items():
        if not part.exists() and (folder / "trials.parquet").exists():
            begin(folder, setting, part)
        part.parent.mkdir(exist_ok=True)
        changes = [word for value in SETTINGS[setting]["set"] for word in ("--set", value)]
        seeds = str(seeds_of(setting, table_of(folder)))
        command = ["table", str(folder / "study.yaml"), "--seeds", seeds, "--out", str(part)]
        typed(*command, *changes, *sys.argv[1:])
    assemble(folder, {setting: [part] for setting, part in parts.items()})
