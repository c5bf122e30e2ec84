"""`Store`: the history file, with one writing transaction at a time and any number of reading ones."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import quote

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event

from greend.errors import StoreError
from greend.store import dimensions, migrate
from greend.store.failures import denied, in_words

JOURNAL_LIMIT_BYTES = 4 << 20
"""The write-ahead log is cut back to this after a checkpoint; without a limit it keeps its largest size."""


class Store:
    """The history in one SQLite file; open it with `Store.open` or `Store.read_only`."""

    def __init__(self, path: Path, reader: Engine, writer: Engine | None) -> None:
        self.path = path
        self._reader = reader
        self._writer = writer
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path, *, mode: int = 0o600, busy_s: float = 5.0) -> Store:
        """Open the file for the daemon, create it if need be, and bring its schema up to date.

        `mode` is the permission of a file that is created (less the umask); a folder that is created
        is its owner's alone. `busy_s` is how long to wait for another program's lock, in seconds.
        Raises PermissionDenied, DatabaseDamaged, DatabaseTooNew or StoreError.
        """
        path = path.absolute()
        writer = _writer(path, busy_s)
        try:
            with _alone(path, mode), in_words(path, "open"):
                with writer.connect() as connection:
                    # Read-only first: a file of a newer greend is not touched at all.
                    migrate.revision(connection, path)
                _use_wal(path, busy_s)
                with writer.begin() as connection:
                    migrate.upgrade(connection, path)
        except BaseException:
            writer.dispose()
            raise
        return cls(path, _reader(path, busy_s), writer)

    @classmethod
    def read_only(cls, path: Path, *, busy_s: float = 5.0) -> Store:
        """Open an existing history to ask it, whether or not a daemon runs.

        `busy_s` is how long to wait for another program's lock, in seconds. Raises StoreError when
        there is none yet or its schema is older than this code, PermissionDenied, DatabaseDamaged or
        DatabaseTooNew.
        """
        path = path.absolute()
        missing = StoreError(f"no history at {path} yet: start the daemon with `greend daemon`")
        try:
            if not path.exists():
                raise missing
            if path.is_dir():
                raise StoreError(f"read history from {path}: this is a folder; name the file in it")
        except PermissionError as error:
            raise denied(path, "read history from") from error
        reader = _reader(path, busy_s)
        try:
            with in_words(path, "read history from"), reader.connect() as connection:
                found = migrate.revision(connection, path)
            if found is None:
                raise missing
            if found != migrate.HEAD:
                raise StoreError(
                    f"read history from {path}: written by an older greend; "
                    "start the daemon once to bring it up to date"
                )
        except BaseException:
            reader.dispose()
            raise
        return cls(path, reader, None)

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that is on the disk when the block ends, or gone when it raises.

        Other threads wait for their turn; a transaction within a transaction of the same thread would
        wait for ever. Raises StoreError (locked, full, opened to read), PermissionDenied or
        DatabaseDamaged.
        """
        if self._writer is None:
            raise StoreError(f"write history to {self.path}: it was opened to read")
        with self._lock, in_words(self.path, "write history to"), self._writer.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view of the history, as of the start of the block; it never waits for a writer.

        Raises StoreError, PermissionDenied or DatabaseDamaged.
        """
        with in_words(self.path, "read history from"), self._reader.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close the file; the last one to close it folds the write-ahead log back into it."""
        self._reader.dispose()
        if self._writer is not None:
            with self._lock:
                self._writer.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _writer(path: Path, busy_s: float) -> Engine:
    def connect() -> sqlite3.Connection:
        connection = _connect(path, "mode=rw", busy_s)
        # FULL: a power cut with NORMAL lost 8 s of acknowledged commits, with FULL none (in QEMU).
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_LIMIT_BYTES}")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    # IMMEDIATE: take the write lock first. Python's own transactions begin only at the first
    # INSERT, which left a migration half-applied and made two starters fail with "database is locked".
    engine = _engine(connect, "BEGIN IMMEDIATE", pool_size=1)
    event.listen(engine, "rollback", dimensions.forget)
    return engine


def _reader(path: Path, busy_s: float) -> Engine:
    def connect() -> sqlite3.Connection:
        try:
            connection = _connect(path, "mode=ro", busy_s)
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            # In a folder that we may not write, SQLite cannot make the index of a log; where there is
            # no log either, nobody is writing and the file alone is the whole history.
            if os.access(path.parent, os.W_OK, effective_ids=True) or Path(f"{path}-wal").exists():
                raise
            connection = _connect(path, "mode=ro&immutable=1", busy_s)
        return connection

    return _engine(connect, "BEGIN", pool_size=2)


def _connect(path: Path, query: str, busy_s: float) -> sqlite3.Connection:
    # No implicit transactions (isolation_level=None): SQLAlchemy's events say when one begins.
    return sqlite3.connect(
        f"file:{quote(str(path))}?{query}",
        uri=True,
        timeout=busy_s,
        isolation_level=None,
        check_same_thread=False,
    )


def _engine(connect: object, begin: str, pool_size: int) -> Engine:
    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool, pool_size=pool_size)

    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "begin", start)
    return engine


@contextlib.contextmanager
def _alone(path: Path, mode: int) -> Iterator[None]:
    """Make the folder and the file, and let no other starter in meanwhile.

    The folder is locked, not the file: closing a second handle on an SQLite file would drop SQLite's
    own locks, and two programs that turn on the write-ahead log at once get "database is locked"
    whatever the timeout.
    """
    folder = path.parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode))
            yield
        finally:
            os.close(handle)
    except PermissionError as error:
        raise denied(path, "open") from error
    except OSError as error:
        raise StoreError(f"open {path}: {error.strerror}; check the folder {folder}") from error


def _use_wal(path: Path, busy_s: float) -> None:
    connection = _connect(path, "mode=rw", busy_s)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()
