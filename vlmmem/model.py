"""Model: a language or vision-language model as its shape, its tensors and what its layers keep.

The tensors come from a config, by the builders of vlmmem/architectures, or from a file's header, by vlmmem/readers.
Those from a config are checked to the parameter, name and shape against what transformers builds on PyTorch's meta
device (tests/oracle/parameters.json).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vlmmem.errors import InputError
from vlmmem.layers import KeyValueCache, LatentCache, Part, StateCache, Tensor
from vlmmem.record import record

if TYPE_CHECKING:
    from vlmmem.quantization import Quantization

__all__ = ["BASES", "Linear", "Model", "Source", "VisionTower"]

BASES = ("header", "config", "nominal")
"""Where a model's parameters come from: a file's header, a config, or only its name."""


@record(frozen=True, slots=True)
class Source:
    """Where a value stands: address, revision that was read (empty where there is none), and what it says."""

    address: str
    revision: str
    what: str


@record(frozen=True, slots=True)
class Linear:
    """One linear layer: a matrix of rows x columns and, where there is one, a bias of one element a row."""

    name: str
    rows: int
    columns: int
    bias: bool = False

    @property
    def parameters(self) -> int:
        """Elements of the matrix and of the bias."""
        return self.rows * self.columns + (self.rows if self.bias else 0)


@record(frozen=True, slots=True)
class VisionTower:
    """The shape of a vision tower: images cut into square patches. `image_size` is the side it was trained on.

    An `image_size` of 0 means any size. `activation` is that of the layers' MLP, "" where it is not known. A square of
    `merge` x `merge` patches becomes one token of the decoder. `window` is the side, in pixels, of the windows in which
    most layers attend, 0 for none. `deepstack` counts the layers whose features reach the decoder beside the last ones.
    `head_norms` says whether queries and keys are normalised.

    >>> tower = VisionTower("clip", layers=24, hidden_size=1024, heads=16, intermediate_size=4096,
    ...                     image_size=336, patch_size=14, channels=3)
    >>> tower.patches
    576
    """

    architecture: str
    layers: int
    hidden_size: int
    heads: int
    intermediate_size: int
    image_size: int
    patch_size: int
    channels: int
    activation: str = ""
    merge: int = 1
    window: int = 0
    deepstack: int = 0
    head_norms: bool = False

    @property
    def patches(self) -> int:
        """Patches of one image of `image_size`: (image side / patch side)^2."""
        side: int = self.image_size // self.patch_size
        return side * side


@record(frozen=True, slots=True, eq=False)
class Model:
    """One model. Sizes are counts: layers, elements, tokens.

    `architecture` is the model_type of its config, or of its text model where it has no tower. The shape is that of
    the decoder: `layers`, `heads` and so on; where layers differ, `heads`, `kv_heads`, `head_dim` and
    `intermediate_size` are those that the config names, and each layer's own stand in `parts`. `vocab_size` counts the
    rows of the embedding, padding included. `experts` of a layer, of which each token meets `active_experts`.
    `nominal_parameters` is what the model's name says, `parameters` what its tensors say. `dtype` is the format in
    which it was published. `mtp_parameters` belong to heads for multi-token prediction, which checkpoints hold and
    transformers does not build. `quantization` is what its config says of quantised weights. `folder` is where it was
    read, or "": the settings of its processor stand there. `partial_rotary` marks a phi3 model of whose heads only a
    part turns with its position.

    >>> from vlmmem import find_model
    >>> model = find_model("llama-2-13b")
    >>> model.parameters, model.attention
    (13015864320, 'multi-head')
    """

    architecture: str
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_positions: int
    tied_embeddings: bool
    activation: str
    dtype: str
    parts: tuple[Part, ...]
    vision: VisionTower | None = None
    experts: int = 0
    active_experts: int = 0
    mtp_parameters: int = 0
    quantization: "Quantization | None" = None
    basis: str = "config"
    id: str = ""
    name: str = ""
    hub_id: str | None = None
    aliases: tuple[str, ...] = ()
    nominal_parameters: int | None = None
    sources: tuple[Source, ...] = ()
    notes: tuple[str, ...] = ()
    folder: str = ""
    partial_rotary: bool = False

    def __repr__(self) -> str:
        """Its name: its tensors would fill pages."""
        return f"Model({self.id or self.architecture!r})"

    @property
    def decoder(self) -> Part:
        """The language part that has the layers."""
        return next(part for part in self.parts if part.name == "language" and part.layers)

    @property
    def matrices(self) -> tuple[int, int]:
        """Elements and rows of what weight quantisation touches: linear layers and experts of the decoder's layers."""
        elements = rows = 0
        for layer, count in self.decoder.alike():
            for tensor in layer.tensors:
                if tensor.kind in ("linear", "expert"):
                    elements += count * tensor.parameters
                    rows += count * tensor.parameters // tensor.inputs
        return elements, rows

    def tensors(self, part: str | None = None) -> Iterator[tuple[str, Tensor]]:
        """Every tensor under its full name, of one part or of all."""
        for each in self.parts:
            if part is None or each.name == part:
                yield from each.named()

    @property
    def gated_mlp(self) -> bool:
        """Whether the MLP multiplies by a gate: three matrices of hidden x intermediate, else two."""
        return any("gate" in tensor.name for tensor in self.decoder.layers[0].tensors if tensor.kind == "linear")

    @property
    def attention(self) -> str:
        """How query heads share KV heads: "multi-head" (none do), "multi-query" (all do), "grouped-query".

        "multi-head latent" is a latent cache; ", with states" marks layers that keep a state of a sequence, and
        "states alone" a model without attention.
        """
        kinds = {type(cache) for layer in self.decoder.layers for cache in layer.caches}
        if kinds == {StateCache}:
            return "states alone"
        if LatentCache in kinds and KeyValueCache not in kinds:
            found = "multi-head latent"
        elif self.kv_heads == self.heads:
            found = "multi-head"
        else:
            found = "multi-query" if self.kv_heads == 1 else "grouped-query"
        return f"{found}, with states" if StateCache in kinds else found

    @property
    def sliding_window(self) -> int | None:
        """The most tokens that every layer with a KV cache keeps, or None where a layer keeps all."""
        limits = {cache.limit for layer in self.decoder.layers for cache in layer.caches if hasattr(cache, "limit")}
        known = {limit for limit in limits if limit is not None}
        return max(known) if known and None not in limits else None

    @property
    def layer_linears(self) -> tuple[Linear, ...]:
        """The linear layers of one decoder layer, where all layers are alike.

        Raises:
            InputError: layers differ, or hold experts.
        """
        first = self.decoder.layers[0]
        shapes = {tuple(tensor.shape for tensor in layer.tensors) for layer, _ in self.decoder.alike()}
        if len(shapes) > 1 or any(tensor.kind == "expert" for tensor in first.tensors):
            raise InputError(f"{self.id or self.architecture}: its layers differ; one layer does not stand for all")
        biases = {tensor.name.removesuffix(".bias") for tensor in first.tensors if tensor.kind == "bias"}
        return tuple(
            Linear(stem, tensor.outputs, tensor.inputs, stem in biases)
            for tensor in first.tensors
            if tensor.kind == "linear"
            for stem in (tensor.name.removesuffix(".weight"),)
        )

    @property
    def parameters_by_part(self) -> dict[str, int]:
        """Parameters of `language`, and of `vision`, `projector` and others where the model has them.

        >>> from vlmmem import find_model
        >>> find_model("llava-1.5-13b").parameters_by_part
        {'language': 13016519680, 'vision': 303507456, 'projector': 31467520}
        """
        found: dict[str, int] = {}
        for part in self.parts:
            found[part.name] = found.get(part.name, 0) + part.parameters
        return found

    @property
    def language_parameters(self) -> int:
        """Embeddings, decoder layers, last norm and output head; a tied head is counted once."""
        return self.parameters_by_part["language"]

    @property
    def language_by_part(self) -> dict[str, int]:
        """The language model's parameters: `embeddings` (with positions and an output head), `experts`, `layers`.

        `layers` are the rest: attention, dense MLPs, routers, norms.

        >>> from vlmmem import find_model
        >>> find_model("llama-2-13b").language_by_part
        {'embeddings': 327680000, 'experts': 0, 'layers': 12688184320}
        """
        found = {"embeddings": 0, "experts": 0, "layers": 0}
        for part in self.parts:
            if part.name != "language":
                continue
            for name, tensor in part.named():
                outside = tensor.kind in ("embedding", "head", "position")
                # a bias of all experts counts with them: of gpt-oss
                of_experts = tensor.kind == "expert" or (tensor.kind == "bias" and ".experts." in name)
                key = "embeddings" if outside else "experts" if of_experts else "layers"
                found[key] += tensor.parameters
        return found

    @property
    def active_parameters(self) -> int:
        """Parameters that one token meets: all, but of the routed experts only those that it is sent to."""
        routed = self.language_by_part["experts"]
        return self.parameters - (routed - routed * self.active_experts // self.experts if self.experts else 0)

    @property
    def parameters(self) -> int:
        """All parameters, exactly: what transformers builds for the class, tied weights once.

        >>> from vlmmem import find_model
        >>> find_model("llava-1.5-13b").parameters
        13351494656
        """
        return sum(part.parameters for part in self.parts)
