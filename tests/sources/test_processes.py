"""CPU seconds of process trees: whoever dies, forks or is replaced, the sum never falls and loses little."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greend.clock import SystemClock
from greend.sources.processes import TICK_S, ProcessTree, boot_id, stat, uid_of


@dataclass
class FakeProc:
    """A /proc whose processes a test moves; times in clock ticks."""

    root: Path
    threads: dict[int, list[int]] = field(default_factory=dict)

    def put(
        self, pid: int, ppid: int = 1, own: int = 0, reaped: int = 0, start: int = 100, state: str = "S",
        name: str = "python",
    ) -> None:  # fmt: skip
        folder = self.root / str(pid)
        new = not folder.exists()
        for thread in (pid, *self.threads.get(pid, [])):
            (folder / "task" / str(thread)).mkdir(parents=True, exist_ok=True)
            (folder / "task" / str(thread) / "children").touch()
        times = f"{own - own // 4} {own // 4} {reaped - reaped // 3} {reaped // 3}"
        (folder / "stat").write_text(
            f"{pid} ({name}) {state} {ppid} 0 0 0 -1 0 0 0 0 0 {times} 20 0 1 0 {start} 0 0\n"
        )
        if new and (self.root / str(ppid)).exists():
            self.child_of(ppid, pid)

    def child_of(self, thread: int, pid: int, process: int | None = None) -> None:
        path = self.root / str(process or thread) / "task" / str(thread) / "children"
        path.write_text(f"{path.read_text()}{pid} ")

    def kill(self, pid: int) -> None:
        for path in sorted((self.root / str(pid)).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (self.root / str(pid)).rmdir()
        for path in self.root.glob("*/task/*/children"):
            path.write_text(" ".join(p for p in path.read_text().split() if p != str(pid)) + " ")


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    fake = FakeProc(tmp_path)
    fake.put(10, own=100)
    return fake


def ticks(tree: ProcessTree) -> int:
    return round(tree.cpu_s() / TICK_S)


def test_a_tree_is_a_process_and_all_that_it_started(proc: FakeProc) -> None:
    proc.put(11, ppid=10, own=20)
    proc.put(12, ppid=11, own=3, reaped=4)
    proc.put(99, own=1000)
    tree = ProcessTree(10, proc.root)

    assert ticks(tree) == 127
    assert tree.pids() == {10, 11, 12}


def test_a_name_may_contain_anything(proc: FakeProc) -> None:
    proc.put(10, own=5, name="a) R 1 (b c)")

    assert ticks(ProcessTree(10, proc.root)) == 5


def test_a_child_that_was_waited_for_counts_once(proc: FakeProc) -> None:
    proc.put(11, ppid=10, own=20)
    tree = ProcessTree(10, proc.root)
    proc.kill(11)
    proc.put(10, own=101, reaped=22)

    assert ticks(tree) == 123


def test_children_too_short_lived_to_be_seen_count_when_they_are_waited_for(proc: FakeProc) -> None:
    tree = ProcessTree(10, proc.root)
    proc.put(10, own=100, reaped=50)

    assert ticks(tree) == 150


def test_a_child_that_somebody_else_waited_for_keeps_what_it_used(proc: FakeProc) -> None:
    proc.put(11, ppid=10, own=500)
    tree = ProcessTree(10, proc.root)
    proc.kill(11)
    proc.put(10, own=105)
    assert ticks(tree) == 605

    proc.put(10, own=110)
    assert ticks(tree) == 610


def test_a_child_that_ends_while_we_look_does_not_count_twice(proc: FakeProc) -> None:
    proc.put(11, ppid=10, own=500)
    tree = ProcessTree(10, proc.root)
    # Its parent's account was read before it died, and shows it at the next look only.
    proc.kill(11)
    assert ticks(tree) == 600

    proc.put(10, own=100, reaped=502)
    assert ticks(tree) == 602


def test_a_grandchild_goes_into_the_account_of_whoever_lives(proc: FakeProc) -> None:
    proc.put(11, ppid=10, own=20)
    proc.put(12, ppid=11, own=30)
    tree = ProcessTree(10, proc.root)
    proc.kill(12)
    proc.kill(11)
    proc.put(10, own=100, reaped=55)

    assert ticks(tree) == 155


def test_a_process_whose_parent_ended_still_belongs_to_the_tree(proc: FakeProc) -> None:
    proc.put(11, ppid=10, own=1)
    proc.put(12, ppid=11, own=30)
    tree = ProcessTree(10, proc.root)
    proc.kill(11)
    proc.put(12, ppid=1, own=40)
    proc.put(10, own=100, reaped=1)

    assert ticks(tree) == 141
    assert tree.pids() == {10, 12}


def test_a_child_of_another_thread_is_found_by_a_sweep_and_counts_from_its_start(proc: FakeProc) -> None:
    proc.threads[10] = [21]
    proc.put(10, own=100)
    tree = ProcessTree(10, proc.root, sweep_every=3)
    proc.put(50, ppid=1, own=0)
    proc.child_of(21, 50, process=10)
    seen = []
    for own in (10, 20, 30):
        proc.put(50, ppid=10, own=own)
        seen.append(ticks(tree))

    assert seen == [100, 100, 130]


def test_a_pid_that_is_used_again_is_somebody_else(proc: FakeProc) -> None:
    tree = ProcessTree(10, proc.root)
    assert tree.alive()
    proc.kill(10)
    proc.put(10, own=9000, start=777)

    assert not tree.alive()
    assert ticks(tree) == 100
    assert tree.pids() == set()


def test_a_childs_pid_that_is_used_again_within_the_tree_is_a_new_child(proc: FakeProc) -> None:
    proc.put(11, ppid=10, own=50)
    tree = ProcessTree(10, proc.root)
    proc.kill(11)
    proc.put(10, own=100, reaped=50)
    proc.put(11, ppid=10, own=7, start=800)
    ticks(tree)

    assert ticks(tree) == 157


@pytest.mark.parametrize("state", ["Z", "X"])
def test_a_process_that_ended_does_not_run_though_its_entry_is_there(proc: FakeProc, state: str) -> None:
    tree = ProcessTree(10, proc.root)
    proc.put(10, own=120, state=state)

    assert not tree.alive()
    assert ticks(tree) == 120


def test_a_process_that_never_was_used_nothing(tmp_path: Path) -> None:
    tree = ProcessTree(4711, tmp_path)

    assert (tree.alive(), tree.cpu_s(), tree.pids()) == (False, 0.0, set())
    assert not tree.started_after(SystemClock().now())
    assert stat(4711, tmp_path) is None
    assert uid_of(4711, tmp_path) is None


@settings(max_examples=40, deadline=None)  # each is a folder full of files
@given(st.data())
def test_the_sum_never_falls_and_never_exceeds_what_was_used(data: st.DataObject) -> None:
    """Random forks, work, deaths (waited for or not): compared with the true sum."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        proc = FakeProc(Path(folder))
        alive: dict[int, tuple[int, int, int]] = {10: (1, 0, 0)}  # pid: (parent, own, reaped)
        proc.put(10)
        tree = ProcessTree(10, proc.root)
        true, last = 0, 0
        for turn in range(data.draw(st.integers(1, 6))):
            for _ in range(data.draw(st.integers(0, 5))):
                pid = data.draw(st.sampled_from(sorted(alive)))
                parent, own, reaped = alive[pid]
                match data.draw(st.sampled_from(["work", "fork", "die", "die alone"])):
                    case "work":
                        work = data.draw(st.integers(1, 1000))
                        true += work
                        alive[pid] = (parent, own + work, reaped)
                        proc.put(pid, parent, own + work, reaped)
                    case "fork":
                        child = 20 + turn * 10 + len(alive)
                        if child not in alive and not (proc.root / str(child)).exists():
                            alive[child] = (pid, 0, 0)
                            proc.put(child, pid, start=200 + turn * 10 + len(alive))
                    case death if pid != 10:
                        del alive[pid]
                        proc.kill(pid)
                        if death == "die" and parent in alive:
                            p, o, r = alive[parent]
                            alive[parent] = (p, o, r + own + reaped)
                            proc.put(parent, *alive[parent])
            now = ticks(tree)
            assert last <= now <= true
            last = now


