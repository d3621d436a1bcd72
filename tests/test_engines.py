"""Engines: what every one of them shares, and the two commands that ask them."""

import json
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import vlmmem.engines
from vlmmem import Term, Workload, estimate, find_gpu, find_model, fit
from vlmmem.cli import main
from vlmmem.engines import ENGINES, POOLED, Reservation, Settings, engine_and_release, reserve
from vlmmem.engines.releases import Release, find_release, parse_version
from vlmmem.errors import InputError

KNOWN = ("0.6", "0.8", "0.19")


@pytest.mark.parametrize(
    ("asked", "used", "told"),
    [
        (None, "0.19", ""),
        ("0.19", "0.19", ""),
        ("v0.19.1", "0.19", ""),
        ("0.8.5.post1", "0.8", ""),
        ("0.12.1", "0.8", "vllm 0.12.1 was not read: the rules of 0.8 are used"),
        ("0.99", "0.19", "vllm 0.99 was not read: the rules of 0.19 are used"),
        ("0.2", "0.6", "vllm 0.2 was not read: the rules of 0.6 are used"),
    ],
)
def test_which_release_prices_another(asked: str | None, used: str, told: str) -> None:
    release = find_release("vllm", KNOWN, asked)
    assert (release.version, release.note) == (used, told)


def test_releases_are_in_order_not_in_alphabet() -> None:
    assert Release("0.10", (0, 10)).since("0.9")
    assert not Release("0.9", (0, 9)).since("0.10")
    assert parse_version("0.10") > parse_version("0.9.2")


@pytest.mark.parametrize("text", ["", "latest", "v", "x" * 1000, "0" * 61, "newest release"])
def test_what_is_no_release_is_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"names no version; one such as 0\.19 is needed"):
        parse_version(text)


