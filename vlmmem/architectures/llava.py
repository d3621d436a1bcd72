"""The skeleton of LLaVA: a tower, a projector of one or two matrices, and a decoder.

Source: modeling_llava.py, modeling_llava_next.py, modeling_llava_onevision.py, modeling_vipllava.py,
modeling_internvl.py, modeling_mistral3.py, modeling_paligemma.py, modeling_gemma3.py, modeling_aya_vision.py,
modeling_deepseek_vl.py and modeling_deepseek_vl_hybrid.py under https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/
"""

from vlmmem.architectures.blocks import linear, norm
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.towers import Tower, internvl, mlp, patches, read_tower, siglip, tower_of
from vlmmem.architectures.vision_language import inside, projector, text_of, with_tower
from vlmmem.errors import InputError
from vlmmem.layers import Layer, Part, Tensor
from vlmmem.model import Model

__all__ = ["BUILDERS"]

_CLIP = {
    "intermediate_size": 4096,
    "hidden_size": 1024,
    "patch_size": 14,
    "image_size": 336,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
}
_SIGLIP = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "patch_size": 14,
    "image_size": 384,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "vision_use_head": False,
}
_PROJECTOR = "model.multi_modal_projector"
_TEXT = "model.language_model."
_TOWER = "model.vision_tower"
_VIPLLAVA_LAYERS = 5


def _taken(fields: Fields, default: int = 1) -> int:
    """From how many of the tower's layers features are taken, side by side."""
    layers = fields.raw("vision_feature_layer")
    if not isinstance(layers, list):
        return 1 if "vision_feature_layer" in fields else default
    return len(fields.integers("vision_feature_layer", least=-(2**16)) or ()) or fields.wrong(
        "vision_feature_layer", "one layer or a list of layers"
    )


def _two(outputs: int, inputs: int, *, bias: bool = True, first: str = "linear_1") -> tuple[Tensor, ...]:
    """The usual projector: two matrices."""
    return (
        *linear(f"{_PROJECTOR}.{first}", outputs, inputs, bias=bias),
        *linear(f"{_PROJECTOR}.linear_2", outputs, outputs, bias=bias),
    )


def _newline(width: int) -> tuple[Tensor, ...]:
    """The vector that ends each row of an image."""
    return (Tensor("model.image_newline", (width,), "other"),)


def _whole(text: Model, kind: str, tower: Tower, *tensors: tuple[Tensor, ...]) -> Model:
    return with_tower(text, kind, tower.shape, *tower.parts, projector(*tensors))


def _llava(fields: Fields) -> Model:
    text = text_of(fields, fields.sub("text_config"), _TEXT, "llama", tied=False, by="own or text")
    tower = tower_of(inside(fields, "vision_config", _CLIP), _TOWER, "clip_vision_model")
    bias = fields.boolean("multimodal_projector_bias", default=True)
    return _whole(text, "llava", tower, _two(text.hidden_size, _taken(fields) * tower.shape.hidden_size, bias=bias))


def _llava_next(fields: Fields) -> Model:
    text = text_of(fields, fields.sub("text_config"), _TEXT, "llama", tied=False)
    tower = tower_of(inside(fields, "vision_config", _CLIP), _TOWER, "clip_vision_model")
    bias = fields.boolean("multimodal_projector_bias", default=True)
    two = _two(text.hidden_size, _taken(fields) * tower.shape.hidden_size, bias=bias)
    return _whole(text, "llava_next", tower, two, _newline(text.hidden_size))


def _llava_onevision(fields: Fields) -> Model:
    text = text_of(fields, fields.sub("text_config"), _TEXT, "qwen2", tied=False, by="own or text")
    tower = tower_of(inside(fields, "vision_config", _SIGLIP), _TOWER, "siglip_vision_model")
    bias = fields.boolean("multimodal_projector_bias", default=True)
    two = _two(text.hidden_size, _taken(fields) * tower.shape.hidden_size, bias=bias)
    return _whole(text, "llava_onevision", tower, two, _newline(text.hidden_size))


def _vipllava(fields: Fields) -> Model:
    text = text_of(fields, fields.sub("text_config"), _TEXT, "llama", tied=False)
    tower = tower_of(inside(fields, "vision_config", _CLIP), _TOWER, "clip_vision_model")
    width = _taken(fields, _VIPLLAVA_LAYERS) * tower.shape.hidden_size
    scale = norm(f"{_PROJECTOR}.projector_layernorm", width, bias=True)
    return _whole(text, "vipllava", tower, scale, _two(text.hidden_size, width))


