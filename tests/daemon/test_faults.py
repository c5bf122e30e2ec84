"""What goes wrong in real life. After each: the books add up, the job goes on, and nobody is told twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from greend import wire
from greend.client import Client
from greend.clock import ManualClock, SystemClock
from greend.daemon.live import LiveJob
from greend.daemon.main import Daemon
from greend.errors import StoreError
from greend.sources.fake import FakeSource
from greend.sources.processes import ProcessTree
from greend.store import jobs as stored
from greend.store import queries
from greend.store.check import conservation
from greend.types import Limits, Reading

from .conftest import kill, settings, stop

IDLE_W, TOP_W = 10.0, 40.0
COSTS = (0.25, 0.5, 1.0)


class Package(FakeSource):
    """A package counter that may stand still for a while, and then shows all that it owes at once."""

    frozen: list[Reading] | None = None

    def read(self) -> list[Reading]:
        return self.frozen or super().read()

    def freeze(self) -> None:
        self.frozen = super().read()

    def thaw(self) -> None:
        self.frozen = None


class Machine:
    """One package that outlives daemons, a job on it, and whoever reads the counters."""

    def __init__(self, folder: Path, **more: object) -> None:
        self.folder, self.more = folder, more
        self.clock = ManualClock(SystemClock().now())
        self.package = Package(self.clock, TOP_W)
        self.steps, self.cpu_s = 0, 0.0
        self.daemon = self.start()
        self.job = self.client.post(
            "/jobs", wire.JobRequest(os.getpid(), ["train"], steps=1000, limits=Limits(energy_j=1e5))
        )["job"]
        self.attach()
        self.daemon.sampler.turn()

    def start(self) -> Daemon:
        daemon = Daemon(settings(self.folder, more=dict(self.more)), clock=self.clock)
        rest = [source for source in daemon.sampler.sources if source.name != "fake"]
        daemon.sampler.sources = [*rest, self.package]
        daemon.server.start()
        self.daemon = daemon
        self.began_j = self.package.energy_j if not hasattr(self, "began_j") else self.began_j
        return daemon

    @property
    def client(self) -> Client:
        return Client(self.daemon.socket_path)

    @property
    def live(self) -> LiveJob:
        return self.daemon.jobs.get(self.job)

    def attach(self) -> None:
        self.client.post(f"/jobs/{self.job}/attach", wire.AttachRequest(os.getpid(), list(COSTS), 1000))

    def second(self, steps: int = 10, level: int | None = None, answer: tuple[int, str] = (0, "")) -> None:
        """A second in which the job computes, and its agent says so unless it makes no steps."""
        decision = self.live.state.decision
        at = level if level is not None else decision.level if decision is not None else 2
        self.package.set_power(IDLE_W + (TOP_W - IDLE_W) * COSTS[at] * (steps > 0))
        self.cpu_s += 1.0
        now = self.clock.advance(1.0)
        if steps:
            self.steps += steps
            progress = wire.Progress(self.steps, at, now.mono_ns, *answer)
            self.daemon.jobs.progress(self.job, progress, os.getuid())
        self.daemon.sampler.turn()

    def seconds(self, count: int, **more: int) -> None:
        for _ in range(count):
            self.second(**more)

    def on_record(self) -> tuple[float, float]:
        """Joules of the package, and of the job, after a flush; every joule is somebody's, and once."""
        self.daemon.sampler.flush()
        with self.daemon.store.read() as connection:
            assert conservation(connection) == []
            rows = queries.energy_by_component(connection, 0, 2**40)
            job_j = stored.job_energy(connection, self.job)
        return sum(r.energy_j or 0.0 for r in rows if r.component.kind == "cpu"), job_j


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = made(tmp_path, monkeypatch)
    yield machine
    stop(machine.daemon)


def made(folder: Path, monkeypatch: pytest.MonkeyPatch, **more: object) -> Machine:
    machine = Machine(folder, **more)
    # The kernel's account goes by ticks of 10 ms: to be exact, a second of it would take a second.
    monkeypatch.setattr(ProcessTree, "cpu_s", lambda tree: machine.cpu_s)
    return machine


def assert_books(machine: Machine) -> None:
    package_j, job_j = machine.on_record()
    assert package_j == pytest.approx(machine.package.energy_j - machine.began_j)
    assert job_j == pytest.approx(machine.live.spent_j)
    assert job_j > 0


