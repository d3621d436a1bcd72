"""Readers and the command over them against damaged and made-up input: one line and exit code 2, or an answer.

Hypothesis draws the seed of each example: what it makes from it itself would take most of the time. VLMMEM_FUZZ=N tries
N examples of each kind instead of the few that a test run can afford ('make fuzz').
"""

import contextlib
import io
import json
import os
import struct
import tempfile
import time
from math import prod
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlmmem.cli import main

EXAMPLES = int(os.environ.get("VLMMEM_FUZZ", "60"))
SLOWEST = 2.0
"""Seconds of processor time that one answer may take, where nine others may share the machine."""

fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="VLMMEM_FUZZ" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)

CONFIGS: tuple[dict[str, Any], ...] = (
    {
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100,
        "num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 2048, "dtype": "bfloat16",
        "rope_scaling": None, "tie_word_embeddings": False, "head_dim": 16, "attention_bias": False,
        "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True},
    },
    {
        "model_type": "gemma3", "text_config": {
            "model_type": "gemma3_text", "hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4,
            "num_key_value_heads": 2, "intermediate_size": 96, "head_dim": 16, "sliding_window": 32, "vocab_size": 100,
            "sliding_window_pattern": 6, "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
        },
        "vision_config": {
            "model_type": "siglip_vision_model", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 96, "image_size": 56, "patch_size": 14,
        },
        "mm_tokens_per_image": 4, "torch_dtype": "bfloat16",
    },
    {
        "model_type": "qwen2_vl", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 100, "sliding_window": 32,
        "use_sliding_window": False, "max_window_layers": 1,
        "vision_config": {"depth": 2, "embed_dim": 64, "num_heads": 4, "hidden_size": 64, "patch_size": 14},
    },
    {
        "model_type": "deepseek_v3", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 4, "intermediate_size": 96, "moe_intermediate_size": 32, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "n_shared_experts": 1, "kv_lora_rank": 32, "q_lora_rank": 24, "vocab_size": 100,
        "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16, "first_k_dense_replace": 1,
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e4m3"},
    },
    {
        "model_type": "qwen3_next", "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 96, "head_dim": 16, "full_attention_interval": 4,
        "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "linear_conv_kernel_dim": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32, "vocab_size": 100,
    },
    {
        "model_type": "gpt_oss", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100,
        "num_key_value_heads": 2, "intermediate_size": 64, "head_dim": 16, "num_local_experts": 4,
        "num_experts_per_tok": 2, "sliding_window": 32, "layer_types": ["sliding_attention", "full_attention"],
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head", None, 3]},
    },
    {
        "model_type": "nemotron_h", "hidden_size": 64, "num_hidden_layers": 3, "hybrid_override_pattern": "M*-",
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 96, "vocab_size": 100,
        "mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 16, "n_groups": 2, "conv_kernel": 4,
    },
    {
        "model_type": "mllama", "text_config": {
            "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
            "intermediate_size": 96, "cross_attention_layers": [1], "vocab_size": 100,
        },
        "vision_config": {"hidden_size": 64, "num_hidden_layers": 2, "num_global_layers": 1, "attention_heads": 4},
    },
)  # fmt: skip

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 7, 16, 1 << 31, 1 << 40, (1 << 40) + 1, 1 << 63, 1 << 64, -(1 << 63), 10**100,
    0.5, 1e308, -0.0, 1.0, float("nan"), float("inf"), "", " ", "llama", "float32", "bfloat16", "float64", "\ud800",
    "a\nb", "sliding_attention", "x" * 10_000, "\x1b[31m", [], {}, [[]], [None], [0, 1, 2], [-1, 3], [64] * 70,
    ["full_attention"], ["sliding_attention", ""], [1.5], {"model_type": "llama"}, {"": 0}, {"bits": 4},
    [{"a": []}], "M*-E", "M" * 5000,
)  # fmt: skip


