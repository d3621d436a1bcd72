"""Models out of headers: exact bytes and parameters, caches by config or metadata, and what a text may name."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from vlmmem.catalog import find_model
from vlmmem.errors import InputError
from vlmmem.layers import KeyValueCache, LatentCache, StateCache
from vlmmem.model import Model
from vlmmem.readers import open_model
from vlmmem.readers.gguf_model import PERIODS
from vlmmem.readers.names import place, storage_suffix
from vlmmem.readers.packing import bits_of, weights
from vlmmem.readers.stored import StoredTensor

BITS = {"F32": 32, "BF16": 16, "F16": 16, "F8_E4M3": 8, "I32": 32, "U32": 32, "U8": 8, "I8": 8, "I64": 64}

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 100, "max_position_embeddings": 2048,
    "tie_word_embeddings": False, "dtype": "bfloat16",
}  # fmt: skip


def tensors_of(config: dict[str, Any], dtype: str = "BF16") -> dict[str, tuple[str, tuple[int, ...]]]:
    """The tensors that a config's model has, by the builder."""
    from vlmmem.architectures import build

    return {name: (dtype, tensor.shape) for name, tensor in build(config).tensors()}


def write(path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> Path:
    """A safetensors file of these tensors whose data is a hole."""
    root, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = int(np.prod(shape, dtype=np.int64)) * BITS[dtype] // 8
        root[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(root).encode()
    with path.open("wb") as stream:
        stream.write(len(raw).to_bytes(8, "little") + raw)
        stream.truncate(8 + len(raw) + end)
    return path


def stored(model: Model) -> int:
    return sum(tensor.stored or 0 for _, tensor in model.tensors())


def folder(path: Path, config: dict[str, Any], tensors: dict[str, tuple[str, tuple[int, ...]]]) -> Path:
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write(path / "model.safetensors", tensors)
    return path


# --- Names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama-2-13b", "qwen2-72b", "opt-30b", "phi-2", "llava-1.5-7b", "llava-1.6-34b"])
def test_names_say_what_the_builders_say(name: str) -> None:
    for full, tensor in find_model(name).tensors():
        found = place(full)
        # A name does not tell a matrix from a vector: "other" with two dimensions is a matrix.
        kind = "linear" if found.kind == "other" and len(tensor.shape) > 1 else found.kind
        assert (kind, found.cut) == (tensor.kind, tensor.cut), full


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("something.new", ("language", None, "other", "whole")),
        ("model.layers.12.self_attn.k_proj.weight", ("language", 12, "linear", "kv")),
        ("model.layers.12.mlp.experts.7.down_proj.weight", ("language", 12, "expert", "experts")),
        ("model.layers.12.mlp.gate.weight", ("language", 12, "router", "whole")),
        ("model.layers.12.mlp.gate.e_score_correction_bias", ("language", 12, "buffer", "whole")),
        ("model.layers.12.mlp.shared_experts.up_proj.weight", ("language", 12, "linear", "outputs")),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", ("language", 0, "buffer", "whole")),
        ("transformer.h.3.attn.c_attn.bias", ("language", 3, "bias", "qkv")),
        ("visual.blocks.3.attn.qkv.weight", ("vision", 3, "linear", "outputs")),
        ("visual.merger.mlp.0.weight", ("vision", None, "other", "whole")),
        ("model.connector.modality_projection.proj.weight", ("projector", None, "other", "whole")),
        ("vision_tower.vision_model.encoder.layers.5.mlp.fc1.weight", ("vision", 5, "linear", "outputs")),
        ("multi_modal_projector.linear_1.weight", ("projector", None, "linear", "whole")),
        ("audio_tower.layers.2.self_attn.q_proj.weight", ("audio", 2, "linear", "outputs")),
        ("blk.7.attn_k.weight", ("language", 7, "linear", "kv")),
        ("blk.7.ffn_gate_exps.weight", ("language", 7, "expert", "experts")),
        ("blk.7.ffn_up_shexp.weight", ("language", 7, "linear", "outputs")),
        ("blk.7.exp_probs_b.bias", ("language", 7, "buffer", "whole")),
        ("token_embd.weight", ("language", None, "embedding", "vocabulary")),
        ("output.weight", ("language", None, "head", "vocabulary")),
        ("output_norm.weight", ("language", None, "norm", "whole")),
        ("v.blk.2.ffn_down.weight", ("vision", 2, "linear", "inputs")),
        ("mm.0.weight", ("projector", None, "other", "whole")),
        ("a.blk.0.attn_q.weight", ("audio", 0, "linear", "outputs")),
        ("model.layers.4096.mlp.up_proj.weight", ("language", None, "linear", "outputs")),
    ],
)
def test_places(name: str, want: tuple[object, ...]) -> None:
    found = place(name)
    assert (found.part, found.layer, found.kind, found.cut) == want


