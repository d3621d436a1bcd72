"""Gate e: papermill runs every notebook with other parameters; its figures change as the package says.

tests/papermill.json gives each notebook other parameters and what must come of them: ``expect`` names
variables of the notebook, ``shows`` texts that its outputs must contain, each as an expression over the
package's face and the parameters. Then each parameter is changed alone. Proved are that
- every parameter is read below its cell, and changing it alone changes an output;
- no cell below gives a parameter another value;
- every code cell below depends on the parameters by its code, and what it displays changes with one of them;
  cells tagged ``quotation`` are let pass, and may do nothing but show figures of the ledger;
- the figures with the other parameters are those that the package gives.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

import vlmmem
from tools import dataflow, notebooks

from .conftest import ROOT, TRIAL

RUNS: dict[str, dict[str, Any]] = json.loads((ROOT / "tests" / "papermill.json").read_text(encoding="utf-8"))
SOURCES = sorted(notebooks.FOLDER.glob("*.md"))


def value(expression: str, parameters: Mapping[str, object]) -> Any:
    """What the package says, for some parameters; the expressions are this repository's own."""
    face = {name: getattr(vlmmem, name) for name in vlmmem.__all__ if re.search(rf"\b{name}\b", expression)}
    return eval(expression, {**face, **parameters})


def text_of_outputs(cells: Sequence[NotebookNode]) -> str:
    """All that the outputs say, without markup."""
    texts = []
    for cell in cells:
        for output in cell.get("outputs", ()):
            texts.append(output.get("text", ""))
            texts += [text for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
    said = re.sub(r"<[^<>]*>", "", " ".join(texts)).replace("**", "")
    return " ".join(html.unescape(said).split())


def shown(cell: NotebookNode) -> str:
    """A cell's outputs in one comparable form."""
    outputs: list[dict[str, Any]] = []
    for output in json.loads(json.dumps(cell.get("outputs", []))):
        output.pop("execution_count", None)
        # What is printed comes in pieces, cut wherever the kernel's timer fell.
        if output["output_type"] == "stream" and outputs and outputs[-1].get("name") == output["name"]:
            outputs[-1]["text"] += output["text"]
        else:
            outputs.append(output)
    return json.dumps(outputs, sort_keys=True)


@dataclass(frozen=True)
class Runs:
    """What papermill saw: the cells and the variables asked for with all other parameters.

    ``alone`` is what each cell showed, by the name of the one parameter that was changed ("": none).
    """

    cells: list[NotebookNode]
    values: dict[str, Any]
    alone: dict[str, list[str]]


def executed(notebook: NotebookNode, run: Mapping[str, Any], folder: Path) -> Runs:
    """Papermill's run with the other parameters, and behind it, in the same kernel, one with each changed alone.

    A kernel's start takes longer than most notebooks. Outputs that the notebook carries stand for the run with no
    change: gate c compares them with a fresh execution.
    """
    from papermill import execute_notebook

    stored = any(cell.get("outputs") for cell in notebook.cells)
    names = sorted(run.get("expect", {}))
    reading = ", ".join(f"{name!r}: {name} if isinstance({name}, (int, str)) else float({name})" for name in names)
    cells = [nbformat.from_dict(json.loads(json.dumps(cell))) for cell in notebook.cells]
    cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({{{reading}}}))"))
    spans: dict[str, int] = {}
    for name in run["parameters"] if stored else ("", *run["parameters"]):
        cells.append(nbformat.v4.new_code_cell("%reset -f"))
        spans[name] = len(cells)
        for cell in notebook.cells:
            copy = nbformat.from_dict(json.loads(json.dumps(cell)))
            copy.id = f"{name}-{cell.id}"
            if "parameters" in copy.metadata.get("tags", ()):
                copy.metadata.tags = []  # papermill puts its values behind the first such cell only
                copy.source += f"\n{name} = {run['parameters'][name]!r}" if name else ""
            cells.append(copy)
    given = folder / "given.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata), given)
    result = execute_notebook(
        given,
        None,  # with a path papermill writes all outputs again after each cell
        parameters=run["parameters"],
        kernel_name=notebooks.KERNEL["name"],
        progress_bar=False,
        cwd=notebooks.FOLDER,
    )
    # papermill adds one cell, its parameters
    first, *rest = result.cells
    found = [first, *(cell for cell in rest if "injected-parameters" not in cell.metadata.get("tags", ()))]
    assert len(found) == len(cells)
    size = len(notebook.cells)
    alone = {name: [shown(cell) for cell in found[start : start + size]] for name, start in spans.items()}
    if stored:
        alone[""] = [shown(cell) for cell in notebook.cells]
    return Runs(found[:size], json.loads(found[size]["outputs"][0]["text"]), alone)


