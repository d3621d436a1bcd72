"""Which modules a list in a quantisation config names: the libraries' own rules, and names as checkpoints write them.

Lists come from strangers' files. A pattern that could take long to match is refused: a group that repeats, or more
than `MOST_REPEATS` repeats.
"""

import re
from collections.abc import Iterable
from fnmatch import translate
from time import process_time

from vlmmem.errors import InputError

__all__ = ["MOST_PATTERNS", "MOST_REPEATS", "MOST_SECONDS", "Names", "spellings"]

MOST_REPEATS = 5
"""Repeats in one pattern at most: each may cost the length of a name once more."""

MOST_PATTERNS = 64
"""Patterns in one list at most; names that are written out are not counted."""

MOST_SECONDS = 0.4
"""What matching a model's names against the patterns of one list may take: a hundred times what a real list does."""

_LONGEST = 300
_LITERAL = re.compile(r"[\w.\-]+")


class Names:
    """A list of modules, by one of three rules.

    "exact": names, and patterns behind `re:` that match from the start (compressed-tensors 0.20.0, utils/match.py,
    `match_name`). "modules": names that match from the start up to a dot, patterns likewise, and endings (transformers
    5.23.0, quantizers/quantizers_utils.py, `should_convert_module`). "wildcards": names with `*`, each with what is
    below it (ModelOpt's exclude_modules).

    >>> names = Names(["lm_head", "model.layers.0.mlp"], "modules", "config")
    >>> names.match(["model.layers.0.mlp.gate_proj"]), names.match(["model.layers.10.mlp.gate_proj"])
    (True, False)
    """

    def __init__(self, entries: Iterable[str], rule: str, where: str) -> None:
        self.where = where
        self._exact: set[str] = set()
        self._starts: tuple[str, ...] = ()
        self._ends: tuple[str, ...] = ()
        self._patterns: list[re.Pattern[str]] = []
        self._spent = 0.0
        self.by_layer = False
        for entry in dict.fromkeys(entries):
            self._add(entry, rule)

    def __bool__(self) -> bool:
        return bool(self._exact or self._starts or self._ends or self._patterns)

    def _add(self, entry: str, rule: str) -> None:
        self.by_layer = self.by_layer or any(letter.isdigit() for letter in entry)
        if rule == "exact":
            if entry.startswith("re:"):
                self._pattern(entry.removeprefix("re:"), entry)
            else:
                self._exact.add(entry)
        elif rule == "modules":
            self._ends += (entry,)
            if _LITERAL.fullmatch(entry):
                self._add_module(entry.rstrip("."))
            else:
                self._pattern(rf"(?:{entry})(?:(?<=\.)|(?=\.|$))", entry)
        elif entry.endswith("*") and not set("*?[") & set(entry[:-1]):
            self._starts += (entry[:-1],)
        elif set("*?[") & set(entry):
            self._pattern(translate(entry), entry)
        else:
            self._add_module(entry)

    def _add_module(self, entry: str) -> None:
        self._exact.add(entry)
        self._starts += (f"{entry}.",)

    def _pattern(self, pattern: str, entry: str) -> None:
        shown = entry if len(entry) <= 60 and entry.isprintable() else repr(entry[:60])
        if len(self._patterns) == MOST_PATTERNS:
            raise InputError(f"{self.where}: holds more than {MOST_PATTERNS} patterns; at most that many are read")
        if len(entry) > _LONGEST or not _short(entry):
            raise InputError(
                f"{self.where}: the pattern {shown} could take long to match; at most {MOST_REPEATS} repeats, none of a"
                " group, are read"
            )
        try:
            self._patterns.append(re.compile(pattern))
        except (re.error, RecursionError, OverflowError):
            raise InputError(f"{self.where}: {shown} is no pattern; a regular expression is needed") from None

    def match(self, names: Iterable[str]) -> bool:
        """Whether the list has one of these names, spellings of one module.

        Raises:
            InputError: its patterns took too long over the names so far.
        """
        return any(self._has(name) for name in names)

    def _has(self, name: str) -> bool:
        if name in self._exact or name.startswith(self._starts) or name.endswith(self._ends):
            return True
        return bool(self._patterns) and self._fits(name)

    def _fits(self, name: str) -> bool:
        start = process_time()
        for pattern in self._patterns:
            if pattern.match(name):
                return True
            if self._spent + process_time() - start > MOST_SECONDS:
                raise InputError(
                    f"{self.where}: its patterns take too long to match; names that are written out do not"
                )
        self._spent += process_time() - start
        return False


def _short(pattern: str) -> bool:
    """Whether a pattern has few repeats and none of a group, so that matching a name takes microseconds."""
    repeats, at, group = 0, 0, False
    while at < len(pattern):
        letter = pattern[at]
        if letter == "\\":
            if pattern[at + 1 : at + 2].isdigit():
                return False
            at += 1
        elif letter == "[":
            end = pattern.find("]", at + 2)
            at = len(pattern) if end < 0 else end
        elif letter in "*+{":
            if group:
                return False
            repeats += 1
        group = letter == ")"
        at += 1
    return repeats <= MOST_REPEATS


def spellings(module: str, *, expert: bool = False) -> list[str]:
    """A module's name in transformers 5 and the names that checkpoints give it.

    A vision-language model's text model stands under `model.language_model`, in older checkpoints under
    `language_model.model`, `model` or `language_model`, its towers without `model.` before them; Nemotron-H's model
    stands under `backbone`; experts of one tensor are numbered in a checkpoint, and Mixtral calls their block
    `block_sparse_moe` (transformers 5.23.0, conversion_mapping.py).

    >>> for name in spellings("model.language_model.layers.0.mlp.up_proj"):
    ...     print(name)
    model.language_model.layers.0.mlp.up_proj
    model.layers.0.mlp.up_proj
    language_model.model.layers.0.mlp.up_proj
    language_model.layers.0.mlp.up_proj
    """
    names = [module]
    if module.startswith("model.language_model."):
        rest = module.removeprefix("model.language_model.")
        names += [f"model.{rest}", f"language_model.model.{rest}", f"language_model.{rest}"]
    elif module.startswith("model."):
        bare = module.removeprefix("model.")
        names += [bare, f"language_model.{module}", f"backbone.{bare}"]
    else:
        names.append(f"language_model.{module}")
    if expert:
        stems = [name.rpartition(".")[::2] for name in names]
        numbered = []
        for stem, last in stems:
            singles = ("gate_proj", "up_proj") if "gate_up" in last else (last,)
            old = stem.replace(".mlp.", ".block_sparse_moe.")
            numbered += [f"{stem}.0.{single}" for single in singles]
            numbered += [f"{old}.0.{single}" for single in (("w1", "w3") if "gate_up" in last else ("w2",))]
        names += numbered
    return names
