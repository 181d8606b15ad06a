"""What others may hand us: study files and trials that were made to do harm, or broken by accident."""

from __future__ import annotations

import ast
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import curve, grid, objectives, trial

from hybrid_nas.census import Census
from hybrid_nas.front import Front
from hybrid_nas.objective import QUANTITIES
from hybrid_nas.options import KEYS
from hybrid_nas.placement import Ratio, read_share
from hybrid_nas.recipe import Recipe
from hybrid_nas.recipe_text import markdown
from hybrid_nas.study_file import SECTIONS, open_study, read_study
from hybrid_nas.trial import JSON_COLUMNS, read_trials, schema, write_trials
from hybrid_nas.yaml_file import FileError

Command = Callable[..., subprocess.CompletedProcess[str]]
FUZZ = settings(deadline=None, suppress_health_check=list(HealthCheck))
HOSTILE = {
    "an alias bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "\n".join(f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]" for i in range(12)),
    "an alias of itself": "ratio: &a [*a]",
    "a merge": "ratio: &a {x: 1}\nplacement: {<<: *a}",
    "10**400": "d_state: 1" + "0" * 400,
    "a million digits": "d_state: " + "9" * 190_000,
    "hexadecimal": "d_state: 0x" + "f" * 500,
    "1e999": "ratio: 1:3\nproxy: {weight_decay: 1e999}",
    "a share that is a billion digits": "ratio: 1:3\nkv_heads: '1e999999999'",
    "a window that is": "ratio: 1:3\nwindow: '1e-999999999'",
    "a split that is": "family: intra\nratio: 1:3\nattention_share: '1e999999999'",
    "a ratio of many digits": "ratio: 1:" + "9" * 5000,
    "tokens without end": "ratio: 1:3\nproxy: {tokens: '" + "9" * 400 + "b'}",
    "trials without end": "ratio: 1:3\nsearch: {trials: '" + "9" * 25 + "b'}",
    "a constraint without end": "ratio: 1:3\nconstraints: {params: '" + "9" * 100_000 + "b'}",
    "a width without end": "ratio: 1:3\nproxy: {width: 900000000000000000}",
    "heads without end": "ratio: 1:3\nproxy: {heads: 900000000000000000}",
    "infinity": "ratio: 1:3\nproxy: {clip: .inf}",
    "deep lists": "a: " + "[" * 100_000,
    "deep lists that fit": "a: " + "[" * 9_000 + "]" * 9_000,
    "deep mappings": "a: " + "{a: " * 9_000,
    "deep blocks": "\n".join(" " * i + "a:" for i in range(600)),
    "a long list": "d_state: [" + ",".join(map(str, range(8, 160_000, 8))) + "]",
    "many keys": "\n".join(f"k{i}: 1" for i in range(30_000)),
    "many documents": "---\n" * 9_000,
    "a long word": "ratio: " + "x" * 190_000,
    "a long layout": "layout: " + "MA" * 90_000,
    "a megabyte": "#" * 1_000_001,
    "python's objects": "ratio: !!python/object/apply:os.system ['touch harm']",
    "python's names": "ratio: !!python/name:os.system",
    "a tag of its own": "ratio: !harm 1:3",
    "bytes": "ratio: !!binary aGVsbG8=",
    "a path as the name": "name: ../../x\nratio: 1:3",
    "another path as the name": "name: /etc/passwd\nratio: 1:3",
    "a name of two lines": 'name: "a\\nb"\nratio: 1:3',
    "a name of dots": "name: ..\nratio: 1:3",
    "a null byte": "ratio: \0",
    "a mapping as an objective": "ratio: 1:3\nobjectives: [{a: b}, loss]",
    "a list as a target": "ratio: 1:3\ntarget: [a]",
    "a list as a preset": "ratio: 1:3\ntarget: {preset: [a]}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_study_file_is_refused_in_under_a_second(text: str) -> None:
    begin = time.process_time()
    with pytest.raises(FileError):
        read_study(text, "study.yaml")
    assert time.process_time() - begin < 1.0


