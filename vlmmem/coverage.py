"""What of a document the ledger accounts for: each number on each line, by an entry that quotes it or by an exclusion.

The document's text is not kept. For each of its lines the project keeps a digest, the numbers that stand on it and, for
each quotation that was found on it to the letter, the quotation's digest and which of those numbers it holds. That is
`ledger/lines/DOCUMENT.json`, written by `python -m vlmmem.coverage record DOCUMENT FILE`. So a changed quotation of an
entry, or its line, is seen without the text (`account`); with it, the lines on which a copy differs (`compare`).

What a number is (`numbers_on`): digits with their thousands, decimals and exponent, as a reader sees them. Digits of a
name are none: those behind a letter or an underscore, and all those of a word that begins with a letter, where single
hyphens and points hold a word together.

>>> [number.text for number in numbers_on("LLaMA-2 13B, 1,049.6 GB, 40-60%, 0.50, 4k-128k, 8e9 weights")]
['13', '1,049.6', '40', '60', '0.50', '4', '128', '8e9']
>>> [number.text for number in numbers_on("INT8, A100 80GB, GPT-4, Llama-3.1-8B, v0.6.3, kv_2, Q4_K_M, n², √L, [B2]")]
['80']
>>> [number.text for number in numbers_on("2× of 2024-03-09, arxiv.org/pdf/2305.13245v2.pdf, seq=4096, :.2f, 2 ** 3")]
['2', '2024', '03', '09', '2305.13245', '4096', '2', '2', '3']
"""

import json
import os
import re
import stat
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from vlmmem.errors import InputError
from vlmmem.strict_json import read_json

LINES = Path(__file__).parent / "ledger" / "lines"
LARGEST = 4 * 2**20
"""Bytes of the largest text that is read; the documents have some tens of thousands."""

_NUMBER = re.compile(r"[0-9]+(?:,[0-9]{3}(?![0-9]))*(?:\.[0-9]+)*(?:e[+-]?[0-9]+(?!\w))?")
_WORD = re.compile(r"\w+(?:[-.]\w+)*")
_IN_WORD = re.compile(r"\w\w")
_EMPHASIS = re.compile(r"(?<=\S)\*\*|\*\*(?=\S)")
DIGEST = 12
"""Hexadecimal digits of a digest: enough that no two lines or quotations of the documents share one by chance."""


class Number(NamedTuple):
    """A number and where it stands on its line."""

    text: str
    start: int
    stop: int


def numbers_on(line: str) -> list[Number]:
    """The numbers of a line, in order; digits of names are none (see the module's examples)."""
    found = []
    words = iter(_WORD.finditer(line))
    word = next(words, None)
    for match in _NUMBER.finditer(line):
        start = match.start()
        while word and word.end() <= start:
            word = next(words, None)
        glued = start > 0 and (line[start - 1].isalpha() or line[start - 1] == "_")
        if not glued and word and word[0][0].isdecimal():
            found.append(Number(match[0], *match.span()))
    return found


def as_read(text: str) -> str:
    """A line or a quotation as it is compared: without blanks around it and without Markdown's marks of bold.

    >>> as_read("  - **Total per token**: 800 KB "), as_read("1024 ** 3")
    ('- Total per token: 800 KB', '1024 ** 3')
    """
    return _EMPHASIS.sub("", text.strip())


def digest(text: str) -> str:
    """The digest of a line or of a quotation."""
    return sha256(as_read(text).encode(errors="surrogatepass")).hexdigest()[:DIGEST]


def runs_of(quotation: str, line: str) -> list[tuple[int, int]]:
    """Where a quotation stands on a line: for each place the numbers that it holds, from one index up to another.

    A place that cuts a word or a number in two is none: "0.5 GB" does not stand in "140.5 GB".

    >>> runs_of("0.5 GB", "| 1 | 0.5 GB | 140 GB | 140.5 GB |")
    [(1, 2)]
    >>> runs_of("2-4", "2-4× A100 40GB with TP=2-4")
    [(0, 2), (3, 5)]
    """
    spans = [match.span() for match in _NUMBER.finditer(line)]
    starts = [number.start for number in numbers_on(line)]

    def cuts(place: int) -> bool:
        if 0 < place < len(line) and _IN_WORD.match(line, place - 1):
            return True
        before = bisect_left(spans, (place, 0)) - 1
        return before >= 0 and place < spans[before][1]

    found, start = [], line.find(quotation)
    while quotation and start >= 0:
        stop = start + len(quotation)
        if not cuts(start) and not cuts(stop):
            found.append((bisect_left(starts, start), bisect_left(starts, stop)))
        start = line.find(quotation, start + 1)
    return found


