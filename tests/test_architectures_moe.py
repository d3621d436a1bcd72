"""Mixtures of experts, latent and linear attention, state spaces: what the comparison of tensors does not see.

Counts that others publish: parameters that a token meets, heads for a further token, and bytes of caches.
"""

from dataclasses import replace
from typing import Any

import pytest

from vlmmem.architectures import HOMES, build
from vlmmem.architectures.experts import each_alike, mixture
from vlmmem.catalog import find_model
from vlmmem.errors import InputError
from vlmmem.layers import Cache, KeyValueCache, LatentCache, Layer, StateCache
from vlmmem.model import Model

HUB = "https://huggingface.co/api/models/{}?expand[]=safetensors: parameters"

# Billions of parameters that a token meets, as published: of the whole, or without the table of embeddings (which is
# looked up, not multiplied), or without the head either.
ACTIVE = {
    # arXiv 2401.04088, section 1
    "mixtral-8x7b": ("12.9", "all"),
    # arXiv 2412.19437 and 2405.04434, abstracts
    "deepseek-v3": ("37", "without embedding"),
    "deepseek-v2": ("21", "all"),
    # https://huggingface.co/Qwen/Qwen3-235B-A22B, Qwen3-Coder-480B-A35B-Instruct, Qwen1.5-MoE-A2.7B
    "qwen3-235b-a22b": ("22", "all"),
    "qwen3-coder-480b-a35b": ("35", "all"),
    "qwen1.5-moe-a2.7b": ("2.7", "all"),
    # arXiv 2507.20534, table 2, to the billions of the model card
    "kimi-k2": ("32", "without embedding"),
    # arXiv 2508.10925, table 1
    "gpt-oss-20b": ("3.61", "without embedding"),
    "gpt-oss-120b": ("5.13", "without embedding"),
    # arXiv 2501.08313, abstract
    "minimax-text-01": ("45.9", "without tables"),
    # arXiv 2409.02060, abstract
    "olmoe-1b-7b": ("1.3", "all"),
    # arXiv 2404.14219, section 2
    "phi-3.5-moe": ("6.6", "all"),
    # arXiv 2403.19887, abstract
    "jamba-v0.1": ("12", "all"),
    # https://www.ibm.com/granite/docs/models/granite
    "granite-4.0-h-small": ("9", "all"),
    # arXiv 2512.20848, abstract: 3.2 billion, 3.6 with embeddings
    "nemotron-3-nano-30b-a3b": ("3.6", "all"),
    # https://huggingface.co/databricks/dbrx-instruct
    "dbrx": ("36", "all"),
}


def rounded(count: int, as_published: str) -> str:
    """Billions with the digits that were published."""
    return f"{count / 1e9:.{len(as_published.partition('.')[2])}f}"


@pytest.mark.parametrize("name", ACTIVE)
def test_parameters_that_a_token_meets(name: str) -> None:
    published, of = ACTIVE[name]
    model = find_model(name)
    tables = {"all": (), "without embedding": ("embedding",), "without tables": ("embedding", "head")}[of]
    count = model.active_parameters - sum(each.parameters for _, each in model.tensors() if each.kind in tables)
    assert rounded(count, published) == published


def test_a_wrong_number_of_experts_a_token_is_noticed() -> None:
    model = find_model("gpt-oss-20b")
    other = replace(model, active_experts=model.active_experts + 1)
    assert rounded(model.active_parameters, "3.61") != rounded(other.active_parameters, "3.61")


def test_gpt_oss_by_part() -> None:
    # arXiv 2508.10925, table 1: MLP 114.71, attention 0.96, embedding and unembedding 1.16 billion
    model = find_model("gpt-oss-120b")
    found = {"mlp": 0, "attention": 0}
    for layer in model.decoder.layers:
        for tensor in layer.tensors:
            if tensor.kind != "norm":
                found["mlp" if tensor.name.startswith("mlp") else "attention"] += tensor.parameters
    assert rounded(found["mlp"], "114.71") == "114.71"
    assert rounded(found["attention"], "0.96") == "0.96"
    assert rounded(model.language_by_part["embeddings"], "1.16") == "1.16"


