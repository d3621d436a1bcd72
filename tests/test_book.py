"""Pages and ledger notes: every readable value is the one that its origin gives, and fixing changes nothing else."""

import json
import shutil
from pathlib import Path

import pytest

from vlmmem import ledger
from vlmmem.cite import book
from vlmmem.cite.__main__ import main
from vlmmem.cite.expression import evaluate
from vlmmem.errors import InputError

STALE, RIGHT = "{fig}`1.0 GB <footprint:13b-total>`", "{fig}`101.2 GB <footprint:13b-total>`"


def test_the_books_values_are_their_origins(root: Path) -> None:
    assert book.check(root) == []


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A project of three pages, one value in each."""
    for name in ("README.md", "book/deep/page.md", "notebooks/total.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# Title\n\nIt takes {RIGHT}.\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A copy of the ledger's data."""
    return Path(shutil.copytree(ledger.FOLDER, tmp_path / "figures"))


def test_a_stale_page_is_told_and_fixed(site: Path) -> None:
    for name in ("README.md", "book/deep/page.md", "notebooks/total.md"):
        path = site / name
        sound = path.read_text(encoding="utf-8")
        path.write_text(sound.replace(RIGHT, STALE), encoding="utf-8")
        told = f"{name}:3: reads '1.0 GB', footprint:13b-total gives '101.2 GB'; 'make fix' rewrites it"
        assert book.check(site) == [told]
        assert book.fix(site) == [name]
        assert path.read_text(encoding="utf-8") == sound
    assert book.check(site) == []
    assert book.fix(site) == []


def test_line_ends_stay(site: Path) -> None:
    path = site / "README.md"
    path.write_bytes(f"# Title\r\n\r\n{STALE}  \r\nmore\rmore".encode())
    assert book.fix(site) == ["README.md"]
    assert path.read_bytes() == f"# Title\r\n\r\n{RIGHT}  \r\nmore\rmore".encode()


def test_a_page_in_another_encoding_is_told(site: Path) -> None:
    (site / "README.md").write_bytes(b"26\xa0GB")
    for call in (book.check, book.fix):
        with pytest.raises(InputError) as caught:
            call(site)
        assert str(caught.value) == "README.md: is not UTF-8; save it as UTF-8"


def _note(folder: Path, old: str, new: str) -> Path:
    path = folder / "footprint" / "05-total.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    (entry,) = (entry for entry in content["figures"] if entry["id"] == "footprint:13b-total")
    assert entry["note"].count(old) == 1
    entry["note"] = entry["note"].replace(old, new)
    path.write_text(book.as_data(content), encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_stale_note_is_told_and_fixed(site: Path, notes: Path) -> None:
    path = notes / "footprint" / "05-total.json"
    sound = path.read_text(encoding="utf-8")
    _note(notes, "{fig}`99.0 GB <", "{fig}`98.0 GB <")
    assert book.check(site, notes) == [
        (
            "footprint/05-total.json: footprint:13b-total: note: reads '98.0 GB', footprint:13b-8k-x10 gives '99.0 GB';"
            " 'make fix' rewrites it"
        )
    ]
    assert book.fix(site, notes) == ["footprint/05-total.json"]
    assert path.read_text(encoding="utf-8") == sound


def test_the_ledgers_layout_is_its_own(site: Path, notes: Path) -> None:
    path = notes / "footprint" / "05-total.json"
    sound = path.read_text(encoding="utf-8")
    path.write_text(sound.replace("\n  ", "\n    "), encoding="utf-8")
    assert book.check(site, notes) == ["footprint/05-total.json: not in the ledger's layout; 'make fix' rewrites it"]
    assert book.fix(site, notes) == ["footprint/05-total.json"]
    assert path.read_text(encoding="utf-8") == sound


def test_a_broken_ledger_is_no_reason_to_find_nothing_stale(
    site: Path, notes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (notes / "footprint" / "05-total.json").write_text("{", encoding="utf-8")
    monkeypatch.setattr(ledger.read, "__defaults__", (notes, None))
    monkeypatch.chdir(site)
    for cached in (ledger.load, evaluate):
        cached.cache_clear()
    line = "05-total.json:1: Expecting property name enclosed in double quotes"
    try:
        assert main(["fix"]) == 2
        assert capsys.readouterr().err.startswith(f"vlmmem: error: {line}")
        assert main(["check"]) == 1
        assert capsys.readouterr().out.startswith(line)
    finally:
        for cached in (ledger.load, evaluate):
            cached.cache_clear()


@pytest.mark.parametrize("words", [[], ["chek"], ["accept"], ["check", "x"]])
def test_the_maintainers_commands_are_three(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err == "vlmmem: error: one of 'check', 'fix', 'accept REASON' is needed\n"