# --- Quantised storage --------------------------------------------------------------------------------------------

LAYOUTS: dict[str, tuple[list[tuple[str, str, tuple[int, ...]]], int | None, tuple[int, ...]]] = {
    "gptq": (
        [("qweight", "I32", (8, 96)), ("qzeros", "I32", (2, 12)), ("scales", "F16", (2, 96)), ("g_idx", "I32", (64,))],
        None,
        (96, 64),
    ),
    "gptq without g_idx": (
        [("qweight", "I32", (8, 96)), ("qzeros", "I32", (2, 12)), ("scales", "F16", (2, 96))],
        None,
        (96, 64),
    ),
    "gptq in 3 bits": (
        [("qweight", "I32", (6, 96)), ("qzeros", "I32", (2, 9)), ("scales", "F16", (2, 96)), ("g_idx", "I32", (64,))],
        3,
        (96, 64),
    ),
    "gptq in 8 bits": (
        [("qweight", "I32", (16, 96)), ("qzeros", "I32", (2, 24)), ("scales", "F16", (2, 96))],
        None,
        (96, 64),
    ),
    "awq": ([("qweight", "I32", (64, 12)), ("qzeros", "I32", (2, 12)), ("scales", "F16", (2, 96))], None, (96, 64)),
    "compressed-tensors int4": (
        [("weight_packed", "I32", (96, 8)), ("weight_scale", "BF16", (96, 2)), ("weight_shape", "I64", (2,))],
        4,
        (96, 64),
    ),
    "compressed-tensors nvfp4": (
        [("weight_packed", "U8", (96, 32)), ("weight_scale", "F8_E4M3", (96, 4)), ("weight_global_scale", "F32", (1,))],
        4,
        (96, 64),
    ),
    "modelopt nvfp4": (
        [
            ("weight", "U8", (96, 32)), ("weight_scale", "F8_E4M3", (96, 4)), ("weight_scale_2", "F32", ()),
            ("input_scale", "F32", ()),
        ],
        None,
        (96, 64),
    ),
    "modelopt int4": ([("weight", "U8", (48, 64)), ("weight_scale", "F32", (96, 2))], None, (96, 64)),
    "fp8 in blocks": ([("weight", "F8_E4M3", (96, 64)), ("weight_scale_inv", "F32", (1, 1))], None, (96, 64)),
    "int8": ([("weight", "I8", (96, 64)), ("weight_scale", "BF16", (96, 1))], None, (96, 64)),
    "llm.int8": ([("weight", "I8", (96, 64)), ("SCB", "F32", (96,)), ("weight_format", "U8", ())], None, (96, 64)),
    "nf4": (
        [
            ("weight", "U8", (3072, 1)), ("weight.absmax", "U8", (96,)), ("weight.quant_map", "F32", (16,)),
            ("weight.nested_absmax", "F32", (1,)), ("weight.quant_state.bitsandbytes__nf4", "U8", (100,)),
        ],
        None,
        (6144,),
    ),
    "mlx": ([("weight", "U32", (96, 8)), ("scales", "BF16", (96, 1)), ("biases", "BF16", (96, 1))], 4, (96, 64)),
    "plain": ([("weight", "BF16", (96, 64)), ("bias", "BF16", (96,))], None, (96, 64)),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_quantised_matrix_counts_its_values(layout: str) -> None:
    entries, bits, shape = LAYOUTS[layout]
    tensors = [
        StoredTensor(
            f"model.layers.0.mlp.up_proj.{end}", dtype, size, int(np.prod(size, dtype=np.int64)) * BITS[dtype] // 8
        )
        for end, dtype, size in entries
    ]
    found, notes = weights(tensors, bits)
    assert notes == ()
    assert sum(weight.bytes for weight in found) == sum(tensor.bytes for tensor in tensors)
    main = next(weight for weight in found if weight.name == "model.layers.0.mlp.up_proj.weight")
    assert main.shape == shape
    assert len(found) == (2 if layout == "plain" else 1)


def test_mxfp4_experts_count_their_values() -> None:
    tensors = [
        StoredTensor("model.layers.0.mlp.experts.gate_up_proj_blocks", "U8", (4, 96, 2, 16), 4 * 96 * 32),
        StoredTensor("model.layers.0.mlp.experts.gate_up_proj_scales", "U8", (4, 96, 2), 4 * 96 * 2),
        StoredTensor("model.layers.0.mlp.experts.gate_up_proj_bias", "BF16", (4, 96), 4 * 96 * 2),
    ]
    found, _ = weights(tensors)
    assert [(weight.name.rpartition(".")[2], weight.shape) for weight in found] == [
        ("gate_up_proj", (4, 96, 64)),
        ("gate_up_proj_bias", (4, 96)),
    ]
    assert sum(weight.bytes for weight in found) == sum(tensor.bytes for tensor in tensors)


def test_what_no_header_says_is_a_note() -> None:
    packed = StoredTensor("a.weight_packed", "I32", (96, 8), 96 * 32)
    assert weights([packed])[0][0].shape == (96, 64)
    assert "4 bits each are taken" in weights([packed])[1][0]
    assert weights([packed], 8) == ([StoredTensor("a.weight", "I32", (96, 32), 96 * 32)], ())


@pytest.mark.parametrize(
    ("config", "bits"),
    [
        ({"quantization_config": {"bits": 4}}, 4),
        ({"quantization": {"group_size": 64, "bits": 8}}, 8),
        ({"quantization_config": {"config_groups": {"group_0": {"weights": {"num_bits": 4}}}}}, 4),
        ({"quantization_config": {"config_groups": {"group_0": {"weights": None}, "b": 3}}}, None),
        ({"quantization_config": {"bits": "4"}}, None),
        ({"quantization_config": {"bits": 0}}, None),
        ({"quantization_config": [4]}, None),
        ([], None),
        ({}, None),
    ],
)
def test_bits_that_a_config_names(config: object, bits: int | None) -> None:
    assert bits_of(config) == bits


def test_a_scale_beside_no_weight_is_a_tensor() -> None:
    assert storage_suffix("a.layer_scale.scale") == ".scale"
    alone = StoredTensor("a.layer_scale.scale", "F32", (4,), 16)
    assert weights([alone])[0] == [alone]
    beside = [StoredTensor("a.weight", "F32", (4,), 16), StoredTensor("a.scale", "F32", (4,), 16)]
    assert weights(beside)[0] == beside


# --- Checkpoints --------------------------------------------------------------------------------------------------


def test_a_checkpoint_has_the_bytes_of_its_header_and_the_caches_of_its_config(tmp_path: Path) -> None:
    tensors = tensors_of(LLAMA)
    model = open_model(str(folder(tmp_path, LLAMA, tensors)))
    built = open_model(str(tmp_path / "config.json"))
    assert (model.basis, built.basis) == ("header", "config")
    assert model.parameters == built.parameters
    assert model.parameters_by_part == built.parameters_by_part
    assert stored(model) == 2 * built.parameters
    assert model.id == tmp_path.name == built.id
    assert [layer.caches for layer in model.decoder.layers] == [layer.caches for layer in built.decoder.layers]
    assert dict(model.tensors()).keys() == tensors.keys()


def test_a_checkpoint_without_a_config_counts_the_rows_of_keys_and_values(tmp_path: Path) -> None:
    model = open_model(str(write(tmp_path / "a.safetensors", tensors_of(LLAMA))))
    assert model.parameters == open_model(str(folder(tmp_path, LLAMA, tensors_of(LLAMA)))).parameters
    assert model.decoder.layers[2].caches == (KeyValueCache(1, 32, 32),)
    assert (model.layers, model.hidden_size, model.vocab_size, model.id) == (3, 64, 100, "a")
    assert any("names no sliding windows" in note for note in model.notes)


HEADERS: dict[str, tuple[dict[str, tuple[int, ...]], tuple[object, ...] | None]] = {
    "per-head norms": (
        {"self_attn.k_proj.weight": (32, 64), "self_attn.v_proj.weight": (32, 64), "self_attn.k_norm.weight": (16,)},
        (KeyValueCache(2, 16, 16),),
    ),
    "values narrower": (
        {"self_attn.k_proj.weight": (32, 64), "self_attn.v_proj.weight": (16, 64)},
        (KeyValueCache(1, 32, 16),),
    ),
    "no values": ({"self_attn.k_proj.weight": (32, 64)}, (KeyValueCache(1, 32, 32),)),
    "fused": (
        {"self_attn.qkv_proj.weight": (128, 64), "self_attn.o_proj.weight": (64, 64)},
        (KeyValueCache(1, 32, 32),),
    ),
    "fused, inputs first": (
        {"attn.c_attn.weight": (64, 192), "attn.c_proj.weight": (64, 64)},
        (KeyValueCache(1, 64, 64),),
    ),
    "latent": ({"self_attn.kv_a_proj_with_mqa.weight": (40, 64)}, (LatentCache(40),)),
    "latent with an indexer": (
        {"self_attn.kv_a_proj_with_mqa.weight": (40, 64), "self_attn.indexer.wk.weight": (128, 64)},
        (LatentCache(40), LatentCache(128, "indexer")),
    ),
    "an MLP": ({"mixer.up_proj.weight": (96, 64), "mixer.down_proj.weight": (64, 96)}, ()),
    "a state": ({"linear_attn.A_log": (4,), "linear_attn.in_proj_qkvz.weight": (96, 64)}, None),
    "fused, and no output": ({"self_attn.qkv_proj.weight": (128, 64)}, None),
}


@pytest.mark.parametrize("case", HEADERS)
def test_caches_that_shapes_tell(case: str, tmp_path: Path) -> None:
    shapes, caches = HEADERS[case]
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {"model.embed_tokens.weight": ("BF16", (100, 64))}
    tensors |= {f"model.layers.0.{name}": ("BF16", shape) for name, shape in shapes.items()}
    model = open_model(str(write(tmp_path / "a.safetensors", tensors)))
    assert model.decoder.layers[0].caches == (caches or ())
    assert any("the KV cache is not in it" in note for note in model.notes) == (caches is None)


def test_experts_apart_are_one_tensor(tmp_path: Path) -> None:
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {
        f"model.layers.{layer}.mlp.experts.{expert}.{name}.weight": ("BF16", shape)
        for layer in range(2)
        for expert in range(8)
        for name, shape in (("gate_proj", (32, 64)), ("down_proj", (64, 32)))
    }
    model = open_model(str(write(tmp_path / "a.safetensors", tensors)))
    found = {tensor.name: tensor for tensor in model.decoder.layers[1].tensors}
    assert found["mlp.experts.*.gate_proj.weight"].shape == (8, 32, 64)
    assert found["mlp.experts.*.gate_proj.weight"].kind == "expert"
    assert (model.experts, model.language_by_part["experts"]) == (8, 2 * 8 * 2 * 32 * 64)
    assert stored(model) == 2 * model.parameters


def test_a_tied_head_in_the_file_is_counted_once(tmp_path: Path) -> None:
    config = {**LLAMA, "tie_word_embeddings": True}
    tensors = {**tensors_of(config), "lm_head.weight": ("BF16", (100, 64))}
    model = open_model(str(folder(tmp_path, config, tensors)))
    assert model.parameters == open_model(str(tmp_path / "config.json")).parameters
    assert stored(model) == 2 * model.parameters
    assert any("counted once" in note for note in model.notes)


def test_layers_beyond_the_config_predict_further_tokens(tmp_path: Path) -> None:
    tensors = {
        **tensors_of(LLAMA),
        "model.layers.3.eh_proj.weight": ("BF16", (64, 128)),
        "mtp.norm.weight": ("BF16", (64,)),
    }
    model = open_model(str(folder(tmp_path, LLAMA, tensors)))
    assert model.parameters == open_model(str(tmp_path / "config.json")).parameters
    assert model.mtp_parameters == 64 * 128 + 64
    assert any(f"not added: {2 * (64 * 128 + 64):,} bytes" in note for note in model.notes)


def test_buffers_are_bytes_and_no_parameters(tmp_path: Path) -> None:
    tensors = {**tensors_of(LLAMA), "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", (8,))}
    model = open_model(str(folder(tmp_path, LLAMA, tensors)))
    assert model.parameters == open_model(str(tmp_path / "config.json")).parameters
    assert stored(model) == 2 * model.parameters + 32


