"""The small language of ``{calc}`` roles: arithmetic over the package's public functions, nothing else.

An expression is parsed, never executed as Python: names are those of the package's face, literals are numbers and
text, and attributes are public ones. What a stranger's document carries can at most compute a number.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

import vlmmem
from vlmmem.errors import InputError

_OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda left, right: Fraction(left) / Fraction(right),
    ast.USub: operator.neg,
}
_LONGEST = 500


def _value(node: ast.expr, source: str) -> Any:
    match node:
        case ast.Constant(value=bool() | None):
            return node.value
        case ast.Constant(value=int() | str()):
            return node.value
        case ast.Constant(value=float()):
            return Fraction(repr(node.value))
        case ast.Name(id=name) if name in vlmmem.__all__:
            return getattr(vlmmem, name)
        case ast.Attribute(value=inner, attr=name) if not name.startswith("_"):
            return getattr(_value(inner, source), name)
        case ast.Subscript(value=inner, slice=key):
            return _value(inner, source)[_value(key, source)]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left, source), _value(right, source))
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner, source)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords) if name in vlmmem.__all__:
            given = {word.arg: _value(word.value, source) for word in keywords if word.arg}
            if len(given) != len(keywords):
                raise InputError(f"{source!r}: '**' is not allowed")
            return getattr(vlmmem, name)(*(_value(item, source) for item in arguments), **given)
    raise InputError(
        f"{source!r}: {ast.unparse(node)!r} is not allowed; numbers, + - * /, and names of vlmmem's face are"
    )


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
        tree = ast.parse(source, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(f"{source!r}: not an expression") from None
    try:
        return _value(tree.body, source)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{source!r}: {type(error).__name__}: {error}") from None
