"""The turn: once a second every source is asked, and a counter becomes joules, a decision and a row."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from greend.attribution import split
from greend.clock import NS, Clock, Instant
from greend.counters import CounterBook
from greend.daemon.governing import Governing, Turn
from greend.daemon.jobs import JobBook
from greend.daemon.live import LiveJob
from greend.energy.coefficients import CoefficientTable
from greend.energy.model import price
from greend.errors import GreendError, SourceError
from greend.sources.source import Source
from greend.store.writes import Batch
from greend.types import (
    ComponentEnergy,
    Consumer,
    CounterKey,
    Hardware,
    Interval,
    IntervalFlag,
    Reading,
    Share,
    Usage,
)

log = logging.getLogger("greend")

BUSY = CounterKey("host", "cpu", "busy_s")

UNSURE = IntervalFlag.RESET | IntervalFlag.GAP | IntervalFlag.AMBIGUOUS
"""Joules of such an interval are a lower bound, or of more than this turn."""

ALWAYS_ON = ("cpu", "gpu", "dram")
"""Kinds of components that use something in every second, so that a counter without increase stands still."""

SLEPT_TURNS = 5.0
"""A turn of more than so many periods is one in which the machine slept, or we did."""

KEPT_ROWS = 20_000
"""Rows kept in memory while the database cannot be written: more than ten minutes of a large machine."""


@dataclass(frozen=True, slots=True)
class Now:
    """The last turn, for whoever asks how things are."""

    at: Instant
    seconds: float
    energies: tuple[ComponentEnergy, ...]
    problems: dict[str, str]
    """Why a source that should work did not, by its name."""

    @property
    def power_w(self) -> float | None:
        """Watts over the last turn; None when nothing could be priced."""
        if not self.energies or self.seconds <= 0:
            return None
        return sum(e.energy_j for e in self.energies) / self.seconds


@dataclass
class Sampler:
    """Owns the loop's state; `turn` is one look at the machine, and everything else follows from it."""

    clock: Clock
    sources: Sequence[Source]
    hardware: Hardware
    table: CoefficientTable
    jobs: JobBook
    governing: Governing
    store: Callable[[Batch], None]
    """Writes a batch in one transaction; raises GreendError and then keeps nothing of it."""
    announce: Callable[[LiveJob], None]
    closed: Callable[[LiveJob], None]
    """Hears of each job that has ended, once its end is stored."""
    counters: CounterBook
    boot_id: str
    gpu_processes: Callable[[], dict[str, dict[int, float]]] = dict
    flush_s: float = 10.0
    period_s: float = 1.0
    now: Now | None = None
    turns: int = 0
    flush_lock: threading.Lock = field(default_factory=threading.Lock)
    _batch: Batch = field(default_factory=Batch)
    _flushed: Instant | None = None
    _last: Instant | None = None
    _stamp_ns: int = 0
    _stood: bool = False
    """A counter did not move in the last turn."""
    _said: dict[str, str] = field(default_factory=dict)

    def turn(self) -> None:
        """Look once: read, price, attribute, decide, and store when it is time or a decision is new."""
        at = self.clock.now()
        readings, problems = self._read()
        intervals = self.counters.update(readings, at.mono_ns)
        previous, self._last = self._last or _resumed(intervals, at), at
        self.turns += 1
        if previous is None:
            self._flushed = at
            self.now = Now(at, 0.0, (), problems)
            return
        seconds = at.seconds_since(previous)
        if seconds <= 0:
            return
        energies = price(intervals, seconds, self.hardware, self.table, self.counters.awaited())
        self.now = Now(at, seconds, tuple(energies), problems)
        with self.jobs.lock:
            live = self.jobs.live()
            gpu = self._gpu_processes() if live else {}
            usages = [_usage(job, seconds, gpu) for job in live]
            shares = split(energies, _amount(intervals, BUSY), usages)
            after = self.governing.step(live, shares, Turn(previous, at, self._metered(energies, seconds)))
            self._collect(at, seconds, intervals, shares)
            decided = [(job.job.id, job.state.decision) for job in after.decided]
            self._batch.decisions += [(job_id, made) for job_id, made in decided if made is not None]
        if after.decided or after.ended or at.seconds_since(self._flushed or at) >= self.flush_s:
            self.flush(at)
        # Announced after the row is on the disk, so that no level was ever in force without a reason kept.
        for job in after.told:
            self.announce(job)
        for job in after.ended:
            self.closed(job)
        self.jobs.drop(after.ended)

    def flush(self, at: Instant | None = None) -> None:
        """Write what was gathered; on failure it is kept in memory for the next try."""
        with self.flush_lock:
            batch = self._take_batch()
            self._flushed = at or self.clock.now()
            try:
                self.store(batch)
            except GreendError as error:
                with self.jobs.lock:
                    self._batch = _recent(batch.then(self._batch))
                self._say("store", f"{error}; samples are kept in memory meanwhile")
            else:
                self._say("store", "")

    def _take_batch(self) -> Batch:
        """Take what is to be written, under the lock that guards whoever adds to it."""
        with self.jobs.lock:
            batch, self._batch = self._batch, Batch()
            for live in self.jobs.live():
                batch.jobs[live.job.id] = live.row()
                if live.profile_key is not None and (learned := live.newly_learned()) is not None:
                    batch.profiles[live.profile_key] = learned
            return batch

    def _read(self) -> tuple[list[Reading], dict[str, str]]:
        readings: list[Reading] = []
        problems: dict[str, str] = {}
        for source in self.sources:
            try:
                readings.extend(source.read())
            except SourceError as error:
                problems[source.name] = str(error)
            else:
                problems.update(source.problems)
            self._say(source.name, problems.get(source.name, ""))
        return readings, problems

    def _gpu_processes(self) -> dict[str, dict[int, float]]:
        """Say who used which GPU; a GPU that cannot say leaves its joules to nobody's job."""
        try:
            return self.gpu_processes()
        except SourceError:
            return {}

    def _collect(
        self,
        at: Instant,
        seconds: float,
        intervals: Sequence[Interval],
        shares: Sequence[Share],
    ) -> None:
        """Add one turn to the batch. Stamps never go back, so that a stepped clock mixes up no hour."""
        start_ns = max(self._stamp_ns, at.wall_ns - round(seconds * NS))
        end_ns = start_ns + round(seconds * NS)
        self._stamp_ns = end_ns
        self._batch.shares.extend((start_ns, end_ns, share) for share in shares)
        self._batch.increases.extend((start_ns, interval) for interval in intervals)
        self._batch.positions.update(self.counters.positions())
        self._batch.boot_id = self.boot_id

    def _metered(self, energies: Sequence[ComponentEnergy], seconds: float) -> bool:
        """Whether each joule of a turn was measured within it."""
        stood, self._stood = (
            self._stood,
            any(energy.energy_j <= 0 and energy.component.kind in ALWAYS_ON for energy in energies),
        )
        slept = seconds > SLEPT_TURNS * self.period_s
        # A counter that stood still shows what it owes at once when it moves again.
        return not (slept or stood or self._stood or any(energy.flags & UNSURE for energy in energies))

    def _say(self, name: str, problem: str) -> None:
        """Log a problem once when it comes and once when it goes."""
        if self._said.get(name, "") == problem:
            return
        if problem:
            log.warning("%s: %s", name, problem)
        else:
            log.info("%s: works again", name)
        self._said[name] = problem


