"""Logs to runs: lines in the engines' own forms, each with its source, and every way in which a log may be bad."""

import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vlmmem.cli import main
from vlmmem.errors import InputError
from vlmmem.measured import Run, logs, read_runs
from vlmmem.measured.logs import clean_lines, read_log, read_log_file

# https://github.com/vllm-project/vllm/blob/v0.6.4.post1/vllm/worker/worker.py and vllm/executor/gpu_executor.py
# print these lines; the figures are those of a card of 8 GB
V064 = """\
INFO 12-06 11:39:20 llm_engine.py:249] Initializing an LLM engine (v0.6.4.post1) with config: \
model='microsoft/phi-1_5', speculative_config=None, tokenizer='microsoft/phi-1_5', \
dtype=torch.float16, max_seq_len=2048, download_dir=None, \
tensor_parallel_size=1, pipeline_parallel_size=1, quantization=None, enforce_eager=False, kv_cache_dtype=auto, seed=0
INFO 12-06 11:39:34 model_runner.py:1077] Loading model weights took 2.6419 GB
INFO 12-06 11:39:36 worker.py:232] Memory profiling results: total_gpu_memory=7.92GiB initial_memory_usage=3.09GiB \
peak_torch_memory=3.12GiB memory_usage_post_profile=3.12GiB non_torch_memory=0.47GiB kv_cache_size=3.54GiB \
gpu_memory_utilization=0.90
INFO 12-06 11:39:36 gpu_executor.py:113] # GPU blocks: 1207, # CPU blocks: 1365
INFO 12-06 11:39:36 gpu_executor.py:117] Maximum concurrency for 2048 tokens per request: 9.43x
INFO 12-06 11:40:01 model_runner.py:1518] Graph capturing finished in 22 secs, took 0.15 GiB
"""

# https://github.com/unslothai/notebooks/blob/bdda2efc7ad5ae129ea63cd2065d23c391406283/original_template/
# Advanced_Llama3_1_%283B%29_GRPO_LoRA.ipynb: v0.8.1, V0
V081 = """\
Unsloth: NVIDIA A100-SXM4-40GB. Num GPUs = 1. Max memory: 39.557 GB. Platform: Linux.
INFO 03-24 06:14:52 [llm_engine.py:241] Initializing a V0 LLM engine (v0.8.1) with config: \
model='unsloth/Llama-3.2-3B-Instruct', tokenizer='unsloth/Llama-3.2-3B-Instruct', dtype=torch.bfloat16, \
max_seq_len=2048, tensor_parallel_size=1, pipeline_parallel_size=1, enforce_eager=False, kv_cache_dtype=auto
INFO 03-24 06:15:16 [model_runner.py:1146] Model loading took 6.2472 GB and 22.2 seconds
INFO 03-24 06:15:19 [worker.py:267] Memory profiling takes 2.36 seconds
INFO 03-24 06:15:19 [worker.py:267] the current vLLM instance can use total_gpu_memory (39.56GiB) x \
gpu_memory_utilization (0.79) = 31.30GiB
INFO 03-24 06:15:19 [worker.py:267] model weights take 6.25GiB; non_torch_memory takes 0.09GiB; PyTorch activation \
peak memory takes 1.49GiB; the rest of the memory reserved for KV Cache is 23.46GiB.
INFO 03-24 06:15:19 [executor_base.py:111] # cuda blocks: 13724, # CPU blocks: 3744
INFO 03-24 06:15:19 [executor_base.py:116] Maximum concurrency for 2048 tokens per request: 107.22x
INFO 03-24 06:15:58 [model_runner.py:1570] Graph capturing finished in 35 secs, took 0.38 GiB
"""

