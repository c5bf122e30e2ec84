"""Half precision by autocast, where it is measured to be faster on this machine, for this model.

It is not everywhere: a processor without instructions for bfloat16 takes several times as long as in single
precision. Weights, gradients and outputs keep their types.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from greend_agent.dial import Dial, Setting, Turned
from greend_agent.knobs.around import Around
from greend_agent.knobs.outputs import with_tensors
from greend_agent.plan.probe import Call, Run, tensors_in
from greend_agent.plan.trial import difference, said, turned_down

Clock = Callable[[], float]

WORTH_IT = 0.95
"""Of the time in single precision: what is nearer is not worth fewer digits."""
ROUNDS = 3


class _Half(Around):
    """The forward of a model under autocast."""

    def __init__(self, inner: Callable[..., Any], device: str, dtypes: tuple[torch.dtype, ...]) -> None:
        super().__init__(inner)
        self._device, self._dtypes = device, dtypes

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.is_autocast_enabled(self._device):  # the user's own
            return self.inner(*args, **kwargs)
        with torch.autocast(self._device, torch.bfloat16):
            output = self.inner(*args, **kwargs)
        tensors = tensors_in(output)
        dtypes = self._dtypes if len(self._dtypes) == len(tensors) else [torch.float32] * len(tensors)
        return with_tensors(
            output,
            [t.to(d) if t.dtype == torch.bfloat16 else t for t, d in zip(tensors, dtypes, strict=True)],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Precision:
    """The dial with two positions: bfloat16, and the model as it is."""

    name: str
    model: nn.Module
    device: str
    dtypes: tuple[torch.dtype, ...]
    """Of the outputs, as the untouched model gives them."""
    ratio: float = 1.0
    """Time of a forward and backward in bfloat16, measured, relative to that of the untouched model."""
    knob: str = "precision"
    full: int = 2
    readers: tuple[nn.Module, ...] = ()

    @property
    def parts(self) -> Collection[nn.Module]:
        """The modules whose work falls with it."""
        return list(self.model.modules())

    def turned(self, count: int) -> Turned:
        """Return what is to be done for half precision."""
        half = _Half(self.model.forward, self.device, self.dtypes)
        return Turned(settings=(Setting(self.model, "forward", half),))

    def count(self, fraction: float, levels: int) -> int:
        """Return half precision for anything below the top: it is the least that can be given up."""
        return 1 if fraction < 1 else 2

    def share(self, count: int, part: nn.Module) -> float:
        """Return the time that remains, of which the FLOPs know nothing: as measured."""
        return self.ratio if count < self.full else 1.0


def find(
    model: nn.Module, call: Call, run: Run, *, clock: Clock = time.perf_counter
) -> tuple[list[Dial], list[tuple[str, str]]]:
    """Return the dial where bfloat16 is faster, or why it is not used. `clock` counts seconds."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    reason = _unfit(model, device)
    if reason is None:
        dtypes = tuple(t.dtype for t in tensors_in(run(training=True)))
        dial = Precision("forward", model, device.type, dtypes)
        reason = difference(run, dial, (1,))
    if reason is None:
        try:
            # With the whole batch, as what is faster depends on how much there is to do.
            ratio = _ratio(model, Run(model, call), dial, device, clock)
        except Exception as error:
            reason = f"a backward through it raises {said(error)}"
        else:
            if ratio <= WORTH_IT:
                return [Precision("forward", model, device.type, dtypes, ratio)], []
            reason = f"bfloat16 takes {ratio:.2f} times as long here as single precision"
    return [], [("precision", reason)]


def _unfit(model: nn.Module, device: torch.device) -> str | None:
    if any(p.dtype != torch.float32 for p in model.parameters()):
        return "its parameters are not all in single precision"
    if not torch.amp.is_autocast_available(device.type):
        return f"there is no autocast for {device.type}"
    # Measuring runs backwards, and whoever hung these on expects a real one.
    if any(p._backward_hooks for p in model.parameters()) or any(
        m._backward_hooks or m._backward_pre_hooks for m in model.modules()
    ):
        return "it has hooks on its gradients, which measuring would call"
    return None


def _ratio(model: nn.Module, run: Run, dial: Precision, device: torch.device, clock: Clock) -> float:
    """Return the median over some rounds of the time in half precision relative to that of the same round."""
    params = [p for p in model.parameters() if p.requires_grad]
    begun = ended = 0.0

    def begin(module: nn.Module, args: Any) -> None:
        nonlocal begun
        wait()
        begun = clock()

    def end(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal ended
        outputs = [t.float().sum() for t in tensors_in(output) if t.requires_grad]
        # `grad` rather than `backward`: the user's gradients stay as they are.
        torch.autograd.grad(torch.stack(outputs).sum(), params, allow_unused=True)
        wait()
        ended = clock()

    def wait() -> None:
        if device.type != "cpu":
            torch.get_device_module(device).synchronize()

    def seconds() -> float:
        run(training=True)
        return ended - begun

    handles = [model.register_forward_pre_hook(begin), model.register_forward_hook(end)]
    ratios = []
    try:
        for _ in range(1 + ROUNDS):
            whole = seconds()
            with turned_down(dial, 1):
                half = seconds()
            ratios.append(half / whole if whole > 0 else 1.0)
    finally:
        for handle in handles:
            handle.remove()
    return statistics.median(ratios[1:])  # the first one warms up
