"""Make the text that the studies of proxies train on: manuals out of Debian packages, as ids of byte-pair encoding.

    apt-get download aptitude-doc-en bible-kjv-text debian-reference-en developers-reference git-doc \\
        libreoffice-help-en-us linux-doc-6.1 maint-guide perl-doc postgresql-doc-15 python3.11-doc sqlite3-doc
    pip install tokenizers
    python manuals.py FOLDER_OF_DEB_FILES OUT_FOLDER

Writes `manuals-bytes.npz` and `manuals-bpe1024.npz` (the arrays are described in `hybrid_nas/data.py`) and compares the
SHA-256 of the text with the one that the studies name; other text is written too, and ends with code 1. Documents are
cut where a file of it begins and hold the words of a page, no markup; a tenth of them is held out. The same ids stand
for bytes in both files.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

SHA256 = "ccb673ebeedd3a198e25094b1a04f72c8a00362054c1e72b22113c4186d42c20"
"""Of the text that the studies name."""
PACKAGES = (
    "aptitude-doc-en", "bible-kjv-text", "debian-reference-en", "developers-reference", "git-doc",
    "libreoffice-help-en-us", "linux-doc-6.1", "maint-guide", "perl-doc", "postgresql-doc-15", "python3.11-doc",
    "sqlite3-doc",
)  # fmt: skip
HELD_OUT = 0.1
LARGEST_PACKAGE = 3_000_000
TEXT_SUFFIXES = (".html", ".txt", ".rst", ".pod", ".1", ".en")
LEFT_OUT = ("genindex", "search.html", "py-modindex", "whatsnew/changelog", "contents.html", "copyright", "changelog")
SKIPPED = {"script", "style", "head", "nav", "svg"}
BREAKS = {"p", "div", "li", "br", "tr", "h1", "h2", "h3", "h4", "pre", "dt", "dd", "table", "section"}


class Words(HTMLParser):
    """The text of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.depth = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.depth += tag in SKIPPED
        if tag in BREAKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag in SKIPPED and self.depth > 0

    def handle_data(self, data: str) -> None:
        if not self.depth:
            self.parts.append(data)


def plain(name: str, raw: bytes) -> str:
    text = raw.decode("utf-8", "replace")
    if name.endswith(".html"):
        words = Words()
        words.feed(text)
        words.close()
        text = "".join(words.parts)
    text = text.encode("ascii", "ignore").decode().replace("\0", "")
    text = re.sub(r"[ \t\r\f\v]+", " ", text)
    return re.sub(r"\n\s*\n+", "\n", re.sub(r" ?\n ?", "\n", text)).strip()


def documents(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of every file of prose, in order; a text that an earlier file had is left out."""
    seen: set[str] = set()
    for package in sorted(folder.glob("*.deb")):
        taken = 0
        with tempfile.TemporaryDirectory() as unpacked:
            subprocess.run(["dpkg", "-x", str(package), unpacked], check=True)
            files = [f for f in Path(unpacked).rglob("*") if f.is_file() and not f.is_symlink()]
            for file in sorted(
                files, key=lambda f: hashlib.sha256(f.relative_to(unpacked).as_posix().encode()).digest()
            ):
                name = file.relative_to(unpacked).as_posix()
                if file.suffix == ".gz":
                    raw, name = (
                        subprocess.run(["gzip", "-dc", str(file)], check=True, capture_output=True).stdout,
                        name[:-3],
                    )
                else:
                    raw = file.read_bytes()
                if not name.endswith(TEXT_SUFFIXES) or any(part in name for part in LEFT_OUT):
                    continue
                text = plain(name, raw)
                if len(text) < 2000 or len(text) > 400_000 or text in seen or taken > LARGEST_PACKAGE:
                    continue
                seen.add(text)
                taken += len(text)
                yield f"{package.name.split('_')[0]}/{name}", text


def folders(about: str) -> tuple[Path, Path]:
    """The folder of packages and that to write to. Ends with code 2 where there is no package."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="FOLDER_OF_DEB_FILES", type=Path)
    parser.add_argument("out", metavar="OUT_FOLDER", type=Path)
    given = parser.parse_args()
    if not any(given.source.glob("*.deb")):
        parser.error(f"{given.source} holds no .deb file; see --help for the packages")
    return given.source, given.out


def absent(source: Path, packages: Iterable[str]) -> list[str]:
    """Those of the packages that the folder lacks."""
    return sorted(set(packages) - {file.name.split("_")[0] for file in source.glob("*.deb")})


def told(found: str, known: str, lacking: list[str]) -> str | None:
    """What is to be said of the text of SHA-256 `found`; None where it is the one that the studies name."""
    if found == known:
        return None
    return (
        f"This is not the text of the studies: SHA-256 {found}, and theirs is {known}. "
        + (f"Missing packages: {', '.join(lacking)}." if lacking else "No package is missing, so versions differ.")
        + " Their run.py will refuse it."
    )


def main() -> None:
    source, out = folders(__doc__ or "")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if lacking := absent(source, PACKAGES):
        print(f"{source}: no .deb file of {', '.join(lacking)}", file=sys.stderr)
    sides: dict[bool, list[str]] = {False: [], True: []}
    digest = hashlib.sha256()
    for name, text in documents(source):
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        sides[key < HELD_OUT * 2**64].append(text)
        digest.update(text.encode() + b"\0")
    print("sha256 of the text", digest.hexdigest())
    if not all(sides.values()):
        print(f"{source}: too few pages to train on some and hold others out; nothing is written", file=sys.stderr)
        sys.exit(2)
    out.mkdir(parents=True, exist_ok=True)
    joined = {side: "\0".join(texts).encode() + b"\0" for side, texts in sides.items()}
    print({side: len(text) for side, text in joined.items()})
    np.savez_compressed(
        out / "manuals-bytes.npz",
        train=np.frombuffer(joined[False], np.uint8),
        held_out=np.frombuffer(joined[True], np.uint8),
        vocab=np.int64(256),
        bytes_per_token=np.float64(1),
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1024, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(sides[False][::4], trainer)
    # Ids below 256 are bytes, as in the text of bytes; merges follow in the order in which they were found.
    of_byte = byte_letters()
    vocabulary = tokenizer.get_vocab()
    merged = sorted((i, token) for token, i in vocabulary.items() if len(token) > 1)
    ids = np.full(len(vocabulary), -1)
    for byte, letter in of_byte.items():
        ids[vocabulary[letter]] = byte
    for place, (i, _) in enumerate(merged):
        ids[i] = 256 + place
    assert (ids >= 0).all()
    arrays = {}
    for side, texts in sides.items():
        pieces = []
        for encoding in tokenizer.encode_batch(texts):
            pieces += [ids[encoding.ids].astype(np.uint16), np.zeros(1, np.uint16)]
        arrays[side] = np.concatenate(pieces)
    ratio = len(joined[True]) / len(arrays[True])
    np.savez_compressed(
        out / "manuals-bpe1024.npz",
        train=arrays[False],
        held_out=arrays[True],
        vocab=np.int64(len(ids)),
        bytes_per_token=np.float64(ratio),
    )
    print({side: len(array) for side, array in arrays.items()}, "bytes per token", ratio)
    sys.exit(told(digest.hexdigest(), SHA256, lacking))


def byte_letters() -> dict[int, str]:
    """byte -> the letter that stands for it in a byte-level vocabulary [GPT-2]."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, shift = {byte: chr(byte) for byte in printable}, 0
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + shift)
            shift += 1
    return letters


if __name__ == "__main__":
    main()
