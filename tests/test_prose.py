"""Roles in prose: found where a reader sees them, compared with their origin, rewritten and nothing else touched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmmem.cite.prose import FIELDS, Role, check_text, figure_of, find_roles, fix_text, plain, value_of
from vlmmem.ledger import load

STALE = "{fig}`1.0 GB <footprint:13b-total>`"
RIGHT = "{fig}`101.2 GB <footprint:13b-total>`"
TOLD = "reads '1.0 GB', footprint:13b-total gives '101.2 GB'; 'make fix' rewrites it"


def _role(kind: str, readable: str, target: str) -> Role:
    return Role(1, kind, readable, target, (0, 0))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Weights and cache take STALE together.", 1),
        ("# A heading with STALE\n", 1),
        ("| a | b |\n|---|---|\n| x | STALE |\n", 3),
        ("> quoted\n> STALE\n", 2),
        ("- one\n- two: **STALE**\n", 2),
        ("```{note}\nSTALE\n```\n", 2),
        ("```{note}\nx\n```\nSTALE\n", 4),
        ("```{note}\nx\n```\n\n```{tip}\nx\n```\n\nSTALE\n", 9),
        ("````{tab}\n```{note}\nx\n```\nSTALE\n````\n", 5),
        (":::{admonition} Title STALE\nx\n:::\n", 1),
        (":::{admonition} Title\nx\n:::\nSTALE\n", 4),
        ("```python\nx = 1\n```\nSTALE\n", 4),
        ("~~~python\n```\n~~~\nSTALE\n", 4),
        ("```{code-cell} ipython3\nx\n```\n\nSTALE\n", 5),
        ("- ```python\n  x\n  ```\n- STALE\n", 4),
        ("[link](x.md) `code` STALE `code`", 1),
        ("a stray ` backtick\n\nSTALE\n", 3),
        ("an escaped \\` backtick, STALE", 1),
        ("+++\n\nSTALE\n", 3),
        ("---\ntitle: x\n---\nSTALE", 4),
        ("x\r\n\r\nSTALE\r\n", 3),
    ],
)
def test_a_stale_role_is_told_with_its_line_and_fixed(text: str, line: int) -> None:
    stale, right = text.replace("STALE", STALE), text.replace("STALE", RIGHT)
    assert check_text(stale, "page.md") == [f"page.md:{line}: {TOLD}"]
    assert fix_text(stale) == right
    assert check_text(right, "page.md") == []
    assert fix_text(right) == right


@pytest.mark.parametrize(
    "text",
    [
        "```\nSTALE\n```\n",
        "```python\nSTALE\n```\n",
        "~~~\nSTALE\n~~~\n",
        "```{code-cell} ipython3\nSTALE\n```\n",
        "```{code-block} md\nSTALE\n```\n",
        "```{math}\nSTALE\n```\n",
        ":::{code-block} md\nSTALE\n:::\n",
        "````md\n```{note}\nSTALE\n```\n````\n",
        "> ```\n> STALE\n> ```\n",
        "1. ```md\n   STALE\n   ```\n",
        "`` STALE ``",
        "``` STALE ```",
        "The roles `{fig}` and `{calc}` carry a value.",
        "```python\nSTALE",
    ],
)
def test_code_is_left_alone(text: str) -> None:
    text = text.replace("STALE", STALE)
    assert find_roles(text) == []
    assert check_text(text, "page.md") == []
    assert fix_text(text) == text


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("x {fig}`101.2 GB`", "{fig}`101.2 GB`"),
        ("x {fig}`<footprint:13b-total", "{fig}`<footprint:13b-total"),
        ("x {fig}`101.2 GB <footprint:13b-total>", "{fig}`101.2 GB <footprint:13b-total>"),
        ("x {fig}`101.2 GB <footprint:13b-total>\n\ny`", "{fig}`101.2 GB <footprint:13b-total>\n\ny`"),
        ("x {fig} `101.2 GB <footprint:13b-total>`", "{fig}"),
        ("x {calc}", "{calc}"),
        ("x {calc}\\`1 <1>\\`", "{calc}"),
        ("x {calc}`1 <2> 3`", "{calc}`1 <2> 3`"),
        ("x {calc}`1 < 2 <2>`", "{calc}`1 < 2 <2>`"),
    ],
)
def test_a_broken_role_is_told_with_its_line(text: str, broken: str) -> None:
    assert check_text(f"one\n\n{text}", "page.md") == [
        f"page.md:3: {broken!r} is not a whole role; {{fig}}`VALUE <ID>` is"
    ]
    assert fix_text(text) == text


def test_problems_come_in_the_order_of_the_page() -> None:
    text = f"{STALE}\n\n{{fig}}`x`\n\n{STALE}\n\n{{calc}}`1 <2>`\n"
    assert [line.split(":")[1] for line in check_text(text, "p")] == ["1", "3", "5", "7"]


@pytest.mark.parametrize(
    ("readable", "expression", "right"),
    [
        ("1 GB", "67108864000", "67 GB"),
        ("1.0 GB", "67108864000", "67.1 GB"),
        ("1.00 GiB", "67108864000", "62.50 GiB"),
        ("~1.0 GB", "67108864000", "~67.1 GB"),
        ("≈ 1 GB", "67108864000", "≈ 67 GB"),
        ("1\u00a0GB", "67108864000", "67\u00a0GB"),
        ("1 %", "1 / 10", "10 %"),
        ("1%", "1 / 10", "10%"),
        ("1.0×", "21 / 10", "2.1×"),
        ("1", "8192 * 10", "81,920"),
        ("1 heads", 'find_model("llama-2-13b").heads', "40 heads"),
        ("1 GB of cache", "67108864000", "67 GB of cache"),
        ("1 GB, alone", "67108864000", "67 GB, alone"),
        ("1 KiB/token", "819200", "800 KiB/token"),
        ("1.00 TB/s", "2039000000000", "2.04 TB/s"),
        ("1 FLOP/byte", "153", "153 FLOP/byte"),
        ("-1", "-5", "-5"),
        ("1,000 B", "819200", "819,200 B"),
        ("1\nGB", "67108864000", "67\nGB"),
    ],
)
def test_the_readable_text_fixes_unit_and_decimals(readable: str, expression: str, right: str) -> None:
    assert value_of(_role("calc", readable, expression)) == right
    assert value_of(_role("calc", right, expression)) == right


@pytest.mark.parametrize(
    ("target", "readable", "right"),
    [
        ("footprint:13b-total", "x", "101.2 GB"),
        ("footprint:13b-total.documented", "", "101.2 GB"),
        ("inference:70b-kv.computed", "1.00 GB", "1.25 GB"),
        ("inference:70b-kv.computed", "1.0", "1.3 GB"),
        ("footprint:13b-total-gpus.computed", "1×", "3×"),
        ("footprint:13b-total-gpus.computed", "1 ×", "3 ×"),
        ("inference:table-llama-3.1-8b-fp16.computed", "0 GB", "15 GB"),
        ("inference:table-llama-3.1-8b-fp16", "", "16 GB"),
    ],
)
def test_a_fields_value(target: str, readable: str, right: str) -> None:
    assert value_of(_role("fig", readable, target)) == right


def test_what_a_source_says_can_be_quoted() -> None:
    item = next(item for item in load().figures if any(isinstance(each.says, str) for each in item.evidence))
    says = next(each.says for each in item.evidence if isinstance(each.says, str))
    assert value_of(_role("fig", "x", f"{item.id}.says")) == says


@pytest.mark.parametrize(
    ("role", "line"),
    [
        ("{fig}`1 <footprint:nowhere-at-all>`", None),
        ("{fig}`1 <>`", None),
        ("{fig}`x <inference:70b-kv.computed>`", "'x' <inference:70b-kv.computed>: begins with no number"),
        (
            "{fig}`1 <footprint:overhead-share.computed>`",
            "footprint:overhead-share.computed: has no single computed value",
        ),
        ("{fig}`1 <footprint:13b-total.says>`", "footprint:13b-total.says: nothing is given there"),
        ("{calc}`much <1>`", "'much' <1>: begins with no number; write the value as it should read"),
        ("{calc}`1 <models()>`", None),
        ('{calc}`1 <"x">`', "'1' <\"x\">: gives 'x', which is not a number"),
        ("{calc}`1 <True>`", "'1' <True>: gives True, which is not a number"),
        ("{calc}`1 KB <819200>`", None),
        ("{calc}`1 Gb <819200>`", None),
        ("{calc}`1 TFLOPS <819200>`", None),
        ("{calc}`1 <1 / 0>`", "'1 / 0': ZeroDivisionError: Fraction(1, 0)"),
        ("{calc}`1 <>`", "'': not an expression"),
        ("{calc}`1." + "0" * 400 + " <1 / 3>`", "decimals: 400 was given; a whole number from 0 to 300 is needed"),
        ("{calc}`1 <" + "9" * 400 + ">`", "a number of more than 300 digits cannot be shown"),
    ],
)
def test_a_role_without_a_value_is_told_and_left(role: str, line: str | None) -> None:
    (told,) = check_text(role, "page.md")
    assert told.startswith("page.md:1: ")
    assert "\n" not in told
    if line is not None:
        assert told == f"page.md:1: {line}"
    assert fix_text(role) == role


def test_fixing_touches_readable_values_only() -> None:
    text = "``{fig}`a` `` and {fig}``1 GB   <footprint:13b-total>`` in\ttext  \n\n" + STALE + "\u2028x"
    assert fix_text(text) == text.replace("``1 GB ", "``101.2 GB ").replace(STALE, RIGHT)


def test_a_role_knows_its_figure_and_place() -> None:
    text = f"one\n{STALE} and {{fig}}`2 GB <inference:70b-kv.computed>`"
    first, second = find_roles(text)
    assert (first.line, first.kind, first.readable, first.target) == (2, "fig", "1.0 GB", "footprint:13b-total")
    assert text[slice(*first.span)] == STALE
    assert (figure_of(first), figure_of(second)) == ("footprint:13b-total", "inference:70b-kv")


def test_plain_text_is_what_a_reader_sees() -> None:
    assert plain(f"a {STALE} b {{calc}}`2 GB <1>`.") == "a 1.0 GB b 2 GB."
    assert plain("no role") == "no role"


def test_every_figures_printed_text_can_stand_in_a_role() -> None:
    for item in load().figures:
        for name in ("documented", "correct"):
            if name == "correct" and item.correct is None:
                continue
            text = f"{{fig}}`x <{item.id}.{name}>`"
            fixed = fix_text(text)
            assert fixed != text, item.id
            assert check_text(fixed, "page.md") == []


def test_no_slug_ends_in_a_fields_name() -> None:
    assert not [item.id for item in load().figures if item.id.rpartition(".")[2] in FIELDS]


_PIECES = st.lists(
    st.sampled_from(
        [
            STALE,
            RIGHT,
            "{calc}`1.0 GB <67108864000>`",
            "{fig}",
            "{calc}`",
            "`",
            "``",
            "```\n",
            "```{note}\n",
            "~~~\n",
            ":::{tip}\n",
            "\n",
            "\n\n",
            "\n```\n",
            "\n:::\n",
            "> ",
            "- ",
            " <",
            ">` ",
            "\\",
            "text ",
            "26 GB",
            "| ",
        ]
    ),
    max_size=14,
).map("".join)


@given(_PIECES)
def test_fixing_is_done_once_and_leaves_nothing_stale(text: str) -> None:
    fixed = fix_text(text)
    assert fix_text(fixed) == fixed
    assert not [line for line in check_text(fixed, "p") if "'make fix' rewrites it" in line]
    # what is no readable value stays, to the letter
    before, after = find_roles(text), find_roles(fixed)
    assert [(role.kind, role.target) for role in before] == [(role.kind, role.target) for role in after]
    assert _without(text, before) == _without(fixed, after)


def _without(text: str, roles: list[Role]) -> str:
    for role in reversed(roles):
        start, end = role.span
        text = text[:start] + text[start:end].replace(role.readable, "", 1) + text[end:]
    return text


@given(st.text(alphabet="{}figcal`<>~: \n\\1GB", max_size=60))
def test_any_text_is_read(text: str) -> None:
    for line in check_text(text, "p"):
        assert "\n" not in line
    assert fix_text(fix_text(text)) == fix_text(text)
