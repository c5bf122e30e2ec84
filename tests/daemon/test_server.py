"""The real socket: who may ask, what is refused, and what lies in the way."""

import json
import os
import socket
import stat

import pytest

from greend import wire
from greend.client import Client
from greend.daemon.main import Daemon
from greend.errors import DaemonNotRunning, NotFound, PermissionDenied, ProtocolError, SocketInUse
from greend.listening import bind

from .conftest import settings


def test_the_status_says_how_each_figure_is_known(daemon, clock):
    daemon.sampler.turn()
    clock.advance(1.0)
    daemon.sampler.turn()

    status = Client(daemon.socket_path).get("/status")

    cpu = next(c for c in status["components"] if c["kind"] == "cpu")
    assert cpu["power_w"] == pytest.approx(40.0)
    assert (cpu["source"], cpu["quality"]) == ("simulated package", "assumed")
    assert status["sources"] == {"host": "", "fake": ""}


def test_the_socket_is_for_its_owner_alone(daemon):
    assert stat.S_IMODE(daemon.socket_path.stat().st_mode) == 0o600


def test_the_mode_of_a_socket_is_set_before_anybody_can_connect(tmp_path):
    before = os.umask(0)
    try:
        with bind(tmp_path / "group.sock", 0o660):
            assert stat.S_IMODE((tmp_path / "group.sock").stat().st_mode) == 0o660
    finally:
        os.umask(before)


def test_a_second_daemon_is_told_who_is_there_and_the_first_goes_on(daemon, tmp_path, clock):
    with pytest.raises(SocketInUse, match=f"another greend daemon \\(pid {os.getpid()}\\)"):
        Daemon(settings(tmp_path), clock=clock)

    assert Client(daemon.socket_path).get("/status")["pid"] == os.getpid()


def test_a_socket_left_by_a_killed_daemon_is_replaced(tmp_path):
    path = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    bind(path, 0o600).close()


def test_a_file_that_is_not_a_socket_is_never_removed(tmp_path):
    path = tmp_path / "thesis.txt"
    path.write_text("years of work")

    with pytest.raises(SocketInUse, match="not a socket"):
        bind(path, 0o600)

    assert path.read_text() == "years of work"


def test_a_process_of_somebody_else_cannot_be_registered(daemon, monkeypatch):
    monkeypatch.setattr("greend.daemon.server.uid_of", lambda request: 4711)

    with pytest.raises(PermissionDenied, match="belongs to user"):
        Client(daemon.socket_path).post("/jobs", wire.JobRequest(os.getpid(), ["train"]))


def test_a_process_that_does_not_run_cannot_be_registered(daemon):
    with pytest.raises(NotFound, match="does not run"):
        Client(daemon.socket_path).post("/jobs", wire.JobRequest(2**22 - 1, ["train"]))


def test_who_asks_is_known_by_the_kernel(daemon):
    reply = Client(daemon.socket_path).post("/jobs", wire.JobRequest(os.getpid(), ["train"]))

    assert daemon.jobs.get(reply["job"]).job.uid == os.getuid()


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"pid": "x", "command": []}', b"\xff"])
def test_a_body_that_makes_no_sense_is_refused_in_words(daemon, body, monkeypatch):
    monkeypatch.setattr(wire, "encode", lambda message: body)

    with pytest.raises(ProtocolError, match="/v1/jobs"):
        Client(daemon.socket_path).post("/jobs", object())


def test_fields_that_this_version_does_not_know_are_ignored():
    raw = json.dumps({"job": "j-1", "colour": "green"})

    assert wire.decode(raw, wire.JobReply) == wire.JobReply("j-1")


def test_a_job_that_is_not_there_has_no_directives(daemon):
    with pytest.raises(NotFound):
        next(Client(daemon.socket_path).follow("/jobs/j-nope/directives", 1.0))


def test_only_the_owner_and_root_may_follow_a_job(daemon, monkeypatch):
    client = Client(daemon.socket_path)
    job = client.post("/jobs", wire.JobRequest(os.getpid(), ["train"]))["job"]
    monkeypatch.setattr("greend.daemon.server.uid_of", lambda request: 4711)

    with pytest.raises(PermissionDenied, match="belongs to user"):
        next(client.follow(f"/jobs/{job}/directives", 5.0))


def test_a_follower_hears_pings_when_there_is_nothing_to_say(daemon):
    job = Client(daemon.socket_path).post("/jobs", wire.JobRequest(os.getpid(), ["train"]))["job"]

    events = Client(daemon.socket_path).follow(f"/jobs/{job}/directives", 5.0)

    assert [next(events), next(events)] == [("ping", "{}"), ("ping", "{}")]


def test_when_the_daemon_stops_the_socket_is_gone_and_the_client_says_so(tmp_path, clock):
    daemon = Daemon(settings(tmp_path), clock=clock)
    daemon.server.start()
    daemon.scheduler.start()
    daemon.stop()

    with pytest.raises(DaemonNotRunning, match="greend daemon"):
        Client(daemon.socket_path).get("/status")
