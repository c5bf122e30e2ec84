import datetime
import zoneinfo

from greend.store.queries import (
    energy_by_component,
    energy_by_consumer,
    energy_by_time,
    span,
    total_energy,
)
from greend.store.rollup import roll_up
from greend.types import IDLE, OTHER, Consumer
from store.making import CPU, GPU, T0, put, share, shares


def test_an_empty_history_knows_nothing_rather_than_zero(store):
    with store.read() as connection:
        whole = total_energy(connection, 0, T0)
        (row,) = energy_by_time(connection, 0, T0)
        assert (whole.energy_j, whole.error, whole.quality, whole.seconds) == (None, None, "missing", 0.0)
        assert (row.energy_j, row.components, row.error, row.quality) == (None, {}, None, "missing")
        assert energy_by_component(connection, 0, T0) == energy_by_consumer(connection, 0, T0) == []
        assert energy_by_time(connection, T0, T0) == []
        assert span(connection) is None


def test_stretches_are_cut_at_the_edges_between_since_and_until(store):
    put(store, shares(*((T0 + i, share(1.0)) for i in range(10))))

    with store.read() as connection:
        rows = energy_by_time(connection, T0 + 1, T0 + 8, [T0 - 5, T0, T0 + 4, T0 + 4, T0 + 6, T0 + 99])
    assert [(r.start_s - T0, r.end_s - T0, r.energy_j) for r in rows] == [
        (1, 4, 3.0),
        (4, 6, 2.0),
        (6, 8, 2.0),
    ]


def test_a_gap_in_the_record_is_missing_and_not_zero(store):
    put(store, shares((T0, share(1.0)), (T0 + 2, share(1.0))))

    with store.read() as connection:
        rows = energy_by_time(connection, T0, T0 + 3, range(T0, T0 + 3))
    assert [(row.energy_j, row.seconds_covered) for row in rows] == [(1.0, 1.0), (None, 0.0), (1.0, 1.0)]


def test_days_of_any_time_zone_add_up_also_where_a_day_has_23_hours(store):
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    days = [datetime.datetime(2026, 3, day, tzinfo=zone) for day in range(28, 32)]
    edges = [int(day.timestamp()) for day in days]
    put(store, shares(*((s, share(1.0)) for s in range(edges[0], edges[-1], 60)), seconds=60.0))
    with store.write() as connection:
        roll_up(connection, edges[-1] - 1000)

    with store.read() as connection:
        rows = energy_by_time(connection, edges[0], edges[-1], edges)
    assert [row.energy_j for row in rows] == [1440.0, 1380.0, 1440.0]


def test_consumers_and_components_split_the_same_joules(store):
    put(
        store,
        shares(
            (T0, share(5.0)),
            (T0, share(2.0, "other")),
            (T0, share(8.0, "job j-1")),
            (T0, share(4.0, "job j-1", GPU)),
            (T0, share(1.0, "idle", GPU)),
            (T0 + 1, share(1.0)),
        ),
    )

    with store.read() as connection:
        consumers = energy_by_consumer(connection, T0, T0 + 60)
        components = energy_by_component(connection, T0, T0 + 60)
    assert [(r.consumer, r.energy_j, r.seconds) for r in consumers] == [
        (Consumer("job", "j-1"), 12.0, 1.0),
        (IDLE, 7.0, 2.0),
        (OTHER, 2.0, 1.0),
    ]
    assert [(r.component, r.energy_j, r.seconds) for r in components] == [(CPU, 16.0, 2.0), (GPU, 5.0, 1.0)]


def test_the_span_ends_with_the_last_second(store):
    put(store, shares((T0 + 5, share(1.0)), (T0 + 8, share(1.0))))
    with store.write() as connection:
        roll_up(connection, T0 + 86400 * 2)

    with store.read() as connection:
        assert span(connection) == (T0 + 5, T0 + 9)
