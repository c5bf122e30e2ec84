"""The source that ships for trying greend: a package whose true energy is known."""

from __future__ import annotations

import pytest

from greend.clock import ManualClock
from greend.counters import CounterBook
from greend.errors import SourceError
from greend.sources.fake import FakeSource
from greend.sources.source import Source
from greend.types import Interval, IntervalFlag


def look(source: Source, book: CounterBook, clock: ManualClock) -> list[Interval]:
    return book.update(source.read(), clock.now().mono_ns)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_it_draws_its_power(clock: ManualClock) -> None:
    source, book = FakeSource(clock, power_w=80), CounterBook()
    assert source.probe() is None
    look(source, book, clock)
    clock.advance(2.0)
    source.set_power(20)
    clock.advance(1.0)
    (interval,) = look(source, book, clock)

    assert interval.amount == 180e6
    assert source.energy_j == pytest.approx(180)
    source.close()


def test_it_wraps_like_rapl(clock: ManualClock) -> None:
    source, book = FakeSource(clock, power_w=1900, wraps_at=65_712_999_613), CounterBook()
    look(source, book, clock)
    total = 0.0
    for _ in range(60):
        clock.advance(20)
        total += sum(interval.amount for interval in look(source, book, clock))

    assert total / 1e6 == pytest.approx(source.energy_j, abs=1e-3)


def test_a_failed_read_loses_nothing(clock: ManualClock) -> None:
    source, book = FakeSource(clock), CounterBook()
    look(source, book, clock)
    clock.advance(1.0)
    source.fail_next()
    with pytest.raises(SourceError):
        source.read()
    book.update([], clock.now().mono_ns)
    clock.advance(1.0)
    (interval,) = look(source, book, clock)

    assert (interval.amount, interval.flags) == (100e6, IntervalFlag.GAP)


@pytest.mark.parametrize("wraps_at", [None, 65_712_999_613])
def test_a_restart_of_its_counter_is_a_reset(clock: ManualClock, wraps_at: float | None) -> None:
    source, book = FakeSource(clock, wraps_at=wraps_at), CounterBook()
    look(source, book, clock)
    for _ in range(100):
        clock.advance(1.0)
        look(source, book, clock)
    source.restart_counter()
    clock.advance(1.0)
    (interval,) = look(source, book, clock)

    assert (interval.amount, interval.flags) == (50e6, IntervalFlag.RESET)


def test_it_may_draw_more_than_any_machine_does(clock: ManualClock) -> None:
    source, book = FakeSource(clock, power_w=1e5), CounterBook()
    look(source, book, clock)
    clock.advance(1.0)

    assert [interval.amount for interval in look(source, book, clock)] == [1e11]
