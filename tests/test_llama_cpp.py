"""llama.cpp: cells, weights by device and compute buffers, against what its builds printed; its start-up log."""

from typing import Any

import pytest

from vlmmem import find_model
from vlmmem.engines import Reservation, Settings, reserve
from vlmmem.engines.llama_cpp import RELEASES, era_of, kv_capacity
from vlmmem.engines.llama_cpp.cache import row_bytes
from vlmmem.engines.llama_cpp.command import FLAGS
from vlmmem.engines.llama_cpp.ggml import Graph, Node, buffer_bytes
from vlmmem.engines.llama_cpp.graph import Block, Era, Step, compute_buffers
from vlmmem.engines.llama_cpp.offload import devices_of_layers
from vlmmem.engines.releases import Release, find_release
from vlmmem.errors import InputError
from vlmmem.measured.logs import read_log
from vlmmem.memory.weights import find_weights_format

MIB = 2**20


def ask(name: str, build: str, context: int, weights: str | None = None, **given: Any) -> Reservation:
    model = find_model(name)
    fields = {key: given.pop(key) for key in ("sequences", "pp") if key in given}
    options = tuple({"mmproj": False, **given}.items())
    number = find_weights_format(model, weights) if weights else None
    settings = Settings(context, weights=number, options=options, **fields)
    return reserve(model, f"llama.cpp@{build}", settings)


def printed(found: Reservation, name: str) -> float:
    return round(dict(found.printed)[name] / MIB, 2)


# What CPU builds of xllamacpp (PyPI; each names llama.cpp's build) printed for files of these shapes whose weights are
# all 0: "CPU compute buffer size", n_ctx 8192, n_ubatch 512; without and with flash attention.
_SHAPES: dict[str, tuple[list[tuple[int, int, int, int, dict[str, Any]]], int, int]] = {
    "qwen3": ([(16, 8, 128, 6144, {"query_norm": True})] * 4, 2048, 151936),
    "mixtral": ([(32, 8, 128, 0, {"experts": 8, "active": 2, "expert_inner": 14336})] * 3, 4096, 32000),
    "qwen3moe": (
        [(32, 4, 128, 0, {"query_norm": True, "experts": 128, "active": 8, "expert_inner": 768})] * 4,
        2048,
        151936,
    ),
    "qwen2": ([(28, 4, 128, 18944, {})] * 4, 3584, 152064),
    "gemma3": ([(8, 4, 256, 10240, {"query_norm": True, "sliding": at % 6 != 5}) for at in range(7)], 2560, 262144),
}
_BUILDS = {
    "b5671": {"qwen3": (304.75, 300.75), "mixtral": (560.01, 144.01), "qwen3moe": (552.01, 316.75),
              "qwen2": (492.01, 311.00), "gemma3": (517.00, 517.00)},
    "b6900": {"qwen3": (304.75, 300.75), "mixtral": (564.01, 200.01), "qwen3moe": (554.01, 300.75),
              "qwen2": (494.01, 311.00), "gemma3": (522.00, 517.00)},
    "b8672": {"qwen3": (308.75, 304.75), "mixtral": (572.01, 208.01), "qwen3moe": (558.01, 304.75),
              "qwen2": (501.01, 318.00), "gemma3": (527.00, 522.00)},
    "b9538": {"qwen3": (296.01, 60.01), "mixtral": (572.01, 208.01), "qwen3moe": (558.01, 96.01),
              "qwen2": (501.01, 147.01), "gemma3": (178.01, 88.52)},
}  # fmt: skip


def buffer(shape: str, build: str, *, flash: bool, era: Era | None = None, cells: int = 8192) -> float:
    layers, hidden, vocab = _SHAPES[shape]
    blocks = []
    for heads, kv, dim, inner, more in layers:
        fields: dict[str, Any] = dict(more)
        sliding = bool(fields.pop("sliding", False))
        many = 1536 if sliding else cells
        blocks.append(Block(many, sliding, heads, heads * dim, kv * dim, kv * dim, dim, inner=inner, **fields))
    release = find_release("llama.cpp", RELEASES, build)
    step = Step(512, 1 if release.since("b9538") else 512, hidden, vocab, flash)
    return compute_buffers(blocks, step, era or era_of(release), device=False)[1] / MIB


