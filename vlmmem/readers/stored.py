"""What a file's header says: its tensors, their types and bytes. Nothing here reads a weight."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from vlmmem.errors import InputError
from vlmmem.record import record

__all__ = ["Header", "StoredTensor", "is_file", "open_file", "shown"]


class StoredTensor(NamedTuple):
    """One tensor as a file holds it: its name there, its type there, its shape (rows first) and its bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


@record(frozen=True, slots=True)
class Header:
    """The headers of one checkpoint: one file or several that belong together.

    `tensors` is empty where only an index was there; then `names` says which tensors its shards hold. `metadata` is
    what the file says beside its tensors. `total_bytes` are the bytes of the tensors (of an index: what it states).
    """

    kind: str
    tensors: tuple[StoredTensor, ...]
    files: tuple[Path, ...]
    metadata: Mapping[str, object]
    total_bytes: int
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The name of its first file, for messages."""
        return shown(self.files[0])


def shown(value: object, most: int = 100) -> str:
    r"""A name out of a stranger's file in one printable line, cut where it is long.

    >>> shown("model.safetensors"), shown("a" + chr(10) + "b")
    ('model.safetensors', "'a\\nb'")
    """
    text = value.name or str(value) if isinstance(value, Path) else str(value)
    if len(text) > most:
        text = text[:most] + "..."
    return text if text.isprintable() and text else repr(text)


def open_file(path: Path, need: str) -> tuple[BinaryIO, int]:
    """A regular file open for reading, and its size in bytes.

    Pipes and devices are refused before they are opened: reading them may never end.

    Raises:
        InputError: there is no such file, it cannot be read, or it is no regular file; `need` says what would be right.
    """
    try:
        mode = path.stat().st_mode
        stream = path.open("rb") if stat.S_ISREG(mode) else None
    except FileNotFoundError:
        raise InputError(f"{shown(path)}: no such file; {need} is needed") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a path"
        raise InputError(f"{shown(path)}: cannot be read ({reason}); {need} is needed") from None
    if stream is None:
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise InputError(f"{shown(path)}: is {kind}; {need} is needed")
    return stream, os.fstat(stream.fileno()).st_size


def is_file(path: Path) -> bool:
    """Whether there is a regular file; False, too, where the system takes no such name.

    >>> is_file(Path("a" * 5000))
    False
    """
    try:
        return path.is_file()
    except OSError:
        return False
