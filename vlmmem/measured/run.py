"""Run: one start of an engine on one machine, and the figures that it printed."""

from collections.abc import Mapping
from typing import Any

from vlmmem.catalog.entries import Entry
from vlmmem.errors import InputError
from vlmmem.record import record
from vlmmem.units import BYTES, exact

__all__ = ["ENGINES", "GIVEN_POOL", "PROVENANCES", "QUANTITIES", "SCOPES", "SPLITS", "Quantity", "Run", "run_of"]

ENGINES = ("vllm", "sglang", "llama.cpp", "ik_llama.cpp", "ollama", "transformers", "autoawq", "tensorrt-llm", "vlmmem")
"""Whose figures a run holds. ik_llama.cpp and autoawq have rules of their own; vlmmem is the measuring harness."""

SPLITS = ("fitted", "left out by model", "left out by source", "own")
"""What a run may be used for. Only a fitted one may choose a constant or a rule; own is a user's."""

SCOPES = ("per_gpu", "sum_over_gpus")
"""What the figures of a run on several GPUs stand for: the fullest GPU alone, or all together."""

PROVENANCES = (
    "study",
    "repo_doc",
    "repo_notebook",
    "repo_log",
    "repo_issue_mirror",
    "issue",
    "pull_request",
    "discussion",
    "web_page",
    "log",
    "harness",
)
"""Where a run was found: in a study's table, in a repository, in a thread; a user's own log; our own harness."""

QUANTITIES: dict[str, tuple[str, str]] = {
    "weights": ("bytes", "weights of the fullest GPU, as the memory profile or the loader prints them"),
    "loaded": ("bytes", "what loading the model took, where the log prints that beside the weights"),
    "activation_peak": ("bytes", "vLLM: what PyTorch's peak rose by in the profile run"),
    "non_torch": ("bytes", "vLLM: what others than PyTorch took while the profile run ran"),
    "cuda_graph": (
        "bytes",
        "what capturing the CUDA graphs took; below 0 where memory was freed",
    ),
    "cuda_graph_estimated": ("bytes", "vLLM: what it reckons the CUDA graphs will take, before it captures them"),
    "non_kv": ("bytes", "vLLM: all that is not KV cache, graphs left out"),
    "requested": ("bytes", "vLLM: the budget, total times gpu_memory_utilization"),
    "init_free": ("bytes", "free memory of the GPU when the engine starts"),
    "init_used": ("bytes", "used memory of the GPU when the engine starts, its own context included"),
    "init_non_torch": ("bytes", "used memory that is not PyTorch's when the engine starts"),
    "kv_pool": ("bytes", "memory of the KV cache"),
    "kv_tokens": ("tokens", "tokens that the KV cache has room for"),
    "kv_tokens_swa": ("tokens", "tokens that the pool of the sliding-window layers has room for"),
    "kv_blocks": ("blocks", "blocks of the KV cache"),
    "cpu_blocks": ("blocks", "blocks of the swap space in the host's memory"),
    "max_concurrency": ("x", "sequences of `context` tokens that fit at once"),
    "k_size": ("bytes", "keys of the KV cache"),
    "v_size": ("bytes", "values of the KV cache"),
    "k_size_swa": ("bytes", "keys of the sliding-window layers"),
    "v_size_swa": ("bytes", "values of the sliding-window layers"),
    "state_size": ("bytes", "recurrent and convolution states"),
    "avail_before_load": ("bytes", "SGLang: free memory before the weights are loaded"),
    "avail_after_load": ("bytes", "SGLang: free memory when the weights are loaded"),
    "avail_after_pool": ("bytes", "SGLang: free memory when the KV cache is allocated"),
    "avail_after_graphs": ("bytes", "SGLang: free memory when the CUDA graphs are captured"),
    "model_size": ("bytes", "llama.cpp: the file's tensors, on all devices"),
    "host_weights": ("bytes", "llama.cpp: weights that stay in the host's memory"),
    "compute_buffer": ("bytes", "llama.cpp: the buffer of a graph's activations on the GPU"),
    "host_compute_buffer": ("bytes", "llama.cpp: the same in the host's memory"),
    "output_buffer": ("bytes", "llama.cpp: the buffer of logits and embeddings, in the host's memory"),
    "vision_weights": ("bytes", "llama.cpp: the vision file's tensors"),
    "vision_compute_buffer": ("bytes", "llama.cpp: the vision tower's compute buffer"),
    "buffers": ("bytes", "PyTorch: what the model holds beside its weights, such as rotary tables"),
    "inputs": ("bytes", "PyTorch: token ids and pixels, there before the pass"),
    "cache": ("bytes", "the cache's tensors after the pass"),
    "cache_after": ("bytes", "the cache's tensors after the new tokens"),
    "allocated": ("bytes", "what PyTorch's allocator had handed out when the model and its inputs were there"),
    "peak": ("bytes", "most bytes that PyTorch's allocator had handed out, or its tensors held, in the prompt's pass"),
    "decode_peak": ("bytes", "the same in the passes of the new tokens"),
    "driver_before": ("bytes", "used memory of the GPU as its driver says, before the model is there"),
    "resident": ("bytes", "most bytes that the process had resident in the host's memory"),
    "reserved": ("bytes", "most bytes that PyTorch's allocator had taken of the GPU"),
    "driver": ("bytes", "used memory of the GPU as its driver says"),
    "total": ("bytes", "peak of the whole run, as a published table prints it"),
}
"""Each quantity: its dimension and what it means."""