# the same repository, Qwen3_8B_FP8_GRPO.ipynb: v0.10.2, V1
V0102 = """\
INFO 10-14 12:18:28 [core.py:76] Initializing a V1 LLM engine (v0.10.2) with config: model='unsloth/Qwen3-8B-FP8', \
dtype=torch.bfloat16, max_seq_len=2048, tensor_parallel_size=1, pipeline_parallel_size=1, quantization=fp8, \
enforce_eager=False, kv_cache_dtype=auto
INFO 10-14 12:20:01 [gpu_model_runner.py:2392] Model loading took 8.9638 GiB and 89.4 seconds
INFO 10-14 12:20:40 [gpu_worker.py:298] Available KV cache memory: 8.98 GiB
INFO 10-14 12:20:41 [kv_cache_utils.py:864] GPU KV cache size: 65,376 tokens
INFO 10-14 12:20:41 [kv_cache_utils.py:868] Maximum concurrency for 2,048 tokens per request: 31.92x
INFO 10-14 12:21:12 [gpu_model_runner.py:3118] Graph capturing finished in 31 secs, took 1.12 GiB
INFO 10-14 12:21:12 [gpu_worker.py:391] Free memory on device (21.91/22.16 GiB) on startup. Desired GPU memory \
utilization is (0.866, 19.19 GiB). Actual usage is 8.96 GiB for weight, 1.23 GiB for peak activation, 0.02 GiB for \
non-torch memory, and 1.12 GiB for CUDAGraph memory. Replace gpu_memory_utilization config with \
`--kv-cache-memory=9347243008` to fit into requested memory, or `--kv-cache-memory=12266053632` to fully utilize gpu \
memory. Current kv cache memory in use is 9642210816 bytes.
"""

# https://github.com/jgchn/llm-d-planner/blob/3c876c8a84d11e11c7092d5dc76ffeb47a3115ba/accuracy/results/v0.19.0/logs/
# meta-llama-llama-3-1-8b---h100-80gb--tp1pp4dp1--8192.log: two of its four stages
V019 = """\
(APIServer pid=1) INFO 04-22 01:02:54 [entrypoints/utils.py:233] non-default args: {'model_tag': \
'meta-llama/Llama-3.1-8B-Instruct', 'model': 'meta-llama/Llama-3.1-8B-Instruct', 'max_model_len': 8192, \
'pipeline_parallel_size': 2, 'gpu_memory_utilization': 0.95}
(APIServer pid=1) DEBUG 04-22 01:02:54 [engine/arg_utils.py:2232] Defaulting max_num_batched_tokens to 8192 for \
OPENAI_API_SERVER usage context.
(APIServer pid=1) DEBUG 04-22 01:02:54 [engine/arg_utils.py:2242] Defaulting max_num_seqs to 1024 for \
OPENAI_API_SERVER usage context.
(EngineCore pid=244) INFO 04-22 01:03:05 [v1/engine/core.py:105] Initializing a V1 LLM engine (v0.19.0) with config: \
model='meta-llama/Llama-3.1-8B-Instruct', dtype=torch.bfloat16, max_seq_len=8192, tensor_parallel_size=1, \
pipeline_parallel_size=2, data_parallel_size=1, quantization=None, enforce_eager=False, kv_cache_dtype=auto
(Worker pid=441) DEBUG 04-22 01:03:18 [v1/worker/gpu_worker.py:284] worker init memory snapshot: torch_peak=0.01GiB, \
free_memory=77.71GiB, total_memory=79.19GiB, cuda_memory=1.48GiB, torch_memory=0.00GiB, non_torch_memory=1.48GiB
(Worker_PP0 pid=441) INFO 04-22 01:03:25 [v1/worker/gpu_model_runner.py:4820] Model loading took 4.26 GiB memory
(Worker_PP1 pid=444) INFO 04-22 01:03:25 [v1/worker/gpu_model_runner.py:4820] Model loading took 4.26 GiB memory
(Worker_PP0 pid=441) DEBUG 04-22 01:03:45 [v1/worker/gpu_worker.py:435] Memory profiling takes 20.58 seconds. Total \
non KV cache memory: 5.43GiB; torch peak memory increase: 1.10GiB; non-torch forward increase memory: 0.07GiB; \
weights memory: 4.26GiB.
(Worker_PP1 pid=444) DEBUG 04-22 01:03:45 [v1/worker/gpu_worker.py:435] Memory profiling takes 20.55 seconds. Total \
non KV cache memory: 6.34GiB; torch peak memory increase: 2.01GiB; non-torch forward increase memory: 0.07GiB; \
weights memory: 4.26GiB.
(Worker_PP0 pid=441) INFO 04-22 01:03:45 [v1/worker/gpu_worker.py:436] Available KV cache memory: 69.8 GiB
(Worker_PP1 pid=444) INFO 04-22 01:03:45 [v1/worker/gpu_worker.py:436] Available KV cache memory: 68.89 GiB
(EngineCore pid=244) INFO 04-22 01:03:45 [v1/core/kv_cache_utils.py:1319] GPU KV cache size: 2,257,264 tokens
(EngineCore pid=244) INFO 04-22 01:03:45 [v1/core/kv_cache_utils.py:1324] Maximum concurrency for 8,192 tokens per \
request: 275.54x
(Worker_PP1 pid=444) INFO 04-22 01:03:56 [v1/worker/gpu_model_runner.py:6046] Graph capturing finished in 11 secs, \
took 0.51 GiB
"""

