"""The simulations: what must be conserved, cases worked by hand, the paper's figures, and the same draws everywhere."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import log
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmmem import kv_bytes_per_token, parse_size
from vlmmem.errors import InputError
from vlmmem.memory.paging import blocks_needed, shared_blocks
from vlmmem.serving import (
    LENGTHS,
    MEASURED,
    BlockPool,
    Lengths,
    Occupancy,
    Request,
    continuous_batching,
    draw_requests,
    exponential_factor,
    kv_occupancy,
    live_tokens,
    static_batching,
)
from vlmmem.serving.occupancy import POLICIES

# Table 1 of arXiv 2309.06180: 12 GB for OPT-13B's cache, 15.7K slots. With binary units and the shape of LLaMA-2 13B.
POOL = parse_size("12 GiB") // kv_bytes_per_token("llama-2-13b")


def shares(held: Occupancy) -> list[float]:
    parts = (held.tokens, held.reserved, held.internal, held.external)
    return [float(100 * part / held.pool) for part in parts]


# --- lengths ---------------------------------------------------------------------------------------------------------


def test_the_draws_are_the_same_everywhere() -> None:
    # Python promises the sequence of random(), and of nothing else of the generator; so these stand on every version.
    assert [Random(7).random() for _ in range(1)] == [0.32383276483316237]
    assert draw_requests("ShareGPT", 3, seed=7) == [Request(175, 686), Request(57, 193), Request(92, 322)]
    assert draw_requests("Alpaca", 2, seed=7) == [Request(22, 122), Request(12, 31)]
    # Python 3.11, 3.12 and 3.13 agree on all of the 6,000 that the paging page draws.
    assert sum(map(sum, draw_requests("ShareGPT", 6000, seed=1))) == 3_009_177


def test_only_the_promised_method_is_called() -> None:
    class Promised(Random):
        def random(self) -> float:
            self.calls = getattr(self, "calls", 0) + 1
            return 0.5

        def getrandbits(self, k: int, /) -> int:
            raise AssertionError(f"getrandbits({k}), on which the other methods rest, is not promised")

    generator = Promised(1)
    assert Lengths("uniform", 100).draw(generator, 2048) == round(1 + 0.5 * 199)
    assert Lengths("exponential", 100).draw(generator, 2048) == round(100 * log(2))
    assert Lengths("lognormal", 100, 1.0).draw(generator, 2048) > 0
    assert generator.calls == 4


@pytest.mark.parametrize("shape", ["fixed", "uniform", "exponential", "lognormal"])
def test_means_and_spreads(shape: str) -> None:
    generator = Random(3)
    drawn = [Lengths(shape, 300, 0.7).draw(generator, 10**6) for _ in range(20_000)]
    mean = sum(drawn) / len(drawn)
    spread = (sum((one - mean) ** 2 for one in drawn) / len(drawn)) ** 0.5 / mean
    assert mean == pytest.approx(300, rel=0.02)
    wanted = {"fixed": 0, "uniform": 1 / 3**0.5, "exponential": 1, "lognormal": 0.7}
    assert spread == pytest.approx(wanted[shape], abs=0.02)


def test_lengths_stay_within_the_limit() -> None:
    for workload in LENGTHS:
        for prompt, answer in draw_requests(workload, 500, seed=2, longest=300):
            assert prompt >= 1
            assert answer >= 1
            assert prompt + answer <= 300


def test_the_shortest_limit_holds_one_token_each() -> None:
    assert draw_requests("long answers", 2, seed=1, longest=2) == [Request(1, 1), Request(1, 1)]
    assert draw_requests("long answers", 1, seed=1, longest=100) == [Request(99, 1)]


def test_the_other_workloads_keep_the_prompts_and_the_limit() -> None:
    prompt, answer = (each.mean for each in LENGTHS["ShareGPT"])
    assert [each.mean for each in LENGTHS["fixed"]] == [prompt, answer]
    uniform, filled = LENGTHS["uniform to the limit"], LENGTHS["long answers"]
    assert uniform[0].mean == filled[0].mean == prompt
    # answers up to the limit of 2,048, and answers that reach it
    assert 2 * uniform[1].mean == filled[1].mean == 2048 - round(prompt) - 1


def test_the_means_are_the_papers() -> None:
    # figure 11
    means = {name: [each.mean for each in LENGTHS[name]] for name in ("ShareGPT", "Alpaca")}
    assert means == {"ShareGPT": [161.31, 337.99], "Alpaca": [19.31, 58.45]}
    # section 6.1: prompts 8.4 times, answers 5.8 times as long
    assert [round(one / two, 1) for one, two in zip(*means.values(), strict=True)] == [8.4, 5.8]


# --- a full server ---------------------------------------------------------------------------------------------------


def test_the_pool_is_the_papers() -> None:
    assert POOL == 15_728  # table 1: 15.7K


@pytest.mark.parametrize("policy", ["max", "pow2", "oracle"])
def test_figure_2_and_figure_13_come_out(policy: str) -> None:
    held = kv_occupancy(policy, draw_requests("ShareGPT", 6000, seed=1), POOL, steps=60_000, warm_up=1000)
    printed = [float(100 * (share or 0)) for share in MEASURED[policy][:4]]
    batch = float(MEASURED[policy].batch)
    assert sum(printed) == pytest.approx(100, abs=0.1)
    # The spread of the answers is set by the first bar; the other two bars are what the simulation says.
    assert shares(held) == pytest.approx(printed, abs=5)
    assert float(held.batch) == pytest.approx(batch, rel=0.05)
    if policy == "max":
        assert shares(held) == pytest.approx(printed, abs=0.5)
        assert held.batch == 7
        assert round(float(100 * held.unallocated / POOL), 1) == 8.9


def test_blocks_leave_little() -> None:
    held = kv_occupancy("paged", draw_requests("ShareGPT", 6000, seed=1), POOL, steps=3000, warm_up=1000)
    # The launch post says under 4 %.
    assert float(held.waste) == pytest.approx(float(1 - MEASURED["paged"].tokens), abs=0.01)
    assert held.waste < Fraction("0.04")
    assert held.reserved == held.rounding == 0


def test_what_a_running_request_holds() -> None:
    # 7 chunks of 2,048; the paper's bar is 20.4 %.
    per_request = live_tokens(161.31, 337.99, 0.87)
    assert 100 * 7 * per_request / POOL == pytest.approx(20.4, abs=0.2)
    assert live_tokens(10, 20, 0) == 20
    assert live_tokens(10, 20, 2) == 60


def parts(held: Occupancy) -> list[float]:
    return [float(part) for part in (held.tokens, held.reserved, held.internal, held.rounding, held.unallocated)]


def test_one_request_by_hand() -> None:
    # Prompt 3, answer 5, 16 slots: tokens 4, 5, 6, 7, 8; then it leaves and the next one starts.
    whole = kv_occupancy("max", [Request(3, 5)], pool=16, steps=5, longest=16)
    assert parts(whole) == [6, 2, 8, 0, 0]
    assert (float(whole.batch), float(whole.waste), float(whole.external)) == (1, 10 / 16, 0)
    # Known beforehand: a chunk of 8, twice; 7 with first fit as asked would leave 2.
    assert parts(kv_occupancy("oracle", [Request(3, 4)], pool=16, steps=4, longest=16)) == [11, 3, 0, 2, 0]
    exact = kv_occupancy("oracle", [Request(3, 4)], pool=16, steps=4, longest=16, buddies=False)
    assert parts(exact) == [11, 3, 0, 0, 2]
    # In blocks of 4: 6, 7 and 8 tokens in two blocks.
    paged = kv_occupancy("paged", [Request(5, 3)], pool=11, steps=3, block=4)
    assert parts(paged) == [7, 0, 1, 0, 3]
    assert paged.waste_of_allocated == Fraction(1, 8)


def test_first_fit_leaves_holes() -> None:
    # Two chunks of 6 in 16 slots leave 4; the third request wants 5 and waits, though together 10 become free.
    waiting = [Request(1, 5), Request(1, 5), Request(1, 4)]
    held = kv_occupancy("oracle", waiting, pool=16, steps=5, buddies=False)
    assert (float(held.batch), float(held.unallocated)) == (2, 4)


def test_the_youngest_gives_way() -> None:
    # Two requests of 2 + 6 tokens in 12 slots of blocks of 4: both want a third block and one is left.
    held = kv_occupancy("paged", [Request(2, 6), Request(2, 6), Request(9, 2)], pool=12, steps=6, block=4)
    assert held.preemptions == 1
    assert held.batch < 2


def test_a_preempted_request_keeps_what_it_has_written() -> None:
    # Every answer is written once: tokens generated equal the running requests summed over the steps.
    waiting = [Request(4, 12), Request(4, 12)]
    once = kv_occupancy("paged", waiting, pool=24, steps=16, block=4)
    assert once.preemptions >= 1
    assert once.batch * 16 <= 24 + 12


@given(
    st.lists(
        st.tuples(st.integers(1, 30), st.integers(1, 30)).map(lambda pair: Request(*pair)), min_size=1, max_size=8
    ),
    st.sampled_from(POLICIES),
    st.integers(64, 200),
    st.integers(1, 60),
    st.booleans(),
)
def test_every_slot_is_somewhere(waiting: Sequence[Request], policy: str, pool: int, steps: int, buddies: bool) -> None:
    held = kv_occupancy(policy, waiting, pool, steps, longest=64, block=4, buddies=buddies)
    every = (held.tokens, held.reserved, held.internal, held.rounding, held.unallocated)
    assert sum(every) == pool
    assert min(every) >= 0
    assert held.external == held.rounding + held.unallocated
    assert held.waste == 1 - held.tokens / pool
    if policy == "paged":
        assert held.internal <= 3 * held.batch


@given(st.integers(0, 50))
def test_a_warm_up_is_left_out_whole(warm_up: int) -> None:
    waiting = [Request(1, 7)]
    late = kv_occupancy("max", waiting, pool=8, steps=7, longest=8, warm_up=7 * warm_up)
    assert late == kv_occupancy("max", waiting, pool=8, steps=7, longest=8)


# --- blocks with owners ----------------------------------------------------------------------------------------------


def test_figure_8_step_by_step() -> None:
    pool = BlockPool(blocks=9, block=4)
    pool.append("A1", 7)
    pool.fork("A1", "A2")
    assert pool.tables["A1"] == pool.tables["A2"]
    assert [pool.owners[block] for block in pool.tables["A1"]] == [2, 2]
    pool.append("A1", 1)  # shared: copied, and the count of the old one falls to 1
    assert pool.copies == 1
    assert [pool.owners[block] for block in pool.tables["A2"]] == [2, 1]
    pool.append("A2", 1)  # its own now: written in place
    assert (pool.copies, pool.used) == (1, 3)


@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 40), st.integers(1, 16))
def test_sharing_takes_the_blocks_that_the_formula_says(sequences: int, prefix: int, own: int, block: int) -> None:
    pool = BlockPool(blocks=1000, block=block)
    pool.append(0, prefix)
    for name in range(1, sequences):
        pool.fork(0, name)
    for _ in range(own):
        for name in range(sequences):
            pool.append(name, 1)
    assert pool.used == shared_blocks(sequences, prefix, own, block)
    assert pool.used <= sequences * blocks_needed(prefix + own, block)


@given(
    st.lists(st.tuples(st.sampled_from(["append", "fork", "free"]), st.integers(0, 5), st.integers(1, 9)), max_size=40)
)
def test_no_block_is_lost_and_none_has_two_owners_unawares(actions: list[tuple[str, int, int]]) -> None:
    pool = BlockPool(blocks=30, block=4)
    for action, name, number in actions:
        try:
            if action == "append":
                pool.append(name, number)
            elif action == "fork":
                pool.fork(name, number % 6)
            else:
                pool.free(name)
        except InputError:
            continue
        owned = [block for table in pool.tables.values() for block in table]
        assert pool.used + pool.free_blocks == pool.blocks
        assert pool.used == len(set(owned))
        assert all(pool.owners[block] == owned.count(block) for block in range(pool.blocks))
        assert pool.stored_tokens <= pool.used * pool.block
        for held, table in pool.tables.items():
            assert len(table) == -(-pool.lengths[held] // pool.block)
    for left in list(pool.tables):
        pool.free(left)
    assert (pool.used, pool.stored_tokens, sum(pool.owners)) == (0, 0, 0)


def test_a_shared_token_is_stored_once() -> None:
    pool = BlockPool(blocks=9, block=4)
    pool.append("A", 6)
    pool.fork("A", "B")
    assert pool.stored_tokens == 6
    pool.append("B", 1)
    assert pool.stored_tokens == 4 + 2 + 3


def test_blocks_that_an_append_will_take() -> None:
    pool = BlockPool(blocks=9, block=4)
    pool.append("A", 6)
    assert [pool.needed("A", tokens) for tokens in (0, 1, 2, 3, 7)] == [0, 0, 0, 1, 2]
    pool.fork("A", "B")
    # the last block is shared: one more for its copy
    assert [pool.needed("B", tokens) for tokens in (0, 1, 2, 3, 7)] == [0, 1, 1, 2, 3]
    pool.append("C", 8)
    pool.fork("C", "D")
    # full blocks are never copied
    assert [pool.needed("D", tokens) for tokens in (0, 1, 4, 5)] == [0, 1, 1, 2]
    assert [pool.needed("new", tokens) for tokens in (0, 1, 4, 5)] == [0, 1, 1, 2]
    pool.append("A", 0)
    assert pool.lengths["A"] == 6


def test_a_refused_append_changes_nothing() -> None:
    pool = BlockPool(blocks=2, block=4)
    pool.append("A", 7)
    pool.fork("A", "B")
    with pytest.raises(InputError, match=r"^tokens: 1 blocks are needed and 0 are free$"):
        pool.append("B", 1)
    assert (pool.tables["A"], pool.lengths["B"], pool.copies) == (pool.tables["B"], 7, 0)


@pytest.mark.parametrize(
    ("workload", "low", "high"),
    # section 6.3: blocks saved by sharing, parallel sampling of 2 to 6 answers
    [("ShareGPT", 16.2, 30.5), ("Alpaca", 6.1, 9.8)],
)
def test_parallel_samples_save_what_the_paper_measured(workload: str, low: float, high: float) -> None:
    saved = []
    for sequences in (2, 6):
        shared = apart = 0
        for prompt, answer in draw_requests(workload, 300, seed=1):
            for own in range(1, answer + 1, 7):
                shared += shared_blocks(sequences, prompt, own)
                apart += sequences * blocks_needed(prompt + own)
        saved.append(100 * (1 - shared / apart))
    assert saved == pytest.approx([low, high], abs=3)


# --- batches ---------------------------------------------------------------------------------------------------------


def test_the_drawing_of_static_batching() -> None:
    # inference, lines 274 to 278
    drawn = static_batching(3, 12, 4, 8)
    assert (drawn.steps, drawn.tokens, drawn.slot_steps, drawn.idle) == (12, 24, 36, 12)
    assert drawn.busy == (3,) * 4 + (2,) * 4 + (1,) * 4


def test_the_drawing_of_continuous_batching() -> None:
    # inference, lines 282 to 288: as drawn B has 3 tokens and C has 6
    drawn = continuous_batching(3, 12, 3, 6, 9, 9)
    assert drawn.finished[1:3] == (3, 6)
    assert drawn.started[3:] == (4, 7)
    # with the lengths that the drawing of static batching gives
    assert continuous_batching(3, 12, 4, 8, 9, 9).started[3:] == (5, 9)


def test_two_batches_by_hand() -> None:
    both = [schedule(2, 5, 1, 2, 4) for schedule in (static_batching, continuous_batching)]
    assert [(each.steps, each.idle) for each in both] == [(9, 6), (7, 2)]
    assert both[0].started == (1, 1, 6, 6)
    assert both[1].started == (1, 1, 2, 4)
    assert both[1].busy == (2, 2, 2, 2, 2, 1, 1)


@given(st.integers(1, 6), st.lists(st.integers(1, 30), min_size=1, max_size=30))
def test_every_slot_step_is_busy_or_idle(slots: int, answers: list[int]) -> None:
    static, continuous = static_batching(slots, *answers), continuous_batching(slots, *answers)
    for each in (static, continuous):
        assert each.tokens == sum(answers) == sum(each.busy)
        assert each.tokens + each.idle == each.slot_steps == slots * each.steps
        assert max(each.busy) <= slots
        assert all(
            last - first + 1 == length for first, last, length in zip(each.started, each.finished, answers, strict=True)
        )
    assert continuous.steps <= static.steps
    assert continuous.steps >= max(*answers, -(-sum(answers) // slots))


@pytest.mark.parametrize("slots", [1, 3, 8, 32])
def test_exponential_answers_give_the_harmonic_number(slots: int) -> None:
    generator = Random(5)
    answers = [Lengths("exponential", 3000).draw(generator, 10**7) for _ in range(400 * slots)]
    static, continuous = static_batching(slots, *answers), continuous_batching(slots, *answers)
    assert static.steps / continuous.steps == pytest.approx(float(exponential_factor(slots)), rel=0.06)


def test_where_the_factor_is_two_and_five() -> None:
    assert exponential_factor(1) == 1
    assert exponential_factor(3) < 2 < exponential_factor(4)
    assert exponential_factor(82) < 5 < exponential_factor(83)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: draw_requests("chat", 1, 1), "workload: 'chat' is not known; one of ShareGPT"),
        (lambda: draw_requests("Alpaca", 0, 1), "count: 0 was given; a positive integer is needed"),
        (lambda: draw_requests("Alpaca", 1, 1, 1), "longest: 1 was given; an integer of at least 2 is needed"),
        (lambda: Lengths("normal", 9).draw(Random(1), 9), "shape: 'normal' is not known; fixed, uniform"),
        (lambda: kv_occupancy("best", [Request(1, 1)], 9, 1), "policy: 'best' is not known; one of max, pow2"),
        (lambda: kv_occupancy("max", [], 9, 1), "waiting: no request was given; at least one is needed"),
        (lambda: kv_occupancy("max", [Request(1, 1)], 9, 0), "steps: 0 was given; a positive integer is needed"),
        (lambda: kv_occupancy("max", [Request(1, 1)], 9, 1, warm_up=-1), "warm_up: -1 was given; 0 or a positive"),
        (lambda: kv_occupancy("max", [Request(1, 1)], 9, 1, longest=10), "pool: empty, and no room for a chunk of 10"),
        (lambda: kv_occupancy("paged", [Request(9, 9)], 16, 1), "pool: 1 blocks, too few for a request of 18 tokens"),
        (lambda: static_batching(0, 1), "slots: 0 was given; a positive integer is needed"),
        (lambda: static_batching(1), "answers: none was given; at least one length is needed"),
        (lambda: continuous_batching(1, 0), "answers: 0 was given; a positive integer is needed"),
        (lambda: exponential_factor(0), "slots: 0 was given; a positive integer is needed"),
        (lambda: BlockPool(0), "blocks: 0 was given; a positive integer is needed"),
        (lambda: BlockPool(1, 0), "block: 0 was given; a positive integer is needed"),
        (lambda: BlockPool(1).append("A", -1), "tokens: -1 was given; 0 or a positive integer is needed"),
        (lambda: BlockPool(1).fork("A", "B"), "fork: from 'A' to 'B'; a sequence that is there and a new name"),
        (lambda: BlockPool(1).free("A"), "free: 'A' holds no blocks"),
    ],
)
def test_what_cannot_be(call: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value).startswith(words)
