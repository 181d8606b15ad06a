"""Small pictures as SVG text, for artifacts and pages: a model as a strip of blocks, and a loss curve.

They stand alone (no script, no font, no plotting library), and follow the reader's light or dark setting.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from hybrid_nas.architecture import Architecture
from hybrid_nas.trial import Point
from hybrid_nas.units import count
from hybrid_nas.words import letters, part_text

LIGHT = {"A": "#c0693f", "S": "#d9ab4e", "M": "#5f8fae", "H": "#8a6fa8", "-": "#8d8a84"}
DARK = {"A": "#b9663f", "S": "#b98f3c", "M": "#456f8b", "H": "#77608f", "-": "#6c6963"}
FURTHER = ("#4f8f6f", "#b0567a", "#3f8f95", "#8f8040", "#6b6fc0", "#a35c4a")  # letters without a colour of their own
STYLE = (
    ".paper{fill:#fdfcf9}.ink{fill:#1d1c1a}.muted{fill:#6f6c66}.grid{stroke:#ebe8e1}.on{fill:#fffdf8}"
    ".line{stroke:#24598a;fill:none}.dot{fill:#b2502a}"
    "@media(prefers-color-scheme:dark){.paper{fill:#191817}.ink{fill:#e9e6e0}.muted{fill:#a09c94}"
    ".grid{stroke:#2d2b29}.line{stroke:#84b6e2}.dot{fill:#e5946c}}"
)
WIDTH = 520  # shown small, beside others
FONT = 'font-family="system-ui, sans-serif"'


def colour(letter: str, dark: bool = False) -> str:
    """The fill of a block's letter; letters of mixers to come take the further colours by their place in A to Z."""
    return (DARK if dark else LIGHT).get(letter) or FURTHER[(ord(letter[0].upper()) - ord("A")) % len(FURTHER)]


def layout_svg(architecture: Architecture, title: str = "") -> str:
    """The blocks from first to last, a letter each, and below them what each letter is."""
    depth, per_row = architecture.depth, 24
    rows = math.ceil(depth / per_row)
    side = min(44.0, (WIDTH - 40) / min(depth, per_row))
    top = 44.0 if title else 20.0
    parts = [f'<text class="ink" x="20" y="28" font-size="15" {FONT}>{html.escape(title)}</text>'] if title else []
    for i, letter in enumerate(architecture.layout):
        x, y = 20 + side * (i % per_row), top + (side + 8) * (i // per_row)
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{side - 3:.1f}" height="{side - 3:.1f}" rx="3" '
            f'fill="{colour(letter)}"/>'
            f'<text class="on" x="{x + side / 2 - 1.5:.1f}" y="{y + side / 2 + 3.5:.1f}" font-size="{side * 0.42:.1f}" '
            f'text-anchor="middle" {FONT}>{html.escape(letter)}</text>'
        )
    y = top + (side + 8) * rows + 18
    for letter, block in letters(architecture).items():
        parts.append(
            f'<rect x="20" y="{y - 11:.1f}" width="14" height="14" rx="2" fill="{colour(letter)}"/>'
            f'<text class="muted" x="42" y="{y:.1f}" font-size="12" {FONT}>{html.escape(part_text(block.mixer))}</text>'
        )
        y += 22
    for ffn in dict.fromkeys(block.ffn for block in architecture.blocks):
        text = f"each with {part_text(ffn)}" if ffn else "or no FFN"
        parts.append(f'<text class="muted" x="42" y="{y:.1f}" font-size="12" {FONT}>{html.escape(text)}</text>')
        y += 18
    return _svg(parts, y)


def curve_svg(curve: Sequence[Point], title: str = "") -> str:
    """Training loss as a line and held-out losses as dots, over tokens; scaled to what follows the first tenth."""
    points = [point for point in curve if math.isfinite(point.loss)]
    if not points:
        text = "no loss was recorded before the training ended"
        return _svg([f'<text class="muted" x="20" y="34" font-size="14" {FONT}>{text}</text>'], 60)
    left, right, top, bottom = 56.0, WIDTH - 20.0, 44.0 if title else 16.0, 290.0
    longest = max(point.tokens for point in points)
    shown = [p.loss for p in points if p.tokens >= 0.1 * longest]
    low, high = min(shown), max(shown)
    ticks = _ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])

    def at(point: Point) -> tuple[float, float]:
        y = bottom - (point.loss - low) / (high - low) * (bottom - top)
        return left + point.tokens / longest * (right - left), max(top, y)

    parts = [f'<text class="ink" x="20" y="28" font-size="15" {FONT}>{html.escape(title)}</text>'] if title else []
    for tick in ticks:
        y = bottom - (tick - low) / (high - low) * (bottom - top)
        parts.append(
            f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="muted" x="{left - 8}" y="{y + 4:.1f}" font-size="12" text-anchor="end" {FONT}>{tick:.4g}'
            "</text>"
        )
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        anchor = {0.0: "start", 1.0: "end"}.get(share, "middle")
        parts.append(
            f'<text class="muted" x="{left + share * (right - left):.1f}" y="{bottom + 20}" font-size="12" '
            f'text-anchor="{anchor}" {FONT}>{count(share * longest)}{" tokens" if share == 1 else ""}</text>'
        )
    training = [at(point) for point in points if not point.validation]
    if training:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in training)
        parts.append(f'<polyline class="line" stroke-width="1.6" points="{path}"/>')
    held_out = [point for point in points if point.validation]
    for point in held_out:
        x, y = at(point)
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
    note = "line: training loss, nats/token" + (f"; dots: held-out, last {held_out[-1].loss:.4f}" if held_out else "")
    parts.append(f'<text class="muted" x="{left}" y="{bottom + 42}" font-size="12" {FONT}>{note}</text>')
    return _svg(parts, bottom + 56)


def _svg(parts: list[str], height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
        f'viewBox="0 0 {WIDTH} {height:.0f}"><style>{STYLE}</style>'
        f'<rect class="paper" width="{WIDTH}" height="{height:.0f}"/>{"".join(parts)}</svg>\n'
    )


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers around [low, high]."""
    high = max(high, low + 1e-3)
    raw = (high - low) / 4
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= raw)
    return [i * step for i in range(math.floor(low / step), math.ceil(high / step) + 1)]
