"""One HTML file that needs nothing else: style, script, charts and the library that draws them inside it."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from collections.abc import Iterable
from importlib.resources import files
from typing import TYPE_CHECKING

from hybrid_nas.axes import DARK, LIGHT
from hybrid_nas.pictures import colour

if TYPE_CHECKING:
    import plotly.graph_objects as go

    Figures = dict[str, go.Figure]
else:
    Figures = dict

LETTERS_UP_TO = 40
Cell = str | tuple[float | None, str]
"""What is shown, and for numbers first what is sorted by."""
Rows = list[tuple[int, str, bool, bool, str, list[Cell]]]
"""Of each trial its number, state, whether it is on the front, whether it is a point of a chart, the phrases that
the filter finds it by, and its cells."""


def document(
    title: str, body: str, letters: Iterable[str], figures: Figures | None = None, rows: Rows | None = None
) -> str:
    """The whole page. `letters` are those of the blocks in it; `rows` those of the table of trials, which the script
    writes a screenful at a time. They, the charts and plotly's script (only where there are charts) are carried
    compressed, since they are by far the largest part."""
    figures = figures or Figures()
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">',
        f"<title>{html.escape(title)}</title>",
        f"<style>{_asset('report.css')}{_blocks(letters)}</style></head><body>",
        minus(body),
    ]
    if figures or rows:
        data = json.dumps({"figures": {key: json.loads(one.to_json()) for key, one in figures.items()}, "rows": rows})
        colours = json.dumps([[LIGHT[key], DARK[key]] for key in LIGHT])
        parts += [
            "<noscript><p>Charts and the table of trials need JavaScript.</p></noscript>",
            f'<script type="application/json" id="colours">{colours}</script>',
            f'<script type="application/gzip" id="data">{_packed(data)}</script>',
        ]
    if figures:
        from plotly.offline import get_plotlyjs

        parts.append(f'<script type="application/gzip" id="library">{_packed(get_plotlyjs())}</script>')
    return "\n".join([*parts, f"<script>{_asset('report.js')}</script>", "</body></html>\n"])


def minus(body: str) -> str:
    """Hyphens before numbers as minus signs, in what is read: not in tags, nor in what may be copied.

    >>> minus('<p style="--a:-1">-0.5 [-1.2, 3]</p><code>x -1</code>')
    '<p style="--a:-1">−0.5 [−1.2, 3]</p><code>x -1</code>'
    """
    parts = re.split(r"(<(pre|code)\b.*?</\2>|<[^>]*>)", body, flags=re.DOTALL)
    return "".join(
        re.sub(r"(?<![\w.\-)])-(?=\d)", "\u2212", text) if i % 3 == 0 else text
        for i, text in enumerate(parts)
        if i % 3 < 2
    )


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def prose(text: str) -> str:
    """Escaped, with `code` in backticks set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def plot(key: str, figure: go.Figure, caption: str, figures: Figures) -> str:
    """Room for a figure, which the page's script draws there."""
    figures[key] = figure
    height = figure.layout.height
    caption = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure><div class="plot" id="{key}" style="height:{height}px"></div>{caption}</figure>'


def copied(command: str) -> str:
    """A line with a button that copies it."""
    return f'<div class="copy"><pre>{html.escape(command)}</pre><button type="button">copy</button></div>'


def table(head: Iterable[str], rows: Iterable[Iterable[str]], numeric: Iterable[int] = (), wide: bool = False) -> str:
    """A table of cells that are HTML already; `numeric` columns stand at the right."""
    right = set(numeric)

    def cells(tag: str, row: Iterable[str]) -> str:
        return "".join(f"<{tag}{' class=n' if i in right else ''}>{cell}</{tag}>" for i, cell in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    kind = ' class="wide"' if wide else ""
    head = f"<thead><tr>{cells('th', head)}</tr></thead>"
    return f'<div class="scroll"><table{kind}>{head}<tbody>{body}</tbody></table></div>'


def strip(layout: str, note: str) -> str:
    """A model drawn as a row of blocks, a letter each; without letters where there are too many to read."""
    blocks = "".join(f'<i data-b="{html.escape(letter)}">{html.escape(letter)}</i>' for letter in layout)
    thin = " thin" if len(layout) > LETTERS_UP_TO or note == "proxy" else ""
    said = f"<span>{html.escape(note)}</span>" if note else ""
    return (
        f'{said}<div class="blocks{thin}" role="img" '
        f'aria-label="{html.escape(layout)}" title="{html.escape(layout)}">{blocks}</div>'
    )


def _blocks(letters: Iterable[str]) -> str:
    """The colours of the blocks' letters, light and dark."""
    rules = "".join(
        f'i[data-b="{html.escape(x)}"]{{--light:{colour(x)};--dark:{colour(x, dark=True)}}}'
        for x in sorted(set(letters))
    )
    return rules + (
        "i[data-b]{background:var(--light)}@media(prefers-color-scheme:dark){i[data-b]{background:var(--dark)}}"
    )


def _asset(name: str) -> str:
    return files("hybrid_nas").joinpath(name).read_text(encoding="utf-8")
