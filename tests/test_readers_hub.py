"""Models by hub id: from the cache without a network, from an endpoint that is not the hub, and what goes wrong."""

import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vlmmem.readers.hub import FILES, is_hub_id

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 100, "max_position_embeddings": 2048,
    "tie_word_embeddings": True, "dtype": "bfloat16",
}  # fmt: skip
LAYER = {
    "self_attn.q_proj": [64, 64], "self_attn.k_proj": [32, 64], "self_attn.v_proj": [32, 64],
    "self_attn.o_proj": [64, 64], "mlp.gate_proj": [96, 64], "mlp.up_proj": [96, 64], "mlp.down_proj": [64, 96],
    "input_layernorm": [64], "post_attention_layernorm": [64],
}  # fmt: skip
PARAMETERS = 100 * 64 + 64 + 2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64 + 2 * 64


def checkpoint() -> bytes:
    """The safetensors file of that model."""
    root, end = {}, 0
    shapes = {f"model.layers.0.{name}.weight": shape for name, shape in LAYER.items()}
    for name, shape in {"model.embed_tokens.weight": [100, 64], "model.norm.weight": [64], **shapes}.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        root[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(root).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(end)


REPOSITORIES: dict[str, dict[str, bytes]] = {
    "tiny/config-only": {"config.json": json.dumps(CONFIG).encode()},
    "tiny/one-file": {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": checkpoint()},
    "tiny/of-gguf": {"model.gguf": b"GGUF"},
    "tiny/broken": {"config.json": b"{"},
}
REFUSED = {"tiny/gated": (403, "GatedRepo"), "tiny/private": (401, "RepoNotFound"), "tiny/ill": (500, "")}


class Endpoint(BaseHTTPRequestHandler):
    """As much of a hub as is asked of it; `asked` is what was."""

    asked: list[tuple[str, str, str]]

    def _answer(self, body: bool) -> None:
        path = self.path.lstrip("/").split("?")[0]
        name, _, file = path.partition("/resolve/main/")
        type(self).asked.append((name, file, self.headers.get("authorization", "")))
        if name in REFUSED:
            return self._refuse(*REFUSED[name])
        files = REPOSITORIES.get(name)
        if files is None:
            return self._refuse(404, "RepoNotFound")
        content = files.get(file)
        if content is None:
            return self._refuse(404, "EntryNotFound")
        span = self.headers.get("range")
        whole = len(content)
        if span:
            start, _, last = span.removeprefix("bytes=").partition("-")
            content = content[int(start) : int(last) + 1]
        self.send_response(206 if span else 200)
        self.send_header("ETag", f'"{name}-{file}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        if span:
            self.send_header("Content-Range", f"bytes 0-{len(content) - 1}/{whole}")
        self.end_headers()
        if body:
            self.wfile.write(content)
        return None

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's own name)
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    Endpoint.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def ask(name: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in an environment of its own: huggingface_hub reads it when it is imported."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    return subprocess.run(
        [sys.executable, "-m", "vlmmem.cli", "estimate", name, "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**clean, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that says no."""
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("vlmmem: error: ")
    return line


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_hub_ids() -> None:
    for name in ("Qwen/Qwen3-8B", "a/b", "org/model.v1_2-x"):
        assert is_hub_id(name)
    for name in (
        "a",
        "a/b/c",
        "/a/b",
        "a//b",
        "a/",
        "../b",
        "a/..",
        "a/b..c",
        "a/b--c",
        "a b/c",
        "a/b\n",
        "x" * 200 + "/b",
    ):
        assert not is_hub_id(name)


@pytest.mark.slow
def test_a_config_is_fetched_once_and_no_weight_ever(endpoint: str, tmp_path: Path) -> None:
    found = answer(ask("tiny/config-only", tmp_path, HF_ENDPOINT=endpoint, HF_TOKEN="hf_secret"))
    assert found["model"]["id"] == "tiny/config-only"
    assert (found["model"]["parameters"], found["model"]["basis"]) == (PARAMETERS, "config")
    assert {file for _, file, _ in Endpoint.asked} <= {*FILES, "model.safetensors"}
    assert {token for _, _, token in Endpoint.asked} == {"Bearer hf_secret"}
    Endpoint.asked.clear()
    assert answer(ask("tiny/config-only", tmp_path, HF_HUB_OFFLINE="1")) == found
    assert answer(ask("tiny/config-only", tmp_path, HF_ENDPOINT="http://127.0.0.1:9"))["model"] == found["model"]
    assert Endpoint.asked == []


@pytest.mark.slow
def test_a_header_is_read_by_its_range(endpoint: str, tmp_path: Path) -> None:
    found = answer(ask("tiny/one-file", tmp_path, HF_ENDPOINT=endpoint))
    assert (found["model"]["parameters"], found["model"]["basis"]) == (PARAMETERS, "header")
    assert found["per_gpu"]["weights"] == 2 * PARAMETERS
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.slow
def test_a_snapshot_in_the_cache_is_read_by_its_header(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--tiny--cached" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (tmp_path / "hub" / "models--tiny--cached" / "refs").mkdir()
    (tmp_path / "hub" / "models--tiny--cached" / "refs" / "main").write_text(COMMIT)
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    (snapshot / "model.safetensors").write_bytes(checkpoint())
    found = answer(ask("tiny/cached", tmp_path, HF_HUB_OFFLINE="1"))
    assert (found["model"]["parameters"], found["model"]["basis"]) == (PARAMETERS, "header")
    elsewhere = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    assert answer(ask("tiny/cached", tmp_path / "other", **elsewhere)) == found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("tiny/nowhere", "the hub has no such model, or it is private"),
        ("tiny/private", "the hub has no such model, or it is private"),
        ("tiny/gated", "is gated on the hub; accept its terms there and set HF_TOKEN"),
        ("tiny/of-gguf", "the hub has no config.json of it; a .gguf or .safetensors file of it is needed"),
        ("tiny/ill", "the hub did not answer"),
        ("tiny/broken", "config.json:1:"),
    ],
)
def test_what_the_hub_refuses_is_one_line(name: str, why: str, endpoint: str, tmp_path: Path) -> None:
    assert why in said(ask(name, tmp_path, HF_ENDPOINT=endpoint))


@pytest.mark.slow
def test_without_a_network(tmp_path: Path) -> None:
    for environment in ({"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}):
        assert "is not in the local cache and the hub cannot be reached" in said(ask("tiny/a", tmp_path, **environment))


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    from vlmmem.errors import InputError
    from vlmmem.readers import open_model

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"^tiny/a: is no file and not in the catalogue; .* \(vlmmem\[hub\]\)$"):
        open_model("tiny/a")
