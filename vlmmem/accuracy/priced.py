"""Each measured run, priced from what is known of it: the engine's figure beside the one that it printed."""

import re
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from vlmmem.catalog import find_format, find_gpu, find_model
from vlmmem.engines import ENGINES, Release, Reservation, Settings
from vlmmem.engines.releases import find_release
from vlmmem.errors import InputError
from vlmmem.formats import Format
from vlmmem.hardware import Gpu
from vlmmem.measured import Quantity, Run, runs
from vlmmem.measured.run import GIVEN_POOL
from vlmmem.memory.weights import find_weights_format
from vlmmem.model import Model
from vlmmem.record import record, replace
from vlmmem.strict_json import read_json

__all__ = ["Prediction", "Unpriced", "predict", "predictions", "settings_of"]

_WORDS = Path(__file__).parent / "words.json"

_STAND_IN = 2**40
"""Bytes of a GPU that nobody named: large enough for any model. What depends on the GPU is not compared then."""

_MANY = 2**50
"""Bytes of a pool so large that what rounding to blocks leaves over says nothing of a token."""

_GIVEN_POOL = {
    "kv_tokens": "kv_tokens given the pool",
    "kv_blocks": "kv_blocks given the pool",
    "max_concurrency": "max_concurrency given the pool",
}
"""What the engine prints of its pool: its name where the printed pool is taken for granted."""

_SIDES = ("k_size", "v_size")
_SIDE_FORMATS = re.compile(r"K (\w+), V (\w+)")
"""A cache whose keys and values have formats of their own, as our data writes it."""

_OVER_BUFFERS = ("peak", "decode_peak")
_PER_TOKEN = "bytes a KV token"

_NEEDS: dict[str, tuple[str, ...]] = {
    "weights": (),
    "model_size": (),
    "vision_weights": (),
    "host_weights": (),
    "kv_tokens given the pool": ("context",),
    "kv_blocks given the pool": ("context",),
    "max_concurrency given the pool": ("context",),
    _PER_TOKEN: (),
    "activation_peak": ("batch_tokens", "sequences"),
    "non_torch": ("gpu",),
    "cuda_graph": ("gpu",),
    "compute_buffer": ("context",),
    "k_size": ("context",),
    "v_size": ("context",),
    "total": ("context",),
    "peak": ("context",),
    "cache": ("context",),
    "cache_after": ("context",),
    "decode_peak": ("context",),
}
_POOL_NEEDS = ("gpu_total", "utilization", "batch_tokens", "sequences", "context")
"""What a figure follows from beside model, formats and parallelism; where a quantity is not listed, the pool's."""

_NEEDS_LAYERS = ("weights", "compute_buffer")
_NEEDS_GPU = ("kv_pool", "kv_tokens", "kv_blocks", "max_concurrency", "requested", "non_kv")


@record(frozen=True, slots=True)
class Prediction:
    """One figure of one run, and what the engine's rules give for it.

    Attributes:
        run: the run's id.
        engine, release: the engine that printed it, and the release whose rules were used.
        quantity: the figure's name; "given the pool" where the printed pool was taken for granted.
        split: what the run may be used for.
        measured, low, high: the printed figure, and the range that its rounding leaves, in bytes or counts.
        predicted: what the rules give.
        family, model, vision: whose figure it is.
        unknown: what the run does not state and the figure follows from; the engine's defaults stood in.
        note: which known release stands for the run's own.
        generation: which of vLLM's engines it was, V0 or V1; empty for other engines.
        publisher: the host and repository that published the run.
    """

    run: str
    engine: str
    release: str
    quantity: str
    split: str
    measured: float
    low: float
    high: float
    predicted: float
    family: str
    model: str
    vision: bool
    unknown: tuple[str, ...] = ()
    note: str = ""
    generation: str = ""
    publisher: str = ""

    @property
    def error(self) -> float:
        """How far the prediction is off, as a share of the printed figure: above zero where it is too large."""
        return self.predicted / self.measured - 1

    @property
    def within_rounding(self) -> bool:
        """Whether the printed digits leave the prediction room."""
        return self.low <= self.predicted <= self.high

    @property
    def stated(self) -> bool:
        """Whether the run states all that the figure follows from."""
        return not self.unknown

    @property
    def left_out(self) -> bool:
        """Whether nothing was fitted on the run."""
        return self.split.startswith("left out")


