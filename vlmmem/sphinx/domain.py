"""Figures as targets: every one can be linked to, from this book and, through objects.inv, from any other.

``vlmmem:figure`` objects bear the figure's id and show the printed value; a ``std`` label of the same name has that
value as its title, so a project without this extension shows it with ``:external:ref:``.
"""

from collections.abc import Iterator
from html import escape
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


class explained(nodes.General, nodes.Element):  # noqa: N801 - docutils names node classes so
    """Stands in a figure's entry for the pages that explain it, which are known when all are read."""


class FigureDomain(Domain):
    """The ledger's figures, each at home on the page that carries the ledger."""

    name = "vlmmem"
    label = "vlmmem"
    object_types = {"figure": ObjType("documented figure", "figure")}  # noqa: RUF012 - Sphinx declares it so
    initial_data: dict[str, Any] = {"figures": {}, "uses": {}, "lists": set()}  # noqa: RUF012
    data_version = 2

    @property
    def homes(self) -> dict[str, tuple[str, str, str, str]]:
        """Of each figure's id: page, anchor, printed text, tooltip."""
        return cast("dict[str, tuple[str, str, str, str]]", self.data["figures"])

    @property
    def uses(self) -> dict[str, set[str]]:
        """Of each page that quotes figures: their ids."""
        return cast("dict[str, set[str]]", self.data["uses"])

    @property
    def lists(self) -> set[str]:
        """Pages that list figures, and so explain none."""
        return cast("set[str]", self.data["lists"])

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
        self.uses.pop(docname, None)
        self.lists.discard(docname)

    def merge_domaindata(self, docnames: list[str], otherdata: dict[str, Any]) -> None:
        """Take the figures that another process read."""
        self.homes.update({name: home for name, home in otherdata["figures"].items() if home[0] in docnames})
        self.uses.update({name: used for name, used in otherdata["uses"].items() if name in docnames})
        self.lists.update(otherdata["lists"] & set(docnames))

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


def gather(app: "Sphinx", doctree: nodes.document) -> None:
    """Note which figures a page quotes, in its text, its tables or what its cells displayed."""
    domain, page = cast("FigureDomain", app.env.get_domain("vlmmem")), app.env.docname
    quoted = {node["reftarget"] for node in doctree.findall(pending_xref) if node.get("refdomain") == "vlmmem"}
    if quoted and page not in domain.lists:
        domain.uses[page] = quoted


def pages_in_order(env: "BuildEnvironment") -> list[str]:
    """Every page, in the order in which the table of contents leads through them."""
    ordered, found = [env.config.root_doc], 0
    while found < len(ordered):
        below = [name for name in env.toctree_includes.get(ordered[found], []) if name not in ordered]
        ordered[found + 1 : found + 1] = below
        found += 1
    return ordered


def explain(app: "Sphinx", doctree: nodes.document, docname: str) -> None:
    """Put into each entry links to the pages that quote the figure, in the order of the book."""
    places = list(doctree.findall(explained))
    if not places:
        return
    env = app.env
    uses = cast("FigureDomain", env.get_domain("vlmmem")).uses
    pages = [page for page in pages_in_order(env) if page in uses and page != docname]
    for place in places:
        links = [
            f'<a href="{escape(app.builder.get_relative_uri(docname, page))}">{escape(env.titles[page].astext())}</a>'
            for page in pages
            if place["figure"] in uses[page]
        ]
        told = f'<p class="vlmmem-explained">Explained in: {", ".join(links)}</p>' if links else ""
        place.replace_self(nodes.raw("", told, format="html"))


def again(app: "Sphinx", env: "BuildEnvironment") -> list[str]:
    """The pages that carry entries are written again whenever any page was read: its links may have changed."""
    return sorted({home[0] for home in cast("FigureDomain", env.get_domain("vlmmem")).homes.values()})


def setup(app: "Sphinx") -> None:
    """Register the domain, and the way back from a figure to the pages that explain it."""
    app.add_domain(FigureDomain)
    app.add_node(explained)
    app.connect("doctree-read", gather)
    app.connect("env-updated", again)
    app.connect("doctree-resolved", explain)
    app.connect("missing-reference", warn_missing)
