"""The vision tower's compute buffer: the graph of one image, as llama.cpp reserves it when it loads an mmproj file.

tools/mtmd/clip.cpp (`alloc_compute_meta`, `build_vit`, `build_attn`, `build_ffn`, `set_warmup_n_tokens`), read at
0c1e5709 (2026); flash attention came in November 2025 (pull request 16837). The layers are walked through; what stands
behind the last one (pooling, projector) is smaller.
"""

from vlmmem.engines.llama_cpp.ggml import CUDA_ALIGNMENT, Graph, Node, buffer_bytes
from vlmmem.engines.releases import Release
from vlmmem.model import Model, VisionTower

__all__ = ["tower_buffer", "warmup_side"]

_F32 = 4
_ANY_SIZE = {
    "qwen2_vl": 46, "qwen2_5_vl": 46, "qwen3_vl": 46, "qwen3_5": 46, "glm4v": 46, "exaone4_5": 46,
    "pixtral": 16, "kimi_vl": 16, "gemma4": 16, "gemma4_vision": 16, "lfm2_vl": 16, "mistral3": 16,
}  # fmt: skip
"""Families that read images of any size: tokens on a side of the image that is reserved for."""

_MOST_LAYERS = 4


def warmup_side(tower: VisionTower) -> int | None:
    """Pixels on a side of the image that is reserved for; None where the family's rule was not read."""
    for family, tokens in _ANY_SIZE.items():
        if tower.architecture.startswith(family):
            return tokens * tower.patch_size * max(1, tower.merge)
    return tower.image_size or None


def _turning(tower: VisionTower) -> bool:
    """Whether queries, keys and values come out of one matrix, and turn with their position."""
    return tower.architecture.startswith(("qwen2_vl", "qwen2_5_vl", "qwen3", "glm4v"))


def _layer(graph: Graph, tower: VisionTower, here: Node, positions: Node, *, flash: bool, gated: bool) -> Node:
    rows = here.bytes // (_F32 * tower.hidden_size)
    size = here.bytes
    joined = _turning(tower)
    normed = Node(size, (here,))
    normed = Node(size, (normed,), inplace=True)
    if joined:
        made = Node(3 * size, (normed,))
        q, k, v = (Node(size, (made,), view=made) for _ in range(3))
        q, k = Node(size, (q, positions)), Node(size, (k, positions))
    else:
        made_q, made_k, made_v = (Node(size, (normed,)) for _ in range(3))
        q, k, v = (Node(size, (made,), view=made) for made in (made_q, made_k, made_v))
    for node in (q, k, v):
        graph.expand(node)
    if flash:
        sixteen = [Node(size // 2, (Node(size, (node,), view=node),)) for node in (k, v)]
        out = Node(size, (Node(size, (q,), view=q), *sixteen))
        out = Node(size, (out,), view=out)
    else:
        across = Node(size, (Node(size, (v,), view=v),))
        scores = Node(rows * rows * tower.heads * _F32, (Node(size, (k,), view=k), Node(size, (q,), view=q)))
        got = Node(size, (across, Node(scores.bytes, (scores,), inplace=True)))
        out = Node(size, (Node(size, (got,), view=got),))
    added = Node(size, (Node(size, (out,)), here), inplace=True)
    normed = Node(size, (Node(size, (added,)),), inplace=True)
    wide = rows * tower.intermediate_size * _F32
    up = Node(wide, (normed,))
    opened = Node(wide, (Node(wide, (normed,)), up)) if gated else Node(wide, (up,), inplace=True)
    return Node(size, (added, Node(size, (opened,))), inplace=True)


def tower_buffer(model: Model, release: Release) -> tuple[int, int] | None:
    """Bytes of the vision tower's compute buffer on the GPU, and pixels on a side of the image that it is for.

    None where the tower's rule was not read, or its shape is not known.
    """
    tower = model.vision
    if tower is None or not (tower.hidden_size and tower.intermediate_size and tower.heads):
        return None
    side = warmup_side(tower)
    if not side or side < tower.patch_size:
        return None
    gated = any(
        "gate" in tensor.name
        for part in model.parts
        if part.name == "vision"
        for layer in part.layers[:1]
        for tensor in layer.tensors
    )
    patches = (side // tower.patch_size) ** 2
    graph = Graph()
    pixels = Node(side * side * tower.channels * _F32, input=True)
    positions = Node(4 * patches * 4 if _turning(tower) else 4 * patches, input=True)
    size = patches * tower.hidden_size * _F32
    patch = tower.patch_size**2 * tower.channels
    columns = Node(2 * patches * patch, (pixels,))
    here = Node(size, (Node(size, (columns,), view=columns), columns))
    here = Node(size, (here,))
    if _turning(tower):
        # two frames' convolutions are added, and the patches are put into the merger's order
        second = Node(size, (Node(2 * patches * patch, (pixels,)),))
        here = Node(size, (Node(size, (here, second), inplace=True),))
        here = Node(size, (here,))
    for _ in range(min(tower.layers, _MOST_LAYERS)):
        here = _layer(graph, tower, here, positions, flash=release.since("b7079"), gated=gated)
    graph.expand(here)
    return buffer_bytes(graph.nodes, graph.leaves, CUDA_ALIGNMENT)[0], side
