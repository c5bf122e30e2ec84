"""What people may change over the socket while the daemon runs, and who may."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from greend import wire
from greend.client import Client
from greend.daemon.control import check_limits
from greend.daemon.main import Daemon
from greend.errors import GreendError, NotFound, PermissionDenied, ProtocolError
from greend.store import jobs as stored
from greend.types import Limits

from .conftest import kill, settings, stop


def until(happened: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for the server's thread."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@pytest.fixture
def client(daemon: Daemon) -> Client:
    return Client(daemon.socket_path)


@pytest.fixture
def job(client: Client) -> str:
    return register(client)


def register(client: Client, pid: int | None = None) -> str:
    return client.post("/jobs", wire.JobRequest(pid or os.getpid(), ["train"]))["job"]


def attach(client: Client, job: str, *costs: float) -> None:
    client.post(f"/jobs/{job}/attach", wire.AttachRequest(os.getpid(), list(costs or (0.25, 0.5, 1.0))))


def turns(daemon: Daemon, count: int, level: int = 2, job: str | None = None) -> None:
    """Seconds in which the job makes ten steps each at a level."""
    for _ in range(count):
        now = daemon.clock.advance(1.0)
        for live in daemon.jobs.live():
            if job in (None, live.job.id) and live.job.costs:
                progress = wire.Progress(live.steps.done + 10, level, now.mono_ns)
                daemon.jobs.progress(live.job.id, progress, os.getuid())
        sum(i * i for i in range(100_000))  # the test is the job
        daemon.sampler.turn()


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def become(uid: int) -> None:
        for module in ("server", "control_routes"):
            monkeypatch.setattr(f"greend.daemon.{module}.uid_of", lambda request: uid)

    return become


# --- limits ---


def test_limits_of_a_running_job_are_set_stored_and_seen_at_once(daemon, client, job):
    limits = Limits(energy_j=3e4, carbon_g=20.0, on_infeasible="pause", order="mixed")
    client.post(f"/jobs/{job}/limits", wire.LimitsRequest(limits))

    [shown] = client.get("/status")["jobs"]
    assert Limits(**shown["limits"]) == limits
    assert shown["budget_j"] == 3e4
    with daemon.store.read() as connection:
        found = stored.job(connection, job).job
    assert (found.limits, found.by_hand) == (limits, True)


def test_limits_come_with_the_registration_also_from_a_client_that_knows_only_joules(daemon, client):
    request = wire.JobRequest(os.getpid(), ["train"], budget_j=50.0, limits=Limits(power_w=40.0))
    job = client.post("/jobs", request)["job"]

    assert daemon.jobs.get(job).job.limits == Limits(energy_j=50.0, power_w=40.0)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(energy_j=0.0), "energy_j = 0: it must be more than zero"),
        (Limits(carbon_g=-3.0), "carbon_g = -3"),
        (Limits(cost=float("inf")), "cost = inf"),
        (Limits(power_w=float("nan")), "power_w = nan"),
        (Limits(window_s=0.0), "window_s = 0"),
        (Limits(hard=True), "a hard limit is one of power"),
        (Limits(on_infeasible="explode"), "on_infeasible = 'explode': there are run_level_0,"),
        (Limits(order="falling"), "order = 'falling': there are rising, mixed"),
    ],
)
def test_limits_that_make_no_sense_are_refused_in_words(limits, words):
    with pytest.raises(ProtocolError) as error:
        check_limits(limits)
    assert words in str(error.value)


@pytest.mark.parametrize("path", ["/jobs", "/jobs/{job}/limits"])
def test_a_limit_that_makes_no_sense_is_refused_over_the_socket_wherever_it_comes(client, job, path):
    limits = Limits(energy_j=-1.0)
    message = wire.LimitsRequest(limits) if "limits" in path else wire.JobRequest(1, ["x"], limits=limits)

    with pytest.raises(ProtocolError, match="energy_j = -1"):
        client.post(path.format(job=job), message)


@pytest.mark.parametrize("path", ["/jobs", "/jobs/{job}/limits"])
def test_a_hard_cap_that_no_hardware_keeps_is_refused_with_the_reason(daemon, client, job, path):
    limits = Limits(power_w=40.0, hard=True)
    message = wire.LimitsRequest(limits) if "limits" in path else wire.JobRequest(1, ["x"], limits=limits)

    with pytest.raises(GreendError, match=r"only hardware can hold a hard cap.*no greend-actuator runs here"):
        client.post(path.format(job=job), message)
    assert daemon.jobs.get(job).job.limits == Limits()


def test_only_the_owner_and_root_may_limit_or_hold_a_job(client, job, as_user):
    as_user(4711)
    for path, message in (
        (f"/jobs/{job}/limits", wire.LimitsRequest(Limits(energy_j=1.0))),
        (f"/jobs/{job}/holds", wire.HoldRequest(0, "why", 60.0)),
    ):
        with pytest.raises(PermissionDenied, match="belongs to user"):
            client.post(path, message)
    with pytest.raises(PermissionDenied, match="belongs to user"):
        next(client.follow(f"/jobs/{job}/hold?level=0&reason=why", 5.0))

    as_user(0)
    client.post(f"/jobs/{job}/limits", wire.LimitsRequest(Limits(energy_j=1.0)))


# --- holds ---


def held(client: Client) -> list[tuple[str, int, str]]:
    return [(hold["job"], hold["level"], hold["reason"]) for hold in client.get("/holds")]


def test_a_hold_with_an_end_lowers_the_job_and_is_over_by_itself(daemon, client, job, clock):
    attach(client, job)
    turns(daemon, 5)
    assert daemon.jobs.get(job).state.decision.level == 2
    client.post(f"/jobs/{job}/holds", wire.HoldRequest(1, "a demonstration", 60.0, "ana"))
    turns(daemon, 5)

    decision = daemon.jobs.get(job).state.decision
    assert decision.level == 1
    assert "a demonstration" in decision.reason
    [hold] = client.get("/holds")
    assert (hold["name"], hold["uid"], hold["pid"]) == ("ana", os.getuid(), os.getpid())
    assert hold["until_wall_ns"] - hold["since_wall_ns"] == pytest.approx(60e9)

    turns(daemon, 60, level=1)
    assert client.get("/holds") == []
    turns(daemon, 10, level=1)
    assert daemon.jobs.get(job).state.decision.level == 2


@contextlib.contextmanager
def following(client: Client, path: str) -> Iterator[Iterator[tuple[str, str]]]:
    stream = client.follow(path, 5.0)
    try:
        yield stream
    finally:
        stream.close()


def test_a_hold_of_a_stream_lives_as_long_as_the_connection(daemon, client, job):
    with following(client, f"/jobs/{job}/hold?level=0&reason={quote('wait & see')}&name=ana") as stream:
        event, data = next(stream)
        assert event == "hold"
        assert held(client) == [(job, 0, "wait & see")]
        assert client.get("/holds")[0]["hold"] == json.loads(data)["hold"]
        assert client.get("/holds")[0]["until_wall_ns"] is None
        assert next(stream) == ("ping", "{}")

    until(lambda: held(client) == [])


HOLD = """
import sys
from pathlib import Path
from greend.client import Client
stream = Client(Path(sys.argv[1])).follow(f"/jobs/{sys.argv[2]}/hold?level=0&reason=why", 60.0)
print(next(stream)[0], flush=True)
for _ in stream: pass
"""


def test_a_hold_is_gone_when_its_process_is_killed(daemon, client, job):
    words = [sys.executable, "-c", HOLD, str(daemon.socket_path), job]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "hold\n"
        assert [hold["pid"] for hold in client.get("/holds")] == [process.pid]
        process.kill()

    until(lambda: held(client) == [])


def test_a_hold_does_not_outlive_its_process_in_a_child_that_kept_the_connection(daemon, client, job):
    ours, theirs = os.fork, os.waitpid
    pid = ours()
    if pid == 0:  # connects, leaves the connection to a child that sleeps, and ends
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(daemon.socket_path))
        connection.sendall(f"GET /v1/jobs/{job}/hold?level=0&reason=why HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        connection.recv(4000)
        if ours() == 0:
            time.sleep(3)
        os._exit(0)
    theirs(pid, 0)

    until(lambda: held(client) == [], seconds=2.0)


def test_a_released_hold_is_told_to_whoever_holds(daemon, client, job):
    with following(client, f"/jobs/{job}/hold?level=0&reason=why") as stream:
        hold = json.loads(next(stream)[1])["hold"]
        client.post(f"/holds/{hold}/release")
        said = next(event for event in stream if event[0] != "ping")

    assert said == ("released", '{"reason":"released by command"}')
    assert held(client) == []
    with pytest.raises(NotFound, match=hold):
        client.post(f"/holds/{hold}/release")


def test_the_holds_of_a_job_end_with_it(daemon, client, job):
    daemon.sampler.turn()
    client.post(f"/jobs/{job}/holds", wire.HoldRequest(0, "for hours", 3600.0))
    with following(client, f"/jobs/{job}/hold?level=0&reason=why") as stream:
        next(stream)
        daemon.jobs.end(job, wire.EndRequest(0), os.getuid())
        daemon.clock.advance(1.0)
        daemon.sampler.turn()
        said = next(event for event in stream if event[0] != "ping")

    assert said == ("released", '{"reason":"the job ended"}')
    assert held(client) == []


def test_when_the_daemon_stops_whoever_holds_is_told(tmp_path, clock):
    daemon = Daemon(settings(tmp_path), clock=clock)
    daemon.server.start()
    client = Client(daemon.socket_path)
    with following(client, f"/jobs/{register(client)}/hold?level=0&reason=why") as stream:
        next(stream)
        stop(daemon)
        said = next(event for event in stream if event[0] != "ping")

    assert said == ("released", '{"reason":"the daemon stops"}')


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (wire.HoldRequest(3, "why", 60.0), "at level 3: its levels are 0 to 2"),
        (wire.HoldRequest(-1, "why", 60.0), "at level -1"),
        (wire.HoldRequest(0, "  ", 60.0), "say why"),
        (wire.HoldRequest(0, "why", 0.0), "for 0 s: it must be more than zero"),
        (wire.HoldRequest(0, "why"), "say for how long, or follow"),
    ],
)
def test_a_hold_that_makes_no_sense_is_refused_in_words(client, job, request_, words):
    attach(client, job)

    with pytest.raises(ProtocolError, match=words):
        client.post(f"/jobs/{job}/holds", request_)
    assert held(client) == []


@pytest.mark.parametrize(
    ("query", "words"),
    [("reason=why", "level=''"), ("level=low&reason=why", "'low'"), ("level=0", "say why")],
)
def test_a_stream_that_says_no_level_or_no_reason_holds_nothing(client, job, query, words):
    with pytest.raises(ProtocolError, match=words):
        next(client.follow(f"/jobs/{job}/hold?{query}", 5.0))
    assert held(client) == []


@pytest.mark.parametrize("end", [stop, kill])
def test_after_a_restart_holds_with_an_end_are_there_and_those_of_connections_are_not(tmp_path, clock, end):
    daemon = Daemon(settings(tmp_path), clock=clock)
    daemon.server.start()
    client = Client(daemon.socket_path)
    job = register(client)
    client.post(f"/jobs/{job}/holds", wire.HoldRequest(0, "an hour", 3600.0))
    with following(client, f"/jobs/{job}/hold?level=1&reason=now") as stream:
        next(stream)
        end(daemon)

    clock.advance(60.0)
    again = Daemon(settings(tmp_path), clock=clock)
    again.server.start()
    assert held(Client(again.socket_path)) == [(job, 0, "an hour")]
    stop(again)


# --- budgets of day and month, policy rules ---


def test_budgets_of_day_and_month_are_set_seen_and_there_after_a_restart(tmp_path, clock):
    pricing = {"pricing": {"intensity_g_per_kwh": 360.0, "price_per_kwh": 0.36}}
    daemon = Daemon(settings(tmp_path, more=pricing), clock=clock)
    daemon.server.start()
    client = Client(daemon.socket_path)
    register(client)
    client.post("/budgets", wire.PeriodRequest("day", energy_j=3.6e6))
    client.post("/budgets", wire.PeriodRequest("month", carbon_g=1e4, cost=5.0))
    turns(daemon, 5)
    before = {span["period"]: span for span in client.get("/budgets")}
    assert before["day"]["energy_j"] == 3.6e6
    spent_j = before["day"]["spent_j"]
    assert spent_j > 0
    assert before["month"]["spent_g"] == pytest.approx(spent_j * 1e-4)
    assert before["month"]["spent_cost"] == pytest.approx(spent_j * 1e-7)
    assert before["day"]["start_wall_ns"] <= clock.now().wall_ns < before["day"]["end_wall_ns"]
    stop(daemon)

    again = Daemon(settings(tmp_path, more=pricing), clock=clock)
    again.server.start()
    client = Client(again.socket_path)
    after = {span["period"]: span for span in client.get("/budgets")}
    assert after["day"]["spent_j"] >= spent_j
    client.post("/budgets", wire.PeriodRequest("day"))
    assert [span["period"] for span in client.get("/budgets")] == ["month"]
    stop(again)


def test_without_an_intensity_or_a_price_there_are_no_grams_and_no_money(client):
    client.post("/budgets", wire.PeriodRequest("day", energy_j=3.6e6))
    [day] = client.get("/budgets")

    assert (day["spent_g"], day["spent_cost"]) == (None, None)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (wire.PeriodRequest("week", energy_j=1.0), "'week': there are day and month"),
        (wire.PeriodRequest("day", energy_j=-1.0), "energy_j = -1"),
    ],
)
def test_a_period_that_makes_no_sense_is_refused_in_words(client, request_, words):
    with pytest.raises(ProtocolError, match=words):
        client.post("/budgets", request_)


def test_what_holds_for_the_whole_machine_is_roots_and_the_daemons_own_users_alone(client, as_user):
    as_user(4711)
    for path, message in (
        ("/budgets", wire.PeriodRequest("day", energy_j=1.0)),
        ("/policies", wire.RuleRequest("night", {"mode": "act"})),
    ):
        with pytest.raises(PermissionDenied, match="only root may; ask with sudo"):
            client.post(path, message)
