"""What of a document the ledger accounts for: each number on each line, by an entry that quotes it or by an exclusion.

The document's text is not kept. For each of its lines the project keeps a digest, the numbers that stand on it and, for
each quotation that was found on it to the letter, the quotation's digest and which of those numbers it holds
(`lines/DOCUMENT.json`, written by `record`). So a changed quotation or line of an entry is seen without the text; with
the text (`read_text`), the lines that differ are seen too.

What a number is (`numbers_on`): digits with their thousands, decimals and exponent, as a reader sees them. Digits of a
name are none: those behind a letter or an underscore, and all those of a word that begins with a letter, where a word is
held together by single hyphens and points.

>>> [number.text for number in numbers_on("LLaMA-2 13B, 1,049.6 GB, 40-60%, 0.50, 4k-128k, 8e9 weights")]
['13', '1,049.6', '40', '60', '0.50', '4', '128', '8e9']
>>> [number.text for number in numbers_on("INT8, A100 80GB, GPT-4, Llama-3.1-8B, v0.6.3, kv_2, Q4_K_M, n², √L, [B2]")]
['80']
>>> [number.text for number in numbers_on("2× of 2024-03-09, arxiv.org/pdf/2305.13245v2.pdf, (seq=4096), :.2f, 1024 ** 3")]
['2', '2024', '03', '09', '2305.13245', '4096', '2', '1024', '3']
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

_NUMBER = re.compile(r"[0-9]+(?:,[0-9]{3}(?![0-9]))*(?:\.[0-9]+)*(?:e[+-]?[0-9]+(?!\w))?")
_WORD = re.compile(r"\w+(?:[-.]\w+)*")
_EMPHASIS = re.compile(r"(?<=\S)\*\*|\*\*(?=\S)")
DIGEST = 12
"""Hexadecimal digits of a digest: enough that no two texts of the project share one, too few to be anything else."""


class Number(NamedTuple):
    """A number and where it stands on its line."""

    text: str
    start: int
    stop: int


def numbers_on(line: str) -> list[Number]:
    """The numbers of a line, in order; digits of names are none (see the module's examples)."""
    names = [word.span() for word in _WORD.finditer(line) if not word[0][0].isdecimal()]
    found = []
    for match in _NUMBER.finditer(line):
        start = match.start()
        glued = start > 0 and (line[start - 1].isalpha() or line[start - 1] == "_")
        if not glued and not any(low <= start < high for low, high in names):
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
    return sha256(as_read(text).encode()).hexdigest()[:DIGEST]


def runs_of(quotation: str, line: str) -> list[tuple[int, int]]:
    """Where a quotation stands on a line: for each place the numbers that it holds, from one index up to another.

    A place that cuts a word or a number in two is none: "0.5 GB" does not stand in "140.5 GB".

    >>> runs_of("0.5 GB", "| 1 | 0.5 GB | 140 GB | 140.5 GB |")
    [(1, 2)]
    >>> runs_of("2-4", "2-4× A100 40GB with TP=2-4")
    [(0, 2), (3, 5)]
    """
    standing = numbers_on(line)
    cuts = {place for match in _NUMBER.finditer(line) for place in range(match.start() + 1, match.end())}
    cuts |= {place for match in re.finditer(r"\w+", line) for place in range(match.start() + 1, match.end())}
    found, start = [], line.find(quotation)
    while quotation and start >= 0:
        stop = start + len(quotation)
        if start not in cuts and stop not in cuts:
            first = sum(number.start < start for number in standing)
            found.append((first, sum(number.start < stop for number in standing)))
        start = line.find(quotation, start + 1)
    return found
