"""The daemon asks over a real socket; every way in which it can go gives the limits back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from greend.actuator.client import ActuatorClient
from greend.actuator.leases import LeaseBook
from greend.actuator.messages import LINE_MAX
from greend.actuator.server import MOST_CONNECTIONS, Server
from greend.clock import ManualClock
from greend.errors import ControlError, ControlHeld, DaemonNotRunning, PermissionDenied
from greend.listening import bind

from .conftest import GPU, GROUP, Machine


def until(true: Callable[[], bool]) -> None:
    """Wait for another thread or process, for ten seconds at most."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it did not come about in 10 s"
        time.sleep(0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "actuator.sock"


@pytest.fixture
def serve(book: LeaseBook, clock: ManualClock, path: Path) -> Iterator[Callable[..., Server]]:
    """Start a server on a thread; its look at the leases follows the test's clock."""
    started: list[tuple[Server, threading.Thread, socket.socket]] = []

    def start(uids: frozenset[int] = frozenset({os.geteuid()}), idle_s: float | None = None) -> Server:
        sock = bind(path, 0o600, "actuator")
        server = Server(sock, book, clock, uids, idle_s)
        thread = threading.Thread(target=server.serve)
        thread.start()
        started.append((server, thread, sock))
        return server

    yield start
    for server, thread, sock in started:
        server.stop()
        thread.join(10)
        sock.close()
        assert not thread.is_alive()


@pytest.fixture
def client(path: Path, clock: ManualClock) -> Iterator[ActuatorClient]:
    client = ActuatorClient(path, ttl_s=30, clock=clock)
    yield client
    client.close()


def test_a_limit_is_set_for_the_length_of_a_context(serve, client, machine: Machine):
    serve()
    with client.set(GPU, 200, "cap of job a") as lease:
        assert (lease.value, lease.lost, machine.gpu_mw()) == (200, "", 200_000)
        assert client.set(GPU, 150) is lease
        assert lease.value == 150
    assert machine.gpu_mw() == 300_000
    assert client.release(lease) == f"{GPU} was released already"


def test_the_controls_of_the_machine_are_told(serve, client):
    serve()
    controls, problems = client.controls()

    assert [(c.kind, c.device, c.least, c.most) for c in controls][:2] == [
        ("nvml", "gpu-0", 100, 300),
        ("rapl", "package-0", 31.25, 125),
    ]
    assert problems == {}


def test_errors_arrive_as_what_they_are(serve, client, path, clock):
    serve()
    client.set(GPU, 200)
    other = ActuatorClient(path, clock=clock)

    with pytest.raises(ControlHeld, match="holds it at 200 W"):
        other.set(GPU, 150)
    with pytest.raises(ControlError, match="no limit is called 'nvml:GPU-standin-9'"):
        other.set("nvml:GPU-standin-9", 150)
    other.close()


def test_a_connection_that_closes_gives_its_limits_back(serve, client, machine: Machine):
    serve()
    lease = client.set(GPU, 200)
    client.close()

    until(lambda: machine.gpu_mw() == 300_000)
    assert lease.lost == "released with the connection"


def test_renewing_never_waits_and_keeps_the_lease(serve, client, book, clock, machine: Machine):
    serve()
    lease = client.set(GPU, 200)
    for _ in range(6):
        clock.advance(11)
        started = time.process_time()
        assert client.tick() == []
        assert time.process_time() - started < 0.1
        until(lambda: book._leases[GPU].heard == clock.now())
    client.controls()

    assert machine.gpu_mw() == 200_000
    assert lease.lost == ""


def test_a_client_that_was_stopped_hears_that_its_lease_ended(serve, client, clock, machine: Machine):
    serve()
    lease = client.set(GPU, 200)
    clock.advance(60)
    until(lambda: machine.gpu_mw() == 300_000)

    lost: list[object] = []
    until(lambda: bool(lost.extend(client.tick()) or lost))
    assert lost == [lease]
    assert "nothing was heard of process" in lease.lost


def test_another_users_request_is_refused_in_words(serve, client, machine: Machine):
    serve(uids=frozenset({99_999}))

    with pytest.raises(PermissionDenied, match=r"may not turn this machine's limits.*--allow USER"):
        client.set(GPU, 200)
    assert machine.gpu_mw() == 300_000


def test_no_actuator_says_how_to_start_one(client):
    with pytest.raises(DaemonNotRunning, match=r"systemctl enable --now greend-actuator\.socket"):
        client.set(GPU, 200)
    assert client.tick() == []


def test_an_actuator_that_ends_takes_the_leases_along_and_says_so(serve, client, machine: Machine):
    server = serve()
    lease = client.set(GPU, 200)
    server.stop()
    until(lambda: machine.gpu_mw() == 300_000)

    lost: list[object] = []
    until(lambda: bool(lost.extend(client.tick()) or lost))
    assert lost == [lease]
    assert "the actuator went away" in lease.lost


@pytest.mark.parametrize("garbage", [b"\xff\n", b"{}\n", b'{"ask":"format","seq":1}\n', b"[" * 3000 + b"\n"])
def test_garbage_is_answered_and_harms_nobody(serve, client, path, garbage):
    serve()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(garbage)
        assert b"read a request" in sock.recv(LINE_MAX)
    assert client.controls()[0]


def test_a_line_without_an_end_is_cut_off(serve, client, path):
    serve()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.settimeout(10)
        with pytest.raises(OSError):
            for _ in range(100):
                sock.sendall(b"x" * LINE_MAX)
    assert client.controls()[0]


def test_a_crowd_does_not_lock_it_up(serve, client, path):
    serve()
    crowd = []
    for _ in range(MOST_CONNECTIONS + 3):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        crowd.append(sock)
    for sock in crowd:
        sock.close()

    until(lambda: _answers(client))


def _answers(client: ActuatorClient) -> bool:
    try:
        return bool(client.controls()[0])
    except DaemonNotRunning:
        return False


HOLDER = """
import os, sys, time
from pathlib import Path
from greend.actuator.client import ActuatorClient
client = ActuatorClient(Path(sys.argv[1]))
lease = client.set(sys.argv[2], 150)
if os.fork() == 0:
    time.sleep(60)  # a child that keeps the connection open
    os._exit(0)
print("held", flush=True)
time.sleep(60)
"""


def test_a_process_that_is_killed_gives_its_limits_back_though_a_child_keeps_the_connection(
    serve, path, machine: Machine
):
    serve()
    words = [sys.executable, "-c", HOLDER, str(path), GPU]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert machine.gpu_mw() == 150_000
        holder.kill()
        until(lambda: machine.gpu_mw() == 300_000)
        os.killpg(holder.pid, signal.SIGKILL)  # the child


def test_a_group_that_greend_runs_in_is_refused(serve, client, monkeypatch):
    monkeypatch.setattr("greend.actuator.leases.group_of", lambda pid: "/jobs/a/greend")
    serve()

    with pytest.raises(ControlError, match="greend itself runs in it"):
        client.set(GROUP, 0.5)