@pytest.mark.parametrize("build", _BUILDS)
@pytest.mark.parametrize("shape", _SHAPES)
def test_compute_buffers_are_those_that_the_build_prints(build: str, shape: str) -> None:
    for flash in (False, True):
        assert buffer(shape, build, flash=flash) == pytest.approx(_BUILDS[build][shape][flash], abs=0.006)


def test_a_rule_of_another_build_is_seen() -> None:
    wrong = era_of(Release("b5671", (5671,)))
    assert buffer("mixtral", "b6900", flash=True, era=wrong) == pytest.approx(144.01, abs=0.006)  # 200.01 is printed


def test_gemma_3_at_131072_tokens() -> None:
    # published log: KV 2,560 MiB of 5 full layers, 174 MiB of 29 sliding layers with 1,536 cells
    found = ask("gemma-3-4b", "b5671", 131072)
    assert (printed(found, "k_size"), printed(found, "v_size")) == (1280.0, 1280.0)
    assert (printed(found, "k_size_swa"), printed(found, "v_size_swa")) == (87.0, 87.0)
    assert dict(found.printed)["cells_swa"] == 1536
    full = ask("gemma-3-4b", "b5671", 131072, swa_full=True)
    assert printed(full, "k_size_swa") == 29 * 131072 * 4 * 256 * 2 / MIB
    before = ask("gemma-3-4b", "b5217", 131072)  # no cache of a window yet
    assert printed(before, "k_size") == 34 * 131072 * 4 * 256 * 2 / MIB


