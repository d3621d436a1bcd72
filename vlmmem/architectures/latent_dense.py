"""MiniCPM3 and Youtu: multi-head latent attention with a dense MLP (arXiv 2405.04434, section 2.1).

Source: configuration_NAME.py and modeling_NAME.py for minicpm3 and youtu under
https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/
"""

from vlmmem.architectures.blocks import decoder, linear, norm, read_shape
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.llama import ends, gated_mlp, norms, sized
from vlmmem.layers import LatentCache, Layer, Tensor
from vlmmem.model import Model

__all__ = ["BUILDERS"]


def _latent(
    fields: Fields, prefix: str, kind: str, defaults: dict[str, object], ranks: dict[str, int], *, mlp_bias: bool
) -> Model:
    # the config's head_dim is that of the rotary part here
    known = defaults | {"head_dim": ranks["qk_rope_head_dim"]}
    shape = read_shape(fields, kind, known, head_dim="qk_rope_head_dim", kv_heads="num_attention_heads")
    hidden, heads = shape.hidden_size, shape.heads
    bias = fields.boolean("attention_bias")
    latent = fields.integer("kv_lora_rank", ranks["kv_lora_rank"])
    rope, rest = shape.head_dim, fields.integer("qk_nope_head_dim", ranks["qk_nope_head_dim"])
    values = fields.integer("v_head_dim", ranks.get("v_head_dim", hidden // heads))
    queries: tuple[Tensor, ...]
    if fields.has("q_lora_rank") and fields.raw("q_lora_rank") is None:
        queries = linear("self_attn.q_proj", heads * (rest + rope), hidden, "outputs")
    else:
        rank = fields.integer("q_lora_rank", ranks["q_lora_rank"])
        queries = (
            *linear("self_attn.q_a_proj", rank, hidden, bias=bias),
            *norm("self_attn.q_a_layernorm", rank),
            *linear("self_attn.q_b_proj", heads * (rest + rope), rank, "outputs"),
        )
    tensors = (
        *queries,
        *linear("self_attn.kv_a_proj_with_mqa", latent + rope, hidden, bias=bias),
        *norm("self_attn.kv_a_layernorm", latent),
        *linear("self_attn.kv_b_proj", heads * (rest + values), latent, "outputs"),
        *linear("self_attn.o_proj", hidden, heads * values, "inputs", bias=bias),
        *gated_mlp(hidden, shape.intermediate_size, bias=mlp_bias),
        *norms(shape),
    )
    layer = Layer("latent", tensors, (LatentCache(latent + rope),))
    return decoder(shape, (layer,) * shape.layers, ends(shape, prefix), f"{prefix}layers")


def _minicpm3(fields: Fields, prefix: str = "model.") -> Model:
    defaults = sized(62, 2560, 40, None, 6400, 73448, 32768, tied_embeddings=True)
    ranks = {"kv_lora_rank": 256, "q_lora_rank": 768, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32}
    return _latent(fields, prefix, "minicpm3", defaults, ranks, mlp_bias=fields.boolean("mlp_bias"))


def _youtu(fields: Fields, prefix: str = "model.") -> Model:
    defaults = sized(32, 2048, 16, None, 6144, 128256, 131072, tied_embeddings=True)
    ranks = {"kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64}
    return _latent(fields, prefix, "youtu", defaults, ranks | {"v_head_dim": 128}, mlp_bias=False)


BUILDERS = {"minicpm3": _minicpm3, "youtu": _youtu}
