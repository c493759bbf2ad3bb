"""Objects out of JSON that somebody else may have written: each member is asked for by its type, and told if it is not.

record = Fields.of(parse(data))
record.number("rounds"), record.each("curves"), record.maybe("parity")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Fields"]

LONGEST: Final = 2000
"""Letters of a text that are kept."""


@dataclass(frozen=True, slots=True)
class Fields:
    """One object.

    Every method raises ValueError, with the place, where a member is not there or of another type.
    """

    values: Mapping[str, Any]
    """Its members."""
    where: str = ""
    """Its place in the file."""

    @classmethod
    def of(cls, value: object, where: str = "") -> Fields:
        """The object that ``value`` is."""
        if not isinstance(value, dict):
            raise _error(where or "the whole", "is no object")
        return cls(value, where)

    def number(self, name: str) -> float:
        """A number; no boolean."""
        value = self._get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _error(self._place(name), "is no number")
        return float(value)

    def number_or_none(self, name: str) -> float | None:
        """A number; None where it is null or not there."""
        return None if self.values.get(name) is None else self.number(name)

    def numbers(self, name: str) -> dict[str, float]:
        """An object of numbers; those that are null are left out."""
        inner = self.object(name)
        return {key: inner.number(key) for key, value in inner.values.items() if value is not None}

    def text(self, name: str) -> str:
        """Text, without what is not printable."""
        value = self._get(name)
        if not isinstance(value, str):
            raise _error(self._place(name), "is no text")
        return "".join(letter if letter.isprintable() else " " for letter in value)[:LONGEST]

    def text_or(self, name: str, other: str = "") -> str:
        """Text; ``other`` where it is null or not there."""
        return other if self.values.get(name) is None else self.text(name)

    def texts(self, name: str) -> list[str]:
        """A list of text; empty where it is not there."""
        items = self._list(name) if name in self.values else []
        return [
            Fields({"": item}, f"{self._place(name)}[{place}]").text("") for place, item in enumerate(items)
        ]

    def flag(self, name: str, default: bool | None = None) -> bool | None:  # noqa: FBT001 - what stands for null
        """A boolean; ``default`` where it is null or not there."""
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise _error(self._place(name), "is no boolean")
        return value

    def object(self, name: str) -> Fields:
        """An object."""
        return Fields.of(self._get(name), self._place(name))

    def maybe(self, name: str) -> Fields | None:
        """An object; None where it is null or not there."""
        return None if self.values.get(name) is None else self.object(name)

    def each(self, name: str) -> list[Fields]:
        """A list of objects."""
        return [
            Fields.of(item, f"{self._place(name)}[{place}]") for place, item in enumerate(self._list(name))
        ]

    def named(self, name: str) -> dict[str, Fields]:
        """An object of objects, by their names."""
        inner = self.object(name)
        return {key: inner.object(key) for key in inner.values}

    def _list(self, name: str) -> list[Any]:
        value = self._get(name)
        if not isinstance(value, list):
            raise _error(self._place(name), "is no list")
        return value

    def _get(self, name: str) -> Any:
        if name not in self.values:
            raise ValueError(f"{self._place(name)} is missing")
        return self.values[name]

    def _place(self, name: str) -> str:
        place = f"{self.where}.{name}" if self.where else name
        return place if len(place) <= 80 else f"{place[:77]}..."


def _error(place: str, why: str) -> ValueError:
    return ValueError(f"{place} {why}")
