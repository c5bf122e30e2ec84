"""GPUs: energy where there is a counter, power where there is none, and what is said when neither answers."""

from __future__ import annotations

from typing import Any

import pynvml
import pytest

from greend.clock import NS
from greend.counters import CounterBook
from greend.errors import SourceError
from greend.sources.nvml import NvmlSource
from greend.types import Interval, IntervalFlag, Kind, Reading
from rigs.nvml import GPU_IS_LOST, NO_PERMISSION, NOT_SUPPORTED, VERSION_MISMATCH, Gpu, NvmlRig

ENERGY = "nvmlDeviceGetTotalEnergyConsumption"


def by_key(readings: list[Reading]) -> dict[str, Reading]:
    return {str(reading.key).removeprefix("nvml:"): reading for reading in readings}


def look(source: NvmlSource, book: CounterBook, rig: NvmlRig) -> dict[str, Interval]:
    assert rig.now is not None
    intervals = book.update(source.read(), round(rig.now * NS))
    return {f"{i.key.device}:{i.key.counter}": i for i in intervals}


def test_a_gpu_is_read_by_its_energy_counter(nvml: NvmlRig) -> None:
    source, book = NvmlSource(), CounterBook()
    assert source.probe() is None
    look(source, book, nvml)
    nvml.advance(2.0)
    energy = look(source, book, nvml)["gpu-0:energy_mj"]

    assert (energy.amount, energy.unit) == (600_000, "mJ")
    assert by_key(source.read())["gpu-0:util"].value == 0.5
    assert source.devices() == {"gpu-0": "NVIDIA Stand-in"}
    source.close()


def test_a_gpu_without_an_energy_counter_is_read_by_its_power(nvml: NvmlRig) -> None:
    nvml.gpus = [Gpu(power_w=250, fails={ENERGY: NOT_SUPPORTED}), Gpu(power_w=100)]
    nvml.play()
    source, book = NvmlSource(), CounterBook()
    readings = by_key(source.read())

    assert set(readings) == {"gpu-0:power_w", "gpu-0:util", "gpu-1:energy_mj", "gpu-1:util"}
    assert (readings["gpu-0:power_w"].value, readings["gpu-0:power_w"].kind) == (250, Kind.GAUGE)
    look(source, book, nvml)
    nvml.advance(4.0)
    power = look(source, book, nvml)["gpu-0:power_w"]
    assert (power.amount, power.unit) == (1000, "J")


def test_a_gpu_that_is_lost_leaves_the_others_alone_and_keeps_what_it_used(nvml: NvmlRig) -> None:
    nvml.gpus = [Gpu(power_w=300, lost_at=1002.0), Gpu(power_w=100)]
    nvml.play()
    source, book = NvmlSource(), CounterBook()
    look(source, book, nvml)
    nvml.advance(1.0)
    before = look(source, book, nvml)
    nvml.advance(1.0)
    after = look(source, book, nvml)

    assert before["gpu-0:energy_mj"].amount == 300_000
    assert {key for key in after if "energy" in key} == {"gpu-1:energy_mj"}
    assert source.problems == {
        "gpu-0": "read gpu-0: the GPU has fallen off the bus; a reboot may bring it back"
    }
    assert source.process_sm() == {"gpu-1": {}}


def test_the_last_gpu_that_is_lost_makes_the_source_fail_and_come_back(nvml: NvmlRig) -> None:
    source = NvmlSource()
    source.read()
    nvml.gpus[0].lost_at = 0.0
    nvml.play()
    with pytest.raises(SourceError, match="fallen off the bus"):
        source.read()
    with pytest.raises(SourceError, match="fallen off the bus"):
        source.read()

    nvml.gpus[0].lost_at = None
    nvml.play()
    assert source.read()
    assert source.problems == {}


def test_a_driver_reload_is_a_reset_and_not_a_jump(nvml: NvmlRig) -> None:
    nvml.gpus[0].energy_mj, nvml.gpus[0].since = 5e9, 1000.0
    nvml.play()
    source, book = NvmlSource(), CounterBook()
    look(source, book, nvml)
    nvml.gpus[0].reset_at = 1000.5
    nvml.advance(1.0)
    energy = look(source, book, nvml)["gpu-0:energy_mj"]

    assert (energy.amount, energy.flags) == (150_000, IntervalFlag.RESET)


