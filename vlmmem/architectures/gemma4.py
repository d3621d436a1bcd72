"""Gemma 3n and Gemma 4: layers that slide and layers that do not, an embedding for every layer, caches that are shared.

The last layers read the keys and values of an earlier layer of their kind and keep none. Gemma 4's full layers have
heads of another width than its sliding ones; they may be without a value matrix, and cache values all the same.

Source: configuration_NAME.py and modeling_NAME.py for gemma3n and gemma4 under
https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/
"""

from vlmmem.architectures.blocks import Shape, decoder, embedding, linear, norm, read_shape
from vlmmem.architectures.experts import each_alike, mixture, router
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.llama import ends, gated_mlp, layer_windows, sized
from vlmmem.errors import InputError
from vlmmem.layers import KeyValueCache, Layer, Tensor
from vlmmem.model import Model
from vlmmem.record import record

__all__ = ["BUILDERS"]


@record(frozen=True, slots=True)
class _Kind:
    """What sets a layer apart from others; one that shares a cache has no window of its own."""

    window: int | None
    shared: bool
    kv_heads: int
    head_dim: int
    wide: int


def _shared(fields: Fields, windows: list[int | None], default: int) -> list[bool]:
    """Which layers read the cache of an earlier one: the last `num_kv_shared_layers`."""
    layers = len(windows)
    count = fields.integer("num_kv_shared_layers", default, least=0, most=layers)
    first = layers - count
    if count and {window is None for window in windows} != {window is None for window in windows[:first]}:
        raise InputError(
            f"{fields.where}: 'num_kv_shared_layers' is {count}; a layer of each kind that has a cache is needed "
            f"before the last {count} of {layers} layers"
        )
    return [index >= first for index in range(layers)]


def _attention(shape: Shape, kind: _Kind, *, bias: bool, values: bool = True) -> tuple[Tensor, ...]:
    hidden, queries, keys = shape.hidden_size, shape.heads * kind.head_dim, kind.kv_heads * kind.head_dim
    own: tuple[Tensor, ...] = ()
    if not kind.shared:
        own = (
            *norm("self_attn.k_norm", kind.head_dim),
            *linear("self_attn.k_proj", keys, hidden, "kv", bias=bias),
            *(linear("self_attn.v_proj", keys, hidden, "kv", bias=bias) if values else ()),
        )
    return (
        *linear("self_attn.q_proj", queries, hidden, "outputs", bias=bias),
        *norm("self_attn.q_norm", kind.head_dim),
        *own,
        *linear("self_attn.o_proj", hidden, queries, "inputs", bias=bias),
    )


def _layer(kind: _Kind, tensors: tuple[Tensor, ...]) -> Layer:
    if kind.shared:
        return Layer("shared", tensors)
    cache = KeyValueCache(kind.kv_heads, kind.head_dim, kind.head_dim, kind.window)
    return Layer("full" if kind.window is None else "sliding", tensors, (cache,))


def _norms(hidden: int) -> tuple[Tensor, ...]:
    names = (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    )
    return tuple(tensor for name in names for tensor in norm(name, hidden))


def _each_input(hidden: int, width: int) -> tuple[Tensor, ...]:
    """How a layer takes in its own embedding of the token."""
    return (
        *linear("per_layer_input_gate", width, hidden),
        *linear("per_layer_projection", hidden, width),
        *norm("post_per_layer_input_norm", hidden),
    )


def _tables(fields: Fields, shape: Shape, prefix: str, width: int) -> tuple[Tensor, ...]:
    """The embeddings of all layers in one table, and what projects the usual embedding beside them."""
    rows = fields.integer("vocab_size_per_layer_input", 262144)
    every = shape.layers * width
    return (
        *embedding(f"{prefix}embed_tokens_per_layer", rows, every),
        *linear(f"{prefix}per_layer_model_projection", every, shape.hidden_size, "outputs"),
        *norm(f"{prefix}per_layer_projection_norm", width),
    )


def _overrides(fields: Fields, windows: list[int | None], shape: Shape) -> list[tuple[int, int]]:
    """KV heads and head width of each layer."""
    usual = (shape.kv_heads, shape.head_dim)
    if "per_layer_config" in fields:
        each = fields.sub("per_layer_config")
        found = [usual] * len(windows)
        for name in each:
            if not name.isascii() or not name.isdigit() or len(name) > 4 or int(name) >= len(windows):
                raise InputError(f"{each.where}: {name[:40]!r} is no layer; a number below {len(windows)} is needed")
            own = each.sub(name)
            found[int(name)] = (own.integer("num_key_value_heads", usual[0]), own.integer("head_dim", usual[1]))
        return found
    heads = shape.kv_heads
    if fields.boolean("attention_k_eq_v"):
        heads = fields.integer("num_global_key_value_heads", heads)
    wide = (heads, fields.integer("global_head_dim", 512))
    return [wide if window is None else usual for window in windows]


