"""Llama's attention with an MLP of two matrices: Arcee, Apertus, Jais 2, Nemotron, nanochat and StarCoder2.

Source: configuration_NAME.py and modeling_NAME.py for each NAME in `BUILDERS` under
https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/
"""

from vlmmem.architectures.blocks import Shape, embedding, linear, norm, read_shape
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.llama import attention, norms, sized, stacked, window_of
from vlmmem.layers import Tensor
from vlmmem.model import Model

__all__ = ["BUILDERS"]


def _mlp(shape: Shape, first: str, second: str, *, bias: bool = False) -> tuple[Tensor, ...]:
    hidden, wide = shape.hidden_size, shape.intermediate_size
    return (
        *linear(f"mlp.{first}", wide, hidden, "outputs", bias=bias),
        *linear(f"mlp.{second}", hidden, wide, "inputs", bias=bias),
    )


def _layer_norms(shape: Shape, prefix: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Norms with a bias: those of a layer, and embedding, last norm and head."""
    hidden = shape.hidden_size
    inside = (*norm("input_layernorm", hidden, bias=True), *norm("post_attention_layernorm", hidden, bias=True))
    outside = (
        *embedding(f"{prefix}embed_tokens", shape.vocab_size, hidden),
        *norm(f"{prefix}norm", hidden, bias=True),
        *(() if shape.tied_embeddings else embedding("lm_head", shape.vocab_size, hidden, "head")),
    )
    return inside, outside


def _arcee(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "arcee", sized(32, 2560, 32, None, 18432, 32000, 4096, activation="relu2"))
    bias = fields.boolean("attention_bias")
    mlp = _mlp(shape, "up_proj", "down_proj", bias=fields.boolean("mlp_bias"))
    return stacked(shape, prefix, (*attention(shape, bias=bias, output_bias=bias), *mlp, *norms(shape)))


def _apertus(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "apertus", sized(32, 4096, 32, None, 14336, 131072, 65536, activation="xielu"))
    hidden, bias = shape.hidden_size, fields.boolean("attention_bias")
    tensors = (
        *attention(shape, bias=bias, output_bias=bias),
        *norm("self_attn.q_norm", shape.head_dim),
        *norm("self_attn.k_norm", shape.head_dim),
        *_mlp(shape, "up_proj", "down_proj"),
        *norm("attention_layernorm", hidden),
        *norm("feedforward_layernorm", hidden),
    )
    if shape.activation == "xielu":
        # an activation with two parameters of its own
        tensors += (Tensor("mlp.act_fn.alpha_p", (1,), "other"), Tensor("mlp.act_fn.alpha_n", (1,), "other"))
    return stacked(shape, prefix, tensors)


def _jais2(fields: Fields, prefix: str = "model.") -> Model:
    defaults = sized(32, 3328, 26, None, 26624, 150272, 8192, activation="relu2")
    shape = read_shape(fields, "jais2", defaults)
    bias = fields.boolean("attention_bias", default=True)
    mlp = _mlp(shape, "up_proj", "down_proj", bias=fields.boolean("mlp_bias", default=True))
    inside, outside = _layer_norms(shape, prefix)
    tensors = (*attention(shape, bias=bias, output_bias=bias), *mlp, *inside)
    return stacked(shape, prefix, tensors, outside=outside)


def _nemotron(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "nemotron", sized(32, 6144, 48, None, 24576, 256000, 4096, activation="relu2"))
    bias = fields.boolean("attention_bias")
    mlp = _mlp(shape, "up_proj", "down_proj", bias=fields.boolean("mlp_bias"))
    inside, outside = _layer_norms(shape, prefix)
    tensors = (*attention(shape, bias=bias, output_bias=bias), *mlp, *inside)
    return stacked(shape, prefix, tensors, outside=outside)


def _nanochat(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "nanochat", sized(12, 768, 6, None, 8192, 50304, 2048, activation="relu2"))
    bias = fields.boolean("attention_bias")
    tensors = (*attention(shape, bias=bias, output_bias=bias), *_mlp(shape, "fc1", "fc2"))
    # its norms have no parameters
    outside = (
        *embedding(f"{prefix}embed_tokens", shape.vocab_size, shape.hidden_size),
        *(() if shape.tied_embeddings else embedding("lm_head", shape.vocab_size, shape.hidden_size, "head")),
    )
    return stacked(shape, prefix, tensors, outside=outside)


def _starcoder2(fields: Fields, prefix: str = "model.") -> Model:
    defaults = sized(30, 3072, 24, 2, 12288, 49152, 4096, tied_embeddings=True, activation="gelu_pytorch_tanh")
    shape = read_shape(fields, "starcoder2", defaults)
    bias = fields.boolean("use_bias", default=True)
    inside, outside = _layer_norms(shape, prefix)
    mlp = _mlp(shape, "c_fc", "c_proj", bias=bias)
    tensors = (*attention(shape, bias=bias, output_bias=bias), *mlp, *inside)
    return stacked(shape, prefix, tensors, [window_of(fields)] * shape.layers, outside)


BUILDERS = {
    "apertus": _apertus,
    "arcee": _arcee,
    "jais2": _jais2,
    "nanochat": _nanochat,
    "nemotron": _nemotron,
    "starcoder2": _starcoder2,
}
