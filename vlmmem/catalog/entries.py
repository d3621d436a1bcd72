"""Read the catalogue's JSON files; a fault is one line: file, entry, what was wrong, what would be right."""

import json
import re
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

from vlmmem.errors import InputError
from vlmmem.model import Source
from vlmmem.strict_json import read_json

__all__ = ["Entry", "read_entries"]

_MISSING = object()
_BITS = re.compile(r"[0-9]+(/[0-9]+)?( \+ [0-9]+(/[0-9]+)?)*")


class Entry:
    """One object of a catalogue file. A field is asked for by its type; `done` refuses all others."""

    def __init__(self, data: object, where: str) -> None:
        self.where = where
        if not isinstance(data, dict):
            raise InputError(f"{where}: {data!r} stands where an object is needed")
        self._data: dict[str, object] = data
        self._asked: set[str] = set()

    def wrong(self, field: str, value: object, need: str) -> NoReturn:
        """Raise: `field` holds `value` where `need` is needed."""
        raise InputError(f"{self.where}: {field!r} is {json.dumps(value)}; {need} is needed")

    def value(self, field: str) -> object:
        """The field's value as JSON gave it; a missing field is an error."""
        self._asked.add(field)
        found = self._data.get(field, _MISSING)
        if found is _MISSING:
            raise InputError(f"{self.where}: {field!r} is missing")
        return found

    def has(self, field: str) -> bool:
        """Whether the field is there: one that may be left out."""
        return field in self._data

    def all(self) -> dict[str, object]:
        """The whole object, as JSON gave it."""
        return dict(self._data)

    def text(self, field: str) -> str:
        """A string that is not empty."""
        found = self.value(field)
        if not isinstance(found, str) or not found.strip():
            self.wrong(field, found, "a text")
        return found

    def optional_text(self, field: str) -> str | None:
        """A string that is not empty, or None for null."""
        return None if self.value(field) is None else self.text(field)

    def one_of(self, field: str, allowed: Iterable[str]) -> str:
        """One of the strings `allowed`."""
        found, names = self.value(field), tuple(allowed)
        if not isinstance(found, str) or found not in names:
            self.wrong(field, found, "one of " + ", ".join(names))
        return found

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of strings, possibly empty."""
        found = self.value(field)
        if not isinstance(found, list) or not all(isinstance(item, str) and item.strip() for item in found):
            self.wrong(field, found, "a list of texts")
        return tuple(found)

    def integer(self, field: str) -> int:
        """An integer above zero; true and 1.0 are not integers."""
        found = self.value(field)
        if type(found) is not int or found <= 0:
            self.wrong(field, found, "a positive integer")
        return found

    def optional_integer(self, field: str) -> int | None:
        """An integer above zero, or None for null."""
        return None if self.value(field) is None else self.integer(field)

    def boolean(self, field: str) -> bool:
        """True or False."""
        found = self.value(field)
        if not isinstance(found, bool):
            self.wrong(field, found, "true or false")
        return found

    def bits(self, field: str) -> Fraction:
        """Bits as an exact sum of fractions, written such as "4 + 16/128 + 4/128"."""
        found = self.text(field)
        if not _BITS.fullmatch(found) or re.search(r"/0+\b", found):
            self.wrong(field, found, 'a sum of fractions such as "4 + 16/128"')
        total = sum((Fraction(term) for term in found.split(" + ")), Fraction(0))
        if total <= 0:
            self.wrong(field, found, "more than 0 bits")
        return total

    def sub(self, field: str) -> "Entry | None":
        """The object in `field` as an entry of its own, or None for null."""
        found = self.value(field)
        return None if found is None else Entry(found, f"{self.where}: {field}")

    def sources(self, field: str = "sources") -> tuple[Source, ...]:
        """At least one source: an address, what it says, and its revision (empty where it has none)."""
        found = self.value(field)
        if not isinstance(found, list) or not found:
            self.wrong(field, found, "a list of at least one source")
        return tuple(self._source(item, f"{self.where}: {field}[{at}]") for at, item in enumerate(found))

    def _source(self, item: object, where: str) -> Source:
        entry = Entry(item, where)
        address = entry.text("address")
        if not address.startswith("https://"):
            entry.wrong("address", address, "an address that begins with https://")
        revision = entry.value("revision")
        if not isinstance(revision, str):
            entry.wrong("revision", revision, 'a text, "" where there is none,')
        source = Source(address=address, revision=revision, what=entry.text("what"))
        entry.done()
        return source

    def done(self) -> None:
        """Refuse fields that nothing asked for: a misspelt field would be ignored in silence."""
        unknown = sorted(set(self._data) - self._asked)
        if unknown:
            known = ", ".join(sorted(self._asked))
            raise InputError(f"{self.where}: {unknown[0]!r} is not a field; the fields are {known}")


def read_entries(path: Path, root: str) -> list[Entry]:
    """The entries of one catalogue file, an object whose only field `root` is a list of objects with an `id`.

    Args:
        path: the JSON file.
        root: the name of the list, such as "models".

    Raises:
        InputError: the file cannot be read, is not JSON, or an entry has no id of its own.
    """
    where = path.name
    data = read_json(path)
    top = Entry(data, where)
    items = top.value(root)
    top.done()
    if not isinstance(items, list) or not items:
        top.wrong(root, items, "a list of objects")
    entries: list[Entry] = []
    seen: set[str] = set()
    for at, item in enumerate(items):
        entry = Entry(item, f"{where}: {root}[{at}]")
        name = entry.text("id")
        entry.where = f"{where}: {name}"
        if name != name.lower():
            entry.wrong("id", name, "lower case")
        if name in seen:
            raise InputError(f"{entry.where}: this id stands twice; an id of its own is needed")
        seen.add(name)
        entries.append(entry)
    return entries
