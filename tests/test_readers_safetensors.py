"""Headers of safetensors files: what the library writes and refuses, sizes of real checkpoints, and lies."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from safetensors.numpy import save_file

from vlmmem.errors import InputError
from vlmmem.readers.safetensors import DTYPE_BITS, MOST_HEADER, read_header, read_index


def write(path: Path, root: object, data: int | None = None, length: int | None = None) -> Path:
    """A file of that header, whose data is a hole: no disk is used."""
    raw = root if isinstance(root, bytes) else json.dumps(root).encode()
    entries = root.values() if isinstance(root, dict) else ()
    if data is None:
        data = max((e["data_offsets"][1] for e in entries if isinstance(e, dict) and "data_offsets" in e), default=0)
    with path.open("wb") as stream:
        stream.write((len(raw) if length is None else length).to_bytes(8, "little") + raw)
        stream.truncate(8 + len(raw) + data)
    return path


def entry(dtype: object, shape: object, *offsets: object) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    line = str(error.value)
    assert line.isprintable()
    assert len(line) < 500
    return line


def opened(path: Path) -> Exception | None:
    """What the library says of the file."""
    try:
        with safetensors.safe_open(str(path), framework="np"):
            return None
    except Exception as error:
        return error


# --- What the library writes ------------------------------------------------------------------------------------


def test_a_file_of_the_library(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {
        "b": np.zeros((3, 5), np.float16),
        "a": np.zeros((7,), np.int64),
        "scalar": np.zeros((), np.float32),
        "none": np.zeros((0, 4), np.uint8),
    }
    save_file(tensors, path, {"format": "np"})
    header = read_header(path)
    assert {t.name: (t.dtype, t.shape, t.bytes) for t in header.tensors} == {
        "b": ("F16", (3, 5), 30),
        "a": ("I64", (7,), 56),
        "scalar": ("F32", (), 4),
        "none": ("U8", (0, 4), 0),
    }
    assert header.total_bytes == 90
    assert header.metadata == {"format": "np"}
    assert (header.kind, header.files) == ("safetensors", (path,))


def test_the_dtypes_are_those_of_the_library(tmp_path: Path) -> None:
    # What the library says of a dtype that it does not know lists those that it knows.
    path = write(tmp_path / "x.safetensors", {"a": entry("nonsense", [1], 0, 1)})
    known = set(re.findall(r"`([A-Z]\w*)`", str(opened(path)).split("expected", 1)[1]))
    assert set(DTYPE_BITS) == known | {"I4", "U4"}
    for dtype in known:
        # 24 elements are whole bytes in every dtype; the library opens the file where it counts the same bytes.
        path = write(tmp_path / f"{dtype}.safetensors", {"a": entry(dtype, [24], 0, 3 * DTYPE_BITS[dtype])})
        assert opened(path) is None
        assert read_header(path).total_bytes == 3 * DTYPE_BITS[dtype]


def test_packed_types_of_published_headers(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", {"a": entry("I4", [4, 8], 0, 16), "b": entry("U4", [2], 16, 17)})
    assert [t.bytes for t in read_header(path).tensors] == [16, 1]


def test_a_field_more_is_read_over(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", {"a": {**entry("U8", [1], 0, 1), "x": [{}]}})
    assert opened(path) is None
    assert read_header(path).total_bytes == 1


def test_offsets_decide_the_order(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", {"b": entry("F32", [1], 4, 8), "a": entry("F32", [1], 0, 4)})
    assert opened(path) is None
    assert [t.name for t in read_header(path).tensors] == ["a", "b"]


# --- Lies -------------------------------------------------------------------------------------------------------

LIES: dict[str, tuple[object, str]] = {
    "a list": ([1], "no object"),
    "a number": (b"7", "no object"),
    "no JSON": (b"{", "valid JSON"),
    "twice": (b'{"a": {"dtype": "U8", "shape": [], "data_offsets": [0, 1], "dtype": "I8"}}', "twice"),
    "two tensors of a name": (
        b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
        "twice",
    ),
    "NaN": (b'{"a": {"dtype": "U8", "shape": [NaN], "data_offsets": [0, 1]}}', "not a number"),
    "infinite": (b'{"a": {"dtype": "U8", "shape": [1e999], "data_offsets": [0, 1]}}', "not a number"),
    "no UTF-8": (b'{"\xff": 1}', "UTF-8"),
    "half of a pair": (b'{"\\ud800": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}', "UTF-8"),
    "a nest": (b"[" * 100_000, "nested too deeply"),
    "an entry that is none": ({"a": 1}, "not dtype, shape and data_offsets"),
    "a field missing": ({"a": {"dtype": "U8", "shape": [1]}}, "not dtype, shape and data_offsets"),
    "an unknown dtype": ({"a": entry("F99", [1], 0, 1)}, "the dtype of a is F99"),
    "a dtype that is no text": ({"a": entry(["U8"], [1], 0, 1)}, "the dtype of a is"),
    "a negative dimension": ({"a": entry("U8", [-1, -1], 0, 1)}, "no counts"),
    "a dimension that is true": ({"a": entry("U8", [True], 0, 1)}, "no counts"),
    "a fraction": ({"a": entry("U8", [1.0], 0, 1)}, "no counts"),
    "a shape that is none": ({"a": entry("U8", None, 0, 1)}, "no counts"),
    "huge": ({"a": entry("U8", [1 << 63], 0, 1)}, "no counts"),
    "digits": (b'{"a": {"dtype": "U8", "shape": [%b], "data_offsets": [0, 1]}}' % (b"9" * 5000), "too many digits"),
    "a product": ({"a": entry("U8", [1 << 62, 1 << 62], 0, 1)}, "must agree"),
    "many dimensions": ({"a": entry("U8", [1] * 65, 0, 1)}, "65 dimensions"),
    "offsets backward": ({"a": entry("U8", [1], 1, 0)}, "no counts"),
    "offsets negative": ({"a": entry("U8", [1], -1, 0)}, "no counts"),
    "three offsets": ({"a": entry("U8", [1], 0, 1, 2)}, "no counts"),
    "too few bytes": ({"a": entry("F32", [2], 0, 4)}, "must agree"),
    "half a byte": ({"a": entry("F4", [3], 0, 2)}, "must agree"),
    "an overlap": ({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 2, 6)}, "overlaps"),
    "one place for two": ({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 0, 4)}, "overlaps"),
    "a gap": ({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 5, 9)}, "gap"),
    "a late start": ({"a": entry("U8", [4], 1, 5)}, "gap"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, "__metadata__"),
    "metadata that is a list": ({"__metadata__": []}, "__metadata__"),
}


@pytest.mark.parametrize("case", LIES)
def test_a_lie_is_one_line(case: str, tmp_path: Path) -> None:
    root, said = LIES[case]
    path = write(tmp_path / "lie.safetensors", root)
    with pytest.raises(InputError) as error:
        read_header(path)
    assert said in one_line(error)
    assert one_line(error).startswith("lie.safetensors:")
    # The library takes the last of two tensors of a name, and any number of dimensions.
    assert (opened(path) is None) == (case in ("two tensors of a name", "many dimensions"))


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1, 3, 1 << 40])
def test_a_length_beyond_the_file(length: int, tmp_path: Path) -> None:
    path = write(tmp_path / "lie.safetensors", b"{}", length=length)
    if length == 3:
        path.write_bytes(path.read_bytes()[:8])
    with pytest.raises(InputError, match="cannot stand in"):
        read_header(path)


def test_a_header_longer_than_the_library_reads(tmp_path: Path) -> None:
    path = write(tmp_path / "lie.safetensors", b"{}", data=MOST_HEADER, length=MOST_HEADER + 1)
    with pytest.raises(InputError, match="at most 100,000,000"):
        read_header(path)
    assert "too large" in str(opened(path))


@pytest.mark.parametrize("more", [-1, 1])
def test_the_data_end_where_the_file_ends(more: int, tmp_path: Path) -> None:
    path = write(tmp_path / "cut.safetensors", {"a": entry("U8", [100], 0, 100)}, data=100 + more)
    with pytest.raises(InputError, match=r"a whole \.safetensors file is needed"):
        read_header(path)
    assert opened(path) is not None


@pytest.mark.parametrize("size", range(8))
def test_a_file_shorter_than_its_length(size: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(b"\x02" * size)
    with pytest.raises(InputError, match="8 bytes of length cannot stand in"):
        read_header(path)


def test_names_of_strangers_stay_on_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", {"x\n\x1b[31m" + "y" * 10_000: 1})
    with pytest.raises(InputError) as error:
        read_header(path)
    assert "\\x1b" in one_line(error)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name, said in (("pipe.safetensors", "no regular file"), (".", "a folder"), ("x.safetensors", "no such file")):
        with pytest.raises(InputError, match=said):
            read_header(tmp_path / name)
    with pytest.raises(InputError, match="not a path"):
        read_header(tmp_path / "a\0b")


# --- An index ---------------------------------------------------------------------------------------------------


def index(folder: Path, weights: object, metadata: object = None) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": metadata, "weight_map": weights}), encoding="utf-8")
    return path


def test_an_index_alone_gives_its_total(tmp_path: Path) -> None:
    path = index(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"}, {"total_size": 800})
    header = read_index(path)
    assert (header.kind, header.total_bytes, header.tensors, header.names) == ("index", 800, (), ("a", "b"))
    write(tmp_path / "1.safetensors", {"a": entry("U8", [4], 0, 4)})
    header = read_index(path)
    assert (header.kind, header.total_bytes) == ("index", 800)
    assert header.notes == ("1 of 2 shards are not beside the index: its total of bytes is used",)
    write(tmp_path / "2.safetensors", {"b": entry("U8", [5], 0, 5)})
    header = read_index(path)
    assert (header.kind, header.total_bytes, len(header.tensors), len(header.files)) == ("safetensors", 9, 2, 3)


@pytest.mark.parametrize(
    ("weights", "metadata", "said"),
    [
        ({}, None, "'weight_map' is missing or empty"),
        (None, None, "'weight_map' is missing or empty"),
        ({"a": 1}, {"total_size": 1}, "no name of a shard"),
        ({"a": "../1.safetensors"}, {"total_size": 1}, "no name of a shard"),
        ({"a": "/etc/passwd"}, {"total_size": 1}, "no name of a shard"),
        ({"a": ".."}, {"total_size": 1}, "no name of a shard"),
        ({"a": "a\0b"}, {"total_size": 1}, "no name of a shard"),
        ({"a": "1.safetensors"}, None, "'total_size' is missing"),
        ({"a": "1.safetensors"}, {"total_size": -1}, "'total_size' is missing or no count"),
        ({"a": "1.safetensors"}, {"total_size": True}, "'total_size' is missing or no count"),
        ({"a": "1.safetensors"}, {"total_size": "8"}, "'total_size' is missing or no count"),
        ({"a": "1.safetensors"}, {"total_size": 1 << 70}, "'total_size' is missing or no count"),
        ({"a": "x" * 5000}, {"total_size": 1}, ""),
    ],
)
def test_an_index_that_lies(weights: object, metadata: object, said: str, tmp_path: Path) -> None:
    path = index(tmp_path, weights, metadata)
    if not said:
        assert read_index(path).total_bytes == 1
        return
    with pytest.raises(InputError) as error:
        read_index(path)
    assert said in one_line(error)


def test_shards_agree_with_their_index(tmp_path: Path) -> None:
    path = index(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"})
    write(tmp_path / "1.safetensors", {"a": entry("U8", [4], 0, 4)})
    write(tmp_path / "2.safetensors", {"a": entry("U8", [4], 0, 4)})
    with pytest.raises(InputError, match="a stands in two shards"):
        read_index(path)
    write(tmp_path / "2.safetensors", {"c": entry("U8", [4], 0, 4)})
    with pytest.raises(InputError, match=r"b is not in its shard 2\.safetensors"):
        read_index(path)


# --- Sizes of real checkpoints ------------------------------------------------------------------------------------


def llama_405b(folder: Path) -> tuple[int, int]:
    """The shards of Llama-3.1 405B in bfloat16, as holes: parameters and bytes."""
    hidden, wide, keys, vocabulary = 16384, 53248, 1024, 128256
    layer = {
        "self_attn.q_proj.weight": [hidden, hidden], "self_attn.k_proj.weight": [keys, hidden],
        "self_attn.v_proj.weight": [keys, hidden], "self_attn.o_proj.weight": [hidden, hidden],
        "mlp.gate_proj.weight": [wide, hidden], "mlp.up_proj.weight": [wide, hidden],
        "mlp.down_proj.weight": [hidden, wide], "input_layernorm.weight": [hidden],
        "post_attention_layernorm.weight": [hidden],
    }  # fmt: skip
    tensors = {f"model.layers.{i}.{name}": shape for i in range(126) for name, shape in layer.items()}
    tensors |= {"model.embed_tokens.weight": [vocabulary, hidden], "lm_head.weight": [vocabulary, hidden]}
    tensors |= {"model.norm.weight": [hidden]}
    shards: list[dict[str, Any]] = [{}]
    end = total = 0
    weights = {}
    for name, shape in tensors.items():
        size = 2 * int(np.prod(shape, dtype=np.int64))
        if end + size > 5_000_000_000:
            shards.append({})
            end = 0
        shards[-1][name] = entry("BF16", shape, end, end + size)
        weights[name] = len(shards)
        end += size
        total += size
    for number, shard in enumerate(shards, start=1):
        write(folder / f"model-{number:05}-of-{len(shards):05}.safetensors", shard)
    index(
        folder,
        {name: f"model-{number:05}-of-{len(shards):05}.safetensors" for name, number in weights.items()},
        {"total_size": total},
    )
    return total // 2, total


def test_llama_405b_across_its_shards(tmp_path: Path) -> None:
    parameters, total = llama_405b(tmp_path)
    assert parameters == 405_853_388_800  # tests/oracle/parameters.json holds it as transformers counts it
    header = read_index(tmp_path / "model.safetensors.index.json")
    assert header.total_bytes == total == 811_706_777_600
    assert len(header.files) > 150


BOMBS = {
    "lists": b"[[],[],[],[]," * 5_000_000,
    "numbers": b"[" + b"0," * 40_000_000,
    "a nest": b"[" * 90_000_000,
    "an open string": b'{"' + b"a" * 90_000_000,
    "names": b"{" + b'"a":1,' * 15_000_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_costs_little(bomb: str, tmp_path: Path) -> None:
    write(tmp_path / "bomb.safetensors", BOMBS[bomb])
    code = (
        "import sys, time, pathlib\n"
        "from vlmmem.readers.safetensors import read_header\n"
        "from vlmmem.errors import InputError\n"
        "start = time.process_time()\n"
        "try:\n"
        "    read_header(pathlib.Path(sys.argv[1]))\n"
        "except InputError as error:\n"
        "    print(error)\n"
        "print(time.process_time() - start)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "bomb.safetensors")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20)),
    )
    assert done.returncode == 0, done.stderr
    line, seconds = done.stdout.splitlines()
    assert line.startswith("bomb.safetensors")
    assert float(seconds) < 1
