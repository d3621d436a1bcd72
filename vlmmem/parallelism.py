"""What each GPU holds and sends when a model is split: tensor, pipeline and data parallelism, and the three together.

Tensor parallelism cuts every layer as Megatron-LM does (arXiv 1909.08053, section 3) and vLLM after it: query, key,
value, gate and up matrices along their outputs, output and down matrices along their inputs, embedding and output head
along the vocabulary. Norms, the biases of output and down matrices, and learned positions stand whole on every GPU;
where there are fewer KV heads than GPUs, each keeps a copy of one. Pipeline parallelism deals out whole layers as
`get_pp_indices` of vLLM does (vllm/distributed/utils.py); the first stage also holds the embedding, the last one norm
and head. Data parallelism copies the model and shares out the requests.

Symbols: t GPUs of a tensor-parallel group, p stages, m microbatches, L layers, H hidden_size, N tokens of a pass.
"""

from fractions import Fraction
from math import ceil

from vlmmem.catalog import find_format, find_model
from vlmmem.errors import InputError
from vlmmem.formats import Format
from vlmmem.layers import Part
from vlmmem.memory import kv_cache_bytes, kv_heads_per_rank
from vlmmem.memory.weights import find_weights_format, part_bits, tensor_bits
from vlmmem.model import Model
from vlmmem.record import record
from vlmmem.units import exact
from vlmmem.workload import Parallelism, Workload, check_positive

__all__ = [
    "GpuShare",
    "all_reduce_bytes",
    "all_reduces",
    "bubble_share",
    "gpu_shares",
    "least_microbatches",
    "pipeline_transfer_bytes",
    "stage_layers",
    "tensor_parallel_sizes",
]

# One for the output of attention, one for that of the MLP (arXiv 1909.08053, figure 4).
_ALL_REDUCES_A_LAYER = 2
# A ring sends each byte round twice, once to add and once to hand the sum on: 2 (t - 1) / t of a message a GPU.
_RING_ROUNDS = 2


@record(frozen=True, slots=True)
class GpuShare:
    """What one GPU of a pipeline stage holds, in bytes; the GPUs of a stage hold the same amount each."""

    stage: int
    layers: int
    weights: int
    kv_cache: int

    @property
    def total(self) -> int:
        """Weights and KV cache."""
        return self.weights + self.kv_cache


def stage_layers(model: str | Model, pp: int) -> tuple[int, ...]:
    """Layers of each pipeline stage, as vLLM deals them out.

    What is left over by an even split goes to stages before the last, from the back: the last one has the output head.

    Args:
        model: a model or its name.
        pp: stages, 1 or more.

    Raises:
        InputError: `pp` is not a positive integer or exceeds the layers.

    Source: vLLM, `get_pp_indices` and tests/distributed/test_pipeline_partition.py.

    >>> stage_layers("llama-3.1-70b", 4), stage_layers("llama-2-13b", 3)
    ((20, 20, 20, 20), (13, 14, 13))
    """
    model = find_model(model) if isinstance(model, str) else model
    check_positive("pp", pp)
    if pp > model.layers:
        raise InputError(
            f"pp: {pp} stages cannot share {model.layers} layers of {model.id}; {model.layers} or fewer are needed"
        )
    even, left = divmod(model.layers, pp)
    return tuple(even + (pp - 1 - left <= stage < pp - 1) for stage in range(pp))


def tensor_parallel_sizes(model: str | Model, most: int = 16) -> tuple[int, ...]:
    """Sizes of a tensor-parallel group up to `most` that split heads, KV heads and the MLP evenly.

    >>> tensor_parallel_sizes("llama-2-13b"), tensor_parallel_sizes("llama-1-30b")
    ((1, 2, 4, 8), (1, 2, 4))
    """
    model = find_model(model) if isinstance(model, str) else model
    check_positive("most", most)
    return tuple(tp for tp in range(1, most + 1) if _fault(model, tp) is None)


