"""Activations: every moment of each pass that the oracle ran, to the byte; the rules; the domain's edges."""

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tools.oracle_configs import catalogue_configs, changed
from vlmmem.architectures import build
from vlmmem.catalog import find_model
from vlmmem.errors import InputError
from vlmmem.memory import (
    decode_moments,
    decode_peak_bytes,
    forward_moments,
    forward_peak_bytes,
    kv_cache_bytes,
    likely_peak_bytes,
    overhead_rule_bytes,
    per_layer_rule_bytes,
    prefill_peaks,
)
from vlmmem.memory.activations import _FAMILIES, likely_moments
from vlmmem.model import Model

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "oracle" / "forward.json").read_text(encoding="utf-8")
)["cases"]
CONFIGS = catalogue_configs()


def shaped(name: str, **shapes: object) -> Model:
    """A model of the catalogue with other shapes."""
    return replace(build(changed(CONFIGS[name], shapes)), id=name)


def built(case: dict[str, Any]) -> Model:
    """The model that the oracle built."""
    return shaped(case["model"], **case["shapes"])


def moments_of(case: dict[str, Any]) -> dict[str, int]:
    """The closed forms for the case."""
    model, context, batch, dtype = built(case), case["context"], case["batch"], case["dtype"]
    if case["step"] == "decode":
        return decode_moments(model, context, batch, dtype=dtype)
    return forward_moments(model, context, batch, dtype=dtype, logits=case["logits"], images=case["images"])


def peak_of(case: dict[str, Any]) -> int:
    """The peak for the case."""
    model, context, batch, dtype = built(case), case["context"], case["batch"], case["dtype"]
    if case["step"] == "decode":
        return decode_peak_bytes(model, context, batch, dtype=dtype)
    return forward_peak_bytes(model, context, batch, dtype=dtype, logits=case["logits"], images=case["images"])


@pytest.mark.parametrize("model", sorted({case["model"] for case in CASES}))
def test_every_moment_agrees_with_the_oracle(model: str) -> None:
    for case in CASES:
        if case["model"] == model:
            cache = kv_cache_bytes(built(case), case["context"], case["batch"])
            assert {name: size + cache for name, size in moments_of(case).items()} == case["moments"], case
            assert peak_of(case) + cache == case["peak_bytes"], case


def test_the_cache_that_the_oracle_held() -> None:
    # transformers cuts a sliding layer's cache after the pass; until then it holds every token.
    for case in CASES:
        window = {"sliding_window": None} if case["model"] == "mistral-7b" else {}
        whole = shaped(case["model"], **{**case["shapes"], **window})
        assert case["kv_bytes"] == kv_cache_bytes(whole, case["context"], case["batch"]), case


def test_every_family_with_a_closed_form_was_run() -> None:
    for step, logits in (("prefill", "last"), ("prefill", "all"), ("decode", "last")):
        ran = {case["model"] for case in CASES if (case["step"], case["logits"]) == (step, logits)}
        assert {find_model(name).architecture for name in ran} == set(_FAMILIES)


def test_each_moment_is_the_peak_somewhere() -> None:
    peaks = {(case["step"], max(case["moments"], key=case["moments"].__getitem__)) for case in CASES}
    names = ("attention", "normalisation", "mlp", "logits")
    assert peaks == {(step, name) for step in ("prefill", "decode") for name in names}


def test_layers_change_nothing_but_the_cache() -> None:
    every_layer = [case for case in CASES if "layers" not in case["shapes"]]
    assert len(every_layer) >= 4
    for case in every_layer:
        few = {**case, "shapes": {"layers": 2}}
        assert peak_of(few) == peak_of(case)


def test_the_published_example() -> None:
    # 77,263,339,520 B over the weights, of which 67,108,864,000 B are KV cache.
    size = forward_peak_bytes("llama-2-13b", 8192, 10)
    assert size == 2 * 81_920 * (3 * 13_824 + 4 * 5_120) + 8192 * (4 * 128 + 8)
    assert size + kv_cache_bytes("llama-2-13b", 8192, 10) == 77_263_339_520


def test_a_name_means_its_model() -> None:
    model = find_model("llama-3.1-8b")
    assert forward_moments("llama-3.1-8b", 16) == forward_moments(model, 16, 1, attention="sdpa")
    assert decode_moments("llama-3.1-8b", 16) == decode_moments(model, 16, 1, attention="sdpa")
    assert forward_peak_bytes("llama-3.1-8b", 16) == max(forward_moments(model, 16).values())
    assert decode_peak_bytes("llama-3.1-8b", 16) == max(decode_moments(model, 16).values())


