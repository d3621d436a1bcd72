"""Gate f: no quantity is typed. What is scanned, every way in that was thought of, and what is free."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmmem.cite import book
from vlmmem.cite.typed import (
    exempt,
    find_typed,
    find_typed_code,
    find_typed_file,
    find_typed_notebook,
    typed_quantities,
)

from .conftest import ROOT

PLAIN = [*book.PAGES, "notebooks/*.ipynb", "_toc.yml", "_config.yml", "CITATION.cff"]
SPEAKS = ["vlmmem/notebook.py", "vlmmem/charts.py", "vlmmem/sphinx/*.py"]
"""Code whose texts reach the page; docstrings are free, an example in one is run."""


def _files(patterns: list[str]) -> list[str]:
    return sorted({str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern)})


@pytest.mark.parametrize("name", _files(PLAIN + SPEAKS))
def test_nothing_is_typed_on_a_page(name: str) -> None:
    assert find_typed_file(ROOT / name, name) == []


def test_nothing_is_typed_in_the_ledger() -> None:
    assert [problem for where, text in book.ledger_texts() for problem in find_typed(text, where)] == []


def test_pages_and_notebooks_are_there() -> None:
    names = _files(PLAIN)
    assert {"README.md", "book/index.md"} <= set(names)
    assert any(name.endswith(".ipynb") for name in names)


# --- plain text ---

TYPED = [
    "26 GB", "26GB", "26.0 GiB", "~65.5 GB", "≈ 66 GB", "<1 GB", "1,049.6 GB", "1 049.6 GB", "819,200 B",
    "2 B", "800 KB", "800 kB/token", "3.35 TB/s", "900 GB per second", "25 Gbit/s", "100 Mbps", "16 bits",
    "4.5 bits a weight", "2 bytes per parameter", "1 byte", "0.5 byte", "80 gigabytes", "80 Gigabytes",
    "2 mebibytes", "4 kilobits", "26 gb", "312 TFLOPS", "312 TFLOP/s", "1.2 petaflops", "156 FLOP/byte",
    "5 GFLOP", "989 teraFLOPs", "3 TMACs", "8 TOPS", "5 s", "5s", "3 ms", "12 µs", "12 μs", "7 ns",
    "30 seconds", "2 minutes", "8 min", "1.5 hours", "2 h", "1.4 GHz", "40 tok/s", "40 tokens/s",
    "40 output tokens per second", "3 requests per minute", "20 %", "20%", "5-10%", "5 to 10 percent",
    "20 per cent", "3 percentage points", "2‰", "2x", "2× faster", "10-20x", "10–20×", "2 × faster", "3X",
    "3 times", "three times as much", "tenfold", "3-fold", "a factor of ten", "factor 1.1",
    "two orders of magnitude", "two gigabytes", "Two GiB", "ten percent", "twenty-four GB",
    "half a gigabyte", "half a byte", "one byte", "26 (GB)", "26 decimal GB", "26-GB", "13 billion bytes",
    "10⁹ B", "2^30 B", "10**9 bytes", "2 × 10^9 B", "2e9 B", "1/2 GB", "½ GB", "26\u00a0GB", "26\u202fGB",
    "26\u2009GB", "26\u200bGB", "2\u00ad6 GB", "２６ GB", "26 ㎇", "26 ＧＢ", "٢٦ GB", "26\nGB",
    "Memory (GB): 26", "size in bytes = 800", "GiB: 24", "80G", "26 and 28 GB", "80 GBs", "13000000000B",
    "1 KiB = 1,000 B", "1 GB = 1,024 MB", "26 GB = 26,000,000,000 B", "1 GiB = 10^9 B", "A100 85GB",
    "an A100 with 80 GB", "H100 80GB/s", "×4 less", "26 (in GB)", "30 fps", "grew ×2",
]  # fmt: skip

FREE = [
    "", "no number, 26 of them", "FP16", "BF16 and INT8", "FP8 (E4M3)", "NF4", "GPTQ in 4-bit",
    "a 16-bit format", "A100 80GB", "H100-80GB", "V100 32GB", "two A100 40GB", "3× A100 40GB", "8x H100",
    "2 × GPUs", "LLaMA-2 13B", "Llama-3.1-405B", "a 7B model", "the 0.5B draft", "13 billion parameters",
    "13 B parameters", "8,192 tokens", "8k tokens", "a context of 128k", "batch 10", "40 × 5,120 × 2",
    "2 × layers × heads", "2 x 40 x 128", "336×336 pixels", "24x24 patches", "1 KiB = 1,024 B",
    "1 GB = 10^9 B", "1 GB = 10⁹ B = 1,000,000,000 B", "1 GiB is 2^30 B", "1 byte = 8 bits",
    "1 KiB is 1024 bytes", "GiB (2^30 B)", "KB read as 1,024 B", "a kB of 1,000 B", "GB read as 2^30 B",
    "1 s = 1,000 ms", "1 TFLOP = 10^12 FLOP", "2^10 B = 1 KiB", "2025-01-31", "in 2024, bytes were cheap",
    "the 1990s", "Python 3.11 to 3.13", "CUDA 12.4", "transformers 5.23.0", "v1.5 bytes",
    "arXiv 2409.16997", "L58-60", "L71, bytes", "section 2", "Figure 3", "one of two GPUs", "two requests",
    "the first of two", "the second one", "at times", "several times", "GB and GiB", "Memory (GiB)",
    "bytes a token", "10 requests", "heads 32, KV heads 8", "0x1F", "KV cache of Llama 2 (GB)",
    "8 KV heads", "1.1 (26 + 0.8 · 40)", "3D", "every second token", "0.1 × (26 + 66)", "1,000-byte units",
]  # fmt: skip


@pytest.mark.parametrize("text", TYPED)
def test_a_typed_quantity_is_found(text: str) -> None:
    assert typed_quantities(f"About {text}, and more") != [], text
    assert typed_quantities(text) != [], text


@pytest.mark.parametrize("text", FREE)
def test_what_is_no_typed_quantity_is_free(text: str) -> None:
    assert typed_quantities(f"About {text}, and more") == []
    assert typed_quantities(text) == []


def test_the_list_of_exemptions_is_short_and_each_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = exempt()
    assert len(entries) <= 10
    for entry in entries:
        assert len(entry.reason) > 20
        for example in entry.examples:
            assert typed_quantities(example) == [], example
    for left_out in entries:
        rest = tuple(entry for entry in entries if entry is not left_out)
        monkeypatch.setattr("vlmmem.cite.typed.exempt", lambda rest=rest: rest)
        assert any(typed_quantities(example) for example in left_out.examples), left_out.what


# --- Markdown: the way in, and the line that is told ---

CALC = "{calc}`26.0 GB <weights_bytes(13_000_000_000)>`"
IN_MARKDOWN = {
    "paragraph": ("Weights take 26 GB.", 1),
    "line wrap": ("one\n\nweights take 26\nGB of memory", 3),
    "heading": ("# The 101.2 GB total", 1),
    "underlined heading": ("The 101.2 GB total\n=====", 1),
    "bold number": ("takes **26** GB", 1),
    "bold unit": ("takes 26 **GB**", 1),
    "all bold": ("**26 GB**", 1),
    "emphasis inside": ("takes *26* _GB_", 1),
    "struck out": ("takes ~~26~~ GB", 1),
    "html bold": ("takes <b>26</b> GB", 1),
    "html span": ('takes <span class="x">26</span> GB', 1),
    "html block": ("<div>\n\ntakes 26 GB\n\n</div>", 3),
    "html table": ("<table>\n<tr><th>GB</th></tr>\n<tr><td>26</td></tr>\n</table>", 3),
    "html alt": ('<img src="x.png" alt="26 GB of weights">', 1),
    "html title": ('<abbr title="26 GB">w</abbr>', 1),
    "entity": ("takes 26&nbsp;GB", 1),
    "numeric entity": ("takes 26&#160;GB", 1),
    "escaped percent": (r"takes 26\% more", 1),
    "comment between": ("takes 26 <!-- no --> GB", 1),
    "behind a comment": ("<!-- no\n-->26 GB", 2),
    "bullet": ("- one\n- 26 GB", 2),
    "numbered": ("1. one\n2. takes 26 GB", 2),
    "nested list": ("- one\n  - two\n    26 GB", 3),
    "quotation": ("> takes 26 GB", 1),
    "wrapped quotation": ("> takes 26\n> GB", 1),
    "table cell": ("| a | b |\n|---|---|\n| x | 26 GB |", 3),
    "table heading": ("| a | 26 GB |\n|---|---|\n| x | y |", 1),
    "unit in the column's heading": ("| Model | Weights (GB) |\n| :-- | --: |\n| 13B | 26 |", 3),
    "unit in the row's heading": ("| x | 7B | 13B |\n|---|---|---|\n| Weights, GiB | 13 | ~24.2 |", 3),
    "percent in the heading": ("| Model | Overhead % |\n| - | - |\n| a | 5-10 |", 3),
    "table without outer bars": ("Model | GB\n--- | ---\n13B | 26", 3),
    "list table": ("```{list-table}\n* - Model\n  - GB\n* - 13B\n  - 26\n```", 5),
    "list table cell": (":::{list-table}\n* - Model\n  - Size\n* - 13B\n  - 26 GB\n:::", 5),
    "csv table": ("```{csv-table}\nModel, GB\n13B, 26\n```", 3),
    "unit in the table's title": ("```{table} Memory, in GB\n| a | 13B |\n|---|---|\n| weights | 26 |\n```", 4),
    "unit in the list table's title": ("```{list-table} Memory (GiB)\n* - a\n  - x\n* - 13B\n  - 26\n```", 5),
    "escaped space": ("takes 26\\ GB", 1),
    "table title": ("```{table} Takes 26 GB\n| a |\n|---|\n| b |\n```", 1),
    "figure caption": ("```{figure} x.png\n:width: 80%\n\nWeights take 26 GB.\n```", 4),
    "figure alt": ("```{figure} x.png\n:alt: weights, 26 GB\n```", 2),
    "option block": ("```{figure} x.png\n---\nalt: weights, 26 GB\n---\n```", 3),
    "image alt": ("![26 GB of weights](x.png)", 1),
    "image title": ('![weights](x.png "26 GB")', 1),
    "link text": ("[26 GB](x.md)", 1),
    "link number": ("[26](x.md) GB", 1),
    "link title": ('[weights](x.md "26 GB")', 1),
    "reference link": ("[26 GB][ref]\n\n[ref]: x.md", 1),
    "reference title": ('[ref]: x.md "26 GB"', 1),
    "footnote": ("Text[^1]\n\n[^1]: It is 26 GB.", 3),
    "number before a footnote": ("26[^1] GB", 1),
    "definition list": ("Term\n: takes 26 GB", 2),
    "admonition": ("```{note}\nTakes 26 GB.\n```", 2),
    "admonition title": ("```{admonition} Takes 26 GB\nText\n```", 1),
    "colon admonition": (":::{note}\nTakes 26 GB.\n:::", 2),
    "nested directives": ("::::{grid}\n:::{card} Title\nTakes 26 GB.\n:::\n::::", 3),
    "nested fences": ("````{note}\n```python\nx\n```\nTakes 26 GB.\n````", 5),
    "behind code": ("```python\nx = 1\n```\nTakes 26 GB.", 4),
    "code closed by what surrounds it": (":::{note}\n```python\n:::\n26 GB\n", 4),
    "left of indented code": ("- a\n\n  ```text\n  x\ntakes 26 GB\n  ```", 5),
    "quoted code left": ("> ```text\n> x\ntakes 26 GB", 3),
    "code caption": ("```{code-block} python\n:caption: takes 26 GB\nx\n```", 2),
    "unclosed code": ("```python\n26 GB", 1),
    "front matter": ("---\ntitle: The 101.2 GB total\n---\n\nText", 2),
    "substitution": ("---\nsubstitutions:\n  w: 26 GB\n---\n{{ w }}", 3),
    "inline code that is no code": ("takes `26 GB`", 1),
    "code number": ("takes `26` GB", 1),
    "code unit": ("takes 26 `GB`", 1),
    "escaped backtick": ("takes \\`26 GB\\`", 1),
    "unpaired backtick": ("takes ` 26 GB", 1),
    "formula": (r"takes $26\,\mathrm{GB}$", 1),
    "formula number": (r"takes $26$ GB", 1),
    "formula unit": (r"takes 26 $\mathrm{GB}$", 1),
    "formula text": (r"$W = 13 \times 2 = 26\ \text{GB}$", 1),
    "formula percent": (r"$\approx 10\,\%$", 1),
    "formula factor": (r"$10\times$ faster", 1),
    "formula bytes": (r"$2\ \mathrm{B}$ a parameter", 1),
    "formula siunitx": (r"$\SI{26}{GB}$", 1),
    "display formula": ("$$\nW = 26\\,\\text{GB}\n$$", 2),
    "formula environment": ("\\begin{align}\nW &= 26~\\mathrm{GB}\n\\end{align}", 2),
    "formula directive": ("```{math}\nW = 26\\,\\mathrm{GB}\n```", 2),
    "formula role": (r"{math}`26\,\mathrm{GB}`", 1),
    "role of another kind": ("{term}`26 GB <weights>`", 1),
    "emphasis role": ("{strong}`26` GB", 1),
    "misspelt role": ("{figg}`26 GB <footprint:x>`", 1),
    "role without origin": ("{fig}`26 GB`", 1),
    "role that is typed numbers": ("{calc}`26 GB <13e9 * 2>`", 1),
    "role not closed": ("{calc}`26 GB <weights_bytes(1)>", 1),
    "beside a role": (f"{CALC} or 26 GB", 1),
    "behind a role in a table": (f"| a |\n|---|\n| {CALC} of 40 GB |", 3),
    "label of a target": ("(weights)=\n# 26 GB", 2),
    "attribute": ('![w](x.png){alt="26 GB"}', 1),
    "raw html": ("```{raw} html\n<p>26 GB</p>\n```", 2),
    "windows line ends": ("one\r\n\r\n26 GB\r\n", 3),
}  # fmt: skip

FREE_IN_MARKDOWN = {
    "calc role": f"Weights take {CALC}.",
    "fig role": "The {fig}`101.2 GB <footprint:13b-total>` total",
    "roles in a table": f"| Model | GB |\n|---|---|\n| 13B | {CALC} |",
    "role in bold": f"**{CALC}**",
    "role in a caption": f"```{{figure}} x.png\nWeights take {CALC}.\n```",
    "role over two lines": "{calc}`26.0 GB\n<weights_bytes(13_000_000_000)>`",
    "role with a comparison": '{calc}`3 <len([1]) if find_gpu("t4").memory_bytes > 5 else 3>`',
    "inline code": "run `vlmmem explain 99.0GB`",
    "code": "```python\nsize = '26 GB'\n```",
    "tilde code": "~~~\n26 GB\n~~~",
    "code block": "```{code-block} text\n26 GB\n```",
    "code in a list": "- a\n\n  ```text\n  26 GB\n  ```\n",
    "code in a colon fence": ":::{note}\n```text\n26 GB\n```\n:::",
    "code in a quotation": "> ```text\n> 26 GB\n> ```",
    "layout": "```{figure} x.png\n:width: 80%\n:figwidth: 50 %\n:alt: weights\n```",
    "layout in html": '<img src="x.png" width="80%" alt="weights">',
    "layout attribute": "![weights](x.png){width=80%}",
    "comment": "<!-- 26 GB -->",
    "long comment": "<!--\n\n26 GB\n\n-->",
    "myst comment": "% 26 GB\n\ntext",
    "address": "<https://example.org/26%20GB> and https://example.org/2x/5s",
    "link address": "[paper](https://example.org/a_(26_GB)/10%25)",
    "reference address": "[ref]: https://example.org/26GB",
    "target": "(the-26-gb-total)=\n# Total",
    "table with a unit and no typed number": "| Model | GB |\n|---|---|\n| 13B | see below |",
    "unit in another column": "| Model | GB | Layers |\n|---|---|---|\n| a | {fig}`1 GB <x:y>` | 40 |",
    "symbols": "$34 s b h$ and $2 B T (3 I + 4 H)$ and $2 L n_\\mathrm{kv} d b$",
    "product": r"$2 \times L \times H$, $10\times 26$",
    "display formula": "$$\nW = 2 \\times P, \\quad 4 s\n$$",
    "definition": "1 KiB = 1,024 B, 1 **GB** = $10^9$ B",
    "definition in a formula": r"$1\,\mathrm{GiB} = 2^{30}\,\mathrm{B}$",
    "list numbers": "10. bytes\n11. seconds",
    "glue": "{glue:text}`26 GB`",
    "cells apart": "| 26 | GB |\n|---|---|\n| 26 | GB |",
    "products of symbols": "2\\*B\\*T bytes",
}  # fmt: skip


@pytest.mark.parametrize("way", IN_MARKDOWN)
def test_every_way_in_is_watched(way: str) -> None:
    text, line = IN_MARKDOWN[way]
    found = find_typed(text, "book/page.md")
    assert found, text
    assert found[0].startswith(f"book/page.md:{line}: "), found


@pytest.mark.parametrize("way", FREE_IN_MARKDOWN)
def test_what_is_free_in_markdown(way: str) -> None:
    assert find_typed(FREE_IN_MARKDOWN[way], "book/page.md") == []


def test_a_problem_says_what_to_write() -> None:
    (problem,) = find_typed("Weights take 26 GB.", "book/weights.md")
    told, right = problem.split("; ")
    assert told == "book/weights.md:1: typed quantity '26 GB'"
    assert right == "write it as a role, {calc}`26 GB <EXPRESSION>` or {fig}`26 GB <FIGURE ID>`"


# --- code cells ---

IN_CODE = {
    "text": 'say("Weights take 26 GB.")',
    "title": 'chart.properties(title="An A100 holds 85 GB")',
    "f-string": 'say(f"{name}: 26 GB")',
    "typed value in an f-string": 'say(f"{26} GB")',
    "text in an f-string": "say(f\"{'26'} GB\")",
    "implicit pieces": """say("26 "\n    "GB")""",
    "added pieces": 'say("26" + " GB")',
    "added in turn": 'say("a " + name + " 26" + " GB")',
    "added number": 'say(str(26) + " GB")',
    "format": 'say("{} GB".format(26))',
    "named format": 'say("{size} GB".format(size=26))',
    "percent format": 'say("%d GB" % 26)',
    "percent tuple": 'say("%s: %d GB" % (name, 26))',
    "joined": 'say(" ".join(["26", "GB"]))',
    "comment": "x = 1  # 26 GB",
    "long text": 'say("""\nweights\n\ntake 26 GB\n""")',
    "html": 'HTML("<b>26</b> GB")',
    "markdown table": 'say("| GB |\\n|---|\\n| 26 |")',
    "name with a unit": "weights_gb = 26",
    "annotated name": "weights_gb: float = 26",
    "bytes": "total_bytes = 26_000_000_000",
    "product of numbers": "total_bytes = 26 * 10**9",
    "list under a unit": 'frame({"Memory (GB)": [14, 26, 68]})',
    "key with a unit": 'row["x"] = {"gib": 24.2}',
    "keyword with a unit": "bar(limit_gib=80)",
    "percent": "overhead_percent = 10",
    "columns": 'frame([["13B", 26]], columns=["Model", "Memory (GB)"])',
    "a large number": "size = show(26_031_728_640)",
    "a large float": "parameters = 13.02e9",
    "a role in text": 'say("{calc}`26 GB <weights_bytes(1)>`")',
    "magic": "%echo 26 GB",
    "no Python": "this is 26 GB, not Python",
    "key of another table": '{"a": {"%": 5}}',
    "dictionary value": '{"label": "26 GB"}',
}

FREE_IN_CODE = {
    "computed": "say(f\"{show(size)} or {in_unit(size, 'GB'):.1f} GB\")",
    "title with a unit": 'alt.X("gib:Q", title="Memory (GiB)")',
    "format": 'axis(format=".1%", labels=",.0%", time=".2s")',
    "template": 'say("{:.1f} GB".format(size))',
    "old template": 'say("%.1f GB" % size)',
    "names": 'find_gpu("a100-80gb")',
    "counts": "for layers in (32, 40, 80): pass",
    "computed bytes": "total_bytes = 2 * shape.parameters",
    "computed list": 'frame({"Memory (GB)": [in_unit(x, "GB") for x in sizes]})',
    "product behind a name": 'say(f"{count} × {card.name}")',
    "fold": "range(2, 5)",
    "flag": "show_bytes = True",
    "conversions": "x = y / 10**9 + 2**30 + 1e9 + 1_000_000 + 1_073_741_824",
    "role of a figure": 'say(f"{{fig}}`{item.documented} <{item.id}>`")',
    "counts in columns": 'frame([["13B", 40]], columns=["Model", "Layers"])',
}


@pytest.mark.parametrize("way", IN_CODE)
def test_code_that_types_a_quantity_is_told(way: str) -> None:
    assert find_typed_code(IN_CODE[way], "notebooks/x.md"), IN_CODE[way]
    cell = f"Text.\n\n```{{code-cell}} ipython3\n:tags: [hide-input]\n\n{IN_CODE[way]}\n```\n"
    found = find_typed(cell, "notebooks/x.md")
    assert found
    assert int(found[0].split(":")[1]) >= 6


@pytest.mark.parametrize("way", FREE_IN_CODE)
def test_code_that_computes_is_free(way: str) -> None:
    assert find_typed_code(FREE_IN_CODE[way], "notebooks/x.md") == []


def test_parameters_may_be_typed_but_not_told() -> None:
    cell = '```{code-cell} ipython3\n:tags: [parameters]\n\nlimit_gb = 80\nsize = "80GB"\n```\n'
    assert find_typed(cell, "x.md") == []
    assert find_typed(cell.replace("80\n", "80  # of 85 GB\n"), "x.md")[0].startswith("x.md:4: typed quantity '85 GB'")
    assert find_typed(cell.replace("[parameters]", "[hide-input]"), "x.md")


def test_a_notebook_is_told_by_cell_and_line(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# Title\n", "\n", "Takes 26 GB."]},
        {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "limit_gb = 80", "outputs": []},
        {
            "cell_type": "code",
            "metadata": {"mystnb": {"figure": {"caption": "takes 27 GB"}}},
            "source": 'x = 1\nsay("28 GB")',
            "outputs": [{"output_type": "stream", "name": "stdout", "text": "29 GB"}],
        },
    ]
    path = tmp_path / "x.ipynb"
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    found = find_typed_file(path, "x.ipynb")
    assert [problem.partition(";")[0] for problem in found] == [
        "x.ipynb:cell 1:3: typed quantity '26 GB'",
        "x.ipynb:cell 3:2: typed quantity '28 GB'",
        "x.ipynb:cell 3: typed quantity '27 GB'",
    ]
    assert found == find_typed_notebook({"cells": cells}, "x.ipynb")


# --- whatever comes ---

UNITS = [
    "GB",
    "GiB",
    "kB",
    "bytes",
    "bits",
    "TB/s",
    "TFLOPS",
    "FLOP/byte",
    "ms",
    "seconds",
    "%",
    "percent",
    "tok/s",
]
PROSE = st.text(alphabet="abcdefg hijk\n.,;:()-*_|#>`", max_size=60)


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(st.text(max_size=200))
def test_no_text_breaks_it(text: str) -> None:
    find_typed(text, "x")
    find_typed_code(text, "x")
    typed_quantities(text)


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(st.lists(st.sampled_from(sorted({text for text, _ in IN_MARKDOWN.values()} | set(FREE_IN_MARKDOWN.values())))))
def test_no_page_breaks_it(parts: list[str]) -> None:
    find_typed("\n".join(parts), "x")


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(
    before=st.text(alphabet="abcdefg hijk.,;:()*", max_size=40),
    after=st.text(alphabet="abcdefg hijk.,;:()*", max_size=40),
    number=st.decimals(min_value=2, max_value=10**7, places=1).map(lambda value: f"{value:,}"),
    unit=st.sampled_from(UNITS),
    gap=st.sampled_from([" ", "\u00a0", "\u202f", "&nbsp;", "\n", ""]),
)
def test_a_quantity_in_any_prose_is_found(before: str, after: str, number: str, unit: str, gap: str) -> None:
    # A line that begins with % is a comment of MyST.
    gap = " " if gap == "\n" and unit == "%" else gap
    assert find_typed(f"{before} {number}{gap}{unit} {after}", "x")


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from(sorted(FREE_IN_MARKDOWN.values())), min_size=1, max_size=4))
def test_a_quantity_behind_anything_free_is_found(parts: list[str]) -> None:
    text = "\n\n".join(parts)
    found = find_typed(f"{text}\n\nTakes 4,711 GB.\n", "x")
    line = text.count("\n") + 3
    assert any(re.match(rf"x:{line}: typed quantity '4,711 GB'", problem) for problem in found)
