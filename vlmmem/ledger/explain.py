"""Which conventions print a published value, the likeliest first, and how easily that happens by luck.

The search runs over the closed list of conventions and a closed list of rules. A hit is worth little by itself: with
enough readings some value always prints the digits. So each hit says how many other cells of the same documented table
its convention prints, and the answer says how much of the range the search covers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

from vlmmem import catalog
from vlmmem.documented import documented_models
from vlmmem.errors import InputError
from vlmmem.ledger import ERRATA, Figure, load
from vlmmem.ledger.conventions import Convention, Settings, conventions, literal
from vlmmem.ledger.entry import prints
from vlmmem.ledger.formulas import BINARY_K, FORMULAS, Arguments
from vlmmem.units import BYTES, Printed

CONTEXTS: tuple[int | str, ...] = ("4k", "8k", "32k", "128k", 4096, 8192)
"""Contexts that the documents plan with; "4k" is subject to the reading of k, 4096 is not."""
BATCHES = (1, 4, 8, 10, 16, 32)
"""Batches that the documents plan with."""
MOST = 10**12
"""The largest context, and the largest batch, that can be asked for."""
SHARES = ("0.05", "0.1", "0.2")
"""Overheads that the documents add: the two ends of 5-10 %, and the 1.2 of their function."""
LITERAL = "literal"


@dataclass(frozen=True, slots=True)
class Hit:
    """One way to print the value.

    Attributes:
        convention: id of the convention, or "literal".
        formula: id of the rule.
        arguments: what the rule was given.
        value: what it gives, in the printed unit.
        cells, of: how many cells of the documented table that holds the value the convention prints, and of how many;
            where no table holds it, how many figures of the ledger rest on the convention by the same rule, of all.
    """

    convention: str
    formula: str
    arguments: dict[str, Any]
    value: Fraction
    cells: int
    of: int

    def json(self) -> dict[str, Any]:
        """The hit as the JSON interface shows it."""
        return {
            "convention": self.convention,
            "formula": self.formula,
            "arguments": self.arguments,
            "value": float(self.value),
            "cells_printed": self.cells,
            "cells": self.of,
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer: hits, likeliest first, and the chance that a value of that precision is hit by luck.

    ``chance`` is the share of the values printable at that precision, between half and twice the published one,
    that the search can print. ``table`` is the documented table that holds the value, ``figures`` the entries that
    print it.
    """

    value: str
    hits: tuple[Hit, ...]
    searched: int
    chance: Fraction
    table: str | None
    figures: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """The answer as the JSON interface shows it."""
        return {
            "value": self.value,
            "hits": [hit.json() for hit in self.hits],
            "readings_searched": self.searched,
            "chance_of_a_hit_by_luck": float(self.chance),
            "table": self.table,
            "figures": list(self.figures),
        }


