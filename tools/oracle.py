"""Ask PyTorch and transformers what the package must agree with, and keep their answers as data.

    python tools/oracle.py                           rewrite tests/oracle/*.json; 1 if an answer changed
    python tools/oracle.py --check                   write nothing; 1 if an answer would change
    python tools/oracle.py --only parameters.json    the same for one file of answers
    python tools/oracle.py --compare WHAT            a config built by transformers and by the package, tensor by
                                                     tensor. WHAT: a config.json, a folder of them, a model of the
                                                     catalogue, a variant, a model_type, or all

They run in an environment of their own, .venv-oracle, which this command makes: PyTorch weighs a gigabyte
and the package needs none of it. TORCH_INDEX in the environment names the index from which PyTorch is
installed, for machines where the default one brings CUDA along. Models are built on the meta device, so no
weights are needed and every model takes a second.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools.oracle_configs import catalogue_configs, defaults, digest, variants  # noqa: E402 (the checkout comes first)
from tools.oracle_torchvision import define_missing_operators  # noqa: E402
from vlmmem.architectures import build as build_here  # noqa: E402
from vlmmem.errors import InputError  # noqa: E402

if TYPE_CHECKING:
    import torch

ANSWERS = ROOT / "tests" / "oracle"
ENVIRONMENT = ROOT / ".venv-oracle"
REQUIREMENTS = ROOT / "tools" / "oracle-requirements.txt"
# Which part of a model a parameter belongs to: by a piece of its name, the first that fits; otherwise language.
PARTS = (
    ("talker", "speech"),
    ("token2wav", "speech"),
    ("aligner", "projector"),
    ("connector", "projector"),
    ("embed_vision", "projector"),
    ("high_res_vision_alpha", "projector"),
    ("high_res_vision_neck", "projector"),
    ("high_res_vision_proj", "projector"),
    ("image_newline", "projector"),
    ("mm_projector", "projector"),
    ("multi_modal_projector", "projector"),
    ("img_processor", "vision"),
    ("image_embed", "projector"),
    ("high_res_vision_model", "vision"),
    ("image_encoder", "vision"),
    ("vision", "vision"),
    ("vision_model", "vision"),
    ("vision_tower", "vision"),
    ("visual", "vision"),
    ("audio_embed", "audio"),
    ("audio_tower", "audio"),
    ("embed_audio", "audio"),
)
LONGEST_ERROR = 200


def environment(folder: Path = ENVIRONMENT, requirements: Path = REQUIREMENTS) -> Path:
    """The Python of .venv-oracle; makes the environment where it is missing or asks for other versions."""
    python = folder / "bin" / "python"
    stamp = folder / "installed"
    wanted = requirements.read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    subprocess.run([ROOT / "tools" / "venv.sh", folder], check=True)
    # Of the thousands of files that transformers brings, the oracle imports few: the first run compiles those.
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--no-compile"]
    index = os.environ.get("TORCH_INDEX")
    if index:
        torch = next(line for line in wanted.splitlines() if line.startswith("torch=="))
        subprocess.run([*pip, "--index-url", index, torch], check=True)
    subprocess.run([*pip, "--requirement", requirements], check=True)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def versions() -> dict[str, str]:
    """Whose answers these are; the suffix that names a build of PyTorch (+cpu) says nothing about them."""
    import torch
    import transformers

    return {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}


def parse(config: dict[str, Any]) -> Any:
    """The config object that transformers makes of a config.json."""
    import transformers

    fields = {name: value for name, value in config.items() if name != "quantization_config"}
    kind = fields.pop("model_type", None)
    if kind is None:
        raise ValueError("the config names no model_type")
    if kind not in transformers.CONFIG_MAPPING:
        raise ValueError(f"transformers has no model type {kind}")
    return transformers.AutoConfig.for_model(kind, **fields)


def build(config: dict[str, Any], parsed: Any = None) -> "torch.nn.Module":
    """The model that transformers builds for a config.json, on the meta device; `parsed` stands for its object."""
    import torch
    import transformers
    from transformers import initialization

    parsed = parse(config) if parsed is None else parsed
    named = (config.get("architectures") or [None])[0]
    known = getattr(transformers, named, None) if named else None
    # initial values are of no use here, and drawing them takes most of the time
    with torch.device("meta"), initialization.no_init_weights():
        if known is not None:
            return _tied(known(parsed))
        for auto in (transformers.AutoModelForImageTextToText, transformers.AutoModelForCausalLM):
            if type(parsed) in auto._model_mapping:
                return _tied(auto.from_config(parsed))
    raise ValueError(f"transformers has no class {named or config['model_type']}")


def _tied(module: Any) -> "torch.nn.Module":
    """The module with its weights tied as its class ties them: without initial values the class leaves that out."""
    module.tie_weights()
    return cast("torch.nn.Module", module)


def part_of(name: str) -> str:
    """Which part of the model a parameter of that name belongs to."""
    pieces = name.split(".")
    return next((part for piece, part in PARTS if piece in pieces), "language")


def tensors(module: "torch.nn.Module") -> dict[str, dict[str, tuple[int, ...]]]:
    """The shape of every parameter by its name, by part; a tied weight is one tensor."""
    parts: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, parameter in module.named_parameters():
        parts.setdefault(part_of(name), {})[name] = tuple(parameter.shape)
    return parts


# What the layers of transformers' cache keep, by the name of their class (cache_utils.py).
KEPT = {
    "DynamicLayer": "all",
    "DynamicIndexedLayer": "all",
    "DynamicSlidingWindowLayer": "window",
    "LinearAttentionLayer": "state",
    "LinearAttentionAndFullAttentionLayer": "state and all",
    "LinearAttentionAndSlidingWindowAttentionLayer": "state and window",
    "DummyLayer": "nothing",
}


def kept(module: "torch.nn.Module") -> list[list[Any]] | str:
    """What each layer of the decoder keeps, by the class's own cache: runs of [layers, what, window]."""
    import transformers

    try:
        layers = transformers.DynamicCache(config=module.config).layers
    except Exception as error:  # a few configs describe no cache
        return f"{type(error).__name__}"
    each = [
        (KEPT.get(type(layer).__name__, type(layer).__name__), getattr(layer, "sliding_window", None))
        for layer in layers
    ]
    return [[len(list(run)), *what] for what, run in groupby(each)]


