"""A measurement: what is asked, the passes that answer it, and fewer layers than the model has, extrapolated."""

from collections.abc import Mapping
from typing import Any

from vlmmem.errors import InputError
from vlmmem.images import ImageTokens
from vlmmem.measured.harness.devices import DEVICES, Device, find_device
from vlmmem.measured.harness.network import (
    DTYPES,
    TEXT,
    build,
    cached,
    depth_of,
    inputs,
    out_of_memory,
    period,
    with_layers,
)
from vlmmem.measured.harness.storages import bytes_of
from vlmmem.model import Model
from vlmmem.record import record
from vlmmem.workload import check_positive

__all__ = ["Asked", "Measurement", "ask", "measure"]

_LEARNED = "position"  # the kind of a tensor that holds positions
_LONGEST_ERROR = 160
_MOST_STEPS = 10_000
_FEWEST = 2  # the first layer's input is the embedding, which stands anyway: a model of one layer holds less
_TOLERANCE = {"cuda": 0.05}  # of what a layer adds: an allocator hands out blocks


@record(frozen=True, slots=True, eq=False)
class Asked:
    """What is to be measured.

    Attributes:
        model: the model as this package knows it.
        config: the object in its config.json.
        where: how errors call the config.
        context: tokens of the prompt of each sequence, those of its images among them.
        batch: sequences in a pass.
        images, image_size: images of each sequence; pixels of one, width and height.
        image: the counts of one image, None without images.
        new_tokens: passes of one token a sequence after the prompt.
        device: a name of `DEVICES`.
        dtype: number format of weights and cache.
        layers: layers of the decoder to build; the rest is extrapolated.
    """

    model: Model
    config: Mapping[str, Any]
    where: str
    context: int
    batch: int = 1
    images: int = 0
    image_size: tuple[int, int] | None = None
    image: ImageTokens | None = None
    new_tokens: int = 1
    device: str = "auto"
    dtype: str = "bf16"
    layers: int | None = None


@record(frozen=True, slots=True, eq=False)
class Measurement:
    """What was measured, in bytes.

    Attributes:
        asked: the question.
        device: where: cuda, cpu or fake.
        sizes: bytes by name, those of QUANTITIES in vlmmem/measured/run.py.
        built: layers of the decoder that were built.
        described: the machine and the software.
        notes: what the sizes leave out or take for granted.
    """

    asked: Asked
    device: str
    sizes: Mapping[str, int]
    built: int
    described: Mapping[str, str | int]
    notes: tuple[str, ...] = ()


def ask(
    name: str,
    *,
    context: int | None = None,
    batch: int = 1,
    images: int = 0,
    image_size: tuple[int, int] | None = None,
    new_tokens: int = 1,
    device: str = "auto",
    dtype: str | None = None,
    layers: int | None = None,
) -> Asked:
    """What is to be measured, checked without PyTorch.

    Args:
        name: a model of the catalogue, a config.json or a folder with one.
        context: tokens of the prompt of each sequence; 4,096 or the model's limit without one.
        batch: sequences in a pass.
        images: images of each sequence.
        image_size: pixels of each image, width and height.
        new_tokens: tokens after the prompt, one a pass; 0 measures the prompt alone.
        device: one of `DEVICES`.
        dtype: bf16, fp16 or fp32; the model's own without one.
        layers: layers of the decoder to build, the rest extrapolated; all without it.

    Raises:
        InputError: the model or the device is not known, a count is none, the model takes no images, or they have more
            tokens than the context, or the context more than the model has positions for.

    >>> ask("llama-2-13b", context=8192, batch=10).dtype
    'fp16'
    >>> ask("llama-2-13b", images=1)
    Traceback (most recent call last):
    vlmmem.errors.InputError: images: llama-2-13b has no vision tower; a model that sees is needed
    """
    from vlmmem.readers import open_model

    if device not in DEVICES:
        raise InputError(f"device: {device[:40]!r} is not known; one of {', '.join(DEVICES)} is needed")
    config, where = _config(name)
    model = open_model(name)
    number = model.dtype if dtype is None else dtype
    if number not in DTYPES:
        known = ", ".join(DTYPES)
        if dtype is not None:
            raise InputError(f"dtype: {number[:40]!r} is not known; one of {known} is needed")
        raise InputError(f"dtype: {where} was published in {number}; one of {known} must be named")
    image = None
    if images:
        from vlmmem.footprint import image_of

        check_positive("images", images)
        image = image_of(model, *(image_size or (1024, 1024)))
        image_size = image_size or (1024, 1024)
    needed = 0 if image is None else images * image.tokens
    if context is None:
        context = max(min(4096, model.max_positions - new_tokens), needed)
    for field, value in (("context", context), ("batch", batch)):
        check_positive(field, value)
    if type(new_tokens) is not int or not 0 <= new_tokens <= _MOST_STEPS:
        raise InputError(f"new_tokens: {new_tokens!r} was given; a whole number from 0 to {_MOST_STEPS:,} is needed")
    if needed > context:
        raise InputError(
            f"images: {images} of {image.tokens if image else 0:,} tokens each are more than the context of "
            f"{context:,}; a context of {needed:,} or more is needed"
        )
    if context + new_tokens > model.max_positions and _learned_positions(model):
        raise InputError(
            f"context: {context:,} tokens and {new_tokens} more were asked for; {model.id or where} has a table of "
            f"{model.max_positions:,} positions, and no pass runs beyond it"
        )
    if layers is not None:
        check_positive("layers", layers)
        if layers < depth_of(model):
            with_layers(config, model, layers)
            _shallower(model, layers)
        elif layers > depth_of(model):
            raise InputError(f"layers: {layers} were asked for; {model.id or where} has {depth_of(model)}")
    return Asked(model, config, where, context, batch, images, image_size, image, new_tokens, device, number, layers)


