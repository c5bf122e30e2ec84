"""The undo record outlives the actuator, and nobody else writes it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from greend.actuator.ledger import FILE, Ledger, Undo
from greend.errors import GreendError, PermissionDenied

GPU = Undo("nvml:GPU-1", "300000", "200000", True, 4711, 990, "cap of job a", 1)
CPU = Undo("rapl:package-0:long_term", "125 1", "60 1", False, 4711, 990, "", 2)


def test_what_was_written_down_is_known_to_the_next_actuator_of_the_same_boot(tmp_path: Path):
    first = Ledger(tmp_path / "state", "boot a")
    first.put(GPU)
    first.put(CPU)
    first.drop(GPU.control)
    first.close()

    same = Ledger(tmp_path / "state", "boot a")
    assert same.entries() == [CPU]
    same.close()
    after = Ledger(tmp_path / "state", "boot b")
    assert after.entries() == []  # the reboot has reset the hardware
    after.close()


def test_only_root_can_read_or_write_it(tmp_path: Path):
    ledger = Ledger(tmp_path / "state", "boot")
    ledger.put(GPU)

    assert stat.S_IMODE((tmp_path / "state" / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert [path.name for path in (tmp_path / "state").iterdir()] == [FILE]
    ledger.close()


def test_a_second_actuator_is_refused(tmp_path: Path):
    first = Ledger(tmp_path, "boot")

    with pytest.raises(GreendError, match="another actuator uses it"):
        Ledger(tmp_path, "boot")
    first.close()


def test_a_folder_or_file_that_is_a_link_is_refused(tmp_path: Path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(PermissionDenied, match="no link"):
        Ledger(tmp_path / "link", "boot")

    (tmp_path / "elsewhere").write_text("{}")
    (tmp_path / "real" / FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionDenied, match="no link"):
        Ledger(tmp_path / "real", "boot")


def test_a_link_in_the_way_of_the_new_file_is_removed_and_not_followed(tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    ledger = Ledger(tmp_path / "state", "boot")
    (tmp_path / "state" / f"{FILE}.new").symlink_to(victim)
    ledger.put(GPU)

    assert victim.read_text() == "mine"
    ledger.close()


@pytest.mark.parametrize("loose", ["folder", "file"])
def test_what_others_could_have_written_is_not_believed(tmp_path: Path, loose: str):
    folder = tmp_path / "state"
    ledger = Ledger(folder, "boot")
    ledger.put(GPU)
    ledger.close()
    (folder if loose == "folder" else folder / FILE).chmod(0o777)

    with pytest.raises(PermissionDenied, match="others could have written it"):
        Ledger(folder, "boot")


def test_a_damaged_record_is_kept_aside(tmp_path: Path):
    tmp_path.chmod(0o700)
    (tmp_path / FILE).write_text("{half")
    (tmp_path / FILE).chmod(0o600)
    ledger = Ledger(tmp_path, "boot")

    assert ledger.entries() == []
    assert (tmp_path / f"{FILE}.damaged").read_text() == "{half"
    ledger.close()


def test_a_disk_that_is_full_leaves_the_last_record_and_says_so(tmp_path: Path, monkeypatch):
    ledger = Ledger(tmp_path, "boot")
    ledger.put(GPU)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("greend.actuator.ledger.os.fsync", full)
    with pytest.raises(GreendError, match="No space left on device; nothing is turned"):
        ledger.put(CPU)
    monkeypatch.undo()
    assert ledger.entries() == [GPU]
    ledger.close()
    again = Ledger(tmp_path, "boot")
    assert again.entries() == [GPU]
    again.close()