def test_a_sliding_window_one_token_longer_than_the_pass_needs_no_mask() -> None:
    model = find_model("mistral-7b")
    full = shaped("mistral-7b", sliding_window=None)
    assert forward_moments(model, 4095) == forward_moments(full, 4095)
    # At the window's length a mask of context^2 bytes stands; the window keeps every token still.
    assert forward_moments(model, 4096)["mlp"] - forward_moments(full, 4096)["mlp"] == 4096**2
    # One token more is held during the pass than the cache keeps: 2 x layers x KV heads x head width x 2 bytes.
    longer = forward_moments(model, 4097)["logits"] - forward_moments(full, 4097)["logits"]
    assert longer == 2 * 32 * 8 * 128 * 2


GATED = find_model("llama-2-7b")
LLAVA = find_model("llava-1.5-7b")
# A window in the layers from the fourth on.
MIXED = {"use_sliding_window": True, "sliding_window": 128, "max_window_layers": 3}
OUTSIDE: list[tuple[Callable[[], object], str]] = [
    (
        lambda: forward_peak_bytes(GATED, 16, dtype="fp32"),
        "dtype: 'fp32' was given; bf16 and fp16 are covered",
    ),
    (
        lambda: decode_peak_bytes(GATED, 16, dtype="int8"),
        "dtype: 'int8' was given; bf16 and fp16 are covered",
    ),
    (
        lambda: forward_peak_bytes(GATED, 16, attention="eager"),
        "attention: 'eager' was given; sdpa is covered",
    ),
    (
        lambda: decode_peak_bytes(GATED, 16, attention="flash"),
        "attention: 'flash' was given; sdpa is covered",
    ),
    (
        lambda: forward_peak_bytes(GATED, 16, logits="none"),
        "logits: 'none' was given; last and all are covered",
    ),
    (lambda: forward_peak_bytes(GATED, 0), "context: 0 was given; a positive integer is needed"),
    (lambda: forward_peak_bytes(GATED, -1), "context: -1 was given; a positive integer is needed"),
    (lambda: forward_peak_bytes(GATED, 1.5), "context: 1.5 was given; a positive integer is needed"),  # type: ignore[arg-type]
    (lambda: forward_peak_bytes(GATED, True), "context: True was given; a positive integer is needed"),
    (lambda: forward_peak_bytes(GATED, 1, 0), "batch: 0 was given; a positive integer is needed"),
    (lambda: decode_peak_bytes(GATED, 2, -3), "batch: -3 was given; a positive integer is needed"),
    (lambda: decode_peak_bytes(GATED, 1), "context: 1 was given; a decode step needs 2 tokens or more"),
    (
        lambda: decode_peak_bytes("mistral-7b", 4096),
        "context: a decode step of mistral-7b was checked for contexts shorter than its sliding window of 4096",
    ),
    (
        lambda: forward_peak_bytes(replace(GATED, activation="gelu"), 16),
        "llama-2-7b: activation 'gelu' was not checked; 'silu' is covered for 'llama'",
    ),
    (
        lambda: forward_peak_bytes(replace(find_model("opt-30b"), activation="gelu_new"), 16),
        "opt-30b: activation 'gelu_new' was not checked; 'relu' is covered for 'opt'",
    ),
    (
        lambda: forward_peak_bytes(replace(GATED, layers=1), 16),
        "llama-2-7b: 1 layer was not checked; 2 or more are covered",
    ),
    (
        lambda: forward_peak_bytes(replace(find_model("qwen2-72b"), head_dim=64), 16),
        "qwen2-72b: 64 heads x 64 were not checked; heads that make up the hidden size of 8192 are covered",
    ),
    (
        lambda: forward_peak_bytes(replace(find_model("opt-30b"), kv_heads=7), 16),
        "opt-30b: 7 KV heads for 56 heads were not checked; as many KV heads as heads are covered for 'opt'",
    ),
    (
        lambda: forward_peak_bytes(replace(GATED, kv_heads=8, head_dim=257), 16),
        "llama-2-7b: shared KV heads of 257 dimensions were not checked; up to 256 are covered",
    ),
    (
        lambda: forward_peak_bytes(replace(find_model("phi-2"), heads=80, kv_heads=80, head_dim=32 - 1), 16),
        "phi-2: 80 heads x 31 were not checked",
    ),
    (
        lambda: forward_peak_bytes(replace(find_model("phi-2"), hidden_size=62, heads=2, kv_heads=2, head_dim=31), 16),
        "phi-2: heads of 31 dimensions were not checked; 32 or more are covered for 'phi'",
    ),
    (
        lambda: forward_peak_bytes(LLAVA, 600, images=-1),
        "images: -1 was given; an integer of 0 or more is needed",
    ),
    (
        lambda: forward_peak_bytes(LLAVA, 600, images=1.0),  # type: ignore[arg-type]
        "images: 1.0 was given; an integer of 0 or more is needed",
    ),
    (
        lambda: forward_peak_bytes(GATED, 600, images=1),
        "images: a pass of llama-2-7b with images was not checked; models of architecture 'llava' are covered",
    ),
    (
        lambda: forward_peak_bytes("llava-1.6-34b", 3000, images=1),
        "images: a pass of llava-1.6-34b with images was not checked; models of architecture 'llava' are",
    ),
    (
        lambda: forward_peak_bytes(LLAVA, 575, images=1),
        "images: 1 of 576 tokens each were given for 575 tokens in all sequences; the context counts",
    ),
    (
        lambda: forward_peak_bytes(replace(LLAVA, hidden_size=1023), 600, images=1),
        "images: llava-1.5-7b has a vision tower wider than its decoder, which was not checked",
    ),
    (
        lambda: forward_peak_bytes(replace(LLAVA, intermediate_size=4095), 600, images=1),
        "images: llava-1.5-7b has a vision tower wider than its decoder, which was not checked",
    ),
    (
        lambda: forward_peak_bytes("phi-3-mini-4k", 2047),
        "context: a pass of phi-3-mini-4k was checked for contexts shorter than its sliding window of 2047 tokens",
    ),
    (
        lambda: forward_peak_bytes("phi-4-mini", 16),
        "phi-4-mini: layers with windows of several sizes, and heads that turn only in part, were not checked",
    ),
    (
        lambda: forward_peak_bytes(replace(build({**CONFIGS["qwen2-7b"], **MIXED}), id="qwen2-7b"), 16),
        "qwen2-7b: layers with windows of several sizes, and heads that turn only in part, were not checked",
    ),
    (
        lambda: forward_peak_bytes(
            replace(build({**CONFIGS["qwen3-30b-a3b"], "mlp_only_layers": [0]}), id="some dense"), 16
        ),
        "some dense: layers with experts among layers without were not checked; one kind is covered",
    ),
    (
        lambda: forward_peak_bytes("opt-30b", 2049),
        "context: 2049 tokens were given; opt-30b has learned positions for 2048, and no pass runs beyond them",
    ),
    (
        lambda: decode_peak_bytes("gpt-3-175b", 2049),
        "context: 2049 tokens were given; gpt-3-175b has learned positions for 2048, and no pass runs beyond them",
    ),
]


