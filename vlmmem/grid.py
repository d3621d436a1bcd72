"""Grids of estimates: models x weights x caches x parallelism x contexts x batches x GPUs, priced with numpy.

For each model, format and split what does not change is computed once, as `estimate` does: the weights of every stage,
and what its layers keep of a token and of a sequence. What is left are sums and products of integers in the context and
the batch, over whole arrays. Every point equals `estimate` to the byte (tests/test_grid.py asks both). A point that
`estimate` refuses, because heads do not divide or a format is not one for a cache, is left out and its reason told.

Sizes are 64-bit integers; a grid with a point beyond them is refused before it is priced.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias

from vlmmem.catalog import find_format, find_gpu, find_model
from vlmmem.errors import InputError
from vlmmem.footprint import default_kv_dtype, stored_format
from vlmmem.formats import Format
from vlmmem.hardware import Gpu
from vlmmem.memory import CacheSizes, cache_sizes, prefill_peaks, runtime_bytes
from vlmmem.memory.activations import mlp_width
from vlmmem.memory.weights import find_weights_format
from vlmmem.model import Model
from vlmmem.parallelism import gpu_shares, stage_part
from vlmmem.workload import Parallelism, Workload, check_positive

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    Sizes: TypeAlias = np.ndarray[Any, Any]

__all__ = ["COLUMNS", "Grid", "sweep"]

COLUMNS = {
    "model": "int32",
    "weights": "int32",
    "kv_dtype": "int32",
    "tp": "int32",
    "pp": "int32",
    "gpus": "int32",
    "context": "int64",
    "batch": "int64",
    "gpu": "int32",
    "weights_bytes": "int64",
    "kv_cache_bytes": "int64",
    "activation_bytes": "int64",
    "runtime_bytes": "int64",
    "per_gpu_bytes": "int64",
    "total_bytes": "int64",
    "fits": "bool",
}
"""The columns of a grid and how they are kept. `gpus` are those that hold the model once; bytes are those of one GPU,
`total_bytes` those of all. Names are kept as places in a list of names."""

_NAMED = ("model", "weights", "kv_dtype", "gpu")
_A_ROW = 8 * 8 + 7 * 4 + 1
"""Bytes of a row in memory: eight columns of 64 bits, seven of 32 and one of 8."""

MOST_BYTES = 4 * 2**30
"""Memory that a grid may take unless it is told otherwise."""

_LARGEST = 2**62
_CHUNK = 65_536
"""Rows that are written between two looks at the clock of the progress line."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The points of a sweep as columns, the last axis (GPUs) fastest.

    `columns` holds an array a column, in the order of `COLUMNS`; without GPUs there is no `gpu` and no `fits`. `names`
    are the names that the numbers in the columns model, weights, kv_dtype and gpu stand for. `skipped` are the
    combinations that `estimate` refuses: model, weights, kv_dtype, tp, pp and the reason.
    """

    columns: "dict[str, Sizes]"
    names: dict[str, tuple[str, ...]]
    skipped: tuple[dict[str, Any], ...] = ()

    def __len__(self) -> int:
        return len(self.columns["model"])

    def column(self, name: str) -> "Sizes":
        """One column; names as text."""
        import numpy as np

        found = self.columns[name]
        return np.array(self.names[name], dtype=object)[found] if name in self.names else found

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each point as a dict of Python values, names as text."""
        titles = list(self.columns)
        for values in self._values():
            yield dict(zip(titles, values, strict=True))

    def to_frame(self) -> "pd.DataFrame":
        """The grid as a pandas DataFrame; names are categories."""
        import pandas as pd

        return pd.DataFrame(
            {
                name: pd.Categorical.from_codes(found, self.names[name]) if name in self.names else found
                for name, found in self.columns.items()
            }
        )

    def write(self, path: str | Path) -> None:
        """Write CSV or Parquet, as the name's end says, to a temporary file beside it that then takes the name.

        A file of that name stays as it was until the new one is complete, whatever interrupts the writing.

        Raises:
            InputError: the name ends otherwise, the folder is not there or cannot be written to, or Parquet is asked
                for and pyarrow is not installed.
        """
        import os
        import tempfile

        target = Path(path)
        kinds = {".csv": self._write_csv, ".parquet": self._write_parquet}
        write = kinds.get(target.suffix.lower())
        if write is None:
            raise InputError(f"{target}: the name of a grid ends in .csv or .parquet")
        if write == self._write_parquet:
            _pyarrow()
        try:
            handle, name = tempfile.mkstemp(suffix=target.suffix, prefix=".sweep-", dir=target.parent)
        except OSError as error:
            raise InputError(f"{target}: cannot be written ({error.strerror})") from None
        os.close(handle)
        temporary = Path(name)
        try:
            try:
                write(temporary)
                # what mkstemp makes is its owner's alone; a file made the usual way is not
                mask = os.umask(0)
                os.umask(mask)
                temporary.chmod(0o666 & ~mask)
                temporary.replace(target)
            except OSError as error:
                raise InputError(f"{target}: cannot be written ({error.strerror})") from None
        finally:
            temporary.unlink(missing_ok=True)

    def _values(self) -> Iterator[tuple[Any, ...]]:
        """Rows of Python values, a chunk of columns at a time."""
        for start in range(0, len(self), _CHUNK):
            yield from zip(*self._chunk(start), strict=True)

    def _chunk(self, start: int) -> list[list[Any]]:
        found = []
        for name, values in self.columns.items():
            part = values[start : start + _CHUNK].tolist()
            known = self.names.get(name)
            found.append(part if known is None else [known[place] for place in part])
        return found

    def _write_csv(self, path: Path) -> None:
        import csv

        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(self.columns)
            with _Progress("writing", len(self)) as progress:
                for start in range(0, len(self), _CHUNK):
                    writer.writerows(zip(*self._chunk(start), strict=True))
                    progress.step(_CHUNK)

    def _write_parquet(self, path: Path) -> None:
        arrow, parquet = _pyarrow()
        arrays = {
            name: arrow.DictionaryArray.from_arrays(arrow.array(found), list(self.names[name]))
            if name in self.names
            else arrow.array(found)
            for name, found in self.columns.items()
        }
        parquet.write_table(arrow.table(arrays), path)


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise InputError(
            "pyarrow is not installed, and Parquet needs it; 'pip install pyarrow', or a name that ends in .csv"
        ) from None


