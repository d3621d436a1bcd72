"""What a model is made of: tensors, the layers that hold them, and what each layer keeps of a sequence.

A builder (vlmmem/architectures) makes these from a config, a reader (vlmmem/readers) from a file's header. Names and
shapes of tensors are those of transformers' `named_parameters()`; a tied weight stands once.
"""

from collections.abc import Iterator
from math import prod

from vlmmem.record import record

__all__ = ["CUTS", "KINDS", "Cache", "KeyValueCache", "LatentCache", "Layer", "Part", "StateCache", "Tensor"]

KINDS = ("embedding", "head", "linear", "expert", "router", "norm", "bias", "position", "convolution", "other")
"""What a tensor is. Weight quantisation touches linear and expert; "other" are vectors and tables of one family."""

CUTS = ("whole", "outputs", "inputs", "kv", "qkv", "vocabulary", "experts")
"""How tensor parallelism cuts a tensor: not at all, along its outputs, its inputs, its KV heads (copied where there
are fewer heads than GPUs), query heads and KV heads in one tensor, the rows of a vocabulary, or the inner width of
its experts."""


@record(frozen=True, slots=True)
class Tensor:
    """One weight, with its name below its layer (or in full, outside the layers).

    `shape` is as stored: (outputs, inputs) for a matrix, (experts, outputs, inputs) for experts in one tensor; where
    `transposed`, inputs stand before outputs. `dtype` is the type in which a file holds it: a safetensors dtype or a
    GGUF type; empty where it comes from a config. `query_rows` is the share of a "qkv" cut that belongs to queries.

    `stored` are the bytes that a file holds for it, scales and zeros of quantised weights included, and None where it
    comes from a config. A tensor that is bytes and no parameter, such as a buffer, has the shape (0,).
    """

    name: str
    shape: tuple[int, ...]
    kind: str = "linear"
    cut: str = "whole"
    transposed: bool = False
    query_rows: int = 0
    dtype: str = ""
    stored: int | None = None

    @property
    def parameters(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def outputs(self) -> int:
        """Rows of a matrix as it multiplies: one a value that comes out."""
        return self.shape[-1] if self.transposed else self.shape[-2] if len(self.shape) > 1 else self.shape[0]

    @property
    def inputs(self) -> int:
        """Columns of a matrix as it multiplies: one a value that goes in; 1 for a vector."""
        if len(self.shape) < 2:
            return 1
        return self.shape[-2] if self.transposed else self.shape[-1]


@record(frozen=True, slots=True)
class KeyValueCache:
    """Keys and values of a layer: `heads` x (`key_dim` + `value_dim`) elements a token.

    `window` is the most tokens that the layer attends to (sliding window), `chunk` the length of the pieces in which
    chunked-local attention cuts a sequence; None means all tokens. `states` is None for attention to the sequence
    itself; for cross-attention it is the number of image states held for one image, whatever the sequence's length.
    """

    heads: int
    key_dim: int
    value_dim: int
    window: int | None = None
    chunk: int | None = None
    states: int | None = None

    @property
    def elements(self) -> int:
        """Elements that one token adds, over all heads."""
        return self.heads * (self.key_dim + self.value_dim)

    @property
    def limit(self) -> int | None:
        """The most tokens that are kept, or None."""
        return self.window if self.window is not None else self.chunk


@record(frozen=True, slots=True)
class LatentCache:
    """One vector of `width` elements a token for all heads (multi-head latent attention, or a sparse indexer's key).

    Every GPU of a tensor-parallel group keeps it whole.
    """

    width: int
    what: str = "latent"

    @property
    def elements(self) -> int:
        """Elements that one token adds."""
        return self.width

    @property
    def limit(self) -> None:
        """All tokens are kept."""
        return None


@record(frozen=True, slots=True)
class StateCache:
    """A state of fixed size for each sequence: of a convolution or of a recurrence.

    `elements` counts all of it; `dtype` is its number format, or "" for the model's own. Tensor parallelism cuts it
    along its `heads` (channel groups); 1 means that it is kept whole. `taps` are the past inputs of each channel that a
    convolution's state counts, the token's own among them: engines keep one less.
    """

    elements: int
    dtype: str
    heads: int
    what: str = "recurrent"
    taps: int = 0


Cache = KeyValueCache | LatentCache | StateCache


@record(frozen=True, slots=True)
class Layer:
    """One layer: its tensors, what it keeps of a sequence (nothing, one cache or several), and what it is.

    `kind` is full, sliding, chunked, latent, linear, state-space, convolution, cross, mlp, shared or none. A shared
    layer reads the cache of an earlier one. Layers alike may be one object.
    """

    kind: str
    tensors: tuple[Tensor, ...]
    caches: tuple[Cache, ...] = ()

    @property
    def parameters(self) -> int:
        """Elements of its tensors."""
        return sum(tensor.parameters for tensor in self.tensors)


@record(frozen=True, slots=True)
class Part:
    """A part of a model: tensors outside its layers, under their full names, and its layers in order.

    `name` is language, vision, projector, audio or another such word; a model may have two parts of one name (a tower
    of two stacks). The tensors of layer i are called `stack`.i.name.
    """

    name: str
    tensors: tuple[Tensor, ...] = ()
    stack: str = ""
    layers: tuple[Layer, ...] = ()

    @property
    def parameters(self) -> int:
        """Elements of all tensors."""
        outside = sum(tensor.parameters for tensor in self.tensors)
        return outside + sum(count * layer.parameters for layer, count in self.alike())

    def alike(self) -> list[tuple[Layer, int]]:
        """Each layer that differs from the others, and how many there are of it."""
        counts: dict[int, int] = {}
        first: dict[int, Layer] = {}
        for layer in self.layers:
            first.setdefault(id(layer), layer)
            counts[id(layer)] = counts.get(id(layer), 0) + 1
        return [(layer, counts[key]) for key, layer in first.items()]

    def sample(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor that differs: those of layers alike once, under the name that they have in the first."""
        for tensor in self.tensors:
            yield tensor.name, tensor
        for layer, _ in self.alike():
            for tensor in layer.tensors:
                yield f"{self.stack}.{tensor.name}", tensor

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor under its full name."""
        for tensor in self.tensors:
            yield tensor.name, tensor
        for index, layer in enumerate(self.layers):
            for tensor in layer.tensors:
                yield f"{self.stack}.{index}.{tensor.name}", tensor