@pytest.mark.parametrize(
    ("name", "build", "context", "weights", "given", "lines"),
    [
        # github.com/madcamp-2025w-week4/FSD, logs/llama-server.log (b7896, RTX 3090)
        ("qwen2.5-14b", "b7896", 32768, "q4_k_m", {"n_ctx": 32768},
         {"k_size": 3072.0, "host_weights": 417.66, "CUDA0 model buffer size": 8148.38, "compute_buffer": 307.0}),
        # github.com/Kelsidavis/rusteze, llama.log (b7780, RTX 5080)
        ("qwen2.5-7b", "b7780", 32768, "q8_0", {"sequences": 1},
         {"k_size": 896.0, "host_weights": 552.23, "CUDA0 model buffer size": 7165.44, "compute_buffer": 382.01,
          "host_compute_buffer": 71.01, "output_buffer": 0.58}),
        # github.com/Dahaka52/Nira-AI, logs/llama_server.log (b8133, RTX 5070): 40 of 41 layers on the GPU
        ("mistral-nemo-12b", "b8133", 8192, "q4_k_m",
         {"n_gpu_layers": 40, "cache_type_k": "q8_0", "cache_type_v": "q8_0"},
         {"k_size": 340.0, "host_weights": 525.62, "CUDA0 model buffer size": 6597.68, "compute_buffer": 266.0,
          "CUDA0 KV buffer size": 663.0, "output_buffer": 2.0}),
        # github.com/ikawrakow/ik_llama.cpp, github-data/discussions/562 (mainline b5781, Vulkan)
        ("llama-3.1-8b", "b5835", 16384, None, {"n_ubatch": 1024, "flash_attn": True},
         {"k_size": 1024.0, "v_size": 1024.0, "compute_buffer": 613.01, "host_compute_buffer": 80.01}),
        # the same, github-data/issues/514 (mainline b5622, CUDA)
        ("qwen3-30b-a3b", "b5622", 16384, None, {}, {"k_size": 768.0, "v_size": 768.0, "compute_buffer": 1080.0}),
        # the same, github-data/pull_requests/394 (mainline b5331): keys and values of latent attention
        ("deepseek-v3", "b5331", 16384, None, {"flash_attn": True}, {"k_size": 1098.0, "v_size": 976.0}),
        # the same, a log of GLM Z1 32B (mainline b5274): gate and up in one matrix
        ("glm-4-32b-0414", "b5274", 32768, None, {"flash_attn": True},
         {"k_size": 976.0, "v_size": 976.0, "compute_buffer": 353.0}),
        # github.com/ggml-org/llama.cpp/pull/6122: two GPUs at work at once
        ("c4ai-command-r-v01", "b4798", 4096, None, {"pp": 2}, {"k_size": 2560.0, "CUDA0 compute buffer size": 672.01}),
        # the same, github-data/discussions/357 (mainline b5269): all experts in the host's memory (-ot)
        ("qwen3-235b-a22b", "b5269", 16384, "q6_k",
         {"n_cpu_moe": 94, "flash_attn": True, "cache_type_k": "q8_0", "cache_type_v": "q8_0"},
         {"k_size": 799.0, "v_size": 799.0, "compute_buffer": 774.0, "host_compute_buffer": 40.01,
          "output_buffer": 0.58}),
        # github.com/MrSnowNB/nemoclaw-setup, llama_server_vision.log (two RTX A6000): a hybrid's cache and states
        ("qwen3.5-35b-a3b", "b8672", 32768, "q8_0", {"pp": 2},
         {"k_size": 320.0, "v_size": 320.0, "state_size": 251.25, "host_weights": 515.31, "output_buffer": 3.79}),
        # github.com/Ryukijano/NV-Disruptron, logs/llama-server.log (b8999): Mamba-2 layers
        ("nemotron-3-nano-30b-a3b", "b8999", 16384, None, {}, {"k_size": 48.0, "v_size": 48.0, "state_size": 190.47}),
        # a log of 2025: Qwen3 30B A3B at Q8_0, four slots of one cache (b7551's defaults)
        ("qwen3-30b-a3b", "b7551", 65536, "q8_0", {},
         {"CUDA0 KV buffer size": 6144.0, "host_weights": 315.3, "compute_buffer": 300.75,
          "host_compute_buffer": 132.01, "output_buffer": 2.32}),
    ],
)  # fmt: skip
def test_logs_on_gpus(
    name: str, build: str, context: int, weights: str | None, given: dict[str, Any], lines: dict[str, float]
) -> None:
    found = ask(name, build, context, weights, **given)
    assert {line: printed(found, line) for line in lines} == pytest.approx(lines, abs=0.006)


def test_latent_attention_by_build() -> None:
    heads = ask("deepseek-v3", "b4798", 4096)  # keys of 192 and values of 128 for each of 128 heads
    assert printed(heads, "k_size") == 61 * 4096 * 24576 * 2 / MIB
    assert printed(heads, "v_size") == 61 * 4096 * 16384 * 2 / MIB
    both = ask("deepseek-v3", "b5671", 4096)
    assert (printed(both, "k_size"), printed(both, "v_size")) == (274.5, 244.0)
    keys = ask("deepseek-v3", "b8672", 16384)
    assert (printed(keys, "k_size"), printed(keys, "v_size")) == (1098.0, 0)


@pytest.mark.parametrize(
    ("build", "plain", "flash"),
    [
        ("b5217", 1219.01, 208.0),
        ("b5671", 1219.01, 208.0),
        ("b7551", 1230.01, 228.01),
        ("b8672", 1232.01, 232.01),
        ("b9538", 1232.01, 200.01),
    ],
)
def test_compute_buffers_of_latent_attention(build: str, plain: float, flash: float) -> None:
    # as _BUILDS: 3 layers of DeepSeek-V3's kind with 64 heads, 32 experts of which 6 see a token, and one for all
    release = find_release("llama.cpp", RELEASES, build)
    sizes: dict[str, Any] = {"latent": (64 * 192, 576, 1536)}
    first = Block(8192, False, 64, 64 * 192, 576, 64 * 128, 512, inner=10944, **sizes)
    sizes |= {"experts": 32, "active": 6, "expert_inner": 512, "shared": 512}
    rest = Block(8192, False, 64, 64 * 192, 576, 64 * 128, 512, **sizes)
    for on, wanted in ((False, plain), (True, flash)):
        step = Step(512, 1 if release.since("b9538") else 512, 2048, 102400, on)
        found = compute_buffers([first, rest, rest], step, era_of(release), device=False)[1] / MIB
        assert found == pytest.approx(wanted, abs=0.006)


