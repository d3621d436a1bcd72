"""The documents' own functions (`vlmmem.documented`), called with the documents' own arguments."""

# ruff: noqa: ARG001 (every rule takes a reading, whether it needs one or not)

from fractions import Fraction

from vlmmem import documented
from vlmmem.ledger.conventions import Settings
from vlmmem.ledger.formulas.arithmetic import claim
from vlmmem.ledger.formulas.formula import Arguments, Formula, Outcome, Right
from vlmmem.ledger.formulas.memory import requests, right_weights
from vlmmem.units import exact, show_both


def _estimate_code(arguments: Arguments, settings: Settings) -> Outcome:
    billions = arguments.number("num_params_billions")
    return Outcome(
        documented.estimate_memory_gb(
            billions,
            arguments.whole("quantization_bits", 16),
            arguments.whole("sequence_length", 2048),
            arguments.whole("batch_size", 1),
            arguments.whole("num_layers", 32),
            arguments.whole("hidden_size", 4096),
            arguments.number("overhead_factor") if arguments.has("overhead_factor") else Fraction("1.2"),
        )
    )


def _estimate_compare(arguments: Arguments, settings: Settings) -> Outcome:
    value = _estimate_code(arguments, settings).low
    assert value is not None
    return claim(arguments, value, value)


def _weights_code(arguments: Arguments, settings: Settings) -> Outcome:
    return Outcome(documented.calc_model_memory_gb(arguments.number("num_params"), arguments.number("dtype_bytes", 2)))


def _kv_code_gib(arguments: Arguments) -> Fraction:
    names = ("num_layers", "num_heads", "head_dim", "seq_len", "batch_size", "dtype_bytes")
    layers, heads, width, length, batch, element = (arguments.whole(name) for name in names)
    return documented.calc_kv_cache_memory_gb(layers, heads, width, length, batch, element)


def _kv_code(arguments: Arguments, settings: Settings) -> Outcome:
    return Outcome(_kv_code_gib(arguments))


def _total_code(arguments: Arguments, settings: Settings) -> Outcome:
    weights = documented.calc_model_memory_gb(arguments.number("num_params"), arguments.number("weight_bytes", 2))
    return Outcome(weights + _kv_code_gib(arguments))


def _total_memory_ratio(arguments: Arguments, settings: Settings) -> Outcome:
    billions, cache = arguments.number("num_params_billions"), arguments.number("kv_cache_gb")
    of, to = (documented.total_memory_gb(billions, arguments.text(name), cache) for name in ("of", "to"))
    ratio, claimed = of / to, arguments.number("claimed")
    return Outcome(ratio, holds=abs(ratio - claimed) <= claimed / 100)


def _right_kv_code(arguments: Arguments) -> Right:
    size = exact(_kv_code_gib(arguments)) * 2**30
    tokens, batch = arguments.whole("seq_len"), arguments.whole("batch_size")
    what = f"KV cache of Llama-3.1-70B, {tokens:,} tokens × {requests(batch)}, 16-bit"
    return Right(f"{show_both(size, 2)}: {what}", size)


FORMULAS = (
    Formula("estimate_memory_gb", "(W + KV) × 1.2, KV in GiB", "footprint:407", "code", _estimate_code),
    Formula(
        "estimate-comparison", "estimate_memory_gb against a GPU's memory", "footprint:457", "code", _estimate_compare
    ),
    Formula("calc_model_memory_gb", "P × b / 1,024³", "inference:46", "code", _weights_code, right_weights),
    Formula(
        "calc_kv_cache_memory_gb",
        "2 × n_kv × d × T × B × L × b / 1,024³",
        "inference:78",
        "code",
        _kv_code,
        _right_kv_code,
    ),
    Formula(
        "total-memory-ratio",
        "total at one precision / total at another, as a claim",
        "estimation:31",
        "code",
        _total_memory_ratio,
    ),
    Formula("table-total", "calc_model_memory_gb + calc_kv_cache_memory_gb", "inference:98", "code", _total_code),
)
