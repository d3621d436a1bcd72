"""Multi-head latent attention with a mixture of experts: DeepSeek V2, V3 and V3.2, Kimi K2, GLM-4.7-Flash and GLM-5.

Each layer keeps one vector a token, the latent keys and values beside the rotary part of the key (arXiv 2405.04434,
section 2.1). Where a sparse indexer picks the tokens to attend to (DeepSeek-V3.2), it keeps a key of its own.

Source: configuration_NAME.py and modeling_NAME.py, NAME a model_type below, under
https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/; Kimi K2 is DeepSeek V3 under another
name, in modeling_deepseek.py of https://huggingface.co/moonshotai/Kimi-K2-Instruct.
"""

from collections.abc import Sequence

from vlmmem.architectures.blocks import Shape, decoder, linear, norm, read_shape
from vlmmem.architectures.experts import each_alike, next_token_layer, shared_mixture
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.llama import ends, gated_mlp, norms, sized
from vlmmem.errors import InputError
from vlmmem.layers import LatentCache, Layer, Tensor
from vlmmem.model import Model
from vlmmem.record import record

__all__ = ["BUILDERS", "Ranks", "latent_attention", "sparse_by_type"]


@record(frozen=True, slots=True)
class Ranks:
    """A class's default widths of latent attention; `queries` None: they are not compressed."""

    latent: int
    queries: int | None
    rest: int
    rope: int
    values: int


_V2 = Ranks(512, 1536, 128, 64, 128)
_GLM = Ranks(512, 2048, 192, 64, 256)


def latent_attention(fields: Fields, shape: Shape, ranks: Ranks) -> tuple[tuple[Tensor, ...], int, int | None]:
    """The tensors of latent attention, the width of what a token leaves in the cache, and the rank of the queries.

    Down projections are whole on every GPU, up projections are cut by heads.
    """
    hidden, heads = shape.hidden_size, shape.heads
    bias = fields.boolean("attention_bias")
    latent = fields.integer("kv_lora_rank", ranks.latent)
    rope, rest = fields.integer("qk_rope_head_dim", ranks.rope), fields.integer("qk_nope_head_dim", ranks.rest)
    values = fields.integer("v_head_dim", ranks.values)
    rank = fields.optional_integer("q_lora_rank") if fields.has("q_lora_rank") else ranks.queries
    queries: tuple[Tensor, ...]
    if rank is None:
        queries = linear("self_attn.q_proj", heads * (rest + rope), hidden, "outputs")
    else:
        queries = (
            *linear("self_attn.q_a_proj", rank, hidden, bias=bias),
            *norm("self_attn.q_a_layernorm", rank),
            *linear("self_attn.q_b_proj", heads * (rest + rope), rank, "outputs"),
        )
    tensors = (
        *queries,
        *linear("self_attn.kv_a_proj_with_mqa", latent + rope, hidden, bias=bias),
        *norm("self_attn.kv_a_layernorm", latent),
        *linear("self_attn.kv_b_proj", heads * (rest + values), latent, "outputs"),
        *linear("self_attn.o_proj", hidden, heads * values, "inputs", bias=bias),
    )
    return tensors, latent + rope, rank


def _indexer(fields: Fields, hidden: int, rank: int, heads: int) -> tuple[tuple[Tensor, ...], int]:
    """The indexer's tensors and the width of its key; whole on every GPU."""
    heads, width = fields.integer("index_n_heads", heads), fields.integer("index_head_dim", 128)
    tensors = (
        *linear("self_attn.indexer.wq_b", heads * width, rank),
        *linear("self_attn.indexer.wk", width, hidden),
        *norm("self_attn.indexer.k_norm", width, bias=True),
        # one score a head; DeepSeek's checkpoints leave it in 16 bits
        *linear("self_attn.indexer.weights_proj", heads, hidden, kind="router"),
    )
    return tensors, width


def sparse_by_type(fields: Fields, layers: int, first: int) -> list[bool]:
    """Which layers have experts: as `mlp_layer_types` says, or from layer `first` on.

    >>> sparse_by_type(Fields({"mlp_layer_types": ["dense", "sparse"]}, "config"), 2, 0)
    [False, True]
    """
    types = fields.texts("mlp_layer_types", length=layers)
    if types is None:
        return [index >= first for index in range(layers)]
    if not set(types) <= {"dense", "sparse"}:
        fields.wrong("mlp_layer_types", "a list of dense and sparse")
    return [kind == "sparse" for kind in types]


