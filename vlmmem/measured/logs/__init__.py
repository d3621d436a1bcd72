"""Logs: the start of an engine, as it printed it, to a Run.

One module an engine, each with the same door: ``recognises(lines)`` says whether the log is that engine's, and
``read(lines)`` returns a `Reading`. Lines come without colours and line ends. Nothing of a log is ever executed.
"""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from vlmmem.errors import InputError
from vlmmem.measured.logs.reading import Reading
from vlmmem.measured.run import Run, run_of

__all__ = ["LARGEST", "READERS", "Reading", "clean_lines", "read_log", "read_log_file"]

READERS = {"vllm": "vllm", "sglang": "sglang", "llama.cpp": "llama_cpp"}
"""Each engine whose logs are read: its module here."""

LARGEST = 8 * 2**20
"""Bytes of a log that are read: an engine's start is at its beginning."""

_BEFORE = {"init_free", "init_used", "init_non_torch", "requested", "avail_before_load"}  # the GPU before the engine
_LONGEST_LINE = 20_000
_MOST_LINES = 400_000
_COLOUR = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]{0,200}(?:\x07|\x1b\\)|[@-Z\\-_])")
_EXPECTED = (
    "a start-up log of vLLM ('GPU KV cache size: ...', 'model weights take ...'), SGLang ('KV Cache is allocated') "
    "or llama.cpp ('KV buffer size = ...'), in the engine's own English, is needed"
)


