"""Decoders that mix linear attention with attention: Qwen3-Next, Qwen3.5, OLMo Hybrid, Kimi Linear, MiniMax-Text-01.

A layer of linear attention keeps a matrix a head of each sequence, however long that is, in float32 (gated delta
rule, arXiv 2412.06464; lightning attention, arXiv 2401.04658: in the model's dtype), and the last inputs of its
convolution. transformers keeps as many of those as the kernel is wide; engines keep one less, since the newest comes
with the token itself.

Source: configuration_NAME.py and modeling_NAME.py, NAME a model_type below without "_text", under
https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/
"""

from collections.abc import Sequence

from vlmmem.architectures.blocks import Shape, decoder, linear, norm, read_shape
from vlmmem.architectures.experts import (
    each_alike,
    mixture,
    next_token_layer,
    qwen_mixture,
    router,
    shared_mixture,
    sparse_layers,
)
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.latent import Ranks, latent_attention, sparse_by_type
from vlmmem.architectures.llama import attention, ends, gated_mlp, norms, sized
from vlmmem.errors import InputError
from vlmmem.layers import LatentCache, Layer, StateCache, Tensor
from vlmmem.model import Model

__all__ = ["BUILDERS", "convolution", "linear_by_type", "vector"]


def vector(name: str, shape: Sequence[int], cut: str = "outputs") -> Tensor:
    """A vector or table of a recurrence: one row a head or a channel, cut with them, never quantised."""
    return Tensor(name, tuple(shape), "other", cut)


def convolution(name: str, channels: int, kernel: int, *, bias: bool = False) -> tuple[Tensor, ...]:
    """A causal convolution along the sequence, each channel by itself."""
    weight = Tensor(f"{name}.weight", (channels, 1, kernel), "convolution", "outputs")
    return (weight, Tensor(f"{name}.bias", (channels,), "bias", "outputs")) if bias else (weight,)


def linear_by_type(
    fields: Fields, layers: int, default: Sequence[bool], field: str = "layer_types", names: Sequence[str] = ()
) -> list[bool]:
    """Which layers are linear, as `field` says or else as `default` does; `names` are older words for linear ones."""
    types = fields.texts(field, length=layers)
    if types is None:
        return list(default)
    known = {"linear_attention": True, "full_attention": False, "attention": False} | dict.fromkeys(names, True)
    if not set(types) <= set(known):
        fields.wrong(field, "a list of linear_attention and full_attention")
    return [known[kind] for kind in types]


def _every(fields: Fields, layers: int) -> list[bool]:
    """All but every fourth layer, or every `full_attention_interval`-th, are linear."""
    step = fields.integer("full_attention_interval", 4)
    return linear_by_type(fields, layers, [(index + 1) % step != 0 for index in range(layers)])


def _states(keys: int, key_dim: int, values: int, value_dim: int, kernel: int) -> tuple[StateCache, StateCache]:
    """What a layer of the gated delta rule keeps: the convolution's inputs and a matrix a value head."""
    channels = 2 * keys * key_dim + values * value_dim
    return (
        StateCache(channels * kernel, "", keys, "convolution", kernel),
        StateCache(values * key_dim * value_dim, "fp32", values),
    )


def _delta_shape(fields: Fields, usual: tuple[int, int, int, int]) -> tuple[int, int, int, int, int]:
    """Key heads and their width, value heads and theirs, and the convolution's kernel."""
    keys = fields.integer("linear_num_key_heads", usual[0])
    key_dim = fields.integer("linear_key_head_dim", usual[1])
    values = fields.integer("linear_num_value_heads", usual[2])
    value_dim = fields.integer("linear_value_head_dim", usual[3])
    if values % keys:
        raise InputError(
            f"{fields.where}: {values} value heads ('linear_num_value_heads') cannot share {keys} key heads "
            "('linear_num_key_heads') evenly; a multiple of the key heads is needed"
        )
    return keys, key_dim, values, value_dim, fields.integer("linear_conv_kernel_dim", 4)


