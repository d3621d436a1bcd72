"""The domain of figures: what one page notes is forgotten with it, and taken over from another process."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from vlmmem.sphinx.domain import FigureDomain, pages_in_order


@pytest.fixture
def domain() -> FigureDomain:
    domain = FigureDomain(cast("Any", SimpleNamespace(domaindata={})))
    domain.homes["footprint:a"] = ("book/ledger", "footprint-a", "1 GB", "")
    domain.uses.update({"one": {"footprint:a"}, "two": {"footprint:a"}})
    domain.lists.add("book/ledger")
    return domain


def test_a_page_that_is_read_again_is_forgotten_first(domain: FigureDomain) -> None:
    domain.clear_doc("one")
    assert set(domain.uses) == {"two"}
    assert domain.homes
    domain.clear_doc("book/ledger")
    assert not domain.homes
    assert not domain.lists


def test_only_the_pages_that_the_other_process_read_are_taken_over(domain: FigureDomain) -> None:
    other = {
        "figures": {"footprint:b": ("three", "b", "2 GB", ""), "footprint:c": ("four", "c", "3 GB", "")},
        "uses": {"three": {"footprint:b"}, "two": set()},
        "lists": {"three", "four"},
    }
    domain.merge_domaindata(["three"], other)
    assert set(domain.homes) == {"footprint:a", "footprint:b"}
    assert domain.uses == {"one": {"footprint:a"}, "two": {"footprint:a"}, "three": {"footprint:b"}}
    assert domain.lists == {"book/ledger", "three"}


def test_pages_come_in_the_order_of_the_contents() -> None:
    includes = {"index": ["a", "b"], "a": ["a1", "a2"], "a1": ["deep"], "b": ["a2", "b1"]}
    env = SimpleNamespace(config=SimpleNamespace(root_doc="index"), toctree_includes=includes)
    assert pages_in_order(cast("Any", env)) == ["index", "a", "a1", "deep", "a2", "b", "b1"]
