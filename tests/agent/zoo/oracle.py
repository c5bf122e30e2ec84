"""What a plan promises, checked beside the planner: with other inputs and weights, modes, gradients."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from greend_agent.dial import Cut, Dial, spread
from greend_agent.knobs.width import Side, Width
from greend_agent.windows.ladder import Ladder
from greend_agent.windows.window import WindowSet

from .family import Inputs, tensors, training_loss

AT_READER, AT_OUTPUT, AT_GRADIENT = 1e-4, 1e-3, 2e-3
"""The largest differences allowed, relative to the largest value of a tensor, in single precision."""
IN_DOUBLE = 1e-2
"""In double precision a hundredth of these: rounding reached 6e-7 where places differ by little."""
BELOW_NOISE = 5e-3
"""A gradient smaller than this part of the largest one is rounding of sums that cancel."""


def broken_promises(
    model: nn.Module,
    dials: Sequence[Dial],
    counts: Sequence[int],
    inputs: Sequence[Inputs],
    *,
    double: bool = False,
    trained: bool = False,
) -> list[str]:
    """Return how the narrowed model differs from the full one that is blind to what was left out.

    Both are copies, without randomness. In eval and in training mode, for each input, are compared: what
    the readers give with their biases off, what the model returns, and the gradients of all that is kept.
    `double`: in double precision, for models that do not ask for a precision of their own. `trained`: with
    other weights than the planner has seen, larger than fresh ones, by which a mistake could be hidden.
    """
    narrowed, blinded = _Twin(model, dials, counts), _Twin(model, dials, counts)
    for twin in (narrowed, blinded) if trained else ():
        _as_if_trained(twin.model)
    if double:
        inputs = [copy.deepcopy(one) for one in inputs]
        _doubled([*narrowed.tensors(), *blinded.tensors(), *(t for one in inputs for t in tensors(one))])
    factor = IN_DOUBLE if double else 1.0
    for reader in (*narrowed.readers, *blinded.readers):
        if isinstance(bias := getattr(reader, "bias", None), torch.Tensor):
            bias.data.zero_()
    for dial, count in zip(blinded.dials, counts, strict=True):
        if count < dial.full:
            _make_blind(dial, count)
    ladder = spread(narrowed.dials, [list(counts), [dial.full for dial in narrowed.dials]])
    WindowSet(ladder).apply(0)
    wrong: list[str] = []
    for training in (False, True):
        for which, one in enumerate(inputs):
            where = f"{'training' if training else 'eval'}, input {which}: "
            try:
                narrowed.model.train(training), blinded.model.train(training)
                found = _compared(narrowed, blinded, one, factor)
                found += _gradients(narrowed.model, blinded.model, ladder, factor) if not found else []
            except Exception as error:
                found = [f"{type(error).__name__}: {str(error)[:200]}"]
            wrong += [where + text for text in found]
    return wrong


def _compared(narrowed: _Twin, blinded: _Twin, inputs: Inputs, factor: float) -> list[str]:
    mine, my_output = narrowed.run(inputs)
    other, its_output = blinded.run(inputs)
    wrong = []
    for dial, my_dial in zip(blinded.dials, narrowed.dials, strict=True):
        for reader, my_reader in zip(dial.readers, my_dial.readers, strict=True):
            if blinded.skips(reader):
                continue
            expected = [
                blinded.kept_of(reader, t, m) for t, m in zip(other[reader], mine[my_reader], strict=True)
            ]
            gap = _gap(mine[my_reader], expected)
            if gap > AT_READER * factor:
                wrong.append(f"{dial.knob} {dial.name}: at the reader {gap:.1e}")
    gap = _gap(tensors(my_output), tensors(its_output))
    if gap > AT_OUTPUT * factor:
        wrong.append(f"at the output {gap:.1e}")
    for twin, output in ((narrowed, my_output), (blinded, its_output)):
        twin.model.zero_grad()
        training_loss(output).backward()  # type: ignore[no-untyped-call]
    return wrong


class _Twin:
    """A copy of the model with its own dials, without randomness."""

    def __init__(self, model: nn.Module, dials: Sequence[Dial], counts: Sequence[int]) -> None:
        self.model, self.dials = copy.deepcopy((model, tuple(dials)))
        self.counts = counts
        _without_randomness(self.model)
        self.readers = list(dict.fromkeys(reader for dial in self.dials for reader in dial.readers))

    def run(self, inputs: Inputs) -> tuple[dict[nn.Module, list[torch.Tensor]], Any]:
        """Run once; return what each reader gave, and the output."""
        seen: dict[nn.Module, list[torch.Tensor]] = {reader: [] for reader in self.readers}

        def note(module: nn.Module, args: Any, output: Any) -> None:
            seen[module] += [t.detach().clone() for t in tensors(output)]

        handles = [reader.register_forward_hook(note) for reader in seen]
        args, kwargs = copy.deepcopy(inputs)
        try:
            return seen, self.model(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()

    def tensors(self) -> list[torch.Tensor]:
        """Return the parameters and buffers."""
        return [*self.model.parameters(), *self.model.buffers()]

    def skips(self, reader: nn.Module) -> bool:
        """Whether a reader lies in a block that another dial leaves out."""
        return any(
            reader not in dial.readers and reader in dial.parts and dial.share(count, reader) == 0
            for dial, count in zip(self.dials, self.counts, strict=True)
            if count < dial.full
        )

    def kept_of(self, reader: nn.Module, output: torch.Tensor, narrowed: torch.Tensor) -> torch.Tensor:
        """Return what is left of a reader's output where the reader makes another width."""
        if output.shape == narrowed.shape:
            return output
        channels = 1 if isinstance(reader, nn.modules.conv._ConvNd) else -1
        for dial, count in zip(self.dials, self.counts, strict=True):
            for side in dial.makes if isinstance(dial, Width) else ():
                if side.tensor is getattr(reader, "weight", None) and count < dial.full:
                    left_out = set(_left_out(side, count, dial.full))
                    kept = [k for k in range(output.shape[channels]) if k not in left_out]
                    return output.index_select(channels, torch.tensor(kept))
        return output


