"""A real daemon process for the command to talk to, and the command itself run in this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from greend.cli import main
from greend.client import Client
from greend.errors import GreendError

SETTINGS = """
[daemon]
period_s = 0.1
flush_s = 0.5
[sources]
enabled = ["host", "fake"]
"""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Greend = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of a user of whom nothing is known yet."""
    for variable, folder in (
        ("XDG_RUNTIME_DIR", "run"), ("XDG_STATE_HOME", "state"), ("XDG_CONFIG_HOME", "config"),
    ):  # fmt: skip
        monkeypatch.setenv(variable, str(tmp_path / folder))
    for variable in ("GREEND_SOCKET", "GREEND_DB", "GREEND_REQUIRED", "PYTHONPATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


@pytest.fixture
def greend(home: Path, capfd: pytest.CaptureFixture[str]) -> Greend:
    """The command, in this process: returns exit code, stdout and stderr."""

    def run(*words: str) -> Result:
        capfd.readouterr()
        code = 0
        try:
            main(list(words))
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 0
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return run


@pytest.fixture
def daemon(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon of this user, with the simulated counter, that has priced its first interval."""
    folder = home / "config" / "greend"
    folder.mkdir(parents=True)
    (folder / "greend.toml").write_text(SETTINGS)
    process = subprocess.Popen([sys.executable, "-m", "greend", "daemon"], stderr=subprocess.DEVNULL)
    client = Client(home / "run" / "greend" / "greend.sock")
    deadline = time.monotonic() + 20
    while True:
        try:
            if client.get("/status")["power_w"] is not None:
                break
        except GreendError:
            assert process.poll() is None
            assert time.monotonic() < deadline
        time.sleep(0.02)
    yield process
    if process.poll() is None:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(timeout=20)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a daemon in good order."""
    process.terminate()
    process.wait(timeout=20)
