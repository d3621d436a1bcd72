"""The layouts of quantised matrices, each as its library stores it."""

from vlmmem.quantization.storage import Array, Layout

__all__ = [
    "awq",
    "bitsandbytes_4bit",
    "bitsandbytes_8bit",
    "fp8",
    "fp8_blocks",
    "fp8_rows",
    "gptq",
    "int8_rows",
    "mxfp4",
    "nvfp4",
    "packed",
    "plain",
]

_WORD = 32
"""Bits of the integers into which numbers are packed."""


def _groups(group: int) -> tuple[int, int] | None:
    """Scales along the inputs: one for `group` inputs, or one for all of them (0)."""
    return (1, group) if group else None


def gptq(bits: int, group: int) -> Layout:
    """GPTQ: `qweight` packed along the inputs, `qzeros` along the outputs, `scales` in 16 bits, `g_idx` an input.

    Args:
        bits: of a number: 2, 3, 4 or 8.
        group: inputs that share a scale and a zero; 0 means all.

    Source: AutoGPTQ 0.7.1, auto_gptq/nn_modules/qlinear/qlinear_cuda_old.py; GPTQModel writes the same (format "gptq").
    Zeros and g_idx are stored whatever `sym` and `desc_act` say.
    """
    return Layout(
        f"GPTQ, {bits} bits",
        bits,
        (
            Array("qweight", 4, (1, 1), (bits, _WORD)),
            Array("qzeros", 4, (bits, _WORD), _groups(group)),
            Array("scales", 2, (1, 1), _groups(group)),
            Array("g_idx", 4, None, (1, 1)),
        ),
    )


def awq(bits: int, group: int) -> Layout:
    """AWQ, version "gemm": `qweight` and `qzeros` packed along the outputs, `scales` in 16 bits.

    Source: AutoAWQ 0.2.9, awq/modules/linear/gemm.py (WQLinear_GEMM).
    """
    return Layout(
        f"AWQ, {bits} bits",
        bits,
        (
            Array("qweight", 4, (bits, _WORD), (1, 1)),
            Array("qzeros", 4, (bits, _WORD), _groups(group)),
            Array("scales", 2, (1, 1), _groups(group)),
        ),
    )


def bitsandbytes_4bit(block: int = 64, *, nested: bool = False) -> Layout:
    """NF4 and FP4 of bitsandbytes: two numbers a byte, `absmax` for each block, the table of the 16 values.

    With double quantisation (`nested`) absmax takes a byte, and 256 of them share a float of `nested_absmax`; their
    table of 256 values stands beside every matrix. A JSON text of some 170 bytes beside each matrix (`quant_state`) is
    not counted: it is read, not kept.

    Source: bitsandbytes 0.50.2, bitsandbytes/functional.py (`quantize_4bit`, `QuantState.as_dict`).
    """
    absmax: tuple[Array, ...] = (Array("absmax", 1 if nested else 4, None, (1, block), flat=True),)
    if nested:
        absmax += (
            Array("nested_absmax", 4, None, (1, 256 * block), flat=True),
            Array("nested_quant_map", 4 * 256, None, None),
        )
    return Layout(
        "bitsandbytes, 4 bits",
        4,
        (Array("weight", 1, None, (1, 2), flat=True), *absmax, Array("quant_map", 4 * 16, None, None)),
    )


def bitsandbytes_8bit() -> Layout:
    """LLM.int8(): a byte a number, `SCB` with a 32-bit scale for each output, a byte that names the order.

    Source: bitsandbytes 0.50.2, bitsandbytes/nn/modules.py (`Linear8bitLt._save_to_state_dict`).
    """
    return Layout(
        "LLM.int8()", 8, (Array("weight", 1), Array("SCB", 4, (1, 1), None), Array("weight_format", 1, None, None))
    )


def fp8(*, static: bool = False) -> Layout:
    """FP8 with one 32-bit scale a matrix; where activations are scaled statically, one more for them.

    Source: vLLM 0.19, vllm/model_executor/layers/quantization/fp8.py; transformers 5.23.0,
    integrations/finegrained_fp8.py (FP8Linear).
    """
    inputs = (Array("input_scale", 4, None, None),) if static else ()
    return Layout("FP8", 8, (Array("weight", 1), Array("weight_scale", 4, None, None), *inputs))


def fp8_blocks(rows: int, columns: int, scale_bytes: int = 4) -> Layout:
    """FP8 with one scale for each block of rows x columns, `weight_scale_inv`: 32 bits, or a byte in DeepSeek-V4.

    Some checkpoints (Qwen3's) keep the scales in 16 bits; they are loaded into 32.

    Source: DeepSeek-V3, README_WEIGHTS.md; transformers 5.23.0, integrations/finegrained_fp8.py (FP8Linear).
    """
    scale = Array("weight_scale_inv", scale_bytes, (1, rows), (1, columns))
    return Layout(f"FP8, blocks of {rows} x {columns}", 8, (Array("weight", 1), scale))


