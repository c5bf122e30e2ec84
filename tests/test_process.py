"""Whether a running process can be attached, and what is said when not."""

from __future__ import annotations

from pathlib import Path

import pytest

from greend.errors import NotSupported, PermissionDenied, UsageError
from greend.process import denied, look, refusal


def process(proc: Path, exe: str, words: str = "python train.py", maps: str = "", environ: str = "HOME=/me"):
    folder = proc / "7"
    folder.mkdir()
    (folder / "cmdline").write_bytes(words.replace(" ", "\0").encode() + b"\0")
    (folder / "exe").symlink_to(exe)
    (folder / "maps").write_text(maps)
    (folder / "environ").write_bytes(environ.replace(" ", "\0").encode() + b"\0")
    return look(7, proc)


@pytest.mark.parametrize(
    ("exe", "maps", "python"),
    [
        ("/usr/bin/python3.11", "", (3, 11)),
        ("/opt/conda/bin/python3.14", "00 r-xp /usr/lib/libpython3.11.so.1.0", (3, 14)),
        ("/opt/app/server", "00 r-xp /usr/lib/libpython3.12.so.1.0", (3, 12)),
        ("/usr/bin/sleep", "00 r-xp /usr/lib/libc.so.6", None),
    ],
)
def test_the_version_is_that_of_the_program_or_of_the_library_in_it(tmp_path, exe, maps, python):
    assert process(tmp_path, exe, maps=maps).python == python


def test_the_same_python_from_3_14_on_can_be_attached(tmp_path):
    assert refusal(process(tmp_path, "/usr/bin/python3.14"), (3, 14)) is None


@pytest.mark.parametrize(
    ("exe", "options", "said"),
    [
        ("/usr/bin/python3.11", {}, r"Python 3.11.*before 3.14.*`greend run -- python train.py` instead"),
        ("/usr/bin/python3.15", {}, r"runs Python 3.15 and greend 3.14.*python3.15 -m greend attach 7"),
        ("/usr/bin/sleep", {"words": "sleep 9"}, "not a Python process"),
        (
            "/usr/bin/python3.14",
            {"environ": "A=b PYTHON_DISABLE_REMOTE_DEBUG=1"},
            "PYTHON_DISABLE_REMOTE_DEBUG",
        ),
        ("/usr/bin/python3.14", {"words": "python -X disable-remote-debug t.py"}, "-X disable-remote-debug"),
    ],
)
def test_whatever_stands_in_the_way_is_said_with_what_to_do(tmp_path, exe, options, said):
    error = refusal(process(tmp_path, exe, **options), (3, 14))

    assert isinstance(error, NotSupported)
    assert error.exit_code == 5
    with pytest.raises(NotSupported, match=said):
        raise error


def test_a_number_that_no_process_has_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="there is none of that number"):
        look(8, tmp_path)


def test_a_system_that_forbids_it_is_named_with_its_setting(tmp_path):
    scope = tmp_path / "ptrace_scope"
    scope.write_text("1\n")

    assert isinstance(denied(7, scope), PermissionDenied)
    assert "ptrace_scope is 1" in str(denied(7, scope))
    assert "ptrace_scope is" not in str(denied(7, tmp_path / "none"))
