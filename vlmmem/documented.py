"""The documents' own functions, written anew: same signature, same convention, same defects.

They return what the documents' code returns, so that a reader can run it and see where it parts from the bytes. Each
docstring names the defect. For figures to plan with, use `vlmmem.weights_bytes`, `vlmmem.kv_cache_bytes` and
`vlmmem.forward_peak_bytes` instead.
"""

from fractions import Fraction

from vlmmem.units import Number, exact

_KIB, _MIB, _GIB = 2**10, 2**20, 2**30


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
