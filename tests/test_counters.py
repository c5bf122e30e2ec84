"""Readings become intervals: each trap of cumulative counters, and the arithmetic for all of them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greend.clock import NS
from greend.counters import CounterBook, Position, increase
from greend.types import CounterKey, Interval, IntervalFlag, Kind, Reading

KEY = CounterKey("rapl", "package-0", "package_energy_uj")
RANGE = 262_143_328_850
KW2 = 2e9
NONE, WRAP, RESET, GAP, AMBIGUOUS = (
    IntervalFlag.NONE, IntervalFlag.WRAP, IntervalFlag.RESET, IntervalFlag.GAP, IntervalFlag.AMBIGUOUS,
)  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "wraps_at", "max_rate", "dt_s", "expected"),
    [
        pytest.param(100, 150, None, None, 1, (50, NONE), id="it grew"),
        pytest.param(100, 100, RANGE, KW2, 1, (0, NONE), id="it stood still"),
        pytest.param(RANGE - 10, 40, RANGE, KW2, 1, (50, WRAP), id="it wrapped"),
        pytest.param(RANGE - 10, 40, RANGE, None, 1, (50, WRAP), id="it wrapped, with no known rate"),
        pytest.param(5e10, 5e7, RANGE, KW2, 1, (5e7, RESET), id="a wrap would be 212 kW: it restarted"),
        pytest.param(5e10, 5e7, None, KW2, 1, (5e7, RESET), id="it never wraps: it restarted"),
        pytest.param(500, 400, None, 10, 1, (None, RESET), id="it restarted, and grew faster than it can"),
        pytest.param(0, 1e12, None, KW2, 1, (None, RESET), id="a jump up that no hardware makes"),
        pytest.param(
            0, 7e7, None, 7e8, 1e-3, (7e7, NONE), id="a refresh of before shows up in a short interval"
        ),
        pytest.param(100, 150, RANGE, KW2, 132, (50, AMBIGUOUS), id="2 kW could have filled the range"),
        pytest.param(RANGE - 10, 40, RANGE, KW2, 132, (50, WRAP | AMBIGUOUS), id="at least one turn"),
    ],
)
def test_what_a_counter_grew_by_and_what_happened_to_it(
    before: float,
    after: float,
    wraps_at: float | None,
    max_rate: float | None,
    dt_s: float,
    expected: tuple[float | None, IntervalFlag],
) -> None:
    actual = increase(before, after, wraps_at, max_rate, dt_s)

    assert expected == actual


def rapl(value: float) -> Reading:
    return Reading(KEY, float(value), "uJ", wraps_at=RANGE, max_rate=KW2)


def run(book: CounterBook, *values: float | None, start_s: float = 1000.0) -> list[Interval]:
    """Feed one reading a second; None is a failed read."""
    intervals: list[Interval] = []
    for tick, value in enumerate(values):
        readings = [] if value is None else [rapl(value)]
        intervals += book.update(readings, round((start_s + tick) * NS))
    return intervals


def amounts(intervals: list[Interval]) -> list[tuple[float, IntervalFlag]]:
    return [(interval.amount, interval.flags) for interval in intervals]


def test_the_first_sight_of_a_counter_yields_nothing() -> None:
    assert run(CounterBook(), 1e11) == []


def test_an_interval_says_from_when_to_when_it_is() -> None:
    (interval,) = run(CounterBook(), 10, 60)

    assert interval == Interval(KEY, "uJ", 50, 1000 * NS, 1001 * NS)
    assert interval.seconds == 1.0


def test_several_wraps_are_counted_one_by_one() -> None:
    step = 40e9
    values = [(step * tick) % RANGE for tick in range(20)]
    book = CounterBook()
    intervals: list[Interval] = []
    for tick, value in enumerate(values):
        intervals += book.update([rapl(value)], tick * 40 * NS)

    assert sum(interval.amount for interval in intervals) == step * 19
    assert sum(WRAP in interval.flags for interval in intervals) == 2


def test_a_counter_that_restarts_costs_one_interval_and_not_a_whole_range() -> None:
    intervals = run(CounterBook(), 5.00e10, 5.01e10, 3e7, 8e7)

    assert amounts(intervals) == [(1e8, NONE), (3e7, RESET), (5e7, NONE)]


def test_a_failed_read_is_recovered_by_the_next_one() -> None:
    intervals = run(CounterBook(), 100, 200, None, None, 500, 600)

    assert amounts(intervals) == [(100, NONE), (300, GAP), (100, NONE)]
    assert intervals[1].seconds == 3.0


def test_a_counter_whose_read_failed_is_awaited_until_it_is_back() -> None:
    book = CounterBook()
    run(book, 100, None)

    assert book.awaited() == {KEY}

    run(book, 300, start_s=1002)
    assert book.awaited() == frozenset()


def test_a_counter_that_stays_away_is_forgotten_and_then_seen_for_the_first_time() -> None:
    book = CounterBook(forget_s=30)
    run(book, 100, *[None] * 31)

    assert book.awaited() == frozenset()
    assert run(book, 1e10, start_s=1032) == []


def test_a_late_tick_is_a_gap_though_no_read_failed() -> None:
    book = CounterBook(period_s=1.0)
    book.update([rapl(0)], 0)
    on_time = book.update([rapl(10)], round(1.4 * NS))
    late = book.update([rapl(20)], round(3.0 * NS))

    assert amounts(on_time + late) == [(10, NONE), (10, GAP)]


def test_two_updates_at_one_instant_lose_nothing() -> None:
    book = CounterBook()
    book.update([rapl(10)], NS)

    assert book.update([rapl(12)], NS) == []
    assert amounts(book.update([rapl(15)], 2 * NS)) == [(5, NONE)]


@pytest.mark.parametrize(("unit", "integral"), [("W", "J"), ("GB", "GB.s"), ("1", "s"), ("lx", "lx.s")])
def test_a_gauge_is_integrated_by_the_trapezoid_rule(unit: str, integral: str) -> None:
    key = CounterKey("nvml", "gpu-0", "power_w")
    book = CounterBook()
    book.update([Reading(key, 100, unit, Kind.GAUGE)], 0)
    (interval,) = book.update([Reading(key, 200, unit, Kind.GAUGE)], 2 * NS)

    assert (interval.amount, interval.unit) == (300, integral)


def test_what_was_used_while_the_daemon_was_down_is_one_interval_marked_as_a_gap() -> None:
    before = CounterBook()
    run(before, 100, 200)
    after = CounterBook()
    after.restore(before.positions(), 1060 * NS)

    assert amounts(run(after, 5200, 5300, start_s=1061)) == [(5000, GAP), (100, NONE)]


def test_a_restored_counter_that_nobody_reads_any_more_is_not_awaited() -> None:
    book = CounterBook()
    book.restore({KEY: Position(100, 1)}, 1000 * NS)
    run(book, None)

    assert book.awaited() == frozenset()


def test_positions_from_the_future_are_of_another_boot() -> None:
    book = CounterBook()
    book.restore({KEY: Position(100, 5000 * NS)}, 10 * NS)

    assert run(book, 200, start_s=11) == []


def test_restoring_does_not_touch_a_counter_that_was_read_already() -> None:
    book = CounterBook()
    run(book, 100)
    book.restore({KEY: Position(0, 1)}, 1001 * NS)

    assert amounts(run(book, 150, start_s=1001)) == [(50, NONE)]


def test_gauges_have_no_memory() -> None:
    book = CounterBook()
    book.update([Reading(CounterKey("nvml", "gpu-0", "power_w"), 100, "W", Kind.GAUGE)], 0)

    assert book.positions() == {}


steps = st.lists(
    # (seconds, mean watts, whether the read works): below 2 kW and one turn between two reads.
    st.tuples(st.floats(0.01, 60), st.integers(0, 1990), st.booleans()), min_size=1, max_size=60,
)  # fmt: skip


@settings(deadline=None)  # a busy machine is not a wrong answer
@given(start=st.integers(0, RANGE - 1), schedule=steps)
def test_the_intervals_add_up_to_the_true_growth_whatever_the_schedule(
    start: int, schedule: list[tuple[float, int, bool]]
) -> None:
    book = CounterBook(forget_s=1e9)
    book.update([rapl(start)], 0)
    true_uj, now_ns, read_ns, read_uj = 0, 0, 0, 0
    intervals: list[Interval] = []
    for seconds, watts, works in schedule:
        now_ns += round(seconds * NS)
        true_uj += watts * round(seconds * 1e6)
        # More than one turn between two reads cannot be told; the book says so instead (AMBIGUOUS).
        works = works or now_ns - read_ns > 60 * NS
        readings = [rapl((start + true_uj) % RANGE)] if works else []
        intervals += book.update(readings, now_ns)
        if works:
            read_ns, read_uj = now_ns, true_uj

    assert sum(interval.amount for interval in intervals) == read_uj
    assert not any(RESET in interval.flags for interval in intervals)
    assert all(a.end_ns == b.start_ns for a, b in pairwise(intervals))


@settings(deadline=None)  # a busy machine is not a wrong answer
@given(
    before=st.floats(0, 1e13), after=st.floats(0, 1e13), dt_s=st.floats(1e-6, 1e6),
    wraps_at=st.none() | st.floats(1, 1e12), max_rate=st.none() | st.floats(1, 1e12),
)  # fmt: skip
def test_no_counter_ever_grows_by_less_than_nothing(
    before: float, after: float, dt_s: float, wraps_at: float | None, max_rate: float | None
) -> None:
    amount, _ = increase(before, after, wraps_at, max_rate, dt_s)

    assert amount is None or amount >= 0
