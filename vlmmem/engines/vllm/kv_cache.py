"""vLLM's KV cache: groups of layers, blocks, tokens and concurrency from a pool of bytes, by release.

V0 keeps one kind of block, over all attention layers alike. V1 knows what each layer keeps: layers alike make one
group; layers of several kinds are cut into groups of g layers that draw blocks from one pool. The rules by release:

- before 0.9.2 sliding windows count as full attention where a model has both (`unify_hybrid_kv_cache_specs`);
- since 0.9.2 g is the least count of layers of one kind, and all pages must be of one size;
- since 0.11 layers of one kind with pages of several sizes make one group (`UniformTypeKVCacheSpecs`);
- since 0.11.2 smaller pages get more tokens a block until all pages are of one size
  (`unify_kv_cache_spec_page_size`), and g is the largest count where that is below 1.25 x the least;
- since 0.18 below 1.5 x;
- since 0.26 a window holds the tokens of all steps that overlap, not of one (`max_in_flight_tokens`);
- since 0.21 the printed size of the cache is concurrency x max_model_len, before it was blocks // groups x block size.

Source: vllm/v1/core/kv_cache_utils.py at v0.8.0, v0.8.5, v0.9.2, v0.10.2, v0.11.0, v0.11.2, v0.12.0, v0.17.0, v0.18.0,
v0.19.0, v0.21.0, v0.22.0, v0.26.0, v0.28.0, v0.29.0;
vllm/worker/cache_engine.py and vllm/executor/executor_base.py at v0.7.3
and v0.8.5.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from vlmmem.engines.releases import Release
from vlmmem.engines.settings import Settings
from vlmmem.engines.vllm.defaults import complete
from vlmmem.engines.vllm.generation import V0_ONLY, uses_v1
from vlmmem.engines.vllm.pages import Page, drafts, model_pages, plain_heads, state_mode
from vlmmem.errors import InputError
from vlmmem.layers import LatentCache, StateCache
from vlmmem.memory import kv_heads_per_rank
from vlmmem.model import Model
from vlmmem.parallelism import stage_layers
from vlmmem.record import record, replace

__all__ = ["Layout", "kv_capacity", "kv_layout", "longest_context", "whole_option"]

_MOST = 2**40
_ALIGNMENT = 256
"""Bytes to which 0.7.2 to 0.8.0 round a latent vector up (VLLM_CUDA_MEM_ALIGN_KV_CACHE)."""


@record(frozen=True, slots=True)
class Layout:
    """How one GPU's pool is cut.

    `block_bytes` are the bytes of one block over all layers of the GPU that holds most. `block` are its tokens (of the
    group that has fewest), `groups` the groups that draw from the pool, `sequence_blocks` the blocks of one sequence of
    the whole context. `rule` says in a line how the groups came about.
    """

    block_bytes: int
    block: int
    groups: int
    sequence_blocks: int
    rule: str

    @property
    def sequence_bytes(self) -> int:
        """Bytes that one sequence of the whole context needs."""
        return self.block_bytes * self.sequence_blocks


def kv_capacity(
    model: Model, release: Release, settings: Settings, pool_bytes: int
) -> tuple[int | None, int | None, float | None]:
    """Tokens, blocks and maximum concurrency as vLLM's log prints them, given the pool of one GPU.

    "GPU KV cache size" (V1; V0 prints only blocks, of which these are the tokens), "# GPU blocks", and "Maximum
    concurrency for N tokens per request" before it is rounded to two decimals. The tokens and the concurrency are None
    for a model that keeps nothing.

    Args:
        model: what is served.
        release: vLLM's release.
        settings: how it is started; what is open becomes vLLM's default.
        pool_bytes: "Available KV cache memory" of the GPU that has least, in bytes.

    Raises:
        InputError: the release does not serve such a model.

    >>> from vlmmem import find_model
    >>> from vlmmem.engines.releases import parse_version
    >>> kv_capacity(find_model("llama-3.1-8b"), Release("0.19", (0, 19)), Settings(8192), 62_393_942_016)
    (476016, 29751, 58.107421875)
    """
    layout = kv_layout(model, release, settings)
    if layout is None:
        return None, None, None
    filled = complete(model, release, settings)
    blocks = max(0, pool_bytes) // layout.block_bytes
    override = whole_option(filled, "num_gpu_blocks_override")
    if override is not None:
        blocks = override
    if not uses_v1(model, release, filled):
        tokens = blocks * layout.block
        return tokens, blocks, tokens / filled.context
    concurrency = blocks / layout.sequence_blocks
    if not release.since("0.9"):
        concurrency = blocks * layout.block / filled.context
    if release.since("0.21"):
        return int(concurrency * filled.context), blocks, concurrency
    ranks = _context_parallel(filled)
    return blocks // layout.groups * layout.block * ranks, blocks, concurrency


def kv_layout(model: Model, release: Release, settings: Settings) -> Layout | None:
    """How vLLM cuts the pool of one GPU; None for a model that keeps nothing.

    Raises:
        InputError: the release does not serve such a model, or its heads do not divide over the GPUs.
    """
    kv_heads_per_rank(model, settings.tp)
    filled = complete(model, release, settings)
    if model.architecture in V0_ONLY and release.since("0.11"):
        raise InputError(f"vllm {release.version}: {model.architecture} models are not served since 0.11; 0.10.2 is")
    if not uses_v1(model, release, filled):
        return _v0_layout(model, release, filled)
    stages = _by_stage(model, release, filled)
    if not any(stages):
        return None
    return _v1_layout(model, release, filled, stages)


def longest_context(model: Model, release: Release, settings: Settings, pool_bytes: int) -> int:
    """Tokens of the longest sequence that the pool holds, up to the context; 0 where none does.

    Source: vllm/v1/core/kv_cache_utils.py, `estimate_max_model_len`: the same search.
    """
    filled = complete(model, release, settings)
    low, high = 0, filled.context
    while low < high:
        middle = (low + high + 1) // 2
        layout = kv_layout(model, release, replace(filled, context=middle))
        if layout is not None and layout.sequence_bytes <= pool_bytes:
            low = middle
        else:
            high = middle - 1
    return low


def whole_option(settings: Settings, name: str) -> int | None:
    """The value of one of the engine's own flags that counts something; None where it is left open.

    Raises:
        InputError: it is no whole number from 1.
    """
    value = settings.option(name)
    if value is None:
        return None
    if type(value) is not int or not 0 < value <= _MOST:
        raise InputError(f"{name}: {str(value)[:40]!r} was given; a whole number from 1 to {_MOST:,} is needed")
    return value


def _context_parallel(settings: Settings) -> int:
    """Ranks that share a sequence's tokens: decode context parallelism within a tensor-parallel group, and prefill's.

    Raises:
        InputError: the ranks do not divide the group.
    """
    decode = whole_option(settings, "decode_context_parallel_size") or 1
    if settings.tp % decode:
        raise InputError(
            f"decode_context_parallel_size: {decode} ranks do not divide a group of {settings.tp} GPUs; "
            "a divisor is needed"
        )
    return decode * (whole_option(settings, "prefill_context_parallel_size") or 1)


def _by_stage(model: Model, release: Release, settings: Settings) -> list[list[Page]]:
    """The pages of each pipeline stage, in the order of the layers."""
    pages = model_pages(model, release, settings)
    found: list[list[Page]] = []
    first = 0
    for count in stage_layers(model, settings.pp):
        found.append([page for layer in pages[first : first + count] for page in layer])
        first += count
    # A head for multi-token prediction runs on the last stage.
    found[-1] += [page for layer in pages[first:] for page in layer]
    return found


def _v0_layout(model: Model, release: Release, settings: Settings) -> Layout | None:
    """V0: every attention layer alike, windows or not; layers without attention are not counted."""
    assert settings.kv_dtype is not None
    assert settings.block_size is not None
    bits = settings.kv_dtype.bits
    latent = next(
        (cache for layer in model.decoder.layers for cache in layer.caches if isinstance(cache, LatentCache)), None
    )
    stages: list[int] = []
    first = 0
    hybrid = any(isinstance(cache, StateCache) for layer in model.decoder.layers for cache in layer.caches)
    for count in stage_layers(model, settings.pp):
        part = model.decoder.layers[first : first + count]
        held = [layer for layer in part if any(not isinstance(cache, StateCache) for cache in layer.caches)]
        stages.append(len(held) if hybrid or any(layer.kind in ("mlp", "none") for layer in part) else len(part))
        first += count
    layers = max(stages)
    if not layers:
        return None
    heads = max(1, model.kv_heads // settings.tp)
    elements = 2 * heads * model.head_dim
    plain, width = plain_heads(model, settings.tp)
    if plain:
        elements = 2 * plain * width
    elif latent is not None:
        elements = latent.width
        if not release.since("0.7"):
            # Before latent attention had a cache of its own, keys and values were padded to 256 elements a head.
            elements = 2 * max(1, model.heads // settings.tp) * 256
        elif release.since("0.7.2") and not release.since("0.8"):
            # Of 16-bit elements, whatever the cache's own format.
            elements = -(-elements * 2 // _ALIGNMENT) * _ALIGNMENT // 2
    size = int(layers * settings.block_size * elements * bits) // 8
    blocks = -(-settings.context // settings.block_size)
    return Layout(size, settings.block_size, 1, blocks, f"V0: {layers} attention layers alike")


def _promoted(release: Release, settings: Settings, pages: Sequence[Page]) -> bool:
    """Whether local attention is counted as full: the hybrid manager is not there, or is disabled."""
    if settings.option("disable_hybrid_kv_cache_manager"):
        return True
    if not release.since("0.9.2"):
        return True
    chunked = any(page.kind == "chunked" for page in pages)
    # Chunked attention without the hybrid manager: VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE is off.
    return chunked and release.since("0.10.2") and not release.since("0.14")


def _as_full(pages: Sequence[Page]) -> list[Page]:
    if not any(page.kind == "full" for page in pages):
        return list(pages)
    return [replace(page, kind="full", limit=0) if page.kind in ("sliding", "chunked") else page for page in pages]


def _one_kind(pages: Sequence[Page]) -> bool:
    """Whether all layers need the same slots of a token: all full, or all one window, chunk or state.

    Source: `UniformTypeKVCacheSpecs.is_uniform_type`.
    """
    if len({page.block for page in pages}) > 1:
        return False
    whole = ("full", "latent", "indexer")
    if pages[0].kind in whole:
        return all(page.kind in whole for page in pages)
    return len({(page.kind, page.limit) for page in pages}) == 1


def _unified(model: Model, release: Release, pages: Sequence[Page]) -> list[Page]:
    """Pages of one size: smaller ones hold more tokens, which must come out even; since 0.29 they may be padded."""
    most = max(page.size for page in pages)
    found = []
    for page in pages:
        if page.size == most:
            found.append(page)
        elif page.kind == "state" and release.since("0.24"):
            found.append(replace(page, size=most))
        elif release.since("0.11.2") and most % page.size == 0:
            found.append(replace(page, size=most, block=page.block * (most // page.size)))
        elif release.since("0.29") and page.kind in ("full", "sliding", "chunked"):
            found.append(replace(page, size=most))
        else:
            raise InputError(
                f"vllm {release.version}: pages of {model.id or model.architecture} are of sizes that it cannot make "
                "equal (unify_kv_cache_spec_page_size); a later release or another block size may"
            )
    return found


def _group_size(release: Release, counts: Sequence[int]) -> int:
    """Layers of a group: the least count of a kind, or the largest where it is little more.

    Source: `_get_kv_cache_groups_uniform_page_size`, v0.9.2 (least), v0.11.2 (1.25), v0.18.0 (1.5).
    """
    least, most = min(counts), max(counts)
    near = Fraction(3, 2) if release.since("0.18") else Fraction(5, 4)
    return most if release.since("0.11.2") and most < least * near else least


def _v1_layout(model: Model, release: Release, settings: Settings, stages: list[list[Page]]) -> Layout:
    pages = [page for stage in stages for page in stage]
    promoted = _promoted(release, settings, pages)
    if promoted:
        pages = _as_full(pages)
    local = settings.context
    ranks = _context_parallel(settings)
    if ranks > 1:
        local = -(-local // ranks)
    states = _state_blocks(model, release, settings)
    in_flight = _in_flight(model, release, settings)

    def blocks(page: Page) -> int:
        context = settings.context if page.kind in ("sliding", "chunked") else local
        return page.blocks(context, in_flight, states)

    kinds = {page.key() for page in pages}
    if len(kinds) == 1:
        most = max(len(stage) for stage in stages)
        page = pages[0]
        return Layout(page.size * most, page.block, 1, blocks(page), f"one group of {most} layers alike")
    if release.since("0.11") and _one_kind(pages):
        sums = []
        first = 0
        for stage in stages:
            sums.append(sum(page.size for page in pages[first : first + len(stage)]))
            first += len(stage)
        return Layout(max(sums), pages[0].block, 1, max(map(blocks, pages)), f"one group, pages of {len(kinds)} sizes")
    if not release.since("0.9.2"):
        raise InputError(
            f"vllm {release.version}: V1 keeps one kind of block, and {model.id or model.architecture} needs several; "
            "0.9.2 and later make groups"
        )
    pages = _unified(model, release, pages)
    places: dict[tuple[str, int, int, int, tuple[int, ...]], list[int]] = {}
    for index, page in enumerate(pages):
        places.setdefault(page.key(), []).append(index)
    size = _group_size(release, [len(held) for held in places.values()])
    groups: list[list[int]] = []
    for held in places.values():
        parts = -(-len(held) // size)
        groups += [held[part::parts] for part in range(parts)]
    # A pipeline stage holds of each group what lies in its layers; the widest group sets the tensors.
    bounds = [0]
    for stage in stages:
        bounds.append(bounds[-1] + len(stage))
    widest = max(sum(low <= index < high for index in group) for low, high in pairwise(bounds) for group in groups)
    needed = sum(blocks(pages[group[0]]) for group in groups)
    rule = f"{len(groups)} groups of at most {widest} layers"
    return Layout(pages[0].size * widest, min(page.block for page in pages), len(groups), needed, rule)


def _in_flight(model: Model, release: Release, settings: Settings) -> int:
    """Tokens that are scheduled and not yet settled: since 0.26 a batch for each step that overlaps.

    Steps overlap two by two (asynchronous scheduling, the default) and as many as a pipeline has stages; a mixture of
    experts in a pipeline is not scheduled ahead.

    Source: vllm/config/vllm.py, `max_in_flight_tokens` and `max_concurrent_batches`, v0.26.0.
    """
    assert settings.batch_tokens is not None
    batches = 1
    if release.since("0.26"):
        ahead = settings.option("async_scheduling") is not False and (settings.pp == 1 or not model.experts)
        batches = settings.pp + ahead
    return batches * settings.batch_tokens


def _state_blocks(model: Model, release: Release, settings: Settings) -> int:
    """Blocks that a layer with states holds of a sequence: 1, 2 where the last ones are kept, or one for each block.

    Drafts come on top.

    Source: vllm/v1/kv_cache_interface.py, MambaSpec.max_memory_usage_bytes, v0.11.0 to v0.28.0.
    """
    drafted = drafts(settings)[1]
    mode = state_mode(model, release, settings)
    if mode == "all":
        each = settings.block_size or 1
        return -(-settings.context // each) + (drafted if release.since("0.21") else 0)
    return (2 if mode == "align" else 1) + drafted
