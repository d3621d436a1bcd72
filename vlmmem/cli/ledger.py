"""The commands over the ledger: figures, figure, explain, cite, coverage."""

from typing import TYPE_CHECKING

from vlmmem.cli.answers import columns, count, say
from vlmmem.errors import InputError

if TYPE_CHECKING:
    import argparse
    from typing import Any

__all__ = ["COMMANDS"]


def _accepted() -> "list[dict[str, Any]]":
    """Every figure as JSON: the accepted export where it is the package's own, else judged anew."""
    from vlmmem.published import accepted

    found = accepted()
    if found is None:
        from vlmmem.ledger import load

        found = [item.json() for item in load().figures]
    return found


def _figures(options: "argparse.Namespace") -> int:
    found = _accepted()
    for name, choice in (("document", options.document), ("verdict", options.verdict)):
        if choice is not None:
            from vlmmem.ledger import figures

            figures(**{name: choice})  # complains of a name that does not exist
            found = [item for item in found if item[name] == choice]
    if options.json:
        say(found)
    elif found:
        say(columns((item["id"], f"L{item['line']}", item["verdict"], item["documented"]) for item in found))
    return 0


def _number(computed: "float | list[float]") -> str:
    return " to ".join(f"{end:,.6g}" for end in (computed if isinstance(computed, list) else [computed]))


def _cost(cost: "dict[str, Any] | None") -> str | None:
    """What an erratum costs a planner, in words."""
    if cost is None:
        return None
    from vlmmem.ledger.cost import Cost

    told = Cost(cost["printed_bytes"], cost["right_bytes"])
    return told.text + (f"  ({cost['case']})" if cost["case"] else "")


def _figure(options: "argparse.Namespace") -> int:
    item = next((item for item in _accepted() if item["id"] == options.id), None)
    if item is None:
        from vlmmem.ledger import figure

        item = figure(options.id).json()  # complains of an id that does not exist
    if options.json:
        say(item)
        return 0
    facts = (
        ("figure", item["id"]),
        ("printed", f"{item['documented']}  ({item['document']} line {item['line']}, {item['section']})"),
        ("verdict", item["verdict"] + (f" ({item['cause']})" if item["cause"] else "")),
        ("formula", f"{item['rule']}  ({item['formula']})" if item["formula"] else None),
        ("convention", f"{item['reading']}  ({item['convention']})" if item["convention"] else None),
        ("computed", None if item["computed"] is None else f"{_number(item['computed'])} {item['unit']}".rstrip()),
        ("right", item["correct"]),
        ("costs", _cost(item["cost"])),
        ("note", item["note"]),
        *(("source", source) for source in item["sources"]),
    )
    say(columns((name, value) for name, value in facts if value))
    return 0


def _explain(options: "argparse.Namespace") -> int:
    from vlmmem.ledger import figure
    from vlmmem.ledger.explain import explain

    answer = explain(options.value, options.model, options.context, options.batch)
    if options.json:
        say(answer.json())
        return 0 if answer.hits else 1
    for name in answer.figures:
        item = figure(name)
        print(f"In the ledger: {name} (line {item.line}), {item.verdict}. {item.note}")
    if not answer.hits:
        print(f"No convention prints {options.value} ({answer.searched:,} readings were tried).")
        return 1
    shown = answer.hits[: options.most]
    print(
        columns(
            [
                ("convention", "rule", "case", "gives", "also prints"),
                *(
                    (
                        hit.convention,
                        hit.formula,
                        " ".join(f"{name}={value}" for name, value in hit.arguments.items()),
                        f"{float(hit.value):,.6g}",
                        f"{hit.cells} of {hit.of} {'cells' if answer.table and hit.of < 100 else 'figures'}",
                    )
                    for hit in shown
                ),
            ]
        )
    )
    if len(answer.hits) > len(shown):
        print(f"... and {len(answer.hits) - len(shown)} more (--most shows more)")
    print(
        f"By luck: of the values printable near it, the {answer.searched:,} readings tried print"
        f" {float(answer.chance):.0%}; a hit in a table counts by the other cells it prints."
    )
    return 0


def _cite(options: "argparse.Namespace") -> int:
    from vlmmem.cite.citation import cite

    citation = cite(options.id, options.format, options.book)
    say({"id": options.id, "format": options.format, "citation": citation} if options.json else citation)
    return 0


def _coverage(options: "argparse.Namespace") -> int:
    from vlmmem.coverage import accounts

    if options.text is not None and options.document is None:
        raise InputError("--text is given without --document; both are needed, as the text is of one document")
    found = accounts(options.document)
    differences = []
    if options.text is not None:
        from pathlib import Path

        from vlmmem.coverage import accepted_quotations, compare, read_text, recorded

        kept = recorded(options.document)
        text = read_text(Path(options.text), at_most=10 * len(kept))
        differences = compare(kept, text, accepted_quotations(options.document))
    if options.json:
        compared = None if options.text is None else [item.json() for item in differences]
        say({"documents": [item.json() for item in found], "differences": compared})
    else:
        head = ("document", "lines", "numbers", "entries", "quoted", "excluded", "unaccounted")
        body = (
            (
                item.document,
                *(f"{count:,}" for count in (item.lines, item.numbers, item.entries, item.quoted, item.excluded)),
                f"{item.open:,}",
            )
            for item in found
        )
        say(columns([head, *body]))
        for item in found:
            for problem in item.problems:
                print(problem)
        for difference in differences:
            print(difference.told())
        if options.text is not None and not differences:
            print(f"every line of the text is the one that the ledger judges ({options.document})")
    return 1 if differences or any(item.problems for item in found) else 0


def _figures_arguments(sub: "argparse.ArgumentParser") -> None:
    sub.add_argument("--document", help="footprint, inference or estimation")
    sub.add_argument("--verdict", help="only figures with this verdict")


def _figure_arguments(sub: "argparse.ArgumentParser") -> None:
    sub.add_argument("id", help="the figure's id, such as footprint:13b-total")


def _explain_arguments(sub: "argparse.ArgumentParser") -> None:
    sub.add_argument("value", help="as published, such as 99.0GB")
    sub.add_argument("--model", help="a catalogue name, where it is known")
    sub.add_argument("--context", type=count, help="tokens of one request, where they are known")
    sub.add_argument("--batch", type=count, help="requests, where they are known")
    sub.add_argument("--most", type=count, default=10, help="how many readings to show (10)")


def _cite_arguments(sub: "argparse.ArgumentParser") -> None:
    sub.add_argument("id", help="the figure's id")
    sub.add_argument("--format", default="text", help="text or markdown")
    sub.add_argument("--book", help="where the book is published, for a link to the figure's entry")


def _coverage_arguments(sub: "argparse.ArgumentParser") -> None:
    sub.add_argument("--document", help="footprint, inference or estimation; otherwise all three")
    sub.add_argument("--text", metavar="FILE", help="your copy of the document's text, to compare line by line")


COMMANDS = {
    "figures": (_figures_arguments, _figures),
    "figure": (_figure_arguments, _figure),
    "explain": (_explain_arguments, _explain),
    "cite": (_cite_arguments, _cite),
    "coverage": (_coverage_arguments, _coverage),
}
