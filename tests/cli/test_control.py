"""`budget`, `hold` and `policy` against a real daemon and a process of which it knows four levels."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from greend import wire
from greend.client import Client
from greend.clock import SystemClock
from greend.types import Limits

from .test_bad_input import one_line


@dataclass(frozen=True)
class Sleeper:
    """A process that does nothing, registered and attached as a job with four levels."""

    id: str
    name: str
    client: Client

    def now(self) -> dict:
        """What the daemon's status says of it."""
        [job] = [job for job in self.client.get("/status")["jobs"] if job["id"] == self.id]
        return job


@pytest.fixture
def job(shared: Path, request: pytest.FixtureRequest) -> Iterator[Sleeper]:
    process = subprocess.Popen(["sleep", "60"])
    client = Client(shared / "run" / "greend" / "greend.sock")
    name = f"sleeper-{process.pid}"
    asked = wire.JobRequest(process.pid, ["sleep", "60"], name, limits=Limits(30e3))
    job_id = wire.JobReply(**client.post("/jobs", asked)).job
    client.post(f"/jobs/{job_id}/attach", wire.AttachRequest(process.pid, [0.25, 0.5, 0.75, 1.0], 1000))
    yield Sleeper(job_id, name, client)
    process.kill()
    process.wait()
    client.post(f"/jobs/{job_id}/end", wire.EndRequest(0))


def test_a_budget_that_is_set_keeps_what_was_not_named(greend, job):
    assert greend("budget", "set", job.name, "--power", "40 W", "--deadline", "2h").code == 0
    result = greend("budget", "set", job.id, "--energy", "8Wh", "--on-infeasible", "pause")

    assert result.code == 0
    limits = job.now()["limits"]
    assert (limits["energy_j"], limits["power_w"], limits["on_infeasible"]) == (28_800, 40.0, "pause")
    assert limits["deadline_wall_ns"] is not None
    assert "28.8 kJ" in result.out
    assert "40.0 W over 10 s" in result.out


def test_the_budgets_of_a_job_are_shown_with_what_is_spent_and_left(greend, job):
    [energy] = json.loads(greend("budget", "show", job.name, "--json").out)["budgets"]

    assert (energy["kind"], energy["budget"]) == ("energy_j", 30e3)
    assert energy["left"] == pytest.approx(30e3 - energy["spent"])


def test_a_budget_that_is_cleared_is_gone(greend, job):
    said = greend("budget", "clear", job.name)

    assert (said.code, said.out) == (0, f"job {job.id} ({job.name}) has no limit any more\n")
    assert job.now()["limits"] == vars_of(Limits())
    assert json.loads(greend("budget", "show", job.id, "--json").out)["budgets"] == []


def test_a_days_budget_is_shown_beside_those_of_jobs_until_it_is_cleared(greend, job):
    assert greend("budget", "set", "--day", "--energy", "2kWh").code == 0
    shown = greend("budget").out
    try:
        assert "this day" in shown
        assert "2.00 kWh" in shown
        assert job.name in shown
    finally:
        assert greend("budget", "clear", "--day", "--json").code == 0
    assert "this day" not in greend("budget").out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("set", "--energy", "30kJ"), "name either a running job, or --day or --month"),
        (("set", "x", "--day", "--energy", "30kJ"), "name either a running job, or --day or --month"),
        (("clear",), "name either a running job, or --day or --month"),
        (("set", "--day"), "name at least one limit"),
        (("set", "--day", "--power", "40W"), "a day is limited by --energy, --carbon or --cost"),
        (("set", "--day", "--energy", "30"), "the unit is missing"),
    ],
)
def test_what_cannot_be_a_budget_is_a_usage_error(greend, shared, words, problem):
    result = greend("budget", *words)

    assert result.code == 2
    assert problem in one_line(result.err)


def test_a_power_needs_watts_to_be_hard_or_to_have_a_window(greend, job):
    for words in (("--hard",), ("--window", "5s"), ("--power", "9W", "--hard", "--window", "5s")):
        assert greend("budget", "set", job.id, *words).code == 2


def test_a_hard_cap_that_nothing_can_keep_is_refused_with_the_reason(greend, job):
    result = greend("budget", "set", job.id, "--power", "40W", "--hard")

    assert result.code != 0
    assert "hardware" in one_line(result.err)
    assert job.now()["limits"]["power_w"] is None


def test_a_job_that_does_not_run_is_named_with_what_comes_near(greend, job):
    result = greend("budget", "set", job.name[:-1] + "x", "--energy", "30kJ")

    assert result.code == 1
    assert f"did you mean '{job.name}'" in one_line(result.err)


def test_a_hold_for_a_while_returns_at_once_is_listed_and_can_be_released(greend, job):
    held = json.loads(
        greend("hold", job.name, "--level", "1", "--reason", "a demo", "--for", "2h", "--json").out
    )["hold"]

    listed = greend("hold").out
    assert all(word in listed for word in (held, job.id, "≤ 1", "a demo", "more"))
    assert greend("hold", "--release", held).out == f"hold {held} is released\n"
    assert held not in greend("hold").out


