"""Whose parameters the oracle asks for, and in what words the answers compare. Needs no PyTorch.

Read by tools/oracle.py, which asks transformers, and by the tests, which build the same configs with the package.
"""

import hashlib
import json
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

from vlmmem.architectures import HOMES

__all__ = ["VARIANTS", "catalogue_configs", "changed", "defaults", "digest"]

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = ROOT / "tools" / "oracle_variants.json"
"""Configs that no published model has, to reach the branches of a builder that published ones leave out."""

# How a family's config calls a shape of `Model`, where it is not the usual name; None: it has no such field.
USUAL = {
    "layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "intermediate_size": "intermediate_size",
    "vocab_size": "vocab_size",
    "sliding_window": "sliding_window",
}
NAMES: dict[str, dict[str, str | None]] = {
    "gpt2": {
        "layers": "n_layer",
        "hidden_size": "n_embd",
        "heads": "n_head",
        "intermediate_size": "n_inner",
        "kv_heads": None,
        "head_dim": None,
    },
    "opt": {"intermediate_size": "ffn_dim", "kv_heads": None, "head_dim": None},
}

# Fields without which a class of transformers cannot be built.
NEEDED: dict[str, dict[str, Any]] = {
    # the class's own tower has 1152 elements in 14 heads, which do not divide
    "aya_vision": {"vision_config": {"model_type": "siglip_vision_model"}},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8},
}


def catalogue_configs() -> dict[str, dict[str, Any]]:
    """The config of every model of the catalogue by its id, as its file states it."""
    files = sorted((ROOT / "vlmmem" / "catalog" / "configs").glob("*.json"))
    return {
        entry["id"]: entry["config"]
        for path in files
        for entry in json.loads(path.read_text(encoding="utf-8"))["models"]
    }


def defaults() -> dict[str, dict[str, Any]]:
    """A config that says nothing, for every model_type that the package builds: the class's defaults decide."""
    return {kind: {"model_type": kind} | NEEDED.get(kind, {}) for kind in sorted(HOMES)}


def variants() -> dict[str, dict[str, Any]]:
    """The configs of `VARIANTS`, by name."""
    found: dict[str, dict[str, Any]] = json.loads(VARIANTS.read_text(encoding="utf-8"))
    return found


def changed(config: dict[str, Any], shapes: dict[str, Any]) -> dict[str, Any]:
    """A decoder's config with other shapes, named as `Model` names them.

    >>> changed({"model_type": "gpt2", "n_layer": 12}, {"layers": 2, "kv_heads": 4})
    {'model_type': 'gpt2', 'n_layer': 2}
    """
    if "text_config" in config:
        return {**config, "text_config": changed(config["text_config"], shapes)}
    names = USUAL | NAMES.get(config["model_type"], {})
    put = {names[shape]: value for shape, value in shapes.items() if names[shape] is not None}
    if config["model_type"] == "opt" and "hidden_size" in shapes:
        put["word_embed_proj_dim"] = shapes["hidden_size"]
    return {**config, **put}  # type: ignore[dict-item]


def shortened(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """A config with only its last layers, which are of the kinds that the whole model ends with; of its tower, two.

    >>> shortened({"num_hidden_layers": 4, "layer_types": ["a", "a", "b", "a"]}, 2)
    {'num_hidden_layers': 2, 'layer_types': ['b', 'a']}
    """
    found = dict(config)
    for part, kept in (("text_config", layers), ("vision_config", 2), ("audio_config", 2)):
        if isinstance(found.get(part), dict):
            found[part] = shortened(found[part], kept)
    found.pop("quantization_config", None)
    for name in ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "depth"):
        if name in found:
            found[name] = layers
    for name in ("layer_types", "hybrid_override_pattern", "attn_type_list", "no_rope_layers", "mlp_layer_types"):
        if found.get(name):
            found[name] = found[name][-layers:]
    if "first_k_dense_replace" in found:
        found["first_k_dense_replace"] = 0
    if "num_kv_shared_layers" in found:
        found["num_kv_shared_layers"] = 0
    if "cross_attention_layers" in found:
        found["cross_attention_layers"] = [layers - 2]
    if "attn_layer_indices" in found:
        found["attn_layer_indices"] = [layers - 2]
    return found


def digest(tensors: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, Any]:
    """Parameters, number of tensors and a hash of their names and shapes: equal where every tensor is equal."""
    found = sorted(tensors)
    lines = "".join(f"{name} {'x'.join(map(str, shape))}\n" for name, shape in found)
    return {
        "parameters": sum(prod(shape) for _, shape in found),
        "tensors": len(found),
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
    }