def test_experts_that_the_config_does_not_name(tmp_path: Path) -> None:
    tensors = {**tensors_of(LLAMA), "model.layers.0.mlp.experts.0.up_proj.weight": ("BF16", (8, 8))}
    with pytest.raises(InputError, match=r"^model\.safetensors: holds 1 experts a layer where its config names none"):
        open_model(str(folder(tmp_path, LLAMA, tensors)))


def test_layers_that_are_missing_are_told(tmp_path: Path) -> None:
    tensors = {name: entry for name, entry in tensors_of(LLAMA).items() if ".layers.1." not in name}
    model = open_model(str(folder(tmp_path, LLAMA, tensors)))
    assert "1 of its 3 layers are not in the files" in model.notes


def test_a_file_of_the_library_gives_a_model(tmp_path: Path) -> None:
    arrays = {name: np.zeros(shape, np.float16) for name, (_, shape) in tensors_of(LLAMA).items()}
    save_file(arrays, tmp_path / "model.safetensors")
    model = open_model(str(tmp_path / "model.safetensors"))
    assert stored(model) == sum(array.nbytes for array in arrays.values())
    assert model.dtype == "fp16"


def test_shards_without_an_index(tmp_path: Path) -> None:
    tensors = tensors_of(LLAMA)
    names = list(tensors)
    for number in (1, 2):
        part = {name: tensors[name] for name in (names[:8] if number == 1 else names[8:])}
        write(tmp_path / f"model-{number:05}-of-00002.safetensors", part)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    for given in (tmp_path, tmp_path / "model-00002-of-00002.safetensors"):
        assert open_model(str(given)).parameters == open_model(str(tmp_path / "config.json")).parameters
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"model-00001-of-00002\.safetensors: 1 of 2 shards are not there"):
        open_model(str(tmp_path))


