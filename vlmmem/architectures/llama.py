"""Decoders of Llama's skeleton: rotary positions, query, key, value and output matrices, an MLP beside or after.

Source: configuration_NAME.py and modeling_NAME.py for each NAME in `BUILDERS` under
https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/
"""

from collections.abc import Callable, Iterable, Sequence

from vlmmem.architectures.blocks import Shape, decoder, embedding, linear, norm, read_shape
from vlmmem.architectures.fields import Fields
from vlmmem.errors import InputError
from vlmmem.layers import Layer, Tensor
from vlmmem.model import Model

__all__ = [
    "BUILDERS",
    "attention",
    "ends",
    "gated_mlp",
    "layer_windows",
    "norms",
    "sized",
    "stacked",
    "window_of",
]


def sized(
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int | None,
    wide: int,
    vocabulary: int,
    positions: int,
    **more: object,
) -> dict[str, object]:
    """A class's default shape, by the names of `read_shape`; without `kv_heads`, as many as heads."""
    found: dict[str, object] = {
        "layers": layers,
        "hidden_size": hidden,
        "heads": heads,
        "intermediate_size": wide,
        "vocab_size": vocabulary,
        "max_positions": positions,
    }
    return (found if kv_heads is None else found | {"kv_heads": kv_heads}) | more


def attention(shape: Shape, *, bias: bool = False, output_bias: bool = False) -> tuple[Tensor, ...]:
    """Query, key, value and output matrices."""
    hidden = shape.hidden_size
    return (
        *linear("self_attn.q_proj", shape.queries, hidden, "outputs", bias=bias),
        *linear("self_attn.k_proj", shape.keys, hidden, "kv", bias=bias),
        *linear("self_attn.v_proj", shape.keys, hidden, "kv", bias=bias),
        *linear("self_attn.o_proj", hidden, shape.queries, "inputs", bias=output_bias),
    )


def gated_mlp(hidden: int, wide: int, *, bias: bool = False, name: str = "mlp") -> tuple[Tensor, ...]:
    """Gate, up and down matrices."""
    return (
        *linear(f"{name}.gate_proj", wide, hidden, "outputs", bias=bias),
        *linear(f"{name}.up_proj", wide, hidden, "outputs", bias=bias),
        *linear(f"{name}.down_proj", hidden, wide, "inputs", bias=bias),
    )


def norms(shape: Shape) -> tuple[Tensor, ...]:
    """The two norms of a layer."""
    return (*norm("input_layernorm", shape.hidden_size), *norm("post_attention_layernorm", shape.hidden_size))


def ends(shape: Shape, prefix: str, head: str = "lm_head") -> tuple[Tensor, ...]:
    """Embedding, last norm and, where it is not tied, the output head."""
    found = (
        *embedding(f"{prefix}embed_tokens", shape.vocab_size, shape.hidden_size),
        *norm(f"{prefix}norm", shape.hidden_size),
    )
    return found if shape.tied_embeddings else (*found, *embedding(head, shape.vocab_size, shape.hidden_size, "head"))


def stacked(
    shape: Shape,
    prefix: str,
    tensors: tuple[Tensor, ...],
    windows: Sequence[int | None] | None = None,
    outside: Iterable[Tensor] | None = None,
    stack: str = "layers",
) -> Model:
    """A decoder whose layers have the same tensors and, where `windows` says so, different windows."""
    each = [None] * shape.layers if windows is None else windows
    alike = {
        window: Layer("full" if window is None else "sliding", tensors, (shape.cache(window),)) for window in set(each)
    }
    around = ends(shape, prefix) if outside is None else outside
    return decoder(shape, [alike[window] for window in each], around, f"{prefix}{stack}")


def _uniform(shape: Shape, prefix: str, tensors: tuple[Tensor, ...], window: int | None = None) -> Model:
    return stacked(shape, prefix, tensors, [window] * shape.layers)


def _llama(fields: Fields, prefix: str = "model.") -> Model:
    # LlamaConfig's defaults: LLaVA-1.5's config leaves its text model's shape to them
    defaults = {
        "layers": 32,
        "hidden_size": 4096,
        "heads": 32,
        "intermediate_size": 11008,
        "vocab_size": 32000,
        "max_positions": 2048,
    }
    shape = read_shape(fields, "llama", defaults)
    bias = fields.boolean("attention_bias")
    mlp = gated_mlp(shape.hidden_size, shape.intermediate_size, bias=fields.boolean("mlp_bias"))
    return _uniform(shape, prefix, (*attention(shape, bias=bias, output_bias=bias), *mlp, *norms(shape)))


