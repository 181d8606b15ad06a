"""Reading YAML 1.2 with the line of every value, so that an error can point at it.

Only what a study needs: mappings, lists, and plain values. Aliases and tags are refused, which also refuses the files
that grow without end when they are expanded. `1:3` stays text and `3e-4` is a number, as YAML 1.2 reads them.
"""

from __future__ import annotations

import codecs
import difflib
import io
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MAX_BYTES = 200_000
MAX_VALUES = 10_000
MAX_DIGITS = 18
MAX_POWER = 24
"""Of a number with a fraction or a power of ten: a budget of FLOPs may pass 1e20."""
MAX_DEPTH = 20
MAX_BRACKETS = 200  # open at a time, those in text and comments counted too
BRACKETS = re.compile(r"[\[\]{}]")


class FileError(ValueError):
    """What is wrong in a study file: where, what was found, what must hold, the nearest right thing."""

    def __init__(self, source: str, line: int | None, message: str) -> None:
        super().__init__(f"{source}{'' if line is None else f':{line}'}: {message}")


@dataclass(frozen=True)
class Item:
    """A value with its place. `value` is a plain value, a list of Items, or a dict from key to Item."""

    value: Any
    source: str
    line: int | None
    text: str = ""

    def error(self, message: str) -> FileError:
        return FileError(self.source, self.line, message)

    def __iter__(self) -> Iterator[Item]:
        """The options that this value stands for: a list's members, or the scalar alone."""
        return iter(self.value if isinstance(self.value, list) else [self])

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        return [item.plain() for item in self.value] if isinstance(self.value, list) else self.value

    def keys(self, known: Iterable[str], what: str) -> dict[str, Item]:
        """This mapping's entries. FileError for anything that is no mapping, and for a key that is not known."""
        if not isinstance(self.value, dict):
            raise self.error(f"{what} must be a mapping of keys to values, found {self.shown()}")
        known = list(known)
        for key, item in self.value.items():
            if key not in known:
                raise item.error(f"unknown key {key!r} in {what}; {nearest(key, known)}")
        return dict(self.value)

    def shown(self) -> str:
        """The value as a person wrote it, for an error."""
        text = self.text if self.text and not isinstance(self.value, list | dict) else repr(self.plain())
        return text if len(text) <= 60 else f"{text[:57]}..."


def nearest(word: str, known: Iterable[str]) -> str:
    """'did you mean ...?' or the list of what there is."""
    known = list(known)
    close = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def text_of(path: Path) -> str:
    """What a study file says. FileError where it is no text in UTF-8."""
    if (size := path.stat().st_size) > 4 * MAX_BYTES:
        raise FileError(
            str(path), None, f"a study file is at most {MAX_BYTES:,} characters of YAML, found {size:,} bytes"
        )
    data = path.read_bytes()
    wanted = "a study file is YAML in UTF-8 (`hybrid-nas spaces` lists examples)"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise FileError(str(path), None, f"found UTF-16; {wanted}: save it again as UTF-8")
    if b"\0" in data:
        raise FileError(str(path), None, f"found a binary file, with a zero byte at {data.index(0)}; {wanted}")
    try:
        return io.TextIOWrapper(io.BytesIO(data), "utf-8-sig").read()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        found = f"found the byte 0x{error.object[error.start]:02x}, which is no UTF-8"
        raise FileError(str(path), line, f"{found}; {wanted}") from None


