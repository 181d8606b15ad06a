"""Tables between marker comments of a README, computed anew."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from hybrid_nas.trial import Trial

Made = Callable[[Sequence[Trial]], str]


def written(readme: str, trials: Sequence[Trial], tables: Mapping[str, Made]) -> str:
    """`readme` with what each of `tables` makes of the trials between its markers. ValueError where one is missing."""
    for name, made in tables.items():
        before, after = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        count = len(re.findall(re.escape(before) + ".*?" + re.escape(after), readme, flags=re.S))
        if count != 1:
            raise ValueError(f"README.md: the markers of {name} must stand once, found {count}")
        start, end = readme.index(before) + len(before), readme.index(after)
        readme = f"{readme[:start]}{made(trials)}\n{readme[end:]}"
    return readme
