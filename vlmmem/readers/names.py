"""What a tensor's name says: the part of the model that it belongs to, its layer, what it is and how it is cut.

The names are those of checkpoints on the hub (the classes of transformers 5.23.0 and their older and remote-code
forms) and of GGUF files (gguf 0.19.0, gguf/constants.py, TENSOR_NAMES). A name that no row knows belongs to the
language model, is of kind "other" and stands whole on every GPU.
"""

import re
from functools import lru_cache
from typing import NamedTuple

__all__ = ["MOST_LAYERS", "Place", "place", "storage_suffix"]


MOST_LAYERS = 4096
"""A larger number in a name is no layer's."""


class Place(NamedTuple):
    """Where a tensor stands: `name` is below its layer, or in full outside the layers (`layer` is None there)."""

    part: str
    stack: str
    layer: int | None
    name: str
    kind: str
    cut: str


_LAYER = re.compile(
    r"(?P<stack>(?:.*?\.)??(?:layers|h|blocks|blk|block|resblocks|layer))\.(?P<layer>\d{1,5})\.(?P<name>.+)"
)

# Each table is read from the top; the words of a row are regular expressions of which one has to fit.
_PARTS = {
    "audio": r"""
        ^(?:thinker\.)?(?:model\.)?(?:audio|embed_audio|speech|apm|sound|whisper|conformer)
        audio_(?:tower|model|encoder|proj)  ^(?:talker|token2wav|code2wav|tts)\b  ^a\.  ^mm\.a\.""",
    # A merger inside the tower's own module counts with the tower, as in transformers.
    "projector": r"""
        projector  (?:^|\.)connector\b  modality_projection  (?:^|\.)(?:mlp1|aligner|resampler|view_seperator)\b
        (?:^|\.)(?:embed_vision|image_newline|adapter)\b  img_projection  (?:glb|sub)_GN  patch_merger
        ^mm\.  ^v\.(?:deepstack|resampler)\.""",
    "vision": r"""(?:^|\.)(?:vision|visual|vit|vpm|image|img|siglip|clip)[a-z_]*\.  ^v\.""",
}
_RULES = {
    ("norm", "whole"): r"""\w*norm\w*  \w*layrnorm  ln\w*""",
    ("embedding", "vocabulary"): r"""
        embed_tokens\w*  wte  word_embeddings?  tok_embeddings  embed_in  token_embd  per_layer_token_embd""",
    ("head", "vocabulary"): r"""lm_head  embed_out  output  output_layer""",
    ("position", "whole"): r"""
        wpe  embed_positions  position_embd  position_embeddings?  pos_embed  positional_embedding""",
    ("router", "whole"): r"""
        (?:mlp|moe|block_sparse_moe|feed_forward|ffn|mixer)\.(?:gate|router)(?:\.(?:gate|layer|wg|classifier))?
        ffn_gate_inp(?:_shexp)?  shared_expert_gate  router(?:\.layer|\.proj)?""",
    ("expert", "experts"): r"""
        experts\.(?:\d+\.)?(?:mlp\.)?\w+  ffn_(?:gate|up|down|gate_up)_exps  (?:input|output)_linear""",
    ("linear", "qkv"): r"""qkv_proj  query_key_value  c_attn  [Ww]qkv  attn_qkv  qkv  W_pack""",
    ("linear", "kv"): r"""[kv]_proj  attn_[kv]  w[kv]  key(?:_proj)?  value(?:_proj)?""",
    ("convolution", "whole"): r"""
        conv(?:1d)?  [qkv]_conv(?:1d)?  patch_embed(?:ding|dings)?(?:\.proj)?  patch_embd(?:\.\d)?  patch_conv
        ssm_conv1d\w*  shortconv\.conv  embeddings\.patch_embedding""",
    ("linear", "whole"): r"""
        q_a_proj  kv_a_proj_with_mqa  attn_q_a  attn_kv_a_mqa  indexer\.\w+  linear_\d""",
    ("linear", "outputs"): r"""
        q_proj  [qk]v?_b_proj  gate_proj  up_proj  gate_up_proj  fc1  c_fc  dense_h_to_4h  w[q13]  gate  up  query
        attn_q(?:_b)?  attn_kv?_b  attn_v_b  ffn_(?:gate|up|gate_up)(?:_shexp)?  in_proj\w*  ssm_in  attn_gate
        ssm_beta_alpha  ssm_ba  linear_fc1  fc_in""",
    ("linear", "inputs"): r"""
        o_proj  out_proj  dense  fc2  c_proj  down_proj  dense_4h_to_h  wo  w2  attn_out(?:put)?  down  linear_fc2
        ffn_down(?:_shexp)?  ssm_out  fc_out  attn\.proj""",
}
_PART = tuple((part, re.compile("|".join(words.split()))) for part, words in _PARTS.items())
_RULE = tuple(
    (kind, cut, re.compile(rf"(?:.*\.)?(?:{'|'.join(words.split())})")) for (kind, cut), words in _RULES.items()
)

