"""vLLM's start-up log, from the first releases (V0) to the current ones (V1).

The printed lines, by the file that prints them:

- ``Initializing an LLM engine (v0.5.3) with config: ...``: vllm/engine/llm_engine.py (V0), vllm/v1/engine/core.py (V1);
- ``Loading model weights took 14.9595 GB``, ``Model loading took 14.99 GiB memory and 7.41 seconds``:
  vllm/worker/model_runner.py to v0.9, vllm/v1/worker/gpu_model_runner.py;
- ``Memory profiling results: total_gpu_memory=... peak_torch_memory=...``: vllm/worker/worker.py of v0.6.3 to v0.6.6;
- ``model weights take 6.25GiB; non_torch_memory takes ...``: vllm/worker/worker.py of v0.7 to v0.10;
- ``# GPU blocks: 13724, # CPU blocks: 13107``: vllm/executor/gpu_executor.py, later executor_base.py;
- ``Available KV cache memory``, ``Free memory on device (...)``, ``Total non KV cache memory``:
  vllm/v1/worker/gpu_worker.py; ``GPU KV cache size``, ``Maximum concurrency``: vllm/v1/core/kv_cache_utils.py.

What a config holds is read as text: nothing of it is evaluated.
"""

import re
from collections.abc import Iterator

from vlmmem.errors import InputError
from vlmmem.measured.logs.reading import Reading, fullest, number, printed
from vlmmem.measured.run import Quantity

__all__ = ["read", "recognises"]

_MARKS = (
    *("vLLM API server version", "Initializing an LLM engine", "Initializing a V0 LLM engine"),
    *("Initializing a V1 LLM engine", "GPU KV cache size:", "Available KV cache memory:", "# GPU blocks:"),
    *("# CUDA blocks:", "# cuda blocks:", "# rocm blocks:", "model weights take", "Model loading took"),
    *("Loading model weights took", "Memory profiling results: total_gpu_memory", "Total non KV cache memory:"),
)
_PREFIX = re.compile(
    r"\((?P<kind>EngineCore|VllmWorkerProcess|VllmWorker|RayWorkerWrapper|RayWorkerVllm|RayWorker|WorkerProc|Worker)"
    r"(?P<rank>[^()]{0,60}?)[ ,]?pid=(?P<pid>\d{1,10})(?!\d)[^()]{0,60}\)"
)
_RANKS = re.compile(r"(?:DP|PP|TP|EP)_?\d+|rank=\d+")
_SIZE = r"(?<![\d.,])(?P<v>-?\d[\d,]{0,20}(?:\.\d{1,12})?)\s?(?P<u>[GM]i?B)"


def _size(before: str, after: str = "") -> re.Pattern[str]:
    return re.compile(before + _SIZE + after)


