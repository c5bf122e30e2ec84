"""Times as people write them; hours and days without a hole, also when the clocks change."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.cli.when import edges, label, local_now, parse_deadline, parse_when
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
        ("14:32:06", datetime(2026, 11, 19, 14, 32, 6, tzinfo=BERLIN)),
        ("14:33", datetime(2026, 11, 18, 14, 33, tzinfo=BERLIN)),
        ("@1790000000", datetime.fromtimestamp(1790000000, BERLIN)),
    ],
)
def test_a_time_is_read_as_people_write_it(text, when):
    assert parse_when(text, NOW) == when


@pytest.mark.parametrize(
    "text",
    [
        "soon",
        "",
        "5 parsecs",
        "2026-13-01",
        "99999999999d",
        "@99999999999999999",
        "2026-02-30",
        "--2h",
        "@",
        "@-1",
        "25:00",
    ],
)
def test_what_is_no_time_is_said_with_a_way_out(text):
    with pytest.raises(UsageError, match="today, yesterday, -2h, 7d"):
        parse_when(text, NOW)


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("18:00", datetime(2026, 11, 19, 18, tzinfo=BERLIN)),
        ("9:30", datetime(2026, 11, 20, 9, 30, tzinfo=BERLIN)),
        ("2h", NOW + timedelta(hours=2)),
        ("+90 min", NOW + timedelta(minutes=90)),
        ("2026-11-20 08:00", datetime(2026, 11, 20, 8, tzinfo=BERLIN)),
    ],
)
def test_a_deadline_lies_ahead(text, when):
    assert parse_deadline(text, NOW) == when


@pytest.mark.parametrize("text", ["soon", "", "24:00", "2 parsecs", "yesterday", "-2h", "2026-11-19 14:32"])
def test_what_is_no_deadline_or_is_over_is_said_with_a_way_out(text):
    with pytest.raises(UsageError, match=r"as a deadline: .*write 18:00, 2h"):
        parse_deadline(text, NOW)


@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 29), 23), ((2026, 10, 25), 25), ((2026, 11, 19), 24)])
def test_a_day_is_the_users_day_when_the_clocks_change(day, hours):
    start = datetime(*day, tzinfo=BERLIN)

    first, second = edges(start, start + timedelta(hours=1), "day")

    assert second - first == hours * 3600
    assert len(edges(start, start + timedelta(hours=1), "hour")) == 2


ZONES = [
    "Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "America/Havana", "America/Sao_Paulo",
    "Australia/Lord_Howe", "Pacific/Apia", "UTC",
]  # fmt: skip
LONGEST_S = {"minute": 60, "hour": 3600, "day": 25 * 3600, "month": 32 * 86400}


@given(
    st.integers(0, 2 * 365 * 24 * 60),
    st.integers(1, 90 * 24 * 60),
    st.sampled_from(["minute", "hour", "day", "month"]),
    st.sampled_from(ZONES),
)
def test_edges_cover_the_whole_time_without_a_hole(minutes, length, by, zone):
    since = datetime.fromtimestamp(1_735_689_600 + 60 * minutes, ZoneInfo(zone))
    until = datetime.fromtimestamp(
        since.timestamp() + (length % 500 if by == "minute" else length) * 60 + 1, since.tzinfo
    )

    found = edges(since, until, by)

    assert found[0] <= since.timestamp()
    assert found[-1] >= until.timestamp()
    assert all(0 < b - a <= LONGEST_S[by] for a, b in pairwise(found))


@given(st.integers(0, 240), st.integers(1, 240), st.sampled_from(["minute", "hour", "day"]))
def test_the_hour_that_comes_twice_has_no_hole(start, length, by):
    since = datetime.fromtimestamp(datetime(2026, 10, 25, tzinfo=BERLIN).timestamp() + 60 * start, BERLIN)
    until = datetime.fromtimestamp(since.timestamp() + 60 * length, BERLIN)

    found = edges(since, until, by)

    assert found[0] <= since.timestamp() < until.timestamp() <= found[-1]
    assert all(0 < b - a <= LONGEST_S[by] for a, b in pairwise(found))


@pytest.mark.parametrize(("text", "hours"), [("-2h", 2), ("1d", 24), ("120 min", 2)])
def test_hours_ago_are_hours_that_passed_also_when_the_clocks_change(text, hours):
    morning = datetime(2026, 10, 25, 4, tzinfo=BERLIN)

    assert morning.timestamp() - parse_when(text, morning).timestamp() == hours * 3600


@pytest.mark.parametrize(
    ("name", "summer", "winter"),
    [
        ("Europe/Berlin", 2, 1),
        (":America/New_York", -4, -5),
        ("", 0, 0),
        ("UTC", 0, 0),
        ("/usr/share/zoneinfo/Europe/Berlin", 2, 1),
    ],
)
def test_a_past_day_has_the_offset_that_it_had(monkeypatch, name, summer, winter):
    monkeypatch.setenv("TZ", name)
    now = local_now()

    for month, hours in ((7, summer), (1, winter)):
        day = parse_when(f"2026-{month:02d}-15", now)
        assert day.utcoffset() == timedelta(hours=hours)
    assert abs(now.timestamp() - datetime.now(UTC).timestamp()) < 60


@pytest.mark.parametrize(
    "name", ["nonsense/zone", "/nowhere", "CET-1CEST", "../../etc/passwd", "/etc/passwd"]
)
def test_a_zone_that_nobody_knows_falls_back_to_the_offset_of_today(monkeypatch, name):
    monkeypatch.setenv("TZ", name)

    assert local_now().utcoffset() is not None


def test_a_day_that_an_island_skipped_leaves_no_hole():
    apia = ZoneInfo("Pacific/Apia")  # had no 30 December 2011

    found = edges(datetime(2011, 12, 28, tzinfo=apia), datetime(2012, 1, 2, tzinfo=apia), "day")

    assert all(a <= b for a, b in pairwise(found))
    assert found[-1] - found[0] == 4 * 86400


@pytest.mark.parametrize(
    ("by", "text"),
    [("minute", "11-19 14:32"), ("hour", "2026-11-19 14:00"), ("day", "2026-11-19"), ("month", "2026-11")],
)
def test_a_bucket_is_called_by_its_local_time(by, text):
    assert label(round(NOW.timestamp()), by, BERLIN) == text
