"""Quantities that somebody typed: a number with a unit, a percentage or a factor without an origin.

Everything that a page says is scanned and a short list of forms is left out, not the other way round: a form
of Markdown that nobody thought of is then scanned. Left out are the roles ``{fig}`` and ``{calc}`` (compared
with their origin in `vlmmem.cite.prose`), code, addresses, comments, layout (``:width: 80%``), definitions
that hold (1 KiB = 1,024 B), and the names, versions and dates of ``typed.json``, each with its reason.

Inline code that is nothing but a quantity is scanned, since no code reads so. Of a code cell all that can
reach the page is scanned: text, also in pieces, comments, numbers under a name or heading with a unit, and
numbers too large for a count.
"""

import ast
import csv
import html
import io
import itertools
import json
import re
import string
import tokenize
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

HOLE = "\ufffc"
"""Stands where something that is not typed text was taken out."""
_EDGE = "\ufdd0"  # between two passages of one block, such as two cells of a row
_SYMBOL = "\ufdd1"  # a single italic letter of a formula: a variable, never a unit
_FREE = "\ufdd2"  # what typed.json or a definition lets pass

Finding = tuple[int, str]
"""A line, counted from 1, and the quantity as a reader sees it."""

# --- the grammar of a quantity ---------------------------------------------------------------------------

_DIGITS = r"\d(?:(?:[\d.,'_^/]|(?<=\d) (?=\d{3}(?!\d)))*\d)?"
_ONES = (
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
    "|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|billion|dozen"
)
_WORDS = rf"(?i:(?<![\w-])(?:{_ONES})(?:[\s-](?:and\s)?(?:{_ONES}))*)"
# Not inside a word (FP16, A100) nor behind another number's point (v1.5).
_START = r"(?<![A-Za-z0-9_])(?<!\d[.,])"
_POWER = r"(?:\s*[×x*·]\s*10\s*\^?\s*[({]?[-+]?\d+[)}]?|[eE][-+]?\d+)?"
_SCALE = r"(?:[\s-]*(?:thousand|million|billion|trillion)|[kKM](?=\s))?"
_NUMBER = rf"{_START}\.?{_DIGITS}{_POWER}{_SCALE}"
_AMOUNT = rf"(?:[~≈<>≤≥±]\s*)?(?:{_NUMBER}\s*[xX×%]?\s*(?:-|to|or|and|\.\.\.?|±)\s*)?(?:{_NUMBER}|{_WORDS})"

_BYTE_WORD = "(?:(?:kilo|mega|giga|tera|peta|exa|kibi|mebi|gibi|tebi|pebi)[- ]?)?(?:bytes?|bits?|octets?)"
_BYTE_SIGN = "[kmgtpe]i?(?:bits?|bytes?|bps|bs?)"
_FLOP = "[kmgtpez]?flops?|(?:mega|giga|tera|peta|exa)[- ]?flops?|[kmgt]macs?|[gtp]ops"
_TIME = r"(?:nano|micro|milli)?-?seconds?(?!-)|secs?|msecs?|minutes?|mins?(?!\()|hours?|hrs?"
_PERCENT = r"per-?\s?cent(?:age\s+points?)?|pct"
_RATE = r"(?:[a-z][\w-]*\s+){0,2}(?:[a-z][\w-]*\s*)?(?:/\s*|per\s+)(?:s|sec|second|min|minute|h|hour)"
_SIGNS = f"{_BYTE_SIGN}|{_BYTE_WORD}|{_FLOP}|[kmg]?hz|gigs?|[fqrt]ps"
_UNIT = rf"(?:(?:(?i:{_SIGNS}|{_TIME}|{_PERCENT}|{_RATE})|[mnμu]s|[GTP]F)(?![A-Za-z0-9_])|[%‰])"
_PER = r"(?:\s*/\s*[A-Za-z]+|\s+(?:per|a)\s+[A-Za-z]+)?"
_KIND = r"(?:(?:decimal|binary|usable|more|additional|extra|full|whole|spare|free|other|total|raw)\s+)?"
_GAP = rf"(?:-|\s*(?:[(\[]\s*(?:in\s+)?)?{_KIND})"
# One letter is a unit behind a number only; 13B, which names a size class, is let pass by typed.json.
_LETTER = r"(?:\s*[BGs]|\s+h)(?![A-Za-z0-9_(^=])"
_MORE = (
    r"(?:faster|slower|smaller|larger|bigger|less|more|fewer|higher|lower|longer|shorter|better|worse|cheaper|greater"
    r"|speed-?ups?|reductions?|increases?|improvements?|compression|savings?|gains?|as|that\s+of)\b"
)
_NOT_A_PRODUCT = rf"(?!\s*[-+~(]?\s*[\d{HOLE}{_SYMBOL}])"
_NEAR = r"(?:of\s+)?(?:(?:about|around|roughly|nearly|almost|up\s+to|at\s+(?:least|most))\s+)?"

