"""The terms of a model's memory, one module a term: pure functions that take counts and give bytes."""

from vlmmem.memory.activations import (
    decode_moments,
    decode_peak_bytes,
    forward_moments,
    forward_peak_bytes,
    likely_peak_bytes,
    likely_peak_error,
    overhead_rule_bytes,
    per_layer_rule_bytes,
    prefill_peaks,
)
from vlmmem.memory.attention import (
    attention_benchmark_bytes,
    attention_scores_bytes,
    attention_statistics_bytes,
)
from vlmmem.memory.gguf import gguf_weights_bytes
from vlmmem.memory.kv_cache import (
    CacheSizes,
    cache_sizes,
    cached_tokens,
    kv_bytes_per_token,
    kv_cache_bytes,
    kv_growth,
    kv_heads_per_rank,
    state_bytes_per_sequence,
)
from vlmmem.memory.paging import blocks_needed, last_block_waste, power_of_two, reserved_slots, shared_blocks
from vlmmem.memory.runtime import runtime_allowance, runtime_bytes
from vlmmem.memory.training import (
    best_checkpoint_interval,
    checkpointed_bytes,
    gpt_layer_activations_bytes,
    layer_activations_bytes,
    layer_input_bytes,
)
from vlmmem.memory.vision import (
    encoder_cache_bytes,
    encoder_moments,
    encoder_peak_bytes,
    image_kv_bytes,
    pixel_bytes,
)
from vlmmem.memory.weights import checkpoint_bytes, model_weights_bytes, weights_bytes

__all__ = [
    "CacheSizes",
    "attention_benchmark_bytes",
    "attention_scores_bytes",
    "attention_statistics_bytes",
    "best_checkpoint_interval",
    "blocks_needed",
    "cache_sizes",
    "cached_tokens",
    "checkpoint_bytes",
    "checkpointed_bytes",
    "decode_moments",
    "decode_peak_bytes",
    "encoder_cache_bytes",
    "encoder_moments",
    "encoder_peak_bytes",
    "forward_moments",
    "forward_peak_bytes",
    "gguf_weights_bytes",
    "gpt_layer_activations_bytes",
    "image_kv_bytes",
    "kv_bytes_per_token",
    "kv_cache_bytes",
    "kv_growth",
    "kv_heads_per_rank",
    "last_block_waste",
    "layer_activations_bytes",
    "layer_input_bytes",
    "likely_peak_bytes",
    "likely_peak_error",
    "model_weights_bytes",
    "overhead_rule_bytes",
    "per_layer_rule_bytes",
    "pixel_bytes",
    "power_of_two",
    "prefill_peaks",
    "reserved_slots",
    "runtime_allowance",
    "runtime_bytes",
    "shared_blocks",
    "state_bytes_per_sequence",
    "weights_bytes",
]
