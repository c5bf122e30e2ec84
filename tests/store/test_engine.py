import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from greend.errors import DatabaseDamaged, PermissionDenied, StoreError
from greend.store.check import conservation, integrity
from greend.store.engine import Store
from greend.store.queries import total_energy
from greend.store.writes import write
from store.making import T0, put, share, shares


def joules(store):
    with store.read() as connection:
        return total_energy(connection, 0, T0 * 2).energy_j


@pytest.fixture
def nobody():
    """Run the test as a user who owns nothing; as an ordinary user, one is that already."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    yield
    os.seteuid(was)


@pytest.fixture
def folder():
    """A folder that everybody may enter, which pytest's is not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_new_history_is_its_owners_alone(tmp_path):
    path = tmp_path / "state" / "greend" / "greend.db"
    with Store.open(path) as store:
        put(store, shares((T0, share(1.0))))
        files = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert files == {"greend.db": 0o600, "greend.db-wal": 0o600, "greend.db-shm": 0o600}


def test_the_service_may_let_its_group_read(tmp_path):
    Store.open(tmp_path / "greend.db", mode=0o640).close()

    assert stat.S_IMODE((tmp_path / "greend.db").stat().st_mode) & 0o640 == 0o640


def test_what_a_power_cut_needs_is_switched_on(store):
    with store.write() as connection:
        pragma = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "journal_size_limit")
        }

    assert pragma == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "journal_size_limit": 4 << 20,
    }


def test_a_block_that_raises_leaves_nothing_and_the_next_one_works(store):
    with pytest.raises(ZeroDivisionError), store.write() as connection:
        write(connection, shares((T0, share(1.0, "job j-9"))))
        raise ZeroDivisionError
    assert joules(store) is None

    put(store, shares((T0, share(2.0, "job j-9"))))
    assert joules(store) == 2.0


def test_a_reader_sees_the_history_as_of_its_start_while_a_writer_writes(store):
    put(store, shares((T0, share(1.0))))
    with store.read() as connection:
        before = total_energy(connection, 0, T0 * 2).energy_j
        put(store, shares((T0, share(5.0))))
        after = total_energy(connection, 0, T0 * 2).energy_j

    assert (before, after, joules(store)) == (1.0, 1.0, 6.0)


def test_threads_write_one_after_the_other_and_lose_nothing(store):
    def run():
        for i in range(20):
            put(store, shares((T0 + i, share(1.0))))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert joules(store) == 80.0


def test_another_process_reads_while_the_daemon_writes_and_after_it_is_gone(path):
    with Store.open(path) as store:
        put(store, shares((T0, share(1.0))))
        with Store.read_only(path) as reader:
            put(store, shares((T0, share(2.0))))
            assert joules(reader) == 3.0
    with Store.read_only(path) as reader:
        assert joules(reader) == 3.0


def test_a_copy_of_the_file_can_be_read(path, tmp_path):
    with Store.open(path) as store:
        put(store, shares((T0, share(1.0))))
    (tmp_path / "elsewhere").mkdir()

    with Store.read_only(Path(shutil.copy(path, tmp_path / "elsewhere" / "a copy %3f?.db"))) as reader:
        assert joules(reader) == 1.0


def test_a_reader_writes_nothing(path):
    with Store.read_only(path) as reader:
        with pytest.raises(StoreError, match="opened to read"), reader.write():
            pass
        with pytest.raises(PermissionDenied, match="permission denied"), reader.read() as connection:
            connection.exec_driver_sql("DELETE FROM job")


def test_there_is_no_history_before_the_daemon_was_started(tmp_path):
    path = tmp_path / "greend.db"
    words = f"no history at {path} yet: start the daemon with `greend daemon`"
    with pytest.raises(StoreError) as error:
        Store.read_only(path)
    assert str(error.value) == words

    path.touch()
    with pytest.raises(StoreError) as error:
        Store.read_only(path)
    assert str(error.value) == words


@pytest.mark.parametrize("opening", [Store.open, Store.read_only])
def test_garbage_is_not_a_database_and_is_left_alone(tmp_path, opening):
    path = tmp_path / "greend.db"
    path.write_bytes(b"these are not the joules you are looking for" * 100)
    before = path.read_bytes()

    with pytest.raises(DatabaseDamaged, match=f"{path}: this is not an SQLite database; move it aside"):
        opening(path)
    assert path.read_bytes() == before


