"""What the real processors of transformers make of images and videos, from blank ones of many sizes.

    python tools/oracle_images.py --random 300     sizes drawn at random, compared with the package; 1 where they differ

Called by tools/oracle.py in the oracle's own environment; tests/test_images.py compares `vlmmem.images` with the
answers.

How a case is measured: the processor class is built with the settings of the catalogue and a tokenizer made up here,
whose words are single pieces and whose markers are special tokens. It processes a blank image; what it puts in place of
the image token is cut by that tokenizer and counted, and so are the elements of the tensor of pixels. Large images have
a shape and no content (PyTorch's meta device), so that the processor's code runs and nothing is resized. Where a
processor refuses an image, the refusal is the answer.
"""

import argparse
import json
import math
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import torch  # noqa: E402 (the checkout comes first)

from tools.oracle_torchvision import define_missing_operators  # noqa: E402

define_missing_operators()

import transformers  # noqa: E402 (it imports torchvision)
from tokenizers import Regex, Tokenizer, pre_tokenizers  # noqa: E402
from tokenizers.models import WordLevel  # noqa: E402

from vlmmem.errors import InputError  # noqa: E402
from vlmmem.images import image_tokens, video_tokens  # noqa: E402

CATALOGUE = ROOT / "vlmmem" / "catalog" / "processors.json"

# Width and height: thumbnails, common pictures, extreme ratios, and sizes beside every boundary that the rules have.
SIZES = (
    (1, 1), (2, 3), (7, 7), (13, 11), (14, 14), (16, 16), (27, 28), (28, 28), (40, 1), (1, 40), (64, 48), (100, 100),
    (150, 15), (224, 224), (300, 300), (336, 336), (337, 335), (364, 364), (365, 364), (384, 384), (383, 385),
    (448, 448), (449, 447), (512, 512), (560, 560), (561, 1121), (600, 599), (640, 480), (672, 336), (700, 700),
    (768, 1024), (800, 600), (896, 896), (997, 1009), (1008, 336), (1000, 100), (1024, 768), (1024, 1024),
    (1025, 1023), (1120, 1120), (1280, 720), (1456, 1456), (1536, 1537), (1540, 1540), (1541, 1000), (1920, 1080),
    (1080, 1920), (2000, 50), (50, 2000), (100, 1900), (1999, 10), (10, 2001), (2001, 10), (200, 1), (201, 1),
    (2048, 2048), (2560, 1440), (2304, 2304), (3000, 1000), (1000, 3500), (5000, 200), (5000, 1), (3840, 2160),
    (4032, 3024), (3024, 4032), (4096, 4096), (6000, 4000), (8000, 6000),
)  # fmt: skip

# Settings that no catalogued model has: entry, changed fields of preprocessor_config.json and of processor_config.json.
VARIANTS: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    (
        "llava-1.5",
        {"size": {"height": 384, "width": 384}, "do_center_crop": False},
        {"num_additional_image_tokens": 0, "vision_feature_select_strategy": "full"},
    ),
    ("llava-1.5", {"size": {"shortest_edge": 224}, "do_center_crop": False}, {}),
    ("llava-1.5", {"size": {"shortest_edge": 400}, "crop_size": {"height": 280, "width": 336}}, {}),
    ("llava-next", {"image_grid_pinpoints": [[400, 700], [700, 400], [1000, 300]]}, {}),
    (
        "llava-next",
        {
            "image_grid_pinpoints": [[384, 768], [768, 384], [768, 768], [1152, 384]],
            "size": {"shortest_edge": 384},
            "crop_size": {"height": 384, "width": 384},
        },
        {},
    ),
    (
        "llava-onevision",
        {"image_grid_pinpoints": [[384, 384], [768, 768], [1536, 384]]},
        {"vision_aspect_ratio": "anyres_max_4"},
    ),
    ("qwen2-vl", {"size": {"shortest_edge": 200704, "longest_edge": 1003520}}, {}),
    (
        "qwen2-vl",
        {"size": {"shortest_edge": 3136, "longest_edge": 5000}, "merge_size": 3, "temporal_patch_size": 4},
        {},
    ),
    ("glm-4.1v", {"size": {"shortest_edge": 100, "longest_edge": 200000}}, {}),
    ("gemma-3", {"do_pan_and_scan": True, "pan_and_scan_max_num_crops": 2}, {}),
    ("gemma-4", {"max_soft_tokens": 70}, {}),
    ("gemma-4", {"max_soft_tokens": 1120, "patch_size": 14}, {}),
    ("llama-3.2-vision", {"max_image_tiles": 9, "size": {"height": 448, "width": 448}}, {}),
    ("pixtral", {"size": {"longest_edge": 500}}, {"patch_size": 14, "spatial_merge_size": 2}),
    ("pixtral", {"size": {"height": 600, "width": 300}}, {}),
    ("idefics3", {"size": {"longest_edge": 5000}}, {}),
    ("idefics3", {"size": {"longest_edge": 300}}, {}),
    ("idefics3", {"do_image_splitting": False}, {"image_seq_len": 64}),
    ("smolvlm2", {"size": {"longest_edge": 1000}, "max_image_size": {"longest_edge": 333}}, {}),
    ("internvl3", {"min_patches": 2, "max_patches": 6}, {}),
    ("internvl3", {"min_patches": 4, "max_patches": 40, "crop_to_patches": False}, {"image_seq_length": 64}),
)
VARIANT_SIZES = (
    (1, 1), (16, 16), (64, 48), (333, 200), (448, 448), (640, 480), (500, 1500), (1600, 400), (997, 1009), (30, 900),
    (21, 1537), (1920, 1080),
)  # fmt: skip

