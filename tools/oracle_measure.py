"""The measuring harness on small shapes, on the real CPU and under fake tensors: both must say the same bytes.

Called by tools/oracle.py in the oracle's own environment; tests/test_measure.py compares the answers with each other
and with what the package computes from the configs. What is followed is the same class of transformers with the same
input; on the CPU its tensors have values, memory and kernels.
"""

from typing import Any

from tools.oracle_configs import catalogue_configs, changed
from tools.oracle_vision import config_of
from vlmmem.architectures import build
from vlmmem.images import ImageTokens
from vlmmem.measured.harness import Asked, measure

SMALL = {"layers": 3, "hidden_size": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "intermediate_size": 160}
SMALL |= {"vocab_size": 100}
DEVICES = ("cpu", "fake")
LAYERS = 3

# Beside the usual shapes, what a family needs to be small. All small models are text alone.
TEXT: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama-3.1-8b", {}),
    "llama, many layers": ("llama-3.1-8b", {"num_hidden_layers": 7}),
    "opt": ("opt-125m", {"num_attention_heads": 4}),
    "qwen3": ("qwen3-8b", {}),
    "gemma3_text": ("gemma-3-1b", {"num_hidden_layers": 7, "sliding_window": 32}),
    "mixtral": ("mixtral-8x7b", {"num_local_experts": 4}),
    "bamba": (
        "bamba-9b",
        {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 16},
    ),
    "qwen3_next": (
        "qwen3-next-80b-a3b",
        {
            "num_hidden_layers": 4,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
        },
    ),
}
PASSES = ((40, 2), (65, 1))

# Families with images: (height, width) in patches of 14 pixels, or None where the tower takes one size.
SEEN: dict[str, tuple[int, int] | None] = {
    "llava": None,
    "gemma3": None,
    "paligemma": None,
    "internvl": None,
    "qwen2_vl": (4, 8),
    "qwen2_5_vl": (4, 8),
}
SIDE, PATCH, IMAGE = 56, 14, 99


def image_of(family: str, grid: tuple[int, int] | None) -> ImageTokens:
    """The counts of one image for a tower of 56 pixels and patches of 14, by hand."""
    if grid is not None:
        rows, columns = grid
        patches = rows * columns
        pixels = patches * 3 * 2 * PATCH**2
        return ImageTokens(columns * PATCH, rows * PATCH, patches // 4, patches // 4, pixels, 1, patches, grid)
    patches = (SIDE // PATCH) ** 2
    tokens = 4 if family in ("gemma3", "internvl") else patches
    return ImageTokens(SIDE, SIDE, tokens, tokens, 3 * SIDE**2, 1, patches)


def cases() -> list[dict[str, Any]]:
    """Every case: a config, its workload, and layers to build where the rest is extrapolated."""
    found: list[dict[str, Any]] = []
    for name, (model, changes) in TEXT.items():
        config = changed(catalogue_configs()[model], SMALL) | changes
        for field in ("torch_dtype", "dtype", "layer_types"):
            config.pop(field, None)
        layers = LAYERS if "many" in name else None
        found += [
            {"name": name, "config": config, "context": context, "batch": batch, "images": 0, "layers": layers}
            for context, batch in PASSES
        ]
    for family, grid in SEEN.items():
        # the classes' own ids of image tokens stand beyond a small vocabulary
        config = config_of(family, {}, {}) | {"image_token_index": IMAGE, "image_token_id": IMAGE}
        if grid is not None:
            rope = {"rope_type": "default", "mrope_section": [8, 6, 6], "rope_theta": 10000.0}
            config["text_config"] |= {"head_dim": 40, "rope_parameters": rope}
        found += [
            {"name": family, "config": config, "context": 64, "batch": 2, "images": images, "layers": None}
            for images in (1, 2)
        ]
    return found


def asked(case: dict[str, Any], device: str) -> Asked:
    """The question that a case is."""
    name, images = case["name"], case["images"]
    return Asked(
        build(case["config"]),
        case["config"],
        name,
        case["context"],
        case["batch"],
        images,
        None,
        image_of(name, SEEN[name]) if images else None,
        new_tokens=2,
        device=device,
        dtype="bf16",
        layers=case["layers"],
    )


def _answer(case: dict[str, Any]) -> dict[str, Any]:
    found = dict(case)
    for device in DEVICES:
        sizes = measure(asked(case, device)).sizes
        found[device] = {name: size for name, size in sizes.items() if name != "resident"}
    return found


def answers() -> dict[str, Any]:
    """Every case with its sizes on each device.

    One after the other: kernels of the CPU run on threads, and a process that is forked after the first of them waits
    for threads that it does not have.
    """
    return {"cases": [_answer(case) for case in cases()]}
