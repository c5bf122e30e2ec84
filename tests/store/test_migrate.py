import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

import greend_migrations
from greend.errors import DatabaseTooNew, StoreError
from greend.store import jobs, migrate, schema
from greend.store.engine import Store
from greend.types import Decision, Limits

OPEN = """
import sys
from pathlib import Path
from greend.store.engine import Store
Store.open(Path(sys.argv[1])).close()
"""


def start(path, code=OPEN):
    return subprocess.Popen(
        [sys.executable, "-c", code, path], cwd=path.parent, stderr=subprocess.PIPE, text=True
    )


def shape(path):
    """Every table, column, index and WITHOUT ROWID, however the SQL is laid out."""
    connection = sqlite3.connect(path)
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = {}
    for name in names:
        sql = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", [name]).fetchone()[0]
        indexes = connection.execute(f"PRAGMA index_list({name})").fetchall()
        found[name] = {
            "columns": connection.execute(f"PRAGMA table_info({name})").fetchall(),
            "keys": sorted(connection.execute(f"PRAGMA foreign_key_list({name})").fetchall()),
            "indexes": sorted(
                (unique, origin, [c[2] for c in connection.execute(f"PRAGMA index_info({index})")])
                for _, index, unique, origin, _ in indexes
            ),
            "names": sorted(index for _, index, _, _, _ in indexes),
            "constraints": sorted(re.findall(r"CONSTRAINT (\w+)", sql)),
            "rowid": "WITHOUT ROWID" not in sql,
        }
    connection.close()
    found.pop("alembic_version", None)
    return found


def test_a_migrated_database_equals_one_made_from_the_schema(tmp_path, path):
    made = tmp_path / "made.db"
    engine = create_engine(f"sqlite:///{made}")
    schema.metadata.create_all(engine)
    engine.dispose()

    assert shape(path) == shape(made)
    assert set(shape(path)) == set(schema.metadata.tables)


def test_the_known_revisions_are_those_of_the_folder_in_order():
    files = sorted((Path(greend_migrations.__file__).parent / "versions").glob("*.py"))
    texts = [file.read_text() for file in files]

    assert all(file.stem.isidentifier() for file in files)
    assert [re.search(r'^revision = "(\w+)"', text, re.M)[1] for text in texts] == list(migrate.REVISIONS)
    downs = [re.search(r'^down_revision = (?:"(\w+)"|None)', text, re.M)[1] for text in texts]
    assert downs == [None, *migrate.REVISIONS[:-1]]


def test_three_starters_at_once_all_succeed_and_one_migrates(tmp_path):
    path = tmp_path / "new" / "greend.db"
    path.parent.mkdir()
    starters = [start(path) for _ in range(3)]

    assert [(starter.communicate()[1], starter.returncode) for starter in starters] == [("", 0)] * 3
    assert sqlite3.connect(path).execute("SELECT version_num FROM alembic_version").fetchall() == [
        (migrate.HEAD,)
    ]


def test_alembic_is_not_imported_when_the_schema_is_current(path):
    code = OPEN + "assert 'sqlalchemy' in sys.modules and 'alembic' not in sys.modules"
    starter = start(path, code)

    assert (starter.communicate()[1], starter.returncode) == ("", 0)


def test_a_migration_that_fails_leaves_nothing_and_can_be_tried_again(tmp_path, monkeypatch):
    import alembic.op

    path = tmp_path / "greend.db"

    def fail(*args, **kwargs):
        raise RuntimeError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr(alembic.op, "create_index", fail)
        with pytest.raises(RuntimeError, match="the power went"):
            Store.open(path)
    assert sqlite3.connect(path).execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)

    Store.open(path).close()
    assert set(shape(path)) == set(schema.metadata.tables)


@pytest.mark.parametrize("opening", [Store.open, Store.read_only])
def test_a_database_of_a_newer_greend_is_refused_and_left_alone(path, opening):
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0999'")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(DatabaseTooNew, match=f"{path}: written by a newer greend .*update greend"):
        opening(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("opening", [Store.open, Store.read_only])
def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path, opening):
    path = tmp_path / "places.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(StoreError, match="another program's database"):
        opening(path)
    assert path.read_bytes() == before


def test_an_older_database_opened_to_read_says_to_start_the_daemon(path, monkeypatch):
    monkeypatch.setattr(migrate, "REVISIONS", (*migrate.REVISIONS, "9999"))
    monkeypatch.setattr(migrate, "HEAD", "9999")

    with pytest.raises(StoreError, match="written by an older greend; start the daemon once"):
        Store.read_only(path)


def test_budgets_and_decisions_of_the_first_schema_are_kept(tmp_path):
    path = tmp_path / "greend.db"
    first_schema(path)
    with sqlite3.connect(path) as connection:
        words = (
            "INSERT INTO job (id, name, command, signature, uid, pid, started_wall_ns, budget_j, by_hand, "
        )
        words += "steps_done, costs, report) VALUES (?, 'n', '[]', 's', 1, 2, 3, ?, ?, 4, '[]', '[]')"
        connection.executemany(words, [("j-1", 3e4, 1), ("j-2", None, 0)])
        words = "INSERT INTO decision (job_id, at_wall_ns, at_step, level, reason, feasible, inputs) "
        connection.execute(words + "VALUES ('j-1', 5, 6, 2, 'the top', 1, '{}')")
    connection.close()

    with Store.open(path) as store, store.read() as connection:
        found = {summary.job.id: summary.job for summary in jobs.jobs(connection)}
        decisions = jobs.decisions(connection, "j-1")

    assert {id: job.limits for id, job in found.items()} == {"j-1": Limits(energy_j=3e4), "j-2": Limits()}
    assert (found["j-1"].by_hand, found["j-1"].budget_j, found["j-2"].by_hand) == (True, 3e4, False)
    assert decisions == [Decision(2, "the top", 5, 6)]


def first_schema(path):
    """Make a database as the first greend did."""
    config = Config()
    config.set_main_option("script_location", "greend_migrations:")
    config.set_main_option("path_separator", "os")
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