def run_problems(notebook: NotebookNode, run: Mapping[str, Any], runs: Runs) -> list[str]:
    """One line for each figure of a papermill run that is not what the package says."""
    defaults = dataflow.parameters_of(notebook)
    changed = {**defaults, **run["parameters"]}
    found = []
    for name, expression in sorted(run.get("expect", {}).items()):
        right, before = (value(expression, given) for given in (changed, defaults))
        if right == before:
            found.append(f"{name}: the other parameters leave it at {before}, which proves nothing")
        if runs.values[name] != (right if isinstance(right, int | str) else float(right)):
            found.append(f"{name}: is {runs.values[name]}, the package says {right}")
    said = text_of_outputs(runs.cells)
    for expression in run.get("shows", ()):
        right, before = (str(value(expression, given)) for given in (changed, defaults))
        if right == before:
            found.append(f"{expression}: the other parameters leave it at {before}, which proves nothing")
        if right not in said:
            found.append(f"{expression}: the package says {right!r}, which no output shows")
    return found


def change_problems(notebook: NotebookNode, runs: Runs) -> list[str]:
    """One line for each parameter that changes nothing, and each cell whose output nothing changes."""
    outputs = dict(runs.alone)
    stands = outputs.pop("")
    found = [f"parameter {name!r}: changing it changes no output" for name in outputs if outputs[name] == stands]
    below = False
    for number, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", ())
        if (
            below
            and "quotation" not in tags
            and stands[number] != "[]"
            and all(changed[number] == stands[number] for changed in outputs.values())
        ):
            found.append(f"cell {number + 1}: no parameter changes what it shows")
        below = below or "parameters" in tags
    return found


# --- the book's notebooks ---


def test_every_notebook_has_its_run() -> None:
    assert sorted(RUNS) == [source.stem for source in SOURCES]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_every_code_cell_depends_on_the_parameters(source: Path) -> None:
    notebook = notebooks.read_source(source)
    assert list(dataflow.problems(notebook)) == []
    run, defaults = RUNS[source.stem], dataflow.parameters_of(notebook)
    assert sorted(run["parameters"]) == sorted(defaults), "papermill.json changes every parameter"
    assert [name for name, other in run["parameters"].items() if other == defaults[name]] == []
    assert run.get("shows"), "papermill.json says what the reader must see"


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_figures_change_as_the_package_says_and_each_parameter_and_cell_counts(source: Path, tmp_path: Path) -> None:
    notebook, run = nbformat.read(source.with_suffix(".ipynb"), as_version=4), RUNS[source.stem]
    runs = executed(notebook, run, tmp_path)
    assert run_problems(notebook, run, runs) == []
    assert change_problems(notebook, runs) == []


def test_a_print_in_two_pieces_is_one() -> None:
    def cell(*texts: str) -> NotebookNode:
        return nbformat.from_dict(
            {"outputs": [{"output_type": "stream", "name": "stdout", "text": text} for text in texts]}
        )

    assert shown(cell("13.0 GB", "\n")) == shown(cell("13.0 GB\n")) != shown(cell("13.0 GB"))


# --- planted faults ---

RUN: dict[str, Any] = {
    "parameters": {"model": "llama-2-7b", "weights": "fp32"},
    "expect": {"size": "weights_bytes(find_model(model).parameters, weights)"},
    "shows": ['show(weights_bytes(find_model(model).parameters, weights), "GB")'],
}


def trial(folder: Path, *changes: tuple[str, str]) -> NotebookNode:
    text = TRIAL
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = folder / "trial.md"
    path.write_text(text, encoding="utf-8")
    return notebooks.read_source(path)


PRINTED = 'print(show(size, "GB"))'
READ = "size = weights_bytes(find_model(model).parameters, weights)"

