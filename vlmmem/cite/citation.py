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


def _text(item: Figure) -> str:
    return f"{statement(item)}. vlmmem figure {item.id}, {load().documents[item.document].title!r}."


def _markdown(item: Figure) -> str:
    said = re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", statement(item))
    return f"{said.removesuffix(')')}, [vlmmem `{item.id}`](book/ledger.html#{item.anchor}))"


FORMATS: Mapping[str, Callable[[Figure], str]] = {"text": _text, "markdown": _markdown}
"""Every format in which a figure can be cited."""


def cite(figure_id: str, form: str = "text") -> str:
    """A citation of one figure. Raises InputError for an unknown figure or format."""
    if form not in FORMATS:
        raise InputError(f"format {form!r} is not known; one of {', '.join(FORMATS)}")
    return FORMATS[form](figure(figure_id))
