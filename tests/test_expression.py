"""The language of {calc} roles: it computes numbers from the face and nothing else, and never runs what it reads."""

import builtins
import subprocess
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vlmmem
from vlmmem.cite.expression import evaluate
from vlmmem.errors import InputError


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("1", 1),
        ("1_000 + 2", 1002),
        ("-3", -3),
        ("--3", 3),
        ("0.1 + 0.2", Fraction(3, 10)),
        ("1 / 3 * 3", 1),
        ("2 - 3 * (4 + 1)", -13),
        ("1e3", 1000),
        ('find_model("llama-2-13b").layers', 40),
        ('find_model("llama-2-13b").parameters', 13_015_864_320),
        ('find_model("llava-1.5-13b").parameters_by_part["vision"]', 303_507_456),
        ('find_model("llava-1.5-7b").vision.layers', 24),
        ('kv_cache_bytes("llama-2-13b", context=8192, batch=10)', 67_108_864_000),
        ('kv_cache_bytes("llama-2-13b", 8192, 10) / 2 / 10', Fraction(3_355_443_200)),
        ('weights_bytes(3, "int4")', 2),
        ('find_gpu("a100-80gb").memory_bytes', 80 * 2**30),
        ('find_format("gptq-4bit").bits', Fraction(133, 32)),
        ('figure("footprint:13b-total").printed.low', Fraction(1012, 10)),
        ('figure("footprint:13b-8k-x10").computed', 99),
        # a float stands for its digits: 56.76 is no binary fraction
        ('figure("footprint:13b-32k-x1").computed * 1', Fraction(5676, 100)),
        ("documented_models()[0].heads", 32),
        ("in_unit(2**1, 'B')".replace("2**1", "2"), 2),
    ],
)
def test_values(source: str, value: object) -> None:
    assert evaluate(source) == value


@pytest.mark.parametrize(
    "source",
    [
        "2 ** 3",
        "2 // 3",
        "7 % 3",
        "1 << 2",
        "1 | 2",
        "1 @ 2",
        "+1",
        "~1",
        "not 1",
        "1 and 2",
        "1 < 2",
        "1 if 1 else 2",
        "(1, 2)",
        "[1, 2]",
        "{1: 2}",
        "[x for x in models()]",
        "sum(x for x in models())",
        "(x := 1)",
        "lambda: 1",
        "(lambda: 1)()",
        "f'{1}'",
        "...",
        "1j",
        "b'x'",
        "await x",
        "*models()",
        "print(1)",
        "open('x')",
        "eval('1')",
        "exec('1')",
        "__import__('os')",
        "__name__",
        "os.system('x')",
        "vlmmem.models()",
        "models",
        "find_model",
        "Model",
        "models()[0].__class__",
        "models()[0]._private",
        "find_model('llama-2-13b').__class__.__mro__",
        "models.__wrapped__()",
        "models()[0].family.__class__",
        "find_model('llama-2-13b').family()",
        "models()[0:1]",
    ],
)
def test_anything_else_is_refused(source: str) -> None:
    with pytest.raises(InputError) as caught:
        evaluate(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("2 ** 3", "'2 ** 3': '2 ** 3' is not allowed; numbers, + - * / and vlmmem's functions are"),
        ("print(1)", "'print(1)': 'print(1)' is not allowed; numbers, + - * / and vlmmem's functions are"),
        ("models", "'models': 'models' is not allowed; numbers, + - * / and vlmmem's functions are"),
        ("1 +", "'1 +': not an expression"),
        ("", "'': not an expression"),
        ("x = 1", "'x = 1': not an expression"),
        ("1\n2", "'1\\n2': not an expression"),
        ("'\\d'", "\"'\\\\d'\": not an expression"),
        ("1if 1else 2", "'1if 1else 2': not an expression"),
        ('"a" * 1000000000', "'\"a\" * 1000000000': \"'a'\" is a str; arithmetic takes numbers"),
        ("True + 1", "'True + 1': 'True' is True or False; arithmetic takes numbers"),
        ("1 + models()", "'1 + models()': 'models()' is a tuple; arithmetic takes numbers"),
        ("-None", "'-None': 'None' is a NoneType; arithmetic takes numbers"),
        ("1 / 0", "'1 / 0': ZeroDivisionError: Fraction(1, 0)"),
        ("1e999", "inf: not a number that can be shown; a finite number is needed"),
        (
            'find_model("llama-2-13b").colour',
            "'find_model(\"llama-2-13b\").colour': a Model has no value 'colour'",
        ),
        ('"x".format', "'\"x\".format': a str has no field 'format' that may be read here"),
        ("models().count", "'models().count': a tuple has no field 'count' that may be read here"),
        (
            'figure("footprint:13b-total").json',
            "'figure(\"footprint:13b-total\").json': a Figure has no value 'json'",
        ),
        ('"abc"[0]', "'\"abc\"[0]': \"'abc'\" is a str; a table or a list is needed"),
        (
            'find_model("llama-2-13b").parameters_by_part["wings"]',
            "'find_model(\"llama-2-13b\").parameters_by_part[\"wings\"]': KeyError: 'wings'",
        ),
        ("models()[999]", "'models()[999]': IndexError: tuple index out of range"),
        ("figures(**1)", "'figures(**1)': '**' is not allowed"),
        ('find_gpu("a41")', None),
        (
            "weights_bytes()",
            "'weights_bytes()': TypeError: weights_bytes() missing 1 required positional argument: 'parameters'",
        ),
        ("weights_bytes(0.5)", "weights: 'parameters' is Fraction(1, 2); an integer of 0 or more is needed"),
        ('in_unit("1e999999999", "GB")', "'1e999999999': not a number; an int, a float or a Fraction is needed"),
        ("rounded(1, 1000000000)", "decimals: 1000000000 was given; a whole number from 0 to 300 is needed"),
        ("1" * 501, f"{'1' * 40!r}...: longer than 500 characters"),
        ("1" * 10**6, f"{'1' * 40!r}...: longer than 500 characters"),
    ],
)
def test_every_complaint_says_what_would_be_right(source: str, line: str | None) -> None:
    with pytest.raises(InputError) as caught:
        evaluate(source)
    if line is not None:
        assert str(caught.value) == line