def window_of(fields: Fields, default: int | None = None) -> int | None:
    """The sliding window; missing takes the class's default, null, 0 and -1 mean none."""
    if not fields.has("sliding_window"):
        return default
    found = fields.raw("sliding_window")
    return None if found in (None, 0, -1) else fields.integer("sliding_window")


def _mistral(fields: Fields, prefix: str = "model.") -> Model:
    defaults = {
        "layers": 32,
        "hidden_size": 4096,
        "heads": 32,
        "kv_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 32000,
        "max_positions": 4096 * 32,
    }
    shape = read_shape(fields, "mistral", defaults)
    mlp = gated_mlp(shape.hidden_size, shape.intermediate_size)
    windows = layer_windows(fields, shape.layers, window_of(fields, 4096), lambda _: True)
    return stacked(shape, prefix, (*attention(shape), *mlp, *norms(shape)), windows)


def layer_windows(fields: Fields, layers: int, window: int | None, slides: Callable[[int], bool]) -> list[int | None]:
    """The window of each layer: as `layer_types` says or, where it is missing, as the class derives it.

    Args:
        fields: the text model's config.
        layers: how many there are.
        window: tokens that a sliding layer attends to, or None.
        slides: whether the layer of an index slides where the config does not say.

    Raises:
        InputError: `layer_types` is not a list of `layers` known types.

    >>> layer_windows(Fields({}, "config"), 4, 128, lambda index: index % 2 == 0)
    [128, None, 128, None]
    """
    types = fields.texts("layer_types", length=layers)
    if types is None:
        return [window if slides(index) else None for index in range(layers)]
    if not set(types) <= {"full_attention", "sliding_attention"}:
        unknown = min(set(types) - {"full_attention", "sliding_attention"})
        raise InputError(
            f"{fields.where}: 'layer_types' names {unknown[:40]!r}; full_attention or sliding_attention is needed"
        )
    return [window if kind == "sliding_attention" else None for kind in types]


def _qwen_windows(fields: Fields, layers: int) -> list[int | None]:
    """Qwen2 and Qwen3: no window unless `use_sliding_window`, then from layer `max_window_layers` on."""
    if not fields.boolean("use_sliding_window"):
        return [None] * layers
    first = fields.integer("max_window_layers", 28, least=0)
    return layer_windows(fields, layers, window_of(fields, 4096), lambda index: index >= first)


def _qwen(fields: Fields, prefix: str, kind: str) -> Model:
    defaults: dict[str, object] = {
        "layers": 32,
        "hidden_size": 4096,
        "heads": 32,
        "kv_heads": 32,
        "intermediate_size": 22016,
        "vocab_size": 151936,
        "max_positions": 32768,
    }
    if kind == "qwen3":
        defaults["head_dim"] = 128
    shape = read_shape(fields, kind, defaults)
    tensors = (*gated_mlp(shape.hidden_size, shape.intermediate_size), *norms(shape))
    if kind == "qwen2":
        tensors = (*attention(shape, bias=True), *tensors)
    else:
        bias = fields.boolean("attention_bias")
        per_head = (*norm("self_attn.q_norm", shape.head_dim), *norm("self_attn.k_norm", shape.head_dim))
        tensors = (*attention(shape, bias=bias, output_bias=bias), *per_head, *tensors)
    return stacked(shape, prefix, tensors, _qwen_windows(fields, shape.layers))


def _qwen2(fields: Fields, prefix: str = "model.") -> Model:
    return _qwen(fields, prefix, "qwen2")


def _qwen3(fields: Fields, prefix: str = "model.") -> Model:
    return _qwen(fields, prefix, "qwen3")


