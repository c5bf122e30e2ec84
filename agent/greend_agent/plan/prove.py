"""The numeric proof: a narrowed model is the full model whose readers do not see the units left out.

Compared at the *reader's* output with its bias off: at the model's output a small branch can hide behind a
large residual (in a fuzz of 200 random nets that let nine wrong groups through; at the reader, none). In the
full model the units left out are given large and outlandish values: what depends on them in a way that two
samples need not show, such as a maximum over all units, then does show.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from greend_agent.dial import Cut, Dial, Kept, spread
from greend_agent.plan.probe import Run, tensors_in
from greend_agent.windows.window import WindowSet

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
    turned = [dial for dial in dials if counts[dial] < dial.full]
    ladder = spread(turned, [[counts[d] for d in turned], [d.full for d in turned]])
    narrowed = WindowSet(ladder)
    readers = _running(turned, counts)
    with contextlib.ExitStack() as stack:
        for reader in readers:
            stack.enter_context(_zeroed(getattr(reader, "bias", None)))
        with contextlib.ExitStack() as unseen:
            for dial in turned:
                done = dial.turned(counts[dial])
                for cut in done.cuts:
                    if cut not in done.blinds and isinstance(cut.tensor, nn.Parameter):
                        unseen.enter_context(_estranged(cut))
                for cut in done.blinds:
                    unseen.enter_context(_blind(cut))
            expected, trained = _observe(run, readers), _observe(run, readers, training=True)
        stack.callback(narrowed.restore)
        narrowed.apply(0)
        try:
            actual = _observe(run, readers)
            # Some code runs in training only, and must not count hidden units either.
            rehearsed = _observe(run, readers, training=True)
        except Exception as error:
            return _raises(error)
    for reader in readers:
        if reader not in expected.seen:
            return "its reader is not called"
        if not expected.seen[reader].any():
            return "its reader's output is all zero, where nothing can be seen"
        whole = _kept_of(expected.seen[reader], reader, turned, counts)
        if not _close(actual.seen.get(reader), whole, _AT_READER):
            return "narrowed, its reader gives other values than with the units left out"
    if len(actual.output) != len(expected.output) or not all(
        _close(a, e, _AT_OUTPUT) for a, e in zip(actual.output, expected.output, strict=True)
    ):
        return "narrowed, the model's output changes shape, or depends on the hidden units themselves"
    if [t.shape for t in rehearsed.output] != run.usual_shapes:
        return "narrowed, the model's output in training changes shape"
    for reader in readers:
        whole = _kept_of(trained.seen[reader], reader, turned, counts)
        if not _close(rehearsed.seen.get(reader), whole, _IN_TRAINING):
            return "narrowed, its reader gives other values in training"
    return None


def rehearse(run: Run, dials: Sequence[Dial], counts: Sequence[int]) -> str | None:
    """Say why the model does not run, in eval mode and in training, as one that returns the usual shapes."""
    windows = WindowSet(spread(dials, [counts, [dial.full for dial in dials]]))
    windows.apply(0)
    try:
        shapes = [[t.shape for t in tensors_in(run(training=training))] for training in (False, True)]
    except Exception as error:
        return _raises(error)
    finally:
        windows.restore()
    usual = [[t.shape for t in tensors_in(run())], run.usual_shapes]
    return None if shapes == usual else "turned down, the model's output changes shape"


def _raises(error: Exception) -> str:
    return f"narrowed, it raises {type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"


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


def _kept_of(
    output: torch.Tensor, reader: nn.Module, dials: Sequence[Dial], counts: Mapping[Dial, int]
) -> torch.Tensor:
    """Return what is kept of a reader's output that is itself a width which another dial narrows."""
    weight = getattr(reader, "weight", None)
    for dial in dials:
        done = dial.turned(counts[dial])
        for cut in done.cuts:
            if cut.tensor is weight and cut not in done.blinds:
                channels = -1 if isinstance(reader, nn.Linear) or weight.dim() == 2 else 2 - weight.dim() - 1
                return output.movedim(channels, 0)[cut.kept].movedim(0, channels)
    return output


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


@contextlib.contextmanager
def _zeroed(tensor: object) -> Iterator[None]:
    """Zero what may be a bias inside; its version does not change."""
    if not isinstance(tensor, torch.Tensor):
        yield
        return
    kept = tensor.data.clone()
    try:
        tensor.data.zero_()
        yield
    finally:
        tensor.data.copy_(kept)


@contextlib.contextmanager
def _blind(cut: Cut) -> Iterator[None]:
    """Zero all that a cut does not keep, inside."""
    data = cut.tensor.data
    kept = data.clone()
    seen: list[Kept] = [slice(None)] * data.dim()
    seen[cut.dim] = cut.kept
    try:
        data.zero_()
        data[tuple(seen)] = kept[tuple(seen)]
        yield
    finally:
        data.copy_(kept)


@contextlib.contextmanager
def _estranged(cut: Cut) -> Iterator[None]:
    """Make what a cut does not keep several times as large, inside, with alternating signs."""
    data = cut.tensor.data
    before = data.clone()
    factor = torch.full((data.shape[cut.dim],), _OUTLANDISH, dtype=data.dtype, device=data.device)
    factor[1::2] *= -1
    shift = factor.clone() if data.dim() == 1 else torch.zeros_like(factor)
    factor[cut.kept], shift[cut.kept] = 1, 0
    shape = [-1 if dim == cut.dim else 1 for dim in range(data.dim())]
    try:
        data.mul_(factor.view(shape)).add_(shift.view(shape))
        yield
    finally:
        data.copy_(before)


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
