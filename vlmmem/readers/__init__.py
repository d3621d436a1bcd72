"""Models out of files: a config, a folder, the header of a safetensors or GGUF file, a name of the catalogue or hub."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vlmmem.errors import InputError
from vlmmem.record import replace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vlmmem.model import Model

__all__ = ["open_model"]

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_KINDS = (".json", ".safetensors", ".gguf", *_PICKLES)


def open_model(text: str, mmproj: str | None = None) -> "Model":
    """The model that a text names: a path, a name or hub id of the catalogue, or a hub id.

    A path is a config.json, a folder with one, a .safetensors file or its index, or a .gguf file (one part brings the
    others). Exact bytes of a header are preferred to what a config says. Nothing in a file is executed.

    Args:
        text: the path or name.
        mmproj: the path of a GGUF model's vision tower; where it is None, one that fits and stands beside is taken.

    Raises:
        InputError: there is no such file and no such name, or what is there is damaged or not known.

    >>> open_model("llama-2-13b").basis
    'config'
    """
    path = Path(text)
    try:
        there = bool(text.strip()) and os.path.lexists(path)
    except ValueError:
        there = False
    if there:
        try:
            return _of_path(path, mmproj)
        except OSError as error:
            raise InputError(f"{_shown(path)}: cannot be read ({error.strerror}); a readable file is needed") from None
    if text.lower().endswith(_KINDS) or text.startswith((".", "/", "~")):
        raise InputError(f"{_shown(text)}: no such file or folder; a file, or a model's name, is needed")
    from vlmmem.catalog import find_model

    try:
        return find_model(text)
    except InputError as error:
        from vlmmem.readers.hub import is_hub_id, model_from_hub

        if not is_hub_id(text):
            raise InputError(f"{error}; there is no such file, and it is no hub id (ORGANISATION/NAME)") from None
    return model_from_hub(text)


def _shown(value: object) -> str:
    from vlmmem.readers.stored import shown

    return shown(value)


def _of_path(path: Path, mmproj: str | None) -> "Model":
    if path.is_dir():
        return _of_folder(path, mmproj)
    from vlmmem.readers.hf_config import model_from_config, model_of_file
    from vlmmem.readers.stored import open_file

    kind = path.suffix.lower()
    if kind in _PICKLES:
        raise InputError(
            f"{_shown(path)}: is a pickle, which may run code when it is read; its .safetensors file is needed"
        )
    stream, _ = open_file(path, "a config.json, .safetensors or .gguf file")
    with stream:
        start = stream.read(4)
    if start == b"GGUF" or kind == ".gguf":
        return _of_gguf(path, mmproj)
    if mmproj is not None:
        raise InputError(f"{_shown(path)}: is no GGUF file; a vision tower apart goes with one")
    if kind == ".safetensors":
        return replace(model_of_file(path), id=path.stem, folder=str(path.parent))
    if kind == ".json" or start.lstrip()[:1] == b"{":
        found = model_of_file(path) if path.name.endswith(".index.json") else model_from_config(path)
        return replace(found, id=_name(path), folder=str(path.parent))
    raise InputError(f"{_shown(path)}: is of no kind that is read; a config.json, .safetensors or .gguf file is needed")


def _name(path: Path) -> str:
    """What a config or an index is called: its folder, where its own name says nothing."""
    own = path.name in ("config.json", "model.safetensors.index.json")
    return path.resolve().parent.name or path.stem if own else path.stem


def _of_folder(folder: Path, mmproj: str | None) -> "Model":
    from vlmmem.readers.hf_config import model_from_folder

    try:
        ggufs = [path for path in sorted(folder.glob("*.gguf")) if path.is_file()]
        others = any(folder.glob("*.safetensors")) or any(folder.glob("*.safetensors.index.json"))
    except OSError as error:
        raise InputError(f"{_shown(folder)}: cannot be read ({error.strerror}); a model's folder is needed") from None
    if ggufs and not others:
        return _of_ggufs(folder, ggufs, mmproj)
    found = model_from_folder(folder)
    if found is None:
        raise InputError(f"{_shown(folder)}: has no config.json; a model's folder with one, or a GGUF file, is needed")
    return replace(found, id=folder.resolve().name, folder=str(folder))


def _of_ggufs(folder: Path, ggufs: list[Path], mmproj: str | None) -> "Model":
    from vlmmem.readers.gguf import split_names

    first: dict[Path, None] = {}
    for path in ggufs:
        if "mmproj" not in path.name.lower():
            names = split_names(path)
            first[names[0] if names else path] = None
    if len(first) != 1:
        names_ = ", ".join(_shown(path) for path in list(first)[:4])
        raise InputError(f"{_shown(folder)}: holds {len(first)} GGUF models ({names_}); the name of one file is needed")
    return _of_gguf(next(iter(first)), mmproj)


def _of_gguf(path: Path, mmproj: str | None) -> "Model":
    from vlmmem.readers.gguf import read_gguf
    from vlmmem.readers.gguf_model import model_from_gguf

    header = read_gguf(path)
    notes: tuple[str, ...] = ()
    tower = None
    if mmproj is not None:
        tower = read_gguf(Path(mmproj))
    elif header.metadata.get("general.architecture") != "clip":
        for beside in _towers(path):
            tower = read_gguf(beside)
            if _fits(header.metadata, tower.metadata):
                notes = (f"the vision tower is that of {_shown(beside)} beside it",)
                break
            tower = None
    model = model_from_gguf(header, tower)
    return replace(model, id=path.stem, notes=(*model.notes, *notes))


def _towers(path: Path) -> list[Path]:
    """The mmproj files beside a GGUF file: the one in fp16 first, which is what is published most."""
    found = [each for each in sorted(path.parent.glob("*mmproj*.gguf")) if each.is_file() and each != path]
    return sorted(found, key=lambda each: "bf16" in each.name.lower() or "f16" not in each.name.lower())


def _fits(model: "Mapping[str, object]", tower: "Mapping[str, object]") -> bool:
    """Whether a tower's projector ends in the width of the language model."""
    width = model.get(f"{model.get('general.architecture')}.embedding_length")
    return tower.get("general.architecture") == "clip" and tower.get("clip.vision.projection_dim") == width
