"""Passes and bounds: against PyTorch's own count, against published tables, and by their properties."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.oracle_configs import catalogue_configs, changed
from vlmmem.architectures import build
from vlmmem.catalog import find_gpu, find_link, find_model, gpus, links
from vlmmem.errors import InputError
from vlmmem.memory import kv_cache_bytes, weights_bytes
from vlmmem.roofline import (
    attainable_flops,
    compute_bound_batch,
    decode_step,
    least_seconds,
    prefill,
    ridge_point,
    transfer_seconds,
    weights_read_bytes,
)

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "oracle" / "flops.json").read_text(encoding="utf-8"))[
    "cases"
]
CONFIGS = catalogue_configs()
COUNTED = {"llama", "mistral", "qwen2", "llava", "llava_next", "opt", "gpt2", "phi"}
MODELS = [find_model(name) for name, config in CONFIGS.items() if config["model_type"] in COUNTED]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['model']}-{case['step']}-{case['context']}")
def test_flops_are_what_pytorch_counts(case: dict[str, Any]) -> None:
    model = build(changed(CONFIGS[case["model"]], {"layers": case["layers"]}))
    context, batch = case["context"], case["batch"]
    if case["step"] == "decode":
        assert decode_step(model, context, batch).flops == case["flops"]
    else:
        done = prefill(model, context, batch, attention="square", logits=case["logits"])
        assert done.flops == case["flops"]


def test_every_family_is_counted() -> None:
    assert {find_model(case["model"]).architecture for case in CASES} == COUNTED


# The FlashAttention repository's own benchmark (benchmarks/benchmark_flash_attention.py, function flops, forward):
# 4 × batch × seqlen² × heads × headdim, halved where it is causal.
@pytest.mark.parametrize("length", [512, 2048, 16_384])
def test_attention_is_what_flash_attention_counts(length: int) -> None:
    model = find_model("llama-2-7b")
    square, causal = (prefill(model, length, 2, attention=kind).flops for kind in ("square", "causal"))
    theirs = 4 * 2 * length**2 * model.heads * model.head_dim * model.layers
    linear = square - theirs
    assert linear == 2 * (2 * model.layers * length * 202_375_168 + 2 * 32_000 * 4096)
    # Theirs leaves out the diagonal, on which a token attends to itself.
    assert (causal - linear) == theirs // 2 * (length + 1) // length


# https://jax-ml.github.io/scaling-book/inference/ "Modeling throughput and latency for LLaMA 2-13B": 8 TPU v5e of
# 8.2e11 B/s each, 8,192 tokens a sequence; it takes 26e9 bytes of weights and 6.7e9 a sequence.
SCALING_BOOK = {1: 4.98, 8: 12.13, 16: 20.30, 32: 36.65, 64: 69.33}


@pytest.mark.parametrize(("batch", "milliseconds"), SCALING_BOOK.items())
def test_decode_reads_what_the_scaling_book_reads(batch: int, milliseconds: float) -> None:
    tpus = replace(find_gpu("h100-80gb"), bandwidth=8 * 820_000_000_000)
    ours = least_seconds(decode_step("llama-2-13b", 8192, batch), tpus)
    assert float(ours) * 1000 == pytest.approx(milliseconds, rel=0.01)


# https://github.com/modal-labs/gpu-glossary, perf/memory-bandwidth.md; its A100 has the rounded 2 TB/s.
def test_ridge_points_as_published() -> None:
    assert round(ridge_point("h100-80gb")) == 295
    assert round(ridge_point("b200")) == 281
    assert round(ridge_point(replace(find_gpu("a100-80gb"), bandwidth=2 * 10**12))) == 156


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.id)
def test_what_is_read(model: Any) -> None:
    read = weights_read_bytes(model)
    kept = read // 2 + model.vocab_size * model.hidden_size * (not model.tied_embeddings)
    assert model.language_parameters - kept in (0, (model.max_positions + 2) * model.hidden_size) or (
        model.architecture == "gpt2" and model.language_parameters - kept == model.max_positions * model.hidden_size
    )
    step = decode_step(model, 1024, 3)
    assert (step.weights_bytes, step.kv_bytes) == (read, kv_cache_bytes(model, 1024, 3))
    assert step.bytes == read + step.kv_bytes
    assert step.intensity == Fraction(step.flops, step.bytes)


def test_quantised_weights_keep_their_table_in_16_bits() -> None:
    model = find_model("llama-3.1-8b")
    assert weights_read_bytes(model, "int8") * 2 == weights_read_bytes(model, "bf16")
    head = weights_bytes(model.vocab_size * model.hidden_size)
    assert weights_read_bytes(model, "gptq-4bit") > head
    assert weights_read_bytes(model, "gptq-4bit") < weights_read_bytes(model, "int8")


@given(st.integers(1, 60), st.integers(1, 60))
def test_pairs_by_hand(tokens: int, window: int) -> None:
    model = build(changed(CONFIGS["mistral-7b"], {"sliding_window": window}))
    pairs = sum(min(at, window) for at in range(1, tokens + 1))
    per_pair = 4 * model.layers * model.heads * model.head_dim
    square = prefill(model, tokens, attention="square").flops - per_pair * tokens * tokens
    assert prefill(model, tokens).flops == square + per_pair * pairs


@pytest.mark.slow
@given(st.integers(2, 300), st.integers(1, 8))
def test_a_prefill_is_as_much_work_as_its_steps(context: int, batch: int) -> None:
    steps = sum(decode_step("llama-3.1-8b", at, batch).flops for at in range(1, context + 1))
    assert prefill("llama-3.1-8b", context, batch, logits="all").flops == steps
    assert prefill("llama-3.1-8b", context, batch).kv_bytes == kv_cache_bytes("llama-3.1-8b", context, batch)


@given(st.sampled_from([gpu.id for gpu in gpus()]), st.sampled_from([m.id for m in MODELS]), st.integers(1, 600))
def test_the_batch_is_the_least_that_reaches_the_ridge(gpu: str, model: str, context: int) -> None:
    batch, ridge = compute_bound_batch(model, gpu, context), ridge_point(gpu)
    if batch is None:
        assert decode_step(model, context, 10**9).intensity < ridge
    else:
        assert decode_step(model, context, batch).intensity >= ridge
        assert batch == 1 or decode_step(model, context, batch - 1).intensity < ridge


def test_a_batch_that_just_touches_the_ridge_never_reaches_it() -> None:
    one = decode_step("llama-2-7b", 4096)
    gpu = replace(find_gpu("t4"), flops_16bit=one.flops, bandwidth=one.kv_bytes)
    assert compute_bound_batch("llama-2-7b", gpu, 4096) is None


def test_the_roof() -> None:
    gpu = find_gpu("a100-80gb")
    assert attainable_flops(gpu, 1) == gpu.bandwidth
    assert attainable_flops(gpu, ridge_point(gpu)) == gpu.flops_16bit == attainable_flops(gpu, 10**6)
    assert attainable_flops(gpu, 0.5) * 2 == gpu.bandwidth


def test_the_longer_of_the_two_times() -> None:
    gpu, step = find_gpu("h100-80gb"), decode_step("llama-3.1-70b", 4096)
    assert least_seconds(step, gpu) == Fraction(step.bytes, gpu.bandwidth)
    assert least_seconds(step, gpu, 4) * 4 == least_seconds(step, gpu)
    prompt = prefill("llama-3.1-70b", 4096)
    assert least_seconds(prompt, "h100-80gb") == Fraction(prompt.flops, gpu.flops_16bit)


def test_a_link_takes_its_time() -> None:
    assert transfer_seconds(450 * 10**9, "nvlink-4") == 1
    assert transfer_seconds(10**9, find_link("pcie-5")) == Fraction(1, 63)
    assert [link.id for link in links()] == ["nvlink-4", "nvlink-3", "pcie-5", "infiniband-ndr"]
    speeds = [link.bandwidth for link in links()]
    assert speeds == sorted(speeds, reverse=True)
    assert all(link.sources for link in links())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: prefill("llama-2-7b", 0), "context: 0 was given; a positive integer is needed"),
        (lambda: prefill("llama-2-7b", 8, 0), "batch: 0 was given; a positive integer is needed"),
        (
            lambda: prefill("llama-2-7b", 8, attention="flash"),
            "attention: 'flash' was given; one of causal, square is needed",
        ),
        (lambda: prefill("llama-2-7b", 8, logits="none"), "logits: 'none' was given; one of last, all is needed"),
        (lambda: decode_step("llama-2-7b", True), "context: True was given; a positive integer is needed"),
        (lambda: decode_step("llama-2-7b", 8, 1.0), "batch: 1.0 was given; a positive integer is needed"),  # type: ignore[arg-type]
        (lambda: attainable_flops("t4", 0), "intensity: 0 was given; more than 0 FLOP a byte is needed"),
        (lambda: least_seconds(prefill("phi-2", 8), "t4", 0), "gpus: 0 was given; a positive integer is needed"),
        (lambda: transfer_seconds(0, "pcie-5"), "size: 0 was given; a positive integer is needed"),
        (lambda: find_link("usb"), "link 'usb' is not in the catalogue; known are nvlink-4, nvlink-3, "),
    ],
)
def test_what_is_refused(call: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value).startswith(message)
