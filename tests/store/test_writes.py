from dataclasses import replace

import pytest

from greend.clock import NS
from greend.counters import Position
from greend.errors import StoreError
from greend.store import jobs
from greend.store.positions import increases, positions
from greend.store.profiles import ProfileKey, remembered
from greend.store.queries import energy_by_component, energy_by_consumer, energy_by_time, total_energy
from greend.store.rollup import roll_up
from greend.store.writes import Batch, write
from greend.types import (
    IDLE,
    Action,
    Bound,
    Consumer,
    CounterKey,
    Decision,
    Interval,
    IntervalFlag,
    Limits,
    Rank,
)
from store.making import CPU, GPU, MODEL, RAPL, T0, job, put, share, shares

KEY = ProfileKey("sig", "a processor", (0.25, 1.0))
PACKAGE = CounterKey("rapl", "package-0", "package_energy")


def rows(store, table="energy_second"):
    with store.read() as connection:
        return connection.exec_driver_sql(
            f"SELECT start_s, energy_j, seconds FROM {table} ORDER BY start_s, consumer_id"
        ).all()


def test_shares_of_one_second_are_added_up(store):
    put(store, shares((T0 + 0.0, share(1.0)), (T0 + 0.5, share(2.0)), seconds=0.5))
    put(store, shares((T0 + 0.75, share(4.0)), seconds=0.25))

    assert rows(store) == [(T0, 7.0, 1.25)]


def test_a_share_counts_where_it_starts(store):
    put(store, shares((T0 + 0.75, share(10.0)), seconds=30.0))

    assert rows(store) == [(T0, 10.0, 30.0)]


def test_a_clock_stepped_back_makes_no_negative_time(store):
    put(store, Batch(shares=[(T0 * NS, (T0 - 3600) * NS, share(1.0))]))

    assert rows(store) == [(T0, 1.0, 0.0)]


def test_a_component_without_an_idle_share_is_watched_all_the_same(store):
    for i in range(4):
        put(store, shares((T0 + i, share(1.0, f"job j-{i}")), (T0 + i, share(1.0, f"job j-{i}", GPU))))

    with store.read() as connection:
        assert total_energy(connection, T0, T0 + 60).seconds == 4.0
        assert [row.seconds for row in energy_by_component(connection, T0, T0 + 60)] == [4.0, 4.0]
        idle = next(row for row in energy_by_consumer(connection, T0, T0 + 60) if row.consumer == IDLE)
        assert (idle.energy_j, idle.seconds) == (0.0, 4.0)


def test_late_rows_reach_every_tier_that_left_them_behind(store):
    with store.write() as connection:
        roll_up(connection, T0 + 2 * 3600)
    put(store, shares((T0 + 61, share(5.0))))

    assert rows(store) == [(T0 + 61, 5.0, 1.0)]
    assert rows(store, "energy_minute") == [(T0 + 60, 5.0, 1.0)]
    assert rows(store, "energy_hour") == [(T0, 5.0, 1.0)]
    assert rows(store, "energy_day") == []


def test_everything_of_a_job_comes_back(store):
    full = job(
        ended_wall_ns=(T0 + 9) * NS,
        exit_code=-9,
        limits=Limits(3e4, 20.0, 0.1, 40.0, 5.0, True, T0 * NS, "pause", "mixed"),
        by_hand=True,
        steps_total=100,
        steps_done=99,
        costs=(0.25, 1.0),
        tail_j=0.5,
        report=("24 groups proved", "± 3 %"),
        carbon_g=1.5,
        cpu_s=2.25,
        process="boot:7",
    )
    put(store, Batch(jobs={full.id: full, "j-2": job("j-2")}))

    with store.read() as connection:
        assert jobs.job(connection, "j-1").job == full
        assert jobs.job(connection, "j-2").job == job("j-2")


def test_writing_a_job_twice_is_writing_its_last_state_once(store):
    put(store, Batch(jobs={"j-1": job()}))
    last = job(steps_done=7)
    for _ in range(3):
        put(store, Batch(jobs={"j-1": last}))

    with store.read() as connection:
        assert [summary.job for summary in jobs.jobs(connection)] == [last]


def test_decisions_come_back_in_the_order_in_which_they_were_made(store):
    made = [
        Decision(3, "the top", T0 * NS, 0, None, True, {}),
        Decision(
            1, "the budget ends in 40 steps", T0 * NS, 60, 3, False, {"left_j": 12.5, "pace": float("inf")}
        ),
        Decision(
            0,
            "a pause",
            T0 * NS,
            70,
            pace=0.5,
            power_w=40.0,
            burst_j=20.0,
            action=Action.PAUSE,
            by="power cap",
            bounds=(
                Bound("power cap", Rank.CAP, 3, "40 W", 0.5, 40.0, 20.0, True, action=Action.PAUSE),
                Bound("deadline", Rank.BUDGET, 0, "late", feasible=False, figures={"left_s": 3.0}),
            ),
            advised=True,
        ),
    ]
    put(store, Batch(jobs={"j-1": job()}, decisions=[("j-1", decision) for decision in made]))

    with store.read() as connection:
        assert jobs.decisions(connection, "j-1") == made
        assert jobs.last_decision(connection, "j-1") == made[-1]
        assert jobs.decisions(connection, "j-2") == []
        assert jobs.last_decision(connection, "j-2") is None


