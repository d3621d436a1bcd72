"""GGUF mixtures: bytes against llama.cpp's own table and against the sizes of published files."""

from dataclasses import replace

import pytest

from vlmmem.architectures import build
from vlmmem.catalog import find_model
from vlmmem.errors import InputError
from vlmmem.memory import checkpoint_bytes, gguf_weights_bytes
from vlmmem.memory.gguf import MIXTURES, tensor_type
from vlmmem.model import Model


# Bits a weight of Llama-3.1 8B, and GiB: llama.cpp, tools/quantize/README.md at commit 311c2c9f.
@pytest.mark.parametrize(
    ("mixture", "bits", "gib"),
    [
        ("Q2_K_S", "2.9697", "2.78"),
        ("Q2_K", "3.1593", "2.95"),
        ("Q3_K_S", "3.6429", "3.41"),
        ("Q3_K_L", "4.2979", "4.02"),
        ("IQ4_XS", "4.4597", "4.17"),
        ("IQ4_NL", "4.6818", "4.38"),
        ("Q4_K_S", "4.6672", "4.36"),
        ("Q4_K_M", "4.8944", "4.58"),
        ("Q5_K_S", "5.5704", "5.21"),
        ("Q5_K_M", "5.7036", "5.33"),
        ("Q6_K", "6.5633", "6.14"),
        ("Q8_0", "8.5008", "7.95"),
    ],
)
def test_bits_a_weight_as_llama_cpp_prints_them(mixture: str, bits: str, gib: str) -> None:
    model = find_model("llama-3.1-8b")
    size = gguf_weights_bytes(model, mixture)["language"]
    assert f"{size * 8 / model.parameters:.4f}" == bits
    assert f"{size / 2**30:.2f}" == gib


# Files on the hub, GB at three digits: huggingface.co/bartowski/Meta-Llama-3.1-70B-Instruct-GGUF,
# huggingface.co/Qwen/Qwen2-72B-Instruct-GGUF. Qwen2's down matrices have rows of 29,568 = 115.5 x 256 weights.
@pytest.mark.parametrize(
    ("name", "mixture", "gb"),
    [
        ("llama-3.1-70b", "q4_k_m", "42.5"),
        ("llama-3.1-70b", "q4_k_s", "40.3"),
        ("qwen2-72b", "q4_k_m", "47.4"),
        ("qwen2-72b", "q4_k_s", "43.9"),
    ],
)
def test_published_files(name: str, mixture: str, gb: str) -> None:
    assert f"{checkpoint_bytes(name, mixture) / 1e9:.1f}" == gb


MIXTRAL_8X22B: dict[str, object] = {
    "model_type": "mixtral", "hidden_size": 6144, "num_hidden_layers": 56, "num_attention_heads": 48,
    "num_key_value_heads": 8, "intermediate_size": 16384, "num_local_experts": 8, "num_experts_per_tok": 2,
    "vocab_size": 32000, "max_position_embeddings": 65536, "tie_word_embeddings": False,
}  # fmt: skip


# Tables of files, GB at two digits, headers of some MB included: huggingface.co/bartowski/Mixtral-8x22B-v0.1-GGUF,
# .../Qwen_Qwen3-30B-A3B-GGUF, .../google_gemma-3-4b-it-GGUF, .../Qwen_Qwen3-8B-GGUF.
@pytest.mark.parametrize(
    ("name", "mixture", "gb"),
    [
        ("", "q5_k_m", 99.96),
        ("", "q5_k_s", 96.97),
        ("", "q4_k_m", 85.58),
        ("", "q4_k_s", 80.47),
        ("", "iq4_nl", 80.47),
        ("", "iq4_xs", 76.35),
        ("", "q3_k_l", 72.57),
        ("", "q3_k_m", 67.78),
        ("", "q3_k_s", 61.49),
        ("", "q2_k", 52.10),
        ("qwen3-30b-a3b", "q8_0", 32.48),
        ("qwen3-30b-a3b", "q6_k", 25.10),
        ("qwen3-30b-a3b", "q5_k_m", 21.74),
        ("qwen3-30b-a3b", "q5_k_s", 21.10),
        ("gemma-3-4b", "q8_0", 4.13),
        ("gemma-3-4b", "q6_k", 3.19),
        ("gemma-3-4b", "q5_k_m", 2.83),
        ("gemma-3-4b", "q5_k_s", 2.76),
        ("gemma-3-4b", "q4_k_m", 2.49),
        ("qwen3-8b", "q8_0", 8.71),
        ("qwen3-8b", "q6_k", 6.73),
    ],
)
def test_published_tables_of_files(name: str, mixture: str, gb: float) -> None:
    model = find_model(name) if name else build(MIXTRAL_8X22B)
    assert abs(gguf_weights_bytes(model, mixture)["language"] / 1e9 - gb) < 0.03


