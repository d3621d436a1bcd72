"""The header of a GGUF file: its metadata and its tensors' names, types and shapes. No weight is read.

The format: github.com/ggml-org/ggml, docs/gguf.md; the bounds are those of its reader (ggml/src/gguf.cpp in
llama.cpp): versions 2 and 3, at most 4 dimensions, an alignment that is a power of two, tensors inside the file. The
types' block sizes are the `gguf` package's table, as data (gguf_types.json).
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from math import prod
from pathlib import Path
from struct import Struct
from typing import BinaryIO, NamedTuple

from vlmmem.errors import InputError
from vlmmem.readers.stored import Header, StoredTensor, open_file, shown

__all__ = ["BlockType", "Skipped", "block_types", "read_gguf", "split_names"]

MOST_HEADER = 64 << 20
"""Bytes of the longest header: three times what the largest vocabulary takes."""

MOST_ENTRIES = 65_536
"""The most tensors, and the most keys: a model of 1,000 layers has fewer."""

MOST_STRINGS = 1_200_000
"""The most texts in all arrays of a header; the largest vocabulary and its merges are 800,000."""

MOST_KEPT = 16 << 20
"""Bytes of all keys, texts and arrays that are kept."""

LONG = 4096
"""An array of more values is a vocabulary, a text of more bytes a chat template: only the length is told."""

_NEED = "a .gguf file"
_CHUNK = 1 << 18
_AT_ONCE = 64
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


class BlockType(NamedTuple):
    """A type of GGUF tensors: its name, how many weights stand in one block, and how many bytes that block takes."""

    name: str
    block: int
    bytes: int


class Skipped(NamedTuple):
    """What stands for a long array or text: how many items or bytes it has."""

    length: int


@cache
def block_types() -> dict[int, BlockType]:
    """Every GGUF type by its number.

    >>> block_types()[12]
    BlockType(name='Q4_K', block=256, bytes=144)
    """
    table = json.loads(Path(__file__).with_name("gguf_types.json").read_text(encoding="utf-8"))["types"]
    return {row["id"]: BlockType(name, row["block"], row["bytes"]) for name, row in table.items()}


@cache
def _short_strings() -> re.Pattern[bytes]:
    """`_AT_ONCE` strings shorter than 48 bytes, each after its length: four times as fast as a loop over them."""
    one = b"|".join(re.escape(bytes([n])) + b"\\0{7}" + (b".{%d}" % n if n else b"") for n in (*range(1, 48), 0))
    return re.compile(b"(?s:(?:%b){%d}+)" % (one, _AT_ONCE))


class _Cursor:
    """Reads a header forward, in pieces, and never past its bounds."""

    def __init__(self, stream: BinaryIO, size: int, where: str) -> None:
        self.where, self.size = where, size
        self._stream = stream
        self._data = b""
        self._base = 0
        self._at = 0
        self.order = "<"
        self.strings = MOST_STRINGS
        self.room = MOST_KEPT

    @property
    def position(self) -> int:
        return self._base + self._at

    def _ready(self, count: int) -> None:
        """`count` bytes stand in the buffer from `_at` on."""
        if self._at + count <= len(self._data):
            return
        end = self.position + count
        if end > self.size:
            raise InputError(
                f"{self.where}: the header ends beyond the file's {self.size:,} bytes; a whole file is needed"
            )
        if end > MOST_HEADER:
            raise InputError(f"{self.where}: the header takes more than {MOST_HEADER:,} bytes; a GGUF header is needed")
        kept = self._data[self._at :]
        self._base, self._at = self.position, 0
        self._stream.seek(self._base + len(kept))
        self._data = kept + self._stream.read(max(count - len(kept), _CHUNK))
        if len(self._data) < count:
            raise InputError(f"{self.where}: the file ends inside its header; a whole file is needed")

    def take(self, count: int) -> bytes:
        self._ready(count)
        start = self._at
        self._at += count
        return self._data[start : self._at]

    def skip(self, count: int) -> None:
        """Leave out `count` bytes without reading them."""
        if self._at + count <= len(self._data):
            self._at += count
            return
        end = self.position + count
        if end > self.size or end > MOST_HEADER:
            self._ready(count)
        self._base, self._at, self._data = end, 0, b""

    def number(self, form: str) -> int | float:
        packed = Struct(self.order + form)
        value: int | float = packed.unpack(self.take(packed.size))[0]
        return value

    def count(self, form: str = "Q") -> int:
        return int(self.number(form))

    def keep(self, count: int) -> bytes:
        """The next `count` bytes, drawn from what may be kept of a header."""
        self.room -= count
        if self.room < 0:
            raise InputError(
                f"{self.where}: keys, texts and short arrays take more than {MOST_KEPT:,} bytes; fewer are needed"
            )
        return self.take(count)

    def name(self, most: int, what: str) -> str:
        """A text that must be kept."""
        length = self.count()
        if length > most:
            raise InputError(f"{self.where}: {what} is {length:,} bytes long; at most {most:,} are needed")
        try:
            return self.keep(length).decode("utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{self.where}: {what} is no UTF-8; a name is needed") from None

    def skip_strings(self, count: int) -> None:
        """Leave out `count` strings: the lengths are followed in the buffer, nothing is built."""
        length = Struct(self.order + "Q").unpack_from
        many = _short_strings().match if self.order == "<" else None
        while count:
            self._ready(8)
            data, at, last = self._data, self._at, len(self._data) - 8
            while count and at <= last:
                while many and count >= _AT_ONCE and (found := many(data, at)):
                    at = found.end()
                    count -= _AT_ONCE
                stop = count - min(count, _AT_ONCE)
                while count > stop and at <= last:
                    at += 8 + length(data, at)[0]
                    count -= 1
            if at <= len(data):
                self._at = at
            else:
                self._at = len(data)
                self.skip(at - len(data))


def _value(cursor: _Cursor, kind: int, key: str) -> object:
    if kind == _STRING:
        length = cursor.count()
        if length > LONG:
            cursor.skip(length)
            return Skipped(length)
        return cursor.keep(length).decode("utf-8", "replace")
    if kind == _ARRAY:
        return _array(cursor, key)
    form = _SCALARS.get(kind)
    if form is None:
        raise InputError(
            f"{cursor.where}: the type of {shown(key)} is {kind}; one of the format's 13 (0 to 12) is needed"
        )
    value = cursor.number(form)
    return bool(value) if kind == _BOOL else value


def _array(cursor: _Cursor, key: str) -> object:
    kind, length = cursor.count("I"), cursor.count()
    if kind == _STRING:
        cursor.strings -= length
        if cursor.strings < 0:
            raise InputError(
                f"{cursor.where}: {shown(key)} has {length:,} items; at most {MOST_STRINGS:,} are read in one header"
            )
        if length > 64:
            cursor.skip_strings(length)
            return Skipped(length)
        return tuple(_value(cursor, kind, key) for _ in range(length))
    form = _SCALARS.get(kind)
    if form is None:
        raise InputError(f"{cursor.where}: {shown(key)} is an array of type {kind}; numbers or texts are needed")
    size = Struct("<" + form).size
    if length > LONG:
        cursor.skip(length * size)
        return Skipped(length)
    values = Struct(f"{cursor.order}{length}{form}").unpack(cursor.keep(length * size))
    return tuple(map(bool, values)) if kind == _BOOL else values


def read_gguf(path: Path) -> Header:
    """The header of a GGUF file; of a file that is cut into parts, the headers of all of them.

    Numbers, texts and arrays of the metadata are kept; of long arrays and texts only the length (`Skipped`).

    Raises:
        InputError: the file is no GGUF of version 2 or 3, is cut off, lies about a length, names a type that is not
            known, has tensors outside the file, or one of its parts is missing.
    """
    names = split_names(path)
    first = _read(path)
    count = first.metadata.get("split.count")
    if not isinstance(count, int) or count < 2:
        return first
    if names is None or len(names) != count:
        raise InputError(
            f"{first.where}: is one of {count:,} parts; names that end in -00001-of-{min(count, 99_999):05}.gguf"
            " are needed"
        )
    return _joined(path, first, names)


def split_names(path: Path) -> list[Path] | None:
    """The files of all parts that a name like `-00001-of-00003.gguf` stands for, or None.

    >>> [part.name for part in split_names(Path("a-00002-of-00002.gguf")) or []]
    ['a-00001-of-00002.gguf', 'a-00002-of-00002.gguf']
    """
    found = _SPLIT.fullmatch(path.name)
    if found is None or not 1 <= int(found[2]) <= int(found[3]) <= 1000:
        return None
    return [path.with_name(f"{found[1]}-{part:05}-of-{found[3]}.gguf") for part in range(1, int(found[3]) + 1)]


def _joined(path: Path, read: Header, names: list[Path]) -> Header:
    parts = []
    for number, name in enumerate(names):
        part = read if name == path else _read(name)
        if part.metadata.get("split.no") != number or part.metadata.get("split.count") != len(names):
            raise InputError(f"{shown(name)}: does not say that it is part {number + 1} of {len(names)}; it must")
        parts.append(part)
    tensors = tuple(tensor for part in parts for tensor in part.tensors)
    stated = parts[0].metadata.get("split.tensors.count", len(tensors))
    if stated != len(tensors) or len({tensor.name for tensor in tensors}) != len(tensors):
        raise InputError(
            f"{parts[0].where}: its parts hold {len(tensors)} tensors where it says {shown(stated)}; all are needed"
        )
    total = sum(part.total_bytes for part in parts)
    return Header("gguf", tensors, tuple(names), parts[0].metadata, total)


def _read(path: Path) -> Header:
    where = shown(path)
    stream, size = open_file(path, _NEED)
    with stream:
        cursor = _Cursor(stream, size, where)
        if size < 24 or cursor.take(4) != b"GGUF":
            raise InputError(f"{where}: does not begin with GGUF and three counts; {_NEED} is needed")
        version = cursor.count("I")
        if version & 0xFFFF == 0:
            cursor.order = ">"
            version = int.from_bytes(version.to_bytes(4, "little"), "big")
        if version not in (2, 3):
            raise InputError(f"{where}: is of GGUF version {version}; version 2 or 3 is needed")
        tensors, keys = cursor.count(), cursor.count()
        for many, what in ((tensors, "tensors"), (keys, "keys")):
            if many > MOST_ENTRIES:
                raise InputError(f"{where}: claims {many:,} {what}; at most {MOST_ENTRIES:,} are read")
        metadata: dict[str, object] = {}
        for _ in range(keys):
            key = cursor.name(65_535, "a key")
            if key in metadata:
                raise InputError(f"{where}: the key {shown(key)} stands twice; once is right")
            metadata[key] = _value(cursor, cursor.count("I"), key)
        infos = list(_infos(cursor, tensors))
        return _placed(path, size, cursor.position, metadata, infos)


def _infos(cursor: _Cursor, count: int) -> Iterator[tuple[int, StoredTensor]]:
    """Each tensor with the offset of its data."""
    types = block_types()
    for _ in range(count):
        name = cursor.name(1024, "a tensor's name")
        dimensions = cursor.count("I")
        if dimensions > 4:
            raise InputError(f"{cursor.where}: {shown(name)} has {dimensions} dimensions; at most 4 are needed")
        # Stored with the fastest dimension first; shapes here have the rows first.
        shape = tuple(cursor.count() for _ in range(dimensions))[::-1]
        number = cursor.count("I")
        kind = types.get(number)
        if kind is None:
            raise InputError(
                f"{cursor.where}: the type of {shown(name)} is {number}; a type that the gguf package knows is needed"
            )
        weights = prod(shape)
        if weights >= 1 << 63 or (shape[-1] if shape else 1) % kind.block:
            raise InputError(
                f"{cursor.where}: {shown(name)} of shape {shape} does not divide into blocks of {kind.name}"
            )
        yield cursor.count(), StoredTensor(name, kind.name, shape, weights // kind.block * kind.bytes)


def _placed(
    path: Path, size: int, end: int, metadata: dict[str, object], infos: list[tuple[int, StoredTensor]]
) -> Header:
    """The header, once each tensor's data was found to stand inside the file and apart from the others."""
    where = shown(path)
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise InputError(f"{where}: 'general.alignment' is {shown(alignment)}; a power of two is needed")
    start = -(-end // alignment) * alignment
    if len({tensor.name for _, tensor in infos}) < len(infos):
        raise InputError(f"{where}: a tensor's name stands twice; once is right")
    reached = 0
    for offset, tensor in sorted(infos, key=lambda info: info[0]):
        if offset % alignment or offset < reached:
            raise InputError(f"{where}: the data of {shown(tensor.name)} overlap or are not aligned; they must not")
        reached = offset + tensor.bytes
        if start + reached > size:
            raise InputError(
                f"{where}: the data of {shown(tensor.name)} end at byte {start + reached:,} of {size:,};"
                " a whole file is needed"
            )
    tensors = tuple(tensor for _, tensor in infos)
    return Header("gguf", tensors, (path,), metadata, sum(tensor.bytes for tensor in tensors))
