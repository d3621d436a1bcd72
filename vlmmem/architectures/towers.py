"""Vision towers: a stack of encoder layers over patches, each as the shape of its config and the tensors of its class.

A tower is its `VisionTower` and its parts. Sources: modeling_clip.py, modeling_siglip.py, modeling_pixtral.py,
modeling_internvl.py, modeling_idefics3.py and modeling_kimi_k25.py under
https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/
"""

from vlmmem.architectures.blocks import embedding, linear, norm
from vlmmem.architectures.fields import Fields
from vlmmem.layers import Layer, Part, Tensor
from vlmmem.model import VisionTower
from vlmmem.record import record, replace

__all__ = [
    "TOWERS",
    "Tower",
    "attention",
    "clip",
    "filled",
    "gated_mlp",
    "internvl",
    "mlp",
    "pixtral",
    "read_tower",
    "side",
    "siglip",
    "tower_of",
]


@record(frozen=True, slots=True)
class Tower:
    """A vision tower: its shape and the parts of its tensors."""

    shape: VisionTower
    parts: tuple[Part, ...]


def filled(fields: Fields, **defaults: object) -> Fields:
    """The same fields, with `defaults` where one is missing or null."""
    return fields.changed(**{name: value for name, value in defaults.items() if name not in fields})


def side(fields: Fields, field: str, default: int) -> int:
    """One side of a square, given as an integer or as a list of two that are equal."""
    found = fields.raw(field)
    if not isinstance(found, list):
        return fields.integer(field, default, most=2**16)
    sides = fields.integers(field, least=1, length=2) or ()
    if len(set(sides)) > 1:
        fields.wrong(field, "one side of a square")
    return fields.changed(**{field: sides[0]}).integer(field, most=2**16)


def attention(
    hidden: int,
    queries: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    output: str = "self_attn.out_proj",
    *,
    bias: bool = True,
    output_bias: bool | None = None,
) -> tuple[Tensor, ...]:
    """Query, key and value matrices, each of hidden x hidden, and the output matrix."""
    found: tuple[Tensor, ...] = ()
    for name in queries:
        found += linear(name, hidden, hidden, "outputs", bias=bias)
    return (*found, *linear(output, hidden, hidden, "inputs", bias=bias if output_bias is None else output_bias))


def mlp(hidden: int, wide: int, up: str = "mlp.fc1", down: str = "mlp.fc2", *, bias: bool = True) -> tuple[Tensor, ...]:
    """Two matrices, up and down."""
    return (*linear(up, wide, hidden, "outputs", bias=bias), *linear(down, hidden, wide, "inputs", bias=bias))


def gated_mlp(hidden: int, wide: int, name: str = "mlp", *, bias: bool = False) -> tuple[Tensor, ...]:
    """Three matrices: gate, up and down."""
    return (
        *linear(f"{name}.gate_proj", wide, hidden, "outputs", bias=bias),
        *linear(f"{name}.up_proj", wide, hidden, "outputs", bias=bias),
        *linear(f"{name}.down_proj", hidden, wide, "inputs", bias=bias),
    )


def read_tower(
    fields: Fields, architecture: str, defaults: dict[str, int], activation: str = "", **names: str
) -> VisionTower:
    """The shape of a tower from a config.

    Args:
        fields: the tower's config.
        architecture: how the tower is called here.
        defaults: what the class of transformers takes for fields that are missing, by the names used here; a tower
            without `image_size` takes images of any size.
        activation: what the class takes for a missing `hidden_act`; "" where the config's is not asked for.
        names: how this family calls a field, where it is not the usual name.
    """
    usual = {
        "layers": "num_hidden_layers",
        "hidden_size": "hidden_size",
        "heads": "num_attention_heads",
        "intermediate_size": "intermediate_size",
        "image_size": "image_size",
        "patch_size": "patch_size",
        "channels": "num_channels",
    } | names
    known = {"channels": 3, "image_size": 0} | defaults
    shape = VisionTower(
        architecture=architecture,
        layers=fields.layers(usual["layers"], known.get("layers")),
        hidden_size=fields.integer(usual["hidden_size"], known.get("hidden_size")),
        heads=fields.integer(usual["heads"], known.get("heads")),
        intermediate_size=fields.integer(usual["intermediate_size"], known.get("intermediate_size")),
        image_size=side(fields, usual["image_size"], known["image_size"]),
        patch_size=side(fields, usual["patch_size"], known["patch_size"]),
        channels=fields.integer(usual["channels"], known["channels"]),
        activation=fields.text("hidden_act", activation) if activation else "",
    )
    if shape.hidden_size % shape.heads:
        fields.wrong(usual["heads"], f"a divisor of {usual['hidden_size']!r} {shape.hidden_size}")
    return shape


