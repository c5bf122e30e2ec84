"""Whether a model runs with a dial turned down, and returns what looks like what it returned before.

For dials that change what is computed, and not only how much of it is there: that the values are the
right ones cannot be proven of them, and need not be. That the training loop gets what it expects can.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import torch

from greend_agent.dial import Dial, spread
from greend_agent.plan.probe import Run, tensors_in
from greend_agent.windows.window import WindowSet


def turned_down(dial: Dial, count: int) -> contextlib.AbstractContextManager[None]:
    """Inside, the model has the dial at a position."""
    return all_turned_down([dial], [count])


@contextlib.contextmanager
def all_turned_down(dials: Sequence[Dial], counts: Sequence[int]) -> Iterator[None]:
    """Inside, the model has each dial at its position."""
    windows = WindowSet(spread(dials, [counts, [dial.full for dial in dials]]))
    windows.apply(0)
    try:
        yield
    finally:
        windows.restore()


def difference(run: Run, dial: Dial, counts: Iterable[int]) -> str | None:
    """Return how what the model returns at some positions differs in kind, in eval mode or in training."""
    usual = {training: tensors_in(run(training=training)) for training in (False, True)}
    for count in counts:
        for training, expected in usual.items():
            where = f"at {count} of {dial.full}{' in training' if training else ''}"
            try:
                with turned_down(dial, count):
                    actual = tensors_in(run(training=training))
            except Exception as error:
                return f"{where} it raises {said(error)}"
            if [(t.shape, t.dtype) for t in actual] != [(t.shape, t.dtype) for t in expected]:
                return f"{where} the model's output changes shape or type"
            if any(_finite(e) and not _finite(a) for a, e in zip(actual, expected, strict=True)):
                return f"{where} the model's output is not finite"
    return None


def said(error: Exception) -> str:
    """Return what was raised, in a line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"


def _finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())
