"""Fits the constants of vLLM that its code does not give, on fitted runs alone, and writes them with their errors.

    python tools/vllm_constants.py          shows what it would write
    python tools/vllm_constants.py --write  writes vlmmem/engines/vllm/constants.json

Each constant names the runs it was fitted on. `error_fitted` is the mean absolute error of what it prices on those
runs, each time fitted without that run; `error_left_out` that on the runs that were left out, which choose nothing.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from vlmmem.catalog import find_format, find_gpu, find_model  # noqa: E402
from vlmmem.engines.releases import Release, parse_version  # noqa: E402
from vlmmem.engines.settings import Settings  # noqa: E402
from vlmmem.engines.vllm import complete, profile, runtime, uses_v1  # noqa: E402
from vlmmem.errors import InputError  # noqa: E402
from vlmmem.measured import Run, runs  # noqa: E402
from vlmmem.model import Model  # noqa: E402

FILE = ROOT / "vlmmem" / "engines" / "vllm" / "constants.json"
GIB = 2**30
CARDS = (
    ("A100-SXM4-40", "a100-40gb"),
    ("A100", "a100-80gb"),
    ("H100", "h100-80gb"),
    ("H200", "h200"),
    ("L4", "l4"),
    ("T4", "t4"),
    ("3090", "rtx-3090"),
    ("4090", "rtx-4090"),
)
Case = tuple[Run, Model, Release, Settings]


def cases(split: str) -> list[Case]:
    """The runs of vLLM whose model and release are known, as the engine's functions take them."""
    found: list[Case] = []
    for run in runs():
        if (
            run.engine != "vllm"
            or not run.version
            or not run.catalogue
            or (run.split == "fitted") != (split == "fitted")
        ):
            continue
        card = next((name for mark, name in CARDS if run.gpu and mark in run.gpu), None)
        model = find_model(run.catalogue)
        order = parse_version(run.version)
        release = Release(run.version, order)
        options = tuple(run.options) + ((("dtype", run.dtype),) if run.dtype else ())
        # a log that names V0's engine, or prints its line
        if "non_torch_memory takes" in (run.evidence or "") and order < (0, 11):
            options += (("VLLM_USE_V1", 0),)
        settings = Settings(
            run.context or min(model.max_positions or 4096, 131072),
            gpu=find_gpu(card) if card else None,
            gpu_bytes=run.gpu_total.bytes if run.gpu_total else None,
            tp=run.tp or 1,
            pp=run.pp or 1,
            sequences=run.sequences,
            batch_tokens=run.batch_tokens,
            utilization=run.utilization,
            weights=find_format(run.weights) if run.weights else None,
            images=run.images,
            eager=bool(run.eager),
            options=options,
        )
        try:
            found.append((run, model, release, complete(model, release, settings)))
        except InputError:
            continue
    return found


def printed(run: Run, name: str) -> int | None:
    """The bytes of a printed figure."""
    found = dict(run.measured).get(name)
    return found.bytes if found is not None else None


def errors(values: Sequence[tuple[float, float, float]]) -> float:
    """Mean absolute error in percent of (measured, rest, multiplier) where the constant is the others' median."""
    found = []
    for at, (total, rest, per) in enumerate(values):
        others = [(t - r) / p for k, (t, r, p) in enumerate(values) if k != at]
        if others:
            found.append(abs(rest + median(others) * per - total) / total)
    return round(100 * mean(found), 2) if found else 0.0


