"""transformers: published GPU peaks, PyTorch's blocks, and what changed by release.

The peaks are those of Qwen's speed tables (vlmmem/measured/runs/transformers.json, fitted runs only): the published
script sums torch.cuda.max_memory_allocated over the GPUs and divides by 2**30. Two digits are printed.
"""

from statistics import mean

import pytest

from vlmmem import find_format, find_gpu, find_model
from vlmmem.engines import Reservation, Settings, reserve
from vlmmem.engines import transformers as engine
from vlmmem.engines.allocator import CachingAllocator, allocated_bytes
from vlmmem.engines.releases import Release, find_release
from vlmmem.errors import InputError
from vlmmem.measured import Run, runs
from vlmmem.memory import forward_moments, forward_peak_bytes
from vlmmem.model import Model
from vlmmem.record import replace

MIB, GIB = 2**20, 2**30

TABLES = tuple(run for run in runs() if run.id.startswith("qwentab-") and run.split == "fitted")


def _peak(run: Run) -> int:
    assert run.catalogue is not None
    assert run.input_tokens is not None
    assert run.output_tokens is not None
    settings = Settings(
        run.input_tokens + run.output_tokens,
        pp=run.gpus or 1,
        sequences=run.batch,
        weights=None if run.weights is None else find_format(run.weights),
        options=(("prompt_tokens", run.input_tokens), ("attention", "flash_attention_2")),
    )
    found = reserve(find_model(run.catalogue), f"transformers@{run.version}", settings)
    return int(dict(found.printed)["max_memory_allocated"])


class TestPublishedPeaks:
    def test_there_are_tables(self) -> None:
        assert len(TABLES) >= 40

    @pytest.mark.parametrize("run", TABLES, ids=lambda run: run.id)
    def test_within_three_percent(self, run: Run) -> None:
        printed = dict(run.measured)["total"]
        assert abs(_peak(run) / printed.bytes - 1) < 0.03

    def test_on_average_a_third_of_a_percent(self) -> None:
        off = [abs(_peak(run) / dict(run.measured)["total"].bytes - 1) for run in TABLES]
        assert mean(off) < 0.0035

    def test_prefills_are_right_to_a_thousandth(self) -> None:
        """Where the prefill of 30,720 tokens decides, nothing is left but the last digit and some 60 MiB."""
        for run in TABLES:
            if run.input_tokens == 30_720:
                printed = dict(run.measured)["total"]
                assert abs(_peak(run) - printed.bytes) < 70 * MIB, run.id

    def test_without_the_blocks_it_is_worse(self) -> None:
        """The planted fault: bytes of the tensors alone miss 144 MiB of 14B's matrices of 135 MiB."""
        model = find_model("qwen2.5-14b")
        plain = 2 * model.parameters
        loaded = engine._Peak(model, _release("4.46"), Settings(2048))._weights()[0]
        assert loaded - plain > 140 * MIB


def _release(version: str) -> Release:
    return find_release("transformers", engine.RELEASES, version)


class TestBlocks:
    """c10/cuda/CUDACachingAllocator.cpp: should_split, get_allocation_size."""

    @pytest.mark.parametrize(
        ("size", "counted"),
        [
            (1, 512),
            (MIB, MIB),
            (9 * MIB, 9 * MIB),  # out of a segment of 20 MiB
            (10 * MIB, 10 * MIB),
            (11 * MIB, 12 * MIB),  # 1 MiB is left: not split
            (int(10.5 * MIB), int(10.5 * MIB)),  # 1.5 MiB are left: split
            (int(129.5 * MIB), 130 * MIB),
        ],
    )
    def test_one_request(self, size: int, counted: int) -> None:
        assert CachingAllocator().take(size) == counted

    def test_the_rest_of_a_block_is_given_away_whole(self) -> None:
        # AWQ's scales of 1.01 MiB fall into the 1.625 MiB that its weights of 32.375 MiB leave
        assert allocated_bytes([int(32.375 * MIB), int(1.01 * MIB)]) == 34 * MIB

    def test_nothing(self) -> None:
        assert allocated_bytes([0, -1]) == 0


