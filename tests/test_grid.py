"""Sweeps: every point of a grid is what `estimate` says; the columns, the files, the limits."""

import csv
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.oracle_configs import catalogue_configs
from vlmmem import InputError, Parallelism, Workload, estimate, find_gpu, find_model
from vlmmem.footprint import default_kv_dtype
from vlmmem.grid import COLUMNS, Grid, sweep

# One of each kind: full, window in each layer, windows and full layers, latent, chunks, states, learned positions, a
# tower, experts, float32.
KINDS = [
    "llama-2-13b",
    "mistral-7b",
    "gemma-3-1b",
    "gemma-2-9b",
    "gemma-4-e2b",
    "deepseek-v3",
    "deepseek-v3.2",
    "llama-4-scout",
    "llama-3.2-11b-vision",
    "qwen3.5-27b",
    "gpt-3-175b",
    "opt-30b",
    "phi-2",
    "llava-1.5-7b",
    "mixtral-8x7b",
]
KNOWN = sorted({*KINDS} & set(catalogue_configs()))
TERMS = {
    "weights_bytes": "weights",
    "kv_cache_bytes": "kv_cache",
    "activation_bytes": "activations",
    "runtime_bytes": "runtime",
    "per_gpu_bytes": "total",
}

names = st.one_of(st.sampled_from(KNOWN), st.sampled_from(sorted(catalogue_configs())))
# Around the windows and the ends of tables of positions, and anywhere.
lengths = st.one_of(
    st.sampled_from([1, 2, 511, 512, 513, 1023, 1024, 2047, 2048, 2049, 4095, 4096, 4097, 8192, 8193, 131_072]),
    st.integers(1, 300_000),
)


def asked(row: dict[str, Any], weights: str | None, kv_dtype: str | None) -> dict[str, Any]:
    """What `estimate` says of a row."""
    footprint = estimate(
        row["model"],
        Workload(row["context"], row["batch"]),
        Parallelism(row["tp"], row["pp"]),
        row.get("gpu"),
        weights=weights,
        kv_dtype=kv_dtype,
    )
    found: dict[str, Any] = {column: footprint.per_gpu[kind] for column, kind in TERMS.items()}
    found |= {"total_bytes": footprint.total, "gpus": footprint.gpus}
    found |= {"weights": footprint.weights, "kv_dtype": footprint.kv_dtype}
    return found if footprint.gpu is None else {**found, "fits": footprint.fits}


@pytest.mark.slow
@given(
    name=names,
    contexts=st.lists(lengths, min_size=1, max_size=2),
    batches=st.lists(st.integers(1, 300), min_size=1, max_size=1),
    weights=st.sampled_from([None, None, "bf16", "fp32", "fp8", "awq-4bit", "q4_0", "Q4_K_M"]),
    kv_dtype=st.sampled_from([None, None, "fp32", "fp8", "q8_0", "nvfp4", "int8-per-token-head", "fp8_ds_mla"]),
    tp=st.sampled_from([1, 1, 2, 3, 4, 8]),
    pp=st.sampled_from([1, 1, 2, 3, 5, 40]),
    gpu=st.sampled_from([None, "t4", "h100-80gb", "b200"]),
)
@settings(max_examples=80)
def test_every_point_is_what_estimate_says(
    name: str,
    contexts: list[int],
    batches: list[int],
    weights: str | None,
    kv_dtype: str | None,
    tp: int,
    pp: int,
    gpu: str | None,
) -> None:
    split = Parallelism(tp, pp)
    refused = ""
    try:
        grid = sweep(name, gpu or (), contexts, batches, weights=weights, kv_dtypes=kv_dtype, parallelism=split)
    except InputError as error:  # of the one model and the one format that were asked for
        refused = str(error)
    else:
        refused = "".join(each["reason"] for each in grid.skipped)
        assert bool(refused) == (len(grid) == 0)
    if refused:
        with pytest.raises(InputError) as caught:
            estimate(name, Workload(contexts[0], batches[0]), split, weights=weights, kv_dtype=kv_dtype)
        assert str(caught.value) == refused
        return
    rows = list(grid.rows())
    assert [(row["context"], row["batch"]) for row in rows] == [(one, other) for one in contexts for other in batches]
    for row in rows:
        assert row == {**row, **asked(row, weights, kv_dtype)}


def test_every_kind_of_model_is_among_them() -> None:
    assert len(KNOWN) > 10


