"""The fewest GPUs: what an inequality over the footprint gives, and sizes that split the heads."""

import pytest

from vlmmem import InputError, Parallelism, Workload, estimate, fewest_gpus, find_gpu, find_model, models


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
