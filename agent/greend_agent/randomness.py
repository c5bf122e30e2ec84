"""Random numbers are afterwards as they were, whichever generator was asked for some."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator, Sequence

import torch


@contextlib.contextmanager
def random_numbers_kept(devices: Sequence[torch.device | int] = (), kind: str = "cuda") -> Iterator[None]:
    """Put back what Python's, NumPy's and torch's generators are at, torch's also on devices of a kind."""
    python, numpy = random.getstate(), sys.modules.get("numpy")
    before = numpy.random.get_state() if numpy is not None else None
    with torch.random.fork_rng(list(devices), device_type=kind):
        try:
            yield
        finally:
            random.setstate(python)
            if numpy is not None and before is not None:
                numpy.random.set_state(before)
