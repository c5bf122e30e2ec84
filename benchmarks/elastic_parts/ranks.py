"""Claim: several processes change level together, stay equal bit for bit, and send what the level has.

    python benchmarks/elastic_parts/ranks.py [--quick]

Two ranks with gloo on this machine, one thread each. Wall time, as what is measured is largely waiting;
variants are interleaved step by step.
"""

from __future__ import annotations

import logging
import random
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from part import at_socket, main
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import greend_agent
from greend_agent.engines import together

RANKS, LEVELS, WIDTH, HIDDEN, BATCH = 2, 4, 256, 1024, 32
STEP_S = 0.11
"""How long a step is whose share the vote must not exceed."""


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


def model(depth: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(Block() for _ in range(depth)), nn.Linear(WIDTH, 10))


def batch(rank: int, number: int, rows: int = BATCH) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1000 * rank + number)
    x = torch.randn(rows, WIDTH, generator=generator)
    return x, torch.randint(10, (rows,), generator=generator)


def step(net: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> None:
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(x), y).backward()
    optimizer.step()


class Job:
    """One rank's side of a training."""

    def __init__(self, rank: int, depth: int = 4) -> None:
        self.rank, self.inner, self.number = rank, model(depth), 0
        self.ddp = DistributedDataParallel(self.inner)
        self.optimizer = torch.optim.AdamW(self.ddp.parameters(), lr=1e-3)
        self.agent = greend_agent.attach(self.ddp, self.optimizer, levels=LEVELS)
        self.engine: Any = self.agent._loop.engine

    def step(self, level: int, rows: int = BATCH) -> float:
        """Make a step, ask for the level of the next, and return the seconds."""
        if self.rank == 0:
            self.agent.request(level)
        x, y = batch(self.rank, self.number, rows)
        self.number += 1
        began = time.perf_counter()
        step(self.ddp, self.optimizer, x, y)
        return time.perf_counter() - began

    def close(self) -> None:
        self.agent.detach()


def equality(rank: int, steps: int) -> dict[str, Any]:
    """Random levels: how far the ranks are apart, and the levels and weights to compare with one process."""
    job, drawn, levels = Job(rank), random.Random(0), []
    for _ in range(steps):
        job.step(drawn.randrange(LEVELS))
        levels.append(job.agent.level)
    job.close()
    own = torch.cat([p.detach().flatten() for p in job.inner.parameters()])
    first = own.clone()
    dist.broadcast(first, 0)
    apart = (own - first).abs().max()
    dist.all_reduce(apart, dist.ReduceOp.MAX)
    return {"ranks_difference": float(apart), "levels": levels, "weights": own}


def in_one_process(levels: list[int]) -> torch.Tensor:
    """Return the weights of one process on the batches of all ranks, at the same levels."""
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    agent = greend_agent.attach(net, optimizer, levels=LEVELS)
    for number, level in enumerate(levels):
        agent.request(level)
        pairs = [batch(rank, number) for rank in range(RANKS)]
        step(net, optimizer, torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]))
    agent.detach()
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def traffic(rank: int) -> dict[str, float]:
    """Bytes that one rank gives to be summed in a step at level 0, relative to those at the top."""
    job, sent = Job(rank), [0]
    whole = dist.all_reduce

    def counted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        sent[0] += tensor.numel() * tensor.element_size()
        return whole(tensor, *args, **kwargs)

    for _ in range(3):
        job.step(0)
    dist.all_reduce = counted
    job.step(0)
    dist.all_reduce = whole
    at_top = sum(p.numel() * p.element_size() for p in job.inner.parameters())
    job.close()
    return {"ddp_bytes": sent[0] / at_top, "bytes_top": at_top}


def switching(rank: int, rounds: int) -> dict[str, float]:
    """What the agent does at the step at which the level changes, and the engine's part of it.

    Windows and the moments of what opens; votes, and hooks or a new reducer.
    """
    job = Job(rank)
    whole, part = _Timed(job.agent._loop, "_begin"), _Timed(job.engine, "level")
    down: list[tuple[float, float]] = []
    up: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        for level, into in ((0, []), (0, down), (LEVELS - 1, []), (LEVELS - 1, up)):
            job.step(level)
            into.append((whole.took_s, part.took_s))
    job.close()
    found = {
        name: statistics.median([one[which] for one in times[1:]]) * 1e3
        for name, times, which in (
            ("switch_down_ms", down, 0),
            ("switch_up_ms", up, 0),
            ("engine_down_ms", down, 1),
            ("engine_up_ms", up, 1),
        )
    }
    return {"ddp_switch_ms": max(found["switch_down_ms"], found["switch_up_ms"]), **found}


