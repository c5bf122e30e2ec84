"""The thread that talks to the daemon, against a daemon that the test holds in its hands."""

from __future__ import annotations

import json
import logging
import os
import queue
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

import greend_agent
from greend import wire
from greend.clock import NS
from greend.errors import GreendError
from greend_agent.link import Link
from greend_agent.signals import TOP, Position, Signals

from .nets import OPTIMIZERS, batches, net, train


def until(happened: Callable[[], bool], seconds: float = 8.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


class FakeDaemon(socketserver.ThreadingUnixStreamServer):
    """Notes what it is told; says what the test puts into `say`. `None` ends the stream."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Handler)
        self.heard: list[tuple[str, dict]] = []
        self.say: queue.Queue[tuple[str, str] | None] = queue.Queue()
        self.unknown: set[str] = set()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def told(self, end: str) -> list[dict]:
        return [body for path, body in self.heard if path.endswith(end)]

    def direct(self, level: int, ttl_s: float = 30.0, on_loss: str = "top") -> None:
        directive = wire.Directive(len(self.heard), level, "because", ttl_s, on_loss)
        self.say.put(("directive", wire.encode(directive).decode()))


class Handler(BaseHTTPRequestHandler):
    server: FakeDaemon

    def address_string(self) -> str:
        return "test"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.heard.append((self.path, body))
        known = not any(f"/jobs/{job}/" in self.path for job in self.server.unknown)
        answer = json.dumps({"job": "j-new"} if self.path == "/v1/jobs" else {}).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        while (said := self.server.say.get()) is not None:
            self.wfile.write(f"event: {said[0]}\ndata: {said[1]}\n\n".encode())
            self.wfile.flush()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fake.sock"


@pytest.fixture
def daemon(path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(path) as server:
        yield server
        server.say.put(None)
        server.shutdown()


@pytest.fixture
def signals() -> Signals:
    return Signals()


@pytest.fixture
def link(signals: Signals, path: Path) -> Iterator[Link]:
    now = [0]
    link = Link(signals, path, name="night", steps=500, clock=lambda: now[0])
    link.now = now  # type: ignore[attr-defined]
    yield link
    link.close()


def test_it_registers_says_what_the_model_can_do_and_follows(daemon, link, signals):
    link.start()
    link.announce([0.5, 1.0], ["proven: up -> down"])
    daemon.direct(0)
    until(lambda: signals.want == 0)

    assert daemon.told("/jobs")[0]["name"] == "night"
    assert daemon.told("/jobs")[0]["pid"] == os.getpid()
    assert daemon.told("/attach") == [
        {"pid": os.getpid(), "costs": [0.5, 1.0], "steps": 500, "report": ["proven: up -> down"]}
    ]


def test_progress_is_told_once_for_each_position(daemon, link, signals):
    link.start()
    link.announce([1.0], [])
    signals.position = Position(12, 1, 34 * NS)
    until(lambda: daemon.told("/progress"))

    assert daemon.told("/progress") == [{"step": 12, "level": 1, "mono_ns": 34 * NS}]


def test_when_the_stream_ends_it_comes_back_and_attaches_again(daemon, link, signals):
    link.start()
    link.announce([0.5, 1.0], [])
    daemon.direct(1)
    until(lambda: signals.want == 1)
    daemon.say.put(None)
    daemon.direct(0)
    until(lambda: signals.want == 0)

    assert len(daemon.told("/attach")) == 2
    assert len(daemon.told("/jobs")) == 1


def test_a_daemon_with_a_new_history_gets_the_job_anew(daemon, signals, path):
    daemon.unknown.add("j-old")
    link = Link(signals, path, job="j-old")
    link.start()
    link.announce([0.5, 1.0], [])
    daemon.direct(0)
    until(lambda: signals.want == 0)
    link.close()

    assert link.job == "j-new"


@pytest.mark.parametrize(("on_loss", "want"), [("top", TOP), ("hold", 0)])
def test_a_daemon_that_falls_silent_loses_its_lease(daemon, link, signals, on_loss, want):
    link.start()
    link.announce([0.5, 1.0], [])
    daemon.direct(0, ttl_s=30.0, on_loss=on_loss)
    until(lambda: signals.want == 0)
    link.now[0] = 31 * NS
    link._tick()

    assert signals.want == want


def test_without_a_daemon_it_says_so_once_and_training_goes_on(path, monkeypatch, caplog):
    monkeypatch.setenv("GREEND_SOCKET", str(path))
    logging.getLogger("greend").setLevel(logging.WARNING)
    model = net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = greend_agent.attach(model, optimizer)
    train(model, optimizer, batches(3))
    until(lambda: "unmeasured" in caplog.text)

    assert f"no daemon at {path}; training goes on unmeasured" in caplog.text
    assert agent.step_count == 3
    agent.detach()


def test_a_required_daemon_that_is_not_there_is_an_error_before_the_first_step(path, monkeypatch):
    monkeypatch.setenv("GREEND_SOCKET", str(path))
    monkeypatch.setenv("GREEND_REQUIRED", "1")
    model = net()

    with pytest.raises(GreendError, match="connect to"):
        greend_agent.attach(model, OPTIMIZERS["sgd"](model.parameters()))


def test_a_disabled_agent_does_nothing_at_all(monkeypatch):
    monkeypatch.setenv("GREEND_DISABLED", "1")
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    agent = greend_agent.attach(model, optimizer)
    agent.request(0)
    train(model, optimizer, batches(2))

    assert not model._forward_pre_hooks
    assert (agent.step_count, agent.report()) == (0, ["not attached: GREEND_DISABLED=1 in the environment"])


def test_a_forked_child_has_no_link_and_the_top(daemon, link, signals):
    link.start()
    link.announce([0.5, 1.0], [])
    daemon.direct(0)
    until(lambda: signals.want == 0)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write_end, b"top" if signals.want == TOP else b"low")
        os._exit(0)
    os.waitpid(pid, 0)

    assert os.read(read_end, 3) == b"top"
    assert signals.want == 0
    os.close(read_end)
    os.close(write_end)