GIVEN_POOL = "given the pool"
"""Beside the quantities, a name of `Run.unpriced`: what follows from the pool that was printed."""

_NEGATIVE = ("cuda_graph", "cuda_graph_estimated", "non_torch")  # differences: memory may have been freed meanwhile
_COUNTS = ("tokens", "blocks")
_AMBIGUOUS = ("kB", "MB", "GB", "TB")
_LARGEST = 2**50  # a petabyte, and as many tokens: above it a figure is a mistake
_MOST_DECIMALS = 15
_LONGEST_TEXT = 400
_ROOM = 1.02  # a log's own figures are rounded, and its parts are not of one moment


@record(frozen=True, slots=True)
class Quantity:
    """A figure as it was printed.

    Attributes:
        value: the number.
        unit: the printed unit, or tokens, blocks, x.
        means: the unit that is meant where the printed one is MB or GB: vLLM and SGLang print GB for 2**30 bytes.
        decimals: digits behind the point in print, where the number as JSON has fewer: 0.90 has two.
        context: tokens of a sequence that a concurrency counts.

    >>> Quantity(6.25, "GB", means="GiB").bytes
    6710886400
    >>> Quantity(6.25, "GB", means="GiB").rounding
    5368709
    """

    value: int | float
    unit: str
    means: str = ""
    decimals: int | None = None
    context: int | None = None

    def __post_init__(self) -> None:
        value = self.value
        if type(value) not in (int, float) or not -_LARGEST < value < _LARGEST:
            raise InputError(f"value: {str(value)[:40]!r} was given; a number of up to {_LARGEST:,} is needed")
        if self.unit in _COUNTS:
            if type(value) is not int:
                raise InputError(f"value: {value!r} {self.unit} was given; a whole number is needed")
        elif self.unit != "x" and self._scale is None:
            known = ", ".join((*BYTES, *_COUNTS, "bytes", "x"))
            raise InputError(f"unit: {str(self.unit)[:20]!r} was given; one of {known} is needed")
        if self.unit in _AMBIGUOUS and self.means not in BYTES:
            raise InputError(f"means: {self.means!r} beside {self.unit}; the unit that is meant, GB or GiB, is needed")
        for field, least in (("decimals", 0), ("context", 1)):
            given = getattr(self, field)
            most = _MOST_DECIMALS if field == "decimals" else _LARGEST
            if given is not None and (type(given) is not int or not least <= given <= most):
                raise InputError(f"{field}: {str(given)[:40]!r} was given; a whole number from {least} is needed")

    @property
    def _scale(self) -> int | None:
        return 1 if self.unit == "bytes" else BYTES.get(self.means or self.unit)

    @property
    def dimension(self) -> str:
        """What it counts: bytes, tokens, blocks or x."""
        return self.unit if self.unit in (*_COUNTS, "x") else "bytes"

    @property
    def bytes(self) -> int:
        """The bytes, to the nearest: the printed digits are all that is known.

        Raises:
            InputError: it counts something else.
        """
        if self._scale is None or self.dimension != "bytes":
            raise InputError(f"{self.value} {self.unit} is no size; a quantity in bytes is needed")
        return round(exact(self.value) * self._scale)

    @property
    def rounding(self) -> int:
        """Bytes by which the figure may be off because its last digit was rounded: half of that digit."""
        if self._scale is None or self.dimension != "bytes":
            raise InputError(f"{self.value} {self.unit} is no size; a quantity in bytes is needed")
        printed = str(self.value).partition("e")[0].partition(".")[2].rstrip("0")
        digits = len(printed) if self.decimals is None else self.decimals
        return round(exact(self._scale) / int(2 * 10**digits))

    def json(self) -> dict[str, Any]:
        """The same as a JSON object; fields that say nothing are left out."""
        found: dict[str, Any] = {"value": self.value, "unit": self.unit}
        found |= {"means": self.means} if self.means else {}
        found |= {name: getattr(self, name) for name in ("decimals", "context") if getattr(self, name) is not None}
        return found


