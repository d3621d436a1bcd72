"""AutoAWQ's fused modules: transformers' model with the attention and the cache of AutoAWQ, as its benchmark runs it.

The cache is made before the first token: keys and values of batch x max_new_tokens tokens in fp16 (WindowedCache), and
2 max_new_tokens rotations of complex64 in every layer (RoPE). The pass of the prompt writes its scores down, ten bytes
a score at most (fp16 scores, their float32 copy and its softmax), a mask beside them; every prompt token has logits,
with a float32 copy. The kernel of a matrix keeps eight partial sums (split_k_iters). While the layers are fused, query,
key and value matrices lie in memory twice; before the benchmark two float32 matrices of 4,096 x 4,096 are multiplied.

Source: AutoAWQ v0.1.6, awq/modules/fused/attn.py, cache.py, mlp.py, awq/modules/linear.py, examples/benchmark.py.
"""

from vlmmem.engines.allocator import allocated_bytes
from vlmmem.engines.settings import Settings
from vlmmem.errors import InputError
from vlmmem.formats import Format
from vlmmem.memory.activations import mlp_width
from vlmmem.memory.weights import model_weights_bytes, tensor_bits
from vlmmem.model import Model
from vlmmem.record import record

__all__ = ["Fused", "fused"]

_HALF, _COMPLEX64, _FLOAT32 = 2, 8, 4
_SCORE, _MASK = 2 + 4 + 4, 2
_LOGIT = 2 + 4
_SPLITS = 8
_WARM_UP = 2 * 4096 * 4096 * _FLOAT32
_ALIBI = ("mpt",)


@record(frozen=True, slots=True)
class Fused:
    """Bytes beside the weights: the cache with its rotations, the prefill's peak, and what loading needs."""

    cache: int
    prefill: int
    moment: str
    loading: int


def fused(model: Model, number: Format | None, settings: Settings, prompt: int) -> Fused:
    """What AutoAWQ's fused model holds beside its weights when it reads a prompt and answers.

    Args:
        model: the model, of one kind of layer without experts.
        number: the weights' format.
        settings: `context` counts prompt and answer, `sequences` those of the batch.
        prompt: tokens of the prompt.

    Raises:
        InputError: the model has experts.

    >>> from vlmmem import find_format, find_model
    >>> found = fused(find_model("mistral-7b"), find_format("awq-4bit"), Settings(4096), 2048)
    >>> found.cache / 2**30, found.moment
    (0.3125, 'attention')
    """
    if model.experts:
        raise InputError(f"library: AutoAWQ's fused experts are not priced; {model.id} has {model.experts}")
    batch = settings.sequences or 1
    answer = max(1, settings.context - prompt)
    number_of = batch * prompt

    def row(width: int) -> int:
        return _HALF * number_of * width

    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    side = allocated_bytes([_HALF * batch * keys * answer])
    rotations = 0 if model.architecture in _ALIBI else _COMPLEX64 * 2 * answer * (model.head_dim // 2)
    cache = model.layers * (2 * side + rotations)
    repeated = 0 if model.kv_heads == model.heads and model.architecture in _ALIBI else 2 * row(queries)
    scores = _SCORE * batch * model.heads * prompt**2 + _MASK * prompt**2
    inside = 2 * row(model.hidden_size) + row(queries + 2 * keys) + row(queries) + 2 * row(keys)
    moments = {
        "attention": inside + repeated + scores,
        "mlp": 2 * row(model.hidden_size) + (_SPLITS + 2) * row(mlp_width(model)),
        "logits": row(model.hidden_size) + _LOGIT * number_of * model.vocab_size,
    }
    prefill, moment = max((size, name) for name, size in moments.items())
    return Fused(cache, prefill, moment, max(cache + _twice(model, number), cache + _WARM_UP))


def _twice(model: Model, number: Format | None) -> int:
    """Bytes of the query, key and value matrices that stand apart in the checkpoint."""
    bits = 0
    for at, layer in enumerate(model.decoder.layers):
        for tensor in layer.tensors:
            if tensor.kind == "linear" and any(f".{part}_proj." in f".{tensor.name}" for part in "qkv"):
                bits += int(tensor_bits(model, f"{model.decoder.stack}.{at}.{tensor.name}", tensor, number, index=at))
    return min(bits // 8, sum(model_weights_bytes(model, number).values()))
