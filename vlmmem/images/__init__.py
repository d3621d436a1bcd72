"""Tokens and pixels of images and videos, as the processors of transformers count them. No image is opened."""

from vlmmem.images.counts import ImageTokens, VideoTokens
from vlmmem.images.processors import (
    Processor,
    find_processor,
    image_tokens,
    load_processors,
    load_stated_processors,
    open_processor,
    parse_image_size,
    processor_from_settings,
    processors,
    stated_processors,
    video_tokens,
)

__all__ = [
    "ImageTokens",
    "Processor",
    "VideoTokens",
    "find_processor",
    "image_tokens",
    "load_processors",
    "load_stated_processors",
    "open_processor",
    "parse_image_size",
    "processor_from_settings",
    "processors",
    "stated_processors",
    "video_tokens",
]
