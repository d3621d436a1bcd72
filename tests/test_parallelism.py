"""Parallelism: layouts of vLLM and Megatron-LM, memory that vLLM measured, published counts of communication."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.oracle_configs import catalogue_configs
from vlmmem import InputError, Parallelism, Workload, find_model, models
from vlmmem.architectures import build
from vlmmem.memory import kv_cache_bytes, model_weights_bytes
from vlmmem.parallelism import (
    all_reduce_bytes,
    all_reduces,
    bubble_share,
    gpu_shares,
    least_microbatches,
    pipeline_transfer_bytes,
    stage_layers,
    tensor_parallel_sizes,
)

GIB = 2**30
# The rotary cos/sin table that vLLM counts with the weights: 131,072 positions x 128 x 2 B.
ROTARY = 131_072 * 128 * 2


@pytest.mark.parametrize(
    ("tp", "pp", "gib"),
    [(1, 1, "14.99"), (2, 1, "7.51"), (4, 1, "3.77"), (1, 2, "7.51"), (1, 4, "4.26")],
)
def test_weights_that_vllm_measured(tp: int, pp: int, gib: str) -> None:
    # vLLM 0.19 on H100s, meta-llama/Llama-3.1-8B-Instruct in bfloat16: weight_memory_gib of the first rank
    # (https://github.com/jgchn/llm-d-planner/blob/30ec05f7/accuracy/results/v0.19.0/results_raw.csv).
    first = gpu_shares("llama-3.1-8b", Workload(8192), Parallelism(tp, pp))[0]
    assert f"{(first.weights + ROTARY) / GIB:.2f}" == gib


@pytest.mark.parametrize(
    ("layers", "pp", "stages"),
    [
        # vLLM, tests/distributed/test_pipeline_partition.py, test_uneven_auto_partition
        (2, 2, (1, 1)),
        (3, 2, (2, 1)),
        (3, 3, (1, 1, 1)),
        (4, 3, (1, 2, 1)),
        (5, 3, (2, 2, 1)),
        (20, 4, (5, 5, 5, 5)),
    ],
)
def test_layers_are_dealt_out_as_by_vllm(layers: int, pp: int, stages: tuple[int, ...]) -> None:
    assert stage_layers(replace(find_model("phi-2"), layers=layers), pp) == stages


@given(st.sampled_from(sorted(catalogue_configs())), st.integers(1, 16))
def test_every_layer_stands_on_one_stage(name: str, pp: int) -> None:
    layers = find_model(name).layers
    pp = min(pp, layers)
    stages = stage_layers(name, pp)
    assert sum(stages) == layers
    assert len(stages) == pp
    assert max(stages) - min(stages) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("form", [None, "int8", "llm.int8", "awq-4bit", "nf4"])
def test_one_gpu_holds_the_checkpoint(form: str | None) -> None:
    for model in models():
        (share,) = gpu_shares(model, Workload(64), weights=form)
        assert share.weights == sum(model_weights_bytes(model, form).values())
        assert share.kv_cache == kv_cache_bytes(model, 64, kv_dtype=model.dtype)
        assert share.total == share.weights + share.kv_cache


def test_stages_together_hold_the_checkpoint() -> None:
    for name in ("llama-2-13b", "llama-3.1-70b", "llava-1.5-13b", "opt-30b"):
        model = find_model(name)
        shares = gpu_shares(model, Workload(4096, 3), Parallelism(pp=7))
        # OPT's head is tied: with its own stage it is a copy.
        copy = model.vocab_size * model.hidden_size * 2 if model.tied_embeddings else 0
        assert sum(share.weights for share in shares) == sum(model_weights_bytes(model).values()) + copy
        assert sum(share.kv_cache for share in shares) == kv_cache_bytes(model, 4096, 3)
        assert [share.stage for share in shares] == list(range(7))


def test_tensor_parallelism_copies_norms_and_single_kv_heads() -> None:
    model = find_model("llama-3.1-8b")
    whole = sum(model_weights_bytes(model).values())
    norms = (2 * model.layers + 1) * model.hidden_size * 2
    for tp in (2, 4, 8):
        (share,) = gpu_shares(model, Workload(64), Parallelism(tp))
        assert tp * share.weights == whole + (tp - 1) * norms
        assert tp * share.kv_cache == kv_cache_bytes(model, 64)
    # 16 GPUs, 8 KV heads: each head's two matrices and its cache stand on two GPUs.
    (share,) = gpu_shares(model, Workload(64), Parallelism(16))
    matrices = 2 * model.layers * model.kv_heads * model.head_dim * model.hidden_size * 2
    assert 16 * share.weights == whole + 15 * norms + matrices
    assert 16 * share.kv_cache == 2 * kv_cache_bytes(model, 64)


def test_biases_along_inputs_and_positions_stand_whole() -> None:
    model = find_model("opt-30b")
    hidden, layers = model.hidden_size, model.layers
    whole = sum(model_weights_bytes(model).values())
    copied = layers * (2 * 2 * hidden + 2 * hidden) + 2 * hidden + (model.max_positions + 2) * hidden
    (share,) = gpu_shares(model, Workload(64), Parallelism(4))
    assert 4 * share.weights == whole + 3 * copied * 2


def test_replicas_share_the_requests_and_copy_the_weights() -> None:
    (alone,) = gpu_shares("llama-3.1-8b", Workload(4096, 10))
    (shared,) = gpu_shares("llama-3.1-8b", Workload(4096, 10), replicas=4)
    assert shared.weights == alone.weights
    assert shared.kv_cache * 10 == alone.kv_cache * 3  # the fullest of four replicas has three of ten


def test_quantised_parts_keep_their_row_scales() -> None:
    model = find_model("llama-2-13b")
    (whole,) = gpu_shares(model, Workload(64), weights="llm.int8")
    (half,) = gpu_shares(model, Workload(64), Parallelism(2), weights="llm.int8")
    norms = (2 * model.layers + 1) * model.hidden_size * 2
    # A 32-bit scale a row: rows of output and down matrices are on both GPUs.
    scales = model.layers * 2 * model.hidden_size * 4
    assert 2 * half.weights == whole.weights + norms + scales


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        ("llama-2-13b", (1, 2, 4, 8)),  # 40 heads: vLLM's issue 596 refuses 3
        ("llama-1-30b", (1, 2, 4)),  # 52 heads
        ("gpt-3-175b", (1, 2, 3, 4, 6, 8, 12, 16)),  # 96 heads
        ("llama-3.1-70b", (1, 2, 4, 8, 16)),
    ],
)
def test_sizes_that_split(model: str, sizes: tuple[int, ...]) -> None:
    assert tensor_parallel_sizes(model) == sizes


def test_all_reduces_of_megatron() -> None:
    # arXiv 1909.08053: two a layer in the forward path and one after the input embedding.
    assert all_reduces("llama-3.1-70b", 4) == 2 * 80 + 1
    assert all_reduces("llama-2-13b", 2) == 2 * 40 + 1
    assert all_reduces("llama-2-13b", 1) == 0


def test_bytes_of_narayanan() -> None:
    # arXiv 2104.04473, section 3.2: a layer's four all-reduces move 8 b s h (t - 1) / t elements, two of them forward;
    # a boundary passes b s h.
    model, b, s, t = find_model("llama-3.1-70b"), 3, 128, 8
    layers = Fraction(8 * b * s * model.hidden_size * (t - 1), t) / 2 * model.layers
    embedding = Fraction(2 * (t - 1), t) * b * s * model.hidden_size
    assert all_reduce_bytes(model, t, b * s) == 2 * (layers + embedding)
    assert pipeline_transfer_bytes(model, 2, b * s) == 2 * b * s * model.hidden_size
    assert pipeline_transfer_bytes(model, 5, b * s, "fp32", tensors=2) == 4 * 2 * 4 * b * s * model.hidden_size
    assert all_reduce_bytes(model, 1) == pipeline_transfer_bytes(model, 1) == 0


@pytest.mark.parametrize(
    ("stages", "microbatches", "share"),
    [
        # GPipe's figure 2: four accelerators, naive (b) and with four microbatches (c)
        (4, 1, "3/4"),
        (4, 4, "3/7"),
        # Narayanan's figure 3: p = 4, m = 8, (p - 1) / m = 3/8 of the working time
        (4, 8, "3/11"),
        (2, 1, "1/2"),
        (1, 1, "0"),
    ],
)
def test_bubbles_of_the_papers(stages: int, microbatches: int, share: str) -> None:
    bubble = bubble_share(stages, microbatches)
    assert bubble == Fraction(share)
    assert bubble / (1 - bubble) == Fraction(stages - 1, microbatches)


@given(st.integers(1, 64), st.fractions(Fraction(1, 100), Fraction(99, 100)))
def test_least_microbatches_are_the_least(stages: int, share: Fraction) -> None:
    least = least_microbatches(stages, share)
    assert bubble_share(stages, least) <= share
    assert least == 1 or bubble_share(stages, least - 1) > share


def test_a_share_may_be_text_or_float() -> None:
    assert least_microbatches(4, 0.1) == least_microbatches(4, "0.1") == least_microbatches(4, "1/10") == 27


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: stage_layers("phi-2", 33), "pp: 33 stages cannot share 32 layers of phi-2; 32 or fewer are needed"),
        (lambda: stage_layers("phi-2", 0), "pp: 0 was given; a positive integer is needed"),
        (
            lambda: gpu_shares("llama-2-13b", Workload(64), Parallelism(3)),
            (
                "tp: 3 GPUs cannot split 40 heads and 40 KV heads of llama-2-13b evenly; possible are "
                "1, 2, 4, 5, 8, 10, 20 and 40"
            ),
        ),
        (
            lambda: all_reduces("llama-2-13b", 5),
            "tp: 5 GPUs cannot split the 13,824 columns of llama-2-13b's MLP evenly",
        ),
        (
            lambda: gpu_shares("phi-2", Workload(64), kv_dtype="nf4"),
            "kv_dtype: a KV cache is not kept in nf4; bf16, fp16, fp8 and q8_0 are such formats",
        ),
        (lambda: gpu_shares("phi-2", Workload(64), replicas=0), "replicas: 0 was given; a positive integer is needed"),
        (lambda: all_reduce_bytes("phi-2", 2, 0), "tokens: 0 was given; a positive integer is needed"),
        (lambda: pipeline_transfer_bytes("phi-2", 2, -1), "tokens: -1 was given; a positive integer is needed"),
        (
            lambda: pipeline_transfer_bytes("phi-2", 2, tensors=0),
            "tensors: 0 was given; a positive integer is needed",
        ),
        (lambda: bubble_share(0), "stages: 0 was given; a positive integer is needed"),
        (lambda: bubble_share(2, 0), "microbatches: 0 was given; a positive integer is needed"),
        (lambda: least_microbatches(4, 0), "share: 0 was given; a number above 0 is needed, 0.1 for 10 %"),
        (lambda: least_microbatches(4, "x"), "share: 'x' was given; a number above 0 is needed, 0.1 for 10 %"),
        (lambda: tensor_parallel_sizes("phi-2", 0), "most: 0 was given; a positive integer is needed"),
    ],
)
def test_errors_are_one_line(call: object, line: str) -> None:
    assert callable(call)
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value) == line


@pytest.mark.parametrize("name", ["gemma-3-12b", "gemma-4-e2b", "deepseek-v3", "qwen3.5-27b", "nemotron-h-8b"])
def test_stages_together_hold_the_cache_of_layers_that_differ(name: str) -> None:
    shares = gpu_shares(name, Workload(5000, 3), Parallelism(pp=3))
    assert sum(share.kv_cache for share in shares) == kv_cache_bytes(name, 5000, 3)


def test_a_latent_cache_stands_whole_on_every_gpu() -> None:
    (alone,) = gpu_shares("deepseek-v3", Workload(4096))
    (shared,) = gpu_shares("deepseek-v3", Workload(4096), Parallelism(8))
    assert shared.kv_cache == alone.kv_cache == 70_272 * 4096


def test_experts_and_mlps_of_every_width_must_split() -> None:
    # Qwen1.5-MoE: 16 heads, experts of 1,408 columns; Phi-3.5-MoE: 32 heads, experts of 6,400.
    assert tensor_parallel_sizes("qwen1.5-moe-a2.7b") == (1, 2, 4, 8, 16)
    config = {**catalogue_configs()["qwen1.5-moe-a2.7b"], "moe_intermediate_size": 1404}
    assert tensor_parallel_sizes(build(config)) == (1, 2, 4)
    with pytest.raises(InputError, match=r"^tp: 8 GPUs cannot split the 1,404 columns of .*'s experts evenly$"):
        gpu_shares(build(config), Workload(64), Parallelism(8))
