"""A run for notebooks: its trials as a table, its front, its recipe, its figures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybrid_nas.front import Front
from hybrid_nas.proposal import distinct, drawn
from hybrid_nas.recipe import Recipe
from hybrid_nas.run_folder import Run
from hybrid_nas.study_file import StudyFile
from hybrid_nas.trial import Trial

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import pyarrow as pa


@dataclass(frozen=True)
class LoadedRun:
    """Everything is read and computed when it is first asked for."""

    folder: Run

    @cached_property
    def study(self) -> StudyFile:
        return self.folder.study_file()

    @cached_property
    def trials(self) -> list[Trial]:
        return self.folder.trials()

    @cached_property
    def table(self) -> pa.Table:
        """trials.parquet, with a column `on_front` and a column a choice (`design.ratio`, ...): `table.to_pandas()`
        or `polars.from_arrow(table)` make a data frame of it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from hybrid_nas.choices import settings_of

        table = pq.read_table(self.folder.path / "trials.parquet")
        members = {number for member in self.front.members for number in member.trials}
        table = table.append_column("on_front", pa.array([trial.number in members for trial in self.trials]))
        settings = [settings_of(trial.design) for trial in self.trials]
        for name in sorted({name for one in settings for name in one}):
            table = table.append_column(f"design.{name}", pa.array([one.get(name) for one in settings], pa.string()))
        return table

    @cached_property
    def front(self) -> Front:
        return Front.of(self.trials, self.study.objectives)

    @cached_property
    def recipe(self) -> Recipe:
        return Recipe.of(self.trials, self.study.objectives, self.front, drawn(self.study), distinct(self.study))

    @cached_property
    def figures(self) -> dict[str, go.Figure]:
        """The report's figures by name: `front`, `curves`, `attainment`, `effects on loss`, ..."""
        from hybrid_nas.attainment import attainment
        from hybrid_nas.plot import attainment_figure, curves_figure, front_figure
        from hybrid_nas.plot_recipe import effects_figure, interaction_figure, positions_figure

        found: dict[str, Any] = {
            "front": front_figure(self.front),
            "curves": curves_figure(self.trials, self.front),
            "attainment": attainment_figure(attainment(self.trials, self.front)),
        }
        for quantity in self.recipe.quantities:
            found[f"effects on {quantity}"] = effects_figure(self.recipe, quantity)
        for interaction in self.recipe.depends:
            found[f"{' and '.join(interaction.choices)} on {interaction.quantity}"] = interaction_figure(interaction)
        for one in self.recipe.positions:
            found[f"positions of {one.kind} on {one.quantity}"] = positions_figure(one)
        return found


def load_run(path: str | Path | None = None) -> LoadedRun:
    """The run at `path`, or the latest under runs/. ValueError says what there is where there is none."""
    return LoadedRun(Run.of(path))
