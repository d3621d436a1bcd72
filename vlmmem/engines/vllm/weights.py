"""vLLM: what loading the model takes of one GPU, the line "Model loading took X GiB".

Parameters tensor by tensor, as a rank holds them, and buffers that stand beside them: the tables of rotary positions,
which no rank shares, and what a layer computes from its weights once they are loaded. With stages the fullest one
counts.

Read in the releases 0.6.3, 0.8.5, 0.11.0, 0.19.0, 0.22.0 and 0.33.0; nothing here is fitted.
"""

from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from typing import Any

from vlmmem.catalog import find_format, find_model, model_facts
from vlmmem.engines.allocator import ALLOCATOR_SOURCE, allocated_bytes
from vlmmem.engines.fused import FUSED, fused_name
from vlmmem.engines.gpus import BLACKWELL, HOPPER, is_one_of
from vlmmem.engines.releases import Release
from vlmmem.engines.settings import Settings
from vlmmem.engines.vllm.sources import source
from vlmmem.errors import InputError
from vlmmem.formats import Format
from vlmmem.layers import LatentCache, Layer, Part, Tensor
from vlmmem.memory.weights import tensor_bits
from vlmmem.model import Model
from vlmmem.parallelism import stage_layers
from vlmmem.record import record, replace
from vlmmem.terms import Term

__all__ = [
    "element_bytes",
    "has_latent_attention",
    "loaded_weights_bytes",
    "model_config",
    "rotary_tables",
    "served_format",
    "stage_weights",
]

_VOCABULARY = 64
"""Rows to a multiple of which a vocabulary is padded (DEFAULT_VOCAB_PADDING_SIZE, vocab_parallel_embedding.py)."""

_ACTIVATION_BITS = 16
_TILE = 256

_WIDE = ("float32", "fp32", "float", "f32")
_NO_ROTATION = (
    "bloom",
    "gpt2",
    "gpt_bigcode",
    "granitemoehybrid",
    "jamba",
    "mamba",
    "mamba2",
    "falcon_mamba",
    "mpt",
    "nemotron_h",
    "opt",
)
"""Families whose attention turns nothing: learned positions, ALiBi, or none."""

_FUSED = (
    *FUSED,
    (("query", "key", "value"), "query_key_value"),
    (("w1", "w3"), "w13"),
    (("in_proj_b", "in_proj_a"), "in_proj_ba"),
)
_BUILT_WHOLE = ("gemma4", "gemma3n")
_UNTIED_TEXT = ("mistral", "llama", "qwen2", "qwen3")

_INNER = ("text_config", "llm_config", "language_config")


def model_config(model: Model) -> dict[str, Any]:
    """The config's fields of the language model, as the catalogue or the model's folder states them; {} where neither.

    >>> from vlmmem import find_model
    >>> model_config(find_model("gemma-3-12b"))["rope_scaling"]
    {'factor': 8.0, 'rope_type': 'linear'}
    """
    found: dict[str, Any] = {}
    if model.id:
        try:
            found = model_facts(model.id)["config"]
        except (InputError, KeyError):
            found = {}
        else:
            # a file may call itself what the catalogue knows under another shape
            stated = find_model(model.id)
            found = found if stated.layers == model.layers and stated.vocab_size == model.vocab_size else {}
    if not found and model.folder:
        from pathlib import Path

        from vlmmem.strict_json import parse_json

        file = Path(model.folder) / "config.json"
        try:
            read = parse_json(file.read_bytes(), str(file))
        except (InputError, OSError):
            read = {}
        found = read if isinstance(read, dict) else {}
    inner = next((found[name] for name in _INNER if isinstance(found.get(name), dict)), None)
    return found if inner is None else {**found, **inner}


def served_format(model: Model, settings: Settings) -> Format | None:
    """The format in which vLLM holds the weights; None is that of the checkpoint.

    With `--dtype auto` a checkpoint in float32 is served in 16 bits (vllm/config/model.py: `_resolve_auto_dtype`).
    """
    dtype = settings.option("dtype")
    if settings.weights is not None:
        return settings.weights
    if dtype is not None and str(dtype) in _WIDE:
        return find_format("fp32")
    return find_format("bf16") if model.dtype == "fp32" and model.quantization is None else None


def element_bytes(settings: Settings) -> int:
    """Bytes of an activation: 4 where float32 is asked for, 2 otherwise.

    >>> element_bytes(Settings(8192)), element_bytes(Settings(8192, options=(("dtype", "float32"),)))
    (2, 4)
    """
    dtype = settings.option("dtype")
    if dtype is not None and str(dtype) != "auto":
        return 4 if str(dtype) in _WIDE else 2
    return 4 if settings.weights is not None and settings.weights.id == "fp32" else 2


