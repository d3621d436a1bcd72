"""Square tiles of one size: InternVL, Idefics3 and SmolVLM, Llama 3.2 Vision."""

import math

from vlmmem.errors import InputError
from vlmmem.images.counts import ImageTokens
from vlmmem.record import record

__all__ = ["ClosestGrid", "LongestEdge", "TiledCanvas", "arrangements"]

LARGEST = 4096
"""Pixels: Idefics3 and SmolVLM shrink what is longer after the first resizing."""


def arrangements(most: int, least: int = 1) -> list[tuple[int, int]]:
    """Every grid (first, second) of `least` to `most` tiles, in the order in which the processors try them.

    >>> arrangements(3)
    [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1)]
    """
    return [(a, b) for a in range(1, most + 1) for b in range(1, most // a + 1) if a * b >= least]


@record(frozen=True, slots=True)
class ClosestGrid:
    """InternVL: the grid of tiles with the closest ratio of sides, and an overview where it has more than one tile.

    Attributes:
        height, width: pixels of a tile. tokens: of a tile. min_tiles, max_tiles: of the grid, without the overview.
        patch_size: of the vision tower, or None. Around the image stand a marker of begin and one of end.

    Source: InternVLProcessor and GotOcr2ImageProcessor (get_optimal_tiled_canvas) in transformers v5.23.0,
    models/internvl and models/got_ocr2.

    >>> ClosestGrid(448, 448, 256, 1, 12, patch_size=14).image(1920, 1080).tokens
    2304
    """

    height: int
    width: int
    tokens: int
    min_tiles: int
    max_tiles: int
    split: bool = True
    patch_size: int | None = None

    def image(self, width: int, height: int) -> ImageTokens:
        """The counts for one image."""
        columns, rows = self._grid(width, height) if self.split else (1, 1)
        crops = columns * rows + (columns * rows > 1)
        patches = None
        if self.patch_size is not None:
            patches = crops * (self.height // self.patch_size) * (self.width // self.patch_size)
        tokens = crops * self.tokens
        return ImageTokens(width, height, tokens, tokens + 2, 3 * crops * self.height * self.width, crops, patches)

    def _grid(self, width: int, height: int) -> tuple[int, int]:
        ratio, area = width / height, width * height
        best, least = (1, 1), math.inf
        for grid in sorted(arrangements(self.max_tiles, self.min_tiles), key=lambda grid: grid[0] * grid[1]):
            difference = abs(ratio - grid[0] / grid[1])
            # Of grids equally close the larger is taken, until it has twice the pixels of the image.
            if difference < least or (
                difference == least and area > 0.5 * self.height * self.width * grid[0] * grid[1]
            ):
                best, least = grid, difference
        return best


@record(frozen=True, slots=True)
class LongestEdge:
    """Idefics3, SmolVLM: the longer side is resized to `longest`, small images too; then tiles and an overview.

    A tile stands behind two markers, a row ends with a line break, the overview stands behind two markers and before
    one. The line break of the last row and the one before the overview are one token, as the tokenizers of these models
    merge them. Each marker counts as one token, as in the processor's own count: Idefics3-8B and SmolVLM-2B have no
    tokens of their own for <row_1_col_1> and <global-img>, so there each costs several.

    Attributes:
        longest: pixels. tile: pixels, the side of a tile. tokens: of a tile. split: whether tiles are cut at all.
        patch_size: of the vision tower, or None.

    Source: Idefics3Processor and Idefics3ImageProcessor in transformers v5.23.0, models/idefics3; models/smolvlm is
    the same.

    >>> LongestEdge(1456, 364, 169, patch_size=14).image(64, 48).tokens
    2197
    """

    longest: int
    tile: int
    tokens: int
    split: bool = True
    patch_size: int | None = None

    def image(self, width: int, height: int) -> ImageTokens:
        """The counts for one image."""
        rows, columns = self._grid(width, height) if self.split else (1, 1)
        if rows * columns == 1:
            crops, markers = 1, 3
        else:
            crops, markers = rows * columns + 1, 2 * rows * columns + rows + 3
        tokens = crops * self.tokens
        patches = None if self.patch_size is None else crops * (self.tile // self.patch_size) ** 2
        return ImageTokens(width, height, tokens, tokens + markers, 3 * crops * self.tile**2, crops, patches)

    def _grid(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of tiles."""
        width, height = self._shrunk(*self._resized(width, height))
        ratio = width / height
        if width >= height:
            width = self._whole(width)
            height = self._whole(int(width / ratio))
        else:
            height = self._whole(height)
            width = self._whole(int(height * ratio))
        return height // self.tile, width // self.tile

    def _whole(self, side: int) -> int:
        return math.ceil(side / self.tile) * self.tile

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        ratio = width / height
        if width >= height:
            width = self.longest
            height = int(width / ratio)
            height += height % 2
        else:
            height = self.longest
            width = int(height * ratio)
            width += width % 2
        return max(width, 1), max(height, 1)

    def _shrunk(self, width: int, height: int) -> tuple[int, int]:
        ratio = width / height
        if width >= height and width > LARGEST:
            width = LARGEST
            height = int(width / ratio)
        elif height > width and height > LARGEST:
            height = LARGEST
            width = int(height * ratio)
        return max(width, 1), max(height, 1)


@record(frozen=True, slots=True)
class TiledCanvas:
    """Llama 3.2 Vision: the smallest canvas of tiles that holds the image.

    Features reach the decoder by cross-attention, so that the prompt has one token for all of them. The tensor always
    has `max_tiles` tiles; those that the canvas does not fill are zeros, which the tower still runs over.

    Attributes:
        tile: pixels, the side of a tile. max_tiles: of a canvas. patch_size: of the vision tower, or None.

    Source: MllamaProcessor and MllamaImageProcessor in transformers v5.23.0, models/mllama.

    >>> found = TiledCanvas(560, 4, patch_size=14).image(1920, 1080)
    >>> found.tokens, found.crops, found.patches
    (1, 4, 6400)
    """

    tile: int
    max_tiles: int
    patch_size: int | None = None

    def image(self, width: int, height: int) -> ImageTokens:
        """The counts for one image."""
        patches = None if self.patch_size is None else self.max_tiles * (self.tile // self.patch_size) ** 2
        return ImageTokens(width, height, 1, 1, 3 * self.max_tiles * self.tile**2, self.max_tiles, patches)

    def canvas(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of the tiles that the image fills.

        >>> TiledCanvas(560, 4).canvas(1920, 1080)
        (2, 2)
        """
        scales = {
            grid: min(grid[0] * self.tile / height, grid[1] * self.tile / width)
            for grid in arrangements(self.max_tiles)
        }
        larger = [scale for scale in scales.values() if scale >= 1]
        chosen = min(larger) if larger else max(scales.values())
        fitting = [grid for grid, scale in scales.items() if scale == chosen]
        if not fitting:
            raise InputError(f"{width}x{height}: no canvas fits; a smaller image is needed")
        return min(fitting, key=lambda grid: grid[0] * grid[1])
