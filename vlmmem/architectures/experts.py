"""Decoders with a mixture of experts and usual attention (arXiv 2101.03961, 2401.04088, 2401.06066).

A router picks a few experts of a layer for each token. transformers holds all experts of a layer in two tensors,
(experts, outputs, inputs); experts that every token meets are matrices like those of a dense MLP.

Source: configuration_NAME.py and modeling_NAME.py, NAME a model_type below, under
https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from vlmmem.architectures.blocks import Shape, decoder, embedding, linear, norm, read_shape
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.llama import attention, ends, gated_mlp, layer_windows, norms, sized, window_of
from vlmmem.layers import KeyValueCache, Layer, Tensor
from vlmmem.model import Model

__all__ = [
    "BUILDERS",
    "each_alike",
    "granite_mixture",
    "mixture",
    "next_token_layer",
    "qwen_mixture",
    "router",
    "shared_mixture",
    "sparse_layers",
]

Key = TypeVar("Key", bound=Hashable)


def each_alike(keys: Iterable[Key], make: Callable[[Key], Layer]) -> list[Layer]:
    """One layer a key, and one object for the layers of the same key.

    >>> layers = each_alike("aab", lambda kind: Layer(kind, ()))
    >>> layers[0] is layers[1], layers[2].kind
    (True, 'b')
    """
    made: dict[Key, Layer] = {}
    found = []
    for key in keys:
        if key not in made:
            made[key] = make(key)
        found.append(made[key])
    return found


def router(name: str, experts: int, hidden: int, *, bias: bool = False) -> tuple[Tensor, ...]:
    """The matrix that scores every expert for a token; whole on every GPU and never quantised."""
    return linear(name, experts, hidden, bias=bias, kind="router")


def mixture(
    name: str, experts: int, hidden: int, wide: int, *, gated: bool = True, transposed: bool = False
) -> tuple[Tensor, ...]:
    """All experts of a layer in two tensors: gate and up in one (up alone where nothing gates), and down.

    >>> [tensor.shape for tensor in mixture("mlp.experts", 8, hidden=64, wide=32)]
    [(8, 64, 64), (8, 64, 32)]
    """
    first = 2 * wide if gated else wide
    up, down = (hidden, first) if transposed else (first, hidden), (wide, hidden) if transposed else (hidden, wide)
    return (
        Tensor(f"{name}.{'gate_up_proj' if gated else 'up_proj'}", (experts, *up), "expert", "experts", transposed),
        Tensor(f"{name}.down_proj", (experts, *down), "expert", "experts", transposed),
    )


def next_token_layer(
    fields: Fields,
    layer: Layer,
    hidden: int,
    tables: int = 0,
    field: str = "num_nextn_predict_layers",
    default: int = 0,
) -> int:
    """Parameters of the layers that predict a further token: checkpoints hold them, transformers does not build them.

    Each is a decoder layer behind a matrix of hidden x 2 hidden and three norms. `tables` are the elements of its own
    copies of embedding and head. Their number stands in `field`, or is `default`.

    Source: vLLM, vllm/model_executor/models/deepseek_mtp.py, glm4_moe_mtp.py and qwen3_next_mtp.py.
    """
    count = fields.integer(field, default, least=0, most=64)
    return count * (layer.parameters + 2 * hidden * hidden + 3 * hidden + tables)


def _kind(window: int | None) -> str:
    return "full" if window is None else "sliding"


def _stack(
    shape: Shape,
    attend: tuple[Tensor, ...],
    rest: Callable[[bool], tuple[Tensor, ...]],
    windows: Sequence[int | None] | None = None,
    sparse: Sequence[bool] | None = None,
) -> list[Layer]:
    """Layers that differ in their window and in whether they have experts."""
    keys = zip(windows or [None] * shape.layers, sparse or [True] * shape.layers, strict=True)
    return each_alike(keys, lambda key: Layer(_kind(key[0]), (*attend, *rest(key[1])), (shape.cache(key[0]),)))


def _mixtral(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "mixtral", sized(32, 4096, 32, 8, 14336, 32000, 131072))
    hidden, experts = shape.hidden_size, _experts(fields, 8)
    tensors = (
        *router("mlp.gate", experts, hidden),
        *mixture("mlp.experts", experts, hidden, shape.intermediate_size),
        *norms(shape),
    )
    layers = _stack(shape, attention(shape), lambda _: tensors, [window_of(fields)] * shape.layers)
    return _mixed(fields, shape, prefix, layers, experts, 2)


def _experts(fields: Fields, default: int | None, *names: str) -> int:
    return fields.integer(fields.first(*(names or ("num_local_experts", "num_experts"))), default)


def _mixed(
    fields: Fields,
    shape: Shape,
    prefix: str,
    layers: Sequence[Layer],
    experts: int,
    active: int | None,
    *,
    outside: tuple[Tensor, ...] | None = None,
    field: str = "num_experts_per_tok",
    mtp: int = 0,
) -> Model:
    chosen = fields.integer(field, active, most=experts)
    around = ends(shape, prefix) if outside is None else outside
    return decoder(shape, layers, around, f"{prefix}layers", experts=experts, active_experts=chosen, mtp_parameters=mtp)


def _phimoe(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "phimoe", sized(32, 4096, 32, 8, 6400, 32064, 131072))
    hidden, experts = shape.hidden_size, _experts(fields, 16)
    bias = fields.boolean("attention_bias")
    tensors = (
        *router("mlp.router", experts, hidden),
        *mixture("mlp.experts", experts, hidden, shape.intermediate_size),
        *norm("input_layernorm", hidden, bias=True),
        *norm("post_attention_layernorm", hidden, bias=True),
    )
    attend = attention(shape, bias=bias, output_bias=bias)
    layers = _stack(shape, attend, lambda _: tensors, [window_of(fields)] * shape.layers)
    outside: tuple[Tensor, ...] = (
        *embedding(f"{prefix}embed_tokens", shape.vocab_size, hidden),
        *norm(f"{prefix}norm", hidden, bias=True),
        *(() if shape.tied_embeddings else embedding("lm_head", shape.vocab_size, hidden, "head")),
    )
    if fields.boolean("lm_head_bias"):
        outside += (Tensor("lm_head.bias", (shape.vocab_size,), "bias", "vocabulary"),)
    return _mixed(fields, shape, prefix, layers, experts, 2, outside=outside)


def sparse_layers(fields: Fields, layers: int) -> list[bool]:
    """Which layers of Qwen's mixtures have experts: every `decoder_sparse_step`-th but those of `mlp_only_layers`."""
    dense = set(fields.integers("mlp_only_layers") or ())
    step = fields.integer("decoder_sparse_step", 1)
    return [index not in dense and (index + 1) % step == 0 for index in range(layers)]


