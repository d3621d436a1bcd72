"""vLLM's weights, profile peak, non-torch memory and graphs against digits that its logs print.

The digits are those of public logs and tables, each named by its run in vlmmem/measured/runs; runs that were left out
choose no constant and appear in no test that pins a rule.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tools import vllm_constants
from vlmmem import find_gpu, find_model
from vlmmem.catalog import find_format
from vlmmem.engines.allocator import allocated_bytes
from vlmmem.engines.releases import Release, parse_version
from vlmmem.engines.settings import Settings
from vlmmem.engines.vllm import profile, runtime, weights
from vlmmem.measured import Run, runs

GIB = 2**30
H100 = find_gpu("h100-80gb")
CONSTANTS = Path(profile.__file__).parent / "constants.json"


def release(version: str) -> Release:
    return Release(version, parse_version(version))


def study(context: int = 8192, **more: object) -> Settings:
    """How the study started vLLM 0.19 on H100s."""
    settings = {"gpu": H100, "sequences": 1024, "batch_tokens": 8192, "utilization": 0.95, "images": 1, **more}
    return Settings(context, **settings)  # type: ignore[arg-type]


def printed(name: str, quantity: str) -> tuple[int, int]:
    """A printed figure in bytes, and half of its last digit."""
    found = dict(next(run for run in runs() if run.id == name).measured)[quantity]
    return found.bytes, found.rounding


STUDY = [
    ("h100-llama-3.1-8b-instruct", "llama-3.1-8b", {}),
    ("h100-llama-3.1-8b-instruct-fp8", "llama-3.1-8b", {"weights": find_format("fp8")}),
    ("h100-llama-3.1-8b-instruct-float32", "llama-3.1-8b", {"options": (("dtype", "float32"),)}),
    ("h100-llama-3.1-8b-instruct-tp2", "llama-3.1-8b", {"tp": 2}),
    ("h100-llama-3.1-8b-instruct-tp4", "llama-3.1-8b", {"tp": 4}),
    ("h100-llama-3.1-8b-instruct-pp2", "llama-3.1-8b", {"pp": 2}),
    ("h100-llama-3.1-8b-instruct-pp4", "llama-3.1-8b", {"pp": 4}),
    ("h100-phi-4", "phi-4", {}),
    ("h100-gemma-2-9b-it", "gemma-2-9b", {}),
    ("h100-gemma-3-12b-it", "gemma-3-12b", {}),
    ("h100-mistral-small-3.1-24b-instruct-2503", "mistral-small-3.1-24b", {}),
    ("h100-mixtral-8x7b-instruct-v0.1-tp2", "mixtral-8x7b", {"tp": 2}),
    ("h100-qwen3-30b-a3b", "qwen3-30b-a3b", {}),
    ("h100-deepseek-v2-lite-chat", "deepseek-v2-lite", {}),
    (
        "h100-llama-3.3-70b-instruct-fp8-dynamic-tp2",
        "llama-3.3-70b",
        {"tp": 2, "weights": find_format("fp8")},
    ),
]


@pytest.mark.parametrize(("name", "model", "more"), STUDY)
def test_weights_of_the_study(name: str, model: str, more: dict[str, Any]) -> None:
    said, rounding = printed(name, "weights")
    terms = weights.loaded_weights_bytes(find_model(model), release("0.19"), study(**more))
    assert sum(term.bytes for term in terms) == pytest.approx(said, rel=0.0006, abs=rounding)


@pytest.mark.parametrize(("name", "model", "more"), STUDY)
def test_peak_of_the_study(name: str, model: str, more: dict[str, Any]) -> None:
    said, rounding = printed(name, "activation_peak")
    term = profile.activation_peak(find_model(model), release("0.19"), study(**more))
    assert term.bytes == pytest.approx(said, rel=0.004, abs=rounding)


SORTED = [
    ("llmd-h100-llama31-8b", "llama-3.1-8b", {}),
    ("llmd-h100-qwen3-0.6b", "qwen3-0.6b", {}),
    ("llmd-h100-qwen3-32b-tp2", "qwen3-32b", {"tp": 2}),
    ("llmd-h100-gpt-oss-120b", "gpt-oss-120b", {}),
]


@pytest.mark.parametrize(("name", "model", "more"), SORTED)
def test_run_before_the_triton_sampler(name: str, model: str, more: dict[str, Any]) -> None:
    settings = study(16000, **more)
    term = profile.activation_peak(find_model(model), release("0.11"), settings)
    assert term.bytes == pytest.approx(printed(name, "activation_peak")[0], rel=0.003)
    assert term.basis == "measured"
    terms = weights.loaded_weights_bytes(find_model(model), release("0.11"), settings)
    assert sum(each.bytes for each in terms) == pytest.approx(printed(name, "weights")[0], rel=0.001)


def test_v0_on_a_small_card() -> None:
    settings = Settings(
        1024,
        find_gpu("rtx-4090"),
        sequences=224,
        batch_tokens=1024,
        weights=find_format("nf4-double-quant"),
        options=(("max_lora_rank", 32), ("VLLM_USE_V1", 0)),
    )
    model, old = find_model("mistral-7b-v0.3"), release("0.8.5")
    said, rounding = printed("unsloth-mistral7b-v03-bnb4-4090", "activation_peak")
    assert profile.activation_peak(model, old, settings).bytes == pytest.approx(said, abs=rounding)
    said, _ = printed("unsloth-mistral7b-v03-bnb4-4090", "weights")
    assert sum(term.bytes for term in weights.loaded_weights_bytes(model, old, settings)) == pytest.approx(
        said, rel=0.004
    )


def test_rotary_tables_are_whole_on_every_rank() -> None:
    gemma, llama = find_model("gemma-3-12b"), find_model("llama-3.1-8b")
    tables = weights.rotary_tables(gemma, release("0.19"), study(tp=4))
    assert [table.bytes for table in tables] == [131072 * 256 * 2, 8 * 131072 * 256 * 2]
    assert sum(table.bytes for table in weights.rotary_tables(llama, release("0.19"), study(tp=8))) == 32 * 2**20
    assert weights.rotary_tables(find_model("gpt2"), release("0.19"), study(1024)) == ()


@pytest.mark.parametrize("term", ["weights:rotary", "weights:rounding"])
def test_a_planted_fault_in_the_weights_shows(term: str) -> None:
    """Without the tables, or without what segments leave unused, the digits of a log are missed."""
    name, model = ("h100-gemma-3-12b-it", "gemma-3-12b") if "rotary" in term else ("h100-phi-4", "phi-4")
    terms = weights.loaded_weights_bytes(find_model(model), release("0.19"), study())
    kept = sum(each.bytes for each in terms if each.name != term)
    said, rounding = printed(name, "weights")
    assert kept != pytest.approx(said, rel=0.0006, abs=rounding)


def test_a_planted_fault_in_the_peak_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the dummy images' features, Gemma 3's peak misses the log."""
    monkeypatch.setattr(profile, "_features", lambda *_: 0)
    said, rounding = printed("h100-gemma-3-12b-it", "activation_peak")
    assert profile.activation_peak(find_model("gemma-3-12b"), release("0.19"), study()).bytes != pytest.approx(
        said, rel=0.004, abs=rounding
    )


