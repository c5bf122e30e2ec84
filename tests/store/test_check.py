import pytest

from greend.store.check import conservation, integrity
from greend.store.rollup import roll_up
from greend.store.writes import Batch
from store.making import T0, job, put, share, shares


@pytest.fixture
def whole(store):
    put(store, Batch(jobs={"j-1": job()}))
    put(store, shares(*((T0 + i, share(1.0, "job j-1")) for i in range(7200))))
    with store.write() as connection:
        roll_up(connection, T0 + 7200)
    return store


def found(store):
    with store.read() as connection:
        return conservation(connection)


def test_a_sound_ledger_adds_up(whole):
    assert found(whole) == []
    with whole.read() as connection:
        assert integrity(connection) == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            "UPDATE energy_minute SET energy_j = energy_j + 1 WHERE start_s = {t} AND consumer_id = 1",
            ["energy_hour: 3600.0 J", "energy_minute: 61.0 J"],
        ),
        ("DELETE FROM energy_hour WHERE start_s = {t}", ["energy_hour: 0.0 J"]),
        (
            "UPDATE energy_second SET energy_j = -1 WHERE start_s = {t} AND consumer_id = 1",
            ["energy_second: 1 rows below zero, the least -1.0 J"],
        ),
        (
            "UPDATE energy_second SET meter_id = 77 WHERE start_s = {t} AND consumer_id = 1",
            ["energy_second: a row names a meter that does not exist"],
        ),
        (
            "UPDATE consumer SET name = 'j-7' WHERE kind = 'job'",
            ["joules of job 'j-7', which is not among the jobs"],
        ),
        ("UPDATE energy_hour SET start_s = start_s + 86400", ["energy_hour: 4 rows outside the time"]),
    ],
)
def test_every_way_not_to_add_up_is_found(whole, damage, words):
    with whole._writer.connect() as connection:
        raw = connection.connection.dbapi_connection
        raw.execute("PRAGMA foreign_keys = OFF")
        raw.execute("BEGIN")
        raw.execute(damage.format(t=T0))
        raw.execute("COMMIT")
        raw.execute("PRAGMA foreign_keys = ON")

    text = "\n".join(found(whole))
    for word in words:
        assert word in text
