"""The table of errors: per engine, release, quantity and split, and whether each target is met."""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from vlmmem.accuracy.priced import Prediction, predictions
from vlmmem.accuracy.statistics import bias, mean_absolute, median_absolute
from vlmmem.catalog.entries import Entry
from vlmmem.engines.releases import parse_version
from vlmmem.errors import InputError
from vlmmem.measured import runs
from vlmmem.record import record
from vlmmem.strict_json import read_json

__all__ = [
    "ALL",
    "LEFT_OUT",
    "Line",
    "Target",
    "Verdict",
    "line_of",
    "load_reasons",
    "reasons",
    "table",
    "targets",
    "verdicts",
]

_HERE = Path(__file__).parent

ALL = "all"
"""The release of a line that adds up every release."""

LEFT_OUT = "left out"
"""The split of a line that adds up both ways of leaving out."""

_STATISTICS = ("mean", "within rounding")


@record(frozen=True, slots=True)
class Line:
    """The errors of one quantity, of one engine, release and split.

    Attributes:
        engine, release, quantity, split: whose errors; release "all" and split "left out" add up.
        records: how many.
        stated: of how many the run states all that the figure follows from.
        mean, median: of the absolute errors, as shares of the printed figures.
        bias: the mean error with its sign, above zero where predictions are too large.
        within_rounding: share of the records whose printed digits leave the prediction room.
        worst, worst_error: the run that is farthest off, and by how much.
    """

    engine: str
    release: str
    quantity: str
    split: str
    records: int
    stated: int
    mean: float
    median: float
    bias: float
    within_rounding: float
    worst: str
    worst_error: float

    def json(self) -> dict[str, Any]:
        """The same as a JSON object, with the reason for the worst case."""
        found = {name: getattr(self, name) for name in self.__slots__}
        return {**found, "reason": reasons().get((self.worst, self.quantity))}


@record(frozen=True, slots=True)
class Target:
    """A promise about left-out records: `statistic` (mean absolute error, or share within rounding) and its limit."""

    id: str
    says: str
    engines: tuple[str, ...]
    quantities: tuple[str, ...]
    statistic: str
    limit: float
    generation: str = ""

    def covers(self, item: Prediction) -> bool:
        """Whether a prediction is of the engines, generation and quantities of the target."""
        named = item.engine in self.engines and item.quantity in self.quantities
        return named and self.generation in ("", item.generation)

    def misses(self, item: Prediction) -> bool:
        """Whether one prediction alone would miss the target."""
        return not item.within_rounding if self.statistic == "within rounding" else abs(item.error) > self.limit


@record(frozen=True, slots=True)
class Verdict:
    """A target and what left-out records say of it: `value` is None where there is no record."""

    target: Target
    records: int
    value: float | None
    stated_records: int
    stated_value: float | None

    @property
    def met(self) -> bool | None:
        """Whether the target is met on all left-out records; None where there is none."""
        return _met(self.target, self.value)

    @property
    def stated_met(self) -> bool | None:
        """The same on the records whose run states all that the figure follows from."""
        return _met(self.target, self.stated_value)

    def json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        target = {name: getattr(self.target, name) for name in ("id", "says", "statistic", "limit")}
        names = ("records", "value", "met", "stated_records", "stated_value", "stated_met")
        return {**target, **{name: getattr(self, name) for name in names}}


def _met(target: Target, value: float | None) -> bool | None:
    if value is None:
        return None
    return value >= target.limit if target.statistic == "within rounding" else value <= target.limit


@cache
def targets() -> tuple[Target, ...]:
    """The project's targets, from data.

    >>> targets()[0].says
    'weights within 1 % (mean)'
    """
    path = _HERE / "targets.json"
    top = Entry(read_json(path), path.name)
    found = []
    for item in top.value("targets"):  # type: ignore[attr-defined]
        entry = Entry(item, path.name)
        engines, quantities = entry.value("engines"), entry.value("quantities")
        found.append(
            Target(
                entry.text("id"),
                entry.text("says"),
                tuple(engines),  # type: ignore[arg-type]
                tuple(quantities),  # type: ignore[arg-type]
                entry.one_of("statistic", _STATISTICS),
                float(entry.value("limit")),  # type: ignore[arg-type]
                entry.one_of("generation", ("V0", "V1")) if entry.has("generation") else "",
            )
        )
        entry.done()
    top.done()
    return tuple(found)