def _model(
    fields: Fields,
    prefix: str,
    shape: Shape,
    ranks: Ranks,
    sparse: Sequence[bool],
    defaults: tuple[int, int, int, int | None],
    *,
    indexed: Sequence[bool] | None = None,
    index_heads: int = 0,
    mlp_bias: bool = False,
    repeated: bool = True,
) -> Model:
    """The model; `repeated`: the checkpoints hold embedding and head once more for a further token (GLM-5's do not)."""
    hidden = shape.hidden_size
    named = fields.first("n_routed_experts", "num_local_experts", "num_experts")
    known, wide, shared, active = defaults
    experts = fields.integer(named, known)
    wide = fields.integer("moe_intermediate_size", wide)
    shared = wide * fields.integer("n_shared_experts", shared)
    attend, width, rank = latent_attention(fields, shape, ranks)
    index: tuple[Tensor, ...] = ()
    key = 0
    if indexed is not None:
        if rank is None:
            raise InputError(f"{fields.where}: 'q_lora_rank' is null; the sparse indexer reads compressed queries")
        index, key = _indexer(fields, hidden, rank, index_heads)
    dense = gated_mlp(hidden, shape.intermediate_size, bias=mlp_bias)
    mixed = shared_mixture(hidden, experts, wide, shared, bias=mlp_bias)

    def make(of: tuple[bool, bool]) -> Layer:
        has_experts, has_index = of
        tensors = (*attend, *(index if has_index else ()), *(mixed if has_experts else dense), *norms(shape))
        caches = (LatentCache(width), LatentCache(key, "indexer")) if has_index else (LatentCache(width),)
        return Layer("latent", tensors, caches)

    layers = each_alike(zip(sparse, indexed or [False] * shape.layers, strict=True), make)
    further = make((True, indexed is not None))
    return decoder(
        shape,
        layers,
        ends(shape, prefix),
        f"{prefix}layers",
        experts=experts,
        active_experts=fields.integer("num_experts_per_tok", active, most=experts),
        mtp_parameters=next_token_layer(fields, further, hidden, 2 * shape.vocab_size * hidden if repeated else 0),
    )


def _shape(fields: Fields, kind: str, ranks: Ranks, defaults: dict[str, object]) -> Shape:
    # the config's head_dim is that of the rotary part here
    return read_shape(fields, kind, defaults | {"head_dim": ranks.rope}, head_dim="qk_rope_head_dim")


def _first(fields: Fields, default: int, layers: int) -> list[bool]:
    first = fields.integer("first_k_dense_replace", default, least=0)
    return [index >= first for index in range(layers)]


def _deepseek_v2(fields: Fields, prefix: str = "model.") -> Model:
    shape = _shape(fields, "deepseek_v2", _V2, sized(32, 4096, 32, None, 11008, 102400, 2048))
    sparse = _first(fields, 0, shape.layers)
    bias = fields.boolean("mlp_bias")
    # the class has no default for the experts that a token meets: the published configs name six
    return _model(fields, prefix, shape, _V2, sparse, (64, 1407, 2, 6), mlp_bias=bias)


def _v3(fields: Fields, prefix: str, kind: str) -> Model:
    shape = _shape(fields, kind, _V2, sized(61, 7168, 128, 128, 18432, 129280, 4096))
    return _model(fields, prefix, shape, _V2, _first(fields, 3, shape.layers), (256, 2048, 1, 8))


def _deepseek_v3(fields: Fields, prefix: str = "model.") -> Model:
    return _v3(fields, prefix, "deepseek_v3")


def _kimi_k2(fields: Fields, prefix: str = "model.") -> Model:
    return _v3(fields, prefix, "kimi_k2")


def _deepseek_v32(fields: Fields, prefix: str = "model.") -> Model:
    shape = _shape(fields, "deepseek_v32", _V2, sized(61, 7168, 128, 128, 18432, 129280, 163840))
    sparse = sparse_by_type(fields, shape.layers, fields.integer("first_k_dense_replace", 3, least=0))
    indexed = [True] * shape.layers
    return _model(fields, prefix, shape, _V2, sparse, (256, 2048, 1, 8), indexed=indexed, index_heads=64)


def _glm4_moe_lite(fields: Fields, prefix: str = "model.") -> Model:
    ranks = Ranks(512, 768, 192, 64, 256)
    shape = _shape(fields, "glm4_moe_lite", ranks, sized(47, 2048, 20, 20, 10240, 154880, 202752))
    return _model(fields, prefix, shape, ranks, sparse_by_type(fields, shape.layers, 1), (64, 1536, 1, 4))


def _indexed(fields: Fields, layers: int) -> list[bool]:
    """Which layers of GLM-5 run an indexer; the others take the tokens that an earlier layer picked."""
    types = fields.texts("indexer_types", length=layers)
    pattern = fields.raw("index_topk_pattern")
    if types is None and isinstance(pattern, str):
        letters = {"F": "full", "S": "shared"}
        types = tuple(letters.get(letter, letter) for letter in pattern[: layers + 1])
    elif types is None and pattern is not None:
        types = fields.texts("index_topk_pattern", length=layers)
    if types is None:
        step = max(fields.integer("index_topk_freq", 1, least=0), 1)
        offset = fields.integer("index_skip_topk_offset", 2, least=0)
        return [max(index - offset + 1, 0) % step == 0 for index in range(layers)]
    if len(types) != layers or not set(types) <= {"full", "shared"}:
        fields.wrong(
            "indexer_types" if "indexer_types" in fields else "index_topk_pattern", "full or shared for each layer"
        )
    return [kind == "full" for kind in types]


def _glm_moe_dsa(fields: Fields, prefix: str = "model.") -> Model:
    shape = _shape(fields, "glm_moe_dsa", _GLM, sized(78, 6144, 64, 64, 12288, 154880, 202752))
    sparse = sparse_by_type(fields, shape.layers, fields.integer("first_k_dense_replace", 3, least=0))
    indexed = _indexed(fields, shape.layers)
    defaults = (256, 2048, 1, 8)
    return _model(fields, prefix, shape, _GLM, sparse, defaults, indexed=indexed, index_heads=32, repeated=False)


BUILDERS = {
    "deepseek_v2": _deepseek_v2,
    "deepseek_v3": _deepseek_v3,
    "deepseek_v32": _deepseek_v32,
    "glm4_moe_lite": _glm4_moe_lite,
    "glm_moe_dsa": _glm_moe_dsa,
    "kimi_k2": _kimi_k2,
}
