"""The terms of a model's memory added up: a footprint on GPUs under a workload."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vlmmem.catalog import find_format, find_gpu, find_model
from vlmmem.errors import InputError
from vlmmem.formats import Format
from vlmmem.hardware import Gpu
from vlmmem.layers import LatentCache, Layer, StateCache
from vlmmem.memory import (
    cache_sizes,
    forward_moments,
    forward_peak_bytes,
    kv_growth,
    likely_peak_bytes,
    likely_peak_error,
    model_weights_bytes,
    runtime_allowance,
    runtime_bytes,
    state_bytes_per_sequence,
)
from vlmmem.memory.weights import find_weights_format
from vlmmem.model import Model
from vlmmem.parallelism import GpuShare, gpu_shares, stage_part
from vlmmem.record import record, replace
from vlmmem.terms import Term
from vlmmem.workload import Parallelism, Workload

if TYPE_CHECKING:
    from vlmmem.engines import Reservation, Settings
    from vlmmem.images import ImageTokens

__all__ = ["Footprint", "estimate"]

_SPLIT_SOURCE = "https://arxiv.org/abs/1909.08053"
_KV_SOURCE = "https://arxiv.org/abs/2305.13245"
_STATE_SOURCE = "https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/cache_utils.py"
_CROSS_SOURCE = (
    "https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/mllama/modeling_mllama.py"
)
_HEADER_SOURCE = "https://huggingface.co/docs/safetensors/index#format"
_QUANTISED_SOURCE = "https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/quantizers"
_PEAK_SOURCE = "https://github.com/huggingface/transformers/tree/v5.23.0"


@record(frozen=True, slots=True)
class Footprint:
    """What a model needs on each GPU and on all of them, in bytes.

    `weights` and `kv_dtype` name the number formats that were priced. `kv_bytes_per_token` is what one more token of
    one sequence adds on one GPU, `below_window` and `beyond_window` of every sliding window;
    `state_bytes_per_sequence` what a sequence holds there whatever its length. `image_tokens` are those of one
    sequence. `engine` is what an inference engine reserves, if one was asked; the terms are then its own. `fits`
    compares one GPU's need with what the GPU has, and the engine's room with the batch; it is None without a GPU.
    `notes` say what the numbers leave out or take for granted.
    """

    model: Model
    workload: Workload
    parallelism: Parallelism
    weights: str
    kv_dtype: str
    terms: tuple[Term, ...]
    kv_bytes_per_token: dict[str, int]
    state_bytes_per_sequence: int
    image_tokens: int = 0
    gpu: Gpu | None = None
    notes: tuple[str, ...] = ()
    engine: "Reservation | None" = None

    @property
    def gpus(self) -> int:
        """GPUs that hold the model once."""
        return self.parallelism.gpus

    @property
    def per_gpu(self) -> dict[str, int]:
        """Bytes of one GPU: weights, kv_cache, activations, vision, runtime, and their total."""
        kinds = dict.fromkeys(("weights", "kv_cache", "activations", "vision", "runtime"), 0)
        for term in self.terms:
            kinds[term.kind] += term.bytes
        return {**kinds, "total": sum(kinds.values())}

    @property
    def total(self) -> int:
        """Bytes of all GPUs together, each as full as the fullest."""
        return self.gpus * self.per_gpu["total"]

    @property
    def needed(self) -> int:
        """Bytes of one GPU that the workload needs: the total, or of an engine's pool the batch's part of it."""
        total = self.per_gpu["total"]
        room = None if self.engine is None else self.engine.max_concurrency
        if not room:
            return total
        pool = self.per_gpu["kv_cache"]
        return total - pool + round(self.workload.batch * pool / room)

    @property
    def fits(self) -> bool | None:
        """Whether one GPU's share is within the GPU's memory, and the batch within the engine's; None without a GPU."""
        if self.gpu is None:
            return None
        room = None if self.engine is None else self.engine.max_concurrency
        return self.per_gpu["total"] <= self.gpu.memory_bytes and (room is None or room >= self.workload.batch)

    @property
    def ranges(self) -> dict[str, dict[str, Any]]:
        """Between which values each of the engine's figures will lie nine times in ten; empty without an engine."""
        if self.engine is None:
            return {}
        from vlmmem.accuracy.intervals import ranges

        return ranges(self.engine)

    def json(self) -> dict[str, Any]:
        """The same as a JSON object: sizes in bytes."""
        from dataclasses import asdict

        model = self.model
        return {
            "model": {
                "id": model.id or model.architecture,
                "architecture": model.architecture,
                "parameters": model.parameters,
                "parameters_by_part": model.parameters_by_part,
                "language_by_part": model.language_by_part,
                "active_parameters": model.active_parameters,
                "mtp": model.mtp_parameters,
                "basis": model.basis,
            },
            "context": self.workload.context,
            "batch": self.workload.batch,
            "images": self.workload.images,
            "image_size": None if self.workload.image_size is None else list(self.workload.image_size),
            "weights": self.weights,
            "kv_dtype": self.kv_dtype,
            "tp": self.parallelism.tp,
            "pp": self.parallelism.pp,
            "kv_bytes_per_token": self.kv_bytes_per_token,
            "state_bytes_per_sequence": self.state_bytes_per_sequence,
            "per_gpu": self.per_gpu,
            "total": self.total,
            "image_tokens": self.image_tokens,
            "engine": None if self.engine is None else {**self.engine.json(), "ranges": self.ranges},
            "gpu": None if self.gpu is None else self.gpu.id,
            "fits": self.fits,
            "terms": [asdict(term) for term in self.terms],
            "notes": list(self.notes),
        }