@pytest.mark.parametrize(
    "source",
    ["(" * 249 + "1" + ")" * 249, "-" * 499 + "1", "[" * 499, "1" + "+1" * 249, "models()" + "[0]" * 160, "9" * 500],
)
def test_depth_is_no_way_out(source: str) -> None:
    try:
        assert evaluate(source)
    except InputError as error:
        told = str(error)
    else:
        told = ""
    assert "\n" not in told


def test_nothing_is_ever_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> Any:
        raise AssertionError("run")

    for owner, name in ((builtins, "eval"), (builtins, "exec"), (builtins, "open"), (subprocess, "Popen")):
        monkeypatch.setattr(owner, name, never)
    evaluate.cache_clear()
    assert evaluate("weights_bytes(8)") == 16
    for source in ("eval('1')", "open('/etc/passwd')", "__import__('os').system('true')", "subprocess.Popen('true')"):
        with pytest.raises(InputError):
            evaluate(source)


_ATOMS = st.sampled_from(
    [*vlmmem.__all__, "1", "0", "0.5", "10**9", "'llama-2-13b'", "None", "True", "__import__", "x", "context", "'a'"]
)
_EXPRESSIONS = st.recursive(
    _ATOMS,
    lambda inner: (
        st.tuples(
            inner, st.sampled_from(["+", "-", "*", "/", "**", "//", "%", "@", ",", ":", ".", "=", "and"]), inner
        ).map(" ".join)
        | inner.map(lambda text: f"({text})")
        | inner.map(lambda text: f"-{text}")
        | st.tuples(inner, st.lists(inner, max_size=3)).map(lambda pair: f"{pair[0]}({', '.join(pair[1])})")
        | st.tuples(inner, st.sampled_from(["parameters", "layers", "vision", "__class__", "json", "x"])).map(".".join)
        | st.tuples(inner, inner).map(lambda pair: f"{pair[0]}[{pair[1]}]")
    ),
    max_leaves=8,
)


def _refused(source: str) -> str:
    try:
        evaluate(source)
    except InputError as error:
        return str(error)
    return ""


@given(_EXPRESSIONS)
def test_any_expression_has_a_value_or_one_line(source: str) -> None:
    assert "\n" not in _refused(source)


@given(st.text(max_size=80))
def test_any_text_has_a_value_or_one_line(source: str) -> None:
    assert "\n" not in _refused(source)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ('draw_requests("ShareGPT", 1000000000000, 1)', "is not allowed"),
        ("exponential_factor(1000000000000)", "slots: 1000000000000 was given; at most 10,000 are summed exactly"),
        ("best_checkpoint_interval(1000000000000, 1, 1)", "layers: 1000000000000 was given; at most 10,000 are tried"),
    ],
)
def test_what_would_take_as_long_as_a_stranger_says_is_refused(source: str, line: str) -> None:
    with pytest.raises(InputError, match=line):
        evaluate(source)


def test_slots_that_no_request_uses_cost_nothing() -> None:
    assert evaluate("continuous_batching(1000000000000, 12, 4).steps") == 12
