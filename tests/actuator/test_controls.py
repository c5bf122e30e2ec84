"""Each kind of limit: read, clamped, turned, and why not, in words."""

from __future__ import annotations

import os

import pytest

from greend.actuator.cgroup import cpu_quota
from greend.actuator.control import Control, Setting, turn
from greend.actuator.controls import Controls
from greend.errors import ControlError
from rigs.nvml import GPU_IS_LOST, NO_PERMISSION, NOT_SUPPORTED

from .conftest import GPU, GROUP, PACKAGE, Machine

SET = "nvmlDeviceSetPowerManagementLimit"


def test_all_limits_of_devices_are_found(controls: Controls):
    assert [control.name for control in controls.find()] == [GPU, PACKAGE, "rapl:package-0:short_term"]
    assert controls.problems == {}


@pytest.mark.parametrize(
    ("name", "value", "raw"),
    [
        (GPU, 200, "200000"),
        (GPU, 20, "100000"),
        (GPU, 900, "300000"),
        (PACKAGE, 65, "65000000 28000000"),
        (PACKAGE, 1, "31250000 28000000"),
        (PACKAGE, 999, "125000000 28000000"),
        ("rapl:package-0:short_term", 999, "253000000 2000"),
        (GROUP, 1.5 if (os.cpu_count() or 1) > 1 else 0.5, None),
        (GROUP, 0.001, "5000 100000"),
    ],
)
def test_a_value_is_clamped_to_what_the_device_takes_and_is_read_back(controls, name, value, raw):
    control = controls.get(name)
    before = control.read()
    asked = control.words(value, None, before)
    now = turn(control, asked, float(value))

    assert raw is None or asked == raw
    assert control.read() == now
    assert turn(control, before.raw, None) == before


def test_a_window_is_set_and_put_back_with_the_limit(controls, machine: Machine):
    control = controls.get(PACKAGE)
    before = control.read()
    now = turn(control, control.words(60, 1.0, before), 60)

    assert (now.value, now.window_s) == (60, 1.0)
    control.write(before.raw)
    assert (control.read().value, control.read().window_s) == (125, 28)


def test_a_limit_that_only_root_may_set_says_so_and_what_to_do(controls, machine: Machine):
    machine.nvml.gpus[0].fails = {SET: NO_PERMISSION}
    machine.nvml.play()

    with pytest.raises(
        ControlError, match=r"set the power limit of gpu-0: not permitted.*greend-actuator.socket"
    ):
        controls.get(GPU).write("200000")


@pytest.mark.parametrize(
    ("code", "words"),
    [(NOT_SUPPORTED, "by pacing instead"), (GPU_IS_LOST, "fallen off the bus"), (999, "NVML: ")],
)
def test_what_the_driver_says_is_put_in_words(controls, machine: Machine, code, words):
    control = controls.get(GPU)
    machine.nvml.gpus[0].fails = {"nvmlDeviceGetPowerManagementLimit": code}
    machine.nvml.play()

    with pytest.raises(ControlError, match=words):
        control.read()


def test_a_limit_that_the_firmware_has_locked_says_so(controls, monkeypatch):
    control = controls.get(PACKAGE)

    def locked(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("greend.actuator.rapl.os.open", locked)
    monkeypatch.setattr("greend.actuator.rapl.os.geteuid", lambda: 0)
    with pytest.raises(ControlError, match="the firmware has locked the limit"):
        control.write("60000000 28000000")


def test_a_machine_without_limits_says_why_for_each_kind(tmp_path, nvml):
    nvml.init = 9
    nvml.play()
    controls = Controls(tmp_path, tmp_path)

    assert controls.find() == []
    assert set(controls.problems) == {"nvml", "rapl", "cgroup"}
    with pytest.raises(ControlError, match=r"'rapl:package-0:long_term': .* shows no RAPL"):
        controls.get(PACKAGE)
    controls.close()


def test_limits_that_are_switched_off_or_not_there_say_so(controls, machine: Machine):
    zone = machine.package.parent
    (zone / "enabled").write_text("0\n")
    controls.find()
    assert "limits of package-0 are switched off: echo 1 >" in controls.problems["rapl"]

    (zone / "enabled").write_text("1\n")
    for file in zone.glob("constraint_*"):
        file.unlink()
    controls.find()
    assert "shows no limits" in controls.problems["rapl"]


def test_a_mistyped_name_is_told_the_nearest(controls):
    with pytest.raises(ControlError, match="did you mean 'rapl:package-0:long_term'"):
        controls.get("rapl:package-0:longterm")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "write the group's path"),
        ("/", "write the group's path"),
        ("jobs/a", "write the group's path"),
        ("/jobs/../../etc", "write the group's path"),
        ("/jobs//a", "write the group's path"),
        ("/link/a", "a link on the way"),
        ("/jobs/none", "the group has ended"),
        ("/jobs", "greend itself runs in it"),
    ],
)
def test_a_group_that_is_none_or_elsewhere_or_greends_own_is_refused(machine: Machine, path, words):
    (machine.cgroup / "link").symlink_to(machine.cgroup / "jobs")

    with pytest.raises(ControlError, match=words):
        cpu_quota("cgroup:" + path, machine.cgroup, never=frozenset({"/jobs/greend"}))


def test_a_group_without_a_quota_reads_as_no_limit(controls):
    assert controls.get(GROUP).read() == Setting(None, "max 100000", 0.1)


class Deaf:
    """A device that takes every request and obeys none."""

    name = "rapl:package-0:long_term"
    unit = "W"

    def read(self) -> Setting:
        return Setting(125.0, "125000000 1")

    def write(self, raw: str) -> None:
        pass


def test_a_device_that_does_not_take_what_it_accepted_is_found_out():
    deaf: Control = Deaf()  # type: ignore[assignment]

    with pytest.raises(ControlError, match="to 60 W: the device took the request and stands at 125 W"):
        turn(deaf, "60000000 1", 60.0)
