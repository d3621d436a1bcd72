"""Builders against bad configs, published totals, and the fallback to a class that only transformers knows."""

import json
import math
import sys
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.oracle_configs import catalogue_configs, defaults, variants
from vlmmem.architectures import HOMES, build, meta
from vlmmem.errors import InputError
from vlmmem.layers import KeyValueCache, Tensor
from vlmmem.model import Model

CATALOGUE = catalogue_configs()
WRONG: tuple[object, ...] = (None, -1, 0, 2**63, math.nan, math.inf, 0.5, "x", "", [], [1], {}, True, [{}], {"a": 1})
SECONDS = 1.0


def examples() -> dict[str, dict[str, Any]]:
    """A config that fills in as much as possible, for every family: of the catalogue, or a variant, or its defaults.

    What configs say of quantised weights has tests of its own.
    """
    found = defaults()
    for whole in (*variants().values(), *CATALOGUE.values()):
        config = {name: value for name, value in whole.items() if name != "quantization_config"}
        kind = config["model_type"]
        if kind in found and len(json.dumps(config)) > len(json.dumps(found[kind])):
            found[kind] = config
    return found


EXAMPLES = examples()


def built_or_refused(config: object) -> None:
    """A model or one line, soon, and never another exception."""
    start = monotonic()
    try:
        model = build(config)
    except InputError as error:
        line = str(error)
        assert "\n" not in line
        assert len(line) < 400
    else:
        assert isinstance(model, Model)
        assert model.parameters > 0
        assert all(size > 0 for _, tensor in model.tensors() for size in tensor.shape)
    assert monotonic() - start < SECONDS


