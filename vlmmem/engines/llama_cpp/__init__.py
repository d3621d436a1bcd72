"""llama.cpp: what its server takes of a GPU, by build.

``reserve`` answers with the lines of the start-up log: model buffers ("CUDA0 model buffer size"), KV buffers, states,
compute buffers, the output buffer. It takes no share of the GPU: what it prints is what it needs.

ik_llama.cpp, a fork, prints the same lines and has rules of its own: every layer keeps every token (`swa_full`),
latent attention has keys alone, and its graphs, and so its compute buffers, are others.

The rules were read in the code and held against what the builds of `RELEASES` print themselves; each file is named
where its rule stands: `cache` (cells, keys, values, states), `offload` (which weights lie where),
`graph` and `ggml` (compute buffers).
"""

from vlmmem.engines.llama_cpp.blocks import blocks_of
from vlmmem.engines.llama_cpp.cache import CACHE_TYPES, LayerCache, Layout, layer_cache, layout
from vlmmem.engines.llama_cpp.command import server_command
from vlmmem.engines.llama_cpp.graph import Block, Era, Step, compute_buffers
from vlmmem.engines.llama_cpp.offload import devices_of_layers, language_weights, vision_weights
from vlmmem.engines.llama_cpp.vision import tower_buffer
from vlmmem.engines.releases import Release
from vlmmem.engines.reservation import Reservation
from vlmmem.engines.settings import Settings
from vlmmem.errors import InputError
from vlmmem.layers import StateCache
from vlmmem.memory.runtime import runtime_bytes
from vlmmem.model import Model
from vlmmem.record import record, replace
from vlmmem.terms import Term

__all__ = ["OPTIONS", "RELEASES", "era_of", "kv_capacity", "reserve"]

RELEASES = (
    "b4798", "b5217", "b5671", "b5835", "b6123", "b6301", "b6451", "b6900", "b7079", "b7551", "b8672", "b9538",
    "b10566", "b11549",
)  # fmt: skip
"""Builds that printed the buffers against which the rules were held, in order; the number counts llama.cpp's commits.
The code was read at the commits that `ggml` names, which lie among them."""

OPTIONS = (
    "n_ctx", "n_batch", "n_ubatch", "flash_attn", "n_gpu_layers", "cache_type_k", "cache_type_v", "kv_unified",
    "swa_full", "mmproj", "n_cpu_moe", "tensor_split", "no_kv_offload",
)  # fmt: skip
"""Options of `Settings` that llama.cpp has, under llama.cpp's own names (common/common.h, common_params)."""

_TYPES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", **{name: name for name in CACHE_TYPES}}
_SLOTS = 4
"""Slots of the server where none are named: tools/server/server.cpp, "n_parallel is set to auto"."""
_COPIES = 4
"""ggml-backend.cpp, `GGML_SCHED_MAX_COPIES`."""
_MOST_SIMULATED = 12
_SOURCE = "llama.cpp {version}: {file}"


@record(frozen=True, slots=True)
class Start:
    """The settings with every default filled in."""

    layout: Layout
    batch: int
    ubatch: int
    flash: bool
    gpu_layers: int
    keys: str
    values: str
    unified: bool
    full: bool
    mmproj: bool
    cpu_moe: int
    shares: tuple[float, ...]
    offload_cache: bool


def era_of(release: Release) -> Era:
    """What the graph of a build is like.

    >>> era_of(Release("b4798", (4798,))).glu
    False
    """
    return Era(
        mask_pad=1 if release.since("b7551") else 64,
        mask_f16=release.since("b9538"),
        rows=release.since("b6123"),
        glu=release.since("b5835"),
        select=release.since("b8672"),
        keeps_embedding=release.since("b11549"),
        latent_values=not release.since("b8672"),
        values_first=release.since("b7551"),
    )


def _flag(settings: Settings, name: str, default: bool) -> bool:
    value = settings.option(name)
    if value is None or value == "auto":
        return default
    if value in (True, "on", "true", 1):
        return True
    if value in (False, "off", "false", 0):
        return False
    raise InputError(f"{name}: {value!r} was given; on or off is needed")


def _count(settings: Settings, name: str, default: int, least: int = 1) -> int:
    value = settings.option(name)
    if value is None:
        return default
    if type(value) is not int or not least <= value < 1 << 31:
        raise InputError(f"{name}: {value!r} was given; a whole number from {least} is needed")
    return value


def _cache_type(settings: Settings, name: str) -> str:
    value = settings.option(name)
    if value is None:
        value = "f16" if settings.kv_dtype is None else settings.kv_dtype.id
    found = _TYPES.get(str(value).lower())
    if found is None:
        raise InputError(
            f"{name}: {str(value)[:40]!r} is no type of llama.cpp's cache; one of {', '.join(CACHE_TYPES)} is needed"
        )
    return found


