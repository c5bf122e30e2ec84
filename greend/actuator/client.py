"""Asking the actuator, for the daemon: leases are renewed in passing, and nothing waits for that."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgspec

from greend import errors
from greend.actuator.messages import (
    LINE_MAX,
    Answer,
    ControlInfo,
    Held,
    ListControls,
    Release,
    Renew,
    Request,
    SetLimit,
    encode,
)
from greend.clock import Clock, Instant, SystemClock
from greend.errors import ControlError, DaemonNotRunning, GreendError, PermissionDenied, ProtocolError

SOCKET = Path("/run/greend-actuator.sock")

GONE = "the actuator went away, and puts back what it had turned when it starts again"


@dataclass
class Lease:
    """A control that is turned for us until it is released; as a context, until its end."""

    client: ActuatorClient
    held: Held

    @property
    def value(self) -> float | None:
        """What the device holds itself to, in the control's unit."""
        return self.held.value

    @property
    def lost(self) -> str:
        """Why it has ended though nobody released it; empty: it is in force."""
        return self.held.lost

    @property
    def problem(self) -> str:
        """What the device makes of it: `cap of 100 W not honoured by device, floor is 121 W`."""
        return self.held.problem

    def release(self) -> str:
        """Have the control put back; return what was done, in words. A lost one is as it is."""
        return self.client.release(self)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(GreendError):
            self.release()


class ActuatorClient:
    """One connection to the actuator, opened when it is first needed; the leases live and die with it.

    `controls`, `set` and `release` wait for their answer, for at most `timeout_s`: turning a limit takes some
    milliseconds, starting the actuator (by its socket) a second. `tick` never waits: call it once a turn.
    Safe to call from several threads. Questions raise DaemonNotRunning, PermissionDenied, ControlHeld,
    ControlError or ProtocolError.
    """

    def __init__(
        self, path: Path = SOCKET, ttl_s: float = 30.0, timeout_s: float = 5.0, clock: Clock | None = None
    ) -> None:
        self._path = path
        self._ttl_s = ttl_s
        self._timeout_s = timeout_s
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._pending = b""
        self._seq = 0
        self._asked: Instant | None = None
        self._leases: dict[int, Lease] = {}

    def controls(self) -> tuple[list[ControlInfo], dict[str, str]]:
        """Return this machine's controls, and why there are none of a kind."""
        with self._lock:
            answer = self._ask(ListControls(self._next()))
        return answer.controls, answer.problems

    def set(self, control: str, value: float, reason: str = "", window_s: float | None = None) -> Lease:
        """Turn a control; a second call for the same one moves the same lease."""
        with self._lock:
            answer = self._ask(SetLimit(self._next(), control, value, window_s, self._ttl_s, reason))
            return self._leases[answer.lease]

    def release(self, lease: Lease) -> str:
        """Have a control put back; return what was done, in words."""
        with self._lock:
            if self._leases.pop(lease.held.lease, None) is None:
                return lease.lost or f"{lease.held.control} was released already"
            return self._ask(Release(self._next(), lease.held.lease)).said

    def tick(self) -> list[Lease]:
        """Renew when it is due, take in what was answered, and return the leases that were lost since."""
        if not self._lock.acquire(blocking=False):
            return []  # another thread asks something, which renews too
        try:
            if self._sock is None:
                return []
            now = self._clock.now()
            before = list(self._leases.values())
            try:
                if before and (self._asked is None or now.seconds_since(self._asked) >= self._ttl_s / 3):
                    self._send(Renew(self._next()))
                while self._receive(0.0) is not None:
                    pass
            except GreendError:
                pass  # all leases are lost by then, and say so
            return [lease for lease in before if lease.lost]
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the connection, and with it all leases."""
        with self._lock:
            self._hang_up("released with the connection")

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    def _ask(self, request: Request) -> Answer:
        self._send(request)
        end = self._clock.now().after(self._timeout_s)
        while True:
            answer = self._receive(max(end.seconds_since(self._clock.now()), 0.01))
            if answer is None:
                self._hang_up("the actuator did not answer")
                raise DaemonNotRunning(
                    f"ask the actuator at {self._path}: no answer in {self._timeout_s:g} s"
                )
            if answer.seq not in (request.seq, 0):
                continue
            if answer.error:
                kind = getattr(errors, answer.kind, ControlError)
                raise kind(answer.error)
            return answer

    def _send(self, request: Request) -> None:
        if self._sock is None:
            self._sock = self._connect()
        try:
            self._sock.settimeout(self._timeout_s)
            # Who is refused is told so and hung up on, perhaps before this is sent: then the reason is there
            # to be read.
            with contextlib.suppress(BrokenPipeError):
                self._sock.sendall(encode(request))
        except OSError as error:
            self._hang_up(GONE)
            raise DaemonNotRunning(f"ask the actuator at {self._path}: {error.strerror or error}") from error
        self._asked = self._clock.now()

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self._timeout_s)
            sock.connect(str(self._path))
        except OSError as error:
            sock.close()
            what = f"connect to the actuator at {self._path}: {error.strerror or error}"
            if isinstance(error, PermissionError):
                raise PermissionDenied(f"{what}; only the user greend (and root) may use it") from error
            raise DaemonNotRunning(
                f"{what}; device limits need it: sudo systemctl enable --now greend-actuator.socket"
            ) from error
        return sock

    def _receive(self, wait_s: float) -> Answer | None:
        """Take in one answer; None when there is none within the time (0: none that is here already)."""
        while b"\n" not in self._pending:
            assert self._sock is not None
            try:
                self._sock.settimeout(wait_s)
                raw = self._sock.recv(LINE_MAX)
            except (BlockingIOError, TimeoutError):
                return None
            except OSError:
                raw = b""
            if not raw:
                self._hang_up(GONE)
                raise DaemonNotRunning(f"ask the actuator at {self._path}: it closed the connection")
            self._pending += raw
        line, self._pending = self._pending.split(b"\n", 1)
        try:
            answer = msgspec.json.decode(line, type=Answer)
        except msgspec.DecodeError as error:
            self._hang_up("the actuator's answer made no sense")
            raise ProtocolError(f"ask the actuator at {self._path}: {error}") from error
        self._take_in(answer)
        return answer

    def _take_in(self, answer: Answer) -> None:
        for held in answer.held:
            lease = self._leases.get(held.lease)
            if lease is not None:
                lease.held = held
                if held.lost:
                    del self._leases[held.lease]
            elif held.lease == answer.lease:
                self._leases[held.lease] = Lease(self, held)

    def _hang_up(self, why: str) -> None:
        if self._sock is not None:
            self._sock.close()
        self._sock, self._pending, self._asked = None, b"", None
        for lease in self._leases.values():
            lease.held = msgspec.structs.replace(lease.held, lost=why)
        self._leases = {}
