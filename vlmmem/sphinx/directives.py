"""The directives: what they print comes from the ledger, the catalogue and the package, nothing from a keyboard."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

from vlmmem import catalog, coverage
from vlmmem.capacity import fewest_gpus
from vlmmem.documented import documented_models
from vlmmem.errors import InputError
from vlmmem.ledger import CAUSES, VERDICTS, Figure, load
from vlmmem.ledger.conventions import conventions
from vlmmem.ledger.formulas import FORMULAS
from vlmmem.memory import model_weights_bytes
from vlmmem.notebook import recomputed
from vlmmem.sphinx.domain import FigureDomain, explained
from vlmmem.sphinx.gate import ENTRY, GENERATED
from vlmmem.sphinx.roles import link
from vlmmem.units import SCALES, show
from vlmmem.workload import Workload

if TYPE_CHECKING:
    from sphinx.application import Sphinx


SPEED = "book/speed.json"
"""Where ``make speed`` puts what it measured, below the root."""


def badge(verdict: str) -> str:
    """A verdict as a badge: a colour and a word."""
    return f'<span class="vlmmem-verdict verdict-{verdict}">{verdict}</span>'


def _address(text: str) -> str:
    """A source, as a link where it begins with an address."""
    first, _, rest = text.partition(" ")
    if not first.startswith(("https://", "http://")):
        return escape(text)
    return f'<a class="reference external" href="{escape(first)}">{escape(first)}</a> {escape(rest)}'.rstrip()


def _size(figure: Figure) -> float:
    """The documented number in units of one, for sorting; printed units say nothing of their base, so 1,000 it is."""
    try:
        printed = figure.printed
    except InputError:
        return -1.0
    unit = {"KB": "kB", "x": "×"}.get(figure.unit, figure.unit)
    return float(printed.low * SCALES.get(unit, 1))


def _stated(figure: Figure) -> str:
    """Where a figure's formula stands, as a link to the entry of that line, if the ledger has another one there."""
    document, _, line = FORMULAS[figure.formula_id or ""].source.partition(":")
    there = [item for item in load().figures if item.document == document and str(item.line) == line]
    home = next((item for item in sorted(there, key=lambda item: item.kind != "formula") if item is not figure), None)
    return f', <a href="#{home.anchor}">{document} line {line}</a>' if home else ""


class Generated(SphinxDirective):
    """A directive whose content is made here."""

    has_content = False

    @property
    def domain(self) -> FigureDomain:
        """The domain of figures."""
        return cast("FigureDomain", self.env.get_domain("vlmmem"))

    def raw(self, html: str) -> nodes.raw:
        """A piece of HTML, marked as generated."""
        # An attribute, not a class: for a class docutils wraps each piece in a div, and pieces open and close tags.
        node = nodes.raw("", html, format="html", **{GENERATED: True})
        self.set_source_info(node)
        return node

    def controls(self, items: str, what: str, choices: Mapping[str, Sequence[str]]) -> nodes.raw:
        """A search field and a choice a key, which the page's script lets act on what ``items`` selects."""

        def choice(name: str, values: Sequence[str]) -> str:
            every = "".join(f'<option value="{escape(value)}">{escape(value)}</option>' for value in values)
            options = f'<option value="">all</option>{every}'
            return f'<label>{name.capitalize()} <select name="{name}">{options}</select></label>'

        # Hidden until the script that makes them work has run.
        return self.raw(
            f'<form class="vlmmem-controls" role="search" data-items="{items}" data-what="{what}" hidden>'
            '<label>Search <input type="search" name="words" placeholder="a value, an id, a word" autocomplete="off">'
            "</label>"
            + "".join(choice(name, values) for name, values in choices.items())
            + '<output aria-live="polite"></output></form>'
        )

    def markdown(self, text: str, where: str) -> list[nodes.Node]:
        """Parsed prose of the ledger, its roles checked like any other's; complaints name the entry."""
        holder = nodes.Element()
        self.state.nested_parse(StringList([text], source=self.env.doc2path(self.env.docname)), self.lineno, holder)
        for node in holder.children:
            if isinstance(node, nodes.Element):
                node[ENTRY] = where
        return holder.children

    def correct(self, figure: Figure) -> list[nodes.Node]:
        """What to use instead: the entry's own words, or what its formula computes."""
        if figure.correct_text is not None:
            return self.markdown(figure.correct_text, figure.where)
        return [self.raw(f"<p>{escape(figure.correct or '')}</p>")]

    def to(self, figure: Figure, text: str | None = None) -> nodes.paragraph:
        """A link to a figure's entry."""
        node = link(figure.id, text or figure.documented, self.env.docname, "vlmmem-fig", f"verdict-{figure.verdict}")
        return nodes.paragraph("", "", node)

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> list[nodes.Node]:
        """A table of ready HTML cells in a box of its own that scrolls; on a phone each cell carries its heading."""
        head = "".join(f'<th scope="col">{escape(text)}</th>' for text in headings)
        body = "".join(
            "<tr>"
            + "".join(
                f'<td data-label="{escape(label)}">{cell}</td>' for label, cell in zip(headings, row, strict=True)
            )
            + "</tr>\n"
            for row in rows
        )
        return [
            self.raw(
                f'<div class="vlmmem-scroll"><table class="table vlmmem-table {kind}"><thead><tr>{head}</tr></thead>\n'
                f"<tbody>{body}</tbody></table></div>"
            )
        ]


