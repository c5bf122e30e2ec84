"""What torch.compile has made of a module, and how to go round it."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

IN_PLACE = "_compiled_call_impl"
"""What `module.compile()` sets, and a call of the module looks for; private to torch, it may be missing.

What else is put there stands around the call, and is the one thing of its kind that no copy, pickle or
signature of the module shows.
"""


def original(model: nn.Module) -> nn.Module:
    """Return the module inside what `torch.compile(module)` returned; any other as it is."""
    inner: Any = model
    while type(inner).__name__ == "OptimizedModule":
        inner = inner._orig_mod
    found: nn.Module = inner
    return found


def is_compiled(module: nn.Module) -> bool:
    """Whether a call of the module, not of something in it, runs compiled."""
    return original(module) is not module or getattr(module, IN_PLACE, None) is not None


def is_loaded() -> bool:
    """Whether anything in this process can have been compiled; torch loads its compiler when it is used."""
    return "torch._dynamo" in sys.modules


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """Inside, nothing that is called runs compiled, nor is compiled."""
    stance: Any = getattr(torch.compiler, "set_stance", None)
    if not is_loaded() or stance is None:
        yield
        return
    with stance("force_eager"), warnings.catch_warnings():
        # That counting FLOPs, which takes a global hook, sees a wrapper and what is in it.
        warnings.filterwarnings("ignore", "Using `torch.compile")
        yield
