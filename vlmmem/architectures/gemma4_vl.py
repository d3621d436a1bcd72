"""Gemma 4: a tower over patches of any number, an audio tower where there is one, and the decoder of gemma4_text.

Source: https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/gemma4/modeling_gemma4.py
"""

from vlmmem.architectures.blocks import linear, norm
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.towers import read_tower
from vlmmem.architectures.vision_language import projector, text_of, with_tower
from vlmmem.layers import Layer, Part, Tensor
from vlmmem.model import Model, VisionTower

__all__ = ["BUILDERS"]

_QUARTER = 4
"""Two convolutions of stride 2 leave a quarter of the mel bins."""


def _norms(names: tuple[str, ...], width: int) -> tuple[Tensor, ...]:
    return tuple(tensor for name in names for tensor in norm(name, width))


def _vision(described: Fields, name: str) -> tuple[VisionTower, Part]:
    known = {"layers": 16, "hidden_size": 768, "heads": 12, "intermediate_size": 3072, "patch_size": 16}
    shape = read_tower(described, "gemma4_vision", known, image_size="(none)", channels="(none)")
    hidden, wide = shape.hidden_size, shape.intermediate_size
    width = described.integer("head_dim", 64)
    queries = shape.heads * width
    keys = described.integer("num_key_value_heads", 12) * width
    layer = Layer(
        "encoder",
        (
            *linear("self_attn.q_proj.linear", queries, hidden, "outputs"),
            *linear("self_attn.k_proj.linear", keys, hidden, "outputs"),
            *linear("self_attn.v_proj.linear", keys, hidden, "outputs"),
            *linear("self_attn.o_proj.linear", hidden, queries, "inputs"),
            *norm("self_attn.q_norm", width),
            *norm("self_attn.k_norm", width),
            *linear("mlp.gate_proj.linear", wide, hidden, "outputs"),
            *linear("mlp.up_proj.linear", wide, hidden, "outputs"),
            *linear("mlp.down_proj.linear", hidden, wide, "inputs"),
            *_norms(
                (
                    "input_layernorm",
                    "post_attention_layernorm",
                    "pre_feedforward_layernorm",
                    "post_feedforward_layernorm",
                ),
                hidden,
            ),
        ),
    )
    table = (2, described.integer("position_embedding_size", 10240), hidden)
    outside = (
        Tensor(f"{name}.patch_embedder.position_embedding_table", table, "position"),
        *linear(f"{name}.patch_embedder.input_proj", hidden, shape.channels * shape.patch_size**2),
    )
    return shape, Part("vision", outside, f"{name}.encoder.layers", (layer,) * shape.layers)


def _convolution(name: str, channels: int, inputs: int) -> tuple[Tensor, ...]:
    return (Tensor(f"{name}.conv.weight", (channels, inputs, 3, 3), "convolution"), *norm(f"{name}.norm", channels))


def _audio(described: Fields, name: str) -> Part:
    hidden = described.integer("hidden_size", 1024)
    heads = described.integer("num_attention_heads", 8)
    width = hidden // heads
    channels = described.integers("subsampling_conv_channels", least=1, length=2) or (128, 32)
    feed: tuple[Tensor, ...] = ()
    for which in ("feed_forward1", "feed_forward2"):
        feed += (
            *linear(f"{which}.ffw_layer_1.linear", 4 * hidden, hidden),
            *linear(f"{which}.ffw_layer_2.linear", hidden, 4 * hidden),
            *_norms((f"{which}.pre_layer_norm", f"{which}.post_layer_norm"), hidden),
        )
    kernel = (hidden, 1, described.integer("conv_kernel_size", 5))
    layer = Layer(
        "encoder",
        (
            *feed,
            Tensor("self_attn.per_dim_scale", (width,), "other"),
            *linear("self_attn.q_proj.linear", heads * width, hidden),
            *linear("self_attn.k_proj.linear", heads * width, hidden),
            *linear("self_attn.v_proj.linear", heads * width, hidden),
            *linear("self_attn.post.linear", hidden, hidden),
            *linear("self_attn.relative_k_proj", heads * width, hidden),
            *linear("lconv1d.linear_start.linear", 2 * hidden, hidden),
            *linear("lconv1d.linear_end.linear", hidden, hidden),
            Tensor("lconv1d.depthwise_conv1d.weight", kernel, "convolution"),
            *_norms(
                ("lconv1d.pre_layer_norm", "lconv1d.conv_norm", "norm_pre_attn", "norm_post_attn", "norm_out"), hidden
            ),
        ),
    )
    first = f"{name}.subsample_conv_projection"
    inputs = channels[0] // _QUARTER * channels[1]
    outside = (
        *_convolution(f"{first}.layer0", channels[0], 1),
        *_convolution(f"{first}.layer1", channels[1], channels[0]),
        *linear(f"{first}.input_proj_linear", hidden, inputs),
        *linear(f"{name}.output_proj", described.integer("output_proj_dims", 1536), hidden, bias=True),
    )
    depth = described.layers("num_hidden_layers", 12)
    return Part("audio", outside, f"{name}.layers", (layer,) * depth)


def _gemma4(fields: Fields) -> Model:
    inner = fields.sub("text_config").changed(model_type="gemma4_text")
    text = text_of(fields, inner, "model.language_model.", "", tied=True)
    parts: list[Part] = []
    maps: tuple[Tensor, ...] = ()
    shape: VisionTower | None = None
    # either tower is there where its config is; null or missing means none
    if "vision_config" in fields:
        shape, part = _vision(fields.sub("vision_config"), "model.vision_tower")
        parts.append(part)
        maps += linear("model.embed_vision.embedding_projection", text.hidden_size, shape.hidden_size)
    if "audio_config" in fields:
        described = fields.sub("audio_config")
        parts.append(_audio(described, "model.audio_tower"))
        out = described.integer("output_proj_dims", 1536)
        parts.append(
            Part("audio", linear("model.embed_audio.embedding_projection", text.hidden_size, out)),
        )
    if maps:
        parts.append(projector(maps))
    return with_tower(text, "gemma4", shape, *parts)


BUILDERS = {"gemma4": _gemma4}
