"""The measured runs through the tools that people use instead: `python tools/peers.py` writes book/peers-measured.json.

What a tool is told: the model as the hub has it (a config and a safetensors header of the true shapes), the context,
the batch and, where the tool asks for them, tensor and pipeline parallelism. Nothing that the run measured. Runs whose
weights are not in 16 or 32 bits, as published, are left out: such a header cannot be made from a config. The formulas
of others that cannot run here are those of vlmmem.accuracy.formulas.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from vlmmem.accuracy import settings_of
from vlmmem.accuracy.formulas import FORMULAS, Case
from vlmmem.catalog import find_model, model_facts
from vlmmem.errors import InputError
from vlmmem.measured import Run, runs
from vlmmem.memory.weights import checkpoint_bytes
from vlmmem.model import Model

TOOLS = {
    "hf-mem": {
        "answers": "the file's bytes, and a KV cache of the context",
        "leaves_out": "all that an engine adds (activations, CUDA graphs, contexts), sliding windows, several GPUs",
    },
    "accelerate": {
        "answers": "the weights in 16 bits, rounded to what its table prints",
        "leaves_out": "all that is not weights; several GPUs",
    },
    "llm-analysis": {
        "answers": "weights, a KV cache and one layer's activations on one GPU, from a file of shapes",
        "leaves_out": "an MLP's third matrix, an untied head, heads of a size of their own, images, sliding windows",
    },
    "llm-mem": {
        "answers": "the first dtype's parameters with 18 % on top, and a KV cache of the context",
        "leaves_out": "heads of a size of their own, sliding windows, several GPUs; 18 % stand for the rest",
    },
    "llm-resource-planner": {
        "answers": "12 x hidden size squared a layer, and a cache of 4,096 tokens with 20 % on top",
        "leaves_out": "embeddings, grouped heads, experts, nested configs, several GPUs; 20 % stand for the rest",
    },
}
"""Each tool of the registries: what it answers, and what it leaves out."""

_TOKENS = 8192
"""Tokens of a prompt, for llm-analysis, where the run does not bound a step."""

_PER_RUN = """
import json, sys, logging
from llm_analysis.analysis import ActivationRecomputation, LLMAnalysis
from llm_analysis.config import ModelConfig, ParallelismConfig, get_dtype_config_by_name, get_gpu_config_by_name
logging.disable(logging.CRITICAL)
for line in sys.stdin:
    case = json.loads(line)
    try:
        model = ModelConfig(**case["model"])
        gpu = get_gpu_config_by_name("a100-sxm-80gb")
        gpu.mem_per_GPU_in_GB = 10**6
        split = ParallelismConfig(tp_size=case["tp"], pp_size=case["pp"])
        analysis = LLMAnalysis(model, gpu, get_dtype_config_by_name("w16a16e16"), split)
        found = analysis.inference(batch_size_per_gpu=1, seq_len=case["tokens"], num_tokens_to_generate=1)
        layer = analysis.get_memory_kv_cache_per_layer(1, 2**20, case["kv_element"]) / 2**20
        cache = layer * model.num_layers / case["pp"]
        weights, activations = found["weight_memory_per_gpu"], found["prefill_activation_memory_per_gpu"]
        said = {"weights": weights, "activations": activations, "kv_bytes_per_token": cache}
    except Exception as error:
        said = {"error": f"{type(error).__name__}: {error}"[:160]}
    print(json.dumps(said), flush=True)
