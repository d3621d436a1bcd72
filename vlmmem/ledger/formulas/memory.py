"""The documents' rules for weights, KV cache and their sum, each under a reading; and what is right instead."""

# ruff: noqa: ARG001 (every rule takes a reading, whether it needs one or not)

from fractions import Fraction
from functools import lru_cache

from vlmmem import catalog
from vlmmem.errors import InputError
from vlmmem.ledger.conventions import Settings
from vlmmem.ledger.formulas.formula import Arguments, Formula, Outcome, Right
from vlmmem.memory import forward_peak_bytes, kv_bytes_per_token, kv_cache_bytes, weights_bytes
from vlmmem.model import Model
from vlmmem.units import rounded, show_both

HALF = 2
"""Bytes of a 16-bit element, the only width in which the documents count a KV cache."""
BINARY_K = 1024
"""Tokens in "4k" where a right value is computed: contexts are powers of two."""


def _round_to(value: Fraction, step: Fraction) -> Fraction:
    half_up = value / step + Fraction(1, 2)
    return half_up.numerator // half_up.denominator * step


@lru_cache(maxsize=1024)
def _count(name: str) -> int:
    return catalog.find_model(name).parameters


def _parameters(arguments: Arguments, settings: Settings, default: str) -> Fraction:
    if arguments.has("parameters"):
        return arguments.number("parameters")
    model = arguments.model()
    nominal = (settings.parameters or default) == "nominal" and model.nominal_parameters
    return Fraction(nominal or _count(model.id))


def _bytes_per_parameter(arguments: Arguments) -> Fraction:
    return catalog.find_format(arguments.text("format")).bytes_per_weight


def _weights(arguments: Arguments, settings: Settings) -> Outcome:
    size = _parameters(arguments, settings, "nominal") * _bytes_per_parameter(arguments)
    return Outcome(size / settings.weights_gb)


def _token_bytes(model: Model, heads: str, tensors: int = 2) -> int:
    return tensors * model.layers * (model.heads if heads == "all" else model.kv_heads) * model.head_dim * HALF


def _kv_per_token(arguments: Arguments, settings: Settings) -> Outcome:
    tensors = arguments.whole("tensors", 2)
    if tensors not in (1, 2):
        raise InputError(f"{arguments.where}: argument 'tensors' is {tensors}; 1 (keys or values) or 2 is needed")
    size = _token_bytes(arguments.model(), settings.heads, tensors)
    return Outcome(Fraction(size, settings.kb))


@lru_cache(maxsize=4096)
def _request_gb(token_bytes: int, tokens: int, settings: Settings) -> Fraction:
    token = Fraction(token_bytes)
    if settings.token_step is not None:
        token = _round_to(token, Fraction(settings.token_step))
    request = token * tokens / settings.kv_gb
    if settings.request_decimals is not None:
        request = _round_to(request, Fraction(1, 10**settings.request_decimals))
    return request


def _kv_cache_gb(arguments: Arguments, settings: Settings) -> Fraction:
    token_bytes = _token_bytes(arguments.model(), settings.heads)
    return _request_gb(token_bytes, arguments.tokens(settings.k), settings) * arguments.whole("batch", 1)


def _kv_cache(arguments: Arguments, settings: Settings) -> Outcome:
    return Outcome(_kv_cache_gb(arguments, settings))


def _total(arguments: Arguments, settings: Settings) -> Outcome:
    weights = _parameters(arguments, settings, "nominal") * _bytes_per_parameter(arguments) / settings.weights_gb
    return Outcome((weights + _kv_cache_gb(arguments, settings)) * (1 + arguments.number("share")))


def _billions(arguments: Arguments, settings: Settings) -> Outcome:
    return Outcome(_parameters(arguments, settings, "exact") / 10**9)


def _width(arguments: Arguments, settings: Settings) -> Outcome:
    return Outcome(_bytes_per_parameter(arguments))