def sampler(engine: str, inside: Sequence[Case], outside: Sequence[Case]) -> dict[str, Any]:
    """Bytes a logit of a sampler that sorts."""

    def values(given: Sequence[Case]) -> list[tuple[str, tuple[float, float, float]]]:
        found: list[tuple[str, tuple[float, float, float]]] = []
        for run, model, release, settings in given:
            peak = printed(run, "activation_peak")
            v1 = uses_v1(model, release, settings)
            if peak is None or release.since("0.17") or ("V1" if v1 else "V0") != engine or run.id in UNLIKE:
                continue
            moments = profile.moments(model, release, settings)
            top = max(moments, key=lambda moment: moment.bytes)
            if top.name != "sampler":
                continue
            now = next(each["bytes"] for each in profile.constants()["sampler_copies"] if each["engine"] == engine)
            logits = min(settings.sequences or 1, settings.batch_tokens or 1) * (-(-model.vocab_size // 64) * 64)
            found.append((run.id, (peak, top.bytes - now * logits, logits)))
        return found

    used = values(inside)
    each = median((total - rest) / per for _, (total, rest, per) in used)
    left = [abs(rest + each * per - total) / total for _, (total, rest, per) in values(outside)]
    return {
        "since": "0.3" if engine == "V0" else "0.8",
        "engine": engine,
        "bytes": round(each, 1),
        "basis": "measured",
        "records": [name for name, _ in used],
        "error_fitted": errors([value for _, value in used]),
        "error_left_out": round(100 * mean(left), 2) if left else None,
        "what": f"bytes a logit of {engine}'s sampler where PyTorch sorts the vocabulary",
    }


UNLIKE = ("llmd-h100-mistral-small-32-24b",)
"""A run whose settings are not all known: 2.12 GiB at 0.11 are what FlashInfer's sampler, or fewer sequences, give."""


def hidden(inside: Sequence[Case]) -> dict[str, Any]:
    """Rows of hidden_size alive at the MLP: from middle stages, which have neither sampler nor embedding."""
    found: list[tuple[str, float]] = []
    for run, model, _, settings in inside:
        for device, figures in run.devices or ():
            peak = dict(figures).get("activation_peak")
            stage = int(device[2:]) if device[:2] == "PP" else -1
            if peak is None or not 0 < stage < settings.pp - 1 or model.experts:
                continue
            tokens = settings.batch_tokens or 1
            rows = (peak.bytes - 32 * 2**20) / (2 * tokens)
            copies = (rows - 3 * model.intermediate_size / settings.tp) / model.hidden_size - 2
            found.append((run.id, copies))
    return {
        "copies": round(median(copies for _, copies in found), 1),
        "basis": "measured",
        "records": sorted({name for name, _ in found}),
        "what": "hidden states alive at the MLP, in rows of hidden_size a token",
    }


def consumed(run: Run, release: Release) -> int | None:
    """What a GPU lost beside weights, peak and pool, where a log prints all of these and graphs are not taken off.

    Since 0.27 vLLM counts so: free memory before less free memory after (vllm/utils/mem_utils.py, `memory_profiling`).
    """
    parts = [printed(run, name) for name in ("weights", "activation_peak", "kv_pool")]
    if not release.since("0.27") or run.gpu_total is None or run.utilization is None or None in parts:
        return None
    return round(run.gpu_total.bytes * run.utilization) - sum(part or 0 for part in parts)


def non_torch(inside: Sequence[Case], outside: Sequence[Case]) -> list[dict[str, Any]]:
    """Medians by release, GPUs and how they share the work."""
    rows = []
    groups: list[tuple[str, str | None, str, str]] = [
        ("0.3", "0.18", "one", "small"),
        ("0.3", "0.18", "one", "large"),
        ("0.3", "0.18", "tensor", "large"),
        ("0.18", None, "one", "large"),
        ("0.18", None, "tensor", "large"),
        ("0.18", None, "pipeline", "large"),
        ("0.27", None, "one", "small"),
    ]
    for since, until, kind, size in groups:

        def chosen(given: Sequence[Case], group: tuple[str, str | None, str, str] = (since, until, kind, size)) -> Any:
            low, high, wanted, memory = group
            for run, _, release, settings in given:
                value = printed(run, "non_torch") or consumed(run, release)
                if value is None or (run.gpu and "AMD" in run.gpu):
                    continue
                if not release.since(low) or (high is not None and release.since(high)):
                    continue
                if runtime.kind_of(settings) == wanted and runtime.size_of(settings) == memory:
                    yield run.id, value / GIB

        used, left = list(chosen(inside)), list(chosen(outside))
        gib = round(median(value for _, value in used), 3)
        rows.append(
            {
                "since": since,
                "kind": kind,
                "gpu": size,
                "gib": gib,
                "spread": [round(min(v for _, v in used), 2), round(max(v for _, v in used), 2)],
                "basis": "measured",
                "records": [name for name, _ in used],
                "error_left_out_gib": round(mean(abs(v - gib) for _, v in left), 3) if left else None,
            }
        )
    return rows


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Constant and slope by Theil and Sen: medians, so that one odd run does not tilt the line."""
    pairs = [(p, q) for at, p in enumerate(points) for q in points[at + 1 :] if p[0] != q[0]]
    slope = median((q[1] - p[1]) / (q[0] - p[0]) for p, q in pairs) if pairs else 0.0
    return median(y - slope * x for x, y in points), slope


def graphs(inside: Sequence[Case], outside: Sequence[Case]) -> list[dict[str, Any]]:
    """CUDA graphs: a line over the layers of a stage where there are enough runs, else a median."""

    def values(given: Sequence[Case], keep: Callable[[Case], bool], name: str) -> list[tuple[str, float, float]]:
        found = []
        for case in given:
            run, model, release, settings = case
            value = printed(run, name)
            if value is None or settings.eager or (run.gpu and "AMD" in run.gpu) or not keep(case):
                continue
            # below 0 where memory was freed meanwhile: capturing took none that was not there before
            share = runtime.captured_share(settings, v1=uses_v1(model, release, settings))
            found.append((run.id, float(-(-model.layers // settings.pp)), max(0.0, float(value / share)) / GIB))
        return found

    def v1(case: Case) -> bool:
        return uses_v1(case[1], case[2], case[3])

    rows = []
    plans: list[tuple[str, str, bool, str, Callable[[Case], bool]]] = [
        ("V0", "0.3", False, "cuda_graph", lambda case: not v1(case)),
        ("V1", "0.8", False, "cuda_graph", lambda case: v1(case) and not case[2].since("0.11")),
        (
            "V1",
            "0.11",
            False,
            "cuda_graph",
            lambda case: v1(case) and case[2].since("0.11") and not case[2].since("0.13"),
        ),
        (
            "V1",
            "0.13",
            False,
            "cuda_graph",
            lambda case: v1(case) and case[2].since("0.13") and not case[2].since("0.18"),
        ),
        (
            "V1",
            "0.18",
            True,
            "cuda_graph",
            lambda case: v1(case) and case[2].since("0.18") and not case[2].since("0.20"),
        ),
        # since 0.20 the estimate leaves the pool, which it prints too
        ("V1", "0.20", True, "cuda_graph_estimated", lambda case: v1(case) and case[2].since("0.18")),
    ]
    for engine, since, sloped, name, keep in plans:
        used, left = values(inside, keep, name), values(outside, keep, name)
        constant, slope = line([(x, y) for _, x, y in used]) if sloped else (median(y for _, _, y in used), 0.0)
        constant, slope = round(constant, 3), round(slope, 4)
        off = [abs(constant + slope * x - y) for _, x, y in left]
        rows.append(
            {
                "engine": engine,
                "since": since,
                "quantity": name,
                "gib": constant,
                "gib_a_layer": slope,
                "spread": [round(min(y for _, _, y in used), 2), round(max(y for _, _, y in used), 2)],
                "basis": "measured",
                "records": [name for name, _, _ in used],
                "error_fitted_gib": round(mean(abs(constant + slope * x - y) for _, x, y in used), 3),
                "error_left_out_gib": round(mean(off), 3) if off else None,
            }
        )
    return rows


def main() -> int:
    """Fit, show, and write where asked."""
    inside, outside = cases("fitted"), cases("left out")
    now = json.loads(FILE.read_text())
    found = {
        **now,
        "sampler_copies": [sampler(engine, inside, outside) for engine in ("V0", "V1")],
        "hidden_states": hidden(inside),
        "non_torch": non_torch(inside, outside),
        "graphs": graphs(inside, outside),
    }
    text = json.dumps(found, indent=1) + "\n"
    sys.stdout.write(text)
    if "--write" in sys.argv[1:]:
        FILE.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
