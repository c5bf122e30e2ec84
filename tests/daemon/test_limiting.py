"""Device limits: a hard cap, and the limit at which a job's steps cost least, found while it runs."""

import os

import msgspec
import pytest

from greend import wire
from greend.actuator.client import ActuatorClient, Lease
from greend.actuator.messages import ControlInfo, Held
from greend.clock import ManualClock
from greend.config import Actuator
from greend.daemon.governing import Turn
from greend.daemon.jobs import JobBook
from greend.daemon.limiting import RETRY_S, SETTLE_S, Limiting, connect
from greend.daemon.live import LiveJob
from greend.errors import ControlError
from greend.sources.processes import ProcessTree
from greend.types import Limits

from .conftest import Past

GPU = ControlInfo("nvml:gpu-0", "nvml", "gpu-0", "W", 300.0, 100.0, 300.0)
PACKAGE = ControlInfo("rapl:package-0:long_term", "rapl", "package-0", "W", 90.0, 10.0, 90.0)


class Device(ActuatorClient):
    """An actuator of a device whose steps cost least at 200 W: 1000 steps a second at most."""

    def __init__(self, *controls: ControlInfo) -> None:
        self.known = controls or (GPU,)
        self.leases: dict[str, Lease] = {}
        self.asked: list[float] = []
        self.broken = ""

    @property
    def set_to(self) -> dict[str, float | None]:
        return {name: lease.value for name, lease in self.leases.items()}

    def controls(self) -> tuple[list[ControlInfo], dict[str, str]]:
        self._check()
        return list(self.known), {"rapl": "no package here has a limit"}

    def set(self, control: str, value: float, reason: str = "", window_s: float | None = None) -> Lease:
        self._check()
        self.asked.append(value)
        held = Held(1, control, value, value)
        self.leases.setdefault(control, Lease(self, held)).held = held
        return self.leases[control]

    def release(self, lease: Lease) -> str:
        del self.leases[lease.held.control]
        self._check()
        return "put back"

    def tick(self) -> list[Lease]:
        return []

    def close(self) -> None:
        self.leases = {}

    def _check(self) -> None:
        if self.broken:
            raise ControlError(self.broken)

    def step(self) -> tuple[float, float]:
        """Joules and seconds of a step: convex in the limit, least at 200 W."""
        watts = next(iter(self.set_to.values()), None) or 300.0
        return 0.2 + ((watts - 200.0) / 100.0) ** 2 * 0.05, 0.001 * (1 + (300.0 - watts) / 2000.0)


class Rig:
    def __init__(self, device: Device, jobs: int = 1, **settings: object) -> None:
        self.device, self.clock = device, ManualClock()
        self.limiting = Limiting(Actuator(**settings), device)
        self.book = JobBook(Past(), lambda: None)
        for number in range(jobs):
            self.add(number)

    def add(self, number: int) -> None:
        pid = os.getpid() if number == 0 else os.getppid()
        request = wire.JobRequest(pid, ["train", str(number)])
        job = self.book.register(request, 0, ProcessTree(pid), self.clock.now())
        self.book.attach(job.id, wire.AttachRequest(pid, [0.5, 1.0]), 0, self.clock.now())
        live = self.book.get(job.id)
        live.spent_by = {"gpu-0": 100.0, "package-0": 10.0}
        live.steps.level = 1

    @property
    def live(self) -> LiveJob:
        return self.book.live()[0]

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.limiting.look(self.book.live(), self.clock.now())
            step_j, step_s = self.device.step()
            previous = self.clock.now()
            steps = 1.0 / step_s
            now = self.clock.advance(1.0)
            for live in self.book.live():
                self.limiting.learn(live, Turn(previous, now), step_j * steps, steps)


def test_without_an_actuator_nothing_is_limited_and_nothing_is_wrong():
    limiting = Limiting(Actuator(search=True))
    limiting.look([], ManualClock().now())

    assert limiting.why_not(40.0) == "no greend-actuator runs here"
    assert limiting.problem == ""


@pytest.mark.parametrize(
    ("device", "watts", "why_not"),
    [
        (Device(), 150.0, ""),
        (Device(), 100.0, ""),
        (Device(), 99.0, "the least that gpu-0 takes is 100 W"),
        (
            Device(ControlInfo("cgroup:x", "cgroup", "x", "cores", 1.0, 0.1, 2.0)),
            150.0,
            "no package here has a limit",
        ),
    ],
)
def test_a_power_that_no_device_takes_is_said_with_the_least_that_one_does(device, watts, why_not):
    assert Limiting(Actuator(), device).why_not(watts) == why_not


def test_the_limit_at_which_a_step_costs_least_is_found_and_kept():
    rig = Rig(Device(), search=True, max_slowdown=0.2)
    rig.turns(60)

    assert rig.device.set_to == {"nvml:gpu-0": 200.0}
    assert rig.limiting.capped_w(rig.live) == 200.0
    assert rig.limiting.words(rig.live) == "gpu-0 runs at 200 W: 20% fewer joules a step, 5% longer"
    probes = len(set(rig.device.asked))
    rig.turns(60)
    assert probes <= 7
    assert rig.device.asked[-1] == 200.0 and len(rig.device.asked) <= probes + 2


