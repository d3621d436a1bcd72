"""Text models whose code comes with their checkpoints, so that transformers cannot build them without running it.

Shapes and names are those of the published modeling code, which nothing here runs: modeling_qwen.py of Qwen/Qwen-7B,
modeling_chatglm.py of zai-org/chatglm3-6b, modeling_mimo.py of XiaomiMiMo/MiMo-7B-Base, modeling_minicpm.py of
openbmb/MiniCPM-2B-sft-bf16, modeling_exaone.py of LGAI-EXAONE/EXAONE-3.0-7.8B-Instruct, modeling_baichuan.py of
baichuan-inc/Baichuan2-7B-Chat, modeling_internlm.py of internlm/internlm-7b, modeling_phi3_small.py of
microsoft/Phi-3-small-8k-instruct and modeling_decilm.py of nvidia/Llama-3_3-Nemotron-Super-49B-v1, all under
https://huggingface.co/. Totals are checked against published ones where there are any (tests/test_architectures.py);
the others carry a note.
"""

from vlmmem.architectures.blocks import Shape, decoder, embedding, linear, norm, read_shape
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.fused_qkv import fused
from vlmmem.architectures.llama import attention, ends, gated_mlp, layer_windows, norms, sized, stacked, window_of
from vlmmem.errors import InputError
from vlmmem.layers import KeyValueCache, Layer, Tensor
from vlmmem.model import Model
from vlmmem.record import replace

__all__ = ["BUILDERS"]

_UNCHECKED = ("approximate: shapes follow the code published with the checkpoint; no published total checks them",)


