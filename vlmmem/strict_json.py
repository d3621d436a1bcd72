"""JSON read strictly: what the standard library lets pass in silence is an error that names the file."""

import json
from pathlib import Path
from typing import Any, NoReturn

from vlmmem.errors import InputError


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands twice in one object; once is right")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number; a finite number is needed")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises InputError, one line that names the file, where it cannot be read, is not JSON, holds NaN or infinity, or a
    name twice in one object.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InputError(f"{path.name}:{error.lineno}: {error.msg}; valid JSON is needed") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path.name}: cannot be read ({reason}); a JSON file in UTF-8 is needed") from None
    except RecursionError:
        raise InputError(f"{path.name}: nested too deeply; a few levels are needed") from None
    except ValueError as error:
        raise InputError(f"{path.name}: {error}") from None
