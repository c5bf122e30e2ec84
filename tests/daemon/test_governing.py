"""What a turn leads to: what it teaches, what it must not, and what is said to whom."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from greend import wire
from greend.clock import Instant, ManualClock
from greend.config import Governor
from greend.daemon.governing import Governing, Outcome, Turn
from greend.daemon.jobs import JobBook
from greend.daemon.live import LiveJob
from greend.governor.conditions import Conditions, Intensity, Machine
from greend.governor.policy import Policy
from greend.sources.processes import ProcessTree
from greend.types import Bound, Component, Consumer, Limits, Meter, Quality, Rank, Share

from .conftest import Past

METER = Meter("m", "a meter", Quality.MEASURED, 0.05, "t@1")


class AtMost:
    """A constraint that holds a job at a level, and notes what it was asked with."""

    by = "a limit"

    def __init__(self, level: int) -> None:
        self.level = level
        self.asked: list[Conditions] = []

    def bound(self, conditions: Conditions, memory: object, now: Instant) -> tuple[Bound, object]:
        self.asked.append(conditions)
        return Bound(self.by, Rank.USER, self.level, f"at most {self.level}"), memory


class Around:
    """What is known beside the jobs, as the test says."""

    def __init__(self) -> None:
        self.constraint = AtMost(9)
        self.state = Machine()
        self.g_per_kwh: float | None = None
        self.all_j = 0.0
        self.taught: list[tuple[float, float]] = []

    def policy(self, live: LiveJob, now: Instant) -> Policy:
        return Policy((self.constraint,), (), 0.0, 0.0, 0.0)

    def machine(self) -> Machine:
        return self.state

    def intensity(self, now: Instant) -> Intensity | None:
        return None if self.g_per_kwh is None else Intensity(self.g_per_kwh)

    def price_per_kwh(self) -> float | None:
        return 0.3

    def spent_in(self) -> Mapping[str, float]:
        return {"day": self.all_j, "month": self.all_j}

    def account(self, energy_j: float, g_per_kwh: float | None, now: Instant) -> None:
        self.all_j += energy_j

    def prepare(self, live: Sequence[LiveJob], now: Instant) -> None:
        pass

    def learn(self, live: LiveJob, turn: Turn, energy_j: float, steps: float) -> None:
        self.taught.append((energy_j, steps))

    def capped_w(self, live: LiveJob) -> float | None:
        return None


class Rig:
    """One job, driven turn by turn."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.around = Around()
        self.governing = Governing(self.around)
        self.jobs = JobBook(Past(), lambda: None)
        request = wire.JobRequest(os.getpid(), ["train"], steps=10_000)
        self.id = self.jobs.register(request, os.getuid(), ProcessTree(os.getpid()), self.clock.now()).id
        self.steps = 0

    @property
    def live(self) -> LiveJob:
        return self.jobs.get(self.id)

    def attach(self) -> None:
        self.jobs.attach(self.id, wire.AttachRequest(1, [0.5, 1.0]), os.getuid(), self.clock.now())

    def turn(
        self,
        energy_j: float,
        steps: int,
        *levels: int,
        seconds: float = 1.0,
        metered: bool = True,
        answer: tuple[int, str] = (0, ""),
    ) -> Outcome:
        """So many steps were made, reported at these levels one after another."""
        previous = self.clock.now()
        for level in levels:
            self.steps += steps // len(levels)
            at = self.clock.advance(seconds / len(levels))
            progress = wire.Progress(self.steps, level, at.mono_ns, *answer)
            self.jobs.progress(self.id, progress, os.getuid())
        if not levels:
            self.clock.advance(seconds)
        now = self.clock.now()
        share = Share(Component("cpu", "cpu"), Consumer("job", self.id), energy_j, METER)
        return self.governing.step([self.live], [share], Turn(previous, now, metered))

    def seen(self) -> tuple[float, ...]:
        assert self.live.profile is not None
        return self.live.profile.steps


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.attach()
    rig.turn(1.0, 10, 1)  # the level was not known before it
    return rig


def test_a_turn_at_one_level_teaches_what_a_step_costs_and_how_long_it_takes(rig):
    rig.turn(10.0, 100, 1, 1)

    assert rig.live.profile.step_j() == pytest.approx((0.05, 0.1))
    assert rig.live.profile.step_s()[1] == pytest.approx(0.01)
    assert rig.around.taught == [(10.0, pytest.approx(100.0))]
    assert rig.live.spent_by == {"cpu": pytest.approx(11.0)}


