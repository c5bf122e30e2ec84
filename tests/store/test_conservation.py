"""Whatever is written, rolled up and forgotten in whatever order: each joule is counted once."""

import shutil
import tempfile
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from greend.store.check import conservation
from greend.store.engine import Store
from greend.store.jobs import energy_of_jobs
from greend.store.queries import energy_by_component, energy_by_consumer, energy_by_time, total_energy
from greend.store.rollup import retain, roll_up
from store.making import CPU, GPU, MODEL, RAPL, T0, put, share, shares

SPAN_S = 4 * 86400
HOUR = 3600

# Near the edges of buckets is where a row is lost or counted twice.
times = st.one_of(
    st.integers(0, SPAN_S - 1),
    st.builds(
        lambda bucket, size, off: max(0, bucket * size % SPAN_S + off),
        st.integers(0, 1000),
        st.sampled_from([60, HOUR, 86400]),
        st.integers(-1, 1),
    ),
)
rows = st.tuples(
    times,
    # Whole joules: sums are exact, so that equal means equal.
    st.integers(0, 1000),
    st.sampled_from(["idle", "other", "job j-1", "job j-2"]),
    st.sampled_from([CPU, GPU]),
    st.sampled_from([RAPL, MODEL]),
)
acts = st.one_of(
    st.tuples(st.just("write"), st.lists(rows, max_size=20)),
    st.tuples(st.just("roll up"), times),
    st.tuples(st.just("forget"), st.tuples(times, times, times)),
)


@settings(max_examples=60, deadline=None)
@given(history=st.lists(acts, max_size=12), cuts=st.lists(times, max_size=8))
@example(  # a row comes late, after the seconds were forgotten by a slice and the minutes by all of it
    history=[
        ("roll up", 28800),
        ("forget", (60, 0, 0)),
        ("write", [(0, 0, "idle", CPU, RAPL), (3660, 0, "idle", CPU, RAPL)]),
        ("forget", (28800, 0, 0)),
        ("write", [(25260, 1, "idle", CPU, RAPL)]),
    ],
    cuts=[],
)
def test_each_joule_is_counted_once_in_any_history(empty_database, history, cuts):
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(Path(shutil.copy(empty_database, folder))) as store,
    ):
        written = []
        for act, argument in history:
            if act == "write":
                written += argument
                put(store, shares(*((T0 + s, share(j, *nouns)) for s, j, *nouns in argument)))
            elif act == "roll up":
                with store.write() as connection:
                    roll_up(connection, T0 + argument)
            else:
                now_s, seconds, minutes = argument
                with store.write() as connection:
                    retain(connection, T0 + now_s, seconds, minutes)
            with store.read() as connection:
                _agrees(connection, written, cuts)


def _agrees(connection, written, cuts):
    total = sum(row[1] for row in written)
    since, until = T0, T0 + SPAN_S
    assert (total_energy(connection, since, until).energy_j or 0) == total

    # Any edges at all: nothing twice, nothing lost.
    anyhow = energy_by_time(connection, since, until, [T0 + cut for cut in cuts])
    assert sum(row.energy_j or 0 for row in anyhow) == total

    # Edges that every tier which is kept can tell apart: each joule in its own stretch.
    edges = [since, *sorted({T0 + cut // HOUR * HOUR for cut in cuts} - {since}), until]
    by_time = energy_by_time(connection, since, until, edges)
    assert [(row.start_s, row.end_s) for row in by_time] == list(pairwise(edges))
    for row in by_time:
        expected = defaultdict(int)
        for s, energy_j, _, component, _ in written:
            if row.start_s <= T0 + s < row.end_s:
                expected[component] += energy_j
        assert row.components == expected
        assert (row.energy_j or 0) == sum(expected.values())

    components = {row.component: row.energy_j for row in energy_by_component(connection, since, until)}
    consumers = {str(row.consumer): row.energy_j for row in energy_by_consumer(connection, since, until)}
    for part in (components, consumers):
        assert sum(part.values()) == total
    expected = defaultdict(int)
    for _, energy_j, consumer, _, _ in written:
        expected[consumer] += energy_j
    assert {who: joules for who, joules in consumers.items() if joules} == {
        who: joules for who, joules in expected.items() if joules
    }
    for job_id, energy in energy_of_jobs(connection, ["j-1", "j-2"]).items():
        assert energy.energy_j == expected[f"job {job_id}"]
    assert [line for line in conservation(connection) if "not among the jobs" not in line] == []
