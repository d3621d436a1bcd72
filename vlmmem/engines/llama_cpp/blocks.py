"""A model's layers as llama.cpp's graph sees them."""

from vlmmem.engines.llama_cpp.cache import SLIDING, Layout
from vlmmem.engines.llama_cpp.graph import Block
from vlmmem.engines.releases import Release
from vlmmem.layers import KeyValueCache, LatentCache, Layer, StateCache, Tensor
from vlmmem.model import Model

__all__ = ["blocks_of"]

_FUSED = ("qkv", "query_key_value", "c_attn", "W_pack")
_DOWN = ("down", "fc2", "c_proj", "w2", "4h_to_h", "fc_out", "ffn_down", "output_linear")


def _narrows(tensor: Tensor) -> bool:
    """Whether a matrix leads from the MLP's width back to the hidden size."""
    name = tensor.name
    return any(mark in name for mark in _DOWN) and not any(mark in name for mark in ("attn.", "attention.", "mixer."))


def block_of(model: Model, layer: Layer, release: Release, cells: Layout, host_experts: int = 0) -> Block:
    """One layer.

    Args:
        model: the model.
        layer: one of its decoder's layers.
        release: the build.
        cells: of its caches.
        host_experts: bytes of the layer's experts where they lie in the host's memory.
    """
    keys = next((cache for cache in layer.caches if isinstance(cache, KeyValueCache)), None)
    latent = next((c for c in layer.caches if isinstance(c, LatentCache) and c.what == "latent"), None)
    names = [tensor.name for tensor in layer.tensors]
    heads = _query_heads(model, layer, keys)
    fields: dict[str, object] = {}
    if keys is not None:
        sliding = keys.limit is not None and model.architecture in SLIDING and release.since("b5671")
        fields |= {
            "cells": cells.sliding if sliding else cells.cells,
            "sliding": sliding,
            "query": heads * keys.key_dim,
            "key": keys.heads * keys.key_dim,
            "value": keys.heads * keys.value_dim,
            "value_head": keys.value_dim,
        }
    elif latent is not None:
        query, inner = _latent_widths(model, layer)
        fields |= {
            "cells": cells.cells,
            "sliding": False,
            "query": query,
            "key": latent.width,
            "value": inner,
            "value_head": latent.width - 64,
            "latent": (query, latent.width, _query_rank(layer)),
        }
    elif layer.kind == "shared":
        fields |= {
            "cells": cells.cells,
            "sliding": False,
            "query": heads * model.head_dim,
            "key": 0,
            "value": 0,
            "value_head": model.head_dim,
        }
    else:
        fields |= {"cells": 0, "sliding": False, "query": 0, "key": 0, "value": 0, "value_head": 0}
    dense = max((t.inputs for t in layer.tensors if t.kind == "linear" and _narrows(t)), default=0)
    experts = [tensor for tensor in layer.tensors if tensor.kind == "expert" and len(tensor.shape) > 1]
    if experts:
        shared = max(
            (t.inputs for t in layer.tensors if t.kind == "linear" and _narrows(t) and "sh" in t.name), default=0
        )
        inner = next((t.inputs for t in experts if _narrows(t)), model.intermediate_size)
        fields |= {
            "experts": model.experts,
            "active": model.active_experts,
            "expert_inner": inner,
            "shared": shared,
            "host_matrix": host_experts // 3,
        }
    else:
        fields["inner"] = dense
    fields["gated"] = any(mark in name for name in names for mark in ("gate_proj", "gate_up", "ffn_gate", "w3"))
    fields["joined_gate"] = any(
        tensor.kind == "linear"
        and tensor.outputs == 2 * dense
        and ("gate_up" in tensor.name or (tensor.name == "ffn_up.weight" and not fields["gated"]))
        for tensor in layer.tensors
    )
    return Block(
        heads=heads,
        fused=any(mark in name for name in names for mark in _FUSED) and keys is not None,
        query_norm=any("q_norm" in name for name in names),
        recurrent=_recurrence(layer),
        **fields,  # type: ignore[arg-type]
    )


def _query_heads(model: Model, layer: Layer, keys: KeyValueCache | None) -> int:
    """Query heads of a layer: from the width of its query or output matrix where the layers differ."""
    if keys is None:
        return model.heads
    for tensor in layer.tensors:
        if tensor.name.startswith(("self_attn.q_proj.weight", "attn_q.weight")) and tensor.outputs % keys.key_dim == 0:
            return tensor.outputs // keys.key_dim
    return model.heads


def _latent_widths(model: Model, layer: Layer) -> tuple[int, int]:
    """Widths over all heads of the queries, and of what attention gives back."""
    query = value = model.heads * model.head_dim
    for tensor in layer.tensors:
        if tensor.name.startswith(("self_attn.q_proj", "self_attn.q_b_proj", "attn_q_b.", "attn_q.")):
            query = tensor.outputs
        if tensor.name.startswith(("self_attn.o_proj", "attn_output.")):
            value = tensor.inputs
    return query, value


def _query_rank(layer: Layer) -> int:
    """Width of the queries' own latent; 0 where they come straight from the hidden states."""
    return next((t.outputs for t in layer.tensors if t.name.startswith(("self_attn.q_a_proj.", "attn_q_a."))), 0)


def _recurrence(layer: Layer) -> tuple[int, int, int] | None:
    states = [cache for cache in layer.caches if isinstance(cache, StateCache)]
    if not states:
        return None
    convolution = next((cache for cache in states if cache.what == "convolution"), None)
    channels = 0 if convolution is None else convolution.elements // (convolution.taps or 3)
    state = sum(cache.elements for cache in states if cache.what != "convolution")
    inner = max(
        (t.inputs for t in layer.tensors if t.kind == "linear" and ("out_proj" in t.name or "ssm_out" in t.name)),
        default=channels,
    )
    return channels, inner, state


def blocks_of(
    model: Model, release: Release, cells: Layout, host_experts: tuple[int, ...] | None = None
) -> list[Block]:
    """Every layer, in order."""
    made: dict[tuple[int, int], Block] = {}
    found = []
    for index, layer in enumerate(model.decoder.layers):
        hosted = host_experts[index] if host_experts else 0
        key = (id(layer), hosted)
        if key not in made:
            made[key] = block_of(model, layer, release, cells, hosted)
        found.append(made[key])
    return found