@dataclass(frozen=True, slots=True)
class Line:
    """What is kept of a line: its digest, its numbers, and for the digest of each quotation the numbers that it holds.

    A quotation has one run of numbers, from one index up to another, for each place on the line at which it stands.
    """

    digest: str
    numbers: tuple[str, ...] = ()
    quotations: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)


class Quotation(NamedTuple):
    """What an entry of the ledger quotes: its id, its line, the text, and the place that a complaint names."""

    id: str
    line: int
    text: str
    where: str


class Exclusion(NamedTuple):
    """Numbers of a line that claim nothing, and which of the closed list of reasons says why."""

    line: int
    numbers: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the numbers of a document.

    Attributes:
        document: its name.
        lines, numbers: how many it has.
        entries: how many entries of the ledger quote it.
        quoted, excluded: how many numbers stand in what an entry quotes, and how many are excluded with a reason.
        unaccounted: for each line with any, the numbers that are neither.
        problems: one line each for what does not hold, the unaccounted numbers among it.
    """

    document: str
    lines: int
    numbers: int
    entries: int
    quoted: int
    excluded: int
    unaccounted: tuple[tuple[int, tuple[str, ...]], ...]
    problems: tuple[str, ...]

    @property
    def open(self) -> int:
        """How many numbers are neither quoted nor excluded."""
        return self.numbers - self.quoted - self.excluded

    def json(self) -> dict[str, Any]:
        """The account as the JSON interface shows it."""
        return {
            "document": self.document,
            "lines": self.lines,
            "numbers": self.numbers,
            "entries": self.entries,
            "quoted": self.quoted,
            "excluded": self.excluded,
            "unaccounted": [{"line": line, "numbers": list(numbers)} for line, numbers in self.unaccounted],
            "problems": list(self.problems),
        }


class Difference(NamedTuple):
    """A line of a reader's copy that is not the recorded one.

    ``line`` is None where the copy has a line more, ``copy_line`` where it has one less. ``recorded`` and ``found`` are
    the numbers there, ``standing`` the entries of that line whose quotation the copy still has there, ``gone`` those
    whose it has not.
    """

    line: int | None
    copy_line: int | None
    recorded: tuple[str, ...]
    found: tuple[str, ...]
    standing: tuple[str, ...]
    gone: tuple[str, ...]

    def told(self) -> str:
        """The difference in one line."""
        if self.line is None:
            numbers = f" ({', '.join(self.found)})" if self.found else ""
            return f"line {self.copy_line} of the text is not in the document{numbers}"
        missing = [number for number in self.recorded if number not in self.found]
        new = [number for number in self.found if number not in self.recorded]
        where = "is missing" if self.copy_line is None else f"is another (line {self.copy_line} of the text)"
        facts = (
            ("numbers not there", missing),
            ("other numbers", new),
            ("entries not to be found", self.gone),
            ("entries that still stand", self.standing),
        )
        return "; ".join([f"line {self.line} {where}", *(f"{name}: {', '.join(all_)}" for name, all_ in facts if all_)])

    def json(self) -> dict[str, Any]:
        """The difference as the JSON interface shows it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self._asdict().items()}


# --- the data --------------------------------------------------------------------------------------------------------


def documents(folder: Path | None = None) -> dict[str, int]:
    """Every document and how many lines it has."""
    content = read_json((folder or LINES).parent / "documents.json")
    return {name: fields["lines"] for name, fields in content.items()}


def _known(document: str, folder: Path | None) -> int:
    known = documents(folder)
    if document not in known:
        raise InputError(f"document {document!r} is not known; one of {', '.join(known)}")
    return known[document]