def read_yaml(text: str, source: str) -> Item:
    """The document in `text` as Items. FileError for what is no YAML or not plain data."""
    if len(text) > MAX_BYTES:
        raise FileError(source, None, f"a study file is at most {MAX_BYTES:,} characters, found {len(text):,}")
    marks = sum(map(text.count, ",[{\n"))  # before each value but the first, so that no file takes long to be read
    if marks > MAX_VALUES:
        raise FileError(source, None, f"a study file holds at most {MAX_VALUES:,} values, found up to {marks:,}")
    opened = accumulate(1 if mark in "[{" else -1 for mark in BRACKETS.findall(text))
    if max(opened, default=0) > MAX_BRACKETS:
        raise FileError(source, None, "values are nested too deeply")
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        raise FileError(source, line, f"not valid YAML: {error.problem or error.context}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise FileError(source, None, f"not valid YAML: {type(error).__name__}: {str(error)[:200]}") from None
    if node is None:
        raise FileError(source, None, "the file is empty; the smallest useful one has name, family and ratio")
    return _item(node, source, set(), 0)


PLAIN = {
    ScalarNode: ("str", "null", "bool", "int", "float"),
    SequenceNode: ("seq",),
    MappingNode: ("map",),
}
"""The kinds of each node that need no tag."""


def _item(node: Node, source: str, seen: set[int], depth: int) -> Item:
    line = node.start_mark.line + 1
    if id(node) in seen:
        raise FileError(source, line, "aliases (*name) are not read here; write the value out")
    if depth > MAX_DEPTH:
        raise FileError(source, line, "values are nested too deeply")
    seen.add(id(node))
    if _kind(node) not in PLAIN[type(node)]:
        raise FileError(source, line, f"tags are not read here, found {node.tag}")
    match node:
        case ScalarNode():
            return Item(_scalar(node, source, line), source, line, node.value)
        case SequenceNode():
            return Item([_item(child, source, seen, depth + 1) for child in node.value], source, line)
        case MappingNode():
            entries: dict[str, Item] = {}
            for key, child in node.value:
                at = key.start_mark.line + 1
                if not isinstance(key, ScalarNode) or _kind(key) not in PLAIN[ScalarNode]:
                    raise FileError(source, at, "a key must be a plain word")
                if key.value in entries:
                    raise FileError(source, at, f"key {key.value!r} stands twice")
                item = _item(child, source, seen, depth + 1)
                entries[key.value] = Item(item.value, source, at, item.text)
            return Item(entries, source, line)
    raise FileError(source, line, "only mappings, lists and plain values are read here")


def _scalar(node: ScalarNode, source: str, line: int) -> Any:
    text = str(node.value)
    match kind := _kind(node):
        case "str":
            return text
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int" | "float":
            if len(text.lstrip("+-0")) > MAX_DIGITS + 6:
                raise FileError(source, line, f"a number of {len(text)} digits is too long")
            try:
                value = int(text.replace("_", ""), 0) if kind == "int" else float(text.replace("_", ""))
            except ValueError:
                try:
                    value = int(text.replace("_", "")) if kind == "int" else math.nan
                except ValueError:
                    value = math.nan
            power = MAX_DIGITS if kind == "int" else MAX_POWER
            if not math.isfinite(value) or abs(value) >= 10**power:
                raise FileError(source, line, f"a finite number below 1e{power} must stand here, found {text}")
            return value
    raise AssertionError(kind)


def _kind(node: Node) -> str:
    """The kind that YAML took the node for, or that its tag says."""
    return str(node.tag).removeprefix("tag:yaml.org,2002:")


def set_key(root: Item, assignment: str) -> Item:
    """`root` with one `key=value` or `section.key=value` of the command line put in; the value is read as YAML."""
    source = f"--set {assignment}"
    path, equals, text = assignment.partition("=")
    names = [name.strip() for name in path.split(".")]
    if not equals or not all(names) or len(names) > 2:
        raise FileError("--set", None, f"write key=value or section.key=value, found {assignment!r}")
    value = read_yaml(text, source) if text.strip() else Item(None, source, None)
    return _put(root, names, _placed(value, source))


def _placed(item: Item, source: str) -> Item:
    value = item.value
    if isinstance(value, list):
        value = [_placed(child, source) for child in value]
    elif isinstance(value, dict):
        value = {key: _placed(child, source) for key, child in value.items()}
    return Item(value, source, None, item.text)


def _put(root: Item, names: list[str], value: Item) -> Item:
    entries = dict(root.value) if isinstance(root.value, dict) else {}
    if len(names) == 1:
        entries[names[0]] = value
    else:
        below = entries.get(names[0], Item({}, value.source, None))
        if isinstance(below.value, str):  # `target: paper-1b` is short for its preset, `data: corpus/` for its path
            below = Item({"path" if names[0] == "data" else "preset": below}, below.source, below.line)
        entries[names[0]] = _put(below, names[1:], value)
    return Item(entries, root.source, root.line)