def qwen_mixture(fields: Fields, hidden: int, experts: int, wide: int, shared: int) -> tuple[Tensor, ...]:
    """Router, experts, and the expert that every token meets, behind a gate of its own."""
    return (
        *router("mlp.gate", experts, hidden),
        *mixture("mlp.experts", experts, hidden, fields.integer("moe_intermediate_size", wide)),
        *gated_mlp(hidden, fields.integer("shared_expert_intermediate_size", shared), name="mlp.shared_expert"),
        *router("mlp.shared_expert_gate", 1, hidden),
    )


def _qwen2_moe(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "qwen2_moe", sized(24, 2048, 16, 16, 5632, 151936, 32768))
    hidden, experts = shape.hidden_size, _experts(fields, 60, "num_experts")
    windows: list[int | None] = [None] * shape.layers
    if fields.boolean("use_sliding_window"):
        last = fields.integer("max_window_layers", 28, least=0)
        window = window_of(fields, 4096)
        windows = layer_windows(fields, shape.layers, window, lambda index: index % 2 == 0 and index < last)

    def rest(sparse: bool) -> tuple[Tensor, ...]:
        dense = gated_mlp(hidden, shape.intermediate_size)
        return (*(qwen_mixture(fields, hidden, experts, 1408, 5632) if sparse else dense), *norms(shape))

    attend = attention(shape, bias=fields.boolean("qkv_bias", default=True))
    layers = _stack(shape, attend, rest, windows, sparse_layers(fields, shape.layers))
    return _mixed(fields, shape, prefix, layers, experts, 4)


def _per_head(shape: Shape, queries: str = "q_norm", keys: str = "k_norm") -> tuple[Tensor, ...]:
    """Norms of each head's query and key."""
    return (*norm(f"self_attn.{queries}", shape.head_dim), *norm(f"self_attn.{keys}", shape.head_dim))