def test_an_index_alone_gives_bytes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    weight_map = dict.fromkeys(tensors_of(LLAMA), "model-00001-of-00001.safetensors")
    path.write_text(json.dumps({"metadata": {"total_size": 12345}, "weight_map": weight_map}), encoding="utf-8")
    model = open_model(str(path))
    assert (stored(model), model.layers, model.parameters) == (12345, 3, 0)
    assert any("the KV cache is not in it" in note for note in model.notes)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    model = open_model(str(path))
    assert model.basis == "config"
    assert any("states 12,345 bytes" in note for note in model.notes)


def test_a_config_that_is_not_known_leaves_the_header(tmp_path: Path) -> None:
    model = open_model(str(folder(tmp_path, {"model_type": "of-tomorrow"}, tensors_of(LLAMA))))
    assert model.basis == "header"
    assert any("of-tomorrow" in note for note in model.notes)
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "hidden_size": None}), encoding="utf-8")
    with pytest.raises(InputError, match=r"^config\.json"):
        open_model(str(folder(tmp_path, {**LLAMA, "num_attention_heads": -1}, tensors_of(LLAMA))))


def one_of_each() -> list[str]:
    """A model of each architecture of the catalogue whose weights are not quantised."""
    from vlmmem.catalog import models

    found: dict[str, str] = {}
    for model in models():
        if model.quantization is None:
            found.setdefault(f"{model.architecture} {model.vision and model.vision.architecture}", model.id)
    return sorted(found.values())