def clip(fields: Fields, name: str) -> Tower:
    """A CLIP vision transformer (arXiv 2103.00020)."""
    defaults = {
        "layers": 12,
        "hidden_size": 768,
        "heads": 12,
        "intermediate_size": 3072,
        "image_size": 224,
        "patch_size": 32,
    }
    shape = read_tower(fields, "clip", defaults, "quick_gelu")
    hidden = shape.hidden_size
    layer = Layer(
        "encoder",
        (
            *attention(hidden),
            *norm("layer_norm1", hidden, bias=True),
            *mlp(hidden, shape.intermediate_size),
            *norm("layer_norm2", hidden, bias=True),
        ),
    )
    patch = (hidden, shape.channels, shape.patch_size, shape.patch_size)
    outside = (
        Tensor(f"{name}.embeddings.class_embedding", (hidden,), "other"),
        Tensor(f"{name}.embeddings.patch_embedding.weight", patch, "convolution"),
        *embedding(f"{name}.embeddings.position_embedding", shape.patches + 1, hidden, "position"),
        *norm(f"{name}.pre_layrnorm", hidden, bias=True),
        *norm(f"{name}.post_layernorm", hidden, bias=True),
    )
    return Tower(shape, (Part("vision", outside, f"{name}.encoder.layers", (layer,) * shape.layers),))


def patches(shape: VisionTower, name: str) -> tuple[Tensor, ...]:
    """A convolution with a bias that makes a vector of each patch."""
    kernel = (shape.hidden_size, shape.channels, shape.patch_size, shape.patch_size)
    return (
        Tensor(f"{name}.weight", kernel, "convolution"),
        Tensor(f"{name}.bias", (shape.hidden_size,), "bias"),
    )


def siglip_head(shape: VisionTower, name: str) -> tuple[Tensor, ...]:
    """The attention pooling that SigLIP's class builds and no language model uses."""
    hidden = shape.hidden_size
    return (
        Tensor(f"{name}.probe", (1, 1, hidden), "other"),
        Tensor(f"{name}.attention.in_proj_weight", (3 * hidden, hidden)),
        Tensor(f"{name}.attention.in_proj_bias", (3 * hidden,), "bias"),
        *linear(f"{name}.attention.out_proj", hidden, hidden, bias=True),
        *norm(f"{name}.layernorm", hidden, bias=True),
        *mlp(hidden, shape.intermediate_size, f"{name}.mlp.fc1", f"{name}.mlp.fc2"),
    )


def siglip(
    fields: Fields, name: str, *, head: bool | None = None, architecture: str = "siglip", **defaults: int
) -> Tower:
    """A SigLIP vision transformer (arXiv 2303.15343); `head` None leaves it to the config, whose default is true."""
    known = {
        "layers": 12,
        "hidden_size": 768,
        "heads": 12,
        "intermediate_size": 3072,
        "image_size": 224,
        "patch_size": 16,
    } | defaults
    shape = read_tower(fields, architecture, known, "gelu_pytorch_tanh")
    hidden = shape.hidden_size
    layer = Layer(
        "encoder",
        (
            *norm("layer_norm1", hidden, bias=True),
            *attention(hidden),
            *norm("layer_norm2", hidden, bias=True),
            *mlp(hidden, shape.intermediate_size),
        ),
    )
    outside = (
        *patches(shape, f"{name}.embeddings.patch_embedding"),
        *embedding(f"{name}.embeddings.position_embedding", shape.patches, hidden, "position"),
        *norm(f"{name}.post_layernorm", hidden, bias=True),
    )
    if fields.boolean("vision_use_head", default=True) if head is None else head:
        outside += siglip_head(shape, f"{name}.head")
    return Tower(shape, (Part("vision", outside, f"{name}.encoder.layers", (layer,) * shape.layers),))