def _across_heads(shape: Shape) -> tuple[Tensor, ...]:
    """Norms over all heads' queries and keys at once."""
    return (*norm("self_attn.q_norm", shape.queries), *norm("self_attn.k_norm", shape.keys))


def _qwen3_moe(fields: Fields, prefix: str = "model.", kind: str = "qwen3_moe") -> Model:
    more: dict[str, object] = {} if kind == "qwen3_moe" else {"head_dim": 128}
    shape = read_shape(fields, kind, sized(24, 2048, 32, 4, 6144, 151936, 32768, **more))
    hidden, experts = shape.hidden_size, _experts(fields, 128, "num_experts", "num_local_experts")
    wide = fields.integer("moe_intermediate_size", 768)
    window = window_of(fields, 4096) if fields.boolean("use_sliding_window") else None

    def rest(sparse: bool) -> tuple[Tensor, ...]:
        if not sparse:
            return (*gated_mlp(hidden, shape.intermediate_size), *norms(shape))
        return (
            *router("mlp.gate", experts, hidden),
            *mixture("mlp.experts", experts, hidden, wide),
            *norms(shape),
        )

    bias = fields.boolean("attention_bias")
    attend = (*attention(shape, bias=bias, output_bias=bias), *_per_head(shape))
    layers = _stack(shape, attend, rest, [window] * shape.layers, sparse_layers(fields, shape.layers))
    return _mixed(fields, shape, prefix, layers, experts, 8)


def _olmoe(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "olmoe", sized(16, 2048, 16, None, 2048, 50304, 4096))
    hidden, experts = shape.hidden_size, _experts(fields, 64, "num_experts", "num_local_experts")
    bias = fields.boolean("attention_bias")
    tensors = (
        *router("mlp.gate", experts, hidden),
        *mixture("mlp.experts", experts, hidden, shape.intermediate_size),
        *norms(shape),
    )
    attend = (*attention(shape, bias=bias, output_bias=bias), *_across_heads(shape))
    return _mixed(fields, shape, prefix, _stack(shape, attend, lambda _: tensors), experts, 8)


def _flex_olmo(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "flex_olmo", sized(32, 4096, 32, None, 11008, 100352, 4096))
    hidden, experts = shape.hidden_size, _experts(fields, 7, "num_experts", "num_local_experts")
    bias = fields.boolean("attention_bias")
    tensors = (
        *router("mlp.gate", experts, hidden),
        *mixture("mlp.experts", experts, hidden, shape.intermediate_size),
        *norm("post_attention_layernorm", hidden),
        *norm("post_feedforward_layernorm", hidden),
    )
    attend = (*attention(shape, bias=bias, output_bias=bias), *_across_heads(shape))
    return _mixed(fields, shape, prefix, _stack(shape, attend, lambda _: tensors), experts, 5)


def granite_mixture(hidden: int, experts: int, wide: int, shared: int) -> tuple[Tensor, ...]:
    """Granite's experts and, where `shared` is its width, the MLP that every token meets beside them."""
    found: tuple[Tensor, ...] = ()
    if experts:
        found = (
            *router("block_sparse_moe.router", experts, hidden),
            *mixture("block_sparse_moe.experts", experts, hidden, wide),
        )
    if shared:
        found += (
            *linear("shared_mlp.input_linear", 2 * shared, hidden, "outputs"),
            *linear("shared_mlp.output_linear", hidden, shared, "inputs"),
        )
    return found


def _granitemoe(fields: Fields, prefix: str, kind: str) -> Model:
    shape = read_shape(fields, kind, sized(32, 4096, 32, None, 11008, 32000, 2048))
    experts = _experts(fields, 8)
    bias = fields.boolean("attention_bias")
    shared = fields.integer("shared_intermediate_size", 0, least=0) if kind == "granitemoeshared" else 0
    tensors = (
        *norms(shape),
        *granite_mixture(shape.hidden_size, experts, shape.intermediate_size, shared),
    )
    attend = attention(shape, bias=bias, output_bias=bias)
    return _mixed(fields, shape, prefix, _stack(shape, attend, lambda _: tensors), experts, 2)


