"""The composition root: the one place that knows every part, and the loop that drives them."""

from __future__ import annotations

import logging
import os
import signal
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from greend.clock import NS, Clock, Instant, SystemClock
from greend.config import Config, Mode, database_path, socket_mode, socket_path
from greend.counters import CounterBook
from greend.daemon.control import Control
from greend.daemon.control_routes import control_routes
from greend.daemon.governing import Governing
from greend.daemon.history import History
from greend.daemon.hub import Hub
from greend.daemon.instance import Instance
from greend.daemon.jobs import JobBook
from greend.daemon.leases import Leases, topic
from greend.daemon.limiting import Limiting, connect
from greend.daemon.live import LiveJob
from greend.daemon.notify import Notifier
from greend.daemon.periods import PeriodBook
from greend.daemon.pricing import Prices
from greend.daemon.rulebook import RuleBook
from greend.daemon.sampler import Sampler
from greend.daemon.scheduler import Scheduler
from greend.daemon.server import ServerThread, application
from greend.daemon.service import Service
from greend.daemon.sources import SourceSet
from greend.daemon.terms import Terms
from greend.energy.coefficients import load_table
from greend.errors import GreendError
from greend.listening import bind
from greend.sources.hardware import hardware
from greend.sources.pressure import PressureSource
from greend.sources.processes import ProcessTree, boot_id
from greend.store.engine import Store
from greend.store.jobs import job_energy, last_decision, open_jobs
from greend.store.positions import positions
from greend.store.rollup import retain, roll_up
from greend.store.writes import Batch, write
from greend.types import Job
from greend.units import format_power
from greend.wire import encode

log = logging.getLogger("greend")

LEAST_TURN_S = 0.05
"""An event may ask for a turn ahead of time, but not more often than this."""


