"""The documents' rules, each a function of its arguments and of a reading of the units.

A formula returns what the document's rule prints, as an exact rational in the printed unit. What is right instead comes
from the package's own terms (`right`). Arguments are data (`figures/`): numbers, catalogue ids, or ids of other
figures, whose printed value is then taken, so that no printed number stands twice.
"""

# ruff: noqa: ARG001 (every rule takes a reading, whether it needs one or not)

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from vlmmem import catalog, documented
from vlmmem.errors import InputError
from vlmmem.hardware import Gpu
from vlmmem.ledger.conventions import Settings
from vlmmem.memory import forward_peak_bytes, kv_bytes_per_token, kv_cache_bytes, weights_bytes
from vlmmem.model import Model
from vlmmem.units import Printed, exact, rounded, show_both

HALF = 2
"""Bytes of a 16-bit element, the only width in which the documents count a KV cache."""
BINARY_K = 1024
"""Tokens in "4k" where a right value is computed: contexts are powers of two."""
_DECIMAL = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?")


@lru_cache(maxsize=1024)
def _fraction(value: int | str) -> Fraction:
    return Fraction(value)


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of one figure, read by name; every complaint names the figure."""

    where: str
    values: Mapping[str, Any]
    printed: Callable[[str], Printed]

    def _get(self, name: str) -> Any:
        if name not in self.values:
            raise InputError(f"{self.where}: argument {name!r} is missing")
        return self.values[name]

    def has(self, name: str) -> bool:
        """Whether the figure gives this argument."""
        return name in self.values

    def _number(self, value: object, name: str) -> Fraction:
        if isinstance(value, str) and ":" in value:
            return self.printed(value).low
        if type(value) is int or (isinstance(value, str) and _DECIMAL.fullmatch(value)):
            return _fraction(value)
        raise InputError(
            f"{self.where}: argument {name!r} is {value!r}; a whole number, a decimal in quotes or a figure's id"
            " is needed"
        )

    def number(self, name: str, default: int | None = None) -> Fraction:
        """A number: an int, a decimal in quotes ("0.1"), or the id of a figure, whose printed value is taken."""
        return (
            Fraction(default)
            if default is not None and name not in self.values
            else self._number(self._get(name), name)
        )

    def numbers(self, name: str) -> tuple[Fraction, ...]:
        """A list of such numbers."""
        values = self._get(name)
        if not isinstance(values, list) or not values:
            raise InputError(f"{self.where}: argument {name!r} is {values!r}; a list of numbers is needed")
        return tuple(self._number(value, name) for value in values)

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number."""
        number = self.number(name, default)
        if number.denominator != 1:
            raise InputError(f"{self.where}: argument {name!r} is {number}; a whole number is needed")
        return int(number)

    def text(self, name: str) -> str:
        """A word."""
        value = self._get(name)
        if not isinstance(value, str):
            raise InputError(f"{self.where}: argument {name!r} is {value!r}; text is needed")
        return value

    def model(self) -> Model:
        """The catalogue model named by ``model``."""
        return catalog.find_model(self.text("model"))

    def gpu(self) -> Gpu:
        """The catalogue GPU named by ``gpu``."""
        return catalog.find_gpu(self.text("gpu"))

    def tokens(self, k: int) -> int:
        """The context: "8k" is 8 times ``k``, a count written out is itself."""
        value = self._get("context")
        if isinstance(value, str) and value.endswith("k") and re.fullmatch("[0-9]{1,9}", value[:-1]):
            return int(value[:-1]) * k
        return self.whole("context")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a formula gives: a value or a range in the printed unit, and for a claim whether it holds."""

    low: Fraction | None
    high: Fraction | None = None
    holds: bool | None = None

    @property
    def range(self) -> tuple[Fraction, Fraction] | None:
        """Both ends, or None where the formula gives no number."""
        return None if self.low is None else (self.low, self.low if self.high is None else self.high)


@dataclass(frozen=True, slots=True)
class Formula:
    """A rule by which figures are recomputed.

    Attributes:
        id: its name in the ledger.
        text: the rule in symbols.
        source: where the rule stands (``document:line``) or the address of what it was read from.
        kind: "rule" (stated in prose or by a table), "code" (the document's own program or worked step, with its own
            arguments), or "fact" (a primary source, held by the catalogue).
        compute: the rule under a reading.
        right: what to use instead, with its unit and for what; None where the rule itself is right.
    """

    id: str
    text: str
    source: str
    kind: str
    compute: Callable[[Arguments, Settings], Outcome]
    right: Callable[[Arguments], str] | None = None


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
    return Fraction(model.nominal_parameters if (settings.parameters or default) == "nominal" else _count(model.id))


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


def _share(arguments: Arguments, settings: Settings) -> Outcome:
    return Outcome(arguments.number("share") * sum(arguments.numbers("of"), Fraction(0)))


def _sum(arguments: Arguments, settings: Settings) -> Outcome:
    return Outcome(sum(arguments.numbers("terms"), Fraction(0)))


def _product(arguments: Arguments, settings: Settings) -> Outcome:
    result = Fraction(1)
    for factor in arguments.numbers("factors"):
        result *= factor
    return Outcome(result)


def _gpus_needed(arguments: Arguments, settings: Settings) -> Outcome:
    return Outcome(Fraction(-(-arguments.number("total") // arguments.gpu().vendor_gb)))


def _claim(arguments: Arguments, low: Fraction, high: Fraction) -> Outcome:
    """Whether values stand on the claimed side of a GPU's memory as sold, or of another printed figure."""
    limit = Fraction(arguments.gpu().vendor_gb) if arguments.has("gpu") else arguments.number("limit")
    claim = arguments.text("claim")
    if claim not in ("at most", "more than"):
        raise InputError(f"{arguments.where}: argument 'claim' is {claim!r}; 'at most' or 'more than' is needed")
    return Outcome(low, high, high <= limit if claim == "at most" else low > limit)


