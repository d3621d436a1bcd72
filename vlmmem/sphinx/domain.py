"""Figures as targets: every one can be linked to, from this book and, through objects.inv, from any other.

``vlmmem:figure`` objects bear the figure's id and show the printed value; a ``std`` label of the same name has that
value as its title, so a project without this extension shows it with ``:external:ref:``.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.domains import Domain, ObjType
from sphinx.domains.std import StandardDomain
from sphinx.util.nodes import make_refnode

from vlmmem.ledger import Figure

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.builders import Builder
    from sphinx.environment import BuildEnvironment


def hint(figure: Figure) -> str:
    """Where a figure stands and what became of it: the tooltip of its links."""
    return f"{figure.document}, line {figure.line}: {figure.verdict}"


class FigureDomain(Domain):
    """The ledger's figures, each at home on the page that carries the ledger."""

    name = "vlmmem"
    label = "vlmmem"
    object_types = {"figure": ObjType("documented figure", "figure")}  # noqa: RUF012 - Sphinx declares it so
    initial_data: dict[str, Any] = {"figures": {}}  # noqa: RUF012
    data_version = 1

    @property
    def homes(self) -> dict[str, tuple[str, str, str, str]]:
        """Of each figure's id: page, anchor, printed text, tooltip."""
        return cast("dict[str, tuple[str, str, str, str]]", self.data["figures"])

    def note(self, figure: Figure) -> None:
        """Make this page the home of a figure."""
        page = self.env.docname
        self.homes[figure.id] = (page, figure.anchor, figure.documented, hint(figure))
        standard = cast("StandardDomain", self.env.get_domain("std"))
        standard.note_hyperlink_target(figure.id, page, figure.anchor, figure.documented)

    def clear_doc(self, docname: str) -> None:
        """Forget the figures of a page that is read again."""
        for name in [name for name, home in self.homes.items() if home[0] == docname]:
            del self.homes[name]

    def merge_domaindata(self, docnames: list[str], otherdata: dict[str, Any]) -> None:
        """Take the figures that another process read."""
        self.homes.update({name: home for name, home in otherdata["figures"].items() if home[0] in docnames})

    def resolve_xref(
        self,
        env: "BuildEnvironment",
        fromdocname: str,
        builder: "Builder",
        typ: str,
        target: str,
        node: pending_xref,
        contnode: nodes.Element,
    ) -> nodes.reference | None:
        """A link to the figure's entry, with where it stands and its verdict as tooltip."""
        if target not in self.homes:
            return None
        page, anchor, _, title = self.homes[target]
        return make_refnode(builder, fromdocname, page, anchor, [contnode], title)

    def resolve_any_xref(
        self,
        env: "BuildEnvironment",
        fromdocname: str,
        builder: "Builder",
        target: str,
        node: pending_xref,
        contnode: nodes.Element,
    ) -> list[tuple[str, nodes.Element]]:
        """The same, where the text does not say what kind of thing it names."""
        found = self.resolve_xref(env, fromdocname, builder, "figure", target, node, contnode)
        return [("vlmmem:figure", found)] if found else []

    def get_objects(self) -> Iterator[tuple[str, str, str, str, str, int]]:
        """What goes into objects.inv and the search index."""
        for name, (page, anchor, printed, _) in self.homes.items():
            yield name, printed, "figure", page, anchor, 1


def warn_missing(
    app: "Sphinx", env: "BuildEnvironment", node: pending_xref, contnode: nodes.Element
) -> nodes.Element | None:
    """Say so where a quoted figure has no page to link to."""
    from sphinx.util import logging

    if node.get("refdomain") != "vlmmem":
        return None
    logging.getLogger(__name__).warning(
        "figure %r has no entry in this book; a page with the {ledger} directive is needed",
        node["reftarget"],
        location=node,
        type="vlmmem",
        subtype="figure",
    )
    return contnode


def setup(app: "Sphinx") -> None:
    """Register the domain."""
    app.add_domain(FigureDomain)
    app.connect("missing-reference", warn_missing)
