"""Citations of figures: the value to use, what was printed, and where to look it up."""

import pytest

from vlmmem.cite.citation import FORMATS, cite, statement
from vlmmem.errors import InputError
from vlmmem.ledger import ERRATA, figure, load

RIGHT = (
    "1.34 GB (1.25 GiB): KV cache of Llama-3.1-70B, 4,096 tokens × 1 request, 16-bit"
    " (inference line 92 prints 0.50 GB: contradicted"
)


def test_as_text() -> None:
    title = load().documents["inference"].title
    assert cite("inference:70b-kv") == f"{RIGHT}). vlmmem figure inference:70b-kv, {title!r}."
    assert cite("inference:70b-kv", "text") == cite("inference:70b-kv")


def test_as_markdown() -> None:
    assert cite("inference:70b-kv", "markdown") == f"{RIGHT}, vlmmem `inference:70b-kv`)"


def test_a_published_book_is_linked() -> None:
    entry = "https://example.org/b/book/ledger.html#inference-70b-kv"
    assert cite("inference:70b-kv", "markdown", "https://example.org/b/") == (
        f"{RIGHT}, [vlmmem `inference:70b-kv`]({entry}))"
    )
    assert cite("inference:70b-kv", "text", "https://example.org/b").endswith(f", {entry}.")


@pytest.mark.parametrize("book", ["", "example.org", "https://a b", "javascript:alert(1)", "https://a)b"])
def test_an_address_that_is_none_is_told(book: str) -> None:
    with pytest.raises(InputError, match=r"is not an address; one such as https://example\.org/book is needed"):
        cite("inference:70b-kv", "markdown", book)


def test_code_of_a_document_stays_what_it_is_in_markdown() -> None:
    assert r"prints head\_dim=128: sourced" in cite("inference:70b-head-dim", "markdown")
    assert r"(1024 \*\* 3)" in cite("inference:kv-unit", "markdown")


def test_a_figure_that_stands_is_cited_as_printed() -> None:
    assert cite("inference:70b-head-dim").startswith("head_dim=128 (inference line 82 prints head_dim=128: sourced)")


@pytest.mark.parametrize("form", FORMATS)
def test_every_figure_can_be_cited(form: str) -> None:
    for item in load().figures:
        said = cite(item.id, form)
        assert "\n" not in said
        assert item.id in said
        assert f"{item.document} line {item.line} prints " in said
        assert "{" + "calc}" not in said


def test_an_erratum_is_never_cited_as_the_value() -> None:
    for item in load().figures:
        if item.verdict in ERRATA:
            instead = item.correct or "nothing to use instead"
            assert statement(item).startswith(f"{instead} ({item.document} line {item.line} prints ")


@pytest.mark.parametrize(
    ("figure_id", "form", "line"),
    [
        ("footprint:13b-total", "pdf", "format 'pdf' is not known; one of text, markdown"),
        ("@@@@", "text", "figure '@@@@' is not in the ledger; nearest: none"),
        ("@@@@", "pdf", "format 'pdf' is not known; one of text, markdown"),
    ],
)
def test_what_is_not_there_is_told(figure_id: str, form: str, line: str) -> None:
    with pytest.raises(InputError) as caught:
        cite(figure_id, form)
    assert str(caught.value) == line


def test_the_statement_names_the_documents_text() -> None:
    item = figure("footprint:13b-total")
    assert statement(item) == f"{item.correct} (footprint line 115 prints 101.2 GB: reproduced)"
