"""The header of a safetensors file, and the index of one that is cut into shards.

The format is 8 bytes of length, that many bytes of JSON, and the tensors' data without gaps. The rules here are those
of the library's own reader: safetensors 0.8.0, safetensors/src/tensor.rs (`read_metadata`, `Metadata::validate`,
`Dtype`). Only the header is read, whatever the size of the file.
"""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

from vlmmem.errors import InputError
from vlmmem.readers.stored import Header, StoredTensor, is_file, open_file, shown
from vlmmem.record import replace
from vlmmem.strict_json import parse_json

__all__ = ["DTYPE_BITS", "check_header", "join", "read_header", "read_index"]

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
    "I4": 4, "U4": 4,
}  # fmt: skip
"""Bits of one element of each dtype: those of safetensors 0.8.0, and two that stand in published headers and that this
release of the library does not read yet (I4, U4)."""

MOST_HEADER = 100_000_000
"""Bytes of the longest header: the library's own bound (MAX_HEADER_SIZE)."""

MOST_VALUES = 3_000_000
"""The most JSON values in a header or an index: some 300,000 tensors, ten times what the largest shard holds."""

_NEED = "a .safetensors file"
_FIELDS = {"dtype", "shape", "data_offsets"}


def read_header(path: Path) -> Header:
    """The header of one .safetensors file: names, types, shapes and bytes of its tensors, in the order of their data.

    Raises:
        InputError: the file is cut off, or its header is not what the library would read: a length beyond the file or
            100 MB, a dtype that is not known, a shape that does not fit its bytes, data that overlap, leave gaps or
            end elsewhere than the file.
    """
    where = shown(path)
    stream, size = open_file(path, _NEED)
    with stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > size - 8:
            what = f"a header of {length:,} bytes" if len(start) == 8 else "8 bytes of length"
            raise InputError(f"{where}: {what} cannot stand in {size:,} bytes; a whole .safetensors file is needed")
        if length > MOST_HEADER:
            raise InputError(f"{where}: the header is {length:,} bytes long; at most {MOST_HEADER:,} are needed")
        raw = stream.read(length)
    root = parse_json(raw, where, MOST_VALUES)
    header = check_header(root, path)
    if header.total_bytes != size - 8 - length:
        raise InputError(
            f"{where}: {size - 8 - length:,} bytes stand after the header where its tensors take"
            f" {header.total_bytes:,}; a whole .safetensors file is needed"
        )
    return header


def check_header(root: object, path: Path) -> Header:
    """The header that `root` is, once its tensors were found to agree with their bytes and to leave no gaps.

    Raises:
        InputError: it is none; see `read_header`.
    """
    where = shown(path)
    if not isinstance(root, dict):
        raise InputError(f"{where}: the header is no object; a safetensors header is needed")
    metadata = _metadata(root.pop("__metadata__", None), where)
    found = sorted(_tensors(root, where), key=lambda item: item[0])
    end = 0
    for offsets, tensor in found:
        if offsets[0] != end:
            fault = "overlaps the tensor before it" if offsets[0] < end else "leaves a gap before it"
            raise InputError(f"{where}: the data of {shown(tensor.name)} {fault}; data without gaps are needed")
        end = offsets[1]
    return Header("safetensors", tuple(tensor for _, tensor in found), (path,), metadata, end)