def test_segments_of_the_allocator() -> None:
    mib = 2**20
    assert allocated_bytes([175 * mib]) == 176 * mib
    # one MiB and a half is cut off, and serves the next
    assert allocated_bytes([24 * mib + mib // 2, mib + mib // 4]) == 26 * mib
    assert allocated_bytes([1, 513]) == 512 + 1024


def test_logits_are_not_split() -> None:
    model = find_model("llama-3.1-8b")
    peaks = [profile.activation_peak(model, release("0.19"), study(tp=tp)) for tp in (1, 2, 4, 8)]
    assert len({peak.bytes for peak in peaks}) == 1
    assert peaks[0].name == "activations:sampler"
    first = profile.activation_peak(model, release("0.19"), study(pp=2, options=(("stage", 0),)))
    assert first.name == "activations:layers"
    assert first.bytes < peaks[0].bytes


def test_dummy_images() -> None:
    def seen(model: str, version: str = "0.19", **more: Any) -> tuple[int, int, int] | None:
        found = profile.largest_images(find_model(model), release(version), study(**more))
        return None if found is None else (found.count, found.each.tokens, found.budget)

    assert seen("gemma-3-12b") == (32, 256, 8192)
    assert seen("mistral-small-3.1-24b") == (2, 3025, 8192)
    assert seen("qwen2.5-vl-7b", context=32768, batch_tokens=2048) == (1, 16384, 16384)
    assert seen("gemma-3-12b", images=0) is None
    assert seen("llama-3.1-8b") is None
    # 0.8 rounded the number of images up
    assert seen("mistral-small-3.1-24b", "0.8.5") == (3, 3025, 8192)


def test_second_runner_keeps_no_float32_logits() -> None:
    model = find_model("llama-3.1-8b")
    old, new = (profile.moments(model, release(version), study())[-1].bytes for version in ("0.22", "0.24"))
    assert new < old / 3


def test_runtime() -> None:
    one, two = (runtime.non_torch(release("0.19"), study(tp=tp)).bytes / GIB for tp in (1, 2))
    assert 0.24 <= one <= 0.27
    assert 2.0 < two < 2.25
    assert runtime.non_torch(release("0.11"), study()).bytes / GIB == pytest.approx(0.13, abs=0.01)
    model = find_model("llama-3.1-8b")
    graphs = runtime.cuda_graphs(model, release("0.19"), study())
    assert graphs.bytes / GIB == pytest.approx(0.91, abs=0.1)
    assert runtime.cuda_graphs(model, release("0.19"), study(eager=True)).bytes == 0
    assert runtime.cuda_graphs(model, release("0.19"), study(sequences=2)).bytes < graphs.bytes / 10


def _named(constants: object) -> set[str]:
    if isinstance(constants, dict):
        own = set(constants.get("records", ()))
        return own.union(*(_named(value) for value in constants.values()))
    return set().union(*(_named(value) for value in constants)) if isinstance(constants, list) else set()


def _left_out(constants: object, known: tuple[Run, ...]) -> set[str]:
    return _named(constants) - {run.id for run in known if run.split == "fitted"}


def test_constants_were_fitted_on_fitted_runs() -> None:
    constants = json.loads(CONSTANTS.read_text())
    assert not _left_out(constants, runs())
    outside = next(run.id for run in runs() if run.engine == "vllm" and run.split != "fitted")
    constants["non_torch"][0]["records"].append(outside)
    assert _left_out(constants, runs()) == {outside}


def test_constants_are_what_the_command_fits() -> None:
    """tools/vllm_constants.py gives the constants again, to their last digit."""
    inside, outside = vllm_constants.cases("fitted"), vllm_constants.cases("left out")
    written = json.loads(CONSTANTS.read_text())
    for engine, row in zip(("V0", "V1"), written["sampler_copies"], strict=True):
        assert vllm_constants.sampler(engine, inside, outside)["bytes"] == row["bytes"]
    assert vllm_constants.hidden(inside)["copies"] == written["hidden_states"]["copies"]
    again = vllm_constants.non_torch(inside, outside)
    assert [row["gib"] for row in again] == [row["gib"] for row in written["non_torch"]]
