"""SGLang's start-up log, from v0.3 on: lines of each rank, "[2025-03-08 12:29:13 TP0] Load weight begin. ...".

The printed lines, by the file that prints them (python/sglang/srt):

- ``server_args=ServerArgs(model_path='...', ...)``: entrypoints/engine.py, launch_server of older releases;
- ``Load weight begin. avail mem=78.81 GB``, ``Load weight end. type=..., avail mem=63.72 GB, mem usage=15.02 GB.``,
  ``Memory pool end. avail mem=8.34 GB``, ``Capture cuda graph end. ... mem usage=0.93 GB. avail mem=0.53 GB.``:
  model_executor/model_runner.py;
- ``KV Cache is allocated. #tokens: 46611, K size: 1.42 GB, V size: 1.42 GB`` (``KV size`` with latent attention, no
  ``#tokens`` before v0.4.2), ``Mamba Cache is allocated. ...``: mem_cache/memory_pool.py; two pools print the sliding
  one first, and ``SWAKVPool mem usage: 9.93 GB, swa size: 13014, full size: 130144``: mem_cache/swa_memory_pool.py;
- ``max_total_num_tokens=46611, chunked_prefill_size=2048, ..., context_len=131072``: managers/scheduler.py.

GB is 2**30 bytes. server_args is read as text: nothing of it is evaluated. Of a draft model for speculative decoding,
which loads after the first, nothing is read.
"""

import re
from collections.abc import Iterator

from vlmmem.errors import InputError
from vlmmem.measured.logs.reading import Reading, fullest, number, printed
from vlmmem.measured.run import Quantity

__all__ = ["read", "recognises"]

_MARKS = (
    *("server_args=ServerArgs(", "KV Cache is allocated.", "Load weight begin. avail mem=", "Memory pool end. avail"),
    *("max_total_num_tokens=", "SWAKVPool mem usage:"),
)
_HEAD = re.compile(r"\[(?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d(?:[.,]\d+)?(?P<rank>(?: [A-Z]{2,4}\d+)*)\] ?")
_SIZE = r"(?P<v>-?\d+(?:\.\d+)?) ?GB"
_AVAILABLE, _USED = re.compile(rf"avail(?:able)?[_ ](?:gpu_)?mem={_SIZE}"), re.compile(rf"mem usage={_SIZE}")
_POOL = re.compile(
    r"KV Cache is allocated\.(?:.{0,60}?#tokens: (?P<tokens>\d+))?.{0,20}?"
    r"(?:K size: (?P<k>\d+(?:\.\d+)?) GB, V size: (?P<v>\d+(?:\.\d+)?) GB|KV size: (?P<kv>\d+(?:\.\d+)?) GB)"
)
_SLIDING = re.compile(rf"SWAKVPool mem usage: {_SIZE}(?:, swa size: (?P<swa>\d+), full size: (?P<full>\d+))?")
_STATES = re.compile(
    r"Mamba Cache is allocated\..{0,80}?conv_state size: (?P<conv>\d+\.\d+) ?GB, ssm_state size: (?P<ssm>\d+\.\d+) ?GB"
)
_GRAPH_END = re.compile(r"Capture (?:target \w+ )?(?:cuda|CUDA) graph end\.")
_TOTAL = re.compile(r"max_total_num_tokens=(\d+)")
_ARGUMENTS = re.compile(r"server_args=(?:ServerArgs\(|\{)(?P<text>.*)")
_VERSION = re.compile(
    r"sglang(?:[ _-]version)?['\"]?(?:==|[:=] ?['\"]?| v)(\d+\.\d+\.\d+(?:\.?(?:post|rc)\d+)?)", re.IGNORECASE
)
_WANTED = (
    "server_args=",
    "Load weight ",
    "Memory pool end.",
    "Cache is allocated",
    "SWAKVPool mem",
    "graph end.",
    "max_total_",
)
_LONGEST_MESSAGE = 1000
_MOST_DIGITS = 12

_COUNTS: dict[str, tuple[str, ...]] = {
    "tp": ("tp_size", "tensor_parallel_size"),
    "pp": ("pp_size", "pipeline_parallel_size"),
    "dp": ("dp_size", "data_parallel_size"),
    "context": ("context_length", "context_len"),
    "sequences": ("max_running_requests",),
    "batch_tokens": ("chunked_prefill_size",),
    "block_size": ("page_size",),
}
_OPTIONS = (
    "swa_full_tokens_ratio",
    "mamba_full_memory_ratio",
    "max_mamba_cache_size",
    "max_total_tokens",
    "cuda_graph_max_bs",
)
_EXPECTED = ("weights", "kv_tokens", "avail_before_load", "avail_after_pool", "cuda_graph")
_NAMES = (
    *("weights", "kv_pool", "k_size", "v_size", "k_size_swa", "v_size_swa", "state_size", "cuda_graph"),
    *("avail_before_load", "avail_after_load"),
)
_LEAST = ("kv_tokens", "kv_tokens_swa", "avail_after_pool", "avail_after_graphs")