class TestReleases:
    def test_logits_of_all_tokens_until_4_45(self) -> None:
        model = find_model("llama-3.1-8b")
        assert [engine.logit_bytes(model, _release(each)) for each in ("4.44", "4.45", "4.46")] == [6, 0, 0]

    def test_a_prompt_costs_six_bytes_a_row_of_the_vocabulary(self) -> None:
        model = find_model("qwen2.5-7b")
        tokens = 8192
        old, new = (
            dict(reserve(model, f"transformers@{each}", Settings(tokens)).printed)["prefill"]
            for each in ("4.44.2", "4.46.0")
        )
        tables = 2 * model.layers * model.max_positions * model.head_dim * 2
        mlp = forward_moments(model, tokens)["mlp"]
        hidden = 2 * tokens * model.hidden_size
        assert old - new == 6 * tokens * model.vocab_size + hidden - mlp + tables

    def test_sliding_layers_are_cut_since_4_56(self) -> None:
        model, settings = find_model("mistral-7b"), Settings(16384)
        old, new = (reserve(model, f"transformers@{each}", settings).bytes_of("kv_cache") for each in ("4.54", "4.56"))
        assert old == 4 * new

    def test_gemma_has_a_static_cache(self) -> None:
        found = reserve(find_model("gemma-2-9b"), "transformers@4.46", Settings(8192))
        assert dict(found.settings)["cache"] == "static"

    def test_eager_attention_writes_its_scores(self) -> None:
        model = find_model("llama-2-7b")
        plain, eager = (
            reserve(model, "transformers", Settings(4096, options=(("attention", each),))).bytes_of("activations")
            for each in ("sdpa", "eager")
        )
        assert eager > plain + 6 * 32 * 4096**2 - GIB

    def test_the_newest_is_the_checked_closed_form(self) -> None:
        """Weights, cache and `forward_peak_bytes`, and nothing but blocks and workspaces beside them."""
        model = find_model("llama-3.1-8b")
        found = reserve(model, "transformers@5.23", Settings(8192))
        assert found.bytes_of("activations") == forward_peak_bytes(model, 8192)

    def test_an_unknown_release_says_whose_rules_count(self) -> None:
        found = reserve(find_model("llama-3.1-8b"), "transformers@4.30", Settings(8192))
        assert found.notes[0] == "transformers 4.30 was not read: the rules of 4.36 are used"


RECORDS = {run.id: run for run in runs() if run.provenance == "harness" and run.option("device") == "fake"}


def _bytes(run: Run, name: str) -> int:
    return dict(run.measured)[name].bytes


def _asked(run: Run) -> tuple[Model, Settings]:
    assert run.catalogue is not None
    assert run.input_tokens is not None
    settings = Settings(
        run.input_tokens + 1,
        sequences=run.batch,
        images=run.images or None,
        image_size=run.image_size,
        options=(("prompt_tokens", run.input_tokens),),
    )
    return find_model(run.catalogue), settings


def _over_weights(found: Reservation, moment: str) -> int:
    """Bytes of a moment that are neither weights nor workspaces."""
    beside = sum(term.bytes for term in found.terms if term.name in ("weights", "runtime:workspaces"))
    return int(dict(found.printed)[moment]) - beside


class TestRecordedPasses:
    """transformers 5.23.0 on fake tensors, as the harness recorded it."""

    @pytest.mark.parametrize("run", [run for name, run in RECORDS.items() if "llava" in name], ids=lambda run: run.id)
    def test_a_prefill_with_images_to_the_byte(self, run: Run) -> None:
        model, settings = _asked(run)
        count = (run.images or 0) * (run.batch or 1)
        pixels = count * 3 * 336 * 336 * 4
        over = _bytes(run, "peak") - sum(_bytes(run, name) for name in ("weights", "buffers", "inputs"))
        assert _over_weights(reserve(model, "transformers@5.23.0", settings), "prefill") == over + pixels
        # The fault: v5.10's rules, by which features wait once and nothing of the tower stays.
        older = _over_weights(reserve(model, "transformers@5.10.0", settings), "prefill")
        mask = (run.batch or 1) * (run.input_tokens or 0)
        assert over + pixels - older == count * (576 * 5120 + 2 * 577 * 1024) * 2 + mask

    def test_generate_keeps_what_the_tower_gave(self) -> None:
        model, settings = _asked(RECORDS["fake-llava-1.5-13b-1x2048-1images-bf16"])
        new, old = (
            _over_weights(reserve(model, f"transformers@{each}", settings), "last_step") for each in ("5.23", "5.10")
        )
        assert new - old == (576 * 5120 + 2 * 577 * 1024) * 2

    @pytest.mark.parametrize("run", [run for name, run in RECORDS.items() if "gemma" in name], ids=lambda run: run.id)
    def test_a_sliding_layer_keeps_the_prompts_storage(self, run: Run) -> None:
        model, settings = _asked(run)
        peak = engine._Peak(model, _release("5.23"), settings)
        counters = 8 * model.layers  # a tensor of one number in each sliding layer
        assert run.input_tokens is not None
        assert -counters <= peak.kept(run.input_tokens, cut=False) - _bytes(run, "cache") <= 0
        assert -counters <= peak.kept(settings.context) - _bytes(run, "cache_after") <= 0
        # The fault: a prompt cut at once.
        assert peak.kept(run.input_tokens) < 0.4 * _bytes(run, "cache")
        stands = sum(_bytes(run, name) for name in ("weights", "buffers", "inputs"))
        if not run.images:
            step = _over_weights(reserve(model, "transformers@5.23.0", settings), "last_step")
            assert step == pytest.approx(_bytes(run, "decode_peak") - stands, rel=0.01)

    def test_tokens_beyond_the_windows_are_told_and_counted_once(self) -> None:
        model, settings = find_model("mistral-7b"), Settings(16384)
        old, new = (reserve(model, f"transformers@{each}", settings) for each in ("4.54", "4.56"))
        assert _over_weights(old, "prefill") == _over_weights(new, "prefill")
        told = {term.name: term.formula for term in new.terms}["activations"]
        assert told.endswith(f", {131_072 * (16384 - 4096):,} B of tokens beyond the windows among it")
        assert "beyond" not in {term.name: term.formula for term in old.terms}["activations"]
        static = reserve(model, "transformers@4.56", replace(settings, options=(("cache", "static"),)))
        assert _over_weights(new, "prefill") - _over_weights(static, "prefill") == 131_072 * (16384 - 4096)