@pytest.mark.slow
def test_a_file_of_each_architecture_says_what_its_config_says(tmp_path: Path) -> None:
    from vlmmem.catalog import model_facts

    for name in one_of_each():
        built = find_model(name)
        config = model_facts(name)["config"]
        assert isinstance(config, dict)
        found = open_model(str(folder(tmp_path, config, {full: ("BF16", t.shape) for full, t in built.tensors()})))
        assert found.parameters_by_part == built.parameters_by_part, name
        assert found.language_by_part == built.language_by_part, name
        assert found.active_parameters == built.active_parameters, name
        assert kinds_and_caches(found) == kinds_and_caches(built), name
        assert stored(found) == 2 * built.parameters, name


def test_an_embedding_of_no_width(tmp_path: Path) -> None:
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {
        "model.embed_tokens.weight": ("BF16", (3, 0)),
        "model.layers.0.self_attn.k_proj.weight": ("BF16", (8, 2)),
    }
    assert open_model(str(write(tmp_path / "a.safetensors", tensors))).hidden_size == 1


# --- GGUF ---------------------------------------------------------------------------------------------------------


def write_gguf(
    path: Path, architecture: str, keys: dict[str, Any], tensors: dict[str, tuple[int, ...]], dtype: str = "F16"
) -> Path:
    """A GGUF file; keys without a dot's first part are those of the architecture."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in keys.items():
        full = f"{architecture}.{key}"
        if isinstance(value, list):
            writer.add_array(full, value)
        else:
            writer.add_uint32(full, value)
    kind = gguf.GGMLQuantizationType[dtype]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    for name, shape in tensors.items():
        if len(shape) == 1 or dtype == "F16":
            writer.add_tensor(name, np.zeros(shape, np.float32 if len(shape) == 1 else np.float16))
        else:
            writer.add_tensor(name, np.zeros((*shape[:-1], shape[-1] // block * size), np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


ATTENTION = {
    "attn_q.weight": (64, 64),
    "attn_k.weight": (32, 64),
    "attn_v.weight": (32, 64),
    "attn_output.weight": (64, 64),
}
MLP = {"ffn_gate.weight": (96, 64), "ffn_up.weight": (96, 64), "ffn_down.weight": (64, 96)}
USUAL = {
    "embedding_length": 64, "feed_forward_length": 96, "context_length": 8192, "attention.head_count": 4,
    "attention.head_count_kv": 2,
}  # fmt: skip


def blocks(*kinds: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Embedding, norm, and one block of each kind given."""
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (100, 64), "output_norm.weight": (64,)}
    for index, tensors in enumerate(kinds):
        found |= {f"blk.{index}.{name}": shape for name, shape in tensors.items()}
    return found


