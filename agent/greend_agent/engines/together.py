"""Several processes train one model: rank 0's wish is agreed on, and all change level at the same step."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from greend_agent.engines.local import Engine
from greend_agent.engines.ranks import PLANNING_S, Ranks
from greend_agent.hook import Hook
from greend_agent.plan import Call, Plan
from greend_agent.signals import TOP
from greend_agent.windows.ladder import Ladder

STOPPING = 1 << 20
"""In a vote beside the level, above all levels and below the top: the job is to stop after this step."""
GONE = TOP << 1
"""The vote of a rank that cannot change level any more: after it, nobody does."""


CALM, SELDOM = 16, 4
"""After so many votes with one outcome, only every so many steps are voted on: a vote takes 0.2 ms of CPU."""


class Together(Engine):
    """The vote on a step's level is taken at the beginning of the step before, and travels meanwhile."""

    alone = False
    _note = ""

    def __init__(self, outer: nn.Module, group: Any) -> None:
        super().__init__(outer)
        first = next(outer.parameters(), None)
        self.ranks = Ranks(group, first.device if first is not None else torch.device("cpu"))
        self._top = 0
        self._met = self._agreed = self._failed = self._stopping = False
        self._voted = False  # in the step under way: a forward that raised may begin it again
        # All of these are the same on all ranks, as only outcomes change them.
        self._standing, self._calm, self._wait = TOP, 0, 0

    def on_forward_end(self, hook: Hook, make: Callable[[Callable[[], Any]], Any]) -> list[Any]:
        """Have a hook called after each forward; none is made again, as the others would not make theirs."""
        return super().on_forward_end(hook, lambda call: call())

    def share(self, call: Call | None) -> Call | None:
        """Meet the other ranks, and return rank 0's call. Raises RuntimeError when not all have come."""
        if not self._met:
            self._met = True
            self.ranks.meet()
        return self.ranks.same_call(call)

    def agree(self, plan: Plan) -> str | None:
        """Return why this plan is not used: a rank has none, or another one; None when all are the same."""
        self._top = len(plan.table) - 1
        return self._compared(None, digest(self.model, self.ladder(plan), plan.table.counts))

    def lacking(self, reason: str) -> None:
        """Tell the others that this rank has no plan."""
        self._compared(reason, None)

    def _compared(self, reason: str | None, plan: str | None) -> str | None:
        told = self.ranks.told("plan", json.dumps([reason, plan]), PLANNING_S)
        for rank, (why, theirs) in enumerate(map(json.loads, told)):
            if why is not None:
                return f"rank {rank}: {why}"
            if plan is not None and theirs != plan:
                return f"rank {rank} made another plan"
        self._agreed = True
        self.notes = [f"{self.ranks.size} ranks change level together, when rank 0 is asked to; {self._note}"]
        return None

    def level(self, want: int, top: int) -> int:
        """Return what was agreed last; what this rank wants is heard if it is rank 0.

        Raises RuntimeError when a rank is lost, or has said that it stays full from now on.
        """
        if not self._agreed or self._voted:
            return self._top
        self._voted = True
        wish = (TOP if want >= top else want | STOPPING * self._stopping) if self.ranks.rank == 0 else 0
        try:
            self._hear(self.ranks.outcome())
            self._wait -= 1
            if self._agreed and self._wait <= 0:
                self._wait = SELDOM if self._calm >= CALM else 1
                self.ranks.vote(GONE if self._failed else TOP if self.vetoed() else wish)
        except Exception:
            self._agreed = False
            raise
        return min(self._standing & ~STOPPING, self._top)

    def _hear(self, outcome: int | None) -> None:
        if outcome is None:
            return
        self._calm += 1
        if outcome != self._standing:
            self._standing, self._calm, self._wait = outcome, 0, 0
            self.stops = bool(outcome & STOPPING)
        if outcome >= GONE:
            self._agreed = False
            if not self._failed:
                raise RuntimeError("another rank can no longer change level; its own report says why")

    def stepped(self) -> None:
        """Note that the step has ended, and the next has a vote of its own."""
        self._voted = False

    def looks_on(self) -> None:
        """Vote, and go with what was agreed, until the others have heard that this rank stays full."""
        self.level(self._top, self._top)

    @property
    def can_stop(self) -> bool:
        """Whether the ranks still agree on anything."""
        return self._agreed

    def to_stop(self, wanted: bool) -> None:
        """Note what rank 0 will vote for; all stop after the same step, if they do."""
        self._stopping = wanted

    @property
    def patience_s(self) -> float:
        """Half of what the job's own operations wait: one of them, and one rank after the other."""
        return self.ranks.timeout_s / 2

    def vetoed(self) -> bool:
        """Whether this rank cannot be below the top just now."""
        return False

    def failed(self) -> None:
        """Tell the others, at the next step, that this rank stays full from now on."""
        self._failed = True

    def close(self) -> None:
        """Leave the others."""
        self._agreed = False
        self.ranks.close()


@contextlib.contextmanager
def lent(
    model: nn.Module, twin: Callable[[nn.Module, nn.Parameter], nn.Parameter]
) -> Iterator[dict[nn.Parameter, nn.Parameter]]:
    """Inside, other parameters are in the place of the model's; return which for which."""
    places = [
        (module, name, param)
        for module in model.modules()
        for name, param in module._parameters.items()
        if param is not None
    ]
    twins: dict[nn.Parameter, nn.Parameter] = {}
    for module, _, param in places:
        if param not in twins:  # tied ones stay tied
            twins[param] = twin(module, param)
            if param._backward_hooks or getattr(param, "_post_accumulate_grad_hooks", None):
                hooked: Any = twins[param]
                hooked.register_hook(lambda gradient: None)  # so that it is seen to have one
    try:
        for module, name, param in places:
            module._parameters[name] = twins[param]
        yield twins
    finally:
        for module, name, param in places:
            module._parameters[name] = param


def digest(model: nn.Module, ladder: Ladder, counts: Sequence[Sequence[int]]) -> str:
    """Return what the levels do to a model, in a form that is the same in each process."""
    tensors = {id(t): name for name, t in [*model.named_parameters(), *model.named_buffers()]}
    modules = {id(m): name for name, m in model.named_modules()}
    said: list[Any] = [counts]
    said += [(tensors.get(id(w.param)), [_said(index) for index in w.indices]) for w in ladder.windows]
    said += [(modules.get(id(a.owner)), a.name, [_said(v) for v in a.values]) for a in ladder.attributes]
    said += [sorted(str(tensors.get(id(p))) for p in idle) for idle in ladder.idle]
    return hashlib.sha256(repr(said).encode()).hexdigest()


def _said(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, (tuple, list)):
        return [_said(item) for item in value]
    plain = isinstance(value, (int, float, str, slice, type(None)))
    return value if plain else type(value).__qualname__  # an object's address is another in each process


class Alone(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets nothing be sent to other processes: they may not be listening, and then all would wait."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in ("c10d", "_c10d_functional"):
            raise RuntimeError(f"planning: the model's forward talks to other processes ({func})")
        return func(*args, **(kwargs or {}))