def _phi(fields: Fields, prefix: str = "model.") -> Model:
    defaults = {
        "layers": 24,
        "hidden_size": 2048,
        "heads": 32,
        "intermediate_size": 8192,
        "vocab_size": 51200,
        "max_positions": 2048,
        "activation": "gelu_new",
    }
    shape = read_shape(fields, "phi", defaults)
    hidden, wide = shape.hidden_size, shape.intermediate_size
    tensors = (
        *linear("self_attn.q_proj", shape.queries, hidden, "outputs", bias=True),
        *linear("self_attn.k_proj", shape.keys, hidden, "kv", bias=True),
        *linear("self_attn.v_proj", shape.keys, hidden, "kv", bias=True),
        *linear("self_attn.dense", hidden, shape.queries, "inputs", bias=True),
        *linear("mlp.fc1", wide, hidden, "outputs", bias=True),
        *linear("mlp.fc2", hidden, wide, "inputs", bias=True),
        # attention and MLP run side by side on one normalised input
        *norm("input_layernorm", hidden, bias=True),
    )
    if fields.boolean("qk_layernorm"):
        tensors += (*norm("self_attn.q_layernorm", shape.head_dim, bias=True),)
        tensors += (*norm("self_attn.k_layernorm", shape.head_dim, bias=True),)
    outside = (
        *embedding(f"{prefix}embed_tokens", shape.vocab_size, hidden),
        *norm(f"{prefix}final_layernorm", hidden, bias=True),
        *(() if shape.tied_embeddings else embedding("lm_head", shape.vocab_size, hidden, "head")),
        Tensor("lm_head.bias", (shape.vocab_size,), "bias", "vocabulary"),
    )
    layer = Layer("full", tensors, (shape.cache(),))
    return decoder(shape, (layer,) * shape.layers, outside, f"{prefix}layers")


def _plain(fields: Fields, prefix: str, kind: str, defaults: dict[str, object]) -> Model:
    """Llama's layers under another name: `attention_bias` is of all four matrices, `mlp_bias` of all three."""
    shape = read_shape(fields, kind, defaults)
    bias = fields.boolean("attention_bias")
    mlp = gated_mlp(shape.hidden_size, shape.intermediate_size, bias=fields.boolean("mlp_bias"))
    return stacked(shape, prefix, (*attention(shape, bias=bias, output_bias=bias), *mlp, *norms(shape)))


def _granite(fields: Fields, prefix: str = "model.") -> Model:
    return _plain(fields, prefix, "granite", sized(32, 4096, 32, None, 11008, 32000, 2048))


def _internlm3(fields: Fields, prefix: str = "model.") -> Model:
    # published configs call the biases otherwise; InternLM3Config's attribute_map renames them
    bias = fields.boolean(fields.first("attention_bias", "qkv_bias"))
    named = fields.changed(attention_bias=bias, mlp_bias=fields.boolean(fields.first("mlp_bias", "bias")))
    return _plain(named, prefix, "internlm3", sized(48, 4096, 32, 2, 10240, 128512, 32768, head_dim=128))


def _iquestcoder(fields: Fields, prefix: str = "model.") -> Model:
    return _plain(fields, prefix, "iquestcoder", sized(80, 5120, 40, 8, 27648, 76800, 131072, head_dim=128))


def _smollm3(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "smollm3", sized(36, 2048, 16, 4, 11008, 128256, 32768, tied_embeddings=True))
    bias = fields.boolean("attention_bias")
    mlp = gated_mlp(shape.hidden_size, shape.intermediate_size, bias=fields.boolean("mlp_bias"))
    window = window_of(fields) if fields.boolean("use_sliding_window") else None
    period = fields.integer("no_rope_layer_interval", 4)
    rotated = fields.integers("no_rope_layers", length=shape.layers)

    def slides(index: int) -> bool:
        # layers without rotary positions are those that slide
        return not rotated[index] if rotated is not None else (index + 1) % period == 0

    windows = layer_windows(fields, shape.layers, window, slides)
    return stacked(shape, prefix, (*attention(shape, bias=bias, output_bias=bias), *mlp, *norms(shape)), windows)


def _ministral3(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "ministral3", sized(34, 4096, 32, 8, 14336, 131072, 262144, head_dim=128))
    mlp = gated_mlp(shape.hidden_size, shape.intermediate_size)
    return _uniform(shape, prefix, (*attention(shape), *mlp, *norms(shape)), window_of(fields))


def _ministral(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "ministral", sized(32, 4096, 32, 8, 14336, 32000, 4096 * 32))
    mlp = gated_mlp(shape.hidden_size, shape.intermediate_size)
    windows = layer_windows(fields, shape.layers, window_of(fields, 4096), lambda _: True)
    return stacked(shape, prefix, (*attention(shape), *mlp, *norms(shape)), windows)


def _cwm(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "cwm", sized(64, 6144, 48, 8, 21504, 128256, 131072, head_dim=128))
    mlp = gated_mlp(shape.hidden_size, shape.intermediate_size, bias=fields.boolean("mlp_bias"))
    windows = layer_windows(fields, shape.layers, window_of(fields, 8192), lambda index: index % 4 != 0)
    return stacked(shape, prefix, (*attention(shape), *mlp, *norms(shape)), windows)