def _delta(fields: Fields, hidden: int, *, fused: bool) -> tuple[tuple[Tensor, ...], tuple[StateCache, ...]]:
    """Qwen's layer of the gated delta rule; `fused`: query, key, value and gate come out of one matrix."""
    keys, key_dim, values, value_dim, kernel = _delta_shape(fields, (16, 128, 32, 128))
    wide = values * value_dim
    channels = 2 * keys * key_dim + wide
    name = "linear_attn"
    if fused:
        inward = (
            *linear(f"{name}.in_proj_qkvz", channels + wide, hidden, "outputs"),
            *linear(f"{name}.in_proj_ba", 2 * values, hidden, "outputs"),
        )
    else:
        inward = (
            *linear(f"{name}.in_proj_qkv", channels, hidden, "outputs"),
            *linear(f"{name}.in_proj_z", wide, hidden, "outputs"),
            *linear(f"{name}.in_proj_b", values, hidden, "outputs"),
            *linear(f"{name}.in_proj_a", values, hidden, "outputs"),
        )
    tensors = (
        vector(f"{name}.dt_bias", (values,)),
        vector(f"{name}.A_log", (values,)),
        *convolution(f"{name}.conv1d", channels, kernel),
        *inward,
        *norm(f"{name}.norm", value_dim),
        *linear(f"{name}.out_proj", hidden, wide, "inputs"),
    )
    return tensors, _states(keys, key_dim, values, value_dim, kernel)


def _gated_attention(fields: Fields, shape: Shape) -> tuple[Tensor, ...]:
    """Attention whose output is gated: the query matrix has a second half for the gate."""
    bias = fields.boolean("attention_bias")
    hidden = shape.hidden_size
    return (
        *linear("self_attn.q_proj", 2 * shape.queries, hidden, "outputs", bias=bias),
        *linear("self_attn.k_proj", shape.keys, hidden, "kv", bias=bias),
        *linear("self_attn.v_proj", shape.keys, hidden, "kv", bias=bias),
        *linear("self_attn.o_proj", hidden, shape.queries, "inputs", bias=bias),
        *norm("self_attn.q_norm", shape.head_dim),
        *norm("self_attn.k_norm", shape.head_dim),
    )


def _qwen(
    fields: Fields, prefix: str, kind: str, defaults: dict[str, object], experts: tuple[int, int, int] | None, mtp: str
) -> Model:
    """Qwen3-Next and Qwen3.5; `experts` are the defaults of experts, their width and how many a token meets."""
    moe = kind != "qwen3_5_text"
    if "intermediate_size" not in fields and kind == "qwen3_5_moe_text":
        # the class has experts in every layer, and no width for another MLP
        fields = fields.changed(intermediate_size=fields.integer("moe_intermediate_size", 512))
    shape = read_shape(fields, kind, defaults)
    hidden = shape.hidden_size
    count, wide, active = experts or (0, 0, 0)
    found = fields.integer("num_experts", count) if moe else 0
    is_linear = _every(fields, shape.layers)
    sparse = [moe] * shape.layers if kind != "qwen3_next" else sparse_layers(fields, shape.layers)
    delta, states = _delta(fields, hidden, fused=kind == "qwen3_next")
    attend = _gated_attention(fields, shape)

    def make(key: tuple[bool, bool]) -> Layer:
        has_state, has_experts = key
        if has_experts:
            mlp = qwen_mixture(fields, hidden, found, wide, wide)
        else:
            mlp = gated_mlp(hidden, shape.intermediate_size)
        if has_state:
            return Layer("linear", (*delta, *mlp, *norms(shape)), states)
        return Layer("full", (*attend, *mlp, *norms(shape)), (shape.cache(),))

    return decoder(
        shape,
        each_alike(zip(is_linear, sparse, strict=True), make),
        ends(shape, prefix),
        f"{prefix}layers",
        experts=found,
        active_experts=fields.integer("num_experts_per_tok", active, most=found) if moe else 0,
        # a layer with attention; embedding and head are those of the model
        # Qwen3-Next's checkpoints hold one such layer, and their configs do not say so
        mtp_parameters=next_token_layer(
            fields, make((False, moe)), hidden, field=mtp, default=int(kind == "qwen3_next")
        ),
    )


def _qwen3_next(fields: Fields, prefix: str = "model.") -> Model:
    defaults = sized(48, 2048, 16, 2, 5632, 151936, 32768, head_dim=256)
    return _qwen(fields, prefix, "qwen3_next", defaults, (512, 512, 10), "num_nextn_predict_layers")