def line_of(items: Sequence[Prediction], engine: str, release: str, quantity: str, split: str) -> Line:
    """The errors of some predictions as one line.

    Raises:
        InputError: there is no prediction.
    """
    if not items:
        raise InputError(f"{engine} {release} {quantity}: no record; at least one is needed")
    errors = [item.error for item in items]
    worst = max(items, key=lambda item: abs(item.error))
    return Line(
        engine,
        release,
        quantity,
        split,
        len(items),
        sum(item.stated for item in items),
        mean_absolute(errors),
        median_absolute(errors),
        bias(errors),
        sum(item.within_rounding for item in items) / len(items),
        worst.run,
        worst.error,
    )


def table(
    of: Iterable[Prediction] | None = None,
    *,
    engine: str | None = None,
    quantity: str | None = None,
    split: str | None = None,
    stated: bool = False,
) -> tuple[Line, ...]:
    """The errors by engine, quantity, release and split, each with its sums.

    Args:
        of: predictions; those of the data set where none are given.
        engine: only this engine.
        quantity: only this figure.
        split: only this split; "left out" is both ways of leaving out.
        stated: only records whose run states all that the figure follows from.

    Raises:
        InputError: nothing is of that engine, quantity or split.

    >>> [line.records > 0 for line in table(engine="vllm", quantity="weights", split="left out")][:1]
    [True]
    """
    found = list(predictions()[0] if of is None else of)
    for name, asked in (("engine", engine), ("quantity", quantity), ("split", split)):
        if asked is None:
            continue
        known = {str(getattr(item, name)) for item in found} | ({LEFT_OUT} if name == "split" else set())
        if asked not in known:
            raise InputError(f"{name} {asked[:40]!r} has no record; one of {', '.join(sorted(known))} is needed")
        found = [item for item in found if _is_of(item, name, asked)]
    if stated:
        found = [item for item in found if item.stated]
    lines = []
    for engine_, quantity_ in dict.fromkeys((item.engine, item.quantity) for item in found):
        of_both = [item for item in found if (item.engine, item.quantity) == (engine_, quantity_)]
        releases = sorted({item.release for item in of_both}, key=parse_version)
        for release in (ALL, *releases):
            of_release = [item for item in of_both if release in (ALL, item.release)]
            for name in (LEFT_OUT, *sorted({item.split for item in of_release})):
                items = [item for item in of_release if _is_of(item, "split", name)]
                if items and split in (None, name):
                    lines.append(line_of(items, engine_, release, quantity_, name))
    return tuple(sorted(lines, key=lambda line: (line.engine, line.quantity, line.release != ALL, parse_release(line))))


def _is_of(item: Prediction, field: str, asked: str) -> bool:
    return bool(getattr(item, field) == asked) or (field == "split" and asked == LEFT_OUT and item.left_out)


def parse_release(line: Line) -> tuple[int, ...]:
    """What sorts the releases of lines; the sum of all comes first."""
    return () if line.release == ALL else parse_version(line.release)


def verdicts(of: Iterable[Prediction] | None = None) -> tuple[Verdict, ...]:
    """Each target on the left-out records: all of them, and those whose run states everything."""
    found = [item for item in (predictions()[0] if of is None else of) if item.left_out]
    given = []
    for target in targets():
        items = [item for item in found if target.covers(item)]
        stated = [item for item in items if item.stated]
        given.append(Verdict(target, len(items), _value(target, items), len(stated), _value(target, stated)))
    return tuple(given)


def _value(target: Target, items: Sequence[Prediction]) -> float | None:
    if not items:
        return None
    if target.statistic == "within rounding":
        return sum(item.within_rounding for item in items) / len(items)
    return mean_absolute([item.error for item in items])


def load_reasons(path: Path) -> dict[tuple[str, str], str]:
    """The reasons of a file, by run and quantity.

    Raises:
        InputError: a reason names a run that is not in the data, stands twice or says nothing.
    """
    top = Entry(read_json(path), path.name)
    known = {run.id for run in runs()}
    found: dict[tuple[str, str], str] = {}
    for item in top.value("reasons"):  # type: ignore[attr-defined]
        entry = Entry(item, path.name)
        run, why = entry.text("run"), entry.text("reason")
        names = entry.value("quantities")
        entry.done()
        if run not in known:
            raise InputError(f"{path.name}: {run[:100]!r} is no run of the data set; the id of one is needed")
        for quantity in names:  # type: ignore[attr-defined]
            if not why.strip() or (run, quantity) in found:
                raise InputError(f"{path.name}: {run}: {quantity}: one reason, of some words, is needed")
            found[run, quantity] = why
    top.done()
    return found


@cache
def reasons() -> dict[tuple[str, str], str]:
    """Why the worst cases are off, by run and quantity."""
    return load_reasons(_HERE / "reasons.json")
