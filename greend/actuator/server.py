"""Answering the daemon: lines of JSON over a Unix socket, in one thread that also keeps the leases."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
from collections.abc import Callable
from itertools import count

import msgspec

from greend.actuator.leases import LeaseBook, Owner
from greend.actuator.messages import (
    LINE_MAX,
    Answer,
    Ask,
    ListControls,
    Release,
    SetLimit,
    encode,
)
from greend.actuator.peer import peer_of
from greend.clock import Clock
from greend.errors import GreendError, PermissionDenied

log = logging.getLogger("greend.actuator")

LOOK_S = 1.0
"""Seconds between two looks at controls and leases while any is held."""
MOST_CONNECTIONS = 16


class _Connection:
    """One client, until it or its process ends."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        peer = peer_of(sock)
        self.pidfd = peer.pidfd
        self.owner = Owner(number, peer.pid, peer.uid, peer.started)
        self.pending = b""


class Server:
    """Serves connections of the users in `uids` until told to stop; then everything is put back.

    With `idle_s` it also ends by itself when nobody was connected, and nothing turned, for so long: systemd
    listens on, and starts it again when it is needed.
    """

    def __init__(
        self,
        sock: socket.socket,
        book: LeaseBook,
        clock: Clock,
        uids: frozenset[int],
        idle_s: float | None = None,
    ) -> None:
        self._sock = sock
        self._book = book
        self._clock = clock
        self._uids = uids
        self._idle_s = idle_s
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, _Connection] = {}
        self._numbers = count(1)
        self._stopping = False
        self._used = clock.now()
        self._looked = clock.now()
        self._woken, self._wake = socket.socketpair()

    def serve(self) -> None:
        """Serve; returns after `stop`."""
        self._sock.setblocking(False)
        self._watch(self._sock, self._accept)
        self._watch(self._woken, lambda: None)  # by then `_stopping` says why
        try:
            while not self._stopping:
                for key, _ in self._selector.select(LOOK_S):
                    key.data()
                self._look()
        finally:
            for connection in list(self._connections.values()):
                self._close(connection)
            self._book.close()
            self._selector.close()
            self._woken.close()
            self._wake.close()

    def stop_on(self, *signals: signal.Signals) -> None:
        """End at these signals; for the main thread."""
        for number in signals:
            signal.signal(number, lambda _signal, _frame: self.stop())

    def stop(self) -> None:
        """End after what is under way; from any thread, or a signal's handler."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._wake.send(b"\0")

    def _look(self) -> None:
        now = self._clock.now()
        if now.seconds_since(self._looked) >= LOOK_S:
            self._looked = now
            self._book.look(now)
        if self._connections or not self._book.idle:
            self._used = now
        elif self._idle_s is not None and now.seconds_since(self._used) > self._idle_s:
            self.stop()

    def _accept(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError:
            return
        if len(self._connections) >= MOST_CONNECTIONS:
            sock.close()
            return
        sock.setblocking(False)
        connection = _Connection(sock, next(self._numbers))
        self._connections[connection.owner.connection] = connection
        if connection.owner.uid not in self._uids:
            why = (
                f"user {connection.owner.uid} may not turn this machine's limits; the actuator serves "
                f"user {', '.join(str(uid) for uid in sorted(self._uids))} (greend actuator --allow USER)"
            )
            log.warning("refused %s: %s", connection.owner, why)
            self._send(connection, Answer(0, why, PermissionDenied.__name__))
            self._close(connection)
            return
        self._watch(sock, lambda: self._receive(connection))
        if connection.pidfd is not None:
            self._watch(connection.pidfd, lambda: self._close(connection))

    def _receive(self, connection: _Connection) -> None:
        try:
            raw = connection.sock.recv(LINE_MAX)
        except BlockingIOError:
            return
        except OSError:
            raw = b""
        *lines, connection.pending = (connection.pending + raw).split(b"\n")
        for line in lines:
            self._send(connection, self._answer(connection.owner, line))
        if not raw or len(connection.pending) > LINE_MAX:
            self._close(connection)

    def _answer(self, owner: Owner, line: bytes) -> Answer:
        try:
            ask = msgspec.json.decode(line, type=Ask)
        except msgspec.DecodeError as error:
            return Answer(0, f"read a request: {error}", "ProtocolError")
        now = self._clock.now()
        try:
            if isinstance(ask, SetLimit):
                answer = Answer(ask.seq, lease=self._book.set(owner, ask, now).lease)
            elif isinstance(ask, Release):
                answer = Answer(ask.seq, said=self._book.release(owner, ask.lease))
            elif isinstance(ask, ListControls):
                infos, problems = self._book.infos()
                answer = Answer(ask.seq, controls=infos, problems=problems)
            else:
                answer = Answer(ask.seq)
        except GreendError as error:
            answer = Answer(ask.seq, str(error), type(error).__name__)
        return msgspec.structs.replace(answer, held=self._book.renew(owner, now))

    def _send(self, connection: _Connection, answer: Answer) -> None:
        try:
            connection.sock.sendall(encode(answer))
        except OSError:
            # It is gone, or does not read its answers: its end is seen at the next turn of the loop.
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _close(self, connection: _Connection) -> None:
        if self._connections.pop(connection.owner.connection, None) is None:
            return
        for end in (connection.sock, connection.pidfd):
            with contextlib.suppress(KeyError, ValueError):
                if end is not None:
                    self._selector.unregister(end)
        connection.sock.close()
        if connection.pidfd is not None:
            os.close(connection.pidfd)
        self._book.leave(connection.owner)

    def _watch(self, what: socket.socket | int, then: Callable[[], None]) -> None:
        self._selector.register(what, selectors.EVENT_READ, then)