@pytest.mark.parametrize(("call", "line"), OUTSIDE, ids=[line for _, line in OUTSIDE])
def test_outside_the_checked_domain(call: Callable[[], object], line: str) -> None:
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_phi3_is_covered_up_to_its_window() -> None:
    assert forward_peak_bytes("phi-3-mini-4k", 2046) > 0
    grid = prefill_peaks(find_model("phi-3-mini-4k"), [2046, 2047], [1]).tolist()
    likely = likely_peak_bytes("phi-3-mini-4k", 2047)
    assert grid == [[forward_peak_bytes("phi-3-mini-4k", 2046)], [likely]]


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen3-8b", "phi-4", "mixtral-8x7b", "qwen3-30b-a3b", "mistral-7b"])
def test_the_likely_moments_of_a_checked_family_are_its_moments(name: str) -> None:
    for context, batch in ((1, 1), (300, 3), (5000, 2)):
        assert likely_moments(find_model(name), context, batch) == forward_moments(name, context, batch)


def test_an_unknown_family_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmmem.memory.activations._FAMILIES", {"opt": None, "gpt2": None})
    with pytest.raises(InputError, match=r"^llama-2-7b: architecture 'llama' was not checked; covered are gpt2, opt$"):
        forward_peak_bytes(GATED, 16)


def test_the_edges_that_are_covered() -> None:
    wide = shaped("llama-2-7b", kv_heads=8, head_dim=256)
    assert forward_peak_bytes(wide, 16) > 0
    # Heads of more than 256 dimensions are kept from sharing only.
    assert forward_peak_bytes(shaped("llama-2-7b", head_dim=257), 16) > 0
    assert forward_peak_bytes(shaped("llama-2-7b", layers=2), 1) > 0
    assert forward_peak_bytes(shaped("phi-2", heads=80, kv_heads=80, hidden_size=2560), 16) > 0
    assert forward_peak_bytes("opt-30b", 2048) > 0
    assert decode_peak_bytes("mistral-7b", 4095) > 0
    narrow = replace(LLAVA, hidden_size=1024, intermediate_size=4096)
    assert forward_peak_bytes(narrow, 576, images=1) > forward_peak_bytes(narrow, 576)
    # Rotary positions have no table that ends.
    assert forward_peak_bytes("llama-2-7b", 8192) > forward_peak_bytes("llama-2-7b", 4096)