def changes(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The config without each of its fields, and with each wrong value in its place, below other fields too."""
    found: list[dict[str, Any]] = []
    for name, value in config.items():
        if name == "model_type":
            continue
        rest = {key: each for key, each in config.items() if key != name}
        found += [rest, *({**config, name: wrong} for wrong in WRONG)]
        if isinstance(value, dict):
            found += [{**config, name: changed} for changed in changes(value)]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(HOMES))
def test_a_wrong_field_is_one_line_or_a_model(kind: str) -> None:
    every = changes(EXAMPLES[kind])
    # some hundred of each family, spread over its fields: all 45,000 take minutes
    for config in every[:: 1 + len(every) // 200]:
        built_or_refused(config)


@pytest.mark.parametrize("kind", sorted(HOMES))
def test_a_family_builds_without_any_field_or_says_which_is_missing(kind: str) -> None:
    built_or_refused({"model_type": kind})


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(0, 64)
    | st.floats()
    | st.sampled_from(["", "x", "silu", "sliding_attention", "full_attention", "mamba", "LLLG", "float32"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_fields_at_random(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(HOMES)))
    config = dict(EXAMPLES[kind])
    for name in data.draw(st.lists(st.sampled_from(sorted(config)), max_size=3)):
        config[name] = data.draw(VALUES)
    inner = config.get("text_config")
    if isinstance(inner, dict) and inner and data.draw(st.booleans()):
        config["text_config"] = {**inner, data.draw(st.sampled_from(sorted(inner))): data.draw(VALUES)}
    built_or_refused(config)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_attention_heads": 7, "num_key_value_heads": 7}, "is not a multiple of 7 heads"),
        ({"num_key_value_heads": 5}, "32 heads ('num_attention_heads') cannot share 5 KV heads"),
        ({"num_hidden_layers": 2**63}, "an integer from 1 to 4,096 is needed"),
        ({"vocab_size": -1}, "'vocab_size' is -1; a positive integer is needed"),
        ({"hidden_size": "4096"}, "'hidden_size' is \"4096\"; a positive integer is needed"),
        ({"tie_word_embeddings": 1}, "'tie_word_embeddings' is 1; true or false is needed"),
        ({"hidden_size": math.nan}, "'hidden_size' is NaN; a positive integer is needed"),
        ({"torch_dtype": "int3"}, "one of float32, float16, bfloat16 is needed"),
    ],
)
def test_what_an_error_says(change: dict[str, Any], words: str) -> None:
    config = {name: value for name, value in CATALOGUE["llama-2-7b"].items() if name not in ("head_dim", "dtype")}
    with pytest.raises(InputError) as caught:
        build({**config, **change}, "mine.json")
    assert words in str(caught.value)
    assert str(caught.value).startswith("mine.json: ")


def test_layer_types_that_nobody_knows() -> None:
    config = {"model_type": "gemma3_text", "num_hidden_layers": 2, "layer_types": ["full_attention", "dilated"]}
    with pytest.raises(InputError, match="'layer_types' names 'dilated'; full_attention or sliding_attention"):
        build(config)
    with pytest.raises(InputError, match="'layer_types' has 2 items; 3 are needed"):
        build({**config, "num_hidden_layers": 3})


def test_a_window_may_be_null_minus_one_or_nought() -> None:
    for none in (None, -1, 0):
        model = build({"model_type": "mistral", "sliding_window": none})
        assert {layer.kind for layer in model.decoder.layers} == {"full"}, none
    assert build({"model_type": "mistral", "sliding_window": 64}).sliding_window == 64


# What the makers say of their checkpoints, whose classes transformers does not have. total_size is of the index of the
# files; chatglm's holds 32 frequencies of its rotary positions besides.
PUBLISHED = {
    "qwen-7b": 15_442_649_088 // 2,
    "chatglm3-6b": 12_487_168_064 // 2 - 32,
    "minicpm4-8b": 8_185_253_888,
    "exaone-3.5-7.8b": 31_273_795_584 // 4,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_remote_code_against_a_published_total(name: str) -> None:
    assert build(CATALOGUE[name]).parameters == PUBLISHED[name]


def test_minicpm_without_its_embeddings() -> None:
    # arXiv 2404.06395, table 2
    config = {
        "model_type": "minicpm",
        "hidden_size": 2304,
        "num_hidden_layers": 40,
        "num_attention_heads": 36,
        "num_key_value_heads": 36,
        "intermediate_size": 5760,
        "vocab_size": 122753,
    }
    by_part = build(config).language_by_part
    assert by_part["layers"] == 2_442_057_984


def test_nemotron_super_keeps_what_is_published() -> None:
    model = build(CATALOGUE["llama-3.3-nemotron-super-49b"])
    kept = [layer for layer in model.decoder.layers if layer.caches]
    assert (len(kept), len(model.decoder.layers)) == (49, 80)
    assert (
        2 * sum(cache.elements for layer in kept for cache in layer.caches if isinstance(cache, KeyValueCache))
        == 200_704
    )


def test_heads_for_further_tokens_are_counted_apart() -> None:
    config = {"model_type": "mimo", "num_nextn_predict_layers": 1}
    assert build(config).parameters == build({"model_type": "mimo"}).parameters
    layer = build(config).decoder.layers[0]
    assert build(config).mtp_parameters == layer.parameters + 2 * 4096 * 4096 + 3 * 4096


def test_without_transformers_an_unknown_architecture_says_what_would_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meta, "available", lambda: False)
    with pytest.raises(InputError) as caught:
        build({"model_type": "made_up"}, "mine.json")
    assert str(caught.value) == (
        "mine.json: 'model_type' 'made_up' is not built from a config here; a safetensors or GGUF header gives its "
        "bytes exactly, and with the extra 'transformers' its class there counts its parameters"
    )


class Parameter:
    def __init__(self, *shape: int) -> None:
        self.shape = shape


class Made:
    """A class as transformers would build it, two layers of which one slides."""

    def __init__(self) -> None:
        text = SimpleNamespace(
            model_type="made_up",
            num_attention_heads=4,
            num_key_value_heads=2,
            hidden_size=64,
            vocab_size=128,
            max_position_embeddings=512,
            layer_types=["full_attention", "sliding_attention"],
            sliding_window=32,
        )
        self.config = SimpleNamespace(get_text_config=lambda **_: text, tie_word_embeddings=True, dtype=None)

    def named_parameters(self) -> list[tuple[str, Parameter]]:
        each = [
            (f"model.layers.{index}.self_attn.{name}_proj.weight", Parameter(rows, 64))
            for index in range(2)
            for name, rows in (("q", 64), ("k", 32), ("v", 32), ("o", 64))
        ]
        return [("model.embed_tokens.weight", Parameter(128, 64)), *each, ("model.norm.weight", Parameter(64))]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in the place of transformers, which knows one class."""
    logging = SimpleNamespace(get_verbosity=lambda: 0, set_verbosity=lambda _: None, set_verbosity_error=lambda: None)
    fake = SimpleNamespace(__version__="5.23.0", CONFIG_MAPPING={"made_up": None}, logging=logging)
    monkeypatch.setitem(sys.modules, "transformers", fake)
    monkeypatch.setattr(meta, "available", lambda: True)
    monkeypatch.setattr(meta, "_module", lambda _: Made())


@pytest.mark.usefixtures("installed")
def test_a_class_that_only_transformers_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    caches = [(KeyValueCache(2, 16, 16),), (KeyValueCache(2, 16, 16, 32),)]
    monkeypatch.setattr(meta, "caches_of", lambda _: caches)
    model = build({"model_type": "made_up", "auto_map": {"AutoModel": "evil.py"}})
    assert model.parameters == 128 * 64 + 2 * (64 + 32 + 32 + 64) * 64 + 64
    assert [layer.caches for layer in model.decoder.layers] == caches
    assert [layer.kind for layer in model.decoder.layers] == ["full", "sliding"]
    assert model.decoder.layers[0].tensors[1] == Tensor("self_attn.k_proj.weight", (32, 64), "linear", "kv")
    assert model.notes == ("its tensors are those of transformers 5.23.0",)
    assert model.tied_embeddings


@pytest.mark.usefixtures("installed")
def test_a_pass_that_needs_values_leaves_the_caches_to_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(module: object) -> None:
        raise RuntimeError("a mask looks at its values")

    monkeypatch.setattr(meta, "caches_of", refuses)
    model = build({"model_type": "made_up"})
    assert [layer.caches for layer in model.decoder.layers] == [
        (KeyValueCache(2, 16, 16),),
        (KeyValueCache(2, 16, 16, 32),),
    ]
    assert any(note.startswith("approximate") for note in model.notes)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "other"}, "is known neither here nor to transformers 5.23.0"),
        ({"model_type": "made_up", "num_hidden_layers": 10**6}, "'num_hidden_layers' is 1000000; a number of at most"),
        ({"model_type": "made_up", "vocab_size": 2**62}, "a number of at most 2,147,483,648 is needed"),
        ({"model_type": "made_up", "num_hidden_layers": 512, "num_experts": 4096}, "512 layers of 4096 experts"),
        ({"model_type": "made_up", "layer_types": ["x"] * 5000}, "'layer_types' has 5,000 items"),
    ],
)
def test_what_transformers_is_not_asked_to_build(config: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        build(config)
    assert words in str(caught.value)


@pytest.mark.usefixtures("installed")
def test_a_class_that_refuses_a_config(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(config: object) -> None:
        raise ZeroDivisionError("heads\nand more")

    monkeypatch.setattr(meta, "_module", refuses)
    with pytest.raises(InputError, match=r"cannot build 'made_up' \(ZeroDivisionError: heads and more\)"):
        build({"model_type": "made_up"})
