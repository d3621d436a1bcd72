"""The measuring harness: CPU against fake tensors, both against the package, the records, and bad input.

PyTorch is not needed: what needs it was asked in the oracle's environment (tools/oracle_measure.py, tools/measure.py).
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tools.measure import CASES, RUNS, commands
from vlmmem.architectures import build
from vlmmem.catalog import find_model, model_facts
from vlmmem.cli import main
from vlmmem.errors import InputError
from vlmmem.images import ImageTokens
from vlmmem.measured.harness import Measurement, ask, differences, run_of_measurement
from vlmmem.measured.harness.devices import Cuda, find_device
from vlmmem.measured.harness.network import period, with_layers
from vlmmem.measured.harness.passes import _check_growth, extrapolated
from vlmmem.measured.records import read_runs, write_runs
from vlmmem.measured.run import Run
from vlmmem.measured.split import split_of
from vlmmem.memory import decode_peak_bytes, forward_peak_bytes, kv_cache_bytes, model_weights_bytes
from vlmmem.units import BYTES

ANSWERS = json.loads((Path(__file__).parent / "oracle" / "measure.json").read_text(encoding="utf-8"))["cases"]
NEW = 2
"""Tokens after the prompt in every case of the oracle."""

CHECKED = ("llama", "llama, many layers", "opt", "qwen3", "mixtral")
"""Families whose peaks the package knows to the byte."""

SLIDING = ("gemma3_text", "gemma3")
"""Families whose sliding layers keep the prompt's storage until the next token, and window - 1 tokens after it."""


def named(case: dict[str, Any]) -> str:
    return f"{case['name']}-{case['batch']}x{case['context']}-{case['images']}"


# The CPU against fake tensors, and both against the package


@pytest.mark.parametrize("case", ANSWERS, ids=named)
def test_the_cpu_and_fake_tensors_say_the_same_bytes(case: dict[str, Any]) -> None:
    assert case["cpu"] == case["fake"]


def test_the_cases_cover_what_differs() -> None:
    assert {case["images"] for case in ANSWERS} == {0, 1, 2}
    assert {"llama", "gemma3", "llava", "qwen2_vl", "mixtral", "bamba", "qwen3_next"} <= {c["name"] for c in ANSWERS}
    assert any(case["layers"] for case in ANSWERS)


@pytest.mark.parametrize("case", ANSWERS, ids=named)
def test_weights_and_cache_are_those_of_the_package(case: dict[str, Any]) -> None:
    model, found = build(case["config"]), case["cpu"]
    assert found["weights"] == sum(model_weights_bytes(model, "bf16").values())
    if case["name"] not in SLIDING:
        assert found["cache"] == kv_cache_bytes(model, case["context"], case["batch"])
        assert found["cache_after"] == kv_cache_bytes(model, case["context"] + NEW, case["batch"])


@pytest.mark.parametrize("case", [case for case in ANSWERS if case["name"] in CHECKED], ids=named)
def test_peaks_are_those_of_the_closed_forms(case: dict[str, Any]) -> None:
    model, found = build(case["config"]), case["cpu"]
    stands = sum(found[name] for name in ("weights", "buffers", "inputs"))
    peak = forward_peak_bytes(model, case["context"], case["batch"])
    assert found["peak"] == stands + found["cache"] + peak
    last = case["context"] + NEW
    step = decode_peak_bytes(model, last, case["batch"])
    assert found["decode_peak"] == stands + kv_cache_bytes(model, last, case["batch"]) + step


def test_a_sliding_layer_keeps_the_prompts_storage_until_the_next_token() -> None:
    for case in (case for case in ANSWERS if case["name"] == "gemma3_text"):
        model, found = build(case["config"]), case["cpu"]
        wide = build({**case["config"], "sliding_window": 4096})
        whole = kv_cache_bytes(wide, case["context"], case["batch"])
        kept = kv_cache_bytes(model, case["context"] + NEW, case["batch"])
        # each sliding layer counts its tokens in a tensor of its own
        assert whole <= found["cache"] < whole + 100
        assert kept <= found["cache_after"] < kept + 100


# The records


@pytest.fixture(scope="module")
def fake() -> dict[str, Run]:
    return {run.id: run for run in read_runs(RUNS / "harness_fake.json")}


def size(run: Run, name: str) -> int:
    found = run.get(name)
    assert found is not None
    return found.bytes


