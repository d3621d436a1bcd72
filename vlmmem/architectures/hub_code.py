"""Vision-language models whose class stands beside their weights on the hub.

InternVL, Phi-3-vision, MiniCPM-V, DeepSeek-VL2 and Molmo: transformers has no class for them. Shapes and names are
those of the published code (modeling_internvl_chat.py, modeling_intern_vit.py and modeling_internlm2.py,
image_embedding_phi3_v.py, modeling_minicpmv.py and resampler.py, modeling_deepseek_vl_v2.py and siglip_vit.py,
modeling_molmo.py). Sums equal to those of published checkpoints: InternVL2.5-2B 2,205,754,368, Phi-3.5-vision
4,146,621,440, MiniCPM-V 2.6 8,099,175,152.
"""

from vlmmem.architectures import build_text
from vlmmem.architectures.blocks import decoder, embedding, linear, norm, read_shape
from vlmmem.architectures.experts import shared_mixture
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.llama import attention as text_attention
from vlmmem.architectures.llama import ends, norms
from vlmmem.architectures.llama import gated_mlp as text_gated_mlp
from vlmmem.architectures.towers import Tower, attention, clip, mlp, patches, read_tower, siglip
from vlmmem.architectures.vision_language import projector, with_tower
from vlmmem.layers import Layer, Part, Tensor
from vlmmem.model import Model, VisionTower
from vlmmem.record import replace

__all__ = ["BUILDERS", "headed"]

_HEAD_WIDTH = 128
"""Width of a head of MiniCPM-V's resampler."""


def headed(model: Model, prefix: str) -> Model:
    """The same model with `prefix` before the names of its head, where the whole decoder is a part of another class."""

    def named(tensor: Tensor) -> Tensor:
        outside = tensor.name.startswith(("lm_head.", "output."))
        return replace(tensor, name=f"{prefix}{tensor.name}") if outside else tensor

    parts = tuple(replace(part, tensors=tuple(named(tensor) for tensor in part.tensors)) for part in model.parts)
    return replace(model, parts=parts)


def _unchecked(model: Model) -> Model:
    note = "approximate: shapes are those of its published code, and its sum was not compared with a checkpoint's"
    return replace(model, notes=(*model.notes, note))


def _whole_dtype(fields: Fields, text: Fields) -> Fields:
    field = fields.first("dtype", "torch_dtype")
    return text.changed(dtype=fields.raw(field)) if field in fields else text


def _internlm2(fields: Fields, prefix: str = "model.") -> Model:
    defaults: dict[str, object] = {
        "layers": 32,
        "hidden_size": 4096,
        "heads": 32,
        "intermediate_size": 11008,
        "vocab_size": 103168,
        "max_positions": 2048,
    }
    shape = read_shape(fields, "internlm2", defaults, head_dim="(none)")
    hidden, wide, bias = shape.hidden_size, shape.intermediate_size, fields.boolean("bias", default=True)
    rows = shape.queries + 2 * shape.keys
    fused: tuple[Tensor, ...] = (
        Tensor("attention.wqkv.weight", (rows, hidden), "linear", "qkv", query_rows=shape.queries),
    )
    if bias:
        fused += (Tensor("attention.wqkv.bias", (rows,), "bias", "qkv", query_rows=shape.queries),)
    tensors = (
        *fused,
        *linear("attention.wo", hidden, shape.queries, "inputs", bias=bias),
        *linear("feed_forward.w1", wide, hidden, "outputs"),
        *linear("feed_forward.w3", wide, hidden, "outputs"),
        *linear("feed_forward.w2", hidden, wide, "inputs"),
        *norm("attention_norm", hidden),
        *norm("ffn_norm", hidden),
    )
    outside = (
        *embedding(f"{prefix}tok_embeddings", shape.vocab_size, hidden),
        *norm(f"{prefix}norm", hidden),
        *(() if shape.tied_embeddings else embedding("output", shape.vocab_size, hidden, "head")),
    )
    return decoder(shape, (Layer("full", tensors, (shape.cache(),)),) * shape.layers, outside, f"{prefix}layers")


