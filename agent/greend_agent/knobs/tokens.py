"""Fewer tokens in the middle of a stack of residual blocks; the others pass it by, on the residual stream.

The first two blocks and the last one see all tokens, as the first ones give each token its context and the
last one its answer. (Yao et al., "Random-LTD", arXiv 2211.11586, 2022; Hou et al., "Token Dropping for
Efficient BERT Pretraining", ACL 2022.) What is kept keeps its order, so that a causal mask stays right.

Which tokens a causal model leaves out depends a little on what comes after them (as with any choice among
all tokens of a sequence); a run that must not have that takes `keep="random"`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from greend_agent.dial import Dial, Setting, Turned
from greend_agent.knobs.around import Around
from greend_agent.knobs.stacks import FIRST, LAST, rerun, stacks_of, unfit
from greend_agent.plan.probe import Call, Run
from greend_agent.plan.trial import difference

Keep = Literal["distinct", "random"]

EIGHTHS = 8


def distinct(x: torch.Tensor, count: int) -> torch.Tensor:
    """Return, for each sample, the places of the `count` tokens that are least like the one before them.

    x: (batch, tokens, width). Returns (batch, count) of int64, rising; the first token is always kept.
    """
    likeness = _likeness(x)
    least = likeness.argsort(dim=1, stable=True)[:, : count - 1] + 1  # stable: the same on every device
    first = least.new_zeros(x.shape[0], 1)
    return torch.cat([first, least.sort(dim=1).values], dim=1)


def drawn(x: torch.Tensor, count: int) -> torch.Tensor:
    """Return, for each sample, the places of the first token and of `count` - 1 others by lot.

    By the device's own random numbers: a forward that is run again in a backward finds the same ones.
    """
    lots = torch.rand(x.shape[0], x.shape[1] - 1, device=x.device)
    others = lots.argsort(dim=1)[:, : count - 1] + 1
    return torch.cat([others.new_zeros(x.shape[0], 1), others.sort(dim=1).values], dim=1)


def needed(x: torch.Tensor, alike: float) -> int:
    """Return how many tokens are not like the one before them, in the sample that has most of them.

    The samples of a batch are one tensor and have the same number of tokens: so the sample that needs
    most decides, and a batch of one gains most. Waits for the device.
    """
    return 1 + int((_likeness(x) <= alike).sum(dim=1).max())


def _likeness(x: torch.Tensor) -> torch.Tensor:
    x = x.detach().float()
    return nn.functional.cosine_similarity(x[:, 1:], x[:, :-1], dim=-1)


@dataclass(slots=True, eq=False)
class _Bypass:
    """What the first block of the middle leaves for the last one."""

    x: torch.Tensor | None = None
    kept: torch.Tensor | None = None


class _Gather(Around):
    """The forward of the first block of the middle."""

    def __init__(self, inner: Callable[..., Any], dial: Tokens, count: int, bypass: _Bypass) -> None:
        super().__init__(inner)
        self._dial, self._count, self._bypass = dial, count, bypass

    def __call__(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        kept = self._dial.choose(x, self._count)
        self._bypass.x, self._bypass.kept = x, kept
        return self.inner(x if kept is None else x.gather(1, _places(kept, x)), *args, **kwargs)


class _Scatter(Around):
    """The forward of the last block of the middle."""

    def __init__(self, inner: Callable[..., Any], bypass: _Bypass) -> None:
        super().__init__(inner)
        self._bypass = bypass

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self.inner(*args, **kwargs)
        x, kept = self._bypass.x, self._bypass.kept
        self._bypass.x = self._bypass.kept = None
        if x is None or kept is None:
            return output
        tokens = output[0] if isinstance(output, tuple) else output
        whole = x.scatter(1, _places(kept, x), tokens.to(x.dtype))
        return (whole, *output[1:]) if isinstance(output, tuple) else whole


def _places(kept: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return kept.unsqueeze(-1).expand(-1, -1, x.shape[-1])


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """The dial of one stack: how many eighths of the tokens its middle sees."""

    name: str
    blocks: tuple[nn.Module, ...]
    """The middle of the stack."""
    keep: Keep = "distinct"
    """`random` is by lot in training, and `distinct` in eval mode."""
    alike: float | None = None
    """With a cosine similarity, the tokens above it are left out too, beyond what the position says."""
    knob: str = "tokens"
    full: int = EIGHTHS
    readers: tuple[nn.Module, ...] = ()

    @property
    def parts(self) -> Collection[nn.Module]:
        """The modules whose work falls with it."""
        return [module for block in self.blocks for module in block.modules()]

    def turned(self, count: int) -> Turned:
        """Return what is to be done for the middle to see `count` eighths of the tokens."""
        first, last, bypass = self.blocks[0], self.blocks[-1], _Bypass()
        gather = _Gather(first.forward, self, count, bypass)
        if first is last:
            return Turned(settings=(Setting(first, "forward", _Scatter(gather, bypass)),))
        scatter = _Scatter(last.forward, bypass)
        return Turned(settings=(Setting(first, "forward", gather), Setting(last, "forward", scatter)))

    def count(self, fraction: float, levels: int) -> int:
        """Return the nearest number of eighths."""
        return min(self.full, max(1, round(self.full * fraction)))

    def share(self, count: int, part: nn.Module) -> float:
        """Return how much of a part's work remains: of attention, which is between tokens, the square."""
        share = count / self.full
        return share if any(True for _ in part.parameters(recurse=False)) else share**2

    def choose(self, x: torch.Tensor, count: int) -> torch.Tensor | None:
        """Return the places of the tokens that are kept at a position, or None for all of them."""
        if x.dim() != 3:
            return None
        tokens = max(1, round(x.shape[1] * count / self.full))
        if self.alike is not None:
            tokens = min(tokens, needed(x, self.alike))
        if tokens >= x.shape[1]:
            return None
        if self.keep == "random" and self.blocks[0].training:
            return drawn(x, tokens)
        return distinct(x, tokens)


def find(
    model: nn.Module, call: Call, run: Run, *, keep: Keep = "distinct", alike: float | None = None
) -> tuple[list[Dial], list[tuple[str, str]]]:
    """Return the dials of the stacks that were seen to work with fewer tokens, and why others do not."""
    dials: list[Dial] = []
    rejected: list[tuple[str, str]] = []
    taken: set[nn.Module] = set()
    for name, stack in stacks_of(model):
        if taken.isdisjoint(stack):
            dial = Tokens(name, stack[FIRST : len(stack) - LAST], keep, alike)
            reason = unfit(stack, run) or rerun(model, stack[FIRST], run) or difference(run, dial, (1, 3, 7))
            if reason is None:
                dials.append(dial)
                taken.update(m for block in stack for m in block.modules())
            else:
                rejected.append((f"{name} (tokens)", reason))
    return dials, rejected
