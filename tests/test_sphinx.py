"""Gate b: the build fails on what drifts. Small books, built with the project's configuration and command."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path

import pytest

from vlmmem.cite.downloads import DOWNLOADS, download
from vlmmem.cite.typed import typed_quantities
from vlmmem.ledger import ERRATA, load
from vlmmem.ledger.errata import dear, defects, disagreements

ROOT = Path(__file__).resolve().parent.parent
FIGURE = "footprint:13b-activations"

pytestmark = pytest.mark.slow

NOTEBOOK = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A notebook

Words.

```{{code-cell}} ipython3
{code}
```
"""


@dataclass(frozen=True)
class Built:
    """A small book after its build."""

    html: Path
    code: int
    log: str

    def page(self, name: str = "page") -> str:
        return (self.html / "book" / f"{name}.html").read_text(encoding="utf-8")


def command() -> list[str]:
    """The arguments with which `make book` calls jupyter-book."""
    found = re.search(r"jupyter-book (build .*) \.$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert found, "the Makefile builds no book"
    return found[1].split()


def build(folder: Path, **pages: str) -> Built:
    """Build a book of these pages, and the ledger's, as `make book` does."""
    (folder / "book").mkdir(exist_ok=True)
    for name in ("_config.yml", "book/_assets", "book/ledger.md", "book/references.bib"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, folder / name)
    names = ["ledger", *(name for name in pages if name != "index")]
    (folder / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n" + "".join(f"- file: book/{name}\n" for name in names)
    )
    for name, text in {"index": "# A book\n\nWords.\n", **pages}.items():
        (folder / "book" / f"{name}.md").write_text(text, encoding="utf-8")
    program = Path(sys.executable).with_name("jupyter-book")
    done = subprocess.run(
        [str(program), *command(), "."], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    log = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)
    return Built(folder / "_build" / "html", done.returncode, log)


def documented() -> str:
    return load().by_id[FIGURE].documented


GOOD = """\
# A page with {{fig}}`{value} <{figure}>` in its title

A figure: {{fig}}`{value} <{figure}>`, a value: {{calc}}`26.0 GB <weights_bytes(13015864320)>`.
The GPU is an A100 80GB, the format FP16, `kv_cache` is code and $M = 12 + x$ a formula.
A definition: 1 GB = $10^9$ B and 1 GiB = $2^{{30}}$ B.

| a table | of figures |
|---|---|
| {{fig}}`{value} <{figure}>` | {{calc}}`24.2 GiB <weights_bytes(13015864320)>` |

{{verdict}}`convention`

```{{errata}} footprint
```

```{{figure-table}} requirements-x1
```

```{{documents}}
```

```{{coverage}}
```

```{{conventions}}
```

```{{versions}}
```
"""

LISTS = """\
# Lists

Here too: {{fig}}`{value} <{figure}>`.

```{{tally}}
```

```{{errata-summary}}
```

```{{errata}}
```

```{{disagreements}}
```

```{{dear}}
```
"""

CELL = """\
from vlmmem import figures
from vlmmem.notebook import say, verdict_table
from IPython.display import display
display(verdict_table(figures("footprint")[:3]))
display(say("The cell computed 12 GB, and the document prints {fig}`VALUE <FIGURE>`."))
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Built:
    cell = CELL.replace("VALUE", documented()).replace("FIGURE", FIGURE)
    return build(
        tmp_path_factory.mktemp("good"),
        page=GOOD.format(value=documented(), figure=FIGURE),
        page2=GOOD.replace("```{{errata}} footprint\n```\n", "").format(value=documented(), figure=FIGURE),
        lists=LISTS.format(value=documented(), figure=FIGURE),
        cells=NOTEBOOK.format(code=cell),
    )


FAULTS = {
    "wrong value": (
        "Words {fig}`9.3 GB <FIGURE>`.",
        "page.md:3: WARNING: reads '9.3 GB', FIGURE gives '@VALUE@'",
    ),
    "wrong value in a table": (
        "| a |\n|---|\n| {calc}`27.0 GB <weights_bytes(13015864320)>` |",
        "page.md:5: WARNING: reads '27.0 GB'",
    ),
    "no such figure": (
        "{fig}`9.3 GB <footprint:nowhere>`",
        "page.md:3: WARNING: figure 'footprint:nowhere' is not",
    ),
    "no origin": ("{fig}`9.3 GB`", "page.md:3: WARNING: {fig}`9.3 GB` is not VALUE <ORIGIN>"),
    "forbidden expression": ("{calc}`1 B <__import__('os')>`", "page.md:3: WARNING:"),
    "typed in prose": ("Words.\n\nIt takes 12 GB.", "page.md:5: WARNING: typed quantity '12 GB'"),
    "typed over two lines": ("It takes 12\nGB.", "page.md:3: WARNING: typed quantity"),
    "typed with markup": ("It takes **12** *GB*.", "page.md:3: WARNING: typed quantity '12 GB'"),
    "typed in a heading": ("## Of 12 GB\n\nWords.", "page.md:3: WARNING: typed quantity '12 GB'"),
    "typed in a table": ("| a |\n|---|\n| b |\n| 12 GB |", "page.md:6: WARNING: typed quantity '12 GB'"),
    "typed in a caption": ("```{figure} x.svg\n:alt: x\n\nOf 12 GB.\n```", "typed quantity '12 GB'"),
    "typed in HTML": ("<p>It takes <b>12</b> GB.</p>", "typed quantity"),
    "typed in a box": (":::{note}\nIt is 40 % less.\n:::", "page.md:4: WARNING: typed quantity '40 %'"),
    "typed in a formula": ("It takes $12\\,\\text{GB}$.", "page.md:3: WARNING: typed quantity '12 GB'"),
    "typed in a formula of its own": ("$$\nM = 12\\,\\mathrm{GB}\n$$", "typed quantity '12 GB'"),
    "typed factor": ("It is 4× faster.", "page.md:3: WARNING: typed quantity '4×"),
    "unknown verdict": ("{verdict}`fine`", "page.md:3: WARNING: verdict 'fine' is not known"),
    "unknown table": ("```{figure-table} nothing\n```", "table 'nothing' is not in the ledger"),
    "unknown document": ("```{errata} nothing\n```", "document 'nothing' is not in the ledger"),
    "missing target": ("[words](nowhere.md)", "page.md:3: WARNING:"),
}


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """One page a fault, in one build."""
    pages = {slug(name): f"# A page\n\n{text.replace('FIGURE', FIGURE)}\n" for name, (text, _) in FAULTS.items()}
    return build(tmp_path_factory.mktemp("bad"), **pages)


def slug(name: str) -> str:
    return name.replace(" ", "-")


def test_make_book_builds_clean_with_warnings_as_errors() -> None:
    assert {"--all", "-W"} <= set(command())
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nbook:")[2].partition("\n\n")[0]
    assert recipe.index("rm -rf _build") < recipe.index("jupyter-book build")


def test_nothing_is_cached_and_nothing_suppressed() -> None:
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    assert "execute_notebooks: force" in config
    assert "suppress_warnings" not in config


def test_a_good_book_builds(good: Built) -> None:
    assert good.code == 0, good.log


def test_a_figure_links_to_its_entry(good: Built) -> None:
    figure = load().by_id[FIGURE]
    link = re.search(
        r'<p>A figure: <a class="[^"]*" href="([^"]*)" title="([^"]*)"><span class="([^"]*)">([^<]*)<',
        good.page(),
    )
    assert link is not None
    assert link[1] == f"ledger.html#{figure.anchor}"
    assert link[2] == f"{figure.document}, line {figure.line}: {figure.verdict}"
    assert {"vlmmem-fig", "documented", f"verdict-{figure.verdict}"} <= set(link[3].split())
    assert unescape(link[4]) == figure.documented


def test_roles_work_in_titles_and_tables(good: Built) -> None:
    figure = load().by_id[FIGURE]
    assert f"<title>A page with {figure.documented} in its title" in good.page()
    assert re.search(rf'<td>.*?ledger.html#{figure.anchor}"', good.page())


def test_a_value_shows_its_expression(good: Built) -> None:
    assert (
        '<abbr class="vlmmem-value vlmmem-calc vlmmem-whole" title="weights_bytes(13015864320)">26.0 GB</abbr>'
        in good.page()
    )


def test_outputs_may_hold_quantities_and_roles(good: Built) -> None:
    figure = load().by_id[FIGURE]
    output = good.page("cells").partition('<div class="cell_output')[2]
    assert f'href="ledger.html#{figure.anchor}"' in output
    assert "The cell computed 12 GB" in output
    assert output.count('<span class="vlmmem-verdict') == 3


def test_the_ledger_holds_every_figure(good: Built) -> None:
    page = good.page("ledger")
    for figure in load().figures:
        assert f'<tbody id="{figure.anchor}"' in page
        assert f'<a class="vlmmem-id" href="#{figure.anchor}">{figure.id}</a>' in page


def test_generated_pieces_close_their_tags(good: Built) -> None:
    for name in ("page", "ledger"):
        text = good.page(name)
        for tag in ("table", "tbody", "tr", "details", "article", "dl"):
            assert len(re.findall(rf"<{tag}\b", text)) == text.count(f"</{tag}>"), (name, tag)


def test_errata_are_listed(good: Built) -> None:
    """On a page for one document and on a page for all, every erratum is there, those of one cause in one card."""
    found = defects(load())
    for page, wanted in (("page", [item for item in found if item.document == "footprint"]), ("lists", list(found))):
        text = good.page(page)
        cards = re.findall(r'<article id="(erratum-[^"]*)" class="vlmmem-erratum', text)
        assert cards == [f"erratum-{item.worst.anchor}" for item in wanted] != []
        for item in (item for defect in wanted for item in defect.figures):
            assert f'href="ledger.html#{item.anchor}"' in text
            assert f'id="erratum-{item.anchor}"' in text
            assert escape(item.cost.text if item.cost else "", quote=False) in text


def test_the_summary_leads_to_the_cards(good: Built) -> None:
    text = good.page("lists")
    errata = [item for item in load().figures if item.verdict in ERRATA]
    assert f"<strong>{len(errata)}</strong> of {len(load().figures)} figures are errata" in text
    for target in re.findall(r'href="#(erratum-[^"]*)"', text):
        assert f'id="{target}"' in text
    assert '<a href="?cause=copied+shape">' in text


def test_what_stands_yet_is_dear_is_listed(good: Built) -> None:
    text = good.page("lists")
    found = dear(load())
    assert re.findall(r'<tr id="dear-([^"]*)">', text) == [item.anchor for item in found] != []
    for item in found:
        row = text.partition(f'<tr id="dear-{item.anchor}">')[2].partition("</tr>")[0]
        assert f'href="ledger.html#{item.anchor}"' in row
        assert item.difference
        for told in (item.documented, item.difference.text, item.difference_why, item.correct or ""):
            assert told
            assert escape(told, quote=False) in row


def test_disagreements_show_every_side(good: Built) -> None:
    text = good.page("lists")
    found = disagreements(load())
    assert text.count('<article id="disagreement-') == len(found) > 0
    assert text.count('<div class="vlmmem-side ') == sum(len(each.figures) for each in found)
    broken = [item for each in found for item in each.figures if item.breaks in {side.id for side in each.figures}]
    assert text.count("<strong>It breaks</strong>") == len(broken) > 0


def test_an_entry_names_the_pages_that_explain_it(good: Built) -> None:
    """A role in the text, a cell of a table and a cell's output each lead back; lists of figures explain nothing."""
    ledger = good.page("ledger")

    def explained(figure_id: str) -> str:
        entry = ledger.partition(f'<tbody id="{load().by_id[figure_id].anchor}"')[2].partition("</tbody>")[0]
        found = re.search(r'<p class="vlmmem-explained">(.*?)</p>', entry)
        return found[1] if found else ""

    title = f"A page with {documented()} in its title"
    assert explained(FIGURE) == (f'Explained in: <a href="page2.html">{title}</a>, <a href="cells.html">A notebook</a>')
    assert explained(load().table("requirements-x1")[0].id) == f'Explained in: <a href="page2.html">{title}</a>'
    assert explained(load().figures[0].id) == 'Explained in: <a href="cells.html">A notebook</a>'
    unused = [item.id for item in load().figures if item.id not in ledger.partition("Explained in")[0]]
    assert any(not explained(name) for name in unused)


def test_the_tally_leads_to_the_filtered_ledger(good: Built) -> None:
    text = good.page("lists")
    for verdict in {item.verdict for item in load().figures}:
        number = sum(item.verdict == verdict for item in load().figures)
        assert f'<a href="../book/ledger.html?verdict={verdict}">' in text
        assert f"{verdict}</span> {number}</a>" in text


def test_the_downloads_are_published(good: Built) -> None:
    for name in DOWNLOADS:
        assert (good.html / name).read_text(encoding="utf-8") == download(name)


def test_the_export_is_published(good: Built) -> None:
    assert json.loads((good.html / "figures.json").read_text(encoding="utf-8")) == [
        item.json() for item in load().figures
    ]


def test_other_projects_can_link(good: Built) -> None:
    """objects.inv holds each figure under its own domain, and as a label whose title is the printed value."""
    from sphinx.util.inventory import InventoryFile

    with (good.html / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: base + path)
    for figure in load().figures:
        for kind in ("vlmmem:figure", "std:label"):
            _, _, address, title = inventory[kind][figure.id]
            assert (address, title) == (f"book/ledger.html#{figure.anchor}", figure.documented)


def test_search_finds_a_value_and_an_id(good: Built) -> None:
    index = json.loads((good.html / "searchindex.js").read_text(encoding="utf-8").partition("(")[2].rpartition(")")[0])
    assert "book/ledger" in index["docnames"]
    assert FIGURE in index["indexentries"]
    assert any(entry[3] == load().by_id[FIGURE].anchor for entries in index["objects"].values() for entry in entries)


def test_the_page_is_its_own(good: Built) -> None:
    page = good.page()
    assert "thebe" not in re.sub(r"<link[^>]*sphinx-thebe.css[^>]*>", "", page)
    assert not re.search(r'<(?:script|img|iframe|link)[^>]*(?:src|href)="(?:https?:)?//', page)
    assert (good.html / "_static" / "mathjax" / "tex-svg.js").stat().st_size > 10**6


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_page_and_line(bad: Built, name: str) -> None:
    wanted = FAULTS[name][1].replace("FIGURE", FIGURE).replace("@VALUE@", documented()).removeprefix("page.md")
    lines = [line for line in bad.log.splitlines() if f"/{slug(name)}.md:" in line]
    assert any(wanted in line for line in lines), "\n".join(lines) or bad.log


@pytest.mark.parametrize("name", ["wrong value", "typed in prose", "missing target"])
def test_one_fault_is_enough(tmp_path: Path, name: str) -> None:
    text = FAULTS[name][0].replace("FIGURE", FIGURE)
    built = build(tmp_path, page=f"# A page\n\n{text}\n")
    assert built.code != 0
    assert "book/page.md" in built.log


def test_a_failing_cell_fails_the_build(tmp_path: Path) -> None:
    built = build(tmp_path, page=NOTEBOOK.format(code="1 / 0"))
    assert built.code != 0
    assert "ZeroDivisionError" in built.log


def test_words_on_a_warning_stream_fail_the_build(tmp_path: Path) -> None:
    built = build(tmp_path, page=NOTEBOOK.format(code="import sys; print('careful', file=sys.stderr)"))
    assert built.code != 0


def test_the_gate_reads_plain_text() -> None:
    assert typed_quantities("It takes 12 GB.")
    assert not typed_quantities("An A100 80GB with FP16.")


def test_notebooks_executed_side_by_side_are_executed_afresh(tmp_path: Path) -> None:
    # Their cells do not change between the builds; what they call does. A kept cache would show the old number.
    code = "from pathlib import Path\nprint('the number is', Path('number.txt').read_text())"
    pages = {name: NOTEBOOK.format(code=code) for name in ("first", "second")}
    for number in ("41", "42"):
        folder = tmp_path / number
        (folder / "book").mkdir(parents=True)
        (folder / "book" / "number.txt").write_text(number)
        built = build(folder, **pages)
        assert built.code == 0, built.log
        for name in pages:
            assert f"the number is {number}" in built.page(name)


def test_a_failing_notebook_among_several_is_red(tmp_path: Path) -> None:
    built = build(tmp_path, first=NOTEBOOK.format(code="1 / 0"), second=NOTEBOOK.format(code="print('well')"))
    assert built.code != 0
    assert "ZeroDivisionError" in built.log
    assert "first.md" in built.log