# Width, height, frames; with a rate, frames are sampled.
VIDEOS = (
    *((640, 480, frames, None) for frames in (1, 2, 3, 4, 5, 7, 16, 64, 300)),
    *((1920, 1080, frames, None) for frames in (2, 3, 16, 65)),
    *((33, 17, frames, None) for frames in (2, 7, 300)),
    *((17, 1200, frames, None) for frames in (2, 31)),
    (3840, 2160, 2, None),
    (3840, 2160, 5, None),
    *((320, 240, frames, fps) for frames in (1, 2, 3, 4, 7, 16, 64, 100, 301, 900) for fps in (30.0, 24.0, 1.0, 29.97)),
    *((320, 240, frames, 2.5) for frames in (10, 999)),
)

MARKERS = {
    "image_token": "<image>",
    "video_token": "<video>",
    "boi_token": "<boi>",
    "eoi_token": "<eoi>",
    "audio_token": "<audio>",
    "boa_token": "<boa>",
    "eoa_token": "<eoa>",
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
OTHERS = (
    "[IMG]", "[IMG_BREAK]", "[IMG_END]", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>",
    "<|image|>", "<|python_tag|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 13) for column in range(1, 13)),
)  # fmt: skip


def made_up_tokenizer(placeholder: str) -> Any:
    """A tokenizer whose markers are tokens and whose text is cut as GPT-like ones do: words, single digits, breaks."""
    tokenizer = Tokenizer(WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n+| ?\p{L}+|\p{N}|[^\s\p{L}\p{N}]|\s+"), "isolated")
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={**MARKERS, "image_token": placeholder},
    )
    made.add_tokens(list(OTHERS), special_tokens=True)
    return made


PLACEHOLDERS = {"PixtralProcessor": "[IMG]", "InternVLProcessor": "<IMG_CONTEXT>", "MllamaProcessor": "<|image|>"}


MOST_REAL = 1_000_000
"""Elements of an image whose pixels are really resized."""


def blank(shape: tuple[int, ...]) -> torch.Tensor:
    """A black image or clip; a large or a very long one without content, on which PyTorch computes shapes only."""
    elements, ratio = math.prod(shape), max(shape[-2:]) / min(shape[-2:])
    return torch.zeros(shape, dtype=torch.uint8, device="meta" if elements > MOST_REAL or ratio > 20 else "cpu")


class Real:
    """A processor of transformers with the settings of one entry of the catalogue."""

    def __init__(self, entry: dict[str, Any]) -> None:
        """Build it."""
        from vlmmem.images.settings import CLASSES

        name = entry["processor_class"]
        settings = entry["processor"] or {}
        self.placeholder = PLACEHOLDERS.get(name, "<image>")
        self.tokenizer = made_up_tokenizer(self.placeholder)
        parts = {
            "image_processor": getattr(transformers, CLASSES[name][0])(**entry["preprocessor"]),
            "tokenizer": self.tokenizer,
        }
        kind = getattr(transformers, name)
        attributes = kind.get_attributes()
        if "video_processor" in attributes:
            given = entry["video"] if entry["video"] is not None else entry["preprocessor"]
            parts["video_processor"] = self._video_class(name)(**given)
        if "feature_extractor" in attributes:
            parts["feature_extractor"] = transformers.Gemma4AudioFeatureExtractor()
        self.processor = kind(**parts, **settings)
        if name == "LlavaProcessor":
            # It turns pixels into an array to ask for their shape, which a tensor without content refuses.
            asked = self.processor.replace_image_token
            self.processor.replace_image_token = lambda inputs, image_idx, **kwargs: asked(
                {"pixel_values": [torch.zeros(pixels.shape) for pixels in inputs["pixel_values"]]}, image_idx, **kwargs
            )

    @staticmethod
    def _video_class(name: str) -> Any:
        stem = "Qwen2VL" if name == "Qwen2_5_VLProcessor" else name.removesuffix("Processor")
        return getattr(transformers, f"{stem}VideoProcessor")

    def _counted(self, text: str, placeholder: str, pixels: Any) -> list[int]:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        wanted = self.tokenizer.convert_tokens_to_ids(placeholder)
        return [ids.count(wanted), len(ids), pixels.numel()]

    def image(self, width: int, height: int, **options: Any) -> list[int]:
        """Placeholders, tokens in all, elements of pixels; for Llama 3.2 Vision the tiles that are filled, too."""
        picture = blank((3, height, width))
        images, *_ = self.processor.prepare_inputs_layout(images=[picture], text=self.processor.image_token)
        kwargs = self.processor._merge_kwargs(
            tokenizer_init_kwargs=self.tokenizer.init_kwargs, return_tensors="pt", **options
        )["images_kwargs"]
        kwargs["input_data_format"] = "channels_first"  # nothing to guess where a side has three pixels
        inputs, replacements = self.processor._process_images(images, **kwargs)
        counts = self._counted(str(replacements[0]), self.placeholder, inputs["pixel_values"])
        return counts + [tiles for sample in inputs.get("num_tiles", []) for tiles in sample]

    def video(self, width: int, height: int, frames: int, fps: float | None, **options: Any) -> list[int]:
        """The same for a video, and the frames that were taken."""
        clip = blank((frames, 3, height, width))
        # Without a rate no frames are sampled, and the processor numbers those that it was given itself.
        metadata = None if fps is None else [{"total_num_frames": frames, "fps": fps, "duration": frames / fps}]
        kwargs = self.processor._merge_kwargs(
            tokenizer_init_kwargs=self.tokenizer.init_kwargs,
            return_tensors="pt",
            return_metadata=True,
            do_sample_frames=fps is not None,
            **options,
        )["videos_kwargs"]
        inputs, replacements = self.processor._process_videos([clip], video_metadata=metadata, **kwargs)
        counts = self._counted(str(replacements[0]), self.processor.video_token, inputs["pixel_values_videos"])
        # Without a rate all are taken; Qwen3-VL's processor then pads this list in place.
        return [*counts, frames if fps is None else len(inputs["video_metadata"][0].frames_indices)]


def refused(ask: Callable[..., list[int]], *case: Any, **options: Any) -> list[int] | str:
    """The answer for a case, or how the processor refuses it."""
    try:
        return ask(*case, **options)
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError, AttributeError) as error:
        return f"{type(error).__name__}: {error}".splitlines()[0][:120]


