"""SGLang: the static share of a GPU, and what weights leave of it for the pools, by release.

Let B be the memory that is free before the weights are loaded and U what loading them takes. The pools get

    B x mem_fraction_static - U

(python/sglang/srt/model_executor/model_runner.py, profile_max_num_token; since v0.5.9 model_runner_kv_cache_mixin.py).
The rest, B x (1 - mem_fraction_static), is left for activations and CUDA graphs; the table of tokens of each request
comes out of it too. Without --mem-fraction-static (server_args.py):

- before v0.4.8 a share by GPUs of a group: 0.88, 0.87, 0.85, 0.81 (0.82 in v0.3), 0.79 for 1, 2, 4, 8, 16; since
  v0.4.6 0.88 above 80 GiB, and above 96 GiB 48 GiB less is set aside in proportion;
- v0.4.8 to v0.5.2 a reserve by the GPU's size: (2.8 + n / 10) GiB below 35 GiB, (9.5 + n / 2) below 90, (12 + n / 2)
  below 160, 32 GiB above, n = tp x pp;
- since v0.5.3 512 + 1.5 max(chunked_prefill_size, 2,048) + 2 cuda_graph_max_bs + 128 n MiB, and from v0.5.11 8 MiB for
  each size of a piecewise CUDA graph (1.5 GiB with latent attention); 10 GiB at least above 60 GiB. From v0.5.16 on
  pools may be sized after the graphs instead (SGLANG_ENABLE_POST_CAPTURE_KV_SIZING, off by default): not priced.

A model that sees gets less: x 0.95, from v0.4.4 x 0.9, and from v0.4.9 x 0.95 (1 - 0.1 (s - 1)), within 0.8 and 1.05,
where s compares num_hidden_layers x hidden_size^2 of vision_config with ViT-L/14's. To v0.4.8 a given share too.

A token costs KV heads of the GPU x (key width + value width) in each layer, latent attention one vector; every layer
holds every token, but for sliding windows where SGLang keeps two pools (v0.4.9 to v0.5.7 most families, but Gemma 2,
3, 3n and gpt-oss; since v0.5.9 gpt-oss, Llama 4, MiMo-V2, Step-3.5 and, since v0.5.11, Gemma 4): then the sliding pool
holds swa_full_tokens_ratio (0.8) of the tokens of the full one. Recurrent states get mamba_full_memory_ratio / (1 +
mamba_full_memory_ratio) of the rest, 0.9 by default, since v0.5.3. Each pool has one page more than its tokens
(mem_cache/memory_pool.py).
"""

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

from vlmmem.catalog import find_format
from vlmmem.engines.allocator import CachingAllocator
from vlmmem.engines.fused import fused_name
from vlmmem.engines.releases import Release
from vlmmem.engines.reservation import Reservation
from vlmmem.engines.settings import Settings
from vlmmem.errors import InputError
from vlmmem.formats import Format
from vlmmem.layers import KeyValueCache, LatentCache, Layer, StateCache
from vlmmem.memory.kv_cache import cache_sizes
from vlmmem.memory.weights import tensor_bits
from vlmmem.model import Model
from vlmmem.parallelism import gpu_shares, stage_layers, stage_part
from vlmmem.record import record, replace
from vlmmem.strict_json import read_json
from vlmmem.terms import Term
from vlmmem.units import exact
from vlmmem.workload import Parallelism, Workload

__all__ = ["RELEASES", "kv_capacity", "mem_fraction_static", "reserve"]

RELEASES = (
    "0.3.6",
    "0.4.1",
    "0.4.3",
    "0.4.4",
    "0.4.6",
    "0.4.8",
    "0.4.9",
    "0.4.10",
    "0.5.1",
    "0.5.2",
    "0.5.3",
    "0.5.4",
    "0.5.5",
    "0.5.7",
    "0.5.9",
    "0.5.11",
    "0.5.13",
    "0.5.16",
    "0.5.20",
    "0.5.23",
)
"""The releases whose code was read."""

