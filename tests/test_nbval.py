"""Gate c: nbval executes every notebook and compares each output; what it leaves out is compared here.

``make test`` runs nbval over notebooks/. nbval leaves out images, LaTeX, stream names and the metadata of
outputs, and passes a cell that was never executed: the first are compared below, byte for byte with a fresh
execution, the last in test_pairs.py.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools import notebooks

from .conftest import ROOT, TRIAL

RUNS_THE_GATES = ["Makefile", "pyproject.toml", ".ci/run", ".pre-commit-config.yaml", ".github/workflows"]


def nbval(folder: Path) -> dict[str, list[str]]:
    """The outcome of each code cell of each notebook of a folder, by the options that make test uses."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    environment["PYTHONPATH"] = str(ROOT)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "-q",
        "-rA",
        "-c",
        os.devnull,
        "-p",
        "no:cacheprovider",
    ]
    result = subprocess.run(
        [*command, "--rootdir", str(folder), str(folder)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    outcomes = re.findall(r"^(PASSED|FAILED|ERROR) (?:.*/)?(\w+)\.ipynb::\D*(\d+)", result.stdout, re.MULTILINE)
    assert outcomes, result.stdout + result.stderr
    by_name: dict[str, list[str]] = {}
    for outcome, name, _ in sorted(outcomes, key=lambda found: (found[1], int(found[2]))):
        by_name.setdefault(name, []).append(outcome.lower())
    return by_name


def _differences(folder: Path) -> list[str]:
    """Notebooks whose stored bytes are not those of a fresh execution."""
    sources = sorted(folder.glob("*.md"))
    return [
        f"{path.stem}.ipynb: not what a fresh execution gives; 'make notebooks' writes it again"
        for path, notebook in zip(sources, notebooks.execute(sources), strict=True)
        if notebooks.text_of(notebook) != path.with_suffix(".ipynb").read_text(encoding="utf-8")
    ]


@pytest.mark.slow
def test_stored_notebooks_are_what_a_fresh_execution_gives() -> None:
    assert _differences(notebooks.FOLDER) == []


def _planted(text: str, *changes: str) -> str:
    notebook = json.loads(text)
    code: list[Any] = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    printed, shown = code[2]["outputs"], code[3]["outputs"]
    for change in changes:
        match change:
            case "number":
                printed[0]["text"] = ["26.1 GB\n"]
            case "table":
                shown[1]["data"]["text/html"] = ["<b>1</b>"]
            case "picture":
                picture = "".join(shown[0]["data"]["image/svg+xml"])
                shown[0]["data"]["image/svg+xml"] = [picture.replace("</text>", "1</text>")]
            case "cleared":
                code[2]["outputs"] = []
            case "stripped":
                for cell in code:
                    cell.update(outputs=[], execution_count=None)
            case "stream":
                printed[0]["name"] = "stderr"
            case "metadata":
                shown[1]["metadata"] = {"isolated": True}
            case _:
                raise ValueError(change)
    return f"{json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False)}\n"


@pytest.mark.slow
def test_nbval_tells_a_changed_output(tmp_path: Path, executed_trial: str) -> None:
    for changes in ((), ("number", "picture"), ("cleared", "table"), ("stripped",)):
        name = "_".join(changes) or "sound"
        (tmp_path / f"{name}.ipynb").write_text(_planted(executed_trial, *changes), encoding="utf-8")
    assert nbval(tmp_path) == {
        "sound": ["passed"] * 4,
        "number_picture": ["passed", "passed", "failed", "failed"],
        "cleared_table": ["passed", "passed", "failed", "failed"],
        # The hole that stored_problems closes.
        "stripped": ["passed"] * 4,
    }
    assert any("never executed" in problem for problem in notebooks.stored_problems(tmp_path / "stripped.ipynb"))


@pytest.mark.slow
def test_a_fresh_execution_tells_what_nbval_leaves_out(tmp_path: Path, executed_trial: str) -> None:
    for changes in ((), ("stream",), ("metadata",)):
        name = "_".join(changes) or "sound"
        (tmp_path / f"{name}.md").write_text(TRIAL, encoding="utf-8")
        (tmp_path / f"{name}.ipynb").write_text(_planted(executed_trial, *changes), encoding="utf-8")
    assert [problem.partition(".")[0] for problem in _differences(tmp_path)] == ["metadata", "stream"]


def _texts() -> list[tuple[str, str]]:
    paths = [ROOT / name for name in RUNS_THE_GATES]
    found = [path for path in paths if path.is_file()] + [p for path in paths if path.is_dir() for p in path.iterdir()]
    return [(path.name, path.read_text(encoding="utf-8")) for path in found]


def test_make_test_runs_nbval_over_the_notebooks() -> None:
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^\t.*pytest .*--nbval notebooks$", recipe, re.MULTILINE)


@pytest.mark.parametrize("option", ["--nbval-lax", "--nbval-sanitize-with", "--sanitize-with", "nbval_sanitize"])
def test_nothing_weakens_nbval(option: str) -> None:
    assert [name for name, text in _texts() if option in text] == []
    assert not list(notebooks.FOLDER.glob("*.cfg")), "a sanitise file beside the notebooks"
