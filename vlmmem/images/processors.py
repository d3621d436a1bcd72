"""Processors by name, by folder and by file, and the two questions that they answer."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vlmmem.catalog.entries import Entry, read_entries
from vlmmem.errors import InputError
from vlmmem.images.counts import MAX_FRAMES, MAX_TAKEN, ImageRule, ImageTokens, VideoRule, VideoTokens, checked_side
from vlmmem.images.fixed_grid import PanAndScan
from vlmmem.images.settings import CLASSES, Settings, image_rule, processor_class, video_rule
from vlmmem.model import Model, Source
from vlmmem.record import record, replace
from vlmmem.strict_json import parse_json

__all__ = [
    "Processor",
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

_FILE = Path(__file__).parent.parent / "catalog" / "processors.json"
LARGEST_FILE = 4 << 20
"""Bytes: no file of settings comes near."""

_SIZE = re.compile(r"([0-9]{1,12})[xX×]([0-9]{1,12})", re.ASCII)


@record(frozen=True, slots=True)
class Processor:
    """What a model does to an image before it sees it.

    Attributes:
        id: the model's short name, or the file that was read. hub_id, aliases: other names of the model.
        family: the entry of the catalogue that it shares with models of the same settings.
        processor_class: the class of transformers.
        image_rule, video_rule: the rule with its settings; video_rule is None where none is known here.
        sources: where the settings stand.
    """

    id: str
    hub_id: str | None
    aliases: tuple[str, ...]
    family: str
    processor_class: str
    image_rule: ImageRule
    video_rule: VideoRule | None
    sources: tuple[Source, ...] = ()


def processor_from_settings(
    preprocessor: object,
    processor: object = None,
    where: str = "preprocessor_config.json",
    video: object = None,
    patch_size: int | None = None,
) -> Processor:
    """A processor from the content of its settings files.

    Args:
        preprocessor: preprocessor_config.json, or None where processor_config.json holds it.
        processor: processor_config.json, or None.
        where: what an error names.
        video: video_preprocessor_config.json, or None: then the settings of images hold, as in transformers.
        patch_size: pixels, the side of a patch in the vision tower, where the model's config says it.

    Raises:
        InputError: no class that is known here, or a field that is wrong.

    >>> own = processor_from_settings({"processor_class": "Qwen2VLProcessor", "max_pixels": 1003520})
    >>> image_tokens(own, 4032, 3024).tokens
    1230
    """
    whole = Settings({} if processor is None else processor, where)
    nested = whole.value("image_processor")
    if nested is None and preprocessor is None:
        raise InputError(f"{where}: has no settings of an image processor; preprocessor_config.json is needed")
    images = Settings(preprocessor if nested is None else nested, where)
    name = processor_class(images, whole)
    nested_video = whole.value("video_processor")
    chosen = nested_video if nested_video is not None else video
    videos = images if chosen is None else Settings(chosen, where)
    return Processor(
        id=where,
        hub_id=None,
        aliases=(),
        family=name,
        processor_class=name,
        image_rule=image_rule(name, images, whole, patch_size),
        video_rule=video_rule(name, videos),
    )


def load_stated_processors(path: Path) -> tuple[dict[str, Any], ...]:
    """What a JSON file of the catalogue states of processors, entry by entry; InputError names file and entry."""
    load_processors(path)
    return tuple(entry.all() for entry in read_entries(path, "processors"))


def stated_processors() -> tuple[dict[str, Any], ...]:
    """What the catalogue states of processors, entry by entry."""
    return load_stated_processors(_FILE)


def load_processors(path: Path) -> tuple[Processor, ...]:
    """The processors of one JSON file of the catalogue, one a model; InputError names file and entry."""
    found: list[Processor] = []
    owner: dict[str, str] = {}
    for entry in read_entries(path, "processors"):
        for item in _of_entry(entry):
            for name in _names(item):
                if name in owner:
                    raise InputError(
                        f"{entry.where}: the name {name!r} also means {owner[name]!r}; one meaning is needed"
                    )
                owner[name] = item.id
            found.append(item)
    return tuple(found)


def _of_entry(entry: Entry) -> list[Processor]:
    family = entry.text("id")
    name = entry.one_of("processor_class", CLASSES)
    patch_size = entry.optional_integer("patch_size")
    settings = [entry.value(field) for field in ("preprocessor", "processor", "video")]
    sources = entry.sources()
    models = entry.value("models")
    if not isinstance(models, list) or not models:
        entry.wrong("models", models, "a list of models")
    entry.done()
    images, whole = (Settings({} if data is None else data, entry.where) for data in settings[:2])
    rules = (
        image_rule(name, images, whole, patch_size),
        video_rule(name, images if settings[2] is None else Settings(settings[2], entry.where)),
    )
    items = []
    for at, data in enumerate(models):
        model = Entry(data, f"{entry.where}: models[{at}]")
        items.append(
            Processor(
                model.text("id"), model.text("hub_id"), model.texts("aliases"), family, name, *rules, sources=sources
            )
        )
        model.done()
    return items


def _names(item: Processor) -> set[str]:
    return {name.lower() for name in (item.id, item.hub_id, *item.aliases) if name}


@cache
def processors() -> tuple[Processor, ...]:
    """Every processor of the catalogue, one a model, in its order."""
    return load_processors(_FILE)


@cache
def _by_name() -> dict[str, Processor]:
    return {name: item for item in processors() for name in _names(item)}


def find_processor(name: str | Model) -> Processor:
    """The processor of the model with that name, alias or hub id, in any case; or of a `Model`.

    A model that was read from a folder has the processor whose settings stand there.

    >>> find_processor("Qwen/Qwen2-VL-7B-Instruct").id
    'qwen2-vl-7b'

    Raises:
        InputError: no processor is known for it; the line lists those that there are.
    """
    names: list[str]
    if isinstance(name, str):
        names = [name]
    elif isinstance(name, Model):
        own = _beside(name.folder)
        if own is not None:
            return own
        names = [each for each in (name.id, name.hub_id, *name.aliases) if each]
    else:
        raise InputError(f"processor {str(name)[:60]!r}: a model's name is needed")
    for each in names:
        found = _by_name().get(each.strip().lower())
        if found is not None:
            return found
    families = {item.family: item.id for item in reversed(processors())}
    known = ", ".join(sorted(families.values()))
    raise InputError(
        f"no processor is known for {names[0][:80]!r}; known are {known} and their sizes, or a folder with a"
        " preprocessor_config.json"
    )


def _beside(folder: str) -> Processor | None:
    """The processor whose settings stand in a model's folder, or None."""
    if not folder:
        return None
    place = Path(folder)
    whole = _settings_file(place / "processor_config.json")
    nested = isinstance(whole, Mapping) and whole.get("image_processor") is not None
    return open_processor(folder) if nested or (place / "preprocessor_config.json").is_file() else None


