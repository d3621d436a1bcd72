"""vLLM: what PyTorch's peak rises by in the profile run, "PyTorch activation peak memory takes X GiB".

The profile run passes dummy images of the largest size through the encoder, max_num_batched_tokens tokens through the
layers, and the last states of max_num_seqs sequences through the sampler. The peak is the largest of these moments;
what one of them leaves behind stands under the next ones.

Symbols: T max_num_batched_tokens, S rows of logits (max_num_seqs, no more than T), V rows of the vocabulary, H
hidden_size, I intermediate_size, t tensor parallelism, k active experts, e bytes of an activation.

- layers: e T (c H + 3 I / t), without a gate 2 I / t; c was measured. 2 H more where stages hand states on.
- experts: two buffers, e T k max(I, H) and e T k max(2 I, H), I that of one expert over t. They stay from 0.13 on
  (vllm/v1/worker/workspace.py), and stand under the sampler; before, they were freed and one, of k I, was smaller.
- latent attention: the prefixes' keys and values of a chunk, e W heads / t (d_nope + d_v), W = min(max(8 L, 4 S 16),
  65536) (vllm/v1/attention/backends/mla/common.py).
- sampler: e T H + e S H (twice from 0.9 on, for random states) + S V times: from 0.21 on e + 4 + 4 + 4, the logits,
  their float32, and FlashInfer's masked logits and probabilities; from 0.17 to 0.20 the same for float32, probabilities
  and noise, and 4 V for each multiprocessor that the Triton kernel runs on; before, PyTorch's sort: measured.
  With the second runner, before 0.33, e S V alone.
- encoder: as many images as its budget max(T, tokens of the largest) holds; its pass, then its features and pixels.
- cuBLAS takes 32 MiB from PyTorch on Hopper and Blackwell, 8.1 MiB elsewhere, with the first product.

Read in 0.6.3, 0.7.1, 0.8.5, 0.9.2, 0.11.0, 0.13.0, 0.16.0, 0.17.0, 0.19.0, 0.22.0, 0.28.0 and 0.33.0:
vllm/v1/worker/gpu_model_runner.py (`profile_run`, `_dummy_run`, `_dummy_sampler_run`; V0: vllm/worker/model_runner.py),
vllm/v1/sample/sampler.py, vllm/v1/sample/ops/topk_topp_sampler.py and topk_topp_triton.py,
vllm/model_executor/layers/fused_moe.
"""

from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

from vlmmem.engines.gpus import BLACKWELL, HOPPER, cublas_workspace_bytes, is_one_of
from vlmmem.engines.releases import Release
from vlmmem.engines.settings import Settings
from vlmmem.engines.vllm.generation import uses_v1
from vlmmem.engines.vllm.sources import runner_source
from vlmmem.engines.vllm.weights import element_bytes, has_latent_attention, model_config
from vlmmem.errors import InputError
from vlmmem.images import ImageTokens
from vlmmem.layers import StateCache
from vlmmem.memory.vision import encoder_moments
from vlmmem.model import Model, VisionTower
from vlmmem.record import record
from vlmmem.strict_json import read_json
from vlmmem.terms import Term
from vlmmem.units import exact

__all__ = [
    "Images",
    "Moment",
    "activation_peak",
    "constants",
    "kept_bytes",
    "largest_images",
    "moments",
    "second_runner",
]

_LARGEST = {
    "llava_onevision": (1153, 944),
    "internvl": (1792, 1344),
    "internvl_chat": (1792, 1344),
    "phi3_v": (50, 8000),
}
"""Width and height of the image with the most tokens, where it is no large square."""
_SQUARE = (4096, 4096)

_FRAMES, _FRAME_TOKENS = 32, 70
_MLA_CHUNK = 64 * 1024
_FEWEST_ROWS = 8
_CHUNK_TOKENS = 32 * 1024


@cache
def constants() -> dict[str, Any]:
    """The measured constants, with the records they were fitted on (constants.json)."""
    found: dict[str, Any] = read_json(Path(__file__).with_name("constants.json"))
    return found


@record(frozen=True, slots=True)
class Moment:
    """One moment of the profile run: its bytes, the arithmetic, and derived, measured or assumed."""

    name: str
    bytes: int
    formula: str
    basis: str


