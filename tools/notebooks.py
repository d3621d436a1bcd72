"""The notebooks: each .md is the source, the .ipynb beside it is made from it and carries the outputs.

``python tools/notebooks.py`` (``make notebooks``) executes every notebook, or those named, and writes its
.ipynb so that one source gives the same bytes: no times, no versions, ids from the cells' content.
``python tools/notebooks.py check`` executes nothing and says where a pair or an output is not in order.
"""

import ast
import asyncio
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
FORMATS = "ipynb,md:myst"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
TAGS = {
    "parameters": "papermill puts other values behind this cell",
    "quotation": "shows the ledger's figures only, which no parameter changes",
    "hide-input": "the book folds the code",
    "remove-input": "the book leaves the code out, for a sentence that is computed",
}
"""The tags that a cell may have, and why. A misspelt one would do nothing, so any other is refused."""

NBVAL_MARKERS: dict[str, str] = {}
"""Comments that change what nbval compares, with the reason. None is needed; any other is refused."""

_CELL_TIMEOUT = 120
_AT_A_TIME = 2
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NBVAL = re.compile(r"nbval|pytest_validate", re.IGNORECASE)


def read_source(path: Path) -> NotebookNode:
    """The notebook that a .md holds: cells without outputs, metadata and ids as its .ipynb must have them."""
    notebook = jupytext.read(path)
    jupytext_metadata = {**notebook.metadata.get("jupytext", {})}
    for key in ("text_representation", "notebook_metadata_filter"):
        jupytext_metadata.pop(key, None)
    notebook.metadata["jupytext"] = jupytext_metadata
    notebook.metadata["language_info"] = {"name": KERNEL["language"]}
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        content = f"{cell.cell_type}\n{cell.source}"
        cell["id"] = hashlib.sha256(f"{content}\n{seen[content]}".encode()).hexdigest()[:8]
        seen[content] += 1
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


