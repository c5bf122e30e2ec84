"""Whatever ends a lease puts the control back to what it replaced; what somebody else set is left alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greend.actuator.control import Setting, clamp
from greend.actuator.leases import CONTESTED_S, LeaseBook, Owner
from greend.actuator.ledger import Ledger
from greend.actuator.messages import Held, SetLimit
from greend.clock import ManualClock
from greend.errors import ControlError, ControlHeld, GreendError
from rigs.nvml import GPU_IS_LOST, NO_PERMISSION

from .conftest import GPU, GROUP, PACKAGE, Machine

ANA, BEN = (Owner(number, os.getpid(), 990, 1) for number in (1, 2))


def ask(control: str = GPU, value: float = 200, window_s: float | None = None, ttl_s: float = 30) -> SetLimit:
    return SetLimit(1, control, value, window_s, ttl_s, "cap of job a")


def held(book: LeaseBook, clock: ManualClock, control: str = GPU, value: float = 200) -> Held:
    return book.set(ANA, ask(control, value), clock.now())


def test_a_limit_is_put_back_to_what_it_was_and_not_to_the_most(book, clock, machine: Machine):
    machine.nvml.limit_file().write_text("250000\n")
    lease = held(book, clock)
    assert (lease.value, machine.gpu_mw()) == (200, 200_000)

    assert book.release(ANA, lease.lease) == f"{GPU} was put back to 250 W"
    assert machine.gpu_mw() == 250_000
    assert book.idle


def test_every_kind_of_control_is_put_back_when_its_owner_leaves(book, clock, machine: Machine):
    for control, value in ((GPU, 150), (PACKAGE, 65), (GROUP, 0.5)):
        book.set(ANA, ask(control, value, window_s=None if control == GPU else 0.5), clock.now())
    assert machine.group.read_text() == "250000 500000"
    book.leave(ANA)

    assert machine.gpu_mw() == 300_000
    assert machine.package.read_text() == "125000000"
    assert (machine.package.parent / "constraint_0_time_window_us").read_text() == "28000000"
    assert machine.group.read_text() == "max 100000"
    assert book.idle


def test_a_control_has_one_owner_and_a_second_is_told_who(book, clock):
    held(book, clock)

    with pytest.raises(ControlHeld, match=f"process {os.getpid()} of user 990 holds it at 200 W"):
        book.set(BEN, ask(value=150), clock.now())
    with pytest.raises(ControlError, match="holds none of that number"):
        book.release(BEN, 1)


def test_setting_it_anew_keeps_the_lease_and_what_it_replaced(book, clock, machine: Machine):
    first = held(book, clock, PACKAGE, 65)
    again = held(book, clock, PACKAGE, 90)

    assert (again.lease, again.value) == (first.lease, 90)
    book.release(ANA, again.lease)
    assert machine.package.read_text() == "125000000"


def test_a_lease_that_is_not_renewed_ends_and_its_owner_hears_of_it(book, clock, machine: Machine):
    held(book, clock)
    clock.advance(29)
    assert [lease.lost for lease in book.renew(ANA, clock.now())] == [""]
    clock.advance(29)
    book.look(clock.now())
    assert machine.gpu_mw() == 200_000
    clock.step_wall(3600)  # nobody's time to live follows the wall clock
    book.look(clock.now())
    assert machine.gpu_mw() == 200_000
    clock.advance(2)
    book.look(clock.now())

    assert machine.gpu_mw() == 300_000
    [lost] = book.renew(ANA, clock.now())
    assert "nothing was heard of process" in lost.lost
    assert book.renew(ANA, clock.now()) == []


def test_a_time_to_live_is_kept_within_bounds(book, clock, machine: Machine):
    book.set(ANA, ask(ttl_s=1e9), clock.now())
    clock.advance(601)
    book.look(clock.now())

    assert machine.gpu_mw() == 300_000


def test_what_another_program_sets_is_left_and_not_fought_over(book, clock, machine: Machine):
    held(book, clock)
    machine.nvml.limit_file().write_text("280000\n")
    book.look(clock.now())

    [lost] = book.renew(ANA, clock.now())
    assert f"another program set {GPU} to 280 W (greend had set 200 W); greend leaves it so" in lost.lost
    with pytest.raises(ControlHeld, match=r"another program.*can be asked for again in 600 s"):
        book.set(ANA, ask(), clock.now())
    book.leave(ANA)
    assert machine.gpu_mw() == 280_000
    clock.advance(CONTESTED_S)
    assert held(book, clock).value == 200


def test_a_fight_is_noticed_at_the_next_setting_too(book, clock, machine: Machine):
    held(book, clock)
    machine.nvml.limit_file().write_text("280000\n")

    with pytest.raises(ControlHeld, match="another program"):
        held(book, clock, value=150)
    assert machine.gpu_mw() == 280_000
    assert [bool(lost.lost) for lost in book.renew(ANA, clock.now())] == [True]


@pytest.mark.parametrize("value", [0.0, -5.0, float("inf"), float("nan")])
def test_a_limit_that_is_no_number_above_zero_is_refused(book, clock, value):
    with pytest.raises(ControlError, match="a finite number above 0"):
        held(book, clock, value=value)


def test_a_device_that_refuses_leaves_nothing_behind(book, clock, machine: Machine):
    machine.nvml.gpus[0].fails = {"nvmlDeviceSetPowerManagementLimit": NO_PERMISSION}
    machine.nvml.play()

    with pytest.raises(ControlError, match="not permitted"):
        held(book, clock)
    assert book.idle


def test_a_group_that_has_ended_took_its_quota_along(book, clock, machine: Machine):
    lease = held(book, clock, GROUP, 0.5)
    machine.group.unlink()

    assert book.release(ANA, lease.lease) == f"{GROUP} has ended, and its quota with it"
    assert book.idle


def test_a_device_that_cannot_be_reached_is_put_back_when_it_can(book, clock, machine: Machine):
    lease = held(book, clock)
    machine.nvml.gpus[0].fails = {"nvmlDeviceGetPowerManagementLimit": GPU_IS_LOST}
    machine.nvml.play()
    assert "cannot be put back yet" in book.release(ANA, lease.lease)
    with pytest.raises(ControlError, match="cannot be put back yet"):
        book.set(BEN, ask(), clock.now())
    assert not book.idle

    machine.nvml.gpus[0].fails = {}
    machine.nvml.play()
    book.look(clock.now())
    assert machine.gpu_mw() == 300_000
    assert book.idle


def test_a_full_disk_turns_nothing(book, clock, machine: Machine, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("greend.actuator.ledger.os.fsync", full)
    with pytest.raises(GreendError, match="nothing is turned that could not be put back"):
        held(book, clock)
    assert machine.gpu_mw() == 300_000


@pytest.mark.parametrize("writes", [1, 2])
def test_a_disk_that_fills_up_meanwhile_leaves_nothing_capped(
    book, clock, machine: Machine, monkeypatch, writes
):
    """Setting a limit anew writes twice: before the device is touched, and after."""
    held(book, clock)
    real, left = os.fsync, [2 * (writes - 1)]  # a write flushes the file and its folder

    def filling(number: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(number)

    with monkeypatch.context() as patched:
        patched.setattr("greend.actuator.ledger.os.fsync", filling)
        with pytest.raises(GreendError, match="No space left"):
            held(book, clock, value=150)
        assert machine.gpu_mw() == (200_000 if writes == 1 else 300_000)
        book.look(clock.now())
        book.leave(ANA)
        assert machine.gpu_mw() == 300_000
        assert not book.idle

    book.look(clock.now())
    assert book.idle


def test_a_cap_that_the_device_ignores_is_reported_with_its_floor(book, clock, machine: Machine):
    machine.nvml.gpus[0].power_w = 121.0
    machine.nvml.play()
    held(book, clock, value=100)
    for _ in range(12):
        clock.advance(1)
        machine.nvml.advance(1)
        book.look(clock.now())

    [lease] = book.renew(ANA, clock.now())
    assert lease.problem == "cap of 100 W not honoured by device, floor is 121 W"
    assert next(c.problem for c in book.infos()[0] if c.name == GPU) == lease.problem


def test_the_list_says_what_there_is_where_it_stands_and_who_holds_it(book, clock):
    held(book, clock)
    infos, problems = book.infos()
    gpu, package, _ = infos

    assert (gpu.device, gpu.unit, gpu.value, gpu.least, gpu.most) == ("gpu-0", "W", 200, 100, 300)
    assert gpu.holder == str(ANA)
    assert (package.device, package.value, package.window_s, package.holder) == ("package-0", 125, 28, "")
    assert problems == {}


class Killed(BaseException):
    """The actuator dies here: nothing after it runs."""


class Dial:
    """A device that rounds to eighths, and a life that ends after so many operations."""

    kind, device, unit = "rapl", "package-0", "W"

    def __init__(self) -> None:
        self.name = PACKAGE
        self.eighths = 1000
        self.left: float = float("inf")

    def live(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed

    def read(self) -> Setting:
        self.live()
        return Setting(self.eighths / 8, f"{self.eighths / 8}")

    def range(self, before: Setting) -> tuple[float, float]:
        return 10.0, 200.0

    def words(self, value: float, window_s: float | None, before: Setting) -> str:
        return f"{clamp(value, 10.0, 200.0):.3f}"

    def write(self, raw: str) -> None:
        self.live()
        self.eighths = int(float(raw) * 8)
        self.live()

    def energy_j(self) -> None:
        return None


class MortalLedger(Ledger):
    """A ledger that may be the last thing that its actuator does."""

    def __init__(self, folder: Path, dial: Dial) -> None:
        super().__init__(folder, "boot")
        self._dial = dial

    def _write(self, undo: dict) -> None:
        self._dial.live()
        super()._write(undo)
        self._dial.live()


def life(folder: Path, dial: Dial, deeds: Callable[[LeaseBook], None], operations: float) -> bool:
    """Live for so many operations on device and ledger; whether it was long enough."""
    dial.left = operations
    ledger = MortalLedger(folder, dial)
    book = LeaseBook(SimpleNamespace(get=lambda name, never=frozenset(): dial), ledger)  # type: ignore[arg-type]
    try:
        book.recover()
        deeds(book)
    except Killed:
        return False
    finally:
        ledger.close()
    return True


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(10, 200), min_size=1, max_size=3), st.lists(st.integers(0, 25), max_size=3))
def test_killed_at_any_moment_and_again_while_it_recovers_the_next_start_restores(
    tmp_path_factory, values, lives
):
    """Every life but the last is cut short after so many reads, writes and records."""
    folder, dial, clock = tmp_path_factory.mktemp("ledger"), Dial(), ManualClock()

    def deeds(book: LeaseBook) -> None:
        for value in values:
            lease = book.set(ANA, ask(PACKAGE, value), clock.now())
        book.release(ANA, lease.lease)

    for operations in lives:
        life(folder, dial, deeds, operations)
    assert life(folder, dial, lambda book: None, float("inf"))

    assert dial.eighths == 1000