BY_CODE = {
    "a parameter ignored": (
        (READ, "size = weights_bytes(13_000_000_000, weights)"),
        "'model': no cell below reads it",
    ),
    "all parameters ignored": ((READ, "size = 26_000_000_000"), "cell 4: depends on no parameter"),
    "a cell on its own": (
        ("display(SVG", "size = 26_000_000_000\ndisplay(SVG"),
        "cell 6: depends on no parameter",
    ),
    "assigned again": ((READ, f'model = "llama-2-7b"\n{READ}'), "gives the parameter 'model' another value"),
    "assigned by a loop": ((READ, f"for weights in ['int8']:\n    {READ}"), "gives the parameter 'weights'"),
    "assigned by an import": (
        (READ, f"from platform import machine as model\n{READ}"),
        "gives the parameter 'model'",
    ),
    "assigned in passing": ((READ, f"(weights := 'int8')\n{READ}"), "gives the parameter 'weights'"),
    "hidden by a comprehension": (
        (READ, "size = sum(weights_bytes(1, weights) for weights in ['int8'])\nmodel"),
        "'weights': no cell below reads it",
    ),
    "hidden by a function": (
        (READ, "def f(model):\n    return model\nsize = weights_bytes(f(1), weights)"),
        "'model': no cell below reads it",
    ),
    "computed parameters": (('weights = "bf16"', 'weights = "bf" + "16"'), "cannot be replaced"),
    "code among the parameters": (('weights = "bf16"', "import weights"), "is no NAME = LITERAL"),
    "no parameters": ((":tags: [parameters]", ":tags: [hide-input]"), "no parameter is assigned"),
}


def test_a_sound_notebook_passes_by_its_code(tmp_path: Path) -> None:
    assert list(dataflow.problems(trial(tmp_path))) == []


@pytest.mark.parametrize("fault", BY_CODE)
def test_a_planted_fault_is_told_by_its_code(tmp_path: Path, fault: str) -> None:
    change, told = BY_CODE[fault]
    found = list(dataflow.problems(trial(tmp_path, change)))
    assert any(told in problem for problem in found), found


QUOTED = "```{code-cell} ipython3\ndisplay(SVG"
QUOTATIONS = {
    'figure("footprint:13b-total")': None,
    "figure(26)": "holds the number 26",
    'show(size, "GB")': "calls show",
    "size + size": "computes 'size + size'",
}


@pytest.mark.parametrize("code", QUOTATIONS)
def test_a_quotation_shows_the_ledger_only(tmp_path: Path, code: str) -> None:
    quotation = f"```{{code-cell}} ipython3\n:tags: [quotation]\n\n{code}\n```\n\n{QUOTED}"
    notebook = trial(tmp_path, (QUOTED, quotation), ("import find_model,", "import figure, find_model,"))
    told = QUOTATIONS[code]
    assert [problem.partition("but ")[2] for problem in dataflow.problems(notebook)] == ([told] if told else [])


@pytest.mark.slow
def test_a_sound_notebook_passes_by_its_outputs(tmp_path: Path) -> None:
    notebook = trial(tmp_path)
    runs = executed(notebook, RUN, tmp_path)
    assert run_problems(notebook, RUN, runs) == []
    assert change_problems(notebook, runs) == []


@pytest.mark.slow
def test_figures_that_the_package_does_not_say_are_told(tmp_path: Path) -> None:
    notebook = trial(tmp_path, (READ, f"{READ} + 1"), (PRINTED, "print(weights)"))
    found = run_problems(notebook, RUN, executed(notebook, RUN, tmp_path))
    assert [problem.partition(":")[0] for problem in found] == ["size", RUN["shows"][0]]


@pytest.mark.slow
def test_a_parameter_that_changes_nothing_is_told(tmp_path: Path) -> None:
    named = READ.replace("(model)", '("llama-2-7b")')
    notebook = trial(
        tmp_path,
        (READ, f"model\n{named}"),
        ("HTML(f", "size\nHTML(f"),
        ("<text>{size}</text>", "<text>{weights}</text>"),
    )
    assert list(dataflow.problems(notebook)) == []

    def problems(**parameters: str) -> list[str]:
        return change_problems(notebook, executed(notebook, {"parameters": parameters}, tmp_path))

    assert problems(model="phi-2", weights="fp32") == ["parameter 'model': changing it changes no output"]
    assert problems(model="phi-2") == [
        "parameter 'model': changing it changes no output",
        "cell 4: no parameter changes what it shows",
        "cell 6: no parameter changes what it shows",
    ]