@record(frozen=True, slots=True)
class Unpriced:
    """A figure that has no prediction, or a whole run (`quantity` empty), and why."""

    run: str
    engine: str
    quantity: str
    split: str
    reason: str


@cache
def _words() -> dict[str, dict[str, str | None]]:
    """Engines' words for formats, figures and GPUs, and ours."""
    found: dict[str, dict[str, str | None]] = read_json(_WORDS)
    return found


def _word(kind: str, text: str | None) -> Format | None:
    if text is None:
        return None
    known = _words()[kind]
    key = text.strip().lower().removeprefix("torch.")
    if key not in known:
        raise InputError(f"{kind} {text[:60]!r} is not known; a line in words.json is needed")
    name = known[key]
    return None if name is None else find_format(name)


def _of_llama_cpp(
    run: Run, sides: tuple[str, ...]
) -> tuple[tuple[tuple[str, int | float | str | bool], ...], int | None, int]:
    """Options, sequences and GPUs of a run of llama.cpp, whose logs name some of them otherwise than its flags do."""
    given = dict(run.options)
    sequences = given.pop("n_seq_max", None)
    streams = given.pop("streams", None)
    if streams is not None:
        given["kv_unified"] = streams == 1
    if run.context is not None:
        given["n_ctx"] = run.context
    given |= dict(zip(("cache_type_k", "cache_type_v"), sides, strict=False))
    # Its log is of the language model; the vision file has one of its own.
    given.setdefault("mmproj", False)
    if run.engine == "ik_llama.cpp":
        given["swa_full"] = True  # the fork keeps every token in every layer
    return tuple(given.items()), run.sequences or (sequences if type(sequences) is int else None), run.gpus or 1


def _weights(run: Run, model: Model, dtype: Format | None) -> Format | None:
    """The format of a run's weights, where the model of our catalogue has another."""
    key = (run.quantization or "").strip().lower()
    name = _words()["weights"].get(key) or run.weights
    if name is not None:
        return find_weights_format(model, name)
    if run.quantization is not None:
        if model.quantization is None or key.startswith("gguf"):
            raise InputError(f"weights of {run.quantization[:60]!r}: no format of the catalogue stands for them")
        return None
    return dtype if model.quantization is None and dtype is not None and dtype.id != model.dtype else None


def _gpu(text: str | None) -> Gpu | None:
    if text is None:
        return None
    name = _words()["gpus"].get(text.strip().lower())
    try:
        return find_gpu(name or text)
    except InputError:
        return None