def test_a_damaged_page_is_named_as_such(path):
    with Store.open(path) as store:
        for i in range(20):
            put(store, shares(*((T0 + 60 * i + j, share(1.0)) for j in range(60))))
    content = bytearray(path.read_bytes())
    for page in range(3, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(content)

    with pytest.raises(DatabaseDamaged, match="damaged"), Store.read_only(path) as reader:
        joules(reader)


def test_a_lock_of_another_program_is_said_with_its_holder(path):
    with Store.open(path, busy_s=0.01) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=f"write history to {path}: database is locked: .* holds it"):
            put(store, shares((T0, share(1.0))))
        other.rollback()
        other.close()
        put(store, shares((T0, share(1.0))))

        assert joules(store) == 1.0


HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


def test_the_program_that_holds_the_lock_is_named(path):
    with (
        Store.open(path, busy_s=0.01) as store,
        subprocess.Popen(
            [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other,
    ):
        other.stdout.readline()
        with pytest.raises(StoreError, match=rf"locked: python\S* \(pid {other.pid}\) holds it"):
            put(store, shares((T0, share(1.0))))


def test_a_full_disk_is_said_and_nothing_is_lost(store):
    put(store, shares((T0, share(1.0))))
    with pytest.raises(StoreError, match="the disk is full"), store.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        connection.exec_driver_sql("INSERT INTO component VALUES (99, 'x', hex(zeroblob(100000)))")

    assert joules(store) == 1.0


def test_a_folder_that_cannot_be_is_said(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match=r"Not a directory|File exists"):
        Store.open(tmp_path / "file" / "greend.db")
    with pytest.raises(StoreError, match="this is a folder"):
        Store.read_only(tmp_path)


@pytest.mark.parametrize("opening", [Store.open, Store.read_only])
def test_a_file_of_somebody_else_is_denied(folder, empty_database, opening, request):
    path = Path(shutil.copy(empty_database, folder / "greend.db"))
    path.chmod(0)
    request.getfixturevalue("nobody")

    with pytest.raises(PermissionDenied, match=f"{path}: permission denied; run as"):
        opening(path)


@pytest.mark.parametrize("opening", [Store.open, Store.read_only])
def test_a_folder_of_somebody_else_is_denied(folder, empty_database, opening, request):
    path = Path(shutil.copy(empty_database, folder / "greend.db"))
    folder.chmod(0)
    request.getfixturevalue("nobody")

    with pytest.raises(PermissionDenied, match="permission denied"):
        opening(path)


def test_a_file_that_one_may_only_read_is_denied_to_the_daemon(folder, empty_database, request):
    path = Path(shutil.copy(empty_database, folder / "greend.db"))
    path.chmod(0o444)
    folder.chmod(0o555)
    request.getfixturevalue("nobody")

    with pytest.raises(PermissionDenied, match="permission denied"):
        Store.open(path)


def test_a_group_member_reads_in_a_folder_that_is_not_theirs(folder, empty_database, request):
    path = Path(shutil.copy(empty_database, folder / "greend.db"))
    with Store.open(path) as store:
        put(store, shares((T0, share(1.0))))
    path.chmod(0o444)
    folder.chmod(0o555)
    request.getfixturevalue("nobody")

    with Store.read_only(path) as reader:
        assert joules(reader) == 1.0


KILLED = """
import sys
from pathlib import Path
from store.making import T0, put, share, shares
from greend.store.engine import Store
from greend.store.writes import write
store = Store.open(Path(sys.argv[1]))
for i in range(30):
    put(store, shares((T0 + i, share(1.0))))
    print(i, flush=True)
with store.write() as connection:
    write(connection, shares(*((T0 + i, share(1000.0)) for i in range(5000))))
    print("in the middle", flush=True)
    sys.stdin.read()
"""


def test_kill_in_mid_transaction_loses_nothing_acknowledged(path):
    tests = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, path],
        env={**os.environ, "PYTHONPATH": str(tests)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        for line in writer.stdout:
            if line == "in the middle\n":
                break
        writer.kill()

    with Store.read_only(path) as reader, reader.read() as connection:
        assert total_energy(connection, 0, T0 * 2).energy_j == 30.0
    with Store.open(path) as store:
        put(store, shares((T0, share(1.0))))
        with store.read() as connection:
            assert integrity(connection) == []
            assert conservation(connection) == []
        assert joules(store) == 31.0
