"""Measured runs: every record is checked, impossible ones are refused, the split is fixed by its rule."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from vlmmem.catalog import find_format, find_model
from vlmmem.errors import InputError
from vlmmem.measured import QUANTITIES, Quantity, Run, add_run, read_runs, run_of, runs, split_of, write_runs
from vlmmem.measured.split import STUDY, STUDY_OTHERS, source_key

GOOD: dict[str, object] = {
    "id": "one",
    "engine": "vllm",
    "version": "0.8.1",
    "model": "unsloth/Llama-3.2-3B-Instruct",
    "catalogue": "llama-3.2-3b",
    "family": "llama3",
    "gpu_total": {"value": 39.56, "unit": "GiB"},
    "utilization": 0.79,
    "tp": 1,
    "measured": {"weights": {"value": 6.25, "unit": "GiB"}, "kv_blocks": {"value": 13724, "unit": "blocks"}},
    "source": "https://github.com/unslothai/notebooks/blob/bdda2ef/a.ipynb",
    "provenance": "repo_notebook",
    "split": "fitted",
}


def test_every_record_is_whole() -> None:
    found = runs()
    assert len(found) >= 240
    assert sum(run.vision for run in found) >= 70
    assert {"vllm", "sglang", "llama.cpp", "transformers"} <= {run.engine for run in found}
    for run in found:
        assert run.source.startswith("https://"), run.id
        assert len(run.evidence) <= 400, run.id
        assert run.evidence or run.provenance in ("study", "harness"), run.id
        assert run.split != "own" or run.provenance == "harness", run.id
        if run.catalogue is not None:
            assert find_model(run.catalogue).id == run.catalogue, run.id
        if run.weights is not None:
            find_format(run.weights)


def test_the_study_is_whole_and_as_printed() -> None:
    study = [run for run in runs() if source_key(run.source) == STUDY]
    assert len(study) == 37
    one = next(run for run in study if run.id == "h100-mixtral-8x7b-instruct-v0.1-tp2")
    weights, pool, tokens = one.get("weights"), one.get("kv_pool"), one.get("kv_tokens")
    assert weights is not None
    assert pool is not None
    assert tokens is not None
    assert (weights.value, pool.value, tokens.value) == (43.51, 28.44, 465936)
    assert (one.tp, one.batch_tokens, one.sequences, one.utilization) == (2, 8192, 1024, 0.95)
    stages = next(run for run in study if run.pp == 4)
    assert len(stages.devices) == 4
    assert "the table mixes the stages" in stages.notes


def test_the_split_is_the_rules() -> None:
    for run in runs():
        if run.provenance != "harness":
            assert run.split == split_of(run.source, run.family), run.id
    # The rule itself, by hand: sha256 of the key, one in four.
    assert split_of("https://github.com/vllm-project/vllm/issues/16378#x", "gemma3") == "left out by source"
    assert split_of("https://github.com/vllm-project/vllm/pull/34051", "llama2") == "left out by model"
    assert split_of("https://github.com/vllm-project/vllm/pull/34051", "llama3") == "fitted"
    for family, split in (("llama2", "left out by model"), ("llama3", "fitted")):
        assert split_of(f"https://github.com/{STUDY.replace('accuracy', 'blob/1a2b/accuracy', 1)}", family) == split
    others = f"https://github.com/{STUDY_OTHERS.replace('accuracy', 'blob/1a2b/accuracy', 1)}a.json"
    assert split_of(others, "llama3") == "left out by source"


def test_the_revision_does_not_move_a_record() -> None:
    before = "https://github.com/QwenLM/Qwen3/blob/728493158d0eca1acab0948ac3b9e2b533b14d08/docs/a.rst"
    after = "https://github.com/QwenLM/Qwen3/blob/main/docs/a.rst#L12"
    assert source_key(before) == source_key(after) == "QwenLM/Qwen3/docs/a.rst"


def test_left_out_runs_are_many_and_of_every_kind() -> None:
    splits = Counter(run.split for run in runs())
    assert min(splits["left out by model"], splits["left out by source"]) >= 15
    families = {run.family for run in runs() if run.split == "left out by model"}
    assert not families & {run.family for run in runs() if run.split == "fitted"}


def test_no_run_stands_twice() -> None:
    told = {"id", "source", "evidence", "notes"}
    seen = Counter(json.dumps({k: v for k, v in run.json().items() if k not in told}, sort_keys=True) for run in runs())
    assert [key for key, times in seen.items() if times > 1] == []


@pytest.mark.parametrize(
    ("quantity", "size", "rounding"),
    [
        (Quantity(6.25, "GiB"), 6710886400, 5368709),
        (Quantity(9.34, "GB", means="GiB"), 10028748636, 5368709),
        (Quantity(0.97, "GB", means="GB"), 970000000, 5000000),
        (Quantity(0.9, "GiB", decimals=2), 966367642, 5368709),
        (Quantity(15773.97, "MiB"), 16540206367, 5243),
        (Quantity(9642210816, "bytes"), 9642210816, 0),
        (Quantity(-0.45, "GiB"), -483183821, 5368709),
    ],
)
def test_sizes_are_bytes_with_the_base_that_is_meant(quantity: Quantity, size: int, rounding: int) -> None:
    assert quantity.bytes == size
    assert quantity.rounding == rounding


def test_a_count_is_no_size() -> None:
    with pytest.raises(InputError, match="13724 blocks is no size"):
        _ = Quantity(13724, "blocks").bytes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"engine": "vLLM"}, "'engine' is \"vLLM\"; one of vllm"),
        ({"tp": 0}, "'tp' is 0; a positive integer is needed"),
        ({"tp": True}, "'tp' is true; a positive integer is needed"),
        ({"utilization": 90}, "'utilization' is 90; a share above 0"),
        ({"utilisation": 0.9}, "'utilisation' is not a field"),
        ({"catalogue": None}, "'why' goes with a 'catalogue' of null"),
        ({"why": "no reason"}, "'why' goes with a 'catalogue' of null"),
        ({"split": "train"}, "'split' is \"train\"; one of fitted"),
        ({"measured": {}}, "'measured' is empty; at least one figure is needed"),
        ({"measured": {"weight": {"value": 1, "unit": "GiB"}}}, "'weight' is not known; one of weights"),
        ({"measured": {"weights": {"value": 1, "unit": "GB"}}}, "means: '' beside GB; the unit that is meant"),
        ({"measured": {"weights": {"value": -1, "unit": "GiB"}}}, "weights is -1; a figure of 0 or more is needed"),
        (
            {"measured": {"weights": {"value": 1, "unit": "tokens"}}},
            "weights is in tokens; a figure in bytes is needed",
        ),
        ({"measured": {"kv_blocks": {"value": 1.5, "unit": "blocks"}}}, "a whole number is needed"),
        ({"measured": {"weights": {"value": "6", "unit": "GiB"}}}, "'value' is \"6\"; a number is needed"),
        ({"measured": {"weights": {"value": 6, "unit": "GiB", "decimals": 99}}}, "decimals: '99' was given"),
        ({"measured": {"weights": {"value": 1e30, "unit": "GiB"}}}, "a number of up to"),
        ({"unpriced": {"kv_pool": "unknown"}}, "unpriced: 'kv_pool' is not among the figures"),
        (
            {"measured": {"weights": {"value": 30, "unit": "GiB"}, "kv_pool": {"value": 20, "unit": "GiB"}}},
            "weights + kv_pool is 53,687,091,200 bytes of a GPU of 42,477,226,557; less is needed",
        ),
    ],
)
def test_impossible_records_are_refused_in_one_line(change: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as error:
        run_of(GOOD | change)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_engine_may_print_less_than_nothing_where_memory_was_freed() -> None:
    freed = run_of(GOOD | {"measured": {"cuda_graph": {"value": -0.45, "unit": "GiB"}}})
    figure = freed.get("cuda_graph")
    assert figure is not None
    assert figure.bytes < 0


def test_a_record_is_its_own_json() -> None:
    for run in runs():
        again = run_of(json.loads(json.dumps(run.json())), run.id)
        assert again.json() == run.json()


@pytest.fixture
def one() -> Run:
    return run_of(GOOD)


def test_a_users_file_is_kept_whole_or_not_at_all(tmp_path: Path, one: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "own.json"
    assert add_run(file, one).id == "one"
    other = run_of(GOOD | {"measured": {"weights": {"value": 6.3, "unit": "GiB"}}})
    assert add_run(file, other).id == "one-2"
    assert [run.id for run in read_runs(file)] == ["one", "one-2"]
    before = file.read_text()
    with pytest.raises(InputError, match="one holds the same figures already"):
        add_run(file, one)
    # The disk is full while the new file is written: the old one stands, and nothing is left behind.

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_runs(file, [one])
    assert file.read_text() == before
    assert [each.name for each in tmp_path.iterdir()] == ["own.json"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "valid JSON is needed"),
        ("[]", "stands where an object is needed"),
        ('{"runs": 3}', "a list of runs is needed"),
        ('{"runs": [], "more": 1}', "'more' is not a field"),
        ('{"runs": [{"id": "a"}]}', "own.json: a: 'engine' is missing"),
        ('{"runs": [{"id": "a", "measured": NaN}]}', "not a number"),
    ],
)
def test_a_bad_file_is_said_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "own.json"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        read_runs(file)
    assert said in str(error.value)
    assert str(error.value).startswith("own.json")
    assert "\n" not in str(error.value)


def test_one_id_stands_once(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"runs": [GOOD, GOOD]}))
    with pytest.raises(InputError, match="one: this id stands twice"):
        read_runs(file)


def test_a_folder_is_no_file_of_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_runs(tmp_path)


def test_every_quantity_has_a_dimension_and_a_meaning() -> None:
    for name, (dimension, meaning) in QUANTITIES.items():
        assert dimension in ("bytes", "tokens", "blocks", "x"), name
        assert meaning, name


def test_the_runs_need_the_standard_library_alone() -> None:
    script = (
        "import sys; from vlmmem.measured import runs; runs();"
        "print(sorted({'numpy', 'pandas', 'torch', 'altair', 'dataclasses'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