def answer(config: dict[str, Any]) -> dict[str, Any]:
    """What transformers builds for a config: its class, and the tensors of each part; or the error that it raises."""
    try:
        module = build(config)
    except Exception as error:  # whatever transformers raises is its answer
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0][:LONGEST_ERROR]}
    parts = tensors(module)
    return {
        "class": type(module).__name__,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "parts": {part: digest(found.items()) for part, found in sorted(parts.items())},
        "layers": kept(module),
    }


def parameters() -> dict[str, Any]:
    """The answers for the catalogue, for every family's defaults and for the variants."""
    import transformers

    asked = {"models": catalogue_configs(), "defaults": defaults(), "variants": variants()}
    every = [config for configs in asked.values() for config in configs.values()]
    transformers.AutoModelForCausalLM  # noqa: B018 (imported once, before the processes part)
    with multiprocessing.get_context("fork").Pool() as pool:
        found = iter(pool.map(answer, every, chunksize=4))
    return {"versions": versions()} | {kind: {name: next(found) for name in configs} for kind, configs in asked.items()}


def asked_for(what: str) -> dict[str, dict[str, Any]]:
    """The configs that `--compare` names."""
    path = Path(what)
    if path.is_dir():
        files = sorted({*path.rglob("config.json"), *path.glob("*.json")})
    elif path.is_file():
        files = [path]
    else:
        known = catalogue_configs() | defaults() | variants()
        return known if what == "all" else {what: known.get(what, {"model_type": what})}
    found = {str(path): json.loads(path.read_text(encoding="utf-8")) for path in files}
    return {name: config for name, config in found.items() if isinstance(config, dict) and "model_type" in config}


def differences(config: dict[str, Any]) -> list[str]:
    """Where the package's tensors for a config are not those of transformers, a line each."""
    try:
        there = tensors(build(config))
    except Exception as error:
        return [f"transformers: {type(error).__name__}: {error}".splitlines()[0][:LONGEST_ERROR]]
    try:
        model = build_here(config)
    except InputError as error:
        return [f"here: {error}"]
    here: dict[str, dict[str, tuple[int, ...]]] = {}
    for part in model.parts:
        here.setdefault(part.name, {}).update({name: tensor.shape for name, tensor in part.named()})
    lines = []
    for where in sorted({*there, *here}):
        built, own = there.get(where, {}), here.get(where, {})
        lines += [f"{where}: missing {name} {built[name]}" for name in built if name not in own]
        lines += [f"{where}: extra {name} {own[name]}" for name in own if name not in built]
        both = [name for name in built if name in own and built[name] != own[name]]
        lines += [f"{where}: {name} is {built[name]} there, {own[name]} here" for name in both]
    return lines