def test_eight_experts_have_rules_of_their_own() -> None:
    model = build(MIXTRAL_8X22B)
    layer = {tensor.name: tensor for tensor in model.decoder.layers[0].tensors}

    def form(mixture: str, part: str) -> str:
        tensor = next(tensor for name, tensor in layer.items() if part in name)
        return tensor_type(model, mixture, tensor, 20)

    for mixture in ("q2_k", "q4_k_m", "q6_k"):
        assert form(mixture, "v_proj") == form(mixture, "k_proj") == "Q8_0"
    assert [form(name, "o_proj") for name in ("q2_k", "q3_k_s", "q3_k_l", "q4_k_m", "q5_k_m")] == [
        "Q5_K", "Q5_K", "Q3_K", "Q5_K", "Q5_K",
    ]  # fmt: skip
    assert form("q4_k_m", "mlp.gate.") == "F32"


def small(**changes: object) -> Model:
    config: dict[str, object] = {
        "model_type": "llama", "num_hidden_layers": 16, "hidden_size": 256, "num_attention_heads": 4,
        "num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 512, "vocab_size": 1024,
        "max_position_embeddings": 128, "tie_word_embeddings": False, "dtype": "float16",
    }  # fmt: skip
    return replace(build({**config, **changes}), id="small")


BLOCK = {"q4_k": 144, "q5_k": 176, "q6_k": 210}
"""Bytes of 256 weights."""


def test_every_tensor_counted_by_hand() -> None:
    # Of 16 layers the first two, the last two and 4, 7, 10, 13 have more bits: 8 layers.
    square, wide = 256 * 256 // 256, 256 * 512 // 256
    table = 1024 * 256 // 256
    plain = 3 * square + 2 * wide  # query, key, output; gate, up
    layers = 16 * plain * BLOCK["q4_k"] + 8 * (square + wide) * (BLOCK["q4_k"] + BLOCK["q6_k"])
    norms = (2 * 16 + 1) * 256 * 4
    assert gguf_weights_bytes(small(), "q4_k_m") == {
        "language": table * (BLOCK["q4_k"] + BLOCK["q6_k"]) + layers + norms
    }


def chosen(mixture: str, name: str, layers: int, better: str, **changes: object) -> list[int]:
    """The layers of a model in which a matrix has a better format."""
    model = small(num_hidden_layers=layers, **changes)
    tensor = next(tensor for tensor in model.decoder.layers[0].tensors if name in tensor.name)
    return [layer for layer in range(layers) if tensor_type(model, mixture, tensor, layer) == better]


