"""Decoders that look their positions up in a table: GPT-2, GPT-BigCode (StarCoder, SantaCoder), GPT-Neo and OPT.

Source: configuration_NAME.py and modeling_NAME.py for gpt2, gpt_bigcode, gpt_neo and opt under
https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/
"""

from vlmmem.architectures.blocks import Shape, embedding, linear, norm, read_shape
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.fused_qkv import fused
from vlmmem.architectures.llama import stacked
from vlmmem.layers import Tensor
from vlmmem.model import Model

__all__ = ["BUILDERS"]

# OPTLearnedPositionalEmbedding starts counting at the padding token's index + 1
_OPT_OFFSET = 2


def _conv1d(name: str, outputs: int, inputs: int, cut: str, query_rows: int = 0) -> tuple[Tensor, ...]:
    """GPT-2's linear layer, stored with its inputs first."""
    weight = Tensor(f"{name}.weight", (inputs, outputs), "linear", cut, transposed=True, query_rows=query_rows)
    bias = Tensor(f"{name}.bias", (outputs,), "bias", "whole" if cut == "inputs" else cut, query_rows=query_rows)
    return weight, bias


def _gpt2_shape(fields: Fields, kind: str, kv_heads: str) -> Shape:
    """The shape in the words of GPT2Config, which also takes the usual ones."""
    named = fields.first("n_embd", "hidden_size")
    hidden = fields.integer(named, 768)
    return read_shape(
        fields,
        kind,
        {
            "layers": 12,
            "hidden_size": 768,
            "heads": 12,
            "intermediate_size": 4 * hidden,
            "vocab_size": 50257,
            "max_positions": 1024,
            "tied_embeddings": True,
            "activation": "gelu_new" if kind == "gpt2" else "gelu_pytorch_tanh",
        },
        layers=fields.first("n_layer", "num_hidden_layers"),
        hidden_size=named,
        heads=fields.first("n_head", "num_attention_heads"),
        intermediate_size="n_inner",
        max_positions=fields.first("n_positions", "max_position_embeddings"),
        activation="activation_function",
        kv_heads=kv_heads,
        # the heads make up the hidden size
        head_dim="(none)",
    )


def _gpt2_ends(shape: Shape, prefix: str) -> tuple[Tensor, ...]:
    hidden = shape.hidden_size
    return (
        *embedding(f"{prefix}wte", shape.vocab_size, hidden),
        *embedding(f"{prefix}wpe", shape.max_positions, hidden, "position"),
        *norm(f"{prefix}ln_f", hidden, bias=True),
        *(() if shape.tied_embeddings else embedding("lm_head", shape.vocab_size, hidden, "head")),
    )


def _gpt2(fields: Fields, prefix: str = "transformer.") -> Model:
    shape = _gpt2_shape(fields, "gpt2", fields.first("n_head", "num_attention_heads"))
    hidden = shape.hidden_size
    tensors = (
        *norm("ln_1", hidden, bias=True),
        *_conv1d("attn.c_attn", 3 * hidden, hidden, "qkv", hidden),
        *_conv1d("attn.c_proj", hidden, hidden, "inputs"),
        *norm("ln_2", hidden, bias=True),
        *_conv1d("mlp.c_fc", shape.intermediate_size, hidden, "outputs"),
        *_conv1d("mlp.c_proj", hidden, shape.intermediate_size, "inputs"),
    )
    return stacked(shape, prefix, tensors, outside=_gpt2_ends(shape, prefix), stack="h")


def _gpt_bigcode(fields: Fields, prefix: str = "transformer.") -> Model:
    # multi-query is a switch here, on where it is not named; the config counts no KV heads
    shared = fields.boolean("multi_query", default=True)
    heads = fields.first("n_head", "num_attention_heads")
    shape = _gpt2_shape(fields.changed(one=1), "gpt_bigcode", "one" if shared else heads)
    hidden, wide = shape.hidden_size, shape.intermediate_size
    tensors = (
        *norm("ln_1", hidden, bias=True),
        *fused("attn.c_attn", shape, bias=True),
        *linear("attn.c_proj", hidden, hidden, "inputs", bias=True),
        *norm("ln_2", hidden, bias=True),
        *linear("mlp.c_fc", wide, hidden, "outputs", bias=True),
        *linear("mlp.c_proj", hidden, wide, "inputs", bias=True),
    )
    return stacked(shape, prefix, tensors, outside=_gpt2_ends(shape, prefix), stack="h")


def _gpt_neo(fields: Fields, prefix: str = "transformer.") -> Model:
    hidden = fields.integer("hidden_size", 2048)
    heads = fields.first("num_heads", "num_attention_heads")
    shape = read_shape(
        fields,
        "gpt_neo",
        {
            "layers": 24,
            "hidden_size": 2048,
            "heads": 16,
            "intermediate_size": 4 * hidden,
            "vocab_size": 50257,
            "max_positions": 2048,
            "tied_embeddings": True,
            "activation": "gelu_new",
        },
        layers=fields.first("num_layers", "num_hidden_layers"),
        heads=heads,
        kv_heads=heads,
        head_dim="(none)",
        activation="activation_function",
    )
    wide = shape.intermediate_size
    tensors = (
        *norm("ln_1", hidden, bias=True),
        *linear("attn.attention.k_proj", hidden, hidden, "kv"),
        *linear("attn.attention.v_proj", hidden, hidden, "kv"),
        *linear("attn.attention.q_proj", hidden, hidden, "outputs"),
        *linear("attn.attention.out_proj", hidden, hidden, "inputs", bias=True),
        *norm("ln_2", hidden, bias=True),
        *linear("mlp.c_fc", wide, hidden, "outputs", bias=True),
        *linear("mlp.c_proj", hidden, wide, "inputs", bias=True),
    )
    # its local layers mask what they do not attend to, but the cache keeps all of it
    return stacked(shape, prefix, tensors, outside=_gpt2_ends(shape, prefix), stack="h")


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
    return stacked(shape, prefix, tensors, outside=outside)


BUILDERS = {"gpt2": _gpt2, "gpt_bigcode": _gpt_bigcode, "gpt_neo": _gpt_neo, "opt": _opt}
