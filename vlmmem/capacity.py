"""Whether a model fits: the largest batch and context, the fewest GPUs, which GPUs do, and what to change otherwise.

All of it asks `estimate`, which grows with every sequence and every token: the largest that fits is found by halving.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from vlmmem.catalog import find_gpu, find_model, gpus
from vlmmem.errors import InputError
from vlmmem.footprint import Footprint, estimate
from vlmmem.formats import Format
from vlmmem.hardware import Gpu
from vlmmem.model import Model
from vlmmem.parallelism import tensor_parallel_sizes
from vlmmem.record import record, replace
from vlmmem.workload import Parallelism, Workload

if TYPE_CHECKING:
    from vlmmem.engines import Settings

__all__ = ["NODE", "Change", "Fit", "Holder", "fewest_gpus", "fit"]

NODE = 8
"""GPUs that one server joins by a fast link, as a rule; tensor parallelism stays within it."""

MOST_GPUS = 64
"""GPUs at most that a search tries: eight servers."""

_MOST_SEQUENCES = 1 << 20
"""A batch at which a search stops."""

ORDER = (
    "cheapest first: fp8 keys and values cost next to no quality and no throughput; a shorter context and a smaller"
    " batch cost no quality, but requests wait or are refused; fp8 weights cost little quality, 4-bit weights more;"
    " more GPUs and larger ones cost money"
)
"""Why `Fit.changes` stand in their order."""


def fewest_gpus(
    model: str | Model,
    gpu: str | Gpu,
    workload: Workload,
    *,
    weights: str | Format | None = None,
    most: int = NODE,
) -> int | None:
    """The least tensor-parallel size with which a model and its workload fit on GPUs of one kind.

    Args:
        model: a model or its name.
        gpu: the GPU or its name; its memory as the driver states it.
        workload: sequences and their length.
        weights: number format of the weights; None is that in which the model was published.
        most: GPUs at most.

    Returns:
        The number of GPUs, one that splits heads and MLP evenly, or None where ``most`` of them do not suffice.

    >>> fewest_gpus("llama-3.1-70b", "a100-80gb", Workload(4096)), fewest_gpus("gpt-3-175b", "t4", Workload(2048))
    (2, None)
    """
    model = find_model(model) if isinstance(model, str) else model
    gpu = find_gpu(gpu) if isinstance(gpu, str) else gpu
    for tp in tensor_parallel_sizes(model, most):
        if estimate(model, workload, Parallelism(tp=tp), gpu, weights=weights).fits:
            return tp
    return None


@record(frozen=True, slots=True)
class Holder:
    """A GPU of the catalogue, and the fewest of it that hold the workload: None where `MOST_GPUS` do not."""

    gpu: Gpu
    parallelism: Parallelism | None


@record(frozen=True, slots=True)
class Change:
    """One thing to change: in words, as options of the command, and the footprint with it.

    `saves` are the bytes that it takes off one GPU; of another GPU it is 0. `fits` says whether it is enough alone.
    """

    what: str
    option: str
    footprint: Footprint
    saves: int

    @property
    def fits(self) -> bool:
        """Whether the model fits with this change alone."""
        return bool(self.footprint.fits)


@record(frozen=True, slots=True)
class Fit:
    """What a model does on GPUs of one kind.

    `footprint` is that of the workload as asked. `largest_batch` is at its context, `largest_context` at its batch, on
    the GPUs that were asked for; None where not even one sequence, or the least context, fits. `context_is_whole` says
    that the model's positions end it and not the memory. `fewest` are the fewest GPUs of this kind that hold the
    workload. `holders` are all GPUs of the catalogue. `changes` are what to change where it does not fit, the cheapest
    first (`ORDER` says why), and empty where it fits.
    """

    footprint: Footprint
    largest_batch: int | None
    largest_context: int | None
    context_is_whole: bool
    fewest: Parallelism | None
    holders: tuple[Holder, ...]
    changes: tuple[Change, ...]

    @property
    def fits(self) -> bool:
        """Whether the workload fits as asked."""
        return bool(self.footprint.fits)

    def json(self) -> dict[str, Any]:
        """The same as a JSON object: sizes in bytes."""
        return {
            **self.footprint.json(),
            "largest_batch": self.largest_batch,
            "largest_context": self.largest_context,
            "context_limited_by": "positions" if self.context_is_whole else "memory",
            "fewest_gpus": _split_json(self.fewest),
            "gpus": [{"gpu": each.gpu.id, "fewest_gpus": _split_json(each.parallelism)} for each in self.holders],
            "changes": [
                {
                    "change": each.what,
                    "option": each.option,
                    "saves": each.saves,
                    "per_gpu_total": each.footprint.needed,
                    "fits": each.fits,
                }
                for each in self.changes
            ],
        }


def _split_json(parallelism: Parallelism | None) -> dict[str, int] | None:
    if parallelism is None:
        return None
    return {"gpus": parallelism.gpus, "tp": parallelism.tp, "pp": parallelism.pp}


def fit(
    model: str | Model,
    gpu: str | Gpu,
    workload: Workload,
    parallelism: Parallelism | None = None,
    *,
    weights: str | Format | None = None,
    kv_dtype: str | Format | None = None,
    engine: str | None = None,
    settings: "Settings | None" = None,
) -> Fit:
    """What fits on GPUs of one kind, and what to change where the workload does not.

    Args:
        model: a model or its name.
        gpu: the GPU or its name; its memory as the driver states it.
        workload: sequences, their length and their images.
        parallelism: GPUs that split layers (tp) or share them out (pp); one GPU without it.
        weights: number format of the weights; None is the form in which the model was published.
        kv_dtype: number format of the KV cache; None is the model's own.
        engine: an engine and its release, such as vllm@0.19: what it reserves decides.
        settings: how that engine is started, where it is not with its defaults.

    Raises:
        InputError: as `estimate` says.

    >>> found = fit("llama-3.1-8b", "a100-40gb", Workload(8192))
    >>> found.fits, found.largest_batch, found.largest_context, found.context_is_whole
    (True, 12, 104135, False)
    """
    model = find_model(model) if isinstance(model, str) else model
    gpu = find_gpu(gpu) if isinstance(gpu, str) else gpu
    formats = {"weights": weights, "kv_dtype": kv_dtype}
    search = _Search(model, gpu, workload, parallelism or Parallelism(), formats, engine, settings)
    footprint = search.priced()
    batch = search.largest_batch()
    context = search.largest_context()
    return Fit(
        footprint,
        batch,
        context,
        context == model.max_positions,
        search.fewest(gpu),
        tuple(Holder(each, search.fewest(each)) for each in gpus()),
        () if footprint.fits else tuple(search.changes(footprint, batch, context)),
    )


class _Search:
    """One workload of one model, priced under what may change."""

    def __init__(
        self,
        model: Model,
        gpu: Gpu,
        workload: Workload,
        parallelism: Parallelism,
        formats: dict[str, str | Format | None],
        engine: str | None,
        settings: "Settings | None",
    ) -> None:
        self.model, self.gpu, self.workload, self.parallelism = model, gpu, workload, parallelism
        self.formats, self.engine, self.settings = formats, engine, settings
        self._totals: dict[Parallelism, int | None] = {}

    def priced(self, **changed: Any) -> Footprint:
        """The footprint as asked, but for what is changed."""
        asked: dict[str, Any] = {"workload": self.workload, "parallelism": self.parallelism, "gpu": self.gpu}
        asked |= self.formats | changed
        return estimate(self.model, engine=self.engine, settings=self.settings, **asked)

    def _fits(self, **changed: Any) -> bool:
        return bool(self.priced(**changed).fits)

    def largest_batch(self, **changed: Any) -> int | None:
        """The most sequences of this context."""
        return _largest(
            lambda batch: self._fits(workload=replace(self.workload, batch=batch), **changed), 1, _MOST_SEQUENCES
        )

    def largest_context(self, **changed: Any) -> int | None:
        """The longest context of this batch, up to the model's positions and no shorter than its images."""
        least = max(1, self.priced(**changed).image_tokens)
        most = max(self.model.max_positions, least)
        return _largest(
            lambda context: self._fits(workload=replace(self.workload, context=context), **changed), least, most
        )

    def _splits(self) -> Iterator[Parallelism]:
        """Ways to split the model, the fewest GPUs first: tensor parallelism within a node, beyond it stages of it."""
        sizes = tensor_parallel_sizes(self.model, NODE)
        for tp in sizes:
            yield Parallelism(tp)
        wide = sizes[-1]
        for pp in range(2, min(MOST_GPUS // wide, self.model.layers) + 1):
            yield Parallelism(wide, pp)

    def fewest(self, gpu: Gpu) -> Parallelism | None:
        """The fewest GPUs of one kind that hold the workload, and how they split it."""
        return next((split for split in self._splits() if self._holds(split, gpu)), None)

    def _holds(self, split: Parallelism, gpu: Gpu) -> bool:
        """Whether GPUs of one kind hold the workload when they split the model so."""
        try:
            if self.engine is not None:
                # what an engine takes depends on the GPU
                return self._fits(parallelism=split, gpu=gpu)
            if split not in self._totals:
                self._totals[split] = None
                self._totals[split] = self.priced(parallelism=split, gpu=None).per_gpu["total"]
        except InputError:
            return False
        total = self._totals[split]
        return total is not None and total <= gpu.memory_bytes

    def changes(self, footprint: Footprint, batch: int | None, context: int | None) -> Iterator[Change]:
        """What to change, the cheapest first: each is priced, and what saves nothing is left out."""
        before = footprint.needed

        def change(what: str, option: str, **changed: Any) -> Iterator[Change]:
            try:
                after = self.priced(**changed)
            except InputError:
                return
            saves = before - after.needed
            if saves > 0:
                yield Change(what, option, after, saves)

        yield from change("keys and values in fp8", "--kv-dtype fp8", kv_dtype="fp8")
        if context is not None and context < self.workload.context:
            shorter = replace(self.workload, context=context)
            yield from change(f"a context of {context:,} tokens", f"--context {context}", workload=shorter)
        if batch is not None and batch < self.workload.batch:
            smaller = replace(self.workload, batch=batch)
            yield from change(f"{batch:,} sequences at once", f"--batch {batch}", workload=smaller)
        for form, name in (("fp8", "weights in fp8"), ("awq-4bit", "weights in 4 bits (AWQ)")):
            yield from change(name, f"--weights {form}", weights=form)
        both = {"weights": "awq-4bit", "kv_dtype": "fp8"}
        yield from change("weights in 4 bits, keys and values in fp8", "--weights awq-4bit --kv-dtype fp8", **both)
        split = self.fewest(self.gpu)
        if split is not None and split.gpus > self.parallelism.gpus:
            option = f"--tp {split.tp}" + (f" --pp {split.pp}" if split.pp > 1 else "")
            yield from change(f"{split.gpus} GPUs of this kind", option, parallelism=split)
        larger = self._larger()
        if larger is not None:
            yield Change(f"{larger.name}", f"--gpu {larger.id}", self.priced(gpu=larger), 0)

    def _larger(self) -> Gpu | None:
        """The GPU with the least memory that holds what was asked, on as many GPUs."""
        enough = (each for each in gpus() if self._holds(self.parallelism, each))
        return min(enough, key=lambda each: each.memory_bytes, default=None)


def _largest(holds: Callable[[int], bool], least: int, most: int) -> int | None:
    """The largest number from `least` to `most` that holds, where all below one that holds do; None without any."""
    if not holds(least):
        return None
    step = 1
    while least + step <= most and holds(least + step):
        least, step = least + step, 2 * step
    low, high = least, min(least + step, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