def estimate(
    model: str | Model,
    workload: Workload,
    parallelism: Parallelism | None = None,
    gpu: str | Gpu | None = None,
    *,
    weights: str | Format | None = None,
    kv_dtype: str | Format | None = None,
    engine: str | None = None,
    settings: "Settings | None" = None,
) -> Footprint:
    """The memory of a model under a workload, term by term, as transformers would hold it, or as an engine reserves it.

    All sequences go through the model in one pass. Over several GPUs the terms are those of the fullest one, as
    `gpu_shares` deals weights and KV cache out. Image tokens count in the context.

    Args:
        model: a model or its name.
        workload: sequences, their length and their images.
        parallelism: GPUs that split layers (tp) or share them out (pp); one GPU without it.
        gpu: the GPU on which it should fit, or its name.
        weights: number format of the weights; None is that in which the model was published.
        kv_dtype: number format of the KV cache; None is the model's own.
        engine: an engine and its release, such as vllm@0.19: the terms are then what it reserves.
        settings: how that engine is started, where it is not with its defaults; context, GPU, parallelism, images and
            formats are the workload's.

    Raises:
        InputError: a name is unknown, tp does not divide the heads or the MLP, pp exceeds the layers, the images
            have more tokens than the context, or the engine does not run the model so.

    >>> footprint = estimate("llama-3.1-8b", Workload(context=8192), gpu="a100-40gb")
    >>> footprint.per_gpu["weights"], footprint.per_gpu["kv_cache"], footprint.fits
    (16060522496, 1073741824, True)
    """
    model = find_model(model) if isinstance(model, str) else model
    parallelism = Parallelism() if parallelism is None else parallelism
    gpu = find_gpu(gpu) if isinstance(gpu, str) else gpu
    number = find_weights_format(model, weights) if isinstance(weights, str) else weights
    cache = kv_dtype if isinstance(kv_dtype, Format) else find_format(kv_dtype or default_kv_dtype(model))
    shares = gpu_shares(model, workload, parallelism, weights=number, kv_dtype=cache)
    fullest = max(shares, key=lambda share: share.total)
    sight = _images(model, workload)
    reserved = None
    if engine is None:
        activations = _activations(model, workload, parallelism, number, cache)
        terms = (
            *_weights(model, number, parallelism, fullest),
            *_kv_cache(model, workload, cache, parallelism, fullest),
            activations,
            *_vision(model, workload, sight, activations),
            _runtime(parallelism),
        )
    else:
        asked = cache if kv_dtype is not None else None
        reserved = _reserved(model, workload, parallelism, gpu, number, asked, engine, settings)
        terms = reserved.terms
    return Footprint(
        model=model,
        workload=workload,
        parallelism=parallelism,
        weights=stored_format(model) if number is None else number.id,
        kv_dtype=cache.id,
        terms=terms,
        kv_bytes_per_token=kv_growth(model, cache, parallelism.tp),
        state_bytes_per_sequence=state_bytes_per_sequence(model, cache, parallelism.tp, workload.images),
        image_tokens=0 if sight is None else workload.images * sight.tokens,
        gpu=gpu,
        notes=(*model.notes, *(_notes(model, workload) if reserved is None else reserved.notes)),
        engine=reserved,
    )


