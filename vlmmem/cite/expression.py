"""The small language of ``{calc}`` roles: arithmetic over the package's public functions, nothing else.

An expression is parsed, never executed as Python: names are those of the package's face, literals are numbers
and text, arithmetic takes numbers only, and attributes are public data of the package's own objects. What a
stranger's document carries can at most compute a number.
"""

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

import vlmmem
from vlmmem.errors import InputError
from vlmmem.units import exact

_OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda left, right: Fraction(left) / Fraction(right),
}
_LONGEST = 500
_SIMULATIONS = ("draw_requests", "kv_occupancy")
"""Names of the face that are left out: they take as long as their arguments say, and a stranger writes those."""


def _number(value: object, node: ast.expr, source: str) -> int | Fraction:
    """A number, exactly. Text is refused: multiplied, a short one would fill the memory."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float | Fraction):
        return exact(value)
    raise InputError(f"{source!r}: {ast.unparse(node)!r} is {_kind(value)}; arithmetic takes numbers")


def _kind(value: object) -> str:
    return "True or False" if isinstance(value, bool) else f"a {type(value).__name__}"


def _field(owner: object, name: str, source: str) -> Any:
    """A public field of one of the package's objects, never a method and nothing of Python's own types."""
    if not type(owner).__module__.startswith("vlmmem.") or isinstance(owner, type):
        raise InputError(f"{source!r}: {_kind(owner)} has no field {name!r} that may be read here")
    value = getattr(owner, name, None)
    if value is None or callable(value):
        raise InputError(f"{source!r}: {_kind(owner)} has no value {name!r}")
    return value


def _value(node: ast.expr, source: str) -> Any:
    match node:
        case ast.Constant(value=bool() | None | int() | str()):
            return node.value
        case ast.Constant(value=float() as value):
            return exact(value)
        case ast.Attribute(value=inner, attr=name) if not name.startswith("_"):
            return _field(_value(inner, source), name, source)
        case ast.Subscript(value=inner, slice=key):
            owner = _value(inner, source)
            if not isinstance(owner, Mapping | list | tuple):
                raise InputError(f"{source!r}: {ast.unparse(inner)!r} is {_kind(owner)}; a table or a list is needed")
            return owner[_value(key, source)]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            numbers = (_number(_value(side, source), side, source) for side in (left, right))
            return _OPERATORS[type(op)](*numbers)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_number(_value(inner, source), inner, source)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords) if (
            name in vlmmem.__all__ and name not in _SIMULATIONS
        ):
            given = {word.arg: _value(word.value, source) for word in keywords if word.arg}
            if len(given) != len(keywords):
                raise InputError(f"{source!r}: '**' is not allowed")
            return getattr(vlmmem, name)(*(_value(item, source) for item in arguments), **given)
    raise InputError(f"{source!r}: {ast.unparse(node)!r} is not allowed; numbers, + - * / and vlmmem's functions are")


@lru_cache(maxsize=4096)
def evaluate(source: str) -> Any:
    """The value of an expression.

    >>> evaluate('kv_bytes_per_token(find_model("llama-2-13b")) * 8192 * 10')
    67108864000

    Raises InputError for anything outside the language, and for whatever the functions complain of.
    """
    if len(source) > _LONGEST:
        raise InputError(f"{source[:40]!r}...: longer than {_LONGEST} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tree = ast.parse(source, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError, Warning):
        raise InputError(f"{source!r}: not an expression") from None
    try:
        return _value(tree.body, source)
    except InputError:
        raise
    except Exception as error:  # whatever a function makes of a stranger's arguments
        raise InputError(f"{source!r}: {type(error).__name__}: {' '.join(str(error).split())}") from None
