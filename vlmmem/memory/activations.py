"""Memory of the activations: what a forward pass holds beside the weights and the KV cache.

Two kinds of answer. The documents' rules of thumb (`overhead_rule_bytes`, `per_layer_rule_bytes`) compute
what they say. The closed forms (`forward_peak_bytes`, `decode_peak_bytes`) give the peak of a real forward
pass of transformers 5.23.0 on PyTorch 2.13.0, to the byte on every case of tests/oracle/forward.json, and
raise an error outside the domain in which they were checked. Allocator fragmentation, workspaces and the
CUDA context are not in them.

Symbols: B sequences, T tokens of each in the pass, N = B T; H hidden_size, I intermediate_size, d head_dim,
q = heads d, k = kv_heads d, V vocab_size, r rotary dimensions; row(x) = 2 N x bytes, one 16-bit activation
x wide. The layers differ only in the KV cache that they leave behind, so the peak falls into the last layer,
where the cache is complete, or into the output head. It is the largest of four moments, each counted over
the weights and the complete KV cache. Three of them stand on what the whole pass keeps:

- llama, mistral, mistral3, qwen2, qwen2_vl, qwen2_5_vl, qwen3, qwen3_vl, seed_oss, smollm3, granite, idefics3, llava,
  llava_next (MLP with a gate): standing row(H) + T (4 d + 8), in Qwen's VL models T (4 d B + 8);
  attention 2 row(H) + 2 row(q) + max(2 row(q), 3 row(k), row(H)); normalisation 6 row(H) + 8 N;
  mlp 3 row(H) + max(3 row(I), row(I) + row(H)). Where heads are normalised (qwen3, qwen3_moe, qwen3_vl), attention is
  no less than 2 row(H) - 2 row(k) + max(5 row(q) + 8 N heads, row(q) + 5 row(k) + 8 N kv_heads).
- phi3 (fused matrices; heads that turn whole, contexts shorter than a sliding window): attention 2 row(H) + 3 row(q)
  + 2 row(k) + max(row(q) - 2 row(k), row(k) - row(q), row(H)); mlp 3 row(H) + max(4 row(I), 3 row(I) + row(H)).
- mixtral, qwen3_moe (E experts, of which a token meets t; w bytes of a route's weight, 4 and 2; S = N t): mlp 3 row(H)
  + 2 N E + S (2 w + 28) + 8 E + 2 S H + max(8 S I, 2 S (I + H), 2 S H + 2 w S H + 8 S), as transformers' grouped_mm,
  its own choice, sorts the tokens by expert.
- opt: standing 2 row(H) + 12 N; attention 5 row(H); normalisation 3 row(H) + 4 N;
  mlp 2 row(H) + row(I) + max(row(I), row(H)).
- gpt2: standing row(H) + T (2 H + 8); attention 7 row(H); normalisation 4 row(H) + 4 N;
  mlp 4 row(H) + max(4 row(I), row(I) + row(H)).
- phi: standing row(H) + T (4 r + 8); attention 7 row(H) + 2 row(heads r); normalisation 4 N;
  mlp 3 row(H) + max(4 row(I), row(I) + row(H)).

The fourth, the logits, stands alone: row(H) + 2 V B for the last token of each sequence, row(H) + 2 V N for
all (phi's head takes 2 V B more where a pass of several sequences keeps the last of several tokens; granite scales its
logits and holds them twice). A layer
whose sliding window is no longer than T adds a mask of T^2 bytes and may peak in its attention kernel. A
decode step may peak where the cache grows: one layer's values then lie in memory twice.

Each image in a pass of LLaVA-1.5 adds 4 P H + 4 (P + 1) Hv bytes to what stands (P patches, Hv hidden_size of
the tower) and 2 P H to the logits; any image adds a mask of N bytes to what stands.

Every other moment is smaller: what comes before the last layer misses that layer's KV cache.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from vlmmem.catalog import find_model
from vlmmem.errors import InputError
from vlmmem.memory.kv_cache import cache_sizes
from vlmmem.model import Model
from vlmmem.record import record

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "decode_moments",
    "decode_peak_bytes",
    "forward_moments",
    "forward_peak_bytes",
    "likely_peak_bytes",
    "likely_peak_error",
    "mlp_width",
    "overhead_rule_bytes",
    "per_layer_rule_bytes",
    "prefill_peaks",
]

# Bytes of an element: activations, normalisation in full precision, positions, masks.
_ACTIVATION, _FLOAT32, _INT64, _BOOL = 2, 4, 8, 1

_DTYPES = ("bf16", "fp16")
# What the names of an MLP's matrices hold, by family.
_MLP_MARKS = ("mlp", "feed_forward", "fc1", "fc2", "expert", "ffn", "block_sparse_moe")
_ATTENTIONS = ("sdpa",)
_LOGITS = ("last", "all")

# phi-1, phi-1.5 and phi-2 turn 32 of a head's dimensions, whatever its size (partial_rotary_factor x head_dim
# in their configs); the other families turn them all.
_PHI_ROTARY_DIMENSIONS = 32

# Above it the kernel gets repeated KV heads (transformers, integrations/sdpa_attention.py, use_gqa_in_sdpa).
_GROUPED_HEAD_DIM_LIMIT = 256


def overhead_rule_bytes(weights: int, kv_cache: int, fraction: float | Fraction | str) -> int:
    """Bytes of activations by the rule of thumb: a fraction of weights and KV cache, to the nearest byte.

    The rule knows neither the step's tokens nor the MLP's width, which decide what a pass really holds:
    `forward_peak_bytes` does.

    Args:
        weights: bytes of the weights.
        kv_cache: bytes of the KV cache.
        fraction: the rule's share, between 0 and 1; a float means the decimal number that it prints.

    Raises:
        InputError: a size is not an integer of 0 or more, or the fraction is not between 0 and 1.

    Source: document footprint, "Activations and Temporary Buffers" (5 to 10 %).

    >>> overhead_rule_bytes(26_000_000_000, 66_000_000_000, 0.1)
    9200000000
    """
    for name, value in (("weights", weights), ("kv_cache", kv_cache)):
        if type(value) is not int or value < 0:
            raise InputError(f"{name}: {value!r} was given; an integer of 0 or more bytes is needed")
    try:
        share = Fraction(str(fraction))
    except (ValueError, ZeroDivisionError):
        share = None
    if share is None or not 0 <= share <= 1:
        raise InputError(f"fraction: {fraction!r} was given; a number between 0 and 1 is needed, 0.1 for 10 %")
    return round(share * (weights + kv_cache))


def per_layer_rule_bytes(hidden_size: int, context: int, batch: int, layers: int, bytes_per_element: int = 2) -> int:
    """Bytes of activations by the per-layer rule: 2 x hidden_size x context x batch x bytes x layers.

    The rule counts two activations for every layer at once. Inference keeps none of an earlier layer: see
    `forward_peak_bytes`.

    Args:
        hidden_size: width of the residual stream.
        context: tokens of each sequence.
        batch: sequences.
        layers: decoder layers.
        bytes_per_element: bytes of an activation.

    Raises:
        InputError: an argument is not a positive integer.

    Source: document inference, `calc_activation_memory_gb`.

    >>> per_layer_rule_bytes(hidden_size=8192, context=8192, batch=1, layers=80)
    21474836480
    """
    _positive("hidden_size", hidden_size)
    _positive("context", context)
    _positive("batch", batch)
    _positive("layers", layers)
    _positive("bytes_per_element", bytes_per_element)
    return 2 * hidden_size * context * batch * layers * bytes_per_element


def forward_peak_bytes(
    model: str | Model,
    context: int,
    batch: int = 1,
    *,
    dtype: str = "bf16",
    attention: str = "sdpa",
    logits: str = "last",
    images: int = 0,
) -> int:
    """Bytes at the peak of a prefill, over the weights and over `kv_cache_bytes(model, context, batch)`.

    One pass of all tokens through transformers, cache empty, sequences of equal length without padding.

    Args:
        model: a model or its name.
        context: tokens of each sequence, those of images among them.
        batch: sequences in the pass.
        dtype: format of weights, activations and cache: "bf16" or "fp16".
        attention: the attention kernel: "sdpa" (PyTorch's scaled_dot_product_attention).
        logits: whose logits are computed: "last" (of each sequence's last token, as `generate` does), "all".
        images: images in the pass, over all sequences; covered for LLaVA-1.5. Their pixels are not counted,
            like the token ids: they are there before the pass.

    Raises:
        InputError: outside the domain that was checked; the line says what is covered.

    Source: transformers 5.23.0 run without weights (tools/oracle_forward.py).

    >>> forward_peak_bytes("llama-2-13b", context=8192, batch=10)
    10154475520
    >>> tokens, hidden, intermediate, head_dim = 10 * 8192, 5_120, 13_824, 128
    >>> 2 * tokens * (3 * intermediate + 4 * hidden) + 8192 * (4 * head_dim + 8)
    10154475520
    """
    moments = forward_moments(model, context, batch, dtype=dtype, attention=attention, logits=logits, images=images)
    return max(moments.values())


def forward_moments(
    model: str | Model,
    context: int,
    batch: int = 1,
    *,
    dtype: str = "bf16",
    attention: str = "sdpa",
    logits: str = "last",
    images: int = 0,
) -> dict[str, int]:
    """Bytes of each moment of a prefill, by name; the largest is `forward_peak_bytes` (arguments there).

    Returns:
        "attention", "normalisation", "mlp" (each at its own peak, in the last layer) and "logits", every one
        over the weights and over `kv_cache_bytes(model, context, batch)`.

    >>> moments = forward_moments("llama-3.1-8b", context=16, batch=1)
    >>> max(moments, key=moments.get), moments["mlp"], moments["logits"]
    ('mlp', 1908864, 387584)
    """
    model = find_model(model) if isinstance(model, str) else model
    _check(model, context, batch, dtype, attention)
    if logits not in _LOGITS:
        raise InputError(f"logits: {logits!r} was given; {' and '.join(_LOGITS)} are covered")
    _check_images(model, images, batch * context)
    return _moments(_Pass(model, batch, context, cached=0, all_logits=logits == "all", images=images))


def mlp_width(model: str | Model) -> int:
    """Elements that a token has in the widest MLP: its intermediate size, or those of all experts that it meets.

    Read from the tensors: matrices of hidden x width, three of them where a gate multiplies, else two.

    >>> mlp_width("llama-2-13b")
    13824
    """
    model = find_model(model) if isinstance(model, str) else model
    widest = 0
    for layer, _ in model.decoder.alike():
        elements = 0
        gated = False
        for tensor in layer.tensors:
            if tensor.kind == "expert":
                elements += tensor.parameters * model.active_experts // model.experts
            elif tensor.kind != "linear" or not any(mark in tensor.name for mark in _MLP_MARKS):
                continue
            else:
                elements += tensor.parameters
            gated = gated or "gate" in tensor.name
        widest = max(widest, elements // ((3 if gated else 2) * model.hidden_size))
    return widest or model.intermediate_size


def likely_peak_bytes(model: str | Model, context: int, batch: int = 1) -> int:
    """Bytes at the peak of a prefill of a family whose pass was not checked to the byte.

    The largest of the moments that `forward_peak_bytes` states for gated MLPs, in 16 bits, with what this model's
    tensors and caches tell: `mlp_width`, gates, fused matrices, norms of heads, routed experts, windows and masks.
    Classes that refuse sdpa (gemma2, gpt_oss) write their scores down. What recurrent scans hold is not in it;
    `likely_peak_error` says how far off it was.

    Args:
        model: a model or its name.
        context: tokens of each sequence in the pass.
        batch: sequences in the pass.

    Raises:
        InputError: `context` or `batch` is not a positive integer.

    Source: transformers 5.23.0, modeling_llama.py, by analogy; tools/oracle_forward_families.py.

    >>> likely_peak_bytes("llama-3.1-8b", 4096) == forward_peak_bytes("llama-3.1-8b", 4096)
    True
    """
    model = find_model(model) if isinstance(model, str) else model
    _positive("context", context)
    _positive("batch", batch)
    return max(likely_moments(model, context, batch).values())


def likely_peak_error(model: str | Model | None = None) -> dict[str, Any]:
    """How far `likely_peak_bytes` was off in the families that were measured, as shares of the peak that it estimates.

    Args:
        model: a model or its name; None for all families.

    Returns:
        `families` and `passes` counted, `mean` (of the sizes of the errors), `least` and `most`. Of a model these are
        its family's where that was measured, else those of all families with recurrent states, or of all without.

    Source: tests/oracle/forward_families.json (transformers 5.23.0 run without weights), by tools/likely_peaks.py.

    >>> likely_peak_error("gemma-7b")
    {'families': ['gemma'], 'passes': 4, 'mean': 0.0, 'least': 0.0, 'most': 0.0}
    """
    from vlmmem.catalog import likely_peaks

    known = likely_peaks()
    if model is not None:
        model = find_model(model) if isinstance(model, str) else model
        layers = model.decoder.layers
        # a convolution of a few tokens (LFM2) is a state without a scan
        scans = any(getattr(cache, "what", "") == "recurrent" for layer in layers for cache in layer.caches)
        own = {name: found for name, found in known.items() if name == model.architecture}
        known = own or {name: found for name, found in known.items() if (found["kind"] == "states") == scans}
    passes = sum(found["passes"] for found in known.values())
    return {
        "families": list(known),
        "passes": passes,
        "mean": sum(found["mean"] * found["passes"] for found in known.values()) / passes / 10_000,
        "least": min(found["least"] for found in known.values()) / 10_000,
        "most": max(found["most"] for found in known.values()) / 10_000,
    }


def likely_moments(model: Model, context: int, batch: int) -> dict[str, int]:
    """The moments of `likely_peak_bytes`, by name."""
    step = _Pass(model, batch, context, cached=0, all_logits=False, images=0, width=mlp_width(model))
    standing, attention, normalisation, mlp = _gated(step)
    score = _SCORES.get(model.architecture, 0)
    if score:
        # For each sequence a mask of 16 bits, full and sliding; repeated keys and values and scores of all heads, which
        # the layer keeps, in 16 bits, until it ends.
        square = batch * context * context
        standing = standing + 2 * _ACTIVATION * square
        attention = 2 * step.hidden + 4 * step.queries + score * model.heads * square
        mlp = mlp + _ACTIVATION * model.heads * square
    moments = {
        "attention": standing + attention,
        "normalisation": standing + normalisation,
        "mlp": standing + mlp,
        "logits": step.hidden + _ACTIVATION * batch * model.vocab_size,
    }
    return {name: value + _uncut(step) for name, value in moments.items()}


def prefill_peaks(model: Model, contexts: Sequence[int], batches: Sequence[int]) -> "np.ndarray[Any, Any]":
    """`forward_peak_bytes` of every context (rows) and batch (columns), and `likely_peak_bytes` outside its domain.

    Args:
        model: a model.
        contexts: tokens of each sequence in the pass.
        batches: sequences in the pass.

    Returns:
        64-bit integers; the caller sees to it that they suffice.

    >>> from vlmmem import find_model
    >>> prefill_peaks(find_model("llama-2-13b"), [4096, 8192], [1, 10]).tolist()
    [[509640704, 5077237760], [1019281408, 10154475520]]
    """
    import numpy as np

    lengths = np.array(contexts, dtype="int64")
    # the closed forms take integers, or arrays of them
    rows: Any = np.array(batches, dtype="int64")
    peaks = np.empty((len(contexts), len(batches)), dtype="int64")
    masked = np.full(len(lengths), False) if model.sliding_window is None else lengths >= model.sliding_window
    try:
        _check(model, 1, 1, _DTYPES[0], _ATTENTIONS[0])
        covered = lengths <= model.max_positions if model.architecture in _LEARNED_POSITIONS else lengths > 0
        if model.architecture in _UNMASKED:
            covered = covered & ~masked
    except InputError:
        covered = lengths < 0
    # Whether there is a mask is a question to all lengths of a piece at once.
    for piece in (covered & masked, covered & ~masked):
        if piece.any():
            tokens: Any = lengths[piece][:, None]
            step = _Pass(model, rows, tokens, cached=0, all_logits=False, images=0)
            peaks[piece] = _largest(*_moments(step).values())
    if not covered.all():
        tokens = lengths[~covered][:, None]
        peaks[~covered] = _largest(*likely_moments(model, tokens, rows).values())
    return peaks


def decode_peak_bytes(
    model: str | Model, context: int, batch: int = 1, *, dtype: str = "bf16", attention: str = "sdpa"
) -> int:
    """Bytes at the peak of a decode step, over the weights and over `kv_cache_bytes(model, context, batch)`.

    One pass of one token a sequence through transformers, which makes the cache `context` tokens long. The
    DynamicCache grows by copying, so that one layer's values lie in memory twice for a moment, and in a layer
    with a sliding window its keys too.

    Args:
        model: a model or its name.
        context: tokens of each sequence in the cache after the step, 2 or more.
        batch: sequences in the pass.
        dtype: format of weights, activations and cache: "bf16" or "fp16".
        attention: the attention kernel: "sdpa".

    Raises:
        InputError: outside the domain that was checked; the line says what is covered.

    Source: transformers 5.23.0 run without weights (tools/oracle_forward.py).

    >>> decode_peak_bytes("llama-2-13b", context=8192, batch=10)
    839373320
    """
    return max(decode_moments(model, context, batch, dtype=dtype, attention=attention).values())


def decode_moments(
    model: str | Model, context: int, batch: int = 1, *, dtype: str = "bf16", attention: str = "sdpa"
) -> dict[str, int]:
    """Bytes of each moment of a decode step, by name; the largest is `decode_peak_bytes` (arguments there).

    >>> moments = decode_moments("llama-2-13b", context=2, batch=1)
    >>> max(moments, key=moments.get)
    'mlp'
    """
    model = find_model(model) if isinstance(model, str) else model
    _check(model, context, batch, dtype, attention)
    if context < 2:
        raise InputError(f"context: {context} was given; a decode step needs 2 tokens or more, one of them its own")
    if _has_mask(model, context):
        raise InputError(
            f"context: a decode step of {model.id} was checked for contexts shorter than its sliding window "
            f"of {model.sliding_window} tokens; {context} was given"
        )
    return _moments(_Pass(model, batch, tokens=1, cached=context - 1, all_logits=False, images=0))


@record(frozen=True, slots=True)
class _Pass:
    """One forward pass: `tokens` new tokens of each sequence, after `cached` earlier ones."""

    model: Model
    batch: int
    tokens: int
    cached: int
    all_logits: bool
    images: int
    width: int = 0

    @property
    def n(self) -> int:
        """Tokens of all sequences in the pass."""
        return self.batch * self.tokens

    def row(self, width: int) -> int:
        """Bytes of one 16-bit activation, `width` elements a token."""
        return _ACTIVATION * self.n * width

    @property
    def hidden(self) -> int:
        return self.row(self.model.hidden_size)

    @property
    def wide(self) -> int:
        return self.row(self.width or self.model.intermediate_size)

    @property
    def queries(self) -> int:
        return self.row(self.model.heads * self.model.head_dim)

    @property
    def keys(self) -> int:
        return self.row(self.model.kv_heads * self.model.head_dim)

    def growing(self, beside: int) -> int:
        """Bytes when a layer's cache grows with `beside` live; a first pass has nothing to grow.

        A full layer has replaced its old keys before it copies its values, a sliding layer has not.
        """
        old = self.batch * self.cached * self.model.kv_heads * self.model.head_dim * _ACTIVATION
        copies = 1 if self.model.sliding_window is None else 2
        return beside + copies * old if self.cached else 0

    @property
    def image_features(self) -> int:
        """Bytes of the images as the decoder takes them, one vector a patch."""
        tower = self.model.vision
        return 0 if tower is None else _ACTIVATION * self.images * tower.patches * self.model.hidden_size

    @property
    def image_standing(self) -> int:
        """Bytes that the images leave standing through every layer.

        Their features twice (as projected, and joined), two hidden states of the tower with its class token
        (the last and the one that is projected), and a mask of the tokens that they replace.
        """
        tower = self.model.vision
        if tower is None or not self.images:
            return 0
        states = 2 * _ACTIVATION * self.images * (tower.patches + 1) * tower.hidden_size
        return 2 * self.image_features + states + _BOOL * self.n

    def rotary(self, dimensions: int) -> int:
        """Bytes of the 16-bit cosines and sines and of the positions, shared by the sequences."""
        tables = self.batch if self.model.architecture in _OWN_TABLES else 1
        return self.tokens * (2 * _ACTIVATION * dimensions * tables + _INT64)


def _largest(first: int, *others: int) -> int:
    """The largest of sizes; element by element where they are arrays, as vlmmem/grid.py has them."""
    for other in others:
        first = first + (other - first) * (other > first)
    return first


def _moments(step: _Pass) -> dict[str, int]:
    count, _ = _FAMILIES[step.model.architecture]
    standing, attention, normalisation, mlp = count(step)
    standing += step.image_standing
    moments = {
        "attention": standing + attention,
        "normalisation": standing + normalisation,
        "mlp": standing + mlp,
    }
    # The output head has the whole pass's hidden states; the last tokens are a view into them. Where it has
    # gaps and the head a bias, PyTorch multiplies first and adds the bias into a second tensor.
    kept = step.tokens if step.all_logits else 1
    has_gaps = (kept < step.tokens) & (step.batch > 1)
    copies = 1 + (step.model.architecture in _HEAD_BIAS) * has_gaps + (step.model.architecture in _SCALED_LOGITS)
    logits = copies * _ACTIVATION * step.batch * kept * step.model.vocab_size
    # The image features are part of the pass's answer.
    moments["logits"] = step.hidden + step.image_features + logits
    return {name: value + _uncut(step) for name, value in moments.items()}


def _uncut(step: _Pass) -> int:
    """Bytes of the tokens beyond the windows: a sliding layer is cut after the pass and holds all tokens until then."""
    beyond = 0
    for limit, size in cache_sizes(step.model).growing:
        if limit is not None:
            beyond = beyond + size * step.batch * _largest(0, step.tokens - limit)
    return beyond


def _gated(step: _Pass) -> tuple[int, int, int, int]:
    model, hidden, queries, keys = step.model, step.hidden, step.queries, step.keys
    # Embeddings (their caller keeps them), rotary tables, positions.
    standing = hidden + step.rotary(model.head_dim)
    # The layer's input and its normalised copy; queries before and after rotation.
    into_kernel = 2 * hidden + 2 * queries
    if _has(model, "qkv_proj"):
        # Queries, keys and values in one tensor live as long as their last part.
        into_kernel = into_kernel + queries + 2 * keys
        attention = into_kernel + _largest(
            queries - 2 * keys,  # rotating the queries; keys and values are not yet in the cache
            keys - queries,  # rotating the keys, beside the rotated queries
            hidden,  # the output projection, beside the kernel's input and output
            step.growing(keys - queries),  # rotated queries and keys, old values
        )
    else:
        attention = into_kernel + _largest(
            2 * queries,  # rotating the queries; keys and values are there but not yet in the cache
            3 * keys,  # rotating the keys
            hidden,
            step.growing(2 * keys - queries),  # rotated queries and keys, values, old values
        )
    if _has(model, "q_norm"):
        # Queries, or keys beside the normalised queries, as projected; in float32 as they are and scaled, mean square
        # and its root of every head. Neither keys nor values are in the cache.
        normed = _largest(
            5 * queries + 2 * _FLOAT32 * step.n * model.heads,
            queries + 5 * keys + 2 * _FLOAT32 * step.n * model.kv_heads,
        )
        attention = _largest(attention, 2 * hidden + normed - 2 * keys)
    window = _window(model)
    if window is not None:
        masked = step.tokens >= window
        mask = step.tokens * step.tokens
        standing = standing + _BOOL * mask * masked
        # With a mask the kernel gets repeated KV heads (a single one repeats as a view) and a mask of 16 bits
        # for every sequence; it returns a float32 sum a head and token.
        repeated = 2 * queries if 1 < model.kv_heads < model.heads else 0
        kernel = into_kernel + repeated + _ACTIVATION * step.batch * mask + _FLOAT32 * step.n * model.heads
        attention = _largest(attention, kernel * masked)
    # Layer input, sum after attention; in float32 the sum and its scaled copy, mean square and its root.
    normalisation = 2 * hidden + 2 * _FLOAT32 * step.n * (model.hidden_size + 1)
    if _expert_width(model):
        return standing, attention, normalisation, 3 * hidden + _experts(step)
    if _has(model, "gate_up_proj"):
        # Gate and up in one; the activated gate and its product with up, or the product and the MLP's output.
        return standing, attention, normalisation, 3 * hidden + _largest(4 * step.wide, 3 * step.wide + hidden)
    # Layer input, sum after attention, normalised copy; activated gate, up and their product, or the product
    # and the MLP's output. Without a gate the activation function's input and output.
    inside = 3 if model.architecture in _FAMILIES or _has_gate(model) else 2
    return standing, attention, normalisation, 3 * hidden + _largest(inside * step.wide, step.wide + hidden)


def _experts(step: _Pass) -> int:
    """Bytes that the routed experts hold beside their input, each token copied for every expert that it meets.

    Source: transformers 5.23.0, integrations/moe.py, grouped_mm_experts_forward: its choice where nothing is asked for.
    """
    model = step.model
    met = step.n * (model.experts if model.architecture in _ALL_EXPERTS else model.active_experts)
    weight = _FLOAT32 if model.architecture in _FLOAT32_ROUTES else _ACTIVATION
    hidden, wide = _ACTIVATION * met * model.hidden_size, _ACTIVATION * met * _expert_width(model)
    # The router's logits, weights and indices; the experts' order: sorted ids and places, weights, ids as numbers to
    # count, the counts and where each expert's tokens end.
    router = _ACTIVATION * step.n * model.experts + met * (weight + _INT64)
    order = met * (2 * _INT64 + weight + _FLOAT32) + 2 * _FLOAT32 * model.experts
    # The copied tokens; gate and up in one, the activated gate and the product; or, three times as wide as the model,
    # the experts' answers as they are, weighted, and back in order (with the places to put them back).
    back = hidden + 2 * weight * met * model.hidden_size + _INT64 * met
    inside = 9 if model.architecture in _BIASED_EXPERTS else 4
    return router + order + hidden + _largest(inside * wide, wide + hidden, back)


def _expert_width(model: Model) -> int:
    """Elements of a token in one routed expert, from the shape of its last matrix; 0 where no expert is routed to."""
    for tensor in model.decoder.layers[-1].tensors:
        if tensor.kind == "expert" and "down" in tensor.name:
            return tensor.parameters // (model.experts * model.hidden_size)
    return 0


def _has(model: Model, name: str) -> bool:
    """Whether a module of the last layer has that name, biases and experts aside."""
    return any(
        tensor.name.removesuffix(".weight").endswith("." + name) and tensor.kind in ("linear", "norm")
        for tensor in model.decoder.layers[-1].tensors
    )


def _has_gate(model: Model) -> bool:
    """Whether a matrix of the last layer's MLP is called a gate; `mlp_width` counts two matrices where none is."""
    return any("gate" in tensor.name for tensor in model.decoder.layers[-1].tensors if tensor.kind == "linear")


def _window(model: Model) -> int | None:
    """The fewest tokens to which a layer's attention is limited; None where every layer sees all."""
    limits = [limit for limit, _ in cache_sizes(model).growing if limit is not None]
    return min(limits) if limits else None


def _opt(step: _Pass) -> tuple[int, int, int, int]:
    hidden, wide = step.hidden, step.wide
    # Token and position embeddings; the float32 mask that positions are counted from, and the positions, of
    # all tokens so far.
    standing = 2 * hidden + (_FLOAT32 + _INT64) * step.batch * (step.cached + step.tokens)
    # Layer input, normalised copy; queries, keys and values when the cache is written, or the kernel's input
    # and output and the projection.
    attention = 5 * hidden + step.growing(0)
    # Layer input, sum after attention, normalised copy; mean and root.
    normalisation = 3 * hidden + 2 * _ACTIVATION * step.n
    # Layer input, sum after attention; the activation function's input and output, or its output and the
    # MLP's.
    return standing, attention, normalisation, 2 * hidden + wide + _largest(wide, hidden)


def _gpt2(step: _Pass) -> tuple[int, int, int, int]:
    hidden = step.hidden
    # Token embeddings; position embeddings and positions, shared by the sequences.
    standing = hidden + step.tokens * (_ACTIVATION * step.model.hidden_size + _INT64)
    # Layer input, normalised copy, queries, keys and values in one; the kernel's output and the projection.
    attention = _largest(7 * hidden, step.growing(5 * hidden))
    # Layer input, attention's output, their sum, its normalised copy; mean and root.
    normalisation = 4 * hidden + 2 * _ACTIVATION * step.n
    # The same four; four wide tensors of GELU's formula, operation by operation, or its result and the MLP's.
    return standing, attention, normalisation, 4 * hidden + _largest(4 * step.wide, step.wide + hidden)


def _phi(step: _Pass) -> tuple[int, int, int, int]:
    hidden = step.hidden
    standing = hidden + step.rotary(_PHI_ROTARY_DIMENSIONS)
    # Layer input, normalised copy; queries, keys and values; the rotated parts of queries and keys, and both
    # joined again.
    rotated = 2 * step.row(_PHI_ROTARY_DIMENSIONS * step.model.heads)
    attention = 7 * hidden + rotated + step.growing(0)
    # Mean and root. The one norm stands before attention: its input and output weigh what the keys and values
    # of this layer, not written yet, will.
    normalisation = 2 * _ACTIVATION * step.n
    # Layer input, normalised copy, attention's output; as in gpt2.
    return standing, attention, normalisation, 3 * hidden + _largest(4 * step.wide, step.wide + hidden)


_FAMILIES: dict[str, tuple[Callable[[_Pass], tuple[int, int, int, int]], str]] = {
    "llama": (_gated, "silu"),
    "mistral": (_gated, "silu"),
    "qwen2": (_gated, "silu"),
    "llava": (_gated, "silu"),
    "llava_next": (_gated, "silu"),
    "qwen2_vl": (_gated, "silu"),
    "qwen2_5_vl": (_gated, "silu"),
    "qwen3": (_gated, "silu"),
    "qwen3_vl": (_gated, "silu"),
    "granite": (_gated, "silu"),
    "phi3": (_gated, "silu"),
    "mixtral": (_gated, "silu"),
    "qwen3_moe": (_gated, "silu"),
    "seed_oss": (_gated, "silu"),
    "smollm3": (_gated, "silu"),
    "mistral3": (_gated, "silu"),
    "idefics3": (_gated, "silu"),
    "opt": (_opt, "relu"),
    "gpt2": (_gpt2, "gelu_new"),
    "phi": (_phi, "gelu_new"),
}
_HEAD_BIAS = ("phi",)
# Families that scale their logits, and hold both for a moment.
_SCALED_LOGITS = ("granite",)
# Families that compute rotary tables for each sequence, not for all.
_OWN_TABLES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
# Families whose routers leave their weights in float32; the others round them to 16 bits.
_FLOAT32_ROUTES = ("mixtral", "deepseek_v3", "glm4_moe", "minimax_m2")
# Families that send each token through every expert.
_ALL_EXPERTS = ("llama4",)
# Families whose experts add a bias a token and cap both halves before they multiply.
_BIASED_EXPERTS = ("gpt_oss",)
# Families whose attention writes its scores down (their classes refuse sdpa), and the bytes of one while they do.
_SCORES = {"gemma2": 10, "gpt_oss": 6}
_LEARNED_POSITIONS = ("opt", "gpt2")
# Families checked without a mask.
_UNMASKED = ("phi3",)
# Families whose config names head_dim; in the others the heads make up the hidden size.
_OWN_HEAD_WIDTH = (
    "llama",
    "mistral",
    "llava",
    "llava_next",
    "qwen3",
    "qwen3_moe",
    "qwen3_vl",
    "mixtral",
    "seed_oss",
    "mistral3",
)


def _has_mask(model: Model, tokens: Any) -> bool:
    # Of an array, which lies on one side of the window, the first tells for all.
    first = tokens if isinstance(tokens, int) else tokens.flat[0]
    return model.sliding_window is not None and bool(first >= model.sliding_window)


def _check(model: Model, context: int, batch: int, dtype: str, attention: str) -> None:
    """Raise `InputError` outside the domain in which the closed forms were checked."""
    _positive("context", context)
    _positive("batch", batch)
    if dtype not in _DTYPES:
        raise InputError(f"dtype: {dtype!r} was given; {' and '.join(_DTYPES)} are covered")
    if attention not in _ATTENTIONS:
        raise InputError(f"attention: {attention!r} was given; {' and '.join(_ATTENTIONS)} is covered")
    if model.architecture not in _FAMILIES:
        raise InputError(
            f"{model.id}: architecture {model.architecture!r} was not checked; covered are "
            f"{', '.join(sorted(_FAMILIES))}"
        )
    count, activation = _FAMILIES[model.architecture]
    if model.activation != activation:
        raise InputError(
            f"{model.id}: activation {model.activation!r} was not checked; {activation!r} is covered for "
            f"{model.architecture!r}"
        )
    if model.layers < 2:
        raise InputError(f"{model.id}: {model.layers} layer was not checked; 2 or more are covered")
    if len({limit for limit, _ in cache_sizes(model).growing}) > 1 or model.partial_rotary:
        raise InputError(
            f"{model.id}: layers with windows of several sizes, and heads that turn only in part, were not checked; "
            "one window, or none, and heads that turn whole are covered"
        )
    if model.experts and len(tuple(model.decoder.alike())) > 1:
        raise InputError(f"{model.id}: layers with experts among layers without were not checked; one kind is covered")
    if model.architecture in _UNMASKED and _has_mask(model, context):
        raise InputError(
            f"context: a pass of {model.id} was checked for contexts shorter than its sliding window of "
            f"{model.sliding_window} tokens; {context} was given"
        )
    own_width = model.architecture in _OWN_HEAD_WIDTH
    if not own_width and model.heads * model.head_dim != model.hidden_size:
        raise InputError(
            f"{model.id}: {model.heads} heads x {model.head_dim} were not checked; heads that make up the "
            f"hidden size of {model.hidden_size} are covered for {model.architecture!r}"
        )
    if count is not _gated and model.kv_heads != model.heads:
        raise InputError(
            f"{model.id}: {model.kv_heads} KV heads for {model.heads} heads were not checked; as many KV "
            f"heads as heads are covered for {model.architecture!r}"
        )
    if model.kv_heads < model.heads and model.head_dim > _GROUPED_HEAD_DIM_LIMIT:
        raise InputError(
            f"{model.id}: shared KV heads of {model.head_dim} dimensions were not checked; up to "
            f"{_GROUPED_HEAD_DIM_LIMIT} are covered"
        )
    if count is _phi and model.head_dim < _PHI_ROTARY_DIMENSIONS:
        raise InputError(
            f"{model.id}: heads of {model.head_dim} dimensions were not checked; {_PHI_ROTARY_DIMENSIONS} or "
            "more are covered for 'phi'"
        )
    if model.architecture in _LEARNED_POSITIONS and context > model.max_positions:
        raise InputError(
            f"context: {context} tokens were given; {model.id} has learned positions for "
            f"{model.max_positions}, and no pass runs beyond them"
        )


def _check_images(model: Model, images: int, tokens: int) -> None:
    if type(images) is not int or images < 0:
        raise InputError(f"images: {images!r} was given; an integer of 0 or more is needed")
    if not images:
        return
    if model.architecture != "llava" or model.vision is None:
        raise InputError(
            f"images: a pass of {model.id} with images was not checked; models of architecture 'llava' are covered"
        )
    tower = model.vision
    if tower.hidden_size > model.hidden_size or tower.intermediate_size > model.intermediate_size:
        raise InputError(
            f"images: {model.id} has a vision tower wider than its decoder, which was not checked; towers that are "
            "no wider are covered"
        )
    if images * tower.patches > tokens:
        raise InputError(
            f"images: {images} of {tower.patches} tokens each were given for {tokens} tokens in all "
            "sequences; the context counts the tokens of images too"
        )


def _positive(field: str, value: object) -> None:
    if type(value) is not int or value <= 0:
        raise InputError(f"{field}: {value!r} was given; a positive integer is needed")
