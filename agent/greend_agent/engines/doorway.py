"""Stands where a compiled call begins: what is done there is not in the graph, nor a guard of it."""

from __future__ import annotations

from typing import Any

from torch import nn

from greend_agent.hook import Hook


class Doorway:
    """Takes the place of what a module calls when it is called, and calls that.

    A hook on a module that was compiled in place is traced with it, and never called. A wrapper's hooks are
    called, but cannot try again. Both kinds get the same door.
    """

    def __init__(self, module: nn.Module, name: str, before: Hook) -> None:
        self._module, self._name, self._before = module, name, before
        self.inside = getattr(module, name)
        """What was there."""
        self.after: Hook | None = None
        """Called at the end, with None for the output when the call has raised."""
        self.used = False
        """Whether it has been called."""
        self.lowered = False
        """Whether the call is made at a level below the top."""
        self.failed: str | None = None
        """Why a lower level could not be compiled."""
        setattr(module, name, self)

    def remove(self) -> None:
        """Put back what was there; if something else is there by now, that stays."""
        if vars(self._module).get(self._name) is self:
            setattr(self._module, self._name, self.inside)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call what is inside; once more, with the model at full, where a level could not be compiled."""
        self.used = True
        self._before(self._module, args, kwargs)
        try:
            output = self.inside(*args, **kwargs)
        except BaseException as error:
            if self.after is not None:
                self.after(self._module, args, None)
            if not self.lowered or not _is_of_compiler(error):
                raise
            why = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        else:
            if self.after is not None:
                self.after(self._module, args, output)
            return output
        self.lowered = False
        output = self.inside(*args, **kwargs)
        self.failed = why  # not before: what does not compile at full either is not our doing
        return output


def _is_of_compiler(error: BaseException) -> bool:
    # Raised before anything of the model has run, so that the call can be made again.
    modules = [kind.__module__ for kind in type(error).__mro__]
    return any(module.startswith(("torch._dynamo.", "torch._inductor.")) for module in modules)
