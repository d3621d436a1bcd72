"""Formulas of others that cannot be run here, as they published them: each with its address, none of it ours.

They answer for one GPU, in bytes: `weights`, `activations` (what the forward pass takes), `kv_bytes_per_token`,
`kv_pool`, `total` (all that a model needs beside an empty GPU). A formula answers what it speaks of and no more.
"""

from collections.abc import Callable, Mapping
from typing import Any

from vlmmem.record import record

__all__ = ["FORMULAS", "Case", "Formula"]

_GIB = 2**30


@record(frozen=True, slots=True)
class Case:
    """What a formula may know of a run: nothing that the run measured.

    Attributes:
        config: the model's published config.
        weights: bytes of the checkpoint, as its header sums them up.
        parameters: elements of the checkpoint.
        context, tp, pp: as the run states them.
        gpu_bytes, utilization: the GPU's memory and the share of it; None where the run does not say.
        kv_element: bytes of an element of the KV cache.
        bits: bits of a weight as the run loads it.
    """

    config: Mapping[str, Any]
    weights: int
    parameters: int
    context: int
    tp: int = 1
    pp: int = 1
    gpu_bytes: int | None = None
    utilization: float | None = None
    kv_element: float = 2
    bits: int = 16


@record(frozen=True, slots=True)
class Formula:
    """A formula of others: whose, where it stands, what it says, and the function."""

    id: str
    name: str
    address: str
    revision: str
    says: str
    answer: Callable[[Case], dict[str, float]]


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = config.get("text_config") or config.get("llm_config") or config
    return found


def _architecture(config: Mapping[str, Any]) -> str:
    return str((config.get("architectures") or [""])[0])


def _attention_bytes(config: Mapping[str, Any], element: float) -> float | None:
    """2 x layers x KV heads x head dimension x bytes, latent attention apart; None where a field is left out."""
    text = _text(config)
    layers = text.get("num_hidden_layers")
    if _architecture(config) in ("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"):
        return float(text["num_hidden_layers"] * (text["kv_lora_rank"] + text["qk_rope_head_dim"]) * element)
    heads, hidden = text.get("num_attention_heads"), text.get("hidden_size")
    kv_heads = text.get("num_key_value_heads")
    if None in (layers, heads, hidden, kv_heads):
        return None
    head = text.get("head_dim") or int(hidden / heads)  # type: ignore[operator]
    return float(layers * 2 * head * kv_heads * element)  # type: ignore[operator]


_EXPERTS = ("n_routed_experts", "n_shared_experts", "num_experts", "num_experts_per_tok")
_MULTIMODAL = (
    "PixtralForConditionalGeneration",
    "Mistral3ForConditionalGeneration",
    "LlavaForConditionalGeneration",
    "LlavaNextForConditionalGeneration",
)
_BEFORE = {
    "LlamaForCausalLM": 4.8,
    "Qwen2ForCausalLM": 5.6,
    "Qwen3ForCausalLM": 5.6,
    "PixtralForConditionalGeneration": 2.5,
    "Mistral3ForConditionalGeneration": 2.5,
}
_AFTER = {
    "LlamaForCausalLM": 1.89,
    "Qwen2ForCausalLM": 2.25,
    "Qwen3ForCausalLM": 2.21,
    "Mistral3ForConditionalGeneration": 2.10,
    "PixtralForConditionalGeneration": 2.10,
    "DeepseekV2ForCausalLM": 1.93,
    "DeepseekV3ForCausalLM": 1.93,
    "GraniteForCausalLM": 0.85,
    "LlavaNextForConditionalGeneration": 0.79,
    "MixtralForCausalLM": 1.21,
    "Phi3ForCausalLM": 1.52,
    "Qwen2MoeForCausalLM": 2.47,
    "Qwen3MoeForCausalLM": 2.68,
    "Gemma2ForCausalLM": 3.65,
    "Gemma3ForCausalLM": 3.94,
    "GemmaForCausalLM": 3.63,
}


def _planner(
    case: Case, profiles: Mapping[str, float], kinds: tuple[float, float, float], others: float
) -> dict[str, float]:
    """llm-d-planner: constants an architecture, weights and cache divided by the GPUs, the rest of the budget is KV."""
    text, architecture = _text(case.config), _architecture(case.config)
    dense, experts, multimodal = kinds
    activations = profiles.get(architecture)
    if activations is None:
        activations = (
            experts if any(name in text for name in _EXPERTS) else multimodal if architecture in _MULTIMODAL else dense
        )
    gpus = case.tp * case.pp
    found = {"weights": case.weights / gpus, "activations": activations * _GIB, "others": others * _GIB}
    token = _attention_bytes(case.config, case.kv_element)
    if token is not None:
        found["kv_bytes_per_token"] = token / gpus
    if case.gpu_bytes and case.utilization:
        # The activations are taken once from all GPUs together, as the planner does.
        room = (case.gpu_bytes * case.utilization - others * _GIB) * gpus - case.weights - activations * _GIB
        found["kv_pool"] = max(0.0, room / gpus)
    return found


def _planner_before(case: Case) -> dict[str, float]:
    return _planner(case, _BEFORE, (5.5, 8.0, 2.5), 0.15 if case.tp == 1 else 0.6)


def _planner_after(case: Case) -> dict[str, float]:
    others = 2.10 if case.tp > 1 else 0.27 if case.pp == 1 else 0.07
    return _planner(case, _AFTER, (2.0, 2.5, 2.0), others)


def _fifth(case: Case) -> dict[str, float]:
    """P x Q / 8 x 1.2: a fifth of the weights for everything else, the cache included."""
    gpus = case.tp * case.pp
    weights = case.parameters * case.bits / 8 / gpus
    found = {"weights": weights, "activations": 0.2 * weights, "total": 1.2 * weights}
    if case.gpu_bytes and case.utilization:
        found["kv_pool"] = max(0.0, case.gpu_bytes * case.utilization - 1.2 * weights)
    return found


FORMULAS = (
    Formula(
        "llm-d-planner",
        "llm-d-planner, before its study",
        "https://github.com/llm-d-incubation/llm-d-planner/blob/e50305af90f0812e77e1827f3bc740fe75b76370/src/planner/capacity_planner.py",
        "e50305af90f0812e77e1827f3bc740fe75b76370",
        "a constant of activations an architecture, a constant beside PyTorch, the rest of the budget is KV cache",
        _planner_before,
    ),
    Formula(
        "llm-d-planner-calibrated",
        "llm-d-planner, constants from the study itself",
        "https://github.com/llm-d-incubation/llm-d-planner/pull/254",
        "",
        "the same with constants that its authors read off the runs of this very study",
        _planner_after,
    ),
    Formula(
        "one-fifth",
        "weights and a fifth",
        "https://modal.com/blog/how-much-vram-need-inference",
        "",
        "M = P x Q / 8 x 1.2, the fifth for caching and all else",
        _fifth,
    ),
)
"""Every formula of others."""
