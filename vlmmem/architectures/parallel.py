"""Command R and StableLM: attention and MLP side by side on one normalised input.

Source: configuration_NAME.py and modeling_NAME.py for cohere, cohere2 and stablelm under
https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/
"""

from vlmmem.architectures.blocks import Shape, embedding, norm, read_shape
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.llama import attention, gated_mlp, layer_windows, sized, stacked, window_of
from vlmmem.layers import Tensor
from vlmmem.model import Model

__all__ = ["BUILDERS"]


def _tensors(fields: Fields, shape: Shape) -> tuple[Tensor, ...]:
    bias = fields.boolean("attention_bias")
    return (
        *attention(shape, bias=bias, output_bias=bias),
        *gated_mlp(shape.hidden_size, shape.intermediate_size),
        *norm("input_layernorm", shape.hidden_size),
    )


def _cohere(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "cohere", sized(40, 8192, 64, None, 22528, 256000, 8192, tied_embeddings=True))
    tensors = _tensors(fields, shape)
    if fields.boolean("use_qk_norm"):
        tensors += (Tensor("self_attn.q_norm.weight", (shape.heads, shape.head_dim), "norm", "outputs"),)
        tensors += (Tensor("self_attn.k_norm.weight", (shape.kv_heads, shape.head_dim), "norm", "kv"),)
    return stacked(shape, prefix, tensors)


def _cohere2(fields: Fields, prefix: str = "model.") -> Model:
    defaults = sized(40, 8192, 64, None, 22528, 256000, 8192, tied_embeddings=True)
    # Cohere2Config computes the heads' width, whatever the config says
    shape = read_shape(fields, "cohere2", defaults, head_dim="(none)")
    period = fields.integer("sliding_window_pattern", 4)
    windows = layer_windows(fields, shape.layers, window_of(fields, 4096), lambda index: (index + 1) % period != 0)
    return stacked(shape, prefix, _tensors(fields, shape), windows)


def _stablelm(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "stablelm", sized(32, 2560, 32, 32, 6912, 50304, 4096), head_dim="(none)")
    hidden = shape.hidden_size
    tensors = (
        *attention(shape, bias=fields.boolean("use_qkv_bias")),
        *gated_mlp(hidden, shape.intermediate_size),
        *norm("input_layernorm", hidden, bias=True),
    )
    if not fields.boolean("use_parallel_residual"):
        tensors += norm("post_attention_layernorm", hidden, bias=True)
    if fields.boolean("qk_layernorm"):
        # a norm of its own for every head
        for name, heads in (("q", shape.heads), ("k", shape.kv_heads)):
            for head in range(heads):
                tensors += norm(f"self_attn.{name}_layernorm.norms.{head}", shape.head_dim)
    outside = (
        *embedding(f"{prefix}embed_tokens", shape.vocab_size, hidden),
        *norm(f"{prefix}norm", hidden, bias=True),
        *(() if shape.tied_embeddings else embedding("lm_head", shape.vocab_size, hidden, "head")),
    )
    return stacked(shape, prefix, tensors, outside=outside)


BUILDERS = {"cohere": _cohere, "cohere2": _cohere2, "stablelm": _stablelm}