def requests(batch: int) -> str:
    """Requests in words."""
    return f"{batch} request{'' if batch == 1 else 's'}"


def _native(model: Model, tokens: int) -> str:
    if tokens <= model.max_positions:
        return ""
    return f"; {model.name} is made for {model.max_positions:,} tokens"


def right_weights(arguments: Arguments) -> Right:
    """The exact weights of the catalogue's model in both bases."""
    model, form = arguments.model(), catalog.find_format(arguments.text("format"))
    size = weights_bytes(model.parameters, form)
    decimals = 1 if size >= 10**10 else 2
    return Right(f"{show_both(size, decimals)}: {model.parameters:,} parameters of {model.name} in {form.id}", size)


def _right_kv_per_token(arguments: Arguments) -> Right:
    model = arguments.model()
    size = kv_bytes_per_token(model) * arguments.whole("tensors", 2) // 2
    kind = {1: "keys (or values)", 2: "keys and values"}[arguments.whole("tensors", 2)]
    shown = f"{size:,} B ({rounded(Fraction(size, 1024), 0)} KiB)"
    return Right(f"{shown}: {kind} of one token of {model.name}, 16-bit", size)


def _right_kv_cache(arguments: Arguments) -> Right:
    model, tokens, batch = arguments.model(), arguments.tokens(BINARY_K), arguments.whole("batch", 1)
    size = kv_cache_bytes(model, tokens, batch)
    what = f"KV cache of {model.name}, {tokens:,} tokens × {requests(batch)}, 16-bit{_native(model, tokens)}"
    return Right(f"{show_both(size)}: {what}", size)


def _right_total(arguments: Arguments) -> Right:
    model, tokens, batch = arguments.model(), arguments.tokens(BINARY_K), arguments.whole("batch", 1)
    size = weights_bytes(model.parameters, arguments.text("format")) + kv_cache_bytes(model, tokens, batch)
    what = f"exact weights and KV cache of {model.name}, {tokens:,} tokens × {requests(batch)}, 16-bit"
    try:
        peak = forward_peak_bytes(model, tokens, batch)
    except InputError:
        told = f"{show_both(size)}: {what}, activations not counted{_native(model, tokens)}"
        return Right(told, size, partial=True)
    prompts = "the whole prompt" if batch == 1 else "all prompts at once"
    if model.kv_heads < model.heads:
        why = f"The rule caches all {model.heads} heads; {model.name} keeps {model.kv_heads} KV heads."
    else:
        share = arguments.number("share")
        why = (
            f"The rule puts {rounded(share * 100, 0)} % on top, {show_both(share * size)}; a forward pass over"
            f" {prompts} takes {show_both(peak)}."
        )
    return Right(
        f"{show_both(size + peak)}: {what}, and {show_both(peak)} at the peak of one transformers forward pass over"
        f" {prompts}{_native(model, tokens)}",
        size + peak,
        why=why,
    )


def _right_billions(arguments: Arguments) -> Right:
    model = arguments.model()
    return Right(f"{model.parameters:,} parameters: {model.name}")


FORMULAS = (
    Formula("weights", "W = P × b", "footprint:24", "rule", _weights, right_weights),
    Formula("weights-example", "parameters written out × b", "footprint:36", "code", _weights, right_weights),
    Formula("kv-per-token", "2 × L × H × b", "footprint:49", "rule", _kv_per_token, _right_kv_per_token),
    Formula("kv-cache", "KV = 2 × L × H × b × T × B", "footprint:67", "rule", _kv_cache, _right_kv_cache),
    Formula("total", "M = (1 + s) × (W + KV)", "footprint:108", "rule", _total, _right_total),
    Formula(
        "parameter-count",
        "P, counted from the shapes, in billions",
        "the catalogue's sources",
        "fact",
        _billions,
        _right_billions,
    ),
    Formula("bytes-per-parameter", "bits of the number format / 8", "the catalogue's sources", "fact", _width),
)
