"""`vlmmem sweep`: grids as CSV or JSON, what is left out, what is refused."""

import csv
import io
import json
from pathlib import Path

import pytest

from vlmmem.cli import main
from vlmmem.grid import COLUMNS, sweep
from vlmmem.workload import Parallelism


def test_csv_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    call = "sweep --model llama-2-13b --model phi-2 --gpu t4,h200 --context 16,1024:4096:1024 --batch 1,8 --tp 1:2"
    assert main([*call.split(), "--weights", "own,fp8", "--kv-dtype", "own, q8_0"]) == 0
    out, error = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    grid = sweep(
        ["llama-2-13b", "phi-2"],
        ["t4", "h200"],
        [16, 1024, 2048, 3072, 4096],
        [1, 8],
        weights=[None, "fp8"],
        kv_dtypes=[None, "q8_0"],
        parallelism=[Parallelism(1), Parallelism(2)],
    )
    assert rows == [{name: str(value) for name, value in row.items()} for row in grid.rows()]
    assert list(rows[0]) == list(COLUMNS)
    lines = error.splitlines()
    assert len(lines) == len(grid.skipped) == 4
    assert lines[0].startswith("left out: phi-2, weights fp16, KV cache q8_0, tp 1, pp 1: kv_dtype: blocks of 32 ")


def test_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "grid.csv"
    assert main(["sweep", "--model", "phi-2", "--batch", "1:5:2", "-o", str(path)]) == 0
    assert capsys.readouterr() == (f"{path}: 3 points\n", "")
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    assert [row["batch"] for row in rows] == ["1", "3", "5"]


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--model", "phi-2", "--pp", "1,40", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == list(sweep("phi-2").rows())
    assert [each["pp"] for each in told["skipped"]] == [40]
    path = tmp_path / "grid.csv"
    assert main(["sweep", "--model", "phi-2", "--json", "-o", str(path)]) == 0
    assert json.loads(capsys.readouterr().out) == {"points": 1, "skipped": [], "file": str(path)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--model phi-2 --context 0", "'0' is no count; a whole number above zero is needed"),
        ("--model phi-2 --context 1:2:3:4", "'1:2:3:4' is no range; FIRST:LAST or FIRST:LAST:STEP is needed"),
        ("--model phi-2 --context 9:8", "'9:8' is no range; the last value is below the first"),
        ("--model phi-2 --batch 1:1000000000000", "'1:1000000000000' makes more than 1,000,000 values"),
        ("--model phi-2 --batch 1:900000,1:900000", "'1:900000' makes more than 1,000,000 values"),
        ("--model phi-2 --weights fp8,", "'fp8,' has an empty name"),
        ("--model phi-2 --tp 1:2000 --pp 1:2000", "--tp, --pp: more than 1,000,000 combinations"),
        ("--model phi-2 --tp 3", "no point is left: tp: 3 GPUs cannot split 32 heads"),
        ("--model phi-2 -o grid.txt", "grid.txt: the name of a grid ends in .csv or .parquet"),
        ("--model phi-2 --context 1:1000000 --batch 1:1000000", "points need"),
        ("", "the following arguments are required: --model"),
    ],
)
def test_bad_calls_are_one_line(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *arguments.split()]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    line = error.splitlines()[-1]
    assert line.startswith("vlmmem: error: ")
    assert message in line