def _is_line(raw: object) -> bool:
    if not isinstance(raw, dict) or set(raw) - {"digest", "numbers", "quotations"}:
        return False
    numbers, quotations = raw.get("numbers", []), raw.get("quotations", {})
    if not isinstance(raw.get("digest"), str) or not isinstance(numbers, list) or not isinstance(quotations, dict):
        return False
    return all(isinstance(number, str) and _NUMBER.fullmatch(number) for number in numbers) and all(
        isinstance(runs, list)
        and runs
        and all(
            isinstance(run, list) and list(map(type, run)) == [int, int] and 0 <= run[0] <= run[1] <= len(numbers)
            for run in runs
        )
        for runs in quotations.values()
    )


def recorded(document: str, folder: Path | None = None) -> tuple[Line, ...]:
    """What is kept of each line of a document.

    Raises InputError for a document that is not known, and for data that are not of this form.
    """
    folder = folder or LINES
    count = _known(document, folder)
    file = f"{folder.name}/{document}.json"
    content = read_json(folder / f"{document}.json")
    if not isinstance(content, list) or len(content) != count:
        found = len(content) if isinstance(content, list) else "no"
        raise InputError(f"{file}: {found} lines; {count} are needed, as documents.json says")
    for place, raw in enumerate(content, 1):
        if not _is_line(raw):
            raise InputError(
                f"{file}: line {place}: {str(raw)[:60]!r}; a digest, perhaps 'numbers' and 'quotations', is needed"
            )
    return tuple(
        Line(
            raw["digest"],
            tuple(raw.get("numbers", ())),
            {name: tuple((low, high) for low, high in runs) for name, runs in raw.get("quotations", {}).items()},
        )
        for raw in content
    )


def _excluded(folder: Path | None) -> tuple[dict[str, str], dict[str, Any], str]:
    """The reasons, what is excluded of each document, and the name of the file."""
    folder = folder or LINES
    file = f"{folder.name}/exclusions.json"
    content = read_json(folder / "exclusions.json")
    if not isinstance(content, dict) or set(content) != {"reasons", "excluded"}:
        raise InputError(f"{file}: an object with 'reasons' and 'excluded' is needed")
    listed, excluded = content["reasons"], content["excluded"]
    if not isinstance(listed, dict) or not all(isinstance(text, str) and text.strip() for text in listed.values()):
        raise InputError(f"{file}: 'reasons' must give each reason its sentence")
    if not isinstance(excluded, dict) or set(excluded) - set(documents(folder)):
        raise InputError(f"{file}: 'excluded' must be an object of documents by name")
    return listed, excluded, file


def reasons(folder: Path | None = None) -> dict[str, str]:
    """The closed list of reasons to exclude a number, each with its sentence."""
    return _excluded(folder)[0]


def exclusions(document: str, folder: Path | None = None) -> tuple[Exclusion, ...]:
    """What is excluded of a document. Raises InputError for data that are not of this form or reasons not listed."""
    _known(document, folder)
    listed, excluded, file = _excluded(folder)
    used = set()
    for name, items in excluded.items():
        for raw in items if isinstance(items, list) else [items]:
            numbers = raw.get("numbers") if isinstance(raw, dict) else None
            if (
                not isinstance(raw, dict)
                or set(raw) != set(Exclusion._fields)
                or type(raw["line"]) is not int
                or not isinstance(raw["reason"], str)
                or not isinstance(numbers, list)
                or not numbers
                or not all(isinstance(number, str) for number in numbers)
            ):
                told = f"{str(raw)[:60]!r}; 'line', 'numbers' (a list of texts) and 'reason' are needed"
                raise InputError(f"{file}: {name}: {told}")
            if raw["reason"] not in listed:
                raise InputError(
                    f"{file}: {name} line {raw['line']}: reason {raw['reason']!r} is not listed; one of"
                    f" {', '.join(listed)}"
                )
            used.add(raw["reason"])
    if unused := [name for name in listed if name not in used]:
        raise InputError(f"{file}: reason {unused[0]!r} excludes nothing; drop it")
    return tuple(Exclusion(raw["line"], tuple(raw["numbers"]), raw["reason"]) for raw in excluded.get(document, []))


def accepted_quotations(document: str) -> list[Quotation]:
    """What the ledger quotes of a document: by the accepted export where it is the package's own, else read anew."""
    from vlmmem.published import accepted

    found = accepted()
    if found is None:
        return quotations_of(document)
    return [
        Quotation(item["id"], item["line"], item["documented"], item["id"])
        for item in found
        if item["document"] == document
    ]