def _usage(live: LiveJob, seconds: float, gpu_processes: dict[str, dict[int, float]]) -> Usage:
    """Say what one job's processes did since the last turn."""
    cpu_s = live.tree.cpu_s()
    if live.ending is not None and live.ending.cpu_s is not None:
        # The kernel's own account at the end knows also what ran after our last look.
        cpu_s = max(cpu_s, live.ending.cpu_s)
    before, live.cpu_s = live.cpu_s, cpu_s
    pids = live.tree.pids()
    gpu = {
        device: seconds * sum(share for pid, share in by_pid.items() if pid in pids)
        for device, by_pid in gpu_processes.items()
    }
    return Usage(Consumer("job", live.job.id), max(cpu_s - before, 0.0), gpu)


def _amount(intervals: Sequence[Interval], key: CounterKey) -> float:
    return sum(i.amount for i in intervals if i.key == key)


def _resumed(intervals: Sequence[Interval], at: Instant) -> Instant | None:
    """Return since when counters have been growing that an earlier daemon read last; None without any."""
    return at.after(-max(i.seconds for i in intervals)) if intervals else None


def _recent(batch: Batch) -> Batch:
    """Drop the oldest seconds of a batch that has waited too long."""
    batch.shares = batch.shares[-KEPT_ROWS:]
    batch.increases = batch.increases[-KEPT_ROWS:]
    return batch
