"""What several tests share. The markers are declared in pyproject.toml."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples every time: a red build is one that its author sees too. No deadline: machines are shared.
settings.register_profile("steady", derandomize=True, deadline=None, max_examples=40)
settings.load_profile("steady")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def built_book() -> Path:
    """The folder of the built book; its tests have the marker ``book`` or ``browser``."""
    folder = Path(os.environ.get("VLMMEM_BOOK_HTML") or ROOT / "_build" / "html")
    if not (folder / "index.html").exists():
        pytest.fail(f"{folder}/index.html is not there; 'make book' builds the book")
    return folder


TRIAL = """\
---
jupytext:
  formats: ipynb,md:myst
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# Weights

How much do the weights take?

```{code-cell} ipython3
from IPython.display import HTML, SVG, display

from vlmmem import find_model, show, weights_bytes
```

```{code-cell} ipython3
:tags: [parameters]

model = "llama-2-13b"
weights = "bf16"
```

```{code-cell} ipython3
size = weights_bytes(find_model(model).parameters, weights)
print(show(size, "GB"))
```

The same as a picture.

```{code-cell} ipython3
display(SVG(f'<svg xmlns="http://www.w3.org/2000/svg"><text>{size}</text></svg>'))
HTML(f"<b>{size}</b>")
```
"""
"""A notebook in which nothing is wrong; the gates' tests plant faults into copies of it."""


@pytest.fixture(scope="session")
def executed_trial() -> str:
    """The trial notebook's .ipynb, as tools/notebooks.py writes it."""
    import tempfile

    from tools import notebooks

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trial.md"
        path.write_text(TRIAL, encoding="utf-8")
        return notebooks.text_of(notebooks.execute([path])[0])
