"""Asking the daemon: HTTP over its Unix socket, with the standard library only."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from greend import wire
from greend.errors import DaemonNotRunning, NotFound, PermissionDenied, ProtocolError


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection whose transport is a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("greend", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.sock.close()
            raise


class Client:
    """One daemon, by its socket. Opens a connection for each request; safe to share among threads."""

    def __init__(self, path: Path | None = None, timeout_s: float = 5.0) -> None:
        self.path = path or wire.default_socket()
        self._timeout_s = timeout_s

    def get(self, path: str) -> Any:
        """Return the JSON answer to a question.

        Raises DaemonNotRunning, PermissionDenied, NotFound or ProtocolError.
        """
        return self._ask("GET", path, None)

    def post(self, path: str, message: object | None = None) -> Any:
        """Send a wire message and return the JSON answer; raises as `get` does."""
        return self._ask("POST", path, wire.encode(message) if message is not None else b"{}")

    def follow(self, path: str, timeout_s: float) -> Iterator[tuple[str, str]]:
        """Yield server-sent events as (event, data) until the daemon closes the stream.

        Raises as `get` does, also when nothing (not even a ping) is heard for `timeout_s`.
        """
        connection = self._open(timeout_s)
        response = None
        try:
            response = self._exchange(connection, "GET", path, None)
            event, data = "message", list[str]()
            while line := response.readline():
                text = line.decode().rstrip("\r\n")
                if not text:
                    if data:
                        yield event, "\n".join(data)
                    event, data = "message", []
                elif text.startswith("event:"):
                    event = text[6:].strip()
                elif text.startswith("data:"):
                    data.append(text[5:].strip())
        except (OSError, http.client.HTTPException) as error:
            raise DaemonNotRunning(f"follow {path}: the daemon at {self.path} went away: {error}") from error
        finally:
            if response is not None:
                response.close()  # it holds the socket too
            connection.close()

    def _open(self, timeout_s: float) -> _UnixConnection:
        connection = _UnixConnection(self.path, timeout_s)
        try:
            connection.connect()
        except PermissionError as error:
            raise PermissionDenied(
                f"connect to {self.path}: permission denied; power data is for the socket's group "
                "(side-channel risk). Ask to be added to group greend, then log in again."
            ) from error
        except OSError as error:
            raise DaemonNotRunning(
                f"connect to {self.path}: {error.strerror or error}; "
                "start it with `greend daemon`, or `sudo systemctl start greend` where it is a service"
            ) from error
        return connection

    def _exchange(
        self, connection: _UnixConnection, method: str, path: str, body: bytes | None
    ) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, wire.PREFIX + path, body, headers)
        response = connection.getresponse()
        if response.status >= 400:
            problem = response.read().decode(errors="replace")
            kind = {403: PermissionDenied, 404: NotFound}.get(response.status, ProtocolError)
            raise kind(_detail(problem))
        return response

    def _ask(self, method: str, path: str, body: bytes | None) -> Any:
        connection = self._open(self._timeout_s)
        try:
            raw = self._exchange(connection, method, path, body).read()
            return json.loads(raw) if raw else None
        except (OSError, http.client.HTTPException) as error:
            raise DaemonNotRunning(
                f"{method} {path}: the daemon at {self.path} did not answer: {error}"
            ) from error
        except ValueError as error:
            raise ProtocolError(f"{method} {path}: the answer of {self.path} is not JSON: {error}") from error
        finally:
            connection.close()


def _detail(problem: str) -> str:
    try:
        return str(json.loads(problem)["error"])
    except (ValueError, KeyError, TypeError):
        return problem or "no reason given"