# What the hub counts in checkpoints that hold a layer for a further token. Beside what transformers builds they hold
# the routers' biases, which are buffers there: one an expert of each layer with experts, that layer included. FP8
# checkpoints hold scales in F32 as well; theirs is the count of BF16 and F8_E4M3.
FURTHER = {
    "deepseek-v3": ("deepseek-ai/DeepSeek-V3", 680_571_043_840 + 3_918_786_560, 0),
    "glm-4.5": ("zai-org/GLM-4.5", 358_337_791_296, 90 * 160),
    "glm-4.5-air": ("zai-org/GLM-4.5-Air", 110_468_824_832, 46 * 128),
    "glm-5": ("zai-org/GLM-5", 753_864_139_008, 76 * 256),
    "qwen3-next-80b-a3b": ("Qwen/Qwen3-Next-80B-A3B-Instruct", 81_324_862_720, 0),
    "qwen3.5-27b": ("Qwen/Qwen3.5-27B", 27_781_427_952, 0),
    "qwen3.5-35b-a3b": ("Qwen/Qwen3.5-35B-A3B", 35_951_822_704, 0),
}


@pytest.mark.parametrize("name", FURTHER)
def test_parameters_for_a_further_token(name: str) -> None:
    _, count, biases = FURTHER[name]
    model = find_model(name)
    assert model.mtp_parameters > 0
    assert model.parameters + model.mtp_parameters + biases == count


def test_deepseeks_further_layer_without_its_tables() -> None:
    # https://github.com/deepseek-ai/DeepSeek-V3/blob/main/README_WEIGHTS.md: 11.5 billion, tables of 0.9 apart
    model = find_model("deepseek-v3")
    assert rounded(model.mtp_parameters - 2 * model.vocab_size * model.hidden_size, "11.6") == "11.6"
    assert rounded(model.vocab_size * model.hidden_size, "0.9") == "0.9"


def test_no_further_layer_where_a_config_names_none() -> None:
    assert find_model("kimi-k2").mtp_parameters == 0
    assert build({"model_type": "deepseek_v3"}).mtp_parameters == 0


def per_token(model: Model) -> int:
    """Elements that a token adds while no window is full."""
    return sum(
        cache.elements for layer in model.decoder.layers for cache in layer.caches if not isinstance(cache, StateCache)
    )


def kept(model: Model, kind: str) -> set[tuple[Cache, ...]]:
    """What the layers of a kind keep."""
    return {layer.caches for layer in model.decoder.layers if layer.kind == kind}


def kinds(model: Model) -> dict[str, int]:
    found: dict[str, int] = {}
    for layer in model.decoder.layers:
        found[layer.kind] = found.get(layer.kind, 0) + 1
    return found


def test_latent_caches() -> None:
    assert 2 * per_token(find_model("deepseek-v3")) == 70_272
    model = find_model("deepseek-v3.2")
    assert kept(model, "latent") == {(LatentCache(512 + 64), LatentCache(128, "indexer"))}
    assert len(model.decoder.alike()) == 2
    assert kinds(model) == {"latent": 61}


def test_layers_that_share_an_indexer() -> None:
    config = {"model_type": "glm_moe_dsa", "num_hidden_layers": 6, "index_topk_freq": 2}
    # the first layer that may skip is the third; every other one does, from there on
    picks = [len(layer.caches) == 2 for layer in build(config).decoder.layers]
    assert picks == [True, True, False, True, False, True]
    picks = [len(layer.caches) == 2 for layer in build({**config, "index_topk_pattern": "FSSFSS"}).decoder.layers]
    assert picks == [True, False, False, True, False, False]
    listed = {**config, "indexer_types": ["full", "shared", "shared", "shared", "shared", "shared"]}
    assert [len(layer.caches) for layer in build(listed).decoder.layers] == [2, 1, 1, 1, 1, 1]


def test_gated_delta_rule() -> None:
    model = find_model("qwen3.5-27b")
    assert 2 * per_token(model) == 65_536
    assert kinds(model) == {"linear": 48, "full": 16}
    # (2 x 16 x 128 + 48 x 128) channels x 4 inputs; 48 heads x 128 x 128
    states = (StateCache(10_240 * 4, "", 16, "convolution", 4), StateCache(48 * 128 * 128, "fp32", 48))
    assert kept(model, "linear") == {states}


def test_delta_attention_by_channel() -> None:
    model = build({"model_type": "kimi_linear"})
    assert kinds(model) == {"linear": 21, "latent": 6}
    assert kept(model, "latent") == {(LatentCache(576),)}
    assert kept(model, "linear") == {
        (StateCache(3 * 4096 * 4, "", 32, "convolution", 4), StateCache(32 * 128 * 128, "fp32", 32))
    }


