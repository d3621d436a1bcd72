"""The roles that carry a value with its origin; the build compares the two."""

from typing import TYPE_CHECKING

from docutils import nodes
from docutils.nodes import Node, system_message
from sphinx.addnodes import pending_xref
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from vlmmem.cite.prose import Role, figure_of, find_roles, value_of
from vlmmem.errors import InputError
from vlmmem.ledger import figure

if TYPE_CHECKING:
    from sphinx.application import Sphinx

logger = logging.getLogger(__name__)

COMPUTED = "vlmmem-value"
"""Class of every node whose text comes from the ledger or from code."""


def _whole(text: str) -> list[str]:
    """The class that keeps a number and its unit on one line; a quoted sentence may break."""
    return ["vlmmem-whole"] if len(text) <= 16 else []


def link(figure_id: str, text: str, docname: str, *classes: str) -> pending_xref:
    """A link to a figure's entry that reads ``text``."""
    # To the letter: a quoted flag keeps its two hyphens, a quoted string its straight quotes.
    label = nodes.inline(text, text, classes=[COMPUTED, *classes, *_whole(text)], support_smartquotes=False)
    return pending_xref(
        text,
        label,
        refdomain="vlmmem",
        reftype="figure",
        reftarget=figure_id,
        refdoc=docname,
        refexplicit=True,
        refwarn=True,
    )


class _ValueRole(SphinxRole):
    """What both roles share: reading the text, and comparing it with its origin."""

    kind = ""

    def run(self) -> tuple[list[Node], list[system_message]]:
        """The value as it should read; a warning that names page and line where it reads otherwise."""
        found = find_roles(f"{{{self.kind}}}`{self.text}`")
        if not found:
            self.complain(
                f"{{{self.kind}}}`{self.text}` is not VALUE <ORIGIN>; write the readable value before its origin"
            )
            return [nodes.inline(self.text, self.text, classes=[COMPUTED])], []
        role = found[0]
        try:
            right = value_of(role)
            if right != role.readable:
                self.complain(f"reads {role.readable!r}, {role.target} gives {right!r}; 'make fix' rewrites it")
            return [self.node(role)], []
        except InputError as error:
            self.complain(str(error))
            return [nodes.inline(role.readable, role.readable, classes=[COMPUTED])], []

    def complain(self, text: str) -> None:
        """Warn at the role's own line."""
        logger.warning("%s", text, location=self.get_location(), type="vlmmem", subtype="value")

    def node(self, role: Role) -> nodes.Node:
        """What the page shows."""
        raise NotImplementedError


class FigRole(_ValueRole):
    """A figure as documented, recomputed or corrected, linked to its entry."""

    kind = "fig"

    def node(self, role: Role) -> nodes.Node:
        """A link whose class names the verdict."""
        item = figure(figure_of(role))
        field = role.target.removeprefix(item.id).lstrip(".") or "documented"
        return link(item.id, role.readable, self.env.docname, "vlmmem-fig", field, f"verdict-{item.verdict}")


class CalcRole(_ValueRole):
    """A value of the package, its expression as tooltip."""

    kind = "calc"

    def node(self, role: Role) -> nodes.Node:
        """An abbreviation, whose explanation every browser shows."""
        return nodes.abbreviation(
            role.readable,
            role.readable,
            classes=[COMPUTED, "vlmmem-calc", *_whole(role.readable)],
            explanation=role.target,
        )


class VerdictRole(SphinxRole):
    """A verdict as a badge."""

    def run(self) -> tuple[list[Node], list[system_message]]:
        """The badge; a warning where there is no such verdict."""
        from vlmmem.ledger import VERDICTS

        if self.text not in VERDICTS:
            logger.warning(
                "verdict %r is not known; one of %s",
                self.text,
                ", ".join(VERDICTS),
                location=self.get_location(),
                type="vlmmem",
                subtype="value",
            )
        return [nodes.inline(self.text, self.text, classes=["vlmmem-verdict", f"verdict-{self.text}"])], []


class PublishedRole(SphinxRole):
    """A link to a file that the build writes beside the pages."""

    def run(self) -> tuple[list[Node], list[system_message]]:
        """The link, relative to the page; a warning where the build writes no such file."""
        from vlmmem.sphinx.site import PUBLISHED

        if self.text not in PUBLISHED:
            logger.warning(
                "file %r is not published; one of %s",
                self.text,
                ", ".join(PUBLISHED),
                location=self.get_location(),
                type="vlmmem",
                subtype="value",
            )
        address = "../" * self.env.docname.count("/") + self.text
        return [nodes.reference(self.text, self.text, internal=True, refuri=address)], []


def setup(app: "Sphinx") -> None:
    """Register the roles."""
    app.add_role("published", PublishedRole())
    app.add_role("fig", FigRole())
    app.add_role("calc", CalcRole())
    app.add_role("verdict", VerdictRole())
