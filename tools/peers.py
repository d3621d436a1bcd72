"""The same models through the tools that people use instead, in one run; writes book/peers.json.

    python tools/peers.py             the models of MODELS, and the measured runs (book/peers-measured.json)
    python tools/peers.py measured    the measured runs alone

Both peers ask the hub, so the models lie on a hub of this machine: a config.json and a safetensors file of the model's
true shapes whose data are a hole (sparse), served on 127.0.0.1. accelerate is pointed there by HF_ENDPOINT; hf-mem has
the hub's address built in, so that its HTTP client's requests are turned to this machine and nothing else of it is
touched. vlmmem reads the same folder. Times are those of whole commands, as ratios to a bare start of Python in the
same run.

Runs in .venv-peers, which it makes from tools/peers-requirements.txt and tools/peers-alone-requirements.txt (1 GB with
PyTorch's CPU build; a few minutes); TORCH_INDEX as in tools/oracle.py. Any supported Python starts it, with nothing
installed: `python3 tools/peers.py measured` in a fresh clone.
"""

import json
import os
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools import peers_measured  # noqa: E402 (the checkout comes first)
from tools.oracle import environment as installed  # noqa: E402
from vlmmem.catalog import find_format, find_model, model_facts  # noqa: E402
from vlmmem.memory import kv_cache_bytes  # noqa: E402

RESULT = ROOT / "book" / "peers.json"
MEASURED = ROOT / "book" / "peers-measured.json"
ENVIRONMENT = ROOT / ".venv-peers"
REQUIREMENTS = ROOT / "tools" / "peers-requirements.txt"
ALONE = ROOT / "tools" / "peers-alone-requirements.txt"
CONTEXT = 8192
ROUNDS = 3
MODELS = ("llama-3.1-8b", "qwen3-8b", "gemma-3-4b", "gpt-oss-20b", "deepseek-v3", "qwen3.5-0.8b", "qwen2-vl-7b")
_DTYPES = {"bf16": ("BF16", 2), "fp16": ("F16", 2), "fp32": ("F32", 4)}

# What hf-mem's command does, with its client's requests turned to the hub of this machine.
_TURNED = """
import sys, httpx2
port = int(sys.argv.pop(1))
send = httpx2.AsyncClient.send
async def turned(self, request, **more):
    request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port=port)
    return await send(self, request, **more)
httpx2.AsyncClient.send = turned
from hf_mem.cli import main
main()
"""


