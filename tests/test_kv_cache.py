"""What layers keep of a sequence: published bytes a token, every kind of cache by hand, the split over GPUs, formats.

The cache objects of transformers stand in test_oracle_caches.py.
"""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.oracle_configs import catalogue_configs, changed
from vlmmem.architectures import build
from vlmmem.catalog import find_format, find_model
from vlmmem.errors import InputError
from vlmmem.layers import Cache, KeyValueCache, LatentCache, Layer, Part, StateCache
from vlmmem.memory import (
    CacheSizes,
    cache_sizes,
    cached_tokens,
    kv_bytes_per_token,
    kv_cache_bytes,
    kv_growth,
    kv_heads_per_rank,
    state_bytes_per_sequence,
)
from vlmmem.model import Model

MIB = 2**20

# Bytes a token in 16 bits: 2 x layers x KV heads x head width x 2, as papers and engines print them.
PUBLISHED = {
    "llama-2-13b": 819_200,
    "llama-2-7b": 524_288,
    "llama-2-70b": 327_680,
    "llama-3.1-8b": 131_072,
    "llama-3.1-70b": 327_680,
    "llama-3.1-405b": 516_096,
    "mistral-7b": 131_072,
    "qwen2-72b": 327_680,
    "opt-30b": 1_376_256,
    "llama-1-30b": 1_597_440,
    "gpt-3-175b": 4_718_592,
    "phi-2": 327_680,
    "llava-1.6-34b": 245_760,
}

NO_BLOCKS = "bf16 and fp8 have no blocks"

HEADS = KeyValueCache(heads=8, key_dim=128, value_dim=128)
WINDOW = replace(HEADS, window=1024)
CHUNK = replace(HEADS, chunk=8192)
IMAGE = replace(HEADS, states=4 * 1601)
LATENT = LatentCache(512 + 64)
INDEXER = LatentCache(128, "indexer")
STATE = StateCache(32 * 128 * 128, "fp32", heads=32)
CONVOLUTION = StateCache(8192 * 4, "", heads=16, what="convolution")


def keeping(*caches: Cache | tuple[Cache, ...], heads: int = 32) -> Model:
    """A model with one layer for each cache or tuple of caches."""
    layers = tuple(Layer("full", (), cache if isinstance(cache, tuple) else (cache,)) for cache in caches)
    part = Part("language", (), "layers", layers)
    return replace(find_model("llama-3.1-8b"), id="made", heads=heads, layers=len(layers), parts=(part,))


@pytest.mark.parametrize(("name", "size"), PUBLISHED.items())
def test_published_bytes_a_token(name: str, size: int) -> None:
    assert kv_bytes_per_token(name) == size
    assert kv_bytes_per_token(find_model(name), find_format("fp16")) == size


def test_a_multi_query_model_keeps_one_head() -> None:
    model = build(changed(catalogue_configs()["llama-3.1-8b"], {"kv_heads": 1}))
    assert kv_bytes_per_token(model) == 131_072 // 8


def test_layers_that_keep_all_tokens_stand_first() -> None:
    model = keeping(replace(HEADS, window=1), WINDOW, HEADS, replace(HEADS, window=2))
    assert [limit for limit, _ in cache_sizes(model).growing] == [None, 1, 2, 1024]


def test_keys_and_values_may_have_other_widths() -> None:
    assert kv_bytes_per_token(keeping(KeyValueCache(2, key_dim=192, value_dim=128))) == 2 * (192 + 128) * 2


def test_layers_that_differ_are_added_up() -> None:
    # Gemma 4's full layers have other heads and widths than its sliding ones; a shared layer keeps nothing.
    model = keeping(KeyValueCache(8, 256, 256, window=512), KeyValueCache(1, 512, 512), (), (LATENT, INDEXER))
    assert cache_sizes(model).growing == ((None, 1 * 1024 * 2 + (576 + 128) * 2), (512, 8 * 512 * 2))
    assert kv_growth(model) == {"below_window": 2048 + 1408 + 8192, "beyond_window": 2048 + 1408}
    assert kv_bytes_per_token(model) == 2048 + 1408 + 8192


