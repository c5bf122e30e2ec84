"""The undo record: what a control stood at before it was turned, on disk before the device is touched."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
from pathlib import Path

import msgspec

from greend.errors import GreendError, PermissionDenied

log = logging.getLogger("greend.actuator")

FILE = "ledger.json"


class Undo(msgspec.Struct, frozen=True):
    """One control that is not as it was."""

    control: str
    previous: str
    """What is put back, in the device's own words."""
    ours: str
    """What we asked for; once settled, what the device made of it."""
    settled: bool
    """False: the device was about to be turned, and may stand at either."""
    pid: int
    uid: int
    reason: str
    at_wall_ns: int


class _Page(msgspec.Struct, frozen=True):
    boot: str
    undo: list[Undo]


class Ledger:
    """The undo records in a folder of root's own; one actuator at a time.

    Each change is a whole new file, flushed to disk and renamed over the old one. Raises PermissionDenied for
    a folder or file that somebody else could have written (or linked elsewhere), and GreendError when another
    actuator has it open.
    """

    def __init__(self, folder: Path, boot_id: str) -> None:
        self._boot = boot_id
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / FILE
        try:
            self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise PermissionDenied(
                f"open {folder}: {error.strerror}; it must be a folder, no link"
            ) from error
        try:
            _own(os.fstat(self._folder), folder)
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._undo = self._read()
        except BlockingIOError as error:
            os.close(self._folder)
            raise GreendError(f"open {folder}: another actuator uses it; stop that one first") from error
        except GreendError:
            os.close(self._folder)
            raise

    def entries(self) -> list[Undo]:
        """Return the records of this boot, oldest first."""
        return list(self._undo.values())

    def get(self, control: str) -> Undo | None:
        """Return the record of a control, if it is not as it was."""
        return self._undo.get(control)

    def put(self, undo: Undo) -> None:
        """Keep a record; on disk when this returns. Raises GreendError when it cannot be written."""
        self._write({**self._undo, undo.control: undo})

    def drop(self, control: str) -> None:
        """Forget a record: the control is as it was, or somebody else's."""
        if control in self._undo:
            self._write({name: undo for name, undo in self._undo.items() if name != control})

    def close(self) -> None:
        """Let another actuator have it."""
        os.close(self._folder)

    def _read(self) -> dict[str, Undo]:
        try:
            number = os.open(FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise PermissionDenied(
                f"open {self._path}: {error.strerror}; it must be a file, no link"
            ) from error
        with open(number, "rb") as file:  # noqa: PTH123 - opened below a folder that we hold
            _own(os.fstat(number), self._path)
            raw = file.read()
        try:
            page = msgspec.json.decode(raw, type=_Page)
        except msgspec.DecodeError:
            aside = f"{FILE}.damaged"
            os.rename(FILE, aside, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            log.error(
                "%s cannot be read and was moved to %s: limits may be left as they are", self._path, aside
            )
            return {}
        if page.boot != self._boot:
            # A reboot resets what we turn: NVML's limits are the driver's, RAPL's the firmware's, and
            # control groups are made anew.
            return {}
        return {undo.control: undo for undo in page.undo}

    def _write(self, undo: dict[str, Undo]) -> None:
        raw = msgspec.json.encode(_Page(self._boot, list(undo.values())))
        fresh = f"{FILE}.new"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh, dir_fd=self._folder)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            number = os.open(fresh, flags, 0o600, dir_fd=self._folder)
            with open(number, "wb") as file:  # noqa: PTH123 - as above
                file.write(raw)
                file.flush()
                os.fsync(number)
            os.rename(fresh, FILE, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            os.fsync(self._folder)
        except OSError as error:
            raise GreendError(
                f"write {self._path}: {error.strerror}; nothing is turned that could not be put back"
            ) from error
        self._undo = undo


def _own(status: os.stat_result, path: Path) -> None:
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
        raise PermissionDenied(
            f"open {path}: others could have written it: chown it to uid {os.geteuid()} and chmod go-w"
        )
