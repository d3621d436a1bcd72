"""A model by its id on the Hugging Face hub, through huggingface_hub (the optional extra "hub").

That library decides where from and with which rights: HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE.
What its cache holds is used first. Otherwise only configs and the index are fetched, and of few shards their headers,
by ranged reads: never a weight, and no code.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmmem.errors import InputError
from vlmmem.readers.checkpoint import model_from_safetensors
from vlmmem.readers.hf_config import config_beside, model_from_folder
from vlmmem.readers.safetensors import check_header, join
from vlmmem.readers.stored import shown
from vlmmem.record import replace

if TYPE_CHECKING:
    from vlmmem.model import Model

__all__ = ["FILES", "is_hub_id", "model_from_hub"]

FILES = (
    "config.json",
    "model.safetensors.index.json",
    "hf_quant_config.json",
    "preprocessor_config.json",
    "processor_config.json",
)
"""All that is fetched, weights' headers aside."""

FEW_SHARDS = 4
"""Headers are read over the network of as many shards; of more, the config and the index's total say enough."""

_PATIENCE = 5
"""Seconds until the hub has to answer first."""

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def is_hub_id(text: str) -> bool:
    """Whether a text has the form of a hub id.

    >>> is_hub_id("Qwen/Qwen3-8B"), is_hub_id("./model"), is_hub_id("a/b/c")
    (True, False, False)
    """
    return _ID.fullmatch(text) is not None and ".." not in text and "--" not in text


def model_from_hub(name: str) -> "Model":
    """The model of that hub id.

    Raises:
        InputError: huggingface_hub is not installed, the hub cannot be reached and the cache does not hold the model,
            there is no such model, or it is not open to this user.
    """
    try:
        import huggingface_hub as hub
    except ImportError:
        raise InputError(
            f"{name}: is no file and not in the catalogue; to ask the hub, huggingface_hub is needed (vlmmem[hub])"
        ) from None
    cached = hub.try_to_load_from_cache(name, "config.json")
    folder = Path(cached).parent if isinstance(cached, str) else _fetched(hub, name)
    model = model_from_folder(folder)
    if model is None:
        raise InputError(f"{name}: the hub has no config.json of it; a .gguf or .safetensors file of it is needed")
    if model.basis != "header" and not isinstance(cached, str):
        model = _with_headers(hub, name, folder) or model
    return replace(model, id=name, hub_id=name)


def _fetched(hub: Any, name: str) -> Path:
    """The folder of the cache that holds the config, fetched now."""
    hub.utils.disable_progress_bars()
    try:
        # A download tries again and again where there is no network; this asks once.
        hub.get_hf_file_metadata(hub.hf_hub_url(name, FILES[0]), timeout=_PATIENCE)
        config = hub.hf_hub_download(name, FILES[0])
    except Exception as error:
        raise _told(hub, name, error) from None
    for file in FILES[1:]:
        try:
            hub.hf_hub_download(name, file)
        except hub.errors.EntryNotFoundError:
            continue
        except Exception as error:
            raise _told(hub, name, error) from None
    return Path(config).parent


def _told(hub: Any, name: str, error: Exception) -> InputError:
    """One line for what huggingface_hub raised: what was wrong, and what would help."""
    errors = hub.errors
    if isinstance(error, errors.GatedRepoError):
        return InputError(f"{name}: is gated on the hub; accept its terms there and set HF_TOKEN, or give a local file")
    if isinstance(error, errors.RepositoryNotFoundError):
        return InputError(
            f"{name}: the hub has no such model, or it is private;"
            " the right id is needed, or HF_TOKEN for a private one"
        )
    offline = (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError, TimeoutError)
    if isinstance(error, offline) or type(error).__name__ in ("ConnectError", "ConnectTimeout", "ReadTimeout"):
        return InputError(
            f"{name}: is not in the local cache and the hub cannot be reached; a network, HF_ENDPOINT or a local file"
            " is needed"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return InputError(f"{name}: the hub has no config.json of it; a .gguf or .safetensors file of it is needed")
    reason = shown(" ".join(str(error).split()) or type(error).__name__, 200)
    return InputError(f"{name}: the hub did not answer ({reason}); a network, HF_ENDPOINT or a local file is needed")


def _with_headers(hub: Any, name: str, folder: Path) -> "Model | None":
    """The model by the headers of its shards, where they are few; None where that is not to be had."""
    index = folder / "model.safetensors.index.json"
    try:
        if index.is_file():
            shards = {*json.loads(index.read_bytes())["weight_map"].values()}
            if len(shards) > FEW_SHARDS:
                return None
        found = hub.get_safetensors_metadata(name)
    except Exception:
        # Not every repository has such files; the config has answered already.
        return None
    headers = []
    for file, metadata in found.files_metadata.items():
        root = {
            tensor: {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": list(info.data_offsets)}
            for tensor, info in metadata.tensors.items()
        }
        headers.append(check_header(root, Path(file)))
    built, config, notes = config_beside(folder)
    model = model_from_safetensors(join(headers), built, config)
    return replace(model, notes=(*model.notes, *notes))