FORMS = {"v0.6.4": V064, "v0.8.1": V081, "v0.10.2": V0102, "v0.19": V019}


def figure(run: Run, name: str) -> float:
    found = run.get(name)
    assert found is not None, name
    return found.value


def test_the_first_form_of_the_profile_is_read() -> None:
    run = read_log(V064)
    assert (run.engine, run.version, run.catalogue, run.context) == ("vllm", "0.6.4.post1", "phi-1.5", 2048)
    names = ("weights", "peak", "non_torch", "kv_pool", "kv_blocks", "cpu_blocks", "max_concurrency", "cuda_graph")
    assert [figure(run, name) for name in names] == [2.6419, 3.12, 0.47, 3.54, 1207, 1365, 9.43, 0.15]
    weights = run.get("weights")
    assert weights is not None
    assert (weights.unit, weights.bytes) == ("GB", round(2.6419 * 2**30))  # vLLM prints GB for 2**30
    assert "not in the log: activation_peak" in run.notes  # this release prints PyTorch's whole peak


def test_the_sentence_of_v0_is_read() -> None:
    run = read_log(V081)
    assert (run.gpu, run.dtype, run.kv_dtype, run.eager) == ("NVIDIA A100-SXM4-40GB", "bfloat16", "auto", False)
    assert run.gpu_total is not None
    assert run.gpu_total.value == 39.56
    names = ("weights", "activation_peak", "non_torch", "kv_pool", "kv_blocks", "max_concurrency", "cuda_graph")
    assert [figure(run, name) for name in names] == [6.2472, 1.49, 0.09, 23.46, 13724, 107.22, 0.38]
    assert "not in the log" not in run.notes


def test_v1_prints_its_pool_to_the_byte_at_the_end() -> None:
    run = read_log(V0102)
    assert (run.catalogue, run.quantization, run.utilization) == ("qwen3-8b-fp8", "fp8", 0.866)
    pool = run.get("kv_pool")
    assert pool is not None
    assert pool.bytes == 9642210816
    names = ("weights", "activation_peak", "non_torch", "kv_tokens", "init_free", "requested")
    assert [figure(run, name) for name in names] == [8.9638, 1.23, 0.02, 65376, 21.91, 19.19]


def test_of_several_stages_the_fullest_counts_and_is_named() -> None:
    run = read_log(V019)
    assert (run.tp, run.pp, run.gpus, run.batch_tokens, run.sequences) == (1, 2, 2, 8192, 1024)
    assert [figure(run, name) for name in ("activation_peak", "kv_pool", "kv_tokens")] == [2.01, 68.89, 2257264]
    assert "activation_peak is that of PP1 (pid 444), the most of 2" in run.notes
    assert "kv_pool is that of PP1 (pid 444), the least of 2" in run.notes
    assert [device for device, _ in run.devices] == ["PP0 (pid 441)", "PP1 (pid 444)"]


@pytest.mark.parametrize("form", FORMS)
def test_colours_line_ends_and_encodings_do_not_matter(form: str) -> None:
    plain = read_log(FORMS[form]).json()
    coloured = "".join(f"\x1b[1;36m{line[:5]}\x1b[0;0m{line[5:]}\r\n" for line in FORMS[form].splitlines())
    for raw in (coloured.encode(), FORMS[form].encode("utf-8-sig"), FORMS[form].encode("utf-16")):
        assert read_log(raw).json() == plain


def test_a_config_that_a_terminal_broke_is_joined() -> None:
    broken = V081.replace(
        "model='unsloth/Llama-3.2-3B-Instruct', tok", "model='unsloth/Llama-\n    3.2-3B-Instruct', tok"
    )
    assert read_log(broken).json() == read_log(V081).json()


def test_workers_that_write_into_one_line_are_told_apart() -> None:
    lines = V019.splitlines()
    at = next(i for i, line in enumerate(lines) if "Worker_PP0" in line and "Available" in line)
    lines[at : at + 2] = [lines[at] + lines[at + 1]]
    assert read_log("\n".join(lines)).json() == read_log(V019).json()


