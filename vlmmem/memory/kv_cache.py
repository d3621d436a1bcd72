"""Memory of what layers keep of a sequence: keys and values, latent vectors, states of recurrences and convolutions.

Each layer says what it keeps (vlmmem/layers.py), so that layers may differ in kind, heads and widths:

- attention keeps one key and one value vector a token and KV head: multi-query arXiv 1911.02150, grouped-query arXiv
  2305.13245. A sliding window of w (arXiv 2310.06825) and a chunk of w keep min(tokens, w) of them. transformers' own
  cache object holds w - 1 between two steps, as the next token brings the w-th (cache_utils.py,
  DynamicSlidingWindowLayer); engines hold more than w, which belongs to them.
- latent attention keeps one vector a token for all heads (arXiv 2405.04434, section 2.1), a sparse indexer a key more.
- linear attention, state-space layers and short convolutions keep states of one size, whatever the length, in a number
  format of their own.
- cross-attention keeps keys and values of an image's states, whatever the length of the text.

Tensor parallelism as in vLLM: KV heads divide, and where there are fewer heads than GPUs each GPU keeps a copy of one
(vllm/config/model.py, get_num_kv_heads); latent vectors stand whole on every GPU; states divide along their heads or
channel groups, with copies where there are fewer (vllm/model_executor/layers/mamba/mamba_utils.py).

A quantised vector has its scales: blocks of 32 elements in the formats of llama.cpp, of 16 in NVFP4, one float32 a
head vector in the per-token-head formats of vLLM (vllm/v1/kv_cache_interface.py). A block lies in one vector, so that
it must divide the head dimension; llama.cpp refuses others too (src/llama-context.cpp, "does not divide
n_embd_head_k").
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import ceil

from vlmmem.catalog import find_format, find_model
from vlmmem.errors import InputError
from vlmmem.formats import Format
from vlmmem.layers import Cache, KeyValueCache, LatentCache, Layer, StateCache
from vlmmem.model import Model
from vlmmem.record import record
from vlmmem.workload import check_positive

__all__ = [
    "CacheSizes",
    "cache_sizes",
    "cached_tokens",
    "kv_bytes_per_token",
    "kv_cache_bytes",
    "kv_growth",
    "kv_heads_per_rank",
    "state_bytes_per_sequence",
]

_MOST_LISTED = 1024
"""Groups of more GPUs are not named as possible."""


@record(frozen=True, slots=True)
class CacheSizes:
    """What some layers keep of one sequence on one GPU, in bytes.

    `growing` are bytes a token, one entry for all layers that keep at most as many tokens: (limit, bytes), None for
    layers that keep all. `image` is what each image of the sequence adds, `state` what it holds in any case.
    """

    growing: tuple[tuple[int | None, int], ...]
    image: int
    state: int

    def growing_bytes(self, context: int) -> int:
        """Bytes of the part that grows, of a sequence of `context` tokens; of an array of lengths, an array."""
        # Lengths beyond a limit are cut by as much as they are beyond: the lesser of two for integers and arrays alike.
        return sum(
            size * (context if limit is None else context - (context - limit) * (context > limit))
            for limit, size in self.growing
        )

    def fixed_bytes(self, images: int = 0) -> int:
        """Bytes of the part that does not."""
        return self.state + images * self.image


def cache_sizes(
    model: str | Model, kv_dtype: str | Format = "bf16", tp: int = 1, *, layers: Sequence[Layer] | None = None
) -> CacheSizes:
    """What a model's layers keep of one sequence on one GPU: growing and fixed parts apart.

    Args:
        model: a model or its name.
        kv_dtype: the number format of keys, values and latent vectors, or its name. States keep their own.
        tp: GPUs of the tensor-parallel group.
        layers: the layers that are meant, such as those of a pipeline stage; None is all of the decoder.

    Raises:
        InputError: `kv_dtype` is not a format in which such a cache is kept, or `tp` does not divide the heads.

    >>> cache_sizes("mistral-7b")
    CacheSizes(growing=((4096, 131072),), image=0, state=0)
    """
    model = find_model(model) if isinstance(model, str) else model
    number = find_format(kv_dtype) if isinstance(kv_dtype, str) else kv_dtype
    if not number.kv_cache:
        raise InputError(f"kv_dtype: a KV cache is not kept in {number.id}; bf16, fp16, fp8 and q8_0 are such formats")
    _check_split(model, tp)
    growing: dict[int | None, int] = {}
    image = state = 0
    for cache, count in _counted(model.decoder.layers if layers is None else layers):
        if isinstance(cache, StateCache):
            held = find_format(cache.dtype or model.dtype)
            elements = -(-cache.elements * _share(cache.heads, tp) // cache.heads)
            state += count * _whole(elements * held.bits)
        elif isinstance(cache, LatentCache):
            growing[None] = growing.get(None, 0) + count * _latent_bytes(model, cache, number)
        else:
            vectors = _vector_bytes(model, cache.key_dim, number) + _vector_bytes(model, cache.value_dim, number)
            size = count * _share(cache.heads, tp) * vectors
            if cache.states is None:
                growing[cache.limit] = growing.get(cache.limit, 0) + size
            else:
                image += cache.states * size
    # Layers that keep all tokens stand first, then the others by their limit.
    order = sorted(growing, key=lambda limit: limit or 0)
    return CacheSizes(tuple((limit, growing[limit]) for limit in order), image, state)


def kv_heads_per_rank(model: str | Model, tp: int = 1) -> int:
    """KV heads that one GPU of a tensor-parallel group of `tp` GPUs keeps.

    The query heads must divide evenly over the GPUs. KV heads divide too; where there are fewer KV heads
    than GPUs, each GPU keeps a copy of one: max(1, KV heads / tp). Where layers differ it is the most that one of
    them keeps; the vector of latent attention counts as one head.

    Args:
        model: a model or its name.
        tp: GPUs of the tensor-parallel group, 1 or more.

    Raises:
        InputError: `tp` is not a positive integer, or does not divide the heads evenly.

    >>> [kv_heads_per_rank("llama-3.1-70b", tp) for tp in (1, 4, 8, 16)]
    [8, 2, 1, 1]
    """
    model = find_model(model) if isinstance(model, str) else model
    _check_split(model, tp)
    heads = (
        cache.heads if isinstance(cache, KeyValueCache) else 1
        for cache, _ in _counted(model.decoder.layers)
        if not isinstance(cache, StateCache)
    )
    return max((_share(count, tp) for count in heads), default=0)


def kv_growth(model: str | Model, kv_dtype: str | Format = "bf16", tp: int = 1) -> dict[str, int]:
    """Bytes that one more token of one sequence adds on one GPU, before and after every window is full.

    Args:
        model: a model or its name.
        kv_dtype: the number format of keys, values and latent vectors, or its name.
        tp: GPUs of the tensor-parallel group.

    Returns:
        "below_window", while every sliding window and chunk has room, and "beyond_window", when all are full.

    Raises:
        InputError: as `cache_sizes` says.

    >>> kv_growth("mistral-7b"), kv_growth("llama-3.1-8b")
    ({'below_window': 131072, 'beyond_window': 0}, {'below_window': 131072, 'beyond_window': 131072})
    """
    growing = cache_sizes(model, kv_dtype, tp).growing
    return {
        "below_window": sum(size for _, size in growing),
        "beyond_window": sum(size for limit, size in growing if limit is None),
    }


def kv_bytes_per_token(model: str | Model, kv_dtype: str | Format = "bf16", tp: int = 1) -> int:
    """Bytes that one more token of one sequence adds on one GPU, while every sliding window has room.

    The sum over the layers of KV heads of the GPU x (key width + value width) x bits / 8; where layers are alike,
    2 x layers x KV heads x head_dim x bits / 8. Latent attention has one vector a layer, states add nothing.

    Args:
        model: a model or its name.
        kv_dtype: the number format of keys and values, or its name.
        tp: GPUs of the tensor-parallel group.

    Raises:
        InputError: as `cache_sizes` says.

    Published values: LLaMA-2 13B 819,200 B, Llama-3.1-70B 327,680 B.

    >>> kv_bytes_per_token("llama-2-13b"), kv_bytes_per_token("llama-3.1-70b")
    (819200, 327680)
    """
    return kv_growth(model, kv_dtype, tp)["below_window"]


def state_bytes_per_sequence(model: str | Model, kv_dtype: str | Format = "bf16", tp: int = 1, images: int = 0) -> int:
    """Bytes that one sequence holds on one GPU whatever its length: states, and keys and values of its images.

    Args:
        model: a model or its name.
        kv_dtype: the number format of an image's keys and values. States keep their own.
        tp: GPUs of the tensor-parallel group.
        images: images of the sequence; only cross-attention keeps them apart from the text.

    Raises:
        InputError: `images` is not an integer of 0 or more, or as `cache_sizes` says.

    >>> state_bytes_per_sequence("llama-3.1-8b", images=3)
    0
    """
    _check_images(images)
    return cache_sizes(model, kv_dtype, tp).fixed_bytes(images)


def cached_tokens(model: str | Model, context: int) -> int:
    """The most tokens that a layer keeps of a sequence of `context` tokens: all, or those in its sliding window.

    0 where no layer keeps any. Engines keep a margin above the window; that belongs to the engine, not to the model.

    >>> cached_tokens("mistral-7b", 32_768), cached_tokens("llama-3.1-8b", 32_768)
    (4096, 32768)
    """
    model = find_model(model) if isinstance(model, str) else model
    check_positive("context", context)
    kept = [
        context if cache.limit is None else min(context, cache.limit)
        for cache, _ in _counted(model.decoder.layers)
        if isinstance(cache, LatentCache) or (isinstance(cache, KeyValueCache) and cache.states is None)
    ]
    return max(kept, default=0)


def kv_cache_bytes(
    model: str | Model,
    context: int,
    batch: int = 1,
    kv_dtype: str | Format = "bf16",
    tp: int = 1,
    *,
    images: int = 0,
    layers: Sequence[Layer] | None = None,
) -> int:
    """Bytes of all that layers keep of the sequences on one GPU, states included.

    Sequences x (the sum over the layers of bytes a token x tokens kept + states + images x bytes an image).

    Args:
        model: a model or its name.
        context: tokens of each sequence, prompt and answer together. It may exceed the model's positions.
        batch: sequences held at once.
        kv_dtype: the number format of keys and values, or its name.
        tp: GPUs of the tensor-parallel group.
        images: images of each sequence; only cross-attention keeps them apart from the text.
        layers: the layers that are meant, such as those of a pipeline stage; None is all of the decoder.

    Raises:
        InputError: context or batch is not a positive integer, images not one of 0 or more, or as `cache_sizes` says.

    >>> kv_cache_bytes("llama-2-13b", context=8192, batch=10)
    67108864000
    """
    check_positive("context", context)
    check_positive("batch", batch)
    _check_images(images)
    sizes = cache_sizes(model, kv_dtype, tp, layers=layers)
    return batch * (sizes.growing_bytes(context) + sizes.fixed_bytes(images))


def _counted(layers: Sequence[Layer]) -> Iterable[tuple[Cache, int]]:
    """Each cache of layers that differ, and in how many layers it is."""
    counts: dict[int, int] = {}
    different: dict[int, Layer] = {}
    for layer in layers:
        counts[id(layer)] = counts.get(id(layer), 0) + 1
        different[id(layer)] = layer
    return [(cache, counts[key]) for key, layer in different.items() for cache in layer.caches]


def _share(heads: int, tp: int) -> int:
    """Heads of one GPU of a group, whose number divides the heads or is a multiple of them."""
    return max(1, heads // tp)


def _whole(bits: Fraction) -> int:
    """Whole bytes for so many bits."""
    return ceil(bits / 8)


def _vector_bytes(model: Model, width: int, number: Format) -> int:
    """Bytes of one key or value vector of `width` elements, with its scales."""
    if number.scope == "latent-cache":
        raise InputError(
            f"kv_dtype: {number.id} is a layout of latent attention, and {model.id or model.architecture} keeps keys "
            "and values of heads; bf16, fp8 and q8_0 are formats for those"
        )
    if width % number.block:
        raise InputError(
            f"kv_dtype: blocks of {number.block} elements ({number.id}) do not divide the vectors of {width} elements "
            f"of {model.id or model.architecture}; bf16 and fp8 have no blocks"
        )
    return _whole(width * number.bits + number.row_bits)


def _latent_bytes(model: Model, cache: LatentCache, number: Format) -> int:
    """Bytes of one latent vector or indexer key, with its scales."""
    name = model.id or model.architecture
    if number.scope == "cache":
        raise InputError(
            f"kv_dtype: {number.id} has a scale for each head, and {name} keeps one latent vector for all; bf16, fp8 "
            "and fp8_ds_mla are formats for that"
        )
    if number.scope != "latent-cache":
        return _vector_bytes(model, cache.width, number)
    known = dict(number.vectors)
    if cache.width not in known:
        widths = " and ".join(str(width) for width in known)
        raise InputError(
            f"kv_dtype: {number.id} lays out vectors of {widths} elements; {name} keeps {cache.width} in its "
            f"{cache.what} cache, for which bf16 and fp8 are formats"
        )
    return known[cache.width]


def _check_images(images: object) -> None:
    if type(images) is not int or images < 0:
        raise InputError(f"images: {images!r} was given; an integer of 0 or more is needed")


def _check_split(model: Model, tp: object) -> None:
    """Raise InputError where a group of `tp` GPUs cannot divide heads, KV heads and states evenly."""
    check_positive("tp", tp)
    assert isinstance(tp, int)
    caches = [cache for cache, _ in _counted(model.decoder.layers)]
    keys = sorted({cache.heads for cache in caches if isinstance(cache, KeyValueCache)})
    states = sorted({cache.heads for cache in caches if isinstance(cache, StateCache)})
    others = {*keys, *states}
    if _splits(model.heads, others, tp):
        return
    found = [str(gpus) for gpus in range(1, min(model.heads, _MOST_LISTED) + 1) if _splits(model.heads, others, gpus)]
    what = [f"{model.heads} heads"]
    what += [f"{' or '.join(map(str, keys))} KV heads"] if keys else []
    what += [f"{' or '.join(map(str, states))} heads of states"] if states else []
    possible = f"possible are {', '.join(found[:-1])} and {found[-1]}" if len(found) > 1 else "possible is 1"
    raise InputError(f"tp: {tp} GPUs cannot split {' and '.join(what)} of {model.id} evenly; {possible}")


def _splits(heads: int, others: set[int], tp: int) -> bool:
    """Whether a group divides the query heads, and divides or is a multiple of each other count of heads."""
    return heads % tp == 0 and all(count % tp == 0 or tp % count == 0 for count in others)
