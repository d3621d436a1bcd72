"""Memory of the weights, tensor by tensor.

A tensor out of a file has the bytes that stand there. One from a config is stored as the config's quantisation says
(vlmmem/quantization), in the number format that is asked for, or in the model's own.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from math import ceil, isqrt

from vlmmem.catalog import find_format, find_model
from vlmmem.errors import InputError
from vlmmem.formats import Format
from vlmmem.layers import KeyValueCache, Layer, Part, Tensor
from vlmmem.memory.gguf import (
    CHECKED,
    MIXTURES,
    block_bits,
    check_mixture,
    tensor_type,
)
from vlmmem.model import Model

__all__ = [
    "checkpoint_bytes",
    "find_weights_format",
    "local_shape",
    "model_weights_bytes",
    "part_bits",
    "tensor_bits",
    "weights_bytes",
]

_RUNS = ("nf4", "nf4-double-quant")
_SQUARES = ("fp8-block128",)
"""Formats whose scales are for runs over the ends of rows, and for squares; the others' are for runs inside a row."""


def weights_bytes(parameters: int, format: str | Format = "bf16") -> int:  # noqa: A002 (the field's own word)
    """Bytes of `parameters` weights, all of them in one number format: ceil(parameters x bits / 8).

    Bits are exact fractions with the scales and zeros of the format. What a format keeps for each row
    (`row_bits`) needs the shapes and is not in it: `model_weights_bytes` adds it.

    Args:
        parameters: number of weights, 0 or more.
        format: a number format or its name.

    Raises:
        InputError: `parameters` is not an integer of 0 or more, or the format is not in the catalogue.

    Source: each format of the catalogue carries its own.

    >>> weights_bytes(13_015_864_320, "bf16")
    26031728640
    >>> weights_bytes(3, "int4")
    2
    """
    if type(parameters) is not int or parameters < 0:
        raise InputError(f"weights: 'parameters' is {parameters!r}; an integer of 0 or more is needed")
    number = find_format(format) if isinstance(format, str) else format
    return ceil(parameters * number.bits / 8)


def model_weights_bytes(
    model: str | Model,
    format: str | Format | None = None,  # noqa: A002 (the field's own word)
) -> dict[str, int]:
    """Bytes of a checkpoint by part (`language`, `vision`, `projector`).

    Without a format they are those of the checkpoint itself: what its file's header says; or what its quantisation
    config says, integers, scales and zeros as its library stores them, and the rest in the model's dtype. A format
    whose scope is "decoder-linear" (GPTQ, AWQ, NF4 and the like) holds the matrices of the decoder's linear layers and
    experts; embeddings, head, norms, biases, routers, vision tower and projector stay in the model's dtype.

    Args:
        model: a model or its name.
        format: a number format or its name; None is the form in which the model was published.

    Raises:
        InputError: model or format is not in the catalogue, the format is one of caches, or the bytes of the config's
            quantisation method are not known here.

    Source: the checkpoints of GPTQ (arXiv 2210.17323) and AWQ (arXiv 2306.00978); the layouts of vlmmem.quantization.

    >>> model_weights_bytes("llava-1.5-13b")
    {'language': 26033039360, 'vision': 607014912, 'projector': 62935040}
    >>> model_weights_bytes("llama-3.1-8b", "awq-4bit")
    {'language': 5727854592}
    """
    model = find_model(model) if isinstance(model, str) else model
    number = find_format(format) if isinstance(format, str) else format
    found: dict[str, Fraction] = {}
    for part in model.parts:
        found[part.name] = found.get(part.name, Fraction(0)) + part_bits(model, part, number)
    return {name: ceil(bits / 8) for name, bits in found.items()}


def checkpoint_bytes(
    model: str | Model,
    format: str | Format | None = None,  # noqa: A002 (the field's own word)
) -> int:
    """Bytes of a whole checkpoint, with all that its format leaves in 16 or 32 bits.

    Args:
        model: a model or its name.
        format: a number format, its name, or the name of a mixture of GGUF formats such as "q4_k_m"; None is the
            form in which the model was published.

    Raises:
        InputError: as `model_weights_bytes` and `gguf_weights_bytes` say.

    Source: those of `model_weights_bytes` and `gguf_weights_bytes`.

    >>> checkpoint_bytes("llama-3.1-8b"), checkpoint_bytes("llama-3.1-8b", "awq-4bit")
    (16060522496, 5727854592)
    >>> checkpoint_bytes("llama-3.1-8b", "q4_k_m")
    4912898048
    """
    model = find_model(model) if isinstance(model, str) else model
    number = find_weights_format(model, format) if isinstance(format, str) else format
    return sum(model_weights_bytes(model, number).values())


