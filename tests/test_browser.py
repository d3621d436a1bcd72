"""Gate h: in a browser no page asks another host for anything, and every chart and formula is really drawn.

A page is loaded as a reader loads it, from a server on this machine, once as wide as a desktop and once as a phone; any
other traffic is blocked and counts as a fault.
"""

import functools
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vlmmem import charts
from vlmmem.ledger import load
from vlmmem.ledger.errata import defects, disagreements

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = pytest.mark.browser

WIDTHS = {"desktop": 1280, "phone": 390}
FLAGS = [
    "--no-sandbox",  # containers give Chromium no namespaces
    "--disable-gpu",
    "--disable-dev-shm-usage",
    # What a browser asks for by itself.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE = 15_000
"""Milliseconds that a chart or a formula may take on a busy machine."""

SETTLED = """() =>
  document.readyState === "complete" &&
  [...document.querySelectorAll("figure.vlmmem-chart")].every((figure) => figure.dataset.state) &&
  [...document.querySelectorAll(".math")].every((math) => math.querySelector("mjx-container"))
"""

INSPECT = """() => {
  const found = [];
  const text = (node) => node.textContent.trim().replace(/\\s+/g, " ").slice(0, 60);
  for (const math of document.querySelectorAll(".math")) {
    const drawn = math.querySelector("mjx-container svg");
    const box = drawn && drawn.getBoundingClientRect();
    if (!drawn || !box.width || !box.height) found.push(`formula not drawn: ${text(math)}`);
    else if (math.querySelector('[data-mml-node="merror"], [fill="red"], mjx-assistive-mml [mathcolor="red"]'))
      found.push(`formula with an error: ${text(math)}`);
  }
  for (const figure of document.querySelectorAll("figure.vlmmem-chart")) {
    const name = figure.getAttribute("aria-label");
    const drawn = figure.querySelector(".vlmmem-chart-drawn svg");
    const box = drawn && drawn.getBoundingClientRect();
    if (figure.dataset.state !== "drawn" || !drawn || !box.width || !box.height) {
      found.push(`chart not drawn: ${name}`);
      continue;
    }
    const groups = [...drawn.querySelectorAll("g.role-mark")].filter((group) => !group.closest("[class*=role-legend]"));
    const marks = groups.flatMap((group) => [...group.querySelectorAll("path, line, text, image")]);
    const seen = marks.filter((mark) => {
      const size = mark.getBoundingClientRect();
      return size.width + size.height > 0;
    });
    if (!seen.length) found.push(`chart without marks: ${name}`);
  }
  for (const image of document.images)
    if (image.getClientRects().length && !image.naturalWidth) found.push(`image not drawn: ${image.src.slice(0, 80)}`);
  const wide = document.documentElement.scrollWidth - window.innerWidth;
  if (wide > 0) {
    const boxed = ["auto", "scroll", "hidden"];
    const inBox = (node) => node && (boxed.includes(getComputedStyle(node).overflowX) || inBox(node.parentElement));
    const widest = [...document.body.querySelectorAll("*")].find(
      (node) => node.getBoundingClientRect().right > window.innerWidth + 1 && !inBox(node.parentElement));
    found.push(`page ${wide} px wider than the window: ${widest ? widest.outerHTML.slice(0, 120) : "?"}`);
  }
  return found;
}"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder's address on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    names = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    program = next(filter(None, (shutil.which(name) for name in names if name)), None)
    if program is None:
        pytest.fail("no Chromium: install Debian's package chromium, or name a program in CHROMIUM", pytrace=False)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=program,
            args=FLAGS,
        )


@contextmanager
def opened(browser: "Browser", base: str, width: int) -> Iterator[tuple["Page", list[str]]]:
    """A page that reaches nothing but ``base``, and the list of what went wrong on it."""
    wrong: list[str] = []

    def route(route: "Route") -> None:
        if route.request.url.startswith(base):
            route.continue_()
        else:
            wrong.append(f"asks another host: {route.request.url}")
            route.abort()

    context = browser.new_context(viewport={"width": width, "height": 900}, service_workers="block")
    context.route(re.compile("^(?!data:|blob:)"), route)
    page = context.new_page()
    page.on("console", lambda message: wrong.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(f"script: {error.message}"))
    page.on("response", lambda answer: wrong.append(f"{answer.status}: {answer.url}") if answer.status >= 400 else None)
    page.on("websocket", lambda socket: wrong.append(f"asks another host: {socket.url}"))
    try:
        yield page, wrong
    finally:
        context.close()


def inspect(page: "Page", wrong: list[str], address: str) -> list[str]:
    """What is wrong with one page, one line each."""
    from playwright.sync_api import Error

    wrong.clear()
    try:
        page.goto(address, wait_until="load", timeout=PATIENCE)
        page.wait_for_function(SETTLED, timeout=PATIENCE)
    except Error as error:
        wrong.append(f"never settled: {error.message.splitlines()[0]}")
    return wrong + list(page.evaluate(INSPECT))


def check(browser: "Browser", folder: Path, width: int) -> list[str]:
    """What is wrong with the pages of a folder at one width."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.html"))]
    found = []
    with served(folder) as base, opened(browser, base, width) as (page, wrong):
        for name in names:
            if not name.startswith("_static/"):
                found += [f"{name} at {width} px: {problem}" for problem in inspect(page, wrong, base + name)]
    return found