class _Timed:
    """Takes the place of a method, and notes how long its last call took."""

    def __init__(self, owner: Any, name: str) -> None:
        self._inner, self.took_s = getattr(owner, name), 0.0
        setattr(owner, name, self)

    def __call__(self, *args: Any) -> Any:
        began = time.perf_counter()
        try:
            return self._inner(*args)
        finally:
            self.took_s = time.perf_counter() - began


def ways(rank: int, rounds: int) -> dict[str, float]:
    """A step at level 0 with our own averaging, and with a reducer that is made anew in each such step."""
    from greend_agent.engines import ddp

    own, rebuilt = Job(rank), Job(rank)
    engine = rebuilt.engine
    engine._bypass = lambda: None
    engine.lowered = lambda level: ddp._rebuild(rebuilt.ddp)
    for job in (own, rebuilt):
        for _ in range(3):
            job.step(0)
    times: dict[str, list[float]] = {"own": [], "rebuilt": []}
    for _ in range(rounds):
        for name, job in (("own", own), ("rebuilt", rebuilt)):
            times[name].append(job.step(0))
    own.close()
    ratio = statistics.median(a / b for a, b in zip(times["own"], times["rebuilt"], strict=True))
    return {"own_step_ms": statistics.median(times["own"]) * 1e3, "own_to_rebuilt_ratio": ratio}


def agreement(rank: int, rounds: int) -> dict[str, float]:
    """A step at the top with a vote on the level and without; as long as the level stands, few have one.

    What a vote adds to the CPU time of all threads, and besides, how long the loop is in it: more than the
    whole, as the loop's own CPU time there counts twice, but the same on a machine that is busy.
    """
    job, rows = Job(rank), 64
    for _ in range(3):
        job.step(LEVELS - 1, rows)
    while (seconds := _slowest(min(_cpu_s(job, rows) for _ in range(3)))) < STEP_S:
        rows = round(rows * min(4.0, max(1.1, 1.05 * STEP_S / seconds)))
    times: dict[bool, list[float]] = {True: [], False: []}
    voting, drawn = _Timed(job.engine, "level"), random.Random(0)
    in_vote: list[float] = []
    for _ in range(rounds):
        for votes in drawn.sample([True, False], 2):
            dist.barrier()
            job.engine._agreed, job.engine._calm = votes, 0  # a vote in each step
            times[votes].append(_cpu_s(job, rows))
            in_vote += [voting.took_s] if votes else []
    job.engine._agreed = True
    job.close()
    added = statistics.median(a / b for a, b in zip(times[True], times[False], strict=True)) - 1
    step_s = statistics.median(times[False])
    waited = statistics.median(in_vote) / step_s
    return {
        "agreement_overhead": (max(0.0, added) + waited) / together.SELDOM,
        "agreement_changing": max(0.0, added) + waited,
        "step_ms": step_s * 1e3,
    }


def _cpu_s(job: Job, rows: int) -> float:
    began = time.process_time()
    job.step(LEVELS - 1, rows)
    return time.process_time() - began


def _slowest(seconds: float) -> float:
    value = torch.tensor([seconds])
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return float(value)


def _serve(rank: int, folder: str, quick: bool) -> None:
    torch.set_num_threads(1)
    logging.getLogger("greend").setLevel(logging.ERROR)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/ranks",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=120),
    )
    found = equality(rank, 8 if quick else 60)
    found |= traffic(rank)
    found |= switching(rank, 5 if quick else 30)
    found |= ways(rank, 6 if quick else 100)
    found |= agreement(rank, 6 if quick else 150)
    if rank == 0:
        torch.save(found, Path(folder) / "found")
    dist.barrier()
    dist.destroy_process_group()


def measure(quick: bool) -> dict[str, float]:
    """Return the figures; the first five are claims."""
    logging.getLogger("greend").setLevel(logging.ERROR)  # no daemon is wanted here
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder, at_socket(f"{folder}/nobody.sock"):
        mp.spawn(_serve, (folder, quick), nprocs=RANKS)
        found = torch.load(Path(folder) / "found")
        torch.set_num_threads(1)
        apart = (found.pop("weights") - in_one_process(found.pop("levels"))).abs().max()
        torch.set_num_threads(threads)
    claims = ("ranks_difference", "ddp_switch_ms", "ddp_bytes", "agreement_overhead")
    first = {"ranks_vs_one": float(apart), **{name: found.pop(name) for name in claims}}
    return {**first, **found}


if __name__ == "__main__":
    main(measure, __doc__)