def test_the_layers_that_get_more_bits() -> None:
    spread = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert chosen("q4_k_m", "down_proj", 32, "Q6_K") == spread
    assert chosen("q5_k_m", "v_proj", 32, "Q6_K") == spread
    assert chosen("q4_k_s", "v_proj", 64, "Q5_K") == [0, 1, 2, 3]
    assert chosen("q4_k_s", "down_proj", 64, "Q5_K") == list(range(8))
    assert chosen("q4_k_m", "q_proj", 32, "Q4_K") == list(range(32))
    assert chosen("q3_k_m", "v_proj", 32, "Q5_K") == [0, 1]
    assert chosen("q3_k_m", "v_proj", 32, "Q4_K") == list(range(2, 32))
    assert chosen("q3_k_m", "down_proj", 32, "Q5_K") == [0, 1]
    assert chosen("q3_k_m", "down_proj", 32, "Q4_K") == list(range(2, 32))
    assert chosen("q3_k_m", "o_proj", 32, "Q4_K") == list(range(32))
    assert chosen("q2_k_s", "down_proj", 32, "Q4_K") == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("mixture", "shared", "own"), [("q2_k", "Q4_K", "Q3_K"), ("q2_k_s", "Q4_K", "Q2_K"), ("iq4_xs", "Q5_K", "IQ4_XS")]
)
def test_a_step_that_is_for_shared_values_only(mixture: str, shared: str, own: str) -> None:
    every = list(range(16))
    assert chosen(mixture, "v_proj", 16, shared, num_key_value_heads=1) == every
    assert chosen(mixture, "v_proj", 16, own, num_key_value_heads=2) == every


def test_a_tied_embedding_is_the_head_and_counted_once() -> None:
    tied, untied = (gguf_weights_bytes(small(tie_word_embeddings=tie), "q5_k_m")["language"] for tie in (True, False))
    assert untied - tied == 1024 * 256 // 256 * BLOCK["q5_k"]


def test_a_value_matrix_that_eight_heads_share() -> None:
    shared, own = (
        gguf_weights_bytes(small(num_hidden_layers=80, num_key_value_heads=kv), "q4_k_m")["language"] for kv in (1, 4)
    )
    # 80 layers: 10 + 10 + 20 have 6 bits, the 40 others 5 where heads share them, 4 where none do.
    value = 256 * 64 // 256
    keys = 80 * value * BLOCK["q4_k"]
    assert shared - own == keys + value * (40 * BLOCK["q6_k"] + 40 * BLOCK["q5_k"]) - 4 * (
        keys + value * 40 * (BLOCK["q6_k"] + BLOCK["q4_k"])
    )


def test_the_step_up_is_for_80_layers_and_4_bits_only() -> None:
    assert chosen("q4_k_m", "v_proj", 80, "Q4_K", num_key_value_heads=1) == []
    assert chosen("q3_k_s", "v_proj", 80, "Q5_K", num_key_value_heads=1) == list(range(80))
    assert chosen("q3_k_s", "k_proj", 80, "Q5_K", num_key_value_heads=1) == []
    assert chosen("q4_k_m", "v_proj", 80, "Q5_K") == []
    assert chosen("q4_k_m", "v_proj", 72, "Q5_K", num_key_value_heads=1) == []
    assert chosen("q6_k", "v_proj", 80, "Q6_K", num_key_value_heads=1) == list(range(80))


