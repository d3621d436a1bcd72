"""The floating-point operations of real forward passes, counted by PyTorch on the meta device: no weights, no GPU.

Called by tools/oracle.py in the oracle's own environment; tests/test_roofline.py compares `vlmmem.roofline` with the
answers. `FlopCounterMode` counts the products of matrices that the transformers class really calls, two operations for
each multiplication and addition. Attention is the class's own ("eager"), which multiplies every pair of tokens and
masks afterwards. The rotary angles are a product of matrices in transformers; they are counted apart.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from tools.oracle_configs import catalogue_configs, changed
from vlmmem.documented import documented_models

LAYERS = 2
PREFILLS = ((48, 3, "last"), (1024, 1, "all"))
DECODES = ((512, 2),)


@dataclass(frozen=True)
class Case:
    """One forward pass of a model's decoder, with `layers` layers."""

    model: str
    layers: int
    step: str
    context: int
    batch: int
    logits: str = "last"


def cases() -> Iterator[Case]:
    """Every case; the models are those that the documents name."""
    for model in (each.id for each in documented_models()):
        for context, batch, logits in PREFILLS:
            yield Case(model, LAYERS, "prefill", context, batch, logits)
        for context, batch in DECODES:
            yield Case(model, LAYERS, "decode", context, batch)
    yield Case("llama-3.1-8b", catalogue_configs()["llama-3.1-8b"]["num_hidden_layers"], "prefill", 16, 2)


def _network(case: Case) -> tuple[Any, Any]:
    """The decoder that transformers builds for a case's shapes, and its config."""
    config = changed(catalogue_configs()[case.model], {"layers": case.layers})
    # of a vision-language model, the decoder alone
    fields = {"model_type": "llama", **config.get("text_config", config)}
    config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval(), config


def _count(case: Case, network: Any, config: Any) -> int:
    """FLOP of the pass, rotary angles left out."""
    cached = case.context - 1 if case.step == "decode" else 0
    cache = transformers.DynamicCache(config=config)
    if cached:
        network(input_ids=torch.ones((case.batch, cached), dtype=torch.long), past_key_values=cache)
    new = torch.ones((case.batch, case.context - cached), dtype=torch.long)
    counter = FlopCounterMode(display=False)
    with counter:
        network(input_ids=new, past_key_values=cache, logits_to_keep=1 if case.logits == "last" else 0)
    angles = sum(sum(flops.values()) for name, flops in counter.get_flop_counts().items() if "rotary_emb" in name)
    return int(counter.get_total_flops()) - int(angles)


def _counted(group: list[Case]) -> list[dict[str, Any]]:
    """Cases of one network, with what was counted."""
    with torch.device("meta"), torch.no_grad():
        network, config = _network(group[0])
        return [{**asdict(case), "flops": _count(case, network, config)} for case in group]


def answers() -> dict[str, Any]:
    """Every case with what was counted."""
    # One after the other: a pool's processes would each import transformers' models, which takes longer than to count.
    groups = groupby(cases(), lambda case: (case.model, case.layers))
    return {"cases": [answer for _, group in groups for answer in _counted(list(group))]}
