"""Decoders that look their positions up in a table: GPT-2 and OPT.

Source: modeling_gpt2.py and modeling_opt.py under
https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/
"""

from vlmmem.architectures.blocks import decoder, embedding, linear, norm, read_shape
from vlmmem.architectures.fields import Fields
from vlmmem.layers import Layer, Tensor
from vlmmem.model import Model

__all__ = ["BUILDERS"]

# OPTLearnedPositionalEmbedding starts counting at the padding token's index + 1
_OPT_OFFSET = 2


def _conv1d(name: str, outputs: int, inputs: int, cut: str, query_rows: int = 0) -> tuple[Tensor, ...]:
    """GPT-2's linear layer, stored with its inputs first."""
    weight = Tensor(f"{name}.weight", (inputs, outputs), "linear", cut, transposed=True, query_rows=query_rows)
    bias = Tensor(f"{name}.bias", (outputs,), "bias", "whole" if cut == "inputs" else cut, query_rows=query_rows)
    return weight, bias


def _gpt2(fields: Fields, prefix: str = "transformer.") -> Model:
    hidden = fields.integer("n_embd", 768)
    defaults = {
        "layers": 12,
        "hidden_size": 768,
        "heads": 12,
        "intermediate_size": 4 * hidden,
        "vocab_size": 50257,
        "max_positions": 1024,
        "tied_embeddings": True,
        "activation": "gelu_new",
    }
    shape = read_shape(
        fields,
        "gpt2",
        defaults,
        layers="n_layer",
        hidden_size="n_embd",
        heads="n_head",
        intermediate_size="n_inner",
        max_positions="n_positions",
        activation="activation_function",
        # GPT2Config has neither: as many KV heads as heads, and they make up the hidden size
        kv_heads="n_head",
        head_dim="(none)",
    )
    tensors = (
        *norm("ln_1", hidden, bias=True),
        *_conv1d("attn.c_attn", 3 * hidden, hidden, "qkv", hidden),
        *_conv1d("attn.c_proj", hidden, hidden, "inputs"),
        *norm("ln_2", hidden, bias=True),
        *_conv1d("mlp.c_fc", shape.intermediate_size, hidden, "outputs"),
        *_conv1d("mlp.c_proj", hidden, shape.intermediate_size, "inputs"),
    )
    outside = (
        *embedding(f"{prefix}wte", shape.vocab_size, hidden),
        *embedding(f"{prefix}wpe", shape.max_positions, hidden, "position"),
        *norm(f"{prefix}ln_f", hidden, bias=True),
        *(() if shape.tied_embeddings else embedding("lm_head", shape.vocab_size, hidden, "head")),
    )
    return decoder(shape, (Layer("full", tensors, (shape.cache(),)),) * shape.layers, outside, f"{prefix}h")


def _opt(fields: Fields, prefix: str = "model.decoder.") -> Model:
    defaults = {
        "layers": 12,
        "hidden_size": 768,
        "heads": 12,
        "intermediate_size": 3072,
        "vocab_size": 50272,
        "max_positions": 2048,
        "tied_embeddings": True,
        "activation": "relu",
    }
    shape = read_shape(
        fields,
        "opt",
        defaults,
        intermediate_size="ffn_dim",
        activation="activation_function",
        kv_heads="num_attention_heads",
        head_dim="(none)",
    )
    hidden, wide = shape.hidden_size, shape.intermediate_size
    bias = fields.boolean("enable_bias", default=True)
    affine = fields.boolean("layer_norm_elementwise_affine", default=True)
    first = fields.boolean("do_layer_norm_before", default=True)
    width = fields.integer("word_embed_proj_dim", hidden)

    def layer_norm(name: str) -> tuple[Tensor, ...]:
        return norm(name, hidden, bias=True) if affine else ()

    tensors = (
        *linear("self_attn.k_proj", hidden, hidden, "kv", bias=bias),
        *linear("self_attn.v_proj", hidden, hidden, "kv", bias=bias),
        *linear("self_attn.q_proj", hidden, hidden, "outputs", bias=bias),
        *linear("self_attn.out_proj", hidden, hidden, "inputs", bias=bias),
        *layer_norm("self_attn_layer_norm"),
        *linear("fc1", wide, hidden, "outputs", bias=bias),
        *linear("fc2", hidden, wide, "inputs", bias=bias),
        *layer_norm("final_layer_norm"),
    )
    outside = (
        *embedding(f"{prefix}embed_tokens", shape.vocab_size, width),
        *embedding(f"{prefix}embed_positions", shape.max_positions + _OPT_OFFSET, hidden, "position"),
        *(linear(f"{prefix}project_out", width, hidden) if width != hidden else ()),
        *(linear(f"{prefix}project_in", hidden, width) if width != hidden else ()),
        *(layer_norm(f"{prefix}final_layer_norm") if first and not fields.boolean("_remove_final_layer_norm") else ()),
        *(() if shape.tied_embeddings else embedding("lm_head", shape.vocab_size, width, "head")),
    )
    return decoder(shape, (Layer("full", tensors, (shape.cache(),)),) * shape.layers, outside, f"{prefix}layers")


BUILDERS = {"gpt2": _gpt2, "opt": _opt}