HOLD = [sys.executable, "-m", "greend", "hold"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)], ids=["ctrl-c", "kill -9"]
)
def test_a_hold_in_the_foreground_lives_as_long_as_its_command(greend, job, number, code):
    words = [*HOLD, job.id, "--level", "0", "--reason", "look"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith(f"job {job.id} ({job.name}) is held at level 0 or below")
        [hold] = held_of(greend, job)
        assert (hold["level"], hold["reason"], hold["pid"]) == (0, "look", process.pid)
        os.kill(process.pid, number)
        assert process.wait(timeout=20) == code
        assert process.stderr.read().strip() == ""
    deadline = time.monotonic() + 10
    while held_of(greend, job):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def held_of(greend, job: Sleeper) -> list[dict]:
    holds = json.loads(greend("hold", "--json").out)["holds"]
    return [hold for hold in holds if hold["job"] == job.id]


def test_a_hold_without_a_level_or_a_reason_says_what_is_missing(greend, job):
    result = greend("hold", job.id, "--level", "0")

    assert result.code == 2
    assert "--reason" in one_line(result.err)


def test_a_hold_above_the_top_is_refused(greend, job):
    result = greend("hold", job.id, "--level", "9", "--reason", "x", "--for", "1h")

    assert result.code != 0
    assert "9" in one_line(result.err)


def vars_of(limits: Limits) -> dict:
    return json.loads(wire.encode(limits))


@pytest.mark.parametrize(
    "words",
    [
        ("budget",),
        ("budget", "set", "--day", "--energy", "1kWh"),
        ("hold",),
        ("hold", "x", "--level", "0", "--reason", "y"),
        ("policy", "set", "night", "mode=act"),
    ],
)
def test_without_a_daemon_that_is_said_with_its_exit_code(greend, home, words):
    result = greend(*words)

    assert result.code == 3
    assert "start it with `greend daemon`" in one_line(result.err)


def test_a_policy_is_set_key_by_key_listed_shown_and_removed(greend, shared):
    name = f"night-{time.monotonic_ns()}"
    assert greend("policy", "set", name, "when=22:00-06:00", "level=1").code == 0
    said = greend("policy", "set", name, "mode=act", "jobs=train*", "level=0")
    try:
        assert said.out == f"policy {name} is set; `greend policy test` rehearses it\n"
        [rule] = [
            p for p in json.loads(greend("policy", "list", "--json").out)["policies"] if p["name"] == name
        ]
        assert rule["rule"] == {"when": "22:00-06:00", "level": 0, "mode": "act", "jobs": "train*"}
        assert rule["origin"] == "command"
        listed = next(line for line in greend("policy").out.splitlines() if name in line)
        assert listed.split() == [name, "act", "22:00-06:00", "train*", "level", "0", "command"]
        shown = greend("policy", "show", name).out
        assert tomllib.loads(shown)["policies"][name] == rule["rule"]
    finally:
        assert greend("policy", "set", name, "--remove").out == f"policy {name} is gone\n"
    assert name not in greend("policy", "list", "--json").out


def test_an_empty_value_takes_a_key_of_a_policy_away(greend, shared):
    name = f"night-{time.monotonic_ns()}"
    greend("policy", "set", name, "when=22:00-06:00", "level=1")
    assert greend("policy", "set", name, "when=").code == 0

    assert json.loads(greend("policy", "show", name, "--json").out)["policy"]["rule"] == {"level": 1}
    greend("policy", "set", name, "--remove")


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (("set", "night"), 2, "name its keys"),
        (("set", "night", "mode"), 2, "write KEY=VALUE"),
        (("set", "night", "level=1", "--remove"), 2, "or --remove it"),
        (("set", "night", "--remove"), 1, "there is none of that name"),
        (("show", "night"), 1, "`greend policy` lists those there are"),
        (("test", "night"), 1, "`greend policy` lists those there are"),
        (("test", "night", "--since", "soon"), 2, "read 'soon' as a time"),
    ],
)
def test_what_cannot_be_done_with_a_policy_is_said(greend, shared, words, code, problem):
    result = greend("policy", *words)

    assert result.code == code
    assert problem in one_line(result.err)


def test_a_key_that_no_policy_has_is_refused(greend, shared):
    result = greend("policy", "set", "night", "moon=full")

    assert result.code != 0
    assert "moon" in one_line(result.err)


def test_without_a_daemon_the_policies_of_the_settings_are_listed(greend, home):
    folder = home / "config" / "greend"
    folder.mkdir(parents=True)
    (folder / "greend.toml").write_text("[policies.night]\nwhen = '22:00-06:00'\nlevel = 0\n")

    [policy] = json.loads(greend("policy", "list", "--json").out)["policies"]

    assert policy == {"name": "night", "rule": {"when": "22:00-06:00", "level": 0}, "origin": "settings"}


def test_status_names_what_holds_a_job(greend, job):
    greend("budget", "set", job.id, "--power", "40W")
    line = next(line for line in greend("status").out.splitlines() if job.id in line)

    assert "of 30.0 kJ" in line


def test_a_job_starts_under_all_limits_that_were_named(greend, shared):
    words = ("--budget", "8Wh", "--carbon", "20g", "--cost", "0.1", "--power", "40W", "--window", "5s")
    words += (
        "--deadline",
        "2h",
        "--on-infeasible",
        "pause",
        "--order",
        "mixed",
        "--name",
        "limited",
        "--json",
    )
    before_ns = SystemClock().now().wall_ns
    result = greend("run", *words, "--", "true")

    assert result.code == 0, result.err
    limits = json.loads(result.out.splitlines()[-1])["job"]["limits"]
    assert limits.pop("deadline_wall_ns") == pytest.approx(before_ns + 7200e9, abs=60e9)
    assert limits == {
        "energy_j": 28_800, "carbon_g": 20.0, "cost": 0.1, "power_w": 40.0, "window_s": 5.0, "hard": False,
        "on_infeasible": "pause", "order": "mixed",
    }  # fmt: skip


def test_a_command_with_a_cap_that_nothing_can_keep_is_not_started(greend, shared, tmp_path):
    result = greend("run", "--power", "40W", "--hard", "--", "touch", str(tmp_path / "started"))

    assert result.code == 125
    assert "the command was not started" in one_line(result.err)
    assert not (tmp_path / "started").exists()
