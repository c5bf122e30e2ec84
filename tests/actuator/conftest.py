"""A machine whose limits can be turned: a GPU, a CPU package and a control group, in the test's folders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from greend.actuator.controls import Controls
from greend.actuator.leases import LeaseBook
from greend.actuator.ledger import Ledger
from greend.clock import ManualClock
from rigs.nvml import NvmlRig, nvml, nvml_library
from rigs.powercap import PowercapRig

__all__ = ["nvml", "nvml_library"]

GPU = "nvml:GPU-standin-0"
PACKAGE = "rapl:package-0:long_term"
GROUP = "cgroup:/jobs/a"


@dataclass
class Machine:
    """What the actuator finds."""

    folder: Path
    nvml: NvmlRig
    package: Path
    """The file of the package's long-term limit."""
    group: Path
    """The group's cpu.max."""

    @property
    def powercap(self) -> Path:
        return self.folder / "sys/class/powercap"

    @property
    def cgroup(self) -> Path:
        return self.folder / "cgroup"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def gpu_mw(self) -> int:
        file = self.nvml.limit_file()
        return int(file.read_text()) if file.exists() else 300_000


@pytest.fixture
def machine(tmp_path: Path, nvml: NvmlRig) -> Machine:
    rig = PowercapRig(tmp_path / "sys")
    zone = rig.add_zone("intel-rapl:0", "package-0").parent
    package = rig.add_limit(zone, "long_term", limit_w=125, window_s=28, most_w=125)
    rig.add_limit(zone, "short_term", limit_w=253, window_s=0.002, most_w=0)
    group = tmp_path / "cgroup/jobs/a"
    group.mkdir(parents=True)
    (tmp_path / "cgroup/cgroup.controllers").write_text("cpu memory\n")
    (group / "cpu.max").write_text("max 100000\n")
    return Machine(tmp_path, nvml, package, group / "cpu.max")


@pytest.fixture
def controls(machine: Machine) -> Iterator[Controls]:
    controls = Controls(machine.powercap, machine.cgroup)
    yield controls
    controls.close()


@pytest.fixture
def book(machine: Machine, controls: Controls) -> Iterator[LeaseBook]:
    ledger = Ledger(machine.state, "this boot")
    yield LeaseBook(controls, ledger)
    ledger.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