class LedgerDirective(Generated):
    """Every figure of the ledger, each with an anchor of its own; the page's script searches and sorts."""

    def run(self) -> list[nodes.Node]:
        """The controls, and one body of the table a figure."""
        ledger = load()
        domain = self.domain
        domain.lists.add(self.env.docname)
        index = addnodes.index(entries=[])
        choices = {"document": list(ledger.documents), "verdict": VERDICTS}
        found: list[nodes.Node] = [
            index,
            self.controls("table.vlmmem-ledger > tbody", "figures", choices),
            self.raw(self._head()),
        ]
        for figure in ledger.figures:
            domain.note(figure)
            index["entries"].append(("single", figure.id, figure.anchor, "main", None))
            found += self._figure(figure)
        found.append(self.raw("</table></div>"))
        return found

    @staticmethod
    def _head() -> str:
        columns = (("Figure", "line"), ("Documented", "documented"), ("Recomputed", "computed"), ("Verdict", "verdict"))
        head = "".join(f'<th scope="col" data-key="{key}">{name}</th>' for name, key in columns)
        return f'<div class="vlmmem-scroll"><table class="vlmmem-ledger"><thead><tr>{head}</tr></thead>\n'

    def _figure(self, figure: Figure) -> list[nodes.Node]:
        computed = recomputed(figure) or ""
        ends = figure.computed_range
        keys = {
            "document": figure.document,
            "verdict": figure.verdict,
            "line": f"{list(load().documents).index(figure.document)}.{figure.line:06}",
            "documented": _size(figure),
            "computed": float(ends[0] * SCALES.get({"KB": "kB"}.get(figure.unit, figure.unit), 1)) if ends else -1.0,
        }
        data = " ".join(f'data-{key}="{escape(str(value))}"' for key, value in keys.items())
        opening = (
            f'<tbody id="{figure.anchor}" {data}><tr>'
            f'<th scope="row"><a class="vlmmem-id" href="#{figure.anchor}">{figure.id}</a>'
            f'<span class="vlmmem-where">line {figure.line}, {escape(figure.section)}'
            f"{'<br>' + escape(figure.cell) if figure.cell else ''}</span></th>"
            f'<td data-label="Documented" class="vlmmem-number">{escape(figure.documented)}</td>'
            f'<td data-label="Recomputed" class="vlmmem-number">{escape(computed) or "&ndash;"}</td>'
            f'<td data-label="Verdict">{badge(figure.verdict)}</td></tr>'
            '<tr class="vlmmem-more"><td colspan="4">'
        )
        found: list[nodes.Node] = [self.raw(opening)]
        if figure.correct_markup:
            found += [self.raw('<div class="vlmmem-correct"><strong>Use instead:</strong> ')]
            found += self.correct(figure)
            found += [self.raw("</div>")]
        found += [explained(figure=figure.id), self.raw("<details><summary>How the verdict was earned</summary>")]
        found += self.markdown(figure.note_text, figure.where)
        facts = [f"Kind: {figure.kind}."]
        if figure.formula:
            facts.append(
                f"Formula: {escape(figure.rule or '')} (<code>{escape(figure.formula)}</code>{_stated(figure)})."
            )
        if figure.convention:
            title = escape(conventions()[figure.convention].title)
            facts.append(f"Convention: {title} (<code>{escape(figure.convention)}</code>).")
        if figure.cause:
            facts.append(f"Cause: {escape(figure.cause)}: {escape(CAUSES[figure.cause])}.")
        if figure.cost:
            case = f" ({escape(figure.cost.case)})" if figure.cost.case else ""
            facts.append(f"A plan with it is {escape(figure.cost.text)}{case}.")
        sources = "".join(f"<li>{_address(source)}</li>" for source in figure.sources)
        listed = f"<p>Sources:</p><ul>{sources}</ul>" if sources else ""
        found.append(self.raw(f"<p>{' '.join(facts)}</p>{listed}</details></td></tr></tbody>\n"))
        return found