def _qwen3_5(fields: Fields, prefix: str = "model.") -> Model:
    defaults = sized(32, 4096, 16, 4, 12288, 248320, 32768, head_dim=256)
    return _qwen(fields, prefix, "qwen3_5_text", defaults, None, "mtp_num_hidden_layers")


def _qwen3_5_moe(fields: Fields, prefix: str = "model.") -> Model:
    defaults = sized(40, 2048, 16, 2, 512, 248320, 32768, head_dim=256)
    return _qwen(fields, prefix, "qwen3_5_moe_text", defaults, (256, 512, 8), "mtp_num_hidden_layers")


def _olmo_hybrid(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "olmo_hybrid", sized(32, 3840, 30, None, 11008, 100352, 65536))
    hidden, heads = shape.hidden_size, shape.heads
    keys = fields.integer("linear_num_key_heads", heads)
    # the class takes three quarters of a head of attention for a key, and twice that for a value
    key_dim = fields.integer("linear_key_head_dim", int(0.75 * hidden / keys))
    given = fields.changed(linear_num_key_heads=keys, linear_key_head_dim=key_dim)
    keys, key_dim, values, value_dim, kernel = _delta_shape(given, (keys, key_dim, heads, 2 * key_dim))
    every = [index % 4 != 3 for index in range(shape.layers)]
    if all(every):
        every[-1] = False
    is_linear = linear_by_type(fields, shape.layers, every)
    if all(is_linear) or not any(is_linear):
        raise InputError(
            f"{fields.where}: 'layer_types' names layers of one kind; linear_attention and full_attention are needed"
        )
    bias = fields.boolean("attention_bias")
    mlp = gated_mlp(hidden, shape.intermediate_size)
    channels = 2 * keys * key_dim + values * value_dim
    name = "linear_attn"
    delta = (
        *linear(f"{name}.q_proj", keys * key_dim, hidden, "outputs"),
        *linear(f"{name}.k_proj", keys * key_dim, hidden, "outputs"),
        *linear(f"{name}.v_proj", values * value_dim, hidden, "outputs"),
        *linear(f"{name}.a_proj", values, hidden, "outputs"),
        *linear(f"{name}.b_proj", values, hidden, "outputs"),
        *linear(f"{name}.g_proj", values * value_dim, hidden, "outputs"),
        *linear(f"{name}.o_proj", hidden, values * value_dim, "inputs"),
        *convolution(f"{name}.conv1d", channels, kernel),
        vector(f"{name}.A_log", (values,)),
        vector(f"{name}.dt_bias", (values,)),
        *norm(f"{name}.o_norm", value_dim),
    )
    attend = (
        *attention(shape, bias=bias, output_bias=bias),
        *norm("self_attn.q_norm", shape.queries),
        *norm("self_attn.k_norm", shape.keys),
    )
    # linear layers take their norms before, the others after
    after = (*norm("post_attention_layernorm", hidden), *norm("post_feedforward_layernorm", hidden))

    def make(has_state: bool) -> Layer:
        if has_state:
            return Layer("linear", (*delta, *mlp, *norms(shape)), _states(keys, key_dim, values, value_dim, kernel))
        return Layer("full", (*attend, *mlp, *after), (shape.cache(),))

    return decoder(shape, each_alike(is_linear, make), ends(shape, prefix), f"{prefix}layers")


def _kimi_types(fields: Fields, described: Fields, layers: int) -> list[bool]:
    full, states = described.integers("full_attn_layers", least=1), described.integers("kda_layers", least=1)
    if "layer_types" in fields or full is None or states is None:
        return linear_by_type(fields, layers, [not (index and index % 4 == 0) for index in range(layers)])
    if sorted((*full, *states)) != list(range(1, layers + 1)):
        raise InputError(
            f"{fields.where}: 'linear_attn_config' names {len(full) + len(states)} layers; each of the {layers} once, "
            "counted from 1, is needed"
        )
    linear_ones = set(states)
    return [index + 1 in linear_ones for index in range(layers)]


