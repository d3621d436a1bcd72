"""The config.json of a model, and what stands beside it in its folder."""

from pathlib import Path

from vlmmem.architectures import HOMES, build
from vlmmem.errors import InputError
from vlmmem.model import Model
from vlmmem.readers.stored import Header, is_file, open_file, shown
from vlmmem.record import replace
from vlmmem.strict_json import parse_json

__all__ = ["config_beside", "model_from_config", "model_from_folder", "model_of_file", "read_config"]

MOST_BYTES = 8 << 20
"""Bytes of the longest config: the longest published ones list each layer that is not quantised, in under 1 MB."""

MOST_VALUES = 300_000
"""JSON values in it."""


def read_config(path: Path) -> dict[str, object]:
    """The object in a config.json, read strictly.

    Raises:
        InputError: it cannot be read, is too long, is not strict JSON, or is no object.
    """
    stream, size = open_file(path, "a config.json")
    with stream:
        if size > MOST_BYTES:
            raise InputError(f"{shown(path)}: is {size:,} bytes long; a config of at most {MOST_BYTES:,} is needed")
        raw = stream.read(size)
    found = parse_json(raw, shown(path), MOST_VALUES, finite=False)
    if not isinstance(found, dict):
        raise InputError(f"{shown(path)}: holds no object; a config.json is needed")
    return found


def config_beside(folder: Path) -> tuple[Model | None, object, tuple[str, ...]]:
    """The model that a folder's config.json describes, that config, and notes; None where there is no config.

    Where its architecture is not known here, the model is None and a note says so.
    """
    path = folder / "config.json"
    if not is_file(path):
        return None, None, ()
    config = read_config(path)
    beside = folder / "hf_quant_config.json"
    extra = read_config(beside) if is_file(beside) else None
    kind = config.get("model_type")
    try:
        return build(config, shown(path), extra), config, ()
    except InputError as error:
        if not isinstance(kind, str) or kind in HOMES:
            raise
        return None, config, (str(error),)


def model_from_config(path: Path) -> Model:
    """The model of a config.json (its weights, if any, are not looked at)."""
    config = read_config(path)
    if "model_type" not in config and "weight_map" in config:
        return model_of_file(path)
    beside = path.with_name("hf_quant_config.json")
    extra = read_config(beside) if is_file(beside) else None
    return build(config, shown(path), extra)


def model_of_file(path: Path) -> Model:
    """The model of a .safetensors file, of one shard of it, or of its index, with the config.json beside it."""
    from vlmmem.readers.checkpoint import shard_of
    from vlmmem.readers.safetensors import read_header, read_index

    if path.name.endswith(".json"):
        return _with_config(read_index(path), path.parent)
    shard = shard_of(path)
    if shard is None or shard[1] == 1:
        return _with_config(read_header(path), path.parent)
    stem = path.name.removesuffix(f"-{shard[0]:05}-of-{shard[1]:05}.safetensors")
    index = path.with_name(f"{stem}.safetensors.index.json")
    if is_file(index):
        return _with_config(read_index(index), path.parent)
    return _with_config(_shards(path.parent, stem, shard[1]), path.parent)


def _shards(folder: Path, stem: str, count: int) -> Header:
    from vlmmem.readers.safetensors import join, read_header

    if count > 10_000:
        raise InputError(f"{shown(stem)}: is one of {count:,} shards; at most 10,000 are read")
    files = [folder / f"{stem}-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
    missing = [file for file in files if not is_file(file)]
    if missing:
        raise InputError(
            f"{shown(missing[0])}: {len(missing)} of {count} shards are not there;"
            " all of them are needed, or their index"
        )
    return join([read_header(file) for file in files])


def _with_config(header: Header, folder: Path) -> Model:
    from vlmmem.readers.checkpoint import model_from_index, model_from_safetensors

    built, config, notes = config_beside(folder)
    alone = header.kind == "index"
    model = model_from_index(header, built) if alone else model_from_safetensors(header, built, config)
    return replace(model, notes=(*model.notes, *notes)) if notes else model


def model_from_folder(folder: Path) -> Model | None:
    """The model of a folder with a config.json: by the headers of its safetensors files, or by the config alone.

    None where the folder has no config.json.

    Raises:
        InputError: config or files are damaged, or files stand side by side that no index and no name joins.
    """
    from vlmmem.readers.checkpoint import shard_of
    from vlmmem.readers.safetensors import read_header, read_index

    if not is_file(folder / "config.json"):
        return None
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    for name in ("model.safetensors.index.json", *(path.name for path in indexes)):
        if is_file(folder / name):
            return _with_config(read_index(folder / name), folder)
    files = sorted(path for path in folder.glob("*.safetensors") if is_file(path))
    if not files:
        return model_from_config(folder / "config.json")
    if is_file(folder / "model.safetensors"):
        return _with_config(read_header(folder / "model.safetensors"), folder)
    if len(files) == 1 or shard_of(files[0]):
        return model_of_file(files[0])
    raise InputError(
        f"{shown(folder)}: holds {len(files)} .safetensors files and no index; one of them, or their index, is needed"
    )
