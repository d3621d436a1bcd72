"""Decoders that keep queries, keys and values in one matrix: Phi-3, GLM-4, GPT-NeoX, Falcon, BLOOM, MPT and others.

Source: configuration_NAME.py and modeling_NAME.py for each NAME in `BUILDERS` under
https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/
"""

from vlmmem.architectures.blocks import Shape, embedding, linear, norm, read_shape
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.llama import norms, sized, stacked, window_of
from vlmmem.layers import Tensor
from vlmmem.model import Model
from vlmmem.record import replace

__all__ = ["BUILDERS", "fused", "gate_and_up"]


_FALCON_CACHE = (
    "engines keep the KV heads; transformers' own cache copies them and keeps a key and a value for each query head"
)


def fused(name: str, shape: Shape, *, bias: bool = False) -> tuple[Tensor, ...]:
    """The matrix of queries, keys and values."""
    rows = shape.queries + 2 * shape.keys
    weight = Tensor(f"{name}.weight", (rows, shape.hidden_size), "linear", "qkv", query_rows=shape.queries)
    return (weight, Tensor(f"{name}.bias", (rows,), "bias", "qkv", query_rows=shape.queries)) if bias else (weight,)


def gate_and_up(shape: Shape) -> tuple[Tensor, ...]:
    """An MLP whose gate and up matrices are one."""
    hidden, wide = shape.hidden_size, shape.intermediate_size
    return (
        *linear("mlp.gate_up_proj", 2 * wide, hidden, "outputs"),
        *linear("mlp.down_proj", hidden, wide, "inputs"),
    )


def _four_h(shape: Shape, *, bias: bool) -> tuple[Tensor, ...]:
    hidden, wide = shape.hidden_size, shape.intermediate_size
    return (
        *linear("mlp.dense_h_to_4h", wide, hidden, "outputs", bias=bias),
        *linear("mlp.dense_4h_to_h", hidden, wide, "inputs", bias=bias),
    )


def _around(shape: Shape, table: str, last: str, *, first: str = "", bias: bool = True) -> tuple[Tensor, ...]:
    """Embedding, a norm behind it where `first` names one, last norm and head."""
    hidden = shape.hidden_size
    return (
        *embedding(table, shape.vocab_size, hidden),
        *(norm(first, hidden, bias=True) if first else ()),
        *norm(last, hidden, bias=bias),
        *(() if shape.tied_embeddings else embedding("lm_head", shape.vocab_size, hidden, "head")),
    )


def _phi3(fields: Fields, prefix: str = "model.") -> Model:
    # Phi3Config has no head_dim of its own, but its attention takes one that is there
    shape = read_shape(fields, "phi3", sized(32, 3072, 32, None, 8192, 32064, 4096))
    tensors = (
        *linear("self_attn.o_proj", shape.hidden_size, shape.queries, "inputs"),
        *fused("self_attn.qkv_proj", shape),
        *gate_and_up(shape),
        *norms(shape),
    )
    model = stacked(shape, prefix, tensors, [window_of(fields)] * shape.layers)
    rope = fields.raw("rope_parameters")
    inside = rope.get("partial_rotary_factor", 1) if isinstance(rope, dict) else 1
    return replace(model, partial_rotary=fields.number("partial_rotary_factor", 1.0) != 1 or inside != 1)


def _glm(fields: Fields, prefix: str, kind: str) -> Model:
    shape = read_shape(fields, kind, sized(40, 4096, 32, 2, 13696, 151552, 131072, head_dim=128))
    hidden, bias = shape.hidden_size, fields.boolean("attention_bias", default=True)
    tensors = (
        # GLM's MLP is fused, its attention is not
        *linear("self_attn.q_proj", shape.queries, hidden, "outputs", bias=bias),
        *linear("self_attn.k_proj", shape.keys, hidden, "kv", bias=bias),
        *linear("self_attn.v_proj", shape.keys, hidden, "kv", bias=bias),
        *linear("self_attn.o_proj", hidden, shape.queries, "inputs"),
        *gate_and_up(shape),
        *norms(shape),
    )
    if kind == "glm4":
        tensors += (*norm("post_self_attn_layernorm", hidden), *norm("post_mlp_layernorm", hidden))
    return stacked(shape, prefix, tensors)


def _glm1(fields: Fields, prefix: str = "model.") -> Model:
    return _glm(fields, prefix, "glm")


def _glm4(fields: Fields, prefix: str = "model.") -> Model:
    return _glm(fields, prefix, "glm4")


