"""Sides rounded to whole tokens, pixels kept between two bounds: Qwen2-VL, 2.5-VL, 3-VL, 3.5 and GLM-4V.

An image is two equal frames to them: a patch holds `temporal_patch_size` frames. In a video each such group of frames
has its own tokens. Qwen2-VL and 2.5-VL bound the pixels of a frame, Qwen3-VL and GLM-4V those of the whole clip.
"""

import math
from collections.abc import Iterator, Sequence

from vlmmem.errors import InputError
from vlmmem.images.counts import ImageTokens, VideoTokens
from vlmmem.record import record

__all__ = ["ClipBudget", "FrameBudget", "PixelBounds", "clip_size", "frame_size"]

LONGEST = 200
"""Longer to shorter side at most; the processors refuse more."""


def _checked_ratio(height: int, width: int) -> None:
    if max(height, width) / min(height, width) > LONGEST:
        raise InputError(
            f"{width}x{height}: the longer side is more than {LONGEST} times the shorter, which the processor refuses;"
            " a wider image is needed"
        )


def frame_size(height: int, width: int, factor: int, least: int, most: int) -> tuple[int, int]:
    """Height and width after resizing: multiples of `factor`, between `least` and `most` pixels together.

    Source: smart_resize in transformers v5.23.0, models/qwen2_vl/image_processing_qwen2_vl.py. The rounding is its own:
    half to even, and floats throughout.

    >>> frame_size(1080, 1920, 28, 3136, 12845056)
    (1092, 1932)
    """
    _checked_ratio(height, width)
    tall, wide = round(height / factor) * factor, round(width / factor) * factor
    if tall * wide > most:
        beta = math.sqrt((height * width) / most)
        tall = max(factor, math.floor(height / beta / factor) * factor)
        wide = max(factor, math.floor(width / beta / factor) * factor)
    elif tall * wide < least:
        beta = math.sqrt(least / (height * width))
        tall = math.ceil(height * beta / factor) * factor
        wide = math.ceil(width * beta / factor) * factor
    return tall, wide


def clip_size(
    frames: int, height: int, width: int, temporal: int, factor: int, least: int, most: int
) -> tuple[int, int]:
    """The same with the bounds on the pixels of all frames, and small frames enlarged first.

    Source: smart_resize in transformers v5.23.0, models/qwen3_vl/video_processing_qwen3_vl.py and
    models/glm4v/image_processing_glm4v.py (which passes an image as `temporal` frames).

    >>> clip_size(64, 1080, 1920, 2, 32, 4096, 25165824)
    (448, 832)
    """
    if frames < temporal:
        raise InputError(
            f"{frames} frame of video is less than the {temporal} of one patch; at least {temporal} are needed"
        )
    if height < factor or width < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    if not height or not width:
        raise InputError("the image is too small; a larger one is needed")
    _checked_ratio(height, width)
    tall, wide = round(height / factor) * factor, round(width / factor) * factor
    deep = round(frames / temporal) * temporal
    if deep * tall * wide > most:
        beta = math.sqrt((frames * height * width) / most)
        tall = max(factor, math.floor(height / beta / factor) * factor)
        wide = max(factor, math.floor(width / beta / factor) * factor)
    elif deep * tall * wide < least:
        beta = math.sqrt(least / (frames * height * width))
        tall = math.ceil(height * beta / factor) * factor
        wide = math.ceil(width * beta / factor) * factor
    return tall, wide


