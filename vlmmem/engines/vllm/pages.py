"""vLLM's pages: what one block of each layer's cache takes on one GPU, by release.

A page is a block of tokens of one layer. `Page` says what a layer asks for, as KVCacheSpec and its subclasses do
(vllm/v1/kv_cache_interface.py, v0.8.5 to v0.28.0). Layers without a cache of their own ask for nothing: those that read
an earlier layer's (kv_sharing_target_layer_name), those without attention, and heads for multi-token prediction unless
they are asked to draft (speculative_config).
"""

from collections.abc import Iterator
from fractions import Fraction
from math import ceil, lcm

from vlmmem.catalog import find_format
from vlmmem.engines.releases import Release
from vlmmem.engines.settings import Settings
from vlmmem.errors import InputError
from vlmmem.formats import Format
from vlmmem.layers import Cache, KeyValueCache, LatentCache, Layer, StateCache
from vlmmem.model import Model
from vlmmem.record import record, replace
from vlmmem.strict_json import parse_json

__all__ = [
    "INDEXER_BYTES",
    "Page",
    "attention_block",
    "drafts",
    "layer_pages",
    "model_pages",
    "plain_heads",
    "state_mode",
]

INDEXER_BYTES = 132
"""Bytes a token of a sparse indexer's key: 128 of 8 bits and a scale of 4 bytes (DeepseekV32IndexerCache)."""

_BACKEND_BLOCK = 16
_LATENT_BLOCK = 64
_CHUNKS = {
    "bamba": 256,
    "granitemoehybrid": 256,
    "falcon_h1": 128,
    "nemotron_h": 128,
    "jamba": 2048,
    "mamba": 2048,
    "falcon_mamba": 2048,
}
"""Tokens of a chunk of Mamba kernels, from each family's configs; Mamba 1 has none, for which vLLM puts 2,048."""
_MTP = ("mtp", "deepseek_mtp", "qwen3_next_mtp", "qwen3_5_mtp", "glm4_moe_mtp", "ernie_mtp", "mimo_mtp")
_LONGEST = 4096
_MOST_DRAFTED = 1024


