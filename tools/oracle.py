"""Ask PyTorch and transformers what the package must agree with, and keep their answers as data.

Runs in an environment of its own (`make oracle`), never in the package's: PyTorch weighs a gigabyte. Models are built
on PyTorch's meta device, so no weights are needed and every model takes a second.

    python tools/oracle.py                          write tests/oracle/*.json
    python tools/oracle.py --check                  fail (1) if that would change them
    python tools/oracle.py --configs DIR --out F    the same for a folder of config.json files
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import torch  # noqa: E402 (the environment of the oracle has it)
import transformers  # noqa: E402

from vlmmem.catalog import models  # noqa: E402
from vlmmem.model import Model, VisionTower  # noqa: E402

ANSWERS = ROOT / "tests" / "oracle"
PARTS = (("vision_tower", "vision"), ("multi_modal_projector", "projector"), ("image_newline", "projector"))
VISION_PREFIXES = ("vision_tower", "vision_model", "visual", "vision", "image_encoder")


def versions() -> dict[str, str]:
    """Whose answers these are; the suffix that names a build of PyTorch (+cpu) says nothing about them."""
    return {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}


def decoder_config(model: Model) -> dict[str, Any]:
    """The fields of a decoder's config.json that set shapes, under the names that its class reads."""
    family = {"llava": "llama", "llava_next": "llama"}.get(model.architecture, model.architecture)
    if family == "gpt2":
        return {
            "model_type": family,
            "n_layer": model.layers,
            "n_embd": model.hidden_size,
            "n_head": model.heads,
            "n_inner": model.intermediate_size,
            "n_positions": model.max_positions,
            "vocab_size": model.vocab_size,
            "activation_function": model.activation,
            "tie_word_embeddings": model.tied_embeddings,
        }
    fields: dict[str, Any] = {
        "model_type": family,
        "num_hidden_layers": model.layers,
        "hidden_size": model.hidden_size,
        "num_attention_heads": model.heads,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.max_positions,
        "tie_word_embeddings": model.tied_embeddings,
    }
    if family == "opt":
        return fields | {
            "ffn_dim": model.intermediate_size,
            "activation_function": model.activation,
            "word_embed_proj_dim": model.hidden_size,
        }
    fields |= {
        "num_key_value_heads": model.kv_heads,
        "intermediate_size": model.intermediate_size,
        "hidden_act": model.activation,
    }
    if family in ("llama", "mistral"):
        fields["head_dim"] = model.head_dim
    if family == "mistral":
        fields["sliding_window"] = model.sliding_window
    return fields


def tower_config(tower: VisionTower) -> dict[str, Any]:
    """The same for a CLIP tower."""
    return {
        "model_type": "clip_vision_model",
        "num_hidden_layers": tower.layers,
        "hidden_size": tower.hidden_size,
        "num_attention_heads": tower.heads,
        "intermediate_size": tower.intermediate_size,
        "image_size": tower.image_size,
        "patch_size": tower.patch_size,
        "num_channels": tower.channels,
    }


def hub_config(model: Model) -> dict[str, Any]:
    """A config.json with what sets shapes, for a model of the catalogue."""
    decoder = decoder_config(model)
    if model.vision is None:
        return decoder
    return {
        "model_type": model.architecture,
        "text_config": decoder,
        "vision_config": tower_config(model.vision),
        "tie_word_embeddings": model.tied_embeddings,
    }


def build(config: dict[str, Any]) -> torch.nn.Module:
    """The model that transformers builds for a config.json, on the meta device."""
    fields = {name: value for name, value in config.items() if name != "quantization_config"}
    kind = fields.pop("model_type", None)
    if kind is None:
        raise ValueError("names no model_type")
    parsed = transformers.AutoConfig.for_model(kind, **fields)
    named = (config.get("architectures") or [None])[0]
    known = getattr(transformers, named, None) if named else None
    if named and known is None:
        raise ValueError(f"transformers has no class {named}")
    with torch.device("meta"):
        if known is not None:
            return known(parsed)  # type: ignore[no-any-return]
        for auto in (transformers.AutoModelForCausalLM, transformers.AutoModelForImageTextToText):
            if type(parsed) in auto._model_mapping:
                return auto.from_config(parsed)  # type: ignore[no-any-return]
    raise ValueError(f"transformers has no generating class for {kind}")


