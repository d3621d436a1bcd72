"""Weights: bytes of parameters in a format, and of whole checkpoints."""

from fractions import Fraction

import pytest

from tools.oracle_configs import catalogue_configs
from vlmmem.catalog import find_format, find_model
from vlmmem.errors import InputError
from vlmmem.formats import Format
from vlmmem.layers import Tensor
from vlmmem.memory import checkpoint_bytes, gguf_weights_bytes, model_weights_bytes, weights_bytes
from vlmmem.memory.weights import find_weights_format, part_bits, tensor_bits
from vlmmem.parallelism import gpu_shares
from vlmmem.workload import Parallelism, Workload


@pytest.mark.parametrize(
    ("parameters", "number", "size"),
    [
        (13_015_864_320, "bf16", 26_031_728_640),
        (13_015_864_320, "fp32", 52_063_457_280),
        (70_000_000_000, "int4", 35_000_000_000),
        (7_000_000_000, "int8", 7_000_000_000),
        (32, "q4_0", 18),
        (256, "q6_k", 210),
        (128, "gptq-4bit", 67),
        (16_384, "nf4-double-quant", 8_452),
        (16_384, "fp8-block128", 16_388),
        (0, "fp16", 0),
    ],
)
def test_bytes(parameters: int, number: str, size: int) -> None:
    assert weights_bytes(parameters, number) == size
    assert weights_bytes(parameters, find_format(number)) == size


def test_sixteen_bits_unless_told() -> None:
    assert weights_bytes(5) == 10


@pytest.mark.parametrize(("parameters", "size"), [(1, 1), (2, 1), (3, 2), (4, 2)])
def test_a_part_of_a_byte_counts_whole(parameters: int, size: int) -> None:
    assert weights_bytes(parameters, "int4") == size


@pytest.mark.parametrize("parameters", [-1, 1.0, True, "7B", None])
def test_parameters_are_a_count(parameters: int) -> None:
    with pytest.raises(InputError) as caught:
        weights_bytes(parameters)
    assert str(caught.value) == f"weights: 'parameters' is {parameters!r}; an integer of 0 or more is needed"


@pytest.mark.parametrize("name", catalogue_configs())
def test_a_plain_checkpoint_is_all_parameters_in_its_dtype(name: str) -> None:
    model = find_model(name)
    assert sum(model_weights_bytes(model, "fp32").values()) == 4 * model.parameters
    assert list(model_weights_bytes(model, "bf16")) == list(model.parameters_by_part)
    if model.quantization is None:
        size = 4 if model.dtype == "fp32" else 2
        assert sum(model_weights_bytes(model).values()) == size * model.parameters
    else:
        assert sum(model_weights_bytes(model).values()) < 2 * model.parameters


# What vLLM 0.19 loads on an H100, in GiB at two decimals; the table of rotary angles (max_positions x head_dim
# x 2 B) is in it. https://github.com/jgchn/llm-d-planner, revision 30ec05f7, accuracy/results/v0.19.0
@pytest.mark.parametrize(
    ("name", "number", "measured"), [("llama-3.1-8b", "bf16", 14.99), ("llama-3.1-8b", "gptq-4bit", 5.38)]
)
def test_measured_checkpoints(name: str, number: str, measured: float) -> None:
    model = find_model(name)
    angles = model.max_positions * model.head_dim * 2
    size = sum(model_weights_bytes(name, number).values()) + angles
    assert abs(size / 2**30 - measured) < 0.02