@record(frozen=True, slots=True)
class Table:
    """One table of cosines and sines: what it is, its rows, columns and the bytes of an element."""

    what: str
    rows: int
    columns: int
    element: int

    @property
    def bytes(self) -> int:
        """Rows x columns x bytes of an element."""
        return self.rows * self.columns * self.element


def _whole(value: object, default: int) -> int:
    return value if type(value) is int and value > 0 else default


def _factor(scaling: dict[str, Any]) -> Fraction:
    value = scaling.get("factor", 1)
    return Fraction(value) if type(value) in (int, float) and 0 < value < 1 << 20 else Fraction(1)


def rotary_tables(model: Model, release: Release, settings: Settings) -> tuple[Table, ...]:
    """The tables of rotary positions that the language model's layers look up, one for each distinct rope.

    Rows are positions: max_position_embeddings; times the factor with linear scaling; the original positions times the
    factor with YaRN; the original and the new ones with LongRoPE (up to 0.6.6 each also on its own); four times as many
    where images turn positions in sections (M-RoPE). Columns are the turned part of a head. A table has the
    activations' type, with DeepSeek's YaRN float32 where FlashInfer turns it. Tensor parallelism does not split it.

    Args:
        model: the model.
        release: vLLM's release.
        settings: how it is started.

    Source: vllm/model_executor/layers/rotary_embedding (one file up to 0.10): `get_rope` and `_compute_cos_sin_cache`
    of each class; deepseek_scaling_rope.py since 0.12 for float32.

    >>> from vlmmem import find_model
    >>> [table.bytes for table in rotary_tables(find_model("llama-3.1-8b"), Release("0.19", (0, 19)), Settings(8192))]
    [33554432]
    """
    config = model_config(model)
    element = element_bytes(settings)
    if model.architecture in _NO_ROTATION or any(t.kind == "position" for _, t in model.decoder.sample()):
        return ()
    positions = _whole(config.get("max_position_embeddings"), model.max_positions)
    columns = _turned(model, config)
    if not positions or not columns:
        return ()
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scaling = scaling if isinstance(scaling, dict) else {}
    if model.architecture == "gemma3" or config.get("model_type") in ("gemma3_text", "gemma3n_text"):
        # sliding layers turn without scaling, with a base of their own
        own = scaling.get("full_attention", scaling)
        return (
            Table("sliding layers", positions, columns, element),
            *_scaled(own if isinstance(own, dict) else {}, "full layers", positions, columns, element, model, release),
        )
    nested = [key for key, value in scaling.items() if isinstance(value, dict)]
    if nested:
        found: list[Table] = []
        for key in nested:
            # Gemma 4's full layers have wider heads, of which its table holds the still part too
            own = _whole(config.get("global_head_dim"), columns) if "full" in key else model.head_dim
            found += _scaled(scaling[key], key, positions, own, element, model, release)
        return tuple(found)
    return tuple(_scaled(scaling, "all layers", positions, columns, element, model, release))


def _turned(model: Model, config: dict[str, Any]) -> int:
    """The part of a head that turns."""
    rope = config.get("qk_rope_head_dim")
    if type(rope) is int and has_latent_attention(model):
        return rope
    whole = config.get("rotary_dim")
    if type(whole) is int and 0 < whole <= 1 << 16:
        return whole
    share: object = config.get("partial_rotary_factor", config.get("rotary_pct"))
    nested = config.get("rope_parameters")
    if share is None and isinstance(nested, dict):
        share = nested.get("partial_rotary_factor")
    if type(share) in (int, float) and 0 < float(str(share)) <= 1:
        return int(model.head_dim * float(str(share)))
    return model.head_dim


def has_latent_attention(model: Model) -> bool:
    """Whether a layer of the decoder keeps latent vectors."""
    return any(isinstance(cache, LatentCache) for layer, _ in model.decoder.alike() for cache in layer.caches)