Figures = tuple[tuple[str, Quantity], ...]


@record(frozen=True, slots=True, eq=False)
class Run:
    """One start of an engine, what is known of it, and what it printed. None is what is not known.

    Attributes:
        id: its name, of its own.
        engine, version: the engine and its release.
        model: the model as it was printed.
        catalogue: the model of our catalogue that it is; None with `why`.
        why: why no model of the catalogue stands for it.
        family: the family of models that it belongs to: the split leaves out whole families.
        vision: whether the model reads images.
        dtype, quantization, kv_dtype: formats of the weights and of the KV cache, in the engine's words.
        weights: the format of our catalogue that the weights have, where the catalogue's model has another.
        gpu, gpu_total, gpus: the GPU as printed, the memory that the engine sees on one, how many there are.
        tp, pp, dp: ways of tensor, pipeline and data parallelism.
        context: the longest sequence (max_model_len, n_ctx).
        batch_tokens, sequences: the bounds of one step (max_num_batched_tokens, max_num_seqs).
        utilization: the share of the GPU that the engine may take.
        block_size: tokens of a block of the KV cache.
        eager: whether it ran without CUDA graphs.
        batch, input_tokens, output_tokens, images, image_size: the workload, where the figures are of one.
        encoder_budget: tokens of the encoder's cache, as printed.
        options: the engine's own flags beside these: (name, value) pairs.
        scope: whether the figures are of one GPU or of all.
        measured: (name, quantity) pairs; names are those of QUANTITIES.
        devices: the figures of single devices: (device, figures) pairs.
        unpriced: (name, reason) pairs: figures that no config and no setting explains, such as weights with an
            adapter's buffers in them. `given the pool` stands for what is computed from the printed pool, where
            the pool is of one stage and the tokens are of another. Decided from what the source says, never from an
            error.
        source: address, with the revision where it has one.
        evidence: the printed lines that hold the figures.
        notes: what else is known.
        provenance: where it was found.
        split: what it may be used for.
    """

    id: str
    engine: str
    version: str | None
    model: str
    catalogue: str | None
    family: str
    measured: Figures
    source: str
    provenance: str
    split: str
    why: str = ""
    vision: bool = False
    dtype: str | None = None
    quantization: str | None = None
    weights: str | None = None
    kv_dtype: str | None = None
    gpu: str | None = None
    gpu_total: Quantity | None = None
    gpus: int | None = None
    tp: int | None = None
    pp: int | None = None
    dp: int | None = None
    context: int | None = None
    batch_tokens: int | None = None
    sequences: int | None = None
    utilization: float | None = None
    block_size: int | None = None
    eager: bool | None = None
    batch: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    images: int | None = None
    image_size: tuple[int, int] | None = None
    encoder_budget: int | None = None
    options: tuple[tuple[str, int | float | str | bool], ...] = ()
    scope: str = "per_gpu"
    devices: tuple[tuple[str, Figures], ...] = ()
    unpriced: tuple[tuple[str, str], ...] = ()
    evidence: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        if not self.measured:
            raise InputError(f"{self.id}: 'measured' is empty; at least one figure is needed")
        if (self.catalogue is None) != bool(self.why):
            raise InputError(f"{self.id}: 'why' goes with a 'catalogue' of null, and only with that")
        if self.utilization is not None and not 0 < self.utilization <= 1:
            raise InputError(f"{self.id}: 'utilization' is {self.utilization!r}; a share above 0 and up to 1 is needed")
        for name, _ in self.unpriced:
            if name not in dict(self.measured) and (name != GIVEN_POOL or self.get("kv_pool") is None):
                raise InputError(
                    f"{self.id}: unpriced: {name[:40]!r} is not among the figures measured; one of them is needed"
                )
        for figures in (self.measured, *(part for _, part in self.devices)):
            self._check_figures(figures)

    def _check_figures(self, figures: Figures) -> None:
        for name, quantity in figures:
            if name not in QUANTITIES:
                raise InputError(
                    f"{self.id}: measured: {name[:40]!r} is not known; one of {', '.join(QUANTITIES)} is needed"
                )
            dimension = QUANTITIES[name][0]
            if quantity.dimension != dimension:
                raise InputError(f"{self.id}: {name} is in {quantity.unit}; a figure in {dimension} is needed")
            if quantity.value < 0 and name not in _NEGATIVE:
                raise InputError(f"{self.id}: {name} is {quantity.value}; a figure of 0 or more is needed")
        if self.gpu_total is None or self.scope != "per_gpu":
            return
        sizes = dict(figures)
        room = self.gpu_total.bytes
        for names in (("weights", "kv_pool", "activation_peak"), ("peak",), ("reserved",), ("init_free",)):
            taken = sum(sizes[name].bytes for name in names if name in sizes)
            if taken > room * _ROOM:
                parts = " + ".join(name for name in names if name in sizes)
                raise InputError(f"{self.id}: {parts} is {taken:,} bytes of a GPU of {room:,}; less is needed")

    def get(self, name: str) -> Quantity | None:
        """The figure of that name, None where the run has none."""
        return dict(self.measured).get(name)

    def option(self, name: str) -> int | float | str | bool | None:
        """The value of one of the engine's own flags, None where it is not known."""
        return dict(self.options).get(name)

    def json(self) -> dict[str, Any]:
        """The same as a JSON object; fields that say nothing are left out. `run_of` reads it."""
        found: dict[str, Any] = {}
        for name in _ORDER:
            value = getattr(self, name)
            if name not in _ALWAYS and (value is None or value in ("", ())):
                continue
            if name == "measured":
                value = {key: quantity.json() for key, quantity in value}
            elif name == "devices":
                value = [{"device": device, "measured": {key: q.json() for key, q in part}} for device, part in value]
            elif name == "gpu_total":
                value = value.json()
            elif name in ("options", "unpriced"):
                value = dict(value)
            elif name == "image_size":
                value = list(value)
            found[name] = value
        return found


