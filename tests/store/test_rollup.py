import pytest

from greend.clock import NS
from greend.store.check import conservation
from greend.store.cover import cover
from greend.store.marks import Marks
from greend.store.positions import increases
from greend.store.queries import energy_by_time, span, total_energy
from greend.store.rollup import retain, roll_up
from greend.store.schema import DAY, HOUR, MINUTE, SECOND
from greend.store.writes import Batch
from greend.types import CounterKey, Interval
from store.making import CPU, GPU, T0, forget, put, share, shares

HOURS = 3600
DAYS = 86400


def roll(store, now_s):
    with store.write() as connection:
        roll_up(connection, now_s)


def count(store, table):
    with store.read() as connection:
        return connection.exec_driver_sql(f"SELECT count(*), total(energy_j) FROM {table}").one()


def two_days(store):
    """1 J a minute for two days and ten minutes."""
    put(store, shares(*((T0 + 60 * i, share(1.0)) for i in range(2 * 1440 + 10)), seconds=60.0))


def test_only_complete_buckets_are_summed(store):
    two_days(store)
    roll(store, T0 + 1 * DAYS + 5 * HOURS + 59 * 60 + 59)

    assert count(store, "energy_minute") == (1440 + 5 * 60 + 59, 1440 + 5 * 60 + 59)
    assert count(store, "energy_hour") == (29, 29 * 60)
    assert count(store, "energy_day") == (1, 1440)


def test_each_bucket_is_summed_exactly_once_however_often_it_is_asked(store):
    two_days(store)
    for now_s in (T0 + 100, T0 + 100, T0 + 3 * HOURS, T0 + 2 * HOURS, T0 + 3 * DAYS, T0, T0 + 3 * DAYS):
        roll(store, now_s)
        with store.read() as connection:
            assert conservation(connection) == []
            assert total_energy(connection, 0, T0 * 2).energy_j == 2890

    assert count(store, "energy_day") == (3, 2890)


def test_a_roll_up_that_is_undone_is_done_the_next_time(store):
    two_days(store)
    with pytest.raises(RuntimeError), store.write() as connection:
        roll_up(connection, T0 + 3 * DAYS)
        raise RuntimeError
    assert count(store, "energy_day") == (0, 0)

    roll(store, T0 + 3 * DAYS)
    assert count(store, "energy_day") == (3, 2890)


def test_nothing_is_forgotten_that_is_not_summed(store):
    two_days(store)

    assert forget(store, T0 + 100 * DAYS, 0, 0) == 0
    assert count(store, "energy_second") == (2890, 2890)


def test_old_seconds_and_minutes_go_and_the_energy_stays(store):
    two_days(store)
    key = CounterKey("rapl", "package-0", "package_energy")
    put(store, Batch(increases=[((T0 + i * HOURS) * NS, Interval(key, "uJ", 1.0, 0, NS)) for i in range(48)]))
    now_s = T0 + 2 * DAYS + 600
    roll(store, now_s)

    assert forget(store, now_s, 3 * HOURS, 24 * HOURS) > 0
    assert count(store, "energy_second") == (180, 180)
    assert count(store, "energy_minute") == (1440 + 10, 1440 + 10)
    with store.read() as connection:
        assert len(increases(connection, 0, T0 * 2)) == 2
        assert total_energy(connection, 0, T0 * 2).energy_j == 2890
        assert span(connection) == (T0, T0 + 2 * DAYS + 541)
        assert conservation(connection) == []
        hours = energy_by_time(connection, T0, T0 + 2 * DAYS, range(T0, T0 + 2 * DAYS, HOURS))
    assert [row.energy_j for row in hours] == [60.0] * 48
    assert [row.seconds_covered for row in hours] == [3600.0] * 48


def test_one_call_forgets_no_more_than_it_was_allowed(store):
    two_days(store)
    roll(store, T0 + 3 * DAYS)
    with store.write() as connection:
        assert retain(connection, T0 + 3 * DAYS, 0, 90 * DAYS, buckets=600) == 10
    with store.read() as connection:
        assert total_energy(connection, 0, T0 * 2).energy_j == 2890


def test_rows_that_come_after_their_seconds_were_forgotten_are_still_counted_once(store):
    two_days(store)
    roll(store, T0 + 3 * DAYS)
    forget(store, T0 + 3 * DAYS, 0, 0)
    put(store, shares((T0 + 90, share(0.5, component=GPU)), (T0 + 90, share(0.25))))

    with store.read() as connection:
        assert total_energy(connection, 0, T0 * 2).energy_j == 2890.75
        (row,) = energy_by_time(connection, T0, T0 + HOURS)
        assert row.components == {CPU: 60.25, GPU: 0.5}
        assert conservation(connection) == []


def test_the_coarsest_tier_that_fits_answers_and_finer_ones_fill_the_ends():
    marks = Marks(
        done={"minute": 3 * DAYS + 7260, "hour": 3 * DAYS + 7200, "day": 3 * DAYS},
        kept={"second": 2 * DAYS, "minute": DAYS},
    )

    assert list(cover(10, 3 * DAYS + 7300, marks)) == [
        (HOUR, 10, DAYS),
        (DAY, DAYS, 2 * DAYS),
        (DAY, 2 * DAYS, 3 * DAYS),
        (HOUR, 3 * DAYS, 3 * DAYS + 7200),
        (MINUTE, 3 * DAYS + 7200, 3 * DAYS + 7260),
        (SECOND, 3 * DAYS + 7260, 3 * DAYS + 7300),
    ]
    assert list(cover(DAYS + 90, DAYS + 150, marks)) == [(MINUTE, DAYS + 90, DAYS + 150)]
    assert list(cover(5, 5, marks)) == []