def _granite_swa(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "granite_swa", sized(24, 2560, 20, 4, 8192, 100352, 8192, tied_embeddings=True))
    bias = fields.boolean("attention_bias")
    mlp = gated_mlp(shape.hidden_size, shape.intermediate_size, bias=fields.boolean("mlp_bias"))
    sinks = (Tensor("self_attn.sinks", (shape.heads,), "other", "outputs"),)
    tensors = (*sinks, *attention(shape, bias=bias, output_bias=bias), *mlp, *norms(shape))
    windows = layer_windows(fields, shape.layers, window_of(fields, 128), lambda index: index % 4 != 0)
    return stacked(shape, prefix, tensors, windows)


def _helium(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "helium", sized(24, 2560, 20, 20, 7040, 48000, 4096, head_dim=128))
    hidden = shape.hidden_size
    *own, _ = attention(shape, bias=fields.boolean("attention_bias"))
    # as wide as the hidden size, whatever the heads
    tensors = (*own, *linear("self_attn.o_proj", hidden, hidden, "inputs"))
    mlp = gated_mlp(hidden, shape.intermediate_size, bias=fields.boolean("mlp_bias"))
    return stacked(shape, prefix, (*tensors, *mlp, *norms(shape)))


def _seed_oss(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "seed_oss", sized(64, 4096, 80, 8, 27648, 155136, 524288, head_dim=128))
    own = attention(
        shape,
        bias=fields.boolean("attention_bias", default=True),
        output_bias=fields.boolean("attention_out_bias"),
    )
    mlp = gated_mlp(shape.hidden_size, shape.intermediate_size, bias=fields.boolean("mlp_bias"))
    return stacked(shape, prefix, (*own, *mlp, *norms(shape)))


def _ernie(fields: Fields, prefix: str = "model.") -> Model:
    defaults = sized(18, 1024, 16, 2, 3072, 103424, 131072, head_dim=128, tied_embeddings=True)
    shape = read_shape(fields, "ernie4_5", defaults)
    bias = fields.boolean("use_bias")
    mlp = gated_mlp(shape.hidden_size, shape.intermediate_size, bias=bias)
    return stacked(shape, prefix, (*attention(shape, bias=bias, output_bias=bias), *mlp, *norms(shape)))


def _hyperclovax(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "hyperclovax", sized(32, 4096, 32, None, 11008, 32000, 2048))
    bias = fields.boolean("attention_bias")
    mlp = gated_mlp(shape.hidden_size, shape.intermediate_size, bias=fields.boolean("mlp_bias"))
    tensors = (*attention(shape, bias=bias, output_bias=bias), *mlp, *norms(shape))
    if fields.boolean("use_post_norm", default=True):
        tensors += (*norm("post_norm1", shape.hidden_size), *norm("post_norm2", shape.hidden_size))
    return stacked(shape, prefix, tensors)


def _hunyuan(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "hunyuan_v1_dense", sized(32, 4096, 32, None, 11008, 290943, 2048))
    bias = fields.boolean("attention_bias")
    per_head = (*norm("self_attn.query_layernorm", shape.head_dim), *norm("self_attn.key_layernorm", shape.head_dim))
    mlp = gated_mlp(shape.hidden_size, shape.intermediate_size)
    return stacked(shape, prefix, (*attention(shape, bias=bias, output_bias=bias), *per_head, *mlp, *norms(shape)))


def _bitnet(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "bitnet", sized(30, 2560, 20, 5, 6912, 128256, 2048))
    bias = fields.boolean("attention_bias")
    inside = (*norm("self_attn.attn_sub_norm", shape.hidden_size), *norm("mlp.ffn_sub_norm", shape.intermediate_size))
    mlp = gated_mlp(shape.hidden_size, shape.intermediate_size)
    return stacked(shape, prefix, (*attention(shape, bias=bias, output_bias=bias), *inside, *mlp, *norms(shape)))


BUILDERS = {
    "bitnet": _bitnet,
    "cwm": _cwm,
    "ernie4_5": _ernie,
    "granite": _granite,
    "granite_swa": _granite_swa,
    "helium": _helium,
    "hunyuan_v1_dense": _hunyuan,
    "hyperclovax": _hyperclovax,
    "internlm3": _internlm3,
    "iquestcoder": _iquestcoder,
    "llama": _llama,
    "ministral": _ministral,
    "ministral3": _ministral3,
    "mistral": _mistral,
    "phi": _phi,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "seed_oss": _seed_oss,
    "smollm3": _smollm3,
}
