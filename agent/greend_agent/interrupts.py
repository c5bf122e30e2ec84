"""Stand around the calls of a module: to make one again, and to notice an interrupt.

torch calls the hooks of a call that raised, but they cannot make it again; and for Ctrl-C it calls none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from greend_agent.compiling import IN_PLACE
from greend_agent.hook import Hook


class Interrupts:
    """Calls a hook, with None for the output, when a call of a module ends by an interrupt or an exit.

    `make` gets what makes the call, and returns what the call is to return.
    """

    def __init__(self, module: nn.Module, hook: Hook, make: Callable[[Callable[[], Any]], Any]) -> None:
        self._module, self._hook, self._make = module, hook, make
        if getattr(module, IN_PLACE, None) is None:
            setattr(module, IN_PLACE, self)

    def remove(self) -> None:
        """Look no longer."""
        if vars(self._module).get(IN_PLACE) is self:
            delattr(self._module, IN_PLACE)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module as it would be called."""
        try:
            return self._make(functools.partial(self._module._call_impl, *args, **kwargs))
        except Exception:
            raise
        except BaseException:
            self._hook(self._module, args, None)
            raise
