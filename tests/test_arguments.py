"""What the documents' code calls: the ledger's entries against what the installed libraries answered."""

import json
from pathlib import Path
from typing import Any

import pytest

import vlmmem
from vlmmem.ledger import load

ANSWERS: dict[str, Any] = json.loads((Path(__file__).parent / "oracle" / "arguments.json").read_text(encoding="utf-8"))
CALLS: dict[str, Any] = ANSWERS["calls"]
LOADING: dict[str, Any] = ANSWERS["from_pretrained"]

ENTRIES = {
    "footprint:hf-memory-footprint": "transformers.PreTrainedModel.get_memory_footprint",
    "footprint:torch-reset-peak": "torch.cuda.reset_peak_memory_stats",
    "footprint:torch-max-allocated": "torch.cuda.max_memory_allocated",
    "footprint:torch-memory-summary": "torch.cuda.memory_summary",
    "inference:profile-reset": "torch.cuda.reset_peak_memory_stats",
    "inference:profile-synchronize": "torch.cuda.synchronize",
    "inference:profile-before": "torch.cuda.memory_allocated",
    "inference:profile-peak": "torch.cuda.max_memory_allocated",
    "inference:profile-summary": "torch.cuda.memory_summary",
    "inference:profile-pipeline": "transformers.pipeline",
}


@pytest.mark.parametrize(("entry", "name"), ENTRIES.items())
def test_an_entry_that_stands_names_what_is_there(entry: str, name: str) -> None:
    item = load().by_id[entry]
    assert item.verdict == "sourced"
    assert name.rpartition(".")[2] in item.documented
    assert CALLS[name]["exists"]
    assert all(CALLS[name]["arguments"].values())


def test_what_the_ledger_says_of_names_that_went() -> None:
    item = load().by_id["footprint:hf-vision2seq"]
    assert not CALLS["transformers.AutoModelForVision2Seq"]["exists"]
    assert item.correct is not None
    assert CALLS[f"transformers.{item.correct}"]["exists"]


@pytest.mark.parametrize("argument", ["torch_dtype", "dtype", "low_cpu_mem_usage", "trust_remote_code"])
def test_arguments_of_from_pretrained_are_taken(argument: str) -> None:
    assert LOADING[argument]["works"]


def test_the_two_names_of_the_number_format_do_the_same() -> None:
    assert LOADING["torch_dtype"] == LOADING["dtype"] == {"works": True, "gives": "torch.float16"}


def test_a_device_map_asks_for_accelerate() -> None:
    assert not LOADING["device_map"]["works"]
    assert "requires `accelerate`" in LOADING["device_map"]["error"]


def test_an_argument_that_does_not_exist_is_refused() -> None:
    assert not LOADING["no_such_argument"]["works"]


def test_the_pipeline_frees_its_weights_on_return() -> None:
    assert LOADING["pipeline"]["works"]
    assert LOADING["pipeline"]["weights_outlive_the_call"] is False
    assert load().by_id["inference:profile-increase"].verdict == "wrong"


def test_the_memory_footprint_is_parameters_and_buffers() -> None:
    counted = ANSWERS["get_memory_footprint"]
    assert counted["footprint"] == counted["parameters"] + counted["buffers"]


def test_the_summary_of_a_model_is_in_mib() -> None:
    weights = vlmmem.weights_bytes(vlmmem.find_model("phi-2").parameters)
    assert ANSWERS["memory_summary"][str(weights)] == f"{weights // 2**20} MiB"
    memory = vlmmem.find_gpu("a100-80gb").memory_bytes
    assert ANSWERS["memory_summary"][str(memory)] == f"{memory // 2**20} MiB"
