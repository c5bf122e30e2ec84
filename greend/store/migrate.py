"""Brings an older file up to date, or refuses a newer one."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from greend.errors import DatabaseTooNew, StoreError

REVISIONS = ("0001", "0002")
"""Every revision of the schema, oldest first. A test holds it against the folder of migrations, so
that a start compares two strings: importing Alembic costs 0.35 s and 12 MB."""

HEAD = REVISIONS[-1]


def revision(connection: Connection, path: Path) -> str | None:
    """Return the revision of the schema in the file; None: the file is empty.

    Raises DatabaseTooNew for a revision that this code does not know, StoreError for a database of
    another program.
    """
    tables = set(connection.exec_driver_sql("SELECT name FROM sqlite_master").scalars())
    if "alembic_version" not in tables:
        if tables:
            raise StoreError(f"open {path}: this is another program's database; name a file of greend's")
        return None
    found: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if found is not None and found not in REVISIONS:
        raise DatabaseTooNew(
            f"open {path}: written by a newer greend (schema {found}, this one knows {HEAD}); update greend"
        )
    return found


def upgrade(connection: Connection, path: Path) -> bool:
    """Bring the schema to HEAD inside the open transaction; True: something was due.

    The transaction must be immediate: of several starters one migrates and the others find it done.
    Raises DatabaseTooNew, or StoreError for a database of another program.
    """
    if revision(connection, path) == HEAD:
        return False
    # Only now: see REVISIONS.
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    # Found through the import system, so that a wheel, a zip and a checkout all work.
    config.set_main_option("script_location", "greend_migrations:")
    config.set_main_option("path_separator", "os")
    command.upgrade(config, "head")
    return True