# (name, where it is found): the first that a line holds is taken; a name with a colon is one of several for a figure.
_FIGURES = (
    ("loaded", _size(r"(?:Model loading|Loading model weights) took ")),
    ("weights", _size(r"model weights take ")),
    ("weights", _size(r"[;.] weights memory: ")),
    ("weights", _size(r"Actual usage is ", " for weight")),
    ("activation_peak", _size(r"PyTorch activation peak memory takes ")),
    ("activation_peak", _size(r"torch peak memory increase: ")),
    ("activation_peak", _size("", " for peak activation")),
    ("non_torch", _size(r"non_torch_memory takes ")),
    ("non_torch", _size(r"non-torch forward increase memory: ")),
    ("non_torch", _size("", " for non-torch memory")),
    ("non_torch", _size(r"Memory profiling results:.{0,300}? non_torch_memory=")),
    ("peak", _size(r"Memory profiling results:.{0,300}? peak_torch_memory=")),
    ("kv_pool", _size(r"Memory profiling results:.{0,400}? kv_cache_size=")),
    ("kv_pool", _size(r"memory reserved for KV Cache is ")),
    ("kv_pool", _size(r"Available KV cache memory: ?")),
    ("non_kv", _size(r"Total non KV cache memory: ?")),
    ("cuda_graph", _size(r"Graph capturing finished in .{1,40}?, took ")),
    ("cuda_graph", _size(r"CUDA graph pool memory: ", r" \(actual\)")),
    ("cuda_graph", _size("", " for CUDAGraph memory")),
    ("cuda_graph_estimated", _size(r"Estimated CUDA graph memory: ")),
    ("requested", _size(r"worker requested memory: ")),
    ("requested", _size(r"Requested memory: .{1,20}? \(util\), ")),
    ("requested", _size(r"Desired GPU memory utilization is \([\d.]+, ")),
    ("init_free", _size(r"worker init memory snapshot:.{0,80}? free_memory=")),
    ("init_used", _size(r"worker init memory snapshot:.{0,160}? cuda_memory=")),
    ("init_non_torch", _size(r"worker init memory snapshot:.{0,240}? non_torch_memory=")),
)
_POOL_BYTES = re.compile(r"Current kv cache memory in use is (\d+) bytes")
_DEVICE = re.compile(r"Free memory on device \((?P<free>[\d.]+)/(?P<total>[\d.]+) (?P<u>[GM]i?B)\) on startup")
_TOTALS = (
    _size(r"worker init memory snapshot:.{0,120}? total_memory="),
    _size(r"total_gpu_memory \("),
    _size(r"Memory profiling results: total_gpu_memory="),
)
_TOKENS = re.compile(r"GPU KV cache size: ([\d,]+) tokens")
_BLOCKS = re.compile(r"# (?:GPU|CUDA|cuda|gpu|ROCM|rocm|hip) blocks: (\d+)(?:, # CPU blocks: (\d+))?")
_BLOCKS_V1 = re.compile(r"cache_config_info with initialization after num_gpu_blocks is: (\d+)")
_CONCURRENCY = re.compile(r"Maximum concurrency for ([\d,]+) tokens per request: ([\d,.]+)x")
_START = re.compile(r"Initializing an? (?:V[01] )?LLM engine(?: \(v?(?P<version>[^)\s]{1,60})\))? with config: ?")
_VERSION = re.compile(r"(?:vLLM API server version|▄▄ ▄█ █     █     █ ▀▄▀ █  version)\s+v?(\S{1,60})")
_ENCODER = re.compile(
    r"Encoder cache will be initialized with a budget of ([\d,]+) tokens"
    r"(?:, and profiled with ([\d,]+) image items)?"
)
_GPU = re.compile(r"device_name=([A-Za-z0-9_-]{3,60})|Unsloth: (NVIDIA [^.]{2,60})\.|GPU 0: ([^()]{3,60}) \(UUID")
_MODEL = re.compile(r"(?<![a-z_])['\"]?model['\"]?\s?[=:]\s?['\"]([^'\"]{1,300})['\"]")
_WANTED = (
    *("GiB", "MiB", " GB", "KV cache", "blocks", "tokens per request", "LLM engine", "API server version", "  version"),
    *("non-default args", "args: Namesp", "Defaulting max_num", "Chunked prefill is enabled", "Using max model len"),
    *("Encoder cache", "vllm serve", "vllm.entrypoints", "device_name=", "Unsloth: ", "GPU 0: "),
)
_LONGEST_FIGURES = 2_000
_SETTINGS: dict[str, tuple[str, ...]] = {
    "context": ("max_seq_len", "max_model_len"),
    "tp": ("tensor_parallel_size",),
    "pp": ("pipeline_parallel_size",),
    "dp": ("data_parallel_size",),
    "sequences": ("max_num_seqs",),
    "batch_tokens": ("max_num_batched_tokens",),
    "block_size": ("block_size",),
}
_LEAST_DIGITS = 2
_LEVEL = re.compile(r"\b(?:INFO|DEBUG|WARNING|ERROR|CRITICAL)\b")
_MOST_WRAPPED = 100
_OPTIONS = ("max_lora_rank", "num_gpu_blocks_override", "decode_context_parallel_size", "swap_space", "cpu_offload_gb")
_SWITCHES = ("enable_lora", "enable_expert_parallel", "language_model_only")
_NO_IMAGES = re.compile(r"limit_mm_per_prompt['\"]?\s?[=:]\s?\{[^{}]{0,80}['\"]?image['\"]?\s?[=:]\s?0\b")
_DRAFT = re.compile(
    r"speculative_config['\"]?\s?[=:]\s?(?:SpeculativeConfig\(|\{)(?P<text>.{0,400}?)num_spec(?:ulative)?_tokens['\"]?\s?[=:]\s?"
    r"(?P<tokens>\d{1,4})"
)
_EXPECTED = ("weights", "activation_peak", "non_torch", "kv_pool", "max_concurrency", "cuda_graph")


