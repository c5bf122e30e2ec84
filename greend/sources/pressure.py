"""How busy, full and hot the machine is: PSI, busy cores, free memory, temperatures, the GPUs' own word."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import psutil

from greend.governor.conditions import Machine

PROC = Path("/proc")
CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "amdgpu", "nouveau")
"""hwmon chips that measure a processor: a job is not slowed down for a warm disk or network card."""
RETRY_TURNS = 60
"""After NVML failed it is asked again so many turns later: a driver may be loaded while we run."""
_SOME = re.compile(r"^some avg10=([\d.]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU's state; None: it does not say."""

    share: float | None = None
    """Share of the last sample period in which a kernel ran."""
    temperature_c: float | None = None
    throttled: bool = False
    """Heat or the power supply holds its clocks down. A power limit is not meant: that one may be ours."""


class PressureSource:
    """Reads all of it once a turn. What a machine does not have is None; nothing here raises."""

    def __init__(self, proc: Path = PROC, gpus: Callable[[], Sequence[Gpu]] | None = None) -> None:
        self._proc = proc
        self._gpus = gpus if gpus is not None else NvmlGpus().read
        self._cpu: tuple[float, float] | None = None

    def read(self) -> Machine:
        """Return the machine's state: busy shares since the last read, PSI over the last 10 s."""
        gpus = self._gpus()
        shares = [gpu.share for gpu in gpus if gpu.share is not None]
        hot = [gpu.temperature_c for gpu in gpus if gpu.temperature_c is not None] + _temperatures()
        return Machine(
            cpu_share=self._cpu_share(),
            cpu_stalled=self._stalled("cpu"),
            memory_stalled=self._stalled("memory"),
            io_stalled=self._stalled("io"),
            memory_free=_memory_free(),
            gpu_share=max(shares, default=None),
            temperature_c=max(hot, default=None),
            throttled=any(gpu.throttled for gpu in gpus),
        )

    def _stalled(self, what: str) -> float | None:
        """Return the share of the last 10 s in which something waited; None: a kernel without PSI."""
        try:
            text = (self._proc / "pressure" / what).read_text()
        except OSError:
            # ENOENT before Linux 4.20, EOPNOTSUPP where the kernel was started with psi=0.
            return None
        found = _SOME.search(text)
        return float(found[1]) / 100 if found else None

    def _cpu_share(self) -> float | None:
        try:
            first = (self._proc / "stat").read_text().split("\n", 1)[0].split()
            user, nice, system, idle, iowait, irq, softirq, steal = (float(n) for n in first[1:9])
        except (OSError, ValueError):
            return None
        busy = user + nice + system + irq + softirq + steal
        before, self._cpu = self._cpu, (busy, busy + idle + iowait)
        if before is None:
            return None
        grown, total = busy - before[0], self._cpu[1] - before[1]
        # iowait is known to go back a little.
        return min(max(grown / total, 0.0), 1.0) if total > 0 else None


class NvmlGpus:
    """Utilisation, temperature and throttling of NVIDIA GPUs; none where NVML is not there."""

    def __init__(self) -> None:
        self._nvml: ModuleType | None = None
        self._wait_turns = 0

    def read(self) -> Sequence[Gpu]:
        """Return the state of each GPU that answers."""
        if self._wait_turns > 0:
            self._wait_turns -= 1
            return []
        import pynvml

        try:
            if self._nvml is None:
                pynvml.nvmlInit()
                self._nvml = pynvml
            return [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
        except pynvml.NVMLError:
            self._nvml, self._wait_turns = None, RETRY_TURNS
            return []


def _gpu(nvml: ModuleType, index: int) -> Gpu:
    share, temperature_c, reasons = None, None, 0
    with contextlib.suppress(nvml.NVMLError):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        with contextlib.suppress(nvml.NVMLError):
            share = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        with contextlib.suppress(nvml.NVMLError):
            temperature_c = float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        with contextlib.suppress(nvml.NVMLError):
            # By its older name, which drivers before 535 know too.
            reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    held_down = (
        nvml.nvmlClocksThrottleReasonHwSlowdown
        | nvml.nvmlClocksThrottleReasonSwThermalSlowdown
        | nvml.nvmlClocksThrottleReasonHwThermalSlowdown
        | nvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown
    )
    return Gpu(share, temperature_c, bool(reasons & held_down))


def _temperatures() -> list[float]:
    """Return what the processors' sensors say, in °C; in a virtual machine there are none."""
    sensors = getattr(psutil, "sensors_temperatures", None)
    if sensors is None:
        return []
    with contextlib.suppress(OSError, RuntimeError):
        found = sensors()
        # A sensor that is not wired says 0 or below, or a constant above what silicon stands.
        return [entry.current for chip in CHIPS for entry in found.get(chip, ()) if 0 < entry.current < 150]
    return []


def _memory_free() -> float | None:
    with contextlib.suppress(OSError, RuntimeError):
        memory = psutil.virtual_memory()
        return memory.available / memory.total if memory.total else None
    return None