# Sizes of published checkpoints, in bytes or in GB at two decimals. The NF4 one stores with each of its 224 matrices a
# table of 16 and one of 256 float32 values and some text: 282,399 B in all, which the formula leaves out.
#  https://huggingface.co/fsaudm/Meta-Llama-3.1-8B-Instruct-NF4/commit/49a4a75b (total_size of the index)
#  https://huggingface.co/pavan01729/Meta-Llama-3.1-8B-Instruct-AWQ/tree/main
#  https://huggingface.co/awilliamson/Meta-Llama-3.1-70B-Instruct-AWQ: 4.97 + 6 x 4.89 + 3.36 + 2.1 GB
def test_published_checkpoints() -> None:
    tables = 224 * 4 * (16 + 256)
    assert 0 < 5_702_577_951 - checkpoint_bytes("llama-3.1-8b", "nf4-double-quant") - tables < 224 * 200
    assert round(checkpoint_bytes("llama-3.1-8b", "awq-4bit") / 1e9, 2) == 5.73
    assert abs(checkpoint_bytes("llama-3.1-70b", "awq-4bit") / 1e9 - (4.97 + 6 * 4.89 + 3.36 + 2.1)) < 9 * 0.005


def test_a_checkpoint_is_the_sum_of_its_parts() -> None:
    for name, form in (("llava-1.5-13b", None), ("llava-1.5-13b", "nf4"), (find_model("phi-2"), find_format("int8"))):
        assert checkpoint_bytes(name, form) == sum(model_weights_bytes(name, form).values())
    assert checkpoint_bytes("llama-3.1-8b", "Q5_K_M") == sum(gguf_weights_bytes("llama-3.1-8b", "q5_k_m").values())


def test_a_4_bit_checkpoint_keeps_the_rest_in_16_bits() -> None:
    full, small = (sum(model_weights_bytes("llama-3.1-8b", number).values()) for number in ("bf16", "awq-4bit"))
    assert round(100 * (1 - small / full)) == 64
    # Linear layers: 32 x (2 x 4096^2 + 2 x 1024 x 4096 + 3 x 4096 x 14336) weights.
    matrices = 32 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 4096 * 14336)
    assert matrices == 6_979_321_856
    assert small == matrices * 133 // 256 + 2 * (8_030_261_248 - matrices)


@pytest.mark.parametrize(
    ("form", "bits"),
    [
        # 300 inputs: three groups of 128 a row, whole blocks of 64 over the ends of rows, 2 x 3 squares, ten of 32
        ("gptq-4bit", 4 * 200 * 300 + (16 + 4) * 200 * 3),
        ("nf4", 4 * 200 * 300 + 32 * 938),
        ("nf4-double-quant", 4 * 200 * 300 + 8 * 938 + 32 * 4),
        ("fp8-block128", 8 * 200 * 300 + 32 * 2 * 3),
        ("mxfp4", 4 * 200 * 300 + 8 * 200 * 10),
        ("llm.int8", 8 * 200 * 300 + 32 * 200),
    ],
)
def test_groups_that_are_not_full_count_whole(form: str, bits: int) -> None:
    model = find_model("llama-3.1-8b")
    tensor = Tensor("self_attn.q_proj.weight", (200, 300))
    assert tensor_bits(model, "q", tensor, find_format(form), index=0) == bits
    experts = Tensor("mlp.experts.down_proj", (5, 200, 300), "expert", "experts")
    assert tensor_bits(model, "e", experts, find_format(form), index=0) == 5 * bits
    # outside the decoder's layers, and what is no matrix, stay in 16 bits
    assert tensor_bits(model, "q", tensor, find_format(form)) == 16 * 200 * 300
    norm = Tensor("norm.weight", (200, 300), "norm")
    assert tensor_bits(model, "n", norm, find_format(form), index=0) == 16 * 200 * 300


def test_a_format_without_a_formula_has_its_bits_and_its_rows() -> None:
    number = Format("own", "own", (), Fraction(3), row_bits=7, scope="decoder-linear")
    tensor = Tensor("self_attn.q_proj.weight", (200, 300))
    assert tensor_bits(find_model("llama-3.1-8b"), "q", tensor, number, index=0) == 200 * (3 * 300 + 7)