def _intern_vit(fields: Fields, name: str) -> Tower:
    defaults = {
        "layers": 48,
        "hidden_size": 3200,
        "heads": 25,
        "intermediate_size": 12800,
        "image_size": 224,
        "patch_size": 14,
    }
    shape = read_tower(fields, "internvl_vision", defaults)
    hidden = shape.hidden_size
    bias = fields.one_of("norm_type", ("layer_norm", "rms_norm"), "rms_norm") == "layer_norm"
    scales = (*norm("attn.q_norm", hidden), *norm("attn.k_norm", hidden))
    layer = Layer(
        "encoder",
        (
            Tensor("ls1", (hidden,), "other"),
            Tensor("ls2", (hidden,), "other"),
            *linear("attn.qkv", 3 * hidden, hidden, "outputs", bias=fields.boolean("qkv_bias")),
            *linear("attn.proj", hidden, hidden, "inputs", bias=True),
            *(scales if fields.boolean("qk_normalization", default=True) else ()),
            *mlp(hidden, shape.intermediate_size),
            *norm("norm1", hidden, bias=bias),
            *norm("norm2", hidden, bias=bias),
        ),
    )
    outside = (
        Tensor(f"{name}.embeddings.class_embedding", (1, 1, hidden), "other"),
        *patches(shape, f"{name}.embeddings.patch_embedding"),
        Tensor(f"{name}.embeddings.position_embedding", (1, shape.patches + 1, hidden), "position"),
    )
    return Tower(shape, (Part("vision", outside, f"{name}.encoder.layers", (layer,) * shape.layers),))


def _internvl_chat(fields: Fields) -> Model:
    inner = _whole_dtype(fields, fields.sub("llm_config"))
    text = headed(build_text(inner, "language_model.model.", "internlm2"), "language_model.")
    tower = _intern_vit(fields.sub("vision_config"), "vision_model")
    ratio = fields.number("downsample_ratio", 0.5)
    if not 1 / 64 <= ratio <= 1:
        fields.wrong("downsample_ratio", "a number from 1/64 to 1")
    width = tower.shape.hidden_size * int(1 / ratio) ** 2
    tensors = (
        *norm("mlp1.0", width, bias=True),
        *linear("mlp1.1", text.hidden_size, width, bias=True),
        *linear("mlp1.3", text.hidden_size, text.hidden_size, bias=True),
    )
    return with_tower(text, "internvl_chat", tower.shape, *tower.parts, projector(tensors))


def _phi3_v(fields: Fields) -> Model:
    text = build_text(fields.changed(model_type="phi3"), "model.")
    images = fields.sub("img_processor")
    named = images.text("name", "clip_vision_model")
    if named != "clip_vision_model":
        images.wrong("name", "'clip_vision_model'")
    # the tower is built from constants of the published code: CLIP ViT-L/14 at 336 pixels
    large = {
        "num_hidden_layers": 24,
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "image_size": 336,
        "patch_size": 14,
    }
    name = "model.vision_embed_tokens"
    tower = clip(Fields(large, fields.where), f"{name}.img_processor.vision_model")
    layout = fields.sub("embd_layer")
    out = images.integer("image_dim_out", 1024)
    # high-definition transform: a square of 2 x 2 patches becomes one token
    width = 4 * out if layout.boolean("use_hd_transform") else out
    tensors: tuple[Tensor, ...] = ()
    if layout.boolean("with_learnable_separator"):
        tensors += (
            Tensor(f"{name}.glb_GN", (1, 1, 4 * out), "other"),
            Tensor(f"{name}.sub_GN", (1, 1, 1, 4 * out), "other"),
        )
    kind = layout.one_of("projection_cls", ("linear", "mlp"), "linear")
    if kind == "linear":
        tensors += linear(f"{name}.img_projection", text.hidden_size, width, bias=True)
    else:
        tensors += linear(f"{name}.img_projection.0", text.hidden_size, width, bias=True)
        tensors += linear(f"{name}.img_projection.2", text.hidden_size, text.hidden_size, bias=True)
    return with_tower(text, "phi3_v", tower.shape, *tower.parts, projector(tensors))


