"""A daemon that a test holds in its hands: HTTP over a Unix socket."""

from __future__ import annotations

import itertools
import json
import queue
import socketserver
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from greend import wire


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
        self.hang: threading.Event | None = None
        """Answers wait for this."""
        self._numbers = itertools.count(1)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def told(self, end: str) -> list[dict]:
        return [body for path, body in self.heard if path.endswith(end)]

    def direct(self, level: int, ttl_s: float = 30.0, on_loss: str = "top", **fields: Any) -> int:
        """Say what a level is to be, with a new number; return that."""
        seq = fields.pop("seq", None) or next(self._numbers)
        directive = wire.Directive(seq, level, "because", ttl_s, on_loss, **fields)
        self.say.put(("directive", wire.encode(directive).decode()))
        return seq


class Handler(BaseHTTPRequestHandler):
    server: FakeDaemon

    def address_string(self) -> str:
        return "test"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.heard.append((self.path, body))
        if self.server.hang is not None:
            self.server.hang.wait()
            return
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
