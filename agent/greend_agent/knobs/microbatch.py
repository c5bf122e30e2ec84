"""The batch in parts, one after the other, each computed again in the backward: less memory, more work.

Of what a forward keeps for its backward only one part's is there at a time (Chen et al., "Training Deep
Nets with Sublinear Memory Cost", arXiv 1604.06174, 2016). It costs a second forward, so a step takes a
third more FLOPs, not fewer: a ladder that aims at FLOPs has no use for it. With dropout the parts draw
other random numbers than the whole batch would; at the top nothing is drawn or changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from greend_agent.dial import Dial, Setting, Turned
from greend_agent.knobs.around import Around
from greend_agent.knobs.outputs import with_tensors
from greend_agent.plan.probe import Call, Run, tensors_in
from greend_agent.plan.trial import difference, said, turned_down

QUARTERS = 4
_TOLERANCE = 1e-4
_HALF_PRECISION = 2e-2


class _Parts(Around):
    """The forward of a model, part of the batch by part."""

    def __init__(self, inner: Callable[..., Any], dial: MicroBatch, count: int) -> None:
        super().__init__(inner)
        self._dial, self._count = dial, count

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        batched = (_at(args, kwargs, where) for where in self._dial.batched)
        sizes = {len(value) for value in batched if value is not None}
        size = max(sizes, default=0)
        part = -(-size * self._count // self._dial.full)
        if len(sizes) != 1 or part >= size:
            return self.inner(*args, **kwargs)
        outputs = [self._run(args, kwargs, start, part) for start in range(0, size, part)]
        parts = zip(*(tensors_in(output) for output in outputs), strict=True)
        return with_tensors(outputs[0], [torch.cat(tensors) for tensors in parts])

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any], start: int, part: int) -> Any:
        batched = self._dial.batched
        some = tuple(v[start : start + part] if i in batched else v for i, v in enumerate(args))
        named = {k: v[start : start + part] if k in batched else v for k, v in kwargs.items()}
        if not torch.is_grad_enabled():
            return self.inner(*some, **named)
        return checkpoint(self.inner, *some, use_reentrant=False, **named)


def _at(args: tuple[Any, ...], kwargs: dict[str, Any], where: int | str) -> Any:
    if isinstance(where, str):
        return kwargs.get(where)
    return args[where] if where < len(args) else None


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """The dial of the batch: how many quarters of it are computed at once."""

    name: str
    model: nn.Module
    batched: frozenset[int | str]
    """The numbers and keywords of the arguments that have the batch as their first dimension."""
    knob: str = "microbatch"
    full: int = QUARTERS
    parts: Collection[nn.Module] = ()
    """No module's work falls with it."""
    readers: tuple[nn.Module, ...] = ()

    def turned(self, count: int) -> Turned:
        """Return what is to be done to compute `count` quarters of the batch at once."""
        return Turned(settings=(Setting(self.model, "forward", _Parts(self.model.forward, self, count)),))

    def count(self, fraction: float, levels: int) -> int:
        """Return the nearest number of quarters; of memory, not of work."""
        return min(self.full, max(1, round(self.full * fraction)))

    def share(self, count: int, part: nn.Module) -> float:
        """Return how much of the *memory* for a part's activations remains; its FLOPs do not fall."""
        return count / self.full


def find(model: nn.Module, call: Call, run: Run) -> tuple[list[Dial], list[tuple[str, str]]]:
    """Return the dial where parts of a batch give what the whole gives, or why there is none."""
    arguments: list[tuple[int | str, object]] = [*enumerate(call.args), *call.kwargs.items()]
    given = {w: value for w, value in arguments if isinstance(value, torch.Tensor) and value.dim() > 0}
    size = len(next(iter(given.values()))) if given else 0
    dial = MicroBatch("batch", model, frozenset(w for w, v in given.items() if len(v) == size))
    whole = Run(model, call)  # of two samples it could not be told what is the batch
    reason = _unfit(model, whole, size) or _unequal(model, whole, dial) or difference(whole, dial, (1, 2, 3))
    return ([], [("microbatch", reason)]) if reason is not None else ([dial], [])


def _unfit(model: nn.Module, run: Run, size: int) -> str | None:
    if size < 2:
        return "there is no batch to be divided: it is called with a single sample, or no tensor"
    if any(isinstance(m, _BatchNorm) for m in model.modules()):
        return "it has batch norm, whose statistics are those of the whole batch"
    if any(t.dim() == 0 or len(t) != size for t in tensors_in(run())):
        return "an output does not have the batch as its first dimension (a loss, a mean over samples)"
    return None


def _unequal(model: nn.Module, run: Run, dial: MicroBatch) -> str | None:
    """How parts differ from the whole, in value; in training where it draws no random numbers."""
    before = _random_state()
    buffers = [b.detach().clone() for b in model.buffers()]
    drawn = changed = False

    def note(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal drawn, changed
        drawn = not torch.equal(_random_state(), before)
        changed = not all(map(torch.equal, model.buffers(), buffers))

    for training in (False, True):
        handle = model.register_forward_hook(note)
        try:
            expected = tensors_in(run(training=training))
        finally:
            handle.remove()
        if changed:
            return "its buffers change as it runs, once for each part instead of once"
        if training and drawn:
            return None
        try:
            with turned_down(dial, 1):
                actual = tensors_in(run(training=training))
        except Exception as error:
            return f"in parts it raises {said(error)}"
        if len(actual) != len(expected) or not all(map(_close, actual, expected)):
            return "a batch in parts gives other values than the whole"
    return None


def _random_state() -> torch.Tensor:
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states += torch.cuda.get_rng_state_all()
    return torch.cat(states)


def _close(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    if actual.shape != expected.shape:
        return False
    if not expected.is_floating_point() or not expected.numel():
        return torch.equal(actual, expected)
    tolerance = _HALF_PRECISION if expected.dtype in (torch.float16, torch.bfloat16) else _TOLERANCE
    actual, expected = actual.detach(), expected.detach()
    return float((actual - expected).abs().max()) <= tolerance * float(expected.abs().max())
