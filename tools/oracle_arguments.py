"""The calls that the documents' code makes into PyTorch and transformers, asked of the installed libraries.

Called by tools/oracle.py in the oracle's own environment; tests/test_arguments.py compares the ledger's entries with
the answers. Three kinds of question: does a name exist, does it take the printed arguments, and what does the call do.
No GPU is needed: models are a few kilobytes, and the counters of `torch.cuda` are put in by hand where a printer of
them is asked.
"""

import gc
import inspect
import tempfile
import warnings
import weakref
from collections.abc import Callable
from functools import reduce
from typing import Any
from unittest import mock

import torch
import transformers
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

WORDS = ("<unk>", "GPU", "memory", "management", "is")
LONGEST = 160

CALLS: dict[str, tuple[str, ...]] = {
    # footprint, lines 604 to 650
    "transformers.AutoModelForVision2Seq": (),
    "transformers.AutoModelForImageTextToText": (),
    "transformers.PreTrainedModel.get_memory_footprint": (),
    "torch.cuda.reset_peak_memory_stats": (),
    "torch.cuda.max_memory_allocated": (),
    "torch.cuda.memory_summary": (),
    # inference, lines 188 to 204
    "transformers.AutoModelForCausalLM": (),
    "transformers.AutoTokenizer": (),
    "transformers.BitsAndBytesConfig": (
        "load_in_4bit",
        "bnb_4bit_compute_dtype",
        "bnb_4bit_quant_type",
        "bnb_4bit_use_double_quant",
    ),
    # inference, lines 360 to 381
    "torch.cuda.synchronize": (),
    "torch.cuda.memory_allocated": (),
    "transformers.pipeline": ("model", "device_map", "dtype"),
    # what the ledger recommends beside them
    "torch.cuda.max_memory_reserved": (),
    "torch.cuda.mem_get_info": (),
}
"""Names in the documents' code, with the arguments that are given to them and that their signature can be asked for."""

_KINDS = (
    "allocated_bytes",
    "active_bytes",
    "requested_bytes",
    "reserved_bytes",
    "inactive_split_bytes",
    "allocation",
    "active",
    "segment",
    "inactive_split",
)
_OVERSIZE = ("oversize_allocations", "oversize_segments")
_POOLS = ("all", "large_pool", "small_pool")
_COUNTS = ("current", "peak", "allocated", "freed")

SIZES = (700 * 2**10, 2_779_683_840 * 2, 80 * 2**30)
"""Bytes that the memory summary is asked to print: below a MiB, phi-2's weights, an A100 80GB."""


def _found(path: str) -> Any:
    """What stands at a dotted path, or None."""
    first, *rest = path.split(".")
    roots = {"torch": torch, "transformers": transformers}
    return reduce(lambda owner, name: getattr(owner, name, None), rest, roots[first])


def _signature(path: str, arguments: tuple[str, ...]) -> dict[str, Any]:
    found = _found(path)
    if found is None:
        return {"exists": False}
    known = inspect.signature(found).parameters if arguments else {}
    return {"exists": True, "arguments": {name: name in known for name in arguments}}


def _tokenizer() -> Any:
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token=WORDS[0], pad_token=WORDS[0])


def _phi() -> Any:
    return transformers.PhiForCausalLM(
        transformers.PhiConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
        )
    )


def _tried(call: Callable[[], Any]) -> dict[str, Any]:
    """Whether a call works, what it warns of, and what it gives."""
    with warnings.catch_warnings(), mock.patch.object(transformers.utils.logging.logging.Logger, "warning"):
        warnings.simplefilter("ignore")
        try:
            given = call()
        except Exception as error:  # whatever the library raises is its answer
            return {"works": False, "error": " ".join(str(error).split())[:LONGEST]}
    return {"works": True, "gives": given}


def _loading() -> dict[str, Any]:
    """`from_pretrained` with the documents' arguments, one at a time."""
    with tempfile.TemporaryDirectory() as folder:
        _phi().save_pretrained(folder)
        _tokenizer().save_pretrained(folder)

        def load(**arguments: Any) -> str:
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, **arguments)
            return str(next(model.parameters()).dtype)

        return {
            "nothing": _tried(load),
            "torch_dtype": _tried(lambda: load(torch_dtype=torch.float16)),
            "dtype": _tried(lambda: load(dtype=torch.float16)),
            "low_cpu_mem_usage": _tried(lambda: load(low_cpu_mem_usage=True)),
            "trust_remote_code": _tried(lambda: load(trust_remote_code=True)),
            "device_map": _tried(lambda: load(device_map="auto")),
            "no_such_argument": _tried(lambda: load(no_such_argument=True)),
            "pipeline": _pipeline(folder),
        }


def _pipeline(folder: str) -> dict[str, Any]:
    """`inference`, lines 373 to 381, on a small Phi: what it gives, and whether its weights outlive it."""
    held: list[Any] = []

    def load_and_infer(**arguments: Any) -> Any:
        pipe = transformers.pipeline("text-generation", model=folder, **arguments)
        held.append(weakref.ref(next(iter(pipe.model.parameters()))))
        return pipe("GPU memory management is", max_new_tokens=2)

    gc.collect()
    gc.disable()
    try:
        tried = _tried(lambda: sorted(load_and_infer(torch_dtype=torch.float16)[0]))
        alive = [reference() is not None for reference in held]
    finally:
        gc.enable()
    return {**tried, "weights_outlive_the_call": any(alive)}


def _footprint() -> dict[str, int]:
    """What get_memory_footprint counts, in bytes."""
    model = _phi().to(torch.float16)

    def size(tensors: Any) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    return {
        "footprint": model.get_memory_footprint(),
        "parameters": size(model.parameters()),
        "buffers": size(model.buffers()),
    }


def _summary(size: int) -> str:
    """The cell of the memory summary that shows a size."""
    counters = {f"{kind}.{pool}.{each}": 0 for kind in _KINDS for pool in _POOLS for each in _COUNTS}
    counters |= {f"{kind}.{each}": 0 for kind in _OVERSIZE for each in _COUNTS}
    counters |= {"num_ooms": 0, "num_alloc_retries": 0, **{f"allocated_bytes.all.{each}": size for each in _COUNTS}}
    with (
        mock.patch.object(torch.cuda.memory, "memory_stats", return_value=counters),
        mock.patch.object(torch.cuda.memory, "_get_device_index", return_value=0),
    ):
        lines = torch.cuda.memory_summary(abbreviated=True).splitlines()
    return " ".join(next(line for line in lines if "Allocated memory" in line).split("|")[2].split())


def answers() -> dict[str, Any]:
    """Every answer, names in the order of the documents."""
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return {
        "calls": {path: _signature(path, arguments) for path, arguments in CALLS.items()},
        "from_pretrained": _loading(),
        "get_memory_footprint": _footprint(),
        "memory_summary": {str(size): _summary(size) for size in SIZES},
    }