def test_rows_that_are_no_multiple_of_a_block() -> None:
    size = gguf_weights_bytes(small(intermediate_size=544, num_hidden_layers=8), "q4_k_m")["language"]
    even = gguf_weights_bytes(small(intermediate_size=512, num_hidden_layers=8), "q4_k_m")["language"]
    # Down: 3 of 8 layers (0, 3, 6) and the last have more bits. Q4_K becomes Q5_0 (22 B of 32), Q6_K Q8_0 (34 B).
    more = len(chosen("q4_k_m", "down_proj", 8, "Q6_K"))
    down = 256 * 544 // 32 * (more * 34 + (8 - more) * 22) - 256 * 512 // 256 * (
        more * BLOCK["q6_k"] + (8 - more) * BLOCK["q4_k"]
    )
    assert size - even == down + 8 * 2 * (256 * 32 // 256) * BLOCK["q4_k"]


def test_rows_that_no_block_divides_stay_in_16_bits() -> None:
    assert chosen("q4_k_m", "down_proj", 8, "F16", intermediate_size=520) == list(range(8))
    assert chosen("q8_0", "down_proj", 8, "F16", intermediate_size=520) == list(range(8))
    assert chosen("q8_0", "down_proj", 8, "Q8_0", intermediate_size=544) == list(range(8))


@pytest.mark.parametrize(
    ("mixture", "wider"),
    [
        ("q2_k_s", "Q4_0"),
        ("q3_k_s", "Q4_0"),
        ("q4_k_m", "Q5_0"),
        ("q5_k_m", "Q5_1"),
        ("q6_k", "Q8_0"),
        ("iq4_xs", "IQ4_NL"),
        ("iq4_nl", "IQ4_NL"),
        ("q4_1", "Q4_1"),
        ("q5_0", "Q5_0"),
        ("q5_1", "Q5_1"),
        ("q4_0", "Q4_0"),
    ],
)
def test_blocks_of_32_for_rows_of_32(mixture: str, wider: str) -> None:
    assert chosen(mixture, "up_proj", 8, wider, hidden_size=288) == list(range(8))


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("qwen3-vl-8b", "qwen3-8b"),
        ("qwen2.5-vl-7b", "qwen2-vl-7b"),
        ("gemma-3-1b", None),
        ("mistral-small-3.1-24b", None),
    ],
)
def test_a_decoder_beside_a_tower_is_quantised_as_it_is_alone(name: str, same: str | None) -> None:
    size = gguf_weights_bytes(name, "q4_k_m")["language"]
    if same is None:
        assert 4.5 < 8 * size / find_model(name).language_parameters < 6.6
    else:
        assert size == gguf_weights_bytes(same, "q4_k_m")["language"]


def test_embedding_and_head() -> None:
    def ends(mixture: str, **changes: object) -> list[str]:
        model = small(**changes)
        return [tensor_type(model, mixture, tensor) for tensor in model.decoder.tensors]

    assert ends("q4_k_m") == ["Q4_K", "F32", "Q6_K"]
    assert ends("q4_0") == ["Q4_0", "F32", "Q6_K"]
    assert ends("q8_0") == ["Q8_0", "F32", "Q8_0"]
    assert ends("q5_k_m", tie_word_embeddings=True) == ["Q6_K", "F32"]
    # rows of 288 weights: no multiple of 256, one of 32
    assert ends("q4_k_m", hidden_size=288) == ["Q5_0", "F32", "Q8_0"]


def test_biases_and_norms_stay_in_32_bits() -> None:
    with_biases, without = (
        gguf_weights_bytes(small(model_type=kind), "q4_k_m")["language"] for kind in ("qwen2", "llama")
    )
    assert with_biases - without == 4 * 16 * 3 * 256


def test_the_vision_side_stays_in_16_bits() -> None:
    parts = gguf_weights_bytes("llava-1.5-13b", "Q4_K_M")
    assert parts["vision"] == 2 * 303_507_456
    assert parts["projector"] == 2 * 31_467_520
    assert checkpoint_bytes("llava-1.5-13b", "Q4_K_M") == sum(parts.values())


@pytest.mark.parametrize("name", ["mistral-7b", "llava-1.6-34b"])
def test_families_whose_rule_is_the_same(name: str) -> None:
    model = find_model(name)
    as_llama = replace(model, architecture="llama", vision=None)
    assert gguf_weights_bytes(model, "q4_k_m")["language"] == gguf_weights_bytes(as_llama, "q4_k_m")["language"]


def test_what_is_not_known_is_told() -> None:
    with pytest.raises(InputError) as caught:
        gguf_weights_bytes("llama-3.1-8b", "q4_k")
    assert str(caught.value) == f"gguf: mixture 'q4_k' is not known; one of {', '.join(MIXTURES)} is needed"
    with pytest.raises(
        InputError, match=r"^opt-30b: the decoder is of the family 'opt'; the rule is checked for llama, "
    ):
        gguf_weights_bytes("opt-30b", "q4_k_m")
