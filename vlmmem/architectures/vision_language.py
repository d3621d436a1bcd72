"""What all vision-language configs have in common: a text model inside, a tower, and a head that one of two may tie."""

from collections.abc import Iterable, Mapping

from vlmmem.architectures import build_text
from vlmmem.architectures.fields import Fields
from vlmmem.layers import Part, Tensor
from vlmmem.model import Model, VisionTower
from vlmmem.record import replace

__all__ = ["TIED_BY", "inside", "inside_tower", "projector", "text_of", "tied_of", "with_tower"]

TIED_BY = ("own", "own or text")
"""Who may tie the head to the embedding: the whole config's own field, or either that or the text config's."""


def inside(fields: Fields, field: str, given: Mapping[str, object]) -> Fields:
    """A config inside the config.

    Where the field is missing altogether, `given` are the whole class's own values for it; where it is there, the
    inner class's defaults fill what it leaves out.
    """
    return fields.sub(field) if field in fields else fields.sub(field).changed(**given)


def tied_of(fields: Fields, tied: bool, by: str = "own") -> dict[str, bool]:
    """What a whole config tells its text model about tied embeddings.

    Args:
        fields: the whole config.
        tied: the whole class's default.
        by: one of `TIED_BY`.
    """
    own = fields.boolean("tie_word_embeddings", tied)
    return {} if by == "own or text" and not own else {"tie_word_embeddings": own}


def text_of(
    fields: Fields,
    text: Fields,
    prefix: str,
    default: str,
    *,
    tied: bool,
    by: str = "own",
    given: Mapping[str, object] | None = None,
) -> Model:
    """The text model inside.

    Args:
        fields: the whole config; the number format it names is that of all its parts.
        text: the text model's config.
        prefix: what stands before the names of the text model's tensors.
        default: the text model's model_type where its config names none.
        tied: whether the whole class ties the head where its config does not say.
        by: who decides that, of `TIED_BY`.
        given: the text class's defaults, for fields that are missing or null.
    """
    values: dict[str, object] = {name: value for name, value in (given or {}).items() if name not in text}
    dtype = fields.first("dtype", "torch_dtype")
    if dtype in fields:
        values["dtype"] = fields.raw(dtype)
    model = build_text(text.changed(**values, **tied_of(fields, tied, by)), prefix, default)
    if not model.tied_embeddings or "tie_word_embeddings" in fields:
        return model
    if build_text(text.changed(**values), prefix, default).tied_embeddings:
        return model
    more = model.vocab_size * model.hidden_size
    note = (
        "the config does not say whether the head is tied to the embedding, and its class in transformers ties it; "
        f"a checkpoint with a head of its own holds {more:,} parameters more"
    )
    return replace(model, notes=(*model.notes, note))


def inside_tower(*tensors: Iterable[Tensor]) -> Part:
    """What maps the features inside the tower's own module: it counts with the tower, as in transformers."""
    return Part("vision", tuple(tensor for group in tensors for tensor in group))


def projector(*tensors: Iterable[Tensor]) -> Part:
    """What maps the tower's features to the decoder."""
    return Part("projector", tuple(tensor for group in tensors for tensor in group))


def with_tower(text: Model, architecture: str, tower: VisionTower | None, *parts: Part) -> Model:
    """The whole model: its text model, and the parts of its tower and projector."""
    return replace(text, architecture=architecture, parts=(*text.parts, *parts), vision=tower)