_ORDER = (
    *("id", "engine", "version", "model", "catalogue", "why", "family", "vision", "dtype", "quantization", "weights"),
    *(
        "kv_dtype",
        "gpu",
        "gpu_total",
        "gpus",
        "tp",
        "pp",
        "dp",
        "context",
        "batch_tokens",
        "sequences",
        "utilization",
        "block_size",
    ),
    *(
        "block_size",
        "eager",
        "batch",
        "input_tokens",
        "output_tokens",
        "images",
        "image_size",
        "encoder_budget",
        "options",
    ),
    *("scope", "measured", "devices", "unpriced", "source", "evidence", "notes", "provenance", "split"),
)
_ALWAYS = ("version", "catalogue", "vision", "scope")
_COUNTED = (
    *("gpus", "tp", "pp", "dp", "context", "batch_tokens", "sequences", "block_size", "batch", "input_tokens"),
    *("output_tokens", "encoder_budget"),
)


def _quantity(entry: Entry) -> Quantity:
    value = entry.value("value")
    if not isinstance(value, int | float) or isinstance(value, bool):
        entry.wrong("value", value, "a number")
    means = entry.text("means") if entry.has("means") else ""
    more = {name: entry.value(name) for name in ("decimals", "context") if entry.has(name)}
    unit = entry.text("unit")
    entry.done()
    try:
        return Quantity(value, unit, means, **more)  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(f"{entry.where}: {error}") from None


def _figures(entry: Entry, field: str) -> Figures:
    sub = entry.sub(field)
    if sub is None:
        entry.wrong(field, None, "an object of figures")
    found: list[tuple[str, Quantity]] = []
    for name in sub.all():
        part = sub.sub(name)
        if part is None:
            sub.wrong(name, None, "an object with value and unit")
        found.append((name, _quantity(part)))
    return tuple(found)


