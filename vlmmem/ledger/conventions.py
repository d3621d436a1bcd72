"""Conventions: the readings of a printed figure that have a reason to exist, as data (`conventions.json`).

A convention changes some settings of the literal reading. The list is closed: with enough readings any three digits
can be hit by chance, so a new one needs a reason, and a figure may rest on one only under the rule in `verdicts`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vlmmem.errors import InputError
from vlmmem.strict_json import read_json

PATH = Path(__file__).with_name("conventions.json")


@dataclass(frozen=True, slots=True)
class Settings:
    """One complete reading of a printed size.

    Attributes:
        kb: bytes in one printed KB.
        weights_gb, kv_gb: bytes in one printed GB of weights and of KV cache.
        k: tokens in "1k". A count written out (8,192) is not touched.
        parameters: "nominal" (the number in the name), "exact" (from the shapes), or None (what the formula takes).
        token_step: bytes to which the size of one token is rounded before it is multiplied, or None.
        request_decimals: decimals of a GB to which one request's cache is rounded before it is multiplied, or None.
        heads: "all" attention heads cache (the documents' hidden_size), or the "kv" heads only.
    """

    kb: int
    weights_gb: int
    kv_gb: int
    k: int
    parameters: str | None
    token_step: int | None
    request_decimals: int | None
    heads: str


@dataclass(frozen=True, slots=True)
class Convention:
    """A named reading: its reason to exist, and where the documents themselves use it (``document:line``)."""

    id: str
    title: str
    reason: str
    used_at: tuple[str, ...]
    settings: Settings
    changes: tuple[str, ...]


_FIELDS: Mapping[str, type] = {"id": str, "title": str, "reason": str, "used_at": list, "settings": dict}
_CHOICES: Mapping[str, tuple[object, ...]] = {"parameters": (None, "nominal", "exact"), "heads": ("all", "kv")}


def _settings(values: Mapping[str, Any], where: str) -> Settings:
    names = Settings.__slots__
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise InputError(f"{where}: setting {unknown[0]!r} is not known; one of {', '.join(names)}")
    missing = [name for name in names if name not in values]
    if missing:
        raise InputError(f"{where}: setting {missing[0]!r} is missing")
    for name, value in values.items():
        if name in _CHOICES:
            if value not in _CHOICES[name]:
                choices = ", ".join("null" if choice is None else str(choice) for choice in _CHOICES[name])
                raise InputError(f"{where}: {name} is {value!r}; one of {choices} is needed")
        elif value is None and name in ("token_step", "request_decimals"):
            continue
        elif isinstance(value, bool) or not isinstance(value, int) or value < (name != "request_decimals"):
            raise InputError(f"{where}: {name} is {value!r}; a positive whole number is needed")
    return Settings(**values)


def read(path: Path = PATH) -> tuple[Settings, dict[str, Convention]]:
    """The literal reading and every convention by id, validated. Raises InputError that names file and entry."""
    data = read_json(path)
    if not isinstance(data, dict) or set(data) != {"literal", "conventions"}:
        raise InputError(f"{path.name}: an object with 'literal' and 'conventions' is needed")
    if not isinstance(data["literal"], dict) or not isinstance(data["conventions"], list):
        raise InputError(f"{path.name}: 'literal' must be an object and 'conventions' a list")
    literal = _settings(data["literal"], f"{path.name}: literal")
    known: dict[str, Convention] = {}
    for number, entry in enumerate(data["conventions"]):
        if not isinstance(entry, dict):
            raise InputError(f"{path.name}: convention {number} is {entry!r}; an object is needed")
        where = f"{path.name}: convention {entry.get('id', number)!r}"
        for name, kind in _FIELDS.items():
            if not isinstance(entry.get(name), kind) or (kind is str and not entry[name].strip()):
                raise InputError(f"{where}: {name!r} is missing or not of type {kind.__name__}")
        unknown = sorted(set(entry) - set(_FIELDS))
        if unknown:
            raise InputError(f"{where}: {unknown[0]!r} is not a field of a convention")
        if not all(isinstance(place, str) for place in entry["used_at"]):
            raise InputError(f"{where}: used_at is {entry['used_at']!r}; places such as 'footprint:71' are needed")
        if entry["id"] in known:
            raise InputError(f"{where}: stands twice; ids are unique")
        settings = _settings({**data["literal"], **entry["settings"]}, where)
        twin = next((item.id for item in known.values() if item.settings == settings), None)
        if settings == literal or twin:
            raise InputError(f"{where}: reads as {twin or 'the literal reading'} does; a reading of its own is needed")
        known[entry["id"]] = Convention(
            entry["id"], entry["title"], entry["reason"], tuple(entry["used_at"]), settings, tuple(entry["settings"])
        )
    return literal, known


@cache
def conventions() -> dict[str, Convention]:
    """Every convention of the package by id."""
    return read()[1]


@cache
def literal() -> Settings:
    """The reading that takes every unit and number as it stands: GB is 10^9 B, 1k is 1,024 tokens, names are counts."""
    return read()[0]
