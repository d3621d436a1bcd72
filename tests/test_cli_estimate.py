"""vlmmem estimate: what users type, what they read, and the one line that bad input gets."""

import io
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.speed import cpu_seconds
from vlmmem import Parallelism, Workload, estimate
from vlmmem.catalog import find_model, model_facts
from vlmmem.cli import main
from vlmmem.cli.estimates import told
from vlmmem.images import image_tokens
from vlmmem.memory import kv_cache_bytes

FIELDS = {
    "model",
    "kv_bytes_per_token",
    "state_bytes_per_sequence",
    "per_gpu",
    "total",
    "image_tokens",
    "engine",
    "gpu",
    "fits",
    "terms",
}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(["estimate", *arguments])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else -1
    said = capsys.readouterr()
    return code, said.out, said.err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    got, out, err = run(capsys, *arguments, "--json")
    assert (got, err) == (code, "")
    found: dict[str, Any] = json.loads(out)
    return found


def write_config(folder: Path, name: str) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(model_facts(name)["config"]), encoding="utf-8")
    return path


def test_the_json_is_the_interface(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "llama-3.1-8b")
    assert set(found) >= FIELDS
    assert found["model"]["parameters"] == 8_030_261_248
    assert (found["context"], found["batch"], found["images"]) == (4096, 1, 0)
    assert found["per_gpu"]["kv_cache"] == 4096 * 131_072
    assert found["fits"] is None
    assert found["defaults"] == [
        "context 4,096",
        "batch 1",
        "tp 1",
        "pp 1",
        "images 0",
        "weights bf16",
        "KV cache bf16",
    ]


@pytest.mark.parametrize("name", ["llama-2-13b", "qwen3-8b", "gemma-3-4b", "deepseek-v3", "gpt-oss-20b", "qwen2-vl-7b"])
def test_a_config_file_says_what_the_catalogue_says(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_name = as_json(capsys, name, "--context", "4000")
    for path in (write_config(tmp_path, name), tmp_path):
        by_file = as_json(capsys, str(path), "--context", "4000")
        assert by_file["model"]["parameters"] == by_name["model"]["parameters"]
        for field in ("kv_bytes_per_token", "state_bytes_per_sequence", "per_gpu", "total"):
            assert by_file[field] == by_name[field]


def test_infinity_may_stand_where_nobody_asks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.json"
    config = model_facts("nemotron-h-8b")["config"]
    path.write_text(json.dumps({**config, "time_step_limit": [0.0, float("inf")]}), encoding="utf-8")
    assert as_json(capsys, str(path))["model"]["parameters"] == find_model("nemotron-h-8b").parameters
    path.write_text(json.dumps({**config, "hidden_size": float("nan")}), encoding="utf-8")
    code, _, err = run(capsys, str(path))
    assert (code, err) == (
        2,
        "vlmmem: error: config.json: 'hidden_size' is NaN; a positive integer is needed\n",
    )


def test_the_command_says_what_the_function_says(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--context", "8192", "--batch", "10", "--tp", "2", "--weights", "fp8", "--kv-dtype", "fp8")
    found = as_json(capsys, "llama-2-13b", *options, "--gpu", "h100-80gb")
    footprint = estimate("llama-2-13b", Workload(8192, 10), Parallelism(2), "h100-80gb", weights="fp8", kv_dtype="fp8")
    assert {field: found[field] for field in footprint.json()} == footprint.json()


def test_a_gpu_that_is_too_small_is_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert as_json(capsys, "llama-3.1-8b", "--gpu", "t4", code=1)["fits"] is False
    code, out, _ = run(capsys, "llama-3.1-8b", "--gpu", "t4")
    assert code == 1
    assert re.search(r"^does not fit NVIDIA T4: [\d.]+ GB \([\d.]+ GiB\) too much$", out, re.MULTILINE)
    assert run(capsys, "llama-3.1-8b", "--gpu", "h200")[0] == 0


def test_the_table_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    footprint = estimate("gemma-3-4b", Workload(8192, 2))
    lines = told(footprint, []).splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("term "))
    rows = lines[start + 1 : start + 1 + len(footprint.terms)]
    assert [row.split()[0] for row in rows] == [term.name for term in footprint.terms]
    shares = [float(re.search(r"([\d.]+)%", row)[1]) for row in rows]  # type: ignore[index]
    assert sum(shares) == pytest.approx(100, abs=0.05 * len(rows))
    for row, term in zip(rows, footprint.terms, strict=True):
        assert f"  {term.basis}" in row
        assert row.endswith(term.formula)


def test_images_count_in_the_context(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "qwen2-vl-7b", "--images", "2", "--image-size", "1024x768", "--context", "8192")
    tokens = 2 * image_tokens("qwen2-vl-7b", 1024, 768).tokens
    assert found["image_tokens"] == tokens
    assert found["per_gpu"]["kv_cache"] == kv_cache_bytes("qwen2-vl-7b", 8192)
    assert found["per_gpu"]["vision"] > 0
    # a context of the images' tokens where nobody says one and the usual one is too short
    large = as_json(capsys, "qwen2-vl-7b", "--images", "1", "--image-size", "4032x3024")
    assert large["context"] == large["image_tokens"] > 4096
    code, out, err = run(capsys, "qwen2-vl-7b", "--images", "1", "--image-size", "4032x3024", "--context", "4096")
    assert (code, out) == (2, "")
    assert err.startswith("vlmmem: error: images: 1 of 15,")


def test_cross_attention_keeps_images_apart(capsys: pytest.CaptureFixture[str]) -> None:
    none, two = (as_json(capsys, "llama-3.2-11b-vision", "--images", count) for count in ("0", "2"))
    states = 8 * 2 * 8 * 128 * 2 * 4 * 1601  # eight layers, keys and values of eight heads, four tiles of 1,601
    assert none["state_bytes_per_sequence"] == 0
    assert two["state_bytes_per_sequence"] == 2 * states
    assert two["per_gpu"]["kv_cache"] - none["per_gpu"]["kv_cache"] == 2 * states
    assert two["image_tokens"] == 2


def test_colour_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    footprint = estimate("phi-2", Workload(1), gpu="t4")
    assert "\033" not in told(footprint, [])
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert "\033[32mfits" in told(footprint, [])
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in told(footprint, [])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["llama-9"], "model 'llama-9' is not in the catalogue; near are "),
        (["/no/such/config.json"], "/no/such/config.json: no such file"),
        (["llama-2-13b", "--tp", "3"], "tp: 3 GPUs cannot split 40 heads"),
        (["llama-2-13b", "--pp", "41"], "pp: 41 stages cannot share 40 layers"),
        (["llama-2-13b", "--context", "0"], "argument --context: '0' is no count; "),
        (["llama-2-13b", "--images", "1"], "images: "),
        (["llama-2-13b", "--image-size", "0x5"], "argument --image-size: '0x5' is no size; "),
        (["llama-2-13b", "--image-size", "axb"], "argument --image-size: 'axb' is no size; "),
        (["llama-2-13b", "--image-size", "9999999x1"], "argument --image-size: '9999999x1' is no size; sides from 1 "),
        (["llama-2-13b", "--weights", "fp3"], "format 'fp3' is not in the catalogue"),
        (["llama-2-13b", "--kv-dtype", "awq-4bit"], "kv_dtype: a KV cache is not kept in awq-4bit"),
        (["llama-2-13b", "--gpu", "h300"], "GPU 'h300' is not in the catalogue"),
        ([], "the following arguments are required: MODEL; "),
    ],
)
def test_bad_input_gets_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], line: str) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"vlmmem: error: {line}")


