"""Instants on two clocks, in whole nanoseconds."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.clock import NS, Instant, ManualClock, SystemClock, mono_ns

YEARS_NS = 100 * 366 * 86_400 * NS


@given(st.integers(0, YEARS_NS), st.integers(0, YEARS_NS), st.floats(-1e6, 1e6))
def test_a_step_moves_both_clocks_by_the_same_nanoseconds(mono, wall, seconds):
    before = Instant(mono, wall)
    after = before.after(seconds)

    assert after.mono_ns - mono == after.wall_ns - wall == round(seconds * NS)
    assert after.seconds_since(before) == pytest.approx(seconds, abs=1e-9)
    assert before.seconds_since(after) == -after.seconds_since(before)


def test_a_microsecond_is_not_lost_after_a_century_of_uptime():
    late = Instant(YEARS_NS, 2 * YEARS_NS)

    assert late.after(1e-6).mono_ns - late.mono_ns == 1000


def test_the_later_instant_is_the_one_whose_uptime_is_longer_whatever_the_wall_clock_says():
    assert Instant(1, 9) < Instant(2, 0)


def test_the_machines_clocks_are_uptime_and_utc():
    first = SystemClock().now()
    second = SystemClock().now()

    assert first.mono_ns <= second.mono_ns <= mono_ns()
    assert first.mono_ns == pytest.approx(time.clock_gettime_ns(time.CLOCK_BOOTTIME), abs=10 * NS)
    assert first.wall_ns == pytest.approx(time.clock_gettime_ns(time.CLOCK_REALTIME), abs=10 * NS)


def test_a_clock_by_hand_stands_until_it_is_moved():
    clock = ManualClock(Instant(10, 20))

    assert clock.now() == clock.now() == Instant(10, 20)
    assert clock.advance(1.5) == clock.now() == Instant(10 + 1_500_000_000, 20 + 1_500_000_000)


def test_a_step_of_the_wall_clock_leaves_uptime_alone():
    clock = ManualClock()
    before = clock.now()

    clock.step_wall(-3600)

    assert clock.now().mono_ns == before.mono_ns
    assert clock.now().wall_ns == before.wall_ns - 3600 * NS
    assert clock.now().seconds_since(before) == 0
