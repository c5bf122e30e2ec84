"""The numeric proof: a narrowed model is the full model whose readers do not see the units left out.

Compared at the *reader's* output with its bias off: at the model's output a small branch can hide behind a
large residual (in a fuzz of 200 random nets that let nine wrong groups through; at the reader, none). In the
full model the units left out are given large and outlandish values: what depends on them in a way that two
samples need not show, such as a maximum over all units, then does show.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from greend_agent.dial import Cut, Dial, Kept
from greend_agent.plan.probe import Run, borrowed, tensors_in
from greend_agent.plan.trial import all_turned_down, said

_AT_READER = 1e-4
_AT_OUTPUT = 1e-3
_IN_TRAINING = 2e-2
"""Statistics of a batch of two can be ill-conditioned."""
_OUTLANDISH = 4.0
_HALF_PRECISION = 2e-2
"""bfloat16 keeps 8 bits: sums of another length differ by this much though the mathematics is equal."""


def prove(
    run: Run, dials: Sequence[Dial], counts: Mapping[Dial, int], beside: Sequence[Dial] = ()
) -> dict[Dial, str]:
    """Return the dials that do not hold at the given positions, with the reason.

    All at once first, two forwards and one in training; halves of what fails, so that one bad dial among
    many costs little. The others have been seen to hold together, `beside` what already did: two halves
    that hold alone need not (a maximum over units is another one where its input is narrowed too).
    """
    reason = _disagreement(run, [*beside, *dials], counts) if dials else None
    if reason is None:
        return {}
    if len(dials) == 1:
        return {dials[0]: reason}
    half = len(dials) // 2
    left = prove(run, dials[:half], counts, beside)
    good = [dial for dial in dials[:half] if dial not in left]
    return left | prove(run, dials[half:], counts, [*beside, *good])


def _disagreement(run: Run, dials: Sequence[Dial], counts: Mapping[Dial, int]) -> str | None:
    """Why the narrowed model differs; None when it does not."""
    usual = run.usual_shapes(training=True)
    turned = [dial for dial in dials if counts[dial] < dial.full]
    done = [dial.turned(counts[dial]) for dial in turned]
    makes = [cut for one in done for cut in one.cuts if cut not in one.blinds]
    readers = _running(turned, counts)
    with contextlib.ExitStack() as stack:
        for reader in readers:
            if isinstance(bias := getattr(reader, "bias", None), torch.Tensor):
                stack.enter_context(borrowed(bias)).zero_()
        with contextlib.ExitStack() as unseen:
            for cut in makes:
                if isinstance(cut.tensor, nn.Parameter):
                    _estrange(unseen.enter_context(borrowed(cut.tensor)), cut)
            for one in done:
                for cut in one.blinds:
                    _blind(unseen.enter_context(borrowed(cut.tensor)), cut)
            expected, trained = _observe(run, readers), _observe(run, readers, training=True)
        stack.enter_context(all_turned_down(turned, [counts[dial] for dial in turned]))
        try:
            actual = _observe(run, readers)
            # Some code runs in training only, and must not count hidden units either.
            rehearsed = _observe(run, readers, training=True)
        except Exception as error:
            return f"narrowed, it raises {said(error)}"
    made = {cut.tensor: cut for cut in reversed(makes)}
    for reader in readers:
        if reader not in expected.seen:
            return "its reader is not called"
        if not expected.seen[reader].any():
            return "its reader's output is all zero, where nothing can be seen"
        whole = _kept_of(expected.seen[reader], reader, made)
        if not _close(actual.seen.get(reader), whole, _AT_READER):
            return "narrowed, its reader gives other values than with the units left out"
    if len(actual.output) != len(expected.output) or not all(
        _close(a, e, _AT_OUTPUT) for a, e in zip(actual.output, expected.output, strict=True)
    ):
        return "narrowed, the model's output changes shape, or depends on the hidden units themselves"
    if [t.shape for t in rehearsed.output] != usual:
        return "narrowed, the model's output in training changes shape"
    for reader in readers:
        whole = _kept_of(trained.seen[reader], reader, made)
        if not _close(rehearsed.seen.get(reader), whole, _IN_TRAINING):
            return "narrowed, its reader gives other values in training"
    return None


def rehearse(run: Run, dials: Sequence[Dial], counts: Sequence[int]) -> str | None:
    """Say why the model does not run, in eval mode and in training, as one that returns the usual shapes."""
    usual = [run.usual_shapes(training=training) for training in (False, True)]
    with all_turned_down(dials, counts):
        try:
            shapes = [[t.shape for t in tensors_in(run(training=training))] for training in (False, True)]
        except Exception as error:
            return f"narrowed, it raises {said(error)}"
    return None if shapes == usual else "turned down, the model's output changes shape"


def _running(dials: Sequence[Dial], counts: Mapping[Dial, int]) -> list[nn.Module]:
    """Return the readers of the dials without those in blocks that other dials leave out."""
    return [
        reader
        for reader in dict.fromkeys(reader for dial in dials for reader in dial.readers)
        if not any(
            reader in dial.parts and reader not in dial.readers and not dial.share(counts[dial], reader)
            for dial in dials
        )
    ]


def _kept_of(output: torch.Tensor, reader: nn.Module, made: Mapping[torch.Tensor, Cut]) -> torch.Tensor:
    """Return what is kept of a reader's output that is itself a width which another dial narrows."""
    weight = getattr(reader, "weight", None)
    cut = made.get(weight) if isinstance(weight, torch.Tensor) else None
    if cut is None:
        return output
    dims = cut.tensor.dim()
    channels = -1 if isinstance(reader, nn.Linear) or dims == 2 else 2 - dims - 1
    return output.movedim(channels, 0)[cut.kept].movedim(0, channels)