def gpu_shares(
    model: str | Model,
    workload: Workload,
    parallelism: Parallelism | None = None,
    *,
    replicas: int = 1,
    weights: str | Format | None = None,
    kv_dtype: str | Format | None = None,
) -> tuple[GpuShare, ...]:
    """Weights and KV cache of one GPU of each pipeline stage, exactly.

    Rows of the vocabulary that do not divide are rounded up. Scales and zeros of quantised weights are cut with their
    tensor. A vision tower and its projector stand on the first stage, cut as their tensors say. Activations and the
    runtime's own memory are not in it.

    Args:
        model: a model or its name.
        workload: sequences and their length, over all replicas.
        parallelism: GPUs that split layers (tp) or share them out (pp); one GPU without it.
        replicas: copies of the model that share the sequences (data parallelism); the fullest one is shown.
        weights: number format of the weights; None is the form in which the model was published.
        kv_dtype: number format of the KV cache; None is the model's own.

    Raises:
        InputError: a name is unknown, tp does not divide the heads or the MLP, or pp exceeds the layers.

    Source: vLLM 0.19 on H100s measured 7.51, 3.77 and 4.26 GiB of weights (rotary tables of 32 MiB among them) for
    Llama-3.1-8B with tp 2, tp 4 and pp 4.

    >>> shares = gpu_shares("llama-3.1-8b", Workload(8192), Parallelism(pp=4))
    >>> [share.weights for share in shares]
    [4540465152, 3489792000, 3489792000, 4540473344]
    """
    model = find_model(model) if isinstance(model, str) else model
    parallelism = Parallelism() if parallelism is None else parallelism
    number = find_weights_format(model, weights) if isinstance(weights, str) else weights
    cache = kv_dtype if isinstance(kv_dtype, Format) else find_format(kv_dtype or model.dtype)
    check_positive("replicas", replicas)
    fault = _fault(model, parallelism.tp)
    if fault is not None:
        raise InputError(fault)
    tp, batch = parallelism.tp, -(-workload.batch // replicas)
    shares = []
    for stage, count in enumerate(stage_layers(model, parallelism.pp)):
        layers = stage_part(model, parallelism.pp, stage).layers
        held = kv_cache_bytes(model, workload.context, batch, cache, tp, images=workload.images, layers=layers)
        shares.append(GpuShare(stage, count, _stage_weights(model, number, parallelism, stage), held))
    return tuple(shares)


def all_reduces(model: str | Model, tp: int) -> int:
    """All-reduces of one forward pass of a tensor-parallel group: two a layer and one for the embedding.

    The logits are gathered, not added: that is another collective and not in the count.

    Args:
        model: a model or its name.
        tp: GPUs of the group; one GPU has nobody to add up with.

    Raises:
        InputError: `tp` does not split the model.

    Source: arXiv 1909.08053, section 3 and figure 4; vLLM's RowParallelLinear and VocabParallelEmbedding.

    >>> all_reduces("llama-3.1-70b", tp=4), all_reduces("llama-3.1-70b", tp=1)
    (161, 0)
    """
    model = find_model(model) if isinstance(model, str) else model
    fault = _fault(model, tp)
    if fault is not None:
        raise InputError(fault)
    return 0 if tp == 1 else _ALL_REDUCES_A_LAYER * model.layers + 1


def all_reduce_bytes(model: str | Model, tp: int, tokens: int = 1, dtype: str | Format = "bf16") -> int:
    """Bytes that each GPU sends in the all-reduces of one forward pass, by a ring.

    all_reduces x 2 (t - 1) / t x N x H x bytes of an element, rounded up.

    Args:
        model: a model or its name.
        tp: GPUs of the group.
        tokens: tokens of all sequences in the pass: one a sequence in decode, the prompts' in prefill.
        dtype: number format of the activations.

    Raises:
        InputError: an argument is not a positive integer, or `tp` does not split the model.

    Source: arXiv 2104.04473, section 3.2: 8 b s h (t - 1) / t elements a layer for four all-reduces (two of them in the
    backward pass).

    >>> all_reduce_bytes("llama-3.1-70b", tp=4)
    3956736
    """
    model = find_model(model) if isinstance(model, str) else model
    check_positive("tokens", tokens)
    number = find_format(dtype) if isinstance(dtype, str) else dtype
    count = all_reduces(model, tp)
    return ceil(Fraction(count * _RING_ROUNDS * (tp - 1), tp) * tokens * model.hidden_size * number.bits / 8)


def pipeline_transfer_bytes(
    model: str | Model, pp: int, tokens: int = 1, dtype: str | Format = "bf16", *, tensors: int = 1
) -> int:
    """Bytes that cross all stage boundaries in one forward pass: (p - 1) x N x H x bytes of an element.

    Args:
        model: a model or its name.
        pp: stages.
        tokens: tokens of all sequences in the pass.
        dtype: number format of the activations.
        tensors: activations handed over at a boundary; vLLM's Llama hands over hidden states and residual, 2.

    Raises:
        InputError: an argument is not a positive integer, or `pp` exceeds the layers.

    Source: arXiv 2104.04473, section 3.2: b s h elements between two consecutive devices.

    >>> pipeline_transfer_bytes("llama-3.1-70b", pp=4)
    49152
    """
    model = find_model(model) if isinstance(model, str) else model
    check_positive("tokens", tokens)
    check_positive("tensors", tensors)
    number = find_format(dtype) if isinstance(dtype, str) else dtype
    return (len(stage_layers(model, pp)) - 1) * ceil(tensors * tokens * model.hidden_size * number.bits / 8)


def bubble_share(stages: int, microbatches: int = 1) -> Fraction:
    """Share of a pipeline's time in which a stage waits: (p - 1) / (m + p - 1), stages of equal length.

    arXiv 2104.04473 divides by the working time instead and prints (p - 1) / m.

    Args:
        stages: pipeline stages.
        microbatches: pieces of the batch that follow one another through the stages; 1 is the naive pipeline.

    Raises:
        InputError: an argument is not a positive integer.

    Source: arXiv 1811.06965 (GPipe), section 2.3: O((K - 1) / (M + K - 1)), negligible for M >= 4 K.

    >>> bubble_share(4), bubble_share(4, 16)
    (Fraction(3, 4), Fraction(3, 19))
    """
    check_positive("stages", stages)
    check_positive("microbatches", microbatches)
    return Fraction(stages - 1, microbatches + stages - 1)


def least_microbatches(stages: int, share: float | Fraction | str) -> int:
    """The fewest microbatches with which a stage waits for no more than a share of the time.

    Args:
        stages: pipeline stages.
        share: the share of the time, above 0; a float means the decimal number that it prints.

    Raises:
        InputError: `stages` is not a positive integer, or `share` is not a number above 0.

    >>> least_microbatches(4, 0.2), least_microbatches(4, 0.1), least_microbatches(1, 0.1)
    (12, 27, 1)
    """
    check_positive("stages", stages)
    try:
        allowed = Fraction(share) if isinstance(share, str) else exact(share)
    except (ValueError, ZeroDivisionError):
        allowed = Fraction(0)
    if allowed <= 0:
        raise InputError(f"share: {share!r} was given; a number above 0 is needed, 0.1 for 10 %")
    return max(1, ceil((stages - 1) * (1 / allowed - 1)))


def _fault(model: Model, tp: int) -> str | None:
    """Why a group of `tp` GPUs cannot split the model; None where it can."""
    try:
        kv_heads_per_rank(model, tp)
    except InputError as error:
        return str(error)
    for width, what in _divided_widths(model):
        if width % tp:
            return f"tp: {tp} GPUs cannot split the {width:,} columns of {model.id}'s {what} evenly"
    return None


def _divided_widths(model: Model) -> list[tuple[int, str]]:
    """Inner widths that tensor parallelism divides in MLPs, experts and mixers; layers may differ."""
    widths: dict[int, str] = {}
    for layer, _ in model.decoder.alike():
        for tensor in layer.tensors:
            if tensor.kind == "expert" and tensor.cut == "experts":
                # (experts, 2 x width, hidden) and (experts, hidden, width)
                inner = tensor.inputs if tensor.inputs != model.hidden_size else tensor.outputs
                widths.setdefault(inner, "experts")
            elif tensor.kind == "linear" and tensor.cut == "inputs":
                widths[tensor.inputs] = "MLP" if tensor.inputs == model.intermediate_size else "layers"
    return sorted(widths.items())


def _stage_weights(model: Model, number: Format | None, parallelism: Parallelism, stage: int) -> int:
    tp = parallelism.tp
    first, last = stage == 0, stage == parallelism.pp - 1
    sizes = stage_layers(model, parallelism.pp)
    start = sum(sizes[:stage])
    bits = part_bits(model, model.decoder, number, tp, layers=range(start, start + sizes[stage]), outside=False)
    for tensor in model.decoder.tensors:
        at_end = tensor.kind in ("head", "norm", "bias")
        # A tied head is the embedding itself, and a copy of it where the two stand on different GPUs.
        copied = tensor.kind == "embedding" and model.tied_embeddings and last
        if copied or (last if at_end else first):
            bits += tensor_bits(model, tensor.name, tensor, number, tp)
    if first:
        bits += sum(part_bits(model, part, number, tp) for part in model.parts if part is not model.decoder)
    return ceil(bits / 8)


def stage_part(model: Model, pp: int, stage: int) -> Part:
    """The decoder's layers that one pipeline stage holds."""
    sizes = stage_layers(model, pp)
    start = sum(sizes[:stage])
    return Part("language", (), model.decoder.stack, model.decoder.layers[start : start + sizes[stage]])
