"""Format: a number format and the exact bits that one weight costs in it, scales and zeros included."""

from fractions import Fraction

from vlmmem.errors import InputError
from vlmmem.model import Source
from vlmmem.record import record

__all__ = ["SCOPES", "Format"]

SCOPES = ("all", "decoder-linear", "mixture", "cache", "latent-cache")


@record(frozen=True, slots=True)
class Format:
    """One number format.

    `bits` are the bits of one weight with its share of scales and zeros, exactly. `row_bits` come on top
    for each row of a matrix (LLM.int8 keeps one scale a row). `scope` says what a checkpoint in this format
    holds in it: "all" its weights, or only the linear layers of the decoder ("decoder-linear"; the rest
    stays in 16 bits); a "mixture" is one of llama.cpp's, where a rule picks each tensor's format, and `bits` are
    those of most. `kv_cache` says whether a KV cache is kept in this format. Two scopes are of caches only: "cache"
    holds the keys and values of heads, "latent-cache" the vectors of latent attention, whose bytes stand in `vectors`
    by their width. `block` is how many elements share their scales: a block does not reach over the end of a row or a
    head's vector. A cache has a row for each vector of a head.

    >>> from vlmmem import find_format
    >>> find_format("gptq-4bit").bits, find_format("bf16").bits
    (Fraction(133, 32), Fraction(16, 1))
    """

    id: str
    name: str
    aliases: tuple[str, ...]
    bits: Fraction
    row_bits: int = 0
    scope: str = "all"
    kv_cache: bool = False
    formula: str = ""
    block: int = 1
    vectors: tuple[tuple[int, int], ...] = ()
    sources: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        if self.bits <= 0:
            raise InputError(f"{self.id}: 'bits' is {self.bits}; more than 0 is needed")
        if self.scope not in SCOPES:
            raise InputError(f"{self.id}: 'scope' is {self.scope!r}; one of {', '.join(SCOPES)} is needed")

    @property
    def bytes_per_weight(self) -> Fraction:
        """Bytes of one weight with its share of scales and zeros, exactly."""
        return self.bits / 8
