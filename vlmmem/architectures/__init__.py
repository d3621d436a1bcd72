"""From a config's fields to a `Model`: one module a skeleton, imported when a config asks for it.

A builder takes `Fields` and the prefix of its tensors' names, and returns a `Model` whose tensors have the names and
shapes of the class in transformers 5.23.0. A vision-language builder calls that of its text model and adds its tower.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from vlmmem.architectures.fields import Fields
from vlmmem.errors import InputError
from vlmmem.record import replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from vlmmem.model import Model

__all__ = ["HOMES", "build", "build_text"]

HOMES: dict[str, str] = {
    "apertus": "plain_mlp",
    "arcee": "plain_mlp",
    "aya_vision": "llava",
    "baichuan": "hub_text",
    "bamba": "state_space",
    "bitnet": "llama",
    "bloom": "fused_qkv",
    "chatglm": "hub_text",
    "codegen": "fused_qkv",
    "cohere": "parallel",
    "cohere2": "parallel",
    "cwm": "llama",
    "dbrx": "experts",
    "deci": "hub_text",
    "deepseek_v2": "latent",
    "deepseek_v3": "latent",
    "deepseek_v32": "latent",
    "deepseek_vl": "llava",
    "deepseek_vl_hybrid": "llava",
    "deepseek_vl_v2": "hub_code",
    "dots1": "experts",
    "ernie4_5": "llama",
    "ernie4_5_moe": "experts",
    "exaone": "hub_text",
    "exaone4": "olmo",
    "falcon": "fused_qkv",
    "falcon_h1": "state_space",
    "falcon_mamba": "state_space",
    "flex_olmo": "experts",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3": "llava",
    "gemma3_text": "gemma",
    "gemma3n_text": "gemma4",
    "gemma4": "gemma4_vl",
    "gemma4_text": "gemma4",
    "glm": "fused_qkv",
    "glm4": "fused_qkv",
    "glm4_moe": "experts",
    "glm4_moe_lite": "latent",
    "glm4v": "glm_vl",
    "glm4v_moe": "glm_vl",
    "glm4v_text": "glm_vl",
    "glm_moe_dsa": "latent",
    "gpt2": "learned_positions",
    "gpt_bigcode": "learned_positions",
    "gpt_neo": "learned_positions",
    "gpt_neox": "fused_qkv",
    "gpt_oss": "experts",
    "gptj": "fused_qkv",
    "granite": "llama",
    "granite_swa": "llama",
    "granitemoe": "experts",
    "granitemoehybrid": "state_space",
    "granitemoeshared": "experts",
    "helium": "llama",
    "hunyuan_v1_dense": "llama",
    "hunyuan_v1_moe": "experts",
    "hyperclovax": "llama",
    "idefics2": "idefics",
    "idefics3": "idefics",
    "internlm": "hub_text",
    "internlm2": "hub_code",
    "internlm3": "llama",
    "internvl": "llava",
    "internvl_chat": "hub_code",
    "iquestcoder": "llama",
    "jais2": "plain_mlp",
    "jamba": "state_space",
    "kimi_k2": "latent",
    "kimi_k25": "kimi_vl",
    "kimi_linear": "hybrid",
    "kimi_vl": "kimi_vl",
    "lfm2": "state_space",
    "lfm2_moe": "state_space",
    "llama": "llama",
    "llama4": "llama4_vl",
    "llama4_text": "experts",
    "llava": "llava",
    "llava_next": "llava",
    "llava_onevision": "llava",
    "mamba": "state_space",
    "mamba2": "state_space",
    "mimo": "hub_text",
    "minicpm": "hub_text",
    "minicpm3": "latent_dense",
    "minicpmv": "hub_code",
    "minimax": "hybrid",
    "minimax_m2": "experts",
    "ministral": "llama",
    "ministral3": "llama",
    "mistral": "llama",
    "mistral3": "llava",
    "mixtral": "experts",
    "mllama": "mllama",
    "mllama_text_model": "mllama",
    "molmo": "hub_code",
    "mpt": "fused_qkv",
    "nanochat": "plain_mlp",
    "nemotron": "plain_mlp",
    "nemotron-nas": "hub_text",
    "nemotron_h": "state_space",
    "olmo": "olmo",
    "olmo2": "olmo",
    "olmo3": "olmo",
    "olmo_hybrid": "hybrid",
    "olmoe": "experts",
    "opt": "learned_positions",
    "paligemma": "llava",
    "persimmon": "fused_qkv",
    "phi": "llama",
    "phi3": "fused_qkv",
    "phi3_v": "hub_code",
    "phi3small": "hub_text",
    "phimoe": "experts",
    "qwen": "hub_text",
    "qwen2": "llama",
    "qwen2_5_omni": "qwen_omni",
    "qwen2_5_omni_thinker": "qwen_omni",
    "qwen2_5_vl": "qwen_vl",
    "qwen2_moe": "experts",
    "qwen2_vl": "qwen_vl",
    "qwen3": "llama",
    "qwen3_5": "qwen_vl",
    "qwen3_5_moe": "qwen_vl",
    "qwen3_5_moe_text": "hybrid",
    "qwen3_5_text": "hybrid",
    "qwen3_moe": "experts",
    "qwen3_next": "hybrid",
    "qwen3_vl": "qwen_vl",
    "qwen3_vl_moe": "qwen_vl",
    "seed_oss": "llama",
    "smollm3": "llama",
    "smolvlm": "idefics",
    "stablelm": "parallel",
    "starcoder2": "plain_mlp",
    "vaultgemma": "gemma",
    "vipllava": "llava",
    "youtu": "latent_dense",
}
"""Each model_type and the module that builds it."""


class _UnknownArchitectureError(InputError):
    """No builder here knows a model_type."""


def _builder(kind: str, where: str) -> "Callable[..., Model]":
    home = HOMES.get(kind)
    if home is None:
        raise _UnknownArchitectureError(
            f"{where}: 'model_type' {kind[:60]!r} is not built from a config here; a safetensors or GGUF header gives "
            "its bytes exactly, and with the extra 'transformers' its class there counts its parameters"
        )
    found: Callable[..., Model] = import_module(f"vlmmem.architectures.{home}").BUILDERS[kind]
    return found


def _built(fields: Fields, where: str) -> "Model":
    """By the builder here or, where there is none, by transformers on the meta device."""
    try:
        return _builder(fields.text("model_type"), where)(fields)
    except _UnknownArchitectureError:
        from vlmmem.architectures import meta

        if not meta.available():
            raise
        return meta.build_on_meta({name: fields.raw(name) for name in fields}, where)


def build(config: object, where: str = "config", hf_quant_config: object = None) -> "Model":
    """The model that a config.json describes.

    Args:
        config: the object in a config.json.
        where: how errors call it.
        hf_quant_config: the object in the hf_quant_config.json beside it, where ModelOpt wrote one.

    Raises:
        InputError: its architecture is not known here, or a field is missing, wrong or contradicts another, also in
            what it says of quantised weights.

    >>> model = build({"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    ...                "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
    ...                "max_position_embeddings": 131072})
    >>> model.parameters, model.basis
    (8030261248, 'config')
    """
    fields = Fields(config, where)
    model = _built(fields, where)
    if hf_quant_config is None and not _quantised(fields):
        return model
    from vlmmem.quantization import read_quantization

    return replace(model, quantization=read_quantization(fields, hf_quant_config))


def _quantised(fields: Fields) -> bool:
    """Whether a config says anything of quantised weights."""
    text = fields.raw("text_config")
    inner = text if isinstance(text, dict) else {}
    return any(name in fields or inner.get(name) is not None for name in ("quantization_config", "compression_config"))


def build_text(fields: Fields, prefix: str, default: str = "") -> "Model":
    """The text model inside a vision-language config; `default` is its model_type where the config names none."""
    return _builder(fields.text("model_type", default or None), fields.where)(fields, prefix)