@pytest.mark.parametrize("name", ["10**400", "a share that is a billion digits", "python's objects"])
def test_the_command_refuses_it_with_a_line(name: str, nas: Command, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(HOSTILE[name])
    done = nas("search", "study.yaml", check=2)
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("hybrid-nas: study.yaml:")
    assert {path.name for path in tmp_path.iterdir()} == {"study.yaml"}


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        (
            "trials.parquet",
            b"PAR1\x15\x00\xd0\xff",
            ": found a binary file, with a zero byte at 5; a study file is YAML",
        ),
        (
            "latin.yaml",
            b"# made by\n# Ren\xe9\nratio: 1:3\n",
            ":2: found the byte 0xe9, which is no UTF-8; a study file is",
        ),
        ("notepad.yaml", "ratio: 1:3\n".encode("utf-16"), ": found UTF-16; a study file is YAML in UTF-8"),
        ("weights.pt", b"\1" * 900_000, ": a study file is at most 200,000 characters of YAML, found 900,000 bytes"),
    ],
)
@pytest.mark.parametrize(
    "command", [("search",), ("table", "--out", "t.parquet"), ("probe", "mix")], ids=lambda c: c[0]
)
def test_a_file_that_is_no_text_is_refused_with_a_line(
    command: tuple[str, ...], name: str, data: bytes, says: str, nas: Command, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    done = nas(*command, name, check=2)
    assert done.stderr.startswith(f"hybrid-nas: {name}{says}")
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("ratio: 1:3\n", encoding="utf-8-sig")
    assert open_study(tmp_path / "study.yaml") == read_study("ratio: 1:3\n", "study.yaml")


def test_shares_and_ratios_are_read_exactly_or_refused() -> None:
    assert read_share("1/4") == read_share("0.25") == read_share("25e-2")
    for text in ("1e100", "1/0", "1" * 30, "x", ""):
        with pytest.raises(ValueError, match="a share is written like"):
            read_share(text)
    assert Ratio.parse("2:6") == Ratio(1, 3)
    with pytest.raises(ValueError, match="at most 12 characters"):
        Ratio.parse("1000000:1000000")


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12),
    st.sampled_from(["1:3", "1:0", "spread", "rope", "none", "1/4", "200k", "64 MiB", "paper-1b", "loss", "tpe"]),
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
INNER = ("preset", "width", "params", "tokens", "flops", "batch", "rungs", "recall_share", "trials", "seed", "seeds",
         "sampler", "margin", "cache_bytes", "path", "column", "heads", "head_dim", "context")  # fmt: skip
keys = st.sampled_from([*SECTIONS, "family", "arms", *KEYS])
documents = st.dictionaries(keys, values | st.dictionaries(st.sampled_from(INNER), values, max_size=3), max_size=6)


def read_or_refuse(text: str) -> None:
    refused = ""
    try:
        study = read_study(text, "study.yaml")
        if study.space.size() <= 20:
            Census.of(study).checked(study, "study.yaml")
    except FileError as error:
        refused = str(error)
    assert not refused or refused.startswith("study.yaml")


@settings(FUZZ, max_examples=300)
@given(documents)
def test_any_values_under_the_keys_are_read_or_refused(document: dict[str, object]) -> None:
    read_or_refuse(json.dumps({"ratio": "1:3", **document}))


HYBRID = (Path(__file__).parent.parent / "search_spaces" / "hybrid.yaml").read_text()


@settings(FUZZ, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, len(HYBRID) - 1), st.text(max_size=3)), min_size=1, max_size=4))
def test_any_slip_of_the_pen_is_read_or_refused(slips: list[tuple[int, str]]) -> None:
    text = HYBRID
    for at, put in slips:
        text = text[:at] + put + text[at + 1 :]
    read_or_refuse(text)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pa.Table]:
    path = tmp_path_factory.mktemp("trials") / "trials.parquet"
    rng = np.random.default_rng(0)
    designs = grid(("1:0", "1:3", "0:1"), ("front", "spread"), (16,))
    trials = [trial(i, d, 2 + rng.normal(0, 0.1), curve=curve(2.0)) for i, d in enumerate(designs)]
    write_trials(trials, path)
    return path, pq.read_table(path)


