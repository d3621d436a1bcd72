"""estimate: the terms added up, what each says of itself, and what fits."""

import json
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module

import pytest

from vlmmem.architectures import build
from vlmmem.catalog import find_format, find_gpu, find_model, model_facts
from vlmmem.errors import InputError
from vlmmem.footprint import estimate, image_of, seen_moments
from vlmmem.hardware import BASES
from vlmmem.measured import Run, runs
from vlmmem.memory import forward_peak_bytes, likely_peak_error, runtime_bytes
from vlmmem.terms import Term
from vlmmem.workload import Parallelism, Workload

KINDS = ["weights", "kv_cache", "activations", "vision", "runtime", "total"]


def test_the_worked_example_of_the_documents() -> None:
    footprint = estimate("llama-2-13b", Workload(context=8192, batch=10), gpu="a100-80gb")
    assert list(footprint.per_gpu) == KINDS
    assert footprint.per_gpu["weights"] == 26_031_728_640
    assert footprint.per_gpu["kv_cache"] == 67_108_864_000
    # The peak of the fake-tensor run: 77,263,339,520 B over the weights, KV cache included.
    assert footprint.per_gpu["activations"] == 77_263_339_520 - 67_108_864_000
    assert footprint.per_gpu["vision"] == 0
    assert footprint.per_gpu["runtime"] == runtime_bytes()
    assert footprint.per_gpu["total"] == sum(footprint.per_gpu[kind] for kind in KINDS[:-1])
    assert footprint.total == footprint.per_gpu["total"]
    assert footprint.fits is False
    assert footprint.notes == ("8,192 tokens are over the 4,096 positions of llama-2-13b",)


def test_each_term_says_what_it_is() -> None:
    footprint = estimate("llava-1.5-13b", Workload(4096))
    names = [term.name for term in footprint.terms]
    assert names == [
        "weights:language",
        "weights:vision",
        "weights:projector",
        "kv_cache",
        "activations",
        "vision",
        "runtime",
    ]
    for term in footprint.terms:
        assert term.basis in BASES
        assert term.formula
        assert term.source
    assert footprint.per_gpu["weights"] == 2 * 13_351_494_656
    assert footprint.terms[0].kind == "weights"
    assert footprint.terms[3].formula == (
        "819,200 B a token (40 layers: 40 KV heads x (128 + 128) x 16 bits / 8) x 4,096 tokens x 1 sequence"
    )
    assert [term.basis for term in footprint.terms] == ["derived"] * 6 + ["assumed"]


def test_no_gpu_no_verdict() -> None:
    assert estimate("phi-2", Workload(2048)).fits is None


@pytest.mark.parametrize(
    ("model", "gpu", "fits"),
    [("llama-3.1-8b", "a100-40gb", True), ("llama-3.1-8b", "t4", False), ("llama-3.1-70b", "h200", True)],
)
def test_what_fits(model: str, gpu: str, fits: bool) -> None:
    assert estimate(model, Workload(4096), gpu=gpu).fits is fits


def test_fits_to_the_byte() -> None:
    need = estimate("phi-2", Workload(1)).per_gpu["total"]
    just = replace(find_gpu("t4"), memory_bytes=need, cuda_memory_bytes=None)
    assert estimate("phi-2", Workload(1), gpu=just).fits is True
    assert estimate("phi-2", Workload(1), gpu=replace(just, memory_bytes=need - 1)).fits is False


def test_tensor_parallelism_splits_weights_and_heads() -> None:
    one = estimate("llama-3.1-70b", Workload(4096)).per_gpu
    four = estimate("llama-3.1-70b", Workload(4096), Parallelism(tp=4))
    norms = (2 * 80 + 1) * 8192 * 2  # whole on each of the four
    assert 4 * four.per_gpu["weights"] == one["weights"] + 3 * norms
    assert four.per_gpu["kv_cache"] == one["kv_cache"] // 4 == 335_544_320
    assert four.per_gpu["activations"] == one["activations"]
    assert four.per_gpu["runtime"] == runtime_bytes(tp=4)
    assert four.total == 4 * four.per_gpu["total"]
    assert {term.name: term.basis for term in four.terms}["activations"] == "assumed"


def test_a_pipeline_holds_the_cache_of_its_longest_stage() -> None:
    whole = estimate("llama-3.1-405b", Workload(4096)).per_gpu["kv_cache"]
    four = estimate("llama-3.1-405b", Workload(4096), Parallelism(pp=4)).per_gpu["kv_cache"]
    assert four * 126 == whole * 32  # 126 layers over 4 stages: two have 32
    assert estimate("llama-3.1-405b", Workload(4096), Parallelism(tp=8, pp=2)).gpus == 16