def _compare(arguments: Arguments, settings: Settings) -> Outcome:
    values = arguments.numbers("values")
    return _claim(arguments, min(values), max(values))


def _ratio(arguments: Arguments, settings: Settings) -> Outcome:
    if not arguments.number("to"):
        raise InputError(f"{arguments.where}: argument 'to' is 0; a number to divide by is needed")
    ratio = arguments.number("of") / arguments.number("to")
    claimed = arguments.number("claimed")
    return Outcome(ratio, holds=abs(ratio - claimed) <= claimed / 100)


def _field(arguments: Arguments, settings: Settings) -> Outcome:
    value = getattr(arguments.model(), arguments.text("field"), None)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{arguments.where}: {arguments.text('field')!r} is not a whole-number field of a model")
    return Outcome(Fraction(value))


def _billions(arguments: Arguments, settings: Settings) -> Outcome:
    return Outcome(_parameters(arguments, settings, "exact") / 10**9)


def _width(arguments: Arguments, settings: Settings) -> Outcome:
    return Outcome(_bytes_per_parameter(arguments))


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
    return _claim(arguments, value, value)


def _activation_code(arguments: Arguments, settings: Settings) -> Outcome:
    names = ("hidden_size", "seq_len", "batch_size", "num_layers")
    width, length, batch, layers = (arguments.whole(name) for name in names)
    return Outcome(documented.calc_activation_memory_gb(width, length, batch, layers))


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


# --- what is right instead -------------------------------------------------------------------------------------------


def _requests(batch: int) -> str:
    return f"{batch} request{'' if batch == 1 else 's'}"


def _native(model: Model, tokens: int) -> str:
    if tokens <= model.max_positions:
        return ""
    return f"; {model.name} is made for {model.max_positions:,} tokens"


def _right_weights(arguments: Arguments) -> str:
    model, form = arguments.model(), catalog.find_format(arguments.text("format"))
    size = weights_bytes(model.parameters, form)
    decimals = 1 if size >= 10**10 else 2
    return f"{show_both(size, decimals)}: {model.parameters:,} parameters of {model.name} in {form.id}"


def _right_kv_per_token(arguments: Arguments) -> str:
    model = arguments.model()
    size = kv_bytes_per_token(model) * arguments.whole("tensors", 2) // 2
    kind = {1: "keys (or values)", 2: "keys and values"}[arguments.whole("tensors", 2)]
    return f"{size:,} B ({rounded(Fraction(size, 1024), 0)} KiB): {kind} of one token of {model.name}, 16-bit"


