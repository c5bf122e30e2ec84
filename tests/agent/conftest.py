"""No daemon, one thread: what is tested here is exact."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Point the agent at a socket where nobody listens, and compute on one thread."""
    monkeypatch.setenv("GREEND_SOCKET", str(tmp_path / "nobody.sock"))
    monkeypatch.delenv("GREEND_JOB_ID", raising=False)
    logging.getLogger("greend").setLevel(logging.ERROR)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    logging.getLogger("greend").setLevel(logging.NOTSET)
