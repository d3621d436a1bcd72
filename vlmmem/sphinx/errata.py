"""The pages of what not to use: errata by what they cost, and the statements that disagree; and how many there are."""

import re
from collections import Counter
from html import escape
from typing import TYPE_CHECKING

from docutils import nodes

from vlmmem.ledger import CAUSES, ERRATA, VERDICTS, Figure, load
from vlmmem.ledger.conventions import conventions
from vlmmem.ledger.errata import Defect, Disagreement, dear, defects, disagreements
from vlmmem.notebook import recomputed
from vlmmem.sphinx.directives import Generated, badge

if TYPE_CHECKING:
    from sphinx.application import Sphinx

MOST = 5
"""Defects that the summary names."""
MOST_OPEN = 3
"""Sides of a disagreement whose notes stand open beside one another."""


def card(figure: Figure) -> str:
    """Anchor of an erratum on its page."""
    return f"erratum-{figure.anchor}"


def costs(figure: Figure) -> str:
    """What an erratum costs, with the case for which it is counted; a dash where no bytes follow."""
    if figure.cost is None:
        return "&ndash;"
    case = f' <span class="vlmmem-case">({escape(figure.cost.case)})</span>' if figure.cost.case else ""
    return escape(figure.cost.text) + case


def _lines(figures: tuple[Figure, ...]) -> str:
    ends = sorted({figures[0].line, figures[-1].line})
    return f"line{'s' if len(ends) > 1 else ''} {'–'.join(map(str, ends))}"


class SummaryDirective(Generated):
    """How many errata there are, the dearest, and how many by cause; each leads to its place on the page."""

    def run(self) -> list[nodes.Node]:
        """Before the list: what a reader in a hurry needs."""
        ledger, found = load(), defects(load())
        errata = [item for defect in found for item in defect.figures]
        by_document = Counter(item.document for item in errata)
        every = Counter(item.document for item in ledger.figures)
        shares = ", ".join(
            f'<a href="?document={name}">{name}</a> {by_document[name]} of {every[name]}' for name in ledger.documents
        )
        dearest = "".join(
            f'<li><a href="#{card(item)}">{escape(item.documented)}</a> ({item.document}, line {item.line}'
            f"{', ' + escape(item.cell) if item.cell else ''}): {costs(item)}</li>"
            for item in (defect.worst for defect in found[:MOST])
        )
        by_cause = Counter(item.cause for item in errata)
        rows = [
            (
                f'<a href="?cause={escape(cause.replace(" ", "+"))}">{escape(cause)}</a>',
                escape(meaning),
                str(by_cause[cause]),
                next((costs(defect.worst) for defect in found if defect.cause == cause), "&ndash;"),
            )
            for cause, meaning in CAUSES.items()
            if by_cause[cause]
        ]
        return [
            self.raw(
                f"<p><strong>{len(errata)}</strong> of {len(ledger.figures)} figures are errata: {shares}. Those that"
                f" went wrong together stand together, so there are {len(found)} defects.</p>"
                f"<p>The dearest to plan with:</p><ol>{dearest}</ol><p>By cause:</p>"
            ),
            *self.table(("Cause", "What went wrong", "Errata", "The dearest costs"), rows, "vlmmem-cards"),
        ]


