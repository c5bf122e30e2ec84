"""What happens to the daemon, to the clock or on the line does not happen to the training."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import greend_agent
from greend import clock as clocks
from greend.client import Client
from greend.clock import NS
from greend.types import Action
from greend_agent.link import ASLEEP_S, Link
from greend_agent.signals import TOP, Signals

from .fake_daemon import FakeDaemon, until
from .nets import OPTIMIZERS, batches, net, train


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fake.sock"


class Followed:
    """A job that follows a daemon, on a clock of the test's own."""

    def __init__(self, path: Path) -> None:
        self.now_ns, self.signals = 10**6 * NS, Signals()
        self.link = Link(self.signals, path, clock=lambda: self.now_ns)
        self.link._client = Client(path, timeout_s=0.2)
        self.link.start()
        self.link.announce([0.25, 0.5, 0.75, 1.0], [])

    @property
    def level(self) -> int:
        return self.signals.order.level

    def awake_for(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now_ns += NS
            self.link._tick()

    def stopped_for(self, seconds: int) -> None:
        self.now_ns += seconds * NS
        self.link._tick()


@contextlib.contextmanager
def serving(path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(path) as daemon:
        yield daemon
        daemon.say.put(None)
        daemon.shutdown()
    path.unlink()


@pytest.mark.parametrize(
    ("on_loss", "level", "power_w"), [("top", TOP, None), ("hold", 1, 90.0), ("safe", 2, 90.0)]
)
def test_a_daemon_that_is_killed_leaves_the_job_running_as_it_said_beforehand(path, on_loss, level, power_w):
    with serving(path) as daemon:
        job = Followed(path)
        daemon.direct(1, ttl_s=30.0, on_loss=on_loss, safe_level=2, power_w=90.0, action="pause")
        until(lambda: job.level == 1)
    with contextlib.suppress(Exception):
        job.awake_for(1)  # nobody is there to be told
    for _ in range(31):
        job.now_ns += NS
        with contextlib.suppress(Exception):
            job.link._tick()

    order = job.signals.order
    assert (order.level, order.power_w, order.action) == (level, power_w, Action.RUN)
    job.link.close()


def test_a_daemon_that_is_started_again_is_followed_again_and_what_it_said_before_is_not_said_anew(path):
    with serving(path) as daemon:
        job = Followed(path)
        daemon.direct(1, seq=41)
        until(lambda: job.level == 1)
    with serving(path) as daemon:
        daemon.direct(0, seq=40)
        daemon.direct(1, seq=41)
        job.signals.ask(level=3)
        daemon.say.put(("ping", "{}"))
        until(lambda: daemon.say.empty() and daemon.told("/attach"))
        assert job.level == 3
        daemon.direct(2, seq=42)
        until(lambda: job.level == 2)
        assert job.signals.order.seq == 42
        job.link.close()


def test_after_a_new_registration_a_daemon_may_count_from_the_beginning(path):
    with serving(path) as daemon:
        job = Followed(path)
        daemon.direct(1, seq=41)
        until(lambda: job.level == 1)
        daemon.unknown.add("j-new")
        daemon.say.put(None)
        until(lambda: job.link.job is None)
        daemon.unknown.clear()
        daemon.direct(2, seq=1)
        until(lambda: job.level == 2)
        assert job.signals.order.seq == 1
        job.link.close()


def test_a_daemon_that_is_stopped_for_a_minute_loses_its_lease_and_has_it_back_with_its_next_word(path):
    with serving(path) as daemon:
        job = Followed(path)
        daemon.direct(0)
        until(lambda: job.level == 0)
        levels = []
        for _ in range(6):
            job.awake_for(10)
            levels.append(job.level)
        assert levels == [0, 0, 0, TOP, TOP, TOP]
        daemon.say.put(("ping", "{}"))
        until(lambda: job.level == 0)
        job.link.close()


def test_an_agent_that_is_stopped_for_a_minute_goes_on_at_its_level(path):
    with serving(path) as daemon:
        job = Followed(path)
        daemon.direct(0)
        until(lambda: job.level == 0)
        job.awake_for(5)
        job.stopped_for(60)
        assert job.level == 0
        job.awake_for(20)
        assert job.level == 0
        job.awake_for(10)
        assert job.level == TOP
        job.link.close()


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_the_wall_clock_may_step_by_an_hour_without_a_lease_or_a_pace_noticing(path, monkeypatch, step_s):
    real, stepped = time.clock_gettime_ns, [0.0]

    def gettime(which: int) -> int:
        return real(which) + (round(stepped[0] * NS) if which == time.CLOCK_REALTIME else 0)

    # These are all the ways to ask for the wall clock; `clocks` is where the agent's own time comes from.
    monkeypatch.setattr(clocks.time, "clock_gettime_ns", gettime)
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + stepped[0])
    monkeypatch.setattr(time, "time_ns", lambda now=time.time_ns: now() + round(stepped[0] * NS))
    model = net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    with serving(path) as daemon:
        agent = greend_agent.attach(model, optimizer, socket=path)
        train(model, optimizer, batches(2))
        daemon.direct(0, pace=0.9)
        until(lambda: agent.want == 0)
        stepped[0] = step_s
        agent._link._tick()
        began = time.monotonic()
        train(model, optimizer, batches(5))
        agent._link._tick()

        assert (agent.level, agent.want, agent._signals.order.pace) == (0, 0, 0.9)
        assert time.monotonic() - began < 2.0
        assert abs(daemon.told("/progress")[-1]["mono_ns"] - clocks.mono_ns()) < 10 * NS
        agent.detach()


def test_a_daemon_that_takes_connections_and_never_answers_keeps_nobody_waiting(path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(64)
    model = net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = greend_agent.attach(model, optimizer, socket=path)
    began = time.monotonic()
    train(model, optimizer, batches(5))
    took_s = time.monotonic() - began
    agent.detach()
    listener.close()

    assert took_s < 1.0
    assert agent.step_count == 5


def test_where_the_line_hangs_leases_end_in_time(path):
    with serving(path) as daemon:
        job = Followed(path)
        daemon.direct(0)
        until(lambda: job.level == 0)
        job.signals.position = greend_agent.signals.Position(7, 0, job.now_ns)
        hanging = threading.Event()
        daemon.hang = hanging
        for _ in range(31):
            job.now_ns += NS
            with contextlib.suppress(Exception):  # it is not answered within its 0.2 s
                job.link._tick()
            job.link._sent = job.signals.position, job.signals.applied  # once is enough
        assert job.level == TOP
        hanging.set()
        job.link.close()


@pytest.mark.parametrize(
    "data",
    [
        "{",
        "[1, 2]",
        '{"seq": 3}',
        '{"seq": 3, "level": "low", "reason": "", "ttl_s": 30}',
        '{"seq": 3, "level": 1, "reason": "", "ttl_s": null}',
        '{"seq": [3], "level": 1, "reason": "", "ttl_s": 30}',
        '{"seq": 3, "level": 1, "reason": "", "ttl_s": 30, "apply_at_step": "soon"}',
        '{"seq": 3, "level": 1, "reason": "", "ttl_s": 30, "step_j": [{}]}',
    ],
)
def test_a_directive_that_makes_no_sense_is_not_obeyed_and_does_not_keep_the_last_one_alive(path, data):
    with serving(path) as daemon:
        job = Followed(path)
        daemon.direct(0)
        until(lambda: job.level == 0)
        job.awake_for(20)
        daemon.say.put(("directive", data))
        until(daemon.say.empty)
        job.awake_for(11)
        assert job.level == TOP
        daemon.say.put(None)  # the line on which nobody listens any more
        daemon.direct(2, seq=4)
        until(lambda: job.level == 2)
        job.link.close()


def test_an_error_that_nobody_thought_of_ends_no_thread(path, monkeypatch):
    with serving(path) as daemon:
        job = Followed(path)
        daemon.direct(0)
        until(lambda: job.level == 0)
        follow, failed = Client.follow, []

        def broken(*args, **options):
            failed.append(1)
            if len(failed) == 1:
                raise RecursionError("of whatever kind")
            return follow(*args, **options)

        monkeypatch.setattr(Client, "follow", broken)
        daemon.say.put(None)
        until(lambda: bool(failed))
        daemon.direct(2)
        until(lambda: job.level == 2)
        assert {t.name for t in threading.enumerate()} >= {"greend-follow", "greend-tick"}
        job.link.close()


def test_a_tick_never_takes_so_long_that_it_would_be_taken_for_a_stop(path):
    link = Link(Signals(), path)

    # In one tick: progress, and what the model can do, each connected and answered at the last moment.
    assert 0.5 + 2 * 2 * link._client._timeout_s < ASLEEP_S


def test_a_local_request_in_the_instant_of_a_directive_does_not_swallow_it(path):
    with serving(path) as daemon:
        job = Followed(path)
        before = job.signals.order
        seq = daemon.direct(0)
        until(lambda: job.level == 0)
        job.signals.order = before._replace(level=3)  # read before, written after
        job.link._tick()
        assert (job.level, job.signals.order.seq) == (0, seq)
        job.link.close()


def test_the_daemon_hears_what_became_of_its_directive(path):
    model = net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    with serving(path) as daemon:
        agent = greend_agent.attach(model, optimizer, socket=path)
        train(model, optimizer, batches(2))
        seq = daemon.direct(0)
        until(lambda: agent.want == 0)
        train(model, optimizer, batches(2))
        until(lambda: any(said["seq"] == seq for said in daemon.told("/progress")))
        said = daemon.told("/progress")[-1]
        assert (said["level"], said["refused"]) == (0, "")
        assert said["switch_s"] > 0.0

        stop = daemon.direct(3, action="stop")
        until(lambda: agent._signals.order.seq == stop)
        train(model, optimizer, batches(2))
        until(lambda: any(said["seq"] == stop for said in daemon.told("/progress")))
        assert "nothing in this job can" in daemon.told("/progress")[-1]["refused"]
        until(lambda: any("asked to stop" in line for line in daemon.told("/attach")[-1]["report"]))
        agent.detach()
