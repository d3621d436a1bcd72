"""Quantised weights: layouts against the libraries' own arrays, configs against published checkpoints, bad lists."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmmem.architectures import build
from vlmmem.architectures.fields import Fields
from vlmmem.catalog import find_format, find_model
from vlmmem.errors import InputError
from vlmmem.layers import Layer, Tensor
from vlmmem.memory import model_weights_bytes
from vlmmem.memory.weights import local_shape, part_bits, tensor_bits
from vlmmem.model import Model
from vlmmem.parallelism import gpu_shares
from vlmmem.quantization import METHODS, Array, Quantization, awq, gptq, read_quantization
from vlmmem.quantization.names import MOST_PATTERNS, Names, spellings
from vlmmem.workload import Parallelism, Workload

ANSWERS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "oracle" / "quantization.json").read_text(encoding="utf-8")
)
SCHEMES: list[dict[str, Any]] = ANSWERS["schemes"]


def read(config: dict[str, Any], **more: object) -> Quantization:
    found = read_quantization(Fields({"quantization_config": config, **more}, "config"))
    assert found is not None
    return found


def linear(outputs: int, inputs: int) -> Tensor:
    return Tensor("self_attn.q_proj.weight", (outputs, inputs))


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme["name"])
def test_a_matrix_is_stored_as_the_library_stores_it(scheme: dict[str, Any]) -> None:
    found = read(scheme["config"])
    for matrix in scheme["matrices"]:
        tensor = linear(matrix["outputs"], matrix["inputs"])
        layout = found.layout("model.layers.0.self_attn.q_proj.weight", tensor, in_decoder=True)
        assert layout is not None
        ours = sorted(array.size(tensor.outputs, tensor.inputs) for array in layout.arrays)
        theirs = sorted(array["bytes"] for array in matrix["arrays"].values())
        assert ours == theirs
        assert layout.size(tensor.outputs, tensor.inputs) == sum(theirs)


def test_another_layout_would_be_noticed() -> None:
    found = read({"quant_method": "fp8", "weight_block_size": [128, 64]})
    layout = found.layout("model.layers.0.mlp.up_proj.weight", linear(576, 896), in_decoder=True)
    scheme = next(scheme for scheme in SCHEMES if scheme["name"] == "fp8 in blocks")
    theirs = sum(array["bytes"] for array in scheme["matrices"][1]["arrays"].values())
    assert layout is not None
    assert layout.size(576, 896) != theirs


# AutoGPTQ 0.7.1, qlinear_cuda_old.py: qweight (inputs / 32 x bits, outputs) and qzeros (groups, outputs / 32 x bits)
# of int32, scales (groups, outputs) of float16, g_idx (inputs) of int32. AutoAWQ 0.2.9, gemm.py: qweight (inputs,
# outputs / 8), qzeros (groups, outputs / 8), scales (groups, outputs).
@pytest.mark.parametrize(
    ("layout", "size"),
    [
        (gptq(4, 128), 4096 // 8 * 1024 * 4 + 32 * 1024 // 8 * 4 + 32 * 1024 * 2 + 4096 * 4),
        (gptq(8, 32), 4096 // 4 * 1024 * 4 + 128 * 1024 // 4 * 4 + 128 * 1024 * 2 + 4096 * 4),
        (gptq(3, 128), 4096 // 32 * 3 * 1024 * 4 + 32 * 1024 // 32 * 3 * 4 + 32 * 1024 * 2 + 4096 * 4),
        (gptq(4, 0), 4096 // 8 * 1024 * 4 + 1024 // 8 * 4 + 1024 * 2 + 4096 * 4),
        (awq(4, 128), 4096 * 1024 // 8 * 4 + 32 * 1024 // 8 * 4 + 32 * 1024 * 2),
        (awq(4, 0), 4096 * 1024 // 8 * 4 + 1024 // 8 * 4 + 1024 * 2),
    ],
)
def test_gptq_and_awq_by_hand(layout: Any, size: int) -> None:
    assert layout.size(1024, 4096) == size


QWEN25_7B: dict[str, Any] = {
    "model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064, "max_position_embeddings": 32768,
    "tie_word_embeddings": False, "dtype": "float16",
}  # fmt: skip
LLAMA_1B: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 8192, "vocab_size": 128256,
    "max_position_embeddings": 131072, "tie_word_embeddings": True, "dtype": "bfloat16",
}  # fmt: skip
LLAMA_70B: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8, "intermediate_size": 28672, "vocab_size": 128256, "max_position_embeddings": 131072,
    "tie_word_embeddings": False, "dtype": "bfloat16",
}  # fmt: skip
QWEN3_32B: dict[str, Any] = {
    "model_type": "qwen3", "hidden_size": 5120, "num_hidden_layers": 64, "num_attention_heads": 64,
    "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 25600, "vocab_size": 151936,
    "max_position_embeddings": 40960, "tie_word_embeddings": False, "dtype": "bfloat16",
}  # fmt: skip
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
NF4 = {
    "quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
}  # fmt: skip
FP8_DYNAMIC = {
    "quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True, "group_size": None},
            "input_activations": {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True},
        }
    },
}  # fmt: skip


def total(config: dict[str, Any], quantization: dict[str, Any] | None = None) -> int:
    whole = config if quantization is None else {**config, "quantization_config": quantization}
    return sum(model_weights_bytes(build(whole)).values())


# Elements that the headers of published checkpoints state, by dtype (the hub's safetensors metadata):
# https://huggingface.co/Qwen/Qwen2.5-7B-Instruct-AWQ, https://huggingface.co/unsloth/Llama-3.2-1B-Instruct-bnb-4bit,
# https://huggingface.co/RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic, https://huggingface.co/Qwen/Qwen3-32B-FP8
def test_awq_as_published() -> None:
    assert total(QWEN25_7B, AWQ) == 4 * 822_033_408 + 2 * 1_141_306_880


def test_nf4_as_published() -> None:
    # Beside each of the 112 matrices stands a JSON text, of 169 to 173 bytes here.
    left = 4 * 89_856 + 2 * 262_735_872 + 501_762_865 - total(LLAMA_1B, NF4)
    assert 112 * 169 <= left <= 112 * 173


def test_fp8_with_a_scale_an_output_as_published() -> None:
    assert total(LLAMA_70B, FP8_DYNAMIC) == 68_451_041_280 + 2 * 2_109_382_656


def test_fp8_in_blocks_as_published() -> None:
    # This checkpoint keeps its scales in 16 bits; they are loaded into 32 (transformers and vLLM), as DeepSeek's are.
    blocks = 64 * (2 * 64 * 40 + 2 * 8 * 40 + 3 * 200 * 40)
    published = 31_205_621_760 + 2 * 1_558_406_144
    assert total(QWEN3_32B, {"quant_method": "fp8", "weight_block_size": [128, 128]}) == published + 2 * blocks


# The index of https://huggingface.co/openai/gpt-oss-20b states a total_size of 13,761,264,768; the header of the 120b
# holds 2,167,371,072 elements in bfloat16, 57,330,892,800 bytes of blocks and 3,583,180,800 of scales.
def test_mxfp4_experts_as_published() -> None:
    assert sum(model_weights_bytes("gpt-oss-20b").values()) == 13_761_264_768
    assert sum(model_weights_bytes("gpt-oss-120b").values()) == 2 * 2_167_371_072 + 57_330_892_800 + 3_583_180_800


def test_deepseek_as_published() -> None:
    # https://huggingface.co/deepseek-ai/DeepSeek-R1: elements by dtype, its layer for multi-token prediction included.
    # That is a layer like the last one, and 16-bit weights; each MoE layer has 256 biases of the router in 32 bits.
    model = find_model("deepseek-v3")
    published = 680_571_043_840 + 2 * 3_918_786_560 + 4 * (41_555_600 - 59 * 256)
    last = part_bits(model, model.decoder, layers=range(60, 61), outside=False) / 8
    layer = model.decoder.layers[60]
    matrices = sum(tensor.parameters for tensor in layer.tensors if tensor.kind in ("linear", "expert"))
    small = sum(tensor.parameters for tensor in layer.tensors) - matrices
    prediction = last - 2 * small + 2 * (model.mtp_parameters - matrices)
    assert sum(model_weights_bytes(model).values()) + prediction == published


def test_qwen3_moe_as_published() -> None:
    # https://huggingface.co/Qwen/Qwen3-30B-A3B-FP8: elements by dtype; its scales are in 16 bits.
    model = find_model("qwen3-30b-a3b-fp8")
    blocks = 48 * (2 * 32 * 16 + 2 * 4 * 16 + 3 * 128 * 6 * 16)
    assert sum(model_weights_bytes(model).values()) == 29_896_998_912 + 2 * 636_948_480 + 2 * blocks


# What vLLM 0.19 loads on an H100, in GiB at two decimals; the table of rotary angles (131,072 x 128 x 2 B) is in it.
# https://github.com/jgchn/llm-d-planner, revision 30ec05f7, accuracy/results/v0.19.0: RedHatAI's Llama-3.3-70B in FP8
# over two and four GPUs, and Llama-3.1-8B with --quantization fp8.
@pytest.mark.parametrize(
    ("config", "quantization", "tp", "gib"),
    [
        ("70b", FP8_DYNAMIC, 2, 33.88),
        ("70b", FP8_DYNAMIC, 4, 16.96),
        ("8b", {"quant_method": "fp8"}, 1, 8.49),
    ],
)
def test_what_an_engine_loads(config: str, quantization: dict[str, Any], tp: int, gib: float) -> None:
    small = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 14336}
    model = build({**LLAMA_70B, **(small if config == "8b" else {}), "quantization_config": quantization})
    (share,) = gpu_shares(model, Workload(64), Parallelism(tp))
    assert abs((share.weights + 131_072 * 128 * 2) / 2**30 - gib) < 0.01


def test_what_stays_in_16_bits() -> None:
    model = build({**LLAMA_1B, "tie_word_embeddings": False, "quantization_config": AWQ})
    kinds: dict[str, set[bool]] = {}
    for part in model.parts:
        for name, tensor in part.named():
            inside = name.startswith("model.layers.")
            assert model.quantization is not None
            kinds.setdefault(tensor.kind, set()).add(
                model.quantization.layout(name, tensor, in_decoder=inside) is not None
            )
    assert kinds == {"embedding": {False}, "norm": {False}, "head": {False}, "linear": {True}}


def layouts(model: Model) -> dict[str, bool]:
    """Which tensors are converted."""
    found = {}
    for part in model.parts:
        for name, tensor in part.named():
            assert model.quantization is not None
            inside = part is model.decoder and name.startswith(part.stack)
            found[name] = model.quantization.layout(name, tensor, in_decoder=inside) is not None
    return found


LLAVA: dict[str, Any] = {
    "model_type": "llava", "image_token_index": 32000,
    "text_config": {**LLAMA_1B, "num_hidden_layers": 2, "tie_word_embeddings": False},
    "vision_config": {
        "model_type": "clip_vision_model", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "image_size": 28, "patch_size": 14,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "vision", "projector", "head"),
    [
        # bitsandbytes converts every linear layer, the tower's too, but not the head
        (NF4, True, True, False),
        # a list takes the place of its own: the head is converted where the list does not name it
        ({**NF4, "llm_int8_skip_modules": ["multi_modal_projector"]}, True, False, True),
        ({**NF4, "llm_int8_skip_modules": ["vision_tower", "lm_head"]}, False, True, False),
        (AWQ, False, False, False),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, False, False, False),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "lm_head": True}, False, False, True),
        (FP8_DYNAMIC, True, True, False),
        ({**FP8_DYNAMIC, "ignore": ["re:.*vision_tower.*", "re:multi_modal_projector.*"]}, False, False, True),
        ({"quant_method": "modelopt", "quant_algo": "FP8", "exclude_modules": ["vision_tower*"]}, False, True, True),
        ({"quant_method": "fp8", "modules_to_not_convert": ["vision_tower"]}, False, True, False),
    ],
)
def test_what_each_method_converts(config: dict[str, Any], vision: bool, projector: bool, head: bool) -> None:
    found = layouts(build({**LLAVA, "quantization_config": config}))
    assert found["model.vision_tower.encoder.layers.1.mlp.fc1.weight"] is vision
    assert found["model.multi_modal_projector.linear_1.weight"] is projector
    assert found["lm_head.weight"] is head
    assert found["model.language_model.layers.1.mlp.up_proj.weight"] is True
    assert not found["model.language_model.embed_tokens.weight"]
    assert not found["model.vision_tower.embeddings.patch_embedding.weight"]


def test_layers_that_a_list_names_are_kept() -> None:
    skipped = {"quant_method": "fbgemm_fp8", "modules_to_not_convert": ["model.layers.1.self_attn", "mlp.down_proj"]}
    found = layouts(build({**LLAMA_1B, "quantization_config": skipped}))
    assert not found["model.layers.1.self_attn.q_proj.weight"]
    assert found["model.layers.10.self_attn.q_proj.weight"]
    assert found["model.layers.1.mlp.up_proj.weight"]
    assert not any(kept for name, kept in found.items() if name.endswith("down_proj.weight"))
    size = total(LLAMA_1B, {**skipped, "modules_to_not_convert": ["model.layers.1.self_attn"]})
    every = total(LLAMA_1B, {**skipped, "modules_to_not_convert": []})
    elements, rows = 2 * 2048 * 2048 + 2 * 512 * 2048, 2 * 2048 + 2 * 512
    assert size - every == elements - 4 * rows - 4 * 4


@pytest.mark.parametrize(
    ("rule", "entries", "names", "matches"),
    [
        ("exact", ["lm_head"], ["lm_head"], True),
        ("exact", ["model.layers.0"], ["model.layers.0.mlp"], False),
        ("exact", ["re:.*mlp.gate$"], ["model.layers.3.mlp.gate"], True),
        ("exact", ["re:mlp.gate"], ["model.layers.3.mlp.gate"], False),
        ("exact", ["re:.*mlp.gate$"], ["model.layers.3.mlp.gate_proj"], False),
        ("modules", ["mlp.gate"], ["model.layers.3.mlp.gate"], True),
        ("modules", ["model.layers.1"], ["model.layers.1.mlp.gate"], True),
        ("modules", ["model.layers.1"], ["model.layers.11.mlp.gate"], False),
        ("modules", ["model.layers.*.self_attn"], ["model.layers.7.self_attn.q_proj"], True),
        ("modules", ["model.layers.*.self_attn"], ["model.layers.7.self_attn_norm"], False),
        ("wildcards", ["model.layers.0.self_attn*"], ["model.layers.0.self_attn.q_proj"], True),
        ("wildcards", ["model.layers.0.self_attn*"], ["model.layers.1.self_attn.q_proj"], False),
        ("wildcards", ["*.gate"], ["model.layers.0.mlp.gate"], True),
        ("wildcards", ["*.gate"], ["model.layers.0.mlp.gate_proj"], False),
        ("wildcards", ["lm_head"], ["lm_head"], True),
        ("wildcards", ["vision_tower"], ["vision_tower.encoder.layers.0.fc1"], True),
        ("wildcards", ["model.layers.?.mlp"], ["model.layers.3.mlp"], True),
    ],
)
def test_rules_of_names(rule: str, entries: list[str], names: list[str], matches: bool) -> None:
    assert Names(entries, rule, "config").match(names) is matches


def test_names_as_checkpoints_write_them() -> None:
    assert "model.layers.0.mlp.experts.0.up_proj" in spellings("model.layers.0.mlp.experts.gate_up_proj", expert=True)
    assert "model.layers.0.block_sparse_moe.experts.0.w2" in spellings(
        "model.layers.0.mlp.experts.down_proj", expert=True
    )
    assert "vision_tower.layers.0.fc1" in spellings("model.vision_tower.layers.0.fc1")
    assert "language_model.lm_head" in spellings("lm_head")


BOMBS = [
    "re:(a+)+$",
    "re:(.*)*x",
    r"re:(.)\1",
    "re:" + ".*" * 6 + "x",
    "re:" + "a" * 400,
    "re:((a|a)*)*",
    "re:(a|b){2,}",
]


@pytest.mark.parametrize("pattern", BOMBS)
def test_a_pattern_that_could_take_long_is_refused(pattern: str) -> None:
    with pytest.raises(InputError, match=r"^config: quantization_config: 'ignore': the pattern .* could take long"):
        read({**FP8_DYNAMIC, "ignore": [pattern]})


@pytest.mark.slow
def test_the_worst_list_that_is_read_takes_no_second() -> None:
    worst = [f"re:.*.*.*.*{letter}" for letter in "!#%&"]
    start = time.process_time()
    with pytest.raises(InputError, match="'ignore': its patterns take too long to match"):
        total(LLAMA_70B, {**FP8_DYNAMIC, "ignore": ["lm_head", *worst, "model.layers.3.mlp.gate_proj"]})
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"quant_method": "awq", "bits": "four"},
            "config: quantization_config: 'bits' is \"four\"; an integer from 1 to 8",
        ),
        ({"quant_method": "awq", "bits": 4, "group_size": -2}, "'group_size' is -2; an integer from 1 to"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, "'weight_block_size' has 1 items; 2 are needed"),
        ({"quant_method": "fp8", "weight_block_size": [128, 0]}, "'weight_block_size' is [128, 0]; a list of integers"),
        ({"quant_method": "fp8", "modules_to_not_convert": "lm_head"}, 'is "lm_head"; a list of texts is needed'),
        ({"quant_method": "fp8", "modules_to_not_convert": ["a["]}, "a[ is no pattern; a regular expression is needed"),
        ({"quant_method": 4}, "'quant_method' is 4; a text is needed"),
        ({"bits": 4}, "'quant_method' is missing; one of gptq, awq, "),
        (
            {**FP8_DYNAMIC, "config_groups": {"a": {"weights": {"strategy": "group"}}}},
            "'group_size' is null; a positive",
        ),
        (
            {**FP8_DYNAMIC, "config_groups": {"a": {"weights": {"type": "bool"}}}},
            "'type' is \"bool\"; one of int, float",
        ),
        ({**FP8_DYNAMIC, "config_groups": [1]}, "config_groups: [1] stands where an object is needed"),
        (
            {**FP8_DYNAMIC, "ignore": [f"re:a{at}.*" for at in range(MOST_PATTERNS + 1)]},
            f"holds more than {MOST_PATTERNS} patterns",
        ),
    ],
)
def test_a_fault_is_one_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(config)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


FIELDS = (
    "bits", "group_size", "weight_block_size", "modules_to_not_convert", "config_groups", "ignore", "format", "dynamic",
    "kv_cache_scheme", "load_in_4bit", "llm_int8_skip_modules", "modules_in_block_to_quantize", "version", "quant_algo",
    "quantized_layers", "exclude_modules", "activation_scheme", "sparsity_config", "lm_head", "expert_dtype",
)  # fmt: skip
NONSENSE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["re:.*q_proj", "re:(", "*", "pack-quantized", "nvfp4-pack-quantized", "NVFP4", "group", "Linear"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["weights", "targets", "num_bits", "type", "strategy", "-:a"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([*METHODS, "hqq"]), st.dictionaries(st.sampled_from(FIELDS), NONSENSE, max_size=5), st.booleans()
)
def test_nonsense_is_bytes_or_one_line(method: str, fields: dict[str, Any], beside: bool) -> None:
    config = {**fields, "quant_method": method}
    small = {**LLAMA_1B, "num_hidden_layers": 2, "vocab_size": 64}
    told = ""
    try:
        if beside:
            model = build(small, "config", {"quantization": config})
        else:
            model = build({**small, "quantization_config": config})
        assert sum(model_weights_bytes(model).values()) > 0
    except InputError as error:
        told = str(error)
    assert "\n" not in told


@pytest.mark.parametrize(
    "config",
    [
        {"quant_method": "aqlm"},
        {"quant_method": "hqq"},
        {"quant_method": "awq", "version": "gemv_fast"},
        {"quant_method": "gptq", "checkpoint_format": "marlin"},
        {"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"},
        {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": {"a": {"quant_algo": "X"}}},
        {**FP8_DYNAMIC, "format": "marlin-24"},
        {**FP8_DYNAMIC, "sparsity_config": {"format": "sparse-24-bitmask"}},
    ],
)
def test_a_method_that_is_not_known_is_told_when_its_bytes_are_asked_for(config: dict[str, Any]) -> None:
    model = build({**LLAMA_1B, "quantization_config": config})
    assert sum(model_weights_bytes(model, "bf16").values()) == 2 * model.parameters
    with pytest.raises(
        InputError, match="its bytes are not known from a config: a safetensors header of the checkpoint"
    ):
        model_weights_bytes(model)


def test_without_a_word_of_quantisation_there_is_none() -> None:
    assert build(LLAMA_1B).quantization is None
    assert read_quantization(Fields({"quantization_config": None}, "config")) is None


def test_modelopt_says_it_in_a_file_of_its_own() -> None:
    beside = {
        "producer": {"name": "modelopt", "version": "0.33.0"},
        "quantization": {
            "quant_algo": "NVFP4",
            "kv_cache_quant_algo": "FP8",
            "group_size": 16,
            "exclude_modules": ["lm_head"],
        },
    }
    model = build(LLAMA_1B, "config", beside)
    assert model.quantization is not None
    assert model.quantization.kv_cache == "fp8"
    matrices = 16 * 7
    elements = 16 * (2 * 2048 * 2048 + 2 * 512 * 2048 + 3 * 2048 * 8192)
    rest = model.parameters - elements
    assert sum(model_weights_bytes(model).values()) == elements // 2 + elements // 16 + 8 * matrices + 2 * rest


def test_mixed_precision_names_each_layer() -> None:
    beside = {
        "quantization": {
            "quant_algo": "MIXED_PRECISION",
            "quantized_layers": {
                "model.layers.0.mlp.up_proj": {"quant_algo": "NVFP4", "group_size": 16},
                "model.layers.0.mlp.down_proj": {"quant_algo": "FP8"},
            },
        }
    }
    model = build(LLAMA_1B, "config", beside)
    assert sum(layouts(model).values()) == 2
    wide = 2048 * 8192
    saved = 2 * wide - (wide // 2 + wide // 16 + 8) + 2 * wide - (wide + 8)
    assert sum(model_weights_bytes(model).values()) == 2 * model.parameters - saved


def test_a_layer_that_is_named_has_all_below_it() -> None:
    beside = {"quantization": {"quant_algo": "MIXED_PRECISION", "quantized_layers": {
        "model.layers.0.mlp": {"quant_algo": "W4A16_NVFP4", "group_size": 16}}}}  # fmt: skip
    model = build(LLAMA_1B, "config", beside)
    assert [name for name, kept in layouts(model).items() if kept] == [
        f"model.layers.0.mlp.{which}_proj.weight" for which in ("gate", "up", "down")
    ]
    wide = 2048 * 8192
    size = sum(model_weights_bytes(model).values())
    assert size == 2 * model.parameters - 3 * (2 * wide - (wide // 2 + wide // 16 + 4))


def test_experts_in_four_bits_beside_blocks_of_eight() -> None:
    # https://huggingface.co/deepseek-ai/DeepSeek-V4-Flash: `expert_dtype` stands beside the quantisation config
    found = read({"quant_method": "fp8", "weight_block_size": [128, 128]}, expert_dtype="fp4")
    experts = Tensor("mlp.experts.down_proj", (4, 256, 512), "expert", "experts")
    routed = found.layout("model.layers.0.mlp.experts.down_proj", experts, in_decoder=True)
    shared = found.layout("model.layers.0.mlp.shared_experts.up_proj.weight", linear(256, 512), in_decoder=True)
    assert routed is not None
    assert shared is not None
    assert routed.size(256, 512) == 256 * 512 // 2 + 256 * 512 // 32
    assert shared.size(256, 512) == 256 * 512 + 2 * 4


def test_without_a_list_modelopt_leaves_the_head_alone() -> None:
    beside = {"quantization": {"quant_algo": "FP8", "exclude_modules": None}}
    found = layouts(build({**LLAMA_1B, "tie_word_embeddings": False}, "config", beside))
    assert not found["lm_head.weight"]
    assert found["model.layers.3.mlp.up_proj.weight"]


def test_gptq_with_settings_of_its_own_for_some_layers() -> None:
    config = {
        "quant_method": "gptq", "bits": 4, "group_size": 128,
        "dynamic": {"-:.*self_attn.*": {}, r"+:.*mlp\.down_proj": {"bits": 8, "group_size": 64}},
    }  # fmt: skip
    found = read(config)

    def layout(name: str) -> str | None:
        chosen = found.layout(f"model.layers.0.{name}.weight", linear(128, 128), in_decoder=True)
        return None if chosen is None else chosen.name

    assert layout("self_attn.q_proj") is None
    assert layout("mlp.down_proj") == "GPTQ, 8 bits"
    assert layout("mlp.up_proj") == "GPTQ, 4 bits"


def test_gptq_of_some_modules() -> None:
    found = read(
        {"quant_method": "gptq", "bits": 4, "modules_in_block_to_quantize": [["self_attn.q_proj"], ["mlp.up_proj"]]}
    )
    kept = [
        name
        for name in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj")
        if found.layout(f"model.layers.0.{name}.weight", linear(128, 128), in_decoder=True) is None
    ]
    assert kept == ["self_attn.k_proj"]


@pytest.mark.parametrize(
    ("scheme", "cache"),
    [
        ({"num_bits": 8, "type": "float"}, "fp8"),
        ({"num_bits": 8, "type": "int"}, "int8"),
        ({"num_bits": 4, "type": "float"}, "nvfp4"),
        (None, ""),
    ],
)
def test_the_cache_that_a_config_asks_for(scheme: dict[str, Any] | None, cache: str) -> None:
    assert read({**FP8_DYNAMIC, "kv_cache_scheme": scheme}).kv_cache == cache


def test_experts_in_one_tensor_are_converted_one_by_one() -> None:
    found = read({"quant_method": "fp8", "weight_block_size": [128, 128]})
    model = build({**LLAMA_1B, "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}})
    gate_up = Tensor("mlp.experts.gate_up_proj", (8, 2 * 192, 256), "expert", "experts")
    down = Tensor("mlp.experts.down_proj", (8, 256, 192), "expert", "experts")
    assert found.layout("model.layers.0.mlp.experts.gate_up_proj", gate_up, in_decoder=True) is not None
    # each of 16 matrices of 192 x 256 has 2 x 2 blocks; in one of 384 rows there would be 3
    assert tensor_bits(model, "model.layers.0.mlp.experts.gate_up_proj", gate_up, index=0) == 8 * (
        gate_up.parameters + 16 * 2 * 2 * 4
    )
    assert tensor_bits(model, "model.layers.0.mlp.experts.down_proj", down, index=0) == 8 * (
        down.parameters + 8 * 2 * 2 * 4
    )
    narrow = Tensor("mlp.experts.down_proj", (8, 100, 192), "expert", "experts")
    assert tensor_bits(model, "model.layers.0.mlp.experts.down_proj", narrow, index=0) == 8 * (
        narrow.parameters + 8 * 1 * 2 * 4
    )
    dense = Tensor("mlp.gate_up_proj.weight", (200, 128))
    assert tensor_bits(model, "model.layers.0.mlp.gate_up_proj.weight", dense, index=0) == 8 * (
        dense.parameters + 2 * 4
    )
    # four GPUs: 48 of 192 columns each, one block of each matrix along them
    assert tensor_bits(model, "model.layers.0.mlp.experts.down_proj", down, None, 4, index=0) == 8 * (
        8 * 256 * 48 + 8 * 2 * 1 * 4
    )


def test_scales_are_cut_with_their_tensor() -> None:
    model = build({**LLAMA_1B, "quantization_config": AWQ})
    name = "model.layers.0.mlp.down_proj.weight"
    down = Tensor("mlp.down_proj.weight", (2048, 8192), cut="inputs")
    whole, half = (tensor_bits(model, name, down, None, tp, index=0) for tp in (1, 2))
    assert half * 2 == whole
    scaled = build({**LLAMA_1B, "quantization_config": FP8_DYNAMIC})
    # a scale an output: all outputs are on both GPUs
    whole, half = (tensor_bits(scaled, name, down, None, tp, index=0) for tp in (1, 2))
    assert half * 2 == whole + 2048 * 16


@pytest.mark.parametrize(
    ("tensor", "tp", "shape"),
    [
        (Tensor("a", (10, 6)), 4, (1, 10, 6)),
        (Tensor("a", (10, 6), cut="outputs"), 4, (1, 3, 6)),
        (Tensor("a", (10, 6), cut="inputs"), 4, (1, 10, 2)),
        (Tensor("a", (10, 6), cut="outputs", transposed=True), 4, (1, 6 // 4 + 1, 10)),
        (Tensor("a", (10,), "bias", "outputs"), 4, (1, 3, 1)),
        (Tensor("a", (11, 6), "embedding", "vocabulary"), 2, (1, 6, 6)),
        (Tensor("mlp.experts.gate_up_proj", (8, 12, 6), "expert", "experts"), 2, (8, 6, 6)),
        (Tensor("mlp.experts.down_proj", (8, 6, 12), "expert", "experts"), 2, (8, 6, 6)),
        (Tensor("mlp.experts.w2.weight", (8, 6, 12), "expert", "experts"), 2, (8, 6, 6)),
        (Tensor("mlp.output_linear.weight", (8, 6, 12), "expert", "experts"), 2, (8, 6, 6)),
        (Tensor("downstream.experts.w1.weight", (8, 12, 6), "expert", "experts"), 2, (8, 6, 6)),
        (Tensor("self_attn.k_proj.weight", (12, 6), cut="kv"), 4, (1, 12, 6)),
        (Tensor("patch", (8, 3, 14, 14), "convolution"), 2, (1, 8, 588)),
        (Tensor("conv1d", (8, 1, 4), "convolution", "outputs"), 2, (1, 4, 4)),
        (Tensor("scalar", (), "other"), 2, (1, 1, 1)),
        (Tensor("scale", (1,), "other"), 1, (1, 1, 1)),
        (Tensor("nothing", (0,), "other"), 1, (0, 0, 1)),
    ],
)
def test_what_one_gpu_holds(tensor: Tensor, tp: int, shape: tuple[int, int, int]) -> None:
    assert local_shape(tensor, None, tp) == shape


def test_key_value_heads_cut_and_copied() -> None:
    layer = find_model("llama-3.1-8b").decoder.layers[0]
    key = Tensor("self_attn.k_proj.weight", (1024, 4096), cut="kv")
    assert [local_shape(key, layer, tp)[1] for tp in (1, 2, 8, 16)] == [1024, 512, 128, 128]
    without = Layer("linear", (key,))
    assert local_shape(key, without, 4)[1] == 1024
    fused = Tensor("self_attn.qkv_proj.weight", (4096 + 2048, 4096), cut="qkv", query_rows=4096)
    assert [local_shape(fused, layer, tp)[1] for tp in (1, 2, 8, 16)] == [6144, 3072, 768, 256 + 256]


def test_a_tensor_out_of_a_file_has_its_bytes() -> None:
    model = find_model("llama-3.1-8b")
    tensor = Tensor("mlp.up_proj.weight", (1024, 512), cut="outputs", dtype="I32", stored=300_000)
    assert tensor_bits(model, "up", tensor) == 8 * 300_000
    assert tensor_bits(model, "up", tensor, None, 4) == 2 * 300_000
    assert tensor_bits(model, "up", tensor, find_format("bf16")) == 16 * 1024 * 512
    buffer = Tensor("g_idx", (0,), "other", dtype="I32", stored=64)
    assert tensor_bits(model, "g_idx", buffer) == 8 * 64


def test_a_format_of_caches_is_none_of_weights() -> None:
    with pytest.raises(InputError, match=r"^weights: fp8_ds_mla is a format of caches; bf16, fp8 and awq-4bit are "):
        model_weights_bytes("llama-3.1-8b", "fp8_ds_mla")


def test_arrays() -> None:
    assert Array("a", 2, (1, 3), (1, 2)).size(7, 9) == 2 * 3 * 5
    assert Array("a", 4, None, None).size(7, 9) == 4
    assert Array("a", 1, None, (1, 2), flat=True).size(7, 9) == 32


def test_what_the_text_model_says_holds_for_the_text_model() -> None:
    model = find_model("kimi-k2.5")
    parts = model_weights_bytes(model)
    assert parts["vision"] == 2 * model.parameters_by_part["vision"]
    assert parts["language"] < model.parameters_by_part["language"]
