"""Bounds of time from two rates: what a forward pass computes, what it must read, and what a GPU can do of either.

The roofline model (Williams, Waterman, Patterson 2009): a GPU of peak compute π (FLOP/s) and memory bandwidth β (B/s)
does no more than min(π, β × I) FLOP a second of work whose arithmetic intensity is I (FLOP a byte). The work is counted
from the model's shapes, exactly. Times are lower bounds, not predictions: no kernel reaches both peaks, and only what
cannot be avoided is counted.

Counted as FLOP are the products of matrices, two for each multiplication and addition, as PyTorch's `FlopCounterMode`
does; norms, activations, softmax, rotary embeddings and biases are not. Counted as bytes are the weights, once a pass,
and the KV cache; activations, which a GPU may keep on the chip, are not.
"""

from fractions import Fraction

from vlmmem.catalog import find_format, find_gpu, find_link, find_model
from vlmmem.errors import InputError
from vlmmem.formats import Format
from vlmmem.hardware import Gpu, Link
from vlmmem.memory.kv_cache import kv_bytes_per_token, kv_cache_bytes
from vlmmem.memory.weights import model_weights_bytes, weights_bytes
from vlmmem.model import Model
from vlmmem.record import record
from vlmmem.units import Number, exact
from vlmmem.workload import check_positive

__all__ = [
    "ForwardPass",
    "attainable_flops",
    "compute_bound_batch",
    "decode_step",
    "least_seconds",
    "prefill",
    "ridge_point",
    "transfer_seconds",
    "weights_read_bytes",
]

ATTENTION = ("causal", "square")
LOGITS = ("last", "all")


@record(frozen=True, slots=True)
class ForwardPass:
    """What one forward pass computes and moves: `flops`, and bytes of weights and of KV cache.

    >>> step = decode_step("llama-3.1-70b", context=4096)
    >>> step.flops, step.weights_bytes, step.kv_bytes
    (149740847104, 139006066688, 1342177280)
    """

    flops: int
    weights_bytes: int
    kv_bytes: int

    @property
    def bytes(self) -> int:
        """Bytes of weights and KV cache together."""
        return self.weights_bytes + self.kv_bytes

    @property
    def intensity(self) -> Fraction:
        """Arithmetic intensity, FLOP a byte."""
        return Fraction(self.flops, self.bytes)


def weights_read_bytes(model: str | Model, weights: str | Format = "bf16") -> int:
    """Bytes of the weights that every pass reads: all of the language model but the embedding table.

    Of the table a pass reads one row a token. Where the output head is tied to it, the pass reads it as head.

    Args:
        model: a model or its name.
        weights: the number format of the weights, or its name.

    >>> weights_read_bytes("llama-3.1-8b")
    15009849344
    """
    model, number = _model(model), _format(weights)
    table = 0 if model.tied_embeddings else model.vocab_size * model.hidden_size
    table += sum(tensor.parameters for tensor in model.decoder.tensors if tensor.kind == "position")
    kept = find_format(model.dtype) if number.scope == "decoder-linear" else number
    return model_weights_bytes(model, number)["language"] - weights_bytes(table, kept)


def prefill(
    model: str | Model,
    context: int,
    batch: int = 1,
    weights: str | Format = "bf16",
    kv_dtype: str | Format = "bf16",
    attention: str = "causal",
    logits: str = "last",
) -> ForwardPass:
    """The pass over whole prompts of `context` tokens each, which writes their KV cache.

    2 × matrices × tokens, and 4 × heads × head_dim for each pair of a token and one that it attends to.

    Args:
        model: a model or its name; of a vision-language model, the language model.
        context: tokens of each prompt.
        batch: prompts that go through at once.
        weights: the number format of the weights, or its name.
        kv_dtype: that of the cache.
        attention: "causal" counts the pairs that are needed, "square" every pair, as kernels that mask do.
        logits: whether the output head sees the "last" token of each prompt or "all".

    Raises:
        InputError: an argument is none of these.

    Source: https://github.com/jax-ml/scaling-book, transformers.md (forward FLOP); tests/oracle/flops.json.

    >>> prefill("llama-3.1-70b", 4096).flops / 10**12
    582.748632776704
    """
    model = _model(model)
    check_positive("context", context)
    if attention not in ATTENTION:
        raise InputError(f"attention: {attention!r} was given; one of {', '.join(ATTENTION)} is needed")
    if logits not in LOGITS:
        raise InputError(f"logits: {logits!r} was given; one of {', '.join(LOGITS)} is needed")
    pairs = context * context if attention == "square" else _causal_pairs(model, context)
    rows = context if logits == "all" else 1
    check_positive("batch", batch)
    flops = batch * (_layer_flops(model, context, pairs) + _head_flops(model, rows))
    written = batch * context * kv_bytes_per_token(model, kv_dtype)
    return ForwardPass(flops, weights_read_bytes(model, weights), written)


