"""The script that makes the large text: what it keeps of a page, and what it leaves out over all pages."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hybrid_nas.data import Corpus, open_corpus

sys.path.append(str(Path(__file__).parent.parent / "studies"))

import manuals
import prose
import prose_pages

SUBJECTS = ("The kettle", "A letter", "My uncle", "This harbour", "Her garden", "The clerk", "Our winter", "That song")
VERBS = ("was on the table in", "came to us from", "is what we had at", "would not be there for", "may have been by")
PLACES = ("the old mill.", "a town of the north.", "the end of the road.", "their first summer.", "his own house.")


def page(seed: int, lines: int = 20) -> str:
    """Paragraphs that no other seed has: the number in words of every one is its own."""
    rng = np.random.default_rng(seed)
    number = "".join(chr(97 + int(digit)) * 3 for digit in str(seed))
    return "\n".join(
        " ".join([rng.choice(SUBJECTS), number, chr(97 + i) * 4, rng.choice(VERBS), rng.choice(PLACES)])
        + " It is so, and he was not there when we came."
        for i in range(lines)
    )


PAGE = """<head><title>t</title></head><nav>Home</nav>
<p>One \u201cpara\u2019s\u201d
line<br>two</p><pre>x = 1</pre>"""
MANUAL = r""".TH A 3
.SH NAME
open \- to
.BR open (2)
and
.nf
int x;
.fi
end"""
BROKEN = "A long line of more than forty-five letters, then\nanother.\n\n==+== 0x00\n"
JSON = '[{"id": "x y", "text": "This one is a whole <b>sentence of</b> words."}]'
FILES = [
    ("a.html", PAGE, 'One "para\'s" line\ntwo'),
    ("a.txt", BROKEN, "A long line of more than forty-five letters, then another."),
    ("a.3", MANUAL, "NAME\nopen - to open(2) and\nend"),
    ("a.pod", "=head1 Names\n\nA B<bold> C<< code >> L<link|perlop>.\n\n  my $x;\n", "Names\nA bold code link."),
    ("a.json", JSON, "This one is a whole sentence of words."),
    ("wordnet/data.noun", "1 03 n 02 big_cat 0 cat 0 001 @ 2 n 0 | an animal\n", "big cat, cat: an animal"),
    ("a.html", "<p>" + "\u0431\u0432" * 200, ""),
    ("a.png", "words", ""),
]


@pytest.mark.parametrize(("name", "raw", "words"), FILES)
def test_a_file_becomes_its_paragraphs(name, raw, words):
    assert prose_pages.plain(name, raw.encode()) == words


def test_prose_is_told_from_lists_and_other_languages():
    assert prose.is_prose(page(1))
    assert not prose.is_prose(page(1)[:300])
    assert not prose.is_prose("\n".join(["the of to and a in is that"] * 100))  # short lines
    assert not prose.is_prose(
        "\n".join(["Der Kessel stand auf dem Tisch und das Haus war leer, sagte der Onkel uns."] * 30)
    )


def test_boilerplate_and_repeated_pages_go():
    footer = "Copyright 2001 by the writers of this book and nobody else in the world"
    pages = [(str(i), page(i) + "\n" + footer.replace("2001", str(2001 + i))) for i in range(6)]
    once = "This paragraph stands in two pages, and only the first of them keeps it."
    pages[1] = "1", pages[1][1] + "\n" + once
    pages[4] = "4", pages[4][1] + "\n" + once
    copy = "copy", pages[2][1].replace(" aaaa ", " zzzz ")  # one paragraph of twenty is new
    kept = dict(prose.cleaned([*pages, copy]))
    assert list(kept) == [name for name, _ in pages]
    assert kept == {str(i): page(i) + ("\n" + once) * (i == 1) for i in range(6)}


@pytest.mark.parametrize("script", ["manuals.py", "prose.py"])
def test_what_is_wrong_with_the_folders_is_said(tmp_path, script):
    def run(*arguments):
        command = [sys.executable, str(Path(prose.__file__).with_name(script)), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True)

    asked = run("--help")
    assert asked.returncode == 0
    assert "FOLDER_OF_DEB_FILES OUT_FOLDER" in asked.stdout
    out = tmp_path / "out"
    for arguments, told in (
        ((), "required: FOLDER_OF_DEB_FILES, OUT_FOLDER"),
        ((tmp_path,), "required: OUT_FOLDER"),
        ((tmp_path, out), f"{tmp_path} holds no .deb file"),
    ):
        ended = run(*arguments)
        assert ended.returncode == 2
        assert told in ended.stderr
        assert "Traceback" not in ended.stderr
    assert not out.exists()


def package(folder: Path, name: str, pages: list[str]) -> None:
    """A Debian package of these pages."""
    root = folder / name
    (root / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: pages\n"
    (root / "DEBIAN" / "control").write_text(control)
    for i, text in enumerate(pages):
        (root / f"page{i}.txt").write_text(text)
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", root, folder / f"{name}_1_all.deb"], check=True)
    shutil.rmtree(root)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_other_text_than_the_studies_is_said_loudly(tmp_path, monkeypatch, capsys):
    """With one of the packages, with all of them in other versions, and with the text that is named."""
    pytest.importorskip("tokenizers")
    debs = tmp_path / "debs"
    package(debs, "sqlite3-doc", [page(i, 40) for i in range(40)])
    monkeypatch.setattr(sys, "argv", ["manuals.py", str(debs), str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        manuals.main()
    told, printed = str(ended.value.code), capsys.readouterr()
    digest = hashlib.sha256(b"".join(text.encode() + b"\0" for _, text in manuals.documents(debs))).hexdigest()
    assert f"SHA-256 {digest}, and theirs is ccb673ebeedd3a198e25094b1a04f72c8a00362054c1e72b22113c4186d42c20" in told
    missing = "Missing packages: aptitude-doc-en, bible-kjv-text,"
    assert missing in told
    assert "python3.11-doc. Their" in told
    assert "no .deb file of aptitude-doc-en," in printed.err
    monkeypatch.setattr(manuals, "PACKAGES", ("sqlite3-doc",))
    with pytest.raises(SystemExit, match="No package is missing, so versions differ"):
        manuals.main()
    monkeypatch.setattr(manuals, "SHA256", digest)
    with pytest.raises(SystemExit) as ended:
        manuals.main()
    assert ended.value.code is None
    shutil.rmtree(tmp_path / "out")
    shutil.rmtree(debs)
    package(debs, "sqlite3-doc", [page(0, 40)])
    with pytest.raises(SystemExit) as ended:
        manuals.main()
    assert ended.value.code == 2
    assert "too few pages" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_ids_are_the_text_again(tmp_path):
    pytest.importorskip("tokenizers")
    from tokenizers import Tokenizer

    texts = {"train": [page(i) for i in range(40)], "held_out": [page(i) for i in range(40, 45)]}
    prose.write(texts, tmp_path)
    text = open_corpus(Corpus(str(tmp_path / "prose-bpe4096.npz")))
    assert text.vocab <= 4096
    of_id = [bytes([i]) for i in range(256)]
    merges = Tokenizer.from_file(str(tmp_path / "prose-bpe4096.json"))
    by_place = sorted((i, token) for token, i in merges.get_vocab().items() if len(token) > 1)
    of_id += [merges.decoder.decode([token]).encode() for _, token in by_place]
    for part, ids in (("train", text.train), ("held_out", text.held_out)):
        joined = b"".join(of_id[i] for i in ids)
        assert joined == "".join(page + "\0" for page in texts[part]).encode()
    assert text.bytes_per_token == pytest.approx(len(joined) / len(text.held_out))
