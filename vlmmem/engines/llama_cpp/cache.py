"""What llama.cpp keeps of the sequences: cells, keys, values and recurrent states, layer by layer.

Sources, by file and build: src/llama-kv-cache.cpp (to b6300 llama-kv-cache-unified.cpp), llama-kv-cache-iswa.cpp,
llama-memory-recurrent.cpp, llama-hparams.cpp (`n_embd_k_gqa`, `n_embd_r`, `n_embd_s`), llama-context.cpp and
llama-model.cpp (`create_memory`).
"""

from vlmmem.engines.releases import Release
from vlmmem.errors import InputError
from vlmmem.layers import KeyValueCache, LatentCache, Layer, StateCache
from vlmmem.model import Model
from vlmmem.record import record

__all__ = ["CACHE_TYPES", "LayerCache", "Layout", "layer_cache", "row_bytes"]

CACHE_TYPES = {
    "f32": (1, 4), "f16": (1, 2), "bf16": (1, 2), "q8_0": (32, 34), "q4_0": (32, 18), "q4_1": (32, 20),
    "iq4_nl": (32, 18), "q5_0": (32, 22), "q5_1": (32, 24),
}  # fmt: skip
"""Types of --cache-type-k and -v: elements and bytes of a block. common/arg.cpp, `kv_cache_types`."""

SLIDING = (
    "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "gemma4", "gemma4_text", "cohere2", "gpt_oss",
    "gpt-oss", "llama4", "llama4_text", "exaone4", "exaone_moe", "exaone-moe", "olmo3", "olmo2", "smallthinker",
    "mimo_v2_flash", "mimo2", "step3p5", "step35", "afmoe", "plamo3", "laguna",
)  # fmt: skip
"""Architectures whose windows llama.cpp keeps (src/models/*.cpp, `hparams.swa_type`); in all others a sliding layer
holds every token: Mistral's and Qwen2's window is not read."""

_MLA = "b5217"
_KEYS_ONLY = "b8672"
_WINDOWS = "b5671"


@record(frozen=True, slots=True)
class Layout:
    """Cells of the caches: `cells` of a full layer, `sliding` of one with a window, for each of `streams`.

    `context` is n_ctx as the log prints it, `sequence` what one sequence may have of it. `sequences` is n_seq_max.
    """

    context: int
    sequence: int
    cells: int
    sliding: int
    streams: int
    sequences: int


@record(frozen=True, slots=True)
class LayerCache:
    """Bytes that a layer keeps: keys, values, convolution state (R), recurrent state (S); whether it slides."""

    keys: int = 0
    values: int = 0
    convolution: int = 0
    recurrent: int = 0
    sliding: bool = False

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.keys + self.values + self.convolution + self.recurrent


