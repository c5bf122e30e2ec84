"""A GPU rig: the stand-in NVML library, compiled once, and the scenario that it plays."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("nvml_standin.c")
SONAME = "libnvidia-ml.so.1"
NOT_SUPPORTED, NO_PERMISSION, GPU_IS_LOST, VERSION_MISMATCH = 3, 4, 15, 18


def build(folder: Path) -> Path:
    """Compile the stand-in into `folder`; skips the test where there is no compiler."""
    library = folder / SONAME
    compiler = ["cc"] if shutil.which("cc") else []
    if not compiler and importlib.util.find_spec("ziglang"):
        compiler = [sys.executable, "-m", "ziglang", "cc"]
    if not compiler:
        pytest.skip("no C compiler: install one, or pip install ziglang")
    flags = ["-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{SONAME}"]
    subprocess.run([*compiler, *flags, "-o", str(library), str(SOURCE), "-lm"], check=True)
    return library


@dataclass
class Gpu:
    """One simulated GPU; `energy_mj` is what its counter showed at `since`."""

    power_w: float = 300.0
    energy_mj: float = 0.0
    since: float = 0.0
    name: str = "NVIDIA Stand-in"
    util: tuple[int, int] = (50, 10)
    processes: dict[int, int] = field(default_factory=dict)
    """Percent of SM time by pid."""
    fails: dict[str, int] = field(default_factory=dict)
    """Error code by function."""
    lost_at: float | None = None
    reset_at: float | None = None
    limit_w: tuple[float, float, float] = (300, 100, 300)
    """Its power limit as the driver was loaded, and the least and the most that it takes."""

    def lines(self, index: int) -> Iterator[str]:
        yield f"{index}.name {self.name}"
        yield f"{index}.power {self.power_w}"
        yield f"{index}.energy {self.energy_mj} {self.since}"
        yield f"{index}.util {self.util[0]} {self.util[1]}"
        yield f"{index}.limit " + " ".join(str(round(limit * 1e3)) for limit in self.limit_w)
        yield from (f"{index}.proc {pid} {sm}" for pid, sm in self.processes.items())
        yield from (f"{index}.fail {function} {code}" for function, code in self.fails.items())
        if self.lost_at is not None:
            yield f"{index}.lost {self.lost_at}"
        if self.reset_at is not None:
            yield f"{index}.reset {self.reset_at}"


@dataclass
class NvmlRig:
    """What the stand-in plays: change the GPUs, then `play` or `advance`. `now` = None: the real clock."""

    scenario: Path
    gpus: list[Gpu] = field(default_factory=lambda: [Gpu()])
    now: float | None = 1000.0
    init: int = 0

    def play(self) -> None:
        """Write the scenario; the next call of NVML sees it."""
        lines = [f"gpus {len(self.gpus)}", f"init {self.init}"]
        if self.now is not None:
            lines.append(f"now {self.now}")
        for index, gpu in enumerate(self.gpus):
            lines += gpu.lines(index)
        fresh = self.scenario.with_suffix(".new")
        fresh.write_text("\n".join(lines) + "\n")
        fresh.replace(self.scenario)

    def limit_file(self, index: int = 0) -> Path:
        """Where the limit that was set stands, in mW: write to it as another program would set one."""
        return self.scenario.with_name(f"{self.scenario.name}.limit{index}")

    def advance(self, seconds: float) -> None:
        """Let the GPUs draw their power for so long."""
        assert self.now is not None, "the rig follows the real clock"
        self.now += seconds
        self.play()


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in, loaded: glibc gives it to whoever asks for a library of its SONAME."""
    library = build(tmp_path_factory.mktemp("nvml"))
    ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    return library


@pytest.fixture
def nvml(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NvmlRig:
    """One GPU that draws 300 W."""
    rig = NvmlRig(tmp_path / "nvml.scenario")
    monkeypatch.setenv("GREEND_NVML_SCENARIO", str(rig.scenario))
    rig.play()
    return rig