def _right_kv_cache(arguments: Arguments) -> str:
    model, tokens, batch = arguments.model(), arguments.tokens(BINARY_K), arguments.whole("batch", 1)
    size = kv_cache_bytes(model, tokens, batch)
    return (
        f"{show_both(size)}: KV cache of {model.name}, {tokens:,} tokens × {_requests(batch)}, 16-bit"
        f"{_native(model, tokens)}"
    )


def _right_total(arguments: Arguments) -> str:
    model, tokens, batch = arguments.model(), arguments.tokens(BINARY_K), arguments.whole("batch", 1)
    size = weights_bytes(model.parameters, arguments.text("format")) + kv_cache_bytes(model, tokens, batch)
    what = f"exact weights and KV cache of {model.name}, {tokens:,} tokens × {_requests(batch)}, 16-bit"
    try:
        peak = forward_peak_bytes(model, tokens, batch)
    except InputError:
        return f"{show_both(size)}: {what}, activations not counted{_native(model, tokens)}"
    prompts = "the whole prompt" if batch == 1 else "all prompts at once"
    return (
        f"{show_both(size + peak)}: {what}, and {show_both(peak)} at the peak of one transformers forward pass over"
        f" {prompts}{_native(model, tokens)}"
    )


def _right_billions(arguments: Arguments) -> str:
    model = arguments.model()
    return f"{model.parameters:,} parameters: {model.name}"


def _right_kv_code(arguments: Arguments) -> str:
    size = exact(_kv_code_gib(arguments)) * 2**30
    tokens, requests = arguments.whole("seq_len"), _requests(arguments.whole("batch_size"))
    return f"{show_both(size, 2)}: KV cache of Llama-3.1-70B, {tokens:,} tokens × {requests}, 16-bit"


_FORMULAS = (
    Formula("weights", "W = P × b", "footprint:24", "rule", _weights, _right_weights),
    Formula("weights-example", "parameters written out × b", "footprint:36", "code", _weights, _right_weights),
    Formula("kv-per-token", "2 × L × H × b", "footprint:49", "rule", _kv_per_token, _right_kv_per_token),
    Formula("kv-cache", "KV = 2 × L × H × b × T × B", "footprint:67", "rule", _kv_cache, _right_kv_cache),
    Formula("total", "M = (1 + s) × (W + KV)", "footprint:108", "rule", _total, _right_total),
    Formula("share", "A = s × (W + KV)", "footprint:84", "code", _share),
    Formula("sum", "sum of the terms printed", "footprint:108", "code", _sum),
    Formula("product", "product of the factors printed", "footprint:36", "code", _product),
    Formula("gpus-needed", "⌈M / GPU memory⌉", "footprint:115", "code", _gpus_needed),
    Formula(
        "comparison",
        "printed values against a GPU's memory or another printed value",
        "footprint:166",
        "code",
        _compare,
    ),
    Formula("ratio", "printed value / printed value", "footprint:152", "code", _ratio),
    Formula("estimate_memory_gb", "(W + KV) × 1.2, KV in GiB", "footprint:407", "code", _estimate_code),
    Formula(
        "estimate-comparison", "estimate_memory_gb against a GPU's memory", "footprint:457", "code", _estimate_compare
    ),
    Formula("calc_activation_memory_gb", "2 × H × T × B × b × L / 1,024³", "inference:117", "code", _activation_code),
    Formula("calc_model_memory_gb", "P × b / 1,024³", "inference:46", "code", _weights_code, _right_weights),
    Formula(
        "calc_kv_cache_memory_gb",
        "2 × n_kv × d × T × B × L × b / 1,024³",
        "inference:78",
        "code",
        _kv_code,
        _right_kv_code,
    ),
    Formula("table-total", "calc_model_memory_gb + calc_kv_cache_memory_gb", "inference:98", "code", _total_code),
    Formula("model-field", "a field of the published config", "the catalogue's sources", "fact", _field),
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

FORMULAS: Mapping[str, Formula] = {formula.id: formula for formula in _FORMULAS}
"""Every formula by id."""