def test_the_fullest_stage_is_told() -> None:
    # vLLM 0.19 measured 4.26 GiB on the first GPU, a rotary table of 32 MiB among them (tests/test_parallelism.py).
    footprint = estimate("llama-3.1-8b", Workload(8192), Parallelism(pp=4))
    assert f"{(footprint.per_gpu['weights'] + 2**25) / 2**30:.2f}" == "4.26"
    assert footprint.terms[0].formula == ("stage 3: 8 of 32 layers / 1 GPUs x (16) bits / 8, its output head with them")
    middle = estimate("llama-3.1-405b", Workload(4096), Parallelism(tp=8, pp=4)).terms[0].formula
    assert middle == "stage 1: 32 of 126 layers / 8 GPUs x (16) bits / 8"


def test_quantised_weights_and_cache() -> None:
    footprint = estimate("llama-3.1-8b", Workload(8192, 4), weights="awq-4bit", kv_dtype="fp8")
    assert footprint.per_gpu["weights"] == 5_727_854_592
    assert footprint.per_gpu["kv_cache"] == 65_536 * 8192 * 4
    bases = {term.name: term.basis for term in footprint.terms}
    assert bases["weights"] == "derived"
    assert bases["activations"] == "assumed"
    assert "(4 + 16/128 + 4/128) bits" in footprint.terms[0].formula


def test_formats_may_be_given_as_they_are() -> None:
    named = estimate("phi-2", Workload(9), weights="int8", kv_dtype="fp8")
    given = estimate(find_model("phi-2"), Workload(9), weights=find_format("int8"), kv_dtype=find_format("fp8"))
    assert named == given


def test_a_model_in_32_bits_computes_in_32() -> None:
    sixteen, thirty_two = (estimate("phi-2", Workload(512), weights=each).per_gpu for each in ("fp16", "fp32"))
    assert thirty_two["weights"] == 2 * sixteen["weights"]
    assert thirty_two["activations"] == 2 * sixteen["activations"] == 2 * forward_peak_bytes("phi-2", 512)


def test_the_model_says_the_format_of_its_cache() -> None:
    model = replace(find_model("phi-2"), dtype="fp32")
    assert estimate(model, Workload(10)).per_gpu["kv_cache"] == 2 * 327_680 * 10


def test_a_window_is_noted() -> None:
    footprint = estimate("mistral-7b", Workload(8192))
    assert footprint.per_gpu["kv_cache"] == 131_072 * 4096
    assert footprint.notes == ("each layer keeps 4,096 tokens (its sliding window); engines keep some more",)
    assert estimate("mistral-7b", Workload(4096)).notes == ()


def test_where_no_closed_form_was_checked_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def outside(*_: object, **__: object) -> int:
        raise InputError("context: outside the domain")

    peak = forward_peak_bytes("llama-2-13b", 8192, 10)
    monkeypatch.setattr(import_module("vlmmem.footprint"), "forward_peak_bytes", outside)
    footprint = estimate("llama-2-13b", Workload(8192, 10))
    term = next(term for term in footprint.terms if term.name == "activations")
    assert term.bytes == peak  # Llama's closed form, on a Llama
    assert term.basis == "assumed"
    off = likely_peak_error("llama-2-13b")
    measured = f"{off['passes']} passes of {len(off['families'])} families"
    assert term.formula.endswith(f"off by {off['least']:+.1%} to {off['most']:+.1%} on {measured}")


@pytest.mark.parametrize(
    ("parallelism", "message"),
    [
        (Parallelism(tp=3), "tp: 3 GPUs cannot split 32 heads and 32 KV heads of phi-2 evenly; "),
        (Parallelism(pp=33), "pp: 33 stages cannot share 32 layers of phi-2; 32 or fewer are needed"),
    ],
)
def test_impossible_splits(parallelism: Parallelism, message: str) -> None:
    with pytest.raises(InputError) as caught:
        estimate("phi-2", Workload(1), parallelism)
    assert str(caught.value).startswith(message)


def test_as_many_stages_as_layers() -> None:
    assert estimate("phi-2", Workload(1), Parallelism(pp=32)).per_gpu["kv_cache"] == 327_680 // 32


def test_a_footprint_adds_its_terms() -> None:
    terms = (Term("weights:a", 1, "", "derived", ""), Term("weights:b", 2, "", "derived", ""))
    footprint = replace(estimate("phi-2", Workload(1), Parallelism(pp=3)), terms=terms)
    assert footprint.per_gpu == dict.fromkeys(KINDS, 0) | {"weights": 3, "total": 3}
    assert footprint.total == 9


@pytest.mark.parametrize("make", [lambda: Workload(0), lambda: Workload(1, -1), lambda: Workload(True)])
def test_workloads_are_positive_integers(make: Callable[[], Workload]) -> None:
    with pytest.raises(InputError, match=r"was given; a positive integer is needed$"):
        make()


@pytest.mark.parametrize(("tp", "pp", "field"), [(0, 1, "tp"), (1, 0, "pp")])
def test_groups_are_positive_integers(tp: int, pp: int, field: str) -> None:
    with pytest.raises(InputError, match=f"^{field}: 0 was given"):
        Parallelism(tp, pp)