def decode_step(
    model: str | Model,
    context: int,
    batch: int = 1,
    weights: str | Format = "bf16",
    kv_dtype: str | Format = "bf16",
) -> ForwardPass:
    """The pass that adds one token to each of `batch` sequences, which then have `context` tokens.

    The weights are read once, however many sequences there are; each sequence's cache is read for itself.

    Args:
        model: a model or its name; of a vision-language model, the language model.
        context: tokens of each sequence after the step.
        batch: sequences.
        weights: the number format of the weights, or its name.
        kv_dtype: that of the cache.

    Raises:
        InputError: context or batch is not a positive integer, or a format is not one.

    >>> float(round(decode_step("llama-3.1-70b", 4096).intensity, 3))
    1.067
    """
    model = _model(model)
    check_positive("context", context)
    check_positive("batch", batch)
    attended = context if model.sliding_window is None else min(context, model.sliding_window)
    flops = batch * (_layer_flops(model, 1, attended) + _head_flops(model, 1))
    return ForwardPass(flops, weights_read_bytes(model, weights), kv_cache_bytes(model, context, batch, kv_dtype))


def ridge_point(gpu: str | Gpu) -> Fraction:
    """Arithmetic intensity (FLOP a byte) above which 16-bit compute is the limit, and below which memory is: π / β.

    >>> round(ridge_point("h100-80gb"))
    295
    """
    gpu = _gpu(gpu)
    return Fraction(gpu.flops_16bit, gpu.bandwidth)


def attainable_flops(gpu: str | Gpu, intensity: Number) -> Fraction:
    """The most FLOP a second of work of that intensity: min(π, β × I).

    >>> int(attainable_flops("h100-80gb", 1)), int(attainable_flops("h100-80gb", 1000))
    (3350000000000, 989400000000000)
    """
    gpu, ratio = _gpu(gpu), exact(intensity)
    if ratio <= 0:
        raise InputError(f"intensity: {intensity} was given; more than 0 FLOP a byte is needed")
    return min(Fraction(gpu.flops_16bit), gpu.bandwidth * ratio)


def least_seconds(work: ForwardPass, gpu: str | Gpu, gpus: int = 1) -> Fraction:
    """A lower bound of the time of a pass on `gpus` GPUs that share it evenly: the longer of computing and reading.

    What the GPUs tell one another takes time too, which is not counted.

    >>> float(round(least_seconds(decode_step("llama-3.1-70b", 4096), "h200"), 4))
    0.0292
    """
    gpu = _gpu(gpu)
    check_positive("gpus", gpus)
    return max(Fraction(work.flops, gpu.flops_16bit), Fraction(work.bytes, gpu.bandwidth)) / gpus


def compute_bound_batch(
    model: str | Model,
    gpu: str | Gpu,
    context: int = 1,
    weights: str | Format = "bf16",
    kv_dtype: str | Format = "bf16",
) -> int | None:
    """The fewest sequences with which a decode step's intensity reaches the ridge point; None where none do.

    The weights are shared by all sequences, the cache is not: with f FLOP and k bytes a sequence and W bytes of
    weights, B × f / (W + B × k) stays below f / k, however large B is.

    >>> compute_bound_batch("llama-3.1-70b", "h100-80gb"), compute_bound_batch("llama-3.1-70b", "h100-80gb", 4096)
    (296, None)
    """
    one, ridge = decode_step(model, context, 1, weights, kv_dtype), ridge_point(gpu)
    gained = one.flops - ridge * one.kv_bytes
    return None if gained <= 0 else -(-ridge * one.weights_bytes // gained)


def transfer_seconds(size: int, link: str | Link) -> Fraction:
    """A lower bound of the time in which `size` bytes cross a link, in one direction.

    >>> float(transfer_seconds(10**9, "infiniband-ndr"))
    0.02
    """
    check_positive("size", size)
    link = find_link(link) if isinstance(link, str) else link
    return Fraction(size, link.bandwidth)


def _model(model: str | Model) -> Model:
    return find_model(model) if isinstance(model, str) else model


def _gpu(gpu: str | Gpu) -> Gpu:
    return find_gpu(gpu) if isinstance(gpu, str) else gpu


def _format(number: str | Format) -> Format:
    return find_format(number) if isinstance(number, str) else number


def _causal_pairs(model: Model, tokens: int) -> int:
    """Pairs of a token and one at or before it, at most `sliding_window` of them."""
    window = tokens if model.sliding_window is None else min(tokens, model.sliding_window)
    return window * (window + 1) // 2 + (tokens - window) * window


def _layer_flops(model: Model, tokens: int, pairs: int) -> int:
    """FLOP of all decoder layers for the new tokens and the pairs that attend."""
    matrices = sum(linear.rows * linear.columns for linear in model.layer_linears)
    return model.layers * (2 * matrices * tokens + 4 * model.heads * model.head_dim * pairs)


def _head_flops(model: Model, rows: int) -> int:
    """FLOP of the output head for `rows` tokens."""
    return 2 * model.vocab_size * model.hidden_size * rows