def open_processor(text: str) -> Processor:
    """The processor of a model folder, of a settings file, or of a catalogued model.

    Args:
        text: a folder with preprocessor_config.json or processor_config.json, one of these files, or a name.

    Raises:
        InputError: nothing of that name, or files that cannot be read.
    """
    try:
        path = Path(text)
        folder, file = path.is_dir(), path.is_file()
    except (OSError, ValueError):  # a name that no path can have
        folder = file = False
    if not folder and not file:
        return find_processor(text)
    place = path if folder else path.parent
    files = {
        name: _settings_file(place / name)
        for name in ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
    }
    where = text if text.isprintable() and len(text) <= 200 else repr(text[-200:])
    if file and path.name not in files:
        files["preprocessor_config.json"] = _settings_file(path)
    elif files["preprocessor_config.json"] is None and files["processor_config.json"] is None:
        raise InputError(f"{text[:100]!r}: has no preprocessor_config.json; a folder with one is needed")
    config = _settings_file(place / "config.json")
    return processor_from_settings(
        files["preprocessor_config.json"],
        files["processor_config.json"],
        where,
        files["video_preprocessor_config.json"],
        _tower_patch(config),
    )


def _settings_file(path: Path) -> Any:
    """The content of a stranger's file, or None where there is none."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read ({error.strerror}); a JSON file is needed") from None
    if len(raw) > LARGEST_FILE:
        raise InputError(f"{path.name}: is longer than {LARGEST_FILE:,} bytes; a file of settings is needed")
    return parse_json(raw, path.name, finite=False)


def _tower_patch(config: object) -> int | None:
    """The patch size that a model's config names, where it is a plain number."""
    vision = config.get("vision_config") if isinstance(config, Mapping) else None
    patch = vision.get("patch_size") if isinstance(vision, Mapping) else None
    if isinstance(patch, list) and patch:
        patch = patch[0]
    return patch if type(patch) is int and 0 < patch <= 4096 else None


