"""What the package says of a measurement's case, beside what was measured."""

from vlmmem.errors import InputError
from vlmmem.measured.harness.passes import Asked, Measurement
from vlmmem.record import record
from vlmmem.workload import Workload

__all__ = ["Difference", "differences", "predicted"]


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
    from vlmmem.memory import decode_peak_bytes, kv_cache_bytes, model_weights_bytes, pixel_bytes
    from vlmmem.memory.weights import find_weights_format

    model = asked.model
    number = find_weights_format(model, asked.dtype)
    weights = sum(model_weights_bytes(model, number).values())
    found = {"weights": (weights, "memory.model_weights_bytes")}
    found["cache"] = (
        kv_cache_bytes(model, asked.context, asked.batch, kv_dtype=asked.dtype, images=asked.images),
        "memory.kv_cache_bytes",
    )
    ids = 8 * asked.batch * (asked.context + 1)
    pixels = pixel_bytes(asked.image.pixel_values, asked.batch * asked.images) if asked.image else 0
    workload = Workload(asked.context, asked.batch, asked.images, asked.image_size if asked.images else None)
    footprint = estimate(model, workload, weights=asked.dtype, kv_dtype=asked.dtype)
    peak = sum(term.bytes for term in footprint.terms if term.kind != "runtime")
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
            found["decode_peak"] = (
                weights + whole + step + ids + pixels,
                "memory.decode_peak_bytes over all that stands",
            )
    return found


def differences(measurement: Measurement) -> tuple[Difference, ...]:
    """Every quantity that the package predicts, beside what was measured."""
    said = predicted(measurement.asked)
    return tuple(Difference(name, size, *said[name]) for name, size in measurement.sizes.items() if name in said)
