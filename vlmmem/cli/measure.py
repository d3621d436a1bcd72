"""The command that runs a model and records its memory: measure."""

import argparse
from typing import TYPE_CHECKING

from vlmmem.cli.answers import columns, count, say
from vlmmem.cli.estimates import IMAGE_SIZE, size

if TYPE_CHECKING:
    from vlmmem.measured.harness import Measurement

__all__ = ["COMMANDS"]


def _whole(text: str) -> int:
    return 0 if text == "0" else count(text)


def _arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", metavar="MODEL", help="catalogue name or hub id, config.json, or a folder with one")
    sub.add_argument("--batch", type=count, default=1, metavar="N", help="sequences in a pass (1)")
    sub.add_argument(
        "--context", type=count, metavar="TOKENS", help="tokens of each prompt, those of its images among them (4,096)"
    )
    sub.add_argument("--images", type=_whole, default=0, metavar="N", help="images of each sequence (0)")
    sub.add_argument(
        "--image-size", type=size, metavar="WxH", help=f"pixels of each image ({IMAGE_SIZE[0]}x{IMAGE_SIZE[1]})"
    )
    sub.add_argument("--new-tokens", type=_whole, default=1, metavar="N", help="tokens after the prompt (1)")
    sub.add_argument(
        "--device",
        default="auto",
        metavar="DEVICE",
        help="cuda, cpu, fake (tensors without memory), or auto: cuda where there is a GPU, else fake (auto)",
    )
    sub.add_argument("--dtype", metavar="FORMAT", help="bf16, fp16 or fp32 (the model's own)")
    sub.add_argument("--layers", type=count, metavar="K", help="layers to build; the rest is extrapolated (all)")
    sub.add_argument("-o", "--output", metavar="FILE", help="write the record there, as a file of runs")


def _measure(options: argparse.Namespace) -> int:
    from pathlib import Path

    from vlmmem.measured.harness import ask, check_place, differences, measure, run_of_measurement
    from vlmmem.measured.records import write_runs

    asked = ask(
        options.model,
        context=options.context,
        batch=options.batch,
        images=options.images,
        image_size=options.image_size or (IMAGE_SIZE if options.images else None),
        new_tokens=options.new_tokens,
        device=options.device,
        dtype=options.dtype,
        layers=options.layers,
    )
    if options.output:
        check_place(Path(options.output))
    found = measure(asked)
    run = run_of_measurement(found)
    if options.output:
        write_runs(Path(options.output), [run])
    if options.json:
        beside = [
            {"name": each.name, "measured": each.measured, "predicted": each.predicted, "said": each.said}
            for each in differences(found)
        ]
        say({"run": run.json(), "compared": beside})
    else:
        say(told(found))
    return 0


def told(found: "Measurement") -> str:
    """A measurement as text: the case, each size, and what the package says beside it."""
    from vlmmem.measured.harness import differences
    from vlmmem.units import show_fitting

    asked, machine = found.asked, found.described
    case = f"{asked.batch:,} x {asked.context:,} tokens, {asked.new_tokens:,} more"
    if asked.images and asked.image_size:
        case += ", in each {} x {}x{} pixels".format(asked.images, *asked.image_size)
    software = f"transformers {machine['transformers']}, torch {machine['torch']}, attention {machine['attention']}"
    where = ", ".join(str(machine[key]) for key in ("device", "card", "processor", "driver", "cuda") if key in machine)
    facts = [
        ("model", f"{asked.model.name or asked.model.id or asked.where} ({asked.model.architecture}), {asked.dtype}"),
        ("workload", case),
        ("machine", f"{where}; Python {machine['python']}, {machine['platform']}, {machine['date']}"),
        ("software", software),
    ]
    sizes = [("measured", "bytes", "")]
    sizes += [(name, f"{value:,}", show_fitting(value)) for name, value in found.sizes.items()]
    rows = [("compared", "measured", "vlmmem says", "difference", "", "by")]
    rows += [
        (each.name, f"{each.measured:,}", f"{each.predicted:,}", f"{each.bytes:+,}", f"{each.share:+.2%}", each.said)
        for each in differences(found)
    ]
    lines = [columns(facts), "", columns(sizes), "", columns(rows), ""]
    return "\n".join([*lines, *(f"note: {note}" for note in found.notes)])


COMMANDS = {"measure": (_arguments, _measure)}
