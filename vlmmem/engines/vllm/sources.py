"""Where a rule stands in vLLM's code: the address of the file at the tag that was read for a release."""

from vlmmem.engines.releases import Release

__all__ = ["runner_source", "source"]

_CODE = "https://github.com/vllm-project/vllm/blob"
_READ = {"0.3": "0.3.3", "0.4": "0.4.3", "0.5": "0.5.5", "0.6": "0.6.3", "0.7": "0.7.1", "0.7.2": "0.7.3"}
"""The tag that was read where it is not the release's first."""

_MOVED = {
    "vllm/model_executor/layers/rotary_embedding.py": (("0.10.2", "vllm/model_executor/layers/rotary_embedding"),),
    "vllm/lora/layers.py": (("0.10.2", "vllm/lora/layers"),),
    "vllm/attention/backends/mla/utils.py": (
        ("0.8", "vllm/v1/attention/backends/mla/common.py"),
        ("0.16", "vllm/model_executor/layers/attention/mla_attention.py"),
    ),
}
"""Files that were moved or became folders: the first release read that has them elsewhere, and where."""


def source(release: Release, file: str, function: str = "") -> str:
    """The address of a file of vLLM's code, and the function in it.

    Args:
        release: vLLM's release.
        file: its path, in the oldest release that has it.
        function: what to look for there.

    >>> source(Release("0.19", (0, 19)), "vllm/lora/layers.py", "create_lora_weights")
    'https://github.com/vllm-project/vllm/blob/v0.19.0/vllm/lora/layers (create_lora_weights)'
    >>> source(Release("0.3", (0, 3)), "vllm/lora/layers.py")
    'https://github.com/vllm-project/vllm/blob/v0.3.3/vllm/lora/layers.py'
    """
    for since, moved in _MOVED.get(file, ()):
        if release.since(since):
            file = moved
    version = _READ.get(release.version, release.version)
    tag = version if version.count(".") > 1 else f"{version}.0"
    return f"{_CODE}/v{tag}/{file}" + (f" ({function})" if function else "")


def runner_source(release: Release, function: str, *, v1: bool) -> str:
    """The same of the model runner, that of V1 or of V0.

    >>> runner_source(Release("0.6", (0, 6)), "profile_run", v1=False)
    'https://github.com/vllm-project/vllm/blob/v0.6.3/vllm/worker/model_runner.py (profile_run)'
    """
    return source(release, "vllm/v1/worker/gpu_model_runner.py" if v1 else "vllm/worker/model_runner.py", function)
