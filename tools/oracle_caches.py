"""What the cache objects of transformers hold after a pass, asked on the meta device: shapes and types, no memory.

Called by tools/oracle.py in the oracle's own environment; tests/test_oracle_caches.py compares what each layer keeps
with `vlmmem.memory.kv_cache`.

How a family is asked: the class that a config names is built on the meta device in the config's dtype, a prompt goes
through it, and every tensor of every layer of its cache is listed. The layers are as published; where the cache object
has the same class of layer everywhere, four of them are built. Meta tensors have no values, so that what branches on
values is stood in for: the experts of a mixture answer in the shape of what they were given, masks are built without a
look at the tokens, and rotary tables do not grow with the prompt. No cache depends on any of it.

A sliding layer keeps window - 1 tokens between two passes. The prompts are one token shorter than each window, and
longer than it. A family that cannot be asked is recorded with its error.
"""

import multiprocessing
from copy import deepcopy
from itertools import groupby
from typing import Any

import torch
import transformers
from transformers import masking_utils

from tools.oracle import LONGEST_ERROR, build, parse
from tools.oracle_configs import catalogue_configs
from vlmmem.architectures import HOMES
from vlmmem.measured.harness.network import default_dtype

# Beside the first model of each model_type: kinds of layers that the first lacks.
MORE = ("gemma-4-26b-a4b", "gemma-4-31b", "granite-4.0-h-small", "llama-4-maverick", "nemotron-nano-12b-v2")
# What the catalogue leaves out, because no memory depends on it, and a pass needs.
MROPE = {"rope_type": "default", "mrope_section": [8, 12, 12], "partial_rotary_factor": 0.5, "rope_theta": 10000.0}
NEEDED: dict[str, dict[str, Any]] = {"glm4v": MROPE, "glm4v_moe": MROPE}
FEW = 4
IMAGES, TILES = 2, 4
# Tokens of a prompt and sequences; for a window, tokens beside it; for states, shorter and longer than a convolution.
PROMPTS = ((7, 3),)
AROUND = ((-1, 1), (9, 3))
STATES = ((2, 1), (9, 3))


def asked() -> dict[str, dict[str, Any]]:
    """A config for every model_type that the package builds: the catalogue's first, or the class's defaults."""
    configs = catalogue_configs()
    first: dict[str, str] = {}
    for name, config in configs.items():
        first.setdefault(config["model_type"], name)
    names = {*(first[kind] for kind in HOMES if kind in first), *(name for name in MORE if name in configs)}
    named = {name: configs[name] for name in names if configs[name]["model_type"] in HOMES}
    return named | {kind: {"model_type": kind} for kind in HOMES if kind not in first}


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """A config whose rotary tables do not grow with the prompt, and have what a pass needs."""
    found = {name: value for name, value in fields.items() if not _grows(name, value)}
    if "text_config" in found:
        # from_pretrained gives every part of a model the dtype of the whole
        text = {name: value for name, value in found["text_config"].items() if not name.endswith("dtype")}
        found["text_config"] = _plain(text)
    needed = NEEDED.get(found.get("model_type", ""))
    if needed and isinstance(found.get("text_config"), dict):
        found["text_config"]["rope_parameters"] = needed
    return found


def _grows(name: str, value: Any) -> bool:
    rope = value if name in ("rope_scaling", "rope_parameters") and isinstance(value, dict) else {}
    return rope.get("rope_type", rope.get("type")) in ("dynamic", "longrope")