@dataclass
class Daemon:
    """Everything that runs, from `start` to `stop`."""

    config: Config
    mode: Mode = "user"
    clock: Clock = field(default_factory=SystemClock)
    notifier: Notifier = field(default_factory=Notifier)

    def __post_init__(self) -> None:
        """Build the parts: nothing runs yet, but a bad table, database or socket is said here."""
        self._wake = threading.Event()
        self._pause = threading.Event()
        self._stopping = False
        self.socket_path = socket_path(self.config, self.mode)
        self.database = database_path(self.config, self.mode)
        table = load_table(Path(self.config.energy.table) if self.config.energy.table else None)
        self.sources = SourceSet.of(self.config.sources, self.clock)
        policies = RuleBook(self.config.policies, lambda name, body: self.history.keep_rule(name, body))
        # The socket before the store: whoever finds another daemon there must not touch its database.
        sock = bind(self.socket_path, socket_mode(self.config, self.mode))
        try:
            self._instance = Instance(self.database)
            self.store = Store.open(self.database, mode=0o640 if self.mode == "system" else 0o600)
        except GreendError:
            sock.close()
            self.socket_path.unlink(missing_ok=True)
            raise
        self.hub = Hub()
        governor = self.config.governor
        boot, machine = boot_id(), hardware()
        self.history = History(self.store)
        self.jobs = JobBook(
            self.history, self._wake.set, governor.job_budget_j, device=machine.cpu_model, boot_id=boot
        )
        self.leases = Leases(self.history.keep_lease, self.history.forget_leases)
        self.terms = Terms(
            settings=governor,
            leases=self.leases,
            periods=PeriodBook(self.history.spent_since, self.history.periods()),
            rules=policies,
            prices=Prices(self.config.pricing),
            limiting=Limiting(self.config.actuator, connect(self.config.actuator, self.clock)),
            look=PressureSource().read,
            keep_period=self.history.keep_period,
        )
        counters = CounterBook(period_s=self.config.daemon.period_s)
        with self.store.read() as connection:
            counters.restore(positions(connection, boot), self.clock.now().mono_ns)
        policies.restore(self.history.rules())
        self.sampler = Sampler(
            clock=self.clock,
            sources=self.sources.working,
            hardware=machine,
            table=table,
            jobs=self.jobs,
            governing=Governing(self.terms),
            store=self._write,
            announce=self._announce,
            closed=self._closed,
            counters=counters,
            boot_id=boot,
            gpu_processes=self.sources.gpu_processes,
            flush_s=self.config.daemon.flush_s,
            period_s=self.config.daemon.period_s,
        )
        service = Service(
            clock=self.clock,
            sampler=self.sampler,
            jobs=self.jobs,
            mode=self.mode,
            pid=os.getpid(),
            period_s=self.config.daemon.period_s,
            database=str(self.database),
            started=self.clock.now(),
            terms=self.terms,
            sources=self.sources.states,
        )
        self.control = Control(self.clock, self.jobs, self.leases, self.terms, self.sampler.flush)
        routes = control_routes(self.control, self.hub, governor.lease_ttl_s)
        self.server = ServerThread(application(service, self.jobs, self.hub, governor, routes), sock)
        self.scheduler = Scheduler(self.roll_up, self.retain)
        self._adopt_open_jobs()

    def run(self) -> None:
        """Run until told to stop."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_hup)
        self.server.start()
        self.scheduler.start()
        log.info("listening on %s, history in %s", self.socket_path, self.database)
        try:
            self._loop()
        finally:
            self.stop()

    def _loop(self) -> None:
        period_ns = round(self.config.daemon.period_s * NS)
        deadline_ns = self.clock.now().mono_ns
        while not self._stopping:
            self._wake.clear()
            if self._turn() and self.sampler.turns == 2:
                self.notifier.send("READY=1")
            now_ns = self.clock.now().mono_ns
            if now_ns >= deadline_ns:
                # Deadlines, not pauses: a slow turn does not shift the next ones; a stall skips them.
                deadline_ns += period_ns * (1 + (now_ns - deadline_ns) // period_ns)
            self._wait(max((deadline_ns - now_ns) / NS, 0.0))

    def _wait(self, seconds: float) -> None:
        if self._wake.wait(seconds) and not self._stopping:
            self._pause.wait(min(LEAST_TURN_S, seconds))

    def _turn(self) -> bool:
        """Make one turn; a failure is logged and the next turn tries again (the watchdog stays unfed)."""
        try:
            self.sampler.turn()
        except Exception:
            log.exception("this turn failed; the next one tries again")
            return False
        power = self.sampler.now.power_w if self.sampler.now else None
        self.notifier.send("WATCHDOG=1", f"STATUS={format_power(power)}, {len(self.jobs.live())} jobs")
        return True

    def stop(self) -> None:
        """Make a last turn, store it and close everything; open jobs wait for the next daemon."""
        self.notifier.send("STOPPING=1")
        self.scheduler.stop()
        for live in self.jobs.live():
            self.hub.publish(live.job.id, "")
        for lease in self.leases.all(self.clock.now()):
            self.hub.publish(topic(lease.id), "the daemon stops")
        self.server.stop()
        self._turn()
        self.sampler.flush()
        self.terms.limiting.close()
        self.sources.close()
        self.store.close()
        self._instance.give_back()
        self.socket_path.unlink(missing_ok=True)

    def roll_up(self) -> None:
        """Sum complete minutes, hours and days."""
        # What is still in memory belongs to the last seconds, which are left for the next time.
        until_s = self.clock.now().wall_ns // NS - round(self.config.daemon.flush_s) - 1
        with self.store.write() as connection:
            roll_up(connection, until_s)

    def retain(self) -> None:
        """Forget what is older than its resolution is kept for."""
        keep = self.config.retention
        with self.store.write() as connection:
            retain(connection, self.clock.now().wall_ns // NS, keep.seconds_h * 3600, keep.minutes_d * 86400)

    def _write(self, batch: Batch) -> None:
        with self.store.write() as connection:
            write(connection, batch)

    def _announce(self, live: LiveJob) -> None:
        directive = live.directive(self.config.governor)
        if directive is not None:
            self.hub.publish(live.job.id, encode(directive).decode())

    def _closed(self, live: LiveJob) -> None:
        self.terms.limiting.forget(live.job.id)
        for lease in self.leases.end_of_job(live.job.id):
            self.hub.publish(topic(lease.id), "the job ended")

    def _adopt_open_jobs(self) -> None:
        """Go on with jobs whose process still runs; end the others, as of now and with no exit code."""
        with self.store.read() as connection:
            found = [
                (job, job_energy(connection, job.id), last_decision(connection, job.id))
                for job in open_jobs(connection)
            ]
        now = self.clock.now()
        for job, spent_j, decision in found:
            tree = ProcessTree(job.pid)
            if tree.alive() and self._is_process_of(job, tree, now):
                self.jobs.adopt(job, tree, spent_j, decision, now)
            else:
                self._write(Batch(jobs={job.id: replace(job, ended_wall_ns=now.wall_ns)}))
        running = {live.job.id for live in self.jobs.live()}
        kept = self.history.leases()
        self.leases.restore([lease for lease in kept if lease.job_id in running])
        self.history.forget_leases([lease.id for lease in kept if lease.job_id not in running])

    def _is_process_of(self, job: Job, tree: ProcessTree, now: Instant) -> bool:
        if job.process:
            return job.process == self.jobs.process_of(tree)
        # A greend that did not note who the process was: then at least it is older than the job.
        return not tree.started_after(now.after((job.started_wall_ns - now.wall_ns) / NS))

    def _on_stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True
        self._wake.set()

    def _on_hup(self, _signal: int, _frame: FrameType | None) -> None:
        # A signal handler runs between two bytecodes of the loop, which may hold the flush lock.
        threading.Thread(target=self.sampler.flush, daemon=True).start()
