"""Citations of verified figures, for documents of other people."""

import re
from collections.abc import Callable, Mapping

from vlmmem.errors import InputError
from vlmmem.ledger import ERRATA, Figure, figure, load


def statement(item: Figure) -> str:
    """What may be said of a figure, in one sentence: the value to use, and what the document printed.

    >>> statement(figure("inference:70b-kv")).startswith("1.34 GB (1.25 GiB)")
    True
    """
    printed = f"{item.document} line {item.line} prints {item.documented}: {item.verdict}"
    if item.correct:
        return f"{item.correct} ({printed})"
    return f"nothing to use instead ({printed})" if item.verdict in ERRATA else f"{item.documented} ({printed})"


def _entry(item: Figure, book: str | None) -> str | None:
    """The address of the figure's entry in a book that is published at ``book``."""
    return f"{book.rstrip('/')}/book/ledger.html#{item.anchor}" if book else None


def _text(item: Figure, book: str | None) -> str:
    address = _entry(item, book)
    title = load().documents[item.document].title
    return f"{statement(item)}. vlmmem figure {item.id}, {title!r}{f', {address}' if address else ''}."


def _markdown(item: Figure, book: str | None) -> str:
    said = re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", statement(item))
    address = _entry(item, book)
    name = f"vlmmem `{item.id}`"
    return f"{said.removesuffix(')')}, {f'[{name}]({address})' if address else name})"


FORMATS: Mapping[str, Callable[[Figure, str | None], str]] = {"text": _text, "markdown": _markdown}
"""Every format in which a figure can be cited."""


def cite(figure_id: str, form: str = "text", book: str | None = None) -> str:
    """A citation of one figure.

    Args:
        figure_id: such as "footprint:13b-total".
        form: "text" or "markdown".
        book: address at which the book is published, for a link to the figure's entry.

    Raises InputError for an unknown figure or format, or an address that is none.

    >>> cite("footprint:13b-kv-token", "markdown", "https://example.org/vlmmem").rpartition("(")[2]
    'https://example.org/vlmmem/book/ledger.html#footprint-13b-kv-token))'
    """
    if form not in FORMATS:
        raise InputError(f"format {form!r} is not known; one of {', '.join(FORMATS)}")
    if book is not None and not re.fullmatch(r"https?://[^\s()<>]+", book):
        raise InputError(f"book {book!r} is not an address; one such as https://example.org/book is needed")
    return FORMATS[form](figure(figure_id), book)
