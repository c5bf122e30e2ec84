"""What SQLite says, in one line that a person can act on."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from greend.errors import DatabaseDamaged, PermissionDenied, StoreError


@contextlib.contextmanager
def in_words(path: Path, doing: str) -> Iterator[None]:
    """Turn what the database raises inside into errors of `greend.errors`.

    `doing` is a verb phrase that `path` completes: `write history to`. Raises PermissionDenied,
    DatabaseDamaged or StoreError, each chained to its cause.
    """
    try:
        yield
    except DBAPIError as error:
        raise explain(path, doing, error.orig) from error
    except sqlite3.Error as error:
        raise explain(path, doing, error) from error


def explain(path: Path, doing: str, error: BaseException | None) -> StoreError | PermissionDenied:
    """Return the error to raise for one of sqlite3's, with what was done, to what, why and the fix."""
    # The name has a suffix for the special case: SQLITE_BUSY_SNAPSHOT, SQLITE_IOERR_SHORT_READ.
    name = getattr(error, "sqlite_errorname", "")
    start = f"{doing} {path}: "

    def said(*names: str) -> bool:
        return any(name == n or name.startswith(n + "_") for n in names)

    if said("SQLITE_NOTADB"):
        return DatabaseDamaged(
            f"{start}this is not an SQLite database; move it aside, and the daemon starts a new one"
        )
    if said("SQLITE_CORRUPT") or name == "SQLITE_IOERR_SHORT_READ":
        return DatabaseDamaged(
            f"{start}the database is damaged ({error}); move it aside, and the daemon starts a new one"
        )
    if said("SQLITE_BUSY", "SQLITE_LOCKED"):
        return StoreError(
            f"{start}database is locked: {holder(path) or 'another program'} holds it; "
            "try again, or end that program"
        )
    if said("SQLITE_FULL") or "disk is full" in str(error):
        return StoreError(f"{start}the disk is full; free some space, nothing written so far is lost")
    if said("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH") or _denied(path):
        return denied(path, doing)
    if said("SQLITE_CANTOPEN"):
        return StoreError(f"{start}the file cannot be opened; check that it is a file in an existing folder")
    return StoreError(f"{start}{error}")


def denied(path: Path, doing: str) -> PermissionDenied:
    """Return the error for a file or a folder that is not ours to read or write."""
    return PermissionDenied(
        f"{doing} {path}: permission denied; run as the file's owner, or as a member of its group"
    )


def _denied(path: Path) -> bool:
    try:
        return path.exists() and not os.access(path, os.R_OK, effective_ids=True)
    except PermissionError:
        return True


def holder(path: Path) -> str | None:
    """Say which other process holds a lock on the database, e.g. `datasette (pid 4711)`; None: unknown."""
    try:
        inodes = {str(p.stat().st_ino) for p in (path, Path(f"{path}-shm")) if p.exists()}
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    # "1: POSIX  ADVISORY  WRITE 4711 fe:00:131090 120 120": a write lock, its process, device:inode, bytes.
    for words in (line.split() for line in lines):
        if len(words) < 6 or words[3] != "WRITE" or words[5].rpartition(":")[2] not in inodes:
            continue
        if words[4] == str(os.getpid()):
            return "another thread of this process"
        with contextlib.suppress(OSError):
            return f"{Path('/proc', words[4], 'comm').read_text().strip()} (pid {words[4]})"
    return None
