"""Decoders of Llama's skeleton: rotary positions, query, key, value and output matrices, an MLP beside or after.

Source: modeling_llama.py, modeling_mistral.py, modeling_qwen2.py, modeling_qwen3.py and modeling_phi.py under
https://github.com/huggingface/transformers/tree/v5.23.0/src/transformers/models/
"""

from vlmmem.architectures.blocks import Shape, decoder, embedding, linear, norm, read_shape
from vlmmem.architectures.fields import Fields
from vlmmem.layers import Layer, Tensor
from vlmmem.model import Model

__all__ = ["BUILDERS"]


def attention(shape: Shape, *, bias: bool = False, output_bias: bool = False) -> tuple[Tensor, ...]:
    """Query, key, value and output matrices."""
    hidden = shape.hidden_size
    return (
        *linear("self_attn.q_proj", shape.queries, hidden, "outputs", bias=bias),
        *linear("self_attn.k_proj", shape.keys, hidden, "kv", bias=bias),
        *linear("self_attn.v_proj", shape.keys, hidden, "kv", bias=bias),
        *linear("self_attn.o_proj", hidden, shape.queries, "inputs", bias=output_bias),
    )


def gated_mlp(hidden: int, wide: int, *, bias: bool = False, name: str = "mlp") -> tuple[Tensor, ...]:
    """Gate, up and down matrices."""
    return (
        *linear(f"{name}.gate_proj", wide, hidden, "outputs", bias=bias),
        *linear(f"{name}.up_proj", wide, hidden, "outputs", bias=bias),
        *linear(f"{name}.down_proj", hidden, wide, "inputs", bias=bias),
    )


def norms(shape: Shape) -> tuple[Tensor, ...]:
    """The two norms of a layer."""
    return (*norm("input_layernorm", shape.hidden_size), *norm("post_attention_layernorm", shape.hidden_size))


def ends(shape: Shape, prefix: str, head: str = "lm_head") -> tuple[Tensor, ...]:
    """Embedding, last norm and, where it is not tied, the output head."""
    found = (
        *embedding(f"{prefix}embed_tokens", shape.vocab_size, shape.hidden_size),
        *norm(f"{prefix}norm", shape.hidden_size),
    )
    return found if shape.tied_embeddings else (*found, *embedding(head, shape.vocab_size, shape.hidden_size, "head"))


def _uniform(shape: Shape, prefix: str, tensors: tuple[Tensor, ...], window: int | None = None) -> Model:
    layer = Layer("full" if window is None else "sliding", tensors, (shape.cache(window),))
    return decoder(shape, (layer,) * shape.layers, ends(shape, prefix), f"{prefix}layers")


def _llama(fields: Fields, prefix: str = "model.") -> Model:
    # LlamaConfig's defaults: LLaVA-1.5's config leaves its text model's shape to them
    defaults = {
        "layers": 32,
        "hidden_size": 4096,
        "heads": 32,
        "intermediate_size": 11008,
        "vocab_size": 32000,
        "max_positions": 2048,
    }
    shape = read_shape(fields, "llama", defaults)
    bias = fields.boolean("attention_bias")
    mlp = gated_mlp(shape.hidden_size, shape.intermediate_size, bias=fields.boolean("mlp_bias"))
    return _uniform(shape, prefix, (*attention(shape, bias=bias, output_bias=bias), *mlp, *norms(shape)))


def window_of(fields: Fields, default: int | None = None) -> int | None:
    """The sliding window; missing takes the class's default, null, 0 and -1 mean none."""
    if not fields.has("sliding_window"):
        return default
    found = fields.raw("sliding_window")
    return None if found in (None, 0, -1) else fields.integer("sliding_window")


def _mistral(fields: Fields, prefix: str = "model.") -> Model:
    defaults = {
        "layers": 32,
        "hidden_size": 4096,
        "heads": 32,
        "kv_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 32000,
        "max_positions": 4096 * 32,
    }
    shape = read_shape(fields, "mistral", defaults)
    mlp = gated_mlp(shape.hidden_size, shape.intermediate_size)
    return _uniform(shape, prefix, (*attention(shape), *mlp, *norms(shape)), window_of(fields, 4096))


