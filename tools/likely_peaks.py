"""How far `vlmmem.memory.likely_peak_bytes` is off, family by family, against tests/oracle/forward_families.json.

    python tools/likely_peaks.py    rewrite vlmmem/catalog/likely_peaks.json; tests/test_forward_families.py compares

A family is a model_type of the catalogue; an error is (likely peak - peak) / peak, over weights and KV cache.
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools.oracle_configs import catalogue_configs, shortened  # noqa: E402 (the checkout comes first)
from vlmmem.architectures import build  # noqa: E402
from vlmmem.layers import StateCache  # noqa: E402
from vlmmem.memory import kv_cache_bytes, likely_peak_bytes  # noqa: E402

ANSWERS = ROOT / "tests" / "oracle" / "forward_families.json"
DATA = ROOT / "vlmmem" / "catalog" / "likely_peaks.json"


def computed(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each family its kind, the passes and the errors in ten thousandths: on average, the least and the most."""
    configs = catalogue_configs()
    errors: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    for case in cases:
        if "error" in case:
            continue
        model = build(shortened(configs[case["model"]], case["layers"]))
        context, batch = case["context"], case["batch"]
        peak = case["peak_bytes"] - kv_cache_bytes(model, context, batch)
        errors.setdefault(model.architecture, []).append(likely_peak_bytes(model, context, batch) / peak - 1)
        caches = [cache for layer in model.decoder.layers for cache in layer.caches]
        scans = any(isinstance(cache, StateCache) and cache.what == "recurrent" for cache in caches)
        kinds[model.architecture] = "states" if scans else "attention"
    return {
        "families": {
            family: {
                "kind": kinds[family],
                "passes": len(found),
                "mean": round(10_000 * sum(map(abs, found)) / len(found)),
                "least": round(10_000 * min(found)),
                "most": round(10_000 * max(found)),
            }
            for family, found in sorted(errors.items())
        }
    }


def main() -> None:
    """Write the data."""
    cases = json.loads(ANSWERS.read_text(encoding="utf-8"))["cases"]
    DATA.write_text(json.dumps(computed(cases), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