def padded(value: int, multiple: int) -> int:
    """`value`, rounded up to a multiple."""
    return -(-value // multiple) * multiple


def row_bytes(kind: str, elements: int, what: str = "cache_type_k") -> int:
    """Bytes of one cell's elements in a type of cache.

    Raises:
        InputError: there is no such type, or its block does not divide the elements.

    >>> row_bytes("q8_0", 1024), row_bytes("f16", 1024)
    (1088, 2048)
    """
    if kind not in CACHE_TYPES:
        raise InputError(f"{what}: {kind!r} is no type of llama.cpp's cache; one of {', '.join(CACHE_TYPES)} is needed")
    block, size = CACHE_TYPES[kind]
    if elements % block:
        raise InputError(
            f"{what}: {kind} has blocks of {block}, which do not divide {elements} elements; f16 is needed"
        )
    return elements // block * size


def layout(
    model: Model, release: Release, *, context: int, sequences: int, unified: bool, flash: bool, ubatch: int, full: bool
) -> Layout:
    """The cells of each cache.

    Before b7000 the cache is padded to 256 cells under flash attention and to 32 without (`get_padding`); since then
    n_ctx itself is padded to 256, and so is what each sequence has of it. A sliding layer has n_swa cells for each
    sequence of its stream and n_ubatch more, padded; with `full` (--swa-full) as many as a full one.
    """
    window = max((cache.limit or 0) for layer in model.decoder.layers for cache in _keeps(layer) if _slides(cache))
    # windows of a model that never slides are not asked for
    if release.since("b7079"):
        pad = 256
        context = padded(context, 256)
        if unified:
            each, streams = context, 1
        else:
            each, streams = padded(context // sequences, 256), sequences
            context = each * sequences
        cells = each
    else:
        pad = 256 if flash else 32
        split = release.since("b6123") and not unified
        streams = sequences if split else 1
        each = context // sequences
        cells = padded(context // streams, pad)
    slides = window > 0 and release.since(_WINDOWS) and model.architecture in SLIDING
    wanted = window * (1 if streams > 1 else sequences) + ubatch
    small = padded(min(cells, wanted), 256) if release.since("b7079") else min(cells, padded(wanted, pad))
    return Layout(context, each, cells, small if slides and not full else cells, streams, sequences)


def _keeps(layer: Layer) -> tuple[KeyValueCache, ...]:
    none = (KeyValueCache(0, 0, 0),)
    return tuple(cache for cache in layer.caches if isinstance(cache, KeyValueCache)) or none


def _slides(cache: KeyValueCache) -> bool:
    return cache.states is None


def layer_cache(
    model: Model, layer: Layer, release: Release, cells: Layout, *, keys: str, values: str, flash: bool
) -> LayerCache:
    """What one layer keeps, of all sequences.

    Raises:
        InputError: the type of the cache does not fit, or the layer's cache is of a kind that llama.cpp has not.
    """
    k = v = convolution = recurrent = 0
    sliding = False
    for cache in layer.caches:
        if isinstance(cache, KeyValueCache):
            if cache.states is not None:
                raise InputError(
                    f"{model.id or model.architecture}: llama.cpp has no cross-attention to images; another engine,"
                    " such as vllm, is needed"
                )
            sliding = cache.limit is not None and model.architecture in SLIDING and release.since(_WINDOWS)
            rows = (cells.sliding if sliding else cells.cells) * cells.streams
            k += rows * row_bytes(keys, cache.heads * cache.key_dim)
            width = cache.heads * cache.value_dim
            if not flash:
                width = max(width, _widest(model))
            v += rows * row_bytes(values, width, "cache_type_v")
        elif isinstance(cache, LatentCache):
            rows = cells.cells * cells.streams
            if cache.what != "latent":
                if release.since("b9538"):
                    k += rows * row_bytes(keys, cache.width)
                continue
            if release.since(_MLA):
                k += rows * row_bytes(keys, cache.width)
                if not release.since(_KEYS_ONLY):
                    v += rows * row_bytes(values, cache.width - _rope(layer), "cache_type_v")
            else:
                k += rows * row_bytes(keys, model.heads * _query_head(model, layer))
                v += rows * row_bytes(values, model.heads * _value_head(model, layer), "cache_type_v")
        elif isinstance(cache, StateCache):
            elements = cache.elements
            if cache.what == "convolution":
                if cache.taps:
                    # the oldest input of each channel falls out, and is not kept
                    elements = elements // cache.taps * (cache.taps - 1)
                convolution += 4 * elements * cells.sequences
            else:
                recurrent += 4 * elements * cells.sequences
    return LayerCache(k, v, convolution, recurrent, sliding)


def _widest(model: Model) -> int:
    """The widest values of a layer: without flash attention the cache of values is transposed, and padded to it."""
    return max(
        cache.heads * cache.value_dim
        for layer in model.decoder.layers
        for cache in _keeps(layer)
        if cache.states is None
    )


def _rope(layer: Layer) -> int:
    """Width of the part of a latent key that turns with its position."""
    for tensor in layer.tensors:
        if "kv_b_proj" in tensor.name or "attn_kv_b." in tensor.name:
            width = next(cache.width for cache in layer.caches if isinstance(cache, LatentCache))
            return width - tensor.inputs
    return 64


def _query_head(model: Model, layer: Layer) -> int:
    for tensor in layer.tensors:
        if tensor.name.startswith(("self_attn.q_proj", "self_attn.q_b_proj", "attn_q_b.", "attn_q.")):
            return tensor.outputs // model.heads
    return model.head_dim


def _value_head(model: Model, layer: Layer) -> int:
    for tensor in layer.tensors:
        if tensor.name.startswith(("self_attn.o_proj", "attn_output.")):
            return tensor.inputs // model.heads
    return model.head_dim