def _gpt_oss(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "gpt_oss", sized(36, 2880, 64, 8, 2880, 201088, 131072, head_dim=64))
    hidden, wide, experts = shape.hidden_size, shape.intermediate_size, _experts(fields, 128)
    bias = fields.boolean("attention_bias", default=True)
    windows = layer_windows(fields, shape.layers, window_of(fields, 128), lambda index: index % 2 == 0)
    up, down = mixture("mlp.experts", experts, hidden, wide, transposed=True)
    tensors = (
        *router("mlp.router", experts, hidden, bias=True),
        up,
        Tensor("mlp.experts.gate_up_proj_bias", (experts, 2 * wide), "bias", "experts", transposed=True),
        down,
        # a bias behind matrices cut along their inputs stands whole on every GPU
        Tensor("mlp.experts.down_proj_bias", (experts, hidden), "bias"),
        *norms(shape),
    )
    # one learned logit a head, into which attention may sink
    sinks = Tensor("self_attn.sinks", (shape.heads,), "other", "outputs")
    attend = (sinks, *attention(shape, bias=bias, output_bias=bias))
    return _mixed(fields, shape, prefix, _stack(shape, attend, lambda _: tensors, windows), experts, 4)


def _minimax_m2(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "minimax_m2", sized(62, 3072, 48, 8, 1536, 200064, 196608, head_dim=128))
    hidden, experts = shape.hidden_size, _experts(fields, 256)
    tensors = (
        *router("mlp.gate", experts, hidden),
        *mixture("mlp.experts", experts, hidden, shape.intermediate_size),
        *norms(shape),
    )
    attend = (*attention(shape), *_across_heads(shape))
    return _mixed(fields, shape, prefix, _stack(shape, attend, lambda _: tensors), experts, 8)


def shared_mixture(hidden: int, experts: int, wide: int, shared: int, *, bias: bool = False) -> tuple[Tensor, ...]:
    """DeepSeek's: experts, their router, and experts that every token meets, as one MLP of `shared`."""
    return (
        *mixture("mlp.experts", experts, hidden, wide),
        *router("mlp.gate", experts, hidden),
        *gated_mlp(hidden, shared, bias=bias, name="mlp.shared_experts"),
    )


def _glm4_moe(fields: Fields, prefix: str = "model.") -> Model:
    # the class cuts the width of a head down where the hidden size is not a multiple of the heads
    width = fields.integer("hidden_size", 4096) // fields.integer("num_attention_heads", 96) or None
    shape = read_shape(fields, "glm4_moe", sized(46, 4096, 96, 8, 10944, 151552, 131072, head_dim=width))
    hidden, experts = shape.hidden_size, _experts(fields, 128, "n_routed_experts", "num_local_experts")
    wide = fields.integer("moe_intermediate_size", 1408)
    shared = wide * fields.integer("n_shared_experts", 1)
    first = fields.integer("first_k_dense_replace", 1, least=0)

    def rest(sparse: bool) -> tuple[Tensor, ...]:
        dense = gated_mlp(hidden, shape.intermediate_size)
        return (*(shared_mixture(hidden, experts, wide, shared) if sparse else dense), *norms(shape))

    attend = attention(shape, bias=fields.boolean("attention_bias"))
    if fields.boolean("use_qk_norm"):
        attend += _per_head(shape)
    layers = _stack(shape, attend, rest, sparse=[index >= first for index in range(shape.layers)])
    mtp = next_token_layer(fields, Layer("full", (*attend, *rest(True))), hidden, 2 * shape.vocab_size * hidden)
    return _mixed(fields, shape, prefix, layers, experts, 8, mtp=mtp)


def _dots1(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "dots1", sized(62, 4608, 32, 32, 10944, 152064, 2048))
    hidden, experts = shape.hidden_size, _experts(fields, None, "n_routed_experts", "num_local_experts")
    wide = fields.integer("moe_intermediate_size", 1408)
    shared = wide * fields.integer("n_shared_experts")
    first = fields.integer("first_k_dense_replace", 0, least=0)
    late = fields.integer("max_window_layers", 62, least=0)
    windows = layer_windows(fields, shape.layers, window_of(fields, 4096), lambda index: index >= late)

    def rest(sparse: bool) -> tuple[Tensor, ...]:
        dense = gated_mlp(hidden, shape.intermediate_size)
        return (*(shared_mixture(hidden, experts, wide, shared) if sparse else dense), *norms(shape))

    bias = fields.boolean("attention_bias")
    attend = (*attention(shape, bias=bias, output_bias=bias), *_per_head(shape))
    layers = _stack(shape, attend, rest, windows, [index >= first for index in range(shape.layers)])
    return _mixed(fields, shape, prefix, layers, experts, None)


