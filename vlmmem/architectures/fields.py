"""The fields of a config.json, asked for by type: a fault is one line that names the field and what would be right."""

import json
from collections.abc import Iterable, Iterator
from math import isfinite
from typing import NoReturn

from vlmmem.errors import InputError

__all__ = ["LARGEST", "MOST_LAYERS", "Fields"]

LARGEST = 2**40
"""No dimension of a published model comes near; a larger one is a slip or an attack."""

MOST_LAYERS = 4096
"""Layers of one stack at most: each costs memory here."""

_MISSING = object()
_LONGEST = 60


class Fields:
    """One object of a config. Fields that nobody asks for are ignored, as transformers does.

    A field that is missing takes `default`, the class's own in transformers; without one it is an error. Where `null`
    is no value of the field, it counts as missing, as transformers counts it.
    """

    def __init__(self, data: object, where: str) -> None:
        self.where = where
        if not isinstance(data, dict):
            raise InputError(f"{where}: {_shown(data)} stands where an object is needed")
        self._data: dict[str, object] = data

    def __contains__(self, field: str) -> bool:
        """Whether the field is there with a value other than null."""
        return self._data.get(field) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def wrong(self, field: str, need: str) -> NoReturn:
        """Raise: `field` does not hold what is needed."""
        raise InputError(f"{self.where}: {field!r} is {_shown(self._data.get(field))}; {need} is needed")

    def raw(self, field: str) -> object:
        """The field as JSON gave it, or None."""
        return self._data.get(field)

    def has(self, field: str) -> bool:
        """Whether the field is there, null or not."""
        return field in self._data

    def first(self, *names: str) -> str:
        """The first of several names for one thing that the config uses; the first of all where it uses none."""
        return next((name for name in names if name in self), names[0])

    def integer(self, field: str, default: int | None = None, *, least: int = 1, most: int = LARGEST) -> int:
        """An integer from `least` to `most`; true and 1.0 are not integers."""
        if field not in self:
            if default is None:
                raise InputError(f"{self.where}: {field!r} is missing; {_need(least, most)} is needed")
            return default
        found = self._data[field]
        if type(found) is not int or not least <= found <= most:
            self.wrong(field, _need(least, most))
        return found

    def optional_integer(self, field: str, *, least: int = 1, most: int = LARGEST) -> int | None:
        """An integer, or None where the field is missing or null."""
        return self.integer(field, least=least, most=most) if field in self else None

    def layers(self, field: str, default: int | None = None) -> int:
        """A count of layers: 1 to `MOST_LAYERS`."""
        return self.integer(field, default, most=MOST_LAYERS)

    def boolean(self, field: str, default: bool = False) -> bool:
        """True or false."""
        if field not in self:
            return default
        found = self._data[field]
        if not isinstance(found, bool):
            self.wrong(field, "true or false")
        return found

    def number(self, field: str, default: float | None = None) -> float:
        """A finite number."""
        if field not in self:
            if default is None:
                raise InputError(f"{self.where}: {field!r} is missing; a number is needed")
            return default
        found = self._data[field]
        if isinstance(found, bool) or not isinstance(found, int | float) or abs(found) > LARGEST or not isfinite(found):
            self.wrong(field, "a finite number")
        return float(found)

    def text(self, field: str, default: str | None = None) -> str:
        """A text that is not empty."""
        if field not in self:
            if default is None:
                raise InputError(f"{self.where}: {field!r} is missing; a text is needed")
            return default
        found = self._data[field]
        if not isinstance(found, str) or not found.strip():
            self.wrong(field, "a text")
        return found

    def one_of(self, field: str, allowed: Iterable[str], default: str | None = None) -> str:
        """One of the texts `allowed`."""
        found, names = self.text(field, default), tuple(allowed)
        if found not in names:
            self.wrong(field, "one of " + ", ".join(names))
        return found

    def integers(self, field: str, *, least: int = 0, length: int | None = None) -> tuple[int, ...] | None:
        """A list of integers, or None where the field is missing; of `length`, where that is given."""
        if field not in self:
            return None
        found = self._data[field]
        if not isinstance(found, list) or not all(type(item) is int and least <= item <= LARGEST for item in found):
            self.wrong(field, f"a list of integers of {least} or more")
        if length is not None and len(found) != length:
            raise InputError(f"{self.where}: {field!r} has {len(found)} items; {length} are needed")
        return tuple(found)

    def texts(self, field: str, *, length: int | None = None) -> tuple[str, ...] | None:
        """A list of texts, or None where the field is missing; of `length`, where that is given."""
        if field not in self:
            return None
        found = self._data[field]
        if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
            self.wrong(field, "a list of texts")
        if length is not None and len(found) != length:
            raise InputError(f"{self.where}: {field!r} has {len(found)} items; {length} are needed")
        return tuple(found)

    def changed(self, **values: object) -> "Fields":
        """The same fields with some put in or put in their place."""
        return Fields({**self._data, **values}, self.where)

    def sub(self, field: str) -> "Fields":
        """The object in the field; an empty one where it is missing, so that the class's defaults decide."""
        return Fields(self._data[field] if field in self else {}, f"{self.where}: {field}")


def _need(least: int, most: int) -> str:
    if most < LARGEST:
        return f"an integer from {least} to {most:,}"
    return "a positive integer" if least == 1 else f"an integer of {least} or more"


def _shown(value: object) -> str:
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError, TypeError):
        text = type(value).__name__
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
