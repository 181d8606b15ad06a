"""The box that a hypervolume is a share of: from the best value of each objective to a reference beyond the worst.

A cost that spans more than a decade is measured by its logarithm, as it is drawn: halving a cache counts the same at
1 GiB as at 4 MiB. On a linear scale one dear design would make every other look perfect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hybrid_nas.objective import Objective

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Points = NDArray[np.float64]

DECADE = 10.0


@dataclass(frozen=True)
class Box:
    """`ideal` and `reference` are raw values by objective name."""

    objectives: Sequence[Objective]
    ideal: dict[str, float]
    reference: dict[str, float]

    def logarithmic(self, objective: Objective) -> bool:
        low, high = sorted((self.ideal[objective.name], self.reference[objective.name]))
        return not objective.trained and low > 0 and high / low > DECADE

    def scaled(self, points: Points) -> Points:
        """Rows of raw values, a column an objective, so that 0 is the best and 1 the reference."""
        import numpy as np

        columns = []
        for values, objective in zip(points.T, self.objectives, strict=True):
            ends = np.array([self.ideal[objective.name], self.reference[objective.name]])
            row, ends = (np.log(values), np.log(ends)) if self.logarithmic(objective) else (values, ends)
            deep = objective.loss(self.reference[objective.name]) > objective.loss(self.ideal[objective.name])
            columns.append((row - ends[0]) / (ends[1] - ends[0]) if deep else np.ones(len(row)))
        return np.stack(columns, axis=1)

    def share(self, points: Points) -> float:
        """What the points dominate, as a share of the box; 0 where the box is flat."""
        import numpy as np

        from hybrid_nas.dominance import hypervolume

        return hypervolume(self.scaled(points), np.ones(len(self.objectives)))
