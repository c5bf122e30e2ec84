"""A callable that is hung on the user's model, and does not go along when the model is copied or saved."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any


class Hook:
    """Calls its target. A copy or a pickle of it calls nothing.

    The copy is made of the standard library alone, so that a model saved with `torch.save(model)` loads
    where greend is not installed; an audit event that nobody listens to is its callable that takes
    anything and returns None.
    """

    def __init__(self, target: Callable[..., None]) -> None:
        self._target = target

    def __call__(self, *args: Any) -> None:
        """Call the target."""
        self._target(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial, (sys.audit, "greend_agent.copied")