class Cached:
    """A model on the meta device, ready for prompts."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Build the class that the config names, in its dtype."""
        masking_utils.is_tracing = lambda *_: True
        fields = _plain(deepcopy(config))
        text = fields.get("text_config") or fields
        where = config if "text_config" not in config else {**config["text_config"], **config}
        named = [where.get(field) for field in ("dtype", "torch_dtype")]
        self.dtype = next((each for each in named if each), "bfloat16").removeprefix("torch.")
        parsed = parse(fields)
        self.kinds = [_kind(layer) for layer in transformers.DynamicCache(config=parsed).layers]
        self.depth = len(self.kinds)
        alike = len(set(self.kinds)) == 1 and "cross_attention_layers" not in text
        if alike and self.depth > FEW:
            try:
                parsed.get_text_config(decoder=True).num_hidden_layers = FEW
            except Exception:  # a config that cannot be changed is built whole
                parsed = parse(fields)
        with default_dtype(getattr(torch, self.dtype)):
            self.network = build(fields, parsed).eval()
        for module in self.network.modules():
            if type(module).__name__.endswith("Experts"):
                module.forward = _same_shape

    def prompts(self) -> list[tuple[int, int]]:
        """Lengths and sequences that tell what its layers keep."""
        windows = sorted({window for _, window in self.kinds if window})
        found = [(window + more, batch) for window in windows for more, batch in AROUND if window + more > 0]
        states = any("Linear" in name for name, _ in self.kinds)
        return [*found, *(STATES if states else ())] or list(PROMPTS)

    def run(self, context: int, batch: int, images: int = 0) -> list[list[Any]]:
        """What each layer holds after a prompt: runs of layers alike, as [layers, [[dtype, shape], ...]]."""
        with torch.no_grad(), default_dtype(getattr(torch, self.dtype)), torch.device("meta"):
            ids = torch.ones((batch, context), dtype=torch.long)
            seen = self._images(context, batch, images) if images else {}
            out = self.network(input_ids=ids, use_cache=True, **seen)
        cache = out.past_key_values if "past_key_values" in out else out.cache_params
        beside = getattr(cache, "linear_cache", [])
        held = [
            _tensors(layer) + (_tensors(beside[index]) if index < len(beside) else [])
            for index, layer in enumerate(cache.layers)
        ]
        return [[len(list(alike)), found] for found, alike in groupby(held)]

    def _images(self, context: int, batch: int, images: int) -> dict[str, torch.Tensor]:
        """Images of the size that Llama 3.2 Vision takes, four tiles each."""
        tower = self.network.config.vision_config
        side = tower.image_size
        return {
            "pixel_values": torch.zeros((batch, images, TILES, tower.num_channels, side, side)),
            "aspect_ratio_ids": torch.ones((batch, images), dtype=torch.long),
            "aspect_ratio_mask": torch.ones((batch, images, TILES), dtype=torch.long),
            "cross_attention_mask": torch.ones((batch, context, images, TILES), dtype=torch.long),
        }


def _kind(layer: Any) -> tuple[str, int | None]:
    return type(layer).__name__, getattr(layer, "sliding_window", None)


def _same_shape(hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return torch.empty_like(hidden)


def _tensors(layer: Any) -> list[list[Any]]:
    """Every tensor that one layer of a cache holds: its dtype and its shape."""
    if torch.is_tensor(layer):
        return [[str(layer.dtype).removeprefix("torch."), list(layer.shape)]]
    if not hasattr(layer, "__dict__"):
        return []
    held = {name: value for name, value in vars(layer).items() if not name.startswith(("_", "cumulative"))}
    each = [
        item for _, value in sorted(held.items()) for item in (value.values() if isinstance(value, dict) else [value])
    ]
    return [found for item in each if torch.is_tensor(item) for found in _tensors(item)]


def measure(config: dict[str, Any]) -> dict[str, Any]:
    """What the caches of one model hold, or why that cannot be asked."""
    try:
        cached = Cached(config)
        prompts = [(context, batch, 0) for context, batch in cached.prompts()]
        if config["model_type"] == "mllama":
            prompts += [(7, 1, 1), (7, 3, IMAGES)]
        cases = [
            {"context": context, "batch": batch, "images": images, "layers": cached.run(context, batch, images)}
            for context, batch, images in prompts
        ]
    except Exception as error:  # whatever transformers raises is its answer
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0][:LONGEST_ERROR]}
    return {"class": type(cached.network).__name__, "dtype": cached.dtype, "layers": cached.depth, "cases": cases}


def answers() -> dict[str, Any]:
    """Every family with what its caches hold."""
    configs = asked()
    transformers.AutoModelForCausalLM  # noqa: B018 (imported once, before the processes part)
    with multiprocessing.get_context("fork").Pool() as pool:
        found = pool.map(measure, configs.values(), chunksize=1)
    return {"models": dict(zip(configs, found, strict=True))}
