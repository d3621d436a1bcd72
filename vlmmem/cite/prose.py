"""Roles in prose: the readable value and its origin side by side, compared and rewritten.

``{fig}`101.2 GB <footprint:13b-total>` `` quotes a figure as documented; ``<ID.computed>``, ``<ID.correct>``
and ``<ID.says>`` select what was recomputed, what to use instead, and what the primary source prints.
``{calc}`62.5 GiB <EXPRESSION>` `` shows a value of the package; the readable text fixes unit and decimals.
The same syntax serves pages, notebooks, the README and the ledger's own notes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vlmmem.cite.expression import evaluate
from vlmmem.errors import InputError
from vlmmem.units import SCALES, in_unit, rounded

_CONTENT = re.compile(r"(?P<readable>[^`<]*?)\s*<(?P<target>[^`<>]*)>")
_NAME = re.compile(r"\{(fig|calc)\}$")
_BARE = re.compile(r"\{(?:fig|calc)\}(?!`)")
_TICKS = re.compile("`+")
_BLANK_LINE = re.compile(r"\n[ \t>]*\n")
_PREFIX = re.compile(r"(?:[ \t>]|[-*+] |\d{1,9}[.)] )*")
_FENCE = re.compile(r"(?P<fence>`{3,}(?=[^`]*$)|~{3,}|:{3,})[ \t]*(?P<info>\S*)")
_CODE_DIRECTIVES = ("{code", "{sourcecode", "{math", "{literalinclude", "{raw", "{mermaid")
_SIZE_UNIT = re.compile(r"(?:[kKMGTP]i?)?(?:[Bb]|[Bb]its?|[Bb]ytes?|FLOPS?)")
_READABLE = re.compile(
    r"(?P<about>[~≈] ?)?(?P<number>-?\d[\d,]*(?:\.\d+)?)(?P<gap>[ \n\u00a0\u202f]?)(?P<unit>.*)", re.DOTALL
)
FIELDS = ("documented", "computed", "correct", "says")


@dataclass(frozen=True, slots=True)
class Role:
    """One role in a text.

    Attributes:
        line: counted from 1.
        kind: "fig" or "calc".
        readable: the value that a reader sees in the source.
        target: the figure's id (perhaps with a field), or the expression.
        span: where the role starts and ends in the text.
    """

    line: int
    kind: str
    readable: str
    target: str
    span: tuple[int, int]


def _scale(words: str) -> str:
    """The unit that the words behind a number begin with; empty where they name what is counted."""
    first = words.partition(" ")[0]
    head = re.split(r"[/.,;:)\s]", first, maxsplit=1)[0]
    for unit in (first, head):
        if unit in SCALES:
            return unit
    if _SIZE_UNIT.fullmatch(head):
        raise InputError(f"unit {head!r} is not known; one of {', '.join(u for u in SCALES if u)}")
    return ""


def _shown_as(readable: str, value: object, target: str) -> str:
    """``value`` in the unit and with the decimals of the readable text."""
    match = _READABLE.fullmatch(readable.strip())
    if not match:
        raise InputError(f"{readable!r} <{target}>: begins with no number; write the value as it should read")
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise InputError(f"{readable!r} <{target}>: gives {value!r}, which is not a number")
    decimals = len(match["number"].partition(".")[2])
    number = in_unit(value, _scale(match["unit"]))  # type: ignore[arg-type]
    return f"{match['about'] or ''}{rounded(number, decimals)}{match['gap']}{match['unit']}"


def value_of(role: Role) -> str:
    """The readable text that a role should have. Raises InputError where its target gives none."""
    if role.kind == "calc":
        return _shown_as(role.readable, evaluate(role.target), role.target)
    from vlmmem.ledger import figure

    name = role.target.rpartition(".")[2]
    if name not in FIELDS:
        name = "documented"
    item = figure(figure_of(role))
    if name == "computed":
        ends = item.computed_range
        if ends is None or ends[0] != ends[1]:
            raise InputError(f"{role.target}: has no single computed value")
        match = _READABLE.fullmatch(role.readable.strip())
        if not match:
            raise InputError(f"{role.readable!r} <{role.target}>: begins with no number")
        decimals = len(match["number"].partition(".")[2])
        gap = match["gap"] or ("" if item.unit in ("", "%", "×") else " ")
        return f"{rounded(ends[0], decimals)}{gap}{item.unit}".strip()
    says = next((evidence.says for evidence in item.evidence if isinstance(evidence.says, str)), None)
    value = {"documented": item.documented, "correct": item.correct, "says": says}[name]
    if value is None:
        raise InputError(f"{role.target}: nothing is given there")
    if "`" in value or "<" in value:
        raise InputError(f"{role.target}: {value!r} cannot stand in a role, which ends at '`' and '<'")
    return value


def figure_of(role: Role) -> str:
    """The id of the figure that a ``{fig}`` role quotes."""
    head, _, name = role.target.rpartition(".")
    return head if name in FIELDS else role.target


def _outside_code(text: str) -> Iterator[tuple[int, int]]:
    """Spans of the text outside fenced code and its fences; directives other than code are prose."""
    start = position = 0
    fences: list[tuple[str, bool]] = []
    for line in text.splitlines(keepends=True):
        prose = not (fences and fences[-1][1])
        bare = line.rstrip("\r\n")
        match = _FENCE.match(bare, _PREFIX.match(bare).end())  # type: ignore[union-attr]  # it matches the empty text
        position += len(line)
        if not match:
            continue
        fence, info = match["fence"], match["info"]
        closes = bool(fences) and not info and fence.startswith(fences[-1][0])
        if not prose and not closes:
            continue
        if prose:
            yield start, position - len(line)
        # The title of a directive stands behind its fence; behind a fence of backticks no role can.
        start = position if fence[0] == "`" else position - len(line) + match.end("fence")
        if closes:
            fences.pop()
        else:
            is_code = fence[0] != ":" and not info.startswith("{")
            fences.append((fence, is_code or info.startswith(_CODE_DIRECTIVES)))
    if not (fences and fences[-1][1]):
        yield start, position


def _scan(text: str) -> Iterator[Role | tuple[int, str]]:
    """Roles, and (line, text) of what looks like one and is none, by CommonMark's rule for inline code.

    A run of backticks closes with the next one as long within the paragraph; inline code holds no role.
    """
    for start, end in _outside_code(text):
        position = start
        while True:
            opening = _TICKS.search(text, position, end)
            stop = opening.start() if opening else end
            for bare in _BARE.finditer(text, position, min(stop + 1, end)):
                yield text.count("\n", 0, bare.start()) + 1, bare[0]
            if not opening:
                break
            before = text[position:stop]
            if (len(before) - len(before.rstrip("\\"))) % 2:
                position = stop + 1
                continue
            blank = _BLANK_LINE.search(text, opening.end(), end)
            closing = re.compile(rf"(?<!`){opening[0]}(?!`)").search(
                text, opening.end(), blank.start() if blank else end
            )
            name = _NAME.search(before)
            position = closing.end() if closing else opening.end()
            if name:
                first = stop - len(name[0])
                line = text.count("\n", 0, first) + 1
                content = _CONTENT.fullmatch(text, opening.end(), closing.start()) if closing else None
                if content:
                    yield Role(line, name[1], content["readable"], content["target"], (first, position))
                else:
                    yield (
                        line,
                        text[first : closing.end() if closing else min(opening.end() + 40, end)].strip(),
                    )


def find_roles(text: str) -> list[Role]:
    """Every ``{fig}`` and ``{calc}`` role outside fenced code.

    >>> find_roles("Weights take {calc}`26.0 GB <weights_bytes(13015864320)>`.")[0].readable
    '26.0 GB'
    """
    return [found for found in _scan(text) if isinstance(found, Role)]


def plain(text: str) -> str:
    """The text as a reader sees it, roles reduced to their readable value."""
    for role in reversed(find_roles(text)):
        text = text[: role.span[0]] + role.readable + text[role.span[1] :]
    return text


def check_text(text: str, where: str) -> list[str]:
    """One line for every role whose readable value is not what its origin gives, or that cannot be read."""
    problems = []
    for found in _scan(text):
        if not isinstance(found, Role):
            line, broken = found
            problems.append(f"{where}:{line}: {broken!r} is not a whole role; {{fig}}`VALUE <ID>` is")
            continue
        try:
            right = value_of(found)
        except InputError as error:
            problems.append(f"{where}:{found.line}: {error}")
            continue
        if found.readable != right:
            told = f"reads {found.readable!r}, {found.target} gives {right!r}"
            problems.append(f"{where}:{found.line}: {told}; 'make fix' rewrites it")
    return problems


def fix_text(text: str) -> str:
    """The text with every readable value rewritten from its origin; what cannot be read stays as it is."""
    for role in reversed(find_roles(text)):
        try:
            right = value_of(role)
        except InputError:
            continue
        first = role.span[0] + len(role.kind) + len("{}")
        first += len(_TICKS.match(text, first)[0])  # type: ignore[index]  # find_roles saw them
        text = text[:first] + right + text[first + len(role.readable) :]
    return text