def _reserved(
    model: Model,
    workload: Workload,
    parallelism: Parallelism,
    gpu: Gpu | None,
    number: Format | None,
    cache: Format | None,
    engine: str,
    settings: "Settings | None",
) -> "Reservation":
    """What the engine takes when it is started for this workload."""
    from vlmmem.engines import POOLED, Settings, engine_and_release, reserve

    settings = Settings(workload.context) if settings is None else settings
    sequences = settings.sequences
    if sequences is None and engine_and_release(engine)[0] not in POOLED:
        sequences = workload.batch
    asked = replace(
        settings,
        context=workload.context,
        gpu=gpu,
        tp=parallelism.tp,
        pp=parallelism.pp,
        sequences=sequences,
        weights=number,
        kv_dtype=cache,
        images=workload.images or settings.images,
        image_size=workload.image_size or settings.image_size,
    )
    return reserve(model, engine, asked)


def default_kv_dtype(model: Model) -> str:
    """The number format of the cache where nobody says: what the checkpoint's quantisation asks for, or its dtype."""
    asked = "" if model.quantization is None else model.quantization.kv_cache
    return asked or model.dtype


def stored_format(model: Model) -> str:
    """The form in which a model's weights were published, by name."""
    if any(tensor.stored is not None for part in model.parts for _, tensor in part.sample()):
        return "as stored"
    return model.dtype if model.quantization is None else model.quantization.method


def image_of(model: Model, width: int, height: int) -> "ImageTokens":
    """What one image of that size is to a model that sees.

    Raises:
        InputError: the model has no vision tower, or no processor is known for it.
    """
    if "vision" not in model.parameters_by_part:
        raise InputError(f"images: {model.id or model.architecture} has no vision tower; a model that sees is needed")
    from vlmmem.images import image_tokens

    return image_tokens(model, width, height)


def seen_moments(
    model: Model, context: int, batch: int, images: int, sight: "ImageTokens | None"
) -> dict[str, int] | None:
    """`forward_moments` of a prefill with its images, features and what the tower leaves among them.

    Args:
        model: a model.
        context: tokens of each sequence, those of its images among them.
        batch: sequences in the pass.
        images: images of each sequence.
        sight: what one of them is to the model; None without images.

    Returns:
        None without images, and where no such pass was checked: only that of a CLIP tower whose patches are the
        image's tokens was.

    >>> moments = seen_moments(find_model("llava-1.5-13b"), 2048, 1, 1, image_of(find_model("llava-1.5-13b"), 336, 336))
    >>> moments["mlp"]  # of the fake-tensor run: 1,946,703,872 B over the weights, 1,677,721,600 B of them KV cache
    268982272
    """
    tower = model.vision
    if sight is None or not images or tower is None or tower.architecture != "clip" or sight.tokens != tower.patches:
        return None
    try:
        return forward_moments(model, context, batch, images=images * batch)
    except InputError:
        return None


def _images(model: Model, workload: Workload) -> "ImageTokens | None":
    """The tokens of one image; None without images."""
    if not workload.images or workload.image_size is None:
        return None
    found = image_of(model, *workload.image_size)
    needed = workload.images * found.tokens
    if needed > workload.context:
        raise InputError(
            f"images: {workload.images} of {found.tokens:,} tokens each are more than the context of "
            f"{workload.context:,}; a context of {needed:,} or more is needed"
        )
    return found


def _weights(model: Model, number: Format | None, parallelism: Parallelism, share: GpuShare) -> tuple[Term, ...]:
    stored = stored_format(model)
    if number is not None or stored == model.dtype:
        number = find_format(model.dtype) if number is None else number
        bits, source = f"({number.formula or number.bits}) bits", number.sources[0].address if number.sources else ""
        rest = {"decoder-linear": "the rest x 16 bits", "mixture": "norms x 32 bits"}.get(number.scope, "")
        basis = "derived"
    elif stored == "as stored":
        bits, source, rest, basis = "as the file's header says", _HEADER_SOURCE, "", "measured"
    else:
        bits, source, rest, basis = f"as {stored} stores them", _QUANTISED_SOURCE, "the rest x 16 bits", "derived"
    if parallelism.gpus > 1:
        formula = f"stage {share.stage}: {share.layers} of {model.layers} layers / {parallelism.tp} GPUs x {bits} / 8"
        ends = (("embedding", share.stage == 0), ("output head", share.stage == parallelism.pp - 1))
        held = " and ".join(name for name, here in ends if here)
        formula += f", its {held} with them" if held else ""
        return (Term("weights", share.weights, formula, basis, _SPLIT_SOURCE),)
    parts = model_weights_bytes(model, number)
    terms = []
    for part, size in parts.items():
        parameters = f"{model.parameters_by_part[part]:,} parameters"
        plain = f"x {bits} / 8" if "bits" in bits else bits
        mixed = f": linear layers {'x ' if 'bits' in bits else ''}{bits}, {rest}"
        if not rest:
            formula = f"{parameters} {plain}"
        elif part == "language" or number is None:
            formula = f"{parameters}{mixed}{', / 8' if 'bits' in bits else ''}"
        else:
            formula = f"{parameters} x 16 bits / 8"
        name = "weights" if len(parts) == 1 else f"weights:{part}"
        terms.append(Term(name, size, formula, basis, source))
    return tuple(terms)