def recognises(lines: list[str]) -> bool:
    """Whether a line of them is one that only SGLang prints.

    >>> recognises(["[2025-01-23 19:35:20 TP0] KV Cache is allocated. K size: 27.13 GB, V size: 27.13 GB."])
    True
    >>> recognises(["GPU KV cache size: 563,744 tokens"])
    False
    """
    return any(mark in line for line in lines for mark in _MARKS)


def _messages(line: str) -> Iterator[tuple[str, str]]:
    """The messages of a line with their ranks: bars of progress, and other ranks' lines, may stand in its midst."""
    heads = list(_HEAD.finditer(line))
    if not heads:
        yield "", line
    for at, head in enumerate(heads):
        end = heads[at + 1].start() if at + 1 < len(heads) else len(line)
        yield head["rank"].strip(), line[head.end() : end].strip()


def _gigabytes(text: str) -> Quantity:
    return printed(text, "GB", "GiB")


class _Rank:
    """What one rank has printed so far; `done` when its own pools stand and a draft model may follow."""

    def __init__(self) -> None:
        self.loaded = self.done = self.captured = self.drafted = False
        self.pools: list[tuple[re.Match[str], str]] = []


class _Log:
    """What has been read so far."""

    def __init__(self) -> None:
        self.reading = Reading()
        self.ranks: dict[str, _Rank] = {}
        self.arguments: list[str] = []
        self.totals: list[str] = []

    def message(self, name: str, text: str) -> None:
        """Take what one message of a rank says."""
        reading, rank = self.reading, self.ranks.setdefault(name, _Rank())
        found = _ARGUMENTS.search(text)
        if found:
            if found["text"] not in self.arguments:
                self.arguments.append(found["text"])
            if len(self.arguments) > 1:
                raise InputError("two servers start in it; a log of one start is needed")
            return
        text = text[:_LONGEST_MESSAGE]
        if "Load weight begin." in text:
            if rank.loaded:
                rank.drafted = True
                return
            self._add(name, "avail_before_load", _AVAILABLE, text)
        elif "Load weight end." in text:
            if not rank.drafted:
                rank.loaded = True
                self._add(name, "avail_after_load", _AVAILABLE, text)
                self._add(name, "weights", _USED, text)
        elif "Memory pool end." in text:
            if not rank.done and not rank.drafted:
                self._add(name, "avail_after_pool", _AVAILABLE, text)
                self.close(name, rank)
        elif "KV Cache is allocated." in text:
            found = _POOL.search(text)
            if found and not rank.done:
                rank.pools.append((found, text))
        elif "SWAKVPool mem usage:" in text:
            found = _SLIDING.search(text)
            if found and not rank.done:
                reading.add(name, "kv_pool", _gigabytes(found["v"]), text)
        elif "Mamba Cache is allocated." in text:
            found = _STATES.search(text)
            if found and not rank.done:
                both = round(float(found["conv"]) + float(found["ssm"]), 2)
                reading.add(name, "state_size", Quantity(both, "GB", "GiB"), text)
        elif _GRAPH_END.search(text):
            if not rank.captured:
                rank.captured = True
                self._add(name, "cuda_graph", _USED, text)
                self._add(name, "avail_after_graphs", _AVAILABLE, text)
        elif "max_total_num_tokens=" in text:
            found = _TOTAL.search(text)
            if found and len(found[1]) <= _MOST_DIGITS:
                self.totals.append(text)
                reading.add(name, "kv_tokens", Quantity(int(found[1]), "tokens"), text)

    def _add(self, rank: str, name: str, pattern: re.Pattern[str], text: str) -> None:
        found = pattern.search(text)
        if found:
            self.reading.add(rank, name, _gigabytes(found["v"]), text)

    def close(self, name: str, rank: _Rank) -> None:
        """A rank's pools: one, or the sliding layers' and then the full ones'."""
        rank.done = True
        if len(rank.pools) > len(("sliding", "full")):
            raise InputError(f"{name or 'a rank'} allocates {len(rank.pools)} KV caches; a log of one start is needed")
        suffixes = ("_swa", "")[-len(rank.pools) :] if rank.pools else ()
        for (found, text), suffix in zip(rank.pools, suffixes, strict=True):
            for figure, group in ((f"k_size{suffix}", "k"), (f"v_size{suffix}", "v"), ("kv_pool", "kv")):
                if found[group]:
                    self.reading.add(name, figure, _gigabytes(found[group]), text)
            tokens = found["tokens"]
            if tokens and len(tokens) <= _MOST_DIGITS:
                self.reading.add(name, f"kv_tokens{suffix}", Quantity(int(tokens), "tokens"), text)


