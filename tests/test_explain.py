"""Which conventions print a value: the right one first, none where none does, and how easily luck would do it."""

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

import pytest

from vlmmem.errors import InputError
from vlmmem.ledger import load
from vlmmem.ledger.explain import MOST, SHARES, Explanation, explain


@lru_cache
def open_search(value: str) -> Explanation:
    """A search over every model, context and batch takes a second: once for all tests."""
    return explain(value)


@pytest.mark.slow
def test_the_famous_cell_is_explained_first() -> None:
    answer = open_search("99.0GB")
    first = answer.hits[0]
    assert (first.convention, first.formula, first.value) == ("kib-read-as-kb", "total", Fraction(99))
    assert first.arguments == {
        "model": "llama-2-13b",
        "context": "8k",
        "batch": 10,
        "format": "fp16",
        "share": "0.1",
    }
    # of the 16 cells of its table the convention prints this one and its neighbour at 4k
    assert (first.cells, first.of) == (2, 16)
    assert answer.table == "requirements-x10"
    assert answer.figures == ("footprint:13b-8k-x10",)


def test_an_open_search_says_how_easily_luck_hits() -> None:
    answer = open_search("99.0GB")
    assert len(answer.hits) > 1
    assert Fraction(1, 2) < answer.chance < 1  # over every model, context and batch: a hit alone says nothing
    narrow = explain("99.0GB", "llama-2-13b", 8192, 10)
    assert narrow.chance < Fraction(5, 100)
    assert narrow.searched < answer.searched / 100


def test_a_known_case_has_one_explanation() -> None:
    answer = explain("99.0GB", "llama-2-13b", 8192, 10)
    assert [(hit.convention, hit.arguments["context"]) for hit in answer.hits] == [("kib-read-as-kb", "8k")]


def test_hub_ids_mean_the_same() -> None:
    assert (
        explain("99.0GB", "meta-llama/Llama-2-13b-hf", 8192, 10).hits == explain("99.0GB", "llama-2-13b", 8192, 10).hits
    )


def test_where_no_convention_prints_it_there_is_no_answer() -> None:
    answer = explain("114.5GB", "opt-30b", 32768, 1)
    assert answer.hits == ()
    assert answer.figures == ("footprint:30b-32k-x1",)
    assert answer.table == "requirements-x1"


def test_where_the_literal_reading_prints_it_no_convention_is_named() -> None:
    hits = [
        (hit.convention, hit.arguments["format"])
        for hit in explain("26GB", "llama-2-13b").hits
        if hit.formula == "weights"
    ]
    assert hits == [("literal", "fp16")]


def test_bytes_a_token() -> None:
    answer = explain("800KB", "llama-2-13b")
    assert [(hit.convention, hit.formula, hit.cells) for hit in answer.hits] == [("kb-is-kib", "kv-per-token", 3)]
    assert answer.figures == ("footprint:13b-kv-token",)
    assert [hit.convention for hit in explain("819.2 KB", "llama-2-13b").hits] == ["literal"]


def test_a_unit_that_names_its_base_keeps_it() -> None:
    assert {hit.convention for hit in explain("62.5GiB", "llama-2-13b", 8192, 10).hits} == {"all-gib"}
    assert {hit.convention for hit in explain("800KiB", "llama-2-13b").hits} == {"kb-is-kib"}
    assert explain("67.1GiB", "llama-2-13b", 8192, 10).hits == ()
    conventions = {hit.convention for hit in explain("62.5GB", "llama-2-13b", 8192, 10).hits}
    assert {"all-gib", "kv-gib-as-gb"} <= conventions


@pytest.mark.slow
def test_every_cell_that_rests_on_a_convention_is_explained_by_it() -> None:
    """For each cell of both tables, with its case known, its own convention is among the hits, and first in rank."""
    for item in (*load().table("requirements-x1"), *load().table("requirements-x10")):
        arguments = item.arguments
        context = int(str(arguments["context"]).removesuffix("k")) * 1024
        answer = explain(item.documented, str(arguments["model"]), context, int(arguments["batch"]))
        if item.verdict == "wrong":
            assert answer.hits == (), item.id
        else:
            ours = [
                hit
                for hit in answer.hits
                if hit.arguments.get("share") == arguments["share"] and hit.arguments["context"] == arguments["context"]
            ]
            assert (item.convention or "literal") in [hit.convention for hit in ours], item.id
            # one that prints more cells of the table may stand before it, never one that prints fewer
            first = next(hit for hit in ours if hit.convention == (item.convention or "literal"))
            assert all(hit.cells >= first.cells for hit in answer.hits[: answer.hits.index(first)]), item.id


def test_hits_print_the_digits() -> None:
    for hit in open_search("99.0GB").hits:
        assert abs(hit.value - 99) <= Fraction(1, 20)
        assert hit.arguments.get("share", "0.1") in SHARES


def test_as_json() -> None:
    answer = explain("99.0GB", "llama-2-13b", 8192, 10).json()
    assert answer["hits"] == [
        {
            "convention": "kib-read-as-kb",
            "formula": "total",
            "arguments": {"model": "llama-2-13b", "context": "8k", "batch": 10, "format": "fp16", "share": "0.1"},
            "value": 99.0,
            "cells_printed": 2,
            "cells": 16,
        }
    ]
    assert {name: type(value) for name, value in answer.items()} == {
        "value": str,
        "hits": list,
        "readings_searched": int,
        "chance_of_a_hit_by_luck": float,
        "table": str,
        "figures": list,
    }


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: explain("99.0"), "'99.0': a value with its unit is needed, such as 99.0GB or 800KB"),
        (lambda: explain("99.0 MB"), "'99.0 MB': a value with its unit is needed, such as 99.0GB or 800KB"),
        (lambda: explain("much"), "'much': no number; something like '65.5 GB' or '5-10%' is needed"),
        (lambda: explain("5-10 GB"), "'5-10 GB': one value above zero is needed, such as 99.0GB"),
        (lambda: explain("0.0 GB"), "'0.0 GB': one value above zero is needed, such as 99.0GB"),
        (
            lambda: explain("99.0GB", context=0),
            f"--context is 0; a whole number from 1 to {MOST:,} is needed",
        ),
        (
            lambda: explain("99.0GB", batch=10**30),
            f"--batch is {10**30}; a whole number from 1 to {MOST:,} is needed",
        ),
    ],
)
def test_what_cannot_be_searched_is_told(call: Callable[[], object], line: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == line


def test_an_unknown_model_is_told() -> None:
    with pytest.raises(InputError, match=r"^model 'llama-9' is not in the catalogue; near are "):
        explain("99.0GB", "llama-9")
