"""A running process, as far as attaching to it goes: whose Python it is, and what stands in the way."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from greend.errors import GreendError, NotSupported, PermissionDenied, UsageError

FIRST_VERSION = (3, 14)
"""The first Python that another process can ask to run a script at its next safe point (PEP 768)."""

_PYTHON = re.compile(r"python(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Process:
    """What /proc says about a process."""

    pid: int
    words: tuple[str, ...]
    """Its command line."""
    python: tuple[int, int] | None
    """The version of its Python; None when it is no Python, or cannot be told to be one."""
    closed: str | None
    """The setting by which it has forbidden to be attached; None without one."""


def look(pid: int, proc: Path = Path("/proc")) -> Process:
    """Return what is known about a process.

    Raises UsageError when there is none of that number, and PermissionDenied when it is somebody else's.
    """
    folder = proc / str(pid)
    try:
        words = tuple(w.decode(errors="replace") for w in (folder / "cmdline").read_bytes().split(b"\0") if w)
        program, maps = str((folder / "exe").readlink()), (folder / "maps").read_text(errors="replace")
        environment = (folder / "environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError) as error:
        raise UsageError(f"attach to process {pid}: there is none of that number") from error
    except PermissionError as error:
        raise PermissionDenied(
            f"attach to process {pid}: it is another user's: run `greend attach` as that user, or as root"
        ) from error
    # The program's own name first: a process may have mapped the library of another Python too.
    found = _PYTHON.search(program.rsplit("/", 1)[-1]) or _PYTHON.search(maps)
    python = (int(found[1]), int(found[2])) if found is not None else None
    closed = None
    if any(v.startswith(b"PYTHON_DISABLE_REMOTE_DEBUG=") and not v.endswith(b"=") for v in environment):
        closed = "PYTHON_DISABLE_REMOTE_DEBUG in its environment"
    elif "disable-remote-debug" in words or "-Xdisable-remote-debug" in words:
        closed = "-X disable-remote-debug on its command line"
    return Process(pid, words, python, closed)


def refusal(process: Process, own: tuple[int, int]) -> GreendError | None:
    """Return why a process cannot be attached by a Python of version `own`, and what to do; None when it can.

    A Python asks only its like: the layout of what is written into the other process is its version's.
    """
    what = f"attach to process {process.pid}: "
    anew = f"start it as `greend run -- {shlex.join(process.words)}` instead"
    if process.python is None:
        return NotSupported(f"{what}it is not a Python process that this machine knows ({process.words[:1]})")
    version = "{}.{}".format(*process.python)
    if process.python < FIRST_VERSION:
        return NotSupported(
            f"{what}it runs Python {version}, and none before 3.14 can be asked to do anything as it runs; "
            f"{anew}"
        )
    if process.closed is not None:
        return NotSupported(f"{what}it may not be attached, by {process.closed}; {anew}")
    if process.python != own:
        return NotSupported(
            f"{what}it runs Python {version} and greend {own[0]}.{own[1]}, and only the same version can ask "
            f"it: install greend there too, and use `python{version} -m greend attach {process.pid}`"
        )
    return None


def denied(pid: int, scope: Path = Path("/proc/sys/kernel/yama/ptrace_scope")) -> PermissionDenied:
    """Return what to say when the system does not let one process write into another of the same user."""
    try:
        value = scope.read_text().strip()
    except OSError:
        value = "0"
    why = f" ({scope} is {value})" if value != "0" else ""
    return PermissionDenied(
        f"attach to process {pid}: this system lets no process write into another{why}: run it as root, or "
        "give greend CAP_SYS_PTRACE"
    )
