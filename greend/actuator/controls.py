"""What this machine's limits are, and why it lacks those that it lacks."""

from __future__ import annotations

from pathlib import Path

from greend.actuator.cgroup import CGROUP, PREFIX, cpu_quota
from greend.actuator.control import Control
from greend.actuator.nvml import NvidiaLimits
from greend.actuator.rapl import POWERCAP, rapl_limits
from greend.errors import ControlError, SourceError
from greend.units import nearest


class Controls:
    """The device limits found on this machine, and the groups below `cgroup` by name."""

    def __init__(self, powercap: Path = POWERCAP, cgroup: Path = CGROUP) -> None:
        self.problems: dict[str, str] = {}
        """Why there are no limits of a kind, in words."""
        self._powercap = powercap
        self._cgroup = cgroup
        self._nvidia = NvidiaLimits()
        self._found: dict[str, Control] | None = None

    def find(self) -> list[Control]:
        """Look for the limits of devices anew; groups come and go and are found by name."""
        self.problems = {}
        found: list[Control] = []
        try:
            found += self._nvidia.find()
        except SourceError as error:
            self.problems["nvml"] = str(error)
        try:
            found += rapl_limits(self._powercap)
        except ControlError as error:
            self.problems["rapl"] = str(error)
        if not (self._cgroup / "cgroup.controllers").exists():
            self.problems["cgroup"] = f"{self._cgroup} is not cgroup v2, which has cpu.max"
        self._found = {control.name: control for control in found}
        return found

    def get(self, name: str, never: frozenset[str] = frozenset()) -> Control:
        """Return the control of that name. Raises ControlError, with the nearest that there is.

        `never` are the groups of whom a quota must not slow.
        """
        if name.startswith(PREFIX):
            return cpu_quota(name, self._cgroup, never)
        if self._found is None or name not in self._found:
            self.find()
        assert self._found is not None
        if name not in self._found:
            why = self.problems.get(name.partition(":")[0])
            raise ControlError(
                f"no limit is called {name!r}" + (f": {why}" if why else nearest(name, self._found))
            )
        return self._found[name]

    def close(self) -> None:
        """Let go of the devices."""
        self._nvidia.close()
