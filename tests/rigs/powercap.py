"""A RAPL rig: the kernel's powercap tree in a folder, and pyRAPL looking there instead of at /sys."""

from __future__ import annotations

import errno
import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

PACKAGE_RANGE_UJ = 262_143_328_850
DRAM_RANGE_UJ = 65_712_999_613


class _SysfsFile(io.StringIO):
    """A sysfs file: its content is made when it is read from the beginning, also through one kept open."""

    def __init__(self, path: Path, faults: dict[Path, int]) -> None:
        super().__init__()
        self._path = path
        self._faults = faults

    def readline(self, size: int | None = -1, /) -> str:
        if self._path in self._faults:
            raise OSError(self._faults[self._path], os.strerror(self._faults[self._path]))
        if not self._path.exists():
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        self.truncate(0)
        self.write(self._path.read_text())
        self.seek(0)
        return super().readline()


@dataclass
class PowercapRig:
    """A machine with RAPL below `root`, which stands for /sys. Counters are set in uJ."""

    root: Path
    read_faults: dict[Path, int] = field(default_factory=dict)
    """Error number by file: the open succeeds, the read does not."""
    open_faults: dict[Path, int] = field(default_factory=dict)
    opened: list[Path] = field(default_factory=list)

    @property
    def powercap(self) -> Path:
        return self.root / "class/powercap"

    def add_cpu(self, cpu: int, socket: int) -> None:
        topology = self.root / f"devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{socket}\n")
        (self.root / "devices/system/cpu/present").write_text(f"0-{cpu}\n" if cpu else "0\n")

    def add_zone(self, path: str, name: str, energy_uj: int = 1_000_000, range_uj: int = 0) -> Path:
        """Add a zone as `intel-rapl:0` or `intel-rapl:0/intel-rapl:0:0`; return its counter."""
        control = path.split(":")[0]
        zone = self.root / "devices/virtual/powercap" / control / path
        zone.mkdir(parents=True)
        self.powercap.mkdir(parents=True, exist_ok=True)
        link = self.powercap / control
        if not link.exists():
            link.symlink_to(zone.parent if ":" in zone.name else zone)
        (zone / "name").write_text(f"{name}\n")
        (zone / "enabled").write_text("1\n")
        largest = range_uj or (DRAM_RANGE_UJ if name == "dram" else PACKAGE_RANGE_UJ)
        (zone / "max_energy_range_uj").write_text(f"{largest}\n")
        counter = zone / "energy_uj"
        counter.write_text(f"{energy_uj}\n")
        counter.chmod(0o400)  # root only, since CVE-2020-8694
        return counter

    def add_limit(
        self, zone: Path, constraint: str, limit_w: float, window_s: float = 1.0, most_w: float = 0
    ) -> Path:
        """Add a power limit to a zone; return its file. `most_w` 0: the hardware gives no figure."""
        index = len(list(zone.glob("constraint_*_name")))
        (zone / f"constraint_{index}_name").write_text(f"{constraint}\n")
        (zone / f"constraint_{index}_time_window_us").write_text(f"{round(window_s * 1e6)}\n")
        (zone / f"constraint_{index}_max_power_uw").write_text(f"{round(most_w * 1e6)}\n")
        limit = zone / f"constraint_{index}_power_limit_uw"
        limit.write_text(f"{round(limit_w * 1e6)}\n")
        return limit

    def set(self, counter: Path, energy_uj: int) -> None:
        """Move a counter, as the hardware does."""
        fresh = counter.with_name("energy_uj.new")
        fresh.write_text(f"{energy_uj}\n")
        fresh.replace(counter)

    def open(self, name: str, mode: str = "r") -> _SysfsFile:
        """Stand in for pyRAPL's `open`."""
        path = self._below(name)
        if path in self.open_faults:
            raise OSError(self.open_faults[path], os.strerror(self.open_faults[path]), name)
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        self.opened.append(path)
        return _SysfsFile(path, self.read_faults)

    def exists(self, name: str) -> bool:
        """Stand in for pyRAPL's `os.path.exists`."""
        return self._below(name).exists()

    def _below(self, name: str) -> Path:
        assert name.startswith("/sys/"), f"pyRAPL looks at {name}, outside the rig"
        return (self.root / name.removeprefix("/sys/")).resolve()


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PowercapRig:
    """A machine with two CPUs on one socket, and no zones yet."""
    rig = PowercapRig(tmp_path / "sys")
    rig.add_cpu(0, socket=0)
    rig.add_cpu(1, socket=0)
    from greend.sources import rapl

    rapl._pyrapl()
    import pyRAPL.device_api as api

    module: Any = api
    monkeypatch.setattr(module, "open", rig.open, raising=False)
    monkeypatch.setattr(module, "os", SimpleNamespace(path=SimpleNamespace(exists=rig.exists)))
    return rig
