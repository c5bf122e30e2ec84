"""One daemon for one database: two would each write all the joules of the machine into it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from greend.errors import PermissionDenied, StoreError


class Instance:
    """The right to write to a database, for as long as this process lives or until it is given back.

    A lock on a file beside it: closing a second handle on the database itself would drop SQLite's own locks.
    The kernel gives it back whatever ends us.
    """

    def __init__(self, database: Path) -> None:
        """Take it; raises StoreError when another daemon has it, PermissionDenied."""
        path = database.with_name(f"{database.name}.lock")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except PermissionError as error:
            raise PermissionDenied(
                f"open {path}: permission denied; name another database with --db"
            ) from error
        except OSError as error:
            raise StoreError(f"open {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._handle, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._handle)
            raise StoreError(
                f"open {database}: another greend daemon (pid {holder}) writes to it; "
                "stop it, or name another database with --db"
            ) from None
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def give_back(self) -> None:
        """Let another daemon have it. The file stays: who unlinks it might unlink another's."""
        os.close(self._handle)