_TAGS = {
    "0.3.6": "0.3.6.post3",
    "0.4.1": "0.4.1.post7",
    "0.4.3": "0.4.3.post4",
    "0.4.4": "0.4.4.post4",
    "0.4.6": "0.4.6.post5",
    "0.4.8": "0.4.8.post1",
    "0.4.9": "0.4.9.post6",
    "0.4.10": "0.4.10.post2",
    "0.5.1": "0.5.1.post3",
    "0.5.3": "0.5.3.post3",
    "0.5.4": "0.5.4.post3",
    "0.5.13": "0.5.13.post1",
}
_CODE = "https://github.com/sgl-project/sglang/blob/v"
_MIB, _GIB = 2**20, 2**30

# server_args.py before v0.4.8: the share by GPUs of a group.
_SHARES = ((16, "0.79"), (8, "0.81"), (4, "0.85"), (2, "0.87"), (1, "0.88"))
_TWO_POOLS_LISTED = ("llama4", "llama4_text", "gpt_oss", "mimo_v2_flash", "step3p5")
_TWO_POOLS_LATER = ("gemma4", "gemma4_text", "gemma4_unified")
_TWO_POOLS_NEVER = ("gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "gpt_oss", "olmo3", "olmo2")
_SWA_RATIO, _STATE_RATIO = "0.8", "0.9"
_EXTRA_CONTEXT = 4  # columns of the table of a request's tokens beyond its context (init_memory_pool)
_FLOAT32 = 4
_SMALL = 2**16  # norms and biases are of this size, matrices larger
_MOST_POSITIONS = 2**24
_LATENT_ROTARY = 64  # qk_rope_head_dim of every published model with latent attention
_NO_TABLES = ("gemma3", "gemma3_text", "gpt2", "opt", "mpt", "bloom")
_TWO_ROTATIONS = ("gemma4", "gemma4_text", "gemma4_unified", "gemma3n", "gemma3n_text")
_QUARTER_ROTATED = ("qwen3_next", "qwen3_5", "qwen3_5_moe")
_DEPTH = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "glm4v", "glm4v_moe")
# models/gemma3_causal.py, Gemma3TextScaledWordEmbedding: no VocabParallelEmbedding, so that every rank has it whole
_WHOLE_EMBEDDING = ("gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "gemma4", "gemma4_text", "gemma4_unified")
_LARGE_GPU = 60 * 1024  # MiB


@cache
def _constants() -> dict[str, Any]:
    found: dict[str, Any] = read_json(Path(__file__).with_name("sglang_constants.json"))
    return found


@record(frozen=True, slots=True)
class _Pools:
    """What the pools hold: tokens of the full layers, of the sliding ones, states, and their bytes."""

    tokens: int
    sliding_tokens: int | None
    states: int
    kv_bytes: int
    state_bytes: int
    k_bytes: int
    v_bytes: int


# settings


def _gpu_mib(settings: Settings) -> int:
    """MiB of the GPU as nvidia-smi counts them (get_nvgpu_memory_capacity): more than CUDA has."""
    total = settings.gpu.memory_bytes if settings.gpu is not None else settings.gpu_bytes
    if total is None:
        raise InputError("sglang: its pools depend on the GPU's memory; a GPU is needed, such as --gpu h100-80gb")
    return total // _MIB


def _chunked(release: Release, settings: Settings, mib: int) -> int:
    if settings.batch_tokens is not None:
        return settings.batch_tokens
    if not release.since("0.4.8"):
        return 2048 if mib < 25_000 else 16384 if mib > 160 * 1024 and release.since("0.4.6") else 8192
    if not release.since("0.5.3"):
        return 2048 if mib < 35 * 1024 else 8192 if mib < 160 * 1024 else 16384
    small = 4096 if release.since("0.5.20") and mib >= 20 * 1024 else 2048
    for below, size in ((35, small), (60, 4096), (160, 8192)):
        if mib < below * 1024:
            return size
    return 16384


def _graph_max(release: Release, settings: Settings, mib: int) -> int:
    given = settings.option("cuda_graph_max_bs")
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    few = settings.tp < 4
    if not release.since("0.4.8"):
        small = (4 if not release.since("0.4") else 8) if few else 80
        return small if mib < 25_000 else 160
    if not release.since("0.5.3"):
        if mib < 35 * 1024:
            return 8 if few else 80
        return 160 if mib <= 90 * 1024 else 256 if mib <= 160 * 1000 else 512
    middle = (48, 160) if release.since("0.5.20") else (24, 80) if release.since("0.5.4") else (16, 80)
    steps = ((20, 8, 8), (35, *middle), (60, 32, 160), (160, 256, 512))
    return next((low if few else high for below, low, high in steps if mib < below * 1024), 512)


def _piecewise_sizes(most: int) -> int:
    """How many sizes a piecewise CUDA graph is captured for (_generate_piecewise_cuda_graph_tokens, v0.5.13)."""
    sizes = [*range(4, 33, 4), *range(48, 257, 16), *range(288, 513, 32), *range(576, 1025, 64)]
    sizes += [*range(1280, 4097, 256), *range(4608, most + 1, 512)]
    return sum(size <= most for size in sizes)


def _latent(model: Model) -> bool:
    return any(isinstance(cache, LatentCache) for layer, _ in model.decoder.alike() for cache in layer.caches)


def _reserve_mib(model: Model, release: Release, settings: Settings, mib: int) -> float:
    """MiB that a default share leaves to activations and graphs, since v0.4.8."""
    gpus = settings.tp * settings.pp
    if not release.since("0.5.3"):
        if mib < 35 * 1024:
            return (2.8 + gpus / 10) * 1024
        if mib < 90 * 1024:
            return (9.5 + gpus / 2) * 1024
        return (12 + gpus / 2) * 1024 if mib < 160 * 1024 else 32 * 1024
    chunk = _chunked(release, settings, mib)
    reserve_mib = 512 + max(chunk, 2048) * 1.5 + _graph_max(release, settings, mib) * 2 + gpus / 8 * 1024
    if release.since("0.5.11") and model.vision is None and settings.pp == 1 and not settings.eager:
        most = min(chunk, settings.context) if not _latent(model) else 2048
        reserve_mib += 1.5 * 1024 if _latent(model) else 8 * _piecewise_sizes(most)
    return max(reserve_mib, 10 * 1024) if mib > _LARGE_GPU else reserve_mib


def _vision_factor(model: Model, release: Release) -> float:
    tower = model.vision
    if tower is None:
        return 1.0
    if not release.since("0.4.9"):
        return 0.90 if release.since("0.4.4") else 0.95
    # num_hidden_layers is 24 where a config calls it depth; Qwen2-VL's hidden_size is the decoder's
    layers = 24 if model.architecture in _DEPTH else tower.layers
    width = model.hidden_size if model.architecture == "qwen2_vl" else tower.hidden_size
    complexity = layers * width**2 / (24 * 1024**2)
    return 0.95 * max(0.8, min(1.05, 1.0 - 0.1 * (complexity - 1.0)))


def mem_fraction_static(model: Model, release: Release, settings: Settings) -> float:
    """The share of the free memory that weights and pools get.

    Args:
        model: the model.
        release: of SGLang.
        settings: its `utilization` counts where it is given.

    Raises:
        InputError: no GPU is named and no share given.

    >>> from vlmmem import find_gpu, find_model
    >>> from vlmmem.engines.releases import find_release
    >>> settings = Settings(8192, gpu=find_gpu("h100-80gb"))
    >>> model = find_model("llama-3.1-8b")
    >>> [mem_fraction_static(model, find_release("sglang", RELEASES, v), settings) for v in ("0.4.3", "0.5.2", "0.5.5")]
    [0.88, 0.874, 0.835]
    """
    given = settings.utilization
    if given is not None:
        # to v0.4.8 the model runner lowered a given share too
        return given if release.since("0.4.9") else given * _vision_factor(model, release)
    mib = _gpu_mib(settings)
    gpus = settings.tp * settings.pp
    if release.since("0.4.8"):
        share = round((mib - _reserve_mib(model, release, settings, mib)) / mib, 3)
    else:
        share = float(next(text for least, text in _SHARES if settings.tp >= least))
        if not release.since("0.4") and settings.tp == 8:
            share = 0.82
        if release.since("0.4.6"):
            share = share if mib <= 81920 else 0.88
            if mib > 96 * 1024:
                share = min(share + 48 * 1024 * (1 - share) / mib, (mib - 1024 * 18) / mib)
    if share <= 0:
        raise InputError(
            f"sglang: a GPU of {mib:,} MiB leaves nothing after {gpus} GPUs' reserve; a larger one is needed"
        )
    return share * _vision_factor(model, release)


# pools


def _two_pools(model: Model, release: Release) -> bool:
    """Whether sliding layers have a pool of their own."""
    windows = any(limit is not None for limit, _ in cache_sizes(model).growing)
    if not windows or not release.since("0.4.9"):
        return False
    if not release.since("0.5.9"):
        listed = _TWO_POOLS_NEVER if release.since("0.5.1") else ("gemma2",) if release.since("0.4.10") else ()
        return model.architecture not in (*listed, "llama4", "llama4_text")
    return model.architecture in _TWO_POOLS_LISTED or (
        release.since("0.5.11") and model.architecture in _TWO_POOLS_LATER
    )


def _cell(layers: tuple[Layer, ...], number: Format, tp: int, *, sliding: bool | None) -> tuple[int, int]:
    """Bytes of keys and of values that a token has in the layers: all (None), sliding ones or the others."""
    keys = values = 0
    for layer in layers:
        for each in layer.caches:
            if isinstance(each, LatentCache):
                keys += ceil(each.width * number.bits / 8)
            elif isinstance(each, KeyValueCache) and each.states is None:
                if sliding is not None and (each.limit is not None) != sliding:
                    continue
                heads = max(1, each.heads // tp)
                keys += heads * ceil(each.key_dim * number.bits / 8)
                values += heads * ceil(each.value_dim * number.bits / 8)
    return keys, values


def _state_bytes(model: Model, layers: tuple[Layer, ...], tp: int) -> int:
    """Bytes of the states of one sequence: a convolution's window is one tap shorter than its kernel."""
    found = 0
    for layer in layers:
        for each in layer.caches:
            if isinstance(each, StateCache):
                elements = -(-each.elements * max(1, each.heads // tp) // each.heads)
                if each.taps > 1:
                    elements = elements * (each.taps - 1) // each.taps
                found += ceil(elements * find_format(each.dtype or model.dtype).bits / 8)
    return found


def _number(model: Model, settings: Settings) -> Format:
    asked = settings.kv_dtype
    if asked is not None:
        return asked
    return find_format("bf16" if model.dtype == "fp32" else model.dtype)


def _ratio(settings: Settings, name: str, default: str) -> float:
    given = settings.option(name)
    if given is None:
        return float(default)
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= 100:
        raise InputError(f"{name}: {given!r} was given; a number from 0 is needed, such as {default}")
    return float(given)


def _pools(model: Model, release: Release, settings: Settings, rest: int) -> _Pools:
    """What `rest` bytes are cut into.

    Raises:
        InputError: nothing is left, or the format is none of a cache.
    """
    number, page = _number(model, settings), settings.block_size or 1
    stages = tuple(stage_part(model, settings.pp, stage).layers for stage in range(settings.pp))
    found: _Pools | None = None
    for layers in stages:
        pools = _stage_pools(model, release, settings, rest, layers, number, page)
        if found is None or pools.tokens < found.tokens:
            found = pools
    assert found is not None
    return found


def _stage_pools(
    model: Model,
    release: Release,
    settings: Settings,
    rest: int,
    layers: tuple[Layer, ...],
    number: Format,
    page: int,
) -> _Pools:
    states = state_bytes = 0
    per_request = _state_bytes(model, layers, settings.tp)
    if per_request and release.since("0.5.3"):
        given = settings.option("max_mamba_cache_size")
        if isinstance(given, int) and not isinstance(given, bool) and given > 0:
            states = given
        elif settings.option("disable_radix_cache") is True and settings.sequences is not None:
            states = settings.sequences
        else:
            ratio = _ratio(settings, "mamba_full_memory_ratio", _STATE_RATIO)
            states = int(rest * ratio / (1 + ratio)) // per_request
        rest -= states * per_request
        state_bytes = (states + 1) * per_request
    keys, values = _cell(layers, number, settings.tp, sliding=None)
    if not keys + values:
        raise InputError(f"{model.id}: no layer keeps keys and values of a token; SGLang's pool is of such layers")
    limit = settings.option("max_total_tokens")
    most = limit if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0 else None
    if not _two_pools(model, release):
        tokens = rest // (keys + values)
        tokens = min(tokens, most or tokens) // page * page
        return _pools_of(tokens, None, states, state_bytes, (tokens + page) * keys, (tokens + page) * values)
    ratio = _ratio(settings, "swa_full_tokens_ratio", _SWA_RATIO)
    full, sliding = (_cell(layers, number, settings.tp, sliding=each) for each in (False, True))
    if release.since("0.5.9"):
        cost = exact(sum(full)) + exact(ratio) * sum(sliding)
        tokens = int(rest / cost) if sum(full) else rest // sum(sliding)
    else:
        # v0.4.9 to v0.5.7 share out tokens of layers, whatever a token costs in each (set_num_token_hybrid)
        wide = sum(any(isinstance(each, KeyValueCache) and each.limit is None for each in one.caches) for one in layers)
        narrow = sum(any(isinstance(e, KeyValueCache) and e.limit is not None for e in one.caches) for one in layers)
        tokens = int(rest // (keys + values) * (wide + narrow) / (ratio * narrow + wide))
    tokens = min(tokens, most or tokens) // page * page
    short = int(tokens * ratio) // page * page if sum(full) else tokens
    k_bytes = (tokens + page) * full[0] + (short + page) * sliding[0]
    v_bytes = (tokens + page) * full[1] + (short + page) * sliding[1]
    return _pools_of(tokens, short, states, state_bytes, k_bytes, v_bytes)


def _pools_of(tokens: int, short: int | None, states: int, state_bytes: int, k_bytes: int, v_bytes: int) -> _Pools:
    if tokens <= 0:
        raise InputError(
            "sglang: the weights leave no room for a KV cache (SGLang: Not enough memory. Please try to increase "
            "--mem-fraction-static); a larger share or GPU, or more GPUs, are needed"
        )
    return _Pools(tokens, short, states, k_bytes + v_bytes, state_bytes, k_bytes, v_bytes)


def kv_capacity(
    model: Model, release: Release, settings: Settings, pool_bytes: int
) -> tuple[int, int | None, float | None]:
    """What a pool of so many bytes holds: tokens, blocks (None: SGLang prints none), sequences of the whole context.

    Args:
        model: the model.
        release: of SGLang.
        settings: how it is started; `context` is a sequence's.
        pool_bytes: of keys and values, as printed (K size + V size, or SWAKVPool mem usage), states apart.

    Raises:
        InputError: the pool is too small for a token.

    >>> from vlmmem import find_model
    >>> from vlmmem.engines.releases import find_release
    >>> release = find_release("sglang", RELEASES, "0.4.1")
    >>> kv_capacity(find_model("llama-3.1-8b"), release, Settings(131072), 131072 * 444_501)[0]
    444500
    """
    page = settings.block_size or 1
    number = _number(model, settings)
    layers = stage_part(model, settings.pp, 0).layers
    # the pool has one page more than its tokens
    full, sliding = (_cell(layers, number, settings.tp, sliding=each) for each in (False, True))
    spare = page * (sum(full) + sum(sliding))
    bare = settings.option("mamba_full_memory_ratio") is None
    stateless = (*settings.options, ("mamba_full_memory_ratio", 0)) if bare else settings.options
    pools = _pools(model, release, replace(settings, options=stateless), max(0, pool_bytes - spare))
    return pools.tokens, None, pools.tokens / settings.context


# weights and what is free


def _rotary(model: Model, release: Release) -> int:
    """Bytes of cosines and sines of all positions: one table for each kind of rotation, which layers share.

    In float32 on NVIDIA GPUs since v0.4.3 (layers/rotary_embedding.py, RotaryEmbedding), before that in 16 bits.
    Gemma 3 computes them as it goes (models/gemma3_causal.py, Gemma3RotaryEmbedding).
    """
    if model.architecture in _NO_TABLES or model.max_positions >= _MOST_POSITIONS:
        return 0
    widths = {
        (each.key_dim, each.limit is None and model.architecture in _TWO_ROTATIONS)
        for layer, _ in model.decoder.alike()
        for each in layer.caches
        if isinstance(each, KeyValueCache) and each.states is None
    }
    share = 4 if model.architecture in _QUARTER_ROTATED else 1
    width = sum(width for width, _ in widths) // share + (_LATENT_ROTARY if _latent(model) and not widths else 0)
    return (_FLOAT32 if release.since("0.4.3") else 2) * model.max_positions * width


def _pieces(bits: Fraction, number: Format | None) -> list[int]:
    """Bytes of the tensors that stand for one: a quantised matrix has its numbers, and scales and zeros apart."""
    size = ceil(bits / 8)
    first, plus, _ = ("" if number is None else number.formula).partition(" + ")
    if number is None or not plus or not first.isdigit() or size <= _SMALL:
        return [size]
    numbers = ceil(bits * int(first) / number.bits / 8)
    return [numbers, size - numbers]


def _stage_tensors(model: Model, settings: Settings, stage: int) -> Iterator[int]:
    """Bytes of each tensor that a rank of a stage holds, in the order in which modules are made."""
    number, tp = settings.weights, settings.tp
    sizes = stage_layers(model, settings.pp)
    first, last, start = stage == 0, stage == settings.pp - 1, sum(sizes[:stage])
    for part in model.parts:
        decoder = part is model.decoder
        for tensor in part.tensors:
            at_end = decoder and tensor.kind in ("head", "norm", "bias")
            copied = decoder and tensor.kind == "embedding" and model.tied_embeddings and last
            if copied or (last if at_end else first):
                split = 1 if tensor.kind == "embedding" and model.architecture in _WHOLE_EMBEDDING else tp
                yield ceil(tensor_bits(model, tensor.name, tensor, number, split) / 8)
        indices = range(start, start + sizes[stage]) if decoder else range(len(part.layers) if first else 0)
        by_layer = number is None and model.quantization is not None and model.quantization.by_layer
        known: dict[int, list[int]] = {}
        for index in indices:
            layer = part.layers[index]
            found = None if by_layer else known.get(id(layer))
            if found is None:
                held: dict[str, Fraction] = {}
                for tensor in layer.tensors:
                    name = f"{part.stack}.{index}.{tensor.name}"
                    stem = fused_name(tensor.name)
                    bits = tensor_bits(model, name, tensor, number, tp, layer, index=index if decoder else None)
                    held[stem] = held.get(stem, Fraction(0)) + bits
                found = known[id(layer)] = [piece for bits in held.values() for piece in _pieces(bits, number)]
            yield from found


def _weights(model: Model, release: Release, settings: Settings) -> tuple[int, str]:
    """What "mem usage" prints for the fullest rank: the segments that PyTorch's allocator took for its tensors."""
    # the split is checked, and the fullest stage found, where the others find theirs
    shares = gpu_shares(
        model,
        Workload(settings.context),
        Parallelism(settings.tp, settings.pp),
        weights=settings.weights,
        kv_dtype=_number(model, settings),
    )
    fullest = max(shares, key=lambda share: share.weights)
    allocator = CachingAllocator()
    tensors = 0
    for size in _stage_tensors(model, settings, fullest.stage):
        tensors += size
        allocator.take(size)
    tables = _rotary(model, release)
    allocator.take(tables)
    split = f" / {settings.tp * settings.pp} GPUs" if settings.tp * settings.pp > 1 else ""
    form = settings.weights.name if settings.weights is not None else "the published form"
    told = f"{model.parameters:,} parameters in {form}{split} = {tensors:,} B + {tables:,} B of rotary tables"
    if settings.tp > 1 and model.architecture in _WHOLE_EMBEDDING:
        told += ", the embedding whole"
    return allocator.reserved, f"{told}, in segments of 2 MiB"


def _before_load(settings: Settings) -> tuple[int, int, str]:
    """What CUDA has in all, what of it is free before the weights are loaded, and how that is known."""
    constants = _constants()
    mib, gpu = _gpu_mib(settings), settings.gpu
    joined, driver = constants["distributed"], int(constants["driver"]["bytes"])
    total = settings.gpu_bytes or 0
    if gpu is not None:
        total = gpu.cuda_memory_bytes or gpu.memory_bytes - driver
    kind = "one_gpu" if settings.tp * settings.pp == 1 else "nvlink" if mib > _LARGE_GPU else "pcie"
    gone = int(constants["context"]["bytes"]) + int(joined[kind]) + (settings.used_bytes or 0)
    if gone >= total:
        raise InputError(f"sglang: a GPU of {mib:,} MiB is less than its own context takes")
    return total, total - gone, f"{gone:,} B of {total:,} B are gone before the weights are loaded"


def reserve(model: Model, release: Release, settings: Settings) -> Reservation:
    """What SGLang takes of the fullest GPU when it starts.

    Args:
        model: what it serves.
        release: of SGLang.
        settings: `context` is --context-length, `batch_tokens` --chunked-prefill-size, `sequences`
            --max-running-requests, `utilization` --mem-fraction-static, `block_size` --page-size, `eager`
            --disable-cuda-graph. Options: swa_full_tokens_ratio, mamba_full_memory_ratio, max_mamba_cache_size,
            max_total_tokens, cuda_graph_max_bs, disable_radix_cache.

    Raises:
        InputError: no GPU is named, the weights leave nothing, or the GPUs cannot split the model.

    >>> from vlmmem import find_gpu, find_model
    >>> from vlmmem.engines.releases import find_release
    >>> release = find_release("sglang", RELEASES, "0.4.1.post7")
    >>> found = reserve(find_model("llama-3.1-8b"), release, Settings(131072, gpu=find_gpu("h100-80gb")))
    >>> 440_000 < found.kv_tokens < 450_000  # a log of that release printed 444,500
    True
    """
    total, before, before_told = _before_load(settings)
    share = mem_fraction_static(model, release, settings)
    weights, weights_told = _weights(model, release, settings)
    rest = int(exact(share) * before) - weights
    pools = _pools(model, release, settings, rest)
    mib = _gpu_mib(settings)
    chunk, graph = _chunked(release, settings, mib), _graph_max(release, settings, mib)
    requests = settings.sequences or min(max(int(pools.tokens / settings.context * 512), 2048), 4096)
    if pools.states and settings.sequences is None:
        # a third of the states are those of requests, the others of the radix cache (v0.5.9)
        requests = min(requests, pools.states // 3)
    table = 4 * requests * (settings.context + _EXTRA_CONTEXT)
    left = max(0, before - weights - pools.kv_bytes - pools.state_bytes - table)
    code = _CODE + _TAGS.get(release.version, release.version) + "/python/sglang/srt"
    page = settings.block_size or 1
    pool_told = f"{pools.tokens:,} + {page} tokens"
    if pools.sliding_tokens is not None:
        pool_told += f" of full and {pools.sliding_tokens:,} + {page} of sliding layers"
    pool_told += f" in {_number(model, settings).name}, of {before:,} B x {share:.3f} - {weights:,} B"
    terms = [
        Term("weights", weights, weights_told, "derived", f"{code}/model_loader"),
        Term("kv_cache", pools.kv_bytes, pool_told, "derived", f"{code}/model_executor/model_runner.py"),
    ]
    if pools.state_bytes:
        told = f"{pools.states:,} + 1 states of sequences"
        terms.append(Term("kv_cache:state", pools.state_bytes, told, "derived", f"{code}/mem_cache/memory_pool.py"))
    terms += [
        Term("activations", left, "left for activations and CUDA graphs", "derived", f"{code}/server_args.py"),
        Term(
            "runtime:requests",
            table,
            f"4 B x {requests:,} requests x ({settings.context:,} + {_EXTRA_CONTEXT}) tokens",
            "derived",
            f"{code}/mem_cache/memory_pool.py",
        ),
        Term("runtime:context", total - before, before_told, "measured", "vlmmem/engines/sglang_constants.json"),
    ]
    notes = [release.note] if release.note else []
    notes.append("activations are what SGLang leaves free for them and for CUDA graphs, not what they take")
    if pools.sliding_tokens is None and any(limit is not None for limit, _ in cache_sizes(model).growing):
        notes.append("this release has one pool: layers with a sliding window hold every token")
    concurrency = pools.tokens / settings.context
    printed: list[tuple[str, int | float]] = [
        ("avail_before_load", before),
        ("avail_after_load", before - weights),
        ("max_total_num_tokens", pools.tokens),
        ("kv_pool", pools.kv_bytes),
        ("k_size", pools.k_bytes),
        ("v_size", pools.v_bytes),
        ("avail_after_pool", left),
        ("max_running_requests", requests),
    ]
    if pools.sliding_tokens is not None:
        printed.append(("kv_tokens_swa", pools.sliding_tokens))
    if pools.states:
        printed += [("max_mamba_cache_size", pools.states), ("state_size", pools.state_bytes)]
    return Reservation(
        "sglang",
        release.version,
        tuple(terms),
        kv_tokens=pools.tokens,
        max_concurrency=min(concurrency, float(requests)),
        printed=tuple(printed),
        settings=(
            ("mem_fraction_static", round(share, 4)),
            ("chunked_prefill_size", chunk),
            ("cuda_graph_max_bs", graph),
            ("max_running_requests", requests),
            ("page_size", page),
        ),
        command=_command(model, release, settings),
        notes=tuple(notes),
    )


_KV_WORDS = {"fp8": "fp8_e4m3", "bf16": "auto", "fp16": "auto"}
_FLAGS = (
    ("swa_full_tokens_ratio", "--swa-full-tokens-ratio", "0.4.9"),
    ("mamba_full_memory_ratio", "--mamba-full-memory-ratio", "0.5.3"),
    ("max_mamba_cache_size", "--max-mamba-cache-size", "0.5.2"),
    ("max_total_tokens", "--max-total-tokens", "0.3.6"),
    ("cuda_graph_max_bs", "--cuda-graph-max-bs", "0.3.6"),
)
"""Options, their flags, and the first release read whose server_args.py has the flag."""


def _command(model: Model, release: Release, settings: Settings) -> tuple[str, ...]:
    """The words that start it so; defaults stay away.

    Raises:
        InputError: the release has no such flag.
    """
    words = ["python", "-m", "sglang.launch_server", "--model-path", model.hub_id or model.folder or model.id]
    words += ["--context-length", str(settings.context)]
    given: tuple[tuple[str, str, object], ...] = (
        ("--tp-size", "0.3.6", settings.tp if settings.tp > 1 else None),
        ("--pp-size", "0.4.6", settings.pp if settings.pp > 1 else None),
        ("--mem-fraction-static", "0.3.6", settings.utilization),
        ("--chunked-prefill-size", "0.3.6", settings.batch_tokens),
        ("--max-running-requests", "0.3.6", settings.sequences),
        ("--page-size", "0.4.4", settings.block_size),
        ("--kv-cache-dtype", "0.3.6", None if settings.kv_dtype is None else _KV_WORDS.get(settings.kv_dtype.id)),
        *((flag, since, settings.option(name)) for name, flag, since in _FLAGS),
    )
    for flag, since, value in given:
        if value is None or value == "auto":
            continue
        if not release.since(since):
            raise InputError(f"sglang {release.version} has no {flag}; {since} is the first release read that has it")
        renamed = flag == "--cuda-graph-max-bs" and release.since("0.5.20")
        words += [f"{flag}-decode" if renamed else flag, str(value)]
    if settings.eager:
        words.append("--disable-cuda-graph")
    if settings.option("disable_radix_cache") is True:
        words.append("--disable-radix-cache")
    return tuple(words)