def settings_of(run: Run, model: Model) -> tuple[Settings, tuple[str, ...]]:
    """How the run was started, as far as it says, and what it does not say.

    Nothing that the run measured is used.

    Raises:
        InputError: the run's formats are not known, or it does not say how it was split over several GPUs.
    """
    if run.tp is None and run.pp is None and (run.gpus or 1) > 1 and run.scope == "per_gpu":
        raise InputError(f"{run.gpus} GPUs, and not how the model was split over them")
    engine = _words()["engines"].get(run.engine, run.engine)
    library = engine == "transformers"
    gpu = _gpu(run.gpu)
    dtype = _word("dtypes", run.dtype)
    number = _weights(run, model, dtype)
    sides = _SIDE_FORMATS.fullmatch(run.kv_dtype or "")
    # A cache without a format of its own follows the model's dtype; 16 bits are 16 bits.
    cache_format = None if sides else _word("kv", run.kv_dtype)
    cache_format = cache_format or (dtype if dtype is not None and dtype.bits != 16 else None)
    total = None if run.gpu_total is None else run.gpu_total.bytes
    context = run.context or (run.input_tokens or 0) + (run.output_tokens or 0) or None
    if context is None and any(name in ("total", "peak") for name, _ in run.measured):
        raise InputError("the peak is of a workload that the run does not state: no prompt, no context")
    known = {
        "gpu": gpu,
        "gpu_total": total,
        "utilization": run.utilization,
        "batch_tokens": run.batch_tokens,
        "sequences": run.sequences,
        "context": context,
        "version": run.version,
        # One GPU needs no split; of several, or of nobody knows how many, it would have to be told.
        "tp": run.tp or (1 if run.gpus == 1 or library else None),
    }
    unknown = tuple(name for name, value in known.items() if value is None)
    if run.quantization is not None and "/" not in run.model and not run.quantization.lower().startswith("gguf"):
        unknown += ("checkpoint",)  # which tensors its maker left in 16 bits, nobody can look up
    if gpu is None and total is None:
        total = _STAND_IN
    limit = model.max_positions or 4096
    sequences, pp, options = run.sequences, run.pp or 1, run.options
    if engine == "llama.cpp":
        options, sequences, pp = _of_llama_cpp(run, sides.groups() if sides else ())
    if library:
        # A library: its batch is the sequences, its prompt an option, and device_map deals the layers out.
        sequences, pp = run.batch, run.gpus or 1
        options += () if run.input_tokens is None else (("prompt_tokens", run.input_tokens),)
        options += (("library", run.engine),) if run.engine == "autoawq" else ()
    settings = Settings(
        context=context or limit,
        gpu=gpu,
        gpu_bytes=total,
        used_bytes=None,
        tp=run.tp or 1,
        pp=pp,
        sequences=sequences,
        batch_tokens=run.batch_tokens,
        utilization=run.utilization,
        weights=number,
        kv_dtype=cache_format,
        block_size=run.block_size,
        images=run.images,
        image_size=run.image_size,
        eager=bool(run.eager),
        options=options,
    )
    return settings, unknown


def _figures(found: Reservation) -> dict[str, float]:
    """What a reservation says, under the names of the measured quantities."""
    named: dict[str, float] = dict(found.printed)
    for ours, theirs in _words()["printed"].items():
        if theirs in named:
            named.setdefault(ours, named[theirs])
    parts = {term.name: term.bytes for term in found.terms}
    for side in _SIDES:  # a log of two pools prints them apart
        if f"{side}_swa" in named:
            named[side] = named.get(side, 0) + named[f"{side}_swa"]
    named.setdefault("weights", found.bytes_of("weights"))
    named.setdefault("activation_peak", found.bytes_of("activations"))
    named.setdefault("kv_pool", found.bytes_of("kv_cache"))
    for term, name in (("runtime:non_torch", "non_torch"), ("runtime:graphs", "cuda_graph")):
        if term in parts:
            named.setdefault(name, parts[term])
    for name in _GIVEN_POOL:
        value = getattr(found, name)
        if value is not None:
            named.setdefault(name, value)
    return named


def _of_a_harness(run: Run, model: Model, printed: dict[str, float]) -> dict[str, float]:
    """What the package says of a pass of our own harness; on a GPU its allocator's blocks count, too."""
    from vlmmem.footprint import image_of
    from vlmmem.measured.harness.comparison import predicted
    from vlmmem.measured.harness.passes import Asked

    sight = image_of(model, *run.image_size) if run.images and run.image_size else None
    asked = Asked(
        model,
        {},
        run.id,
        context=run.input_tokens or 1,
        batch=run.batch or 1,
        images=run.images or 0,
        image_size=run.image_size,
        image=sight,
        new_tokens=run.output_tokens or 0,
        dtype=run.dtype or model.dtype,
    )
    found: dict[str, float] = {name: size for name, (size, _) in predicted(asked).items()}
    if run.option("device") == "cuda":
        found |= {"peak": printed["prefill"], "decode_peak": printed["last_step"]}
    return found