BURN = "import os\nwhile sum(os.times()[:2]) < {seconds}: pass\n"


def test_real_children_are_counted_once_whether_they_live_or_have_ended() -> None:
    # Two short-lived children, one after the other, and half as much by the parent itself.
    script = (
        "import os, subprocess, sys, time\n"
        f"burn = {BURN.format(seconds=0.2)!r}\n"
        "for _ in range(2): subprocess.run([sys.executable, '-c', burn], check=True)\n"
        f"{BURN.format(seconds=0.2)}"
        "print('done', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    with process, process.stdin:
        tree = ProcessTree(process.pid)
        assert process.stdout.readline() == b"done\n"
        used_s = tree.cpu_s()
        assert tree.alive()
        assert 0.55 < used_s < 1.2
        assert uid_of(process.pid) == os.getuid()
    assert not tree.alive()
    assert tree.cpu_s() >= used_s


def test_a_tree_without_the_kernels_lists_of_children_is_found_by_a_scan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        try:
            monkeypatch.setattr(Path, "exists", lambda _: False)
            assert child.pid in ProcessTree(os.getpid(), sweep_every=1).pids()
        finally:
            child.send_signal(signal.SIGKILL)


def test_a_tree_whose_root_is_gone_scans_nothing(proc: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(pid: int) -> None:
        raise psutil.NoSuchProcess(pid)

    monkeypatch.setattr(psutil, "Process", gone)
    (proc.root / "10/task/10/children").unlink()

    assert ProcessTree(10, proc.root).pids() == {10}


def test_a_process_knows_when_it_started() -> None:
    now = SystemClock().now()
    tree = ProcessTree(os.getpid())

    assert not tree.started_after(now)
    assert tree.started_after(now.after(-3600 * 24 * 365))


def test_a_boot_has_an_id(tmp_path: Path) -> None:
    assert len(boot_id()) == 36
    assert boot_id(tmp_path) == ""
