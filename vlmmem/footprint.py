"""The terms of a model's memory added up: a footprint on GPUs under a workload."""

from dataclasses import dataclass
from fractions import Fraction

from vlmmem.catalog import find_format, find_gpu, find_model
from vlmmem.errors import InputError
from vlmmem.formats import Format
from vlmmem.hardware import Gpu
from vlmmem.memory import (
    cached_tokens,
    forward_peak_bytes,
    kv_heads_per_rank,
    model_weights_bytes,
    overhead_rule_bytes,
    runtime_allowance,
    runtime_bytes,
)
from vlmmem.model import Model
from vlmmem.parallelism import GpuShare, gpu_shares
from vlmmem.workload import Parallelism, Workload

__all__ = ["OVERHEAD_RULE", "Footprint", "Term", "estimate"]

OVERHEAD_RULE = Fraction(1, 10)
"""Share of weights and KV cache for activations where no closed form applies: the top of the 5-10 % that
document footprint prints ("Activations and Temporary Buffers")."""

_SPLIT_SOURCE = "https://arxiv.org/abs/1909.08053"
_KV_SOURCE = "https://arxiv.org/abs/2305.13245"
_PEAK_SOURCE = "https://github.com/huggingface/transformers/tree/v5.23.0"
_RULE_SOURCE = "document footprint, Activations and Temporary Buffers"


