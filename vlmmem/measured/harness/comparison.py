"""What the package says of a measurement's case, beside what was measured."""

from vlmmem.errors import InputError
from vlmmem.measured.harness.passes import Asked, Measurement
from vlmmem.record import record
from vlmmem.workload import Workload

__all__ = ["Difference", "differences", "predicted"]


_ORDER = ("weights", "inputs", "cache", "activations", "peak", "cache_after", "decode_peak")
"""Quantities as they are shown; activations are what the peak holds over weights, buffers, inputs and cache."""


@record(frozen=True, slots=True)
class Difference:
    """One quantity: bytes measured, bytes that the package says, and where it says so."""

    name: str
    measured: int
    predicted: int
    said: str

    @property
    def bytes(self) -> int:
        """Bytes by which the package says more than was measured."""
        return self.predicted - self.measured

    @property
    def share(self) -> float:
        """The same as a share of what was measured."""
        return self.bytes / self.measured if self.measured else 0.0


def predicted(asked: Asked) -> dict[str, tuple[int, str]]:
    """Bytes that the package says of weights, cache and peaks, each with the function that says it."""
    from vlmmem.footprint import estimate
    from vlmmem.memory import cache_sizes, decode_peak_bytes, kv_cache_bytes, model_weights_bytes, pixel_bytes
    from vlmmem.memory.weights import find_weights_format

    model = asked.model
    number = find_weights_format(model, asked.dtype)
    weights = sum(model_weights_bytes(model, number).values())
    found = {"weights": (weights, "memory.model_weights_bytes")}
    # A sliding layer cuts the prompt by a view, whose storage stays whole until the next token
    # (transformers v5.23.0, cache_utils.py, DynamicSlidingWindowLayer.update).
    sizes = cache_sizes(model, asked.dtype)
    uncut = sum(size for _, size in sizes.growing) * asked.context + sizes.fixed_bytes(asked.images)
    found["cache"] = (asked.batch * uncut, "memory.cache_sizes, windows not cut")
    ids = 8 * asked.batch * (asked.context + 1)
    pixels = pixel_bytes(asked.image.pixel_values, asked.batch * asked.images) if asked.image else 0
    workload = Workload(asked.context, asked.batch, asked.images, asked.image_size if asked.images else None)
    footprint = estimate(model, workload, weights=asked.dtype, kv_dtype=asked.dtype)
    peak = sum(term.bytes for term in footprint.terms if term.kind != "runtime")
    beside = sum(term.bytes for term in footprint.terms if term.kind in ("activations", "vision"))
    cut = sum(term.bytes for term in footprint.terms if term.kind == "kv_cache")
    found["activations"] = (
        beside - pixels + cut - found["cache"][0],
        "footprint.estimate: activations, and vision without its pixels",
    )
    found["inputs"] = (ids + pixels, "8 B a token id, memory.pixel_bytes")
    found["peak"] = (peak + ids, "footprint.estimate without its runtime, token ids added")
    if asked.new_tokens:
        after = asked.context + asked.new_tokens
        whole = kv_cache_bytes(model, after, asked.batch, kv_dtype=asked.dtype, images=asked.images)
        found["cache_after"] = (whole, "memory.kv_cache_bytes")
        try:
            step = decode_peak_bytes(model, after, asked.batch, dtype=asked.dtype)
        except InputError:
            pass
        else:
            stands = weights + whole + ids + pixels
            found["decode_peak"] = (stands + step, "memory.decode_peak_bytes over all that stands")
    return found


def _on_a_gpu(measurement: Measurement) -> dict[str, tuple[int, str]]:
    """What the engine's rules say that PyTorch's allocator hands out: blocks and workspaces beside the tensors."""
    from vlmmem.catalog import find_format, gpus
    from vlmmem.engines import Settings, reserve

    asked = measurement.asked
    card = str(measurement.described.get("card", "")).lower().replace("-", " ").split()
    number = find_format(asked.dtype)
    settings = Settings(
        asked.context + asked.new_tokens,
        gpu=next((gpu for gpu in gpus() if gpu.id.partition("-")[0] in card), None),
        sequences=asked.batch,
        weights=number,
        kv_dtype=number,
        images=asked.images or None,
        image_size=asked.image_size if asked.images else None,
        options=(("prompt_tokens", asked.context),),
    )
    name = f"transformers@{measurement.described['transformers']}"
    printed = dict(reserve(asked.model, name, settings).printed)
    words = {"peak": "prefill", "decode_peak": "last_step"}
    return {quantity: (int(printed[word]), f"engine {name}, {word}") for quantity, word in words.items()}


def differences(measurement: Measurement) -> tuple[Difference, ...]:
    """Every quantity that the package predicts, beside what was measured."""
    said = predicted(measurement.asked)
    if measurement.device == "cuda":
        said |= _on_a_gpu(measurement)
    sizes = measurement.sizes
    over = sizes["peak"] - sum(sizes[name] for name in ("weights", "buffers", "inputs", "cache"))
    measured = {**sizes, "activations": over}
    return tuple(Difference(name, measured[name], *said[name]) for name in _ORDER if name in measured and name in said)
