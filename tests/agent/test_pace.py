"""A loop is held to a share of its speed, or to a power; time is what the test says it is."""

from __future__ import annotations

import math

import pytest
import torch

import greend_agent
from greend.clock import NS
from greend.wire import Directive, decode, encode
from greend_agent.knobs.pace import LONGEST_WAIT_S, SLICE_S, Pace
from greend_agent.lease import Lease
from greend_agent.link import Link
from greend_agent.signals import Signals

from .fake_daemon import FakeDaemon, until
from .nets import OPTIMIZERS, batches, net, train
from .paced import Loop


@pytest.mark.parametrize("share", [0.9, 0.5, 0.25, 0.1])
@pytest.mark.parametrize("step_s", [0.002, 0.1, 0.4])
def test_work_is_the_wanted_share_of_the_time(share, step_s):
    loop = Loop()
    loop.signals.ask(pace=share)
    loop.run(2, step_s)

    assert 200 * step_s / loop.run(200, step_s) == pytest.approx(share, rel=0.01)


def test_a_step_that_took_a_time_is_followed_by_a_wait_for_the_share():
    loop = Loop()
    loop.signals.ask(pace=0.25)
    loop.run(1, 0.1)
    loop.run(1, 0.1)

    assert sum(loop.waits) == pytest.approx(0.3)
    assert loop.pace.waited_ns == pytest.approx(0.3 * NS)


def test_at_full_pace_not_even_the_clock_is_asked():
    loop = Loop()
    loop.pace = Pace(loop.signals, lambda: pytest.fail("the clock was asked"), loop.sleep)

    loop.run(10, 0.1)

    assert loop.waits == []


def test_uneven_steps_are_averaged():
    loop = Loop()
    loop.signals.ask(pace=0.5)
    loop.run(1, 0.0)
    begin_ns, worked = loop.now_ns, 0.0
    for n in range(300):
        step_s = (0.01, 0.05, 0.2)[n % 3]
        loop.run(1, step_s)
        worked += step_s
    loop.pace.before_step(0)

    assert worked / ((loop.now_ns - begin_ns) / NS) == pytest.approx(0.5, rel=0.01)


def test_no_step_waits_longer_than_the_bound_and_what_it_still_owed_is_not_asked_of_the_next():
    loop = Loop()
    loop.signals.ask(pace=0.1)
    loop.run(1, 60.0)
    loop.run(1, 0.0)
    assert sum(loop.waits) == pytest.approx(LONGEST_WAIT_S)

    loop.waits.clear()
    loop.run(1, 0.0)
    assert sum(loop.waits) == pytest.approx(0.0, abs=1e-6)


def test_a_wait_ends_within_a_slice_of_a_change_of_pace():
    loop = Loop()
    loop.signals.ask(pace=0.1)
    loop.run(1, 0.4)

    def sleep(seconds: float) -> None:
        loop.sleep(seconds)
        if len(loop.waits) == 3:
            loop.signals.ask(pace=1.0)

    loop.pace._sleep = sleep
    loop.run(1, 0.4)

    assert loop.waits == pytest.approx([SLICE_S] * 3)


def test_a_wait_ends_within_a_slice_of_a_stop_and_there_is_no_other():
    loop = Loop()
    loop.signals.ask(pace=0.1)
    loop.run(1, 0.4)

    def sleep(seconds: float) -> None:
        loop.sleep(seconds)
        loop.pace.stop()

    loop.pace._sleep = sleep
    loop.run(3, 0.4)

    assert loop.waits == pytest.approx([SLICE_S])


def test_what_is_owed_at_one_pace_is_forgotten_at_another():
    loop = Loop()
    loop.signals.ask(pace=0.1)
    loop.run(1, 10.0)
    loop.signals.ask(pace=0.5)
    loop.run(1, 0.1)
    assert loop.waits == []

    loop.run(1, 0.1)
    assert sum(loop.waits) == pytest.approx(0.1)


def test_a_power_is_held_with_the_joules_of_a_step():
    loop = Loop()
    loop.signals.ask(power_w=20.0, step_j=10.0)
    loop.run(1, 0.1)

    assert loop.run(100, 0.1) == pytest.approx(100 * 10.0 / 20.0, rel=0.01)


def test_a_power_is_held_with_what_the_daemon_measured_of_the_level_that_was_run():
    loop = Loop()
    loop.signals.step_j = (2.0, None)
    loop.signals.ask(power_w=20.0)
    loop.run(1, 0.01)

    assert loop.run(10, 0.01, level=0) == pytest.approx(10 * 2.0 / 20.0, rel=0.01)
    loop.waits.clear()
    loop.run(10, 0.01, level=1)  # of which nothing is known
    assert sum(loop.waits) == pytest.approx(0.0, abs=1e-6)


def test_a_power_that_is_not_reached_makes_no_step_wait():
    loop = Loop()
    loop.signals.ask(power_w=200.0, step_j=10.0)
    loop.run(50, 0.1)

    assert loop.waits == []


