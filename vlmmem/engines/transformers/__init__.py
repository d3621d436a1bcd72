"""transformers: what `generate` holds of a GPU, by release, as `torch.cuda.max_memory_allocated` counts it.

Nothing is set aside: the cache grows with the sequence (DynamicCache), so that the peak is the larger of two moments.
In the prefill, the prompt's cache and the activations of one pass of all its tokens; in the last step, the cache of the
whole sequence. By release:

- Whose logits are computed in the prefill: every prompt token's, 2 V bytes a token, with a float32 copy of 4 V beside
  them where the class upcasts; since v4.45 in most classes those of the last token alone (logits.json says when in
  which family). `generate` copied all of them once more in v4.45 and v4.46 (generation/utils.py, _sample).
- Cosines and sines of all positions in every layer, before v4.42 to v4.48 by family (logits.json).
- Sliding layers keep all tokens before v4.56, where DynamicSlidingWindowLayer appears (cache_utils.py). It cuts by a
  view, whose storage holds the whole prompt until the next token replaces it. Gemma 2 and 3 and Cohere 2 have a static
  cache of their windows from their first release on (cache_implementation = "hybrid").
- Images: their features stay through the prefill. `generate` of v5.23 encodes them first and keeps what the tower gave
  to the end (generation/utils.py, mm_encoder_outputs); LLaVA then holds its features twice and two states of its tower.

Beside the model: cuBLAS' workspace, the buffer in which GPTQ's kernel writes out its largest matrix (AutoGPTQ v0.7.1,
modeling/_utils.py, autogptq_post_init), the matrix that AWQ's kernel writes out above 1,024 tokens (AutoAWQ v0.2.6,
modules/linear/gemm.py), and, while a tied model quantised by AutoAWQ loads, its output head, which the checkpoint holds
beside the embedding. The CUDA context is not in `max_memory_allocated`, and a term of its own here.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmmem.catalog import find_format
from vlmmem.engines.allocator import ALLOCATOR_SOURCE, allocated_bytes
from vlmmem.engines.gpus import CUBLAS_SOURCE, HOPPER, cublas_workspace_bytes
from vlmmem.engines.releases import Release
from vlmmem.engines.reservation import Reservation
from vlmmem.engines.settings import Settings
from vlmmem.engines.transformers.autoawq import fused
from vlmmem.engines.transformers.weights import kernel, largest_linear, loaded_bytes, rotary_tables
from vlmmem.errors import InputError
from vlmmem.formats import Format
from vlmmem.memory import (
    cache_sizes,
    decode_peak_bytes,
    kv_cache_bytes,
    runtime_allowance,
)
from vlmmem.memory.activations import forward_moments, likely_moments, mlp_width
from vlmmem.model import Model
from vlmmem.parallelism import gpu_shares
from vlmmem.record import record
from vlmmem.strict_json import read_json
from vlmmem.terms import Term
from vlmmem.workload import Parallelism, Workload, check_positive

if TYPE_CHECKING:
    from vlmmem.images import ImageTokens

__all__ = ["RELEASES", "logit_bytes", "reserve"]

RELEASES = (
    "4.36",
    "4.38",
    "4.40",
    "4.42",
    "4.43",
    "4.44",
    "4.45",
    "4.46",
    "4.47",
    "4.48",
    "4.49",
    "4.50",
    "4.51",
    "4.52",
    "4.53",
    "4.54",
    "4.56",
    "4.57",
    "5.0",
    "5.10",
    "5.23",
)
"""The releases whose code was read."""

_CODE = "https://github.com/huggingface/transformers/tree/v"
_TAGS = {"4.36": "4.36.2", "4.38": "4.38.2", "4.40": "4.40.2", "4.42": "4.42.4", "4.43": "4.43.4", "4.44": "4.44.2"}
_TAGS |= {"4.45": "4.45.2", "4.46": "4.46.0", "4.47": "4.47.1", "4.48": "4.48.3", "4.49": "4.49.0", "4.50": "4.50.3"}
_TAGS |= {"4.51": "4.51.3", "4.52": "4.52.4", "4.53": "4.53.3", "4.54": "4.54.1", "4.56": "4.56.2", "4.57": "4.57.3"}
_TAGS |= {"5.0": "5.0.0", "5.10": "5.10.0", "5.23": "5.23.0"}

_GPTQ = "https://github.com/AutoGPTQ/AutoGPTQ/blob/v0.7.1/auto_gptq/modeling/_utils.py"
_AWQ = "https://github.com/casper-hansen/AutoAWQ/blob/v0.2.6/awq/modules/linear/gemm.py"

_AWQ_WRITES_OUT = 1024  # tokens from which AWQ's kernel writes its matrix out (FP16_MATMUL_HEURISTIC_CONDITION)
_HYBRID = ("gemma2", "gemma3", "gemma3_text", "cohere2")
# Scores of eager attention: as multiplied, masked, in float32 and back (modeling_llama.py, eager_attention_forward).
_EAGER_SCORE, _MASK = 6, 2
_ACTIVATION = 2
_ENCODED_FIRST = "5.23"


@record(frozen=True, slots=True)
class _Rules:
    """What a release does with a family's logits and rotary tables."""

    all_logits: bool
    float32: bool
    copied: bool
    tables: bool
    known: bool