def _kv_cache(
    model: Model, workload: Workload, cache: Format, parallelism: Parallelism, share: GpuShare
) -> tuple[Term, ...]:
    """One term for the layers that keep all tokens, one for each window, one for states and one for images."""
    layers = stage_part(model, parallelism.pp, share.stage).layers
    sizes = cache_sizes(model, cache, parallelism.tp, layers=layers)
    batch, found = workload.batch, []
    for limit, size in sizes.growing:
        kept = workload.context if limit is None else min(workload.context, limit)
        name = "full" if limit is None else f"window-{limit}"
        window = "" if limit is None else f" (of a window of {limit:,})"
        formula = f"{size:,} B a token ({_layers_told(layers, limit, cache, parallelism.tp)}) x {kept:,} tokens{window}"
        formula += f" x {_counted(batch, 'sequence')}"
        found.append((name, size * kept * batch, formula, _KV_SOURCE))
    if sizes.state:
        formula = f"{sizes.state:,} B of recurrent and convolution states x {_counted(batch, 'sequence')}"
        found.append(("state", sizes.state * batch, formula, _STATE_SOURCE))
    if sizes.image:
        images = workload.images
        formula = f"{sizes.image:,} B of cross-attention an image x {_counted(images, 'image')}"
        formula += f" x {_counted(batch, 'sequence')}"
        found.append(("images", sizes.image * images * batch, formula, _CROSS_SOURCE))
    single = len(found) == 1
    return tuple(
        Term("kv_cache" if single else f"kv_cache:{name}", size, formula, "derived", source)
        for name, size, formula, source in found
    )


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _layers_told(layers: Sequence[Layer], limit: int | None, cache: Format, tp: int) -> str:
    """What the layers that keep so many tokens keep of one."""
    counts: dict[str, int] = {}
    for layer in layers:
        for each in layer.caches:
            if isinstance(each, StateCache) or each.limit != limit or getattr(each, "states", None) is not None:
                continue
            if isinstance(each, LatentCache):
                text = f"{each.width} {each.what}"
            else:
                text = f"{max(1, each.heads // tp)} KV heads x ({each.key_dim} + {each.value_dim})"
            counts[text] = counts.get(text, 0) + 1
    return " + ".join(f"{count} layers: {text} x {cache.bits} bits / 8" for text, count in counts.items())


def _activations(
    model: Model, workload: Workload, parallelism: Parallelism, number: Format | None, cache: Format
) -> Term:
    number = find_format(model.dtype) if number is None else number
    try:
        peak = forward_peak_bytes(model, workload.context, workload.batch)
        formula, basis = "peak of one prefill of all tokens in transformers, over weights and KV cache", "derived"
    except InputError:
        peak = likely_peak_bytes(model, workload.context, workload.batch)
        off = likely_peak_error(model)
        measured = f"{off['passes']} passes of {len(off['families'])} families"
        if off["families"] == [model.architecture]:
            measured = f"{off['passes']} passes of {model.architecture}"
        formula = (
            "peak of one prefill of all tokens by Llama's closed form with this model's tensors: "
            f"off by {off['least']:+.1%} to {off['most']:+.1%} on {measured}"
        )
        basis = "assumed"
    if parallelism.gpus > 1 or not all(each.id in ("bf16", "fp16") for each in (number, cache)):
        formula, basis = f"{formula}, of one GPU in 16 bits; taken whole on each GPU", "assumed"
        if number.id == "fp32":
            peak, formula = 2 * peak, f"2 x {formula}: 32 bits"
    return Term("activations", peak, formula, basis, _PEAK_SOURCE)


