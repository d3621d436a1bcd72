"""LLaVA-1.5 and LLaVA-NeXT: a CLIP tower, a projector of two matrices, and a decoder.

Source: modeling_clip.py, modeling_llava.py and modeling_llava_next.py under
https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/
"""

from dataclasses import replace

from vlmmem.architectures import build_text
from vlmmem.architectures.blocks import embedding, linear, norm
from vlmmem.architectures.fields import Fields
from vlmmem.errors import InputError
from vlmmem.layers import Layer, Part, Tensor
from vlmmem.model import Model, VisionTower

__all__ = ["BUILDERS"]


def clip_tower(fields: Fields, name: str) -> tuple[VisionTower, Part]:
    """A CLIP vision transformer (arXiv 2103.00020): its shape, and its tensors below `name`."""
    tower = VisionTower(
        architecture="clip",
        layers=fields.layers("num_hidden_layers", 12),
        hidden_size=fields.integer("hidden_size", 768),
        heads=fields.integer("num_attention_heads", 12),
        intermediate_size=fields.integer("intermediate_size", 3072),
        image_size=fields.integer("image_size", 224),
        patch_size=fields.integer("patch_size", 32),
        channels=fields.integer("num_channels", 3),
    )
    hidden, wide = tower.hidden_size, tower.intermediate_size
    layer = Layer(
        "encoder",
        (
            *linear("self_attn.k_proj", hidden, hidden, "outputs", bias=True),
            *linear("self_attn.v_proj", hidden, hidden, "outputs", bias=True),
            *linear("self_attn.q_proj", hidden, hidden, "outputs", bias=True),
            *linear("self_attn.out_proj", hidden, hidden, "inputs", bias=True),
            *norm("layer_norm1", hidden, bias=True),
            *linear("mlp.fc1", wide, hidden, "outputs", bias=True),
            *linear("mlp.fc2", hidden, wide, "inputs", bias=True),
            *norm("layer_norm2", hidden, bias=True),
        ),
    )
    patch = (hidden, tower.channels, tower.patch_size, tower.patch_size)
    outside = (
        Tensor(f"{name}.embeddings.class_embedding", (hidden,), "other"),
        Tensor(f"{name}.embeddings.patch_embedding.weight", patch, "convolution"),
        *embedding(f"{name}.embeddings.position_embedding", tower.patches + 1, hidden, "position"),
        *norm(f"{name}.pre_layrnorm", hidden, bias=True),
        *norm(f"{name}.post_layernorm", hidden, bias=True),
    )
    return tower, Part("vision", outside, f"{name}.encoder.layers", (layer,) * tower.layers)


def _llava(fields: Fields, kind: str) -> Model:
    # the head belongs to the whole model, and so does what ties it
    tied = fields.boolean("tie_word_embeddings")
    text = build_text(fields.sub("text_config").changed(tie_word_embeddings=tied), "model.language_model.", "llama")
    described = fields.sub("vision_config")
    if described.text("model_type", "clip_vision_model") != "clip_vision_model":
        raise InputError(f"{described.where}: 'model_type' is {described.text('model_type')!r}; a CLIP tower is known")
    tower, part = clip_tower(described, "model.vision_tower")
    bias = fields.boolean("multimodal_projector_bias", default=True)
    layers = fields.raw("vision_feature_layer")
    taken = len(layers) if isinstance(layers, list) and layers else 1
    projector: tuple[Tensor, ...] = (
        *linear("model.multi_modal_projector.linear_1", text.hidden_size, taken * tower.hidden_size, bias=bias),
        *linear("model.multi_modal_projector.linear_2", text.hidden_size, text.hidden_size, bias=bias),
    )
    if kind == "llava_next":
        projector += (Tensor("model.image_newline", (text.hidden_size,), "other"),)
    parts = (*text.parts, part, Part("projector", projector))
    return replace(text, architecture=kind, parts=parts, vision=tower)


def _llava_15(fields: Fields) -> Model:
    return _llava(fields, "llava")


def _llava_next(fields: Fields) -> Model:
    return _llava(fields, "llava_next")


BUILDERS = {"llava": _llava_15, "llava_next": _llava_next}
