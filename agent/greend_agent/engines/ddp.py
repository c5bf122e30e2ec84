"""DistributedDataParallel: all ranks change level at the same step, and gradients are as small as the level.

The model is full at rest, so that each lowered step puts windows on and off, and what DDP's reducer hangs
its hooks on is lost with the first. In lowered steps the reducer is bypassed as by `no_sync`, and the
gradients are averaged here, at the end of the backward: what clips or unscales them sees the mean, as with
DDP. (Rebuilding the reducer in each lowered step is as fast, within 2 % with two ranks on one machine, but
then each such step would hang on private names of torch's.) On return to the top it is rebuilt, once.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from greend_agent.engines.ranks import Comparison, averaged
from greend_agent.engines.together import Alone, Together, lent
from greend_agent.hook import Hook
from greend_agent.plan import Call, Plan

_FULL = -1
_POSITIVE = (1 << 62) - 1


def refusal(outer: DistributedDataParallel, optimizer: Optimizer) -> str | None:
    """Say what is in use that has no place in a lowered step; None when nothing is."""
    if type(optimizer).__name__ == "ZeroRedundancyOptimizer":
        return "ZeroRedundancyOptimizer: each rank has the state of a part of the parameters only"
    if getattr(outer, "mixed_precision", None) is not None:
        return "DistributedDataParallel with mixed_precision keeps parameters twice; use autocast"
    if getattr(outer, "_delay_all_reduce_all_params", False) or getattr(
        outer, "_delay_all_reduce_params", []
    ):
        return "DistributedDataParallel with delay_all_reduce_named_params"
    if getattr(outer, "_use_python_reducer", False):
        return "DistributedDataParallel with the python reducer of torch.compile"
    if any(hasattr(p, "_in_backward_optimizers") for p in outer.parameters()):
        return "an optimizer that steps in the backward leaves no step to lower"
    if any(
        getattr(m, "sparse", False) for m in outer.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))
    ):
        return "sparse gradients cannot be averaged together with others"
    if not hasattr(torch.autograd.Variable._execution_engine, "queue_callback"):
        return "this torch does not say when a backward ends"
    return _comm_hook(outer)


def _comm_hook(outer: DistributedDataParallel) -> str | None:
    with contextlib.suppress(Exception):
        hook = outer._get_ddp_logging_data().get("comm_hook")  # type: ignore[no-untyped-call]
        if hook:
            return f"DistributedDataParallel with the communication hook {hook}, which only its reducer calls"
    return None


class DDP(Together):
    """Lowered steps without the reducer, and the reducer again at the top."""

    outer: DistributedDataParallel
    _note = "DDP: what is sent is as small as the level"

    def __init__(self, outer: DistributedDataParallel) -> None:
        super().__init__(outer, outer.process_group)
        self._low = False
        """Whether the step is one below the top, also where this rank could not follow."""
        self._in_force = _FULL
        self._handles: list[Any] = []
        self._params: dict[torch.Tensor, int] = {}
        """What is averaged here, numbered; empty while the reducer does it."""
        self._originals: dict[torch.Tensor, nn.Parameter] = {}
        self._broken = False
        """Whether the reducer could not be rebuilt."""
        self._flag = self._syncs = True
        self._arrived: list[torch.Tensor] = []
        self._comparison: Comparison | None = None

    @property
    def model(self) -> nn.Module:
        """The module inside."""
        module: nn.Module = self.outer.module
        return module

    @contextlib.contextmanager
    def planning(self, trained: Collection[nn.Parameter]) -> Iterator[Collection[nn.Parameter]]:
        """Inside, other parameters on the same storage are in the model's.

        What the reducer hangs on a parameter would be lost with the first window. A rebuilt reducer would go
        through one step in other buckets, and with more than two ranks sums in another order are others.
        """

        def twin(module: nn.Module, param: nn.Parameter) -> nn.Parameter:
            plain = type(param) is nn.Parameter
            return nn.Parameter(param.data, requires_grad=param.requires_grad) if plain else param

        with lent(self.model, twin) as twins, Alone():  # type: ignore[no-untyped-call]
            self._originals = {other: param for param, other in twins.items()}
            yield [twins[p] for p in trained if p in twins]

    def own(self, plan: Plan) -> Plan:
        """Return the plan in terms of the model's own parameters."""
        originals, self._originals = self._originals, {}
        dials = tuple(_replaced(dial, originals) for dial in plan.dials)
        return dataclasses.replace(plan, dials=dials)

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Return the arguments as DDP hands them on: on the module's device."""
        if self.outer.device_ids:
            moved = self.outer.to_kwargs(args, kwargs, self.outer.device_ids[0])  # type: ignore[no-untyped-call]
            args, kwargs = moved[0][0], moved[1][0]
        return Call.of(args, kwargs)

    def vetoed(self) -> bool:
        """Whether a communication hook has been registered since the plan was made."""
        return bool(getattr(self.outer, "_comm_hooks", None))

    def level(self, want: int, top: int) -> int:
        """Return what was agreed; below the top, the step that begins is made without the reducer."""
        if self._voted:
            return self._top  # alone; how gradients are averaged in this step is settled
        self._low = False
        try:
            # In `join` ranks make different numbers of steps, and one that has ended does not vote. Torch
            # leaves this set when it is over.
            if getattr(getattr(self.outer, "_join_config", None), "enable", False):
                return self._top
            level = super().level(want, top)
            self._low = level < self._top
            return level
        finally:
            if self._low:
                self._bypass()
            else:
                self._resume()

    def lowered(self, level: int) -> None:
        """Note which windows are on."""
        self._in_force = level

    def restored(self) -> None:
        """Note that none is."""
        self._in_force = _FULL

    def close(self) -> None:
        """Give DDP its reducer back."""
        self._low = False
        self._resume()
        super().close()

    def _bypass(self) -> None:
        if self._params:
            return
        named = self.model.named_parameters()
        ignored = self.outer.parameters_to_ignore
        params = [p for name, p in named if p.requires_grad and name not in ignored]
        self._params = {p: number for number, p in enumerate(params)}
        self._handles = [
            self.outer.register_forward_pre_hook(Hook(self._before)),
            self.outer.register_forward_hook(Hook(self._after), always_call=True),
            *map(self._hang, params),
        ]
        self._before()  # the forward that has begun calls no hook that was hung just now

    def _hang(self, param: Any) -> Any:
        return param.register_post_accumulate_grad_hook(self._on_gradient)

    def _resume(self) -> None:
        # All ranks rebuild, also one that never put a window on: with its next backward a new reducer talks
        # to the others about its buckets.
        if not self._params or self._broken:
            return
        self._broken = not _rebuild(self.outer)
        if not self._broken:
            for handle in self._handles:
                handle.remove()
            self._handles, self._params = [], {}

    # --- the way of a step without the reducer ---

    def _before(self, *_: Any) -> None:
        if not self._params:
            return  # taken off in this very forward, too late not to be called
        # Not left off for the whole step: `no_sync` puts back what it finds.
        self._flag, self.outer.require_backward_grad_sync = self.outer.require_backward_grad_sync, False
        self._arrived.clear()
        if torch.is_grad_enabled():
            self._syncs = self._flag

    def _after(self, *_: Any) -> None:
        self.outer.require_backward_grad_sync = self._flag
        # Buffers are broadcast at the next forward, as after any that was not in `no_sync`.
        self.outer.require_forward_param_sync = self._flag and torch.is_grad_enabled()

    def _on_gradient(self, param: torch.Tensor) -> None:
        if not self._syncs:
            return
        if not self._arrived:
            torch.autograd.Variable._execution_engine.queue_callback(self._reduce)
            if self._low:
                # It travels during the backward. A rank whose forward raised, or whose windows failed, is
                # full while the others are not.
                with contextlib.suppress(Exception):
                    self._comparison = self.ranks.compare(self._mark())
        self._arrived.append(param)

    def _mark(self) -> int:
        return hash((self._in_force, *(p.shape for p in self._params))) & _POSITIVE

    def _reduce(self) -> None:
        """Average what has arrived. Raises what the job's own collective raises, as DDP would."""
        params = sorted(dict.fromkeys(self._arrived), key=self._params.__getitem__)
        self._arrived.clear()
        some_unused = self.outer.find_unused_parameters or self.outer.static_graph
        if self._low and not self._alike():
            self.abandon()
            self._in_force, some_unused = _FULL, True
        if some_unused:
            params = list(self._params)
        cap = getattr(self.outer, "bucket_bytes_cap", 25 << 20)
        with torch.no_grad():
            averaged(params, self.outer.process_group, bucket_bytes=cap, some_unused=some_unused)

    def _alike(self) -> bool:
        comparison, self._comparison = self._comparison, None
        try:
            return comparison is not None and comparison.equal()
        except Exception:
            self.failed()
            return False