def _config(name: str) -> tuple[Mapping[str, Any], str]:
    """The fields of a config, and what errors call it."""
    from pathlib import Path

    from vlmmem.catalog import model_facts
    from vlmmem.readers.hf_config import read_config

    path = Path(name)
    try:
        file = path / "config.json" if path.is_dir() else path
        there = file.is_file()
    except (OSError, ValueError):
        there = False
    if not there and (name.endswith(".json") or name.startswith((".", "/", "~"))):
        raise InputError(f"{name[:100]!r}: no such config.json or folder; a model's name or its config is needed")
    if not there:
        found: Mapping[str, Any] = model_facts(name)["config"]
        return found, name
    if file.suffix != ".json":
        raise InputError(f"{file.name[:100]}: a config.json is needed; a model is built from its config's fields")
    return read_config(file), str(file)[-100:]


def _learned_positions(model: Model) -> bool:
    """Whether positions of the decoder are looked up in a table."""
    around = model.decoder.tensors
    return any(tensor.kind == _LEARNED for tensor in around)


def _shallower(model: Model, layers: int) -> int:
    """Layers of the second model that tells what a layer adds: as many less as the kinds take to repeat."""
    every = period(model)
    fewer = layers - every
    least = max(every, _FEWEST)
    if fewer < least:
        raise InputError(
            f"layers: {layers} were asked for; their kinds repeat every {every}, and to tell what {every} more add, "
            f"{least + every} or more are needed"
        )
    return fewer


