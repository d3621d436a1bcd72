"""Memory of the weights."""

from vlmmem.catalog import find_format
from vlmmem.errors import InputError
from vlmmem.formats import Format

__all__ = ["weights_bytes"]


def weights_bytes(parameters: int, format: str | Format = "bf16") -> int:  # noqa: A002 (the field's own word)
    """Bytes of `parameters` weights, all of them in one number format: ceil(parameters x bits / 8).

    Bits are exact fractions with the scales and zeros of the format. What a format keeps for each row
    (`row_bits`) needs the shapes and is not in it: `vlmmem.estimate` adds it.

    Args:
        parameters: number of weights, 0 or more.
        format: a number format or its name.

    Raises:
        InputError: `parameters` is not an integer of 0 or more, or the format is not in the catalogue.

    Source: arXiv 2303.18223, section on model memory; the formats carry their own sources.

    >>> weights_bytes(13_015_864_320, "bf16")
    26031728640
    >>> weights_bytes(3, "int4")
    2
    """
    if type(parameters) is not int or parameters < 0:
        raise InputError(f"weights: 'parameters' is {parameters!r}; an integer of 0 or more is needed")
    bits = parameters * (find_format(format) if isinstance(format, str) else format).bits
    return -(-bits.numerator // (8 * bits.denominator))