def _ernie4_5_moe(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "ernie4_5_moe", sized(28, 2560, 20, 4, 12288, 103424, 131072, tied_embeddings=True))
    hidden, experts = shape.hidden_size, _experts(fields, 64, "moe_num_experts", "num_experts")
    wide = fields.integer("moe_intermediate_size", 1536)
    shared = wide * fields.integer("moe_num_shared_experts", 2, least=0)
    bias = fields.boolean("use_bias")
    step = fields.integer("moe_layer_interval", 1)
    start, end = (
        fields.integer("moe_layer_start_index", 1, least=0),
        fields.integer("moe_layer_end_index", -1, least=-1),
    )
    last = shape.layers - 1 if end == -1 else end
    sparse = [(index + 1) % step == 0 and start <= index <= last for index in range(shape.layers)]

    def rest(sparse: bool) -> tuple[Tensor, ...]:
        if not sparse:
            return (*gated_mlp(hidden, shape.intermediate_size, bias=bias), *norms(shape))
        return (
            *router("mlp.gate", experts, hidden),
            Tensor("mlp.gate.moe_statics.e_score_correction_bias", (1, experts), "router"),
            *mixture("mlp.experts", experts, hidden, wide),
            *(gated_mlp(hidden, shared, bias=bias, name="mlp.shared_experts") if shared else ()),
            *norms(shape),
        )

    outside = ends(shape, prefix)
    if bias:
        outside += (Tensor("lm_head.bias", (shape.vocab_size,), "bias", "vocabulary"),)
    layers = _stack(shape, attention(shape, bias=bias, output_bias=bias), rest, sparse=sparse)
    field = fields.first("moe_k", "num_experts_per_tok")
    return _mixed(fields, shape, prefix, layers, experts, 6, outside=outside, field=field)


def _hunyuan_v1_moe(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "hunyuan_v1_moe", sized(32, 4096, 32, None, 11008, 290943, 2048))
    # the class takes head_dim from the config and has no default for it
    fields.integer("head_dim")
    hidden, experts = shape.hidden_size, _experts(fields, 1, "num_experts", "num_local_experts")
    bias = fields.boolean("attention_bias")
    tensors = (
        *router("mlp.gate.wg", experts, hidden),
        *mixture("mlp.experts", experts, hidden, shape.intermediate_size),
        *gated_mlp(hidden, shape.intermediate_size, name="mlp.shared_mlp"),
        *norms(shape),
    )
    attend = (
        *attention(shape, bias=bias, output_bias=bias),
        *_per_head(shape, "query_layernorm", "key_layernorm"),
    )
    # the class takes one number, or one a layer
    field = fields.first("moe_topk", "num_experts_per_tok")
    if isinstance(fields.raw(field), list):
        most = max(fields.integers(field, least=1, length=shape.layers) or (1,))
        fields = fields.changed(**{field: most})
    layers = _stack(shape, attend, lambda _: tensors)
    return _mixed(fields, shape, prefix, layers, experts, 1, field=field)


