"""What one image or one video costs: counts that every rule of this room returns."""

from typing import Any, Protocol

from vlmmem.errors import InputError
from vlmmem.record import record

__all__ = [
    "MAX_FRAMES",
    "MAX_SIDE",
    "MAX_TAKEN",
    "ImageRule",
    "ImageTokens",
    "VideoRule",
    "VideoTokens",
    "checked_side",
]

MAX_SIDE = 65_535
"""Pixels: the longest side that a JPEG file can hold. A longer one is taken for a slip."""

MAX_FRAMES = 1_000_000
"""Frames of one video: nine hours of it."""

MAX_TAKEN = 100_000
"""Frames of one video of which every one is taken."""


@record(frozen=True, slots=True)
class ImageTokens:
    """What one image of `width` x `height` pixels costs.

    Attributes:
        width, height: pixels of the image as it comes.
        tokens: placeholders in the prompt that image features replace; 1 where features reach the decoder through
            cross-attention instead.
        tokens_with_wrappers: tokens of the text that the processor puts in place of the one image token: placeholders
            and row, column and frame markers. What a chat template writes around it is not in it.
        pixel_values: elements of the tensor that the vision tower takes, padding included.
        crops: images in that tensor: tiles, crops, overview and padding tiles.
        patches: patches of all crops, class tokens left out, or None where no setting says how large a patch is.
        grid: rows and columns of patches, where the tower takes images of any size; otherwise None.
    """

    width: int
    height: int
    tokens: int
    tokens_with_wrappers: int
    pixel_values: int
    crops: int
    patches: int | None
    grid: tuple[int, int] | None = None

    def json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


@record(frozen=True, slots=True)
class VideoTokens:
    """What one video costs; the counts mean what they mean in `ImageTokens`.

    Attributes:
        width, height: pixels of a frame as it comes.
        frames: frames that are handed to the processor.
        sampled_frames: frames of these that it takes.
        tokens, tokens_with_wrappers, pixel_values, patches: as in `ImageTokens`, of the whole video. Time stamps count
            among the wrappers.
    """

    width: int
    height: int
    frames: int
    sampled_frames: int
    tokens: int
    tokens_with_wrappers: int
    pixel_values: int
    patches: int | None

    def json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


class ImageRule(Protocol):
    """How one class of processors turns an image into tokens."""

    def image(self, width: int, height: int) -> ImageTokens:
        """The counts for one image, sides in pixels. Raises InputError where the processor refuses it."""
        ...


class VideoRule(Protocol):
    """How one class of processors turns a video into tokens."""

    def video(self, width: int, height: int, frames: int, fps: float | None, sample_fps: float | None) -> VideoTokens:
        """The counts for one video. Raises InputError where the processor refuses it."""
        ...


def checked_side(name: str, value: object, most: int = MAX_SIDE) -> int:
    """A count of pixels (or frames, with another `most`) between 1 and `most`.

    Raises:
        InputError: it is none.
    """
    if type(value) is not int or not 0 < value <= most:
        shown = repr(value)
        shown = shown if len(shown) <= 40 else shown[:40] + "..."
        raise InputError(f"{name} is {shown}; a whole number from 1 to {most:,} is needed")
    return value