def _minicpmv(fields: Fields) -> Model:
    version = fields.raw("version")
    known = {2.5: "llama", 2.6: "qwen2", 4.0: "llama", 4.5: "qwen3"}
    if not isinstance(version, int | float) or version not in known:
        fields.wrong("version", "one of 2.5, 2.6, 4.0, 4.5")
    inner = fields.changed(model_type=known[version])
    text = headed(build_text(inner, "llm.model."), "llm.")
    described = fields.sub("vision_config")
    if fields.boolean("drop_vision_last_layer") and described.layers("num_hidden_layers", 12) > 1:
        described = described.changed(num_hidden_layers=described.layers("num_hidden_layers", 12) - 1)
    tower = siglip(described, "vpm", head=False)
    hidden, wide, name = text.hidden_size, tower.shape.hidden_size, "resampler"
    if hidden % _HEAD_WIDTH:
        fields.wrong("hidden_size", f"a multiple of {_HEAD_WIDTH}")
    tensors = (
        Tensor(f"{name}.query", (fields.integer("query_num", 64), hidden), "other"),
        *(linear(f"{name}.kv_proj", hidden, wide) if wide != hidden else ()),
        Tensor(f"{name}.attn.in_proj_weight", (3 * hidden, hidden)),
        Tensor(f"{name}.attn.in_proj_bias", (3 * hidden,), "bias"),
        *linear(f"{name}.attn.out_proj", hidden, hidden, bias=True),
        *norm(f"{name}.ln_q", hidden, bias=True),
        *norm(f"{name}.ln_kv", hidden, bias=True),
        *norm(f"{name}.ln_post", hidden, bias=True),
        Tensor(f"{name}.proj", (hidden, hidden)),
    )
    return with_tower(text, "minicpmv", tower.shape, *tower.parts, projector(tensors))


def _deepseek_text(fields: Fields, prefix: str) -> Model:
    """DeepSeek-V2 as its published code builds it where `use_mla` is false: usual attention beside its experts."""
    defaults: dict[str, object] = {
        "layers": 30,
        "hidden_size": 4096,
        "heads": 32,
        "intermediate_size": 11008,
        "vocab_size": 102400,
        "max_positions": 2048,
    }
    shape = read_shape(fields, "deepseek_v2", defaults, head_dim="(none)")
    hidden, experts = shape.hidden_size, fields.integer("n_routed_experts")
    wide, shared = fields.integer("moe_intermediate_size", 1407), fields.integer("n_shared_experts", least=0)
    attend = text_attention(shape, bias=fields.boolean("attention_bias"))
    sparse = (*attend, *shared_mixture(hidden, experts, wide, wide * shared), *norms(shape))
    dense = (*attend, *text_gated_mlp(hidden, shape.intermediate_size), *norms(shape))
    kinds = {True: Layer("full", sparse, (shape.cache(),)), False: Layer("full", dense, (shape.cache(),))}
    first, every = fields.integer("first_k_dense_replace", 0, least=0), fields.integer("moe_layer_freq", 1)
    layers = [kinds[index >= first and index % every == 0] for index in range(shape.layers)]
    active = fields.integer("num_experts_per_tok", most=experts)
    return decoder(shape, layers, ends(shape, prefix), f"{prefix}layers", experts=experts, active_experts=active)


_SO400M = {
    "layers": 27,
    "hidden_size": 1152,
    "heads": 16,
    "intermediate_size": 4304,
    "image_size": 384,
    "patch_size": 14,
}


