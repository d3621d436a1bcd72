"""The peak of real forward passes, asked of transformers and PyTorch without weights and without a GPU.

Called by tools/oracle.py in the oracle's own environment; tests/test_activations.py compares the closed
forms of `vlmmem.memory.activations` with the answers.

How a case is measured: the model is built from its shapes under `FakeTensorMode`, where every operation runs
on tensors that have a shape, a dtype and a storage size but no memory. A dispatch mode sees each operation
and enters the storages of its results; a weak reference takes a storage out when Python frees it. The sum is
what is live, its largest value the peak. Weights, buffers, input ids and the empty cache object are there
before the pass and are not counted. Layers differ only in the KV cache that they leave behind, so two are
built; the cases with every layer show that nothing else grows with their number.
"""

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensorMode

from tools.oracle_configs import catalogue_configs, changed
from vlmmem.documented import documented_models
from vlmmem.measured.harness.network import default_dtype
from vlmmem.measured.harness.storages import ELSEWHERE, LiveStorages

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LAYERS = 2

# Where a moment happens: names of modules in the last decoder layer, by family, and of the output head.
MOMENTS = {
    "self_attn": "attention",
    "attn": "attention",
    "input_layernorm": "normalisation",
    "post_attention_layernorm": "normalisation",
    "self_attn_layer_norm": "normalisation",
    "final_layer_norm": "normalisation",
    "ln_1": "normalisation",
    "ln_2": "normalisation",
    "mlp": "mlp",
    "fc1": "mlp",
    "activation_fn": "mlp",
    "fc2": "mlp",
}

# The dense decoders for which vlmmem.memory.activations has closed forms.
MODELS = (
    *(model.id for model in documented_models()),
    "qwen3-8b",
    "granite-3.3-8b",
    "phi-4",
    "mixtral-8x7b",
    "qwen3-30b-a3b",
    "qwen2-vl-7b",
    "qwen2.5-vl-7b",
    "qwen3-vl-8b",
    "seed-oss-36b",
    "smollm3-3b",
    "mistral-small-3.1-24b",
    "idefics3-8b",
)

# Tokens of each sequence, sequences. Families with learned positions stop at the table's end.
PREFILLS = ((1, 1), (16, 10), (512, 4), (4096, 1), (8192, 10))
ALL_LOGITS = ((2048, 10),)
DECODES = ((2048, 10),)
LONGEST_LEARNED = (2048, 4)
# Tokens of each sequence, sequences, logits, images in all.
WITH_IMAGES = ((576, 1, "last", 1), (600, 4, "last", 4), (2048, 2, "all", 3))

# Shapes that no published model has, in which moments that the catalogue's wide MLPs hide become the peak.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "large vocabulary": ("llama-2-7b", {"heads": 4, "kv_heads": 2, "head_dim": 16, "vocab_size": 1000}),
    "narrow MLP": ("llama-2-7b", {"heads": 4, "kv_heads": 4, "head_dim": 16, "intermediate_size": 16}),
    "wide queries": ("llama-2-7b", {"heads": 8, "kv_heads": 1, "head_dim": 32, "intermediate_size": 16}),
    "wide keys": ("llama-2-7b", {"heads": 8, "kv_heads": 8, "head_dim": 32, "intermediate_size": 16}),
    "narrow attention": (
        "llama-2-7b",
        {"hidden_size": 256, "heads": 2, "kv_heads": 1, "head_dim": 32, "intermediate_size": 16},
    ),
    "window": ("mistral-7b", {"heads": 4, "kv_heads": 2, "head_dim": 16, "sliding_window": 16}),
    "window, one KV head": ("mistral-7b", {"heads": 4, "kv_heads": 1, "head_dim": 16, "sliding_window": 16}),
    "window, all KV heads": ("mistral-7b", {"heads": 4, "kv_heads": 4, "head_dim": 16, "sliding_window": 16}),
    "narrow opt": ("opt-30b", {"heads": 4, "kv_heads": 4, "head_dim": 16, "intermediate_size": 40}),
    "narrow gpt2": ("gpt-3-175b", {"heads": 4, "kv_heads": 4, "head_dim": 16, "intermediate_size": 16}),
    "narrow phi": (
        "phi-2",
        {"hidden_size": 160, "heads": 2, "kv_heads": 2, "head_dim": 80, "intermediate_size": 16},
    ),
    "normed heads": ("qwen3-8b", {"heads": 8, "kv_heads": 2, "head_dim": 32, "intermediate_size": 16}),
    "normed heads, none shared": ("qwen3-8b", {"heads": 8, "kv_heads": 8, "head_dim": 32, "intermediate_size": 16}),
    "normed heads, narrow": ("qwen3-8b", {"heads": 2, "kv_heads": 1, "head_dim": 8, "intermediate_size": 16}),
    "scaled logits": ("granite-3.3-8b", {"heads": 4, "kv_heads": 2, "vocab_size": 1000}),
    "fused": ("phi-4", {"heads": 4, "kv_heads": 4, "intermediate_size": 16}),
    "fused, shared keys": ("phi-4", {"heads": 4, "kv_heads": 1, "intermediate_size": 16}),
    "fused, narrow MLP": ("phi-4", {"heads": 4, "kv_heads": 1, "intermediate_size": 60}),
    "narrow experts": ("mixtral-8x7b", {"heads": 4, "kv_heads": 2, "head_dim": 16, "intermediate_size": 16}),
    "normed heads, experts": ("qwen3-30b-a3b", {"heads": 4, "kv_heads": 2, "head_dim": 16}),
}
SMALL = {"hidden_size": 64, "intermediate_size": 160, "vocab_size": 100}
SMALL_PREFILLS = ((1, 3), (15, 3), (16, 1), (33, 2))
SMALL_ALL_LOGITS = ((33, 2),)
SMALL_DECODES = ((2, 1), (15, 3))