def test_axes_are_nested_in_the_order_of_the_arguments() -> None:
    splits = [Parallelism(1), Parallelism(2, 2)]
    grid = sweep(
        ["llama-2-7b", "phi-2"],
        ["t4", "h200"],
        [16, 32],
        [1, 2],
        weights=["bf16", "int8"],
        kv_dtypes=["fp16", "fp8"],
        parallelism=splits,
    )
    points = [
        (row["model"], row["weights"], row["kv_dtype"], row["tp"], row["pp"], row["context"], row["batch"], row["gpu"])
        for row in grid.rows()
    ]
    assert points == [
        (model, form, cache, split.tp, split.pp, context, batch, gpu)
        for model in ("llama-2-7b", "phi-2")
        for form in ("bf16", "int8")
        for cache in ("fp16", "fp8")
        for split in splits
        for context in (16, 32)
        for batch in (1, 2)
        for gpu in ("t4", "h200")
    ]
    assert len(grid) == 2**7
    assert [row["gpus"] for row in grid.rows()][:16] == [1] * 8 + [4] * 8


@pytest.mark.slow
def test_columns_and_frame() -> None:
    grid = sweep(["llama-2-7b", "phi-2"], "a100-80gb", [128, 8192], [1, 64])
    assert list(grid.columns) == list(COLUMNS)
    assert {name: str(found.dtype) for name, found in grid.columns.items()} == COLUMNS
    frame = grid.to_frame()
    assert frame["model"].tolist() == grid.column("model").tolist() == ["llama-2-7b"] * 4 + ["phi-2"] * 4
    assert frame.to_dict("records") == list(grid.rows())
    assert frame["fits"].tolist() == [row["per_gpu_bytes"] <= find_gpu("a100-80gb").memory_bytes for row in grid.rows()]
    assert list(sweep("phi-2").columns) == [name for name in COLUMNS if name not in ("gpu", "fits")]


def test_one_alone_needs_no_list() -> None:
    model = find_model("llama-2-7b")
    (row,) = sweep(model, find_gpu("t4"), 100, 3, weights="int8", kv_dtypes="fp8").rows()
    assert row == {**row, **asked(row, "int8", "fp8")}
    (row,) = sweep(model).rows()
    assert (row["context"], row["batch"], row["tp"], row["pp"]) == (4096, 1, 1, 1)
    assert row["kv_dtype"] == default_kv_dtype(model)


def test_what_cannot_be_is_left_out_with_its_reason() -> None:
    grid = sweep(
        "llama-2-13b", contexts=[16, 32], kv_dtypes=["fp8", "gptq-4bit"], parallelism=[Parallelism(3), Parallelism(2)]
    )
    assert len(grid) == 2
    assert [(each["kv_dtype"], each["tp"], each["reason"].partition(" ")[0]) for each in grid.skipped] == [
        ("fp8", 3, "tp:"),
        ("gptq-4bit", 3, "tp:"),
        ("gptq-4bit", 2, "kv_dtype:"),
    ]
    assert grid.skipped[0].keys() == {"model", "weights", "kv_dtype", "tp", "pp", "reason"}


def test_a_format_that_only_some_models_have_is_left_out_for_the_others() -> None:
    grid = sweep(["llama-2-7b", "opt-30b"], weights=["Q4_K_M"])
    assert grid.column("model").tolist() == ["llama-2-7b"]
    assert [(each["model"], each["weights"]) for each in grid.skipped] == [("opt-30b", "Q4_K_M")]
    with pytest.raises(InputError) as caught:
        estimate("opt-30b", Workload(16), weights="Q4_K_M")
    assert grid.skipped[0]["reason"] == str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": "llama-9"}, r"^model 'llama-9' is not in the catalogue"),
        ({"models": []}, r"^sweep: the grid has no point; at least one value of each axis is needed$"),
        ({"models": "phi-2", "contexts": []}, r"^sweep: the grid has no point"),
        ({"models": "phi-2", "gpus": "abacus"}, r"^GPU 'abacus' is not in the catalogue"),
        ({"models": "phi-2", "contexts": [16, 0]}, r"^contexts: 0 was given; a positive integer is needed$"),
        ({"models": "phi-2", "batches": 1.5}, r"^batches: 1.5 was given; a positive integer is needed$"),
        ({"models": "phi-2", "batches": [True]}, r"^batches: True was given; a positive integer is needed$"),
        ({"models": "phi-2", "weights": "fp3"}, r"^format 'fp3' is not in the catalogue"),
        (
            {"models": "phi-2", "contexts": range(1, 10**6), "batches": range(1, 10**6)},
            r"^sweep: 999,998,000,001 points need [0-9,]+ bytes, more than 4,294,967,296; fewer values of an axis, or ",
        ),
        (
            {"models": "phi-2", "contexts": 2**50, "batches": 2**50},
            r"^sweep: sizes of 1,125,899,906,842,624 sequences of 1,125,899,906,842,624 tokens are beyond 64 bits; ",
        ),
        ({"models": "phi-2", "contexts": 2**40}, r"^sweep: sizes of 1 sequences of .* tokens are beyond 64 bits; "),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    before = time.monotonic()
    with pytest.raises(InputError, match=message):
        sweep(**arguments)
    assert time.monotonic() - before < 5


