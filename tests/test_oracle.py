"""The package against what transformers builds: tests/oracle, written by tools/oracle.py. Needs no PyTorch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vlmmem.catalog import find_model, models
from vlmmem.errors import InputError
from vlmmem.model import Model

ROOT = Path(__file__).resolve().parent.parent
ANSWERS = ROOT / "tests" / "oracle"


def answers(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ANSWERS / name).read_text(encoding="utf-8"))
    return found


BUILT = answers("parameters.json")["models"]


@pytest.mark.parametrize("model", models(), ids=lambda model: model.id)
def test_parameters_to_the_parameter(model: Model) -> None:
    assert BUILT[model.id]["parameters"] == model.parameters
    assert BUILT[model.id]["parameters_by_part"] == model.parameters_by_part


def test_no_answer_without_a_model() -> None:
    assert set(BUILT) == {model.id for model in models()}


def _published() -> list[tuple[Model, dict[str, Any]]]:
    found = []
    for name, answer in answers("configs.json")["configs"].items():
        try:
            model = find_model(name.removesuffix(".json").replace("--", "/"))
        except InputError:
            continue
        found.append((model, answer))
    return found


@pytest.mark.parametrize(("model", "answer"), _published(), ids=lambda each: getattr(each, "id", ""))
def test_the_published_config_says_the_same(model: Model, answer: dict[str, Any]) -> None:
    assert answer["parameters"] == model.parameters
    assert answer["parameters_by_part"] == model.parameters_by_part
    assert {field: getattr(model, field) for field in answer["shapes"]} == answer["shapes"]


def test_most_of_the_catalogue_has_a_published_config() -> None:
    assert len({model.id for model, _ in _published()}) == 11


def test_a_config_that_cannot_be_built_says_why() -> None:
    configs = answers("configs.json")["configs"]
    assert configs["OpenGVLab--InternVL2-2B.json"] == {
        "error": "ValueError: transformers has no model type internvl_chat"
    }


def test_the_answers_name_the_versions_that_gave_them() -> None:
    pins = dict(
        line.split("==")
        for line in (ROOT / "tools" / "oracle-requirements.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    )
    for path in sorted(ANSWERS.glob("*.json")):
        assert answers(path.name)["versions"] == pins, path.name


def test_the_command_starts_without_pytorch() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "oracle.py", "--configs", "/nowhere"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "--configs: /nowhere is not a folder; a folder of config.json files is needed"
    )
