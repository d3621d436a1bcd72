"""Qwen's vision-language models: a tower that takes images of any size, a merger, and Qwen's decoder.

Source: modeling_qwen2_vl.py, modeling_qwen2_5_vl.py, modeling_qwen3_vl.py, modeling_qwen3_vl_moe.py,
modeling_qwen3_5.py and modeling_qwen3_5_moe.py under
https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/
"""

from vlmmem.architectures.blocks import embedding, linear, norm
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.towers import attention, gated_mlp, mlp, read_tower, side
from vlmmem.architectures.vision_language import inside_tower, text_of, with_tower
from vlmmem.layers import Layer, Part, Tensor
from vlmmem.model import Model, VisionTower
from vlmmem.record import replace

__all__ = ["BUILDERS", "patch_convolution", "qwen2_5_tower"]

_TEXT_72B = {
    "vocab_size": 152064,
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "max_window_layers": 80,
}
"""What Qwen2VLTextConfig and Qwen2_5_VLTextConfig take for missing fields."""

_TEXT_3 = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 128000,
    "head_dim": 128,
}
"""What Qwen3VLTextConfig takes for missing fields."""

_TEXT_3_MOE = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "max_position_embeddings": 128000,
    "decoder_sparse_step": 1,
    "moe_intermediate_size": 1408,
    "num_experts_per_tok": 4,
    "num_experts": 60,
}
"""What Qwen3VLMoeTextConfig takes for missing fields."""

_NAMES = {"layers": "depth", "heads": "num_heads", "channels": "in_channels", "image_size": "(none)"}
_QKV = ("attn.qkv",)


def _fused(hidden: int, *, bias: bool = True) -> tuple[Tensor, ...]:
    """Query, key and value in one matrix, and the output matrix."""
    return (
        *linear("attn.qkv", 3 * hidden, hidden, "outputs", bias=bias),
        *linear("attn.proj", hidden, hidden, "inputs", bias=bias),
    )


def patch_convolution(fields: Fields, shape: VisionTower, name: str, *, bias: bool) -> tuple[Tensor, ...]:
    """A vector of each patch of two frames; a single image stands for two."""
    frames = side(fields, "temporal_patch_size", 2)
    kernel = (shape.hidden_size, shape.channels, frames, shape.patch_size, shape.patch_size)
    weight = Tensor(f"{name}.weight", kernel, "convolution")
    return (weight, Tensor(f"{name}.bias", (shape.hidden_size,), "bias")) if bias else (weight,)


def _merge(fields: Fields) -> int:
    """Patches that become one token."""
    return fields.integer("spatial_merge_size", 2, most=64) ** 2


def _two_matrices(name: str, inputs: int, outputs: int) -> tuple[Tensor, ...]:
    """The merger of Qwen2-VL and 2.5-VL: two matrices with an activation between, which stands at index 1."""
    return (
        *linear(f"{name}.mlp.0", inputs, inputs, bias=True),
        *linear(f"{name}.mlp.2", outputs, inputs, bias=True),
    )


def _qwen2_vl(fields: Fields) -> Model:
    # before transformers 4.52, and so in most published configs, the text model's fields stand beside vision_config
    inner = fields.sub("text_config") if "text_config" in fields else fields
    inner = inner.changed(model_type="qwen2")
    text = text_of(fields, inner, "model.language_model.", "", tied=False, by="own or text", given=_TEXT_72B)
    described = fields.sub("vision_config")
    hidden = described.integer("embed_dim", 1280)
    wide = hidden * described.integer("mlp_ratio", 4, most=1024)
    known = {"layers": 32, "hidden_size": 1280, "heads": 16, "patch_size": 14}
    shape = read_tower(
        described.changed(intermediate_size=wide), "qwen2_vl", known, "quick_gelu", **_NAMES, hidden_size="embed_dim"
    )
    shape = replace(shape, merge=described.integer("spatial_merge_size", 2, most=64))
    layer = Layer(
        "encoder",
        (
            *norm("norm1", hidden, bias=True),
            *norm("norm2", hidden, bias=True),
            *_fused(hidden),
            *mlp(hidden, wide),
        ),
    )
    outside = patch_convolution(described, shape, "model.visual.patch_embed.proj", bias=False)
    merged = hidden * _merge(described)
    merger = "model.visual.merger"
    # here hidden_size is the width of what comes out
    out = described.integer("hidden_size", 3584)
    return with_tower(
        text,
        "qwen2_vl",
        shape,
        Part("vision", outside, "model.visual.blocks", (layer,) * shape.layers),
        inside_tower(norm(f"{merger}.ln_q", hidden, bias=True), _two_matrices(merger, merged, out)),
    )


