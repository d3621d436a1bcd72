"""The public face: every name resolves, and none is also the name of a module."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import vlmmem


@pytest.mark.parametrize("name", vlmmem.__all__)
def test_every_name_resolves(name: str) -> None:
    assert getattr(vlmmem, name) is not None


def test_no_name_is_a_module_too() -> None:
    # importing vlmmem.estimate, were it a module, would put the module where the function is looked for
    modules = {module.name for module in pkgutil.iter_modules(vlmmem.__path__)}
    assert not modules & set(vlmmem.__all__)


def test_every_name_stands_in_the_room_that_the_table_says() -> None:
    for name, room in vlmmem._HOME.items():
        assert getattr(importlib.import_module(room), name) is getattr(vlmmem, name)


def test_the_type_checker_sees_the_same_names() -> None:
    tree = ast.parse((Path(vlmmem.__file__).with_suffix(".pyi")).read_text(encoding="utf-8"))
    stubbed = {
        alias.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert stubbed == vlmmem._HOME


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = getattr(vlmmem, "nothing")  # noqa: B009 (the checker knows that it is not there)


def test_importing_the_face_imports_no_room() -> None:
    code = "import sys, vlmmem; print([m for m in sys.modules if m.startswith('vlmmem.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
