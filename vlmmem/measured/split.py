"""The split: which runs may choose a constant or a rule, and which are left out to measure the error.

It is fixed by a rule that looks at names alone, never at a figure.
"""

from hashlib import sha256
from urllib.parse import unquote, urlsplit

__all__ = ["STUDY", "STUDY_OTHERS", "source_key", "split_of"]

STUDY = "jgchn/llm-d-planner/accuracy/results/v0.19.0/results_raw.csv"
"""The 37 runs of vLLM 0.19 on H100 (pull request 205 of llm-d-planner): one source of many models, split by model
only."""

STUDY_OTHERS = "jgchn/llm-d-planner/accuracy/results/v0.19.0/runs/"
"""The study's other runs, found later: all of them are left out."""

_ONE_IN = 4


def source_key(address: str) -> str:
    """The thread or the file that an address names: repository and path, without the revision.

    >>> source_key("https://github.com/vllm-project/vllm/issues/16378#issuecomment-1")
    'vllm-project/vllm/issues/16378'
    >>> source_key("https://github.com/casper-hansen/AutoAWQ/blob/88e4c76b/README.md")
    'casper-hansen/AutoAWQ/README.md'
    """
    parts = urlsplit(address)
    path = unquote(parts.path).strip("/")
    if parts.netloc.lower() not in ("github.com", "www.github.com"):
        return f"{parts.netloc.lower()}/{path}"
    owner, repository, *rest = [*path.split("/"), "", ""][: max(2, path.count("/") + 1)]
    if rest[:1] in (["blob"], ["raw"], ["tree"]):
        rest = rest[2:]
    return "/".join((owner, repository, *rest))


def _left_out(name: str) -> bool:
    return int(sha256(name.encode()).hexdigest(), 16) % _ONE_IN == 0


def split_of(source: str, family: str) -> str:
    """What a published run may be used for: one source in four and one family in four are left out.

    >>> split_of("https://github.com/vllm-project/vllm/issues/16378", "gemma3")
    'left out by source'
    """
    key = source_key(source)
    if key.startswith(STUDY_OTHERS) or (key != STUDY and _left_out(key)):
        return "left out by source"
    return "left out by model" if _left_out(family) else "fitted"
