"""Idefics2, Idefics3 and SmolVLM: a SigLIP tower without its head, a connector, and a decoder.

Source: modeling_idefics2.py, modeling_idefics3.py and modeling_smolvlm.py under
https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/
"""

from vlmmem.architectures.blocks import linear, norm
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.towers import gated_mlp, siglip
from vlmmem.architectures.vision_language import projector, text_of, with_tower
from vlmmem.layers import Layer, Part, Tensor
from vlmmem.model import Model

__all__ = ["BUILDERS"]

_CONNECTOR = "model.connector"
_GATE = f"{_CONNECTOR}.modality_projection"
_RESAMPLER = f"{_CONNECTOR}.perceiver_resampler"


def _idefics2(fields: Fields) -> Model:
    inner = fields.sub("text_config")
    text = text_of(fields, inner, "model.text_model.", "mistral", tied=False)
    tower = siglip(
        fields.sub("vision_config"), "model.vision_model", head=False, architecture="idefics2", patch_size=32
    )
    perceiver = fields.sub("perceiver_config")
    # Idefics2Config puts the text model's hidden size in the place of the resampler's
    hidden = text.hidden_size
    depth = perceiver.layers("resampler_depth", 3)
    heads = perceiver.integer("resampler_n_heads", 16)
    kv = perceiver.integer("num_key_value_heads", 4, most=heads)
    width = perceiver.integer("resampler_head_dim", 96)
    layer = Layer(
        "resampler",
        (
            *norm("input_latents_norm", hidden),
            *norm("input_context_norm", hidden),
            *linear("self_attn.q_proj", heads * width, hidden),
            *linear("self_attn.k_proj", kv * width, hidden),
            *linear("self_attn.v_proj", kv * width, hidden),
            *linear("self_attn.o_proj", hidden, heads * width),
            *norm("post_attention_layernorm", hidden),
            *gated_mlp(hidden, 4 * hidden),
        ),
    )
    wide = text.intermediate_size
    outside = (
        *linear(f"{_GATE}.gate_proj", wide, tower.shape.hidden_size),
        *linear(f"{_GATE}.up_proj", wide, tower.shape.hidden_size),
        *linear(f"{_GATE}.down_proj", hidden, wide),
        Tensor(f"{_RESAMPLER}.latents", (perceiver.integer("resampler_n_latents", 64), hidden), "other"),
        *norm(f"{_RESAMPLER}.norm", hidden),
    )
    resampler = Part("projector", outside, f"{_RESAMPLER}.layers", (layer,) * depth)
    return with_tower(text, "idefics2", tower.shape, *tower.parts, resampler)


def _idefics3(fields: Fields, kind: str = "idefics3") -> Model:
    text = text_of(fields, fields.sub("text_config"), "model.text_model.", "llama", tied=False)
    tower = siglip(
        fields.sub("vision_config"),
        "model.vision_model",
        head=False,
        architecture="idefics3",
        hidden_size=1152,
        heads=16,
        patch_size=32,
    )
    # pixel shuffle: a square of scale x scale patches becomes one token
    shuffled = tower.shape.hidden_size * fields.integer("scale_factor", 2, most=64) ** 2
    return with_tower(
        text, kind, tower.shape, *tower.parts, projector(linear(f"{_GATE}.proj", text.hidden_size, shuffled))
    )


def _smolvlm(fields: Fields) -> Model:
    return _idefics3(fields, "smolvlm")


BUILDERS = {"idefics2": _idefics2, "idefics3": _idefics3, "smolvlm": _smolvlm}
