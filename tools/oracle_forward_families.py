"""The peak of a forward pass in families for which vlmmem has no closed form of their own.

Called by tools/oracle.py in the oracle's own environment; tests/test_forward_families.py compares
`vlmmem.memory.likely_peak_bytes` with the answers. The measure is that of tools/oracle_forward.py: the storages that
are live while a real pass of transformers runs on fake tensors, over the weights.

The widths are those of a published config. Of its layers the last few are built, so that each kind of layer is there
and the model ends as the whole one does. That leaves the peak over weights and cache as it is: a layer hands on the
hidden states and keeps nothing else but its cache, and before the last layers that cache is not complete.

What a pass holds depends on its kernels, which are transformers' own choice for the CPU without further packages:
sdpa, or eager where a class has no other; grouped_mm for experts; PyTorch's operators for states. One kernel is a
stand-in: where values are narrower than keys, as in multi-head latent attention, the CPU's sdpa writes all scores down
and a GPU's (memory-efficient) does not, so that only its result is counted.
"""

import multiprocessing
import os
from typing import Any

import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import initialization

from tools.oracle import LONGEST_ERROR, parse
from tools.oracle_configs import catalogue_configs, shortened
from vlmmem.measured.harness.network import default_dtype
from vlmmem.measured.harness.storages import LiveStorages, fused_attention

# Tokens of each sequence, sequences. Loops over the tokens' chunks are slow to follow: states get the first two.
PASSES = ((16, 1), (512, 4), (2048, 1), (8192, 4))
SCANS = PASSES[:2]
# Models and how many of their last layers are built: as many as tell their kinds apart.
MODELS = {
    "command-r7b": 4,
    "deepseek-v3": 2,
    "exaone-4.0-32b": 4,
    "gemma-2-9b": 2,
    "gemma-3-1b": 4,
    "gemma-3-4b": 6,
    "gemma-7b": 2,
    "glm-4-9b-0414": 2,
    "glm-4.5-air": 2,
    "gpt-oss-20b": 2,
    "granite-3.1-3b-a800m": 2,
    "llama-3.2-11b-vision": 3,
    "llama-4-scout": 4,
    "minimax-m2": 2,
    "olmo-2-7b": 2,
    "olmo-3-7b": 4,
    "olmoe-1b-7b": 2,
    "pythia-6.9b": 2,
    "qwen1.5-moe-a2.7b": 2,
    "qwen3-vl-30b-a3b": 2,
    "stablelm-3b": 2,
    "starcoder2-7b": 2,
}
STATES = {
    "bamba-9b": 3,
    "falcon-h1-7b": 2,
    "lfm2-1.2b": 3,
    "nemotron-h-8b": 12,
    "qwen3-next-80b-a3b": 4,
    "qwen3.5-27b": 4,
}


def measured(asked: tuple[str, int, tuple[tuple[int, int], ...]]) -> list[dict[str, Any]]:
    """The passes of one model: bytes over the weights, or the error of the class."""
    name, layers, passes = asked
    config = catalogue_configs()[name]
    found: list[dict[str, Any]] = []
    try:
        parsed = parse(shortened(config, layers))
        fake = FakeTensorMode()
        autos = (transformers.AutoModelForImageTextToText, transformers.AutoModelForCausalLM)
        auto = next(each for each in autos if type(parsed) in each._model_mapping)
        with fake, default_dtype(torch.bfloat16), initialization.no_init_weights():
            network = auto.from_config(parsed, dtype=torch.bfloat16).eval()
        for context, batch in passes:
            case = {"model": name, "layers": layers, "context": context, "batch": batch}
            with fake, torch.no_grad(), fused_attention():
                ids = torch.ones((batch, context), dtype=torch.long)
                live = LiveStorages([ids, *network.parameters(), *network.buffers()])
                with live:
                    network(input_ids=ids, use_cache=True, logits_to_keep=1)
            found.append({**case, "peak_bytes": max(live.peaks.values())})
    except Exception as error:  # whatever a class raises is its answer
        found.append({"model": name, "error": f"{type(error).__name__}: {error}".splitlines()[0][:LONGEST_ERROR]})
    return found


def answers() -> dict[str, Any]:
    """Every case with what was measured."""
    os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] = "1"
    asked: list[tuple[str, int, tuple[tuple[int, int], ...]]] = [
        (name, layers, PASSES) for name, layers in MODELS.items()
    ]
    asked += [(name, layers, SCANS) for name, layers in STATES.items()]
    with multiprocessing.get_context("fork").Pool() as pool:
        found = pool.map(measured, asked, chunksize=1)
    return {"cases": [case for cases in found for case in cases]}
