"""Releases: versions of an engine in order, and which one's rules price another."""

from collections.abc import Sequence

from vlmmem.errors import InputError
from vlmmem.record import record

__all__ = ["Release", "find_release", "parse_version"]

_LONGEST = 60


@record(frozen=True, slots=True)
class Release:
    """The release that is priced: `version` names the one whose rules are used, `order` sorts it.

    `asked` is what the user named, empty where the newest known was taken; `note` says in one line which known
    release stands for one that is not known.
    """

    version: str
    order: tuple[int, ...]
    asked: str = ""
    note: str = ""

    def since(self, version: str) -> bool:
        """Whether the rules of that version, or later ones, are used.

        >>> Release("0.19", (0, 19)).since("0.8.5"), Release("0.6", (0, 6)).since("0.8.5")
        (True, False)
        """
        return self.order >= parse_version(version)


def parse_version(text: str) -> tuple[int, ...]:
    """The numbers of a version: 0.8.5.post1 is (0, 8, 5), b4567 is (4567,).

    Raises:
        InputError: the text names no version.

    >>> parse_version("v0.8.5.post1"), parse_version("b4567"), parse_version("0.19.0rc1")
    ((0, 8, 5), (4567,), (0, 19, 0))
    """
    numbers: list[int] = []
    rest = text.strip().lower()
    for piece in (rest[1:] if rest[:1] in ("v", "b") else rest).split("."):
        digits = ""
        for letter in piece:
            if not ("0" <= letter <= "9"):
                break
            digits += letter
        if not digits:
            break
        numbers.append(int(digits[:9]))
        if digits != piece:
            break
    if not numbers or len(text) > _LONGEST:
        raise InputError(f"release {text[:_LONGEST]!r} names no version; one such as 0.19 is needed")
    return tuple(numbers)


def find_release(engine: str, known: Sequence[str], asked: str | None) -> Release:
    """The release whose rules price the one that is asked for.

    A known release stands for itself and for its later patches; one between two known ones is priced by the older;
    one older or newer than all by the nearest, and the note says so.

    Args:
        engine: the engine's name, for the note.
        known: the releases whose code was read, in order.
        asked: the user's version; None is the newest known.

    Raises:
        InputError: `asked` names no version.

    >>> find_release("vllm", ("0.8", "0.19"), "0.19.1").note
    ''
    >>> find_release("vllm", ("0.8", "0.19"), "0.12").note
    'vllm 0.12 was not read: the rules of 0.8 are used'
    """
    if asked is None:
        return Release(known[-1], parse_version(known[-1]))
    order = parse_version(asked)
    older = [version for version in known if parse_version(version) <= order]
    used = older[-1] if older else known[0]
    read = parse_version(used)
    exact = order[: len(read)] == read
    note = "" if exact else f"{engine} {asked} was not read: the rules of {used} are used"
    return Release(used, read, asked, note)