@record(frozen=True, slots=True)
class Images:
    """The dummy images of the profile run: how many, of how many tokens each, the encoder's budget in tokens."""

    count: int
    each: ImageTokens
    budget: int


_V2_SINCE_24 = ("qwen3", "deepseek_v2", "qwen2_moe", "granitemoe", "llama", "mistral")
_V2_EXPERTS = ("deepseek_v2", "deepseek_v4", "granitemoe", "qwen2_moe")


def second_runner(model: Model, release: Release, settings: Settings) -> bool:
    """Whether the second model runner (vllm/v1/worker/gpu) starts, which profiles less.

    By default since 0.22 for Qwen3 without experts and quantisation, since 0.24 for a list of architectures, since 0.26
    for all without experts or states, and since 0.30 for all.

    Source: vllm/config/vllm.py, `use_v2_model_runner`, at v0.22.0, v0.24.0, v0.26.0, v0.28.0 and v0.30.0.

    >>> from vlmmem import find_model
    >>> from vlmmem.engines.releases import parse_version
    >>> [second_runner(find_model("llama-3.1-8b"), Release(name, parse_version(name)), Settings(8192))
    ...  for name in ("0.22", "0.24")]
    [False, True]
    """
    chosen = settings.option("VLLM_USE_V2_MODEL_RUNNER")
    if chosen is not None:
        return str(chosen) not in ("0", "False")
    if not release.since("0.22"):
        return False
    if release.since("0.30"):
        return True
    if settings.option("runner") == "pooling":
        return False
    if not release.since("0.24"):
        plain = model.quantization is None and (settings.weights is None or settings.weights.bits >= 16)
        return model.architecture == "qwen3" and plain
    if not release.since("0.26"):
        return model.architecture in _V2_SINCE_24
    states = any(isinstance(cache, StateCache) for layer, _ in model.decoder.alike() for cache in layer.caches)
    return not states and (not model.experts or model.architecture in _V2_EXPERTS)