def fp8_rows() -> Layout:
    """FBGEMM's FP8: a 32-bit scale for each output, and the bound of the activations' scale beside each matrix.

    Source: transformers 5.23.0, integrations/fbgemm_fp8.py (FbgemmFp8Linear).
    """
    return Layout(
        "FP8, a scale an output",
        8,
        (Array("weight", 1), Array("weight_scale", 4, (1, 1), None), Array("input_scale_ub", 4, None, None)),
    )


def int8_rows() -> Layout:
    """EETQ: a byte a number and a 16-bit scale for each output.

    Source: transformers 5.23.0, integrations/eetq.py (EetqLinear).
    """
    return Layout("EETQ, 8 bits", 8, (Array("weight", 1), Array("weight_scales", 2, (1, 1), None)))


def mxfp4() -> Layout:
    """MXFP4: two numbers a byte (`blocks`), and a byte of scale for 32 inputs (`scales`).

    Source: transformers 5.23.0, integrations/mxfp4.py; OCP Microscaling Formats 1.0, section 5.
    """
    return Layout("MXFP4", 4, (Array("blocks", 1, (1, 1), (1, 2)), Array("scales", 1, (1, 1), (1, 32))))


def nvfp4(group: int = 16, *, static: bool = True) -> Layout:
    """NVFP4: two numbers a byte, an FP8 scale for 16 inputs, a 32-bit scale a matrix, and one for its activations.

    Source: compressed-tensors 0.20.0, compressors/nvfp4/base.py (weight_packed, weight_scale, weight_global_scale,
    input_global_scale); ModelOpt 0.37, modelopt/torch/export/unified_export_hf.py (weight, weight_scale,
    weight_scale_2, input_scale).
    """
    inputs = (Array("input_scale", 4, None, None),) if static else ()
    arrays = (
        Array("weight", 1, (1, 1), (1, 2)),
        Array("weight_scale", 1, (1, 1), (1, group)),
        Array("weight_scale_2", 4, None, None),
        *inputs,
    )
    return Layout("NVFP4", 4, arrays)


def _scale(name: str, size: int, strategy: str, group: int, block: tuple[int, int]) -> Array:
    if strategy == "tensor":
        return Array(name, size, None, None)
    if strategy == "channel":
        return Array(name, size, (1, 1), None)
    if strategy == "block":
        return Array(name, size, (1, block[0]), (1, block[1]))
    return Array(name, size, (1, 1), (1, group))


def packed(
    bits: int,
    strategy: str,
    group: int = 0,
    *,
    symmetric: bool = True,
    ordered: bool = False,
    scale_bytes: int = 2,
) -> Layout:
    """Integers of compressed-tensors' "pack-quantized", in 32-bit words along the inputs, scales in the model's dtype.

    Args:
        bits: of a number, 1 to 8.
        strategy: "group" or "channel".
        group: inputs that share a scale.
        symmetric: without zeros; else they are packed along the outputs.
        ordered: whether `weight_g_idx` names the group of each input (actorder "group").
        scale_bytes: of one scale.

    Source: compressed-tensors 0.20.0, compressors/pack_quantized/base.py: weight_packed, weight_scale, weight_shape
    (two 64-bit integers), weight_zero_point.
    """
    arrays = [
        Array("weight_packed", 4, (1, 1), (bits, _WORD)),
        _scale("weight_scale", scale_bytes, strategy, group, (1, 1)),
        Array("weight_shape", 2 * 8, None, None),
    ]
    if not symmetric:
        arrays.append(Array("weight_zero_point", 4, (bits, _WORD), (1, group) if strategy == "group" else None))
    if ordered:
        arrays.append(Array("weight_g_idx", 4, None, (1, 1)))
    return Layout(f"packed integers, {bits} bits", bits, tuple(arrays))


def plain(
    kind: str,
    strategy: str,
    group: int = 0,
    block: tuple[int, int] = (1, 1),
    *,
    symmetric: bool = True,
    static: bool = False,
    scale_bytes: int = 2,
) -> Layout:
    """A byte a number, and scales: compressed-tensors' "float-quantized", "int-quantized" and "naive-quantized".

    Source: compressed-tensors 0.20.0, compressors/naive_quantized/base.py and
    quantization/lifecycle/initialize.py (`initialize_qparams`): scales in the model's dtype, zeros a byte each,
    `input_scale` where activations are scaled statically.
    """
    arrays = [Array("weight", 1), _scale("weight_scale", scale_bytes, strategy, group, block)]
    if not symmetric:
        arrays.append(_scale("weight_zero_point", 1, strategy, group, block))
    if static:
        arrays.append(Array("input_scale", scale_bytes, None, None))
    return Layout(f"{kind}, 8 bits, a scale a {strategy}", 8, tuple(arrays))