@dataclass(frozen=True)
class Case:
    """One forward pass: a catalogue model with changed shapes, and its workload.

    `context` counts the tokens of a sequence after the pass: all of them in a prefill, the cached ones and
    the new one in a decode step.
    """

    model: str
    shapes: dict[str, Any]
    step: str
    context: int
    batch: int
    logits: str = "last"
    dtype: str = "bf16"
    images: int = 0


def cases() -> Iterator[Case]:
    """Every case, models in the catalogue's order."""
    configs = catalogue_configs()
    for model in MODELS:
        own = {"layers": LAYERS}
        # GPT-2 calls them n_positions
        positions = {"gpt2": "n_positions", "opt": "max_position_embeddings"}.get(configs[model]["model_type"])
        prefills = [pair for pair in PREFILLS if positions is None or pair[0] <= configs[model][positions]]
        yield from _workloads(model, own, [*prefills, LONGEST_LEARNED] if positions else prefills, ALL_LOGITS, DECODES)
    for model_id, changes in SHAPES.values():
        own = {"layers": LAYERS, **SMALL, **changes}
        yield from _workloads(model_id, own, SMALL_PREFILLS, SMALL_ALL_LOGITS, SMALL_DECODES)
    for family in ("llama-2-7b", "opt-30b", "gpt-3-175b", "phi-2"):
        yield Case(family, {"layers": LAYERS}, "prefill", 512, 4, dtype="fp16")
        yield Case(family, {"layers": LAYERS}, "decode", 512, 4, dtype="fp16")
    for every_layer, context, batch in (("llama-2-13b", 8192, 10), ("opt-30b", 2048, 4), ("phi-2", 2048, 4)):
        yield Case(every_layer, {}, "prefill", context, batch)
    yield Case("llama-3.1-8b", {}, "decode", 8192, 10)
    for model_id in ("llava-1.5-7b", "llava-1.5-13b"):
        for context, batch, logits, images in WITH_IMAGES:
            yield Case(model_id, {"layers": LAYERS}, "prefill", context, batch, logits=logits, images=images)
    yield Case("llava-1.5-7b", {}, "prefill", 600, 4, images=4)


def _workloads(
    model: str,
    shapes: dict[str, Any],
    prefills: Iterable[tuple[int, int]],
    all_logits: Iterable[tuple[int, int]],
    decodes: Iterable[tuple[int, int]],
) -> Iterator[Case]:
    for context, batch in prefills:
        yield Case(model, shapes, "prefill", context, batch)
    for context, batch in all_logits:
        yield Case(model, shapes, "prefill", context, batch, logits="all")
    for context, batch in decodes:
        yield Case(model, shapes, "decode", context, batch)


