"""A child process that waits before it becomes the user's command."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from greend.errors import GreendError

FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class CommandNotFound(GreendError):
    """There is no such program."""

    exit_code = 127


class CommandNotExecutable(GreendError):
    """The program is there and cannot be run."""

    exit_code = 126


@dataclass(frozen=True, slots=True)
class End:
    """How the command ended."""

    code: int
    """Its exit code, or 128 + n when signal n ended it, as a shell says it."""
    cpu_s: float
    """CPU seconds of it and of all descendants that were waited for."""


class Child:
    """Forked at once, so that its pid can be registered; becomes the command when told to `go`.

    Raises CommandNotFound or CommandNotExecutable before anything is started.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._program = _find(words[0])
        read_end, self._write_end = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._write_end)
            self._become(read_end)
        os.close(read_end)

    def go(self, environment: dict[str, str]) -> End:
        """Let the command start with these variables added, and wait for its end."""
        previous = {number: signal.signal(number, self._forward) for number in FORWARDED}
        # Ctrl-C reaches the whole foreground group by itself; we only have to outlive it.
        previous[signal.SIGINT] = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            with os.fdopen(self._write_end, "wb") as pipe:
                pipe.write(b"\0".join(f"{k}={v}".encode() for k, v in environment.items()) + b"\0go")
            _, status, usage = os.wait4(self.pid, 0)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        code = os.waitstatus_to_exitcode(status)
        return End(code if code >= 0 else 128 - code, usage.ru_utime + usage.ru_stime)

    def abandon(self) -> None:
        """End the child without ever starting the command."""
        os.close(self._write_end)
        os.waitpid(self.pid, 0)

    def _become(self, read_end: int) -> None:
        """Wait for the word, then be the command. Runs in the child and never returns."""
        try:
            with os.fdopen(read_end, "rb") as pipe:
                *variables, word = pipe.read().split(b"\0")
            if word != b"go":
                os._exit(0)
            environment = dict(os.environb)
            environment |= dict(v.split(b"=", 1) for v in variables if v)
            os.execve(self._program, list(self._words), environment)
        except OSError as error:
            os.write(2, f"greend: run {self._words[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(126)

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(self.pid, number)


def _find(word: str) -> str:
    program = shutil.which(word)
    if program is not None:
        return program
    if Path(word).exists() if "/" in word else any((Path(p) / word).exists() for p in os.get_exec_path()):
        raise CommandNotExecutable(f"run {word}: it is there but cannot be executed; check its mode")
    raise CommandNotFound(f"run {word}: command not found")