def _replaced(value: Any, by: Mapping[torch.Tensor, torch.Tensor]) -> Any:
    """Return a value with some tensors in it replaced by others."""
    if isinstance(value, torch.Tensor):
        return by.get(value, value)
    if type(value) is tuple:
        items = tuple(_replaced(item, by) for item in value)
        return value if all(a is b for a, b in zip(items, value, strict=True)) else items
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    # Only where it must be: settings of the user's own may be dataclasses too, and stay the same objects.
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
    new = {name: _replaced(content, by) for name, content in fields.items()}
    changed = {name: content for name, content in new.items() if content is not fields[name]}
    return dataclasses.replace(value, **changed) if changed else value


def _rebuild(outer: DistributedDataParallel) -> bool:
    """Make a new reducer for the parameters as they are; False, with the old one kept, if it cannot be."""
    reducer, logger = outer.reducer, outer.logger
    inside: Any = outer  # private, the same since torch 2.0: nothing public lets go of a reducer
    try:
        params, sparse = inside._build_params_for_reducer()
        names = inside._build_debug_param_to_name_mapping(params)
        inside._ddp_init_helper(params, sparse, names, inside.static_graph)
        inside._has_rebuilt_buckets = False
        if inside.static_graph:
            inside.reducer._set_static_graph()
            inside.logger._set_static_graph()
            inside._static_graph_delay_allreduce_enqueued = False
    except Exception:
        outer.reducer, outer.logger = reducer, logger
        return False
    return True
