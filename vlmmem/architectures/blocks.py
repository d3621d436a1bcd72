"""The vocabulary of the builders: tensors of the usual modules, and the shape that most decoders' configs give."""

from collections.abc import Iterable, Mapping, Sequence

from vlmmem.architectures.fields import Fields
from vlmmem.errors import InputError
from vlmmem.layers import KeyValueCache, Layer, Part, Tensor
from vlmmem.model import Model
from vlmmem.record import record

__all__ = ["Shape", "decoder", "embedding", "linear", "norm", "read_dtype", "read_shape"]

DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def linear(
    name: str, outputs: int, inputs: int, cut: str = "whole", *, bias: bool = False, kind: str = "linear"
) -> tuple[Tensor, ...]:
    """A matrix of outputs x inputs and, where there is one, its bias.

    A bias is cut as the outputs are; behind a matrix cut along its inputs it stands whole on every GPU.

    >>> [(tensor.name, tensor.shape) for tensor in linear("fc1", 8, 4, "outputs", bias=True)]
    [('fc1.weight', (8, 4)), ('fc1.bias', (8,))]
    """
    weight = Tensor(f"{name}.weight", (outputs, inputs), kind, cut)
    if not bias:
        return (weight,)
    return (weight, Tensor(f"{name}.bias", (outputs,), "bias", "whole" if cut == "inputs" else cut))


def norm(name: str, width: int, *, bias: bool = False) -> tuple[Tensor, ...]:
    """A normalisation: one scale an element and, in a LayerNorm, one bias."""
    weight = Tensor(f"{name}.weight", (width,), "norm")
    return (weight, Tensor(f"{name}.bias", (width,), "norm")) if bias else (weight,)


def embedding(name: str, rows: int, width: int, kind: str = "embedding") -> tuple[Tensor, ...]:
    """A table of rows x width; `kind` "position" is whole on every GPU, "embedding" and "head" are cut by rows."""
    return (Tensor(f"{name}.weight", (rows, width), kind, "whole" if kind == "position" else "vocabulary"),)


@record(frozen=True, slots=True)
class Shape:
    """What most decoders' configs say, defaults filled in."""

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

    @property
    def queries(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all KV heads."""
        return self.kv_heads * self.head_dim

    def cache(self, window: int | None = None) -> KeyValueCache:
        """What a usual attention layer keeps."""
        return KeyValueCache(self.kv_heads, self.head_dim, self.head_dim, window)


def read_dtype(fields: Fields) -> str:
    """The number format that a config names (`dtype`, or `torch_dtype` before transformers 5); bf16 where none."""
    field = fields.first("dtype", "torch_dtype")
    found = fields.text(field, "bfloat16").removeprefix("torch.")
    if found not in DTYPES:
        fields.wrong(field, "one of " + ", ".join(DTYPES))
    return DTYPES[found]


def read_shape(fields: Fields, architecture: str, defaults: Mapping[str, object] | None = None, **names: str) -> Shape:
    """The shape of a decoder.

    Args:
        fields: the text model's config.
        architecture: its model_type.
        defaults: what the class of transformers takes for fields that are missing, by the names used here.
        names: how this family calls a field, where it is not the usual name.

    Raises:
        InputError: a field is missing without a default, is of the wrong kind, or heads cannot share KV heads.
    """
    usual = {
        "layers": "num_hidden_layers",
        "hidden_size": "hidden_size",
        "heads": "num_attention_heads",
        "kv_heads": "num_key_value_heads",
        "head_dim": "head_dim",
        "intermediate_size": "intermediate_size",
        "vocab_size": "vocab_size",
        "max_positions": "max_position_embeddings",
        "activation": "hidden_act",
    } | names
    known = defaults or {}

    def count(field: str) -> int:
        default = known.get(field)
        return fields.integer(usual[field], default if isinstance(default, int) else None)

    layers = known.get("layers")
    depth = fields.layers(usual["layers"], layers if isinstance(layers, int) else None)
    hidden, heads = count("hidden_size"), count("heads")
    kv_heads = known.get("kv_heads")
    kv = fields.integer(usual["kv_heads"], kv_heads if isinstance(kv_heads, int) else heads)
    if heads % kv:
        raise InputError(
            f"{fields.where}: {heads} heads ({usual['heads']!r}) cannot share {kv} KV heads ({usual['kv_heads']!r}) "
            "evenly; a divisor of the heads is needed"
        )
    width = known.get("head_dim")
    if usual["head_dim"] not in fields and not isinstance(width, int) and hidden % heads:
        raise InputError(
            f"{fields.where}: {usual['hidden_size']!r} {hidden} is not a multiple of {heads} heads "
            f"({usual['heads']!r}) and no {usual['head_dim']!r} is given; one of the two is needed"
        )
    tied = known.get("tied_embeddings")
    return Shape(
        architecture=architecture,
        layers=depth,
        hidden_size=hidden,
        heads=heads,
        kv_heads=kv,
        head_dim=fields.integer(usual["head_dim"], width if isinstance(width, int) else hidden // heads),
        intermediate_size=count("intermediate_size"),
        vocab_size=count("vocab_size"),
        max_positions=count("max_positions"),
        tied_embeddings=fields.boolean("tie_word_embeddings", bool(tied)),
        activation=fields.text(usual["activation"], str(known.get("activation", "silu"))),
        dtype=read_dtype(fields),
    )


def decoder(
    shape: Shape,
    layers: Sequence[Layer],
    outside: Iterable[Tensor],
    stack: str,
    **more: object,
) -> Model:
    """A model of one decoder: `outside` are embeddings, last norm and head under their full names.

    `more` are further fields of `Model` (experts, active_experts, ...).
    """
    headline = {name: getattr(shape, name) for name in Shape.__slots__}
    parts = (Part("language", tuple(outside), stack, tuple(layers)),)
    return Model(**headline, parts=parts, **more)  # type: ignore[arg-type]