def _kimi_linear(fields: Fields, prefix: str = "model.") -> Model:
    ranks = Ranks(512, None, 128, 64, 128)
    defaults = sized(27, 2304, 32, 32, 9216, 163840, 1048576, head_dim=ranks.rope)
    positions = fields.first("model_max_length", "max_position_embeddings")
    shape = read_shape(fields, "kimi_linear", defaults, max_positions=positions, head_dim="qk_rope_head_dim")
    hidden = shape.hidden_size
    described = fields.sub("linear_attn_config")
    width = described.integer("head_dim", fields.integer("linear_head_dim", 128))
    heads = described.integer("num_heads", fields.integer("linear_num_heads", 32))
    kernel = described.integer("short_conv_kernel_size", fields.integer("linear_conv_kernel_dim", 4))
    rows = heads * width
    # Kimi delta attention (arXiv 2510.26692): the state decays by channel
    delta = (
        *linear("self_attn.q_proj", rows, hidden, "outputs"),
        *linear("self_attn.k_proj", rows, hidden, "outputs"),
        *linear("self_attn.v_proj", rows, hidden, "outputs"),
        *convolution("self_attn.conv1d", 3 * rows, kernel),
        vector("self_attn.forget_gate.dt_bias", (rows,)),
        Tensor("self_attn.forget_gate.A_log", (1, 1, heads, 1), "other"),
        *linear("self_attn.forget_gate.f_a_proj", width, hidden),
        *linear("self_attn.forget_gate.f_b_proj", rows, width, "outputs"),
        *linear("self_attn.b_proj", heads, hidden, "outputs"),
        *linear("self_attn.g_a_proj", width, hidden),
        *linear("self_attn.g_b_proj", rows, width, "outputs"),
        *norm("self_attn.o_norm", width),
        *linear("self_attn.o_proj", hidden, rows, "inputs"),
    )
    attend, kept, _ = latent_attention(fields, shape, ranks)
    experts = fields.integer(fields.first("num_experts", "num_local_experts"), 256)
    wide = fields.integer("moe_intermediate_size", 1024)
    shared = wide * fields.integer(fields.first("num_shared_experts", "n_shared_experts"), 1)
    sparse = sparse_by_type(fields, shape.layers, fields.integer("first_k_dense_replace", 1, least=0))

    def make(key: tuple[bool, bool]) -> Layer:
        has_state, has_experts = key
        dense = gated_mlp(hidden, shape.intermediate_size)
        mlp = shared_mixture(hidden, experts, wide, shared) if has_experts else dense
        if has_state:
            return Layer("linear", (*delta, *mlp, *norms(shape)), _states(heads, width, heads, width, kernel))
        return Layer("latent", (*attend, *mlp, *norms(shape)), (LatentCache(kept),))

    active = fields.first("num_experts_per_token", "num_experts_per_tok")
    return decoder(
        shape,
        each_alike(zip(_kimi_types(fields, described, shape.layers), sparse, strict=True), make),
        ends(shape, prefix),
        f"{prefix}layers",
        experts=experts,
        active_experts=fields.integer(active, 8, most=experts),
    )


def _minimax(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "minimax", sized(32, 4096, 32, 8, 14336, 32000, 131072))
    hidden, rows = shape.hidden_size, shape.queries
    experts = fields.integer(fields.first("num_local_experts", "num_experts"), 8)
    rest = (
        *norms(shape),
        *router("mlp.gate", experts, hidden),
        *mixture("mlp.experts", experts, hidden, shape.intermediate_size),
    )
    lightning = (
        *norm("self_attn.norm", rows),
        *linear("self_attn.qkv_proj", 3 * rows, hidden, "outputs"),
        *linear("self_attn.out_proj", hidden, rows, "inputs"),
        *linear("self_attn.output_gate", rows, hidden, "outputs"),
    )
    state = StateCache(shape.heads * shape.head_dim**2, "", shape.heads)

    def make(has_state: bool) -> Layer:
        if has_state:
            return Layer("linear", (*lightning, *rest), (state,))
        return Layer("full", (*attention(shape), *rest), (shape.cache(),))

    is_linear = linear_by_type(fields, shape.layers, [index % 2 == 1 for index in range(shape.layers)])
    return decoder(
        shape,
        each_alike(is_linear, make),
        ends(shape, prefix),
        f"{prefix}layers",
        experts=experts,
        active_experts=fields.integer("num_experts_per_tok", 2, most=experts),
    )


BUILDERS = {
    "kimi_linear": _kimi_linear,
    "minimax": _minimax,
    "olmo_hybrid": _olmo_hybrid,
    "qwen3_5_moe_text": _qwen3_5_moe,
    "qwen3_5_text": _qwen3_5,
    "qwen3_next": _qwen3_next,
}
