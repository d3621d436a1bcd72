"""GPU memory of language and vision-language models, and the verdicts on what documents print about it.

The names below are the whole public face. Each is imported when it is first used, so that ``import vlmmem`` costs
next to nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

_ROOMS = {
    "vlmmem.catalog": ("find_format", "find_gpu", "find_link", "find_model", "gpus", "links", "models"),
    "vlmmem.errors": ("InputError",),
    "vlmmem.footprint": ("Footprint", "estimate"),
    "vlmmem.capacity": ("Fit", "fewest_gpus", "fit"),
    "vlmmem.grid": ("Grid", "sweep"),
    "vlmmem.formats": ("Format",),
    "vlmmem.hardware": ("Gpu", "Link"),
    "vlmmem.images": (
        "ImageTokens",
        "Processor",
        "VideoTokens",
        "find_processor",
        "image_tokens",
        "processor_from_settings",
        "processors",
        "video_tokens",
    ),
    "vlmmem.documented": ("documented_models",),
    "vlmmem.ledger": ("figure", "figures", "readings"),
    "vlmmem.memory": (
        "attention_benchmark_bytes",
        "attention_scores_bytes",
        "attention_statistics_bytes",
        "best_checkpoint_interval",
        "blocks_needed",
        "checkpoint_bytes",
        "checkpointed_bytes",
        "decode_peak_bytes",
        "encoder_cache_bytes",
        "encoder_moments",
        "encoder_peak_bytes",
        "forward_moments",
        "forward_peak_bytes",
        "gpt_layer_activations_bytes",
        "image_kv_bytes",
        "kv_bytes_per_token",
        "kv_cache_bytes",
        "kv_growth",
        "last_block_waste",
        "layer_activations_bytes",
        "layer_input_bytes",
        "overhead_rule_bytes",
        "per_layer_rule_bytes",
        "pixel_bytes",
        "power_of_two",
        "reserved_slots",
        "shared_blocks",
        "state_bytes_per_sequence",
        "weights_bytes",
    ),
    "vlmmem.model": ("Model", "VisionTower"),
    "vlmmem.readers": ("open_model",),
    "vlmmem.roofline": (
        "ForwardPass",
        "attainable_flops",
        "compute_bound_batch",
        "decode_step",
        "least_seconds",
        "prefill",
        "ridge_point",
        "transfer_seconds",
        "weights_read_bytes",
    ),
    "vlmmem.parallelism": (
        "GpuShare",
        "all_reduce_bytes",
        "all_reduces",
        "bubble_share",
        "gpu_shares",
        "least_microbatches",
        "pipeline_transfer_bytes",
        "stage_layers",
        "tensor_parallel_sizes",
    ),
    "vlmmem.serving": (
        "continuous_batching",
        "draw_requests",
        "exponential_factor",
        "kv_occupancy",
        "live_tokens",
        "static_batching",
    ),
    "vlmmem.terms": ("Term",),
    "vlmmem.units": ("in_unit", "parse_size", "rounded", "show", "show_both"),
    "vlmmem.workload": ("Parallelism", "Workload"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'vlmmem' has no attribute {name!r}")
    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