@pytest.mark.parametrize("device", WIDTHS)
def test_every_page_is_whole(browser: "Browser", built_book: Path, device: str) -> None:
    assert check(browser, built_book, WIDTHS[device]) == []


def test_every_notebook_has_a_chart(built_book: Path) -> None:
    pages = sorted((built_book / "notebooks").glob("*.html"))
    assert pages
    assert [page.name for page in pages if '<figure class="vlmmem-chart"' not in page.read_text(encoding="utf-8")] == []


def test_the_book_opens_from_a_file(browser: "Browser", built_book: Path) -> None:
    address = next(iter(sorted((built_book / "notebooks").glob("*.html")))).as_uri()
    with opened(browser, built_book.as_uri(), WIDTHS["desktop"]) as (page, wrong):
        assert inspect(page, wrong, address) == []


@pytest.fixture
def ledger_page(browser: "Browser", built_book: Path) -> Iterator[Callable[[str], "Page"]]:
    with served(built_book) as base, opened(browser, base, WIDTHS["desktop"]) as (page, wrong):

        def go(name: str) -> "Page":
            page.goto(base + name, wait_until="load")
            assert wrong == []
            return page

        yield go


def shown(page: "Page") -> list[str]:
    ids: list[str] = page.evaluate(
        "() => [...document.querySelectorAll('.vlmmem-ledger tbody')].filter((b) => !b.hidden).map((b) => b.id)"
    )
    return ids


def test_the_ledger_is_searched_in_the_page(ledger_page: Callable[[str], "Page"]) -> None:
    page = ledger_page("book/ledger.html")
    figures = load().figures
    assert len(shown(page)) == len(figures)
    page.fill(".vlmmem-controls input", "footprint:13b-total")
    assert "footprint-13b-total" in shown(page)
    assert len(shown(page)) < len(figures)
    page.fill(".vlmmem-controls input", '"101.2 GB"')
    assert "footprint-13b-total" in shown(page)
    page.fill(".vlmmem-controls input", "no such words anywhere")
    assert shown(page) == []
    page.fill(".vlmmem-controls input", "")
    page.select_option("[name=verdict]", "convention")
    assert set(shown(page)) == {item.anchor for item in figures if item.verdict == "convention"}
    page.select_option("[name=document]", "footprint")
    assert set(shown(page)) == {
        item.anchor for item in figures if item.verdict == "convention" and item.document == "footprint"
    }


def test_the_ledger_is_sorted_in_the_page(ledger_page: Callable[[str], "Page"]) -> None:
    page = ledger_page("book/ledger.html")
    before = shown(page)
    verdicts = "() => [...document.querySelectorAll('.vlmmem-ledger tbody')].map((b) => b.dataset.verdict)"
    page.click("th[data-key=verdict] button")
    assert page.evaluate(verdicts) == sorted(item.verdict for item in load().figures)
    page.click("th[data-key=verdict] button")
    assert page.evaluate(verdicts) == sorted((item.verdict for item in load().figures), reverse=True)
    page.click("th[data-key=line] button")
    assert shown(page) == before == [item.anchor for item in load().figures]


def test_entries_out_of_view_are_not_laid_out(ledger_page: Callable[[str], "Page"]) -> None:
    """Hundreds of entries: laid out all at once they would hold up every letter typed into the search field."""
    page = ledger_page("book/ledger.html")
    seen = "(node) => node.checkVisibility({contentVisibilityAuto: true})"
    entries = page.locator(".vlmmem-ledger tbody")
    assert entries.first.evaluate(seen) is True
    assert entries.last.locator("td").first.evaluate(seen) is False
    entries.last.scroll_into_view_if_needed()
    page.wait_for_timeout(200)
    assert entries.last.locator("td").first.evaluate(seen) is True