def test_a_mixture_goes_before_a_format_of_its_name() -> None:
    assert checkpoint_bytes("llama-3.1-8b", "Q8_0") == sum(gguf_weights_bytes("llama-3.1-8b", "q8_0").values())
    assert checkpoint_bytes("llama-3.1-8b", find_format("q8_0")) == -(-17 * 8_030_261_248 // 16)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "llava-1.5-13b", "qwen3-30b-a3b", "gemma-3-4b", "qwen2-72b"])
@pytest.mark.parametrize("mixture", ["Q4_K_M", "q2_k", "Q8_0", "iq4_xs"])
def test_a_mixture_is_a_format_of_weights(name: str, mixture: str) -> None:
    model = find_model(name)
    number = find_weights_format(model, mixture)
    assert model_weights_bytes(model, number) == gguf_weights_bytes(model, mixture)
    assert checkpoint_bytes(model, mixture) == sum(gguf_weights_bytes(model, mixture).values())
    assert number.id == mixture.lower()
    assert number.formula == f"llama.cpp's {number.name}"
    assert number.name == mixture.upper()


def test_a_mixture_that_was_not_checked_for_a_family_is_told() -> None:
    model = find_model("opt-30b")
    assert find_weights_format(model, "q8_0") is find_format("q8_0")
    with pytest.raises(InputError, match=r"^opt-30b: the decoder is of the family 'opt'; the rule is checked for "):
        find_weights_format(model, "q4_k_m")
    with pytest.raises(InputError, match=r"^format 'q9' is not in the catalogue"):
        find_weights_format(model, "q9")
    assert find_weights_format(find_model("llama-3.1-8b"), "awq") is find_format("awq")


def test_a_mixture_over_two_gpus() -> None:
    model = find_model("llama-3.1-8b")
    whole, half = (gpu_shares(model, Workload(64), Parallelism(tp), weights="q4_k_m")[0].weights for tp in (1, 2))
    norms = (2 * model.layers + 1) * model.hidden_size * 4
    assert whole == checkpoint_bytes(model, "q4_k_m")
    assert 2 * half == whole + norms
    stages = gpu_shares(model, Workload(64), Parallelism(pp=4), weights="q4_k_m")
    assert sum(stage.weights for stage in stages) == whole


def test_layers_of_a_stage() -> None:
    model = find_model("llama-3.1-8b")
    part = model.decoder
    whole = part_bits(model, part)
    ends = part_bits(model, part, layers=range(0))
    layers = [part_bits(model, part, layers=range(at, at + 8), outside=False) for at in range(0, 32, 8)]
    assert whole == ends + sum(layers)
    assert len(set(layers)) == 1
    assert part_bits(model, part, find_format("fp32")) == 2 * whole


def test_a_scale_for_each_row() -> None:
    matrices, rows = 6_979_321_856, 32 * (4096 + 2 * 1024 + 4096 + 2 * 14336 + 4096)
    size = sum(model_weights_bytes("llama-3.1-8b", find_format("llm.int8")).values())
    assert size == matrices + 4 * rows + 2 * (8_030_261_248 - matrices)


def test_the_vision_side_is_not_quantised() -> None:
    parts = model_weights_bytes(find_model("llava-1.5-13b"), "nf4")
    assert parts["vision"] == 2 * 303_507_456
    assert parts["projector"] == 2 * 31_467_520
    assert parts["language"] < 13_016_519_680


def test_a_format_of_ones_own() -> None:
    number = Format("three", "three bits", (), Fraction(3))
    assert weights_bytes(3, number) == 2
    assert sum(model_weights_bytes("phi-2", number).values()) == -(-3 * 2_779_683_840 // 8)


def test_unknown_names() -> None:
    with pytest.raises(InputError, match=r"^format 'fp7' is not in the catalogue; known are fp32, fp16, "):
        weights_bytes(1, "fp7")
    with pytest.raises(InputError, match=r"^model 'gpt-9' is not in the catalogue; near are "):
        model_weights_bytes("gpt-9")
