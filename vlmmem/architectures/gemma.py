"""Gemma 1 to 3 and VaultGemma: Llama's matrices, norms before and after each half of a layer, windows by layer.

Source: configuration_NAME.py and modeling_NAME.py for gemma, gemma2, gemma3 and vaultgemma under
https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/
"""

from vlmmem.architectures.blocks import norm, read_shape
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.llama import attention, gated_mlp, layer_windows, norms, sized, stacked, window_of
from vlmmem.model import Model

__all__ = ["BUILDERS"]


def _gemma(fields: Fields, prefix: str = "model.") -> Model:
    defaults = sized(28, 3072, 16, 16, 24576, 256000, 8192, head_dim=256, tied_embeddings=True)
    shape = read_shape(fields, "gemma", defaults | {"activation": "gelu_pytorch_tanh"})
    bias = fields.boolean("attention_bias")
    mlp = gated_mlp(shape.hidden_size, shape.intermediate_size)
    return stacked(shape, prefix, (*attention(shape, bias=bias, output_bias=bias), *mlp, *norms(shape)))


def _later(fields: Fields, prefix: str, kind: str) -> Model:
    """Gemma 2, Gemma 3 and VaultGemma, which differ in their norms and in which layers slide."""
    third = kind == "gemma3_text"
    vocabulary, positions = (262208, 131072) if third else (256000, 8192)
    defaults = sized(26, 2304, 8, 4, 9216, vocabulary, positions, head_dim=256, tied_embeddings=True)
    named = "hidden_activation" if "hidden_activation" in fields else "hidden_act"
    shape = read_shape(fields, kind, defaults | {"activation": "gelu_pytorch_tanh"}, activation=named)
    hidden, bias = shape.hidden_size, fields.boolean("attention_bias")
    tensors = (*attention(shape, bias=bias, output_bias=bias), *gated_mlp(hidden, shape.intermediate_size))
    tensors += (*norm("input_layernorm", hidden), *norm("pre_feedforward_layernorm", hidden))
    if kind != "vaultgemma":
        tensors += (*norm("post_attention_layernorm", hidden), *norm("post_feedforward_layernorm", hidden))
    if third:
        tensors += (*norm("self_attn.q_norm", shape.head_dim), *norm("self_attn.k_norm", shape.head_dim))
    window = window_of(fields, 4096)
    if window is not None and third and fields.boolean("use_bidirectional_attention"):
        # half of it on either side of a token
        window = window // 2 + 1
    period = fields.integer("sliding_window_pattern", 6) if third else 2
    windows = layer_windows(fields, shape.layers, window, lambda index: (index + 1) % period != 0)
    return stacked(shape, prefix, tensors, windows)


def _gemma2(fields: Fields, prefix: str = "model.") -> Model:
    return _later(fields, prefix, "gemma2")


def _gemma3(fields: Fields, prefix: str = "model.") -> Model:
    return _later(fields, prefix, "gemma3_text")


def _vaultgemma(fields: Fields, prefix: str = "model.") -> Model:
    return _later(fields, prefix, "vaultgemma")


BUILDERS = {"gemma": _gemma, "gemma2": _gemma2, "gemma3_text": _gemma3, "vaultgemma": _vaultgemma}
