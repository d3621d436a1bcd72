"""llama.cpp's start-up log: of llama-server, llama-cli, llama-cpp-python and ollama, from 2024 on.

The printed lines, by the file that prints them:

- ``build: 5913 (225e7a14) with ...``, ``build_info: b8999-b97ebdc98``, ``version: 5913``: common/common.cpp;
- ``llm_load_tensors:      CUDA0 buffer size = ... MiB``, ``load_tensors:        CUDA0 model buffer size``,
  ``CPU_Mapped model buffer size``: src/llama.cpp, src/llama-model.cpp, `load_tensors`;
- ``llama_kv_cache_init:      CUDA0 KV buffer size``, ``KV self size  = ... MiB, K (f16): ..., V (f16): ...``:
  src/llama.cpp to b5200; ``llama_kv_cache_unified: size = ... MiB ( 8192 cells,  32 layers,  1 seqs), K (f16): ...``
  and ``llama_kv_cache: size = ...``: src/llama-kv-cache*.cpp; ``creating     SWA KV cache, size = 1536 cells``:
  src/llama-kv-cache-iswa.cpp; ``llama_memory_recurrent: size = ... R (f32): ... S (f32): ...``;
- ``CUDA0 compute buffer size``, ``CUDA_Host  output buffer size``, ``n_ctx``, ``n_ubatch``, ``flash_attn``:
  src/llama-context.cpp;
- ``print_info: general.name``, ``model size``: src/llama-model.cpp;
- ``load_hparams: model size``, ``alloc_compute_meta: ... compute buffer size``: tools/mtmd/clip.cpp.

Time stamps, ollama's and a container's prefixes stand before the lines; they are passed over.
"""

import re

from vlmmem.errors import InputError
from vlmmem.measured.logs.reading import Reading, printed
from vlmmem.measured.run import Quantity

__all__ = ["read", "recognises"]

_MARK = re.compile(
    r"(?:llm_load_tensors|load_tensors|llama_kv_cache\w*|llama_new_context_with_model|llama_init_from_model"
    r"|llama_context|sched_reserve|llama_memory_recurrent|print_info|llm_load_print_meta|llama_model_loader|init)\s?:"
)
_SIZE = r"(?P<v>\d{1,12}(?:\.\d{1,6})?) (?P<u>[KMG]i?B)"
_BUFFER = re.compile(
    r"(?P<who>[a-z]\w{2,60}):\s+(?P<device>[A-Za-z][A-Za-z_0-9\[\]\.:()]{0,40}?)\s+"
    r"(?P<what>model|KV|RS|output|compute)?\s*buffer size\s*=\s*" + _SIZE
)
_CELLS = re.compile(
    r"llama_kv_cache\w*: size =\s*" + _SIZE + r" \(\s*(?P<cells>\d{1,9}) cells,\s*(?P<layers>\d{1,4}) layers?,"
    r"\s*(?P<seqs>\d{1,4})(?:/(?P<streams>\d{1,4}))? seqs\), K \((?P<kt>\w{1,12})\):\s*(?P<k>[\d.]{1,15}) MiB,"
    r" V \((?P<vt>\w{1,12})\):\s*(?P<x>[\d.]{1,15}) MiB"
)
_SELF = re.compile(
    r"KV self size\s*=\s*" + _SIZE + r", K \((?P<kt>\w{1,12})\):\s*(?P<k>[\d.]{1,15}) MiB,"
    r" V \((?P<vt>\w{1,12})\):\s*(?P<x>[\d.]{1,15}) MiB"
)
_LATENT = re.compile(r"KV self size\s*=\s*" + _SIZE + r", c\^KV \((?P<kt>\w{1,12})\)")
_STATE = re.compile(r"llama_memory_recurrent: size =\s*" + _SIZE)
_VISION = re.compile(r"(?:load_hparams|clip_model_load\w*|\bload): (?:- )?model size:\s*" + _SIZE)
_WARM = re.compile(r"warmup with image size = (\d{1,6}) x (\d{1,6})")
_BUILD = re.compile(
    r"(?:\bbuild: (?P<a>\d{3,6}) \(|build_info: b(?P<b>\d{3,6})-|\bversion: (?P<c>\d{3,6}) \([0-9a-f]{6,})"
)
_GPU = re.compile(r"Device (?P<n>\d{1,2}): (?P<name>[^,]{2,60}), compute capability")
_SETTING = re.compile(
    r"(?:llama_new_context_with_model|llama_init_from_model|llama_context)\s?: "
    r"(?P<key>n_ctx|n_seq_max|n_batch|n_ubatch|flash_attn|kv_unified|n_ctx_seq|n_ctx_per_seq)\s*= ?\s*"
    r"(?P<value>\w{1,12})"
)
_INFO = re.compile(
    r"(?:print_info|llm_load_print_meta)\s?: (?P<key>general\.name|model size|file size|file type|model ftype|arch)\s*"
    r"=\s*(?P<value>.{1,120})"
)
_OFFLOADED = re.compile(r"offloaded (?P<n>\d{1,4})/(?P<of>\d{1,4}) layers to GPU")
_CLIP = ("alloc_compute_meta", "reserve_compute_meta", "clip_model_load", "clip_ctx")
_HOST = ("cpu", "_host", "cpu_mapped", "cpu_repack", "mtl0_mapped", "host")
_FORKED = ("mla_attn", "attn_max_b", "fused_moe")


