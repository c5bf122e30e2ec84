"""Stacks of residual blocks, and whether they can do with some of the tokens.

They can where a block treats the tokens as a set, but for a causal mask. This is seen on the blocks alone:
samples, and the order of the tokens before the last one, must make no difference to what is added to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from greend_agent.plan.probe import Call, Run, tensors_in
from greend_agent.plan.trial import said

FIRST, LAST = 2, 1
"""So many blocks at either end always see all tokens."""
FEWEST_TOKENS = 8
_ORDER_TOLERANCE = 2e-5
"""What the last token gets, when the ones before it are reversed, changed by 5e-3 and more with the rotary
positions of an untrained Llama (2e-4 with weights a tenth as large), by 2e-6 at most where places do not
matter."""


def stacks_of(model: nn.Module) -> Iterator[tuple[str, tuple[nn.Module, ...]]]:
    """Find modules of one class in a row, each made of others."""
    for prefix, module in model.named_modules():
        row: list[tuple[str, nn.Module]] = []
        for name, child in [*module.named_children(), ("", nn.Identity())]:
            if row and type(child) is not type(row[-1][1]):
                if len(row) > FIRST + LAST and any(True for _ in row[0][1].children()):
                    start = f"{prefix}." if prefix else ""
                    yield f"{start}{row[FIRST][0]}…{row[-1 - LAST][0]}", tuple(block for _, block in row)
                row = []
            row.append((name, child))


@dataclass(slots=True)
class _Seen:
    """One call of a block."""

    given: Any
    x: torch.Tensor
    rest: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any = None


def unfit(stack: Sequence[nn.Module], run: Run) -> str | None:
    """Why the tokens of a stack are not independent enough for some to be missing."""
    seen: list[tuple[nn.Module, _Seen]] = []

    def begin(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else None
        copied = x.detach().clone() if isinstance(x, torch.Tensor) else torch.empty(0)
        seen.append((block, _Seen(x, copied, args[1:], kwargs)))

    def end(block: nn.Module, args: Any, output: Any) -> None:
        seen[-1][1].output = output[0] if isinstance(output, tuple) else output

    handles: list[Any] = []
    for block in stack:
        handles += [
            block.register_forward_pre_hook(begin, with_kwargs=True),
            block.register_forward_hook(end),
        ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    if [block for block, _ in seen] != list(stack):
        return "its blocks are not called once each, one after the other"
    calls = [one for _, one in seen]
    if not all(c.x.dim() == 3 and c.x.shape[1] >= FEWEST_TOKENS and c.x.is_floating_point() for c in calls):
        return "its blocks are not called with (batch, tokens, width) of at least 8 tokens"
    if any(after.given is not before.output for before, after in itertools.pairwise(calls)):
        return "its blocks do not hand their output to the next one as it is"
    for block, call in list(zip(stack, calls, strict=True))[FIRST : len(stack) - LAST]:
        if (reason := _unfit_block(block, call)) is not None:
            return reason
    return None


def _unfit_block(block: nn.Module, call: _Seen) -> str | None:
    """Why a block cannot do with fewer tokens. It is run by itself, on what it was called with."""

    def at(x: torch.Tensor) -> torch.Tensor:
        return tensors_in(Run(block, Call((x, *call.rest), call.kwargs))())[0]

    x = call.x
    try:
        output = at(x.requires_grad_())
        if output.shape != x.shape or not _adds_to_input(block, output):
            return "its blocks are not residual: what they return is not what they were given plus something"
        if x.dtype in (torch.float16, torch.bfloat16):
            return "it is kept in half precision, where it cannot be seen whether places matter to its blocks"
        with torch.no_grad():
            turned = x.flip(1)
            beside = at(torch.cat([x[:1], turned[1:] if len(x) > 1 else turned]))
            moved = at(torch.cat([turned[:, 1:], x[:, -1:]], dim=1))
            added, beside, moved = output - x, beside[:1] - x[:1], moved[:, -1] - x[:, -1]
    except Exception as error:
        return f"a block of it, called by itself, raises {said(error)}"
    if not _alike(beside, added[:1]):
        return "its samples do not come first: what it gives for one depends on another"
    if not _alike(moved, added[:, -1]):
        return "to its blocks it matters at which place a token stands (rotary positions, convolutions)"
    return None


def _alike(added: torch.Tensor, expected: torch.Tensor) -> bool:
    return float((added - expected).abs().max()) <= _ORDER_TOLERANCE * float(expected.abs().max())


def _adds_to_input(block: nn.Module, output: torch.Tensor) -> bool:
    """Whether a way from a block's output back to its input leads through additions alone."""
    own = {id(p) for p in block.parameters()}
    waiting, seen = [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in own:
            return True
        if node.name().startswith("AddBackward"):
            waiting += [following for following, _ in node.next_functions]
    return False


def rerun(model: nn.Module, block: nn.Module, run: Run) -> str | None:
    """Say so when a block is run again in the backward: it would not find what was left for it."""
    inputs: list[torch.Tensor] = []
    calls = 0

    def backward(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal calls
        calls = len(inputs)
        outputs = [t.float().sum() for t in tensors_in(output) if t.requires_grad]
        if outputs and inputs and inputs[0].requires_grad:
            # To the block's input only: so no gradient of the user's comes about.
            torch.autograd.grad(torch.stack(outputs).sum(), inputs[0], allow_unused=True)

    handles = [
        block.register_forward_pre_hook(lambda module, args: inputs.append(args[0])),
        # In the forward's own hook, as after it a run puts the buffers back that a backward may need.
        model.register_forward_hook(backward),
    ]
    try:
        run(training=True)
    except Exception as error:
        return f"a backward through it raises {said(error)}"
    finally:
        for handle in handles:
            handle.remove()
    again = len(inputs) > calls
    return "its blocks are run again in the backward (gradient checkpointing)" if again else None