def recognises(lines: list[str]) -> bool:
    """Whether a line of them is one that only vLLM prints.

    >>> recognises(["INFO 07-24 # GPU blocks: 13724, # CPU blocks: 13107"]), recognises(["KV Cache is allocated."])
    (True, False)
    """
    return any(mark in line for line in lines for mark in _MARKS)


def _value(text: str, name: str) -> str | None:
    """The value of a name in printed Python: name=8192, 'name': 8192, --name 8192."""
    found = re.search(rf"(?<![A-Za-z_])['\"]?{name}['\"]?\s?[=:]\s?['\"]?([A-Za-z0-9_.+-]+)", text)
    found = found or re.search(rf"--{name.replace('_', '-')}[ =]['\"]?([A-Za-z0-9_.+-]+)", text)
    return found[1] if found else None


def _settings(texts: list[str], fields: dict[str, object]) -> None:
    """Fill what the engine's own config says; the first text that has a setting counts."""
    options: dict[str, int | float | bool] = {}
    for text in texts:
        options |= {name: True for name in _SWITCHES if _value(text, name) == "True"}
        draft = _DRAFT.search(text)
        if draft:
            options.setdefault("num_speculative_tokens", int(draft["tokens"]))
        if _NO_IMAGES.search(text):
            fields.setdefault("images", 0)
        for field, names in _SETTINGS.items():
            for name in names:
                value = _value(text, name)
                if field not in fields and value and value.isdigit() and 0 < int(value) < 2**40:
                    fields[field] = int(value)
        share = _value(text, "gpu_memory_utilization")
        if "utilization" not in fields and share and re.fullmatch(r"0?\.\d{1,18}|1|1\.0|0\.\d+", share):
            fields["utilization"] = float(share)
        for field, name in (("dtype", "dtype"), ("quantization", "quantization"), ("kv_dtype", "kv_cache_dtype")):
            word = (_value(text, name) or "").removeprefix("torch.")
            if field not in fields and word and word not in ("None", "null"):
                fields[field] = word[:60]
        eager = _value(text, "enforce_eager")
        if "eager" not in fields and eager in ("True", "False"):
            fields["eager"] = eager == "True"
        for name in _OPTIONS:
            value = _value(text, name)
            if name not in options and value and re.fullmatch(r"\d{1,12}(\.\d{1,6})?", value) and number(value) > 0:
                options[name] = number(value)
    if options.get("decode_context_parallel_size") == 1:
        del options["decode_context_parallel_size"]
    if options:
        fields["options"] = options


