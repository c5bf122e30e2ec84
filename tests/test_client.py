"""Asking over a Unix socket: a stand-in that answers as it is told, byte by byte."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from greend import wire
from greend.client import Client
from greend.errors import DaemonNotRunning, NotFound, PermissionDenied, ProtocolError

Serve = Callable[[bytes], Client]


def answer(status: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def stream(*chunks: str, end: bool = True) -> bytes:
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = "".join(f"{len(c.encode()):x}\r\n{c}\r\n" for c in chunks)
    return (head + body + ("0\r\n\r\n" if end else "")).encode()


class Standin:
    """Accepts one connection after another, keeps what was asked and sends the bytes it was given."""

    def __init__(self, path: Path) -> None:
        self.asked: list[bytes] = []
        self.reply = b""
        self.hold = threading.Event()
        self.hold.set()
        self.patient = False
        self.left = threading.Event()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.bind(str(path))
        self._sock.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._sock.accept()
            with connection:
                asked = connection.recv(65536)
                if not asked:
                    return
                self.asked.append(asked)
                connection.sendall(self.reply)
                self.hold.wait(20)
                if self.patient and not connection.recv(1):
                    self.left.set()

    def close(self, path: Path) -> None:
        self.hold.set()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as last:
            last.connect(str(path))
        self._thread.join(20)
        self._sock.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "greend.sock"


@pytest.fixture
def standin(path: Path) -> Iterator[Standin]:
    standin = Standin(path)
    yield standin
    standin.close(path)


def test_a_question_is_asked_under_the_version_and_its_answer_read(standin, path):
    standin.reply = answer("200 OK", b'{"power_w": 38.2}')

    assert Client(path).get("/status") == {"power_w": 38.2}
    assert standin.asked[0].startswith(b"GET /v1/status HTTP/1.1\r\n")


def test_a_message_goes_as_json_and_an_empty_answer_is_none(standin, path):
    standin.reply = answer("200 OK", b"")

    assert Client(path).post("/jobs/j-1/end", wire.EndRequest(3)) is None
    head, _, body = standin.asked[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/jobs/j-1/end ")
    assert b"content-type: application/json" in head.lower()
    assert json.loads(body) == {"exit_code": 3, "cpu_s": None}


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (
            answer("404 Not Found", b'{"error": "job \'x\' is not running"}'),
            NotFound,
            "job 'x' is not running",
        ),
        (answer("403 Forbidden", b'{"error": "not yours"}'), PermissionDenied, "not yours"),
        (answer("400 Bad Request", b'{"error": "pid"}'), ProtocolError, "pid"),
        (answer("500 Server Error", b"Internal Server Error"), ProtocolError, "Internal Server Error"),
        (answer("500 Server Error", b"[1]"), ProtocolError, r"\[1\]"),
        (answer("502 Bad Gateway", b""), ProtocolError, "no reason given"),
        (answer("200 OK", b"<html>"), ProtocolError, "is not JSON"),
        (answer("200 OK", b"\xff\xfe\xff"), ProtocolError, "is not JSON"),
        (b"220 smtp.example.org ESMTP\r\n", DaemonNotRunning, "did not answer"),
        (b"", DaemonNotRunning, "did not answer"),
        (answer("200 OK", b'{"power_w": 38.2}')[:-5], DaemonNotRunning, "did not answer"),
    ],
)
def test_what_goes_wrong_has_its_own_error(standin, path, reply, kind, words):
    standin.reply = reply

    with pytest.raises(kind, match=words):
        Client(path).get("/status")


def test_a_daemon_that_is_silent_is_not_waited_for_for_ever(standin, path):
    standin.hold.clear()

    with pytest.raises(DaemonNotRunning, match="timed out"):
        Client(path, timeout_s=0.05).get("/status")


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.touch(), lambda p: p.mkdir()])
def test_where_nobody_listens_the_way_to_start_the_daemon_is_said(path, make):
    make(path)

    with pytest.raises(DaemonNotRunning, match=r"greend\.sock: .*start it with `greend daemon`"):
        Client(path).get("/status")


def test_a_path_that_is_too_long_for_a_socket_is_said(tmp_path):
    with pytest.raises(DaemonNotRunning, match="path too long"):
        Client(tmp_path / ("x" * 120)).get("/status")


def test_a_socket_that_is_not_for_us_names_the_group(path, monkeypatch):
    def denied(self: socket.socket, address: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", denied)
    with pytest.raises(PermissionDenied, match="group greend"):
        Client(path).get("/status")


def test_events_are_read_until_the_daemon_closes_the_stream(standin, path):
    standin.reply = stream(
        ": a comment\n\n", "event: directive\ndata: {\n", 'data: "level": 1}\n\n', "data: plain\r\n\r\n",
        "event: ping\n\n", "event: ping\ndata: {}\n\n", "event: directive\ndata: never finished\n",
    )  # fmt: skip

    assert list(Client(path).follow("/jobs/j-1/directives", timeout_s=10)) == [
        ("directive", '{\n"level": 1}'),
        ("message", "plain"),
        ("ping", "{}"),
    ]


def test_a_stream_that_falls_silent_is_a_daemon_that_went_away(standin, path):
    standin.reply = stream("data: one\n\n", end=False)
    standin.hold.clear()
    events = Client(path).follow("/jobs/j-1/directives", timeout_s=0.1)

    assert next(events) == ("message", "one")
    with pytest.raises(DaemonNotRunning, match="went away"):
        next(events)


def test_a_stream_that_nobody_reads_on_is_closed(standin, path):
    standin.reply = stream("data: one\n\n", "data: two\n\n")
    standin.patient = True
    events = Client(path).follow("/jobs/j-1/directives", timeout_s=10)
    next(events)
    events.close()

    assert standin.left.wait(20)


def test_a_job_that_nobody_knows_is_said_before_the_first_event(standin, path):
    standin.reply = answer("404 Not Found", b'{"error": "job \'x\' is not running here"}')

    with pytest.raises(NotFound, match="not running here"):
        list(Client(path).follow("/jobs/x/directives", timeout_s=10))
