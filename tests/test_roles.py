"""The roles' nodes, without a build."""

import pytest
from sphinx.util.nodes import is_smartquotable

from vlmmem.sphinx.roles import link


@pytest.mark.parametrize("text", ["--dtype bfloat16", '"max_tokens": 512', "101.2 GB"])
def test_a_quotation_is_kept_to_the_letter(text: str) -> None:
    node = link("footprint:13b-total", text, "page")
    assert node.astext() == text
    (words,) = node.findall(lambda each: not each.children)
    assert not is_smartquotable(words)