def _devices(entry: Entry) -> tuple[tuple[str, Figures], ...]:
    given = entry.value("devices")
    if not isinstance(given, list):
        entry.wrong("devices", given, "a list of objects with device and measured")
    found: list[tuple[str, Figures]] = []
    for at, item in enumerate(given):
        part = Entry(item, f"{entry.where}: devices[{at}]")
        found.append((part.text("device"), _figures(part, "measured")))
        part.done()
    return tuple(found)


def _options(entry: Entry) -> tuple[tuple[str, int | float | str | bool], ...]:
    given = entry.value("options")
    if not isinstance(given, dict) or not all(isinstance(value, int | float | str) for value in given.values()):
        entry.wrong("options", given, "an object of numbers, texts, true or false")
    return tuple(given.items())


def _unpriced(entry: Entry) -> tuple[tuple[str, str], ...]:
    given = entry.sub("unpriced")
    if given is None:
        entry.wrong("unpriced", None, "an object of reasons by figure")
    return tuple((name, given.text(name)) for name in given.all())


def _image_size(entry: Entry) -> tuple[int, int]:
    given = entry.value("image_size")
    if not isinstance(given, list) or len(given) != 2 or not all(type(side) is int and side > 0 for side in given):
        entry.wrong("image_size", given, "a list of width and height in pixels")
    return given[0], given[1]


def _count(entry: Entry, field: str, least: int = 1) -> int:
    given = entry.value(field)
    if type(given) is not int or not least <= given < _LARGEST:
        entry.wrong(field, given, "a positive integer" if least else "an integer of 0 or more")
    return given


def run_of(data: Mapping[str, object] | Entry, where: str = "run") -> Run:
    """The run that a JSON object says.

    Args:
        data: the object.
        where: what names it in messages.

    Raises:
        InputError: a field is missing, misspelt or holds what cannot be.

    >>> run_of({"id": "a", "engine": "vLLM"})
    Traceback (most recent call last):
    vlmmem.errors.InputError: run: 'engine' is "vLLM"; one of vllm, sglang, ... is needed
    """
    entry = data if isinstance(data, Entry) else Entry(data, where)
    more: dict[str, Any] = {}
    for field in ("why", "dtype", "quantization", "weights", "kv_dtype", "gpu", "evidence", "notes"):
        if entry.has(field):
            more[field] = entry.text(field)
    for field in _COUNTED:
        if entry.has(field):
            more[field] = _count(entry, field)
    for field in ("vision", "eager"):
        if entry.has(field):
            more[field] = entry.boolean(field)
    if entry.has("images"):
        more["images"] = _count(entry, "images", 0)
    if entry.has("utilization"):
        share = entry.value("utilization")
        if type(share) not in (int, float):
            entry.wrong("utilization", share, "a share above 0 and up to 1")
        more["utilization"] = share
    if entry.has("gpu_total"):
        total = entry.sub("gpu_total")
        if total is None:
            entry.wrong("gpu_total", None, "an object with value and unit")
        more["gpu_total"] = _quantity(total)
    for field, read in (
        ("image_size", _image_size),
        ("options", _options),
        ("devices", _devices),
        ("unpriced", _unpriced),
    ):
        if entry.has(field):
            more[field] = read(entry)
    if entry.has("scope"):
        more["scope"] = entry.one_of("scope", SCOPES)
    run = Run(
        id=entry.text("id"),
        engine=entry.one_of("engine", ENGINES),
        version=entry.optional_text("version"),
        model=entry.text("model"),
        catalogue=entry.optional_text("catalogue"),
        family=entry.text("family"),
        measured=_figures(entry, "measured"),
        source=entry.text("source"),
        provenance=entry.one_of("provenance", PROVENANCES),
        split=entry.one_of("split", SPLITS),
        **more,
    )
    entry.done()
    for field, longest in (("id", 100), ("model", 200), ("evidence", 2 * _LONGEST_TEXT), ("notes", 4 * _LONGEST_TEXT)):
        if len(getattr(run, field)) > longest:
            raise InputError(f"{entry.where}: {field!r} has more than {longest} characters; fewer are needed")
    return run