def test_the_overhead_rule_is_exact_on_decimal_fractions() -> None:
    assert overhead_rule_bytes(26_000_000_000, 66_000_000_000, 0.1) == 9_200_000_000
    assert overhead_rule_bytes(100, 20, "0.05") == 6
    assert overhead_rule_bytes(10**18 + 1, 0, Fraction(1)) == 10**18 + 1
    assert overhead_rule_bytes(3, 4, 1) == 7
    assert overhead_rule_bytes(0, 0, 0.07) == 0
    assert overhead_rule_bytes(5, 5, 0) == 0
    # To the nearest byte.
    assert overhead_rule_bytes(13, 4, 0.1) == 2
    # 0.1 of 3 x 10^17 is exact; the float product is not.
    assert overhead_rule_bytes(3 * 10**17 + 10, 0, 0.1) == 3 * 10**16 + 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((-1, 1, 0.1), "weights: -1 was given; an integer of 0 or more bytes is needed"),
        ((1.0, 1, 0.1), "weights: 1.0 was given; an integer of 0 or more bytes is needed"),
        ((1, -2, 0.1), "kv_cache: -2 was given; an integer of 0 or more bytes is needed"),
        ((1, 1, 10), "fraction: 10 was given; a number between 0 and 1 is needed, 0.1 for 10 %"),
        ((1, 1, 1.01), "fraction: 1.01 was given; a number between 0 and 1 is needed, 0.1 for 10 %"),
        ((1, 1, -0.1), "fraction: -0.1 was given; a number between 0 and 1 is needed, 0.1 for 10 %"),
        ((1, 1, "x"), "fraction: 'x' was given; a number between 0 and 1 is needed, 0.1 for 10 %"),
        ((1, 1, "1/0"), "fraction: '1/0' was given; a number between 0 and 1 is needed, 0.1 for 10 %"),
        ((1, 1, float("nan")), "fraction: nan was given; a number between 0 and 1 is needed, 0.1 for 10 %"),
    ],
)
def test_the_overhead_rule_refuses(arguments: tuple[Any, ...], line: str) -> None:
    with pytest.raises(InputError) as error:
        overhead_rule_bytes(*arguments)
    assert str(error.value) == line


def test_the_per_layer_rule_multiplies() -> None:
    assert per_layer_rule_bytes(3, 5, 7, 11, 13) == 2 * 3 * 5 * 7 * 11 * 13
    assert per_layer_rule_bytes(3, 5, 7, 11) == 2 * 3 * 5 * 7 * 11 * 2
    assert per_layer_rule_bytes(hidden_size=8192, context=8192, batch=1, layers=80) == 20 * 2**30


@pytest.mark.parametrize("place", range(5))
def test_the_per_layer_rule_refuses(place: int) -> None:
    names = ("hidden_size", "context", "batch", "layers", "bytes_per_element")
    for value in (0, -1, 2.0):
        arguments: list[Any] = [1] * 5
        arguments[place] = value
        with pytest.raises(InputError, match=f"^{names[place]}: {value} was given; a positive integer is needed$"):
            per_layer_rule_bytes(*arguments)


def test_with_a_mask_a_head_of_its_own_is_not_repeated() -> None:
    model = shaped("mistral-7b", kv_heads=32)
    tokens = 8 * 4096
    row, mask = 2 * tokens * model.hidden_size, tokens * tokens
    standing = row + tokens * (4 * model.head_dim + 8) + mask
    uncut = 2 * model.layers * row - kv_cache_bytes(model, tokens)
    kernel = 4 * row + 2 * mask + 4 * tokens * model.heads
    assert forward_moments(model, tokens)["attention"] == standing + kernel + uncut


@pytest.mark.parametrize("name", ["llama-2-13b", "mistral-7b", "llava-1.5-13b", "llava-1.6-34b"])
def test_these_families_name_the_width_of_their_heads(name: str) -> None:
    model = find_model(name)
    assert forward_peak_bytes(shaped(name, head_dim=model.head_dim // 2), 16) > 0


@pytest.mark.parametrize(
    "name", ["llama-2-13b", "llama-3.1-8b", "mistral-7b", "opt-30b", "gpt2", "phi-2", "gemma-2-2b", "mixtral-8x7b"]
)
def test_a_grid_of_peaks_is_the_peaks(name: str) -> None:
    # Lengths on both sides of windows and of tables of positions, in no order; outside the domain the likely peak.
    model = find_model(name)
    contexts, batches = [5000, 1, 1023, 2, 1024, 4095, 2049, 4096, 1025, 2048, 4097], [3, 1, 2, 100]
    peaks = prefill_peaks(model, contexts, batches).tolist()
    for context, row in zip(contexts, peaks, strict=True):
        for batch, peak in zip(batches, row, strict=True):
            try:
                expected = forward_peak_bytes(model, context, batch)
            except InputError:
                expected = likely_peak_bytes(model, context, batch)
            assert peak == expected, (context, batch)