@pytest.mark.parametrize("since_flush", [0, 1, 7])
def test_a_daemon_that_is_killed_at_any_time_and_started_again_has_the_same_books(machine, since_flush):
    machine.seconds(12)
    machine.daemon.sampler.flush()
    machine.seconds(since_flush)
    kill(machine.daemon)
    machine.clock.advance(30.0)  # nobody looks
    machine.start()
    machine.attach()
    machine.seconds(5)

    assert_books(machine)


def test_what_a_job_used_while_no_daemon_ran_is_the_jobs_and_counts_once(machine):
    machine.seconds(12)
    machine.daemon.sampler.flush()
    before_j, used_s = machine.live.spent_j, machine.live.cpu_s
    kill(machine.daemon)
    machine.cpu_s += 1.0
    machine.clock.advance(1.0)
    machine.start()
    assert machine.live.cpu_s == used_s
    machine.second(steps=0)

    gained_j = machine.live.spent_j - before_j
    assert gained_j == pytest.approx(2 * before_j / 12, rel=0.5)
    assert_books(machine)


def test_killed_again_and_again_the_books_still_add_up(machine):
    for _ in range(5):
        machine.seconds(3)
        kill(machine.daemon)
        machine.clock.advance(2.0)
        machine.start()
        machine.attach()

    machine.seconds(2)
    assert_books(machine)


@pytest.mark.parametrize("end", [kill, stop])
def test_a_restarted_daemon_says_again_what_is_in_force_and_newer_than_before(machine, end):
    machine.client.post(f"/jobs/{machine.job}/holds", wire.HoldRequest(1, "an hour", 3600.0))
    machine.seconds(12)
    before = next(machine.client.follow(f"/jobs/{machine.job}/directives", 5.0))
    end(machine.daemon)
    machine.clock.advance(5.0)
    machine.start()
    after = next(machine.client.follow(f"/jobs/{machine.job}/directives", 5.0))

    first, second = (wire.decode(data, wire.Directive) for _, data in (before, after))
    assert (first.level, second.level) == (1, 1)
    assert (first.on_loss, second.on_loss) == ("hold", "hold")
    assert second.seq > first.seq
    assert machine.live.job.limits == Limits(energy_j=1e5)


def test_after_a_restart_the_level_does_not_go_through_the_top_again(machine):
    machine.client.post(f"/jobs/{machine.job}/holds", wire.HoldRequest(1, "an hour", 3600.0))
    machine.seconds(12)
    kill(machine.daemon)
    machine.clock.advance(5.0)
    machine.start()
    machine.attach()
    levels = []
    for _ in range(10):
        machine.second(level=1)
        levels.append(machine.live.state.decision.level)

    assert levels == [1] * 10


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_a_wall_clock_that_is_stepped_changes_no_books_and_no_level(machine, step_s):
    machine.seconds(8)
    level, decided = machine.live.state.decision.level, len(decisions(machine))
    machine.clock.step_wall(step_s)
    machine.seconds(8)
    machine.clock.step_wall(-step_s)
    machine.seconds(8)

    assert machine.live.state.decision.level == level
    assert len(decisions(machine)) == decided
    assert_books(machine)


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_a_wall_clock_that_is_stepped_while_no_daemon_runs_loses_no_job(machine, step_s):
    machine.seconds(12)
    kill(machine.daemon)
    machine.clock.step_wall(step_s)
    machine.clock.advance(5.0)
    machine.start()
    machine.attach()
    machine.seconds(5)

    assert machine.live.job.limits == Limits(energy_j=1e5)
    assert_books(machine)


def decisions(machine: Machine) -> list[int]:
    machine.daemon.sampler.flush()
    with machine.daemon.store.read() as connection:
        return [decision.level for decision in stored.decisions(connection, machine.job)]


def test_a_meter_that_stands_still_teaches_nothing_and_owes_nothing_in_the_end(machine):
    machine.seconds(8)
    step_j, steps = machine.live.profile.step_j(), machine.live.profile.steps
    machine.package.freeze()
    machine.seconds(20)
    machine.package.thaw()
    machine.second()

    assert machine.live.profile.steps == steps
    assert machine.live.profile.step_j() == step_j
    machine.seconds(2)
    assert_books(machine)


def test_a_machine_that_slept_for_an_hour_learns_nothing_of_it(machine):
    machine.seconds(8)
    steps = machine.live.profile.steps
    machine.clock.advance(3600.0)
    machine.second()

    assert machine.live.profile.steps == steps
    assert_books(machine)