class _Log:
    """What has been read so far."""

    def __init__(self) -> None:
        self.reading = Reading()
        self.labels: dict[str, str] = {}
        self.starts: list[tuple[str, str]] = []
        self.config: list[str] = []
        self.given: list[str] = []
        self.tokens: list[Quantity] = []
        self.blocks: list[Quantity] = []
        self.cpu_blocks: list[Quantity] = []
        self.concurrency: list[Quantity] = []
        self.share: float | None = None
        self.own = ""

    def device(self, line: str) -> str:
        """The process that printed a line: its pid; the main one's name is empty."""
        found = _PREFIX.search(line)
        if not found:
            return ""
        pid = f"pid {found['pid']}"
        ranks = " ".join(_RANKS.findall(found["rank"])).replace("rank=", "rank ")
        label = f"{ranks} ({pid})" if ranks else pid
        if len(label) > len(self.labels.get(pid, "")):
            self.labels[pid] = label
        return pid

    def release(self, version: str) -> None:
        """Take the release; a build of somebody's own, 0.1.dev1+gda1daf40b, names none."""
        if version.startswith("0.1.dev"):
            self.own = f"a build of its own ({version}) names no release"
        elif version:
            self.reading.fields.setdefault("version", version)

    def line(self, line: str) -> None:
        """Take what one line says."""
        device, fields = self.device(line), self.reading.fields
        start = _START.search(line)
        if start:
            self.starts.append((device, self.labels.get(device, "")))
            self.config.append(line[start.end() :])
            self.release(start["version"] or "")
            return
        version = _VERSION.search(line)
        if version:
            self.release(version[1].rstrip(",;"))
        if "non-default args" in line or "args: Namespace" in line or "vllm serve" in line or "vllm.entrypo" in line:
            self.given.append(line)
            return
        found = re.search(r"Chunked prefill is enabled with max_num_batched_tokens=(\d+)", line)
        if found:  # printed for a default config too, before the one that counts
            fields["batch_tokens"] = number(found[1])
        for pattern, field in (
            (r"Defaulting max_num_batched_tokens to ([\d,]+)", "batch_tokens"),
            (r"Defaulting max_num_seqs to ([\d,]+)", "sequences"),
            (r"Using max model len (\d+)", "context"),
        ):
            found = re.search(pattern, line)
            if found:
                fields.setdefault(field, number(found[1]))
        found = _ENCODER.search(line)
        if found:
            fields.setdefault("encoder_budget", number(found[1]))
            if found[2]:
                fields.setdefault("images", number(found[2]))
        found = _GPU.search(line)
        if found:
            name = found[1].replace("_", " ") if found[1] else found[2] or found[3]
            fields.setdefault("gpu", name.strip())
        self.figures(line[:_LONGEST_FIGURES], device)

    def figures(self, line: str, device: str) -> None:
        """Take the figures of one line."""
        reading, seen = self.reading, set()
        for name, pattern in _FIGURES:
            found = pattern.search(line)
            if found and name not in seen:
                seen.add(name)
                self.add(device, name, _quantity(found["v"], found["u"]), line)
        found = _DEVICE.search(line)
        if found:
            self.add(device, "init_free", _quantity(found["free"], found["u"]), line)
            share = re.search(r"Desired GPU memory utilization is \((0?\.\d{1,6}|1(?:\.0+)?),", line)
            self.share = float(share[1]) if share else self.share
            reading.fields.setdefault("gpu_total", _quantity(found["total"], found["u"]).json())
        for pattern in _TOTALS:
            found = pattern.search(line)
            if found:
                reading.fields.setdefault("gpu_total", _quantity(found["v"], found["u"]).json())
        found = _POOL_BYTES.search(line)
        if found:
            self.add(device, "kv_pool", Quantity(int(found[1]), "bytes"), line)
        for pattern, kept, unit in ((_TOKENS, self.tokens, "tokens"), (_BLOCKS, self.blocks, "blocks")):
            found = pattern.search(line)
            if found:
                kept.append(Quantity(int(number(found[1])), unit))
                reading.evidence.append(_message(line))
                if unit == "blocks" and found[2]:
                    self.cpu_blocks.append(Quantity(int(found[2]), "blocks"))
        found = _BLOCKS_V1.search(line)
        if found:
            self.blocks.append(Quantity(int(found[1]), "blocks"))
        found = _CONCURRENCY.search(line)
        if found and number(found[1]) > 0:
            self.concurrency.append(printed(found[2], "x", context=int(number(found[1]))))
            reading.evidence.append(_message(line))

    def add(self, device: str, name: str, quantity: Quantity, line: str) -> None:
        """Take a figure; of two that say the same the one with more digits is kept."""
        figures = self.reading.devices.setdefault(device, {})
        before = figures.get(name)
        if before is not None and before.value != quantity.value:
            if abs(before.bytes - quantity.bytes) <= before.rounding + quantity.rounding:
                figures[name] = min(before, quantity, key=lambda each: each.rounding)
                return
            whose = self.labels.get(device, device) or "the process"
            raise InputError(
                f"{name} of {whose} is {before.value} {before.unit} and later {quantity.value} {quantity.unit}; "
                "a log of one start is needed"
            )
        figures[name] = quantity
        if name in (*_EXPECTED, "loaded"):
            self.reading.evidence.append(_message(line))


def _quantity(value: str, unit: str) -> Quantity:
    """A size: GB is 2**30 bytes, and 69.8 is rounded to hundredths (round(bytes / GiB, 2)), as 69.80 is."""
    digits = len(value.partition(".")[2])
    padded = value if digits >= _LEAST_DIGITS else f"{value}{'' if digits else '.'}{'0' * (_LEAST_DIGITS - digits)}"
    return printed(padded, unit, {"GB": "GiB", "MB": "MiB"}.get(unit, ""))


def _message(line: str) -> str:
    """A line without time, process and file."""
    return re.sub(r"^.{0,160}?\b(?:INFO|DEBUG|WARNING)\b.{0,60}?\] ?", "", line)


def _pieces(line: str) -> list[str]:
    """A line, cut where another process's line begins in its midst."""
    at = [found.start() for found in _PREFIX.finditer(line)]
    cuts = [0, *(start for start in at[1:] if start)] if at[:1] == [0] else [0, *at]
    return [line[a:b] for a, b in zip(cuts, [*cuts[1:], len(line)], strict=True) if line[a:b].strip()]


