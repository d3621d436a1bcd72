"""JSON read strictly: what the standard library lets pass in silence is an error that names the file."""

import json
from pathlib import Path
from typing import Any

from vlmmem.errors import InputError


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands twice in one object")
    return found


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises InputError where it cannot be read, is not JSON, holds NaN, or a name twice in one object.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        raise InputError(f"{path.name}: cannot be read as JSON (nested too deeply)") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name}: cannot be read as JSON ({' '.join(str(error).split())})") from None