def _cases(
    printed: Printed, model: str | None, context: int | None, batch: int | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every rule with every set of arguments that could be meant."""
    models = [catalog.find_model(model).id] if model else [item.id for item in documented_models()]
    contexts = (
        CONTEXTS if context is None else (context, f"{context // BINARY_K}k") if context % BINARY_K == 0 else (context,)
    )
    batches = BATCHES if batch is None else (batch,)
    for name in models:
        if printed.unit.upper() in ("KB", "KIB"):
            for tensors in (1, 2):
                yield "kv-per-token", {"model": name, "tensors": tensors}
            continue
        if context is None and batch is None:
            for form in ("fp32", "fp16", "int8", "int4"):
                yield "weights", {"model": name, "format": form}
        for length, requests in product(contexts, batches):
            base = {"model": name, "context": length, "batch": requests}
            yield "kv-cache", base
            for share in SHARES:
                yield "total", {**base, "format": "fp16", "share": share}


def _same_case(item: Figure, formula: str, arguments: dict[str, Any]) -> bool:
    return item.formula_id == formula and all(
        name in item.arguments and str(item.arguments[name]) == str(value) for name, value in arguments.items()
    )


def explain(value: str, model: str | None = None, context: int | None = None, batch: int | None = None) -> Explanation:
    """Search the conventions for those that print ``value`` (such as "99.0GB").

    Args:
        value: as published; its decimals are its precision. Units: GB (any base) or KB a token.
        model: a catalogue name, where it is known; otherwise all are searched.
        context: tokens of one request, where they are known; otherwise those that the documents plan with.
        batch: requests, where they are known; otherwise those that the documents plan with.

    Raises InputError for a value without number and unit, or a model that the catalogue does not know.
    """
    printed = Printed.parse(value)
    if printed.unit.upper() not in ("GB", "GIB", "KB", "KIB"):
        raise InputError(f"{value!r}: a value with its unit is needed, such as 99.0GB or 800KB")
    if printed.low != printed.high or not printed.low:
        raise InputError(f"{value!r}: one value above zero is needed, such as 99.0GB")
    for name, count in (("--context", context), ("--batch", batch)):
        if count is not None and not 1 <= count <= MOST:
            raise InputError(f"{name} is {count}; a whole number from 1 to {MOST:,} is needed")
    book = load()
    quoted = tuple(
        item
        for item in book.figures
        if item.formula_id
        and item.kind != "recommendation"
        and item.unit.upper() == printed.unit.upper()
        and item.printed.low == printed.low == item.printed.high
    )
    readings: dict[str, tuple[Settings, Convention | None]] = {
        name: (settings, item)
        for name, settings, item in (
            (LITERAL, literal(), None),
            *((name, item.settings, item) for name, item in conventions().items()),
        )
        if _means(printed.unit, settings)
    }
    hits: list[Hit] = []
    seen: set[int] = set()
    step = 2 * printed.half_step
    digits = (printed.low - printed.half_step, printed.low + printed.half_step)
    near = (printed.low / 2, printed.low * 2)
    searched = 0
    for formula, arguments in _cases(printed, model, context, batch):
        given = Arguments(f"explain {value}", arguments, lambda name: book.by_id[name].printed)
        home = next((item for item in quoted if _same_case(item, formula, arguments)), None)
        stands = False
        for name, (settings, convention) in readings.items():
            ends = FORMULAS[formula].compute(given, settings).range
            assert ends is not None  # the rules that are searched all give a number
            number = ends[0]
            searched += 1
            if near[0] <= number <= near[1]:
                seen.add(number // step)
            if stands or not digits[0] <= number <= digits[1]:
                continue
            # the literal reading comes first, and where it prints the value no convention is needed
            stands = name == LITERAL
            if home and home.table:
                table = book.table(home.table)
                same = [cell for cell in table if cell.formula_id == formula]
                cells, of = sum(prints(cell, settings) for cell in same), len(same)
            else:
                rests = convention.id if convention else None
                cells = sum(
                    item.formula_id == formula and item.convention_id == rests and item.verdict not in ERRATA
                    for item in book.figures
                )
                of = len(book.figures)
            hits.append(Hit(name, formula, arguments, number, cells, of))
    known = {id(hit) for hit in hits if any(_same_case(item, hit.formula, hit.arguments) for item in quoted)}
    hits.sort(
        key=lambda hit: (
            id(hit) not in known,
            -Fraction(hit.cells, hit.of),
            _distance(hit, readings),
            str(hit.arguments),
        )
    )
    window = Fraction(3, 2) * printed.low / step
    return Explanation(
        value,
        tuple(hits),
        searched,
        min(Fraction(len(seen)) / window, Fraction(1)),
        next((item.table for item in quoted if item.table), None),
        tuple(item.id for item in quoted),
    )


def _means(unit: str, settings: Settings) -> bool:
    """Whether a reading keeps the base of a unit that names it; GB and KB may stand for either."""
    if unit.upper() == "GIB":
        return settings.weights_gb == settings.kv_gb == BYTES["GiB"]
    return unit.upper() != "KIB" or settings.kb == BYTES["KiB"]


def _distance(hit: Hit, readings: dict[str, tuple[Settings, Convention | None]]) -> int:
    convention = readings[hit.convention][1]
    return 0 if convention is None else len(convention.changes)