def _tensors(root: Mapping[str, object], where: str) -> list[tuple[tuple[int, int], StoredTensor]]:
    found = []
    for name, entry in root.items():
        if not isinstance(entry, dict) or not entry.keys() >= _FIELDS:
            raise InputError(
                f"{where}: the entry of {shown(name)} is not dtype, shape and data_offsets; all are needed"
            )
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        bits = DTYPE_BITS.get(dtype) if isinstance(dtype, str) else None
        if bits is None:
            raise InputError(f"{where}: the dtype of {shown(name)} is {shown(dtype)}; one of {', '.join(DTYPE_BITS)}")
        if not _counts(shape) or not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            raise InputError(f"{where}: shape or offsets of {shown(name)} are no counts; integers from 0 are needed")
        if len(shape) > 64:
            raise InputError(f"{where}: {shown(name)} has {len(shape)} dimensions; at most 64 are read")
        needed, stored = prod(shape) * bits, offsets[1] - offsets[0]
        if needed != stored * 8:
            raise InputError(
                f"{where}: {shown(name)} holds {stored:,} bytes, and its shape {shown(shape)} of {dtype} does not;"
                " the two must agree"
            )
        found.append(((offsets[0], offsets[1]), StoredTensor(name, dtype, tuple(shape), stored)))
    return found


def _counts(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def _metadata(found: object, where: str) -> dict[str, object]:
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise InputError(f"{where}: __metadata__ does not map texts to texts; that is needed")
    return found


def read_index(path: Path) -> Header:
    """The checkpoint of a `.safetensors.index.json`: its shards' headers, or what the index alone says.

    Where all shards stand beside the index, their headers are read. Where one is missing there are names of tensors
    and the total of bytes that the index states, no shapes.

    Raises:
        InputError: the index is no index, a shard is damaged, or shards are missing and no total is stated.
    """
    where = shown(path)
    stream, size = open_file(path, "a .safetensors.index.json")
    with stream:
        if size > MOST_HEADER:
            raise InputError(f"{where}: is {size:,} bytes long; an index of at most {MOST_HEADER:,} is needed")
        raw = stream.read(size)
    root = parse_json(raw, where, MOST_VALUES)
    weights = root.get("weight_map") if isinstance(root, dict) else None
    if not isinstance(weights, dict) or not weights:
        raise InputError(f"{where}: 'weight_map' is missing or empty; an index of safetensors shards is needed")
    names: dict[object, None] = dict.fromkeys(weights.values()) if set(map(type, weights.values())) == {str} else {}
    for name in names or [None]:
        # A shard stands beside its index: a path out of the folder is no shard's name.
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise InputError(f"{where}: {shown(name)} is no name of a shard; the name of a file beside it is needed")
    shards = [path.with_name(str(name)) for name in names]
    missing = [shard for shard in shards if not is_file(shard)]
    stated = root.get("metadata")
    stated = stated if isinstance(stated, dict) else {}
    if missing:
        total = stated.get("total_size")
        total = int(total) if isinstance(total, float) and total.is_integer() else total
        if type(total) is not int or not 0 <= total < 1 << 63:
            raise InputError(
                f"{where}: 'total_size' is missing or no count, and so is the shard {shown(missing[0])};"
                " the shards or their total are needed"
            )
        note = f"{len(missing)} of {len(shards)} shards are not beside the index: its total of bytes is used"
        return Header("index", (), (path,), stated, total, names=tuple(weights), notes=(note,))
    whole = join([read_header(shard) for shard in shards])
    held = {tensor.name for tensor in whole.tensors}
    for name in weights:
        if name not in held:
            raise InputError(
                f"{where}: {shown(name)} is not in its shard {shown(weights[name])}; whole shards are needed"
            )
    return replace(whole, files=(path, *whole.files), metadata={**stated, **whole.metadata})


def join(shards: Sequence[Header]) -> Header:
    """The headers of all shards as one.

    Raises:
        InputError: a tensor stands in two of them.
    """
    tensors = tuple(tensor for shard in shards for tensor in shard.tensors)
    if len({tensor.name for tensor in tensors}) < len(tensors):
        seen: set[str] = set()
        twice = next(t.name for t in tensors if t.name in seen or seen.add(t.name))  # type: ignore[func-returns-value]
        raise InputError(f"{shards[0].where}: {shown(twice)} stands in two shards; once is right")
    files = tuple(file for shard in shards for file in shard.files)
    return Header("safetensors", tensors, files, shards[0].metadata, sum(shard.total_bytes for shard in shards))
