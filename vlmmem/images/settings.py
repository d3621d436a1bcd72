"""From the settings files of a processor to its rules.

Three files of a model folder say how it sees: preprocessor_config.json, processor_config.json, and
video_preprocessor_config.json; newer folders nest the first and the last in the second. They come from strangers: every
field that matters is asked for by its type, and no class that they name is ever imported.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from vlmmem.errors import InputError
from vlmmem.images.anyres import AnyResolution
from vlmmem.images.counts import ImageRule, VideoRule
from vlmmem.images.fixed_grid import CentreCrop, PanAndScan, Square
from vlmmem.images.native import SOFT_TOKENS, LongestSide, PatchBudget
from vlmmem.images.smart_resize import ClipBudget, FrameBudget, PixelBounds
from vlmmem.images.tiles import ClosestGrid, LongestEdge, TiledCanvas

__all__ = ["CLASSES", "Settings", "image_rule", "processor_class", "video_rule"]

MOST = 1 << 40
"""No setting that counts pixels is larger."""

MOST_TILES = 4096
MOST_CANVASES = 4096


class Settings:
    """The fields of one settings file. A field that is missing or null has its default, as in transformers."""

    def __init__(self, data: object, where: str) -> None:
        self.where = where
        if not isinstance(data, Mapping):
            raise InputError(f"{where}: {_short(data)} stands where an object of settings is needed")
        self._data: Mapping[str, Any] = data

    def wrong(self, field: str, value: object, need: str) -> NoReturn:
        """Raise: `field` holds `value` where `need` is needed."""
        raise InputError(f"{self.where}: {field!r} is {_short(value)}; {need} is needed")

    def value(self, field: str) -> Any:
        """What the file says, or None."""
        return self._data.get(field)

    def text(self, field: str, default: str | None = None) -> str | None:
        """A string."""
        found = self.value(field)
        if found is None:
            return default
        if not isinstance(found, str):
            self.wrong(field, found, "a text")
        return found

    def boolean(self, field: str, default: bool) -> bool:
        """True or False."""
        found = self.value(field)
        if found is None:
            return default
        if not isinstance(found, bool):
            self.wrong(field, found, "true or false")
        return found

    def integer(self, field: str, default: int | None, most: int = MOST, least: int = 1) -> int:
        """A whole number from `least` to `most`; without a default the field is needed."""
        found = self.value(field)
        if found is None:
            if default is None:
                raise InputError(f"{self.where}: {field!r} is missing; a whole number is needed")
            return default
        if type(found) is not int or not least <= found <= most:
            self.wrong(field, found, f"a whole number from {least:,} to {most:,}")
        return found

    def number(self, field: str, default: float | None) -> float | None:
        """A finite number above zero."""
        found = self.value(field)
        if found is None:
            return default
        if type(found) not in (int, float) or not math.isfinite(found) or not 0 < found < MOST:
            self.wrong(field, found, "a number above 0")
        return float(found)

    def needs(self, field: str) -> None:
        """Refuse files that switch `field` off: what the processor then makes depends on more than the size."""
        if not self.boolean(field, True):
            self.wrong(field, False, "true")

    def edges(self, field: str, default: Mapping[str, int] | None = None, square: bool = True) -> dict[str, int]:
        """A size as height and width, as shortest_edge and longest_edge, or as min_pixels and max_pixels.

        A bare number is a square, or the shorter edge where `square` is false; two numbers are height and width.
        """
        found = self.value(field)
        if found is None:
            if default is None:
                raise InputError(f"{self.where}: {field!r} is missing; a size is needed")
            return dict(default)
        if type(found) is int:
            found = {"height": found, "width": found} if square else {"shortest_edge": found}
        elif isinstance(found, list) and len(found) == 2:
            found = {"height": found[0], "width": found[1]}
        if not isinstance(found, dict) or not found:
            self.wrong(field, found, "a size, such as an object with height and width,")
        sizes = {name: edge for name, edge in found.items() if edge is not None}
        for name, edge in sizes.items():
            if type(edge) is not int or not 0 < edge <= MOST:
                self.wrong(f"{field}.{name}", edge, f"a whole number from 1 to {MOST:,}")
        return sizes

    def both(self, field: str, default: Mapping[str, int] | None = None) -> tuple[int, int]:
        """Height and width."""
        sizes = self.edges(field, default)
        if not {"height", "width"} <= set(sizes):
            self.wrong(field, self.value(field), "an object with height and width")
        return sizes["height"], sizes["width"]

    def one(self, field: str, name: str, default: int) -> int:
        """The edge `name` of a size."""
        sizes = self.edges(field, {name: default})
        if name not in sizes:
            self.wrong(field, self.value(field), f"an object with {name}")
        return sizes[name]


def _short(value: object, most: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def _first_left_out(processor: Settings, default: str | None) -> bool:
    strategy = processor.text("vision_feature_select_strategy", default)
    if strategy not in ("default", "full", None):
        processor.wrong("vision_feature_select_strategy", strategy, '"default" or "full"')
    return strategy == "default"


# --- images, one function a processor class; what a class sets by itself stands here with its value ---


def _llava(pre: Settings, processor: Settings, patch_size: int | None) -> ImageRule:
    pre.needs("do_resize")
    size = pre.edges("size", {"shortest_edge": 224}, square=False)
    crop = pre.both("crop_size", {"height": 224, "width": 224}) if pre.boolean("do_center_crop", True) else None
    if pre.boolean("do_pad", False):
        pre.wrong("do_pad", True, "false")
    resized = (size["height"], size["width"]) if {"height", "width"} <= set(size) else None
    if resized is None and ("shortest_edge" not in size or "longest_edge" in size):
        pre.wrong("size", pre.value("size"), "a shortest_edge, or height and width,")
    return CentreCrop(
        shortest_edge=None if resized else size["shortest_edge"],
        resized=resized,
        crop=crop,
        patch_size=processor.integer("patch_size", patch_size),
        extra=processor.integer("num_additional_image_tokens", 0, least=0),
        drop_first=_first_left_out(processor, None),
    )


NEXT_CANVASES = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
ONEVISION_CANVASES = tuple((tall, wide) for tall in range(384, 2305, 384) for wide in range(384, 2305, 384))


def _canvases(pre: Settings, default: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    found = pre.value("image_grid_pinpoints")
    if found is None:
        return default
    need = "a list of [height, width]"
    if not isinstance(found, list) or not 0 < len(found) <= MOST_CANVASES:
        pre.wrong("image_grid_pinpoints", found, need)
    for pair in found:
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(type(side) is int and 0 < side <= 1 << 20 for side in pair)
        ):
            pre.wrong("image_grid_pinpoints", pair, need)
    return tuple((tall, wide) for tall, wide in found)


def _tile(pre: Settings, default: Mapping[str, int]) -> tuple[int, tuple[int, int]]:
    """Pixels of the side into which a canvas is cut, and height and width of a tile as the tower takes it."""
    pre.needs("do_resize")
    size = pre.edges("size", default, square=False)
    crop = pre.both("crop_size") if pre.value("crop_size") is not None else None
    if crop is not None and pre.boolean("do_center_crop", True):
        return crop[0], crop
    if {"height", "width"} <= set(size):
        return crop[0] if crop else size["height"], (size["height"], size["width"])
    if "shortest_edge" not in size:
        pre.wrong("size", pre.value("size"), "a shortest_edge, or height and width,")
    # Tiles are squares already; only one whose canvas is no multiple of it could be another shape.
    return crop[0] if crop else size["shortest_edge"], (size["shortest_edge"], size["shortest_edge"])


def _llava_next(pre: Settings, processor: Settings, patch_size: int | None) -> ImageRule:
    if pre.value("crop_size") is None and pre.boolean("do_center_crop", True):
        raise InputError(f"{pre.where}: 'crop_size' is missing; a size is needed")
    cut, tile = _tile(pre, {"shortest_edge": 224})
    patch = processor.integer("patch_size", patch_size)
    grid = (tile[0] // patch, tile[1] // patch)
    if not grid[0] or not grid[1]:
        processor.wrong("patch_size", patch, f"a patch that fits into {tile[0]}x{tile[1]} pixels")
    return AnyResolution(
        canvases=_canvases(pre, NEXT_CANVASES),
        cut=cut,
        tile=tile,
        grid=grid,
        overview=grid[0] * grid[1] + processor.integer("num_additional_image_tokens", 0, least=0),
        drop_first=_first_left_out(processor, None),
        most_tiles=None,
        tile_patches=grid[0] * grid[1],
    )


def _onevision(pre: Settings, processor: Settings, patch_size: int | None) -> ImageRule:
    del patch_size
    cut, tile = _tile(pre, {"height": 384, "width": 384})
    tokens = processor.integer("num_image_tokens", None, most=1 << 20)
    side = math.isqrt(tokens)
    ratio = processor.text("vision_aspect_ratio", "anyres_max_9") or ""
    digits = ratio.strip("anyres_max_")  # noqa: B005 (the processor strips these letters, not the word)
    if not digits.isascii() or not digits.isdigit() or not 0 < len(digits) < 7 or int(digits) < 1:
        processor.wrong("vision_aspect_ratio", ratio, 'a text such as "anyres_max_9"')
    return AnyResolution(
        canvases=_canvases(pre, ONEVISION_CANVASES),
        cut=cut,
        tile=tile,
        grid=(side, side),
        overview=tokens,
        drop_first=_first_left_out(processor, None),
        most_tiles=int(digits),
        tile_patches=tokens,
    )


def _pixel_bounds(pre: Settings, least: int, most: int) -> tuple[int, int]:
    """The bounds of Qwen: min_pixels and max_pixels beside the size, or in it under either name."""
    size = pre.edges("size", {"shortest_edge": least, "longest_edge": most})
    low = pre.integer("min_pixels", size.get("shortest_edge", size.get("min_pixels", 0)) or None)
    high = pre.integer("max_pixels", size.get("longest_edge", size.get("max_pixels", 0)) or None)
    return low, high


def _grid_of_patches(pre: Settings, patch_size: int) -> tuple[int, int, int]:
    return (
        pre.integer("patch_size", patch_size, most=4096),
        pre.integer("merge_size", 2, most=4096),
        pre.integer("temporal_patch_size", 2, most=4096),
    )


def _qwen(pre: Settings, processor: Settings, patch_size: int | None) -> ImageRule:
    del processor, patch_size
    pre.needs("do_resize")
    return PixelBounds(*_pixel_bounds(pre, 56 * 56, 28 * 28 * 1280), *_grid_of_patches(pre, 14))


def _glm4v(pre: Settings, processor: Settings, patch_size: int | None) -> ImageRule:
    del processor, patch_size
    pre.needs("do_resize")
    return PixelBounds(*_pixel_bounds(pre, 112 * 112, 28 * 28 * 15000), *_grid_of_patches(pre, 14), clip=True)


def _gemma3(pre: Settings, processor: Settings, patch_size: int | None) -> ImageRule:
    # Pan and scan, and its bounds, are set by the processor class, which overrules what the file says.
    pre.needs("do_resize")
    height, width = pre.both("size", {"height": 224, "width": 224})
    return PanAndScan(
        height,
        width,
        tokens=processor.integer("image_seq_length", 256, most=1 << 20),
        patch_size=patch_size,
    )


def _gemma4_budget(pre: Settings, tokens: int) -> PatchBudget:
    pre.needs("do_resize")
    budget = pre.integer("max_soft_tokens", tokens)
    if budget not in SOFT_TOKENS:
        pre.wrong("max_soft_tokens", budget, "one of " + ", ".join(map(str, SOFT_TOKENS)))
    return PatchBudget(
        budget, pre.integer("patch_size", 16, most=4096), pre.integer("pooling_kernel_size", 3, most=4096)
    )


def _gemma4(pre: Settings, processor: Settings, patch_size: int | None) -> ImageRule:
    del processor, patch_size
    return _gemma4_budget(pre, 280)


def _mllama(pre: Settings, processor: Settings, patch_size: int | None) -> ImageRule:
    del processor
    pre.needs("do_resize")
    pre.needs("do_pad")
    height, width = pre.both("size", {"height": 224, "width": 224})
    if height != width:
        pre.wrong("size", pre.value("size"), "a square")
    return TiledCanvas(height, pre.integer("max_image_tiles", 4, most=MOST_TILES), patch_size)


def _pixtral(pre: Settings, processor: Settings, patch_size: int | None) -> ImageRule:
    del patch_size
    pre.needs("do_resize")
    size = pre.edges("size", {"longest_edge": 1024})
    if "longest_edge" in size:
        most = (size["longest_edge"], size["longest_edge"])
    elif {"height", "width"} <= set(size):
        most = (size["height"], size["width"])
    else:
        pre.wrong("size", pre.value("size"), "a longest_edge, or height and width,")
    return LongestSide(
        *most,
        patch_size=processor.integer("patch_size", 16, most=4096),
        merge_size=processor.integer("spatial_merge_size", 1, most=4096),
    )


def _idefics3(pre: Settings, processor: Settings, patch_size: int | None) -> ImageRule:
    pre.needs("do_resize")
    return LongestEdge(
        longest=pre.one("size", "longest_edge", 4 * 364),
        tile=pre.one("max_image_size", "longest_edge", 364),
        tokens=processor.integer("image_seq_len", 169, most=1 << 20),
        split=pre.boolean("do_image_splitting", True),
        patch_size=patch_size,
    )


def _internvl(pre: Settings, processor: Settings, patch_size: int | None) -> ImageRule:
    # crop_to_patches is set by the processor class, which overrules what the file says.
    pre.needs("do_resize")
    height, width = pre.both("size", {"height": 384, "width": 384})
    least, most = pre.integer("min_patches", 1), pre.integer("max_patches", 12, most=MOST_TILES)
    return ClosestGrid(
        height,
        width,
        tokens=processor.integer("image_seq_length", 256, most=1 << 20),
        min_tiles=least,
        max_tiles=most,
        patch_size=patch_size,
    )


def _paligemma(pre: Settings, processor: Settings, patch_size: int | None) -> ImageRule:
    del processor
    pre.needs("do_resize")
    height, width = pre.both("size", {"height": 224, "width": 224})
    return Square(height, width, pre.integer("image_seq_length", None, most=1 << 20), patch_size)


# --- videos ---


def _qwen2_video(video: Settings) -> VideoRule:
    video.needs("do_resize")
    bounds = _pixel_bounds(video, 128 * 28 * 28, 28 * 28 * 768)
    patch, merge, deep = _grid_of_patches(video, 14)
    share = None
    if video.boolean("cap_pixels_per_frame", False):
        tokens = video.integer("max_video_tokens", 128_000)
        share = int(tokens * (patch * merge) * (patch * merge) * 0.9)
    return FrameBudget(
        *bounds,
        patch,
        merge,
        deep,
        min_frames=video.integer("min_frames", 4),
        max_frames=video.integer("max_frames", 768),
        fps=video.number("fps", None),
        share=share,
    )


def _qwen3_video(video: Settings) -> VideoRule:
    video.needs("do_resize")
    bounds = _pixel_bounds(video, 128 * 32 * 32, 32 * 32 * 768)
    frame_tokens = None
    if video.boolean("cap_pixels_per_frame", False):
        frame_tokens = video.integer("max_video_tokens", 768)
    return ClipBudget(
        *bounds,
        *_grid_of_patches(video, 16),
        min_frames=video.integer("min_frames", 4),
        max_frames=video.integer("max_frames", 768, most=100_000),
        fps=video.number("fps", 2.0),
        frame_tokens=frame_tokens,
    )


ImageReader = Callable[[Settings, Settings, int | None], ImageRule]

CLASSES: dict[str, tuple[str, ImageReader, Callable[[Settings], VideoRule] | None]] = {
    "LlavaProcessor": ("LlavaImageProcessor", _llava, None),
    "LlavaNextProcessor": ("LlavaNextImageProcessor", _llava_next, None),
    "LlavaOnevisionProcessor": ("LlavaOnevisionImageProcessor", _onevision, None),
    "Qwen2VLProcessor": ("Qwen2VLImageProcessor", _qwen, _qwen2_video),
    "Qwen2_5_VLProcessor": ("Qwen2VLImageProcessor", _qwen, _qwen2_video),
    "Qwen3VLProcessor": ("Qwen2VLImageProcessor", _qwen, _qwen3_video),
    "Glm4vProcessor": ("Glm4vImageProcessor", _glm4v, None),
    "Gemma3Processor": ("Gemma3ImageProcessor", _gemma3, None),
    "Gemma4Processor": ("Gemma4ImageProcessor", _gemma4, None),
    "MllamaProcessor": ("MllamaImageProcessor", _mllama, None),
    "PixtralProcessor": ("PixtralImageProcessor", _pixtral, None),
    "Idefics3Processor": ("Idefics3ImageProcessor", _idefics3, None),
    "SmolVLMProcessor": ("SmolVLMImageProcessor", _idefics3, None),
    "InternVLProcessor": ("GotOcr2ImageProcessor", _internvl, None),
    "PaliGemmaProcessor": ("SiglipImageProcessor", _paligemma, None),
}
"""Processor classes of transformers: the image processor that they come with, and how their settings are read."""

_AMBIGUOUS = ("CLIPImageProcessor", "SiglipImageProcessor")


def processor_class(pre: Settings, processor: Settings) -> str:
    """The processor class that the files name, or the only one that uses their image processor.

    Raises:
        InputError: they name none, or one that is not known here.
    """
    named = processor.text("processor_class") or pre.text("processor_class")
    if named in CLASSES:
        return named
    kind = pre.text("image_processor_type") or pre.text("feature_extractor_type") or ""
    plain = kind.removesuffix("Pil").removesuffix("Fast")
    found = [name for name, (image_processor, _, _) in CLASSES.items() if image_processor == plain]
    if plain and plain not in _AMBIGUOUS and found:
        return found[0]
    shown = " and ".join(repr(name[:60]) for name in (named, kind) if name) or "nothing"
    raise InputError(
        f"{pre.where}: names {shown} as its processor, which is not known here; known are {', '.join(CLASSES)}"
    )


def image_rule(name: str, pre: Settings, processor: Settings, patch_size: int | None) -> ImageRule:
    """The rule for images of the processor class `name`, from its files."""
    return CLASSES[name][1](pre, processor, patch_size)


def video_rule(name: str, video: Settings) -> VideoRule | None:
    """The rule for videos, or None where this processor class has none here."""
    read = CLASSES[name][2]
    return None if read is None else read(video)
