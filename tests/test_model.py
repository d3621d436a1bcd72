"""Model: parameters counted from shapes, against published counts and against rules that the shapes obey."""

from dataclasses import FrozenInstanceError, replace

import pytest

from vlmmem.catalog import find_model, models
from vlmmem.errors import InputError
from vlmmem.model import FAMILIES, Linear, Model, VisionTower

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


def test_llava_next_has_one_vector_more_than_llava() -> None:
    model = find_model("llava-1.6-34b")
    assert replace(model, architecture="llava").parameters == model.parameters - model.hidden_size


@pytest.mark.parametrize("model", models(), ids=lambda model: model.id)
def test_the_parts_add_up(model: Model) -> None:
    assert sum(model.parameters_by_part.values()) == model.parameters
    assert set(model.parameters_by_part) == ({"language", "vision", "projector"} if model.vision else {"language"})


@pytest.mark.parametrize("model", models(), ids=lambda model: model.id)
def test_the_name_is_near_the_count(model: Model) -> None:
    assert abs(model.nominal_parameters - model.parameters) / model.parameters < 0.08


@pytest.mark.parametrize("model", models(), ids=lambda model: model.id)
def test_one_more_layer_adds_its_linears_and_norms(model: Model) -> None:
    grown = replace(model, layers=model.layers + 1).parameters - model.parameters
    linears = sum(linear.parameters for linear in model.layer_linears)
    family = FAMILIES[model.architecture]
    assert grown == linears + family.norms_a_layer * family.norm_vectors * model.hidden_size


def test_tied_embeddings_count_once() -> None:
    model = find_model("llama-3.1-8b")
    saved = model.parameters - replace(model, tied_embeddings=True).parameters
    assert saved == model.vocab_size * model.hidden_size


@pytest.mark.parametrize(
    ("kv_heads", "attention"),
    [(32, "multi-head"), (8, "grouped-query"), (2, "grouped-query"), (1, "multi-query")],
)
def test_attention_by_kv_heads(kv_heads: int, attention: str) -> None:
    assert replace(find_model("llama-3.1-8b"), kv_heads=kv_heads).attention == attention


def test_a_single_head_is_multi_head() -> None:
    assert replace(find_model("llama-3.1-8b"), heads=1, kv_heads=1).attention == "multi-head"


def test_linear_with_and_without_bias() -> None:
    assert Linear("plain", 3, 5).parameters == 15
    assert Linear("biased", 3, 5, bias=True).parameters == 18


def test_gated_mlp_has_three_matrices() -> None:
    names = [linear.name for linear in find_model("llama-2-7b").layer_linears]
    assert names == ["query", "key", "value", "output", "gate", "up", "down"]
    assert "gate" not in [linear.name for linear in find_model("opt-30b").layer_linears]
    assert find_model("llama-2-7b").gated_mlp
    assert not find_model("phi-2").gated_mlp


def test_the_tower_of_llava() -> None:
    tower = find_model("llava-1.5-7b").vision
    assert tower is not None
    assert tower.patches == 576
    assert tower.parameters == 303_507_456


def test_a_model_is_a_fact() -> None:
    with pytest.raises(FrozenInstanceError):
        find_model("phi-2").layers = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "phi-2: 'layers' is 0; a positive integer is needed"),
        ({"hidden_size": 2560.0}, "phi-2: 'hidden_size' is 2560.0; a positive integer is needed"),
        ({"heads": True}, "phi-2: 'heads' is True; a positive integer is needed"),
        ({"vocab_size": -1}, "phi-2: 'vocab_size' is -1; a positive integer is needed"),
        ({"sliding_window": 0}, "phi-2: 'sliding_window' is 0; a positive integer or null is needed"),
        ({"sliding_window": 1.5}, "phi-2: 'sliding_window' is 1.5; a positive integer or null is needed"),
        (
            {"kv_heads": 5},
            "phi-2: 32 'heads' cannot share 5 'kv_heads' evenly; a divisor of the heads is needed",
        ),
        (
            {"architecture": "rwkv"},
            ("phi-2: 'architecture' is 'rwkv'; known are gpt2, llama, llava, llava_next, mistral, opt, phi, qwen2"),
        ),
        ({"architecture": "llava"}, "phi-2: architecture 'llava' needs 'vision'"),
        (
            {"vision": VisionTower("clip", 1, 1, 1, 1, 14, 14, 3)},
            "phi-2: architecture 'phi' has no 'vision'",
        ),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        replace(find_model("phi-2"), **change)  # type: ignore[arg-type]
    assert str(caught.value) == message