def places(config: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a config."""
    found = [path] if path else []
    if isinstance(config, dict):
        for key, value in config.items():
            found += places(value, (*path, key))
    return found


def configs(rnd: Random) -> bytes:
    """A config with some fields gone or odd, or its text damaged."""
    config = json.loads(json.dumps(rnd.choice(CONFIGS)))
    for _ in range(rnd.randrange(5)):
        way = rnd.choice(places(config))
        at: Any = config
        for key in way[:-1]:
            at = at[key]
        if rnd.randrange(4) == 0:
            del at[way[-1]]
        else:
            at[way[-1]] = rnd.choice(ODD)
        if not places(config):
            break
    raw = json.dumps(config).encode("utf-8", "surrogatepass")
    return damaged(rnd, raw) if rnd.randrange(5) == 0 else raw


def damaged(rnd: Random, raw: bytes) -> bytes:
    """Bytes with pieces cut out, doubled, or overwritten."""
    for _ in range(rnd.randrange(1, 4)):
        at, size = rnd.randrange(len(raw) or 1), rnd.randrange(13)
        match rnd.randrange(4):
            case 0:
                raw = raw[:at] + rnd.randbytes(rnd.randrange(13)) + raw[at + size :]
            case 1:
                raw = raw[:at] + raw[at : at + size] * 2 + raw[at + size :]
            case 2:
                raw = raw[: at + 1]
            case _:
                big = rnd.choice((0, 1, 255, 1 << 31, 1 << 32, 1 << 62, 1 << 63, (1 << 64) - 1))
                raw = raw[:at] + struct.pack("<Q", big) + raw[at + 8 :]
    return raw


NAMES = (
    "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight", "h.0.attn.c_attn.weight",
    "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight",
    "model.layers.0.self_attn.v_proj.weight", "model.layers.0.self_attn.o_proj.weight",
    "model.layers.1.self_attn.qkv_proj.weight", "model.layers.0.mlp.up_proj.qweight",
    "model.layers.0.mlp.up_proj.qzeros", "model.layers.0.mlp.up_proj.scales", "model.layers.0.mlp.up_proj.g_idx",
    "model.layers.0.mlp.experts.0.up_proj.weight", "model.layers.0.mlp.experts.7.up_proj.weight",
    "model.layers.0.mlp.experts.gate_up_proj_blocks", "model.layers.0.mlp.experts.gate_up_proj_scales",
    "model.layers.0.mlp.down_proj.weight_packed", "model.layers.0.mlp.down_proj.weight_scale",
    "model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.down_proj.weight.absmax",
    "model.layers.99999.self_attn.k_proj.weight", "model.layers.0.self_attn.kv_a_proj_with_mqa.weight",
    "model.layers.0.self_attn.k_norm.weight", "visual.blocks.3.attn.qkv.weight", "model.layers.1.linear_attn.A_log",
    "mtp.layers.0.x", "model.layers.0.self_attn.rotary_emb.inv_freq", "blk.0.attn_k.weight",
    "blk.1.ffn_gate_exps.weight", "blk.2.ssm_in.weight", "v.blk.0.attn_q.weight",
    "", "a", "x\n", "\u20ac", "y" * 3000,
)  # fmt: skip
BITS = {"F32": 32, "BF16": 16, "F16": 16, "F8_E4M3": 8, "I32": 32, "U32": 32, "U8": 8, "I8": 8, "F4": 4, "I64": 64,
        "BOOL": 8, "F6_E2M3": 6}  # fmt: skip


def checkpoints(rnd: Random) -> bytes:
    """A safetensors file of made-up tensors that is right, or lies in a field, or is damaged."""
    root: dict[str, Any] = {"__metadata__": {"format": "pt"}} if rnd.randrange(2) else {}
    end = 0
    for name in rnd.sample(NAMES, rnd.randrange(12)):
        dtype = rnd.choice(sorted(BITS))
        shape = [rnd.choice((1, 2, 4, 8, 16, 64, 128)) for _ in range(rnd.choice((1, 2, 2, 2, 3)))]
        if rnd.randrange(8) == 0:
            shape = [rnd.choice((0, 1, 3, 8)) for _ in range(rnd.randrange(5))]
        size = prod(shape) * BITS[dtype] // 8
        root[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    if root and rnd.randrange(4) == 0:
        root[rnd.choice(sorted(root))][rnd.choice(("dtype", "shape", "data_offsets", "x"))] = rnd.choice(ODD)
    header = json.dumps(root).encode("utf-8", "surrogatepass")
    raw = struct.pack("<Q", len(header)) + header
    raw = damaged(rnd, raw) if rnd.randrange(5) == 0 else raw
    return raw + bytes(end)


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


KEYS: dict[str, Any] = {
    "block_count": 3, "context_length": 2048, "embedding_length": 64, "feed_forward_length": 96,
    "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 16, "attention.value_length": 16,
    "attention.sliding_window": 32, "attention.sliding_window_pattern": 2, "expert_count": 4, "expert_used_count": 2,
    "ssm.conv_kernel": 4, "ssm.inner_size": 128, "ssm.state_size": 16, "ssm.group_count": 2, "ssm.time_step_rank": 4,
    "attention.kv_lora_rank": 32, "rope.dimension_count": 8, "attention.key_length_mla": 24, "nextn_predict_layers": 1,
    "attention.shared_kv_layers": 1, "shortconv.l_cache": 3, "attention.key_length_swa": 8, "kda.head_dim": 8,
}  # fmt: skip
ARCHITECTURES = (
    "llama", "gemma3", "gpt-oss", "deepseek2", "jamba", "lfm2", "qwen3next", "llama4", "phi3", "gemma4", "kimi-linear",
    "clip",
)  # fmt: skip
BLOCKS = (
    "attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight", "attn_qkv.weight", "ffn_up.weight",
    "ffn_gate_exps.weight", "ssm_in.weight", "shortconv.conv.weight", "attn_k_b.weight", "attn_kv_a_mqa.weight",
    "indexer.attn_k.weight", "attn_norm.weight", "nextn.eh_proj.weight",
)  # fmt: skip


def _value(rnd: Random, value: Any) -> bytes:
    """A value and its type: the right one or an odd one."""
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    match rnd.randrange(240):
        case 0:
            return struct.pack("<IQ", 10, rnd.choice((0, 1, 1 << 20, 1 << 40, (1 << 64) - 1)))
        case 1:
            return struct.pack("<Iq", 11, rnd.choice((-1, -(1 << 63))))
        case 2 | 3:
            items = [rnd.randrange(10) for _ in range(rnd.randrange(6))]
            return struct.pack("<IIQ", 9, 4, len(items)) + b"".join(struct.pack("<I", item) for item in items)
        case 4:
            return struct.pack("<I", 8) + _text(rnd.choice(("", "a", "x\n")))
        case 5:
            return struct.pack("<If", 6, rnd.choice((0.5, float("nan"), float("inf"))))
        case 6:
            return struct.pack("<IB", 7, 1)
        case 7 | 8 | 9:
            return struct.pack("<II", 4, rnd.choice((0, 1, 3, 5, 1 << 31)))
    return struct.pack("<II", 4, value)


def ggufs(rnd: Random) -> bytes:
    """A GGUF file of made-up metadata and tensors that is right, or lies, or is damaged."""
    architecture = rnd.choice(ARCHITECTURES)
    keys = [_text("general.architecture") + _value(rnd, architecture)]
    left_out = set(rnd.sample(sorted(KEYS), rnd.choice((0, 1, 5, 15))))
    keys += [_text(f"{architecture}.{key}") + _value(rnd, value) for key, value in KEYS.items() if key not in left_out]
    infos, end = [], 0
    odd = rnd.randrange(4) == 0
    blocks = [f"blk.{index}.{block}" for index in range(4) for block in BLOCKS]
    for name in ("token_embd.weight", *rnd.sample(blocks, rnd.randrange(20))):
        shape = [rnd.choice((0, 1, 3, 32, 256)) for _ in range(rnd.randrange(5))] if odd else [256, rnd.choice((8, 64))]
        if prod(shape) > 1 << 18:
            shape = [256]
        kind = rnd.choice((0, 1, 2, 8, 12, 14, 30, 39, 99) if odd else (0, 1, 2, 8, 12, 14, 30, 39))
        infos.append(_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, end))
        end += -(-prod(shape) * 4 // 32) * 32
    raw = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(keys)) + b"".join(keys + infos)
    raw = damaged(rnd, raw) if rnd.randrange(5) == 0 else raw
    return raw + bytes(end + 64)


def indexes(rnd: Random) -> bytes:
    """An index of shards that are not there."""
    files = ("a.safetensors",) if rnd.randrange(2) else ("a.safetensors", "..", "", "a/b", "\0", "x" * 300)
    weights: Any = {name: rnd.choice(files) for name in rnd.sample(NAMES, rnd.randrange(12))}
    total: Any = rnd.choice(ODD) if rnd.randrange(2) else 1 << rnd.randrange(50)
    root: Any = {"metadata": {"total_size": total} if rnd.randrange(5) else rnd.choice(ODD), "weight_map": weights}
    if rnd.randrange(8) == 0:
        root["weight_map"] = rnd.choice(ODD)
    raw = json.dumps(root).encode("utf-8", "surrogatepass")
    return damaged(rnd, raw) if rnd.randrange(4) == 0 else raw


def ask(*arguments: str) -> tuple[int, str]:
    """The exit code of the command and what it wrote; one line on standard error where it says no."""
    out, told = io.StringIO(), io.StringIO()
    start = time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
        try:
            code = main(list(arguments))
        except SystemExit as error:
            code = int(error.code or 0)
    taken = time.process_time() - start
    assert taken < SLOWEST, f"{taken} s"
    out.getvalue().encode()
    if code == 2:
        (line,) = told.getvalue().splitlines()
        assert line.startswith("vlmmem: error: ")
        assert line.isprintable()
        assert len(line) < 2000
    else:
        assert code in (0, 1)
        assert told.getvalue() == ""
    return code, out.getvalue()


def holds(raw: bytes, name: str) -> int:
    """What the command says of a file of that content and name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(raw)
        code, out = ask("estimate", str(path), "--json")
        if code != 2:
            answer = json.loads(out)
            assert answer["total"] >= 0
            assert answer["model"]["parameters"] >= 0
        return code


@pytest.mark.parametrize("number", range(len(CONFIGS)))
def test_the_configs_themselves_are_read(number: int) -> None:
    raw = json.dumps(CONFIGS[number]).encode()
    holds(raw, "config.json")


SEEDS = st.integers(0, (1 << 64) - 1)


@fuzz
@given(SEEDS)
def test_configs(seed: int) -> None:
    holds(configs(Random(seed)), "config.json")


@fuzz
@given(SEEDS)
def test_safetensors(seed: int) -> None:
    holds(checkpoints(Random(seed)), "model.safetensors")


@fuzz
@given(SEEDS)
def test_gguf(seed: int) -> None:
    holds(ggufs(Random(seed)), "model.gguf")


@fuzz
@given(SEEDS)
def test_indexes(seed: int) -> None:
    holds(indexes(Random(seed)), "model.safetensors.index.json")


@fuzz
@given(SEEDS)
def test_folders(seed: int) -> None:
    rnd = Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_bytes(configs(rnd))
        (Path(folder) / "model.safetensors").write_bytes(checkpoints(rnd))
        ask("estimate", folder, "--json")


@fuzz
@given(st.text(max_size=30).filter(lambda text: not text.startswith("-") and "/" not in text))
def test_names(text: str) -> None:
    code, _ = ask("estimate", text)
    assert code == 2