def _qwen(fields: Fields, prefix: str = "transformer.") -> Model:
    width = fields.integer("kv_channels", 128)
    shape = read_shape(
        fields.changed(head_dim=width),
        "qwen",
        sized(32, 4096, 32, None, 22016, 151936, 8192),
        kv_heads="num_attention_heads",
        max_positions=fields.first("max_position_embeddings", "seq_length"),
        activation="(none)",
    )
    if shape.intermediate_size % 2:
        fields.wrong("intermediate_size", "an even number, which its two matrices share,")
    # the config counts both of the matrices that the MLP multiplies
    shape = replace(shape, intermediate_size=shape.intermediate_size // 2)
    hidden, wide, bias = shape.hidden_size, shape.intermediate_size, not fields.boolean("no_bias", default=True)
    tensors = (
        *norm("ln_1", hidden),
        *fused("attn.c_attn", shape, bias=True),
        *linear("attn.c_proj", hidden, shape.queries, "inputs", bias=bias),
        *norm("ln_2", hidden),
        *linear("mlp.w1", wide, hidden, "outputs", bias=bias),
        *linear("mlp.w2", wide, hidden, "outputs", bias=bias),
        *linear("mlp.c_proj", hidden, wide, "inputs", bias=bias),
    )
    outside = (
        *embedding(f"{prefix}wte", shape.vocab_size, hidden),
        *norm(f"{prefix}ln_f", hidden),
        *embedding("lm_head", shape.vocab_size, hidden, "head"),
    )
    return stacked(shape, prefix, tensors, outside=outside, stack="h")


def _chatglm(fields: Fields, prefix: str = "transformer.") -> Model:
    if "inner_hidden_size" in fields or "vision_config" in fields:
        known = "the first ChatGLM" if "inner_hidden_size" in fields else "GLM-4V"
        raise InputError(
            f"{fields.where}: {known} is not built from a config here; a safetensors header gives its bytes exactly"
        )
    heads = fields.integer("num_attention_heads", 32)
    kv_heads = fields.integer("multi_query_group_num", 1) if fields.boolean("multi_query_attention") else heads
    shape = read_shape(
        fields.changed(num_key_value_heads=kv_heads),
        "chatglm",
        sized(28, 4096, 32, None, 13696, 65024, 2048, head_dim=128),
        layers=fields.first("num_layers", "num_hidden_layers"),
        head_dim="kv_channels",
        intermediate_size="ffn_hidden_size",
        vocab_size=fields.first("padded_vocab_size", "vocab_size"),
        max_positions="seq_length",
        activation="(none)",
    )
    hidden, wide = shape.hidden_size, shape.intermediate_size
    bias, rms = fields.boolean("add_bias_linear"), fields.boolean("rmsnorm", default=True)
    tensors = (
        *norm("input_layernorm", hidden, bias=not rms),
        *fused("self_attention.query_key_value", shape, bias=bias or fields.boolean("add_qkv_bias")),
        *linear("self_attention.dense", hidden, shape.queries, "inputs", bias=bias),
        *norm("post_attention_layernorm", hidden, bias=not rms),
        # gate and up in one
        *linear("mlp.dense_h_to_4h", 2 * wide, hidden, "outputs", bias=bias),
        *linear("mlp.dense_4h_to_h", hidden, wide, "inputs", bias=bias),
    )
    last = fields.boolean("post_layer_norm", default=True)
    outside = (
        *embedding(f"{prefix}embedding.word_embeddings", shape.vocab_size, hidden),
        *(norm(f"{prefix}encoder.final_layernorm", hidden, bias=not rms) if last else ()),
        *embedding(f"{prefix}output_layer", shape.vocab_size, hidden, "head"),
    )
    return stacked(shape, f"{prefix}encoder.", tensors, outside=outside)


def _mimo(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "mimo", sized(32, 4096, 32, 32, 22016, 151936, 32768))
    hidden = shape.hidden_size
    tensors = (*attention(shape, bias=True), *gated_mlp(hidden, shape.intermediate_size), *norms(shape))
    first = fields.integer("max_window_layers", 28, least=0)
    window = window_of(fields, 4096) if fields.boolean("use_sliding_window") else None
    windows = layer_windows(fields, shape.layers, window, lambda index: index >= first)
    # each predicts one token more: a layer, the projection of its two inputs, and their norms
    ahead = fields.integer("num_nextn_predict_layers", 0, least=0, most=64)
    one = sum(tensor.parameters for tensor in tensors) + 2 * hidden * hidden + 3 * hidden
    return replace(stacked(shape, prefix, tensors, windows), mtp_parameters=ahead * one, notes=_UNCHECKED)


def _minicpm(fields: Fields, prefix: str = "model.") -> Model:
    if "num_experts" in fields and fields.integer("num_experts", least=0):
        raise InputError(
            f"{fields.where}: MiniCPM with experts is not built from a config here; a safetensors header gives its "
            "bytes exactly"
        )
    shape = read_shape(fields, "minicpm", sized(32, 4096, 32, None, 11008, 32000, 2048, tied_embeddings=True))
    bias = fields.boolean("attention_bias")
    mlp = gated_mlp(shape.hidden_size, shape.intermediate_size)
    return stacked(shape, prefix, (*attention(shape, bias=bias, output_bias=bias), *mlp, *norms(shape)))


def _exaone(fields: Fields, prefix: str = "transformer.") -> Model:
    shape = read_shape(
        fields,
        "exaone",
        sized(32, 2048, 32, None, 8192, 102400, 2048, tied_embeddings=True),
        layers=fields.first("num_layers", "num_hidden_layers"),
        activation="activation_function",
    )
    hidden, wide = shape.hidden_size, shape.intermediate_size
    tensors = (
        *norm("ln_1", hidden),
        *linear("attn.attention.k_proj", shape.keys, hidden, "kv"),
        *linear("attn.attention.v_proj", shape.keys, hidden, "kv"),
        *linear("attn.attention.q_proj", shape.queries, hidden, "outputs"),
        *linear("attn.attention.out_proj", hidden, shape.queries, "inputs"),
        *norm("ln_2", hidden),
        *linear("mlp.c_fc_0", wide, hidden, "outputs"),
        *linear("mlp.c_fc_1", wide, hidden, "outputs"),
        *linear("mlp.c_proj", hidden, wide, "inputs"),
    )
    outside = (
        *embedding(f"{prefix}wte", shape.vocab_size, hidden),
        *norm(f"{prefix}ln_f", hidden),
        *(() if shape.tied_embeddings else embedding("lm_head", shape.vocab_size, hidden, "head")),
    )
    return stacked(shape, prefix, tensors, outside=outside, stack="h")


def _baichuan(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(
        fields,
        "baichuan",
        sized(32, 4096, 32, None, 11008, 125696, 4096),
        kv_heads="num_attention_heads",
        head_dim="(none)",
        # the larger ones, with ALiBi, name a limit all the same
        max_positions=fields.first("max_position_embeddings", "model_max_length"),
    )
    tensors = (
        *fused("self_attn.W_pack", shape),
        *linear("self_attn.o_proj", shape.hidden_size, shape.queries, "inputs"),
        *gated_mlp(shape.hidden_size, shape.intermediate_size),
        *norms(shape),
    )
    return replace(stacked(shape, prefix, tensors), notes=_UNCHECKED)


def _internlm(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(fields, "internlm", sized(32, 4096, 32, None, 11008, 103168, 2048), kv_heads="(none)")
    bias = fields.boolean("bias", default=True)
    mlp = gated_mlp(shape.hidden_size, shape.intermediate_size)
    tensors = (*attention(shape, bias=bias, output_bias=bias), *mlp, *norms(shape))
    return replace(stacked(shape, prefix, tensors), notes=_UNCHECKED)


def _phi3small(fields: Fields, prefix: str = "model.") -> Model:
    shape = read_shape(
        fields,
        "phi3small",
        sized(32, 4096, 32, 8, 14336, 100352, 8192, tied_embeddings=True, activation="gegelu"),
        head_dim="(none)",
        intermediate_size="ff_intermediate_size",
    )
    hidden, wide = shape.hidden_size, shape.intermediate_size
    tensors = (
        *norm("input_layernorm", hidden, bias=True),
        *fused("self_attn.query_key_value", shape, bias=True),
        *linear("self_attn.dense", hidden, hidden, "inputs", bias=True),
        *norm("post_attention_layernorm", hidden, bias=True),
        *linear("mlp.up_proj", 2 * wide, hidden, "outputs", bias=True),
        *linear("mlp.down_proj", hidden, wide, "inputs", bias=True),
    )
    outside = (
        *embedding(f"{prefix}embed_tokens", shape.vocab_size, hidden),
        *norm(f"{prefix}final_layernorm", hidden, bias=True),
        *(() if shape.tied_embeddings else embedding("lm_head", shape.vocab_size, hidden, "head")),
    )
    # its block-sparse layers skip blocks of the cache, but the cache keeps them
    return replace(stacked(shape, prefix, tensors, outside=outside), notes=_UNCHECKED)


_WIDEST = 1024.0
"""No published feed-forward multiplier comes near."""


def _ffn_width(block: Fields, hidden: int) -> int:
    """The width of an MLP from its multiplier: two thirds of it, up to a multiple of 256."""
    if "intermediate_size" in block:
        return block.integer("intermediate_size")
    multiplier = block.number("ffn_mult")
    if not 0 < multiplier <= _WIDEST:
        block.wrong("ffn_mult", f"a number above 0 and up to {_WIDEST:,.0f}")
    width = int(2 * round(multiplier, 6) * hidden / 3)
    return max(256, -(-width // 256) * 256)


def _deci(fields: Fields, prefix: str = "model.") -> Model:
    """Models that a search over architectures pruned: each layer has its own KV heads and width, or lacks a half."""
    defaults = sized(32, 4096, 32, None, 11008, 32000, 2048)
    heads, hidden = fields.integer("num_attention_heads", 32), fields.integer("hidden_size", 4096)
    blocks = fields.raw("block_configs")
    depth = fields.layers("num_hidden_layers", 32)
    if not isinstance(blocks, list) or len(blocks) != depth:
        fields.wrong("block_configs", f"a list of {depth} objects, one a layer,")
    own = [Fields(block, f"{fields.where}: block_configs[{index}]") for index, block in enumerate(blocks)]
    kv, wide = [_deci_heads(block.sub("attention"), heads) for block in own], []
    for block in own:
        ffn = block.sub("ffn")
        skipped = ffn.boolean("no_op") or ffn.boolean("replace_with_linear")
        wide.append(0 if skipped else _ffn_width(ffn, hidden))
    shape = read_shape(
        fields.changed(
            num_key_value_heads=next((each for each in kv if each), heads),
            intermediate_size=next((each for each in wide if each), hidden),
        ),
        "nemotron-nas",
        defaults,
    )
    alike: dict[tuple[object, ...], Layer] = {}
    layers = []
    for block, kv_heads, width in zip(own, kv, wide, strict=True):
        attended, ffn = block.sub("attention"), block.sub("ffn")
        linear_attention = not kv_heads and not attended.boolean("no_op")
        linear_mlp = not width and not ffn.boolean("no_op")
        window = attended.optional_integer("window_length")
        key = (kv_heads, width, window, linear_attention, linear_mlp)
        if key not in alike:
            tensors = _deci_attention(fields, shape, kv_heads, replaced=linear_attention)
            tensors += _deci_mlp(fields, shape, width, replaced=linear_mlp)
            caches = (KeyValueCache(kv_heads, shape.head_dim, shape.head_dim, window),) if kv_heads else ()
            kind = ("sliding" if window else "full") if kv_heads else "mlp" if tensors else "none"
            alike[key] = Layer(kind, tensors, caches)
        layers.append(alike[key])
    return decoder(shape, layers, ends(shape, prefix), f"{prefix}layers")


def _deci_attention(fields: Fields, shape: Shape, kv_heads: int, *, replaced: bool) -> tuple[Tensor, ...]:
    hidden = shape.hidden_size
    if replaced:
        return (*norm("input_layernorm", hidden), *linear("self_attn.linear_attn", hidden, hidden))
    if not kv_heads:
        return ()
    bias = fields.boolean("attention_bias")
    own = attention(replace(shape, kv_heads=kv_heads), bias=bias, output_bias=bias)
    return (*norm("input_layernorm", hidden), *own)


def _deci_mlp(fields: Fields, shape: Shape, width: int, *, replaced: bool) -> tuple[Tensor, ...]:
    hidden = shape.hidden_size
    if replaced:
        return (*norm("post_attention_layernorm", hidden), *linear("mlp.linear_mlp", hidden, hidden))
    if not width:
        return ()
    return (
        *norm("post_attention_layernorm", hidden),
        *gated_mlp(hidden, width, bias=fields.boolean("mlp_bias")),
    )


def _deci_heads(block: Fields, heads: int) -> int:
    """KV heads of a layer's attention; 0 where it has none."""
    if block.boolean("no_op") or block.boolean("replace_with_linear"):
        return 0
    group = block.integer("n_heads_in_group")
    if heads % group:
        raise InputError(f"{block.where}: groups of {group} heads do not divide {heads} heads; a divisor is needed")
    return heads // group


BUILDERS = {
    "baichuan": _baichuan,
    "chatglm": _chatglm,
    "deci": _deci,
    "exaone": _exaone,
    "internlm": _internlm,
    "mimo": _mimo,
    "minicpm": _minicpm,
    "nemotron-nas": _deci,
    "phi3small": _phi3small,
    "qwen": _qwen,
}
