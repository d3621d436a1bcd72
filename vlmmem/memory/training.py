"""Memory of the activations that training keeps for the backward pass, and what checkpointing leaves of them.

Inference keeps none of an earlier layer; training keeps, of every layer, whatever its backward pass reads. Symbols:
N tokens of all sequences, T tokens of one, B sequences, H hidden size, I intermediate size, n heads, d head dimension,
q = n d, k = n_kv d.

- A layer of GPT as arXiv 2205.05198 counts it (LayerNorm, an MLP of 4 H, dropout in three places, 16-bit):
  N (34 H + 5 n T), the second term being the score matrices. PyTorch saves just that, and 8 N of LayerNorm statistics.
- A layer of Llama as transformers 5.23.0 builds it (RMSNorm computed in 32 bits, a gated MLP, no dropout, 16-bit):
  sdpa N (16 H + 8 + 4 q + 4 k + 4 n + 8 I); eager N (16 H + 8 + 8 q + 8 I + 6 n T), where keys and values are repeated
  for every head.

Both are held to the byte against PyTorch's saved tensors (tools/oracle_saved.py). The embedding, the last norm, the
logits and the loss are not in them.

Checkpointing every k layers keeps the input of each segment of k layers and recomputes one segment at a time.
"""

from vlmmem.catalog import find_model
from vlmmem.errors import InputError
from vlmmem.memory.attention import attention_scores_bytes, attention_statistics_bytes
from vlmmem.model import Model
from vlmmem.workload import check_positive

__all__ = [
    "best_checkpoint_interval",
    "checkpointed_bytes",
    "gpt_layer_activations_bytes",
    "layer_activations_bytes",
    "layer_input_bytes",
]

MOST_LAYERS = 10_000
"""Layers up to which every interval is tried; no model comes near."""

_ACTIVATION, _FLOAT32, _MASK = 2, 4, 1

# arXiv 2205.05198, section 4.1: bytes a token and hidden unit, 11 of the attention, 19 of the MLP, 4 of the LayerNorms.
_GPT_LINEAR = 34


def gpt_layer_activations_bytes(
    hidden_size: int, heads: int, context: int, batch: int = 1, *, scores: bool = True
) -> int:
    """Bytes that one layer of GPT keeps for its backward pass: context x batch x (34 hidden_size + 5 heads x context).

    Args:
        hidden_size: width of the residual stream; the MLP is four times as wide.
        heads: query heads, as many KV heads.
        context: tokens of each sequence.
        batch: sequences.
        scores: whether the score matrices are kept: the softmax, its dropout mask and what dropout leaves. Without
            them it is the paper's selective recomputation.

    Raises:
        InputError: a count is not a positive integer.

    Source: arXiv 2205.05198, section 4.1, equation 1, and section 5, equation 6.

    >>> gpt_layer_activations_bytes(hidden_size=12_288, heads=96, context=2048)
    2868903936
    >>> 2048 * 12_288 * (34 + 5 * 96 * 2048 // 12_288)
    2868903936
    """
    for name, value in (("hidden_size", hidden_size), ("heads", heads), ("context", context), ("batch", batch)):
        check_positive(name, value)
    linear = _GPT_LINEAR * hidden_size * context * batch
    return linear + attention_scores_bytes(heads, context, batch, 2 * _ACTIVATION + _MASK) if scores else linear


