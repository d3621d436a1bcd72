"""What a type checker and an editor read; `__init__.py` imports the same names when they are first used."""

from vlmmem.catalog import find_format, find_gpu, find_link, find_model, gpus, links, models
from vlmmem.errors import InputError
from vlmmem.fit import fewest_gpus
from vlmmem.footprint import Footprint, Term, estimate
from vlmmem.formats import Format
from vlmmem.hardware import Gpu, Link
from vlmmem.ledger import figure, figures, readings
from vlmmem.memory import (
    checkpoint_bytes,
    decode_peak_bytes,
    forward_moments,
    forward_peak_bytes,
    kv_bytes_per_token,
    kv_cache_bytes,
    overhead_rule_bytes,
    per_layer_rule_bytes,
    weights_bytes,
)
from vlmmem.model import Model, VisionTower
from vlmmem.roofline import (
    ForwardPass,
    attainable_flops,
    compute_bound_batch,
    decode_step,
    least_seconds,
    prefill,
    ridge_point,
    transfer_seconds,
    weights_read_bytes,
)
from vlmmem.parallelism import (
    GpuShare,
    all_reduce_bytes,
    all_reduces,
    bubble_share,
    gpu_shares,
    least_microbatches,
    pipeline_transfer_bytes,
    stage_layers,
    tensor_parallel_sizes,
)
from vlmmem.units import in_unit, parse_size, rounded, show, show_both
from vlmmem.workload import Parallelism, Workload

__version__: str
_HOME: dict[str, str]
__all__ = [
    "Footprint",
    "Format",
    "ForwardPass",
    "Gpu",
    "GpuShare",
    "InputError",
    "Link",
    "Model",
    "Parallelism",
    "Term",
    "VisionTower",
    "Workload",
    "__version__",
    "all_reduce_bytes",
    "all_reduces",
    "attainable_flops",
    "bubble_share",
    "checkpoint_bytes",
    "compute_bound_batch",
    "decode_peak_bytes",
    "decode_step",
    "estimate",
    "fewest_gpus",
    "figure",
    "figures",
    "find_format",
    "find_gpu",
    "find_link",
    "find_model",
    "forward_moments",
    "forward_peak_bytes",
    "gpu_shares",
    "gpus",
    "in_unit",
    "kv_bytes_per_token",
    "kv_cache_bytes",
    "least_microbatches",
    "least_seconds",
    "links",
    "models",
    "overhead_rule_bytes",
    "parse_size",
    "per_layer_rule_bytes",
    "pipeline_transfer_bytes",
    "prefill",
    "readings",
    "ridge_point",
    "rounded",
    "show",
    "show_both",
    "stage_layers",
    "tensor_parallel_sizes",
    "transfer_seconds",
    "weights_bytes",
    "weights_read_bytes",
]
