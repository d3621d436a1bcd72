"""A measurement as a run of the project's data set."""

import os
import shlex
from pathlib import Path

from vlmmem.errors import InputError
from vlmmem.measured.harness.network import depth_of
from vlmmem.measured.harness.passes import Measurement
from vlmmem.measured.run import Quantity, Run

__all__ = ["check_place", "command_of", "run_of_measurement"]

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


def check_place(path: Path) -> None:
    """Refuse a path to which no file can be written, before anything is measured.

    Raises:
        InputError: its folder is not there or cannot be written to, or it is a folder itself.
    """
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{str(path)[-100:]}: cannot be written; a file in a folder that can is needed")