def test_vectors_by_kind() -> None:
    # DeepSeek-V3: 61 layers of one latent vector, whole on every GPU.
    latent = keeping(*[LATENT] * 61, heads=128)
    for tp in (1, 2, 8, 128):
        assert kv_bytes_per_token(latent, tp=tp) == 70_272
    # DeepSeek-V3.2 keeps an indexer key of 128 elements besides.
    assert kv_bytes_per_token(keeping(*[(LATENT, INDEXER)] * 61, heads=128)) == 61 * (1152 + 256)
    # Qwen3.6-27B: 16 layers of 64 with 4 KV heads of 256; the others keep states.
    period: list[Cache] = [KeyValueCache(4, 256, 256), STATE, STATE, STATE]
    hybrid = keeping(*period * 16)
    assert kv_bytes_per_token(hybrid) == 65_536
    # Nemotron-Super-49B: 49 of 80 layers, 8 KV heads of 128.
    nothing: tuple[Cache, ...] = ()
    pruned = keeping(*(HEADS if index < 49 else nothing for index in range(80)))
    assert kv_bytes_per_token(pruned) == 200_704


def test_the_sizes_that_llama_cpp_logs_for_gemma3() -> None:
    # gemma3:4b at 131,072 tokens: 2,560 MiB in 5 full layers; 29 sliding ones, of which it keeps 1,536 cells, 174 MiB.
    heads = KeyValueCache(4, 256, 256)
    (_, full), (window, sliding) = cache_sizes(keeping(*[replace(heads, window=1024)] * 29, *[heads] * 5)).growing
    assert (full * 131_072, window, sliding * 1536) == (2560 * MIB, 1024, 174 * MIB)


def test_growing_and_fixed_parts_stand_apart() -> None:
    model = keeping(HEADS, WINDOW, CHUNK, IMAGE, (CONVOLUTION, STATE), (), IMAGE)
    token = 2 * 8 * 128 * 2
    state = 32 * 128 * 128 * 4 + 8192 * 4 * 2
    sizes = cache_sizes(model)
    assert sizes == CacheSizes(((None, token), (1024, token), (8192, token)), 2 * 4 * 1601 * token, state)
    assert sizes.growing_bytes(1024) == 3 * 1024 * token
    assert sizes.growing_bytes(1025) == (2 * 1025 + 1024) * token
    assert sizes.growing_bytes(9000) == (9000 + 8192 + 1024) * token
    assert sizes.fixed_bytes() == state
    assert sizes.fixed_bytes(images=3) == state + 3 * 2 * 6404 * token
    assert kv_cache_bytes(model, 9000, batch=5) == 5 * (sizes.growing_bytes(9000) + state)
    assert kv_cache_bytes(model, 9000, batch=5, images=3) == 5 * (sizes.growing_bytes(9000) + sizes.fixed_bytes(3))
    assert state_bytes_per_sequence(model) == state
    assert state_bytes_per_sequence(model, images=1) == state + 2 * 6404 * token
    assert kv_growth(model) == {"below_window": 3 * token, "beyond_window": token}


def test_llama_3_2_vision_keeps_four_tiles_an_image() -> None:
    # 8 of 40 layers, 8 KV heads of 128, 4 tiles of 1,601 states whatever the image
    model = keeping(*[HEADS] * 32, *[IMAGE] * 8)
    assert state_bytes_per_sequence(model, images=1) == 8 * 4 * 1601 * 2 * 8 * 128 * 2
    assert state_bytes_per_sequence(model, "fp8", images=2) == 8 * 4 * 1601 * 2 * 8 * 128 * 2
    assert kv_bytes_per_token(model) == 32 * 4096