def find_weights_format(model: Model, name: str) -> Format:
    """The number format of that name for the weights of a model: one of the catalogue's, or a mixture of llama.cpp's.

    Where both have the name ("q8_0"), it is the mixture, whose norms stay in 32 bits; in a family for which its rule
    was not checked it is the catalogue's.

    Args:
        model: the model.
        name: such as "awq-4bit" or "Q4_K_M".

    Raises:
        InputError: there is no such format, or only a mixture whose rule was not checked for the model's family.

    >>> find_weights_format(find_model("llama-3.1-8b"), "Q4_K_M").scope
    'mixture'
    """
    known = name.lower() in MIXTURES
    if not known or model.architecture not in CHECKED:
        try:
            return find_format(name)
        except InputError:
            if not known:
                raise
    mixture = check_mixture(model, name)
    title = mixture.upper()
    return Format(
        mixture, title, (), block_bits(MIXTURES[mixture].base), scope="mixture", formula=f"llama.cpp's {title}"
    )


def part_bits(
    model: Model,
    part: Part,
    number: Format | None = None,
    tp: int = 1,
    *,
    layers: range | None = None,
    outside: bool = True,
) -> Fraction:
    """Bits of a part's weights on one GPU of a tensor-parallel group.

    Args:
        model: the model.
        part: one of its parts.
        number: a number format; None is the form in which the model was published.
        tp: GPUs of the group.
        layers: the layers that are meant, by index; None is all of them.
        outside: whether the tensors outside the layers count.

    Raises:
        InputError: as `model_weights_bytes` says.
    """
    at = next(at for at, each in enumerate(model.parts) if each is part)
    return _part_bits(model, at, number, tp, layers, outside)


@lru_cache(maxsize=256)
def _part_bits(model: Model, at: int, number: Format | None, tp: int, layers: range | None, outside: bool) -> Fraction:
    # kept, because a search over batches and contexts asks for the same weights again and again
    part = model.parts[at]
    decoder = part is model.decoder
    bits = Fraction(0)
    if number is not None and number.scope == "mixture" and part.name != "language":
        # the mmproj file beside it
        number = find_format("fp16")
    if outside:
        for tensor in part.tensors:
            bits += tensor_bits(model, tensor.name, tensor, number, tp)
    indices = range(len(part.layers)) if layers is None else layers
    mixed = number is not None and number.scope == "mixture"
    by_layer = mixed or (number is None and model.quantization is not None and model.quantization.by_layer)
    for index, count in _alike(part.layers, indices, by_layer=by_layer):
        layer = part.layers[index]
        for tensor in layer.tensors:
            name = f"{part.stack}.{index}.{tensor.name}"
            bits += count * tensor_bits(model, name, tensor, number, tp, layer, index=index if decoder else None)
    return bits


def _alike(layers: Sequence[Layer], indices: range, *, by_layer: bool) -> list[tuple[int, int]]:
    """An index for each layer that differs, and how many are alike; each index where layers are told apart."""
    if by_layer:
        return [(index, 1) for index in indices]
    first: dict[int, int] = {}
    counts: dict[int, int] = {}
    for index in indices:
        key = id(layers[index])
        first.setdefault(key, index)
        counts[key] = counts.get(key, 0) + 1
    return [(index, counts[key]) for key, index in first.items()]


