"""GLM-4.1V, 4.5V and 4.6V: a tower for images of any size, a downsampling merger, and GLM's decoder.

Source: modeling_glm4v.py, modeling_glm4v_moe.py and modeling_glm46v.py under
https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/
"""

from vlmmem.architectures.blocks import decoder, embedding, linear, norm, read_shape
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.llama import ends
from vlmmem.architectures.qwen_vl import patch_convolution
from vlmmem.architectures.towers import gated_mlp, read_tower
from vlmmem.architectures.vision_language import inside_tower, text_of, with_tower
from vlmmem.layers import Layer, Part, Tensor
from vlmmem.model import Model, VisionTower

__all__ = ["BUILDERS"]

_MOE = {
    "vocab_size": 151424,
    "hidden_size": 4096,
    "intermediate_size": 10944,
    "num_hidden_layers": 46,
    "num_attention_heads": 96,
    "num_key_value_heads": 8,
    "max_position_embeddings": 65536,
    "attention_bias": True,
    "moe_intermediate_size": 1408,
    "num_experts_per_tok": 8,
    "n_shared_experts": 1,
    "n_routed_experts": 128,
    "first_k_dense_replace": 1,
}
"""What Glm4vMoeTextConfig takes for missing fields."""


def _text(fields: Fields, prefix: str = "model.") -> Model:
    defaults: dict[str, object] = {
        "layers": 40,
        "hidden_size": 4096,
        "heads": 32,
        "kv_heads": 2,
        "intermediate_size": 13696,
        "vocab_size": 151552,
        "max_positions": 32768,
    }
    shape = read_shape(fields, "glm4v_text", defaults)
    hidden, wide = shape.hidden_size, shape.intermediate_size
    tensors = (
        *linear("self_attn.q_proj", shape.queries, hidden, "outputs", bias=True),
        *linear("self_attn.k_proj", shape.keys, hidden, "kv", bias=True),
        *linear("self_attn.v_proj", shape.keys, hidden, "kv", bias=True),
        *linear("self_attn.o_proj", hidden, shape.queries, "inputs"),
        *linear("mlp.gate_up_proj", 2 * wide, hidden, "outputs"),
        *linear("mlp.down_proj", hidden, wide, "inputs"),
        *norm("input_layernorm", hidden),
        *norm("post_attention_layernorm", hidden),
        *norm("post_self_attn_layernorm", hidden),
        *norm("post_mlp_layernorm", hidden),
    )
    layer = Layer("full", tensors, (shape.cache(),))
    return decoder(shape, (layer,) * shape.layers, ends(shape, prefix), f"{prefix}layers")


def _tower(described: Fields, name: str) -> tuple[VisionTower, Part, Part]:
    known = {"layers": 24, "hidden_size": 1536, "heads": 12, "image_size": 336, "patch_size": 14}
    names = {"layers": "depth", "heads": "num_heads", "channels": "in_channels"}
    out = described.integer("out_hidden_size", 4096)
    # the width of the layers' MLP is out_hidden_size; intermediate_size is that of the merger's MLP
    shape = read_tower(described, "glm4v", known | {"intermediate_size": out}, **names, intermediate_size="(none)")
    shape = VisionTower(
        "glm4v",
        shape.layers,
        shape.hidden_size,
        shape.heads,
        out,
        shape.image_size,
        shape.patch_size,
        shape.channels,
    )
    hidden = shape.hidden_size
    layer = Layer(
        "encoder",
        (
            *norm("norm1", hidden),
            *norm("norm2", hidden),
            *linear("attn.qkv", 3 * hidden, hidden, "outputs", bias=described.boolean("attention_bias")),
            *linear("attn.proj", hidden, hidden, "inputs"),
            *gated_mlp(hidden, out),
        ),
    )
    outside = (
        *embedding(f"{name}.embeddings.position_embedding", shape.patches, hidden, "position"),
        *patch_convolution(described, shape, f"{name}.patch_embed.proj", bias=True),
        *norm(f"{name}.post_conv_layernorm", hidden),
        *norm(f"{name}.post_layernorm", hidden),
    )
    merge = described.integer("spatial_merge_size", 2, most=64)
    wide = described.integer("intermediate_size", 13696)
    merger = (
        Tensor(f"{name}.downsample.weight", (out, hidden, merge, merge), "convolution"),
        Tensor(f"{name}.downsample.bias", (out,), "bias"),
        *linear(f"{name}.merger.proj", out, out),
        *norm(f"{name}.merger.post_projection_norm", out, bias=True),
        *gated_mlp(out, wide, f"{name}.merger"),
    )
    return shape, Part("vision", outside, f"{name}.blocks", (layer,) * shape.layers), inside_tower(merger)


def _glm4v(fields: Fields) -> Model:
    # the first published config has the text model's fields beside vision_config
    inner = fields.sub("text_config") if "text_config" in fields else fields
    inner = inner.changed(model_type="glm4v_text")
    text = text_of(fields, inner, "model.language_model.", "", tied=False, by="own or text")
    shape, *parts = _tower(fields.sub("vision_config"), "model.visual")
    return with_tower(text, "glm4v", shape, *parts)


def _glm4v_moe(fields: Fields) -> Model:
    inner = fields.sub("text_config").changed(model_type="glm4_moe", use_qk_norm=False)
    given: dict[str, object] = {**_MOE}
    if "head_dim" not in inner:
        given["head_dim"] = max(1, inner.integer("hidden_size", 4096) // inner.integer("num_attention_heads", 96))
    text = text_of(fields, inner, "model.language_model.", "", tied=False, by="own or text", given=given)
    shape, *parts = _tower(fields.sub("vision_config"), "model.visual")
    return with_tower(text, "glm4v_moe", shape, *parts)


BUILDERS = {"glm4v": _glm4v, "glm4v_moe": _glm4v_moe, "glm4v_text": _text}