def test_processes_have_their_share_of_a_gpu(nvml: NvmlRig) -> None:
    nvml.gpus[0].processes = {4711: 60, 4712: 0, 4713: 30}
    nvml.play()
    source = NvmlSource()

    assert source.process_sm() == {"gpu-0": {4711: 0.6, 4713: 0.3}}


def test_every_job_that_asks_between_two_reads_hears_the_same(nvml: NvmlRig) -> None:
    nvml.gpus[0].processes = {4711: 60}
    nvml.play()
    source = NvmlSource()
    source.read()

    assert source.process_sm() == source.process_sm() == {"gpu-0": {4711: 0.6}}
    source.read()
    assert source.process_sm() == {"gpu-0": {}}, "no sample is counted twice"
    nvml.advance(1.0)
    source.read()
    assert source.process_sm() == {"gpu-0": {4711: 0.6}}


@pytest.mark.parametrize("code", [NOT_SUPPORTED, NO_PERMISSION])
def test_processes_share_alike_where_the_gpu_keeps_no_account(nvml: NvmlRig, code: int) -> None:
    nvml.gpus = [
        Gpu(processes={4711: 60}, fails={"nvmlDeviceGetProcessUtilization": code}),
        Gpu(processes={1: 9, 2: 9}, fails={"nvmlDeviceGetProcessUtilization": code}),
        Gpu(fails={"nvmlDeviceGetProcessUtilization": code}),
    ]
    nvml.play()

    assert NvmlSource().process_sm() == {"gpu-0": {4711: 1.0}, "gpu-1": {1: 0.5, 2: 0.5}, "gpu-2": {}}


def test_a_gpu_without_utilisation_still_has_energy(nvml: NvmlRig) -> None:
    nvml.gpus[0].fails = {"nvmlDeviceGetUtilizationRates": NOT_SUPPORTED}
    nvml.play()

    assert set(by_key(NvmlSource().read())) == {"gpu-0:energy_mj"}


def test_a_gpu_that_was_lost_before_we_came_is_named(nvml: NvmlRig) -> None:
    nvml.gpus = [Gpu(fails={"nvmlDeviceGetHandleByIndex_v2": GPU_IS_LOST}), Gpu()]
    nvml.play()
    source = NvmlSource()

    assert set(by_key(source.read())) == {"gpu-1:energy_mj", "gpu-1:util"}
    assert source.devices()["gpu-1"] == "NVIDIA Stand-in"
    assert source.devices()["gpu-0"].startswith("? (the GPU has fallen off the bus")
    assert list(source.problems) == ["gpu-0"]


def test_a_gpu_whose_name_cannot_be_read_has_a_question_mark(nvml: NvmlRig) -> None:
    nvml.gpus[0].fails = {"nvmlDeviceGetName": 999}
    nvml.play()

    assert NvmlSource().devices() == {"gpu-0": "? (NVML: Unknown Error)"}


@pytest.mark.parametrize(
    ("init", "words"),
    [
        (9, "the NVIDIA driver is not loaded: sudo modprobe nvidia"),
        (VERSION_MISMATCH, "NVML: driver/library version mismatch: the driver was upgraded; reboot"),
        (NO_PERMISSION, "NVML: permission denied"),
        (999, "NVML: Unknown Error"),
    ],
)
def test_why_nvml_cannot_be_used_is_said_in_words(nvml: NvmlRig, init: int, words: str) -> None:
    nvml.init = init
    nvml.play()
    source = NvmlSource()

    assert (source.probe() or "").startswith(words)
    with pytest.raises(SourceError):
        source.process_sm()
    source.close()


def test_a_machine_without_the_library_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)

    assert (NvmlSource().probe() or "").startswith("libnvidia-ml.so.1 cannot be loaded: no NVIDIA driver")


def test_a_driver_without_a_gpu_says_so(nvml: NvmlRig) -> None:
    nvml.gpus = []
    nvml.play()

    assert NvmlSource().probe() == "NVML runs, but sees no GPU"
    nvml.gpus = [Gpu()]


def test_a_count_that_fails_is_said(nvml: NvmlRig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise pynvml.NVMLError(999)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", fails)

    assert NvmlSource().probe() == "NVML: Unknown Error"