@pytest.mark.parametrize(
    ("pace", "silent_s", "on_loss", "wanted"),
    [
        (0.5, 0, "top", 0.5),
        (0.5, 31, "top", 1.0),
        (0.5, 31, "hold", 0.5),
        (0.0, 0, "top", 1.0),
        (-3.0, 0, "top", 1.0),
        (7.0, 0, "top", 1.0),
        (math.nan, 0, "top", 1.0),
    ],
)
def test_the_pace_of_a_directive_goes_with_its_lease_and_nonsense_is_full_pace(
    pace, silent_s, on_loss, wanted
):
    lease = Lease()
    lease.heard(0, Directive(1, 1, "why", 30.0, on_loss, pace=pace))

    assert lease.order(silent_s * NS).pace == wanted


def test_a_daemon_that_knows_of_no_pace_asks_for_none():
    directive = decode('{"seq": 1, "level": 2, "reason": "", "ttl_s": 3.0}', Directive)

    assert directive.pace == 1.0
    assert directive.step_j == []


def test_the_link_takes_pace_and_joules_from_a_directive_and_gives_the_pace_back_with_the_lease(tmp_path):
    signals, now = Signals(), [0]
    with FakeDaemon(tmp_path / "fake.sock") as daemon:
        link = Link(signals, tmp_path / "fake.sock", clock=lambda: now[0])
        link.start()
        link.announce([0.5, 1.0], [])
        directive = Directive(1, 1, "hot", 30.0, "top", pace=0.4, step_j=[1.5, None])
        daemon.say.put(("directive", encode(directive).decode()))
        until(lambda: signals.order.pace == 0.4)
        assert signals.step_j == (1.5, None)

        for _ in range(31):
            now[0] += NS
            link._tick()
        assert signals.order.pace == 1.0
        link.close()
        daemon.say.put(None)
        daemon.shutdown()


def test_a_local_pace_is_kept_until_the_next_directive():
    signals = Signals()
    link = Link(signals, clock=lambda: 0)
    link._hear("directive", encode(Directive(1, 1, "why", 30.0, "top", pace=0.5)).decode())
    signals.ask(pace=0.8)
    link._hear("ping", "{}")
    assert signals.order.pace == 0.8

    link._hear("directive", encode(Directive(2, 1, "why", 30.0, "top", pace=0.5)).decode())
    assert signals.order.pace == 0.5


def test_a_paced_training_waits_between_steps_and_learns_the_same():
    def run(share: float) -> tuple[list[torch.Tensor], float, list[int]]:
        model = net(drop=0.3)
        optimizer = OPTIMIZERS["adamw"](model.parameters())
        agent = greend_agent.attach(model, optimizer)
        loop = Loop()
        agent._loop.orders.pace = Pace(agent._signals, lambda: loop.now_ns, loop.sleep)
        depths: list[int] = []
        agent._loop.orders.pace._sleep = lambda s: (loop.sleep(s), depths.append(agent.step_count))
        model.register_forward_hook(lambda *_: setattr(loop, "now_ns", loop.now_ns + NS // 10))
        train(model, optimizer, batches(3))
        agent.pace(share)
        torch.manual_seed(7)
        train(model, optimizer, batches(5))
        agent.detach()
        return [p.detach().clone() for p in model.parameters()], sum(loop.waits), sorted(set(depths))

    paced, waited_s, before = run(0.5)
    free, nothing, _ = run(1.0)

    assert waited_s == pytest.approx(4 * 0.1)  # after each of the steps but the last
    assert before == [4, 5, 6, 7]
    assert nothing == 0.0
    assert all(torch.equal(a, b) for a, b in zip(paced, free, strict=True))


@pytest.mark.parametrize(("share", "power_w"), [(0.0, None), (1.5, None), (math.nan, None), (1.0, 0.0)])
def test_a_pace_that_is_none_is_refused_at_once(share, power_w):
    model = net()
    agent = greend_agent.attach(model, OPTIMIZERS["sgd"](model.parameters()))

    with pytest.raises(ValueError, match="0 < share <= 1"):
        agent.pace(share, power_w=power_w)


def test_a_wait_can_be_interrupted_and_the_job_goes_on():
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    agent = greend_agent.attach(model, optimizer)
    loop = Loop()

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    agent._loop.orders.pace = Pace(agent._signals, lambda: loop.now_ns, interrupted)
    train(model, optimizer, batches(2))
    agent.request(0)
    agent.pace(0.5)
    train(model, optimizer, batches(1))
    loop.now_ns += NS
    with pytest.raises(KeyboardInterrupt):
        model(batches(1)[0])

    assert [p.shape for p in model.parameters()] == [p.shape for p in net().parameters()]
    agent.pace(1.0)
    train(model, optimizer, batches(2))
    assert (agent.level, agent.step_count) == (0, 5)
