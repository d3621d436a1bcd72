"""The command line that starts vLLM with given settings, its flags checked against the release.

Which release has which flag stands in flags.json beside this file, read from vllm/engine/arg_utils.py of each release
that is named there.
"""

import json
from functools import cache
from pathlib import Path

from vlmmem.engines.gpus import BEFORE_AMPERE
from vlmmem.engines.releases import Release, parse_version
from vlmmem.engines.settings import Settings
from vlmmem.errors import InputError
from vlmmem.formats import Format
from vlmmem.model import Model
from vlmmem.strict_json import read_json

__all__ = ["check_flag", "serve_command"]

_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_KV_DTYPES = {
    "fp8": "fp8",
    "fp8_ds_mla": "fp8_ds_mla",
    "int8-per-token-head": "int8_per_token_head",
    "fp8-per-token-head": "fp8_per_token_head",
    "nvfp4": "nvfp4",
}
_KV_SINCE = {"fp8_ds_mla": "0.12", "int8_per_token_head": "0.20", "fp8_per_token_head": "0.20", "nvfp4": "0.20"}


@cache
def _flags() -> dict[str, tuple[tuple[int, ...], tuple[int, ...] | None]]:
    """Each flag: the first release that has it, and the first that has it no more.

    What the oldest release read has, 0.3.3, is taken to be there before it, too.
    """
    read = read_json(Path(__file__).with_name("flags.json"))["flags"]
    oldest = min(parse_version(first) for first, _ in read.values())
    found = {}
    for name, (text, gone) in read.items():
        first = parse_version(text)
        found[name] = (() if first == oldest else first, None if gone is None else parse_version(gone))
    return found


def check_flag(flag: str, release: Release) -> None:
    """Raise where a release has no such flag.

    Raises:
        InputError: the flag came later, was taken out, or was never there.

    >>> check_flag("--kv-cache-memory-bytes", Release("0.19", (0, 19)))
    >>> check_flag("--kv-cache-memory-bytes", Release("0.8", (0, 8)))
    Traceback (most recent call last):
    ...
    vlmmem.errors.InputError: vllm 0.8 has no --kv-cache-memory-bytes; 0.10.2 is the first that does
    """
    asked = parse_version(release.asked) if release.asked else release.order
    name = release.asked or release.version
    found = _flags().get(flag)
    if found is None:
        raise InputError(f"vllm has no {flag[:60]}; 'vllm serve --help' lists its flags")
    first, gone = found
    if asked < first:
        raise InputError(f"vllm {name} has no {flag}; {'.'.join(map(str, first))} is the first that does")
    if gone is not None and asked >= gone:
        raise InputError(f"vllm {name} has no {flag} any more; it is gone since {'.'.join(map(str, gone))}")


def serve_command(model: Model, release: Release, settings: Settings) -> tuple[str, ...]:
    """The words of the command that starts the server.

    What the settings leave open is left to vLLM. The context and the share of the GPU are always named: their defaults
    differ by release.

    Args:
        model: what is served, by its hub id where it has one.
        release: vLLM's release, whose flags are used.
        settings: the settings as the user gave them, with `utilization` filled in.

    Raises:
        InputError: the release has no flag for a setting.

    >>> from vlmmem import find_model
    >>> settings = Settings(4096, utilization=0.9, tp=2)
    >>> " ".join(serve_command(find_model("llama-2-7b"), Release("0.19", (0, 19)), settings))
    'vllm serve meta-llama/Llama-2-7b-hf --max-model-len 4096 --gpu-memory-utilization 0.9 --tensor-parallel-size 2'
    """
    name = model.hub_id or model.name or model.id or model.architecture
    words = ["vllm", "serve", name] if release.since("0.5.5") else [*_OLD_START, "--model", name]
    wanted: list[tuple[str, object]] = [("--max-model-len", settings.context)]
    if settings.utilization is not None:
        wanted.append(("--gpu-memory-utilization", settings.utilization))
    wanted += [("--tensor-parallel-size", settings.tp)] if settings.tp > 1 else []
    wanted += [("--pipeline-parallel-size", settings.pp)] if settings.pp > 1 else []
    wanted += [("--max-num-seqs", settings.sequences)] if settings.sequences is not None else []
    wanted += [("--max-num-batched-tokens", settings.batch_tokens)] if settings.batch_tokens is not None else []
    wanted += [("--block-size", settings.block_size)] if settings.block_size is not None else []
    wanted += _dtype_flags(model, settings)
    wanted += _kv_flags(release, settings.kv_dtype)
    if settings.images is not None and model.vision is not None:
        limit = json.dumps({"image": settings.images}) if release.since("0.9") else f"image={settings.images}"
        wanted.append(("--limit-mm-per-prompt", limit))
    wanted += [("--enforce-eager", True)] if settings.eager else []
    variables = []
    for option, chosen in settings.options:
        if option.startswith("VLLM_"):
            variables.append(f"{option}={int(chosen) if isinstance(chosen, bool) else chosen}")
        else:
            wanted.append((f"--{option.replace('_', '-')}", chosen))
    for flag, value in wanted:
        check_flag(flag, release)
        words += _words(flag, value, release)
    return (*variables, *words)


_OLD_START = ("python", "-m", "vllm.entrypoints.openai.api_server")


def _words(flag: str, value: object, release: Release) -> list[str]:
    if value is True:
        return [flag]
    if value is False:
        # argparse's BooleanOptionalAction for all flags since 0.8.5; StoreBoolean for some before.
        return [f"--no-{flag[2:]}"] if release.since("0.8.5") else [f"{flag}=False"]
    return [flag, str(value)]


def _dtype_flags(model: Model, settings: Settings) -> list[tuple[str, object]]:
    """--dtype and --quantization where the weights are not as the checkpoint has them."""
    old = settings.gpu is not None and settings.gpu.id in BEFORE_AMPERE
    asked = settings.weights
    if asked is None or asked.id in _DTYPES:
        found = model.dtype if asked is None else asked.id
        if old and found == "bf16":
            return [("--dtype", "half")]
        return [("--dtype", _DTYPES[found])] if asked is not None and asked.id != model.dtype else []
    half: list[tuple[str, object]] = [("--dtype", "half")] if old and model.dtype == "bf16" else []
    if model.quantization is None and asked.id == "fp8":
        return [*half, ("--quantization", "fp8")]
    if model.quantization is None and asked.id.startswith("nf4"):
        return [*half, ("--quantization", "bitsandbytes")]
    return half


def _kv_flags(release: Release, number: Format | None) -> list[tuple[str, object]]:
    if number is None or number.id in _DTYPES:
        return []
    name = _KV_DTYPES.get(number.id)
    if name is None:
        raise InputError(f"kv_dtype: vllm keeps no KV cache in {number.id}; fp8 is a format that it has")
    first = _KV_SINCE.get(name)
    if first is not None and not release.since(first):
        if name == "fp8_ds_mla":
            return [("--kv-cache-dtype", "fp8")]
        raise InputError(
            f"kv_dtype: vllm {release.version} keeps no KV cache in {name}; {first} is the first that does"
        )
    return [("--kv-cache-dtype", name)]
