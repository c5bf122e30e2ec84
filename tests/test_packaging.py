"""What is installed is what was tested: the wheel, from outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked as an installer would."""
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(wheel: Path, code: str, tmp_path: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(wheel)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def test_the_wheel_holds_the_three_packages_and_the_unit_and_nothing_else(wheel):
    names = {path.name for path in wheel.iterdir()}

    assert {n for n in names if not n.startswith("greend-")} == {
        "greend",
        "greend_agent",
        "greend_migrations",
    }
    assert len(list(wheel.glob("greend-*.data/data/share/greend/greend.service"))) == 1
    assert not list(wheel.rglob("test_*.py"))
    for package in ("greend", "greend_agent", "greend_migrations"):
        assert (wheel / package / "py.typed").exists()
    assert (wheel / "greend/energy/tables/default.toml").exists()
    assert (wheel / "greend_agent/shim/sitecustomize.py").exists()


def test_a_new_database_is_made_by_the_migrations_in_the_wheel(wheel, tmp_path):
    code = (
        "import greend_migrations, pathlib\n"
        "from greend.store.engine import Store\n"
        "store = Store.open(pathlib.Path('new.db'))\n"
        "with store.read() as connection:\n"
        "    print(connection.exec_driver_sql('select count(*) from job').scalar())\n"
        "print(greend_migrations.__file__)\n"
    )

    count, place = run(wheel, code, tmp_path).splitlines()

    assert count == "0"
    assert Path(place).is_relative_to(wheel)


def test_the_command_says_its_version(wheel, tmp_path):
    code = "import sys; from greend.cli import main; main(['--version'])"

    assert run(wheel, code, tmp_path).startswith("greend, version ")
