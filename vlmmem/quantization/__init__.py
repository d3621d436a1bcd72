"""What a quantisation config says: which matrices of a model are quantised, and how each is stored."""

from vlmmem.quantization.config import METHODS, Quantization, read_quantization
from vlmmem.quantization.methods import (
    awq,
    bitsandbytes_4bit,
    bitsandbytes_8bit,
    fp8,
    fp8_blocks,
    fp8_rows,
    gptq,
    mxfp4,
    nvfp4,
    packed,
    plain,
)
from vlmmem.quantization.storage import Array, Layout

__all__ = [
    "METHODS",
    "Array",
    "Layout",
    "Quantization",
    "awq",
    "bitsandbytes_4bit",
    "bitsandbytes_8bit",
    "fp8",
    "fp8_blocks",
    "fp8_rows",
    "gptq",
    "mxfp4",
    "nvfp4",
    "packed",
    "plain",
    "read_quantization",
]