def _layer_windows(fields: Fields, layers: int) -> list[int | None]:
    """The window of each layer of Qwen2 and Qwen3: off unless `use_sliding_window`, then above `max_window_layers`."""
    if not fields.boolean("use_sliding_window"):
        return [None] * layers
    window = window_of(fields, 4096)
    types = fields.texts("layer_types", length=layers)
    if types is not None:
        return [window if kind == "sliding_attention" else None for kind in types]
    first = fields.integer("max_window_layers", 28, least=0)
    return [window if index >= first else None for index in range(layers)]


def _qwen(fields: Fields, prefix: str, kind: str) -> Model:
    defaults: dict[str, object] = {
        "layers": 32,
        "hidden_size": 4096,
        "heads": 32,
        "kv_heads": 32,
        "intermediate_size": 22016,
        "vocab_size": 151936,
        "max_positions": 32768,
    }
    if kind == "qwen3":
        defaults["head_dim"] = 128
    shape = read_shape(fields, kind, defaults)
    tensors = (*gated_mlp(shape.hidden_size, shape.intermediate_size), *norms(shape))
    if kind == "qwen2":
        tensors = (*attention(shape, bias=True), *tensors)
    else:
        bias = fields.boolean("attention_bias")
        per_head = (*norm("self_attn.q_norm", shape.head_dim), *norm("self_attn.k_norm", shape.head_dim))
        tensors = (*attention(shape, bias=bias, output_bias=bias), *per_head, *tensors)
    windows = _layer_windows(fields, shape.layers)
    alike = {
        window: Layer("full" if window is None else "sliding", tensors, (shape.cache(window),))
        for window in set(windows)
    }
    return decoder(shape, [alike[window] for window in windows], ends(shape, prefix), f"{prefix}layers")


def _qwen2(fields: Fields, prefix: str = "model.") -> Model:
    return _qwen(fields, prefix, "qwen2")


def _qwen3(fields: Fields, prefix: str = "model.") -> Model:
    return _qwen(fields, prefix, "qwen3")


def _phi(fields: Fields, prefix: str = "model.") -> Model:
    defaults = {
        "layers": 24,
        "hidden_size": 2048,
        "heads": 32,
        "intermediate_size": 8192,
        "vocab_size": 51200,
        "max_positions": 2048,
        "activation": "gelu_new",
    }
    shape = read_shape(fields, "phi", defaults)
    hidden, wide = shape.hidden_size, shape.intermediate_size
    tensors = (
        *linear("self_attn.q_proj", shape.queries, hidden, "outputs", bias=True),
        *linear("self_attn.k_proj", shape.keys, hidden, "kv", bias=True),
        *linear("self_attn.v_proj", shape.keys, hidden, "kv", bias=True),
        *linear("self_attn.dense", hidden, shape.queries, "inputs", bias=True),
        *linear("mlp.fc1", wide, hidden, "outputs", bias=True),
        *linear("mlp.fc2", hidden, wide, "inputs", bias=True),
        # attention and MLP run side by side on one normalised input
        *norm("input_layernorm", hidden, bias=True),
    )
    if fields.boolean("qk_layernorm"):
        tensors += (*norm("self_attn.q_layernorm", shape.head_dim, bias=True),)
        tensors += (*norm("self_attn.k_layernorm", shape.head_dim, bias=True),)
    outside = (
        *embedding(f"{prefix}embed_tokens", shape.vocab_size, hidden),
        *norm(f"{prefix}final_layernorm", hidden, bias=True),
        *(() if shape.tied_embeddings else embedding("lm_head", shape.vocab_size, hidden, "head")),
        Tensor("lm_head.bias", (shape.vocab_size,), "bias", "vocabulary"),
    )
    layer = Layer("full", tensors, (shape.cache(),))
    return decoder(shape, (layer,) * shape.layers, outside, f"{prefix}layers")


BUILDERS = {"llama": _llama, "mistral": _mistral, "qwen2": _qwen2, "qwen3": _qwen3, "phi": _phi}
