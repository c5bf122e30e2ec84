"""A real actuator process: killed, stopped, and started by systemd's socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from greend.actuator.client import ActuatorClient

from .conftest import GPU, GROUP, PACKAGE, Machine
from .test_server import until

RUN = """
import ctypes, logging, sys
from pathlib import Path
ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)
from greend.actuator.main import run
logging.basicConfig(level=logging.INFO, format="%(message)s")
folder = Path(sys.argv[2])
run(folder / "actuator.sock", folder / "state", idle_s=float(sys.argv[3]) if len(sys.argv) > 3 else None,
    powercap=folder / "sys/class/powercap", cgroup=folder / "cgroup")
"""


class Actuator:
    """A process that is started, and ended in whichever way."""

    def __init__(self, machine: Machine, library: Path) -> None:
        self.path = machine.folder / "actuator.sock"
        self.words = [sys.executable, "-c", RUN, str(library), str(machine.folder)]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self.words, stderr=subprocess.PIPE, text=True)
        until(lambda: self.path.exists() and self.connects())

    def connects(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(str(self.path)) == 0

    def end(self, how: signal.Signals) -> str:
        """End it; return what it logged."""
        assert self.process is not None
        self.process.send_signal(how)
        _, said = self.process.communicate(timeout=20)
        return said


@pytest.fixture
def actuator(machine: Machine, nvml_library: Path) -> Iterator[Actuator]:
    actuator = Actuator(machine, nvml_library)
    yield actuator
    if actuator.process is not None:
        actuator.process.kill()
        actuator.process.communicate()


def capped(machine: Machine) -> bool:
    return (machine.gpu_mw(), machine.package.read_text(), machine.group.read_text()) == (
        200_000, "65000000", "50000 100000",
    )  # fmt: skip


def as_before(machine: Machine) -> bool:
    return (machine.gpu_mw(), int(machine.package.read_text()), machine.group.read_text().strip()) == (
        300_000, 125_000_000, "max 100000",
    )  # fmt: skip


def cap(client: ActuatorClient) -> None:
    for control, value in ((GPU, 200), (PACKAGE, 65), (GROUP, 0.5)):
        client.set(control, value, "cap of job a")


def test_after_kill_9_the_next_start_puts_everything_back(actuator: Actuator, machine: Machine):
    actuator.start()
    client = ActuatorClient(actuator.path)
    cap(client)
    actuator.end(signal.SIGKILL)
    assert capped(machine)  # nobody was there to put it back

    actuator.start()
    assert as_before(machine)
    lost: list[object] = []
    until(lambda: bool(lost.extend(client.tick()) or lost))
    assert len(lost) == 3
    said = actuator.end(signal.SIGTERM)
    assert said.count("left by an actuator that was killed:") == 3


def test_what_another_program_set_while_none_ran_is_left(actuator: Actuator, machine: Machine):
    actuator.start()
    client = ActuatorClient(actuator.path)
    cap(client)
    actuator.end(signal.SIGKILL)
    machine.nvml.limit_file().write_text("260000\n")
    actuator.start()

    assert machine.gpu_mw() == 260_000
    said = actuator.end(signal.SIGTERM)
    assert f"{GPU} was set to 260 W by another program; greend leaves it so" in said
    client.close()


def test_told_to_stop_it_puts_everything_back(actuator: Actuator, machine: Machine):
    actuator.start()
    client = ActuatorClient(actuator.path)
    cap(client)
    said = actuator.end(signal.SIGTERM)

    assert as_before(machine)
    assert not actuator.path.exists()
    assert f"{GPU} was put back to 300 W" in said
    assert actuator.process is not None
    assert actuator.process.returncode == 0
    client.close()


def test_systemd_hands_it_the_socket_and_it_ends_when_idle(actuator: Actuator, machine: Machine):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(actuator.path))
        listening.listen()
        number = listening.fileno()
        # The pid is known only to the process itself.
        words = ["bash", "-c", f'exec 3<&{number}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"', "bash"]
        actuator.process = subprocess.Popen(
            [*words, *actuator.words, "1"], stderr=subprocess.PIPE, text=True, pass_fds=[number],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        client = ActuatorClient(actuator.path, timeout_s=20)
        cap(client)
        assert capped(machine)
        client.close()
        _, said = actuator.process.communicate(timeout=20)

    assert (actuator.process.returncode, as_before(machine)) == (0, True), said
    assert actuator.path.exists()  # systemd's, and not ours to remove
