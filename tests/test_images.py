"""Tokens and pixels of images and videos, equal to what the real processors of transformers produce."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import vlmmem.catalog
from vlmmem.catalog import find_model, model_facts
from vlmmem.cli import main
from vlmmem.errors import InputError
from vlmmem.images import (
    ImageTokens,
    Processor,
    VideoTokens,
    find_processor,
    image_tokens,
    load_processors,
    open_processor,
    parse_image_size,
    processor_from_settings,
    processors,
    video_tokens,
)
from vlmmem.images.anyres import AnyResolution
from vlmmem.images.fixed_grid import CentreCrop, PanAndScan
from vlmmem.images.settings import CLASSES
from vlmmem.images.smart_resize import ClipBudget, FrameBudget
from vlmmem.images.tiles import LongestEdge, TiledCanvas
from vlmmem.readers import open_model

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = Path(vlmmem.catalog.__file__).parent / "processors.json"
REAL = json.loads((ROOT / "tests" / "oracle" / "images.json").read_text(encoding="utf-8"))
ENTRIES: dict[str, dict[str, Any]] = {
    entry["id"]: entry for entry in json.loads(CATALOGUE.read_text(encoding="utf-8"))["processors"]
}
FAMILIES = {item.family: item for item in reversed(processors())}
Answer = list[int] | str


def _ours(ask: Callable[[], ImageTokens | VideoTokens]) -> Answer:
    try:
        found = ask()
    except InputError as error:
        return str(error)
    return [found.tokens, found.tokens_with_wrappers, found.pixel_values]


def _differ(theirs: Answer, ours: Answer) -> bool:
    """Whether two answers differ; a refusal is the same as a refusal, in whichever words."""
    if isinstance(theirs, str) or isinstance(ours, str):
        return type(theirs) is not type(ours)
    return theirs[:3] != ours


def _size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


def _differences(
    answers: dict[str, Answer], ask: Callable[..., ImageTokens | VideoTokens]
) -> Iterator[tuple[str, Answer, Answer]]:
    for case, theirs in answers.items():
        ours = _ours(lambda: ask(*_case(case)))  # noqa: B023 (called at once)
        if _differ(theirs, ours):
            yield case, theirs, ours


def _case(text: str) -> tuple[Any, ...]:
    size, *rest = text.split(" ")
    if not rest:
        return _size(size)
    return *_size(size), int(rest[0]), float(rest[2]) if len(rest) > 1 else None


# --- against the real processors ---


@pytest.mark.parametrize("family", ENTRIES)
def test_images_cost_what_the_processor_makes_of_them(family: str) -> None:
    found = _differences(REAL["images"][family], lambda *size: image_tokens(FAMILIES[family], *size))
    assert list(found) == []


def test_every_processor_was_asked_over_many_sizes() -> None:
    assert set(REAL["images"]) == set(ENTRIES)
    assert all(len(answers) > 60 for answers in REAL["images"].values())
    refusals = [answer for answers in REAL["images"].values() for answer in answers.values() if isinstance(answer, str)]
    assert len(refusals) > 20


def test_pan_and_scan() -> None:
    found = _differences(
        REAL["pan_and_scan"]["gemma-3"], lambda *size: image_tokens("gemma-3-4b", *size, pan_and_scan=True)
    )
    # The sentence that introduces crops is text: 7 and 11 words around, and a space between crops.
    others = [(case, theirs, ours) for case, theirs, ours in found if _without_words(theirs) != _without_words(ours)]
    assert others == []


def _without_words(answer: Answer) -> Answer:
    return answer if isinstance(answer, str) else [answer[0], answer[2]]


@pytest.mark.parametrize("family", REAL["videos"])
def test_videos_cost_what_the_processor_makes_of_them(family: str) -> None:
    # Qwen2-VL and 2.5-VL were asked for two frames a second, as they sample none by themselves.
    rate = 2.0 if isinstance(FAMILIES[family].video_rule, FrameBudget) else None

    def ask(width: int, height: int, frames: int, fps: float | None) -> VideoTokens:
        return video_tokens(FAMILIES[family], width, height, frames, fps=fps, sample_fps=rate if fps else None)

    assert list(_differences(REAL["videos"][family], ask)) == []
    taken = {case: theirs[3] for case, theirs in REAL["videos"][family].items() if isinstance(theirs, list)}
    assert {case: ask(*_case(case)).sampled_frames for case in taken} == taken


@pytest.mark.parametrize("family", REAL["capped"])
def test_videos_with_capped_frames(family: str) -> None:
    entry = ENTRIES[family]
    capped = processor_from_settings(
        {**entry["preprocessor"], "processor_class": entry["processor_class"]},
        video={**entry["video"], "cap_pixels_per_frame": True},
    )
    found = _differences(
        REAL["capped"][family], lambda width, height, frames, fps: video_tokens(capped, width, height, frames, fps=fps)
    )
    assert list(found) == []


def test_tiles_that_llama_fills() -> None:
    rule = FAMILIES["llama-3.2-vision"].image_rule
    assert isinstance(rule, TiledCanvas)
    for case, answer in REAL["images"]["llama-3.2-vision"].items():
        width, height = _size(case)
        rows, columns = rule.canvas(width, height)
        assert rows * columns == answer[3], case


@pytest.mark.parametrize("variant", REAL["variants"], ids=lambda each: each["entry"])
def test_settings_that_no_catalogued_model_has(variant: dict[str, Any]) -> None:
    pre, processor, _ = _files(variant["entry"])
    found = processor_from_settings({**pre, **variant["preprocessor"]}, {**processor, **variant["processor"]})
    assert list(_differences(variant["images"], lambda *size: image_tokens(found, *size))) == []


def _spoilt() -> Iterator[tuple[str, Any]]:
    """Each family with one slip of the kind that the comparison has to notice."""
    for family, item in FAMILIES.items():
        rule: Any = item.image_rule
        for field in rule.__dataclass_fields__:
            value = getattr(rule, field)
            if (field in ("patch_size", "tile_patches") and not isinstance(rule, CentreCrop)) or value is None:
                continue
            if field in ("scan", "min_crop_size", "max_crops", "min_ratio", "shortest_edge"):
                continue  # of no effect here: pan and scan has its own test, and the centre is cropped afterwards
            if isinstance(value, bool):
                yield f"{family} {field}", replace(item, image_rule=replace(rule, **{field: not value}))
            elif isinstance(value, int):
                # A bound or a cut of one pixel more may have no effect on any image.
                slip = 2 * value if field in ("least", "most", "cut") else value + 1
                yield f"{family} {field}", replace(item, image_rule=replace(rule, **{field: slip}))


@pytest.mark.parametrize(("what", "spoilt"), list(_spoilt()), ids=lambda each: each if isinstance(each, str) else "")
def test_a_wrong_setting_is_noticed(what: str, spoilt: Processor) -> None:
    answers = REAL["images"][spoilt.family]
    assert list(_differences(answers, lambda *size: image_tokens(spoilt, *size)))


# --- properties ---


def _random_sizes(count: int) -> list[tuple[int, int]]:
    draw = random.Random(7)
    return [(int(2 ** draw.uniform(0, 15.9)), int(2 ** draw.uniform(0, 15.9))) for _ in range(count)]


@pytest.mark.parametrize("family", ENTRIES)
def test_any_size_is_counted_or_refused(family: str) -> None:
    for width, height in _random_sizes(300):
        try:
            found = image_tokens(FAMILIES[family], width, height)
        except InputError:
            continue
        assert 0 < found.tokens <= found.tokens_with_wrappers
        assert found.pixel_values % 3 == 0
        assert found.crops > 0
        assert found.patches is not None
        assert found.patches > 0


def test_what_the_rules_are_known_for() -> None:
    # A thumbnail costs as much as a large picture where small images are enlarged.
    assert image_tokens("idefics3-8b", 64, 48).tokens == image_tokens("idefics3-8b", 4000, 3000).tokens
    # Without padding, a wide picture costs less than a square one.
    assert (
        image_tokens("llava-v1.6-mistral-7b", 2000, 500).tokens < image_tokens("llava-v1.6-mistral-7b", 900, 900).tokens
    )
    # Two frames of a video cost as much as one image.
    assert video_tokens("qwen2-vl-7b", 640, 480, 2).tokens == image_tokens("qwen2-vl-7b", 640, 480).tokens
    # A longer clip costs more where frames are bounded, and no more where the clip is.
    long, longer = (video_tokens("qwen2-vl-7b", 1920, 1080, frames).tokens for frames in (100, 700))
    assert longer == 7 * long
    assert all(video_tokens("qwen3-vl-8b", 1920, 1080, frames).tokens <= 12288 for frames in (20, 100, 700))


# --- names ---

ASKED = [
    *("llava-1.5-7b", "llava-1.5-7b-hf", "llava-hf/llava-1.5-7b-hf", "llava-1.5-13b", "LLaVA-1.5-7B"),
    *("llava-v1.6-mistral-7b", "llava-v1.6-mistral-7b-hf", "llava-1.6-mistral-7b", "llava-hf/llava-v1.6-mistral-7b-hf"),
    *("llava-onevision-qwen2-7b", "llava-hf/llava-onevision-qwen2-7b-ov-hf", "llava-onevision-qwen2-7b-ov-hf"),
    *("qwen2-vl-7b", "qwen2-vl-7b-instruct", "Qwen/Qwen2-VL-7B-Instruct", "qwen2-vl-2b", "qwen2-vl-72b"),
    *("qwen2.5-vl-7b", "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2.5-vl-3b", "qwen2.5-vl-32b", "qwen2.5-vl-72b-instruct"),
    *("qwen3-vl-8b", "qwen3-vl-8b-instruct", "Qwen/Qwen3-VL-8B-Instruct", "qwen3-vl-30b-a3b", "qwen3-vl-235b-a22b"),
    *("gemma-3-4b", "gemma-3-4b-it", "google/gemma-3-4b-it", "gemma-3-12b", "gemma-3-27b-it"),
    *("gemma-4-e2b", "gemma-4-e2b-it", "google/gemma-4-E2B-it", "gemma-4-31b"),
    *("llama-3.2-11b-vision", "llama-3.2-11b-vision-instruct", "meta-llama/Llama-3.2-11B-Vision-Instruct"),
    *("llama-3.2-90b-vision", "pixtral-12b", "mistral-community/pixtral-12b"),
    *("mistral-small-3.1-24b", "mistralai/Mistral-Small-3.1-24B-Instruct-2503", "mistral-small-3.1-24b-instruct-2503"),
    *("idefics3-8b", "HuggingFaceM4/Idefics3-8B-Llama3", "idefics3-8b-llama3"),
    *("smolvlm", "smolvlm-2b", "smolvlm-instruct", "HuggingFaceTB/SmolVLM-Instruct"),
    *("smolvlm-256m", "smolvlm-256m-instruct", "HuggingFaceTB/SmolVLM-256M-Instruct"),
    *("smolvlm2-2.2b", "smolvlm2-2.2b-instruct", "HuggingFaceTB/SmolVLM2-2.2B-Instruct"),
    *("smolvlm2-500m-video", "smolvlm2-500m", "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"),
    *("internvl3-8b", "internvl3-8b-hf", "OpenGVLab/InternVL3-8B-hf", "internvl3-1b", "internvl3-2b"),
    *("paligemma-224", "paligemma-3b-224", "paligemma-3b-pt-224", "google/paligemma-3b-pt-224"),
    *("paligemma-448", "paligemma-3b-pt-448", "paligemma-896", "paligemma-3b-896", "google/paligemma-3b-pt-896"),
    *("glm-4.1v-9b", "glm-4.1v-9b-thinking", "zai-org/GLM-4.1V-9B-Thinking"),
]


@pytest.mark.parametrize("name", ASKED)
def test_names_and_hub_ids_in_any_case(name: str) -> None:
    item = find_processor(name)
    assert find_processor(name.upper()) is item
    assert item.hub_id is not None
    assert find_processor(item.hub_id) is item


def test_a_catalogued_model_finds_its_processor() -> None:
    found = find_processor(find_model("qwen2-vl-7b"))
    assert found.hub_id == "Qwen/Qwen2-VL-7B-Instruct"
    assert image_tokens(find_model("llava-1.5-13b"), 500, 400).tokens == 576


def test_no_processor_and_model_differ_in_what_a_name_means() -> None:
    files = sorted((CATALOGUE.parent / "configs").glob("*.json"))
    facts = [model for file in files for model in json.loads(file.read_text(encoding="utf-8"))["models"]]
    by_hub = {model["hub_id"]: model["id"] for model in facts if model["hub_id"]}
    other = {item.id: by_hub[item.hub_id] for item in processors() if item.hub_id in by_hub}
    assert {here: there for here, there in other.items() if here != there} == {}


@pytest.mark.parametrize("name", ["", "nothing", "gpt2", 3, None])
def test_an_unknown_name_lists_those_that_there_are(name: Any) -> None:
    with pytest.raises(InputError, match=r"known are .*qwen2-vl|a model's name is needed"):
        find_processor(name)


# --- settings files ---


def _files(family: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]:
    entry = ENTRIES[family]
    named = {"processor_class": entry["processor_class"], "image_mean": [0.5, 0.5, 0.5], "resample": 3}
    return {**entry["preprocessor"], **named}, dict(entry["processor"] or {}), entry["video"]


@pytest.mark.parametrize("family", ENTRIES)
def test_a_folder_gives_what_the_name_gives(family: str, tmp_path: Path) -> None:
    pre, processor, video = _files(family)
    texts = {"preprocessor_config": pre, "processor_config": processor, "video_preprocessor_config": video}
    for name, content in texts.items():
        if content:
            (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "config.json").write_text(
        json.dumps({"vision_config": {"patch_size": ENTRIES[family]["patch_size"]}}), encoding="utf-8"
    )
    for text in (tmp_path, tmp_path / "preprocessor_config.json"):
        found = open_processor(str(text))
        assert found.image_rule == FAMILIES[family].image_rule
        assert found.video_rule == FAMILIES[family].video_rule


def test_a_model_that_was_read_from_a_folder_has_its_processor(tmp_path: Path) -> None:
    folder = tmp_path / "llava-1.5-7b"  # a name that means another
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(model_facts("qwen2-vl-7b")["config"]), encoding="utf-8")
    named = open_model(str(folder))
    assert image_tokens(named, 4032, 3024).tokens == 576
    settings = {"processor_class": "Qwen2VLProcessor", "min_pixels": 3136, "max_pixels": 1003520}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    for path in (folder, folder / "config.json"):
        assert image_tokens(open_model(str(path)), 4032, 3024).tokens == 1230
    (folder / "preprocessor_config.json").write_text('{"processor_class": "Other"}', encoding="utf-8")
    with pytest.raises(InputError, match="names 'Other' as its processor"):
        image_tokens(open_model(str(folder)), 4032, 3024)


@pytest.mark.parametrize("family", ENTRIES)
def test_newer_folders_nest_the_files(family: str) -> None:
    pre, processor, video = _files(family)
    named = {"processor_class": pre.pop("processor_class"), "image_processor": pre, "video_processor": video}
    found = processor_from_settings(None, {**processor, **named}, patch_size=ENTRIES[family]["patch_size"])
    assert found.image_rule == FAMILIES[family].image_rule
    assert found.video_rule == FAMILIES[family].video_rule


@pytest.mark.parametrize("suffix", ["", "Fast"])
@pytest.mark.parametrize("kind", ["Qwen2VLImageProcessor", "Idefics3ImageProcessor", "GotOcr2ImageProcessor"])
def test_an_image_processor_alone_says_which_class_it_is(kind: str, suffix: str) -> None:
    found = processor_from_settings({"image_processor_type": kind + suffix})
    assert CLASSES[found.processor_class][0] == kind


def test_older_names_of_settings() -> None:
    size = {"shortest_edge": 3136, "longest_edge": 1003520}
    forms: list[dict[str, Any]] = [
        {"size": size},
        {"min_pixels": 3136, "max_pixels": 1003520},
        {"min_pixels": 3136, "max_pixels": 1003520, "size": {"min_pixels": 3136, "max_pixels": 1003520}},
        {"max_pixels": 1003520, "size": {"shortest_edge": 3136, "longest_edge": 5}},
    ]
    rules = {processor_from_settings({"processor_class": "Qwen2VLProcessor", **form}).image_rule for form in forms}
    assert len(rules) == 1
    llava = {"processor_class": "LlavaProcessor", "size": 336, "crop_size": 336}
    named = {"processor_class": "LlavaProcessor", "size": {"shortest_edge": 336}, "crop_size": [336, 336]}
    processor = {"patch_size": 14}
    assert processor_from_settings(llava, processor).image_rule == processor_from_settings(named, processor).image_rule


def test_what_the_processor_class_sets_overrules_the_file() -> None:
    pre, processor, _ = _files("gemma-3")
    found = processor_from_settings({**pre, "do_pan_and_scan": True}, processor)
    assert image_tokens(found, 3000, 1000).tokens == 256
    pre, processor, _ = _files("internvl3")
    found = processor_from_settings({**pre, "crop_to_patches": False}, processor)
    assert image_tokens(found, 3000, 1000).tokens > 256


def test_without_splitting_an_image_is_one_tile() -> None:
    pre, processor, _ = _files("smolvlm")
    found = processor_from_settings({**pre, "do_image_splitting": False}, processor)
    assert isinstance(found.image_rule, LongestEdge)
    assert image_tokens(found, 3000, 1000).tokens == 81


BAD = [
    0,
    -1,
    2.5,
    "14",
    True,
    [],
    {},
    [1, 2, 3],
    float("nan"),
    1 << 70,
    {"height": 0, "width": 4},
    {"longest_edge": None},
]


def _told(files: list[Any]) -> str:
    """The one line about these files, or "" where they give an answer."""
    try:
        found = processor_from_settings(files[0], files[1], "x.json", files[2])
        image_tokens(found, 640, 480)
        if found.video_rule is not None:
            video_tokens(found, 640, 480, 8, fps=24, sample_fps=2)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("family", ENTRIES)
def test_a_stranger_s_settings_give_one_line_or_an_answer(family: str) -> None:
    pre, processor, video = _files(family)
    for part in range(3):
        for field in list((pre, processor, video or {})[part]):
            for bad in BAD:
                files: list[Any] = [copy.deepcopy(pre), copy.deepcopy(processor), copy.deepcopy(video)]
                files[part][field] = bad
                told = _told(files)
                assert "\n" not in told
                assert len(told) < 700


@pytest.mark.parametrize(
    ("pre", "processor", "told"),
    [
        ([], None, "x.json: [] stands where an object of settings is needed"),
        (None, None, "x.json: has no settings of an image processor; preprocessor_config.json is needed"),
        ({"image_processor_type": "CLIPImageProcessor"}, None, "names 'CLIPImageProcessor' as its processor"),
        ({}, None, "names nothing as its processor"),
        ({"processor_class": "LlavaProcessor"}, None, "'patch_size' is missing"),
        ({"processor_class": "LlavaProcessor", "do_resize": False}, None, "'do_resize' is False; true is needed"),
        ({"processor_class": "Qwen2VLProcessor", "max_pixels": -1}, None, "'max_pixels' is -1; a whole number from 1"),
        (
            {"processor_class": "MllamaProcessor", "max_image_tiles": 1 << 30},
            None,
            "'max_image_tiles' is 1073741824; a whole number from 1 to 4,096 is needed",
        ),
        ({"processor_class": "Gemma4Processor", "max_soft_tokens": 281}, None, "one of 70, 140, 280, 560, 1120"),
        (
            {"processor_class": "LlavaOnevisionProcessor"},
            {"num_image_tokens": 729, "vision_aspect_ratio": "square"},
            "'vision_aspect_ratio' is 'square'",
        ),
        (
            {"processor_class": "LlavaNextProcessor", "crop_size": 336, "image_grid_pinpoints": [[1, 2, 3]]},
            {"patch_size": 14},
            "'image_grid_pinpoints' is [1, 2, 3]; a list of [height, width] is needed",
        ),
    ],
)
def test_the_line_says_where_what_and_what_would_be_right(pre: Any, processor: Any, told: str) -> None:
    with pytest.raises(InputError) as raised:
        processor_from_settings(pre, processor, "x.json")
    assert told in str(raised.value)


def test_many_tiles_take_no_time() -> None:
    pre, processor, _ = _files("internvl3")
    found = processor_from_settings({**pre, "max_patches": 4096}, processor)
    assert image_tokens(found, 3000, 1000).tokens > 256


def test_what_is_not_known_of_the_tower_is_none() -> None:
    pre, processor, _ = _files("gemma-3")
    assert image_tokens(processor_from_settings(pre, processor), 640, 480).patches is None


# --- the catalogue's file ---


def test_every_processor_has_a_source() -> None:
    assert all(item.sources for item in processors())


def _entry(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> Path:
    data = {"processors": [copy.deepcopy(ENTRIES["qwen2-vl"]), copy.deepcopy(ENTRIES["llava-1.5"])]}
    change(data["processors"][0])
    path = tmp_path / "processors.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda entry: entry.update(processor_class="X"), "'processor_class' is \"X\"; one of LlavaProcessor"),
        (lambda entry: entry.update(spare=1), "'spare' is not a field"),
        (lambda entry: entry["models"][0].update(aliases=["llava-7b"]), "the name 'llava-7b' also means 'qwen2-vl-2b'"),
        (lambda entry: entry.update(models=[]), "'models' is []; a list of models is needed"),
        (lambda entry: entry["preprocessor"].update(merge_size=0), "'merge_size' is 0; a whole number from 1"),
        (lambda entry: entry.update(sources=[]), "'sources' is []; a list of at least one source is needed"),
    ],
)
def test_a_fault_in_the_catalogue_is_one_line(
    change: Callable[[dict[str, Any]], object], told: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as raised:
        load_processors(_entry(change, tmp_path))
    assert told in str(raised.value)


# --- the command ---


def _command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["image-tokens", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_lists_each_size(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _command(capsys, "qwen2-vl-7b", "640x480", "64X48", "--json")
    found = json.loads(out)
    assert code == 0
    assert [(item["width"], item["height"], item["tokens"]) for item in found] == [(640, 480, 391), (64, 48, 4)]
    for name in ("width", "height", "tokens", "tokens_with_wrappers", "pixel_values"):
        assert all(type(item[name]) is int for item in found)


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _command(capsys, "pixtral-12b", "1024x1024")
    assert code == 0
    assert out.splitlines() == [
        "size       tokens  tokens with wrappers  pixel values  crops",
        "1024x1024  4,096   4,160                 3,145,728     1",
    ]


def test_the_command_prices_a_video(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _command(capsys, "qwen3-vl-8b", "640x480", "--frames", "64", "--fps", "24", "--json")
    assert code == 0
    assert json.loads(out)[0]["sampled_frames"] == 5
    code, out, _ = _command(capsys, "qwen3-vl-8b", "640x480", "--frames", "64")
    assert code == 0
    assert "sampled frames" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["qwen2-vl-7b", "0x5"],
        ["qwen2-vl-7b", "5x0"],
        ["qwen2-vl-7b", "axb"],
        ["qwen2-vl-7b", "640"],
        ["qwen2-vl-7b", "640x"],
        ["qwen2-vl-7b", "640x480x3"],
        ["qwen2-vl-7b", "-5x5"],
        ["qwen2-vl-7b", "1e3x5"],
        ["qwen2-vl-7b", "1000000000x1000000000"],
        ["qwen2-vl-7b", "9" * 5000 + "x5"],
        ["qwen2-vl-7b", "5000x1"],
        ["qwen2-vl-7b"],
        ["nothing", "5x5"],
        ["x" * 5000, "5x5"],
        ["a\0b", "5x5"],
        ["/", "5x5"],
        [__file__, "5x5"],
        ["llava-1.5-7b", "5x5", "--frames", "3"],
        ["llava-1.5-7b", "5x5", "--pan-and-scan"],
        ["qwen2-vl-7b", "5x5", "--frames", "0"],
        ["qwen2-vl-7b", "5x5", "--frames", "99999999999"],
        ["qwen2-vl-7b", "5x5", "--fps", "3"],
        ["qwen2-vl-7b", "5x5", "--frames", "3", "--fps", "nan"],
        ["qwen2-vl-7b", "5x5", "--frames", "30", "--fps", "3"],
        ["gemma-3-4b", "5x5", "--frames", "3", "--pan-and-scan"],
    ],
)
def test_bad_input_is_one_line_and_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = _command(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("vlmmem: error: ")
    assert len(err.splitlines()) == 1


def test_a_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="is longer than"):
        open_processor(str(path))


def test_sides_are_whole_numbers() -> None:
    assert parse_image_size(" 640×480 ") == (640, 480)
    for width in (0, -1, 2.0, True, "5", None, 1 << 20):
        with pytest.raises(InputError, match="width is"):
            image_tokens("llava-1.5-7b", width, 5)  # type: ignore[arg-type]
    for rate in (0, -1, "5", float("nan"), float("inf")):
        with pytest.raises(InputError, match="fps is"):
            video_tokens("qwen2-vl-7b", 5, 5, 5, fps=rate)  # type: ignore[arg-type]


def test_rules_of_the_kinds_that_the_catalogue_names() -> None:
    kinds = {type(item.image_rule) for item in processors()}
    assert {AnyResolution, CentreCrop, PanAndScan, LongestEdge, TiledCanvas} < kinds
    assert {type(item.video_rule) for item in processors()} >= {FrameBudget, ClipBudget}
