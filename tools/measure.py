"""The whole list of measurements in one command; writes files of runs.

    python tools/measure.py              on a GPU where PyTorch has one, under fake tensors, and on the CPU
    python tools/measure.py --on fake    one of cuda, fake, cpu; names of models after it choose among them
    python tools/measure.py --list       print the commands and run nothing

Each measurement is a command of its own (`vlmmem measure`), in a process of its own, so that one that runs out of
memory or out of time stops nothing. What was measured stands in vlmmem/measured/runs/harness_DEVICE.json; records of
that file that are not measured again stay. It runs in .venv-oracle (tools/oracle.py makes it); on a machine with a GPU
that environment needs PyTorch's CUDA build: without TORCH_INDEX it is what pip brings.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools.oracle import environment  # noqa: E402 (the checkout comes first)
from vlmmem.errors import InputError  # noqa: E402
from vlmmem.measured.records import read_runs, write_runs  # noqa: E402
from vlmmem.measured.run import Run  # noqa: E402
from vlmmem.measured.split import split_of  # noqa: E402
from vlmmem.record import replace  # noqa: E402

RUNS = ROOT / "vlmmem" / "measured" / "runs"
LONGEST = 1800
"""Seconds of one measurement."""

LLAVA, QWEN, GEMMA = "336x336", "1024x768", "896x896"

# Model, context, batch, images of a sequence, their size, layers to build (0: all). The first is the documents' case.
CASES: tuple[tuple[str, int, int, int, str, int], ...] = (
    ("llama-2-13b", 8192, 10, 0, "", 0),
    ("llama-2-13b", 4096, 1, 0, "", 0),
    ("llama-3.1-8b", 4096, 1, 0, "", 0),
    ("llama-3.1-8b", 32768, 1, 0, "", 0),
    ("llama-3.1-8b", 131071, 1, 0, "", 0),
    ("llama-3.1-70b", 8192, 4, 0, "", 8),
    ("llama-3.1-70b", 8192, 4, 0, "", 0),
    ("llava-1.5-13b", 2048, 1, 1, LLAVA, 0),
    ("llava-1.5-13b", 4095, 1, 4, LLAVA, 0),
    ("llava-1.5-13b", 2048, 8, 1, LLAVA, 0),
    ("qwen2-vl-7b", 4096, 1, 1, QWEN, 0),
    ("qwen2-vl-7b", 8192, 1, 4, QWEN, 0),
    ("qwen2-vl-7b", 4096, 4, 1, QWEN, 0),
    ("gemma-3-4b", 4096, 1, 0, "", 0),
    ("gemma-3-4b", 4096, 1, 1, GEMMA, 0),
    ("gemma-3-4b", 32768, 1, 4, GEMMA, 0),
    ("gemma-3-27b", 8192, 1, 0, "", 0),
    ("gemma-3-27b", 8192, 1, 1, GEMMA, 0),
    ("qwen3-next-80b-a3b", 4096, 1, 0, "", 8),
    ("bamba-9b", 2048, 1, 0, "", 0),
)
NOT_ON_A_GPU = {("llama-3.1-70b", 0)}
"""Weights of 141 GB: fake tensors alone hold them whole."""

# Small published models, which run on the CPU in seconds: model, context, batch, images and their size, format.
SMALL: tuple[tuple[str, int, int, int, str, str], ...] = (
    ("smollm2-135m", 512, 2, 0, "", "bf16"),
    ("gpt2", 512, 2, 0, "", "fp32"),
    ("opt-125m", 512, 2, 0, "", "bf16"),
    ("qwen3-0.6b", 512, 1, 0, "", "bf16"),
    ("gemma-3-1b", 768, 1, 0, "", "bf16"),
    ("lfm2-350m", 512, 1, 0, "", "bf16"),
    ("falcon-h1-0.5b", 256, 1, 0, "", "bf16"),
    ("internvl3-1b", 512, 1, 1, "448x448", "bf16"),
    ("qwen2-vl-2b", 256, 1, 2, "224x224", "bf16"),
)


# As the published runs call the families, by which the split leaves some out; elsewhere the model_type's name.
FAMILIES = {
    "llama-2-13b": "llama2",
    "llama-3.1-8b": "llama3",
    "llama-3.1-70b": "llama3",
    "qwen2-vl-2b": "qwen2-vl",
    "qwen2-vl-7b": "qwen2-vl",
    "gemma-3-1b": "gemma3",
    "qwen3-next-80b-a3b": "qwen3-next-hybrid-moe",
}


def of_the_project(run: Run) -> Run:
    """A run as the project keeps it: its family named as elsewhere, and the split by its rule."""
    family = FAMILIES.get(run.catalogue or "", run.family)
    return replace(run, family=family, split=split_of(run.source, family))


def commands(device: str, models: list[str]) -> Iterator[list[str]]:
    """The arguments of `vlmmem measure` for every case of a device."""
    if device == "cpu":
        for model, context, batch, images, size, dtype in SMALL:
            if not models or model in models:
                yield _words(model, context, batch, images, size, 0, device, dtype)
        return
    for model, context, batch, images, size, layers in CASES:
        if (models and model not in models) or (device == "cuda" and (model, layers) in NOT_ON_A_GPU):
            continue
        yield _words(model, context, batch, images, size, layers, device, "bf16")


def _words(
    model: str, context: int, batch: int, images: int, size: str, layers: int, device: str, dtype: str
) -> list[str]:
    found = [model, "--context", str(context), "--batch", str(batch), "--device", device, "--dtype", dtype]
    found += ["--images", str(images), "--image-size", size] if images else []
    return [*found, "--layers", str(layers)] if layers else found


def measured(python: str, words: list[str], folder: Path) -> Run | str:
    """The run of one command, or the line that it says instead."""
    file = folder / "run.json"
    file.unlink(missing_ok=True)
    command = [python, "-m", "vlmmem.cli", "measure", *words, "--output", str(file)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT, env=environ, timeout=LONGEST
        )
    except subprocess.TimeoutExpired:
        return f"more than {LONGEST} s"
    if done.returncode or not file.exists():
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return of_the_project(read_runs(file)[0])


def record(device: str, models: list[str], out: Path) -> int:
    """Measure every case of a device and put the runs into its file; 1 where a case says an error."""
    before = {run.id: run for run in read_runs(out)} if out.exists() else {}
    code = 0
    with tempfile.TemporaryDirectory() as folder:
        for words in commands(device, models):
            began = time.monotonic()
            found = measured(sys.executable, words, Path(folder))
            taken = f"{time.monotonic() - began:.0f} s"
            if isinstance(found, str):
                print(f"{' '.join(words)}: {found} ({taken})", file=sys.stderr)
                code = 1
                continue
            before[found.id] = found
            peak = found.get("peak")
            print(f"{found.id}: peak {peak.bytes:,} B ({taken})" if peak else found.id, flush=True)
            write_runs(out, list(before.values()))
    return code


def main() -> int:
    """Run the list in the oracle's environment."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help="only these models")
    parser.add_argument(
        "--on", choices=("cuda", "fake", "cpu"), help="one device (a GPU where there is one, fake, cpu)"
    )
    parser.add_argument("--list", action="store_true", help="print the commands and run nothing")
    options = parser.parse_args()
    if options.list:
        devices = (options.on,) if options.on else ("cuda", "fake", "cpu")
        every = (words for device in devices for words in commands(device, options.models))
        print("\n".join(" ".join(("vlmmem measure", *words)) for words in every))
        return 0
    if importlib.util.find_spec("torch") is None:
        return subprocess.run([environment(), __file__, *sys.argv[1:]], check=False).returncode
    import torch

    gpu = torch.cuda.is_available()
    devices = (options.on,) if options.on else (*(("cuda",) if gpu else ()), "fake", "cpu")
    if not gpu and options.on in (None, "cuda"):
        print("PyTorch finds no GPU here: the list for it is left out", file=sys.stderr)
        if options.on:
            return 2
    try:
        return max(record(device, options.models, RUNS / f"harness_{device}.json") for device in devices)
    except InputError as error:
        print(f"measure: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
