"""Activations that training keeps: the papers' own numbers, PyTorch's saved tensors to the byte, and the errors."""

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import isqrt
from pathlib import Path
from typing import Any

import pytest

from vlmmem.catalog import find_model
from vlmmem.errors import InputError
from vlmmem.memory import (
    best_checkpoint_interval,
    checkpointed_bytes,
    gpt_layer_activations_bytes,
    layer_activations_bytes,
    layer_input_bytes,
)

SAVED: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "oracle" / "saved.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("case", SAVED["gpt"])
def test_a_layer_of_gpt_agrees_with_pytorch(case: dict[str, Any]) -> None:
    shape = {name: case[name] for name in ("hidden_size", "heads", "context", "batch")}
    # Two LayerNorms keep a mean and a scale a token, 16-bit: the paper leaves them out.
    statistics = 8 * case["context"] * case["batch"]
    assert gpt_layer_activations_bytes(**shape) + statistics == case["saved_bytes"]


@pytest.mark.parametrize("case", SAVED["llama"])
def test_a_layer_of_llama_agrees_with_transformers(case: dict[str, Any]) -> None:
    model = replace(find_model("llama-2-13b"), **case["shapes"])
    size = layer_activations_bytes(model, case["context"], case["batch"], attention=case["attention"])
    assert size == case["saved_bytes"]


@pytest.mark.parametrize("case", SAVED["checkpointed"])
def test_what_is_kept_before_the_backward_pass_agrees_with_pytorch(case: dict[str, Any]) -> None:
    boundary = layer_input_bytes(case["hidden_size"], case["context"], case["batch"])
    layers, every = case["layers"], case["every"]
    # All inputs of segments; what one segment keeps beside its input comes on top when it is recomputed.
    assert checkpointed_bytes(layers, boundary, boundary, every) - (every - 1) * boundary == case["saved_bytes"]


@pytest.mark.parametrize(
    ("heads", "hidden_size", "scores_share"),
    # arXiv 2205.05198, section 5: 5 a s / h is 80 for GPT-3 and 64 for MT-NLG, beside 34; 70 % and 65 % are saved.
    [(96, 12288, Fraction(80, 34 + 80)), (128, 20480, Fraction(64, 34 + 64))],
)
def test_the_papers_selective_recomputation(heads: int, hidden_size: int, scores_share: Fraction) -> None:
    every = gpt_layer_activations_bytes(hidden_size, heads, 2048)
    kept = gpt_layer_activations_bytes(hidden_size, heads, 2048, scores=False)
    assert 1 - Fraction(kept, every) == scores_share
    assert kept == 34 * hidden_size * 2048


def test_the_layer_is_linear_in_the_batch() -> None:
    one, three = (gpt_layer_activations_bytes(64, 4, 32, batch) for batch in (1, 3))
    assert 3 * one == three
    assert layer_activations_bytes("llama-2-7b", 1) * 2 == layer_activations_bytes("llama-2-7b", 1, 2)
    assert layer_activations_bytes("llama-2-7b", 3) == layer_activations_bytes(find_model("llama-2-7b"), 3, 1)
    assert gpt_layer_activations_bytes(1, 1, 1) == 39
    assert layer_input_bytes(3, 5) == 30
    assert layer_input_bytes(1, 1, 1) == 2
    assert layer_input_bytes(3, 5, 7) == 210


@pytest.mark.parametrize("layers", [4, 9, 16, 25, 36, 64, 1024])
def test_the_square_root_of_the_layers_is_best_where_all_tensors_are_alike(layers: int) -> None:
    # arXiv 1604.06174, equation 1: n / k + k, least at the square root, where it is twice that.
    root = isqrt(layers)
    assert best_checkpoint_interval(layers, 1, 1) == root
    assert checkpointed_bytes(layers, 1, 1, root) == 2 * root - 1


def test_a_layer_that_keeps_more_than_its_input_wants_shorter_segments() -> None:
    assert best_checkpoint_interval(40, 1, 1) > best_checkpoint_interval(40, 4, 1) == 3
    assert best_checkpoint_interval(40, 40, 1) == 1
    assert best_checkpoint_interval(1, 5, 7) == 1
    assert best_checkpoint_interval(4, 1, 100) == 4
    for layer in (1, 2, 3, 7):
        best = best_checkpoint_interval(40, layer, 1)
        assert all(
            checkpointed_bytes(40, layer, 1, best) <= checkpointed_bytes(40, layer, 1, every) for every in range(1, 41)
        )


def test_the_ends_of_the_scale() -> None:
    assert checkpointed_bytes(40, 17, 2, 40) == 40 * 17
    assert checkpointed_bytes(40, 17, 2, 1) == 39 * 2 + 17
    assert checkpointed_bytes(40, 17, 2, 7) == 5 * 2 + 7 * 17
    assert checkpointed_bytes(1, 1, 1, 1) == 1


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: gpt_layer_activations_bytes(0, 1, 1), "hidden_size: 0 was given; a positive integer is needed"),
        (lambda: gpt_layer_activations_bytes(1, 0, 1), "heads: 0 was given; a positive integer is needed"),
        (lambda: gpt_layer_activations_bytes(1, 1, 0), "context: 0 was given; a positive integer is needed"),
        (lambda: gpt_layer_activations_bytes(1, 1, 1, 0), "batch: 0 was given; a positive integer is needed"),
        (lambda: layer_activations_bytes("llama-2-7b", 0), "context: 0 was given; a positive integer is needed"),
        (lambda: layer_activations_bytes("llama-2-7b", 1, 0), "batch: 0 was given; a positive integer is needed"),
        (
            lambda: layer_activations_bytes("opt-30b", 1),
            "model: opt-30b is of the class opt; the layer of llama was checked",
        ),
        (
            lambda: layer_activations_bytes("llama-2-7b", 1, attention="flash"),
            "attention: 'flash' was given; sdpa and eager are covered",
        ),
        (lambda: layer_input_bytes(0, 1), "hidden_size: 0 was given; a positive integer is needed"),
        (lambda: layer_input_bytes(1, 0), "context: 0 was given; a positive integer is needed"),
        (lambda: layer_input_bytes(1, 1, 0), "batch: 0 was given; a positive integer is needed"),
        (lambda: checkpointed_bytes(0, 1, 1, 1), "layers: 0 was given; a positive integer is needed"),
        (lambda: checkpointed_bytes(1, 0, 1, 1), "layer: 0 was given; a positive integer is needed"),
        (lambda: checkpointed_bytes(1, 1, 0, 1), "boundary: 0 was given; a positive integer is needed"),
        (lambda: checkpointed_bytes(1, 1, 1, 0), "every: 0 was given; a positive integer is needed"),
        (lambda: checkpointed_bytes(4, 1, 1, 5), "every: 5 was given; at most 4, all layers, is possible"),
        (lambda: best_checkpoint_interval(0, 1, 1), "layers: 0 was given; a positive integer is needed"),
    ],
)
def test_errors(call: Callable[[], int], line: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == line


def test_an_interval_is_searched_over_ten_thousand_layers_and_no_more() -> None:
    assert best_checkpoint_interval(10_000, 1, 1) == 100
    with pytest.raises(InputError, match=r"^layers: 10001 was given; at most 10,000 are tried one by one$"):
        best_checkpoint_interval(10_001, 1, 1)