def test_a_gguf_model(tmp_path: Path) -> None:
    tensors = blocks(*[{**ATTENTION, **MLP, "attn_norm.weight": (64,)}] * 3)
    path = write_gguf(tmp_path / "a.gguf", "llama", {**USUAL, "block_count": 3}, {**tensors, "rope_freqs.weight": (8,)})
    model = open_model(str(path))
    built = open_model(str(folder(tmp_path, {**LLAMA, "tie_word_embeddings": True}, tensors_of(LLAMA))))
    assert (model.layers, model.hidden_size, model.heads, model.kv_heads, model.head_dim) == (3, 64, 4, 2, 16)
    assert (model.intermediate_size, model.vocab_size, model.max_positions, model.dtype) == (96, 100, 8192, "fp16")
    assert model.decoder.layers[0].caches == built.decoder.layers[0].caches
    # the tiny file has one norm a layer where the class has two
    assert model.parameters == built.parameters - 3 * 64
    assert stored(model) == sum(np.prod(s) * (4 if len(s) == 1 else 2) for s in tensors.values()) + 32
    assert (model.tied_embeddings, model.basis, model.id) == (True, "header", "a")


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "MXFP4", "Q4_1"])
def test_bytes_of_blocks(kind: str, tmp_path: Path) -> None:
    tensors = blocks({**ATTENTION, **MLP})
    model = open_model(str(write_gguf(tmp_path / "a.gguf", "llama", {**USUAL, "block_count": 1}, tensors, kind)))
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    matrices = sum(int(np.prod(shape)) for shape in tensors.values() if len(shape) == 2)
    assert stored(model) == matrices // block * size + 4 * 64
    assert model.parameters == matrices + 64


@pytest.mark.parametrize("architecture", PERIODS)
def test_windows_of_files_that_carry_no_pattern(architecture: str, tmp_path: Path) -> None:
    keys = {**USUAL, "block_count": 13, "attention.sliding_window": 32}
    path = write_gguf(tmp_path / "a.gguf", architecture, keys, blocks(*[ATTENTION] * 13))
    limits = [layer.caches[0].limit for layer in open_model(str(path)).decoder.layers if layer.caches]  # type: ignore[union-attr]
    period = PERIODS[architecture]
    assert limits == [None if index % period == period - 1 else 32 for index in range(13)]


def test_the_published_layers_of_gemma3_4b(tmp_path: Path) -> None:
    # ollama's log of gemma3:4b: 5 layers that keep all tokens, 29 that slide
    keys = {**USUAL, "block_count": 34, "attention.sliding_window": 1024}
    model = open_model(str(write_gguf(tmp_path / "a.gguf", "gemma3", keys, blocks(*[ATTENTION] * 34))))
    kinds = [layer.kind for layer in model.decoder.layers]
    assert (kinds.count("full"), kinds.count("sliding")) == (5, 29)


def kinds_and_caches(model: Model) -> list[tuple[str, tuple[Any, ...]]]:
    return [(layer.kind, layer.caches) for layer in model.decoder.layers]