def _llama4_text(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "llama4_text", sized(48, 5120, 40, 8, 8192, 202048, 131072, head_dim=128))
    hidden, experts = shape.hidden_size, _experts(fields, 16, "num_local_experts")
    wide = fields.integer("intermediate_size_mlp", 16384)
    step = fields.integer("interleave_moe_layer_step", 1)
    named = fields.integers("moe_layers")
    sparse = set(range(step - 1, shape.layers, step)) if named is None else set(named)
    chunk = fields.optional_integer("attention_chunk_size") if fields.has("attention_chunk_size") else 8192
    interval = fields.integer("no_rope_layer_interval", 4)
    # layers without rotary positions attend to everything, the others inside a chunk
    rotary = fields.integers("no_rope_layers", length=shape.layers if fields.raw("no_rope_layers") else 0)
    rotary = rotary or tuple(int((index + 1) % interval != 0) for index in range(shape.layers))
    types = fields.texts("layer_types", length=shape.layers) or tuple(
        "chunked_attention" if each else "full_attention" for each in rotary
    )
    bias = fields.boolean("attention_bias")
    attend = attention(shape, bias=bias, output_bias=bias)
    mixed = (
        *mixture("feed_forward.experts", experts, hidden, shape.intermediate_size, transposed=True),
        *router("feed_forward.router", experts, hidden),
        *gated_mlp(hidden, shape.intermediate_size, name="feed_forward.shared_expert"),
    )

    def make(key: tuple[bool, bool]) -> Layer:
        chunked, has_experts = key
        cache = KeyValueCache(shape.kv_heads, shape.head_dim, shape.head_dim, chunk=chunk if chunked else None)
        rest = mixed if has_experts else gated_mlp(hidden, wide, name="feed_forward")
        return Layer("chunked" if chunked else "full", (*attend, *rest, *norms(shape)), (cache,))

    layers = each_alike(
        ((kind == "chunked_attention" and chunk is not None, index in sparse) for index, kind in enumerate(types)),
        make,
    )
    # inside Llama 4 the head stands beside the text model, not beside the whole
    outside = ends(shape, prefix, f"{prefix.removesuffix('model.') if prefix.endswith('.model.') else ''}lm_head")
    return _mixed(fields, shape, prefix, layers, experts, 1, outside=outside)


def _dbrx(fields: Fields, prefix: str = "transformer.") -> Model:
    attends, feeds = fields.sub("attn_config"), fields.sub("ffn_config")
    wide = feeds.integer("ffn_hidden_size", 3584)
    named = {
        "layers": "n_layers",
        "hidden_size": "d_model",
        "heads": "n_heads",
        "max_positions": "max_seq_len",
    }
    given = fields.changed(num_key_value_heads=attends.integer("kv_n_heads", 1), intermediate_size=wide)
    shape = read_shape(given, "dbrx", sized(24, 2048, 16, None, wide, 32000, 2048), **named)
    hidden, experts = shape.hidden_size, feeds.integer("moe_num_experts", 4)
    name = "norm_attn_norm"
    rows = shape.queries + 2 * shape.keys
    # the experts' matrices stand below each other in one, all of them with the hidden size as columns
    stacked = [
        Tensor(f"ffn.experts.mlp.{each}", (experts * wide, hidden), "expert", "outputs") for each in ("w1", "v1", "w2")
    ]
    tensors = (
        *norm(f"{name}.norm_1", hidden),
        Tensor(f"{name}.attn.Wqkv.weight", (rows, hidden), "linear", "qkv", query_rows=shape.queries),
        *linear(f"{name}.attn.out_proj", hidden, shape.queries, "inputs"),
        *norm(f"{name}.norm_2", hidden),
        *router("ffn.router.layer", experts, hidden),
        *stacked,
    )
    outside = (
        *embedding(f"{prefix}wte", shape.vocab_size, hidden),
        *norm(f"{prefix}norm_f", hidden),
        *embedding("lm_head", shape.vocab_size, hidden, "head"),
    )
    layer = Layer("full", tensors, (shape.cache(),))
    active = feeds.integer("moe_top_k", 1, most=experts)
    stack = f"{prefix}blocks"
    return decoder(shape, (layer,) * shape.layers, outside, stack, experts=experts, active_experts=active)


def _granitemoe_plain(fields: Fields, prefix: str = "model.") -> Model:
    return _granitemoe(fields, prefix, "granitemoe")


def _granitemoeshared(fields: Fields, prefix: str = "model.") -> Model:
    return _granitemoe(fields, prefix, "granitemoeshared")


BUILDERS = {
    "dbrx": _dbrx,
    "dots1": _dots1,
    "ernie4_5_moe": _ernie4_5_moe,
    "flex_olmo": _flex_olmo,
    "glm4_moe": _glm4_moe,
    "gpt_oss": _gpt_oss,
    "granitemoe": _granitemoe_plain,
    "granitemoeshared": _granitemoeshared,
    "hunyuan_v1_moe": _hunyuan_v1_moe,
    "llama4_text": _llama4_text,
    "minimax_m2": _minimax_m2,
    "mixtral": _mixtral,
    "olmoe": _olmoe,
    "phimoe": _phimoe,
    "qwen2_moe": _qwen2_moe,
    "qwen3_moe": _qwen3_moe,
}