_STORAGE = (
    # bitsandbytes
    ".weight.absmax", ".weight.quant_map", ".weight.nested_absmax", ".weight.nested_quant_map",
    ".weight.quant_state.bitsandbytes__nf4", ".weight.quant_state.bitsandbytes__fp4", ".SCB", ".weight_format",
    # GPTQ, AWQ, MLX, mxfp4
    ".qzeros", ".scales", ".biases", ".g_idx", "_scales",
    # compressed-tensors, ModelOpt, fp8
    ".weight_scale", ".weight_scale_inv", ".weight_scale_2", ".weight_global_scale", ".weight_shape", ".weight_g_idx",
    ".weight_zero_point", ".input_scale", ".input_global_scale", ".input_zero_point", ".output_scale", ".scale",
    "_weight_scale", "_weight_scale_inv", "_weight_scale_2", "_scale_inv", "_input_scale", ".pre_quant_scale",
    ".activation_scale", ".input_amax", "_blocks_scale",
)  # fmt: skip
_BUFFER = re.compile(
    r"(?:.*\.)?(?:inv_freq|original_inv_freq|position_ids|masked_bias|attn\.bias|num_batches_tracked|"
    r"rope_freqs(?:\.weight)?|rope_factors_(?:long|short)(?:\.weight)?|e_score_correction_bias|exp_probs_b(?:\.bias)?|"
    r"[kqv]_scale|kv_scale|prob_output_scale|prob_scale|std_(?:bias|scale))"
)


def storage_suffix(name: str) -> str:
    """The end of a name that marks what quantised weights bring with them (scales, zeros, maps); empty for weights.

    >>> storage_suffix("model.layers.0.mlp.up_proj.scales"), storage_suffix("model.layers.0.mlp.up_proj.weight")
    ('.scales', '')
    """
    if not name.endswith(_STORAGE):
        return ""
    return max((end for end in _STORAGE if name.endswith(end)), key=len)


@lru_cache(maxsize=4096)
def _kind(name: str, outside: bool) -> tuple[str, str]:
    """Kind and cut of a name below its layer, or of one outside the layers."""
    if _BUFFER.fullmatch(name):
        return "buffer", "whole"
    stem = name
    for end in (".weight", ".bias", ".qweight", ".weight_packed", "_blocks", "_bias"):
        stem = stem.removesuffix(end)
    bias = name.endswith((".bias", "_bias"))
    for kind, cut, rule in _RULE:
        if kind in ("embedding", "head") and not outside:
            continue
        if rule.fullmatch(stem):
            if not bias or kind in ("norm", "expert"):
                return kind, cut
            return "bias", "whole" if cut == "inputs" else cut
    return ("bias", "whole") if bias else ("other", "whole")


def place(name: str) -> Place:
    """Where a tensor of that name stands in a model.

    >>> place("model.layers.3.self_attn.k_proj.weight")
    Place(part='language', stack='model.layers', layer=3, name='self_attn.k_proj.weight', kind='linear', cut='kv')
    >>> place("blk.0.ffn_down_exps.weight")[3:]
    ('ffn_down_exps.weight', 'expert', 'experts')
    >>> place("model.connector.modality_projection.proj.weight").part
    'projector'
    """
    part = next((part for part, rule in _PART if rule.search(name)), "language")
    found = _LAYER.fullmatch(name)
    if found is None or int(found["layer"]) >= MOST_LAYERS:
        kind, cut = _kind(name, True)
        return Place(part, "", None, name, kind, "whole" if part == "projector" else cut)
    kind, cut = _kind(found["name"], False)
    if part == "projector":
        cut = "whole"
    elif part != "language" and cut in ("kv", "qkv"):
        # Towers have as many KV heads as heads: keys and values are cut like queries.
        cut = "outputs"
    return Place(part, found["stack"], int(found["layer"]), found["name"], kind, cut)
