"""Reading: what a reader found in a log, before it is a Run; and the rules that all readers share."""

from collections.abc import Iterable

from vlmmem.errors import InputError
from vlmmem.measured.run import Quantity

__all__ = ["Reading", "fullest", "number", "printed"]


class Reading:
    """What one log says.

    Attributes:
        fields: what is known of the run, by the names of `Run`'s JSON (version, model, tp, context, ...).
        measured: the figures of the fullest GPU by name.
        devices: the figures of each device, where several print their own.
        evidence: the lines that hold the figures.
        missing: figures that this engine prints when it starts and that are not in the log.
        notes: one sentence for each choice that was made.
    """

    def __init__(self) -> None:
        self.fields: dict[str, object] = {}
        self.measured: dict[str, Quantity] = {}
        self.devices: dict[str, dict[str, Quantity]] = {}
        self.evidence: list[str] = []
        self.missing: list[str] = []
        self.notes: list[str] = []

    def add(self, device: str, name: str, quantity: Quantity, line: str) -> None:
        """Take a figure of a device.

        Raises:
            InputError: the device printed another figure of that name before.
        """
        figures = self.devices.setdefault(device, {})
        before = figures.setdefault(name, quantity)
        if before.value != quantity.value:
            raise InputError(
                f"{name} of {device or 'one process'} is {before.value} {before.unit} and later {quantity.value} "
                f"{quantity.unit}; a log of one start is needed"
            )
        self.evidence.append(line)


def number(text: str) -> int | float:
    """The number that digits with separators of thousands and a point stand for.

    >>> number("563,744"), number("17.20"), number("-0.45")
    (563744, 17.2, -0.45)
    """
    plain = text.replace(",", "").replace("_", "")
    try:
        return float(plain) if "." in plain else int(plain)
    except ValueError:
        raise InputError(f"{text[:40]!r} is no number; digits are needed") from None


def printed(text: str, unit: str, means: str = "", context: int | None = None) -> Quantity:
    """The quantity that was printed: its digits behind the point are kept.

    >>> printed("0.90", "GiB")
    Quantity(value=0.9, unit='GiB', means='', decimals=2, context=None)
    """
    value = number(text)
    behind = len(text.partition(".")[2])
    shown = len(str(value).partition(".")[2].rstrip("0"))
    return Quantity(value, unit, means, behind if behind != shown else None, context)


def fullest(reading: Reading, names: Iterable[str], least: Iterable[str] = ()) -> None:
    """Fill `measured` from the devices: the largest of each of `names`, the smallest of each of `least`.

    Where the devices differ a note says which one was taken.
    """
    smallest = set(least)
    for name in (*names, *least):
        having = {device: part[name] for device, part in reading.devices.items() if name in part}
        if not having:
            continue
        choose = min if name in smallest else max
        device = choose(having, key=lambda each: having[each].value)
        reading.measured[name] = having[device]
        if len({quantity.value for quantity in having.values()}) > 1:
            word = "least" if name in smallest else "most"
            reading.notes.append(f"{name} is that of {device}, the {word} of {len(having)}")