class FigureTableDirective(Generated):
    """A documented table, cell by cell: what it prints, what is recomputed, and the verdict."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Rows and columns as in the document."""
        try:
            cells = load().table(self.arguments[0])
        except InputError as error:
            raise self.error(str(error)) from None
        rows = list(dict.fromkeys(item.row or "" for item in cells))
        columns = list(dict.fromkeys(item.column or "" for item in cells))
        by_place = {(item.row or "", item.column or ""): item for item in cells}
        head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
        found: list[nodes.Node] = [
            self.raw(
                '<div class="vlmmem-scroll"><table class="table vlmmem-figures"><thead><tr><td></td>'
                f"{head}</tr></thead><tbody>"
            )
        ]
        for row in rows:
            found.append(self.raw(f'<tr><th scope="row">{escape(row)}</th>'))
            for column in columns:
                item = by_place.get((row, column))
                found.append(self.raw(f'<td data-label="{escape(column)}">'))
                if item is not None:
                    value = recomputed(item)
                    found.append(self.to(item))
                    shown = f'<span class="vlmmem-recomputed">{escape(value)}</span>' if value else ""
                    found.append(self.raw(shown + badge(item.verdict)))
                found.append(self.raw("</td>"))
            found.append(self.raw("</tr>\n"))
        found.append(
            self.raw(
                "</tbody></table></div>"
                '<p class="vlmmem-legend">In each cell: the documented figure, the recomputed value, the verdict.</p>'
            )
        )
        return found


class DocumentsDirective(Generated):
    """The documents: who wrote them, how their lines are counted, and which sections the ledger covers."""

    def run(self) -> list[nodes.Node]:
        """A section's worth of facts a document."""
        ledger = load()
        found: list[nodes.Node] = []
        for document in ledger.documents.values():
            figures = [item for item in ledger.figures if item.document == document.id]
            counts = Counter(item.verdict for item in figures)
            tally = " ".join(f"{badge(verdict)} {counts[verdict]}" for verdict in VERDICTS if counts[verdict])
            facts = {
                "name in this book": f"<code>{document.id}</code>",
                "author": escape(document.author or "not named"),
                "date": escape(document.date or "not given"),
                "text": _address(document.address) if document.address else "no address known",
                "lines": f"{document.lines}. {escape(document.line_counting)}",
                "figures": f"{len(figures)} in the ledger. {tally}" if figures else "none in the ledger yet",
            }
            rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
            found.append(
                self.raw(
                    f'<div class="vlmmem-document" id="document-{document.id}">'
                    f'<p class="rubric">{escape(document.title)}</p>'
                    f"<dl>{rows}</dl>"
                )
            )
            sections: dict[str, list[Figure]] = {}
            for item in figures:
                sections.setdefault(item.section, []).append(item)
            if sections:
                found += self.table(
                    ("Lines", "Section", "Figures"),
                    [
                        (
                            "&ndash;".join(str(line) for line in sorted({items[0].line, items[-1].line})),
                            escape(section),
                            str(len(items)),
                        )
                        for section, items in sections.items()
                    ],
                )
            found.append(self.raw("</div>"))
        return found


class CoverageDirective(Generated):
    """Lines and numbers of each document, how many of them stand in an entry, how many are excluded, and why."""

    def run(self) -> list[nodes.Node]:
        """Two tables: documents, and reasons to exclude a number."""
        found = coverage.accounts(quotations=coverage.quotations_of)
        counts = Counter[str]()
        for item in found:
            for excluded in coverage.exclusions(item.document):
                counts[excluded.reason] += len(excluded.numbers)
        return [
            *self.table(
                ("Document", "Lines", "Entries", "Numbers", "in an entry", "excluded", "unaccounted"),
                [
                    (
                        f"<code>{item.document}</code>",
                        *(str(n) for n in (item.lines, item.entries, item.numbers, item.quoted, item.excluded)),
                        str(item.open),
                    )
                    for item in found
                ],
            ),
            *self.table(
                ("Reason", "Why such a number needs no verdict", "Numbers"),
                [(escape(name), escape(text), str(counts[name])) for name, text in coverage.reasons().items()],
            ),
        ]


