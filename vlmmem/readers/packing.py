"""Weights as a model multiplies by them, out of tensors as quantised checkpoints store them.

Packed integers hold several values each; scales, zeros and maps are bytes and no parameters. Each rule below is how
one format lays its weights down:

- GPTQ, AWQ: `qweight` (I32) packed along inputs or outputs, `qzeros`, `scales` (outputs at the end), `g_idx`;
  AutoGPTQ, auto_gptq/nn_modules/qlinear; AutoAWQ, awq/modules/linear/gemm.py.
- compressed-tensors: `weight_packed` (I32 of num_bits, or U8 of two fp4), compressed_tensors/compressors.
- ModelOpt: `weight` (U8 of two fp4 along the inputs, or of two int4 along the outputs) and `weight_scale`.
- bitsandbytes: `weight` (U8 of two 4-bit values, flat) and `weight.absmax`; bitsandbytes/functional.py, QuantState.
- mxfp4 of gpt-oss: `_blocks` (U8, ... x groups x 16) of 32 values a group; transformers, integrations/mxfp4.py.
- MLX: `weight` (U32 of `bits` each), `scales`, `biases`.
"""

from collections.abc import Iterable, Mapping
from math import prod

from vlmmem.readers.names import storage_suffix
from vlmmem.readers.stored import StoredTensor

__all__ = ["bits_of", "weights"]

_PLAIN = frozenset(("F64", "F32", "F16", "BF16", "C64", "I64", "U64", "I16", "U16", "BOOL"))
"""Types that hold one value each and need no scale: what stands beside such a tensor is a tensor of its own."""

_MOST_BITS = 8


def bits_of(config: object) -> int | None:
    """Bits of a packed value, where a config says it: `quantization_config`, or MLX's `quantization`.

    >>> bits_of({"quantization_config": {"quant_method": "gptq", "bits": 4}})
    4
    """
    if not isinstance(config, dict):
        return None
    found = config.get("quantization_config") or config.get("quantization")
    if not isinstance(found, dict):
        return None
    groups = found.get("config_groups")
    inner = (
        [group.get("weights") for group in groups.values() if isinstance(group, dict)]
        if isinstance(groups, dict)
        else []
    )
    for each in (found, *inner):
        for key in ("bits", "num_bits", "w_bit"):
            value = each.get(key) if isinstance(each, dict) else None
            if type(value) is int and 0 < value <= _MOST_BITS:
                return value
    return None


def weights(tensors: Iterable[StoredTensor], bits: int | None = None) -> tuple[list[StoredTensor], tuple[str, ...]]:
    """The weights of a checkpoint, and notes on what its header does not say.

    Each comes with the shape of the values that it holds, and with the bytes of its scales, zeros and maps.

    Args:
        tensors: as the header lists them.
        bits: of a packed value, where the config says it.

    >>> stored = (StoredTensor("q.qweight", "I32", (512, 4096), 8388608),
    ...           StoredTensor("q.scales", "F16", (32, 4096), 262144),
    ...           StoredTensor("q.qzeros", "I32", (32, 512), 65536))
    >>> weights(stored)[0]
    [StoredTensor(name='q.weight', dtype='I32', shape=(4096, 4096), bytes=8716288)]
    """
    main: dict[str, StoredTensor] = {}
    beside: dict[str, dict[str, StoredTensor]] = {}
    for tensor in tensors:
        end = storage_suffix(tensor.name)
        if end:
            beside.setdefault(tensor.name.removesuffix(end), {})[end] = tensor
        else:
            stem = _stem(tensor.name)
            main[stem if stem not in main else tensor.name] = tensor
    found: list[StoredTensor] = []
    notes: dict[str, None] = {}
    for stem, tensor in main.items():
        with_it = beside.pop(stem, None) if beside and tensor.dtype not in _PLAIN else None
        if with_it is None and (
            tensor.dtype in _PLAIN or not tensor.name.endswith(("_blocks", ".qweight", ".weight_packed"))
        ):
            found.append(tensor)
            continue
        extra = with_it or {}
        shape = _logical(tensor, extra, bits, notes)
        size = tensor.bytes + sum(each.bytes for each in extra.values())
        name = tensor.name
        if name != stem:
            name = stem if name.endswith("_blocks") else f"{stem}.weight"
        found.append(StoredTensor(name, tensor.dtype, shape, size))
    # What stands beside no quantised weight is a tensor like others.
    found += [tensor for each in beside.values() for tensor in each.values()]
    return found, tuple(notes)


def _stem(name: str) -> str:
    for end in (".weight", ".qweight", ".weight_packed", "_blocks"):
        if name.endswith(end):
            return name[: -len(end)]
    return name


def _logical(
    tensor: StoredTensor, beside: Mapping[str, StoredTensor], bits: int | None, notes: dict[str, None]
) -> tuple[int, ...]:
    """The shape of the values that a tensor holds."""
    name, dtype, shape = tensor.name, tensor.dtype, tensor.shape
    if not shape:
        return shape
    if name.endswith(".qweight") and len(shape) == 2:
        return _gptq(shape, beside, bits, notes)
    if dtype in ("I32", "U32") and name.endswith((".weight_packed", ".weight")):
        if bits is None:
            notes[
                "how many values an integer packs is not in a header: 4 bits each are taken; a config.json says it"
            ] = None
        return (*shape[:-1], shape[-1] * 32 // (bits or 4))
    if dtype != "U8":
        return shape
    if name.endswith("_blocks") and len(shape) > 1:
        return (*shape[:-2], shape[-2] * shape[-1] * 2)
    if any(end.startswith((".weight.absmax", ".weight.quant")) for end in beside):
        return (2 * prod(shape),)
    scale = beside.get(".weight_scale")
    if scale is not None and len(shape) == len(scale.shape) == 2 and scale.shape[0] == 2 * shape[0]:
        return (2 * shape[0], shape[1])
    if name.endswith(".weight_packed") or (scale is not None and scale.dtype == "F8_E4M3"):
        return (*shape[:-1], shape[-1] * 2)
    return shape


def _gptq(
    shape: tuple[int, ...], beside: Mapping[str, StoredTensor], bits: int | None, notes: dict[str, None]
) -> tuple[int, ...]:
    """(outputs, inputs) of a `qweight`: scales end in the outputs, and zeros pack as many values as weights do."""
    rows, columns = shape
    scales, zeros, index = beside.get(".scales"), beside.get(".qzeros"), beside.get(".g_idx")
    outputs = scales.shape[-1] if scales is not None and scales.shape else columns
    if zeros is not None and zeros.shape and zeros.shape[-1] and outputs:
        bits = 32 * zeros.shape[-1] // outputs or bits
    if columns != outputs:
        return (outputs, rows)
    if index is not None and len(index.shape) == 1:
        return (outputs, index.shape[0])
    if bits is None:
        notes["how many values an integer packs is not in a header: 4 bits each are taken; a config.json says it"] = (
            None
        )
    return (outputs, rows * 32 // (bits or 4))
