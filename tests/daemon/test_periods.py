"""Days and months of the calendar, and what was used in them."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.clock import NS, Instant, ManualClock
from greend.daemon.periods import PERIODS, PeriodBook, bounds_of

BERLIN = ZoneInfo("Europe/Berlin")


def wall_ns(text: str, zone: ZoneInfo = BERLIN) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * NS


@pytest.mark.parametrize(
    ("period", "at", "start", "end"),
    [
        ("day", "2026-06-10T13:00", "2026-06-10", "2026-06-11"),
        ("day", "2026-06-10T00:00", "2026-06-10", "2026-06-11"),
        ("day", "2026-03-29T12:00", "2026-03-29", "2026-03-30"),  # 23 hours
        ("day", "2026-10-25T01:30", "2026-10-25", "2026-10-26"),  # 25 hours
        ("month", "2026-06-10T13:00", "2026-06-01", "2026-07-01"),
        ("month", "2026-12-31T23:59", "2026-12-01", "2027-01-01"),
        ("month", "2024-02-29T12:00", "2024-02-01", "2024-03-01"),
    ],
)
def test_a_period_is_the_calendars(period, at, start, end):
    assert bounds_of(period, wall_ns(at), BERLIN) == (wall_ns(start), wall_ns(end))


@pytest.mark.parametrize("hours", [23, 24, 25])
def test_the_day_that_the_clocks_are_changed_is_as_long_as_it_is(hours):
    day = {23: "2026-03-29T05:00", 24: "2026-06-10T05:00", 25: "2026-10-25T05:00"}[hours]
    start, end = bounds_of("day", wall_ns(day), BERLIN)

    assert end - start == hours * 3600 * NS


@given(st.integers(0, 4_000_000_000), st.sampled_from(PERIODS))
def test_every_moment_lies_in_its_period_and_periods_follow_one_another(wall_s, period):
    start, end = bounds_of(period, wall_s * NS, BERLIN)

    assert start <= wall_s * NS < end
    assert bounds_of(period, end, BERLIN)[0] == end
    assert bounds_of(period, start - NS, BERLIN)[1] == start


def book(*, spent_j: float = 0.0) -> tuple[PeriodBook, list[int]]:
    asked: list[int] = []

    def spent_since(start_s: int) -> float:
        asked.append(start_s)
        return spent_j

    return PeriodBook(spent_since, zone=BERLIN), asked


def clock_at(text: str) -> ManualClock:
    return ManualClock(Instant(1000 * NS, wall_ns(text)))


def test_the_store_is_asked_once_and_each_turn_is_added():
    periods, asked = book(spent_j=100.0)
    clock = clock_at("2026-06-10T13:00")
    for _ in range(50):
        periods.account(2.0, None, clock.advance(1.0))

    assert periods.spent_in() == {"day": 200.0, "month": 200.0}
    assert asked == [wall_ns("2026-06-10") // NS, wall_ns("2026-06-01") // NS]


def test_at_midnight_the_day_begins_at_nothing_and_the_month_goes_on():
    periods, _ = book(spent_j=100.0)
    clock = clock_at("2026-06-10T23:59:58")
    for _ in range(4):
        periods.account(1.0, None, clock.advance(1.0))

    assert periods.spent_in() == {"day": 3.0, "month": 104.0}


def test_a_clock_that_is_stepped_back_over_midnight_does_not_begin_the_day_twice():
    periods, _ = book()
    clock = clock_at("2026-06-10T23:59:59")
    for step_s in (0.0, 0.0, -3600.0, 0.0, 3600.0):
        clock.step_wall(step_s)
        periods.account(1.0, None, clock.advance(1.0))

    assert periods.spent_in()["day"] == 5.0


def test_grams_are_added_at_the_intensity_of_their_time():
    periods, _ = book(spent_j=3.6e6)
    clock = clock_at("2026-06-10T13:00")
    periods.account(3.6e6, 100.0, clock.now())
    periods.account(3.6e6, 300.0, clock.now())
    periods.account(3.6e6, None, clock.now())

    day = periods.spending("day", clock.now())
    assert day.spent_g == pytest.approx(100.0 + 100.0 + 300.0)
    assert (day.start_wall_ns, day.end_wall_ns) == (wall_ns("2026-06-10"), wall_ns("2026-06-11"))