def layer_activations_bytes(model: str | Model, context: int, batch: int = 1, *, attention: str = "sdpa") -> int:
    """Bytes that one layer of a Llama model keeps for its backward pass, in 16 bits.

    Args:
        model: a model of the class Llama, or its name.
        context: tokens of each sequence, without padding.
        batch: sequences.
        attention: "sdpa" (PyTorch's fused kernel, which keeps no scores) or "eager" (which keeps them).

    Raises:
        InputError: a count is not a positive integer, the attention is neither of the two, or the model is of another
            class: only Llama's layer was held against PyTorch.

    Source: transformers 5.23.0 run without weights (tools/oracle_saved.py).

    >>> layer_activations_bytes("llama-2-13b", context=4096)
    956989440
    >>> layer_activations_bytes("llama-2-13b", context=4096, attention="eager")
    4982865920
    """
    model = find_model(model) if isinstance(model, str) else model
    for name, value in (("context", context), ("batch", batch)):
        check_positive(name, value)
    if model.architecture != "llama":
        raise InputError(f"model: {model.id} is of the class {model.architecture}; the layer of llama was checked")
    tokens = context * batch
    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    # Each of two norms: its input in 32 bits, a 32-bit scale a token, and in 16 bits what is scaled by the weight and
    # what comes out of it.
    norms = 2 * tokens * ((_FLOAT32 + 2 * _ACTIVATION) * model.hidden_size + _FLOAT32)
    # The gate, its activation, the other projection, and their product.
    mlp = 4 * _ACTIVATION * tokens * model.intermediate_size
    if attention == "sdpa":
        kept = 2 * _ACTIVATION * tokens * (queries + keys)
        return norms + mlp + kept + attention_statistics_bytes(model.heads, context, batch)
    if attention == "eager":
        kept = 4 * _ACTIVATION * tokens * queries
        return norms + mlp + kept + attention_scores_bytes(model.heads, context, batch, _FLOAT32 + _ACTIVATION)
    raise InputError(f"attention: {attention!r} was given; sdpa and eager are covered")


def layer_input_bytes(hidden_size: int, context: int, batch: int = 1) -> int:
    """Bytes of what goes into a layer, 16-bit: what a checkpoint keeps, 2 x hidden_size x context x batch.

    Raises:
        InputError: an argument is not a positive integer.

    Source: arXiv 2205.05198, section 5 (full recomputation stores 2 s b h a layer).

    >>> layer_input_bytes(hidden_size=5120, context=4096)
    41943040
    """
    for name, value in (("hidden_size", hidden_size), ("context", context), ("batch", batch)):
        check_positive(name, value)
    return _ACTIVATION * hidden_size * context * batch


def checkpointed_bytes(layers: int, layer: int, boundary: int, every: int) -> int:
    """Bytes of activations at the most, with a checkpoint every so many layers.

    ceil(layers / every) - 1 inputs of segments, and the activations of the one segment that is being recomputed, whose
    own input is among them. A checkpoint every `layers` layers is none: all activations are there at once.

    Args:
        layers: layers of the model.
        layer: bytes that one layer keeps for its backward pass, its input among them.
        boundary: bytes of the input of one layer.
        every: layers of a segment; a last segment may be shorter.

    Raises:
        InputError: an argument is not a positive integer, or a segment is longer than the model.

    Source: arXiv 1604.06174, section 4.3, equation 1.

    >>> [checkpointed_bytes(layers=64, layer=1, boundary=1, every=k) for k in (1, 8, 64)]
    [64, 15, 64]
    """
    for name, value in (("layers", layers), ("layer", layer), ("boundary", boundary), ("every", every)):
        check_positive(name, value)
    if every > layers:
        raise InputError(f"every: {every} was given; at most {layers}, all layers, is possible")
    return (-(-layers // every) - 1) * boundary + every * layer


def best_checkpoint_interval(layers: int, layer: int, boundary: int) -> int:
    """The layers of a segment that leave the fewest bytes; near sqrt(layers x boundary / layer).

    Args: as `checkpointed_bytes`.

    Raises:
        InputError: an argument is not a positive integer, or there are more than 10,000 layers.

    >>> best_checkpoint_interval(layers=64, layer=1, boundary=1)
    8
    """
    check_positive("layers", layers)
    if layers > MOST_LAYERS:
        raise InputError(f"layers: {layers} was given; at most {MOST_LAYERS:,} are tried one by one")
    return min(range(1, layers + 1), key=lambda every: checkpointed_bytes(layers, layer, boundary, every))
