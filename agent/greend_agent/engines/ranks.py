"""What the processes that train one model say to each other, beside their gradients.

Over a gloo group of its own, so that it works next to NCCL and never gets between the job's collectives. It
is made from the job's store and not by `dist.new_group`, which counts the groups of a process: called by
some ranks only, it would give the job's next group another name on each, for which all would wait.
"""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore

from greend_agent.plan import Call

PATIENCE_S = 30.0
"""How long to wait, once, for ranks that may never come: not all of them may have attached an agent."""
PLANNING_S = 300.0
"""How long the slowest rank may be behind the fastest with its plan."""

_numbers = itertools.count()


class Ranks:
    """The processes of a group; nothing is sent before `meet`."""

    def __init__(self, group: Any, device: torch.device) -> None:
        self._group, self._device = group, device
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        members = dist.get_process_group_ranks(group)
        # All ranks make their agents in the same order, as they make their models.
        self._name = f"greend/{next(_numbers)}/{hash(tuple(members))}"
        self._store: Any = None
        self._gloo: Any = None
        self._timeout = timedelta(seconds=PATIENCE_S)
        self._vote: tuple[Any, torch.Tensor] | None = None

    @property
    def timeout_s(self) -> float:
        """How long a rank is waited for, in seconds."""
        return self._timeout.total_seconds()

    def meet(self) -> None:
        """Wait until all are here. Raises RuntimeError when some do not come."""
        if not dist.is_gloo_available():
            raise RuntimeError("agreeing on a level needs gloo, which this torch is built without")
        from torch.distributed.distributed_c10d import _get_default_store

        self._store = PrefixStore(self._name, _get_default_store())
        try:
            self.told("here", "", PATIENCE_S)
        except Exception as error:
            raise RuntimeError("not all ranks have attached an agent; attach on every one") from error
        patience = timedelta(seconds=PATIENCE_S)
        self._gloo = dist.ProcessGroupGloo(self._store, self.rank, self.size, patience)
        self._timeout = _timeout(self._group, self._device)

    def told(self, what: str, mine: str, patience_s: float) -> list[str]:
        """Say something, once, and return what each rank says. Raises when one stays silent."""
        self._store.set(f"{what}/{self.rank}", mine)
        keys = [f"{what}/{rank}" for rank in range(self.size)]
        self._store.wait(keys, timedelta(seconds=patience_s))
        return [self._store.get(key).decode() for key in keys]

    def same_call(self, call: Call | None) -> Call | None:
        """Return rank 0's arguments on all ranks, so that they plan from one batch; each its own if not."""
        data = b""
        if self.rank == 0 and call is not None:
            buffer = io.BytesIO()
            with contextlib.suppress(Exception):  # not all that a model can be given can be sent
                torch.save((call.args, call.kwargs), buffer)
                data = buffer.getvalue()
        size = torch.tensor([len(data)])
        self._broadcast(size)
        if not int(size):
            return call
        content = torch.frombuffer(bytearray(data or int(size)), dtype=torch.uint8)
        self._broadcast(content)
        if self.rank == 0:
            return call
        return _loaded(content.numpy().tobytes(), self._device)

    def vote(self, level: int) -> None:
        """Say which level is wanted, without waiting: the highest that a rank asks for is agreed on."""
        ballot = torch.tensor([level])
        self._vote = self._maximum(ballot), ballot

    def outcome(self) -> int | None:
        """Wait for the vote under way and return what was agreed; None without one. Raises on a lost rank."""
        vote, self._vote = self._vote, None
        if vote is None:
            return None
        vote[0].wait()
        return int(vote[1])

    def compare(self, mark: int) -> Comparison:
        """Begin to find out whether all ranks have the same mark."""
        # The greatest, and the least with its sign turned, in one go.
        marks = torch.tensor([mark, -mark])
        return Comparison(self._maximum(marks), marks)

    def close(self) -> None:
        """Give up the connections."""
        self._vote = self._gloo = self._store = None

    def _maximum(self, value: torch.Tensor) -> Any:
        options: Any = dist.AllreduceOptions()
        options.reduceOp = dist.ReduceOp.MAX
        options.timeout = self._timeout
        return self._gloo.allreduce([value], options)

    def _broadcast(self, value: torch.Tensor) -> None:
        options = dist.BroadcastOptions()
        options.rootRank = 0
        self._gloo.broadcast([value], options).wait()


class Comparison:
    """Whether all ranks have the same mark, to be known later."""

    def __init__(self, work: Any, marks: torch.Tensor) -> None:
        self._work, self._marks = work, marks

    def equal(self) -> bool:
        """Wait for the last rank. Raises if one is lost."""
        self._work.wait()
        return int(self._marks[0]) == -int(self._marks[1])


def averaged(params: Iterable[torch.Tensor], group: Any, *, bucket_bytes: int, some_unused: bool) -> None:
    """Replace each gradient by its mean over the ranks, all of which give the same parameters.

    With `some_unused`, a rank without a gradient counts as zero, and what no rank has stays None.
    """
    size = dist.get_world_size(group)
    under_way = []
    for bucket in _buckets(params, bucket_bytes):
        parts = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in bucket]
        if some_unused:
            parts.append(parts[0].new_tensor([float(p.grad is not None) for p in bucket]))
        flat = torch.cat(parts).mul_(1 / size)  # before the sum, as DDP does: half precision may overflow
        under_way.append((dist.all_reduce(flat, group=group, async_op=True), flat, bucket))
    for work, flat, bucket in under_way:
        work.wait()
        sizes = [p.numel() for p in bucket]
        means = torch.split(flat[: sum(sizes)], sizes)
        used = flat[sum(sizes) :].tolist() if some_unused else [1.0] * len(bucket)
        for param, mean, share in zip(bucket, means, used, strict=True):
            if param.grad is not None:
                param.grad.copy_(mean.view_as(param))
            elif share > 0:
                param.grad = mean.view_as(param).clone()


def _buckets(params: Iterable[torch.Tensor], bucket_bytes: int) -> list[list[torch.Tensor]]:
    """Put tensors of one kind together, in their order, as many as fit."""
    buckets: list[list[torch.Tensor]] = []
    last: dict[Any, tuple[list[torch.Tensor], int]] = {}
    for param in params:
        kind = param.dtype, param.device
        nbytes = param.numel() * param.element_size()
        bucket, filled = last.get(kind, ([], 0))
        if not bucket or filled + nbytes > bucket_bytes:
            bucket, filled = [], 0
            buckets.append(bucket)
        bucket.append(param)
        last[kind] = bucket, filled + nbytes
    return buckets


def _loaded(data: bytes, device: torch.device) -> Call:
    def place(storage: Any, location: str) -> Any:
        # What lay on rank 0's device lies on one's own; what lay on the host stays there.
        own = str(device) if location.partition(":")[0] == device.type else location
        return torch.serialization.default_restore_location(storage, own)  # type: ignore[no-untyped-call]

    args, kwargs = torch.load(io.BytesIO(data), map_location=place, weights_only=False)
    return Call(args, kwargs)


def _timeout(group: Any, device: torch.device) -> timedelta:
    """Return how long the job's own collectives would wait for a rank."""
    try:
        found = group._get_backend(device).options._timeout
    except Exception:
        found = None
    return found if isinstance(found, timedelta) else timedelta(minutes=30)
