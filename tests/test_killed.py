"""Whoever is killed with -9, a real job of torch goes on or ends alone, and the books still add up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from greend.client import Client
from greend.errors import GreendError
from greend.store import jobs
from greend.store.check import conservation
from greend.store.engine import Store

JOB = """
import sys, time, torch
from torch import nn
import greend_agent
torch.set_num_threads(1)
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(32, 256), nn.Linear(256, 32)
    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)))
model = nn.Sequential(*(Block() for _ in range(3)), nn.Linear(32, 2))
optimizer = torch.optim.AdamW(model.parameters())
agent = greend_agent.attach(model, optimizer, steps=10**9)
print("ready", flush=True)
x = torch.randn(16, 32)
while True:
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()
    open(sys.argv[1], "w").write(f"{agent.step_count} {agent.level} {len(agent.costs)}")
"""
SETTINGS = """
[daemon]
period_s = 0.1
flush_s = 0.3
[sources]
enabled = ["host", "fake"]
[governor]
job_budget = "40J"
lease_ttl_s = 1.0
warmup_s = 0.3
"""


def until(happened: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Wait for another process; fails when it does not come."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"{what}: not in {seconds:g} s"
        time.sleep(0.02)


@dataclass
class House:
    """A user's folders, with a daemon and a job in them."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "XDG_RUNTIME_DIR": str(self.folder / "run"),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
        }
        with (self.folder / "errors").open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, *words], env=environment, stdout=subprocess.DEVNULL, stderr=errors
            )
        self.processes.append(process)
        return process

    def daemon(self) -> subprocess.Popen[bytes]:
        process = self.start("-m", "greend", "daemon")
        until(lambda: self.status() is not None, "a daemon that answers")
        return process

    def job(self) -> subprocess.Popen[bytes]:
        (self.folder / "job.py").write_text(JOB)
        return self.start(str(self.folder / "job.py"), str(self.folder / "at"))

    def status(self) -> dict[str, Any] | None:
        try:
            return dict(Client(self.folder / "run/greend/greend.sock").get("/status"))
        except GreendError:
            return None

    def jobs(self) -> list[dict[str, Any]]:
        return list((self.status() or {"jobs": []})["jobs"])

    def at(self) -> tuple[int, int, int]:
        """Steps, level and number of levels of the job."""
        words = (self.folder / "at").read_text().split() if (self.folder / "at").exists() else []
        return tuple(int(w) for w in words) if len(words) == 3 else (0, 0, 0)  # type: ignore[return-value]

    def steps_on(self) -> None:
        before = self.at()[0]
        until(lambda: self.at()[0] > before + 20, "a job that steps on")

    def lowered(self) -> bool:
        _, level, levels = self.at()
        return level < levels - 1

    def books(self) -> tuple[list[str], float]:
        """What does not add up, and the joules of the only job."""
        store = Store.open(self.folder / "state/greend/greend.db")
        try:
            with store.read() as connection:
                [found] = jobs.jobs(connection)
                return [str(problem) for problem in conservation(connection)], found.energy_j or 0.0
        finally:
            store.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    (tmp_path / "config/greend").mkdir(parents=True)
    (tmp_path / "config/greend/greend.toml").write_text(SETTINGS)
    found = House(tmp_path)
    yield found
    for process in found.processes:
        process.kill()
        process.wait()


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture
def running(house: House) -> tuple[House, subprocess.Popen[bytes], subprocess.Popen[bytes]]:
    """A job that its budget has brought to a low level."""
    daemon, job = house.daemon(), house.job()
    until(house.lowered, "a level below the top")
    return house, daemon, job


def test_a_daemon_that_is_killed_leaves_the_job_at_the_top_and_the_next_one_takes_it_up(running) -> None:
    house, daemon, job = running
    [before] = house.jobs()
    kill(daemon)
    until(lambda: not house.lowered(), "the top after the lease")
    house.steps_on()
    assert job.poll() is None

    house.daemon()
    until(lambda: [j["id"] for j in house.jobs()] == [before["id"]], "the same job")
    until(house.lowered, "its level again")
    assert house.jobs()[0]["spent_j"] >= before["spent_j"] - 5.0


def test_an_agent_that_is_killed_ends_the_job_and_leaves_nothing(running) -> None:
    house, daemon, job = running
    kill(job)
    until(lambda: house.jobs() == [], "a job that has ended")
    daemon.terminate()
    daemon.wait(timeout=20)

    problems, energy_j = house.books()
    assert problems == []
    assert energy_j > 0


def test_both_killed_at_once_the_next_daemon_ends_the_job_and_the_books_add_up(running) -> None:
    house, daemon, job = running
    until(lambda: house.jobs()[0]["spent_j"] > 0, "joules of the job")
    kill(daemon)
    kill(job)
    after = house.daemon()
    assert house.jobs() == []
    after.terminate()
    after.wait(timeout=20)

    problems, energy_j = house.books()
    assert problems == []
    assert 0 < energy_j < 500


def test_a_daemon_stopped_for_longer_than_its_lease_finds_the_job_alive_and_holds_it_again(running) -> None:
    house, daemon, _ = running
    daemon.send_signal(signal.SIGSTOP)
    until(lambda: not house.lowered(), "the top after the lease")
    house.steps_on()
    daemon.send_signal(signal.SIGCONT)

    until(house.lowered, "its level again")
    assert json.dumps(house.jobs())