@pytest.mark.slow
def test_starting_up_is_quick(tmp_path: Path) -> None:
    config = write_config(tmp_path, "llama-3.1-8b")
    bare, ours = [], []
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "vlmmem.cli", "estimate", str(config)]
    subprocess.run(command, check=True, capture_output=True, env=environment)  # compiled from here on
    for _ in range(9):
        bare.append(cpu_seconds([sys.executable, "-c", "pass"]))
        ours.append(cpu_seconds(command))
    assert statistics.median(ours) < 5 * statistics.median(bare)


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    config = write_config(tmp_path, "llama-3.1-8b")
    heavy = ("numpy", "pandas", "torch", "transformers", "huggingface_hub", "gguf", "safetensors", "dataclasses")
    code = (
        "import sys; from vlmmem.cli import main; main(['estimate', sys.argv[1]]);"
        f"sys.exit(any(name in sys.modules for name in {heavy!r}))"
    )
    assert subprocess.run([sys.executable, "-c", code, config], check=False, capture_output=True).returncode == 0


@pytest.mark.slow
def test_the_index_of_a_large_checkpoint_is_quick(tmp_path: Path) -> None:
    model = find_model("llama-3.1-405b")
    index = {
        "metadata": {"total_size": 2 * model.parameters},
        "weight_map": {name: "model-00001-of-00191.safetensors" for name, _ in model.tensors()},
    }
    write_config(tmp_path, "llama-3.1-405b")
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index), encoding="utf-8")
    command = [sys.executable, "-m", "vlmmem.cli", "estimate", str(path), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["per_gpu"]["weights"] == 2 * model.parameters
    bare, ours = [], []
    for _ in range(5):
        bare.append(cpu_seconds([sys.executable, "-c", "pass"]))
        ours.append(cpu_seconds(command))
    assert statistics.median(ours) < 10 * statistics.median(bare)
