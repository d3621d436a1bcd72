"""OLMo 1 to 3 and EXAONE 4: Llama's matrices, with no norm at all, or with norms behind attention and MLP.

Source: configuration_NAME.py and modeling_NAME.py for olmo, olmo2, olmo3 and exaone4 under
https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/
"""

from vlmmem.architectures.blocks import embedding, norm, read_shape
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.llama import attention, gated_mlp, layer_windows, sized, stacked, window_of
from vlmmem.model import Model

__all__ = ["BUILDERS"]


def _olmo(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "olmo", sized(32, 4096, 32, None, 11008, 50304, 2048))
    bias = fields.boolean("attention_bias")
    tensors = (
        *attention(shape, bias=bias, output_bias=bias),
        *gated_mlp(shape.hidden_size, shape.intermediate_size),
    )
    # its norms have no parameters
    outside = (
        *embedding(f"{prefix}embed_tokens", shape.vocab_size, shape.hidden_size),
        *(() if shape.tied_embeddings else embedding("lm_head", shape.vocab_size, shape.hidden_size, "head")),
    )
    return stacked(shape, prefix, tensors, outside=outside)


def _later(fields: Fields, prefix: str, kind: str) -> Model:
    shape = read_shape(fields, kind, sized(32, 4096, 32, None, 11008, 50304, 2048))
    hidden, bias = shape.hidden_size, fields.boolean("attention_bias")
    tensors = (
        *attention(shape, bias=bias, output_bias=bias),
        # over all heads at once
        *norm("self_attn.q_norm", shape.queries),
        *norm("self_attn.k_norm", shape.keys),
        *gated_mlp(hidden, shape.intermediate_size),
        *norm("post_attention_layernorm", hidden),
        *norm("post_feedforward_layernorm", hidden),
    )
    if kind == "olmo2":
        return stacked(shape, prefix, tensors)
    windows = layer_windows(fields, shape.layers, window_of(fields, 4096), lambda index: (index + 1) % 4 != 0)
    return stacked(shape, prefix, tensors, windows)


def _olmo2(fields: Fields, prefix: str = "model.") -> Model:
    return _later(fields, prefix, "olmo2")


def _olmo3(fields: Fields, prefix: str = "model.") -> Model:
    return _later(fields, prefix, "olmo3")


def _exaone4(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "exaone4", sized(32, 4096, 32, 32, 16384, 102400, 2048))
    hidden = shape.hidden_size
    tensors = (
        *attention(shape),
        *norm("self_attn.q_norm", shape.head_dim),
        *norm("self_attn.k_norm", shape.head_dim),
        *gated_mlp(hidden, shape.intermediate_size),
        *norm("post_attention_layernorm", hidden),
        *norm("post_feedforward_layernorm", hidden),
    )
    pattern = fields.raw("sliding_window_pattern")
    # published configs spell the period out, "LLLG": three local layers and a global one
    spelt = isinstance(pattern, str) and pattern and set(pattern) <= {"L", "G"}
    period = len(str(pattern)) if spelt else fields.integer("sliding_window_pattern", 4)

    def slides(index: int) -> bool:
        return str(pattern)[index % period] == "L" if spelt else (index + 1) % period != 0

    return stacked(shape, prefix, tensors, layer_windows(fields, shape.layers, window_of(fields, 4096), slides))


BUILDERS = {"exaone4": _exaone4, "olmo": _olmo, "olmo2": _olmo2, "olmo3": _olmo3}