def _gpt_neox(fields: Fields, prefix: str = "gpt_neox.") -> Model:
    defaults = sized(44, 6144, 64, None, 24576, 50432, 2048, activation="gelu")
    shape = read_shape(fields, "gpt_neox", defaults, kv_heads="num_attention_heads", head_dim="(none)")
    hidden, bias = shape.hidden_size, fields.boolean("attention_bias", default=True)
    tensors = (
        *norm("input_layernorm", hidden, bias=True),
        *norm("post_attention_layernorm", hidden, bias=True),
        *fused("attention.query_key_value", shape, bias=bias),
        *linear("attention.dense", hidden, hidden, "inputs", bias=bias),
        *_four_h(shape, bias=True),
    )
    outside = _around(shape, f"{prefix}embed_in", f"{prefix}final_layer_norm")
    return stacked(shape, prefix, tensors, outside=outside)


def _persimmon(fields: Fields, prefix: str = "model.") -> Model:
    defaults = sized(36, 4096, 64, None, 16384, 262144, 16384, activation="relu2")
    shape = read_shape(fields, "persimmon", defaults, kv_heads="num_attention_heads", head_dim="(none)")
    hidden = shape.hidden_size
    tensors = (
        *fused("self_attn.query_key_value", shape, bias=True),
        *linear("self_attn.dense", hidden, hidden, "inputs", bias=True),
        *_four_h(shape, bias=True),
        *norm("input_layernorm", hidden, bias=True),
        *norm("post_attention_layernorm", hidden, bias=True),
    )
    if fields.boolean("qk_layernorm", default=True):
        tensors += norm("self_attn.q_layernorm", shape.head_dim, bias=True)
        tensors += norm("self_attn.k_layernorm", shape.head_dim, bias=True)
    outside = _around(shape, f"{prefix}embed_tokens", f"{prefix}final_layernorm")
    return stacked(shape, prefix, tensors, outside=outside)


def _bloom(fields: Fields, prefix: str = "transformer.") -> Model:
    named = fields.first("n_embed", "hidden_size")
    hidden = fields.integer(named, 64)
    heads = fields.first("n_head", "num_attention_heads")
    # BloomConfig has no width of the MLP and no limit of positions: four times the hidden size, and ALiBi
    defaults = sized(2, 64, 8, None, 4 * hidden, 250880, fields.integer("seq_length", 2048), tied_embeddings=True)
    shape = read_shape(
        fields,
        "bloom",
        defaults | {"activation": "gelu"},
        layers=fields.first("n_layer", "num_hidden_layers"),
        hidden_size=named,
        heads=heads,
        kv_heads=heads,
        head_dim="(none)",
        intermediate_size="(none)",
        max_positions="(none)",
    )
    tensors = (
        *norm("input_layernorm", hidden, bias=True),
        *fused("self_attention.query_key_value", shape, bias=True),
        *linear("self_attention.dense", hidden, hidden, "inputs", bias=True),
        *norm("post_attention_layernorm", hidden, bias=True),
        *_four_h(shape, bias=True),
    )
    outside = _around(shape, f"{prefix}word_embeddings", f"{prefix}ln_f", first=f"{prefix}word_embeddings_layernorm")
    return stacked(shape, prefix, tensors, outside=outside, stack="h")


def _falcon(fields: Fields, prefix: str = "transformer.") -> Model:
    named = fields.first("n_embed", "hidden_size")
    hidden = fields.integer(named, 4544)
    heads = fields.integer("num_attention_heads", 71)
    new = fields.boolean("new_decoder_architecture")
    multi_query = fields.boolean("multi_query", default=True)
    # num_kv_heads counts in the new architecture alone
    kv_heads = fields.integer("num_kv_heads", heads) if new else 1 if multi_query else heads
    shape = read_shape(
        fields.changed(num_key_value_heads=kv_heads),
        "falcon",
        sized(32, 4544, 71, None, 4 * hidden, 65024, 2048, tied_embeddings=True, activation="gelu"),
        hidden_size=named,
        head_dim="(none)",
        intermediate_size="ffn_hidden_size",
        activation="activation",
    )
    bias = fields.boolean("bias")
    ahead = fields.optional_integer("num_ln_in_parallel_attn")
    if not fields.boolean("parallel_attn", default=True):
        inside = (*norm("post_attention_layernorm", hidden, bias=True), *norm("input_layernorm", hidden, bias=True))
    elif ahead == 2 or (ahead is None and new):
        inside = (*norm("ln_attn", hidden, bias=True), *norm("ln_mlp", hidden, bias=True))
    else:
        inside = norm("input_layernorm", hidden, bias=True)
    tensors = (
        *fused("self_attention.query_key_value", shape, bias=bias),
        *linear("self_attention.dense", hidden, hidden, "inputs", bias=bias),
        *_four_h(shape, bias=bias),
        *inside,
    )
    outside = _around(shape, f"{prefix}word_embeddings", f"{prefix}ln_f")
    model = stacked(shape, prefix, tensors, outside=outside, stack="h")
    return replace(model, notes=(_FALCON_CACHE,)) if new else model


