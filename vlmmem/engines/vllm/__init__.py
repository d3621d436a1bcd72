"""vLLM: what it takes of each GPU, and what it prints of that, by release.

The weights, the profile run's peak, memory outside PyTorch and CUDA graphs leave the KV cache's pool; the pool's pages
and groups give the tokens and the concurrency that the log prints.
"""

from vlmmem.engines.releases import Release
from vlmmem.engines.reservation import Reservation
from vlmmem.engines.settings import Settings
from vlmmem.engines.vllm.budget import kv_pool, requested_bytes
from vlmmem.engines.vllm.command import serve_command
from vlmmem.engines.vllm.defaults import complete
from vlmmem.engines.vllm.generation import uses_v1
from vlmmem.engines.vllm.kv_cache import Layout, kv_capacity, kv_layout, longest_context, whole_option
from vlmmem.engines.vllm.pages import drafts
from vlmmem.errors import InputError
from vlmmem.model import Model
from vlmmem.record import replace
from vlmmem.terms import Term
from vlmmem.units import BYTES

__all__ = ["RELEASES", "complete", "kv_capacity", "kv_layout", "reserve", "uses_v1"]

RELEASES = (
    *("0.3", "0.4", "0.5", "0.6", "0.6.6", "0.7", "0.7.2", "0.8", "0.8.5", "0.9", "0.9.2", "0.10", "0.10.2"),
    *("0.11", "0.11.2", "0.12", "0.13", "0.14", "0.16", "0.17", "0.18", "0.19", "0.20", "0.21", "0.22"),
    *("0.23", "0.24", "0.25", "0.26", "0.27", "0.28", "0.29"),
)
"""The releases whose code was read, in order: vLLM's source distributions."""

_GIB = BYTES["GiB"]


def reserve(model: Model, release: Release, settings: Settings) -> Reservation:
    """What vLLM takes of the fullest GPU, and what its log says of it.

    Args:
        model: what is served.
        release: vLLM's release.
        settings: how it is started; what is open becomes that release's default.

    Raises:
        InputError: no GPU is named, or vLLM does not run the model so.
    """
    from vlmmem.engines.vllm.profile import activation_peak, second_runner
    from vlmmem.engines.vllm.runtime import cuda_graphs, non_torch, printed_peak
    from vlmmem.engines.vllm.weights import loaded_weights_bytes

    if settings.total_bytes is None:
        raise InputError("vllm: which GPU, is needed: it takes a share of the GPU's memory, whatever the model needs")
    filled = complete(model, release, settings)
    v1 = uses_v1(model, release, filled)
    layout = kv_layout(model, release, filled)
    weights = tuple(loaded_weights_bytes(model, release, filled))
    peak = activation_peak(model, release, filled)
    outside = non_torch(release, filled)
    graphs = cuda_graphs(model, release, filled)
    second = v1 and second_runner(model, release, filled)
    pool = kv_pool(release, filled, weights, peak, outside, graphs, v1=v1, second=second)
    override = whole_option(filled, "num_gpu_blocks_override")
    if override is not None and layout is not None:
        size = override * layout.block_bytes
        pool = Term("kv_cache", size, f"{override:,} blocks x {layout.block_bytes:,}", "assumed", pool.source)
    tokens, blocks, concurrency = kv_capacity(model, release, filled, pool.bytes)
    terms = (*weights, peak, outside, *(() if filled.eager else (graphs,)), pool)
    printed: list[tuple[str, int | float]] = [
        ("model weights", sum(term.bytes for term in weights)),
        ("activation peak", printed_peak(model, release, filled)),
        ("non-torch memory", outside.bytes),
        ("available KV cache memory", pool.bytes),
    ]
    if layout is not None:
        printed += [("block size", layout.block), ("bytes a block", layout.block_bytes)]
    notes = [release.note] if release.note else []
    notes += _refusals(model, release, filled, layout, pool.bytes, v1=v1)
    if v1 and not release.since("0.9.1") and settings.used_bytes is None:
        notes.append("before 0.9.1 what the driver and other programs hold of the GPU is taken off too; none is named")
    method = drafts(filled)[0]
    if method and method not in ("ngram", "[ngram]"):
        notes.append(f"speculative decoding ({method}): weights and activations of the draft are not in the numbers")
    if filled.pp > 1:
        notes.append("of a pipeline's stages the fullest counts; the log prints the pool of each")
    command = serve_command(model, release, replace(settings, utilization=filled.utilization))
    return Reservation(
        "vllm",
        release.version,
        terms,
        kv_tokens=tokens,
        kv_blocks=blocks,
        max_concurrency=concurrency,
        printed=tuple(printed),
        settings=_taken(release, settings, filled, v1=v1),
        command=command,
        notes=tuple(notes),
    )


def _taken(
    release: Release, given: Settings, filled: Settings, *, v1: bool
) -> tuple[tuple[str, int | float | str | bool], ...]:
    """What each setting that was left open came to, under vLLM's own names."""
    found: list[tuple[str, int | float | str | bool]] = []
    for name, field in (
        ("max_num_seqs", "sequences"),
        ("max_num_batched_tokens", "batch_tokens"),
        ("gpu_memory_utilization", "utilization"),
        ("block_size", "block_size"),
    ):
        if getattr(given, field) != getattr(filled, field):
            found.append((name, getattr(filled, field)))
    if given.kv_dtype is None and filled.kv_dtype is not None:
        found.append(("kv_cache_dtype", filled.kv_dtype.id))
    if given.images is None and filled.images:
        found.append(("limit_mm_per_prompt", f"image={filled.images}"))
    if release.since("0.8") and not release.since("0.11"):
        found.append(("engine", "V1" if v1 else "V0"))
    return tuple(found)


def _refusals(
    model: Model, release: Release, settings: Settings, layout: Layout | None, pool: int, *, v1: bool
) -> list[str]:
    """Why the engine will not start, one line each."""
    found = []
    total = settings.total_bytes or 0
    if (
        v1
        and release.since("0.9.1")
        and settings.used_bytes is not None
        and settings.option("kv_cache_memory_bytes") is None
    ):
        requested = requested_bytes(release, settings)
        if total - settings.used_bytes < requested:
            found.append(
                "vllm will refuse to start: free memory on device is less than desired GPU memory utilization "
                f"({(total - settings.used_bytes) / _GIB:.2f} of {requested / _GIB:.2f} GiB)"
            )
    if layout is None:
        return found
    if pool <= 0:
        found.append("vllm will refuse to start: no available memory for the cache blocks")
    elif layout.sequence_bytes > pool:
        longest = longest_context(model, release, settings, pool)
        fits = f"; a context of {longest:,} tokens fits" if longest else ""
        found.append(
            f"vllm will refuse to start: one sequence of {settings.context:,} tokens needs "
            f"{layout.sequence_bytes / _GIB:.2f} GiB of KV cache and {pool / _GIB:.2f} GiB are left{fits}"
        )
    return found