@pytest.mark.parametrize(
    ("build", "cells", "plain", "flash"),
    [
        ("b5835", 8000, (547.63, 539.63), (200.01, 300.75)),
        ("b6123", 8000, (551.63, 541.63), (200.01, 300.75)),
        ("b7079", 8192, (564.01, 554.01), (200.01, 300.75)),
    ],
)
def test_experts_between_the_builds(
    build: str, cells: int, plain: tuple[float, float], flash: tuple[float, float]
) -> None:
    # as _BUILDS, for n_ctx 8000; under flash attention all pad to 8192
    for shape, without, with_ in zip(("mixtral", "qwen3moe"), plain, flash, strict=True):
        assert buffer(shape, build, flash=False, cells=cells) == pytest.approx(without, abs=0.006)
        assert buffer(shape, build, flash=True) == pytest.approx(with_, abs=0.006)


def test_the_newest_build_within_its_error() -> None:
    # b11549 keeps the tokens' embeddings; of experts and of Gemma 3 that is not the whole change
    printed_ = {"qwen3": (300.01, 64.02), "mixtral": (580.01, 216.02), "qwen2": (508.01, 154.02)}
    near = {"qwen3moe": (566.01, 96.02), "gemma3": (184.02, 94.53)}
    for shape, figures in (printed_ | near).items():
        for flash in (False, True):
            error = 0.001 if shape in printed_ else 0.045
            assert buffer(shape, "b11549", flash=flash) == pytest.approx(figures[flash], rel=error)


def test_cells() -> None:
    cells = {
        ("b6301", True, 4000): 4096,
        ("b6301", False, 4000): 4000,
        ("b6301", False, 4001): 4032,
        ("b7079", False, 4001): 4096,
        ("b6451", False, 8000): 8000,  # printed by b5835, b6123 and b6451 for n_ctx 8000 without flash attention
        ("b7079", False, 8000): 8192,  # and by b7079
    }
    for (build, flash, context), wanted in cells.items():
        found = ask("llama-3.1-8b", build, context, flash_attn=flash, sequences=1)
        assert dict(found.printed)["cells"] == wanted
    four = ask("llama-3.1-8b", "b7551", 2000, sequences=4)  # printed for n_ctx 8000 and four slots: 2048 cells, 4/4
    assert (dict(four.printed)["cells"], four.kv_tokens) == (2048, 8192)
    assert printed(four, "k_size") == 8192 * 32 * 1024 * 2 / MIB


def test_layers_of_devices() -> None:
    assert devices_of_layers(48, 99, [1.0, 1.0]) == [0] * 25 + [1] * 24
    assert devices_of_layers(4, 0, [1.0]) == [None] * 5
    assert devices_of_layers(3, 99, [3.0, 1.0]) == [0, 0, 0, 1]
    assert devices_of_layers(3, 2, [1.0], output_first=False) == [None, 0, 0, None]


def test_an_output_in_the_host_is_fetched() -> None:
    some = ask("llama-3.1-8b", "b5217", 2048, "q4_k_m", n_gpu_layers=20)
    # Llama 3 8B with some layers on the GPU: 410.98 of the output, 250.5 of logits, 8 of the hidden states
    assert printed(some, "compute_buffer") == pytest.approx(669.48, abs=0.02)


def test_types_of_the_cache() -> None:
    assert [row_bytes(kind, 1024) for kind in ("f16", "q8_0", "q5_1", "q4_0", "iq4_nl")] == [2048, 1088, 768, 576, 576]
    half = ask("llama-3.1-8b", "b5217", 1024, cache_type_k="iq4_nl", flash_attn=False)
    # ik_llama.cpp, github-data/issues/103: K (iq4_nl): 18.00 MiB, V (f16): 64.00 MiB
    assert (printed(half, "k_size"), printed(half, "v_size")) == (18.0, 64.0)


