"""Weights as transformers loads them: one tensor after another out of the caching allocator, in the order of names.

`from_pretrained` with a device_map makes each tensor on its GPU (transformers v4.46.0, src/transformers/
modeling_utils.py, _load_state_dict_into_meta_model), in the order in which safetensors gives the names.
"""

from math import ceil

from vlmmem.catalog import find_format
from vlmmem.engines.allocator import allocated_bytes
from vlmmem.formats import Format
from vlmmem.layers import Tensor
from vlmmem.memory.weights import tensor_bits
from vlmmem.model import Model
from vlmmem.quantization import Layout, awq, gptq

__all__ = ["kernel", "largest_linear", "loaded_bytes", "rotary_tables"]

_GROUP, _BITS = 128, 4


def kernel(model: Model, number: Format | None) -> str:
    """The quantisation whose kernels multiply: "gptq", "awq", another method's name, or "" in plain formats.

    >>> from vlmmem import find_format, find_model
    >>> kernel(find_model("llama-3.1-8b"), find_format("awq-4bit")), kernel(find_model("llama-3.1-8b"), None)
    ('awq', '')
    """
    if number is not None:
        return number.id.partition("-")[0] if number.scope == "decoder-linear" else ""
    return "" if model.quantization is None else model.quantization.method


def _layout(model: Model, number: Format | None, name: str, tensor: Tensor, *, in_decoder: bool) -> Layout | None:
    """How a matrix is stored by GPTQ or AWQ; None where it stands in one piece."""
    if number is None:
        quantization = model.quantization
        known = quantization is not None and tensor.stored is None
        return quantization.layout(name, tensor, in_decoder=in_decoder) if known and quantization else None
    if in_decoder and tensor.kind in ("linear", "expert"):
        known_layouts = {"gptq-4bit": gptq(_BITS, _GROUP), "awq-4bit": awq(_BITS, _GROUP)}
        return known_layouts.get(number.id)
    return None


def _pieces(
    model: Model, number: Format | None, name: str, tensor: Tensor, index: int | None, *, fused: bool
) -> list[int]:
    """Bytes of the tensors that stand for one of the model's."""
    copies, outputs = 1, tensor.outputs
    if tensor.kind == "expert" and not fused:
        # a module for each expert, and one for each of gate and up, before transformers 5
        halves = 2 if "gate_up" in tensor.name else 1
        copies = halves * max(1, tensor.parameters // max(1, tensor.outputs * tensor.inputs))
        outputs = tensor.outputs // halves
    layout = _layout(model, number, name, tensor, in_decoder=index is not None)
    if layout is not None:
        matrices = max(1, tensor.parameters // max(1, outputs * tensor.inputs))
        return [array.size(outputs, tensor.inputs) for array in layout.arrays] * matrices
    size = ceil(tensor_bits(model, name, tensor, number, index=index) / 8)
    return [size // copies] * copies


def loaded_bytes(model: Model, number: Format | None, *, fused: bool) -> int:
    """Bytes that count as allocated when all weights are on one GPU.

    Args:
        model: the model.
        number: a number format of the weights; None is the form in which it was published.
        fused: whether the experts of a layer are one tensor, as since transformers 5.

    >>> from vlmmem import find_model
    >>> loaded_bytes(find_model("qwen2.5-14b"), None, fused=True) - 2 * find_model("qwen2.5-14b").parameters
    153092096
    """
    sizes: list[tuple[str, list[int]]] = []
    for part in model.parts:
        sizes.extend((each.name, _pieces(model, number, each.name, each, None, fused=fused)) for each in part.tensors)
        found: dict[int, list[tuple[str, list[int]]]] = {}
        by_layer = number is None and model.quantization is not None and model.quantization.by_layer
        for at, layer in enumerate(part.layers):
            known = found.get(id(layer))
            if known is None or by_layer:
                index = at if part is model.decoder else None
                known = [
                    (each.name, _pieces(model, number, f"{part.stack}.{at}.{each.name}", each, index, fused=fused))
                    for each in layer.tensors
                ]
                found[id(layer)] = known
            sizes.extend((f"{part.stack}.{at}.{name}", pieces) for name, pieces in known)
    return allocated_bytes(size for _, pieces in sorted(sizes) for size in pieces)


def largest_linear(model: Model) -> int:
    """Bytes of the decoder's largest linear layer as a matrix of 16 bits."""
    linear = (tensor for layer, _ in model.decoder.alike() for tensor in layer.tensors if tensor.kind == "linear")
    return 2 * max((tensor.parameters for tensor in linear), default=0)


def rotary_tables(model: Model) -> int:
    """Bytes of the cosines and sines of all positions, two tables a layer, that older releases keep.

    Source: transformers v4.44.2, models/qwen2/modeling_qwen2.py, Qwen2RotaryEmbedding._set_cos_sin_cache.

    >>> from vlmmem import find_model
    >>> rotary_tables(find_model("qwen2-vl-7b"))
    469762048
    """
    width = ceil(model.max_positions * model.head_dim * find_format(model.dtype).bits / 8)
    return allocated_bytes([width] * (2 * model.layers))