def test_thousands_may_be_separated_or_not() -> None:
    assert read_log(V0102.replace("65,376", "65376").replace("2,048", "2048")).json() == read_log(V0102).json() | {
        "evidence": read_log(V0102.replace("65,376", "65376").replace("2,048", "2048")).evidence
    }


def test_nothing_of_a_log_is_executed(tmp_path: Path) -> None:
    there = tmp_path / "there"
    evil = f"__import__('pathlib').Path({str(there)!r}).touch()"
    run = read_log(
        V081.replace("model='unsloth", f"{evil}, model='unsloth").replace("max_seq_len=2048", f"max_seq_len={evil}")
    )
    assert not there.exists()
    assert run.context is None


def test_switches_and_drafts_are_told() -> None:
    given = "speculative_config=SpeculativeConfig(method='mtp', model='m', num_spec_tokens=3), enable_lora=True, "
    run = read_log(
        V0102.replace("config: ", f"config: {given}").replace("quantization=fp8", "limit_mm_per_prompt={'image': 0}")
    )
    assert dict(run.options) == {"num_speculative_tokens": 3, "enable_lora": True}
    assert run.images == 0
    assert "it speculates: a draft model may be in the figures" in run.notes


def test_a_cut_log_says_what_is_missing() -> None:
    run = read_log(V0102[: V0102.index("INFO 10-14 12:20:41")])
    assert figure(run, "kv_pool") == 8.98
    assert (
        "not in the log: activation_peak, non_torch, max_concurrency, cuda_graph, kv_tokens and kv_blocks" in run.notes
    )


def test_a_release_that_is_not_known_is_priced_by_one_that_is_said() -> None:
    run = read_log(V019.replace("v0.19.0", "v0.99.0"))
    assert run.version == "0.99.0"
    assert re.search(r"vllm 0\.99\.0 was not read: the rules of [0-9.]+ are used", run.notes)
    own = read_log(V019.replace("v0.19.0", "v0.1.dev1+gda1daf40b"))
    assert own.version is None
    assert "a build of its own (0.1.dev1+gda1daf40b) names no release" in own.notes


ANOTHER = "INFO 03-24 06:15:16 [model_runner.py:1146] Model loading took 7.9 GB and 22.2 seconds\n"
FAULTS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "it is empty"),
    "binary": (b"\x7fELF" + bytes(range(256)) * 40, "it is no text"),
    "nothing known": ("hello\nworld\n" * 50, "no line that is known; a start-up log of vLLM ('GPU KV cache size"),
    "translated": (
        "信息 12-06 11:39:34 模型权重占用 2.6419 GB\n可用的 KV 缓存内存：3.54 GiB\n最大并发 9.43x\n",
        "in the engine's own English, is needed",
    ),
    "cut before any figure": (V081[: V081.index("INFO 03-24 06:15:16")], "ends before any figure of what it takes"),
    "two starts": (V081 + V081, "the engine starts 2 times in it; a log of one start is needed"),
    "contradictory": (V081 + ANOTHER, "loaded of the process is 6.2472 GB and later 7.9 GB; a log of one start"),
    "no model": (
        "INFO 12-06 11:39:36 gpu_executor.py:113] # GPU blocks: 1207, # CPU blocks: 1365",
        "the log names no model; --model is needed",
    ),
    "impossible": (V081.replace("is 23.46GiB", "is 233.46GiB"), "bytes of a GPU of 42,477,226,557; less is needed"),
    "negative": (V081.replace("take 6.25GiB", "take -6.25GiB").replace("6.2472", "-6.25"), "weights is -6.25"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_log_is_refused_in_one_line(fault: str) -> None:
    raw, said = FAULTS[fault]
    with pytest.raises(InputError) as error:
        read_log(raw, "start.log")
    assert said in str(error.value)
    assert str(error.value).startswith("start.log: ")
    assert "\n" not in str(error.value)


def test_the_engine_that_is_named_must_be_the_logs() -> None:
    with pytest.raises(InputError, match="no line of sglang that is known"):
        read_log(V081, engine="sglang")
    with pytest.raises(InputError, match="its logs are not read; one of vllm, sglang"):
        read_log(V081, engine="transformers")


def test_a_large_log_is_read_as_far_as_it_says_and_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LARGEST", 2**20)  # a second is enough for eight of them
    line = "INFO 03-24 07:15:16 [metrics.py:481] Avg prompt throughput: 1203.4 tokens/s, Running: 12 reqs\n"
    huge = V081 + line * (2**20 // len(line) + 1000)
    before = time.perf_counter()
    run = read_log(huge)
    assert time.perf_counter() - before < 2
    assert "only the first 1 MiB of the log were read" in run.notes
    assert figure(run, "kv_blocks") == 13724


def test_long_lines_are_cut() -> None:
    lines, notes = clean_lines(b"INFO " + b"x" * 5_000_000 + b"\nnext\n")
    assert [len(line) for line in lines] == [20_000, 4]
    assert notes == ["1 lines of more than 20,000 characters were cut"]


def test_patterns_do_not_hang_on_what_almost_fits() -> None:
    before = time.perf_counter()
    near = ("worker init memory snapshot:" + "free_memory=" * 1500 + "\n") * 20
    near += ("Memory profiling results:" + " kv_cache_size=" * 1200 + "GiB\n") * 20
    near += ("(Worker pid=" + "1" * 15_000 + " GiB\n") * 20 + ("(Worker" + " pid" * 4000 + " GiB\n") * 20
    read_log(V081 + near)
    assert time.perf_counter() - before < 5


# Whole logs of both other engines are held in their own tests; here only that each is recognised as its own.
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(FORMS)),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 80), st.text(max_size=12)), max_size=6),
)
@example("v0.19", [(0, 0, "\x00")])
def test_a_damaged_log_is_read_or_refused_in_one_line(form: str, edits: list[tuple[int, int, str]]) -> None:
    text = FORMS[form]
    for start, length, new in edits:
        text = text[:start] + new + text[start + length :]
    said = ""
    try:
        run = read_log(text, "start.log")
        json.dumps(run.json(), allow_nan=False)
        assert run.measured
    except InputError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 600