_QUANTITY = [
    re.compile(pattern)
    for pattern in (
        # 26 GB, 5-10 %, two gigabytes, 40 tokens per second
        rf"{_AMOUNT}{_GAP}{_UNIT}{_PER}",
        rf"(?:[~≈<>≤≥±]\s*)?{_NUMBER}{_LETTER}{_PER}",
        # half a gigabyte, a quarter of a second
        rf"(?i:\b(?:half|thirds?|quarters?)\s+(?:of\s+)?an?\s+){_UNIT}",
        # Memory (GB): 26
        rf"\b(?i:{_SIGNS})[)\]]?\s*(?:[:=≈~]|\b(?:is|are)\s)\s*{_AMOUNT}(?![\w.,]*\d)",
        # 10-20x, ×4, 2 × faster, 3 times, twofold, a factor of ten, two orders of magnitude
        rf"{_AMOUNT}[xX×](?![\w(]){_NOT_A_PRODUCT}",
        rf"(?:^|(?<=[\s(\[,;:{_EDGE}]))(?<![\d){HOLE}{_SYMBOL}]\s)[xX×]\d[\d.,]*(?!\w)(?!\s*[×x*]\s*\d)",
        rf"{_AMOUNT}\s+[xX×](?:\s+(?={_MORE})|\s*(?=[.,;:)\]!?{_EDGE}]|$))",
        rf"{_NUMBER}\s+times\b(?!\s*[-+(]?\s*[\d{HOLE}{_SYMBOL}])",
        rf"{_WORDS}\s+times\s+(?:{_MORE}|the\b)",
        rf"(?:(?:{_NUMBER}|{_WORDS})[\s-]?|\b(?i:two|three|four|five|six|eight|ten|hundred))folds?\b",
        rf"(?i:\bfactors?\s+{_NEAR}){_AMOUNT}",
        rf"{_AMOUNT}\s+orders?\s+of\s+magnitude",
    )
]
_BARE = re.compile(rf"{_AMOUNT}")
_HEADS_A_COLUMN = re.compile(
    rf"(?:^|[\s(\[,/])(?P<unit>(?i:{_SIGNS}|milliseconds?|seconds?|minutes?|hours?|{_PERCENT})(?:/[A-Za-z]+)?|[mμnu]s|%)"
    r"(?=$|[\s)\],.;:/])|[(\[,]\s*(?P<letter>[BsxX×])\s*(?:[)\]]|$)"
)

_IN_A_CAPTION = re.compile(r"(?:\bin\s|[(\[])\s*[^\s()\[\]]+(?:[)\],.;:]|\s|$)")

# --- what is free ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exempt:
    """One entry of ``typed.json``.

    Attributes:
        what: the kind of thing, such as "product name".
        pattern: what is let pass.
        reason: why.
        examples: texts that are free by this entry alone, which the tests prove.
    """

    what: str
    pattern: re.Pattern[str]
    reason: str
    examples: tuple[str, ...]


@lru_cache(maxsize=1)
def exempt() -> tuple[Exempt, ...]:
    """The short list of names, versions and dates that are free, each with its reason."""
    entries = json.loads(files("vlmmem.cite").joinpath("typed.json").read_text(encoding="utf-8"))
    return tuple(
        Exempt(entry["what"], re.compile(entry["pattern"]), entry["reason"], tuple(entry["examples"]))
        for entry in entries
    )


def _units_of_definitions() -> dict[str, tuple[Fraction, ...]]:
    bit = Fraction(1, 8)
    sizes: dict[str, tuple[Fraction, ...]] = {"bit": (bit,), "bits": (bit,), "FLOP": (Fraction(1),)}
    sizes |= dict.fromkeys(("B", "byte", "bytes"), (Fraction(1),))
    sizes |= {"s": (Fraction(1),), "ms": (Fraction(1, 1000),), "KB": (Fraction(1000), Fraction(1024))}
    for power, (sign, decimal, binary) in enumerate(
        (("k", "kilo", "kibi"), ("M", "mega", "mebi"), ("G", "giga", "gibi"), ("T", "tera", "tebi")), 1
    ):
        small, large = (Fraction(1000**power),), (Fraction(1024**power),)
        sizes |= dict.fromkeys((f"{sign}B", f"{decimal}byte", f"{decimal}bytes", f"{sign}FLOP"), small)
        sizes |= dict.fromkeys((f"{sign.upper()}iB", f"{binary}byte", f"{binary}bytes"), large)
        sizes[f"{sign}bit"] = (bit * 1000**power,)
    return sizes


_SIZES = _units_of_definitions()
_FACTOR = r"\d[\d,]*(?:\.\d+)?(?:\s*(?:\^|\*\*)\s*\d+)?"
_PRODUCT = rf"{_FACTOR}(?:\s*[×*·]\s*{_FACTOR})*"
_NAME = "|".join(sorted(_SIZES, key=len, reverse=True))
_SIDE = rf"(?:(?<![\w.,])(?P<n>{_PRODUCT})\s*|(?i:\b(?:one|an?|each|the)\s+)?\b)(?P<u>{_NAME})(?![\w/])"
_READ_AS = r"\s*(?:\b(?:read|taken|counted|printed)\s+as\s+|\bfor\s+|\bof\s+)"
_SAYS = rf"(?:{_READ_AS}|\s*(?:=|≈|:|\(=?|,)\s*|\s+(?:is|are|means|equals|holds|has|or|makes)\s+|\s+)"


def _unnamed(pattern: str, suffix: str) -> str:
    return pattern.replace("(?P<n>", f"(?P<n{suffix}>").replace("(?P<u>", f"(?P<u{suffix}>")


_DEFINITION = re.compile(
    rf"{_unnamed(_SIDE, '0')}(?P<says>{_SAYS}){_unnamed(_SIDE, '1')}(?:\s*[=(]\s*{_unnamed(_SIDE, '2')})?"
)


def _product(text: str) -> Fraction:
    value = Fraction(1)
    for factor in re.split(r"\s*[×·]\s*|\s*(?<!\*)\*(?!\*)\s*", text):
        number, *power = re.split(r"\s*(?:\^|\*\*)\s*", factor)
        exponent = int(power[0]) if power else 1
        value *= Fraction(number.replace(",", "").rstrip(".")) ** min(exponent, 99)
    return value


def _holds(match: re.Match[str]) -> bool:
    """Whether a definition is true, one of its sides being one unit."""
    sides = [(match[f"n{i}"], match[f"u{i}"]) for i in "012" if match[f"u{i}"]]
    if all(number not in {None, "1"} for number, _ in sides) or all(number is None for number, _ in sides):
        return False
    choices = []
    for number, unit in sides:
        sizes = _SIZES[unit]
        if re.match(_READ_AS, match["says"]) and re.fullmatch("[KMGT]B", unit):
            sizes = (*sizes, *_SIZES[f"{unit[0]}iB"])
        choices.append([size * (_product(number) if number else 1) for size in sizes])
    return any(len(set(choice)) == 1 for choice in itertools.product(*choices))