@cache
def _families() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = read_json(Path(__file__).with_name("logits.json"))["families"]
    return found


def _rules(model: Model, release: Release) -> _Rules:
    found = _families().get(model.architecture)
    if found is None:
        return _Rules(False, False, False, False, known=False)
    last, upcast, tables = (found.get(key) for key in ("last_logits_since", "float32_before", "tables_before"))
    return _Rules(
        all_logits=last is None or not release.since(last),
        float32=upcast is not None and (not upcast or not release.since(upcast)),
        copied=release.since("4.45") and not release.since("4.47"),
        tables=tables is not None and not release.since(tables),
        known=True,
    )


def logit_bytes(model: Model, release: Release) -> int:
    """Bytes a prompt token and row of the vocabulary at the peak of the logits; 0 where only the last token has some.

    >>> from vlmmem import find_model
    >>> from vlmmem.engines.releases import find_release
    >>> model = find_model("qwen2-vl-7b")
    >>> [logit_bytes(model, find_release("transformers", RELEASES, asked)) for asked in ("4.38", "4.45", "4.46", "5.0")]
    [6, 8, 4, 0]
    """
    rules = _rules(model, release)
    if not rules.all_logits:
        return 0
    kept = 4 if rules.float32 else 2
    return max(2 + kept if rules.float32 else 2, 2 * kept if rules.copied else 0)


def reserve(model: Model, release: Release, settings: Settings) -> Reservation:
    """What `generate` takes of the fullest GPU at its peak.

    Args:
        model: what generates.
        release: the release of transformers.
        settings: `context` counts prompt and answer, `sequences` are those of the batch (1), `pp` the GPUs over which
            device_map deals the layers out. Options: prompt_tokens (the whole context), attention (sdpa,
            flash_attention_2 or eager), cache (dynamic or static), library (autoawq: its fused modules and cache).

    Raises:
        InputError: an option has no such value, or the GPUs cannot split the model.

    >>> from vlmmem import find_model
    >>> from vlmmem.engines.releases import find_release
    >>> found = reserve(
    ...     find_model("qwen2.5-32b"),
    ...     find_release("transformers", RELEASES, "4.46.0"),
    ...     Settings(30720 + 2048, options=(("prompt_tokens", 30720),)),
    ... )
    >>> round(dict(found.printed)["max_memory_allocated"] / 2**30, 2)  # published: 74.47
    74.47
    """
    return _Peak(model, release, settings).reservation()


