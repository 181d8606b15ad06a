"""Make the large text that studies of proxies train on: prose out of Debian packages, as ids of byte-pair encoding.

    python prose.py --packages | xargs apt-get download     # in an empty folder, on Debian 12 of November 2026
    pip install tokenizers
    python prose.py FOLDER_OF_DEB_FILES OUT_FOLDER

Writes `prose-bpe4096.npz` (the arrays are described in `hybrid_nas/data.py`) and prints each package's share and the
SHA-256 of the text, which is that of the studies (`SHA256`) with the versions in `prose_packages.tsv`; other text is
written too, and ends with code 1. Beside `manuals.py` this text is larger and cleaner:

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
import multiprocessing
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from manuals import absent, byte_letters, folders, told
from prose_pages import plain

SHA256 = "4a1c5be474cba00077e75b5fb9ec8e9292abc113764bb81d4e2f0082f496f1cc"
"""Of the text that the studies name."""
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
LEFT_OUT = (
    "genindex", "search.html", "py-modindex", "contents.html", "copyright", "changelog", "gfdl", "gpl", "license",
    "licence", "copying", "_sources/", "/rst-doc", "index-all", "glossary-index", "/src/", "_modules/", "whatsnew",
    "release_notes", "/releases/", "news.", "appendix-legal", "/theme", "translat",
)  # fmt: skip
COMMON = {
    "the", "of", "to", "and", "a", "in", "is", "that", "it", "for", "be", "with", "on", "as", "are", "this", "by", "or",
    "an", "from", "not", "can", "if", "you", "have", "at", "will", "which", "we", "his", "he", "all", "but", "was",
    "they", "has", "there", "one", "more", "when", "no", "so", "may", "must", "i", "your", "its", "what", "their",
    "been", "would", "were", "do", "then", "than", "them",
}  # fmt: skip


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
    source, out = folders(__doc__ or "")
    if lacking := absent(source, PACKAGES):
        print(f"{source}: no .deb file of {', '.join(lacking)}", file=sys.stderr)
        sys.exit(2)
    files = {file.name.split("_")[0]: file for file in source.glob("*.deb")}
    with multiprocessing.Pool() as pool:
        packages = pool.map(of_package, [files[name] for name in sorted(PACKAGES)], chunksize=1)
    texts, found = split(packages)
    out.mkdir(parents=True, exist_ok=True)
    write(texts, out)
    sys.exit(told(found, SHA256, []))


def split(packages: Iterable[list[tuple[str, str]]]) -> tuple[dict[str, list[str]], str]:
    """The cleaned pages to train on and those held out, and the SHA-256 of them; prints what is in them."""
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
    return texts, digest.hexdigest()


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