class _Progress:
    """A line on standard error that counts; nothing where that is no terminal."""

    def __init__(self, what: str, of: int) -> None:
        self.what, self.of = what, of
        self.shown = sys.stderr.isatty()
        self.done, self.next = 0, 0.0

    def __enter__(self) -> "_Progress":
        return self

    def step(self, by: int = 1) -> None:
        """So many more are done."""
        self.done += by
        # not for each of a million steps
        if self.shown and monotonic() > self.next:
            self.next = monotonic() + 0.1
            print(f"\r{self.what}: {self.done:,} of {self.of:,}", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self.shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class _Split:
    """One model in one form over so many GPUs: what `estimate` needs of it, once for all contexts and batches."""

    parallelism: Parallelism
    stages: tuple[tuple[int, CacheSizes], ...]
    doubled: bool


def sweep(
    models: str | Model | Sequence[str | Model],
    gpus: str | Gpu | Sequence[str | Gpu] = (),
    contexts: int | Sequence[int] = 4096,
    batches: int | Sequence[int] = 1,
    *,
    weights: str | Format | Sequence[str | Format | None] | None = None,
    kv_dtypes: str | Format | Sequence[str | Format | None] | None = None,
    parallelism: Parallelism | Sequence[Parallelism] | None = None,
    most_bytes: int = MOST_BYTES,
) -> Grid:
    """Price every combination of models, formats, splits, contexts, batches and GPUs, each as `estimate` does.

    Args:
        models: models or their names; one alone needs no list, here and below.
        gpus: GPUs or their names, to tell whether the point fits; none leaves those columns out.
        contexts: tokens of each sequence.
        batches: sequences at once.
        weights: number formats of the weights; None is the form in which the model was published.
        kv_dtypes: number formats of the KV cache; None is the model's own.
        parallelism: how many GPUs split the model; None is one GPU.
        most_bytes: memory that the columns may take.

    Returns:
        The points in the order of the arguments' nesting: model, weights, kv_dtype, parallelism, context, batch, GPU.

    Raises:
        InputError: a name is unknown, a number is not a positive integer, the grid has no point or needs more memory
            than `most_bytes`, a size is beyond 64 bits, or numpy is not installed.

    >>> grid = sweep("llama-3.1-8b", "a100-40gb", contexts=[4096, 8192], batches=[1, 16])
    >>> grid.columns["per_gpu_bytes"].tolist(), grid.columns["fits"].tolist()
    ([17902106378, 33253259018, 18927646474, 49629951754], [True, True, True, False])
    """
    try:
        import numpy as np
    except ImportError:
        raise InputError("numpy is not installed, and a sweep needs it; 'pip install numpy'") from None

    chosen = [find_model(each) if isinstance(each, str) else each for each in _listed(models)]
    cards = [find_gpu(each) if isinstance(each, str) else each for each in _listed(gpus)]
    lengths, sequences = _numbers("contexts", contexts), _numbers("batches", batches)
    asked = _listed(weights)
    forms = [[_form(model, each) for each in asked] for model in chosen]
    for of_each in zip(*forms, strict=True):
        refused = [each for each in of_each if isinstance(each, InputError)]
        if refused and len(refused) == len(of_each):
            raise refused[0]
    caches = [find_format(each) if isinstance(each, str) else each for each in _listed(kv_dtypes)]
    splits = [Parallelism() if each is None else each for each in _listed(parallelism)]
    cells = len(lengths) * len(sequences) * max(1, len(cards))
    combinations = len(chosen) * len(asked) * len(caches) * len(splits)
    if not cells * combinations:
        raise InputError("sweep: the grid has no point; at least one value of each axis is needed")
    if cells * combinations * _A_ROW > most_bytes:
        raise InputError(
            f"sweep: {cells * combinations:,} points need {cells * combinations * _A_ROW:,} bytes, more than "
            f"{most_bytes:,}; fewer values of an axis, or several grids, are needed"
        )
    if max(lengths) * max(sequences) > _LARGEST:
        _too_large(max(lengths), max(sequences))
    names: dict[str, dict[str, int]] = {name: {} for name in _NAMED}
    titles = [name for name in COLUMNS if cards or name not in ("gpu", "fits")]
    columns = {name: np.empty(cells * combinations, dtype=COLUMNS[name]) for name in titles}
    along = np.array(lengths, dtype="int64"), np.array(sequences, dtype="int64")
    shape = (len(lengths), len(sequences), max(1, len(cards)))
    memory = np.array([card.memory_bytes for card in cards], dtype="int64")
    places = np.array([_place(names["gpu"], card.id) for card in cards], dtype="int32")
    skipped: list[dict[str, Any]] = []
    at = 0
    with _Progress("sweep", combinations) as progress:
        for model, own in zip(chosen, forms, strict=True):
            peaks = None
            for (form, name), cache, split in product(zip(own, asked, strict=True), caches, splits):
                kept = find_format(default_kv_dtype(model)) if cache is None else cache
                point = {
                    "model": model.id or model.architecture,
                    "weights": form.id if isinstance(form, Format) else name or stored_format(model),
                    "kv_dtype": kept.id,
                    "tp": split.tp,
                    "pp": split.pp,
                }
                progress.step()
                try:
                    if isinstance(form, InputError):
                        raise form
                    priced = _split(model, form, kept, split)
                except InputError as error:
                    skipped.append({**point, "reason": str(error)})
                    continue
                _check_size(model, priced, max(lengths), max(sequences))
                peaks = prefill_peaks(model, lengths, sequences) if peaks is None else peaks
                terms = _terms(priced, peaks, *along)
                here = slice(at, at + cells)
                at += cells
                for title, value in (*point.items(), ("gpus", split.gpus)):
                    columns[title][here] = _place(names[title], str(value)) if title in names else value
                found = {"context": along[0][:, None], "batch": along[1], **terms}
                for title, sizes in found.items():
                    columns[title][here].reshape(shape)[:] = sizes[..., None]
                if cards:
                    columns["gpu"][here].reshape(shape)[:] = places
                    np.less_equal(terms["per_gpu_bytes"][..., None], memory, out=columns["fits"][here].reshape(shape))
    known = {name: tuple(seen) for name, seen in names.items() if name in titles}
    return Grid({name: values[:at] for name, values in columns.items()}, known, tuple(skipped))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def _form(model: Model, weights: str | Format | None) -> Format | InputError | None:
    """The format of a model's weights, or why there is none of that name for it."""
    if not isinstance(weights, str):
        return weights
    try:
        return find_weights_format(model, weights)
    except InputError as error:
        return error


def _numbers(axis: str, values: int | Sequence[int]) -> list[int]:
    found = _listed(values)
    for value in found:
        check_positive(axis, value)
    return found


def _place(names: dict[str, int], name: str) -> int:
    """The place of a name in the list of those seen, where it is put if it is new."""
    return names.setdefault(name, len(names))


def _split(model: Model, form: Format | None, cache: Format, parallelism: Parallelism) -> _Split:
    shares = gpu_shares(model, Workload(1), parallelism, weights=form, kv_dtype=cache)
    stages: dict[tuple[int, CacheSizes], None] = {}
    for share in shares:
        layers = stage_part(model, parallelism.pp, share.stage).layers
        # of stages alike the first stands for all
        stages[share.weights, cache_sizes(model, cache, parallelism.tp, layers=layers)] = None
    number = find_format(model.dtype) if form is None else form
    return _Split(parallelism, tuple(stages), number.id == "fp32")


def _check_size(model: Model, split: _Split, context: int, batch: int) -> None:
    """Raise InputError where the largest point, or a step on the way to it, is beyond 64 bits."""
    hidden = max(model.hidden_size, mlp_width(model), model.heads * model.head_dim, model.vocab_size)
    per_token = max(sum(size for _, size in sizes.growing) + sizes.state for _, sizes in split.stages)
    weights = max(weights for weights, _ in split.stages)
    uncut = 4 * model.layers * model.kv_heads * model.head_dim
    # More than any moment of the activations: a hundred bytes for each element of the widest kind, and with windows
    # masks of context x context.
    masks = 0 if model.sliding_window is None else 4 * batch * context * context
    most = weights + context * batch * (per_token + uncut + 100 * hidden) + masks
    if 2 * most * split.parallelism.gpus > _LARGEST:
        _too_large(context, batch)


def _too_large(context: int, batch: int) -> None:
    raise InputError(
        f"sweep: sizes of {batch:,} sequences of {context:,} tokens are beyond 64 bits; a smaller context or batch is "
        "needed"
    )


def _terms(split: _Split, peaks: "Sizes", lengths: Any, sequences: "Sizes") -> "dict[str, Sizes]":
    """The bytes of every context (rows) and batch (columns), or of all of them where they are alike."""
    import numpy as np

    # `lengths` are an array where `growing_bytes` speaks of an integer: its arithmetic is that of both. A stage whose
    # layers keep no tokens gives one number for all lengths.
    none = np.zeros_like(lengths)
    held = [
        (none + sizes.growing_bytes(lengths) + sizes.fixed_bytes())[:, None] * sequences for _, sizes in split.stages
    ]
    weights, kv_cache = np.array([[split.stages[0][0]]], dtype="int64"), held[0]
    for (size, _), others in zip(split.stages[1:], held[1:], strict=True):
        # The fullest stage; of stages as full the first, as estimate takes it.
        fuller = size + others > weights + kv_cache
        weights = np.where(fuller, size, weights)
        kv_cache = np.where(fuller, others, kv_cache)
    activations = peaks * 2 if split.doubled else peaks
    runtime = np.array([[runtime_bytes(split.parallelism.tp, split.parallelism.pp)]], dtype="int64")
    per_gpu = weights + kv_cache + activations + runtime
    return {
        "weights_bytes": weights,
        "kv_cache_bytes": kv_cache,
        "activation_bytes": activations,
        "runtime_bytes": runtime,
        "per_gpu_bytes": per_gpu,
        "total_bytes": per_gpu * split.parallelism.gpus,
    }