def entries() -> Iterator[dict[str, Any]]:
    """The entries of the catalogue."""
    yield from json.loads(CATALOGUE.read_text(encoding="utf-8"))["processors"]


# Frames a second that are sampled, given to processors that have no default of their own.
SAMPLE = {"qwen2-vl": 2.0, "qwen2.5-vl": 2.0}
VIDEO_FAMILIES = ("qwen2-vl", "qwen2.5-vl", "qwen3-vl", "qwen3.5")
CAPPED = ("qwen2.5-vl", "qwen3-vl")


def _videos(real: Real, entry: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for width, height, frames, fps in VIDEOS:
        options = {} if fps is None or entry["id"] not in SAMPLE else {"videos_kwargs": {"fps": SAMPLE[entry["id"]]}}
        name = f"{width}x{height} {frames}" + ("" if fps is None else f" at {fps}")
        found[name] = refused(real.video, width, height, frames, fps, **options)
    return found


def _capped(entry: dict[str, Any]) -> dict[str, Any]:
    """The same videos where the processor caps the pixels of a frame."""
    video = {**entry["video"], "cap_pixels_per_frame": True}
    real = Real({**entry, "video": video})
    return {
        f"{width}x{height} {frames}": refused(real.video, width, height, frames, None)
        for width, height, frames, fps in VIDEOS
        if fps is None
    }


def _variant(case: tuple[str, dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    """The images of one variant."""
    family, images, processor = case
    entry = next(entry for entry in entries() if entry["id"] == family)
    changed = {
        **entry,
        "preprocessor": {**entry["preprocessor"], **images},
        "processor": {**(entry["processor"] or {}), **processor},
    }
    with _one_thread():
        real = Real(changed)
        found = {f"{width}x{height}": refused(real.image, width, height) for width, height in VARIANT_SIZES}
    return {"entry": family, "preprocessor": images, "processor": processor, "images": found}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Blank images are resized quickly; threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _asked(entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """All answers of one entry."""
    family = entry["id"]
    with _one_thread():
        real = Real(entry)
        found: dict[str, dict[str, Any]] = {
            "images": {f"{width}x{height}": refused(real.image, width, height) for width, height in SIZES}
        }
        if family == "gemma-3":
            scan = {"images_kwargs": {"do_pan_and_scan": True}}
            found["pan_and_scan"] = {
                f"{width}x{height}": refused(real.image, width, height, **scan) for width, height in SIZES
            }
        if family in VIDEO_FAMILIES:
            found["videos"] = _videos(real, entry)
        if family in CAPPED:
            found["capped"] = _capped(entry)
    return found


def answers() -> dict[str, Any]:
    """For every entry of the catalogue: size to [tokens, tokens with wrappers, elements of pixels], or the refusal."""
    import multiprocessing

    transformers.logging.set_verbosity_error()
    asked = list(entries())
    # Forked, so that PyTorch and transformers are imported once.
    with multiprocessing.get_context("fork").Pool() as pool:
        found = pool.map(_asked, asked, chunksize=1)
        variants = pool.map(_variant, VARIANTS, chunksize=1)
    kinds = ("images", "pan_and_scan", "videos", "capped")
    by_kind: dict[str, Any] = {
        kind: {entry["id"]: each[kind] for entry, each in zip(asked, found, strict=True) if kind in each}
        for kind in kinds
    }
    return {**by_kind, "variants": variants}


def _ours(ask: Callable[..., Any], *case: Any, **options: Any) -> list[int] | str:
    try:
        found = ask(*case, **options)
    except InputError as error:
        return str(error)
    return [found.tokens, found.tokens_with_wrappers, found.pixel_values]


def _random_size(draw: random.Random) -> tuple[int, int]:
    """Sides from 1 to about 6,000 pixels, small ones as often as large ones."""
    width, height = (int(2 ** draw.uniform(0, 12.5)) for _ in range(2))
    return width, height


def compare_random(count: int, seed: int) -> int:
    """Compare sizes drawn at random; prints each difference and returns how many there are."""
    transformers.logging.set_verbosity_error()
    draw, wrong, done = random.Random(seed), 0, 0
    with _one_thread():
        for entry in entries():
            real, model = Real(entry), entry["models"][0]["id"]
            for _ in range(count):
                width, height = _random_size(draw)
                theirs = refused(real.image, width, height)
                mine = _ours(image_tokens, model, width, height)
                wrong += _told(f"{model} {width}x{height}", theirs, mine)
                done += 1
            if entry["id"] not in VIDEO_FAMILIES:
                continue
            for _ in range(count // 4):
                width, height = (min(side, 800) for side in _random_size(draw))
                frames, fps = draw.randint(1, 200), draw.choice([None, 24.0, 30.0, 29.97, draw.uniform(0.5, 120)])
                sample = SAMPLE.get(entry["id"]) if fps is not None else None
                options = {} if sample is None else {"videos_kwargs": {"fps": sample}}
                theirs = refused(real.video, width, height, frames, fps, **options)
                mine = _ours(video_tokens, model, width, height, frames, fps=fps, sample_fps=sample)
                wrong += _told(f"{model} {width}x{height} {frames} frames at {fps}", theirs, mine)
                done += 1
    print(f"{done} cases, {wrong} differ (seed {seed})")
    return wrong


def _told(case: str, theirs: list[int] | str, mine: list[int] | str) -> int:
    same = theirs[:3] == mine if isinstance(theirs, list) else isinstance(mine, str)
    if not same:
        print(f"{case}: transformers {theirs}, vlmmem {mine}")
    return int(not same)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--random", type=int, default=100, metavar="N", help="sizes a processor (100)")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    sys.exit(1 if compare_random(chosen.random, chosen.seed) else 0)