@dataclass(frozen=True, slots=True)
class Term:
    """One term of the memory of one GPU.

    `name` is weights, kv_cache, activations, vision or runtime; parts of a term follow a colon
    (weights:vision). `formula` is the arithmetic with its numbers. `basis` is measured, derived, assumed or
    documented.
    """

    name: str
    bytes: int
    formula: str
    basis: str
    source: str

    @property
    def kind(self) -> str:
        """The name without the part: weights of weights:vision."""
        return self.name.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model needs on each GPU and on all of them, in bytes.

    `fits` compares one GPU's need with what the GPU has, and is None without a GPU. `notes` says what the
    numbers leave out or take for granted.
    """

    model: str
    gpus: int
    terms: tuple[Term, ...]
    gpu: Gpu | None = None
    notes: tuple[str, ...] = ()

    @property
    def per_gpu(self) -> dict[str, int]:
        """Bytes of one GPU: weights, kv_cache, activations, vision, runtime, and their total."""
        kinds = dict.fromkeys(("weights", "kv_cache", "activations", "vision", "runtime"), 0)
        for term in self.terms:
            kinds[term.kind] += term.bytes
        return {**kinds, "total": sum(kinds.values())}

    @property
    def total(self) -> int:
        """Bytes of all GPUs together, each as full as the fullest."""
        return self.gpus * self.per_gpu["total"]

    @property
    def fits(self) -> bool | None:
        """Whether one GPU's share is within the GPU's memory; None without a GPU."""
        return None if self.gpu is None else self.per_gpu["total"] <= self.gpu.memory_bytes


def estimate(
    model: str | Model,
    workload: Workload,
    parallelism: Parallelism | None = None,
    gpu: str | Gpu | None = None,
    *,
    weights: str | Format | None = None,
    kv_dtype: str | Format | None = None,
) -> Footprint:
    """The memory of a model under a workload, term by term, as transformers would hold it.

    All sequences go through the model in one pass. Over several GPUs the terms are those of the fullest one, as
    `gpu_shares` deals weights and KV cache out. Images count as tokens of the context; the vision tower's own
    buffers are not in it.

    Args:
        model: a model or its name.
        workload: sequences and their length.
        parallelism: GPUs that split layers (tp) or share them out (pp); one GPU without it.
        gpu: the GPU on which it should fit, or its name.
        weights: number format of the weights; None is that in which the model was published.
        kv_dtype: number format of the KV cache; None is the model's own.

    Raises:
        InputError: a name is unknown, tp does not divide the heads or the MLP, or pp exceeds the layers.

    >>> footprint = estimate("llama-3.1-8b", Workload(context=8192), gpu="a100-40gb")
    >>> footprint.per_gpu["weights"], footprint.per_gpu["kv_cache"], footprint.fits
    (16060522496, 1073741824, True)
    """
    model = find_model(model) if isinstance(model, str) else model
    parallelism = Parallelism() if parallelism is None else parallelism
    gpu = find_gpu(gpu) if isinstance(gpu, str) else gpu
    number = find_format(weights or model.dtype) if not isinstance(weights, Format) else weights
    cache = find_format(kv_dtype or model.dtype) if not isinstance(kv_dtype, Format) else kv_dtype
    shares = gpu_shares(model, workload, parallelism, weights=number, kv_dtype=cache)
    fullest = max(shares, key=lambda share: share.total)
    terms = (
        *_weights(model, number, parallelism, fullest),
        _kv_cache(model, workload, cache, parallelism, fullest),
    )
    held = sum(term.bytes for term in terms)
    terms += (
        _activations(model, workload, parallelism, (number, cache), held),
        Term(
            "vision",
            0,
            "no image beside the text: image tokens count in the context",
            "derived",
            _PEAK_SOURCE,
        ),
        _runtime(parallelism),
    )
    return Footprint(model.id, parallelism.gpus, terms, gpu, _notes(model, workload))


def _weights(model: Model, number: Format, parallelism: Parallelism, share: GpuShare) -> tuple[Term, ...]:
    source = number.sources[0].address if number.sources else ""
    bits = number.formula or str(number.bits)
    if parallelism.gpus > 1:
        formula = (
            f"stage {share.stage}: {share.layers} of {model.layers} layers / {parallelism.tp} GPUs x ({bits}) bits / 8"
        )
        ends = (("embedding", share.stage == 0), ("output head", share.stage == parallelism.pp - 1))
        held = " and ".join(name for name, here in ends if here)
        formula += f", its {held} with them" if held else ""
        return (Term("weights", share.weights, formula, "derived", _SPLIT_SOURCE),)
    parts = model_weights_bytes(model, number)
    terms = []
    for part, size in parts.items():
        parameters = model.parameters_by_part[part]
        if number.scope == "all":
            formula = f"{parameters:,} parameters x ({bits}) bits / 8"
        elif part == "language":
            formula = f"{parameters:,} parameters: linear layers x ({bits}) bits, the rest x 16 bits, / 8"
        else:
            formula = f"{parameters:,} parameters x 16 bits / 8"
        name = "weights" if len(parts) == 1 else f"weights:{part}"
        terms.append(Term(name, size, formula, "derived", source))
    return tuple(terms)


def _kv_cache(model: Model, workload: Workload, cache: Format, parallelism: Parallelism, share: GpuShare) -> Term:
    heads = kv_heads_per_rank(model, parallelism.tp)
    formula = (
        f"2 x {share.layers} layers x {heads} KV heads x {model.head_dim} x {cache.bits} bits / 8"
        f" x {cached_tokens(model, workload.context):,} tokens x {workload.batch:,} sequences"
    )
    return Term("kv_cache", share.kv_cache, formula, "derived", _KV_SOURCE)


def _activations(
    model: Model, workload: Workload, parallelism: Parallelism, formats: tuple[Format, Format], held: int
) -> Term:
    number = formats[0]
    try:
        peak = forward_peak_bytes(model, workload.context, workload.batch)
    except InputError as error:
        size = overhead_rule_bytes(0, held, OVERHEAD_RULE)
        formula = f"{OVERHEAD_RULE} x (weights + KV cache): no closed form applies ({error})"
        return Term("activations", size, formula, "assumed", _RULE_SOURCE)
    formula = "peak of one prefill of all tokens in transformers, over weights and KV cache"
    if parallelism.gpus == 1 and all(each.id in ("bf16", "fp16") for each in formats):
        return Term("activations", peak, formula, "derived", _PEAK_SOURCE)
    formula += ", of one GPU in 16 bits; taken whole on each GPU"
    if number.id == "fp32":
        peak, formula = 2 * peak, f"2 x {formula}: 32 bits"
    return Term("activations", peak, formula, "assumed", _PEAK_SOURCE)


def _runtime(parallelism: Parallelism) -> Term:
    allowance = runtime_allowance(parallelism.tp, parallelism.pp)
    parts = f"{allowance.context_bytes:,} B context + {allowance.workspace_bytes:,} B workspaces"
    formula = f"{parts}, measured on H100s under vLLM 0.19"
    size = runtime_bytes(parallelism.tp, parallelism.pp)
    return Term("runtime", size, formula, "assumed", allowance.sources[0].address)


def _notes(model: Model, workload: Workload) -> tuple[str, ...]:
    notes = []
    if workload.context > model.max_positions:
        notes.append(f"{workload.context:,} tokens are over the {model.max_positions:,} positions of {model.id}")
    if model.sliding_window is not None and workload.context > model.sliding_window:
        notes.append(f"each layer keeps {model.sliding_window:,} tokens (its sliding window); engines keep some more")
    return tuple(notes)
