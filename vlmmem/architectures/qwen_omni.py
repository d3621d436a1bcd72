"""Qwen2.5-Omni: a thinker (text, images, sound) and, where the config asks for speech, a talker and its vocoder.

Source: https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/qwen2_5_omni/
modeling_qwen2_5_omni.py. The talker keeps a KV cache of its own while it speaks, which is not counted here.
"""

from vlmmem.architectures.blocks import embedding, linear, norm
from vlmmem.architectures.fields import Fields
from vlmmem.architectures.hub_code import headed
from vlmmem.architectures.llama import gated_mlp
from vlmmem.architectures.qwen_vl import qwen2_5_tower
from vlmmem.architectures.vision_language import text_of, with_tower
from vlmmem.layers import Layer, Part, Tensor
from vlmmem.model import Model
from vlmmem.record import replace

__all__ = ["BUILDERS"]

_TEXT = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "sliding_window": 32768,
}
"""What Qwen2_5OmniTextConfig takes for missing fields."""

_FREQUENCIES = 256
_SEPARABLE = 7
"""Width of the vocoder's first and last convolution."""

_NORM_ROWS = 6
"""Scales, shifts and gates of attention and MLP in one layer of the diffusion transformer."""

_MOST_KERNELS = 64


def _convolution(name: str, outputs: int, inputs: int, width: int, *, bias: bool = True) -> tuple[Tensor, ...]:
    weight = Tensor(f"{name}.weight", (outputs, inputs, width), "convolution")
    return (weight, Tensor(f"{name}.bias", (outputs,), "bias")) if bias else (weight,)


def _audio(described: Fields, name: str) -> Part:
    hidden = described.integer("d_model", 1280)
    wide = described.integer("encoder_ffn_dim", 5120)
    depth = described.layers("encoder_layers", 32)
    layer = Layer(
        "encoder",
        (
            *linear("self_attn.k_proj", hidden, hidden),
            *linear("self_attn.v_proj", hidden, hidden, bias=True),
            *linear("self_attn.q_proj", hidden, hidden, bias=True),
            *linear("self_attn.out_proj", hidden, hidden, bias=True),
            *norm("self_attn_layer_norm", hidden, bias=True),
            *linear("fc1", wide, hidden, bias=True),
            *linear("fc2", hidden, wide, bias=True),
            *norm("final_layer_norm", hidden, bias=True),
        ),
    )
    out = described.integer("output_dim", 3584)
    outside = (
        *_convolution(f"{name}.conv1", hidden, described.integer("num_mel_bins", 128), 3),
        *_convolution(f"{name}.conv2", hidden, hidden, 3),
        *embedding(f"{name}.audio_bos_eos_token", 2, out, "position"),
        *norm(f"{name}.ln_post", hidden, bias=True),
        *linear(f"{name}.proj", out, hidden, bias=True),
    )
    return Part("audio", outside, f"{name}.layers", (layer,) * depth)


def _talker(described: Fields, name: str) -> Part:
    hidden = described.integer("hidden_size", 3584)
    width = described.integer("head_dim", 128)
    queries = described.integer("num_attention_heads", 28) * width
    keys = described.integer("num_key_value_heads", 4) * width
    rows = described.integer("vocab_size", 8448)
    inputs = described.integer("embedding_size", 3584)
    layer = Layer(
        "full",
        (
            *linear("self_attn.q_proj", queries, hidden, "outputs", bias=True),
            *linear("self_attn.k_proj", keys, hidden, "kv", bias=True),
            *linear("self_attn.v_proj", keys, hidden, "kv", bias=True),
            *linear("self_attn.o_proj", hidden, queries, "inputs"),
            *gated_mlp(hidden, described.integer("intermediate_size", 18944)),
            *norm("input_layernorm", hidden),
            *norm("post_attention_layernorm", hidden),
        ),
    )
    outside = (
        *linear(f"{name}.thinker_to_talker_proj", hidden, inputs, bias=True),
        *embedding(f"{name}.model.embed_tokens", rows, inputs),
        *norm(f"{name}.model.norm", hidden),
        *embedding(f"{name}.codec_head", rows, hidden, "head"),
    )
    depth = described.layers("num_hidden_layers", 28)
    return Part("speech", outside, f"{name}.model.layers", (layer,) * depth)


