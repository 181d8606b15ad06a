"""Make the large text that studies of proxies train on: prose out of Debian packages, as ids of byte-pair encoding.

    python prose.py --packages | xargs apt-get download     # in an empty folder, on Debian 12 of November 2026
    pip install tokenizers
    python prose.py FOLDER_OF_DEB_FILES OUT_FOLDER

Writes `prose-bpe4096.npz` (the arrays are described in `hybrid_nas/data.py`) and prints the SHA-256 of the text, which
must be the one that the studies name, and each package's share. Beside `manuals.py` this text is larger and cleaner:

- a paragraph is one line; markup, preformatted code and lines with few letters are left out
- a page stays where its words are English ones and most of it is paragraphs, not lists of names
- a line that occurs more than `OFTEN` times over all pages is boilerplate and left out everywhere; one of `LONG`
  letters or more stays where it occurs first
- a page of which half or more stands in earlier pages is left out; the others stay whole otherwise
- a tenth of the documents is held out, by a hash of the name
"""

from __future__ import annotations

import collections
import csv
import gzip
import hashlib
import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from manuals import byte_letters

VOCAB = 4096
HELD_OUT = 0.1
OFTEN = 4
LONG = 40
SHORTEST, LONGEST, BLOCK = 800, 1_000_000, 16_000
# package -> (version, MB at most, pattern that a file's path must contain); references that programs wrote: 2 MB
PACKAGES = {
    name: (version, float(most), path)
    for name, version, most, path in csv.reader(
        Path(__file__).with_name("prose_packages.tsv").read_text().splitlines()[1:], delimiter="\t"
    )
}
MARKUP = (".html", ".htm", ".xhtml", ".page", ".xml", ".docbook")
WRAPPED = (".txt", ".rst", ".md", ".pod", ".info", ".en", ".texi")
LEFT_OUT = (
    "genindex", "search.html", "py-modindex", "contents.html", "copyright", "changelog", "gfdl", "gpl", "license",
    "licence", "copying", "_sources/", "/rst-doc", "index-all", "glossary-index", "/src/", "_modules/", "whatsnew",
    "release_notes", "/releases/", "news.", "appendix-legal", "/theme", "translat",
)  # fmt: skip
SKIPPED = {
    "script", "style", "head", "nav", "svg", "header", "footer", "aside", "form", "select", "button", "pre", "info",
    "math", "bookinfo", "programlisting", "screen", "textarea",
}  # fmt: skip
BREAKS = {
    "p", "div", "li", "br", "tr", "td", "th", "h1", "h2", "h3", "h4", "h5", "h6", "dt", "dd", "table", "section",
    "title", "item", "para", "simpara", "note", "blockquote", "article", "ul", "ol", "dl", "pre", "caption",
    "figcaption",
}  # fmt: skip
COMMON = {
    "the", "of", "to", "and", "a", "in", "is", "that", "it", "for", "be", "with", "on", "as", "are", "this", "by", "or",
    "an", "from", "not", "can", "if", "you", "have", "at", "will", "which", "we", "his", "he", "all", "but", "was",
    "they", "has", "there", "one", "more", "when", "no", "so", "may", "must", "i", "your", "its", "what", "their",
    "been", "would", "were", "do", "then", "than", "them",
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
            lines.append((" " if name[1:] in ("BR", "IR", "RB", "RI", "BI", "IB") else rest and "") or rest)
            if len(name) == 3 and name[1:] in ("BR", "IR", "RB", "RI", "BI", "IB"):
                lines[-1] = re.sub(r'"([^"]*)"|(\S+)\s*', r"\1\2", rest)
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


def is_prose(text: str) -> bool:
    """English, and most of it in sentences."""
    words = re.findall(r"[a-z]+", text.lower())
    common = sum(word in COMMON for word in words)
    return (
        len(text) >= SHORTEST
        and common > 0.25 * len(words)
        and sum(len(line) for line in text.split("\n") if len(line) > 60) > 0.6 * len(text)
    )


def of_package(package: Path) -> list[tuple[str, str]]:
    """(name, text) of a package's pages in an order that hangs on the names alone; long lists are cut in blocks."""
    label = package.name.split("_")[0]
    _, limit, pattern = PACKAGES[label]
    pages, taken = [], 0.0
    with tempfile.TemporaryDirectory() as unpacked:
        subprocess.run(["dpkg", "-x", str(package), unpacked], check=True)
        files = [f for f in Path(unpacked).rglob("*") if f.is_file() and not f.is_symlink()]
        names = {file.relative_to(unpacked).as_posix(): file for file in files}
        for name in sorted(names, key=lambda n: hashlib.sha256(n.encode()).digest()):
            path = name.removesuffix(".gz")
            if not re.search(pattern, path) or any(part in path.lower() for part in LEFT_OUT):
                continue
            raw = names[name].read_bytes()
            if name.endswith((".gz", ".dz")):
                raw = gzip.decompress(raw)
            text = plain(path, raw)
            for i, piece in enumerate(blocks(text) if is_list(path) else [text[:LONGEST]]):
                if is_prose(piece) and taken < limit * 1e6:
                    taken += len(piece)
                    pages.append((f"{label}/{path}#{i}", piece))
            if taken > limit * 1e6:
                break
    return pages


def is_list(path: str) -> bool:
    return path.endswith((".dict.dz", ".json")) or "/fortunes/" in path or "wordnet/data." in path


def blocks(text: str) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    for line in text.split("\n"):
        lines.append(line)
        size += len(line)
        if size > BLOCK:
            yield "\n".join(lines)
            lines, size = [], 0
    if lines:
        yield "\n".join(lines)


def alike(line: str) -> str:
    """What lines of boilerplate have in common: all but case and numbers."""
    return re.sub(r"\d+", "0", line.lower())


def cleaned(pages: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Pages without boilerplate, and without those that say again what earlier ones said."""
    pages = list(pages)
    counts = collections.Counter(alike(line) for _, text in pages for line in text.split("\n"))
    seen: set[str] = set()
    for name, text in pages:
        lines = [(line, alike(line)) for line in text.split("\n")]
        lines = [pair for pair in lines if counts[pair[1]] <= OFTEN]
        if sum(len(line) for line, key in lines if key in seen) * 2 >= sum(len(line) for line, _ in lines):
            continue
        kept = []
        for line, key in lines:
            if len(line) < LONG or key not in seen:
                kept.append(line)
            seen.add(key)
        if is_prose(text := "\n".join(kept)):
            yield name, text


def is_held_out(name: str) -> bool:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") < HELD_OUT * 2**64


def main() -> None:
    if sys.argv[1:] == ["--packages"]:
        print("\n".join(f"{name}={version}" for name, (version, _, _) in sorted(PACKAGES.items())))
        return
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    files = {file.name.split("_")[0]: file for file in source.glob("*.deb")}
    if absent := sorted(PACKAGES.keys() - files.keys()):
        sys.exit(f"{source}: no .deb file of {', '.join(absent)}")
    with multiprocessing.Pool() as pool:
        packages = pool.map(of_package, [files[name] for name in sorted(PACKAGES)], chunksize=1)
    write(split(packages), out)


def split(packages: Iterable[list[tuple[str, str]]]) -> dict[str, list[str]]:
    """The cleaned pages to train on and those held out; prints what is in them."""
    texts: dict[str, list[str]] = {"train": [], "held_out": []}
    digest, shares = hashlib.sha256(), collections.Counter[str]()
    for name, text in cleaned(page for pages in packages for page in pages):
        texts["held_out" if is_held_out(name) else "train"].append(text)
        digest.update(text.encode() + b"\0")
        shares[name.split("/")[0]] += len(text)
    total = sum(shares.values())
    for name, size in shares.most_common():
        print(f"{name:28} {size / 1e6:7.2f} MB {100 * size / total:5.1f} %")
    print("sha256 of the text", digest.hexdigest())
    print({part: (len(pages), sum(map(len, pages))) for part, pages in texts.items()}, "documents, bytes")
    return texts


def write(texts: dict[str, list[str]], out: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts["train"][::16], trainer)
    # Ids below 256 are bytes; merges follow in the order in which they were found, as in `manuals.py`.
    vocabulary = tokenizer.get_vocab()
    ids = np.zeros(len(vocabulary), np.uint16)
    for byte, letter in byte_letters().items():
        ids[vocabulary[letter]] = byte
    for place, i in enumerate(sorted(i for token, i in vocabulary.items() if len(token) > 1)):
        ids[i] = 256 + place
    arrays = {}
    for part, pages in texts.items():
        pieces = []
        for start in range(0, len(pages), 512):
            for encoding in tokenizer.encode_batch(pages[start : start + 512]):
                pieces += [ids[encoding.ids], np.zeros(1, np.uint16)]
        arrays[part] = np.concatenate(pieces)
    ratio = sum(len(text) + 1 for text in texts["held_out"]) / len(arrays["held_out"])
    np.savez_compressed(
        out / f"prose-bpe{VOCAB}.npz", **arrays, vocab=np.int64(len(ids)), bytes_per_token=np.float64(ratio)
    )
    tokenizer.save(str(out / f"prose-bpe{VOCAB}.json"))
    print({part: len(array) for part, array in arrays.items()}, "tokens;", ratio, "bytes per token")


if __name__ == "__main__":
    main()
