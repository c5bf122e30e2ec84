import shutil

import pytest

from greend.store.engine import Store


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A current database without data, to copy: a migration takes 50 ms, a copy none."""
    path = tmp_path_factory.mktemp("store") / "empty.db"
    Store.open(path).close()
    return path


@pytest.fixture
def path(tmp_path, empty_database):
    return shutil.copy(empty_database, tmp_path / "greend.db")


@pytest.fixture
def store(path):
    with Store.open(path) as store:
        yield store
