"""How a quantised matrix is stored: integers packed into words, scales, zeros and what else stands beside them.

Each layout is that of the library that writes it; the arrays and their shapes are checked against the libraries'
own code where it runs without a GPU (tests/oracle/quantization.json).
"""

from vlmmem.record import record

__all__ = ["Array", "Layout"]


@record(frozen=True, slots=True)
class Array:
    """One array that belongs to a matrix.

    `bytes` of an element; along the matrix's outputs and inputs there are ceil(n x outputs / d) and ceil(n x inputs /
    d) elements for `rows` and `columns` of (n, d), and one where that is None. Where `flat`, the matrix is taken as
    one run of numbers: ceil(n x outputs x inputs / d) elements for `columns`.

    >>> Array("scales", 2, (1, 1), (1, 128)).size(4096, 11008)
    704512
    """

    name: str
    bytes: int
    rows: tuple[int, int] | None = (1, 1)
    columns: tuple[int, int] | None = (1, 1)
    flat: bool = False

    def size(self, outputs: int, inputs: int) -> int:
        """Bytes for one matrix of outputs x inputs."""
        if self.flat and self.columns is not None:
            return self.bytes * _ceil(outputs * inputs, self.columns)
        return self.bytes * _ceil(outputs, self.rows) * _ceil(inputs, self.columns)


def _ceil(length: int, share: tuple[int, int] | None) -> int:
    return 1 if share is None else -(-length * share[0] // share[1])


@record(frozen=True, slots=True)
class Layout:
    """What stands for one quantised matrix: the numbers first, then what belongs to them. `bits` of a number alone."""

    name: str
    bits: int
    arrays: tuple[Array, ...]

    def size(self, outputs: int, inputs: int) -> int:
        """Bytes of one matrix of outputs x inputs, with its scales.

        >>> from vlmmem.quantization import gptq
        >>> gptq(bits=4, group=128).size(4096, 4096)
        8732672
        """
        return sum(array.size(outputs, inputs) for array in self.arrays)