def largest_images(model: Model, release: Release, settings: Settings, *, v1: bool = True) -> Images | None:
    """The images that the profile run encodes: those of the largest size, as many as the encoder's budget holds.

    None where the model has no encoder, images are switched off, or no processor of it is known.

    Source: vllm/multimodal/encoder_budget.py and vllm/v1/core/encoder_cache_manager.py, `compute_mm_encoder_budget`;
    `get_image_size_with_most_features` of each model.

    >>> from vlmmem import find_model
    >>> found = largest_images(find_model("gemma-3-12b"), Release("0.19", (0, 19)),
    ...                        Settings(8192, batch_tokens=8192, sequences=1024, images=1))
    >>> found.count, found.each.tokens, found.budget
    (32, 256, 8192)
    """
    limit = settings.images
    if (
        model.vision is None
        or limit == 0
        or settings.option("skip_mm_profiling")
        or settings.option("language_model_only")
    ):
        return None
    if second_runner(model, release, settings) and not release.since("0.27"):
        # it did not profile the encoder yet
        return None
    each = _largest(model, settings)
    tokens = settings.batch_tokens or settings.context
    rows = settings.sequences or 1
    budget = max(tokens, each.tokens)
    if model.architecture == "mllama":
        # V0's runner of encoder-decoders gives every sequence an image of four tiles
        return Images(rows, each, budget)
    if not v1:
        return Images(max(1, min(rows, tokens // max(1, each.tokens))), each, budget)
    # 0.8 and 0.9 round up
    held = budget // each.tokens if release.since("0.10") else -(-budget // each.tokens)
    a_prompt = max(1, min(limit or 1, settings.context // each.tokens))
    return Images(max(1, min(held, rows * a_prompt)), each, budget)


def _largest(model: Model, settings: Settings) -> ImageTokens:
    """The image with the most tokens; of a video where that has more."""
    from vlmmem.footprint import image_of

    width, height = settings.image_size or _LARGEST.get(model.architecture, _SQUARE)
    if model.architecture.startswith("gemma4") and settings.image_size is None:
        # vllm/model_executor/models/gemma4_mm.py: 32 frames of 70 tokens, each in 8 of markers and time
        tokens, patches = _FRAMES * (_FRAME_TOKENS + 8), _FRAMES * _FRAME_TOKENS * 9
        return ImageTokens(0, 0, tokens, tokens, patches * 3 * 16 * 16, crops=1, patches=patches)
    try:
        return image_of(model, width, height)
    except InputError:
        # a tower whose processor is not known: one image of the side it was trained on
        tower = model.vision
        side = tower.image_size if tower is not None and tower.image_size else _SQUARE[0]
        patches = (side // (tower.patch_size if tower is not None else 16)) ** 2
        tokens = max(1, patches // (tower.merge if tower is not None else 1) ** 2)
        return ImageTokens(side, side, tokens, tokens, 3 * side * side, crops=1, patches=patches)


def moments(model: Model, release: Release, settings: Settings) -> tuple[Moment, ...]:
    """The moments of the profile run that may be its peak, on the stage that `activation_peak` names."""
    v1 = uses_v1(model, release, settings)
    images = largest_images(model, release, settings, v1=v1)
    stage = _stage(settings)
    first, last = stage == 0, stage == settings.pp - 1
    images = images if first else None
    found: list[Moment] = []
    kept, basis = _cublas(settings), "derived"
    said = f"{kept} (cuBLAS)"
    if images is not None:
        encoder = _encoder(model, release, settings, images, v1=v1)
        pixels, features = _pixels(release, images), _features(model, release, images)
        found.append(
            Moment(
                "encoder",
                encoder.bytes + pixels + kept,
                f"{encoder.formula} + {pixels} (pixels) + {said}",
                encoder.basis,
            )
        )
        if second_runner(model, release, settings):
            # it lets go of the dummy images before the layers run
            pixels = 0
        kept += pixels + features
        said += f" + {pixels} (pixels) + {features} (features of {images.count} x {images.each.tokens} tokens)"
    if not first:
        # a buffer for the states and residuals of the stage before
        handed = 2 * element_bytes(settings) * _tokens(settings) * model.hidden_size
        kept += handed
        said += f" + {handed} (from the stage before)"
    experts = _experts(model, release, settings)
    layers = _layers(model, settings)
    found.append(
        Moment(
            "layers", layers.bytes + experts.bytes + kept, f"{layers.formula} + {experts.formula} + {said}", "measured"
        )
    )
    latent = _latent(model, settings)
    if latent.bytes:
        found.append(
            Moment(
                "latent", latent.bytes + experts.bytes + kept, f"{latent.formula} + {experts.formula} + {said}", basis
            )
        )
    if last and settings.option("runner") != "pooling":
        stays = _held(model, release, settings)
        sampler = _sampler(model, release, settings, images, v1=v1)
        stood = f"{said} + {stays} (experts)" if stays else said
        found.append(Moment("sampler", sampler.bytes + stays + kept, f"{sampler.formula} + {stood}", sampler.basis))
    return tuple(found)


def kept_bytes(model: Model, release: Release, settings: Settings) -> int:
    """What of the peak PyTorch still holds after the profile run: cuBLAS' workspace, since 0.13 experts' buffers."""
    return _cublas(settings) + _held(model, release, settings)


def _held(model: Model, release: Release, settings: Settings) -> int:
    """Experts' buffers that stay: since 0.13, but not of MXFP4 on Hopper, whose one kernel makes its own.

    Source: vllm/model_executor/layers/fused_moe/gpt_oss_triton_kernels_moe.py, v0.19.0: the monolithic experts.
    """
    packed = model.quantization is not None and model.quantization.method == "mxfp4"
    if not release.since("0.13") or (packed and is_one_of(settings.gpu, HOPPER) and release.since("0.18")):
        return 0
    return _experts(model, release, settings).bytes


def _stage(settings: Settings) -> int:
    """The stage that is priced: the last one, which has the logits; the option `stage` names another."""
    asked = settings.option("stage")
    return asked if type(asked) is int and 0 <= asked < settings.pp else settings.pp - 1


def _cublas(settings: Settings) -> int:
    if settings.gpu is not None and settings.gpu.vendor == "AMD":
        return 0
    return cublas_workspace_bytes(settings.gpu, HOPPER, BLACKWELL)


def _tokens(settings: Settings) -> int:
    return settings.batch_tokens or settings.context


def _hidden(copies: object, size: int) -> int:
    return ceil(exact(copies) * size) if isinstance(copies, int | float) else size


def _layers(model: Model, settings: Settings) -> Moment:
    tokens, element = _tokens(settings), element_bytes(settings)
    copies = constants()["hidden_states"]["copies"]
    handed = 2 if settings.pp > 1 and _stage(settings) == 0 else 0
    wide = _dense_width(model)
    gates = 3 if _gated(model) else 2
    size = (
        element
        * tokens
        * (_hidden(copies, model.hidden_size) + handed * model.hidden_size + gates * wide // settings.tp)
    )
    shown = f"{element} x {tokens} x ({copies} + {handed}) x {model.hidden_size} + {gates} x {wide} / {settings.tp}"
    if _dequantised(model, settings):
        # bitsandbytes writes one part of gate and up out in 16 bits before it multiplies (its `apply`)
        matrix = 2 * wide // settings.tp * model.hidden_size
        size, shown = size + matrix, f"{shown} + {matrix} (a matrix in 16 bits)"
    return Moment("layers", size, shown, "measured")


def _dequantised(model: Model, settings: Settings) -> bool:
    if settings.weights is not None:
        return settings.weights.id.startswith("nf4")
    return model.quantization is not None and model.quantization.method == "bitsandbytes"


def _gated(model: Model) -> bool:
    names = [tensor.name for layer, _ in model.decoder.alike() for tensor in layer.tensors]
    return any("gate" in name or "w3" in name for name in names)


def _dense_width(model: Model) -> int:
    """The widest MLP that is no expert: its inner width."""
    widest = 0
    for layer, _ in model.decoder.alike():
        for tensor in layer.tensors:
            if tensor.kind == "linear" and any(mark in tensor.name for mark in _DOWN):
                widest = max(widest, tensor.inputs)
    if widest:
        return widest
    return 0 if model.experts else model.intermediate_size


_DOWN = ("down_proj", "mlp.c_proj", "fc2", "w2", "dense_4h_to_h", "fc_out", "mlp.down")


def _experts(model: Model, release: Release, settings: Settings) -> Moment:
    if not model.experts:
        return Moment("experts", 0, "0", "derived")
    tokens = min(_tokens(settings), _CHUNK_TOKENS)
    element, hidden = element_bytes(settings), model.hidden_size
    inner = 0
    for layer, _ in model.decoder.alike():
        for tensor in layer.tensors:
            if tensor.kind == "expert" and any(mark in tensor.name for mark in ("down", "w2", "output")):
                inner = max(inner, tensor.inputs)
    if not inner:
        return Moment("experts", 0, "0", "derived")
    inner = -(-inner // settings.tp)
    rows = element * tokens * model.active_experts
    small = max(inner, hidden) if release.since("0.13") else inner
    size = rows * (small + max(2 * inner, hidden))
    return Moment("experts", size, f"{rows} x ({small} + {max(2 * inner, hidden)}) (experts)", "derived")


def _latent(model: Model, settings: Settings) -> Moment:
    config = model_config(model)
    nope, value = config.get("qk_nope_head_dim"), config.get("v_head_dim")
    if not has_latent_attention(model) or type(nope) is not int or type(value) is not int:
        return Moment("latent", 0, "0", "derived")
    chunk = min(max(8 * settings.context, 4 * (settings.sequences or 1) * 16), _MLA_CHUNK)
    heads = -(-model.heads // settings.tp)
    element = element_bytes(settings)
    size = element * chunk * heads * (nope + value)
    return Moment("latent", size, f"{element} x {chunk} x {heads} x ({nope} + {value})", "derived")


def _sampler(model: Model, release: Release, settings: Settings, images: Images | None, *, v1: bool) -> Moment:
    element, hidden = element_bytes(settings), model.hidden_size
    tokens = _tokens(settings)
    rows = min(settings.sequences or 1, tokens)
    if not v1 and images is not None:
        # V0 fills each dummy sequence with its images
        rows = min(rows, images.count)
    vocabulary = -(-model.vocab_size // 64) * 64
    twice = 2 if v1 and release.since("0.9") else 1
    states = element * hidden * (tokens + twice * rows)
    wide = constants()["float32_copies"]["bytes"] if element == 4 else 0
    if second_runner(model, release, settings) and not release.since("0.33"):
        states = element * hidden * (tokens + rows)
        # soft-capped logits are made anew, beside the old ones
        copies = 2 if model_config(model).get("final_logit_softcapping") else 1
        size = copies * rows * vocabulary * element + states
        shown = f"{copies} x {rows} x {vocabulary} x {element} + {states} (states)"
        return Moment("sampler", size, shown, "derived")
    flash = _flashinfer(release, settings)
    if v1 and (flash or (release.since("0.17") and rows >= _FEWEST_ROWS)):
        copies = 12 + wide + (element if element != 4 else 0)
        size = rows * vocabulary * copies
        shown = f"{rows} x {vocabulary} x {copies} + {states} (states)"
        if not flash:
            programs = min(_next_power(rows), settings.gpu.multiprocessors if settings.gpu is not None else rows)
            size += 4 * programs * vocabulary
            shown += f" + 4 x {programs} x {vocabulary}"
        return Moment("sampler", size + states, shown, "measured" if wide else "derived")
    measured = [each for each in constants()["sampler_copies"] if each["engine"] == ("V1" if v1 else "V0")]
    each = measured[-1]["bytes"]
    size = ceil(exact(each) * rows * vocabulary)
    return Moment("sampler", size + states, f"{each} x {rows} x {vocabulary} + {states} (states)", "measured")


def _flashinfer(release: Release, settings: Settings) -> bool:
    """Whether FlashInfer samples: by default since 0.21; before where VLLM_USE_FLASHINFER_SAMPLER asks for it.

    Up to 0.11.1 V1 took it wherever it was installed, which no setting says: it is taken for absent.
    """
    asked = settings.option("VLLM_USE_FLASHINFER_SAMPLER")
    if asked is not None:
        return str(asked) not in ("0", "False")
    return release.since("0.21")


def _next_power(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()


def _pixels(release: Release, images: Images) -> int:
    """Bytes of the dummy pixels: as the processor gives them, and in the model's format since 0.9."""
    return (2 if release.since("0.9") else 4) * images.count * images.each.pixel_values


def _features(model: Model, release: Release, images: Images) -> int:
    if model.architecture == "mllama":
        # states for cross-attention: all patches and the class token of every tile
        seen = (images.each.patches or 0) + images.each.crops
        return images.count * seen * model.hidden_size * 2
    deep = 1 + (model.vision.deepstack if model.vision is not None else 0)
    rows = images.count * images.each.tokens
    if release.since("0.11") and not release.since("0.13") and images.each.tokens < images.budget:
        # 0.11 and 0.12 spread each item's features over a buffer of the whole budget, beside the features themselves
        rows = images.count * images.budget
    return rows * model.hidden_size * deep * 2


_ANY_SIZE = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
_LAYERED = ("llava", "llava_next", "llava_onevision", "paligemma", "gemma3")


def _encoder(model: Model, release: Release, settings: Settings, images: Images, *, v1: bool) -> Moment:
    """The encoder's pass over the dummy images.

    Qwen's towers are read in vLLM's own code. Towers of clip and siglip are transformers' pass, which was followed to
    the byte, less one row of states that vLLM adds in place; others that were followed are taken as they are in
    transformers, and the rest by their MLP alone.
    """
    each, count, tower = images.each, images.count, model.vision
    if tower is None:
        return Moment("encoder", 0, "0", "derived")
    rows = count * (each.patches or max(1, tower.patches) * each.crops)
    if model.architecture == "mllama":
        return _mllama_tower(tower, images)
    if model.architecture in _ANY_SIZE:
        return _qwen_tower(model, release, settings, rows, v1=v1)
    try:
        found = encoder_moments(model, count, crops=each.crops, tokens=each.tokens, grid=each.grid)
    except InputError:
        # Gemma 4 takes the frames of its video in chunks; one at a time is taken for granted
        chunk = rows // _FRAMES if model.architecture.startswith("gemma4") else rows
        kept = 2 * (rows - chunk) * tower.hidden_size
        size = 2 * chunk * (4 * tower.hidden_size + 2 * tower.intermediate_size) + kept
        shown = f"2 x {chunk} x (4 x {tower.hidden_size} + 2 x {tower.intermediate_size}) + {kept}"
        return Moment("encoder", size, shown, "assumed")
    if model.architecture in _LAYERED:
        less = 2 * rows * tower.hidden_size
        found = {name: size - (less if name in ("mlp", "attention") else 0) for name, size in found.items()}
    name = max(found, key=lambda moment: found[moment])
    return Moment("encoder", found[name], f"{found[name]} ({name} of {count} images)", "assumed")


def _mllama_tower(tower: VisionTower, images: Images) -> Moment:
    """Llama 3.2's tower in its last, global layers: 11 rows kept of the first ones, 10 of a block, and the mask.

    Rows are padded to 8 a tile; the mask counts every pair of an image's rows.

    Source: vllm/model_executor/models/mllama.py, v0.6.6: MllamaVisionModel.forward.
    """
    tiles = max(1, images.each.crops)
    row = tiles * (-(-(tower.patches + 1) // 8) * 8)
    size = 2 * images.count * (row * (13 * tower.hidden_size + 2 * tower.intermediate_size) + row * row)
    shown = f"2 x {images.count} x ({row} x (13 x {tower.hidden_size} + 2 x {tower.intermediate_size}) + {row}^2)"
    return Moment("encoder", size, shown, "derived")


def _qwen_tower(model: Model, release: Release, settings: Settings, rows: int, *, v1: bool) -> Moment:
    """A block of Qwen's towers: the larger of its attention, where queries and keys turn, and its MLP.

    Rows of states alive while queries and keys turn: the block's input and its norm, 3 of the fused projection, and
    until 0.10 copies of all three, one of them in float32 before and after, and the result (13); in 0.11.0 both of
    them at once in a new tensor (20); since 0.11.2 without the copies and in 16 bits, 11; Qwen2-VL since 0.12, 12. MLP:
    2 rows, 4 since 0.10.2 with the norm that adds; a gate takes 3 I, and 4 where V1 leaves the activation to PyTorch.

    Source: vllm/model_executor/models/qwen2_5_vl.py, qwen2_vl.py and qwen3_vl.py, at v0.8.5, v0.9.2, v0.10.2, v0.11.0,
    v0.11.2, v0.13.0 and v0.19.0.
    """
    tower = model.vision
    if tower is None:
        return Moment("encoder", 0, "0", "derived")
    hidden, wide = tower.hidden_size, tower.intermediate_size
    own = model.architecture == "qwen2_vl"
    turned = 20 if release.since("0.11") else 13
    if release.since("0.12" if own else "0.11.2"):
        turned = 12 if own else 11
    fused = model.architecture == "qwen2_5_vl" and release.since("0.10.2")
    native = v1 and not settings.eager
    gates = 2 if model.architecture.startswith("qwen3") else 3 + (native and model.architecture == "qwen2_5_vl")
    tp = settings.tp
    moments = {
        # the block's input and its norm are whole on every rank
        "attention": 2 * hidden + (turned - 2) * hidden // tp,
        "mlp": (4 if fused else 2) * hidden + gates * wide // tp,
    }
    name = max(moments, key=lambda moment: moments[moment])
    size = 2 * rows * moments[name]
    return Moment("encoder", size, f"2 x {rows} x {moments[name]} ({name} of {rows} patches)", "derived")


def activation_peak(model: Model, release: Release, settings: Settings) -> Term:
    """What PyTorch's peak rises by in the profile run, on the stage with the most of it.

    Args:
        model: the model.
        release: vLLM's release.
        settings: how it is started, complete. The option `stage` asks for another stage than the last.

    Source: the module's text.

    >>> from vlmmem import find_gpu, find_model
    >>> settings = Settings(8192, find_gpu("h100-80gb"), sequences=1024, batch_tokens=8192)
    >>> term = activation_peak(find_model("llama-3.1-8b"), Release("0.19", (0, 19)), settings)
    >>> f"{term.bytes / 2**30:.2f}", term.basis
    ('1.88', 'derived')
    """
    found = moments(model, release, settings)
    peak = max(found, key=lambda moment: moment.bytes)
    source = runner_source(release, "profile_run", v1=uses_v1(model, release, settings))
    if peak.basis == "measured":
        source += "; vlmmem/engines/vllm/constants.json"
    return Term(f"activations:{peak.name}", peak.bytes, f"{peak.formula} = {peak.bytes}", peak.basis, source)
