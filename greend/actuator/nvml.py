"""The power limit of NVIDIA GPUs (nvidia-ml-py)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from greend.actuator.control import Setting, clamp
from greend.errors import ControlError
from greend.sources.nvml import NvmlSource


@dataclass(frozen=True, slots=True)
class NvidiaLimit:
    """The power management limit of one GPU: the driver holds the board's power to it."""

    uuid: str
    """Not its index: that shifts when another GPU falls off the bus and the driver is loaded anew."""
    device: str
    handle: Any
    kind: str = "nvml"
    unit: str = "W"

    @property
    def name(self) -> str:
        """The GPU's own identity."""
        return f"nvml:{self.uuid}"

    def read(self) -> Setting:
        """Return the limit that was set, in mW; what throttling makes of it is another matter."""
        with self._asking("read"):
            limit_mw = _nvml().nvmlDeviceGetPowerManagementLimit(self.handle)
        return Setting(limit_mw / 1e3, str(limit_mw))

    def range(self, before: Setting) -> tuple[float, float]:
        """Return the board's own bounds."""
        with self._asking("read"):
            least_mw, most_mw = _nvml().nvmlDeviceGetPowerManagementLimitConstraints(self.handle)
        return least_mw / 1e3, most_mw / 1e3

    def words(self, value: float, window_s: float | None, before: Setting) -> str:
        """Return the limit in mW."""
        return str(round(clamp(value, *self.range(before)) * 1e3))

    def write(self, raw: str) -> None:
        """Ask the driver."""
        with self._asking("set"):
            _nvml().nvmlDeviceSetPowerManagementLimit(self.handle, int(raw))

    def energy_j(self) -> tuple[float, float] | None:
        """Return the board's energy counter; None before Volta and on a vGPU."""
        nvml = _nvml()
        try:
            return nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle) / 1e3, math.inf
        except nvml.NVMLError:
            return None

    @contextlib.contextmanager
    def _asking(self, verb: str) -> Iterator[None]:
        nvml = _nvml()
        try:
            yield
        except nvml.NVMLError as error:
            raise ControlError(f"{verb} the power limit of {self.device}: {_why(error)}") from error


class NvidiaLimits:
    """The GPUs of this machine. NVML stays open while the process lives.

    A driver that nobody uses forgets what was set, unless it runs in persistence mode
    (https://docs.nvidia.com/deploy/driver-persistence). NVML does not survive a fork: the actuator starts no
    other process.
    """

    def __init__(self) -> None:
        self._source = NvmlSource()

    def find(self) -> list[NvidiaLimit]:
        """Return a control for each GPU that answers. Raises SourceError, in words, when there is no NVML."""
        nvml, found = _nvml(), []
        for index, device in enumerate(self._source.devices()):
            with contextlib.suppress(nvml.NVMLError):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                found.append(NvidiaLimit(str(nvml.nvmlDeviceGetUUID(handle)), device, handle))
        return found

    def close(self) -> None:
        """Shut NVML down."""
        self._source.close()


def _why(error: Any) -> str:
    nvml = _nvml()
    return {
        nvml.NVML_ERROR_NO_PERMISSION: "not permitted: only root may set it. Run the actuator as root with "
        "CAP_SYS_ADMIN (systemctl start greend-actuator.socket); in a container or on a shared cloud GPU the "
        "host alone can",
        nvml.NVML_ERROR_NOT_SUPPORTED: "this GPU has no limit that can be set (laptops, vGPUs, some GeForce "
        "boards); keep a power cap by pacing instead (power_cap with hard = false)",
        nvml.NVML_ERROR_INVALID_ARGUMENT: "the driver takes no such value",
        nvml.NVML_ERROR_GPU_IS_LOST: "the GPU has fallen off the bus; a reboot may bring it back",
    }.get(error.value, f"NVML: {error}")


def _nvml() -> ModuleType:
    """Import pynvml where it is used: machines without a GPU need not pay for it."""
    import pynvml

    module: ModuleType = pynvml
    return module
