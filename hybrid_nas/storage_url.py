"""Where a study is recorded, as a URL.

sqlite, sqlite:///PATH     one file on this machine (`sqlite`: study.db in the run folder), the default
journal, journal:///PATH   Optuna's journal, one file that is only ever appended to; quicker than SQLite
postgresql://USER@HOST/DB  a server that machines share (extra `postgresql`)
grpc://HOST:PORT           Optuna's proxy in front of a storage (extra `grpc`)
"""

from __future__ import annotations

import re
from pathlib import Path

from hybrid_nas.yaml_file import nearest

KINDS = ("sqlite", "journal", "postgresql", "grpc")
FILES = {"sqlite": "study.db", "journal": "study.journal"}


def resolved(name: str, folder: Path) -> str:
    """The full URL of a storage named as above, in or beside a run folder. ValueError says what may stand there."""
    if name in FILES:
        return f"{name}:///{folder.resolve() / FILES[name]}"
    kind, found, rest = name.partition("://")
    if kind == "postgres":
        kind = "postgresql"
    if not found or kind not in KINDS:
        raise ValueError(
            f"storage: {name!r} is none of sqlite, journal, postgresql://USER@HOST/DATABASE, grpc://HOST:PORT; "
            f"{nearest(kind, KINDS)}"
        )
    if kind == "grpc" and not re.fullmatch(r"(\[[^\]]+\]|[^:/]+):\d+/?", rest):
        raise ValueError(f"storage: grpc://HOST:PORT must stand here, found {name!r}")
    if kind in FILES and (not rest.startswith("/") or rest == "/"):
        raise ValueError(f"storage: {kind}:///PATH must stand here (three strokes, then the path), found {name!r}")
    return f"{kind}://{rest}"


def without_password(url: str) -> str:
    """What may be written down and shown."""
    return re.sub(r"(?<=://)([^:/@]*):[^@/]*@", r"\1@", url)