def _shares(settings: Settings) -> tuple[float, ...]:
    if settings.tp > 1:
        raise InputError("tp: llama.cpp splits a model by its layers; pp, the number of GPUs, is needed")
    text = settings.option("tensor_split")
    if text is None:
        return (1.0,) * settings.pp
    try:
        shares = tuple(float(share) for share in str(text).replace("/", ",").split(","))
    except ValueError:
        shares = ()
    if not shares or not all(0 <= share < 1e9 for share in shares) or not sum(shares):
        raise InputError(f"tensor_split: {str(text)[:40]!r} was given; shares such as 3,1 are needed")
    if settings.pp not in (1, len(shares)):
        raise InputError(f"tensor_split: {len(shares)} shares for {settings.pp} GPUs; one for each is needed")
    return shares


def _start(model: Model, release: Release, settings: Settings) -> Start:
    known = dict(settings.options)
    for name in known:
        if name not in OPTIONS:
            raise InputError(f"option {str(name)[:40]!r}: llama.cpp has none; one of {', '.join(OPTIONS)} is needed")
    auto = settings.sequences is None
    slots = release.since("b7551")  # the server starts four slots that share one cache
    sequences = (_SLOTS if slots else 1) if settings.sequences is None else settings.sequences
    # before b5913 there was one cache for all; from then on each sequence has its own unless told otherwise
    unified = _flag(settings, "kv_unified", not release.since("b6123") or (auto and slots))
    shared = unified and release.since("b7079")
    context = _count(settings, "n_ctx", settings.context if shared else settings.context * sequences)
    flash = _flag(settings, "flash_attn", release.since("b6451"))
    keys, values = _cache_type(settings, "cache_type_k"), _cache_type(settings, "cache_type_v")
    if not flash and CACHE_TYPES[values][0] > 1:
        raise InputError(f"cache_type_v: {values} needs flash attention; flash_attn on, or f16, is needed")
    batch = min(context, _count(settings, "n_batch", settings.batch_tokens or 2048))
    ubatch = min(batch, _count(settings, "n_ubatch", 512))
    full = _flag(settings, "swa_full", False)
    cells = layout(
        model,
        release,
        context=context,
        sequences=sequences,
        unified=unified,
        flash=flash,
        ubatch=ubatch,
        full=full,
    )
    return Start(
        layout=cells,
        batch=batch,
        ubatch=ubatch,
        flash=flash,
        gpu_layers=_count(settings, "n_gpu_layers", model.layers + 1, 0),
        keys=keys,
        values=values,
        unified=unified,
        full=full,
        mmproj=model.vision is not None and _flag(settings, "mmproj", True),
        cpu_moe=min(model.layers, _count(settings, "n_cpu_moe", 0, 0)),
        shares=_shares(settings),
        offload_cache=not _flag(settings, "no_kv_offload", False),
    )


def _few(blocks: list[Block]) -> list[Block]:
    """Layers enough to stand for all: the buffer's length is reached in the first ones, or in the last."""
    if len(blocks) <= _MOST_SIMULATED:
        return blocks
    return blocks[: _MOST_SIMULATED - 4] + blocks[-4:]


@record(frozen=True, slots=True)
class Device:
    """Bytes on one device, and the layers that it holds; `index` is None for the host."""

    index: int | None
    layers: int
    output: bool
    weights: int
    caches: tuple[LayerCache, ...]
    compute: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + sum(cache.bytes for cache in self.caches) + self.compute


