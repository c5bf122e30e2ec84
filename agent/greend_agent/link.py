"""The thread that talks to the daemon. It never touches the model: all that it does is set a few numbers."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from greend import wire
from greend.client import Client
from greend.clock import NS, mono_ns
from greend.errors import DaemonNotRunning, NotFound
from greend_agent.lease import Lease
from greend_agent.signals import Applied, Order, Position, Signals

_log = logging.getLogger("greend")

TICK_S = 0.5
"""How often progress is sent and the lease is judged."""
FIRST_RETRY_S, LONGEST_RETRY_S = 0.5, 10.0
SILENCE_S = 30.0
"""How long a stream may be silent before any directive has said how long."""
ASLEEP_S = 5.0
"""No tick takes so long, however the daemon hangs: then this process was stopped, or the machine was."""


class Link:
    """Registers the job, says what its model can do, follows directives, reports progress."""

    def __init__(
        self,
        signals: Signals,
        path: Path | None = None,
        *,
        job: str | None = None,
        name: str | None = None,
        steps: int | None = None,
        clock: Callable[[], int] = mono_ns,
    ) -> None:
        # A question is answered at once or not in time: the tick behind it judges the lease.
        self._client = Client(path, timeout_s=1.0)
        self.path = self._client.path
        self._signals, self._clock = signals, clock
        self._job, self._name, self._steps = job, name, steps
        self._lease, self._lock = Lease(), threading.Lock()
        self._applied: Order | None = None
        self._ticked_ns: int | None = None
        self._able: wire.AttachRequest | None = None
        self._attached: wire.AttachRequest | None = None
        self._announced, self._stop = threading.Event(), threading.Event()
        self._over = self._said = self._heard = False
        self._sent: tuple[Position, Applied] | None = None
        _links.add(self)

    @property
    def job(self) -> str | None:
        """The job's id, once registered."""
        return self._job

    def register(self) -> None:
        """Make sure that the daemon is there and knows the job. Raises GreendError."""
        if self._job is not None:
            self._client.get("/status")
            return
        request = wire.JobRequest(os.getpid(), list(sys.argv), self._name, None, self._steps)
        answer = self._client.post("/jobs", request)
        self._job = wire.decode(json.dumps(answer), wire.JobReply).job

    def start(self) -> None:
        """Begin to follow; returns at once."""
        for name, work in (("follow", self._follow_for_ever), ("tick", self._tick_for_ever)):
            threading.Thread(target=work, name=f"greend-{name}", daemon=True).start()
        atexit.register(self._finish)

    def announce(self, costs: list[float], report: list[str]) -> None:
        """Say what the model can do; may be called again when that changes. Returns at once."""
        if not self._over:  # in a forked child the event's lock may be held for ever
            self._able = wire.AttachRequest(os.getpid(), list(costs), self._steps, list(report))
            self._announced.set()

    def close(self) -> None:
        """Stop following; the threads end by themselves."""
        if not self._over:
            self._over = True
            atexit.unregister(self._finish)
            self._stop.set()
            self._announced.set()

    def drop(self) -> None:
        """Forget the daemon without a word: this process is a forked child, and the threads are not in it."""
        self._over = True
        self._signals.order = Order()

    # --- the thread that follows ---

    def _follow_for_ever(self) -> None:
        failures = 0
        while not self._stop.is_set():
            self._heard = False
            try:
                self._follow()
            except NotFound:
                self._job = None  # the daemon has a new history: register anew
                with self._lock:
                    self._lease.number_anew()
            except Exception as error:  # whatever it is: without this thread nothing is heard any more
                self._say_once(error)
            failures = 0 if self._heard else failures + 1
            self._stop.wait(retry_s(failures))

    def _follow(self) -> None:
        if self._job is None:
            self.register()
        self._announced.wait()
        self._attach()
        for event, data in self._client.follow(
            f"/jobs/{self._job}/directives", self._lease.ttl_s or SILENCE_S
        ):
            if self._stop.is_set():
                return
            self._hear(event, data)

    def _attach(self) -> None:
        able = self._able
        if able is not None and not self._stop.is_set():
            self._client.post(f"/jobs/{self._job}/attach", able)
            self._attached = able

    def _hear(self, event: str, data: str) -> None:
        directive = wire.decode(data, wire.Directive) if event == "directive" else None
        self._heard = True
        with self._lock:
            if self._lease.heard(self._clock(), directive):
                self._signals.step_j = self._lease.step_j
            self._apply()

    def _apply(self) -> None:
        order = self._lease.order(self._clock())
        if order is None:
            return
        # A local request may have been made from the order before this one, in the same microsecond.
        if order != self._applied or order.seq != self._signals.order.seq:
            self._signals.order = self._applied = order

    def _say_once(self, error: Exception) -> None:
        if self._said:
            return
        self._said = True
        what = f"no daemon at {self.path}" if isinstance(error, DaemonNotRunning) else str(error)
        _log.warning(
            "greend: %s; training goes on unmeasured (%s=1 makes this an error)", what, wire.ENV_REQUIRED
        )

    # --- the thread that ticks ---

    def _tick_for_ever(self) -> None:
        while not self._stop.wait(TICK_S):
            with contextlib.suppress(Exception):  # without this thread no lease would end
                self._tick()
        with contextlib.suppress(Exception):
            self._send_progress(self._client)

    def _tick(self) -> None:
        # Here, as the thread that follows may be stuck in a read, or in a connect.
        with self._lock:
            now_ns = self._clock()
            since_ns = now_ns - (self._ticked_ns if self._ticked_ns is not None else now_ns)
            if since_ns > ASLEEP_S * NS:
                self._lease.slept(since_ns)
            self._ticked_ns = now_ns
            self._apply()
        self._send_progress(self._client)
        if self._attached is not None and self._able is not self._attached:
            self._attach()

    def _send_progress(self, client: Client) -> None:
        position, applied = self._signals.position, self._signals.applied
        if self._job is not None and position is not None and (position, applied) != self._sent:
            client.post(f"/jobs/{self._job}/progress", wire.Progress(*position, *applied))
            self._sent = position, applied

    def _finish(self) -> None:
        """Send the last progress, within a second: half to connect and half to be answered."""
        if not self._over:
            self._over = True
            self._stop.set()
            with contextlib.suppress(Exception):
                self._send_progress(Client(self.path, timeout_s=0.5))


def retry_s(failures: int) -> float:
    """Return how long to wait before the next try."""
    return float(min(FIRST_RETRY_S * 2 ** min(max(0, failures - 1), 16), LONGEST_RETRY_S))


_links: weakref.WeakSet[Link] = weakref.WeakSet()


def _drop_all() -> None:
    for link in list(_links):
        link.drop()


os.register_at_fork(after_in_child=_drop_all)
