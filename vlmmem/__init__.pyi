"""What a type checker and an editor read; `__init__.py` imports the same names when they are first used."""

from vlmmem.catalog import find_format, find_gpu, find_model, gpus, models
from vlmmem.errors import InputError
from vlmmem.fit import fewest_gpus
from vlmmem.footprint import Footprint, Term, estimate
from vlmmem.formats import Format
from vlmmem.hardware import Gpu
from vlmmem.ledger import figure, figures, readings
from vlmmem.memory import (
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
    "Gpu",
    "GpuShare",
    "InputError",
    "Model",
    "Parallelism",
    "Term",
    "VisionTower",
    "Workload",
    "__version__",
    "all_reduce_bytes",
    "all_reduces",
    "bubble_share",
    "decode_peak_bytes",
    "estimate",
    "fewest_gpus",
    "figure",
    "figures",
    "find_format",
    "find_gpu",
    "find_model",
    "forward_moments",
    "forward_peak_bytes",
    "gpu_shares",
    "gpus",
    "in_unit",
    "kv_bytes_per_token",
    "kv_cache_bytes",
    "least_microbatches",
    "models",
    "overhead_rule_bytes",
    "parse_size",
    "per_layer_rule_bytes",
    "pipeline_transfer_bytes",
    "readings",
    "rounded",
    "show",
    "show_both",
    "stage_layers",
    "tensor_parallel_sizes",
    "weights_bytes",
]