@record(frozen=True, slots=True)
class PixelBounds:
    """The image rule. `clip` says that the bounds count `temporal_patch_size` frames of it (GLM-4V).

    Attributes:
        least, most: pixels of the resized image. patch_size: pixels. merge_size: patches a token and side.
        temporal_patch_size: frames that one patch holds.

    Source: Qwen2VLImageProcessor and Glm4vImageProcessor in transformers v5.23.0.

    >>> PixelBounds(3136, 12845056, 14, 2, 2).image(640, 480).tokens
    391
    """

    least: int
    most: int
    patch_size: int
    merge_size: int
    temporal_patch_size: int
    clip: bool = False

    def image(self, width: int, height: int) -> ImageTokens:
        """The counts for one image."""
        factor, deep = self.patch_size * self.merge_size, self.temporal_patch_size
        if self.clip:
            tall, wide = clip_size(deep, height, width, deep, factor, self.least, self.most)
        else:
            tall, wide = frame_size(height, width, factor, self.least, self.most)
        grid = (tall // self.patch_size, wide // self.patch_size)
        patches = grid[0] * grid[1]
        tokens = patches // self.merge_size**2
        return ImageTokens(width, height, tokens, tokens, 3 * deep * tall * wide, 1, patches, grid)


@record(frozen=True, slots=True)
class FrameBudget:
    """Qwen2-VL and Qwen2.5-VL: every frame has its own bounds, so that a clip grows with its frames.

    Attributes:
        least, most, patch_size, merge_size, temporal_patch_size: as in `PixelBounds`, of one frame.
        min_frames, max_frames: of a sampled video. fps: frames a second that are sampled, or None where the processor
            has no default.
        share: pixels that all frames share where the processor caps them (cap_pixels_per_frame), or None.

    Source: Qwen2VLVideoProcessor in transformers v5.23.0, models/qwen2_vl/video_processing_qwen2_vl.py.

    >>> FrameBudget(3136, 12845056, 14, 2, 2).video(640, 480, 16, None, None).tokens
    3128
    """

    least: int
    most: int
    patch_size: int
    merge_size: int
    temporal_patch_size: int
    min_frames: int = 4
    max_frames: int = 768
    fps: float | None = None
    share: int | None = None

    def video(self, width: int, height: int, frames: int, fps: float | None, sample_fps: float | None) -> VideoTokens:
        """The counts for one video."""
        deep = self.temporal_patch_size
        taken = frames if fps is None else self._sampled(frames, fps, sample_fps or self.fps)
        most = self.most
        if self.share is not None:
            most = max(min(most, self.share * deep // taken), int(self.least * 1.05))
        tall, wide = frame_size(height, width, self.patch_size * self.merge_size, self.least, most)
        groups = -(-taken // deep)
        patches = groups * (tall // self.patch_size) * (wide // self.patch_size)
        tokens = patches // self.merge_size**2
        return VideoTokens(
            width, height, frames, taken, tokens, tokens, patches * 3 * deep * self.patch_size**2, patches
        )

    def _sampled(self, total: int, fps: float, sample_fps: float | None) -> int:
        if sample_fps is None:
            raise InputError("this processor samples no frames by itself; sample_fps (frames a second) is needed")
        deep = self.temporal_patch_size
        most = math.floor(min(self.max_frames, total) / deep) * deep
        wanted = min(max(total / fps * sample_fps, self.min_frames), most, total)
        count = math.floor(wanted / deep) * deep
        if count < 1:
            raise InputError(f"{total} frame is less than the {deep} of one patch; more frames are needed")
        # PyTorch's arange from 0 to the end: its length is rounded up in floats, too.
        return math.ceil(total / (total / count))


@record(frozen=True, slots=True)
class ClipBudget:
    """Qwen3-VL and Qwen3.5: the bounds hold for the whole clip, so that many frames are small frames.

    Before each group of frames stands its time, such as "<0.8 seconds>", and around it a marker of begin and of end.
    The Qwen tokenizer cuts that text into the bracket, each digit, the point, " seconds" and the bracket.

    Attributes:
        least, most: pixels of all frames. patch_size, merge_size, temporal_patch_size: as in `PixelBounds`.
        min_frames, max_frames, fps: of a sampled video.
        frame_tokens: tokens that a frame has at most where the processor caps them (cap_pixels_per_frame), or None.

    Source: Qwen3VLVideoProcessor and Qwen3VLProcessor.replace_video_token in transformers v5.23.0, models/qwen3_vl.

    >>> ClipBudget(4096, 25165824, 16, 2, 2).video(1920, 1080, 300, None, None).tokens
    10800
    """

    least: int
    most: int
    patch_size: int
    merge_size: int
    temporal_patch_size: int
    min_frames: int = 4
    max_frames: int = 768
    fps: float | None = 2.0
    frame_tokens: int | None = None

    def video(self, width: int, height: int, frames: int, fps: float | None, sample_fps: float | None) -> VideoTokens:
        """The counts for one video."""
        deep, factor = self.temporal_patch_size, self.patch_size * self.merge_size
        # Without a rate the processor takes the frames for 24 a second.
        indices: Sequence[int] = range(frames) if fps is None else self._sampled(frames, fps, sample_fps or self.fps)
        taken, most = len(indices), self.most
        if self.frame_tokens is not None:
            a_frame = max(min(self.frame_tokens * factor * factor, most // taken), int(self.least * 1.05))
            most = a_frame * taken
        tall, wide = clip_size(taken, height, width, deep, factor, self.least, most)
        groups = -(-taken // deep)
        patches = groups * (tall // self.patch_size) * (wide // self.patch_size)
        tokens = patches // self.merge_size**2
        wrappers = sum(5 + len(f"{time:.1f}") for time in self._times(indices, 24 if fps is None else fps))
        return VideoTokens(
            width, height, frames, taken, tokens, tokens + wrappers, patches * 3 * deep * self.patch_size**2, patches
        )

    def _sampled(self, total: int, fps: float, sample_fps: float | None) -> list[int]:
        if sample_fps is None:
            count = min(max(total, self.min_frames), self.max_frames)
        else:
            wanted = int(total / fps * sample_fps)
            count = min(max(wanted, self.min_frames), self.max_frames, total)
        # numpy's linspace, in which the last is the end itself.
        step = (total - 1) / (count - 1) if count > 1 else 0.0
        return [round(at * step) for at in range(count - 1)] + [total - 1] if count > 1 else [0]

    def _times(self, indices: Sequence[int], fps: float) -> Iterator[float]:
        """Seconds at which each group of frames stands: between its first and its last; the last frame is repeated."""
        deep, end = self.temporal_patch_size, len(indices) - 1
        for at in range(0, len(indices), deep):
            yield (indices[at] / fps + indices[min(at + deep - 1, end)] / fps) / 2
