"""SGLang: pools and shares against what real servers printed, and the reader of its logs.

The logs are quoted by their figures; each names where it was printed. Nothing here was written by this project.
"""

from typing import Any

import pytest

from vlmmem import find_format, find_gpu, find_model
from vlmmem.engines import Settings, engine_and_release, reserve
from vlmmem.engines import sglang as engine
from vlmmem.engines.releases import Release, find_release
from vlmmem.errors import InputError
from vlmmem.measured.logs import read_log
from vlmmem.measured.logs.sglang import read, recognises
from vlmmem.record import replace

GIB = 2**30

# SGLang's documentation, notebook backend/send_request of v0.4.1.post7 (2025-01-23), on one H100.
NOTEBOOK = """\
[2025-01-23 19:35:10] server_args=ServerArgs(model_path='meta-llama/Meta-Llama-3.1-8B-Instruct', dtype='auto', \
kv_cache_dtype='auto', context_length=None, quantization=None, mem_fraction_static=0.88, max_running_requests=None, \
chunked_prefill_size=8192, tp_size=1, disable_radix_cache=False, disable_cuda_graph=False, cuda_graph_max_bs=160)
[2025-01-23 19:35:14 TP0] Init torch distributed begin.
[2025-01-23 19:35:15 TP0] Load weight begin. avail mem=78.81 GB
[2025-01-23 19:35:16 TP0] Using model weights format ['*.safetensors']
[2025-01-23 19:35:20 TP0] Load weight end. type=LlamaForCausalLM, dtype=torch.bfloat16, avail mem=63.72 GB
[2025-01-23 19:35:20 TP0] KV Cache is allocated. K size: 27.13 GB, V size: 27.13 GB.
[2025-01-23 19:35:20 TP0] Memory pool end. avail mem=8.34 GB
[2025-01-23 19:35:20 TP0] Capture cuda graph begin. This can take up to several minutes.
100%|##########| 23/23 [00:06<00:00,  3.51it/s]
[2025-01-23 19:35:27 TP0] Capture cuda graph end. Time elapsed: 6.57 s
[2025-01-23 19:35:27 TP0] max_total_num_tokens=444500, max_prefill_tokens=16384, max_running_requests=2049, \
context_len=131072
"""

# QwQ-32B (shape of Qwen2.5-32B) on four L4, v0.4.3: docs/sglang.md of github.com/didier-durand/llms-in-clouds, two of
# its four ranks; they interleave, and a bar of progress stands in a line.
FOUR_RANKS = """\
[2025-03-08 12:29:13 TP3] Load weight begin. avail mem=21.63 GB
[2025-03-08 12:29:13 TP0] Load weight begin. avail mem=21.63 GB
[2025-03-08 12:29:21 TP3] Load weight end. type=Qwen2ForCausalLM, dtype=torch.bfloat16, avail mem=6.09 GB, \
mem usage=15.54 GB.
[2025-03-08 12:29:21 TP0] Load weight end. type=Qwen2ForCausalLM, dtype=torch.bfloat16, avail mem=6.09 GB, \
mem usage=15.54 GB.
[2025-03-08 12:29:21 TP0] KV Cache is allocated. #tokens: 46611, K size: 1.42 GB, V size: 1.42 GB
[2025-03-08 12:29:21 TP3] KV Cache is allocated. #tokens: 46611, K size: 1.42 GB, V size: 1.42 GB
[2025-03-08 12:29:21 TP0] Memory pool end. avail mem=2.09 GB
[2025-03-08 12:29:21 TP3] Memory pool end. avail mem=2.09 GB
  0%|      | 0/13 [00:00<?, ?it/s][2025-03-08 12:29:21 TP3] Capture cuda graph begin. avail mem=1.45 GB
[2025-03-08 12:29:28 TP0] Capture cuda graph end. Time elapsed: 7.23 s. avail mem=0.53 GB. mem usage=0.93 GB.
[2025-03-08 12:29:28 TP3] Capture cuda graph end. Time elapsed: 7.22 s. avail mem=0.53 GB. mem usage=0.93 GB.
[2025-03-08 12:29:29 TP0] max_total_num_tokens=46611, chunked_prefill_size=2048, max_running_requests=2049, \
context_len=131072
"""

