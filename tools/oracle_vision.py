"""The peak of real passes that make features of images, asked of transformers and PyTorch without weights.

Called by tools/oracle.py in the oracle's own environment; tests/test_vision.py compares the closed forms of
`vlmmem.memory.vision` with the answers. A case is measured as in tools/oracle_forward.py: a dispatch mode follows the
storages that live during `get_image_features`. Towers that take images of one size run under `FakeTensorMode`, with
published shapes among them; those that read the sizes of images from a tensor's values run on small tensors of the
CPU. Layers do not differ, so that few are built; cases of other depths show that nothing grows with their number.
"""

import multiprocessing
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.initialization import no_init_weights

from tools.oracle_forward import DTYPES
from vlmmem.measured.harness.network import default_dtype
from vlmmem.measured.harness.storages import LiveStorages

REAL = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "idefics3", "smolvlm")
FAMILIES = {
    "llava": ("llama", "clip_vision_model"),
    "llava, siglip": ("llama", "siglip_vision_model"),
    "llava_next": ("llama", "clip_vision_model"),
    "llava_onevision": ("qwen2", "siglip_vision_model"),
    "paligemma": ("gemma", "siglip_vision_model"),
    "gemma3": ("gemma3_text", "siglip_vision_model"),
    "internvl": ("qwen2", "internvl_vision"),
    "idefics3": ("llama", "idefics3_vision"),
    "smolvlm": ("llama", "smolvlm_vision"),
    "qwen2_vl": ("qwen2_vl_text", "qwen2_vl_vision"),
    "qwen2_5_vl": ("qwen2_5_vl_text", "qwen2_5_vl_vision"),
    "qwen3_vl": ("qwen3_vl_text", "qwen3_vl_vision"),
}
TEXT = {
    "hidden_size": 80,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 100,
}
TOWER = {"hidden_size": 96, "intermediate_size": 224, "num_hidden_layers": 3, "num_attention_heads": 6}
PIXELS = {"image_size": 56, "patch_size": 14}

# What each family changes, so that each moment is the peak once: the text model's fields and the tower's.
SHAPES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "usual": ({}, {}),
    "narrow MLP": ({}, {"intermediate_size": 32}),
    "wide MLP": ({}, {"intermediate_size": 800}),
    "middling MLP": ({}, {"intermediate_size": 112}),
    "wide text": ({"hidden_size": 8000}, {"intermediate_size": 32}),
    "narrow tower": ({}, {"hidden_size": 24, "intermediate_size": 16}),
    "deeper": ({}, {"num_hidden_layers": 5}),
}
USUAL_SHAPES = ("usual", "narrow MLP", "wide MLP", "wide text")
SHAPES_ASKED: dict[str, tuple[str, ...]] = {
    "llava": tuple(SHAPES),
    "internvl": tuple(SHAPES),
    "llava, siglip": ("usual", "narrow tower"),
    "idefics3": (*USUAL_SHAPES, "narrow tower"),
    "smolvlm": ("usual",),
}
GRIDS = ((4, 8), (10, 6), (2, 2))
# Of the last, so little is left without its padding that the crops outweigh it.
SIZES = ((100, 100), (56, 100), (10, 100))
IMAGES = (1, 3)
# One image lies in rows already, two do not.
IMAGES_ASKED = {"gemma3": (1, 2, 3)}

# The widths of published towers: hidden and intermediate size, heads, image and patch side, the decoder's hidden size.
PUBLISHED = {
    "llava": (1024, 4096, 16, 336, 14, 4096),
    "llava_onevision": (1152, 4304, 16, 384, 14, 3584),
    "paligemma": (1152, 4304, 16, 448, 14, 2048),
    "gemma3": (1152, 4304, 16, 896, 14, 2560),
    "internvl": (1024, 4096, 16, 448, 14, 3584),
}