def test_a_directive_tells_the_agent_what_was_measured_and_nothing_that_was_not(rig):
    for _ in range(3):
        rig.turn(10.0, 100, 1, 1)

    assert rig.live.directive(Governor()).step_j == [None, pytest.approx(0.1)]


def test_the_turn_in_which_the_agent_attached_teaches_nothing_as_its_planning_ran_the_model():
    rig = Rig()
    rig.turn(3.0, 10, 1)
    previous = rig.clock.now()
    rig.clock.advance(0.5)
    rig.attach()
    now = rig.clock.advance(0.5)
    rig.jobs.progress(rig.id, wire.Progress(30, 1, now.mono_ns), os.getuid())
    share = Share(Component("cpu", "cpu"), Consumer("job", rig.id), 30.0, METER)
    rig.governing.step([rig.live], [share], Turn(previous, now))

    assert rig.seen() == (0.0, 0.0)


@pytest.mark.parametrize("levels", [(1, 0), (0,), (0, 0)])
def test_a_turn_in_which_the_level_changed_teaches_nothing(rig, levels):
    before = rig.seen()
    rig.turn(10.0, 100, *levels)

    assert rig.seen() == before


def test_a_turn_without_a_step_teaches_nothing(rig):
    before = rig.seen()
    rig.turn(10.0, 0, 1)

    assert rig.seen() == before


def test_a_turn_whose_joules_are_not_all_its_own_teaches_nothing(rig):
    before = rig.seen()
    rig.turn(10.0, 100, 1, metered=False)

    assert rig.seen() == before


def test_a_turn_in_which_somebody_else_holds_the_device_down_teaches_nothing(rig):
    before = rig.seen()
    rig.around.state = Machine(throttled=True)
    rig.turn(10.0, 100, 1)

    assert rig.seen() == before


def test_a_light_job_whose_account_of_time_moves_now_and_then_is_learned_from_all_its_turns(rig):
    for _ in range(20):
        for energy_j in (0.0, 0.0, 3.0):
            rig.turn(energy_j, 10, 1)

    assert rig.live.profile.step_j()[1] == pytest.approx(0.1, rel=0.05)
    assert rig.live.profile.step_s()[1] == pytest.approx(0.1, rel=0.05)


def test_steps_that_are_slower_than_a_turn_are_counted_whole(rig):
    for second in range(60):
        rig.turn(100.0, *((1, 1) if second % 3 == 2 else (0,)))

    assert rig.live.profile.step_j()[1] == pytest.approx(300.0, rel=0.02)
    assert rig.live.profile.step_s()[1] == pytest.approx(3.0, rel=0.02)
    assert rig.seen()[1] == pytest.approx(20.0)


def test_turns_without_joules_are_not_the_next_ones_when_the_level_changed_in_between(rig):
    rig.turn(10.0, 100, 1)
    rig.turn(0.0, 100, 1)
    rig.turn(5.0, 100, 0)
    rig.turn(5.0, 100, 0)

    assert rig.seen() == (pytest.approx(100.0), pytest.approx(100.0))


def test_a_loop_that_is_stopped_for_a_minute_teaches_nothing_meanwhile_and_goes_on_after(rig):
    rig.turn(10.0, 100, 1)
    before = rig.seen()
    for _ in range(60):
        rig.turn(0.1, 0)
    assert rig.seen() == before

    step_j = rig.live.profile.step_j()
    for _ in range(3):
        rig.turn(10.0, 100, 1)
    assert rig.live.profile.step_j()[1] == pytest.approx(step_j[1], rel=0.1)


def test_joules_are_emitted_at_the_intensity_of_their_own_time(rig):
    assert rig.live.spent_g is None
    rig.around.g_per_kwh = 360.0
    rig.turn(1e4, 100, 1)
    rig.around.g_per_kwh = 36.0
    rig.turn(1e4, 100, 1)

    assert rig.live.spent_g == pytest.approx(1.0 + 0.1)
    assert rig.around.constraint.asked[-1].spent_g == rig.live.spent_g


def test_the_books_of_day_and_month_know_a_turn_before_it_is_decided_about(rig):
    rig.turn(10.0, 100, 1)

    assert rig.around.constraint.asked[-1].spent_in["day"] == pytest.approx(11.0)