# Gemma 4 12B on two RTX 3090 with two pools: the run sgl-gemma4-12b-awq-swa0.0625 of our data.
TWO_POOLS = """\
[2026-06-10 10:00:00 TP0] Load weight end. elapsed=9 s, type=Gemma4, quant=awq, avail mem=17.45 GB, mem usage=5.42 GB.
[2026-06-10 10:00:01 TP0] KV Cache is allocated. #tokens: 35340, K size: 2.70 GB, V size: 2.70 GB
[2026-06-10 10:00:01 TP0] KV Cache is allocated. #tokens: 565446, K size: 4.31 GB, V size: 4.31 GB
[2026-06-10 10:00:01 TP0] SWAKVPool mem usage: 14.02 GB, swa size: 35340, full size: 565446
[2026-06-10 10:00:01 TP0] Memory pool end. avail mem=3.41 GB
"""

DRAFT = """\
[2026-08-28 21:34:10] Load weight begin. avail mem=28.81 GB
[2026-08-28 21:34:13] Load weight end. elapsed=9 s, type=Qwen4, avail mem=2.00 GB, mem usage=0.00 GB.
"""


def _release(version: str) -> Release:
    return find_release("sglang", engine.RELEASES, version)


def _pools(model: str, version: str, rest: float, tp: int = 1) -> Any:
    return engine._pools(find_model(model), _release(version), Settings(131072, tp=tp), round(rest * GIB))


class TestPools:
    """The pool follows from the two printed figures of free memory; their last digits leave it some tokens."""

    def test_llama_on_an_h100(self) -> None:
        pools = _pools("llama-3.1-8b", "0.4.1.post7", 63.72 - 78.81 * (1 - 0.88))
        rounding = 0.01 * GIB / 131072
        assert abs(pools.tokens - 444_500) < rounding
        assert round(pools.k_bytes / GIB, 2) == 27.13 == round(pools.v_bytes / GIB, 2)

    def test_qwen_on_four_gpus_of_24_gb(self) -> None:
        pools = _pools("qwen2.5-32b", "0.4.3", 6.09 - 21.63 * (1 - 0.85), tp=4)
        assert abs(pools.tokens - 46_611) < 0.01 * GIB / 65536
        assert round(pools.k_bytes / GIB, 2) == 1.42

    def test_the_printed_share_is_that_of_four_gpus(self) -> None:
        share = engine.mem_fraction_static(
            find_model("qwen2.5-32b"), _release("0.4.3"), Settings(131072, gpu=find_gpu("l4"), tp=4)
        )
        assert share == 0.85

    def test_a_pool_has_one_page_more_than_its_tokens(self) -> None:
        model, release = find_model("llama-3.1-8b"), _release("0.4.1")
        tokens, blocks, concurrency = engine.kv_capacity(model, release, Settings(131072), 131072 * 444_501)
        assert (tokens, blocks) == (444_500, None)
        assert concurrency == pytest.approx(444_500 / 131072)

    def test_two_pools_split_by_the_ratio(self) -> None:
        settings = Settings(262144, tp=2, options=(("swa_full_tokens_ratio", 0.0625),))
        pools = engine._pools(find_model("gemma-4-31b"), _release("0.5.11"), settings, 14 * GIB)
        assert pools.sliding_tokens == int(pools.tokens * 0.0625)
        assert pools.kv_bytes <= 14 * GIB + 10**7
        one = engine._pools(find_model("gemma-4-31b"), _release("0.5.9"), settings, 14 * GIB)
        assert one.sliding_tokens is None
        assert one.tokens < pools.tokens

    def test_latent_attention_is_not_split(self) -> None:
        tokens = _pools("deepseek-v3", "0.4.6", 10, tp=8).tokens
        assert tokens == 10 * GIB // (576 * 2 * 61)

    def test_states_take_their_share(self) -> None:
        pools = _pools("qwen3-next-80b-a3b", "0.5.5", 20, tp=4)
        assert pools.states > 0
        assert pools.state_bytes / (pools.state_bytes + pools.kv_bytes) == pytest.approx(0.9 / 1.9, abs=0.01)

    def test_no_room_is_one_line(self) -> None:
        with pytest.raises(InputError, match="leave no room for a KV cache"):
            _pools("llama-3.1-8b", "0.5.5", -1)