class ErrataDirective(Generated):
    """The defects of one document, or of all, the dearest first; the page's script filters."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The controls, and a card a defect."""
        ledger = load()
        wanted = self.arguments[0] if self.arguments else None
        if wanted is not None and wanted not in ledger.documents:
            raise self.error(f"document {wanted!r} is not in the ledger; one of {', '.join(ledger.documents)}")
        found = [item for item in defects(ledger) if wanted in (None, item.document)]
        if not found:
            return [self.raw("<p>None found so far.</p>")]
        self.domain.lists.add(self.env.docname)
        causes = {item.cause for item in found}
        choices = {
            "document": [name for name in ledger.documents if any(name == item.document for item in found)],
            "cause": [cause for cause in CAUSES if cause in causes],
        }
        return [
            self.controls(".vlmmem-erratum", "defects", choices),
            *(node for defect in found for node in self._card(defect)),
        ]

    def _card(self, defect: Defect) -> list[nodes.Node]:
        item = defect.worst
        badges = " ".join(badge(verdict) for verdict in VERDICTS if any(f.verdict == verdict for f in defect.figures))
        place = escape(", ".join(filter(None, (item.section, item.cell))))
        several = len(defect.figures) > 1
        found: list[nodes.Node] = [
            self.raw(
                f'<article id="{card(item)}" class="vlmmem-erratum verdict-{item.verdict}"'
                f' data-document="{item.document}" data-cause="{escape(defect.cause)}"><header>'
                f'{badges} <span class="vlmmem-where">{item.document}, {_lines(defect.figures)}, {place}</span>'
                "</header><dl><dt>printed</dt><dd>"
            ),
            self.to(item),
            self.raw("</dd>"),
        ]
        value = recomputed(item)
        if value and re.search(r"\d", item.documented):  # of a sentence without a number the note says what comes out
            found += [self.raw(f"<dt>recomputed</dt><dd><p>{escape(value)}</p></dd>")]
        if item.correct_markup:
            found += [self.raw("<dt>use instead</dt><dd>"), *self.correct(item), self.raw("</dd>")]
        if item.cost:
            found += [self.raw(f"<dt>costs</dt><dd><p>{costs(item)}</p></dd>")]
        meaning = escape(CAUSES.get(defect.cause, ""))
        found += [self.raw(f"<dt>why</dt><dd><p><strong>{escape(defect.cause)}</strong>: {meaning}.</p>")]
        found += [*self.markdown(item.note_text, item.where), self.raw("</dd></dl>")]
        if several:
            found += self._cells(defect)
        return [*found, self.raw("</article>")]

    def _cells(self, defect: Defect) -> list[nodes.Node]:
        """Every entry of a defect, folded: where, printed, right, cost, and its own note where that says more."""
        told = defect.notes[1:]
        found: list[nodes.Node] = [
            self.raw(
                f"<details><summary>All {len(defect.figures)} that went wrong like this</summary>"
                '<div class="vlmmem-scroll"><table class="table vlmmem-table vlmmem-cells"><thead><tr>'
                '<th scope="col">Where</th><th scope="col">Printed</th><th scope="col">Use instead</th>'
                '<th scope="col">Costs</th></tr></thead><tbody>'
            )
        ]
        for item in defect.figures:
            anchor = "" if item is defect.worst else f' id="{card(item)}"'
            where = escape(", ".join(filter(None, (f"L{item.line}", item.cell))))
            found += [
                self.raw(f"<tr{anchor}><td>{where}</td><td>"),
                self.to(item),
                self.raw("</td><td>"),
                *(self.correct(item) if item.correct_markup else [self.raw("&ndash;")]),
                *(self.markdown(item.note_text, item.where) if item in told else []),
                self.raw(f"</td><td>{costs(item)}</td></tr>"),
            ]
        return [*found, self.raw("</tbody></table></div></details>")]


class DearDirective(Generated):
    """Figures that stand by their document's rule, or as a convention, and would cost a planner whole GPUs."""

    def run(self) -> list[nodes.Node]:
        """A row a figure: printed, right, what parts them, and why."""
        found = dear(load())
        if not found:
            return [self.raw("<p>None found so far.</p>")]
        headings = ("Printed", "Costs", "Why", "Use instead")
        head = "".join(f'<th scope="col">{text}</th>' for text in headings)
        printed, costly, why, instead = (f'<td data-label="{text}">' for text in headings)
        rows: list[nodes.Node] = []
        for item in found:
            difference = escape(item.difference.text if item.difference else "")
            reason = escape(item.difference_why) or "&ndash;"
            where = escape(", ".join(filter(None, (f"{item.document}, line {item.line}", item.cell))))
            rows += [
                self.raw(f'<tr id="dear-{item.anchor}">{printed}<div>'),
                self.to(item),
                self.raw(f'<p>{badge(item.verdict)} <span class="vlmmem-where">{where}</span></p></div></td>'),
                self.raw(f"{costly}{difference}</td>{why}{reason}</td>{instead}<div>"),
                *self.correct(item),
                self.raw("</div></td></tr>"),
            ]
        table = '<div class="vlmmem-scroll"><table class="table vlmmem-table vlmmem-cards">'
        return [
            self.raw(f"{table}<thead><tr>{head}</tr></thead><tbody>"),
            *rows,
            self.raw("</tbody></table></div>"),
        ]


