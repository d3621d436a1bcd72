"""Llama 4: a tower over tiles, a pixel-shuffle adapter with a projector, and the decoder of llama4_text.

Source: https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/llama4/modeling_llama4.py
"""

from vlmmem.architectures.blocks import linear, norm
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.hub_code import headed
from vlmmem.architectures.towers import attention, mlp, read_tower
from vlmmem.architectures.vision_language import inside_tower, projector, text_of, with_tower
from vlmmem.layers import Layer, Part, Tensor
from vlmmem.model import Model

__all__ = ["BUILDERS"]


def _llama4(fields: Fields) -> Model:
    # the head belongs to the text model, and its own config ties it
    inner = fields.sub("text_config").changed(model_type="llama4_text")
    tied = inner.boolean("tie_word_embeddings")
    whole = fields.changed(tie_word_embeddings=tied)
    text = headed(text_of(whole, inner, "language_model.model.", "", tied=False), "language_model.")
    described = fields.sub("vision_config")
    known = {
        "layers": 34,
        "hidden_size": 768,
        "heads": 16,
        "intermediate_size": 5632,
        "image_size": 448,
        "patch_size": 14,
    }
    shape = read_tower(described, "llama4_vision", known)
    hidden, name = shape.hidden_size, "vision_model"
    queries = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    layer = Layer(
        "encoder",
        (
            *attention(hidden, queries, "self_attn.o_proj"),
            *mlp(hidden, shape.intermediate_size),
            *norm("input_layernorm", hidden, bias=True),
            *norm("post_attention_layernorm", hidden, bias=True),
        ),
    )
    outside = (
        Tensor(f"{name}.class_embedding", (hidden,), "other"),
        Tensor(f"{name}.positional_embedding_vlm", (shape.patches + 1, hidden), "position"),
        *linear(f"{name}.patch_embedding.linear", hidden, shape.channels * shape.patch_size**2),
        *norm(f"{name}.layernorm_pre", hidden, bias=True),
        *norm(f"{name}.layernorm_post", hidden, bias=True),
    )
    middle = described.integer("projector_input_dim", 4096)
    out = described.integer("projector_output_dim", 4096)
    adapter = (
        *linear(f"{name}.vision_adapter.mlp.fc1", middle, shape.intermediate_size),
        *linear(f"{name}.vision_adapter.mlp.fc2", out, out),
    )
    maps = linear("multi_modal_projector.linear_1", text.hidden_size, described.integer("vision_output_dim", 7680))
    tower = Part("vision", outside, f"{name}.model.layers", (layer,) * shape.layers)
    return with_tower(text, "llama4", shape, tower, inside_tower(adapter), projector(maps))


BUILDERS = {"llama4": _llama4}