def _internvl(fields: Fields) -> Model:
    text = text_of(fields, fields.sub("text_config"), _TEXT, "qwen2", tied=True)
    tower = internvl(fields.sub("vision_config"), _TOWER)
    ratio = fields.number("downsample_ratio", 0.5)
    if not 1 / 64 <= ratio <= 1:
        fields.wrong("downsample_ratio", "a number from 1/64 to 1")
    width = tower.shape.hidden_size * int(1 / ratio) ** 2
    scale = norm(f"{_PROJECTOR}.layer_norm", width, bias=True)
    return _whole(text, "internvl", tower, scale, _two(text.hidden_size, width))


def _mistral3(fields: Fields) -> Model:
    given: dict[str, object] = {
        "head_dim": 128,
        "hidden_size": 5120,
        "intermediate_size": 32768,
        "max_position_embeddings": 131072,
        "num_hidden_layers": 40,
        "sliding_window": None,
        "vocab_size": 131072,
    }
    text = text_of(fields, inside(fields, "text_config", given), _TEXT, "mistral", tied=True)
    tower = tower_of(inside(fields, "vision_config", _CLIP | {"image_size": 1540}), _TOWER, "pixtral")
    bias = fields.boolean("multimodal_projector_bias")
    merge = fields.integer("spatial_merge_size", 2, most=64)
    wide = tower.shape.hidden_size
    merger = (
        *norm(f"{_PROJECTOR}.norm", wide),
        *linear(f"{_PROJECTOR}.patch_merger.merging_layer", wide, wide * merge**2),
    )
    return _whole(text, "mistral3", tower, merger, _two(text.hidden_size, _taken(fields) * wide, bias=bias))


def _paligemma(fields: Fields) -> Model:
    given = {
        "hidden_size": 2048,
        "num_hidden_layers": 18,
        "intermediate_size": 16384,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "vocab_size": 257152,
    }
    text = text_of(fields, inside(fields, "text_config", given), _TEXT, "gemma", tied=True)
    described = _SIGLIP | {"image_size": 224, "num_hidden_layers": 27, "intermediate_size": 4096}
    tower = tower_of(inside(fields, "vision_config", described), _TOWER, "siglip_vision_model")
    # PaliGemmaConfig puts its own projection_dim in the place of the tower's
    width = fields.integer("projection_dim", 2048)
    return _whole(text, "paligemma", tower, linear(f"{_PROJECTOR}.linear", width, tower.shape.hidden_size, bias=True))


def _gemma3(fields: Fields) -> Model:
    text = text_of(fields, fields.sub("text_config").changed(model_type="gemma3_text"), _TEXT, "", tied=True)
    tower = tower_of(fields.sub("vision_config"), _TOWER, "siglip_vision_model")
    wide = tower.shape.hidden_size
    map_out = Tensor(f"{_PROJECTOR}.mm_input_projection_weight", (wide, text.hidden_size), transposed=True)
    return _whole(text, "gemma3", tower, (map_out,), norm(f"{_PROJECTOR}.mm_soft_emb_norm", wide))