def test_counts_of_tokens_and_gpus() -> None:
    assert Workload(8192, 10).tokens == 81_920
    assert Parallelism(4, 2).gpus == 8


def test_a_model_of_ones_own() -> None:
    config = model_facts("llama-3.1-8b")["config"]
    model = build({**config, "num_key_value_heads": 1})
    assert estimate(model, Workload(16)).per_gpu["kv_cache"] == 131_072 // 8 * 16


def test_json_is_that_of_the_interface() -> None:
    found = estimate("llava-1.5-13b", Workload(4096, 2), Parallelism(tp=2), "a100-80gb").json()
    assert found["model"]["id"] == "llava-1.5-13b"
    assert found["model"]["parameters"] == sum(found["model"]["parameters_by_part"].values()) == 13_351_494_656
    assert found["model"]["basis"] == "config"
    assert found["kv_bytes_per_token"] == {"below_window": 409_600, "beyond_window": 409_600}
    assert found["state_bytes_per_sequence"] == 0
    assert list(found["per_gpu"]) == KINDS
    assert found["total"] == 2 * found["per_gpu"]["total"]
    assert (found["engine"], found["gpu"], found["fits"]) == (None, "a100-80gb", True)
    assert {tuple(term) for term in found["terms"]} == {("name", "bytes", "formula", "basis", "source")}
    assert json.loads(json.dumps(found)) == found


# Images, against passes of transformers that the harness recorded

SEEN = {run.id: run for run in runs() if run.provenance == "harness" and run.catalogue == "llava-1.5-13b"}


def missed(run: Run) -> int:
    """Bytes that `estimate` says beyond the recorded peak; buffers and token ids are no terms of its own."""
    measured = {name: quantity.bytes for name, quantity in run.measured}
    assert run.catalogue is not None
    assert run.input_tokens is not None
    workload = Workload(run.input_tokens, run.batch or 1, run.images or 0, run.image_size)
    said = estimate(run.catalogue, workload).per_gpu
    pixels = (run.images or 0) * workload.batch * 3 * 336 * 336 * 4
    ids = measured["inputs"] - pixels
    return said["total"] - said["runtime"] + ids + measured["buffers"] - measured["peak"]


def test_passes_with_images_are_recorded() -> None:
    assert {(run.batch, run.images) for run in SEEN.values()} == {(1, 1), (1, 4), (8, 1)}


@pytest.mark.parametrize("run", SEEN.values(), ids=SEEN)
def test_images_to_the_byte(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missed(run) == 0
    # the fault: features that wait once, and nothing of the tower
    monkeypatch.setattr(import_module("vlmmem.footprint"), "seen_moments", lambda *_: None)
    images, tokens = (run.images or 0) * (run.batch or 1), (run.input_tokens or 0) * (run.batch or 1)
    assert missed(run) == -(images * (576 * 5120 * 2 + 2 * 577 * 1024 * 2) + tokens)


def test_what_images_leave_is_told() -> None:
    footprint = estimate("llava-1.5-13b", Workload(2048, images=1, image_size=(336, 336)))
    features = footprint.terms[-2]
    assert features.formula == (
        "2 x (576 features x 5,120 x 2 B + 577 x 1,024 x 2 B of the tower) + a mask of 2,048 B: "
        "the pass peaks at 268,982,272 B with its images"
    )
    assert (features.name, features.bytes) == ("vision:features", 2 * (576 * 5120 + 577 * 1024) * 2 + 2048)
    assert footprint.per_gpu["activations"] == forward_peak_bytes("llava-1.5-13b", 2048)
    wide = estimate("llava-1.5-13b", Workload(2048, images=1, image_size=(336, 336)), weights="fp32")
    assert (wide.terms[-2].bytes, wide.terms[-2].basis) == (2 * features.bytes, "assumed")


def test_a_vocabulary_above_all_leaves_the_answers_features() -> None:
    model = find_model("llava-1.5-13b")
    workload = Workload(600, images=1, image_size=(336, 336))
    term = estimate(replace(model, vocab_size=10**8), workload).terms[-2]
    assert term.bytes == 576 * 5120 * 2
    assert term.formula.startswith("576 features x 5,120 x 2 B: the pass peaks at ")


@pytest.mark.parametrize("name", ["pixtral-12b", "llava-v1.6-vicuna-13b", "gemma-3-4b"])
def test_passes_that_were_not_checked_keep_their_features(name: str) -> None:
    found = image_of(find_model(name), 336, 336)
    assert seen_moments(find_model(name), 4096, 1, 1, found) is None
    features = estimate(name, Workload(4096, images=1, image_size=(336, 336))).terms[-2]
    assert features.bytes == found.tokens * find_model(name).hidden_size * 2
    assert features.formula.endswith("kept for the decoder")
