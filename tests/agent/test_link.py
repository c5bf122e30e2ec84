"""The thread that talks to the daemon, against a daemon that the test holds in its hands."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import greend_agent
from greend.clock import NS, mono_ns
from greend.errors import GreendError
from greend_agent.link import Link
from greend_agent.signals import TOP, Position, Signals

from .fake_daemon import FakeDaemon, until
from .nets import HIDDEN, OPTIMIZERS, batches, net, train


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fake.sock"


@pytest.fixture
def daemon(path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(path) as server:
        yield server
        server.say.put(None)
        server.shutdown()


@pytest.fixture
def signals() -> Signals:
    return Signals()


@pytest.fixture
def link(signals: Signals, path: Path) -> Iterator[Link]:
    now = [0]
    link = Link(signals, path, name="night", steps=500, clock=lambda: now[0])
    link.now = now  # type: ignore[attr-defined]
    yield link
    link.close()


def ticking(link: Link, seconds: float) -> None:
    """Let time pass as a process sees it that is awake."""
    for _ in range(round(seconds)):
        link.now[0] += NS
        link._tick()


def test_it_registers_says_what_the_model_can_do_and_follows(daemon, link, signals):
    link.start()
    link.announce([0.5, 1.0], ["proven: up -> down"])
    daemon.direct(0)
    until(lambda: signals.order.level == 0)

    assert daemon.told("/jobs")[0]["name"] == "night"
    assert daemon.told("/jobs")[0]["pid"] == os.getpid()
    assert daemon.told("/attach") == [
        {"pid": os.getpid(), "costs": [0.5, 1.0], "steps": 500, "report": ["proven: up -> down"]}
    ]


def test_progress_is_told_once_for_each_position(daemon, link, signals):
    link.start()
    link.announce([1.0], [])
    signals.position = Position(12, 1, 34 * NS)
    until(lambda: daemon.told("/progress"))

    assert daemon.told("/progress") == [
        {"step": 12, "level": 1, "mono_ns": 34 * NS, "seq": 0, "refused": "", "switch_s": 0.0}
    ]


def test_when_the_stream_ends_it_comes_back_and_attaches_again(daemon, link, signals):
    link.start()
    link.announce([0.5, 1.0], [])
    daemon.direct(1)
    until(lambda: signals.order.level == 1)
    daemon.say.put(None)
    daemon.direct(0)
    until(lambda: signals.order.level == 0)

    assert len(daemon.told("/attach")) == 2
    assert len(daemon.told("/jobs")) == 1


def test_a_daemon_with_a_new_history_gets_the_job_anew(daemon, signals, path):
    daemon.unknown.add("j-old")
    link = Link(signals, path, job="j-old")
    link.start()
    link.announce([0.5, 1.0], [])
    daemon.direct(0)
    until(lambda: signals.order.level == 0)
    link.close()

    assert link.job == "j-new"


@pytest.mark.parametrize(("on_loss", "want"), [("top", TOP), ("hold", 0)])
def test_a_daemon_that_falls_silent_loses_its_lease(daemon, link, signals, on_loss, want):
    link.start()
    link.announce([0.5, 1.0], [])
    daemon.direct(0, ttl_s=30.0, on_loss=on_loss)
    until(lambda: signals.order.level == 0)
    ticking(link, 31)

    assert signals.order.level == want


def test_without_a_daemon_it_says_so_once_and_training_goes_on(path, monkeypatch, caplog):
    monkeypatch.setenv("GREEND_SOCKET", str(path))
    logging.getLogger("greend").setLevel(logging.WARNING)
    model = net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = greend_agent.attach(model, optimizer)
    train(model, optimizer, batches(3))
    until(lambda: "unmeasured" in caplog.text)

    assert f"no daemon at {path}; training goes on unmeasured" in caplog.text
    assert agent.step_count == 3
    agent.detach()


def test_that_there_is_no_daemon_is_said_in_one_line_however_often_it_is_tried(link, caplog, monkeypatch):
    logging.getLogger("greend").setLevel(logging.WARNING)
    tried: list[float] = []
    monkeypatch.setattr(link._stop, "wait", lambda seconds: tried.append(seconds) or len(tried) >= 5)
    monkeypatch.setattr(link._stop, "is_set", lambda: len(tried) >= 5)
    link._follow_for_ever()

    assert tried == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert len(caplog.records) == 1


def test_a_ping_keeps_the_level_past_the_time_of_its_directive(daemon, link, signals):
    link.start()
    link.announce([0.5, 1.0], [])
    daemon.direct(0, ttl_s=30.0)
    until(lambda: signals.order.level == 0)
    ticking(link, 29)
    daemon.say.put(("ping", "{}"))
    until(lambda: link._lease.order(31 * NS).level == 0)
    ticking(link, 29)

    assert signals.order.level == 0


def test_a_level_lost_to_silence_comes_back_with_the_next_word(daemon, link, signals):
    link.start()
    link.announce([0.5, 1.0], [])
    daemon.direct(0, ttl_s=30.0)
    until(lambda: signals.order.level == 0)
    ticking(link, 31)
    assert signals.order.level == TOP
    daemon.say.put(("ping", "{}"))

    until(lambda: signals.order.level == 0)


def test_a_directive_overrides_a_local_request_also_when_it_says_what_it_said(daemon, link, signals):
    link.start()
    link.announce([0.5, 1.0], [])
    daemon.direct(0)
    until(lambda: signals.order.level == 0)
    signals.ask(level=1)
    link._tick()
    assert signals.order.level == 1  # nothing new was said
    daemon.direct(0)

    until(lambda: signals.order.level == 0)


def test_what_the_model_can_do_is_told_anew_when_it_changes(daemon, link):
    link.start()
    link.announce([0.5, 1.0], ["proven"])
    until(lambda: daemon.told("/attach"))
    link.announce([1.0], ["stays full"])
    until(lambda: len(daemon.told("/attach")) == 2)

    assert daemon.told("/attach")[1]["costs"] == [1.0]


@pytest.mark.parametrize("end", ["close", "_finish"])
def test_the_last_progress_is_told_at_the_end(daemon, link, signals, end):
    link.start()
    link.announce([1.0], [])
    until(lambda: daemon.told("/attach"))
    signals.position = Position(7, 0, NS)
    getattr(link, end)()
    until(lambda: daemon.told("/progress"))

    assert daemon.told("/progress")[-1]["step"] == 7


@pytest.mark.parametrize("word", ["not json", "[]", '{"seq": 1}', ""])
def test_a_word_that_makes_no_sense_changes_nothing_and_the_next_one_is_heard(daemon, link, signals, word):
    link.start()
    link.announce([0.5, 1.0], [])
    daemon.say.put(("directive", word))
    daemon.say.put(None)
    daemon.direct(0)

    until(lambda: signals.order.level == 0)


def test_a_job_follows_the_daemon_from_directive_to_progress(daemon, path):
    model = net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    agent = greend_agent.attach(model, optimizer, socket=path, steps=9)
    train(model, optimizer, batches(1))
    daemon.direct(0)
    until(lambda: agent.want == 0)
    train(model, optimizer, batches(3))
    until(lambda: daemon.told("/progress") and daemon.told("/progress")[-1]["step"] == 4)

    told = daemon.told("/progress")[-1]
    assert (told["level"], agent.level) == (0, 0)
    assert 0 < told["mono_ns"] <= mono_ns()
    assert daemon.told("/attach")[-1]["costs"] == agent.costs
    agent.detach()
    train(model, optimizer, batches(1))
    assert model[0].up.weight.shape[0] == HIDDEN


def test_a_required_daemon_that_is_not_there_is_an_error_before_the_first_step(path, monkeypatch):
    monkeypatch.setenv("GREEND_SOCKET", str(path))
    monkeypatch.setenv("GREEND_REQUIRED", "1")
    model = net()

    with pytest.raises(GreendError, match="connect to"):
        greend_agent.attach(model, OPTIMIZERS["sgd"](model.parameters()))


def test_a_disabled_agent_does_nothing_at_all(monkeypatch):
    monkeypatch.setenv("GREEND_DISABLED", "1")
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    agent = greend_agent.attach(model, optimizer)
    agent.request(0)
    train(model, optimizer, batches(2))

    assert not model._forward_pre_hooks
    assert (agent.step_count, agent.report()) == (0, ["not attached: GREEND_DISABLED=1 in the environment"])


def test_a_forked_child_has_no_link_and_the_top(daemon, link, signals):
    link.start()
    link.announce([0.5, 1.0], [])
    daemon.direct(0)
    until(lambda: signals.order.level == 0)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write_end, b"top" if signals.order.level == TOP else b"low")
        os._exit(0)
    os.waitpid(pid, 0)

    assert os.read(read_end, 3) == b"top"
    assert signals.order.level == 0
    os.close(read_end)
    os.close(write_end)
