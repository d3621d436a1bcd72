"""Memory of the weights."""

from math import ceil

from vlmmem.catalog import find_format, find_model
from vlmmem.errors import InputError
from vlmmem.formats import Format
from vlmmem.memory.gguf import MIXTURES, gguf_weights_bytes
from vlmmem.model import Model

__all__ = ["checkpoint_bytes", "model_weights_bytes", "weights_bytes"]


def weights_bytes(parameters: int, format: str | Format = "bf16") -> int:  # noqa: A002 (the field's own word)
    """Bytes of `parameters` weights, all of them in one number format: ceil(parameters x bits / 8).

    Bits are exact fractions with the scales and zeros of the format. What a format keeps for each row
    (`row_bits`) needs the shapes and is not in it: `model_weights_bytes` adds it.

    Args:
        parameters: number of weights, 0 or more.
        format: a number format or its name.

    Raises:
        InputError: `parameters` is not an integer of 0 or more, or the format is not in the catalogue.

    Source: each format of the catalogue carries its own.

    >>> weights_bytes(13_015_864_320, "bf16")
    26031728640
    >>> weights_bytes(3, "int4")
    2
    """
    if type(parameters) is not int or parameters < 0:
        raise InputError(f"weights: 'parameters' is {parameters!r}; an integer of 0 or more is needed")
    number = find_format(format) if isinstance(format, str) else format
    return ceil(parameters * number.bits / 8)


def model_weights_bytes(
    model: str | Model,
    format: str | Format | None = None,  # noqa: A002 (the field's own word)
) -> dict[str, int]:
    """Bytes of a checkpoint by part (`language`, `vision`, `projector`).

    A format whose scope is "decoder-linear" (GPTQ, AWQ, NF4 and the like) holds the matrices of the decoder's
    linear layers; embeddings, head, norms, biases, vision tower and projector stay in the model's dtype.

    Args:
        model: a model or its name.
        format: a number format or its name; None is the format in which the model was published.

    Raises:
        InputError: model or format is not in the catalogue.

    Source: the checkpoints of GPTQ (arXiv 2210.17323) and AWQ (arXiv 2306.00978).

    >>> model_weights_bytes("llava-1.5-13b")
    {'language': 26033039360, 'vision': 607014912, 'projector': 62935040}
    >>> model_weights_bytes("llama-3.1-8b", "awq-4bit")
    {'language': 5727854592}
    """
    model = find_model(model) if isinstance(model, str) else model
    native = find_format(model.dtype)
    number = native if format is None else find_format(format) if isinstance(format, str) else format
    parts = model.parameters_by_part
    if number.scope == "all":
        return {part: weights_bytes(count, number) for part, count in parts.items()}
    matrices, rows = model.matrices
    quantised = ceil((matrices * number.bits + rows * number.row_bits) / 8)
    rest = {part: weights_bytes(count, native) for part, count in parts.items() if part != "language"}
    return {"language": quantised + weights_bytes(parts["language"] - matrices, native), **rest}


def checkpoint_bytes(
    model: str | Model,
    format: str | Format | None = None,  # noqa: A002 (the field's own word)
) -> int:
    """Bytes of a whole checkpoint, with all that its format leaves in 16 or 32 bits.

    Args:
        model: a model or its name.
        format: a number format, its name, or the name of a mixture of GGUF formats such as "q4_k_m"; None is the
            format in which the model was published.

    Raises:
        InputError: model or format is not in the catalogue.

    Source: those of `model_weights_bytes` and `gguf_weights_bytes`.

    >>> checkpoint_bytes("llama-3.1-8b"), checkpoint_bytes("llama-3.1-8b", "awq-4bit")
    (16060522496, 5727854592)
    >>> checkpoint_bytes("llama-3.1-8b", "q4_k_m")
    4912898048
    """
    if isinstance(format, str) and format.lower() in MIXTURES:
        return sum(gguf_weights_bytes(model, format).values())
    return sum(model_weights_bytes(model, format).values())