def _mask(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", _FREE, match[0])


def _free(text: str) -> str:
    """The text with definitions that hold and exempt names masked, its length kept."""
    position = 0
    while match := _DEFINITION.search(text, position):
        if _holds(match):
            text = text[: match.start()] + _mask(match) + text[match.end() :]
            position = match.end()
        else:
            position = match.start() + 1
    for entry in exempt():
        text = entry.pattern.sub(_mask, text)
    return text


_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_LOOKS = str.maketrans(
    {"⁄": "/", "✕": "×", "✖": "×", "⨯": "×", "⨉": "×", "╳": "×"}
    | dict.fromkeys("‐‑‒–—−", "-")
    | dict.fromkeys("\u0085\u2028\u2029", " ")
)


def _normal(text: str) -> str:
    """The text with one form for each thing that reads the same; line ends stay."""
    text = re.sub(r"[⁰¹²³⁴-⁹⁻]+", lambda match: "^" + match[0].translate(_SUPERSCRIPT), text)
    text = re.sub("[¼½¾⅓⅔⅛]", lambda match: f" {match[0]}", text)
    text = unicodedata.normalize("NFKC", text.replace("\r\n", "\n").replace(HOLE, _EDGE))
    text = "".join(sign for sign in text if unicodedata.category(sign) != "Cf")
    return text.translate(_LOOKS)


def _spans(text: str) -> list[tuple[int, str]]:
    """Where quantities start in a normalised text, and how they read."""
    masked = _free(text)
    found: list[tuple[int, int]] = []
    for pattern in _QUANTITY:
        for match in pattern.finditer(masked):
            start, end = match.span()
            overlap = [span for span in found if span[0] < end and start < span[1]]
            found = [span for span in found if span not in overlap]
            found.append((min([start, *(s for s, _ in overlap)]), max([end, *(e for _, e in overlap)])))
    return [(start, " ".join(text[start:end].split())) for start, end in sorted(found)]


def typed_quantities(text: str) -> list[str]:
    """Every quantity of a plain text (no markup), as it reads.

    >>> typed_quantities("26 GB of weights leave ~10-20 % on an A100 80GB, where 1 KiB = 1,024 B")
    ['26 GB', '~10-20 %']
    """
    return [quantity for _, quantity in _spans(_normal(text).replace(_EDGE, HOLE))]


# --- inline markup ---------------------------------------------------------------------------------------

_TICKS = re.compile("`+")
_ROLE_NAME = re.compile(r"\{([A-Za-z][\w:+.-]*)\}$")
_WITH_TARGET = re.compile(r"(?P<text>.*?)\s*(?<!\\)<(?P<target>[^<>]*(?:<[^<>]*>[^<>]*)*|.*)>\s*", re.DOTALL)
# What the first two show is compared with its origin in prose.py; the others look up, compute or name.
_CHECKED = {"fig", "calc"}
_UNTYPED = {"code", "cite", "cite:p", "cite:t", "doc", "numref", "eq", "download", "kbd", "eval", "glue"}
_UNTYPED_PREFIX = ("glue:", "py:", "cite:", "external:", "external+")
_URL = re.compile(r"<?\b(?:https?|ftp|mailto):[^\s<>)\]`\"'|]+>?")
_LINK_TARGET = re.compile(r"\]\((?:<[^<>\n]*>|[^()\s\"']*(?:\([^()\s]*\)[^()\s\"']*)*)(?P<title>[^()]*)\)")
_LAYOUT_ATTRIBUTE = re.compile(r"\b(?:width|height|w|h|scale|figwidth)\s*=\s*\"?\d+(?:\.\d+)?(?:px|%|em)?\"?")
_TAG = re.compile(r"</?(?P<name>[A-Za-z][\w-]*)(?P<attributes>(?:\s+[^<>]*?|\s*))/?>", re.DOTALL)
_SPOKEN = re.compile(
    r"\b(?:alt|title|aria-label|placeholder|summary|content|label|value|data-[\w-]+)\s*=\s*(\"[^\"]*\"|'[^']*')",
    re.IGNORECASE,
)
_INLINE_TAGS = re.compile(
    "a|abbr|b|bdi|big|cite|code|del|dfn|em|font|i|ins|kbd|mark|q|s|samp|small|span|strong|sub|sup|tt|u|var|wbr"
)


def _hole(text: str, sign: str = HOLE) -> str:
    return sign + "\n" * text.count("\n")


def formula_text(tex: str) -> str:
    """A formula as text: upright words and units stay, single italic letters are variables."""
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(match[1].replace("~", " ").replace("\\ ", " ").replace("\\,", " "))
        return f"\ufdd3{len(kept) - 1}\ufdd4"

    tex = re.sub(r"\\(?:begin|end|label|tag|color|textcolor)\s*\{[^{}]*\}", lambda match: _hole(match[0]), tex)
    tex = re.sub(r"(?<!\\)%[^\n]*", "", tex)
    upright = r"\\(?:math(?:rm|bf|sf|it|tt)|text(?:rm|bf|it|sf|tt)?|mbox|unit|si|operatorname\*?)"
    tex = re.sub(upright + r"\s*\{((?:[^{}]|\{[^{}]*\})*)\}", keep, tex)
    tex = re.sub(r"\\(?:SI|qty)\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1 \2", tex)
    tex = re.sub(r"\\d?t?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r" \1/\2 ", tex)
    tex = re.sub(r"\\(?:times|cdot|ast)(?![A-Za-z])", " × ", tex)
    tex = re.sub(r"\\(?:approx|sim|simeq)(?![A-Za-z])", "≈", tex)
    tex = tex.replace("{,}", ",").replace(r"\%", "%").replace(r"\_", "_")
    tex = re.sub(r"\\[,;:! >]|~|\\q?quad|&|\\hspace\{[^{}]*\}", " ", tex)
    tex = re.sub(r"\\\\", _EDGE, tex)
    tex = re.sub(r"\\rm(?![A-Za-z])\s*([A-Za-z]+)", keep, tex)
    tex = re.sub(r"\\[A-Za-z]+", " ", tex).replace("{", "").replace("}", "")
    tex = re.sub(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])", _SYMBOL, tex)
    return re.sub("\ufdd3(\\d+)\ufdd4", lambda match: kept[int(match[1])], tex)


def _only_quantity_or_part(content: str) -> bool:
    """Whether inline code is no code at all: a quantity, or the number or the unit of one."""
    content = " ".join(content.split())
    if _BARE.fullmatch(content) or re.fullmatch(_UNIT, content):
        return True
    spans = _spans(content)
    return len(spans) == 1 and spans[0][1] == content


def _names_nothing(target: str) -> bool:
    """Whether the expression of a ``{calc}`` role is typed numbers alone."""
    try:
        tree = ast.parse(target, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return not any(isinstance(node, ast.Name) for node in ast.walk(tree))


def _role(name: str, content: str) -> str:
    """What a reader sees of a role and nobody checks."""
    target = _WITH_TARGET.fullmatch(content)
    if name in _CHECKED:
        if not target:
            return content
        return target["text"] if name == "calc" and _names_nothing(target["target"]) else _hole(content)
    if name == "math":
        return formula_text(content)
    if name in _UNTYPED or name.startswith(_UNTYPED_PREFIX):
        return _hole(content)
    return target["text"] + "\n" * target["target"].count("\n") if target else content


def _without_code(text: str) -> str:
    """Roles and inline code taken out, by CommonMark's rule: a run of backticks closes with one as long."""
    parts: list[str] = []
    position = 0
    while opening := _TICKS.search(text, position):
        start, end = opening.span()
        before = text[position:start]
        if (len(before) - len(before.rstrip("\\"))) % 2:
            parts.append(before[:-1] + "'")
            position = start + 1
            continue
        closing = re.compile(rf"(?<!`){opening[0]}(?!`)").search(text, end)
        if not closing:
            parts.append(before + " ")
            position = end
            continue
        content = text[end : closing.start()]
        role = _ROLE_NAME.search(before)
        if role:
            parts.append(before[: role.start()] + _role(role[1], content))
        else:
            parts.append(before + (content if _only_quantity_or_part(_normal(content)) else _hole(content)))
        position = closing.end()
    return "".join(parts) + text[position:]


def _tag(match: re.Match[str]) -> str:
    said = "".join(f"{_EDGE}{spoken[1][1:-1]}{_EDGE}" for spoken in _SPOKEN.finditer(match["attributes"]))
    gap = "" if _INLINE_TAGS.fullmatch(match["name"].lower()) else " "
    if match["name"].lower() in {"td", "th", "tr", "li", "p", "div", "dt", "dd", "option", "caption"}:
        gap = _EDGE
    return (said or gap) + "\n" * (match[0].count("\n") - said.count("\n"))


def _inline(text: str) -> str:
    """One block of Markdown as a reader sees it, line for line."""
    text = _without_code(text)
    text = re.sub(r"\$\$(.+?)\$\$", lambda match: formula_text(match[1]), text, flags=re.DOTALL)
    text = re.sub(
        r"(?<![\\\w$])\$(?![\s$])((?:[^$\\]|\\.)+?)(?<!\s)\$(?!\d)",
        lambda match: formula_text(match[1]),
        text,
        flags=re.DOTALL,
    )
    text = re.sub(r"\\\((.+?)\\\)", lambda match: formula_text(match[1]), text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL)
    text = re.sub(r"\{\{[^{}]*\}\}", lambda match: _hole(match[0]), text)
    text = re.sub(r"\[\^[^\]\s]+\]:?", "", text)
    text = re.sub(r"^(\s*)\[[^\]]+\]:\s+\S+", r"\1", text)
    text = _LINK_TARGET.sub(
        lambda match: (
            "]" + (f"{_EDGE}{match['title']}{_EDGE}" if match["title"].strip() else "") + "\n" * match[0].count("\n")
        ),
        text,
    )
    text = re.sub(r"\]\[[^\]]*\]", "]", text)
    text = _URL.sub(lambda match: _hole(match[0]), text)
    text = re.sub(r"!?\[((?:[^\[\]]|\[[^\[\]]*\])*)\](?![\w])", r"\1", text)
    text = re.sub(r"\{[^{}\n]*\}", lambda match: _LAYOUT_ATTRIBUTE.sub("", match[0]), text)
    text = _TAG.sub(_tag, text)
    text = re.sub(r"\\([ !-/:-@\[-`{-~])", r"\1", text)
    text = html.unescape(text)
    text = re.sub(r"\*{2,}|~~|(?<!\d)\*|\*(?!\d)|(?<![A-Za-z0-9])_+|_+(?![A-Za-z0-9])|__", "", text)
    return _normal(text)


def _in_block(text: str, line: int) -> Iterator[Finding]:
    """Quantities in one block of Markdown whose first line is ``line``."""
    for passage_line, passage in _pieces(_inline(text)):
        for start, quantity in _spans(passage):
            yield line + passage_line + passage.count("\n", 0, start), quantity


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    line = 0
    for piece in text.split(_EDGE):
        yield line, piece
        line += piece.count("\n")


def _headed(rows: Sequence[Sequence[Finding]], caption: str = "") -> Iterator[Finding]:
    """Bare numbers in a table whose column, row or caption names a unit; cells are (line, text)."""
    if not rows:
        return
    clean = [[(line, " ".join(_inline(text).replace(_EDGE, " ").split())) for line, text in row] for row in rows]
    above = _HEADS_A_COLUMN.search(match[0]) if (match := _IN_A_CAPTION.search(_free(_inline(caption)))) else None
    over = [_HEADS_A_COLUMN.search(_free(text)) for _, text in clean[0]]
    for row in clean[1:]:
        left = _HEADS_A_COLUMN.search(_free(row[0][1])) if row else None
        for column, (line, text) in enumerate(row):
            head = (over[column] if column < len(over) else None) or ((left or above) if column else None)
            if head and _BARE.fullmatch(text):
                yield line, f"{text} {head['unit'] or head['letter']}"


# --- blocks ----------------------------------------------------------------------------------------------

_FENCE = re.compile(r"(?P<lead>[\s>]*(?:(?:[-*+]|\d+[.)])\s+)*)(?P<fence>`{3,}|~{3,}|:{3,})\s*(?P<info>.*?)\s*$")
_DIRECTIVE = re.compile(r"\{(?P<name>[A-Za-z][\w:+.-]*)\}\s*(?P<argument>.*)$")
_OPTION = re.compile(r"\s*:(?P<key>[A-Za-z][\w-]*):(?P<value>\s.*|)$")
_LAYOUT = re.compile(
    "align|class|columns|figclass|figwidth|gutter|header-rows|height|margin|name|padding|scale|stub-columns|tags"
    "|target|widths?"
)
_ITEM = re.compile(r"\A(?:\s*(?:(?:[-*+]|\d+[.)])\s+)+|\s*#{1,6}\s+|\s*\[\^[^\]]+\]:|\s*:\s+)")
_VERBATIM = {
    "code",
    "code-block",
    "sourcecode",
    "literalinclude",
    "doctest",
    "bibliography",
    "toctree",
    "autosummary",
}
_PATH_ARGUMENT = {
    "figure",
    "image",
    "include",
    "literalinclude",
    "bibliography",
    "download",
    "code",
    "code-block",
    "code-cell",
}
_TABLE_RULE = re.compile(r"[\s>]*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")


def _cells(line: str) -> list[str]:
    """The cells of a row of a pipe table, roles and code kept whole."""
    spans = [match.span() for match in re.finditer(r"(`+)(?:(?!\1).)+\1", line)]
    cuts = [
        match.start()
        for match in re.finditer(r"(?<!\\)\|", line)
        if not any(start < match.start() < end for start, end in spans)
    ]
    cells = [line[start + 1 : end] for start, end in itertools.pairwise([-1, *cuts, len(line)])]
    if cells and not cells[0].strip(" >"):
        cells = cells[1:]
    return cells[:-1] if cells and not cells[-1].strip() else cells


class _Page:
    """Walks through the lines of a Markdown source and tells what it finds."""

    def __init__(self, source: str, *, front_matter: bool = True) -> None:
        self.lines = source.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self.found: list[Finding] = []
        self.open: list[tuple[str, int, str]] = []
        self.at = self._front_matter() if front_matter else 0

    def _front_matter(self) -> int:
        if self.lines[0].rstrip() != "---":
            return 0
        for end, line in enumerate(self.lines[1:], 1):
            if line.rstrip() in {"---", "..."}:
                for number, text in enumerate(self.lines[1:end], 2):
                    self.found += _in_block(text.partition(":")[2] or text, number)
                return end + 1
        return 0

    def walk(self) -> list[Finding]:
        block: list[str] = []
        first = 0
        while self.at < len(self.lines):
            line = self.lines[self.at]
            bare = line.lstrip(" \t>")
            fence = _FENCE.match(line)
            opens = fence and not (fence["fence"][0] == "`" and "`" in fence["info"])
            comment = bare.startswith("%") and len(line) - len(line.lstrip()) <= 3
            ends = (
                opens
                or comment
                or not bare.strip()
                or bool(_ITEM.match(line.lstrip(">")))
                or bare.startswith(("<!--", "$$", r"\begin{"))
            )
            if block and ends:
                self._flush(block, first)
                block = []
            if opens and fence:
                self._fence(fence)
            elif comment or not bare.strip():
                self.at += 1
            elif bare.startswith("<!--") and (past := self._until("-->")):
                self.found += _in_block(self.lines[past - 1].partition("-->")[2], past)
                self.at = past
            elif past := self._formula_end(bare):
                self._formula_block(past)
            elif re.fullmatch(r"\([^()\s]+\)=\s*", bare):
                self.at += 1
            else:
                if not block:
                    first = self.at + 1
                block.append(re.sub(r"^[\s>]*>", "", line))
                self.at += 1
                if re.match(r"\s*#{1,6}\s", line):
                    self._flush(block, first)
                    block = []
        if block:
            self._flush(block, first)
        for _, number, _ in self.open:
            self.found.append((number, "a fence that is never closed"))
        return sorted(set(self.found))

    def _until(self, closing: str, skip: int = 0) -> int | None:
        """The line behind the one that closes what this line opens, or None where nothing does."""
        head = self.lines[self.at].lstrip(" \t>")[skip:]
        if closing in head:
            return self.at + 1
        for number in range(self.at + 1, len(self.lines)):
            if closing in self.lines[number]:
                return number + 1
        return None

    def _formula_end(self, bare: str) -> int | None:
        if bare.startswith("$$"):
            return self._until("$$", skip=2)
        environment = re.match(r"\\begin\{([A-Za-z]+\*?)\}", bare)
        return self._until(f"\\end{{{environment[1]}}}") if environment else None

    def _formula_block(self, past: int) -> None:
        text = "\n".join(self.lines[self.at : past])
        opening, _, tail = text.rpartition("$$")
        body = formula_text(opening.replace("$$", " ")) + " " + tail if opening else formula_text(text)
        self._text(_normal(body), self.at + 1)
        self.at = past

    def _text(self, text: str, line: int) -> None:
        for passage_line, passage in _pieces(text):
            for start, quantity in _spans(passage):
                self.found.append((line + passage_line + passage.count("\n", 0, start), quantity))

    def _flush(self, block: Sequence[str], first: int) -> None:
        if len(block) > 1 and "|" in block[0] and "|" in block[1] + "|" and _TABLE_RULE.match(block[1]):
            rows = [
                [(first + number, cell) for cell in _cells(line)] for number, line in enumerate(block) if number != 1
            ]
            for number, cell in itertools.chain.from_iterable(rows):
                self.found += _in_block(cell, number)
            self.found += _headed(rows, self.open[-1][2] if self.open else "")
            return
        text = "\n".join([_ITEM.sub("", block[0], count=1), *block[1:]])
        self.found += _in_block(text, first)
        if "<t" in text.lower():
            self.found += _headed(_html_rows(text, first))

    def _fence(self, fence: re.Match[str]) -> None:
        line, mark, info = self.at + 1, fence["fence"], fence["info"]
        if not info and self.open and self._closes(mark, self.open[-1][0]):
            self.open.pop()
            self.at += 1
            return
        directive = _DIRECTIVE.match(info)
        name = directive["name"] if directive else ""
        verbatim = (not directive and mark[0] != ":") or name in _VERBATIM
        if mark[0] == ":" and not directive:
            self.found += _in_block(info, line)
            self.at += 1
            if info:
                self.open.append((mark, line, ""))
            return
        caption = directive["argument"] if directive and name not in _PATH_ARGUMENT else ""
        self.found += _in_block(caption, line)
        self.at += 1
        if directive:
            self._options()
        if verbatim or name in {"code-cell", "math", "list-table", "csv-table", "raw"}:
            body = self._body(fence)
            if not verbatim:
                self._special(name, body, caption)
        elif directive:
            self.open.append((mark, line, caption if name == "table" else ""))

    @staticmethod
    def _closes(mark: str, opening: str) -> bool:
        return mark[0] == opening[0] and len(mark) >= len(opening)

    def _options(self) -> None:
        """A directive's options, ``:key: value`` or a block between ``---``."""
        if self.at < len(self.lines) and self.lines[self.at].strip(" >") == "---":
            self.at += 1
            while self.at < len(self.lines) and self.lines[self.at].strip(" >") != "---":
                key, _, value = self.lines[self.at].strip(" >").partition(":")
                if not _LAYOUT.fullmatch(key):
                    self.found += _in_block(value or key, self.at + 1)
                self.at += 1
            self.at += 1
            return
        while self.at < len(self.lines) and (option := _OPTION.match(self.lines[self.at].lstrip(" >"))):
            if not _LAYOUT.fullmatch(option["key"]):
                self.found += _in_block(option["value"], self.at + 1)
            self.at += 1

    def _body(self, fence: re.Match[str]) -> list[tuple[int, str]]:
        """The lines up to the closing fence, numbered; what stands left of the fence is prose again."""
        indent = len(fence["lead"])
        quoted = fence["lead"].count(">")
        first = self.at
        body: list[tuple[int, str]] = []
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if quoted and line.count(">", 0, indent + 1) < quoted:
                return body
            closing = _FENCE.match(line)
            if closing and not closing["info"]:
                if self._closes(closing["fence"], fence["fence"]):
                    self.at += 1
                    return body
                if any(self._closes(closing["fence"], mark) for mark, *_ in self.open):
                    return body
            if line.strip() and not quoted and len(line) - len(line.lstrip()) < indent:
                self.found += _in_block(line, self.at + 1)
            body.append((self.at + 1, line[indent:] if not line[:indent].strip(" >") else line))
            self.at += 1
        self.found.append((first, "a fence that is never closed"))
        return body

    def _special(self, name: str, body: list[tuple[int, str]], caption: str) -> None:
        first = body[0][0] if body else self.at
        text = "\n".join(line for _, line in body)
        if name == "code-cell":
            before = "\n".join(self.lines[: first - 1]).rpartition("{code-cell}")[2]
            self.found += _in_code(text, first, parameters=bool(re.search(r"\bparameters\b", before)))
        elif name == "math":
            self._text(_normal(formula_text(text)), first)
        elif name == "raw":
            self.found += _in_block(text, first)
            self.found += _headed(_html_rows(text, first))
        else:
            page = _Page(text, front_matter=False)
            self.found += [(first + line - 1, quantity) for line, quantity in page.walk()]
            self.found += _headed(_csv_rows(text, first) if name == "csv-table" else _list_rows(body), caption)


def _list_rows(body: Iterable[tuple[int, str]]) -> list[list[Finding]]:
    rows: list[list[Finding]] = []
    for number, line in body:
        item = re.match(r"\s*(?P<row>\*\s+)?-(?:\s+(?P<cell>.*))?$", line)
        if item and item["row"]:
            rows.append([])
        if item and rows:
            rows[-1].append((number, item["cell"] or ""))
        elif rows and rows[-1] and line.strip():
            start, cell = rows[-1][-1]
            rows[-1][-1] = (start, f"{cell} {line.strip()}")
    return rows


def _csv_rows(text: str, first: int) -> list[list[Finding]]:
    return [
        [(first + number, cell) for cell in row]
        for number, line in enumerate(text.split("\n"))
        for row in csv.reader([line], skipinitialspace=True)
    ]


def _html_rows(text: str, first: int) -> list[list[Finding]]:
    rows = []
    for row in re.finditer(r"<tr\b[^>]*>(.*?)(?=<tr\b|</tr|</table|\Z)", text, re.DOTALL | re.IGNORECASE):
        cells = re.finditer(r"<t[dh]\b[^>]*>(.*?)(?=<t[dh]\b|</t[dhr]|\Z)", row[1], re.DOTALL | re.IGNORECASE)
        rows.append([(first + text.count("\n", 0, row.start(1) + cell.start()), cell[1]) for cell in cells])
    return rows


# --- code ------------------------------------------------------------------------------------------------

_NAMES_A_UNIT = re.compile(
    r"(?:^|_)(?:[kmgt]i?b|bytes|percent|pct|seconds|secs|ms|minutes|hours|[gt]?flops?|[gt]?flop_?s|gbps)$",
    re.IGNORECASE,
)
# Format specifications of Python and of d3, which Altair uses: ",.0%", ".2s", "{:.1%}".
_FORMAT = re.compile(r"[,~+$]*(?:\.\d+)?~?[%a-zA-Z]")
_FIELD = re.compile(r"\{[^{}\s]*\}|%(?:\(\w+\))?[-+ #0]*\d*(?:\.\d+)?[diouxXeEfFgGrsa]")

# A role that code spells is compared with nothing, so what it would read is text.
_SPELT_ROLE = re.compile(r"\{(?:fig|calc)\}`([^`<]*)")


class _Hole:
    """Takes any format and any access, and prints as a hole."""

    def __format__(self, _: str) -> str:
        return HOLE

    __str__ = __repr__ = lambda _: HOLE

    def __getattr__(self, _: str) -> "_Hole":
        return self

    def __getitem__(self, _: object) -> "_Hole":
        return self


def _literal(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=str() | int() | float()):
            return node.value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
    return _Hole()


def _text_of(node: ast.expr, computed: list[ast.expr]) -> str | None:
    """The text that an expression spells, holes for what is computed; None where it is no text."""
    match node:
        case ast.Constant(value=str() as text):
            return _FIELD.sub(HOLE, _SPELT_ROLE.sub(r"\1 `", text)) if not _FORMAT.fullmatch(text) else HOLE
        case ast.JoinedStr(values=values):
            parts = []
            for value in values:
                if isinstance(value, ast.FormattedValue):
                    literal = _literal(value.value)
                    if isinstance(literal, _Hole):
                        inner = _text_of(value.value, computed)
                        if inner is None:
                            computed.append(value.value)
                        parts.append(inner or HOLE)
                    else:
                        parts.append(str(literal))
                else:
                    parts.append(str(_literal(value)))
            return "".join(parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            texts = [_text_of(side, []) for side in (left, right)]
            if texts == [None, None]:
                return None
            return "".join(_text_or_hole(side, computed) for side in (left, right))
        case ast.BinOp(left=ast.Constant(value=str() as text), op=ast.Mod(), right=right):
            given = right.elts if isinstance(right, ast.Tuple) else [right]
            computed.extend(given)
            try:
                return text % tuple(_literal(item) for item in given)
            except (TypeError, ValueError):
                return _FIELD.sub(HOLE, text)
        case ast.Call(
            func=ast.Attribute(value=ast.Constant(value=str() as text), attr="format"),
            args=args,
            keywords=words,
        ):
            computed.extend([*args, *(word.value for word in words)])
            named = {word.arg: _literal(word.value) for word in words if word.arg}
            try:
                return string.Formatter().vformat(text, [_literal(item) for item in args], named)
            except (IndexError, KeyError, ValueError, TypeError, AttributeError):
                return _FIELD.sub(HOLE, text)
        case ast.Call(
            func=ast.Attribute(value=ast.Constant(value=str() as text), attr="join"),
            args=[ast.List(elts=e) | ast.Tuple(elts=e)],
        ):
            return text.join(_text_or_hole(item, computed) for item in e)
        case ast.Call(func=ast.Name(id="str"), args=[ast.Constant(value=int() | float() as number)]):
            return str(number)
    return None


def _text_or_hole(node: ast.expr, computed: list[ast.expr]) -> str:
    text = _text_of(node, computed)
    if text is not None:
        return text
    literal = _literal(node)
    if isinstance(literal, _Hole):
        computed.append(node)
    return str(literal)


def _numbers(node: ast.expr) -> Iterator[tuple[int, str]]:
    """Typed numbers that a value consists of, alone or in lists."""
    match node:
        case ast.Constant(value=bool()):
            return
        case ast.Constant(value=int() | float() as number):
            yield node.lineno, str(number)
        case ast.UnaryOp(operand=inner):
            yield from _numbers(inner)
        case ast.BinOp(left=left, right=right):
            # Arithmetic over names is a computation; over literals alone it is a typed number.
            if not any(isinstance(part, ast.Name | ast.Call) for part in ast.walk(node)):
                yield from itertools.islice(itertools.chain(_numbers(left), _numbers(right)), 1)
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            for item in items:
                yield from _numbers(item)


def _is_a_quantity(number: float) -> bool:
    """Whether a number in code is too large for a count and no power that converts units."""
    if abs(number) < 100_000 or number != number or number in {float("inf"), float("-inf")}:
        return False
    whole = int(abs(number))
    return whole & (whole - 1) != 0 and str(whole).strip("0") != "1"


def _under_a_unit(node: ast.AST, *, parameters: bool) -> Iterator[Finding]:
    """Typed numbers under a name, a keyword or a heading that carries a unit."""
    pairs: list[tuple[str, ast.expr]] = []
    match node:
        case ast.Constant(value=int() | float() as number) if _is_a_quantity(number) and not parameters:
            yield node.lineno, f"{number:,}"
        case ast.Assign(targets=targets, value=value) if not parameters:
            pairs = [(target.id, value) for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if not parameters:
            pairs = [(name, value)]
        case ast.keyword(arg=str() as name, value=value):
            pairs = [(name, value)]
        case ast.Dict(keys=keys, values=values):
            pairs = [
                (key.value, value)
                for key, value in zip(keys, values, strict=True)
                if isinstance(key, ast.Constant) and isinstance(key.value, str)
            ]
        case ast.Call(args=[ast.List(elts=rows), *_], keywords=words):
            named = next((word.value for word in words if word.arg == "columns"), None)
            pairs = [
                (head.value, cell)
                for row in rows
                if isinstance(row, ast.List | ast.Tuple) and isinstance(named, ast.List)
                for head, cell in zip(named.elts, row.elts, strict=False)
                if isinstance(head, ast.Constant) and isinstance(head.value, str)
            ]
    for name, value in pairs:
        head = _HEADS_A_COLUMN.search(_normal(name))
        unit = _NAMES_A_UNIT.search(name)
        if head or unit:
            for line, digits in _numbers(value):
                yield line, f"{digits} {(head['unit'] or head['letter']) if head else name}"


def _strings(tree: ast.AST, *, parameters: bool, docstrings: bool) -> Iterator[tuple[int, int, str]]:
    """First and last line of every text that the code spells, and the text."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if parameters and isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        if isinstance(node, ast.expr):
            computed: list[ast.expr] = []
            text = _text_of(node, computed)
            if text is not None:
                yield node.lineno, node.end_lineno or node.lineno, text
                waiting.extend(computed)
                continue
        inner = list(ast.iter_child_nodes(node))
        if not docstrings and isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            body = node.body
            if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                inner.remove(body[0])
        waiting.extend(inner)


def _in_code(source: str, first: int, *, parameters: bool = False, docstrings: bool = True) -> list[Finding]:
    """Quantities in Python code starting at line ``first``; a cell of parameters may assign what it likes."""
    lines = [re.sub(r"^(\s*)[%!].*", r"\1pass", line) for line in source.split("\n")]
    code = "\n".join(lines)
    try:
        tree = ast.parse(code)
        comments = [
            (token.start[0], token.string.lstrip("#"))
            for token in tokenize.generate_tokens(io.StringIO(code).readline)
            if token.type == tokenize.COMMENT
        ]
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
        # No Python: scan it as prose rather than let it pass.
        return [(first + line - 1, quantity) for line, quantity in _Page(source, front_matter=False).walk()]
    found = [(line, quantity) for number, text in comments for line, quantity in _in_block(text, number)]
    for node in ast.walk(tree):
        found += _under_a_unit(node, parameters=parameters)
    for start, end, text in _strings(tree, parameters=parameters, docstrings=docstrings):
        page = _Page(_SPELT_ROLE.sub(r"\1 `", text), front_matter=False)
        found += [(min(start + line - 1, end), quantity) for line, quantity in page.walk() if "fence" not in quantity]
    for match in re.finditer(r"^\s*[%!].*", source, re.MULTILINE):
        found += _in_block(match[0].lstrip(" %!"), source.count("\n", 0, match.start()) + 1)
    return sorted({(first + line - 1, quantity) for line, quantity in found})


# --- problems --------------------------------------------------------------------------------------------


def _problem(where: str, quantity: str, *, code: bool = False) -> str:
    if "fence" in quantity:
        return f"{where}: {quantity}; close it"
    if code:
        return f"{where}: typed quantity {quantity!r}; compute it, or take it from the ledger with figure(ID)"
    return (
        f"{where}: typed quantity {quantity!r}; write it as a role, "
        f"{{calc}}`{quantity} <EXPRESSION>` or {{fig}}`{quantity} <FIGURE ID>`"
    )


def find_typed(markdown: str, where: str, *, first_line: int = 1) -> list[str]:
    """One line for every typed quantity of a MyST source: a page, a cell, a note of the ledger.

    Args:
        markdown: the source.
        where: what to call it, such as "book/kv_cache.md".
        first_line: the number of the source's first line.

    >>> find_typed("Weights take 26 GB.", "book/weights.md")[0].partition(";")[0]
    "book/weights.md:1: typed quantity '26 GB'"
    """
    page = _Page(markdown, front_matter=first_line == 1)
    return [_problem(f"{where}:{first_line + line - 1}", quantity) for line, quantity in page.walk()]


def find_typed_code(code: str, where: str, *, parameters: bool = False, docstrings: bool = True) -> list[str]:
    """One line for every typed quantity in Python code that speaks to a reader."""
    return [
        _problem(f"{where}:{line}", quantity, code=True)
        for line, quantity in _in_code(code, 1, parameters=parameters, docstrings=docstrings)
    ]


def _spoken(metadata: object) -> Iterator[str]:
    match metadata:
        case str():
            yield metadata
        case Mapping():
            for key, value in metadata.items():
                if not _LAYOUT.fullmatch(key):
                    yield from _spoken(value)
        case list():
            for value in metadata:
                yield from _spoken(value)


def find_typed_notebook(notebook: Mapping[str, Any], where: str) -> list[str]:
    """One line for every typed quantity in the cells of a notebook (parsed JSON); outputs are computed."""
    problems = []
    for number, cell in enumerate(notebook["cells"], 1):
        source = "".join(cell["source"])
        place = f"{where}:cell {number}"
        metadata = cell.get("metadata", {})
        if cell["cell_type"] == "code":
            problems += find_typed_code(source, place, parameters="parameters" in metadata.get("tags", ()))
        else:
            page = _Page(source, front_matter=cell["cell_type"] == "raw")
            problems += [_problem(f"{place}:{line}", quantity) for line, quantity in page.walk()]
        for text in _spoken({key: value for key, value in metadata.items() if key != "tags"}):
            problems += [_problem(place, quantity) for _, quantity in _in_block(text, 1)]
    return problems


def find_typed_file(path: Path, where: str) -> list[str]:
    """One line for every typed quantity of a file: .md, .ipynb, .py (no docstrings), else plain lines."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return find_typed_notebook(json.loads(text), where)
    if path.suffix == ".py":
        return find_typed_code(text, where, docstrings=False)
    if path.suffix == ".md":
        return find_typed(text, where)
    return [
        _problem(f"{where}:{number}", quantity)
        for number, line in enumerate(text.splitlines(), 1)
        for _, quantity in _in_block(line.partition("#")[0], number)
    ]