def test_a_counter_that_restarted_teaches_nothing_of_that_turn(machine):
    machine.seconds(8)
    steps = machine.live.profile.steps
    machine.package.restart_counter()
    machine.second()
    assert machine.live.profile.steps == steps

    machine.seconds(2)
    assert machine.live.profile.steps != steps


def test_an_agent_that_is_silent_for_a_minute_keeps_its_level_and_its_job(machine):
    machine.client.post(f"/jobs/{machine.job}/holds", wire.HoldRequest(1, "an hour", 3600.0))
    machine.seconds(12)
    told = decisions(machine)
    machine.seconds(60, steps=0)
    machine.seconds(5)

    assert decisions(machine) == told
    assert machine.live.steps.done == machine.steps
    assert_books(machine)


def test_progress_that_comes_twice_or_late_counts_once(machine):
    machine.seconds(5)
    live, now = machine.live, machine.clock.now()
    for ago_s, step in ((0.0, machine.steps), (3.0, 10), (0.0, machine.steps)):
        progress = wire.Progress(step, 0, now.after(-ago_s).mono_ns)
        machine.daemon.jobs.progress(machine.job, progress, os.getuid())
    machine.second()

    assert live.steps.done == machine.steps
    assert live.steps_at_tick == pytest.approx(machine.steps)


@pytest.mark.parametrize("said", [20, 5000])
def test_a_number_of_steps_that_is_wrong_stops_nothing(machine, said):
    machine.live.update(steps_total=said)
    machine.seconds(30)

    assert machine.live.steps.done == 300
    assert machine.live.state.decision.action == "run"
    assert_books(machine)


def test_a_level_that_is_refused_is_not_asked_for_again_and_why_says_so(machine):
    machine.client.post(f"/jobs/{machine.job}/holds", wire.HoldRequest(1, "an hour", 3600.0))
    machine.seconds(8)
    seq = machine.live.sequence
    machine.second(level=2, answer=(seq, "out of memory"))
    machine.seconds(30)

    with machine.daemon.store.read() as connection:
        made = stored.decisions(connection, machine.job)
    assert 1 in [decision.level for decision in made]
    assert made[-1].level == 0
    assert "level 1 cannot be taken: out of memory" in made[-1].reason


def test_a_full_disk_stops_no_decision_and_nothing_is_lost_when_there_is_room_again(machine, monkeypatch):
    def full(batch: object) -> None:
        raise StoreError("write history: the disk is full")

    machine.seconds(5)
    working = machine.daemon.sampler.store
    monkeypatch.setattr(machine.daemon.sampler, "store", full)
    machine.daemon.jobs.limit(machine.job, Limits(energy_j=machine.live.spent_j + 1.0), os.getuid())
    machine.seconds(10)
    assert machine.live.state.decision.level == 0
    monkeypatch.setattr(machine.daemon.sampler, "store", working)

    assert decisions(machine)[-1] == 0
    assert_books(machine)


@pytest.mark.parametrize("text", [None, "2020-01-01T00:00,nan\n", "nonsense\nmore\n", "2020-01-01T00:00,5\n"])
def test_a_forecast_that_is_missing_stale_or_nonsense_leaves_the_mean_and_is_said(
    tmp_path, monkeypatch, text
):
    path = tmp_path / "ahead.csv"
    if text is not None:
        path.write_text(text)
    pricing = {"intensity_g_per_kwh": 360.0, "forecast": str(path)}
    machine = made(tmp_path, monkeypatch, pricing=pricing)
    machine.daemon.jobs.limit(machine.job, Limits(carbon_g=100.0), os.getuid())
    machine.seconds(8)

    assert machine.live.spent_g == pytest.approx(machine.live.spent_j * 1e-4)
    problems = machine.client.get("/status")["problems"]
    assert ("forecast" in problems) == (text is None or "5" not in text)
    assert_books(machine)
    stop(machine.daemon)


def test_what_one_run_learned_of_its_levels_is_where_the_next_one_starts(machine):
    machine.seconds(15)
    learned = machine.live.profile.step_j()
    machine.daemon.jobs.end(machine.job, wire.EndRequest(0), os.getuid())
    machine.second(steps=0)

    machine.job = machine.client.post("/jobs", wire.JobRequest(os.getpid(), ["train"]))["job"]
    machine.attach()
    assert machine.live.profile.step_j() == pytest.approx(learned, rel=0.05)
    assert machine.live.profile.known(2)
    assert machine.live.steps_before == (machine.steps,)