def test_add_keeps_a_run_and_says_what_it_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("start.log").write_text(V081)
    assert main(["measured", "add", "start.log"]) == 0
    said = capsys.readouterr().out
    assert re.search(rf"weights +6\.2472 GB, {round(6.2472 * 2**30):,} B\n", said)
    assert re.search(rf"activation peak +1\.49 GiB, {round(1.49 * 2**30):,} B\n", said)
    assert "measured.json: llama-3.2-3b-instruct-vllm-0.8.1-nvidia-a100-sxm4-40gb is kept" in said
    (kept,) = read_runs("measured.json")
    assert (kept.split, kept.source, kept.provenance) == ("own", "start.log", "log")
    # The same log again is refused, and the file stays as it was.
    before = Path("measured.json").read_bytes()
    assert main(["measured", "add", "start.log"]) == 2
    assert "holds the same figures already" in capsys.readouterr().err
    assert Path("measured.json").read_bytes() == before
    assert main(["measured", "--runs", "measured.json", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["split"], listed["bytes"]["activation_peak"]) == ("own", round(1.49 * 2**30))


def test_what_is_given_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, out = tmp_path / "a.log", tmp_path / "own.json"
    log.write_text("INFO 12-06 11:39:36 gpu_executor.py:113] # GPU blocks: 1207, # CPU blocks: 1365\n")
    given = ["--model", "phi-2", "--gpu", "Tesla T4", "--version", "0.4.2", "-o", str(out), "--json"]
    assert main(["measured", "add", str(log), *given]) == 0
    run = json.loads(capsys.readouterr().out)
    assert (run["catalogue"], run["gpu"], run["version"]) == ("phi-2", "Tesla T4", "0.4.2")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["measured", "add"], "add: no log is named"),
        (["measured", "add", "nowhere.log"], "nowhere.log: cannot be read"),
        (["measured", "remove"], "invalid choice: 'remove'"),
        (["measured", "-o", "x.json"], "--output is given without add"),
        (["measured", "--engine", "vLLM"], "no run of 'vLLM'; one of autoawq"),
        (["measured", "--model", "no-such"], "no run of 'no-such'"),
        (["measured", "--runs", "nowhere.json"], "nowhere.json: cannot be read"),
    ],
)
def test_a_wrong_call_is_one_line_and_two(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("vlmmem: error: ")
    assert said in error
    assert error.count("\n") == 1


def test_the_list_can_be_asked_for_a_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measured", "--engine", "sglang", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found
    assert {run["engine"] for run in found} == {"sglang"}
    assert main(["measured", "--model", "gemma-3-27b"]) == 0
    assert "gemma3-27b-awq-mi50x2-8k" in capsys.readouterr().out


def test_a_folder_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_log_file(tmp_path)
