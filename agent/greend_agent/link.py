"""The thread that talks to the daemon. It never touches the model: all that it does is set one integer."""

from __future__ import annotations

import atexit
import http.client
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
from greend.clock import mono_ns
from greend.errors import GreendError, NotFound
from greend_agent.lease import Lease
from greend_agent.signals import TOP, Position, Signals

_log = logging.getLogger("greend")

TICK_S = 0.5
"""How often progress is sent and the lease is judged."""
FIRST_RETRY_S, LONGEST_RETRY_S = 0.5, 10.0
SILENCE_S = 30.0
"""How long a stream may be silent before any directive has said how long."""
_FAILURES = (GreendError, OSError, http.client.HTTPException, ValueError, KeyError, TypeError)


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
        self._pid = os.getpid()
        self._lease, self._lock, self._said = Lease(), threading.Lock(), False
        self._applied: int | None = None
        self._able: tuple[list[float], list[str]] | None = None
        self._announced, self._stop = threading.Event(), threading.Event()
        self._dropped = False
        self._sent: Position | None = None
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
        for work in (self._follow_for_ever, self._tick_for_ever):
            threading.Thread(target=work, name=f"greend-{work.__name__.split('_')[1]}", daemon=True).start()
        atexit.register(self._finish)

    def announce(self, costs: list[float], report: list[str]) -> None:
        """Say what the model can do; may be called again when that changes. Returns at once."""
        if self._dropped:
            return  # in a forked child, where the event's lock may be held for ever
        self._able = (list(costs), list(report))
        self._announced.set()

    def close(self) -> None:
        """Stop following; the threads end by themselves."""
        if not self._dropped:
            self._dropped = True
            atexit.unregister(self._finish)
            self._stop.set()
            self._announced.set()

    def drop(self) -> None:
        """Forget the daemon without a word: the process is a forked child, and the threads are not in it."""
        self._dropped = True
        self._signals.want = TOP

    # --- following ---

    def _follow_for_ever(self) -> None:
        wait_s = FIRST_RETRY_S
        while not self._stop.is_set():
            try:
                self._follow()
                wait_s = FIRST_RETRY_S
            except NotFound:
                self._job = None  # a daemon with a new history; register anew
            except _FAILURES as error:
                if self._heard():
                    wait_s = FIRST_RETRY_S
                self._say_once(error)
            self._forget_heard()
            if self._stop.wait(wait_s):
                return
            wait_s = min(2 * wait_s, LONGEST_RETRY_S)

    def _follow(self) -> None:
        if self._job is None:
            self.register()
        self._announced.wait()
        able = None
        while not self._stop.is_set():
            if able is not self._able:
                able = self._attach()
            for event, data in self._client.follow(
                f"/jobs/{self._job}/directives", self._lease.ttl_s or SILENCE_S
            ):
                self._hear(event, data)
                if self._stop.is_set():
                    return
                if able is not self._able:
                    able = self._attach()
            return

    def _attach(self) -> tuple[list[float], list[str]] | None:
        able = self._able
        if able is not None:
            request = wire.AttachRequest(os.getpid(), able[0], self._steps, able[1])
            self._client.post(f"/jobs/{self._job}/attach", request)
        return able
