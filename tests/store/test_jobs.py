import pytest

from greend.clock import NS
from greend.errors import NotFound
from greend.store import jobs
from greend.store.rollup import roll_up
from greend.store.writes import Batch
from store.making import GPU, MODEL, T0, forget, job, put, share, shares


@pytest.fixture
def some(store):
    """Four jobs, oldest first, the newest still running."""
    end = {"ended_wall_ns": (T0 + 500) * NS}
    made = [
        job("j-aa11", "resnet", started_s=T0, exit_code=0, steps_done=10, **end),
        job("j-aa22", "resnet", started_s=T0 + 10, exit_code=0, steps_done=20, **end),
        job("j-bb33", "bert", "other", started_s=T0 + 20, exit_code=0, steps_done=0, **end),
        job("j-cc44", "resnet", started_s=T0 + 30),
    ]
    put(store, Batch(jobs={j.id: j for j in made}))
    return made


def test_the_newest_jobs_come_first(store, some):
    with store.read() as connection:
        assert [s.job for s in jobs.jobs(connection, 3)] == some[:0:-1]
        assert [s.job for s in jobs.jobs(connection, -1)] == some[::-1]


def test_a_jobs_energy_is_the_sum_of_its_rows_on_every_component_and_tier(store, some):
    put(store, shares((T0, share(30.0, "job j-aa11")), (T0, share(10.0, "job j-aa11", GPU, MODEL))))
    with store.write() as connection:
        roll_up(connection, T0 + 86400)
    forget(store, T0 + 86400 * 200, 3600, 86400)
    put(store, shares((T0 + 90000, share(2.0, "job j-aa11")), (T0, share(7.0, "job j-bb33"))))

    with store.read() as connection:
        energy = {s.job.id: s.energy_j for s in jobs.jobs(connection)}
        summary = jobs.job(connection, "j-aa11")
        assert energy == {"j-aa11": 42.0, "j-aa22": None, "j-bb33": 7.0, "j-cc44": None}
        assert (summary.energy_j, summary.quality) == (42.0, "modelled")
        assert summary.error == pytest.approx((32 * 0.05 + 10 * 0.45) / 42)
        assert jobs.jobs(connection)[0].quality == "missing"
        assert jobs.job_energy(connection, "j-aa11") == 42.0
        assert jobs.job_energy(connection, "j-cc44") == 0.0


@pytest.mark.parametrize(
    ("word", "id"),
    [
        ("j-aa22", "j-aa22"),
        ("resnet", "j-cc44"),
        ("bert", "j-bb33"),
        ("j-b", "j-bb33"),
        ("aa1", "j-aa11"),
    ],
)
def test_a_job_is_found_by_id_by_name_and_by_the_beginning_of_its_id(store, some, word, id):
    with store.read() as connection:
        assert jobs.job(connection, word).job.id == id


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("resnte", r"no such job \(did you mean 'resnet'\?\); `greend jobs` lists them"),
        ("j-aa", "several ids begin so: j-aa22, j-aa11"),
        ("", "no such job"),
        ("%", "no such job"),
    ],
)
def test_a_job_that_is_not_there_is_answered_with_what_comes_near(store, some, word, words):
    with store.read() as connection, pytest.raises(NotFound, match=words):
        jobs.job(connection, word)


def test_without_any_job_the_answer_says_how_to_start_one(store):
    with (
        store.read() as connection,
        pytest.raises(NotFound, match="no jobs yet; start one with `greend run`"),
    ):
        jobs.job(connection, "x")


def test_what_runs_teach_the_next_comes_from_those_that_ended_well_newest_first(store, some):
    with store.read() as connection:
        assert jobs.finished(connection, "sig") == [some[1], some[0]]
        assert jobs.finished(connection, "sig", limit=1) == [some[1]]
        assert jobs.finished(connection, "other") == []
        assert jobs.finished(connection, "unheard of") == []


def test_open_jobs_are_those_that_have_not_ended(store, some):
    with store.read() as connection:
        assert jobs.open_jobs(connection) == [some[3]]
