"""The documents' memory profiler, on counters that behave as PyTorch's do: what it prints, and what it misses."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import vlmmem
from vlmmem.documented import load_and_infer, profile_gpu_memory
from vlmmem.errors import InputError

PHI = vlmmem.weights_bytes(vlmmem.find_model("phi-2").parameters)


class Cuda:
    """`torch.cuda`'s counters, after torch/cuda/memory.py: a reset sets the peak to what is allocated."""

    def __init__(self) -> None:
        self.allocated = self.peak = self.reserved = 0
        self.waited = 0
        self.there = True

    def is_available(self) -> bool:
        return self.there

    def allocate(self, size: int) -> None:
        self.allocated += size
        self.peak = max(self.peak, self.allocated)
        self.reserved = max(self.reserved, self.allocated)

    def free(self, size: int) -> None:
        self.allocated -= size

    def reset_peak_memory_stats(self) -> None:
        self.peak = self.allocated

    def synchronize(self) -> None:
        self.waited += 1

    def memory_allocated(self) -> int:
        return self.allocated

    def max_memory_allocated(self) -> int:
        return self.peak

    def memory_summary(self) -> str:
        return f"| Allocated memory | {self.allocated // 2**20} MiB |"


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    counters = Cuda()
    torch: Any = ModuleType("torch")
    torch.cuda, torch.float16 = counters, "float16"
    monkeypatch.setitem(sys.modules, "torch", torch)
    return counters


def shown(call: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> list[str]:
    call()
    return capsys.readouterr().out.splitlines()


def test_it_prints_the_documents_lines_and_gives_the_result(cuda: Cuda, capsys: pytest.CaptureFixture[str]) -> None:
    def keep(size: int, *, times: int) -> str:
        cuda.allocate(size * times)
        return "kept"

    assert profile_gpu_memory(keep, 10**9, times=3) == "kept"
    assert capsys.readouterr().out.splitlines() == [
        "Memory increase: 3.000 GB",
        "Peak memory: 3.000 GB",
        "",
        "| Allocated memory | 2861 MiB |",
    ]
    assert cuda.waited == 2


def test_a_gigabyte_is_decimal(cuda: Cuda, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(lambda: profile_gpu_memory(cuda.allocate, 2**30), capsys)
    assert lines[:2] == ["Memory increase: 1.074 GB", "Peak memory: 1.074 GB"]


def test_what_is_freed_inside_is_no_increase(cuda: Cuda, capsys: pytest.CaptureFixture[str]) -> None:
    def load_and_free() -> None:
        cuda.allocate(PHI)
        cuda.free(PHI)

    lines = shown(lambda: profile_gpu_memory(load_and_free), capsys)
    assert lines[:2] == ["Memory increase: 0.000 GB", "Peak memory: 5.559 GB"]


def test_the_peak_contains_what_was_there_before(cuda: Cuda, capsys: pytest.CaptureFixture[str]) -> None:
    cuda.allocate(26 * 10**9)
    lines = shown(lambda: profile_gpu_memory(cuda.allocate, 10**9), capsys)
    assert lines[:2] == ["Memory increase: 1.000 GB", "Peak memory: 27.000 GB"]


def test_an_earlier_peak_is_forgotten_and_the_baseline_is_not(cuda: Cuda, capsys: pytest.CaptureFixture[str]) -> None:
    cuda.allocate(50 * 10**9)
    cuda.free(40 * 10**9)
    lines = shown(lambda: profile_gpu_memory(cuda.allocate, 0), capsys)
    assert lines[:2] == ["Memory increase: 0.000 GB", "Peak memory: 10.000 GB"]
    assert cuda.reserved == 50 * 10**9  # what the GPU still lacks, which no line says


def test_the_example_is_called_as_printed(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def pipeline(task: str, **arguments: Any) -> Callable[..., list[dict[str, str]]]:
        def generate(text: str, **given: Any) -> list[dict[str, str]]:
            asked.update(text=text, **given)
            return [{"generated_text": text}]

        asked.update(task=task, **arguments)
        return generate

    transformers: Any = ModuleType("transformers")
    transformers.pipeline = pipeline
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    assert load_and_infer() == [{"generated_text": "GPU memory management is"}]
    assert asked == {
        "task": "text-generation",
        "model": "microsoft/phi-2",
        "torch_dtype": "float16",
        "device_map": "auto",
        "text": "GPU memory management is",
        "max_new_tokens": 50,
    }


def test_without_a_gpu_one_line_says_so(cuda: Cuda) -> None:
    cuda.there = False
    with pytest.raises(InputError, match=r"^profile_gpu_memory: PyTorch sees no CUDA GPU; .* reads a GPU's counters$"):
        profile_gpu_memory(print)


def test_without_the_libraries_one_line_says_which(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"^load_and_infer: transformers is not installed; pip install transformers"):
        load_and_infer()
    monkeypatch.setitem(sys.modules, "torch", None)
    for call in (load_and_infer, lambda: profile_gpu_memory(print)):
        with pytest.raises(InputError, match=r"^PyTorch is not installed; pip install torch$"):
            call()