class TestReservation:
    def test_weights_are_what_the_log_prints(self) -> None:
        # v0.5.8, documentation notebook of 2026-02-09: Load weight end. ... mem usage=15.02 GB.
        found = reserve(find_model("llama-3.1-8b"), "sglang@0.5.7", Settings(131072, gpu=find_gpu("h100-80gb")))
        assert round(found.bytes_of("weights") / GIB, 2) == 15.02

    def test_weights_of_a_rank_are_segments(self) -> None:
        """QwQ-32B on four L4: mem usage=15.54 GB; without segments of 2 MiB they would be 15.3."""
        settings = Settings(131072, gpu=find_gpu("l4"), tp=4, utilization=0.85, batch_tokens=2048)
        found = reserve(find_model("qwen2.5-32b"), "sglang@0.4.3", settings)
        assert round(found.bytes_of("weights") / GIB, 2) == 15.54
        printed = dict(found.printed)
        assert printed["avail_before_load"] / GIB == pytest.approx(21.63, abs=0.2)
        assert printed["avail_after_pool"] / GIB == pytest.approx(2.09, abs=0.2)

    def test_gemma_keeps_its_embedding_whole(self) -> None:
        """sgl-gemma4-31b-awq-mem92: mem usage=11.07 GB a rank, 1.31 GB of it because nobody splits the embedding."""
        number = find_format("awq-4bit")
        settings = Settings(262144, gpu=find_gpu("rtx-3090"), tp=2, utilization=0.92, weights=number)
        options = (("swa_full_tokens_ratio", 0.1),)
        found = reserve(find_model("gemma-4-31b"), "sglang@0.5.11", replace(settings, options=options))
        assert found.bytes_of("weights") / GIB == pytest.approx(11.07, rel=0.02)
        assert found.kv_tokens == pytest.approx(130_144, rel=0.02)
        assert dict(found.printed)["kv_tokens_swa"] == pytest.approx(13_014, rel=0.02)

    def test_everything_adds_up_to_the_gpu(self) -> None:
        gpu = find_gpu("h100-80gb")
        found = reserve(find_model("llama-3.1-8b"), "sglang@0.5.9", Settings(32768, gpu=gpu))
        assert sum(term.bytes for term in found.terms) == gpu.cuda_memory_bytes

    def test_tokens_within_two_percent_of_the_log(self) -> None:
        settings = Settings(131072, gpu=find_gpu("h100-80gb"))
        found = reserve(find_model("llama-3.1-8b"), "sglang@0.4.1.post7", settings)
        assert found.kv_tokens is not None
        assert abs(found.kv_tokens / 444_500 - 1) < 0.02

    @pytest.mark.parametrize(
        ("version", "gpu", "tp", "share"),
        [
            # server_args.py of each release, with its own numbers
            ("0.3.6", "h100-80gb", 8, 0.82),
            ("0.4.1", "h100-80gb", 8, 0.81),
            ("0.4.10", "h100-80gb", 1, round((81559 - 10 * 1024) / 81559, 3)),
            ("0.5.2", "rtx-4090", 2, round((24564 - 3 * 1024) / 24564, 3)),
            ("0.5.5", "h100-80gb", 1, round((81559 - 13440) / 81559, 3)),
            ("0.5.5", "rtx-4090", 1, round((24564 - (512 + 3072 + 48 + 128)) / 24564, 3)),
            ("0.5.13", "rtx-4090", 1, round((24564 - (512 + 3072 + 48 + 128 + 42 * 8)) / 24564, 3)),
            ("0.5.20", "rtx-4090", 1, round((24564 - (512 + 6144 + 96 + 128 + 50 * 8)) / 24564, 3)),
        ],
    )
    def test_shares_of_server_args(self, version: str, gpu: str, tp: int, share: float) -> None:
        mib = {"h100-80gb": 81559, "rtx-4090": 24564}[gpu]
        settings = Settings(8192, gpu_bytes=mib * 2**20, tp=tp)
        assert engine.mem_fraction_static(find_model("llama-3.1-8b"), _release(version), settings) == share

    def test_a_model_that_sees_gets_less(self) -> None:
        settings = Settings(8192, gpu=find_gpu("h100-80gb"))
        language, vision = find_model("llama-2-7b"), find_model("llava-1.5-7b")
        for version, factor in (("0.4.1", 0.95), ("0.4.6", 0.9), ("0.5.2", 0.95)):
            release = _release(version)
            ratio = engine.mem_fraction_static(vision, release, settings) / engine.mem_fraction_static(
                language, release, settings
            )
            assert ratio == pytest.approx(factor, abs=0.01)

    def test_qwen2_vl_is_taken_for_a_large_tower(self) -> None:
        """Its vision_config has depth, and the decoder's width as hidden_size: 24 x 3584^2 against 24 x 1024^2."""
        settings = Settings(8192, gpu=find_gpu("h100-80gb"))
        release = _release("0.5.5")
        share = engine.mem_fraction_static(find_model("qwen2-vl-7b"), release, settings)
        assert share == pytest.approx(0.835 * 0.95 * 0.8)

    def test_the_command_has_the_settings(self) -> None:
        settings = Settings(8192, gpu=find_gpu("h200"), tp=2, utilization=0.85, batch_tokens=4096, sequences=64)
        found = reserve(find_model("llama-3.1-70b"), "sglang@0.5.9", settings)
        words = " ".join(found.command)
        assert words.startswith("python -m sglang.launch_server --model-path meta-llama/")
        for part in ("--tp-size 2", "--mem-fraction-static 0.85", "--chunked-prefill-size 4096"):
            assert part in words

    def test_a_flag_that_the_release_lacks(self) -> None:
        settings = Settings(8192, gpu=find_gpu("h100-80gb"), pp=2)
        with pytest.raises(InputError, match="has no --pp-size"):
            reserve(find_model("llama-3.1-8b"), "sglang@0.4.1", settings)

    def test_no_gpu(self) -> None:
        with pytest.raises(InputError, match="a GPU is needed"):
            reserve(find_model("llama-3.1-8b"), "sglang", Settings(8192))

    def test_an_unknown_release_says_whose_rules_count(self) -> None:
        _, release = engine_and_release("sglang@0.5.19")
        assert release.note == "sglang 0.5.19 was not read: the rules of 0.5.16 are used"


