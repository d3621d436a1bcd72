"""vLLM: blocks, tokens and concurrency against logs of many releases, and each rule with the wrong one beside it.

The digits are those of public logs: the fitted runs of vlmmem/measured, and logs named here that are not among them.
What a release's code says stands in the docstrings of vlmmem/engines/vllm.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlmmem.catalog import find_format, find_gpu, find_model
from vlmmem.engines import Settings, reserve
from vlmmem.engines.releases import Release, find_release
from vlmmem.engines.vllm import RELEASES, budget, complete, defaults, kv_cache, pages
from vlmmem.engines.vllm import command as command_line
from vlmmem.engines.vllm.command import check_flag, serve_command
from vlmmem.engines.vllm.generation import uses_v1
from vlmmem.engines.vllm.kv_cache import kv_capacity, kv_layout, longest_context
from vlmmem.engines.vllm.pages import Page, attention_block
from vlmmem.errors import InputError
from vlmmem.measured import runs
from vlmmem.measured.run import Run
from vlmmem.memory import cache_sizes
from vlmmem.record import replace
from vlmmem.terms import Term

GIB = 2**30

# What a log of V0 says of itself; unsloth's patched engines and a fork are V0 at releases whose default is V1.
V0_NOTES = (" V0", "V0 ", "V0,", "V0;")

# Logs that print the pool of one GPU and the tokens of another: a stage that has less, or another rank of eight.
OTHER_GPU = ("h100-llama-3.1-8b-instruct-pp2", "h100-llama-3.1-8b-instruct-pp4", "takai-qwen3-32b-tp8")
# Their notes tell of a head that drafts, and their settings do not: they stand among LOGS below.
DRAFTED = ("spark-qwen36-35b-a3b-nvfp4", "spark-qwen38-27b-int4", "spark-qwen38-27b-nvfp4")


def release(version: str) -> Release:
    return find_release("vllm", RELEASES, version)


def settings_of(run: Run) -> Settings:
    """How a run was started, as far as its log says."""
    gpus = {"h100": "h100-80gb", "t4": "t4", "l4": "l4", "4090": "rtx-4090", "3090": "rtx-3090", "mi300x": "mi300x"}
    named = (run.gpu or "").lower()
    gpu = next((find_gpu(known) for word, known in gpus.items() if word in named), None)
    narrow = {"fp8": "fp8", "fp8_e4m3": "fp8"}.get(run.kv_dtype or "") or {"float32": "fp32"}.get(run.dtype or "")
    old = any(word in f" {run.notes} " for word in V0_NOTES)
    concurrency = run.get("max_concurrency")
    context = run.context or (concurrency.context if concurrency is not None else None) or 8192
    return Settings(
        context,
        gpu=gpu,
        gpu_bytes=run.gpu_total.bytes if run.gpu_total is not None else None,
        tp=run.tp or 1,
        pp=run.pp or 1,
        sequences=run.sequences,
        batch_tokens=run.batch_tokens,
        kv_dtype=find_format(narrow) if narrow else None,
        block_size=run.block_size,
        options=(("VLLM_USE_V1", 0),) if old else (),
    )


PRINTED = [
    run
    for run in runs()
    if run.engine == "vllm"
    and run.split == "fitted"
    and run.catalogue is not None
    and run.version is not None
    and run.get("kv_pool") is not None
    and (run.get("kv_tokens") is not None or run.get("kv_blocks") is not None)
    and "kv_pool" not in dict(run.unpriced)
    and "kv_tokens" not in dict(run.unpriced)
]


@pytest.mark.parametrize(
    "run", [run for run in PRINTED if run.id not in (*OTHER_GPU, *DRAFTED)], ids=lambda run: run.id
)
def test_a_logs_blocks_tokens_and_concurrency_lie_within_its_pools_rounding(run: Run) -> None:
    model, settings, read = find_model(run.catalogue or ""), settings_of(run), release(run.version or "")
    pool = run.get("kv_pool")
    assert pool is not None
    low = kv_capacity(model, read, settings, pool.bytes - pool.rounding - 1)
    high = kv_capacity(model, read, settings, pool.bytes + pool.rounding + 1)
    for name, least, most in zip(("kv_tokens", "kv_blocks", "max_concurrency"), low, high, strict=True):
        printed = run.get(name)
        if printed is not None:
            assert least is not None
            assert most is not None
            assert round(least, 2) <= printed.value <= round(most, 2), (name, least, printed.value, most)


@pytest.mark.parametrize(
    "run",
    [
        run
        for run in runs()
        if run.split == "fitted" and run.catalogue and run.get("kv_blocks") and run.get("kv_tokens")
    ],
    ids=lambda run: run.id,
)
def test_from_the_printed_blocks_the_other_digits_come_out_exactly(run: Run) -> None:
    # Pipelines too: whichever stage has least, its blocks are printed.
    model, settings, read = find_model(run.catalogue or ""), settings_of(run), release(run.version or "")
    layout = kv_layout(model, read, settings)
    blocks, tokens, concurrency = (run.get(name) for name in ("kv_blocks", "kv_tokens", "max_concurrency"))
    assert layout is not None
    assert blocks is not None
    assert tokens is not None
    assert concurrency is not None
    found = kv_capacity(model, read, settings, int(blocks.value) * layout.block_bytes)
    assert found[:2] == (tokens.value, blocks.value)
    assert f"{found[2]:.2f}" == f"{concurrency.value:.2f}"


def test_there_are_runs_to_compare_with() -> None:
    assert len(PRINTED) >= 40
    assert {find_model(run.catalogue or "").architecture for run in PRINTED} >= {"gemma2", "gemma3", "gemma4", "phi3"}


# Logs beside those runs: model, release, context, settings, pool in GiB as printed, tokens, concurrency as printed.
LEARNING = (
    "https://github.com/Lebhoryi/vllm-sglang-learning/blob/921688920bdfe9fe4db823335033699fa92d1008/week1-vllm跑通/"
    "Week1-学习报告-环境复现与日志分析.md"
)
KIMI = (
    "https://github.com/vllm-project/recipes/blob/8959cf64189c71d36e11c6a30335f923f261b1f7/moonshotai/Kimi-K2-Think.md"
)
SPARK = "https://github.com/sostrowsk/dgx-spark-local-llm/blob/4b5486468ec6941d55c25f0b4f9557c7893d8b58"
MTP = (("speculative_config", '{"method": "mtp", "num_speculative_tokens": 3}'),)
LOGS: list[tuple[str, str, dict[str, Any], float, int, str, str]] = [
    ("qwen3.5-0.8b", "0.28", {"context": 262_144}, 67.08, 5_788_118, "22.08", LEARNING),
    ("qwen3.5-27b", "0.28", {"context": 262_144}, 18.61, 298_275, "1.14", LEARNING),
    ("qwen3.5-0.8b", "0.28", {"context": 8192}, 61.82, 3_697_198, "451.32", LEARNING),
    # A head for multi-token prediction drafts 3 tokens: "attention block size 800", "1072", and in 8 bits "1600".
    ("qwen3.5-27b", "0.25", {"context": 262_144, "options": MTP}, 80.17, 1_191_213, "4.54", f"{SPARK}/qwen38-int4.log"),
    ("qwen3.5-35b-a3b", "0.25", {"context": 262_144, "options": MTP}, 74.22, 3_366_051, "12.84", f"{SPARK}/qwen36.log"),
    (
        "qwen3.5-27b",
        "0.25",
        {"context": 262_144, "options": MTP, "kv_dtype": find_format("fp8")},
        76.40,
        2_192_477,
        "8.36",
        f"{SPARK}/qwen38-nvfp4.log",
    ),
    ("kimi-k2", "0.11", {"context": 8192, "tp": 8}, 46.80, 715_072, "", KIMI),
    (
        "kimi-k2",
        "0.11",
        {"context": 8192, "tp": 8, "options": (("decode_context_parallel_size", 8),)},
        46.80,
        5_721_088,
        "",
        KIMI,
    ),
]


def within(model: str, version: str, given: dict[str, Any], pool: float) -> tuple[Any, Any]:
    """What the least and the most of a pool of two decimals give."""
    low, high = (int((pool + half) * GIB) for half in (-0.005, 0.005))
    settings = Settings(**given)
    found = find_model(model)
    return kv_capacity(found, release(version), settings, low), kv_capacity(found, release(version), settings, high)


@pytest.mark.parametrize(("model", "version", "given", "pool", "tokens", "concurrency", "source"), LOGS)
def test_a_log_that_is_not_among_the_runs(
    model: str, version: str, given: dict[str, Any], pool: float, tokens: int, concurrency: str, source: str
) -> None:
    low, high = within(model, version, given, pool)
    assert low[0] <= tokens <= high[0], source
    if concurrency:
        assert f"{low[2]:.2f}" <= concurrency <= f"{high[2]:.2f}" or low[2] <= float(concurrency) <= high[2], source


@pytest.mark.parametrize(
    ("blocks", "context", "concurrency", "pool"), [(1952, 20_000, "1.56", 3.81), (1478, 29_000, "0.82", 2.89)]
)
def test_v0_prints_blocks_and_a_concurrency_below_one(blocks: int, context: int, concurrency: str, pool: float) -> None:
    # Llama-3.1-8B on an RTX 3090, https://github.com/vllm-project/vllm/issues/10517: "kv_cache_size=2.89GiB",
    # "# GPU blocks: 1478", "0.82x", "The model's max seq len (29000) is larger than the maximum number of tokens that
    # can be stored in KV cache (23648)".
    low, high = within("llama-3.1-8b", "0.6.4", {"context": context}, pool)
    assert low[1] <= blocks <= high[1]
    layout = kv_layout(find_model("llama-3.1-8b"), release("0.6.4"), Settings(context))
    assert layout is not None
    found = kv_capacity(find_model("llama-3.1-8b"), release("0.6.4"), Settings(context), blocks * layout.block_bytes)
    assert f"{found[2]:.2f}" == concurrency
    assert found[0] == blocks * 16


@pytest.mark.parametrize(
    ("model", "kv_dtype", "block", "padding"),
    [("qwen3.5-0.8b", None, 544, "2.64"), ("qwen3.5-27b", None, 784, "0.13"), ("qwen3.5-27b", "fp8", 1568, "0.13")],
)
def test_a_hybrids_attention_blocks_grow_until_a_state_fits(
    model: str, kv_dtype: str | None, block: int, padding: str
) -> None:
    # "Setting attention block size to 544 tokens", "Padding mamba page size by 2.64%": the log of LEARNING; 1568 in
    # 8 bits: the run qwen38-27b-nvfp4-a6000-1047, of the same architecture and size.
    found, settings = find_model(model), Settings(8192, kv_dtype=find_format(kv_dtype) if kv_dtype else None)
    filled = complete(found, release("0.28"), settings)
    assert filled.block_size == block
    linear = next(layer for layer in found.decoder.layers if layer.kind == "linear")
    full = next(layer for layer in found.decoder.layers if layer.kind == "full")
    (state,) = pages.layer_pages(found, release("0.28"), filled, linear, block)
    (attention,) = pages.layer_pages(found, release("0.28"), filled, full, block)
    assert f"{100 * (attention.size - state.size) / state.size:.2f}" == padding


# --- The wrong rule gives other digits -------------------------------------------------------------------------------

GEMMA_3 = ("gemma-3-12b", "0.19", {"context": 8192, "batch_tokens": 8192}, 48_867)
GEMMA_4 = ("gemma-4-e4b", "0.27", {"context": 32_768, "batch_tokens": 2048}, 21_943)
HYBRID = ("qwen3.5-0.8b", "0.28", {"context": 262_144}, 10_775)


def digits(model: str, version: str, given: dict[str, Any], blocks: int) -> tuple[int | None, str]:
    """Tokens and concurrency from so many blocks."""
    found, read, settings = find_model(model), release(version), Settings(**given)
    layout = kv_layout(found, read, settings)
    assert layout is not None
    tokens, _, concurrency = kv_capacity(found, read, settings, blocks * layout.block_bytes)
    return tokens, f"{concurrency:.2f}"


FAULTS: list[tuple[str, tuple[str, str, dict[str, Any], int], tuple[int, str], Any, str, Any]] = [
    (
        "groups of the largest count",
        GEMMA_3,
        (130_304, "15.88"),
        kv_cache,
        "_group_size",
        lambda _, counts: max(counts),
    ),
    ("windows as full attention", GEMMA_3, (130_304, "15.88"), kv_cache, "_promoted", lambda *_: True),
    (
        "no block more than the window",
        GEMMA_3,
        (130_304, "15.88"),
        Page,
        "blocks",
        lambda self, context, in_flight, _states=1: (
            -(-(min(self.limit - 1 + in_flight, context) if self.kind == "sliding" else context) // self.block)
        ),
    ),
    (
        "one step in flight",
        GEMMA_4,
        (259_296, "7.91"),
        kv_cache,
        "_in_flight",
        lambda _model, _release, settings: settings.batch_tokens,
    ),
    (
        "small pages padded, not filled",
        GEMMA_4,
        (259_296, "7.91"),
        kv_cache,
        "_unified",
        lambda _model, _release, found: [replace(page, size=max(each.size for each in found)) for page in found],
    ),
    ("a state is one block", HYBRID, (5_788_118, "22.08"), kv_cache, "_state_blocks", lambda *_: 1),
    (
        "states in the model's 16 bits",
        HYBRID,
        (5_788_118, "22.08"),
        pages,
        "_state_dtype",
        lambda *_: find_format("bf16"),
    ),
]


@pytest.mark.parametrize(("name", "log", "printed", "where", "what", "wrong"), FAULTS, ids=[each[0] for each in FAULTS])
def test_the_wrong_rule_does_not_give_the_logs_digits(
    name: str,
    log: tuple[str, str, dict[str, Any], int],
    printed: tuple[int, str],
    where: Any,
    what: str,
    wrong: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Gemma 3 12B: the run h100-gemma-3-12b-it; Gemma 4 E4B: amres-gemma4-e4b-3090; Qwen3.5-0.8B: LEARNING.
    assert digits(*log) == printed
    monkeypatch.setattr(where, what, wrong)
    assert digits(*log) != printed, name


def test_before_0_21_the_cache_size_is_of_blocks_and_since_then_of_concurrency() -> None:
    # orbit-gemma3-4b-mi300x, v0.23.0: 1,217,591 tokens at 148.63x.
    log = ("gemma-3-4b", "0.23", {"context": 8192, "batch_tokens": 8192}, 533_588)
    assert digits(*log) == (1_217_591, "148.63")
    assert digits(log[0], "0.20", log[2], log[3])[0] == 533_588 // 7 * 16


def test_groups_by_release() -> None:
    # 25 and 30 layers: the least count, then the largest where it is below 1.25 times the least, then below 1.5.
    assert [kv_cache._group_size(release(version), (25, 30)) for version in ("0.11", "0.12", "0.18")] == [25, 30, 30]
    assert [kv_cache._group_size(release(version), (10, 14)) for version in ("0.11", "0.12", "0.18")] == [10, 10, 14]


def test_windows_count_as_full_attention_before_0_9_2_and_without_the_hybrid_manager() -> None:
    model = find_model("gemma-3-12b")
    full = 48 * 16 * 8 * 2 * 256 * 2
    for version, options in (("0.8.5", ()), ("0.19", (("disable_hybrid_kv_cache_manager", True),))):
        layout = kv_layout(model, release(version), Settings(8192, gpu=find_gpu("h100-80gb"), options=options))
        assert layout is not None
        assert (layout.block_bytes, layout.groups, layout.sequence_blocks) == (full, 1, 512)


def test_chunked_attention_is_full_without_its_manager() -> None:
    model = find_model("llama-4-scout")
    kinds = {
        version: kv_layout(model, release(version), Settings(131_072, tp=8, gpu=find_gpu("h100-80gb")))
        for version in ("0.11", "0.19")
    }
    assert kinds["0.11"] is not None
    assert kinds["0.19"] is not None
    assert (kinds["0.11"].groups, kinds["0.19"].groups) == (1, 4)
    # 12 full layers and 36 of chunks of 8,192 tokens, with the step's 8,192.
    assert kinds["0.19"].sequence_blocks == 8192 + 3 * 1024


def test_latent_attention_is_whole_on_every_gpu_and_the_indexer_lies_beside_it() -> None:
    model = find_model("deepseek-v3.2")
    plain = kv_layout(model, release("0.19"), Settings(8192, tp=8, gpu=find_gpu("h200")))
    packed = kv_layout(model, release("0.19"), Settings(8192, tp=8, gpu=find_gpu("h200"), kv_dtype=find_format("fp8")))
    assert plain is not None
    assert packed is not None
    assert plain.block_bytes == 61 * 64 * (576 * 2 + 132)
    assert packed.block_bytes == 61 * 64 * (656 + 132)


@pytest.mark.parametrize(
    ("version", "bytes_a_token"), [("0.6.6", 128 * 2 * 256 * 2), ("0.7.1", 576 * 2), ("0.7.3", 1280)]
)
def test_v0_keeps_latent_vectors_as_the_release_does(version: str, bytes_a_token: int) -> None:
    # Padded heads before MLA had a cache of its own; 0.7.3 rounds each vector up to 256 bytes.
    layout = kv_layout(find_model("deepseek-v3"), release(version), Settings(8192, tp=1))
    assert layout is not None
    assert layout.block_bytes == 61 * 16 * bytes_a_token


def test_minicpm3_is_served_by_plain_attention() -> None:
    # vllm/model_executor/models/minicpm3.py: 40 heads of 64 + 32, values padded to them.
    for version in ("0.7.1", "0.19"):
        layout = kv_layout(find_model("minicpm3-4b"), release(version), Settings(8192, tp=2))
        assert layout is not None
        assert layout.block_bytes == 62 * 16 * 20 * 2 * 96 * 2


@pytest.mark.parametrize("version", ["0.8.5", "0.11", "0.19", "0.29"])
def test_where_layers_are_alike_a_block_is_what_they_keep_of_its_tokens(version: str) -> None:
    for name in ("llama-2-13b", "llama-3.1-70b", "qwen2.5-7b", "mistral-7b", "phi-4", "deepseek-v3", "mixtral-8x7b"):
        model = find_model(name)
        layout = kv_layout(model, release(version), Settings(8192, gpu=find_gpu("h100-80gb")))
        assert layout is not None
        kept = cache_sizes(model, complete(model, release(version), Settings(8192)).kv_dtype or "bf16")
        assert layout.block_bytes == layout.block * sum(size for _, size in kept.growing)


def test_heads_that_do_not_divide_over_the_gpus_are_refused() -> None:
    with pytest.raises(InputError, match="3 GPUs cannot split 32 heads"):
        kv_layout(find_model("llama-3.1-8b"), release("0.19"), Settings(8192, tp=3))


def test_v0_counts_cross_attention_among_all_layers_and_later_releases_do_not_serve_it() -> None:
    model = find_model("llama-3.2-11b-vision")
    layout = kv_layout(model, release("0.6.6"), Settings(65_536))
    assert layout is not None
    assert layout.block_bytes == 40 * 16 * 2 * 8 * 128 * 2
    with pytest.raises(InputError, match=r"mllama models are not served since 0\.11; 0\.10\.2 is"):
        kv_layout(model, release("0.19"), Settings(65_536))


def test_a_release_that_cannot_make_pages_equal_says_so() -> None:
    with pytest.raises(InputError, match="pages of gemma-4-e4b are of sizes that it cannot make equal"):
        kv_layout(find_model("gemma-4-e4b"), release("0.10.2"), Settings(8192, gpu=find_gpu("h100-80gb")))
    with pytest.raises(InputError, match="V1 keeps one kind of block"):
        kv_layout(find_model("gemma-4-e4b"), release("0.9"), Settings(8192, options=(("disable_x", 1),)))


def test_heads_are_copied_where_there_are_fewer_than_gpus_and_a_layer_may_hold_nothing() -> None:
    model = find_model("llama-3.1-70b")
    sizes = [kv_layout(model, release("0.19"), Settings(8192, tp=tp)) for tp in (1, 8, 16)]
    assert [layout and layout.block_bytes // (80 * 16 * 2 * 128 * 2) for layout in sizes] == [8, 1, 1]


def test_pages_of_a_pipeline_are_those_of_its_longest_stage() -> None:
    layout = kv_layout(find_model("llama-2-13b"), release("0.19"), Settings(4096, pp=3))
    assert layout is not None
    assert layout.block_bytes == 14 * 16 * 2 * 40 * 128 * 2


def test_the_longest_context_fits_and_one_token_more_does_not() -> None:
    model, read = find_model("llama-3.1-8b"), release("0.19")
    settings = Settings(131_072, gpu=find_gpu("rtx-3090"))
    pool = 3 * GIB
    longest = longest_context(model, read, settings, pool)
    assert longest == pool // (16 * 131_072) * 16
    layout = kv_layout(model, read, replace(settings, context=longest + 1))
    assert layout is not None
    assert layout.sequence_bytes > pool
    assert longest_context(model, read, settings, 1) == 0


def test_blocks_that_are_overridden_and_models_that_keep_nothing() -> None:
    model, read = find_model("llama-3.1-8b"), release("0.19")
    given = Settings(8192, options=(("num_gpu_blocks_override", 100),))
    assert kv_capacity(model, read, given, GIB) == (1600, 100, 100 / 512)
    assert kv_capacity(model, read, Settings(8192), -5) == (0, 0, 0.0)
    found = reserve(model, "vllm@0.19", replace(given, gpu=find_gpu("h100-80gb")))
    assert found.bytes_of("kv_cache") == 100 * 16 * 131_072


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_gpu_blocks_override", 0),
        ("num_gpu_blocks_override", True),
        ("num_gpu_blocks_override", 2**70),
        ("decode_context_parallel_size", "nan"),
        ("decode_context_parallel_size", 3),
        ("prefill_context_parallel_size", -1),
    ],
)
def test_counts_that_are_none(name: str, value: int | str | bool) -> None:
    with pytest.raises(InputError, match=name):
        kv_capacity(find_model("llama-3.1-8b"), release("0.19"), Settings(8192, tp=2, options=((name, value),)), GIB)


# --- Defaults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "version", "gpu", "context", "sequences", "batch", "share"),
    [
        # vllm/engine/arg_utils.py, get_batch_defaults and _set_default_args of each release
        ("llama-3.1-8b", "0.19", "h100-80gb", 8192, 1024, 8192, 0.9),
        ("llama-3.1-8b", "0.19", "a100-80gb", 8192, 256, 2048, 0.9),
        ("llama-3.1-8b", "0.8.5", "a100-80gb", 8192, 1024, 8192, 0.9),
        ("llama-3.1-8b", "0.8.1", "a100-40gb", 8192, 1024, 2048, 0.9),
        ("llama-3.1-8b", "0.8.5", "a100-40gb", 8192, 256, 2048, 0.9),
        ("llama-3.1-8b", "0.20", "h100-80gb", 8192, 1024, 8192, 0.92),
        ("llama-3.1-8b", "0.28", "b200", 8192, 1024, 16384, 0.92),
        ("llama-3.1-8b", "0.22", "b200", 8192, 1024, 8192, 0.92),
        # V0: the whole context, in chunks above 32,768, of image models at least 5,120
        ("llama-3.1-8b", "0.6.6", "a100-40gb", 8192, 256, 8192, 0.9),
        ("llama-3.1-8b", "0.6.6", "a100-40gb", 131_072, 256, 2048, 0.9),
        ("llama-3.1-8b", "0.6.3", "a100-40gb", 131_072, 256, 512, 0.9),
        ("llava-1.5-7b", "0.6.6", "a100-40gb", 4096, 256, 5120, 0.9),
        ("llama-3.1-8b", "0.8.5", "t4", 1024, 256, 2048, 0.9),
        # Gemma 4 takes a whole video in one batch since 0.22, where it looks at images both ways
        ("gemma-4-26b-a4b", "0.25", "l4", 8192, 256, 2496, 0.92),
        ("gemma-4-e4b", "0.25", "l4", 8192, 256, 2048, 0.92),
    ],
)
def test_defaults_of_the_server(
    model: str, version: str, gpu: str, context: int, sequences: int, batch: int, share: float
) -> None:
    filled = complete(find_model(model), release(version), Settings(context, gpu=find_gpu(gpu)))
    assert (filled.sequences, filled.batch_tokens, filled.utilization) == (sequences, batch, share)
    assert complete(find_model(model), release(version), filled) == filled


@pytest.mark.parametrize(
    ("version", "gpu", "kv_dtype", "block"),
    [
        ("0.7.3", "h100-80gb", None, 16),
        ("0.8", "h100-80gb", None, 64),
        ("0.17", "h100-80gb", None, 64),
        ("0.19", "h100-80gb", None, 16),  # the run h100-deepseek-v2-lite-chat: 1,505,552 tokens in 94,097 blocks
        ("0.19", "h100-80gb", "fp8", 64),
        ("0.14", "b200", None, 128),
        ("0.16", "b200", None, 64),
        ("0.19", "b200", None, 32),
        ("0.19", "a100-80gb", None, 16),
    ],
)
def test_block_size_of_latent_attention(version: str, gpu: str, kv_dtype: str | None, block: int) -> None:
    given = Settings(8192, gpu=find_gpu(gpu), kv_dtype=find_format(kv_dtype) if kv_dtype else None)
    assert complete(find_model("deepseek-v2"), release(version), given).block_size == block


@pytest.mark.parametrize(
    ("model", "version", "given", "v1"),
    [
        ("llama-3.1-8b", "0.7.3", {}, False),
        ("llama-3.1-8b", "0.8.1", {}, True),
        ("llama-3.1-8b", "0.8.1", {"options": (("VLLM_USE_V1", 0),)}, False),
        ("llama-3.1-8b", "0.9.2", {"gpu": "t4"}, False),
        ("llama-3.1-8b", "0.10.2", {"gpu": "t4"}, True),
        ("llama-3.1-8b", "0.8.5", {"gpu": "a100-80gb", "kv_dtype": "fp8"}, False),
        ("llama-3.1-8b", "0.8.5", {"gpu": "h100-80gb", "kv_dtype": "fp8"}, True),
        ("llama-3.1-8b", "0.9", {"pp": 2}, False),
        ("llama-3.1-8b", "0.9", {"weights": "fp32"}, False),
        ("bamba-9b", "0.9", {}, False),
        ("bamba-9b", "0.10", {}, True),
        ("llama-3.2-11b-vision", "0.10.2", {}, False),
        ("llama-3.1-8b", "0.11", {"gpu": "t4", "options": (("VLLM_USE_V1", 0),)}, True),
    ],
)
def test_which_engine_starts(model: str, version: str, given: dict[str, Any], v1: bool) -> None:
    kinds: dict[str, Callable[[str], Any]] = {"gpu": find_gpu, "kv_dtype": find_format, "weights": find_format}
    settings = Settings(2048, **{name: kinds[name](value) if name in kinds else value for name, value in given.items()})
    assert uses_v1(find_model(model), release(version), settings) is v1


def test_a_float32_checkpoint_is_served_in_16_bits_and_0_11_packs_an_indexed_models_cache() -> None:
    assert defaults._kv_dtype(find_model("gemma-2-9b"), release("0.19"), None).bits == 16
    indexed = find_model("deepseek-v3.2")
    assert [defaults._kv_dtype(indexed, release(version), None).id for version in ("0.11", "0.12")] == [
        "fp8_ds_mla",
        "bf16",
    ]
    with pytest.raises(InputError, match="fp8_ds_mla is for latent attention"):
        kv_layout(find_model("llama-3.1-8b"), release("0.19"), Settings(8192, kv_dtype=find_format("fp8_ds_mla")))


# --- The budget ------------------------------------------------------------------------------------------------------

STUDY = [
    run
    for run in runs()
    if run.split == "fitted" and run.provenance == "study" and run.get("requested") is not None and (run.pp or 1) == 1
]


def _term(name: str, size: int) -> Term:
    return Term(name, size, "", "measured", "")


@pytest.mark.parametrize("run", STUDY, ids=lambda run: run.id)
def test_the_pool_is_the_share_less_what_the_log_prints(run: Run) -> None:
    settings = Settings(
        run.context or 1, gpu_bytes=run.gpu_total.bytes if run.gpu_total else 1, utilization=run.utilization
    )
    printed = {name: quantity.bytes for name, quantity in run.measured if quantity.dimension == "bytes"}
    graphs = _term("runtime:graphs", printed["cuda_graph_estimated"])
    weights = (_term("weights", printed["weights"]),)
    peak, outside = _term("activations", printed["activation_peak"]), _term("runtime:non_torch", printed["non_torch"])
    found = budget.kv_pool(release("0.19"), settings, weights, peak, outside, graphs, v1=True).bytes
    rounding = 5 * 0.005 * GIB
    assert abs(budget.requested_bytes(release("0.19"), settings) - printed["requested"]) <= 0.011 * GIB
    assert abs(found - printed["kv_pool"]) <= rounding
    # Since 0.20 the graphs are taken off: these logs are not so.
    later = budget.kv_pool(release("0.20"), settings, weights, peak, outside, graphs, v1=True).bytes
    assert abs(later - printed["kv_pool"]) > rounding


def test_the_second_runner_takes_no_graphs_off_until_0_29() -> None:
    # vllm/v1/worker/gpu/model_runner.py, profile_cudagraph_memory: "return 0" from v0.18.0 to v0.28.0
    counted = {
        version: budget.counts_graphs(release(version), Settings(8192), second=True)
        for version in ("0.19", "0.22", "0.28", "0.29")
    }
    assert counted == {"0.19": False, "0.22": False, "0.28": False, "0.29": True}
    assert budget.counts_graphs(release("0.22"), Settings(8192))
    # so says the log: its lines leave 0.00 GiB for the graphs, which took 0.77 GiB
    run = next(run for run in runs() if run.id == "amres-gemma4-e4b-3090")
    found = reserve(find_model("gemma-4-e4b"), "vllm@0.27.1", Settings(run.context or 0, gpu=find_gpu("rtx-3090")))
    graphs = next(term.bytes for term in found.terms if term.name == "runtime:graphs")
    assert graphs > GIB // 2
    assert "CUDA graphs" not in next(term.formula for term in found.terms if term.name == "kv_cache")


def test_there_is_a_study_to_compare_with() -> None:
    assert len(STUDY) >= 25


def test_a_pool_that_is_given_skips_the_profile() -> None:
    given = Settings(8192, gpu=find_gpu("l4"), utilization=0.9, options=(("kv_cache_memory_bytes", 5 * GIB),))
    nothing = _term("weights", 0)
    assert budget.kv_pool(release("0.19"), given, (), nothing, nothing, nothing, v1=True).bytes == 5 * GIB
    for wrong in (-1, 0, True, "5G", 1.5):
        with pytest.raises(InputError, match="a positive number of bytes is needed"):
            budget.kv_pool(
                release("0.19"),
                replace(given, options=(("kv_cache_memory_bytes", wrong),)),
                (),
                nothing,
                nothing,
                nothing,
                v1=True,
            )


def test_before_0_9_1_v1_takes_off_what_others_hold() -> None:
    given = Settings(8192, gpu=find_gpu("l4"), utilization=0.9, used_bytes=GIB)
    nothing = _term("weights", 0)
    pools = [
        budget.kv_pool(release(v), given, (), nothing, nothing, nothing, v1=True).bytes for v in ("0.8.5", "0.9.2")
    ]
    assert pools[1] - pools[0] == GIB
    with pytest.raises(InputError, match="which GPU, is needed"):
        budget.requested_bytes(release("0.19"), Settings(8192, utilization=0.9))
    with pytest.raises(InputError, match="share of the GPU is not set"):
        budget.requested_bytes(release("0.19"), Settings(8192, gpu_bytes=GIB))


# --- The whole reservation -------------------------------------------------------------------------------------------


def test_a_reservation_has_the_lines_that_the_log_prints() -> None:
    model = find_model("llama-3.1-8b")
    given = Settings(8192, gpu=find_gpu("h100-80gb"), gpu_bytes=int(79.19 * GIB), utilization=0.95)
    found = reserve(model, "vllm@0.19", given)
    # The run h100-llama-3.1-8b-instruct: 476,000 tokens in 29,750 blocks, 58.11x, pool of 58.11 GiB.
    assert found.kv_tokens == pytest.approx(476_000, rel=0.01)
    assert found.kv_blocks == (found.kv_tokens or 0) // 16
    assert found.max_concurrency == pytest.approx(58.11, rel=0.01)
    assert dict(found.printed)["available KV cache memory"] == found.bytes_of("kv_cache")
    assert {term.kind for term in found.terms} == {"weights", "activations", "runtime", "kv_cache"}
    assert dict(found.settings)["max_num_seqs"] == 1024
    assert found.command[:3] == ("vllm", "serve", model.hub_id)
    assert not found.notes
    assert all(type(term.bytes) is int and term.source for term in found.terms)


def test_a_reservation_says_why_the_engine_will_not_start() -> None:
    model, card = find_model("llama-3.1-8b"), find_gpu("rtx-4090")
    found = reserve(model, "vllm@0.19", Settings(131_072, gpu=card))
    assert found.max_concurrency is not None
    assert found.max_concurrency < 1
    assert "will refuse to start: one sequence of 131,072 tokens needs 16.00 GiB" in found.notes[0]
    assert "a context of" in found.notes[0]
    large = reserve(find_model("llama-3.1-70b"), "vllm@0.19", Settings(8192, gpu=card))
    assert (large.kv_tokens, large.max_concurrency) == (0, 0.0)
    assert large.notes == ("vllm will refuse to start: no available memory for the cache blocks",)
    held = reserve(model, "vllm@0.19", Settings(4096, gpu=card, used_bytes=8 * GIB))
    assert "free memory on device is less than desired" in held.notes[0]
    with pytest.raises(InputError, match="which GPU, is needed"):
        reserve(model, "vllm@0.19", Settings(8192))


def test_an_unknown_release_is_priced_by_a_known_one_and_says_so() -> None:
    found = reserve(find_model("llama-3.1-8b"), "vllm@0.31.0", Settings(8192, gpu=find_gpu("h100-80gb")))
    assert (found.version, found.notes[0]) == ("0.29", "vllm 0.31.0 was not read: the rules of 0.29 are used")


# --- The command line ------------------------------------------------------------------------------------------------


def words(version: str, model: str = "llava-1.5-7b", **given: Any) -> str:
    return " ".join(serve_command(find_model(model), release(version), Settings(4096, utilization=0.9, **given)))


@pytest.mark.parametrize(
    ("version", "given", "end"),
    [
        ("0.6.6", {"images": 2}, "--limit-mm-per-prompt image=2"),
        ("0.19", {"images": 2}, '--limit-mm-per-prompt {"image": 2}'),
        ("0.19", {"eager": True}, "--enforce-eager"),
        ("0.19", {"kv_dtype": find_format("fp8")}, "--kv-cache-dtype fp8"),
        ("0.11", {"kv_dtype": find_format("fp8_ds_mla")}, "--kv-cache-dtype fp8"),
        ("0.19", {"gpu": find_gpu("t4")}, "--gpu-memory-utilization 0.9"),
        ("0.19", {"weights": find_format("fp8")}, "--quantization fp8"),
        ("0.19", {"weights": find_format("bf16")}, "--dtype bfloat16"),
        ("0.19", {"options": (("enable_prefix_caching", False),)}, "--no-enable-prefix-caching"),
        ("0.6.6", {"options": (("enable_chunked_prefill", False),)}, "--enable-chunked-prefill=False"),
        ("0.19", {"options": (("kv_cache_memory_bytes", 5),)}, "--kv-cache-memory-bytes 5"),
    ],
)
def test_the_words_that_start_the_server(version: str, given: dict[str, Any], end: str) -> None:
    assert words(version, **given).endswith(end)


def test_variables_stand_first_old_cards_need_half_and_old_releases_a_module() -> None:
    assert words("0.9", options=(("VLLM_USE_V1", False),)).startswith("VLLM_USE_V1=0 vllm serve llava-hf/")
    assert "--dtype half" in words("0.19", "llama-3.1-8b", gpu=find_gpu("t4"))
    assert words("0.4.3").startswith("python -m vllm.entrypoints.openai.api_server --model llava-hf/")


@pytest.mark.parametrize(
    ("flag", "version", "told"),
    [
        ("--kv-cache-memory-bytes", "0.8.5", r"vllm 0\.8\.5 has no --kv-cache-memory-bytes; 0\.10\.2 is the first"),
        (
            "--num-scheduler-steps",
            "0.19",
            r"vllm 0\.19 has no --num-scheduler-steps any more; it is gone since 0\.10\.2",
        ),
        ("--swap-space", "0.19", "any more"),
        ("--limit-mm-per-prompts", "0.19", "vllm has no --limit-mm-per-prompts"),
    ],
)
def test_a_flag_that_the_release_lacks(flag: str, version: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        check_flag(flag, release(version))


def test_formats_that_a_release_does_not_have() -> None:
    with pytest.raises(InputError, match="vllm keeps no KV cache in q8_0"):
        words("0.19", kv_dtype=find_format("q8_0"))
    with pytest.raises(InputError, match=r"vllm 0\.19 keeps no KV cache in nvfp4; 0\.20 is the first"):
        words("0.19", kv_dtype=find_format("nvfp4"))


def test_the_table_of_flags_is_in_order() -> None:
    table = json.loads((Path(command_line.__file__).parent / "flags.json").read_text(encoding="utf-8"))
    assert len(table["flags"]) > 300
    for flag, (first, gone) in table["flags"].items():
        assert flag.startswith("--")
        assert first in table["releases"]
        assert gone is None or table["releases"].index(first) < table["releases"].index(gone)


@pytest.mark.parametrize(
    "text", ["", "mtp", "[]", "{}", '{"num_speculative_tokens": 0}', '{"num_speculative_tokens": "3"}']
)
def test_a_draft_that_cannot_be_read(text: str) -> None:
    with pytest.raises(InputError, match="speculative_config"):
        kv_layout(find_model("qwen3.5-27b"), release("0.25"), Settings(8192, options=(("speculative_config", text),)))


def test_a_draft_makes_blocks_longer_and_is_noted() -> None:
    given = Settings(8192, gpu=find_gpu("h200"), options=MTP)
    found = reserve(find_model("qwen3.5-27b"), "vllm@0.25", given)
    assert dict(found.settings)["block_size"] == 800
    assert "speculative decoding (mtp)" in found.notes[-1]
    assert "--speculative-config" in found.command


def test_a_blocks_step_is_that_of_the_kernel() -> None:
    model = find_model("qwen3.5-27b")
    assert attention_block(model, release("0.19"), complete(model, release("0.19"), Settings(8192))) % 16 == 0
    wide = complete(model, release("0.22"), Settings(8192, block_size=512))
    assert attention_block(model, release("0.22"), wide) == 1024


@pytest.mark.parametrize("version", RELEASES)
def test_every_source_is_an_address_at_a_tag_or_a_file_of_ours(version: str) -> None:
    settings = Settings(4096, gpu=find_gpu("h100-80gb"))
    for name in ("llama-3.1-8b", "deepseek-v2-lite"):
        found = reserve(find_model(name), f"vllm@{version}", settings)
        for term in found.terms:
            assert re.match(r"https://github\.com/[\w-]+/\w+/blob/v\d+\.\d+\.\d+/\S+|vlmmem/\S+\.json$", term.source)
