"""A measurement as a run of the project's data set, and runs as a file."""

import json
import os
import shlex
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from vlmmem.errors import InputError
from vlmmem.measured.harness.network import depth_of
from vlmmem.measured.harness.passes import Measurement
from vlmmem.measured.run import Quantity, Run

__all__ = ["as_text", "run_of_measurement", "write_runs"]

_SOURCE = "https://github.com/huggingface/transformers/tree/v{version}"


def command_of(measurement: Measurement) -> list[str]:
    """The words of the command that measures the same again."""
    asked = measurement.asked
    name = asked.model.id or Path(asked.where).name
    words = ["vlmmem", "measure", name, "--context", str(asked.context), "--batch", str(asked.batch)]
    if asked.images and asked.image_size:
        words += ["--images", str(asked.images), "--image-size", "{}x{}".format(*asked.image_size)]
    words += ["--new-tokens", str(asked.new_tokens), "--device", measurement.device, "--dtype", asked.dtype]
    return [*words, "--layers", str(measurement.built)] if measurement.built != depth_of(asked.model) else words


def run_of_measurement(measurement: Measurement) -> Run:
    """A measurement as a run; its machine and software stand in the options, the command in the evidence."""
    asked, told = measurement.asked, measurement.described
    model = asked.model
    name = model.id or Path(asked.where).name
    words = (name, f"{asked.batch}x{asked.context}", f"{asked.images}images" if asked.images else "")
    parts = [measurement.device, *(word for word in words if word), asked.dtype]
    if measurement.built != depth_of(model):
        parts.append(f"{measurement.built}layers")
    card = told.get("card")
    total = told.get("card_memory")
    options = {key: value for key, value in told.items() if key not in ("transformers", "card", "card_memory")}
    options |= {"new_tokens": asked.new_tokens, "layers_built": measurement.built}
    return Run(
        id="-".join(parts)[:100],
        engine="transformers",
        version=str(told["transformers"]),
        model=name[:200],
        catalogue=model.id or None,
        why="" if model.id else "a config of its own, not of the catalogue",
        family=model.architecture,
        vision=model.vision is not None,
        dtype=asked.dtype,
        kv_dtype=asked.dtype,
        gpu=None if card is None else str(card),
        gpu_total=None if total is None else Quantity(int(total), "bytes"),
        gpus=None if card is None else 1,
        context=asked.context + asked.new_tokens,
        batch=asked.batch,
        input_tokens=asked.context,
        output_tokens=asked.new_tokens or None,
        images=asked.images,
        image_size=asked.image_size if asked.images else None,
        options=tuple(options.items()),
        measured=tuple((key, Quantity(size, "bytes")) for key, size in measurement.sizes.items()),
        source=_SOURCE.format(version=told["transformers"]),
        evidence=shlex.join(command_of(measurement)),
        notes="; ".join(measurement.notes),
        provenance="harness",
        split="own",
    )


def as_text(runs: Iterable[Run]) -> str:
    """Runs as the text of a file that `vlmmem.measured.read_runs` reads."""
    return json.dumps({"runs": [run.json() for run in runs]}, indent=1, ensure_ascii=False) + "\n"


def write_runs(path: Path, runs: Sequence[Run]) -> None:
    """Write runs as a file, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    text = as_text(runs)
    part = None
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as stream:
            part = Path(stream.name)
            stream.write(text)
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    except OSError as error:
        if part is not None:
            part.unlink(missing_ok=True)
        raise InputError(f"{str(path)[-100:]}: cannot be written ({error.strerror}); a file is needed") from None


def _umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found