def _vision(model: Model, workload: Workload, sight: "ImageTokens | None", activations: Term) -> tuple[Term, ...]:
    """Pixels and features of all images, and what the tower's pass needs above the decoder's, which comes after it."""
    if sight is None:
        return (Term("vision", 0, "no image beside the text", "derived", _PEAK_SOURCE),)
    from vlmmem.memory.vision import encoder_peak_bytes, pixel_bytes

    images = workload.batch * workload.images
    terms = [
        Term(
            "vision:pixels",
            pixel_bytes(sight.pixel_values, images),
            f"{_counted(images, 'image')} x {sight.pixel_values:,} elements x 4 B, as the processor gives them",
            "derived",
            _PEAK_SOURCE,
        )
    ]
    if model.vision is None:
        return tuple(terms)
    seen = seen_moments(model, workload.context, workload.batch, workload.images, sight)
    if seen is None:
        decoder, features = activations.bytes, _features(model, images, sight)
    else:
        features = _standing(model, workload, activations, seen)
        decoder = activations.bytes + features.bytes
    try:
        peak = encoder_peak_bytes(model, images, crops=sight.crops, tokens=sight.tokens, grid=sight.grid)
    except InputError as error:
        formula = f"not in it: {error}"
        terms.append(Term("vision:encoder", 0, formula, "assumed", _PEAK_SOURCE))
    else:
        more = max(0, peak - decoder)
        formula = (
            f"the tower's pass peaks at {peak:,} B, {'above' if more else 'below'} the decoder's {decoder:,} B after it"
        )
        terms.append(Term("vision:encoder", more, formula, "derived", _PEAK_SOURCE))
    return (*terms, features)


def _features(model: Model, images: int, sight: "ImageTokens") -> Term:
    """What waits for a decoder whose pass was not checked with images."""
    from vlmmem.memory.vision import encoder_cache_bytes

    # features that reach the decoder by cross-attention stand for all tiles, whatever the prompt says
    crossed = (getattr(cache, "states", None) for layer, _ in model.decoder.alike() for cache in layer.caches)
    tokens = images * next((states for states in crossed if states is not None), sight.tokens)
    features = encoder_cache_bytes(model, tokens)
    width = features // (tokens * model.hidden_size)
    formula = f"{tokens:,} features x {model.hidden_size:,} x {width} B, kept for the decoder"
    return Term("vision:features", features, formula, "derived", _PEAK_SOURCE)


def _standing(model: Model, workload: Workload, activations: Term, seen: dict[str, int]) -> Term:
    """What images leave standing beside the activations: the checked pass's peak with them over that without."""
    tower = model.vision
    assert tower is not None
    peak, moment = max((size, name) for name, size in seen.items())
    text = forward_peak_bytes(model, workload.context, workload.batch)
    # 2 where the activations are those of 32 bits
    times = activations.bytes // text
    images = workload.batch * workload.images
    formula = f"{images * tower.patches:,} features x {model.hidden_size:,} x 2 B"
    if moment != "logits":
        states = f"{images * (tower.patches + 1):,} x {tower.hidden_size:,} x 2 B"
        formula = f"2 x ({formula} + {states} of the tower) + a mask of {workload.batch * workload.context:,} B"
    if times > 1:
        formula = f"{times} x ({formula})"
    formula += f": the pass peaks at {times * peak:,} B with its images"
    return Term("vision:features", times * (peak - text), formula, activations.basis, _PEAK_SOURCE)


def _runtime(parallelism: Parallelism) -> Term:
    allowance = runtime_allowance(parallelism.tp, parallelism.pp)
    parts = f"{allowance.context_bytes:,} B context + {allowance.workspace_bytes:,} B workspaces"
    formula = f"{parts}, measured on H100s under vLLM 0.19"
    size = runtime_bytes(parallelism.tp, parallelism.pp)
    return Term("runtime", size, formula, "assumed", allowance.sources[0].address)


def _notes(model: Model, workload: Workload) -> tuple[str, ...]:
    notes = []
    name = model.id or model.architecture
    if workload.context > model.max_positions:
        notes.append(f"{workload.context:,} tokens are over the {model.max_positions:,} positions of {name}")
    limits = {
        cache.limit for layer, _ in model.decoder.alike() for cache in layer.caches if not isinstance(cache, StateCache)
    }
    windows = sorted(limit for limit in limits if limit is not None and workload.context > limit)
    if windows:
        who = "each layer keeps" if None not in limits else "layers with a sliding window keep"
        tokens = " or ".join(f"{window:,}" for window in windows)
        own = "its sliding window" if None not in limits else "their own"
        notes.append(f"{who} {tokens} tokens ({own}); engines keep some more")
    return tuple(notes)