def part_of(name: str) -> str:
    """Which part of the model a parameter of that name belongs to."""
    pieces = name.split(".")
    for piece, part in PARTS:
        if piece in pieces:
            return part
    return "vision" if any(piece in VISION_PREFIXES for piece in pieces[:2]) else "language"


def count(module: torch.nn.Module) -> dict[str, Any]:
    """Parameters in all and by part; a tied weight is one tensor and counts once."""
    parts: Counter[str] = Counter()
    for name, parameter in module.named_parameters():
        parts[part_of(name)] += parameter.numel()
    return {
        "class": type(module).__name__,
        "parameters": parts.total(),
        "parameters_by_part": dict(sorted(parts.items())),
    }


def catalogue_parameters() -> dict[str, Any]:
    """The answers for the catalogue."""
    return {
        "versions": versions(),
        "models": {model.id: count(build(hub_config(model))) for model in models()},
    }


def config_files(folder: Path) -> list[Path]:
    """Every config.json below the folder, and every other JSON object in it that names a model_type."""
    files = {*folder.rglob("config.json"), *folder.glob("*.json")}
    return sorted(files)


def shapes(config: dict[str, Any]) -> dict[str, Any]:
    """What transformers reads from a config, defaults filled in: the shapes that set weights and KV cache."""
    parsed = transformers.AutoConfig.for_model(
        config["model_type"], **{name: value for name, value in config.items() if name != "model_type"}
    )
    text = parsed.get_text_config()
    heads = text.num_attention_heads
    return {
        "layers": text.num_hidden_layers,
        "hidden_size": text.hidden_size,
        "heads": heads,
        "kv_heads": getattr(text, "num_key_value_heads", None) or heads,
        "head_dim": getattr(text, "head_dim", None) or text.hidden_size // heads,
        "vocab_size": text.vocab_size,
        "max_positions": text.max_position_embeddings,
        "tied_embeddings": bool(parsed.tie_word_embeddings),
    }


def folder_parameters(folder: Path) -> dict[str, Any]:
    """The answers for a folder of configs; a config that cannot be built has `error` in their place."""
    answers: dict[str, Any] = {}
    for path in config_files(folder):
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict) or ("model_type" not in config and path.name != "config.json"):
            continue
        name = path.relative_to(folder).as_posix()
        try:
            answers[name] = count(build(config)) | {"shapes": shapes(config)}
        except Exception as error:
            answers[name] = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    return {"versions": versions(), "configs": answers}


def as_text(answers: dict[str, Any]) -> str:
    """The answers as they are committed."""
    return json.dumps(answers, indent=1, sort_keys=True) + "\n"


def forward() -> dict[str, Any]:
    """The peaks of real forward passes, by their own module."""
    import oracle_forward

    return {"versions": versions(), **oracle_forward.answers()}


RECORDS: dict[str, Callable[[], dict[str, Any]]] = {"parameters.json": catalogue_parameters}


def main() -> int:
    """Write the answers, or compare them with those that are committed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if an answer would change")
    parser.add_argument("--configs", type=Path, metavar="DIR", help="a folder of config.json files")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the answers for --configs go")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    if (options.configs is None) != (options.out is None):
        parser.error("--configs DIR and --out FILE go together")
    if options.configs is not None:
        if not options.configs.is_dir():
            parser.error(f"--configs: {options.configs} is not a folder")
        answers = {options.out: folder_parameters(options.configs)}
    else:
        answers = {ANSWERS / name: ask() for name, ask in RECORDS.items()}
    changed = []
    for path, answer in answers.items():
        text = as_text(answer)
        if options.check:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                changed.append(path)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"{path}: {len(next(v for k, v in answer.items() if k != 'versions'))} answers")
    for path in changed:
        print(
            f"{path}: the oracle answers differently; `make oracle` without --check rewrites it",
            file=sys.stderr,
        )
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