class ConventionsDirective(Generated):
    """The closed list of conventions, each with its reason to exist and how many figures rest on it."""

    def run(self) -> list[nodes.Node]:
        """A row a convention."""
        uses = Counter(item.convention for item in load().figures)
        return self.table(
            ("Convention", "Reading", "Why it is allowed", "Figures"),
            [
                (
                    f'<code id="convention-{item.id}">{item.id}</code>',
                    escape(item.title),
                    escape(item.reason),
                    str(uses[item.id]),
                )
                for item in conventions().values()
            ],
        )


class FitDirective(Generated):
    """Which model fits which GPU: the fewest GPUs of a kind, for the documents' models and those named beside.

    Without the option `gpus` there is a column for each GPU of the catalogue.
    """

    option_spec: ClassVar = {
        "context": directives.positive_int,
        "gpus": directives.unchanged,
        "weights": directives.unchanged,
        "also": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        """A row a model, a column a GPU."""
        gpus = tuple(map(catalog.find_gpu, self.options.get("gpus", "").split())) or catalog.gpus()
        form = self.options.get("weights")
        rows = []
        for model in (*documented_models(), *map(catalog.find_model, self.options.get("also", "").split())):
            workload = Workload(min(self.options["context"], model.max_positions))
            counts = [fewest_gpus(model, gpu, workload, weights=form) for gpu in gpus]
            size = model_weights_bytes(model, catalog.find_format(form) if form else None)
            rows.append(
                (
                    escape(model.name),
                    escape(show(sum(size.values()), "GB")),
                    *(
                        f'<span class="fits-{"one" if count == 1 else "many" if count else "no"}">{count or "—"}</span>'
                        for count in counts
                    ),
                )
            )
        # a catalogue id is the name's short form: a100-80gb
        names = (gpu.id.upper().replace("-", " ") for gpu in gpus)
        return self.table(("Model", "Weights", *names), rows, "vlmmem-fit")


class VersionsDirective(Generated):
    """With which versions the book was executed, and when."""

    def run(self) -> list[nodes.Node]:
        """A row a program."""
        import datetime as dt
        import platform
        from importlib.metadata import PackageNotFoundError, version

        from vlmmem import __version__

        def installed(name: str) -> str:
            try:
                return version(name)
            except PackageNotFoundError:
                return "not installed"

        names = ("jupyter-book", "sphinx", "myst-nb", "altair", "vl-convert-python", "pandas", "numpy", "ipykernel")
        now = dt.datetime.now(dt.UTC)
        rows = [
            ("executed", f"{now:%Y-%m-%d %H:%M} UTC"),
            ("vlmmem", __version__),
            ("Python", platform.python_version()),
            *((name, installed(name)) for name in names),
        ]
        return self.table(("What", "Version"), [(escape(name), escape(value)) for name, value in rows])


class SpeedDirective(Generated):
    """How long the project's commands take: what ``make speed`` measured, with its machine."""

    def run(self) -> list[nodes.Node]:
        """A row a command, then the ratios."""
        path = Path(self.env.srcdir) / SPEED
        self.env.note_dependency(str(path))
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self.error(f"{SPEED}: cannot be read ({error}); 'make speed' writes it") from None
        rows = [
            *(
                (f"<code>make {escape(name)}</code>", show(seconds, "s", 0))
                for name, seconds in data["seconds"].items()
            ),
            *(
                (f"<code>{escape(name)}</code>, in starts of a bare Python", show(ratio, "×", 1))
                for name, ratio in data["ratios"].items()
            ),
        ]
        where = (
            f"Measured on {data['date']} on {data['cores']} cores with Python {data['python']}, everything installed."
        )
        return [self.raw(f"<p>{escape(where)}</p>"), *self.table(("Command", "Time"), rows)]


def setup(app: "Sphinx") -> None:
    """Register the directives."""
    app.add_directive("speed", SpeedDirective)
    app.add_directive("ledger", LedgerDirective)
    app.add_directive("figure-table", FigureTableDirective)
    app.add_directive("documents", DocumentsDirective)
    app.add_directive("coverage", CoverageDirective)
    app.add_directive("conventions", ConventionsDirective)
    app.add_directive("fit", FitDirective)
    app.add_directive("versions", VersionsDirective)
