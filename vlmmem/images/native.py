"""The image's own shape, as nearly as patches allow: Pixtral, Mistral-Small-3.1, Gemma 4."""

import math

from vlmmem.errors import InputError
from vlmmem.images.counts import ImageTokens
from vlmmem.record import record

__all__ = ["SOFT_TOKENS", "LongestSide", "PatchBudget"]

SOFT_TOKENS = (70, 140, 280, 560, 1120)
"""The budgets that Gemma 4 knows."""


@record(frozen=True, slots=True)
class LongestSide:
    """Pixtral, Mistral 3: shrunk until it fits, then each side rounded up to whole tokens; a marker ends each row.

    Attributes:
        max_height, max_width: pixels that the image has at most. patch_size: pixels. merge_size: patches a token and
            side.

    Source: PixtralProcessor.replace_image_token and models/pixtral/image_processing_pixtral.py in transformers v5.23.0.

    >>> LongestSide(1024, 1024, 16, 1).image(1920, 1080).tokens
    2304
    """

    max_height: int
    max_width: int
    patch_size: int
    merge_size: int

    def image(self, width: int, height: int) -> ImageTokens:
        """The counts for one image."""
        tall, wide = height, width
        ratio = max(tall / self.max_height, wide / self.max_width)
        if ratio > 1:
            tall, wide = math.floor(tall / ratio), math.floor(wide / ratio)
        side = self.patch_size * self.merge_size
        rows, columns = (tall - 1) // side + 1, (wide - 1) // side + 1
        if rows < 1 or columns < 1:
            raise InputError(
                f"{width}x{height}: nothing is left of the shorter side once the longer one fits; a wider image is"
                " needed"
            )
        tokens = rows * columns
        return ImageTokens(width, height, tokens, tokens + rows, 3 * tokens * side**2, 1, tokens * self.merge_size**2)


@record(frozen=True, slots=True)
class PatchBudget:
    """Gemma 4: as large as the budget allows, the ratio of sides kept, each side a whole number of tokens.

    The tensor is padded to the budget. A marker of begin and one of end stand around the tokens.

    Attributes:
        max_tokens: the budget. patch_size: pixels. pooling: patches a token and side.

    Source: Gemma4Processor and get_aspect_ratio_preserving_size in transformers v5.23.0, models/gemma4.

    >>> PatchBudget(280, 16, 3).image(1920, 1080).tokens
    264
    """

    max_tokens: int
    patch_size: int
    pooling: int

    @property
    def max_patches(self) -> int:
        """Patches of the budget."""
        return self.max_tokens * self.pooling**2

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after resizing."""
        pixels = self.max_patches * self.patch_size**2
        factor = math.sqrt(pixels / (height * width))
        side = self.pooling * self.patch_size
        tall, wide = math.floor(factor * height / side) * side, math.floor(factor * width / side) * side
        longest = self.max_patches // self.pooling**2 * side
        if not tall and not wide:
            raise InputError(f"{width}x{height}: the budget holds no token; a larger one is needed")
        if not tall:
            tall, wide = side, min(math.floor(width / height) * side, longest)
        elif not wide:
            tall, wide = min(math.floor(height / width) * side, longest), side
        if tall * wide > pixels:
            raise InputError(f"{width}x{height}: {wide}x{tall} exceeds the budget of {self.max_patches} patches")
        return tall, wide

    def image(self, width: int, height: int) -> ImageTokens:
        """The counts for one image."""
        tall, wide = self.size(height, width)
        patches = (tall // self.patch_size) * (wide // self.patch_size)
        tokens = patches // self.pooling**2
        return ImageTokens(
            width, height, tokens, tokens + 2, self.max_patches * 3 * self.patch_size**2, 1, self.max_patches
        )