def _mpt(fields: Fields, prefix: str = "transformer.") -> Model:
    named = fields.first("d_model", "hidden_size")
    hidden = fields.integer(named, 2048)
    heads = fields.first("n_heads", "num_attention_heads")
    shape = read_shape(
        fields,
        "mpt",
        sized(24, 2048, 16, None, 4 * hidden, 50368, 2048, tied_embeddings=True, activation="gelu"),
        layers=fields.first("n_layers", "num_hidden_layers"),
        hidden_size=named,
        heads=heads,
        kv_heads=heads,
        head_dim="(none)",
        # MptBlock fixes the width: four times the hidden size, whatever the ratio
        intermediate_size="(none)",
        max_positions="max_seq_len",
        activation="(none)",
    )
    # MptBlock takes neither biases nor norms with a bias, whatever the config says
    tensors = (
        *norm("norm_1", hidden),
        *fused("attn.Wqkv", shape),
        *linear("attn.out_proj", hidden, hidden, "inputs"),
        *norm("norm_2", hidden),
        *linear("ffn.up_proj", 4 * hidden, hidden, "outputs"),
        *linear("ffn.down_proj", hidden, 4 * hidden, "inputs"),
    )
    outside = _around(shape, f"{prefix}wte", f"{prefix}norm_f", bias=False)
    return stacked(shape, prefix, tensors, outside=outside, stack="blocks")


def _six_b(fields: Fields, prefix: str, kind: str) -> Model:
    """GPT-J and CodeGen: one is the other with its queries, keys and values in one matrix."""
    hidden_size = fields.first("n_embd", "hidden_size")
    hidden = fields.integer(hidden_size, 4096)
    heads = fields.first("n_head", "num_attention_heads")
    shape = read_shape(
        fields,
        kind,
        sized(28, 4096, 16, None, 4 * hidden, 50400, 2048, activation="gelu_new"),
        layers=fields.first("n_layer", "num_hidden_layers"),
        hidden_size=hidden_size,
        heads=heads,
        kv_heads=heads,
        head_dim="(none)",
        intermediate_size="n_inner",
        max_positions=fields.first("n_positions", "max_position_embeddings"),
        activation="activation_function",
    )
    wide = shape.intermediate_size
    own: tuple[Tensor, ...]
    if kind == "codegen":
        own = fused("attn.qkv_proj", shape)
    else:
        own = (
            *linear("attn.k_proj", hidden, hidden, "kv"),
            *linear("attn.v_proj", hidden, hidden, "kv"),
            *linear("attn.q_proj", hidden, hidden, "outputs"),
        )
    tensors = (
        *norm("ln_1", hidden, bias=True),
        *own,
        *linear("attn.out_proj", hidden, hidden, "inputs"),
        *linear("mlp.fc_in", wide, hidden, "outputs", bias=True),
        *linear("mlp.fc_out", hidden, wide, "inputs", bias=True),
    )
    outside = (
        *_around(shape, f"{prefix}wte", f"{prefix}ln_f"),
        Tensor("lm_head.bias", (shape.vocab_size,), "bias", "vocabulary"),
    )
    return stacked(shape, prefix, tensors, outside=outside, stack="h")


def _gptj(fields: Fields, prefix: str = "transformer.") -> Model:
    return _six_b(fields, prefix, "gptj")


def _codegen(fields: Fields, prefix: str = "transformer.") -> Model:
    return _six_b(fields, prefix, "codegen")


BUILDERS = {
    "bloom": _bloom,
    "codegen": _codegen,
    "falcon": _falcon,
    "glm": _glm1,
    "glm4": _glm4,
    "gpt_neox": _gpt_neox,
    "gptj": _gptj,
    "mpt": _mpt,
    "persimmon": _persimmon,
    "phi3": _phi3,
}
