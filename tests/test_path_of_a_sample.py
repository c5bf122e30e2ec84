"""The way of one sample: counter, wrap, joules, database, decision, socket, parameter, and back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from torch import nn

import greend_agent
from greend.clock import ManualClock, SystemClock
from greend.config import Config
from greend.daemon.main import Daemon
from greend.sources.fake import FakeSource
from greend.store import jobs, queries
from greend.store.check import conservation
from greend.store.positions import increases
from greend.types import IntervalFlag

POWER_W, RANGE_J, TTL_S = 400.0, 2500.0, 0.4


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(x)))


def until(happened: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for another thread; fails when it does not come."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_from_a_counter_that_wraps_to_a_windowed_parameter_and_back_when_the_daemon_dies(
    tmp_path: Path,
) -> None:
    clock = ManualClock(SystemClock().now())
    config = {
        "daemon": {"socket": str(tmp_path / "greend.sock"), "database": str(tmp_path / "greend.db")},
        "sources": {"enabled": ["host"]},
        "governor": {"job_budget": "8000J", "lease_ttl_s": TTL_S},
    }
    daemon = Daemon(msgspec.convert(config, Config), clock=clock)
    counter = FakeSource(clock, POWER_W, wraps_at=RANGE_J * 1e6)
    daemon.sampler.sources = [*daemon.sampler.sources, counter]
    daemon.server.start()

    torch.manual_seed(0)
    model = nn.Sequential(*(Block() for _ in range(3)), nn.Linear(16, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    widths: list[int] = []
    model[0].up.register_forward_hook(lambda module, args, out: widths.append(module.weight.shape[0]))
    agent = greend_agent.attach(model, optimizer, levels=4, steps=1000, socket=tmp_path / "greend.sock")

    def train(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.randn(8, 16)).square().mean().backward()
            optimizer.step()

    train(3)
    until(lambda: any(live.profile is not None for live in daemon.jobs.live()))
    [live] = daemon.jobs.live()
    # On the daemon's clock the job keeps one core busy, however much of ours it gets beside other programs.
    began = clock.now()
    live.cpu_s, live.tree.cpu_s = 0.0, lambda: clock.now().seconds_since(began)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    # One second of the machine after another, until there is a reason to go lower.
    seconds = 0
    daemon.sampler.turn()
    while agent.want == len(agent.costs) - 1:
        assert seconds < 20, live.state
        train(25)
        until(lambda: live.steps.done == agent.step_count)
        clock.advance(1.0)
        daemon.sampler.turn()
        seconds += 1
        if live.state.decision and live.state.decision.level < live.top:
            until(lambda: agent.want == live.state.decision.level)  # heard over the socket

    widths.clear()
    train(1)
    assert widths[0] < 64
    assert agent.level == live.state.decision.level
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {
        name: tensor.shape for name, tensor in before.items()
    }

    # What was announced is on the disk, with its reason and every joule.
    with daemon.store.read() as connection:
        found = jobs.job(connection, live.job.id)
        last = jobs.decisions(connection, live.job.id)[-1]
        rows = queries.energy_by_component(connection, 0, 2**33)
        wraps = [i for i in increases(connection, 0, 2**33) if IntervalFlag.WRAP in i.flags]
        assert conservation(connection) == []
    assert (last.level, last.previous) == (agent.level, live.top)
    assert "steps left" in last.reason
    assert sum(row.energy_j for row in rows if row.component.kind == "cpu") == pytest.approx(
        POWER_W * seconds
    )
    assert len(wraps) == int(POWER_W * seconds // RANGE_J)
    assert 0 < found.energy_j <= POWER_W * seconds

    # The daemon dies. Nobody waits for it: the job trains on, and at the top once the lease is over.
    daemon.scheduler.start()
    daemon.stop()
    train(1)
    until(lambda: agent.want == len(agent.costs) - 1, seconds=TTL_S + 5.0)
    widths.clear()
    train(1)
    assert (widths, agent.level) == ([64], len(agent.costs) - 1)
    agent.detach()
