"""Times as people write them; hours and days without a hole, also when the clocks change."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.cli.when import edges, label, parse_when
from greend.errors import UsageError

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 19, 14, 32, 7, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("now", NOW),
        ("today", datetime(2026, 11, 19, tzinfo=BERLIN)),
        ("yesterday", datetime(2026, 11, 18, tzinfo=BERLIN)),
        ("-2h", NOW - timedelta(hours=2)),
        ("7d", NOW - timedelta(days=7)),
        ("10 min", NOW - timedelta(minutes=10)),
        ("2026-11-02 14:00", datetime(2026, 11, 2, 14, tzinfo=BERLIN)),
        ("2026-11-02T14:00:00Z", datetime(2026, 11, 2, 14, tzinfo=UTC)),
        ("@1790000000", datetime.fromtimestamp(1790000000, BERLIN)),
    ],
)
def test_a_time_is_read_as_people_write_it(text, when):
    assert parse_when(text, NOW) == when


@pytest.mark.parametrize("text", ["soon", "", "5 parsecs", "2026-13-01"])
def test_what_is_no_time_is_said_with_a_way_out(text):
    with pytest.raises(UsageError, match="today, yesterday, -2h, 7d"):
        parse_when(text, NOW)


@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 29), 23), ((2026, 10, 25), 25), ((2026, 11, 19), 24)])
def test_a_day_is_the_users_day_when_the_clocks_change(day, hours):
    start = datetime(*day, tzinfo=BERLIN)

    first, second = edges(start, start + timedelta(hours=1), "day")

    assert second - first == hours * 3600
    assert len(edges(start, start + timedelta(hours=1), "hour")) == 2


@given(
    st.integers(0, 2 * 365 * 24 * 60),
    st.integers(1, 90 * 24),
    st.sampled_from(["hour", "day", "month"]),
    st.sampled_from(["Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "UTC"]),
)
def test_edges_cover_the_whole_time_without_a_hole(minutes, hours, by, zone):
    since = datetime.fromtimestamp(1_735_689_600 + 60 * minutes, ZoneInfo(zone))
    until = datetime.fromtimestamp(since.timestamp() + hours * 3600, since.tzinfo)

    found = edges(since, until, by)

    assert found[0] <= since.timestamp()
    assert found[-1] >= until.timestamp()
    assert all(a < b for a, b in pairwise(found))


@pytest.mark.parametrize(
    ("by", "text"),
    [("minute", "11-19 14:32"), ("hour", "2026-11-19 14:00"), ("day", "2026-11-19"), ("month", "2026-11")],
)
def test_a_bucket_is_called_by_its_local_time(by, text):
    assert label(round(NOW.timestamp()), by, BERLIN) == text
