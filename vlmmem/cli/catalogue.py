"""The commands over the catalogue: models, gpus, formats."""

from typing import TYPE_CHECKING

from vlmmem.cli.answers import columns, say

if TYPE_CHECKING:
    import argparse
    from typing import Any

__all__ = ["COMMANDS"]


def _models(options: "argparse.Namespace") -> int:
    from vlmmem.catalog import models
    from vlmmem.memory import kv_bytes_per_token, weights_bytes
    from vlmmem.units import show_both

    rows: list[dict[str, Any]] = [
        {
            "id": item.id,
            "name": item.name,
            "hub_id": item.hub_id,
            "parameters": item.parameters,
            "parameters_by_part": dict(item.parameters_by_part),
            "weights_bytes": weights_bytes(item.parameters),
            "kv_bytes_per_token": kv_bytes_per_token(item),
            "attention": item.attention,
        }
        for item in models()
    ]
    if options.json:
        say(rows)
        return 0
    head = ("model", "parameters", "weights in bf16", "KV cache a token", "attention")
    body = (
        (
            str(row["id"]),
            f"{row['parameters']:,}",
            show_both(row["weights_bytes"]),
            f"{row['kv_bytes_per_token']:,} B",
            str(row["attention"]),
        )
        for row in rows
    )
    say(columns([head, *body]))
    return 0


def _gpus(options: "argparse.Namespace") -> int:
    from vlmmem.catalog import gpus
    from vlmmem.units import show, show_both

    found = gpus()
    if options.json:
        keys = ("id", "name", "memory_bytes", "memory_basis", "vendor_gb", "bandwidth")
        say([{key: getattr(item, key) for key in keys} for item in found])
        return 0
    head = ("GPU", "name", "memory", "sold as", "bandwidth")
    body = (
        (item.id, item.name, show_both(item.memory_bytes), f"{item.vendor_gb} GB", show(item.bandwidth, "TB/s", 2))
        for item in found
    )
    say(columns([head, *body]))
    return 0


def _formats(options: "argparse.Namespace") -> int:
    from vlmmem.catalog import formats

    found = formats()
    if options.json:
        say([{"id": item.id, "name": item.name, "bits": float(item.bits)} for item in found])
        return 0
    say(columns([("format", "bits a weight", "name"), *((f.id, f"{float(f.bits):.4g}", f.name) for f in found)]))
    return 0


def _no_arguments(sub: "argparse.ArgumentParser") -> None:
    """They take --json alone."""


COMMANDS = {
    "models": (_no_arguments, _models),
    "gpus": (_no_arguments, _gpus),
    "formats": (_no_arguments, _formats),
}