def _deepseek_vl_v2(fields: Fields) -> Model:
    inner = _whole_dtype(fields, fields.sub("language_config"))
    if inner.boolean("use_mla", default=True):
        text = build_text(inner.changed(model_type="deepseek_v2"), "language.model.")
    else:
        text = _deepseek_text(inner, "language.model.")
    text = headed(text, "language.")
    described = fields.sub("vision_config")
    if described.text("model_name", "siglip_so400m_patch14_384") != "siglip_so400m_patch14_384":
        described.wrong("model_name", "'siglip_so400m_patch14_384'")
    # the tower is built from constants of the published code, by timm's names
    shape = read_tower(Fields({}, described.where), "siglip", _SO400M)
    hidden, wide, name = shape.hidden_size, shape.intermediate_size, "vision"
    layer = Layer(
        "encoder",
        (
            *norm("norm1", hidden, bias=True),
            *linear("attn.qkv", 3 * hidden, hidden, "outputs", bias=True),
            *linear("attn.proj", hidden, hidden, "inputs", bias=True),
            *norm("norm2", hidden, bias=True),
            *mlp(hidden, wide),
        ),
    )
    pool = f"{name}.attn_pool"
    outside = (
        Tensor(f"{name}.pos_embed", (1, shape.patches, hidden), "position"),
        *patches(shape, f"{name}.patch_embed.proj"),
        *norm(f"{name}.norm", hidden, bias=True),
        # built and published, and never asked
        Tensor(f"{pool}.latent", (1, 1, hidden), "other"),
        *linear(f"{pool}.q", hidden, hidden, bias=True),
        *linear(f"{pool}.kv", 2 * hidden, hidden, bias=True),
        *linear(f"{pool}.proj", hidden, hidden, bias=True),
        *norm(f"{pool}.norm", hidden, bias=True),
        *mlp(hidden, wide, f"{pool}.mlp.fc1", f"{pool}.mlp.fc2"),
    )
    maps = fields.sub("projector_config")
    if maps.text("projector_type", "downsample_mlp_gelu") != "downsample_mlp_gelu":
        maps.wrong("projector_type", "'downsample_mlp_gelu'")
    out = maps.integer("n_embed", 2048)
    inputs = maps.integer("input_dim", 1152) * maps.integer("downsample_ratio", 2, most=64) ** 2
    middle = out * maps.integer("mlp_ratio", 1, most=1024)
    depth = maps.integer("depth", 2, least=2, most=64)
    tensors = linear("projector.layers.0", middle, inputs, bias=True)
    for index in range(1, depth - 1):
        tensors += linear(f"projector.layers.{2 * index}", middle, middle, bias=True)
    tensors += linear(f"projector.layers.{2 * (depth - 1)}", out, middle, bias=True)
    fields.one_of("tile_tag", ("2D",), "2D")
    tensors += (Tensor("image_newline", (out,), "other"), Tensor("view_seperator", (out,), "other"))
    tower = Part("vision", outside, f"{name}.blocks", (layer,) * shape.layers)
    return _unchecked(with_tower(text, "deepseek_vl_v2", shape, tower, projector(tensors)))


_MOLMO_TOWER = VisionTower(
    "clip", layers=23, hidden_size=1024, heads=16, intermediate_size=4096, image_size=336, patch_size=14, channels=3
)
"""OpenAI's CLIP ViT-L/14 at 336 pixels without its last layer, whose output Molmo does not take."""

_MOLMO_EXTRA_TOKENS = 128
_MOLMO_TAKEN = 2