def over_weights(run: Run) -> int:
    return size(run, "peak") - sum(size(run, name) for name in ("weights", "buffers", "inputs"))


def test_the_documents_case(fake: dict[str, Run]) -> None:
    run = fake["fake-llama-2-13b-10x8192-bf16"]
    assert (size(run, "weights"), size(run, "cache")) == (26_031_728_640, 67_108_864_000)
    assert over_weights(run) == 77_263_339_520
    assert over_weights(run) == size(run, "cache") + forward_peak_bytes("llama-2-13b", 8192, 10)


def test_fewer_layers_say_what_all_say(fake: dict[str, Run]) -> None:
    part, whole = fake["fake-llama-3.1-70b-4x8192-bf16-8layers"], fake["fake-llama-3.1-70b-4x8192-bf16"]
    assert part.measured == whole.measured
    assert "of 80 layers 8 and 7 were built" in part.notes
    assert "layers" not in whole.notes


def test_every_case_of_the_list_is_recorded(fake: dict[str, Run]) -> None:
    assert len(fake) == len(CASES) == len(list(commands("fake", [])))
    assert {model for model, *_ in CASES} == {run.catalogue for run in fake.values()}
    assert {run.images for run in fake.values()} >= {0, 1, 4}
    cpu = [run.catalogue for run in read_runs(RUNS / "harness_cpu.json")]
    assert len(cpu) >= 4
    assert set(cpu) <= {words[0] for words in commands("cpu", [])}


@pytest.mark.parametrize("device", ["fake", "cpu"])
def test_records_say_where_they_come_from(device: str) -> None:
    for run in read_runs(RUNS / f"harness_{device}.json"):
        assert (run.engine, run.provenance, run.split, run.gpu) == (
            "transformers",
            "harness",
            split_of(run.source, run.family),
            None,
        )
        assert run.option("device") == device
        for name in ("torch", "python", "platform", "date", "attention"):
            assert run.option(name)
        assert run.evidence.startswith("vlmmem measure ")
        assert (run.get("resident") is not None) == (device == "cpu")
        model = find_model(run.catalogue or "")
        assert size(run, "weights") == sum(model_weights_bytes(model, run.dtype).values())
        assert size(run, "peak") > size(run, "weights") + size(run, "cache")


# What is asked


@pytest.mark.parametrize("device", ["cuda", "fake", "cpu"])
def test_the_list_is_well_asked(device: str) -> None:
    for words in commands(device, []):
        options = dict(zip(words[1::2], words[2::2], strict=True))
        width, _, height = options.get("--image-size", "").partition("x")
        asked = ask(
            words[0],
            context=int(options["--context"]),
            batch=int(options["--batch"]),
            images=int(options.get("--images", 0)),
            image_size=(int(width), int(height)) if width else None,
            layers=int(options["--layers"]) if "--layers" in options else None,
            device=options["--device"],
            dtype=options["--dtype"],
        )
        assert asked.context + asked.new_tokens <= asked.model.max_positions or words[0] == "llama-2-13b"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["measure", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("vlmmem: error: ")
    return said.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("llama-3.1-8b", "--device", "tpu"), "'tpu' is not known; one of auto, cuda, cpu, fake"),
        (("llama-3.1-8b", "--images", "1"), "has no vision tower"),
        (("opt-125m", "--context", "2048"), "a table of 2,048 positions"),
        (("gpt2", "--context", "1020", "--new-tokens", "5", "--dtype", "bf16"), "a table of 1,024 positions"),
        (("llava-1.5-7b", "--images", "4", "--context", "2000"), "a context of 2,304 or more is needed"),
        (("llama-3.1-8b", "--dtype", "q4_0"), "one of bf16, fp16, fp32 is needed"),
        (("llama-3.1-8b", "--layers", "33"), "has 32"),
        (("llama-3.1-8b", "--layers", "2"), "3 or more are needed"),
        (("gemma-3-27b", "--layers", "9"), "whose kinds repeat every 6"),
        (("gemma-3-27b", "--layers", "8"), "12 or more are needed"),
        (("bamba-9b", "--layers", "20"), "layers"),
        (("llama-3.1-8b", "--context", "0"), "'0' is no count"),
        (("no-such-model",), "no-such-model"),
        (("/no/such/config.json",), "no such config.json"),
        (("llama-3.1-8b", "--output", "/no/such/folder/run.json"), "cannot be written"),
        (("llama-3.1-8b", "--output", "/"), "cannot be written"),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str) -> None:
    assert told in refused(capsys, *arguments)


