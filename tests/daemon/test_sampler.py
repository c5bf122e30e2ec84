"""One turn after another: what is priced, attributed, stored and kept when storing fails."""

import os

import pytest

from greend import wire
from greend.client import Client
from greend.daemon.main import Daemon
from greend.errors import StoreError
from greend.store import jobs as stored
from greend.store import queries
from greend.store.check import conservation

from .conftest import settings


def energy_j(daemon) -> float:
    with daemon.store.read() as connection:
        return queries.total_energy(connection, 0, 2**40).energy_j or 0.0


def cpu_j(daemon) -> float:
    with daemon.store.read() as connection:
        rows = queries.energy_by_component(connection, 0, 2**40)
    return sum(row.energy_j or 0.0 for row in rows if row.component.kind == "cpu")


def test_a_counter_becomes_joules_in_the_database(daemon, clock):
    for _ in range(11):
        daemon.sampler.turn()
        clock.advance(1.0)

    assert cpu_j(daemon) == pytest.approx(400.0)


def test_nothing_is_written_before_it_is_time(daemon, clock):
    for _ in range(9):
        daemon.sampler.turn()
        clock.advance(1.0)

    assert energy_j(daemon) == 0.0


def test_what_cannot_be_written_waits_and_is_not_lost(daemon, clock, monkeypatch, caplog):
    def busy(batch):
        raise StoreError("write: database is locked")

    working = daemon.sampler.store
    daemon.sampler.turn()
    monkeypatch.setattr(daemon.sampler, "store", busy)
    for _ in range(25):
        clock.advance(1.0)
        daemon.sampler.turn()
    assert cpu_j(daemon) == 0.0
    monkeypatch.setattr(daemon.sampler, "store", working)
    daemon.sampler.flush()

    assert cpu_j(daemon) == pytest.approx(25 * 40.0)
    assert caplog.text.count("kept in memory") == 1


def test_a_source_that_fails_is_said_once_and_its_gap_is_made_up(daemon, clock, caplog):
    fake = next(s for s in daemon.sources.working if s.name == "fake")
    daemon.sampler.turn()
    clock.advance(1.0)
    fake.fail_next(3)
    for _ in range(3):
        daemon.sampler.turn()
        clock.advance(1.0)
    assert "fake" in daemon.sampler.now.problems
    daemon.sampler.turn()
    daemon.sampler.flush()

    assert cpu_j(daemon) == pytest.approx(4 * 40.0)
    assert caplog.text.count("told to fail") == 1


def test_a_clock_that_steps_back_mixes_up_no_hour(daemon, clock):
    for second in range(20):
        daemon.sampler.turn()
        clock.advance(1.0)
        if second == 10:
            clock.step_wall(-3600)
    daemon.sampler.flush()

    with daemon.store.read() as connection:
        first, last = queries.span(connection)
    assert last - first <= 21
    assert cpu_j(daemon) == pytest.approx(19 * 40.0)


def test_every_joule_is_somebodys(daemon, clock):
    Client(daemon.socket_path).post("/jobs", wire.JobRequest(os.getpid(), ["train"]))
    for _ in range(5):
        daemon.sampler.turn()
        sum(i * i for i in range(200_000))
        clock.advance(1.0)
    daemon.sampler.flush()

    with daemon.store.read() as connection:
        assert conservation(connection) == []
        parts = queries.energy_by_consumer(connection, 0, 2**40)
    assert sum(p.energy_j for p in parts) == pytest.approx(energy_j(daemon))
    assert {"job", "idle"} <= {p.consumer.kind for p in parts}


def test_a_job_that_ends_is_stored_with_what_it_used_and_forgotten(daemon, clock):
    client = Client(daemon.socket_path)
    job = client.post("/jobs", wire.JobRequest(os.getpid(), ["train"]))["job"]
    daemon.sampler.turn()
    clock.advance(1.0)
    live = daemon.jobs.get(job)
    ended = daemon.jobs.end(job, wire.EndRequest(3, live.tree.cpu_s() + 0.5), os.getuid())
    daemon.sampler.turn()

    assert ended.is_set()
    with daemon.store.read() as connection:
        summary = stored.job(connection, job)
    assert (summary.job.exit_code, summary.job.ended_wall_ns) == (3, clock.now().wall_ns)
    assert summary.energy_j > 0
    assert daemon.jobs.live() == []


def test_a_turn_at_the_same_instant_changes_nothing(daemon, clock):
    daemon.sampler.turn()
    clock.advance(1.0)
    daemon.sampler.turn()
    before = daemon.sampler.now
    daemon.sampler.turn()

    assert daemon.sampler.now is before


def test_a_gpu_is_billed_by_its_processes_and_one_that_is_lost_stops_nothing(tmp_path, clock, nvml):
    nvml.gpus[0].processes = {os.getpid(): 80}
    nvml.play()
    daemon = Daemon(settings(tmp_path, "nvml"), clock=clock)
    daemon.server.start()
    job = Client(daemon.socket_path).post("/jobs", wire.JobRequest(os.getpid(), ["train"]))["job"]
    for second in range(7):
        if second == 4:
            nvml.gpus[0].lost_at = nvml.now
            nvml.play()
        daemon.sampler.turn()
        clock.advance(1.0)
        nvml.advance(1.0)
    daemon.sampler.flush()

    with daemon.store.read() as connection:
        components = {r.component.kind: r for r in queries.energy_by_component(connection, 0, 2**33)}
        used = stored.job(connection, job).energy_j
        assert conservation(connection) == []
    daemon.scheduler.start()
    daemon.stop()

    assert components["gpu"].energy_j == pytest.approx(3 * 300.0)
    assert components["gpu"].quality.value == "measured"
    assert used > 0.5 * components["gpu"].energy_j
    assert components["cpu"].energy_j == pytest.approx(6 * 40.0)
    assert "gpu-0" in str(daemon.sampler.now.problems)
