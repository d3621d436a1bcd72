"""Llama 3.2 Vision: a tower of two stacks over tiles, and a decoder of which some layers attend to the image only.

Source: https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/mllama/modeling_mllama.py
"""

from vlmmem.architectures.blocks import decoder, embedding, linear, norm, read_shape
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.llama import attention as text_attention
from vlmmem.architectures.llama import gated_mlp, norms
from vlmmem.architectures.towers import attention, filled, mlp, read_tower
from vlmmem.architectures.vision_language import projector, with_tower
from vlmmem.layers import KeyValueCache, Layer, Part, Tensor
from vlmmem.model import Model

__all__ = ["BUILDERS"]

_CROSS = (3, 8, 13, 18, 23, 28, 33, 38)
_TAKEN = 5
_RATIOS = 8
_EXTRA_TOKENS = 8
"""The embedding has rows for special tokens that the output head has not."""


def _text(fields: Fields, prefix: str = "model.", states: int = 4 * 1601) -> Model:
    defaults: dict[str, object] = {
        "layers": 40,
        "hidden_size": 4096,
        "heads": 32,
        "kv_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128256,
        "max_positions": 131072,
    }
    shape = read_shape(fields, "mllama_text_model", defaults, head_dim="(none)")
    hidden = shape.hidden_size
    rest = (*gated_mlp(hidden, shape.intermediate_size), *norms(shape))
    full = Layer("full", (*text_attention(shape), *rest), (shape.cache(),))
    cross = Layer(
        "cross",
        (
            Tensor("cross_attn_attn_gate", (1,), "other"),
            Tensor("cross_attn_mlp_gate", (1,), "other"),
            *linear("cross_attn.q_proj", shape.queries, hidden, "outputs"),
            *linear("cross_attn.k_proj", shape.keys, hidden, "kv"),
            *linear("cross_attn.v_proj", shape.keys, hidden, "kv"),
            *linear("cross_attn.o_proj", hidden, shape.queries, "inputs"),
            *norm("cross_attn.q_norm", shape.head_dim),
            *norm("cross_attn.k_norm", shape.head_dim),
            *rest,
        ),
        (KeyValueCache(shape.kv_heads, shape.head_dim, shape.head_dim, states=states),),
    )
    named = fields.integers("cross_attention_layers")
    crossing = set(_CROSS if named is None else named)
    outside = (
        *embedding(f"{prefix}embed_tokens", shape.vocab_size + _EXTRA_TOKENS, hidden),
        *norm(f"{prefix}norm", hidden),
        # tie_word_embeddings ties nothing: the two tables have different rows
        *embedding("lm_head", shape.vocab_size, hidden, "head"),
    )
    layers = [cross if index in crossing else full for index in range(shape.layers)]
    return decoder(shape, layers, outside, f"{prefix}layers")


def _mllama(fields: Fields) -> Model:
    described = fields.sub("vision_config")
    known = {
        "layers": 32,
        "hidden_size": 1280,
        "heads": 16,
        "intermediate_size": 5120,
        "image_size": 448,
        "patch_size": 14,
    }
    shape = read_tower(described, "mllama", known, heads="attention_heads")
    hidden, wide, name = shape.hidden_size, shape.intermediate_size, "model.vision_model"
    tiles = described.integer("max_num_tiles", 4, most=2**10)
    positions = shape.patches + 1
    ratios = described.raw("supported_aspect_ratios")
    if ratios is not None and (not isinstance(ratios, list) or not ratios):
        described.wrong("supported_aspect_ratios", "a list of pairs")
    # number 0 means no image
    ids = (len(ratios) if isinstance(ratios, list) else _RATIOS) + 1
    queries = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    plain = (
        *attention(hidden, queries, "self_attn.o_proj", bias=False),
        *mlp(hidden, wide),
        *norm("input_layernorm", hidden, bias=True),
        *norm("post_attention_layernorm", hidden, bias=True),
    )
    gates = (Tensor("gate_attn", (1,), "other"), Tensor("gate_ffn", (1,), "other"))
    patch = (hidden, shape.channels, shape.patch_size, shape.patch_size)
    outside: tuple[Tensor, ...] = (
        Tensor(f"{name}.class_embedding", (hidden,), "other"),
        Tensor(f"{name}.patch_embedding.weight", patch, "convolution"),
        Tensor(f"{name}.gated_positional_embedding.gate", (1,), "other"),
        Tensor(f"{name}.gated_positional_embedding.embedding", (positions, hidden), "position"),
        *embedding(f"{name}.gated_positional_embedding.tile_embedding", ids, tiles * positions * hidden, "position"),
    )
    for which in ("pre_tile_positional_embedding", "post_tile_positional_embedding"):
        outside += (Tensor(f"{name}.{which}.gate", (1,), "other"),)
        outside += embedding(f"{name}.{which}.embedding", ids, tiles * hidden, "position")
    outside += (*norm(f"{name}.layernorm_pre", hidden, bias=True), *norm(f"{name}.layernorm_post", hidden, bias=True))
    first = Part("vision", outside, f"{name}.transformer.layers", (Layer("encoder", plain),) * shape.layers)
    depth = described.layers("num_global_layers", 8)
    second = Part("vision", (), f"{name}.global_transformer.layers", (Layer("encoder", (*gates, *plain)),) * depth)
    inner = fields.sub("text_config")
    dtype = fields.first("dtype", "torch_dtype")
    if dtype in fields:
        inner = inner.changed(dtype=fields.raw(dtype))
    # tie_word_embeddings of the text config ties nothing in this class
    text = _text(inner.changed(tie_word_embeddings=False), "model.language_model.", tiles * positions)
    taken = described.integers("intermediate_layers_indices")
    default = hidden * (1 + (_TAKEN if taken is None else len(taken)))
    out = filled(described, vision_output_dim=default).integer("vision_output_dim")
    table = linear("model.multi_modal_projector", text.hidden_size, out, bias=True)
    return with_tower(text, "mllama", shape, first, second, projector(table))


BUILDERS = {"mllama": _mllama, "mllama_text_model": _text}
