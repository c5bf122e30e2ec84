"""A daemon in the test's own process: real store, real socket, a simulated counter, and time by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from greend.clock import ManualClock, SystemClock
from greend.config import Config
from greend.daemon.main import Daemon
from greend.store.profiles import ProfileKey, Remembered
from greend.types import Job
from rigs.nvml import nvml, nvml_library

__all__ = ["nvml", "nvml_library"]


def settings(
    folder: Path, *sources: str, more: dict[str, object] | None = None, **governor: object
) -> Config:
    """Settings of a daemon whose folders are the test's, with the simulated counter and other sources."""
    raw = {
        "daemon": {"socket": str(folder / "greend.sock"), "database": str(folder / "greend.db")},
        "sources": {"enabled": ["host", "fake", *sources], "fake_power_w": 40.0},
        "governor": {"lease_ttl_s": 0.4, **governor},
        **(more or {}),
    }
    return msgspec.convert(raw, Config)


class Past:
    """What earlier runs have left, as the test says."""

    def __init__(self, *runs: Job, learned: Remembered | None = None) -> None:
        self._runs, self._learned = runs, learned
        self.asked: list[ProfileKey] = []

    def runs(self, signature: str) -> tuple[Job, ...]:
        return self._runs

    def learned(self, key: ProfileKey) -> Remembered | None:
        self.asked.append(key)
        return self._learned


@pytest.fixture
def clock() -> ManualClock:
    # From now on, so that processes of this machine have started before it.
    return ManualClock(SystemClock().now())


def stop(daemon: Daemon) -> None:
    """End a daemon as SIGTERM does."""
    daemon.scheduler.start()
    daemon.stop()


def kill(daemon: Daemon) -> None:
    """End a daemon as SIGKILL does: nothing more is written, the kernel closes what was open."""
    daemon.server.stop()
    daemon.store.close()
    daemon._instance.give_back()


@pytest.fixture
def daemon(tmp_path: Path, clock: ManualClock) -> Iterator[Daemon]:
    """A daemon that answers on its socket and turns when the test says so."""
    daemon = Daemon(settings(tmp_path), clock=clock)
    daemon.server.start()
    yield daemon
    if daemon.socket_path.exists():  # the test has not stopped it
        stop(daemon)
