"""Checkpoints that transformers saves of tiny models with random weights, read back by their headers.

    python tools/oracle_files.py       one line a model; 1 where a header's parameters or bytes differ

Runs in the oracle's own environment (tools/oracle-requirements.txt). Nothing is kept: the files stand in a temporary
folder. What is compared: parameters as transformers counts them (tied weights once), and all bytes of the file, with
the config.json beside it; `alone` is what the header says without it.
"""

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools.oracle_configs import variants  # noqa: E402 (the checkout comes first)
from vlmmem.errors import InputError  # noqa: E402
from vlmmem.readers import open_model  # noqa: E402

LARGEST = 60_000_000
"""Parameters of the largest model that is written here."""


def save(config: dict[str, Any], folder: Path) -> tuple[int, int] | None:
    """Write the model of a config; its parameters and the bytes of its file, or None where it is too large."""
    import torch
    import transformers

    parsed = transformers.AutoConfig.for_model(**config)
    known = type(parsed) in transformers.AutoModelForImageTextToText._model_mapping
    auto = transformers.AutoModelForImageTextToText if known else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        if sum(p.numel() for p in auto.from_config(parsed).parameters()) > LARGEST:
            return None
    model = auto.from_config(parsed)
    model.save_pretrained(folder)
    return model.num_parameters(), sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def compare(name: str, config: dict[str, Any]) -> str | None:
    """What differs between a saved model and its header, or None; prints one line."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with contextlib.redirect_stdout(sys.stderr):
            saved = save(config, folder)
        if saved is None:
            return None
        parameters, size = saved
        found = open_model(place)
        (file,) = sorted(folder.glob("*.safetensors"))
        length = 8 + int.from_bytes(file.read_bytes()[:8], "little")
        held = sum(tensor.stored or 0 for _, tensor in found.tensors())
        (folder / "config.json").unlink()
        try:
            alone = str(open_model(str(file)).parameters)
        except InputError as error:
            alone = str(error)
    right = found.parameters == parameters and held == size - length
    print(
        json.dumps(
            {"model": name, "parameters": parameters, "header": found.parameters, "alone": alone, "right": right}
        )
    )
    return None if right else name


def main() -> int:
    """Save and read every small config of the oracle."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    asked = sys.argv[1:]
    wrong = []
    for name, config in variants().items():
        if asked and not any(word in name for word in asked):
            continue
        try:
            found = compare(name, config)
        except (InputError, ValueError, TypeError, AttributeError, KeyError) as error:
            found = f"{name}: {type(error).__name__}: {error}"
        if found:
            wrong.append(found)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
