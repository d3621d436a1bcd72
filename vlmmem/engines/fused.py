"""Matrices that engines hold in one tensor where the checkpoint has several: queries, keys and values; gate and up."""

from collections.abc import Iterable

__all__ = ["FUSED", "fused_name"]

FUSED = (
    (("q_proj", "k_proj", "v_proj"), "qkv_proj"),
    (("gate_proj", "up_proj"), "gate_up_proj"),
    (("in_proj_qkv", "in_proj_z"), "in_proj_qkvz"),
)
"""The checkpoint's names, and the one of vLLM and SGLang, in the layers/linear.py of both."""


def fused_name(name: str, fused: Iterable[tuple[tuple[str, ...], str]] = FUSED) -> str:
    """The tensor of an engine in which a tensor of the checkpoint lies: its own name where it stands alone.

    Args:
        name: the tensor's name in its layer.
        fused: which names lie in which.

    >>> fused_name("self_attn.k_proj.weight"), fused_name("mlp.down_proj.weight")
    ('self_attn.qkv_proj.weight', 'mlp.down_proj.weight')
    """
    for parts, whole in fused:
        for part in parts:
            if f".{part}." in f".{name}.":
                return name.replace(part, whole)
    return name