class Network:
    """A model without weights, ready for forward passes."""

    def __init__(self, config: dict[str, Any], dtype: str) -> None:
        """Build the class that transformers has for a config."""
        fields = dict(config)
        if fields["model_type"] == "phi":
            # phi-2's own config; the class's default is another.
            fields["partial_rotary_factor"] = 0.4
        if fields["model_type"] == "phi3":
            # The class's own stands beyond a small vocabulary.
            fields["pad_token_id"] = 0
        self.config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
        text_only = "vision_config" not in config
        kind = transformers.AutoModelForCausalLM if text_only else transformers.AutoModelForImageTextToText
        self.fake = FakeTensorMode()
        with self.fake, default_dtype(DTYPES[dtype]):
            self.network = kind.from_config(self.config, attn_implementation="sdpa", dtype=DTYPES[dtype])
        self.network.eval()
        self.live = LiveStorages(())
        # What a family makes of its logits belongs to them, too.
        self._watch(self.network.lm_head, "logits", "logits")
        for name, module in self._last_layer().named_children():
            if name in MOMENTS:
                self._watch(module, MOMENTS[name])

    def _last_layer(self) -> torch.nn.Module:
        """The last layer of the decoder: the list of layers that stands last among the modules."""
        layers: torch.nn.ModuleList | None = None
        for module in self.network.get_decoder().modules():
            if isinstance(module, torch.nn.ModuleList):
                layers = module
        if layers is None:
            raise ValueError(f"{type(self.network).__name__} has no list of layers")
        last: torch.nn.Module = layers[-1]
        return last

    def _watch(self, module: torch.nn.Module, window: str, afterwards: str = ELSEWHERE) -> None:
        """Count what is live inside `module` under the name `window`, and what comes then under another."""

        def enter(*_: Any) -> None:
            self.live.window = window

        def leave(*_: Any) -> None:
            self.live.window = afterwards

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)

    def measure(self, case: Case) -> dict[str, Any]:
        """Bytes over the weights: the KV cache after the pass, the peak, and the most in each moment."""
        first = case.context - 1 if case.step == "decode" else case.context
        keep = 0 if case.logits == "all" else 1
        with self.fake, torch.no_grad():
            cache = transformers.DynamicCache(config=self.config)
            prompt = torch.ones((case.batch, first), dtype=torch.long)
            token = torch.ones((case.batch, 1), dtype=torch.long)
            images = self._pixels(case.images) if case.images else {}
            given = [prompt, token, *images.values()]
            there_before = [*given, *self.network.parameters(), *self.network.buffers()]
            for layer in cache.layers:
                there_before += [value for value in vars(layer).values() if isinstance(value, torch.Tensor)]
            self.live = LiveStorages(there_before)
            with self.live:
                self._run(prompt, cache, keep, **images)
                if case.step == "decode":
                    self.live.peaks.clear()
                    self.live.window = ELSEWHERE
                    self._run(token, cache, keep)
            held = [part.untyped_storage().nbytes() for layer in cache.layers for part in (layer.keys, layer.values)]
        peaks = self.live.peaks
        return {
            "kv_bytes": sum(held),
            "peak_bytes": max(peaks.values()),
            "moments": {name: peak for name, peak in sorted(peaks.items()) if name != ELSEWHERE},
        }

    def _pixels(self, images: int) -> dict[str, torch.Tensor]:
        """Images of the size that the tower takes."""
        tower = self.config.vision_config
        shape = (images, tower.num_channels, tower.image_size, tower.image_size)
        return {"pixel_values": torch.zeros(shape, dtype=self.network.dtype)}

    def _run(self, ids: torch.Tensor, cache: Any, keep: int, **images: torch.Tensor) -> None:
        self.network(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=keep, **images)


def _measured(group: list[Case]) -> list[dict[str, Any]]:
    """Cases of one network, with what was measured."""
    network = Network(changed(catalogue_configs()[group[0].model], group[0].shapes), group[0].dtype)
    return [{**asdict(case), **network.measure(case)} for case in group]


def answers() -> dict[str, Any]:
    """Every case with what was measured."""
    # transformers compares the counts of image tokens and of image features; these ids have no values.
    os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] = "1"
    groups = [list(group) for _, group in groupby(cases(), lambda case: (case.model, case.shapes, case.dtype))]
    # Forked, so that PyTorch and transformers are imported once; the answers keep the order of the cases.
    with multiprocessing.get_context("fork").Pool() as pool:
        return {"cases": [answer for found in pool.map(_measured, groups, chunksize=1) for answer in found]}
