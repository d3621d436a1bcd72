"""The documents' models, and their own functions, written anew: same signature, same convention, same defects.

They return what the documents' code returns, so that a reader can run it and see where it parts from the bytes. Each
docstring names the defect. For figures to plan with, use `vlmmem.weights_bytes`, `vlmmem.kv_cache_bytes` and
`vlmmem.forward_peak_bytes` instead.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

from vlmmem.errors import InputError
from vlmmem.units import Number, exact

if TYPE_CHECKING:
    from vlmmem.model import Model

_KIB, _MIB, _GIB = 2**10, 2**20, 2**30

_MODELS = (
    "llava-1.5-7b",
    "llava-1.5-13b",
    "llava-1.6-34b",
    "llama-2-7b",
    "llama-2-13b",
    "llama-2-70b",
    "llama-1-30b",
    "opt-30b",
    "gpt-3-175b",
    "llama-3.1-8b",
    "llama-3.1-70b",
    "llama-3.1-405b",
    "mistral-7b",
    "qwen2-72b",
    "phi-2",
)

Result = TypeVar("Result")


def documented_models() -> tuple["Model", ...]:
    """The models that the documents name, or must mean by a size such as 30B; `models` gives the whole catalogue.

    >>> len(documented_models()), documented_models()[0].id
    (15, 'llava-1.5-7b')
    """
    from vlmmem.catalog import find_model

    return tuple(find_model(name) for name in _MODELS)


def estimate_memory_gb(
    num_params_billions: Number,
    quantization_bits: int = 16,
    sequence_length: int = 2048,
    batch_size: int = 1,
    num_layers: int = 32,
    hidden_size: int = 4096,
    overhead_factor: Number = 1.2,
) -> Fraction:
    """`footprint`, "Practical Estimation Formula": weights plus KV cache, times an overhead factor, as "GB".

    Defects kept: weights count in GB (10^9 B) and the KV cache in GiB (2^30 B), and the two are added; the cache takes
    the hidden size, so grouped-query models come out too large; the quantisation does not reach the cache.

    >>> float(estimate_memory_gb(13, 16, 4096, 8, 40, 5120))
    61.2
    """
    bytes_per_parameter = Fraction(4 * quantization_bits, 32)
    model_gb = exact(num_params_billions) * bytes_per_parameter
    kv_kib_per_token = Fraction(2 * num_layers * hidden_size * 2, _KIB)
    kv_gib = kv_kib_per_token * sequence_length * batch_size / _MIB
    return (model_gb + kv_gib) * exact(overhead_factor)


def calc_model_memory_gb(num_params: Number, dtype_bytes: Number = 2) -> Fraction:
    """`inference`, section 2: bytes of the weights over 2^30, printed as "GB".

    Defects kept: the result is in GiB. The document annotates ``dtype_bytes`` as int and tells the reader to pass 0.5
    for INT4; the table below its code divides by 10^9 instead.

    >>> round(float(calc_model_memory_gb(8e9)), 1)
    14.9
    """
    return exact(num_params) * exact(dtype_bytes) / _GIB


def calc_kv_cache_memory_gb(
    num_layers: int, num_heads: int, head_dim: int, seq_len: int, batch_size: int, dtype_bytes: Number = 2
) -> Fraction:
    """`inference`, section 2: bytes of the KV cache over 2^30, printed as "GB".

    The formula is right when ``num_heads`` is the number of KV heads; the unit is GiB. What the document says it prints
    (0.50) is not what it returns.

    >>> float(calc_kv_cache_memory_gb(80, 8, 128, 4096, 1)), float(calc_kv_cache_memory_gb(32, 8, 128, 4096, 1))
    (1.25, 0.5)
    """
    kv_per_layer = 2 * num_heads * head_dim * seq_len * batch_size
    return kv_per_layer * num_layers * exact(dtype_bytes) / _GIB


def calc_activation_memory_gb(
    hidden_size: int, seq_len: int, batch_size: int, num_layers: int, dtype_bytes: Number = 2
) -> Fraction:
    """`inference`, section 2: two hidden states for every layer, in GiB, printed as "GB".

    Defects kept: it sums over the layers, as training does. An inference pass frees a layer's buffers before the next,
    and its peak is set by one layer's MLP (`vlmmem.forward_peak_bytes`).

    >>> float(calc_activation_memory_gb(8192, 4096, 1, 80))
    10.0
    """
    per_layer = 2 * hidden_size * seq_len * batch_size * exact(dtype_bytes)
    return per_layer * num_layers / _GIB


def quick_memory_gb(num_params_billions: Number, quantization_bits: int = 16) -> Fraction:
    """`footprint`, "Quick Estimation Formula": 4 bytes a parameter, over 32 / bits, times 1.2, in GB.

    Defects kept: the factor is all that stands for KV cache, activations and runtime, so that neither context nor
    batch changes the result; scales, zeros and what a quantised checkpoint leaves in 16 bits are not counted. For
    weights alone without the factor, `vlmmem.checkpoint_bytes` is right; for the rest, `vlmmem.estimate`.

    >>> float(quick_memory_gb(70, 16)), float(quick_memory_gb(70, 4))
    (168.0, 42.0)
    """
    return exact(num_params_billions) * 4 / Fraction(32, quantization_bits) * Fraction(6, 5)


PRECISION_FACTORS = {"fp32": Fraction(1), "fp16": Fraction(1, 2), "int8": Fraction(1, 4)}
"""`estimation`, the precision factor by format, as printed; no other format has one."""


def total_memory_gb(
    num_params_billions: Number, precision: str, kv_cache_gb: Number = 0, base_bytes: Number = 4, overhead: Number = 0.2
) -> Fraction:
    """`estimation`, "comprehensive formula": parameters x base bytes x precision factor + KV cache + overhead, in GB.

    The document does not name the base: a factor of 1 for FP32 needs 4 bytes. With the 2 bytes that it gives a
    parameter of FP16, the factor halves a second time. "Overhead typically adds 20% to the final calculation" is read
    as a fifth of the two other terms. Defects kept: the precision does not reach the KV cache, and the overhead grows
    with the cache instead of with the tokens of a forward pass (`vlmmem.forward_peak_bytes`).

    >>> float(total_memory_gb(13, "fp16")), float(total_memory_gb(13, "fp16", 66))
    (31.2, 110.4)
    """
    if precision not in PRECISION_FACTORS:
        raise InputError(f"precision {precision!r}: the document has a factor for {', '.join(PRECISION_FACTORS)} only")
    weights = exact(num_params_billions) * exact(base_bytes) * PRECISION_FACTORS[precision]
    return (weights + exact(kv_cache_gb)) * (1 + exact(overhead))


def profile_gpu_memory(func: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    """`inference`, "Memory Profiling": what PyTorch's tensors took before, after and at most, printed as "GB".

    Runs ``func`` with the arguments given and returns its result. Prints what is allocated after the call less what was
    before, the peak, and PyTorch's memory summary. A GB is 10^9 B here, which is right; the summary is in MiB.

    Defects kept: the "increase" is what the call leaves behind, not what it needs, so that a model which is loaded and
    freed inside shows none; the peak contains what was allocated before, since a reset sets it to that and not to
    zero; and all of it counts tensors only, neither what PyTorch's allocator holds beyond them
    (``max_memory_reserved``) nor the CUDA context. What a call needs is the peak less ``before``.

    Raises InputError without PyTorch, or without a CUDA GPU.
    """
    cuda = _torch().cuda
    if not cuda.is_available():
        raise InputError("profile_gpu_memory: PyTorch sees no CUDA GPU; the document's function reads a GPU's counters")
    cuda.reset_peak_memory_stats()
    cuda.synchronize()
    before = cuda.memory_allocated()
    result = func(*args, **kwargs)
    cuda.synchronize()
    after = cuda.memory_allocated()
    peak = cuda.max_memory_allocated()
    print(f"Memory increase: {(after - before) / 1e9:.3f} GB")
    print(f"Peak memory: {peak / 1e9:.3f} GB")
    print()
    print(cuda.memory_summary())
    return result


def load_and_infer() -> Any:
    """`inference`, "Memory Profiling": phi-2 in float16, loaded from the hub, and 50 new tokens.

    Defects kept: the pipeline is a local variable, so that its weights are freed when the function
    returns and `profile_gpu_memory` reports no increase for them; ``torch_dtype`` is an old name, which
    transformers still takes with a warning.

    Raises InputError without PyTorch or transformers. Downloads the model where it is not there.
    """
    torch = _torch()
    try:
        from transformers import pipeline
    except ImportError:
        raise InputError("load_and_infer: transformers is not installed; pip install transformers accelerate") from None
    pipe = pipeline("text-generation", model="microsoft/phi-2", torch_dtype=torch.float16, device_map="auto")
    return pipe("GPU memory management is", max_new_tokens=50)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise InputError("PyTorch is not installed; pip install torch") from None
    return torch