def answer_or_refuse(path: Path) -> None:
    """All that the commands compute from the file; what is refused is a ValueError with a message."""
    refused = None
    try:
        trials = read_trials(path)
        front = Front.of(trials, objectives(), draws=20)
        markdown(Recipe.of(trials, objectives(), front))
    except ValueError as error:
        refused = str(error)
    assert refused is None or len(refused) > 20


@settings(FUZZ, max_examples=150)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=20))
def test_broken_bytes_of_a_parquet_file_are_read_or_refused(
    rows: tuple[Path, pa.Table], flips: list[tuple[float, int]]
) -> None:
    data = bytearray(rows[0].read_bytes())
    for place, byte in flips:
        data[int(place * len(data))] = byte
    broken = rows[0].with_name("broken.parquet")
    broken.write_bytes(data)
    answer_or_refuse(broken)


NUMBERS = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=5))


@settings(FUZZ, max_examples=300)
@given(st.data())
def test_any_cells_of_a_parquet_file_are_read_or_refused(rows: tuple[Path, pa.Table], data: st.DataObject) -> None:
    """One cell of a column (of JSON: one value inside it) becomes something else."""
    path, table = rows
    name = data.draw(st.sampled_from([n for n in schema().names if n != "curve"]))
    cells = table[name].to_pylist()
    at = data.draw(st.integers(0, len(cells) - 1))
    if name in JSON_COLUMNS:
        inside = json.loads(cells[at])
        key = data.draw(st.sampled_from([*inside, "another"]))
        inside[key] = data.draw(values)
        cells[at] = data.draw(st.sampled_from([json.dumps(inside), "", "[]", "null", "{"]))
    else:
        cells[at] = data.draw(NUMBERS)
    try:
        column = pa.array(cells)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        column = pa.array([str(cell).encode("utf-8", "replace").decode() for cell in cells])
    changed = path.with_name("changed.parquet")
    pq.write_table(table.set_column(table.column_names.index(name), name, column), changed)
    answer_or_refuse(changed)


@pytest.mark.parametrize("name", QUANTITIES)
def test_a_quantity_is_a_column_or_comes_back_among_the_scores(name: str, tmp_path: Path) -> None:
    if name in schema().names:
        return
    assert QUANTITIES[name].trained
    (design,) = grid(("1:3",), ("spread",), (16,))
    row = trial(0, design, 2.0)
    write_trials([row.with_changes(values={**row.values, name: 0.25})], tmp_path / "trials.parquet")
    (found,) = read_trials(tmp_path / "trials.parquet")
    assert found.values == {**row.values, name: 0.25}


def test_the_message_names_file_column_and_row(rows: tuple[Path, pa.Table]) -> None:
    path, table = rows
    changed = path.with_name("message.parquet")
    for name, cells, says in (
        ("cache_bytes", ["x"] * len(table), r"message.parquet: column 'cache_bytes' must be int64, found string"),
        ("seed", [None, *[0] * (len(table) - 1)], r"column 'seed' has 1 empty cells"),
        ("state", ["won"] * len(table), r"row 0 \(trial 0\) is no trial: .*state must be one of complete, stopped"),
        ("design", ["{}"] * len(table), r"row 0 \(trial 0\) is no trial: "),
    ):
        pq.write_table(table.set_column(table.column_names.index(name), name, pa.array(cells)), changed)
        with pytest.raises(ValueError, match=says):
            read_trials(changed)


def test_nothing_that_we_ship_unpickles() -> None:
    """No pickle by any name, and torch.load takes weights alone: a run folder or checkpoint cannot run code."""
    root = Path(__file__).parent.parent
    sources = [*(root / "hybrid_nas").rglob("*.py"), *(root / "kernels").rglob("*.py")]
    loads = 0
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").partition(".")[0]}
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load"):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                safe = given.get("weights_only") == "True" or given.get("allow_pickle", "False") == "False"
                assert safe if "np" in ast.unparse(node.func) else given.get("weights_only") == "True", source
                loads += 1
                continue
            else:
                continue
            assert not names & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}, source
    assert loads >= 2  # the trainer's checkpoints
