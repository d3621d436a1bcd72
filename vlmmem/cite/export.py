"""What the project publishes, as committed data: every figure and document, every entry of the catalogue, every run.

The committed files are the accepted state. Whatever changes a verdict, a value or a catalogue entry changes them, so a
change goes unnoticed only if somebody accepts it, and accepting writes a line into the CHANGELOG.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

from vlmmem import catalog, images, measured
from vlmmem import published as published_room
from vlmmem.errors import InputError
from vlmmem.ledger import load
from vlmmem.ledger.conventions import conventions
from vlmmem.memory import kv_bytes_per_token, weights_bytes

FOLDER = Path(published_room.FOLDER)
CHANGELOG = Path("CHANGELOG.md")
HEADING = "### Accepted figures"


def _plain(value: Any) -> Any:
    """A catalogue entry's fields as JSON: fractions as text, so that they stay exact."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Fraction) else value


def _digest(value: object) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def published() -> dict[str, list[dict[str, Any]]]:
    """File name to content: the figures with their verdicts and grounds, and what the catalogue's entries come to."""
    models = [
        {
            **{name: value for name, value in facts.items() if name not in ("config", "hf_quant_config")},
            # a config is long; its digest tells that it changed
            "config_sha256": _digest({name: facts.get(name) for name in ("config", "hf_quant_config")}),
            "basis": item.basis,
            "parameters": item.parameters,
            "parameters_by_part": dict(item.parameters_by_part),
            "weights_bytes_bf16": weights_bytes(item.parameters),
            "kv_bytes_per_token_bf16": kv_bytes_per_token(item),
        }
        for facts, item in catalog.stated_models()
    ]
    return {
        "figures.json": [item.json() for item in load().figures],
        "grounds.json": [
            {
                "id": item.id,
                "arguments": _plain(dict(item.arguments)),
                "evidence": [_plain(asdict(each)) for each in item.evidence],
            }
            for item in load().figures
        ],
        "models.json": models,
        "processors.json": list(images.stated_processors()),
        "gpus.json": [_plain(asdict(item)) for item in catalog.gpus()],
        "links.json": [_plain(asdict(item)) for item in catalog.links()],
        "formats.json": [_plain(asdict(item)) for item in catalog.formats()],
        "runtimes.json": [_plain(asdict(item)) for item in catalog.runtimes()],
        "subjects.json": [{"id": item.title, "figures": list(item.figures)} for item in load().subjects],
        "documents.json": [_plain(asdict(item)) for item in load().documents.values()],
        "conventions.json": [_plain(asdict(item)) for item in conventions().values()],
        "runs.json": [
            # a run's digest tells that it changed; the run itself stands in vlmmem/measured/runs
            {"id": item.id, "engine": item.engine, "split": item.split, "sha256": _digest(item.json())}
            for item in measured.runs()
        ],
    }


def as_text(content: object) -> str:
    """The bytes of a published file: sorted as listed, readable in a diff."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _by_id(content: object) -> Mapping[str, Any]:
    return {entry["id"]: entry for entry in content} if isinstance(content, list) else {}


def _short(value: object, most: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def changes(folder: Path = FOLDER) -> list[str]:
    """One line for every entry that differs from the accepted export; empty where nothing changed."""
    lines: list[str] = []
    for name, content in published().items():
        path = folder / name
        before = len(lines)
        try:
            old = _by_id(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
        except ValueError:
            old = {}
        new = _by_id(json.loads(as_text(content)))
        for key in {**old, **new}:
            if key not in old:
                lines.append(f"{path.parent.name}/{name}: {key} is new")
            elif key not in new:
                lines.append(f"{path.parent.name}/{name}: {key} is gone")
            else:
                fields = [field for field in {**old[key], **new[key]} if old[key].get(field) != new[key].get(field)]
                lines += [
                    f"{path.parent.name}/{name}: {key}: {field} was {_short(old[key].get(field))},"
                    f" is {_short(new[key].get(field))}"
                    for field in fields
                ]
        if len(lines) == before and (not path.exists() or path.read_text(encoding="utf-8") != as_text(content)):
            lines.append(f"{path.parent.name}/{name}: not as it would be written")
    return lines


def stale_key(folder: Path = FOLDER) -> bool:
    """Whether the accepted export carries another key than the package has now."""
    path = folder / published_room.KEY
    return not path.exists() or path.read_text(encoding="ascii").strip() != published_room.key()


def refresh_key(folder: Path = FOLDER) -> bool:
    """Write the package's present key beside an export that has not changed. Returns whether it was written."""
    if not stale_key(folder) or changes(folder):
        return False
    (folder / published_room.KEY).write_text(published_room.key() + "\n", encoding="ascii")
    return True


def accept(root: Path, reason: str, folder: Path = FOLDER) -> list[str]:
    """Rewrite the export and record what changed, with its reason, in the CHANGELOG. Returns the changes."""
    changed = changes(folder)
    if not changed:
        refresh_key(folder)
        return []
    if not reason.strip() or "\n" in reason:
        raise InputError("accept: a reason of one line is needed: make accept REASON='why the figures changed'")
    changelog = root / CHANGELOG
    text = changelog.read_text(encoding="utf-8")
    if HEADING not in text:
        raise InputError(f"{CHANGELOG}: has no heading {HEADING!r}; put one under the unreleased version")

    def entries(ending: str = "") -> int:
        """Entries of which a change is told; one entry may stand in several files."""
        return len({line.split(": ")[1].split(" is ")[0] for line in changed if line.endswith(ending)})

    line = f"- {reason.strip()} ({entries()} entries: {entries(' is new')} new, {entries(' is gone')} gone)"
    for name, content in published().items():
        (folder / name).write_text(as_text(content), encoding="utf-8")
    refresh_key(folder)
    head, tail = text.split(HEADING, 1)
    changelog.write_text(f"{head}{HEADING}\n\n{line}\n{tail.lstrip()}", encoding="utf-8")
    return changed
