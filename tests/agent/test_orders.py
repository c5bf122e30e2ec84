"""The loop obeys what it is asked: when, how far, and what it answers when it cannot."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import greend_agent
from greend.bucket import Bucket
from greend.clock import NS
from greend.types import Action
from greend.wire import Directive
from greend_agent.knobs.pace import LONGEST_WAIT_S, SLICE_S, joules_of
from greend_agent.lease import Lease
from greend_agent.signals import TOP, Order
from greend_agent.windows.window import WindowSet

from .loops import lowered
from .nets import OPTIMIZERS, batches, net, step, train
from .paced import Loop


def directed(lease: Lease, now_ns: int = 0, **fields) -> bool:
    given = {"seq": 1, "level": 1, "reason": "why", "ttl_s": 30.0} | fields
    return lease.heard(now_ns, Directive(**given))


# --- what a directive may ask ---


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({"level": 10**30}, {"level": TOP}),
        ({"level": -7}, {"level": 0}),
        ({"pace": math.nan}, {"pace": 1.0}),
        ({"pace": 0.0}, {"pace": 1.0}),
        ({"pace": 1e-9}, {"pace": 1.0}),
        ({"pace": 0.25}, {"pace": 0.25}),
        ({"power_w": 0.0}, {"power_w": None}),
        ({"power_w": -5.0}, {"power_w": None}),
        ({"power_w": math.inf}, {"power_w": None}),
        ({"power_w": math.nan}, {"power_w": None}),
        ({"power_w": 90, "burst_j": -1.0}, {"power_w": 90, "burst_j": None}),
        ({"power_w": 90, "burst_j": 400.0}, {"power_w": 90, "burst_j": 400.0}),
        ({"action": "pause"}, {"action": Action.PAUSE}),
        ({"action": "stop"}, {"action": Action.STOP, "level": 0}),
        ({"action": "dance"}, {"action": Action.RUN}),
        ({"action": ["stop"]}, {"action": Action.RUN}),
        ({"apply_at_step": 400}, {"from_step": 400}),
        ({"seq": 9}, {"seq": 9}),
    ],
)
def test_what_cannot_be_obeyed_in_a_directive_is_as_if_not_said(said, meant):
    lease = Lease()
    directed(lease, **said)

    assert lease.order(0) == Order(**({"level": 1, "seq": 1} | meant))


@pytest.mark.parametrize(
    "field",
    [{"level": "low"}, {"level": 1.5}, {"pace": None}, {"ttl_s": "x"}, {"seq": None}, {"power_w": []}],
)
def test_a_directive_with_a_field_of_another_kind_is_refused_and_renews_nothing(field):
    lease = Lease()
    directed(lease)
    with pytest.raises(ValueError, match="directive: "):
        directed(lease, 20 * NS, **({"seq": 2} | field))

    assert lease.order(29 * NS).level == 1
    assert lease.order(31 * NS).level == TOP


@pytest.mark.parametrize("ttl_s", [math.nan, -1.0, 0.0, 1e-300])
def test_a_time_to_live_that_is_none_is_the_usual_one(ttl_s):
    lease = Lease()
    directed(lease, ttl_s=ttl_s)

    assert (lease.order(29 * NS).level, lease.order(31 * NS).level) == (1, TOP)


def test_no_lease_lasts_for_ever():
    lease = Lease()
    directed(lease, ttl_s=math.inf)

    assert lease.order(3601 * NS).level == TOP


# --- which directive ---


@pytest.mark.parametrize(
    ("numbers", "new", "in_force"),
    [
        ([1, 2], [True, True], 2),
        ([1, 1], [True, False], 1),
        ([5, 3], [True, False], 5),
        ([5, 3, 6, 6], [True, False, True, False], 6),
    ],
)
def test_of_directives_that_come_twice_or_too_late_the_newest_stays_in_force(numbers, new, in_force):
    lease = Lease()

    assert [directed(lease, seq=n, level=n) for n in numbers] == new
    assert lease.order(0) == Order(level=in_force, seq=in_force)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30))
def test_in_whatever_order_directives_come_the_one_with_the_highest_number_holds(numbers):
    lease = Lease()
    for number in numbers:
        directed(lease, seq=number, level=100 + number)

    assert lease.order(0).level == 100 + max(numbers)


def test_one_that_comes_twice_renews_the_lease():
    lease = Lease()
    directed(lease)
    directed(lease, 29 * NS)

    assert lease.order(58 * NS).level == 1


def test_a_daemon_that_counts_from_the_beginning_is_heard():
    lease = Lease()
    directed(lease, seq=70)
    lease.number_anew()

    assert lease.order(0) == Order(level=1, seq=0)
    assert directed(lease, seq=1, level=2)


# --- what outlives the daemon ---


@pytest.mark.parametrize(
    ("on_loss", "left"),
    [
        ("top", Order(seq=1)),
        ("new word", Order(seq=1)),
        ("hold", Order(level=1, pace=0.5, power_w=80.0, seq=1)),
        ("safe", Order(level=2, pace=0.5, power_w=80.0, seq=1)),
    ],
)
def test_what_is_left_of_a_directive_when_the_daemon_is_silent_never_stands_still(on_loss, left):
    lease = Lease()
    directed(lease, on_loss=on_loss, safe_level=2, pace=0.5, power_w=80.0, action="pause", apply_at_step=900)

    assert lease.order(30 * NS).action is Action.PAUSE
    assert lease.order(31 * NS) == left


def test_a_process_that_was_stopped_for_a_minute_does_not_take_the_daemon_for_dead():
    lease = Lease()
    directed(lease)
    lease.slept(60 * NS)

    assert lease.order(85 * NS).level == 1
    assert lease.order(91 * NS).level == TOP


# --- from which step on ---


def test_an_order_holds_from_its_step_on():
    model, optimizer, agent = lowered(level=3)
    train(model, optimizer, batches(2))
    agent._signals.order = Order(level=0, from_step=6, seq=4)
    levels = []
    for x in batches(6):
        step(model, optimizer, x)
        levels.append((agent.step_count, agent.level, agent._signals.applied.seq))

    assert levels == [(4, 3, 0), (5, 3, 0), (6, 3, 0), (7, 0, 4), (8, 0, 4), (9, 0, 4)]


def test_an_order_for_now_overtakes_one_for_later():
    model, optimizer, agent = lowered(level=3)
    agent._signals.order = Order(level=0, from_step=600, seq=4)
    train(model, optimizer, batches(1))
    agent._signals.order = Order(level=1, seq=5)
    train(model, optimizer, batches(1))

    assert (agent.level, agent._signals.applied.seq) == (1, 5)


# --- power ---


@pytest.mark.parametrize(
    ("known", "level", "joules"),
    [
        ((2.0, None, 9.0), 0, 2.0),
        ((None, None, 8.0), 0, 2.0),
        ((None, None, 8.0), 1, 4.0),
        ((3.0, None, None), 2, 12.0),
        ((), 1, None),
        ((2.0,), 7, None),
    ],
)
def test_the_joules_of_an_unmeasured_level_come_from_the_nearest_by_their_costs(known, level, joules):
    assert joules_of(level, known, [0.25, 0.5, 1.0]) == joules


def test_a_power_in_an_order_is_held_with_its_burst():
    loop = Loop()
    loop.signals.order = Order(power_w=20.0, burst_j=100.0, step_j=10.0)
    loop.run(1, 0.1)
    loop.now_ns += 60 * NS  # an evaluation
    loop.run(11, 0.1)

    assert loop.waits == []
    assert loop.run(100, 0.1) == pytest.approx(100 * 10.0 / 20.0, rel=0.05)


def test_a_power_that_is_corrected_often_is_held_as_well():
    loop = Loop()
    spent_j, begin_ns = 0.0, loop.now_ns
    for n in range(200):
        loop.signals.ask(power_w=20.0 + 0.1 * (n % 3), step_j=10.0)
        loop.run(1, 0.1)
        spent_j += 10.0

    assert spent_j / ((loop.now_ns - begin_ns) / NS) == pytest.approx(20.1, rel=0.02)


def test_a_share_and_a_power_are_held_both():
    for share, power_w, whole_s in [(0.5, 1e6, 20.0), (0.99, 20.0, 50.0), (0.1, 50.0, 100.0)]:
        loop = Loop()
        loop.signals.ask(pace=share, power_w=power_w, step_j=10.0)
        loop.run(1, 0.1)

        assert loop.run(100, 0.1) == pytest.approx(whole_s, rel=0.03)


def test_a_power_that_cannot_be_reached_slows_the_loop_and_does_not_stop_it():
    loop = Loop()
    loop.signals.ask(power_w=1e-9, step_j=10.0)
    loop.run(2, 0.1)

    assert sum(loop.waits) == pytest.approx(0.1 / 0.01)


def test_of_several_processes_none_waits_longer_than_the_others_would():
    loop = Loop(patience_s=15.0)
    loop.signals.ask(power_w=0.1, step_j=10.0)
    loop.run(2, 0.5)

    assert sum(loop.waits) == pytest.approx(15.0)


@given(
    st.floats(5.0, 500.0),
    st.floats(1.0, 300.0),
    st.lists(st.tuples(st.floats(0.5, 60.0), st.floats(0.05, 2.0)), min_size=5, max_size=40),
)
def test_over_any_window_no_more_is_used_than_the_power_the_burst_and_one_step(power_w, burst_j, steps):
    bucket, now_s, used = Bucket(power_w, burst_j, 600 * power_w, 0.0), 0.0, []
    for joules, seconds in steps:
        now_s += bucket.wait_s(now_s)
        used.append((now_s, now_s + seconds, joules))
        now_s += seconds
        bucket.spent(joules, now_s)
    most = max(joules for joules, _ in steps)
    for first in range(len(used)):
        for last in range(first, len(used)):
            joules = sum(j for _, _, j in used[first : last + 1])
            window_s = used[last][1] - used[first][0]
            assert joules <= power_w * window_s + burst_j + most + 1e-6


# --- pause ---


def test_a_loop_that_pauses_goes_on_within_a_slice_of_being_told_and_says_that_it_stands():
    loop = Loop()
    said = []
    loop.pace.on_stand = lambda: said.append(loop.pace.order.seq)
    loop.run(2, 0.1)
    loop.signals.order = Order(action=Action.PAUSE, seq=8)
    loop.after_s(600.0, lambda: setattr(loop.signals, "order", Order(level=0, from_step=10**6, seq=9)))
    loop.run(1, 0.1)

    assert sum(loop.waits) == pytest.approx(600.0, abs=SLICE_S)
    assert set(said) == {8}
    assert loop.pace.order.level == 0  # what is to hold from a later step would never come, standing still


def test_a_pause_ends_when_the_agent_is_taken_off():
    loop = Loop()
    loop.signals.order = Order(action=Action.PAUSE)
    loop.after_s(3.0, loop.pace.stop)
    loop.run(1, 0.1)

    assert sum(loop.waits) <= 3.0 + SLICE_S
    loop.run(5, 0.1)
    assert sum(loop.waits) <= 3.0 + SLICE_S


def test_of_several_processes_a_paused_one_makes_a_step_now_and_then():
    loop = Loop(patience_s=15.0)
    loop.signals.order = Order(action=Action.PAUSE)
    loop.run(4, 0.1)

    assert sum(loop.waits) == pytest.approx(4 * 15.0, rel=0.01)


def test_a_pause_waits_between_steps_and_never_in_an_accumulation():
    model, optimizer, agent = lowered(level=3)
    train(model, optimizer, batches(2))
    loop = Loop.of(agent)
    first, second, third, *_ = batches(4)
    model(first).square().mean().backward()
    agent._signals.order = Order(action=Action.PAUSE, seq=3)
    model(second).square().mean().backward()
    optimizer.step()
    assert loop.waits == []
    loop.after_s(5.0, lambda: setattr(agent._signals, "order", Order(level=0, seq=4)))
    step(model, optimizer, third)

    assert sum(loop.waits) == pytest.approx(5.0, abs=SLICE_S)
    assert (agent.level, agent._signals.applied.seq) == (0, 4)


def test_while_it_stands_the_agent_says_which_order_it_obeys():
    model, optimizer, agent = lowered(level=3)
    train(model, optimizer, batches(1))
    loop = Loop.of(agent)
    agent._signals.order = Order(action=Action.PAUSE, seq=3)
    seen = []
    loop.after_s(1.0, lambda: seen.append(agent._signals.applied.seq))
    loop.after_s(2.0, lambda: setattr(agent._signals, "order", Order(seq=4)))
    train(model, optimizer, batches(1))

    assert seen == [3]


def test_for_a_share_of_the_time_no_step_waits_for_the_rest_after_a_long_evaluation():
    loop = Loop()
    loop.signals.ask(pace=0.02)
    loop.run(1, 600.0)
    loop.run(1, 0.1)

    assert sum(loop.waits) == pytest.approx(LONGEST_WAIT_S)


def test_a_job_whose_model_cannot_be_narrowed_waits_and_stops_as_well():
    model = torch.nn.DataParallel(net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    agent = greend_agent.attach(model, optimizer)
    train(model, optimizer, batches(1))
    assert "DataParallel" in agent.report()[0]
    loop = Loop.of(agent)
    agent._signals.order = Order(action=Action.PAUSE, seq=2)
    loop.after_s(7.0, lambda: setattr(agent._signals, "order", Order(level=0, action=Action.STOP, seq=3)))
    train(model, optimizer, batches(1))

    assert sum(loop.waits) == pytest.approx(7.0, abs=SLICE_S)
    assert agent.should_stop
    train(model, optimizer, batches(1))
    assert agent._signals.applied[:2] == (3, "")


# --- stop ---


def test_a_loop_that_asks_stops_after_the_step_in_which_it_is_told():
    model, optimizer, agent = lowered(level=3)
    made = 0
    for x in batches(9):
        step(model, optimizer, x)
        made += 1
        if agent.should_stop:
            break
        if made == 3:
            agent._signals.order = Order(level=0, action=Action.STOP, seq=6)

    assert made == 4
    assert (agent._signals.applied.seq, agent._signals.applied.refused) == (6, "")


def test_what_is_called_to_stop_is_called_once_with_the_whole_model_and_may_end_the_loop():
    model, optimizer = net(), None
    seen = []

    def on_stop():
        seen.append((model.state_dict()["0.up.weight"].shape, agent.step_count))
        raise StopIteration

    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = greend_agent.attach(model, optimizer, on_stop=on_stop)
    train(model, optimizer, batches(2))
    agent._signals.order = Order(level=0, action=Action.STOP, seq=6)
    with pytest.raises(StopIteration):
        train(model, optimizer, batches(5))
    train(model, optimizer, batches(2))

    assert seen == [(net()[0].up.weight.shape, 3)]
    assert agent.step_count == 5
    assert agent._signals.applied.refused == ""


def test_where_nothing_can_stop_the_job_runs_on_at_level_0_and_says_so():
    model, optimizer, agent = lowered(level=3)
    agent._signals.order = Order(level=0, action=Action.STOP, seq=6)
    train(model, optimizer, batches(4))

    assert (agent.level, agent.step_count) == (0, 5)
    assert agent._signals.applied.refused.startswith("asked to stop, which nothing in this job can")
    assert sum("asked to stop" in line for line in agent.report()) == 1


def test_a_stop_that_is_taken_back_is_forgotten():
    model, optimizer, agent = lowered(level=3)
    agent._signals.order = Order(level=0, action=Action.STOP, seq=6)
    train(model, optimizer, batches(1))
    assert agent.should_stop
    agent._signals.order = Order(seq=7)
    train(model, optimizer, batches(1))

    assert not agent.should_stop


# --- a level that cannot be entered ---


@pytest.fixture
def failing(monkeypatch):
    """Levels of which the windows raise."""
    levels: set[int] = set()
    apply = WindowSet.apply

    def raising(self, level):
        if level in levels:
            raise MemoryError("out of memory")
        apply(self, level)

    monkeypatch.setattr(WindowSet, "apply", raising)
    return levels


def test_a_level_that_raises_is_refused_and_the_one_before_is_kept(failing):
    model, optimizer, agent = lowered(level=2)
    train(model, optimizer, batches(2))
    failing.add(0)
    levels = []
    for seq, level in enumerate([0, 0, 1, 0, 3], start=5):
        agent._signals.order = Order(level=level, seq=seq)
        train(model, optimizer, batches(1))
        levels.append((agent.level, agent._signals.applied.seq, agent._signals.applied.refused != ""))

    assert levels == [(2, 5, True), (2, 6, True), (1, 7, False), (2, 8, True), (3, 9, False)]
    refusals = [line for line in agent.report() if line.startswith("refused")]
    assert refusals == ["refused: level 0: MemoryError: out of memory"]
    assert len(agent.costs) == 4


def test_a_job_of_which_a_level_is_refused_learns_what_it_would_have_learned(failing):
    def weights(wanted: int) -> list[torch.Tensor]:
        failing.clear()  # planning tries them all
        model, optimizer, agent = lowered(level=3)
        failing.add(0)
        agent.request(wanted)
        train(model, optimizer, batches(4))
        return [p.detach().clone() for p in model.parameters()]

    refused = weights(0)
    assert all(torch.equal(a, b) for a, b in zip(refused, weights(3), strict=True))


def test_when_no_level_is_left_that_is_the_answer(failing):
    model, optimizer, agent = lowered(level=0)
    train(model, optimizer, batches(2))
    failing.update(range(4))
    agent._signals.order = Order(level=1, seq=5)
    train(model, optimizer, batches(2))

    assert agent.costs == [1.0]
    assert agent._signals.applied[:1] == (5,)
    assert "MemoryError: out of memory" in agent._signals.applied.refused
    assert agent.step_count == 5


def test_what_a_change_of_level_took_is_measured():
    model, optimizer, agent = lowered(level=3)
    train(model, optimizer, batches(2))
    assert agent._signals.applied.switch_s == 0.0
    agent._signals.order = Order(level=0, seq=5)
    train(model, optimizer, batches(1))

    assert 0.0 < agent._signals.applied.switch_s < 1.0
