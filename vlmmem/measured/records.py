"""Files of runs: the project's own in `runs/`, a user's anywhere."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from vlmmem.catalog.entries import Entry
from vlmmem.errors import InputError
from vlmmem.measured.run import Run, run_of
from vlmmem.record import replace
from vlmmem.strict_json import parse_json

__all__ = ["add_run", "read_runs", "runs", "write_runs"]

_HERE = Path(__file__).parent / "runs"
_LARGEST = 16 * 2**20
_MOST_VALUES = 1_000_000


def _parse(raw: bytes, where: str) -> tuple[Run, ...]:
    top = Entry(parse_json(raw, where, most_values=_MOST_VALUES), where)
    items = top.value("runs")
    top.done()
    if not isinstance(items, list):
        top.wrong("runs", type(items).__name__, "a list of runs")
    found: list[Run] = []
    for at, item in enumerate(items):
        entry = Entry(item, f"{where}: runs[{at}]")
        if entry.has("id"):
            entry.where = f"{where}: {entry.text('id')[:100]}"
        try:
            found.append(run_of(entry))
        except InputError as error:
            reason = str(error)
            raise InputError(reason if reason.startswith(where) else f"{where}: {reason}") from None
    return tuple(found)


def _once(found: Iterable[Run], where: str) -> tuple[Run, ...]:
    seen: set[str] = set()
    kept = tuple(found)
    for run in kept:
        if run.id in seen:
            raise InputError(f"{where}: {run.id}: this id stands twice; an id of its own is needed")
        seen.add(run.id)
    return kept


def read_runs(path: str | Path) -> tuple[Run, ...]:
    """The runs of a file: an object whose only field `runs` is a list of runs.

    Raises:
        InputError: the file cannot be read, is larger than 16 MiB, or a run in it cannot be.
    """
    file = Path(path)
    try:
        if file.stat().st_size > _LARGEST:
            raise InputError(f"{file.name}: larger than {_LARGEST >> 20} MiB; a file of runs is needed")
        raw = file.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"{file.name}: cannot be read ({reason}); a JSON file of runs is needed") from None
    return _once(_parse(raw, file.name), file.name)


@cache
def runs() -> tuple[Run, ...]:
    """The project's runs, file by file in the order of their names.

    >>> from vlmmem.measured import runs
    >>> next(run for run in runs() if run.id == "unsloth-llama32-3b-a100").get("weights").bytes
    6710886400
    """
    return _once((run for file in sorted(_HERE.glob("*.json")) for run in read_runs(file)), "runs")


def write_runs(path: str | Path, found: Iterable[Run]) -> None:
    """Write a file of runs, whole or not at all: a new file takes the old one's place when it is complete.

    Raises:
        InputError: it cannot be written.
    """
    import json
    import os
    import tempfile

    file = Path(path)
    text = json.dumps({"runs": [run.json() for run in found]}, indent=1, ensure_ascii=False) + "\n"
    new = ""
    try:
        handle, new = tempfile.mkstemp(prefix=f".{file.name[:40]}-", dir=file.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(new).chmod(0o644)
        Path(new).replace(file)
    except (OSError, ValueError) as error:
        if new:
            Path(new).unlink(missing_ok=True)
        reason = " ".join(str(error).split())
        raise InputError(f"{file.name}: cannot be written ({reason}); a file in a folder of yours is needed") from None


def add_run(path: str | Path, run: Run) -> Run:
    """Add a run to a file of runs, which is made where there is none.

    Returns:
        The run as it was kept: its id has a number where the file has that id already.

    Raises:
        InputError: the file is no file of runs, cannot be written, or holds the same figures of this model already.
    """
    file = Path(path)
    kept = read_runs(file) if file.exists() else ()
    for other in kept:
        if (other.engine, other.model, other.measured) == (run.engine, run.model, run.measured):
            raise InputError(
                f"{file.name}: {other.id} holds the same figures already; a log of another start is needed"
            )
    ids = {other.id for other in kept}
    name, at = run.id, 2
    while name in ids:
        name, at = f"{run.id}-{at}", at + 1
    added = run if name == run.id else replace(run, id=name)
    write_runs(file, (*kept, added))
    return added
