"""The command line that starts llama-server so, in the flags of the build.

common/arg.cpp of each build in `vlmmem.engines.llama_cpp.RELEASES`.
"""

from collections.abc import Mapping

from vlmmem.engines.releases import Release
from vlmmem.engines.settings import Settings
from vlmmem.errors import InputError
from vlmmem.model import Model

__all__ = ["FLAGS", "server_command"]

FLAGS = {
    "-m": "b4798", "-c": "b4798", "-b": "b4798", "-ub": "b4798", "-ngl": "b4798", "-np": "b4798", "-fa": "b4798",
    "-ctk": "b4798", "-ctv": "b4798", "-ts": "b4798", "-nkvo": "b4798", "--mmproj": "b5671", "--swa-full": "b5671",
    "-ot": "b5217", "--kv-unified": "b6123", "--n-cpu-moe": "b6123",
}  # fmt: skip
"""Each flag: the first build of those read whose server has it."""


def server_command(
    model: Model, release: Release, settings: Settings, chosen: Mapping[str, int | float | str | bool]
) -> tuple[str, ...]:
    """The words of the command line.

    Args:
        model: what is served; the name of its file is the user's.
        release: the build.
        settings: how it is started.
        chosen: the settings with their defaults filled in, by llama.cpp's own names.

    Raises:
        InputError: the build's server has no such flag.
    """
    words = ["llama-server", "-m", f"{model.id or model.name or 'model'}.gguf"]

    def add(flag: str, *value: object) -> None:
        if not release.since(FLAGS[flag]):
            raise InputError(f"llama.cpp {release.version}: its server has no {flag}; {FLAGS[flag]} or later is needed")
        words.extend((flag, *(str(each) for each in value)))

    given = dict(settings.options)
    if (
        model.vision is not None
        and given.get("mmproj", True) not in (False, "off")
        and release.since(FLAGS["--mmproj"])
    ):
        add("--mmproj", "mmproj.gguf")
    add("-c", chosen["n_ctx"])
    add("-ngl", chosen["n_gpu_layers"])
    if settings.sequences is not None:
        add("-np", chosen["n_parallel"])
    if chosen["n_batch"] != 2048:
        add("-b", chosen["n_batch"])
    if chosen["n_ubatch"] != 512:
        add("-ub", chosen["n_ubatch"])
    if release.since("b6451"):
        add("-fa", "on" if chosen["flash_attn"] else "off")
    elif chosen["flash_attn"]:
        add("-fa")
    for flag, name in (("-ctk", "cache_type_k"), ("-ctv", "cache_type_v")):
        if chosen[name] != "f16":
            add(flag, chosen[name])
    if chosen["swa_full"]:
        add("--swa-full")
    if settings.option("kv_unified") not in (None, "auto") and chosen["kv_unified"] and release.since("b6123"):
        add("--kv-unified")
    hosted = given.get("n_cpu_moe")
    if hosted and release.since(FLAGS["--n-cpu-moe"]):
        add("--n-cpu-moe", hosted)
    elif hosted:
        add("-ot", rf"blk\.({'|'.join(str(index) for index in range(int(hosted)))})\.ffn_(up|down|gate)_exps=CPU")
    if given.get("tensor_split"):
        add("-ts", given["tensor_split"])
    if given.get("no_kv_offload") in (True, "on", 1):
        add("-nkvo")
    return tuple(words)
