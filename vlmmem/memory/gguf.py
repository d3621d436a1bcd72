"""Memory of weights in a GGUF file, where one file mixes several block formats.

llama.cpp's `Q4_K_M` and its like are no formats but rules: which tensor gets which block format, by what it
does and by its layer. Norms and biases stay in 32 bits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from vlmmem.catalog import find_format, find_model
from vlmmem.errors import InputError
from vlmmem.model import Model

__all__ = ["MIXTURES", "Mixture", "gguf_weights_bytes"]

_OUTPUT = "q6_k"
_WIDER = {"q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0"}
"""What a tensor gets whose rows are no multiple of the 256 weights of a block: a format with blocks of 32."""
_CHECKED = ("llama", "mistral", "qwen2", "llava", "llava_next")


@dataclass(frozen=True, slots=True)
class Mixture:
    """One of llama.cpp's mixtures.

    Every matrix is in `base`, but for the output head and for the value and down matrices of some layers, which
    are in `better`: where `spread`, the first and the last eighth of the layers and every third between; else the
    first four (value) and the first eighth (down).
    """

    base: str
    better: str
    spread: bool

    def layer_format(self, name: str, layer: int, layers: int) -> str:
        """The format of a layer's matrix (`name` as in `Model.layer_linears`)."""
        eighth = layers // 8
        value = name.endswith("v_proj")
        if not value and not name.endswith("down_proj"):
            return self.base
        if self.spread:
            chosen = layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
        else:
            chosen = layer < (4 if value else eighth)
        return self.better if chosen else self.base


MIXTURES = {
    "q4_k_s": Mixture("q4_k", "q5_k", spread=False),
    "q4_k_m": Mixture("q4_k", "q6_k", spread=True),
    "q5_k_m": Mixture("q5_k", "q6_k", spread=True),
}
"""The mixtures by llama.cpp's name, in lower case."""


def gguf_weights_bytes(model: str | Model, mixture: str) -> dict[str, int]:
    """Bytes of the tensors of a GGUF file by part (`language`, and `vision` and `projector` in 16 bits beside it).

    The header with its vocabulary is not in it (some megabytes).

    Args:
        model: a model of a LLaMA, Mistral or Qwen2 decoder, or its name.
        mixture: "Q4_K_M", "Q4_K_S" or "Q5_K_M", in any case.

    Raises:
        InputError: the mixture is not one of these, or the decoder is of another family: its rule was not checked.

    Source: llama.cpp, src/llama-quant.cpp, llama_tensor_get_type_impl (commit 007dbbf3); its own table for
    Llama-3.1 8B (tools/quantize/README.md, commit 311c2c9f) prints 4.8944 bits a weight for Q4_K_M.

    >>> gguf_weights_bytes("llama-3.1-8b", "Q4_K_M")
    {'language': 4912898048}
    """
    model = find_model(model) if isinstance(model, str) else model
    rule = MIXTURES.get(mixture.lower())
    if rule is None:
        raise InputError(f"gguf: mixture {mixture!r} is not known; one of {', '.join(MIXTURES)} is needed")
    if model.architecture not in _CHECKED:
        raise InputError(
            f"{model.id}: the decoder is of the family {model.architecture!r}; the rule is checked for"
            f" {', '.join(_CHECKED)}"
        )
    parts = model.parameters_by_part
    matrices = list(_matrices(model, rule))
    bits = sum((weights * _bits(form, columns) for weights, columns, form in matrices), Fraction(0))
    rest = parts["language"] - sum(weights for weights, _, _ in matrices)
    other = {part: 2 * count for part, count in parts.items() if part != "language"}
    return {"language": ceil(bits / 8) + 4 * rest, **other}


def _matrices(model: Model, rule: Mixture) -> Iterator[tuple[int, int, str]]:
    """Every matrix: its weights, its columns and its format."""
    table = model.vocab_size * model.hidden_size
    yield table, model.hidden_size, _OUTPUT if model.tied_embeddings else rule.base
    if not model.tied_embeddings:
        yield table, model.hidden_size, _OUTPUT
    # Where eight heads share a value matrix it is small, and a step up costs little: llama.cpp takes it for "70B".
    raised = model.layers == 80 and model.kv_heads < model.heads
    for layer in range(model.layers):
        for linear in model.layer_linears:
            form = rule.layer_format(linear.name, layer, model.layers)
            if raised and linear.name.endswith("v_proj") and form == "q4_k":
                form = "q5_k"
            yield linear.rows * linear.columns, linear.columns, form


def _bits(form: str, columns: int) -> Fraction:
    return find_format(form if columns % 256 == 0 else _WIDER[form]).bits