def _value(text: str, name: str) -> str | None:
    """The value of a name in printed Python: name=8192, name='auto', 'name': 8192."""
    found = re.search(
        rf"(?<![A-Za-z_])['\"]?{name}['\"]?\s?[=:]\s?(?:'([^']{{1,300}})'|\"([^\"]{{1,300}})\"|([\w.+-]+))", text
    )
    if found is None:
        return None
    value = found[1] or found[2] or found[3]
    return None if value in ("None", "null") else value


def _settings(log: _Log) -> None:
    """Fill what server_args and the scheduler's line say; what the scheduler resolved counts where both do."""
    fields = log.reading.fields
    texts = [*log.totals, *log.arguments]
    options: dict[str, int | float | bool] = {}
    for text in texts:
        for field, names in _COUNTS.items():
            for name in names:
                value = _value(text, name)
                if field not in fields and value and value.isdigit() and 0 < int(value[:_MOST_DIGITS]) < 2**40:
                    fields[field] = int(value[:_MOST_DIGITS])
        for name in _OPTIONS:
            value = _value(text, name)
            if name not in options and value and re.fullmatch(r"\d{1,12}(\.\d{1,6})?", value) and number(value) > 0:
                options[name] = number(value)
        for field, name in (
            ("model", "model_path"),
            ("dtype", "dtype"),
            ("quantization", "quantization"),
            ("kv_dtype", "kv_cache_dtype"),
        ):
            word = (_value(text, name) or "").removeprefix("torch.")
            if field not in fields and word and not (field == "dtype" and word == "auto"):
                fields[field] = word[:200]
        share = _value(text, "mem_fraction_static")
        if "utilization" not in fields and share and re.fullmatch(r"0?\.\d{1,18}|1|1\.0", share):
            fields["utilization"] = float(share)
        eager = _value(text, "disable_cuda_graph")
        if "eager" not in fields and eager in ("True", "False"):
            fields["eager"] = eager == "True"
        if _value(text, "disable_radix_cache") == "True":
            options["disable_radix_cache"] = True
    if options:
        fields["options"] = options
    split = [value for value in (fields.get("tp"), fields.get("pp")) if isinstance(value, int)]
    if split:
        fields.setdefault("gpus", split[0] * (split[1] if len(split) > 1 else 1))


def read(lines: list[str]) -> Reading:
    """What SGLang printed when it started.

    Args:
        lines: the log's lines without colours.

    Raises:
        InputError: two servers start in it, or a rank prints two values of one figure.

    >>> found = read([
    ...     "[2025-01-23 19:35:15 TP0] Load weight begin. avail mem=78.81 GB",
    ...     "[2025-01-23 19:35:20 TP0] KV Cache is allocated. K size: 27.13 GB, V size: 27.13 GB.",
    ...     "[2025-01-23 19:35:20 TP0] Memory pool end. avail mem=8.34 GB",
    ...     "[2025-01-23 19:35:27 TP0] max_total_num_tokens=444500, context_len=131072",
    ... ])
    >>> found.measured["kv_tokens"].value, found.measured["k_size"].value, found.fields["context"]
    (444500, 27.13, 131072)
    """
    log = _Log()
    for line in lines:
        if "version" not in log.reading.fields and ("sglang" in line or "SGLang" in line):
            version = _VERSION.search(line[:_LONGEST_MESSAGE])
            if version:
                log.reading.fields["version"] = version[1]
        if any(mark in line for mark in _WANTED):  # quicker than one pattern
            for whose, text in _messages(line):
                log.message(whose, text)
    for name, rank in log.ranks.items():
        if not rank.done and rank.pools:  # the log ends before the pool does
            log.close(name, rank)
    _settings(log)
    reading = log.reading
    reading.devices = {name: figures for name, figures in reading.devices.items() if figures}
    fullest(reading, _NAMES, _LEAST)
    reading.missing = [name for name in _EXPECTED if name not in reading.measured]
    if any(rank.drafted for rank in log.ranks.values()):
        reading.notes.append("a draft model loads after the first; its figures are left out")
    return reading
