"""Two processes that train one model: they live as long as the tests, and run what they are given."""

from __future__ import annotations

import logging
import multiprocessing
import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

RANKS = 2
PATIENCE_S = 90.0


class Pair:
    """Two ranks with gloo; a rank that raises, or never answers, is a failed test and not a hanging one."""

    def __init__(self, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._ends: list[Connection] = []
        self._processes = []
        for rank in range(RANKS):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, folder, theirs), daemon=True)
            process.start()
            self._ends.append(ours)
            self._processes.append(process)

    def __call__(self, function: Callable[..., Any], *args: Any, survivors: int = RANKS) -> list[Any]:
        """Run a function of a module on both ranks, and return what it returns on each that survives it."""
        for end in self._ends:
            end.send((function, args))
        answers = []
        for rank, end in enumerate(self._ends[:survivors]):
            if not end.poll(PATIENCE_S):
                self.close()
                raise AssertionError(f"rank {rank} did not answer in {PATIENCE_S} s")
            answers.append(end.recv())
        failures = [answer for failed, answer in answers if failed]
        if failures:
            self.close()
            raise AssertionError("\n".join(failures))
        return [answer for _, answer in answers]

    @property
    def alive(self) -> bool:
        return all(process.is_alive() for process in self._processes)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


_PAIRS = pytest.StashKey[list[Pair]]()


def shared(config: pytest.Config, folders: pytest.TempPathFactory) -> Callable[..., list[Any]]:
    """Return what runs a function on two ranks: the same for all modules, as wrapping a model imports for
    seconds; new ones where a test has broken them."""
    if _PAIRS not in config.stash:
        config.stash[_PAIRS] = []
        config.add_cleanup(lambda: [pair.close() for pair in config.stash[_PAIRS]])
    found = config.stash[_PAIRS]

    def run(function: Callable[..., Any], *args: Any, **options: int) -> list[Any]:
        if found and not found[0].alive:
            found.pop().close()
        if not found:
            found.append(Pair(folders.mktemp("ranks")))
        return found[0](function, *args, **options)

    return run


def _serve(rank: int, folder: Path, end: Connection) -> None:
    os.environ["GREEND_SOCKET"] = str(folder / "nobody.sock")
    os.environ.pop("GREEND_JOB_ID", None)
    logging.getLogger("greend").setLevel(logging.CRITICAL)
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'ranks'}",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=PATIENCE_S / 2),
    )
    while True:
        try:
            function, args = end.recv()
        except EOFError:
            return
        try:
            end.send((False, function(rank, *args)))
        except BaseException:
            end.send((True, f"rank {rank}: {traceback.format_exc()}"))