def tensor_bits(
    model: Model,
    name: str,
    tensor: Tensor,
    number: Format | None = None,
    tp: int = 1,
    layer: Layer | None = None,
    *,
    index: int | None = None,
) -> Fraction:
    """Bits of one tensor on one GPU, scales and zeros included: they are cut with their tensor.

    Args:
        model: the model that has it.
        name: its full name.
        tensor: the tensor.
        number: a number format; None is the form in which the model was published.
        tp: GPUs of the tensor-parallel group.
        layer: the layer in which it stands, whose KV heads cut it.
        index: the number of that layer in the decoder; None outside the decoder's layers.

    Raises:
        InputError: as `model_weights_bytes` says.
    """
    copies, outputs, inputs = local_shape(tensor, layer, tp)
    elements = copies * outputs * inputs
    if number is None:
        if tensor.stored is not None:
            return Fraction(8 * tensor.stored) * (Fraction(elements, tensor.parameters) if tensor.parameters else 1)
        if model.quantization is not None:
            layout = model.quantization.layout(name, tensor, in_decoder=index is not None)
            if layout is not None:
                return Fraction(8 * _laid_out(layout.size, tensor, copies, outputs, inputs))
    elif number.scope == "all":
        return elements * number.bits
    elif number.scope == "mixture":
        return elements * block_bits(tensor_type(model, number.id, tensor, index))
    elif number.scope != "decoder-linear":
        raise InputError(f"weights: {number.id} is a format of caches; bf16, fp8 and awq-4bit are formats of weights")
    elif index is not None and tensor.kind in ("linear", "expert"):
        return copies * _matrix_bits(number, outputs, inputs)
    return elements * find_format(model.dtype).bits


def _laid_out(size: Callable[[int, int], int], tensor: Tensor, copies: int, outputs: int, inputs: int) -> int:
    """Bytes of a tensor, whose matrices take `size`. A checkpoint holds gate and up matrices of experts apart."""
    if tensor.kind == "expert" and "gate_up" in tensor.name:
        return 2 * copies * size(-(-outputs // 2), inputs)
    return copies * size(outputs, inputs)


def _matrix_bits(number: Format, outputs: int, inputs: int) -> Fraction:
    """Bits of a matrix in a format of the catalogue, with whole groups.

    Each term n/d of the format's formula is n bits for d weights.
    """
    if not number.formula:
        return outputs * (inputs * number.bits + number.row_bits)
    bits = outputs * number.row_bits
    for term in number.formula.split(" + "):
        count, _, size = term.partition("/")
        group = int(size or 1)
        if number.id in _RUNS:
            groups = -(-outputs * inputs // group)
        elif number.id in _SQUARES:
            side = isqrt(group)
            groups = -(-outputs // side) * -(-inputs // side)
        else:
            groups = outputs * -(-inputs // group)
        bits += int(count) * groups
    return Fraction(bits)


def local_shape(tensor: Tensor, layer: Layer | None, tp: int) -> tuple[int, int, int]:
    """What one GPU of a tensor-parallel group holds of a tensor: matrices, outputs and inputs; rounded up.

    Experts are cut along their inner width: gate and up matrices along the outputs, down matrices along the inputs. KV
    heads are cut, and copied where there are fewer heads than GPUs.

    Args:
        tensor: the tensor.
        layer: the layer in which it stands, whose KV heads cut it.
        tp: GPUs of the group.

    Source: vLLM, vllm/model_executor/layers/linear.py and layers/fused_moe/layer.py: `weight_loader`.

    >>> local_shape(Tensor("mlp.down_proj.weight", (4096, 14336), cut="inputs"), None, 4)
    (1, 4096, 3584)
    """
    if tensor.kind == "convolution" or not tensor.shape:
        outputs = tensor.shape[0] if tensor.shape else 1
        copies, inputs = 1, tensor.parameters // max(1, outputs)
    else:
        outputs, inputs = tensor.outputs, tensor.inputs
        copies = tensor.parameters // max(1, outputs * inputs)
    if tp == 1 or tensor.cut == "whole":
        return copies, outputs, inputs
    if tensor.cut in ("kv", "qkv"):
        heads = next((cache.heads for cache in layer.caches if isinstance(cache, KeyValueCache)), 1) if layer else 1
        keys = (outputs - tensor.query_rows) * -(-heads // tp) // heads
        return copies, -(-tensor.query_rows // tp) + keys, inputs
    if tensor.cut == "inputs" or (tensor.cut == "experts" and _narrows(tensor.name)):
        return copies, outputs, -(-inputs // tp)
    return copies, -(-outputs // tp), inputs


def _narrows(name: str) -> bool:
    """Whether an expert's matrix leads from its inner width back to the hidden size."""
    last = name.removesuffix(".weight").rpartition(".")[2]
    return any(mark in last for mark in ("down", "w2", "output"))
