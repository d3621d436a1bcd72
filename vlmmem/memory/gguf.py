"""Memory of weights in a GGUF file, where one file mixes several block formats.

llama.cpp's `Q4_K_M` and its like are no formats but rules: which tensor gets which block format, by what it
does and by its layer. Norms, biases and routers stay in 32 bits.
"""

from fractions import Fraction
from functools import cache

from vlmmem.catalog import find_model
from vlmmem.errors import InputError
from vlmmem.layers import Tensor
from vlmmem.model import Model
from vlmmem.record import record

__all__ = [
    "CHECKED",
    "MIXTURES",
    "Mixture",
    "Step",
    "block_bits",
    "check_mixture",
    "gguf_weights_bytes",
    "tensor_type",
]

CHECKED = (
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma3_text", "gemma3",
    "llava", "llava_next", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "mistral3",
)  # fmt: skip
"""Families whose tensors llama.cpp names as the rule expects: checked against published files of their decoders."""

_HEAD = "Q6_K"
_WIDER = {
    "Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL",
}  # fmt: skip
"""What a tensor gets whose rows are no multiple of the 256 weights of a block: a format with blocks of 32."""

_ROLES = {
    "v_proj": "value",
    "k_proj": "key",
    "o_proj": "output",
    "down_proj": "down",
}
"""Matrices that a rule tells apart, by the last word of their name; the others are in the mixture's base."""

_EIGHT = 8
"""The number of experts for which the rule has exceptions of its own: Mixtral's."""


