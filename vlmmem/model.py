"""Model: the shapes of a language or vision-language model, and its parameters counted from them.

A family (the class of the transformers library that builds the model) is one row of `FAMILIES`: which
vectors and biases its decoder has. The count is one closed form over that row, checked to the parameter
against what transformers builds on PyTorch's meta device (tests/oracle/parameters.json).
"""

from dataclasses import dataclass
from math import prod

from vlmmem.errors import InputError

__all__ = ["FAMILIES", "Family", "Linear", "Model", "Source", "VisionTower"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value stands: address, revision that was read (empty where there is none), and what it says."""

    address: str
    revision: str
    what: str


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Family:
    """What sets the decoder of one transformers class apart, as data.

    `projector` says what joins a vision tower to the decoder: "" (none) or "mlp" (two linear layers with
    biases). `learned_positions` is None where positions are rotary, else the rows that the table has beyond
    `max_positions`.
    """

    source: str
    gated_mlp: bool = True
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    norm_vectors: int = 1
    norms_a_layer: int = 2
    learned_positions: int | None = None
    lm_head_bias: bool = False
    projector: str = ""
    image_newline: bool = False


_TRANSFORMERS = "https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/"

FAMILIES: dict[str, Family] = {
    "llama": Family(_TRANSFORMERS + "llama/modeling_llama.py"),
    "mistral": Family(_TRANSFORMERS + "mistral/modeling_mistral.py"),
    "qwen2": Family(_TRANSFORMERS + "qwen2/modeling_qwen2.py", qkv_bias=True),
    "opt": Family(
        _TRANSFORMERS + "opt/modeling_opt.py",
        gated_mlp=False,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        norm_vectors=2,
        learned_positions=2,  # OPTLearnedPositionalEmbedding starts counting at the padding token's index + 1
    ),
    "gpt2": Family(
        _TRANSFORMERS + "gpt2/modeling_gpt2.py",
        gated_mlp=False,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        norm_vectors=2,
        learned_positions=0,
    ),
    "phi": Family(
        _TRANSFORMERS + "phi/modeling_phi.py",
        gated_mlp=False,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        norm_vectors=2,
        norms_a_layer=1,  # attention and MLP run side by side on one normalised input
        lm_head_bias=True,
    ),
    "llava": Family(_TRANSFORMERS + "llava/modeling_llava.py", projector="mlp"),
    "llava_next": Family(_TRANSFORMERS + "llava_next/modeling_llava_next.py", projector="mlp", image_newline=True),
}


@dataclass(frozen=True, slots=True)
class VisionTower:
    """A CLIP vision transformer: square images cut into square patches, one class token before them.

    Source: arXiv 2103.00020 and CLIPVisionTransformer in transformers.

    >>> tower = VisionTower("clip", layers=24, hidden_size=1024, heads=16, intermediate_size=4096,
    ...                     image_size=336, patch_size=14, channels=3)
    >>> tower.patches, tower.parameters
    (576, 303507456)
    """

    architecture: str
    layers: int
    hidden_size: int
    heads: int
    intermediate_size: int
    image_size: int
    patch_size: int
    channels: int

    @property
    def patches(self) -> int:
        """Patches of one image: (image side / patch side)^2."""
        side: int = self.image_size // self.patch_size
        return side * side

    @property
    def parameters(self) -> int:
        """Class token, patch convolution (no bias), positions, the layers and the two norms around them."""
        hidden, wide = self.hidden_size, self.intermediate_size
        norm = 2 * hidden
        attention = 4 * (hidden * hidden + hidden)
        mlp = hidden * wide + wide + wide * hidden + hidden
        embeddings = hidden + prod((self.channels, self.patch_size, self.patch_size, hidden))
        embeddings += (self.patches + 1) * hidden
        return embeddings + norm + self.layers * (attention + mlp + 2 * norm) + norm


@dataclass(frozen=True, slots=True)
class Model:
    """The shapes of one model. Sizes are counts: layers, elements, tokens.

    `architecture` names a row of `FAMILIES`. `vocab_size` counts the rows of the embedding, padding
    included. `sliding_window` is the most tokens that a layer attends to, or None. `nominal_parameters` is
    what the model's name says, `parameters` what its shapes say. `dtype` is the format in which it was
    published.

    >>> from vlmmem import find_model
    >>> model = find_model("llama-2-13b")
    >>> model.parameters, model.attention
    (13015864320, 'multi-head')
    """

    id: str
    name: str
    hub_id: str | None
    aliases: tuple[str, ...]
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
    nominal_parameters: int
    dtype: str
    sliding_window: int | None = None
    vision: VisionTower | None = None
    sources: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        where = self.id or "model"
        for field in (
            "layers",
            "hidden_size",
            "heads",
            "kv_heads",
            "head_dim",
            "intermediate_size",
            "vocab_size",
            "max_positions",
            "nominal_parameters",
        ):
            value = getattr(self, field)
            if type(value) is not int or value <= 0:
                raise InputError(f"{where}: {field!r} is {value!r}; a positive integer is needed")
        if self.sliding_window is not None and (type(self.sliding_window) is not int or self.sliding_window <= 0):
            raise InputError(
                f"{where}: 'sliding_window' is {self.sliding_window!r}; a positive integer or null is needed"
            )
        if self.architecture not in FAMILIES:
            raise InputError(
                f"{where}: 'architecture' is {self.architecture!r}; known are {', '.join(sorted(FAMILIES))}"
            )
        if self.heads % self.kv_heads:
            raise InputError(
                f"{where}: {self.heads} 'heads' cannot share {self.kv_heads} 'kv_heads' evenly; "
                "a divisor of the heads is needed"
            )
        if bool(self.family.projector) != (self.vision is not None):
            need = "needs" if self.family.projector else "has no"
            raise InputError(f"{where}: architecture {self.architecture!r} {need} 'vision'")

    @property
    def family(self) -> Family:
        """The row of `FAMILIES` that `architecture` names."""
        return FAMILIES[self.architecture]

    @property
    def gated_mlp(self) -> bool:
        """Whether the MLP multiplies by a gate: three matrices of hidden x intermediate, else two."""
        return self.family.gated_mlp

    @property
    def attention(self) -> str:
        """How query heads share KV heads: "multi-head" (none do), "multi-query" (all do), "grouped-query"."""
        if self.kv_heads == self.heads:
            return "multi-head"
        return "multi-query" if self.kv_heads == 1 else "grouped-query"

    @property
    def layer_linears(self) -> tuple[Linear, ...]:
        """The linear layers of one decoder layer: what weight quantisation touches."""
        family, hidden, wide = self.family, self.hidden_size, self.intermediate_size
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = (
            Linear("query", queries, hidden, family.qkv_bias),
            Linear("key", keys, hidden, family.qkv_bias),
            Linear("value", keys, hidden, family.qkv_bias),
            Linear("output", hidden, queries, family.output_bias),
        )
        gate = (Linear("gate", wide, hidden, family.mlp_bias),) if family.gated_mlp else ()
        return (
            *attention,
            *gate,
            Linear("up", wide, hidden, family.mlp_bias),
            Linear("down", hidden, wide, family.mlp_bias),
        )

    @property
    def language_parameters(self) -> int:
        """Embeddings, decoder layers, last norm and output head; a tied head is counted once."""
        family, hidden, vocab = self.family, self.hidden_size, self.vocab_size
        norm = family.norm_vectors * hidden
        layer = sum(linear.parameters for linear in self.layer_linears) + family.norms_a_layer * norm
        positions = 0
        if family.learned_positions is not None:
            positions = (self.max_positions + family.learned_positions) * hidden
        head = 0 if self.tied_embeddings else vocab * hidden
        head_bias = vocab if family.lm_head_bias else 0
        return vocab * hidden + positions + self.layers * layer + norm + head + head_bias

    @property
    def projector_parameters(self) -> int:
        """Two linear layers from vision tower to decoder, and the vector that ends a row of patches."""
        if self.vision is None:
            return 0
        first = Linear("first", self.hidden_size, self.vision.hidden_size, bias=True)
        second = Linear("second", self.hidden_size, self.hidden_size, bias=True)
        newline = self.hidden_size if self.family.image_newline else 0
        return first.parameters + second.parameters + newline

    @property
    def parameters_by_part(self) -> dict[str, int]:
        """Parameters of `language`, and of `vision` and `projector` where the model sees.

        >>> from vlmmem import find_model
        >>> find_model("llava-1.5-13b").parameters_by_part
        {'language': 13016519680, 'vision': 303507456, 'projector': 31467520}
        """
        parts = {"language": self.language_parameters}
        if self.vision is not None:
            parts["vision"] = self.vision.parameters
            parts["projector"] = self.projector_parameters
        return parts

    @property
    def parameters(self) -> int:
        """All parameters, exactly: what transformers builds for the class, tied weights once.

        >>> from vlmmem import find_model
        >>> find_model("llava-1.5-13b").parameters
        13351494656
        """
        return sum(self.parameters_by_part.values())
