"""The catalogue: what it holds, how names resolve, and the one line that a fault in a file gets."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vlmmem.catalog
from vlmmem.architectures import build
from vlmmem.catalog import (
    find_format,
    find_gpu,
    find_model,
    find_runtime,
    formats,
    gpus,
    links,
    load_formats,
    load_gpus,
    load_links,
    load_models,
    load_runtimes,
    model_facts,
    models,
    runtimes,
)
from vlmmem.errors import InputError
from vlmmem.record import replace

DATA = Path(vlmmem.catalog.__file__).parent

# The models of the documents keep their names.
MODELS = {
    "llava-1.5-7b": "llava-hf/llava-1.5-7b-hf",
    "llava-1.5-13b": "llava-hf/llava-1.5-13b-hf",
    "llava-1.6-34b": "llava-hf/llava-v1.6-34b-hf",
    "llama-2-7b": "meta-llama/Llama-2-7b-hf",
    "llama-2-13b": "meta-llama/Llama-2-13b-hf",
    "llama-2-70b": "meta-llama/Llama-2-70b-hf",
    "llama-1-30b": "huggyllama/llama-30b",
    "opt-30b": "facebook/opt-30b",
    "gpt-3-175b": None,
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B",
    "llama-3.1-70b": "meta-llama/Llama-3.1-70B",
    "llama-3.1-405b": "meta-llama/Llama-3.1-405B",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "qwen2-72b": "Qwen/Qwen2-72B-Instruct",
    "phi-2": "microsoft/phi-2",
}

# MiB that nvidia-smi prints, the vendor's GB, GB/s, and dense 16-bit TFLOP/s.
GPUS = {
    "t4": (15_360, 16, 320, 65),
    "v100-32gb": (32_768, 32, 900, 125),
    "a100-40gb": (40_960, 40, 1_555, 312),
    "a100-80gb": (81_920, 80, 2_039, 312),
    "h100-80gb": (81_559, 80, 3_350, 989.4),
    "h200": (143_771, 141, 4_800, 989.4),
    "b200": (183_359, 192, 8_000, 2_250),
    "mi300x": (196_592, 192, 5_300, 1_307.4),
    "l4": (23_034, 24, 300, 125.34),
    "rtx-3090": (24_576, 24, 936, 71),
    "rtx-4090": (24_564, 24, 1_008, 165.15),
}


def test_models() -> None:
    found = {model.id: model.hub_id for model in models()}
    assert len(found) >= 60
    assert MODELS.items() <= found.items()


def test_a_model_is_built_from_its_config_as_stated() -> None:
    facts = model_facts("Llama-2-13B")
    assert facts["id"] == "llama-2-13b"
    assert build(facts["config"]).parameters == find_model("llama-2-13b").parameters


def test_no_two_files_share_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    for name in ("a.json", "b.json"):
        shutil.copy(DATA / "configs" / "llava.json", tmp_path / "configs" / name)
    monkeypatch.setattr(vlmmem.catalog, "_HERE", tmp_path)
    vlmmem.catalog._model_entries.cache_clear()
    try:
        with pytest.raises(InputError, match=r"^b.json: llava-1.5-7b: the id also stands in a.json; an id of its own"):
            vlmmem.catalog._model_entries()
    finally:
        vlmmem.catalog._model_entries.cache_clear()


# GiB that PyTorch, vLLM or TensorRT-LLM print as the GPU's total.
SEEN = {
    "t4": 14.741,
    "l4": 22.161,
    "a100-40gb": 39.557,
    "a100-80gb": 79.318,
    "h100-80gb": 79.19,
    "h200": 139.80084228515625,
    "rtx-3090": 23.58,
    "rtx-4090": 23.63,
}


def test_what_cuda_sees_of_a_gpu() -> None:
    assert {gpu.id: gpu.cuda_memory_bytes for gpu in gpus() if gpu.cuda_memory_bytes is not None} == {
        name: round(size * 2**30) for name, size in SEEN.items()
    }
    # the driver keeps one to five per cent: ECC of GDDR6 takes the most
    for gpu in gpus():
        assert gpu.cuda_memory_bytes is None or 0.95 < gpu.cuda_memory_bytes / gpu.memory_bytes < 1
    gpu = find_gpu("t4")
    with pytest.raises(InputError, match="t4: 'cuda_memory_bytes' is 16106127361; no more than 'memory_bytes', 161061"):
        replace(gpu, cuda_memory_bytes=gpu.memory_bytes + 1)


@pytest.mark.parametrize(("name", "facts"), GPUS.items())
def test_gpus(name: str, facts: tuple[int, int, int, float]) -> None:
    gpu = find_gpu(name)
    mebibytes, vendor_gb, bandwidth, flops = facts
    assert gpu.memory_bytes // 2**20 == mebibytes
    assert gpu.vendor_gb == vendor_gb
    assert gpu.bandwidth == bandwidth * 10**9
    assert gpu.flops_16bit == round(flops * 10**12)
    assert gpu.memory_basis == "measured"


# MiB of L2, multiprocessors, KiB of L1 and shared memory of each, lines of the memory bus: as PyTorch, CUDA's
# deviceQuery and the vendors' architecture pages print them.
CHIPS = {
    "t4": (4, 40, 96, 256),
    "v100-32gb": (6, 80, 128, 4096),
    "a100-40gb": (40, 108, 192, 5120),
    "a100-80gb": (40, 108, 192, 5120),
    "h100-80gb": (50, 132, 256, 5120),
    "h200": (60, 132, 256, 6144),
    "b200": (126.5, 148, 256, 7680),
    "mi300x": (32, 304, 96, 8192),
    "l4": (48, 58, 128, 192),
    "rtx-3090": (6, 82, 128, 384),
    "rtx-4090": (72, 128, 128, 384),
}


@pytest.mark.parametrize(("name", "facts"), CHIPS.items())
def test_chips(name: str, facts: tuple[float, int, int, int]) -> None:
    gpu = find_gpu(name)
    assert (gpu.l2_bytes / 2**20, gpu.multiprocessors, gpu.sram_bytes / 2**10, gpu.bus_width_bits) == facts


# Memory clock (MHz) as the driver reports it; two transfers a cycle. A vendor's figure may be rounded down.
@pytest.mark.parametrize(("name", "clock"), [("a100-80gb", 1593), ("a100-40gb", 1215), ("h100-80gb", 2619)])
def test_bandwidth_follows_from_the_bus(name: str, clock: int) -> None:
    gpu = find_gpu(name)
    assert gpu.bus_width_bits is not None
    assert gpu.bus_width_bits // 8 * clock * 10**6 * 2 == pytest.approx(gpu.bandwidth, rel=0.002)


def test_farther_memory_answers_later() -> None:
    measured = [gpu for gpu in gpus() if gpu.sram_latency_ps]
    assert [gpu.id for gpu in measured] == ["v100-32gb", "a100-80gb", "h100-80gb", "mi300x"]
    for gpu in measured:
        times = [gpu.sram_latency_ps, gpu.l2_latency_ps, gpu.memory_latency_ps]
        nanoseconds = [time / 1000 for time in times if time]
        assert nanoseconds == sorted(nanoseconds)
        assert len(nanoseconds) == 3
        assert 10 < nanoseconds[0] < nanoseconds[2] < 1000


def test_every_gpu_is_tested() -> None:
    assert [gpu.id for gpu in gpus()] == list(GPUS) == list(CHIPS)


def test_the_gb_of_a_vendor_is_nearer_to_gib() -> None:
    for name in ("a100-40gb", "a100-80gb", "v100-32gb", "h200", "mi300x"):
        gpu = find_gpu(name)
        assert abs(gpu.memory_bytes / 2**30 - gpu.vendor_gb) < abs(gpu.memory_bytes / 1e9 - gpu.vendor_gb)
    # The "192 GB" of a B200 is decimal: 183,359 MiB.
    assert round(find_gpu("b200").memory_bytes / 1e9) == find_gpu("b200").vendor_gb


def test_runtime_allowances() -> None:
    gib = {each.id: (each.context_bytes / 2**30, each.workspace_bytes / 2**30) for each in runtimes()}
    assert {name: (round(a, 2), round(b, 2)) for name, (a, b) in gib.items()} == {
        "one-gpu": (0.51, 0.25),
        "pipeline": (1.48, 0.07),
        "tensor": (1.53, 2.07),
    }
    assert find_runtime("Tensor").id == "tensor"


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("llama-2-13b", "llama-2-13b"),
        ("LLaMA-2-13B", "llama-2-13b"),
        ("  llama-2-13b ", "llama-2-13b"),
        ("meta-llama/Llama-2-13b-hf", "llama-2-13b"),
        ("meta-llama/llama-2-13b-chat-hf", "llama-2-13b"),
        ("meta-llama/Meta-Llama-3.1-70B", "llama-3.1-70b"),
        ("llava-hf/llava-1.5-7b-hf", "llava-1.5-7b"),
        ("Qwen/Qwen2-72B", "qwen2-72b"),
        ("gpt-3", "gpt-3-175b"),
    ],
)
def test_names_of_models(name: str, model: str) -> None:
    assert find_model(name).id == model


def test_names_of_gpus_and_formats() -> None:
    assert find_gpu("H100").id == "h100-80gb"
    assert find_gpu("A100").id == "a100-80gb"
    assert find_format("torch.bfloat16").id == "bf16"
    assert find_format("GGUF-Q4_K").id == "q4_k"
    ids = [model.id for model in models()] + [gpu.id for gpu in gpus()] + [number.id for number in formats()]
    assert ids == [name.lower() for name in ids]


@pytest.mark.parametrize(
    ("find", "name", "message"),
    [
        (
            find_model,
            "llama-4",
            "model 'llama-4' is not in the catalogue; near are ",
        ),
        (find_model, "", "model '' is not in the catalogue; 'vlmmem models' lists all"),
        (find_model, 13, "model 13: a name is needed"),
        (find_gpu, "h300", "GPU 'h300' is not in the catalogue; known are t4, v100-32gb, "),
        (find_format, "fp6", "format 'fp6' is not in the catalogue; known are fp32, fp16, bf16, "),
        (find_runtime, "tpu", "runtime 'tpu' is not in the catalogue; known are one-gpu, pipeline, tensor"),
    ],
)
def test_unknown_names(find: Callable[[Any], object], name: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        find(name)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_every_value_has_a_source() -> None:
    everything: list[Any] = [*models(), *gpus(), *links(), *formats(), *runtimes()]
    for item in everything:
        assert item.sources, item.id
        for source in item.sources:
            assert source.address.startswith("https://")
            assert source.what
            # A file of a repository is cited at the revision that was read.
            if "/blob/" in source.address and "huggingface.co" not in source.address:
                assert source.revision in source.address
                assert len(source.revision) == 40


LOADERS: dict[str, Callable[[Path], tuple[Any, ...]]] = {
    "models": load_models,
    "gpus": load_gpus,
    "links": load_links,
    "formats": load_formats,
    "runtime": load_runtimes,
}


def data_file(kind: str) -> Path:
    """A file of that kind; the models have several."""
    return DATA / "configs" / "llava.json" if kind == "models" else DATA / f"{kind}.json"


def plant(tmp_path: Path, kind: str, change: Callable[[list[dict[str, Any]]], object]) -> Path:
    """A copy of a catalogue file with a fault in it."""
    data = json.loads(data_file(kind).read_text(encoding="utf-8"))
    change(data[kind])
    path = tmp_path / f"{kind}.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def set_to(field: str, value: object, at: int = 0) -> Callable[[list[dict[str, Any]]], object]:
    def change(entries: list[dict[str, Any]]) -> None:
        entries[at][field] = value

    return change


def remove(field: str) -> Callable[[list[dict[str, Any]]], object]:
    return lambda entries: entries[0].pop(field)


def append_copy(**changes: object) -> Callable[[list[dict[str, Any]]], object]:
    return lambda entries: entries.append({**entries[0], **changes})


SOURCE = {"address": "https://example.org", "revision": "", "what": "x"}

FAULTS = [
    ("models", remove("config"), "models.json: llava-1.5-7b: 'config' is missing"),
    ("models", set_to("config", 5), "models.json: llava-1.5-7b: config: 5 stands where an object is needed"),
    ("models", remove("sources"), "models.json: llava-1.5-7b: 'sources' is missing"),
    ("models", remove("id"), "models.json: models[0]: 'id' is missing"),
    ("models", set_to("id", 7), "models.json: models[0]: 'id' is 7; a text is needed"),
    ("models", set_to("id", "LLaVA"), "models.json: LLaVA: 'id' is \"LLaVA\"; lower case is needed"),
    (
        "models",
        set_to("config", {"model_type": "llava", "text_config": {"num_hidden_layers": -32}}),
        "models.json: llava-1.5-7b: config: text_config: 'num_hidden_layers' is -32; an integer from 1 to ",
    ),
    (
        "models",
        set_to("config", {"model_type": "llava", "vision_config": 5}),
        "models.json: llava-1.5-7b: config: vision_config: 5 stands where an object is needed",
    ),
    (
        "models",
        set_to("config", {"model_type": "rwkv"}),
        "models.json: llava-1.5-7b: config: 'model_type' 'rwkv' is not built from a config here; ",
    ),
    ("models", set_to("name", ""), "models.json: llava-1.5-7b: 'name' is \"\"; a text is needed"),
    ("models", set_to("hub_id", 1), "models.json: llava-1.5-7b: 'hub_id' is 1; a text is needed"),
    (
        "models",
        set_to("aliases", "llava"),
        "models.json: llava-1.5-7b: 'aliases' is \"llava\"; a list of texts ",
    ),
    (
        "models",
        set_to("aliases", [""]),
        "models.json: llava-1.5-7b: 'aliases' is [\"\"]; a list of texts is needed",
    ),
    (
        "models",
        set_to("layer", 32),
        "models.json: llava-1.5-7b: 'layer' is not a field; the fields are aliases, config, ",
    ),
    ("models", append_copy(), "models.json: llava-1.5-7b: this id stands twice; an id of its own is needed"),
    (
        "models",
        append_copy(id="llava"),
        "models.json: llava: the name 'l",
    ),
    (
        "models",
        set_to("aliases", ["llava-hf/LLaVA-1.5-13b-hf"]),
        "models.json: llava-1.5-13b: the name 'llava-hf/llava-1.5-13b-hf' also means 'llava-1.5-7b'; one meaning ",
    ),
    (
        "models",
        set_to("sources", []),
        "models.json: llava-1.5-7b: 'sources' is []; a list of at least one source ",
    ),
    (
        "models",
        set_to("sources", [{**SOURCE, "address": "hf.co"}]),
        (
            "models.json: llava-1.5-7b: sources[0]: 'address' is \"hf.co\"; "
            "an address that begins with https:// is needed"
        ),
    ),
    (
        "models",
        set_to("sources", [SOURCE, {**SOURCE, "revision": None}]),
        ("models.json: llava-1.5-7b: sources[1]: 'revision' is null; a text, \"\" where there is none, is needed"),
    ),
    (
        "models",
        set_to("sources", [{**SOURCE, "page": 1}]),
        ("models.json: llava-1.5-7b: sources[0]: 'page' is not a field; the fields are address, revision, what"),
    ),
    ("gpus", remove("bandwidth"), "gpus.json: t4: 'bandwidth' is missing"),
    (
        "gpus",
        set_to("memory_bytes", 16.5),
        "gpus.json: t4: 'memory_bytes' is 16.5; a positive integer is needed",
    ),
    (
        "gpus",
        set_to("bus_width_bits", -1),
        "gpus.json: t4: 'bus_width_bits' is -1; a positive integer is needed",
    ),
    (
        "gpus",
        set_to("memory_basis", "guessed"),
        ("gpus.json: t4: 'memory_basis' is \"guessed\"; one of measured, derived, assumed, documented is needed"),
    ),
    ("gpus", set_to("l2_bytes", 0), "gpus.json: t4: 'l2_bytes' is 0; a positive integer is needed"),
    (
        "gpus",
        set_to("memory_latency_ps", 0.5),
        "gpus.json: t4: 'memory_latency_ps' is 0.5; a positive integer is needed",
    ),
    ("links", set_to("bandwidth", 0), "links.json: nvlink-4: 'bandwidth' is 0; a positive integer is needed"),
    ("formats", set_to("bits", 16), "formats.json: fp32: 'bits' is 16; a text is needed"),
    (
        "formats",
        set_to("bits", "16/0"),
        'formats.json: fp32: \'bits\' is "16/0"; a sum of fractions such as "4 + 16/128" is needed',
    ),
    (
        "formats",
        set_to("bits", "four"),
        'formats.json: fp32: \'bits\' is "four"; a sum of fractions such as "4 + 16/128" is needed',
    ),
    ("formats", set_to("bits", "0"), "formats.json: fp32: 'bits' is \"0\"; more than 0 bits is needed"),
    (
        "formats",
        set_to("row_bits", -32),
        "formats.json: fp32: 'row_bits' is -32; a positive integer is needed",
    ),
    (
        "formats",
        set_to("scope", "half"),
        "formats.json: fp32: 'scope' is \"half\"; one of all, decoder-linear, ",
    ),
    ("formats", set_to("kv_cache", 1), "formats.json: fp32: 'kv_cache' is 1; true or false is needed"),
    (
        "runtime",
        set_to("context_bytes", 0),
        "runtime.json: one-gpu: 'context_bytes' is 0; a positive integer ",
    ),
]


@pytest.mark.parametrize(("kind", "change", "message"), FAULTS, ids=[fault[2][:60] for fault in FAULTS])
def test_a_fault_names_file_and_entry(
    tmp_path: Path, kind: str, change: Callable[[list[dict[str, Any]]], object], message: str
) -> None:
    path = plant(tmp_path, kind, change)
    with pytest.raises(InputError) as caught:
        LOADERS[kind](path)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "models.json:1: Expecting property name enclosed in double quotes; valid JSON is needed"),
        ("[]", "models.json: [] stands where an object is needed"),
        ("{}", "models.json: 'models' is missing"),
        ('{"models": {}}', "models.json: 'models' is {}; a list of objects is needed"),
        ('{"models": []}', "models.json: 'models' is []; a list of objects is needed"),
        ('{"models": [1]}', "models.json: models[0]: 1 stands where an object is needed"),
        ('{"models": [], "x": 1}', "models.json: 'x' is not a field; the fields are models"),
        ('{"models": [{"id": NaN}]}', "models.json: NaN is not a number; a finite number is needed"),
        (
            '{"models": [{"id": "a", "id": "b"}]}',
            "models.json: 'id' stands twice in one object; once is right",
        ),
    ],
)
def test_a_file_that_is_no_catalogue(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "models.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_models(path)
    assert str(caught.value).startswith(message)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^models.json: cannot be read \(.*\); a JSON file in UTF-8 is needed$"):
        load_models(tmp_path / "models.json")
    (tmp_path / "gpus.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"^gpus.json: cannot be read "):
        load_gpus(tmp_path / "gpus.json")


def test_a_copy_without_faults_loads(tmp_path: Path) -> None:
    for kind, load in LOADERS.items():
        assert load(Path(shutil.copy(data_file(kind), tmp_path)))


def test_the_catalogue_imports_the_standard_library_only() -> None:
    code = (
        "import sys; before = set(sys.modules); import vlmmem.catalog, vlmmem.memory, vlmmem.footprint;"
        "names = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(names - set(sys.stdlib_module_names) - {'vlmmem'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