@record(frozen=True, slots=True)
class Step:
    """A better format for some layers.

    `layers` is "all", "spread" (the first and the last eighth and every third between), or the first few: "4" of them,
    or a share such as "1/8". `shared` means only where four heads or more share a KV head.
    """

    better: str
    layers: str = "all"
    shared: bool = False

    def covers(self, layer: int, layers: int) -> bool:
        """Whether the step is taken in that layer of `layers`."""
        if self.layers == "all":
            return True
        if self.layers == "spread":
            eighth = layers // 8
            return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
        share, _, parts = self.layers.partition("/")
        return layer < (layers // int(parts) if parts else int(share))


@record(frozen=True, slots=True)
class Mixture:
    """One of llama.cpp's mixtures.

    Every matrix is in `base`, but for those of a role that has steps; the first step that covers a layer is taken.
    `eight` is the format of output matrices beside eight experts, or "".
    """

    base: str
    value: tuple[Step, ...] = ()
    down: tuple[Step, ...] = ()
    output: tuple[Step, ...] = ()
    eight: str = ""


_SPREAD = (Step("Q6_K", "spread"),)
_SHARED = (Step("Q5_K", shared=True),)
_FIRST = (Step("Q5_K", "1/8"),)

MIXTURES = {
    "q2_k_s": Mixture("Q2_K", (Step("Q4_K", shared=True),), (Step("Q4_K", "1/8"),)),
    "q2_k": Mixture("Q2_K", (Step("Q4_K", shared=True), Step("Q3_K")), (Step("Q3_K"),), (Step("Q3_K"),), "Q5_K"),
    "q3_k_s": Mixture("Q3_K", eight="Q5_K"),
    "q3_k_m": Mixture(
        "Q3_K",
        (Step("Q5_K", "2"), Step("Q4_K")),
        (Step("Q5_K", "1/16"), Step("Q4_K")),
        (Step("Q4_K"),),
        "Q5_K",
    ),
    "q3_k_l": Mixture("Q3_K", (Step("Q5_K"),), (Step("Q5_K"),), (Step("Q5_K"),), "Q3_K"),
    "q4_0": Mixture("Q4_0"),
    "q4_1": Mixture("Q4_1"),
    "q4_k_s": Mixture("Q4_K", (Step("Q5_K", "4"),), _FIRST, eight="Q5_K"),
    "q4_k_m": Mixture("Q4_K", _SPREAD, _SPREAD, eight="Q5_K"),
    "iq4_nl": Mixture("IQ4_NL", _SHARED, _FIRST, eight="Q5_K"),
    "iq4_xs": Mixture("IQ4_XS", _SHARED, _FIRST, eight="Q5_K"),
    "q5_0": Mixture("Q5_0"),
    "q5_1": Mixture("Q5_1"),
    "q5_k_s": Mixture("Q5_K"),
    "q5_k_m": Mixture("Q5_K", _SPREAD, _SPREAD),
    "q6_k": Mixture("Q6_K"),
    "q8_0": Mixture("Q8_0"),
}
"""The mixtures by llama.cpp's name, in lower case, as they are without an importance matrix: with one, Q4_0, Q4_1,
Q5_0, Q5_1, IQ4_NL and IQ4_XS differ in the first layers by half a percent or less."""


def tensor_type(model: Model, mixture: str, tensor: Tensor, layer: int | None = None) -> str:
    """The GGUF type of one matrix of the language model in a mixture; "F32" for what is not quantised.

    Args:
        model: the model.
        mixture: the mixture's name, in lower case.
        tensor: the tensor.
        layer: the decoder's layer in which it stands, or None.

    >>> model = find_model("llama-3.1-8b")
    >>> down = next(tensor for tensor in model.decoder.layers[0].tensors if "down" in tensor.name)
    >>> tensor_type(model, "q4_k_m", down, 0), tensor_type(model, "q4_k_m", down, 5)
    ('Q6_K', 'Q4_K')
    """
    rule = MIXTURES[mixture]
    form = rule.base
    if tensor.kind == "head" or (tensor.kind == "embedding" and model.tied_embeddings):
        if form != "Q8_0":
            form = _HEAD
    elif tensor.kind not in ("embedding", "linear", "expert"):
        return "F32"
    elif layer is not None:
        role = _ROLES.get(tensor.name.removesuffix(".weight").rpartition(".")[2])
        form = _role_type(model, rule, role, layer)
    if tensor.inputs % _blocks()[form][0]:
        form = _WIDER.get(form, form)
    return form if tensor.inputs % _blocks()[form][0] == 0 else "F16"


def _role_type(model: Model, rule: Mixture, role: str | None, layer: int) -> str:
    eight = model.experts == _EIGHT
    if eight and role in ("value", "key"):
        return "Q8_0"
    if eight and role == "output":
        return rule.eight or rule.base
    steps = {None: (), "key": (), "value": rule.value, "down": rule.down, "output": rule.output}[role]
    shared = model.heads >= 4 * model.kv_heads
    form = next(
        (step.better for step in steps if step.covers(layer, model.layers) and (shared or not step.shared)), rule.base
    )
    # Where eight heads share a value matrix it is small, and a step up costs little: llama.cpp takes it for "70B".
    raised = role == "value" and model.layers == 80 and model.kv_heads < model.heads
    return "Q5_K" if raised and form in ("Q3_K", "Q4_K") else form


@cache
def _blocks() -> dict[str, tuple[int, int]]:
    """Weights and bytes of a block of each GGUF type."""
    from vlmmem.readers.gguf import block_types

    return {found.name: (found.block, found.bytes) for found in block_types().values()}


def gguf_weights_bytes(model: str | Model, mixture: str) -> dict[str, int]:
    """Bytes of the tensors of a GGUF file by part; vision tower and projector stand beside it in 16 bits (mmproj).

    The header with its vocabulary is not in it (some megabytes).

    Args:
        model: a model of a LLaMA, Mistral, Mixtral, Qwen or Gemma 3 decoder, or its name.
        mixture: "Q4_K_M", "Q4_K_S" or another of llama.cpp's, in any case.

    Raises:
        InputError: the mixture is not one of these, or the decoder is of another family: its rule was not checked.

    Source: llama.cpp, src/llama-quant.cpp, llama_tensor_get_type_impl (commit 007dbbf3); its own table for
    Llama-3.1 8B (tools/quantize/README.md, commit 311c2c9f) prints 4.8944 bits a weight for Q4_K_M.

    >>> gguf_weights_bytes("llama-3.1-8b", "Q4_K_M")
    {'language': 4912898048}
    """
    model = find_model(model) if isinstance(model, str) else model
    name = check_mixture(model, mixture)
    found: dict[str, int] = {}
    for part in model.parts:
        if part.name != "language":
            found[part.name] = found.get(part.name, 0) + 2 * part.parameters
            continue
        size = sum(_bytes(tensor, tensor_type(model, name, tensor)) for tensor in part.tensors)
        for index, layer in enumerate(part.layers):
            size += sum(_bytes(tensor, tensor_type(model, name, tensor, index)) for tensor in layer.tensors)
        found[part.name] = found.get(part.name, 0) + size
    return found


def check_mixture(model: Model, mixture: str) -> str:
    """The mixture's name in lower case.

    Raises:
        InputError: there is no such mixture, or its rule was not checked for the model's family.
    """
    name = mixture.lower()
    if name not in MIXTURES:
        raise InputError(f"gguf: mixture {mixture!r} is not known; one of {', '.join(MIXTURES)} is needed")
    if model.architecture not in CHECKED:
        raise InputError(
            f"{model.id}: the decoder is of the family {model.architecture!r}; the rule is checked for"
            f" {', '.join(CHECKED)}"
        )
    return name


def block_bits(form: str) -> Fraction:
    """Bits of a weight in a GGUF type, with its share of its block's scales.

    >>> block_bits("Q4_K")
    Fraction(9, 2)
    """
    weights, size = _blocks()[form]
    return Fraction(8 * size, weights)


def _bytes(tensor: Tensor, form: str) -> int:
    weights, size = _blocks()[form]
    return tensor.parameters // weights * size
