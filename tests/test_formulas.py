"""The documents' rules under each reading, against arithmetic done by hand."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmmem.errors import InputError
from vlmmem.ledger import load
from vlmmem.ledger.conventions import Settings, conventions, literal
from vlmmem.ledger.formulas import FORMULAS, Arguments, Outcome
from vlmmem.memory import kv_cache_bytes
from vlmmem.units import Printed


def _printed(name: str) -> Printed:
    return Printed.parse({"footprint:a": "26 GB", "footprint:b": "66 GB"}[name])


def compute(formula: str, reading: Settings | None = None, **arguments: object) -> Outcome:
    return FORMULAS[formula].compute(Arguments("here", arguments, _printed), reading or literal())


def number(formula: str, reading: str | None = None, **arguments: object) -> Fraction:
    outcome = compute(formula, conventions()[reading].settings if reading else None, **arguments)
    assert outcome.low is not None
    return outcome.low


THIRTEEN: dict[str, Any] = {"model": "llama-2-13b", "context": "8k", "batch": 10}


@pytest.mark.parametrize(
    ("formula", "reading", "arguments", "value"),
    [
        # footprint line 60: 2 × 40 × 5,120 × 2 B, counted in KB of 1,000 or 1,024
        ("kv-per-token", None, {"model": "llama-2-13b"}, "819.2"),
        ("kv-per-token", "kb-is-kib", {"model": "llama-2-13b"}, "800"),
        ("kv-per-token", "kb-is-kib", {"model": "llama-2-13b", "tensors": 1}, "400"),
        # line 71: 800 × 8,192 × 10, KB as 1,000 B; a context written out is not read as k
        ("kv-cache", "kib-read-as-kb", {**THIRTEEN, "context": 8192}, "65.536"),
        ("kv-cache", "kib-read-as-kb", THIRTEEN, "64"),
        ("kv-cache", None, THIRTEEN, "67.10886400"),
        ("kv-cache", "kv-gib-as-gb", THIRTEEN, "62.5"),
        ("kv-cache", "k-is-1000", THIRTEEN, "65.536"),
        ("kv-cache", "request-rounded", THIRTEEN, "66"),
        ("kv-cache", "token-in-whole-kb", THIRTEEN, "65.52"),
        ("kv-cache", "token-in-hundredths-of-mb", THIRTEEN, "65.6"),
        # 8 of 64 heads keep keys and values
        ("kv-per-token", "kv-heads", {"model": "llama-3.1-70b"}, "327.68"),
        ("kv-per-token", None, {"model": "llama-3.1-70b"}, "2621.44"),
        # line 136: 1.1 × (26 + 64)
        ("total", "kib-read-as-kb", {**THIRTEEN, "format": "fp16", "share": "0.1"}, "99"),
        ("weights", None, {"model": "llama-2-13b", "format": "fp16"}, "26"),
        ("weights", "exact-parameters", {"model": "llama-2-13b", "format": "fp16"}, "26.031728640"),
        ("weights", None, {"model": "llama-2-13b", "format": "int4"}, "6.5"),
        ("weights-example", None, {"parameters": 7_000_000_000, "format": "fp16"}, "14"),
        ("share", None, {"share": "0.1", "of": ["footprint:a", "footprint:b"]}, "9.2"),
        ("sum", None, {"terms": ["footprint:a", "footprint:b", "9.2"]}, "101.2"),
        ("product", None, {"factors": [800, 8192, 10]}, "65536000"),
        ("drawn-cells", None, {"drawing": "████░░"}, "4"),
        ("quotient", None, {"of": "footprint:b", "to": 4}, "16.5"),
        ("saved", None, {"of": 1, "to": 4}, "75"),
        ("gpu-field", None, {"gpu": "a100-40gb", "field": "bandwidth", "in": "GB/s"}, "1555"),
        ("computed", None, {"expression": 'find_model("llama-2-70b").heads / 8'}, "8"),
        ("computed", None, {"expression": "2 * 40 * 5120 * 2", "in": "KiB"}, "800"),
        ("computed-rule", None, {"expression": "989 / 4"}, "247.25"),
        ("gpus-needed", None, {"total": "101.2", "gpu": "a100-40gb"}, "3"),
        ("gpus-needed", None, {"total": "80", "gpu": "a100-40gb"}, "2"),
        ("gpus-needed", None, {"total": "80.1", "gpu": "a100-40gb"}, "3"),
        ("model-field", None, {"model": "llama-2-13b", "field": "layers"}, "40"),
        ("parameter-count", None, {"model": "llama-2-13b"}, "13.015864320"),
        ("parameter-count", "nominal-parameters", {"model": "llama-2-13b"}, "13"),
        ("bytes-per-parameter", None, {"format": "int4"}, "0.5"),
        ("calc_kv_cache_memory_gb", None, dict(zip(
            ("num_layers", "num_heads", "head_dim", "seq_len", "batch_size", "dtype_bytes"), (80, 8, 128, 4096, 1, 2),
            strict=True)), "1.25"),
        ("calc_model_memory_gb", None, {"num_params": 2**33}, "16"),
        ("table-total", None, dict(zip(
            ("num_params", "num_layers", "num_heads", "head_dim", "seq_len", "batch_size", "dtype_bytes"),
            (2**33, 80, 8, 128, 4096, 4, 2), strict=True)), "21"),
        ("estimate_memory_gb", None, {"num_params_billions": 13, "sequence_length": 4096, "batch_size": 8,
            "num_layers": 40, "hidden_size": 5120}, "61.2"),
    ],
)  # fmt: skip
def test_a_rule_under_a_reading(formula: str, reading: str | None, arguments: dict[str, Any], value: str) -> None:
    assert number(formula, reading, **arguments) == Fraction(value)


@pytest.mark.parametrize(
    ("values", "limit", "at_most", "more_than"),
    [(["35.9", "57.6"], "80", True, False), (["86.7"], "80", False, True), (["80"], "80", True, False)],
)
def test_a_claim_is_an_inequality(values: list[str], limit: str, at_most: bool, more_than: bool) -> None:
    for claim, holds in (("at most", at_most), ("more than", more_than)):
        assert compute("comparison", values=values, limit=limit, claim=claim).holds is holds
        assert compute("comparison", values=values, gpu="a100-80gb", claim=claim).holds is holds


def test_a_claim_over_a_range_must_hold_at_both_ends() -> None:
    values = ["57.6", "86.7"]
    assert compute("comparison", values=values, limit="80", claim="at most").holds is False
    assert compute("comparison", values=values, limit="80", claim="more than").holds is False
    assert compute("comparison", values=values, limit="80", claim="at most").range == (
        Fraction("57.6"),
        Fraction("86.7"),
    )


@pytest.mark.parametrize(
    ("expression", "at_most", "more_than"),
    [("80", True, False), ("80 + 1", False, True), (["79", "81"], False, False), (["81", "82"], False, True)],
)
def test_a_computed_claim_is_an_inequality_over_both_ends(expression: Any, at_most: bool, more_than: bool) -> None:
    for claim, holds in (("at most", at_most), ("more than", more_than)):
        limit = 'find_gpu("a100-80gb").vendor_gb'
        assert compute("computed-claim", expression=expression, limit=limit, claim=claim).holds is holds


def test_a_total_at_half_the_precision_is_no_half_where_a_cache_is_in_it() -> None:
    # (13 x 4 x 0.5 + 66) x 1.2 = 110.4; (13 x 4 x 0.25 + 66) x 1.2 = 94.8
    arguments: dict[str, Any] = {"num_params_billions": 13, "of": "fp16", "to": "int8", "claimed": 2}
    with_cache = compute("total-memory-ratio", kv_cache_gb=66, **arguments)
    assert with_cache.low == Fraction("110.4") / Fraction("94.8")
    assert with_cache.holds is False
    assert compute("total-memory-ratio", kv_cache_gb=0, **arguments).holds is True


def test_a_ratio_holds_within_a_hundredth() -> None:
    assert compute("ratio", of="10", to="1", claimed=10).holds is True
    assert compute("ratio", of="10.1", to="1", claimed=10).holds is True
    assert compute("ratio", of="10.2", to="1", claimed=10).holds is False
    assert compute("ratio", of="2.1", to="1", claimed=10).holds is False


@given(st.integers(1, 200_000), st.integers(1, 64), st.sampled_from(["kib-read-as-kb", "all-gib", "kv-gib-as-gb"]))
def test_a_cache_is_linear_in_tokens_and_requests(tokens: int, batch: int, reading: str) -> None:
    one = number("kv-cache", reading, model="llama-2-7b", context=1)
    assert number("kv-cache", reading, model="llama-2-7b", context=tokens, batch=batch) == one * tokens * batch


def test_every_formula_names_its_place_and_kind() -> None:
    documents = load().documents
    for name, formula in FORMULAS.items():
        assert formula.id == name
        assert formula.kind in ("rule", "code", "fact")
        if formula.source == "the entry's line":
            continue
        document, _, line = formula.source.partition(":")
        assert formula.kind == "fact" or 1 <= int(line) <= documents[document].lines


@pytest.mark.parametrize(
    ("formula", "arguments", "line"),
    [
        ("weights", {"model": "llama-2-13b"}, "here: argument 'format' is missing"),
        ("weights", {"model": 7, "format": "fp16"}, "here: argument 'model' is 7; text is needed"),
        ("computed", {"expression": 8}, "here: argument 'expression' is 8; text or a list of texts is needed"),
        ("computed", {"expression": ["1", "2", "3"]}, "here: 'expression' has 3 values; one, or both ends of a range"),
        ("computed", {"expression": "8 +"}, "here: '8 +': not an expression"),
        (
            "computed-claim",
            {"expression": "8", "limit": "9", "claim": "near"},
            "here: argument 'claim' is 'near'; 'at most' or 'more than' is needed",
        ),
        ("quotient", {"of": 1, "to": 0}, "here: argument 'to' is 0; a number to divide by is needed"),
        ("gpu-field", {"gpu": "t4", "field": "name"}, "here: 'name' is not a whole-number field of a GPU"),
        ("kv-cache", {**THIRTEEN, "batch": "1.5"}, "here: argument 'batch' is 3/2; a whole number is needed"),
        (
            "kv-cache",
            {**THIRTEEN, "context": "8K"},
            "here: argument 'context' is '8K'; a whole number, a decimal in quotes or a figure's id is needed",
        ),
        (
            "kv-cache",
            {**THIRTEEN, "context": "²k"},
            "here: argument 'context' is '²k'; a whole number, a decimal in quotes or a figure's id is needed",
        ),
        (
            "kv-per-token",
            {"model": "llama-2-13b", "tensors": 3},
            "here: argument 'tensors' is 3; 1 (keys or values) or 2 is needed",
        ),
        ("sum", {"terms": []}, "here: argument 'terms' is []; a list of numbers is needed"),
        ("sum", {"terms": "1"}, "here: argument 'terms' is '1'; a list of numbers is needed"),
        (
            "sum",
            {"terms": [True]},
            "here: argument 'terms' is True; a whole number, a decimal in quotes or a figure's id is needed",
        ),
        (
            "sum",
            {"terms": ["1/3"]},
            "here: argument 'terms' is '1/3'; a whole number, a decimal in quotes or a figure's id is needed",
        ),
        (
            "comparison",
            {"values": [1], "limit": 2, "claim": "less"},
            "here: argument 'claim' is 'less'; 'at most' or 'more than' is needed",
        ),
        ("ratio", {"of": 1, "to": 0, "claimed": 1}, "here: argument 'to' is 0; a number to divide by is needed"),
        (
            "model-field",
            {"model": "llama-2-13b", "field": "name"},
            "here: 'name' is not a whole-number field of a model",
        ),
        (
            "model-field",
            {"model": "llama-2-13b", "field": "__class__"},
            "here: '__class__' is not a whole-number field of a model",
        ),
    ],
)
def test_a_fault_in_the_arguments_is_told(formula: str, arguments: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError) as caught:
        compute(formula, **arguments)
    assert str(caught.value) == line


def test_what_is_right_instead_names_both_bases() -> None:
    arguments = Arguments("here", {**THIRTEEN, "format": "fp16", "share": "0.1"}, _printed)
    right = FORMULAS["kv-cache"].right
    assert right is not None
    answer = right(arguments)
    assert answer.size == kv_cache_bytes("llama-2-13b", 8192, 10)
    assert answer.text == (
        "67.1 GB (62.5 GiB): KV cache of LLaMA-2 13B, 8,192 tokens × 10 requests, 16-bit; LLaMA-2 13B is made for"
        " 4,096 tokens"
    )
