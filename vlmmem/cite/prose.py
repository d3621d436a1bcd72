"""Roles in prose: the readable value and its origin side by side, compared and rewritten.

``{fig}`101.2 GB <footprint:13b-total>` `` quotes a figure as documented; ``<ID.computed>``, ``<ID.correct>``
and ``<ID.says>`` select what was recomputed, what to use instead, and what the primary source prints. ``{calc}`62.5 GiB <EXPRESSION>` `` shows a value of the package; the
readable text fixes unit and decimals. The same syntax serves pages, notebooks, the README and the ledger's own notes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vlmmem.cite.expression import evaluate
from vlmmem.errors import InputError
from vlmmem.units import SCALES, in_unit, rounded

ROLE = re.compile(r"\{(?P<kind>fig|calc)\}`(?P<readable>[^`<]*?)\s*<(?P<target>[^`]*)>`")
_BROKEN = re.compile(r"\{(?:fig|calc)\}(?!`)|\{(?:fig|calc)\}`[^`]*(?:`|$)")
_CODE_FENCE = re.compile(r"(?P<fence>`{3,}|~{3,})\s*(?P<info>[^`\s]*)")
_READABLE = re.compile(r"(?P<about>[~≈] ?)?(?P<number>-?\d[\d,]*(?:\.\d+)?)(?P<gap>[ \u00a0\u202f]?)(?P<unit>.*)", re.S)
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


def _shown_as(readable: str, value: object, target: str) -> str:
    """``value`` in the unit and with the decimals of the readable text."""
    match = _READABLE.fullmatch(readable.strip())
    if not match:
        raise InputError(f"{readable!r} <{target}>: begins with no number; write the value as it should read")
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise InputError(f"{readable!r} <{target}>: gives {value!r}, which is not a number")
    decimals = len(match["number"].partition(".")[2])
    unit = match["unit"].strip()
    scale = unit.partition(" ")[0]
    number = in_unit(value, scale if scale in SCALES else "")  # type: ignore[arg-type]
    return f"{match['about'] or ''}{rounded(number, decimals)}{match['gap']}{match['unit']}"


def value_of(role: Role) -> str:
    """The readable text that a role should have. Raises InputError where its target gives none."""
    if role.kind == "calc":
        return _shown_as(role.readable, evaluate(role.target), role.target)
    from vlmmem.ledger import figure

    figure_id, _, name = role.target.partition(".")
    if role.target.rpartition(".")[2] in FIELDS:
        figure_id, _, name = role.target.rpartition(".")
    else:
        figure_id, name = role.target, "documented"
    item = figure(figure_id)
    if name == "computed":
        ends = item.computed_range
        if ends is None or ends[0] != ends[1]:
            raise InputError(f"{role.target}: has no single computed value")
        match = _READABLE.fullmatch(role.readable.strip())
        if not match:
            raise InputError(f"{role.readable!r} <{role.target}>: begins with no number")
        decimals = len(match["number"].partition(".")[2])
        unit = item.unit
        return f"{rounded(ends[0], decimals)}{match['gap'] or (' ' if unit and unit != '%' else '')}{unit}".strip()
    says = next((evidence.says for evidence in item.evidence if isinstance(evidence.says, str)), None)
    value = {"documented": item.documented, "correct": item.correct, "says": says}[name]
    if value is None:
        raise InputError(f"{role.target}: nothing is given there")
    return value


def figure_of(role: Role) -> str:
    """The id of the figure that a ``{fig}`` role quotes."""
    head, _, name = role.target.rpartition(".")
    return head if name in FIELDS else role.target


def _outside_code(text: str) -> Iterator[tuple[int, int]]:
    """Spans of the text outside fenced code; directives other than code are prose."""
    start = position = 0
    fence = ""
    for line in text.splitlines(keepends=True):
        stripped = line.lstrip(" >")
        match = _CODE_FENCE.match(stripped)
        if fence:
            if match and match["fence"].startswith(fence) and not match["info"]:
                fence, start = "", position + len(line)
        elif match and (not match["info"].startswith("{") or match["info"].startswith(("{code", "{math"))):
            fence = match["fence"]
            yield start, position
        position += len(line)
    if not fence:
        yield start, position


def find_roles(text: str) -> list[Role]:
    """Every ``{fig}`` and ``{calc}`` role outside fenced code.

    >>> find_roles("Weights take {calc}`26.0 GB <weights_bytes(13015864320)>`.")[0].readable
    '26.0 GB'
    """
    return [
        Role(text.count("\n", 0, match.start()) + 1, match["kind"], match["readable"], match["target"], match.span())
        for start, end in _outside_code(text)
        for match in ROLE.finditer(text, start, end)
    ]


def plain(text: str) -> str:
    """The text as a reader sees it, roles reduced to their readable value."""
    return ROLE.sub(lambda match: match["readable"], text)


def check_text(text: str, where: str) -> list[str]:
    """One line for every role whose readable value is not what its origin gives, or that cannot be read."""
    problems = []
    for role in find_roles(text):
        try:
            right = value_of(role)
        except InputError as error:
            problems.append(f"{where}:{role.line}: {error}")
            continue
        if role.readable != right:
            problems.append(f"{where}:{role.line}: reads {role.readable!r}, {role.target} gives {right!r}; 'make fix' rewrites it")
    for start, end in _outside_code(text):
        for match in _BROKEN.finditer(text, start, end):
            if not ROLE.match(text, match.start()):
                line = text.count("\n", 0, match.start()) + 1
                problems.append(f"{where}:{line}: {match[0]!r} is not a whole role; {{fig}}`VALUE <ID>` is")
    return problems


def fix_text(text: str) -> str:
    """The text with every readable value rewritten from its origin; roles that cannot be read stay as they are."""
    for role in reversed(find_roles(text)):
        try:
            right = value_of(role)
        except InputError:
            continue
        text = text[: role.span[0]] + f"{{{role.kind}}}`{right} <{role.target}>`" + text[role.span[1] :]
    return text
