"""How a person reads a number: 43.4 MiB, 6.1 GFLOP/token, 973 M parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime

BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi")
DECIMAL = ("", "k", "M", "G", "T", "P", "E", "Z")
COUNTS = ("", "k", "M", "B", "T", "P", "E", "Z")  # parameters and tokens are counted in billions
SMALL = ("", "m", "µ", "n")
FINER = ("tokens/s", "s")  # units of speed, in which designs lie near each other
DECIMALS = {"nats/token": 4, "accuracy": 3}  # of units that take no prefix
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


def readable(value: float, unit: str, signed: bool = False, more: int = 0) -> str:
    """`value` with its unit, three digits or so and `more`; bytes in powers of 1024, other counts in powers of 1000.

    >>> readable(45_500_000, "bytes"), readable(6.1e9, "FLOP/token"), readable(973_146_112, "parameters")
    ('43.4 MiB', '6.1 GFLOP/token', '973 M')
    >>> readable(1.50216, "nats/token"), readable(-0.0312, "nats/token", signed=True)
    ('1.5022 nats/token', '-0.0312 nats/token')
    >>> readable(3056.2, "tokens/s"), readable(0.0312, "s"), readable(1.075, "s")
    ('3.06 ktokens/s', '31.2 ms', '1.07 s')
    """
    text = bare(value, unit, signed, more)
    return f"{text} {unit}" if unit.startswith("nats") else text


def told_apart(one: float, other: float, unit: str) -> tuple[str, str]:
    """Both as `readable`, with as many more digits as it takes that unlike values read unlike.

    >>> told_apart(3056.2, 3058.9, "tokens/s"), told_apart(45_500_000, 45_510_000, "bytes")
    (('3.056 ktokens/s', '3.059 ktokens/s'), ('43.39 MiB', '43.40 MiB'))
    """
    for more in range(9):
        texts = readable(one, unit, more=more), readable(other, unit, more=more)
        if texts[0] != texts[1] or one == other:
            break
    return texts


def bare(value: float, unit: str, signed: bool = False, more: int = 0) -> str:
    """As `readable`, without the name of a unit that has no prefixes."""
    if unit in DECIMALS:
        places = DECIMALS[unit] + more
        value = round(value, places) + 0.0  # no minus before a nought
        return f"{'+' if signed and value > 0 else ''}{value:.{places}f}"
    sign = "+" if signed and value > 0 else ""
    if not math.isfinite(value):
        return str(value)
    step, prefixes = (1024.0, BINARY) if unit.startswith("bytes") else (1000.0, DECIMAL)
    prefixes = COUNTS if unit == "parameters" else prefixes
    power = 0
    while abs(value) >= 999.5 and power < len(prefixes) - 1:
        value, power = value / step, power + 1
    prefix = prefixes[power]
    if unit == "s":
        while 0 < abs(value) < 0.9995 and prefix != SMALL[-1]:
            value, prefix = 1000 * value, SMALL[SMALL.index(prefix) + 1]
    places = 0 if abs(value) >= 99.95 or value == int(value) else 1 + (unit in FINER and abs(value) < 9.995)
    digits = f"{value:.{places + more}f}"
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