def _aya_vision(fields: Fields) -> Model:
    text = text_of(fields, fields.sub("text_config"), _TEXT, "cohere2", tied=True)
    given = _SIGLIP | {"num_attention_heads": 14}
    tower = tower_of(inside(fields, "vision_config", given), _TOWER, "siglip_vision_model")
    shuffled = tower.shape.hidden_size * fields.integer("downsample_factor", 2, most=64) ** 2
    middle = fields.integer("alignment_intermediate_size", text.hidden_size)
    if middle % 2:
        raise InputError(f"{fields.where}: 'alignment_intermediate_size' is {middle}; an even integer is needed")
    tensors = (
        *norm(f"{_PROJECTOR}.layernorm", shuffled, bias=True),
        *linear(f"{_PROJECTOR}.linear_1", middle, shuffled, bias=True),
        # the half of linear_1's outputs gates the other half
        *linear(f"{_PROJECTOR}.linear_2", text.hidden_size, middle // 2, bias=True),
    )
    return _whole(text, "aya_vision", tower, tensors)


def _deepseek_vl(fields: Fields) -> Model:
    text = text_of(fields, fields.sub("text_config"), _TEXT, "llama", tied=True)
    tower = siglip(fields.sub("vision_config"), "model.vision_model")
    tensors = (
        *linear("model.aligner.linear1", text.hidden_size, tower.shape.hidden_size, bias=True),
        *linear("model.aligner.linear2", text.hidden_size, text.hidden_size, bias=True),
    )
    return _whole(text, "deepseek_vl", tower, tensors)


_SAM_GLOBAL = (2, 5, 8, 11)


def _neck(name: str, out: int, hidden: int) -> tuple[Tensor, ...]:
    """Two convolutions of SAM's tower, each with a norm."""
    return (
        Tensor(f"{name}.conv1.weight", (out, hidden, 1, 1), "convolution"),
        *norm(f"{name}.layer_norm1", out, bias=True),
        Tensor(f"{name}.conv2.weight", (out, out, 3, 3), "convolution"),
        *norm(f"{name}.layer_norm2", out, bias=True),
    )


def _sam(fields: Fields, name: str) -> tuple[Tower, int]:
    """SAM's tower (arXiv 2304.02643), with attention in windows in most layers; and the channels that come out."""
    defaults = {
        "layers": 12,
        "hidden_size": 768,
        "heads": 12,
        "intermediate_size": 4 * fields.integer("hidden_size", 768),
        "image_size": 1024,
        "patch_size": 16,
    }
    shape = read_tower(fields, "sam", defaults, intermediate_size="mlp_dim")
    hidden, out = shape.hidden_size, fields.integer("output_channels", 256)
    grid, window = shape.image_size // shape.patch_size, fields.integer("window_size", 14, least=0)
    everywhere = fields.integers("global_attn_indexes")
    whole = set(_SAM_GLOBAL if everywhere is None else everywhere)
    bias, relative = fields.boolean("qkv_bias", default=True), fields.boolean("use_rel_pos", default=True)

    def layer(side: int) -> Layer:
        width = hidden // shape.heads
        positions = (
            Tensor("attn.rel_pos_h", (2 * side - 1, width), "position"),
            Tensor("attn.rel_pos_w", (2 * side - 1, width), "position"),
        )
        return Layer(
            "encoder",
            (
                *norm("layer_norm1", hidden, bias=True),
                *(positions if relative else ()),
                *linear("attn.qkv", 3 * hidden, hidden, "outputs", bias=bias),
                *linear("attn.proj", hidden, hidden, "inputs", bias=True),
                *norm("layer_norm2", hidden, bias=True),
                *mlp(hidden, shape.intermediate_size, "mlp.lin1", "mlp.lin2"),
            ),
        )

    local, full = layer(window or grid), layer(grid)
    outside: tuple[Tensor, ...] = (
        *patches(shape, f"{name}.patch_embed.projection"),
        *_neck(f"{name}.neck", out, hidden),
    )
    if fields.boolean("use_abs_pos", default=True):
        outside += (Tensor(f"{name}.pos_embed", (1, grid, grid, hidden), "position"),)
    layers = tuple(full if index in whole else local for index in range(shape.layers))
    return Tower(shape, (Part("vision", outside, f"{name}.layers", layers),)), out


def _deepseek_vl_hybrid(fields: Fields) -> Model:
    text = text_of(fields, fields.sub("text_config"), _TEXT, "llama", tied=True)
    low = siglip(fields.sub("vision_config"), "model.vision_model")
    high, out = _sam(fields.sub("high_res_vision_config"), "model.high_res_vision_model.vision_encoder")
    half = text.hidden_size // 2
    maps = projector(
        (Tensor("model.high_res_vision_alpha", (1,), "other"),),
        _neck("model.high_res_vision_neck", out, high.shape.hidden_size),
        (
            Tensor("model.high_res_vision_proj.conv1.weight", (2 * out, out, 3, 3), "convolution"),
            Tensor("model.high_res_vision_proj.conv2.weight", (4 * out, 2 * out, 3, 3), "convolution"),
        ),
        linear("model.aligner.vision_proj", half, low.shape.hidden_size, bias=True),
        linear("model.aligner.high_res_vision_proj", half, 4 * out, bias=True),
        linear("model.aligner.proj", text.hidden_size, text.hidden_size, bias=True),
    )
    return with_tower(text, "deepseek_vl_hybrid", low.shape, *low.parts, *high.parts, maps)


BUILDERS = {
    "aya_vision": _aya_vision,
    "deepseek_vl": _deepseek_vl,
    "deepseek_vl_hybrid": _deepseek_vl_hybrid,
    "gemma3": _gemma3,
    "internvl": _internvl,
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "mistral3": _mistral3,
    "paligemma": _paligemma,
    "vipllava": _vipllava,
}