def quotations_of(document: str) -> list[Quotation]:
    """What the ledger's own data quote of a document."""
    from vlmmem.ledger import figures

    return [Quotation(item.id, item.line, item.documented, item.where) for item in figures(document)]


# --- the text --------------------------------------------------------------------------------------------------------


def read_text(path: Path, at_most: int) -> list[str]:
    """The lines of a document's text. It is read as data; nothing in it is followed or run.

    Raises InputError for what is not a file, not UTF-8, larger than any document (``LARGEST``), or of more lines than
    ``at_most``.
    """
    try:
        # without waiting: a pipe would be waited for before anything is known of it
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            content = file.read(LARGEST + 1) if regular else b""
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}); the document's text in a file is needed") from None
    if not regular:
        raise InputError(f"{path}: is no file; the document's text in a file is needed")
    if len(content) > LARGEST:
        raise InputError(f"{path}: larger than {LARGEST} bytes, which no document is; the document's text is needed")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; save the text as UTF-8") from None
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if len(lines) > at_most:
        raise InputError(f"{path}: {len(lines)} lines; at most {at_most} are compared with this document")
    return lines


def line_of(text: str, quotations: Iterable[str] = ()) -> Line:
    """What is kept of a line, and of those quotations that stand on it.

    >>> line_of("- **Total per token**: 800 KB", ["800 KB", "600 KB"]).numbers
    ('800',)
    """
    read = as_read(text)
    places = {digest(each): tuple(runs_of(as_read(each), read)) for each in quotations}
    return Line(
        digest(text),
        tuple(number.text for number in numbers_on(read)),
        {name: runs for name, runs in sorted(places.items()) if runs},
    )


def compare(kept: Sequence[Line], copy: Sequence[str], quotations: Iterable[Quotation]) -> list[Difference]:
    """Where a reader's copy is not the text that was recorded. Empty lines are left out on both sides."""
    from difflib import SequenceMatcher

    empty = digest("")
    ours = [(place, line) for place, line in enumerate(kept, 1) if line.digest != empty]
    theirs = [(place, text) for place, text in enumerate(copy, 1) if digest(text) != empty]
    by_line: dict[int, list[Quotation]] = {}
    for item in quotations:
        by_line.setdefault(item.line, []).append(item)
    matcher = SequenceMatcher(None, [line.digest for _, line in ours], [digest(text) for _, text in theirs], False)
    found = []
    for tag, low, high, from_, to in matcher.get_opcodes():
        for here, there in zip_longest(ours[low:high], theirs[from_:to]) if tag != "equal" else ():
            text = there[1] if there else ""
            items = by_line.get(here[0], []) if here else []
            standing = [item.id for item in items if runs_of(as_read(item.text), as_read(text))]
            found.append(
                Difference(
                    here[0] if here else None,
                    there[0] if there else None,
                    here[1].numbers if here else (),
                    line_of(text).numbers,
                    tuple(standing),
                    tuple(item.id for item in items if item.id not in standing),
                )
            )
    return found


# --- the account -----------------------------------------------------------------------------------------------------


def _quoted(line: Line, items: Iterable[Quotation]) -> set[int]:
    """Which numbers of a line its entries hold: each entry one place, where its words stand twice one of the two."""
    held: set[int] = set()
    places = [line.quotations[digest(item.text)] for item in items]
    # those that can stand in one place only come first, and leave the others their choice
    for runs in sorted(places, key=len):
        fresh = next((run for run in runs if not held.issuperset(range(*run))), runs[0])
        held.update(range(*fresh))
    return held


