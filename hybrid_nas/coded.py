"""The settings of designs as numbers, and the columns of a model that they give: a row a proxy, in equal parts that of
each of its designs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hybrid_nas.choices import Settings, option_order

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Codes = NDArray[np.int64]
    Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Coded:
    """`options` by choice, in a person's order; `code` (designs, choices) is the place of a design's option there, -1
    where the choice does not apply; `row` (designs) the place of its proxy among `proxies`."""

    proxies: tuple[str, ...]
    options: dict[str, tuple[str, ...]]
    row: Codes
    code: Codes

    @classmethod
    def of(cls, designs: Mapping[str, list[Settings]]) -> Coded:
        import numpy as np

        every = [settings for found in designs.values() for settings in found]
        seen: dict[str, set[str]] = {}
        for settings in every:
            for name, option in settings.items():
                seen.setdefault(name, set()).add(option)
        options = {name: tuple(sorted(seen[name], key=option_order)) for name in sorted(seen)}
        place = {name: {option: i for i, option in enumerate(told)} for name, told in options.items()}
        code = [[place[name][s[name]] if name in s else -1 for name in options] for s in every]
        row = np.repeat(np.arange(len(designs)), [len(found) for found in designs.values()])
        shape = (len(every), len(options))
        return cls(tuple(designs), options, row, np.array(code, dtype=np.int64).reshape(shape))

    def column(self, choice: str) -> Codes:
        return self.code[:, list(self.options).index(choice)]

    def having(self, *choices: str) -> Mask:
        """The designs that make these choices."""
        kept: Mask = self.row >= 0
        for choice in choices:
            kept = kept & (self.column(choice) >= 0)
        return kept

    def taking(self, choice: str, option: str) -> Mask:
        found: Mask = self.column(choice) == self.options[choice].index(option)
        return found

    def rows(self, kept: Mask) -> list[str]:
        """The proxies that have designs among those kept."""
        import numpy as np

        return [self.proxies[row] for row in np.unique(self.row[kept])]

    def shares(self, kept: Mask, cell: Codes, cells: int) -> Array:
        """(rows, cells): the share of a row's designs in each cell; those in cell -1 are in none."""
        import numpy as np

        _, row, count = np.unique(self.row[kept], return_inverse=True, return_counts=True)
        there = cell >= 0
        flat = row[there] * cells + cell[there]
        weight = (1 / count)[row[there]]
        sums = np.bincount(flat, weight, len(count) * cells).astype(np.float64)
        return sums.reshape(len(count), cells)

    def adjustment(self, kept: Mask, without: Iterable[str] = ()) -> Array:
        """Columns that take out what the choices do, but for those in `without`: the effects of a choice's options add
        up to 0, and a choice that does not apply to a design adds nothing there."""
        import numpy as np

        left_out = set(without)
        columns = [np.zeros((len(np.unique(self.row[kept])), 0))]
        for name in self.options:
            if name not in left_out:
                _, cell = np.unique(np.r_[-1, self.column(name)[kept]], return_inverse=True)
                shares = self.shares(kept, cell[1:] - 1, int(cell.max()))
                columns.append(shares[:, :-1] - shares[:, -1:])
        return np.hstack(columns)

    def contexts(self, kept: Mask, choice: str) -> list[dict[str, str]]:
        """Option of `choice` -> proxy, for each set of designs that are alike in all other choices."""
        import numpy as np

        rest = self.code[kept].copy()
        rest[:, list(self.options).index(choice)] = -1
        _, alike = np.unique(rest, axis=0, return_inverse=True)
        found: list[dict[str, str]] = [{} for _ in range(int(alike.max(initial=-1)) + 1)]
        options = self.options[choice]
        for context, code, row in zip(
            alike.tolist(), self.column(choice)[kept].tolist(), self.row[kept].tolist(), strict=True
        ):
            found[context][options[code]] = self.proxies[row]
        return found
