"""What quantised matrices look like where the libraries' own code stores them: names, dtypes, shapes and bytes.

Called by tools/oracle.py in the oracle's own environment; tests/test_quantization.py compares the package's layouts
with the answers. Each matrix is a few hundred kilobytes and quantised on the CPU.
"""

from importlib.metadata import version
from typing import Any

import bitsandbytes
import torch
from bitsandbytes import functional
from compressed_tensors.compressors.base import BaseCompressor
from compressed_tensors.quantization import QuantizationScheme
from compressed_tensors.quantization.lifecycle.initialize import initialize_module_for_quantization
from transformers.integrations.eetq import EetqLinear
from transformers.integrations.fbgemm_fp8 import FbgemmFp8Linear
from transformers.integrations.finegrained_fp8 import FP8Linear

SHAPES = ((384, 512), (576, 896))
"""Outputs and inputs: the second is a multiple of no block's side along its outputs."""

ODD = (40, 1000)
"""A matrix that is no multiple of bitsandbytes' blocks."""

FLOAT8 = {"num_bits": 8, "type": "float"}
DYNAMIC = {"input_activations": {**FLOAT8, "strategy": "token", "dynamic": True}}
INT4 = {"num_bits": 4, "type": "int"}
NV = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
COMPRESSED: dict[str, tuple[str, dict[str, Any]]] = {
    "int4 in groups of 128": ("pack-quantized", {"weights": {**INT4, "strategy": "group", "group_size": 128}}),
    "int4 in groups of 32, with zeros": (
        "pack-quantized",
        {"weights": {**INT4, "strategy": "group", "group_size": 32, "symmetric": False}},
    ),
    "int3 in groups of 128": (
        "pack-quantized",
        {"weights": {"num_bits": 3, "type": "int", "strategy": "group", "group_size": 128}},
    ),
    "int8 by output, packed": (
        "pack-quantized",
        {"weights": {"num_bits": 8, "type": "int", "strategy": "channel"}},
    ),
    "fp8 by output": ("float-quantized", {"weights": {**FLOAT8, "strategy": "channel"}, **DYNAMIC}),
    "fp8 by matrix, static": (
        "float-quantized",
        {
            "weights": {**FLOAT8, "strategy": "tensor"},
            "input_activations": {**FLOAT8, "strategy": "tensor", "dynamic": False},
        },
    ),
    "fp8 by block": (
        "float-quantized",
        {"weights": {**FLOAT8, "strategy": "block", "block_structure": [128, 128]}, **DYNAMIC},
    ),
    "int8 by output": ("int-quantized", {"weights": {"num_bits": 8, "type": "int", "strategy": "channel"}}),
    "int8 by output, with zeros": (
        "int-quantized",
        {"weights": {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": False}},
    ),
    "nvfp4": ("nvfp4-pack-quantized", {"weights": NV, "input_activations": {**NV, "dynamic": "local"}}),
    "nvfp4, weights only": ("nvfp4-pack-quantized", {"weights": NV}),
    "mxfp4": (
        "mxfp4-pack-quantized",
        {"weights": {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32}},
    ),
}
"""Schemes as compressed-tensors' configs write them: format, then weights and activations."""


def _arrays(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "bytes": tensor.numel() * tensor.element_size(),
        }
        for name, tensor in sorted(tensors.items())
        # a JSON text beside each matrix of bitsandbytes, whose length follows from the digits of a mean
        if not name.startswith("quant_state")
    }


def _compressed(form: str, scheme: dict[str, Any], outputs: int, inputs: int) -> dict[str, torch.Tensor]:
    module = torch.nn.Linear(inputs, outputs, bias=False, dtype=torch.bfloat16)
    parsed = QuantizationScheme(targets=["Linear"], **scheme)
    initialize_module_for_quantization(module, parsed, force_zero_point=False)
    for name, parameter in module.named_parameters():
        if name != "weight":
            parameter.data.fill_(1)
    found: dict[str, torch.Tensor] = BaseCompressor.get_value_from_registry(form).compress(
        dict(module.state_dict()), parsed
    )
    return found


def _bitsandbytes(outputs: int, inputs: int, *, nested: bool) -> dict[str, torch.Tensor]:
    weight, state = functional.quantize_4bit(
        torch.randn(outputs, inputs).bfloat16(), blocksize=64, compress_statistics=nested, quant_type="nf4"
    )
    return {"weight": weight, **state.as_dict(packed=True)}


def _int8(outputs: int, inputs: int) -> dict[str, torch.Tensor]:
    module = bitsandbytes.nn.Linear8bitLt(inputs, outputs, bias=False, has_fp16_weights=False)
    weight = torch.randn(outputs, inputs)
    module.weight = bitsandbytes.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    return dict(module.to("cpu").state_dict())


def _own(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(module.named_parameters()) | dict(module.named_buffers())


def answers() -> dict[str, Any]:
    """Each scheme: its config, and what stands for a matrix of each shape."""
    found: list[dict[str, Any]] = []

    def add(name: str, config: dict[str, Any], make: Any, shapes: tuple[tuple[int, int], ...] = SHAPES) -> None:
        matrices = [{"outputs": o, "inputs": i, "arrays": _arrays(make(o, i))} for o, i in shapes]
        found.append({"name": name, "config": config, "matrices": matrices})

    config: dict[str, Any]
    for name, (form, scheme) in COMPRESSED.items():
        config = {
            "quant_method": "compressed-tensors",
            "format": form,
            "config_groups": {"group_0": {"targets": ["Linear"], **scheme}},
        }
        add(name, config, lambda o, i, form=form, scheme=scheme: _compressed(form, scheme, o, i))
    for nested in (False, True):
        config = {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": nested,
        }
        name = "nf4, double quantisation" if nested else "nf4"
        add(name, config, lambda o, i, nested=nested: _bitsandbytes(o, i, nested=nested), (*SHAPES, ODD))
    add("LLM.int8()", {"quant_method": "bitsandbytes", "load_in_8bit": True}, _int8)
    with torch.device("meta"):
        add(
            "fp8 in blocks",
            {"quant_method": "fp8", "weight_block_size": [128, 128]},
            lambda o, i: _own(FP8Linear(i, o, block_size=(128, 128), activation_scheme="dynamic")),
        )
        add(
            "fp8 by matrix",
            {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None},
            lambda o, i: _own(FP8Linear(i, o, block_size=None, activation_scheme="static")),
        )
        add("fbgemm", {"quant_method": "fbgemm_fp8"}, lambda o, i: _own(FbgemmFp8Linear(i, o, bias=False)))
        add("eetq", {"quant_method": "eetq"}, lambda o, i: _own(EetqLinear(i, o, bias=False)))
    libraries = {name: version(name) for name in ("bitsandbytes", "compressed-tensors")}
    return {"versions": libraries, "schemes": found}