def _devices(model: Model, release: Release, settings: Settings, start: Start) -> tuple[list[Device], Device, int]:
    """Each GPU, the host, and the bytes of the output buffer."""
    weights = language_weights(model, settings.weights)
    late = release.since("b7551")
    places = devices_of_layers(model.layers, start.gpu_layers, start.shares, output_first=late)
    hosted = tuple(size if index < start.cpu_moe else 0 for index, size in enumerate(weights.experts))
    blocks = blocks_of(model, release, start.layout, hosted)
    kept: dict[int, LayerCache] = {}
    made = []
    for layer in model.decoder.layers:
        if id(layer) not in kept:
            kept[id(layer)] = layer_cache(
                model, layer, release, start.layout, keys=start.keys, values=start.values, flash=start.flash
            )
        made.append(kept[id(layer)])
    outputs = min(start.ubatch, start.layout.sequences) if release.since("b9538") else start.ubatch
    several = len(start.shares) > 1 and places[0] is not None and start.offload_cache and not start.cpu_moe
    era = era_of(release)
    found = []
    host_compute = 0
    for index in range(len(start.shares)):
        mine = [at for at in range(model.layers) if places[at] == index]
        last = places[-1] == index
        size = sum(weights.layers[at] - hosted[at] for at in mine) + (weights.output if last else 0)
        # an output that lies in the host's memory is fetched for a step of 32 rows or more (op_offload)
        fetched = places[-1] is None and index == 0 and outputs >= 32
        step = Step(
            start.ubatch,
            outputs,
            model.hidden_size,
            model.vocab_size,
            start.flash,
            head_on_host=weights.head if fetched else 0,
            sequences=start.layout.sequences,
        )
        compute = 0
        if mine or last or fetched:
            compute, host = compute_buffers(
                _few([blocks[at] for at in mine]),
                step,
                era,
                first=not mine or mine[0] == 0,
                last=last or fetched,
                handed=index > 0 and index - 1 in places,
                copies=_COPIES if several else 1,
            )
            host_compute = max(host_compute, host)
        caches = tuple(made[at] for at in mine) if start.offload_cache else ()
        found.append(Device(index, len(mine), last, size, caches, compute))
    on_host = [at for at in range(model.layers) if places[at] is None]
    rest = weights.embedding + sum(weights.layers[at] for at in on_host) + sum(hosted)
    rest -= sum(hosted[at] for at in on_host)
    rest += weights.output if places[-1] is None else 0
    caches = tuple(made[at] for at in (on_host if start.offload_cache else range(model.layers)))
    output_buffer = 4 * model.vocab_size * start.layout.sequences
    whole = places[-1] is None
    return found, Device(None, len(on_host), whole, rest, caches, host_compute), output_buffer


def _sum(caches: tuple[LayerCache, ...], *, sliding: bool) -> tuple[int, int]:
    keys = sum(cache.keys for cache in caches if cache.sliding is sliding)
    return keys, sum(cache.values for cache in caches if cache.sliding is sliding)


def _terms(release: Release, start: Start, device: Device, vision: int, tower: tuple[int, int] | None) -> list[Term]:
    version = release.version
    cells, kinds = start.layout, f"{start.keys} keys, {start.values} values"
    terms = [
        Term(
            "weights",
            device.weights,
            f"{device.layers} layers{' and the output' if device.output else ''}; the embedding stays on the host",
            "derived",
            _SOURCE.format(version=version, file="src/llama-model.cpp, load_tensors"),
        )
    ]
    if vision:
        file = _SOURCE.format(version=version, file="tools/mtmd/clip.cpp, load_tensors")
        terms.append(Term("weights:vision", vision, "the mmproj file: matrices in 16 bits", "derived", file))
    for name, sliding, many in (("kv_cache", False, cells.cells), ("kv_cache:sliding", True, cells.sliding)):
        held = sum(_sum(device.caches, sliding=sliding))
        layers = sum(1 for cache in device.caches if cache.sliding is sliding and cache.keys)
        if held or name == "kv_cache":
            terms.append(
                Term(
                    name,
                    held,
                    f"{many:,} cells x {cells.streams} x {layers} layers, {kinds}",
                    "derived",
                    _SOURCE.format(version=version, file="src/llama-kv-cache.cpp, llama-kv-cache-iswa.cpp"),
                )
            )
    states = sum(cache.convolution + cache.recurrent for cache in device.caches)
    if states:
        file = _SOURCE.format(version=version, file="src/llama-memory-recurrent.cpp")
        terms.append(Term("kv_cache:states", states, f"{cells.sequences} sequences, in 32 bits", "derived", file))
    terms.append(
        Term(
            "activations",
            device.compute,
            f"the graph of {start.ubatch:,} tokens, its results placed as ggml-alloc places them",
            "derived",
            _SOURCE.format(version=version, file="ggml/src/ggml-alloc.c, src/llama-graph.cpp"),
        )
    )
    if tower is not None:
        file = _SOURCE.format(version=version, file="tools/mtmd/clip.cpp, alloc_compute_meta")
        text = f"the graph of one image of {tower[1]:,} x {tower[1]:,} pixels"
        terms.append(Term("activations:vision", tower[0], text, "derived", file))
    allowance = "measured on H100s under vLLM; here an assumption"
    terms.append(Term("runtime:non_torch", runtime_bytes(), allowance, "assumed", "vlmmem/catalog/runtime.json"))
    return terms


def _printed(devices: list[Device], host: Device, start: Start, output_buffer: int) -> dict[str, int]:
    all_ = (*devices, host)
    caches = tuple(cache for device in all_ for cache in device.caches)
    found: dict[str, int] = {
        "n_ctx": start.layout.context,
        "n_ctx_seq": start.layout.sequence,
        "model_size": sum(device.weights for device in all_),
        "host_weights": host.weights,
    }
    for sliding, end in ((False, ""), (True, "_swa")):
        keys, values = _sum(caches, sliding=sliding)
        if keys or not sliding:
            found |= {f"k_size{end}": keys, f"v_size{end}": values}
            found[f"cells{end}"] = start.layout.sliding if sliding else start.layout.cells
    states = sum(cache.convolution + cache.recurrent for cache in caches)
    if states:
        found["state_size"] = states
    # what the log calls the KV cache; states have a line of their own
    found["kv_pool"] = sum(cache.keys + cache.values for cache in caches)
    for device in devices:
        found[f"CUDA{device.index} model buffer size"] = device.weights
        found[f"CUDA{device.index} KV buffer size"] = sum(cache.keys + cache.values for cache in device.caches)
        found[f"CUDA{device.index} compute buffer size"] = device.compute
    found |= {"compute_buffer": max(device.compute for device in devices), "host_compute_buffer": host.compute}
    found["output_buffer"] = output_buffer
    return found