def test_states_keep_their_own_format() -> None:
    model = keeping((CONVOLUTION, STATE))
    assert state_bytes_per_sequence(model) == state_bytes_per_sequence(model, "q4_0") == 32_768 * 2 + 524_288 * 4
    assert state_bytes_per_sequence(replace(model, dtype="fp32")) == 32_768 * 4 + 524_288 * 4
    # half a byte is a whole one
    assert state_bytes_per_sequence(keeping(StateCache(3, "int4", 1))) == 2


def test_layers_of_a_stage() -> None:
    model = keeping(HEADS, HEADS, WINDOW, STATE)
    first, last = model.decoder.layers[:1], model.decoder.layers[1:]
    assert cache_sizes(model, layers=first) == CacheSizes(((None, 4096),), 0, 0)
    assert kv_cache_bytes(model, 2000, 2, layers=last) == 2 * (2000 * 4096 + 1024 * 4096 + 524_288 * 4)
    assert kv_cache_bytes(model, 2000, layers=()) == 0


@given(st.integers(1, 20_000), st.integers(1, 64), st.integers(0, 4), st.sampled_from([1, 2, 4, 8, 16, 32]))
def test_it_is_the_sum_over_tokens_and_sequences(context: int, batch: int, images: int, tp: int) -> None:
    model = keeping(HEADS, WINDOW, CHUNK, IMAGE, (CONVOLUTION, STATE), LATENT)
    one = kv_cache_bytes(model, context, tp=tp, images=images)
    assert kv_cache_bytes(model, context, batch, tp=tp, images=images) == batch * one
    step = kv_cache_bytes(model, context + 1, tp=tp, images=images) - one
    room = [cache for cache in (WINDOW, CHUNK) if cache.limit is not None and context < cache.limit]
    heads = max(1, 8 // tp)
    assert step == (1 + len(room)) * heads * 512 + 1152
    assert one == sum(
        kv_cache_bytes(model, context, tp=tp, images=images, layers=[each]) for each in model.decoder.layers
    )


@pytest.mark.parametrize(
    ("kv_dtype", "size"),
    [
        ("fp32", 1_638_400),
        ("fp8", 409_600),
        ("int8", 409_600),
        ("int4", 204_800),
        ("q8_0", 435_200),
        # 18, 20, 22 and 24 bytes for 32 elements
        ("q4_0", 230_400),
        ("iq4_nl", 230_400),
        ("q4_1", 256_000),
        ("q5_0", 281_600),
        ("q5_1", 307_200),
        # vLLM: half a byte an element and one for 16; a float32 a head vector
        ("nvfp4", 2 * 40 * 40 * (128 // 2 + 128 // 16)),
        ("int8-per-token-head", 2 * 40 * 40 * (128 + 4)),
        ("fp8_per_token_head", 2 * 40 * 40 * (128 + 4)),
    ],
)
def test_other_formats(kv_dtype: str, size: int) -> None:
    assert kv_bytes_per_token("llama-2-13b", kv_dtype) == size


def test_the_block_of_vllm_with_scales_for_each_head() -> None:
    # AttentionSpec.page_size_bytes: 2 x block x heads x width x 1, and 2 x block x heads x 4 on top
    block = 16
    page = 2 * block * 8 * 128 + 2 * block * 8 * 4
    assert kv_cache_bytes(keeping(HEADS), block, kv_dtype="int8_per_token_head") == page


def test_formats_of_latent_attention() -> None:
    model = keeping((LATENT, INDEXER))
    assert kv_bytes_per_token(model, "fp8_ds_mla") == 656 + 132
    assert kv_bytes_per_token(model, "fp8") == 576 + 128
    assert kv_bytes_per_token(model, "q8_0") == (576 + 128) // 32 * 34
    assert kv_bytes_per_token(model, "nvfp4") == (576 + 128) // 2 + (576 + 128) // 16


@pytest.mark.parametrize(
    ("cache", "kv_dtype", "message"),
    [
        (
            KeyValueCache(8, 80, 80),
            "q8_0",
            f"blocks of 32 elements (q8_0) do not divide the vectors of 80 elements of made; {NO_BLOCKS}",
        ),
        (
            KeyValueCache(8, 96, 80),
            "q4_0",
            f"blocks of 32 elements (q4_0) do not divide the vectors of 80 elements of made; {NO_BLOCKS}",
        ),
        (
            KeyValueCache(8, 72, 72),
            "nvfp4",
            f"blocks of 16 elements (nvfp4) do not divide the vectors of 72 elements of made; {NO_BLOCKS}",
        ),
        (
            LatentCache(300),
            "q8_0",
            f"blocks of 32 elements (q8_0) do not divide the vectors of 300 elements of made; {NO_BLOCKS}",
        ),
        (
            HEADS,
            "fp8_ds_mla",
            (
                "fp8_ds_mla is a layout of latent attention, and made keeps keys and values of heads; bf16, fp8 and "
                "q8_0 are formats for those"
            ),
        ),
        (
            LATENT,
            "int8-per-token-head",
            (
                "int8-per-token-head has a scale for each head, and made keeps one latent vector for all; bf16, fp8 "
                "and fp8_ds_mla are formats for that"
            ),
        ),
        (
            LatentCache(320),
            "fp8_ds_mla",
            (
                "fp8_ds_mla lays out vectors of 576 and 128 elements; made keeps 320 in its latent cache, for which "
                "bf16 and fp8 are formats"
            ),
        ),
        (
            HEADS,
            "gptq-4bit",
            "a KV cache is not kept in gptq-4bit; bf16, fp16, fp8 and q8_0 are such formats",
        ),
    ],
)
def test_a_cache_is_not_kept_in_every_format(cache: Cache, kv_dtype: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        kv_bytes_per_token(keeping(cache), kv_dtype)
    assert str(caught.value) == f"kv_dtype: {message}"


def test_a_model_without_a_name_is_called_by_its_architecture() -> None:
    with pytest.raises(InputError, match=r"of llama; bf16 and fp8 have no blocks$"):
        kv_bytes_per_token(replace(keeping(KeyValueCache(8, 80, 80)), id=""), "q8_0")
    with pytest.raises(InputError, match=r"and llama keeps one latent vector"):
        kv_bytes_per_token(replace(keeping(LATENT), id=""), "int8-per-token-head")


@pytest.mark.parametrize(
    ("model", "tp", "heads"),
    [
        ("llama-3.1-70b", 1, 8),
        ("llama-3.1-70b", 2, 4),
        ("llama-3.1-70b", 8, 1),
        ("llama-3.1-70b", 16, 1),
        ("llama-3.1-70b", 64, 1),
        ("llama-2-13b", 5, 8),
        ("llama-2-13b", 40, 1),
        ("llava-1.6-34b", 56, 1),
    ],
)
def test_kv_heads_of_one_gpu(model: str, tp: int, heads: int) -> None:
    assert kv_heads_per_rank(model, tp) == heads
    assert kv_heads_per_rank(find_model(model), tp) == heads


def test_kv_heads_of_layers_that_differ() -> None:
    model = keeping(KeyValueCache(4, 64, 64), KeyValueCache(16, 64, 64), STATE, KeyValueCache(2, 64, 64))
    assert [kv_heads_per_rank(model, tp) for tp in (1, 2, 4, 8, 16, 32)] == [16, 8, 4, 2, 1, 1]
    # Each layer's own heads are split or copied: 4 + 16 + 2 vectors a token on one GPU, 2 + 8 + 1 on two.
    sizes = [kv_bytes_per_token(model, tp=tp) // (2 * 64 * 2) for tp in (1, 2, 4, 8, 16)]
    assert sizes == [22, 11, 1 + 4 + 1, 1 + 2 + 1, 3]
    assert kv_heads_per_rank(keeping(LATENT), 8) == kv_heads_per_rank(keeping(LATENT)) == 1
    assert kv_heads_per_rank(keeping(STATE), 8) == 0


def test_states_are_cut_along_their_heads() -> None:
    model = keeping((CONVOLUTION, STATE))
    for tp in (1, 2, 16):
        assert state_bytes_per_sequence(model, tp=tp) * tp == 32_768 * 2 + 524_288 * 4
    # 16 groups of channels on 32 GPUs: each has one, as vLLM's extra_groups_for_head_shards gives it
    assert state_bytes_per_sequence(model, tp=32) == 32_768 * 2 // 16 + 524_288 * 4 // 32
    whole = keeping(StateCache(1000, "fp32", 1))
    assert state_bytes_per_sequence(whole, tp=8) == 4000
    # what does not divide is rounded up
    assert state_bytes_per_sequence(keeping(StateCache(10, "fp32", 4)), tp=4) == 3 * 4


def test_one_gpu_unless_told() -> None:
    assert kv_heads_per_rank("llama-3.1-70b") == 8
    assert kv_cache_bytes("llama-2-13b", 1) == 819_200
    assert cache_sizes("llama-2-13b") == cache_sizes("llama-2-13b", "bf16", 1)
    assert kv_growth("llama-2-13b") == kv_growth(find_model("llama-2-13b"), "bf16", 1)
    assert state_bytes_per_sequence("llama-2-13b") == 0
    assert state_bytes_per_sequence(keeping(STATE), images=0) == state_bytes_per_sequence(keeping(STATE), tp=1)


def test_the_split_shows_in_the_bytes() -> None:
    assert kv_bytes_per_token("llama-3.1-70b", tp=8) == 40_960
    # More GPUs than KV heads: each keeps a copy of one.
    assert kv_bytes_per_token("llama-3.1-70b", tp=16) == 40_960
    assert kv_cache_bytes("llama-3.1-70b", context=4096, tp=4) == 335_544_320


@pytest.mark.parametrize(
    ("model", "tp", "message"),
    [
        (
            "llama-2-13b",
            3,
            (
                "tp: 3 GPUs cannot split 40 heads and 40 KV heads of llama-2-13b evenly; "
                "possible are 1, 2, 4, 5, 8, 10, 20 and 40"
            ),
        ),
        (
            "llava-1.6-34b",
            7,
            ("tp: 7 GPUs cannot split 56 heads and 8 KV heads of llava-1.6-34b evenly; possible are 1, 2, 4, 8 and 56"),
        ),
        ("llama-2-13b", 0, "tp: 0 was given; a positive integer is needed"),
        ("llama-2-13b", -2, "tp: -2 was given; a positive integer is needed"),
        ("llama-2-13b", 2.0, "tp: 2.0 was given; a positive integer is needed"),
        ("llama-2-13b", True, "tp: True was given; a positive integer is needed"),
    ],
)
def test_impossible_splits(model: str, tp: int, message: str) -> None:
    for call in (kv_heads_per_rank, lambda name, gpus: kv_bytes_per_token(name, tp=gpus)):
        with pytest.raises(InputError) as caught:
            call(model, tp)
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("caches", "heads", "tp", "what"),
    [
        ((KeyValueCache(4, 64, 64), KeyValueCache(6, 64, 64)), 24, 4, "24 heads and 4 or 6 KV heads"),
        ((LATENT,), 24, 5, "24 heads"),
        ((LATENT, StateCache(6, "", 6)), 24, 4, "24 heads and 6 heads of states"),
        ((StateCache(6, "", 6), StateCache(8, "", 8)), 24, 4, "24 heads and 6 or 8 heads of states"),
    ],
)
def test_every_layer_must_split(caches: tuple[Cache, ...], heads: int, tp: int, what: str) -> None:
    model = keeping(*caches, heads=heads)
    possible = [gpus for gpus in (1, 2, 3, 4, 6, 8, 12, 24) if _possible(model, gpus)]
    with pytest.raises(InputError) as caught:
        cache_sizes(model, tp=tp)
    listed = ", ".join(map(str, possible[:-1]))
    line = f"tp: {tp} GPUs cannot split {what} of made evenly; possible are {listed} and {possible[-1]}"
    assert str(caught.value) == line
    assert tp not in possible


def _possible(model: Model, tp: int) -> bool:
    try:
        return kv_heads_per_rank(model, tp) >= 0
    except InputError:
        return False


def test_few_and_many_ways_to_split() -> None:
    with pytest.raises(InputError, match=r"evenly; possible is 1$"):
        cache_sizes(keeping(KeyValueCache(1, 8, 8), heads=1), tp=2)
    with pytest.raises(InputError, match=r"evenly; possible are 1 and 2$"):
        cache_sizes(keeping(KeyValueCache(2, 8, 8), heads=2), tp=4)
    # A header may claim any number of heads; the list ends at groups of 1,024 GPUs.
    with pytest.raises(InputError, match=r"possible are 1, 2, .*, 512 and 1024$"):
        cache_sizes(keeping(KeyValueCache(2**40, 8, 8), heads=2**40), tp=3)
    with pytest.raises(InputError, match=r", 820 and 1024$"):
        cache_sizes(keeping(LATENT, heads=1024 * 1025), tp=3)


def test_the_worked_example_of_the_documents() -> None:
    assert kv_cache_bytes("llama-2-13b", context=8192, batch=10) == 67_108_864_000
    assert kv_cache_bytes("llama-3.1-70b", context=4096) == 1_342_177_280
    assert kv_cache_bytes("llama-3.1-70b", 4096, 32, "fp8") == 21_474_836_480


def test_the_window_bounds_what_is_kept() -> None:
    assert cached_tokens("mistral-7b", 4095) == 4095
    assert cached_tokens("mistral-7b", 4096) == 4096
    assert cached_tokens(find_model("mistral-7b"), 4097) == 4096
    assert cached_tokens("llama-3.1-8b", 131_072) == 131_072
    assert kv_cache_bytes("mistral-7b", context=32_768) == 131_072 * 4096
    assert kv_growth("mistral-7b") == {"below_window": 131_072, "beyond_window": 0}


def test_tokens_of_the_layer_that_keeps_most() -> None:
    assert cached_tokens(keeping(WINDOW, CHUNK), 10_000) == 8192
    assert cached_tokens(keeping(WINDOW, LATENT), 10_000) == 10_000
    assert cached_tokens(keeping(WINDOW, IMAGE, STATE), 10_000) == 1024
    assert cached_tokens(keeping(IMAGE, STATE), 10_000) == 0


@pytest.mark.parametrize(("context", "batch", "field"), [(0, 1, "context"), (1, 0, "batch"), (1.5, 1, "context")])
def test_sizes_are_positive_integers(context: int, batch: int, field: str) -> None:
    with pytest.raises(InputError, match=f"^{field}: .* was given; a positive integer is needed$"):
        kv_cache_bytes("llama-2-13b", context, batch)
    if field == "context":
        with pytest.raises(InputError, match=r"^context: .* was given; a positive integer is needed$"):
            cached_tokens("llama-2-13b", context)


@pytest.mark.parametrize("images", [-1, 1.0, True, None])
def test_images_are_counted(images: int) -> None:
    line = f"images: {images!r} was given; an integer of 0 or more is needed"
    with pytest.raises(InputError) as caught:
        kv_cache_bytes("llama-2-13b", 1, images=images)
    assert str(caught.value) == line
    with pytest.raises(InputError) as caught:
        state_bytes_per_sequence("llama-2-13b", images=images)
    assert str(caught.value) == line


def test_unknown_names() -> None:
    with pytest.raises(InputError, match=r"^model 'llama-9' is not in the catalogue; "):
        kv_cache_bytes("llama-9", 1)
    with pytest.raises(InputError, match=r"^format 'fp3' is not in the catalogue; known are "):
        kv_cache_bytes("llama-2-7b", 1, kv_dtype="fp3")
