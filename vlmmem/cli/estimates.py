"""The commands over the sum: estimate."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from vlmmem.cli.answers import columns, count, say
from vlmmem.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vlmmem.engines import Settings
    from vlmmem.footprint import Footprint
    from vlmmem.model import Model
    from vlmmem.workload import Parallelism, Workload

__all__ = ["COMMANDS"]

CONTEXT = 4096
"""Tokens of a sequence where nobody says, or the model's positions, whichever is less."""

IMAGE_SIZE = (1024, 1024)
"""Pixels of an image where nobody says."""

_LONGEST_SIDE = 10**6


def size(text: str) -> tuple[int, int]:
    """Width and height of an image from an argument such as 1024x768."""
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isascii() and side.isdecimal() and 0 < len(side) <= 7 for side in sides):
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is no size; WIDTHxHEIGHT in pixels is needed, such as 1024x768"
        )
    width, height = (int(side) for side in sides)
    if not (1 <= width <= _LONGEST_SIDE and 1 <= height <= _LONGEST_SIDE):
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is no size; sides from 1 to {_LONGEST_SIDE:,} pixels are needed"
        )
    return width, height


def _whole(text: str) -> int:
    return 0 if text == "0" else count(text)


def workload_arguments(sub: argparse.ArgumentParser) -> None:
    """The options that estimate and fit share."""
    sub.add_argument(
        "model",
        metavar="MODEL",
        help="catalogue name, config.json, model folder, .safetensors, .safetensors.index.json, .gguf, or hub id",
    )
    sub.add_argument(
        "--context",
        type=count,
        metavar="TOKENS",
        help=f"tokens of each sequence, those of its images among them ({CONTEXT:,}, or the model's limit)",
    )
    sub.add_argument("--batch", type=count, default=1, metavar="N", help="sequences at once (1)")
    sub.add_argument("--images", type=_whole, default=0, metavar="N", help="images of each sequence (0)")
    sub.add_argument(
        "--image-size",
        type=size,
        metavar="WxH",
        help=f"pixels of each image ({IMAGE_SIZE[0]}x{IMAGE_SIZE[1]})",
    )
    sub.add_argument("--weights", metavar="FORMAT", help="number format of the weights (the model's own)")
    sub.add_argument("--kv-dtype", metavar="FORMAT", help="number format of the KV cache (the model's own)")
    sub.add_argument("--tp", type=count, default=1, metavar="N", help="GPUs that split each layer (1)")
    sub.add_argument("--pp", type=count, default=1, metavar="N", help="groups of GPUs that split the layers (1)")
    sub.add_argument(
        "--engine",
        metavar="NAME[@VERSION]",
        help="price what it reserves: vllm, sglang, llama.cpp, transformers, tensorrt-llm (the newest release)",
    )
    sub.add_argument(
        "--gpu-memory-utilization", type=_share, metavar="SHARE", help="of the GPU, that the engine may take (its own)"
    )
    sub.add_argument("--max-num-seqs", type=count, metavar="N", help="sequences in a step of the engine (its own)")
    sub.add_argument("--max-num-batched-tokens", type=count, metavar="N", help="tokens in such a step (its own)")
    sub.add_argument(
        "--engine-option",
        action="append",
        type=_option,
        default=[],
        metavar="NAME=VALUE",
        help="another of the engine's own settings, such as n_ubatch=512",
    )


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no share; a number above 0 and up to 1 is needed")
    return value


