"""The package against what transformers builds: tests/oracle, written by tools/oracle.py. Needs no PyTorch."""

import json
import subprocess
import sys
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import pytest

from tools.oracle_configs import catalogue_configs, changed, defaults, digest, variants
from vlmmem.architectures import HOMES, build
from vlmmem.layers import StateCache
from vlmmem.model import Model

ROOT = Path(__file__).resolve().parent.parent
ANSWERS = ROOT / "tests" / "oracle"


def answers(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ANSWERS / name).read_text(encoding="utf-8"))
    return found


BUILT = answers("parameters.json")
ASKED = {"models": catalogue_configs(), "defaults": defaults(), "variants": variants()}

DIFFERENT: dict[str, str] = {}
"""Configs whose tensors are not those of transformers, and why."""

KEPT_OTHERWISE: dict[str, str] = {
    "mllama": "transformers' cache counts cross-attention as any layer; it holds image states, of a fixed number",
}
"""Families whose layers do not keep what transformers' cache says without having run, and why."""

NOT_IN_TRANSFORMERS = ("ValueError: transformers has no model type ", "ValueError: transformers has no class ")
"""What the oracle answers where a class comes as remote code, or is a part of another model's class."""

REFUSED: dict[str, str] = {
    "dbrx": "its class takes neither its published config nor its own defaults in this release",
    "dots1": "it has no default for the number of experts",
    "gemma-3n-e2b": "its vision tower is built by timm, which the oracle has not installed",
    "gemma-3n-e4b": "its vision tower is built by timm, which the oracle has not installed",
    "lfm2_moe": "it has no default for the kinds of layers",
}
"""Configs that transformers does know, and that its class refuses all the same."""


def parts_of(model: Model) -> dict[str, Any]:
    """The same facts of the package's model as the oracle has of the class."""
    tensors: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for part in model.parts:
        tensors.setdefault(part.name, []).extend((name, tensor.shape) for name, tensor in part.named())
    return {name: digest(found) for name, found in tensors.items() if found}


def kept(model: Model) -> list[list[Any]]:
    """What each layer of the decoder keeps, in the words of the oracle: runs of [layers, what, window]."""
    found = []
    for layer in model.decoder.layers:
        states = any(isinstance(cache, StateCache) for cache in layer.caches)
        others = [cache for cache in layer.caches if not isinstance(cache, StateCache)]
        limit = others[0].limit if others else None
        what = "" if not others else "all" if limit is None else "window"
        found.append((" and ".join(word for word in ("state" if states else "", what) if word) or "nothing", limit))
    return [[len(list(run)), *what] for what, run in groupby(found)]


def comparable() -> list[Any]:
    """Each config that both sides build."""
    return [
        pytest.param(config, BUILT[kind][name], id=f"{kind}: {name}")
        for kind, configs in ASKED.items()
        for name, config in configs.items()
        if name not in DIFFERENT and config["model_type"] in HOMES and "class" in BUILT[kind].get(name, {})
    ]


@pytest.mark.parametrize(("config", "answer"), comparable())
def test_every_tensor_and_every_cache_is_the_one_that_transformers_builds(
    config: dict[str, Any], answer: dict[str, Any]
) -> None:
    model = build(config)
    assert parts_of(model) == answer["parts"]
    assert model.parameters == answer["parameters"]
    if config["model_type"] not in KEPT_OTHERWISE:
        assert kept(model) == answer["layers"]


def test_every_config_was_asked() -> None:
    for kind, configs in ASKED.items():
        assert set(BUILT[kind]) == set(configs), kind


def test_a_config_that_transformers_cannot_build_says_why() -> None:
    for kind, configs in ASKED.items():
        for name in configs:
            error = BUILT[kind][name].get("error")
            if error is not None and name not in REFUSED:
                assert error.startswith(NOT_IN_TRANSFORMERS), name


def test_a_tensor_of_another_name_or_shape_is_noticed() -> None:
    config = ASKED["models"]["llama-2-7b"]
    expected = BUILT["models"]["llama-2-7b"]["parts"]
    assert parts_of(build(config)) == expected
    assert parts_of(build({**config, "attention_bias": True})) != expected
    first, *others = build(config).tensors()
    renamed = [("embeddings.weight", first[1].shape), *((name, tensor.shape) for name, tensor in others)]
    assert digest(renamed)["parameters"] == expected["language"]["parameters"]
    assert digest(renamed)["sha256"] != expected["language"]["sha256"]


def test_explained_differences_are_of_configs_that_were_asked() -> None:
    assert set(DIFFERENT) <= set(chain(*ASKED.values()))


def test_shapes_are_changed_under_the_names_of_the_family() -> None:
    opt = changed({"model_type": "opt"}, {"hidden_size": 64, "intermediate_size": 160, "kv_heads": 4})
    assert opt == {"model_type": "opt", "hidden_size": 64, "word_embed_proj_dim": 64, "ffn_dim": 160}
    llava = changed({"model_type": "llava", "text_config": {"model_type": "llama"}}, {"layers": 2})
    assert llava["text_config"] == {"model_type": "llama", "num_hidden_layers": 2}


def test_the_answers_name_the_versions_that_gave_them() -> None:
    pins = dict(
        line.split("==")
        for line in (ROOT / "tools" / "oracle-requirements.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    )
    for path in sorted(ANSWERS.glob("*.json")):
        versions = answers(path.name)["versions"]
        assert versions == {name: pins[name] for name in versions}, path.name
        assert "transformers" in versions, path.name


def test_the_command_starts_without_pytorch() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "oracle.py", "--only", "nothing.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--only: invalid choice: 'nothing.json'" in done.stderr.splitlines()[-1]
