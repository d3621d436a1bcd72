"""The command that says what an image or a video costs."""

import argparse

from vlmmem.cli.answers import columns, count, say
from vlmmem.errors import InputError

__all__ = ["COMMANDS"]

COUNTS = ("tokens", "tokens_with_wrappers", "pixel_values", "crops", "frames", "sampled_frames")
"""The columns of the table, those that an answer has."""


def _rate(text: str) -> float:
    """Frames a second from an argument."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no rate; a number above zero is needed")
    return number


def _arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", help="a model's name, a folder with a preprocessor_config.json, or that file")
    sub.add_argument("sizes", nargs="+", metavar="WxH", help="width and height in pixels, such as 1920x1080")
    sub.add_argument("--frames", type=count, metavar="N", help="of a video: frames that are handed to the processor")
    sub.add_argument("--fps", type=_rate, metavar="F", help="of a video: its frames a second, of which some are taken")
    sub.add_argument("--pan-and-scan", action="store_true", help="Gemma 3: crop long images as well")


def _image_tokens(options: argparse.Namespace) -> int:
    from vlmmem.images import image_tokens, open_processor, parse_image_size, video_tokens

    sizes = [parse_image_size(size) for size in options.sizes]
    if options.frames is None and options.fps is not None:
        raise InputError("--fps is given without --frames; both are needed, as the rate is a video's")
    if options.frames is not None and options.pan_and_scan:
        raise InputError("--pan-and-scan is given with --frames; one of them is right, as it crops images")
    model = open_processor(options.model)
    found = [
        image_tokens(model, *size, pan_and_scan=options.pan_and_scan).json()
        if options.frames is None
        else video_tokens(model, *size, options.frames, fps=options.fps).json()
        for size in sizes
    ]
    if options.json:
        say(found)
        return 0
    names = [name for name in COUNTS if name in found[0]]
    head = ("size", *(name.replace("_", " ") for name in names))
    body = ((f"{item['width']}x{item['height']}", *(f"{item[name]:,}" for name in names)) for item in found)
    say(columns([head, *body]))
    return 0


COMMANDS = {"image-tokens": (_arguments, _image_tokens)}
