"""Ranges: between which sizes a figure will lie, from the errors of the runs that the rules may be fitted on.

Split conformal prediction: the half-width is a quantile of the sizes of measured / predicted - 1, so that a further run
of the same kind lies within it as often as the level says. Runs of one model resemble each other, and the next run will
be of another: each model counts once, with the run that is farthest off. The quantile is taken from the engine's own
release where that has enough models and more than one publisher, whose runs share a machine and its settings, else from
all releases of the engine; where these are too few, it is assumed, and says so. Whether the level holds is measured
on the runs that were left out.
"""

import json
from collections.abc import Iterable
from functools import cache
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmmem.accuracy.statistics import conformal
from vlmmem.catalog.entries import Entry
from vlmmem.errors import InputError
from vlmmem.record import record
from vlmmem.strict_json import read_json

if TYPE_CHECKING:
    from vlmmem.accuracy.priced import Prediction
    from vlmmem.engines.reservation import Reservation

__all__ = ["Width", "coverage", "covered", "fit", "interval", "ranges", "stale", "width", "write"]

_HERE = Path(__file__).parent
_WIDTHS, _RULES = _HERE / "intervals.json", _HERE / "interval_rules.json"
_ALL = "all"
_OF_THE_POOL = ("kv_pool", "kv_tokens", "kv_blocks", "max_concurrency")
"""They are off by the same share, as the pool's bytes give the others: one width for all."""

_STEPS = 10_000  # half-widths are kept in steps of a hundredth of a percent, rounded up


@record(frozen=True, slots=True)
class Width:
    """How far a figure may lie from its estimate.

    Attributes:
        engine, release, quantity: whose; release "all" is every release of the engine.
        records: from how many fitted runs.
        models: of how many models; with too few of them `basis` is assumed.
        half_width: as a share of the estimate.
        basis: measured, or assumed.
    """

    engine: str
    release: str
    quantity: str
    records: int
    models: int
    half_width: float
    basis: str


@cache
def _rules() -> dict[str, Any]:
    found: dict[str, Any] = read_json(_RULES)
    return found


def level() -> float:
    """How often a figure shall lie in its range.

    >>> level()
    0.9
    """
    return float(_rules()["level"])


def _width(engine: str, release: str, quantity: str, residuals: list[tuple[str, float]]) -> Width:
    rules = _rules()
    farthest: dict[str, float] = {}
    for model, size in residuals:
        farthest[model] = max(abs(size), farthest.get(model, 0.0))
    sizes = list(farthest.values())
    found = conformal(sizes, rules["level"])
    basis = "assumed" if found is None else "measured"
    if found is None:
        found = max([rules["assumed"].get(quantity, rules["otherwise"]), *sizes])
    half = ceil(max(found, rules["least"]) * _STEPS - 1e-6) / _STEPS
    return Width(engine, release, quantity, len(residuals), len(sizes), half, basis)


def fit(of: Iterable["Prediction"]) -> tuple[Width, ...]:
    """The widths from predictions: of fitted runs alone, and of those that state all that the figure follows from."""
    kept = [item for item in of if item.split == "fitted" and item.stated]
    found = []
    for engine, quantity in sorted({(item.engine, item.quantity) for item in kept}):
        alike = _OF_THE_POOL if quantity in _OF_THE_POOL else (quantity,)
        of_both = [item for item in kept if item.engine == engine and item.quantity in alike]
        for release in (_ALL, *sorted({item.release for item in of_both})):
            of_release = [item for item in of_both if release in (_ALL, item.release) and item.predicted > 0]
            residuals = [(item.model, item.measured / item.predicted - 1) for item in of_release]
            made = _width(engine, release, quantity, residuals)
            publishers = {item.publisher for item in of_release}
            # A release with too few records of its own, or with those of one study alone, takes the engine's.
            if release == _ALL or (made.basis == "measured" and len(publishers) > 1):
                found.append(made)
    return tuple(found)


def _text(widths: Iterable[Width]) -> str:
    names = Width.__slots__
    rows = [json.dumps({name: getattr(item, name) for name in names}) for item in widths]
    return '{\n "widths": [\n  ' + ",\n  ".join(rows) + "\n ]\n}\n"


def write(of: Iterable["Prediction"], path: Path = _WIDTHS) -> None:
    """Write the widths that predictions give."""
    path.write_text(_text(fit(of)), encoding="utf-8")
    _known.cache_clear()


def stale(of: Iterable["Prediction"], path: Path = _WIDTHS) -> tuple[str, ...]:
    """The widths in which a file and the predictions differ, one line each; none where the file is fresh."""
    now = {(item.engine, item.release, item.quantity): item for item in fit(of)}
    kept = {(item.engine, item.release, item.quantity): item for item in _load(path)}
    return tuple(
        f"{path.name}: {' '.join(key)}: {_told(kept.get(key))} is stored, {_told(now.get(key))} is computed; "
        "python -m vlmmem.accuracy write is needed"
        for key in sorted(now.keys() | kept.keys())
        if now.get(key) != kept.get(key)
    )


