"""What a turn teaches about the cost of a step, and what it must not."""

import os

import pytest

from greend import wire
from greend.clock import ManualClock
from greend.config import Governor
from greend.daemon.governing import Governing
from greend.daemon.jobs import JobBook, LiveJob
from greend.sources.processes import ProcessTree
from greend.types import Component, Consumer, Meter, Quality, Share

METER = Meter("m", "a meter", Quality.MEASURED, 0.05, "t@1")


class Rig:
    """One job, driven turn by turn."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.governing = Governing(Governor())
        self.jobs = JobBook(lambda _: None, lambda: None)
        request = wire.JobRequest(os.getpid(), ["train"], steps=10_000)
        self.id = self.jobs.register(request, os.getuid(), ProcessTree(os.getpid()), self.clock.now()).id
        self.steps = 0

    @property
    def live(self) -> LiveJob:
        return self.jobs.get(self.id)

    def attach(self) -> None:
        self.jobs.attach(self.id, wire.AttachRequest(1, [0.5, 1.0]), os.getuid(), self.clock.now())

    def turn(self, energy_j: float, steps: int, *levels: int) -> None:
        """One second in which so many steps were made, reported at these levels one after another."""
        previous = self.clock.now()
        for level in levels:
            self.steps += steps // len(levels)
            at = self.clock.advance(1.0 / len(levels))
            self.jobs.progress(self.id, wire.Progress(self.steps, level, at.mono_ns), os.getuid())
        now = self.clock.now()
        share = Share(Component("cpu", "cpu"), Consumer("job", self.id), energy_j, METER)
        self.governing.step([self.live], [share], previous, now)

    def seen(self) -> tuple[float, ...]:
        assert self.live.profile is not None
        return self.live.profile.steps


def test_a_turn_at_one_level_teaches_what_a_step_costs():
    rig = Rig()
    rig.attach()
    rig.turn(1.0, 10, 1)  # level not known before
    rig.turn(10.0, 100, 1, 1)

    assert rig.live.profile.step_j() == pytest.approx((0.05, 0.1))


def test_a_directive_tells_the_agent_what_was_measured_and_nothing_that_was_not():
    rig = Rig()
    rig.attach()
    rig.turn(1.0, 10, 1)
    for _ in range(3):
        rig.turn(10.0, 100, 1, 1)

    assert rig.live.directive(30.0).step_j == [None, pytest.approx(0.1)]


def test_the_turn_in_which_the_agent_attached_teaches_nothing_as_its_planning_ran_the_model():
    rig = Rig()
    rig.turn(3.0, 10, 1)
    previous = rig.clock.now()
    rig.clock.advance(0.5)
    rig.attach()
    rig.clock.advance(0.5)
    now = rig.clock.now()
    rig.jobs.progress(rig.id, wire.Progress(30, 1, now.mono_ns), os.getuid())
    share = Share(Component("cpu", "cpu"), Consumer("job", rig.id), 30.0, METER)
    rig.governing.step([rig.live], [share], previous, now)

    assert rig.seen() == (0.0, 0.0)


@pytest.mark.parametrize("levels", [(1, 0), (0,), (0, 0)])
def test_a_turn_in_which_the_level_changed_teaches_nothing(levels):
    rig = Rig()
    rig.attach()
    rig.turn(1.0, 10, 1)
    before = rig.seen()
    rig.turn(10.0, 100, *levels)

    assert rig.seen() == before


def test_a_turn_without_a_step_teaches_nothing():
    rig = Rig()
    rig.attach()
    rig.turn(1.0, 10, 1)
    before = rig.seen()
    rig.turn(10.0, 0, 1)

    assert rig.seen() == before