def pixtral(fields: Fields, name: str) -> Tower:
    """Pixtral's tower: rotary positions in two dimensions, images of any size (arXiv 2410.07073)."""
    defaults = {
        "layers": 24,
        "hidden_size": 1024,
        "heads": 16,
        "intermediate_size": 4096,
        "image_size": 1024,
        "patch_size": 16,
    }
    shape = read_tower(fields, "pixtral", defaults, "gelu")
    hidden = shape.hidden_size
    names = ("attention.q_proj", "attention.k_proj", "attention.v_proj")
    layer = Layer(
        "encoder",
        (
            *norm("attention_norm", hidden),
            *gated_mlp(hidden, shape.intermediate_size, "feed_forward"),
            *attention(hidden, names, "attention.o_proj", bias=False),
            *norm("ffn_norm", hidden),
        ),
    )
    kernel = (hidden, shape.channels, shape.patch_size, shape.patch_size)
    outside = (Tensor(f"{name}.patch_conv.weight", kernel, "convolution"), *norm(f"{name}.ln_pre", hidden))
    return Tower(shape, (Part("vision", outside, f"{name}.transformer.layers", (layer,) * shape.layers),))


def internvl(fields: Fields, name: str) -> Tower:
    """InternViT as transformers writes it (arXiv 2312.14238): layer scales, learned positions with a class token."""
    defaults = {
        "layers": 24,
        "hidden_size": 1024,
        "heads": 16,
        "intermediate_size": 4096,
        "image_size": 448,
        "patch_size": 14,
    }
    shape = read_tower(fields, "internvl_vision", defaults, "gelu")
    shape = replace(shape, head_norms=fields.boolean("use_qk_norm"))
    hidden = shape.hidden_size
    # RMSNorm has no bias, LayerNorm has one
    bias = fields.one_of("norm_type", ("layer_norm", "rms_norm"), "layer_norm") == "layer_norm"
    scale = (*norm("attention.q_norm", hidden), *norm("attention.k_norm", hidden))
    layer = Layer(
        "encoder",
        (
            Tensor("lambda_1", (hidden,), "other"),
            Tensor("lambda_2", (hidden,), "other"),
            *attention(
                hidden,
                ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
                "attention.projection_layer",
                bias=fields.boolean("attention_bias"),
                output_bias=True,
            ),
            *(scale if fields.boolean("use_qk_norm") else ()),
            *mlp(hidden, shape.intermediate_size),
            *norm("layernorm_before", hidden, bias=bias),
            *norm("layernorm_after", hidden, bias=bias),
        ),
    )
    outside: tuple[Tensor, ...] = (Tensor(f"{name}.embeddings.cls_token", (1, 1, hidden), "other"),)
    if fields.boolean("use_mask_token"):
        outside += (Tensor(f"{name}.embeddings.mask_token", (1, 1, hidden), "other"),)
    if fields.boolean("use_absolute_position_embeddings", default=True):
        table = (1, shape.patches + 1, hidden)
        outside += (Tensor(f"{name}.embeddings.position_embeddings", table, "position"),)
    outside += patches(shape, f"{name}.embeddings.patch_embeddings.projection")
    if not fields.boolean("use_mean_pooling", default=True):
        outside += norm(f"{name}.layernorm", hidden, bias=True)
    return Tower(shape, (Part("vision", outside, f"{name}.encoder.layer", (layer,) * shape.layers),))


TOWERS = {
    "clip_vision_model": clip,
    "siglip_vision_model": siglip,
    "pixtral": pixtral,
    "internvl_vision": internvl,
}
"""The towers that a config may choose by its model_type, where the class of the whole leaves it open."""


def tower_of(fields: Fields, name: str, default: str) -> Tower:
    """The tower that the model_type of a vision config names.

    Raises:
        InputError: a tower that is not known here, or a wrong field.
    """
    return TOWERS[fields.one_of("model_type", TOWERS, default)](fields, name)