def qwen2_5_tower(described: Fields, name: str, *, queries: tuple[str, ...] = _QKV) -> tuple[VisionTower, Part, Part]:
    """The tower of Qwen2.5-VL and of Qwen2.5-Omni, which splits `queries`: its shape, its part and its merger."""
    known = {"layers": 32, "hidden_size": 3584, "heads": 16, "intermediate_size": 3420, "patch_size": 14}
    shape = read_tower(described, "qwen2_5_vl", known, "silu", **_NAMES)
    window = described.integer("window_size", 112, most=2**16)
    shape = replace(shape, merge=described.integer("spatial_merge_size", 2, most=64), window=window)
    hidden = shape.hidden_size
    heads = _fused(hidden) if queries == _QKV else attention(hidden, queries, "attn.proj")
    layer = Layer(
        "encoder",
        (
            *norm("norm1", hidden),
            *norm("norm2", hidden),
            *heads,
            *gated_mlp(hidden, shape.intermediate_size, bias=True),
        ),
    )
    outside = patch_convolution(described, shape, f"{name}.patch_embed.proj", bias=False)
    merged = hidden * _merge(described)
    merger = f"{name}.merger"
    out = described.integer("out_hidden_size", 3584)
    return (
        shape,
        Part("vision", outside, f"{name}.blocks", (layer,) * shape.layers),
        inside_tower(norm(f"{merger}.ln_q", hidden), _two_matrices(merger, merged, out)),
    )


def _qwen2_5_vl(fields: Fields) -> Model:
    inner = fields.sub("text_config") if "text_config" in fields else fields
    inner = inner.changed(model_type="qwen2")
    text = text_of(fields, inner, "model.language_model.", "", tied=False, by="own or text", given=_TEXT_72B)
    shape, part, merger = qwen2_5_tower(fields.sub("vision_config"), "model.visual")
    return with_tower(text, "qwen2_5_vl", shape, part, merger)


def _merger(name: str, hidden: int, merged: int, outputs: int, *, first: bool) -> tuple[Tensor, ...]:
    """The merger of Qwen3-VL: its norm stands before the merge (the last one) or behind it (deepstack)."""
    return (
        *norm(f"{name}norm", hidden if first else merged, bias=True),
        *linear(f"{name}linear_fc1", merged, merged, bias=True),
        *linear(f"{name}linear_fc2", outputs, merged, bias=True),
    )


def _qwen3_tower(fields: Fields, *, deepstack: bool) -> tuple[VisionTower, tuple[Part, ...]]:
    """The tower of Qwen3-VL and 3.5: its shape, its part and its mergers."""
    described = fields.sub("vision_config")
    known = {"layers": 27, "hidden_size": 1152, "heads": 16, "intermediate_size": 4304, "patch_size": 16}
    shape = read_tower(described, "qwen3_vl", known, "gelu_pytorch_tanh", **_NAMES)
    taken = described.integers("deepstack_visual_indexes")
    depth = (3 if taken is None else len(taken)) if deepstack else 0
    shape = replace(shape, merge=described.integer("spatial_merge_size", 2, most=64), deepstack=depth)
    hidden = shape.hidden_size
    layer = Layer(
        "encoder",
        (
            *norm("norm1", hidden, bias=True),
            *norm("norm2", hidden, bias=True),
            *_fused(hidden),
            *mlp(hidden, shape.intermediate_size, "mlp.linear_fc1", "mlp.linear_fc2"),
        ),
    )
    positions = described.integer("num_position_embeddings", 2304)
    outside = (
        *patch_convolution(described, shape, "model.visual.patch_embed.proj", bias=True),
        *embedding("model.visual.pos_embed", positions, hidden, "position"),
    )
    merged = hidden * _merge(described)
    out = described.integer("out_hidden_size", 3584)
    stack = (Layer("merger", _merger("", hidden, merged, out, first=False)),) * depth
    mergers = Part(
        "vision",
        _merger("model.visual.merger.", hidden, merged, out, first=True),
        "model.visual.deepstack_merger_list",
        stack,
    )
    return shape, (Part("vision", outside, "model.visual.blocks", (layer,) * shape.layers), mergers)


def _qwen3_vl(fields: Fields) -> Model:
    inner = fields.sub("text_config").changed(model_type="qwen3")
    text = text_of(fields, inner, "model.language_model.", "", tied=False, given=_TEXT_3)
    shape, parts = _qwen3_tower(fields, deepstack=True)
    return with_tower(text, "qwen3_vl", shape, *parts)


def _qwen3_vl_moe(fields: Fields) -> Model:
    inner = fields.sub("text_config").changed(model_type="qwen3_moe")
    given: dict[str, object] = {**_TEXT_3_MOE}
    if "head_dim" not in inner:
        heads = inner.integer("num_attention_heads", 16)
        given["head_dim"] = max(1, inner.integer("hidden_size", 2048) // heads)
    text = text_of(fields, inner, "model.language_model.", "", tied=False, given=given)
    shape, parts = _qwen3_tower(fields, deepstack=True)
    return with_tower(text, "qwen3_vl_moe", shape, *parts)


def _qwen3_5(fields: Fields) -> Model:
    text = text_of(fields, fields.sub("text_config"), "model.language_model.", "qwen3_5_text", tied=False)
    shape, parts = _qwen3_tower(fields, deepstack=False)
    return with_tower(text, "qwen3_5", shape, *parts)


def _qwen3_5_moe(fields: Fields) -> Model:
    text = text_of(fields, fields.sub("text_config"), "model.language_model.", "qwen3_5_moe_text", tied=False)
    shape, parts = _qwen3_tower(fields, deepstack=False)
    return with_tower(text, "qwen3_5_moe", shape, *parts)


BUILDERS = {
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen2_vl": _qwen2_vl,
    "qwen3_5": _qwen3_5,
    "qwen3_5_moe": _qwen3_5_moe,
    "qwen3_vl": _qwen3_vl,
    "qwen3_vl_moe": _qwen3_vl_moe,
}
