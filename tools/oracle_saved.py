"""What training keeps of a layer for its backward pass, asked of PyTorch and transformers without weights or a GPU.

Called by tools/oracle.py in the oracle's own environment; tests/test_training.py compares the closed forms of
`vlmmem.memory.training` with the answers.

How a case is measured: one forward pass runs under `FakeTensorMode`, where tensors have a shape, a dtype and a storage
size but no memory. PyTorch hands every tensor that it saves for the backward pass to a hook; each storage is counted
once, and those of parameters and of the rotary table, which all layers share, are not.

Three kinds: a layer of GPT as arXiv 2205.05198 draws it, a layer of Llama as transformers builds it, and layers of GPT
under torch.utils.checkpoint, of which only the inputs of the segments are saved.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from vlmmem.measured.harness.network import default_dtype

DTYPE = torch.bfloat16
DROPOUT = 0.1

# hidden size, heads, tokens of each sequence, sequences.
GPT = ((64, 4, 32, 2), (128, 8, 16, 3), (1024, 16, 512, 1), (12288, 96, 2048, 1))
# hidden size, heads, KV heads, head dimension, intermediate size, tokens of each sequence, sequences.
LLAMA = (
    (64, 4, 4, 16, 160, 32, 2),
    (64, 4, 2, 16, 160, 32, 2),
    (64, 4, 1, 24, 96, 16, 3),
    (5120, 40, 40, 128, 13824, 4096, 1),
    (8192, 64, 8, 128, 28672, 2048, 2),
)
# layers, layers of a segment; of the first shape of GPT.
CHECKPOINTED = ((6, 1), (6, 2), (6, 3), (6, 4), (6, 6), (7, 3))


class Layer(torch.nn.Module):  # type: ignore[misc]  # torch is not where mypy runs
    """A layer as arXiv 2205.05198 counts it: LayerNorm, attention, an MLP of four times the width, three dropouts."""

    def __init__(self, hidden_size: int, heads: int) -> None:
        """Build it without weights."""
        super().__init__()
        self.heads = heads
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(hidden_size) for _ in range(2))
        self.projections = torch.nn.ModuleList(torch.nn.Linear(hidden_size, hidden_size) for _ in range(4))
        self.up = torch.nn.Linear(hidden_size, 4 * hidden_size)
        self.down = torch.nn.Linear(4 * hidden_size, hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One pass. Dropout keeps a mask of one byte an element, as on a GPU."""
        y = self.norms[0](x)
        query, key, value = (
            projection(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for projection in self.projections[:3]
        )
        shares = torch.softmax(query @ key.transpose(2, 3) * query.shape[-1] ** -0.5, dim=-1)
        mixed = (_dropout(shares) @ value).transpose(1, 2).flatten(2)
        x = x + _dropout(self.projections[3](mixed))
        wide = torch.nn.functional.gelu(self.up(self.norms[1](x)))
        return x + _dropout(self.down(wide))


def _dropout(x: torch.Tensor) -> torch.Tensor:
    kept: torch.Tensor = torch.native_dropout(x, DROPOUT, train=True)[0]
    return kept


def saved_bytes(run: Callable[[], Any], shared: Iterable[torch.Tensor]) -> int:
    """Bytes of the storages that a pass saves, without those of `shared`."""
    known = {id(tensor.untyped_storage()) for tensor in shared}
    held: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        # A key of the random numbers is no activation.
        if id(storage) not in known and tensor.dtype != torch.uint64:
            held[id(storage)] = storage
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for storage in held.values())


def _built(make: Callable[[], Any]) -> Any:
    with default_dtype(DTYPE):
        return make()


def _input(batch: int, context: int, hidden_size: int) -> torch.Tensor:
    leaf = torch.empty(batch, context, hidden_size, dtype=DTYPE, requires_grad=True)
    return leaf * 1


def _gpt(hidden_size: int, heads: int, context: int, batch: int) -> dict[str, Any]:
    with FakeTensorMode():
        layer = _built(lambda: Layer(hidden_size, heads))
        x = _input(batch, context, hidden_size)
        size = saved_bytes(lambda: layer(x), layer.parameters())
    shape = {"hidden_size": hidden_size, "heads": heads, "context": context, "batch": batch}
    return {**shape, "saved_bytes": size}


def _llama(case: tuple[int, ...], attention: str) -> dict[str, Any]:
    hidden_size, heads, kv_heads, head_dim, intermediate_size, context, batch = case
    shape = {
        "hidden_size": hidden_size,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate_size": intermediate_size,
    }
    names = {"heads": "num_attention_heads", "kv_heads": "num_key_value_heads"}
    config = LlamaConfig(**{names.get(name, name): value for name, value in shape.items()}, num_hidden_layers=1)
    config._attn_implementation = attention
    with FakeTensorMode():
        layer = _built(lambda: LlamaDecoderLayer(config, 0))
        x = _input(batch, context, hidden_size)
        rotary = LlamaRotaryEmbedding(config)(x, torch.arange(context)[None])
        mask = torch.zeros(1, 1, context, context, dtype=DTYPE) if attention == "eager" else None
        size = saved_bytes(
            lambda: layer(x, attention_mask=mask, position_embeddings=rotary), [*layer.parameters(), *rotary]
        )
    return {"shapes": shape, "attention": attention, "context": context, "batch": batch, "saved_bytes": size}


def _checkpointed(layers: int, every: int) -> dict[str, Any]:
    hidden_size, heads, context, batch = GPT[0]
    with FakeTensorMode():
        stack = _built(lambda: torch.nn.ModuleList(Layer(hidden_size, heads) for _ in range(layers)))

        def run() -> None:
            x = _input(batch, context, hidden_size)
            for first in range(0, layers, every):
                segment = torch.nn.Sequential(*stack[first : first + every])
                x = checkpoint(segment, x, use_reentrant=True, preserve_rng_state=False)

        size = saved_bytes(run, stack.parameters())
    shape = {"hidden_size": hidden_size, "context": context, "batch": batch}
    return {"layers": layers, "every": every, **shape, "saved_bytes": size}


def answers() -> dict[str, Any]:
    """Every case with what was saved."""
    return {
        "gpt": [_gpt(*case) for case in GPT],
        "llama": [_llama(case, attention) for case in LLAMA for attention in ("sdpa", "eager")],
        "checkpointed": [_checkpointed(*case) for case in CHECKPOINTED],
    }