class _Peak:
    """The terms of one generation, computed once."""

    def __init__(self, model: Model, release: Release, settings: Settings) -> None:
        self.model, self.release, self.settings = model, release, settings
        self.batch = settings.sequences or 1
        self.prompt = self._count("prompt_tokens", settings.context)
        if self.prompt > settings.context:
            raise InputError(
                f"prompt_tokens: {self.prompt} are more than the context of {settings.context}, which counts the answer"
            )
        self.attention = self._choice("attention", ("sdpa", "flash_attention_2", "eager"))
        default = "static" if model.architecture in _HYBRID and not release.since("4.56") else "dynamic"
        self.cache = self._choice("cache", ("dynamic", "static"), default)
        self.number = settings.weights
        asked = settings.kv_dtype
        self.kv: Format = asked if asked is not None else find_format("fp16" if self._kernel else model.dtype)
        self.rules = _rules(model, release)
        self.notes: list[str] = [release.note] if release.note else []

    @property
    def _kernel(self) -> str:
        return kernel(self.model, self.number)

    def _count(self, name: str, default: int) -> int:
        given = self.settings.option(name)
        if given is None:
            return default
        check_positive(name, given)
        assert isinstance(given, int)
        return given

    def _choice(self, name: str, known: tuple[str, ...], default: str | None = None) -> str:
        given = self.settings.option(name)
        if given is None:
            return known[0] if default is None else default
        if given not in known:
            raise InputError(f"{name}: {str(given)[:40]!r} was given; one of {', '.join(known)} is needed")
        return str(given)

    # the cache

    def kept(self, tokens: int, *, cut: bool = True) -> int:
        """Bytes of the cache of sequences of so many tokens, not `cut` as the pass leaves it that wrote them all."""
        images = self.settings.images or 0
        if self.cache == "static":
            return kv_cache_bytes(self.model, self.settings.context, self.batch, self.kv, images=images)
        if cut and self.release.since("4.56"):
            return kv_cache_bytes(self.model, tokens, self.batch, self.kv, images=images)
        sizes = cache_sizes(self.model, self.kv)
        return self.batch * (sum(size for _, size in sizes.growing) * tokens + sizes.fixed_bytes(images))

    # the passes

    def _moments(self) -> tuple[dict[str, int], bool]:
        """The prefill's moments over weights and cache, and whether their closed form was checked to the byte."""
        tokens = self.prompt
        try:
            moments = dict(self._seen or forward_moments(self.model, tokens, self.batch))
            exact = True
        except InputError:
            moments, exact = dict(likely_moments(self.model, tokens, self.batch)), False
        # Tokens beyond the windows, which those count, are the cache's here.
        sizes = cache_sizes(self.model).growing
        beyond = self.batch * sum(each * max(0, tokens - limit) for limit, each in sizes if limit is not None)
        moments = {name: size - beyond for name, size in moments.items()}
        number = tokens * self.batch
        row = _ACTIVATION * number * self.model.hidden_size
        if self._kernel == "awq" and number >= _AWQ_WRITES_OUT:
            # down: its input, the written-out matrix and the answer; up: the activated gate beside them
            wide = _ACTIVATION * number * mlp_width(self.model)
            standing = moments["mlp"] - max(3 * wide, wide + row)
            matrix = largest_linear(self.model)
            moments["mlp"] = max(moments["mlp"], standing + matrix + 2 * wide, standing + matrix + wide + row)
        if self.attention == "eager":
            scores = self.batch * tokens * tokens
            moments["attention"] += scores * (_EAGER_SCORE * self.model.heads + _MASK)
        each = logit_bytes(self.model, self.release)
        if each:
            # A model that sees keeps its embedded prompt beside the decoder's answer.
            rows = 1 if self.model.vision is None else 2
            moments["logits"] = rows * row + each * number * self.model.vocab_size
        return moments, exact

    def _decode(self) -> int:
        """Bytes of a last step over weights and cache; of what was not checked, a row of the vocabulary in float32."""
        if self.settings.context < 2 or self.cache == "static":
            return 0
        try:
            return decode_peak_bytes(self.model, self.settings.context, self.batch)
        except InputError:
            return 4 * self.batch * self.model.vocab_size

    @property
    def _sight(self) -> "ImageTokens | None":
        from vlmmem.footprint import image_of

        images, size = self.settings.images, self.settings.image_size
        return image_of(self.model, *size) if images and size is not None else None

    @property
    def _seen(self) -> dict[str, int] | None:
        """The moments of a prefill with its images, where such a pass was checked: that of v5.23."""
        from vlmmem.footprint import seen_moments

        if not self.release.since(_ENCODED_FIRST):
            return None
        return seen_moments(self.model, self.prompt, self.batch, self.settings.images or 0, self._sight)

    def _vision(self) -> tuple[int, int, int]:
        """Bytes of images beside the prefill's moments and in the last step, and of the peak of the tower's pass."""
        sight = self._sight
        if sight is None:
            return 0, 0, 0
        from vlmmem.memory.vision import encoder_cache_bytes, encoder_peak_bytes, pixel_bytes

        count = (self.settings.images or 0) * self.batch
        pixels = pixel_bytes(sight.pixel_values, count)
        try:
            peak = encoder_peak_bytes(self.model, count, crops=sight.crops, tokens=sight.tokens, grid=sight.grid)
        except InputError as error:
            self.notes.append(f"the vision tower's pass is not in it: {error}")
            peak = 0
        features = encoder_cache_bytes(self.model, count * sight.tokens)
        kept = features if self.release.since(_ENCODED_FIRST) else 0
        tower = self.model.vision
        if self._seen is None or tower is None:
            return pixels + features, pixels + kept, pixels + peak
        # The last state and the one that was projected, each with its class token.
        kept += 2 * _ACTIVATION * count * (tower.patches + 1) * tower.hidden_size
        return pixels, pixels + kept, pixels + peak

    # the answer

    def reservation(self) -> Reservation:
        model, release, settings = self.model, self.release, self.settings
        gpus = settings.pp
        weights, weights_told = self._weights()
        moments, exact = self._moments()
        pass_peak, moment = max((size, name) for name, size in moments.items())
        beside, stays, tower = self._vision()
        full = self.kept(settings.context)
        whole = self.kept(self.prompt, cut=False)
        row = _ACTIVATION * self.prompt * self.batch * model.hidden_size
        prefill = max(whole + pass_peak + beside, tower)
        # The first step replaces the prompt's storage layer by layer.
        before = whole if settings.context == self.prompt + 1 else 0
        last = max(full, before) + self._decode() + stays
        inside = max(prefill, last)
        workspace, workspace_told = self._workspace()
        held = weights + workspace
        head = self._loaded_head()
        peak = max(held + inside, weights + head)
        # On each further GPU a pass peaks again, without the embedded prompt, which stays on the first.
        again = max(0, max(size for name, size in moments.items() if name != "logits") - row) if gpus > 1 else 0
        together = peak + (gpus - 1) * (again + workspace)
        one = self._fullest(weights) if gpus * settings.tp > 1 else weights
        cached = full if gpus * settings.tp == 1 else -(-full // (gpus * settings.tp))
        activations = peak - held - full
        tag = _TAGS[release.version]
        code = f"{_CODE}{tag}"
        if self._choice("library", ("transformers", "autoawq")) == "autoawq":
            return self._fused(weights, weights_told)
        what = "prefill" if prefill >= last else "last step"
        if head > inside:
            what = "loading, where the tied output head stands beside the embedding"
        told = f"peak in the {what}"
        if what == "prefill":
            told += f" of {self.batch} x {self.prompt:,} tokens, at its {moment}"
            beyond = whole - self.kept(self.prompt)
            if beyond:
                told += f", {beyond:,} B of tokens beyond the windows among it"
        if not exact:
            told += "; Llama's closed form with this model's tensors"
        context = runtime_allowance().context_bytes
        terms = (
            Term("weights", one, weights_told, "derived", ALLOCATOR_SOURCE),
            Term("kv_cache", cached, self._cache_told(), "derived", f"{code}/src/transformers/cache_utils.py"),
            Term("activations", max(0, activations), told, "derived" if exact else "assumed", code),
            Term("runtime:workspaces", workspace, workspace_told, "derived", CUBLAS_SOURCE),
            Term(
                "runtime:context",
                context,
                f"{context:,} B of CUDA context, which max_memory_allocated does not count",
                "assumed",
                runtime_allowance().sources[0].address,
            ),
        )
        if not self.rules.known:
            self.notes.append(
                f"{model.architecture} is not a class of transformers {tag}: the last token's logits alone are priced"
            )
        if self.attention == "flash_attention_2" and exact:
            self.notes.append("FlashAttention 2 is priced as sdpa: neither writes its scores down")
        self.notes.append("no command line: transformers is a library, model.generate(...) is its call")
        return Reservation(
            "transformers",
            release.version,
            terms,
            printed=(("max_memory_allocated", together), ("prefill", held + prefill), ("last_step", held + last)),
            settings=(
                ("sequences", self.batch),
                ("prompt_tokens", self.prompt),
                ("attention", self.attention),
                ("cache", self.cache),
                ("logits", "last token" if not self.rules.all_logits else "every token"),
            ),
            notes=tuple(self.notes),
        )

    def _fused(self, weights: int, weights_told: str) -> Reservation:
        """The same with AutoAWQ's own attention and cache."""
        if self.settings.pp * self.settings.tp > 1:
            raise InputError("library: AutoAWQ's fused modules are priced on one GPU")
        found = fused(self.model, self.number, self.settings, self.prompt)
        workspace = cublas_workspace_bytes(None)  # the narrow one: its benchmark ran on an RTX 4090
        peak = weights + max(found.cache + found.prefill + workspace, found.loading)
        source = "https://github.com/casper-hansen/AutoAWQ/tree/v0.1.6/awq/modules/fused"
        told = f"peak of the prompt's pass, at its {found.moment}, or of loading"
        return Reservation(
            "transformers",
            self.release.version,
            (
                Term("weights", weights, weights_told, "derived", ALLOCATOR_SOURCE),
                Term("kv_cache", found.cache, "keys, values and rotations of the answer's tokens", "derived", source),
                Term("activations", peak - weights - found.cache - workspace, told, "derived", source),
                Term("runtime:workspaces", workspace, f"{workspace:,} B of cuBLAS", "derived", CUBLAS_SOURCE),
            ),
            printed=(("max_memory_allocated", peak),),
            settings=(("library", "autoawq"), ("sequences", self.batch), ("prompt_tokens", self.prompt)),
            notes=("AutoAWQ v0.1.6 with fused layers; its cache has room for the answer alone",),
        )

    def _weights(self) -> tuple[int, str]:
        model = self.model
        size = loaded_bytes(model, self.number, fused=self.release.since("5.0"))
        told = f"{model.parameters:,} parameters"
        told += f" in {self.number.name}" if self.number is not None else f" in {self._kernel or model.dtype}"
        told += ", tensor by tensor in PyTorch's blocks"
        if self.rules.tables:
            tables = rotary_tables(model)
            told += f", with {tables:,} B of rotary tables in its {model.layers} layers"
            size += tables
        return size, told

    def _workspace(self) -> tuple[int, str]:
        size = cublas_workspace_bytes(self.settings.gpu, HOPPER)
        told = f"{size:,} B of cuBLAS"
        if self._kernel == "gptq":
            buffer = allocated_bytes([largest_linear(self.model)])
            told += f" + {buffer:,} B in which GPTQ's kernel writes out the largest matrix ({_GPTQ})"
            size += buffer
        elif self._kernel == "awq":
            told += f"; AWQ's kernel writes its matrix out from {_AWQ_WRITES_OUT:,} tokens on ({_AWQ})"
        return size, told

    def _loaded_head(self) -> int:
        """Bytes of the output head that AutoAWQ's checkpoint of a tied model holds beside the embedding."""
        if self._kernel != "awq" or not self.model.tied_embeddings:
            return 0
        return _ACTIVATION * self.model.vocab_size * self.model.hidden_size

    def _fullest(self, weights: int) -> int:
        """Weights of the GPU that holds most, when device_map deals out the layers or ranks split them."""
        settings = self.settings
        workload = Workload(settings.context, self.batch)
        split = Parallelism(settings.tp, settings.pp)
        shares = gpu_shares(self.model, workload, split, weights=self.number, kv_dtype=self.kv)
        return min(weights, max(share.weights for share in shares))

    def _cache_told(self) -> str:
        how = "static, of the whole context" if self.cache == "static" else "grown to the whole context"
        return f"{self.batch} x {self.settings.context:,} tokens in {self.kv.name}, {how}"