@pytest.mark.parametrize("engine", ENGINES)
def test_each_engine_has_its_releases_in_order(engine: str) -> None:
    known = import_module(f"vlmmem.engines.{ENGINES[engine]}").RELEASES
    orders = [parse_version(version) for version in known]
    assert orders == sorted(set(orders))
    assert engine_and_release(engine) == (engine, find_release(engine, known, None))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"context": 0}, "context: 0"),
        ({"tp": 0}, "tp: 0"),
        ({"sequences": -1}, "sequences: -1"),
        ({"gpu_bytes": 1.5}, "gpu_bytes: 1.5"),
        ({"utilization": 0}, "utilization: 0"),
        ({"utilization": 1.01}, "utilization: 1.01"),
        ({"utilization": float("nan")}, "utilization: nan"),
    ],
)
def test_settings_that_no_engine_takes(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Settings(**{"context": 4096, **changes})


def test_what_the_engine_sees_comes_before_the_catalogue() -> None:
    gpu = find_gpu("h100-80gb")
    assert Settings(4096).total_bytes is None
    assert Settings(4096, gpu=gpu).total_bytes == gpu.cuda_memory_bytes == round(79.19 * 2**30)
    assert Settings(4096, gpu=find_gpu("mi300x")).total_bytes == find_gpu("mi300x").memory_bytes
    assert Settings(4096, gpu=gpu, gpu_bytes=7).total_bytes == 7
    assert Settings(4096, options=(("n_ubatch", 256),)).option("n_ubatch") == 256


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that leaves a pool of 20 GiB, in which three sequences have room."""

    class Module:
        RELEASES = ("1.0",)

        @staticmethod
        def reserve(_model: object, release: Release, settings: Settings) -> Reservation:
            terms = (
                Term("weights", 10 * 2**30, "", "derived", ""),
                Term("activations", 2**30, "", "derived", ""),
                Term("runtime", 2**30, "", "derived", ""),
                Term("kv_cache", 20 * 2**30, "", "derived", ""),
            )
            room = 3 * 8192 / settings.context
            return Reservation("vllm", release.version, terms, 24576, 1536, room, command=("serve", "a model"))

    monkeypatch.setattr(vlmmem.engines, "_module", lambda _engine: Module)


@pytest.mark.usefixtures("pool")
def test_a_batch_fits_where_the_pool_has_room_for_it() -> None:
    def asked(batch: int, gpu: str = "a100-40gb") -> Any:
        return estimate("llama-3.1-8b", Workload(8192, batch=batch), gpu=gpu, engine="vllm")

    assert asked(3).fits
    assert not asked(4).fits
    assert not asked(3, "l4").fits
    assert asked(3).per_gpu["total"] == asked(1).per_gpu["total"] == 32 * 2**30
    assert asked(3).needed == 32 * 2**30
    assert asked(1).needed == 12 * 2**30 + round(20 * 2**30 / 3)


@pytest.mark.usefixtures("pool")
def test_fit_asks_the_engine_for_room() -> None:
    found = fit("llama-3.1-8b", "a100-40gb", Workload(8192, batch=4), engine="vllm")
    assert not found.fits
    assert (found.largest_batch, found.largest_context) == (3, 6144)
    assert found.fewest is None


@pytest.mark.usefixtures("pool")
def test_the_answer_names_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    call = ["estimate", "llama-3.1-8b", "--engine", "vllm@1.0", "--gpu", "a100-40gb", "--context", "8192"]
    assert main([*call, "--json"]) == 0
    engine = json.loads(capsys.readouterr().out)["engine"]
    assert (engine["name"], engine["version"], engine["weights_bytes"]) == ("vllm", "1.0", 10 * 2**30)
    assert (engine["kv_pool_bytes"], engine["kv_tokens"], engine["max_concurrency"]) == (20 * 2**30, 24576, 3.0)
    assert shlex.split(engine["command"]) == ["serve", "a model"]
    for name in ("weights_bytes", "kv_pool_bytes", "kv_tokens", "max_concurrency"):
        assert engine["ranges"][name]["low"] < engine[name] < engine["ranges"][name]["high"]
    assert main(call) == 0
    text = capsys.readouterr().out
    assert re.search(r"requests of 8,192 +3\.00 +\S+ to \S+ +[0-9]+ runs", text)
    assert "command: serve 'a model'" in text
    assert main([*call, "--batch", "4"]) == 1
    assert "4 such sequences do not fit the engine's KV cache at once" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--engine", "foo"], "engine 'foo' is not known; one of vllm, sglang, llama.cpp, transformers, tensorrt-llm"),
        (["--engine", "vllm@latest"], "release 'latest' names no version"),
        (["--engine", "vllm"], "GPU"),
        (["--max-num-seqs", "8"], "--max-num-seqs is a setting of an engine; --engine NAME is needed with it"),
        (["--engine", "vllm", "--gpu-memory-utilization", "90"], "'90' is no share"),
        (["--engine", "vllm", "--engine-option", "n_ubatch"], "'n_ubatch' is no setting; NAME=VALUE is needed"),
    ],
)
def test_wrong_calls_are_one_line(capsys: pytest.CaptureFixture[str], options: list[str], words: str) -> None:
    assert main(["estimate", "llama-3.1-8b", *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("vlmmem: error: ")
    assert err.count("\n") == 1
    assert words in err


def test_the_engines_of_the_interface_are_there() -> None:
    assert set(POOLED) < set(ENGINES)
    assert list(ENGINES) == ["vllm", "sglang", "llama.cpp", "transformers", "tensorrt-llm"]


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_reserves_the_terms_of_the_interface(engine: str) -> None:
    settings = Settings(4096, gpu=find_gpu("h100-80gb"), sequences=None if engine in POOLED else 2)
    found = reserve(find_model("llama-3.1-8b"), engine, settings)
    assert {term.kind for term in found.terms} <= {"weights", "kv_cache", "activations", "vision", "runtime"}
    assert found.bytes_of("weights") > 15 * 10**9
    assert found.bytes_of("kv_cache") > 0
    assert all(term.bytes >= 0 and term.formula and "/" in term.source for term in found.terms)
    assert json.loads(json.dumps(found.json()))["name"] == engine


def test_estimate_of_a_config_imports_no_engine(root: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from vlmmem import estimate, Workload; estimate('llama-3.1-8b', Workload(1));"
        "print([name for name in sys.modules if name.startswith(('vlmmem.engines', 'vlmmem.measured'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