class TestSettings:
    def test_a_longer_answer_ends_in_the_last_step(self) -> None:
        found = reserve(find_model("llama-2-13b"), "transformers", Settings(4096, options=(("prompt_tokens", 8),)))
        printed = dict(found.printed)
        assert printed["max_memory_allocated"] == printed["last_step"] > printed["prefill"]

    def test_images(self) -> None:
        model = find_model("llava-1.5-7b")
        plain = reserve(model, "transformers", Settings(1024))
        seen = reserve(model, "transformers", Settings(1024, images=1, image_size=(336, 336)))
        assert seen.bytes_of("activations") > plain.bytes_of("activations")

    def test_hopper_has_a_larger_workspace(self) -> None:
        model = find_model("llama-3.1-8b")
        sizes = [
            next(
                term.bytes
                for term in reserve(model, "transformers", Settings(64, gpu=find_gpu(gpu))).terms
                if term.name == "runtime:workspaces"
            )
            for gpu in ("a100-80gb", "h100-80gb")
        ]
        assert sizes == [8_519_680, 32 * MIB]

    @pytest.mark.parametrize(
        ("option", "line"),
        [
            (("attention", "magic"), "one of sdpa, flash_attention_2, eager is needed"),
            (("cache", "offloaded"), "one of dynamic, static is needed"),
            (("prompt_tokens", 0), "a positive integer is needed"),
            (("prompt_tokens", 9000), "more than the context"),
        ],
    )
    def test_bad_input_is_one_line(self, option: tuple[str, str | int], line: str) -> None:
        with pytest.raises(InputError, match=line):
            reserve(find_model("llama-3.1-8b"), "transformers", Settings(8192, options=(option,)))


class TestAutoAwq:
    """AutoAWQ's README: its benchmark prints torch.cuda.max_memory_allocated / 2**30."""

    @pytest.mark.parametrize(
        ("model", "batch", "prompt", "printed", "off"),
        [
            ("mistral-7b", 1, 64, 4.35, 0.03),  # loading decides
            ("mistral-7b", 1, 2048, 5.55, 0.003),
            ("mistral-7b", 8, 2048, 16.82, 0.003),
            ("mpt-7b", 1, 64, 3.67, 0.005),  # the warm-up decides
            ("mpt-7b", 1, 2048, 5.87, 0.01),
            ("falcon-7b", 1, 2048, 6.83, 0.02),
        ],
    )
    def test_readme(self, model: str, batch: int, prompt: int, printed: float, off: float) -> None:
        options = (("prompt_tokens", prompt), ("library", "autoawq"))
        settings = Settings(2 * prompt, sequences=batch, weights=find_format("awq-4bit"), options=options)
        found = reserve(find_model(model), "transformers", settings)
        assert dict(found.printed)["max_memory_allocated"] / GIB == pytest.approx(printed, rel=off)

    def test_experts_are_not_priced(self) -> None:
        settings = Settings(64, weights=find_format("awq-4bit"), options=(("library", "autoawq"),))
        with pytest.raises(InputError, match="fused experts are not priced"):
            reserve(find_model("mixtral-8x7b"), "transformers", settings)