def test_a_file_of_weights_is_no_config(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    assert "a config.json is needed" in refused(capsys, str(file))


def test_a_missing_extra_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmmem.architectures.meta.find_spec", lambda _: None)
    assert "pip install 'vlmmem[transformers]'" in refused(capsys, "llama-3.1-8b", "--device", "fake")


def test_a_config_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(model_facts("llama-3.1-8b")["config"]), encoding="utf-8")
    for name in (tmp_path, tmp_path / "config.json"):
        assert ask(str(name), context=16).model.parameters == find_model("llama-3.1-8b").parameters


# Layers


def test_periods() -> None:
    assert [period(find_model(name)) for name in ("llama-2-13b", "gemma-3-4b", "qwen3-next-80b-a3b")] == [1, 6, 4]


@pytest.mark.parametrize(("name", "layers"), [("llama-3.1-70b", 8), ("gemma-3-27b", 14), ("qwen3-next-80b-a3b", 8)])
def test_a_shorter_model_has_the_same_layers(name: str, layers: int) -> None:
    whole = find_model(name)
    short = build(with_layers(model_facts(name)["config"], whole, layers))
    assert len(short.decoder.layers) == layers
    for at, layer in enumerate(short.decoder.layers):
        assert (layer.tensors, layer.caches) == (whole.decoder.layers[at].tensors, whole.decoder.layers[at].caches)
    last = short.decoder.layers[-1]
    assert (last.tensors, last.caches) == (whole.decoder.layers[-1].tensors, whole.decoder.layers[-1].caches)


def test_a_peak_outside_the_last_layers_is_not_extrapolated() -> None:
    few = {"weights": 100, "cache": 50, "peak": 300}
    _check_growth(few, {"weights": 110, "cache": 55, "peak": 315}, 0)
    for peak in (310, 320):
        with pytest.raises(InputError, match="more layers, or all of them, are needed"):
            _check_growth(few, {"weights": 110, "cache": 55, "peak": peak}, 0)
    assert extrapolated(few, {"weights": 110, "cache": 55, "peak": 315}, 2)["peak"] == 345


# A GPU, by stand-ins: what PyTorch would say


class StandIn:
    """torch.cuda of a card with 80 GiB, whose allocator has two peaks."""

    def __init__(self, *, available: bool = True) -> None:
        self.available, self.peaks, self.reserved = available, [70, 60], [75, 72]
        self.resets = 0

    def is_available(self) -> bool:
        return self.available

    def mem_get_info(self) -> tuple[int, int]:
        return (80 - 79 * (self.resets > 0), 80)

    def memory_allocated(self) -> int:
        return 26

    def max_memory_allocated(self) -> int:
        return self.peaks[self.resets - 1]

    def max_memory_reserved(self) -> int:
        return self.reserved[self.resets - 1]

    def reset_peak_memory_stats(self) -> None:
        self.resets += 1

    def synchronize(self) -> None:
        """Nothing runs."""

    empty_cache = synchronize

    def get_device_properties(self, _: int) -> SimpleNamespace:
        return SimpleNamespace(total_memory=80)

    def get_device_name(self, _: int) -> str:
        return "NVIDIA H100 80GB HBM3"


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    found: Any = ModuleType("torch")
    found.cuda, found.__version__, found.version = StandIn(), "2.13.0", SimpleNamespace(cuda="13.0")
    monkeypatch.setitem(sys.modules, "torch", found)
    return found


def test_a_gpu_tells_what_its_allocator_and_its_driver_counted(torch: Any) -> None:
    device = find_device("auto")
    assert isinstance(device, Cuda)
    found = device.built([])
    with device.passing():
        device.begin()
        found["peak"] = device.peak()
        device.begin()
        found["decode_peak"] = device.peak()
    found |= device.after()
    assert found == {
        "driver_before": 0,
        "allocated": 26,
        "peak": 70,
        "decode_peak": 60,
        "reserved": 75,
        "driver": 79,
    }
    told = device.described()
    assert (told["card"], told["card_memory"], told["cuda"]) == ("NVIDIA H100 80GB HBM3", 80, "13.0")


