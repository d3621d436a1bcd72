"""What fits: the largest batch and context, the fewest GPUs that split the heads, and what to change."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmmem import (
    InputError,
    Parallelism,
    Workload,
    estimate,
    fewest_gpus,
    find_gpu,
    find_model,
    gpus,
    models,
    tensor_parallel_sizes,
)
from vlmmem.capacity import NODE, fit
from vlmmem.cli import main


@pytest.mark.parametrize(
    ("model", "gpu", "expected"),
    [
        # 141 GB of weights: two cards of 80 GiB hold them, one does not; the H200's 140 GiB hold them alone.
        ("llama-3.1-70b", "a100-80gb", 2),
        ("llama-3.1-70b", "h200", 1),
        # 16.06 GB of weights on a card of 15 GiB, 16.11 GB: they alone would fit, with a cache they do not.
        ("llama-3.1-8b", "t4", 2),
        ("gpt-3-175b", "t4", None),
    ],
)
def test_known_cases(model: str, gpu: str, expected: int | None) -> None:
    assert fewest_gpus(model, gpu, Workload(2048)) == expected


@pytest.mark.slow
def test_it_is_the_least_that_fits_and_splits_the_heads() -> None:
    gpu = find_gpu("a100-40gb")
    for model in models():
        workload = Workload(min(4096, model.max_positions))
        count = fewest_gpus(model, gpu, workload)
        assert count is not None or model.parameters > 1e11
        if count is None:
            continue
        assert model.heads % count == 0
        assert estimate(model, workload, Parallelism(tp=count), gpu).fits
        fewer = [tp for tp in (1, 2, 4) if tp < count and model.heads % tp == 0 and model.kv_heads % tp == 0]
        assert not any(estimate(model, workload, Parallelism(tp=tp), gpu).fits for tp in fewer)


def test_forty_heads_are_never_split_by_three() -> None:
    model = find_model("llama-2-13b")
    counts = {fewest_gpus(model, "a100-40gb", Workload(4096, batch)) for batch in range(1, 60, 3)}
    assert 3 not in counts
    assert counts <= {1, 2, 4, 5, 8, None}


def test_smaller_weights_need_fewer_gpus() -> None:
    assert fewest_gpus("llama-3.1-70b", "a100-80gb", Workload(4096), weights="int4") == 1


def test_most_bounds_the_search() -> None:
    assert fewest_gpus("llama-3.1-70b", "a100-80gb", Workload(4096), most=1) is None


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="nope"):
        fewest_gpus("nope", "t4", Workload(1))


NAMES = (
    "llama-3.1-8b",
    "llama-2-13b",
    "mistral-7b",
    "gemma-3-27b",
    "deepseek-v3",
    "gpt-oss-20b",
    "qwen3-32b-fp8",
    "phi-2",
)


@pytest.mark.slow
@given(st.sampled_from(NAMES), st.integers(1, 4000), st.integers(1, 40), st.integers(1, 2000), st.integers(0, 30))
@settings(deadline=None, max_examples=60)
def test_more_tokens_and_more_sequences_never_take_less(
    name: str, context: int, batch: int, longer: int, more: int
) -> None:
    before, longest, widest = (
        estimate(name, Workload(tokens, sequences)).per_gpu["total"]
        for tokens, sequences in ((context, batch), (context + longer, batch), (context, batch + more))
    )
    assert before <= longest
    assert before <= widest


@pytest.mark.parametrize(
    ("name", "gpu", "context", "batch"),
    [
        ("llama-3.1-8b", "a100-40gb", 8192, 1),
        ("llama-2-13b", "a100-80gb", 2048, 7),
        ("mistral-7b", "v100-32gb", 30_000, 2),
        ("gemma-3-4b", "a100-40gb", 16_000, 3),
        ("gpt-oss-20b", "h100-80gb", 9_999, 1),
        ("qwen2-vl-2b-awq", "t4", 2_000, 2),
    ],
)
def test_the_largest_fits_and_one_more_does_not(name: str, gpu: str, context: int, batch: int) -> None:
    found = fit(name, gpu, Workload(context, batch))
    model = find_model(name)
    assert found.largest_batch is not None
    assert estimate(model, Workload(context, found.largest_batch), gpu=gpu).fits
    assert not estimate(model, Workload(context, found.largest_batch + 1), gpu=gpu).fits
    assert found.largest_context is not None
    assert estimate(model, Workload(found.largest_context, batch), gpu=gpu).fits
    if found.context_is_whole:
        assert found.largest_context == model.max_positions
    else:
        assert not estimate(model, Workload(found.largest_context + 1, batch), gpu=gpu).fits


def test_the_positions_of_a_model_end_its_context() -> None:
    found = fit("phi-2", "a100-80gb", Workload(512))
    assert (found.largest_context, found.context_is_whole) == (2048, True)


def test_images_stand_in_the_context() -> None:
    found = fit("llava-1.5-7b", "a100-40gb", Workload(2048, images=2, image_size=(336, 336)))
    assert found.largest_context is not None
    assert found.largest_context >= 2 * 576
    nothing = fit("llava-1.5-13b", "t4", Workload(2048, images=2, image_size=(336, 336)))
    assert nothing.largest_context is None
    assert nothing.largest_batch is None


def test_groups_split_the_heads_and_stay_in_a_node() -> None:
    for name in ("llama-2-13b", "deepseek-v3", "llama-3.1-70b"):
        found = fit(name, "a100-40gb", Workload(2048))
        legal = tensor_parallel_sizes(name, NODE)
        splits = [found.fewest, *(holder.parallelism for holder in found.holders)]
        for split in splits:
            assert split is None or split.tp in legal
            # stages only where a node is not enough
            assert split is None or split.pp == 1 or split.tp == legal[-1]
        if found.fewest is not None:
            assert estimate(name, Workload(2048), found.fewest, "a100-40gb").fits


def test_the_fewest_over_servers_are_no_more_than_needed() -> None:
    found = fit("deepseek-v3", "h100-80gb", Workload(4096))
    assert found.fewest is not None
    assert (found.fewest.tp, found.fewest.pp) == (8, 2)
    assert not estimate("deepseek-v3", Workload(4096), Parallelism(8), "h100-80gb").fits


def test_a_gpu_of_which_too_many_are_needed() -> None:
    found = fit("deepseek-v3", "t4", Workload(4096))
    assert found.fewest is None
    assert next(holder for holder in found.holders if holder.gpu.id == "t4").parallelism is None


@pytest.mark.parametrize(
    ("name", "gpu", "workload"),
    [
        ("llama-3.1-70b", "a100-80gb", Workload(8192, 4)),
        ("llama-3.1-8b", "a100-40gb", Workload(8192, 20)),
        ("llama-3.1-8b", "t4", Workload(4096, 8)),
        ("deepseek-v3", "h100-80gb", Workload(4096)),
    ],
)
def test_what_is_said_to_be_enough_is(name: str, gpu: str, workload: Workload) -> None:
    found = fit(name, gpu, workload)
    assert not found.fits
    assert any(change.fits for change in found.changes)
    before = found.footprint.per_gpu["total"]
    for change in found.changes:
        memory = change.footprint.gpu
        assert memory is not None
        total = change.footprint.per_gpu["total"]
        assert change.fits == (total <= memory.memory_bytes)
        assert change.saves == (0 if change.option.startswith("--gpu") else before - total)
        assert change.saves > 0 or change.option.startswith("--gpu")


def test_changes_stand_cheapest_first() -> None:
    options = [change.option.split()[0] for change in fit("llama-3.1-8b", "a100-40gb", Workload(8192, 20)).changes]
    assert options == [
        "--kv-dtype", "--context", "--batch", "--weights", "--weights", "--weights", "--tp", "--gpu",
    ]  # fmt: skip
    found = fit("llama-3.1-8b", "a100-40gb", Workload(8192, 20))
    shorter, smaller = found.changes[1], found.changes[2]
    assert shorter.option == f"--context {found.largest_context}"
    assert smaller.option == f"--batch {found.largest_batch}"
    assert shorter.fits
    assert smaller.fits


def test_what_saves_nothing_is_not_proposed() -> None:
    found = fit("llama-3.1-70b", "t4", Workload(64), weights="awq-4bit", kv_dtype="fp8")
    assert not [change for change in found.changes if change.option in ("--kv-dtype fp8", "--weights awq-4bit")]


def test_a_workload_that_fits_needs_no_change() -> None:
    assert fit("phi-2", "a100-80gb", Workload(512)).changes == ()


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "llama-3.1-8b", "--gpu", "a100-40gb", "--context", "8192"]) == 0
    told = capsys.readouterr().out
    assert "largest batch    12 sequences of 8,192 tokens" in told
    assert "what to change" not in told
    assert main(["fit", "llama-3.1-70b", "--gpu", "a100-80gb"]) == 1
    told = capsys.readouterr().out
    assert "not one sequence of 4,096 tokens fits" in told
    assert "weights in 4 bits (AWQ)" in told
    assert "cheapest first" in told
    assert main(["fit", "phi-2", "--gpu", "a100-80gb", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] is True
    assert found["largest_context"] == 2048
    assert found["context_limited_by"] == "positions"
    assert found["fewest_gpus"] == {"gpus": 1, "tp": 1, "pp": 1}
    assert {each["gpu"] for each in found["gpus"]} == {gpu.id for gpu in gpus()}
    assert found["changes"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["llama-3.1-8b"], "the following arguments are required: --gpu"),
        (["llama-3.1-8b", "--gpu", "a1"], "GPU 'a1' is not in the catalogue"),
        (["llama-2-13b", "--gpu", "t4", "--tp", "3"], "tp: 3 GPUs cannot split 40 heads"),
        (["llama-2-13b", "--gpu", "t4", "--pp", "41"], "pp: 41 stages cannot share 40 layers"),
    ],
)
def test_a_wrong_call_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("vlmmem: error: ")
    assert message in error
    assert error.count("\n") == 1
