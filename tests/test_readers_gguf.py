"""Headers of GGUF files: what the gguf package writes, its table of types, parts, and lies."""

import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from vlmmem.errors import InputError
from vlmmem.readers.gguf import LONG, MOST_ENTRIES, BlockType, Skipped, block_types, read_gguf, split_names

U32, STRING, ARRAY = 4, 8, 9


def text(value: str | bytes, order: str = "<") -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(order + "Q", len(raw)) + raw


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def info(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def header(*parts: bytes, tensors: int = 0, keys: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + b"".join(parts)


def write(path: Path, raw: bytes, data: int = 0) -> Path:
    """A file of that header, aligned to 32 bytes, whose data is a hole."""
    with path.open("wb") as stream:
        stream.write(raw)
        stream.truncate(-(-len(raw) // 32) * 32 + data)
    return path


# --- What the gguf package writes ---------------------------------------------------------------------------------


def test_the_table_is_that_of_the_gguf_package() -> None:
    theirs = {int(kind): BlockType(kind.name, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType}
    assert block_types() == theirs


def written(path: Path, fill: Callable[[gguf.GGUFWriter], None], **options: Any) -> Path:
    writer = gguf.GGUFWriter(path, "llama", **options)
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def everything(writer: gguf.GGUFWriter) -> None:
    for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"):
        getattr(writer, f"add_{kind}")(f"a.{kind}", 100)
    writer.add_float32("a.float32", 0.5)
    writer.add_float64("a.float64", 0.25)
    writer.add_bool("a.bool", True)
    writer.add_string("a.string", "héllo\n")
    writer.add_array("a.numbers", [1, -2, 3])
    writer.add_array("a.flags", [True, False])
    writer.add_array("a.texts", ["x", "yy"])
    writer.add_token_list([f"token {i}" * (i % 9) for i in range(5000)])
    writer.add_token_scores([0.0] * 5000)
    writer.add_string("a.template", "x" * (LONG + 1))
    writer.add_block_count(7)
    writer.add_tensor("token_embd.weight", np.zeros((10, 64), np.float16))
    writer.add_tensor("odd", np.zeros((3,), np.float32))
    writer.add_tensor("experts", np.zeros((2, 4, 34), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)


@pytest.mark.parametrize("endian", [gguf.GGUFEndian.LITTLE, gguf.GGUFEndian.BIG])
def test_a_file_of_the_package(endian: gguf.GGUFEndian, tmp_path: Path) -> None:
    path = written(tmp_path / "a.gguf", everything, endianess=endian)
    found = read_gguf(path)
    assert [(t.name, t.dtype, t.shape, t.bytes) for t in found.tensors] == [
        ("token_embd.weight", "F16", (10, 64), 1280),
        ("odd", "F32", (3,), 12),
        ("experts", "Q8_0", (2, 4, 32), 272),
    ]
    assert found.total_bytes == 1280 + 12 + 272
    said = dict(found.metadata)
    assert {key: said[key] for key in said if key.startswith("a.") and "int" in key} == {
        f"a.{sign}int{bits}": 100 for sign in ("", "u") for bits in (8, 16, 32, 64)
    }
    assert (said["a.float32"], said["a.float64"], said["a.bool"]) == (0.5, 0.25, True)
    assert (said["a.string"], said["a.texts"]) == ("héllo\n", ("x", "yy"))
    assert (said["a.numbers"], said["a.flags"]) == ((1, -2, 3), (True, False))
    assert said["tokenizer.ggml.tokens"] == said["tokenizer.ggml.scores"] == Skipped(5000)
    assert said["a.template"] == Skipped(LONG + 1)
    assert (said["general.architecture"], said["llama.block_count"]) == ("llama", 7)


@pytest.mark.parametrize("kind", list(gguf.GGMLQuantizationType), ids=lambda kind: kind.name)
def test_every_type_is_read_as_the_package_writes_it(kind: gguf.GGMLQuantizationType, tmp_path: Path) -> None:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rows = np.zeros((5, 2 * size), np.uint8)
    path = written(tmp_path / "a.gguf", lambda writer: writer.add_tensor("t", rows, raw_dtype=kind))
    (tensor,) = read_gguf(path).tensors
    (theirs,) = gguf.GGUFReader(path).tensors
    assert (tensor.dtype, tensor.shape, tensor.bytes) == (kind.name, (5, 2 * block), 10 * size)
    assert (theirs.n_elements, theirs.n_bytes) == (10 * block, tensor.bytes)


def test_another_alignment(tmp_path: Path) -> None:
    def fill(writer: gguf.GGUFWriter) -> None:
        writer.add_custom_alignment(128)
        writer.add_tensor("a", np.zeros((3,), np.float32))
        writer.add_tensor("b", np.zeros((3,), np.float32))

    assert read_gguf(written(tmp_path / "a.gguf", fill)).total_bytes == 24


@pytest.mark.parametrize("longest", [10, 47, 48, 300, 70_000])
def test_long_lists_are_passed_over_whatever_their_texts(longest: int, tmp_path: Path) -> None:
    lengths = [(7 * i * i) % (longest + 1) for i in range(3000 if longest < 1000 else 100)]
    texts = b"".join(text(b"\x01" * n) for n in lengths)
    keys = pair("t", ARRAY, struct.pack("<IQ", STRING, len(lengths)) + texts), pair("end", U32, struct.pack("<I", 7))
    found = read_gguf(write(tmp_path / "a.gguf", header(*keys, keys=2)))
    assert found.metadata == {"t": Skipped(len(lengths)), "end": 7}


def test_a_large_file_is_a_hole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", header(info("t", (16384, 3_000_000), 1, 0), tensors=1), 2 * 16384 * 3_000_000)
    assert read_gguf(path).total_bytes == 98_304_000_000


# --- Parts --------------------------------------------------------------------------------------------------------


def parts(folder: Path) -> list[Path]:
    def fill(writer: gguf.GGUFWriter) -> None:
        writer.add_block_count(3)
        for number in range(5):
            writer.add_tensor(f"t{number}", np.zeros((8, 8), np.float32))

    written(folder / "a.gguf", fill, split_max_tensors=2)
    return sorted(folder.glob("*.gguf"))


@pytest.mark.parametrize("given", range(3))
def test_any_part_brings_all(given: int, tmp_path: Path) -> None:
    files = parts(tmp_path)
    assert len(files) == 3
    found = read_gguf(files[given])
    assert [tensor.name for tensor in found.tensors] == [f"t{number}" for number in range(5)]
    assert (found.files, found.total_bytes) == (tuple(files), 5 * 256)
    assert found.metadata["llama.block_count"] == 3


def test_a_part_is_missing_or_another(tmp_path: Path) -> None:
    files = parts(tmp_path)
    content = files[1].read_bytes()
    files[1].unlink()
    with pytest.raises(InputError, match=r"a-00002-of-00003\.gguf: no such file"):
        read_gguf(files[0])
    files[1].write_bytes(files[2].read_bytes())
    with pytest.raises(InputError, match="does not say that it is part 2 of 3"):
        read_gguf(files[0])
    files[1].write_bytes(content)
    files[0].rename(tmp_path / "other.gguf")
    with pytest.raises(InputError, match=r"is one of 3 parts; names that end in -00001-of-00003\.gguf are needed"):
        read_gguf(tmp_path / "other.gguf")


def test_parts_that_hold_too_little(tmp_path: Path) -> None:
    files = parts(tmp_path)
    raw = files[0].read_bytes()
    at = raw.index(b"split.tensors.count") + len("split.tensors.count") + 4
    files[0].write_bytes(raw[:at] + struct.pack("<i", 6) + raw[at + 4 :])
    with pytest.raises(InputError, match="its parts hold 5 tensors where it says 6"):
        read_gguf(files[2])


def test_names_of_parts() -> None:
    assert split_names(Path("a-00001-of-00001.gguf")) == [Path("a-00001-of-00001.gguf")]
    for name in ("a.gguf", "a-00000-of-00002.gguf", "a-00003-of-00002.gguf", "a-00001-of-99999.gguf", "a-1-of-2.gguf"):
        assert split_names(Path(name)) is None


# --- Lies ---------------------------------------------------------------------------------------------------------

HUGE = (1 << 63, (1 << 64) - 1, 1 << 40)
LIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "does not begin with GGUF"),
    "another format": (b"PK\x03\x04" + b"\0" * 60, "does not begin with GGUF"),
    "version 1": (header(version=1), "GGUF version 1"),
    "version 4": (header(version=4), "GGUF version 4"),
    "tensors beyond": (header(tensors=MOST_ENTRIES + 1), "claims 65,537 tensors"),
    "keys beyond": (header(keys=MOST_ENTRIES + 1), "claims 65,537 keys"),
    "a key that is missing": (header(keys=1), "the header ends beyond"),
    "a tensor that is missing": (header(tensors=1), "the header ends beyond"),
    "a key of no UTF-8": (header(text(b"\xff") + b"\0" * 8, keys=1), "no UTF-8"),
    "a long key": (header(struct.pack("<Q", 65_536) + b"a" * 65_536, keys=1), "65,536 bytes long"),
    "a key twice": (header(*[pair("a", U32, b"\0" * 4)] * 2, keys=2), "stands twice"),
    "a type that is none": (header(pair("a", 13, b"\0" * 8), keys=1), "the type of a is 13"),
    "an array of arrays": (header(pair("a", ARRAY, struct.pack("<IQ", ARRAY, 1) + b"\0" * 12), keys=1), "type 9"),
    "five dimensions": (header(info("t", (1,) * 5, 0, 0), tensors=1), "5 dimensions"),
    "a product": (header(info("t", (1 << 32, 1 << 32), 0, 0), tensors=1), "does not divide"),
    "half a block": (header(info("t", (33, 2), 8, 0), tensors=1), "does not divide into blocks of Q8_0"),
    "a type that was removed": (header(info("t", (32,), 4, 0), tensors=1), "the type of t is 4"),
    "a type of tomorrow": (header(info("t", (32,), 1000, 0), tensors=1), "the type of t is 1000"),
    "a name of no UTF-8": (header(text(b"\xff") + b"\0" * 40, tensors=1), "no UTF-8"),
    "a tensor twice": (header(*[info("t", (0,), 0, 0)] * 2, tensors=2), "stands twice"),
    "an overlap": (header(info("a", (16,), 0, 0), info("b", (16,), 0, 32), tensors=2), "overlap"),
    "not aligned": (header(info("a", (1,), 0, 8), tensors=1), "not aligned"),
    "outside": (header(info("a", (1024,), 0, 0), tensors=1), "a whole file is needed"),
    "far outside": (header(info("a", (1,), 0, 1 << 63), tensors=1), "a whole file is needed"),
    "alignment 3": (header(pair("general.alignment", U32, struct.pack("<I", 3)), keys=1), "power of two"),
    "alignment 0": (header(pair("general.alignment", U32, struct.pack("<I", 0)), keys=1), "power of two"),
    "alignment a text": (header(pair("general.alignment", STRING, text("32")), keys=1), "power of two"),
    "parts without end": (header(pair("split.count", U32, struct.pack("<I", 1 << 31)), keys=1), "is one of 2,147"),
} | {
    f"{what} {length}": (raw, said)
    for length in HUGE
    for what, raw, said in (
        ("tensors", header(tensors=length), "claims"),
        ("keys", header(keys=length), "claims"),
        ("key", header(struct.pack("<Q", length), keys=1), "bytes long"),
        ("name", header(struct.pack("<Q", length), tensors=1), "bytes long"),
        ("text", header(pair("a", STRING, struct.pack("<Q", length)), keys=1), "ends beyond"),
        ("texts", header(pair("a", ARRAY, struct.pack("<IQ", STRING, length)), keys=1), "items; at most"),
        ("numbers", header(pair("a", ARRAY, struct.pack("<IQ", U32, length)), keys=1), "ends beyond"),
        (
            "long text in a list",
            header(pair("a", ARRAY, struct.pack("<IQ", STRING, 100) + text("x") + struct.pack("<Q", length)), keys=1),
            "ends beyond",
        ),
        ("dimension", header(info("t", (length,), 0, 0), tensors=1), ""),
    )
}  # fmt: skip


@pytest.mark.parametrize("case", LIES)
def test_a_lie_is_one_line(case: str, tmp_path: Path) -> None:
    raw, said = LIES[case]
    with pytest.raises(InputError) as error:
        read_gguf(write(tmp_path / "lie.gguf", raw, 200 if case == "an overlap" else 0))
    line = str(error.value)
    assert said in line
    assert line.startswith("lie.gguf:")
    assert line.isprintable()
    assert len(line) < 500


@pytest.mark.slow
def test_every_cut_of_a_file_is_told(tmp_path: Path) -> None:
    def fill(writer: gguf.GGUFWriter) -> None:
        writer.add_array("a.numbers", [1, -2, 3])
        writer.add_token_list([f"token {i}" for i in range(70)])
        writer.add_tensor("t", np.zeros((8,), np.float32))

    raw = written(tmp_path / "a.gguf", fill).read_bytes()
    path = tmp_path / "cut.gguf"
    for size in range(0, len(raw), 7):
        path.write_bytes(raw[:size])
        with pytest.raises(InputError, match=r"^cut\.gguf: "):
            read_gguf(path)


BOMBS = {
    "keys": header(*(pair(f"{i}", U32, b"\0" * 4) for i in range(MOST_ENTRIES)), keys=MOST_ENTRIES),
    "long keys": header(*(pair(f"{i:060000}", 0, b"\0") for i in range(300)), keys=300),
    "texts": header(*(pair(f"{i}", STRING, text("x" * LONG)) for i in range(9000)), keys=9000),
    "arrays": header(
        *(pair(f"{i}", ARRAY, struct.pack("<IQ", 0, LONG) + b"\1" * LONG) for i in range(9000)), keys=9000
    ),
    "lists": header(pair("a", ARRAY, struct.pack("<IQ", STRING, 1_200_000) + text("x" * 45) * 1_200_000), keys=2),
    "long lists": header(pair("a", ARRAY, struct.pack("<IQ", STRING, 1_000_000) + text("x" * 50) * 1_000_000), keys=2),
    "tensors": header(*(info(f"{i}", (1,), 0, 32 * i) for i in range(MOST_ENTRIES)), tensors=MOST_ENTRIES),
}


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_costs_little(bomb: str, tmp_path: Path) -> None:
    path = write(tmp_path / "bomb.gguf", BOMBS[bomb])
    code = (
        "import sys, time, pathlib\n"
        "from vlmmem.readers.gguf import read_gguf\n"
        "from vlmmem.errors import InputError\n"
        "start = time.process_time()\n"
        "try:\n"
        "    read_gguf(pathlib.Path(sys.argv[1]))\n"
        "except InputError as error:\n"
        "    print(error)\n"
        "print(time.process_time() - start)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20)),
    )
    assert done.returncode == 0, done.stderr
    *lines, seconds = done.stdout.splitlines()
    assert all(line.startswith("bomb.gguf: ") for line in lines)
    assert len(lines) <= 1
    assert float(seconds) < 2
