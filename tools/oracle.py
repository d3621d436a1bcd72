"""Ask PyTorch and transformers what the package must agree with, and keep their answers as data.

    python tools/oracle.py                           rewrite tests/oracle/*.json; 1 if an answer changed
    python tools/oracle.py --check                   write nothing; 1 if an answer would change
    python tools/oracle.py --configs DIR [--out F]   the parameters of every config.json in a folder

They run in an environment of their own, .venv-oracle, which this command makes: PyTorch weighs a gigabyte
and the package needs none of it. TORCH_INDEX in the environment names the index from which PyTorch is
installed, for machines where the default one brings CUDA along. Models are built on the meta device, so no
weights are needed and every model takes a second.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from vlmmem.catalog import models  # noqa: E402 (the checkout comes first)
from vlmmem.model import Model, VisionTower  # noqa: E402

if TYPE_CHECKING:
    import torch

ANSWERS = ROOT / "tests" / "oracle"
ENVIRONMENT = ROOT / ".venv-oracle"
REQUIREMENTS = ROOT / "tools" / "oracle-requirements.txt"
PARTS = (("vision_tower", "vision"), ("multi_modal_projector", "projector"), ("image_newline", "projector"))
VISION_PREFIXES = ("vision_tower", "vision_model", "visual", "vision", "image_encoder")
LONGEST_ERROR = 200


def environment() -> Path:
    """The Python of .venv-oracle; makes the environment where it is missing or asks for other versions."""
    python = ENVIRONMENT / "bin" / "python"
    stamp = ENVIRONMENT / "installed"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    subprocess.run([ROOT / "tools" / "venv.sh", ENVIRONMENT], check=True)
    # Of the thousands of files that transformers brings, the oracle imports few: the first run compiles those.
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--no-compile"]
    index = os.environ.get("TORCH_INDEX")
    if index:
        torch = next(line for line in wanted.splitlines() if line.startswith("torch=="))
        subprocess.run([*pip, "--index-url", index, torch], check=True)
    subprocess.run([*pip, "--requirement", REQUIREMENTS], check=True)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def versions() -> dict[str, str]:
    """Whose answers these are; the suffix that names a build of PyTorch (+cpu) says nothing about them."""
    import torch
    import transformers

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


def build(config: dict[str, Any]) -> "torch.nn.Module":
    """The model that transformers builds for a config.json, on the meta device."""
    import torch
    import transformers

    fields = {name: value for name, value in config.items() if name != "quantization_config"}
    kind = fields.pop("model_type", None)
    if kind is None:
        raise ValueError("the config names no model_type")
    if kind not in transformers.CONFIG_MAPPING:
        raise ValueError(f"transformers has no model type {kind}")
    parsed = transformers.AutoConfig.for_model(kind, **fields)
    named = (config.get("architectures") or [None])[0]
    known = getattr(transformers, named, None) if named else None
    with torch.device("meta"):
        if known is not None:
            return known(parsed)
        for auto in (transformers.AutoModelForImageTextToText, transformers.AutoModelForCausalLM):
            if type(parsed) in auto._model_mapping:
                return auto.from_config(parsed)
    raise ValueError(f"transformers has no class {named or kind}")


def part_of(name: str) -> str:
    """Which part of the model a parameter of that name belongs to."""
    pieces = name.split(".")
    for piece, part in PARTS:
        if piece in pieces:
            return part
    return "vision" if any(piece in VISION_PREFIXES for piece in pieces[:2]) else "language"


def count(module: "torch.nn.Module") -> dict[str, Any]:
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


def shapes(module: "torch.nn.Module") -> dict[str, Any]:
    """What transformers reads from a config, defaults filled in, where the decoder's layers are uniform."""
    parsed: Any = module.config
    try:
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
        }
    except Exception:  # transformers raises errors of its own where layers differ
        return {}


def folder_parameters(folder: Path) -> dict[str, Any]:
    """The answers for a folder of configs; a config that cannot be built has `error` in their place."""
    answers: dict[str, Any] = {}
    for path in config_files(folder):
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict) or ("model_type" not in config and path.name != "config.json"):
            continue
        name = path.relative_to(folder).as_posix()
        try:
            module = build(config)
            answers[name] = count(module) | {"shapes": shapes(module)}
        except Exception as error:  # whatever transformers raises is its answer
            answers[name] = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:LONGEST_ERROR]}
    return {"versions": versions(), "configs": answers}


def as_text(answers: dict[str, Any]) -> str:
    """The answers as they are committed."""
    return json.dumps(answers, indent=1, sort_keys=True) + "\n"


def forward() -> dict[str, Any]:
    """The peaks of real forward passes, by their own module."""
    from tools.oracle_forward import answers

    return {"versions": versions(), **answers()}


def flops() -> dict[str, Any]:
    """The operations of real forward passes, by their own module."""
    from tools.oracle_flops import answers

    return {"versions": versions(), **answers()}


def saved() -> dict[str, Any]:
    """What training keeps of a layer, by its own module."""
    from tools.oracle_saved import answers

    return {"versions": versions(), **answers()}


def arguments() -> dict[str, Any]:
    """What the documents' own code calls, by its own module."""
    from tools.oracle_arguments import answers

    return {"versions": versions(), **answers()}


RECORDS: dict[str, Callable[[], dict[str, Any]]] = {
    "parameters.json": catalogue_parameters,
    "forward.json": forward,
    "flops.json": flops,
    "saved.json": saved,
    "arguments.json": arguments,
}


def compare(*, write: bool) -> int:
    """Ask for every record and compare with the data; 1 if an answer is another."""
    code = 0
    for name, ask in RECORDS.items():
        path, text = ANSWERS / name, as_text(ask())
        if path.exists() and path.read_text(encoding="utf-8") == text:
            print(f"{path.relative_to(ROOT)}: the same answers")
            continue
        code = 1
        what = "the answers changed and were written" if write else "the answers would change"
        print(f"{path.relative_to(ROOT)}: {what}; look at the difference", file=sys.stderr)
        if write:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return code


def main() -> int:
    """Run the command in the oracle's environment."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--configs", type=Path, metavar="DIR", help="a folder of config.json files")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the answers for --configs go")
    options = parser.parse_args()
    if options.configs is not None and not options.configs.is_dir():
        parser.error(f"--configs: {options.configs} is not a folder; a folder of config.json files is needed")
    if importlib.util.find_spec("transformers") is None:
        return subprocess.run([environment(), __file__, *sys.argv[1:]], check=False).returncode
    import transformers

    transformers.logging.set_verbosity_error()
    if options.configs is None:
        return compare(write=not options.check)
    text = as_text(folder_parameters(options.configs))
    if options.out is None:
        print(text, end="")
    else:
        options.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