def recognises(lines: list[str]) -> bool:
    """Whether a line is one of llama.cpp's own.

    >>> recognises(["load_tensors:        CUDA0 model buffer size =  4403.49 MiB"])
    True
    >>> recognises(["GPU KV cache size: 13,724 tokens"])
    False
    """
    return any("buffer size" in line and _MARK.search(line) for line in lines) or any(
        _BUFFER.search(line) for line in lines
    )


def _on_host(device: str) -> bool:
    name = device.lower()
    return name.startswith("cpu") or any(name.endswith(mark) for mark in _HOST)


class _Start:
    """What one start has printed so far."""

    def __init__(self) -> None:
        self.reading = Reading()
        self.settings: dict[str, str] = {}
        self.sizes: dict[tuple[str, str], Quantity] = {}
        self.cells: list[tuple[int, int, int, Quantity, Quantity]] = []
        self.types: tuple[str, str] | None = None
        self.options: dict[str, int | str | bool] = {}


def _buffer(start: _Start, found: re.Match[str], line: str) -> None:
    who, device, what = found["who"], found["device"], found["what"]
    host = _on_host(device)
    if any(who.startswith(mark) for mark in _CLIP):
        if what == "compute" and not host:
            start.reading.measured.setdefault("vision_compute_buffer", printed(found["v"], found["u"]))
            start.reading.evidence.append(line)
        return
    if what is None:
        what = "model" if "load_tensors" in who else ""
    name = {
        "model": "host_weights" if host else "weights",
        "KV": "" if host else "kv",
        "RS": "",
        "output": "output_buffer",
        "compute": "host_compute_buffer" if host else "compute_buffer",
        "": "",
    }[what]
    if not name:
        return
    key = (device, name)
    quantity = printed(found["v"], found["u"])
    if key in start.sizes and name in ("weights", "host_weights", "kv"):
        # sliding and full caches, or files read by different means, lie in buffers of their own
        quantity = Quantity(round(start.sizes[key].value + quantity.value, 2), quantity.unit)
    start.sizes[key] = quantity
    start.reading.evidence.append(line)


def _line(start: _Start, line: str) -> None:
    reading = start.reading
    if found := _SETTING.search(line):
        start.settings[found["key"]] = found["value"]
        return
    if found := _CELLS.search(line):
        k, v = printed(found["k"], "MiB"), printed(found["x"], "MiB")
        streams = int(found["streams"] or 1)
        start.cells.append((int(found["cells"]), int(found["layers"]), streams, k, v))
        start.types = (found["kt"], found["vt"])
        reading.evidence.append(line)
    elif found := _SELF.search(line):
        reading.measured |= {
            "kv_pool": printed(found["v"], found["u"]),
            "k_size": printed(found["k"], "MiB"),
            "v_size": printed(found["x"], "MiB"),
        }
        start.types = (found["kt"], found["vt"])
        reading.evidence.append(line)
    elif found := _LATENT.search(line):
        reading.measured["kv_pool"] = printed(found["v"], found["u"])
        start.types = (found["kt"], found["kt"])
        reading.evidence.append(line)
    elif found := _STATE.search(line):
        reading.measured["state_size"] = printed(found["v"], found["u"])
        reading.evidence.append(line)
    elif found := _VISION.search(line):
        unit = {"MB": "MiB"}.get(found["u"], found["u"])  # clip.cpp divides by 1024 * 1024 whatever it prints
        reading.measured["vision_weights"] = printed(found["v"], unit)
        reading.evidence.append(line)
    elif found := _BUFFER.search(line):
        _buffer(start, found, line)
    elif found := _INFO.search(line):
        _info(start, found)
    elif found := _OFFLOADED.search(line):
        start.options["n_gpu_layers"] = int(found["n"])
    elif found := _WARM.search(line):
        reading.notes.append(f"the vision tower is reserved for an image of {found[1]} x {found[2]}")


def _info(start: _Start, found: re.Match[str]) -> None:
    key, value = found["key"], found["value"].strip()
    if key == "general.name":
        start.reading.fields["model"] = value
    elif key in ("model size", "file size"):
        size = re.match(_SIZE, value)
        if size:
            start.reading.measured["model_size"] = printed(size["v"], size["u"])
    elif key in ("file type", "model ftype"):
        start.reading.fields["quantization"] = f"gguf {value[:40]}"