def _rounding(quantity: Quantity) -> float:
    """How far the printed figure may be off: engines print sizes with two decimals at least."""
    if quantity.dimension == "bytes":
        if quantity.unit == "bytes":
            return 0.5
        one = replace(quantity, value=1, decimals=0).bytes
        return min(quantity.rounding, one / 200)
    return 0.005 if quantity.dimension == "x" else 0


def _value(quantity: Quantity) -> float:
    return quantity.bytes if quantity.dimension == "bytes" else quantity.value


def predict(run: Run) -> tuple[tuple[Prediction, ...], tuple[Unpriced, ...]]:
    """The figures of one run beside what the engine's rules give, and those that have no prediction.

    >>> from vlmmem.measured import runs
    >>> run = next(run for run in runs() if run.id == "h100-phi-4")
    >>> found, _ = predict(run)
    >>> [abs(item.error) < 0.05 for item in found if item.quantity == "weights"]
    [True]
    """
    engine = _words()["engines"].get(run.engine, run.engine)

    def without(reason: str, quantity: str = "") -> Unpriced:
        return Unpriced(run.id, run.engine, quantity, run.split, " ".join(reason.split()))

    if engine is None or engine not in ENGINES:
        return (), (without(f"no rules of {run.engine} are here"),)
    if run.catalogue is None:
        return (), (without(run.why),)
    module: Any = import_module(f"vlmmem.engines.{ENGINES[engine]}")
    try:
        model = find_model(run.catalogue)
        release = find_release(engine, module.RELEASES, run.version)
        settings, unknown = settings_of(run, model)
        reservation = module.reserve(model, release, settings)
    except InputError as error:
        return (), (without(str(error)),)
    figures = _figures(reservation)
    if engine == "llama.cpp":
        # Its pool is what all GPUs hold, as its log adds it up.
        figures["kv_pool"] = sum(figures.get(name, 0) for name in (*_SIDES, "state_size"))
    if run.provenance == "harness":
        figures |= _of_a_harness(run, model, figures)
    generation = ""
    if engine == "vllm":
        generation = "V1" if module.uses_v1(model, release, module.complete(model, release, settings)) else "V0"
    kept: list[Prediction] = []
    left: list[Unpriced] = []

    def keep(quantity: str, value: float, rounding: float, low_high: tuple[float, float] | None, given: float) -> None:
        low, high = low_high or (value - rounding, value + rounding)
        needs = _NEEDS.get(quantity, ("context",) if engine == "llama.cpp" else _POOL_NEEDS)
        kept.append(
            Prediction(
                run.id,
                run.engine,
                release.version,
                quantity,
                run.split,
                value,
                low,
                high,
                given,
                run.family,
                model.id,
                run.vision,
                tuple(name for name in (*needs, "tp", "version", "checkpoint") if name in unknown),
                release.note,
                generation,
                "/".join(run.source.split("/")[2:5]),
            )
        )

    untold = dict(run.unpriced)
    for name, quantity in run.measured:
        if name not in _COMPARED:
            continue
        value = _value(quantity)
        buffers = run.get("buffers")
        if run.provenance == "harness" and name in _OVER_BUFFERS and buffers is not None:
            value -= buffers.bytes  # a module's buffers are counted apart, and have no rule here
        both = run.get(f"{name}_swa") if name in _SIDES else None
        if both is not None:
            value += _value(both)
        if name in untold:
            left.append(without(untold[name], name))
        elif name in _NEEDS_GPU and engine != "llama.cpp" and {"gpu", "gpu_total"} <= set(unknown):
            left.append(without("the GPU's memory is not stated, nor is the GPU in the catalogue", name))
        elif engine == "llama.cpp" and "context" in unknown and name not in ("weights", "model_size"):
            left.append(without("the context is not stated, and all of it is allocated", name))
        elif engine == "llama.cpp" and name in _NEEDS_LAYERS and run.option("n_gpu_layers") is None:
            left.append(without("which layers lie on the GPU is not stated", name))
        elif value <= 0:
            left.append(without(f"{quantity.value} {quantity.unit}: a relative error of it says nothing", name))
        elif name not in figures:
            left.append(without(f"the rules of {engine} give no {name}", name))
        elif name == "max_concurrency" and quantity.context not in (None, settings.context):
            left.append(without(f"printed for {quantity.context} tokens, and the run's context is another", name))
        else:
            keep(name, value, _rounding(quantity), None, figures[name])
    _given_the_pool(run, module, model, release, settings, keep, left, without)
    if not kept and not left:
        left.append(without("it prints none of the figures that are compared"))
    return tuple(kept), tuple(left)