def test_the_largest_sizes_are_still_exact() -> None:
    (row,) = sweep("llama-2-7b", contexts=2**20, batches=2**17).rows()
    assert row == {**row, **asked(row, None, None)}
    (row,) = sweep("mistral-7b", contexts=2**20, batches=2**15).rows()
    assert row == {**row, **asked(row, None, None)}


def test_memory_is_counted_before_it_is_taken() -> None:
    grid = sweep("phi-2", "t4", [16, 32], [1, 2])
    size = sum(found.itemsize for found in grid.columns.values())
    sweep("phi-2", "t4", [16, 32], [1, 2], most_bytes=4 * size)
    with pytest.raises(InputError, match=rf"^sweep: 4 points need {4 * size} bytes, more than {4 * size - 1}; "):
        sweep("phi-2", "t4", [16, 32], [1, 2], most_bytes=4 * size - 1)


@pytest.fixture
def grid() -> Grid:
    return sweep(["llama-2-7b", "phi-2"], ["t4", "h200"], [16, 4096], [1, 64])


def test_csv(grid: Grid, tmp_path: Path) -> None:
    path = tmp_path / "grid.csv"
    grid.write(path)
    with path.open(encoding="utf-8", newline="") as stream:
        read = list(csv.DictReader(stream))
    assert read == [{name: str(value) for name, value in row.items()} for row in grid.rows()]
    assert [each.name for each in tmp_path.iterdir()] == ["grid.csv"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_mask()


def _mask() -> int:
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_parquet(grid: Grid, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "grid.parquet"
    grid.write(str(path))
    assert parquet.read_table(path).to_pylist() == list(grid.rows())


def test_parquet_needs_pyarrow(grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        InputError, match=r"^pyarrow is not installed, and Parquet needs it; 'pip install pyarrow', or "
    ):
        grid.write(tmp_path / "grid.parquet")
    assert not list(tmp_path.iterdir())


def test_a_sweep_needs_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(InputError, match=r"^numpy is not installed, and a sweep needs it; 'pip install numpy'$"):
        sweep("phi-2")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("grid.txt", r"grid\.txt: the name of a grid ends in \.csv or \.parquet$"),
        ("nowhere/grid.csv", r"nowhere/grid\.csv: cannot be written \(No such file or directory\)$"),
    ],
)
def test_files_that_cannot_be(grid: Grid, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        grid.write(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_that_name_stays(grid: Grid, tmp_path: Path) -> None:
    (tmp_path / "grid.csv").mkdir()
    with pytest.raises(InputError, match=r"grid\.csv: cannot be written"):
        grid.write(tmp_path / "grid.csv")
    assert [each.name for each in tmp_path.iterdir()] == ["grid.csv"]


def test_an_interrupt_leaves_the_old_file(grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "grid.csv"
    path.write_text("old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Grid, "_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        grid.write(path)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["grid.csv"]


def test_progress_only_on_a_terminal(
    grid: Grid, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid.write(tmp_path / "grid.csv")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    sweep(["llama-2-7b", "phi-2"])
    out, error = capsys.readouterr()
    assert out == ""
    assert "sweep: 1 of 2" in error
    assert error.endswith("\r\033[K")


def test_a_grid_is_priced_a_hundred_times_faster_than_point_by_point() -> None:
    # A ratio within one run, so that a slow machine is slow on both sides; 1,000,000 points a second are promised.
    contexts, batches = range(128, 128 * 513, 128), range(1, 257)
    start = time.process_time()
    grid = sweep(["llama-3.1-8b", "gemma-3-1b"], ["h100-80gb", "h200"], contexts, batches)
    swept = len(grid) / (time.process_time() - start)
    start = time.process_time()
    for batch in range(1, 21):
        estimate("llama-3.1-8b", Workload(4096, batch), gpu="h200")
    one_by_one = 20 / (time.process_time() - start)
    assert len(grid) == 2 * 512 * 256 * 2
    assert swept > 100 * one_by_one