def test_lightning_attention_keeps_its_state_in_the_models_dtype() -> None:
    model = find_model("minimax-text-01")
    assert kinds(model) == {"linear": 70, "full": 10}
    assert kept(model, "linear") == {(StateCache(64 * 128 * 128, "", 64),)}


def test_gemma_4() -> None:
    model = find_model("gemma-4-e2b")
    assert kinds(model) == {"sliding": 12, "full": 3, "shared": 20}
    assert kept(model, "sliding") == {(KeyValueCache(1, 256, 256, 512),)}
    assert kept(model, "full") == {(KeyValueCache(1, 512, 512),)}
    assert kept(model, "shared") == {()}
    # full layers without a value matrix keep values all the same
    model = find_model("gemma-4-31b")
    full = next(layer for layer in model.decoder.layers if layer.kind == "full")
    assert not any("v_proj" in tensor.name for tensor in full.tensors)
    assert full.caches == (KeyValueCache(4, 512, 512),)
    sliding = next(layer for layer in model.decoder.layers if layer.kind == "sliding")
    assert any("v_proj" in tensor.name for tensor in sliding.tensors)
    assert sliding.caches == (KeyValueCache(16, 256, 256, 1024),)


def test_layers_of_a_kind_that_all_share_are_refused() -> None:
    config = {"model_type": "gemma4_text", "num_hidden_layers": 6, "num_kv_shared_layers": 1}
    with pytest.raises(
        InputError, match="'num_kv_shared_layers' is 1; a layer of each kind that has a cache is needed"
    ):
        build(config)


def test_chunks_and_windows() -> None:
    model = build({"model_type": "llama4_text"})
    assert kinds(model) == {"chunked": 36, "full": 12}
    assert kept(model, "chunked") == {(KeyValueCache(8, 128, 128, chunk=8192),)}
    assert kinds(build({"model_type": "llama4_text", "attention_chunk_size": None})) == {"full": 48}
    model = find_model("gpt-oss-20b")
    assert kept(model, "sliding") == {(KeyValueCache(8, 64, 64, 128),)}
    assert [layer.kind for layer in model.decoder.layers[:3]] == ["sliding", "full", "sliding"]
    assert kinds(build({"model_type": "mixtral", "sliding_window": 4096})) == {"sliding": 32}
    assert kinds(build({"model_type": "qwen3_moe", "sliding_window": 4096})) == {"full": 24}


def test_state_spaces() -> None:
    model = find_model("nemotron-3-nano-30b-a3b")
    assert kinds(model) == {"state-space": 23, "mlp": 23, "full": 6}
    assert kept(model, "mlp") == {()}
    assert kept(model, "full") == {(KeyValueCache(2, 128, 128),)}
    states = (
        StateCache(64 * 64 * 4, "", 64, "convolution", 4),
        StateCache(2 * 8 * 128 * 4, "", 8, "convolution", 4),
        StateCache(64 * 64 * 128, "fp32", 64),
    )
    assert kept(model, "state-space") == {states}
    assert kept(find_model("mamba-2.8b"), "state-space") == {
        (StateCache(5120 * 4, "", 5120, "convolution", 4), StateCache(5120 * 16, "fp32", 5120))
    }
    # attention and a state space in one layer
    layer = build({"model_type": "falcon_h1"}).decoder.layers[0]
    assert [type(cache) for cache in layer.caches] == [KeyValueCache, StateCache, StateCache, StateCache]


def test_how_layers_attend() -> None:
    assert find_model("mamba-2.8b").attention == "states alone"
    assert find_model("deepseek-v3").attention == "multi-head latent"
    assert build({"model_type": "kimi_linear"}).attention == "multi-head latent, with states"
    assert find_model("qwen3.5-27b").attention == "grouped-query, with states"


def test_short_convolutions() -> None:
    model = find_model("lfm2-1.2b")
    assert kinds(model) == {"convolution": 10, "full": 6}
    assert kept(model, "convolution") == {(StateCache(2048 * 3, "", 2048, "convolution", 3),)}


BUILT = sorted(kind for kind, home in HOMES.items() if home in ("experts", "latent", "hybrid", "state_space", "gemma4"))
NEEDED: dict[str, dict[str, Any]] = {
    "dots1": {"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "hunyuan_v1_moe": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"], "num_hidden_layers": 3},
}


@pytest.mark.parametrize("kind", BUILT)
def test_layers_alike_are_one_object(kind: str) -> None:
    layers = build({"model_type": kind} | NEEDED.get(kind, {})).decoder.layers
    assert len({id(layer) for layer in layers}) == len({(layer.tensors, layer.caches) for layer in layers})