def _scaled(
    scaling: dict[str, Any], what: str, positions: int, columns: int, element: int, model: Model, release: Release
) -> Iterator[Table]:
    kind = str(scaling.get("rope_type", scaling.get("type", "default")))
    original = _whole(scaling.get("original_max_position_embeddings"), positions)
    if "mrope_section" in scaling or kind == "mrope":
        rows = ceil(original * _factor(scaling)) if kind == "yarn" else positions
        yield Table(f"{what}, M-RoPE: four times the positions", 4 * rows, columns, element)
    elif kind == "linear":
        yield Table(f"{what}, linear scaling", ceil(positions * _factor(scaling)), columns, element)
    elif kind in ("yarn", "deepseek_yarn", "deepseek_llama_scaling"):
        # FlashInfer's kernel reads float32
        latent = columns in (64, 128, 256, 512) and has_latent_attention(model)
        size = 4 if latent and release.since("0.12") else element
        yield Table(f"{what}, YaRN", ceil(original * _factor(scaling)), columns, size)
    elif kind in ("longrope", "su"):
        config = model_config(model)
        short = _whole(config.get("original_max_position_embeddings"), original)
        copies = 1 if release.since("0.7") else 2
        yield Table(f"{what}, LongRoPE: short and long", copies * (short + positions), columns, element)
    elif kind == "dynamic":
        longer = 1 if "alpha" in scaling else _factor(scaling)
        yield Table(f"{what}, dynamic scaling", ceil(positions * longer), columns, element)
    else:
        yield Table(what, positions, columns, element)


