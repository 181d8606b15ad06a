"""How a person reads a number: 43.4 MiB, 6.1 GFLOP/token, 973 M parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime

BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi")
DECIMAL = ("", "k", "M", "G", "T", "P", "E", "Z")
COUNTS = ("", "k", "M", "B", "T", "P", "E", "Z")  # parameters and tokens are counted in billions
DECIMALS = {"nats/byte": 4, "nats/token": 4, "accuracy": 3}  # of units that take no prefix
LABELS = {
    "cache_bytes": "cache",
    "kv_bytes": "KV cache",
    "state_bytes": "state",
    "params": "parameters",
    "params_nonembedding": "parameters without embedding",
    "params_active": "active parameters",
    "train_flops_per_token": "training",
    "decode_flops_per_token": "decoding",
    "decode_bytes_per_token": "reads while decoding",
    "decode_tokens_per_s": "decoding speed",
    "prefill_s": "prefill",
    "train_tokens_per_s": "training speed",
    "peak_memory_bytes": "training memory",
}


def readable(value: float, unit: str, signed: bool = False) -> str:
    """`value` with its unit, three digits or so; bytes in powers of 1024, other counts in powers of 1000.

    >>> readable(45_500_000, "bytes"), readable(6.1e9, "FLOP/token"), readable(973_146_112, "parameters")
    ('43.4 MiB', '6.1 GFLOP/token', '973 M')
    >>> readable(1.50216, "nats/byte"), readable(-0.0312, "nats/byte", signed=True)
    ('1.5022 nats/byte', '-0.0312 nats/byte')
    """
    return f"{bare(value, unit, signed)} {unit}" if unit.startswith("nats") else bare(value, unit, signed)


def bare(value: float, unit: str, signed: bool = False) -> str:
    """As `readable`, without the name of a unit that has no prefixes."""
    if unit in DECIMALS:
        value = round(value, DECIMALS[unit]) + 0.0  # no minus before a nought
        return f"{'+' if signed and value > 0 else ''}{value:.{DECIMALS[unit]}f}"
    sign = "+" if signed and value > 0 else ""
    if not math.isfinite(value):
        return str(value)
    step, prefixes = (1024.0, BINARY) if unit.startswith("bytes") else (1000.0, DECIMAL)
    prefixes = COUNTS if unit == "parameters" else prefixes
    power = 0
    while abs(value) >= 999.5 and power < len(prefixes) - 1:
        value, power = value / step, power + 1
    digits = f"{value:.{0 if abs(value) >= 99.95 or value == int(value) else 1}f}"
    prefix = prefixes[power]
    if unit.startswith("bytes"):
        tail = f"{prefix}B{unit.removeprefix('bytes')}"
    elif unit == "parameters":
        tail = prefix
    else:
        tail = prefix + unit
    return f"{sign}{digits} {tail}".rstrip()


def counted(number: int, what: str) -> str:
    """
    >>> counted(1, "design"), counted(12_000, "design")
    ('1 design', '12,000 designs')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def count(number: float) -> str:
    """A plain count with a prefix.

    >>> count(0), count(950), count(20_480), count(1_500_000)
    ('0', '950', '20.5 k', '1.5 M')
    >>> count(1_240_000_000)
    '1.2 B'
    """
    return bare(number, "parameters")


def label(name: str) -> str:
    """The name of a quantity as a reader says it.

    >>> label("cache_bytes"), label("loss")
    ('cache', 'loss')
    """
    return LABELS.get(name, name)


def duration(seconds: float) -> str:
    """
    >>> duration(7.21), duration(125), duration(7500)
    ('7.2 s', '2 min 5 s', '2 h 5 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def moment(text: str) -> str:
    """A time stamp as a reader says it; other text as it is.

    >>> moment("2026-11-24T23:50:00+0000"), moment("cpu")
    ('24 Nov 2026, 23:50 UTC', 'cpu')
    """
    try:
        stamp = datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = stamp.strftime("%z")
    return f"{stamp.day} {stamp:%b %Y, %H:%M}" + ("" if not zone else " UTC" if zone == "+0000" else f" UTC{zone}")


def listed(names: Iterable[str]) -> str:
    """
    >>> listed(["front", "middle", "end"]), listed(["end"])
    ('front, middle and end', 'end')
    """
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