def test_cuda_without_a_gpu_is_one_line(torch: Any) -> None:
    torch.cuda.available = False
    with pytest.raises(InputError, match="finds no GPU; --device fake counts without a GPU"):
        find_device("cuda")
    assert find_device("auto").name == "fake"
    torch.version.cuda = None
    with pytest.raises(InputError, match="is built without CUDA"):
        find_device("cuda")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
        "OutOfMemoryError",
    ],
)
def test_out_of_memory_is_one_line(
    torch: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    error: Exception | str,
) -> None:
    torch.no_grad, torch.manual_seed = nullcontext, lambda _: None
    torch.OutOfMemoryError = type("OutOfMemoryError", (RuntimeError,), {})
    torch.device = lambda _: nullcontext()

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory") if isinstance(error, str) else error

    monkeypatch.setattr("vlmmem.architectures.meta.available", lambda: True)
    monkeypatch.setattr("vlmmem.architectures.meta.quiet", nullcontext)
    monkeypatch.setattr("vlmmem.measured.harness.passes.build", full)
    file = tmp_path / "run.json"
    said = refused(capsys, "llama-3.1-8b", "--context", "16", "--device", "cuda", "--output", str(file))
    assert "cuda: memory was not enough for llama-3.1-8b with 1 x 16 tokens" in said
    assert list(tmp_path.iterdir()) == []


# Records as files


def measurement(**changes: Any) -> Measurement:
    asked = ask("llama-2-13b", context=8192, batch=10, dtype="bf16")
    sizes = {"weights": 26_031_728_640, "buffers": 512, "inputs": 655_440, "peak": 103_295_724_112}
    sizes |= {"cache": 67_108_864_000, "decode_peak": 93_988_916_312, "cache_after": 67_117_056_000}
    told: dict[str, str | int] = {"device": "fake", "attention": "sdpa", "torch": "2.13.0", "transformers": "5.23.0"}
    return Measurement(asked, "fake", sizes | changes, 40, told | {"python": "3.11.7", "platform": "x", "date": "d"})


def test_what_the_package_says_stands_beside() -> None:
    found = {each.name: each for each in differences(measurement())}
    assert [found[name].bytes for name in ("weights", "inputs", "cache", "activations", "cache_after")] == [0] * 5
    # the rotary table's 512 bytes are no term of the package's
    assert (found["peak"].bytes, found["decode_peak"].bytes) == (-512, -512)
    planted = {each.name: each for each in differences(measurement(cache=67_108_864_000 + 819_200))}
    assert (planted["cache"].bytes, planted["activations"].bytes) == (-819_200, 819_200)


def test_a_window_is_cut_with_the_next_token(fake: dict[str, Run]) -> None:
    run = fake["fake-gemma-3-27b-1x8192-bf16"]
    asked = ask("gemma-3-27b", context=8192, dtype="bf16")
    sizes = {name: quantity.bytes for name, quantity in run.measured}
    found = {each.name: each for each in differences(Measurement(asked, "fake", sizes, 62, {}))}
    # tensors that count tokens, 8 bytes a sliding layer, are no cache of the package's
    assert -600 < found["cache"].bytes <= 0
    assert -600 < found["cache_after"].bytes <= 0
    assert found["cache"].measured > 3 * found["cache_after"].measured
    assert abs(found["peak"].share) < 0.001


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = run_of_measurement(measurement())
    file = tmp_path / "runs.json"
    write_runs(file, [run])
    (again,) = read_runs(file)
    assert again.json() == run.json()
    assert list(tmp_path.iterdir()) == [file]


def test_a_record_of_a_card_names_it() -> None:
    found = measurement()
    told = {
        **found.described,
        "device": "cuda",
        "card": "NVIDIA H200",
        "card_memory": 139 * BYTES["GiB"],
        "driver": "1",
    }
    run = run_of_measurement(Measurement(found.asked, "cuda", found.sizes, 40, told))
    assert (run.gpu, run.gpus, run.gpu_total and run.gpu_total.bytes) == ("NVIDIA H200", 1, 139 * BYTES["GiB"])
    assert run.option("driver") == "1"
    on_a_gpu = {each.name: each.said for each in differences(Measurement(found.asked, "cuda", found.sizes, 40, told))}
    assert on_a_gpu["peak"] == "engine transformers@5.23.0, prefill"


def test_the_counts_of_an_image_go_with_the_question() -> None:
    asked = ask("qwen2-vl-7b", context=4096, images=2, image_size=(1024, 768))
    assert isinstance(asked.image, ImageTokens)
    assert asked.image.grid == (54, 74)