@pytest.mark.parametrize(
    ("given", "need"),
    [
        ({"cache_type_v": "q8_0", "flash_attn": False}, "needs flash attention"),
        ({"cache_type_k": "q3_x"}, "one of f32, f16"),
        ({"n_ubatch": 0}, "a whole number from 1"),
        ({"n_gpu_layers": "all"}, "a whole number from 0"),
        ({"flash_attn": "maybe"}, "on or off"),
        ({"tensor_split": "a,b"}, "shares such as 3,1"),
        ({"tensor_split": "3,1", "pp": 4}, "one for each"),
        ({"threads": 4}, "llama.cpp has none"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(given: dict[str, Any], need: str) -> None:
    with pytest.raises(InputError, match=need) as caught:
        ask("llama-3.1-8b", "b5671", 4096, **given)
    assert "\n" not in str(caught.value)


def test_cross_attention_is_not_run() -> None:
    with pytest.raises(InputError, match="no cross-attention"):
        ask("llama-3.2-11b-vision", "b8672", 4096)


def test_an_unknown_build_names_the_one_that_is_used() -> None:
    found = ask("llama-3.1-8b", "b6000", 4096)
    assert found.version == "b5835"
    assert "llama.cpp b6000 was not read: the rules of b5835 are used" in found.notes


def test_command_lines() -> None:
    old = ask("llama-3.1-8b", "b5671", 4096, "q4_k_m", flash_attn=True, cache_type_k="q8_0", n_ubatch=1024)
    assert " ".join(old.command) == "llama-server -m llama-3.1-8b.gguf -c 4096 -ngl 33 -ub 1024 -fa -ctk q8_0"
    new = ask("gemma-3-4b", "b7551", 8192, sequences=2, swa_full=True)
    assert " ".join(new.command) == "llama-server -m gemma-3-4b.gguf -c 16384 -ngl 35 -np 2 -fa on --swa-full"
    by_name = ask("qwen3-30b-a3b", "b5671", 4096, n_cpu_moe=2)
    assert by_name.command[-2:] == ("-ot", r"blk\.(0|1)\.ffn_(up|down|gate)_exps=CPU")
    assert ask("qwen3-30b-a3b", "b6301", 4096, n_cpu_moe=2).command[-2:] == ("--n-cpu-moe", "2")
    assert set(FLAGS.values()) <= set(RELEASES)


def test_context_that_fits_a_pool() -> None:
    model = find_model("llama-3.1-8b")
    release = find_release("llama.cpp", RELEASES, "b7551")
    tokens, blocks, most = kv_capacity(model, release, Settings(4096), 1 << 30)
    assert (tokens, blocks, most) == (8192, None, 2.0)
    assert kv_capacity(model, release, Settings(4096), 1000)[0] == 0


def test_the_vision_file() -> None:
    # "Vulkan0 compute buffer size = 248.10 MiB" for an image of 1472 x 1472: ggml-org/llama.cpp, pull request 23269
    found = ask("qwen3-vl-32b", "b8672", 4096, mmproj=True)
    assert printed(found, "vision_compute_buffer") == 248.1
    names = [term.name for term in found.terms]
    assert {"weights:vision", "activations:vision"} <= set(names)
    assert "--mmproj" in found.command
    assert "vision_weights" not in dict(ask("qwen3-vl-32b", "b8672", 4096).printed)
    # pull request 16837: flash attention in the tower takes 1132.00 MiB of Gemma 3 to 121.25 (on Metal)
    before, after = (printed(ask("gemma-3-12b", build, 4096, mmproj=True), "vision_compute_buffer") for build in RUNS)
    assert (before, after) == pytest.approx((1132.0, 121.25), rel=0.12)


RUNS = ("b5671", "b7551")


def test_the_allocator_frees_views_with_their_source() -> None:
    a = Node(1024, input=True)
    made = Node(1024, (a,))
    seen = Node(1024, (made,), view=made)
    turned = Node(1024, (seen,), inplace=True)  # a view owns nothing, so its place is not taken
    graph = Graph()
    graph.expand(turned)
    assert buffer_bytes(graph.nodes, graph.leaves)[0] == 2048
    kept = Node(1024, (Node(1024, input=True, output=True),))
    graph = Graph()
    graph.expand(Node(1024, (kept,)))
    assert buffer_bytes(graph.nodes, graph.leaves)[0] == 3072


LOG = """\
build: 5671 (e54b3940) with cc for x86_64-linux-gnu
  Device 0: NVIDIA GeForce RTX 3090, compute capability 8.6, VMM: yes
llama_model_loader: loaded meta data with 39 key-value pairs and 444 tensors
print_info: file type   = Q4_K - Medium
print_info: file size   = 2.31 GiB (5.12 BPW)
print_info: general.name     = gemma-3-4b-it
load_tensors: offloaded 35/35 layers to GPU
load_tensors:        CUDA0 model buffer size =  2368.31 MiB
load_tensors:   CPU_Mapped model buffer size =   525.13 MiB
llama_context: n_seq_max     = 1
llama_context: n_ctx         = 131072
llama_context: n_ctx_per_seq = 131072
llama_context: n_batch       = 2048
llama_context: n_ubatch      = 512
llama_context: flash_attn    = 0
llama_context:  CUDA_Host  output buffer size =     1.00 MiB
llama_kv_cache_unified_iswa: creating non-SWA KV cache, size = 131072 cells
llama_kv_cache_unified:      CUDA0 KV buffer size =  2560.00 MiB
llama_kv_cache_unified: size = 2560.00 MiB (131072 cells,   5 layers,  1 seqs), K (f16): 1280.00 MiB, V (f16): 1280.00 MiB
llama_kv_cache_unified_iswa: creating     SWA KV cache, size = 1536 cells
llama_kv_cache_unified:      CUDA0 KV buffer size =   174.00 MiB
llama_kv_cache_unified: size =  174.00 MiB (  1536 cells,  29 layers,  1 seqs), K (f16):   87.00 MiB, V (f16):   87.00 MiB
llama_context:      CUDA0 compute buffer size =  2325.00 MiB
llama_context:  CUDA_Host compute buffer size =   264.01 MiB
load_hparams: model size:         811.82 MiB
alloc_compute_meta:      CUDA0 compute buffer size =  1132.00 MiB
"""  # noqa: E501

OLD = """\
llm_load_print_meta: general.name     = LLaMA v2
llm_load_tensors: offloaded 33/33 layers to GPU
llm_load_tensors:        CPU buffer size =    70.31 MiB
llm_load_tensors:      CUDA0 buffer size =  3577.56 MiB
llama_new_context_with_model: n_ctx      = 4096
llama_new_context_with_model: n_ubatch   = 512
llama_new_context_with_model: flash_attn = 1
llama_kv_cache_init:      CUDA0 KV buffer size =  2048.00 MiB
llama_new_context_with_model: KV self size  = 2048.00 MiB, K (f16): 1024.00 MiB, V (f16): 1024.00 MiB
llama_new_context_with_model:      CUDA0 compute buffer size =    70.50 MiB
llama_new_context_with_model:  CUDA_Host compute buffer size =    16.01 MiB
"""


def test_a_log_with_two_caches_and_a_vision_file() -> None:
    run = read_log(LOG, "gemma.log")
    figures = {name: quantity.value for name, quantity in run.measured}
    assert figures == {
        "model_size": 2.31, "weights": 2368.31, "host_weights": 525.13, "output_buffer": 1.0, "compute_buffer": 2325.0,
        "host_compute_buffer": 264.01, "vision_weights": 811.82, "vision_compute_buffer": 1132.0, "kv_pool": 2734.0,
        "k_size": 1280.0, "v_size": 1280.0, "kv_tokens": 131072, "k_size_swa": 87.0, "v_size_swa": 87.0,
        "kv_tokens_swa": 1536,
    }  # fmt: skip
    assert (run.engine, run.version, run.gpu, run.context) == ("llama.cpp", "b5671", "NVIDIA GeForce RTX 3090", 131072)
    assert dict(run.options)["flash_attn"] is False


def test_what_the_log_says_is_what_is_predicted() -> None:
    run = read_log(LOG, "gemma.log")
    options = {key: value for key, value in run.options if key != "n_gpu_layers"}
    found = ask("gemma-3-4b", str(run.version), int(run.context or 0), "q4_k_m", **options)
    figures = {name: quantity.value for name, quantity in run.measured}
    for name in ("k_size", "v_size", "k_size_swa", "compute_buffer", "host_compute_buffer", "output_buffer"):
        assert printed(found, name) == figures[name]


def test_older_lines_colours_and_prefixes() -> None:
    plain = read_log(OLD, "old.log")
    figures = {name: quantity.value for name, quantity in plain.measured}
    assert (figures["weights"], figures["k_size"], figures["compute_buffer"]) == (3577.56, 1024.0, 70.5)
    assert figures["host_weights"] == 70.31
    coloured = "\n".join(
        f"\x1b[34m0.00.{at:03}\x1b[0m \x1b[32mI \x1b[0m{line}" for at, line in enumerate(OLD.split("\n"))
    )
    assert read_log(coloured, "c.log").measured == plain.measured
    server = "\n".join(f"llama-1  | {line}" for line in OLD.split("\n"))
    assert read_log(server, "s.log").measured == plain.measured


def test_logs_of_other_kinds() -> None:
    cut = read_log("\n".join(OLD.split("\n")[:5]), "cut.log")
    assert "not in the log: the size of the KV cache, compute buffer size" in cut.notes
    twice = read_log(
        "llama_model_loader: loaded meta data with 2\n" + OLD + "llama_model_loader: loaded meta data\n" + OLD
    )
    assert "several starts" in twice.notes
    fork = read_log("llama_new_context_with_model: mla_attn   = 3\n" + OLD, "ik.log")
    assert fork.engine == "ik_llama.cpp"
    with pytest.raises(InputError, match="no line"):
        read_log("ggml_cuda_init: found 1 CUDA devices\n", "x.log", engine="llama.cpp")


def test_two_devices_and_states() -> None:
    text = """\
print_info: general.name          = Qwen3.5-35B-A3B
load_tensors:   CPU_Mapped model buffer size =   515.31 MiB
load_tensors:        CUDA2 model buffer size = 17931.70 MiB
load_tensors:        CUDA3 model buffer size = 16736.08 MiB
llama_context: n_seq_max     = 4
llama_context: n_ctx         = 32768
llama_context: n_ctx_seq     = 32768
llama_context: kv_unified    = true
llama_kv_cache:      CUDA2 KV buffer size =   320.00 MiB
llama_kv_cache:      CUDA3 KV buffer size =   320.00 MiB
llama_kv_cache: size =  640.00 MiB ( 32768 cells,  10 layers,  4/1 seqs), K (f16):  320.00 MiB, V (f16):  320.00 MiB
llama_memory_recurrent:      CUDA2 RS buffer size =   134.00 MiB
llama_memory_recurrent: size =  251.25 MiB (     4 cells,  40 layers,  4 seqs), R (f32):   11.25 MiB, S (f32):  240.00 MiB
sched_reserve:      CUDA2 compute buffer size =   372.06 MiB
sched_reserve:      CUDA3 compute buffer size =   637.07 MiB
"""  # noqa: E501
    run = read_log(text, "two.log")
    figures = {name: quantity.value for name, quantity in run.measured}
    assert (figures["weights"], figures["compute_buffer"], figures["state_size"]) == (17931.7, 637.07, 251.25)
    assert (run.gpus, run.pp, run.sequences, len(run.devices)) == (2, 2, 4, 2)
