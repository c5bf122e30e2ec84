"""The device limits that the daemon asks for: a hard power cap, and each job's energy-optimal limit.

The energy-optimal limit comes first, since it costs hardly any time: only what is still too much after it
is taken from the level. Without an actuator there are no device limits, and everything else goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from greend.actuator.client import SOCKET, ActuatorClient, Lease
from greend.actuator.messages import ControlInfo
from greend.clock import Clock, Instant
from greend.config import Actuator
from greend.daemon.governing import Turn
from greend.daemon.live import LiveJob
from greend.errors import GreendError
from greend.governor.limit_search import LimitSearch
from greend.units import format_power

SETTLE_S = 2.0
"""A device needs so long after a new limit until its counter shows it: two turns."""
RETRY_S = 60.0
"""After a limit that could not be set nobody is asked again for so long: an answer may take its time."""
ANSWER_S = 2.0
"""The actuator is started by its socket when it is first asked."""


def connect(settings: Actuator, clock: Clock) -> ActuatorClient | None:
    """Return the actuator where there is one, else None; it is asked when it is first needed."""
    path = Path(settings.socket).expanduser() if settings.socket else SOCKET
    if not settings.socket and not path.exists():
        return None
    return ActuatorClient(path, timeout_s=ANSWER_S, clock=clock)


@dataclass
class Limited:
    """A device that is limited for one job."""

    control: ControlInfo
    lease: Lease
    asked_w: float
    since: Instant
    search: LimitSearch | None = None
    """None: somebody asked for this limit."""
    level: int | None = None
    """The level at which the search measures: energy per step is the level's too."""


@dataclass
class Limiting:
    """Which device is limited for which job.

    With two jobs at work none is searched for: what a step costs would be the other's doing too.
    """

    settings: Actuator
    caps: ActuatorClient | None = None
    problem: str = ""
    """Why no device is limited though it should be, or what it makes of its limit; empty: all is well."""
    _by_job: dict[str, Limited] = field(default_factory=dict)
    _known: tuple[ControlInfo, ...] = ()
    _retry: Instant | None = None

    def why_not(self, watts: float) -> str:
        """Return why no device here can hold a job at so many watts by itself; empty: one can."""
        if self.caps is None:
            return "no greend-actuator runs here"
        found = self._controls()
        if not found:
            return self.problem or "no device here has a power limit that can be turned"
        least_w, device = min((control.least or 0.0, control.device) for control in found)
        return "" if watts >= least_w else f"the least that {device} takes is {format_power(least_w)}"

    def capped_w(self, live: LiveJob) -> float | None:
        """Return the limit that the hardware holds for a job; None: none, or it is not honoured."""
        limited = self._by_job.get(live.job.id)
        return limited.lease.value if limited is not None and not limited.lease.problem else None

    def look(self, live: Sequence[LiveJob], now: Instant) -> None:
        """Set what jobs need now: hard caps, and the search of a job that is alone."""
        if self.caps is None:
            return
        self.caps.tick()
        for job_id, limited in list(self._by_job.items()):
            self.problem = limited.lease.lost or limited.lease.problem
            if limited.lease.lost:
                del self._by_job[job_id]
                self._retry = now.after(RETRY_S)
            elif limited.search is not None and len(live) > 1:
                self.forget(job_id)
        for job in live:
            self._serve(job, len(live) == 1, now)

    def _serve(self, live: LiveJob, alone: bool, now: Instant) -> None:
        limits, limited = live.job.limits, self._by_job.get(live.job.id)
        wanted_w = limits.power_w if limits.hard else None
        if limited is not None and limited.search is None and wanted_w is None:
            self.forget(live.job.id)
        elif wanted_w is not None:
            if limited is None or limited.search is not None or limited.asked_w != wanted_w:
                self._begin(live, wanted_w, now)
        elif limited is None and alone and self.settings.search and live.profile is not None:
            self._begin(live, None, now)

    def learn(self, live: LiveJob, turn: Turn, energy_j: float, steps: float) -> None:
        """Take in what steps cost under the limit in force, and go to the next one to be tried."""
        limited = self._by_job.get(live.job.id)
        if limited is None or limited.search is None or limited.search.done:
            return
        limited.level = live.steps.level if limited.level is None else limited.level
        if turn.previous.seconds_since(limited.since) < SETTLE_S or live.steps.level != limited.level:
            return
        limited.search = limited.search.observe(limited.asked_w, energy_j, steps, turn.seconds)
        if limited.search.wanted_w != limited.asked_w:
            self._set(live, limited.control, limited.search.wanted_w, turn.now, limited.search)

    def words(self, live: LiveJob) -> str:
        """Return what the search has found for a job, for people; empty: nothing yet."""
        limited = self._by_job.get(live.job.id)
        if limited is None or limited.search is None or not limited.search.done:
            return ""
        search = limited.search
        return (
            f"{limited.control.device} runs at {format_power(limited.asked_w)}: "
            f"{search.saving:.0%} fewer joules a step, {search.slowdown:.0%} longer"
        )

    def forget(self, job_id: str) -> None:
        """Give back what a job's device was limited to."""
        limited = self._by_job.pop(job_id, None)
        if limited is not None:
            try:
                limited.lease.release()
            except GreendError as error:
                # The actuator gives it back by itself, with the connection or when it starts again.
                self.problem = str(error)

    def close(self) -> None:
        """Give everything back."""
        if self.caps is not None:
            self._by_job = {}
            self.caps.close()

    def _controls(self) -> tuple[ControlInfo, ...]:
        """Return the power limits that can be turned and have a range."""
        if not self._known and self.caps is not None:
            try:
                found, problems = self.caps.controls()
            except GreendError as error:
                self.problem = str(error)
            else:
                self._known = tuple(c for c in found if c.unit == "W" and c.least and c.most)
                self.problem = "" if self._known else "; ".join(problems.values())
        return self._known

    def _device_of(self, live: LiveJob) -> ControlInfo | None:
        """Return the control of the device on which the job uses most of its joules."""
        by_device: dict[str, ControlInfo] = {}
        for control in self._controls():
            by_device.setdefault(control.device, control)  # a package's long term comes before its short one
        used = sorted(live.spent_by.items(), key=lambda item: -item[1])
        return next((by_device[device] for device, _ in used if device in by_device), None)

    def _begin(self, live: LiveJob, watts: float | None, now: Instant) -> None:
        if self._retry is not None and now < self._retry:
            return
        control = self._device_of(live)
        if control is None:
            self._retry = now.after(RETRY_S) if not self._known else None
            return
        search = None
        if watts is None:
            least_w, most_w = control.least or 0.0, control.most or 0.0
            search = LimitSearch.over(least_w, most_w, max_slowdown=self.settings.max_slowdown)
        self._set(live, control, watts if search is None else search.wanted_w, now, search)

    def _set(
        self,
        live: LiveJob,
        control: ControlInfo,
        watts: float | None,
        now: Instant,
        search: LimitSearch | None,
    ) -> None:
        assert self.caps is not None and watts is not None
        level = live.steps.level if search is not None else None
        reason = f"job {live.job.id} ({live.job.name})"
        try:
            lease = self.caps.set(control.name, watts, reason)
        except GreendError as error:
            self.problem, self._retry = str(error), now.after(RETRY_S)
            return
        self.problem, self._retry = "", None
        self._by_job[live.job.id] = Limited(control, lease, watts, now, search, level)
