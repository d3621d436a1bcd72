"""JSON read strictly: what the standard library lets pass in silence is an error that names the file."""

import json
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

from vlmmem.errors import InputError

__all__ = ["parse_json", "read_json"]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"{twice[:100]!r} stands twice in one object; once is right")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number; a finite number is needed")


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        _no_constant(text[:100])
    return value


def parse_json(raw: bytes, where: str, most_values: int | None = None, *, finite: bool = True) -> Any:
    """The content of JSON in UTF-8; `where` names it in messages.

    `most_values` bounds the values in it, and with them the memory that it takes: a stranger's file of some megabytes
    may hold a list for every two bytes. Where not `finite`, Infinity and NaN are read as Python reads them: published
    configs hold them (Nemotron-H's time_step_limit), and whoever asks for such a field refuses it.

    Raises InputError, one line, where it is not JSON, holds NaN, infinity, half of a surrogate pair or a name twice in
    one object, is nested too deeply or holds too many values.

    >>> parse_json(b'{"heads": 8}', "config.json")
    {'heads': 8}
    >>> parse_json(b'{"heads": 8, "heads": 9}', "config.json")
    Traceback (most recent call last):
    vlmmem.errors.InputError: config.json: 'heads' stands twice in one object; once is right
    """
    # A value ends at a comma or a bracket: no more values than these, whatever stands between.
    if most_values is not None and raw.count(b",") + raw.count(b"[") + raw.count(b"{") > most_values:
        raise InputError(f"{where}: holds more than {most_values:,} values; a file that describes one model is needed")
    try:
        text = raw.decode("utf-8")
        if finite:
            found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)
        else:
            found = json.loads(text, object_pairs_hook=_once)
        if "\\ud" in text or "\\uD" in text:  # it may hold half of a pair
            json.dumps(found, ensure_ascii=False).encode("utf-8")
        return found
    except json.JSONDecodeError as error:
        raise InputError(f"{where}:{error.lineno}: {error.msg}; valid JSON is needed") from None
    except UnicodeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{where}: cannot be read ({reason}); a JSON file in UTF-8 is needed") from None
    except RecursionError:
        raise InputError(f"{where}: nested too deeply; a few levels are needed") from None
    except ValueError as error:
        reason = str(error)
        if "integer string conversion" in reason:
            reason = "a number has too many digits; a count is needed"
        raise InputError(f"{where}: {reason}") from None


def read_json(path: Path) -> Any:
    """The content of a JSON file; see `parse_json`.

    Raises InputError, one line that names the file, where it cannot be read or is not strict JSON.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path.name}: cannot be read ({reason}); a JSON file in UTF-8 is needed") from None
    return parse_json(raw, path.name)
