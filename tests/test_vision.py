"""The vision side's memory, against the passes of tests/oracle/vision.json. Needs no PyTorch."""

import json
from pathlib import Path
from typing import Any

import pytest

from vlmmem.architectures import build
from vlmmem.catalog import find_model
from vlmmem.errors import InputError
from vlmmem.memory.kv_cache import kv_cache_bytes
from vlmmem.memory.vision import (
    encoder_cache_bytes,
    encoder_moments,
    encoder_peak_bytes,
    image_kv_bytes,
    pixel_bytes,
)
from vlmmem.record import replace

ASKED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "oracle" / "vision.json").read_text(encoding="utf-8")
)["cases"]
ANY_SIZE = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


def moments(case: dict[str, Any], one: dict[str, Any]) -> dict[str, int]:
    native = case["config"]["model_type"] in ANY_SIZE
    return encoder_moments(
        build(case["config"]),
        one["images"],
        crops=one["crops"],
        tokens=None if native else one["tokens"],
        grid=tuple(one["size"]) if native else None,
        dtype=case.get("dtype", "bf16"),
    )


@pytest.mark.parametrize("case", ASKED, ids=lambda case: case["config"]["model_type"])
def test_the_peak_is_that_of_the_real_pass(case: dict[str, Any]) -> None:
    for one in case["passes"]:
        assert max(moments(case, one).values()) == one["peak_bytes"], one


def test_every_moment_is_the_peak_of_some_pass() -> None:
    peaks = set()
    for case in ASKED:
        for one in case["passes"]:
            found = moments(case, one)
            peaks.add((case["config"]["model_type"], max(found, key=lambda name: found[name])))
    assert {moment for _, moment in peaks} == {
        "attention",
        "embedding",
        "mlp",
        "order",
        "packing",
        "projector",
        "rotation",
        "selection",
    }


def test_a_mixture_of_experts_sees_with_the_same_tower() -> None:
    # Qwen3VLMoeVisionModel is Qwen3VLVisionModel by another name, transformers v5.23.0 modular_qwen3_vl_moe.py
    model = find_model("qwen3-vl-235b-a22b")
    dense = replace(model, architecture="qwen3_vl")
    assert encoder_moments(model, grid=(4, 8)) == encoder_moments(dense, grid=(4, 8))


@pytest.mark.parametrize("name", ["paligemma-3b-224", "gemma-3-4b"])
def test_another_tower_than_the_measured_one_is_refused(name: str) -> None:
    model = find_model(name)
    assert model.vision is not None
    other = replace(model, vision=replace(model.vision, architecture="clip"))
    with pytest.raises(InputError, match="a tower 'clip' in it was not checked; one of siglip without"):
        encoder_moments(other, tokens=256)


def test_one_crop_an_image_where_nobody_says() -> None:
    model = find_model("llava-v1.6-mistral-7b")
    assert encoder_moments(model, tokens=600) == encoder_moments(model, crops=1, tokens=600)


def test_a_peak_of_one_byte_more_is_noticed() -> None:
    case = next(case for case in ASKED if case["config"]["model_type"] == "llava")
    one = case["passes"][0]
    peak = encoder_peak_bytes(build(case["config"]), one["images"], tokens=one["tokens"])
    assert peak == one["peak_bytes"] != one["peak_bytes"] + 1


def test_pixels_are_elements_of_four_bytes() -> None:
    assert pixel_bytes(100) == 400
    assert pixel_bytes(100, 3) == 1200
    assert pixel_bytes(100, 3, 2) == 600


def test_features_wait_in_the_decoders_width() -> None:
    llava = find_model("llava-1.5-7b")
    assert encoder_cache_bytes(llava, 576) == 576 * 4096 * 2
    assert encoder_cache_bytes(llava, 576, 4) == 576 * 4096 * 4
    # the last features, and those of three layers before
    assert encoder_cache_bytes("qwen3-vl-8b", 10) == 10 * 4096 * 4 * 2


def test_image_tokens_share_the_kv_cache() -> None:
    model = find_model("gemma-3-4b")
    assert image_kv_bytes(model, 2048, 256) == kv_cache_bytes(model, 2048) - kv_cache_bytes(model, 1792)
    # beyond the window only the full layers grow
    assert image_kv_bytes(model, 8192, 256) < image_kv_bytes(model, 512, 256)
    assert image_kv_bytes("llava-1.5-7b", 576, 576) == kv_cache_bytes("llava-1.5-7b", 576)
    assert image_kv_bytes("llava-1.5-7b", 600, 576, "fp8") == 576 * 262144
    # a recurrent state is there without an image too
    hybrid = find_model("qwen3.5-0.8b")
    assert image_kv_bytes(hybrid, 256, 256) == image_kv_bytes(hybrid, 257, 256)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: encoder_peak_bytes("llama-2-7b"), "not checked"),
        (lambda: encoder_peak_bytes("llama-3.2-11b-vision"), "were not checked"),
        (lambda: encoder_peak_bytes("llava-1.5-7b"), "tokens: None"),
        (lambda: encoder_peak_bytes("llava-1.5-7b", 0, tokens=576), "images: 0"),
        (lambda: encoder_peak_bytes("llava-1.5-7b", tokens=0), "tokens: 0"),
        (lambda: encoder_peak_bytes("llava-1.5-7b", tokens=576, crops=0), "crops: 0"),
        (lambda: encoder_peak_bytes("llava-1.5-7b", tokens=576, dtype="fp32"), "one of bf16, fp16"),
        (lambda: encoder_peak_bytes("pixtral-12b", tokens=576), "'pixtral' in it was not checked"),
        (lambda: encoder_peak_bytes("internvl3-38b", tokens=256), "without norms of heads"),
        (lambda: encoder_peak_bytes("qwen2-vl-7b"), "rows and columns"),
        (lambda: encoder_peak_bytes("qwen2-vl-7b", grid=(3, 4)), "3 rows .* multiple of 2"),
        (lambda: encoder_peak_bytes("qwen2-vl-7b", grid=(4, 5)), "5 columns .* multiple of 2"),
        (lambda: encoder_peak_bytes("qwen2-vl-7b", grid=(0, 4)), "grid: rows: 0"),
        (lambda: encoder_cache_bytes("llama-2-7b", 1), "has no vision tower"),
        (lambda: encoder_cache_bytes("llava-1.5-7b", 0), "tokens: 0"),
        (lambda: encoder_cache_bytes("llava-1.5-7b", 1, 0), "bytes_per_element: 0"),
        (lambda: pixel_bytes(0), "pixel_values: 0"),
        (lambda: pixel_bytes(1, 0), "images: 0"),
        (lambda: pixel_bytes(1, 1, 0), "bytes_per_element: 0"),
        (lambda: image_kv_bytes("llava-1.5-7b", 575, 576), "576 image tokens .* context of 575"),
        (lambda: image_kv_bytes("llava-1.5-7b", 575, 0), "tokens: 0"),
        (lambda: image_kv_bytes("llava-1.5-7b", 0, 1), "context: 0"),
    ],
)
def test_what_cannot_be_priced_is_one_line(call: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()
