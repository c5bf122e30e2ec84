"""What `greend attach PID` has a running process do."""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer, optimizer
from torch.utils.hooks import RemovableHandle

from greend_agent import discover

_HOOKS = "_global_optimizer_post_hooks"


def arm(environment: Mapping[str, str]) -> None:
    """Have the next optimizer step of this process attach what it trains; `environment` says to which job.

    It may come at any instant, also while torch is walking its hooks: so they are not added to but
    replaced, which the walk does not see.
    """
    os.environ.update(environment)
    waiting = [True]

    def first_step(stepped: Optimizer, args: Any, kwargs: Any) -> None:
        if waiting and not torch.compiler.is_compiling():
            waiting.clear()
            discover.watch(stepped)

    before = getattr(optimizer, _HOOKS, None)
    if before is None:
        optimizer.register_optimizer_step_post_hook(first_step)
        return
    hooks = OrderedDict(before)
    hooks[RemovableHandle(hooks).id] = first_step
    setattr(optimizer, _HOOKS, hooks)
    sys.stderr.write("greend: attaches at the next optimizer step\n")