def _unwrapped(lines: list[str]) -> Iterator[str]:
    """The lines; a config that a narrow terminal broke over several is joined again."""
    whole: list[str] = []
    for line in lines:
        if whole and not _LEVEL.search(line) and len(whole) < _MOST_WRAPPED:
            whole.append(line.lstrip())
            continue
        if whole:
            yield "".join(whole)
            whole = []
        if "with config:" in line or "non-default args:" in line:
            whole.append(line)
        else:
            yield line
    if whole:
        yield "".join(whole)


def _one_start(log: _Log) -> None:
    """Refuse a log of two starts: whose figures would be whose?"""
    own = [device for device, label in log.starts if "DP" not in label]
    if len(own) > 1:
        raise InputError(f"the engine starts {len(own)} times in it; a log of one start is needed")


def _least(log: _Log, name: str, found: list[Quantity]) -> None:
    if not found:
        return
    least = min(found, key=lambda each: each.value)
    log.reading.measured[name] = least
    if max(each.value for each in found) != least.value:
        log.reading.notes.append(f"{name} is printed {len(found)} times and differs; the least counts")


def read(lines: list[str]) -> Reading:
    """What vLLM printed when it started.

    Args:
        lines: the log's lines without colours.

    Raises:
        InputError: the engine starts twice in it, or a process prints two values of one figure.

    >>> found = read(["model weights take 6.25GiB; non_torch_memory takes 0.09GiB", "# GPU blocks: 13724"])
    >>> found.measured["weights"].bytes, found.measured["kv_blocks"].value
    (6710886400, 13724)
    """
    log = _Log()
    for line in _unwrapped(lines):
        if any(map(line.__contains__, _WANTED)):
            for piece in _pieces(line) if line.count("pid=") > 1 else (line,):
                log.line(piece)
    _one_start(log)
    reading, fields = log.reading, log.reading.fields
    _settings([*log.config, *log.given], fields)
    for text in (*log.config, *log.given):
        found = _MODEL.search(text) or re.search(r"^\s?model=([^\s,]{1,300}),", text)
        found = found or re.search(r"vllm serve ([^\s-][^\s]{0,300})", text)
        if found:
            fields.setdefault("model", found[1])
    _settings_of_parallelism(fields)
    if log.share is not None:
        fields.setdefault("utilization", log.share)
    if "num_speculative_tokens" in str(fields.get("options")):
        reading.notes.append("it speculates: a draft model may be in the figures")
    if log.own and "version" not in fields:
        reading.notes.append(log.own)
    for device in list(reading.devices):
        part = reading.devices.pop(device)
        _one_weight(part)
        if part:
            reading.devices[log.labels.get(device, device or "main process")] = part
    named = dict.fromkeys(name for part in reading.devices.values() for name in part)
    fullest(reading, [name for name in named if name not in ("kv_pool", "init_free")], ["kv_pool", "init_free"])
    _least(log, "kv_tokens", log.tokens)
    _least(log, "kv_blocks", log.blocks)
    _least(log, "cpu_blocks", log.cpu_blocks)
    _least(log, "max_concurrency", log.concurrency)
    room = ("kv_tokens", "kv_blocks")
    reading.missing = [name for name in _EXPECTED if name not in reading.measured]
    if fields.get("eager") is True and "cuda_graph" in reading.missing:
        reading.missing.remove("cuda_graph")
    if not any(name in reading.measured for name in room):
        reading.missing.append(" and ".join(room))
    return reading


def _settings_of_parallelism(fields: dict[str, object]) -> None:
    ways = [fields.get(name) for name in ("tp", "pp")]
    if any(ways):
        fields["gpus"] = int(str(ways[0] or 1)) * int(str(ways[1] or 1))


def _one_weight(part: dict[str, Quantity]) -> None:
    """What loading took is the weights, where nothing else says them; the same said twice stands once."""
    loaded, weights = part.get("loaded"), part.get("weights")
    if loaded is None:
        return
    if weights is None or abs(loaded.bytes - weights.bytes) <= loaded.rounding + weights.rounding:
        known = [each for each in (loaded, weights) if each is not None]
        part["weights"] = min(known, key=lambda each: each.rounding)
        del part["loaded"]