def _cells(start: _Start) -> None:
    """Full and sliding caches: where two were made, the second is the sliding one."""
    measured = start.reading.measured
    if not start.cells:
        return
    for (cells, _, streams, k, v), end in zip(start.cells[:2], ("", "_swa"), strict=False):
        measured |= {f"k_size{end}": k, f"v_size{end}": v}
        measured[f"kv_tokens{end}"] = Quantity(cells * streams, "tokens")
    if len(start.cells) > 2:
        start.reading.notes.append(f"{len(start.cells)} caches were made; the first two are taken")
    total = sum(k.value + v.value for _, _, _, k, v in start.cells[:2])
    measured["kv_pool"] = Quantity(round(total, 2), "MiB", decimals=2)


def _finish(start: _Start) -> Reading:
    reading = start.reading
    _cells(start)
    for (device, name), quantity in start.sizes.items():
        reading.devices.setdefault(device, {})["kv_pool" if name == "kv" else name] = quantity
    for name in ("weights", "compute_buffer", "host_weights", "host_compute_buffer", "output_buffer"):
        values = {device: part[name] for device, part in reading.devices.items() if name in part}
        if not values:
            continue
        device = max(values, key=lambda each: values[each].value)
        reading.measured[name] = values[device]
        if name == "host_weights" and len(values) > 1:
            unit = values[device].unit
            reading.measured[name] = Quantity(round(sum(value.value for value in values.values()), 2), unit)
        elif len(values) > 1:
            reading.notes.append(f"{name} is that of {device}, the most of {len(values)}")
    gpus = [device for device, part in reading.devices.items() if "weights" in part]
    reading.devices = {device: part for device, part in reading.devices.items() if device in gpus}
    if gpus:
        reading.fields |= {"gpus": len(gpus), "pp": len(gpus)}
    _settings(start)
    for name, words in (
        ("weights", "model buffer size"),
        ("kv_pool", "the size of the KV cache"),
        ("compute_buffer", "compute buffer size"),
    ):
        if name not in reading.measured:
            reading.missing.append(words)
    return reading


def _settings(start: _Start) -> None:
    fields, settings = start.reading.fields, start.settings
    sequences = int(settings["n_seq_max"]) if settings.get("n_seq_max", "").isdecimal() else 1
    if settings.get("n_ctx", "").isdecimal():
        total = int(settings["n_ctx"])
        each = settings.get("n_ctx_seq") or settings.get("n_ctx_per_seq") or ""
        fields["context"] = int(each) if each.isdecimal() else total
        if total != fields["context"] or sequences > 1:
            start.reading.notes.append(f"n_ctx {total} for {sequences} sequences")
    fields["sequences"] = sequences
    options = start.options
    if settings.get("n_batch", "").isdecimal():
        fields["batch_tokens"] = int(settings["n_batch"])
    for key in ("n_ctx", "n_ubatch"):
        if settings.get(key, "").isdecimal():
            options[key] = int(settings[key])
    if "flash_attn" in settings:
        options["flash_attn"] = settings["flash_attn"] in ("1", "enabled", "auto", "true")
    if "kv_unified" in settings:
        options["kv_unified"] = settings["kv_unified"] == "true"
    if start.types is not None:
        k, v = start.types
        fields["kv_dtype"] = k if k == v else f"K {k}, V {v}"
        options |= {"cache_type_k": k, "cache_type_v": v}
    if options:
        fields["options"] = options


def read(lines: list[str]) -> Reading:
    """The figures of the first start in a log; where it starts again, a note says so.

    Raises:
        InputError: the log holds no figure of llama.cpp's.
    """
    start = _Start()
    build = gpu = None
    begun = done = 0
    for line in lines:
        if build is None and (found := _BUILD.search(line)):
            build = "b" + next(part for part in found.groups() if part)
        if gpu is None and (found := _GPU.search(line)):
            gpu = found["name"].strip()
        if any(f": {mark}" in line for mark in _FORKED):
            start.reading.fields["engine"] = "ik_llama.cpp"
        if re.search(r"llama_model_loader: loaded meta data", line) and "clip" not in line:
            begun += 1
            if begun > 1 and done:
                start.reading.notes.append("the log tells of several starts; the first is taken")
                break
        _line(start, line)
        done = done or ("compute buffer size" in line and "compute_meta" not in line)
    if not start.sizes and not start.cells and not start.reading.measured:
        raise InputError("it holds no buffer size; 'CUDA0 model buffer size = ...' and the lines after it are needed")
    reading = _finish(start)
    if build:
        reading.fields["version"] = build
    if gpu:
        reading.fields["gpu"] = gpu
    return reading