def _molmo(fields: Fields) -> Model:
    defaults: dict[str, object] = {
        "layers": 32,
        "hidden_size": 4096,
        "heads": 32,
        "intermediate_size": 22016,
        "vocab_size": 50304,
        "max_positions": 2048,
    }
    # intermediate_size counts the two halves of the gated MLP together
    shape = read_shape(fields, "molmo", defaults, head_dim="(none)")
    hidden, both = shape.hidden_size, shape.intermediate_size
    if both % 2:
        fields.wrong("intermediate_size", "an even integer")
    if fields.boolean("attention_layer_norm") or fields.text("layer_norm_type", "rms") != "rms":
        fields.wrong("layer_norm_type", "'rms' without attention_layer_norm, as Molmo-7B-D and Molmo-72B have it,")
    name = "model.transformer"
    bias = fields.boolean("qkv_bias")
    layer = Layer(
        "full",
        (
            *linear("attn_out", hidden, shape.queries, "inputs"),
            *linear("ff_out", hidden, both // 2, "inputs"),
            *(
                Tensor(
                    f"att_proj.{what}",
                    (shape.queries + 2 * shape.keys, *sizes),
                    kind,
                    "qkv",
                    query_rows=shape.queries,
                )
                for what, sizes, kind in (("weight", (hidden,), "linear"), ("bias", (), "bias"))
                if what == "weight" or bias
            ),
            *linear("ff_proj", both, hidden, "outputs"),
            *norm("attn_norm", hidden),
            *norm("ff_norm", hidden),
        ),
        (shape.cache(),),
    )
    rows = fields.integer("embedding_size", shape.vocab_size)
    tied = fields.boolean("weight_tying", shape.tied_embeddings)
    outside: tuple[Tensor, ...] = (
        Tensor(f"{name}.wte.embedding", (rows, hidden), "embedding", "vocabulary"),
        Tensor(f"{name}.wte.new_embedding", (_MOLMO_EXTRA_TOKENS, hidden), "embedding", "vocabulary"),
        *norm(f"{name}.ln_f", hidden),
        *(() if tied else embedding(f"{name}.ff_out", rows, hidden, "head")),
    )
    text = decoder(replace(shape, tied_embeddings=tied), (layer,) * shape.layers, outside, f"{name}.blocks")
    tower, sight = _MOLMO_TOWER, "model.vision_backbone"
    width = tower.hidden_size
    block = Layer(
        "encoder",
        (
            *attention(width, ("attention.wq", "attention.wk", "attention.wv"), "attention.wo"),
            *mlp(width, tower.intermediate_size, "feed_forward.w1", "feed_forward.w2"),
            *norm("attention_norm", width, bias=True),
            *norm("ffn_norm", width, bias=True),
        ),
    )
    before = (
        Tensor(f"{sight}.image_vit.class_embedding", (width,), "other"),
        Tensor(f"{sight}.image_vit.positional_embedding", (tower.patches + 1, width), "position"),
        *linear(f"{sight}.image_vit.patch_embedding", width, tower.channels * tower.patch_size**2),
        *norm(f"{sight}.image_vit.pre_ln", width, bias=True),
    )
    taken = _MOLMO_TAKEN * width
    pooling = f"{sight}.image_pooling_2d"
    tensors = (
        Tensor(f"{sight}.pad_embed", (2, taken), "other"),
        *linear(f"{pooling}.wq", width, taken, bias=True),
        *linear(f"{pooling}.wk", width, taken, bias=True),
        *linear(f"{pooling}.wv", width, taken, bias=True),
        *linear(f"{pooling}.wo", width, width, bias=True),
        *linear(f"{sight}.image_projector.w1", both // 2, width),
        *linear(f"{sight}.image_projector.w2", hidden, both // 2),
        *linear(f"{sight}.image_projector.w3", both // 2, width),
    )
    part = Part("vision", before, f"{sight}.image_vit.transformer.resblocks", (block,) * tower.layers)
    return _unchecked(with_tower(text, "molmo", tower, part, projector(tensors)))


BUILDERS = {
    "deepseek_vl_v2": _deepseek_vl_v2,
    "internlm2": _internlm2,
    "internvl_chat": _internvl_chat,
    "minicpmv": _minicpmv,
    "molmo": _molmo,
    "phi3_v": _phi3_v,
}
