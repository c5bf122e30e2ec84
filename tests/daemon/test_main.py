"""The composition root: restarts, periodic work, signals to systemd."""

import os
import socket
import subprocess
import sys

import pytest

from greend import wire
from greend.client import Client
from greend.daemon.hub import QUEUE, Hub
from greend.daemon.main import Daemon
from greend.daemon.notify import Notifier
from greend.errors import ConfigError, DatabaseDamaged
from greend.store import jobs as stored
from greend.store import queries

from .conftest import settings, stop


def test_a_job_goes_on_under_its_id_when_the_daemon_is_restarted(daemon, tmp_path, clock):
    job = Client(daemon.socket_path).post("/jobs", wire.JobRequest(os.getpid(), ["train"]))["job"]
    daemon.sampler.turn()
    stop(daemon)

    again = Daemon(settings(tmp_path), clock=clock)
    try:
        assert [live.job.id for live in again.jobs.live()] == [job]
    finally:
        again.server.start()
        stop(again)


def test_a_job_whose_process_ended_while_no_daemon_ran_is_closed_without_an_exit_code(
    tmp_path, clock, daemon
):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        client = Client(daemon.socket_path)
        job = client.post("/jobs", wire.JobRequest(process.pid, ["train"]))["job"]
        stop(daemon)
        process.communicate(b"\n")

    again = Daemon(settings(tmp_path), clock=clock)
    again.server.start()
    with again.store.read() as connection:
        found = stored.job(connection, job).job
    stop(again)

    assert found.ended_wall_ns is not None
    assert found.exit_code is None


def test_joules_used_while_the_daemon_was_down_are_counted_when_it_is_back(daemon, tmp_path, clock):
    daemon.sampler.turn()
    clock.advance(1.0)
    stop(daemon)
    fake = next(s for s in daemon.sources.working if s.name == "fake")
    clock.advance(20.0)

    again = Daemon(settings(tmp_path), clock=clock)
    # The simulated hardware outlives both daemons.
    again.sampler.sources = [s if s.name != "fake" else fake for s in again.sampler.sources]
    again.server.start()
    for _ in range(2):
        again.sampler.turn()
        clock.advance(1.0)
    again.sampler.flush()
    with again.store.read() as connection:
        rows = queries.energy_by_component(connection, 0, 2**40)
    stop(again)

    assert sum(r.energy_j for r in rows if r.component.kind == "cpu") == pytest.approx(22 * 40.0)


def test_roll_up_and_retention_run_as_they_are_scheduled(daemon, clock):
    for _ in range(200):
        daemon.sampler.turn()
        clock.advance(1.0)
    daemon.sampler.flush()
    with daemon.store.read() as connection:
        before = queries.total_energy(connection, 0, 2**40).energy_j
    clock.advance(3 * 86400)
    daemon.roll_up()
    daemon.retain()

    with daemon.store.read() as connection:
        assert queries.total_energy(connection, 0, 2**40).energy_j == pytest.approx(before)


def test_a_damaged_database_is_said_and_the_socket_is_given_back(tmp_path, clock):
    (tmp_path / "greend.db").write_bytes(b"this is not a database at all" * 100)

    with pytest.raises(DatabaseDamaged, match=r"greend\.db"):
        Daemon(settings(tmp_path), clock=clock)

    assert not (tmp_path / "greend.sock").exists()
    assert (tmp_path / "greend.db").read_bytes().startswith(b"this is not")


def test_an_unknown_source_is_named_with_the_nearest_known_one(tmp_path, clock):
    import msgspec

    wrong = msgspec.structs.replace(
        settings(tmp_path), sources=msgspec.structs.replace(settings(tmp_path).sources, enabled=("rapple",))
    )

    with pytest.raises(ConfigError, match=r"'rapple' \(did you mean 'rapl'\?\)"):
        Daemon(wrong, clock=clock)


def test_systemd_hears_what_it_is_told(tmp_path):
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        Notifier(str(path)).send("READY=1", "STATUS=40 W")

        assert manager.recv(100) == b"READY=1\nSTATUS=40 W"


@pytest.mark.parametrize("address", ["", "/nowhere/to/be/found"])
def test_a_manager_that_does_not_listen_stops_nobody(address):
    Notifier(address).send("READY=1")


def test_a_slow_listener_keeps_the_newest_events():
    import asyncio

    async def listen() -> list[str]:
        hub = Hub()
        with hub.listen("job") as queue:
            for number in range(QUEUE + 5):
                hub.publish("job", str(number))
            await asyncio.sleep(0)
            heard = [queue.get_nowait() for _ in range(queue.qsize())]
        assert hub.listeners("job") == 0
        return heard

    assert asyncio.run(listen()) == [str(n) for n in range(5, QUEUE + 5)]