@pytest.mark.parametrize("kind", BUILT)
def test_experts_are_met_by_some_tokens_only(kind: str) -> None:
    model = build({"model_type": kind} | NEEDED.get(kind, {}))
    routed = any(tensor.kind == "expert" for _, tensor in model.tensors())
    assert routed == (model.experts > 0) == (model.active_experts > 0)
    assert model.active_experts <= model.experts


@pytest.mark.parametrize("kind", sorted(NEEDED))
def test_what_the_class_has_no_default_for(kind: str) -> None:
    with pytest.raises(InputError, match=f"'{next(iter(NEEDED[kind]))}' is missing"):
        build({"model_type": kind})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "mixtral", "num_experts_per_tok": 9}, "'num_experts_per_tok' is 9; an integer from 1 to 8"),
        ({"model_type": "qwen3_next", "linear_num_key_heads": 3}, "32 value heads .* cannot share 3 key heads"),
        ({"model_type": "qwen3_next", "layer_types": ["conv"] * 48}, "'layer_types' is .* linear_attention and full"),
        (
            {"model_type": "bamba", "mamba_n_heads": 100},
            "8192 channels of the state space are no multiple of 100 heads",
        ),
        (
            {"model_type": "bamba", "mamba_d_head": 32},
            "'mamba_d_head' is 32; 8192 channels by 128 heads, 64, is needed",
        ),
        ({"model_type": "mamba2", "head_dim": 32}, "128 heads .* x 32 .* 8192 is needed"),
        ({"model_type": "jamba", "attn_layer_offset": 8}, "'attn_layer_offset' is 8; a number below"),
        (
            {"model_type": "nemotron_h", "hybrid_override_pattern": "M?"},
            "'hybrid_override_pattern' is \"M\\?\"; a text of",
        ),
        ({"model_type": "nemotron_h", "hybrid_override_pattern": "M" * 5000}, "at most 4,096 of the letters"),
        ({"model_type": "nemotron_h", "layers_block_type": []}, "'layers_block_type' is \\[\\]; a list of"),
        ({"model_type": "deepseek_v32", "q_lora_rank": None}, "'q_lora_rank' is null; the sparse indexer reads"),
        ({"model_type": "deepseek_v32", "mlp_layer_types": ["x"] * 61}, "'mlp_layer_types' is .* dense and sparse"),
        ({"model_type": "glm_moe_dsa", "index_topk_pattern": "FS"}, "'index_topk_pattern' is \"FS\"; full or shared"),
        ({"model_type": "kimi_linear", "linear_attn_config": {"full_attn_layers": [1], "kda_layers": [1]}}, "names 2"),
        ({"model_type": "olmo_hybrid", "layer_types": ["full_attention"] * 32}, "names layers of one kind"),
        ({"model_type": "gemma4_text", "enable_moe_block": True}, "'num_experts' is missing"),
        (
            {"model_type": "gemma4_text", "per_layer_config": {"30": {}}},
            "'30' is no layer; a number below 30 is needed",
        ),
        (
            {"model_type": "gemma3n_text", "intermediate_size": []},
            "'intermediate_size' is \\[\\]; a positive integer, or",
        ),
        ({"model_type": "gemma3n_text", "intermediate_size": [64]}, "'intermediate_size' has 1 items; one for each of"),
        (
            {"model_type": "lfm2", "layer_types": ["mamba"] * 32},
            "'layer_types' is .* a list of conv and full_attention",
        ),
        ({"model_type": "lfm2", "block_ffn_dim_multiplier": -1}, "'block_ffn_dim_multiplier' is -1; a multiplier that"),
    ],
)
def test_faults_of_a_config(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build(config)
    assert "\n" not in str(caught.value)


def test_experts_in_one_tensor() -> None:
    up, down = mixture("experts", 4, hidden=6, wide=10, gated=False)
    assert (up.name, up.shape, down.shape) == ("experts.up_proj", (4, 10, 6), (4, 6, 10))
    up, down = mixture("experts", 4, hidden=6, wide=10, transposed=True)
    assert (up.shape, up.outputs, up.inputs) == ((4, 6, 20), 20, 6)
    assert (down.shape, down.outputs, down.inputs) == ((4, 10, 6), 6, 10)


def test_one_object_a_key() -> None:
    made = each_alike([1, 2, 1], lambda key: Layer(str(key), ()))
    assert made[0] is made[2]
    assert made[0] is not made[1]