_COMPARED = (
    "weights",
    "activation_peak",
    "non_torch",
    "cuda_graph",
    "kv_pool",
    "kv_tokens",
    "kv_tokens_swa",
    "kv_blocks",
    "max_concurrency",
    "compute_buffer",
    "k_size",
    "v_size",
    "state_size",
    "model_size",
    "total",
    "peak",
    "decode_peak",
    "cache",
    "cache_after",
)
"""Figures that are compared; the others are steps on the way to them."""


def _given_the_pool(
    run: Run,
    module: Any,
    model: Model,
    release: Release,
    settings: Settings,
    keep: Callable[[str, float, float, tuple[float, float] | None, float], None],
    left: list[Unpriced],
    without: Callable[..., Unpriced],
) -> None:
    """What the engine prints of its pool, computed from the pool that it printed."""
    pool = run.get("kv_pool")
    untold = dict(run.unpriced)
    printed = {name: quantity for name in _GIVEN_POOL if (quantity := run.get(name)) is not None and name not in untold}
    if pool is None or not printed or ENGINES.get(run.engine) in (None, "llama_cpp"):
        return  # llama.cpp allocates what the context needs: it fills no pool
    if GIVEN_POOL in untold:
        left.extend(without(untold[GIVEN_POOL], _GIVEN_POOL[name]) for name in printed)
        return
    if not hasattr(module, "kv_capacity"):
        left.extend(without("the engine's rules do not start from a pool", _GIVEN_POOL[name]) for name in printed)
        return
    filled = module.complete(model, release, settings) if hasattr(module, "complete") else settings
    about = _rounding(pool)
    try:
        ends = [
            dict(zip(_GIVEN_POOL, module.kv_capacity(model, release, filled, round(pool.bytes + off)), strict=True))
            for off in (-about, 0, about)
        ]
    except InputError as error:
        left.extend(without(str(error), _GIVEN_POOL[name]) for name in printed)
        return
    for name, quantity in printed.items():
        low, middle, high = (end[name] for end in ends)
        if middle is None:
            continue
        if name == "max_concurrency" and quantity.context not in (None, settings.context):
            left.append(
                without(f"printed for {quantity.context} tokens, the run's context is another", _GIVEN_POOL[name])
            )
            continue
        # The range belongs to the printed pool, so it stands around the prediction: moved to the printed figure.
        value, off = _value(quantity), _rounding(quantity)
        keep(_GIVEN_POOL[name], value, off, (value - (high - middle) - off, value + (middle - low) + off), middle)
        if name == "kv_tokens" and middle:
            block = filled.block_size or 16
            of_many = module.kv_capacity(model, release, filled, _MANY)[0]
            ends_of_one = ((pool.bytes - about) / (value + block), (pool.bytes + about) / value)
            keep(_PER_TOKEN, pool.bytes / value, 0, ends_of_one, _MANY / of_many)


@cache
def _all() -> tuple[tuple[Prediction, ...], tuple[Unpriced, ...]]:
    return predictions(runs())


def predictions(of: Iterable[Run] | None = None) -> tuple[tuple[Prediction, ...], tuple[Unpriced, ...]]:
    """Every run priced, those of the data set where none are given: figures with a prediction, and the others.

    >>> found, left = predictions()
    >>> len(found) > 100, all(item.reason for item in left)
    (True, True)
    """
    if of is None:
        return _all()
    kept: list[Prediction] = []
    left: list[Unpriced] = []
    for run in of:
        found, rest = predict(run)
        kept += found
        left += rest
    return tuple(kept), tuple(left)
