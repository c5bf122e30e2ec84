"""NVML: energy, power, utilisation and processes of NVIDIA GPUs (nvidia-ml-py)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from greend.errors import SourceError
from greend.types import CounterKey, Kind, Reading

MAX_RATE_MJ = 2000 * 1e3
"""No GPU board draws 2 kW for a second; a counter that seems to has restarted (driver reload)."""


@dataclass(slots=True)
class _Gpu:
    """One GPU as NVML knows it."""

    index: int
    handle: Any = None
    """None: not had yet, or the GPU was lost before we came."""
    has_energy: bool = True
    """Until its energy counter says NOT_SUPPORTED: the architecture does not tell (a vGPU has none)."""
    seen_us: int = 0
    """Timestamp of the last process sample taken."""

    @property
    def device(self) -> str:
        return f"gpu-{self.index}"


class NvmlSource:
    """For each GPU the counter `energy_mj`, or where there is none the gauge `power_w`; gauge `util`.

    A GPU that falls off the bus is left out and named in `problems`; the others go on.
    """

    def __init__(self) -> None:
        self.name = "nvml"
        self.problems: dict[str, str] = {}
        self._gpus: list[_Gpu] | None = None
        self._sm: dict[str, dict[int, float]] | None = None

    def probe(self) -> str | None:
        """Return None if at least one GPU answers, else why not and what to do."""
        self.close()
        try:
            self.read()
        except SourceError as error:
            return str(error)
        return None

    def read(self) -> list[Reading]:
        """Return energy (mJ since the driver was loaded) or power (W), and utilisation (0..1) of each GPU.

        Raises SourceError when no GPU answered; the library is then opened anew at the next read.
        """
        nvml = _nvml()
        gpus = self._open(nvml)
        self.problems, self._sm = {}, None
        readings: list[Reading] = []
        for gpu in gpus:
            try:
                readings += self._read(nvml, gpu)
            except nvml.NVMLError as error:
                self.problems[gpu.device] = f"read {gpu.device}: {_words(error)}"
        if not readings:
            self._shut(nvml)
            raise SourceError("; ".join(self.problems.values()))
        return readings

    def devices(self) -> dict[str, str]:
        """Return the name of each GPU by device. Raises SourceError when NVML cannot be used."""
        nvml = _nvml()
        names = {}
        for gpu in self._open(nvml):
            try:
                names[gpu.device] = str(nvml.nvmlDeviceGetName(_handle(nvml, gpu)))
            except nvml.NVMLError as error:
                names[gpu.device] = f"? ({_words(error)})"
        return names

    def process_sm(self) -> dict[str, dict[int, float]]:
        """Return by GPU and pid the fraction (0..1) of multiprocessor time used, asked once after each read.

        Where the GPU keeps no such account (MIG, some drivers), the processes on it share alike: one alone
        has it all, among several it is a guess. A GPU that fails is left out. Raises SourceError when
        NVML cannot be used.
        """
        if self._sm is None:
            # Remembered until the next read: NVML gives each sample once, and every job asks.
            nvml = _nvml()
            self._sm = {}
            for gpu in self._open(nvml):
                with contextlib.suppress(nvml.NVMLError):
                    self._sm[gpu.device] = self._processes(nvml, gpu)
        return self._sm

    def close(self) -> None:
        """Shut NVML down."""
        if self._gpus is not None:
            self._shut(_nvml())

    def _open(self, nvml: ModuleType) -> list[_Gpu]:
        if self._gpus is not None:
            return self._gpus
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            raise SourceError(_words(error)) from error
        try:
            gpus = [_Gpu(index) for index in range(nvml.nvmlDeviceGetCount())]
        except nvml.NVMLError as error:
            self._shut(nvml)
            raise SourceError(_words(error)) from error
        if not gpus:
            self._shut(nvml)
            raise SourceError("NVML runs, but sees no GPU")
        self._gpus = gpus
        return gpus

    def _shut(self, nvml: ModuleType) -> None:
        self._gpus = None
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()

    @staticmethod
    def _read(nvml: ModuleType, gpu: _Gpu) -> list[Reading]:
        readings = []
        handle = _handle(nvml, gpu)
        if gpu.has_energy:
            try:
                energy_mj = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
                key = CounterKey("nvml", gpu.device, "energy_mj")
                readings.append(Reading(key, float(energy_mj), "mJ", max_rate=MAX_RATE_MJ))
            except nvml.NVMLError_NotSupported:
                gpu.has_energy = False
        if not gpu.has_energy:
            power_w = nvml.nvmlDeviceGetPowerUsage(handle) / 1e3
            readings.append(Reading(CounterKey("nvml", gpu.device, "power_w"), power_w, "W", Kind.GAUGE))
        with contextlib.suppress(nvml.NVMLError_NotSupported):
            # A MIG parent has no utilisation, and still has energy.
            util = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
            readings.append(Reading(CounterKey("nvml", gpu.device, "util"), util, "1", Kind.GAUGE))
        return readings

    @staticmethod
    def _processes(nvml: ModuleType, gpu: _Gpu) -> dict[int, float]:
        handle = _handle(nvml, gpu)
        try:
            samples = nvml.nvmlDeviceGetProcessUtilization(handle, gpu.seen_us)
        except nvml.NVMLError_NotFound:
            return {}  # nobody ran a kernel since
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_NoPermission, nvml.NVMLError_FunctionNotFound):
            pids = [process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)]
            return {pid: 1 / len(pids) for pid in pids}
        use: dict[int, float] = {}
        for sample in samples:
            gpu.seen_us = max(gpu.seen_us, sample.timeStamp)
            if sample.smUtil > 0:
                use[sample.pid] = min(1.0, sample.smUtil / 100)
        return use


def _handle(nvml: ModuleType, gpu: _Gpu) -> Any:
    if gpu.handle is None:
        gpu.handle = nvml.nvmlDeviceGetHandleByIndex(gpu.index)
    return gpu.handle


def _words(error: Any) -> str:
    """Return what an NVML error means, and what to do about it."""
    nvml = _nvml()
    return {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "libnvidia-ml.so.1 cannot be loaded: "
        "no NVIDIA driver is installed, or the container was started without --gpus",
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded: sudo modprobe nvidia",
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "NVML: driver/library version mismatch: "
        "the driver was upgraded; reboot, or reload the nvidia module",
        nvml.NVML_ERROR_NO_PERMISSION: "NVML: permission denied: /dev/nvidia* are not readable for this user",
        nvml.NVML_ERROR_GPU_IS_LOST: "the GPU has fallen off the bus; a reboot may bring it back",
    }.get(error.value, f"NVML: {error}")


def _nvml() -> ModuleType:
    """Import pynvml where it is used: machines without a GPU need not pay for it."""
    import pynvml

    module: ModuleType = pynvml
    return module
