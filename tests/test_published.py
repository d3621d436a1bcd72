"""The accepted export in the package: its key covers code and data, and an old answer is never given."""

import json
import shutil
from pathlib import Path

import pytest

import vlmmem
from vlmmem import published
from vlmmem.ledger import load

PACKAGE = Path(vlmmem.__file__).parent


@pytest.fixture
def package(tmp_path: Path) -> Path:
    copy = tmp_path / "vlmmem"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def test_the_committed_export_is_the_ledger_as_judged() -> None:
    accepted = published.accepted()
    assert accepted is not None, "vlmmem/published/key.txt is not current; 'make fix' rewrites it"
    assert accepted == json.loads(json.dumps([item.json() for item in load().figures]))


def test_the_same_files_have_the_same_key(package: Path) -> None:
    assert published.key(str(package)) == published.key()


@pytest.mark.parametrize(
    "path",
    [
        "units.py",
        "memory/kv_cache.py",
        "catalog/configs/llama.json",
        "ledger/conventions.json",
        "ledger/figures/footprint/03-activations.json",
    ],
)
def test_a_changed_file_changes_the_key(package: Path, path: str) -> None:
    with (package / path).open("a", encoding="utf-8") as file:
        file.write("\n")
    assert published.key(str(package)) != published.key()


def test_a_moved_file_changes_the_key(package: Path) -> None:
    (package / "units.py").rename(package / "units2.py")
    assert published.key(str(package)) != published.key()


def test_rooms_that_only_present_do_not(package: Path) -> None:
    for path in (
        "cli/estimates.py",
        "readers/hub.py",
        "charts.py",
        "sphinx/roles.py",
        "coverage.py",
        "ledger/lines/footprint.json",
    ):
        with (package / path).open("a", encoding="utf-8") as file:
            file.write("\n")
    assert published.key(str(package)) == published.key()


@pytest.mark.parametrize("damage", ["missing key", "other key", "no figures", "not JSON"])
def test_no_answer_without_a_whole_export_of_this_package(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "published"
    shutil.copytree(PACKAGE / "published", folder)
    (folder / published.KEY).write_text(published.key(), encoding="ascii")
    assert published.accepted(str(folder)) is not None
    match damage:
        case "missing key":
            (folder / published.KEY).unlink()
        case "other key":
            (folder / published.KEY).write_text("00000000", encoding="ascii")
        case "no figures":
            (folder / "figures.json").unlink()
        case "not JSON":
            (folder / "figures.json").write_text("{", encoding="utf-8")
    assert published.accepted(str(folder)) is None
