"""A real daemon process for the command to talk to, and the command itself run in this process."""

from __future__ import annotations

import os
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


FOLDERS = {"XDG_RUNTIME_DIR": "run", "XDG_STATE_HOME": "state", "XDG_CONFIG_HOME": "config"}


def live_in(house: Path, patch: pytest.MonkeyPatch) -> None:
    """Make the folders of a user those below `house`."""
    for variable, folder in FOLDERS.items():
        patch.setenv(variable, str(house / folder))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of a user of whom nothing is known yet."""
    live_in(tmp_path, monkeypatch)
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
    """A daemon of this test's own, that has priced its first interval."""
    process = start(home)
    yield process
    if process.poll() is None:
        stop(process)


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folders of a user whose daemon runs as long as the tests do."""
    folder = tmp_path_factory.mktemp("house")
    process = start(folder)
    yield folder
    stop(process)


@pytest.fixture
def shared(home: Path, house: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The daemon that tests share which do not stop it and do not count what it recorded."""
    live_in(house, monkeypatch)
    return house


def start(house: Path) -> subprocess.Popen[bytes]:
    """Start a daemon with the simulated counter and wait for its first figure."""
    folder = house / "config" / "greend"
    folder.mkdir(parents=True)
    (folder / "greend.toml").write_text(SETTINGS)
    environment = os.environ | {variable: str(house / name) for variable, name in FOLDERS.items()}
    words = [sys.executable, "-m", "greend", "daemon"]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, env=environment)
    client = Client(house / "run" / "greend" / "greend.sock")
    deadline = time.monotonic() + 20
    while True:
        try:
            if client.get("/status")["power_w"] is not None:
                return process
        except GreendError:
            assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a daemon in good order."""
    process.terminate()
    process.wait(timeout=20)