def _gemma4(fields: Fields, prefix: str = "model.") -> Model:
    defaults = sized(
        30, 2304, 8, 4, 9216, 262144, 131072, head_dim=256, tied_embeddings=True, activation="gelu_pytorch_tanh"
    )
    shape = read_shape(fields, "gemma4_text", defaults, activation="hidden_activation")
    hidden = shape.hidden_size
    window = fields.integer("sliding_window", 512)
    if fields.raw("use_bidirectional_attention") == "all":
        window = window // 2 + 1
    windows = layer_windows(fields, shape.layers, window, lambda index: (index + 1) % 6 != 0)
    windows[-1] = None  # the class makes the last layer a full one
    same = fields.boolean("attention_k_eq_v")
    bias = fields.boolean("attention_bias")
    doubled = fields.boolean("use_double_wide_mlp")
    width = fields.integer("hidden_size_per_layer_input", 256, least=0)
    experts = active = 0
    mixed: tuple[Tensor, ...] = ()
    if fields.boolean("enable_moe_block"):
        experts = fields.integer("num_experts")
        active = fields.integer("top_k_experts", most=experts)
        mixed = (
            *router("router.proj", experts, hidden),
            Tensor("router.scale", (hidden,), "router"),
            Tensor("router.per_expert_scale", (experts,), "router"),
            *mixture("experts", experts, hidden, fields.integer("moe_intermediate_size")),
            *norm("post_feedforward_layernorm_1", hidden),
            *norm("post_feedforward_layernorm_2", hidden),
            *norm("pre_feedforward_layernorm_2", hidden),
        )

    def make(kind: _Kind) -> Layer:
        attend = _attention(shape, kind, bias=bias, values=not same or kind.window is not None)
        own = _each_input(hidden, width) if width else ()
        return _layer(kind, (*attend, *gated_mlp(hidden, kind.wide), *_norms(hidden), *own, *mixed))

    each = zip(windows, _shared(fields, windows, 0), _overrides(fields, windows, shape), strict=True)
    wide = shape.intermediate_size
    kinds = [
        _Kind(None if shared else limit, shared, heads, head_dim, 2 * wide if shared and doubled else wide)
        for limit, shared, (heads, head_dim) in each
    ]
    outside = (*ends(shape, prefix), *(_tables(fields, shape, prefix, width) if width else ()))
    return decoder(shape, each_alike(kinds, make), outside, f"{prefix}layers", experts=experts, active_experts=active)


def _gemma3n(fields: Fields, prefix: str = "model.") -> Model:
    defaults = sized(
        35, 2048, 8, 2, 16384, 262400, 32768, head_dim=256, tied_embeddings=True, activation="gelu_pytorch_tanh"
    )
    widths = (
        fields.integers("intermediate_size", least=1) if isinstance(fields.raw("intermediate_size"), list) else None
    )
    if widths is not None:
        if not widths:
            fields.wrong("intermediate_size", "a positive integer, or one for each layer")
        fields = fields.changed(intermediate_size=max(widths))
    shape = read_shape(fields, "gemma3n_text", defaults, activation="hidden_activation")
    if widths is not None and len(widths) != shape.layers:
        raise InputError(
            f"{fields.where}: 'intermediate_size' has {len(widths)} items; one for each of the {shape.layers} layers "
            "is needed"
        )
    hidden = shape.hidden_size
    windows = layer_windows(
        fields, shape.layers, fields.integer("sliding_window", 512), lambda index: (index + 1) % 5 != 0
    )
    bias = fields.boolean("attention_bias")
    width = fields.integer("hidden_size_per_layer_input", 256)
    rank, streams = fields.integer("laurel_rank", 64), fields.integer("altup_num_inputs", 4, most=64)
    # alternating updates (arXiv 2301.13310) and a learned residual of low rank (arXiv 2411.07501)
    around = (
        Tensor("altup.correct_output_scale", (hidden,), "other"),
        *linear("altup.correction_coefs", streams, streams, kind="router"),
        *linear("altup.prediction_coefs", streams**2, streams, kind="router"),
        *router("altup.modality_router", streams, hidden),
        *norm("altup.router_norm", hidden),
        *linear("laurel.linear_left", rank, hidden, "outputs"),
        *linear("laurel.linear_right", hidden, rank, "inputs"),
        *norm("laurel.post_laurel_norm", hidden),
    )

    def make(kind: _Kind) -> Layer:
        attend = _attention(shape, kind, bias=bias)
        return _layer(
            kind, (*attend, *gated_mlp(hidden, kind.wide), *_norms(hidden), *around, *_each_input(hidden, width))
        )

    each = zip(windows, _shared(fields, windows, 15), widths or [shape.intermediate_size] * shape.layers, strict=True)
    kinds = [
        _Kind(None if shared else limit, shared, shape.kv_heads, shape.head_dim, wide) for limit, shared, wide in each
    ]
    streams_in_out = tuple(
        tensor
        for name in ("altup_projections", "altup_unembed_projections")
        for index in range(streams - 1)
        for tensor in linear(f"{prefix}{name}.{index}", hidden, hidden, "outputs")
    )
    outside = (*ends(shape, prefix), *_tables(fields, shape, prefix, width), *streams_in_out)
    return decoder(shape, each_alike(kinds, make), outside, f"{prefix}layers")


BUILDERS = {"gemma3n_text": _gemma3n, "gemma4_text": _gemma4}