class DisagreementsDirective(Generated):
    """Where the documents disagree: both sides, who breaks whose rule, and which to use."""

    def run(self) -> list[nodes.Node]:
        """A card a disagreement."""
        found = disagreements(load())
        if not found:
            return [self.raw("<p>None found so far.</p>")]
        self.domain.lists.add(self.env.docname)
        across = sum(len(each.documents) > 1 for each in found)
        told = (
            f"<p><strong>{len(found)}</strong> places: {len(found) - across} within one document,"
            f" {across} between documents.</p>"
        )
        names = list(load().documents)
        links = "".join(f'<li><a href="#disagreement-{each.anchor}">{escape(_title(each))}</a></li>' for each in found)
        return [
            self.raw(f"{told}<details><summary>All of them</summary><ol>{links}</ol></details>"),
            self.controls(".vlmmem-disagreement", "disagreements", {"document": names}),
            *(node for each in found for node in self._card(each)),
        ]

    def _card(self, each: Disagreement) -> list[nodes.Node]:
        title = f'{escape(_title(each))} <span class="vlmmem-where">{_parties(each)}</span>'
        anchor = f"disagreement-{each.anchor}"
        found: list[nodes.Node] = [
            self.raw(
                f'<article id="{anchor}" class="vlmmem-disagreement" data-document="{",".join(each.documents)}">'
                f'<header><a href="#{anchor}">{title}</a></header><div class="vlmmem-sides">'
            )
        ]
        many = len(each.figures) > MOST_OPEN
        for item in each.figures:
            place = escape(", ".join(filter(None, (item.section, item.cell))))
            found += [
                self.raw(
                    f'<div class="vlmmem-side verdict-{item.verdict}"><p>{badge(item.verdict)}'
                    f' <span class="vlmmem-where">{item.document}, line {item.line}, {place}</span></p>'
                ),
                self.to(item),
                *self._breaks(item, each),
                *([self.raw("<details><summary>Why</summary>")] if many else []),
                *self.markdown(item.note_text, item.where),
                self.raw("</details></div>" if many else "</div>"),
            ]
        return [*found, self.raw("</div>"), *self._use(each), self.raw("</article>")]

    def _breaks(self, item: Figure, each: Disagreement) -> list[nodes.Node]:
        other = next((side for side in each.figures if side.id == item.breaks), None)
        if other is None:
            return []
        return [
            self.raw(f"<p><strong>It breaks</strong> what line {other.line} of {other.document} says:</p>"),
            self.to(other),
        ]

    def _use(self, each: Disagreement) -> list[nodes.Node]:
        """What to use: what is right, once for all sides that it replaces, or the side that stands."""
        found: list[nodes.Node] = [self.raw('<div class="vlmmem-use"><p><strong>Use</strong></p><ul>')]
        sides = each.standing or each.figures
        # Of many sizes each has its own right value, which stands at its entry; what tells them apart is wanted here.
        short = [item for item in sides if not item.convention] if len(sides) > MOST_OPEN else sides
        alike: dict[str | None, list[Figure]] = {}
        for item in short or sides:
            alike.setdefault(item.correct, []).append(item)
        for right, items in alike.items():
            found.append(self.raw("<li>"))
            if right:
                found += [*self.correct(items[0]), self.raw("<p>in place of</p>")]
            for place, item in enumerate(items, 1):
                end = "." if place == len(items) else ", and"
                found.append(self.to(item))
                found.append(self.raw(f"<p>({item.document}, line {item.line}), which {_standing(item)}{end}</p>"))
            found.append(self.raw("</li>"))
        if short and len(short) < len(sides):
            left = len(sides) - len(short)
            found.append(
                self.raw(f"<li>For the {left} that stand only under a convention, what their entries give.</li>")
            )
        return [*found, self.raw("</ul></div>")]


def _parties(each: Disagreement) -> str:
    return " against ".join(each.documents) if len(each.documents) > 1 else f"within {each.documents[0]}"


def _title(each: Disagreement) -> str:
    return each.title or each.figures[0].documented


def _standing(item: Figure) -> str:
    """What is true of a side, in words."""
    if item.convention:
        return f"stands only as “{escape(conventions()[item.convention].title)}”"
    if item.verdict in ERRATA:
        return f"is {item.verdict} too"
    return "nobody could verify" if item.verdict == "unverifiable" else "stands as printed"


class TallyDirective(Generated):
    """How many figures there are by verdict, each number leading to the ledger with that filter set."""

    def run(self) -> list[nodes.Node]:
        """One line of numbers."""
        ledger = load()
        counts = Counter(item.verdict for item in ledger.figures)
        errata = sum(counts[verdict] for verdict in ERRATA)
        up = "../" * self.env.docname.count("/")
        each = " ".join(
            f'<a href="{up}book/ledger.html?verdict={verdict}">{badge(verdict)} {counts[verdict]}</a>'
            for verdict in VERDICTS
            if counts[verdict]
        )
        return [
            self.raw(
                f'<p class="vlmmem-tally"><strong>{len(ledger.figures)}</strong> figures and facts of'
                f" {len(ledger.documents)} documents, {errata} of them errata:<br>{each}</p>"
            )
        ]


def setup(app: "Sphinx") -> None:
    """Register the directives."""
    app.add_directive("errata-summary", SummaryDirective)
    app.add_directive("errata", ErrataDirective)
    app.add_directive("disagreements", DisagreementsDirective)
    app.add_directive("dear", DearDirective)
    app.add_directive("tally", TallyDirective)
