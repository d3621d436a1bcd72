"""Where llama.cpp puts the weights: which layers, and which device.

src/llama-model.cpp, `load_tensors`: the last n_gpu_layers of the layers lie on the devices, cut at the shares of
tensor_split. The output counts as one layer more: the last of all since b7551, and before that the one that came behind
all others. The token embedding always stays in the host's memory, and where it is the output too a second copy goes to
the device.
"""

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from math import ceil

from vlmmem.catalog import find_format
from vlmmem.errors import InputError
from vlmmem.formats import Format
from vlmmem.layers import Layer, Tensor
from vlmmem.memory.weights import tensor_bits
from vlmmem.model import Model
from vlmmem.record import record

__all__ = ["Weights", "devices_of_layers", "language_weights", "vision_weights"]


@record(frozen=True, slots=True)
class Weights:
    """Bytes of the weights: of each layer (and of its experts alone), of the output, of the token embedding."""

    layers: tuple[int, ...]
    experts: tuple[int, ...]
    output: int
    head: int
    embedding: int


def devices_of_layers(
    layers: int, gpu_layers: int, shares: Sequence[float], *, output_first: bool = True
) -> list[int | None]:
    """The device of each layer and, at the end, of the output; None is the host.

    Args:
        layers: of the model.
        gpu_layers: n_gpu_layers.
        shares: of each device, in any unit (tensor_split; by default its free memory).
        output_first: whether the output goes to a device before any layer does (since b7551), or behind all.

    >>> devices_of_layers(4, 3, [1.0]), devices_of_layers(5, 99, [1.0, 1.0])
    ([None, None, 0, 0, 0], [0, 0, 0, 1, 1, 1])
    """
    start = max(layers + output_first - gpu_layers, 0)
    on = min(gpu_layers, layers + 1)
    total = sum(shares)
    ends = [sum_ / total for sum_ in accumulate(shares)]
    found: list[int | None] = []
    for index in range(layers + 1):
        if index < start or index - start >= on:
            found.append(None)
        else:
            found.append(min(bisect_right(ends, (index - start) / on), len(ends) - 1))
    return found


def tensor_bytes(model: Model, name: str, tensor: Tensor, number: Format | None, index: int | None) -> int:
    """Bytes of a tensor in a GGUF file: as its header says, else in the format, vectors and routers in 32 bits."""
    if number is None and tensor.stored is not None:
        return tensor.stored
    wide = tensor.kind not in ("embedding", "head", "linear", "expert", "convolution") or len(tensor.shape) < 2
    if wide and tensor.stored is None:
        return 4 * tensor.parameters
    if number is None and model.quantization is None:
        return ceil(tensor.parameters * find_format(model.dtype).bits / 8)
    return ceil(Fraction(tensor_bits(model, name, tensor, number, index=index)) / 8)


def _layer(model: Model, layer: Layer, index: int, number: Format | None) -> tuple[int, int]:
    size = experts = 0
    stack = model.decoder.stack
    for tensor in layer.tensors:
        held = tensor_bytes(model, f"{stack}.{index}.{tensor.name}", tensor, number, index)
        size += held
        if tensor.kind == "expert":
            experts += held
    return size, experts


def language_weights(model: Model, number: Format | None) -> Weights:
    """The weights of the language model, layer by layer.

    Raises:
        InputError: the format's rule was not checked for the model's family.
    """
    if number is not None and number.scope not in ("all", "mixture"):
        raise InputError(f"weights: llama.cpp reads GGUF files, which hold no {number.id}; q4_k_m or bf16 is needed")
    distinct: dict[tuple[int, int], tuple[int, int]] = {}
    by_index = number is not None and number.scope == "mixture"
    layers = []
    for index, layer in enumerate(model.decoder.layers):
        key = (id(layer), index if by_index else 0)
        if key not in distinct:
            distinct[key] = _layer(model, layer, index, number)
        layers.append(distinct[key])
    embedding = output = head = 0
    for part in model.parts:
        if part.name != "language":
            continue
        for tensor in part.tensors:
            size = tensor_bytes(model, tensor.name, tensor, number, None)
            if tensor.kind in ("embedding", "position"):
                embedding += size
                if tensor.kind == "embedding" and model.tied_embeddings and "per_layer" not in tensor.name:
                    head = size
            else:
                output += size
                if tensor.kind == "head":
                    head = size
    if model.tied_embeddings:
        output += head
    return Weights(tuple(a for a, _ in layers), tuple(b for _, b in layers), output, head, embedding)


def vision_weights(model: Model) -> int:
    """Bytes of the mmproj file: matrices in 16 bits, vectors in 32, or as its header says."""
    size = 0
    for part in model.parts:
        if part.name in ("vision", "projector"):
            for tensor in part.tensors:
                size += _in_16_bits(tensor)
            for layer, count in part.alike():
                size += count * sum(_in_16_bits(tensor) for tensor in layer.tensors)
    return size


def _in_16_bits(tensor: Tensor) -> int:
    if tensor.stored is not None:
        return tensor.stored
    return (2 if len(tensor.shape) > 1 else 4) * tensor.parameters