def _padded(tensor: Tensor) -> Tensor:
    """The tensor with the rows of a vocabulary padded."""
    if tensor.cut != "vocabulary" or len(tensor.shape) != 2:
        return tensor
    rows = -(-tensor.shape[0] // _VOCABULARY) * _VOCABULARY
    return replace(tensor, shape=(rows, tensor.shape[1]))


def stage_weights(model: Model, settings: Settings, stage: int) -> dict[str, int]:
    """Bytes of the parameters that a rank of one pipeline stage holds, by part of the model.

    Args:
        model: the model.
        settings: how it is started.
        stage: the stage, from 0.

    Raises:
        InputError: the model cannot be dealt out to so many stages, or its quantisation is not known.
    """
    bits: dict[str, Fraction] = {}
    for part, _, size, count in _stage(model, settings, stage):
        bits[part] = bits.get(part, Fraction(0)) + count * size
    return {name: ceil(found / 8) for name, found in bits.items()}


def _stage(model: Model, settings: Settings, stage: int) -> Iterator[tuple[str, str, Fraction, int]]:
    """Every tensor of a rank as vLLM allocates it: its part, its name, its bits, and how many are alike."""
    number, tp = served_format(model, settings), settings.tp
    sizes = stage_layers(model, settings.pp)
    start = sum(sizes[:stage])
    first, last = stage == 0, stage == settings.pp - 1
    for part in model.parts:
        decoder = part is model.decoder
        if part.name != "language" and _sees_nothing(settings):
            continue
        for tensor in part.tensors:
            if tensor.kind == "head" and settings.option("runner") == "pooling":
                continue
            if decoder and settings.pp > 1:
                at_end = tensor.kind in ("head", "norm", "bias")
                copied = tensor.kind == "embedding" and model.tied_embeddings and last
                if not copied and not (last if at_end else first):
                    continue
            elif not first:
                continue
            yield part.name, tensor.name, _bits(model, tensor.name, tensor, number, tp), 1
        if decoder and last and _untied(model):
            head = next(tensor for tensor in part.tensors if tensor.kind == "embedding")
            yield part.name, "lm_head", _bits(model, head.name, head, number, tp), 1
        indices = range(start, start + sizes[stage]) if decoder else range(len(part.layers) if first else 0)
        yield from _layers(model, part, indices, number, settings, decoder=decoder)


def _sees_nothing(settings: Settings) -> bool:
    """Whether the towers are left out: no image, video or sound may come (--limit-mm-per-prompt 0)."""
    return settings.images == 0 or bool(settings.option("language_model_only"))


def _layers(
    model: Model, part: Part, indices: range, number: Format | None, settings: Settings, *, decoder: bool
) -> Iterator[tuple[str, str, Fraction, int]]:
    tp = settings.tp
    by_layer = number is None and model.quantization is not None and model.quantization.by_layer
    counts: dict[int, tuple[int, int]] = {}
    for index in indices:
        key = index if by_layer else id(part.layers[index])
        at, count = counts.get(key, (index, 0))
        counts[key] = (at, count + 1)
    for index, count in counts.values():
        layer = part.layers[index]
        merged: dict[str, Fraction] = {}
        for tensor in layer.tensors:
            name = f"{part.stack}.{index}.{tensor.name}"
            stem = fused_name(tensor.name, _FUSED)
            bits = _bits(model, name, tensor, number, tp, layer, index if decoder else None)
            bits *= _tiles(model, tensor, settings) if number is None else 1
            merged[stem] = merged.get(stem, Fraction(0)) + bits
        if decoder and model.architecture.startswith(_BUILT_WHOLE):
            extra = _unread(model, layer, merged, tp)
            stem = next((name for name in merged if "qkv_proj" in name), "qkv_proj")
            merged[stem] = merged.get(stem, Fraction(0)) + extra
        for stem, bits in merged.items():
            yield part.name, stem, bits, count


def _unread(model: Model, layer: Layer, merged: dict[str, Fraction], tp: int) -> Fraction:
    """Bits of keys' and values' matrices that vLLM builds where the layer reads another's cache, or values are keys.

    Source: vllm/model_executor/models/gemma4.py, v0.28.0: one QKVParallelLinear in every layer.
    """
    sizes = {tensor.name.split(".")[-2]: tensor for tensor in layer.tensors if tensor.kind == "linear"}
    query = sizes.get("q_proj")
    if query is None:
        return Fraction(0)
    missing = sum(name not in sizes for name in ("k_proj", "v_proj"))
    width = query.outputs // model.heads
    shared = model_config(model).get("num_global_key_value_heads") if width != model.head_dim else None
    heads = shared if type(shared) is int else model.kv_heads
    held = next((merged[stem] for stem in merged if "qkv_proj" in stem), Fraction(0))
    present = query.outputs // tp + (2 - missing) * max(1, heads // tp) * width
    return held * missing * max(1, heads // tp) * width / present


def _untied(model: Model) -> bool:
    """Whether vLLM builds a head of its own where transformers ties it: it asks the text model's config alone.

    `tie_word_embeddings` is absent in Mistral 3's config; the class of the text model says false, that of the whole
    true (vllm/model_executor/models/mistral3.py hands `text_config` to LlamaForCausalLM).
    """
    if not model.tied_embeddings or model.vision is None:
        return False
    config = model_config(model)
    return "tie_word_embeddings" not in config and config.get("model_type") in _UNTIED_TEXT


def _bits(
    model: Model,
    name: str,
    tensor: Tensor,
    number: Format | None,
    tp: int,
    layer: Layer | None = None,
    index: int | None = None,
) -> Fraction:
    if number is not None and number.scope == "all" and number.bits < _ACTIVATION_BITS:
        # vLLM quantises linear layers and experts; embeddings, head, norms and routers stay
        inside = index is not None and tensor.kind in ("linear", "expert")
        if not inside:
            number = find_format("bf16")
    return tensor_bits(model, name, _padded(tensor), number, tp, layer, index=index)


def _tiles(model: Model, tensor: Tensor, settings: Settings) -> Fraction:
    """By how much MXFP4 experts grow, because kernels take whole tiles.

    Inner width and hidden size are padded to 128 and 256 for Marlin, both to 256 on Blackwell; for Triton's kernels,
    which run on Hopper, the inner width to 64 (vllm/model_executor/layers/quantization/mxfp4.py, v0.11.0,
    `create_weights`; layers/fused_moe/oracle/mxfp4.py, v0.19.0). Triton's own tile is not in vLLM's code: 256 inputs of
    the values, 16 of 17 bytes, are what gpt-oss-20b and 120b took in 0.11.
    """
    if tensor.kind != "expert" or model.quantization is None or model.quantization.method != "mxfp4":
        return Fraction(1)
    hidden, down = model.hidden_size, "down" in tensor.name
    whole = tensor.inputs if down else tensor.outputs // 2
    wide = -(-whole // settings.tp)
    if not is_one_of(settings.gpu, HOPPER):
        step = 256 if is_one_of(settings.gpu, BLACKWELL) else 128
        return Fraction((wide + -wide % step) * (hidden + -hidden % 256), wide * hidden)
    padded = wide + -wide % 64
    inputs, outputs = (padded, hidden) if down else (hidden, padded)
    values = 16 * (inputs + -inputs % _TILE)
    return Fraction((values + inputs) * outputs, 17 * wide * hidden)


def _absorbed(model: Model, release: Release, settings: Settings, layers: int) -> int:
    """Bytes of the matrices that latent attention keeps in 16 bits, W_UK and W_UV, beside the kv_b_proj they come from.

    vllm/model_executor/layers/attention/mla_attention.py: `process_weights_after_loading`. Where kv_b_proj is not
    quantised they look like views of it there, and yet DeepSeek-V2-Lite took this much more in 0.19.
    """
    if not release.since("0.7"):
        return 0
    each = 0
    for layer, _ in model.decoder.alike():
        for tensor in layer.tensors:
            if "kv_b_proj" in tensor.name and tensor.kind == "linear":
                each = max(each, 2 * tensor.parameters // settings.tp)
    return each * layers


_EMBEDS_ADAPTERS = ("llama", "mistral", "mixtral")
_EXTRA_VOCABULARY = 256


def _adapters(model: Model, settings: Settings, layers: int) -> int:
    """Bytes of the room for LoRA adapters: A and B, 16 bits, of every linear layer of the decoder.

    A fused layer has an A for each of its parts. Llama's and Mistral's embedding and head have them too
    (`embedding_modules`). A is whole on every rank, and so is B of the layers whose inputs are cut.

    Source: vllm/lora/layers.py (vllm/lora/layers/ since 0.10): `create_lora_weights`.
    """
    rank, most = settings.option("max_lora_rank"), settings.option("max_loras") or 1
    if type(rank) is not int or type(most) is not int or not 0 < rank <= 1 << 12 or not 0 < most <= 1 << 12:
        return 0
    wide, tp, counted = 0, settings.tp, 0
    for layer, count in model.decoder.alike():
        for tensor in layer.tensors:
            if tensor.kind != "linear":
                continue
            inputs = -(-tensor.inputs // tp) if tensor.cut == "inputs" else tensor.inputs
            outputs = tensor.outputs if tensor.cut == "inputs" else -(-tensor.outputs // tp)
            wide += count * (inputs + outputs)
        counted += count
    wide = wide * layers // max(1, counted)
    if model.architecture in _EMBEDS_ADAPTERS:
        wide += 2 * (model.vocab_size + _EXTRA_VOCABULARY + model.hidden_size)
    return 2 * rank * most * wide


def loaded_weights_bytes(model: Model, release: Release, settings: Settings) -> tuple[Term, ...]:
    """What "Model loading took X GiB" prints for the fullest rank: one term for each part and for the tables.

    Args:
        model: the model.
        release: vLLM's release.
        settings: how it is started, complete.

    Raises:
        InputError: the model cannot be split so, or the bytes of its quantisation are not known.

    Source: vllm/v1/worker/gpu_model_runner.py (vllm/worker/model_runner.py of V0): `load_model`, what PyTorch's
    allocator holds more after it than before.

    >>> from vlmmem import find_model
    >>> terms = loaded_weights_bytes(find_model("llama-3.1-8b"), Release("0.19", (0, 19)), Settings(8192))
    >>> [(term.name, term.bytes) for term in terms]
    [('weights:language', 16060522496), ('weights:rounding', 0), ('weights:rotary', 33554432)]
    """
    stages = [stage_weights(model, settings, stage) for stage in range(settings.pp)]
    at = max(range(settings.pp), key=lambda stage: sum(stages[stage].values()))
    parts = stages[at]
    where = f"tp {settings.tp}" + (f", stage {at + 1} of {settings.pp}" if settings.pp > 1 else "")
    layers = source(release, "vllm/model_executor/layers/linear.py")
    terms = [
        Term(f"weights:{name}", size, f"{name} tensors of one rank, {where} = {size}", "derived", layers)
        for name, size in parts.items()
    ]
    sizes = [size for _, _, bits, count in _stage(model, settings, at) for size in [ceil(bits / 8)] * count]
    rounding = allocated_bytes(sizes) - sum(sizes)
    formula = f"segments of 2 MiB of which up to 1 MiB stays unused = {rounding}"
    if settings.option("expandable_segments"):
        # PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True cuts every rest off
        rounding, formula = 0, "expandable segments: 0"
    terms.append(Term("weights:rounding", rounding, formula, "derived", ALLOCATOR_SOURCE))
    tables = rotary_tables(model, release, settings)
    if tables:
        size = sum(table.bytes for table in tables)
        shown = " + ".join(f"{table.rows} x {table.columns} x {table.element} ({table.what})" for table in tables)
        rotary = source(release, "vllm/model_executor/layers/rotary_embedding.py", "_compute_cos_sin_cache")
        terms.append(Term("weights:rotary", size, f"{shown} = {size}", "derived", rotary))
    adapters = _adapters(model, settings, stage_layers(model, settings.pp)[at])
    if adapters:
        rank = settings.option("max_lora_rank")
        formula = f"stacked A and B of {settings.option('max_loras') or 1} adapters of rank {rank} = {adapters}"
        stacked = source(release, "vllm/lora/layers.py", "create_lora_weights")
        terms.append(Term("weights:lora", adapters, formula, "derived", stacked))
    absorbed = _absorbed(model, release, settings, stage_layers(model, settings.pp)[at])
    if absorbed:
        formula = f"W_UK and W_UV in 16 bits beside kv_b_proj = {absorbed}"
        kept = source(release, "vllm/attention/backends/mla/utils.py", "process_weights_after_loading")
        terms.append(Term("weights:latent", absorbed, formula, "derived", kept))
    return tuple(terms)
