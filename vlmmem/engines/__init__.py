"""What an inference engine takes of each GPU, by its release: one module an engine, each rule with its file.

``reserve(model, "vllm@0.19", settings)`` answers with the lines that the engine will print.
"""

from importlib import import_module
from typing import Any

from vlmmem.engines.releases import Release, find_release
from vlmmem.engines.reservation import Reservation
from vlmmem.engines.settings import Settings
from vlmmem.errors import InputError
from vlmmem.model import Model

__all__ = ["ENGINES", "POOLED", "Release", "Reservation", "Settings", "engine_and_release", "reserve"]

ENGINES = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llama.cpp": "llama_cpp",
    "transformers": "transformers",
    "tensorrt-llm": "tensorrt_llm",
}
"""Each engine: its module here. A module has RELEASES, the releases whose code was read, in order, and
``reserve(model, release, settings)``."""

POOLED = ("vllm", "sglang", "tensorrt-llm")
"""Engines that turn what is left of a GPU into a pool of KV cache; the others hold that of the sequences they serve."""


def _module(engine: str) -> Any:
    return import_module(f"vlmmem.engines.{ENGINES[engine]}")


def engine_and_release(text: str) -> tuple[str, Release]:
    """The engine and the release that NAME or NAME@VERSION means.

    Raises:
        InputError: no such engine, or no version.
    """
    name, at, version = text.partition("@")
    engine = name.strip().lower()
    if engine not in ENGINES:
        raise InputError(f"engine {name[:40]!r} is not known; one of {', '.join(ENGINES)} is needed")
    return engine, find_release(engine, _module(engine).RELEASES, version if at else None)


def reserve(model: Model, engine: str, settings: Settings) -> Reservation:
    """What an engine takes of the fullest GPU when it starts with these settings.

    Args:
        model: what it serves.
        engine: its name, with the release after an @, such as vllm@0.19; the newest known without one.
        settings: how it is started.

    Raises:
        InputError: the engine or the release is not known, a setting that the engine needs is missing, or the
            engine does not run the model so.
    """
    name, release = engine_and_release(engine)
    found: Reservation = _module(name).reserve(model, release, settings)
    return found