def clean_lines(raw: bytes, name: str = "log") -> tuple[list[str], list[str]]:
    r"""The lines of a log without colours, and notes on what was left out.

    Args:
        raw: the log as it is in its file; only its first 8 MiB are read.
        name: what names it in messages.

    Raises:
        InputError: it is empty or not text.

    >>> clean_lines(b"\x1b[36mINFO\x1b[0m one\r\ntwo\n")
    (['INFO one', 'two'], [])
    """
    notes = []
    if len(raw) > LARGEST:
        notes.append(f"only the first {LARGEST >> 20} MiB of the log were read")
        raw = raw[:LARGEST]
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):  # PowerShell's redirection writes UTF-16
        text = raw[: len(raw) // 2 * 2].decode("utf-16", errors="replace")
    else:
        text = raw.decode("utf-8-sig", errors="replace")
    if not text.strip():
        raise InputError(f"{name}: it is empty; {_EXPECTED}")
    if "\x00" in text or text.count("\ufffd") * 10 > len(text):
        raise InputError(f"{name}: it is no text; {_EXPECTED}")
    if "\x1b" in text:
        text = _COLOUR.sub("", text)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")  # a bar of progress rewrites its line
    if len(lines) > _MOST_LINES:
        notes.append(f"only the first {_MOST_LINES:,} lines of the log were read")
        del lines[_MOST_LINES:]
    long = sum(len(line) > _LONGEST_LINE for line in lines)
    if long:
        notes.append(f"{long} lines of more than {_LONGEST_LINE:,} characters were cut")
    return [line[:_LONGEST_LINE].rstrip() for line in lines if line.strip()], notes


def _reader(name: str, lines: list[str], engine: str | None) -> tuple[str, Any]:
    for each, module in READERS.items():
        if engine is None or engine == each:
            reader = import_module(f"vlmmem.measured.logs.{module}")
            if reader.recognises(lines):
                return each, reader
    named = f" of {engine}" if engine else ""
    raise InputError(f"{name}: no line{named} that is known; {_EXPECTED}")


def _release_note(engine: str, version: str | None) -> str:
    """Which known release's rules price the one that the log names; empty where it is known."""
    from vlmmem.engines import engine_and_release

    if version is None:
        return "the log names no release"
    try:
        _, release = engine_and_release(f"{engine}@{version}")
    except (InputError, ImportError, AttributeError):
        return ""
    return release.note


def _catalogued(model: str) -> tuple[str | None, str, str, bool]:
    """The catalogue's id of a model, why there is none, its family, whether it reads images."""
    from vlmmem.catalog import find_model

    for name in (model, model.replace("\\", "/").rstrip("/").rpartition("/")[2]):
        try:
            found = find_model(name)
        except InputError:
            continue
        return found.id, "", found.id, found.vision is not None
    return None, "no model of the catalogue has this name", model.rpartition("/")[2].lower() or model, False


def _slug(*parts: str | None) -> str:
    text = "-".join(part for part in parts if part).lower()
    return re.sub(r"[^a-z0-9.]+", "-", text).strip("-")[:80]


def read_log(
    raw: bytes | str,
    name: str = "log",
    *,
    engine: str | None = None,
    model: str | None = None,
    gpu: str | None = None,
    version: str | None = None,
) -> Run:
    """The run that a start-up log tells of.

    Args:
        raw: the log.
        name: its file's name: the run's source, and what names it in messages.
        engine: vllm, sglang or llama.cpp; found from the lines where None.
        model: the model's name, where the log does not say it; what is given counts.
        gpu: the GPU's name, the same.
        version: the engine's release, the same.

    Raises:
        InputError: it is no start-up log, holds no figure, names no model and none is given, or its figures
            contradict each other.
    """
    if engine is not None and engine not in READERS:
        raise InputError(f"engine {str(engine)[:40]!r}: its logs are not read; one of {', '.join(READERS)} is needed")
    lines, notes = clean_lines(raw.encode("utf-8", "replace") if isinstance(raw, str) else raw, name)
    found, reader = _reader(name, lines, engine)
    try:
        reading: Reading = reader.read(lines)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    if not set(reading.measured) - _BEFORE:
        raise InputError(f"{name}: it is {found}'s, and ends before any figure of what it takes; {_EXPECTED}")
    fields: dict[str, Any] = dict(reading.fields)
    fields |= {key: value for key, value in (("model", model), ("gpu", gpu), ("version", version)) if value}
    if not fields.get("model"):
        raise InputError(f"{name}: the log names no model; --model is needed")
    return _run(reading, {"engine": found, **fields}, notes, name)


def _run(reading: Reading, fields: dict[str, Any], notes: list[str], name: str) -> Run:
    """The run of a reading whose model is known, checked as any other."""
    if reading.missing:
        notes.append("not in the log: " + ", ".join(reading.missing))
    notes += reading.notes
    note = _release_note(fields["engine"], fields.get("version"))
    if note and not any("names no release" in each for each in notes):
        notes.append(note)
    model = str(fields["model"])[:200]
    catalogue, why, family, vision = _catalogued(model)
    evidence = " / ".join(dict.fromkeys(line.strip()[:160] for line in reading.evidence))[:400]
    devices = [
        {"device": device, "measured": {key: quantity.json() for key, quantity in part.items()}}
        for device, part in reading.devices.items()
    ]
    release, gpu = (str(fields.get(key) or "") for key in ("version", "gpu"))
    data = {
        "family": family,
        "vision": vision,
        **fields,
        "id": _slug(model.rpartition("/")[2], fields["engine"], release, gpu),
        "version": fields.get("version"),
        "model": model,
        "catalogue": catalogue,
        "why": why,
        "source": name,
        "evidence": evidence,
        "notes": "; ".join(notes)[:1500],
        "provenance": "log",
        "split": "own",
        "measured": {key: quantity.json() for key, quantity in reading.measured.items()},
        "devices": devices if len({str(device["measured"]) for device in devices}) > 1 else None,
    }
    kept = {key: value for key, value in data.items() if key in ("version", "catalogue") or value not in (None, "")}
    try:
        return run_of(kept, name)
    except InputError as error:
        reason = str(error)
        raise InputError(reason if reason.startswith(f"{name}: ") else f"{name}: {reason}") from None


def read_log_file(path: str | Path, **given: str | None) -> Run:
    """The run that a log's file tells of; see `read_log`.

    Raises:
        InputError: the file cannot be read, or as `read_log`.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            raw = stream.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file.name}: cannot be read ({reason}); a log's file is needed") from None
    return read_log(raw, file.name, **given)