def test_a_new_decision_is_told_and_the_same_one_is_not_told_again(rig):
    rig.around.constraint.level = 0
    first, second = rig.turn(10.0, 100, 1), rig.turn(10.0, 100, 1)

    assert (first.decided, first.told) == ([rig.live], [rig.live])
    assert (second.decided, second.told) == ([], [])
    assert rig.live.directive(Governor()).level == 0


def test_terms_that_changed_are_told_though_the_decision_is_the_same(rig):
    rig.turn(10.0, 100, 1)
    before = rig.live.directive(Governor())
    rig.jobs.limit(rig.id, Limits(energy_j=1e9), os.getuid())
    after = rig.turn(10.0, 100, 1)

    assert (after.decided, after.told) == ([], [rig.live])
    now = rig.live.directive(Governor())
    assert now.seq > before.seq
    assert (before.on_loss, now.on_loss) == ("top", "hold")


def test_a_level_that_was_refused_is_left_for_good_with_the_reason(rig):
    rig.around.constraint.level = 0
    rig.turn(10.0, 100, 1)
    seq = rig.live.sequence
    after = rig.turn(10.0, 100, 1, answer=(seq, "a tensor is too small"))

    assert after.decided == [rig.live]
    decision = rig.live.state.decision
    assert decision.level == 1
    assert "level 0 cannot be taken: a tensor is too small" in decision.reason
    for _ in range(100):
        assert rig.turn(10.0, 100, 1).decided == []


def test_what_an_earlier_daemon_decided_stands_until_the_agent_is_heard(rig):
    rig.around.constraint.level = 0
    rig.turn(10.0, 100, 1)
    decision = rig.live.state.decision
    rig.live.steps.level = None  # as after a restart
    rig.around.constraint.level = 1

    assert rig.turn(0.0, 0).decided == []
    assert rig.live.state.decision is decision
    assert rig.turn(1.0, 10, 0).decided == [rig.live]


def test_a_job_without_an_agent_is_measured_and_left_alone():
    rig = Rig()
    outcome = rig.turn(10.0, 0)

    assert (outcome.decided, outcome.told, rig.live.spent_j) == ([], [], 10.0)


def test_what_follows_the_last_step_is_the_tail(rig):
    rig.turn(10.0, 100, 1)
    rig.turn(4.0, 0)
    rig.jobs.end(rig.id, wire.EndRequest(0), os.getuid())
    outcome = rig.turn(1.0, 0)

    assert outcome.ended == [rig.live]
    assert rig.live.job.tail_j == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("limits", "feasible", "expected_j"),
    [
        (Limits(), True, 11.0 + 9890 * 0.1),
        (Limits(energy_j=500.0), True, 500.0),
        (Limits(energy_j=5000.0), True, 11.0 + 9890 * 0.1),
        (Limits(energy_j=500.0), False, 11.0 + 9890 * 0.1),
    ],
)
def test_what_a_job_will_have_used_is_its_budget_where_the_levels_can_meet_it(
    rig, limits, feasible, expected_j
):
    rig.turn(10.0, 100, 1, 1)
    rig.live.update(limits=limits)
    rig.live.state = replace(rig.live.state, decision=replace(rig.live.state.decision, feasible=feasible))

    assert rig.live.expected_j() == pytest.approx(expected_j)


def test_what_is_learned_is_given_away_to_be_kept_once(rig):
    assert rig.live.newly_learned() is None  # nothing is known yet
    rig.turn(10.0, 100, 1)

    assert rig.live.newly_learned() == rig.live.profile.remembered()
    assert rig.live.newly_learned() is None


class Capped(AtMost):
    """The same, with a power to be held."""

    def bound(self, conditions: Conditions, memory: object, now: Instant) -> tuple[Bound, object]:
        bound, memory = super().bound(conditions, memory, now)
        return replace(bound, rank=Rank.CAP, power_w=10.0), memory


def test_an_agent_that_holds_a_power_is_told_when_its_steps_have_become_dearer(rig):
    rig.around.constraint = Capped(1)
    for _ in range(40):
        rig.turn(10.0, 100, 1)
    assert rig.turn(10.0, 100, 1).told == []
    before = rig.live.directive(Governor())

    outcomes = [rig.turn(20.0, 100, 1) for _ in range(40)]

    assert all(outcome.decided == [] for outcome in outcomes)
    assert 1 <= sum(outcome.told != [] for outcome in outcomes) < 20
    after = rig.live.directive(Governor())
    assert after.seq > before.seq
    assert (before.step_j[1], after.step_j[1]) == (pytest.approx(0.1, rel=0.03), pytest.approx(0.2, rel=0.03))
