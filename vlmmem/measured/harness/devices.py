"""Where a model is measured: fake tensors, the CPU or a CUDA GPU, and what each of them can tell.

Fake tensors and the CPU are followed storage by storage: exact for what PyTorch's tensors hold, blind to what a kernel
holds while it runs. On a GPU PyTorch's allocator counts (torch.cuda.memory_stats: blocks of 512 bytes, workspaces of
cuBLAS included), and the driver tells what is used of the card.
"""

import os
import platform
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vlmmem.errors import InputError
from vlmmem.measured.harness.storages import LiveStorages, bytes_of, fused_attention, integers_kept

__all__ = ["DEVICES", "Cpu", "Cuda", "Device", "Fake", "find_device"]

DEVICES = ("auto", "cuda", "cpu", "fake")
"""Names of devices; auto is the GPU where PyTorch has one, else fake tensors."""


class Device:
    """A place to build and run in, and what it counts of a pass."""

    name = ""
    told = ""
    values = True
    """Whether tensors hold values."""

    def __init__(self) -> None:
        self._before: list[Any] = []
        self._live = LiveStorages(())

    @contextmanager
    def place(self) -> Iterator[None]:
        """Inside it, tensors are made on the device."""
        yield

    def built(self, tensors: Iterable[Any]) -> dict[str, int]:
        """What the device says of itself when the model and its inputs are there, in bytes."""
        self._before = list(tensors)
        return {}

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Inside it, passes run and are counted."""
        self._live = LiveStorages(self._before)
        with self._live:
            yield

    def begin(self) -> None:
        """Start to look for another peak: what is live stays live."""
        self._live.peaks.clear()

    def peak(self) -> int:
        """The most bytes since `begin`, with the model and its inputs."""
        return self._live.peak + bytes_of(self._before)

    def after(self) -> dict[str, int]:
        """What else the device says of the passes, in bytes."""
        return {}

    def described(self) -> dict[str, str | int]:
        """The machine, for the record."""
        return {"device": self.name}


class Fake(Device):
    """PyTorch's FakeTensorMode: tensors of a shape and a dtype without memory, so that any shape runs anywhere."""

    name = "fake"
    told = "fake tensors: storages of PyTorch's tensors, no kernel's own memory, no allocator"
    values = False

    @contextmanager
    def place(self) -> Iterator[None]:
        """Inside it, tensors are fake; small ones of integers keep their values."""
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode(allow_non_fake_inputs=True), integers_kept(), fused_attention():
            yield


class Cpu(Device):
    """Real tensors in the host's memory; how much the process has resident is told beside them."""

    name = "cpu"
    told = "CPU: storages of PyTorch's tensors; resident is the process with Python and PyTorch"

    def after(self) -> dict[str, int]:
        """The most bytes that the process had resident, libraries and Python included."""
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"resident": most if sys.platform == "darwin" else most * 1024}

    def described(self) -> dict[str, str | int]:
        """The processor and the host's memory."""
        return {"device": self.name, "processor": _processor(), "cores": os.cpu_count() or 1, "host_memory": _host()}


class Cuda(Device):
    """A GPU of PyTorch's CUDA."""

    name = "cuda"
    told = "GPU: PyTorch's caching allocator, and the driver's used memory of the whole card"

    def __init__(self) -> None:
        super().__init__()
        import torch

        self.cuda: Any = torch.cuda
        self._used_before = self._used()
        self._most_reserved = 0

    def _used(self) -> int:
        free, total = self.cuda.mem_get_info()
        return int(total - free)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Inside it, tensors are made on the GPU."""
        import torch

        with ExitStack() as stack:
            stack.enter_context(torch.device("cuda"))
            yield

    def built(self, tensors: Iterable[Any]) -> dict[str, int]:
        """What the driver had given out before the model, and the allocator for it."""
        import gc

        gc.collect()
        self.cuda.empty_cache()
        self._before = list(tensors)
        self._most_reserved = 0
        return {"driver_before": self._used_before, "allocated": int(self.cuda.memory_allocated())}

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Inside it, the allocator counts; nothing follows the operations."""
        self.cuda.synchronize()
        yield
        self.cuda.synchronize()

    def begin(self) -> None:
        """Start to look for another peak."""
        self.cuda.synchronize()
        self._most_reserved = max(self._most_reserved, self.cuda.max_memory_reserved())
        self.cuda.reset_peak_memory_stats()

    def peak(self) -> int:
        """The most bytes that the allocator had handed out since `begin`."""
        self.cuda.synchronize()
        self._most_reserved = max(self._most_reserved, self.cuda.max_memory_reserved())
        return int(self.cuda.max_memory_allocated())

    def after(self) -> dict[str, int]:
        """What the allocator had taken of the GPU at most, and what the driver says is used after the passes."""
        return {"reserved": int(self._most_reserved), "driver": self._used()}

    def described(self) -> dict[str, str | int]:
        """The card, its driver and CUDA."""
        import torch

        card = self.cuda.get_device_properties(0)
        return {
            "device": self.name,
            "card": str(self.cuda.get_device_name(0)),
            "card_memory": int(card.total_memory),
            "driver": _driver(),
            "cuda": str(torch.version.cuda),
            "allocator": os.environ.get("PYTORCH_CUDA_ALLOC_CONF", os.environ.get("PYTORCH_ALLOC_CONF", "default")),
        }


def find_device(name: str) -> Device:
    """The device of a name, ready.

    Raises:
        InputError: there is no such device, or PyTorch finds no GPU.

    >>> find_device("tpu")
    Traceback (most recent call last):
    vlmmem.errors.InputError: device: 'tpu' is not known; one of auto, cuda, cpu, fake is needed
    """
    if name not in DEVICES:
        raise InputError(f"device: {name[:40]!r} is not known; one of {', '.join(DEVICES)} is needed")
    if name in ("cpu", "fake"):
        return Cpu() if name == "cpu" else Fake()
    import torch

    if torch.cuda.is_available():
        return Cuda()
    if name == "auto":
        return Fake()
    built = "is built without CUDA" if torch.version.cuda is None else "finds no GPU"
    raise InputError(f"device: PyTorch {torch.__version__} {built}; --device fake counts without a GPU")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def _host() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _driver() -> str:
    import subprocess

    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return (done.stdout.strip().splitlines() or ["unknown"])[0][:40]
