"""The Sphinx extension: figures and computed values in the text, the ledger's pages, and a build that fails on drift.

Put ``vlmmem.sphinx`` among the extensions. ``{fig}`` and ``{calc}`` then render a value that the build has compared
with its origin; ``{ledger}``, ``{errata}``, ``{disagreements}``, ``{tally}``, ``{figure-table}``, ``{documents}``,
``{conventions}``, ``{fit}``, ``{speed}`` and ``{versions}`` are generated; a quantity typed by hand is a warning, and
``-W`` makes it an error.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["setup"]


def setup(app: "Sphinx") -> dict[str, Any]:
    """Register roles, directives, the domain of figures, the gate on typed quantities, and what pages need offline."""
    from vlmmem import __version__
    from vlmmem.sphinx import directives, domain, errata, execution, gate, roles, site

    for room in (domain, roles, directives, errata, gate, site, execution):
        room.setup(app)
    return {"version": __version__, "parallel_read_safe": True, "parallel_write_safe": True}
