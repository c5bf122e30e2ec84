"""What a kWh emits, by the settings and a file that may be missing, stale or nonsense."""

import csv
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greend.clock import NS, Instant, ManualClock
from greend.config import Pricing
from greend.daemon.pricing import LOOK_S, Prices, read_forecast
from greend.governor.conditions import Hour

NOON_S = 1_780_056_000  # 2026-05-29T12:00Z


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(Instant(1000 * NS, NOON_S * NS))


@pytest.fixture
def forecast(tmp_path: Path) -> Path:
    return write(
        tmp_path / "ahead.csv", "start,g_per_kwh\n2026-05-29T12:00,400\n2026-05-29T13:00+00:00,100\n"
    )


def write(path: Path, text: str, changed_s: int = NOON_S - 600) -> Path:
    path.write_text(text)
    os.utime(path, (changed_s, changed_s))
    return path


def prices(forecast: Path | None, mean: float | None = 250.0) -> Prices:
    named = str(forecast) if forecast is not None else ""
    return Prices(Pricing(intensity_g_per_kwh=mean, intensity_source="a table", forecast=named))


def test_without_a_figure_nothing_is_assumed(clock):
    assert prices(None, None).intensity(clock.now()) is None


def test_the_settings_mean_says_where_it_comes_from(clock):
    found = prices(None).intensity(clock.now())

    assert (found.now_g_per_kwh, found.source, found.ahead) == (250.0, "a table", ())
    assert found.known_wall_ns == clock.now().wall_ns  # a yearly mean is not too old to act on


def test_a_forecast_gives_the_hour_of_now_and_those_ahead(clock, forecast):
    known = prices(forecast)
    found = known.intensity(clock.now())
    assert found.now_g_per_kwh == 400.0
    assert found.ahead == (
        Hour(NOON_S * NS, (NOON_S + 3600) * NS, 400.0),
        Hour((NOON_S + 3600) * NS, (NOON_S + 7200) * NS, 100.0),
    )
    assert (found.known_wall_ns, found.source) == ((NOON_S - 600) * NS, str(forecast))

    clock.advance(3600)
    assert known.intensity(clock.now()).now_g_per_kwh == 100.0
    clock.advance(3600)
    assert known.intensity(clock.now()).now_g_per_kwh == 250.0  # it has run out


def test_a_file_that_changes_is_read_again_within_a_minute_and_not_before(clock, forecast):
    known = prices(forecast)
    first = known.intensity(clock.now())
    write(forecast, "2026-05-29T12:00,50\n", NOON_S)
    clock.advance(LOOK_S / 2)
    assert known.intensity(clock.now()) == first

    clock.advance(LOOK_S / 2)
    assert known.intensity(clock.now()).now_g_per_kwh == 50.0


@pytest.mark.parametrize(("mean", "used", "ahead"), [(250.0, 250.0, 0), (None, 400.0, 2)])
def test_a_forecast_that_is_too_old_gives_way_to_the_mean_where_there_is_one(
    clock, forecast, mean, used, ahead
):
    write(forecast, forecast.read_text(), NOON_S - 25 * 3600)
    found = prices(forecast, mean).intensity(clock.now())

    assert (found.now_g_per_kwh, len(found.ahead)) == (used, ahead)
    assert ("too old" in found.source) == (mean is not None)


def test_a_file_that_is_not_there_is_said_and_the_mean_is_used(clock, tmp_path):
    known = prices(tmp_path / "nowhere.csv")

    assert known.intensity(clock.now()).now_g_per_kwh == 250.0
    assert "No such file" in known.problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("start,g_per_kwh\n2026-05-29T12:00,nan\n", "line 2: 'nan' is no emission"),
        ("2026-05-29T12:00,-3\n", "line 1: '-3' is no emission"),
        ("2026-05-29T12:00,inf\n", "'inf' is no emission"),
        ("2026-05-29T12:00\n", "is not `start,g_per_kwh`"),
        ("2026-05-29T12:00,12\nnoon,12\n", "line 2: 'noon,12' is not `start,g_per_kwh`"),
    ],
)
def test_figures_that_make_no_sense_are_said_and_what_was_known_before_stays(clock, forecast, text, words):
    known = prices(forecast)
    before = known.intensity(clock.now())
    write(forecast, text, NOON_S)
    clock.advance(LOOK_S)

    assert known.intensity(clock.now()) == before
    assert words in known.problem
    assert before.known_wall_ns == (NOON_S - 600) * NS  # so that it grows old

    write(forecast, "2026-05-29T12:00,50\n", NOON_S + 1)
    clock.advance(LOOK_S)
    assert known.intensity(clock.now()).now_g_per_kwh == 50.0
    assert known.problem == ""


@given(st.binary(max_size=80))
def test_whatever_the_file_holds_it_is_hours_or_an_error_in_words(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("any") / "f.csv"
    path.write_bytes(raw)
    try:
        hours = read_forecast(path)
    except (ValueError, csv.Error) as error:
        assert str(error)
    else:
        assert all(hour.g_per_kwh >= 0 for hour in hours)