class _Observation:
    """What the readers and the model gave in one forward."""

    def __init__(self) -> None:
        self.seen: dict[nn.Module, torch.Tensor] = {}
        self.output: list[torch.Tensor] = []


def _observe(run: Run, readers: Sequence[nn.Module], *, training: bool = False) -> _Observation:
    result = _Observation()

    def note(module: nn.Module, args: Any, output: Any) -> None:
        # A copy: the next layer may work in place. The first tensor, since a block may return several.
        result.seen[module] = tensors_in(output)[0].detach().clone()

    handles = [reader.register_forward_hook(note) for reader in readers]
    try:
        result.output = [t.detach().clone() for t in tensors_in(run(training=training))]
    finally:
        for handle in handles:
            handle.remove()
    return result


def _blind(data: torch.Tensor, cut: Cut) -> None:
    """Zero all that a cut does not keep."""
    seen: list[Kept] = [slice(None)] * data.dim()
    seen[cut.dim] = cut.kept
    kept = data[tuple(seen)].clone()
    data.zero_()
    data[tuple(seen)] = kept


def _estrange(data: torch.Tensor, cut: Cut) -> None:
    """Make what a cut does not keep several times as large, with alternating signs."""
    factor = torch.full((data.shape[cut.dim],), _OUTLANDISH, dtype=data.dtype, device=data.device)
    factor[1::2] *= -1
    shift = factor.clone() if data.dim() == 1 else torch.zeros_like(factor)
    factor[cut.kept], shift[cut.kept] = 1, 0
    shape = [-1 if dim == cut.dim else 1 for dim in range(data.dim())]
    data.mul_(factor.view(shape)).add_(shift.view(shape))


def _close(actual: torch.Tensor | None, expected: torch.Tensor, tolerance: float) -> bool:
    if actual is None or actual.shape != expected.shape or actual.dtype != expected.dtype:
        return False
    if not expected.is_floating_point() or not expected.numel():
        return True  # an argmax may flip on a last bit
    if expected.dtype in (torch.float16, torch.bfloat16):
        tolerance = max(tolerance, _HALF_PRECISION)
    difference = float((actual - expected).abs().max())
    # Written so that NaN is a disagreement.
    return difference <= tolerance * float(expected.abs().max())
