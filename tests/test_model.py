"""Model: parameters counted from shapes, against published counts and against rules that the shapes obey."""

from dataclasses import FrozenInstanceError

import pytest

from tools.oracle_configs import catalogue_configs
from vlmmem.architectures import build
from vlmmem.catalog import find_model, model_facts
from vlmmem.documented import documented_models
from vlmmem.errors import InputError
from vlmmem.layers import CUTS, KINDS
from vlmmem.model import Linear, Model

# Counts that others print: the shapes summed in model cards, papers and safetensors headers.
PUBLISHED = {
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "mistral-7b": 7_241_732_096,
    "qwen2-72b": 72_706_203_648,
    "phi-2": 2_779_683_840,
    "llava-1.5-7b": 7_063_427_072,
    "llava-1.5-13b": 13_351_494_656,
}


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_published_counts(name: str, count: int) -> None:
    assert find_model(name).parameters == count


@pytest.mark.parametrize(
    ("name", "printed"),
    [("llama-1-30b", 32.5), ("opt-30b", 30.0), ("gpt-3-175b", 174.6), ("llava-1.6-34b", 34.8)],
)
def test_counts_round_to_what_papers_print(name: str, printed: float) -> None:
    assert round(find_model(name).parameters / 10**9, 1) == printed


def test_a_vision_model_counts_its_parts() -> None:
    model = find_model("llava-1.5-13b")
    assert model.parameters_by_part == {
        "language": 13_016_519_680,
        "vision": 303_507_456,
        "projector": 31_467_520,
    }
    # Vicuna-13B is LLaMA-2 13B; LLaVA's vocabulary has 64 rows more, in the embedding and in the head.
    assert model.parameters_by_part["language"] == find_model("llama-2-13b").parameters + 2 * 64 * 5120


def changed(name: str, **fields: object) -> Model:
    """The catalogue's model with other fields in its config."""
    return build({**model_facts(name)["config"], **fields})


def test_llava_next_has_one_vector_more_than_llava() -> None:
    model = find_model("llava-1.6-34b")
    assert changed("llava-1.6-34b", model_type="llava").parameters == model.parameters - model.hidden_size


@pytest.mark.parametrize("name", catalogue_configs())
def test_a_model_adds_up(name: str) -> None:
    model = find_model(name)
    tensors = list(model.tensors())
    assert sum(model.parameters_by_part.values()) == model.parameters
    assert sum(model.language_by_part.values()) == model.language_parameters == model.parameters_by_part["language"]
    assert sum(tensor.parameters for _, tensor in tensors) == model.parameters
    assert (model.vision is not None) == ("vision" in model.parameters_by_part)
    assert len({name for name, _ in tensors}) == len(tensors)
    assert {tensor.kind for _, tensor in tensors} <= set(KINDS)
    assert {tensor.cut for _, tensor in tensors} <= set(CUTS)
    # names round, and some leave the vision tower or the embeddings out; a config of another size is farther off
    most = 0.08 if model in documented_models() else 0.45
    assert model.nominal_parameters is not None
    assert abs(model.nominal_parameters - model.parameters) / model.parameters < most


def test_one_more_layer_adds_its_linears_and_norms() -> None:
    model = find_model("llama-3.1-8b")
    grown = changed("llama-3.1-8b", num_hidden_layers=33).parameters - model.parameters
    assert grown == sum(linear.parameters for linear in model.layer_linears) + 2 * model.hidden_size


def test_tied_embeddings_count_once() -> None:
    model = find_model("llama-3.1-8b")
    saved = model.parameters - changed("llama-3.1-8b", tie_word_embeddings=True).parameters
    assert saved == model.vocab_size * model.hidden_size


@pytest.mark.parametrize(
    ("kv_heads", "attention"),
    [(32, "multi-head"), (8, "grouped-query"), (2, "grouped-query"), (1, "multi-query")],
)
def test_attention_by_kv_heads(kv_heads: int, attention: str) -> None:
    assert changed("llama-3.1-8b", num_key_value_heads=kv_heads).attention == attention


def test_a_single_head_is_multi_head() -> None:
    assert changed("llama-3.1-8b", num_attention_heads=1, num_key_value_heads=1).attention == "multi-head"


def test_linear_with_and_without_bias() -> None:
    assert Linear("plain", 3, 5).parameters == 15
    assert Linear("biased", 3, 5, bias=True).parameters == 18


def test_gated_mlp_has_three_matrices() -> None:
    names = [linear.name for linear in find_model("llama-2-7b").layer_linears]
    assert names == [
        *(f"self_attn.{each}_proj" for each in ("q", "k", "v", "o")),
        *(f"mlp.{each}_proj" for each in ("gate", "up", "down")),
    ]
    assert find_model("llama-2-7b").gated_mlp
    assert not find_model("phi-2").gated_mlp


def test_the_tower_of_llava() -> None:
    tower = find_model("llava-1.5-7b").vision
    assert tower is not None
    assert tower.patches == 576


def test_a_model_is_a_fact() -> None:
    with pytest.raises(FrozenInstanceError):
        find_model("phi-2").layers = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 0}, "config: 'num_hidden_layers' is 0; an integer from 1 to 4,096 is needed"),
        (
            {"num_hidden_layers": 10**9},
            "config: 'num_hidden_layers' is 1000000000; an integer from 1 to 4,096 is needed",
        ),
        ({"hidden_size": 2560.0}, "config: 'hidden_size' is 2560.0; a positive integer is needed"),
        ({"num_attention_heads": True}, "config: 'num_attention_heads' is true; a positive integer is needed"),
        ({"vocab_size": -1}, "config: 'vocab_size' is -1; a positive integer is needed"),
        ({"vocab_size": 2**63}, "config: 'vocab_size' is 9223372036854775808; a positive integer is needed"),
        (
            {"num_key_value_heads": 5},
            (
                "config: 32 heads ('num_attention_heads') cannot share 5 KV heads ('num_key_value_heads') evenly; "
                "a divisor of the heads is needed"
            ),
        ),
        ({"model_type": "rwkv"}, "config: 'model_type' 'rwkv' is not built from a config here; "),
        ({"model_type": None}, "config: 'model_type' is missing; a text is needed"),
        ({"tie_word_embeddings": "no"}, "config: 'tie_word_embeddings' is \"no\"; true or false is needed"),
        ({"torch_dtype": "int3", "dtype": None}, "config: 'torch_dtype' is \"int3\"; one of float32, "),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        changed("phi-2", **change)
    assert str(caught.value).startswith(message)