def test_a_search_never_makes_a_step_longer_than_was_allowed_for_good():
    rig = Rig(Device(), search=True, max_slowdown=0.02)
    rig.turns(60)

    assert rig.device.set_to["nvml:gpu-0"] >= 260.0


def test_what_the_device_did_before_it_settled_is_not_held_for_the_new_limit():
    rig = Rig(Device(), search=True)
    rig.turns(1)
    limited = rig.limiting._by_job[rig.live.job.id]
    assert limited.search.probes == 0
    rig.turns(int(SETTLE_S) + 1)
    assert limited.search.probes == 1


def test_a_turn_at_another_level_says_nothing_of_the_limit():
    rig = Rig(Device(), search=True)
    rig.turns(1)
    rig.live.steps.level = 0
    rig.turns(20)

    assert rig.limiting._by_job[rig.live.job.id].search.probes == 0


def test_no_search_unless_the_settings_say_so_and_none_with_two_jobs_at_work():
    for rig in (Rig(Device()), Rig(Device(), jobs=2, search=True)):
        rig.turns(5)
        assert rig.device.set_to == {}


def test_a_second_job_ends_the_search_and_gives_the_limit_back():
    rig = Rig(Device(), search=True)
    rig.turns(5)
    assert rig.device.set_to
    rig.add(1)
    rig.turns(1)

    assert rig.device.set_to == {}


def test_a_hard_cap_is_set_on_the_device_that_the_job_uses_and_given_back_with_the_job():
    device = Device(PACKAGE, GPU)
    rig = Rig(device)
    rig.book.limit(rig.live.job.id, Limits(power_w=150.0, hard=True), 0)
    rig.turns(3)
    assert device.set_to == {"nvml:gpu-0": 150.0}
    assert (rig.limiting.capped_w(rig.live), device.asked) == (150.0, [150.0])

    rig.book.limit(rig.live.job.id, Limits(power_w=120.0, hard=True), 0)
    rig.turns(1)
    assert device.set_to == {"nvml:gpu-0": 120.0}

    rig.book.limit(rig.live.job.id, Limits(), 0)
    rig.turns(1)
    assert device.set_to == {}


@pytest.mark.parametrize("end", ["forget", "close"])
def test_what_was_limited_is_given_back_at_the_jobs_end_and_at_the_daemons(end):
    rig = Rig(Device(), search=True)
    rig.turns(5)
    rig.limiting.forget(rig.live.job.id) if end == "forget" else rig.limiting.close()

    assert rig.device.set_to == {}
    assert rig.limiting.capped_w(rig.live) is None


def test_an_actuator_that_fails_is_said_and_stops_nothing():
    device = Device()
    rig = Rig(device, search=True)
    device.broken = "set nvml:gpu-0: not permitted"
    rig.turns(3)
    assert rig.limiting.problem == device.broken
    assert rig.limiting.capped_w(rig.live) is None

    device.broken = ""
    rig.turns(3)
    assert rig.device.set_to == {}  # not asked again at every turn: a question may wait for its answer
    rig.turns(int(RETRY_S))
    assert rig.limiting.problem == ""
    assert rig.device.set_to


def test_a_limit_that_is_lost_is_said_and_asked_for_again_after_a_while():
    rig = Rig(Device())
    rig.book.limit(rig.live.job.id, Limits(power_w=150.0, hard=True), 0)
    rig.turns(2)
    lease = rig.device.leases.pop("nvml:gpu-0")
    lease.held = msgspec.structs.replace(lease.held, lost="another program set 250 W")
    rig.turns(1)
    assert rig.limiting.problem == "another program set 250 W"
    assert rig.limiting.capped_w(rig.live) is None

    rig.turns(int(RETRY_S))
    assert rig.device.set_to == {"nvml:gpu-0": 150.0}


def test_a_limit_that_the_device_does_not_honour_is_said_and_not_counted_on():
    rig = Rig(Device())
    rig.book.limit(rig.live.job.id, Limits(power_w=110.0, hard=True), 0)
    rig.turns(2)
    lease = rig.device.leases["nvml:gpu-0"]
    lease.held = msgspec.structs.replace(lease.held, problem="cap of 110 W not honoured, floor is 121 W")
    rig.turns(1)

    assert rig.limiting.problem == "cap of 110 W not honoured, floor is 121 W"
    assert rig.limiting.capped_w(rig.live) is None
    assert rig.device.set_to == {"nvml:gpu-0": 110.0}


def test_an_actuator_is_looked_for_where_the_settings_say_and_else_only_where_there_is_one(
    monkeypatch, tmp_path
):
    monkeypatch.setattr("greend.daemon.limiting.SOCKET", tmp_path / "usual.sock")
    clock = ManualClock()
    assert connect(Actuator(), clock) is None
    assert connect(Actuator(socket=str(tmp_path / "named.sock")), clock) is not None

    (tmp_path / "usual.sock").touch()
    assert connect(Actuator(), clock) is not None
