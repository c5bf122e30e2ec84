"""A training with DistributedDataParallel on one of several ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import greend_agent

from .nets import OPTIMIZERS, batches, net, step


class Job:
    """A model on one rank of several, and its agent."""

    def __init__(
        self, rank: int, model: nn.Module, kind: str = "adamw", attach: bool = True, **options
    ) -> None:
        self.rank, self.inner = rank, model
        self.model = DistributedDataParallel(model, **options)
        self.optimizer = OPTIMIZERS[kind](self.model.parameters())
        self.agent = greend_agent.attach(self.model, self.optimizer) if attach else None
        self.levels: list[int] = []

    def ask(self, level: int) -> None:
        if self.rank == 0 and self.agent is not None:
            self.agent.request(level)

    def steps(self, sequence, seed: int = 10) -> Job:
        for x, level in zip(batches(len(sequence), seed + self.rank), sequence, strict=True):
            self.ask(level)
            step(self.model, self.optimizer, x)
            self.levels.append(self.agent.level if self.agent is not None else 3)
        return self

    def difference(self) -> float:
        return difference(self.inner.parameters())

    def result(self):
        return list(self.levels), self.difference(), numbers(self.inner), self.agent.report()[0]


def numbers(model: nn.Module) -> list:
    return [p.detach().tolist() for p in model.parameters()]


def difference(tensors) -> float:
    """Return the greatest difference of a rank's numbers to those of rank 0."""
    own = torch.cat([t.detach().double().flatten() for t in tensors])
    first = own.clone()
    dist.broadcast(first, 0)
    worst = (own - first).abs().max()
    dist.all_reduce(worst, dist.ReduceOp.MAX)
    return float(worst)


def gap(one: list, other: list) -> float:
    pairs_ = zip(one, other, strict=True)
    return max(float((torch.tensor(a) - torch.tensor(b)).abs().max()) for a, b in pairs_)


def union(levels: list[int], kind: str = "adamw", seed: int = 10) -> list:
    """Return the weights of one process on the batches of both ranks, at the same levels."""
    model = net()
    optimizer = OPTIMIZERS[kind](model.parameters())
    agent = greend_agent.attach(model, optimizer)
    for x, y, level in zip(*(batches(len(levels), seed + r) for r in (0, 1)), levels, strict=True):
        agent.request(level)
        step(model, optimizer, torch.cat([x, y]))
        assert agent.level == level or agent.step_count == 1
    return numbers(model)