def _told(item: Width | None) -> str:
    return "none" if item is None else f"{item.half_width} from {item.records} ({item.basis})"


def _load(path: Path) -> tuple[Width, ...]:
    top = Entry(read_json(path), path.name)
    found = []
    for item in top.value("widths"):  # type: ignore[attr-defined]
        entry = Entry(item, path.name)
        half, count, models = entry.value("half_width"), entry.value("records"), entry.value("models")
        if type(half) is not float or not half > 0 or type(count) is not int or type(models) is not int:
            entry.wrong("half_width", half, "a share above zero, beside a count of records")
        basis = entry.one_of("basis", ("measured", "assumed"))
        found.append(
            Width(entry.text("engine"), entry.text("release"), entry.text("quantity"), count, models, half, basis)
        )
        entry.done()
    top.done()
    return tuple(found)


@cache
def _known() -> dict[tuple[str, str, str], Width]:
    return {(item.engine, item.release, item.quantity): item for item in _load(_WIDTHS)}


def width(engine: str, release: str, quantity: str) -> Width:
    """How far a figure may lie from its estimate: by the release, by the engine, or assumed.

    >>> width("vllm", "0.19", "no such quantity").basis
    'assumed'
    """
    known = _known()
    return (
        known.get((engine, release, quantity))
        or known.get((engine, _ALL, quantity))
        or _width(engine, _ALL, quantity, [])
    )


def interval(engine: str, release: str, quantity: str, size: float) -> tuple[float, float, int]:
    """Between which sizes a figure lies nine times in ten, and from how many runs that is known.

    Args:
        engine: the engine's name.
        release: the release whose rules gave the estimate.
        quantity: the figure: weights, activation_peak, non_torch, cuda_graph, kv_pool, kv_tokens, max_concurrency ...
        size: the estimate, in bytes, tokens or sequences.

    Raises:
        InputError: the estimate is below zero.

    >>> low, high, records = interval("vllm", "0.19", "weights", 10**9)
    >>> low < 10**9 < high
    True
    """
    if size < 0:
        raise InputError(f"{quantity}: an estimate of {size} was given; 0 or more is needed")
    found = width(engine, release, quantity)
    # What is measured is the estimate times 1 + residual; a size is never below zero.
    low, high = max(0.0, size * (1 - found.half_width)), size * (1 + found.half_width)
    return (int(low), ceil(high), found.records) if isinstance(size, int) else (low, high, found.records)


_NO_ESTIMATES = (
    "kv_tokens given the pool",
    "kv_blocks given the pool",
    "max_concurrency given the pool",
    "bytes a KV token",
)
_RANGED = {
    "weights_bytes": "weights",
    "activation_bytes": "activation_peak",
    "kv_pool_bytes": "kv_pool",
    "kv_tokens": "kv_tokens",
    "kv_blocks": "kv_blocks",
    "max_concurrency": "max_concurrency",
}
_RUNTIME = {"runtime:non_torch": "non_torch", "runtime:graphs": "cuda_graph"}


def ranges(reservation: "Reservation") -> dict[str, dict[str, Any]]:
    """The range of each figure of a reservation, under the names of its JSON: low, high, level, records, basis.

    >>> from vlmmem.engines.reservation import Reservation
    >>> from vlmmem.terms import Term
    >>> ranges(Reservation("vllm", "0.19", (Term("weights", 10**9, "", "derived", ""),)))["weights_bytes"]["level"]
    0.9
    """
    told = reservation.json()
    found: dict[str, dict[str, Any]] = {}
    for name, quantity in _RANGED.items():
        if told.get(name):
            found[name] = _range(reservation, [(quantity, told[name])])
    parts = [
        (_RUNTIME[term.name], term.bytes) for term in reservation.terms if term.name in _RUNTIME and term.bytes > 0
    ]
    if parts:
        found["runtime_bytes"] = _range(reservation, parts)
    return found


def _range(reservation: "Reservation", parts: list[tuple[str, Any]]) -> dict[str, Any]:
    """The range of a sum: the parts' ends added up."""
    widths = [width(reservation.engine, reservation.version, quantity) for quantity, _ in parts]
    ends = [interval(reservation.engine, reservation.version, quantity, size) for quantity, size in parts]
    return {
        "low": sum(low for low, _, _ in ends),
        "high": sum(high for _, high, _ in ends),
        "level": level(),
        "records": min(records for _, _, records in ends),
        "basis": "assumed" if any(item.basis == "assumed" for item in widths) else "measured",
    }


def covered(item: "Prediction") -> bool:
    """Whether the printed figure lies in the range of its estimate, up to the figure's own rounding."""
    low, high, _ = interval(item.engine, item.release, item.quantity, float(item.predicted))
    return item.low <= high and item.high >= low


def coverage(of: Iterable["Prediction"]) -> tuple[int, int]:
    """How many figures of left-out runs lie in their ranges, and of how many: those whose run states everything.

    A figure that starts from the printed pool is no estimate, and does not count.
    """
    found = [covered(item) for item in of if item.left_out and item.stated and item.quantity not in _NO_ESTIMATES]
    return sum(found), len(found)