def test_an_entry_opens_where_it_is_linked(ledger_page: Callable[[str], "Page"]) -> None:
    page = ledger_page("book/ledger.html#footprint-13b-total")
    entry = page.locator("#footprint-13b-total")
    assert entry.locator("details").get_attribute("open") is not None
    page.wait_for_function(
        """() => {
          const y = document.getElementById("footprint-13b-total").getBoundingClientRect().y;
          return y >= 0 && y < 900;
        }""",
        timeout=PATIENCE,
    )


@pytest.mark.parametrize(
    ("words", "figure"),
    [
        ("101.2 GB", "footprint:13b-total"),
        ("0.50 GB", "inference:70b-kv"),
        ("1,049.6 GB", "footprint:175b-128k-x1"),
        ("65.5 GB", "footprint:13b-kv-10-requests"),
        ("footprint:13b-total", "footprint:13b-total"),
        ("inference:table-llama-3.1-8b-fp16", "inference:table-llama-3.1-8b-fp16"),
    ],
)
def test_the_books_search_leads_to_the_entry(ledger_page: Callable[[str], "Page"], words: str, figure: str) -> None:
    from urllib.parse import quote

    page = ledger_page(f"search.html?q={quote(words)}")
    page.wait_for_selector("#search-results li a", timeout=PATIENCE)
    found = [item.anchor for item in load().figures if item.documented == words or item.id == figure]
    first = page.locator("#search-results li").first
    assert any(str(first.locator("a").get_attribute("href")).endswith(f"#{anchor}") for anchor in found)
    assert "in the ledger" in first.inner_text()
    page.locator(f"#search-results li a[href$='#{load().by_id[figure].anchor}']").first.click()
    page.wait_for_selector(f"[id='{load().by_id[figure].anchor}'] details[open]", timeout=PATIENCE)


def cards(page: "Page") -> list[str]:
    ids: list[str] = page.evaluate(
        "() => [...document.querySelectorAll('.vlmmem-erratum')].filter((c) => c.offsetHeight).map((c) => c.id)"
    )
    return ids


def test_the_errata_are_filtered_and_a_filter_can_be_linked(ledger_page: Callable[[str], "Page"]) -> None:
    found = defects(load())
    page = ledger_page("book/errata.html")
    assert cards(page) == [f"erratum-{item.worst.anchor}" for item in found]
    wanted = [f"erratum-{item.worst.anchor}" for item in found if (item.document, item.cause) == ("footprint", "units")]
    page.select_option("[name=document]", "footprint")
    page.select_option("[name=cause]", "units")
    assert cards(page) == wanted != []
    address = page.url
    assert address.endswith("book/errata.html?document=footprint&cause=units")
    page.fill(".vlmmem-controls input", "no such words anywhere")
    assert cards(page) == []
    page.goto("about:blank")
    page.goto(address, wait_until="load")
    assert cards(page) == wanted
    assert page.input_value("[name=cause]") == "units"
    # a link to one that the filter hides shows everything
    hidden = next(item for item in found if item.document == "inference" and len(item.figures) > 1)
    cell = next(item for item in hidden.figures if item is not hidden.worst)
    page.goto(f"{address}#erratum-{cell.anchor}", wait_until="load")
    page.wait_for_function(f"() => document.getElementById('erratum-{cell.anchor}').offsetHeight > 0", timeout=PATIENCE)
    assert len(cards(page)) == len(found)


def test_a_filter_that_does_not_exist_is_none(ledger_page: Callable[[str], "Page"]) -> None:
    page = ledger_page("book/errata.html?cause=nothing&document=footprint")
    assert cards(page) == [f"erratum-{item.worst.anchor}" for item in defects(load()) if item.document == "footprint"]
    page = ledger_page("book/ledger.html?verdict=wrong")
    assert set(shown(page)) == {item.anchor for item in load().figures if item.verdict == "wrong"}


