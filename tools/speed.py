"""How long the project's own commands take, as data for the status page: ``make speed`` writes book/speed.json.

Whole commands are timed once, as a user would wait for them. The two promises about start-up are ratios, measured side
by side with a bare Python in one run and compared by their medians, because machines differ and are noisy.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "book" / "speed.json"
TARGETS = ("check", "book", "test", "mutants", "oracle")
STARTS = {
    "import vlmmem": ("-c", "import vlmmem"),
    "vlmmem figure ID": ("-m", "vlmmem.cli", "figure", "footprint:13b-total"),
    "vlmmem estimate config.json": ("-m", "vlmmem.cli", "estimate", "{folder}/config.json"),
    "vlmmem estimate INDEX (a checkpoint of 810 GB)": (
        *("-m", "vlmmem.cli", "estimate"),
        "{folder}/model.safetensors.index.json",
    ),
}
MODEL = "llama-3.1-405b"
ROUNDS = 15


def cpu_seconds(command: Sequence[str]) -> float:
    """Processor seconds, user and system, of one run of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)  # in microseconds; os.times counts in hundredths
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def write_model(folder: Path) -> None:
    """The config and the index of a large checkpoint, as the hub has them."""
    from vlmmem.catalog import find_model, model_facts

    model = find_model(MODEL)
    (folder / "config.json").write_text(json.dumps(model_facts(MODEL)["config"]), encoding="utf-8")
    names = {name: "model-00001-of-00191.safetensors" for name, _ in model.tensors()}
    index = {"metadata": {"total_size": 2 * model.parameters}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def ratios(rounds: int = ROUNDS) -> dict[str, float]:
    """How many bare starts of Python each short command takes; the runs alternate."""
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        return _ratios(folder, rounds)


def _ratios(folder: str, rounds: int) -> dict[str, float]:
    runs = {"bare": [sys.executable, "-c", "pass"]}
    runs |= {name: [sys.executable, *(arg.format(folder=folder) for arg in args)] for name, args in STARTS.items()}
    for command in runs.values():
        cpu_seconds(command)  # compiled and in memory from here on
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, command in runs.items():
            taken[name].append(cpu_seconds(command))
    bare = statistics.median(taken["bare"])
    return {name: round(statistics.median(taken[name]) / bare, 2) for name in STARTS}


def seconds(target: str) -> float:
    """Wall seconds of ``make target``."""
    began = time.monotonic()
    subprocess.run(["make", "--silent", target], check=True, cwd=ROOT)
    return round(time.monotonic() - began, 1)


def main() -> int:
    """Measure the named targets, or all of them, and write the result."""
    targets = sys.argv[1:] or list(TARGETS)
    unknown = [name for name in targets if name not in TARGETS]
    if unknown:
        print(f"speed: error: {unknown[0]!r} is not measured; one of {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    subprocess.run(["make", "--silent", "install"], check=True, cwd=ROOT)
    result = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "ratios": ratios(),
        "seconds": {name: seconds(name) for name in targets},
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(RESULT.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
