"""State-space decoders and their mixtures with attention: Mamba, Jamba, Bamba, Granite 4, Nemotron-H, Falcon-H1, LFM2.

A Mamba layer keeps a state of each sequence in float32 and the last inputs of its convolution in the model's dtype
(arXiv 2312.00752; of Mamba 2 arXiv 2405.21060). transformers keeps as many inputs as the kernel is wide, engines one
less. Of Mamba 2, tensor parallelism cuts the channels by heads, and those of the groups by groups.

Source: configuration_NAME.py and modeling_NAME.py, NAME a model_type below, under
https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from vlmmem.architectures.blocks import Shape, decoder, embedding, linear, norm, read_shape
from vlmmem.architectures.experts import each_alike, granite_mixture, mixture, router
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.hybrid import convolution, linear_by_type, vector
from vlmmem.architectures.llama import attention, gated_mlp, norms, sized
from vlmmem.errors import InputError
from vlmmem.layers import Cache, Layer, StateCache, Tensor
from vlmmem.model import Model

__all__ = ["BUILDERS"]

# no positions limit a model without attention; readers of headers say the same where a file names no length
_UNLIMITED = 1 << 20


@dataclass(frozen=True, slots=True)
class _Mixer:
    """A Mamba layer: its tensors below its name, and what it keeps of a sequence."""

    tensors: tuple[Tensor, ...]
    caches: tuple[Cache, ...]


def _rank(fields: Fields, field: str, hidden: int) -> int:
    """The rank of the time steps; "auto" or missing is a sixteenth of the hidden size."""
    if fields.raw(field) == "auto":
        return ceil(hidden / 16)
    return fields.integer(field, ceil(hidden / 16))


def _mamba1(
    name: str,
    hidden: int,
    inner: int,
    state: int,
    rank: int,
    kernel: int,
    *,
    bias: bool,
    conv_bias: bool,
    normed: bool = False,
) -> _Mixer:
    tensors = (
        vector(f"{name}.A_log", (inner, state)),
        vector(f"{name}.D", (inner,)),
        *convolution(f"{name}.conv1d", inner, kernel, bias=conv_bias),
        *linear(f"{name}.in_proj", 2 * inner, hidden, "outputs", bias=bias),
        *linear(f"{name}.x_proj", rank + 2 * state, inner, "inputs"),
        *linear(f"{name}.dt_proj", inner, rank, "outputs", bias=True),
        *linear(f"{name}.out_proj", hidden, inner, "inputs", bias=bias),
    )
    if normed:
        tensors += (*norm(f"{name}.dt_layernorm", rank),)
        tensors += (*norm(f"{name}.b_layernorm", state), *norm(f"{name}.c_layernorm", state))
    return _Mixer(
        tensors,
        (StateCache(inner * kernel, "", inner, "convolution", kernel), StateCache(inner * state, "fp32", inner)),
    )


def _mamba2(
    name: str,
    hidden: int,
    heads: int,
    head_dim: int,
    groups: int,
    state: int,
    kernel: int,
    *,
    bias: bool,
    out_bias: bool,
    conv_bias: bool,
    normed: bool = True,
) -> _Mixer:
    inner = heads * head_dim
    channels = inner + 2 * groups * state
    tensors = (
        vector(f"{name}.dt_bias", (heads,)),
        vector(f"{name}.A_log", (heads,)),
        vector(f"{name}.D", (heads,)),
        *convolution(f"{name}.conv1d", channels, kernel, bias=conv_bias),
        *linear(f"{name}.in_proj", inner + channels + heads, hidden, "outputs", bias=bias),
        *((Tensor(f"{name}.norm.weight", (inner,), "norm", "outputs"),) if normed else ()),
        *linear(f"{name}.out_proj", hidden, inner, "inputs", bias=out_bias),
    )
    caches = (
        StateCache(inner * kernel, "", heads, "convolution", kernel),
        StateCache(2 * groups * state * kernel, "", groups, "convolution", kernel),
        StateCache(inner * state, "fp32", heads),
    )
    return _Mixer(tensors, caches)


def _mixed2(fields: Fields, hidden: int, inner: int) -> _Mixer:
    """The Mamba 2 layer of Bamba, Granite 4 and Falcon-H1."""
    heads = fields.integer("mamba_n_heads", 128)
    if inner % heads:
        raise InputError(
            f"{fields.where}: {inner} channels of the state space are no multiple of {heads} heads ('mamba_n_heads')"
        )
    width = inner // heads
    if fields.raw("mamba_d_head") != "auto" and fields.integer("mamba_d_head", width) != width:
        fields.wrong("mamba_d_head", f"{inner} channels by {heads} heads, {width},")
    falcon = fields.raw("model_type") == "falcon_h1"
    bias = fields.boolean("mamba_proj_bias")
    return _mamba2(
        "mamba",
        hidden,
        heads,
        width,
        fields.integer("mamba_n_groups", 1),
        fields.integer("mamba_d_state", 256),
        fields.integer("mamba_d_conv", 4),
        bias=bias,
        out_bias=fields.boolean("projectors_bias") if falcon else bias,
        conv_bias=fields.boolean("mamba_conv_bias", default=True),
        normed=fields.boolean("mamba_rms_norm") if falcon else True,
    )


def _ends(shape: Shape, prefix: str, table: str, last: str) -> tuple[Tensor, ...]:
    """Embedding, last norm and, where it is not tied, the output head."""
    found = (
        *embedding(f"{prefix}{table}", shape.vocab_size, shape.hidden_size),
        *norm(f"{prefix}{last}", shape.hidden_size),
    )
    if shape.tied_embeddings:
        return found
    return (*found, *embedding("lm_head", shape.vocab_size, shape.hidden_size, "head"))


def _pure(fields: Fields, kind: str, layers: int, inner: int, heads: int, defaults: tuple[int, int, bool]) -> Shape:
    """The shape of a model without attention: heads are those of its state space."""
    hidden, vocabulary, tied = defaults
    given = fields.changed(
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=max(1, inner // heads),
        intermediate_size=inner,
        max_position_embeddings=_UNLIMITED,
    )
    return read_shape(given, kind, sized(layers, hidden, heads, heads, inner, vocabulary, 1, tied_embeddings=tied))


def _mamba(fields: Fields, prefix: str = "backbone.", kind: str = "mamba") -> Model:
    hidden = fields.integer("hidden_size", 768)
    inner = fields.integer("intermediate_size", fields.integer("expand", 2) * hidden)
    shape = _pure(fields, kind, 32, inner, inner, (768, 50280, True))
    mixer = _mamba1(
        "mixer",
        hidden,
        inner,
        fields.integer("state_size", 16),
        _rank(fields, "time_step_rank", hidden),
        fields.integer("conv_kernel", 4),
        bias=fields.boolean("use_bias"),
        conv_bias=fields.boolean("use_conv_bias", default=True),
    )
    layer = Layer("state-space", (*norm("norm", hidden), *mixer.tensors), mixer.caches)
    return decoder(shape, (layer,) * shape.layers, _ends(shape, prefix, "embeddings", "norm_f"), f"{prefix}layers")


def _falcon_mamba(fields: Fields, prefix: str = "backbone.") -> Model:
    return _mamba(fields, prefix, "falcon_mamba")


def _mamba2_only(fields: Fields, prefix: str = "backbone.") -> Model:
    hidden, heads = fields.integer("hidden_size", 4096), fields.integer("num_heads", 128)
    width = fields.integer("head_dim", 64)
    inner = fields.integer("expand", 2) * hidden
    if heads * width != inner:
        raise InputError(
            f"{fields.where}: {heads} heads ('num_heads') x {width} ('head_dim') are not 'expand' x 'hidden_size'; "
            f"{inner} is needed"
        )
    shape = _pure(fields, "mamba2", 64, inner, heads, (4096, 32768, False))
    bias = fields.boolean("use_bias")
    mixer = _mamba2(
        "mixer",
        hidden,
        heads,
        width,
        fields.integer("n_groups", 8),
        fields.integer("state_size", 128),
        fields.integer("conv_kernel", 4),
        bias=bias,
        out_bias=bias,
        conv_bias=fields.boolean("use_conv_bias", default=True),
    )
    layer = Layer("state-space", (*norm("norm", hidden), *mixer.tensors), mixer.caches)
    return decoder(shape, (layer,) * shape.layers, _ends(shape, prefix, "embeddings", "norm_f"), f"{prefix}layers")


def _period(fields: Fields, what: str, period: int, offset: int) -> tuple[int, int]:
    every = fields.integer(f"{what}_layer_period", period)
    first = fields.integer(f"{what}_layer_offset", offset, least=0)
    if first >= every:
        fields.wrong(f"{what}_layer_offset", f"a number below '{what}_layer_period', {every},")
    return every, first


def _jamba(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "jamba", sized(32, 4096, 32, 8, 14336, 65536, 262144))
    hidden, wide = shape.hidden_size, shape.intermediate_size
    experts = fields.integer(fields.first("num_experts", "num_local_experts"), 16)
    mixer = _mamba1(
        "mamba",
        hidden,
        fields.integer("mamba_expand", 2) * hidden,
        fields.integer("mamba_d_state", 16),
        _rank(fields, "mamba_dt_rank", hidden),
        fields.integer("mamba_d_conv", 4),
        bias=fields.boolean("mamba_proj_bias"),
        conv_bias=fields.boolean("mamba_conv_bias", default=True),
        normed=True,
    )
    before = (*norm("input_layernorm", hidden), *norm("pre_ff_layernorm", hidden))
    mixed = (
        *router("feed_forward.router", experts, hidden),
        *mixture("feed_forward.experts", experts, hidden, wide),
    )

    def make(key: tuple[bool, bool]) -> Layer:
        attends, has_experts = key
        rest = (*(mixed if has_experts else gated_mlp(hidden, wide, name="feed_forward")), *before)
        if attends:
            return Layer("full", (*attention(shape), *rest), (shape.cache(),))
        return Layer("state-space", (*mixer.tensors, *rest), mixer.caches)

    every, first = _period(fields, "attn", 8, 4)
    mix_every, mix_first = _period(fields, "expert", 2, 1)
    keys = ((index % every == first, experts > 1 and index % mix_every == mix_first) for index in range(shape.layers))
    return decoder(
        shape,
        each_alike(keys, make),
        _ends(shape, prefix, "embed_tokens", "final_layernorm"),
        f"{prefix}layers",
        experts=experts if experts > 1 else 0,
        active_experts=fields.integer("num_experts_per_tok", 2) if experts > 1 else 0,
    )


def _bamba(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "bamba", sized(32, 4096, 32, 8, 14336, 128000, 262144))
    hidden = shape.hidden_size
    bias = fields.boolean("attention_bias")
    rest = (
        *gated_mlp(hidden, shape.intermediate_size, bias=fields.boolean("mlp_bias"), name="feed_forward"),
        *norm("input_layernorm", hidden),
        *norm("pre_ff_layernorm", hidden),
    )
    mixer = _mixed2(fields, hidden, fields.integer("mamba_expand", 2) * hidden)
    full = Layer("full", (*attention(shape, bias=bias, output_bias=bias), *rest), (shape.cache(),))
    states = Layer("state-space", (*mixer.tensors, *rest), mixer.caches)
    attends = set(fields.integers("attn_layer_indices") or ())
    layers = [full if index in attends else states for index in range(shape.layers)]
    return decoder(shape, layers, _ends(shape, prefix, "embed_tokens", "final_layernorm"), f"{prefix}layers")


def _falcon_h1(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "falcon_h1", sized(32, 4096, 32, 8, 14336, 128000, 8192))
    hidden = shape.hidden_size
    bias = fields.boolean("attention_bias")
    inner = fields.integer("mamba_d_ssm", 1024)
    if fields.has("mamba_d_ssm") and fields.raw("mamba_d_ssm") is None:
        inner = fields.integer("mamba_expand", 2) * hidden
    mixer = _mixed2(fields.changed(model_type="falcon_h1"), hidden, inner)
    tensors = (
        *gated_mlp(hidden, shape.intermediate_size, bias=fields.boolean("mlp_bias"), name="feed_forward"),
        *mixer.tensors,
        *attention(shape, bias=bias, output_bias=bias),
        *norm("input_layernorm", hidden),
        *norm("pre_ff_layernorm", hidden),
    )
    # attention and state space side by side
    layer = Layer("full", tensors, (shape.cache(), *mixer.caches))
    outside = _ends(shape, prefix, "embed_tokens", "final_layernorm")
    return decoder(shape, (layer,) * shape.layers, outside, f"{prefix}layers")


def _granitemoehybrid(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "granitemoehybrid", sized(32, 4096, 32, None, 11008, 32000, 2048))
    hidden = shape.hidden_size
    bias = fields.boolean("attention_bias")
    experts = fields.integer("num_local_experts", 8, least=0)
    rest = (
        *norms(shape),
        *granite_mixture(hidden, experts, shape.intermediate_size, fields.integer("shared_intermediate_size", 1024)),
    )
    mixer = _mixed2(fields, hidden, fields.integer("mamba_expand", 2) * hidden)

    def make(has_state: bool) -> Layer:
        if has_state:
            return Layer("state-space", (*mixer.tensors, *rest), mixer.caches)
        return Layer("full", (*attention(shape, bias=bias, output_bias=bias), *rest), (shape.cache(),))

    field = fields.first("layer_types", "layers_block_type")
    has_states = linear_by_type(fields, shape.layers, [True] * shape.layers, field, ("mamba",))
    return decoder(
        shape,
        each_alike(has_states, make),
        _ends(shape, prefix, "embed_tokens", "norm"),
        f"{prefix}layers",
        experts=experts,
        active_experts=fields.integer("num_experts_per_tok", 2, least=0, most=max(1, experts)) if experts else 0,
    )


_LETTERS = {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"}
_OLDER = {"mamba": "linear_attention", "attention": "full_attention"}
_MOST_BLOCKS = 4096


def _blocks(fields: Fields, pattern: str, types: str, default: Sequence[str]) -> list[str]:
    """The kind of each layer of Nemotron-H, from a pattern of letters or a list."""
    found = fields.texts(types)
    if found is None and pattern in fields:
        letters = fields.text(pattern)
        if len(letters) > _MOST_BLOCKS or not set(letters) <= set(_LETTERS):
            fields.wrong(pattern, f"a text of at most {_MOST_BLOCKS:,} of the letters M, E, * and -")
        return [_LETTERS[letter] for letter in letters]
    kinds = [_OLDER.get(kind, kind) for kind in (default if found is None else found)]
    if not kinds or len(kinds) > _MOST_BLOCKS or not set(kinds) <= set(_LETTERS.values()):
        fields.wrong(types, "a list of linear_attention, full_attention, moe and mlp")
    return kinds


def _nemotron_h(fields: Fields, prefix: str = "model.") -> Model:
    kinds = _blocks(
        fields,
        "hybrid_override_pattern",
        fields.first("layers_block_type", "layer_types"),
        ("linear_attention", "moe", "full_attention", "mlp"),
    )
    # the class counts the list's layers, and ties no weights
    given = fields.changed(num_hidden_layers=len(kinds), tie_word_embeddings=False)
    defaults = sized(len(kinds), 4096, 32, 8, 21504, 131072, 4096, head_dim=128, activation="relu2")
    shape = read_shape(given, "nemotron_h", defaults, activation="mlp_hidden_act")
    hidden = shape.hidden_size
    bias, mlp_bias = fields.boolean("use_bias"), fields.boolean("mlp_bias")

    def plain(name: str, wide: int) -> tuple[Tensor, ...]:
        return (
            *linear(f"{name}.up_proj", wide, hidden, "outputs", bias=mlp_bias),
            *linear(f"{name}.down_proj", hidden, wide, "inputs", bias=mlp_bias),
        )

    mixer = _mamba2(
        "mixer",
        hidden,
        fields.integer("mamba_num_heads", 128),
        fields.integer("mamba_head_dim", 64),
        fields.integer(fields.first("mamba_n_groups", "n_groups"), 8),
        fields.integer("ssm_state_size", 128),
        fields.integer(fields.first("mamba_d_conv", "conv_kernel"), 4),
        bias=bias,
        out_bias=bias,
        conv_bias=fields.boolean(fields.first("mamba_conv_bias", "use_conv_bias"), default=True),
    )
    has_experts = "moe" in kinds
    experts = fields.integer(fields.first("n_routed_experts", "num_local_experts"), 8) if has_experts else 0

    def mixed() -> tuple[Tensor, ...]:
        # experts may work on a narrower vector than the layer's (Nemotron-3 Super)
        latent = fields.optional_integer("moe_latent_size")
        found = (
            *mixture(
                "mixer.experts", experts, latent or hidden, fields.integer("moe_intermediate_size", 7688), gated=False
            ),
            *router("mixer.gate", experts, hidden),
            *plain("mixer.shared_experts", fields.integer("moe_shared_expert_intermediate_size", 7688)),
        )
        if latent is None:
            return found
        return (
            *found,
            *linear("mixer.fc1_latent_proj", latent, hidden, bias=mlp_bias),
            *linear("mixer.fc2_latent_proj", hidden, latent, bias=mlp_bias),
        )

    def make(kind: str) -> Layer:
        first = norm("norm", hidden)
        if kind == "linear_attention":
            return Layer("state-space", (*first, *mixer.tensors), mixer.caches)
        if kind == "full_attention":
            tensors = (
                *linear("mixer.q_proj", shape.queries, hidden, "outputs"),
                *linear("mixer.k_proj", shape.keys, hidden, "kv"),
                *linear("mixer.v_proj", shape.keys, hidden, "kv"),
                *linear("mixer.o_proj", hidden, shape.queries, "inputs"),
            )
            return Layer("full", (*first, *tensors), (shape.cache(),))
        return Layer("mlp", (*first, *(mixed() if kind == "moe" else plain("mixer", shape.intermediate_size))))

    further = 0
    repeats = fields.integer("num_nextn_predict_layers", 0, least=0, most=64)
    if repeats:
        # vLLM, vllm/model_executor/models/nemotron_h_mtp.py: the pattern's blocks behind a matrix and three norms
        blocks = _blocks(fields, "mtp_hybrid_override_pattern", "mtp_layers_block_type", ("full_attention", "moe"))
        further = repeats * (sum(make(kind).parameters for kind in blocks) + 2 * hidden**2 + 3 * hidden)
    return decoder(
        shape,
        each_alike(kinds, make),
        _ends(shape, prefix, "embeddings", "norm_f"),
        f"{prefix}layers",
        experts=experts,
        active_experts=fields.integer("num_experts_per_tok", 2, most=experts) if experts else 0,
        mtp_parameters=further,
    )


def _lfm_attention(shape: Shape) -> tuple[Tensor, ...]:
    hidden = shape.hidden_size
    return (
        *linear("self_attn.q_proj", shape.queries, hidden, "outputs"),
        *linear("self_attn.k_proj", shape.keys, hidden, "kv"),
        *linear("self_attn.v_proj", shape.keys, hidden, "kv"),
        *linear("self_attn.out_proj", hidden, shape.queries, "inputs"),
        *norm("self_attn.q_layernorm", shape.head_dim),
        *norm("self_attn.k_layernorm", shape.head_dim),
    )


def _lfm_mlp(hidden: int, wide: int) -> tuple[Tensor, ...]:
    return (
        *linear("feed_forward.w1", wide, hidden, "outputs"),
        *linear("feed_forward.w3", wide, hidden, "outputs"),
        *linear("feed_forward.w2", hidden, wide, "inputs"),
    )


def _lfm(fields: Fields, prefix: str, shape: Shape, dense: int, wide: int, experts: int, whole: int) -> Model:
    """LFM2: short convolutions and attention, after the first `dense` layers an MLP of experts."""
    hidden = shape.hidden_size
    kernel, bias = fields.integer("conv_L_cache", 3), fields.boolean("conv_bias")
    short = (
        *convolution("conv.conv", hidden, kernel, bias=bias),
        *linear("conv.in_proj", 3 * hidden, hidden, "outputs", bias=bias),
        *linear("conv.out_proj", hidden, hidden, "inputs", bias=bias),
    )
    state = StateCache(hidden * kernel, "", hidden, "convolution", kernel)
    types = fields.texts("layer_types", length=shape.layers)
    if types is None:
        named = fields.integers("full_attn_idxs")
        chosen = set(range(shape.layers) if named is None else named)
        attends = [index in chosen for index in range(shape.layers)]
    elif not set(types) <= {"conv", "full_attention"}:
        fields.wrong("layer_types", "a list of conv and full_attention")
    else:
        attends = [kind == "full_attention" for kind in types]
    mixed = (
        *router("feed_forward.gate", experts, hidden),
        *mixture("feed_forward.experts", experts, hidden, wide),
    )

    def make(key: tuple[bool, bool]) -> Layer:
        has_cache, has_experts = key
        rest = (
            *(mixed if has_experts else _lfm_mlp(hidden, whole)),
            *norm("operator_norm", hidden),
            *norm("ffn_norm", hidden),
        )
        if has_cache:
            return Layer("full", (*_lfm_attention(shape), *rest), (shape.cache(),))
        return Layer("convolution", (*short, *rest), (state,))

    keys = ((attends[index], index >= dense) for index in range(shape.layers))
    return decoder(
        shape,
        each_alike(keys, make),
        _ends(shape, prefix, "embed_tokens", "embedding_norm"),
        f"{prefix}layers",
        experts=experts,
        active_experts=fields.integer("num_experts_per_tok", 4, most=experts) if experts else 0,
    )


def _tied(fields: Fields) -> Fields:
    """The field that older configs of LFM2 tie the head with stands above the usual one."""
    return fields.changed(tie_word_embeddings=fields.raw("tie_embedding")) if fields.has("tie_embedding") else fields


def _lfm2(fields: Fields, prefix: str = "model.") -> Model:
    given = _tied(fields)
    if "block_ff_dim" in given:
        given = given.changed(intermediate_size=given.raw("block_ff_dim"))
    shape = read_shape(given, "lfm2", sized(32, 2560, 32, 8, 12288, 65536, 128000, tied_embeddings=True))
    whole = shape.intermediate_size
    if fields.boolean("block_auto_adjust_ff_dim", default=True):
        whole = int(2 * whole / 3)
        if not fields.has("block_ffn_dim_multiplier") or "block_ffn_dim_multiplier" in fields:
            whole = int(fields.number("block_ffn_dim_multiplier", 1.0) * whole)
            unit = fields.integer("block_multiple_of", 256)
            whole = unit * -(-whole // unit)
        if whole < 1:
            fields.wrong("block_ffn_dim_multiplier", "a multiplier that leaves an MLP")
    return _lfm(given, prefix, shape, shape.layers, 0, 0, whole)


def _lfm2_moe(fields: Fields, prefix: str = "model.") -> Model:
    given = _tied(fields)
    shape = read_shape(given, "lfm2_moe", sized(32, 2048, 32, 8, 7168, 65536, 128000, tied_embeddings=True))
    if "layer_types" not in fields:
        raise InputError(f"{fields.where}: 'layer_types' is missing; a list of conv and full_attention is needed")
    dense = fields.integer("num_dense_layers", 2, least=0)
    experts, wide = fields.integer("num_experts", 32), fields.integer("moe_intermediate_size", 1792)
    return _lfm(given, prefix, shape, dense, wide, experts, shape.intermediate_size)


BUILDERS = {
    "bamba": _bamba,
    "falcon_h1": _falcon_h1,
    "falcon_mamba": _falcon_mamba,
    "granitemoehybrid": _granitemoehybrid,
    "jamba": _jamba,
    "lfm2": _lfm2,
    "lfm2_moe": _lfm2_moe,
    "mamba": _mamba,
    "mamba2": _mamba2_only,
    "nemotron_h": _nemotron_h,
}