def _option(text: str) -> "tuple[str, int | float | str | bool]":
    name, equals, value = text.partition("=")
    if not name or not equals or not value:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no setting; NAME=VALUE is needed, such as n_ubatch=512")
    if value.lower() in ("true", "false"):
        return name, value.lower() == "true"
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def engine_settings(options: argparse.Namespace, context: int) -> "Settings | None":
    """How the engine that the options name is started; None without one.

    Raises:
        InputError: a setting of an engine is given without one.
    """
    given = {
        "--gpu-memory-utilization": options.gpu_memory_utilization,
        "--max-num-seqs": options.max_num_seqs,
        "--max-num-batched-tokens": options.max_num_batched_tokens,
        "--engine-option": options.engine_option or None,
    }
    if options.engine is None:
        lost = [name for name, value in given.items() if value is not None]
        if lost:
            raise InputError(f"{lost[0]} is a setting of an engine; --engine NAME is needed with it, such as vllm")
        return None
    from vlmmem.engines import Settings

    return Settings(
        context,
        sequences=options.max_num_seqs,
        batch_tokens=options.max_num_batched_tokens,
        utilization=options.gpu_memory_utilization,
        options=tuple(options.engine_option),
    )


def asked(options: argparse.Namespace) -> "tuple[Model, Workload, Parallelism, list[str]]":
    """The model and the workload that the options name, and the defaults that were used, in words."""
    from vlmmem.readers import open_model
    from vlmmem.workload import Parallelism, Workload

    model = open_model(options.model)
    defaults = []
    image_size = options.image_size
    if options.images and image_size is None:
        image_size = IMAGE_SIZE
        defaults.append(f"image size {image_size[0]}x{image_size[1]}")
    context = options.context
    if context is None:
        context = min(CONTEXT, model.max_positions)
        if options.images:
            from vlmmem.footprint import image_of

            context = max(context, options.images * image_of(model, *image_size).tokens)
        defaults.append(f"context {context:,}")
    for name, value in (("batch", options.batch), ("tp", options.tp), ("pp", options.pp)):
        if value == 1:
            defaults.append(f"{name} 1")
    if not options.images:
        defaults.append("images 0")
    return (
        model,
        Workload(context, options.batch, options.images, image_size),
        Parallelism(options.tp, options.pp),
        defaults,
    )


def _estimate_arguments(sub: argparse.ArgumentParser) -> None:
    workload_arguments(sub)
    sub.add_argument("--gpu", metavar="GPU", help="the GPU on which it should fit; exit code 1 where it does not")


def _estimate(options: argparse.Namespace) -> int:
    from vlmmem.footprint import estimate

    model, workload, parallelism, defaults = asked(options)
    footprint = estimate(
        model,
        workload,
        parallelism,
        options.gpu,
        weights=options.weights,
        kv_dtype=options.kv_dtype,
        engine=options.engine,
        settings=engine_settings(options, workload.context),
    )
    if options.weights is None:
        defaults.append(f"weights {footprint.weights}")
    if options.kv_dtype is None:
        defaults.append(f"KV cache {footprint.kv_dtype}")
    if options.json:
        say({**footprint.json(), "defaults": defaults})
    else:
        say(told(footprint, defaults))
    return 1 if footprint.fits is False else 0


def told(footprint: "Footprint", defaults: "list[str]") -> str:
    """The footprint as a table: one line a term, with its share, its basis and its formula."""
    from vlmmem.units import show_both, show_fitting

    model, per_gpu = footprint.model, footprint.per_gpu
    total = per_gpu["total"]
    parts = ", ".join(f"{name} {number:,}" for name, number in model.parameters_by_part.items())
    active = f"; {model.active_parameters:,} active for a token" if model.experts else ""
    basis = {"header": "from the file's header", "config": "from the config", "nominal": "as its name says"}[
        model.basis
    ]
    growth = footprint.kv_bytes_per_token
    beyond = growth["beyond_window"]
    a_token = f"{growth['below_window']:,} B"
    if beyond != growth["below_window"]:
        a_token += f", {beyond:,} B once every window is full"
    facts = [
        ("model", f"{model.name or model.id or model.architecture} ({model.architecture})"),
        ("parameters", f"{model.parameters:,} ({basis}: {parts}{active})"),
        ("workload", _workload(footprint)),
        ("KV cache", f"{a_token} a token of one sequence, on one GPU"),
    ]
    if footprint.state_bytes_per_sequence:
        facts.append(("states", f"{footprint.state_bytes_per_sequence:,} B a sequence, whatever its length"))
    rows = [("term", "on one GPU", "share", "basis", "formula")]
    rows += [
        (term.name, show_fitting(term.bytes), f"{term.bytes / total:.1%}", term.basis, term.formula)
        for term in footprint.terms
    ]
    rows.append(("total", show_both(total), "100.0%", "", ""))
    lines = [columns(facts), "", columns(rows), ""]
    if footprint.engine is not None:
        lines += _reserved(footprint)
    if footprint.gpus > 1:
        lines.append(f"{footprint.gpus} GPUs together: {show_both(footprint.total)}, each as full as the fullest")
    if footprint.gpu is not None:
        lines.append(_verdict(footprint))
    lines += [f"note: {note}" for note in footprint.notes]
    if defaults:
        lines.append("defaults: " + ", ".join(defaults))
    return "\n".join(lines)