def test_a_decision_about_an_unknown_job_undoes_the_whole_batch(store):
    batch = shares((T0, share(1.0)))
    batch.decisions.append(("j-0", Decision(1, "why", T0 * NS, 0)))

    with pytest.raises(StoreError, match="FOREIGN KEY"):
        put(store, batch)
    assert rows(store) == []


def test_a_profile_is_written_with_the_samples_it_was_learned_from_or_not_at_all(store):
    batch = shares((T0, share(1.0)))
    batch.profiles[KEY] = {"seen": 3}
    batch.decisions.append(("j-0", Decision(1, "why", T0 * NS, 0)))

    with pytest.raises(StoreError, match="FOREIGN KEY"):
        put(store, batch)
    with store.read() as connection:
        assert remembered(connection, KEY) is None

    put(store, Batch(profiles={KEY: {"seen": 3}}))
    put(store, Batch(profiles={KEY: {"seen": 4, "log_j": [0.5, -1.25]}}))
    with store.read() as connection:
        assert remembered(connection, KEY) == {"seen": 4, "log_j": [0.5, -1.25]}
        assert remembered(connection, replace(KEY, device="another")) is None
        assert remembered(connection, replace(KEY, costs=(0.5, 1.0))) is None


def test_positions_come_back_in_the_same_boot_only(store):
    put(store, Batch(positions={PACKAGE: Position(1.5, 7)}, boot_id="a"))
    put(store, Batch(positions={PACKAGE: Position(2.0**52 + 1, 9)}, boot_id="b"))

    with store.read() as connection:
        assert positions(connection, "a") == {}
        assert positions(connection, "b") == {PACKAGE: Position(2.0**52 + 1, 9)}


def test_positions_without_a_boot_are_refused(store):
    with pytest.raises(ValueError, match="boot_id"):
        put(store, Batch(positions={PACKAGE: Position(1.5, 7)}))


def test_raw_increases_come_back_with_their_unit_and_flags(store):
    flags = IntervalFlag.WRAP | IntervalFlag.GAP
    put(store, Batch(positions={PACKAGE: Position(0.0, 0)}, boot_id="a"))
    put(store, Batch(increases=[(T0 * NS, Interval(PACKAGE, "uJ", 5e6, 100, 100 + NS, flags))]))

    with store.read() as connection:
        assert increases(connection, T0, T0 + 1) == [
            Interval(PACKAGE, "uJ", 5e6, T0 * NS, (T0 + 1) * NS, flags)
        ]
        assert increases(connection, T0 + 1, T0 + 2) == []


def test_what_could_not_be_written_waits_with_what_came_since():
    first = Batch(
        shares=[(0, 1, share(1.0))],
        jobs={"j-1": job()},
        positions={PACKAGE: Position(1, 1)},
        boot_id="a",
        profiles={KEY: {"seen": 1}},
    )
    later = Batch(
        shares=[(1, 2, share(2.0))], jobs={"j-1": job(steps_done=1)}, boot_id="a", profiles={KEY: {"seen": 2}}
    )

    both = first.then(later)
    assert [s.energy_j for _, _, s in both.shares] == [1.0, 2.0]
    assert both.jobs == {"j-1": job(steps_done=1)}
    assert (both.positions, both.boot_id) == ({PACKAGE: Position(1, 1)}, "a")
    assert both.profiles == {KEY: {"seen": 2}}
    assert not Batch() and both and Batch(profiles={KEY: {}})


def test_numbers_of_an_undone_transaction_are_not_used_again(store):
    with pytest.raises(RuntimeError), store.write() as connection:
        write(connection, shares((T0, share(1.0, "job lost"))))
        raise RuntimeError
    put(store, shares((T0, share(2.0, "job other"))))
    put(store, shares((T0, share(3.0, "job lost"))))

    with store.read() as connection:
        used = {row.consumer: row.energy_j for row in energy_by_consumer(connection, T0, T0 + 1)}
    assert used == {IDLE: 0.0, Consumer("job", "other"): 2.0, Consumer("job", "lost"): 3.0}


def test_a_figure_says_how_it_is_known(store):
    put(store, shares((T0, share(30.0)), (T0, share(10.0, "other", GPU, MODEL))))

    with store.read() as connection:
        whole = total_energy(connection, T0, T0 + 1)
        (row,) = energy_by_time(connection, T0, T0 + 1)
        cpu, gpu = energy_by_component(connection, T0, T0 + 1)
    assert (whole.energy_j, whole.quality, whole.seconds) == (40.0, "modelled", 1.0)
    assert whole.source == "RAPL package, CPU time × family table"
    assert whole.error == pytest.approx((30 * 0.05 + 10 * 0.45) / 40)
    assert (row.components, row.quality, row.error) == ({CPU: 30.0, GPU: 10.0}, "modelled", whole.error)
    assert (cpu.component, cpu.quality, cpu.error, cpu.source) == (CPU, "measured", 0.05, RAPL.source)
    assert (gpu.component, gpu.quality, gpu.error, gpu.source) == (GPU, "modelled", 0.45, MODEL.source)
