"""Any resolution: tiles on the best of a list of canvases, an overview before them, the padding taken out again.

LLaVA-NeXT and LLaVA-OneVision. A row of features ends with a learned newline, which is a feature too.
"""

import math

from vlmmem.errors import InputError
from vlmmem.images.counts import ImageTokens
from vlmmem.record import record

__all__ = ["AnyResolution", "best_canvas"]


def best_canvas(height: int, width: int, canvases: tuple[tuple[int, int], ...]) -> tuple[int, int] | None:
    """The canvas (height, width) that keeps most of the image's pixels, then wastes least; None where none keeps any.

    Source: select_best_resolution in transformers v5.23.0, image_processing_utils.py.

    >>> best_canvas(1080, 1920, ((336, 672), (672, 336), (672, 672)))
    (672, 672)
    """
    best, most, least_wasted = None, 0, math.inf
    for tall, wide in canvases:
        scale = min(wide / width, tall / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        wasted = wide * tall - kept
        if kept > most or (kept == most and wasted < least_wasted):
            best, most, least_wasted = (tall, wide), kept, wasted
    return best


@record(frozen=True, slots=True)
class AnyResolution:
    """LLaVA-NeXT, LLaVA-OneVision: an overview of one tile, and the image on a canvas of tiles.

    Attributes:
        canvases: height and width, pixels, of every canvas that there is.
        cut: pixels, the side of the tiles into which a canvas is cut.
        tile: height and width, pixels, of a tile as the tower takes it.
        grid: rows and columns of features of one tile.
        overview: tokens of the overview.
        drop_first: whether one feature is left out (vision_feature_select_strategy "default").
        most_tiles: tiles' worth of features that the canvas keeps at most (anyres_max_9), or None for all.
        tile_patches: patches of one tile in the tower.

    Source: LlavaNextProcessor and LlavaOnevisionProcessor (_get_number_of_features) in transformers v5.23.0,
    models/llava_next and models/llava_onevision.

    >>> next_ = AnyResolution(((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)), 336, (336, 336),
    ...                       (24, 24), overview=577, drop_first=True, most_tiles=None, tile_patches=576)
    >>> next_.image(1920, 1080).tokens
    1948
    """

    canvases: tuple[tuple[int, int], ...]
    cut: int
    tile: tuple[int, int]
    grid: tuple[int, int]
    overview: int
    drop_first: bool
    most_tiles: int | None
    tile_patches: int

    def image(self, width: int, height: int) -> ImageTokens:
        """The counts for one image."""
        canvas = best_canvas(height, width, self.canvases)
        if canvas is None:
            raise InputError(f"{width}x{height}: no canvas keeps a pixel of so narrow an image; a wider one is needed")
        rows, columns = self.grid[0] * (canvas[0] // self.tile[0]), self.grid[1] * (canvas[1] // self.tile[1])
        if not rows:
            raise InputError(f"{width}x{height}: the canvas {canvas} is lower than a tile; a higher one is needed")
        tokens = self._features(width, height, rows, columns) + self.overview - self.drop_first
        crops = 1 + math.ceil(canvas[0] / self.cut) * math.ceil(canvas[1] / self.cut)
        pixels = 3 * crops * self.tile[0] * self.tile[1]
        return ImageTokens(width, height, tokens, tokens, pixels, crops, crops * self.tile_patches)

    def _features(self, width: int, height: int, rows: int, columns: int) -> int:
        """Features of the canvas without padding, and one newline a row."""
        ratio = width / height
        if ratio > columns / rows:
            kept = int(round(height * (columns / width), 7))
            rows -= (rows - kept) // 2 * 2
        else:
            kept = int(round(width * (rows / height), 7))
            columns -= (columns - kept) // 2 * 2
        if self.most_tiles is not None:
            over = math.sqrt(rows * columns / (self.most_tiles * self.grid[0] ** 2))
            if over > 1.1:
                return int(rows // over) * int(columns // over) + int(rows // over)
        return rows * columns + rows