def _reserved(footprint: "Footprint") -> list[str]:
    """What the engine will print, between which values it will lie, and the command line that starts it."""
    from vlmmem.units import show_fitting

    engine, ranges = footprint.engine, footprint.ranges
    assert engine is not None
    rows: list[tuple[str, ...]] = [(f"{engine.engine} {engine.version} will print", "", "range", "from")]

    def line(what: str, name: str, value: float | None, show: "Callable[[float], str]") -> None:
        if value is None:
            return
        found = ranges.get(name)
        if found is None:
            rows.append((what, show(value), "", ""))
            return
        known = "assumed" if found["basis"] == "assumed" else f"{found['records']} runs"
        rows.append((what, show(value), f"{show(found['low'])} to {show(found['high'])}", known))

    for what, kind in (("weights", "weights"), ("activation peak", "activations"), ("KV cache", "kv_cache")):
        name = {"weights": "weights_bytes", "activations": "activation_bytes", "kv_cache": "kv_pool_bytes"}[kind]
        line(what, name, engine.bytes_of(kind), lambda size: show_fitting(round(size)))
    line("KV cache tokens", "kv_tokens", engine.kv_tokens, lambda count: f"{round(count):,}")
    room = f"requests of {footprint.workload.context:,}"
    line(room, "max_concurrency", engine.max_concurrency, lambda count: f"{count:.2f}")
    lines = [columns(rows)]
    if ranges:
        lines.append("(a range holds nine runs of ten, by the errors on measured runs: vlmmem accuracy)")
    if engine.settings:
        lines += ["", "settings: " + ", ".join(f"{name} {value}" for name, value in engine.settings)]
    if engine.command:
        import shlex

        lines += ["", f"command: {shlex.join(engine.command)}"]
    return [*lines, ""]


def _workload(footprint: "Footprint") -> str:
    workload, many = footprint.workload, footprint.parallelism
    text = f"{workload.batch:,} x {workload.context:,} tokens"
    if workload.images and workload.image_size is not None:
        width, height = workload.image_size
        share = footprint.image_tokens / workload.context
        text += (
            f", in each {workload.images} x {width}x{height} pixels: {footprint.image_tokens:,} image tokens"
            f" ({share:.1%} of the context)"
        )
    if many.gpus > 1:
        text += f", tp {many.tp}, pp {many.pp}"
    return text


def _verdict(footprint: "Footprint") -> str:
    from vlmmem.units import show_both

    assert footprint.gpu is not None
    left = footprint.gpu.memory_bytes - footprint.per_gpu["total"]
    if left >= 0 and not footprint.fits:
        text, colour = f"{footprint.workload.batch:,} such sequences do not fit the engine's KV cache at once", "31"
    elif footprint.fits:
        text, colour = f"fits {footprint.gpu.name}: {show_both(left)} left", "32"
    else:
        text, colour = f"does not fit {footprint.gpu.name}: {show_both(-left)} too much", "31"
    return f"\033[{colour}m{text}\033[0m" if _colourful() else text


def _colourful() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


COMMANDS = {"estimate": (_estimate_arguments, _estimate)}
