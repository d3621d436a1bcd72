"""Kimi-VL and Kimi-K2.5: MoonViT, which takes images of any size, a projector of two matrices, and DeepSeek's decoder.

Source: modeling_kimi_k25.py under https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/;
for Kimi-VL, which transformers does not have, modeling_kimi_vl.py and configuration_kimi_vl.py of
https://huggingface.co/moonshotai/Kimi-VL-A3B-Instruct, whose checkpoint holds 16,407,657,776 elements of 2 bytes: the
parameters counted here, and 3,392 of its routers' biases and rotary tables, which are buffers.
"""

from vlmmem.architectures.blocks import linear, norm
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.towers import attention, mlp, patches, read_tower
from vlmmem.architectures.vision_language import projector, text_of, with_tower
from vlmmem.layers import Layer, Part, Tensor
from vlmmem.model import Model

__all__ = ["BUILDERS"]

_KNOWN = {"layers": 27, "hidden_size": 1152, "heads": 16, "intermediate_size": 4304, "patch_size": 14}


def _merged(described: Fields) -> int:
    sides = described.integers("merge_kernel_size", least=1, length=2) or (2, 2)
    return sides[0] * sides[1]


def _positions(described: Fields) -> tuple[int, int]:
    sides = [described.first(f"pos_emb_{side}", f"init_pos_emb_{side}") for side in ("height", "width")]
    return described.integer(sides[0], 64), described.integer(sides[1], 64)


def _kimi_k25(fields: Fields) -> Model:
    inner = fields.sub("text_config")
    if inner.text("model_type", "deepseek_v3") == "kimi_k2":
        inner = inner.changed(model_type="deepseek_v3")
    text = text_of(fields, inner, "model.language_model.", "deepseek_v3", tied=True)
    described = fields.sub("vision_config")
    # the published config names the tower's fields vt_hidden_size and so on
    usual = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    layers, width, heads, wide = (described.first(name, f"vt_{name}") for name in usual)
    shape = read_tower(
        described, "moonvit", _KNOWN, layers=layers, hidden_size=width, heads=heads, intermediate_size=wide
    )
    hidden, name = shape.hidden_size, "model.vision_tower"
    layer = Layer(
        "encoder",
        (
            *norm("norm1", hidden, bias=True),
            *norm("norm2", hidden, bias=True),
            *attention(hidden, ("attn.q_proj", "attn.k_proj", "attn.v_proj"), "attn.proj"),
            *mlp(hidden, shape.intermediate_size),
        ),
    )
    outside = (
        *patches(shape, f"{name}.patch_embed.proj"),
        Tensor(f"{name}.patch_embed.pos_emb.position_embeddings", (*_positions(described), hidden), "position"),
        *norm(f"{name}.final_layernorm", hidden, bias=True),
    )
    merged = hidden * _merged(described)
    tensors = (
        *norm("model.mm_projector.pre_norm", fields.integer("projection_hidden_size", 1152), bias=True),
        *linear("model.mm_projector.in_proj", merged, merged, bias=True),
        *linear("model.mm_projector.out_proj", text.hidden_size, merged, bias=True),
    )
    tower = Part("vision", outside, f"{name}.layers", (layer,) * shape.layers)
    return with_tower(text, "kimi_k25", shape, tower, projector(tensors))


def _kimi_vl(fields: Fields) -> Model:
    text = text_of(fields, fields.sub("text_config"), "language_model.model.", "deepseek_v3", tied=False)
    described = fields.sub("vision_config")
    shape = read_tower(described, "moonvit", _KNOWN)
    hidden, name = shape.hidden_size, "vision_tower"
    layer = Layer(
        "encoder",
        (
            *norm("norm0", hidden, bias=True),
            *norm("norm1", hidden, bias=True),
            *linear("wqkv", 3 * hidden, hidden, "outputs", bias=True),
            *linear("wo", hidden, hidden, "inputs", bias=True),
            *mlp(hidden, shape.intermediate_size, "mlp.fc0", "mlp.fc1"),
        ),
    )
    outside = (
        *patches(shape, f"{name}.patch_embed.proj"),
        Tensor(f"{name}.patch_embed.pos_emb.weight", (*_positions(described), hidden), "position"),
        *norm(f"{name}.encoder.final_layernorm", hidden, bias=True),
    )
    merged = hidden * _merged(described)
    tensors = (
        *norm("multi_modal_projector.pre_norm", hidden, bias=True),
        *linear("multi_modal_projector.linear_1", merged, merged, bias=True),
        *linear("multi_modal_projector.linear_2", text.hidden_size, merged, bias=True),
    )
    tower = Part("vision", outside, f"{name}.encoder.blocks", (layer,) * shape.layers)
    return with_tower(text, "kimi_vl", shape, tower, projector(tensors))


BUILDERS = {"kimi_k25": _kimi_k25, "kimi_vl": _kimi_vl}