FULL, SLIDING = KeyValueCache(2, 16, 16), KeyValueCache(2, 16, 16, window=32)
SSM = {"ssm_in.weight": (96, 64), "ssm_conv1d.weight": (64, 4), "ssm_out.weight": (64, 64), "ssm_a": (64,)}
FILES: dict[str, tuple[str, dict[str, Any], dict[str, tuple[int, ...]], list[tuple[str, tuple[Any, ...]]]]] = {
    "a pattern": (
        "gemma4",
        {"attention.sliding_window": 32, "attention.sliding_window_pattern": [True, True, False]},
        blocks(*[ATTENTION] * 3),
        [("sliding", (SLIDING,)), ("sliding", (SLIDING,)), ("full", (FULL,))],
    ),
    "a period": (
        "of-tomorrow",
        {"attention.sliding_window": 32, "attention.sliding_window_pattern": 2},
        blocks(*[ATTENTION] * 3),
        [("sliding", (SLIDING,)), ("full", (FULL,)), ("sliding", (SLIDING,))],
    ),
    "all layers slide": (
        "mistral3",
        {"attention.sliding_window": 32},
        blocks(*[ATTENTION] * 2),
        [("sliding", (SLIDING,))] * 2,
    ),
    "a window that llama.cpp switches off": (
        "phi3",
        {"attention.sliding_window": 32},
        blocks(*[ATTENTION] * 2),
        [("full", (FULL,))] * 2,
    ),
    "chunks": (
        "llama4",
        {},
        blocks(*[ATTENTION] * 4),
        [("chunked", (KeyValueCache(2, 16, 16, chunk=8192),))] * 3 + [("full", (FULL,))],
    ),
    "other widths in sliding layers": (
        "gemma4",
        {
            "attention.sliding_window": 32, "attention.sliding_window_pattern": [True, False],
            "attention.key_length": 64, "attention.value_length": 64, "attention.key_length_swa": 16,
            "attention.value_length_swa": 16, "attention.head_count_kv": [2, 1],
        },
        blocks(*[ATTENTION] * 2),
        [("sliding", (SLIDING,)), ("full", (KeyValueCache(1, 64, 64),))],
    ),
    "layers that share": (
        "gemma4",
        {
            "attention.sliding_window": 32, "attention.sliding_window_pattern": [True, False, True],
            "attention.shared_kv_layers": 1,
        },
        blocks(*[ATTENTION] * 3),
        [("sliding", (SLIDING,)), ("full", (FULL,)), ("shared", ())],
    ),
    "latent": (
        "deepseek2",
        {"attention.kv_lora_rank": 32, "rope.dimension_count": 8, "attention.key_length_mla": 24},
        blocks({"attn_kv_a_mqa.weight": (40, 64), "attn_k_b.weight": (4, 32, 16)}),
        [("latent", (LatentCache(40),))],
    ),
    "latent in an older file, kept as heads": (
        "deepseek2",
        {"attention.kv_lora_rank": 32, "attention.key_length": 24, "attention.value_length": 16},
        blocks({"attn_kv_a_mqa.weight": (40, 64), "attn_kv_b.weight": (128, 32)}),
        [("full", (KeyValueCache(2, 24, 16),))],
    ),
    "a hybrid": (
        "jamba",
        {
            "ssm.conv_kernel": 4, "ssm.inner_size": 128, "ssm.state_size": 16, "ssm.time_step_rank": 4,
            "attention.head_count_kv": [0, 2],
        },
        blocks(SSM, ATTENTION),
        [
            ("state-space", (StateCache(3 * 128, "fp32", 1, "convolution"), StateCache(16 * 128, "fp32", 1))),
            ("full", (FULL,)),
        ],
    ),
    "delta nets": (
        "qwen3next",
        {
            "ssm.conv_kernel": 4, "ssm.inner_size": 128, "ssm.state_size": 16, "ssm.group_count": 4,
            "ssm.time_step_rank": 8, "full_attention_interval": 2,
        },
        blocks({**SSM, "attn_qkv.weight": (256, 64), "attn_gate.weight": (128, 64)}, ATTENTION),
        [
            (
                "state-space",
                (StateCache(3 * (128 + 2 * 4 * 16), "fp32", 4, "convolution"), StateCache(16 * 128, "fp32", 8)),
            ),
            ("full", (FULL,)),
        ],
    ),
    "short convolutions": (
        "lfm2",
        {"shortconv.l_cache": 3, "attention.head_count_kv": [0, 2]},
        blocks({"shortconv.conv.weight": (64, 3), "shortconv.in_proj.weight": (192, 64)}, ATTENTION),
        [("convolution", (StateCache(64 * 2, "fp32", 1, "convolution"),)), ("full", (FULL,))],
    ),
    "layers without attention": (
        "deci",
        {"attention.head_count": [4, 0], "attention.head_count_kv": [2, 0], "feed_forward_length": [96, 96]},
        blocks(ATTENTION, MLP),
        [("full", (FULL,)), ("mlp", ())],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_what_the_layers_of_a_file_keep(case: str, tmp_path: Path) -> None:
    architecture, keys, tensors, want = FILES[case]
    path = write_gguf(tmp_path / "a.gguf", architecture, {**USUAL, "block_count": len(want), **keys}, tensors)
    assert kinds_and_caches(open_model(str(path))) == want


def test_blocks_that_predict_further_tokens(tmp_path: Path) -> None:
    tensors = blocks(ATTENTION, {**ATTENTION, "nextn.eh_proj.weight": (64, 128)})
    keys = {**USUAL, "block_count": 2, "nextn_predict_layers": 1}
    model = open_model(str(write_gguf(tmp_path / "a.gguf", "glm4moe", keys, tensors)))
    alone = sum(int(np.prod(shape)) for shape in ATTENTION.values())
    assert (model.layers, model.mtp_parameters) == (1, alone + 64 * 128)
    assert model.parameters == alone + 100 * 64 + 64


def tower(path: Path, width: int = 64) -> Path:
    tensors: dict[str, tuple[int, ...]] = {
        "v.patch_embd.weight": (32, 3, 14, 14), "v.blk.0.attn_q.weight": (32, 32), "v.blk.0.ffn_up.weight": (96, 32),
        "v.post_ln.weight": (32,), "mm.0.weight": (width, 32),
    }  # fmt: skip
    keys = {
        "vision.block_count": 1, "vision.embedding_length": 32, "vision.attention.head_count": 2,
        "vision.feed_forward_length": 96, "vision.image_size": 336, "vision.patch_size": 14,
        "vision.projection_dim": width,
    }  # fmt: skip
    return write_gguf(path, "clip", keys, tensors)


def test_a_vision_tower_given_or_beside(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", "llama", {**USUAL, "block_count": 1}, blocks(ATTENTION))
    alone = open_model(str(path))
    assert alone.vision is None
    apart = tower(tmp_path / "elsewhere.gguf")
    model = open_model(str(path), str(apart))
    assert model.parameters_by_part == {
        "language": alone.parameters,
        "vision": 32 * 3 * 14 * 14 + 32 * 32 + 96 * 32 + 32,
        "projector": 64 * 32,
    }
    assert model.vision is not None
    assert (model.vision.patches, model.vision.hidden_size) == (576, 32)
    tower(tmp_path / "mmproj-F16.gguf")
    beside = open_model(str(path))
    assert beside.parameters_by_part == model.parameters_by_part
    assert "the vision tower is that of mmproj-F16.gguf beside it" in beside.notes
    tower(tmp_path / "mmproj-F16.gguf", width=128)
    assert open_model(str(path)).vision is None


def test_a_folder_of_gguf_files(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", "llama", {**USUAL, "block_count": 1}, blocks(ATTENTION))
    tower(tmp_path / "mmproj-F16.gguf")
    assert open_model(str(tmp_path)).vision is not None
    write_gguf(tmp_path / "b.gguf", "llama", {**USUAL, "block_count": 1}, blocks(ATTENTION))
    with pytest.raises(InputError, match=r"holds 2 GGUF models \(a\.gguf, b\.gguf\); the name of one file is needed"):
        open_model(str(tmp_path))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"block_count": 0}, "has no blocks"),
        ({"block_count": 1 << 31}, "'llama.block_count' is 2147483648"),
        ({"block_count": 2, "nextn_predict_layers": 3}, "nextn_predict_layers"),
        ({"block_count": 3, "attention.head_count": [4, 4]}, "one integer for each of 3 layers"),
        (
            {"block_count": 1, "attention.sliding_window": 32, "attention.sliding_window_pattern": [1.5]},
            "list of flags",
        ),
    ],
)
def test_metadata_that_lie(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", "llama", {**USUAL, **keys}, blocks(ATTENTION))
    with pytest.raises(InputError) as error:
        open_model(str(path))
    assert said in str(error.value)


def test_a_tower_alone_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a vision tower"):
        open_model(str(tower(tmp_path / "mmproj.gguf")))
    path = write_gguf(tmp_path / "a.gguf", "llama", {**USUAL, "block_count": 1}, blocks(ATTENTION))
    with pytest.raises(InputError, match="its architecture is llama; clip is needed"):
        open_model(str(path), str(path))


# --- What a text may name -----------------------------------------------------------------------------------------


def test_names_of_the_catalogue() -> None:
    assert open_model("llama-2-13b") is find_model("llama-2-13b")
    assert open_model("meta-llama/Llama-2-13b-hf") is find_model("llama-2-13b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("llama-2-14b", "no such file, and it is no hub id"),
        ("", "no such file"),
        ("nowhere/config.json", "no such file or folder"),
        ("./nowhere", "no such file or folder"),
        ("~/nowhere", "no such file or folder"),
        ("a\0b", "no such file"),
        ("x" * 5000, "no such file"),
        ("a/b/c", "no such file"),
        ("model.safetensors", "no such file or folder"),
    ],
)
def test_what_names_nothing(text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        open_model(text)
    assert said in str(error.value)
    assert str(error.value).isprintable()


def test_files_of_no_kind(tmp_path: Path) -> None:
    for name, content, said in (
        ("pytorch_model.bin", b"\x80\x02", "is a pickle"),
        ("notes.txt", b"hello", "is of no kind that is read"),
        ("list.json", b"[]", "holds no object"),
        ("empty.gguf", b"", "does not begin with GGUF"),
        ("config.json", b"{}", "'model_type' is missing"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError) as error:
            open_model(str(tmp_path / name))
        assert said in str(error.value)
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match=r"has no config\.json"):
        open_model(str(tmp_path))


def test_a_gguf_file_of_another_name(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", "llama", {**USUAL, "block_count": 1}, blocks(ATTENTION))
    other = path.rename(tmp_path / "sha256-abc")
    assert open_model(str(other)).architecture == "llama"


def test_a_loop_of_links(tmp_path: Path) -> None:
    (tmp_path / "a.json").symlink_to(tmp_path / "b.json")
    (tmp_path / "b.json").symlink_to(tmp_path / "a.json")
    with pytest.raises(InputError):
        open_model(str(tmp_path / "a.json"))


def test_a_config_too_long(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b" " * (9 << 20))
    with pytest.raises(InputError, match="at most 8,388,608"):
        open_model(str(path))
    path.write_bytes(b'{"a": [' + b"0," * 400_000 + b"0]}")
    with pytest.raises(InputError, match="more than 300,000 values"):
        open_model(str(path))
