"""The command line: ``vlmmem COMMAND``.

Exit codes: 0 done; 1 the answer is no; 2 the call or its input is wrong, told in one line on standard error.
"""

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from vlmmem.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, NoReturn


WIDTH = 100
"""Columns of a help text. Asking the terminal would import what doubles the time of a short answer."""


def _help(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, width=WIDTH)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> "NoReturn":
        raise InputError(f"{message}; '{self.prog} --help' shows what is right")


def _count(text: str) -> int:
    """A count from an argument; argparse makes one line of the complaint."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no count; a whole number above zero is needed")
    return number


def _print(value: object) -> None:
    print(value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False))


def _columns(rows: "Iterable[Sequence[str]]") -> str:
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )


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
        _print(found)
    elif found:
        _print(_columns((item["id"], f"L{item['line']}", item["verdict"], item["documented"]) for item in found))
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
        _print(item)
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
    _print(_columns((name, value) for name, value in facts if value))
    return 0


def _explain(options: "argparse.Namespace") -> int:
    from vlmmem.ledger import figure
    from vlmmem.ledger.explain import explain

    answer = explain(options.value, options.model, options.context, options.batch)
    if options.json:
        _print(answer.json())
        return 0 if answer.hits else 1
    for name in answer.figures:
        item = figure(name)
        print(f"In the ledger: {name} (line {item.line}), {item.verdict}. {item.note}")
    if not answer.hits:
        print(f"No convention prints {options.value} ({answer.searched:,} readings were tried).")
        return 1
    shown = answer.hits[: options.most]
    print(
        _columns(
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
    _print({"id": options.id, "format": options.format, "citation": citation} if options.json else citation)
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
        _print({"documents": [item.json() for item in found], "differences": compared})
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
        _print(_columns([head, *body]))
        for item in found:
            for problem in item.problems:
                print(problem)
        for difference in differences:
            print(difference.told())
        if options.text is not None and not differences:
            print(f"every line of the text is the one that the ledger judges ({options.document})")
    return 1 if differences or any(item.problems for item in found) else 0


def _models(options: "argparse.Namespace") -> int:
    from vlmmem.catalog import models
    from vlmmem.memory import kv_bytes_per_token, weights_bytes
    from vlmmem.units import show_both

    rows: list[dict[str, Any]] = [
        {
            "id": item.id,
            "name": item.name,
            "hub_id": item.hub_id,
            "parameters": item.parameters,
            "parameters_by_part": dict(item.parameters_by_part),
            "weights_bytes": weights_bytes(item.parameters),
            "kv_bytes_per_token": kv_bytes_per_token(item),
            "attention": item.attention,
        }
        for item in models()
    ]
    if options.json:
        _print(rows)
        return 0
    head = ("model", "parameters", "weights in bf16", "KV cache a token", "attention")
    body = (
        (
            str(row["id"]),
            f"{row['parameters']:,}",
            show_both(row["weights_bytes"]),
            f"{row['kv_bytes_per_token']:,} B",
            str(row["attention"]),
        )
        for row in rows
    )
    _print(_columns([head, *body]))
    return 0


def _gpus(options: "argparse.Namespace") -> int:
    from vlmmem.catalog import gpus
    from vlmmem.units import show, show_both

    found = gpus()
    if options.json:
        keys = ("id", "name", "memory_bytes", "memory_basis", "vendor_gb", "bandwidth")
        _print([{key: getattr(item, key) for key in keys} for item in found])
        return 0
    head = ("GPU", "name", "memory", "sold as", "bandwidth")
    body = (
        (item.id, item.name, show_both(item.memory_bytes), f"{item.vendor_gb} GB", show(item.bandwidth, "TB/s", 2))
        for item in found
    )
    _print(_columns([head, *body]))
    return 0


def _formats(options: "argparse.Namespace") -> int:
    from vlmmem.catalog import formats

    found = formats()
    if options.json:
        _print([{"id": item.id, "name": item.name, "bits": float(item.bits)} for item in found])
        return 0
    _print(_columns([("format", "bits a weight", "name"), *((f.id, f"{float(f.bits):.4g}", f.name) for f in found)]))
    return 0


def _parser() -> argparse.ArgumentParser:
    from vlmmem import __version__

    parser = _Parser(
        prog="vlmmem",
        formatter_class=_help,
        description="GPU memory of language and vision-language models, figure by figure.",
    )
    parser.add_argument("--version", action="version", version=f"vlmmem {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, prog="vlmmem")

    def command(name: str, run: "Callable[[argparse.Namespace], int]", text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, formatter_class=_help)
        sub.add_argument("--json", action="store_true", help="print JSON; sizes in bytes")
        sub.set_defaults(run=run)
        return sub

    sub = command("figures", _figures, "every figure of the ledger")
    sub.add_argument("--document", help="footprint, inference or estimation")
    sub.add_argument("--verdict", help="only figures with this verdict")
    sub = command("figure", _figure, "one figure, with formula, convention, sources and right value")
    sub.add_argument("id", help="the figure's id, such as footprint:13b-total")
    sub = command("explain", _explain, "which conventions print a published value, the likeliest first")
    sub.add_argument("value", help="as published, such as 99.0GB")
    sub.add_argument("--model", help="a catalogue name, where it is known")
    sub.add_argument("--context", type=_count, help="tokens of one request, where they are known")
    sub.add_argument("--batch", type=_count, help="requests, where they are known")
    sub.add_argument("--most", type=_count, default=10, help="how many readings to show (10)")
    sub = command("cite", _cite, "a citation of the verified value")
    sub.add_argument("id", help="the figure's id")
    sub.add_argument("--format", default="text", help="text or markdown")
    sub.add_argument("--book", help="where the book is published, for a link to the figure's entry")
    sub = command(
        "coverage", _coverage, "whether every number of the documents is accounted for, and your copy the same"
    )
    sub.add_argument("--document", help="footprint, inference or estimation; otherwise all three")
    sub.add_argument("--text", metavar="FILE", help="your copy of the document's text, to compare line by line")
    command("models", _models, "the catalogue's models")
    command("gpus", _gpus, "the catalogue's GPUs")
    command("formats", _formats, "the catalogue's number formats")
    return parser


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Run one command. Returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # a terminal without the sign × gets its code, not a traceback
            stream.reconfigure(errors="backslashreplace")
    try:
        options = _parser().parse_args(arguments)
        code: int = options.run(options)
        print(end="", flush=True)
    except InputError as error:
        print("vlmmem: error: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    except BrokenPipeError:
        # whoever read the output has seen enough
        _no_more_output()
        return 0
    except OSError as error:
        _no_more_output()
        print(f"vlmmem: error: the output cannot be written ({error.strerror})", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130  # what a shell gives a command that was interrupted
    return code


def _no_more_output() -> None:
    """Let what is still buffered go nowhere: Python would try it again at its end, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