def measure(asked: Asked) -> Measurement:
    """Build the model, run its passes and count.

    With fewer layers than the model has, two models are measured, and what the layers between them add is added for
    every layer that is missing: exact where all sizes grow by the layer, and said so in the notes.

    Raises:
        InputError: PyTorch or transformers is not installed, there is no such device, the class cannot be built or
            run, or memory was not enough.
    """
    from vlmmem.architectures.meta import available

    if not available():
        raise InputError(
            "measure: PyTorch and transformers are not installed; pip install 'vlmmem[transformers]' brings them"
        )
    device = find_device(asked.device)
    whole = depth_of(asked.model)
    notes = [device.told]
    if asked.model.quantization is not None:
        notes.append(f"weights in {asked.dtype}: what {asked.model.quantization.method} stores was not built")
    beyond = asked.context + asked.new_tokens - asked.model.max_positions
    if beyond > 0:
        notes.append(f"{beyond:,} tokens beyond the {asked.model.max_positions:,} positions it was made for")
    if asked.layers is None or asked.layers == whole:
        _room(asked, device, asked.model)
        sizes, attention = _passes(asked, device, asked.config)
        return Measurement(asked, device.name, sizes, whole, _software(device, attention), tuple(notes))
    fewer = _shallower(asked.model, asked.layers)
    few, attention = _passes(asked, device, with_layers(asked.config, asked.model, fewer))
    more, _ = _passes(asked, device, with_layers(asked.config, asked.model, asked.layers))
    _check_growth(few, more, _TOLERANCE.get(device.name, 0.0))
    sizes = extrapolated(few, more, (whole - asked.layers) // (asked.layers - fewer))
    notes.append(
        f"of {whole} layers {asked.layers} and {fewer} were built; the difference stands for each "
        f"{asked.layers - fewer} of the others"
    )
    return Measurement(asked, device.name, sizes, asked.layers, _software(device, attention), tuple(notes))


def _check_growth(few: Mapping[str, int], more: Mapping[str, int], tolerance: float) -> None:
    """Refuse to extrapolate a peak that does not grow by what a layer keeps: it lies before the last layer."""
    grown = {name: size - few[name] for name, size in more.items()}
    # the first new token may find more than it leaves: sliding layers drop the prompt's part outside their window
    for peak, caches in (("peak", ("cache",)), ("decode_peak", ("cache", "cache_after"))):
        if peak not in grown:
            continue
        kept = [grown["weights"] + grown[cache] for cache in caches]
        if all(abs(grown[peak] - each) > tolerance * each for each in kept):
            raise InputError(
                f"layers: {peak} grows by {grown[peak]:,} bytes where weights and cache grow by {kept[0]:,}; "
                "it does not lie in the last layers: more layers, or all of them, are needed"
            )


_FIXED = ("driver_before", "resident")


def extrapolated(few: Mapping[str, int], more: Mapping[str, int], times: int) -> dict[str, int]:
    """Sizes of a deeper model, from two whose difference stands for each of so many parts of the rest.

    >>> extrapolated({"weights": 10, "peak": 30}, {"weights": 14, "peak": 35}, 3)
    {'weights': 26, 'peak': 50}
    """
    return {name: size + times * (size - few[name]) for name, size in more.items() if name not in _FIXED}


def _software(device: Device, attention: str) -> dict[str, str | int]:
    """Whose figures these are: software, machine and day."""
    import platform
    from datetime import UTC, datetime

    import torch
    import transformers

    return {
        **device.described(),
        "attention": attention,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _room(asked: Asked, device: Device, model: Model) -> None:
    """Refuse what the host's memory cannot hold before the system ends the process."""
    if device.name != "cpu":
        return
    from pathlib import Path

    from vlmmem.memory import kv_cache_bytes, model_weights_bytes

    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, ValueError, StopIteration):
        return
    needed = sum(model_weights_bytes(model, asked.dtype).values())
    needed += kv_cache_bytes(model, asked.context, asked.batch, kv_dtype=asked.dtype)
    if needed > free:
        raise InputError(
            f"cpu: weights and cache are {needed:,} bytes, and the host has {free:,} left; "
            "--device fake counts without memory"
        )


def _passes(asked: Asked, device: Device, config: Mapping[str, Any]) -> tuple[dict[str, int], str]:
    """Sizes of one model (weights, what it is given, its cache and its peaks), and its kernel of attention."""
    import torch

    from vlmmem.architectures.meta import quiet

    try:
        with quiet(), torch.no_grad(), device.place():
            torch.manual_seed(0)
            network = build(config, asked.dtype, asked.where, values=device.values)
            text = network.config.get_text_config(decoder=True)
            return _run(asked, device, network), str(getattr(text, "_attn_implementation", None) or "own")
    except InputError:
        raise
    except Exception as error:  # whatever a class of transformers or a kernel raises
        if out_of_memory(error):
            raise InputError(
                f"{device.name}: memory was not enough for {asked.model.id or asked.where} with {asked.batch} x "
                f"{asked.context:,} tokens; fewer of them, --layers or --device fake is needed"
            ) from None
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_ERROR]
        raise InputError(
            f"{asked.where}: its class cannot run on {device.name} ({reason}); another device may"
        ) from None


def _run(asked: Asked, device: Device, network: Any) -> dict[str, int]:
    import torch

    given = inputs(network, asked.context, asked.batch, asked.images, asked.image)
    token = torch.full((asked.batch, 1), TEXT, dtype=torch.long)
    parameters, buffers = list(network.parameters()), list(network.buffers())
    sizes = {"weights": bytes_of(parameters), "buffers": bytes_of(buffers)}
    sizes["inputs"] = bytes_of([*given.values(), token])
    sizes |= device.built([*parameters, *buffers, *given.values(), token])
    with device.passing():
        device.begin()
        out = network(**given, use_cache=True, logits_to_keep=1)
        sizes["peak"] = device.peak()
        cache = _cache_of(out)
        sizes["cache"] = bytes_of(cached(cache))
        del out
        if asked.new_tokens:
            device.begin()
            for _ in range(asked.new_tokens):
                out = network(input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1)
                del out
            sizes["decode_peak"] = device.peak()
            sizes["cache_after"] = bytes_of(cached(cache))
    return sizes | device.after()


def _cache_of(out: Any) -> Any:
    cache = getattr(out, "past_key_values", None)
    return cache if cache is not None else getattr(out, "cache_params", None)
