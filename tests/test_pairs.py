"""Gate d: each notebook's .md and .ipynb agree cell by cell. With it: every stored cell was executed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tools import notebooks

from .conftest import TRIAL


def test_every_pair_agrees_and_is_executed() -> None:
    assert notebooks.problems() == []


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """The trial pair, its outputs made up: these tests execute nothing."""
    (tmp_path / "trial.md").write_text(TRIAL, encoding="utf-8")
    notebook = notebooks.read_source(tmp_path / "trial.md")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        cell.execution_count = number
        if number > 2:
            cell.outputs = [nbformat.v4.new_output("stream", text="26.0 GB\n")]
    (tmp_path / "trial.ipynb").write_text(notebooks.text_of(notebook), encoding="utf-8")
    return tmp_path


def test_a_sound_pair_passes(pair: Path) -> None:
    assert notebooks.problems(pair) == []


def _in_source(old: str, new: str) -> Callable[[Path], object]:
    def plant(folder: Path) -> None:
        path = folder / "trial.md"
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1
        path.write_text(text.replace(old, new), encoding="utf-8")

    return plant


def _in_stored(change: Callable[[Any], object]) -> Callable[[Path], object]:
    def plant(folder: Path) -> None:
        path = folder / "trial.ipynb"
        notebook = json.loads(path.read_text(encoding="utf-8"))
        change(notebook)
        path.write_text(json.dumps(notebook), encoding="utf-8")

    return plant


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a formula changed in the .md only": (_in_source('"GB"', '"GiB"'), "cell 4: its source differs"),
    "a sentence changed in the .md only": (_in_source("How much", "How many"), "cell 1: its source differs"),
    "a sentence changed in the .ipynb only": (
        _in_stored(lambda nb: nb["cells"][0].update(source="# Weight")),
        "cell 1: its source differs",
    ),
    "a new cell in the .md": (
        _in_source("The same as", "New.\n\n+++\n\nThe same as"),
        "cell 5: its source differs",
    ),
    "a cell lost at the end": (_in_stored(lambda nb: nb["cells"].pop()), "5 cells, the .md has 6"),
    "a cell of another type": (
        _in_stored(lambda nb: nb["cells"][4].update(cell_type="raw")),
        "cell 5: its type differs",
    ),
    "the parameters' tag lost in the .md": (
        _in_source(":tags: [parameters]\n\n", ""),
        "cell 3: its metadata differs",
    ),
    "a tag misspelt in both": (
        lambda folder: [
            _in_source("[parameters]", "[parameter]")(folder),
            _in_stored(lambda nb: nb["cells"][2]["metadata"].update(tags=["parameter"]))(folder),
        ][0],
        "tag 'parameter'; one of parameters",
    ),
    "another kernel": (
        _in_stored(lambda nb: nb["metadata"]["kernelspec"].update(name="conda")),
        "metadata kernelspec differ",
    ),
    "another language": (
        _in_stored(lambda nb: nb["metadata"]["language_info"].update(name="julia")),
        "metadata language_info differ",
    ),
    "no pairing": (_in_source("ipynb,md:myst", "md:myst"), "jupytext formats are not"),
    "a .md without .ipynb": (
        lambda folder: (folder / "other.md").write_text(TRIAL),
        "other.md: has no .ipynb",
    ),
    "an .ipynb without .md": (lambda folder: (folder / "trial.md").unlink(), "trial.ipynb: has no .md"),
    "stripped": (
        _in_stored(
            lambda nb: [cell.update(outputs=[], execution_count=None) for cell in nb["cells"] if "outputs" in cell]
        ),
        "cell 4: was never executed",
    ),
    "one cell not executed": (
        _in_stored(lambda nb: nb["cells"][1].update(execution_count=None)),
        "cell 2: was never executed",
    ),
    "executed out of order": (
        _in_stored(lambda nb: nb["cells"][3].update(execution_count=7)),
        "cell 4: was executed as",
    ),
    "a value whose output was cleared": (
        lambda folder: [
            _in_stored(lambda nb: nb["cells"][3].update(outputs=[], source="size"))(folder),
        ][0],
        "cell 4: ends in a value and stores no output",
    ),
    "a stored warning": (
        _in_stored(lambda nb: nb["cells"][3]["outputs"][0].update(name="stderr")),
        "stores an error or a warning",
    ),
    "an output left out of the comparison": (
        _in_stored(lambda nb: nb["cells"][3].update(source="# NBVAL_IGNORE_OUTPUT\nsize")),
        "marker 'NBVAL_IGNORE_OUTPUT'",
    ),
    "a misspelt marker": (
        _in_stored(lambda nb: nb["cells"][3].update(source="size  # nbval_ignore_ouput")),
        "marker 'nbval_ignore_ouput'",
    ),
    "a marker as a tag": (
        _in_stored(lambda nb: nb["cells"][3]["metadata"].update(tags=["nbval-skip"])),
        "tag 'nbval-skip'",
    ),
    "a second cell of parameters": (
        _in_stored(lambda nb: nb["cells"][3]["metadata"].update(tags=["parameters"])),
        "2 cells tagged 'parameters'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_told(pair: Path, fault: str) -> None:
    plant, told = FAULTS[fault]
    plant(pair)
    assert any(told in problem for problem in notebooks.problems(pair)), notebooks.problems(pair)


def test_an_empty_folder_is_no_pass(tmp_path: Path) -> None:
    assert notebooks.problems(tmp_path) == [f"{tmp_path.name}: no notebook"]


def test_a_cell_keeps_its_id_when_others_change(pair: Path) -> None:
    before = {cell.source: cell.id for cell in notebooks.read_source(pair / "trial.md").cells}
    _in_source("How much", "How many")(pair)
    after = {cell.source: cell.id for cell in notebooks.read_source(pair / "trial.md").cells}
    changed = {source for source in before if after.get(source) != before[source]}
    assert len(changed) == 1


def test_bad_arguments_get_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert notebooks.main(["nowhere"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