"""


def cases() -> list[tuple[Run, Model, Case]]:
    """Each run that a tool can be asked about, its model, and what a tool may know."""
    found = []
    for run in runs():
        if run.catalogue is None or run.provenance == "harness":
            continue
        model = find_model(run.catalogue)
        try:
            settings, _ = settings_of(run, model)
        except InputError:
            continue
        if (settings.weights is not None and settings.weights.bits != 16) or model.quantization is not None:
            continue
        if model.dtype == "fp32" and run.dtype != "float32":
            continue  # the run's own checkpoint may hold 16 bits where the catalogue's holds 32
        element = 2 if settings.kv_dtype is None else float(settings.kv_dtype.bits) / 8
        case = Case(
            model_facts(model.id)["config"],
            checkpoint_bytes(model),
            model.parameters,
            settings.context,
            settings.tp,
            settings.pp,
            None if run.gpu_total is None else run.gpu_total.bytes,
            run.utilization,
            element,
            32 if run.dtype == "float32" else 16,
        )
        found.append((run, model, case))
    return found


def shapes(model: Model) -> dict[str, Any]:
    """The file of shapes that llm-analysis asks for."""
    config = model_facts(model.id)["config"]
    text = config.get("text_config") or config.get("llm_config") or config
    # Its one width of an MLP is an expert's where there are experts.
    width = text.get("moe_intermediate_size") or model.intermediate_size
    return {
        "name": model.id,
        "num_layers": model.layers,
        "n_head": model.heads,
        "hidden_dim": model.hidden_size,
        "vocab_size": model.vocab_size,
        "num_key_value_heads": model.kv_heads,
        "ffn_embed_dim": width,
        "expansion_ratio": width / model.hidden_size,
        "model_type": "llama",
        "moe_num_experts": model.experts or 1,
        "moe_top_k": model.active_experts or 1,
    }


def llm_analysis(python: Path, asked: list[tuple[Run, Model, Case]]) -> dict[str, dict[str, Any]]:
    """What llm-analysis says of each run, all in one process."""
    lines = [
        json.dumps(
            {
                "model": shapes(model),
                "tp": case.tp,
                "pp": case.pp,
                "tokens": run.batch_tokens or min(case.context, _TOKENS),
                "kv_element": case.kv_element,
            }
        )
        for run, model, case in asked
    ]
    done = subprocess.run(
        [python, "-c", _PER_RUN], input="\n".join(lines), capture_output=True, text=True, check=True, timeout=300
    )
    said = [json.loads(line) for line in done.stdout.splitlines()]
    return {run.id: answer for (run, _, _), answer in zip(asked, said, strict=True)}


def error_line(text: str) -> str:
    r"""The line that names a tool's error: the last exception, else the last line.

    >>> error_line("Traceback (most recent call last):\nValueError: no such model type\nHint: update")
    'ValueError: no such model type'
    """
    named = re.findall(r"^\w*(?:Error|Exception): .*", text, re.MULTILINE)
    return ((named or text.strip().splitlines() or ["no message"])[-1])[:160]


def llm_mem(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What llm-mem prints for a million tokens: GB of 10^9 bytes."""
    found = re.search(r"Model VRAM: ([\d.]+) GB\s+(?:\S+\s+)?.*?Context VRAM: ([\d.]+) GB", done.stdout, re.DOTALL)
    if done.returncode or not found:
        return {"error": (re.findall(r"Error: [^\n]*", done.stdout) or ["no answer"])[-1][:160]}
    return {"weights": float(found[1]) * 10**9, "kv_bytes_per_token": float(found[2]) * 10**9 / 10**6}


def llm_resource_planner(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What llm-resource-planner prints: GB of 2^30 bytes."""
    found = re.findall(r"(Weights|KV Cache @ 4k|Total Recommended VRAM)\)?: ([\d.]+) GB", done.stdout)
    said = {name: float(value) * 2**30 for name, value in found}
    if done.returncode or len(said) != 3:
        return {"error": error_line(done.stderr)}
    return {
        "weights": said["Weights"],
        "kv_bytes_per_token": said["KV Cache @ 4k"] / 4096,
        "total": said["Total Recommended VRAM"],
    }


def _on_one_gpu(answer: dict[str, Any], case: Case) -> dict[str, Any]:
    """A whole model's answer on one of several GPUs: divided, as a user would."""
    gpus = case.tp * case.pp
    return {name: value / gpus if isinstance(value, int | float) else value for name, value in answer.items()}


def compare_runs(answers: dict[str, dict[str, dict[str, Any]]], python: Path) -> dict[str, Any]:
    """Each run's answers, tool by tool and formula by formula.

    Args:
        answers: by model, what the tools that ask the hub said of the whole model.
        python: the environment of llm-analysis.
    """
    asked = cases()
    shaped = llm_analysis(python, asked)
    rows: dict[str, dict[str, Any]] = {}
    for run, model, case in asked:
        row = {tool: _on_one_gpu(said, case) for tool, said in answers[model.id].items()}
        row["llm-analysis"] = shaped[run.id]
        # What hf-mem's --kv-cache-dtype does; it was asked once a model, with the model's own 16 bits.
        if "kv_bytes_per_token" in row["hf-mem"]:
            row["hf-mem"]["kv_bytes_per_token"] *= case.kv_element / 2
        row |= {formula.id: formula.answer(case) for formula in FORMULAS}
        rows[run.id] = row
    return rows


def rounded(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same in whole bytes."""
    return {
        run: {
            tool: {name: round(value) if isinstance(value, float) else value for name, value in said.items()}
            for tool, said in row.items()
        }
        for run, row in rows.items()
    }