def account(
    document: str, lines: Sequence[Line], quotations: Sequence[Quotation], excluded: Iterable[Exclusion]
) -> Account:
    """What becomes of each number of a document: quoted by an entry, excluded with a reason, or neither."""
    problems: list[str] = []
    by_line: dict[int, list[Quotation]] = {}
    for item in quotations:
        name = digest(item.text)
        if 1 <= item.line <= len(lines) and name in lines[item.line - 1].quotations:
            by_line.setdefault(item.line, []).append(item)
            continue
        elsewhere = [place for place, line in enumerate(lines, 1) if name in line.quotations]
        told = f"; it stands on line {elsewhere[0]}" if elsewhere else "; quote the line to the letter and record it"
        problems.append(f"{item.where}: {item.text[:60]!r} was not found on line {item.line} of {document}{told}")
    for place, items in by_line.items():
        same: dict[str, list[Quotation]] = {}
        for item in items:
            same.setdefault(digest(item.text), []).append(item)
        problems += [
            f"{twins[-1].where}: quotes what {twins[0].id} quotes, {twins[0].text[:60]!r}; one entry judges one place"
            for name, twins in same.items()
            if len(twins) > len(lines[place - 1].quotations[name])
        ]
    left: dict[int, list[str]] = {}
    quoted: dict[int, list[str]] = {}
    for place, line in enumerate(lines, 1):
        held = _quoted(line, by_line.get(place, ()))
        quoted[place] = [number for index, number in enumerate(line.numbers) if index in held]
        left[place] = [number for index, number in enumerate(line.numbers) if index not in held]
    without = 0
    for exclusion in excluded:
        place = exclusion.line
        where = f"lines/exclusions.json: {document} line {place}"
        for number in exclusion.numbers:
            if number in left.get(place, ()):
                left[place].remove(number)
                without += 1
            elif number in quoted.get(place, ()):
                problems.append(f"{where}: {number} is quoted by an entry; exclude only what none quotes")
            else:
                problems.append(f"{where}: {number} is not there, or excluded twice; drop it")
    unaccounted = tuple((place, tuple(numbers)) for place, numbers in left.items() if numbers)
    problems += [
        f"{document}: line {place}: neither quoted by an entry nor excluded: {', '.join(numbers)}"
        for place, numbers in unaccounted
    ]
    return Account(
        document,
        len(lines),
        sum(len(line.numbers) for line in lines),
        len(quotations),
        sum(map(len, quoted.values())),
        without,
        unaccounted,
        tuple(problems),
    )


def accounts(
    chosen: str | None = None,
    quotations: Callable[[str], Sequence[Quotation]] | None = None,
    folder: Path | None = None,
) -> list[Account]:
    """The account of every document, or of one. Raises InputError for a document that is not known."""
    names = list(documents(folder)) if chosen is None else [chosen]
    quoted = quotations or accepted_quotations
    return [account(name, recorded(name, folder), quoted(name), exclusions(name, folder)) for name in names]


# --- the maintainer's command ----------------------------------------------------------------------------------------


def _written(lines: Iterable[Line]) -> str:
    """One line of data for each line of the document, so that a change shows where it is."""
    kept = []
    for line in lines:
        fields: dict[str, object] = {"digest": line.digest}
        if line.numbers:
            fields["numbers"] = line.numbers
        if line.quotations:
            fields["quotations"] = line.quotations
        kept.append(json.dumps(fields))
    return "[\n" + ",\n".join(kept) + "\n]\n"


def record(document: str, path: Path, quotations: Sequence[Quotation], folder: Path | None = None) -> list[str]:
    """Write what is kept of a document's text. Returns what does not hold, and then nothing is written.

    Raises InputError for a text that cannot be read or has not as many lines as documents.json says.
    """
    folder = folder or LINES
    count = _known(document, folder)
    text = read_text(path, at_most=count)
    if len(text) != count:
        raise InputError(f"{path}: {len(text)} lines; {count} are needed, as documents.json says of {document}")
    problems = [
        f"{item.where}: {item.text[:60]!r} does not stand on line {item.line} of {document}; quote it to the letter,"
        " whole words and numbers"
        for item in quotations
        if not runs_of(as_read(item.text), as_read(text[item.line - 1]))
    ]
    if problems:
        return problems
    quoted: dict[int, list[str]] = {}
    for item in quotations:
        quoted.setdefault(item.line, []).append(item.text)
    kept = (line_of(line, quoted.get(place, ())) for place, line in enumerate(text, 1))
    (folder / f"{document}.json").write_text(_written(kept), encoding="utf-8")
    return []


def main(arguments: Sequence[str] | None = None) -> int:
    """``record DOCUMENT FILE``: keep digests, numbers and quotations of a document's text. Returns the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if len(words) != 3 or words[0] != "record":
            raise InputError("'record DOCUMENT FILE' is needed")
        _known(words[1], None)
        problems = record(words[1], Path(words[2]), quotations_of(words[1]))
    except InputError as error:
        print("vlmmem: error: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    print(*(problems or [f"lines/{words[1]}.json: written"]), sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