@record(frozen=True, slots=True)
class Page:
    """What one layer asks for: pages of `size` bytes, each for `block` tokens.

    `kind` is full, sliding, chunked, latent, indexer or state. `limit` is a window or chunk in tokens. `shape` tells
    apart layers whose pages are of one size but of other heads: (heads, key width, value width).
    """

    kind: str
    block: int
    size: int
    limit: int = 0
    shape: tuple[int, ...] = ()

    def key(self) -> tuple[str, int, int, int, tuple[int, ...]]:
        """Equal for layers that vLLM's dataclasses hold equal."""
        return self.kind, self.block, self.size, self.limit, self.shape

    def blocks(self, context: int, in_flight: int, states: int = 1) -> int:
        """Blocks of one sequence of `context` tokens while `in_flight` tokens are scheduled.

        Full attention holds all tokens; a sliding window the last window - 1 and those in flight, and one block
        more, as the window need not begin with a block; a chunk its own and those in flight; a state `states` blocks.

        Source: vllm/v1/kv_cache_interface.py, `max_memory_usage_bytes` of each spec, v0.8.5 to v0.28.0.

        >>> Page("sliding", 16, 1, 1024).blocks(8192, 2048), Page("full", 16, 1).blocks(8192, 2048)
        (193, 512)
        """
        if self.kind == "state":
            return states
        if self.kind == "sliding":
            return -(-min(self.limit - 1 + in_flight, context) // self.block) + 1
        if self.kind == "chunked":
            return -(-min(self.limit + in_flight, context) // self.block)
        return -(-context // self.block)


def _cache_format(settings: Settings) -> Format:
    assert settings.kv_dtype is not None
    return settings.kv_dtype


def _vector(width: int, number: Format) -> int:
    """Bytes of one vector of `width` elements, its scales with it."""
    return ceil(Fraction(width * number.bits + number.row_bits, 8))


def _state_dtype(model: Model, cache: StateCache) -> Format:
    """The number format in which vLLM keeps a state.

    Convolutions are in the model's; recurrences too, unless the config's own field is read (Qwen3.5, Nemotron-H) or the
    kernel needs 32 bits (Kimi Linear).

    Source: vllm/model_executor/layers/mamba/mamba_utils.py, MambaStateDtypeCalculator, and
    vllm/model_executor/models/config.py, v0.19.0.
    """
    model_format = find_format("bf16" if model.dtype == "fp32" else model.dtype)
    if cache.what == "convolution":
        return model_format
    own = model.architecture.startswith(("qwen3_5", "nemotron_h", "kimi_linear"))
    return find_format(cache.dtype) if own and cache.dtype else model_format


def _state_bytes(model: Model, cache: StateCache, settings: Settings) -> int:
    """Bytes of one state on one GPU: a convolution keeps one input less than it has taps, and one for each draft."""
    elements = -(-cache.elements * max(1, cache.heads // settings.tp) // cache.heads)
    if cache.what == "convolution" and cache.taps:
        elements = elements // cache.taps * (cache.taps - 1 + drafts(settings)[1])
    return elements * int(_state_dtype(model, cache).bits) // 8


def drafts(settings: Settings) -> tuple[str, int]:
    """The method of speculative decoding and the tokens that it drafts: ("", 0) without.

    Raises:
        InputError: the option speculative_config is no JSON object with a method and a number of tokens.

    >>> drafts(Settings(8192, options=(("speculative_config", '{"method": "mtp", "num_speculative_tokens": 3}'),)))
    ('mtp', 3)
    """
    asked = settings.option("speculative_config")
    if asked is None:
        return "", 0
    found = parse_json(str(asked)[:_LONGEST].encode(), "speculative_config")
    tokens = found.get("num_speculative_tokens") if isinstance(found, dict) else None
    if not isinstance(found, dict) or type(tokens) is not int or not 0 < tokens <= _MOST_DRAFTED:
        raise InputError(
            'speculative_config: a JSON object such as {"method": "mtp", "num_speculative_tokens": 3} is needed'
        )
    return str(found.get("method") or "draft_model"), tokens


def plain_heads(model: Model, tp: int) -> tuple[int, int]:
    """Heads of one GPU and their width, of a latent model that is served by plain attention; (0, 0) for the others.

    MiniCPM3 is none of the MLA model types; its keys have the width of its queries, and values are padded to it.

    Source: vllm/config/model.py, `is_deepseek_mla`, and vllm/model_executor/models/minicpm3.py, v0.19.0.
    """
    if model.architecture != "minicpm3":
        return 0, 0
    queries = next(tensor for tensor in model.decoder.layers[0].tensors if tensor.name.endswith("q_b_proj.weight"))
    return max(1, model.heads // tp), queries.outputs // model.heads


def _attention_page(model: Model, release: Release, settings: Settings, cache: Cache, block: int) -> Page:
    number = _cache_format(settings)
    if isinstance(cache, LatentCache):
        if plain_heads(model, 1)[0]:
            heads, width = plain_heads(model, settings.tp)
            return Page("full", block, block * heads * 2 * _vector(width, number), 0, (heads, width, width))
        if cache.what == "indexer":
            return Page("indexer", block, block * INDEXER_BYTES, 0, (1, cache.width))
        known = dict(number.vectors)
        if number.scope == "latent-cache" and cache.width not in known:
            raise InputError(
                f"kv_dtype: {number.id} lays out other vectors than the {cache.width} elements of {model.id}"
            )
        size = known[cache.width] if number.scope == "latent-cache" else _vector(cache.width, number)
        return Page("latent", block, block * size, 0, (1, cache.width))
    assert isinstance(cache, KeyValueCache)
    if number.scope == "latent-cache":
        raise InputError(
            f"kv_dtype: {number.id} is for latent attention, and {model.id} keeps keys and values of heads"
        )
    heads = max(1, cache.heads // settings.tp)
    # A value narrower than its key is padded to the key's width before 0.14 (AttentionSpec has one head_size).
    value = cache.value_dim if release.since("0.14") else cache.key_dim
    size = block * heads * (_vector(cache.key_dim, number) + _vector(value, number))
    shape = (heads, cache.key_dim, value)
    if cache.window is not None:
        return Page("sliding", block, size, cache.window, shape)
    if cache.chunk is not None and release.since("0.10"):
        return Page("chunked", block, size, cache.chunk, shape)
    return Page("full", block, size, 0, shape)


def _is_attention(cache: Cache) -> bool:
    return not isinstance(cache, StateCache)


def state_mode(model: Model, release: Release, settings: Settings) -> str:
    """How states are kept for shared prefixes: "none", "align" (the last ones), "all" (one of each block).

    Prefixes are cached of hybrids where that is asked, since 0.26 by default; of models without attention where it is
    asked. Mamba layers keep "all" from 0.12 to 0.26; other states none before 0.16, and "align" since.

    Source: vllm/model_executor/models/config.py, MambaModelConfig, and vllm/config/model.py,
    `is_prefix_caching_supported`, v0.11.0, v0.12.0, v0.16.0, v0.26.0, v0.28.0.

    >>> from vlmmem import find_model
    >>> asked = Settings(8192, options=(("enable_prefix_caching", True),))
    >>> state_mode(find_model("bamba-9b"), Release("0.19", (0, 19)), asked)
    'all'
    """
    caches = [cache for layer in model.decoder.layers for cache in layer.caches]
    asked = settings.option("enable_prefix_caching")
    default = release.since("0.26") and any(_is_attention(cache) for cache in caches)
    if not release.since("0.12") or not (default if asked is None else bool(asked)):
        return "none"
    chosen = settings.option("mamba_cache_mode")
    mamba = model.architecture in _CHUNKS
    if not release.since("0.16"):
        return "all" if mamba else "none"
    if chosen == "all" or (chosen in (None, "none") and not release.since("0.28")):
        return "all" if mamba else "align"
    return "align"


def attention_block(model: Model, release: Release, settings: Settings) -> int:
    """Tokens of an attention layer's block: the setting's, raised where a state's page would not fit into it.

    A hybrid's attention blocks grow, in steps of 16 tokens (64 for latent attention since 0.11.2), until a page holds a
    layer's states; what the states leave of the page is padding.

    Source: vllm/model_executor/models/config.py, HybridAttentionMambaModelConfig, v0.11.0 to v0.19.0, and
    vllm/platforms/interface.py, `_align_hybrid_block_size`, since v0.20.0.
    """
    block = settings.block_size or _BACKEND_BLOCK
    attention = [cache for layer in model.decoder.layers for cache in layer.caches if _is_attention(cache)]
    states = [
        sum(_state_bytes(model, cache, settings) for cache in layer.caches if isinstance(cache, StateCache))
        for layer, _ in model.decoder.alike()
    ]
    most = max(states, default=0)
    if not attention or not most:
        return block
    token = _attention_page(model, release, settings, attention[0], 1)
    step = _LATENT_BLOCK if token.kind == "latent" and release.since("0.11.2") else _BACKEND_BLOCK
    if release.since("0.20"):
        step = max(step, block)
    if state_mode(model, release, settings) == "all":
        step = lcm(step, _CHUNKS[model.architecture])
    return max(block, step * -(-most // (step * token.size)))


def layer_pages(model: Model, release: Release, settings: Settings, layer: Layer, block: int) -> Iterator[Page]:
    """The pages that one layer asks for: none, one, or several where it has attention and states, or an indexer."""
    states = sum(_state_bytes(model, cache, settings) for cache in layer.caches if isinstance(cache, StateCache))
    attention = [cache for cache in layer.caches if _is_attention(cache)]
    for cache in attention:
        yield _attention_page(model, release, settings, cache, block)
    if states:
        aligned = state_mode(model, release, settings) != "none"
        yield Page("state", block if aligned else settings.context, states)


def model_pages(model: Model, release: Release, settings: Settings) -> tuple[tuple[Page, ...], ...]:
    """The pages of every layer of the decoder, in order. States are padded to the page of the attention layers.

    Args:
        model: what is served.
        release: vLLM's release.
        settings: complete settings (vlmmem/engines/vllm/defaults.py).
    """
    block = attention_block(model, release, settings)
    made: dict[int, tuple[Page, ...]] = {}
    for layer, _ in model.decoder.alike():
        made[id(layer)] = tuple(layer_pages(model, release, settings, layer, block))
    attention = [page.size for pages in made.values() for page in pages if page.kind != "state"]
    if attention:
        padded = attention[0]
        for key, pages in made.items():
            made[key] = tuple(
                replace(page, size=max(page.size, padded)) if page.kind == "state" else page for page in pages
            )
    found = [made[id(layer)] for layer in model.decoder.layers]
    if drafts(settings)[0] in _MTP:
        # The head for multi-token prediction is one more layer, like the last that has attention.
        found.append(next(pages for pages in reversed(found) if any(page.kind != "state" for page in pages)))
    return tuple(found)
