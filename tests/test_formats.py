"""Formats: bits a weight, scales and zeros included, against the tables that define them."""

from fractions import Fraction

import pytest

from vlmmem.catalog import find_format, formats
from vlmmem.errors import InputError
from vlmmem.formats import Format

BITS = {
    "fp32": Fraction(32),
    "fp16": Fraction(16),
    "bf16": Fraction(16),
    "fp8": Fraction(8),
    "int8": Fraction(8),
    "int4": Fraction(4),
    "gptq-4bit": Fraction("4.15625"),
    "awq-4bit": Fraction("4.15625"),
    "nf4": Fraction("4.5"),
    "llm.int8": Fraction(8),
    "mxfp4": Fraction("4.25"),
    "nvfp4": Fraction("4.5"),
}

# Bytes of a block as ggml lays it out: weights in the block, bytes of the block.
GGUF = {
    "q4_0": (32, 18),
    "q4_1": (32, 20),
    "q5_0": (32, 22),
    "q5_1": (32, 24),
    "q8_0": (32, 34),
    "iq4_nl": (32, 18),
    "q2_k": (256, 84),
    "q3_k": (256, 110),
    "q4_k": (256, 144),
    "q5_k": (256, 176),
    "q6_k": (256, 210),
    "q8_k": (256, 292),
    "iq4_xs": (256, 136),
}

# Formats of caches only.
CACHES = {"int8-per-token-head": "cache", "fp8-per-token-head": "cache", "fp8_ds_mla": "latent-cache"}


@pytest.mark.parametrize(("name", "bits"), BITS.items())
def test_bits(name: str, bits: Fraction) -> None:
    assert find_format(name).bits == bits


@pytest.mark.parametrize(("name", "block"), GGUF.items())
def test_gguf_blocks(name: str, block: tuple[int, int]) -> None:
    weights, size = block
    assert find_format(name).bits * weights == 8 * size
    assert find_format("gguf-" + name) is find_format(name)


def test_printed_decimals() -> None:
    # QLoRA prints 0.127 bits for the constants; DeepSeek's blocks cost 0.002.
    assert round(float(find_format("nf4-double-quant").bits), 3) == 4.127
    assert round(float(find_format("fp8-block128").bits), 3) == 8.002


def test_every_format_of_the_catalogue_is_tested() -> None:
    assert {number.id for number in formats()} == {*BITS, *GGUF, *CACHES, "nf4-double-quant", "fp8-block128"}


def test_the_formula_is_the_value() -> None:
    for number in formats():
        assert sum(Fraction(term) for term in number.formula.split(" + ")) == number.bits


def test_bytes_per_weight() -> None:
    assert find_format("bf16").bytes_per_weight == 2
    assert find_format("int4").bytes_per_weight == Fraction(1, 2)


def test_quantised_checkpoints_hold_only_the_linear_layers_so() -> None:
    scopes = {number.id: number.scope for number in formats()}
    assert scopes["bf16"] == "all"
    assert scopes["awq-4bit"] == scopes["nf4"] == scopes["fp8-block128"] == "decoder-linear"
    assert find_format("llm.int8").row_bits == 32
    assert {name: scope for name, scope in scopes.items() if "cache" in scope} == CACHES


def test_formats_of_caches() -> None:
    # vLLM adds a float32 for each token and head; DeepSeek's layout is one of bytes, 512 + 4 x 4 + 64 x 2.
    assert find_format("int8_per_token_head").row_bits == find_format("fp8_per_token_head").row_bits == 32
    assert dict(find_format("fp8_ds_mla").vectors) == {512 + 64: 512 + 4 * 4 + 64 * 2, 128: 128 + 4}
    blocks = {number.id: number.block for number in formats() if number.kv_cache and number.block > 1}
    legacy = dict.fromkeys(("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl"), 32)
    assert blocks == {"int4": 2, "nvfp4": 16, **legacy}


@pytest.mark.parametrize(
    ("bits", "scope", "message"),
    [
        (Fraction(0), "all", "x: 'bits' is 0; more than 0 is needed"),
        (Fraction(-4), "all", "x: 'bits' is -4; more than 0 is needed"),
        (
            Fraction(4),
            "some",
            "x: 'scope' is 'some'; one of all, decoder-linear, mixture, cache, latent-cache is needed",
        ),
    ],
)
def test_impossible_formats_are_refused(bits: Fraction, scope: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Format("x", "X", (), bits, scope=scope)
    assert str(caught.value) == message
