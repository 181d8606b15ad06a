"""Reading a configuration: a field with its default, and errors that name the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybrid_nas.export.format import CannotRead


class Fields:
    """A model's config.json. `default` values are those of the transformers class, for fields that the file omits."""

    def __init__(self, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self.config, self.defaults = config, defaults

    def __getitem__(self, name: str) -> Any:
        value = self.config.get(name)
        return self.defaults.get(name) if value is None else value

    def count(self, name: str) -> int:
        """A positive whole number."""
        value = self[name]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise CannotRead(f"{name}: a positive whole number must stand here, found {value!r}")
        return value

    @property
    def rope_theta(self) -> float:
        parameters = self.config.get("rope_parameters") or {}
        return float(parameters.get("rope_theta") or self["rope_theta"] or 10_000.0)

    def differs(self, **ours: Any) -> tuple[str, ...]:
        """A note for each field whose value is not the one that this project's model has."""
        return tuple(
            f"{name} is {self[name]!r}; here it is {value!r}" for name, value in ours.items() if self[name] != value
        )

    def untied(self, vocab: int, width: int) -> tuple[str, ...]:
        """The note for a classifier of its own, which this project's models do not have."""
        if self["tie_word_embeddings"]:
            return ()
        return (
            f"tie_word_embeddings is false; here embedding and classifier are one, {vocab * width:,} parameters fewer",
        )