def compare(what: str, most: int) -> int:
    """Print how the package and transformers differ; 1 where they do."""
    code = 0
    for name, config in asked_for(what).items():
        found = differences(config)
        code = max(code, int(bool(found)))
        print(f"{name}: {len(found) if found else 'no'} differences", *found[:most], sep="\n  ")
    return code


def as_text(answers: dict[str, Any]) -> str:
    """The answers as they are committed."""
    return json.dumps(answers, indent=1, sort_keys=True) + "\n"


def forward() -> dict[str, Any]:
    """The peaks of real forward passes, by their own module."""
    from tools.oracle_forward import answers

    return {"versions": versions(), **answers()}


def forward_families() -> dict[str, Any]:
    """The peaks of forward passes in other families, by their own module."""
    from tools.oracle_forward_families import answers

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


def images() -> dict[str, Any]:
    """What processors make of images, by their own module; the libraries that resize them are named, too."""
    from importlib.metadata import version

    from tools.oracle_images import answers

    others = {name: version(name).split("+")[0] for name in ("num2words", "pillow", "torchvision")}
    return {"versions": {**versions(), **others}, **answers()}


def quantization() -> dict[str, Any]:
    """How quantised matrices are stored, by their own module; the libraries that store them are named, too."""
    from tools.oracle_quantization import answers

    found = answers()
    return {"versions": {**versions(), **found.pop("versions")}, **found}


def caches() -> dict[str, Any]:
    """What the cache objects hold, by their own module."""
    from tools.oracle_caches import answers

    return {"versions": versions(), **answers()}


def vision() -> dict[str, Any]:
    """The peaks of real passes of vision towers, by their own module."""
    from tools.oracle_vision import answers

    return {"versions": versions(), **answers()}


def measure() -> dict[str, Any]:
    """What the measuring harness says on the CPU and under fake tensors, by its own module."""
    from tools.oracle_measure import answers

    return {"versions": versions(), **answers()}


RECORDS: dict[str, Callable[[], dict[str, Any]]] = {
    "parameters.json": parameters,
    "forward.json": forward,
    "forward_families.json": forward_families,
    "vision.json": vision,
    "flops.json": flops,
    "saved.json": saved,
    "arguments.json": arguments,
    "caches.json": caches,
    "images.json": images,
    "quantization.json": quantization,
    "measure.json": measure,
}


def ask(name: str) -> tuple[str, str]:
    """One record's name and its answers as text."""
    return name, as_text(RECORDS[name]())


def asked_side_by_side(names: list[str]) -> Iterator[tuple[str, str]]:
    """The records' answers, each asked by a process of its own; the parameters' share their work out themselves."""
    if "parameters.json" in names:
        yield ask("parameters.json")
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("fork")) as pool:
        yield from pool.map(ask, [name for name in names if name != "parameters.json"])


def renew(*, write: bool, only: str | None = None) -> int:
    """Ask for every record, or one, and compare with the data; 1 if an answer is another."""
    code = 0
    names = [name for name in RECORDS if only in (None, name)]
    for name, text in asked_side_by_side(names):
        path = ANSWERS / name
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
    parser.add_argument("--only", choices=RECORDS, metavar="FILE", help="one file of answers")
    parser.add_argument("--compare", metavar="WHAT", help="a config built by transformers and by the package")
    parser.add_argument("--most", type=int, default=20, metavar="N", help="differences to print for each config")
    options = parser.parse_args()
    if importlib.util.find_spec("transformers") is None:
        return subprocess.run([environment(), __file__, *sys.argv[1:]], check=False).returncode
    define_missing_operators()
    import transformers

    transformers.logging.set_verbosity_error()
    if options.compare is not None:
        return compare(options.compare, options.most)
    return renew(write=not options.check, only=options.only)


if __name__ == "__main__":
    sys.exit(main())
