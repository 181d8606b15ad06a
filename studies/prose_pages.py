"""The words of one file of a package, a line for each paragraph: what `prose.py` cleans and cuts."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

MARKUP = (".html", ".htm", ".xhtml", ".page", ".xml", ".docbook")
WRAPPED = (".txt", ".rst", ".md", ".pod", ".info", ".en", ".texi")
SKIPPED = {
    "script", "style", "head", "nav", "svg", "header", "footer", "aside", "form", "select", "button", "pre", "info",
    "math", "bookinfo", "programlisting", "screen", "textarea",
}  # fmt: skip
BREAKS = {
    "p", "div", "li", "br", "tr", "td", "th", "h1", "h2", "h3", "h4", "h5", "h6", "dt", "dd", "table", "section",
    "title", "item", "para", "simpara", "note", "blockquote", "article", "ul", "ol", "dl", "pre", "caption",
    "figcaption",
}  # fmt: skip
SIGNS = str.maketrans(dict(zip("\u2018\u2019\u201c\u201d\u2013\u2014\u2026\u00a0\u2212", "''\"\"--. -", strict=True)))


class Words(HTMLParser):
    """The text of a page, a line for each paragraph."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in SKIPPED:
            self.inside.append(tag)
        if tag in BREAKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.inside:
            del self.inside[self.inside.index(tag) :]
        if tag in BREAKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.inside:
            self.parts.append(re.sub(r"\s+", " ", data))


def of_markup(text: str) -> str:
    words = Words()
    words.feed(text)
    words.close()
    return "".join(words.parts)


def of_wrapped(text: str) -> str:
    """Paragraphs of text that is broken into lines; indented code stays broken."""
    out = []
    for block in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in block.splitlines()]
        full = lines[:-1]
        joined = bool(full) and sum(map(len, full)) > 45 * len(full) and few_signs(block)
        out.append((" " if joined else "\n").join(lines))
    return "\n".join(out)


def of_manual(text: str) -> str:
    """A page in roff: requests go, the words of headings and of fonts stay; code between .nf and .fi goes."""
    text = re.sub(r"(?ms)^\.(?:nf|EX|Bd -literal).*?^\.(?:fi|EE|Ed)$", "", text)
    text = re.sub(r"\\f(?:\(..|\[\w*\]|.)|\\s[-+]?\d|\\[&/,|^%:]", "", text)
    text = re.sub(r"\\\((?:aq|cq|oq)|\\\[(?:aq|cq|oq)\]", "'", text)
    text = re.sub(r"\\\((?:lq|rq|dq)|\\\[(?:lq|rq|dq)\]|\\\*\(?[lr]q", '"', text)
    text = text.replace(r"\-", "-").replace(r"\ ", " ").replace(r"\(em", " - ").replace(r"\e", "\\")
    lines = []
    for line in text.splitlines():
        if re.match(r"[.'](?:B|I|BR|IR|RB|RI|BI|IB|SM|SB|Nm|Fl|Ar|Xr|Pa|Dv|Em|Fn|Va|Ql|Dq|Sq|Li|Cm)\b", line):
            name, _, rest = line.partition(" ")
            alternating = name[1:] in ("BR", "IR", "RB", "RI", "BI", "IB")
            lines.append(re.sub(r'"([^"]*)"|(\S+)\s*', r"\1\2", rest) if alternating else rest)
        elif re.match(r"\.S[HhSs]\b", line):
            lines += ["", line[3:].strip(' "'), ""]
        elif line.startswith((".", "'")):
            lines.append("")
        else:
            lines.append(line)
    return "\n".join(" ".join(part.split()) for part in re.split(r"\n\n+", "\n".join(lines)))


def of_pod(text: str) -> str:
    text = re.sub(r"(?m)^[ \t]+\S.*$", "", text)  # code
    for _ in range(2):
        text = re.sub(r"\b[A-Z]<+ ?((?:[^<>|]*\|)?)([^<>]*?) ?>+", lambda m: m[1][:-1] or m[2], text)
    return re.sub(r"(?m)^=\w+ ?\*?", "\n", text)


def of_json(text: str) -> str:
    """The sentences among the values of JSON."""
    found: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, str) and value.count(" ") > 5 and re.search(r"[.!?]", value):
            found.append(re.sub(r"</?\w+>", "", re.sub(r"\s+", " ", value)))
        elif isinstance(value, (list, dict)):
            for part in value.values() if isinstance(value, dict) else value:
                walk(part)

    try:
        walk(json.loads(text))
    except json.JSONDecodeError:
        return ""
    return "\n".join(found)


def of_quotes(text: str, pattern: str) -> str:
    """The sentences among the quoted parts of a program's data."""
    found = ("".join(match) for match in re.findall(pattern, text))
    return "\n".join(re.sub(r"\s+", " ", part) for part in found if part.count(" ") > 5)


def of_synsets(text: str) -> str:
    """'word, word: gloss' of every line of WordNet's data."""
    lines = []
    for line in text.splitlines():
        fields, _, gloss = line.partition(" | ")
        columns = fields.split(" ")
        if gloss and not line.startswith(" "):
            words = columns[4 : 4 + 2 * int(columns[3], 16) : 2]
            lines.append(f"{', '.join(words).replace('_', ' ')}: {gloss.strip()}\n")
    return "\n".join(lines)


def plain(name: str, raw: bytes) -> str:
    """The words of a file, a line for each paragraph; nothing where it is not English or not text."""
    text = raw.decode("utf-8", "replace").translate(SIGNS)
    if sum(ord(letter) > 127 for letter in text[:20_000]) > 0.02 * len(text[:20_000]):
        return ""
    if name.endswith(MARKUP):
        text = of_markup(text)
    elif re.search(r"\.[1-8]\w*$", name):
        text = of_manual(text)
    elif name.endswith(".pod"):
        text = of_wrapped(of_pod(text))
    elif name.endswith(".json"):
        text = of_json(text)
    elif name.endswith(".cfg"):
        text = of_quotes(text, r'_\s*"([^"]+)"')
    elif "endless-sky" in name:
        text = of_quotes(text, r'`([^`]+)`|"([^"\n]+)"')
    elif "wordnet/data." in name:
        text = of_synsets(text)
    elif name.endswith(".dict.dz"):
        text = re.sub(r"\[(?:1913 Webster|PJC|WordNet [\d.]+|Webster 1913 Suppl\.)\]|[{}]", "", text)
        text = of_wrapped(re.sub(r"(?m)^(?=\S)", "\n", text))
    elif name.endswith(WRAPPED) or "/fortunes/" in name:
        text = of_wrapped(re.sub(r"(?m)^%+$|^File: .*Node: .*$", "\n", text))
    else:
        return ""
    text = text.encode("ascii", "ignore").decode().replace("\0", "")
    lines = (re.sub(r"\s+", " ", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if few_signs(line))


def few_signs(line: str) -> bool:
    return len(line) > 2 and len(re.findall(r"[A-Za-z ]", line)) > 0.8 * len(line)
