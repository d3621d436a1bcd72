"""Caches: what each layer keeps against the cache objects of transformers, byte for byte (tools/oracle_caches.py)."""

import json
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest

from tools.oracle_configs import catalogue_configs
from vlmmem.architectures import HOMES, build
from vlmmem.errors import InputError
from vlmmem.layers import Cache, KeyValueCache, Layer
from vlmmem.memory import kv_cache_bytes
from vlmmem.model import Model

ANSWERS: dict[str, Any] = json.loads((Path(__file__).parent / "oracle" / "caches.json").read_text(encoding="utf-8"))
RAN = {name: found for name, found in ANSWERS["models"].items() if "error" not in found}
FAILED = {name: found["error"] for name, found in ANSWERS["models"].items() if "error" in found}
CONFIGS = catalogue_configs()
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def built(name: str) -> Model:
    """The model whose caches were asked for."""
    return build(CONFIGS.get(name, {"model_type": name}))


def between_passes(cache: Cache) -> Cache:
    """The cache as transformers keeps it between two passes: a window without the token that comes next."""
    if not isinstance(cache, KeyValueCache) or cache.limit is None:
        return cache
    return replace(cache, window=cache.limit - 1, chunk=None)


def held_there(case: dict[str, Any]) -> list[int]:
    """Bytes of each layer that transformers built."""
    sizes = [(count, sum(BYTES[dtype] * prod(shape) for dtype, shape in tensors)) for count, tensors in case["layers"]]
    return [size for count, size in sizes for _ in range(count)]


def held_here(model: Model, case: dict[str, Any], layers: list[Layer]) -> list[int]:
    """Bytes of each of the layers by the package."""
    return [
        kv_cache_bytes(
            model,
            case["context"],
            case["batch"],
            model.dtype,
            images=case["images"],
            layers=[replace(layer, caches=tuple(map(between_passes, layer.caches)))],
        )
        for layer in layers
    ]


@pytest.mark.parametrize("name", RAN)
def test_each_layer_keeps_what_transformers_keeps(name: str) -> None:
    model, found = built(name), RAN[name]
    layers = list(model.decoder.layers)
    assert len(layers) == found["layers"]
    for case in found["cases"]:
        there = held_there(case)
        assert held_here(model, case, layers[: len(there)]) == there, (case["context"], case["batch"], case["images"])
        # Where the oracle built few layers, all of them are of one kind, and so they are here.
        assert len(there) == len(layers) or len({layer.caches for layer in layers}) == 1


def test_a_wrong_window_or_width_is_noticed() -> None:
    model = built("gemma-3-1b")
    case = next(case for case in RAN["gemma-3-1b"]["cases"] if case["context"] > 512)
    layers = list(model.decoder.layers)
    there = held_there(case)
    for change in ({"window": 513}, {"heads": 2}, {"value_dim": 255}):
        first = layers[0].caches[0]
        assert isinstance(first, KeyValueCache)
        wrong = [replace(layers[0], caches=(replace(first, **change),)), *layers[1:]]
        assert held_here(model, case, wrong) != there


def test_every_family_was_asked() -> None:
    asked = {CONFIGS.get(name, {"model_type": name})["model_type"] for name in ANSWERS["models"]}
    assert asked == set(HOMES)
    # What transformers does not build, or cannot run without values, each with its reason.
    reasons = ("transformers has no ", "Validation error", "meta tensors", "unsupported operand", "split_sizes")
    others = ("empty() takes", "_forward_unimplemented")
    assert all(any(reason in error for reason in (*reasons, *others)) for error in FAILED.values()), FAILED
    assert len(RAN) > 3 * len(FAILED)


def test_every_kind_of_layer_was_asked() -> None:
    kinds = set()
    for name in RAN:
        try:
            kinds |= {layer.kind for layer in built(name).decoder.layers if layer.caches}
        except InputError:
            continue
    assert {"full", "sliding", "chunked", "latent", "linear", "state-space", "convolution", "cross"} <= kinds
