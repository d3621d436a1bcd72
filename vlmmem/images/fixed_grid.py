"""One grid of patches, or a few: images are cropped or squeezed to one size, whatever size they have.

LLaVA-1.5 resizes the shorter side and crops the centre; PaliGemma and Gemma 3 squeeze the image into a square; Gemma 3
may add crops of a long one ("pan and scan", off unless asked for).
"""

import math

from vlmmem.errors import InputError
from vlmmem.images.counts import ImageTokens
from vlmmem.record import record

__all__ = ["CentreCrop", "PanAndScan", "Square"]


@record(frozen=True, slots=True)
class CentreCrop:
    """LLaVA-1.5: the image is resized, then its centre is cropped; each patch is a token.

    Attributes:
        shortest_edge: pixels to which the shorter side is resized, or None where `resized` says both.
        resized: height and width after resizing, or None.
        crop: height and width of the centre that is kept, or None where nothing is cropped.
        patch_size: pixels, the side of a patch.
        extra: tokens of the tower beside the patches, which `drop_first` takes off again (the class token).
        drop_first: whether the first feature is left out (vision_feature_select_strategy "default").

    Source: LlavaProcessor.replace_image_token and LlavaImageProcessor in transformers v5.23.0, models/llava.

    >>> CentreCrop(336, None, (336, 336), patch_size=14, extra=1, drop_first=True).image(1920, 1080).tokens
    576
    """

    shortest_edge: int | None
    resized: tuple[int, int] | None
    crop: tuple[int, int] | None
    patch_size: int
    extra: int
    drop_first: bool

    def image(self, width: int, height: int) -> ImageTokens:
        """The counts for one image."""
        kept = self.crop or self.resized or self._by_shorter_side(width, height)
        patches = (kept[0] // self.patch_size) * (kept[1] // self.patch_size)
        tokens = patches + self.extra - self.drop_first
        if tokens < 1:
            raise InputError(
                f"{width}x{height}: {kept[1]}x{kept[0]} pixels are less than one patch; a larger image is needed"
            )
        return ImageTokens(width, height, tokens, tokens, 3 * kept[0] * kept[1], 1, patches)

    def _by_shorter_side(self, width: int, height: int) -> tuple[int, int]:
        assert self.shortest_edge is not None
        short, long = min(width, height), max(width, height)
        longer = int(self.shortest_edge * long / short)
        return (longer, self.shortest_edge) if width <= height else (self.shortest_edge, longer)


@record(frozen=True, slots=True)
class Square:
    """PaliGemma: the image is squeezed to `height` x `width` pixels and costs `tokens`, always.

    `patch_size` is that of the vision tower, or None where it is not known.

    Source: PaliGemmaProcessor.replace_image_token in transformers v5.23.0, models/paligemma.

    >>> Square(224, 224, 256, patch_size=14).image(4032, 3024).tokens
    256
    """

    height: int
    width: int
    tokens: int
    patch_size: int | None = None

    def image(self, width: int, height: int) -> ImageTokens:
        """The counts for one image."""
        patches = _patches(self.height, self.width, self.patch_size)
        return ImageTokens(width, height, self.tokens, self.tokens, 3 * self.height * self.width, 1, patches)


@record(frozen=True, slots=True)
class PanAndScan:
    """Gemma 3: the image is squeezed into a square of 256 tokens; with pan and scan, so is each crop of a long one.

    Around each stand its markers of begin and end and an empty line on either side: four tokens. The sentence that
    introduces crops ("Here is the original image ...") is text and not counted.

    Attributes:
        height, width: pixels of the square. tokens: of one square. patch_size: of the vision tower, or None.
        scan: whether long images are cropped as well.
        min_crop_size: pixels that a crop's shorter side has at least. max_crops: crops at most.
        min_ratio: longer to shorter side from which an image counts as long.

    Source: Gemma3Processor and Gemma3ImageProcessor.pan_and_scan_batched in transformers v5.23.0, models/gemma3.

    >>> PanAndScan(896, 896, 256, 14, scan=True).image(3000, 1000).crops
    4
    """

    height: int
    width: int
    tokens: int
    patch_size: int | None = None
    scan: bool = False
    min_crop_size: int = 256
    max_crops: int = 4
    min_ratio: float = 1.2

    def image(self, width: int, height: int) -> ImageTokens:
        """The counts for one image."""
        squares = 1 + (self._crops(width, height) if self.scan else 0)
        tokens = squares * self.tokens
        patches = _patches(self.height, self.width, self.patch_size)
        return ImageTokens(
            width,
            height,
            tokens,
            tokens + 4 * squares,
            3 * self.height * self.width * squares,
            squares,
            None if patches is None else squares * patches,
        )

    def _crops(self, width: int, height: int) -> int:
        long, short = max(width, height), min(width, height)
        if long / short < self.min_ratio:
            return 0
        crops = math.floor(long / short + 0.5)
        crops = min(math.floor(long / self.min_crop_size), crops)
        crops = min(self.max_crops, max(2, crops))
        if min(math.ceil(long / crops), short) < self.min_crop_size:
            return 0
        # A strip of few pixels, cut into crops of equal size rounded up, may leave none for the last.
        if math.ceil(long / crops) * (crops - 1) >= long:
            raise InputError(f"{width}x{height}: cannot be cut into {crops} crops; a longer image is needed")
        return crops


def _patches(height: int, width: int, patch_size: int | None) -> int | None:
    return None if patch_size is None else (height // patch_size) * (width // patch_size)
