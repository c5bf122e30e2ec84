"""A hold belongs to somebody, and is gone with them or when it is over."""

import os
import subprocess
import sys

import pytest

from greend.clock import ManualClock
from greend.daemon.leases import Leases, until_wall_ns
from greend.errors import NotFound, PermissionDenied, StoreError
from greend.types import Lease


class Disk:
    def __init__(self) -> None:
        self.kept: dict[str, Lease] = {}
        self.full = False

    def save(self, lease: Lease) -> None:
        self._may_write()
        self.kept[lease.id] = lease

    def forget(self, ids: list[str]) -> None:
        self._may_write()
        for lease_id in ids:
            del self.kept[lease_id]

    def _may_write(self) -> None:
        if self.full:
            raise StoreError("write history: the disk is full")


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def leases(disk: Disk) -> Leases:
    return Leases(disk.save, disk.forget)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def grant(leases: Leases, clock: ManualClock, for_s: float | None = None, uid: int = 1000, **more) -> Lease:
    fields = {"job_id": "j-1", "level": 0, "reason": "quiet", "name": "ana", "pid": os.getpid(), **more}
    return leases.grant(uid=uid, now=clock.now(), for_s=for_s, **fields)


def test_a_hold_with_an_end_is_over_when_that_time_has_passed_whatever_the_wall_clock_says(
    leases, disk, clock
):
    lease = grant(leases, clock, for_s=60.0)
    clock.step_wall(3600)
    clock.advance(59.9)
    clock.step_wall(-7200)
    assert leases.of("j-1", clock.now()) == (lease,)

    clock.advance(0.1)
    assert leases.of("j-1", clock.now()) == ()
    assert disk.kept == {}


def test_a_hold_with_an_end_is_on_the_disk_before_it_counts(leases, disk, clock):
    disk.full = True
    with pytest.raises(StoreError, match="full"):
        grant(leases, clock, for_s=60.0)
    assert leases.all(clock.now()) == []

    disk.full = False
    lease = grant(leases, clock, for_s=60.0)
    assert disk.kept == {lease.id: lease}


def test_a_hold_of_a_connection_is_never_on_the_disk_as_it_must_not_outlive_it(leases, disk, clock):
    lease = grant(leases, clock)
    clock.advance(1e6)

    assert disk.kept == {}
    assert leases.of("j-1", clock.now()) == (lease,)
    assert until_wall_ns(lease, clock.now()) is None


def test_an_end_that_cannot_be_written_is_an_end_all_the_same(leases, disk, clock):
    grant(leases, clock, for_s=1.0)
    disk.full = True
    clock.advance(2.0)

    assert leases.all(clock.now()) == []
    assert leases.all(clock.now()) == []


def test_after_a_restart_a_hold_lasts_to_its_own_end(leases, disk, clock):
    lease = grant(leases, clock, for_s=60.0)
    later = Leases(disk.save, disk.forget)
    later.restore(list(disk.kept.values()))
    clock.advance(59.0)
    assert later.all(clock.now()) == [lease]
    assert until_wall_ns(lease, clock.now()) == clock.now().after(1.0).wall_ns

    clock.advance(1.0)
    assert later.all(clock.now()) == []


@pytest.mark.parametrize("who", [1000, 0, 500, None])
def test_the_holder_the_jobs_owner_root_and_the_daemon_may_release(leases, clock, who):
    lease = grant(leases, clock, for_s=60.0)

    assert leases.release(lease.id, who, lambda job_id: 500) == lease
    assert not leases.held(lease.id)


def test_nobody_else_may_release(leases, clock):
    lease = grant(leases, clock)

    with pytest.raises(PermissionDenied, match="belongs to user 1000, not to 4711"):
        leases.release(lease.id, 4711, lambda job_id: 500)
    assert leases.held(lease.id)


def test_a_hold_that_is_not_there_is_said(leases):
    with pytest.raises(NotFound, match=r"'h-nope'.*`greend hold` lists"):
        leases.release("h-nope", 0)


def test_the_holds_of_a_job_end_with_it_and_others_stay(leases, disk, clock):
    gone = [grant(leases, clock), grant(leases, clock, for_s=60.0)]
    other = grant(leases, clock, for_s=60.0, job_id="j-2")

    assert leases.end_of_job("j-1") == gone
    assert leases.all(clock.now()) == [other]
    assert list(disk.kept) == [other.id]


def test_a_process_that_ended_has_abandoned_its_hold_also_when_its_pid_is_used_again(leases, clock):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        lease = grant(leases, clock, pid=process.pid)
        assert not leases.abandoned(lease.id)
        process.kill()
        process.wait()
    assert leases.abandoned(lease.id)

    mine = grant(leases, clock)
    assert not leases.abandoned(mine.id)
    leases._processes[mine.id] = 1  # it was another process that had this pid
    assert leases.abandoned(mine.id)
