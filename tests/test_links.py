"""Gate i: every internal link and anchor of the built book leads somewhere, and what the book promises is there."""

import json
import re
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from vlmmem.ledger import load

ATTRIBUTES = {
    "a": "href",
    "link": "href",
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "object": "data",
}
STYLED = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])((?:https?:)?//[^"')\s]+)""")
"""An address of another host that a style sheet loads."""
LOADED = set(ATTRIBUTES) - {"a"}
"""Elements whose address the browser asks for by itself."""


@dataclass
class Page(HTMLParser):
    """The anchors and addresses of one page."""

    anchors: set[str] = field(default_factory=set)
    addresses: list[tuple[int, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors.update(filter(None, (given.get("id"), given.get("name") if tag == "a" else None)))
        address = given.get(ATTRIBUTES.get(tag, ""))
        # A canonical address, an alternate or a link relation that nothing loads.
        if address is not None and given.get("rel") not in ("canonical", "alternate"):
            self.addresses.append((self.getpos()[0], tag, address))
        if tag == "meta" and given.get("http-equiv", "").lower() == "refresh":
            self.addresses.append((self.getpos()[0], tag, given.get("content", "").partition("url=")[2]))


@cache
def read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def problems(root: Path) -> list[str]:
    """One line for every link, image or script of the pages below ``root`` that leads nowhere or elsewhere."""
    found = []
    for path in sorted(root.rglob("*.html")):
        name = path.relative_to(root).as_posix()
        # Fragments of a page that the theme's own scripts read; no reader opens them.
        if name.startswith("_static/"):
            continue
        for line, tag, address in read(path).addresses:
            where = f"{name}:{line}"
            parts = urlsplit(address)
            if parts.scheme in ("http", "https") or parts.netloc:
                if tag in LOADED:
                    found.append(f"{where}: {tag} loads {address} from another host")
                continue
            if parts.scheme or address in ("", "#"):
                continue
            target = root / urlsplit(urljoin(f"/{name}", unquote(parts.path) or path.name)).path.lstrip("/")
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                found.append(f"{where}: {tag} {address} is not there")
            elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in read(target).anchors:
                found.append(f"{where}: {address} has no such anchor")
    for path in sorted(root.rglob("*.css")):
        name = path.relative_to(root).as_posix()
        found += [f"{name}: loads {address} from another host" for address in STYLED.findall(path.read_text("utf-8"))]
    return found


@pytest.mark.book
def test_no_link_leads_nowhere(built_book: Path) -> None:
    assert problems(built_book) == []


@pytest.mark.book
def test_the_first_page_opens_the_landing_page(built_book: Path) -> None:
    ((_, tag, address),) = read(built_book / "index.html").addresses
    assert (tag, address) == ("meta", "book/index.html")
    assert (built_book / address).is_file()


@pytest.mark.book
def test_every_figure_has_its_anchor(built_book: Path) -> None:
    anchors = read(built_book / "book" / "ledger.html").anchors
    assert [item.id for item in load().figures if item.anchor not in anchors] == []


@pytest.mark.book
def test_no_two_figures_share_an_anchor() -> None:
    anchors = [item.anchor for item in load().figures]
    assert len(anchors) == len(set(anchors))


@pytest.mark.book
def test_the_export_is_there(built_book: Path) -> None:
    published = json.loads((built_book / "figures.json").read_text(encoding="utf-8"))
    assert published == [item.json() for item in load().figures]
    assert published


@pytest.mark.book
@pytest.mark.parametrize("name", ["objects.inv", "searchindex.js", "search.html", "genindex.html"])
def test_what_readers_and_other_projects_use_is_there(built_book: Path, name: str) -> None:
    assert (built_book / name).stat().st_size > 0


@pytest.mark.book
def test_every_notebook_is_a_page(built_book: Path, root: Path) -> None:
    sources = {path.stem for path in (root / "notebooks").glob("*.md")}
    assert sources == {path.stem for path in (built_book / "notebooks").glob("*.html")}


FAULTS = {
    '<a href="nowhere.html">x</a>': "page.html:1: a nowhere.html is not there",
    '<a href="other.html#nothing">x</a>': "page.html:1: other.html#nothing has no such anchor",
    '<a href="#nothing">x</a>': "page.html:1: #nothing has no such anchor",
    '<img src="x.png">': "page.html:1: img x.png is not there",
    '<img src="https://example.org/x.png">': "page.html:1: img loads https://example.org/x.png from another host",
    '<script src="//example.org/x.js"></script>': "page.html:1: script loads //example.org/x.js from another host",
    '<link rel="stylesheet" href="https://example.org/x.css">': "page.html:1: link loads https://example.org/x.css from"
    " another host",
}


@pytest.mark.parametrize("piece", FAULTS)
def test_a_planted_fault_is_found(tmp_path: Path, piece: str) -> None:
    (tmp_path / "other.html").write_text('<h1 id="a.b">x</h1>')
    (tmp_path / "page.html").write_text(piece)
    assert problems(tmp_path) == [FAULTS[piece]]


def test_a_style_that_loads_a_font_is_found(tmp_path: Path) -> None:
    (tmp_path / "x.css").write_text("@font-face { src: url(https://example.org/x.woff2) }")
    assert problems(tmp_path) == ["x.css: loads https://example.org/x.woff2 from another host"]


def test_good_links_pass(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "other.html").write_text('<h1 id="a.b">x</h1><a href="../page.html?q=1">x</a>')
    (tmp_path / "page.html").write_text(
        '<a href="deep/other.html#a.b">x</a><a href="deep/other.html#a%2Eb">x</a><a href="https://example.org">x</a>'
        '<a href="#">x</a><img src="data:image/png;base64,AA==">'
    )
    assert problems(tmp_path) == []