def _as_if_trained(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(11)
    for param in model.parameters():
        noise = torch.randn(param.shape, generator=generator).to(param.dtype)
        if param.dim() > 1:
            param.data.copy_(noise * (1.5 * param.shape[0] / param.numel()) ** 0.5)
        else:
            param.data.add_(0.2 * noise)


def _doubled(those: Sequence[torch.Tensor]) -> None:
    # In place, since the dials hold the same tensors.
    for tensor in those:
        if tensor.is_floating_point():
            tensor.data = tensor.data.double()


def _gap(mine: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """The largest difference, relative to the largest value of its tensor; infinite for another shape."""
    if [(t.shape, t.dtype) for t in mine] != [(t.shape, t.dtype) for t in other]:
        return math.inf
    gaps = [
        float((a - b).detach().abs().max()) / max(float(b.detach().abs().max()), 1e-12)
        for a, b in zip(mine, other, strict=True)
        if b.numel()
    ]
    return math.inf if any(math.isnan(gap) for gap in gaps) else max(gaps, default=0.0)


def _gradients(narrowed: nn.Module, blinded: nn.Module, ladder: Ladder, factor: float) -> list[str]:
    kept = {window.param: window.indices[0] for window in ladder.windows}
    pairs = []
    for (name, mine), other in zip(narrowed.named_parameters(), blinded.parameters(), strict=True):
        if mine.grad is None or other.grad is None:
            if (mine.grad is None) != (other.grad is None) and mine not in ladder.idle[0]:
                return [f"only one has a gradient of {name}"]
            continue
        index = kept.get(mine)
        pairs.append((name, mine.grad, other.grad if index is None else other.grad[index]))
    largest = max((float(b.abs().max()) for _, _, b in pairs if b.numel()), default=0.0)
    wrong = []
    for name, mine_grad, other_grad in pairs:
        scale = max(float(other_grad.abs().max()), BELOW_NOISE * largest, 1e-12)
        gap = float((mine_grad - other_grad).abs().max()) / scale
        if not gap <= AT_GRADIENT * factor:
            wrong.append(f"the gradient of {name} {gap:.1e}")
    return wrong


def _make_blind(dial: Dial, count: int) -> None:
    """Zero what the readers would read of the units left out; for a width counted out here unit by unit."""
    if isinstance(dial, Width):
        for side in dial.reads:
            side.tensor.data.index_fill_(side.dim, torch.tensor(_left_out(side, count, dial.full)), 0.0)
        return
    for cut in dial.turned(count).blinds:
        _zero_outside(cut)


def _left_out(side: Side, count: int, full: int) -> list[int]:
    entries, start = [], 0
    for per_unit in side.units:
        for unit in range(count, full):
            entries += [start + unit * per_unit + k for k in range(per_unit)]
        start += full * per_unit
    assert start == side.tensor.shape[side.dim], "the segments of a side are its whole tensor"
    return entries


def _zero_outside(cut: Cut) -> None:
    kept = torch.zeros(cut.tensor.shape[cut.dim], dtype=torch.bool)
    kept[cut.kept] = True
    cut.tensor.data.index_fill_(cut.dim, (~kept).nonzero().flatten(), 0.0)


def _without_randomness(model: nn.Module) -> None:
    # Modules of libraries hold their probabilities in attributes of many names; all of them say "drop".
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, float) and (
                "drop" in name or (name == "p" and isinstance(module, nn.Dropout))
            ):
                setattr(module, name, 0.0)
        if isinstance(module, (nn.Dropout, nn.Dropout1d, nn.Dropout2d)):
            module.p = 0.0