def _speaker(described: Fields, name: str) -> tuple[Tensor, ...]:
    """ECAPA-TDNN (arXiv 2005.07143), which makes a vector of a voice."""
    channels = described.integers("enc_channels", least=1) or (256, 256, 256, 256, 768)
    kernels = described.integers("enc_kernel_sizes", least=1, length=len(channels)) or (5, 3, 3, 3, 1)
    if len(channels) != len(kernels) or not 1 < len(channels) <= _MOST_KERNELS:
        described.wrong("enc_channels", "a list as long as 'enc_kernel_sizes'")
    mel, squeezed = described.integer("mel_dim", 80), described.integer("enc_se_channels", 64)
    scale = described.integer("enc_res2net_scale", 2, most=_MOST_KERNELS)
    found = _convolution(f"{name}.blocks.0.conv", channels[0], mel, kernels[0])
    for index in range(1, len(channels) - 1):
        inputs, wide, block = channels[index - 1], channels[index], f"{name}.blocks.{index}"
        found += _convolution(f"{block}.tdnn1.conv", wide, inputs, 1)
        for piece in range(scale - 1):
            part = f"{block}.res2net_block.blocks.{piece}.conv"
            found += _convolution(part, wide // scale, wide // scale, kernels[index])
        found += _convolution(f"{block}.tdnn2.conv", wide, wide, 1)
        found += _convolution(f"{block}.se_block.conv1", squeezed, wide, 1)
        found += _convolution(f"{block}.se_block.conv2", wide, squeezed, 1)
    last, pooled = channels[-1], described.integer("enc_attention_channels", 64)
    return (
        *found,
        *_convolution(f"{name}.mfa.conv", last, last, kernels[-1]),
        *_convolution(f"{name}.asp.tdnn.conv", pooled, 3 * last, 1),
        *_convolution(f"{name}.asp.conv", last, pooled, 1),
        *_convolution(f"{name}.fc", described.integer("enc_dim", 128), 2 * last, 1),
    )


def _diffusion(described: Fields, name: str) -> Part:
    """The diffusion transformer that makes a mel spectrogram of the talker's codes."""
    hidden = described.integer("hidden_size", 1024)
    width = described.integer("num_attention_heads", 16) * described.integer("head_dim", 64)
    wide = hidden * described.integer("ff_mult", 2, most=1024)
    layer = Layer(
        "encoder",
        (
            *linear("attn_norm.linear", _NORM_ROWS * hidden, hidden, bias=True),
            *linear("attn.to_q", width, hidden, bias=True),
            *linear("attn.to_k", width, hidden, bias=True),
            *linear("attn.to_v", width, hidden, bias=True),
            *linear("attn.to_out.0", hidden, width, bias=True),
            *linear("ff.ff.0", wide, hidden, bias=True),
            *linear("ff.ff.3", hidden, wide, bias=True),
        ),
    )
    mel, codes = described.integer("mel_dim", 80), described.integer("emb_dim", 512)
    inputs = mel + described.integer("enc_dim", 128) + described.integer("enc_emb_dim", 192) + codes
    outside = (
        *linear(f"{name}.time_embed.time_mlp.0", hidden, _FREQUENCIES, bias=True),
        *linear(f"{name}.time_embed.time_mlp.2", hidden, hidden, bias=True),
        *embedding(f"{name}.text_embed.codec_embed", described.integer("num_embeds", 8193) + 1, codes, "position"),
        *linear(f"{name}.input_embed.proj", hidden, inputs, bias=True),
        *_speaker(described, f"{name}.input_embed.spk_encoder"),
        *linear(f"{name}.norm_out.linear", 2 * hidden, hidden, bias=True),
        *linear(f"{name}.proj_out", mel, hidden, bias=True),
    )
    depth = described.layers("num_hidden_layers", 22)
    return Part("speech", outside, f"{name}.transformer_blocks", (layer,) * depth)


def _vocoder(described: Fields, name: str) -> Part:
    """BigVGAN (arXiv 2206.04658), which makes a sound of a mel spectrogram."""
    first = described.integer("upsample_initial_channel", 1536)
    up = described.integers("upsample_kernel_sizes", least=1) or (11, 7, 4, 4, 4, 4)
    kernels = described.integers("resblock_kernel_sizes", least=1) or (3, 7, 11)
    if len(up) > _MOST_KERNELS or len(kernels) > _MOST_KERNELS:
        described.wrong("upsample_kernel_sizes", f"a list of {_MOST_KERNELS} integers at most")
    found = _convolution(f"{name}.conv_pre", first, described.integer("mel_dim", 80), _SEPARABLE)
    for index, width in enumerate(up):
        wide = first >> (index + 1)
        # a transposed convolution stores inputs before outputs
        found += (
            Tensor(f"{name}.ups.{index}.0.weight", (first >> index, wide, width), "convolution"),
            Tensor(f"{name}.ups.{index}.0.bias", (wide,), "bias"),
        )
        for which, kernel in enumerate(kernels):
            block = f"{name}.resblocks.{index * len(kernels) + which}"
            for step in range(3):
                found += _convolution(f"{block}.convs1.{step}", wide, wide, kernel)
                found += _convolution(f"{block}.convs2.{step}", wide, wide, kernel)
            for step in range(6):
                found += (
                    Tensor(f"{block}.activations.{step}.act.alpha", (wide,), "other"),
                    Tensor(f"{block}.activations.{step}.act.beta", (wide,), "other"),
                )
    last = first >> len(up)
    found += (
        Tensor(f"{name}.activation_post.act.alpha", (last,), "other"),
        Tensor(f"{name}.activation_post.act.beta", (last,), "other"),
        *_convolution(f"{name}.conv_post", 1, last, _SEPARABLE, bias=False),
    )
    return Part("speech", found)


def _thinker(fields: Fields, prefix: str = "") -> Model:
    inner = fields.sub("text_config").changed(model_type="qwen2")
    text = text_of(fields, inner, f"{prefix}model.language_model.", "", tied=False, given=_TEXT)
    queries = ("attn.q", "attn.k", "attn.v")
    shape, *parts = qwen2_5_tower(fields.sub("vision_config"), f"{prefix}model.visual", queries=queries)
    sound = _audio(fields.sub("audio_config"), f"{prefix}model.audio_tower")
    whole = with_tower(text, "qwen2_5_omni_thinker", shape, *parts, sound)
    return headed(whole, prefix) if prefix else whole


def _omni(fields: Fields) -> Model:
    thinker = _thinker(fields.sub("thinker_config"), "thinker.")
    parts = thinker.parts
    if fields.boolean("enable_audio_output", default=True):
        wave = fields.sub("token2wav_config")
        parts += (
            _talker(fields.sub("talker_config"), "talker"),
            _diffusion(wave.sub("dit_config"), "token2wav.code2wav_dit_model"),
            _vocoder(wave.sub("bigvgan_config"), "token2wav.code2wav_bigvgan_model"),
        )
    return replace(thinker, architecture="qwen2_5_omni", parts=parts)


BUILDERS = {"qwen2_5_omni": _omni, "qwen2_5_omni_thinker": _thinker}