def config_of(name: str, text: dict[str, int], tower: dict[str, int]) -> dict[str, Any]:
    """A config.json of the family with one text layer."""
    decoder, encoder = FAMILIES[name]
    family = name.split(",", maxsplit=1)[0]
    inner: dict[str, Any] = {"model_type": decoder, **TEXT, **text}
    outer: dict[str, Any] = {"model_type": family, "text_config": inner}
    if family in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
        shape = TOWER | tower
        fields: dict[str, Any] = {
            "depth": shape["num_hidden_layers"],
            "num_heads": shape["num_attention_heads"],
            "patch_size": 14,
        }
        if family == "qwen2_vl":
            ratio = max(1, shape["intermediate_size"] // shape["hidden_size"])
            fields |= {"embed_dim": shape["hidden_size"], "mlp_ratio": ratio, "hidden_size": inner["hidden_size"]}
        else:
            fields |= {"hidden_size": shape["hidden_size"], "intermediate_size": shape["intermediate_size"]}
            fields |= {"out_hidden_size": inner["hidden_size"]}
        if family == "qwen2_5_vl":
            fields |= {"fullatt_block_indexes": [1]}
        if family == "qwen3_vl":
            fields |= {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64}
        return outer | {"vision_config": {"model_type": encoder, **fields}}
    fields = {"model_type": encoder, **TOWER, **PIXELS, **tower}
    if encoder == "siglip_vision_model":
        fields |= {"vision_use_head": False}
    if family in ("llava_next", "llava_onevision"):
        side = fields["image_size"]
        outer |= {"image_grid_pinpoints": [[side, 2 * side], [2 * side, side], [2 * side, 2 * side]]}
    if family == "llava" and encoder == "siglip_vision_model":
        outer |= {"vision_feature_select_strategy": "full"}
    if family == "paligemma":
        outer |= {"projection_dim": inner["hidden_size"]}
    if family == "gemma3":
        outer |= {"mm_tokens_per_image": 4 if fields["image_size"] == PIXELS["image_size"] else 256}
    return outer | {"vision_config": fields}


def inputs(config: dict[str, Any], images: int, size: tuple[int, int] | None) -> dict[str, Any]:
    """The tensors of a processor: pixels in float32, and what the family needs beside them."""
    family, tower = config["model_type"], config["vision_config"]
    if family in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
        assert size is not None
        patches = images * size[0] * size[1]
        return {
            "pixel_values": torch.zeros((patches, 3 * 2 * tower["patch_size"] ** 2)),
            "image_grid_thw": torch.tensor([[1, *size]] * images),
        }
    side = tower["image_size"]
    if family in ("llava_next", "llava_onevision"):
        return {"pixel_values": torch.zeros((images, 5, 3, side, side)), "image_sizes": [list(size or ())] * images}
    if family in ("idefics3", "smolvlm"):
        return {
            "pixel_values": torch.ones((1, images, 3, side, side)),
            "pixel_attention_mask": torch.ones((1, images, side, side), dtype=torch.bool),
        }
    return {"pixel_values": torch.zeros((images, 3, side, side))}


def measure(config: dict[str, Any], passes: list[dict[str, Any]], dtype: str = "bf16") -> list[dict[str, Any]]:
    """Each pass with its bytes at the peak over weights and inputs, and tokens of one image."""
    fields = dict(config)
    parsed = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
    mode: Any = nullcontext() if config["model_type"] in REAL else FakeTensorMode()
    with mode, torch.no_grad():
        with default_dtype(DTYPES[dtype]), no_init_weights():
            network = transformers.AutoModelForImageTextToText.from_config(
                parsed, attn_implementation="sdpa", dtype=DTYPES[dtype]
            )
        network.eval()
        return [{**case, **_pass(network, inputs(config, case["images"], case["size"]), case)} for case in passes]


def _pass(network: torch.nn.Module, given: dict[str, Any], case: dict[str, Any]) -> dict[str, int]:
    tensors = [value for value in given.values() if isinstance(value, torch.Tensor)]
    live = LiveStorages([*network.parameters(), *network.buffers(), *tensors])
    with live:
        made = network.get_image_features(**given).pooler_output
    each = made if isinstance(made, list | tuple) else [made]
    tokens = sum(part.numel() // part.shape[-1] for part in each)
    return {"peak_bytes": max(live.peaks.values()), "tokens": tokens // case["images"]}


def crops_of(config: dict[str, Any], size: tuple[int, int] | None) -> int:
    """Pieces of one image: tiles of the smallest canvas that holds most of it, and the overview."""
    if config["model_type"] not in ("llava_next", "llava_onevision"):
        return 1
    side = config["vision_config"]["image_size"]
    height, width = size or (side, side)
    return 1 + (1 if height <= side else 2) * (1 if width <= side else 2)


def cases() -> Iterator[dict[str, Any]]:
    """Every config with its passes: images, and the size of one where the family takes any."""
    for name in FAMILIES:
        for shape, (text, tower) in SHAPES.items():
            if shape not in SHAPES_ASKED.get(name, USUAL_SHAPES):
                continue
            config = config_of(name, text, tower)
            family = config["model_type"]
            sizes: tuple[tuple[int, int] | None, ...] = (None,)
            if family in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
                sizes = GRIDS
            elif family in ("llava_next", "llava_onevision"):
                sizes = SIZES
            counts = IMAGES_ASKED.get(family, IMAGES)
            passes = [{"images": images, "size": size} for size in sizes for images in counts]
            yield {"config": config, "passes": passes}
    for name, (hidden, wide, heads, side, patch, decoder) in PUBLISHED.items():
        changes = {
            "hidden_size": hidden,
            "intermediate_size": wide,
            "num_attention_heads": heads,
            "image_size": side,
            "patch_size": patch,
        }
        config = config_of(name, {"hidden_size": decoder}, changes)
        size = (side, 2 * side) if name == "llava_onevision" else None
        yield {"config": config, "passes": [{"images": 2, "size": size}]}
    for name in ("llava", "internvl"):
        yield {"config": config_of(name, {}, {}), "dtype": "fp16", "passes": [{"images": 2, "size": None}]}


def _answer(case: dict[str, Any]) -> dict[str, Any]:
    config = case["config"]
    passes = measure(config, case["passes"], case.get("dtype", "bf16"))
    return {**case, "passes": [{**each, "crops": crops_of(config, each["size"])} for each in passes]}


def answers() -> dict[str, Any]:
    """Every case with its answers."""
    torch.set_num_threads(1)
    with multiprocessing.get_context("fork").Pool() as pool:
        return {"cases": pool.map(_answer, list(cases()), chunksize=4)}