def reserve(model: Model, release: Release, settings: Settings) -> Reservation:
    """What llama-server takes of the fullest GPU.

    `settings.context` is what one sequence may have (n_ctx of one slot); `pp` counts the GPUs over which the layers
    are spread. Options are those of `OPTIONS`.

    Args:
        model: the model; from a GGUF file its weights are exact.
        release: the build.
        settings: how it is started.

    Raises:
        InputError: an option is not known or has no such value, values are quantised without flash attention, or
            llama.cpp has no such attention.

    >>> from vlmmem import find_model
    >>> from vlmmem.engines import reserve as ask
    >>> kept = ask(find_model("gemma-3-4b"), "llama.cpp@b5671", Settings(131072, options=(("mmproj", False),)))
    >>> [(term.name, term.bytes >> 20) for term in kept.terms if term.kind == "kv_cache"]
    [('kv_cache', 2560), ('kv_cache:sliding', 174)]
    """
    start = _start(model, release, settings)
    devices, host, output_buffer = _devices(model, release, settings, start)
    vision = vision_weights(model) if start.mmproj else 0
    fullest = max(devices, key=lambda device: device.total + (vision if device.index == 0 else 0))
    lines = _printed(devices, host, start, output_buffer)
    tower = tower_buffer(model, release) if start.mmproj else None
    with_tower = fullest.index == 0
    terms = _terms(release, start, fullest, vision if with_tower else 0, tower if with_tower else None)
    notes = [note for note in (release.note,) if note]
    if start.gpu_layers <= model.layers:
        notes.append("layers in the host's memory: what the GPU needs for their steps is left out")
    if any(isinstance(cache, StateCache) for layer in model.decoder.layers for cache in layer.caches):
        notes.append("the compute buffer of state-space layers is that of a simplified graph")
    if start.mmproj and tower is None:
        notes.append("the vision tower's compute buffer is left out: its graph was not read")
    if vision:
        lines |= {"vision_weights": vision}
    if tower is not None:
        lines |= {"vision_compute_buffer": tower[0]}
    if settings.utilization is not None:
        notes.append("utilization: llama.cpp takes what it needs, whatever share is named")
    cells = start.layout
    chosen: dict[str, int | float | str | bool] = {
        "n_ctx": cells.context,
        "n_parallel": cells.sequences,
        "n_batch": start.batch,
        "n_ubatch": start.ubatch,
        "flash_attn": start.flash,
        "n_gpu_layers": start.gpu_layers,
        "cache_type_k": start.keys,
        "cache_type_v": start.values,
        "kv_unified": start.unified,
        "swa_full": start.full,
    }
    return Reservation(
        engine="llama.cpp",
        version=release.version,
        terms=tuple(terms),
        kv_tokens=cells.cells * cells.streams,
        kv_blocks=None,
        max_concurrency=cells.context / settings.context,
        printed=tuple(lines.items()),
        settings=tuple(chosen.items()),
        command=server_command(model, release, settings, chosen),
        notes=tuple(notes),
    )


def kv_capacity(
    model: Model, release: Release, settings: Settings, pool_bytes: int
) -> tuple[int, int | None, float | None]:
    """The largest n_ctx, in steps of 256 cells, whose cache is no longer than `pool_bytes`.

    Returns:
        Tokens (0 where not even the first step fits), no blocks, and sequences of `settings.context` among them.

    Raises:
        InputError: as `reserve`.
    """

    def held(context: int) -> int:
        options = (*(pair for pair in settings.options if pair[0] != "n_ctx"), ("n_ctx", context))
        start = _start(model, release, replace(settings, options=options))
        made: dict[int, int] = {}
        total = 0
        for layer in model.decoder.layers:
            if id(layer) not in made:
                made[id(layer)] = layer_cache(
                    model, layer, release, start.layout, keys=start.keys, values=start.values, flash=start.flash
                ).bytes
            total += made[id(layer)]
        return total

    low, high = 0, 1
    while high < 1 << 22 and held(256 * high) <= pool_bytes:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if held(256 * middle) <= pool_bytes else (low, middle)
    return 256 * low, None, 256 * low / settings.context