def test_the_errata_are_a_plain_list_without_scripts(browser: "Browser", built_book: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((built_book / "book" / "errata.html").as_uri())
    assert page.locator(".vlmmem-erratum:visible").count() == len(defects(load()))
    assert not page.locator(".vlmmem-controls").is_visible()
    page.goto((built_book / "book" / "disagreements.html").as_uri())
    assert page.locator(".vlmmem-disagreement:visible").count() == len(disagreements(load()))
    context.close()


def test_disagreements_are_filtered_by_either_document(ledger_page: Callable[[str], "Page"]) -> None:
    page = ledger_page("book/disagreements.html")
    page.select_option("[name=document]", "inference")
    found = page.evaluate(
        "() => [...document.querySelectorAll('.vlmmem-disagreement')].filter((c) => !c.hidden).map((c) => c.id)"
    )
    assert found == [f"disagreement-{each.anchor}" for each in disagreements(load()) if "inference" in each.documents]


def test_every_page_leads_to_the_next_and_back(built_book: Path) -> None:
    """From the landing page by "next" through every page of the book to the last, and each leads back."""
    page, seen = built_book / "book" / "index.html", []
    while True:
        text = page.read_text(encoding="utf-8")
        seen.append(page.relative_to(built_book).as_posix())
        if len(seen) > 1:
            back = re.search(r'<a class="left-prev"\s+href="([^"]*)"', text)
            assert back is not None
            assert (page.parent / back[1]).resolve().relative_to(built_book.resolve()).as_posix() == seen[-2]
        onward = re.search(r'<a class="right-next"\s+href="([^"]*)"', text)
        if onward is None:
            break
        page = (page.parent / onward[1]).resolve().relative_to(built_book.resolve())
        page = built_book / page
    written = {
        path.relative_to(built_book).as_posix()
        for room in ("book", "notebooks")
        for path in (built_book / room).glob("*.html")
    }
    assert written == set(seen)


# --- planted faults --------------------------------------------------------------------------------------------------

SPEC: dict[str, Any] = {
    "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
    "description": "Two bars.",
    "data": {"values": [{"a": "x", "b": 1}, {"a": "y", "b": 2}]},
    "mark": "bar",
    "encoding": {"x": {"field": "b", "type": "quantitative"}, "y": {"field": "a", "type": "nominal"}},
}
MATH = '<span class="math notranslate nohighlight">\\({}\\)</span>'


def chart(**changes: object) -> str:
    """A chart of the book whose specification was changed after its still picture was drawn."""
    import json

    good, bad = json.dumps(SPEC, sort_keys=True, separators=(",", ":")), json.dumps({**SPEC, **changes})
    piece = charts.html(SPEC)
    assert good in piece
    return piece.replace(good, bad)


FAULTS: dict[str, tuple[Callable[[], str], str]] = {
    "image of another host": (
        lambda: '<img src="https://example.org/x.png">',
        "asks another host: https://example.org",
    ),
    "script of another host": (lambda: '<script src="//example.org/x.js"></script>', "asks another host:"),
    "request by a script": (lambda: "<script>fetch('https://example.org/x')</script>", "asks another host:"),
    "missing image": (lambda: '<img src="x.png">', "404: "),
    "console error": (lambda: "<script>console.error('planted')</script>", "console: planted"),
    "script error": (lambda: "<script>throw new Error('planted')</script>", "script: planted"),
    "chart that cannot be drawn": (lambda: chart(mark="no such mark"), "chart not drawn: Two bars."),
    "chart without data": (lambda: chart(data={"values": []}), "chart without marks: Two bars."),
    "chart of another host": (lambda: chart(data={"url": "https://example.org/x.json"}), "asks another host:"),
    "formula with an error": (lambda: MATH.format("x_1_2"), "formula with an error"),
    "formula without an end": (lambda: MATH.format("\\frac{1"), "formula not drawn"),
    "formula with an unknown name": (lambda: MATH.format("\\nosuchname x"), "formula with an error"),
    "formula not drawn": (lambda: '<span class="math"></span>', "formula not drawn"),
    "too wide for a phone": (lambda: '<div style="width: 500px">x</div>', "px wider than the window"),
}


def page(folder: Path, book: Path, piece: str) -> Path:
    """A page with the scripts and styles of the built book, and one piece of content."""
    (folder / "_static").symlink_to(book / "_static")
    assert (book / "_static" / "vega.js").is_file(), "the built book has no chart"
    (folder / "page.html").write_text(
        '<!doctype html><html><head><meta charset="utf-8"><link rel="icon" href="data:,">'
        '<link rel="stylesheet" href="_static/vlmmem.css"></head><body>'
        f"{piece}"
        '<script src="_static/vega.js"></script><script src="_static/vlmmem-charts.js"></script>'
        '<script src="_static/mathjax/tex-svg.js"></script></body></html>',
        encoding="utf-8",
    )
    return folder


def test_a_page_without_a_fault_passes(browser: "Browser", built_book: Path, tmp_path: Path) -> None:
    folder = page(tmp_path, built_book, charts.html(SPEC) + MATH.format("\\frac{a}{b}"))
    for width in WIDTHS.values():
        assert check(browser, folder, width) == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_seen(
    browser: "Browser", built_book: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "PATIENCE", 5_000)  # some faults never settle
    piece, wanted = FAULTS[name]
    found = check(browser, page(tmp_path, built_book, piece()), WIDTHS["phone"])
    assert any(wanted in problem for problem in found), found