def write_model(name: str, folder: Path) -> Path:
    """A folder as on the hub: the config of the catalogue, and a safetensors file with a hole for its data."""
    model, facts = find_model(name), model_facts(name)
    home = folder / str(model.hub_id)
    home.mkdir(parents=True)
    config = {field: value for field, value in facts["config"].items() if field != "quantization_config"}
    (home / "config.json").write_text(json.dumps(config), encoding="utf-8")
    dtype, size = _DTYPES[model.dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor, shape in ((tensor, item.shape) for tensor, item in model.tensors()):
        count = size
        for side in shape:
            count *= side
        header[tensor] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + count]}
        end += count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (home / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return home


def serve(folder: Path) -> ThreadingHTTPServer:
    """A hub of this machine: the pages that both peers ask for, files whole or in ranges."""

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def answer(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            found = re.fullmatch(r"/api/models/([^/]+/[^/]+?)(/tree/[^/]+)?", path)
            if found and (home := folder / found[1]).is_dir():
                files = sorted(item for item in home.iterdir() if item.is_file())
                listed = [{"type": "file", "path": item.name, "size": item.stat().st_size} for item in files]
                whole = {
                    "id": found[1],
                    "modelId": found[1],
                    "sha": "0" * 40,
                    "library_name": "transformers",
                    "config": json.loads((home / "config.json").read_text(encoding="utf-8")),
                    "siblings": [{"rfilename": item.name} for item in files],
                }
                self.answer(json.dumps(listed if found[2] else whole).encode(), {"Content_Type": "application/json"})
                return
            found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/([^/]+)", path)
            if not found or not (file := folder / found[1] / found[2]).is_file():
                self.answer(b"not found", {"X_Error_Code": "EntryNotFound"}, 404)
                return
            size, wanted = file.stat().st_size, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            marks = {"ETag": f'"{found[2]}"', "X_Repo_Commit": "0" * 40, "Content_Type": "application/octet-stream"}
            if wanted:
                first, last = int(wanted[1]), min(int(wanted[2]), size - 1)
                with file.open("rb") as opened:
                    opened.seek(first)
                    part = {"Content_Range": f"bytes {first}-{last}/{size}"}
                    self.answer(opened.read(last - first + 1), marks | part, 206)
            else:
                self.answer(file.read_bytes() if size < 2**22 else b"", marks)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def timed(command: list[str | Path], environment: dict[str, str]) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Wall seconds of a command, the median of `ROUNDS`, and its last run."""
    taken = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
        taken.append(time.monotonic() - began)
    return statistics.median(taken), done


def hf_mem(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What hf-mem's JSON says."""
    if done.returncode:
        return {"error": peers_measured.error_line(done.stderr)}
    found = json.loads(done.stdout[done.stdout.index("{") :])
    cache = found.get("kv_cache")
    return {
        "weights": found.get("memory"),
        "kv_cache": cache if isinstance(cache, int) else (cache or {}).get("cache_size"),
    }


def accelerate(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What accelerate's table says of 16 bits: a size in GB or MB of 2^30 or 2^20 bytes, rounded."""
    row = re.search(r"float16\s*│[^│]*│\s*([\d.]+) ([KMG]B)", done.stdout)
    if done.returncode or not row:
        return {"error": peers_measured.error_line(done.stderr)}
    return {"weights": round(float(row[1]) * {"KB": 2**10, "MB": 2**20, "GB": 2**30}[row[2]]), "kv_cache": None}


def ours(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What `vlmmem estimate` says."""
    if done.returncode:
        return {"error": done.stderr.strip()[:160]}
    found = json.loads(done.stdout)
    return {"weights": found["per_gpu"]["weights"], "kv_cache": found["per_gpu"]["kv_cache"]}


def peers_python() -> Path:
    """The Python of .venv-peers, with all peers."""
    python = installed(ENVIRONMENT, REQUIREMENTS)
    alone: list[str | Path] = ["pip", "install", "--quiet", "--no-deps", "--requirement", ALONE]
    subprocess.run([python, "-m", *alone], check=True)
    return python


def hub_settings(folder: Path, port: str) -> dict[str, str]:
    """The environment of a tool that shall ask the hub of this machine."""
    environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(folder / "cache")}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def versions(python: Path, names: Iterable[str]) -> dict[str, str]:
    """The releases of the peers."""
    listed = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    found = dict(line.split("==") for line in listed.splitlines() if "==" in line)
    # The suffix that names a build of PyTorch (+cpu) says nothing about the answers.
    return {name: found[name].split("+")[0] for name in names}


_EACH = """
import contextlib, importlib, io, json, sys
sys.argv.pop(1)
module, name = sys.argv.pop(1).split(":")
tool = getattr(importlib.import_module(module), name)
for line in sys.stdin:
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["peer", *json.loads(line)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            tool()
        except SystemExit as end:
            code = int(end.code or 0) if str(end.code or 0).isdigit() else 1
        except Exception as error:
            code = 1
            print(f"{type(error).__name__}: {error}", file=err)
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""
"""A tool's own command, called again and again in one process: its imports take most of a call's time."""


def each(
    python: Path, tool: str, calls: list[list[str]], environment: dict[str, str], before: str = ""
) -> list[subprocess.CompletedProcess[str]]:
    """A tool's command with each of the words, MODULE:FUNCTION in one process; `before` runs first there."""
    lines = "\n".join(json.dumps(words) for words in calls)
    command: list[str | Path] = [python, "-c", before + _EACH, environment["PORT"], tool]
    done = subprocess.run(
        command, input=lines, capture_output=True, text=True, check=False, env=environment, timeout=2400
    )
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    # A tool that dies of one model has no answer for those behind it.
    said += [[1, "", f"the process ended: {done.stderr.strip()[-100:]}"]] * (len(calls) - len(said))
    return [subprocess.CompletedProcess(words, *one) for words, one in zip(calls, said, strict=True)]


def measured(folder: Path) -> dict[str, Any]:
    """Every measured run through every tool and formula."""
    python = peers_python()
    contexts: dict[str, int] = {}
    for _, model, case in peers_measured.cases():
        contexts[model.id] = max(case.context, contexts.get(model.id, 1))
    names = sorted(contexts)
    for name in names:
        write_model(name, folder)
    server = serve(folder)
    port = str(server.server_port)
    environment = hub_settings(folder, port) | {"COLUMNS": "200", "PORT": port}
    hubs = [str(find_model(name).hub_id) for name in names]
    turned = _TURNED.partition("from hf_mem")[0].replace("sys.argv.pop(1)", "sys.argv[1]")
    # Their caches grow with every token alike, so one context says what a token takes.
    words = [
        ["--model-id", hub, "--experimental", "--json-output", "--max-model-len", str(contexts[name])]
        for name, hub in zip(names, hubs, strict=True)
    ]
    answers: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in names}
    for name, done in zip(names, each(python, "hf_mem.cli:main", words, environment, turned), strict=True):
        said = hf_mem(done)
        if "error" not in said and (cache := said.pop("kv_cache")) is not None:
            said["kv_bytes_per_token"] = cache / contexts[name]
        answers[name]["hf-mem"] = said
    readers: dict[str, tuple[str, list[list[str]], Callable[..., dict[str, Any]]]] = {
        "accelerate": (
            "accelerate.commands.accelerate_cli:main",
            [["estimate-memory", hub] for hub in hubs],
            accelerate,
        ),
        "llm-resource-planner": (
            "llm_resource_planner.cli:cli",
            [[hub] for hub in hubs],
            peers_measured.llm_resource_planner,
        ),
        "llm-mem": ("llm_mem.cli:main", [["-m", hub, "-c", "1000000"] for hub in hubs], peers_measured.llm_mem),
    }
    for tool, (entry, calls, read) in readers.items():
        for name, done in zip(names, each(python, entry, calls, environment), strict=True):
            answers[name][tool] = read(done)
            print(name, tool, answers[name][tool], file=sys.stderr, flush=True)
    server.shutdown()
    rows = peers_measured.rounded(peers_measured.compare_runs(answers, python))
    return {
        "versions": versions(python, (*peers_measured.TOOLS, "transformers", "torch")),
        "tools": peers_measured.TOOLS,
        "runs": rows,
    }


def compare(folder: Path) -> dict[str, Any]:
    """Every model through every tool."""
    python = peers_python()
    server = serve(folder)
    port = str(server.server_port)
    environment = hub_settings(folder, port)
    bare, _ = timed([python, "-c", "pass"], environment)
    rows = []
    for name in MODELS:
        home = write_model(name, folder)
        hub_id = str(find_model(name).hub_id)
        turned: list[str | Path] = [python, "-c", _TURNED, port, "--model-id", hub_id, "--experimental"]
        tools: dict[str, tuple[list[str | Path], Callable[..., dict[str, Any]]]] = {
            "vlmmem": (
                [sys.executable, "-m", "vlmmem.cli", "estimate", home, "--context", str(CONTEXT), "--json"],
                ours,
            ),
            "hf-mem": ([*turned, "--json-output", "--max-model-len", str(CONTEXT)], hf_mem),
            "accelerate": ([python, "-m", "accelerate.commands.accelerate_cli", "estimate-memory", hub_id], accelerate),
        }
        stored = (home / "model.safetensors").stat().st_size
        header = struct.unpack("<Q", (home / "model.safetensors").open("rb").read(8))[0]
        row: dict[str, Any] = {
            "model": name,
            "weights": stored - 8 - header,
            "kv_cache": kv_cache_bytes(name, CONTEXT, kv_dtype=find_format(find_model(name).dtype)),
        }
        for tool, (command, read) in tools.items():
            seconds, done = timed(command, environment)
            row[tool] = {**read(done), "starts": round(seconds / bare, 1)}
            print(name, tool, row[tool], file=sys.stderr)
        rows.append(row)
    server.shutdown()
    return {
        "context": CONTEXT,
        "versions": versions(python, ("hf-mem", "accelerate", "transformers", "torch")),
        "models": rows,
    }


def main() -> int:
    """Run the comparisons and write them."""
    with tempfile.TemporaryDirectory() as folder:
        if sys.argv[1:] != ["measured"]:
            RESULT.write_text(json.dumps(compare(Path(folder)), indent=1) + "\n", encoding="utf-8")
            print(RESULT.read_text(encoding="utf-8"))
        MEASURED.write_text(json.dumps(measured(Path(folder)), indent=1) + "\n", encoding="utf-8")
    print(MEASURED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