class TestLog:
    def test_a_notebook(self) -> None:
        run = read_log(NOTEBOOK, gpu="NVIDIA H100 80GB", version="0.4.1.post7")
        assert run.engine == "sglang"
        assert run.catalogue == "llama-3.1-8b"
        figures = dict(run.measured)
        assert figures["kv_tokens"].value == 444_500
        assert figures["k_size"].value == 27.13
        assert figures["avail_before_load"].bytes == round(78.81 * GIB)
        assert (run.utilization, run.batch_tokens, run.context, run.tp) == (0.88, 8192, 131072, 1)
        assert dict(run.options)["cuda_graph_max_bs"] == 160

    def test_ranks_and_a_bar_of_progress(self) -> None:
        reading = read(FOUR_RANKS.splitlines())
        assert set(reading.devices) == {"TP0", "TP3"}
        assert reading.measured["weights"].value == 15.54
        assert reading.measured["cuda_graph"].value == 0.93
        assert reading.measured["kv_tokens"].value == 46_611

    def test_two_pools(self) -> None:
        measured = read(TWO_POOLS.splitlines()).measured
        assert (measured["kv_tokens"].value, measured["kv_tokens_swa"].value) == (565_446, 35_340)
        assert (measured["k_size"].value, measured["k_size_swa"].value) == (4.31, 2.7)
        assert measured["kv_pool"].value == 14.02

    def test_logs_of_two_machines(self) -> None:
        with pytest.raises(InputError, match="one start is needed"):
            read([*FOUR_RANKS.replace("TP3", "TP0").splitlines()[:1], *NOTEBOOK.splitlines()[1:]])

    def test_what_follows_the_pool_is_a_draft(self) -> None:
        lines = [line.replace(" TP0", "") for line in NOTEBOOK.splitlines()]
        reading = read([*lines, *DRAFT.splitlines()])
        assert reading.measured["avail_before_load"].value == 78.81
        assert any("draft" in note for note in reading.notes)

    def test_cut_after_the_weights(self) -> None:
        reading = read(FOUR_RANKS.splitlines()[:4])
        assert reading.measured["weights"].value == 15.54
        assert "kv_tokens" in reading.missing

    def test_a_pool_that_is_not_there(self) -> None:
        reading = read([line for line in NOTEBOOK.splitlines() if "KV Cache is" not in line])
        assert "k_size" not in reading.measured
        assert reading.measured["avail_after_pool"].value == 8.34

    def test_two_servers(self) -> None:
        other = NOTEBOOK.replace("8192", "4096")
        with pytest.raises(InputError, match="one start is needed"):
            read([*NOTEBOOK.splitlines(), *other.splitlines()])

    def test_two_values_of_one_figure(self) -> None:
        with pytest.raises(InputError, match="later 444501"):
            read([*NOTEBOOK.splitlines(), NOTEBOOK.splitlines()[-1].replace("444500", "444501")])

    def test_server_args_are_text(self) -> None:
        line = "[2025-01-23 19:35:10] server_args=ServerArgs(model_path=__import__('os').system('x'), tp_size=2)"
        assert read([line]).fields.get("model") != "x"

    def test_another_engine(self) -> None:
        assert not recognises(["INFO GPU KV cache size: 563,744 tokens"])