async def _execute(notebook: NotebookNode, folder: Path, name: str) -> NotebookNode:
    client = NotebookClient(
        notebook,
        timeout=_CELL_TIMEOUT,
        kernel_name=KERNEL["name"],
        # The kernel would warn, at each start, that it listens on this machine without encryption.
        extra_arguments=["--IPKernelApp.log_level=40"],
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    metadata = json.loads(json.dumps(notebook.metadata))
    try:
        await client.async_execute()
    except CellExecutionError as error:
        raise RuntimeError(f"{name}: {_COLOUR.sub('', str(error)).strip()}") from None
    # nbclient adds the kernel's Python version, which differs between machines.
    notebook.metadata = nbformat.from_dict(metadata)
    return notebook


def execute(paths: Sequence[Path]) -> list[NotebookNode]:
    """Each .md executed from a fresh kernel, a few at a time; raises RuntimeError for a cell that fails."""

    async def run() -> list[NotebookNode]:
        limit = asyncio.Semaphore(_AT_A_TIME)

        async def one(path: Path) -> NotebookNode:
            async with limit:
                return await _execute(read_source(path), path.parent, path.name)

        return await asyncio.gather(*(one(path) for path in paths))

    return asyncio.run(run())


def text_of(notebook: NotebookNode) -> str:
    """The bytes of an .ipynb: sorted keys, one form."""
    return f"{nbformat.writes(notebook).rstrip()}\n"


def _cell(cell: NotebookNode) -> dict[str, Any]:
    return {
        "type": cell.cell_type,
        "source": cell.source,
        "metadata": {**cell.metadata},
        "id": cell.get("id"),
    }


def _first_difference(source: NotebookNode, stored: NotebookNode) -> str | None:
    if source.metadata != stored.metadata:
        keys = [
            key
            for key in sorted({*source.metadata, *stored.metadata})
            if source.metadata.get(key) != stored.metadata.get(key)
        ]
        return f"metadata {', '.join(keys)} differ from the .md"
    for number, (ours, theirs) in enumerate(zip(source.cells, stored.cells, strict=False), 1):
        left, right = _cell(ours), _cell(theirs)
        for key in ("type", "source", "metadata", "id"):
            if left[key] != right[key]:
                return f"cell {number}: its {key} differs from the .md"
    if len(source.cells) != len(stored.cells):
        return f"{len(stored.cells)} cells, the .md has {len(source.cells)}"
    return None


def pair_problems(folder: Path = FOLDER) -> list[str]:
    """One line for every .md and .ipynb that do not agree cell by cell, or stand alone."""
    problems = []
    sources = {path.stem for path in folder.glob("*.md")}
    stored = {path.stem for path in folder.glob("*.ipynb")}
    problems += [f"{name}.md: has no .ipynb; 'make notebooks' writes it" for name in sorted(sources - stored)]
    problems += [f"{name}.ipynb: has no .md, which is the source" for name in sorted(stored - sources)]
    if not sources:
        problems.append(f"{folder.name}: no notebook")
    for name in sorted(sources & stored):
        source = read_source(folder / f"{name}.md")
        if source.metadata.jupytext.get("formats") != FORMATS:
            problems.append(f"{name}.md: jupytext formats are not {FORMATS!r}, so JupyterLab would not pair it")
        if source.metadata.get("kernelspec") != KERNEL:
            problems.append(f"{name}.md: its kernelspec is not {KERNEL}")
        difference = _first_difference(source, nbformat.read(folder / f"{name}.ipynb", as_version=4))
        if difference:
            problems.append(f"{name}.ipynb: {difference}; 'make notebooks' writes it again")
    return problems


def _shows_something(source: str) -> bool:
    """Whether a cell's last statement is an expression, whose value Jupyter displays."""
    tree = ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", source, flags=re.MULTILINE))
    last = tree.body[-1] if tree.body else None
    silent = source.rstrip().endswith(";") or (isinstance(last, ast.Expr) and _is_call_of_procedure(last.value))
    return isinstance(last, ast.Expr) and not silent


def _is_call_of_procedure(node: ast.expr) -> bool:
    """Whether an expression is a call, which may return None and so show nothing."""
    return isinstance(node, ast.Call) or (isinstance(node, ast.Constant) and node.value is None)


def stored_problems(path: Path) -> list[str]:
    """One line for all in an .ipynb that nbval lets pass: cells not executed, unknown tags and markers."""
    notebook = nbformat.read(path, as_version=4)
    problems = []
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        problems.append(f"{path.name}: not valid: {error.message}")
    code = [(number, cell) for number, cell in enumerate(notebook.cells, 1) if cell.cell_type == "code"]
    for expected, (number, cell) in enumerate(code, 1):
        place = f"{path.name}: cell {number}"
        if cell.execution_count != expected:
            count = "was never executed" if cell.execution_count is None else f"was executed as {cell.execution_count}"
            problems.append(f"{place}: {count}; 'make notebooks' executes it as {expected}")
        if _shows_something(cell.source) and not cell.outputs:
            problems.append(f"{place}: ends in a value and stores no output; 'make notebooks' executes it")
        if any(output.output_type == "error" or output.get("name") == "stderr" for output in cell.outputs):
            problems.append(f"{place}: stores an error or a warning; its source should give none")
        comments = (line.partition("#")[2].strip() for line in cell.source.splitlines())
        problems += [
            f"{place}: marker {comment!r}; a cell's output is always compared"
            for comment in comments
            if _NBVAL.search(comment) and comment not in NBVAL_MARKERS
        ]
    problems += [
        f"{path.name}: cell {number}: tag {tag!r}; one of {', '.join(TAGS)} is known"
        for number, cell in enumerate(notebook.cells, 1)
        for tag in cell.metadata.get("tags", ())
        if tag not in TAGS
    ]
    tagged = [number for number, cell in code if "parameters" in cell.metadata.get("tags", ())]
    if len(tagged) != 1:
        problems.append(f"{path.name}: {len(tagged)} cells tagged 'parameters'; there must be one")
    return problems


def problems(folder: Path = FOLDER) -> list[str]:
    """Everything that is not in order without executing anything."""
    return pair_problems(folder) + [
        problem for path in sorted(folder.glob("*.ipynb")) for problem in stored_problems(path)
    ]


def write(paths: Iterable[Path]) -> list[str]:
    """Execute each .md and write its .ipynb; returns the names of those that changed."""
    paths = list(paths)
    changed = []
    for path, notebook in zip(paths, execute(paths), strict=True):
        target, text = path.with_suffix(".ipynb"), text_of(notebook)
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")
            changed.append(target.name)
    return changed


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    if list(arguments) == ["check"]:
        found = problems()
        print(*found, sep="\n", end="\n" if found else "")
        return 1 if found else 0
    paths = [Path(name).with_suffix(".md") for name in arguments] or sorted(FOLDER.glob("*.md"))
    for path in paths:
        if not path.exists():
            print(f"notebooks: {path}: no such notebook; a .md in notebooks/ is", file=sys.stderr)
            return 2
    try:
        changed = write(paths)
    except RuntimeError as error:
        print(f"notebooks: {error}", file=sys.stderr)
        return 1
    print(f"{len(paths)} notebooks executed; written: {', '.join(changed) or 'none changed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