def parse_image_size(text: str) -> tuple[int, int]:
    """Width and height from a text such as 1920x1080.

    >>> parse_image_size("1920x1080")
    (1920, 1080)

    Raises:
        InputError: no size, or a side that is 0 or longer than a JPEG's can be.
    """
    matched = _SIZE.fullmatch(text.strip())
    if matched is None:
        raise InputError(f"size {text[:40]!r}: width x height in pixels is needed, such as 1920x1080")
    width, height = int(matched[1]), int(matched[2])
    return checked_side(f"width of {text!r}", width), checked_side(f"height of {text!r}", height)


def _processor(model: "str | Model | Processor") -> Processor:
    return model if isinstance(model, Processor) else find_processor(model)


def image_tokens(
    model: "str | Model | Processor", width: int, height: int, *, pan_and_scan: bool = False
) -> ImageTokens:
    """What one image costs a model: tokens in the prompt, and elements of the tensor that its vision tower takes.

    Equal to what the processors of transformers v5.23.0 produce (tests/oracle/images.json).

    Args:
        model: a catalogued model's name, a `Model`, or a `Processor`.
        width: pixels.
        height: pixels.
        pan_and_scan: for Gemma 3 only: crop long images as well, which its processor does when it is asked to.

    Raises:
        InputError: no such model, a side out of range, or an image that the processor refuses.

    >>> image_tokens("llava-1.5-7b", 4032, 3024).tokens
    576
    >>> image_tokens("pixtral-12b", 1024, 1024).tokens_with_wrappers
    4160
    """
    item = _processor(model)
    checked_side("width", width)
    checked_side("height", height)
    rule = item.image_rule
    if pan_and_scan:
        if not isinstance(rule, PanAndScan):
            raise InputError(f"{item.id}: has no pan and scan; it is for Gemma 3")
        rule = replace(rule, scan=True)
    try:
        return rule.image(width, height)
    except InputError as error:
        raise InputError(f"{item.id}: {error}") from None


def video_tokens(
    model: "str | Model | Processor",
    width: int,
    height: int,
    frames: int,
    *,
    fps: float | None = None,
    sample_fps: float | None = None,
) -> VideoTokens:
    """What one video costs a model.

    Args:
        model: a catalogued model's name, a `Model`, or a `Processor`.
        width: pixels of a frame.
        height: pixels of a frame.
        frames: frames that are handed to the processor.
        fps: frames a second of the video. Given, the processor samples frames as it does by itself; without it, it
            takes every frame (do_sample_frames=False).
        sample_fps: frames a second that it samples, where its own setting is not wanted.

    Raises:
        InputError: no such model, one without a rule for videos here, a number out of range, or a video that the
            processor refuses.

    >>> video_tokens("qwen2.5-vl-7b", 640, 480, 16).tokens
    3128
    """
    item = _processor(model)
    checked_side("width", width)
    checked_side("height", height)
    checked_side("frames", frames, MAX_TAKEN if fps is None else MAX_FRAMES)
    for name, rate in (("fps", fps), ("sample_fps", sample_fps)):
        if rate is not None and (type(rate) not in (int, float) or not 0 < rate < 1e6):
            raise InputError(f"{name} is {str(rate)[:40]}; a number above 0 is needed")
    if item.video_rule is None:
        able = sorted({each.id for each in processors() if each.video_rule is not None})
        raise InputError(f"{item.id}: the cost of a video is not known; it is for {', '.join(able)}")
    try:
        return item.video_rule.video(width, height, frames, fps, sample_fps)
    except InputError as error:
        raise InputError(f"{item.id}: {error}") from None
