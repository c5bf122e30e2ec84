"""How busy, full and hot the machine is: from a folder of /proc, NVML's stand-in, and this machine."""

from collections import namedtuple
from types import SimpleNamespace

import psutil
import pytest

from greend.sources.pressure import RETRY_TURNS, Gpu, NvmlGpus, PressureSource

Sensor = namedtuple("Sensor", "label current high critical")
PSI = "some avg10={some} avg60=1.00 avg300=2.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"


@pytest.fixture
def proc(tmp_path):
    (tmp_path / "pressure").mkdir()
    for what, some in (("cpu", "40.25"), ("memory", "0.50"), ("io", "7.00")):
        (tmp_path / "pressure" / what).write_text(PSI.format(some=some))
    (tmp_path / "stat").write_text("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3\n")
    return tmp_path


def source(proc, *gpus: Gpu) -> PressureSource:
    return PressureSource(proc, lambda: gpus)


def test_stalled_time_is_the_kernels_figure_as_a_share(proc):
    machine = source(proc).read()

    assert (machine.cpu_stalled, machine.memory_stalled, machine.io_stalled) == pytest.approx(
        (0.4025, 0.005, 0.07)
    )


def test_busy_cores_are_counted_between_two_reads_and_waiting_for_a_disk_is_idle(proc):
    reader = source(proc)
    first = reader.read()
    (proc / "stat").write_text("cpu  160 5 60 810 65 2 3 5 60 5\n")

    assert first.cpu_share is None
    # 85 ticks of user, nice, system, irq, softirq and steal; 25 of idle and iowait. Guests are in user.
    assert reader.read().cpu_share == pytest.approx(85 / 110)


@pytest.mark.parametrize("text", ["", "cpu  1 2 3\n", "cpu  a b c d e f g h\n"])
def test_a_stat_that_makes_no_sense_is_no_figure(proc, text):
    (proc / "stat").write_text(text)

    assert source(proc).read().cpu_share is None


def test_a_machine_without_any_of_it_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "sensors_temperatures", dict, raising=False)
    machine = source(tmp_path).read()

    assert (machine.cpu_share, machine.cpu_stalled, machine.memory_stalled, machine.io_stalled) == (None,) * 4
    assert (machine.gpu_share, machine.temperature_c, machine.throttled) == (None, None, False)


def test_the_hottest_processor_counts_and_a_warm_disk_or_an_unwired_sensor_does_not(proc, monkeypatch):
    sensors = {
        "coretemp": [Sensor("Package", 61.0, None, None), Sensor("odd", -128.0, None, None)],
        "nvme": [Sensor("Composite", 77.0, None, None)],
        "k10temp": [Sensor("odd", 255.5, None, None)],
    }
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: sensors, raising=False)

    assert source(proc).read().temperature_c == 61.0
    assert source(proc, Gpu(temperature_c=70.0)).read().temperature_c == 70.0


def test_sensors_that_cannot_be_read_are_as_good_as_none(proc, monkeypatch):
    def fails():
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(psutil, "sensors_temperatures", fails, raising=False)

    assert source(proc).read().temperature_c is None


def test_the_busiest_gpu_counts_and_one_throttled_is_enough(proc):
    machine = source(proc, Gpu(share=0.2), Gpu(share=0.9, throttled=True), Gpu()).read()

    assert (machine.gpu_share, machine.throttled) == (0.9, True)


def test_free_memory_is_a_share(proc, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=3, total=12))

    assert source(proc).read().memory_free == 0.25


def test_nvml_tells_use_and_what_it_does_not_know_is_left_out(nvml):
    nvml.gpus[0].util = (87, 40)
    nvml.play()
    [gpu, *_] = NvmlGpus().read()

    assert gpu == Gpu(share=0.87)


def test_without_nvml_there_are_no_gpus_and_it_is_not_asked_every_turn(monkeypatch):
    import pynvml

    asked = []

    def fails():
        asked.append(1)
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fails)
    gpus = NvmlGpus()

    assert all(list(gpus.read()) == [] for _ in range(2 * RETRY_TURNS + 2))
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("reasons", "throttled"), [(0, False), (0x4, False), (0x8, True), (0x20, True), (0x80, True)]
)
def test_heat_and_the_power_supply_throttle_and_a_power_limit_does_not(monkeypatch, reasons, throttled):
    import pynvml

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 1)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", lambda handle: SimpleNamespace(gpu=50))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTemperature", lambda handle, sensor: 71)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCurrentClocksThrottleReasons", lambda handle: reasons)

    assert list(NvmlGpus().read()) == [Gpu(0.5, 71.0, throttled)]


def test_this_machine_can_be_read():
    reader = PressureSource()
    reader.read()
    sum(range(2_000_000))
    machine = reader.read()

    assert machine.cpu_share is None or 0 <= machine.cpu_share <= 1
    assert machine.memory_free is not None
    assert 0 < machine.memory_free < 1
